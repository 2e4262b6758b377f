"""drawing.py: boxes, labels and their places, fonts."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw

from drawing import (
    annotate,
    draw_box,
    label_colour,
    load_font,
    missing_letters,
    place_labels,
    total_overlap,
)
from helpers.folders import LABEL_MAP
from utils import voc_labels


@pytest.mark.parametrize("size", [(120, 90), (500, 375), (3000, 2000)])
def test_the_box_is_outlined_and_the_label_stands_in_the_draw_noise(size):
    width, height = size
    box = (width * 0.3, height * 0.4, width * 0.8, height * 0.9)
    for place in (box, (0, 0, width / 2, height / 2), (width * 0.9, height * 0.9, width, height)):
        pixels = np.array(
            annotate(Image.new("RGB", size, "gray"), [("cat", 0.876, place)], LABEL_MAP)
        )
        colour = np.array(label_colour(1, 3))
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        assert columns.min() == pytest.approx(
            place[0], abs=1 + width / 4
        )  # the label may begin further left
        assert columns.max() >= place[2] - 2
        assert rows.max() >= place[3] - 2
        is_text = (pixels != colour).any(axis=2) & (pixels != 128).any(
            axis=2
        )  # neither box nor background
        text_rows, text_columns = np.nonzero(is_text)
        assert np.ptp(text_rows) + 1 >= min(6, height / 40)  # legible
        assert np.ptp(text_columns) > np.ptp(text_rows)


def test_every_class_has_a_colour_of_its_own():
    colours = [label_colour(number, 21) for number in range(1, 21)]
    assert len(set(colours)) == len(voc_labels)
    distances = [
        np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colours) for b in colours[:i]
    ]
    assert min(distances) > 30


# ----------------------------------------------------------------------------------- labels' places


IMAGE_SIZE = (200, 100)


def test_a_label_stands_above_its_box_or_else_below_it_or_beside_it_or_else_in_it():
    size = (40, 10)
    for box, label in (
        ((50, 30, 120, 60), (50, 20, 90, 30)),  # above
        ((50, 0, 120, 60), (50, 60, 90, 70)),  # below
        ((50, 0, 120, 100), (120, 0, 160, 10)),  # on the right
        ((100, 0, 200, 100), (60, 0, 100, 10)),  # on the left
        ((0, 0, 200, 100), (0, 0, 40, 10)),  # no room outside
        ((180, 30, 200, 60), (160, 20, 200, 30)),  # above, moved into the image
    ):
        assert place_labels([box], [size], IMAGE_SIZE) == [label]


def test_a_label_avoids_other_boxes_and_the_labels_before_it():
    box, size = (50, 30, 120, 60), (40, 10)
    assert place_labels([box, (45, 5, 75, 25)], [size, size], IMAGE_SIZE)[0] == (80, 20, 120, 30)
    assert place_labels([box, (0, 0, 200, 25)], [size, size], IMAGE_SIZE)[0] == (50, 60, 90, 70)
    same_box = place_labels([box] * 6, [size] * 6, IMAGE_SIZE)
    for number, label in enumerate(same_box):
        assert total_overlap(label, [box, *same_box[:number]]) == 0


def test_a_label_in_a_larger_box_does_not_cover_its_own():
    whole_image, inner_box = (0, 0, 200, 100), (50, 30, 120, 60)
    labels = place_labels([whole_image, inner_box], [(40, 10), (40, 10)], IMAGE_SIZE)
    assert labels[1] == (50, 20, 90, 30)
    assert total_overlap(*labels[:1], labels[1:]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_many_boxes_stay_in_the_image_and_apart(seed):
    """Boxes that fill the cells of a grid for the most part, with some room for the labels."""
    rng = np.random.default_rng(seed)
    boxes = []
    for x in range(0, 600, 100):
        for y in range(0, 400, 100):
            left, top = rng.integers(0, 20, 2).tolist()
            right, bottom = rng.integers(60, 75, 2).tolist()
            boxes.append((x + left, y + top, x + right, y + bottom))
    labels = place_labels(boxes, [(50, 15)] * len(boxes), (600, 400))
    for number, label in enumerate(labels):
        assert 0 <= label[0] < label[2] == label[0] + 50 <= 600
        assert 0 <= label[1] < label[3] == label[1] + 15 <= 400
        assert total_overlap(label, boxes + labels[:number]) == 0


def test_labels_are_drawn_outside_the_boxes():
    boxes = [(30.4, 40, 130.2, 120), (180, 0, 280, 199), (10, 130, 150, 200)]
    image = Image.new("RGB", (300, 200), "gray")
    detections = [("cat", 0.9, box) for box in boxes]
    pixels = np.array(annotate(image, detections, LABEL_MAP))
    for box in boxes:
        x_min, y_min, x_max, y_max = (round(edge) for edge in box)
        assert (pixels[y_min + 2 : y_max - 2, x_min + 2 : x_max - 2] == 128).all()
    assert (pixels[32:38, 32:60] != 128).any()  # the first one's label, above it


# -------------------------------------------------------------------------------------------- fonts


UNICODE_FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


def test_letters_that_a_font_lacks_are_found():
    names = ["cat 0.9", "café", "Straße", "고양이"]
    assert missing_letters(names, load_font("", 20)) == "ßé고양이"
    assert missing_letters(names, load_font(str(UNICODE_FONT), 20)) == "고양이"
    assert missing_letters([], load_font("", 20)) == ""


def test_labels_are_written_in_the_font_that_is_given():
    def annotated(**options):
        detections = [("café", 0.9, (10, 40, 60, 70))]
        label_map = {"background": 0, "café": 1}
        image = annotate(Image.new("RGB", (120, 80)), detections, label_map, **options)
        return image.tobytes()

    assert annotated() == annotated(font="")
    assert annotated() != annotated(font=str(UNICODE_FONT))


@pytest.mark.parametrize("exists", [False, True])
def test_what_is_no_font_is_refused(exists, tmp_path):
    path = tmp_path / "x.ttf"
    if exists:
        path.write_bytes(b"no font")
    with pytest.raises(
        ValueError, match=r"font: expected a TrueType or OpenType file, got .*x\.ttf"
    ):
        load_font(str(path), 20)


def test_the_best_detection_is_drawn_on_top():
    image = Image.new("RGB", (300, 300))
    label_map = {"background": 0, "cat": 1, "dog": 2}
    best = ("cat", 0.9, (50.0, 50.0, 150.0, 150.0))
    other = ("dog", 0.5, (100.0, 100.0, 200.0, 200.0))
    annotated_image = annotate(image, [best, other], label_map)
    assert annotated_image.getpixel((149, 100)) == label_colour(1, 3)  # where the outlines cross
    assert annotated_image.getpixel((199, 150)) == label_colour(2, 3)


def test_a_label_covers_two_other_boxes_rather_than_its_own():
    own = (
        0,
        0,
        60,
        20,
    )  # in a corner: a label above it would be moved onto it
    others = [(0, 20, 200, 200), (60, 0, 200, 20)] * 2
    boxes = [own, *others]
    labels = place_labels(boxes, [(60, 10)] * len(boxes), (200, 200))
    assert total_overlap(labels[0], [own]) == 0
    assert total_overlap(labels[0], others) == 2 * 600


def test_the_outline_of_a_box_lies_in_it():
    image = Image.new("RGB", (300, 300))
    draw_box(ImageDraw.Draw(image), (50, 60, 100, 120), (255, 0, 0), 2)
    assert image.getbbox() == (50, 60, 100, 120)
