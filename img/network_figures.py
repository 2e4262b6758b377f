"""Figures of the network: its layers, and how VGG-16 became its base."""

import math
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

VGG16_SIDE = 224  # pixels along each side of VGG-16's input
POOL3_SIDE = 75  # rows and columns that reach pool3
POOL3_COLOUR = MAP_COLOURS["conv4_3"]
FIRST_COLUMN = POOL3_SIDE - 8  # the first one that the figure of pool3 shows
COLUMN_WIDTH = 118  # pixels

# One scale for the blocks of all networks, in pixels of the card
PIXELS_PER_TILE = 0.85
PIXELS_PER_CHANNEL = 0.11
ENLARGED = 10  # times: the tiles beside the blocks of the auxiliary convolutions
X_OF_BLOCKS = 240  # their middle
X_OF_TEXTS = 400  # left edge
X_OF_SIZES = 1146  # right edge
X_OF_RODS = 125  # middle of the blocks of the auxiliary convolutions
X_OF_TILES = 290  # and of their tiles


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
    shapes = output_shapes(network, 3, VGG16_SIDE, VGG16_SIDE)
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


class Change(NamedTuple):
    """What VGG-16 has in the place of a stage."""

    number: int  # in the README's list of changes
    before: str
    size_before: str = ""


class Stage(NamedTuple):
    """A row of a figure of a network."""

    heading: str
    size: str  # of its output
    shape: tuple = ()  # of its output: (channels, height, width), or (outputs,); () draws an arrow
    note: str = ""
    colour: str = LAYER
    change: Change | None = None  # the row is marked as different from VGG-16


def size_text(shape):
    """A shape (channels, height, width) as height × width × channels."""
    return " × ".join(map(str, (*shape[1:], shape[0])))


def block_size(shape):
    """
    How large a feature map is drawn; in all figures of networks the same.

    :param shape: (channels, height, width)
    :return: side and depth of its block, pixels
    """
    return shape[1] * PIXELS_PER_TILE, shape[0] * PIXELS_PER_CHANNEL


def draw_map(card, x, y, shape, colour):
    """Draw a feature map as a block around (x, y), to scale."""
    side, depth = block_size(shape)
    left = x - (side + 0.75 * depth) / 2
    top = y - (side - 0.45 * depth) / 2
    card.block(left, top, side, side, depth, colour, line=2.5 if side > 12 else 1.2)


def draw_input(card, x, y, side, shows_old_side):
    """
    Draw the image that a network sees around (x, y), to scale.

    :param side: tiles, that is, pixels of the image
    :param shows_old_side: whether to draw the size of VGG-16's images in it, dashed
    """
    image, _, _ = draw_scene()
    size = side * PIXELS_PER_TILE
    card.show(image, x - size / 2, y - size / 2, size)
    card.rectangle(x - size / 2, y - size / 2, size, size, edge=INK, line=2.5)
    if shows_old_side:
        size = VGG16_SIDE * PIXELS_PER_TILE
        card.rectangle(x - size / 2, y - size / 2, size, size, edge=INK, dashed=True)


def draw_outputs(card, x, y, n_outputs, is_dropped):
    """Draw a fully connected layer's outputs as a bar around (x, y), crossed out if dropped."""
    length = 270 * n_outputs / 4096
    look = {"fill": mix(LAYER, share=0.35), "edge": mix(LAYER, INK, 0.4), "dashed": is_dropped}
    card.rectangle(x - length / 2, y - 14, length, 28, line=2.5, **look)
    if is_dropped:
        for rise in (-30, 30):
            card.line([(x - 55, y + rise), (x + 55, y - rise)], HARD, 6)


def stage_height(stage):
    """How much of a figure a stage takes up, in pixels."""
    height = 106 if stage.note or stage.change else 80
    if len(stage.shape) == 3:
        side, depth = block_size(stage.shape)
        height = max(height, side + 0.45 * depth)
    return height + 32


def card_of_stages(title, stages, note=""):
    """
    A figure of a network: its stages one below the other, blocks to scale with texts beside them.

    :param stages: list of Stage
    :param note: a last line
    :return: PIL image
    """
    heights = [stage_height(stage) for stage in stages]
    card = Card(150 + math.ceil(sum(heights)) + 70 * bool(note))
    card.text(600, 80, title, LARGE, bold=True)
    y = 130
    for stage, height in zip(stages, heights, strict=True):
        draw_stage(card, stage, y, height)
        y += height
    if note:
        card.text(600, y + 40, note, NORMAL, QUIET)
    return card.image()


def draw_stage(card, stage, y, height):
    """
    Draw one stage.

    :param y: of its upper edge
    """
    middle = y + height / 2
    if stage.change:
        marked = mix(MARK, share=0.45)
        card.rectangle(30, y + 4, 1140, height - 8, fill=marked, radius=14, layer=1)
        card.badge(78, middle, str(stage.change.number), HARD)
    draw_output(card, stage, X_OF_BLOCKS, middle)
    has_second_line = stage.change or stage.note
    draw_words_of_stage(card, stage, middle - 26 if has_second_line else middle)


def draw_output(card, stage, x, y):
    """Draw what a stage puts out around (x, y)."""
    if not stage.shape:
        card.arrow((x, y - 38), (x, y + 38))
    elif len(stage.shape) == 1:
        draw_outputs(card, x, y, stage.shape[0], is_dropped=bool(stage.change))
    elif stage.heading == "image":
        draw_input(card, x, y, stage.shape[1], shows_old_side=bool(stage.change))
    else:
        draw_map(card, x, y, stage.shape, stage.colour)


def draw_words_of_stage(card, stage, y):
    """
    Write the texts of a stage.

    :param y: of the first line's middle
    """
    colour = INK if stage.colour == LAYER else stage.colour
    heading = card.text(X_OF_TEXTS, y, stage.heading, NORMAL, colour, "left", bold=True)
    card.text(X_OF_SIZES, y, stage.size, NORMAL, align="right")
    if not stage.change:
        card.text(X_OF_TEXTS, y + 54, stage.note, SMALL, QUIET, align="left")
        return
    card.text(card.right_of(heading) + 20, y, stage.note, SMALL, align="left")
    before = f"VGG-16: {stage.change.before}"
    card.text(X_OF_TEXTS, y + 54, before, SMALL, HARD, align="left")
    card.text(X_OF_SIZES, y + 54, stage.change.size_before, SMALL, HARD, align="right")


def vgg16():
    """VGG-16 as published."""
    shapes = dict(vgg16_stages())
    image_shape = (3, VGG16_SIDE, VGG16_SIDE)
    stages = [Stage("image", size_text(image_shape), image_shape)]
    for number in range(1, 6):
        names = [name for name in shapes if name.startswith(f"conv{number}_")]
        pooled_side = shapes[f"pool{number}"][1]
        note = f"{len(names)} convolutions, then pool{number} → {pooled_side}"
        shape = shapes[names[-1]]
        stages.append(Stage(f"conv{number}_1–{len(names)}", size_text(shape), shape, note))
    notes = {"fc6": f"flattens {size_text(shapes['pool5'])}", "fc8": "a score for each class"}
    for name in ("fc6", "fc7", "fc8"):
        shape = shapes[name]
        stages.append(Stage(name, f"{shape[0]:,}", shape, notes.get(name, "")))
    return card_of_stages("VGG-16", stages)


def modified_vgg16():
    """The base, with marks where it differs from VGG-16."""
    base = on_meta(VGGBase)
    shapes = output_shapes(base, 3, IMAGE_SIZE, IMAGE_SIZE)
    note = "coloured: feature maps that predict"
    return card_of_stages("The base of SSD300", stages_of_base(base, shapes), note)


def stages_of_base(base, shapes):
    """
    The stages of the base; the changes' numbers are those of the README.

    :param base: VGGBase
    :param shapes: of its outputs, see output_shapes
    :return: list of Stage
    """
    image_shape = (3, IMAGE_SIZE, IMAGE_SIZE)
    change = Change(1, "dashed square", size_text((3, VGG16_SIDE, VGG16_SIDE)))
    stages = [Stage("image", size_text(image_shape), image_shape, change=change)]
    changed_poolings = stages_of_changed_poolings(base, shapes)
    for number in range(1, 6):
        names = [name for name in shapes if name.startswith(f"conv{number}_")]
        note = f"{len(names)} convolutions"
        if number not in changed_poolings:
            note += f", then pool{number} → {shapes[f'pool{number}'][1]}"
        shape = shapes[names[-1]]
        colour = MAP_COLOURS.get(names[-1], LAYER)
        heading = f"conv{number}_1–{len(names)}"
        stages.append(Stage(heading, size_text(shape), shape, note, colour))
        if number in changed_poolings:
            stages.append(changed_poolings[number])
    return stages + stages_after_pool5(base, shapes)


def stages_of_changed_poolings(base, shapes):
    """
    The poolings that are not as in VGG-16, and what VGG-16's would have made of the same maps.

    :param base, shapes: as for stages_of_base
    :return: {number of the pooling: Stage}
    """
    old_pooling = on_meta(torchvision.models.vgg16).features[-1]
    sides = {name: shape[1] for name, shape in shapes.items()}
    stages = {}
    for number, change_number, note, before in (
        (3, 2, "rounds up", "rounds down"),
        (5, 3, kernel_text(base.pool5), kernel_text(old_pooling)),
    ):
        side = sides[f"conv{number}_3"]
        old_side = old_pooling(torch.empty(1, 1, side, side, device="meta")).size(-1)
        change = Change(change_number, before, f"{side} → {old_side}")
        size = f"{side} → {sides[f'pool{number}']}"
        stages[number] = Stage(f"pool{number}", size, note=note, change=change)
    return stages


def stages_after_pool5(base, shapes):
    """
    What became of VGG-16's fully connected layers.

    :param base, shapes: as for stages_of_base
    :return: list of Stage
    """
    old_shapes = dict(vgg16_stages())
    stages = []
    for name, old_name in (("conv6", "fc6"), ("conv7", "fc7")):
        change = Change(5, f"{old_name}, fully connected", f"{old_shapes[old_name][0]:,}")
        note = kernel_text(getattr(base, name))
        colour = MAP_COLOURS.get(name, LAYER)
        stages.append(Stage(name, size_text(shapes[name]), shapes[name], note, colour, change))
    change = Change(4, "fc8, a score for each class", f"{old_shapes['fc8'][0]:,}")
    stages.append(Stage("no fc8", "", old_shapes["fc8"], change=change))
    return stages


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
    if kernel > 1 and isinstance(layer, nn.Conv2d) and along_one_side(layer.padding) == 0:
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
    """The convolutions after the base, in pairs, and the feature maps they produce."""
    stages = stages_of_auxiliary_convolutions()
    heights = [max(126, side_of_tiles(stage) + 26) for stage in stages]
    card = Card(320 + math.ceil(sum(heights)))
    card.text(600, 80, "Auxiliary convolutions", LARGE, bold=True)
    card.text(X_OF_RODS, 142, "scale of", SMALL, QUIET)
    card.text(X_OF_RODS, 184, "the base", SMALL, QUIET)
    card.text(X_OF_TILES, 142, "its tiles,", SMALL, QUIET)
    card.text(X_OF_TILES, 184, f"{ENLARGED} times", SMALL, QUIET)
    y = 220
    for number, (stage, height) in enumerate(zip(stages, heights, strict=True)):
        is_first_of_pair = number % 2 == 1  # conv7 stands alone before them
        if is_first_of_pair:
            look = {"fill": mix(LAYER, share=0.85), "radius": 14, "layer": 1}
            card.rectangle(30, y + 4, 1140, height + heights[number + 1] - 8, **look)
        draw_auxiliary(card, stage, y + height / 2)
        y += height
    card.text(600, y + 45, "coloured: feature maps that predict", NORMAL, QUIET)
    return card.image()


def stages_of_auxiliary_convolutions():
    """The end of the base, and the auxiliary convolutions: list of Stage."""
    convolutions = on_meta(AuxiliaryConvolutions)
    conv7 = FEATURE_MAPS["conv7"]
    shape = (conv7.channels, conv7.side, conv7.side)
    stages = [Stage("conv7", size_text(shape), shape, "the end of the base", MAP_COLOURS["conv7"])]
    shapes = output_shapes(convolutions, *shape)
    for name, layer in convolutions.named_children():
        note = note_on_auxiliary(layer, stages[-1].shape, shapes[name])
        colour = MAP_COLOURS.get(name, LAYER)
        stages.append(Stage(name, size_text(shapes[name]), shapes[name], note, colour))
    return stages


def side_of_tiles(stage):
    """The side of a stage's map where its tiles are enlarged, pixels."""
    return stage.shape[1] * ENLARGED * PIXELS_PER_TILE


def note_on_auxiliary(layer, shape_before, shape):
    """
    What an auxiliary convolution is and what it does.

    :param shape_before, shape: of its input and its output, (channels, height, width)
    """
    if shape_before[1] == shape[1]:
        return f"{kernel_text(layer)}: {shape_before[0]} → {shape[0]} channels"
    return f"{kernel_text(layer)}: {shape_before[1]} → {shape[1]} tiles a side"


def draw_auxiliary(card, stage, y):
    """
    Draw a feature map in the scale of the base, and its tiles enlarged.

    :param y: of the middle
    """
    draw_map(card, X_OF_RODS, y, stage.shape, stage.colour)
    side = side_of_tiles(stage)
    look = {"line": 1.2, "fill": mix(stage.colour, share=0.35)}
    edge = mix(stage.colour, INK, 0.45)
    card.grid(X_OF_TILES - side / 2, y - side / 2, side, stage.shape[1], edge, **look)
    draw_words_of_stage(card, stage, y - 26)


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
