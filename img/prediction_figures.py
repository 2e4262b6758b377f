"""Figures of the prediction convolutions: their channels, the reshaping, and the stack of 8732 predictions."""

import torch

from examples import CHANNELS_CLASSES, CHANNELS_TILE
from model import FEATURE_MAPS, PredictionConvolutions
from prior_figures import names_of_priors
from style import CARD, INK, LAYER, MAP_COLOURS, MARK, NORMAL, PREDICTION, QUIET, SMALL, Card, mix
from utils import voc_labels

MAP = "conv9_2"  # the one whose channels are opened up
OFFSETS = ("g_c_x", "g_c_y", "g_w", "g_h")


def prediction_convolutions():
    """On each of the six maps two 3 x 3 convolutions: offsets and scores for every prior of every tile."""
    n_classes = len(voc_labels) + 1
    convolutions = PredictionConvolutions(n_classes)
    card = Card(1440)
    for x, text, colour in (
        (210, "feature map", INK),
        (690, "loc: offsets", PREDICTION),
        (1015, "cl: scores", QUIET),
    ):
        card.text(x, 62, text, NORMAL, colour, bold=True)
    card.text(210, 112, "k priors a tile", SMALL, QUIET)
    card.text(690, 112, "k × 4 channels", SMALL, QUIET)
    card.text(1015, 112, f"k × {n_classes} channels", SMALL, QUIET)
    for row, (name, feature_map) in enumerate(FEATURE_MAPS.items()):
        y = 290 + 196 * row
        size = 24 + 92 * (feature_map.side / 38) ** 0.6
        side, colour = feature_map.side, MAP_COLOURS[name]
        card.block(70, y - size / 2, size, size, 10 + feature_map.channels / 24, colour)
        n_priors = len(feature_map.aspect_ratios) + 1
        card.text(224, y - 24, name, NORMAL, colour, "left", bold=True)
        card.text(545, y - 52, f"k = {n_priors}", SMALL, INK)
        card.text(224, y + 28, f"{side} × {side} × {feature_map.channels}", SMALL, INK, "left")
        for x, kind, shade in ((730, "loc", PREDICTION), (1055, "cl", LAYER)):
            channels = getattr(convolutions, f"{kind}_{name}").out_channels
            card.block(x - 92, y - size / 2 - 26, size, size, 6 + channels / 4, shade)
            card.text(x - 40, y + size / 2 + 8, f"{side} × {side} × {channels}", SMALL, INK)
        card.arrow((500, y - 10), (590, y - 10), INK)
    card.text(
        600,
        1400,
        f"all kernels 3 × 3; n_classes = {n_classes}: {n_classes - 1} classes and background",
        SMALL,
        QUIET,
    )
    return card.image()


def open_channels(values, convolution, n_values, width):
    """
    The channels of one tile of a map, opened up: a row for each prior. Which channel holds what is found out by reshaping the
    numbers of the channels as the predictions are reshaped.

    :param values: names of a prior's values
    :param convolution: its name in PredictionConvolutions
    :param n_values: how many values a prior has
    :param width: of a column
    """
    side, names = FEATURE_MAPS[MAP].side, names_of_priors(MAP)
    n_channels = len(names) * n_values
    numbers = torch.arange(n_channels).view(1, n_channels, 1, 1).expand(1, n_channels, side, side)
    row, column = CHANNELS_TILE
    tile = (row * side + column) * len(names)
    channels = PredictionConvolutions._per_prior(numbers, n_values)[
        0, tile : tile + len(names)
    ]  # (6, n_values)

    card, colour = Card(890), MAP_COLOURS[MAP]
    card.text(44, 66, convolution, NORMAL, colour, "left", bold=True)
    card.text(44, 116, f"{side} × {side} × {n_channels} channels", SMALL, INK, "left")
    card.block(56, 330, 300, 300, 120, colour)
    grid = card.grid(56, 330, 300, side, mix(colour, INK, 0.45), layer=4)
    grid.cell(row, column, side, MARK, layer=4)
    start = grid.cell_centre(row, column, side)
    card.dot(*start, INK, 10)
    card.arrow(start, (490, 505), INK, 6)
    card.text(206, 690, "one tile", NORMAL, INK)
    card.text(206, 740, f"{len(names)} priors × {n_values}", NORMAL, INK)
    card.text(206, 790, f"= {n_channels} channels", NORMAL, INK)

    rows = [["prior", *values]] + [
        [name, *map(str, row)] for name, row in zip(names, channels.tolist(), strict=True)
    ]
    looks = {(i, 0): {"bold": True, "fill": mix(colour, share=0.8)} for i in range(1, len(rows))}
    card.table(500, 170, rows, (150, *[width] * n_values), 86, looks)
    card.text(500 + (150 + width * n_values) / 2, 820, "number of the channel", SMALL, QUIET)
    return card.image()


def loc_channels():
    """The 24 channels of loc_conv9_2 on one tile."""
    return open_channels(OFFSETS, f"loc_{MAP}", 4, 126)


def class_channels():
    """The channels of cl_conv9_2 on one tile, with few classes."""
    return open_channels(CHANNELS_CLASSES, f"cl_{MAP}", len(CHANNELS_CLASSES), 164)


def reshape():
    """(N, 24, 5, 5) becomes (N, 150, 4): a row for each prior, in the order of the priors."""
    side, names, colour = FEATURE_MAPS[MAP].side, names_of_priors(MAP), MAP_COLOURS[MAP]
    n_priors = len(names)
    out = torch.arange(n_priors * 4).view(1, -1, 1, 1).expand(1, -1, side, side)
    rows = PredictionConvolutions._per_prior(out, 4)[0]  # (150, 4)
    card = Card(1170)
    stages = (
        f"(N, {n_priors * 4}, {side}, {side})",
        f"(N, {side}, {side}, {n_priors * 4})",
        f"(N, {len(rows)}, 4)",
    )
    for x, y, text in zip((52, 52, 500), (60, 420, 60), stages, strict=True):
        card.text(x, y, text, NORMAL, INK, "left", bold=True, mono=True)
    card.block(70, 160, 170, 170, 130, colour)
    card.grid(70, 160, 170, side, mix(colour, INK, 0.45), layer=4)
    card.text(200, 372, "permute", SMALL, QUIET, "left")
    card.text(225, 830, "reshape:", SMALL, QUIET)
    card.arrow((150, 348), (150, 396), INK, 6)

    for i in range(side):  # the map with the channels last: a tile holds its 24 values in a row
        for j in range(side):
            x, y = 70 + 62 * j, 480 + 56 * i
            fill = (
                mix(colour, share=0.4)
                if (i, j) == (0, 0)
                else mix(colour, share=0.7)
                if (i, j) == (0, 1)
                else CARD
            )
            card.rectangle(x, y, 62, 56, fill, INK, 2)
            for k in range(1, 4):
                card.line([(x + 15.5 * k, y + 8), (x + 15.5 * k, y + 48)], mix(INK, share=0.5), 1.5)
    card.text(225, 878, "row by row,", SMALL, QUIET)
    card.text(225, 926, "prior by prior", SMALL, QUIET)
    card.arrow((405, 620), (478, 620), INK, 6)

    shown = [*range(8), None, len(rows) - 1]
    cells, looks = [["row", "tile", "prior", "channels"]], {}
    for i, number in enumerate(shown, start=1):
        if number is None:
            cells.append(["…", "…", "…", "…"])
            continue
        tile, prior = divmod(number, n_priors)
        first, *_, last = rows[number].tolist()
        cells.append(
            [str(number), f"{tile // side}, {tile % side}", names[prior], f"{first} to {last}"]
        )
        share = {0: 0.4, 1: 0.7}.get(tile, 1.0)
        looks |= {
            (i, k): {"fill": mix(colour, share=share) if share < 1 else "white"} for k in range(4)
        }
    card.table(500, 130, cells, (120, 140, 160, 230), 88, looks)
    return card.image()


def stack_to_8732():
    """The predictions of all maps below each other, in the order of the priors."""
    card = Card(1240)
    counts = {name: fm.side**2 * (len(fm.aspect_ratios) + 1) for name, fm in FEATURE_MAPS.items()}
    heights = {
        name: 60 + 270 * (count / counts["conv4_3"]) ** 0.5 for name, count in counts.items()
    }
    for x, text in ((785, "locs"), (1030, "scores")):
        card.text(x, 70, text, NORMAL, INK, bold=True)
    y = 110
    for name, count in counts.items():
        side, height, colour = FEATURE_MAPS[name].side, heights[name], MAP_COLOURS[name]
        middle = y + height / 2
        card.text(52, middle, name, NORMAL, colour, "left", bold=True)
        card.text(
            630, middle, f"{side} × {side} × {count // side**2} = {count}", NORMAL, INK, "right"
        )
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
