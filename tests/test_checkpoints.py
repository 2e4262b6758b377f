"""Checkpoints: written whole, read safely."""

import os
import pickle
import re

import pytest
import torch

import checkpoints
from checkpoints import load_checkpoint, load_model, model_state, save_checkpoint
from model import SSD300

LABEL_MAP = {"background": 0, "cell": 1}


class Hostile:
    """Unpickled, it makes a file: what a hostile checkpoint would do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def model():
    return SSD300(2, pretrained=False, input_shift=torch.full((1, 3, 1, 1), 0.5))


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
    for (name, ours), (other_name, theirs) in zip(
        loaded.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert name == other_name
        assert torch.equal(ours, theirs)


def test_a_checkpoint_is_plain_state(path):
    state = torch.load(path, weights_only=True)
    assert set(state) == {"model", "label_map", "priors_cxcy", "input_shift"}


def test_an_interrupted_write_leaves_the_previous_checkpoint(path, monkeypatch):
    before = path.read_bytes()

    def write_a_part_and_fail(state, file):
        file.write(b"half of a checkpoint")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", write_a_part_and_fail)
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


@pytest.mark.parametrize(
    "content",
    [b"no checkpoint at all", b"PK\x03\x04 nor a zip file", pickle.dumps([1, 2], protocol=2)],
)
def test_another_file_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
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


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_file_is_run(tmp_path, legacy):
    path, made = tmp_path / "hostile.pth", tmp_path / "made by the checkpoint"
    torch.save({"model": Hostile(made)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_checkpoint(path)
    assert not made.exists()
    call, arguments = Hostile(made).__reduce__()
    call(*arguments)
    assert made.exists()  # what would have been noticed
