"""
What parts of the training are worth: short trainings on drawings, with all parts and without one of
them, each with several seeds. The mAPs go into img/results.json.

    python img/ablations.py                                          all of them
    python img/ablations.py --only no_augmentation --seeds 2         some of them

The detector's own code has no switches for this: its functions are replaced from outside.
"""

import contextlib
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest import mock

# The detector is trained by the functions of the folder above
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import train
from model import FEATURE_MAPS, SSD300, MultiBoxLoss, PredictionConvolutions
from record_results import read_results, write_results
from runtime import read_command_line, readable_errors
from utils import transform

# What --toy does, but shorter and on fewer drawings
SETTINGS = train.Parameters(
    toy=True,
    toy_images=150,
    iterations=100,  # 1,600 steps of 2 images
    validate_every=1000,  # once, after the last epoch
    precision="float32",
)


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    only: tuple = ()  # names of the ablations to train; none: all of them
    seeds: int = 5  # trainings of each, with the seeds 0, 1, 2 ...


# ---------------------------------------------------------------------------- what is taken away


def no_hard_negative_mining():
    """All priors without an object count in the confidence loss, instead of the hardest ones."""
    n_priors = len(SSD300.create_prior_boxes())
    return mock.patch.object(train, "MultiBoxLoss", partial(MultiBoxLoss, neg_pos_ratio=n_priors))


def no_augmentation():
    """Training images are prepared as others are: squeezed to the network's input."""

    def prepare(image, boxes, labels, difficulties, *_):
        return transform(image, boxes, labels, difficulties, "TEST")

    return mock.patch.object(datasets, "transform", prepare)


@contextlib.contextmanager
def no_conv4_3():
    """The finest of the six feature maps has neither priors nor predictions."""
    finest = FEATURE_MAPS["conv4_3"]
    n_less = finest.side**2 * finest.n_priors
    all_priors = SSD300.create_prior_boxes()
    predict = PredictionConvolutions.forward

    def priors():
        return all_priors[n_less:]

    def forward(pred_convs, *feature_maps):
        locs, scores = predict(pred_convs, *feature_maps)
        return locs[:, n_less:], scores[:, n_less:]

    with (
        mock.patch.object(SSD300, "create_prior_boxes", staticmethod(priors)),
        mock.patch.dict(train.PRIORS, paper=priors),
        mock.patch.object(PredictionConvolutions, "forward", forward),
    ):
        yield


ABLATIONS = {
    "nothing": contextlib.nullcontext,
    "no_hard_negative_mining": no_hard_negative_mining,
    "no_augmentation": no_augmentation,
    "no_conv4_3": no_conv4_3,
}


# ------------------------------------------------------------------------------------- trainings


def mean_average_precision(seed):
    """
    Train on drawings, with what is in place.

    :param seed: of drawings, initial weights, order and augmentation
    :return: mAP on 200 other drawings, as a fraction
    """
    with tempfile.TemporaryDirectory() as folder:
        history = train.main(replace(SETTINGS, seed=seed, data_folder=folder, output_folder=folder))
    return history[-1]["mAP"]


def main(parameters):
    """
    Train what is asked for, and write the mAPs.

    :raises ValueError: an ablation has another name
    """
    for name in parameters.only:
        if name not in ABLATIONS:
            raise ValueError(f"only: expected some of {', '.join(ABLATIONS)}, got {name!r}")
    for name in parameters.only or ABLATIONS:
        values = []
        for seed in range(parameters.seeds):
            with ABLATIONS[name]():
                values.append(round(mean_average_precision(seed), 4))
        write_values(name, values)
        print(f"{name}: mAP {', '.join(f'{100 * value:.1f}' for value in values)}")


def write_values(name, values):
    """Put the mAPs of an ablation into the file of results, which has others as well."""
    results = read_results()
    results.setdefault("ablations", {})[name] = values
    write_results(results)


if __name__ == "__main__":
    with readable_errors():
        main(read_command_line(Parameters, __doc__)[0])
