"""Slow, obvious versions of what `model.py` does for whole batches at once: plain loops in double precision."""

import math

import torch

from model import FEATURE_MAPS, SSD300


def slow_jaccard(box, other):
    """Jaccard overlap of two boxes (x_min, y_min, x_max, y_max); 0 for two boxes without area."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    intersection = width * height if width > 0 and height > 0 else 0.0
    union = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - intersection
    return intersection / union if union > 0 else 0.0


def slow_jaccards(boxes, others):
    """Overlap of each box with each of the others, as a list of rows."""
    return [[slow_jaccard(box, other) for other in others] for box in boxes]


def slow_corners(cxcy):
    """(c_x, c_y, w, h) -> (x_min, y_min, x_max, y_max)"""
    c_x, c_y, w, h = cxcy
    return [c_x - w / 2, c_y - h / 2, c_x + w / 2, c_y + h / 2]


def slow_encode(box, prior):
    """Offsets of a box (x_min, y_min, x_max, y_max) from a prior (c_x, c_y, w, h), with the authors' variances 0.1 and 0.2."""
    c_x, c_y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
    return [
        (c_x - prior[0]) / prior[2] / 0.1,
        (c_y - prior[1]) / prior[3] / 0.1,
        math.log(w / prior[2]) / 0.2,
        math.log(h / prior[3]) / 0.2,
    ]


def slow_decode(offsets, prior):
    """The box (x_min, y_min, x_max, y_max) that has these offsets from a prior (c_x, c_y, w, h)."""
    c_x, c_y = prior[0] + offsets[0] * 0.1 * prior[2], prior[1] + offsets[1] * 0.1 * prior[3]
    return slow_corners([c_x, c_y, prior[2] * math.exp(offsets[2] * 0.2), prior[3] * math.exp(offsets[3] * 0.2)])


def slow_matching(overlaps, threshold):
    """
    :param overlaps: a row for each object of one image, with its overlap with each prior
    :return: for each prior the object that it has to predict, or None where it is negative
    """
    n_objects, n_priors = len(overlaps), len(overlaps[0]) if overlaps else 0
    matched = []
    for prior in range(n_priors):
        best = 0
        for rival in range(1, n_objects):
            if overlaps[rival][prior] > overlaps[best][prior]:
                best = rival
        matched.append(best if overlaps[best][prior] >= threshold else None)

    pairs = [(object_, prior) for object_ in range(n_objects) for prior in range(n_priors)]
    pairs.sort(key=lambda pair: -overlaps[pair[0]][pair[1]])  # stable: on a tie the first object, then the first prior
    settled_objects, settled_priors = set(), set()
    for object_, prior in pairs:
        if object_ not in settled_objects and prior not in settled_priors:
            matched[prior] = object_
            settled_objects.add(object_)
            settled_priors.add(prior)
    return matched


def slow_smooth_l1(difference):
    """Quadratic below one, linear beyond."""
    size = abs(difference)
    return 0.5 * size * size if size < 1 else size - 0.5


def slow_hard_negatives(losses, matched, ratio):
    """Indices of the `ratio` x positives priors with the highest losses among those that are not matched with an object."""
    negatives = [prior for prior in range(len(losses)) if matched[prior] is None]
    n_positives = len(losses) - len(negatives)
    negatives.sort(key=lambda prior: -losses[prior].item())
    return negatives[: ratio * n_positives]


def slow_multibox_loss(predictions, boxes, labels, priors, matchings, neg_pos_ratio=3):
    """
    :param predictions: locs (N, P, 4) and scores (N, P, n_classes), float64; gradients flow to them
    :param boxes: N lists of boxes; labels: N lists of numbers
    :param priors: P lists (c_x, c_y, w, h)
    :param matchings: N answers of slow_matching, [None, ...] for an image without objects
    :return: confidence and localization loss
    """
    predicted_locs, predicted_scores = predictions
    confidence, localization = predicted_scores.sum() * 0, predicted_locs.sum() * 0
    n_positives = 0
    for image, matched in enumerate(matchings):
        losses = []
        rows, offsets = predicted_scores[image].unbind(), predicted_locs[image].unbind()
        for prior, object_ in enumerate(matched):
            row = rows[prior]
            label = 0 if object_ is None else labels[image][object_]
            losses.append(torch.logsumexp(row, dim=0) - row[label])
            if object_ is None:
                continue
            n_positives += 1
            confidence = confidence + losses[prior]
            target = slow_encode(boxes[image][object_], priors[prior])
            for predicted, wanted in zip(offsets[prior], target, strict=True):
                localization = localization + slow_smooth_l1(predicted - wanted)
        for prior in slow_hard_negatives(losses, matched, neg_pos_ratio):
            confidence = confidence + losses[prior]
    return confidence / max(n_positives, 1), localization / max(n_positives, 1)


def slow_softmax(scores):
    """Probabilities from scores."""
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    return [power / sum(powers) for power in powers]


def slow_suppression(boxes, max_overlap):
    """Indices of the boxes, best first, that greedy non-maximum suppression keeps."""
    kept = []
    for index, box in enumerate(boxes):
        if all(slow_jaccard(box, boxes[better]) <= max_overlap for better in kept):
            kept.append(index)
    return kept


def slow_candidates(locs, scores, priors, min_score, limit=400):
    """For each class from 1 the best candidates of one image, best first: lists of (score, box)."""
    probabilities = [slow_softmax(row) for row in scores]
    candidates = {}
    for label in range(1, len(scores[0])):
        above = [prior for prior in range(len(priors)) if probabilities[prior][label] > min_score]
        above.sort(key=lambda prior: -probabilities[prior][label])
        candidates[label] = [(probabilities[prior][label], slow_decode(locs[prior], priors[prior])) for prior in above[:limit]]
    return candidates


def slow_detection(locs, scores, priors, min_score, max_overlap, top_k, limit=400):
    """
    :param locs, scores, priors: lists of rows, for one image
    :return: list of (score, label, box), best first
    """
    found = []
    for label, candidates in slow_candidates(locs, scores, priors, min_score, limit).items():
        kept = slow_suppression([box for _, box in candidates], max_overlap)
        found += [(candidates[index][0], label, candidates[index][1]) for index in kept]
    found.sort(key=lambda detection: -detection[0])
    return found[:top_k]


def tutorial_priors():
    """Our priors with 0.333 in place of 1/3, as the published tutorial's code made its answers in `golden.json`."""
    table = {
        name: feature_map._replace(aspect_ratios=tuple(0.333 if ratio == 1 / 3 else ratio for ratio in feature_map.aspect_ratios))
        for name, feature_map in FEATURE_MAPS.items()
    }
    return SSD300.create_prior_boxes(table)
