"""
Annotations: the names of classes, and the objects in the files of three formats, PASCAL VOC's XML,
COCO's JSON and YOLO's text. Whatever the format, an object is read as

    {"name": class, "box": continuous pixel edges, "difficult": 0 or 1, "repairs": [what was wrong]}
"""

import json
import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from typing import NamedTuple


class AnnotationError(ValueError):
    """A file that should be corrected, not guessed at; the message names it and the remedy."""


# ------------------------------------------------------------------------------------------- labels

voc_labels = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


def create_label_map(labels):
    """
    Number the classes: background 0, then the labels from 1 in their order.

    :param labels: class names
    :return: {name: number}
    :raises ValueError: no label, a repeated one (case is ignored), or "background" among them
    """
    counts = Counter(label.lower() for label in labels)
    if not counts or "background" in counts or max(counts.values()) > 1:
        raise ValueError(
            "labels: expected different class names without 'background', which is added here; "
            f"got {list(labels)}"
        )
    return {"background": 0} | {label: number for number, label in enumerate(labels, start=1)}


def printable(text):
    """
    A text from a file, made safe to print: characters that a terminal could obey, such as escape,
    line breaks or changes of the writing direction, are written as escape sequences.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


# ------------------------------------------------------------------------------ boxes and texts

MAX_COORDINATE = 1_000_000  # pixels; anything larger is a mistake
MIN_SIDE = 0.5  # pixels; a thinner box shows nothing, and the loss takes the logarithm of its sides
MAX_TEXT_BYTES = 100_000_000  # of a list of names
REMEDY = "correct the file, or take the image out of the data"


def clip_box(box, image_size):
    """
    What can be used of a box.

    :param box: (x_min, y_min, x_max, y_max), continuous edges in pixels
    :param image_size: (width, height), infinite where unknown
    :return: the part of it in the image, None if that is thinner than MIN_SIDE; and what had to be
        repaired: [], ["clipped"] or ["outside"]
    """
    width, height = image_size
    clipped = [max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)]
    if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < MIN_SIDE:
        return None, ["outside"]
    return clipped, ["clipped"] if clipped != box else []


def rounded(edges):
    """
    Edges in hundredths of a pixel, as COCO has them. YOLO's fractions have six decimals, and a sum
    has errors of its own: without this, boxes that end with the image would seem to reach out.
    """
    return [round(edge, 2) for edge in edges]


def to_number(text):
    """The number that is written in a text; NaN if none is."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def read_lines(path, max_bytes=MAX_TEXT_BYTES):
    """
    The lines of a text, without blanks at their ends and without empty ones.

    :raises AnnotationError: it cannot be read, is not UTF-8, or is larger than max_bytes
    """
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise AnnotationError(f"{path}: not readable ({error.strerror}): replace it") from error
    if len(content) > max_bytes:
        raise AnnotationError(f"{path}: more than {max_bytes:,} bytes are too many: correct it")
    try:
        text = content.decode("utf-8-sig")  # -sig: some editors write a byte-order mark
    except UnicodeDecodeError as error:
        raise wrong_encoding(path, f"byte {error.start} is not valid") from error
    if "\0" in text:  # in UTF-16, every other byte of a Latin letter is 0, which is valid UTF-8
        raise wrong_encoding(path, "it contains zero bytes")
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def wrong_encoding(path, reason):
    """The error that says that a text is not in UTF-8."""
    return AnnotationError(f"{path}: expected text in UTF-8, but {reason}: save it again as UTF-8")


# ------------------------------------------------------------------------------- PASCAL VOC's XML

MAX_XML_BYTES = 8_000_000  # enough for 20,000 objects


def parse_annotation(annotation_path):
    """
    Read the objects of one VOC annotation. Boxes are returned as continuous pixel edges,
    (x_min, y_min, x_max, y_max); the image covers 0 to its width and 0 to its height.

    :param annotation_path: an XML file
    :return: a list of objects, each {"name", "box", "difficult", "repairs"}. `repairs` names what
        had to be repaired: "no difficult tag" (missing, or neither 0 nor 1: taken as 0), and one of
        "clipped" (the box reached out of the image), "degenerate" (it has no width or height) or
        "outside" (less than MIN_SIDE of it is in the image). For the last two, `box` is None.
    :raises AnnotationError: the XML is malformed or not a VOC annotation, or an object lacks its
        name or a coordinate
    """
    return read_annotation(annotation_path)[0]


def read_annotation(annotation_path):
    """
    Read one VOC annotation.

    :return: its objects, as parse_annotation returns them, and (width, height) of the image as the
        annotation states them, infinite where it does not
    :raises AnnotationError: see parse_annotation
    """
    root = read_xml(annotation_path)
    image_size = stated_size(root)
    objects = [read_object(element, image_size, annotation_path) for element in root.iter("object")]
    return objects, image_size


def read_xml(path):
    """The root element of a VOC annotation; AnnotationError if the file is not one."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_XML_BYTES + 1)
        if len(content) > MAX_XML_BYTES:
            raise ValueError(f"it has more than {MAX_XML_BYTES:,} bytes")
        if b"<!DOCTYPE" in content.replace(b"\0", b""):  # in UTF-16, every other byte is 0
            raise ValueError("it has a document type, which can make gigabytes of a small file")
        root = ElementTree.fromstring(content)
    # ValueError and LookupError are also raised for a wrong or unknown encoding
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(
            f"{path}: not readable as XML ({printable(str(error))}): correct it or fetch it again"
        ) from error
    check_structure(root, path)
    return root


def check_structure(root, path):
    """Refuse XML in which no object would be found although there may be some."""
    remedy = "export it as PASCAL VOC, without namespaces, or take the image out of the list"
    if root.tag != "annotation":
        raise AnnotationError(
            f"{path}: expected <annotation> as the outermost tag, "
            f"found <{printable(root.tag[:80])}>: {remedy}"
        )
    for element in root.iter():
        name_without_namespace = element.tag.rpartition("}")[2]
        if name_without_namespace.lower() == "object" and element.tag != "object":
            raise AnnotationError(
                f"{path}: expected objects in <object>, found <{printable(element.tag[:80])}>: "
                f"{remedy}"
            )


def stated_size(root):
    """(width, height) as an annotation states them in <size>; infinite where it does not."""
    width = to_number(root.findtext("size/width", default=""))
    height = to_number(root.findtext("size/height", default=""))
    return (width if width > 0 else math.inf, height if height > 0 else math.inf)


def read_object(element, image_size, file):
    """One <object> as parse_annotation returns it."""
    name = required_text(element, "name", file, "write its class there")
    edges = [read_coordinate(element, edge, file) for edge in ("xmin", "ymin", "xmax", "ymax")]
    box, box_repairs = usable_box(edges, image_size)
    difficult = (element.findtext("difficult") or "").strip()
    repairs = box_repairs if difficult in ("0", "1") else ["no difficult tag", *box_repairs]
    return {"name": name, "box": box, "difficult": int(difficult == "1"), "repairs": repairs}


def usable_box(edges, image_size):
    """
    What can be used of a VOC box.

    DEVIATION(coordinates): VOC counts pixels from 1 and includes both ends, so pixel 1 covers 0 to
    1: one is subtracted from the low edges only, and not, as in other tutorials, from all four.
    Plain overlaps then reproduce the official evaluation.

    :param edges: xmin, ymin, xmax, ymax as written in the file
    :param image_size: (width, height), infinite where unknown
    :return: the box in continuous edges, None if it is of no use; and what had to be repaired: [],
        ["clipped"], ["degenerate"] or ["outside"]
    """
    x_min, y_min, x_max, y_max = edges
    if x_max <= x_min or y_max <= y_min:
        return None, ["degenerate"]
    box = [x_min - 1, y_min - 1, x_max, y_max]
    return clip_box(box, image_size)


def read_coordinate(element, edge, file):
    """A coordinate of an object's box as it is written in the file, in VOC's pixels."""
    text = required_text(element, f"bndbox/{edge}", file, REMEDY)
    value = to_number(text)
    if not abs(value) <= MAX_COORDINATE:  # NaN, too, fails this comparison
        raise AnnotationError(
            f"{file}: <{edge}> should be a number of pixels, got {text[:40]!r}: {REMEDY}"
        )
    return value


def required_text(element, path, file, remedy):
    """The text of a tag that every object must have."""
    text = (element.findtext(path) or "").strip()
    if not text:
        raise AnnotationError(f"{file}: an <object> has no <{path}>: {remedy}")
    return text


# -------------------------------------------------------------------------------------- COCO's JSON

MAX_JSON_BYTES = 600_000_000  # the largest of COCO's own files has 470 million
JSON_REMEDY = "correct it, or export it again"


class CocoEntry(NamedTuple):
    """An image that a COCO file lists."""

    file_name: str  # as it stands in the file: where it leads is not checked
    objects: list
    image_size: tuple  # (width, height) as stated, infinite where it is not


class CocoFile(NamedTuple):
    """What a COCO file says."""

    classes: list  # names, in the order of the file
    groups: set  # those of them that are given as the supercategory of others
    images: list  # CocoEntry
    n_repeated: int  # images that were listed once more, and are used once


def read_coco(path):
    """
    Read a file in COCO's format for object detection. A box is `bbox`, x, y, width and height; the
    polygons beside it are not needed. Objects that are a crowd count as difficult.

    :param path: a JSON file
    :return: CocoFile
    :raises AnnotationError: it is not such a file, or contradicts itself
    """
    content = read_json(path)
    names, groups = read_categories(content, path)
    images, n_repeated = read_coco_images(content, path)
    for annotation in json_entries(content, "annotations", path):
        entry = images.get(json_id(annotation, "image_id"))
        entry_place = f"{path}: annotation {shown(annotation.get('id'))}"
        if entry is None:
            raise AnnotationError(
                f"{entry_place}: image {shown(annotation.get('image_id'))} is not among the "
                f"images: {JSON_REMEDY}"
            )
        entry.objects.append(read_coco_object(annotation, names, entry.image_size, entry_place))
    return CocoFile(list(names.values()), groups, list(images.values()), n_repeated)


def read_json(path):
    """The object in a JSON file; AnnotationError if there is none."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
        if len(text) > MAX_JSON_BYTES:
            raise ValueError(f"it has more than {MAX_JSON_BYTES:,} bytes")
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = printable(str(error))[:200]
        raise AnnotationError(f"{path}: not readable as JSON ({reason}): {JSON_REMEDY}") from error
    if not isinstance(content, dict):
        raise AnnotationError(f"{path}: expected an object with images, annotations and categories")
    return content


def json_entries(content, key, path):
    """A list of objects in a COCO file."""
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AnnotationError(
            f"{path}: expected a list of objects as {key!r}, as COCO has it: {JSON_REMEDY}"
        )
    return entries


def json_id(entry, key):
    """A number (or text) that identifies something; None if there is none."""
    value = entry.get(key)
    return value if type(value) in (int, str) else None  # a bool is no number


def shown(value):
    """A value from a JSON file as error messages show it."""
    return ascii(value)[:40]


def read_categories(content, path):
    """{number: class name} of a COCO file, and the names that are supercategories of others."""
    names = {}
    supercategories = set()
    for category in json_entries(content, "categories", path):
        number = json_id(category, "id")
        name = category.get("name")
        if number is None or not isinstance(name, str) or not name.strip() or number in names:
            raise AnnotationError(
                f"{path}: category {shown(category.get('id'))}, {shown(name)}: expected an id of "
                f"its own and a name: {JSON_REMEDY}"
            )
        names[number] = name.strip()
        group = category.get("supercategory")
        if isinstance(group, str) and group != name:
            supercategories.add(group)
    check_different(names.values(), path)
    return names, supercategories & set(names.values())


def check_different(names, path):
    """Raise an AnnotationError if two classes have the same name."""
    counts = Counter(name.lower() for name in names)
    repeated = [name for name in names if counts[name.lower()] > 1]
    if repeated:
        raise AnnotationError(
            f"{path}: several classes are called {printable(repeated[0][:40])}: give each its own "
            "name"
        )


def read_coco_images(content, path):
    """{id: CocoEntry without objects} of a COCO file, and how many were listed repeatedly."""
    images = {}
    file_names = set()
    n_repeated = 0
    for image in json_entries(content, "images", path):
        number = json_id(image, "id")
        name = image.get("file_name")
        if number is None or not isinstance(name, str) or not name.strip():
            raise AnnotationError(
                f"{path}: image {shown(image.get('id'))}, {shown(name)}: expected an id and a "
                f"file_name: {JSON_REMEDY}"
            )
        if number in images and images[number].file_name == name:
            n_repeated += 1
            continue
        if number in images or name in file_names:
            raise AnnotationError(
                f"{path}: image {shown(number)}, {shown(name)}: another image has this id or this "
                f"file_name: {JSON_REMEDY}"
            )
        file_names.add(name)
        size = (json_side(image.get("width")), json_side(image.get("height")))
        images[number] = CocoEntry(name, [], size)
    return images, n_repeated


def json_side(value):
    """A side of an image as a COCO file states it; infinite where it does not."""
    return value if type(value) in (int, float) and value > 0 else math.inf


def read_coco_object(annotation, names, image_size, place):
    """
    One object of a COCO file.

    :param names: {category number: class name}
    :param place: where it is, for error messages
    """
    name = names.get(json_id(annotation, "category_id"))
    if name is None:
        raise AnnotationError(
            f"{place}: category {shown(annotation.get('category_id'))} is not among the "
            f"categories: {JSON_REMEDY}"
        )
    bbox = annotation.get("bbox")
    if not is_bbox(bbox):
        raise AnnotationError(
            f"{place}: expected a bbox of four numbers of pixels, x, y, width and height, got "
            f"{shown(bbox)}: {JSON_REMEDY}"
        )
    is_crowd = annotation.get("iscrowd", 0)
    if is_crowd not in (0, 1):
        raise AnnotationError(
            f"{place}: iscrowd should be 0 or 1, got {shown(is_crowd)}: {JSON_REMEDY}"
        )
    x_min, y_min, width, height = bbox
    if width <= 0 or height <= 0:
        box, repairs = None, ["degenerate"]
    else:
        box, repairs = clip_box(rounded([x_min, y_min, x_min + width, y_min + height]), image_size)
    return {"name": name, "box": box, "difficult": int(is_crowd), "repairs": repairs}


def is_bbox(value):
    """Whether this is a list of four numbers of pixels; NaN is none."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(type(edge) in (int, float) and abs(edge) <= MAX_COORDINATE for edge in value)
    )


# -------------------------------------------------------------------------------------- YOLO's text

MAX_LABEL_BYTES = 8_000_000  # enough for 200,000 objects
MAX_NAMES_BYTES = 200_000  # enough for 5,000 classes
MAX_FRACTION = 2  # of an image's side; a box may reach out of the image, but not by this much
YOLO_FORM = (
    "expected a class and x, y, width, height as fractions of the image, or a class and the "
    "corners of a polygon"
)


def read_yolo(path, classes, image_size):
    """
    Read the objects of an image from a YOLO label file. Of a polygon, the box around it is used,
    and "polygon" is among its repairs.

    :param path: a text file, with an object on each line
    :param classes: {number: class name}
    :param image_size: (width, height) of the upright image in pixels
    :return: a list of objects
    :raises AnnotationError: a line is not an object, or its class has no name
    """
    return [
        read_yolo_object(line, classes, image_size, f"{path}: {printable(line[:60])!r}")
        for line in read_lines(path, MAX_LABEL_BYTES)
    ]


def read_yolo_object(line, classes, image_size, place):
    """One line of a YOLO label file; for the arguments see read_yolo."""
    number, *values = [to_number(word) for word in line.split()]
    is_polygon = len(values) >= 6 and len(values) % 2 == 0
    if len(values) != 4 and not is_polygon:
        raise AnnotationError(f"{place}: {YOLO_FORM}, got {1 + len(values)} values: {REMEDY}")
    if not all(abs(value) <= MAX_FRACTION for value in values):  # NaN, too, fails this comparison
        raise AnnotationError(f"{place}: {YOLO_FORM}: {REMEDY}")
    if number not in classes:
        raise AnnotationError(
            f"{place}: class {line.split()[0][:20]} has no name: name it where the classes are "
            "named, or correct the file"
        )
    edges = polygon_edges(values) if is_polygon else centre_to_edges(values)
    box, repairs = usable_fractions(edges, image_size)
    repairs = ["polygon", *repairs] if is_polygon else repairs
    return {"name": classes[number], "box": box, "difficult": 0, "repairs": repairs}


def polygon_edges(values):
    """The edges of the box around a polygon, x1, y1, x2, y2 ..."""
    return min(values[0::2]), min(values[1::2]), max(values[0::2]), max(values[1::2])


def centre_to_edges(values):
    """The edges of a box that is given as centre and size."""
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def usable_fractions(edges, image_size):
    """What can be used of a box in fractions of the image, in pixels, and its repairs."""
    x_min, y_min, x_max, y_max = edges
    if x_max <= x_min or y_max <= y_min:
        return None, ["degenerate"]
    width, height = image_size
    box = rounded([x_min * width, y_min * height, x_max * width, y_max * height])
    return clip_box(box, image_size)


def read_class_names(path):
    """
    The names in a classes.txt, one on each line.

    :return: {number: class name}
    :raises AnnotationError: the file is empty or not UTF-8, or a name is repeated
    """
    names = [line.strip() for line in read_lines(path, MAX_NAMES_BYTES)]
    if not names:
        raise AnnotationError(f"{path}: expected the name of a class on each line, got none")
    check_different(names, path)
    return dict(enumerate(names))
