"""Figures of priors: where they stand, how large they are, and the offsets of a box from its prior."""

import torch

from examples import OFFSETS_BOX, OFFSETS_PRIOR
from model import FEATURE_MAPS, SSD300, match_priors
from scene import draw_scene
from style import (
    CARD,
    CLASS_COLOURS,
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
)
from utils import cxcy_to_gcxgcy, cxcy_to_xy

RATIO_NAMES = {1.0: "1:1", 2.0: "2:1", 3.0: "3:1", 1 / 2: "1:2", 1 / 3: "1:3"}
SHOWN_MAP = "conv9_2"  # its 5 x 5 tiles are few enough to show, many enough to be a map


def split_by_map(values):
    """
    What belongs to the priors, map by map and tile by tile.

    :param values: (8732, ...), in the order of the priors
    :return: {name of the map: (side, side, priors on a tile, ...)}
    """
    shapes = [(fm.side, fm.side, len(fm.aspect_ratios) + 1) for fm in FEATURE_MAPS.values()]
    parts = values.split([rows * columns * n_priors for rows, columns, n_priors in shapes])
    return {
        name: part.unflatten(0, shape)
        for name, part, shape in zip(FEATURE_MAPS, parts, shapes, strict=True)
    }


def priors_of_map(name):
    """The priors of one feature map: (side, side, priors on a tile, 4), fractional cxcy."""
    return split_by_map(SSD300.create_prior_boxes())[name]


def names_of_priors(name):
    """What the priors on a tile of a feature map are called, in their order: 1:1, extra, 2:1 ..."""
    names = [RATIO_NAMES[ratio] for ratio in FEATURE_MAPS[name].aspect_ratios]
    return [names[0], "extra", *names[1:]]


def pale_scene(share=0.55):
    """The scene with its colours made paler, so that boxes on it stand out."""
    image, boxes, names = draw_scene()
    white = tuple(round(255 * value) for value in mix(CARD, share=0))
    blended = image.point(
        [
            round((1 - share) * value + share * white[i // 256])
            for i, value in enumerate([*range(256)] * 3)
        ]
    )
    return blended, boxes, names


def feature_maps():
    """The grids of the six maps over the scene, and the tiles whose priors are matched with each object."""
    image, boxes, names = pale_scene()
    priors_xy = cxcy_to_xy(SSD300.create_prior_boxes())
    object_for_each_prior, positive = match_priors(
        boxes[None], torch.ones(1, len(boxes), dtype=torch.bool), priors_xy, 0.5
    )
    owner = torch.where(positive, object_for_each_prior, -1)[0]  # (8732)
    card = Card(2050)
    for i, (name, owners) in enumerate(split_by_map(owner).items()):
        x, y = 44 + 566 * (i % 2), 110 + 640 * (i // 2)
        side = FEATURE_MAPS[name].side
        card.text(
            x + 273, y - 45, f"{name}   {side} × {side}", NORMAL, MAP_COLOURS[name], bold=True
        )
        place = card.picture(image, x, y, 546)
        for row, column in (owners >= 0).any(dim=2).nonzero().tolist():
            number = owners[row, column].max()
            place.cell(row, column, side, CLASS_COLOURS[names[number]], alpha=0.75)
        card.grid(x, y, 546, side, MAP_COLOURS[name], 1.2 if side > 20 else 2.2)
        if (owners < 0).all():
            card.text(x + 273, y + 250, "for larger objects", NORMAL, background=CARD)
        for number in sorted(set(owners[owners >= 0].tolist())):
            place.box(boxes[number], CLASS_COLOURS[names[number]], line=6)
    card.text(600, 2000, "filled: tiles with a prior for the object in the box", NORMAL, QUIET)
    return card.image()


def priors_on_a_tile():
    """The six priors of the centre tile of conv9_2."""
    image, _, _ = pale_scene(0.6)
    side = FEATURE_MAPS[SHOWN_MAP].side
    priors = priors_of_map(SHOWN_MAP)[side // 2, side // 2]
    card = Card(1450)
    place = card.picture(image, 165, 60, 870)
    card.grid(165, 60, 870, side, mix(MAP_COLOURS[SHOWN_MAP], share=0.4), 2)
    place.cell(side // 2, side // 2, side, MAP_COLOURS[SHOWN_MAP], alpha=0.65)
    rows = [["prior", *names_of_priors(SHOWN_MAP)], ["w"], ["h"]]
    anchors = (
        (0.02, 0.98),
        (0.98, 0.02),
        (0.98, 0.5),
        (0.98, 0.5),
        (0.5, 0.02),
        (0.5, 0.02),
    )  # of the labels, in the box
    for name, prior, anchor in zip(names_of_priors(SHOWN_MAP), priors, anchors, strict=True):
        box = cxcy_to_xy(prior)
        place.box(box, PRIOR, line=6, dashed=name == "extra")
        card.text(*place.on_box(box, *anchor), name, SMALL, "white", background=PRIOR, bold=True)
        rows[1].append(f"{prior[2]:.2f}")
        rows[2].append(f"{prior[3]:.2f}")
    card.dot(*place.cell_centre(side // 2, side // 2, side), INK, 12)
    card.text(
        600, 1000, f"the centre tile of {SHOWN_MAP}", NORMAL, MAP_COLOURS[SHOWN_MAP], bold=True
    )
    card.table(60, 1070, rows, (150, *[155] * 6), 84)
    card.text(600, 1400, "w, h: fractions of the image's sides", NORMAL, QUIET)
    return card.image()


def priors_on_other_tiles():
    """The priors of four tiles of conv9_2; those near the border stick out of the image."""
    image, _, _ = pale_scene(0.6)
    side = FEATURE_MAPS[SHOWN_MAP].side
    priors = priors_of_map(SHOWN_MAP)
    card = Card(1330)
    for i, (row, column) in enumerate(((0, 0), (1, 3), (3, 1), (4, 4))):
        x, y = 190 + 450 * (i % 2), 200 + 480 * (i // 2)
        place = card.picture(image, x, y, 370)
        card.grid(x, y, 370, side, mix(MAP_COLOURS[SHOWN_MAP], share=0.4), 2)
        place.cell(row, column, side, MAP_COLOURS[SHOWN_MAP], alpha=0.75)
        for name, prior in zip(names_of_priors(SHOWN_MAP), priors[row, column], strict=True):
            place.box(cxcy_to_xy(prior), PRIOR, line=5, dashed=name == "extra", halo=False)
        card.dot(*place.cell_centre(row, column, side), INK, 9)
    card.text(600, 1265, "the same six shapes on every tile; they may stick out", NORMAL, QUIET)
    return card.image()


def priors_of_each_map():
    """The priors of one tile of each of the six maps, and their scales."""
    image, _, _ = pale_scene(0.6)
    card = Card(2240)
    for i, (name, feature_map) in enumerate(FEATURE_MAPS.items()):
        x, y = 74 + 566 * (i % 2), 155 + 715 * (i // 2)
        side = feature_map.side
        middle = side // 2
        priors = priors_of_map(name)[middle, middle]
        card.text(
            x + 243, y - 60, f"{name}   {side} × {side}", NORMAL, MAP_COLOURS[name], bold=True
        )
        place = card.picture(image, x, y, 486)
        card.grid(x, y, 486, side, mix(MAP_COLOURS[name], share=0.45), 1 if side > 20 else 2)
        place.cell(middle, middle, side, MAP_COLOURS[name], alpha=0.7 if side > 3 else 0.3)
        for prior_name, prior in zip(names_of_priors(name), priors, strict=True):
            place.box(cxcy_to_xy(prior), PRIOR, line=5, dashed=prior_name == "extra", halo=False)
        scale, extra = priors[0, 2].item(), priors[1, 2].item()
        card.text(x + 243, y + 535, f"{len(priors)} priors, scale {scale:.3g}", NORMAL)
        card.text(x + 243, y + 585, f"extra one {extra:.2f}", SMALL, QUIET)
    return card.image()


def prior_sizes():
    """Priors of one scale and different aspect ratios have equal areas."""
    scale = FEATURE_MAPS[SHOWN_MAP].scale
    priors = dict(zip(names_of_priors(SHOWN_MAP), priors_of_map(SHOWN_MAP)[0, 0], strict=True))
    card = Card(1270)
    card.text(600, 80, "w · h = s²   and   w / h = a", LARGE, bold=True)
    card.text(600, 160, "so   w = s · √a   and   h = s / √a", LARGE, bold=True)
    card.text(600, 240, f"{SHOWN_MAP}:  s = {scale}", NORMAL, MAP_COLOURS[SHOWN_MAP], bold=True)
    middles = {
        "1:1": (170, 470),
        "2:1": (508, 470),
        "3:1": (930, 470),
        "1:2": (140, 950),
        "1:3": (330, 950),
    }
    unit = 440
    for name, (x, y) in middles.items():
        width, height = priors[name][2].item(), priors[name][3].item()
        left, top = x - width * unit / 2, y - height * unit / 2
        card.rectangle(
            left, top, width * unit, height * unit, fill=mix(PRIOR, share=0.75), edge=PRIOR, line=6
        )
        card.text(x, y, name, NORMAL, bold=True)
    rows = [["a", "w", "h", "w · h"]]
    for name in middles:
        width, height = priors[name][2:].tolist()
        rows.append([name, f"{width:.3f}", f"{height:.3f}", f"{width * height:.4f}"])
    card.table(480, 700, rows, (120, 165, 165, 200), 82)
    return card.image()


def offsets():
    """A box, the prior that has to predict it, and the four offsets between them."""
    image, _, _ = pale_scene(0.4)
    name, row, column, number = OFFSETS_PRIOR
    prior, box = priors_of_map(name)[row, column, number], torch.tensor(OFFSETS_BOX)
    offset = cxcy_to_gcxgcy(box[None], prior[None])[0].tolist()
    card = Card(1220)
    place = card.picture(image, 44, 60, 640)
    place.box(cxcy_to_xy(prior), PRIOR)
    place.box(cxcy_to_xy(box), OBJECT)
    card.dot(*place.at(*prior[:2]), PRIOR, 13)
    card.dot(*place.at(*box[:2]), OBJECT, 13)
    rows = [["", "box", "prior"]]
    looks = {(0, 1): {"colour": OBJECT, "bold": True}, (0, 2): {"colour": PRIOR, "bold": True}}
    for i, coordinate in enumerate(("c_x", "c_y", "w", "h")):
        rows.append([coordinate, f"{box[i]:.4g}", f"{prior[i]:.4g}"])
    card.table(716, 130, rows, (110, 155, 175), 96, looks)
    for i, coordinate in enumerate(("c_x", "c_y", "w", "h")):
        y = 790 + 110 * i
        (_, of_box, of_prior), size = rows[i + 1], rows[3 + i % 2][2]
        card.text(70, y, f"g_{coordinate}", NORMAL, PREDICTION, "left", bold=True)
        if i < 2:
            words = [
                ("= (", INK),
                (of_box, OBJECT),
                ("−", INK),
                (of_prior, PRIOR),
                (") / (", INK),
                (size, PRIOR),
                ("/ 10)", INK),
            ]
        else:
            words = [
                ("= ln (", INK),
                (of_box, OBJECT),
                ("/", INK),
                (of_prior, PRIOR),
                (") · 5", INK),
            ]
        card.words(250, y, words)
        card.text(960, y, "=", NORMAL)
        card.text(1140, y, number_text(offset[i], 2), NORMAL, PREDICTION, "right", bold=True)
    return card.image()


FIGURES = {
    "feature_maps.png": feature_maps,
    "priors_on_a_tile.png": priors_on_a_tile,
    "priors_on_other_tiles.png": priors_on_other_tiles,
    "priors_of_each_map.png": priors_of_each_map,
    "prior_sizes.png": prior_sizes,
    "offsets.png": offsets,
}
