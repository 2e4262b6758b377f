"""
What is behind an average precision: how many errors of which kind there are, above which score
detections are worth keeping, and from what size on objects are found. Numbers only; report.py shows
them.
"""

import math
from typing import NamedTuple

import torch

from utils import average_precision, find_jaccard_overlap, judge_detections

MIN_OVERLAP = 0.5  # a detection is right above this, as in utils.calculate_mAP
BACKGROUND_OVERLAP = 0.1  # below this it has nothing to do with an object (TIDE's t_b)

# Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", section 2.2
KINDS = {
    "classification": "well placed, but on an object of another class",
    "localization": "right class, but badly placed: an overlap of 0.1 to 0.5",
    "both": "badly placed, and on an object of another class",
    "duplicate": "right, but a better detection found the object before",
    "background": "on nothing: an overlap of less than 0.1 with all objects",
    "missed": "objects that nothing was found for, not even one of these errors",
}

# COCO's ranges of the area in pixels, low <= area < high
SIZES = {
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, math.inf),
}


class Objects(NamedTuple):
    """The objects of all images, T of them, in the order of the images."""

    images: torch.Tensor  # (T,) long
    boxes_px: torch.Tensor  # (T, 4)
    labels: torch.Tensor  # (T,) long
    difficulties: torch.Tensor  # (T,) bool: not counted


class Detections(NamedTuple):
    """The detections of all images, D of them, best score first."""

    images: torch.Tensor  # (D,) long
    boxes_px: torch.Tensor  # (D, 4)
    labels: torch.Tensor  # (D,) long
    scores: torch.Tensor  # (D,)
    is_true: torch.Tensor  # (D,) bool
    is_false: torch.Tensor  # (D,) bool; on a difficult object neither of the two
    own_overlap: torch.Tensor  # (D,) the largest with an object of the same class; -1 without one
    own_object: torch.Tensor  # (D,) long, which one that is
    other_overlap: torch.Tensor  # (D,) the same for objects of other classes
    other_object: torch.Tensor  # (D,)


class Threshold(NamedTuple):
    """What is left of detections with a score above min_score."""

    min_score: float
    precision: float  # the share of them that is right
    recall: float  # the share of the objects that they find
    f1: float  # harmonic mean of the two


# ------------------------------------------------------------------------- detections and objects


def compare(columns, label_map):
    """
    Compare detections with objects. Objects of classes that the label map lacks are left out.

    :param columns: the first six arguments of utils.calculate_mAP, boxes in pixels
    :param label_map: {class name: number}
    :return: Detections, Objects
    """
    det_boxes, det_labels, det_scores, true_boxes, true_labels, true_difficulties = columns
    n_images = len(det_labels)
    known = torch.tensor([number for number in label_map.values() if number > 0])
    objects = Objects(
        image_numbers(true_labels),
        torch.cat([torch.zeros(0, 4), *true_boxes]),
        torch.cat([torch.zeros(0, dtype=torch.int64), *true_labels]),
        torch.cat([torch.zeros(0, dtype=torch.bool), *true_difficulties]).bool(),
    )
    objects = Objects(*(values[torch.isin(objects.labels, known)] for values in objects))

    scores = torch.cat([torch.zeros(0), *det_scores])
    order = scores.argsort(descending=True, stable=True)
    images = image_numbers(det_labels)[order]
    boxes_px = torch.cat([torch.zeros(0, 4), *det_boxes])[order]
    labels = torch.cat([torch.zeros(0, dtype=torch.int64), *det_labels])[order]
    best = find_best_objects(images, boxes_px, labels, objects, n_images)
    judged = judge(images, boxes_px, labels, objects, label_map, n_images)
    return Detections(images, boxes_px, labels, scores[order], *judged, *best), objects


def image_numbers(tensors):
    """For tensors with n_0, n_1 ... rows: 0 n_0 times, 1 n_1 times, and so on."""
    return torch.repeat_interleave(torch.tensor([len(tensor) for tensor in tensors]).long())


def judge(images, boxes_px, labels, objects, label_map, n_images, difficulties=None):
    """
    Judge the detections of all classes, as calculate_mAP does.

    :param images, boxes_px, labels: of the detections, best score first
    :param difficulties: (T,) bool in place of those of the objects
    :return: is_true (D,) bool and is_false (D,) bool
    """
    if difficulties is None:
        difficulties = objects.difficulties
    is_true = torch.zeros(len(labels), dtype=torch.bool)
    is_false = torch.zeros(len(labels), dtype=torch.bool)
    for number in label_map.values():
        detected = labels == number
        wanted = objects.labels == number
        if not wanted.any():
            is_false |= detected
            continue
        is_true[detected], is_false[detected] = judge_detections(
            images[detected],
            boxes_px[detected],
            objects.images[wanted],
            objects.boxes_px[wanted],
            difficulties[wanted],
            n_images,
            MIN_OVERLAP,
        )
    return is_true, is_false


def find_best_objects(images, boxes_px, labels, objects, n_images):
    """
    For each detection, the objects that it overlaps most, of its own class and of other classes.

    :return: own_overlap, own_object, other_overlap, other_object: see Detections
    """
    own_overlap, other_overlap = torch.full((2, len(labels)), -1.0)
    own_object, other_object = torch.zeros(2, len(labels), dtype=torch.int64)
    rows_by_image = split_by_image(images, n_images)
    objects_by_image = split_by_image(objects.images, n_images)
    for rows, places in zip(rows_by_image, objects_by_image, strict=True):
        if len(rows) == 0 or len(places) == 0:
            continue
        overlap = find_jaccard_overlap(boxes_px[rows], objects.boxes_px[places])  # (n, m)
        is_own = labels[rows].unsqueeze(1) == objects.labels[places]
        own_overlap[rows], best = overlap.masked_fill(~is_own, -1).max(dim=1)
        own_object[rows] = places[best]
        other_overlap[rows], best = overlap.masked_fill(is_own, -1).max(dim=1)
        other_object[rows] = places[best]
    return own_overlap, own_object, other_overlap, other_object


def split_by_image(images, n_images):
    """Which rows belong to each image: a list of n_images tensors of indices."""
    counts = torch.bincount(images, minlength=n_images).tolist()
    return images.argsort(stable=True).split(counts)


# -------------------------------------------------------------------------------- kinds of errors


def find_kinds(detections):
    """
    The kind of error of each false positive. Where several apply, the first of KINDS that is easy
    to mend counts: a better place, another class, suppression.

    :return: {kind: (D,) bool} for all kinds but "missed"; each false positive is of one kind
    """
    left = detections.is_false.clone()
    own = detections.own_overlap
    other = detections.other_overlap
    conditions = {
        "localization": (own >= BACKGROUND_OVERLAP) & (own <= MIN_OVERLAP),
        "classification": other > MIN_OVERLAP,
        "duplicate": own > MIN_OVERLAP,
        "background": torch.maximum(own, other) < BACKGROUND_OVERLAP,
        "both": torch.ones_like(left),
    }
    kinds = {}
    for kind, condition in conditions.items():
        kinds[kind] = left & condition
        left = left & ~condition
    return kinds


def find_missed(detections, objects, kinds, min_score=-math.inf):
    """
    The objects that were missed: countable ones that no detection above min_score found, badly
    placed or took for another class.

    :param kinds: what find_kinds returns
    :return: (T,) bool
    """
    kept = detections.scores > min_score
    missed = ~objects.difficulties
    missed[detections.own_object[kept & (detections.is_true | kinds["localization"])]] = False
    missed[detections.other_object[kept & kinds["classification"]]] = False
    return missed


def count_errors(detections, objects, min_score):
    """:return: {kind: number of errors among detections above min_score}"""
    kinds = find_kinds(detections)
    kept = detections.scores > min_score
    counts = {kind: int((is_kind & kept).sum()) for kind, is_kind in kinds.items()}
    counts["missed"] = int(find_missed(detections, objects, kinds, min_score).sum())
    return {kind: counts[kind] for kind in KINDS}


def find_gains(detections, objects, label_map, metric):
    """
    How much the mAP would grow if all errors of one kind were mended, which says more than their
    number: errors at low scores cost little. As TIDE does it (section 2.3): a wrong class or place
    is corrected in the best detection of an object that was not found, and all others of the kind
    are removed; objects that were missed are no longer counted.

    :param metric: "11-point" or "area"
    :return: {kind: growth of the mAP, from 0 to 1}
    """
    kinds = find_kinds(detections)
    countable = ~objects.difficulties
    was_found = torch.zeros(len(countable), dtype=torch.bool)
    was_found[detections.own_object[detections.is_true]] = True
    before = mean_average_precision(detections, objects, countable, label_map, metric)
    targets = {"classification": detections.other_object, "localization": detections.own_object}
    gains = {}
    for kind in KINDS:
        mended = detections
        wanted = countable
        if kind == "missed":
            wanted = countable & ~find_missed(detections, objects, kinds)
        else:
            mended = remove(mended, kinds[kind])
        if kind in targets:
            free = countable & ~was_found
            mended = correct(mended, objects, kinds[kind], targets[kind], free)
        after = mean_average_precision(mended, objects, wanted, label_map, metric)
        gains[kind] = after - before
    return gains


def remove(detections, chosen):
    """Detections of which the chosen ones count as neither right nor wrong."""
    return detections._replace(is_false=detections.is_false & ~chosen)


def correct(detections, objects, chosen, targets, free):
    """
    Detections in which the best chosen one of each free object has found it.

    :param chosen: (D,) bool
    :param targets: (D,) the object that each of them belongs to
    :param free: (T,) bool
    """
    rows = chosen.nonzero().squeeze(1)
    rows = rows[free[targets[rows]]]
    first = torch.full((len(free),), len(chosen))
    first.scatter_reduce_(0, targets[rows], rows, reduce="amin")
    rows = rows[first[targets[rows]] == rows]
    is_true = detections.is_true.clone()
    is_true[rows] = True
    labels = detections.labels.clone()
    labels[rows] = objects.labels[targets[rows]]
    return detections._replace(is_true=is_true, labels=labels)


def mean_average_precision(detections, objects, countable, label_map, metric):
    """The mAP of judged detections, of the classes with countable objects (T,) bool; or NaN."""
    values = []
    for number in label_map.values():
        n_objects = int((countable & (objects.labels == number)).sum())
        if number > 0 and n_objects > 0:
            rows = detections.labels == number
            is_true, is_false = detections.is_true[rows], detections.is_false[rows]
            values.append(average_precision(is_true, is_false, n_objects, metric))
    return sum(values) / len(values) if values else math.nan


# ------------------------------------------------------------------------------------- thresholds


def recommend_threshold(scores, is_true, is_false, n_objects):
    """
    The threshold with the best F1, the harmonic mean of precision and recall: the usual choice
    where a false alarm costs as much as a missed object.

    :param scores, is_true, is_false: (D,) each, best score first
    :param n_objects: number of countable objects
    :return: Threshold, half-way between the last score above it and the next one; None if nothing
        is right
    """
    if not is_true.any():
        return None
    n_true = is_true.cumsum(0).double()
    n_false = is_false.cumsum(0).double()
    f1 = 2 * n_true / (n_true + n_false + n_objects)
    following = torch.cat([scores[1:], scores.new_tensor([min(0.0, float(scores[-1]) - 1)])])
    f1[scores == following] = -1  # nothing separates equal scores
    place = int(f1.argmax())
    min_score = (float(scores[place]) + max(float(following[place]), 0.0)) / 2
    precision = n_true[place] / (n_true[place] + n_false[place])
    return Threshold(
        min_score, float(precision), float(n_true[place]) / n_objects, float(f1[place])
    )


def precision_and_recall(detections, n_objects, thresholds):
    """
    :param n_objects: number of countable objects
    :param thresholds: ascending numbers
    :return: lists of precision (NaN where nothing is left) and recall, one value per threshold
    """
    ascending = detections.scores.flip(0).contiguous()
    n_below = torch.searchsorted(ascending, torch.tensor(thresholds), right=True)
    n_kept = len(ascending) - n_below
    zero = torch.zeros(1, dtype=torch.int64)
    n_true = torch.cat([zero, detections.is_true.cumsum(0)])[n_kept].double()
    n_false = torch.cat([zero, detections.is_false.cumsum(0)])[n_kept].double()
    precision = n_true / (n_true + n_false)
    recall = n_true / n_objects if n_objects else torch.full_like(n_true, math.nan)
    return precision.tolist(), recall.tolist()


def curve(is_true, is_false, n_objects):
    """
    The precision-recall curve of one class at 101 recalls: the best precision at that recall or a
    higher one, as average precision has it.

    :return: list of (recall, precision), as far as recall goes
    """
    n_true = is_true.cumsum(0)
    precision = n_true.double() / (n_true + is_false.cumsum(0)).clamp(min=1)
    points = []
    for k in range(101):
        reached = precision[100 * n_true >= k * n_objects]
        if len(reached) == 0:
            break
        points.append((k / 100, float(reached.max())))
    return points


# ------------------------------------------------------------------------------------------ sizes


class SizeResult(NamedTuple):
    """How well the objects of one class and one range of sizes are found."""

    n_objects: int
    recall: float  # share found by detections above min_score; NaN without objects
    average_precision: float


def areas(boxes_px):
    """(n, 4) -> (n,) areas."""
    return (boxes_px[:, 2] - boxes_px[:, 0]) * (boxes_px[:, 3] - boxes_px[:, 1])


def find_found(detections, objects, min_score):
    """:return: (T,) bool, whether a detection above min_score has found the object"""
    found = torch.zeros(len(objects.labels), dtype=torch.bool)
    kept = detections.is_true & (detections.scores > min_score)
    found[detections.own_object[kept]] = True
    return found


def measure_by_size(detections, objects, label_map, n_images, min_score, metric):
    """
    :return: {range of sizes: {class name: SizeResult}}
    """
    found = find_found(detections, objects, min_score)
    results = {}
    for size, (low, high) in SIZES.items():
        in_range = (areas(objects.boxes_px) >= low) & (areas(objects.boxes_px) < high)
        countable = in_range & ~objects.difficulties
        judged = judge_size(detections, objects, ~countable, label_map, n_images, low, high)
        results[size] = {}
        for name, number in label_map.items():
            if number == 0:
                continue
            wanted = countable & (objects.labels == number)
            n_objects = int(wanted.sum())
            recall = average = math.nan
            if n_objects:
                rows = judged.labels == number
                values = judged.is_true[rows], judged.is_false[rows]
                average = average_precision(*values, n_objects, metric)
                recall = int((found & wanted).sum()) / n_objects
            results[size][name] = SizeResult(n_objects, recall, average)
    return results


def judge_size(detections, objects, difficulties, label_map, n_images, low, high):
    """
    Detections judged for one range of sizes as COCO does: objects of other sizes count as
    difficult, and so do detections of other sizes that found nothing.
    """
    is_true, is_false = judge(
        detections.images,
        detections.boxes_px,
        detections.labels,
        objects,
        label_map,
        n_images,
        difficulties,
    )
    size = areas(detections.boxes_px)
    is_false &= (size >= low) & (size < high)
    return detections._replace(is_true=is_true, is_false=is_false)


def count_by_side(sides, found):
    """
    How many objects of which size there are, and how many of them were found.

    :param sides: (n,) the sides of squares with the objects' areas
    :param found: (n,) bool
    :return: list of (low, high, number of objects, number found); each side is the root of two
        times the one before; without empty ranges at either end
    """
    if len(sides) == 0:
        return []
    steps = (2 * torch.log2(sides.clamp(min=1))).floor().long()
    rows = []
    for step in range(int(steps.min()), int(steps.max()) + 1):
        here = steps == step
        rows.append(
            (2 ** (step / 2), 2 ** ((step + 1) / 2), int(here.sum()), int(found[here].sum()))
        )
    return rows


def smallest_side(rows, share=0.5, n_needed=10):
    """
    From what size on at least this share of the objects is found.

    :param rows: what count_by_side returns; a row with fewer objects than n_needed says nothing
    :return: the low end of the first row of those; None if the largest objects are not found
    """
    smallest = None
    for low, _, n_objects, n_found in reversed(rows):
        if n_objects >= n_needed and n_found < share * n_objects:
            break
        if n_objects >= n_needed:
            smallest = low
    return smallest
