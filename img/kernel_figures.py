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

FC6_KERNEL, FC6_OUTPUTS = 7, 4096  # of VGG-16
TAP = MAP_COLOURS["conv7"]  # of a kernel's weights in these figures: conv6 leads to conv7
VOC_TRAINING_IMAGES = 5011 + 11540  # trainval of VOC2007 and of VOC2012


def decimation():
    """fc6's kernel, what decimation keeps of it, and where the kept weights look."""
    conv6 = on_meta(VGGBase).conv6
    step, dilation = 3, conv6.dilation[0]
    fc6 = torch.arange(FC6_KERNEL**2).view(FC6_KERNEL, FC6_KERNEL)
    kept = {
        divmod(number, FC6_KERNEL) for number in decimate(fc6, m=[step, step]).flatten().tolist()
    }
    channels = conv6.in_channels
    card = Card(1500)
    side, (left, right) = 448, (88, 664)

    cell = side / FC6_KERNEL
    for x, name in (
        (left, f"fc6:  {FC6_KERNEL} × {FC6_KERNEL} × {channels}"),
        (right, f"conv6:  3 × 3 × {channels}"),
    ):
        card.text(x + side / 2, 70, name, NORMAL, bold=True)
    place = card.grid(left, 120, side, FC6_KERNEL, LAYER, fill="white")
    for row, column in kept:
        place.cell(row, column, FC6_KERNEL, TAP)
    card.arrow((left + side + 24, 120 + side / 2), (right + 100, 120 + side / 2), line=8)
    card.grid(
        right + side / 2 - 1.5 * cell, 120 + side / 2 - 1.5 * cell, 3 * cell, 3, "white", fill=TAP
    )
    card.text(right + side / 2, 510, "every third row and column", SMALL, QUIET)
    card.text(left + side / 2, 620, f"for each of {FC6_OUTPUTS} outputs", SMALL, QUIET)
    card.text(right + side / 2, 620, f"for each of {conv6.out_channels} outputs", SMALL, QUIET)
    before, after = FC6_KERNEL**2 * channels * FC6_OUTPUTS, conv6.weight.numel()
    card.text(600, 690, f"{before / 1e6:.1f} → {after / 1e6:.1f} million weights", LARGE, bold=True)

    whens = ("after a pool5 of stride 2:", "after our pool5, stride 1:")
    for x, n, spread, when in zip(
        (left, right), (FC6_KERNEL, 2 * FC6_KERNEL), (step, dilation), whens, strict=True
    ):
        card.text(x + side / 2, 800, when, SMALL, QUIET)
        card.text(x + side / 2, 852, f"dilation {spread}", NORMAL, bold=True)
        place = card.grid(x, 890, side, n, LAYER, 1.6, fill="white")
        for row in range(3):
            for column in range(3):
                place.cell(row * spread, column * spread, n, TAP)
    card.text(600, 1400, "equally far apart in the image; the map is twice as fine", NORMAL, QUIET)
    return card.image()


def dilated_convolution():
    """A kernel with holes, moving over the map; outside of it lies padding. A list of images."""
    conv6 = on_meta(VGGBase).conv6
    padding, dilation, taps = conv6.padding[0], conv6.dilation[0], conv6.kernel_size[0]
    side = FEATURE_MAPS["conv7"].side
    cell, x_in, x_out, top = 21, 50, 751, 130
    padded = side + 2 * padding
    y_out = top + padding * cell
    card = Card(850)
    card.text(
        x_in + padded * cell / 2, 70, f"a 3 × 3 kernel, dilation {dilation}", NORMAL, bold=True
    )
    card.text(x_out + side * cell / 2, y_out - 40, "its outputs", NORMAL, bold=True)
    card.grid(x_in, top, padded * cell, padded, FAINT, 1.5)
    card.grid(x_in + padding * cell, y_out, side * cell, side, QUIET, 1.5, fill="white", layer=4)
    card.grid(x_out, y_out, side * cell, side, QUIET, 1.5, fill="white")
    card.text(
        x_in + padded * cell / 2,
        815,
        f"the {side} × {side} map, with {padding} zeros around it",
        SMALL,
        QUIET,
    )
    ground = card.image()
    frames = []
    for row in (0, side // 2, side - 1):
        for column in range(0, side, 2):
            frame = ground.copy()
            pen = ImageDraw.Draw(frame)
            done = [(i, j) for i in range(row + 1) for j in range(side if i < row else column)]
            for i, j in done:
                _fill_cell(pen, x_out + j * cell, y_out + i * cell, cell, "#a9d0e5")
            _fill_cell(pen, x_out + column * cell, y_out + row * cell, cell, PREDICTION)
            for i in range(taps):
                for j in range(taps):
                    _fill_cell(
                        pen,
                        x_in + (column + j * dilation) * cell,
                        top + (row + i * dilation) * cell,
                        cell,
                        TAP,
                    )
            frames.append(frame)
    return frames


def _fill_cell(pen, x, y, side, colour):
    """Fill a tile of a grid that is drawn already, but for its lines."""
    pen.rectangle((x + 1, y + 1, x + side - 2, y + side - 2), fill=colour)


def receptive_fields():
    """
    For each feature map, what its 3 x 3 prediction kernels depend on, found layer by layer.

    :return: {name of the map: (size of the receptive field, distance of neighbouring tiles, centre of the first one)} in pixels
    """
    size, distance, centre = 1, 1, 0.5
    fields = {}
    prediction = on_meta(PredictionConvolutions, 2)
    for name, layer in [
        *on_meta(VGGBase).named_children(),
        *on_meta(AuxiliaryConvolutions).named_children(),
    ]:
        kernel, stride, padding, dilation = map(
            along_one_side, (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        )
        reach = dilation * (kernel - 1)  # from the kernel's first weight to its last
        size += reach * distance
        centre += (reach / 2 - padding) * distance
        distance *= stride
        if name in FEATURE_MAPS:
            kernel = getattr(prediction, f"loc_{name}").kernel_size[0]
            fields[name] = (size + (kernel - 1) * distance, distance, centre)
    return fields


def receptive_field():
    """What a prediction of conv4_3 depends on, beside its prior and its kernel; and the same in numbers for every map."""
    image, _, _ = pale_scene(0.45)
    name, row, column = "conv4_3", 8, 15  # the tile at the bird
    fields = receptive_fields()
    size, distance, centre = fields[name]
    side = FEATURE_MAPS[name].side
    card = Card(1700)
    place = card.picture(image, 44, 50, 720)
    middle = [(centre + distance * column) / IMAGE_SIZE, (centre + distance * row) / IMAGE_SIZE]
    half = size / 2 / IMAGE_SIZE
    for i in range(row - 1, row + 2):
        for j in range(column - 1, column + 2):
            place.cell(i, j, side, MAP_COLOURS[name], alpha=0.5)
    place.box([middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half], PREDICTION)
    place.box(cxcy_to_xy(priors_of_map(name)[row, column, 0]), PRIOR)
    card.text(800, 110, name, LARGE, MAP_COLOURS[name], "left", bold=True)
    entries = (
        ("3 × 3 kernel", 3 / side, MAP_COLOURS[name]),
        ("prior", FEATURE_MAPS[name].scale, PRIOR),
    )
    for i, (text, share, colour) in enumerate(
        (*entries, ("receptive field", size / IMAGE_SIZE, PREDICTION))
    ):
        y = 220 + 170 * i
        card.text(800, y, text, NORMAL, colour, "left", bold=True)
        card.text(800, y + 62, f"{share:.2f} of the side", SMALL, align="left")
    card.text(800, 705, f"{size} of {IMAGE_SIZE} pixels", SMALL, QUIET, "left")
    rows, looks = [["map", "kernel", "prior", "receptive field"]], {}
    for i, (other, (field, _, _)) in enumerate(fields.items(), start=1):
        feature_map = FEATURE_MAPS[other]
        rows.append(
            [
                other,
                f"{3 / feature_map.side:.2f}",
                f"{feature_map.scale:.3g}",
                f"{field / IMAGE_SIZE:.2f}",
            ]
        )
        looks[i, 0] = {"colour": MAP_COLOURS[other], "bold": True}
    below = card.table(70, 850, rows, (260, 220, 220, 360), 98, looks)
    card.text(
        600, below + 70, "as fractions of the image's side (above 1: all of it)", NORMAL, QUIET
    )
    return card.image()


def epoch_of(step, parameters):
    """The epoch of training on VOC07+12 that a step falls in, from 1; what is within a twentieth of its end counts as its end."""
    return math.ceil(round(step * parameters.batch_size / VOC_TRAINING_IMAGES, 1))


def learning_rate_figure():
    """The learning rate of every step, with its falls in iterations and in epochs."""
    parameters = Parameters()
    total = n_steps(parameters)
    ends = [round(part * total) for part in (*parameters.decay_at, 1)]
    steps = sorted({*range(0, total, 40), *(end - 1 for end in ends)})
    left, right, top, bottom = 330, 1130, 120, 740
    low, high = -6, -2.6  # logarithms of the rates at the lower and upper edge

    def point(step, rate):
        return left + (right - left) * step / total, bottom - (bottom - top) * (
            math.log10(rate) - low
        ) / (high - low)

    card = Card(1000)
    card.text(MARGIN, 70, "learning rate", NORMAL, align="left", bold=True)
    for power in range(-6, -2):
        y = point(0, 10.0**power)[1]
        card.line([(left, y), (right, y)], FAINT, 3)
        card.text(left - 24, y, f"{10.0**power:.6f}".rstrip("0"), NORMAL, align="right")
    card.line([point(step, learning_rate(step, parameters)) for step in steps], PREDICTION, 8)
    card.text(MARGIN, 850, "iteration", NORMAL, align="left", bold=True)
    card.text(MARGIN, 935, "epoch", NORMAL, align="left", bold=True)
    card.text(left, 850, "0", NORMAL)
    for end in ends:
        x = point(end, 1)[0]
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
