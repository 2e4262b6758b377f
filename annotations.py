"""Annotations: PASCAL VOC's XML files, and the JSON lists that training and evaluation read."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

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
