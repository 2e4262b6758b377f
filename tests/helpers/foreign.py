"""
Other people's networks with random numbers: what they compute, written down a second time, and the
files they would be in.
"""

import contextlib
import importlib.util
import pickle
import sys
import types
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

POOLS_BEFORE = (2, 4, 7, 10)  # the base's convolutions that a 2 x 2 pooling stands before
BASE_SHAPES = [
    (64, 3),
    (64, 64),
    (128, 64),
    (128, 128),
    (256, 128),
    (256, 256),
    (256, 256),
    (512, 256),
] + [(512, 512)] * 5
BASE_SHAPES = [(*shape, 3, 3) for shape in BASE_SHAPES] + [(1024, 512, 3, 3), (1024, 1024, 1, 1)]
AUXILIARY_SHAPES = [
    (256, 1024, 1, 1),
    (512, 256, 3, 3),
    (128, 512, 1, 1),
    (256, 128, 3, 3),
    (128, 256, 1, 1),
    (256, 128, 3, 3),
    (128, 256, 1, 1),
    (256, 128, 3, 3),
]
# Side, channels, priors per tile
MAPS = [(38, 512, 4), (19, 1024, 6), (10, 512, 6), (5, 256, 6), (3, 256, 4), (1, 256, 4)]


class Network(NamedTuple):
    """An SSD300's weights: lists of (weight, bias), and factors of conv4_3's channels, (512,)."""

    base: list
    auxiliary: list
    locs: list
    scores: list
    scale: torch.Tensor


def random_network(n_classes=21):
    """Numbers at which the signal stays at about one from layer to layer."""
    random = torch.Generator().manual_seed(1)

    def layers(shapes):
        weights = [
            torch.randn(shape, generator=random) * (2 / np.prod(shape[1:])) ** 0.5
            for shape in shapes
        ]
        return [(weight, torch.randn(len(weight), generator=random) * 0.1) for weight in weights]

    locs, scores = ([(k * n, channels, 3, 3) for _, channels, k in MAPS] for n in (4, n_classes))
    scale = 20 + torch.randn(512, generator=random)
    return Network(
        layers(BASE_SHAPES), layers(AUXILIARY_SHAPES), layers(locs), layers(scores), scale
    )


def base_forward(layers, image):
    """
    :param layers: Network.base
    :param image: (N, 3, 300, 300) float, the network's own input
    :return: features of conv4_3 and of conv7
    """
    out = image
    conv4_3 = None
    for number, (weight, bias) in enumerate(layers):
        if number in POOLS_BEFORE:
            out = F.max_pool2d(out, 2, 2, ceil_mode=number == 7)
        if number == 13:
            out = F.max_pool2d(out, 3, 1, padding=1)
        padding = {13: 6, 14: 0}.get(number, 1)
        out = F.relu(
            F.conv2d(out, weight, bias, padding=padding, dilation=6 if number == 13 else 1)
        )
        conv4_3 = out if number <= 9 else conv4_3
    return conv4_3, out


@torch.no_grad()
def forward(network, image):
    """
    :param network: Network
    :param image: (N, 3, 300, 300) float, the network's own input
    :return: offsets (N, 8732, 4) and scores (N, 8732, n_classes), in the network's own order
    """
    conv4_3, out = base_forward(network.base, image)
    maps = [F.normalize(conv4_3) * network.scale.view(1, 512, 1, 1), out]
    for number, (weight, bias) in enumerate(network.auxiliary):
        stride, padding = (2, 1) if number in (1, 3) else (1, 0)
        out = F.relu(F.conv2d(out, weight, bias, stride=stride, padding=padding))
        maps += [out] * (number % 2)

    def predictions(heads):
        outs = [
            F.conv2d(features, *head, padding=1) for features, head in zip(maps, heads, strict=True)
        ]
        outs = [out.permute(0, 2, 3, 1).flatten(1) for out in outs]
        n_values = sum(out.shape[1] for out in outs) // 8732
        return torch.cat(outs, dim=1).view(len(image), 8732, n_values)

    return predictions(network.locs), predictions(network.scores)


def amdegroot_order(values):
    """(N, 8732, ...) in the order 1, extra, 2, 1/2, 3, 1/3 of a tile's priors -> in our order"""
    parts = []
    start = 0
    for side, _, k in MAPS:
        part = values[:, start : start + side * side * k].unflatten(1, (side * side, k))
        if k == 6:
            part = torch.stack([part[:, :, i] for i in (0, 1, 2, 4, 3, 5)], dim=2)
        parts.append(part.flatten(1, 2))
        start += side * side * k
    return torch.cat(parts, dim=1)


def amdegroot_priors():
    """The priors of amdegroot/ssd.pytorch in its own order, (8732, 4)."""
    priors = []
    sizes_px = (30, 60, 111, 162, 213, 264, 315)
    for (side, _, k), step, small, large in zip(
        MAPS, (8, 16, 32, 64, 100, 300), sizes_px[:-1], sizes_px[1:], strict=True
    ):
        for row in range(side):
            for column in range(side):
                centre = (column + 0.5) * step / 300, (row + 0.5) * step / 300
                priors += [
                    (*centre, side_px / 300, side_px / 300)
                    for side_px in (small, (small * large) ** 0.5)
                ]
                for ratio in (2, 3)[: k // 2 - 1]:
                    long, short = small / 300 * ratio**0.5, small / 300 / ratio**0.5
                    priors += [(*centre, long, short), (*centre, short, long)]
    return torch.tensor(priors).clamp(0, 1)


def caffe_input(image):
    """
    What amdegroot/ssd.pytorch makes of an image: blue, green, red from OpenCV; less a mean;
    reversed to red, green, blue.

    :param image: (300, 300, 3) uint8, red, green, blue
    :return: (1, 3, 300, 300) float
    """
    bgr = image[:, :, ::-1].astype(np.float32) - np.array([104, 117, 123], dtype=np.float32)
    return torch.from_numpy(bgr[:, :, (2, 1, 0)]).permute(2, 0, 1).unsqueeze(0)


def lufficc_input(image):
    """
    What lufficc/SSD makes of an image, which it reads with Pillow: red, green, blue, less a mean.

    :param image: (300, 300, 3) uint8, red, green, blue
    :return: (1, 3, 300, 300) float
    """
    pixels = image.astype(np.float32) - np.array([123, 117, 104], dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)


def state_dict(**layers):
    """{"vgg.{}": [(weight, bias), ...]} with the places of layers -> {"vgg.0.weight": ...}"""
    return {
        f"{name}{place}.{kind}": tensor
        for name, placed in layers.items()
        for place, pair in placed.items()
        for kind, tensor in zip(("weight", "bias"), pair, strict=True)
    }


VGG_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)


def amdegroot_state(network):
    """The state dict of amdegroot/ssd.pytorch's network."""
    base = dict(zip(VGG_PLACES, network.base, strict=True))
    others = {"extras.": network.auxiliary, "loc.": network.locs, "conf.": network.scores}
    state = state_dict(
        **{"vgg.": base}, **{name: dict(enumerate(layers)) for name, layers in others.items()}
    )
    return {**state, "L2Norm.weight": network.scale}


def lufficc_state(network):
    """The state dict of lufficc/SSD's network."""
    base = dict(zip(VGG_PLACES, network.base, strict=True))
    others = {
        "backbone.extras.": network.auxiliary,
        "box_head.predictor.cls_headers.": network.scores,
        "box_head.predictor.reg_headers.": network.locs,
    }
    state = state_dict(
        **{"backbone.vgg.": base},
        **{name: dict(enumerate(layers)) for name, layers in others.items()},
    )
    return {**state, "backbone.l2_norm.weight": network.scale}


def lufficc_checkpoint(state):
    """
    What lufficc/SSD's train.py saves: beside the weights those of the optimizer, which PyTorch 1.1
    told by their places in memory, and of the schedule, and the iteration.
    """
    momentum = {
        140_000_000_000_000 + 72 * number: {"momentum_buffer": torch.zeros_like(tensor)}
        for number, tensor in enumerate(state.values())
    }
    group = {"lr": 1e-5, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}
    schedule = {"milestones": [80_000, 100_000], "gamma": 0.1, "warmup_iters": 500}
    return {
        "model": OrderedDict(state),
        "optimizer": {"state": momentum, "param_groups": [{**group, "params": list(momentum)}]},
        "scheduler": {**schedule, "base_lrs": [0.001], "last_epoch": 120_000},
        "iteration": 120_000,
    }


def lufficc_priors(min_sizes_px, max_sizes_px):
    """The priors of lufficc/SSD in its own order, (8732, 4)."""
    priors = []
    shapes = ([2], [2, 3], [2, 3], [2, 3], [2], [2])
    for (side, _, _), stride, small, large, ratios in zip(
        MAPS, (8, 16, 32, 64, 100, 300), min_sizes_px, max_sizes_px, shapes, strict=True
    ):
        for row in range(side):
            for column in range(side):
                centre = [(column + 0.5) * stride / 300, (row + 0.5) * stride / 300]
                for size_px in (small, (small * large) ** 0.5):
                    priors.append([*centre, size_px / 300, size_px / 300])
                for root in (ratio**0.5 for ratio in ratios):
                    priors.append([*centre, small / 300 * root, small / 300 / root])
                    priors.append([*centre, small / 300 / root, small / 300 * root])
    return torch.tensor(priors).clamp(0, 1)


def lufficc_boxes(locs, priors):
    """
    Offsets (N, 8732, 4) from priors (8732, 4), with lufficc/SSD's variances 0.1 and 0.2 -> boxes
    xy.
    """
    centres = locs[..., :2] * 0.1 * priors[:, 2:] + priors[:, :2]
    sizes = torch.exp(locs[..., 2:] * 0.2) * priors[:, 2:]
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1)


def paper_base_state(network):
    """vgg16_reducedfc.pth"""
    return state_dict(**{"": dict(zip(VGG_PLACES, network.base, strict=True))})


def save_old(content, path):
    """Write a file as PyTorch did before version 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def old_file(payload, keys=(), values=b""):
    """The bytes of a file in PyTorch's old format around a pickle."""
    machine = {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    head = b"".join(
        pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, machine)
    )
    return head + payload + pickle.dumps(list(keys), protocol=2) + values


def zip_file(payload, path, records=None):
    """Write a file in PyTorch's zip format around a pickle; records are {name: bytes}."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        for name, content in (records or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


# -------------------------------------------------------------- the published tutorial's checkpoint

TUTORIAL_SOURCE = """
from torch import nn

BASE = "1_1 1_2 2_1 2_2 3_1 3_2 3_3 4_1 4_2 4_3 5_1 5_2 5_3 6 7".split()
AUXILIARY = "8_1 8_2 9_1 9_2 10_1 10_2 11_1 11_2".split()
MAPS = "conv4_3 conv7 conv8_2 conv9_2 conv10_2 conv11_2".split()


class VGGBase(nn.Module):
    def __init__(self, make):
        super().__init__()
        for name in BASE:
            setattr(self, "conv" + name, make("base"))
        self.pool1 = nn.MaxPool2d(kernel_size=2, stride=2)


class AuxiliaryConvolutions(nn.Module):
    def __init__(self, make):
        super().__init__()
        for name in AUXILIARY:
            setattr(self, "conv" + name, make("auxiliary"))


class PredictionConvolutions(nn.Module):
    def __init__(self, make, n_classes):
        super().__init__()
        self.n_classes = n_classes
        for name in MAPS:
            setattr(self, "loc_" + name, make("locs"))
        for name in MAPS:
            setattr(self, "cl_" + name, make("scores"))


class SSD300(nn.Module):
    def __init__(self, make, n_classes, rescale_factors, priors_cxcy):
        super().__init__()
        self.n_classes = n_classes
        self.base = VGGBase(make)
        self.aux_convs = AuxiliaryConvolutions(make)
        self.pred_convs = PredictionConvolutions(make, n_classes)
        self.rescale_factors = rescale_factors
        self.priors_cxcy = priors_cxcy
"""


class OldParameter:
    """Pickled as PyTorch 0.4 pickled a parameter."""

    def __init__(self, parameter):
        self.parameter = parameter

    def __reduce__(self):
        return nn.Parameter, (self.parameter.data, True)


class OldBackend:
    """Pickled as what every module of PyTorch 0.4 had as its `_backend`."""

    def __reduce__(self):
        return sys.modules["torch.nn.backends.thnn"]._get_thnn_function_backend, ()


@contextlib.contextmanager
def fake_modules(folder):
    """
    A context in which `model` is the tutorial's, and PyTorch's old internals are there; gives the
    module `model`.
    """
    path = folder / "model.py"
    path.write_text(TUTORIAL_SOURCE)
    specification = importlib.util.spec_from_file_location("model", path)
    module = importlib.util.module_from_spec(specification)
    thnn = types.ModuleType("torch.nn.backends.thnn")
    exec("def _get_thnn_function_backend(): pass", thnn.__dict__)
    fakes = {"model": module, "torch.nn.backends.thnn": thnn}
    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        specification.loader.exec_module(module)
        yield module
    finally:
        for name, old in before.items():
            sys.modules.pop(name)
            if old is not None:
                sys.modules[name] = old


def age(module):
    """Make the parameters of a module and of all in it what they were in PyTorch 0.4."""
    for part in module.modules():
        part.__dict__["_backend"] = OldBackend()
        part._parameters.update(
            {name: OldParameter(parameter) for name, parameter in part._parameters.items()}
        )


def save_tutorial_checkpoint(network, priors_cxcy, path, old=True, n_classes=21, zipped=False):
    """
    Write what the published tutorial's train.py wrote: a dict with the model and the optimizer as
    objects.

    :param old: as PyTorch 0.4 did, from a GPU, with the source code of the classes and with the
        losses that some versions kept
    :param zipped: in the format of PyTorch since version 1.6
    """
    layers = {
        name: iter(getattr(network, name)) for name in ("base", "auxiliary", "locs", "scores")
    }

    def make(part):
        weight, bias = next(layers[part])
        convolution = nn.Conv2d(1, 1, 1)
        convolution.weight, convolution.bias = nn.Parameter(weight), nn.Parameter(bias)
        return convolution

    with fake_modules(path.parent) as tutorial, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that source code can not be found
        model = tutorial.SSD300(
            make, n_classes, nn.Parameter(network.scale.view(1, 512, 1, 1)), priors_cxcy
        )
        parameter = model.rescale_factors
        if old:
            age(model)
            parameter = model._parameters["rescale_factors"]
        else:
            tutorial.__file__ = None
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3, momentum=0.9)
        optimizer.param_groups[0]["params"] = [parameter]
        optimizer.state = defaultdict(
            dict, {parameter: {"momentum_buffer": torch.zeros(1, 512, 1, 1)}}
        )
        losses = (
            {"best_loss": 2.515, "epochs_since_improvement": 3, "loss": torch.tensor(2.5)}
            if old
            else {}
        )
        content = {"epoch": 186, **losses, "model": model, "optimizer": optimizer}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    if old:
        data = path.read_bytes().replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n")
        path.write_bytes(data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"))
    return path
