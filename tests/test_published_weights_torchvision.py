"""published_weights.py: torchvision's SSD300, and taking a detector over to other classes."""

import re
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models.detection import SSD300_VGG16_Weights, ssd300_vgg16
from torchvision.models.detection.image_list import ImageList

import detect as detect_script
from checkpoints import load_checkpoint, load_model, model_state
from conftest import network_input
from convert_weights import Parameters, main
from downloads import DownloadError
from model import FEATURE_MAPS, SSD300
from published_weights import canonical_name, match_classes, match_numbers
from runtime import read_command_line
from utils import cxcy_to_xy, gcxgcy_to_cxcy, label_map

CATEGORIES = SSD300_VGG16_Weights.COCO_V1.meta["categories"]

USED = [place for place, name in enumerate(CATEGORIES) if name != "N/A"]


@pytest.fixture(scope="module")
def theirs():
    """torchvision's SSD300 with random weights, among them a bias for every class."""
    torch.manual_seed(0)
    model = ssd300_vgg16(weights=None, weights_backbone=None).eval()
    with torch.no_grad():
        for head in model.head.regression_head.module_list:
            head.weight.mul_(
                0.2
            )  # offsets of reasonable size: torchvision limits boxes to 62 times their prior
        for head in model.head.classification_head.module_list:
            head.weight.mul_(0.2)
            head.bias.normal_(0, 0.5)
            # Numbers that no class has are next to impossible in a trained model, and here they are
            # quite so: then it makes no difference that the others share their probability.
            head.bias.view(-1, 91)[:, [place for place in range(91) if place not in USED]] = -1e4
        for layer in model.modules():
            if (
                isinstance(layer, torch.nn.Conv2d)
                and layer.bias is not None
                and not layer.bias.any()
            ):
                layer.bias.normal_(0, 0.1)
        model.backbone.scale_weight.normal_(20, 2)
    return model


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("torchvision") / "ssd300_vgg16_coco.pth"
    torch.save(theirs.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def ours(file):
    return load_model(file)


@pytest.fixture(scope="module")
def images():
    """An image as their input, values from 0 to 1, and as ours; both (1, 3, 300, 300)."""
    pixels = torch.randint(
        0, 256, (300, 300, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    image = pixels.permute(2, 0, 1).unsqueeze(0) / 255
    return image, network_input(pixels.numpy())


@pytest.fixture(scope="module")
def their_predictions(theirs, images):
    """Offsets (1, 8732, 4), scores (1, 8732, 91) and priors xy in pixels (8732, 4)."""
    with torch.no_grad():
        batch, _ = theirs.transform([images[0][0]])
        features = list(theirs.backbone(batch.tensors).values())
        out = theirs.head(features)
        (priors,) = theirs.anchor_generator(ImageList(batch.tensors, [(300, 300)]), features)
    return out["bbox_regression"], out["cls_logits"], priors


@pytest.fixture(scope="module")
def our_predictions(ours, images):
    with torch.no_grad():
        return ours(images[1])


def reorder(values):
    """(8732, ...) in the order 1, extra, 2, 1/2, 3, 1/3 of a tile's priors -> in our order"""
    parts = values.split([38 * 38 * 4, 19 * 19 * 6, 10 * 10 * 6, 5 * 5 * 6, 3 * 3 * 4, 4])
    orders = [(0, 1, 2, 3) if i in (0, 4, 5) else (0, 1, 2, 4, 3, 5) for i in range(6)]
    parts = [
        part.unflatten(0, (-1, len(order)))[:, list(order)].flatten(0, 1)
        for part, order in zip(parts, orders, strict=True)
    ]
    return torch.cat(parts)


def test_scores_and_boxes_are_those_of_torchvision(
    theirs, ours, their_predictions, our_predictions
):
    their_locs, their_scores, their_priors = their_predictions
    locs, scores = our_predictions
    assert scores.std() > 0.3
    torch.testing.assert_close(scores[0], reorder(their_scores[0])[:, USED], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(locs[0], reorder(their_locs[0]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        cxcy_to_xy(ours.priors_cxcy), reorder(their_priors) / 300, rtol=0, atol=1e-6
    )
    boxes = cxcy_to_xy(gcxgcy_to_cxcy(locs[0], ours.priors_cxcy))
    their_boxes = reorder(theirs.box_coder.decode_single(their_locs[0], their_priors)) / 300
    torch.testing.assert_close(boxes, their_boxes, rtol=1e-4, atol=1e-4)


def test_detections_are_those_of_torchvision(theirs, ours, our_predictions, images, monkeypatch):
    min_score = 0.4
    for name, value in {
        "score_thresh": min_score,
        "nms_thresh": 0.45,
        "topk_candidates": 400,
        "detections_per_img": 200,
    }.items():
        monkeypatch.setattr(theirs, name, value)
    # torchvision clips boxes before the suppression, we do not: boxes that stick out would overlap
    # differently
    monkeypatch.setattr(torchvision.ops.boxes, "clip_boxes_to_image", lambda boxes, _: boxes)
    # and it keeps classes apart by moving boxes, which fails where their coordinates are negative,
    # unless there are many
    monkeypatch.setattr(
        torchvision.ops.boxes,
        "_batched_nms_coordinate_trick",
        torchvision.ops.boxes._batched_nms_vanilla,
    )
    with torch.no_grad():
        (expected,) = theirs([images[0][0]])
    boxes, labels, scores = (
        tensors[0] for tensors in ours.detect_objects(*our_predictions, min_score, 0.45, 200)
    )
    assert 10 < len(scores) < 200
    assert len(scores) == len(expected["scores"])
    assert len(set(labels.tolist())) > 1
    names = {number: name for name, number in ours.label_map.items()}
    left = list(
        zip(expected["boxes"] / 300, expected["labels"].tolist(), expected["scores"], strict=True)
    )
    for box, label, score in zip(boxes, labels.tolist(), scores, strict=True):
        (same,) = (
            i
            for i, (other_box, other_label, other_score) in enumerate(left)
            if CATEGORIES[other_label] == names[label]
            and torch.allclose(other_score, score, rtol=0, atol=1e-4)
            and torch.allclose(other_box, box, rtol=1e-3, atol=1e-3)
        )
        left.pop(same)


def test_the_eighty_classes_of_coco_stay(ours):
    names = list(ours.label_map)
    assert (len(names), names[0], names[1], names[12], names[80]) == (
        81,
        "background",
        "person",
        "stop sign",
        "toothbrush",
    )


def test_vocs_classes_are_chosen_by_name(file, their_predictions, images, tmp_path):
    main(Parameters(str(file), str(tmp_path / "voc.pth.tar"), voc_classes=True))
    model = load_model(tmp_path / "voc.pth.tar")
    assert model.label_map == label_map
    with torch.no_grad():
        _, scores = model(images[1])
    # by hand: COCO's numbers of the background and of aeroplane, bicycle, bird ... tvmonitor
    places = [0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72]
    torch.testing.assert_close(
        scores[0], reorder(their_predictions[1][0])[:, places], rtol=1e-4, atol=1e-4
    )


# ------------------------------------------------------------------------------------ other classes


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("aeroplane", "airplane"),
        ("diningtable", "dining table"),
        ("motorbike", "motorcycle"),
        ("pottedplant", "potted plant"),
        ("sofa", "couch"),
        ("tvmonitor", "tv"),
        ("TVmonitor", "TV"),
        ("Person", "person"),
    ],
)
def test_vocs_and_cocos_names_for_a_thing_count_as_one(name, other):
    assert canonical_name(name) == canonical_name(other)
    assert canonical_name(name) != canonical_name("bird")


def test_all_of_vocs_classes_are_among_cocos():
    names = [CATEGORIES[place] for place in USED]
    coco = {"background": 0} | {name: number for number, name in enumerate(names[1:], start=1)}
    numbers = match_numbers(coco, label_map)
    # by hand: the places of aeroplane, bicycle, bird ... tvmonitor in COCO's list
    places = [0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72]
    assert numbers == {number: USED.index(place) for number, place in enumerate(places)}
    assert match_numbers(label_map, coco) == {old: new for new, old in numbers.items()}


def test_an_exact_name_goes_before_another_spelling():
    both = {"background": 0, "couch": 1, "sofa": 2, "Sofa": 3}
    assert match_numbers(both, both) == {0: 0, 1: 1, 2: 2, 3: 3}
    assert match_numbers({"background": 0, "cat": 1}, both) == {0: 0}


@pytest.fixture(scope="module")
def four_classes():
    """A checkpoint of a detector with a number of its own in each bias of each class."""
    names = {"background": 0, "tv": 1, "person": 2, "Sofa": 3, "rat": 4}
    torch.manual_seed(1)
    network = SSD300(5, pretrained=False, label_map=names)
    with torch.no_grad():
        for name in FEATURE_MAPS:
            getattr(network.pred_convs, f"cl_{name}").bias.normal_()
    network.input_shift.fill_(0.5)
    return model_state(network)


def test_the_rows_of_the_same_classes_are_taken_over(four_classes):
    new_map = {"background": 0, "person": 1, "zebra": 2, "tvmonitor": 3, "couch": 4, "ox": 5}
    old_numbers = {0: 0, 1: 2, 3: 1, 4: 3}
    before = {name: tensor.clone() for name, tensor in four_classes["model"].items()}
    torch.manual_seed(7)
    fresh = SSD300(6, pretrained=False).state_dict()
    torch.manual_seed(7)
    weights, taken_over = match_classes(four_classes, new_map)
    assert taken_over == ["person", "tvmonitor", "couch"]
    assert list(weights) == list(fresh)
    heads = set()
    for name, feature_map in FEATURE_MAPS.items():
        for kind in ("weight", "bias"):
            head = f"pred_convs.cl_{name}.{kind}"
            heads.add(head)
            for prior in range(len(feature_map.aspect_ratios) + 1):
                for number in range(6):
                    row = weights[head][prior * 6 + number]
                    if number in old_numbers:
                        expected = before[head][prior * 5 + old_numbers[number]]
                    else:
                        expected = fresh[head][prior * 6 + number]
                    assert torch.equal(row, expected)
                    assert kind == "weight" or number in old_numbers or row == 0
    for name in set(weights) - heads:
        assert torch.equal(weights[name], before[name])
    for name, tensor in before.items():  # which is as it was
        assert torch.equal(four_classes["model"][name], tensor)
    SSD300(6, pretrained=False, label_map=new_map).load_state_dict(weights)


@pytest.mark.parametrize(
    "names", [["tv", "person", "Sofa", "rat"], ["TVmonitor", "PERSON", "couch", "Rat"]]
)
def test_the_same_classes_keep_all_weights(names, four_classes):
    new_map = {"background": 0} | {name: number for number, name in enumerate(names, start=1)}
    weights, taken_over = match_classes(four_classes, new_map)
    assert taken_over == names
    assert list(weights) == list(four_classes["model"])
    for name, tensor in four_classes["model"].items():
        assert torch.equal(weights[name], tensor)


def test_without_a_common_class_only_background_is_taken_over(four_classes):
    weights, taken_over = match_classes(four_classes, {"background": 0, "cell": 1})
    assert taken_over == []
    old = four_classes["model"]["pred_convs.cl_conv7.bias"].view(6, 5)
    new = weights["pred_convs.cl_conv7.bias"].view(6, 2)
    assert torch.equal(new[:, 0], old[:, 0])
    assert not new[:, 1].any()


# --------------------------------------------------------------------------- downloaded, or refused


def test_a_detector_of_other_classes_is_refused(tmp_path):
    state = {
        name: torch.zeros(1).expand(tensor.shape) for name, tensor in ssd300_on_meta(5).items()
    }
    path = tmp_path / "fine-tuned.pth"
    torch.save({**state, "backbone.scale_weight": torch.zeros(512)}, path)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*91 classes"):
        load_checkpoint(path)


def ssd300_on_meta(n_classes):
    """The names and shapes in a state dict of torchvision's SSD300."""
    with torch.device("meta"):
        return ssd300_vgg16(weights=None, weights_backbone=None, num_classes=n_classes).state_dict()


def test_coco_is_downloaded_and_has_its_eighty_classes(theirs, tmp_path, monkeypatch):
    asked = []

    def download(weights, **how):
        asked.append((weights, how))
        return theirs.state_dict()

    monkeypatch.setattr(SSD300_VGG16_Weights, "get_state_dict", download)
    monkeypatch.chdir(tmp_path)
    assert len(load_checkpoint("coco")["label_map"]) == 81
    assert load_checkpoint("coco", voc_classes=True)["label_map"] == label_map
    main(Parameters("coco", "eighty.pth.tar"))
    assert len(torch.load("eighty.pth.tar", weights_only=True)["label_map"]) == 81
    main(Parameters("coco", "twenty.pth.tar", voc_classes=True))
    assert torch.load("twenty.pth.tar", weights_only=True)["label_map"] == label_map
    weights, how = asked[0]
    assert weights is SSD300_VGG16_Weights.COCO_V1
    assert how["weights_only"]
    assert how["check_hash"]


def test_a_failed_download_says_what_to_do(monkeypatch):
    def fail(self, **_):
        raise OSError("no network\nat all")

    monkeypatch.setattr(SSD300_VGG16_Weights, "get_state_dict", fail)
    with pytest.raises(
        DownloadError, match=r"\(no network\): fetch https.*coco.*\.pth .*in place of coco"
    ):
        load_model("coco")


def test_the_command_writes_a_checkpoint_of_ours(file, ours, tmp_path, capsys):
    output = tmp_path / "coco.pth.tar"
    parameters, given = read_command_line(
        Parameters, "Converts", [str(file), str(output)], positional=("source", "output")
    )
    assert given == {"source", "output"}
    assert main(parameters) == output
    assert "80 classes, person, bicycle" in capsys.readouterr().out
    state = torch.load(output, weights_only=True)
    assert set(state) == {"model", "label_map", "priors_cxcy", "input_shift", "width"}
    model = load_model(output)
    assert model.label_map == ours.label_map
    assert torch.equal(model.priors_cxcy, ours.priors_cxcy)
    assert torch.equal(model.input_shift, ours.input_shift)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_detect_takes_the_file_as_it_is(file, tmp_path):
    Image.new("RGB", (60, 40), "red").save(tmp_path / "image.png")
    parameters = detect_script.Parameters(
        images=(str(tmp_path / "image.png"),),
        checkpoint=str(file),
        output_folder=str(tmp_path),
        device="cpu",
    )
    (written,) = detect_script.main(parameters)
    assert Path(written).is_file()
