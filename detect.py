"""Detect objects in images and films, and draw them."""

import functools
import itertools
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from tqdm import tqdm

from annotations import printable
from checkpoints import load_model
from datasets import (
    MAX_PIXELS,
    describe_image_errors,
    open_image,
    read_image,
    upright_rgb,
)
from drawing import annotate, load_font, missing_letters
from films import is_animated, is_film, open_film_or_animation
from image_paths import choose_output_paths, expand_pattern, find_files
from runtime import (
    autocast,
    check_file,
    check_precision,
    check_range,
    choose_device,
    choose_precision,
    count,
    describe_precision,
    read_command_line,
    readable_errors,
)
from utils import transform


@dataclass
class Parameters:
    """Settings, to be changed here or on the command line."""

    # Images and model: what is looked at, and with what
    images: tuple = ()  # image files, films, folders of them, or patterns like "*.jpg"
    checkpoint: str = "checkpoint_ssd300.pth.tar"  # any file of weights, or coco to download one

    # Detections: which are shown
    min_score: float = 0.2  # a detection's probability is above this
    max_overlap: float = 0.5  # Jaccard overlap above which the worse of two boxes of a class goes
    top_k: int = 200  # most detections per image
    suppress: tuple = ()  # names of classes that are not shown; give them after the images

    # Results: where and how they are drawn and written
    font: str = ""  # TrueType or OpenType file for the labels, instead of Pillow's own font
    output_folder: str = "detections"  # where the images with the objects drawn go
    json: str = ""  # also write boxes, labels and scores to this file, which ends in .json

    # Machine: what computes, and how
    device: str = "auto"  # cpu, cuda, mps, xpu, or auto for a GPU if there is one
    precision: str = "auto"  # of convolutions: float32, bfloat16, float16, or auto for the fastest
    batch_size: int = 8  # images at a time; fewer if they are very large


class Detection(NamedTuple):
    """An object that was found."""

    name: str  # of the class
    score: float  # the class's probability, 0 to 1
    box: tuple  # (x_min, y_min, x_max, y_max) in pixels of the upright image


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


def find_objects(
    images,
    min_score=0.2,
    max_overlap=0.5,
    top_k=200,
    suppress=None,
    model=None,
    batch_size=8,
    precision="float32",
):
    """
    Find the objects in an image, or in each of a list of images:

        for name, score, (x_min, y_min, x_max, y_max) in find_objects(Image.open("photo.jpg")):
            print(name, score)

    :param images: PIL image of any mode and size, or a list of N
    :param min_score: a class's probability must be above this
    :param max_overlap: of two boxes of a class whose Jaccard overlap is above this, the one with
        the lower score is dropped
    :param top_k: the most detections per image
    :param suppress: names of classes that are not returned, or None
    :param model: SSD300, in training or eval mode, which makes no difference to it: it has neither
        dropout nor batch normalisation. By default that of the checkpoint named in Parameters
    :param batch_size: how many images go through the network at a time. It makes no difference to
        what is found, but for rounding
    :param precision: of convolutions, see runtime.autocast; "auto" is the fastest
    :return: list of Detection, best first, with boxes clipped to the image; of a list of images, a
        list of N such lists
    :raises FileNotFoundError: there is no checkpoint
    :raises ValueError: a number is out of range, something is not a PIL image, or the model has no
        class to suppress of that name
    """
    if isinstance(images, Image.Image):
        settings = (min_score, max_overlap, top_k, suppress, model, batch_size, precision)
        return find_objects([images], *settings)[0]
    check_images(images)
    check_numbers(min_score, max_overlap, top_k)
    check_range("batch_size", batch_size, low=1)
    model = default_model() if model is None else model
    suppress = suppress or ()
    check_class_names(suppress, model.label_map)

    found = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        found += find_in_batch(batch, min_score, max_overlap, top_k, model, precision)
    return [
        [detection for detection in detections if detection.name not in suppress]
        for detections in found
    ]


@torch.inference_mode()
def find_in_batch(images, min_score, max_overlap, top_k, model, precision):
    """
    Find the objects in images that go through the network together; for the parameters see
    find_objects.

    :return: list of lists of Detection, of all classes
    """
    device = model.priors_cxcy.device
    upright_images = [upright_rgb(image) for image in images]
    inputs = torch.stack([network_input(image) for image in upright_images])
    inputs = inputs.to(device, memory_format=torch.channels_last)
    with autocast(device, precision):
        predictions = model(inputs)  # locs (N, 8732, 4) and scores (N, 8732, n_classes)
    detections = model.detect_objects(*predictions, min_score, max_overlap, top_k)
    return [
        name_detections(image, *tensors, model.label_map)
        for image, *tensors in zip(upright_images, *detections, strict=True)
    ]


def name_detections(image, boxes, labels, scores, label_map):
    """
    :param image: PIL image, upright
    :param boxes: (n, 4) float, fractional xy
    :param labels, scores: (n,)
    :param label_map: {class name: number}
    :return: list of n Detections
    """
    size = torch.tensor([image.width, image.height])
    # A model that diverged may predict NaN, which could not be drawn
    boxes_px = boxes.cpu().nan_to_num().clamp(0, 1) * size.repeat(2)
    names = {number: name for name, number in label_map.items()}
    found = zip(labels.tolist(), scores.tolist(), boxes_px.tolist(), strict=True)
    return [Detection(names[label], score, tuple(box)) for label, score, box in found]


@functools.cache
def default_model():
    """The model of the checkpoint named in Parameters, loaded when it is first needed, and kept."""
    parameters = Parameters()
    return load_model(parameters.checkpoint, choose_device(parameters.device))


def network_input(image):
    """
    :param image: PIL image, RGB
    :return: (3, 300, 300) float
    """
    boxes = torch.zeros(0, 4)
    labels = torch.zeros(0, dtype=torch.int64)
    difficulties = torch.zeros(0, dtype=torch.bool)
    pixels, *_ = transform(image, boxes, labels, difficulties, split="TEST")
    return pixels


def check_images(images):
    """:raises ValueError: this is not a list of PIL images"""
    items = images if isinstance(images, (list, tuple)) else [images]
    for item in items:
        if not isinstance(item, Image.Image):
            kind = type(item).__name__
            raise ValueError(
                f"images: expected PIL images (Image.open, Image.fromarray), got {kind}"
            )


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


# --------------------------------------------------------------------------------------- the script


# Once the images of a batch have more pixels than this together, it is not filled up
MAX_BATCH_PIXELS = MAX_PIXELS


def main(parameters):
    """
    Detect objects in image files and films, print them, and write copies with the objects drawn;
    and if parameters.json names a file, what was found. A file that cannot be read is passed over,
    and reported at the end.

    :param parameters: Parameters
    :return: the paths written
    :raises FileNotFoundError: there is no checkpoint, or none of the images exists
    :raises ValueError: a parameter has no sensible value, or some files could not be read
    """
    check_parameters(parameters)
    device = choose_device(parameters.device)
    output_folder = Path(parameters.output_folder)
    paths = find_files(parameters.images, output_folder)
    model = load_model(parameters.checkpoint, device)
    check_class_names(parameters.suppress, model.label_map)
    warn_of_missing_letters(model.label_map, parameters.font)
    output_folder.mkdir(parents=True, exist_ok=True)

    detector = Detector(model, parameters)
    results = Results()
    output_paths = choose_output_paths(paths, output_folder)
    detect_in_files(output_paths, detector, results)
    detector.print_speed()
    if parameters.json:
        write_json(parameters.json, paths, results, detector)
    if results.unreadable:
        title = f"{len(results.unreadable)} of {len(paths)} files failed:"
        raise ValueError("\n".join([title, *results.unreadable.values()]))
    return [Path(results.found[path]["output"]) for path in paths]


class Results:
    """What came of the files, by path."""

    def __init__(self):
        self.found = {}  # {path: what write_json writes about it}
        self.unreadable = {}  # {path: message}; also of those that could not be written


class Detector:
    """A model and the settings to use it with; counts the time that it takes."""

    def __init__(self, model, parameters):
        self.model = model
        self.parameters = parameters
        self.n_images = 0
        self.seconds = 0.0

    def find(self, images):
        """
        Find the objects in images that fit into one batch.

        :return: list of lists of Detection; and the milliseconds that each image took
        """
        start = time.perf_counter()
        found = find_objects(
            images,
            self.parameters.min_score,
            self.parameters.max_overlap,
            self.parameters.top_k,
            self.parameters.suppress,
            self.model,
            self.parameters.batch_size,
            self.parameters.precision,
        )
        # The numbers are on the CPU now, so a GPU has finished, too
        seconds = time.perf_counter() - start
        self.n_images += len(images)
        self.seconds += seconds
        return found, 1000 * seconds / len(images)

    def draw(self, image, detections):
        """A copy of an image that shows detections."""
        return annotate(image, detections, self.model.label_map, self.parameters.font)

    def print_speed(self):
        """Say how long an image took on average, and what that time consists of."""
        if self.n_images == 0:
            return
        how = describe_precision(self.model.priors_cxcy.device, self.parameters.precision)
        print(
            f"{1000 * self.seconds / self.n_images:.0f} ms an image (or frame) for resizing, "
            f"network and suppression, {how}; reading and drawing not counted"
        )


def detect_in_files(output_paths, detector, results):
    """
    Look at all files: still pictures first, several at a time, then films and animations. Only a
    batch of images is in memory at a time.

    :param output_paths: see choose_output_paths
    :param detector: Detector
    :param results: Results, which are filled
    """
    moving = []
    pictures = read_pictures(output_paths, moving, results)
    n_files = len(output_paths)
    is_hidden = n_files == 1 or None  # None: where the output is not a terminal
    with tqdm(total=n_files, desc="detecting", unit="file", disable=is_hidden) as progress:
        for batch in make_batches(pictures, detector.parameters.batch_size):
            detect_in_pictures(batch, output_paths, detector, results)
            progress.update(len(results.found) + len(results.unreadable) - progress.n)
        for path in moving:
            try:
                detect_in_frames(path, output_paths[path], detector, results)
            except ValueError as error:
                results.unreadable[path] = str(error)
            progress.update(len(results.found) + len(results.unreadable) - progress.n)


def read_pictures(paths, moving, results):
    """
    Read picture after picture.

    :param paths: files
    :param moving: list to which films and animated pictures are added, which are not read
    :param results: Results, to which unreadable files are added
    :return: yields (path, PIL image)
    """
    for path in paths:
        if is_film(path):
            moving.append(path)
            continue
        try:
            image = read_picture(path)
        except ValueError as error:
            results.unreadable[path] = str(error)
            continue
        if image is None:
            moving.append(path)
        else:
            yield path, image


def read_picture(path):
    """
    :param path: image file
    :return: PIL image, upright and RGB; None if it is animated
    :raises ValueError: see datasets.read_image
    """
    with describe_image_errors(path, "replace it"):
        image = open_image(path)
        if is_animated(image):
            return None
        image = upright_rgb(image)
        image.load()
        return image


def make_batches(named_images, batch_size):
    """
    :param named_images: iterable of (name, PIL image), which is read no further than necessary
    :param batch_size: the most images in a batch
    :return: yields lists of (name, PIL image)
    """
    batch = []
    n_pixels = 0
    for name, image in named_images:
        batch.append((name, image))
        n_pixels += image.width * image.height
        if len(batch) == batch_size or n_pixels > MAX_BATCH_PIXELS:
            yield batch
            batch = []
            n_pixels = 0
    if batch:
        yield batch


def detect_in_pictures(batch, output_paths, detector, results):
    """
    Print the objects in some pictures, and write copies that show them.

    :param batch: list of (path, PIL image)
    """
    found, milliseconds = detector.find([image for _, image in batch])
    for (path, image), detections in zip(batch, found, strict=True):
        output_path = output_paths[path]
        detector.draw(image, detections).save(output_path)
        n_objects = count(len(detections), "object")
        shown_output = printable(str(output_path))
        lines = [f"{printable(path)}: {n_objects}, {milliseconds:.0f} ms, drawn in {shown_output}"]
        for name, score, box in detections:
            edges = ", ".join(f"{edge:.0f}" for edge in box)
            lines.append(f"  {printable(name)} {score:.2f} at {edges}")
        tqdm.write("\n".join(lines))  # at once: it draws the progress bar anew
        results.found[path] = {
            "path": str(path),
            "output": str(output_path),
            "width": image.width,
            "height": image.height,
            "milliseconds": milliseconds,
            **as_lists(detections),
        }


def detect_in_frames(path, output_path, detector, results):
    """
    Write a copy of a film or an animated picture that shows the objects, and print how many there
    were.

    :raises ValueError: the file cannot be read, or its format cannot express the copy
    """
    source = open_film_or_animation(path)
    output_path = output_path.with_suffix(source.ending)
    entry = {"path": str(path), "output": str(output_path), "frames": []}
    seconds_before = detector.seconds

    def annotated_frames():
        name = printable(Path(path).name)
        frames = tqdm(source, name, source.n_frames, unit="frame", leave=False, disable=None)
        for batch in make_batches(enumerate(frames), detector.parameters.batch_size):
            images = [image for _, image in batch]
            found, _ = detector.find(images)
            for image, detections in zip(images, found, strict=True):
                entry["width"], entry["height"] = image.size
                entry["frames"].append(as_lists(detections))
                yield detector.draw(image, detections)

    source.write(annotated_frames(), output_path)
    n_frames = len(entry["frames"])
    entry["milliseconds"] = 1000 * (detector.seconds - seconds_before) / n_frames
    results.found[path] = entry | source.timing()
    n_objects = sum(len(frame["labels"]) for frame in entry["frames"])
    stated = "" if n_frames == source.n_frames else f" (the file states {source.n_frames})"
    tqdm.write(
        f"{printable(path)}: {n_frames} frames{stated}, {count(n_objects, 'object')}, "
        f"{entry['milliseconds']:.0f} ms a frame, drawn in {printable(str(output_path))}"
    )


def as_lists(detections):
    """Detections as JSON has them: {"boxes", "labels", "scores"}, lists of the same length."""
    return {
        "boxes": [list(detection.box) for detection in detections],
        "labels": [detection.name for detection in detections],
        "scores": [detection.score for detection in detections],
    }


def write_json(json_path, paths, results, detector):
    """
    Write what was found to a JSON file:

    - "checkpoint", "classes", "min_score", "max_overlap", "top_k", "suppress", "precision": the
      model and how it was used
    - "images": a list with an entry for each file that could be read, in the order of the command
      line: "path" as it was given, "output", the copy with the objects drawn, "width" and "height"
      in pixels, "milliseconds" an image or frame, and three lists of the same length, the best
      detection first: "boxes", [x_min, y_min, x_max, y_max] in pixels of the upright image;
      "labels", names of classes; "scores", 0 to 1.
      A film or an animated picture has "frames" instead, a list with these three lists for each
      frame, and "frames_per_second" or "durations_ms", of each frame.
    - "unreadable": a list with "path" and "error" of each file that could not be read, or whose
      copy could not be written

    :param json_path: the file to write
    :param paths: of all files, in order
    :param results: Results
    :param detector: Detector
    """
    parameters = detector.parameters
    dtype = choose_precision(detector.model.priors_cxcy.device, parameters.precision)
    content = {
        "checkpoint": parameters.checkpoint,
        "classes": list(detector.model.label_map)[1:],  # without background
        "min_score": parameters.min_score,
        "max_overlap": parameters.max_overlap,
        "top_k": parameters.top_k,
        "suppress": list(parameters.suppress),
        "precision": str(dtype).removeprefix("torch."),
        "images": [results.found[path] for path in paths if path in results.found],
        "unreadable": [
            {"path": str(path), "error": message} for path, message in results.unreadable.items()
        ],
    }
    Path(json_path).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")


def check_parameters(parameters):
    """
    Find what is wrong with the parameters before the model is loaded, which takes a while.

    :raises ValueError: a parameter has no sensible value
    :raises OSError: the JSON file could not be written
    """
    if not parameters.images:
        raise ValueError("images: expected at least one image file, got none")
    check_numbers(parameters.min_score, parameters.max_overlap, parameters.top_k)
    check_precision(parameters.precision)
    check_range("batch_size", parameters.batch_size, low=1)
    load_font(parameters.font, size=20)  # raises an error if it is no font
    output_folder = Path(parameters.output_folder)
    if output_folder.exists() and not output_folder.is_dir():
        raise ValueError(f"output_folder: expected a folder, got the file {output_folder}")
    if parameters.json:
        # So that it is never mistaken for an image, nor replaces one
        if Path(parameters.json).suffix.lower() != ".json":
            raise ValueError(f"json: expected a name that ends in .json, got {parameters.json}")
        check_file(parameters.json)


def warn_of_missing_letters(label_map, font):
    """Print a line if a class has letters that the font of the labels lacks."""
    names = [printable(name) for name in label_map]
    missing = missing_letters(names, load_font(font, size=20))
    if missing:
        print(
            f"The labels' font lacks letters of the classes: {missing} (--font FILE names another)"
        )


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
    images = [text for text in values[1:] if Path(text).suffix and is_or_finds_file(text)]
    names = [text for text in values if text not in images]
    leading_images = list(itertools.takewhile(lambda text: not text.startswith("-"), before))
    n_before = len(leading_images) or len(before)
    options = [*before[n_before:], "--suppress", *names, *after[len(values) :]]
    return [*before[:n_before], *images, *options]


def is_or_finds_file(argument):
    """Whether an argument is a file, or a pattern that fits one."""
    return any(map(os.path.isfile, expand_pattern(argument)))


if __name__ == "__main__":
    with readable_errors():
        arguments = put_images_first(sys.argv[1:])
        main(read_command_line(Parameters, __doc__, arguments, positional=("images",))[0])
