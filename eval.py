"""Evaluate a checkpoint: the average precision of each class on the test images, and their mean (mAP)."""

import math
import sys
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from checkpoints import load_model
from datasets import PascalVOCDataset, collate_fn
from model import UnavailableWeightsError, autocast, choose_device
from utils import calculate_mAP, describe_error, read_command_line


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    data_folder: str = "data"  # folder with the lists that create_data_lists.py wrote
    checkpoint: str = "checkpoint_ssd300.pth.tar"  # the model to evaluate, of any kind that is known here, or coco
    batch_size: int = 32  # images at a time
    workers: int = 4  # processes that read and prepare images; 0: this one does it
    device: str = "auto"  # cuda, cpu, or auto for a GPU if there is one
    precision: str = "auto"  # of the convolutions: float32, bfloat16, or auto for bfloat16 where the hardware has it
    # The settings that the published figures were measured with (paper, section 3.7; VOC2007 devkit)
    min_score: float = 0.01  # a class's probability must be above this
    max_overlap: float = 0.45  # Jaccard overlap above which the worse of two boxes of a class goes
    top_k: int = 200  # most detections an image
    metric: str = "11-point"  # average precision as VOC2007 defines it, or area: under the curve, as VOC2010 does


class Evaluation(NamedTuple):
    """What an evaluation finds."""

    average_precisions: dict  # {class name: AP from 0 to 1, NaN for a class without countable objects}
    mAP: float
    losses: dict  # {"confidence", "localization"}: means over the images; empty without a criterion


@torch.inference_mode()
def evaluate(
    test_loader, model, criterion=None, min_score=0.01, max_overlap=0.45, top_k=200, metric="11-point", precision="auto"
):
    """
    Detect the objects of all test images and hold them against the truth; on the way, add up the loss if asked for.

    :param test_loader: DataLoader over a PascalVOCDataset of the TEST split
    :param model: SSD300, in eval mode afterwards
    :param criterion: MultiBoxLoss, or None
    :param min_score, max_overlap, top_k: see SSD300.detect_objects
    :param metric: see utils.calculate_mAP
    :param precision: see model.autocast
    :return: Evaluation
    """
    model.eval()
    device = model.priors_cxcy.device
    detections, truths = ([], [], []), ([], [], [])  # boxes, labels, scores; boxes, labels, difficulties: a tensor an image
    sums = dict.fromkeys(("confidence", "localization"), 0.0) if criterion is not None else {}
    for images, boxes, labels, difficulties in tqdm(test_loader, desc="evaluating", unit="batch", leave=False):
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        with autocast(device, precision):
            predicted_locs, predicted_scores = model(images)
        if criterion is not None:
            losses = criterion.components(
                predicted_locs, predicted_scores, [box.to(device) for box in boxes], [label.to(device) for label in labels]
            )
            sums = {name: total + float(losses[name]) * len(images) for name, total in sums.items()}
        found = model.detect_objects(predicted_locs, predicted_scores, min_score, max_overlap, top_k)
        for all_found, some_found in zip(detections, found, strict=True):
            all_found += [tensor.cpu() for tensor in some_found]
        for all_true, some_true in zip(truths, (boxes, labels, difficulties), strict=True):
            all_true += some_true
    dataset = test_loader.dataset
    average_precisions, mAP = calculate_mAP(*detections, *truths, label_map=dataset.label_map, metric=metric)
    return Evaluation(average_precisions, mAP, {name: total / len(dataset) for name, total in sums.items()})


def print_average_precisions(average_precisions, mAP, metric="11-point"):
    """Print a table of the average precision of each class, in percent, and their mean."""
    width = max(len("mAP (11-point)"), *map(len, average_precisions)) + 2
    print(f"\n{'class':<{width}}{'AP':>6}")
    for name, ap in [*average_precisions.items(), (f"mAP ({metric})", mAP)]:
        print(f"{name:<{width}}" + ("   n/a" if math.isnan(ap) else f"{100 * ap:6.1f}"))


def main(parameters):
    """
    Evaluate a checkpoint and print the table.

    :param parameters: Parameters
    :return: Evaluation
    :raises FileNotFoundError: the checkpoint or a list is missing
    :raises ValueError: the checkpoint is damaged or knows other classes than the lists, or there are no test images
    """
    device = choose_device(parameters.device)
    dataset = PascalVOCDataset(parameters.data_folder, "TEST")
    if len(dataset) == 0:
        raise ValueError(f"{parameters.data_folder}: TEST_images.json lists no images: make lists with a test set")
    model = load_model(parameters.checkpoint, device)
    if model.label_map != dataset.label_map:
        raise ValueError(
            f"{parameters.checkpoint} was trained on the classes {list(model.label_map)}, but {parameters.data_folder} has "
            f"{list(dataset.label_map)}: evaluate it on the data it was trained for (--data-folder)"
        )
    loader = DataLoader(
        dataset, parameters.batch_size, num_workers=parameters.workers, collate_fn=collate_fn, pin_memory=device.type == "cuda"
    )
    evaluation = evaluate(
        loader, model, None, parameters.min_score, parameters.max_overlap, parameters.top_k, parameters.metric,
        parameters.precision,
    )  # fmt: skip
    print_average_precisions(evaluation.average_precisions, evaluation.mAP, parameters.metric)
    return evaluation


if __name__ == "__main__":
    try:
        main(read_command_line(Parameters, __doc__)[0])
    except (OSError, ValueError, UnavailableWeightsError) as error:
        sys.exit(describe_error(error))
