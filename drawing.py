"""Drawing detections: boxes, and labels beside them."""

import colorsys
import math

from PIL import ImageDraw, ImageFont

from annotations import printable
from datasets import upright_rgb


def annotate(original_image, detections, label_map, font=""):
    """
    Draw detections on a copy of an image.

    :param original_image: PIL image; left as it is
    :param detections: what find_objects returned
    :param label_map: {class name: number}, for the colours
    :param font: font file for the labels; by default Pillow's own font
    :return: PIL image, RGB
    """
    annotated_image = upright_rgb(original_image).copy()
    pen = ImageDraw.Draw(annotated_image)
    shorter_side = min(annotated_image.size)
    line_width = max(1, round(shorter_side / 150))
    margin = line_width + 1  # around the text of a label
    label_font = load_font(font, size=max(10, shorter_side / 28))

    boxes = [tuple(map(round, box)) for _, _, box in detections]
    colours = [label_colour(label_map[name], len(label_map)) for name, _, _ in detections]
    texts = [f"{printable(name)} {score:.2f}" for name, score, _ in detections]
    sizes = [label_size(text, label_font, margin) for text in texts]
    labels = place_labels(boxes, sizes, annotated_image.size)

    # The best ones are drawn last, on top of the others
    for box, colour in reversed(list(zip(boxes, colours, strict=True))):
        draw_box(pen, box, colour, line_width)
    for label, text, colour in reversed(list(zip(labels, texts, colours, strict=True))):
        draw_label(pen, label, text, colour, label_font, margin)
    return annotated_image


def label_colour(number, n_classes):
    """
    A colour of its own for each class: evenly spaced hues, alternately bright and darker.

    :param number: of the class, from 1
    :param n_classes: number of classes, including background
    :return: (red, green, blue) from 0 to 255
    """
    hue = (number - 1) / max(n_classes - 1, 1)
    value = 1.0 if number % 2 else 0.7
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.85, value))


def draw_box(pen, box, colour, line_width):
    """Draw the outline of a box; one that is thinner than a pixel gets a pixel."""
    x_min, y_min, x_max, y_max = box
    # Pillow includes the last pixel
    corners = (x_min, y_min, max(x_max - 1, x_min), max(y_max - 1, y_min))
    pen.rectangle(corners, outline=colour, width=line_width)


def draw_label(pen, label, text, colour, font, margin):
    """Fill the rectangle of a label, and write its text in black or white, whichever stands out."""
    x_min, y_min, x_max, y_max = label
    pen.rectangle((x_min, y_min, x_max - 1, y_max - 1), fill=colour)
    left, top, _, _ = font.getbbox(text)
    red, green, blue = colour
    brightness = (299 * red + 587 * green + 114 * blue) / 1000
    text_colour = "black" if brightness > 140 else "white"
    pen.text((x_min + margin - left, y_min + margin - top), text, font=font, fill=text_colour)


def label_size(text, font, margin):
    """(width, height) of a label in whole pixels."""
    left, top, right, bottom = font.getbbox(text)
    return math.ceil(right - left) + 2 * margin, math.ceil(bottom - top) + 2 * margin


def place_labels(boxes, sizes, image_size):
    """
    Choose places for the labels of boxes. A label covers neither its own box nor other labels where
    there is room for that, and then as little as possible of the other boxes. The first one chooses
    first.

    :param boxes: list of (x_min, y_min, x_max, y_max) in pixels
    :param sizes: (width, height) of the label of each box
    :param image_size: (width, height)
    :return: list of (x_min, y_min, x_max, y_max), the rectangles of the labels
    """
    labels = []
    for box, size in zip(boxes, sizes, strict=True):
        places = candidate_places(box, size, image_size)
        costs = [
            (total_overlap(place, [box, *labels]), total_overlap(place, boxes)) for place in places
        ]
        labels.append(places[costs.index(min(costs))])  # of equal ones the first
    return labels


def candidate_places(box, size, image_size):
    """
    Where the label of a box can stand, best first: above it, below it, or beside it. What would not
    be in the image is moved there, and may then cover the box.

    :return: list of rectangles
    """
    x_min, y_min, x_max, y_max = box
    width, height = size
    corners = []
    for y in (y_min - height, y_max):
        for x in (x_min, x_max - width, (x_min + x_max - width) // 2):
            corners.append((x, y))
    for x in (x_max, x_min - width):
        for y in (y_min, y_max - height):
            corners.append((x, y))
    return [move_into_image(x, y, size, image_size) for x, y in corners]


def move_into_image(x, y, size, image_size):
    """The rectangle of this size with its upper left corner at (x, y), or as near as fits."""
    width, height = size
    x = max(0, min(x, image_size[0] - width))
    y = max(0, min(y, image_size[1] - height))
    return x, y, x + width, y + height


def total_overlap(rectangle, others):
    """How many pixels of a rectangle others cover; those covered twice count twice."""
    total = 0
    for other in others:
        width = min(rectangle[2], other[2]) - max(rectangle[0], other[0])
        height = min(rectangle[3], other[3]) - max(rectangle[1], other[1])
        if width > 0 and height > 0:
            total += width * height
    return total


# -------------------------------------------------------------------------------------------- fonts


def load_font(path, size):
    """
    :param path: TrueType or OpenType file, or "" for Pillow's own font, which has ASCII only
    :param size: pixels
    :return: PIL.ImageFont.FreeTypeFont
    :raises ValueError: the file cannot be read as a font
    """
    if not path:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"font: expected a TrueType or OpenType file, got {path} ({error})"
        ) from error


def missing_letters(texts, font):
    """
    :param texts: list of texts
    :param font: PIL.ImageFont.FreeTypeFont
    :return: the letters in them that the font lacks, a text
    """
    letters = sorted(set("".join(texts)))
    # A font draws the same box for every letter that it lacks, and U+FFFF is never a letter
    box = bytes(font.getmask("\uffff"))
    return "".join(letter for letter in letters if bytes(font.getmask(letter)) == box)
