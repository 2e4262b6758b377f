"""Annotations: the names of classes, and the objects in PASCAL VOC's XML files."""

import math
import xml.etree.ElementTree as ElementTree
from collections import Counter


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


# ----------------------------------------------------------------------- reading one VOC annotation

MAX_COORDINATE = 1_000_000  # pixels; anything larger is a mistake
MIN_SIDE = 0.5  # pixels; a thinner box shows nothing, and the loss takes the logarithm of its sides
MAX_XML_BYTES = 8_000_000  # enough for 20,000 objects
REMEDY = "correct the file, or take the image out of the list in ImageSets/Main"


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
    What can be used of a box.

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
    width, height = image_size
    box = [x_min - 1, y_min - 1, x_max, y_max]
    clipped = [max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)]
    if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < MIN_SIDE:
        return None, ["outside"]
    return clipped, ["clipped"] if clipped != box else []


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


def to_number(text):
    """The number that is written in a text; NaN if none is."""
    try:
        return float(text)
    except ValueError:
        return math.nan
