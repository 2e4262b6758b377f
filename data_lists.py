"""
Data lists: finding the images of folders in PASCAL VOC's layout, and writing the JSON lists that
training and evaluation read.
"""

import json
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from annotations import (
    AnnotationError,
    create_label_map,
    parse_annotation,
    printable,
    voc_labels,
)

# ---------------------------------------------------------------- finding the images of VOC folders

IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


class ListedImage(NamedTuple):
    """An image that a list names."""

    image: str  # absolute path
    annotation: Path


class FoundImages(NamedTuple):
    """What the folders list. Files were found by their names; none has been opened."""

    folders: list  # paths, as they were given
    splits: dict  # {"TRAIN": [ListedImage], "TEST": [ListedImage]}
    faults: list  # an error for each listed image that is missing something or is ambiguous


def find_images(voc07_path, voc12_path):
    """
    Find the images of both folders: those of the `trainval` lists are for training; those of the
    first folder's `test` list are for testing. If only the second folder is given, it is tested on
    if it has such a list (the published VOC2012 has none).

    :param voc07_path: folder with Annotations, ImageSets and JPEGImages, or ""
    :param voc12_path: a second one, or ""
    :return: FoundImages
    :raises FileNotFoundError: a folder or a list is missing
    :raises ValueError: see check_folders; a list is not UTF-8
    """
    check_folders(voc07_path, voc12_path)
    folders = [path for path in (voc07_path, voc12_path) if path]
    sets = [("TRAIN", folder, "trainval") for folder in folders]
    if voc07_path or list_path(folders[0], "test").is_file():
        sets.append(("TEST", folders[0], "test"))
    found = FoundImages(folders, splits={"TRAIN": [], "TEST": []}, faults=[])
    for split, folder, image_set in sets:
        images, faults = find_listed_images(folder, image_set)
        found.splits[split].extend(images)
        found.faults.extend(faults)
    return found


def check_folders(voc07_path, voc12_path):
    """Raise a ValueError if both paths are empty, or both lead to the same folder."""
    if not voc07_path and not voc12_path:
        raise ValueError(
            "create_data_lists: both paths are empty: give at least one folder in VOC layout"
        )
    if voc07_path and voc12_path and is_same_folder(Path(voc07_path), Path(voc12_path)):
        raise ValueError(
            f"{voc07_path} and {voc12_path} are the same folder, and each of its images would be "
            'trained on twice: give it once, and "" as the other path'
        )


def is_same_folder(first, second):
    """Whether two paths lead to one folder, through symbolic links or not."""
    if first.exists() and second.exists():
        return first.samefile(second)
    return first.resolve() == second.resolve()


def find_listed_images(voc_path, image_set):
    """
    Find the images that one list of a VOC folder names, and their annotations.

    :return: [ListedImage], and an error for each image that lacks a file or has two image files
    :raises FileNotFoundError, ValueError: see read_image_ids
    """
    image_paths = image_paths_by_name(voc_path)
    images = []
    faults = []
    for image_id in read_image_ids(voc_path, image_set):
        try:
            images.append(find_files(Path(voc_path).resolve(), image_set, image_id, image_paths))
        except (FileNotFoundError, AnnotationError) as fault:
            faults.append(fault)
    return images, faults


def find_files(voc_path, image_set, image_id, image_paths):
    """
    Find the files of one image.

    :param image_paths: see image_paths_by_name
    :return: ListedImage
    :raises FileNotFoundError: the image or its annotation is missing
    :raises AnnotationError: several image files have this name
    """
    has_ending = Path(image_id).suffix.lower() in IMAGE_ENDINGS
    usual_path = voc_path / "JPEGImages" / (image_id if has_ending else f"{image_id}.jpg")
    image_path, *others = image_paths.get(image_id, [usual_path])
    annotation_path = voc_path / "Annotations" / f"{image_id}.xml"
    for path in (image_path, annotation_path):
        if not os.path.isfile(path):  # also False for names that no file can have
            raise FileNotFoundError(
                f"{printable(str(path))}: no such file: bring it back, or take "
                f"{printable(image_id)} out of ImageSets/Main/{image_set}.txt"
            )
    if others:
        raise AnnotationError(
            f"{printable(str(image_path))}: {printable(others[0].name)} has the same name: remove "
            "the one that is not meant"
        )
    return ListedImage(str(image_path), annotation_path)


def image_paths_by_name(voc_path):
    """
    The image files of a VOC folder: {name without ending: [absolute path]}.

    :raises FileNotFoundError: the folder that should hold them is missing
    """
    check_voc_folder(voc_path)
    folder = Path(voc_path).resolve() / "JPEGImages"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder: put the images there")
    paths = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_ENDINGS:
            paths[path.stem].append(path)
    return dict(paths)


def read_image_ids(voc_path, image_set):
    """
    The names of the images that a VOC folder lists in ImageSets/Main/<image_set>.txt, without
    endings; repeated ones are returned once.

    :raises FileNotFoundError: the folder, the list, or the folder of the images is missing
    :raises AnnotationError: the list is not UTF-8
    """
    check_voc_folder(voc_path)
    path = list_path(voc_path, image_set)
    lines = read_lines(path)
    image_paths = image_paths_by_name(voc_path)
    image_ids = [choose_image_id(line, image_paths) for line in lines]
    unique_ids = list(dict.fromkeys(image_ids))
    if len(unique_ids) < len(image_ids):
        print(f"{path}: {len(image_ids) - len(unique_ids)} repeated names are used once")
    return unique_ids


def choose_image_id(line, image_paths):
    """
    The image that a line of a list names. The line may have the ending of the image file and, in
    VOC's lists of a single class, a second column: 1, 0 or -1. A line that is the name of an image
    as it stands is not cut.
    """
    without_second_column = re.sub(r"\s+(-1|0|1)$", "", line)
    for name in (line, without_second_column):
        if name in image_paths:
            return name
        name_without_ending = Path(name).stem
        if any(path.name == name for path in image_paths.get(name_without_ending, [])):
            return name_without_ending
    return without_second_column


def read_lines(path):
    """The lines of a list, stripped, without empty ones."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such list: write it, with the name of one image on each line"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")  # -sig: some editors write a byte-order mark
    except UnicodeDecodeError as error:
        raise wrong_encoding(path, f"byte {error.start} is not valid") from error
    if "\0" in text:  # in UTF-16, every other byte of a Latin letter is 0, which is valid UTF-8
        raise wrong_encoding(path, "it contains zero bytes")
    return [line.strip() for line in text.splitlines() if line.strip()]


def wrong_encoding(path, reason):
    """The error that says that a list is not in UTF-8."""
    return AnnotationError(f"{path}: expected text in UTF-8, but {reason}: save it again as UTF-8")


def list_path(voc_path, image_set):
    """Where a VOC folder has the list of an image set."""
    return Path(voc_path) / "ImageSets" / "Main" / f"{image_set}.txt"


def check_voc_folder(voc_path):
    """Raise a FileNotFoundError if there is no such folder."""
    if not Path(voc_path).is_dir():
        raise FileNotFoundError(
            f"{voc_path}: no such folder: give the folder that holds JPEGImages, Annotations and "
            "ImageSets (--voc07-path, --voc12-path), fetch PASCAL VOC with --download, or draw toy "
            "data with --toy"
        )


# -------------------------------------------------------------------------------- writing the lists


class AnnotatedImage(NamedTuple):
    """An image and its objects."""

    image: str  # absolute path
    annotation: Path  # the file that the objects were read from
    objects: list  # as parse_annotation returns them


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
    label_map.json. Training images without a usable object are left out; test images all stay.
    What is repaired, dropped or left out is printed, class by class.

    :param found: FoundImages
    :param output_folder: where the lists go
    :param labels: class names, or "auto" to collect them from the annotations
    :raises FileNotFoundError: an image or an annotation is missing
    :raises AnnotationError: an annotation cannot be used, or a class is not among the labels
    :raises ValueError: wrong labels, or no training image is left
    """
    if found.faults:
        raise found.faults[0]
    check_labels(labels)
    print_images_in_both_splits(found.splits)
    annotated = {split: read_objects_of(images) for split, images in found.splits.items()}
    if labels == "auto":
        labels = collect_labels(annotated["TRAIN"] + annotated["TEST"], found.folders)
    lists = make_lists(annotated, create_label_map(labels))
    if not lists["TRAIN_images.json"]:
        folders = " and ".join(map(str, found.folders))
        raise ValueError(
            f"{folders}: no training image has a usable object: look at the counts above"
        )
    save_lists(lists, Path(output_folder))


def make_lists(annotated, label_map):
    """
    What the five files say, and the printed summary of each split.

    :param annotated: {split: [AnnotatedImage]}
    :param label_map: {class name: number}
    :return: {file name: content}
    :raises AnnotationError: a class is not among the labels
    """
    numbers = class_numbers(label_map)
    lists = {"label_map.json": label_map}
    for split, images in annotated.items():
        check_class_names(images, label_map)
        kept = [image for image in images if split == "TEST" or has_usable_object(image)]
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
    """Point out images that are trained on and tested on."""
    in_both = set(splits["TRAIN"]) & set(splits["TEST"])
    if in_both:
        example = min(in_both).image
        print(
            f"Careful: {len(in_both)} images are for training and for testing, such as "
            f"{printable(example)}"
        )


def read_objects_of(images):
    """[ListedImage] with the objects of their annotations: [AnnotatedImage]."""
    return [AnnotatedImage(*image, parse_annotation(image.annotation)) for image in images]


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
    print(f"  {'class':<20}" + "".join(f"  {column}" for column in COLUMNS))
    for name, count in counts.items():
        print_row(printable(name), count)
    print_row("all", sum(counts.values(), Counter()))
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
