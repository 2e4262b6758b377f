"""checkpoints.py: written whole and read safely."""

import dataclasses
import math
import os
import re
from pathlib import Path

import pytest
import torch

import train
from checkpoints import (
    BEST,
    LAST,
    PREVIOUS,
    load_checkpoint,
    load_model,
    model_state,
    save_checkpoint,
)
from helpers.runs import (
    WIDTH,
    copy_of,
    settings,
    stop_before_the_first_step,
)
from model import SSD300
from safe_loading import WrongFileError
from train import main

pytestmark = pytest.mark.usefixtures("no_curves", "one_thread")

LABEL_MAP = {"background": 0, "cell": 1}


@pytest.fixture(scope="module")
def model():
    shift = torch.full((1, 3, 1, 1), 0.5)
    return SSD300(2, pretrained=False, input_shift=shift, width=WIDTH)


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "checkpoint.pth.tar"
    save_checkpoint(path, model_state(model, LABEL_MAP))
    return path


def test_a_model_comes_back_with_all_that_belongs_to_it(model, path):
    loaded = load_model(path)
    assert not loaded.training
    assert loaded.label_map == LABEL_MAP
    assert torch.equal(loaded.priors_cxcy, model.priors_cxcy)
    assert torch.equal(loaded.input_shift, model.input_shift)
    assert loaded.width == model.width == WIDTH
    for (name, ours), (other_name, theirs) in zip(
        loaded.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert name == other_name
        assert torch.equal(ours, theirs)


def test_a_checkpoint_is_plain_state(path):
    state = torch.load(path, weights_only=True)
    assert set(state) == {"model", "label_map", "priors_cxcy", "input_shift", "width"}


def test_an_interrupted_write_leaves_the_previous_checkpoint(path, monkeypatch):
    before = path.read_bytes()

    def write_a_part_and_fail(state, file):
        file.write(b"half of a checkpoint")
        raise OSError("No space left on device")

    monkeypatch.setattr("torch.save", write_a_part_and_fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {})
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_missing_checkpoint_says_how_to_get_one(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=re.escape(str(tmp_path / "none.tar")) + r".*train\.py --toy"
    ):
        load_model(tmp_path / "none.tar")


@pytest.mark.parametrize("length", [0, 1, 1000, -1000])
def test_a_truncated_checkpoint_is_named(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*damaged"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_program_says_what_is_missing(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"model": {}, "label_map": LABEL_MAP}, path)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*priors_cxcy"):
        load_checkpoint(path)


def test_weights_of_another_shape_are_named(path, model):
    save_checkpoint(path, model_state(model, {**LABEL_MAP, "another": 2}))
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*3 classes"):
        load_model(path)


def test_a_sorted_label_map_is_put_in_the_order_of_its_numbers(model, tmp_path):
    """As an editor that sorts keys leaves label_map.json, and older versions took it from there."""
    label_map = {"Background": 1, "background": 0}
    save_checkpoint(tmp_path / "sorted.tar", model_state(model, label_map))
    assert list(load_model(tmp_path / "sorted.tar").label_map) == ["background", "Background"]


def test_a_checkpoint_without_a_width_is_of_the_full_network(model, tmp_path):
    """As all are that were written before there was a width."""
    for name, network in (("full", SSD300(2, pretrained=False)), ("narrow", model)):
        state = model_state(network)
        del state["width"]
        save_checkpoint(tmp_path / name, state)
    assert load_checkpoint(tmp_path / "full")["width"] == load_model(tmp_path / "full").width == 1
    with pytest.raises(WrongFileError, match=r"narrow: its weights .*expected \(1, 512, 1, 1\)"):
        load_checkpoint(tmp_path / "narrow")


@pytest.mark.parametrize(
    "width",
    [0, -0.5, math.nan, math.inf, 1e9, 2**40, "wide", True, None, [0.25], torch.tensor(0.25)],
    ids=lambda width: str(width)[:20],
)
def test_a_wrong_width_in_a_file_is_named(model, tmp_path, width):
    save_checkpoint(tmp_path / "wrong.tar", {**model_state(model), "width": width})
    with pytest.raises(WrongFileError, match=r"wrong\.tar: its width is .*, not a number up to 4"):
        load_model(tmp_path / "wrong.tar")


def test_a_width_that_is_not_that_of_the_weights_is_named(model, tmp_path):
    save_checkpoint(tmp_path / "wrong.tar", {**model_state(model), "width": 2 * WIDTH})
    with pytest.raises(WrongFileError, match=r"wrong\.tar: its weights are not those"):
        load_model(tmp_path / "wrong.tar")


def test_tensors_that_torch_compile_marked_are_read_and_not_written(model, tmp_path):
    model.priors_cxcy._dynamo_static_input_type = "guarded"
    try:
        state = model_state(model, LABEL_MAP)
        save_checkpoint(tmp_path / "ours.tar", state)
        older = {**state, "priors_cxcy": model.priors_cxcy}
        save_checkpoint(tmp_path / "older.tar", older)
    finally:
        del model.priors_cxcy._dynamo_static_input_type
    assert b"_rebuild_from_type_v2" not in (tmp_path / "ours.tar").read_bytes()
    assert b"_rebuild_from_type_v2" in (tmp_path / "older.tar").read_bytes()
    assert torch.equal(load_model(tmp_path / "older.tar").priors_cxcy, model.priors_cxcy)


# ------------------------------------------------------------------------------ one after another


def test_the_checkpoint_before_is_kept(toy_folder, tmp_path, whole):
    last, previous = load_checkpoint(whole / LAST), load_checkpoint(whole / PREVIOUS)
    assert (last["epoch"], last["n_images"]) == (2, 0)
    assert (previous["epoch"], previous["n_images"]) == (1, 6)
    assert list(whole.glob("unfinished_*")) == []


def test_without_hard_links_the_checkpoint_before_is_renamed(tmp_path, monkeypatch):
    def link(*paths):
        raise OSError("no hard links here")

    monkeypatch.setattr("os.link", link)
    for content in (1, 2, 3):
        save_checkpoint(tmp_path / LAST, {"a": content}, keep_previous=True)
    assert torch.load(tmp_path / LAST, weights_only=True) == {"a": 3}
    assert torch.load(tmp_path / PREVIOUS, weights_only=True) == {"a": 2}


def test_what_a_run_saves_is_plain_state_for_torch_and_for_us(whole):
    for name in (LAST, PREVIOUS, BEST):
        assert torch.load(whole / name, weights_only=True)["versions"]["torch"]
        assert load_checkpoint(whole / name)["versions"]["torch"]


# ----------------------------------------------------------------------------------------- the disk


@pytest.fixture
def small_disk():
    """A function that sets the size that a file can have from then on."""
    resource = pytest.importorskip("resource")  # not on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_with_an_error_and_keeps_the_checkpoint(
    toy_folder, tmp_path, whole, small_disk
):
    folder = copy_of(whole, tmp_path / "copy")
    before = (folder / LAST).read_bytes()
    small_disk(len(before) // 2)
    with pytest.raises(OSError, match=r"copy/checkpoint.*could not be written .*make room"):
        main(settings(toy_folder, folder, checkpoint="auto", iterations=0.75))
    assert (folder / LAST).read_bytes() == before
    assert list(folder.glob("unfinished_*")) == []


def test_a_full_disk_stops_a_new_run_before_its_first_step(toy_folder, tmp_path, monkeypatch):
    def save(state, file):
        raise OSError("No space left on device")

    monkeypatch.setattr("torch.save", save)
    stop_before_the_first_step(monkeypatch)
    with pytest.raises(OSError, match=r"could not be written \(No space.*make room"):
        main(settings(toy_folder, tmp_path))


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(),
    reason="needs a folder that nobody can write in, as Linux's /proc",
)
def test_a_folder_that_cannot_be_written_in_stops_before_the_first_step(toy_folder):
    for folder in ("/proc/training", "/proc/self"):
        with pytest.raises(OSError, match=r"/proc/.* could not be .*another .*folder"):
            main(settings(toy_folder, folder))


def test_all_of_the_progress_is_in_a_checkpoint(whole):
    state = load_checkpoint(whole / LAST)
    assert {item.name for item in dataclasses.fields(train.Progress)} - {"step"} <= set(state)


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

    monkeypatch.setattr("os.fsync", seen_fsync)
    monkeypatch.setattr("os.replace", seen_replace)
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

    monkeypatch.setattr("os.replace", seen_replace)
    save_checkpoint(path, {"step": 2}, keep_previous=True)
    assert kept == [["checkpoint.tar", "previous_checkpoint.tar", "unfinished_checkpoint.tar"]]
