"""Drawn scenes whose objects each have a colour of their own."""

import math

import torch
from PIL import Image, ImageDraw

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))

PLAIN = (128, 128, 128)


def draw_scene(rng):
    """
    Draw a plain image of any size with 1 to 6 rectangles in different colours that do not touch.

    :return: PIL image, and the rectangles' boxes in pixels, lists
    """
    width, height = rng.integers(150, 500, 2).tolist()
    image = Image.new("RGB", (width, height), PLAIN)
    pen = ImageDraw.Draw(image)
    boxes = []
    # 3 x 2 cells, with at most one object each
    for cell in rng.permutation(6)[: rng.integers(1, 7)]:
        cell_width, cell_height = width // 3, height // 2
        box_width, box_height = rng.integers(20, cell_width - 3), rng.integers(20, cell_height - 3)
        x_min = (cell % 3) * cell_width + rng.integers(0, cell_width - 3 - box_width + 1)
        y_min = (cell // 3) * cell_height + rng.integers(0, cell_height - 3 - box_height + 1)
        box = [int(edge) for edge in (x_min, y_min, x_min + box_width, y_min + box_height)]
        # The pen draws both ends
        pen.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=COLOURS[len(boxes)])
        boxes.append(box)
    return image, boxes


def as_arguments(boxes):
    """Boxes, labels and difficulties as transform() takes them; labels number COLOURS from 1."""
    numbers = torch.arange(len(boxes))
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4), numbers + 1, numbers % 2 == 1


def to_pixels(image):
    """The network's input (3, 300, 300) as levels from 0 to 255, an array (300, 300, 3)."""
    mean, std = (
        torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
        torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
    )
    return ((image * std + mean) * 255).permute(1, 2, 0).numpy()


def within_4_sigma(count, n, chance):
    """Whether this count is plausible for n draws."""
    return abs(count - n * chance) <= 4 * math.sqrt(n * chance * (1 - chance))
