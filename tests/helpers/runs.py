"""Training runs of a few steps, and the width of their networks."""

import json

import torch

import train
from checkpoints import BEST, LAST
from train import Parameters

# A network for tests of everything around it: its layers have 2 to 32 channels, so that a step
# costs a hundredth. Its predictions, priors and loss are as large as ever
WIDTH = 1 / 32


def settings(toy_folder, output_folder, **changes):
    """Parameters for two epochs of three steps of two images on the toy data."""
    fixed = {
        "data_folder": str(toy_folder),
        "output_folder": str(output_folder),
        "pretrained": False,
        "width": WIDTH,
        "device": "cpu",
    }
    schedule = {
        "batch_size": 2,
        "iterations": 0.375,
        "lr": 1e-4,
        "warm_up": 0.5,
        "decay_at": (0.7,),
        "precision": "float32",
    }
    return Parameters(**{**fixed, **schedule, "workers": 0, **changes})


def small(toy_folder, output_folder=".", **changes):
    """Parameters for one epoch of three steps on the toy data, all at the same rate."""
    schedule = {"iterations": 0.1875, "lr": 1e-3, "warm_up": 0.0, "decay_at": (1.0,)}
    return settings(toy_folder, output_folder, **{**schedule, **changes})


def read_history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def assert_same_training(folder, other):
    """The last and the best checkpoints of two runs are equal to the bit, times and paths aside."""
    for name in (LAST, BEST):
        assert_same_checkpoint(folder / name, other / name)


def assert_same_checkpoint(path, other):
    """The same for two checkpoints."""
    ours, theirs = (torch.load(file, weights_only=True) for file in (path, other))
    assert ours.keys() == theirs.keys()
    for state in (ours, theirs):
        del state["run_id"], state["versions"]
        for row in state["history"]:
            del row["images_per_second"]
        for parameter in ("output_folder", "checkpoint", "checkpoint_every", "workers"):
            del state["parameters"][parameter]
    assert_equal(ours, theirs)


def assert_equal(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_equal(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs, strict=True):
            assert_equal(our, their)
    else:
        assert ours == theirs or (ours != ours and theirs != theirs)


class PullPlugError(BaseException):
    """Stands for the end of a process in the tests that stay in one."""


def stop_before_the_first_step(monkeypatch):
    """Let a run be killed when it is about to train."""

    def end(*args):
        raise PullPlugError

    monkeypatch.setattr(train, "train_one_epoch", end)


def copy_of(folder, target, pattern="*"):
    target.mkdir()
    for path in folder.glob(pattern):
        (target / path.name).write_bytes(path.read_bytes())
    return target
