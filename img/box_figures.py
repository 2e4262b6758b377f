"""Figures of boxes: what a detector predicts, coordinates, and overlap."""

import torch

from examples import JACCARD_BOXES
from scene import OBJECTS, draw_scene
from style import CLASS_COLOURS, LARGE, MARGIN, MARK, NORMAL, OBJECT, PRIOR, QUIET, SMALL, Card
from utils import IMAGE_SIZE, find_jaccard_overlap, xy_to_cxcy


def object_detection():
    """Classification gives an image one class; detection gives every object a class and a box."""
    card = Card(1580)
    _draw_classification(card)
    image, boxes, names = draw_scene()
    card.text(880, 75, "Detection", LARGE, bold=True)
    place = card.show(image, 616, 125, 530)
    for box, name in zip(boxes, names, strict=True):
        place.box(box, CLASS_COLOURS[name], line=6)
    card.text(880, 710, "a class and a box for each", SMALL, QUIET)
    _draw_answer(card, boxes, names)
    return card.image()


def _draw_classification(card):
    """Draw an image of a cat with its class, on the left half of the card."""
    seeds = {name: seed for name, _, _, seed in OBJECTS}
    image, _, names = draw_scene([("cat", 0.75, (0.5, 0.95), seeds["cat"])])
    card.text(320, 75, "Classification", LARGE, bold=True)
    card.show(image, MARGIN + 10, 125, 530)
    card.text(320, 710, names[0], NORMAL, "white", background=CLASS_COLOURS[names[0]], bold=True)


def _draw_answer(card, boxes, names):
    """
    Draw the table of what a detector predicts.

    :param boxes: (n, 4), fractional xy
    :param names: of the objects' classes
    """
    rows = [["class", "x_min", "y_min", "x_max", "y_max"]]
    looks = {}
    for i, (box, name) in enumerate(zip(boxes, names, strict=True), start=1):
        rows.append([name, *(f"{value:.2f}" for value in box.tolist())])
        looks[i, 0] = {"fill": CLASS_COLOURS[name], "colour": "white", "bold": True}
    card.text(600, 835, "What a detector answers", LARGE, bold=True)
    below = card.table(80, 900, rows, (340, 175, 175, 175, 175), 88, looks)
    card.text(600, below + 80, "and how sure it is: a score for each", NORMAL, QUIET)


def _coordinate_card():
    """
    Begin a figure of coordinates: the scene, the directions of x and y, and the person's box.

    :return: Card, the image's Place, and the box (4), fractional xy
    """
    image, boxes, names = draw_scene()
    box = boxes[names.index("person")]
    card = Card(1400)
    place = card.show(image, 180, 130, 840)
    card.arrow((place.x, place.y - 28), (place.x + 190, place.y - 28), QUIET)
    card.text(place.x + 206, place.y - 28, "x", NORMAL, QUIET, "left")
    card.arrow((place.x - 28, place.y), (place.x - 28, place.y + 190), QUIET)
    card.text(place.x - 28, place.y + 216, "y", NORMAL, QUIET)
    place.box(box, OBJECT)
    return card, place, box


def _coordinate_table(card, names, values):
    """Draw a table of coordinates in pixels and as fractions of the image's sides."""
    rows = [["", *names]]
    rows.append(["pixels", *(f"{value:.0f}" for value in (values * IMAGE_SIZE).tolist())])
    rows.append(["fractions", *(f"{value:.2f}" for value in values.tolist())])
    card.table(90, 1050, rows, (260, 190, 190, 190, 190), 84)
    card.text(600, 1345, f"pixels / {IMAGE_SIZE} = fractions", NORMAL, QUIET)


def boundary_coordinates():
    """An object's box, given by two corners."""
    card, place, box = _coordinate_card()
    for name, corner, shift in (("x_min, y_min", box[:2], -56), ("x_max, y_max", box[2:], 56)):
        x, y = place.at(*corner)
        card.dot(x, y, OBJECT, 16)
        card.text(x, y + shift, name, NORMAL, "white", background=OBJECT, bold=True)
    _coordinate_table(card, ("x_min", "y_min", "x_max", "y_max"), box)
    return card.image()


def centre_size_coordinates():
    """The same object's box, given by its centre and size."""
    card, place, box = _coordinate_card()
    x_min, y_min = place.at(*box[:2])
    x_max, y_max = place.at(*box[2:])
    centre_x, centre_y = place.at(*xy_to_cxcy(box)[:2])
    card.dot(centre_x, centre_y, OBJECT, 16)
    card.text(centre_x, centre_y + 56, "c_x, c_y", NORMAL, "white", background=OBJECT, bold=True)
    card.arrow((x_min, y_min - 34), (x_max, y_min - 34), OBJECT, both=True)
    card.text(centre_x, y_min - 76, "w", LARGE, "white", background=OBJECT, bold=True)
    card.arrow((x_max + 34, y_min), (x_max + 34, y_max), OBJECT, both=True)
    card.text(x_max + 82, centre_y + 120, "h", LARGE, "white", background=OBJECT, bold=True)
    _coordinate_table(card, ("c_x", "c_y", "w", "h"), xy_to_cxcy(box))
    return card.image()


def _intersection(first, second):
    """The box (4) that two boxes (4) share."""
    return torch.cat([torch.maximum(first[:2], second[:2]), torch.minimum(first[2:], second[2:])])


def _area(box):
    """The area of a box (4), xy."""
    return ((box[2] - box[0]) * (box[3] - box[1])).item()


def _rectangle_of(card, x, y, box, **look):
    """Draw a box (4), moved by (x, y) pixels; look: as for Card.rectangle."""
    left, top, right, bottom = box.tolist()
    card.rectangle(x + left, y + top, right - left, bottom - top, **look)


def _two_boxes(card, x, y, scale, boxes, filled=()):
    """
    Draw two boxes (2, 4), given in pixels, enlarged by a scale.

    :param filled: boxes (4) to fill
    """
    for box in filled:
        _rectangle_of(card, x, y, scale * box, fill=MARK)
    for box, colour in zip(boxes, (OBJECT, PRIOR), strict=True):
        _rectangle_of(card, x, y, scale * box, edge=colour, line=7, layer=4)


def jaccard_overlap():
    """Two boxes, what they share, what they cover together, and the ratio of the two."""
    boxes = torch.tensor(JACCARD_BOXES, dtype=torch.float32)
    at_origin = boxes - boxes[:, :2].amin(dim=0).repeat(2)
    shared = _intersection(*at_origin)
    union = _area(boxes[0]) + _area(boxes[1]) - _area(shared)
    overlap = find_jaccard_overlap(boxes[:1], boxes[1:]).item()

    card = Card(1330)
    _two_boxes(card, 350, 150, 2.5, at_origin)
    _write_area(card, 95, "A", JACCARD_BOXES[0], OBJECT)
    _write_area(card, 700, "B", JACCARD_BOXES[1], PRIOR)

    _two_boxes(card, 80, 800, 1.0, at_origin, filled=[shared])
    card.text(180, 1065, "intersection", NORMAL, bold=True)
    card.text(180, 1125, f"{_area(shared):,.0f}", LARGE)
    card.text(365, 900, "÷", 80)
    _two_boxes(card, 440, 800, 1.0, at_origin, filled=at_origin)
    card.text(540, 1065, "union", NORMAL, bold=True)
    card.text(540, 1125, f"{union:,.0f}", LARGE)
    card.text(725, 900, "=", 80)
    card.text(960, 900, f"{overlap:.2f}", 110, bold=True)
    card.text(960, 1065, "Jaccard overlap", NORMAL, bold=True)
    card.text(600, 1250, f"A + B − intersection = {union:,.0f}", NORMAL, QUIET)
    return card.image()


def _write_area(card, y, name, box, colour):
    """Write how a box's area is computed."""
    width = box[2] - box[0]
    height = box[3] - box[1]
    words = f"{name}   {width} × {height} = {width * height:,} pixels"
    card.text(600, y, words, NORMAL, colour)


FIGURES = {
    "object_detection.png": object_detection,
    "boundary_coordinates.png": boundary_coordinates,
    "centre_size_coordinates.png": centre_size_coordinates,
    "jaccard_overlap.png": jaccard_overlap,
}
