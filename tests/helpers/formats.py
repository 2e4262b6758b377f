"""Writes data sets in the formats that people have theirs in, for the tests."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from helpers.folders import annotation_xml, object_xml


class Picture(NamedTuple):
    """An image and its objects."""

    path: Path  # an image file
    size: tuple  # width, height
    objects: list  # (class name, [x_min, y_min, x_max, y_max] continuous, difficult)


def place_image(picture, folder):
    """A link to the image file in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / picture.path.name).symlink_to(picture.path.resolve())


def coco_content(pictures, labels, first_category=1, step=1):
    """What a COCO file says about some pictures; the numbers of classes may have gaps."""
    ids = {name: first_category + step * number for number, name in enumerate(labels)}
    images = []
    annotations = []
    for number, picture in enumerate(pictures, start=10):
        width, height = picture.size
        image = {"id": number, "file_name": picture.path.name, "width": width, "height": height}
        images.append(image)
        for name, (x_min, y_min, x_max, y_max), difficult in picture.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": ids[name],
                    "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                    "area": (x_max - x_min) * (y_max - y_min),
                    "segmentation": [[x_min, y_min, x_max, y_min, x_max, y_max]],
                    "iscrowd": difficult,
                }
            )
    categories = [
        {"id": number, "name": name, "supercategory": "x"} for name, number in ids.items()
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(folder, splits, labels, **numbering):
    """
    COCO's own layout.

    :param splits: {"train", "val" or "test": [Picture]}
    :param labels: class names
    """
    (folder / "annotations").mkdir(parents=True)
    for split, pictures in splits.items():
        content = coco_content(pictures, labels, **numbering)
        path = folder / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content))
        for picture in pictures:
            place_image(picture, folder / f"{split}2017")
    return folder


def write_roboflow(folder, splits, labels):
    """COCO as Roboflow exports it, with a category that the others belong to."""
    for split, pictures in splits.items():
        for picture in pictures:
            place_image(picture, folder / split)
        content = coco_content(pictures, labels)
        for category in content["categories"]:
            category["supercategory"] = "things"
        content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def yolo_lines(picture, labels):
    """The label file of a picture, with six decimals, as most programs write it."""
    width, height = picture.size
    lines = []
    for name, (x_min, y_min, x_max, y_max), _difficult in picture.objects:
        x, y = (x_min + x_max) / 2 / width, (y_min + y_max) / 2 / height
        w, h = (x_max - x_min) / width, (y_max - y_min) / height
        lines.append(f"{labels.index(name)} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n")
    return "".join(lines)


def write_yolo(folder, splits, labels, names="classes.txt"):
    """YOLO's layout; a split may be called "", for none. Images without objects have no file."""
    for split, pictures in splits.items():
        (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            place_image(picture, folder / "images" / split)
            if picture.objects:
                path = folder / "labels" / split / f"{picture.path.stem}.txt"
                path.write_text(yolo_lines(picture, labels))
    if names == "classes.txt":
        text = "".join(f"{name}\n" for name in labels)
    else:
        text = f"nc: {len(labels)}\nnames: {list(labels)}\n"
        text += "".join(f"{split}: images/{split}\n" for split in splits)
    (folder / names).write_text(text)
    return folder


def write_labelimg(folder, splits):
    """VOC's XML beside the images; a split may be called ""."""
    for split, pictures in splits.items():
        for picture in pictures:
            place_image(picture, folder / split)
            objects = [
                object_xml(
                    name, (x_min + 1, y_min + 1, x_max, y_max), f"<difficult>{d}</difficult>"
                )
                for name, (x_min, y_min, x_max, y_max), d in picture.objects
            ]
            width, height = picture.size
            size = f"<size><width>{width}</width><height>{height}</height></size>"
            path = folder / split / f"{picture.path.stem}.xml"
            path.write_text(annotation_xml(*objects, size=size))
    return folder


def pictures_of(lists, split, folder):
    """
    The Pictures of a split of lists that were made of a VOC folder; their sizes are read here,
    apart from the code under test.
    """
    names = list(lists["label_map"])
    pictures = []
    for image, entry in zip(lists[f"{split}_images"], lists[f"{split}_objects"], strict=True):
        root = ElementTree.parse(Path(folder) / "Annotations" / f"{Path(image).stem}.xml")
        size = int(root.findtext("size/width")), int(root.findtext("size/height"))
        labels = [names[label] for label in entry["labels"]]
        objects = zip(labels, entry["boxes"], entry["difficulties"], strict=True)
        pictures.append(Picture(Path(image), size, list(objects)))
    return pictures
