"""COCO's metric, compared with a second implementation: faster-coco-eval."""

import math
import sys

import numpy as np
import pytest
import torch

from coco_metric import COLUMNS, calculate_coco_mAP, print_coco
from helpers.coco import second_opinion

LABEL_MAP = {"background": 0, "a": 1, "b": 2, "c": 4}  # a number is missing: of an unknown class


@pytest.fixture(autouse=True)
def engine():
    pytest.importorskip("pycocotools")


def random_columns(seed, n_images=12, share_of_crowds=0.2, n_detections=30):
    """
    Objects of all sizes, about half of the detections being objects moved a little. Some images are
    empty, scores are often equal, boxes often on whole pixels.
    """
    rng = np.random.default_rng(seed)

    def boxes(n):
        sides = np.exp(rng.uniform(np.log(6), np.log(250), (n, 2))).round()
        corners = rng.integers(0, 250, (n, 2))
        return np.concatenate([corners, corners + sides], axis=1)

    columns = [[] for _ in range(6)]
    for _ in range(n_images):
        n_objects = int(rng.integers(0, 6)) if rng.random() < 0.8 else 0
        objects = boxes(n_objects)
        labels = rng.choice([1, 2, 3], n_objects)  # no object of class 4
        found, found_labels = boxes(int(rng.integers(0, n_detections))), []
        for row in range(len(found)):
            label = int(rng.choice([1, 2, 3, 4]))
            if n_objects and rng.random() < 0.6:
                place = rng.integers(n_objects)
                side = objects[place, 2] - objects[place, 0]
                found[row] = objects[place] + (rng.normal(0, 0.07, 4) * side).round()
                label = int(labels[place])
            found_labels.append(label)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2])
        columns[0].append(torch.tensor(found, dtype=torch.float32).view(-1, 4))
        columns[1].append(torch.tensor(found_labels, dtype=torch.int64))
        columns[2].append(torch.tensor(rng.integers(1, 20, len(found)) / 20, dtype=torch.float32))
        columns[3].append(torch.tensor(objects, dtype=torch.float32).view(-1, 4))
        columns[4].append(torch.tensor(labels, dtype=torch.int64))
        columns[5].append(torch.tensor(rng.random(n_objects) < share_of_crowds))
    return columns


@pytest.mark.parametrize("seed", range(8))
def test_random_cases_agree_with_the_second_opinion(seed):
    columns = random_columns(seed)
    figures = calculate_coco_mAP(*columns, LABEL_MAP).mean
    assert list(figures) == list(COLUMNS)
    assert list(figures.values()) == pytest.approx(
        second_opinion(columns, LABEL_MAP), abs=1e-4, nan_ok=True
    )
    assert 0.02 < figures["AP"] < 0.9, "a case in which all is right or wrong says little"


def test_more_than_a_hundred_detections_of_a_class_in_an_image():
    columns = random_columns(1, n_images=3, n_detections=600)
    assert max(map(len, columns[1])) > 300
    figures = calculate_coco_mAP(*columns, LABEL_MAP).mean
    assert list(figures.values()) == pytest.approx(
        second_opinion(columns, LABEL_MAP), abs=1e-4, nan_ok=True
    )


def one_class(det_boxes, det_scores, true_boxes, difficulties):
    """The figures for one image and one class."""
    columns = (
        [torch.tensor(det_boxes).view(-1, 4).float()],
        [torch.ones(len(det_scores), dtype=torch.int64)],
        [torch.tensor(det_scores)],
        [torch.tensor(true_boxes).view(-1, 4).float()],
        [torch.ones(len(difficulties), dtype=torch.int64)],
        [torch.tensor(difficulties, dtype=torch.bool)],
    )
    return calculate_coco_mAP(*columns, {"background": 0, "a": 1}).mean


def test_hand_values():
    box = [0.0, 0.0, 100.0, 100.0]
    figures = one_class([box], [0.9], [box], [False])
    assert figures["AP"] == figures["AP large"] == pytest.approx(1)
    assert math.isnan(figures["AP small"])
    # Overlap 0.72: right at 0.50, 0.55 ... 0.70, five of the ten overlaps
    figures = one_class([[0.0, 0.0, 100.0, 72.0]], [0.9], [box], [False])
    assert figures["AP"] == pytest.approx(0.5)
    assert (figures["AP50"], figures["AP75"]) == pytest.approx((1, 0))


def test_detections_in_a_crowd_are_ignored_and_missing_it_is_no_error():
    crowd, box = [0.0, 0.0, 200.0, 200.0], [300.0, 0.0, 400.0, 100.0]
    inside = [[10.0, 10.0, 60.0, 60.0], [80.0, 80.0, 150.0, 150.0]]
    assert one_class([*inside, box], [0.9, 0.8, 0.7], [crowd, box], [True, False])[
        "AP"
    ] == pytest.approx(1)
    assert one_class([box], [0.7], [crowd, box], [True, False])["AP"] == pytest.approx(1)
    assert one_class([*inside, box], [0.9, 0.8, 0.7], [box], [False])["AP"] == pytest.approx(1 / 3)


def test_without_objects_or_detections_there_is_nan_or_zero():
    assert math.isnan(one_class([], [], [], [])["AP"])
    assert math.isnan(one_class([[0.0, 0.0, 9.0, 9.0]], [0.5], [], [])["AP"])
    assert one_class([], [], [[0.0, 0.0, 9.0, 9.0]], [False])["AP"] == 0


def test_classes_are_in_the_order_of_the_label_map_and_print_as_a_table(capsys):
    columns = random_columns(3)
    turned = calculate_coco_mAP(*columns, {"background": 0, "b": 2, "a": 1})
    straight = calculate_coco_mAP(*columns, {"background": 0, "a": 1, "b": 2})
    assert list(turned.classes) == ["b", "a"]
    assert turned.classes["a"] == pytest.approx(straight.classes["a"], nan_ok=True)
    assert turned.classes["a"] != turned.classes["b"]
    print_coco(calculate_coco_mAP(*columns, LABEL_MAP))
    *_, last_class, last = capsys.readouterr().out.splitlines()
    assert last_class.split() == ["c"] + ["n/a"] * 6
    assert last.split()[:3] == ["all", "classes", f"{100 * mean_ap(columns):.1f}"]


def mean_ap(columns):
    classes = calculate_coco_mAP(*columns, LABEL_MAP).classes.values()
    values = [figures["AP"] for figures in classes if not math.isnan(figures["AP"])]
    return sum(values) / len(values)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ValueError, match=r"needs pycocotools .*: pip install pycocotools"):
        calculate_coco_mAP(*random_columns(0), LABEL_MAP)
