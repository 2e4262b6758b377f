"""
The list of the sentences of the README with numbers that follow from the code: (what it is, the sentence, the numbers).

A sentence stands as in the README, without bold and italic type, and with {} in place of each number, as str.format has it. The
numbers are computed by a function, from the code.
"""

import math
from collections import Counter

import torch

import facts
from examples import (
    AP_DETECTIONS,
    AP_OBJECTS,
    AUGMENTATIONS,
    BATCH_SCENES,
    CHANNELS_CLASSES,
    FC_BIASES,
    FC_IMAGE,
    FC_WEIGHTS,
    MINING_NEGATIVES,
    MINING_POSITIVES,
    NMS_CANDIDATES,
    NMS_MAX_OVERLAP,
    OFFSETS_BOX,
)
from facts import (
    EVALUATION,
    ORDINALS,
    PARAMETERS,
    PARTS,
    TOY,
    TRAINING_IMAGES,
    layer,
    short,
    side,
    word,
)
from model import FEATURE_MAPS, MAX_CANDIDATES_PER_CLASS
from toy_data import TOY_CLASSES, TOY_IMAGES, TOY_TEST_IMAGES
from train import Parameters, n_steps
from utils import (
    BRIGHTNESS,
    CONTRAST,
    CROP_ASPECT_RATIOS,
    CROP_SIDES,
    HUE,
    IMAGE_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_ZOOM_OUT,
    MIN_CROP_OVERLAPS,
    SATURATION,
    label_map,
    photometric_distort,
    transform,
    voc_labels,
)

N_CLASSES = word(len(voc_labels))
FC_SHAPE, N_WEIGHTS = torch.tensor(FC_IMAGE).shape, len(FC_WEIGHTS[0])


def listing(n, spec="", last=" and "):
    """Places for numbers in a row: {}, {} and {}."""
    places = [f"{{{spec}}}"] * n
    return ", ".join(places[:-1]) + last + places[-1]


INTRODUCTION = [
    ("Python", "On a fresh machine with Python {} or later", lambda: (facts.python_version(),)),
    ("input", "with {0} x {0} pixel inputs", lambda: (IMAGE_SIZE,)),
    (
        "toy data",
        "{} training images with {} of the VOC classes as simple drawings",
        lambda: (TOY_IMAGES, word(TOY_CLASSES)),
    ),
    ("toy test images", "on {} drawn images that it has not seen", lambda: (TOY_TEST_IMAGES,)),
    (
        "first toy test image",
        "python detect.py toy/JPEGImages/{:06}.jpg",
        lambda: (TOY_IMAGES + 1,),
    ),
    (
        "classes beside three",
        "people, cars, cats and {} more classes",
        lambda: (word(len(voc_labels) - 3),),
    ),
    ("maps", "SSD detects on {} of them", lambda: (word(len(FEATURE_MAPS)),)),
    ("priors", "decided before training: {} of them", lambda: (len(facts.priors()),)),
    (
        "overview",
        "convolutions on {} maps, {} predictions",
        lambda: (word(len(FEATURE_MAPS)), len(facts.priors())),
    ),
    (
        "kinds of convolutions",
        "### SSD: {} kinds of convolutions",
        lambda: (word(len(list(facts.network().children()))),),
    ),
]
BOXES = [
    ("person, picture", "The person in this {0} x {0} picture", lambda: (IMAGE_SIZE,)),
    ("person, pixels", "$ = ({:.0f}, {:.0f}, {:.0f}, {:.0f}) in pixels", lambda: facts.person_px()),
    ("person, fractions", "they become fractions, ({:.2f}, {:.2f}, {:.2f}, {:.2f})", lambda: facts.person().tolist()),
    ("person, centre-size", "For the person this is ({:.2f}, {:.2f}, {:.2f}, {:.2f})", lambda: facts.person_cxcy()),
    ("person again", "box is ({:.2f}, {:.2f}, {:.2f}, {:.2f}) in centre-size coordinates", lambda: OFFSETS_BOX),
    ("squares", "two squares with sides of {:.0f} pixels", lambda: (facts.squares().side,)),
    ("squares' shift", "are shifted by {} of the side", lambda: (PARTS[facts.squares().shift / facts.squares().side],)),
    (
        "squares' intersection", "They share {0:.0f} x {0:.0f} = {1:,.0f} square pixels",
        lambda: (facts.squares().shared_side, facts.squares().shared),
    ),
    (
        "squares' union", "and cover {0:,.0f} + {0:,.0f} - {1:,.0f} = {2:,.0f}",
        lambda: (facts.squares().area, facts.squares().shared, facts.squares().covered),
    ),
    ("squares' overlap", "so their overlap is {:.3f}", lambda: (facts.squares().jaccard,)),
]  # fmt: skip
BASE = [
    (
        "parameters", "{:.1f} million parameters for VOC's {} classes",
        lambda: (sum(weights.numel() for weights in facts.network().parameters()) / 1e6, N_CLASSES),
    ),
    ("images to learn from", "to learn from VOC's {:,}", lambda: (TRAINING_IMAGES,)),
    (
        "VGG-16's layers", "{} 3 x 3 convolutions in {} blocks, a pooling after each block that halves the map, then {} fully",
        lambda: map(word, facts.vgg16_counts()),
    ),
    ("VGG-16's input", "a {0} x {0} picture becomes maps", lambda: facts.IMAGENET.transforms().crop_size),
    ("VGG-16's maps", "becomes maps of {}, {}, {}, {} and {} tiles a side", lambda: facts.vgg16_sides()),
    ("base's maps", "maps of {}, {}, {}, {} and {} tiles a side, fc6", lambda: facts.base_sides()),
    ("modified base", "The modified base: a {0} x {0} picture", lambda: (IMAGE_SIZE,)),
    ("both inputs", "is {0} x {0} instead of {1} x {1}", lambda: (IMAGE_SIZE, *facts.IMAGENET.transforms().crop_size)),
    (
        "three poolings", "Three poolings make {}, {} and {} of {} pixels",
        lambda: (side("pool1"), side("pool2"), side("pool2") / 2, IMAGE_SIZE),
    ),
    ("columns that pool3 gets", "the last column of the {}", lambda: (side("conv3_3"),)),
    ("columns in the figure", "The {} columns in pairs", lambda: (side("conv3_3"),)),
    ("pool3", "the map has {} tiles a side", lambda: (side("pool3"),)),
    (
        "pool5", "{0} x {0} with stride {1} instead of {2} x {2} with stride {2}",
        lambda: (layer("pool5").kernel_size, layer("pool5").stride, layer("pool4").stride),
    ),
    ("map after pool5", "The map stays at {0} x {0}", lambda: (side("pool5"),)),
    ("tiles nearer to each other", "tiles that lie {} as far apart", lambda: (PARTS[1 / layer("pool4").stride],)),
    ("objects on conv7", "objects of {} of the picture's side", lambda: (PARTS[FEATURE_MAPS["conv7"].scale],)),
    ("fc8", "as it knows ImageNet's {} classes", lambda: map(word, facts.vgg16()["fc8"])),
    ("conv4_3", "`conv4_3` with {1} x {2} tiles and {0} channels", lambda: facts.shapes()["conv4_3"]),
    ("conv7", "`conv7` with {1} x {2} tiles and {0} channels", lambda: facts.shapes()["conv7"]),
    ("channels rescaled", "the vector of {} numbers at each tile", lambda: (facts.network().rescale_factors.size(1),)),
    ("first factors", "that start at {:.0f} and are learnt", lambda: facts.first_factors()),
]  # fmt: skip
CONVOLUTIONS = [
    (
        "tiny picture", "a tiny picture of {1} x {2} pixels with {0} channels, and a fully connected layer with {3} outputs",
        lambda: (*FC_SHAPE, word(len(FC_BIASES))),
    ),
    (
        "flattened", "The {0} x {1} x {2} values are written one after another, channel by channel and row by row: {3} numbers",
        lambda: (*FC_SHAPE, N_WEIGHTS),
    ),
    ("weights", "Each output has {} weights", lambda: (N_WEIGHTS,)),
    (
        "flattened in the figure", "A picture of {0} channels with {1} x {2} pixels each, and the same {3} values",
        lambda: (word(FC_SHAPE[0]), *FC_SHAPE[1:], word(N_WEIGHTS)),
    ),
    (
        "folded in the figure", "The {3} weights of each output folded into a kernel of {0} channels with {1} x {2} weights each",
        lambda: (word(FC_SHAPE[0]), *FC_SHAPE[1:], word(N_WEIGHTS)),
    ),
    (
        "sums", "adds the bias: {} + {} = {} for the first output, {} + {} = {} for the second",
        lambda: torch.tensor([facts.fully_connected()[0], FC_BIASES, facts.fully_connected()[1]]).T.flatten().tolist(),
    ),
    ("sums in the figure", "the sums of the products and the biases: {} and {}", lambda: facts.fully_connected()[1]),
    ("equal outputs", "layer and the convolution both give {} and {}", lambda: facts.fully_connected()[1]),
    (
        "kernel", "The {3} weights of an output become a kernel with {0} channels and {1} x {2} places",
        lambda: (*FC_SHAPE, N_WEIGHTS),
    ),
    (
        "as a convolution", "the result is the same, {} and {}, only with the shape {} instead of ({})",
        lambda: (*facts.fully_connected()[1], facts.fully_connected()[2], len(FC_BIASES)),
    ),
    (
        "fc6's weights", "{2} x {3} x {1} x {0} makes {4:,} weights",
        lambda: (*facts.decimated()[0], math.prod(facts.decimated()[0])),
    ),
    ("heavy map", "{0} channels on a {1} x {1} map", lambda: (*facts.vgg16()["fc6"], side("conv6"))),
    (
        "decimated outputs", "Of `fc6`'s kernels every {} is kept, {} of {}",
        lambda: (ORDINALS[facts.decimation_steps("fc6")[0] - 1], facts.decimated()[1][0], facts.decimated()[0][0]),
    ),
    (
        "decimated rows", "of its {} rows and {} columns every {}, the numbers {}, {} and {}",
        lambda: (*facts.decimated()[0][2:], ORDINALS[facts.decimation_steps("fc6")[2] - 1], *facts.kept_rows()),
    ),
    (
        "decimated weights", "What is left has {2} x {3} x {1} x {0} = {4:,} weights, one in {5:.0f}",
        lambda: (
            *facts.decimated()[1], layer("conv6").weight.numel(),
            math.prod(facts.decimated()[0]) / layer("conv6").weight.numel(),
        ),
    ),
    (
        "fc7", "`fc7` keeps every {} output, and every {} input as well",
        lambda: [ORDINALS[step - 1] for step in facts.decimation_steps("fc7")[:2]],
    ),
    (
        "weights that remain", "The {} weights that remain were learnt for tiles that lie {} apart",
        lambda: (word(math.prod(layer("conv6").kernel_size)), word(facts.decimation_steps("fc6")[2])),
    ),
    ("VGG-16's dilation", "On VGG-16's own map the dilation would be {}", lambda: facts.decimation_steps("fc6")[2:3]),
    ("tiles for fc6", "tiles that were neighbours for `fc6` are now {} apart", lambda: (word(layer("pool4").stride),)),
    (
        "decimation in the figure",
        "The {2} x {3} kernel of fc6, of which every {4} row and column is kept; the {5} x {6} weights that remain",
        lambda: (*facts.decimated()[0], ORDINALS[facts.decimation_steps("fc6")[2] - 1], *layer("conv6").kernel_size),
    ),
    ("dilation", "the dilation has to be {}", lambda: layer("conv6").dilation),
    (
        "distances", "{} tiles of {} pixels there, {} tiles of {} pixels here, {} pixels in both cases",
        lambda: (
            facts.decimation_steps("fc6")[2], facts.IMAGENET.transforms().crop_size[0] // facts.vgg16()["pool5"][1],
            layer("conv6").dilation[0], facts.tile_distance("conv6"), layer("conv6").dilation[0] * facts.tile_distance("conv6"),
        ),
    ),
    (
        "padding", "The padding is {0} as well, which keeps the map at {1} x {1}",
        lambda: (layer("conv6").padding[0], side("conv6")),
    ),
    (
        "holes", "holes of {} between them, and of {} on our finer map",
        lambda: (word(facts.decimation_steps("fc6")[2] - 1), word(layer("conv6").dilation[0] - 1)),
    ),
    (
        "animation", "a {0} x {1} kernel with dilation {2} moves over the {3} x {3} map",
        lambda: (*layer("conv6").kernel_size, layer("conv6").dilation[0], side("conv6")),
    ),
    ("end of the base", "The base ends with {0} x {0} tiles", lambda: (side("conv7"),)),
    ("pairs", "so {} more pairs of convolutions", lambda: (word(len(list(facts.network().aux_convs.children())) // 2),)),
    ("first of a pair", "In each pair a {} x {} convolution first", lambda: layer("conv8_1").kernel_size),
    ("second of a pair", "the second, {} x {}, makes the map smaller", lambda: layer("conv8_2").kernel_size),
    (
        "maps of the pairs", "with maps of {}, {}, {}, {} and {} tiles a side; the maps",
        lambda: [side(name) for name in FEATURE_MAPS][1:],
    ),
]  # fmt: skip
PRIORS = [
    (
        "scales", "`conv4_3` has {}. The others grow evenly from {} to {}",
        lambda: [short(facts.scale(name)) for name in ("conv4_3", "conv7", "conv11_2")],
    ),
    (
        "formula of the scales", r"s_k = {0} + \frac{{{1} - {0}}}{{{2} - 1}} (k - 1), \qquad k = 1 \ldots {2}",
        lambda: (short(facts.scale("conv7")), short(facts.scale("conv11_2")), len(FEATURE_MAPS) - 1),
    ),
    ("scales in a row", "which gives {}, {}, {}, {} and {}.", lambda: [short(facts.scale(name)) for name in FEATURE_MAPS][1:]),
    (
        "aspect ratios", "{}, {} and {} on all maps, and {} and {} on the {} in the middle",
        lambda: (
            *facts.aspect_ratios(*FEATURE_MAPS), *facts.aspect_ratios(*facts.maps_with_most_priors()),
            word(len(facts.maps_with_most_priors())),
        ),
    ),
    (
        "prior sizes", "with the aspect ratios {}, {}, {}, {} and {} that follow for the scale {}, all with the area {}",
        lambda: (*facts.RATIO_NAMES.values(), short(facts.scale("conv9_2")), short(facts.scale("conv9_2") ** 2)),
    ),
    (
        "priors on a tile", "These are the {} of the middle tile of `conv9_2`, whose scale is {}",
        lambda: (word(facts.per_tile("conv9_2")), short(facts.scale("conv9_2"))),
    ),
    ("tiles", "The same {} stand on each of the {} tiles", lambda: (word(facts.per_tile("conv9_2")), side("conv9_2") ** 2)),
    ("priors that stick out", "Of all priors {} stick out", lambda: (facts.n_sticking_out(),)),
    ("priors that are capped", "({} priors of `{}` and `{}`)", lambda: (facts.capped()[0], *facts.capped()[1])),
    ("cap", "its width or height is capped at {:.0f}", lambda: (facts.priors()[:, 2:].max(),)),
    ("grids in the figure", "The grids of the {} feature maps", lambda: (word(len(FEATURE_MAPS)),)),
    ("scales of the maps", "Each of the {} maps has a scale", lambda: (word(len(FEATURE_MAPS)),)),
    ("a tile in the figure", "The {} priors of the middle tile of conv9_2", lambda: (word(facts.per_tile("conv9_2")),)),
    (
        "maps in the figure", "one tile of each of the {} maps, from {} of the picture's side",
        lambda: (word(len(FEATURE_MAPS)), PARTS[FEATURE_MAPS["conv4_3"].scale]),
    ),
    ("order on a tile", "on each tile {}, {}, {}, {}, {}, {}. Everything", lambda: facts.prior_names("conv9_2")),
    (
        "maps of the scene's objects",
        "The {} has its priors on the finest map, the person, much larger, on {} of the coarser ones",
        lambda: (facts.only_on("conv4_3"), word(len(facts.matched_maps()["person"]))),
    ),
    ("factor of the shift", r"{{\hat{{w}}}} \cdot {0} \qquad g_{{c_y}}", lambda: facts.offset_factors()[:1]),
    ("factor of the shift, y", r"{{\hat{{h}}}} \cdot {0} \qquad g_w", lambda: facts.offset_factors()[:1]),
    ("factor of the size", r"g_w = {0} \ln \frac{{w}}{{\hat{{w}}}} \qquad g_h = {0} \ln", lambda: facts.offset_factors()[1:]),
    ("width again", r"\hat{{w}} e^{{g_w / {0}}}", lambda: facts.offset_factors()[1:]),
    ("factors", "The factors {} and {} bring", lambda: facts.offset_factors()),
    ("variances", 'divides by "variances" of {} and {}', lambda: [short(1 / factor) for factor in facts.offset_factors()]),
    (
        "best prior",
        "overlaps it most, by {0:.3f}, is the {4} one of row {1} and column {2} of `conv9_2` (counted from 0), number {3} of all",
        lambda: facts.offsets()[:5],
    ),
    ("best prior in the figure", "The person's box and a {} prior of conv9_2", lambda: (facts.offsets().name,)),
    (
        "directions",
        "further {} than the prior ({} $g_{{c_x}}$) and further {} ({} $g_{{c_y}}$), "
        "slightly {} ({} $g_w$) and clearly {} ({} $g_h$)",
        lambda: facts.directions(),
    ),
]  # fmt: skip
PREDICTIONS = [
    ("kernels", "Two {} x {} convolutions on each map", lambda: layer("loc_conv4_3").kernel_size),
    ("kernels in the figure", "six maps two {} x {} convolutions", lambda: layer("cl_conv4_3").kernel_size),
    ("padding of predictions", "with padding {} the map keeps its size", lambda: layer("loc_conv4_3").padding[:1]),
    ("offsets", "For every prior we want {} offsets", lambda: facts.priors().shape[1:]),
    ("channels of loc", "has ${}k$ output channels", lambda: (layer("loc_conv7").out_channels // facts.per_tile("conv7"),)),
    ("channels of a tile", "Take `loc_conv9_2` at one tile: {} numbers", lambda: facts.shapes()["loc_conv9_2"][:1]),
    (
        "loc channels in the figure", "The {} channels of loc_conv9_2 at one tile: four offsets for each of {} priors",
        lambda: (facts.shapes()["loc_conv9_2"][0], word(facts.per_tile("conv9_2"))),
    ),
    ("classes of the figure", "The figure has {} classes", lambda: (word(len(CHANNELS_CLASSES)),)),
    (
        "class channels in the figure", "at one tile with {0} classes: {0} scores for each of {1} priors",
        lambda: (word(len(CHANNELS_CLASSES)), word(facts.per_tile("conv9_2"))),
    ),
    ("channel of g_w", "channel {} becomes $g_w$ of the second prior", lambda: (facts.priors().size(1) + 2,)),
    (
        "reshape", "(N, {0}, {1}, {2}), permuted to (N, {1}, {2}, {0}) and read as (N, {3}, 4): {4} rows for each tile",
        lambda: (*facts.shapes()["loc_conv9_2"], facts.n_priors("conv9_2"), word(facts.per_tile("conv9_2"))),
    ),
    ("a tile's numbers", "puts a tile's {} numbers side by side", lambda: facts.shapes()["loc_conv9_2"][:1]),
    (
        "stack", "Stacked, the six outputs make {} + {} + {} + {} + {} + {} = {} rows",
        lambda: (*map(facts.n_priors, FEATURE_MAPS), len(facts.priors())),
    ),
    ("stack in the figure", "offsets (N, {0}, 4) and scores (N, {0}, n_classes)", lambda: (len(facts.priors()),)),
    ("what comes out", "{0} boxes (as offsets) and {0} lists of scores", lambda: (len(facts.priors()),)),
    ("what the loss gets", "The network gives {} predictions", lambda: (len(facts.priors()),)),
    ("what is decoded", "the network still gives {} boxes", lambda: (len(facts.priors()),)),
    ("a real picture's priors", "A real picture has {} priors", lambda: (len(facts.priors()),)),
    ("what filling up wastes", "waste a part of the {} priors", lambda: (len(facts.priors()),)),
    ("locs and scores", "returns locs (N, {0}, 4) and scores (N, {0}, `n_classes`)", lambda: (len(facts.priors()),)),
]  # fmt: skip
LOSS = [
    ("threshold", "If that overlap is at least {}, the prior is positive", lambda: facts.loss_defaults()[:1]),
    ("threshold in the figure", "overlaps of at least {}, each object's own", lambda: facts.loss_defaults()[:1]),
    ("matching", "a small example: {} objects, and {} priors", lambda: map(word, facts.matching()["overlap"].shape)),
    ("matching in the figure", "a car, and {} numbered priors", lambda: (word(facts.matching()["overlap"].size(1)),)),
    ("contested prior", "Prior {} overlaps both the cat and the plant by more than half", lambda: facts.contested_prior()),
    ("second prior", "Prior {} overlaps the cat by {:.3f} and is positive", lambda: facts.other_prior("cat")),
    ("claim that was lost", "best prior is also prior {}, with {:.3f}", lambda: facts.best_prior("pottedplant")),
    ("free prior", "takes its best free one, prior {}, with {:.3f}", lambda: facts.own_prior("pottedplant")),
    ("prior without half", "Its best one, prior {} with {:.3f}", lambda: facts.own_prior("car")),
    ("negatives", "Priors {}, {} and {} are negatives", lambda: facts.owners()[None]),
    (
        "result", "priors {} and {} belong to the cat, {} to the plant, {} to the car, and {}, {} and {} are negative",
        lambda: [number for name in ("cat", "pottedplant", "car", None) for number in facts.owners()[name]],
    ),
    ("negatives for a positive", "with the highest loss, {} for every positive", lambda: (word(facts.loss_defaults()[1]),)),
    ("the same in code", "come before {} times the row's number", lambda: (word(facts.loss_defaults()[1]),)),
    ("the same for each image", "for each image, {} for each of its own positives", lambda: (word(facts.loss_defaults()[1]),)),
    (
        "hard negatives in the figure",
        "{} positives, and {} negatives ranked by their loss: the {} hardest ones count, the {} easy ones do not",
        lambda: (
            word(len(MINING_POSITIVES)).capitalize(), word(len(MINING_NEGATIVES)), word(len(facts.mining().hard)),
            word(len(MINING_NEGATIVES) - len(facts.mining().hard)),
        ),
    ),
    (
        "probabilities",
        "a picture has {} positives, to whose right class the network gives the probabilities {:.2f} and {:.2f}, "
        "and {} negatives",
        lambda: (word(len(MINING_POSITIVES)), *MINING_POSITIVES, word(len(MINING_NEGATIVES))),
    ),
    (
        "hard negatives", "The {} hardest ones are those with the lowest probability of the background, " + listing(6, ":.2f"),
        lambda: (word(len(facts.mining().hard)), *facts.mining().hard),
    ),
    ("their losses", "Their losses are " + listing(6, ":.3f"), lambda: facts.mining().hard_losses),
    ("losses of the positives", "those of the positives are {:.3f} and {:.3f}", lambda: facts.mining().positive_losses),
    ("sum of the losses", "The sum is {:.3f}", lambda: (facts.mining().total,)),
    (
        "divided by the positives", "In the example it is {}, which makes {:.3f}",
        lambda: (len(MINING_POSITIVES), facts.mining().total / len(MINING_POSITIVES)),
    ),
    (
        "yardstick",
        "gives all {0} classes the same probability has the confidence loss {1} ln {0} = {2:.1f}: "
        "one positive and {3} negatives with ln {0}",
        lambda: (
            facts.N_CLASSES, 1 + facts.loss_defaults()[1], (1 + facts.loss_defaults()[1]) * math.log(facts.N_CLASSES),
            word(facts.loss_defaults()[1]),
        ),
    ),
    ("alpha", r"\qquad \alpha = {:.0f}", lambda: facts.loss_defaults()[2:]),
]  # fmt: skip
DETECTIONS = [
    ("candidates a class", "are its candidates, at most {}", lambda: (MAX_CANDIDATES_PER_CLASS,)),
    ("suppression", "Here are {} candidates", lambda: (word(len(NMS_CANDIDATES)),)),
    (
        "suppression in the figure", "and {} numbered candidates: {} boxes with the class cat and {} with the class plant",
        lambda: map(word, (len(NMS_CANDIDATES), *Counter(name for name, *_ in NMS_CANDIDATES).values())),
    ),
    ("max_overlap", "by more than `max_overlap`, here {}, are taken", lambda: (NMS_MAX_OVERLAP,)),
    ("cats", "For the {} boxes of the class cat", lambda: (word(Counter(name for name, *_ in NMS_CANDIDATES)["cat"]),)),
    (
        "first step",
        "The best one is kept, box {} with {:.2f}. What overlaps it by more than {} goes: "
        "box {} (overlap {:.3f}) and box {} ({:.3f})",
        lambda: (facts.kept(0), facts.score_of(facts.kept(0)), NMS_MAX_OVERLAP, *facts.gone_and_overlaps(facts.kept(0))),
    ),
    (
        "first step in the figure", "Box {} is kept; boxes {} and {} overlap it by more than {}",
        lambda: (facts.kept(0), *facts.gone(facts.kept(0)), NMS_MAX_OVERLAP),
    ),
    (
        "second step", "the best one is kept, box {} with {:.2f}. It overlaps box {} by {:.3f} only",
        lambda: (facts.kept(1), facts.score_of(facts.kept(1)), facts.kept(0), facts.overlap_of(facts.kept(0), facts.kept(1))),
    ),
    ("what the second step removes", "Box {} ({:.3f}) and box {} ({:.3f}) go", lambda: facts.gone_and_overlaps(facts.kept(1))),
    ("second step in the figure", "Box {} is kept; boxes {} and {} go]", lambda: (facts.kept(1), *facts.gone(facts.kept(1)))),
    (
        "plant", "Box {} overlaps box {} by {:.3f}, but it is of another class",
        lambda: (facts.kept(2), facts.kept(1), facts.overlap_of(facts.kept(2), facts.kept(1))),
    ),
    ("what is left", "boxes {} and {} for the two cats, and box {} for the plant", lambda: map(facts.kept, range(3))),
    ("all of it", "One picture on its way through, with {} classes", lambda: (facts.N_CLASSES,)),
]  # fmt: skip
DATA = [
    ("classes", "with objects of {} classes", lambda: (N_CLASSES,)),
    ("archives", "fetches them ({:.1f} GB", lambda: (sum(facts.archive_sizes().values()),)),
    ("archive of 2007", "VOCtrainval_06-Nov-2007.tar) ({:.0f} MB)", lambda: (1000 * facts.archive_sizes()["2007", "trainval"],)),
    ("archive of 2012", "VOCtrainval_11-May-2012.tar) ({:.0f} GB)", lambda: (facts.archive_sizes()["2012", "trainval"],)),
    ("archive of the test", "VOCtest_06-Nov-2007.tar) ({:.0f} MB)", lambda: (1000 * facts.archive_sizes()["2007", "test"],)),
    ("images", "Images are float tensors of shape (N, 3, {0}, {0})", lambda: (IMAGE_SIZE,)),
    ("squeezed", "Each picture is squeezed to {0} x {0}", lambda: (IMAGE_SIZE,)),
    ("input of training", "The picture has to become {0} x {0}", lambda: (IMAGE_SIZE,)),
    ("what follows from the input", "and the priors all follow from {}", lambda: (IMAGE_SIZE,)),
    ("mean", "ImageNet's mean ({}, {}, {})", lambda: IMAGENET_MEAN),
    ("standard deviation", "standard deviation ({}, {}, {})", lambda: IMAGENET_STD),
    (
        "labels", "whole numbers from {} to {} ({} is the background)",
        lambda: (label_map[voc_labels[0]], label_map[voc_labels[-1]], label_map["background"]),
    ),
    ("chance of zooming out", "(`zoom_out`), with a chance of one {}", lambda: (facts.chance(transform),)),
    ("chance of a flip", "Flip, with a chance of one {}", lambda: (facts.chance(transform),)),
    ("chance of a distortion", "each with a chance of one {}", lambda: (facts.chance(photometric_distort),)),
    ("canvas", "a canvas of up to {} times its width and height", lambda: (word(int(MAX_ZOOM_OUT)),)),
    ("crops", "with sides of {} to {} of its sides", lambda: map(short, CROP_SIDES)),
    ("crops' aspect ratios", "an aspect ratio from {} to {}", lambda: map(short, CROP_ASPECT_RATIOS)),
    ("crops' minimum overlaps", "that is drawn from " + listing(6) + "; or no crop", lambda: facts.crop_overlaps()),
    ("no crop", "or no crop at all, the {} possibility", lambda: (ORDINALS[len(MIN_CROP_OVERLAPS) - 1],)),
    ("brightness", "brightness by up to {} of 255", lambda: (BRIGHTNESS,)),
    ("contrast", "contrast and saturation by a factor of {} to {}", lambda: CONTRAST),
    ("saturation", "contrast and saturation by a factor of {} to {}", lambda: SATURATION),
    ("hue", "hue by up to {} of the colour circle", lambda: (PARTS[HUE],)),
    ("resized", "Then the picture is resized to {0} x {0}", lambda: (IMAGE_SIZE,)),
    ("window", "showing it in {0} x {0} pixels", lambda: (IMAGE_SIZE,)),
    ("distorted", "on {0} x {0} pixels at most", lambda: (IMAGE_SIZE,)),
    ("one resampling", "of the window gives the {0} x {0} input", lambda: (IMAGE_SIZE,)),
    ("stacked", "stacks the images to (N, 3, {0}, {0})", lambda: (IMAGE_SIZE,)),
    ("batch", "Three items with {}, {} and {} objects", lambda: [word(len(scene)) for scene in BATCH_SCENES]),
    ("zooms in the figure", "A scene as it is and zoomed out {} times", lambda: (word(len(AUGMENTATIONS["zoom_out"])),)),
    ("crops in the figure", "A scene and {} random crops of it", lambda: (word(len(AUGMENTATIONS["random_crop"])),)),
    ("distortions in the figure", "and with {} random changes of", lambda: (word(len(AUGMENTATIONS["photometric"])),)),
]  # fmt: skip
TRAINING = [
    ("VGG-16's file", "torchvision downloads them once, {:.0f} MB", lambda: (facts.IMAGENET.meta["_file_size"],)),
    ("epochs", "a different picture in each of the {} epochs", lambda: (facts.epoch_of(n_steps(PARAMETERS)),)),
    ("momentum", "with momentum {} and weight decay {}", lambda: (PARAMETERS.momentum, short(PARAMETERS.weight_decay))),
    (
        "schedule",
        "The learning rate is {} at first, a tenth of that from iteration {:,} on, a hundredth from {:,} on, "
        "and training ends at {:,}",
        lambda: (PARAMETERS.lr, *[step for step, _ in facts.falls()], n_steps(PARAMETERS)),
    ),
    (
        "schedule in the figure", "over {:,} iterations or {} epochs: warm-up, and {} falls to a tenth",
        lambda: (n_steps(PARAMETERS), facts.epoch_of(n_steps(PARAMETERS)), word(len(facts.falls()))),
    ),
    ("iteration", "An iteration is a step on {} images", lambda: (PARAMETERS.batch_size,)),
    (
        "batches", "The {:,} training images make {} batches of {} and one of {}",
        lambda: (
            TRAINING_IMAGES, TRAINING_IMAGES // PARAMETERS.batch_size, PARAMETERS.batch_size,
            TRAINING_IMAGES % PARAMETERS.batch_size,
        ),
    ),
    ("steps an epoch", "so an epoch has {} steps", lambda: (facts.steps_an_epoch(),)),
    ("batch size", "Batch size {}, as in the paper", lambda: (PARAMETERS.batch_size,)),
    (
        "smaller batches", "`--batch-size {}`. The steps become as many more as the batches are smaller ({:,})",
        lambda: (8, n_steps(Parameters(batch_size=8))),
    ),
    ("biases", "learnt {} as fast as weights", lambda: ({2.0: "twice"}[facts.bias_factor()],)),
    ("warm-up", "During the first {} iterations the rate rises", lambda: (facts.warm_up_steps(),)),
    (
        "warm-up among the remarks", "during the first 1/{:.0f} of the training ({} of {:,} iterations)",
        lambda: (1 / PARAMETERS.warm_up, facts.warm_up_steps(), n_steps(PARAMETERS)),
    ),
    ("clipping", "`--grad-clip {0:.0f}` shortens gradients that are longer than {0:.0f}", lambda: (TOY.grad_clip,)),
    (
        "a tenth of the rate", "at a tenth of the learning rate with `--checkpoint BEST_checkpoint_ssd300.pth.tar --lr {}`",
        lambda: (f"{PARAMETERS.lr / 10:.0e}".replace("e-0", "e-"),),
    ),
    (
        "scales among the remarks", listing(6, last=", ") + " (the paper's text), last extra prior {}",
        lambda: [*[short(facts.scale(name)) for name in FEATURE_MAPS], short(facts.priors_of("conv11_2")[0, 0, 1, 2])],
    ),
    ("crops among the remarks", "each side {} to {}, aspect ratio of pixels", lambda: map(short, CROP_SIDES)),
    ("overlaps among the remarks", "each of the {} minimum overlaps", lambda: (word(len(MIN_CROP_OVERLAPS)),)),
    ("COCO's file", "trained on COCO, downloaded once ({:.0f} MB)", lambda: (facts.COCO.meta["_file_size"],)),
    ("COCO's mAP", "{} (COCO val2017, mean", lambda: facts.COCO.meta["_metrics"]["COCO-val2017"].values()),
    ("COCO's places", "runs over {} places", lambda: (len(facts.COCO.meta["categories"]),)),
    (
        "COCO's classes", "for COCO's {} classes, with `--voc-classes` for VOC's {}",
        lambda: (word(facts.n_coco_classes()), N_CLASSES),
    ),
    ("classes of published weights", "A detector of VOC's {} classes without", lambda: (N_CLASSES,)),
    ("toy training", "{} classes, {} steps of {} images", lambda: (TOY_CLASSES, n_steps(TOY), TOY.batch_size)),
    ("toy test", "on {} unseen images", lambda: (TOY_TEST_IMAGES,)),
]  # fmt: skip
EVALUATING = [
    ("right", "if its Jaccard overlap with an object is above {}", lambda: (facts.min_overlap(),)),
    ("true", "if it overlaps an object of its image by more than {}", lambda: (facts.min_overlap(),)),
    ("measured", "11-point averages at a Jaccard overlap above {}", lambda: (facts.min_overlap(),)),
    (
        "ranking", "a class has {} countable objects in {} images, and {} difficult object",
        lambda: map(word, (facts.ranking()["n_objects"], facts.n_ranked_images(), sum(mark for *_, mark in AP_OBJECTS))),
    ),
    ("ranked detections", "the {} detections ranked and judged", lambda: (word(len(AP_DETECTIONS)),)),
    ("difficult one", "is neither true nor false, like rank {} above", lambda: (facts.ignored_rank(),)),
    (
        "11-point average",
        "Here that is {} {} (recall {}), {} {} ({}), {} {} ({}), and {} {}, as more than {} is never reached: {:.3f}",
        lambda: facts.eleven_points(),
    ),
    ("area", "under the same staircase is {} ({}) = {:.3f}", lambda: facts.staircase()),
    ("evaluation's threshold", "An evaluation with `min_score` {}", lambda: (EVALUATION.min_score,)),
    (
        "kernel of the question", "### A {0} x {0} kernel covers {1} tiles",
        lambda: (layer("loc_conv4_3").kernel_size[0], word(layer("loc_conv4_3").kernel_size[0])),
    ),
    (
        "what the kernel covers", "{0} tiles, on `conv4_3` {0} of {1}, {2:.2f} of the picture's side",
        lambda: (layer("loc_conv4_3").kernel_size[0], side("conv4_3"), layer("loc_conv4_3").kernel_size[0] / side("conv4_3")),
    ),
    (
        "receptive field", "{} pixels are {} of the picture's side, against {} of the square prior and {} of the longest ones",
        lambda: (
            facts.fields()[0]["conv4_3"], short(facts.fields()[0]["conv4_3"] / IMAGE_SIZE), short(facts.scale("conv4_3")),
            short(facts.longest_prior("conv4_3")),
        ),
    ),
    (
        "beyond the picture", "From `{}` on it exceeds the picture",
        lambda: [name for name, field in facts.fields()[0].items() if field > IMAGE_SIZE][:1],
    ),
    (
        "padding of conv11_2", "{} of the {} weights of each kernel meet nothing but padding",
        lambda: map(word, (9 - side("conv11_2") ** 2, math.prod(layer("loc_conv11_2").kernel_size))),
    ),
]  # fmt: skip
WATCHED = (
    INTRODUCTION
    + BOXES
    + BASE
    + CONVOLUTIONS
    + PRIORS
    + PREDICTIONS
    + LOSS
    + DETECTIONS
    + DATA
    + TRAINING
    + EVALUATING
)
