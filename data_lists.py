"""
Data lists: choosing what is for training, validation and testing, and writing the JSON lists that
are read then, with a summary of every image and object.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from annotations import AnnotationError, create_label_map, printable, voc_labels
from voc_folders import find_images

# ------------------------------------------------------------------------------------- the splits

TEST_FRACTION = 0.2  # of the images, where nothing is there to measure a detector with


def divide(found, val_fraction=0.0, test_fraction=0.0, seed=0):
    """
    Draw a validation and a test set from the training images, where the data have none of their
    own, and say so. Whether an image is drawn depends on the seed and on its name in its folder:
    few places change when images are added.

    :param found: FoundImages; its splits are changed
    :param val_fraction, test_fraction: of the images that are not tested or validated on otherwise
    :param seed: another one draws other images
    :raises FileNotFoundError, AnnotationError: the first of the faults that were found
    :raises ValueError: the data have such a set, or there are too few images
    """
    check_complete(found)
    train = found.splits["TRAIN"]
    order = sorted(train, key=lambda image: draw_key(image, found.folders, seed))
    options = (("TEST", "--test-fraction", test_fraction), ("VAL", "--val-fraction", val_fraction))
    for split, option, fraction in options:
        if fraction == 0:
            continue
        if found.splits.get(split):
            raise ValueError(
                f"{option}: the data have {len(found.splits[split])} {split} images of their own: "
                "leave it out"
            )
        n_drawn = max(1, round(fraction * len(train)))
        drawn = {image.image for image in order[:n_drawn]}
        order = order[n_drawn:]
        if not order:
            raise ValueError(f"{option}: {len(train)} images are too few to draw {n_drawn} of them")
        found.splits[split] = [image for image in train if image.image in drawn]
        print(
            f"{split}: {n_drawn} of {len(train)} images, drawn by {option} {fraction}, seed {seed}"
        )
    left = {image.image for image in order}
    found.splits["TRAIN"] = [image for image in train if image.image in left]


def check_complete(found):
    """Raise the first of the faults that were found."""
    if found.faults:
        raise found.faults[0]


def draw_key(image, folders, seed):
    """A text that is as good as random, and always the same for an image."""
    path = Path(image.image)
    for folder in map(Path, folders):
        if path.is_relative_to(folder.resolve()):
            path = path.relative_to(folder.resolve())
            break
    return hashlib.sha256(f"{seed} {path.as_posix()}".encode(errors="replace")).hexdigest()


# ------------------------------------------------------------------------------ writing the lists


class AnnotatedImage(NamedTuple):
    """An image and its objects."""

    image: str  # absolute path
    annotation: Path  # the file that the objects were read from
    objects: list  # see annotations.py


def create_data_lists(voc07_path, voc12_path, output_folder, labels=voc_labels):
    """
    Write the five lists that training and evaluation read, from folders in VOC layout.

    :param voc07_path: folder with Annotations, ImageSets and JPEGImages, or ""
    :param voc12_path: a second one, or ""
    :param output_folder: where the lists go
    :param labels: class names, or "auto" to collect them from the annotations
    :raises FileNotFoundError, ValueError: see find_images and write_data_lists
    """
    write_data_lists(find_images(voc07_path, voc12_path), output_folder, labels)


def write_data_lists(found, output_folder, labels=voc_labels):
    """
    Write TRAIN_images.json, TRAIN_objects.json, TEST_images.json, TEST_objects.json and
    label_map.json, and VAL_images.json and VAL_objects.json if there is a validation set. Training
    images without a usable object are left out; images to validate or test on all stay. What is
    repaired, dropped or left out is printed, class by class.

    :param found: FoundImages
    :param output_folder: where the lists go
    :param labels: class names, or "auto" for those of the data
    :raises FileNotFoundError: an image or an annotation is missing
    :raises AnnotationError: an annotation cannot be used, or a class is not among the labels
    :raises ValueError: wrong labels, or no training image is left
    """
    check_complete(found)
    check_labels(labels)
    print_images_in_both_splits(found.splits)
    splits = [split for split in ("TRAIN", "VAL", "TEST") if split in found.splits]
    annotated = {split: read_objects_of(found.splits[split]) for split in splits}
    if labels == "auto":
        images = [image for split in splits for image in annotated[split]]
        labels = listed_labels(images, found) or collect_labels(images, found.folders)
    lists = make_lists(annotated, create_label_map(labels))
    if not lists["TRAIN_images.json"]:
        folders = " and ".join(map(str, found.folders))
        raise ValueError(
            f"{folders}: no training image has a usable object: look at the counts above"
        )
    save_lists(lists, Path(output_folder))


def make_lists(annotated, label_map):
    """
    What the files say, and the printed summary of each split.

    :param annotated: {split: [AnnotatedImage]}
    :param label_map: {class name: number}
    :return: {file name: content}
    :raises AnnotationError: a class is not among the labels
    """
    numbers = class_numbers(label_map)
    lists = {"label_map.json": label_map}
    for split, images in annotated.items():
        check_class_names(images, label_map)
        kept = [image for image in images if split != "TRAIN" or has_usable_object(image)]
        print_summary(split, images, kept, label_map)
        lists[f"{split}_images.json"] = [image.image for image in kept]
        lists[f"{split}_objects.json"] = [object_entry(image.objects, numbers) for image in kept]
    return lists


def check_labels(labels):
    """Raise a ValueError if labels are neither class names nor "auto"."""
    if labels == "auto":
        return
    if isinstance(labels, str):
        raise ValueError(f"labels: expected a list of class names or 'auto', got {labels!r}")
    create_label_map(labels)


def print_images_in_both_splits(splits):
    """Point out images that are tested on, and used for something else."""
    tested = {image.image for image in splits["TEST"]}
    for split, purpose in (("TRAIN", "training"), ("VAL", "validation")):
        in_both = {image.image for image in splits.get(split, [])} & tested
        if in_both:
            print(
                f"Careful: {len(in_both)} images are for {purpose} and for testing, such as "
                f"{printable(min(in_both))}"
            )


def read_objects_of(images):
    """Listed images with their objects: [AnnotatedImage]. The bar is for the sizes of images."""
    bar = tqdm(images, desc="reading", unit="image", delay=5, leave=False, dynamic_ncols=True)
    return [AnnotatedImage(image.image, image.annotation, image.read()[0]) for image in bar]


def listed_labels(images, found):
    """
    The class names that the data list, in their order; none for VOC's XML. Names of groups of
    classes, and the background, are no classes unless something belongs to them.
    """
    used = {obj["name"].lower() for image in images for obj in image.objects}
    no_classes = {"background", *(name.lower() for name in found.groups)} - used
    left_out = [name for name in found.classes if name.lower() in no_classes]
    if left_out:
        print(
            "Classes left out, as they name a group of classes or the background, and no object "
            f"has them: {printable(', '.join(left_out))}"
        )
    return [name for name in found.classes if name not in left_out]


def collect_labels(images, folders):
    """The class names of all objects, sorted; the first one of spellings that differ in case."""
    spellings = {}  # {name in lower case: name}
    for image in images:
        for obj in image.objects:
            spellings.setdefault(obj["name"].lower(), obj["name"])
    labels = sorted(spellings.values(), key=str.lower)
    if not labels or "background" in spellings:
        raise ValueError(
            f"{' and '.join(map(str, folders))}: --labels auto found the classes {labels}: there "
            "must be some, and none may be called background: correct the annotations"
        )
    return labels


def check_class_names(images, label_map):
    """Raise an AnnotationError if an object has a class that is not among the labels."""
    numbers = class_numbers(label_map)
    for image in images:
        for obj in image.objects:
            if obj["name"].lower() not in numbers:
                labels = ", ".join(printable(name) for name in label_map if name != "background")
                raise AnnotationError(
                    f"{image.annotation}: class {obj['name'][:40]!r} is not among the labels "
                    f"({labels}): name all classes with --labels, or collect them with "
                    "--labels auto"
                )


def class_numbers(label_map):
    """{class name in lower case: number}, without background: annotations may spell in any case."""
    return {name.lower(): number for name, number in label_map.items() if number > 0}


def has_usable_object(image):
    """Whether an image has an object that can be trained on."""
    return any(obj["box"] is not None for obj in image.objects)


def object_entry(objects, numbers):
    """
    What an objects list says about one image.

    :param objects: as parse_annotation returns them
    :param numbers: see class_numbers
    """
    usable = [obj for obj in objects if obj["box"] is not None]
    return {
        "boxes": [obj["box"] for obj in usable],
        "labels": [numbers[obj["name"].lower()] for obj in usable],
        "difficulties": [obj["difficult"] for obj in usable],
    }


def save_lists(lists, output_folder):
    """Write {file name: content} as JSON into a folder, which is made if it is missing."""
    output_folder.mkdir(parents=True, exist_ok=True)
    for name, content in lists.items():
        (output_folder / name).write_text(json.dumps(content), encoding="utf-8")
    for name in ("VAL_images.json", "VAL_objects.json"):
        if name not in lists and (output_folder / name).exists():
            (output_folder / name).unlink()  # of earlier data: train.py would validate on them
            print(f"{name}, of earlier lists, is removed: there is no validation set now.")
    print(f"The lists are in {output_folder.resolve()}.")


# ------------------------------------------------------------------------------ the printed summary

COLUMNS = (
    "objects", "kept", "difficult", "clipped", "degenerate", "outside", "no difficult tag",
)  # fmt: skip


def print_summary(split, images, kept, label_map):
    """Account for every image and every object of a split, class by class."""
    counts = count_objects(images, label_map)
    print(
        f"\n{split}: {len(images)} images listed, {len(kept)} kept, "
        f"{len(images) - len(kept)} left out (no usable object)"
    )
    if not images:
        return
    print(f"  {'class':<20}" + "".join(f"  {column}" for column in COLUMNS))
    for name, count in counts.items():
        print_row(printable(name), count)
    total = sum(counts.values(), Counter())
    print_row("all", total)
    if total["polygon"]:
        print(f"  (of {total['polygon']} polygons, the boxes around them are used)")
    if len(kept) < len(images):
        print("  (this loss learns nothing from images without objects; VAL and TEST keep them)")
    print(
        "  (degenerate boxes and those outside the image were dropped; boxes that reached out of "
        "it were clipped)"
    )


def print_row(name, count):
    """One line of the table."""
    cells = [f"  {count[column]:>{len(column)}}" for column in COLUMNS]
    print(f"  {name:<20}" + "".join(cells))


def count_objects(images, label_map):
    """What became of the objects of each class: {class name: Counter of COLUMNS}."""
    names = {name.lower(): name for name in label_map}
    counts = {name: Counter() for name, number in label_map.items() if number > 0}
    for image in images:
        for obj in image.objects:
            count = counts[names[obj["name"].lower()]]
            count["objects"] += 1
            count["kept"] += obj["box"] is not None
            count["difficult"] += obj["difficult"]
            count.update(obj["repairs"])
    return counts
