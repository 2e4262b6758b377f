"""
The known causes of a loss that is not a number: each is impossible, or a clear error; and a long training on hostile data.

A network with a thin base and thin auxiliary convolutions trains here in a fraction of the time; its predictions, the priors, the
loss and train.py are the real ones.
"""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import model
import train
from annotations import MIN_SIDE
from checkpoints import load_checkpoint, load_model
from datasets import MAX_PICTURE_SIDE, PascalVOCDataset
from folders import annotation_xml
from model import SSD300, MultiBoxLoss
from utils import parse_annotation

pytestmark = pytest.mark.usefixtures("one_thread")

LABEL_MAP = {"background": 0, "cat": 1, "dog": 2}
SIZE = 90, 60  # of the pictures, pixels


class ThinAuxiliaryConvolutions(nn.Module):
    """In place of AuxiliaryConvolutions: feature maps of the same shapes from one convolution each."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(1024, channels, kernel_size=1) for channels in (512, 256, 256, 256)
        )

    def forward(self, conv7_feats):
        pooled = (F.adaptive_avg_pool2d(conv7_feats, side) for side in (10, 5, 3, 1))
        return tuple(
            F.relu(conv(feats)) for conv, feats in zip(self.convolutions, pooled, strict=True)
        )


@pytest.fixture
def thin_network(thin_base, monkeypatch):
    """New networks are thin."""
    monkeypatch.setattr(model, "AuxiliaryConvolutions", ThinAuxiliaryConvolutions)


def write_data(folder, entries, size=SIZE, test_entries=()):
    """Pictures of noise, and lists of them with these entries of objects."""
    folder.mkdir(exist_ok=True)
    for split, split_entries in (("TRAIN", entries), ("TEST", test_entries)):
        paths = [folder / f"{split}_{number}.png" for number in range(len(split_entries))]
        for number, path in enumerate(paths):
            pixels = np.random.default_rng(number).integers(
                0, 256, (size[1], size[0], 3), dtype=np.uint8
            )
            Image.fromarray(pixels).save(path)
        (folder / f"{split}_images.json").write_text(json.dumps([str(path) for path in paths]))
        (folder / f"{split}_objects.json").write_text(json.dumps(list(split_entries)))
    (folder / "label_map.json").write_text(json.dumps(LABEL_MAP))
    return folder


def entry(*boxes, labels=None, difficulties=None):
    """An entry of an objects list."""
    return {
        "boxes": [list(box) for box in boxes],
        "labels": [1] * len(boxes) if labels is None else labels,
        "difficulties": [0] * len(boxes) if difficulties is None else difficulties,
    }


GOOD = entry((10, 10, 40, 50), (45, 5, 85, 55), labels=[1, 2])


def run(folder, **changes):
    """Train on these lists."""
    settings = {
        "data_folder": str(folder), "output_folder": str(folder / "out"), "pretrained": False, "workers": 0, "device": "cpu",
        "precision": "float32", "batch_size": 4,
    }  # fmt: skip
    return train.main(train.Parameters(**{**settings, **changes}))


def assert_finite(folder):
    """The last checkpoint can be loaded, and its weights are finite."""
    path = folder / "out/checkpoint_ssd300.pth.tar"
    assert all(weights.isfinite().all() for weights in load_checkpoint(path)["model"].values())
    load_model(path)


def losses_of(dataset, epochs=1):
    """The losses of untrained predictions for all items of a data set."""
    criterion = MultiBoxLoss(SSD300.create_prior_boxes())
    predicted_locs, predicted_scores = torch.zeros(1, 8732, 4), torch.zeros(1, 8732, len(LABEL_MAP))
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        for number in range(len(dataset)):
            _, boxes, labels, _ = dataset[number]
            yield float(criterion(predicted_locs, predicted_scores, [boxes], [labels]))


# ------------------------------------------------------------------------------------------------------------------ boxes


@pytest.mark.parametrize(
    "box",
    [
        (40, 50, 10, 10),
        (40, 10, 10, 50),
        (10, 10, 10, 50),
        (10, 10, 40, 10),
        (10, 10, 10 + 1e-9, 50),
        (0.1, 0.2, 0.4, 0.6),
    ],
    ids=[
        "reversed",
        "x reversed",
        "no width",
        "no height",
        "next to no width",
        "in fractions of the picture",
    ],
)
def test_lists_with_reversed_or_empty_boxes_stop_training_before_it_begins(box, tmp_path):
    folder = write_data(tmp_path, [GOOD, entry((1, 2, 30, 40), box)])
    with pytest.raises(
        ValueError,
        match=r"TRAIN_objects\.json: entry 1 has the box .*edges reversed: make the lists again",
    ):
        run(folder)


@pytest.mark.parametrize(
    ("box", "repair"),
    [
        ((40, 50, 10, 10), "degenerate"), ((10, 10, 10, 50), "degenerate"), ((10, 10, 40, 10), "degenerate"),
        ((100.9999, 10, 120, 50), "outside"), ((10, 80.6, 20, 90), "outside"), ((-5, 10, 0.4, 50), "outside"),
        ((-5, 10, 0.6, 50), "clipped"),
    ],
    ids=str,
)  # fmt: skip
def test_annotations_with_such_boxes_give_lists_without_them(box, repair, tmp_path):
    """Of a picture of 100 x 80 pixels."""
    (tmp_path / "x.xml").write_text(annotation_xml(("car", box)))
    (obj,) = parse_annotation(tmp_path / "x.xml")
    assert obj["repairs"] == [repair]
    assert (obj["box"] is None) == (repair != "clipped")


@pytest.mark.parametrize(
    "size", [(90, 60), (MAX_PICTURE_SIDE, 60), (60, MAX_PICTURE_SIDE)], ids=str
)
def test_no_augmentation_makes_a_box_vanish(size, tmp_path):
    """The thinnest boxes, at edges and in between, in pictures small and as wide or high as can be."""
    width, height = size
    boxes = []
    for x in (0, MIN_SIDE, width / 3, width - 3 * MIN_SIDE, width - MIN_SIDE):
        for y in (0, height / 3, height - MIN_SIDE):
            boxes += [
                (x, y, x + MIN_SIDE, y + MIN_SIDE),
                (x, 0, x + MIN_SIDE, height),
                (0, y, width, y + MIN_SIDE),
            ]
    dataset = PascalVOCDataset(write_data(tmp_path, [entry(*boxes)], size), "TRAIN")
    n_objects = 0
    for epoch in range(40 if size == SIZE else 10):
        dataset.set_epoch(epoch)
        boxes = dataset[0][1]
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        n_objects += len(boxes)
    assert n_objects > 100
    assert all(math.isfinite(loss) for loss in losses_of(dataset))


# ---------------------------------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize("label", [0, 3, -1, 255, 1.5, True, "1"])
def test_labels_that_are_no_class_stop_training_before_it_begins(label, tmp_path):
    folder = write_data(tmp_path, [GOOD, entry((1, 2, 30, 40), labels=[label])])
    with pytest.raises(
        ValueError,
        match=r"TRAIN_objects\.json: entry 1 has the label .* not in label_map\.json: make the lists",
    ):
        run(folder)


# ------------------------------------------------------------------------------------------------------------ no objects


@pytest.mark.parametrize("keep_difficult", [False, True])
def test_batches_without_objects_train_without_harm(keep_difficult, tmp_path, thin_network):
    """Pictures without objects, or with difficult ones only; the mean of the losses of nothing is nothing."""
    empty = entry() if keep_difficult else entry((1, 2, 30, 40), difficulties=[1])
    folder = write_data(tmp_path, [empty] * 4, test_entries=[entry()])
    (row,) = run(folder, iterations=4 / 32, keep_difficult=keep_difficult)
    assert row["loss"] == row["validation_loss"] == 0
    assert_finite(folder)


def test_an_image_without_objects_beside_others_does_no_harm(tmp_path, thin_network):
    folder = write_data(tmp_path, [GOOD, entry(), entry(), GOOD])
    assert math.isfinite(run(folder, iterations=4 / 32)[0]["loss"])
    assert_finite(folder)


# ------------------------------------------------------------------------------------------------------------------ rates


def test_the_papers_batch_and_rate_are_stable_even_without_warm_up(tmp_path, thin_network):
    """32 images a step at 1e-3 is what users report to end in NaN; the loss is a mean over objects, so it does not."""
    folder = write_data(
        tmp_path, [GOOD, entry((0, 0, *SIZE)), entry((3, 4, 5, 7), labels=[2]), entry()] * 8
    )
    (*_, row) = run(folder, batch_size=32, iterations=3, lr=1e-3, warm_up=0.0, decay_at=(2.0,))
    assert math.isfinite(row["loss"])
    assert row["loss"] < 50
    assert_finite(folder)


def test_the_gradient_does_not_grow_with_the_batch():
    """Twice the same images: the same loss, and all gradients together as long."""
    criterion = MultiBoxLoss(SSD300.create_prior_boxes())
    boxes, labels = torch.tensor([[0.1, 0.1, 0.4, 0.6], [0.5, 0.5, 0.9, 0.9]]), torch.tensor([1, 2])
    sums = []
    for n_images in (1, 32):
        predicted = torch.full((1, 8732, 4 + 3), 0.1).repeat(n_images, 1, 1).requires_grad_()
        loss = criterion(
            predicted[..., :4], predicted[..., 4:], [boxes] * n_images, [labels] * n_images
        )
        loss.backward()
        sums.append((float(loss.detach()), float(predicted.grad.abs().sum())))
    assert sums[1] == pytest.approx(sums[0], rel=1e-3)


# ----------------------------------------------------------------------------------------------------------------- stress


def hostile_entries(n_images, rng):
    """Huge, tiny, overlapping and edge-touching objects, many of them or none."""
    width, height = SIZE
    entries = []
    for number in range(n_images):
        x, y = rng.uniform(0, width - 2), rng.uniform(0, height - 2)
        kinds = (
            [(0, 0, width, height)], [(x, y, x + 0.6, y + 0.6)], [(0, 0, 1, 1), (width - 1, height - 1, width, height)],
            [(x / 2, y / 2, x / 2 + 30, y / 2 + 20)] * 12, [(0, y, width, y + 1), (x, 0, x + 1, height)], [],
            [(i, i / 2, i + 20 + rng.uniform(), i / 2 + 20) for i in range(15)],
        )  # fmt: skip
        boxes = [
            tuple(min(edge, limit) for edge, limit in zip(box, SIZE * 2, strict=True))
            for box in kinds[number % len(kinds)]
        ]
        entries.append(entry(*boxes, labels=rng.integers(1, 3, len(boxes)).tolist()))
    return entries


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lr", "grad_clip", "warm_up", "ends"), [(0.02, 5.0, 0.1, True), (30.0, 0.0, 0.0, False)]
)
def test_hostile_data_end_with_finite_weights_or_a_clear_error(
    lr, grad_clip, warm_up, ends, tmp_path, thin_network
):
    """200 steps of 4 images at a rate that is high, and at one much too high."""
    entries = hostile_entries(160, np.random.default_rng(0))
    folder = write_data(tmp_path, entries, test_entries=entries[:7])
    run(folder, iterations=7 / 8, lr=1e-6)  # one epoch, so that there is a checkpoint
    before = load_checkpoint(folder / "out/checkpoint_ssd300.pth.tar")["epoch"]
    changes = {
        "lr": lr, "grad_clip": grad_clip, "warm_up": warm_up, "iterations": 200 / 8, "decay_at": (2.0,),
        "checkpoint": str(folder / "out/checkpoint_ssd300.pth.tar"),
    }  # fmt: skip
    if ends:
        history = run(folder, **changes)
        assert history[-1]["iteration"] == 200
        assert all(math.isfinite(row["loss"]) for row in history)
    else:
        with pytest.raises(train.NonFiniteLossError, match="lower learning rate \\(--lr\\)"):
            run(folder, **changes)
    assert load_checkpoint(folder / "out/checkpoint_ssd300.pth.tar")["epoch"] >= before
    assert_finite(folder)
