"""utils.py: box math and decimation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import utils
from helpers.oracles import slow_decimate, slow_jaccard_overlap

# ----------------------------------------------------------------------------------------- box math


HAND_BOXES = [  # xy, cxcy
    ([0.0, 0.0, 0.5, 1.0], [0.25, 0.5, 0.5, 1.0]),
    ([0.25, 0.5, 0.5, 0.75], [0.375, 0.625, 0.25, 0.25]),
    ([-0.5, 0.25, 1.5, 0.5], [0.5, 0.375, 2.0, 0.25]),
    ([0.125, 0.125, 0.125, 0.125], [0.125, 0.125, 0.0, 0.0]),
]


@pytest.mark.parametrize(("xy", "cxcy"), HAND_BOXES)
def test_xy_and_cxcy_hand_values(xy, cxcy):
    assert torch.equal(utils.xy_to_cxcy(torch.tensor([xy])), torch.tensor([cxcy]))
    assert torch.equal(utils.cxcy_to_xy(torch.tensor([cxcy])), torch.tensor([xy]))


# cxcy, prior, offsets: (c - c_prior) * 10 / size_prior, log(size / size_prior) * 5
HAND_OFFSETS = [
    ([0.5, 0.5, 0.2, 0.4], [0.5, 0.5, 0.2, 0.4], [0, 0, 0, 0]),
    ([0.6, 0.3, 0.2, 0.4], [0.5, 0.5, 0.2, 0.4], [5, -5, 0, 0]),
    ([0.5, 0.5, 0.4, 0.2], [0.5, 0.5, 0.2, 0.4], [0, 0, 5 * math.log(2), -5 * math.log(2)]),
    ([0.5, 0.5, 0.1 * math.e, 0.1 / math.e], [0.25, 0.75, 0.1, 0.1], [25, -25, 5, -5]),
]


@pytest.mark.parametrize(("cxcy", "prior", "offsets"), HAND_OFFSETS)
def test_offsets_from_a_prior_hand_values(cxcy, prior, offsets):
    cxcy, prior, offsets = (
        torch.tensor([values], dtype=torch.float64) for values in (cxcy, prior, offsets)
    )
    torch.testing.assert_close(utils.cxcy_to_gcxgcy(cxcy, prior), offsets)
    torch.testing.assert_close(utils.gcxgcy_to_cxcy(offsets, prior), cxcy)


centres = st.floats(-1, 2, width=32)

sizes = st.floats(0.0078125, 2, width=32)

cxcy_boxes = st.lists(st.tuples(centres, centres, sizes, sizes), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(cxcy_boxes)
def test_centre_size_to_boundary_and_back_is_the_identity(boxes):
    cxcy = torch.tensor(boxes)
    xy = utils.cxcy_to_xy(cxcy)
    assert (xy[:, :2] < xy[:, 2:]).all()
    torch.testing.assert_close(utils.xy_to_cxcy(xy), cxcy, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(cxcy_boxes, st.tuples(centres, centres, sizes, sizes))
def test_encoding_and_decoding_is_the_identity_both_ways(boxes, prior):
    cxcy, priors = (
        torch.tensor(boxes).double(),
        torch.tensor([prior]).double().repeat(len(boxes), 1),
    )
    offsets = utils.cxcy_to_gcxgcy(cxcy, priors)
    torch.testing.assert_close(utils.gcxgcy_to_cxcy(offsets, priors), cxcy)
    torch.testing.assert_close(
        utils.cxcy_to_gcxgcy(utils.gcxgcy_to_cxcy(offsets, priors), priors), offsets
    )


@pytest.mark.parametrize("convert", [utils.xy_to_cxcy, utils.cxcy_to_xy])
def test_converters_take_leading_dimensions_and_no_boxes_and_leave_the_input_alone(convert, random):
    boxes = torch.rand(2, 3, 5, 4, generator=random)
    before = boxes.clone()
    assert torch.equal(convert(boxes), convert(boxes.view(-1, 4)).view(2, 3, 5, 4))
    assert torch.equal(boxes, before)
    assert convert(torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("convert", [utils.cxcy_to_gcxgcy, utils.gcxgcy_to_cxcy])
def test_offsets_of_a_batch_are_those_of_its_images(convert, random):
    boxes, priors = (
        torch.rand(3, 7, 4, generator=random) + 0.1,
        torch.rand(7, 4, generator=random) + 0.1,
    )
    before = boxes.clone(), priors.clone()
    together = convert(boxes, priors)
    assert together.shape == (3, 7, 4)
    for image in range(3):
        assert torch.equal(together[image], convert(boxes[image], priors))
    assert torch.equal(boxes, before[0])
    assert torch.equal(priors, before[1])
    assert convert(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


# ------------------------------------------------------------------------------------------ overlap


SQUARE = [0.0, 0.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (SQUARE, 1.0),
        ([0.0, 0.0, 2.0, 1.0], 1 / 2),  # half of it
        ([1.0, 0.0, 3.0, 2.0], 1 / 3),  # two of six
        ([1.0, 1.0, 3.0, 3.0], 1 / 7),  # one of seven
        ([0.5, 0.5, 1.5, 1.5], 1 / 4),  # inside
        ([2.0, 0.0, 4.0, 2.0], 0.0),  # an edge in common
        # Apart both ways: two negative sides must not make a positive area
        ([3.0, 3.0, 4.0, 4.0], 0.0),
        ([3.0, 0.0, 4.0, 2.0], 0.0),
        ([1.0, 1.0, 1.0, 1.0], 0.0),  # a point inside
        ([1.0, 0.0, 1.0, 2.0], 0.0),  # a line inside
    ],
)
def test_overlap_hand_values(other, expected):
    overlap = utils.find_jaccard_overlap(torch.tensor([SQUARE]), torch.tensor([other]))
    assert overlap.shape == (1, 1)
    assert overlap.item() == pytest.approx(expected, abs=1e-7)


def test_overlap_of_two_boxes_without_area_is_0_and_not_nan():
    nothing = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 5.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert torch.equal(utils.find_jaccard_overlap(nothing, nothing), torch.zeros(3, 3))


def test_overlap_with_no_boxes_is_empty():
    boxes, none = torch.rand(3, 4), torch.zeros(0, 4)
    assert utils.find_jaccard_overlap(none, boxes).shape == (0, 3)
    assert utils.find_jaccard_overlap(boxes, none).shape == (3, 0)
    assert utils.find_jaccard_overlap(none, none).shape == (0, 0)


@st.composite
def xy_sets(draw):
    """Two sets of boxes with edges on a coarse grid: touching, equal and flat boxes are common."""
    edge = st.integers(0, 8)
    box = st.tuples(edge, edge, edge, edge).map(
        lambda b: [
            float(value)
            for value in (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
        ]
    )
    scale = draw(st.sampled_from([1.0, 0.125, 100.0]))
    sets = draw(st.lists(box, min_size=1, max_size=6)), draw(st.lists(box, min_size=1, max_size=6))
    return [torch.tensor(boxes) * scale for boxes in sets]


@settings(deadline=None, max_examples=100)
@given(xy_sets())
def test_overlap_agrees_with_the_plain_loop_and_is_symmetric(sets):
    set_1, set_2 = sets
    overlap = utils.find_jaccard_overlap(set_1, set_2)
    expected = [
        [slow_jaccard_overlap(box_1, box_2) for box_2 in set_2.tolist()] for box_1 in set_1.tolist()
    ]
    torch.testing.assert_close(overlap, torch.tensor(expected, dtype=torch.float32))
    assert torch.equal(utils.find_jaccard_overlap(set_2, set_1), overlap.T)


@settings(deadline=None, max_examples=100)
@given(cxcy_boxes)
def test_overlap_is_at_most_1_and_1_with_itself(boxes):
    xy = utils.cxcy_to_xy(torch.tensor(boxes))
    overlap = utils.find_jaccard_overlap(xy, xy)
    assert torch.equal(overlap.diagonal(), torch.ones(len(xy)))
    assert ((overlap >= 0) & (overlap <= 1)).all()


def test_overlap_of_a_batch_is_that_of_its_images(random):
    set_1 = utils.cxcy_to_xy(torch.rand(2, 3, 5, 4, generator=random))
    set_2 = utils.cxcy_to_xy(torch.rand(2, 3, 6, 4, generator=random))
    overlap = utils.find_jaccard_overlap(set_1, set_2)
    assert overlap.shape == (2, 3, 5, 6)
    for i in range(2):
        for j in range(3):
            assert torch.equal(overlap[i, j], utils.find_jaccard_overlap(set_1[i, j], set_2[i, j]))
    shared = utils.find_jaccard_overlap(set_1, set_2[0, 0])  # one second set for all
    assert torch.equal(shared[1, 2], utils.find_jaccard_overlap(set_1[1, 2], set_2[0, 0]))


# ----------------------------------------------------------------------------------------- decimate


def test_decimate_hand_value():
    tensor = torch.arange(12).view(3, 4)
    assert utils.decimate(tensor, [2, 3]).tolist() == [[0, 3], [8, 11]]
    assert utils.decimate(tensor, [None, 2]).tolist() == [[0, 2], [4, 6], [8, 10]]
    assert utils.decimate(tensor, [None, None]).tolist() == tensor.tolist()
    assert utils.decimate(tensor, [5, 5]).tolist() == [[0]]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 7), st.integers(1, 7), *[st.none() | st.integers(1, 8)] * 2)
def test_decimate_agrees_with_the_plain_loop(n_rows, n_columns, step_1, step_2):
    tensor = torch.arange(n_rows * n_columns).view(n_rows, n_columns)
    assert utils.decimate(tensor, [step_1, step_2]).tolist() == slow_decimate(
        tensor.tolist(), step_1, step_2
    )


def test_decimate_turns_fc6_and_fc7_into_the_papers_convolutions():
    fc6 = torch.zeros(1, 1, 1, 1).expand(4096, 512, 7, 7)
    fc7 = torch.zeros(1, 1, 1, 1).expand(4096, 4096, 1, 1)
    assert utils.decimate(fc6, [4, None, 3, 3]).shape == (1024, 512, 3, 3)
    assert utils.decimate(fc7, [4, 4, None, None]).shape == (1024, 1024, 1, 1)


def test_decimate_refuses_a_wrong_number_of_steps():
    with pytest.raises(ValueError, match=r"expected 2 steps .*\(3, 4\)"):
        utils.decimate(torch.zeros(3, 4), [2])
