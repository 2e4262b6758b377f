"""Figures of priors: where and how large they are, and the offsets of a box from its prior."""

import math

import torch

from examples import OFFSETS_BOX, OFFSETS_PRIOR
from model import FEATURE_MAPS, SSD300, match_priors
from scene import draw_scene
from style import (
    CARD,
    CLASS_COLOURS,
    FAINT,
    INK,
    LARGE,
    MAP_COLOURS,
    NORMAL,
    OBJECT,
    PREDICTION,
    PRIOR,
    QUIET,
    SMALL,
    Card,
    mix,
    number_text,
    short,
)
from utils import cxcy_to_gcxgcy, cxcy_to_xy

RATIO_NAMES = {1.0: "1:1", 2.0: "2:1", 3.0: "3:1", 1 / 2: "1:2", 1 / 3: "1:3"}
# Squares, wide and tall ones: a family of colours each
PRIOR_COLOURS = {
    "1:1": PRIOR,
    "extra": "#8f4e00",
    "2:1": "#1c7ed6",
    "3:1": "#12458a",
    "1:2": "#ae3ec9",
    "1:3": "#701a8a",
}
SHOWN_MAP = "conv9_2"  # its 5 x 5 tiles are few enough to show one by one


def split_by_map(values):
    """
    Split values that belong to the priors by feature map and tile.

    :param values: (8732, ...), in the order of the priors
    :return: {name of the map: (side, side, priors on a tile, ...)}
    """
    shapes = [(fm.side, fm.side, len(fm.aspect_ratios) + 1) for fm in FEATURE_MAPS.values()]
    parts = values.split([math.prod(shape) for shape in shapes])
    named = zip(FEATURE_MAPS, parts, shapes, strict=True)
    return {name: part.unflatten(0, shape) for name, part, shape in named}


def priors_of_map(name):
    """The priors of one feature map: (side, side, priors on a tile, 4), fractional cxcy."""
    return split_by_map(SSD300.create_prior_boxes())[name]


def names_of_priors(name):
    """The names of the priors on a tile of a feature map, in order: 1:1, extra, 2:1 ..."""
    names = [RATIO_NAMES[ratio] for ratio in FEATURE_MAPS[name].aspect_ratios]
    return [names[0], "extra", *names[1:]]


def pale_scene(share=0.55):
    """
    The scene in pale colours, so that boxes on it stand out.

    :param share: of the card's colour that is mixed in
    :return: as draw_scene
    """
    image, boxes, names = draw_scene()
    table = []  # for each band, what its values 0 to 255 become
    for ground in mix(CARD, share=0):
        mixed_in = share * round(255 * ground)
        table += [round((1 - share) * value + mixed_in) for value in range(256)]
    return image.point(table), boxes, names


def owners_of_priors(boxes):
    """
    The object that each prior is matched with.

    :param boxes: (n, 4), fractional xy
    :return: (8732,), number of the object; -1 for negative priors
    """
    is_object = torch.ones(1, len(boxes), dtype=torch.bool)
    priors_xy = cxcy_to_xy(SSD300.create_prior_boxes())
    object_for_each_prior, positive = match_priors(boxes[None], is_object, priors_xy, 0.5)
    return torch.where(positive, object_for_each_prior, -1)[0]


def feature_maps():
    """The grids of the six maps over the scene, with the tiles whose priors match an object."""
    image, boxes, names = pale_scene(0.7)
    card = Card(2230)
    for i, (name, owners) in enumerate(split_by_map(owners_of_priors(boxes)).items()):
        x = 44 + 566 * (i % 2)
        y = 110 + 700 * (i // 2)
        side = FEATURE_MAPS[name].side
        heading = f"{name}   {side} × {side}"
        card.text(x + 273, y - 45, heading, NORMAL, MAP_COLOURS[name], bold=True)
        place = card.show(image, x, y, 546)
        draw_owners(place, owners, boxes, names)
        card.grid(x, y, 546, side, mix(MAP_COLOURS[name], share=0.4), 1.2 if side > 10 else 2.2)
        if (owners < 0).all():
            middle = side // 2
            prior = priors_of_map(name)[middle, middle, 0]
            place.box(cxcy_to_xy(prior), PRIOR, dashed=True)
            caption = [("its priors fit none", PRIOR)]
        else:
            caption = words_of_owners(owners, names)
        card.centred_words(x + 273, y + 586, caption)
    note = "filled: tiles with a prior for the object in the box"
    card.text(600, 2180, note, NORMAL, QUIET)
    return card.image()


def draw_owners(place, owners, boxes, names):
    """
    Fill the tiles of a map that have positive priors, and draw the boxes of their objects.

    :param place: of the image
    :param owners: (side, side, priors on a tile), number of each prior's object; -1 for none
    :param boxes: (n, 4), fractional xy
    :param names: of the objects' classes
    """
    for row, column in (owners >= 0).any(dim=2).nonzero().tolist():
        number = owners[row, column].max()
        place.cell(row, column, len(owners), CLASS_COLOURS[names[number]], alpha=0.85)
    for number in sorted(set(owners[owners >= 0].tolist())):
        place.box(boxes[number], CLASS_COLOURS[names[number]], line=6)


def words_of_owners(owners, names):
    """
    The objects that have priors on a map, and how many, as Card.words takes it.

    :param owners, names: as for draw_owners
    """
    numbers, counts = owners[owners >= 0].unique(return_counts=True)
    words = []
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        comma = "," if len(words) + 1 < len(numbers) else ""
        name = names[number]
        words.append((f"{short(name)} {count}{comma}", CLASS_COLOURS[name]))
    return [*words, ("priors", QUIET)]


# Where the label of each prior on a tile stands, as fractions of the prior's width and height
LABELS = ((0.02, 0.98), (0.98, 0.02), (0.98, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.02))


def priors_on_a_tile():
    """The six priors of the centre tile of conv9_2, together and one by one."""
    image, _, _ = pale_scene(0.7)
    colour = MAP_COLOURS[SHOWN_MAP]
    side = FEATURE_MAPS[SHOWN_MAP].side
    middle = side // 2
    names = names_of_priors(SHOWN_MAP)
    priors = priors_of_map(SHOWN_MAP)[middle, middle]
    card = Card(1480)
    title = f"the centre tile of {SHOWN_MAP} and its {len(names)} priors"
    card.text(600, 70, title, NORMAL, colour, bold=True)
    place = card.show(image, 165, 125, 870)
    card.grid(165, 125, 870, side, mix(colour, share=0.4), 2)
    place.cell(middle, middle, side, colour, alpha=0.65)
    for name, prior, label in zip(names, priors, LABELS, strict=True):
        box = cxcy_to_xy(prior)
        look = {"background": PRIOR_COLOURS[name], "bold": True}
        place.box(box, PRIOR_COLOURS[name], line=7, dashed=name == "extra")
        card.text(*place.on_box(box, *label), name, SMALL, "white", **look)
    card.dot(*place.cell_centre(middle, middle, side), INK, 12)
    for number, (name, prior) in enumerate(zip(names, priors, strict=True)):
        x = 52 + 187 * number
        draw_prior(card, x, 1050, 160, (middle, middle), number)
        card.text(x + 80, 1248, name, NORMAL, PRIOR_COLOURS[name], bold=True)
        card.text(x + 80, 1302, f"w {prior[2].item():.2f}", SMALL)
        card.text(x + 80, 1350, f"h {prior[3].item():.2f}", SMALL)
    card.text(600, 1420, "w, h: fractions of the image's sides", NORMAL, QUIET)
    return card.image()


def draw_prior(card, x, y, size, tile, number):
    """
    Draw one prior of a tile of conv9_2 on the grid of that map.

    :param x, y: of the grid's upper left corner
    :param size: of the grid, pixels
    :param tile: (row, column)
    :param number: of the prior on the tile
    """
    side = FEATURE_MAPS[SHOWN_MAP].side
    name = names_of_priors(SHOWN_MAP)[number]
    place = card.grid(x, y, size, side, FAINT, 1.5, fill="white")
    place.cell(*tile, side, MAP_COLOURS[SHOWN_MAP], alpha=0.65)
    prior = cxcy_to_xy(priors_of_map(SHOWN_MAP)[tile][number])
    place.box(prior, PRIOR_COLOURS[name], line=6, dashed=name == "extra", halo=False)


def priors_on_other_tiles():
    """The priors on four tiles of conv9_2; near the border, they extend beyond the image."""
    image, _, _ = pale_scene(0.6)
    side = FEATURE_MAPS[SHOWN_MAP].side
    priors = priors_of_map(SHOWN_MAP)
    card = Card(1330)
    for i, (row, column) in enumerate(((0, 0), (1, 3), (3, 1), (4, 4))):
        x = 190 + 450 * (i % 2)
        y = 200 + 480 * (i // 2)
        place = card.show(image, x, y, 370)
        card.grid(x, y, 370, side, mix(MAP_COLOURS[SHOWN_MAP], share=0.4), 2)
        place.cell(row, column, side, MAP_COLOURS[SHOWN_MAP], alpha=0.75)
        for name, prior in zip(names_of_priors(SHOWN_MAP), priors[row, column], strict=True):
            place.box(cxcy_to_xy(prior), PRIOR, line=5, dashed=name == "extra", halo=False)
        card.dot(*place.cell_centre(row, column, side), INK, 9)
    card.text(600, 1265, "the same six shapes on every tile; they may stick out", NORMAL, QUIET)
    return card.image()


def priors_of_each_map():
    """The priors on one tile of each of the six maps, and their scales."""
    image, _, _ = pale_scene(0.6)
    card = Card(2240)
    for i, (name, feature_map) in enumerate(FEATURE_MAPS.items()):
        x = 74 + 566 * (i % 2)
        y = 155 + 715 * (i // 2)
        side = feature_map.side
        middle = side // 2
        priors = priors_of_map(name)[middle, middle]
        heading = f"{name}   {side} × {side}"
        card.text(x + 243, y - 60, heading, NORMAL, MAP_COLOURS[name], bold=True)
        place = card.show(image, x, y, 486)
        card.grid(x, y, 486, side, mix(MAP_COLOURS[name], share=0.45), 1 if side > 20 else 2)
        place.cell(middle, middle, side, MAP_COLOURS[name], alpha=0.7 if side > 3 else 0.3)
        for prior_name, prior in zip(names_of_priors(name), priors, strict=True):
            place.box(cxcy_to_xy(prior), PRIOR, line=5, dashed=prior_name == "extra", halo=False)
        scale = priors[0, 2].item()
        extra_scale = priors[1, 2].item()
        card.text(x + 243, y + 535, f"{len(priors)} priors, scale {scale:.3g}", NORMAL)
        card.text(x + 243, y + 585, f"extra one {extra_scale:.2f}", SMALL, QUIET)
    return card.image()


# Where the middle of each prior stands in the figure of their sizes, pixels of the card
MIDDLES = {
    "1:1": (170, 470),
    "2:1": (508, 470),
    "3:1": (930, 470),
    "1:2": (140, 950),
    "1:3": (330, 950),
}


def prior_sizes():
    """Priors of one scale have equal areas, whatever their aspect ratios."""
    scale = FEATURE_MAPS[SHOWN_MAP].scale
    priors = dict(zip(names_of_priors(SHOWN_MAP), priors_of_map(SHOWN_MAP)[0, 0], strict=True))
    card = Card(1270)
    card.text(600, 80, "w · h = s²   and   w / h = a", LARGE, bold=True)
    card.text(600, 160, "so   w = s · √a   and   h = s / √a", LARGE, bold=True)
    card.text(600, 240, f"{SHOWN_MAP}:  s = {scale}", NORMAL, MAP_COLOURS[SHOWN_MAP], bold=True)
    rows = [["a", "w", "h", "w · h"]]
    for name, (x, y) in MIDDLES.items():
        width, height = priors[name][2:].tolist()
        area = (x - width * 440 / 2, y - height * 440 / 2, width * 440, height * 440)
        card.rectangle(*area, fill=mix(PRIOR, share=0.75), edge=PRIOR, line=6)
        card.text(x, y, name, NORMAL, bold=True)
        rows.append([name, f"{width:.3f}", f"{height:.3f}", f"{width * height:.4f}"])
    card.table(480, 700, rows, (120, 165, 165, 200), 82)
    return card.image()


def offsets():
    """A box, the prior that has to predict it, and the four offsets between them."""
    image, _, _ = pale_scene(0.4)
    map_name, row, column, number = OFFSETS_PRIOR
    prior = priors_of_map(map_name)[row, column, number]
    box = torch.tensor(OFFSETS_BOX)
    offset = cxcy_to_gcxgcy(box[None], prior[None])[0].tolist()
    card = Card(1220)
    place = card.show(image, 44, 60, 640)
    place.box(cxcy_to_xy(prior), PRIOR)
    place.box(cxcy_to_xy(box), OBJECT)
    card.dot(*place.at(*prior[:2]), PRIOR, 13)
    card.dot(*place.at(*box[:2]), OBJECT, 13)
    names = ("c_x", "c_y", "w", "h")
    of_box = [f"{value:.4g}" for value in box.tolist()]
    of_prior = [f"{value:.4g}" for value in prior.tolist()]
    rows = [["", "box", "prior"], *map(list, zip(names, of_box, of_prior, strict=True))]
    looks = {(0, 1): {"colour": OBJECT, "bold": True}, (0, 2): {"colour": PRIOR, "bold": True}}
    card.table(716, 130, rows, (110, 155, 175), 96, looks)
    for i, name in enumerate(names):
        y = 790 + 110 * i
        card.text(70, y, f"g_{name}", NORMAL, PREDICTION, "left", bold=True)
        if name in ("c_x", "c_y"):
            size = of_prior[i + 2]
            card.words(250, y, words_of_centre_offset(of_box[i], of_prior[i], size))
        else:
            card.words(250, y, words_of_size_offset(of_box[i], of_prior[i]))
        card.text(960, y, "=", NORMAL)
        card.text(1140, y, number_text(offset[i], 2), NORMAL, PREDICTION, "right", bold=True)
    return card.image()


def words_of_centre_offset(box_centre, prior_centre, prior_size):
    """How the offset of a centre is computed, as Card.words takes it."""
    return [
        ("= (", INK),
        (box_centre, OBJECT),
        ("−", INK),
        (prior_centre, PRIOR),
        (") / (", INK),
        (prior_size, PRIOR),
        ("/ 10)", INK),
    ]


def words_of_size_offset(box_size, prior_size):
    """How the offset of a width or a height is computed, as Card.words takes it."""
    return [
        ("= ln (", INK),
        (box_size, OBJECT),
        ("/", INK),
        (prior_size, PRIOR),
        (") · 5", INK),
    ]


FIGURES = {
    "feature_maps.png": feature_maps,
    "priors_on_a_tile.png": priors_on_a_tile,
    "priors_on_other_tiles.png": priors_on_other_tiles,
    "priors_of_each_map.png": priors_of_each_map,
    "prior_sizes.png": prior_sizes,
    "offsets.png": offsets,
}
