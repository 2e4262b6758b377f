"""Figures of the prediction convolutions: channels, reshaping, and the stack of predictions."""

import torch

from examples import CHANNELS_CLASSES, CHANNELS_TILE
from model import FEATURE_MAPS, PredictionConvolutions
from prior_figures import names_of_priors, split_by_map
from style import CARD, INK, LAYER, MAP_COLOURS, MARK, NORMAL, PREDICTION, QUIET, SMALL, Card, mix
from utils import voc_labels

MAP = "conv9_2"  # the feature map whose channels are shown one by one
OFFSETS = ("g_c_x", "g_c_y", "g_w", "g_h")


def prediction_convolutions():
    """Two 3 x 3 convolutions on each map predict offsets and scores for all priors of all tiles."""
    n_classes = len(voc_labels) + 1
    convolutions = PredictionConvolutions(n_classes)
    card = Card(1440)
    card.text(210, 62, "feature map", NORMAL, INK, bold=True)
    card.text(690, 62, "loc: offsets", NORMAL, PREDICTION, bold=True)
    card.text(1015, 62, "cl: scores", NORMAL, QUIET, bold=True)
    card.text(210, 112, "k priors a tile", SMALL, QUIET)
    card.text(690, 112, "k × 4 channels", SMALL, QUIET)
    card.text(1015, 112, f"k × {n_classes} channels", SMALL, QUIET)
    for row, name in enumerate(FEATURE_MAPS):
        draw_convolutions_of_map(card, 290 + 196 * row, name, convolutions)
    classes = f"n_classes = {n_classes}: {n_classes - 1} classes and background"
    card.text(600, 1400, f"all kernels 3 × 3; {classes}", SMALL, QUIET)
    return card.image()


def draw_convolutions_of_map(card, y, name, convolutions):
    """
    Draw a feature map and what its two convolutions give, side by side.

    :param y: of their middle
    :param name: of the map
    :param convolutions: PredictionConvolutions
    """
    feature_map = FEATURE_MAPS[name]
    side = feature_map.side
    colour = MAP_COLOURS[name]
    size = 24 + 92 * (side / 38) ** 0.6  # a compromise: the smallest map must remain visible
    card.block(70, y - size / 2, size, size, 10 + feature_map.channels / 24, colour)
    card.text(224, y - 24, name, NORMAL, colour, "left", bold=True)
    card.text(545, y - 52, f"k = {len(feature_map.aspect_ratios) + 1}", SMALL, INK)
    card.text(224, y + 28, f"{side} × {side} × {feature_map.channels}", SMALL, INK, "left")
    for x, kind, shade in ((730, "loc", PREDICTION), (1055, "cl", LAYER)):
        channels = getattr(convolutions, f"{kind}_{name}").out_channels
        card.block(x - 92, y - size / 2 - 26, size, size, 6 + channels / 4, shade)
        card.text(x - 40, y + size / 2 + 8, f"{side} × {side} × {channels}", SMALL, INK)
    card.arrow((500, y - 10), (590, y - 10), INK)


@torch.no_grad()
def channels_of_predictions(n_classes):
    """
    Find the channel that each predicted value of conv9_2 comes from: without weights, and with
    biases that count its channels, a convolution predicts the numbers of its channels.

    :return: (side, side, priors on a tile, 4) of the offsets, and (..., n_classes) of the scores
    """
    convolutions = PredictionConvolutions(n_classes)
    for layer in (getattr(convolutions, f"loc_{MAP}"), getattr(convolutions, f"cl_{MAP}")):
        layer.weight.zero_()
        layer.bias.copy_(torch.arange(layer.out_channels))
    empty_maps = [torch.zeros(1, fm.channels, fm.side, fm.side) for fm in FEATURE_MAPS.values()]
    locs, scores = convolutions(*empty_maps)
    return split_by_map(locs[0])[MAP].int(), split_by_map(scores[0])[MAP].int()


def open_channels(values, convolution, channels, width):
    """
    The channels of one tile of a map in a table with a row for each prior.

    :param values: names of a prior's values
    :param convolution: its name in PredictionConvolutions
    :param channels: of each value on the tile: (priors on a tile, number of values)
    :param width: of a column
    """
    side = FEATURE_MAPS[MAP].side
    names = names_of_priors(MAP)
    colour = MAP_COLOURS[MAP]
    n_channels = channels.numel()
    n_values = len(values)

    card = Card(890)
    card.text(44, 66, convolution, NORMAL, colour, "left", bold=True)
    card.text(44, 116, f"{side} × {side} × {n_channels} channels", SMALL, INK, "left")
    card.block(56, 330, 300, 300, 120, colour)
    grid = card.grid(56, 330, 300, side, mix(colour, INK, 0.45), layer=4)
    grid.cell(*CHANNELS_TILE, side, MARK, layer=4)
    tile_centre = grid.cell_centre(*CHANNELS_TILE, side)
    card.dot(*tile_centre, INK, 10)
    card.arrow(tile_centre, (490, 505), INK, 6)
    card.text(206, 690, "one tile", NORMAL, INK)
    card.text(206, 740, f"{len(names)} priors × {n_values}", NORMAL, INK)
    card.text(206, 790, f"= {n_channels} channels", NORMAL, INK)

    rows = [["prior", *values]]
    for name, of_prior in zip(names, channels.tolist(), strict=True):
        rows.append([name, *map(str, of_prior)])
    looks = {(i, 0): {"bold": True, "fill": mix(colour, share=0.8)} for i in range(1, len(rows))}
    card.table(500, 170, rows, (150, *[width] * n_values), 86, looks)
    card.text(500 + (150 + width * n_values) / 2, 820, "number of the channel", SMALL, QUIET)
    return card.image()


def loc_channels():
    """The 24 channels of loc_conv9_2 on one tile."""
    locs, _ = channels_of_predictions(len(CHANNELS_CLASSES))
    return open_channels(OFFSETS, f"loc_{MAP}", locs[CHANNELS_TILE], 126)


def class_channels():
    """The channels of cl_conv9_2 on one tile, with few classes."""
    _, scores = channels_of_predictions(len(CHANNELS_CLASSES))
    return open_channels(CHANNELS_CLASSES, f"cl_{MAP}", scores[CHANNELS_TILE], 164)


# How pale the first two tiles are in the figure of the reshaping; the others are white
TILE_SHARES = {0: 0.4, 1: 0.7}


def reshape():
    """(N, 24, 5, 5) becomes (N, 150, 4): a row for each prior, in the order of the priors."""
    side = FEATURE_MAPS[MAP].side
    colour = MAP_COLOURS[MAP]
    locs, _ = channels_of_predictions(len(CHANNELS_CLASSES))
    rows = locs.flatten(0, 2).tolist()  # (150, 4)
    n_channels = 4 * len(names_of_priors(MAP))
    card = Card(1170)
    look = {"colour": INK, "align": "left", "bold": True, "mono": True}
    card.text(52, 60, f"(N, {n_channels}, {side}, {side})", NORMAL, **look)
    card.text(52, 420, f"(N, {side}, {side}, {n_channels})", NORMAL, **look)
    card.text(500, 60, f"(N, {len(rows)}, 4)", NORMAL, **look)
    card.block(70, 160, 170, 170, 130, colour)
    card.grid(70, 160, 170, side, mix(colour, INK, 0.45), layer=4)
    card.text(200, 372, "permute", SMALL, QUIET, "left")
    card.text(225, 830, "reshape:", SMALL, QUIET)
    card.arrow((150, 348), (150, 396), INK, 6)
    draw_channels_last(card, 70, 480, side, colour)
    card.text(225, 878, "row by row,", SMALL, QUIET)
    card.text(225, 926, "prior by prior", SMALL, QUIET)
    card.arrow((405, 620), (478, 620), INK, 6)
    draw_reshaped(card, rows, colour)
    return card.image()


def draw_channels_last(card, x, y, side, colour):
    """
    Draw a feature map whose channels come last: each tile holds its values in a row.

    :param x, y: its upper left corner
    """
    for row in range(side):
        for column in range(side):
            left = x + 62 * column
            top = y + 56 * row
            share = TILE_SHARES.get(row * side + column)
            fill = CARD if share is None else mix(colour, share=share)
            card.rectangle(left, top, 62, 56, fill, INK, 2)
            for k in range(1, 4):
                at = left + 15.5 * k
                card.line([(at, top + 8), (at, top + 48)], mix(INK, share=0.5), 1.5)


def draw_reshaped(card, rows, colour):
    """
    Draw the first rows and the last one of the reshaped predictions.

    :param rows: the channels that each prior's values come from
    """
    names = names_of_priors(MAP)
    side = FEATURE_MAPS[MAP].side
    cells = [["row", "tile", "prior", "channels"]]
    looks = {}
    for number in (*range(8), len(rows) - 1):
        if number == len(rows) - 1:
            cells.append(["…", "…", "…", "…"])
        tile, prior = divmod(number, len(names))
        first, *_, last = rows[number]
        place = f"{tile // side}, {tile % side}"
        cells.append([str(number), place, names[prior], f"{first} to {last}"])
        if tile in TILE_SHARES:
            look = {"fill": mix(colour, share=TILE_SHARES[tile])}
            looks |= {(len(cells) - 1, k): look for k in range(4)}
    card.table(500, 130, cells, (120, 140, 160, 230), 88, looks)


def stack_to_8732():
    """The predictions of all maps one below the other, in the order of the priors."""
    card = Card(1240)
    counts = {name: fm.side**2 * (len(fm.aspect_ratios) + 1) for name, fm in FEATURE_MAPS.items()}
    card.text(785, 70, "locs", NORMAL, INK, bold=True)
    card.text(1030, 70, "scores", NORMAL, INK, bold=True)
    y = 110
    for name, count in counts.items():
        side = FEATURE_MAPS[name].side
        height = 60 + 270 * (count / counts["conv4_3"]) ** 0.5
        colour = MAP_COLOURS[name]
        middle = y + height / 2
        card.text(52, middle, name, NORMAL, colour, "left", bold=True)
        product = f"{side} × {side} × {count // side**2} = {count}"
        card.text(630, middle, product, NORMAL, INK, "right")
        for x, width in ((715, 140), (940, 180)):
            card.rectangle(x, y, width, height, mix(colour, share=0.35), mix(colour, INK, 0.45), 3)
        y += height
    total = sum(counts.values())
    card.line([(400, y + 28), (630, y + 28)], INK, 4)
    card.text(630, y + 76, f"{total} predictions", NORMAL, INK, "right", bold=True)
    card.text(785, y + 40, f"{total} × 4", SMALL, INK)
    card.text(1030, y + 40, f"{total} × n_classes", SMALL, INK)
    card.text(908, y + 96, "heights not to scale", SMALL, QUIET)
    return card.image()


FIGURES = {
    "prediction_convolutions.png": prediction_convolutions,
    "loc_channels.png": loc_channels,
    "class_channels.png": class_channels,
    "reshape.png": reshape,
    "stack_to_8732.png": stack_to_8732,
}
