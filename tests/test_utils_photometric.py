"""The photometric distortions of utils.py: how far colours go, and how often."""

import colorsys

import numpy as np
import pytest
import torch

import utils
from helpers.oracles import (
    slow_scale_saturation,
    slow_shift_hue,
)
from helpers.scenes import draw_scene, within_4_sigma
from utils import (
    photometric_distort,
    scale_saturation,
    shift_hue,
)

pytestmark = pytest.mark.usefixtures("one_thread")

NO_CHANGE = {"BRIGHTNESS": 0, "CONTRAST": (1, 1), "SATURATION": (1, 1), "HUE": 0}


def distorted_colours(monkeypatch, colour, n, **magnitudes):
    """Distort one colour n times; only the named distortions have a magnitude that changes it."""
    for name, value in {**NO_CHANGE, **magnitudes}.items():
        monkeypatch.setattr(utils, name, value)
    rng = np.random.default_rng(0)
    pixels = torch.tensor(colour, dtype=torch.float32).view(3, 1, 1).repeat(1, 2, 2)
    return np.array([photometric_distort(pixels, rng)[:, 1, 1].tolist() for _ in range(n)])


def test_brightness_changes_all_channels_by_at_most_32_levels(monkeypatch):
    changes = distorted_colours(monkeypatch, (100, 150, 60), 600, BRIGHTNESS=utils.BRIGHTNESS) - (
        100,
        150,
        60,
    )
    assert np.ptp(changes, axis=1).max() < 1e-3
    assert -32 <= changes.min() < -30
    assert 30 < changes.max() <= 32
    grey = distorted_colours(monkeypatch, (100, 100, 100), 600, BRIGHTNESS=utils.BRIGHTNESS) - 100
    assert -32 <= grey.min() < -30
    assert 30 < grey.max() <= 32


def test_contrast_multiplies_by_half_to_one_and_a_half(monkeypatch):
    levels = distorted_colours(monkeypatch, (100, 100, 100), 600, CONTRAST=utils.CONTRAST)
    assert 50 <= levels.min() < 53
    assert 147 < levels.max() <= 150
    assert (
        distorted_colours(monkeypatch, (200, 200, 200), 600, CONTRAST=utils.CONTRAST).max() == 255
    ), "clipped, not wrapped"


def test_saturation_multiplies_by_half_to_one_and_a_half_and_keeps_hue_and_value(monkeypatch):
    colours = distorted_colours(monkeypatch, (200, 100, 100), 600, SATURATION=utils.SATURATION)
    assert np.abs(colours[:, 0] - 200).max() < 1e-3
    assert np.abs(colours[:, 1] - colours[:, 2]).max() < 1e-3
    assert 50 <= colours[:, 1].min() < 53  # 200 * (1 - 1.5 / 2)
    assert 147 < colours[:, 1].max() <= 150  # 200 * (1 - 0.5 / 2)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (40, 40, 240)], ids=str)
def test_hue_turns_by_at_most_36_degrees_either_way(colour, monkeypatch):
    before = colorsys.rgb_to_hsv(*np.array(colour) / 255)
    after = np.array(
        [
            colorsys.rgb_to_hsv(*c / 255)
            for c in distorted_colours(monkeypatch, colour, 600, HUE=utils.HUE)
        ]
    )
    degrees = (360 * (after[:, 0] - before[0]) + 180) % 360 - 180
    assert -36.01 <= degrees.min() < -34
    assert 34 < degrees.max() <= 36.01
    assert np.abs(after[:, 1:] - before[1:]).max() < 1e-5


@pytest.mark.parametrize(
    ("magnitude", "colour", "chance"),
    [
        ({"BRIGHTNESS": 1e6}, (100, 100, 100), 1 / 2),
        ({"CONTRAST": (0.5, 0.5)}, (100, 100, 100), 1 / 2),
        ({"SATURATION": (0, 0)}, (255, 0, 0), 1 / 2),
        ({"HUE": 0.25}, (255, 0, 0), 1 / 2),
    ],
    ids=str,
)
def test_each_distortion_has_a_chance_of_one_half(magnitude, colour, chance, monkeypatch):
    colours = distorted_colours(monkeypatch, colour, 2000, **magnitude)
    assert within_4_sigma((np.abs(colours - colour) > 1e-3).any(axis=1).sum(), 2000, chance)


def test_distortions_are_independent_and_in_random_order(monkeypatch):
    # Brightness makes 100 black or white, contrast halves it: 127.5 means that contrast came last
    levels = distorted_colours(
        monkeypatch, (100, 100, 100), 3000, BRIGHTNESS=1e6, CONTRAST=(0.5, 0.5)
    )[:, 0]
    expected = {100: 1 / 4, 50: 1 / 4, 127.5: 1 / 16, 255: 3 / 16, 0: 4 / 16}
    assert set(levels) <= set(expected)
    for level, chance in expected.items():
        assert within_4_sigma((levels == level).sum(), 3000, chance), level


def test_photometric_distortion_keeps_size_and_place_and_its_input():
    scene, boxes_px = draw_scene(np.random.default_rng(9))
    pixels = torch.from_numpy(np.array(scene)).permute(2, 0, 1).float()
    before = pixels.clone()
    n_changed = 0
    for seed in range(20):
        result = photometric_distort(pixels, np.random.default_rng(seed))
        assert result.shape == pixels.shape
        assert 0 <= result.min() < result.max() <= 255
        assert torch.equal(pixels, before)
        n_changed += not torch.equal(result, before)
        for x_min, y_min, x_max, y_max in boxes_px:  # a plain rectangle stays one
            assert (
                result[:, y_min:y_max, x_min:x_max]
                == result[:, y_min : y_min + 1, x_min : x_min + 1]
            ).all()
    assert 15 <= n_changed <= 20


def colours_to_try():
    """Any colours, and greys, black, white and pure ones: (3, 1, n) float, from 0 to 255."""
    corners = torch.tensor(
        [[r, g, b] for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)]
    )
    colours = torch.randint(0, 256, (500, 3), generator=torch.Generator().manual_seed(0))
    return torch.cat([corners, colours]).float().T.unsqueeze(1)


@pytest.mark.parametrize("factor", [0, 0.5, 0.9, 1, 1.5, 4])
def test_saturation_agrees_with_the_way_to_hsv_and_back(factor):
    pixels = colours_to_try()
    expected = [slow_scale_saturation(colour, factor) for colour in pixels.squeeze(1).T.tolist()]
    assert torch.allclose(
        scale_saturation(pixels, factor).squeeze(1).T, torch.tensor(expected), atol=1e-3
    )


@pytest.mark.parametrize("turn", [-1 / 3, -0.1, 0, 0.03, 0.1, 1 / 3])
def test_hue_agrees_with_the_way_to_hsv_and_back(turn):
    pixels = colours_to_try()
    expected = [slow_shift_hue(colour, turn) for colour in pixels.squeeze(1).T.tolist()]
    assert torch.allclose(shift_hue(pixels, turn).squeeze(1).T, torch.tensor(expected), atol=1e-3)
