"""
Checkpoints: dicts of plain state (tensors, numbers, texts) that are written whole or not at all and
read without running anything.
"""

import dataclasses
import os
import shutil
from pathlib import Path

import torch

from history import check_weights_are_finite
from model import SSD300
from published_weights import (
    COCO,
    HOW_TO_GET_A_MODEL,
    check_label_map,
    check_tensor,
    check_weights,
    check_width,
    download_coco,
    to_checkpoint,
)
from runtime import rank, written_whole
from safe_loading import describe_read_errors, read_file

# What train.py writes into its output folder
LAST = "checkpoint_ssd300.pth.tar"  # the last checkpoint
PREVIOUS = "previous_checkpoint_ssd300.pth.tar"  # the one before, in case the last is damaged
BEST = "BEST_checkpoint_ssd300.pth.tar"  # that of the epoch with the highest mAP so far


# --------------------------------------------------------------------------------- write and read


def model_state(model, label_map=None):
    """
    The part of a checkpoint that makes the model again.

    :param model: SSD300
    :param label_map: its classes; by default the model's own
    :return: dict with published_weights.MODEL_KEYS
    """
    return {
        "model": model.state_dict(),
        "label_map": model.label_map if label_map is None else label_map,
        # torch.compile marks buffers with attributes, which are no plain state: detach drops them
        "priors_cxcy": model.priors_cxcy.detach(),
        "input_shift": model.input_shift.detach(),
        "width": model.width,
    }


def save_checkpoint(path, state, keep_previous=False):
    """
    Write a checkpoint. An interruption, a crash or a full disk leaves the earlier checkpoint as it
    was.

    :param path: the file to write; a symbolic link is followed
    :param state: what to write, see model_state
    :param keep_previous: keep the earlier checkpoint of that name beside it, as previous_...
    :raises OSError: it could not be written
    """
    previous_path = Path(path).with_name("previous_" + Path(path).name)
    path = Path(path).resolve()
    try:
        with written_whole(path) as unfinished:
            with open(unfinished, "wb") as file:
                torch.save(state, file)
            if keep_previous and path.exists():
                give_second_name(path, previous_path)
    except (OSError, RuntimeError) as error:  # torch has its own error for a failed write
        if isinstance(error.__context__, KeyboardInterrupt):  # which a second Ctrl-C raised
            raise error.__context__ from None
        raise OSError(
            f"{path}: could not be written ({error}): make room, or name another folder; the "
            "checkpoint before is untouched"
        ) from error


def give_second_name(path, second_path):
    """Let a file be found under a second name, too, in place of what was there."""
    second_path.unlink(missing_ok=True)
    try:
        os.link(path, second_path)
    except OSError:  # on a file system without hard links
        shutil.copyfile(path, second_path)


def load_checkpoint(path, voc_classes=False):
    """
    Read a file of weights: a checkpoint of train.py, or one that others published, which is
    converted.

    :param path: the file, or "coco" for torchvision's detector, which is downloaded once
    :param voc_classes: of COCO's eighty classes keep the twenty of PASCAL VOC
    :return: dict with published_weights.MODEL_KEYS, on the CPU; if train.py wrote it, also with
        what a training run needs to go on
    :raises FileNotFoundError: there is no such file
    :raises WrongFileError: it is damaged, asks for code to be run, or has no weights that are known
        here
    :raises DownloadError: the download failed
    """
    content = download_coco() if str(path) == COCO else read_file(path, HOW_TO_GET_A_MODEL)
    with describe_read_errors(path):
        state = {"width": 1.0, **to_checkpoint(content, voc_classes)}
        state["label_map"] = by_number(state["label_map"])
        check_label_map(state["label_map"])
        check_tensor("the priors", state["priors_cxcy"], SSD300.create_prior_boxes().shape)
        check_tensor("the input shift", state["input_shift"], (1, 3, 1, 1))
        check_width(state["width"])
        check_weights(state["model"], len(state["label_map"]), state["width"])
    return state


def by_number(label_map):
    """A label map in the order of its numbers; what is no label map is returned as it is."""
    if not isinstance(label_map, dict) or not all(type(n) is int for n in label_map.values()):
        return label_map
    return dict(sorted(label_map.items(), key=lambda item: item[1]))


def load_model(path, device="cpu"):
    """
    Make the model of a file of weights.

    :param path: the file, of any kind that load_checkpoint reads, or "coco"
    :param device: where the model goes
    :return: SSD300 in eval mode, with its `label_map`
    :raises FileNotFoundError, WrongFileError, DownloadError: see load_checkpoint
    """
    state = load_checkpoint(path)
    return build_model(state).to(device, memory_format=torch.channels_last).eval()


def build_model(state):
    """
    :param state: a checkpoint
    :return: SSD300 with its weights, classes, priors, input shift and width
    """
    label_map = state["label_map"]
    model = SSD300(
        len(label_map),
        pretrained=False,
        priors_cxcy=state["priors_cxcy"],
        input_shift=state["input_shift"],
        width=state["width"],
        label_map=label_map,
    )
    model.load_state_dict(state["model"])
    return model


# ---------------------------------------------------------------------------------- of a whole run


def training_state(run):
    """
    A whole checkpoint, from which a training run can go on.

    :param run: train.Run
    """
    return {
        **model_state(run.model),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "parameters": dataclasses.asdict(run.parameters),
        "data": run.fingerprints,
        "run_id": run.run_id,
        "versions": run.versions,
        **progress_to_state(run.progress),
    }


def progress_to_state(progress):
    """The fields of a Progress as a checkpoint has them."""
    state = dict(vars(progress))
    state["iteration"] = state.pop("step")  # the name in checkpoints already written
    return state


def save_run(run, is_best=False, keep_previous=True):
    """
    Write the checkpoint; the first of several processes does it.

    :param run: train.Run
    :param keep_previous: keep the one before beside it
    :param is_best: also write the checkpoint of the best epoch. It comes first, so that the last
        checkpoint never speaks of a best one that is missing
    :raises NonFiniteLossError: the weights are not finite
    :raises OSError: it could not be written
    """
    check_weights_are_finite(run.model, run.progress.step)
    if rank() > 0:
        return
    folder = Path(run.parameters.output_folder)
    state = training_state(run)
    if is_best:
        save_checkpoint(folder / BEST, state)
    save_checkpoint(folder / LAST, state, keep_previous)
