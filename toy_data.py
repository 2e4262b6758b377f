"""
The toy data: images with simple drawings of VOC's classes, to try everything out in minutes. They
are stored in VOC's layout, with annotations like VOC's, so that the rest of the project can't tell
them from photographs.
"""

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from data_lists import create_data_lists
from runtime import check_range
from toy_drawings import TOY_DRAWINGS

# The default toy set, which `train.py --toy` learns well in five minutes on two CPU cores
TOY_CLASSES = 4
TOY_IMAGES = 600
TOY_TEST_IMAGES = 200

TOY_LABELS = tuple(TOY_DRAWINGS)
DRAWINGS_VERSION = 1  # increase it whenever images change, so that older toy sets are drawn again
MADE_BY = "create_data_lists.py --toy"  # marks a folder whose images may be replaced

IMAGE_SIZES = ((500, 375), (375, 500), (400, 400), (320, 240))  # width and height, pixels
OBJECT_SIDES = (0.15, 0.5)  # longer side of an object / shorter side of its image
MAX_OVERLAP = 0.5  # of two drawings, as a fraction of the smaller one's pixels
MAX_COVERED = 1 / 3  # an object of which more is covered is marked difficult
FAINT_SHARE = 0.08  # of the images have a faint first object, which is marked difficult
FAINT_OPACITY = 0.35
PLACE_TRIES = 20  # random places that are tried for a drawing before it is left out
OUTLINE = (20, 20, 24, 255)  # RGBA


# -------------------------------------------------------------------------------------- the files


def create_toy_data(
    folder, n_classes=TOY_CLASSES, n_train=TOY_IMAGES, n_test=TOY_TEST_IMAGES, seed=0
):
    """
    Draw a data set in VOC's layout, and write its lists into the same folder. If the folder already
    holds exactly this set, nothing is drawn; if it holds another toy set, that one is replaced.

    :param folder: where it goes; created if it does not exist
    :param n_classes: 1 to 20; the first ones of TOY_LABELS
    :param n_train: number of training images, at least 1
    :param n_test: number of test images
    :param seed: the same seed gives the same files
    :raises ValueError: a number is out of range, or the folder holds something else
    """
    check_range("toy classes", n_classes, 1, len(TOY_LABELS))
    check_range("toy test images", n_test, 0, 999_998)  # the names have six digits
    check_range("toy training images", n_train, 1, 999_999 - n_test)
    check_range("seed", seed, 0)

    folder = Path(folder)
    classes = TOY_LABELS[:n_classes]
    settings = {
        "made_by": MADE_BY,
        "drawings": DRAWINGS_VERSION,
        "classes": list(classes),
        "n_train": n_train,
        "n_test": n_test,
        "seed": seed,
    }
    is_same_set = read_toy_marker(folder) == settings
    is_complete = len(find_toy_files(folder)) == 2 * (n_train + n_test)
    if not (is_same_set and is_complete):
        draw_toy_data(folder, settings)
    create_data_lists(str(folder), "", folder, labels=classes)  # anew: the folder may have moved


def read_toy_marker(folder):
    """
    The settings with which the toy set in a folder was drawn; None if the folder is empty or
    missing.

    :raises ValueError: there is something else in it, which must not be overwritten
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        settings = json.loads((folder / "toy.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = None
    if not isinstance(settings, dict) or settings.get("made_by") != MADE_BY:
        raise ValueError(
            f"{folder}: expected a new or empty folder, or one with a toy set, but it holds "
            "something else: name another folder"
        )
    return settings


def find_toy_files(folder):
    """The images and annotations of a toy set."""
    number = "[0-9]" * 6
    return [*folder.glob(f"JPEGImages/{number}.jpg"), *folder.glob(f"Annotations/{number}.xml")]


def draw_toy_data(folder, settings):
    """Draw all images of a toy set, with their annotations and the lists of their names."""
    for path in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / path).mkdir(parents=True, exist_ok=True)
    marker = folder / "toy.json"
    # Without its settings the set counts as unfinished: if this is interrupted, it is drawn again
    marker.write_text(json.dumps({"made_by": MADE_BY}), encoding="utf-8")
    for path in find_toy_files(folder):
        path.unlink()

    n_train = settings["n_train"]
    n_images = n_train + settings["n_test"]
    names = [f"{number + 1:06}" for number in range(n_images)]
    for number, name in enumerate(tqdm(names, desc="drawing", unit="image")):
        image, objects = draw_toy_image(settings["seed"], number, settings["classes"])
        image.save(folder / "JPEGImages" / f"{name}.jpg", quality=90)
        write_annotation(folder / "Annotations" / f"{name}.xml", f"{name}.jpg", image.size, objects)
    write_image_set(folder, "trainval", names[:n_train])
    write_image_set(folder, "test", names[n_train:])
    marker.write_text(json.dumps(settings), encoding="utf-8")


def write_image_set(folder, image_set, names):
    """Write the list of the images of one set, such as "trainval"."""
    path = folder / "ImageSets" / "Main" / f"{image_set}.txt"
    path.write_text("".join(f"{name}\n" for name in names))


def write_annotation(path, image_name, image_size, objects):
    """
    Write the annotation of one image in VOC's format.

    :param path: the XML file
    :param image_name: file name of the image
    :param image_size: (width, height) in pixels
    :param objects: as draw_toy_image returns them
    """
    width, height = image_size
    root = ElementTree.Element("annotation")
    about_the_image = {
        "folder": "toy",
        "filename": image_name,
        "source": {"database": f"drawn by {MADE_BY}"},
        "size": {"width": width, "height": height, "depth": 3},
        "segmented": 0,
    }
    add_tags(root, about_the_image)
    for obj in objects:
        left, top, right, bottom = obj["box"]
        tags = {
            "name": obj["name"],
            "pose": "Unspecified",
            "truncated": obj["truncated"],
            "difficult": obj["difficult"],
            # VOC counts pixels from 1 and includes both ends: our left ... right - 1 is left + 1
            # ... right there
            "bndbox": {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom},
        }
        add_tags(root, {"object": tags})
    ElementTree.indent(root, "\t")
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8") + b"\n")


def add_tags(parent, tags):
    """Add {tag: text, or a dictionary of further tags} to an XML element."""
    for tag, content in tags.items():
        element = ElementTree.SubElement(parent, tag)
        if isinstance(content, dict):
            add_tags(element, content)
        else:
            element.text = str(content)


# ------------------------------------------------------------------------------------- the images


def draw_toy_image(seed, number, classes):
    """
    Draw one image of a toy set. It depends on these arguments and on nothing else.

    :param seed: of the toy set
    :param number: of the image, from 0
    :param classes: the class names to choose from; image 0 has an object of the first class, image
        1 one of the second, and so on
    :return: PIL image, RGB; and a list of its objects, {"name", "box", "difficult", "truncated"}:
        the box encloses the visible part of the object and is (left, top, right, bottom) in whole
        pixels, right and bottom exclusive; an object is truncated if its whole has a larger box
    """
    rng = np.random.default_rng((seed, number))
    width, height = IMAGE_SIZES[rng.integers(len(IMAGE_SIZES))]
    image = Image.fromarray(draw_background(width, height, rng))
    names = [classes[number % len(classes)], *rng.choice(classes, rng.integers(1, 6)).tolist()]
    # Only the first object may be faint: no other one lies below it and would shine through
    first_is_faint = rng.random() < FAINT_SHARE

    drawn = []  # names of the objects that found a place
    masks = []  # and their pixels
    for name in names:
        side = rng.uniform(*OBJECT_SIDES) * min(width, height)
        tile = draw_object(name, side, rng)
        place = find_place(np.array(tile.getchannel("A")) >= 64, masks, width, height, rng)
        if place is None:
            continue
        left, top, mask = place
        is_faint = first_is_faint and not drawn
        paste(image, tile, (left, top), FAINT_OPACITY if is_faint else 1.0)
        drawn.append(name)
        masks.append(mask)

    objects = [describe_object(name, index, masks) for index, name in enumerate(drawn)]
    if first_is_faint:
        objects[0]["difficult"] = 1
    return image, objects


def paste(image, tile, left_top, opacity):
    """Paste a drawing (RGBA) into an image, in place."""
    alpha = tile.getchannel("A").point(lambda value: value * opacity)
    image.paste(tile, left_top, alpha)


def describe_object(name, index, masks):
    """
    :param name: class of the object
    :param index: of the object among the masks
    :param masks: the pixels of all objects, (height, width) bool each, later ones on top
    :return: {"name", "box", "difficult", "truncated"}, see draw_toy_image
    """
    visible = visible_part(index, masks)
    box = bounding_box(visible)
    covered = 1 - np.count_nonzero(visible) / np.count_nonzero(masks[index])
    return {
        "name": name,
        "box": box,
        "difficult": int(covered > MAX_COVERED),
        "truncated": int(box != bounding_box(masks[index])),
    }


def draw_background(width, height, rng):
    """
    A background in two dull colours: a gradient, stripes, blobs or noise.

    :return: (height, width, 3) uint8
    """
    first = dull_colour(rng)
    second = dull_colour(rng)
    gradient = draw_gradient(width, height, rng)
    kind = rng.integers(4)
    if kind == 0:
        share = gradient
    elif kind == 1:
        share = (np.sin(2 * np.pi * gradient * rng.integers(3, 12)) > 0) * 0.5
    elif kind == 2:
        share = random_greys((6, 8), (width, height), Image.Resampling.BICUBIC, rng) / 255
    else:
        coarse = (height // 3, width // 3)
        noise = random_greys(coarse, (width, height), Image.Resampling.NEAREST, rng)
        share = 0.7 * gradient + 0.3 * noise / 255
    shades = first + np.linspace(0, 1, 256)[:, None] * (second - first)  # (256, 3)
    # take is three times as fast as an index in brackets
    return np.take(shades.astype(np.uint8), (share * 255).astype(np.uint8), axis=0)


def dull_colour(rng):
    """A random colour near grey: (3) float, 0 to 255."""
    return np.clip(rng.uniform(50, 205) + rng.uniform(-30, 30, 3), 0, 255)


def draw_gradient(width, height, rng):
    """Values that rise evenly from 0 to 1 in a random direction: (height, width)."""
    angle = rng.uniform(0, 2 * np.pi)
    from_left = np.cos(angle) * np.arange(width) / width  # (width)
    from_top = np.sin(angle) * np.arange(height)[:, None] / height  # (height, 1)
    lowest = from_left.min() + from_top.min()
    highest = from_left.max() + from_top.max()
    return (from_left + from_top - lowest) / (highest - lowest)


def random_greys(shape, size, resampling, rng):
    """Random bytes on a coarse grid (rows, columns), resized to (width, height)."""
    coarse = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    return np.asarray(coarse.resize(size, resampling))


# ------------------------------------------------------------------------------------ the objects


def draw_object(name, side, rng):
    """
    Draw an object of a class; colour and proportions vary a little, and half of them are mirrored.

    :param name: the class, one of TOY_LABELS
    :param side: length of the longer side, pixels
    :param rng: numpy Generator
    :return: PIL image, RGBA, transparent around the object
    """
    drawing = TOY_DRAWINGS[name]
    aspect_ratio = drawing.aspect_ratio * math.exp(rng.uniform(-0.15, 0.15))
    width = max(8, round(side * min(1, aspect_ratio)))
    height = max(8, round(side * min(1, 1 / aspect_ratio)))
    shades = vary_colour(drawing.colour, rng)

    # Painted at twice the size and then reduced, which smooths the edges; the margin is for the
    # outline
    margin = 2
    inner_size = np.array([width - 2, height - 2]) * 2 - 1
    tile = Image.new("RGBA", (2 * width, 2 * height))
    pen = ImageDraw.Draw(tile)
    for kind, coordinates, colour, *thickness in drawing.parts:
        points = np.reshape(coordinates, (-1, 2)) / 100 * inner_size + margin
        paint(pen, kind, points, shades.get(colour, colour), min(inner_size), *thickness)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return add_outline(tile.reduce(2))


def vary_colour(colour, rng):
    """A random colour close to this one as "main", and two shades of it as "dark" and "light"."""
    main = np.array(colour) * rng.uniform(0.85, 1.15) + rng.uniform(-18, 18, 3)
    main = np.clip(main, 0, 255)
    shades = {"main": main, "dark": 0.65 * main, "light": main + 0.45 * (255 - main)}
    return {name: tuple(shade.astype(int).tolist()) for name, shade in shades.items()}


def paint(pen, kind, points, colour, shorter_side, thickness=0):
    """
    Paint one part of a drawing.

    :param pen: ImageDraw
    :param kind: of the part, see toy_drawings.py
    :param points: (n, 2) in pixels; of a ring, an ellipse and a rectangle two opposite corners
    :param colour: as Pillow takes it
    :param shorter_side: of the drawing, pixels
    :param thickness: of a line or a ring, percentage of the shorter side
    """
    points = [tuple(point) for point in points.tolist()]
    line_width = max(1, round(thickness / 100 * shorter_side))
    if kind == "polygon":
        pen.polygon(points, fill=colour)
    elif kind == "ellipse":
        pen.ellipse(points, fill=colour)
    elif kind == "ring":
        pen.ellipse(points, outline=colour, width=line_width)
    elif kind == "rectangle":
        pen.rounded_rectangle(points, radius=0.05 * shorter_side, fill=colour)
    else:
        pen.line(points, fill=colour, width=line_width, joint="curve")


def add_outline(tile):
    """Draw a dark line around what a transparent image (RGBA) shows."""
    outlined = Image.new("RGBA", tile.size, OUTLINE)
    outlined.putalpha(tile.getchannel("A").filter(ImageFilter.MaxFilter(3)))
    outlined.alpha_composite(tile)
    return outlined


def find_place(shape, masks, width, height, rng):
    """
    Find a random place for a drawing where it does not hide too much of an earlier one, nor share
    too many pixels with it.

    :param shape: (h, w) bool, the pixels of the drawing
    :param masks: the pixels of the earlier drawings, (height, width) bool each
    :param width, height: of the image, pixels
    :param rng: numpy Generator
    :return: left, top, and the pixels of the drawing in the image, (height, width) bool; None if no
        such place was found
    """
    shape_height, shape_width = shape.shape
    for _ in range(PLACE_TRIES):
        left = int(rng.integers(width - shape_width + 1))
        top = int(rng.integers(height - shape_height + 1))
        mask = np.zeros((height, width), dtype=bool)
        mask[top : top + shape_height, left : left + shape_width] = shape
        if is_good_place(mask, masks):
            return left, top, mask
    return None


def is_good_place(mask, earlier_masks):
    """Whether a new drawing lies apart from every earlier one, and leaves enough of it visible."""
    masks = [*earlier_masks, mask]
    for index, earlier in enumerate(earlier_masks):
        # count_nonzero is far faster than sum, and drawing waits for little else
        n_earlier = np.count_nonzero(earlier)
        n_shared = np.count_nonzero(mask & earlier)
        if n_shared > MAX_OVERLAP * min(np.count_nonzero(mask), n_earlier):
            return False
        if np.count_nonzero(visible_part(index, masks)) < MAX_OVERLAP * n_earlier:
            return False
    return True


def visible_part(index, masks):
    """The pixels of a drawing that later ones do not cover: (height, width) bool."""
    visible = masks[index]
    for later in masks[index + 1 :]:
        visible = visible & ~later
    return visible


def bounding_box(mask):
    """The smallest box around a mask: left, top, right, bottom, the last two exclusive."""
    columns = mask.any(axis=0).nonzero()[0]
    rows = mask.any(axis=1).nonzero()[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
