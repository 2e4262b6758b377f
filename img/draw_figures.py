"""
Draw every figure of the README again.

    python img/draw_figures.py                              all of them
    python img/draw_figures.py --only offsets.png vgg16.png

What trained detectors found stands in img/results.json; record_results.py writes it.
"""

import sys
from dataclasses import dataclass
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
    output_folder: str = str(FOLDER)  # where the figures are written


def all_figures():
    """Every figure by its file name: {name: function without arguments}."""
    figures = {}
    for module in MODULES:
        figures |= module.FIGURES
    return figures


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
    """
    figures = all_figures()
    check_names(parameters.only, figures)
    output_folder = Path(parameters.output_folder)
    output_folder.mkdir(parents=True, exist_ok=True)
    for name in parameters.only or figures:
        path = output_folder / name
        style.save(figures[name](), path)
        print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    with readable_errors():
        main(read_command_line(Parameters, __doc__)[0])
