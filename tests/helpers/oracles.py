"""Slow, obvious versions of what the code does fast: plain loops, straight from the definitions."""

import colorsys
import math

import torch
from PIL import Image

from utils import FILLER, IMAGE_SIZE


def slow_jaccard_overlap(box_1, box_2):
    """
    Intersection over union of two boxes, lists of x_min, y_min, x_max, y_max; 0 if both have no
    area.
    """
    width = max(0, min(box_1[2], box_2[2]) - max(box_1[0], box_2[0]))
    height = max(0, min(box_1[3], box_2[3]) - max(box_1[1], box_2[1]))
    areas = [(x_max - x_min) * (y_max - y_min) for x_min, y_min, x_max, y_max in (box_1, box_2)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def slow_decimate(matrix, step_1, step_2):
    """Every step_1-th row of a list of lists, and every step_2-th value of it; None keeps all."""
    return [
        [value for j, value in enumerate(row) if step_2 is None or j % step_2 == 0]
        for i, row in enumerate(matrix)
        if step_1 is None or i % step_1 == 0
    ]


# --------------------------------------------------------------------------------------- transforms


def slow_crop_and_resize(image, window):
    """
    Cut a window with whole-number edges out of an image step by step: draw a canvas, paste the
    image, crop, resize.
    """
    x_min, y_min, x_max, y_max = window
    left = max(0, -x_min)
    top = max(0, -y_min)
    width = left + max(image.width, x_max)
    height = top + max(image.height, y_max)
    canvas = Image.new("RGB", (width, height), FILLER)
    canvas.paste(image, (left, top))
    part = canvas.crop((left + x_min, top + y_min, left + x_max, top + y_max))
    return part.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)


def slow_transform_boxes(boxes_px, window, flip):
    """
    Transform boxes, lists of pixels, when only a window of the image is kept.

    :return: fractional boxes of the objects whose centre is in the window, and their indices
    """
    x_min, y_min, x_max, y_max = window
    width = x_max - x_min
    height = y_max - y_min
    boxes = []
    kept = []
    for place, (left, top, right, bottom) in enumerate(boxes_px):
        if not (x_min <= (left + right) / 2 <= x_max and y_min <= (top + bottom) / 2 <= y_max):
            continue
        left = max(left, x_min)
        top = max(top, y_min)
        right = min(right, x_max)
        bottom = min(bottom, y_max)
        if flip:
            left, right = x_min + x_max - right, x_min + x_max - left
        boxes.append(
            [
                (left - x_min) / width,
                (top - y_min) / height,
                (right - x_min) / width,
                (bottom - y_min) / height,
            ]
        )
        kept.append(place)
    return boxes, kept


def slow_scale_saturation(colour, factor):
    """A colour (red, green, blue from 0 to 255) with its saturation multiplied."""
    h, s, v = colorsys.rgb_to_hsv(*[level / 255 for level in colour])
    return [255 * level for level in colorsys.hsv_to_rgb(h, min(1.0, s * factor), v)]


def slow_shift_hue(colour, shift):
    """A colour with its hue shifted by a fraction of the colour circle."""
    h, s, v = colorsys.rgb_to_hsv(*[level / 255 for level in colour])
    return [255 * level for level in colorsys.hsv_to_rgb((h + shift) % 1.0, s, v)]


# --------------------------------------------------------------------------- mean average precision


def slow_judgements(detections, objects, min_overlap):
    """
    The devkit's loop over the detections of one class.

    :param detections: list of (score, image, box)
    :param objects: list of (image, box, difficult)
    :return: "true", "false" or "ignored" for each detection, the best score first; equal scores in
        the given order
    """
    found = set()
    judgements = []
    for _, image, box in sorted(detections, key=lambda detection: -detection[0]):
        best = None
        best_overlap = -math.inf
        for place, (object_image, object_box, _) in enumerate(objects):
            if object_image != image:
                continue
            overlap = slow_jaccard_overlap(box, object_box)
            if overlap > best_overlap:
                best = place
                best_overlap = overlap
        if best_overlap <= min_overlap:
            judgements.append("false")
        elif objects[best][2]:
            judgements.append("ignored")
        elif best in found:
            judgements.append("false")
        else:
            found.add(best)
            judgements.append("true")
    return judgements


def slow_average_precision(detections, objects, metric, min_overlap=0.5):
    """
    Average precision of one class; arguments as for slow_judgements. Recalls are compared as whole
    numbers. NaN if no object counts.
    """
    n_objects = sum(not difficult for _, _, difficult in objects)
    if n_objects == 0:
        return math.nan
    curve = []  # (number of true detections, precision) after each detection
    n_true = 0
    n_false = 0
    for judgement in slow_judgements(detections, objects, min_overlap):
        n_true += judgement == "true"
        n_false += judgement == "false"
        if judgement != "ignored":
            curve.append((n_true, n_true / (n_true + n_false)))
    if metric == "11-point":
        total = 0.0
        for k in range(11):
            reached = [precision for n, precision in curve if 10 * n >= k * n_objects]
            total += max(reached, default=0.0)
        return total / 11
    area = 0.0
    for n in range(1, n_objects + 1):  # the curve from recall (n - 1) / n_objects to n / n_objects
        reached = [precision for n_found, precision in curve if n_found >= n]
        area += max(reached, default=0.0) / n_objects
    return area


def slow_mean_average_precision(
    det_boxes,
    det_labels,
    det_scores,
    true_boxes,
    true_labels,
    true_difficulties,
    label_map,
    metric="11-point",
    min_overlap=0.5,
):
    """Takes and returns what calculate_mAP does, with lists of lists for lists of tensors."""
    average_precisions = {}
    for name, label in label_map.items():
        if label == 0:
            continue
        detections = []
        objects = []
        for image in range(len(det_boxes)):
            for box, det_label, score in zip(
                det_boxes[image], det_labels[image], det_scores[image], strict=True
            ):
                if det_label == label:
                    detections.append((score, image, box))
            for box, true_label, difficult in zip(
                true_boxes[image], true_labels[image], true_difficulties[image], strict=True
            ):
                if true_label == label:
                    objects.append((image, box, bool(difficult)))
        average_precisions[name] = slow_average_precision(detections, objects, metric, min_overlap)
    countable = [ap for ap in average_precisions.values() if not math.isnan(ap)]
    return average_precisions, sum(countable) / len(countable) if countable else math.nan


# -------------------------------------------------------------------- matching, loss, and detection


def slow_jaccards(boxes, others):
    """Overlap of each box with each of the others, as a list of rows."""
    return [[slow_jaccard_overlap(box, other) for other in others] for box in boxes]


def slow_corners(cxcy):
    """(c_x, c_y, w, h) -> (x_min, y_min, x_max, y_max)"""
    c_x, c_y, w, h = cxcy
    return [c_x - w / 2, c_y - h / 2, c_x + w / 2, c_y + h / 2]


def slow_encode(box, prior):
    """
    Offsets of a box (x_min, y_min, x_max, y_max) from a prior (c_x, c_y, w, h), with the authors'
    variances 0.1 and 0.2.
    """
    c_x = (box[0] + box[2]) / 2
    c_y = (box[1] + box[3]) / 2
    w = box[2] - box[0]
    h = box[3] - box[1]
    return [
        (c_x - prior[0]) / prior[2] / 0.1,
        (c_y - prior[1]) / prior[3] / 0.1,
        math.log(w / prior[2]) / 0.2,
        math.log(h / prior[3]) / 0.2,
    ]


def slow_decode(offsets, prior):
    """The box (x_min, y_min, x_max, y_max) that has these offsets from a prior (c_x, c_y, w, h)."""
    c_x = prior[0] + offsets[0] * 0.1 * prior[2]
    c_y = prior[1] + offsets[1] * 0.1 * prior[3]
    w = prior[2] * math.exp(offsets[2] * 0.2)
    h = prior[3] * math.exp(offsets[3] * 0.2)
    return slow_corners([c_x, c_y, w, h])


def slow_matching(overlaps, threshold):
    """
    :param overlaps: for each object a list: its overlap with each prior
    :return: for each prior its object, or None if it is negative
    """
    n_objects = len(overlaps)
    n_priors = len(overlaps[0]) if overlaps else 0
    matched = []
    for prior in range(n_priors):
        best = 0
        for rival in range(1, n_objects):
            if overlaps[rival][prior] > overlaps[best][prior]:
                best = rival
        matched.append(best if overlaps[best][prior] >= threshold else None)

    pairs = []
    for object_ in range(n_objects):
        pairs += [(object_, prior) for prior in range(n_priors)]
    # A stable sort: of equal overlaps the first object's come first
    pairs.sort(key=lambda pair: -overlaps[pair[0]][pair[1]])
    settled_objects = set()
    settled_priors = set()
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
    """
    Indices of the negative priors with the highest losses: `ratio` times as many as there are
    positive ones.
    """
    negatives = [prior for prior in range(len(losses)) if matched[prior] is None]
    n_positives = len(losses) - len(negatives)
    negatives.sort(key=lambda prior: -losses[prior].item())
    return negatives[: ratio * n_positives]


def slow_multibox_loss(predictions, boxes, labels, priors, matchings, neg_pos_ratio=3):
    """
    :param predictions: locs (N, P, 4) and scores (N, P, n_classes), float64; gradients flow to them
    :param boxes: N lists of boxes; labels: N lists of numbers
    :param priors: P lists (c_x, c_y, w, h)
    :param matchings: N results of slow_matching, [None, ...] for an image without objects
    :return: confidence and localization loss
    """
    predicted_locs, predicted_scores = predictions
    # Zeros that gradients can flow through
    confidence = predicted_scores.sum() * 0
    localization = predicted_locs.sum() * 0
    n_positives = 0
    for image, matched in enumerate(matchings):
        losses = []
        rows = predicted_scores[image].unbind()
        offsets = predicted_locs[image].unbind()
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
    """The indices of the boxes that stay, of boxes sorted best first."""
    kept = []
    for index, box in enumerate(boxes):
        overlaps = [slow_jaccard_overlap(box, boxes[other]) for other in kept]
        if all(overlap <= max_overlap for overlap in overlaps):
            kept.append(index)
    return kept


def slow_candidates(locs, scores, priors, min_score, limit=400):
    """The best candidates of one image: {class from 1: list of (score, box), best first}."""
    probabilities = [slow_softmax(row) for row in scores]
    candidates = {}
    for label in range(1, len(scores[0])):
        above = [prior for prior in range(len(priors)) if probabilities[prior][label] > min_score]
        above.sort(key=lambda prior: -probabilities[prior][label])
        candidates[label] = [
            (probabilities[prior][label], slow_decode(locs[prior], priors[prior]))
            for prior in above[:limit]
        ]
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
