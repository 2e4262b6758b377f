"""Figures of kernels: decimation, dilation and receptive fields; and the learning rate."""

import math

import torch
from PIL import ImageDraw

from model import FEATURE_MAPS, AuxiliaryConvolutions, PredictionConvolutions, VGGBase
from network_figures import along_one_side, on_meta
from prior_figures import pale_scene, priors_of_map
from style import (
    FAINT,
    LARGE,
    LAYER,
    MAP_COLOURS,
    MARGIN,
    NORMAL,
    PREDICTION,
    PRIOR,
    QUIET,
    SMALL,
    Card,
)
from train import Parameters, learning_rate, n_steps
from utils import IMAGE_SIZE, cxcy_to_xy, decimate

# Of VGG-16
FC6_KERNEL = 7
FC6_OUTPUTS = 4096
DECIMATION = 3  # of its rows and columns, every third one is kept
TAP = MAP_COLOURS["conv7"]  # colour of a kernel's weights: conv6 leads to conv7
VOC_TRAINING_IMAGES = 5011 + 11540  # trainval of VOC2007 and of VOC2012


def decimation():
    """The kernel of fc6, what decimation keeps of it, and where the kept weights look."""
    conv6 = on_meta(VGGBase).conv6
    channels = conv6.in_channels
    card = Card(1500)
    left = 88
    right = 664
    side = 448
    _draw_decimated_kernel(card, left, right, side, channels)
    card.text(left + side / 2, 620, f"for each of {FC6_OUTPUTS} outputs", SMALL, QUIET)
    card.text(right + side / 2, 620, f"for each of {conv6.out_channels} outputs", SMALL, QUIET)
    before = FC6_KERNEL**2 * channels * FC6_OUTPUTS
    after = conv6.weight.numel()
    card.text(600, 690, f"{before / 1e6:.1f} → {after / 1e6:.1f} million weights", LARGE, bold=True)

    card.text(left + side / 2, 800, "after a pool5 of stride 2:", SMALL, QUIET)
    _draw_taps(card, left, side, FC6_KERNEL, DECIMATION)
    card.text(right + side / 2, 800, "after our pool5, stride 1:", SMALL, QUIET)
    _draw_taps(card, right, side, 2 * FC6_KERNEL, conv6.dilation[0])
    card.text(600, 1400, "equally far apart in the image; the map is twice as fine", NORMAL, QUIET)
    return card.image()


def _draw_decimated_kernel(card, left, right, side, channels):
    """
    Draw the kernel of fc6 with the weights that are kept, and the kernel of conv6 beside it.

    :param left, right: x of the two kernels
    :param side: of the first one, pixels
    """
    card.text(left + side / 2, 70, f"fc6:  {FC6_KERNEL} × {FC6_KERNEL} × {channels}", bold=True)
    card.text(right + side / 2, 70, f"conv6:  3 × 3 × {channels}", bold=True)
    place = card.grid(left, 120, side, FC6_KERNEL, LAYER, fill="white")
    numbers = torch.arange(FC6_KERNEL**2).view(FC6_KERNEL, FC6_KERNEL)
    for number in decimate(numbers, m=[DECIMATION, DECIMATION]).flatten().tolist():
        row, column = divmod(number, FC6_KERNEL)
        place.cell(row, column, FC6_KERNEL, TAP)
    middle = 120 + side / 2
    card.arrow((left + side + 24, middle), (right + 100, middle), line=8)
    kept_side = 3 * side / FC6_KERNEL
    x = right + side / 2 - kept_side / 2
    card.grid(x, middle - kept_side / 2, kept_side, 3, "white", fill=TAP)
    card.text(right + side / 2, 510, "every third row and column", SMALL, QUIET)


def _draw_taps(card, x, side, n, dilation):
    """Draw where a dilated 3 x 3 kernel looks on a map of n x n tiles."""
    card.text(x + side / 2, 852, f"dilation {dilation}", NORMAL, bold=True)
    place = card.grid(x, 890, side, n, LAYER, 1.6, fill="white")
    for row in range(3):
        for column in range(3):
            place.cell(row * dilation, column * dilation, n, TAP)


# In the figure of a dilated convolution: side of a tile, and where the grids lie; pixels
TILE = 21
X_INPUT = 50
X_OUTPUT = 751
Y_INPUT = 130


def dilated_convolution():
    """
    A kernel with holes moves over the map, which is surrounded by padding.

    :return: list of images
    """
    conv6 = on_meta(VGGBase).conv6
    side = FEATURE_MAPS["conv7"].side
    y_output = Y_INPUT + conv6.padding[0] * TILE
    ground = _ground_of_convolution(conv6, side, y_output)
    frames = []
    for row in (0, side // 2, side - 1):
        for column in range(0, side, 2):
            frame = ground.copy()
            pen = ImageDraw.Draw(frame)
            for number in range(row * side + column):
                i, j = divmod(number, side)
                _fill_tile(pen, X_OUTPUT, y_output, i, j, "#a9d0e5")
            _fill_tile(pen, X_OUTPUT, y_output, row, column, PREDICTION)
            _fill_kernel(pen, conv6, row, column)
            frames.append(frame)
    return frames


def _ground_of_convolution(conv6, side, y_output):
    """What all images of the dilated convolution have in common: the empty grids and the texts."""
    padding = conv6.padding[0]
    padded_side = side + 2 * padding
    middle = X_INPUT + padded_side * TILE / 2
    card = Card(850)
    card.text(middle, 70, f"a 3 × 3 kernel, dilation {conv6.dilation[0]}", NORMAL, bold=True)
    card.text(X_OUTPUT + side * TILE / 2, y_output - 40, "its outputs", NORMAL, bold=True)
    card.grid(X_INPUT, Y_INPUT, padded_side * TILE, padded_side, FAINT, 1.5)
    inner = X_INPUT + padding * TILE
    card.grid(inner, y_output, side * TILE, side, QUIET, 1.5, fill="white", layer=4)
    card.grid(X_OUTPUT, y_output, side * TILE, side, QUIET, 1.5, fill="white")
    words = f"the {side} × {side} map, with {padding} zeros around it"
    card.text(middle, 815, words, SMALL, QUIET)
    return card.image()


def _fill_kernel(pen, conv6, row, column):
    """Fill the tiles of the padded map that the output at (row, column) depends on."""
    for i in range(conv6.kernel_size[0]):
        for j in range(conv6.kernel_size[1]):
            y = row + i * conv6.dilation[0]
            x = column + j * conv6.dilation[1]
            _fill_tile(pen, X_INPUT, Y_INPUT, y, x, TAP)


def _fill_tile(pen, x, y, row, column, colour):
    """Fill a tile of a grid at (x, y), but leave its lines."""
    left = x + column * TILE
    top = y + row * TILE
    pen.rectangle((left + 1, top + 1, left + TILE - 2, top + TILE - 2), fill=colour)


def receptive_fields():
    """
    Compute, layer by layer, what each feature map's 3 x 3 prediction kernels depend on.

    :return: {name of the map: (size of the receptive field, distance of neighbouring tiles, centre
        of the first tile)}, all in pixels
    """
    size = 1
    distance = 1
    centre = 0.5
    fields = {}
    prediction = on_meta(PredictionConvolutions, 2)
    base = on_meta(VGGBase)
    auxiliary = on_meta(AuxiliaryConvolutions)
    for name, layer in (*base.named_children(), *auxiliary.named_children()):
        # From the kernel's first weight to its last one
        reach = along_one_side(layer.dilation) * (along_one_side(layer.kernel_size) - 1)
        size += reach * distance
        centre += (reach / 2 - along_one_side(layer.padding)) * distance
        distance *= along_one_side(layer.stride)
        if name in FEATURE_MAPS:
            kernel = getattr(prediction, f"loc_{name}").kernel_size[0]
            fields[name] = (size + (kernel - 1) * distance, distance, centre)
    return fields


def receptive_field():
    """
    What a prediction of conv4_3 depends on, beside its prior and its kernel; and the same in
    numbers for every map.
    """
    name = "conv4_3"
    fields = receptive_fields()
    size = fields[name][0]
    card = Card(1700)
    _draw_receptive_field(card, name, 8, 15, fields[name])
    card.text(800, 110, name, LARGE, MAP_COLOURS[name], "left", bold=True)
    entries = (
        ("3 × 3 kernel", 3 / FEATURE_MAPS[name].side, MAP_COLOURS[name]),
        ("prior", FEATURE_MAPS[name].scale, PRIOR),
        ("receptive field", size / IMAGE_SIZE, PREDICTION),
    )
    for i, (text, share, colour) in enumerate(entries):
        y = 220 + 170 * i
        card.text(800, y, text, NORMAL, colour, "left", bold=True)
        card.text(800, y + 62, f"{share:.2f} of the side", SMALL, align="left")
    card.text(800, 705, f"{size} of {IMAGE_SIZE} pixels", SMALL, QUIET, "left")
    below = _table_of_receptive_fields(card, 850, fields)
    words = "as fractions of the image's side (above 1: all of it)"
    card.text(600, below + 70, words, NORMAL, QUIET)
    return card.image()


def _draw_receptive_field(card, name, row, column, field):
    """
    Draw the scene with the kernel, the prior and the receptive field of one tile.

    :param name: of the feature map
    :param row, column: of the tile
    :param field: of the map, as receptive_fields gives it
    """
    image, _, _ = pale_scene(0.45)
    size, distance, centre = field
    place = card.show(image, 44, 50, 720)
    for i in range(row - 1, row + 2):
        for j in range(column - 1, column + 2):
            place.cell(i, j, FEATURE_MAPS[name].side, MAP_COLOURS[name], alpha=0.5)
    x = (centre + distance * column) / IMAGE_SIZE
    y = (centre + distance * row) / IMAGE_SIZE
    half = size / 2 / IMAGE_SIZE
    place.box([x - half, y - half, x + half, y + half], PREDICTION)
    place.box(cxcy_to_xy(priors_of_map(name)[row, column, 0]), PRIOR)


def _table_of_receptive_fields(card, y, fields):
    """
    Draw a table of kernels, priors and receptive fields as fractions of the image's side.

    :param fields: as receptive_fields gives them
    :return: the y below it
    """
    rows = [["map", "kernel", "prior", "receptive field"]]
    looks = {}
    for i, (name, (size, _, _)) in enumerate(fields.items(), start=1):
        kernel = f"{3 / FEATURE_MAPS[name].side:.2f}"
        scale = f"{FEATURE_MAPS[name].scale:.3g}"
        rows.append([name, kernel, scale, f"{size / IMAGE_SIZE:.2f}"])
        looks[i, 0] = {"colour": MAP_COLOURS[name], "bold": True}
    return card.table(70, y, rows, (260, 220, 220, 360), 98, looks)


def epoch_of(step, parameters):
    """
    The epoch, from 1, of training on VOC 07+12 that a step falls in. A step within the first
    twentieth of an epoch counts for the epoch that it completes.
    """
    return math.ceil(round(step * parameters.batch_size / VOC_TRAINING_IMAGES, 1))


def learning_rate_figure():
    """The learning rate at every step; where it falls, in iterations and in epochs."""
    parameters = Parameters()
    total = n_steps(parameters)
    ends = [round(part * total) for part in (*parameters.decay_at, 1)]
    steps = sorted({*range(0, total, 40), *(end - 1 for end in ends)})
    left = 330
    right = 1130
    top = 120
    bottom = 740
    low = -6  # logarithm of the rate at the lower edge
    high = -2.6  # and at the upper edge

    def x_of(step):
        return left + (right - left) * step / total

    def y_of(rate):
        return bottom - (bottom - top) * (math.log10(rate) - low) / (high - low)

    card = Card(1000)
    card.text(MARGIN, 70, "learning rate", NORMAL, align="left", bold=True)
    for power in range(-6, -2):
        rate = 10.0**power
        card.line([(left, y_of(rate)), (right, y_of(rate))], FAINT, 3)
        card.text(left - 24, y_of(rate), f"{rate:.6f}".rstrip("0"), NORMAL, align="right")
    curve = [(x_of(step), y_of(learning_rate(step, parameters))) for step in steps]
    card.line(curve, PREDICTION, 8)
    card.text(MARGIN, 850, "iteration", NORMAL, align="left", bold=True)
    card.text(MARGIN, 935, "epoch", NORMAL, align="left", bold=True)
    card.text(left, 850, "0", NORMAL)
    for end in ends:
        x = x_of(end)
        card.line([(x, top), (x, bottom + 30)], QUIET, 3, dashed=True)
        card.text(x, 850, f"{end // 1000}k", NORMAL)
        card.text(x, 935, str(epoch_of(end, parameters)), NORMAL)
    warm_up = round(parameters.warm_up * total)
    card.text(left + 40, 640, f"warm-up: {warm_up} iterations", SMALL, QUIET, "left")
    return card.image()


FIGURES = {
    "decimation.png": decimation,
    "dilated_convolution.gif": dilated_convolution,
    "receptive_field.png": receptive_field,
    "learning_rate.png": learning_rate_figure,
}
