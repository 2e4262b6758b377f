"""
The network and its loss: SSD300 on a VGG-16 base, and the MultiBox loss (Liu et al. 2016, https://arxiv.org/abs/1512.02325).

Below them is what scripts need to run them: the choice of device and precision, several processes, and signals to stop.
"""

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
    xy_to_cxcy,
)


class FeatureMap(NamedTuple):
    """A feature map that predictions are made from, and the priors that stand on each of its tiles."""

    side: int  # tiles along each side
    channels: int
    scale: float  # side of the square prior, as a fraction of the image's side
    aspect_ratios: (
        tuple  # width / height of the priors, in order; the extra square one comes second
    )


# Everything about priors follows from this table (paper, section 2.2). The scales grow evenly from 0.2 to 0.9; conv4_3 has 0.1.
# DEVIATION(prior-scales): the authors' released code spaces the scales a little differently (0.1, 0.2, 0.37 ... 0.88, last extra
# one 0.96), centres the priors of a map by its stride in pixels, and does not cap their width and height. These are the numbers
# of the paper's text, and of the published tutorial's checkpoints (last extra one 1).
FEATURE_MAPS = {
    "conv4_3": FeatureMap(38, 512, 0.1, (1.0, 2.0, 1 / 2)),
    "conv7": FeatureMap(19, 1024, 0.2, (1.0, 2.0, 3.0, 1 / 2, 1 / 3)),
    "conv8_2": FeatureMap(10, 512, 0.375, (1.0, 2.0, 3.0, 1 / 2, 1 / 3)),
    "conv9_2": FeatureMap(5, 256, 0.55, (1.0, 2.0, 3.0, 1 / 2, 1 / 3)),
    "conv10_2": FeatureMap(3, 256, 0.725, (1.0, 2.0, 1 / 2)),
    "conv11_2": FeatureMap(1, 256, 0.9, (1.0, 2.0, 1 / 2)),
}
# The most detections of one class in one image that go into non-maximum suppression (nms_param.top_k in the authors' code).
MAX_CANDIDATES_PER_CLASS = 400


class VGGBase(nn.Module):
    """VGG-16 as a feature extractor: convolutions only, and a last pooling that keeps the resolution (paper, section 3)."""

    def __init__(self):
        super().__init__()
        self.conv1_1 = nn.Conv2d(3, 64, kernel_size=3, padding=1)
        self.conv1_2 = nn.Conv2d(64, 64, kernel_size=3, padding=1)
        self.pool1 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.conv2_1 = nn.Conv2d(64, 128, kernel_size=3, padding=1)
        self.conv2_2 = nn.Conv2d(128, 128, kernel_size=3, padding=1)
        self.pool2 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.conv3_1 = nn.Conv2d(128, 256, kernel_size=3, padding=1)
        self.conv3_2 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.conv3_3 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.pool3 = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)  # 75 becomes 38, not 37

        self.conv4_1 = nn.Conv2d(256, 512, kernel_size=3, padding=1)
        self.conv4_2 = nn.Conv2d(512, 512, kernel_size=3, padding=1)
        self.conv4_3 = nn.Conv2d(512, 512, kernel_size=3, padding=1)
        self.pool4 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.conv5_1 = nn.Conv2d(512, 512, kernel_size=3, padding=1)
        self.conv5_2 = nn.Conv2d(512, 512, kernel_size=3, padding=1)
        self.conv5_3 = nn.Conv2d(512, 512, kernel_size=3, padding=1)
        self.pool5 = nn.MaxPool2d(
            kernel_size=3, stride=1, padding=1
        )  # stride 1: the map stays 19 x 19

        # fc6 and fc7 as convolutions. Decimation left one in three rows and columns of fc6's 7 x 7 kernel: the holes between
        # them widen the 3 x 3 kernel that remains (dilation 6, as pool5 no longer halves the map).
        self.conv6 = nn.Conv2d(512, 1024, kernel_size=3, padding=6, dilation=6)
        self.conv7 = nn.Conv2d(1024, 1024, kernel_size=1)

        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                # Thirteen layers deep, smaller weights would let the signal die out: He's initialisation keeps its variance.
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, image):
        """
        :param image: (N, 3, 300, 300) float
        :return: conv4_3 features (N, 512, 38, 38) and conv7 features (N, 1024, 19, 19)
        """
        # In place: elsewhere, ReLUs take a processor a sixth of the time. (A hook that keeps a convolution's output must copy it)
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
        Fill the base from torchvision's VGG-16, trained on ImageNet (downloaded once into torch's cache, 528 MB).

        The thirteen convolutions are taken as they are. The fully connected fc6 and fc7 are first written as convolutions that
        compute the same (7 x 7 and 1 x 1), then decimated to the size that conv6 and conv7 have.

        :raises DownloadError: the weights can not be downloaded, or the file in the cache is damaged
        """
        vgg16 = download_weights(
            torchvision.models.VGG16_Weights.IMAGENET1K_V1,
            "the ImageNet weights of VGG-16",
            f"and put that file into {torch.hub.get_dir()}/checkpoints, or train without them (--no-pretrained)",
        )
        state = self.state_dict()
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
    """Start every convolution in `module` with Xavier-uniform weights and zero biases (paper, section 3.1)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class AuxiliaryConvolutions(nn.Module):
    """The convolutions after the base; they make the four smaller, coarser feature maps (paper, figure 2)."""

    def __init__(self):
        super().__init__()
        self.conv8_1 = nn.Conv2d(1024, 256, kernel_size=1)
        self.conv8_2 = nn.Conv2d(
            256, 512, kernel_size=3, stride=2, padding=1
        )  # stride halves the map

        self.conv9_1 = nn.Conv2d(512, 128, kernel_size=1)
        self.conv9_2 = nn.Conv2d(128, 256, kernel_size=3, stride=2, padding=1)

        self.conv10_1 = nn.Conv2d(256, 128, kernel_size=1)
        self.conv10_2 = nn.Conv2d(128, 256, kernel_size=3)  # no padding takes 2 off the map

        self.conv11_1 = nn.Conv2d(256, 128, kernel_size=1)
        self.conv11_2 = nn.Conv2d(128, 256, kernel_size=3)
        init_xavier(self)

    def forward(self, conv7_feats):
        """
        :param conv7_feats: (N, 1024, 19, 19) float
        :return: features of conv8_2 (N, 512, 10, 10), conv9_2 (N, 256, 5, 5), conv10_2 (N, 256, 3, 3), conv11_2 (N, 256, 1, 1)
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
    Two 3 x 3 convolutions on each feature map: `loc_...` predicts four offsets for every prior of a tile, `cl_...` a score for
    every class (paper, section 2.1).
    """

    def __init__(self, n_classes):
        """:param n_classes: number of classes, the background counted"""
        super().__init__()
        self.n_classes = n_classes
        for name, feature_map in FEATURE_MAPS.items():
            n_priors = len(feature_map.aspect_ratios) + 1  # and the extra square one
            setattr(
                self,
                f"loc_{name}",
                nn.Conv2d(feature_map.channels, n_priors * 4, kernel_size=3, padding=1),
            )
            setattr(
                self,
                f"cl_{name}",
                nn.Conv2d(feature_map.channels, n_priors * n_classes, kernel_size=3, padding=1),
            )
        init_xavier(self)

    def forward(self, *feature_maps):
        """
        :param feature_maps: the six feature maps (N, channels, side, side), in the order of FEATURE_MAPS
        :return: locs (N, 8732, 4) and scores (N, 8732, n_classes), in the order of the priors
        """
        locs, scores = [], []
        for name, features in zip(FEATURE_MAPS, feature_maps, strict=True):
            locs.append(self._per_prior(getattr(self, f"loc_{name}")(features), 4))
            scores.append(self._per_prior(getattr(self, f"cl_{name}")(features), self.n_classes))
        return torch.cat(locs, dim=1), torch.cat(scores, dim=1)

    @staticmethod
    def _per_prior(out, n_values):
        """(N, priors per tile * n_values, side, side) -> (N, side * side * priors per tile, n_values)"""
        # A tile's channels hold its first prior's values, then its second's ... With the channels last, reading the memory in
        # order goes row by row over the tiles and over the priors of each: the order of create_prior_boxes().
        return out.permute(0, 2, 3, 1).reshape(out.size(0), -1, n_values)


class SSD300(nn.Module):
    """The whole network: base, auxiliary and prediction convolutions, and the priors that its predictions are relative to."""

    def __init__(self, n_classes, pretrained=True, priors_cxcy=None, input_shift=None):
        """
        :param n_classes: number of classes, the background counted
        :param pretrained: start the base from torchvision's ImageNet weights; otherwise nothing is downloaded
        :param priors_cxcy: (8732, 4) float, the priors of a converted model; default create_prior_boxes()
        :param input_shift: (1, 3, 1, 1) float, added to every input: the difference between our normalisation and the one that a
            converted model was trained with; default zeros
        :raises ValueError: the priors have another shape
        """
        super().__init__()
        self.n_classes = n_classes
        self.base = VGGBase()
        if pretrained:
            self.base.load_pretrained_layers()
        self.aux_convs = AuxiliaryConvolutions()
        self.pred_convs = PredictionConvolutions(n_classes)

        # conv4_3 lies so early that its values are much larger than those of later maps: its features are divided by their L2
        # norm and multiplied by a factor that each of the 512 channels learns (paper, section 3.1; ParseNet).
        self.rescale_factors = nn.Parameter(torch.full((1, 512, 1, 1), 20.0))

        default_priors = self.create_prior_boxes()
        priors_cxcy = default_priors if priors_cxcy is None else priors_cxcy
        if priors_cxcy.shape != default_priors.shape:
            raise ValueError(
                f"priors: expected {tuple(default_priors.shape)}, got {tuple(priors_cxcy.shape)}"
            )
        self.register_buffer("priors_cxcy", priors_cxcy, persistent=False)
        self.register_buffer(
            "input_shift",
            torch.zeros(1, 3, 1, 1) if input_shift is None else input_shift,
            persistent=False,
        )

    def forward(self, image):
        """
        :param image: (N, 3, 300, 300) float, RGB normalised with ImageNet's mean and standard deviation
        :return: locs (N, 8732, 4), offsets gcxgcy from the priors, and scores (N, 8732, n_classes), before the softmax
        """
        conv4_3_feats, conv7_feats = self.base(image + self.input_shift)

        # In float32, as squares of large values overflow smaller types; the epsilon makes a vector of zeros stay one.
        conv4_3_feats = conv4_3_feats.float()
        norm = (
            torch.linalg.vector_norm(conv4_3_feats, dim=1, keepdim=True).square() + 1e-10
        ).sqrt()  # (N, 1, 38, 38)
        conv4_3_feats = conv4_3_feats / norm * self.rescale_factors

        return self.pred_convs(conv4_3_feats, conv7_feats, *self.aux_convs(conv7_feats))

    @staticmethod
    def create_prior_boxes(feature_maps=FEATURE_MAPS):
        """
        The priors of all maps: for each map in turn, row by row over its tiles, and on a tile in the order 1:1, extra, 2:1, 3:1,
        1:2, 1:3. The extra prior is square, with the geometric mean of this map's scale and the next one's (paper, section 2.2).

        :param feature_maps: the table to follow
        :return: (8732, 4) float, fractional cxcy; not clipped to the image, but no wider or higher than it
        """
        scales = [feature_map.scale for feature_map in feature_maps.values()]
        next_scales = [*scales[1:], None]
        priors = []
        for (side, _, scale, aspect_ratios), next_scale in zip(
            feature_maps.values(), next_scales, strict=True
        ):
            extra = 1.0 if next_scale is None else (scale * next_scale) ** 0.5
            sizes = [(scale * ratio**0.5, scale / ratio**0.5) for ratio in aspect_ratios]
            sizes.insert(1, (extra, extra))
            priors += [
                ((column + 0.5) / side, (row + 0.5) / side, width, height)
                for row in range(side)
                for column in range(side)
                for width, height in sizes
            ]
        return torch.tensor(priors, dtype=torch.float32).clamp(0, 1)

    @torch.no_grad()
    def detect_objects(self, predicted_locs, predicted_scores, min_score, max_overlap, top_k):
        """
        Turn the 8732 predictions of each image into detections: decode the boxes, keep what scores above `min_score`, and of
        the boxes of one class that overlap only the best (non-maximum suppression). The whole batch goes through at once.

        :param predicted_locs: (N, 8732, 4) float
        :param predicted_scores: (N, 8732, n_classes) float, before the softmax
        :param min_score: a class's probability must be above this
        :param max_overlap: of two boxes of a class whose Jaccard overlap is above this, the one with the lower score goes
        :param top_k: the most detections an image
        :return: three lists of N tensors, best detection first: boxes (n, 4) in fractional xy, not clipped to the image; labels
            (n,) long; scores (n,). An image without detections has n = 0.
        """
        n_images, n_priors, n_classes = predicted_scores.shape
        probabilities = predicted_scores.float().softmax(dim=2)  # (N, 8732, n_classes)
        probabilities[:, :, 0] = float("-inf")  # the background is not looked for
        # NaN counts, which topk takes for the highest; int64 would take five times as long
        n_candidates = n_priors * n_classes - (probabilities <= min_score).sum(
            dim=(1, 2), dtype=torch.int32
        )  # (N)
        n_most = max(n_candidates.tolist(), default=0)

        # Only better boxes suppress a box: what stays of the best candidates stays in any case. More are taken if too few do.
        for n_best in (2 * top_k, 6 * top_k, n_most):
            n_best = min(n_best, n_most)
            boxes, score, group = self._best_candidates(
                probabilities, predicted_locs, min_score, n_best
            )
            at_once = (
                boxes.is_cuda and len(boxes) < 100_000
            )  # a bit for each pair: 1.2 GB. A processor has less to do apart
            kept = suppress(boxes, score, group, n_classes, max_overlap, at_once)
            image = group[kept] // n_classes
            n_kept = torch.bincount(image, minlength=n_images)  # (N)
            if ((n_kept >= top_k) | (n_candidates <= n_best)).all():
                break

        kept = kept[rank_in_group(image) < top_k]
        sizes = n_kept.clamp(max=top_k).tolist()
        return tuple(
            list(tensor.split(sizes))
            for tensor in (boxes[kept], group[kept] % n_classes, score[kept])
        )

    def _best_candidates(self, probabilities, predicted_locs, min_score, n_best):
        """
        The pairs of a prior and a class that score highest in each image, of each class at most 400.

        :param probabilities, predicted_locs: (N, 8732, n_classes), minus infinity for the background, and (N, 8732, 4)
        :param min_score: only what is above it
        :param n_best: the most of an image
        :return: for the n candidates of the batch, image by image and each image's best first: boxes (n, 4) in fractional xy,
            scores (n,), and groups (n,), the number of the image times n_classes plus the label
        """
        n_classes = probabilities.size(2)
        scores, index = probabilities.flatten(1).topk(n_best, dim=1)  # (N, n_best) both
        image, place = (scores > min_score).nonzero(as_tuple=True)  # (n,) both
        score, index = scores[image, place], index[image, place]
        prior, group = index // n_classes, image * n_classes + index % n_classes
        goes_on = rank_in_group(group) < MAX_CANDIDATES_PER_CLASS
        image, prior, score, group = image[goes_on], prior[goes_on], score[goes_on], group[goes_on]
        boxes = gcxgcy_to_cxcy(predicted_locs[image, prior].float(), self.priors_cxcy[prior])
        return cxcy_to_xy(boxes), score, group


def rank_in_group(group):
    """For each element of group, (n,) long, from 0 and in any order: how many of the same group come before it, (n,) long."""
    order = group.argsort(stable=True)
    size = torch.bincount(group)
    first = size.cumsum(0) - size  # where each group begins in that order
    rank = torch.empty_like(group)
    rank[order] = torch.arange(len(group), device=group.device) - first[group[order]]
    return rank


def suppress(boxes, scores, groups, n_classes, max_overlap, at_once):
    """
    Non-maximum suppression within each class of each image of a batch.

    :param boxes, scores: (n, 4) float, xy, and (n,) float
    :param groups: (n,) long, the number of the image times n_classes plus the label
    :param n_classes: number of classes, the background counted
    :param max_overlap: of two boxes of a group whose Jaccard overlap is above this, the one with the lower score goes
    :param at_once: compare the boxes of all images with one another, instead of those of each image
    :return: (m,) long, the boxes that stay, in their order
    """
    # Groups are kept apart by moving each to a place of its own; that takes digits to spare, hence float64, and a bound
    far = 1e4  # sides of the image: only senseless boxes reach it
    place = groups if at_once else groups % n_classes
    moved = boxes.double().nan_to_num().clamp(-far, far) + far + (2 * far + 1) * place.unsqueeze(1)
    if at_once:
        kept = torchvision.ops.nms(moved, scores.double(), max_overlap)
    else:
        kept = torchvision.ops.batched_nms(moved, scores.double(), groups // n_classes, max_overlap)
    return kept.sort().values


def match_priors(boxes_xy, is_object, priors_xy, threshold):
    """
    Decide which object each prior has to predict (paper, section 2.2, "Matching strategy").

    A prior is positive for the object that it overlaps most if that overlap is at least the threshold. Beyond that every object
    has a prior of its own, so that none goes unlearnt: the pair with the highest overlap is settled first, and an object whose
    prior is taken has its next best free one.

    :param boxes_xy: (N, M, 4) float, objects of each image, padded to the largest number M >= 1 with boxes that overlap no prior
    :param is_object: (N, M) bool, False for padding
    :param priors_xy: (P, 4) float
    :param threshold: Jaccard overlap from which a prior is positive
    :return: the object of each prior (N, P) long, an index below M; and whether the prior is positive (N, P) bool
    """
    priors_xy = F.pad(
        priors_xy, (0, 0, 0, 1), value=-1.0
    )  # one more, which overlaps nothing, for losers to be written to
    overlap = find_jaccard_overlap(boxes_xy, priors_xy)  # (N, M, P + 1)
    n_images, n_objects, n_priors = overlap.shape
    overlap_for_each_prior, object_for_each_prior = overlap.max(dim=1)  # (N, P + 1) both
    positive = overlap_for_each_prior >= threshold
    # In each round every object that waits names its best free prior, and gets it if no other that waits overlaps it more. So at
    # least the best pair of all is settled, and none that would not also be settled if pairs were taken one by one.
    objects = torch.arange(n_objects, device=overlap.device)
    waiting = is_object  # (N, M)
    for _ in range(n_objects):
        best_overlap, prior = overlap.max(dim=2)  # (N, M) both
        waiting = waiting & (best_overlap >= 0)  # not for ever, where no prior is free
        rivals = overlap.gather(
            2, prior.unsqueeze(1).expand(-1, n_objects, -1)
        )  # (N, M, M), who overlaps whose prior how much
        wins = waiting & (rivals.masked_fill(~waiting.unsqueeze(2), -1.0).argmax(dim=1) == objects)
        place = prior.masked_fill(~wins, n_priors - 1)
        object_for_each_prior.scatter_(1, place, objects.expand(n_images, -1))
        positive.scatter_(1, place, True)
        overlap.scatter_(2, place.unsqueeze(1).expand(-1, n_objects, -1), -1.0)  # no longer free
        waiting = waiting & ~wins
        if (
            not overlap.is_cuda and not waiting.any()
        ):  # a GPU would have to stop for the answer: it goes through all rounds
            break
    return object_for_each_prior[:, :-1], positive[:, :-1]


def parts_of_batch(boxes, max_objects):
    """Slices of a batch with few objects, padding counted, whose overlaps with all priors fit into a processor's cache."""
    parts, first, most = [], 0, 0
    for last, n_objects in enumerate(map(len, boxes)):
        most = max(most, n_objects)
        if last > first and (last + 1 - first) * most > max_objects:
            parts.append(slice(first, last))
            first, most = last, n_objects
    return [*parts, slice(first, len(boxes))]


class MultiBoxLoss(nn.Module):
    """The MultiBox loss: how wrong the boxes of matched priors are, and how wrong the class scores are (paper, section 2.2)."""

    def __init__(self, priors_cxcy, threshold=0.5, neg_pos_ratio=3, alpha=1.0):
        """
        :param priors_cxcy: (P, 4) float
        :param threshold: Jaccard overlap from which a prior is matched with an object
        :param neg_pos_ratio: hard negatives for each positive prior of an image
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
        """The loss that the two components {"confidence", "localization"} add up to."""
        return losses["confidence"] + self.alpha * losses["localization"]

    def components(self, predicted_locs, predicted_scores, boxes, labels):
        """The two losses that `forward` adds up, by name, {"confidence": scalar, "localization": scalar}; arguments as there."""
        true_classes, true_locs = self.match(boxes, labels)
        return self.compare(
            predicted_locs, predicted_scores, true_classes, true_locs, (true_classes > 0).sum()
        )

    def match(self, boxes, labels):
        """
        What the network should predict for every prior.

        :param boxes, labels: see forward; on the priors' device or on the CPU
        :return: on the priors' device: true classes (N, P) long, 0 (background) where a prior is not positive, and true offsets
            (N, P, 4), which mean something for positive priors only
        """
        # A GPU takes the batch as a whole; a processor has it faster in parts
        parts = [slice(None)] if self.priors_cxcy.is_cuda else parts_of_batch(boxes, max_objects=32)
        matched = [self._match_part(boxes[part], labels[part]) for part in parts]
        true_classes, true_locs = zip(*matched, strict=True)
        return torch.cat(true_classes), torch.cat(true_locs)

    def _match_part(self, boxes, labels):
        """What `match` says, for a part of a batch."""
        device = self.priors_cxcy.device
        true_boxes = pad_sequence(boxes, batch_first=True).to(
            device, non_blocking=True
        )  # (N, M, 4)
        true_labels = pad_sequence(labels, batch_first=True).to(
            device, non_blocking=True
        )  # (N, M), 0 where there is no object
        if true_labels.size(1) == 0:  # no object at all: one column of padding
            true_boxes, true_labels = F.pad(true_boxes, (0, 0, 0, 1)), F.pad(true_labels, (0, 1))
        is_object = true_labels > 0
        priors_xy = cxcy_to_xy(self.priors_cxcy)
        true_boxes = torch.where(
            is_object.unsqueeze(2), true_boxes, priors_xy[0] + 3
        )  # padding: any box away from the picture

        object_for_each_prior, positive = match_priors(
            true_boxes, is_object, priors_xy, self.threshold
        )  # (N, P) both
        true_classes = (
            true_labels.gather(1, object_for_each_prior) * positive
        )  # (N, P), background 0 where not positive
        matched_boxes = true_boxes.gather(
            1, object_for_each_prior.unsqueeze(2).expand(-1, -1, 4)
        )  # (N, P, 4)
        return true_classes, cxcy_to_gcxgcy(xy_to_cxcy(matched_boxes), self.priors_cxcy)

    def compare(self, predicted_locs, predicted_scores, true_classes, true_locs, n_positives_batch):
        """
        The two losses of predictions: sums over these images, divided by the positive priors of the whole batch, of which these
        images may be a part. The losses of its parts add up to the loss of the batch.

        :param predicted_locs, predicted_scores: see forward
        :param true_classes, true_locs: (N, P) and (N, P, 4), see match
        :param n_positives_batch: scalar tensor, the number of positive priors of the batch
        :return: {"confidence": scalar, "localization": scalar}
        """
        predicted_locs, predicted_scores = predicted_locs.float(), predicted_scores.float()
        positive = true_classes > 0
        # Without positives both sums below are zero; dividing them by one instead of zero keeps them so.
        divisor = n_positives_batch.clamp(min=1)
        confidence = self._confidence_loss(
            predicted_scores, true_classes, positive, positive.sum(dim=1)
        )
        localization = self._localization_loss(predicted_locs, true_locs, positive)
        return {"confidence": confidence / divisor, "localization": localization / divisor}

    @staticmethod
    def _localization_loss(predicted_locs, true_locs, positive):
        """Smooth L1 loss, summed over the four offsets of all positive priors of the batch."""
        loss = F.smooth_l1_loss(predicted_locs, true_locs, reduction="none")  # (N, P, 4)
        return loss.masked_fill(~positive.unsqueeze(2), 0.0).sum()

    def _confidence_loss(self, predicted_scores, true_classes, positive, n_positives):
        """
        Cross entropy, summed over the positive priors and, in each image, over its hardest negatives: the priors without an
        object whose loss is highest, `neg_pos_ratio` for each positive one. All 8732 would drown the few positives.
        """
        loss = F.cross_entropy(
            predicted_scores.flatten(0, 1), true_classes.flatten(), reduction="none"
        ).view_as(positive)
        positive_loss = loss.masked_fill(~positive, 0.0).sum()

        negative_loss, _ = loss.masked_fill(positive, 0.0).sort(
            dim=1, descending=True
        )  # (N, P), hardest first
        hardness = torch.arange(loss.size(1), device=loss.device)  # 0 for the hardest
        is_hard = hardness < self.neg_pos_ratio * n_positives.unsqueeze(1)  # (N, P)
        return positive_loss + negative_loss.masked_fill(~is_hard, 0.0).sum()
