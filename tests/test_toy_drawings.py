"""toy_drawings.py: what is drawn is what its boxes and names say."""

import numpy as np
import pytest

from helpers.toys import draw_on
from toy_data import TOY_LABELS
from toy_drawings import TOY_DRAWINGS
from utils import parse_annotation, voc_labels


def test_toy_drawings_are_those_of_voc(toy_of_twenty):
    assert sorted(TOY_LABELS) == sorted(TOY_DRAWINGS) == sorted(voc_labels)
    drawn = {
        obj["name"]
        for path in (toy_of_twenty / "Annotations").iterdir()
        for obj in parse_annotation(path)
    }
    assert drawn == set(voc_labels)


@pytest.mark.parametrize("number", range(0, 60, 3))
def test_toy_boxes_are_tight(monkeypatch, number):
    """
    Where the same image on two backgrounds is equal, something opaque has been drawn: this leads to
    the boxes without knowing how they were found. Smoothed edges are wider than what is opaque by a
    pixel, and faint objects are nowhere opaque.
    """
    classes = TOY_LABELS[number % 20 :][:1]
    black, objects = draw_on((0, 0, 0), monkeypatch, number, classes)
    white, again = draw_on((255, 255, 255), monkeypatch, number, classes)
    assert objects == again
    touched = np.abs(white - black).max(axis=2) < 250
    rows, columns = touched.any(axis=1).nonzero()[0], touched.any(axis=0).nonzero()[0]
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    boxes = np.array([obj["box"] for obj in objects])
    union = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    assert np.abs(found - union).max() <= 1
    for left, top, right, bottom in boxes.tolist():  # each edge has something drawn on it
        inside = touched[top:bottom, left:right]
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()
