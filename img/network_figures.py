"""Figures of the network: what its layers are, and how VGG-16 became its base."""

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


def on_meta(make_network, *arguments):
    """A network without weights, to look at its layers."""
    with torch.device("meta"):
        return make_network(*arguments)


def output_shapes(network, *input_shape):
    """
    The shape of each layer's output, {name: (channels, height, width)}, found by sending an image without content through it.

    :param input_shape: of one image: channels, height, width
    """
    shapes = {}
    for name, layer in network.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(
                lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])})
            )
    network(torch.empty(1, *input_shape, device="meta"))
    return shapes


def vgg16_stages():
    """The convolutions and poolings of torchvision's VGG-16 by their usual names: [name, shape] each, and those of fc6 to fc8."""
    network = on_meta(torchvision.models.vgg16)
    shapes = output_shapes(network, 3, 224, 224)
    stages, stage, number = [], 1, 1
    for i, layer in enumerate(network.features):
        if isinstance(layer, nn.Conv2d):
            stages.append([f"conv{stage}_{number}", shapes[f"features.{i}"]])
            number += 1
        elif isinstance(layer, nn.MaxPool2d):
            stages.append([f"pool{stage}", shapes[f"features.{i}"]])
            stage, number = stage + 1, 1
    linear = [
        name for name, layer in network.classifier.named_children() if isinstance(layer, nn.Linear)
    ]
    stages += [[f"fc{6 + i}", shapes[f"classifier.{name}"]] for i, name in enumerate(linear)]
    return stages


def size_text(shape):
    """A shape as height × width × channels."""
    return " × ".join(map(str, (*shape[1:], shape[0])))


def draw_stages(card, rows, y, unit):
    """
    Stages of a network one below the other: blocks as large as their feature maps are, and texts beside them.

    :param rows: (heading, shape, note, colour, is_new) each
    :param unit: pixels for a pixel of a feature map
    """
    for heading, shape, note, colour, is_new in rows:
        side = max(10, shape[1] * unit) if len(shape) == 3 else 12
        depth = shape[0] ** 0.5 * 3.2
        height = max(side + 0.45 * depth + 34, 150 if note else 112)
        top = y + (height - side + 0.45 * depth) / 2
        if is_new:
            card.rectangle(
                430, y + height / 2 - 67, 726, 134, fill=mix(MARK, share=0.45), radius=14, layer=1
            )
        x = 215 - (side + 0.75 * depth) / 2
        if len(shape) == 3:
            card.block(x, top, side, side, depth, colour)
        else:
            length = 310 * shape[0] / 4096
            look = {"fill": mix(colour, share=0.35), "edge": mix(colour, INK, 0.4), "line": 2.5}
            card.rectangle(215 - length / 2, y + height / 2 - 14, length, 28, **look)
        size = size_text(shape) if len(shape) == 3 else f"{shape[0]:,}"
        middle = y + height / 2 - (26 if note else 0)
        card.text(456, middle, heading, NORMAL, align="left", bold=True)
        card.text(1136, middle, size, NORMAL, align="right")
        if note:
            card.text(456, middle + 54, note, SMALL, HARD if is_new else QUIET, align="left")
        y += height
    return y


def vgg16():
    """VGG-16 as published."""
    rows = [("image", (3, 224, 224), "", LAYER, False)]
    stages = vgg16_stages()
    for stage in range(1, 6):
        convolutions = [(name, shape) for name, shape in stages if name.startswith(f"conv{stage}_")]
        pooled = dict(stages)[f"pool{stage}"]
        note = f"{len(convolutions)} convolutions, then pool{stage} → {pooled[1]}"
        rows.append((f"conv{stage}_1–{len(convolutions)}", convolutions[-1][1], note, LAYER, False))
    notes = {
        "fc6": f"flattens {size_text(dict(stages)['pool5'])}",
        "fc7": "",
        "fc8": "a score for each class",
    }
    rows += [
        (name, shape, notes[name], LAYER, False) for name, shape in stages if name.startswith("fc")
    ]
    card = Card(1690)
    card.text(600, 80, "VGG-16", LARGE, bold=True)
    draw_stages(card, rows, 130, 0.85)
    return card.image()


def modified_vgg16():
    """The base: what of VGG-16 changed is marked."""
    base = on_meta(VGGBase)
    shapes = output_shapes(base, 3, IMAGE_SIZE, IMAGE_SIZE)
    side = {name: shape[1] for name, shape in shapes.items()}
    vgg_side = F.max_pool2d(torch.empty(1, 1, side["conv3_3"], side["conv3_3"]), 2).size(
        -1
    )  # as VGG-16 would pool
    notes = {
        1: f"then pool1 → {side['pool1']}",
        2: f"then pool2 → {side['pool2']}",
        3: f"pool3 rounds up: {side['pool3']}, not {vgg_side}",
        4: f"also predicts; then pool4 → {side['pool4']}",
        5: f"pool5: {kernel_text(base.pool5)}: stays {side['pool5']}",
    }
    rows = [("image", (3, IMAGE_SIZE, IMAGE_SIZE), "not 224 × 224", LAYER, True)]
    for stage, note in notes.items():
        last = [name for name in shapes if name.startswith(f"conv{stage}_")][-1]
        rows.append(
            (
                f"conv{stage}_1–{last[-1]}",
                shapes[last],
                note,
                MAP_COLOURS.get(last, LAYER),
                stage >= 3,
            )
        )
    rows.append(("conv6", shapes["conv6"], f"was fc6; {kernel_text(base.conv6)}", LAYER, True))
    rows.append(
        (
            "conv7",
            shapes["conv7"],
            f"was fc7; {kernel_text(base.conv7)}; predicts",
            MAP_COLOURS["conv7"],
            True,
        )
    )
    card = Card(1775)
    card.text(600, 80, "The base of SSD300", LARGE, bold=True)
    y = draw_stages(card, rows, 130, 0.85)
    card.text(456, y + 60, "fc8 is dropped", NORMAL, HARD, "left", bold=True)
    return card.image()


def along_one_side(setting):
    """A layer's kernel size, stride, padding or dilation along one side: convolutions hold a pair, poolings a number."""
    return setting[0] if isinstance(setting, tuple) else setting


def kernel_text(layer):
    """A layer's kernel, and its stride, padding and dilation where they are part of the story."""
    kernel, stride, dilation = map(
        along_one_side, (layer.kernel_size, layer.stride, layer.dilation)
    )
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
    colour = MAP_COLOURS["conv4_3"]
    first, cell = POOL3_SIDE - 8, 118  # the first column that is shown, and the width of each
    for ceil_mode, y in ((False, 130), (True, 690)):
        pooled = F.max_pool1d(columns, 2, stride=2, ceil_mode=ceil_mode)[
            0
        ].tolist()  # the last column of each window
        name = "rounded up (ceil)" if ceil_mode else "rounded down (floor)"
        card.text(600, y - 60, f"{name}: {POOL3_SIDE} → {len(pooled)}", LARGE, bold=True)
        for column in range(first, POOL3_SIDE + 1):
            x = 69 + (column - first) * cell
            lost = column > pooled[-1]
            card.rectangle(
                x,
                y,
                cell,
                110,
                fill=mix(HARD, share=0.6) if lost else mix(colour),
                edge=INK,
                line=3,
            )
            card.text(x + cell / 2, y + 55, str(column), NORMAL, bold=lost)
            if lost:
                card.text(1060, y + 260, "dropped", NORMAL, HARD, bold=True)
        for number, last in enumerate(pooled, start=1):
            start = 2 * number - 1
            if start >= first:
                left, right = 79 + (start - first) * cell, 59 + (last - first + 1) * cell
                middle = (left + right) / 2
                card.line(
                    [(left, y + 125), (left, y + 145), (right, y + 145), (right, y + 125)], line=5
                )
                card.arrow((middle, y + 145), (middle, y + 205))
                card.rectangle(
                    middle - cell / 2,
                    y + 210,
                    cell,
                    100,
                    fill=mix(colour, share=0.5),
                    edge=INK,
                    line=3,
                )
                card.text(middle, y + 260, str(number), NORMAL)
    card.text(
        600, 1100, f"columns (and rows) of conv3_3's {POOL3_SIDE} × {POOL3_SIDE} map", NORMAL, QUIET
    )
    return card.image()


def auxiliary_convolutions():
    """The convolutions after the base, and the maps they make."""
    convolutions = on_meta(AuxiliaryConvolutions)
    first = FEATURE_MAPS["conv7"]
    shapes = output_shapes(convolutions, first.channels, first.side, first.side)
    rows = [
        (
            "conv7",
            (first.channels, first.side, first.side),
            "from the base",
            MAP_COLOURS["conv7"],
            False,
        )
    ]
    for name, layer in convolutions.named_children():
        rows.append((name, shapes[name], kernel_text(layer), MAP_COLOURS.get(name, LAYER), False))
    card = Card(1685)
    card.text(600, 80, "Auxiliary convolutions", LARGE, bold=True)
    y = draw_stages(card, rows, 120, 6.5)
    card.text(600, y + 50, "coloured: feature maps that predict", NORMAL, QUIET)
    return card.image()


def ssd_overview():
    """The whole network as a chain, from an image to detections."""
    image, boxes, names = draw_scene()
    card = Card(1945)
    card.picture(image, 60, 60, 270)
    card.text(150, 360, f"{IMAGE_SIZE} × {IMAGE_SIZE}", SMALL, QUIET)
    card.arrow((345, 195), (400, 195), line=8)
    _stage(card, 410, 95, 320, 200, "Base\n(VGG-16)")
    card.arrow((745, 195), (800, 195), line=8)
    _stage(card, 810, 95, 345, 200, "Auxiliary\nconvolutions")
    centres = [130 + 188 * i for i in range(len(FEATURE_MAPS))]
    total = 0
    for i, ((name, feature_map), x) in enumerate(zip(FEATURE_MAPS.items(), centres, strict=True)):
        side, depth = 26 + 2.7 * feature_map.side, feature_map.channels**0.5 * 0.9
        colour = MAP_COLOURS[name]
        start = (500 + 140 * i, 300) if i < 2 else (860 + 80 * (i - 2), 300)
        card.arrow(start, (x, 505 - side / 2), colour, line=5)
        card.block(x - side / 2 - 0.3 * depth, 590 - side / 2, side, side, depth, colour)
        card.text(x, 700, name, SMALL, colour, bold=True)
        card.text(x, 748, f"{feature_map.side} × {feature_map.side}", SMALL)
        card.arrow((x, 785), (x, 845), colour, line=6)
        count = feature_map.side**2 * (len(feature_map.aspect_ratios) + 1)
        card.arrow((x, 965), (x, 1020), colour, line=6)
        card.text(x, 1060, f"{count}", NORMAL, colour, bold=True)
        total += count
    _stage(card, 60, 850, 1080, 110, "Prediction convolutions on every map")
    card.text(600, 1130, f"together {total} predictions:", NORMAL)
    card.text(600, 1190, "a box and a score for each class", NORMAL)
    card.arrow((600, 1230), (600, 1290), line=8)
    _stage(card, 220, 1300, 760, 110, "Non-maximum suppression")
    card.arrow((600, 1420), (600, 1480), line=8)
    place = card.picture(image, 400, 1495, 400)
    for box, name in zip(boxes, names, strict=True):
        place.box(box, CLASS_COLOURS[name], line=6)
    return card.image()


def _stage(card, x, y, width, height, text):
    """A part of the network as a box with its name."""
    card.rectangle(
        x,
        y,
        width,
        height,
        fill=mix(LAYER, share=0.65),
        edge=mix(LAYER, INK, 0.3),
        line=4,
        radius=18,
    )
    card.text(x + width / 2, y + height / 2, text, NORMAL, bold=True)


FIGURES = {
    "ssd_overview.png": ssd_overview,
    "vgg16.png": vgg16,
    "modified_vgg16.png": modified_vgg16,
    "pool3_ceil.png": pool3_ceil,
    "auxiliary_convolutions.png": auxiliary_convolutions,
}
