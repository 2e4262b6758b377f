"""Ways in which image files come to harm."""

import numpy as np
from PIL import Image


def draw(path, size=(100, 80), **options):
    """Write an image of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def truncate(path):
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_by_note(path):
    path.write_text("a note instead of an image")


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_small_image(path):
    draw(path, (10, 8))
