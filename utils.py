"""What the other files share: the label map, data lists, box math, transforms, mean average precision, and command lines."""

import argparse
import dataclasses
import inspect
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

# ---------------------------------------------------------------------------------------------------------------- labels

voc_labels = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def create_label_map(labels):
    """
    Number the classes: background 0, then the labels from 1 in their order.

    :raises ValueError: a label twice (upper and lower case count as the same), "background" among them, or none at all
    """
    repeated = [
        name for name, count in Counter(label.lower() for label in labels).items() if count > 1
    ]
    if repeated or "background" in (label.lower() for label in labels) or not labels:
        raise ValueError(
            f"labels: expected different class names without 'background', which is added here; got {list(labels)}"
        )
    return {"background": 0} | {label: number for number, label in enumerate(labels, start=1)}


label_map = create_label_map(voc_labels)
rev_label_map = {number: label for label, number in label_map.items()}


# ------------------------------------------------------------------------------------------------------------ data lists

MAX_COORDINATE = 1_000_000  # pixels; what is beyond is a mistake
MIN_SIDE = 0.5  # pixels; less can not be seen, and rounding could make it nothing, whose logarithm the loss can not take


class AnnotationError(ValueError):
    """An annotation that can not be used and should not be guessed at; the message names the file and the remedy."""


def _child_text(element, path, file, remedy):
    """The text of a required tag, stripped."""
    text = element.findtext(path)
    if text is None or not text.strip():
        raise AnnotationError(f"{file}: an <object> has no <{path}>: {remedy}")
    return text.strip()


def _number(text):
    """The number that a text is; NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _coordinate(element, name, file):
    """A coordinate of a box as it is written in the file, in VOC pixels."""
    remedy = "correct the file, or take the image out of the list in ImageSets/Main"
    text = _child_text(element, f"bndbox/{name}", file, remedy)
    if not abs(value := _number(text)) <= MAX_COORDINATE:
        raise AnnotationError(
            f"{file}: <{name}> should be a number of pixels, got {text[:40]!r}: {remedy}"
        )
    return value


def read_xml(path):
    """The root element of an annotation; AnnotationError if it can not be had."""
    try:
        with open(path, "rb") as file:
            content = file.read(
                8_000_000
            )  # 20,000 objects fit in; a larger file is cut off, and so not well formed
        if b"<!DOCTYPE" in content.replace(b"\0", b""):  # in UTF-16, every other byte is 0
            raise ValueError("it has a document type, which can make gigabytes of a small file")
        return ElementTree.fromstring(content)
    except (
        OSError,
        ElementTree.ParseError,
        ValueError,
        LookupError,
    ) as error:  # the last two: an encoding wrong or unknown
        raise AnnotationError(
            f"{path}: not readable as XML ({error}): correct it or fetch it again"
        ) from error


def stated_size(root):
    """(width, height) as an annotation states it in <size>; infinite where it does not, so that nothing is clipped."""
    values = (_number(root.findtext(f"size/{name}", default="")) for name in ("width", "height"))
    return tuple(value if value > 0 else math.inf for value in values)


def parse_annotation(annotation_path):
    """
    Read one VOC annotation. Boxes come out in continuous pixel edges, (x_min, y_min, x_max, y_max), where the image covers
    0 to its width and height.

    DEVIATION(coordinates): VOC counts pixels from 1 and includes both ends, so pixel 1 covers 0 to 1: one is taken off the low
    edges and not, as in other tutorials, off all four. Plain overlaps then reproduce the official evaluation.

    :param annotation_path: an XML file
    :return: a list of objects, each {"name", "box", "difficult", "repairs"}. `repairs` lists what had to be done: "clipped" (the
        box stuck out of the image), "no difficult tag" (nor 0 or 1 in it: taken as 0), "degenerate" (no width or height as
        written) or "outside" (less than MIN_SIDE of it is in the image): the last two have `box` None.
    :raises AnnotationError: malformed XML; a missing name; a missing coordinate or one that is no number of pixels
    """
    root = read_xml(annotation_path)
    width, height = stated_size(root)
    objects = []
    for element in root.iter("object"):
        name = _child_text(element, "name", annotation_path, "write its class there")
        repairs = []
        difficult = (element.findtext("difficult") or "").strip()
        if difficult not in ("0", "1"):
            repairs.append("no difficult tag")

        x_min, y_min, x_max, y_max = (
            _coordinate(element, edge, annotation_path) for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        box = [x_min - 1, y_min - 1, x_max, y_max]
        clipped = [max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)]
        if (
            x_max <= x_min
            or y_max <= y_min
            or min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < MIN_SIDE
        ):
            repairs.append("degenerate" if x_max <= x_min or y_max <= y_min else "outside")
            clipped = None
        elif clipped != box:
            repairs.append("clipped")
        objects.append(
            {"name": name, "box": clipped, "difficult": int(difficult == "1"), "repairs": repairs}
        )
    return objects


def read_image_ids(voc_path, image_set):
    """
    The image names that a VOC folder lists in ImageSets/Main/<image_set>.txt; repeated ones once.

    :raises FileNotFoundError: the folder or the list is missing
    """
    voc_path = Path(voc_path)
    list_path = voc_path / "ImageSets" / "Main" / f"{image_set}.txt"
    if not voc_path.is_dir():
        raise FileNotFoundError(
            f"{voc_path}: no such folder: give the folder that holds JPEGImages, Annotations and ImageSets "
            "(--voc07-path, --voc12-path), fetch PASCAL VOC with --download, or draw toy data with --toy"
        )
    if not list_path.is_file():
        raise FileNotFoundError(
            f"{list_path}: no such list: write it, with the name of one image (without ending) a line"
        )
    lines = list_path.read_text(
        encoding="utf-8-sig"
    ).splitlines()  # -sig: some editors begin a file with a byte-order mark
    # VOC's lists for a single class have a second column, 1, 0 or -1
    names = [re.sub(r"\s+(-1|0|1)$", "", line.strip()) for line in lines if line.strip()]
    if len(set(names)) < len(names):
        print(f"{list_path}: {len(names) - len(set(names))} repeated names are taken once")
    return list(dict.fromkeys(names))


def find_images(voc_path, image_set, faults):
    """
    The absolute paths of the pictures that a VOC folder lists and of their annotations, found by their names; none is opened.

    :param faults: a list that gets an error for each image that lacks one of them or has two pictures
    :return: [(path of the picture, path of its annotation)] of the others
    """
    image_ids = read_image_ids(voc_path, image_set)
    voc_path = Path(voc_path).resolve()
    endings = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
    folder = voc_path / "JPEGImages"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder: put the photographs there")
    pictures = defaultdict(list)  # by name without ending
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in endings:
            pictures[path.stem].append(path)
    found = []
    for image_id in image_ids:
        first, *others = pictures.get(image_id, [folder / f"{image_id}.jpg"])
        annotation_path = voc_path / "Annotations" / f"{image_id}.xml"
        missing = [path for path in (first, annotation_path) if not path.is_file()]
        if missing:
            remedy = f"bring it back, or take {image_id} out of ImageSets/Main/{image_set}.txt"
            faults.append(FileNotFoundError(f"{missing[0]}: no such file: {remedy}"))
        elif others:
            faults.append(
                ValueError(
                    f"{first}: {others[0].name} has the same name: take away the one that is not meant"
                )
            )
        else:
            found.append((str(first), annotation_path))
    return found


def create_data_lists(voc07_path, voc12_path, output_folder, labels=voc_labels, check=None):
    """
    Write the five lists that training and evaluation read: TRAIN_images.json, TRAIN_objects.json, TEST_images.json,
    TEST_objects.json and label_map.json. Training images are the `trainval` sets of both folders, test images the `test` set of
    the first (of the second if it is alone and has such a list). Any folder in VOC layout will do; either path may be empty.

    Training images without a usable object are left out; test images all stay. What is repaired, dropped or left out is printed.

    :param voc07_path: folder with Annotations, ImageSets and JPEGImages, or ""
    :param voc12_path: a second one, or ""
    :param output_folder: where the lists go
    :param labels: class names, or "auto" to collect them from the annotations
    :param check: a function that looks at what find_images found of all folders, before the rest, and raises what it dislikes
    :raises FileNotFoundError: a folder, list, image or annotation is missing
    :raises AnnotationError: an annotation can not be used, or an object's class is not among the labels
    :raises ValueError: both paths are empty, an image has several pictures, or no training image is left
    """
    sets = [("TRAIN", path, "trainval") for path in (voc07_path, voc12_path) if path]
    if not sets:
        raise ValueError(
            "create_data_lists: both paths are empty: give at least one folder in VOC layout"
        )
    first_path = sets[0][1]
    if voc07_path or (Path(first_path) / "ImageSets" / "Main" / "test.txt").is_file():
        sets.append(("TEST", first_path, "test"))

    pairs, faults = {"TRAIN": [], "TEST": []}, []  # by split: paths of images and annotations
    for split, folder, image_set in sets:
        pairs[split] += find_images(folder, image_set, faults)
    if check is not None:
        check(pairs["TRAIN"] + pairs["TEST"], faults)
    if faults:
        raise faults[0]
    annotations = {
        split: [(path, parse_annotation(path)) for _, path in pairs[split]] for split in pairs
    }

    in_both = set(pairs["TRAIN"]) & set(pairs["TEST"])
    if in_both:
        print(
            f"Careful: {len(in_both)} images are for training and for testing, such as {min(in_both)[0]}"
        )
    if labels == "auto":
        found = [
            obj["name"] for split in annotations.values() for _, objects in split for obj in objects
        ]
        labels = sorted(
            {name.lower(): name for name in reversed(found)}.values(), key=str.lower
        )  # of spellings the first one
        if not labels or "background" in map(str.lower, labels):
            classes = f"{first_path}: --labels auto found the classes {labels}"
            raise ValueError(
                f"{classes}: there must be some, and none may be called background: correct the annotations"
            )
    elif isinstance(labels, str):
        raise ValueError(f"labels: expected a list of class names or 'auto', got {labels!r}")
    names = create_label_map(labels)
    lists = {"label_map.json": names}
    for split in pairs:
        entries, counts = _object_entries(annotations[split], names)
        usable = [split == "TEST" or len(entry["boxes"]) > 0 for entry in entries]
        lists[f"{split}_images.json"] = [
            image for (image, _), keep in zip(pairs[split], usable, strict=True) if keep
        ]
        lists[f"{split}_objects.json"] = [
            entry for entry, keep in zip(entries, usable, strict=True) if keep
        ]
        _print_summary(split, counts, n_listed=len(usable), n_left_out=usable.count(False))
    if not lists["TRAIN_images.json"]:
        raise ValueError(
            f"{first_path}: no training image has a usable object: look at the counts above"
        )

    output_folder = Path(output_folder)
    output_folder.mkdir(parents=True, exist_ok=True)
    for name, content in lists.items():
        (output_folder / name).write_text(json.dumps(content), encoding="utf-8")
    print(f"The lists are in {output_folder.resolve()}.")


def _object_entries(annotations, names):
    """Entries of an objects list, one for each annotation, and the counts of what became of objects, {class name: Counter}."""
    by_lower_case = {name.lower(): number for name, number in names.items() if number > 0}
    counts = defaultdict(Counter)
    entries = []
    for path, objects in annotations:
        entry = {"boxes": [], "labels": [], "difficulties": []}
        for obj in objects:
            label = by_lower_case.get(obj["name"].lower())
            if label is None:
                known = f"{path}: class {obj['name'][:40]!r} is not among the labels ({', '.join(list(names)[1:])})"
                raise AnnotationError(
                    f"{known}: name all classes with --labels, or collect them with --labels auto"
                )
            counts[label].update(["objects", *obj["repairs"], *["difficult"] * obj["difficult"]])
            if obj["box"] is not None:
                entry["boxes"].append(obj["box"])
                entry["labels"].append(label)
                entry["difficulties"].append(obj["difficult"])
                counts[label]["kept"] += 1
        entries.append(entry)
    return entries, {name: counts[number] for name, number in names.items() if number > 0}


def _print_summary(split, counts, n_listed, n_left_out):
    """Account for every image and object of a split, class by class."""
    columns = (
        "objects",
        "kept",
        "difficult",
        "clipped",
        "degenerate",
        "outside",
        "no difficult tag",
    )
    total = sum(counts.values(), Counter())
    print(
        f"\n{split}: {n_listed} images listed, {n_listed - n_left_out} kept, {n_left_out} left out (no usable object)"
    )
    print(f"  {'class':<20}" + "".join(f"{column:>{len(column) + 2}}" for column in columns))
    for name, count in [*counts.items(), ("all", total)]:
        print(
            f"  {name:<20}" + "".join(f"{count[column]:>{len(column) + 2}}" for column in columns)
        )
    print(
        "  (degenerate boxes and those outside the image were dropped; boxes that stuck out of it were clipped)"
    )


# -------------------------------------------------------------------------------------------------------------- box math


def xy_to_cxcy(xy):
    """
    Boundary coordinates to centre-size coordinates.

    :param xy: (..., 4) x_min, y_min, x_max, y_max
    :return: (..., 4) c_x, c_y, w, h
    """
    low, high = xy[..., :2], xy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def cxcy_to_xy(cxcy):
    """
    Centre-size coordinates to boundary coordinates.

    :param cxcy: (..., 4) c_x, c_y, w, h
    :return: (..., 4) x_min, y_min, x_max, y_max
    """
    centre, size = cxcy[..., :2], cxcy[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def cxcy_to_gcxgcy(cxcy, priors_cxcy):
    """
    Encode boxes as offsets from their priors (paper, equation 2). The factors 10 and 5 are one over the "variances" 0.1 and 0.2
    of the authors' code: they make the offsets of matched priors of the order of one.

    :param cxcy: (..., P, 4) one box for each prior
    :param priors_cxcy: (P, 4)
    :return: (..., P, 4) offsets g_c_x, g_c_y, g_w, g_h
    """
    centre, size = cxcy[..., :2], cxcy[..., 2:]
    prior_centre, prior_size = priors_cxcy[..., :2], priors_cxcy[..., 2:]
    return torch.cat(
        [(centre - prior_centre) / (prior_size / 10), torch.log(size / prior_size) * 5], dim=-1
    )


def gcxgcy_to_cxcy(gcxgcy, priors_cxcy):
    """
    Decode offsets to boxes: the inverse of cxcy_to_gcxgcy.

    :param gcxgcy: (..., P, 4) offsets g_c_x, g_c_y, g_w, g_h
    :param priors_cxcy: (P, 4)
    :return: (..., P, 4) c_x, c_y, w, h
    """
    offset, log_size = gcxgcy[..., :2], gcxgcy[..., 2:]
    prior_centre, prior_size = priors_cxcy[..., :2], priors_cxcy[..., 2:]
    return torch.cat(
        [offset * prior_size / 10 + prior_centre, torch.exp(log_size / 5) * prior_size], dim=-1
    )


def find_jaccard_overlap(set_1, set_2):
    """
    The Jaccard overlap (intersection over union) of every box of one set with every box of another.

    :param set_1: (..., n1, 4) boundary coordinates
    :param set_2: (..., n2, 4) boundary coordinates, in the same unit
    :return: (..., n1, n2), from 0 to 1; 0 for two boxes without area
    """
    # Edges side by side in memory, as a processor is fast with
    x_min_1, y_min_1, x_max_1, y_max_1 = (
        set_1.unsqueeze(-2).movedim(-1, 0).contiguous()
    )  # each (..., n1, 1)
    x_min_2, y_min_2, x_max_2, y_max_2 = (
        set_2.unsqueeze(-3).movedim(-1, 0).contiguous()
    )  # each (..., 1, n2)
    width = torch.minimum(x_max_1, x_max_2).sub_(torch.maximum(x_min_1, x_min_2))  # (..., n1, n2)
    height = torch.minimum(y_max_1, y_max_2).sub_(torch.maximum(y_min_1, y_min_2))
    intersection = width.clamp_(min=0).mul_(
        height.clamp_(min=0)
    )  # boxes that miss each other have a negative width or height
    area_1 = (x_max_1 - x_min_1) * (y_max_1 - y_min_1)
    area_2 = (x_max_2 - x_min_2) * (y_max_2 - y_min_2)
    union = (area_1 + area_2).sub_(intersection).clamp_(min=torch.finfo(intersection.dtype).tiny)
    return intersection.div_(union)


def decimate(tensor, m):
    """
    Keep every m-th value along each dimension.

    :param tensor: any tensor
    :param m: a step for each dimension; None keeps the dimension whole
    :return: the smaller tensor, a view
    :raises ValueError: not one step for each dimension
    """
    if len(m) != tensor.dim():
        raise ValueError(
            f"decimate: expected {tensor.dim()} steps for a tensor {tuple(tensor.shape)}, got {m}"
        )
    return tensor[tuple(slice(None, None, step) for step in m)]


# ------------------------------------------------------------------------------------------------------------ transforms

IMAGE_SIZE = 300  # pixels along each side of the network's input
IMAGENET_MEAN = (
    0.485,
    0.456,
    0.406,
)  # RGB, of values from 0 to 1: what torchvision's VGG-16 was trained with
IMAGENET_STD = (0.229, 0.224, 0.225)
FILLER = tuple(
    round(255 * mean) for mean in IMAGENET_MEAN
)  # colour around an image that was zoomed out

MAX_ZOOM_OUT = 4.0  # sides of the canvas, times the image's (paper, section 3.6)
MIN_CROP_OVERLAPS = (
    0.0,
    0.1,
    0.3,
    0.5,
    0.7,
    0.9,
    None,
)  # None: no crop (section 2.2; 0: the paper's "randomly sample a patch")
# DEVIATION(crop-scale): the paper says 0.1 to 1 of the image. In the authors' code the area is 0.3 squared to 1, and the aspect
# ratio that of fractional sides; here, as in the published tutorial, each side is 0.3 to 1, and the aspect ratio that of pixels.
CROP_SIDES = (0.3, 1.0)
CROP_ASPECT_RATIOS = (0.5, 2.0)  # width / height in pixels
CROP_TRIES = 50
BRIGHTNESS = 32  # of 255, added or taken off (magnitudes of distort_param in the authors' code)
CONTRAST = SATURATION = (0.5, 1.5)  # factor
HUE = 18 / 180  # of the colour circle, either way


def scale_saturation(pixels, factor):
    """
    Multiply the saturation of each pixel, up to that of a pure colour. In HSV the value is the largest channel, the saturation
    says how far below it the smallest is: hue and value stay if the distances of all channels from the largest grow alike.

    :param pixels: (3, height, width) float, RGB; :param factor: 0 makes all grey; :return: the same, changed
    """
    value = pixels.amax(dim=0)
    spread = value - pixels.amin(dim=0)
    factor = (value / spread.clamp(min=1e-6)).clamp(
        max=factor
    )  # value / spread takes the smallest channel to 0, a pure colour
    return value - (value - pixels).mul_(factor)


def turn_hue(pixels, turn):
    """
    Turn the hue of each pixel on the circle of colours: red, after a sixth yellow, then green, cyan, blue, magenta, red. Up to a
    sixth away from its own colour a channel is at its highest, from two sixths on at its lowest, and between it falls evenly.

    :param pixels: (3, height, width) float, RGB; :param turn: part of the circle, at most a third; :return: the same, changed
    """
    red, green, blue = pixels
    highest, lowest = pixels.amax(dim=0), pixels.amin(dim=0)
    spread = highest - lowest
    divisor = spread.clamp(min=1e-6)  # grey has no hue: any will do
    near_green, near_blue = (blue - red) / divisor + 2, (red - green) / divisor + 4
    hue = torch.where(
        highest == red,
        (green - blue) / divisor,
        torch.where(highest == green, near_green, near_blue),
    )  # sixths
    own_hue = torch.tensor([0, 2, 4]).view(3, 1, 1)
    closeness = (
        (hue + 6 * turn - own_hue).abs_().sub_(3).abs_()
    )  # of each channel: 3 at its own hue, 0 opposite
    return closeness.sub_(1).clamp_(0, 1).mul_(spread).add_(lowest)


def photometric_distort(pixels, rng):
    """
    Change brightness, contrast, saturation and hue, each with a chance of one half, in random order.

    DEVIATION(photometric-order): in the authors' code only contrast changes place, first or last, and colours are distorted
    before the image is zoomed out and cropped; here afterwards, on fewer pixels, and the filling keeps its colour.

    :param pixels: (3, height, width) float, RGB from 0 to 255; left as it is
    :param rng: numpy Generator
    :return: the same, distorted
    """
    distortions = (
        lambda pixels: (pixels + rng.uniform(-BRIGHTNESS, BRIGHTNESS)).clamp_(0, 255),
        lambda pixels: (pixels * rng.uniform(*CONTRAST)).clamp_(0, 255),
        lambda pixels: scale_saturation(pixels, rng.uniform(*SATURATION)),
        lambda pixels: turn_hue(pixels, rng.uniform(-HUE, HUE)),
    )
    for i in rng.permutation(len(distortions)):
        if rng.random() < 0.5:
            pixels = distortions[i](pixels)
    return pixels


def zoom_out(width, height, rng):
    """
    Place the image at random on a larger canvas, so that its objects become small.

    :return: the canvas, a window (x_min, y_min, x_max, y_max) in pixels of the image, larger than the image on all sides
    """
    factor = rng.uniform(1, MAX_ZOOM_OUT)
    left, top = rng.uniform(0, width * (factor - 1)), rng.uniform(0, height * (factor - 1))
    return -left, -top, width * factor - left, height * factor - top


def random_crop(window, boxes_px, rng):
    """
    Choose a random part of a window that at least one object overlaps enough; objects become large, or partly hidden.

    DEVIATION(crop-choice): the minimum overlap is drawn first, as the paper says, and drawn again if no try succeeds. The
    authors' code tries all seven and chooses among those that succeed.

    :param window: (x_min, y_min, x_max, y_max) in pixels
    :param boxes_px: (n, 4) in the same pixels; without boxes any part will do
    :param rng: numpy Generator
    :return: the part, a window again; or the whole window, where no crop is what was drawn
    """
    x_min, y_min, x_max, y_max = window
    while True:
        min_overlap = MIN_CROP_OVERLAPS[rng.integers(len(MIN_CROP_OVERLAPS))]
        if min_overlap is None:
            return window
        sizes = rng.uniform(*CROP_SIDES, (CROP_TRIES, 2)) * (
            x_max - x_min,
            y_max - y_min,
        )  # (50, 2) of all tries at once
        low = (x_min, y_min) + rng.uniform(0, 1, (CROP_TRIES, 2)) * (
            (x_max - x_min, y_max - y_min) - sizes
        )
        crops = np.concatenate([low, low + sizes], axis=1)  # (50, 4)
        aspect_ratios = sizes[:, 0] / sizes[:, 1]
        good = (aspect_ratios >= CROP_ASPECT_RATIOS[0]) & (aspect_ratios <= CROP_ASPECT_RATIOS[1])
        if len(boxes_px) > 0:
            overlaps = find_jaccard_overlap(torch.from_numpy(crops), boxes_px.double())  # (50, n)
            good &= (overlaps.amax(dim=1) >= min_overlap).numpy()
        if good.any():
            return tuple(crops[good.argmax()].tolist())


def cut_out(image, window, rng=None):
    """
    The pixels of a window of an image, 300 x 300, in one resampling; where the window reaches beyond the image it is filled.

    DEVIATION(resize): always bilinear; the authors' code draws one of five ways to resample in training.

    :param image: PIL image, RGB, or datasets.PictureFile
    :param window: (x_min, y_min, x_max, y_max) in pixels of the image
    :param rng: numpy Generator, if the colours of the image's part (not of the filling) are to be distorted
    :return: (3, 300, 300) float, RGB from 0 to 255
    """
    places, source = (
        [],
        [],
    )  # of the part that shows the image: edges in the result's whole pixels, and in the image's
    for low, high, side in (
        (window[0], window[2], image.width),
        (window[1], window[3], image.height),
    ):
        scale = IMAGE_SIZE / (high - low)
        # Pixels that the image covers in part only, at its border, are filled; the tolerance is for rounding errors.
        place = (
            max(0, math.ceil(-low * scale - 1e-6)),
            min(IMAGE_SIZE, math.floor((side - low) * scale + 1e-6)),
        )
        places.append(place)
        source.append([min(max(low + edge / scale, 0), side) for edge in place])
    (left, right), (top, bottom) = places
    canvas = (
        torch.tensor(FILLER, dtype=torch.float32).view(3, 1, 1).repeat(1, IMAGE_SIZE, IMAGE_SIZE)
    )
    if right <= left or bottom <= top:  # a crop beside the image
        return canvas
    box = source[0][0], source[1][0], source[0][1], source[1][1]
    part = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=box)
    pixels = torch.from_numpy(np.array(np.asarray(part).transpose(2, 0, 1), order="C")).float()
    canvas[:, top:bottom, left:right] = pixels if rng is None else photometric_distort(pixels, rng)
    return canvas


def transform(image, boxes, labels, difficulties, split, rng=None):
    """
    Make a picture the network's input; for training, with the augmentations of the paper (sections 2.2 and 3.6). They decide on
    a window of the picture first and touch the pixels once: the window alone is resampled, then distorted in colour.

    :param image: PIL image, RGB, or datasets.PictureFile
    :param boxes: (n, 4) float, boundary coordinates in pixels; n may be 0
    :param labels: (n,) long
    :param difficulties: (n,) bool
    :param split: "TRAIN" or "TEST"
    :param rng: numpy Generator that decides the augmentations; by default a fresh one
    :return: image (3, 300, 300) float, normalised; boxes (m, 4), fractional; labels and difficulties (m,) of the m <= n objects
        whose centre is still in the picture
    :raises ValueError: another split
    """
    if split not in ("TRAIN", "TEST"):
        raise ValueError(f"split: expected 'TRAIN' or 'TEST', got {split!r}")
    window, flip = (0, 0, image.width, image.height), False
    rng = None if split == "TEST" else rng or np.random.default_rng()
    if rng is not None:
        if rng.random() < 0.5:
            window = zoom_out(image.width, image.height, rng)
        window = random_crop(window, boxes, rng)
        flip = rng.random() < 0.5

    low, high = (
        torch.tensor(window[:2], dtype=torch.float32),
        torch.tensor(window[2:], dtype=torch.float32),
    )
    centres = xy_to_cxcy(boxes)[:, :2]
    stays = ((centres >= low) & (centres <= high)).all(dim=1)  # (n,)
    boxes = ((boxes[stays] - low.repeat(2)) / (high - low).repeat(2)).clamp(
        0, 1
    )  # what sticks out of the window is cut off

    pixels = cut_out(image, window, rng)
    if flip:
        pixels = pixels.flip(2)
        x_min, y_min, x_max, y_max = boxes.unbind(dim=1)
        boxes = torch.stack([1 - x_max, y_min, 1 - x_min, y_max], dim=1)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return pixels.sub_(255 * mean).div_(255 * std), boxes, labels[stays], difficulties[stays]


# ------------------------------------------------------------------------------------------------ mean average precision


def calculate_mAP(
    det_boxes, det_labels, det_scores, true_boxes, true_labels, true_difficulties,
    label_map=label_map, metric="11-point", min_overlap=0.5,
):  # fmt: skip
    """
    Average precision of each class, and their mean, as the VOC devkit defines them (Everingham et al. 2010, section 4.2).

    All arguments are lists with one tensor an image. Boxes may be in any unit, the same for detections and objects.

    :param det_boxes, det_labels, det_scores: detections, tensors (n, 4), (n,) and (n,)
    :param true_boxes, true_labels, true_difficulties: objects, tensors (m, 4), (m,) and (m,); a difficult one neither counts as
        missed nor its detection as false
    :param label_map: {class name: number}
    :param metric: "11-point" (VOC2007: mean of the best precision at recalls 0, 0.1 ... 1) or "area" (VOC2010: under the curve)
    :param min_overlap: a detection is right if its Jaccard overlap with an object is above this
    :return: {class name: AP}, NaN for a class without countable objects; and the mean of the others (NaN if there is none)
    :raises ValueError: another metric, or lists of different lengths
    """
    if metric not in ("11-point", "area"):
        raise ValueError(f"metric: expected '11-point' or 'area', got {metric!r}")
    lengths = {
        len(entry)
        for entry in (det_boxes, det_labels, det_scores, true_boxes, true_labels, true_difficulties)
    }
    if len(lengths) != 1:
        raise ValueError(
            f"calculate_mAP: expected lists with one tensor for each image, got the lengths {sorted(lengths)}"
        )
    if lengths == {0}:
        return dict.fromkeys(
            [name for name in label_map if label_map[name] > 0], math.nan
        ), math.nan

    n_images = len(det_boxes)
    det_images, true_images = _image_numbers(det_labels), _image_numbers(true_labels)
    det_boxes, det_labels, det_scores = map(torch.cat, (det_boxes, det_labels, det_scores))
    true_boxes, true_labels, true_difficulties = map(
        torch.cat, (true_boxes, true_labels, true_difficulties)
    )
    true_difficulties = true_difficulties.bool()

    average_precisions = {}
    for name, label in label_map.items():
        if label == 0:
            continue
        objects = true_labels == label
        n_objects = int((objects & ~true_difficulties).sum())
        if n_objects == 0:
            average_precisions[name] = math.nan
            continue
        ranked = (det_labels == label).nonzero().squeeze(1)
        ranked = ranked[det_scores[ranked].argsort(descending=True, stable=True)]
        is_true, is_false = judge_detections(
            det_images[ranked], det_boxes[ranked],
            true_images[objects], true_boxes[objects], true_difficulties[objects], n_images, min_overlap,
        )  # fmt: skip
        average_precisions[name] = average_precision(is_true, is_false, n_objects, metric)
    countable = [ap for ap in average_precisions.values() if not math.isnan(ap)]
    return average_precisions, sum(countable) / len(countable) if countable else math.nan


def _image_numbers(tensors):
    """For tensors of n_0, n_1 ... rows: 0 n_0 times, 1 n_1 times, and so on."""
    return torch.repeat_interleave(torch.tensor([len(tensor) for tensor in tensors])).to(
        tensors[0].device
    )


def judge_detections(
    det_images, det_boxes, true_images, true_boxes, true_difficulties, n_images, min_overlap
):
    """
    Tell right from wrong detections of one class. A detection is held against the object of its image that it overlaps most. It
    is true if it overlaps that enough and no better detection did, and false otherwise; one on a difficult object is neither.

    :param det_images: (D,) long, the image of each detection, best score first
    :param det_boxes: (D, 4)
    :param true_images: (T,) long, T >= 1, ascending
    :param true_boxes: (T, 4)
    :param true_difficulties: (T,) bool
    :return: whether a detection is true (D,) bool, and whether it is false (D,) bool
    """
    # The objects of a detection's image stand in a row in true_boxes: side by side, as wide as the fullest image
    n_objects = torch.bincount(true_images, minlength=n_images)  # (n_images)
    first = n_objects.cumsum(0) - n_objects
    column = torch.arange(int(n_objects.max()), device=det_images.device)  # (M)
    is_object = column < n_objects[det_images].unsqueeze(1)  # (D, M)
    objects = torch.where(
        is_object, first[det_images].unsqueeze(1) + column, 0
    )  # (D, M), indices below T
    overlap = find_jaccard_overlap(det_boxes.unsqueeze(1), true_boxes[objects]).squeeze(1)  # (D, M)
    overlap, best = torch.where(is_object, overlap, -1.0).max(dim=1)  # (D) both

    objects = objects.gather(1, best.unsqueeze(1)).squeeze(1)  # (D)
    hits = overlap > min_overlap
    counts = hits & ~true_difficulties[objects]
    rank = torch.arange(len(det_images), device=det_images.device)
    first_hit = torch.full(
        (len(true_boxes),), len(rank), device=rank.device
    )  # the rank of the best detection of each object
    first_hit.scatter_reduce_(0, objects[counts], rank[counts], reduce="amin")
    is_true = counts & (first_hit[objects] == rank)
    return is_true, ~hits | (counts & ~is_true)


def average_precision(is_true, is_false, n_objects, metric):
    """
    Average precision of one class.

    :param is_true, is_false: (D,) bool, what each detection is, best score first
    :param n_objects: number of objects to be found, at least 1
    :param metric: "11-point" or "area"
    :return: a number from 0 to 1
    """
    n_true, n_false = is_true.cumsum(0), is_false.cumsum(0)  # (D) both, among the detections so far
    precision = n_true.double() / (n_true + n_false).clamp(min=1)
    if metric == "11-point":
        # Recall is n_true / n_objects; whole numbers compare it with k / 10 without rounding error
        best = [precision[10 * n_true >= k * n_objects] for k in range(11)]
        return sum(float(values.max()) if len(values) else 0.0 for values in best) / 11
    best_from_here = precision.flip(0).cummax(0).values.flip(0)  # at this recall or any higher one
    return float((best_from_here * is_true).sum()) / n_objects


# --------------------------------------------------------------------------------------------------------- command lines


def read_command_line(parameters_class, description, argv=None, positional=()):
    """
    Let the command line change the parameters that stand at the beginning of a script: `batch_size: int = 32  # comment` can be
    changed with `--batch-size 8`, and the comment is what --help says about it.

    :param parameters_class: a dataclass whose fields have a default each: a text, a number, a truth value (--x / --no-x) or a
        tuple (any number of values)
    :param description: what the script does
    :param argv: arguments; by default those of the program
    :param positional: names of those that take the arguments without a name, in order
    :return: the parameters, and the set of the names of those that were given
    """
    comments = dict(
        re.findall(
            r"^    (\w+): .*?  # (.+)$", inspect.getsource(parameters_class), flags=re.MULTILINE
        )
    )
    # SUPPRESS: what was not given is absent from the result
    parser = argparse.ArgumentParser(description=description, argument_default=argparse.SUPPRESS)
    for field in dataclasses.fields(parameters_class):
        default = field.default
        flag = "--" + field.name.replace("_", "-")
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        help_text = comments.get(field.name, "") + f" (default: {shown})" * (shown != "")
        help_text = help_text.replace("%", "%%")  # argparse formats it
        if field.name in positional:
            nargs = "+" if isinstance(default, tuple) else None
            parser.add_argument(
                field.name,
                nargs=nargs,
                metavar=field.name.upper().removesuffix("S"),
                help=help_text,
            )
        elif isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_text)
        elif isinstance(default, tuple):
            parser.add_argument(
                flag, nargs="+", type=type(default[0]) if default else str, help=help_text
            )
        else:
            parser.add_argument(flag, type=field.type, help=help_text)
    given = vars(parser.parse_args(argv))
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    return parameters_class(**values), set(values)


def describe_error(error):
    """What a script says when it stops because of an expected error; of a DataLoader worker's, the last line of its traceback."""
    message = str(error).strip()
    if message.startswith("Caught "):
        message = message.splitlines()[-1].partition(": ")[2]
    return f"error: {message}"
