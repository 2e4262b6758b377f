"""COCO's metric by a second implementation."""

import contextlib
import io
import math

import pytest


def second_opinion(columns, label_map):
    """COCO's figures of all classes, by faster-coco-eval, which has its own matching in C++."""
    library = pytest.importorskip("faster_coco_eval")
    det_boxes, det_labels, det_scores, true_boxes, true_labels, difficulties = columns
    numbers = [number for number in label_map.values() if number]
    truth, results = [], []
    for image in range(len(true_labels)):
        objects = zip(true_boxes[image], true_labels[image], difficulties[image], strict=True)
        for box, label, difficult in objects:
            if int(label) in numbers:
                truth.append(
                    coco_form(truth, image, box, label) | {"iscrowd": int(difficult), "ignore": 0}
                )
        detections = zip(det_boxes[image], det_labels[image], det_scores[image], strict=True)
        for box, label, score in detections:
            if int(label) in numbers:
                results.append(coco_form(results, image, box, label) | {"score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for entries in (truth, results):
            side = library.COCO()
            side.dataset = {
                "images": [{"id": image} for image in range(len(true_labels))],
                "categories": [{"id": number, "name": str(number)} for number in numbers],
                "annotations": [{"iscrowd": 0, **entry} for entry in entries],
            }
            side.createIndex()
            sides.append(side)
        evaluator = library.COCOeval_faster(*sides, "bbox")
        evaluator.run()
    return [value if value > -1 else math.nan for value in evaluator.stats[:6]]


def coco_form(entries, image, box, label):
    x_min, y_min, x_max, y_max = map(float, box)
    width, height = x_max - x_min, y_max - y_min
    return {
        "id": len(entries) + 1,
        "image_id": image,
        "category_id": int(label),
        "bbox": [x_min, y_min, width, height],
        "area": width * height,
    }
