"""The priors of model.py."""

import math

import pytest
import torch

from conftest import tutorial_priors
from helpers.maps import CHANNELS, FIRST_PRIORS, PRIORS_PER_TILE, SIDES
from model import FEATURE_MAPS, SSD300
from utils import cxcy_to_xy


@pytest.fixture(scope="module")
def priors():
    return SSD300.create_prior_boxes()


def slow_priors():
    """The priors of the design's table, one by one."""
    scales = [0.1, 0.2, 0.375, 0.55, 0.725, 0.9, None]
    priors = []
    for index, side in enumerate(SIDES):
        scale, next_scale = scales[index], scales[index + 1]
        for row in range(side):
            for column in range(side):
                c_x, c_y = (column + 0.5) / side, (row + 0.5) / side
                priors.append([c_x, c_y, scale, scale])
                extra = 1.0 if next_scale is None else math.sqrt(scale * next_scale)
                priors.append([c_x, c_y, extra, extra])
                for ratio in [2, 3] if PRIORS_PER_TILE[index] == 6 else [2]:
                    priors.append(
                        [
                            c_x,
                            c_y,
                            min(1.0, scale * math.sqrt(ratio)),
                            min(1.0, scale / math.sqrt(ratio)),
                        ]
                    )
                for ratio in [2, 3] if PRIORS_PER_TILE[index] == 6 else [2]:
                    priors.append(
                        [
                            c_x,
                            c_y,
                            min(1.0, scale / math.sqrt(ratio)),
                            min(1.0, scale * math.sqrt(ratio)),
                        ]
                    )
    return priors


def test_priors_are_those_of_the_plain_loop(priors):
    expected = torch.tensor(slow_priors())
    assert priors.shape == expected.shape == (8732, 4)
    assert priors.dtype == torch.float32
    torch.testing.assert_close(priors, expected, rtol=0, atol=1e-6)


def test_the_table_says_how_many_priors_there_are():
    assert tuple(feature_map.side for feature_map in FEATURE_MAPS.values()) == SIDES
    assert tuple(feature_map.channels for feature_map in FEATURE_MAPS.values()) == CHANNELS
    first = [0]
    for feature_map in FEATURE_MAPS.values():
        first.append(first[-1] + feature_map.side**2 * (len(feature_map.aspect_ratios) + 1))
    assert tuple(first) == FIRST_PRIORS


@pytest.mark.parametrize(
    ("index", "c_x", "c_y", "w", "h"),
    [
        (0, 0.5 / 38, 0.5 / 38, 0.1, 0.1),
        (1, 0.5 / 38, 0.5 / 38, 0.141421, 0.141421),  # sqrt(0.1 * 0.2)
        (2, 0.5 / 38, 0.5 / 38, 0.141421, 0.070711),  # twice as wide as high
        (3, 0.5 / 38, 0.5 / 38, 0.070711, 0.141421),
        (4, 1.5 / 38, 0.5 / 38, 0.1, 0.1),  # the next column
        (4 * 38, 0.5 / 38, 1.5 / 38, 0.1, 0.1),  # the next row
        (5776, 0.5 / 19, 0.5 / 19, 0.2, 0.2),
        (5777, 0.5 / 19, 0.5 / 19, 0.273861, 0.273861),
        (5778, 0.5 / 19, 0.5 / 19, 0.282843, 0.141421),
        (5779, 0.5 / 19, 0.5 / 19, 0.346410, 0.115470),  # three times as wide as high
        (5780, 0.5 / 19, 0.5 / 19, 0.141421, 0.282843),
        (5781, 0.5 / 19, 0.5 / 19, 0.115470, 0.346410),
        (7942, 0.05, 0.05, 0.375, 0.375),
        (7943, 0.05, 0.05, 0.454148, 0.454148),
        (8542, 0.1, 0.1, 0.55, 0.55),
        (8543, 0.1, 0.1, 0.631467, 0.631467),
        (8545, 0.1, 0.1, 0.952628, 0.317543),
        (8692, 1 / 6, 1 / 6, 0.725, 0.725),
        (8693, 1 / 6, 1 / 6, 0.807775, 0.807775),
        (8694, 1 / 6, 1 / 6, 1.0, 0.512652),  # 1.025305 is wider than the image
        (8728, 0.5, 0.5, 0.9, 0.9),
        (8729, 0.5, 0.5, 1.0, 1.0),
        (8730, 0.5, 0.5, 1.0, 0.636396),
        (8731, 0.5, 0.5, 0.636396, 1.0),
    ],
)
def test_prior_hand_values(priors, index, c_x, c_y, w, h):
    assert priors[index].tolist() == pytest.approx([c_x, c_y, w, h], abs=1e-6)


def test_priors_with_the_rounded_third_are_the_published_ones_exactly(golden):
    rounded = tutorial_priors()
    assert torch.equal(rounded[golden["priors"]["index"]], torch.tensor(golden["priors"]["cxcy"]))
    torch.testing.assert_close(
        rounded.double().sum(0), torch.tensor(golden["priors"]["sum"], dtype=torch.float64)
    )


def test_priors_are_the_published_ones_but_for_the_rounded_third(golden, priors):
    expected = torch.tensor(golden["priors"]["cxcy"])
    torch.testing.assert_close(priors[golden["priors"]["index"]], expected, rtol=0, atol=1e-3)
    assert priors.double().sum(0).tolist() == pytest.approx(golden["priors"]["sum"], abs=0.2)
    assert priors[5781, 3].item() / priors[5781, 2].item() == pytest.approx(
        3, abs=1e-6
    )  # a third, not 0.333


def test_priors_are_no_larger_than_the_image_but_reach_beyond_it(priors):
    assert priors[:, 2:].max() == 1
    assert priors[:, 2:].min() > 0
    corners = cxcy_to_xy(priors)
    assert corners.min() == pytest.approx(
        0.1 - 0.55 * math.sqrt(3) / 2
    )  # of conv9_2's corner tile: the farthest out
    assert corners.max() == pytest.approx(0.9 + 0.55 * math.sqrt(3) / 2)


def test_another_table_makes_other_priors(priors):
    table = {**FEATURE_MAPS, "conv11_2": FEATURE_MAPS["conv11_2"]._replace(scale=0.5)}
    other = SSD300.create_prior_boxes(table)
    assert torch.equal(other[:8692], priors[:8692])
    assert other[8728].tolist() == [0.5, 0.5, 0.5, 0.5]
    assert other[8693, 2].item() == pytest.approx(math.sqrt(0.725 * 0.5))
