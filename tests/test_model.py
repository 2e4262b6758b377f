"""Tests of the network in `model.py`: priors, shapes, weights, and where the weights come from."""

import copy
import math
import re
import urllib.error
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import tutorial_priors
from downloads import DownloadError
from model import FEATURE_MAPS, SSD300, PredictionConvolutions, VGGBase
from utils import cxcy_to_xy, decimate

SIDES = (38, 19, 10, 5, 3, 1)
CHANNELS = (512, 1024, 512, 256, 256, 256)
PRIORS_PER_TILE = (4, 6, 6, 6, 4, 4)
# Where each map's priors begin, and their number: sums of side * side * priors per tile, written out
FIRST_PRIORS = (0, 5776, 7942, 8542, 8692, 8728, 8732)


@pytest.fixture(scope="module")
def priors():
    return SSD300.create_prior_boxes()


@pytest.fixture(scope="module")
def model():
    """One network for all tests that only look at it."""
    torch.manual_seed(0)
    return SSD300(21, pretrained=False).eval()


@pytest.fixture(scope="module")
def golden_model(golden):
    """A network with the weights of the recipe in `golden/README.md`."""
    recipe = golden["forward"]
    model = SSD300(21, pretrained=False, priors_cxcy=tutorial_priors()).eval()
    state = {}
    for key, shape in recipe["state_dict_shapes"].items():
        seed = (zlib.crc32(key.encode()) + golden["base_seed"]) % 2**32
        weights = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
        if key == "rescale_factors":
            weights = 20 * (1 + 0.1 * weights)
        else:
            weights = weights * (
                0.05 if key.endswith(".bias") else math.sqrt(2 / math.prod(shape[1:]))
            )
        state[key] = torch.from_numpy(weights.astype(np.float32))
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module")
def golden_image(golden):
    image = np.random.RandomState(golden["base_seed"] + 1).standard_normal((2, 3, 300, 300))
    return torch.from_numpy(image.astype(np.float32))


def trace(model, image):
    """One pass: the two answers under "answers", what the base gave under "base", and each convolution's output by its name."""
    seen, hooks = {}, []
    for name, layer in model.named_modules():
        if name == "base" or isinstance(layer, nn.Conv2d):
            hooks.append(
                layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
            )
    hooks.append(
        model.pred_convs.register_forward_pre_hook(lambda _, maps: seen.update({"maps": maps}))
    )
    with torch.inference_mode():
        seen["answers"] = model(image)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.fixture(scope="module")
def golden_trace(golden_model, golden_image):
    """The pass of the golden input."""
    return trace(golden_model, golden_image)


@pytest.fixture(scope="module")
def golden_answers(golden_trace):
    """What our network says about the golden input."""
    return golden_trace["answers"]


@pytest.fixture(scope="module")
def image():
    return torch.randn(1, 3, 300, 300, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def fresh_trace(model, image):
    """The pass of a random image through a network with its first weights."""
    return trace(model, image)


# ------------------------------------------------------------------------------------------------------------- priors


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


# ------------------------------------------------------------------------------------------------ shapes and the order


def test_feature_maps_have_the_shapes_of_the_table(fresh_trace):
    maps = fresh_trace["maps"]
    assert [tuple(x.shape) for x in maps] == [
        (1, c, side, side) for c, side in zip(CHANNELS, SIDES, strict=True)
    ]
    assert all(x.min() >= 0 for x in maps)  # each ends in a rectifier
    assert all(x.max() > 0 for x in maps)


def test_a_network_for_another_number_of_classes_has_a_score_for_each(image):
    with torch.inference_mode():
        locs, scores = SSD300(2, pretrained=False)(image)
    assert locs.shape == (1, 8732, 4)
    assert scores.shape == (1, 8732, 2)


@pytest.mark.parametrize("n_classes", [2, 5, 21])
def test_predictions_stand_in_the_order_of_the_priors(n_classes, priors):
    predict = PredictionConvolutions(n_classes)
    row, column, counts = {}, {}, dict(zip(FEATURE_MAPS, PRIORS_PER_TILE, strict=True))
    maps = [torch.zeros(2, c, side, side) for c, side in zip(CHANNELS, SIDES, strict=True)]
    for index, name in enumerate(
        FEATURE_MAPS
    ):  # one tile shines; a convolution's channel number k says k + 1 there
        row[name], column[name] = SIDES[index] // 3, SIDES[index] // 2
        maps[index][1, 0, row[name], column[name]] = 1
        for layer in (getattr(predict, f"loc_{name}"), getattr(predict, f"cl_{name}")):
            nn.init.zeros_(layer.weight)
            layer.weight.data[:, 0, 1, 1] = torch.arange(1.0, layer.out_channels + 1)
    locs, scores = predict(*maps)
    assert locs.shape == (2, 8732, 4)
    assert scores.shape == (2, 8732, n_classes)
    assert not locs[0].any()
    assert not scores[0].any()
    for index, name in enumerate(FEATURE_MAPS):
        first, last, side = FIRST_PRIORS[index], FIRST_PRIORS[index + 1], SIDES[index]
        shining = (locs[1, first:last] != 0).any(dim=1).nonzero().flatten() + first
        assert len(shining) == counts[name]
        assert locs[1, shining].flatten().tolist() == list(range(1, 4 * counts[name] + 1))
        assert scores[1, shining].flatten().tolist() == list(range(1, n_classes * counts[name] + 1))
        for prior in shining:
            centre = (column[name] + 0.5) / side, (row[name] + 0.5) / side
            assert priors[prior, :2].tolist() == pytest.approx(centre)


# ------------------------------------------------------------------------------------------------------- state and buffers


def test_state_dict_has_the_published_keys_and_shapes(golden, model):
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == golden["forward"]["state_dict_shapes"]


def test_priors_and_input_shift_are_buffers_but_no_state(model):
    buffers = dict(model.named_buffers())
    assert set(buffers) == {"priors_cxcy", "input_shift"}
    assert buffers["priors_cxcy"].shape == (8732, 4)
    assert torch.equal(buffers["input_shift"], torch.zeros(1, 3, 1, 1))
    assert not set(buffers) & set(model.state_dict())
    assert torch.equal(model.rescale_factors, torch.full((1, 512, 1, 1), 20.0))
    assert model.rescale_factors.requires_grad


def test_priors_and_input_shift_move_with_the_network(model):
    moved = copy.deepcopy(model).to("meta")
    assert {
        moved.priors_cxcy.device.type,
        moved.input_shift.device.type,
        moved.rescale_factors.device.type,
    } == {"meta"}
    assert model.priors_cxcy.device.type == "cpu"


def test_given_priors_are_kept(golden_model):
    assert torch.equal(golden_model.priors_cxcy, tutorial_priors())


@pytest.mark.parametrize("shape", [(8731, 4), (8732, 5), (8732,), (1, 8732, 4), (0, 4)])
def test_priors_of_another_shape_are_refused(shape, monkeypatch):
    monkeypatch.setattr("model.VGGBase", nn.Identity)  # nothing of it is needed to refuse
    with pytest.raises(ValueError, match=r"priors.*8732, 4.*got") as error:
        SSD300(2, pretrained=False, priors_cxcy=torch.zeros(shape))
    assert str(shape) in str(error.value)


# ---------------------------------------------------------------------------------------------------------------- forward


def test_forward_gives_the_published_answers(golden, golden_answers):
    for got, name, n_values in zip(golden_answers, ("locs", "scores"), (4, 21), strict=True):
        assert got.shape == (2, 8732, n_values)
        expected = torch.tensor(golden["forward"][name])
        torch.testing.assert_close(
            got[:, golden["forward"]["prior_index"]], expected, rtol=2e-3, atol=2e-3
        )


def test_images_of_a_batch_do_not_meet(golden_model, golden_image, golden_answers):
    with torch.inference_mode():
        for got, expected in zip(golden_model(golden_image[1:]), golden_answers, strict=True):
            torch.testing.assert_close(got, expected[1:], rtol=1e-3, atol=1e-3)


def test_channels_last_gives_the_same(golden_model, golden_image, golden_answers):
    model = copy.deepcopy(golden_model).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        answers = model(golden_image[:1].to(memory_format=torch.channels_last))
    for got, expected in zip(answers, golden_answers, strict=True):
        assert got.is_contiguous()
        torch.testing.assert_close(got, expected[:1], rtol=1e-3, atol=1e-3)


def test_input_shift_is_added_to_the_image_before_it_is_padded(model, image, fresh_trace):
    shift = torch.tensor([0.5, -1.0, 2.0]).view(1, 3, 1, 1)
    shifted = SSD300(21, pretrained=False, input_shift=shift).eval()
    assert torch.equal(shifted.input_shift, shift)
    shifted.load_state_dict(model.state_dict())
    before = image.clone()
    with torch.inference_mode():
        expected, got = model(image + shift), shifted(image)
    for name, a, b, c in zip(
        ("locs", "scores"), got, expected, fresh_trace["answers"], strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, msg=name)
        assert (a - c).abs().max() > 0.05
    assert torch.equal(image, before)


def test_bfloat16_autocast_comes_close(golden_model, golden_image, golden_answers):
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        answers = golden_model(golden_image[:1])
    for got, expected in zip(answers, golden_answers, strict=True):
        error = (got.float() - expected[:1]).norm() / expected[:1].norm()
        assert 0 < error < 0.05  # not 0, or nothing ran in bfloat16


def test_conv4_3_is_divided_by_its_norm_and_rescaled_by_channel(golden_model, golden_trace):
    (features, conv7), maps = golden_trace["base"], golden_trace["maps"]
    factors = golden_model.rescale_factors.detach().flatten().double()
    assert factors.std() > 1  # the channels differ
    for image, row, column in ((0, 0, 0), (0, 5, 31), (1, 37, 37)):
        vector = features[image, :, row, column].double()
        expected = vector / math.sqrt(sum(v * v for v in vector.tolist())) * factors
        torch.testing.assert_close(
            maps[0][image, :, row, column].double(), expected, rtol=1e-4, atol=1e-4
        )
    assert torch.equal(maps[1], conv7)  # the others go on as they are


def check_finite(model, image):
    """Outputs and all gradients of one pass are finite."""
    image = image.clone().requires_grad_()
    locs, scores = model(image)
    assert locs.isfinite().all()
    assert scores.isfinite().all()
    ((locs - 1).pow(2).sum() + (scores - 1).pow(2).sum()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(
        gradient is not None and gradient.isfinite().all() for gradient in gradients.values()
    )
    assert gradients["pred_convs.loc_conv4_3.bias"].any()
    assert image.grad.isfinite().all()


def test_an_image_of_zeros_has_finite_outputs_and_gradients(model):
    check_finite(
        copy.deepcopy(model), torch.zeros(1, 3, 300, 300)
    )  # biases start at zero: all features are zero


def test_conv4_3_features_of_zero_have_finite_outputs_and_gradients(model, image):
    dead = copy.deepcopy(model)
    nn.init.zeros_(dead.base.conv4_3.weight)
    check_finite(dead, image)


def test_conv4_3_features_of_zero_stay_zero(model):
    assert not trace(model, torch.zeros(1, 3, 300, 300))["maps"][0].any()


# ---------------------------------------------------------------------------------------------------------- initialisation


def test_a_random_signal_neither_vanishes_nor_explodes_in_the_base(fresh_trace):
    sizes = {
        name: out.std().item() for name, out in fresh_trace.items() if name.startswith("base.conv")
    }
    assert len(sizes) == 15
    assert all(0.3 < size < 5 for size in sizes.values()), sizes


def test_added_layers_start_with_xavier_weights_and_zero_biases(model):
    added = {**dict(model.aux_convs.named_modules()), **dict(model.pred_convs.named_modules())}
    layers = {name: layer for name, layer in added.items() if isinstance(layer, nn.Conv2d)}
    assert len(layers) == 8 + 12
    for name, layer in layers.items():
        taps = layer.kernel_size[0] * layer.kernel_size[1]
        bound = math.sqrt(6 / (taps * (layer.in_channels + layer.out_channels)))
        weights = layer.weight.detach()
        assert weights.abs().max() <= bound * (1 + 1e-6), name
        assert weights.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), (
            name
        )  # uniform up to the bound
        assert abs(weights.mean().item()) < 0.05 * bound, name
        assert not layer.bias.any(), name


# ------------------------------------------------------------------------------------------------------ pretrained weights

FC6_STRIDES, FC7_STRIDES = (
    (101, 7),
    (89, 5),
)  # fc weights are windows on a few numbers: 400 MB in a file of a few


@pytest.fixture(scope="module")
def fake_vgg16(tmp_path_factory):
    """A file of torchvision's names and shapes where torch looks for VGG-16: the hub folder, the weights and fc's numbers."""
    random = torch.Generator().manual_seed(7)
    state, numbers = {}, {}
    plan = [64, 64, None, 128, 128, None, 256, 256, 256, None, 512, 512, 512, None, 512, 512, 512]
    channels, index = 3, 0
    for width in plan:
        if width is None:
            index += 1  # a pooling
            continue
        state[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3, generator=random)
        state[f"features.{index}.bias"] = torch.randn(width, generator=random)
        channels, index = width, index + 2  # the rectifier
    shapes = {
        "classifier.0": (4096, 25088),
        "classifier.3": (4096, 4096),
        "classifier.6": (1000, 4096),
    }
    for (name, shape), strides in zip(
        shapes.items(), (FC6_STRIDES, FC7_STRIDES, (1, 1)), strict=True
    ):
        numbers[name] = torch.randn(shape[0] * strides[0] + shape[1] * strides[1], generator=random)
        state[f"{name}.weight"] = numbers[name].as_strided(shape, strides)
        state[f"{name}.bias"] = torch.randn(shape[0], generator=random)
    hub = tmp_path_factory.mktemp("hub")
    (hub / "checkpoints").mkdir()
    torch.save(state, hub / "checkpoints" / "vgg16-397923af.pth")
    return hub, state, numbers


@pytest.fixture
def no_network(monkeypatch):
    """Each attempt to download is noted, and fails at once."""
    attempts = []

    def refuse(request, *args, **kwargs):
        attempts.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return attempts


@pytest.fixture
def hub_folder(monkeypatch):
    """A function that makes torch look for its downloads in another folder."""
    before = torch.hub._hub_dir
    yield lambda folder: torch.hub.set_dir(str(folder))
    torch.hub._hub_dir = before


@pytest.fixture
def pretrained_base(fake_vgg16, hub_folder, no_network):
    """A base that was filled from the local file, without the network."""
    hub_folder(fake_vgg16[0])
    base = VGGBase()
    base.load_pretrained_layers()
    assert no_network == []
    return base


CONVOLUTIONS = {
    "conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10, "conv3_2": 12, "conv3_3": 14,
    "conv4_1": 17, "conv4_2": 19, "conv4_3": 21, "conv5_1": 24, "conv5_2": 26, "conv5_3": 28,
}  # fmt: skip


def test_pretrained_layers_are_those_of_the_local_file(pretrained_base, fake_vgg16):
    _, vgg16, numbers = fake_vgg16
    state = pretrained_base.state_dict()
    assert len(state) == 2 * (len(CONVOLUTIONS) + 2)
    for name, index in CONVOLUTIONS.items():
        for kind in ("weight", "bias"):
            assert torch.equal(state[f"{name}.{kind}"], vgg16[f"features.{index}.{kind}"]), name

    # fc6 reads a map of 512 x 7 x 7: filter f, channel c, row y, column x is entry (f, 49 c + 7 y + x). Each fourth filter, each
    # third row and column stay.
    a, b = FC6_STRIDES
    fc6 = numbers["classifier.0"]
    for f, c, y, x in (
        (0, 0, 0, 0),
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 0, 1),
        (77, 300, 2, 1),
        (1023, 511, 2, 2),
    ):
        assert (
            state["conv6.weight"][f, c, y, x] == fc6[a * 4 * f + b * (49 * c + 7 * 3 * y + 3 * x)]
        )
    a, b = FC7_STRIDES
    fc7 = numbers["classifier.3"]
    for f, c in ((0, 0), (1, 0), (0, 1), (512, 3), (1023, 1023)):
        assert state["conv7.weight"][f, c, 0, 0] == fc7[a * 4 * f + b * 4 * c]
    for f in (0, 1, 500, 1023):
        assert state["conv6.bias"][f] == vgg16["classifier.0.bias"][4 * f]
        assert state["conv7.bias"][f] == vgg16["classifier.3.bias"][4 * f]


def test_a_pretrained_network_starts_from_that_file(fake_vgg16, hub_folder, no_network):
    hub_folder(fake_vgg16[0])
    pretrained = SSD300(2)  # pretrained is the default
    assert no_network == []
    assert torch.equal(pretrained.base.conv5_3.weight, fake_vgg16[1]["features.28.weight"])


def test_the_file_is_found_through_torch_home(
    fake_vgg16, tmp_path, monkeypatch, hub_folder, no_network
):
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub").symlink_to(fake_vgg16[0])
    base = VGGBase()
    base.load_pretrained_layers()
    assert no_network == []
    assert torch.equal(base.conv1_1.weight, fake_vgg16[1]["features.0.weight"])


def test_without_network_and_file_the_error_names_both_remedies(tmp_path, hub_folder, no_network):
    hub_folder(tmp_path)
    base = VGGBase()
    with pytest.raises(DownloadError) as error:
        base.load_pretrained_layers()
    url = "https://download.pytorch.org/models/vgg16-397923af.pth"
    assert no_network == [url]
    for part in (url, f"{tmp_path}/checkpoints", "--no-pretrained", "no network in tests"):
        assert part in str(error.value)


def test_an_unpretrained_network_downloads_nothing(tmp_path, hub_folder, no_network):
    hub_folder(tmp_path)
    SSD300(2, pretrained=False)
    assert no_network == []
    assert list(tmp_path.iterdir()) == []


class Trap:
    """An object whose pickle calls a function as it is read."""

    def __reduce__(self):
        return pytest.fail, ("reading the downloaded file ran code from it",)


def test_the_file_of_weights_can_not_run_code(tmp_path, hub_folder, no_network):
    hub_folder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    torch.save({"features.0.weight": Trap()}, tmp_path / "checkpoints" / "vgg16-397923af.pth")
    base = VGGBase()
    with pytest.raises(DownloadError, match=r"(?i)weights[ _]only.*--no-pretrained"):
        base.load_pretrained_layers()


def test_a_damaged_file_of_weights_is_named(tmp_path, hub_folder, no_network):
    hub_folder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"half of a file")
    with pytest.raises(DownloadError, match=f"{re.escape(str(tmp_path))}/checkpoints"):
        VGGBase().load_pretrained_layers()


# ------------------------------------------------------------------------- fully connected layers written as convolutions


def test_a_fully_connected_layer_written_as_a_convolution_computes_the_same(random):
    maps = torch.randn(2, 5, 7, 7, generator=random)
    fc6, fc7 = nn.Linear(5 * 7 * 7, 12), nn.Linear(12, 8)
    expected = fc7(F.relu(fc6(maps.flatten(1))))
    hidden = F.relu(F.conv2d(maps, fc6.weight.view(12, 5, 7, 7), fc6.bias))
    got = F.conv2d(hidden, fc7.weight.view(8, 12, 1, 1), fc7.bias)
    assert got.shape == (2, 8, 1, 1)
    torch.testing.assert_close(got.flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_a_decimated_kernel_with_holes_sees_what_the_whole_kernel_saw_there(random):
    maps, kernel = (
        torch.randn(1, 3, 19, 19, generator=random),
        torch.randn(8, 3, 7, 7, generator=random),
    )
    small = decimate(kernel, m=[4, None, 3, 3])
    assert small.shape == (2, 3, 3, 3)
    holes = torch.zeros(2, 3, 7, 7)  # filters 0 and 4, rows and columns 0, 3 and 6
    for y in (0, 3, 6):
        for x in (0, 3, 6):
            holes[:, :, y, x] = kernel[[0, 4], :, y, x]
    expected = F.conv2d(maps, holes, padding=3)
    torch.testing.assert_close(
        F.conv2d(maps, small, padding=3, dilation=3), expected, rtol=1e-4, atol=1e-5
    )


def test_conv6_reaches_six_tiles_each_way(model):
    conv6 = model.base.conv6
    impulse = torch.zeros(1, 512, 19, 19)
    impulse[0, 0, 9, 9] = 1
    with torch.inference_mode():
        lit = (
            F.conv2d(impulse, conv6.weight, None, conv6.stride, conv6.padding, conv6.dilation)[0]
            != 0
        ).any(0)
    assert lit.shape == (19, 19)
    assert sorted(map(tuple, lit.nonzero().tolist())) == [
        (y, x) for y in (3, 9, 15) for x in (3, 9, 15)
    ]
