"""
train.py and eval.py as programs, with a base that costs a fiftieth of VGG-16, so that tests can train many times:

    python tests/thin.py train.py --data-folder toy ...

Everything else is what a user runs. FAIL_RANK and FAIL_STEP in the environment make one of several processes fail in a step.
"""

import os
import runpy
import sys
from pathlib import Path

import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[1]


class ThinBase(nn.Module):
    """Makes feature maps of the shapes that VGGBase makes."""

    def __init__(self):
        super().__init__()
        self.conv4_3 = nn.Conv2d(3, 512, kernel_size=8, stride=8, padding=2)
        self.conv7 = nn.Conv2d(512, 1024, kernel_size=1)

    def forward(self, image):
        conv4_3_feats = F.relu(self.conv4_3(image))  # (N, 512, 38, 38)
        return conv4_3_feats, F.relu(
            self.conv7(F.max_pool2d(conv4_3_feats, 2))
        )  # and (N, 1024, 19, 19)


def run(program):
    """Run one of the scripts in this process, as `python program` would."""
    sys.path.insert(0, str(ROOT))
    import model

    model.VGGBase = ThinBase
    if os.environ.get("RANK", "0") == os.environ.get("FAIL_RANK"):
        components, calls = model.MultiBoxLoss.compare, []

        def fail(self, *args):
            calls.append(1)
            if len(calls) == int(os.environ["FAIL_STEP"]):
                raise ValueError("this process fails on purpose")
            return components(self, *args)

        model.MultiBoxLoss.compare = fail
    runpy.run_path(str(ROOT / program), run_name="__main__")


if __name__ == "__main__":
    program = sys.argv[1]
    sys.argv = sys.argv[1:]
    run(program)
