"""SSD300.detect_objects in model.py."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import tutorial_priors
from helpers.oracles import slow_detection, slow_jaccard_overlap
from model import MAX_CANDIDATES_PER_CLASS, SSD300, rank_in_group, suppress
from utils import cxcy_to_gcxgcy, xy_to_cxcy


@pytest.fixture(scope="module")
def model():
    return SSD300(3, pretrained=False).eval()


@pytest.fixture(scope="module")
def small_model():
    """One with fewer priors, for the tests that ask it often."""
    model = SSD300(3, pretrained=False).eval()
    model.priors_cxcy = model.priors_cxcy[::200].clone()
    return model


def predictions(model, images, n_classes=4):
    """
    Predictions that decode to the given boxes: everything else is background.

    :param images: for each image a list of (box xy, label, probability)
    :return: locs (N, P, 4) and scores (N, P, n_classes)
    """
    n_priors = len(model.priors_cxcy)
    locs = torch.zeros(len(images), n_priors, 4)
    scores = torch.full((len(images), n_priors, n_classes), -60.0)
    scores[:, :, 0] = 0.0
    for image, detections in enumerate(images):
        if not detections:
            continue
        boxes, labels, wanted = zip(*detections, strict=True)
        priors = torch.arange(len(boxes)) * (n_priors // len(boxes))  # scattered over all maps
        locs[image, priors] = cxcy_to_gcxgcy(
            xy_to_cxcy(torch.tensor(boxes)), model.priors_cxcy[priors]
        )
        wanted = torch.tensor(wanted, dtype=torch.float64)
        scores[image, priors, 0] = (1 - wanted).log().float()
        scores[image, priors, torch.tensor(labels)] = wanted.log().float()
    return locs, scores


def random_predictions(n_images, random, n_classes=6, n_hot=40, spread=1.0):
    """Random predictions in which some priors of each image are sure of a class."""
    locs = 2 * spread * torch.randn(n_images, 8732, 4, generator=random)
    scores = torch.randn(n_images, 8732, n_classes, generator=random)
    scores[:, :, 0] += 8
    for image in range(n_images):
        hot = torch.randperm(8732, generator=random)[:n_hot]
        labels = torch.randint(1, n_classes, (n_hot,), generator=random)
        scores[image, hot, labels] += 6 + 5 * torch.rand(n_hot, generator=random)
    return locs, scores


def assert_same_detections(got, expected):
    """Compare one image's boxes, labels and scores with the oracle's list."""
    boxes, labels, scores = got
    assert labels.tolist() == [label for _, label, _ in expected]
    assert scores.tolist() == pytest.approx([score for score, _, _ in expected], abs=1e-5)
    torch.testing.assert_close(
        boxes, torch.tensor([box for _, _, box in expected]).view(-1, 4), rtol=1e-4, atol=1e-5
    )


def image_of(detections, image):
    """The three tensors of one image of a batch."""
    return tuple(field[image] for field in detections)


def assert_well_formed(detections, n_images):
    """Three lists of one tensor an image, of the promised shapes and types."""
    assert len(detections) == 3
    for fields in detections:
        assert isinstance(fields, list)
        assert len(fields) == n_images
    for boxes, labels, scores in zip(*detections, strict=True):
        n = len(boxes)
        assert (boxes.shape, labels.shape, scores.shape) == ((n, 4), (n,), (n,))
        assert (boxes.dtype, labels.dtype, scores.dtype) == (
            torch.float32,
            torch.long,
            torch.float32,
        )


# --------------------------------------------------------------------------- against the plain loop


@pytest.mark.parametrize(
    ("min_score", "max_overlap", "top_k"),
    [
        (0.2, 0.45, 200),
        (0.01, 0.45, 200),
        (0.01, 0.1, 30),
        (0.05, 0.9, 200),
        (0.2, 1.0, 500),
        (0.2, 0.0, 200),
    ],
)
def test_random_predictions_give_the_detections_of_the_plain_loop(
    model, min_score, max_overlap, top_k, random
):
    locs, scores = random_predictions(2, random)
    got = model.detect_objects(locs, scores, min_score, max_overlap, top_k)
    assert_well_formed(got, 2)
    for image in range(2):
        rows = locs[image].tolist(), scores[image].tolist(), model.priors_cxcy.tolist()
        expected = slow_detection(*rows, min_score, max_overlap, top_k)
        assert len(expected) > 10
        assert_same_detections(image_of(got, image), expected)


@pytest.mark.parametrize("n_classes", [2, 21])
def test_detections_do_not_depend_on_the_number_of_classes_of_the_model(model, n_classes, random):
    locs, scores = random_predictions(1, random, n_classes=n_classes, n_hot=60)
    got = model.detect_objects(locs, scores, 0.3, 0.45, 200)
    expected = slow_detection(
        locs[0].tolist(), scores[0].tolist(), model.priors_cxcy.tolist(), 0.3, 0.45, 200
    )
    assert len(expected) > 10
    assert_same_detections(image_of(got, 0), expected)


@pytest.mark.parametrize("case", range(4))
def test_detection_gives_the_published_answers(golden, case):
    case = golden["detect"][case]
    rs = np.random.RandomState(case["seed"])
    locs, scores = 0.5 * rs.standard_normal((2, 8732, 4)), rs.standard_normal((2, 8732, 21))
    scores[:, :, 0] += case["bg_bonus"]
    for image in range(2):
        hot = rs.choice(8732, case["n_hot"], replace=False)
        scores[image, hot, rs.randint(1, 21, len(hot))] += rs.uniform(4, 9, len(hot))
    model = SSD300(2, pretrained=False, priors_cxcy=tutorial_priors())
    got = model.detect_objects(
        torch.from_numpy(locs).float(),
        torch.from_numpy(scores).float(),
        case["min_score"],
        case["max_overlap"],
        case["top_k"],
    )
    assert_well_formed(got, 2)
    for image, expected in enumerate(case["images"]):
        boxes, labels, confidences = image_of(got, image)
        if expected["labels"] == [0]:  # what that code gave where it found nothing
            assert len(boxes) == 0
            continue
        assert len(boxes) == expected["n"]
        best = len(expected["labels"])
        assert best == min(expected["n"], 60)
        assert labels[:best].tolist() == expected["labels"]
        torch.testing.assert_close(
            boxes[:best], torch.tensor(expected["boxes"]), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            confidences[:best], torch.tensor(expected["scores"]), rtol=0, atol=1e-4
        )


# -------------------------------------------------------------------------------------- hand values


def test_one_box_comes_back_as_it_was_predicted(model):
    box = (0.125, 0.25, 0.5, 0.875)
    boxes, labels, scores = image_of(
        model.detect_objects(*predictions(model, [[(box, 2, 0.75)]]), 0.2, 0.5, 10), 0
    )
    torch.testing.assert_close(boxes, torch.tensor([box]))
    assert labels.tolist() == [2]
    torch.testing.assert_close(scores, torch.tensor([0.75]))


def test_of_two_boxes_of_a_class_that_overlap_the_better_stays(model):
    left, right = (0.0, 0.0, 0.5, 0.5), (0.125, 0.0, 0.625, 0.5)  # overlap 3/5
    image = [(left, 1, 0.6), (right, 1, 0.7)]
    for max_overlap, expected in ((0.59, [0.7]), (0.61, [0.7, 0.6])):
        _, _, scores = model.detect_objects(*predictions(model, [image]), 0.2, max_overlap, 10)
        assert scores[0].tolist() == pytest.approx(expected)


def test_a_suppressed_box_suppresses_nothing(model):
    image = [
        ((x, 0.0, x + 0.5, 0.5), 1, score) for x, score in ((0.0, 0.9), (0.125, 0.8), (0.25, 0.7))
    ]
    # Neighbours overlap by 3/5, the first and the last by 1/3 only: the last one stays though it
    # overlaps the middle one.
    _, _, scores = model.detect_objects(*predictions(model, [image]), 0.2, 0.5, 10)
    assert scores[0].tolist() == pytest.approx([0.9, 0.7])


def test_boxes_are_suppressed_as_they_are_not_as_they_would_be_clipped_to_the_image(model):
    # Inside the image these two are the same; as they are they overlap by 1/3.
    image = [((0.0, 0.0, 0.5, 0.5), 1, 0.9), ((-1.0, 0.0, 0.5, 0.5), 1, 0.8)]
    boxes, _, scores = model.detect_objects(*predictions(model, [image]), 0.2, 0.5, 10)
    assert scores[0].tolist() == pytest.approx([0.9, 0.8])
    torch.testing.assert_close(boxes[0][1], torch.tensor([-1.0, 0.0, 0.5, 0.5]))


def test_classes_do_not_suppress_one_another_even_where_coordinates_are_negative(model):
    same, beyond = (0.25, 0.25, 0.75, 0.75), (-1.5, -1.25, -0.25, -0.5)
    image = [
        (same, 1, 0.9),
        (same, 2, 0.8),
        (beyond, 3, 0.7),
        (beyond, 1, 0.6),
        (beyond, 2, 0.5),
        (beyond, 2, 0.4),
    ]
    _, labels, scores = model.detect_objects(*predictions(model, [image]), 0.2, 0.1, 10)
    assert labels[0].tolist() == [1, 2, 3, 1, 2]
    assert scores[0].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])


def test_one_prior_can_be_detected_as_two_classes(model):
    locs, scores = torch.zeros(1, 8732, 4), torch.zeros(1, 8732, 3)
    scores[:, :, 0] = 50
    scores[0, 4000] = torch.tensor([0.2, 0.5, 0.3]).log()
    boxes, labels, scores = image_of(model.detect_objects(locs, scores, 0.25, 0.5, 10), 0)
    assert labels.tolist() == [1, 2]
    torch.testing.assert_close(scores, torch.tensor([0.5, 0.3]))
    assert torch.equal(boxes[0], boxes[1])


def test_the_score_must_be_above_min_score_not_equal_to_it(model):
    locs, scores = torch.zeros(1, 8732, 4), torch.zeros(1, 8732, 2)
    scores[:, :, 0] = 50
    scores[0, 8000] = 0  # a probability of exactly a half
    assert len(model.detect_objects(locs, scores, 0.5, 0.5, 10)[0][0]) == 0
    assert len(model.detect_objects(locs, scores, 0.4999, 0.5, 10)[0][0]) == 1


@pytest.mark.parametrize("top_k", [0, 1, 3, 7, 50])
def test_top_k_keeps_the_best_of_all_classes(model, top_k):
    image = [((0.1 * i, 0.0, 0.1 * i + 0.05, 0.1), 1 + i % 3, 0.3 + 0.09 * i) for i in range(7)]
    other = [((0.1, 0.1, 0.2, 0.2), 2, 0.9)]
    boxes, labels, scores = model.detect_objects(
        *predictions(model, [image, [], other]), 0.2, 0.5, top_k
    )
    best = sorted(image, key=lambda detection: -detection[2])[:top_k]
    assert labels[0].tolist() == [label for _, label, _ in best]
    assert scores[0].tolist() == pytest.approx([score for _, _, score in best])
    torch.testing.assert_close(boxes[0], torch.tensor([box for box, _, _ in best]).view(-1, 4))
    assert [len(x) for x in scores] == [min(top_k, 7), 0, min(top_k, 1)]


def test_images_without_detections_may_stand_anywhere_in_the_batch(model):
    box = ((0.1, 0.1, 0.4, 0.4), 1, 0.8)
    for images in ([[]], [[], [], []], [[], [box]], [[box], []], [[], [box, box], [], [box], []]):
        got = model.detect_objects(*predictions(model, images), 0.2, 0.5, 10)
        assert_well_formed(got, len(images))
        assert [len(boxes) for boxes in got[0]] == [min(1, len(image)) for image in images]


def grid(n, label, probabilities, offset=0.0):
    """n boxes that do not touch one another, with falling probabilities."""
    places = [(0.03 * (i % 30) + offset, 0.03 * (i // 30)) for i in range(n)]
    return [
        ((x, y, x + 0.02, y + 0.02), label, p)
        for (x, y), p in zip(places, probabilities, strict=True)
    ]


def test_the_best_candidates_of_each_class_and_image_go_on(model):
    assert MAX_CANDIDATES_PER_CLASS == 400
    falling = np.linspace(0.95, 0.35, 450).tolist()
    images = [
        grid(450, 1, falling) + grid(450, 2, falling),
        grid(450, 3, falling),
        grid(399, 1, falling[:399]),
    ]
    _, labels, scores = model.detect_objects(*predictions(model, images), 0.2, 0.5, 2000)
    assert [torch.bincount(x, minlength=4).tolist() for x in labels] == [
        [0, 400, 400, 0],
        [0, 0, 0, 400],
        [0, 399, 0, 0],
    ]
    assert scores[1].tolist() == pytest.approx(falling[:400], abs=1e-5)


def test_candidates_are_limited_before_suppression_not_after(model):
    pile = [((0.2, 0.2, 0.6, 0.6), 1, p) for p in np.linspace(0.95, 0.6, 400).tolist()]
    apart = ((0.8, 0.8, 0.9, 0.9), 1, 0.5)  # the 401st
    assert len(model.detect_objects(*predictions(model, [[*pile, apart]]), 0.2, 0.5, 10)[0][0]) == 1
    assert (
        len(model.detect_objects(*predictions(model, [[*pile[:-1], apart]]), 0.2, 0.5, 10)[0][0])
        == 2
    )


@pytest.mark.parametrize("n_images", [1, 2])
def test_where_the_best_candidates_suppress_each_other_all_the_others_have_their_turn(
    model, n_images
):
    crowd = [([0.1, 0.1, 0.4, 0.4], 1, 0.9 - 0.001 * i) for i in range(30)]  # of which one stays
    others = [([0.6, 0.1 * i, 0.7, 0.1 * i + 0.08], 2, 0.5 - 0.01 * i) for i in range(4)]
    images = [crowd + others, others][:n_images]
    _, labels, scores = model.detect_objects(
        *predictions(model, images), min_score=0.2, max_overlap=0.5, top_k=3
    )
    assert labels[0].tolist() == [1, 2, 2]
    assert scores[0].tolist() == pytest.approx([0.9, 0.5, 0.49], abs=1e-5)
    assert [label.tolist() for label in labels[1:]] == [[2, 2, 2]] * (n_images - 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prior_whose_scores_are_no_numbers_costs_no_other_detection(model, value):
    detections = [([0.1 * i, 0.1, 0.1 * i + 0.08, 0.4], 1 + i % 2, 0.9 - 0.1 * i) for i in range(6)]
    locs, scores = predictions(model, [detections, detections])
    expected = model.detect_objects(locs, scores, 0.2, 0.5, 200)
    scores[0, 7, 2] = value
    for field, others in zip(
        model.detect_objects(locs, scores, 0.2, 0.5, 200), expected, strict=True
    ):
        assert all(map(torch.equal, field, others))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_box_that_is_no_box_suppresses_nothing_and_the_others_still_do(model, value):
    pair = [
        ([0.1, 0.1, 0.4, 0.4], 1, 0.9),
        ([0.1, 0.1, 0.4, 0.38], 1, 0.8),
        ([0.6, 0.6, 0.9, 0.9], 1, 0.7),
    ]
    locs, scores = predictions(model, [pair, pair])
    n_priors = len(model.priors_cxcy)
    locs[0, 2 * (n_priors // 3)] = value
    _, _, found = model.detect_objects(locs, scores, 0.2, 0.5, 200)
    assert [scores.tolist() for scores in found] == [pytest.approx([0.9, 0.7], abs=1e-5)] * 2


def test_the_background_is_never_detected(model, random):
    for min_score in (-1.0, 0.0):
        _, labels, _ = model.detect_objects(*random_predictions(1, random), min_score, 0.45, 200)
        assert labels[0].min() > 0


def test_the_rank_in_a_group_counts_those_before():
    groups = torch.tensor([5, 0, 5, 2, 0, 5, 5])
    assert rank_in_group(groups).tolist() == [0, 0, 1, 0, 1, 2, 3]
    assert rank_in_group(groups[:0]).tolist() == []


def test_groups_do_not_suppress_each_other(random):
    n = 3000
    centres = torch.rand(n, 2, generator=random)
    sizes = 0.05 + 0.2 * torch.rand(n, 2, generator=random)
    boxes = torch.cat([centres - sizes, centres + sizes], dim=1)
    boxes[::50] *= 1e6  # senseless ones
    scores = torch.rand(n, generator=random)
    groups = torch.randint(1, 32, (n,), generator=random)
    kept = suppress(boxes, scores, groups, 0.45)
    expected = []
    for group in range(32):
        members = (groups == group).nonzero().squeeze(1)
        alone = suppress(boxes[members], scores[members], torch.zeros_like(members), 0.45)
        expected += members[alone].tolist()
    assert kept.tolist() == sorted(expected)
    assert 100 < len(kept) < 0.8 * n


def test_predictions_of_low_precision_are_decoded_in_float32(model, random):
    locs, scores = (tensor.bfloat16() for tensor in random_predictions(2, random))
    got = model.detect_objects(locs, scores, 0.2, 0.45, 200)
    expected = model.detect_objects(locs.float(), scores.float(), 0.2, 0.45, 200)
    assert_well_formed(got, 2)
    for field, wanted in zip(got, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(field, wanted, strict=True))


def test_detection_leaves_the_predictions_alone(model, random):
    locs, scores = random_predictions(2, random)
    copies = locs.clone(), scores.clone()
    model.detect_objects(locs, scores, 0.2, 0.45, 200)
    assert torch.equal(locs, copies[0])
    assert torch.equal(scores, copies[1])


# -------------------------------------------------------------------- images of a batch do not meet


def assert_alone_as_in_the_batch(model, locs, scores, max_overlap=0.45):
    """Each image gives exactly the same in the batch as it gives alone."""
    together = model.detect_objects(locs, scores, 0.05, max_overlap, 200)
    assert_well_formed(together, len(locs))
    for image in range(len(locs)):
        alone = model.detect_objects(
            locs[image : image + 1], scores[image : image + 1], 0.05, max_overlap, 200
        )
        assert [x.tolist() for x in image_of(alone, 0)] == [
            x.tolist() for x in image_of(together, image)
        ]


@pytest.mark.parametrize(
    "crowd",
    [
        {"n_hot": 80},
        # More than a thousand boxes: torchvision suppresses them class by class, fewer all at once
        {"n_hot": 1500, "n_classes": 21, "spread": 0.2},
    ],
    ids=str,
)
def test_an_image_gives_the_same_alone_as_in_a_batch(model, crowd, random):
    assert_alone_as_in_the_batch(model, *random_predictions(4, random, **crowd))


def near_duplicates(n, max_overlap):
    """
    Pairs of small boxes that overlap a little more or a little less than max_overlap, far from one
    another.
    """
    side, margin = 0.02, 2e-3
    detections = []
    for i in range(n):
        x, y = 0.06 * (i % 15), 0.06 * (i // 15)
        overlap = max_overlap + (margin if i % 2 else -margin)
        shift = (
            side * (1 - overlap) / (1 + overlap)
        )  # two squares side by side, moved by this, overlap that much
        detections += [((x, y, x + side, y + side), 1, 0.9 - 0.001 * i)]
        detections += [((x + shift, y, x + shift + side, y + side), 1, 0.5 - 0.001 * i)]
    return detections


@pytest.mark.parametrize("log_size", [0.0, 30.0, 50.0, 70.0, 100.0, 150.0])
def test_a_huge_box_in_another_image_changes_nothing(model, log_size):
    # An untrained network predicts such boxes: exp(50 / 5) = 22,026 times the prior's size.
    locs, scores = predictions(model, [near_duplicates(60, 0.45), []])
    locs[1, 8731, 2:] = log_size
    scores[1, 8731] = torch.tensor([-60.0, -60.0, -60.0, 0.0])
    boxes = model.detect_objects(locs, scores, 0.05, 0.45, 200)[0]
    assert len(boxes[0]) == 60 + 30  # of every other pair both
    assert len(boxes[1]) == 1
    assert_alone_as_in_the_batch(model, locs, scores)


@pytest.mark.parametrize("log_size", [30.0, 50.0, 100.0, 150.0])
def test_a_huge_box_in_the_same_image_changes_nothing_for_the_others(model, log_size):
    locs, scores = predictions(model, [near_duplicates(60, 0.45)])
    locs[0, 8731, 2:] = log_size
    scores[0, 8731] = torch.tensor([-60.0, -60.0, -60.0, 0.0])
    labels = model.detect_objects(locs, scores, 0.05, 0.45, 200)[1][0]
    assert torch.bincount(labels, minlength=4).tolist() == [0, 90, 0, 1]


def test_an_infinite_box_in_another_image_changes_nothing(model):
    locs, scores = predictions(model, [near_duplicates(60, 0.45), []])
    locs[1, 8731, 2:] = 500.0  # exp(100) is more than float32 holds
    scores[1, 8731] = torch.tensor([-60.0, -60.0, -60.0, 0.0])
    assert len(model.detect_objects(locs, scores, 0.05, 0.45, 200)[0][0]) == 60 + 30


# --------------------------------------------------------------------------------------- properties


TOLERANCE = 1e-4  # of an overlap, as the model decodes in float32

edges = st.integers(-8, 16)

candidates = st.tuples(
    edges, edges, st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 1000)
).map(
    lambda t: (
        (t[0] / 16, t[1] / 16, (t[0] + t[2]) / 16, (t[1] + t[3]) / 16),
        t[4],
        0.01 + 0.98 * t[5] / 1000,
    )
)

images_of_candidates = st.lists(st.lists(candidates, max_size=25), min_size=1, max_size=3)


def is_close(box, other):
    return max(abs(a - b) for a, b in zip(box, other, strict=True)) < 1e-5


@settings(deadline=None, max_examples=40)
@given(
    images=images_of_candidates, min_score=st.floats(0.02, 0.6), max_overlap=st.floats(0.05, 0.95)
)
def test_what_is_kept_and_what_is_suppressed(small_model, images, min_score, max_overlap):
    locs, scores = predictions(small_model, images)
    got = small_model.detect_objects(locs, scores, min_score, max_overlap, 200)
    assert_well_formed(got, len(images))
    for image in range(len(images)):
        kept = list(zip(*(field.tolist() for field in image_of(got, image)), strict=True))
        kept_scores = [score for _, _, score in kept]
        assert kept_scores == sorted(kept_scores, reverse=True)
        assert all(score > min_score - 1e-6 for score in kept_scores)
        for label in (1, 2, 3):
            of_class = [(box, score) for box, other, score in kept if other == label]
            for i, (box, score) in enumerate(of_class):
                assert all(
                    slow_jaccard_overlap(box, other) <= max_overlap + TOLERANCE
                    for other, _ in of_class[:i]
                )
                assert any(
                    is_close(box, other) and abs(score - p) < 1e-5
                    for other, o, p in images[image]
                    if o == label
                )
            mine = [
                (box, p)
                for box, other, p in images[image]
                if other == label and p > min_score + 1e-5
            ]
            for box, p in mine:  # either kept itself, or a better one that is kept overlaps it
                assert any(
                    score >= p - 1e-5
                    and (slow_jaccard_overlap(box, other) > max_overlap - TOLERANCE)
                    for other, score in of_class
                )


@settings(deadline=None, max_examples=25)
@given(
    image=st.lists(candidates, max_size=20),
    others=st.lists(st.lists(candidates, max_size=20), min_size=1, max_size=2),
)
def test_images_of_the_batch_never_meet(small_model, image, others):
    _, _, alone = small_model.detect_objects(*predictions(small_model, [image]), 0.1, 0.45, 200)
    for batch, place in (([image, *others], 0), ([*others, image], -1)):
        _, _, together = small_model.detect_objects(
            *predictions(small_model, batch), 0.1, 0.45, 200
        )
        assert together[place].tolist() == alone[0].tolist()


@settings(deadline=None, max_examples=25)
@given(image=st.lists(candidates, max_size=20))
def test_classes_never_meet(small_model, image):
    locs, scores = predictions(small_model, [image])
    _, labels, confidences = image_of(small_model.detect_objects(locs, scores, 0.1, 0.45, 200), 0)
    background = torch.tensor([0.0, -60.0, -60.0, -60.0])
    for label in (1, 2, 3):
        of_class = scores[:, :, label : label + 1] > -60
        alone = small_model.detect_objects(
            locs, torch.where(of_class, scores, background), 0.1, 0.45, 200
        )
        assert alone[2][0].tolist() == confidences[labels == label].tolist()
