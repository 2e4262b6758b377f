"""Mean average precision in utils.py, against hand values, a plain loop, and real results."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import shared_path
from helpers.oracles import slow_mean_average_precision
from helpers.real_results import as_tensors, voc2007_result
from utils import calculate_mAP, create_label_map, label_map

MAP_OF_THREE = create_label_map(("a", "b", "c"))

LISTS = ("det_boxes", "det_labels", "det_scores", "true_boxes", "true_labels", "true_difficulties")


def ap_of_one_class(detections, objects, metric="11-point", **kwargs):
    """
    AP of class a.

    :param detections: a list for each image of (score, box)
    :param objects: a list for each image of (box, difficult)
    """
    lists = as_tensors(
        [[box for _, box in image] for image in detections],
        [[1] * len(image) for image in detections],
        [[score for score, _ in image] for image in detections],
        [[box for box, _ in image] for image in objects],
        [[1] * len(image) for image in objects],
        [[difficult for _, difficult in image] for image in objects],
    )
    aps, mean = calculate_mAP(*lists, label_map=MAP_OF_THREE, metric=metric, **kwargs)
    assert list(aps) == ["a", "b", "c"]
    assert math.isnan(aps["b"])
    assert math.isnan(aps["c"])
    assert mean == pytest.approx(aps["a"], nan_ok=True)
    return aps["a"]


def squares(*places):
    """Boxes of 10 x 10 that do not touch."""
    return [[20.0 * place, 0.0, 20.0 * place + 10, 10.0] for place in places]


A, B, C, D, E = squares(0, 1, 2, 3, 4)

EASY, DIFFICULT = False, True


# -------------------------------------------------------------------------------------- hand values


HAND_VALUES = {  # detections of one image, its objects, AP with 11 points, AP as area
    "all found": ([(0.9, A), (0.8, B)], [(A, EASY), (B, EASY)], 1, 1),
    "half found": ([(0.9, A)], [(A, EASY), (B, EASY)], 6 / 11, 1 / 2),  # recalls 0 to 0.5
    "one of ten found": (
        [(0.9, A)],
        [(A, EASY), *((box, EASY) for box in squares(*range(1, 10)))],
        2 / 11,
        1 / 10,
    ),
    "a false one first": ([(0.9, C), (0.8, A)], [(A, EASY)], 1 / 2, 1 / 2),
    "a false one last": ([(0.9, A), (0.8, C)], [(A, EASY)], 1, 1),
    "true, false, true": (
        [(0.9, A), (0.8, C), (0.7, B)],
        [(A, EASY), (B, EASY)],
        (6 + 5 * 2 / 3) / 11,
        (1 + 2 / 3) / 2,
    ),
    # Precision rises again
    "false, true, true": (
        [(0.9, C), (0.8, A), (0.7, B)],
        [(A, EASY), (B, EASY)],
        2 / 3,
        2 / 3,
    ),
    "found twice": (
        [(0.9, A), (0.8, A), (0.7, B)],
        [(A, EASY), (B, EASY)],
        (6 + 5 * 2 / 3) / 11,
        (1 + 2 / 3) / 2,
    ),
    "nothing detected": ([], [(A, EASY)], 0, 0),
    "all wrong": ([(0.9, B), (0.8, C)], [(A, EASY)], 0, 0),
    "difficult one found": ([(0.9, B), (0.8, A)], [(A, EASY), (B, DIFFICULT)], 1, 1),
    "difficult one found twice": (
        [(0.9, B), (0.8, B), (0.7, A)],
        [(A, EASY), (B, DIFFICULT)],
        1,
        1,
    ),
    "difficult one missed": ([(0.9, A)], [(A, EASY), (B, DIFFICULT)], 1, 1),
    "only the difficult one found": ([(0.9, B)], [(A, EASY), (B, DIFFICULT)], 0, 0),
}


@pytest.mark.parametrize("case", HAND_VALUES)
def test_hand_values(case):
    detections, objects, eleven_points, area = HAND_VALUES[case]
    assert ap_of_one_class([detections], [objects]) == pytest.approx(eleven_points)
    assert ap_of_one_class([detections], [objects], "area") == pytest.approx(area)


def test_detections_are_ranked_by_score_and_not_by_place_or_image():
    assert ap_of_one_class([[(0.1, C), (0.9, A)]], [[(A, EASY)]]) == 1
    assert ap_of_one_class([[(0.1, C)], [(0.9, A)]], [[], [(A, EASY)]]) == 1
    assert ap_of_one_class([[(0.9, C)], [(0.1, A)]], [[], [(A, EASY)]]) == 1 / 2


def test_of_two_detections_of_an_object_the_better_scored_is_true_even_if_it_overlaps_less():
    off = [1.0, 0.0, 11.0, 10.0]
    assert ap_of_one_class([[(0.5, A), (0.9, off)]], [[(A, EASY)]]) == 1
    assert ap_of_one_class(
        [[(0.5, A), (0.9, off), (0.4, B)]], [[(A, EASY), (B, EASY)]], "area"
    ) == pytest.approx((1 + 2 / 3) / 2)


def test_a_detection_counts_for_the_object_it_overlaps_most_or_for_none():
    near = [0.0, 0.0, 10.0, 9.0]  # overlaps A by 0.9; A and near are both objects
    # Both overlap A most: the second is false, although it overlaps `near` enough, too
    assert ap_of_one_class(
        [[(0.9, A), (0.8, A)]], [[(A, EASY), (near, EASY)]], "area"
    ) == pytest.approx(1 / 2)
    assert ap_of_one_class([[(0.9, A), (0.8, near)]], [[(near, EASY), (A, EASY)]], "area") == 1


def test_a_detection_that_overlaps_a_difficult_object_most_is_ignored():
    near = [0.0, 0.0, 10.0, 9.0]
    assert ap_of_one_class([[(0.9, A)]], [[(A, DIFFICULT), (near, EASY)]]) == 0
    assert ap_of_one_class([[(0.9, A), (0.8, near)]], [[(A, DIFFICULT), (near, EASY)]]) == 1


def test_objects_of_other_images_and_other_classes_do_not_count():
    assert ap_of_one_class([[(0.9, A)], []], [[], [(A, EASY)]]) == 0
    lists = as_tensors([[A]], [[2]], [[0.9]], [[A]], [[1]], [[False]])
    aps, mean = calculate_mAP(*lists, label_map=MAP_OF_THREE)
    assert aps["a"] == 0
    assert math.isnan(aps["b"]), "a class that is detected but has no object"
    assert mean == 0


def test_an_overlap_of_exactly_one_half_is_not_enough():
    half = [0.0, 0.0, 10.0, 5.0]
    assert ap_of_one_class([[(0.9, half)]], [[(A, EASY)]]) == 0
    assert ap_of_one_class([[(0.9, [0.0, 0.0, 10.0, 5.01])]], [[(A, EASY)]]) == 1
    assert ap_of_one_class([[(0.9, half)]], [[(A, EASY)]], min_overlap=0.49) == 1


@pytest.mark.parametrize("n_objects", [1, 2, 7, 10, 20, 30])
def test_recall_is_compared_with_tenths_without_rounding_error(n_objects):
    boxes = squares(*range(n_objects))
    for n_found in range(n_objects + 1):
        detections = [(1 - 0.01 * i, box) for i, box in enumerate(boxes[:n_found])]
        n_points = sum(10 * n_found >= k * n_objects for k in range(11)) if n_found else 0
        ap = ap_of_one_class([detections], [[(box, EASY) for box in boxes]])
        assert ap == pytest.approx(n_points / 11, abs=1e-12)


# -------------------------------------------------------------------------------------- empty cases


def test_classes_without_a_countable_object_have_no_ap_and_are_left_out_of_the_mean():
    lists = as_tensors(
        [[A, C], [B]],
        [[1, 3], [2]],
        [[0.9, 0.8], [0.7]],
        [[A, B], [B]],
        [[1, 1], [2]],
        [[False, False], [True]],
    )
    aps, mean = calculate_mAP(*lists, label_map=MAP_OF_THREE, metric="area")
    assert aps["a"] == 1 / 2
    assert math.isnan(aps["b"]), "only a difficult object"
    assert math.isnan(aps["c"]), "no object"
    assert mean == 1 / 2
    assert "background" not in aps


@pytest.mark.parametrize("metric", ["11-point", "area"])
def test_no_countable_object_at_all_gives_nan(metric):
    for objects in ([[]], [[(A, DIFFICULT)]]):
        assert math.isnan(ap_of_one_class([[(0.9, A)]], objects, metric))
        assert math.isnan(ap_of_one_class([[]], objects, metric))


def test_no_images_give_nan():
    aps, mean = calculate_mAP([], [], [], [], [], [])
    assert list(aps) == [name for name in label_map if name != "background"]
    assert all(map(math.isnan, aps.values()))
    assert math.isnan(mean)


def test_images_without_objects_or_detections_change_nothing_but_false_detections():
    image, empty = [(0.9, A), (0.3, B)], []
    objects = [(A, EASY), (B, EASY)]
    assert ap_of_one_class([empty, image, empty, empty], [empty, objects, empty, empty]) == 1
    assert ap_of_one_class(
        [empty, image, empty], [empty, objects, [(C, EASY)]], "area"
    ) == pytest.approx(2 / 3)
    assert ap_of_one_class([[(0.5, D)], image], [empty, objects], "area") == pytest.approx(
        (1 + 2 / 3) / 2
    )


def test_an_unknown_metric_and_lists_of_different_lengths_are_refused():
    lists = as_tensors([[A]], [[1]], [[0.9]], [[A]], [[1]], [[False]])
    with pytest.raises(ValueError, match="'11-point' or 'area'"):
        calculate_mAP(*lists, metric="12-point")
    for place in range(6):
        shorter = [entry if i != place else [] for i, entry in enumerate(lists)]
        with pytest.raises(ValueError, match=r"lengths \[0, 1\]"):
            calculate_mAP(*shorter)


def test_arguments_are_not_changed():
    lists = as_tensors([[B, A]], [[1, 1]], [[0.1, 0.9]], [[A, B]], [[1, 1]], [[False, True]])
    before = [[tensor.clone() for tensor in entry] for entry in lists]
    calculate_mAP(*lists)
    for entry, copies in zip(lists, before, strict=True):
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(entry, copies, strict=True))


# --------------------------------------------------------------------------------------- plain loop


def random_case(rng, n_images, max_objects, side):
    """
    Objects and detections on a grid so coarse that equal boxes, equal overlaps, overlaps of exactly
    one half, equal scores and flat boxes all occur. About half of the detections are objects that
    were moved a little.
    """

    def box():
        x, y, width, height = rng.integers(0, side), rng.integers(0, side), *rng.integers(1, 7, 2)
        return [int(value) for value in (x, y, x + width, y + height)]

    case = {name: [] for name in LISTS}
    for _ in range(n_images):
        objects = [box() for _ in range(rng.integers(0, max_objects + 1))]
        labels = rng.integers(1, 4, len(objects)).tolist()
        detections, det_labels = [], []
        for _ in range(rng.integers(0, 2 * max_objects + 1)):
            if objects and rng.random() < 0.6:
                place = rng.integers(len(objects))
                detections.append((np.array(objects[place]) + rng.integers(-1, 2, 4)).tolist())
                det_labels.append(labels[place])
            else:
                detections.append(box())
                det_labels.append(int(rng.integers(1, 4)))
        case["true_boxes"].append(objects)
        case["true_labels"].append(labels)
        case["true_difficulties"].append((rng.random(len(objects)) < 0.25).tolist())
        case["det_boxes"].append(
            [[x_1, y_1, max(x_1, x_2), max(y_1, y_2)] for x_1, y_1, x_2, y_2 in detections]
        )
        case["det_labels"].append(det_labels)
        case["det_scores"].append((rng.integers(0, 8, len(detections)) / 8).tolist())
    return [case[name] for name in LISTS]


def assert_as_the_plain_loop(lists, metric, min_overlap=0.5):
    expected, expected_mean = slow_mean_average_precision(*lists, MAP_OF_THREE, metric, min_overlap)
    aps, mean = calculate_mAP(
        *as_tensors(*lists), label_map=MAP_OF_THREE, metric=metric, min_overlap=min_overlap
    )
    assert aps == pytest.approx(expected, nan_ok=True, abs=1e-9)
    assert mean == pytest.approx(expected_mean, nan_ok=True, abs=1e-9)
    return mean


@pytest.mark.parametrize("metric", ["11-point", "area"])
@settings(deadline=None, max_examples=120)
@given(st.integers(0, 10**9), st.integers(1, 6), st.integers(0, 6))
def test_small_random_cases_agree_with_the_plain_loop(metric, seed, n_images, max_objects):
    assert_as_the_plain_loop(
        random_case(np.random.default_rng(seed), n_images, max_objects, side=6), metric
    )


@pytest.mark.parametrize("metric", ["11-point", "area"])
@pytest.mark.parametrize(
    ("n_images", "max_objects", "side", "min_overlap"),
    [
        (1, 40, 20, 0.5),
        (3, 40, 12, 0.5),
        (40, 5, 8, 0.5),
        (40, 5, 8, 0.3),
        (40, 5, 8, 0.75),
        (40, 1, 4, 0.5),
    ],
)
def test_larger_random_cases_agree_with_the_plain_loop(
    metric, n_images, max_objects, side, min_overlap
):
    means = [
        assert_as_the_plain_loop(
            random_case(np.random.default_rng(seed), n_images, max_objects, side),
            metric,
            min_overlap,
        )
        for seed in range(3)
    ]
    assert 0 < np.mean(means) < 1, "a case in which all is right or all is wrong says little"


def test_the_order_of_images_does_not_matter_as_long_as_scores_differ():
    rng = np.random.default_rng(0)
    lists = random_case(rng, 20, 5, side=8)
    lists[2] = [rng.random(len(scores)).tolist() for scores in lists[2]]
    straight = calculate_mAP(*as_tensors(*lists), label_map=MAP_OF_THREE)
    order = rng.permutation(20)
    shuffled = calculate_mAP(
        *as_tensors(*([entry[i] for i in order] for entry in lists)), label_map=MAP_OF_THREE
    )
    assert straight[0] == pytest.approx(shuffled[0], nan_ok=True)
    assert straight[1] == pytest.approx(shuffled[1])


# ---------------------------------------------------------------------------------------- real data


def test_answers_of_the_published_tutorial(golden):
    assert len(golden["map"]) >= 3
    for case in golden["map"]:
        aps, mean = calculate_mAP(*as_tensors(*(case[name] for name in LISTS)))
        countable = {name: ap for name, ap in aps.items() if not math.isnan(ap)}
        assert countable == pytest.approx(case["aps"], abs=1e-4)
        assert mean == pytest.approx(case["mAP"], abs=1e-4)


@pytest.mark.slow
def test_a_real_detectors_result_on_voc2007_is_the_official_one(voc_annotations):
    expected = json.loads(shared_path("data/voc/yolov3_voc07_test_expected.json").read_text())
    lists = voc2007_result(
        shared_path("data/voc/yolov3_voc07_test_results.tar.xz"), voc_annotations / "VOC2007"
    )
    assert len(lists[0]) == 4952
    assert sum(map(len, lists[0])) == 87_765
    assert sum(int((~difficulties).sum()) for difficulties in lists[5]) == 12_032
    for metric, aps_key, mean_key, published in (
        ("11-point", "ap07", "map07", 0.67748),
        ("area", "ap_area", "map_area", 0.69676),
    ):
        aps, mean = calculate_mAP(*lists, metric=metric)
        assert mean == pytest.approx(published, abs=1e-4)
        assert mean == pytest.approx(expected[mean_key], abs=1e-4)
        assert aps == pytest.approx(expected[aps_key], abs=1e-3)
