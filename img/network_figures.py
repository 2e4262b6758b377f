"""Figures of the network: its layers, and how VGG-16 became its base."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from model import FEATURE_MAPS, AuxiliaryConvolutions, VGGBase
from scene import draw_scene
from style import (
    CLASS_COLOURS,
    HARD,
    INK,
    LARGE,
    LAYER,
    MAP_COLOURS,
    MARK,
    NORMAL,
    QUIET,
    SMALL,
    Card,
    mix,
)
from utils import IMAGE_SIZE

POOL3_SIDE = 75  # rows and columns that reach pool3
POOL3_COLOUR = MAP_COLOURS["conv4_3"]
FIRST_COLUMN = POOL3_SIDE - 8  # the first one that the figure of pool3 shows
COLUMN_WIDTH = 118  # pixels


def on_meta(make_network, *arguments):
    """Create a network without weights, only to look at its layers."""
    with torch.device("meta"):
        return make_network(*arguments)


def output_shapes(network, *input_shape):
    """
    Find the shapes of all layers' outputs by sending an image without content through a network.

    :param input_shape: of one image: channels, height, width
    :return: {name: (channels, height, width)}
    """
    shapes = {}

    def record_shape(name, layer, inputs, output):
        shapes[name] = tuple(output.shape[1:])

    for name, layer in network.named_modules():
        is_leaf = not list(layer.children())
        if is_leaf:
            layer.register_forward_hook(partial(record_shape, name))
    network(torch.empty(1, *input_shape, device="meta"))
    return shapes


def vgg16_stages():
    """
    The convolutions, poolings and fully connected layers of torchvision's VGG-16.

    :return: [usual name, shape of the output] each
    """
    network = on_meta(torchvision.models.vgg16)
    shapes = output_shapes(network, 3, 224, 224)
    stages = []
    stage = 1
    number = 1
    for i, layer in enumerate(network.features):
        if isinstance(layer, nn.Conv2d):
            stages.append([f"conv{stage}_{number}", shapes[f"features.{i}"]])
            number += 1
        elif isinstance(layer, nn.MaxPool2d):
            stages.append([f"pool{stage}", shapes[f"features.{i}"]])
            stage += 1
            number = 1
    number = 6  # fc6 follows pool5
    for name, layer in network.classifier.named_children():
        if isinstance(layer, nn.Linear):
            stages.append([f"fc{number}", shapes[f"classifier.{name}"]])
            number += 1
    return stages


class Stage(NamedTuple):
    """A row of a figure of a network."""

    heading: str
    shape: tuple  # of its output: (channels, height, width), or (outputs,) if it is fully connected
    note: str = ""
    colour: str = LAYER
    is_new: bool = False  # marked as different from VGG-16


def size_text(shape):
    """A shape (channels, height, width) as height × width × channels."""
    return " × ".join(map(str, (*shape[1:], shape[0])))


def draw_stages(card, stages, y, unit):
    """
    Draw the stages of a network one below the other: blocks in proportion to their feature maps,
    with texts beside them.

    :param stages: list of Stage
    :param y: of the upper edge
    :param unit: pixels for a pixel of a feature map
    :return: the y below them
    """
    for stage in stages:
        y += draw_stage(card, stage, y, unit)
    return y


def draw_stage(card, stage, y, unit):
    """
    Draw one stage, see draw_stages.

    :return: its height
    """
    is_map = len(stage.shape) == 3
    side = max(10, stage.shape[1] * unit) if is_map else 12
    depth = stage.shape[0] ** 0.5 * 3.2
    height = max(side + 0.45 * depth + 34, 150 if stage.note else 112)
    middle = y + height / 2
    if stage.is_new:
        marked = mix(MARK, share=0.45)
        card.rectangle(430, middle - 67, 726, 134, fill=marked, radius=14, layer=1)
    if is_map:
        left = 215 - (side + 0.75 * depth) / 2
        top = y + (height - side + 0.45 * depth) / 2
        card.block(left, top, side, side, depth, stage.colour)
        size = size_text(stage.shape)
    else:
        n_outputs = stage.shape[0]
        length = 310 * n_outputs / 4096
        look = {"fill": mix(stage.colour, share=0.35), "edge": mix(stage.colour, INK, 0.4)}
        card.rectangle(215 - length / 2, middle - 14, length, 28, line=2.5, **look)
        size = f"{n_outputs:,}"
    if stage.note:
        middle -= 26
        note_colour = HARD if stage.is_new else QUIET
        card.text(456, middle + 54, stage.note, SMALL, note_colour, align="left")
    card.text(456, middle, stage.heading, NORMAL, align="left", bold=True)
    card.text(1136, middle, size, NORMAL, align="right")
    return height


def vgg16():
    """VGG-16 as published."""
    shapes = dict(vgg16_stages())
    stages = [Stage("image", (3, 224, 224))]
    for number in range(1, 6):
        names = [name for name in shapes if name.startswith(f"conv{number}_")]
        pooled_side = shapes[f"pool{number}"][1]
        note = f"{len(names)} convolutions, then pool{number} → {pooled_side}"
        stages.append(Stage(f"conv{number}_1–{len(names)}", shapes[names[-1]], note))
    stages.append(Stage("fc6", shapes["fc6"], f"flattens {size_text(shapes['pool5'])}"))
    stages.append(Stage("fc7", shapes["fc7"]))
    stages.append(Stage("fc8", shapes["fc8"], "a score for each class"))
    card = Card(1690)
    card.text(600, 80, "VGG-16", LARGE, bold=True)
    draw_stages(card, stages, 130, 0.85)
    return card.image()


def modified_vgg16():
    """The base, with marks where it differs from VGG-16."""
    base = on_meta(VGGBase)
    shapes = output_shapes(base, 3, IMAGE_SIZE, IMAGE_SIZE)
    notes = notes_on_base(base, shapes)
    stages = [Stage("image", (3, IMAGE_SIZE, IMAGE_SIZE), "not 224 × 224", is_new=True)]
    for number in range(1, 6):
        last = [name for name in shapes if name.startswith(f"conv{number}_")][-1]
        heading = f"conv{number}_1–{last[-1]}"
        colour = MAP_COLOURS.get(last, LAYER)
        stages.append(Stage(heading, shapes[last], notes[number], colour, is_new=number >= 3))
    note = f"was fc6; {kernel_text(base.conv6)}"
    stages.append(Stage("conv6", shapes["conv6"], note, is_new=True))
    note = f"was fc7; {kernel_text(base.conv7)}; predicts"
    stages.append(Stage("conv7", shapes["conv7"], note, MAP_COLOURS["conv7"], is_new=True))
    card = Card(1775)
    card.text(600, 80, "The base of SSD300", LARGE, bold=True)
    y = draw_stages(card, stages, 130, 0.85)
    card.text(456, y + 60, "fc8 is dropped", NORMAL, HARD, "left", bold=True)
    return card.image()


def notes_on_base(base, shapes):
    """
    What is said of the base's five groups of convolutions.

    :param base: VGGBase
    :param shapes: of its outputs, see output_shapes
    :return: {number of the group: text}
    """
    side = {name: shape[1] for name, shape in shapes.items()}
    conv3 = torch.empty(1, 1, side["conv3_3"], side["conv3_3"])
    rounded_down = F.max_pool2d(conv3, 2).size(-1)  # as VGG-16 pools
    return {
        1: f"then pool1 → {side['pool1']}",
        2: f"then pool2 → {side['pool2']}",
        3: f"pool3 rounds up: {side['pool3']}, not {rounded_down}",
        4: f"also predicts; then pool4 → {side['pool4']}",
        5: f"pool5: {kernel_text(base.pool5)}: stays {side['pool5']}",
    }


def along_one_side(setting):
    """
    A layer's kernel size, stride, padding or dilation along one side: convolutions hold a pair,
    poolings one number.
    """
    return setting[0] if isinstance(setting, tuple) else setting


def kernel_text(layer):
    """A layer's kernel, with its stride, padding and dilation where they are unusual."""
    kernel = along_one_side(layer.kernel_size)
    stride = along_one_side(layer.stride)
    dilation = along_one_side(layer.dilation)
    text = f"{kernel} × {kernel}"
    if stride > 1 or isinstance(layer, nn.MaxPool2d):
        text += f", stride {stride}"
    if kernel > 1 and along_one_side(layer.padding) == 0:
        text += ", no padding"
    if dilation > 1:
        text += f", dilation {dilation}"
    return text


def pool3_ceil():
    """The last columns that reach pool3: rounding down would leave the last one out."""
    columns = torch.arange(1, POOL3_SIDE + 1, dtype=torch.float32)[None]
    card = Card(1180)
    for ceil_mode, y in ((False, 130), (True, 690)):
        # Among ascending numbers, the maximum of a window is its last column
        last_columns = F.max_pool1d(columns, 2, stride=2, ceil_mode=ceil_mode)[0].tolist()
        name = "rounded up (ceil)" if ceil_mode else "rounded down (floor)"
        card.text(600, y - 60, f"{name}: {POOL3_SIDE} → {len(last_columns)}", LARGE, bold=True)
        draw_columns(card, y, last_columns[-1])
        draw_windows(card, y, last_columns)
    note = f"columns (and rows) of conv3_3's {POOL3_SIDE} × {POOL3_SIDE} map"
    card.text(600, 1100, note, NORMAL, QUIET)
    return card.image()


def left_of_column(column):
    """The x of a column's left edge on the card."""
    return 69 + (column - FIRST_COLUMN) * COLUMN_WIDTH


def draw_columns(card, y, last_used):
    """
    Draw the last columns of pool3's input.

    :param y: of their upper edge
    :param last_used: the last column that is pooled; the ones after it are marked as dropped
    """
    for column in range(FIRST_COLUMN, POOL3_SIDE + 1):
        x = left_of_column(column)
        is_lost = column > last_used
        fill = mix(HARD, share=0.6) if is_lost else mix(POOL3_COLOUR)
        card.rectangle(x, y, COLUMN_WIDTH, 110, fill=fill, edge=INK, line=3)
        card.text(x + COLUMN_WIDTH / 2, y + 55, str(column), NORMAL, bold=is_lost)
        if is_lost:
            card.text(1060, y + 260, "dropped", NORMAL, HARD, bold=True)


def draw_windows(card, y, last_columns):
    """
    Draw pool3's windows below the columns, and its outputs below them.

    :param y: of the columns' upper edge
    :param last_columns: the last column of each window
    """
    for number, last in enumerate(last_columns, start=1):
        first = 2 * number - 1
        if first < FIRST_COLUMN:
            continue
        left = left_of_column(first) + 10
        right = left_of_column(last + 1) - 10
        middle = (left + right) / 2
        bracket = [(left, y + 125), (left, y + 145), (right, y + 145), (right, y + 125)]
        card.line(bracket, line=5)
        card.arrow((middle, y + 145), (middle, y + 205))
        fill = mix(POOL3_COLOUR, share=0.5)
        x = middle - COLUMN_WIDTH / 2
        card.rectangle(x, y + 210, COLUMN_WIDTH, 100, fill=fill, edge=INK, line=3)
        card.text(middle, y + 260, str(number), NORMAL)


def auxiliary_convolutions():
    """The convolutions after the base, and the feature maps they produce."""
    convolutions = on_meta(AuxiliaryConvolutions)
    first = FEATURE_MAPS["conv7"]
    first_shape = (first.channels, first.side, first.side)
    shapes = output_shapes(convolutions, *first_shape)
    stages = [Stage("conv7", first_shape, "from the base", MAP_COLOURS["conv7"])]
    for name, layer in convolutions.named_children():
        colour = MAP_COLOURS.get(name, LAYER)
        stages.append(Stage(name, shapes[name], kernel_text(layer), colour))
    card = Card(1685)
    card.text(600, 80, "Auxiliary convolutions", LARGE, bold=True)
    y = draw_stages(card, stages, 120, 6.5)
    card.text(600, y + 50, "coloured: feature maps that predict", NORMAL, QUIET)
    return card.image()


def ssd_overview():
    """The whole network as a chain, from an image to detections."""
    image, boxes, names = draw_scene()
    card = Card(1945)
    card.show(image, 60, 60, 270)
    card.text(150, 360, f"{IMAGE_SIZE} × {IMAGE_SIZE}", SMALL, QUIET)
    card.arrow((345, 195), (400, 195), line=8)
    _part_of_network(card, 410, 95, 320, 200, "Base\n(VGG-16)")
    card.arrow((745, 195), (800, 195), line=8)
    _part_of_network(card, 810, 95, 345, 200, "Auxiliary\nconvolutions")
    total = _feature_maps_of_overview(card)
    _part_of_network(card, 60, 850, 1080, 110, "Prediction convolutions on every map")
    card.text(600, 1130, f"together {total} predictions:", NORMAL)
    card.text(600, 1190, "a box and a score for each class", NORMAL)
    card.arrow((600, 1230), (600, 1290), line=8)
    _part_of_network(card, 220, 1300, 760, 110, "Non-maximum suppression")
    card.arrow((600, 1420), (600, 1480), line=8)
    place = card.show(image, 400, 1495, 400)
    for box, name in zip(boxes, names, strict=True):
        place.box(box, CLASS_COLOURS[name], line=6)
    return card.image()


def _feature_maps_of_overview(card):
    """
    Draw the six feature maps with arrows from where they are made, and their numbers of priors.

    :return: the number of all priors
    """
    total = 0
    for i, (name, feature_map) in enumerate(FEATURE_MAPS.items()):
        x = 130 + 188 * i
        side = 26 + 2.7 * feature_map.side
        depth = feature_map.channels**0.5 * 0.9
        colour = MAP_COLOURS[name]
        is_of_base = i < 2
        start_x = 500 + 140 * i if is_of_base else 860 + 80 * (i - 2)
        card.arrow((start_x, 300), (x, 505 - side / 2), colour, line=5)
        card.block(x - side / 2 - 0.3 * depth, 590 - side / 2, side, side, depth, colour)
        card.text(x, 700, name, SMALL, colour, bold=True)
        card.text(x, 748, f"{feature_map.side} × {feature_map.side}", SMALL)
        card.arrow((x, 785), (x, 845), colour, line=6)
        count = feature_map.side**2 * (len(feature_map.aspect_ratios) + 1)
        card.arrow((x, 965), (x, 1020), colour, line=6)
        card.text(x, 1060, f"{count}", NORMAL, colour, bold=True)
        total += count
    return total


def _part_of_network(card, x, y, width, height, text):
    """Draw a part of the network as a box with its name."""
    look = {"fill": mix(LAYER, share=0.65), "edge": mix(LAYER, INK, 0.3), "line": 4, "radius": 18}
    card.rectangle(x, y, width, height, **look)
    card.text(x + width / 2, y + height / 2, text, NORMAL, bold=True)


FIGURES = {
    "ssd_overview.png": ssd_overview,
    "vgg16.png": vgg16,
    "modified_vgg16.png": modified_vgg16,
    "pool3_ceil.png": pool3_ceil,
    "auxiliary_convolutions.png": auxiliary_convolutions,
}
