"""
Files of weights: our own checkpoints, dicts of plain state (tensors, numbers, texts) that are written whole or not at all, and
those that others published, which become like ours when they are read. Nothing in a file is ever run.
"""

import os
from pathlib import Path

import torch

from model import SSD300
from published_weights import (
    COCO,
    HOW_TO_GET_A_MODEL,
    check_label_map,
    check_tensor,
    check_weights,
    download_coco,
    to_checkpoint,
)
from safe_loading import WrongFileError, describe_read_errors, read_file

# ------------------------------------------------------------------------------------------------------------- our own


def save_checkpoint(path, state, keep_previous=False):
    """
    Write a checkpoint. It goes to a temporary file first and is renamed when it is on the disk, so that an interruption, a crash
    or a full disk leaves the earlier checkpoint as it was.

    :param path: the file to write
    :param state: dict with MODEL_KEYS, and more
    :param keep_previous: keep the earlier checkpoint of that name beside it, as previous_...
    :raises OSError: it can not be written
    """
    path = Path(path)
    temporary_path, previous_path = (
        path.with_name(path.name + ".tmp"),
        path.with_name("previous_" + path.name),
    )
    try:
        with open(temporary_path, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and path.exists():
            previous_path.unlink(missing_ok=True)
            try:
                os.link(
                    path, previous_path
                )  # a second name for the same file, so that at no moment there is none
            except OSError:  # on a file system without such names
                os.replace(path, previous_path)
        os.replace(temporary_path, path)
    except (
        OSError,
        RuntimeError,
    ) as error:  # torch has a RuntimeError of its own for a file that can not be written
        remedy = "make room, or name another folder; the checkpoint before is as it was"
        raise OSError(f"{path}: can not be written ({error}): {remedy}") from error
    finally:
        temporary_path.unlink(missing_ok=True)


def newest_checkpoint(folder):
    """
    The training in a folder that got furthest, of the checkpoints that can be read.

    :param folder: where train.py writes them
    :return: the path and the checkpoint, see load_checkpoint; None twice if there is none
    :raises WrongFileError: there are some, and none can be read
    """
    newest, faults = (None, None), []
    for path in sorted(Path(folder).glob("*checkpoint_ssd300.pth.tar")):
        try:
            state = load_checkpoint(path)
        except (OSError, WrongFileError) as error:
            faults.append(str(error))
            print(f"Passed over: {error}")
            continue
        if newest[0] is None or _progress(state) > _progress(newest[1]):
            newest = path, state
    if faults and newest[0] is None:
        raise WrongFileError(f"{folder}: none of its checkpoints can be read: " + "; ".join(faults))
    return newest


def _progress(state):
    """How far a training got: epochs, and images of the next one."""
    return state.get("epoch", 0), state.get("n_images", 0)


def model_state(model, label_map):
    """The part of a checkpoint that makes the model again: its weights, and what belongs to them."""
    return {
        "model": model.state_dict(),
        "label_map": label_map,
        "priors_cxcy": model.priors_cxcy,
        "input_shift": model.input_shift,
    }


# ------------------------------------------------------------------------------------------------------------ any of them


def load_checkpoint(path, voc_classes=None):
    """
    Read a file of weights: a checkpoint of train.py, or one of those that others published, which is converted.

    :param path: the file, or "coco" for torchvision's, which is downloaded once
    :param voc_classes: keep the twenty classes of PASCAL VOC of COCO's eighty; by default for "coco", but not for a file
    :return: dict with MODEL_KEYS, on the CPU; if train.py wrote it, also with what training needs to go on
    :raises FileNotFoundError: there is no such file
    :raises WrongFileError: it is damaged, asks for code to be run, or has no weights that are known here
    :raises DownloadError: the download failed
    """
    if str(path) == COCO:
        content, voc_classes = download_coco(), voc_classes in (True, None)
    else:
        content = read_file(path, HOW_TO_GET_A_MODEL)
    with describe_read_errors(path):
        state = to_checkpoint(content, bool(voc_classes))
        check_label_map(state["label_map"])
        check_tensor("the priors", state["priors_cxcy"], SSD300.create_prior_boxes().shape)
        check_tensor("the shift of the input", state["input_shift"], (1, 3, 1, 1))
        check_weights(state["model"], len(state["label_map"]))
    return state


def load_model(path, device="cpu"):
    """
    Make the model of a file of weights.

    :param path: the file, of any kind that load_checkpoint reads, or "coco"
    :param device: where the model goes
    :return: SSD300 in eval mode, with its `label_map`
    :raises FileNotFoundError: there is no such file
    :raises WrongFileError: it is damaged, asks for code to be run, or has no weights that are known here
    :raises DownloadError: the download failed
    """
    state = load_checkpoint(path)
    model = SSD300(
        len(state["label_map"]),
        pretrained=False,
        priors_cxcy=state["priors_cxcy"],
        input_shift=state["input_shift"],
    )
    model.load_state_dict(state["model"])
    model.label_map = state["label_map"]
    return model.to(device, memory_format=torch.channels_last).eval()
