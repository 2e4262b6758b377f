"""Figures of the prediction convolutions: channels, reshaping, and the stack of predictions."""

import torch

from examples import CHANNELS_CLASSES, CHANNELS_TILE
from model import FEATURE_MAPS, PredictionConvolutions
from prior_figures import PRIOR_COLOURS, draw_prior, names_of_priors, split_by_map
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


Y_OF_RODS = 130  # upper edge of the channels
ROD_HEIGHT = 160  # pixels, of the channels of one prior
ROD_GAP = 20  # between the channels of two priors


def open_channels(values, convolution, channels):
    """
    The channels of one tile of a map, one below the other, wired to the priors of the tile.

    :param values: names of a prior's values
    :param convolution: its name in PredictionConvolutions
    :param channels: of each value on the tile: (priors on a tile, number of values)
    """
    side = FEATURE_MAPS[MAP].side
    names = names_of_priors(MAP)
    colour = MAP_COLOURS[MAP]
    height = len(names) * (ROD_HEIGHT + ROD_GAP) - ROD_GAP
    middle = Y_OF_RODS + height / 2
    card = Card(Y_OF_RODS + height + 60)
    card.text(44, 66, convolution, NORMAL, colour, "left", bold=True)
    card.text(560, 66, "channels", NORMAL, bold=True)
    card.text(990, 66, "their prior", NORMAL, bold=True)
    card.block(44, middle - 110, 220, 220, 0.8 * channels.numel() + 40, colour)
    grid = card.grid(44, middle - 110, 220, side, mix(colour, INK, 0.45), layer=4)
    grid.cell(*CHANNELS_TILE, side, MARK, layer=4)
    tile = grid.cell_centre(*CHANNELS_TILE, side)
    card.dot(*tile, INK, 10)
    card.text(154, middle + 160, f"{side} × {side} tiles", SMALL)
    card.text(154, middle + 207, f"of {channels.numel()} channels", SMALL)
    for y in (Y_OF_RODS, Y_OF_RODS + height):
        card.line([tile, (420, y)], QUIET, 3, dashed=True)
    for number, of_prior in enumerate(channels.tolist()):
        y = Y_OF_RODS + number * (ROD_HEIGHT + ROD_GAP)
        draw_channels_of_prior(card, y, number, values, of_prior)
    return card.image()


def draw_channels_of_prior(card, y, number, values, channels):
    """
    Draw the channels of one prior, and the prior beside them.

    :param y: of the upper edge
    :param number: of the prior on the tile
    :param values: names of the channels' values
    :param channels: their numbers
    """
    name = names_of_priors(MAP)[number]
    colour = PRIOR_COLOURS[name]
    height = ROD_HEIGHT / len(values)
    for i, (value, channel) in enumerate(zip(values, channels, strict=True)):
        middle = y + (i + 0.5) * height
        card.rectangle(430, y + i * height, 90, height, mix(colour, share=0.75), colour, 3)
        card.text(475, middle, str(channel), SMALL, bold=True)
        card.text(540, middle, value, SMALL, align="left")
    middle = y + ROD_HEIGHT / 2
    bracket = [(700, y + 8), (716, y + 8), (716, y + ROD_HEIGHT - 8), (700, y + ROD_HEIGHT - 8)]
    card.line(bracket, colour, 4)
    card.arrow((716, middle), (800, middle), colour)
    draw_prior(card, 845, y + 8, ROD_HEIGHT - 16, CHANNELS_TILE, number)
    card.text(1050, middle, name, NORMAL, colour, "left", bold=True)


def loc_channels():
    """The 24 channels of loc_conv9_2 on one tile."""
    locs, _ = channels_of_predictions(len(CHANNELS_CLASSES))
    return open_channels(OFFSETS, f"loc_{MAP}", locs[CHANNELS_TILE])


def class_channels():
    """The channels of cl_conv9_2 on one tile, with few classes."""
    _, scores = channels_of_predictions(len(CHANNELS_CLASSES))
    return open_channels(CHANNELS_CLASSES, f"cl_{MAP}", scores[CHANNELS_TILE])


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


STACK_HEIGHT = 1150  # pixels, of all predictions
Y_OF_STACK = 110  # upper edge
PIXELS_PER_VALUE = 9  # width of a column
ENLARGED = 30  # times: the three smallest maps in the figure of the stack


def stack_to_8732():
    """
    The predictions of all maps one below the other, in the order of the priors, to scale; and
    those of the three smallest maps enlarged.
    """
    counts = {name: fm.side**2 * fm.n_priors for name, fm in FEATURE_MAPS.items()}
    total = sum(counts.values())
    n_classes = len(voc_labels) + 1
    per_row = STACK_HEIGHT / total
    small = dict(list(counts.items())[3:])

    card = Card(1515)
    card.text(404, 66, "locs", NORMAL, bold=True)
    card.text(604, 66, "scores", NORMAL, bold=True)
    columns = ((386, PIXELS_PER_VALUE * 4), (510, PIXELS_PER_VALUE * n_classes))
    middles = draw_stack(card, Y_OF_STACK, counts, columns, per_row)
    for name, middle in middles.items():
        if name not in small:
            draw_count(card, 44, middle, name)
    draw_enlarged(card, small, per_row, sum(columns[1]))

    bottom = Y_OF_STACK + STACK_HEIGHT
    card.text(404, bottom + 44, f"{total} × 4", SMALL)
    card.text(644, bottom + 44, f"{total} × n_classes", SMALL)
    sum_text = " + ".join(map(str, counts.values()))
    card.text(600, bottom + 130, f"{sum_text} = {total}", NORMAL, bold=True)
    card.text(600, bottom + 196, f"to scale, with n_classes = {n_classes}", NORMAL, QUIET)
    return card.image()


def draw_enlarged(card, counts, per_row, right):
    """
    Draw the last rows of the stack enlarged, with lines from where they are in it.

    :param counts: {name of the map: number of its rows}
    :param per_row: pixels of the stack
    :param right: edge of the stack
    """
    height = sum(counts.values()) * per_row
    bottom = Y_OF_STACK + STACK_HEIGHT
    top = bottom - ENLARGED * height
    card.text(800, top - 92, f"the last {len(counts)} maps,", SMALL, QUIET, "left")
    card.text(800, top - 46, f"{ENLARGED} times as high", SMALL, QUIET, "left")
    for start, end in ((bottom - height, top), (bottom, bottom)):
        card.line([(right + 6, start), (794, end)], QUIET, 3, dashed=True)
    previous = 0
    middles = draw_stack(card, top, counts, ((800, 60),), ENLARGED * per_row)
    for name, middle in middles.items():
        previous = max(middle, previous + 100)  # the last map is lower than its text
        draw_count(card, 880, previous, name)


def draw_stack(card, y, counts, columns, per_row):
    """
    Draw the rows of several maps one below the other.

    :param y: of the upper edge
    :param counts: {name of the map: number of its rows}
    :param columns: (x, width) of each stack
    :param per_row: pixels
    :return: {name of the map: y of the middle of its rows}
    """
    middles = {}
    for name, count in counts.items():
        colour = MAP_COLOURS[name]
        height = count * per_row
        line = min(3, height / 3)
        for x, width in columns:
            fill = mix(colour, share=0.35)
            card.rectangle(x, y, width, height, fill, mix(colour, INK, 0.45), line)
        middles[name] = y + height / 2
        y += height
    return middles


def draw_count(card, x, y, name):
    """Write around y how many priors a map has, and why."""
    feature_map = FEATURE_MAPS[name]
    side = feature_map.side
    count = side**2 * feature_map.n_priors
    card.text(x, y - 24, name, NORMAL, MAP_COLOURS[name], "left", bold=True)
    product = f"{side} × {side} × {feature_map.n_priors} = {count}"
    card.text(x, y + 24, product, SMALL, align="left")


FIGURES = {
    "prediction_convolutions.png": prediction_convolutions,
    "loc_channels.png": loc_channels,
    "class_channels.png": class_channels,
    "reshape.png": reshape,
    "stack_to_8732.png": stack_to_8732,
}
