"""Detect objects in images, and draw them."""

import colorsys
import functools
import itertools
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from annotations import printable
from checkpoints import load_model
from datasets import read_image, upright_rgb
from runtime import check_range, choose_device, read_command_line, readable_errors
from utils import transform


@dataclass
class Parameters:
    """Settings, to be changed here or on the command line."""

    # Images and model: what is looked at, and with what
    images: tuple = ()  # image files to look at
    checkpoint: str = "checkpoint_ssd300.pth.tar"  # any file of weights, or coco to download one

    # Detections: which are shown
    min_score: float = 0.2  # a detection's probability is above this
    max_overlap: float = 0.5  # Jaccard overlap above which the worse of two boxes of a class goes
    top_k: int = 200  # most detections per image
    suppress: tuple = ()  # names of classes that are not shown; give them after the images

    # Results: where and how they are drawn, and what computes
    font: str = ""  # TrueType or OpenType file for the labels, instead of Pillow's own font
    output_folder: str = "detections"  # where the images with the objects drawn go
    device: str = "auto"  # cpu, cuda, mps, xpu, or auto for a GPU if there is one


# ---------------------------------------------------------------------------------------- detecting


def detect(original_image, min_score, max_overlap, top_k, suppress=None, model=None, font=""):
    """
    Find the objects in an image and draw them on a copy: a box and a label in a colour of its own
    for each class.

    :param original_image: PIL image of any mode and size; never drawn on
    :param min_score, max_overlap, top_k, suppress, model: see find_objects, which raises the errors
    :param font: font file for the labels; by default Pillow's own font
    :return: PIL image, RGB
    """
    model = default_model() if model is None else model
    detections = find_objects(original_image, min_score, max_overlap, top_k, suppress, model)
    return annotate(original_image, detections, model.label_map, font)


@torch.inference_mode()
def find_objects(original_image, min_score, max_overlap, top_k, suppress=None, model=None):
    """
    Find the objects in an image.

    :param original_image: PIL image of any mode and size
    :param min_score: a class's probability must be above this
    :param max_overlap: of two boxes of a class whose Jaccard overlap is above this, the one with
        the lower score is dropped
    :param top_k: the most detections
    :param suppress: names of classes that are not returned, or None
    :param model: SSD300, in training or eval mode, which makes no difference to it: it has neither
        dropout nor batch normalisation. By default that of the checkpoint named in Parameters
    :return: list of (class name, score, (x_min, y_min, x_max, y_max) in pixels of the upright
        image), best first
    :raises FileNotFoundError: there is no checkpoint
    :raises ValueError: a number is out of range, or the model has no class to suppress of that name
    """
    check_numbers(min_score, max_overlap, top_k)
    model = default_model() if model is None else model
    suppress = suppress or ()
    check_class_names(suppress, model.label_map)
    original_image = upright_rgb(original_image)
    image = network_input(original_image).to(
        model.priors_cxcy.device, memory_format=torch.channels_last
    )
    predicted_locs, predicted_scores = model(image)
    boxes, labels, scores = model.detect_objects(
        predicted_locs, predicted_scores, min_score, max_overlap, top_k
    )

    size = torch.tensor([original_image.width, original_image.height])
    # A model that diverged may predict NaN, which could not be drawn
    boxes_px = boxes[0].cpu().nan_to_num().clamp(0, 1) * size.repeat(2)
    names = {number: name for name, number in model.label_map.items()}
    found = zip(labels[0].tolist(), scores[0].tolist(), boxes_px.tolist(), strict=True)
    detections = [(names[label], score, tuple(box)) for label, score, box in found]
    return [detection for detection in detections if detection[0] not in suppress]


@functools.cache
def default_model():
    """The model of the checkpoint named in Parameters, loaded when it is first needed, and kept."""
    parameters = Parameters()
    return load_model(parameters.checkpoint, choose_device(parameters.device))


def network_input(image):
    """
    :param image: PIL image, RGB
    :return: (1, 3, 300, 300) float, a batch of one
    """
    boxes = torch.zeros(0, 4)
    labels = torch.zeros(0, dtype=torch.int64)
    difficulties = torch.zeros(0, dtype=torch.bool)
    pixels, *_ = transform(image, boxes, labels, difficulties, split="TEST")
    return pixels.unsqueeze(0)


def check_numbers(min_score, max_overlap, top_k):
    """:raises ValueError: a number is out of range"""
    check_range("min_score", min_score, 0, 1)
    check_range("max_overlap", max_overlap, 0, 1)
    check_range("top_k", top_k, 1)


def check_class_names(names, label_map):
    """:raises ValueError: a class to suppress is none of the model's"""
    unknown = sorted(set(names) - set(label_map))
    if unknown:
        classes = list(label_map)[1:]
        raise ValueError(f"suppress: expected classes of the model, {classes}, got {unknown}")


# ------------------------------------------------------------------------------------------ drawing


def annotate(original_image, detections, label_map, font=""):
    """
    Draw detections on a copy of an image.

    :param original_image: PIL image; left as it is
    :param detections: what find_objects returned
    :param label_map: {class name: number}, for the colours
    :param font: font file for the labels; by default Pillow's own font
    :return: PIL image, RGB
    """
    annotated_image = upright_rgb(original_image).copy()
    pen = ImageDraw.Draw(annotated_image)
    shorter_side = min(annotated_image.size)
    line_width = max(1, round(shorter_side / 150))
    margin = line_width + 1  # around the text of a label
    label_font = load_font(font, size=max(10, shorter_side / 28))

    boxes = [tuple(map(round, box)) for _, _, box in detections]
    colours = [label_colour(label_map[name], len(label_map)) for name, _, _ in detections]
    texts = [f"{printable(name)} {score:.2f}" for name, score, _ in detections]
    sizes = [label_size(text, label_font, margin) for text in texts]
    labels = place_labels(boxes, sizes, annotated_image.size)

    # The best ones are drawn last, on top of the others
    for box, colour in reversed(list(zip(boxes, colours, strict=True))):
        draw_box(pen, box, colour, line_width)
    for label, text, colour in reversed(list(zip(labels, texts, colours, strict=True))):
        draw_label(pen, label, text, colour, label_font, margin)
    return annotated_image


def label_colour(number, n_classes):
    """
    A colour of its own for each class: evenly spaced hues, alternately bright and darker.

    :param number: of the class, from 1
    :param n_classes: number of classes, including background
    :return: (red, green, blue) from 0 to 255
    """
    hue = (number - 1) / max(n_classes - 1, 1)
    value = 1.0 if number % 2 else 0.7
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.85, value))


def draw_box(pen, box, colour, line_width):
    """Draw the outline of a box; one that is thinner than a pixel gets a pixel."""
    x_min, y_min, x_max, y_max = box
    # Pillow includes the last pixel
    corners = (x_min, y_min, max(x_max - 1, x_min), max(y_max - 1, y_min))
    pen.rectangle(corners, outline=colour, width=line_width)


def draw_label(pen, label, text, colour, font, margin):
    """Fill the rectangle of a label, and write its text in black or white, whichever stands out."""
    x_min, y_min, x_max, y_max = label
    pen.rectangle((x_min, y_min, x_max - 1, y_max - 1), fill=colour)
    left, top, _, _ = font.getbbox(text)
    red, green, blue = colour
    brightness = (299 * red + 587 * green + 114 * blue) / 1000
    text_colour = "black" if brightness > 140 else "white"
    pen.text((x_min + margin - left, y_min + margin - top), text, font=font, fill=text_colour)


def label_size(text, font, margin):
    """(width, height) of a label in whole pixels."""
    left, top, right, bottom = font.getbbox(text)
    return math.ceil(right - left) + 2 * margin, math.ceil(bottom - top) + 2 * margin


def place_labels(boxes, sizes, image_size):
    """
    Choose places for the labels of boxes. A label covers neither its own box nor other labels where
    there is room for that, and then as little as possible of the other boxes. The first one chooses
    first.

    :param boxes: list of (x_min, y_min, x_max, y_max) in pixels
    :param sizes: (width, height) of the label of each box
    :param image_size: (width, height)
    :return: list of (x_min, y_min, x_max, y_max), the rectangles of the labels
    """
    labels = []
    for box, size in zip(boxes, sizes, strict=True):
        places = candidate_places(box, size, image_size)
        costs = [
            (total_overlap(place, [box, *labels]), total_overlap(place, boxes)) for place in places
        ]
        labels.append(places[costs.index(min(costs))])  # of equal ones the first
    return labels


def candidate_places(box, size, image_size):
    """
    Where the label of a box can stand, best first: above it, below it, or beside it. What would not
    be in the image is moved there, and may then cover the box.

    :return: list of rectangles
    """
    x_min, y_min, x_max, y_max = box
    width, height = size
    corners = []
    for y in (y_min - height, y_max):
        for x in (x_min, x_max - width, (x_min + x_max - width) // 2):
            corners.append((x, y))
    for x in (x_max, x_min - width):
        for y in (y_min, y_max - height):
            corners.append((x, y))
    return [move_into_image(x, y, size, image_size) for x, y in corners]


def move_into_image(x, y, size, image_size):
    """The rectangle of this size with its upper left corner at (x, y), or as near as fits."""
    width, height = size
    x = max(0, min(x, image_size[0] - width))
    y = max(0, min(y, image_size[1] - height))
    return x, y, x + width, y + height


def total_overlap(rectangle, others):
    """How many pixels of a rectangle others cover; those covered twice count twice."""
    total = 0
    for other in others:
        width = min(rectangle[2], other[2]) - max(rectangle[0], other[0])
        height = min(rectangle[3], other[3]) - max(rectangle[1], other[1])
        if width > 0 and height > 0:
            total += width * height
    return total


def draw_sheet(paths, model, sheet_path, n_columns=4, n_rows=2, side=400):
    """
    Write one image that shows several images with their detections.

    :param paths: image files; the first ones, as many as there is room for, are shown
    :param model: SSD300
    :param sheet_path: where the sheet goes
    :param n_columns, n_rows: of the sheet
    :param side: pixels along each side of an image's place on the sheet
    """
    gap = 4  # pixels around each image
    paths = paths[: n_columns * n_rows]
    sheet = Image.new("RGB", (n_columns * side, n_rows * side), "white")
    for i, path in enumerate(paths):
        annotated_image = detect(
            read_image(path), min_score=0.3, max_overlap=0.45, top_k=200, model=model
        )
        annotated_image.thumbnail((side - 2 * gap, side - 2 * gap))
        row, column = divmod(i, n_columns)
        sheet.paste(annotated_image, (column * side + gap, row * side + gap))
    sheet.save(sheet_path)
    print(f"The first {len(paths)} images with their detections are drawn in {sheet_path}.")


# -------------------------------------------------------------------------------------------- fonts


def load_font(path, size):
    """
    :param path: TrueType or OpenType file, or "" for Pillow's own font, which has ASCII only
    :param size: pixels
    :return: PIL.ImageFont.FreeTypeFont
    :raises ValueError: the file cannot be read as a font
    """
    if not path:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"font: expected a TrueType or OpenType file, got {path} ({error})"
        ) from error


def missing_letters(texts, font):
    """
    :param texts: list of texts
    :param font: PIL.ImageFont.FreeTypeFont
    :return: the letters in them that the font lacks, a text
    """
    letters = sorted(set("".join(texts)))
    # A font draws the same box for every letter that it lacks, and U+FFFF is never a letter
    box = bytes(font.getmask("\uffff"))
    return "".join(letter for letter in letters if bytes(font.getmask(letter)) == box)


# --------------------------------------------------------------------------------------- the script


def main(parameters):
    """
    Detect objects in image files, print them, and write copies with the objects drawn. A file that
    cannot be read is passed over, and reported at the end.

    :param parameters: Parameters
    :return: the paths written
    :raises FileNotFoundError: there is no checkpoint, or none of the images exists
    :raises ValueError: a parameter has no sensible value, or some images could not be read
    """
    check_parameters(parameters)
    model = load_model(parameters.checkpoint, choose_device(parameters.device))
    check_class_names(parameters.suppress, model.label_map)
    warn_of_missing_letters(model.label_map, parameters.font)
    output_folder = Path(parameters.output_folder)
    output_folder.mkdir(parents=True, exist_ok=True)

    written = []
    failures = []
    for path, output_path in choose_output_paths(parameters.images, output_folder).items():
        try:
            image = read_image(path)
        except ValueError as error:
            failures.append(str(error))
            continue
        detect_in_file(path, image, output_path, model, parameters)
        written.append(output_path)
    if failures:
        n_images = len(written) + len(failures)
        title = f"{len(failures)} of {n_images} images could not be read:"
        raise ValueError("\n".join([title, *failures]))
    return written


def detect_in_file(path, image, output_path, model, parameters):
    """Print the objects in one image, and write a copy of it that shows them."""
    detections = find_objects(
        image,
        parameters.min_score,
        parameters.max_overlap,
        parameters.top_k,
        parameters.suppress,
        model,
    )
    annotate(image, detections, model.label_map, parameters.font).save(output_path)
    print(f"{path}: {len(detections)} objects, drawn in {output_path}")
    for name, score, box in detections:
        print(f"  {printable(name)} {score:.2f} at " + ", ".join(f"{edge:.0f}" for edge in box))


def check_parameters(parameters):
    """
    Find what is wrong with the parameters before the model is loaded, which takes a while.

    :raises FileNotFoundError: none of the images exists
    :raises ValueError: a parameter has no sensible value
    """
    if not parameters.images:
        raise ValueError("images: expected at least one image file, got none")
    if not any(Path(path).exists() for path in parameters.images):
        raise FileNotFoundError(f"{parameters.images[0]}: no such image")
    check_numbers(parameters.min_score, parameters.max_overlap, parameters.top_k)
    load_font(parameters.font, size=20)
    output_folder = Path(parameters.output_folder)
    if output_folder.exists() and not output_folder.is_dir():
        raise ValueError(f"output_folder: expected a folder, got the file {output_folder}")


def warn_of_missing_letters(label_map, font):
    """Print a line if a class has letters that the font of the labels lacks."""
    names = [printable(name) for name in label_map]
    missing = missing_letters(names, load_font(font, size=20))
    if missing:
        print(
            f"The labels' font lacks letters of the classes: {missing} (--font FILE names another)"
        )


def choose_output_paths(paths, output_folder):
    """
    Choose a name for each output: that of its image, with a number if another one has it already.

    :param paths: image files; a repeated one counts once
    :param output_folder: where the outputs go
    :return: {path of the image: path of its output}; no output replaces another one, nor an image
    """
    folder = output_folder.resolve()
    # In lower case, since for some systems "A.png" and "a.png" are the same file
    taken = {Path(path).name.lower() for path in paths if Path(path).parent.resolve() == folder}
    output_paths = {}
    for path in dict.fromkeys(paths):
        stem = Path(path).stem
        name = f"{stem}_detections.png"
        number = 2
        while name.lower() in taken:
            name = f"{stem}_{number}_detections.png"
            number += 1
        taken.add(name.lower())
        output_paths[path] = output_folder / name
    return output_paths


def put_images_first(arguments):
    """
    In `--suppress dog photo.jpg` argparse takes the image for the name of another class. Move such
    files to the images at the beginning, or if there are none in front of --suppress.

    :param arguments: of the command line, a list of texts
    :return: the same, in an order that argparse understands
    """
    if "--suppress" not in arguments:
        return arguments
    at = arguments.index("--suppress")
    before, after = arguments[:at], arguments[at + 1 :]
    values = list(itertools.takewhile(lambda text: not text.startswith("-"), after))
    # Files without an ending are left among the names: a folder may hold a file named like a class
    images = [text for text in values[1:] if Path(text).suffix and Path(text).is_file()]
    names = [text for text in values if text not in images]
    leading_images = list(itertools.takewhile(lambda text: not text.startswith("-"), before))
    n_before = len(leading_images) or len(before)
    before[n_before:n_before] = images
    return [*before, "--suppress", *names, *after[len(values) :]]


if __name__ == "__main__":
    with readable_errors():
        arguments = put_images_first(sys.argv[1:])
        main(read_command_line(Parameters, __doc__, arguments, positional=("images",))[0])
