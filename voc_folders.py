"""
Folders in PASCAL VOC's layout: finding the images that their lists name, and their annotations.
"""

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from annotations import AnnotationError, printable, read_annotation, read_lines

IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


class ListedImage(NamedTuple):
    """An image whose objects stand in a VOC annotation."""

    image: str  # absolute path
    annotation: Path

    def read(self):
        """The objects, and (width, height) as stated; see annotations.read_annotation."""
        return read_annotation(self.annotation)


class FoundImages:
    """What folders hold. Images were found by their names; none has been opened."""

    def __init__(self, folders, classes=(), groups=()):
        self.folders = folders  # paths, as they were given
        self.classes = list(classes)  # names that the data list, in order; none for VOC's XML
        self.groups = set(groups)  # those of them that seem to be names of groups of others
        self.splits = {"TRAIN": [], "TEST": []}  # and "VAL": [ListedImage, or one of the others]
        self.faults = []  # an error for each image that is missing something or is ambiguous
        self.notes = []  # texts: what was read, and what was not


def find_images(voc07_path, voc12_path):
    """
    Find the images of both folders: those of the `trainval` lists are for training; those of the
    first folder's `test` list are for testing. If only the second folder is given, it is tested on
    if it has such a list (the published VOC2012 has none). A folder without `trainval` list is
    trained on its `train` list, and validated on its `val` list.

    :param voc07_path: folder with Annotations, ImageSets and JPEGImages, or ""
    :param voc12_path: a second one, or ""
    :return: FoundImages
    :raises FileNotFoundError: a folder or a list is missing
    :raises ValueError: see check_folders; a list is not UTF-8
    """
    check_folders(voc07_path, voc12_path)
    folders = [path for path in (voc07_path, voc12_path) if path]
    sets = [image_set for folder in folders for image_set in training_sets(folder)]
    if voc07_path or list_path(folders[0], "test").is_file():
        sets.append(("TEST", folders[0], "test"))
    found = FoundImages(folders)
    for split, folder, image_set in sets:
        images, faults = find_listed_images(folder, image_set)
        found.splits.setdefault(split, []).extend(images)
        found.faults.extend(faults)
    leave_out_trained(found)
    return found


def leave_out_trained(found):
    """Leave those images out of the validation set that are trained on."""
    if "VAL" not in found.splits:
        return
    trained = {image.image for image in found.splits["TRAIN"]}
    validation = found.splits.pop("VAL")
    kept = [image for image in validation if image.image not in trained]
    if len(kept) < len(validation):
        print(
            f"VAL: {len(validation) - len(kept)} of {len(validation)} images are trained on as "
            "well: they are left out of VAL"
        )
    if kept:
        found.splits["VAL"] = kept


def training_sets(folder):
    """The lists of a VOC folder to train and validate on: [(split, folder, name of the list)]."""
    # VOC's val is a part of its trainval: who trains on trainval has no images left to validate on
    if list_path(folder, "trainval").is_file() or not list_path(folder, "train").is_file():
        return [("TRAIN", folder, "trainval")]
    sets = [("TRAIN", folder, "train")]
    if list_path(folder, "val").is_file():
        sets.append(("VAL", folder, "val"))
    return sets


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
        raise same_name_error(image_path, others[0])
    return ListedImage(str(image_path), annotation_path)


def same_name_error(path, other):
    """The error that says that two images have the same name."""
    return AnnotationError(
        f"{printable(str(path))}: {printable(Path(other).name)} has the same name: remove the one "
        "that is not meant"
    )


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
    lines = read_image_set(path)
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


def read_image_set(path):
    """The lines of a list of images, stripped, without empty ones."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such list: write it, with the name of one image on each line"
        )
    return [line.strip() for line in read_lines(path)]


def list_path(voc_path, image_set):
    """Where a VOC folder has the list of an image set."""
    return Path(voc_path) / "ImageSets" / "Main" / f"{image_set}.txt"


def check_voc_folder(voc_path):
    """Raise a FileNotFoundError if there is no such folder."""
    if not Path(voc_path).is_dir():
        raise FileNotFoundError(
            f"{voc_path}: no such folder: give the folder that holds JPEGImages, Annotations and "
            "ImageSets (--voc07-path, --voc12-path), data in any format as `create_data_lists.py "
            "FOLDER`, fetch PASCAL VOC with --download, or draw toy data with --toy"
        )
