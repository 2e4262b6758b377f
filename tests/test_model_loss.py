"""The matching and the loss of model.py."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import tutorial_priors
from helpers.oracles import slow_corners, slow_jaccards, slow_matching, slow_multibox_loss
from model import SSD300, MultiBoxLoss, match_priors
from utils import cxcy_to_gcxgcy, cxcy_to_xy, find_jaccard_overlap, xy_to_cxcy

NO_BOXES, NO_LABELS = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)

# Four priors that tile the image
QUARTERS = [[x, y, x + 0.5, y + 0.5] for y in (0.0, 0.5) for x in (0.0, 0.5)]


def random_boxes(n, random):
    """(n, 4) fractional xy, at least 0.05 wide and high; some reach beyond the image."""
    low = torch.rand(n, 2, generator=random) * 0.8
    return torch.cat([low, low + 0.05 + 0.4 * torch.rand(n, 2, generator=random)], dim=1)


def match(images, priors_xy, threshold=0.5):
    """
    Call match_priors for a list of images' boxes.

    :return: for each image and prior the object, or None if the prior is negative
    """
    most = max(1, max(len(objects) for objects in images))
    boxes = torch.tensor([5.0, 5.0, 6.0, 6.0]).repeat(len(images), most, 1)
    is_object = torch.zeros(len(images), most, dtype=torch.bool)
    for image, objects in enumerate(images):
        boxes[image, : len(objects)] = torch.as_tensor(objects).view(-1, 4)
        is_object[image, : len(objects)] = True
    object_for_each_prior, positive = match_priors(
        boxes, is_object, torch.as_tensor(priors_xy), threshold
    )
    assert object_for_each_prior.shape == positive.shape == (len(images), len(priors_xy))
    assert object_for_each_prior.dtype == torch.long
    assert positive.dtype == torch.bool
    assert object_for_each_prior.min() >= 0
    assert object_for_each_prior.max() < most
    return [
        [object_ if is_positive else None for object_, is_positive in zip(*rows, strict=True)]
        for rows in zip(object_for_each_prior.tolist(), positive.tolist(), strict=True)
    ]


def expected_match(objects, priors_xy, threshold=0.5):
    """What the oracle says about one image."""
    if len(objects) == 0:
        return [None] * len(priors_xy)
    return slow_matching(
        slow_jaccards(torch.as_tensor(objects).tolist(), torch.as_tensor(priors_xy).tolist()),
        threshold,
    )


# ----------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize("n_objects", [1, 2, 7, 40])
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_matching_agrees_with_the_plain_loop(n_objects, threshold, random):
    priors = random_boxes(120, random)
    images = [random_boxes(n, random) for n in (n_objects, 0, max(1, n_objects // 2))]
    got = match(images, priors, threshold)
    assert got == [expected_match(objects, priors, threshold) for objects in images]
    assert got[1] == [None] * 120
    assert len(set(got[0]) - {None}) == n_objects


def test_with_fewer_priors_than_objects_every_prior_gets_the_best_object_left(random):
    priors, objects = random_boxes(5, random), random_boxes(12, random)
    got = match([objects], priors)[0]
    assert got == expected_match(objects, priors)
    assert None not in got
    assert len(set(got)) == 5


# Sixteenths are exact in float32: overlaps that are equal in the oracle are equal here. Ties are
# frequent.
sixteenths = st.tuples(
    st.integers(0, 15), st.integers(0, 15), st.integers(1, 16), st.integers(1, 16)
).map(lambda t: [t[0] / 16, t[1] / 16, (t[0] + t[2]) / 16, (t[1] + t[3]) / 16])

few_corners = st.tuples(
    st.integers(0, 2), st.integers(0, 2), st.integers(1, 2), st.integers(1, 2)
).map(lambda t: [t[0] / 4, t[1] / 4, (t[0] + t[2]) / 4, (t[1] + t[3]) / 4])

any_boxes = st.one_of(st.lists(sixteenths, max_size=6), st.lists(few_corners, max_size=6))


@settings(deadline=None, max_examples=60)
@given(
    images=st.lists(any_boxes, min_size=1, max_size=3),
    priors=st.one_of(
        st.lists(few_corners, min_size=1, max_size=12),
        st.lists(sixteenths, min_size=1, max_size=12),
    ),
    threshold=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
)
def test_exact_ties_go_to_the_first_object_and_the_first_prior(images, priors, threshold):
    assert match(images, priors, threshold) == [
        expected_match(objects, priors, threshold) for objects in images
    ]


@settings(deadline=None, max_examples=60)
@given(
    objects=st.lists(sixteenths, min_size=1, max_size=12),
    priors=st.lists(sixteenths, min_size=12, max_size=16),
    threshold=st.floats(0.05, 1),
)
def test_each_object_has_a_prior_of_its_own_and_every_other_positive_overlaps_enough(
    objects, priors, threshold
):
    got = match([objects], priors, threshold)[0]
    overlap = slow_jaccards(objects, priors)
    assert set(got) >= set(range(len(objects)))
    for index in range(len(objects)):
        below = [
            p
            for p, object_ in enumerate(got)
            if object_ == index and overlap[index][p] < threshold - 1e-6
        ]
        # Only the object's own prior may overlap it less than the threshold
        assert len(below) <= 1
    for p, object_ in enumerate(got):
        if object_ is None:
            assert max(row[p] for row in overlap) < threshold + 1e-6


def test_of_two_objects_that_want_one_prior_the_loser_takes_its_next_best_free_one():
    priors = [[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5], [0.5, 0.5, 1.0, 1.0]]
    closer = [0.0, 0.0, 0.5, 0.4375]  # overlaps prior 0 by 7/8
    further = [0.0, 0.0, 0.5, 0.375]  # by 6/8
    # The overlap decides, not the order
    assert match([[closer, further]], priors) == [[0, 1, None]]
    assert match([[further, closer]], priors) == [[1, 0, None]]


def test_a_chain_of_claims_is_settled_from_the_highest_overlap_down():
    priors = [
        [0.0, 0.0, 0.25, 0.5],
        [0.25, 0.0, 0.5, 0.5],
        [0.5, 0.0, 0.75, 0.5],
        [0.0, 0.75, 0.25, 1.0],
    ]
    best = [0.0, 0.0, 0.25, 0.5]  # overlaps prior 0 by 1
    second = [0.0, 0.0, 0.3125, 0.5]  # prior 0 by 4/5, prior 1 by 1/8
    third = [0.25, 0.0, 0.375, 0.1875]  # prior 1 by 3/16
    # `second` loses prior 0 to `best`, and prior 1 to `third` (3/16 > 1/8): it takes the first one
    # that is left
    assert match([[second, third, best]], priors) == [[2, 1, 0, None]]


def test_identical_objects_take_different_priors_in_order():
    box = [0.0, 0.0, 0.5, 0.4375]  # overlaps the four priors by 7/8, 0, 0, 0
    assert match([[box, box, box]], QUARTERS) == [[0, 1, 2, None]]


def test_among_thousands_of_equal_priors_the_first_are_taken():
    priors = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(8732, 1)
    got = match([[[0.0, 0.0, 0.5, 0.5]] * 3, [[0.5, 0.5, 1.0, 1.0]]], priors)
    assert got == [[0, 1, 2] + [None] * 8729, [0] + [None] * 8731]


def test_an_overlap_of_exactly_the_threshold_is_positive():
    half, whole, less = [0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.4999, 1.0]
    assert match([[whole]], [half, whole, less], 0.5) == [[0, 0, None]]
    assert match([[whole]], [half, whole, less], 0.5 + 1e-6) == [[None, 0, None]]
    assert match([[whole]], [half, whole, less], 0.4) == [[0, 0, 0]]


def test_an_object_below_the_threshold_everywhere_still_has_its_best_prior():
    assert match([[[0.5, 0.5, 0.625, 0.625]]], QUARTERS) == [[None, None, None, 0]]


def test_an_object_that_no_prior_touches_still_has_a_prior():
    assert match([[[2.0, 2.0, 3.0, 3.0]]], QUARTERS) == [[0, None, None, None]]
    assert match([[[2.0, 2.0, 3.0, 3.0], [0.0, 0.0, 0.5, 0.5]]], QUARTERS) == [[1, 0, None, None]]


def test_a_stolen_prior_belongs_to_the_object_that_has_no_other():
    # Prior 0 overlaps `wide` more than `small`, but it is the best one left for `small`, because
    # `wide` has prior 1
    wide = [0.0, 0.0, 0.5, 0.75]
    small = [0.0, 0.0, 0.5, 0.25]
    priors = [[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.75]]
    assert match([[wide, small]], priors) == [[1, 0]]


def test_without_any_object_no_prior_is_positive():
    assert match([[], []], QUARTERS) == [[None] * 4] * 2


def test_tiny_and_huge_objects_match_the_real_priors_as_the_plain_loop_says():
    priors = cxcy_to_xy(SSD300.create_prior_boxes())
    objects = torch.tensor(
        [
            [0.0, 0.0, 1.0, 1.0],  # the whole photograph
            [0.002, 0.0027, 0.996, 0.9947],  # nearly so
            [0.2, 0.3, 0.206, 0.308],  # 3 x 3 pixels of 500 x 375
            [0.994, 0.992, 1.0, 1.0],  # the same in the corner
            [0.0, 0.4, 1.0, 0.408],  # a line across
            [0.4125, 0.5708, 0.4734, 0.6542],  # a platelet of 39 x 40 pixels of 640 x 480
            [0.5, 0.25, 0.825, 0.675],  # a white blood cell
        ]
    )
    # Many of these priors overlap an object equally: use overlaps with the same rounding errors
    overlap = find_jaccard_overlap(objects, priors)
    got = match([objects, objects[2:4]], priors)
    assert got[0] == slow_matching(overlap.tolist(), 0.5)
    assert got[1] == slow_matching(overlap[2:4].tolist(), 0.5)
    assert set(got[0]) == {None, *range(7)}


def test_the_images_of_a_batch_are_matched_as_each_would_be_alone(random):
    counts = [0, 1, 3, 56, 2, 0, 20, 20, 7, 1, 1, 1, 30, 0]
    boxes = [random_boxes(count, random) for count in counts]
    labels = [torch.randint(1, 21, (count,), generator=random) for count in counts]
    criterion = MultiBoxLoss(SSD300.create_prior_boxes())
    true_classes, true_locs = criterion.match(boxes, labels)
    assert true_locs.isfinite().all()
    for image in range(len(counts)):
        classes, locs = criterion.match([boxes[image]], [labels[image]])
        assert torch.equal(true_classes[image], classes[0])
        positive = classes[0] > 0  # elsewhere offsets mean nothing
        assert torch.equal(true_locs[image][positive], locs[0][positive])


# --------------------------------------------------------------------------------------------- loss


def make_problem(counts, random, n_priors=60, n_classes=5):
    """Random priors, predictions (with gradients) and objects: `counts` of them in the images."""
    priors = xy_to_cxcy(random_boxes(n_priors, random))
    locs = torch.randn(len(counts), n_priors, 4, generator=random, requires_grad=True)
    scores = (2 * torch.randn(len(counts), n_priors, n_classes, generator=random)).requires_grad_()
    boxes = [random_boxes(n, random) for n in counts]
    labels = [torch.randint(1, n_classes, (n,), generator=random) for n in counts]
    return priors, locs, scores, boxes, labels


def expected_losses(priors, locs, scores, boxes, labels, threshold=0.5, neg_pos_ratio=3):
    """
    The oracle's confidence and localization loss, and their gradients with respect to locs and
    scores.
    """
    rows = priors.tolist()
    corners = [slow_corners(prior) for prior in rows]
    box_lists, label_lists = [b.tolist() for b in boxes], [x.tolist() for x in labels]
    matchings = [expected_match(objects, corners, threshold) for objects in box_lists]
    predictions = [tensor.detach().double().requires_grad_() for tensor in (locs, scores)]
    confidence, localization = slow_multibox_loss(
        predictions, box_lists, label_lists, rows, matchings, neg_pos_ratio
    )
    locs_grad, _ = torch.autograd.grad(
        localization, predictions, allow_unused=True, materialize_grads=True
    )
    _, scores_grad = torch.autograd.grad(
        confidence, predictions, allow_unused=True, materialize_grads=True
    )
    return confidence.detach(), localization.detach(), locs_grad, scores_grad


def assert_as_the_oracle(problem, threshold=0.5, neg_pos_ratio=3, alpha=1.0):
    """Compare value, components and gradients of one problem with the oracle's."""
    priors, locs, scores, boxes, labels = problem
    confidence, localization, locs_grad, scores_grad = expected_losses(
        *problem, threshold, neg_pos_ratio
    )
    criterion = MultiBoxLoss(priors, threshold=threshold, neg_pos_ratio=neg_pos_ratio, alpha=alpha)
    losses = criterion.components(locs, scores, boxes, labels)
    assert set(losses) == {"confidence", "localization"}
    torch.testing.assert_close(losses["confidence"].double(), confidence, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses["localization"].double(), localization, rtol=1e-4, atol=1e-5)
    loss = criterion(locs, scores, boxes, labels)
    assert loss.shape == ()
    torch.testing.assert_close(
        loss.double(), confidence + alpha * localization, rtol=1e-4, atol=1e-5
    )
    got = torch.autograd.grad(loss, (locs, scores))
    torch.testing.assert_close(got[0].double(), alpha * locs_grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1].double(), scores_grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("counts", [(1,), (3, 0, 5), (0, 2), (40,), (1, 1, 1, 1), (0, 0)])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_loss_and_its_gradients_agree_with_the_plain_loop(counts, n_classes, random):
    assert_as_the_oracle(make_problem(counts, random, n_classes=n_classes))


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    threshold=st.sampled_from([0.2, 0.5, 0.8]),
    neg_pos_ratio=st.integers(0, 6),
    alpha=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_threshold_ratio_and_alpha_are_used_as_in_the_plain_loop(
    seed, counts, threshold, neg_pos_ratio, alpha
):
    problem = make_problem(counts, torch.Generator().manual_seed(seed), n_priors=25, n_classes=4)
    assert_as_the_oracle(problem, threshold, neg_pos_ratio, alpha)


def test_loss_agrees_with_the_plain_loop_on_the_real_priors(random):
    _, _, _, boxes, labels = make_problem((4, 1), random, n_classes=21)
    locs = torch.randn(2, 8732, 4, generator=random, requires_grad=True)
    scores = torch.randn(2, 8732, 21, generator=random, requires_grad=True)
    assert_as_the_oracle((SSD300.create_prior_boxes(), locs, scores, boxes, labels))


def test_loss_gives_the_published_answers(golden):
    criterion = MultiBoxLoss(tutorial_priors())
    for case in golden["loss"]:
        rs, n_images = np.random.RandomState(case["seed"]), len(case["boxes"])
        locs = torch.from_numpy(
            rs.standard_normal((n_images, 8732, 4)).astype(np.float32)
        ).requires_grad_()
        scores = torch.from_numpy(
            (2 * rs.standard_normal((n_images, 8732, 21))).astype(np.float32)
        ).requires_grad_()
        boxes = [torch.tensor(objects).view(-1, 4) for objects in case["boxes"]]
        labels = [torch.tensor(objects, dtype=torch.long) for objects in case["labels"]]
        losses = criterion.components(locs, scores, boxes, labels)
        assert losses["confidence"].item() == pytest.approx(case["conf"], rel=1e-4)
        assert losses["localization"].item() == pytest.approx(case["loc"], rel=1e-4)
        total = criterion(locs, scores, boxes, labels)
        assert total.item() == pytest.approx(case["total"], rel=1e-4)
        total.backward()
        assert locs.grad.abs().sum().item() == pytest.approx(case["locs_grad_abs_sum"], rel=1e-3)
        assert scores.grad.abs().sum().item() == pytest.approx(
            case["scores_grad_abs_sum"], rel=1e-3
        )


@pytest.mark.parametrize("n_images", [1, 3])
def test_without_positives_the_loss_is_zero_with_zero_gradients(n_images, random):
    priors, locs, scores, _, _ = make_problem((0,) * n_images, random)
    loss = MultiBoxLoss(priors)(locs, scores, [NO_BOXES] * n_images, [NO_LABELS] * n_images)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(locs.grad, torch.zeros_like(locs))
    assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_an_image_without_objects_adds_nothing(random):
    priors, locs, scores, boxes, labels = make_problem((3, 0), random)
    criterion = MultiBoxLoss(priors)
    loss = criterion(locs, scores, boxes, labels)
    alone = criterion(locs[:1], scores[:1], boxes[:1], labels[:1])
    assert loss.item() == pytest.approx(alone.item(), rel=1e-6)
    assert alone.item() > 0
    loss.backward()
    assert locs.grad[0].any()
    assert scores.grad[0].any()
    assert not locs.grad[1].any()
    assert not scores.grad[1].any()


# Priors that no object of these tests comes near to
FAR = [[2 + i, 2.0, 2.5 + i, 2.5] for i in range(20)]


def used_priors(scores, boxes, labels, **options):
    """For each image, the set of priors whose scores the loss depends on."""
    priors = xy_to_cxcy(torch.tensor(QUARTERS + FAR))
    scores = scores.clone().requires_grad_()
    MultiBoxLoss(priors, **options)(
        torch.zeros(len(boxes), 24, 4), scores, boxes, labels
    ).backward()
    return [set(image.any(dim=1).nonzero().flatten().tolist()) for image in scores.grad]


@pytest.mark.parametrize("ratio", [0, 1, 3, 5])
def test_the_hardest_negatives_are_mined_for_each_image_apart(ratio, random):
    hardness = (
        torch.stack(
            [torch.randperm(24, generator=random) + 30, torch.randperm(24, generator=random)]
        )
        / 10
    )
    # Two classes: the higher the object's score, the harder the negative
    scores = torch.stack([torch.zeros(2, 24), hardness], dim=2)
    boxes = [torch.tensor(QUARTERS[:1]), torch.tensor(QUARTERS[1:4])]  # one positive, three
    labels = [torch.ones(1, dtype=torch.long), torch.ones(3, dtype=torch.long)]
    expected = []
    for image, positives in enumerate([{0}, {1, 2, 3}]):
        negatives = sorted(
            set(range(24)) - positives, key=lambda p, image=image: -hardness[image, p]
        )
        expected.append(positives | set(negatives[: ratio * len(positives)]))
    got = used_priors(scores, boxes, labels, neg_pos_ratio=ratio)
    assert got == expected
    assert [len(used) for used in got] == [1 + ratio, 3 + 3 * ratio]


def test_negatives_are_hard_by_all_class_scores_not_by_one():
    scores = torch.zeros(1, 24, 3)
    scores[0, 5, 0] = -5  # low background
    scores[0, 6, 2] = 4  # high second class
    scores[0, 7, 1] = 3  # high first class
    used = used_priors(scores, [torch.tensor(QUARTERS[:1])], [torch.tensor([1])])
    assert used == [{0, 5, 6, 7}]


def test_where_negatives_are_too_few_all_of_them_count():
    scores, boxes, labels = (
        torch.zeros(1, 24, 2),
        torch.tensor(QUARTERS),
        torch.ones(4, dtype=torch.long),
    )
    assert used_priors(scores, [boxes], [labels], neg_pos_ratio=50) == [set(range(24))]
    priors = xy_to_cxcy(torch.tensor(QUARTERS + FAR))
    loss = MultiBoxLoss(priors, neg_pos_ratio=50).components(
        torch.zeros(1, 24, 4), scores, [boxes], [labels]
    )["confidence"]
    assert loss.item() == pytest.approx(24 * math.log(2) / 4)


def test_confidence_loss_hand_value():
    scores = torch.zeros(1, 24, 4)  # every prior: log 4
    scores[0, 0, 3] = math.log(5)  # the positive one: -log(5/8)
    priors = xy_to_cxcy(torch.tensor(QUARTERS + FAR))
    loss = MultiBoxLoss(priors).components(
        torch.zeros(1, 24, 4), scores, [torch.tensor(QUARTERS[:1])], [torch.tensor([3])]
    )
    assert loss["confidence"].item() == pytest.approx(-math.log(5 / 8) + 3 * math.log(4))
    assert loss["localization"].item() == 0


def test_smooth_l1_hand_value_summed_over_offsets_and_divided_by_the_positives_of_the_batch():
    priors = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]])
    locs = torch.tensor(
        [
            [[0.5, -2.0, 0.0, 3.0], [9.0, 9.0, 9.0, 9.0]],
            [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, -1.5]],
        ]
    )
    # One object, exactly on the first prior; and two objects, one on each prior
    boxes = [cxcy_to_xy(priors[:1]), cxcy_to_xy(priors)]
    labels = [torch.tensor([1]), torch.tensor([1, 2])]
    loss = MultiBoxLoss(priors).components(locs, torch.zeros(2, 2, 3), boxes, labels)[
        "localization"
    ]
    first, second = 0.5 * 0.5**2 + (2 - 0.5) + 0 + (3 - 0.5), 0.5 * 1**2 + (1.5 - 0.5)
    assert loss.item() == pytest.approx((first + second) / 3)


def test_perfect_offsets_have_no_localization_loss(random):
    priors = xy_to_cxcy(torch.tensor(QUARTERS))
    box = torch.tensor([[0.1, 0.05, 0.45, 0.5]])
    locs = cxcy_to_gcxgcy(xy_to_cxcy(box), priors).unsqueeze(0)
    components = MultiBoxLoss(priors).components(
        locs, torch.zeros(1, 4, 2), [box], [torch.tensor([1])]
    )
    assert components["localization"].item() == pytest.approx(0, abs=1e-9)
    moved = MultiBoxLoss(priors).components(
        locs + 0.1, torch.zeros(1, 4, 2), [box], [torch.tensor([1])]
    )
    assert moved["localization"].item() == pytest.approx(4 * 0.5 * 0.1**2, rel=1e-4)


def test_options_keep_their_places_and_defaults(random):
    priors, *arguments = make_problem((3, 2), random)
    defaults, given_ = MultiBoxLoss(priors), MultiBoxLoss(priors, 0.5, 3, 1.0)
    assert torch.equal(defaults(*arguments), given_(*arguments))
    other = MultiBoxLoss(priors, 0.3, 1, 2.0)
    assert (other.threshold, other.neg_pos_ratio, other.alpha) == (0.3, 1, 2.0)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e30])
def test_huge_scores_keep_the_loss_and_its_gradients_finite(size, random):
    priors, locs, scores, boxes, labels = make_problem((3, 1), random)
    scores = (scores.detach() * size).requires_grad_()
    loss = MultiBoxLoss(priors)(locs, scores, boxes, labels)
    loss.backward()
    assert loss.isfinite()
    assert loss.item() > size  # some class is wrong by that much
    assert scores.grad.isfinite().all()
    assert scores.grad.any()


def test_huge_offsets_have_bounded_gradients(random):
    priors, locs, scores, boxes, labels = make_problem((3, 1), random)
    locs = (locs.detach() * 1e6).requires_grad_()
    loss = MultiBoxLoss(priors)(locs, scores, boxes, labels)
    loss.backward()
    assert loss.isfinite()
    assert 0 < locs.grad.abs().max() <= 1


def test_the_loss_leaves_its_arguments_alone(random):
    priors, locs, scores, boxes, labels = make_problem((3, 0, 2), random)
    everything = [priors, locs, scores, *boxes, *labels]
    copies = [tensor.detach().clone() for tensor in everything]
    MultiBoxLoss(priors)(locs, scores, boxes, labels).backward()
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(everything, copies, strict=True))
    assert len(boxes) == len(labels) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_predictions_of_low_precision_are_computed_in_float32(dtype, random):
    priors, locs, scores, boxes, labels = make_problem((3, 2), random)
    locs, scores = (tensor.detach().to(dtype).requires_grad_() for tensor in (locs, scores))
    criterion = MultiBoxLoss(priors)
    loss = criterion(locs, scores, boxes, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, criterion(locs.float(), scores.float(), boxes, labels))
    loss.backward()
    assert scores.grad.dtype == dtype
    assert scores.grad.isfinite().all()


def test_autocast_around_the_loss_changes_nothing(random):
    priors, *arguments = make_problem((3, 2), random)
    criterion = MultiBoxLoss(priors)
    expected = criterion(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(criterion(*arguments), expected)


def test_the_order_of_objects_does_not_matter(random):
    priors, locs, scores, boxes, labels = make_problem((6, 4), random)
    criterion = MultiBoxLoss(priors)
    expected = criterion(locs, scores, boxes, labels)
    orders = [torch.randperm(len(objects), generator=random) for objects in boxes]
    shuffled = [
        [x[order] for x, order in zip(tensors, orders, strict=True)] for tensors in (boxes, labels)
    ]
    assert not torch.equal(shuffled[0][0], boxes[0])
    assert criterion(locs, scores, *shuffled).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_order_of_images_does_not_matter(random):
    priors, locs, scores, boxes, labels = make_problem((6, 0, 2), random)
    criterion = MultiBoxLoss(priors)
    expected = criterion(locs, scores, boxes, labels)
    got = criterion(locs.flip(0), scores.flip(0), boxes[::-1], labels[::-1])
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)


def test_priors_of_the_loss_move_with_it_and_are_no_state():
    criterion = MultiBoxLoss(xy_to_cxcy(torch.tensor(QUARTERS)))
    assert list(criterion.state_dict()) == []
    assert criterion.to("meta").priors_cxcy.device.type == "meta"
