"""
Files of detections, which are exchanged with other programs: result files as the PASCAL VOC devkit
and its server take them, one per class, and COCO's results JSON.
"""

import json
import re
import reprlib
from pathlib import Path

import torch

from annotations import MAX_COORDINATE, printable

COCO_NAME = "detections.json"
# comp3 and comp4 are the devkit's competitions of detection, without and with other training data
VOC_NAME = re.compile(r"comp\d_det_[A-Za-z0-9]+_(.+)\.txt")
VOC_LINE = "image_id score x_min y_min x_max y_max"
MAX_SCORE = 1e30  # what float32 can hold; others may have scores that are no probabilities
COCO_ENTRY = '{"image_id", "category_id", "bbox": [x, y, width, height], "score"}'


# ---------------------------------------------------------------------------- names of the images


def voc_image_ids(image_paths):
    """
    How VOC's files name the images: by their file names without folder and extension.

    :return: list of texts
    :raises ValueError: two images have the same name, or one that no line can hold
    """
    ids = [Path(path).stem for path in image_paths]
    for image_id, path in zip(ids, image_paths, strict=True):
        if image_id != image_id.strip() or len(image_id.splitlines()) != 1:
            raise ValueError(
                f"{printable(path)}: a file of detections cannot hold this file name: rename it"
            )
    check_different(ids, image_paths)
    return ids


def coco_image_ids(image_paths):
    """
    How COCO's file names the images: by the number that the file name is (COCO's 000000000139.jpg
    is 139, VOC's 000001.jpg is 1), or by the name itself where it is none.

    :return: list of numbers and texts
    :raises ValueError: two images have the same id
    """
    ids = [coco_image_id(Path(path).stem) for path in image_paths]
    check_different(ids, image_paths)
    return ids


def coco_image_id(name):
    """The number in a text, if it is nothing else."""
    return int(name) if name.isascii() and name.isdigit() else name


def check_different(ids, image_paths):
    """:raises ValueError: an id occurs twice"""
    paths = {}
    for image_id, path in zip(ids, image_paths, strict=True):
        if image_id in paths:
            raise ValueError(
                f"{printable(str(paths[image_id]))} and {printable(str(path))}: files of "
                "detections know an image by its file name alone, and would mix up these two: "
                "rename one, and make the lists again"
            )
        paths[image_id] = path


# ---------------------------------------------------------------------------------------- writing


def check_names(image_paths, label_map):
    """:raises ValueError: detections on these images, of these classes, cannot be written"""
    voc_image_ids(image_paths)
    coco_image_ids(image_paths)
    for name in list(label_map)[1:]:
        if re.search(r'[/\\:*?"<>|]', name) or not name.isprintable():
            raise ValueError(
                f"label_map.json: the class {printable(name)!r} cannot be part of the name of a "
                "file of detections: rename the class"
            )


def save_detections(
    folder, det_boxes_px, det_labels, det_scores, image_paths, label_map, image_set="test"
):
    """
    Write detections in both formats: comp4_det_<image set>_<class>.txt and detections.json.

    The lists have one tensor per image.

    :param folder: made if it is missing
    :param det_boxes_px: (n, 4) boundary coordinates, continuous edges in pixels
    :param det_labels, det_scores: (n,) and (n,)
    :param image_paths: the image files
    :param label_map: {class name: number}
    :param image_set: part of the names of VOC's files
    :raises ValueError: see check_names
    """
    check_names(image_paths, label_map)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    columns = (det_boxes_px, det_labels, det_scores)
    images = []
    for boxes, labels, scores in zip(*columns, strict=True):
        images.append(list(zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True)))
    names = {number: name for name, number in label_map.items() if number > 0}

    voc_lines = {number: [] for number in names}
    for image_id, detections in zip(voc_image_ids(image_paths), images, strict=True):
        for box, label, score in detections:
            voc_lines[label].append(voc_line(image_id, box, score))
    for number, lines in voc_lines.items():
        path = folder / f"comp4_det_{image_set}_{names[number]}.txt"
        path.write_text("".join(lines), encoding="utf-8")

    entries = []
    for image_id, detections in zip(coco_image_ids(image_paths), images, strict=True):
        for box, label, score in detections:
            entries.append(json.dumps(coco_entry(image_id, box, label, score)))
    text = "[\n" + ",\n".join(entries) + "\n]\n"
    (folder / COCO_NAME).write_text(text, encoding="utf-8")


def voc_line(image_id, box_px, score):
    """
    A line of VOC's files. VOC counts pixels from 1 and includes the last one: the box of the first
    pixel alone, whose edges are 0, 0, 1 and 1, is 1 1 1 1.
    """
    x_min, y_min, x_max, y_max = box_px
    return f"{image_id} {score:.9g} {x_min + 1:.3f} {y_min + 1:.3f} {x_max:.3f} {y_max:.3f}\n"


def coco_entry(image_id, box_px, label, score):
    """An entry of COCO's results. The category is the class's number in label_map.json."""
    x_min, y_min, x_max, y_max = box_px
    corner_and_size = (x_min, y_min, x_max - x_min, y_max - y_min)
    return {
        "image_id": image_id,
        "category_id": label,
        "bbox": [round(value, 3) for value in corner_and_size],
        "score": float(f"{score:.9g}"),
    }


# ---------------------------------------------------------------------------------------- reading


def read_detections(path, image_paths, label_map):
    """
    Read detections of either format.

    :param path: folder with VOC's files (comp4_det_test_<class>.txt) or, if it has none, with
        detections.json; or a file like detections.json
    :param image_paths: the images that detections may be on
    :param label_map: {class name: number}, the classes that they may be of
    :return: det_boxes, det_labels, det_scores, as calculate_mAP takes them: lists with one tensor
        per image, (n, 4) continuous edges in pixels, (n,) and (n,)
    :raises FileNotFoundError: there is no such file
    :raises ValueError: a line or an entry is not as it should be; the message names it
    """
    path = Path(path)
    if path.is_file():
        found = read_coco_results(path, image_paths, label_map)
    elif voc_files := find_voc_files(path, label_map):
        found = read_voc_results(voc_files, image_paths, label_map)
    elif (path / COCO_NAME).is_file():
        found = read_coco_results(path / COCO_NAME, image_paths, label_map)
    else:
        raise FileNotFoundError(
            f"{path}: no detections: expected a folder with comp4_det_test_<class>.txt or "
            f"{COCO_NAME}, or such a JSON file; eval.py --save-detections writes both"
        )
    return as_columns(found)


def as_columns(found):
    """Lists of (box, label, score), one per image, as three lists of tensors."""
    return (
        [torch.tensor([box for box, _, _ in image]).view(-1, 4) for image in found],
        [torch.tensor([n for _, n, _ in image], dtype=torch.int64) for image in found],
        [torch.tensor([score for _, _, score in image]) for image in found],
    )


def find_voc_files(folder, label_map):
    """
    VOC's result files in a folder.

    :return: {class name: Path}; empty if there are none
    :raises ValueError: one is of an unknown class, or there are two of a class
    """
    files = {}
    for path in sorted(folder.glob("comp*_det_*.txt")):
        match = VOC_NAME.fullmatch(path.name)
        if not match:
            continue
        name = match[1]
        if label_map.get(name, 0) == 0:
            raise unknown_class(path, repr(printable(name)), label_map)
        if name in files:
            raise ValueError(
                f"{path} and {files[name].name}: two files of the class {printable(name)!r}: "
                "leave one in the folder"
            )
        files[name] = path
    return files


def unknown_class(place, shown_class, label_map):
    """The error that the lists do not know a class."""
    return ValueError(
        f"{printable(str(place))}: the class {shown_class} is not one of the lists' "
        f"{list(label_map)[1:]}: give the lists that these detections belong to (--data-folder)"
    )


def unknown_image(place, image_id):
    """The error that the lists do not know an image."""
    return ValueError(
        f"{printable(str(place))}: the image {reprlib.repr(image_id)} is not in the lists: give "
        "the lists and the split that these detections belong to (--data-folder, --split)"
    )


def read_voc_results(files, image_paths, label_map):
    """
    :param files: {class name: path}
    :param image_paths, label_map, and what is raised: see read_detections
    :return: for each image a list of (box, label, score)
    """
    found = {image_id: [] for image_id in voc_image_ids(image_paths)}
    for name, path in files.items():
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if not line.strip():
                continue
            place = f"{path}: line {number}"
            image_id, box, score = parse_voc_line(line, place)
            if image_id not in found:
                raise unknown_image(place, image_id)
            found[image_id].append((box, label_map[name], score))
    return list(found.values())


def parse_voc_line(line, place):
    """:return: image id, box with continuous edges, score"""
    image_id, *fields = line.strip().rsplit(maxsplit=5)  # file names may contain spaces
    try:
        score, x_min, y_min, x_max, y_max = map(float, fields)
    except ValueError:
        raise ValueError(
            f"{place}: expected {VOC_LINE!r}, got {reprlib.repr(line)}: correct it"
        ) from None
    check_score(score, line, place)
    return image_id, usable_box((x_min - 1, y_min - 1, x_max, y_max), line, place), score


def check_score(score, shown, place):
    """:raises ValueError: not a number that detections can be ranked by"""
    if not abs(score) <= MAX_SCORE:
        raise ValueError(
            f"{place}: expected a score, got {score} in {reprlib.repr(shown)}: correct it"
        )


def usable_box(edges, shown, place):
    """
    A box whose edges are in order. Detectors that clip their boxes to the image may turn round the
    edges of one that lies outside; published files have such boxes. They become boxes without area:
    false alarms.

    :param edges: x_min, y_min, x_max, y_max
    :param shown: what the message shows
    :param place: where it is
    :return: the box, four floats
    :raises ValueError: the edges are no pixels
    """
    if not all(abs(edge) <= MAX_COORDINATE for edge in edges):
        raise ValueError(
            f"{place}: expected a box in pixels, got {reprlib.repr(shown)}: correct it"
        )
    x_min, y_min, x_max, y_max = map(float, edges)
    return x_min, y_min, max(x_min, x_max), max(y_min, y_max)


def read_coco_results(path, image_paths, label_map):
    """For parameters and what is returned and raised see read_voc_results."""
    try:
        entries = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}): replace it") from error
    if not isinstance(entries, list):
        raise ValueError(
            f"{path}: expected COCO's results, a list of entries {COCO_ENTRY}, got "
            f"{reprlib.repr(entries)}: replace it (annotations are no detections)"
        )
    numbers = set(label_map.values()) - {0}
    found = {image_id: [] for image_id in coco_image_ids(image_paths)}
    for number, entry in enumerate(entries):
        place = f"{path}: entry {number}"
        image_id, label, box, score = parse_coco_entry(entry, place)
        if label not in numbers:
            raise unknown_class(place, f"number {label}", label_map)
        if image_id not in found:
            raise unknown_image(place, image_id)
        found[image_id].append((box, label, score))
    return list(found.values())


def parse_coco_entry(entry, place):
    """:return: image id, label, box with continuous edges, score"""
    if not has_form_of_coco(entry):
        raise ValueError(f"{place}: expected {COCO_ENTRY}, got {reprlib.repr(entry)}: correct it")
    x, y, width, height = entry["bbox"]
    box = usable_box((x, y, x + width, y + height), entry, place)
    check_score(entry["score"], entry, place)
    image_id = coco_image_id(str(entry["image_id"]))
    return image_id, entry["category_id"], box, float(entry["score"])


def has_form_of_coco(entry):
    """Whether an entry has the four values, each of its type."""
    if not isinstance(entry, dict):
        return False
    box = entry.get("bbox")
    return (
        type(entry.get("image_id")) in (int, str)
        and type(entry.get("category_id")) is int
        and type(entry.get("score")) in (int, float)
        and isinstance(box, list)
        and len(box) == 4
        and all(type(value) in (int, float) for value in box)
    )


def read_text(path):
    """:raises ValueError: the file is no text"""
    try:
        return path.read_text(encoding="utf-8-sig")  # with or without a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not readable as text ({error}): replace it") from error
