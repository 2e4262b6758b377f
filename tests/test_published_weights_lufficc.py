"""published_weights.py: the networks of lufficc/SSD compute what they did."""

import re

import numpy as np
import pytest
import torch
from torchvision.models.detection import SSD300_VGG16_Weights

import convert_weights
from checkpoints import load_checkpoint, load_model
from conftest import network_input
from helpers.foreign import (
    amdegroot_order,
    forward,
    lufficc_boxes,
    lufficc_checkpoint,
    lufficc_input,
    lufficc_priors,
    lufficc_state,
    random_network,
    save_old,
)
from train import Parameters, create_model
from utils import cxcy_to_xy, gcxgcy_to_cxcy, label_map

COCO_LABELS = [
    name for name in SSD300_VGG16_Weights.COCO_V1.meta["categories"][1:] if name != "N/A"
]
# MIN_SIZES and MAX_SIZES of its configurations
VOC_SIZES = (30, 60, 111, 162, 213, 264), (60, 111, 162, 213, 264, 315)
COCO_SIZES = (21, 45, 99, 153, 207, 261), (45, 99, 153, 207, 261, 315)


def random_lufficc(n_classes):
    """A network for inputs up to 255, whose boxes stay near their priors."""
    network = random_network(n_classes)
    (weight, bias), *others = network.base
    locs = [(weight * 0.2, bias) for weight, bias in network.locs]
    return network._replace(base=[(weight / 70, bias), *others], locs=locs)


@pytest.fixture(scope="module")
def image():
    """An image with strong colours up to its border."""
    return np.random.default_rng(3).integers(0, 256, (300, 300, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def voc_network():
    return random_lufficc(21)


@pytest.fixture(scope="module")
def voc_file(voc_network, tmp_path_factory):
    """A file as it was released: with an optimizer, in PyTorch's old format."""
    path = tmp_path_factory.mktemp("lufficc") / "vgg_ssd300_voc0712.pth"
    return save_old(lufficc_checkpoint(lufficc_state(voc_network)), path)


@pytest.fixture(scope="module")
def voc_model(voc_file):
    return load_model(voc_file)


def assert_same_outputs(model, network, sizes, image):
    """Scores, and boxes in the order of our priors, are those of their forward pass."""
    with torch.no_grad():
        locs, scores = model(network_input(image))
    their_locs, their_scores = forward(network, lufficc_input(image))
    assert their_scores.std() > 0.3
    torch.testing.assert_close(scores, amdegroot_order(their_scores), rtol=1e-4, atol=1e-4)
    boxes = cxcy_to_xy(gcxgcy_to_cxcy(locs, model.priors_cxcy))
    their_boxes = lufficc_boxes(their_locs, lufficc_priors(*sizes))
    torch.testing.assert_close(boxes, amdegroot_order(their_boxes), rtol=1e-4, atol=1e-4)


def test_the_voc_model_computes_what_it_did(voc_model, voc_network, image):
    assert_same_outputs(voc_model, voc_network, VOC_SIZES, image)
    assert voc_model.label_map == label_map


def test_the_coco_model_computes_what_it_did(image, tmp_path):
    network = random_lufficc(81)
    path = tmp_path / "vgg_ssd300_coco_trainval35k.pth"
    state = lufficc_state(network)
    torch.save({"model": state}, path)  # in the new format; that of VOC is in the old one
    model = load_model(path)
    assert list(model.label_map) == ["background", *COCO_LABELS]
    assert_same_outputs(model, network, COCO_SIZES, image)

    twenty = load_checkpoint(path, voc_classes=True)
    assert twenty["label_map"] == label_map
    head = "pred_convs.cl_conv11_2.bias"
    all_rows = model.state_dict()[head].view(4, 81)
    rows = twenty["model"][head].view(4, 21)
    for ours, theirs in (("background", "background"), ("sofa", "couch"), ("cat", "cat")):
        assert torch.equal(rows[:, label_map[ours]], all_rows[:, model.label_map[theirs]])


def test_it_is_converted_and_trained_from(voc_file, voc_model, tmp_path):
    convert_weights.main(convert_weights.Parameters(str(voc_file), str(tmp_path / "ours.pth.tar")))
    converted = load_model(tmp_path / "ours.pth.tar")
    assert torch.equal(converted.priors_cxcy, voc_model.priors_cxcy)
    assert torch.equal(converted.input_shift, voc_model.input_shift)

    state = load_checkpoint(voc_file)
    label_map = {"background": 0, "dog": 1, "whale": 2}
    start = Parameters(start_from=str(voc_file))
    model = create_model(state, label_map, start)
    assert torch.equal(model.priors_cxcy, voc_model.priors_cxcy)
    assert torch.equal(model.base.conv7.weight, voc_model.base.conv7.weight)


# ------------------------------------------------------------------------------- what is not one


@pytest.fixture(scope="module")
def small_state(voc_network):
    """Its names and shapes in a small file: each tensor is one number, shown everywhere."""
    return {
        name: torch.zeros(1).expand(tensor.shape)
        for name, tensor in lufficc_state(voc_network).items()
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone.vgg.0.weight": None}, r"missing or unknown: backbone\.vgg\.0\.weight"),
        ({"backbone.extras.8.bias": torch.zeros(128)}, r"unknown: backbone\.extras\.8\.bias"),
        ({"backbone.l2_norm.weight": torch.zeros(1024)}, r"l2_norm\.weight: expected \(512,\)"),
        ({"backbone.l2_norm.weight": [1.0]}, r"l2_norm\.weight: expected \(512,\), got list"),
        (
            {"box_head.predictor.cls_headers.0.bias": torch.zeros(4 * 3)},
            "its model has 3 classes, without their names: expected VOC's 21 or COCO's 81",
        ),
        (
            {"box_head.predictor.cls_headers.0.bias": torch.zeros(4 * 81)},
            "not those of an SSD300 for its 81 classes",
        ),
        ({"box_head.predictor.cls_headers.0.bias": 5}, "could not be read as weights"),
        ({"box_head.predictor.cls_headers.0.bias": torch.zeros(())}, "could not be read"),
        (
            {"backbone.vgg.0.weight": torch.zeros(64, 3, 3, 3).half()},
            r"base\.conv1_1\.weight: expected 32-bit floating-point numbers",
        ),
        ({7: torch.zeros(1)}, "missing or unknown: 7"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(small_state, changes, message, tmp_path):
    state = {**small_state, "backbone.l2_norm.weight": torch.zeros(512), **changes}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    path = tmp_path / "wrong.pth"
    torch.save({"model": state, "iteration": 120_000}, path)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
        load_model(path)


def test_vocs_classes_can_not_be_taken_out_of_vocs_classes(voc_file):
    with pytest.raises(ValueError, match="--voc-classes is only for files of COCO's classes"):
        load_checkpoint(voc_file, voc_classes=True)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_a_part_of_a_file_is_refused(voc_file, part, tmp_path):
    path = tmp_path / "part.pth"
    data = voc_file.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_model(path)


def test_another_network_of_the_same_project_is_told_from_a_checkpoint_of_ours(tmp_path):
    path = tmp_path / "mobilenet_v2_ssd320_voc0712.pth"
    state = {
        "backbone.features.0.0.weight": torch.zeros(32, 3, 3, 3),
        "box_head.predictor.cls_headers.0.conv.0.weight": torch.zeros(96, 1, 3, 3),
    }
    torch.save({"model": state}, path)
    with pytest.raises(ValueError, match="not the network that it looks like"):
        load_model(path)
