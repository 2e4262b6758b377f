"""The network of model.py: shapes, state, what it computes, and its first weights."""

import copy
import math
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import tutorial_priors
from helpers.maps import CHANNELS, FIRST_PRIORS, PRIORS_PER_TILE, SIDES
from model import FEATURE_MAPS, SSD300, PredictionConvolutions


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
    """
    One pass: the two answers under "answers", what the base gave under "base", and each
    convolution's output by its name.
    """
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


# ----------------------------------------------------------------------------- shapes and the order


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


# -------------------------------------------------------------------------------------------- width

# Numbers of channels that 64, 128, 256, 512 and 1024 become
CHANNELS_BY_WIDTH = {
    1.0: (64, 128, 256, 512, 1024),
    0.25: (16, 32, 64, 128, 256),
    1 / 3: (21, 43, 85, 171, 341),
    1.5: (96, 192, 384, 768, 1536),
    0.001: (1, 1, 1, 1, 1),
}


@pytest.mark.parametrize("width", [0.125, 1.0])
def test_rescaled_features_of_conv4_3_are_as_large_at_any_width(width):
    model = SSD300(4, pretrained=False, width=width).eval()
    seen = []
    model.pred_convs.register_forward_pre_hook(lambda _, maps: seen.append(maps[0]))
    with torch.inference_mode():
        model(torch.randn(1, 3, 300, 300, generator=torch.Generator().manual_seed(0)))
    root_mean_square = float(seen[0].square().mean().sqrt())
    assert root_mean_square == pytest.approx(20 / 512**0.5, rel=1e-4)


@pytest.mark.parametrize("width", CHANNELS_BY_WIDTH)
def test_all_channels_but_those_of_the_input_and_the_predictions_follow_the_width(width):
    scaled = dict(zip(CHANNELS_BY_WIDTH[1.0], CHANNELS_BY_WIDTH[width], strict=True))
    with torch.device("meta"):
        full = SSD300(4, pretrained=False)
        other = SSD300(4, pretrained=False, width=width)
    assert (full.width, other.width) == (1.0, width)
    assert other.rescale_factors.shape == (1, scaled[512], 1, 1)
    layers = dict(other.named_modules())
    n_convolutions = 0
    for name, layer in full.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        n_convolutions += 1
        is_first = name == "base.conv1_1"
        is_prediction = name.startswith("pred_convs.")
        n_in = 3 if is_first else scaled[layer.in_channels]
        n_out = layer.out_channels if is_prediction else scaled[layer.out_channels]
        assert layers[name].weight.shape == (n_out, n_in, *layer.kernel_size), name
        assert layers[name].bias.shape == (n_out,), name
    assert n_convolutions == 15 + 8 + 12


@pytest.mark.parametrize("width", [0.001, 0.25])
def test_the_answers_of_a_network_have_the_same_shapes_at_any_width(width, image):
    torch.manual_seed(0)
    network = SSD300(3, pretrained=False, width=width)
    with torch.inference_mode():
        locs, scores = network(image)
        boxes, labels, _ = network.detect_objects(locs, scores, 0.01, 0.45, 10)
    assert locs.shape == (1, 8732, 4)
    assert scores.shape == (1, 8732, 3)
    assert locs.isfinite().all()
    assert scores.isfinite().all()
    assert boxes[0].shape == (10, 4)
    assert set(labels[0].tolist()) <= {1, 2}


def test_a_quarter_of_the_width_takes_a_fifteenth_of_the_computation():
    """As its docstring promises: multiplications of all convolutions, counted by their outputs."""

    def n_multiplications(width):
        with torch.device("meta"):
            network = SSD300(6, pretrained=False, width=width)
            counts = []
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.register_forward_hook(
                        lambda layer, _, out: counts.append(layer.weight[0].numel() * out.numel())
                    )
            network(torch.zeros(1, 3, 300, 300))
        return sum(counts)

    assert n_multiplications(1.0) / n_multiplications(0.25) == pytest.approx(15, abs=1)


def test_a_seed_gives_the_weights_that_it_always_gave():
    """
    As before there was a width, so that runs can be repeated. (Another release of torch may draw
    other numbers: then these are to be renewed.)
    """
    torch.manual_seed(0)
    state = SSD300(3, pretrained=False).state_dict()
    for name, first, last in (
        ("base.conv1_1.weight", 0.43045020, 0.17688707),
        ("base.conv7.weight", 0.01698771, -0.00087187),
        ("aux_convs.conv11_2.weight", 0.03146701, -0.00038144),
        ("pred_convs.loc_conv4_3.weight", -0.02237727, -0.01837566),
        ("pred_convs.cl_conv11_2.weight", -0.01031217, 0.03979059),  # the last that are drawn
    ):
        values = state[name].flatten()[[0, -1]].tolist()
        assert values == pytest.approx([first, last], rel=1e-4), name


# -------------------------------------------------------------------------------- state and buffers


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


# ------------------------------------------------------------------------------------------ forward


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


# ----------------------------------------------------------------------------------- initialisation


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


class ConstantBase(torch.nn.Module):
    """Features of float16 that are all the same, as a base under autocast could make them."""

    value = 1.0

    def __init__(self, width):
        super().__init__()

    def forward(self, image):
        conv4_3_feats = torch.full((len(image), 512, 38, 38), self.value, dtype=torch.float16)
        return conv4_3_feats, torch.zeros(len(image), 1024, 19, 19, dtype=torch.float16)


@torch.no_grad()
def test_large_float16_features_are_normalised_like_small_ones(monkeypatch):
    """Their squares are too large for float16."""
    monkeypatch.setattr("model.VGGBase", ConstantBase)
    network = SSD300(2, pretrained=False)
    image = torch.zeros(1, 3, 300, 300)
    with torch.autocast("cpu", dtype=torch.float16):
        small_locs, small_scores = network(image)
        network.base.value = 1000.0
        large_locs, large_scores = network(image)
    torch.testing.assert_close(large_locs, small_locs, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(large_scores, small_scores, rtol=1e-2, atol=1e-2)
    assert small_locs.abs().max() > 0.1
