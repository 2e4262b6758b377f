"""
Write down what trained detectors find in the pictures that the figures show, and how the training
of one of them went: in img/results.json, so that figures can be drawn again without training.

    python img/record_results.py --toy toy/checkpoint_ssd300.pth.tar
    python img/record_results.py --animals animals/checkpoint_ssd300.pth.tar
    python img/record_results.py --blood blood/checkpoint_ssd300.pth.tar

What is not given stays as it was.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

# Detectors are run by the functions of the folder above
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checkpoints import load_model
from datasets import read_image
from detect import Parameters as Detection
from detect import find_objects
from runtime import read_command_line, readable_errors
from toy_data import draw_toy_image

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"
PHOTOGRAPHS = FOLDER / "photographs"

# The photographs that the detectors are shown. That of blood cells is one of BCCD's test images
# (MIT licence, copyright 2017 shenggan)
ANIMALS = ("cat.jpg", "astronaut.jpg", "coffee.jpg")
BLOOD = ("blood_cells.jpg",)

SCENES_SEED = 1000  # of the drawn scenes; the toy data have another one
N_SCENES = 20
MIN_SCORE = 0.1  # the lowest that any figure shows


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    toy: str = ""  # checkpoint of a detector of the toy data
    animals: str = ""  # checkpoint of one of cats, persons ..., with its history.jsonl beside it
    blood: str = ""  # checkpoint of one of blood cells


def detections_in(image, model):
    """
    What a detector finds, with numbers rounded so that the file stays small.

    :param image: PIL image
    :return: list of [class name, score, [x_min, y_min, x_max, y_max] in pixels], best first
    """
    settings = Detection()
    found = find_objects(image, MIN_SCORE, settings.max_overlap, settings.top_k, model=model)
    return [[name, round(score, 3), [round(edge, 1) for edge in box]] for name, score, box in found]


def record_scenes(checkpoint):
    """
    Run a detector on drawn scenes.

    :return: {"classes": names, "scenes": the detections in each scene}
    """
    model = load_model(checkpoint)
    classes = list(model.label_map)[1:]  # without background
    scenes = []
    for number in range(N_SCENES):
        image, _ = draw_toy_image(SCENES_SEED, number, classes)
        scenes.append(detections_in(image, model))
    return {"classes": classes, "scenes": scenes}


def record_photographs(checkpoint, names):
    """
    Run a detector on photographs.

    :param names: files in the folder PHOTOGRAPHS
    :return: {file name: the detections}
    """
    model = load_model(checkpoint)
    return {name: detections_in(read_image(PHOTOGRAPHS / name), model) for name in names}


def read_history(checkpoint):
    """The rows of the history.jsonl beside a checkpoint, with what the figure of curves shows."""
    text = Path(checkpoint).with_name("history.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    shown = ("epoch", "loss", "validation_loss", "mAP")
    return [
        {name: round(row[name], 4) for name in shown if row.get(name) is not None} for row in rows
    ]


def read_results():
    """What is in the file so far; an empty dict if there is none."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def write_results(results):
    """Replace what is in the file."""
    RESULTS.write_text(json.dumps(results), encoding="utf-8")


def main(parameters):
    """
    Run the detectors that are given, and write their results.

    :raises FileNotFoundError: a checkpoint or its history is missing
    """
    results = read_results()
    if parameters.toy:
        results["toy"] = record_scenes(parameters.toy)
    if parameters.animals:
        results["animals"] = record_photographs(parameters.animals, ANIMALS)
        results["history"] = read_history(parameters.animals)
    if parameters.blood:
        results["blood"] = record_photographs(parameters.blood, BLOOD)
    write_results(results)
    print(f"{RESULTS}: {RESULTS.stat().st_size // 1000} kB")


if __name__ == "__main__":
    with readable_errors():
        main(read_command_line(Parameters, __doc__)[0])
