"""Tests for changes that break_code.py made and no other test noticed."""

import contextlib
import io
import os
import pickle
import signal

import pytest
import torch
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, Dataset

import checkpoints
import model
import runtime
import train
from checkpoints import LAST, PREVIOUS, check_output_folder, save_checkpoint
from datasets import create_loader, start_worker
from detect import annotate, draw_box, label_colour, place_labels, total_overlap
from history import Progress, collect_losses
from model import SSD300
from safe_loading import WrongFileError, check_pickle
from train import Parameters


def small(data_folder, output_folder=".", **changes):
    """Parameters for one epoch of three steps on the toy data."""
    settings = {
        "data_folder": str(data_folder),
        "output_folder": str(output_folder),
        "pretrained": False,
        "batch_size": 2,
        "iterations": 0.1875,  # 3 steps of 2 images
        "workers": 0,
        "device": "cpu",
        "precision": "float32",
    }
    return Parameters(**{**settings, **changes})


# ---------------------------------------------------------------------------------- checkpoints.py


def test_a_checkpoint_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    fsync = os.fsync
    replace = os.replace

    def seen_fsync(number):
        events.append(("on the disk", os.fstat(number).st_size))
        fsync(number)

    def seen_replace(*paths):
        events.append("renamed")
        replace(*paths)

    monkeypatch.setattr(checkpoints.os, "fsync", seen_fsync)
    monkeypatch.setattr(checkpoints.os, "replace", seen_replace)
    path = tmp_path / "checkpoint.tar"
    save_checkpoint(path, {"numbers": torch.zeros(10_000)})
    assert events == [("on the disk", path.stat().st_size), "renamed"]


def test_there_is_a_last_checkpoint_at_every_moment(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.tar"
    save_checkpoint(path, {"step": 1})
    kept = []
    replace = os.replace

    def seen_replace(source, target):
        kept.append(sorted(entry.name for entry in tmp_path.iterdir()))
        replace(source, target)

    monkeypatch.setattr(checkpoints.os, "replace", seen_replace)
    save_checkpoint(path, {"step": 2}, keep_previous=True)
    assert kept == [["checkpoint.tar", "checkpoint.tar.tmp", "previous_checkpoint.tar"]]


def test_a_damaged_checkpoint_is_not_overwritten_by_another_run(tmp_path):
    (tmp_path / LAST).write_bytes(b"damaged")
    state = {"run_id": "a run"}
    for changes in ({}, {"toy": True}, {"checkpoint": str(tmp_path / "other" / LAST)}):
        with pytest.raises(ValueError, match=r"\(or damaged\), and would be overwritten"):
            check_output_folder(small("", tmp_path, **changes), state)
    check_output_folder(small("", tmp_path, checkpoint=str(tmp_path / PREVIOUS)), state)
    assert (tmp_path / LAST).exists()


# -------------------------------------------------------------------------------------- runtime.py


@pytest.mark.parametrize(
    ("local_rank", "n_processes", "expected"),
    [
        (0, 1, ["drawn"]),
        (0, 2, ["drawn", "all are here"]),
        (1, 2, ["all are here", "drawn"]),
    ],
)
def test_the_first_process_of_a_machine_goes_first(local_rank, n_processes, expected, monkeypatch):
    events = []
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    monkeypatch.setattr(runtime, "world_size", lambda: n_processes)
    monkeypatch.setattr(runtime.dist, "barrier", lambda: events.append("all are here"))
    with runtime.first_process_first():
        events.append("drawn")
    assert events == expected


# ---------------------------------------------------------------------------------------- train.py


def test_the_first_process_draws_the_toy_data_and_downloads_the_base(
    toy_folder, thin_base, monkeypatch
):
    events = []

    @contextlib.contextmanager
    def seen_first():
        events.append("first")
        yield
        events.append("then the others")

    def seen_model(*args, **kwargs):
        events.append("base")
        return SSD300(args[0], pretrained=False, **kwargs)

    monkeypatch.setattr(train, "first_process_first", seen_first)
    monkeypatch.setattr(train, "create_toy_data", lambda *args, **_: events.append("drawings"))
    monkeypatch.setattr(train, "SSD300", seen_model)
    parameters = small(toy_folder, toy=True, pretrained=True)
    train_set, _ = train.load_data(parameters)
    assert events == ["first", "drawings", "then the others"]
    train.create_model(None, train_set.label_map, parameters)
    assert events[3:] == ["first", "base", "then the others"]


def test_the_seed_decides_the_initial_weights(toy_folder, thin_base):
    def weights(seed):
        model = train.create_model(None, {"background": 0, "a": 1}, small(toy_folder, seed=seed))
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_validation_images_are_those_of_val_lists_where_there_are_some(toy_folder, tmp_path):
    for path in toy_folder.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert train.load_data(small(tmp_path))[1].split == "TEST"
    for name in ("images", "objects"):
        test_list = tmp_path / f"TEST_{name}.json"
        (tmp_path / f"VAL_{name}.json").write_bytes(test_list.read_bytes())
    assert train.load_data(small(tmp_path))[1].split == "VAL"


def test_each_epoch_has_augmentations_of_its_own(toy_folder, tmp_path, thin_base, monkeypatch):
    epochs = []
    monkeypatch.setattr(train.PascalVOCDataset, "set_epoch", lambda self, n: epochs.append(n))
    monkeypatch.setattr(train, "validate", lambda *args: (None, {}))
    train.main(small(toy_folder, tmp_path, iterations=0.375))
    assert epochs == [0, 1]


def test_float16_gradients_are_clipped_to_their_true_norm(toy_folder, thin_base):
    """Not as they are while GradScaler has made them larger: they would hardly move a weight."""
    parameters = small(
        toy_folder, precision="float16", grad_clip=0.5, momentum=0.0, weight_decay=0.0
    )
    train_set, _ = train.load_data(parameters)
    model = train.create_model(None, train_set.label_map, parameters)
    run = train.create_run(model, parameters, {})
    run.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    train.set_learning_rate(run.optimizer, 1.0)
    before = [weight.detach().clone() for weight in model.parameters()]
    image, boxes, labels, _ = train_set[0]
    train.take_step(image.unsqueeze(0), [boxes], [labels], run)
    squares = 0.0
    for (name, weight), old in zip(model.named_parameters(), before, strict=True):
        rate = 2.0 if name.endswith(".bias") else 1.0
        squares += float(((weight.detach() - old) / rate).square().sum())
    assert squares**0.5 == pytest.approx(0.5, rel=1e-2)


# -------------------------------------------------------------------------------------- history.py


def test_losses_are_weighted_by_the_images_of_their_step():
    progress = Progress(step=2, loss_sums=[1.0, 0.5])
    recent = [([4, 1], torch.tensor([1.0, 2.0])), ([0], torch.tensor([4.0, 8.0]))]
    assert collect_losses(recent, progress, []) == {"confidence": 4.0, "localization": 8.0}
    assert progress.loss_sums == [1.0 + 2 * 1.0 + 4.0, 0.5 + 2 * 2.0 + 8.0]
    assert recent == []


# --------------------------------------------------------------------------------------- detect.py


def test_the_best_detection_is_drawn_on_top():
    image = Image.new("RGB", (300, 300))
    label_map = {"background": 0, "cat": 1, "dog": 2}
    best = ("cat", 0.9, (50.0, 50.0, 150.0, 150.0))
    other = ("dog", 0.5, (100.0, 100.0, 200.0, 200.0))
    annotated_image = annotate(image, [best, other], label_map)
    assert annotated_image.getpixel((149, 100)) == label_colour(1, 3)  # where the outlines cross
    assert annotated_image.getpixel((199, 150)) == label_colour(2, 3)


def test_a_label_covers_two_other_boxes_rather_than_its_own():
    own = (
        0,
        0,
        60,
        20,
    )  # in a corner: a label above it would be moved onto it
    others = [(0, 20, 200, 200), (60, 0, 200, 20)] * 2
    boxes = [own, *others]
    labels = place_labels(boxes, [(60, 10)] * len(boxes), (200, 200))
    assert total_overlap(labels[0], [own]) == 0
    assert total_overlap(labels[0], others) == 2 * 600


def test_the_outline_of_a_box_lies_in_it():
    image = Image.new("RGB", (300, 300))
    draw_box(ImageDraw.Draw(image), (50, 60, 100, 120), (255, 0, 0), 2)
    assert image.getbbox() == (50, 60, 100, 120)


# ---------------------------------------------------------------------------------------- model.py


class ConstantBase(torch.nn.Module):
    """Features of float16 that are all the same, as a base under autocast could make them."""

    value = 1.0

    def forward(self, image):
        conv4_3_feats = torch.full((len(image), 512, 38, 38), self.value, dtype=torch.float16)
        return conv4_3_feats, torch.zeros(len(image), 1024, 19, 19, dtype=torch.float16)


@torch.no_grad()
def test_large_float16_features_are_normalised_like_small_ones(monkeypatch):
    """Their squares are too large for float16."""
    monkeypatch.setattr(model, "VGGBase", ConstantBase)
    network = SSD300(2, pretrained=False)
    image = torch.zeros(1, 3, 300, 300)
    with torch.autocast("cpu", dtype=torch.float16):
        small_locs, small_scores = network(image)
        network.base.value = 1000.0
        large_locs, large_scores = network(image)
    torch.testing.assert_close(large_locs, small_locs, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(large_scores, small_scores, rtol=1e-2, atol=1e-2)
    assert small_locs.abs().max() > 0.1


# ------------------------------------------------------------------------------------- datasets.py


class AboutTheWorker(Dataset):
    """Its item says what signals the process that reads it gets."""

    def __len__(self):
        return 1

    def __getitem__(self, i):
        ignores_ctrl_c = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        return ignores_ctrl_c, os.getpgrp() == os.getpid()


def test_a_worker_is_left_alone_by_signals_to_the_program():
    dataset = AboutTheWorker()
    loader = DataLoader(dataset, batch_size=None, num_workers=1, worker_init_fn=start_worker)
    ((ignores_ctrl_c, has_its_own_group),) = loader
    assert ignores_ctrl_c
    assert has_its_own_group
    device = torch.device("cpu")
    assert create_loader(dataset, [[0]], 1, device).worker_init_fn is start_worker


# --------------------------------------------------------------------------------- safe_loading.py


def test_a_pickle_is_refused_before_any_of_it_is_carried_out():
    pickled = io.BytesIO(pickle.dumps(print, protocol=2))
    with pytest.raises(WrongFileError, match=r"it asks for __builtin__\.print, which no file of"):
        check_pickle(pickled)
