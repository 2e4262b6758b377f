"""Figures of the data pipeline: each augmentation, the one resampling, a batch; and the files of this code."""

import ast
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import utils
from datasets import collate_fn
from examples import AUGMENTATIONS, BATCH_SCENES, ONE_RESAMPLE
from scene import draw_boxed_scene, draw_scene
from style import INK, LAYER, NORMAL, OBJECT, PREDICTION, QUIET, SMALL, Card, mix, number_text

CODE = Path(__file__).resolve().parents[1]
NO_CROP = utils.MIN_CROP_OVERLAPS.index(None)


class ChosenAugmentations:
    """A random generator for utils.transform: which augmentations take place is chosen, the rest is left to chance."""

    def __init__(self, seed, zoom=False, crop=NO_CROP, flip=False, colours=False):
        """
        :param seed: for everything that is not chosen
        :param crop: number of the minimum overlap in utils.MIN_CROP_OVERLAPS; by default that of no crop
        """
        self.generator = np.random.default_rng(seed)
        self.uniform, self.permutation = self.generator.uniform, self.generator.permutation
        self.answers = [
            0.0 if yes else 1.0 for yes in (zoom, flip)
        ]  # transform() asks in this order
        self.crop, self.colours = crop, colours

    def random(self):
        """What is compared with a chance of one half: below it, the augmentation takes place."""
        if self.answers:
            return self.answers.pop(0)
        return self.generator.random() if self.colours else 1.0

    def integers(self, _):
        """Which minimum overlap a crop must have."""
        return self.crop


def source_scene(side=900):
    """The scene as a data set would give it: image, boxes in pixels, labels, difficulties."""
    image, boxes, names = draw_scene(side=side)
    return (
        image,
        boxes * side,
        torch.arange(1, len(names) + 1),
        torch.zeros(len(names), dtype=torch.bool),
    )


def as_picture(image):
    """
    :param image: (3, 300, 300) float, normalised
    :return: PIL image
    """
    mean, std = (
        torch.tensor(utils.IMAGENET_MEAN).view(3, 1, 1),
        torch.tensor(utils.IMAGENET_STD).view(3, 1, 1),
    )
    pixels = ((image * std + mean) * 255).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def augmented(**choice):
    """The scene after transform() with the chosen augmentations: PIL image and boxes, fractional xy."""
    image, boxes, _, _ = utils.transform(*source_scene(), "TRAIN", ChosenAugmentations(**choice))
    return as_picture(image), boxes


def show(card, image, boxes, x, y, width, text):
    """A picture with its objects' boxes and a caption below it."""
    place = card.picture(image, x, y, width)
    for box in boxes.tolist():
        place.box(box, OBJECT, line=6)
    card.text(x + width / 2, y + width + 36, text, SMALL, INK)
    return place


def before_and_after(choices, captions, windows=(), note=""):
    """
    The scene, and what becomes of it: four pictures in two rows, or two in one.

    :param windows: what to draw on the scene besides its boxes, fractional xy
    :param note: a last line
    """
    n_rows = (len(choices) + 2) // 2
    card = Card(40 + 630 * n_rows + 60 * bool(note))
    image, boxes, _, _ = source_scene()
    place = show(card, image, boxes / image.width, 46, 40, 544, "as it is")
    for number, window in enumerate(windows, start=1):
        place.box(window, PREDICTION, str(number), line=6, dashed=True)
    if note:
        card.text(600, 40 + 630 * n_rows + 6, note, SMALL, QUIET)
    for number, (choice, caption) in enumerate(zip(choices, captions, strict=True), start=1):
        picture, kept = augmented(**choice)
        show(card, picture, kept, 46 + 564 * (number % 2), 40 + 630 * (number // 2), 544, caption)
    return card.image()


def zoom_out():
    """Placed on a larger canvas: objects become small."""
    choices = AUGMENTATIONS["zoom_out"]
    captions = []
    for choice in choices:
        window = utils.zoom_out(900, 900, ChosenAugmentations(**choice))
        captions.append(f"canvas {(window[2] - window[0]) / 900:.1f} times as wide")
    return before_and_after(choices, captions)


def random_crop():
    """A part of the image that overlaps an object enough: objects become large, or are cut off."""
    choices = AUGMENTATIONS["random_crop"]
    image, boxes, _, _ = source_scene()
    windows = []
    for choice in choices:
        window = utils.random_crop((0, 0, *image.size), boxes, ChosenAugmentations(**choice))
        windows.append([edge / image.width for edge in window])
    captions = [
        f"{n}: overlap ≥ {utils.MIN_CROP_OVERLAPS[choice['crop']]}"
        for n, choice in enumerate(choices, start=1)
    ]
    return before_and_after(
        choices, captions, windows, "objects whose centre is outside are dropped"
    )


def flip():
    """Mirrored, and the boxes with it."""
    return before_and_after(AUGMENTATIONS["flip"], ["flipped"])


def photometric():
    """Other colours; the boxes stay."""
    choices = AUGMENTATIONS["photometric"]
    return before_and_after(choices, ["other colours"] * len(choices))


def one_resample():
    """The augmentations decide on a window of the image; its pixels are resampled once."""
    image, boxes, _, _ = source_scene()
    rng = ChosenAugmentations(**ONE_RESAMPLE)
    canvas = utils.zoom_out(image.width, image.height, rng)
    window = utils.random_crop(canvas, boxes, rng)
    picture, kept = augmented(**ONE_RESAMPLE)

    card = Card(1120)
    scale = 600 / (canvas[2] - canvas[0])
    left, top = 50 - canvas[0] * scale, 130 - canvas[1] * scale
    filler = f"#{utils.FILLER[0]:02x}{utils.FILLER[1]:02x}{utils.FILLER[2]:02x}"
    card.text(350, 74, "1  choose a window", NORMAL, INK, bold=True)
    card.rectangle(
        50, 130, 600, 600, fill=mix(filler, share=0.7), edge=QUIET, line=4, dashed=True, layer=0
    )
    place = card.picture(image, left, top, image.width * scale)
    place.box([edge / image.width for edge in window], PREDICTION, line=9)
    card.text(350, 776, "zoomed out, then cropped:", SMALL, INK)
    card.text(350, 824, "only numbers so far", SMALL, INK)

    card.text(930, 74, "2  resample it once", NORMAL, INK, bold=True)
    result = card.picture(picture, 730, 220, 400)
    for box in kept.tolist():
        result.box(box, OBJECT, line=6)
    card.rectangle(730, 220, 400, 400, edge=PREDICTION, line=9, layer=6)
    card.text(930, 664, f"{utils.IMAGE_SIZE} × {utils.IMAGE_SIZE} pixels", SMALL, INK)
    card.arrow((664, 420), (716, 420), INK, 6)
    rows = [["", "x_min", "y_min", "x_max", "y_max"], ["window, pixels", *map(number_text, window)]]
    card.table(
        80, 890, rows, (340, 175, 175, 175, 175), 76, {(1, 0): {"colour": PREDICTION, "bold": True}}
    )
    return card.image()


def batch():
    """Images are stacked; boxes stay a list, as each image has its own number of objects."""
    items = []
    for objects in BATCH_SCENES:
        picture = draw_boxed_scene(objects, 300)
        boxes = torch.tensor([box for _, box in objects]).view(-1, 4) * 300
        labels = torch.arange(1, len(objects) + 1)
        items.append(
            utils.transform(
                picture, boxes, labels, torch.zeros(len(objects), dtype=torch.bool), "TEST"
            )
        )
    images, boxes, labels, _ = collate_fn(items)

    card = Card(1240)
    card.text(185, 66, "items", NORMAL, INK, bold=True)
    card.text(570, 66, "images", NORMAL, INK, bold=True)
    card.text(960, 66, "boxes, labels", NORMAL, INK, bold=True)
    for number, (image, box, label) in enumerate(zip(images, boxes, labels, strict=True)):
        y = 110 + 330 * number
        place = card.picture(as_picture(image), 50, y, 270)
        for row in box.tolist():
            place.box(row, OBJECT, line=6)
        card.arrow((336, y + 135), (414, y + 135), INK, 5)
        card.block(440, y + 45, 180, 180, 60, LAYER)
        for k in range(len(box)):
            card.rectangle(740, y + 60 + 44 * k, 150, 40, mix(OBJECT, share=0.6), OBJECT, 3)
            card.rectangle(980, y + 60 + 44 * k, 60, 40, mix(LAYER, share=0.6), LAYER, 3)
        card.text(815, y + 22, str(tuple(box.shape)), SMALL, OBJECT, mono=True)
        card.text(1010, y + 22, f"({len(label)},)", SMALL, QUIET, mono=True)
    card.text(530, 1124, str(tuple(images.shape)), SMALL, INK, mono=True, bold=True)
    card.text(530, 1180, "one tensor", SMALL, QUIET)
    card.text(930, 1124, f"{len(boxes)} tensors each", NORMAL, INK, bold=True)
    card.text(930, 1180, "in lists", SMALL, QUIET)
    return card.image()


# The files of the code: where each stands on the card, half its width, and what it does
CODE_FILES = {
    "train": (600, 110, 150, "trains"),
    "convert_weights": (210, 370, 185, "converts weights"),
    "eval": (612, 370, 145, "measures mAP"),
    "detect": (988, 370, 150, "finds objects"),
    "checkpoints": (612, 630, 150, "keeps models"),
    "datasets": (988, 890, 150, "reads the data"),
    "create_data_lists": (225, 690, 185, "makes the data"),
    "model": (612, 890, 150, "network and loss"),
    "utils": (600, 1140, 560, "boxes, transforms, mAP"),
}
COMMANDS = ("train", "convert_weights", "eval", "detect", "create_data_lists")


def imports_of(name):
    """The files of this code that one of them imports from."""
    tree = ast.parse((CODE / f"{name}.py").read_text(encoding="utf-8"))
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return found & CODE_FILES.keys()


def direct_imports():
    """
    Which file builds on which, without what follows from others: where a file imports one that another of its imports is built
    on as well, only the latter counts.

    :return: {name: names}
    """
    imports = {name: imports_of(name) for name in CODE_FILES}

    def reaches(name, other):
        return any(other == step or reaches(step, other) for step in imports[name])

    return {
        name: {other for other in used if not any(reaches(step, other) for step in used - {other})}
        for name, used in imports.items()
    }


def architecture_of_code():
    """The files, and which builds on which."""
    card = Card(1330)
    half_height = 62
    for name, (x, y, half_width, purpose) in CODE_FILES.items():
        colour = OBJECT if name in COMMANDS else LAYER
        box = (x - half_width, y - half_height, 2 * half_width, 2 * half_height)
        card.rectangle(*box, fill=mix(colour), edge=colour, line=4, radius=16, layer=4)
        card.text(x, y - 24, f"{name}.py", SMALL, INK, bold=True)
        card.text(x, y + 26, purpose, SMALL, INK)
    for name, used in direct_imports().items():
        x, y, *_ = CODE_FILES[name]
        for other in sorted(used):
            other_x, other_y, *_ = CODE_FILES[other]
            other_x = x if other == "utils" else other_x
            lean = max(
                -130, min((other_x - x) / 3.2, 130)
            )  # leaves and meets the boxes aslant, but not beside them
            card.arrow(
                (x + lean, y + half_height), (other_x - lean, other_y - half_height - 4), INK, 4
            )
    card.rectangle(44, 1250, 60, 44, mix(OBJECT), OBJECT, 4)
    card.text(122, 1272, "can be run", SMALL, align="left")
    card.arrow((420, 1272), (500, 1272), INK, 4)
    card.text(520, 1272, "builds on (and on what is below)", SMALL, align="left")
    return card.image()


FIGURES = {
    "zoom_out.png": zoom_out,
    "random_crop.png": random_crop,
    "flip.png": flip,
    "photometric.png": photometric,
    "one_resample.png": one_resample,
    "batch.png": batch,
    "architecture_of_code.png": architecture_of_code,
}
