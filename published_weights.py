"""
Weights that others published, made into checkpoints like ours.

Every SSD300 computes the same, but each project has its own names for the layers, its own order and
shape of the priors, and its own normalisation of the input. A conversion takes these in turn:
rename(), reorder_heads() and stepped_priors(), fold_input().
"""

import reprlib

import torch
from torchvision.models.detection import SSD300_VGG16_Weights

from annotations import create_label_map, voc_labels
from downloads import download_weights
from model import FEATURE_MAPS, MAX_WIDTH, SSD300
from safe_loading import StandIn, WrongFileError, describe_read_errors, read_file
from utils import IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD

# What every checkpoint has: enough to make the model again. Training adds what it needs to go on.
MODEL_KEYS = ("model", "label_map", "priors_cxcy", "input_shift", "width")
# In place of a file: torchvision's SSD300, trained on COCO
COCO = "coco"
HOW_TO_GET_A_MODEL = (
    f"name another file; or give {COCO} in its place, which downloads a detector of COCO's 80 "
    "classes (136 MB); or train one: python train.py, or in minutes python train.py --toy, which "
    "leaves toy/checkpoint_ssd300.pth.tar"
)
ONLY_FOR_COCO = "--voc-classes is only for files of COCO's classes"
HOW_TO_GET_THE_BASE = (
    "the README, Start from published weights, says where it was published; or train without "
    "--base-weights"
)


def to_checkpoint(content, voc_classes):
    """
    Tell by its content what kind of file it is, and convert it.

    :param content: what read_file returned
    :param voc_classes: keep only PASCAL VOC's 20 of COCO's 80 classes
    :return: dict with MODEL_KEYS, where a missing width means 1; of our own checkpoints, all that
        is in them
    :raises WrongFileError: it has no weights that we know
    """
    content = content if isinstance(content, dict) else {}
    if "backbone.scale_weight" in content:
        return from_torchvision(content, voc_classes)
    if has_lufficc_names(content.get("model")):
        return from_lufficc(content["model"], voc_classes)
    if voc_classes:
        raise WrongFileError(ONLY_FOR_COCO)
    if "vgg.0.weight" in content:
        return from_amdegroot(content)
    if isinstance(content.get("model"), StandIn):
        return from_tutorial(content["model"])
    if PAPER_LAYERS["base.conv7"] + ".weight" in content:
        raise WrongFileError("only the base of a network, to train from (train.py --base-weights)")
    missing = [key for key in MODEL_KEYS if key not in content and key != "width"]
    if missing and "model" in content:
        raise WrongFileError(f"not a checkpoint of train.py: it has no {', '.join(missing)}")
    if missing:
        found = str(list(content)[:3])[1:100]
        raise WrongFileError(f"it has no weights of a network that we know, but: {found} ...")
    return content


def download_coco():
    """
    :return: the state dict of torchvision's ssd300_vgg16, trained on COCO
    :raises DownloadError: it could not be downloaded, or the file in the cache is damaged
    """
    return download_weights(
        SSD300_VGG16_Weights.COCO_V1,
        "torchvision's SSD300",
        f"and give that file in place of {COCO}",
    )


# --------------------------------------------------------------------------- the published networks

# COCO's numbers go up to 90, of which it uses 80; background is 0
COCO_CATEGORIES = SSD300_VGG16_Weights.COCO_V1.meta["categories"]
COCO_LABELS = [name for name in COCO_CATEGORIES[1:] if name != "N/A"]


def from_tutorial(model):
    """
    Convert the model of the published tutorial, which its train.py saved as an object. Its layers,
    its order of priors and its input are ours.

    :param model: StandIn for an object of class SSD300
    :return: dict with MODEL_KEYS
    :raises WrongFileError: the model is not what it should be
    """
    n_classes = len(voc_labels) + 1
    state = {name: tutorial_parameter(model, name) for name in expected_shapes(n_classes)}
    n_scores = 4 * n_classes  # conv4_3 has four priors per tile
    if len(state["pred_convs.cl_conv4_3.bias"]) != n_scores:
        raise WrongFileError("its model has other classes than VOC's, without their names")
    return {
        "model": state,
        "label_map": create_label_map(voc_labels),
        "priors_cxcy": model.state["priors_cxcy"],  # made with 0.333 where ours have 1/3
        "input_shift": torch.zeros(1, 3, 1, 1),
    }


def tutorial_parameter(model, name):
    """Parameter "base.conv1_1.weight" of a model: the weight of the conv1_1 in its module base."""
    *modules, parameter = name.split(".")
    for module in modules:
        model = model.state["_modules"][module]
    return model.state["_parameters"][parameter]


def from_amdegroot(content):
    """
    Convert a state dict of amdegroot/ssd.pytorch, trained on PASCAL VOC.

    :param content: {name: tensor}
    :return: dict with MODEL_KEYS
    :raises WrongFileError: names or shapes are others
    """
    n_classes = len(voc_labels) + 1
    state = rename(content, AMDEGROOT_LAYERS, scale="L2Norm.weight")
    check_weights(state, n_classes)
    state, input_shift = fold_input(reorder_heads(state), CAFFE_MEAN)
    return {
        "model": state,
        "label_map": create_label_map(voc_labels),
        "priors_cxcy": clipped_priors(VOC_SCALES),
        "input_shift": input_shift,
    }


def has_lufficc_names(content):
    """Whether something is a state dict with names as in lufficc/SSD, of any of its networks."""
    names = content if isinstance(content, dict) else ()
    return any(isinstance(name, str) and name.startswith(LUFFICC_HEADS) for name in names)


def from_lufficc(content, voc_classes):
    """
    Convert a state dict of lufficc/SSD, trained on PASCAL VOC (vgg_ssd300_voc0712.pth) or on COCO
    (vgg_ssd300_coco_trainval35k.pth): which of them, the number of its classes tells. Either has
    the priors that the authors released for that data set.

    :param content: {name: tensor}
    :param voc_classes: keep only the 20 classes of PASCAL VOC
    :return: dict with MODEL_KEYS
    :raises WrongFileError: names, shapes or classes are others
    """
    state = rename(content, LUFFICC_LAYERS, scale="backbone.l2_norm.weight")
    n_classes = len(state["pred_convs.cl_conv4_3.bias"]) // 4  # conv4_3 has four priors per tile
    data_sets = {len(labels) + 1: (labels, scales) for labels, scales in LUFFICC_DATA_SETS}
    if n_classes not in data_sets:
        raise WrongFileError(
            f"its model has {n_classes} classes, without their names: expected VOC's 21 or COCO's "
            "81, background included"
        )
    labels, scales = data_sets[n_classes]
    check_weights(state, n_classes)
    if voc_classes:
        if labels == voc_labels:
            raise WrongFileError(ONLY_FOR_COCO)
        keep_classes(state, [0] + [1 + labels.index(canonical_name(name)) for name in voc_labels])
        labels = voc_labels
    state, input_shift = fold_input(reorder_heads(state), CAFFE_MEAN)
    return {
        "model": state,
        "label_map": create_label_map(labels),
        "priors_cxcy": clipped_priors(scales),
        "input_shift": input_shift,
    }


def from_torchvision(content, voc_classes):
    """
    Convert a state dict of torchvision's ssd300_vgg16, trained on COCO.

    It predicts scores for 91 numbers, of which COCO uses 80, and one for background. The other rows
    are dropped, or all but those of VOC's classes. The scores that stay are the same, but their
    probabilities rise: they share what the dropped ones had.

    :param content: {name: tensor}
    :param voc_classes: keep only the 20 classes of PASCAL VOC
    :return: dict with MODEL_KEYS
    :raises WrongFileError: names or shapes are others
    """
    labels = voc_labels if voc_classes else COCO_LABELS
    numbers = [0] + [COCO_CATEGORIES.index(canonical_name(name)) for name in labels]
    state = rename(content, TORCHVISION_LAYERS, scale="backbone.scale_weight")
    check_weights(state, len(COCO_CATEGORIES))
    keep_classes(state, numbers)
    state, input_shift = fold_input(reorder_heads(state), TORCHVISION_MEAN)
    priors_cxcy = stepped_priors(COCO_SCALES)
    priors_cxcy[:, 2:].clamp_(0, 1)
    return {
        "model": state,
        "label_map": create_label_map(labels),
        "priors_cxcy": priors_cxcy,
        "input_shift": input_shift,
    }


def load_base_weights(path):
    """
    Read the base that the paper starts from: `vgg16_reducedfc.pth`, which is Caffe's VGG-16 with
    decimated fc6 and fc7.

    :param path: the file
    :return: state dict of VGGBase, and the input_shift (1, 3, 1, 1) that goes with it
    :raises FileNotFoundError: there is no such file
    :raises WrongFileError: it is damaged, asks for code to be run, or is another file
    """
    content = read_file(path, HOW_TO_GET_THE_BASE)
    with describe_read_errors(path):
        if not isinstance(content, dict) or PAPER_LAYERS["base.conv7"] + ".weight" not in content:
            raise WrongFileError("not the base of the paper, vgg16_reducedfc.pth")
        state = rename(content, PAPER_LAYERS)
        check_weights(state, n_classes=1, part="base.")
        state, input_shift = fold_input(state, CAFFE_MEAN)
    return {name.removeprefix("base."): tensor for name, tensor in state.items()}, input_shift


# ------------------------------------------------------------------------------ names of the layers

# What our convolutions are called in the files of others. In the paper's base it is their place
# among all its layers, poolings and ReLUs included.
PAPER_LAYERS = {
    "base.conv1_1": "0",
    "base.conv1_2": "2",
    "base.conv2_1": "5",
    "base.conv2_2": "7",
    "base.conv3_1": "10",
    "base.conv3_2": "12",
    "base.conv3_3": "14",
    "base.conv4_1": "17",
    "base.conv4_2": "19",
    "base.conv4_3": "21",
    "base.conv5_1": "24",
    "base.conv5_2": "26",
    "base.conv5_3": "28",
    "base.conv6": "31",
    "base.conv7": "33",
}

AMDEGROOT_LAYERS = {
    **{ours: f"vgg.{place}" for ours, place in PAPER_LAYERS.items()},
    "aux_convs.conv8_1": "extras.0",
    "aux_convs.conv8_2": "extras.1",
    "aux_convs.conv9_1": "extras.2",
    "aux_convs.conv9_2": "extras.3",
    "aux_convs.conv10_1": "extras.4",
    "aux_convs.conv10_2": "extras.5",
    "aux_convs.conv11_1": "extras.6",
    "aux_convs.conv11_2": "extras.7",
    **{f"pred_convs.loc_{name}": f"loc.{i}" for i, name in enumerate(FEATURE_MAPS)},
    **{f"pred_convs.cl_{name}": f"conf.{i}" for i, name in enumerate(FEATURE_MAPS)},
}

# The same network in modules of other names (lufficc/SSD, ssd/modeling)
LUFFICC_HEADS = "box_head.predictor."
LUFFICC_LAYERS = {
    **{
        ours: f"backbone.{theirs}"
        for ours, theirs in AMDEGROOT_LAYERS.items()
        if not ours.startswith("pred_convs.")
    },
    **{
        f"pred_convs.loc_{name}": f"{LUFFICC_HEADS}reg_headers.{i}"
        for i, name in enumerate(FEATURE_MAPS)
    },
    **{
        f"pred_convs.cl_{name}": f"{LUFFICC_HEADS}cls_headers.{i}"
        for i, name in enumerate(FEATURE_MAPS)
    },
}

TORCHVISION_LAYERS = {
    # Its "features" end with conv4_3, and all that follows is "extra"
    **{ours: f"backbone.features.{PAPER_LAYERS[ours]}" for ours in list(PAPER_LAYERS)[:10]},
    "base.conv5_1": "backbone.extra.0.1",
    "base.conv5_2": "backbone.extra.0.3",
    "base.conv5_3": "backbone.extra.0.5",
    "base.conv6": "backbone.extra.0.7.1",
    "base.conv7": "backbone.extra.0.7.3",
    "aux_convs.conv8_1": "backbone.extra.1.0",
    "aux_convs.conv8_2": "backbone.extra.1.2",
    "aux_convs.conv9_1": "backbone.extra.2.0",
    "aux_convs.conv9_2": "backbone.extra.2.2",
    "aux_convs.conv10_1": "backbone.extra.3.0",
    "aux_convs.conv10_2": "backbone.extra.3.2",
    "aux_convs.conv11_1": "backbone.extra.4.0",
    "aux_convs.conv11_2": "backbone.extra.4.2",
    **{
        f"pred_convs.loc_{name}": f"head.regression_head.module_list.{i}"
        for i, name in enumerate(FEATURE_MAPS)
    },
    **{
        f"pred_convs.cl_{name}": f"head.classification_head.module_list.{i}"
        for i, name in enumerate(FEATURE_MAPS)
    },
}


def rename(content, layers, scale=None):
    """
    Give weights our names.

    :param content: {their name: tensor}
    :param layers: {our name of a convolution: theirs}
    :param scale: their name of conv4_3's rescaling factors (512,), if they have any
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
            "not the network that it looks like: missing or unknown: "
            f"{', '.join(different[:3])} ..."
        )
    state = {ours: content[theirs] for ours, theirs in names.items()}
    if scale is not None:
        check_tensor(scale, state["rescale_factors"], (512,))
        state["rescale_factors"] = state["rescale_factors"].view(1, 512, 1, 1)
    return state


# ------------------------------------------------------------------------------------- their priors

# Sides of the square priors by feature map, as the authors released them for each data set; the
# last one is for the last map's extra prior
VOC_SCALES = [pixels / IMAGE_SIZE for pixels in (30, 60, 111, 162, 213, 264, 315)]
COCO_SCALES = [pixels / IMAGE_SIZE for pixels in (21, 45, 99, 153, 207, 261, 315)]
LUFFICC_DATA_SETS = ((voc_labels, VOC_SCALES), (COCO_LABELS, COCO_SCALES))
# Pixels from one centre to the next. On some maps, tiles are a little smaller than that.
STEPS_PX = [8, 16, 32, 64, 100, 300]
# In their order 1:1, extra, 2:1, 1:2, 3:1, 1:3 of a tile's priors, where those of ours are
ORDER_OF_SIX = [0, 1, 2, 4, 3, 5]


def reorder_heads(state):
    """
    Bring the predictions for a tile's priors from the order 1:1, extra, 2:1, 1:2, 3:1, 1:3 into
    ours: 1:1, extra, 2:1, 3:1, 1:2, 1:3. Tiles with four priors have the same order in both.

    :param state: {our name: tensor}
    :return: the same, reordered
    """
    state = dict(state)
    six_priors = [name for name, table in FEATURE_MAPS.items() if len(table.aspect_ratios) == 5]
    for name in six_priors:
        for head in (f"pred_convs.loc_{name}", f"pred_convs.cl_{name}"):
            for key in (f"{head}.weight", f"{head}.bias"):
                by_prior = state[key].unflatten(0, (6, -1))
                state[key] = by_prior[ORDER_OF_SIX].flatten(0, 1)
    return state


def stepped_priors(scales):
    """
    Priors as in the authors' released code and its followers: centres by a step in pixels, and
    other scales.

    :param scales: of the six feature maps and one more, fractions of the image's side
    :return: (8732, 4) float, fractional cxcy, in the order of SSD300.create_prior_boxes(); not
        clipped
    """
    priors = []
    tables = zip(FEATURE_MAPS.values(), STEPS_PX, scales[:-1], scales[1:], strict=True)
    for feature_map, step, scale, next_scale in tables:
        sizes = [(scale * r**0.5, scale / r**0.5) for r in feature_map.aspect_ratios]
        extra = (scale * next_scale) ** 0.5
        sizes.insert(1, (extra, extra))
        centres = [(i + 0.5) * step / IMAGE_SIZE for i in range(feature_map.side)]
        priors += [
            (c_x, c_y, width, height)
            for c_y in centres
            for c_x in centres
            for width, height in sizes
        ]
    return torch.tensor(priors, dtype=torch.float32)


def clipped_priors(scales):
    """Stepped priors, see there, with all four numbers clipped to the image."""
    # Also the centres: the last ones of conv8_2 would lie outside
    return stepped_priors(scales).clamp_(0, 1)


def released_priors():
    """
    The priors of the authors' released code for VOC (examples/ssd/ssd_pascal.py in their Caffe),
    which clips nothing.

    :return: (8732, 4) float, fractional cxcy
    """
    return stepped_priors(VOC_SCALES)


# What train.py can begin with, by the name of the parameter
PRIORS = {"paper": SSD300.create_prior_boxes, "released": released_priors}
OTHER_PRIORS = "other"


def name_priors(priors_cxcy):
    """
    :param priors_cxcy: (8732, 4) float
    :return: which of PRIORS they are, or "other": those of converted networks may be clipped
    """
    for name, create_priors in PRIORS.items():
        # The tutorial's have 0.333 for 1/3, and are meant to be the paper's
        if torch.allclose(priors_cxcy, create_priors(), rtol=0, atol=5e-4):
            return name
    return OTHER_PRIORS


# -------------------------------------------------------------------------------------- their input

# What is subtracted from inputs of 0 to 255 by channel: red, green, blue. amdegroot/ssd.pytorch
# subtracts (104, 117, 123) from an image in the order blue, green, red, and then reverses the
# channels (data/voc0712.py). So all networks with its base, also torchvision's, expect red first.
CAFFE_MEAN = (123.0, 117.0, 104.0)
# The same to three digits: torchvision subtracts it from values of 0 to 1, then multiplies by 255
# (torchvision/models/detection/ssd.py, ssd300_vgg16)
TORCHVISION_MEAN = (255 * 0.48235, 255 * 0.45882, 255 * 0.40784)


def fold_input(state, mean):
    """
    Make weights for inputs of 0 to 255 less a mean into weights for our inputs, which are
    normalised with ImageNet's mean and standard deviation.

    Their input is 255 * deviation * (our input + shift). The factor goes into the first
    convolution. The shift cannot go into its bias: the zeros of the padding are zeros of their
    input, to which nothing is added. So SSD300 adds it to the image, before padding.

    :param state: {our name: tensor}
    :param mean: of red, green and blue
    :return: {our name: tensor}, and the shift (1, 3, 1, 1)
    """
    deviation = 255 * per_channel(IMAGENET_STD)
    weight = state["base.conv1_1.weight"] * deviation
    input_shift = (255 * per_channel(IMAGENET_MEAN) - per_channel(mean)) / deviation
    return {**state, "base.conv1_1.weight": weight.float()}, input_shift.float()


def per_channel(values):
    """Three numbers as a tensor (1, 3, 1, 1) of float64."""
    return torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)


# ------------------------------------------------------------------------------------ other classes

# VOC's classes that have another name in COCO
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def canonical_name(name):
    """The same name for the same thing: in lower case, and COCO's where VOC's is another."""
    return COCO_NAMES.get(name.lower(), name.lower())


def match_numbers(old_label_map, new_label_map):
    """
    Which classes of two detectors or data sets are the same, by name.

    :param old_label_map: {class name: number}, background 0
    :param new_label_map: the same, of other classes
    :return: {new number: old number} of background and of the classes that both have
    """
    by_canonical_name = {canonical_name(name): number for name, number in old_label_map.items()}
    numbers = {0: 0}
    for name, number in new_label_map.items():
        # The exact name comes first: a map may have both spellings of a class
        same = by_canonical_name.get(canonical_name(name))
        old_number = old_label_map.get(name, same)
        if number > 0 and old_number:
            numbers[number] = old_number
    return numbers


def match_classes(state, label_map):
    """
    Fit a detector to other classes. All its layers stay; of the convolutions that predict scores,
    the rows of background and of the classes that both have, see match_numbers(). The rows of the
    other classes start anew, as in a new SSD300, with torch's random numbers.

    :param state: dict with MODEL_KEYS
    :param label_map: {class name: number} of the new classes, background 0
    :return: state dict of an SSD300 for the new classes; list of the classes that were taken over,
        under their new names
    """
    numbers = match_numbers(state["label_map"], label_map)
    model = SSD300(len(label_map), pretrained=False, width=state["width"])
    weights = model.state_dict()
    for name, tensor in state["model"].items():
        if is_class_head(name):
            rows = rows_by_class(weights[name], len(label_map))  # a view
            old_rows = rows_by_class(tensor, len(state["label_map"]))
            rows[:, list(numbers)] = old_rows[:, list(numbers.values())]
        else:
            weights[name] = tensor
    return weights, [name for name, number in label_map.items() if 0 < number in numbers]


def is_class_head(name):
    """Whether a weight or bias belongs to a convolution that predicts scores of classes."""
    return name.startswith("pred_convs.cl_")


def keep_classes(state, numbers):
    """
    Drop all rows of the convolutions that predict scores but those of some classes, in place.

    :param state: {our name: tensor}
    :param numbers: the numbers of the classes to keep, in their new order
    """
    n_classes = len(state["pred_convs.cl_conv4_3.bias"]) // 4  # conv4_3 has four priors per tile
    for name in filter(is_class_head, state):
        state[name] = rows_by_class(state[name], n_classes)[:, numbers].flatten(0, 1)


def rows_by_class(tensor, n_classes):
    """(priors per tile * n_classes, ...) -> a view (priors per tile, n_classes, ...)"""
    return tensor.unflatten(0, (-1, n_classes))


# ------------------------------------------------------------------------------------------- checks


def check_label_map(label_map):
    """
    :raises WrongFileError: not {class name: number} with the numbers 0, 1, 2 ...
    """
    items = list(label_map.items()) if isinstance(label_map, dict) else []
    is_numbered = all(
        isinstance(name, str) and type(number) is int and number == expected
        for expected, (name, number) in enumerate(items)
    )
    if not items or not is_numbered:
        raise WrongFileError("its label_map does not number the classes 0, 1, 2 ...")


def check_width(width):
    """:raises WrongFileError: not the width of a network"""
    if type(width) not in (int, float) or not 0 < width <= MAX_WIDTH:
        raise WrongFileError(f"its width is {reprlib.repr(width)}, not a number up to {MAX_WIDTH}")


def check_tensor(name, tensor, shape):
    """
    :raises WrongFileError: not a tensor of 32-bit numbers of this shape; or one that shows the same
        number in many places, which can be as large as a small file likes
    """
    if not isinstance(tensor, torch.Tensor):
        raise WrongFileError(f"{name}: expected {tuple(shape)}, got {type(tensor).__name__}")
    if tensor.shape != shape:
        raise WrongFileError(f"{name}: expected {tuple(shape)}, got {tuple(tensor.shape)}")
    if tensor.dtype != torch.float32:
        raise WrongFileError(f"{name}: expected 32-bit floating-point numbers, got {tensor.dtype}")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise WrongFileError(f"{name}: has fewer numbers than places")


def check_weights(state, n_classes, width=1.0, part=""):
    """
    :param state: state dict of an SSD300, or of the part of it whose names begin with `part`
    :param n_classes: number of classes, including background
    :param width: see SSD300
    :raises WrongFileError: the names or shapes are others
    """
    shapes = expected_shapes(n_classes, width)
    shapes = {name: shape for name, shape in shapes.items() if name.startswith(part)}
    try:
        different = set(shapes) ^ set(state if isinstance(state, dict) else ())
        if different:
            raise WrongFileError(
                f"missing or unknown: {', '.join(sorted(map(str, different))[:3])} ..."
            )
        for name, shape in shapes.items():
            check_tensor(name, state[name], shape)
    except WrongFileError as error:
        network = "the base of an SSD300" if part else f"an SSD300 for its {n_classes} classes"
        raise WrongFileError(f"its weights are not those of {network}: {error}") from error


def expected_shapes(n_classes, width=1.0):
    """The names and shapes in the state dict of an SSD300."""
    with torch.device("meta"):  # shapes only: nothing is allocated
        state = SSD300(n_classes, pretrained=False, width=width).state_dict()
    return {name: tensor.shape for name, tensor in state.items()}
