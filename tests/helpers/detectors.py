"""Small detectors whose answers are known or quick, and pictures to show them."""

import numpy as np
import torch
from PIL import Image

from checkpoints import model_state, save_checkpoint
from helpers.folders import LABEL_MAP
from helpers.runs import WIDTH
from model import SSD300


class OneCat(SSD300):
    """
    Sees, in every image, a cat in the left upper quarter, and a dog that sticks out of the right
    lower corner.
    """

    def __init__(self):
        super().__init__(3, pretrained=False, width=WIDTH, label_map=LABEL_MAP)
        self.eval()

    def forward(self, image):
        self.seen = image
        locs = torch.zeros(len(image), 8732, 4)
        scores = torch.tensor([9.0, 0, 0]).repeat(len(image), 8732, 1)
        self.priors_cxcy[0] = torch.tensor([0.25, 0.25, 0.5, 0.5])
        scores[:, 0] = torch.tensor([0, 9.0, 0])
        self.priors_cxcy[1] = torch.tensor([1.0, 1.0, 0.5, 0.5])
        scores[:, 1] = torch.tensor([0, 0, 8.0])
        return locs, scores


def save_small_checkpoint(path, label_map=LABEL_MAP):
    """Write a checkpoint of a narrow model that has learned nothing; it knows cats and dogs."""
    torch.manual_seed(0)
    network = SSD300(len(label_map), pretrained=False, width=WIDTH, label_map=label_map)
    save_checkpoint(path, model_state(network, label_map))
    return str(path)


def draw_noise(width=120, height=80, mode="RGB", seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)
