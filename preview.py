"""
A look at a data set before hours are spent on it: a sheet of training images with their objects, as
the lists have them and as training gets them, and what in the data is too small or too long for
SSD300 to find.
"""

import contextlib
import math
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps

from annotations import printable
from datasets import read_image, read_image_size
from drawing import (
    draw_box,
    draw_label,
    label_colour,
    label_size,
    load_font,
    missing_letters,
    place_labels,
)
from model import FEATURE_MAPS, SSD300, MultiBoxLoss
from runtime import count
from utils import IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, cxcy_to_xy

# The sheet, in pixels
PANEL = 420  # along each side of an image's place
CAPTION = 26  # height of the line below it
GAP = 6  # around both
FONT_SIZE = 14
LINE_WIDTH = 2  # of boxes; priors have 1

# No prior is smaller than the square one of conv4_3, 30 pixels a side in the 300 x 300 input (the
# long ones there have the same area). An object overlaps a prior at most by its share of the
# prior's area, so below a side of 30 * sqrt(0.5) = 21.2 pixels it reaches 0.5 with none, and only
# has the one prior that matching gives to every object. From there on a square object has one
# wherever it is: the tiles are 8 pixels apart.
SMALLEST_SIDE = IMAGE_SIZE * FEATURE_MAPS["conv4_3"].scale * 0.5**0.5
# Worth a warning: every third object of a class. In VOC07+12 9% of all objects are so small, and of
# no class more than 29% (the sheep of VOC2007); of the platelets among blood cells, 45% are
MAX_SHARE_OF_SMALL_OBJECTS = 1 / 3
# Longer side / shorter side of an image, beyond which squeezing it to a square leaves little of its
# objects' shapes. VOC has one in a thousand
LONGEST_ASPECT_RATIO = 3.0
MAX_SHARE_OF_LONG_IMAGES = 0.05
MAX_IMAGES_LOOKED_AT = 1000  # whose size is read from their files


# --------------------------------------------------------------------------------------- the sheet


def write_preview(train_set, n_images, path, priors_cxcy=None):
    """
    Write a sheet of training images, each of them twice: on the left with its objects as the lists
    have them; on the right as it is trained on in the first epoch, with the positive priors as thin
    lines, each in the colour of the class that it has to predict.

    :param train_set: PascalVOCDataset of the TRAIN split
    :param n_images: how many images; all of them if there are fewer
    :param path: the PNG file to write
    :param priors_cxcy: (8732, 4) float; by default those of model.FEATURE_MAPS
    """
    if priors_cxcy is None:
        priors_cxcy = SSD300.create_prior_boxes()
    indices = choose_images(train_set, n_images)
    criterion = MultiBoxLoss(priors_cxcy)
    pairs = [draw_pair(train_set, i, criterion) for i in indices]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    arrange(pairs).save(path)
    print(
        f"{len(pairs)} training images are drawn in {Path(path).resolve()}: on the left as the "
        "lists have them, on the right as augmented for training, with the positive priors."
    )


def choose_images(train_set, n_images):
    """
    Choose images at random, but such that every class is shown about equally often, where there are
    enough of it.

    :param train_set: PascalVOCDataset, whose seed decides
    :return: list of indices
    """
    order = np.random.default_rng(train_set.seed).permutation(len(train_set)).tolist()
    classes = [set(entry["labels"]) for entry in train_set.objects]
    n_shown = Counter()  # images chosen so far, by class

    def shown_least(i):
        return min((n_shown[number] for number in classes[i]), default=math.inf)

    chosen = []
    while order and len(chosen) < n_images:
        i = min(order, key=shown_least)  # of equal ones the first
        order.remove(i)
        chosen.append(i)
        n_shown.update(classes[i])
    return chosen


def arrange(pairs):
    """Put drawn pairs, all of one size, onto a sheet that is about as wide as it is high."""
    width, height = pairs[0].size
    n_columns = math.ceil(math.sqrt(len(pairs) * height / width))
    n_rows = math.ceil(len(pairs) / n_columns)
    sheet = Image.new("RGB", (n_columns * width, n_rows * height), "white")
    for number, pair in enumerate(pairs):
        row, column = divmod(number, n_columns)
        sheet.paste(pair, (column * width, row * height))
    return sheet


def draw_pair(train_set, i, criterion):
    """
    Draw an image as the lists have it, and beside it as it is trained on.

    :param i: index of the image
    :param criterion: MultiBoxLoss, which matches priors and objects
    :return: PIL image
    """
    image, caption = draw_as_read(train_set, i)
    augmented_image, augmented_caption = draw_as_trained_on(train_set, i, criterion)
    place = PANEL + 2 * GAP
    pair = Image.new("RGB", (2 * place, place + CAPTION), "white")
    pen = ImageDraw.Draw(pair)
    font = load_font("", FONT_SIZE)
    for x, panel, text in ((0, image, caption), (place, augmented_image, augmented_caption)):
        pair.paste(panel, (x + GAP, GAP))
        pen.text((x + GAP, PANEL + 2 * GAP), text, font=font, fill="black")
    return pair


def draw_as_read(train_set, i):
    """
    :return: PIL image, no larger than PANEL, with the objects of the lists; and a caption
    """
    path = train_set.images[i]
    entry = train_set.objects[i]
    image = read_image(path)
    panel = ImageOps.contain(image, (PANEL, PANEL))
    scale = torch.tensor([panel.width / image.width, panel.height / image.height]).repeat(2)
    boxes_px = torch.tensor(entry["boxes"]).view(-1, 4) * scale
    draw_objects(panel, boxes_px, entry["labels"], entry["difficulties"], train_set.label_map)
    name = printable(Path(path).name[-24:])
    n_objects = count(len(boxes_px), "object")
    return panel, f"{name}, {image.width} x {image.height}: {n_objects}"


def draw_as_trained_on(train_set, i, criterion):
    """
    :return: PIL image, PANEL pixels a side, with the objects and the positive priors of the item
        that training gets in the first epoch; and a caption
    """
    train_set.set_epoch(0)
    pixels, boxes, labels, difficulties = train_set[i]
    priors, classes = positive_priors(criterion, boxes, labels)

    panel = as_image(pixels).resize((PANEL, PANEL), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(panel, "RGBA")  # where priors are dense, the image shines through
    n_classes = len(train_set.label_map)
    for prior, number in zip((priors * PANEL).tolist(), classes, strict=True):
        draw_box(pen, prior, (*label_colour(number, n_classes), 130), line_width=1)
    draw_objects(panel, boxes * PANEL, labels.tolist(), difficulties.tolist(), train_set.label_map)
    n_objects = count(len(boxes), "object")
    return panel, f"augmented: {n_objects}, {count(len(priors), 'positive prior')}"


def positive_priors(criterion, boxes, labels):
    """
    The priors of an image that have to predict an object.

    :param criterion: MultiBoxLoss, which matches priors and objects
    :param boxes, labels: (n, 4) fractional xy, and (n,)
    :return: (m, 4) fractional xy; and the classes that they have to predict, a list of m numbers
    """
    true_classes, _ = criterion.match([boxes], [labels])
    positive = true_classes[0] > 0
    return cxcy_to_xy(criterion.priors_cxcy[positive]), true_classes[0, positive].tolist()


def as_image(pixels):
    """
    Undo the normalisation of utils.transform.

    :param pixels: (3, height, width) float
    :return: PIL image, RGB
    """
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    values = (255 * (pixels * std + mean)).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).numpy())


def draw_objects(image, boxes_px, labels, difficulties, label_map):
    """
    Draw objects onto an image, as detect.py draws detections.

    :param boxes_px: (n, 4) xy in pixels of the image
    :param labels, difficulties: lists of n class numbers and of booleans
    """
    font = load_font("", FONT_SIZE)
    margin = LINE_WIDTH + 1
    boxes = [tuple(map(round, box)) for box in boxes_px.tolist()]
    colours = [label_colour(number, len(label_map)) for number in labels]
    names = {number: name for name, number in label_map.items()}
    texts = [label_text(names[number], number, font) for number in labels]
    for i, is_difficult in enumerate(difficulties):
        if is_difficult:
            texts[i] += " (difficult)"
    places = place_labels(boxes, [label_size(text, font, margin) for text in texts], image.size)

    pen = ImageDraw.Draw(image)
    for box, colour in zip(boxes, colours, strict=True):
        draw_box(pen, box, colour, LINE_WIDTH)
    for place, text, colour in zip(places, texts, colours, strict=True):
        draw_label(pen, place, text, colour, font, margin)


def label_text(name, number, font):
    """The name of a class; its number, where the font lacks letters of the name."""
    text = printable(name)
    return f"class {number}" if missing_letters([text], font) else text


# --------------------------------------------------------------------------- what lies out of reach


def warn_of_what_is_out_of_reach(train_set):
    """
    Print a line if many objects are too small for SSD300, and one if many images are too long.

    :param train_set: PascalVOCDataset of the TRAIN split
    """
    indices = range(len(train_set))
    if len(indices) > MAX_IMAGES_LOOKED_AT:
        order = np.random.default_rng(train_set.seed).permutation(len(train_set))
        indices = order[:MAX_IMAGES_LOOKED_AT].tolist()
    sizes = {}  # (width, height) of those that can be read; --verify finds the others
    for i in indices:
        with contextlib.suppress(OSError, ValueError):
            sizes[i] = read_image_size(train_set.images[i])
    for warning in (small_objects(train_set, sizes), long_images(sizes)):
        if warning:
            print(warning)


def small_objects(train_set, sizes):
    """
    :param sizes: {index of an image: (width, height)}
    :return: the warning, a text; "" if no class has many small objects
    """
    n_objects = Counter()
    n_small = Counter()
    for i, (width, height) in sizes.items():
        entry = train_set.objects[i]
        for (x_min, y_min, x_max, y_max), number in zip(
            entry["boxes"], entry["labels"], strict=True
        ):
            share_of_image = (x_max - x_min) * (y_max - y_min) / (width * height)
            n_objects[number] += 1
            n_small[number] += IMAGE_SIZE * math.sqrt(share_of_image) < SMALLEST_SIDE
    shown = [
        f"{printable(name)} {n_small[number]} of {n_objects[number]}"
        for name, number in train_set.label_map.items()
        if n_small[number] > MAX_SHARE_OF_SMALL_OBJECTS * n_objects[number]
    ]
    if not shown:
        return ""
    return (
        f"Careful, small objects: {', '.join(shown)}{describe_sample(train_set, sizes)} have less "
        f"than {SMALLEST_SIDE:.0f} x {SMALLEST_SIDE:.0f} pixels in the network's 300 x 300 input. "
        "They overlap no prior by half, and many will be missed: cut the images into parts, or "
        "take them from closer by."
    )


def long_images(sizes):
    """
    :param sizes: {index of an image: (width, height)}
    :return: the warning, a text; "" if few images are long
    """
    n_long = sum(max(size) > LONGEST_ASPECT_RATIO * min(size) for size in sizes.values())
    if n_long <= MAX_SHARE_OF_LONG_IMAGES * len(sizes):
        return ""
    return (
        f"Careful, long images: {n_long} of {len(sizes)} are more than {LONGEST_ASPECT_RATIO:g} "
        "times as long as wide. They are squeezed to a square, and their objects with them: cut "
        "them into parts."
    )


def describe_sample(train_set, sizes):
    """Which images were looked at, if not all."""
    return f" in {len(sizes)} images" if len(sizes) < len(train_set) else ""
