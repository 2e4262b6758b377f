"""Makes small folders in VOC layout, and reads lists, for the tests."""

import json
import re
from pathlib import Path

from datasets import SPLITS

LABEL_MAP = {"background": 0, "cat": 1, "dog": 2}
CAR = "car", (11, 21, 50, 60)  # an object: class name, then xmin, ymin, xmax, ymax as in the file


def object_xml(name, box, difficult="<difficult>0</difficult>"):
    """An <object> of an annotation."""
    edges = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{difficult}<bndbox>{edges}</bndbox></object>"


def annotation_xml(
    *objects, size="<size><width>100</width><height>80</height><depth>3</depth></size>"
):
    """An annotation; objects are (class name, box), or XML."""
    texts = [obj if isinstance(obj, str) else object_xml(*obj) for obj in objects]
    return f"<annotation>{size}{''.join(texts)}</annotation>"


def make_voc(folder, trainval, test=None):
    """
    A folder in VOC layout, with an empty file for each image.

    :param trainval, test: {image name: XML}
    :return: the folder, as a string
    """
    for path in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / path).mkdir(parents=True)
    for image_set, annotations in (("trainval", trainval), ("test", test)):
        if annotations is None:
            continue
        (folder / "ImageSets" / "Main" / f"{image_set}.txt").write_text(
            "".join(f"{name}\n" for name in annotations)
        )
        for name, text in annotations.items():
            (folder / "JPEGImages" / f"{name}.jpg").touch()
            (folder / "Annotations" / f"{name}.xml").write_text(text)
    return str(folder)


def read_lists(folder):
    """{name without .json: content} of the five lists."""
    names = "TRAIN_images", "TRAIN_objects", "TEST_images", "TEST_objects", "label_map"
    return {name: json.loads((Path(folder) / f"{name}.json").read_text()) for name in names}


def write_lists(folder, images, entries, label_map=LABEL_MAP):
    """Write the lists of images and of their entries, the same for all splits."""
    for split in SPLITS:
        (folder / f"{split}_images.json").write_text(json.dumps([str(path) for path in images]))
        (folder / f"{split}_objects.json").write_text(json.dumps(entries))
    (folder / "label_map.json").write_text(json.dumps(label_map))
    return folder


def assert_each_matches(texts, patterns):
    """There are as many texts as patterns, and each contains its own."""
    for text, pattern in zip(texts, patterns, strict=True):
        assert re.search(pattern, text), text
