"""published_weights.py: models that others published compute what their authors' did."""

import re

import numpy as np
import pytest
import torch

from checkpoints import load_checkpoint, load_model, model_state, save_checkpoint
from conftest import network_input, tutorial_priors
from helpers.foreign import (
    amdegroot_order,
    amdegroot_priors,
    amdegroot_state,
    base_forward,
    caffe_input,
    forward,
    paper_base_state,
    random_network,
    save_old,
    save_tutorial_checkpoint,
)
from model import SSD300
from published_weights import load_base_weights
from train import Parameters, create_model
from utils import label_map


@pytest.fixture(scope="module")
def image():
    """An image with strong colours up to its border."""
    return np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def our_input(image):
    return network_input(image)


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture(scope="module")
def caffe_network(network):
    """The same for inputs up to 255."""
    (weight, bias), *others = network.base
    return network._replace(base=[(weight / 70, bias), *others])


@pytest.fixture(scope="module")
def expected(network, our_input):
    """What the tutorial's model predicts."""
    return forward(network, our_input)


# -------------------------------------------------------------------------- what the models compute


@pytest.mark.parametrize(
    ("old", "zipped"),
    [(True, False), (False, False), (False, True)],
    ids=["PyTorch 0.4", "later", "since PyTorch 1.6"],
)
def test_the_tutorials_model_computes_what_it_did(
    network, our_input, expected, tmp_path, old, zipped
):
    path = tmp_path / "checkpoint_ssd300.pth.tar"
    save_tutorial_checkpoint(network, tutorial_priors(), path, old, zipped=zipped)
    assert (b"class PredictionConvolutions(nn.Module)" in path.read_bytes()) == old
    assert (b"cuda:0" in path.read_bytes()) == old
    model = load_model(path)
    with torch.no_grad():
        locs, scores = model(our_input)
    expected_locs, expected_scores = expected
    assert expected_scores.std() > 0.3
    torch.testing.assert_close(locs, expected_locs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-4, atol=1e-4)
    assert model.label_map == label_map
    assert torch.equal(model.priors_cxcy, tutorial_priors())
    assert not model.input_shift.any()


def test_amdegroots_model_computes_what_it_did(caffe_network, image, our_input, tmp_path):
    path = save_old(amdegroot_state(caffe_network), tmp_path / "ssd300_mAP_77.43_v2.pth")
    model = load_model(path)
    with torch.no_grad():
        locs, scores = model(our_input)
    expected_locs, expected_scores = map(
        amdegroot_order, forward(caffe_network, caffe_input(image))
    )
    assert expected_scores.std() > 0.3
    torch.testing.assert_close(locs, expected_locs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-4, atol=1e-4)
    assert model.label_map == label_map
    torch.testing.assert_close(
        model.priors_cxcy, amdegroot_order(amdegroot_priors().unsqueeze(0))[0], rtol=0, atol=1e-6
    )


def test_training_starts_from_the_papers_base(caffe_network, image, our_input, tmp_path):
    path = save_old(paper_base_state(caffe_network), tmp_path / "vgg16_reducedfc.pth")
    model = create_model(None, {"background": 0, "cat": 1}, Parameters(base_weights=str(path)))
    with torch.no_grad():
        got = model.base(our_input + model.input_shift)
        expected = base_forward(caffe_network.base, caffe_input(image))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    save_checkpoint(tmp_path / "ours.pth.tar", model_state(model))
    assert torch.equal(load_model(tmp_path / "ours.pth.tar").input_shift, model.input_shift)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*--base-weights"):
        load_checkpoint(path)
    with pytest.raises(
        FileNotFoundError, match=r"none\.pth: no such file of weights: .*README.*--base-weights"
    ):
        load_base_weights(tmp_path / "none.pth")


# --------------------------------------------------------------------------- wrong shapes and names


@pytest.fixture(scope="module")
def small_state(network):
    """amdegroot's names and shapes in a small file: each tensor is one number, shown everywhere."""
    return {
        name: torch.zeros(1).expand(tensor.shape)
        for name, tensor in amdegroot_state(network).items()
    }


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vgg.0.weight": torch.zeros(64, 4, 3, 3)},
            r"base\.conv1_1\.weight: expected \(64, 3, 3, 3\), got \(64, 4, 3, 3\)",
        ),
        (
            {"vgg.0.weight": torch.zeros(64, 3, 3, 3).long()},
            r"base\.conv1_1\.weight: expected 32-bit",
        ),
        (
            {"vgg.0.weight": torch.zeros(1).expand(64, 3, 3, 3)},
            r"base\.conv1_1\.weight: has fewer numbers than places",
        ),
        ({"L2Norm.weight": torch.zeros(256)}, r"L2Norm\.weight: expected \(512,\), got \(256,\)"),
        ({"vgg.3.weight": torch.zeros(1)}, r"missing or unknown: vgg\.3\.weight"),
        ({"conf.5.bias": None}, r"conf\.5\.bias"),
    ],
)
def test_wrong_shapes_and_names_are_named(small_state, changes, message, old, tmp_path):
    state = {**small_state, "L2Norm.weight": torch.zeros(512), **changes}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    path = tmp_path / "wrong.pth"
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
        load_model(path)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    "state",
    [
        {"layer1.0.conv1.weight": torch.zeros(2)},
        {"features.0.weight": torch.zeros(64, 3, 3, 3)},
        {},
        [torch.zeros(2)],
    ],
)
def test_another_network_is_named(state, old, tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    for read in (load_model, load_base_weights):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read(path)


def test_a_tutorials_model_of_other_classes_is_refused(tmp_path):
    network = random_network(3)
    path = save_tutorial_checkpoint(
        network, tutorial_priors(), tmp_path / "cells.pth.tar", n_classes=3
    )
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*other classes than VOC's"):
        load_model(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_map": {"background": 0, "cat": 2}}, "label_map"),
        ({"label_map": torch.zeros(1).expand(10**9)}, "label_map"),
        ({"label_map": {str(i): i for i in range(1000)}}, "1000 classes"),
        ({"priors_cxcy": torch.zeros(8731, 4)}, r"priors: expected \(8732, 4\)"),
        ({"input_shift": torch.zeros(3)}, r"input shift: expected \(1, 3, 1, 1\)"),
        ({"model": [1, 2]}, "its weights"),
    ],
)
def test_a_strange_checkpoint_of_ours_is_named(changes, message, tmp_path):
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in SSD300(2, False).state_dict().items()}
    state = {
        "model": {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()},
        "label_map": {"background": 0, "cat": 1},
        "priors_cxcy": SSD300.create_prior_boxes(),
        "input_shift": torch.zeros(1, 3, 1, 1),
    }
    path = tmp_path / "strange.pth.tar"
    torch.save({**state, **changes}, path)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
        load_model(path)
