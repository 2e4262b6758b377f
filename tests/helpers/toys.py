"""Looks into toy sets, and draws toy images on one colour."""

import numpy as np

import toy_data
from toy_data import TOY_LABELS, draw_toy_image


def contents(folder):
    """{relative path: bytes} of all images, annotations and lists of names."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def draw_on(colour, monkeypatch, number, classes=TOY_LABELS):
    """
    Draw a toy image with one colour in place of the background.

    :return: (height, width, 3) int, and the objects
    """

    def plain_background(width, height, rng):
        return np.full((height, width, 3), colour, dtype=np.uint8)

    monkeypatch.setattr(toy_data, "draw_background", plain_background)
    image, objects = draw_toy_image(7, number, classes)
    return np.array(image).astype(int), objects
