"""The scene that most figures show: a few drawn objects at known places, from the drawings of the toy data."""

import numpy as np
import torch
from PIL import Image, ImageDraw

from toy_data import bounding_box, draw_object

SIDE = 900  # pixels
# Class, length of the longer side and place of the lower edge's middle, as fractions of the image's side; and the drawing's seed
OBJECTS = (
    ("bird", 0.11, (0.42, 0.27), 2),
    ("pottedplant", 0.21, (0.92, 0.60), 3),
    ("car", 0.46, (0.31, 0.60), 1),
    ("person", 0.78, (0.69, 0.95), 3),
    ("cat", 0.36, (0.27, 0.94), 4),
)


def draw_scene(objects=OBJECTS, side=SIDE):
    """
    Draw a scene: sky, meadow and street, and objects on them, the later ones in front.

    :param objects: (class, length of the longer side, (x, y) of the lower edge's middle, seed) each, as fractions of the side
    :param side: pixels
    :return: PIL image, RGB; boxes (n, 4), fractional xy; and the names of the classes, a list
    """
    image = Image.new("RGB", (side, side), "#cfe6f5")
    pen = ImageDraw.Draw(image)
    pen.ellipse((0.06 * side, 0.06 * side, 0.36 * side, 0.17 * side), fill="#e9f4fb")
    pen.ellipse((0.55 * side, 0.12 * side, 0.80 * side, 0.20 * side), fill="#e9f4fb")
    pen.polygon(
        [(0, 0.42 * side), (0.3 * side, 0.30 * side), (0.62 * side, 0.42 * side)], fill="#b7d3c0"
    )
    pen.polygon(
        [
            (0.4 * side, 0.42 * side),
            (0.78 * side, 0.27 * side),
            (side, 0.36 * side),
            (side, 0.42 * side),
        ],
        fill="#a9c9b4",
    )
    pen.rectangle((0, 0.42 * side, side, side), fill="#c4dcb0")
    pen.rectangle((0, 0.52 * side, side, 0.64 * side), fill="#cfccc6")
    boxes, names = [], []
    for name, length, (centre, bottom), seed in objects:
        tile = draw_object(name, length * side, np.random.default_rng(seed))
        corner = round(centre * side - tile.width / 2), round(bottom * side - tile.height)
        image.paste(tile, corner, tile.getchannel("A"))
        left, top, right, lower = bounding_box(np.array(tile.getchannel("A")) >= 64)
        boxes.append([corner[0] + left, corner[1] + top, corner[0] + right, corner[1] + lower])
        names.append(name)
    return image, torch.tensor(boxes) / side, names


def draw_boxed_scene(objects, side=SIDE):
    """
    Draw a scene with its objects where a worked example wants them.

    :param objects: (class, box in fractional xy) each, the later ones in front; the drawings are stretched to their boxes
    :param side: pixels
    :return: PIL image, RGB
    """
    image = draw_scene((), side)[0]
    for number, (name, box) in enumerate(objects):
        left, top, right, bottom = (round(edge * side) for edge in box)
        tile = draw_object(name, max(right - left, bottom - top), np.random.default_rng(number))
        tile = tile.crop(bounding_box(np.array(tile.getchannel("A")) >= 64)).resize(
            (right - left, bottom - top)
        )
        image.paste(tile, (left, top), tile.getchannel("A"))
    return image
