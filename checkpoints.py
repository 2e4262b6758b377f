"""Checkpoints: dicts of plain state (tensors, numbers, texts), written whole or not at all, and read without running any code."""

import os
from pathlib import Path

import torch

from model import SSD300

# What a checkpoint has at least: enough to make the model again. Training adds what it needs to go on.
MODEL_KEYS = ("model", "label_map", "priors_cxcy", "input_shift")


def save_checkpoint(path, state):
    """
    Write a checkpoint. It goes to a temporary file first and is renamed when it is on the disk, so that an interruption, a crash
    or a full disk leaves the previous checkpoint as it was.

    :param path: the file to write
    :param state: dict with MODEL_KEYS, and more
    """
    path = Path(path)
    temporary_path = path.with_name(path.name + ".tmp")
    try:
        with open(temporary_path, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary_path, path)
    finally:
        temporary_path.unlink(missing_ok=True)


def model_state(model, label_map):
    """The part of a checkpoint that makes the model again: its weights, and what belongs to them."""
    return {
        "model": model.state_dict(),
        "label_map": label_map,
        "priors_cxcy": model.priors_cxcy,
        "input_shift": model.input_shift,
    }


def load_checkpoint(path, device="cpu"):
    """
    Read a checkpoint that train.py wrote.

    :param path: checkpoint file
    :param device: where its tensors go
    :return: dict
    :raises FileNotFoundError: there is no such file
    :raises ValueError: it is damaged, or no checkpoint of ours
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint: name another with --checkpoint, or train one: python train.py, or in minutes "
            "python train.py --toy, which leaves toy/checkpoint_ssd300.pth.tar"
        )
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file leads to nearly any
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path}: not readable as a checkpoint ({reason}): it is damaged, or was written by another program: use another one"
        ) from error
    missing = [key for key in MODEL_KEYS if not isinstance(state, dict) or key not in state]
    if missing:
        raise ValueError(f"{path}: not a checkpoint of train.py: it has no {', '.join(missing)}: use another one")
    return state


def load_model(path, device="cpu"):
    """
    Make the model of a checkpoint.

    :param path: checkpoint file
    :param device: where the model goes
    :return: SSD300 in eval mode, with its `label_map`
    :raises FileNotFoundError: there is no such file
    :raises ValueError: it is damaged, or no checkpoint of ours
    """
    state = load_checkpoint(path, device)
    model = SSD300(len(state["label_map"]), pretrained=False, priors_cxcy=state["priors_cxcy"], input_shift=state["input_shift"])
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ValueError(
            f"{path}: its weights are not those of an SSD300 for its {len(state['label_map'])} classes: {error}"
        ) from error
    model.label_map = state["label_map"]
    return model.to(device, memory_format=torch.channels_last).eval()
