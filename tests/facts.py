"""The numbers that the README states, computed from the code: layers, priors, offsets, the worked examples, the schedule."""

import ast
import inspect
import math
import re
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision

import create_data_lists
import detection_figures
import eval
import model
import train
import training_figures
import utils
from examples import (
    AP_OBJECTS,
    FC_BIASES,
    FC_IMAGE,
    FC_WEIGHTS,
    JACCARD_BOXES,
    MINING_NEGATIVES,
    MINING_POSITIVES,
    MINING_RATIO,
    NMS_CANDIDATES,
    OFFSETS_BOX,
    OFFSETS_PRIOR,
)
from kernel_figures import receptive_fields
from model import FEATURE_MAPS, SSD300, MultiBoxLoss
from network_figures import output_shapes, vgg16_stages
from pages import ROOT
from scene import draw_scene
from utils import IMAGE_SIZE, cxcy_to_gcxgcy, cxcy_to_xy, decimate, find_jaccard_overlap, xy_to_cxcy

N_CLASSES = len(utils.label_map)  # of VOC, with the background
TRAINING_IMAGES = 16_551  # of VOC 07+12, counted in test_data_lists.py
IMAGENET = torchvision.models.VGG16_Weights.IMAGENET1K_V1
COCO = torchvision.models.detection.SSD300_VGG16_Weights.COCO_V1
WORDS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
)
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
PARTS = {0.5: "half", 0.25: "a quarter", 0.2: "a fifth", 0.1: "a tenth"}
RATIO_NAMES = {1.0: "1:1", 2.0: "2:1", 3.0: "3:1", 1 / 2: "1:2", 1 / 3: "1:3"}


def word(number):
    """A whole number in words, as the README writes small ones."""
    return WORDS[number] if number < len(WORDS) else {80: "eighty", 1000: "thousand"}[number]


def short(number, digits=4):
    """A number without needless zeros: 0.1, 1."""
    return f"{number:.{digits}f}".rstrip("0").rstrip(".")


def python_version():
    """The oldest Python that the code is checked for, as in 3.10."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.sub(r"py3(\d+)", r"3.\1", re.search(r'target-version = "(\w+)"', settings)[1])


# ------------------------------------------------------------------------------------------------------------ the network


@cache
def network():
    """SSD300 for VOC, without values."""
    with torch.device("meta"):
        return SSD300(N_CLASSES, pretrained=False)


@cache
def vgg16():
    """The layers of VGG-16 and the shapes of their outputs: {"conv1_1": (64, 224, 224), ...}."""
    return dict(vgg16_stages())


@cache
def shapes():
    """The shapes of the outputs of SSD300's layers: {"conv1_1": (64, 300, 300), ...}."""
    return {
        name.split(".")[-1]: shape
        for name, shape in output_shapes(network(), 3, IMAGE_SIZE, IMAGE_SIZE).items()
    }


def side(name):
    """Tiles a side of a layer's output."""
    return shapes()[name][-1]


def layer(name):
    """A layer of SSD300 by the last part of its name."""
    return next(layer for path, layer in network().named_modules() if path.split(".")[-1] == name)


def base_sides():
    """The sides of the base's maps, largest first, each once."""
    return sorted({side(name) for name, _ in network().base.named_children()}, reverse=True)


def vgg16_sides():
    """The sides of VGG-16's maps after each pooling."""
    return [vgg16()[f"pool{stage}"][-1] for stage in range(1, 6)]


def vgg16_counts():
    """How many convolutions, blocks and fully connected layers VGG-16 has."""
    names = list(vgg16())
    return tuple(sum(name.startswith(kind) for name in names) for kind in ("conv", "pool", "fc"))


def decimation_steps(name):
    """The steps that load_pretrained_layers decimates a layer of VGG-16 by."""
    source = inspect.getsource(model.VGGBase.load_pretrained_layers)
    return ast.literal_eval(re.search(rf"decimate\({name}, m=(\[.*?\])\)", source)[1])


@cache
def decimated():
    """fc6's kernels as a convolution, and what is left of them: shapes."""
    channels, height, width = vgg16()["pool5"]
    outputs = vgg16()["fc6"][0]
    fc6 = torch.empty(outputs, channels, height, width, device="meta")
    return tuple(fc6.shape), tuple(decimate(fc6, decimation_steps("fc6")).shape)


def kept_rows():
    """The numbers of the rows of fc6's kernels that decimation keeps."""
    return decimate(torch.arange(decimated()[0][2]), [decimation_steps("fc6")[2]]).tolist()


def tile_distance(name):
    """Pixels between neighbouring tiles of a layer's input: the product of the strides before it."""
    distance = 1
    for other, module in network().base.named_children():
        if other == name:
            return distance
        distance *= module.stride if isinstance(module.stride, int) else module.stride[0]
    raise ValueError(f"tile_distance: {name} is not in the base")


@cache
def first_factors():
    """The factors of conv4_3's channels before training, a set."""
    return set(SSD300(2, pretrained=False).rescale_factors.flatten().tolist())


# ----------------------------------------------------------------------------------------------------------------- priors


def per_tile(name):
    """Priors on each tile of a map."""
    return layer(f"loc_{name}").out_channels // 4


def n_priors(name):
    return side(name) ** 2 * per_tile(name)


@cache
def priors():
    """All priors, (8732, 4) fractional cxcy."""
    return SSD300.create_prior_boxes()


def priors_of(name):
    """The priors of a map, (side, side, priors a tile, 4)."""
    start = 0
    for other in FEATURE_MAPS:
        if other == name:
            return priors()[start : start + n_priors(name)].view(
                side(name), side(name), per_tile(name), 4
            )
        start += n_priors(other)
    raise ValueError(f"priors_of: no map is called {name}")


def prior_names(name):
    """What the priors of a tile are called, in their order; found from their sizes."""
    sizes = priors_of(name)[0, 0, :, 2:]
    names = [
        RATIO_NAMES[min(RATIO_NAMES, key=lambda ratio, w=w, h=h: abs(ratio - w / h))]
        for w, h in sizes.tolist()
    ]
    return [names[0], "extra", *names[2:]]


def scale(name):
    """The side of a map's square prior."""
    return float(priors_of(name)[0, 0, 0, 2])


def aspect_ratios(*names):
    """The aspect ratios that all these maps have, and the ones that only they have."""
    common = set.intersection(*(set(prior_names(name)) for name in names))
    others = set().union(*(set(prior_names(name)) for name in FEATURE_MAPS if name not in names))
    return sorted(common - others - {"extra"}, key=list(RATIO_NAMES.values()).index)


def maps_with_most_priors():
    """The maps with the most priors on a tile."""
    most = max(map(per_tile, FEATURE_MAPS))
    return [name for name in FEATURE_MAPS if per_tile(name) == most]


def n_sticking_out():
    boxes = cxcy_to_xy(priors())
    return int(((boxes < -1e-6) | (boxes > 1 + 1e-6)).any(dim=1).sum())


def capped():
    """How many priors would be wider or higher than the picture, and the maps that they are of."""
    counts = {
        name: sum(
            feature_map.scale * max(ratio, 1 / ratio) ** 0.5 > 1
            for ratio in feature_map.aspect_ratios
        )
        * side(name) ** 2
        for name, feature_map in FEATURE_MAPS.items()
    }
    return sum(counts.values()), [name for name, count in counts.items() if count]


@cache
def matched_maps():
    """The maps that have a prior for each object of the scene: {class: [names]}."""
    _, boxes, names = draw_scene()
    owner, positive = model.match_priors(
        boxes[None], torch.ones(1, len(boxes), dtype=torch.bool), cxcy_to_xy(priors()), 0.5
    )
    maps = [name for name in FEATURE_MAPS for _ in range(n_priors(name))]
    found = {name: [] for name in names}
    for prior in positive[0].nonzero().flatten().tolist():
        name = names[owner[0, prior]]
        found[name] += [maps[prior]] * (maps[prior] not in found[name])
    return found


def only_on(name):
    """The object of the scene that has priors on one map only, this one."""
    (found,) = [other for other, maps in matched_maps().items() if maps == [name]]
    return found


# --------------------------------------------------------------------------------------------------------- boxes, offsets


@cache
def person():
    """The scene's person, fractional xy."""
    _, boxes, names = draw_scene()
    return boxes[names.index("person")]


def person_px():
    return (person() * IMAGE_SIZE).tolist()


def person_cxcy():
    return xy_to_cxcy(person()).tolist()


class Overlap(NamedTuple):
    side: float  # of both squares
    shift: float
    shared_side: float
    shared: float
    area: float
    covered: float
    jaccard: float


@cache
def squares():
    """The example of the Jaccard overlap."""
    first, second = (torch.tensor(box, dtype=torch.float32) for box in JACCARD_BOXES)
    width = float(first[2] - first[0])
    shared_side = float(torch.minimum(first[2], second[2]) - torch.maximum(first[0], second[0]))
    jaccard = float(find_jaccard_overlap(first[None], second[None]))
    covered = 2 * width**2 - shared_side**2
    return Overlap(
        width, float(second[0] - first[0]), shared_side, shared_side**2, width**2, covered, jaccard
    )


class Offsets(NamedTuple):
    overlap: float
    row: int
    column: int
    number: int  # of all priors
    name: str
    offsets: list


@cache
def offsets():
    """The prior that overlaps the example's box most, found among all."""
    box = torch.tensor([OFFSETS_BOX])
    overlap, number = find_jaccard_overlap(cxcy_to_xy(box), cxcy_to_xy(priors()))[0].max(dim=0)
    name = OFFSETS_PRIOR[0]
    start = sum(n_priors(other) for other in list(FEATURE_MAPS)[: list(FEATURE_MAPS).index(name)])
    tile, kind = divmod(int(number) - start, per_tile(name))
    encoded = cxcy_to_gcxgcy(box, priors()[number : number + 1])[0].tolist()
    return Offsets(
        float(overlap), *divmod(tile, side(name)), int(number), prior_names(name)[kind], encoded
    )


def directions():
    """What the signs of the four offsets mean, each followed by the sign's name."""
    words = (("right", "left"), ("down", "up"), ("wider", "narrower"), ("higher", "less high"))
    signs = ("positive", "negative")
    return [
        text[offset < 0]
        for pair, offset in zip(words, offsets().offsets, strict=True)
        for text in (pair, signs)
    ]


@cache
def offset_factors():
    """What the shift of a centre is multiplied by, and the logarithm of a size."""
    prior = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    encoded = cxcy_to_gcxgcy(torch.tensor([[1.5, 0.5, math.e, 1.0]]), prior)[0]
    return round(float(encoded[0])), round(float(encoded[2]))


@cache
def fully_connected():
    """The outputs of the fully connected layer, without and with the biases, and the shape of the same as a convolution."""
    image, weights, biases = (
        torch.tensor(values, dtype=torch.float32) for values in (FC_IMAGE, FC_WEIGHTS, FC_BIASES)
    )
    kernels = weights.view(len(weights), *image.shape)
    sums, out = F.linear(image.flatten(), weights), F.conv2d(image[None], kernels, biases)[0]
    return (
        [round(value) for value in sums.tolist()],
        [round(value) for value in out.flatten().tolist()],
        tuple(out.shape),
    )


# --------------------------------------------------------------------------------------------------- loss and what follows


@cache
def matching():
    """The example of matching; its priors counted from 0."""
    return training_figures.matching_example()


def owners():
    """The priors of each object, counted from 1, and the negative ones: {"cat": [1, 3], ..., None: [...]}."""
    found = {name: [] for name in [*matching()["names"], None]}
    for number, (owner, positive) in enumerate(
        zip(matching()["object"], matching()["positive"], strict=True), start=1
    ):
        found[matching()["names"][owner] if positive else None].append(number)
    return found


def with_overlap(name, prior):
    """A prior, counted from 1, and its overlap with an object."""
    return prior, float(matching()["overlap"][matching()["names"].index(name), prior - 1])


def own_prior(name):
    """The prior that an object has for itself, counted from 1, and their overlap."""
    return with_overlap(name, int(matching()["own"][matching()["names"].index(name)]) + 1)


def best_prior(name):
    """The prior that overlaps an object most, counted from 1, and their overlap."""
    return with_overlap(
        name, int(matching()["overlap"][matching()["names"].index(name)].argmax()) + 1
    )


def other_prior(name):
    """The prior of an object that is not its own, counted from 1, and their overlap."""
    (prior,) = set(owners()[name]) - {own_prior(name)[0]}
    return with_overlap(name, prior)


def contested_prior():
    """The prior that both the cat and the plant overlap most, by more than half."""
    (prior,) = {
        number for number, overlap in map(best_prior, ("cat", "pottedplant")) if overlap > 0.5
    }
    return (prior,)


@cache
def loss_defaults():
    criterion = MultiBoxLoss(priors())
    return criterion.threshold, criterion.neg_pos_ratio, criterion.alpha


class Mining(NamedTuple):
    hard: list  # probabilities of the background
    hard_losses: list
    positive_losses: list
    total: float


@cache
def mining():
    """The example of hard negatives."""
    hard = sorted(MINING_NEGATIVES)[: MINING_RATIO * len(MINING_POSITIVES)]
    losses = [
        [-math.log(probability) for probability in values] for values in (hard, MINING_POSITIVES)
    ]
    return Mining(hard, *losses, sum(losses[0]) + sum(losses[1]))


@cache
def candidates():
    """The example of non-maximum suppression: overlaps, and the candidates kept, counted from 0, best first."""
    _, overlaps, kept = detection_figures.nms_example()
    return overlaps, kept


def kept(rank):
    """The candidate that is kept, by its rank from 0; counted from 1."""
    return candidates()[1][rank] + 1


def score_of(number):
    return NMS_CANDIDATES[number - 1][1]


def overlap_of(number, other):
    """Of two candidates, counted from 1."""
    return float(candidates()[0][number - 1, other - 1])


def gone(number):
    """The candidates that one removes, counted from 1."""
    return [other + 1 for other in detection_figures.suppressed_by(number - 1, candidates()[0])]


def gone_and_overlaps(number):
    """The candidates that one removes, each followed by how much it overlaps that one."""
    return [value for other in gone(number) for value in (other, overlap_of(number, other))]


@cache
def ranking():
    """The example of average precision."""
    return detection_figures.ap_example()


def eleven_points():
    """
    The points of the 11-point average in groups of equal precision: the precision, how often, and the recalls, for each; of the
    last group, which is not reached, in place of the recalls the highest one that is; and the average.
    """
    points = ranking()["points"]
    times = {1: "once", 2: "twice", 3: "three times", 4: "four times"}
    values = []
    for precision in sorted(set(points), reverse=True):
        recalls = [short(i / 10) for i, point in enumerate(points) if point == precision]
        between = " and " if len(recalls) == 2 else " to "
        values += [short(precision, 3), times[len(recalls)], f"{recalls[0]}{between}{recalls[-1]}"]
    values[-1] = short(int(ranking()["n_true"][-1]) / ranking()["n_objects"])
    return *values, ranking()["ap"]["11-point"]


def staircase():
    """A step's width, the precisions of the steps, and the area under them."""
    n_true = [0, *ranking()["n_true"].tolist()]
    steps = [
        float(ranking()["precision"][i:].max())
        for i in range(len(n_true) - 1)
        if n_true[i + 1] > n_true[i]
    ]
    return (
        short(1 / ranking()["n_objects"]),
        " + ".join(short(step, 3) for step in steps),
        ranking()["ap"]["area"],
    )


def ignored_rank():
    """The rank of the detection that is neither true nor false."""
    return ranking()["judgement"].index("ignored") + 1


def n_ranked_images():
    return len({image for image, _, _ in AP_OBJECTS})


# --------------------------------------------------------------------------------------------------- training, evaluation


PARAMETERS = train.Parameters()
TOY = train.Parameters(**train.TOY)
EVALUATION = eval.Parameters()


@cache
def falls():
    """The steps at which the learning rate falls to a tenth, and the rates from there on."""
    found = []
    for block in range(1000, train.n_steps(PARAMETERS), 1000):
        if train.learning_rate(block + 999, PARAMETERS) < 0.5 * train.learning_rate(
            block - 1, PARAMETERS
        ):
            rates = [
                train.learning_rate(step, PARAMETERS) for step in range(block - 1, block + 1000)
            ]
            (fall,) = [i for i in range(1, len(rates)) if rates[i] < 0.5 * rates[i - 1]]
            found.append((block - 1 + fall, rates[fall]))
    return found


def warm_up_steps():
    return sum(train.learning_rate(step, PARAMETERS) < PARAMETERS.lr for step in range(5000))


def steps_an_epoch():
    return math.ceil(TRAINING_IMAGES / PARAMETERS.batch_size)


def epoch_of(step):
    """The epoch, from 1, in which so many steps have been taken."""
    return math.ceil(step / steps_an_epoch())


def bias_factor():
    """How many times the learning rate of weights is that of biases."""
    factors = [
        group["lr_factor"] for group in train.create_optimizer(network(), PARAMETERS).param_groups
    ]
    return factors[0] / factors[1]


def chance(function):
    """The probability of what a function does now and then, from its source."""
    (value,) = {
        float(text)
        for text in re.findall(r"rng\.random\(\) < ([\d.]+)", inspect.getsource(function))
    }
    return PARTS[value]


def crop_overlaps():
    return [short(overlap) for overlap in utils.MIN_CROP_OVERLAPS if overlap is not None]


def min_overlap():
    """The Jaccard overlap above which a detection is right."""
    return inspect.signature(utils.calculate_mAP).parameters["min_overlap"].default


def n_coco_classes():
    return len(set(COCO.meta["categories"]) - {"__background__", "N/A"})


def archive_sizes():
    """Gigabytes of VOC's archives: {(year, image set): size}."""
    return {(year, image_set): size / 1e9 for year, image_set, size in create_data_lists.ARCHIVES}


def fields():
    """{map: receptive field in pixels} of the prediction convolutions, and {map: distance of its tiles in pixels}."""
    found = receptive_fields()
    return {name: size for name, (size, _, _) in found.items()}, {
        name: distance for name, (_, distance, _) in found.items()
    }


def longest_prior(name):
    return float(priors_of(name)[..., 2:].max())
