"""
Redraw every figure of the README.

    python img/draw_figures.py                              all of them
    python img/draw_figures.py --only offsets.png vgg16.png
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # the functions taught are in the files of the folder above

import box_figures
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
from runtime import describe_error, read_command_line

FOLDER = Path(__file__).resolve().parent
MODULES = (
    box_figures, network_figures, fc_figures, kernel_figures, prior_figures, prediction_figures, training_figures,
    detection_figures, data_figures, trained_figures,
)  # fmt: skip


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    only: tuple = ()  # names of figures to draw; none: all of them
    checkpoint: str = "toy/checkpoint_ssd300.pth.tar"  # the detector whose detections are shown: train.py --toy makes it
    output_folder: str = str(FOLDER)  # where the figures go


def all_figures():
    """Every figure: {file name: function without arguments}, and {file name: function of a checkpoint's path}."""
    figures, trained = {}, {}
    for module in MODULES:
        figures |= module.FIGURES
        trained |= getattr(module, "TRAINED_FIGURES", {})
    return figures, trained


def find_checkpoint(path):
    """
    Train the toy set if its detector is wanted and not there.

    :raises FileNotFoundError: another checkpoint is wanted, and not there
    """
    if all(file.is_file() for file in (Path(path), Path(path).with_name("history.jsonl"))):
        return
    if path != Parameters.checkpoint:
        raise FileNotFoundError(
            f"{path}: not there, or no history.jsonl beside it: make both with train.py --toy, or use --only"
        )
    print(
        f"{path} or its history.jsonl is not there: the toy set is trained first, which takes some time."
    )
    train.main(train.Parameters(toy=True))


def main(parameters):
    """
    Draw figures and write them.

    :raises ValueError: there is no such figure
    :raises FileNotFoundError: there is no such checkpoint
    """
    figures, trained = all_figures()
    unknown = set(parameters.only) - set(figures) - set(trained)
    if unknown:
        raise ValueError(
            f"--only: no figure is called {', '.join(sorted(unknown))}: there are {', '.join(figures | trained)}"
        )
    wanted = parameters.only or (*figures, *trained)
    if any(name in trained for name in wanted):
        find_checkpoint(parameters.checkpoint)
    output_folder = Path(parameters.output_folder)
    output_folder.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        drawn = figures[name]() if name in figures else trained[name](parameters.checkpoint)
        style.save(drawn, output_folder / name)
        print(f"{output_folder / name}: {(output_folder / name).stat().st_size // 1000} kB")


if __name__ == "__main__":
    try:
        main(read_command_line(Parameters, "Redraw the figures of the README.")[0])
    except (OSError, ValueError) as error:
        sys.exit(describe_error(error))
