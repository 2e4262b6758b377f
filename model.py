"""
SSD300 on a VGG-16 base (Liu et al. 2016, https://arxiv.org/abs/1512.02325), from top to bottom: the
feature maps, the three kinds of convolutions, the network with its priors and its detections, the
matching of priors with objects, and the MultiBox loss.

Words that are used throughout:

- A *tile* is one place of a feature map. On each tile stand several *priors*: fixed boxes of
  different shapes, 8732 in all. For every prior the network predicts scores, one per class, and
  *offsets*, which tell how to move and stretch the prior so that it becomes the box of an object.
- Boxes are given as fractions of the image's sides, as *xy* (x_min, y_min, x_max, y_max) or as
  *cxcy* (centre x, centre y, width, height). *gcxgcy* are offsets from a prior: the conversions,
  with their formulas, are in utils.py.
- The *Jaccard overlap* of two boxes is their intersection divided by their union, from 0 to 1.
- A prior is *positive* if it is matched with an object, which it then has to predict; all others
  are negative, and have to predict background, class 0.

Comments that begin with DEVIATION mark departures from the paper; the README lists them all.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from downloads import download_weights
from utils import (
    cxcy_to_gcxgcy,
    cxcy_to_xy,
    decimate,
    find_jaccard_overlap,
    gcxgcy_to_cxcy,
    send,
    to_float64,
    xy_to_cxcy,
)


class FeatureMap(NamedTuple):
    """A feature map that predictions are made from, and the priors on each of its tiles."""

    side: int  # tiles along each side
    channels: int
    scale: float  # side of the square prior, as a fraction of the image's side
    aspect_ratios: tuple  # width / height of the priors

    @property
    def n_priors(self):
        """Priors per tile: one for each aspect ratio, and an extra square one."""
        return len(self.aspect_ratios) + 1


# Everything about priors follows from this table (paper, section 2.2). The scales grow evenly from
# 0.2 to 0.9; conv4_3 has 0.1.
# DEVIATION(prior-scales): the authors' released code spaces the scales a little differently (0.1,
# 0.2, 0.37 ... 0.88, last extra prior 0.96), centres the priors of a map by its stride in pixels,
# and does not cap their width and height (train.py --priors released). These are the numbers of the
# paper's text and of the published tutorial's checkpoints (last extra prior 1).
FEATURE_MAPS = {
    "conv4_3": FeatureMap(38, 512, 0.1, (1.0, 2.0, 1 / 2)),
    "conv7": FeatureMap(19, 1024, 0.2, (1.0, 2.0, 3.0, 1 / 2, 1 / 3)),
    "conv8_2": FeatureMap(10, 512, 0.375, (1.0, 2.0, 3.0, 1 / 2, 1 / 3)),
    "conv9_2": FeatureMap(5, 256, 0.55, (1.0, 2.0, 3.0, 1 / 2, 1 / 3)),
    "conv10_2": FeatureMap(3, 256, 0.725, (1.0, 2.0, 1 / 2)),
    "conv11_2": FeatureMap(1, 256, 0.9, (1.0, 2.0, 1 / 2)),
}

# The most boxes per class and image that go into non-maximum suppression (nms_param.top_k in the
# authors' code)
MAX_CANDIDATES_PER_CLASS = 400

MAX_WIDTH = 4  # of a network, see SSD300; beyond that, numbers of channels are no longer sensible


def scale_channels(width, *channels):
    """Numbers of channels in a network of another width; at least 1 each."""
    return [max(1, round(number * width)) for number in channels]


class VGGBase(nn.Module):
    """VGG-16 as a feature extractor, with convolutions only (paper, section 3)."""

    def __init__(self, width=1.0):
        """:param width: factor for the channels of all layers"""
        super().__init__()
        c64, c128, c256, c512, c1024 = scale_channels(width, 64, 128, 256, 512, 1024)
        self.conv1_1 = nn.Conv2d(3, c64, kernel_size=3, padding=1)
        self.conv1_2 = nn.Conv2d(c64, c64, kernel_size=3, padding=1)
        self.pool1 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.conv2_1 = nn.Conv2d(c64, c128, kernel_size=3, padding=1)
        self.conv2_2 = nn.Conv2d(c128, c128, kernel_size=3, padding=1)
        self.pool2 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.conv3_1 = nn.Conv2d(c128, c256, kernel_size=3, padding=1)
        self.conv3_2 = nn.Conv2d(c256, c256, kernel_size=3, padding=1)
        self.conv3_3 = nn.Conv2d(c256, c256, kernel_size=3, padding=1)
        self.pool3 = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)  # 75 becomes 38, not 37

        self.conv4_1 = nn.Conv2d(c256, c512, kernel_size=3, padding=1)
        self.conv4_2 = nn.Conv2d(c512, c512, kernel_size=3, padding=1)
        self.conv4_3 = nn.Conv2d(c512, c512, kernel_size=3, padding=1)
        self.pool4 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.conv5_1 = nn.Conv2d(c512, c512, kernel_size=3, padding=1)
        self.conv5_2 = nn.Conv2d(c512, c512, kernel_size=3, padding=1)
        self.conv5_3 = nn.Conv2d(c512, c512, kernel_size=3, padding=1)
        # With a stride of 1 the map stays 19 x 19
        self.pool5 = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)

        # VGG-16's fully connected fc6 and fc7, made convolutions (see load_pretrained_layers). Only
        # every third row and column of fc6's 7 x 7 kernel is kept. Dilation spreads these 3 x 3
        # values out again: by 3, as they once lay, times 2, since pool5 no longer halves the map.
        self.conv6 = nn.Conv2d(c512, c1024, kernel_size=3, padding=6, dilation=6)
        self.conv7 = nn.Conv2d(c1024, c1024, kernel_size=1)

        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                # He's initialisation keeps the variance of the signal from layer to layer. With
                # smaller weights, as Xavier's, it would die out on the way through fifteen of them
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, image):
        """
        :param image: (N, 3, 300, 300) float
        :return: conv4_3 features (N, 512, 38, 38) and conv7 features (N, 1024, 19, 19)
        """
        # relu_ works in place: out-of-place ReLUs cost a sixth of the forward pass on a CPU
        out = F.relu_(self.conv1_1(image))  # (N, 64, 300, 300)
        out = F.relu_(self.conv1_2(out))
        out = self.pool1(out)  # (N, 64, 150, 150)

        out = F.relu_(self.conv2_1(out))  # (N, 128, 150, 150)
        out = F.relu_(self.conv2_2(out))
        out = self.pool2(out)  # (N, 128, 75, 75)

        out = F.relu_(self.conv3_1(out))  # (N, 256, 75, 75)
        out = F.relu_(self.conv3_2(out))
        out = F.relu_(self.conv3_3(out))
        out = self.pool3(out)  # (N, 256, 38, 38)

        out = F.relu_(self.conv4_1(out))  # (N, 512, 38, 38)
        out = F.relu_(self.conv4_2(out))
        conv4_3_feats = F.relu_(self.conv4_3(out))
        out = self.pool4(conv4_3_feats)  # (N, 512, 19, 19)

        out = F.relu_(self.conv5_1(out))  # (N, 512, 19, 19)
        out = F.relu_(self.conv5_2(out))
        out = F.relu_(self.conv5_3(out))
        out = self.pool5(out)  # (N, 512, 19, 19)

        out = F.relu_(self.conv6(out))  # (N, 1024, 19, 19)
        conv7_feats = F.relu_(self.conv7(out))
        return conv4_3_feats, conv7_feats

    def load_pretrained_layers(self):
        """
        Fill the base from torchvision's VGG-16, trained on ImageNet (528 MB, downloaded once into
        torch's cache).

        The thirteen convolutions are taken as they are. fc6 reads a map of 512 x 7 x 7 values and
        puts out 4096: that is a convolution with 4096 kernels of 7 x 7. fc7 is one with 4096
        kernels of 1 x 1. Both are decimated: every fourth kernel is kept, 1024 of them, and of
        fc6's 7 x 7 values every third in each direction, 3 x 3.

        :raises DownloadError: the weights could not be downloaded, or the file in the cache is
            damaged
        """
        cache = f"{torch.hub.get_dir()}/checkpoints"
        vgg16 = download_weights(
            torchvision.models.VGG16_Weights.IMAGENET1K_V1,
            "the ImageNet weights of VGG-16",
            f"and put that file into {cache}, or train without them (--no-pretrained)",
        )
        state = self.state_dict()
        # Both networks list their thirteen convolutions in the order in which they are computed
        convolutions = [name for name in state if not name.startswith(("conv6", "conv7"))]
        features = [name for name in vgg16 if name.startswith("features.")]
        for name, vgg_name in zip(convolutions, features, strict=True):
            state[name] = vgg16[vgg_name]

        fc6 = vgg16["classifier.0.weight"].view(4096, 512, 7, 7)
        state["conv6.weight"] = decimate(fc6, m=[4, None, 3, 3])  # (1024, 512, 3, 3)
        state["conv6.bias"] = decimate(vgg16["classifier.0.bias"], m=[4])  # (1024)
        fc7 = vgg16["classifier.3.weight"].view(4096, 4096, 1, 1)
        state["conv7.weight"] = decimate(fc7, m=[4, 4, None, None])  # (1024, 1024, 1, 1)
        state["conv7.bias"] = decimate(vgg16["classifier.3.bias"], m=[4])  # (1024)
        self.load_state_dict(state)


def init_xavier(module):
    """Give every convolution Xavier-uniform weights and zero biases (paper, section 3.1)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class AuxiliaryConvolutions(nn.Module):
    """
    The convolutions after the base. They make four smaller feature maps, on which larger objects
    are found (paper, figure 2).
    """

    def __init__(self, width=1.0):
        """:param width: factor for the channels of all layers"""
        super().__init__()
        c128, c256, c512, c1024 = scale_channels(width, 128, 256, 512, 1024)
        self.conv8_1 = nn.Conv2d(c1024, c256, kernel_size=1)
        # A stride of 2 halves the map
        self.conv8_2 = nn.Conv2d(c256, c512, kernel_size=3, stride=2, padding=1)

        self.conv9_1 = nn.Conv2d(c512, c128, kernel_size=1)
        self.conv9_2 = nn.Conv2d(c128, c256, kernel_size=3, stride=2, padding=1)

        self.conv10_1 = nn.Conv2d(c256, c128, kernel_size=1)
        self.conv10_2 = nn.Conv2d(c128, c256, kernel_size=3)  # no padding takes 2 off the map

        self.conv11_1 = nn.Conv2d(c256, c128, kernel_size=1)
        self.conv11_2 = nn.Conv2d(c128, c256, kernel_size=3)
        init_xavier(self)

    def forward(self, conv7_feats):
        """
        :param conv7_feats: (N, 1024, 19, 19) float
        :return: features of conv8_2 (N, 512, 10, 10), conv9_2 (N, 256, 5, 5), conv10_2
            (N, 256, 3, 3) and conv11_2 (N, 256, 1, 1)
        """
        out = F.relu_(self.conv8_1(conv7_feats))  # (N, 256, 19, 19)
        conv8_2_feats = F.relu_(self.conv8_2(out))  # (N, 512, 10, 10)
        out = F.relu_(self.conv9_1(conv8_2_feats))  # (N, 128, 10, 10)
        conv9_2_feats = F.relu_(self.conv9_2(out))  # (N, 256, 5, 5)
        out = F.relu_(self.conv10_1(conv9_2_feats))  # (N, 128, 5, 5)
        conv10_2_feats = F.relu_(self.conv10_2(out))  # (N, 256, 3, 3)
        out = F.relu_(self.conv11_1(conv10_2_feats))  # (N, 128, 3, 3)
        conv11_2_feats = F.relu_(self.conv11_2(out))  # (N, 256, 1, 1)
        return conv8_2_feats, conv9_2_feats, conv10_2_feats, conv11_2_feats


class PredictionConvolutions(nn.Module):
    """
    Two 3 x 3 convolutions on each feature map (paper, section 2.1). For every prior of a tile,
    `loc_...` predicts four offsets (localization), and `cl_...` a score per class (classification).
    """

    def __init__(self, n_classes, width=1.0):
        """
        :param n_classes: number of classes, including background
        :param width: factor for the channels of the feature maps
        """
        super().__init__()
        self.n_classes = n_classes
        for name, feature_map in FEATURE_MAPS.items():
            (channels,) = scale_channels(width, feature_map.channels)
            n_priors = feature_map.n_priors
            loc = nn.Conv2d(channels, n_priors * 4, kernel_size=3, padding=1)
            cl = nn.Conv2d(channels, n_priors * n_classes, kernel_size=3, padding=1)
            setattr(self, f"loc_{name}", loc)
            setattr(self, f"cl_{name}", cl)
        init_xavier(self)

    def forward(self, *feature_maps):
        """
        :param feature_maps: the six feature maps (N, channels, side, side), in the order of
            FEATURE_MAPS
        :return: locs (N, 8732, 4) and scores (N, 8732, n_classes), in the order of the priors
        """
        locs = []
        scores = []
        for name, features in zip(FEATURE_MAPS, feature_maps, strict=True):
            predict_locs = getattr(self, f"loc_{name}")
            predict_scores = getattr(self, f"cl_{name}")
            locs.append(self._per_prior(predict_locs(features), 4))
            scores.append(self._per_prior(predict_scores(features), self.n_classes))
        return torch.cat(locs, dim=1), torch.cat(scores, dim=1)

    @staticmethod
    def _per_prior(out, n_values):
        """(N, k * n_values, side, side) -> (N, side * side * k, n_values), k priors per tile"""
        # The channels of a tile hold all values of its first prior, then those of
        # its second, and so on. With the channels last, memory order goes over the
        # rows, the tiles of a row, the priors of a tile: as create_prior_boxes()
        return out.permute(0, 2, 3, 1).reshape(out.size(0), -1, n_values)


class SSD300(nn.Module):
    """The whole network, and the priors that its predictions are relative to."""

    def __init__(
        self,
        n_classes,
        pretrained=True,
        priors_cxcy=None,
        input_shift=None,
        width=1.0,
        label_map=None,
    ):
        """
        :param n_classes: number of classes, including background
        :param pretrained: start the base from torchvision's ImageNet weights; otherwise nothing is
            downloaded
        :param priors_cxcy: (8732, 4) float; by default create_prior_boxes(). Published networks
            have priors of their own, and keep them when they are converted
        :param input_shift: (1, 3, 1, 1) float, added to every input; by default zeros. Published
            networks were trained with inputs that were normalised in other ways
        :param width: factor for the channels of all layers but the input and the predictions. 1 is
            SSD300; a quarter takes a fifteenth of the computation, enough for a few simple classes.
            Published weights have width 1: other widths start from random weights
        :param label_map: {class name: number}, background 0; by default the numbers are the names
        :raises ValueError: the priors have another shape, or the label map another length; or
            pretrained weights do not fit the width
        """
        super().__init__()
        self.n_classes = n_classes
        self.label_map = label_map or number_classes(n_classes)
        if len(self.label_map) != n_classes:
            raise ValueError(f"label_map: expected {n_classes} classes, got {self.label_map}")

        self.width = width
        if pretrained and width != 1:
            raise ValueError(
                f"width: the ImageNet weights fit width 1, not {width}: start without them "
                "(pretrained=False, --no-pretrained)"
            )

        self.base = VGGBase(width)
        if pretrained:
            self.base.load_pretrained_layers()
        self.aux_convs = AuxiliaryConvolutions(width)
        self.pred_convs = PredictionConvolutions(n_classes, width)

        # The features of conv4_3 have another scale than those of the other maps. Those of each
        # tile are divided by their L2 norm over the channels, then multiplied by a factor that each
        # channel learns, starting from 20 (paper, section 3.1, after ParseNet). Of fewer channels
        # each has a larger share of the norm, so the factors of a narrow network start lower.
        (channels,) = scale_channels(width, FEATURE_MAPS["conv4_3"].channels)
        factor = 20.0 * width**0.5
        self.rescale_factors = nn.Parameter(torch.full((1, channels, 1, 1), factor))

        default_priors = self.create_prior_boxes()
        if priors_cxcy is None:
            priors_cxcy = default_priors
        if priors_cxcy.shape != default_priors.shape:
            expected = tuple(default_priors.shape)
            raise ValueError(f"priors: expected {expected}, got {tuple(priors_cxcy.shape)}")
        if input_shift is None:
            input_shift = torch.zeros(1, 3, 1, 1)
        # Buffers go to a GPU with the network. Not persistent: a checkpoint has them beside the
        # state dict, whose names and shapes stay those of the published tutorial
        self.register_buffer("priors_cxcy", priors_cxcy, persistent=False)
        self.register_buffer("input_shift", input_shift, persistent=False)

    def forward(self, image):
        """
        :param image: (N, 3, 300, 300) float, RGB normalised with ImageNet's mean and standard
            deviation
        :return: locs (N, 8732, 4), offsets gcxgcy from the priors, and scores (N, 8732, n_classes)
            before the softmax
        """
        conv4_3_feats, conv7_feats = self.base(image + self.input_shift)

        conv4_3_feats = conv4_3_feats.float()  # smaller types cannot hold squares
        norm = torch.linalg.vector_norm(conv4_3_feats, dim=1, keepdim=True)
        norm = (norm.square() + 1e-10).sqrt()  # (N, 1, 38, 38), never 0
        conv4_3_feats = conv4_3_feats / norm * self.rescale_factors

        aux_feats = self.aux_convs(conv7_feats)
        return self.pred_convs(conv4_3_feats, conv7_feats, *aux_feats)

    @staticmethod
    def create_prior_boxes(feature_maps=FEATURE_MAPS):
        """
        The priors of all maps: map by map, row by row over the tiles of each, and on a tile in the
        order 1:1, extra, 2:1, 3:1, 1:2, 1:3. The extra prior is square; its side is the geometric
        mean of this map's scale and the next one's (paper, section 2.2).

        :param feature_maps: the table to follow
        :return: (8732, 4) float, fractional cxcy. Priors may reach beyond the edges of the image
        """
        scales = [feature_map.scale for feature_map in feature_maps.values()]
        extra_scales = [(scale * next_scale) ** 0.5 for scale, next_scale in pairwise(scales)]
        extra_scales.append(1.0)  # the last map has no next one

        priors = []
        for feature_map, extra in zip(feature_maps.values(), extra_scales, strict=True):
            side, _, scale, aspect_ratios = feature_map
            sizes = [(scale * ratio**0.5, scale / ratio**0.5) for ratio in aspect_ratios]
            sizes.insert(1, (extra, extra))
            for row in range(side):
                for column in range(side):
                    for width, height in sizes:
                        priors.append(((column + 0.5) / side, (row + 0.5) / side, width, height))
        # The clamp makes no prior wider or higher than the image; all centres are inside anyway
        return torch.tensor(priors, dtype=torch.float32).clamp(0, 1)

    @torch.no_grad()
    def detect_objects(self, predicted_locs, predicted_scores, min_score, max_overlap, top_k):
        """
        Turn the 8732 predictions of each image into detections. All images of a batch are handled
        together.

        :param predicted_locs: (N, 8732, 4) float, offsets gcxgcy
        :param predicted_scores: (N, 8732, n_classes) float, before the softmax
        :param min_score: a class's probability must be above this
        :param max_overlap: of two boxes of a class whose Jaccard overlap is above this, the one
            with the lower score is suppressed
        :param top_k: the most detections per image
        :return: three lists of N tensors, best detection first: boxes (n, 4) in fractional xy, not
            clipped to the image; labels (n,) long; scores (n,). An image without detections has
            n = 0.
        """
        n_images, _, n_classes = predicted_scores.shape
        probabilities = predicted_scores.float().softmax(dim=2).nan_to_num(nan=0.0)
        probabilities[:, :, 0] = -torch.inf  # background is never a detection
        probabilities = probabilities.flatten(1)  # (N, 8732 * n_classes), a pair of prior and class
        n_candidates = (probabilities > min_score).sum(dim=1)  # (N,)
        n_all = int(n_candidates.max()) if n_images > 0 else 0

        # Only a better box can suppress a box. So what happens to the best candidates of an image
        # does not depend on the others: all are compared only if fewer than top_k of the best stay
        for n_best in (min(4 * top_k, n_all), n_all):
            # 1. Candidates: the best pairs of a prior and a class, if they score high enough. From
            # here on there are flat lists, image by image, and in each image the best ones first
            scores, pairs = probabilities.topk(n_best, dim=1)  # (N, n_best) both
            images, places = (scores > min_score).nonzero(as_tuple=True)  # (n,) both
            scores, pairs = scores[images, places], pairs[images, places]
            priors, labels = pairs // n_classes, pairs % n_classes

            # 2. The best 400 of each class in each image
            groups = images * n_classes + labels
            good = rank_in_group(groups) < MAX_CANDIDATES_PER_CLASS
            images, priors, labels = images[good], priors[good], labels[good]
            scores, groups = scores[good], groups[good]

            # 3. Non-maximum suppression within each class of each image
            offsets = predicted_locs[images, priors].float()
            boxes = cxcy_to_xy(gcxgcy_to_cxcy(offsets, self.priors_cxcy[priors]))  # (n, 4)
            kept = suppress(boxes, scores, groups, max_overlap)  # indices of candidates
            n_kept = torch.bincount(images[kept], minlength=n_images)  # (N,)
            if ((n_kept >= top_k) | (n_candidates <= n_best)).all():
                break

        # 4. The best top_k of each image, over all its classes; one tensor per image
        kept = kept[rank_in_group(images[kept]) < top_k]
        sizes = n_kept.clamp(max=top_k).tolist()
        boxes, labels, scores = boxes[kept], labels[kept], scores[kept]
        return list(boxes.split(sizes)), list(labels.split(sizes)), list(scores.split(sizes))


def number_classes(n_classes):
    """A label map for classes without names: {"background": 0, "1": 1, "2": 2 ...}."""
    return {"background": 0} | {str(number): number for number in range(1, n_classes)}


def rank_in_group(group):
    """
    How many elements of the same group come before each element.

    :param group: (n,) long, numbers from 0, in any order
    :return: (n,) long; for [5, 2, 5, 5, 2] it is [0, 0, 1, 2, 1]
    """
    order = group.argsort(stable=True)  # all elements of group 0, then those of group 1 ...
    size = torch.bincount(group)
    first = size.cumsum(0) - size  # the place in that order where each group begins
    place = torch.arange(len(group), device=group.device)
    rank = torch.empty_like(group)
    rank[order] = place - first[group[order]]
    return rank


def suppress(boxes, scores, groups, max_overlap):
    """
    Non-maximum suppression within each group. The idea: take the best box of a group, drop those
    that overlap it too much, take the best one that is left, and so on. (The tests have it as a
    plain loop; here torchvision's kernel does the work.)

    :param boxes: (n, 4) float, xy
    :param scores: (n,) float
    :param groups: (n,) long; boxes of different groups do not suppress each other
    :param max_overlap: Jaccard overlap above which the box with the lower score is dropped
    :return: (m,) long, indices of the boxes that stay, ascending
    """
    # NaN, or coordinates far outside the image, must not disturb the other boxes
    far = 1e4  # in sides of the image
    device = boxes.device
    boxes = to_float64(boxes)  # on the CPU, or still on the device
    scores = to_float64(scores)
    groups = groups.to(boxes.device)
    boxes = boxes.nan_to_num().clamp(-far, far) + far  # from 0 to 2 * far
    if boxes.is_cuda and len(boxes) <= 100_000:
        # One call for the whole batch, which a GPU is fast with: each group is moved to a place of
        # its own, where it meets no other. (The kernel keeps a bit per pair of boxes: 1.2 GB here)
        boxes = boxes + groups.unsqueeze(1) * (2 * far + 1)
        kept = torchvision.ops.nms(boxes, scores, max_overlap)
    else:
        # torchvision goes through many groups one by one, which is faster on a CPU
        kept = torchvision.ops.batched_nms(boxes, scores, groups, max_overlap)
    return kept.sort().values.to(device)


def match_priors(boxes_xy, is_object, priors_xy, threshold):
    """
    Decide which object each prior has to predict (paper, section 2.2, "Matching strategy").

    A prior is positive for the object that it overlaps most, if that overlap is at least the
    threshold. In addition, every object gets a prior of its own, so that each is learnt from: the
    pair with the highest overlap is settled first, then the highest among the objects and priors
    that are left, and so on. (The tests have this as a plain loop. Here all images are handled
    together, and all pairs at once that would not take anything from one another.)

    :param boxes_xy: (N, M, 4) float, the objects of each image. M is the largest number of objects,
        at least 1; images with fewer are padded with boxes that overlap no prior
    :param is_object: (N, M) bool, False for padding
    :param priors_xy: (P, 4) float
    :param threshold: Jaccard overlap from which a prior is positive
    :return: the object of each prior (N, P) long, an index below M; and whether the prior is
        positive (N, P) bool
    """
    overlap = find_jaccard_overlap(boxes_xy, priors_xy)  # (N, M, P)
    overlap_for_each_prior, object_for_each_prior = overlap.max(dim=1)  # (N, P) both
    positive = overlap_for_each_prior >= threshold

    n_images, n_objects, n_priors = overlap.shape
    object_index = torch.arange(n_objects, device=overlap.device).expand(n_images, -1)  # (N, M)
    waiting = is_object  # (N, M), objects that have no prior of their own yet
    # The object that has a prior as its own, -1 for none. In the last column, which is no prior's,
    # the objects end up that win nothing in a round
    owner = torch.full((n_images, n_priors + 1), -1, device=overlap.device)
    for _ in range(n_objects):  # each round settles at least the best pair of each image
        best_overlap, best_prior = overlap.max(dim=2)  # (N, M) both, of each object's free priors

        # A waiting object wins its best prior if no other waiting object overlaps that prior more.
        # rival_overlap[n, i, j] is the overlap of object i with the prior that object j wants.
        wanted = best_prior.unsqueeze(1).expand(-1, n_objects, -1)  # (N, M, M)
        rival_overlap = overlap.gather(2, wanted).masked_fill(~waiting.unsqueeze(2), -1.0)
        is_best = rival_overlap.argmax(dim=1) == object_index
        wins = waiting & is_best & (best_overlap >= 0)  # (N, M); below 0 no prior is free

        owner.scatter_(1, best_prior.masked_fill(~wins, n_priors), object_index)
        is_taken = owner[:, :-1] >= 0  # (N, P)
        overlap = overlap.masked_fill(is_taken.unsqueeze(1), -1.0)
        waiting = waiting & ~wins
        # Most batches need few rounds. Asking a GPU whether any object waits would stall it
        if overlap.device.type == "cpu" and not waiting.any():
            break

    owner = owner[:, :-1]
    is_owned = owner >= 0
    object_for_each_prior = torch.where(is_owned, owner, object_for_each_prior)
    return object_for_each_prior, positive | is_owned


class MultiBoxLoss(nn.Module):
    """
    The MultiBox loss (paper, section 2.2): how wrong the boxes of matched priors are, plus how
    wrong the class scores of these priors and of the hardest others are.
    """

    def __init__(self, priors_cxcy, threshold=0.5, neg_pos_ratio=3, alpha=1.0):
        """
        :param priors_cxcy: (P, 4) float
        :param threshold: Jaccard overlap from which a prior is matched with an object
        :param neg_pos_ratio: hard negatives per positive prior of an image
        :param alpha: weight of the localization loss
        """
        super().__init__()
        self.register_buffer("priors_cxcy", priors_cxcy, persistent=False)
        self.threshold = threshold
        self.neg_pos_ratio = neg_pos_ratio
        self.alpha = alpha

    def forward(self, predicted_locs, predicted_scores, boxes, labels):
        """
        :param predicted_locs: (N, P, 4) float, offsets gcxgcy
        :param predicted_scores: (N, P, n_classes) float, before the softmax
        :param boxes: list of N tensors (n_objects, 4), fractional xy; n_objects may be 0
        :param labels: list of N tensors (n_objects,) long, from 1
        :return: the loss, a scalar; 0 with zero gradients where no prior of the batch is positive
        """
        return self.total(self.components(predicted_locs, predicted_scores, boxes, labels))

    def total(self, losses):
        """The loss that the components {"confidence", "localization"} add up to."""
        return losses["confidence"] + self.alpha * losses["localization"]

    def components(self, predicted_locs, predicted_scores, boxes, labels):
        """
        The two losses that `forward` adds up; arguments as there.

        :return: {"confidence": scalar, "localization": scalar}
        """
        true_classes, true_locs = self.match(boxes, labels)
        n_positives = (true_classes > 0).sum()
        return self.compare(predicted_locs, predicted_scores, true_classes, true_locs, n_positives)

    def match(self, boxes, labels):
        """
        What the network should predict for every prior.

        :param boxes, labels: see forward; on the priors' device or on the CPU
        :return: on the priors' device: true classes (N, P) long, 0 (background) where a prior is
            not positive, and true offsets (N, P, 4), which only mean something for positive priors
        """
        device = self.priors_cxcy.device
        true_boxes = send(pad_sequence(boxes, batch_first=True), device)
        true_labels = send(pad_sequence(labels, batch_first=True), device)
        if true_labels.size(1) == 0:  # no object in the whole batch: one column of padding
            true_boxes = F.pad(true_boxes, (0, 0, 0, 1))
            true_labels = F.pad(true_labels, (0, 1))
        is_object = true_labels > 0  # (N, M), False for padding
        priors_xy = cxcy_to_xy(self.priors_cxcy)
        beside_the_image = priors_xy[0] + 3  # padding: a box that no prior overlaps
        true_boxes = torch.where(is_object.unsqueeze(2), true_boxes, beside_the_image)  # (N, M, 4)

        object_for_each_prior, positive = match_priors(
            true_boxes, is_object, priors_xy, self.threshold
        )  # (N, P) both
        true_classes = true_labels.gather(1, object_for_each_prior) * positive
        box_index = object_for_each_prior.unsqueeze(2).expand(-1, -1, 4)
        matched_boxes = true_boxes.gather(1, box_index)  # (N, P, 4)
        return true_classes, cxcy_to_gcxgcy(xy_to_cxcy(matched_boxes), self.priors_cxcy)

    def compare(self, predicted_locs, predicted_scores, true_classes, true_locs, n_positives):
        """
        The two losses of some images of a batch, or of all. They are divided by the number of
        positive priors of the whole batch, so that the losses of its parts add up to its loss.

        :param predicted_locs, predicted_scores: see forward
        :param true_classes, true_locs: (N, P) and (N, P, 4), see match
        :param n_positives: scalar tensor, the number of positive priors of the whole batch
        :return: {"confidence": scalar, "localization": scalar}
        """
        # Without positives both sums are zero, and stay zero when they are divided by one
        divisor = n_positives.clamp(min=1)
        confidence = self._confidence_loss(predicted_scores.float(), true_classes)
        localization = self._localization_loss(predicted_locs.float(), true_locs, true_classes)
        return {"confidence": confidence / divisor, "localization": localization / divisor}

    @staticmethod
    def _localization_loss(predicted_locs, true_locs, true_classes):
        """Smooth L1 loss, summed over the four offsets of all positive priors."""
        positive = true_classes > 0  # (N, P)
        loss = F.smooth_l1_loss(predicted_locs, true_locs, reduction="none")  # (N, P, 4)
        # Not loss[positive].sum(): a GPU would have to stop and count the positive ones
        return loss.masked_fill(~positive.unsqueeze(2), 0.0).sum()

    def _confidence_loss(self, predicted_scores, true_classes):
        """
        Cross entropy, summed over the positive priors and, in each image, over its hardest
        negatives: the priors without an object whose loss is highest, `neg_pos_ratio` for each
        positive one. All 8732 would drown out the few positives.
        """
        positive = true_classes > 0  # (N, P)
        loss = F.cross_entropy(
            predicted_scores.flatten(0, 1), true_classes.flatten(), reduction="none"
        ).view_as(true_classes)  # (N, P)
        positive_loss = loss.masked_fill(~positive, 0.0).sum()

        negative_loss = loss.masked_fill(positive, 0.0)
        negative_loss, _ = negative_loss.sort(dim=1, descending=True)  # hardest first
        n_hard = self.neg_pos_ratio * positive.sum(dim=1, keepdim=True)  # (N, 1)
        is_hard = torch.arange(loss.size(1), device=loss.device) < n_hard  # (N, P)
        return positive_loss + negative_loss.masked_fill(~is_hard, 0.0).sum()
