"""
Data folders: telling the format of a folder, finding its images, and where their objects stand. The
formats are PASCAL VOC's layout, COCO's JSON, YOLO's text, and VOC's XML beside the images, as
LabelImg writes it.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from annotations import (
    AnnotationError,
    check_different,
    printable,
    read_class_names,
    read_coco,
    read_yolo,
)
from data_yaml import read_data_yaml
from voc_folders import (
    IMAGE_ENDINGS,
    FoundImages,
    ListedImage,
    find_images,
    leave_out_trained,
    same_name_error,
)

# ------------------------------------------------------------------------------ what can be found


class CocoImage(NamedTuple):
    """An image whose objects stand in a COCO file, which was read as a whole."""

    image: str
    annotation: str  # the file and the image's name in it, for messages
    objects: list
    image_size: tuple  # as stated

    def read(self):
        """The same as ListedImage.read."""
        return self.objects, self.image_size


class YoloImage(NamedTuple):
    """An image whose objects stand in a YOLO label file. Without that file it has none."""

    image: str
    annotation: Path
    classes: dict  # {number: class name}
    read_size: Callable  # gives (width, height) of an image file

    def read(self):
        """The same as ListedImage.read; the size is that of the image file."""
        image_size = self.read_size(self.image)
        if not self.annotation.is_file():
            return [], image_size
        return read_yolo(self.annotation, self.classes, image_size), image_size


# ------------------------------------------------------------------------------ any of the formats


def find_data(folder, read_size):
    """
    Find the images of a folder, whose format is told by what is in it.

    :param folder: path
    :param read_size: a function that gives (width, height) of the upright image in a file
    :return: FoundImages; what is not divided into splits is in TRAIN
    :raises FileNotFoundError: there is no such folder, or something in it is missing
    :raises ValueError: it has none of the formats, or several; or an annotation cannot be used
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder: give the folder with your data")
    files = list_files(Path(folder).resolve())
    names = [name for name, known in FORMATS.items() if known.is_there(files)]
    if len(names) != 1:
        raise format_error(folder, names)
    found = FORMATS[names[0]].find(folder, files, read_size)
    leave_out_trained(found)
    found.notes.insert(0, f"{folder}: {names[0]}")
    return found


def format_error(folder, names):
    """The error that says that a folder has none of the formats, or those with these names."""
    if names:
        return ValueError(
            f"{folder}: it has several formats, {' and '.join(names)}: move the files of all but "
            "one away, since they may disagree"
        )
    known = "".join(f"\n  {name}: {known.looked_for}" for name, known in FORMATS.items())
    return ValueError(f"{folder}: nothing in it has a format that is known. Looked for:{known}")


class Files(NamedTuple):
    """The files in a folder and its subfolders that may belong to a data set, in order."""

    root: Path  # absolute
    images: list  # paths
    annotations: list  # .xml
    labels: list  # .txt
    json: list  # .json


def list_files(root):
    """The Files of a folder; hidden ones are left out."""
    paths = []
    visited = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real_path = os.path.realpath(folder)
        if real_path in visited:  # a link to a folder above it would be followed for ever
            subfolders.clear()
            continue
        visited.add(real_path)
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        paths += [Path(folder, name) for name in sorted(names) if not is_hidden(name)]
    by_ending = defaultdict(list)
    for path in paths:
        ending = path.suffix.lower()
        by_ending["image" if ending in IMAGE_ENDINGS else ending].append(path)
    return Files(root, *(by_ending[kind] for kind in ("image", ".xml", ".txt", ".json")))


def is_hidden(name):
    """Whether a file or folder is one of the system, or of archives made on another one."""
    return name.startswith(".") or name == "__MACOSX"


SPLIT_NAMES = {
    "train": "TRAIN",
    "trainval": "TRAIN",
    "val": "VAL",
    "valid": "VAL",
    "validation": "VAL",
    "test": "TEST",
}


def split_of(name):
    """The split that a name stands for, as train, val2017 or test_2 do; None for others."""
    return SPLIT_NAMES.get(re.sub(r"[_-]?\d*$", "", name.lower()))


def add_by_folder(found, images, root):
    """
    Put images into the splits that the folders are named after in which they are; all into TRAIN if
    there are no such folders.

    :param images: [ListedImage or YoloImage]
    :raises ValueError: some are in such folders, and others are not
    """
    splits = defaultdict(list)
    for image in images:
        parents = Path(image.image).relative_to(root).parts[:-1]
        names = [split_of(part) for part in parents if split_of(part)]
        splits[names[0] if names else None].append(image)
    if set(splits) == {None}:
        splits["TRAIN"] = splits.pop(None)
    if None in splits:
        example = printable(splits[None][0].image)
        raise ValueError(
            f"{found.folders[0]}: some images are in folders called train, valid or test, and "
            f"{len(splits[None])} are not, such as {example}: move or remove them"
        )
    found.splits.update(splits)


def path_inside(folder, name):
    """The path that a file gives by a name relative to a folder; None if that leads out of it."""
    name = name.replace("\\", "/")  # as it was written on Windows
    is_relative = not PurePosixPath(name).is_absolute() and not PureWindowsPath(name).drive
    if is_relative and ".." not in PurePosixPath(name).parts:
        return Path(folder, name)
    return None


# ------------------------------------------------------------------------------ PASCAL VOC's layout


def is_voc(files):
    """Whether this is a folder in VOC's layout."""
    return (files.root / "ImageSets" / "Main").is_dir()


def find_voc(folder, _files, _read_size):
    """Find the images of one folder in VOC's layout, which may have no `test` list."""
    found = find_images("", str(folder))
    found.folders = [folder]
    return found


# ------------------------------------------------------------------------------------ COCO's JSON


def is_coco(files):
    """Whether this is a folder with annotations in COCO's format."""
    return bool(coco_files(files))


def coco_files(files):
    """The COCO files: [(split or None, path of the JSON file, folders to look for images in)]."""
    found = []
    for path in files.json:
        folder = path.parent
        if path.name == "_annotations.coco.json":  # as Roboflow has it, beside the images
            found.append((None if folder == files.root else split_of(folder.name), path, [folder]))
        elif folder == files.root / "annotations" and path.name.startswith("instances_"):
            name = path.stem.removeprefix("instances_")
            images = files.root / "images"
            found.append((split_of(name), path, [files.root / name, images / name, images]))
    return [(split, path, [*folders, files.root]) for split, path, folders in found]


def find_coco(folder, files, _read_size):
    """Find the images of a folder with annotations in COCO's format."""
    found = FoundImages([folder])
    sources = coco_files(files)
    splits = [split for split, _, _ in sources]
    if len(set(splits)) < len(splits) or (None in splits and len(splits) > 1):
        names = ", ".join(path.relative_to(files.root).as_posix() for _, path, _ in sources)
        raise ValueError(
            f"{folder}: {names}: expected one for each of train, val and test, or one alone: move "
            "the others away"
        )
    for split, path, folders in sources:
        coco = read_coco(path)
        found.classes = list(dict.fromkeys([*found.classes, *coco.classes]))
        found.groups |= coco.groups
        images, faults = find_coco_images(coco, path, folders)
        found.splits[split or "TRAIN"] = images
        found.faults += faults
        name = path.relative_to(files.root).as_posix()
        found.notes.append(f"{name}: {len(coco.images)} images")
        if coco.n_repeated:
            found.notes.append(f"{name}: {coco.n_repeated} repeated images are used once")
    check_different(found.classes, folder)
    return found


def find_coco_images(coco, path, folders):
    """
    Find the image files of a COCO file.

    :param coco: annotations.CocoFile
    :param path: where it was read from
    :param folders: where the images may be; the first folder that has one counts
    :return: [CocoImage], and an error for each image that is missing or leads out of the folder
    """
    images = []
    faults = []
    for entry in coco.images:
        name = printable(entry.file_name[:200])
        candidates = [path_inside(folder, entry.file_name) for folder in folders]
        if candidates[0] is None:
            faults.append(
                AnnotationError(
                    f"{path}: image {name}: leads out of the folder: write file_name relative to "
                    "the folder of the images"
                )
            )
            continue
        existing = [candidate for candidate in candidates if os.path.isfile(candidate)]
        if existing:
            place = f"{path}, image {name}"
            images.append(CocoImage(str(existing[0]), place, entry.objects, entry.image_size))
        else:
            searched = ", ".join(printable(str(folder)) for folder in folders)
            faults.append(
                FileNotFoundError(
                    f"{path}: image {name}: no such file in {searched}: bring it back, or take it "
                    "out of the JSON file"
                )
            )
    return images, faults


# -------------------------------------------------------------------------------------- YOLO's text


def is_yolo(files):
    """Whether this is a folder with names of classes and label files for YOLO."""
    return bool(names_files(files)) and bool(label_files(files))


def names_files(files):
    """The files that name the classes, which there are of data.yaml and classes.txt."""
    names = ("data.yaml", "data.yml", "classes.txt", "labels/classes.txt")
    return [files.root / name for name in names if (files.root / name).is_file()]


def label_files(files):
    """The label files: texts in a folder called labels, or beside an image of the same name."""
    images = {path.with_suffix("") for path in files.images}
    return [
        path
        for path in files.labels
        if path.name != "classes.txt"
        and ("labels" in path.relative_to(files.root).parts or path.with_suffix("") in images)
    ]


def label_path(image_path, root):
    """
    The label file of an image: of the same name, in the folder called labels beside that called
    images, or in the image's own.
    """
    parts = list(image_path.relative_to(root).parts)
    beside = image_path.with_suffix(".txt")
    if "images" not in parts[:-1]:
        return beside
    last = len(parts) - 2 - parts[-2::-1].index("images")
    usual = root.joinpath(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
    return beside if beside.is_file() and not usual.is_file() else usual


def find_yolo(folder, files, read_size):
    """Find the images of a folder with labels for YOLO."""
    settings, classes = read_yolo_names(files)
    found = FoundImages([folder], classes.values())
    names = ", ".join(path.relative_to(files.root).as_posix() for path in names_files(files))
    found.notes.append(f"classes from {names}")
    images = [
        YoloImage(str(path), label_path(path, files.root), classes, read_size)
        for path in yolo_images(files)
    ]
    if settings.get("train"):
        add_by_settings(found, images, settings, files.root)
    else:
        add_by_folder(found, images, files.root)
    add_yolo_faults(found, images, files)
    used = [image for split in found.splits.values() for image in split]
    n_without = sum(not image.annotation.is_file() for image in used)
    if n_without:
        found.notes.append(f"images without a label file, taken to have no objects: {n_without}")
    return found


def read_yolo_names(files):
    """What data.yaml says, {} without one, and the classes: {number: name}."""
    settings = {}
    sources = {}  # {file: {number: name}}
    for path in names_files(files):
        if path.suffix == ".txt":
            sources[path] = read_class_names(path)
        else:
            settings = read_data_yaml(path)
            if "names" in settings:
                sources[path] = settings["names"]
    if not sources:
        path = names_files(files)[0]
        raise AnnotationError(
            f"{path}: it has no names of classes: write names: [first, second, ...] there, or a "
            "classes.txt beside it, with a name on each line"
        )
    path, classes = next(iter(sources.items()))
    for other, names in sources.items():
        if names != classes:
            raise AnnotationError(f"{other}: its classes differ from those of {path}: correct one")
    return settings, classes


def yolo_images(files):
    """The images of a YOLO folder: those in folders called images, or all if there is none."""
    in_folders = [
        path for path in files.images if "images" in path.relative_to(files.root).parts[:-1]
    ]
    return in_folders or files.images


def add_by_settings(found, images, settings, root):
    """Put images into the splits whose folders a data.yaml names."""
    for key, split in (("train", "TRAIN"), ("val", "VAL"), ("test", "TEST")):
        folders = []
        for name in settings.get(key, []):
            path = settings_folder(root, settings.get("path", "."), name)
            if path is not None:
                folders.append(path)
            elif key == "train":
                raise FileNotFoundError(
                    f"{root / 'data.yaml'}: train: {printable(name)}: no such folder in {root}: "
                    "write a folder of images, relative to data.yaml"
                )
            else:
                found.notes.append(f"{key}: {printable(name)}: no such folder, left out")
        found.splits[split] = [image for image in images if is_in(image.image, folders)]
    used = {image.image for split in found.splits.values() for image in split}
    if len(used) < len(images):
        found.notes.append(f"images in none of these folders, left out: {len(images) - len(used)}")


def settings_folder(root, base, name):
    """The folder of images that a data.yaml names; None if there is none within the root."""
    # Roboflow writes ../train/images, which leads out of the folder that its archive unpacks to
    for text in (f"{base}/{name}", name, re.sub(r"^(\.\./)+", "", name)):
        path = path_inside(root, text)
        if path is not None and os.path.isdir(path):
            return path
    return None


def is_in(image, folders):
    """Whether an image is in one of some folders, or below it."""
    return any(Path(image).is_relative_to(folder) for folder in folders)


def add_yolo_faults(found, images, files):
    """Find label files without an image, and images that share one."""
    owners = defaultdict(list)
    for image in images:
        owners[image.annotation].append(image.image)
    for path in label_files(files):
        if path not in owners and "labels" in path.relative_to(files.root).parts:
            found.faults.append(
                FileNotFoundError(
                    f"{printable(str(path))}: no image of this name: bring it back, or remove the "
                    "label file"
                )
            )
    for paths in owners.values():
        if len(paths) > 1:
            found.faults.append(same_name_error(*paths[:2]))


# --------------------------------------------------------------------- VOC's XML beside the images


def is_labelimg(files):
    """Whether there are XML files with the names of images, but no lists of VOC's layout."""
    names = {path.stem for path in files.images}
    return not is_voc(files) and any(path.stem in names for path in files.annotations)


def find_labelimg(folder, files, _read_size):
    """
    Find the images of a folder with VOC annotations beside them, or elsewhere in it if no two
    images have the same name. An image without annotation may not have been looked at yet, and is
    left out.
    """
    found = FoundImages([folder])
    by_place = defaultdict(list)  # by folder and name
    by_name = defaultdict(list)
    for path in files.images:
        by_place[path.with_suffix("")].append(str(path))
        by_name[path.stem].append(str(path))
    images = {}
    for annotation in files.annotations:
        paths = by_place.get(annotation.with_suffix("")) or by_name.get(annotation.stem, [])
        if len(paths) == 1 and paths[0] not in images:
            images[paths[0]] = ListedImage(paths[0], annotation)
        elif len(paths) == 1:
            other = images[paths[0]].annotation
            found.faults.append(
                AnnotationError(
                    f"{printable(str(annotation))}: {printable(str(other))} is of the same image: "
                    "remove the one that is not meant"
                )
            )
        elif paths:
            found.faults.append(same_name_error(*paths[:2]))
        else:
            found.faults.append(
                FileNotFoundError(
                    f"{printable(str(annotation))}: no image of this name: bring it back, or "
                    "remove the XML file"
                )
            )
    add_by_folder(found, [images[path] for path in sorted(images)], files.root)
    n_without = len(files.images) - len(images)
    if n_without:
        found.notes.append(
            f"images without an XML file, left out: {n_without} (an image without objects needs "
            "an XML file that says so)"
        )
    return found


class Format(NamedTuple):
    """A format of data folders."""

    is_there: Callable  # tells from Files whether a folder has it
    find: Callable  # (folder, Files, read_size) -> FoundImages
    looked_for: str  # what it is recognised by, in words


FORMATS = {
    "PASCAL VOC": Format(
        is_voc, find_voc, "lists in ImageSets/Main, with Annotations and JPEGImages"
    ),
    "COCO": Format(
        is_coco,
        find_coco,
        "annotations/instances_*.json and folders of images, or _annotations.coco.json among the "
        "images, in folders called train, valid and test",
    ),
    "YOLO": Format(
        is_yolo,
        find_yolo,
        "data.yaml or classes.txt, and label files (.txt) in folders called labels beside such "
        "called images, or among the images",
    ),
    "VOC's XML without lists": Format(
        is_labelimg, find_labelimg, "an XML file with the name of each image, as LabelImg writes it"
    ),
}
