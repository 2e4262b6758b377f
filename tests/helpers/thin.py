"""
The scripts with a network that costs a hundredth of SSD300, so that tests can train many times: its
base and its auxiliary convolutions are thin, its predictions, priors, loss and all else are real.

    python tests/helpers/thin.py train.py --data-folder toy ...

FAIL_RANK and FAIL_STEP in the environment make one of several processes fail in a step.
"""

import contextlib
import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from unittest import mock

import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the program

import model

ROOT = Path(__file__).resolve().parents[2]


class ThinBase(nn.Module):
    """Makes feature maps of the shapes that VGGBase makes."""

    def __init__(self):
        super().__init__()
        self.conv4_3 = nn.Conv2d(3, 512, kernel_size=4, stride=8)
        self.conv7 = nn.Conv2d(512, 1024, kernel_size=1, groups=64)

    def forward(self, image):
        conv4_3_feats = F.relu(self.conv4_3(image))  # (N, 512, 38, 38)
        conv7_feats = F.relu(self.conv7(F.max_pool2d(conv4_3_feats, 2)))  # (N, 1024, 19, 19)
        return conv4_3_feats, conv7_feats


class ThinAuxiliaryConvolutions(nn.Module):
    """Makes feature maps of the shapes that AuxiliaryConvolutions makes, each in one step."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(1024, channels, kernel_size=1, groups=64) for channels in (512, 256, 256, 256)
        )

    def forward(self, conv7_feats):
        pooled = (F.adaptive_avg_pool2d(conv7_feats, side) for side in (10, 5, 3, 1))
        return tuple(
            F.relu(conv(feats)) for conv, feats in zip(self.convolutions, pooled, strict=True)
        )


@contextlib.contextmanager
def thin_network():
    """A context in which new networks are thin, and no curves, which cost steps, are drawn."""
    thin = {"VGGBase": ThinBase, "AuxiliaryConvolutions": ThinAuxiliaryConvolutions}
    with mock.patch.multiple(model, **thin), mock.patch("history.draw_curves"):
        yield


def fail_in_step(number):
    """Let this process fail when it is about to compute a loss for that many times."""
    compare = model.MultiBoxLoss.compare
    calls = []

    def fail(self, *args):
        calls.append(1)
        if len(calls) == number:
            raise ValueError("this process fails on purpose")
        return compare(self, *args)

    model.MultiBoxLoss.compare = fail


def run(words):
    """Run a script in this process, as `python word word ...` would."""
    sys.argv = list(words)
    if os.environ.get("RANK", "0") == os.environ.get("FAIL_RANK"):
        fail_in_step(int(os.environ["FAIL_STEP"]))
    with thin_network():
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def run_as_process(words, output, environment):
    """
    The same as the whole of a process, which leads a group of its own.

    :param output: file for all that is printed
    :param environment: {name: value} to set
    """
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the default, not how this one was started
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    status = 0
    try:
        run(words)
    except SystemExit as stop:
        status = stop.code
    if isinstance(status, str):  # an error
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(status or 0)  # the garbage collector would wait ten seconds for each worker


if __name__ == "__main__":
    run(sys.argv[1:])
