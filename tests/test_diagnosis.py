"""What is behind an average precision: kinds of errors, thresholds, sizes."""

import math

import numpy as np
import pytest
import torch

import diagnosis
from diagnosis import KINDS, compare, count_errors, find_gains, recommend_threshold
from utils import calculate_mAP

LABEL_MAP = {"background": 0, "cat": 1, "dog": 2}
BOX = [0.0, 0.0, 10.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]


def columns_of(images):
    """
    The columns that calculate_mAP takes.

    :param images: a pair for each: detections (label, score, box), objects (label, box, difficult)
    """
    columns = [[] for _ in range(6)]
    for detections, objects in images:
        columns[0].append(torch.tensor([box for _, _, box in detections]).view(-1, 4).float())
        columns[1].append(torch.tensor([label for label, _, _ in detections]).long())
        columns[2].append(torch.tensor([score for _, score, _ in detections]).float())
        columns[3].append(torch.tensor([box for _, box, _ in objects]).view(-1, 4).float())
        columns[4].append(torch.tensor([label for label, _, _ in objects]).long())
        columns[5].append(torch.tensor([difficult for _, _, difficult in objects]).bool())
    return columns


def errors(detections, objects, min_score=0.0):
    """The kinds of error in one image, with their counts; none with 0."""
    compared = compare(columns_of([(detections, objects)]), LABEL_MAP)
    return {kind: n for kind, n in count_errors(*compared, min_score).items() if n}


# -------------------------------------------------------------------------------- kinds of errors

CAT = [(1, BOX, False)]
HALF_OFF = [0.0, 5.0, 10.0, 15.0]  # overlap of 1/3 with BOX
HARDLY_ON = [9.0, 9.0, 19.0, 19.0]  # overlap of 1/199


@pytest.mark.parametrize(
    ("detections", "objects", "expected"),
    [
        ([(1, 0.9, BOX)], CAT, {}),
        ([(2, 0.9, BOX)], CAT, {"classification": 1}),
        ([(1, 0.9, HALF_OFF)], CAT, {"localization": 1}),
        ([(2, 0.9, HALF_OFF)], CAT, {"both": 1, "missed": 1}),
        ([(1, 0.9, BOX), (1, 0.8, BOX)], CAT, {"duplicate": 1}),
        ([(1, 0.9, HARDLY_ON)], CAT, {"background": 1, "missed": 1}),
        ([(1, 0.9, BOX)], [], {"background": 1}),
        ([], CAT, {"missed": 1}),
        ([], [(1, BOX, True)], {}),  # a difficult object is not missed,
        ([(1, 0.9, BOX), (1, 0.8, BOX)], [(1, BOX, True)], {}),  # nor finding it an error
        ([(2, 0.9, BOX)], [(1, BOX, True)], {"classification": 1}),
        # Of two kinds the one that is easier to mend: a place of its own class nearby
        ([(2, 0.9, BOX)], [*CAT, (2, HALF_OFF, False)], {"localization": 1, "missed": 1}),
        ([(1, 0.05, BOX)], CAT, {"missed": 1}),  # not above min_score
    ],
)
def test_each_kind_of_error(detections, objects, expected):
    assert errors(detections, objects, min_score=0.1) == expected


def random_images(seed, n_images=20):
    """Images with objects on a coarse grid, and detections most of which are near to one."""
    rng = np.random.default_rng(seed)

    def box():
        corner, sides = rng.integers(0, 12, 2), rng.integers(3, 9, 2)
        return [*map(float, corner), *map(float, corner + sides)]

    images = []
    for _ in range(n_images):
        objects = [
            (int(rng.integers(1, 3)), box(), bool(rng.random() < 0.2))
            for _ in range(rng.integers(0, 5))
        ]
        detections = []
        for _ in range(rng.integers(0, 9)):
            label, place = int(rng.integers(1, 3)), box()
            if objects and rng.random() < 0.7:
                label, place, _ = objects[rng.integers(len(objects))]
                place = [
                    edge + shift for edge, shift in zip(place, rng.integers(-1, 2, 4), strict=True)
                ]
                label = label if rng.random() < 0.7 else 3 - label
            detections.append((label, float(rng.random()), place))
        images.append((detections, objects))
    return images


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def plain_count(images, min_score):
    """The kinds of errors by a plain loop, from the definitions in TIDE's paper."""
    counts = dict.fromkeys(KINDS, 0)
    for detections, objects in images:
        found, excused = set(), set()
        for label, score, box in sorted(detections, key=lambda found: -found[1]):
            if score <= min_score:
                continue
            overlaps = [overlap(box, other) for _, other, _ in objects]
            own = [o if objects[i][0] == label else -1 for i, o in enumerate(overlaps)]
            other = [o if objects[i][0] != label else -1 for i, o in enumerate(overlaps)]
            best = max(range(len(objects)), key=own.__getitem__, default=None)
            best_other = max(range(len(objects)), key=other.__getitem__, default=None)
            if best is None:
                counts["background"] += 1
            elif own[best] > 0.5:
                if not objects[best][2]:
                    counts["duplicate"] += best in found
                    found.add(best)
            elif own[best] >= 0.1:
                counts["localization"] += 1
                excused.add(best)
            elif other[best_other] > 0.5:
                counts["classification"] += 1
                excused.add(best_other)
            elif max(overlaps) < 0.1:
                counts["background"] += 1
            else:
                counts["both"] += 1
        countable = {i for i, (_, _, difficult) in enumerate(objects) if not difficult}
        counts["missed"] += len(countable - found - excused)
    return counts


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_score", [0.0, 0.4])
def test_random_cases_agree_with_a_plain_loop(seed, min_score):
    images = random_images(seed)
    counts = count_errors(*compare(columns_of(images), LABEL_MAP), min_score)
    assert counts == plain_count(images, min_score)
    assert list(counts) == list(KINDS)


@pytest.mark.parametrize("metric", ["11-point", "area"])
def test_judgements_give_the_average_precision_of_calculate_map(metric):
    columns = columns_of(random_images(7))
    detections, objects = compare(columns, LABEL_MAP)
    _, expected = calculate_mAP(*columns, label_map=LABEL_MAP, metric=metric)
    countable = ~objects.difficulties
    mean = diagnosis.mean_average_precision(detections, objects, countable, LABEL_MAP, metric)
    assert mean == pytest.approx(expected, abs=1e-12)


def gains(detections, objects):
    compared = compare(columns_of([(detections, objects)]), LABEL_MAP)
    return find_gains(*compared, LABEL_MAP, "area")


def test_what_mending_errors_gains():
    assert gains([(1, 0.9, FAR), (1, 0.8, BOX)], CAT)["background"] == pytest.approx(0.5)
    assert gains([(1, 0.9, HALF_OFF)], CAT)["localization"] == pytest.approx(1)
    assert gains([(1, 0.9, HALF_OFF)], CAT)["background"] == 0
    # The dog's only detection is called a cat: mended, both classes are right
    objects = [(1, BOX, False), (2, FAR, False)]
    assert gains([(1, 0.9, FAR), (1, 0.8, BOX)], objects)["classification"] == pytest.approx(0.75)
    # One of two cats was not found
    objects = [(1, BOX, False), (1, FAR, False)]
    assert gains([(1, 0.9, BOX)], objects)["missed"] == pytest.approx(0.5)
    assert gains([(1, 0.9, BOX), (1, 0.8, BOX), (1, 0.7, FAR)], objects)[
        "duplicate"
    ] == pytest.approx(1 - (1 + 2 / 3) / 2)


def test_a_mended_detection_does_not_find_what_was_found_before():
    detections = [(1, 0.9, BOX), (2, 0.8, BOX)]
    assert gains(detections, [*CAT, (2, FAR, False)])["classification"] == 0


def test_objects_of_unknown_classes_are_left_out():
    _, objects = compare(columns_of([([], [*CAT, (7, FAR, False)])]), LABEL_MAP)
    assert objects.labels.tolist() == [1]


def test_no_image_and_no_detection():
    for images in ([], [([], [])], [([(1, 0.9, BOX)], [])]):
        compared = compare(columns_of(images), LABEL_MAP)
        assert count_errors(*compared, 0.0)["missed"] == 0
        assert all(map(math.isnan, find_gains(*compared, LABEL_MAP, "area").values()))


# ------------------------------------------------------------------------------------- thresholds


def plain_threshold(scores, is_true, is_false, n_objects):
    """The best F1 over all thresholds, by trying each."""
    best = (0.0, None)
    for threshold in sorted({*scores, 0.0}):
        kept = [i for i, score in enumerate(scores) if score >= threshold]
        n_true = sum(is_true[i] for i in kept)
        n_false = sum(is_false[i] for i in kept)
        f1 = 2 * n_true / (n_true + n_false + n_objects)
        if f1 >= best[0]:
            best = (f1, len(kept))
    return best


@pytest.mark.parametrize("seed", range(20))
def test_the_recommended_threshold_has_the_best_f1(seed, random):
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.integers(1, 12, 15) / 12)[::-1].copy()  # with equal ones
    kinds = rng.integers(0, 3, 15)
    is_true, is_false = kinds == 0, kinds == 1
    n_objects = int(is_true.sum()) + 3
    found = recommend_threshold(*map(torch.tensor, (scores, is_true, is_false)), n_objects)
    f1, n_kept = plain_threshold(scores.tolist(), is_true, is_false, n_objects)
    kept = scores > found.min_score
    assert found.f1 == pytest.approx(f1)
    assert kept.sum() == n_kept
    right, wrong = is_true[kept].sum(), is_false[kept].sum()
    assert found.precision == pytest.approx(right / (right + wrong))
    assert found.recall == pytest.approx(right / n_objects)


def test_there_is_no_threshold_if_nothing_is_right():
    scores, nothing = torch.tensor([0.9]), torch.tensor([False])
    assert recommend_threshold(scores, nothing, ~nothing, 5) is None
    assert recommend_threshold(scores[:0], nothing[:0], nothing[:0], 5) is None


def test_precision_and_recall_by_threshold():
    detections, _ = compare(columns_of([([(1, 0.75, BOX), (1, 0.5, FAR)], CAT)]), LABEL_MAP)
    precision, recall = diagnosis.precision_and_recall(detections, 2, [0.0, 0.5, 0.75])
    assert precision[:2] == [0.5, 1]
    assert math.isnan(precision[2]), "a score has to be above the threshold"
    assert recall == [0.5, 0.5, 0]


def test_curve():
    is_true = torch.tensor([True, False, True])
    points = dict(diagnosis.curve(is_true, ~is_true, 4))
    assert max(points) == 0.5
    assert (points[0.25], points[0.26], points[0.5]) == pytest.approx((1, 2 / 3, 2 / 3))


# ------------------------------------------------------------------------------------------ sizes


def square(side, x=0.0):
    return [x, 0.0, x + side, side]


def test_objects_are_measured_by_size():
    objects = [(1, square(31), False), (1, square(32, 100), False), (1, square(96, 200), False)]
    detections = [
        (1, 0.9, square(31)),
        (1, 0.3, square(96, 200)),
        (1, 0.8, square(40, 400)),  # a false alarm of medium size
    ]
    compared = compare(columns_of([(detections, objects)]), LABEL_MAP)
    results = diagnosis.measure_by_size(*compared, LABEL_MAP, 1, 0.5, "area")
    cats = {size: by_class["cat"] for size, by_class in results.items()}
    assert cats == {"small": (1, 1, 1), "medium": (1, 0, 0), "large": (1, 0, 1)}
    assert results["small"]["dog"].n_objects == 0
    assert math.isnan(results["small"]["dog"].recall)


def test_objects_are_counted_by_side():
    sides = torch.tensor([8.0, 11.0, 11.4, 16.0, 31.0])
    found = torch.tensor([False, True, False, True, True])
    rows = diagnosis.count_by_side(sides, found)
    assert [(round(low, 1), n, n_found) for low, _, n, n_found in rows] == [
        (8.0, 2, 1),
        (11.3, 1, 0),
        (16.0, 1, 1),
        (22.6, 1, 1),
    ]
    assert all(row[1] == pytest.approx(row[0] * 2**0.5) for row in rows)
    assert diagnosis.count_by_side(sides[:0], found[:0]) == []


def test_from_what_side_on_objects_are_found():
    rows = [(8, 11, 20, 12), (11, 16, 20, 3), (16, 23, 2, 0), (23, 32, 20, 10), (32, 45, 20, 20)]
    assert diagnosis.smallest_side(rows) == 23
    assert diagnosis.smallest_side(rows[:2]) is None
    assert diagnosis.smallest_side(rows[2:3]) is None, "too few objects say nothing"
