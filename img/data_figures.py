"""Figures of the data: each augmentation, the single resampling, and a batch."""

import numpy as np
import torch
from PIL import Image

import utils
from datasets import collate_fn
from examples import AUGMENTATIONS, BATCH_SCENES, ONE_RESAMPLE
from scene import draw_boxed_scene, draw_scene
from style import CARD, INK, LAYER, NORMAL, OBJECT, PREDICTION, QUIET, SMALL, Card, mix, number_text

SCENE_SIDE = 900  # pixels
# The distortions' least and largest amounts, in the order of utils.photometric_distort
LIMITS = {
    "brightness": (-utils.BRIGHTNESS, utils.BRIGHTNESS),
    "contrast": utils.CONTRAST,
    "saturation": utils.SATURATION,
    "hue": (-utils.HUE, utils.HUE),
}
WINDOW_COLOURS = {"image": INK, "canvas": QUIET, "window": PREDICTION}
SEVERAL = {"contrast": 0.7, "hue": 0.05, "brightness": 20}  # distortions in this order
NO_CROP = utils.MIN_CROP_OVERLAPS.index(None)


class ChosenAugmentations:
    """
    A random generator for utils.transform. It chooses which augmentations are applied, and leaves
    the rest to chance.
    """

    def __init__(self, seed, zoom=False, crop=NO_CROP, flip=False):
        """
        :param seed: for what is left to chance
        :param zoom, flip: whether these augmentations are applied
        :param crop: index of the minimum overlap in utils.MIN_CROP_OVERLAPS; default: no crop
        """
        self.generator = np.random.default_rng(seed)
        self.uniform = self.generator.uniform
        self.permutation = self.generator.permutation
        self.answers = [0.0 if yes else 1.0 for yes in (zoom, flip)]  # transform's first questions
        self.crop = crop

    def random(self):
        """A number that transform compares with 0.5: the augmentation is applied if it is lower."""
        return self.answers.pop(0) if self.answers else 1.0

    def integers(self, _):
        """The index of the minimum overlap of a crop."""
        return self.crop


class ChosenDistortions:
    """A random generator for utils.photometric_distort that applies chosen distortions."""

    def __init__(self, amounts):
        """:param amounts: {name of the distortion: amount}, in the order of their application"""
        self.numbers = [list(LIMITS).index(name) for name in amounts]
        self.amounts = list(amounts.values())

    def permutation(self, _):
        """The numbers of the chosen distortions."""
        return self.numbers

    def random(self):
        """A number that photometric_distort compares with 0.5: each chosen one is applied."""
        return 0.0

    def uniform(self, *_):
        """The amount of the next distortion."""
        return self.amounts.pop(0)


def source_scene(side=SCENE_SIDE):
    """The scene as a data set gives it: image, boxes in pixels, labels and difficulties."""
    image, boxes, names = draw_scene(side=side)
    labels = torch.arange(1, len(names) + 1)
    difficulties = torch.zeros(len(names), dtype=torch.bool)
    return image, boxes * side, labels, difficulties


def to_pil_image(image):
    """
    :param image: (3, 300, 300) float, normalised
    :return: PIL image
    """
    mean = torch.tensor(utils.IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(utils.IMAGENET_STD).view(3, 1, 1)
    pixels = ((image * std + mean) * 255).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def augmented(**choice):
    """
    The scene after the chosen augmentations.

    :param choice: as for ChosenAugmentations
    :return: PIL image, and boxes (n, 4), fractional xy
    """
    image, boxes, _, _ = utils.transform(*source_scene(), "TRAIN", ChosenAugmentations(**choice))
    return to_pil_image(image), boxes


def show(card, image, boxes, x, y, width, text):
    """Show an image with the boxes of its objects and a caption below it; gives its Place."""
    place = card.show(image, x, y, width)
    for box in boxes.tolist():
        place.box(box, OBJECT, line=6)
    card.text(x + width / 2, y + width + 36, text, SMALL, INK)
    return place


def before_and_after(choices, captions, windows=(), note=""):
    """
    Draw the scene and its augmented versions: four images in two rows, or two in one.

    :param choices: of each version, as for ChosenAugmentations
    :param captions: of each version
    :param windows: boxes to draw on the scene besides those of its objects, fractional xy
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
        version, kept = augmented(**choice)
        x = 46 + 564 * (number % 2)
        y = 40 + 630 * (number // 2)
        show(card, version, kept, x, y, 544, caption)
    return card.image()


def zoom_out():
    """The scene on larger canvases: its objects become small."""
    choices = AUGMENTATIONS["zoom_out"]
    captions = []
    for choice in choices:
        left, _, right, _ = utils.zoom_out(SCENE_SIDE, SCENE_SIDE, ChosenAugmentations(**choice))
        captions.append(f"canvas {(right - left) / SCENE_SIDE:.1f} times as wide")
    return before_and_after(choices, captions)


def random_crop():
    """Parts of the scene that overlap an object enough: objects become large, or are cut off."""
    choices = AUGMENTATIONS["random_crop"]
    image, boxes, _, _ = source_scene()
    windows = []
    captions = []
    for number, choice in enumerate(choices, start=1):
        window = utils.random_crop((0, 0, *image.size), boxes, ChosenAugmentations(**choice))
        windows.append([edge / SCENE_SIDE for edge in window])
        captions.append(f"{number}: overlap ≥ {utils.MIN_CROP_OVERLAPS[choice['crop']]}")
    note = "objects whose centre is outside are dropped"
    return before_and_after(choices, captions, windows, note)


def flip():
    """The scene mirrored, and its boxes with it."""
    return before_and_after(AUGMENTATIONS["flip"], ["flipped"])


def distorted(amounts):
    """
    The scene after photometric distortions.

    :param amounts: as for ChosenDistortions
    :return: PIL image
    """
    image, _, _, _ = source_scene()
    window = (0, 0, image.width, image.height)
    pixels = utils.crop_and_resize(image, window, ChosenDistortions(amounts))
    return Image.fromarray(pixels.round().byte().permute(1, 2, 0).numpy())


def amount_text(name, amount):
    """How much a distortion changes: levels of 255, a factor, or degrees of the colour circle."""
    if name == "brightness":
        return f"{amount:+.0f} of 255".replace("-", "−")
    if name == "hue":
        return f"{360 * amount:+.0f}° of 360°".replace("-", "−")
    return f"× {amount:.1f}"


def photometric():
    """Each distortion at its limits, and several together; the boxes stay as they are."""
    card = Card(1470)
    image, boxes, _, _ = source_scene()
    boxes = boxes / image.width
    show(card, image, boxes, 46, 40, 544, "as it is")
    *first, last = (f"{name} {amount_text(name, SEVERAL[name])}" for name in SEVERAL)
    show(card, distorted(SEVERAL), boxes, 610, 40, 544, ", ".join(first) + ",")
    card.text(882, 664, f"then {last}", SMALL, INK)
    for column, (name, amounts) in enumerate(LIMITS.items()):
        x = 46 + 281 * column
        card.text(x + 132, 745, name, NORMAL, bold=True)
        for row, amount in enumerate(amounts):
            y = 785 + 335 * row
            card.show(distorted({name: amount}), x, y, 265)
            card.text(x + 132, y + 296, amount_text(name, amount), SMALL)
    return card.image()


def one_resample():
    """The augmentations only choose a window of the image; its pixels are resampled once."""
    image, boxes, _, _ = source_scene()
    rng = ChosenAugmentations(**ONE_RESAMPLE)
    canvas = utils.zoom_out(image.width, image.height, rng)
    window = utils.random_crop(canvas, boxes, rng)
    areas = {"image": (0, 0, *image.size), "canvas": canvas, "window": window}
    card = Card(1190)
    card.text(350, 74, "1  choose a window", NORMAL, INK, bold=True)
    draw_window(card, image, canvas, window)
    card.text(350, 776, "zoomed out, then cropped:", SMALL, INK)
    card.text(350, 824, "only numbers so far", SMALL, INK)

    result, kept = augmented(**ONE_RESAMPLE)
    card.text(930, 74, "2  resample it once", NORMAL, INK, bold=True)
    place = card.show(result, 730, 220, 400)
    for box in kept.tolist():
        place.box(box, OBJECT, line=6)
    card.rectangle(730, 220, 400, 400, edge=PREDICTION, line=9, layer=6)
    card.text(930, 664, f"{utils.IMAGE_SIZE} × {utils.IMAGE_SIZE} pixels", NORMAL, INK, bold=True)
    card.text(930, 716, "whatever the window's size", SMALL, QUIET)
    card.arrow((664, 420), (716, 420), INK, 6)
    rows = [["pixels", "x_min", "y_min", "x_max", "y_max", "size"]]
    looks = {}
    for name, area in areas.items():
        looks[len(rows), 0] = {"colour": WINDOW_COLOURS[name], "bold": True}
        rows.append([name, *map(number_text, area), size_of(area)])
    card.table(52, 880, rows, (190, 155, 155, 155, 155, 286), 66, looks)
    return card.image()


def size_of(area):
    """Width × height of (x_min, y_min, x_max, y_max)."""
    x_min, y_min, x_max, y_max = map(round, area)
    return f"{x_max - x_min} × {y_max - y_min}"


def draw_window(card, image, canvas, window):
    """
    Draw the image on its canvas, and the window that is chosen.

    :param canvas, window: (x_min, y_min, x_max, y_max) in pixels of the image
    """
    filler = mix("#{:02x}{:02x}{:02x}".format(*utils.FILLER), share=0.7)
    card.rectangle(50, 130, 600, 600, fill=filler, edge=QUIET, line=4, dashed=True, layer=0)
    scale = 600 / (canvas[2] - canvas[0])
    x = 50 - canvas[0] * scale
    y = 130 - canvas[1] * scale
    place = card.show(image, x, y, image.width * scale)
    place.box([edge / image.width for edge in window], PREDICTION, line=9)
    look = {"size": SMALL, "background": CARD}
    card.text(x + image.width * scale / 2, y + 26, f"image {image.width} × {image.height}", **look)
    card.text(350, 700, f"canvas {size_of(canvas)}", SMALL, QUIET)
    middle = x + (window[0] + window[2]) / 2 * scale
    bottom = y + window[3] * scale
    card.text(middle, bottom - 40, f"window {size_of(window)}", SMALL, PREDICTION, bold=True)


def example_batch():
    """A batch of three scenes, as collate_fn gives it."""
    items = []
    for objects in BATCH_SCENES:
        image = draw_boxed_scene(objects, 300)
        boxes = torch.tensor([box for _, box in objects]) * 300
        labels = torch.arange(1, len(objects) + 1)
        difficulties = torch.zeros(len(objects), dtype=torch.bool)
        items.append(utils.transform(image, boxes, labels, difficulties, "TEST"))
    return collate_fn(items)


def batch():
    """Images are stacked; boxes stay in a list, because the images' numbers of objects differ."""
    images, boxes, labels, _ = example_batch()
    card = Card(1240)
    card.text(185, 66, "items", NORMAL, INK, bold=True)
    card.text(570, 66, "images", NORMAL, INK, bold=True)
    card.text(960, 66, "boxes, labels", NORMAL, INK, bold=True)
    for number in range(len(images)):
        draw_item(card, 110 + 330 * number, images[number], boxes[number], labels[number])
    card.text(530, 1124, str(tuple(images.shape)), SMALL, INK, mono=True, bold=True)
    card.text(530, 1180, "one tensor", SMALL, QUIET)
    card.text(930, 1124, f"{len(boxes)} tensors each", NORMAL, INK, bold=True)
    card.text(930, 1180, "in lists", SMALL, QUIET)
    return card.image()


def draw_item(card, y, image, boxes, labels):
    """Draw one item of a batch: its image, and its tensors beside it."""
    place = card.show(to_pil_image(image), 50, y, 270)
    for box in boxes.tolist():
        place.box(box, OBJECT, line=6)
    card.arrow((336, y + 135), (414, y + 135), INK, 5)
    card.block(440, y + 45, 180, 180, 60, LAYER)
    for k in range(len(boxes)):
        top = y + 60 + 44 * k
        card.rectangle(740, top, 150, 40, mix(OBJECT, share=0.6), OBJECT, 3)
        card.rectangle(980, top, 60, 40, mix(LAYER, share=0.6), LAYER, 3)
    card.text(815, y + 22, str(tuple(boxes.shape)), SMALL, OBJECT, mono=True)
    card.text(1010, y + 22, f"({len(labels)},)", SMALL, QUIET, mono=True)


FIGURES = {
    "zoom_out.png": zoom_out,
    "random_crop.png": random_crop,
    "flip.png": flip,
    "photometric.png": photometric,
    "one_resample.png": one_resample,
    "batch.png": batch,
}
