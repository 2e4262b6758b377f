"""
Draw every figure of the README again.

    python img/draw_figures.py                              all of them
    python img/draw_figures.py --only offsets.png vgg16.png
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# The figures are computed by the functions of the folder above
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import box_figures
import code_figures
import data_figures
import detection_figures
import fc_figures
import kernel_figures
import network_figures
import prediction_figures
import prior_figures
import style
import train
import trained_figures
import training_figures
from runtime import read_command_line, readable_errors

FOLDER = Path(__file__).resolve().parent
MODULES = (
    box_figures,
    network_figures,
    fc_figures,
    kernel_figures,
    prior_figures,
    prediction_figures,
    training_figures,
    detection_figures,
    data_figures,
    code_figures,
    trained_figures,
)


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    only: tuple = ()  # names of the figures to draw; none: all of them
    checkpoint: str = "toy/checkpoint_ssd300.pth.tar"  # shows its detections; see train.py --toy
    output_folder: str = str(FOLDER)  # where the figures are written


def all_figures():
    """
    Every figure by its file name.

    :return: {name: function without arguments}, and {name: function of a checkpoint's path}
    """
    figures = {}
    of_checkpoint = {}
    for module in MODULES:
        figures |= module.FIGURES
        of_checkpoint |= getattr(module, "TRAINED_FIGURES", {})
    return figures, of_checkpoint


def find_checkpoint(path):
    """
    Check that a trained detector and its history are there. If the toy data's detector is missing,
    train it.

    :raises FileNotFoundError: a checkpoint other than the toy data's is missing
    """
    history = Path(path).with_name("history.jsonl")
    if Path(path).is_file() and history.is_file():
        return
    if path != Parameters.checkpoint:
        raise FileNotFoundError(
            f"{path}: this checkpoint does not exist, or there is no history.jsonl beside it. "
            "Create both with train.py --toy, or choose other figures with --only."
        )
    print(f"{path} or its history.jsonl is missing: training on the toy data first, for a while.")
    train.main(train.Parameters(toy=True))


def check_names(names, known):
    """:raises ValueError: there is no figure of one of these names"""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(
            f"--only: there is no figure called {', '.join(unknown)}; "
            f"expected some of {', '.join(known)}"
        )


def main(parameters):
    """
    Draw figures and write them.

    :raises ValueError: there is no such figure
    :raises FileNotFoundError: there is no such checkpoint
    """
    figures, of_checkpoint = all_figures()
    check_names(parameters.only, [*figures, *of_checkpoint])
    wanted = parameters.only or (*figures, *of_checkpoint)
    if any(name in of_checkpoint for name in wanted):
        find_checkpoint(parameters.checkpoint)
    for name, draw in of_checkpoint.items():
        figures[name] = partial(draw, parameters.checkpoint)
    output_folder = Path(parameters.output_folder)
    output_folder.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        path = output_folder / name
        style.save(figures[name](), path)
        print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    with readable_errors():
        main(read_command_line(Parameters, __doc__)[0])
