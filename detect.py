"""Detect objects in pictures, and draw them."""

import colorsys
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from checkpoints import load_model
from datasets import read_image, upright_rgb
from downloads import DownloadError
from runtime import choose_device, describe_error, read_command_line
from utils import transform


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    images: tuple = ()  # pictures to look at
    checkpoint: str = "checkpoint_ssd300.pth.tar"  # the model to use, of any kind that is known here, or coco to download one
    min_score: float = 0.2  # a class's probability must be above this
    max_overlap: float = 0.5  # Jaccard overlap above which the worse of two boxes of a class goes
    top_k: int = 200  # most detections an image
    suppress: tuple = ()  # names of classes that should not be shown
    output_folder: str = "detections"  # where the pictures with the objects drawn go
    device: str = "auto"  # cuda, cpu, or auto for a GPU if there is one


@functools.cache
def default_model():
    """The model of the checkpoint named above, loaded when it is first needed and kept."""
    parameters = Parameters()
    return load_model(parameters.checkpoint, choose_device(parameters.device))


@torch.inference_mode()
def find_objects(original_image, min_score, max_overlap, top_k, suppress=None, model=None):
    """
    Find the objects in a picture.

    :param original_image: PIL image of any mode and size
    :param min_score, max_overlap, top_k: see SSD300.detect_objects
    :param suppress: class names that should not be returned, or None
    :param model: SSD300 with its `label_map`, in eval mode; by default that of the checkpoint named at the top of this file
    :return: a list of (class name, score, (x_min, y_min, x_max, y_max) in pixels of the upright picture), best first
    :raises FileNotFoundError: there is no checkpoint
    :raises ValueError: a name to suppress is not a class of the model
    """
    model = default_model() if model is None else model
    names = {number: name for name, number in model.label_map.items()}
    unknown = set(suppress or ()) - set(model.label_map)
    if unknown:
        raise ValueError(
            f"suppress: {sorted(unknown)} are not classes of this model, which knows {list(model.label_map)[1:]}"
        )

    original_image = upright_rgb(original_image)
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    image = transform(original_image, *nothing, split="TEST")[0]
    image = image.unsqueeze(0).to(model.priors_cxcy.device, memory_format=torch.channels_last)
    boxes, labels, scores = (
        tensors[0].cpu()
        for tensors in model.detect_objects(*model(image), min_score, max_overlap, top_k)
    )
    boxes_px = boxes.clamp(0, 1) * torch.tensor(
        [original_image.width, original_image.height]
    ).repeat(2)
    found = zip(
        (names[label] for label in labels.tolist()),
        scores.tolist(),
        map(tuple, boxes_px.tolist()),
        strict=True,
    )
    return [detection for detection in found if detection[0] not in (suppress or ())]


def label_colour(number, n_classes):
    """A colour of its own for each class, (red, green, blue) from 0 to 255: evenly spaced hues, in turn bright and darker."""
    hue = (number - 1) / max(n_classes - 1, 1)
    return tuple(
        round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.85, 1.0 if number % 2 else 0.7)
    )


def annotate(original_image, detections, label_map):
    """
    Draw detections on a copy of a picture.

    :param original_image: PIL image; left as it is
    :param detections: what find_objects returned
    :param label_map: {class name: number}, for the colours
    :return: PIL image, RGB
    """
    annotated_image = upright_rgb(original_image).copy()
    pen = ImageDraw.Draw(annotated_image)
    shorter_side = min(annotated_image.size)
    line_width = max(1, round(shorter_side / 150))
    font = ImageFont.load_default(size=max(10, shorter_side / 28))
    for name, score, box in reversed(detections):  # the best ones on top
        colour = label_colour(label_map[name], len(label_map))
        x_min, y_min, x_max, y_max = box
        # Pillow includes the last pixel; a box thinner than a pixel still gets its outline
        pen.rectangle(
            (x_min, y_min, max(x_max - 1, x_min), max(y_max - 1, y_min)),
            outline=colour,
            width=line_width,
        )

        text = f"{name} {score:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        pad = line_width + 1
        width, height = right - left + 2 * pad, bottom - top + 2 * pad
        x = max(0, min(x_min, annotated_image.width - width))
        y = (
            y_min - height if y_min >= height else y_min
        )  # above the box, or inside where there is no room above
        y = max(0, min(y, annotated_image.height - height))
        pen.rectangle((x, y, x + width, y + height), fill=colour)
        brightness = (299 * colour[0] + 587 * colour[1] + 114 * colour[2]) / 1000
        pen.text(
            (x + pad - left, y + pad - top),
            text,
            font=font,
            fill="black" if brightness > 140 else "white",
        )
    return annotated_image


def detect(original_image, min_score, max_overlap, top_k, suppress=None, model=None):
    """
    Find the objects in a picture and draw them on a copy: a box and a label in a colour of its own for each class.

    :param original_image: PIL image of any mode and size; never drawn on
    :param min_score: a class's probability must be above this
    :param max_overlap: of two boxes of a class whose Jaccard overlap is above this, the one with the lower score goes
    :param top_k: the most detections
    :param suppress: class names that should not be shown, or None
    :param model: SSD300 with its `label_map`, in eval mode; by default that of the checkpoint named at the top of this file
    :return: PIL image, RGB
    :raises FileNotFoundError: there is no checkpoint
    :raises ValueError: a name to suppress is not a class of the model
    """
    model = default_model() if model is None else model
    detections = find_objects(original_image, min_score, max_overlap, top_k, suppress, model)
    return annotate(original_image, detections, model.label_map)


def draw_sheet(paths, model, sheet_path, n_columns=4, n_rows=2, side=400):
    """
    Write a picture of several pictures with their detections drawn.

    :param paths: picture files; those for which there is room are taken
    :param model: SSD300 with its `label_map`
    :param sheet_path: where the picture goes
    :param n_columns, n_rows, side: of the sheet, and pixels of each picture's place in it
    """
    sheet = Image.new("RGB", (n_columns * side, n_rows * side), "white")
    for i, path in enumerate(paths[: n_columns * n_rows]):
        annotated_image = detect(
            read_image(path), min_score=0.3, max_overlap=0.45, top_k=200, model=model
        )
        annotated_image.thumbnail((side - 8, side - 8))
        sheet.paste(annotated_image, (i % n_columns * side + 4, i // n_columns * side + 4))
    sheet.save(sheet_path)
    print(
        f"The first {len(paths[: n_columns * n_rows])} pictures with their detections are drawn in {sheet_path}."
    )


def main(parameters):
    """
    Detect objects in picture files, print them, and write copies with the objects drawn.

    :param parameters: Parameters
    :return: the paths written
    :raises FileNotFoundError: there is no checkpoint, or a picture is missing
    :raises ValueError: a picture can not be read, or a name to suppress is not a class of the model
    """
    for path in parameters.images:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such picture")
    model = load_model(parameters.checkpoint, choose_device(parameters.device))
    output_folder = Path(parameters.output_folder)
    output_folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path in parameters.images:
        image = read_image(path)
        settings = (
            parameters.min_score,
            parameters.max_overlap,
            parameters.top_k,
            parameters.suppress,
        )
        detections = find_objects(image, *settings, model)
        output_path = output_folder / f"{Path(path).stem}_detections.png"
        if output_path in written:  # a picture of the same name from another folder
            output_path = output_folder / f"{Path(path).stem}_{len(written) + 1}_detections.png"
        written.append(output_path)
        annotate(image, detections, model.label_map).save(written[-1])
        print(f"{path}: {len(detections)} objects, drawn in {written[-1]}")
        for name, score, box in detections:
            print(f"  {name} {score:.2f} at " + ", ".join(f"{edge:.0f}" for edge in box))
    return written


if __name__ == "__main__":
    try:
        main(read_command_line(Parameters, __doc__, positional=("images",))[0])
    except (OSError, ValueError, DownloadError) as error:
        sys.exit(describe_error(error))
