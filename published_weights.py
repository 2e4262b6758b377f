"""Weights that others published, made into checkpoints like ours."""

import torch
from torchvision.models.detection import SSD300_VGG16_Weights

from annotations import create_label_map, voc_labels
from downloads import download_weights
from model import FEATURE_MAPS, SSD300
from safe_loading import WrongFileError, describe_read_errors, read_file
from utils import IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD

# What a checkpoint has at least: enough to make the model again. Training adds what it needs to go on.
MODEL_KEYS = ("model", "label_map", "priors_cxcy", "input_shift")
# In place of a file: torchvision's SSD300, trained on COCO, with the classes of PASCAL VOC
COCO = "coco"
HOW_TO_GET_A_MODEL = (
    f"take --checkpoint {COCO}, which downloads a detector of VOC's classes (136 MB); name another with --checkpoint; or train "
    "one: python train.py, or in minutes python train.py --toy, which leaves toy/checkpoint_ssd300.pth.tar"
)
HOW_TO_GET_THE_BASE = "the README, Start from published weights, says where it was published; or train without --base-weights"


def load_base_weights(path):
    """
    Read the base that the paper starts from: `vgg16_reducedfc.pth`, Caffe's VGG-16 with decimated fc6 and fc7.

    :param path: the file
    :return: state dict of VGGBase, and the input_shift (1, 3, 1, 1) that goes with it
    :raises FileNotFoundError: there is no such file
    :raises WrongFileError: it is damaged, asks for code to be run, or is another file
    """
    content = read_file(path, HOW_TO_GET_THE_BASE)
    with describe_read_errors(path):
        if not isinstance(content, dict) or PAPER_BASE["base.conv7"] + ".weight" not in content:
            raise WrongFileError("not the base of the paper, vgg16_reducedfc.pth")
        state = rename(content, PAPER_BASE)
        check_weights(state, n_classes=1, part="base.")
        state, input_shift = fold_input(state, CAFFE_MEAN)
    return {name.removeprefix("base."): tensor for name, tensor in state.items()}, input_shift


def to_checkpoint(content, voc_classes):
    """
    Tell the kind of a file by what is in it, and convert it.

    :param content: what read_file returned
    :param voc_classes: keep the twenty classes of PASCAL VOC of COCO's eighty
    :return: dict with MODEL_KEYS
    :raises WrongFileError: it has no weights that are known here
    """
    content = content if isinstance(content, dict) else {}
    if "backbone.scale_weight" in content:
        return from_torchvision(content, voc_classes)
    if voc_classes:
        raise WrongFileError("its classes are not COCO's, of which VOC's could be kept")
    if "vgg.0.weight" in content:
        return from_amdegroot(content)
    if PAPER_BASE["base.conv7"] + ".weight" in content:
        raise WrongFileError("the base of a network only, to train from (train.py --base-weights)")
    missing = [key for key in MODEL_KEYS if key not in content]
    if missing and "model" in content:
        raise WrongFileError(f"not a checkpoint of train.py: it has no {', '.join(missing)}")
    if missing:
        raise WrongFileError(
            f"it has no weights of a network that is known here, but: {str(list(content)[:3])[1:100]} ..."
        )
    return content


def check_label_map(label_map):
    """
    :raises WrongFileError: not {class name: number} with the numbers 0, 1, 2 ...
    """
    names = list(label_map) if isinstance(label_map, dict) else []
    if (
        not names
        or not all(isinstance(name, str) for name in names)
        or list(label_map.values()) != list(range(len(names)))
    ):
        raise WrongFileError("its label_map does not number the classes 0, 1, 2 ...")


def check_tensor(name, tensor, shape):
    """
    :raises WrongFileError: not a tensor of numbers of this shape; or one without a number for each place, which a small file can
        make as large as it likes
    """
    if not isinstance(tensor, torch.Tensor) or tensor.shape != shape:
        got = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise WrongFileError(f"{name}: expected {tuple(shape)}, got {got}")
    if (
        tensor.layout != torch.strided
        or tensor.device.type != "cpu"
        or tensor.dtype != torch.float32
    ):
        raise WrongFileError(f"{name}: expected 32-bit floating-point numbers")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise WrongFileError(f"{name}: has fewer numbers than places")


def check_weights(state, n_classes, part=""):
    """
    :param state: state dict of an SSD300, or of the part of it whose names begin with `part`
    :param n_classes: number of classes, the background counted
    :raises WrongFileError: the names or shapes are others
    """
    with torch.device("meta"):  # shapes only: nothing is allocated
        expected = {
            name: tensor.shape
            for name, tensor in SSD300(n_classes, False).state_dict().items()
            if name.startswith(part)
        }
    try:
        if not isinstance(state, dict) or set(state) != set(expected):
            different = set(expected) ^ set(state if isinstance(state, dict) else ())
            raise WrongFileError(
                f"missing or unknown: {', '.join(sorted(map(str, different))[:3])} ..."
            )
        for name, shape in expected.items():
            check_tensor(name, state[name], shape)
    except WrongFileError as error:
        network = "the base of an SSD300" if part else f"an SSD300 for its {n_classes} classes"
        raise WrongFileError(f"its weights are not those of {network}: {error}") from error


# ------------------------------------------------------------------------------------------------------ other people's networks

BASE_LAYERS = (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
    "conv5_1", "conv5_2", "conv5_3", "conv6", "conv7",
)  # fmt: skip
AUXILIARY_LAYERS = (
    "conv8_1",
    "conv8_2",
    "conv9_1",
    "conv9_2",
    "conv10_1",
    "conv10_2",
    "conv11_1",
    "conv11_2",
)
# Places in a list of all layers, poolings and ReLUs counted
VGG_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)

# What the layers of others are called: {ours: theirs}
PAPER_BASE = {
    f"base.{layer}": str(place) for layer, place in zip(BASE_LAYERS, VGG_PLACES, strict=True)
}
AMDEGROOT_LAYERS = {
    **{layer: f"vgg.{place}" for layer, place in PAPER_BASE.items()},
    **{f"aux_convs.{layer}": f"extras.{i}" for i, layer in enumerate(AUXILIARY_LAYERS)},
    **{f"pred_convs.loc_{name}": f"loc.{i}" for i, name in enumerate(FEATURE_MAPS)},
    **{f"pred_convs.cl_{name}": f"conf.{i}" for i, name in enumerate(FEATURE_MAPS)},
}
TORCHVISION_LAYERS = {
    **{
        f"base.{layer}": f"backbone.features.{place}"
        for layer, place in zip(BASE_LAYERS[:10], VGG_PLACES[:10], strict=True)
    },
    "base.conv5_1": "backbone.extra.0.1",
    "base.conv5_2": "backbone.extra.0.3",
    "base.conv5_3": "backbone.extra.0.5",
    "base.conv6": "backbone.extra.0.7.1",
    "base.conv7": "backbone.extra.0.7.3",
    **{
        f"aux_convs.{layer}": f"backbone.extra.{1 + i // 2}.{i % 2 * 2}"
        for i, layer in enumerate(AUXILIARY_LAYERS)
    },
    **{
        f"pred_convs.loc_{name}": f"head.regression_head.module_list.{i}"
        for i, name in enumerate(FEATURE_MAPS)
    },
    **{
        f"pred_convs.cl_{name}": f"head.classification_head.module_list.{i}"
        for i, name in enumerate(FEATURE_MAPS)
    },
}

# What Caffe's VGG-16 had taken off its input of values from 0 to 255, by channel: red, green, blue. amdegroot/ssd.pytorch writes
# 104, 117, 123, as it takes them off a picture in the order blue, green, red; then it turns the channels round to red, green,
# blue (data/voc0712.py), and so this is the order that all networks with its base, torchvision's too, have the input in.
CAFFE_MEAN = (123.0, 117.0, 104.0)
# torchvision/models/detection/ssd.py, ssd300_vgg16: the same to three digits, of values from 0 to 1, then multiplied by 255
TORCHVISION_MEAN = (255 * 0.48235, 255 * 0.45882, 255 * 0.40784)

# Sides of the square priors by feature map, and last the one that only the last extra prior needs
AMDEGROOT_SCALES = tuple(pixels / IMAGE_SIZE for pixels in (30, 60, 111, 162, 213, 264, 315))
TORCHVISION_SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
STEPS_PX = (
    8,
    16,
    32,
    64,
    100,
    300,
)  # between the centres of priors; tiles are a little smaller on some maps

# VOC's classes that have another name in COCO
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def from_amdegroot(content):
    """
    Convert a state dict of amdegroot/ssd.pytorch, trained on PASCAL VOC.

    :param content: {name: tensor}
    :return: dict with MODEL_KEYS
    :raises WrongFileError: names or shapes are others
    """
    n_classes = len(voc_labels) + 1
    state = rename(content, AMDEGROOT_LAYERS, "L2Norm.weight")
    check_weights(state, n_classes)
    priors_cxcy = stepped_priors(AMDEGROOT_SCALES).clamp(
        0, 1
    )  # the centres too: 20 would lie beyond the right or lower edge
    return _converted(state, create_label_map(voc_labels), priors_cxcy, CAFFE_MEAN)


def from_torchvision(content, voc_classes):
    """
    Convert a state dict of torchvision's ssd300_vgg16, trained on COCO.

    Of the 91 places for classes those that COCO never used are dropped, or all but VOC's. The scores of the others stay as they
    are, but their probabilities rise: those that the dropped ones had are shared out among them.

    :param content: {name: tensor}
    :param voc_classes: keep the twenty classes of PASCAL VOC only
    :return: dict with MODEL_KEYS
    :raises WrongFileError: names or shapes are others
    """
    categories = SSD300_VGG16_Weights.COCO_V1.meta["categories"]  # the place 0 is the background's
    if voc_classes:
        labels = voc_labels
        places = [0] + [categories.index(COCO_NAMES.get(label, label)) for label in voc_labels]
    else:
        places = [place for place, name in enumerate(categories) if name != "N/A"]
        labels = [categories[place] for place in places[1:]]
    state = rename(content, TORCHVISION_LAYERS, "backbone.scale_weight")
    check_weights(state, len(categories))
    for name in [name for name in state if ".cl_" in name]:
        state[name] = state[name].unflatten(0, (-1, len(categories)))[:, places].flatten(0, 1)
    priors_cxcy = stepped_priors(TORCHVISION_SCALES)
    priors_cxcy[:, 2:].clamp_(0, 1)
    return _converted(state, create_label_map(labels), priors_cxcy, TORCHVISION_MEAN)


def download_coco():
    """
    :return: the state dict of torchvision's ssd300_vgg16, trained on COCO
    :raises DownloadError: it can not be downloaded, or the file in the cache is damaged
    """
    return download_weights(
        SSD300_VGG16_Weights.COCO_V1,
        "torchvision's SSD300",
        "elsewhere and name the file with --checkpoint",
    )


def rename(content, layers, scale=None):
    """
    Give weights our names.

    :param content: {their name: tensor}
    :param layers: {our name of a convolution: theirs}
    :param scale: their name of conv4_3's rescaling factors (512), if there are any
    :return: {our name: tensor}
    :raises WrongFileError: a name is missing, or there are others
    """
    names = {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in layers.items()
        for kind in ("weight", "bias")
    }
    if scale is not None:
        names["rescale_factors"] = scale
    different = sorted(map(str, set(names.values()) ^ set(content)))
    if different:
        raise WrongFileError(
            f"not the network that it looks like: missing or unknown: {', '.join(different[:3])} ..."
        )
    state = {ours: content[theirs] for ours, theirs in names.items()}
    if scale is not None:
        check_tensor(scale, state["rescale_factors"], (512,))
        state["rescale_factors"] = state["rescale_factors"].view(1, 512, 1, 1)
    return state


def _converted(state, label_map, priors_cxcy, mean):
    """A checkpoint of weights under our names, but in the others' order of a tile's priors, and for an input less a mean."""
    state, input_shift = fold_input(reorder_heads(state), mean)
    return {
        "model": state,
        "label_map": label_map,
        "priors_cxcy": priors_cxcy,
        "input_shift": input_shift,
    }


def fold_input(state, mean):
    """
    Make weights for an input from 0 to 255 less a mean into weights for ours, normalised with ImageNet's mean and deviation.

    Theirs is 255 * deviation * (ours + shift). The factor goes into the first convolution. The shift can not go into its bias:
    the zeros of the padding are zeros of their input, to which nothing is added. SSD300 adds it to the image, before padding.

    :param state: {our name: tensor}
    :param mean: of red, green and blue
    :return: {our name: tensor}, and the shift (1, 3, 1, 1)
    """
    deviation = 255 * torch.tensor(IMAGENET_STD, dtype=torch.float64).view(1, 3, 1, 1)
    our_mean, mean = (
        torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
        for values in (IMAGENET_MEAN, mean)
    )
    weight = (state["base.conv1_1.weight"] * deviation).float()
    return {**state, "base.conv1_1.weight": weight}, ((255 * our_mean - mean) / deviation).float()


def reorder_heads(state):
    """
    Bring the predictions for a tile's priors from the order 1:1, extra, 2:1, 1:2, 3:1, 1:3 into ours: 1:1, extra, 2:1, 3:1 ...
    Tiles with four priors have the same order in both.
    """
    state = dict(state)
    for name, feature_map in FEATURE_MAPS.items():
        if len(feature_map.aspect_ratios) == 5:
            for key in (
                f"{head}_{name}.{kind}"
                for head in ("pred_convs.loc", "pred_convs.cl")
                for kind in ("weight", "bias")
            ):
                state[key] = state[key].unflatten(0, (6, -1))[[0, 1, 2, 4, 3, 5]].flatten(0, 1)
    return state


def stepped_priors(scales):
    """
    Priors as the authors' released code and its followers have them: centres by a step in pixels, other scales.

    :param scales: of the six feature maps and one more, fractions of the image's side
    :return: (8732, 4) float, fractional cxcy, in the order of SSD300.create_prior_boxes(); not clipped
    """
    priors = []
    tables = FEATURE_MAPS.values(), STEPS_PX, scales[:-1], scales[1:]
    for (side, _, _, aspect_ratios), step, scale, next_scale in zip(*tables, strict=True):
        sizes = [(scale * ratio**0.5, scale / ratio**0.5) for ratio in aspect_ratios]
        sizes.insert(1, ((scale * next_scale) ** 0.5,) * 2)
        priors += [
            ((column + 0.5) * step / IMAGE_SIZE, (row + 0.5) * step / IMAGE_SIZE, width, height)
            for row in range(side)
            for column in range(side)
            for width, height in sizes
        ]
    return torch.tensor(priors, dtype=torch.float32)
