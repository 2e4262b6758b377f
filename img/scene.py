"""The scene that most figures show: a few objects, drawn like the toy data, at known places."""

import numpy as np
import torch
from PIL import Image, ImageDraw

from toy_data import bounding_box, draw_object

SIDE = 900  # pixels
# Class, length of the longer side, place of the lower edge's middle, and seed of the drawing.
# Lengths and places are fractions of the image's side.
OBJECTS = (
    ("bird", 0.11, (0.42, 0.27), 2),
    ("pottedplant", 0.21, (0.92, 0.60), 3),
    ("car", 0.46, (0.31, 0.60), 1),
    ("person", 0.78, (0.69, 0.95), 3),
    ("cat", 0.36, (0.27, 0.94), 4),
)


def draw_scene(objects=OBJECTS, side=SIDE):
    """
    Draw a landscape and objects on it, the later ones in front.

    :param objects: (class, length, place, seed) each, as in OBJECTS
    :param side: pixels
    :return: PIL image, RGB; boxes (n, 4), fractional xy; and the names of the classes, a list
    """
    image = draw_landscape(side)
    boxes = []
    names = []
    for name, length, (centre, bottom), seed in objects:
        tile = draw_object(name, length * side, np.random.default_rng(seed))
        x = round(centre * side - tile.width / 2)
        y = round(bottom * side - tile.height)
        image.paste(tile, (x, y), tile.getchannel("A"))
        left, top, right, lower = outline(tile)
        boxes.append([x + left, y + top, x + right, y + lower])
        names.append(name)
    return image, torch.tensor(boxes) / side, names


def draw_landscape(side):
    """
    Draw what lies behind the objects: sky, hills, a meadow and a street.

    :param side: pixels
    :return: PIL image, RGB
    """
    image = Image.new("RGB", (side, side), "#cfe6f5")
    pen = ImageDraw.Draw(image)

    def to_pixels(*points):
        return [(x * side, y * side) for x, y in points]

    pen.ellipse(to_pixels((0.06, 0.06), (0.36, 0.17)), fill="#e9f4fb")
    pen.ellipse(to_pixels((0.55, 0.12), (0.80, 0.20)), fill="#e9f4fb")
    pen.polygon(to_pixels((0, 0.42), (0.3, 0.30), (0.62, 0.42)), fill="#b7d3c0")
    pen.polygon(to_pixels((0.4, 0.42), (0.78, 0.27), (1, 0.36), (1, 0.42)), fill="#a9c9b4")
    pen.rectangle(to_pixels((0, 0.42), (1, 1)), fill="#c4dcb0")
    pen.rectangle(to_pixels((0, 0.52), (1, 0.64)), fill="#cfccc6")
    return image


def outline(tile):
    """The bounding box of what is visible of a drawn object, in pixels of its tile."""
    return bounding_box(np.array(tile.getchannel("A")) >= 64)


def draw_boxed_scene(objects, side=SIDE):
    """
    Draw a scene whose objects fill given boxes.

    :param objects: (class, box in fractional xy) each, the later ones in front; each drawing is
        stretched to its box
    :param side: pixels
    :return: PIL image, RGB
    """
    image = draw_landscape(side)
    for number, (name, box) in enumerate(objects):
        left, top, right, bottom = (round(edge * side) for edge in box)
        size = (right - left, bottom - top)
        tile = draw_object(name, max(size), np.random.default_rng(number))
        tile = tile.crop(outline(tile)).resize(size)
        image.paste(tile, (left, top), tile.getchannel("A"))
    return image
