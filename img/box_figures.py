"""Figures of boxes: coordinates, overlap, priors and offsets."""

from scene import draw_scene
from style import INK, NORMAL, OBJECT, QUIET, SMALL, Card
from utils import IMAGE_SIZE


def boundary_coordinates():
    """An object's box by its two corners, in pixels and as fractions of the image's sides."""
    image, boxes, names = draw_scene()
    box = boxes[names.index("person")]
    card = Card(1300)
    place = card.picture(image, 250, 150, 700)
    place.box(box, OBJECT)
    for number, corner in ((0, box[:2]), (1, box[2:])):
        x, y = place.at(*corner)
        card.dot(x, y, OBJECT, 15)
        name = ("x_min, y_min", "x_max, y_max")[number]
        shift, align = ((-24, "right"), (24, "left"))[number]
        card.text(x + shift, y + 1.7 * shift, name, NORMAL, "white", align, background=OBJECT)
    card.text(250, 110, "(0, 0)", SMALL, QUIET, "left")
    card.text(950, 890, f"({IMAGE_SIZE}, {IMAGE_SIZE})", SMALL, QUIET, "right")
    rows = [["", "x_min", "y_min", "x_max", "y_max"]]
    rows.append(["pixels", *(f"{value:.0f}" for value in (box * IMAGE_SIZE).tolist())])
    rows.append(["fractions", *(f"{value:.2f}" for value in box.tolist())])
    card.table(100, 980, rows, (260, 185, 185, 185, 185), 80)
    card.text(600, 1255, "pixels / width and height = fractions", SMALL, INK)
    return card.image()


FIGURES = {"boundary_coordinates.png": boundary_coordinates}
