"""
COCO's average precision, as its own program computes it: pycocotools, which is optional. The mean
over ten overlaps rewards boxes that fit well, and objects are told apart by their size.
"""

import contextlib
import io
from typing import NamedTuple

from annotations import printable

# (name, index of the overlap or all of them, index of the range of sizes) in COCOeval's results
ALL_OVERLAPS = slice(None)
COLUMNS = {
    "AP": (ALL_OVERLAPS, 0),  # the mean over overlaps of 0.50, 0.55 ... 0.95
    "AP50": (0, 0),
    "AP75": (5, 0),
    "AP small": (ALL_OVERLAPS, 1),  # objects of less than 32 x 32 pixels
    "AP medium": (ALL_OVERLAPS, 2),  # up to 96 x 96
    "AP large": (ALL_OVERLAPS, 3),
}
MAX_DETECTIONS = 100  # of a class in an image, the best


class CocoResult(NamedTuple):
    """COCO's figures, from 0 to 1, NaN where there is no object to be found: {column: value}."""

    classes: dict  # {class name: figures}
    mean: dict  # figures of all classes


def load_pycocotools():
    """
    :return: the classes COCO and COCOeval
    :raises ValueError: pycocotools is not installed
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ValueError(
            f"metric coco: it needs pycocotools ({error}): pip install pycocotools"
        ) from error
    return COCO, COCOeval


def calculate_coco_mAP(
    det_boxes_px, det_labels, det_scores, true_boxes_px, true_labels, true_difficulties, label_map
):
    """
    COCO's average precisions (cocodataset.org, "Detection evaluation"): 101 points of recall, the
    100 best detections of a class in an image.

    All arguments but the last are lists with one tensor per image, as those of
    utils.calculate_mAP, but boxes have to be in pixels, since COCO tells objects apart by their
    size. (That is the area of the box here; in COCO's own data, that of the object's outline.)

    :param true_difficulties: a difficult object counts as one of COCO's crowds: missing it is no
        error, and detections inside of it are ignored, however many
    :param label_map: {class name: number}; objects and detections of other numbers are left out
    :return: CocoResult
    :raises ValueError: pycocotools is not installed
    """
    truth = true_boxes_px, true_labels, true_difficulties
    detections = det_boxes_px, det_labels, det_scores
    classes = {name: number for name, number in label_map.items() if number > 0}
    objects = annotations(*truth, "iscrowd", classes.values())
    results = annotations(*detections, "score", classes.values())
    precision = run_cocoeval(objects, results, len(true_labels), sorted(classes.values()))
    by_class = {}
    for name, number in classes.items():
        place = sorted(classes.values()).index(number)
        by_class[name] = summarize(precision[:, :, place : place + 1])
    return CocoResult(by_class, summarize(precision))


def annotations(boxes_px, labels, values, value_name, numbers):
    """
    Objects or detections in COCO's form.

    :param boxes_px, labels, values: lists with a tensor per image
    :param value_name: what COCO calls the values, "iscrowd" or "score"
    :param numbers: of the classes to keep
    :return: list of dicts
    """
    entries = []
    for image, tensors in enumerate(zip(boxes_px, labels, values, strict=True)):
        for box, label, value in zip(*(tensor.tolist() for tensor in tensors), strict=True):
            if label not in numbers:
                continue
            x_min, y_min, x_max, y_max = box
            width = x_max - x_min
            height = y_max - y_min
            entry = {
                "id": len(entries) + 1,  # not 0, which COCOeval takes for "no match"
                "image_id": image,
                "category_id": label,
                "bbox": [x_min, y_min, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
            entries.append(entry | {value_name: value})
    return entries


def run_cocoeval(objects, results, n_images, numbers):
    """
    :param objects, results: see annotations
    :param n_images: number of images, with and without objects
    :param numbers: of the classes, ascending
    :return: (10, 101, K, 4, 1) array: precision by overlap, recall, class, size and number of
        detections; -1 where there is no object
    """
    COCO, COCOeval = load_pycocotools()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        sides = []
        for entries in (objects, results):
            side = COCO()
            side.dataset = {
                "images": [{"id": image} for image in range(n_images)],
                "categories": [{"id": number} for number in numbers],
                "annotations": entries,
            }
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, iouType="bbox")
        evaluator.params.imgIds = list(range(n_images))
        evaluator.params.catIds = list(numbers)
        evaluator.params.maxDets = [MAX_DETECTIONS]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval["precision"]


def summarize(precision):
    """:return: {column: mean of the precisions in question, NaN where there are none}"""
    figures = {}
    for name, (overlaps, size) in COLUMNS.items():
        values = precision[overlaps, ..., size, 0]
        known = values[values > -1]
        figures[name] = float(known.mean()) if known.size else float("nan")
    return figures


def print_coco(result):
    """Print a table of COCO's figures in percent."""
    width = max(len("all classes"), *map(len, result.classes)) + 2
    print(f"\n{'class':<{width}}" + "".join(f"{name:>11}" for name in COLUMNS))
    for name, figures in [*result.classes.items(), ("all classes", result.mean)]:
        values = "".join(f"{percent(figures[column]):>11}" for column in COLUMNS)
        print(f"{printable(name):<{width}}{values}")


def percent(value):
    """A share as text, in percent."""
    return "n/a" if value != value else f"{100 * value:.1f}"
