"""Train an SSD300: on PASCAL VOC as the paper did, on any data in VOC layout, or with --toy on a small drawn data set."""

import contextlib
import dataclasses
import importlib.util
import json
import math
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from checkpoints import load_checkpoint, model_state, newest_checkpoint, save_checkpoint
from datasets import PascalVOCDataset, ShuffledBatches, create_loader, ordered_batches
from detect import draw_sheet
from downloads import DownloadError
from eval import evaluate, print_average_precisions
from model import SSD300, MultiBoxLoss
from published_weights import load_base_weights
from runtime import (
    InterruptedTrainingError,
    Interruption,
    autocast,
    choose_device,
    choose_precision,
    describe_error,
    first_process_first,
    process_group,
    rank,
    read_command_line,
    world_size,
)
from safe_loading import WrongFileError
from toy_data import TOY_CLASSES, TOY_IMAGES, create_toy_data
from utils import IMAGE_SIZE


@dataclass
class Parameters:
    """What can be set, here or on the command line; it is stored in the checkpoint."""

    data_folder: str = "data"  # folder with the lists that create_data_lists.py wrote
    keep_difficult: bool = True  # learn from objects marked difficult, too
    output_folder: str = "."  # where checkpoints, history.jsonl and history.png go
    checkpoint: str = ""  # go on from a file, or auto, the newest in the output folder; or start from others' weights or coco
    pretrained: bool = (
        True  # start the base from torchvision's ImageNet weights (528 MB, downloaded once)
    )
    base_weights: str = ""  # start the base from this file instead, vgg16_reducedfc.pth: Caffe's VGG-16, as the paper did

    # The schedule of the authors' script for VOC 07+12 (paper, section 3.6). An iteration is a step on 32 images: with another
    # batch size there are as many more or fewer steps, so that the epochs stay: the rate falls in the 155th and 194th of 232.
    batch_size: int = 32  # images a step, of all GPUs together
    micro_batch_size: int = 0  # most images in a GPU's memory: larger batches go in parts, with the same result; 0: all at once
    iterations: int = 120_000  # length of the training in steps of 32 images
    lr: float = 1e-3  # learning rate, for weights; biases have twice as much
    decay_at: tuple = (2 / 3, 5 / 6)  # parts of the training after which the rate falls to a tenth
    # DEVIATION(warm-up): the authors had none; from random layers, the full rate at once can make the loss explode.
    warm_up: float = (
        1 / 240
    )  # part of the training during which the rate rises from zero (500 of 120,000 iterations)
    momentum: float = 0.9  # of stochastic gradient descent
    weight_decay: float = 5e-4  # for weights; biases have none
    grad_clip: float = (
        0.0  # longest gradient of all parameters together, longer ones are shortened; 0: none is
    )

    checkpoint_every: int = 500  # steps after which a checkpoint is written, beside the one after each epoch; 0: only that
    workers: int = 4  # processes, for each GPU, that read and prepare images, and as many to validate; 0: this one does it
    device: str = "auto"  # cuda, cpu, or auto for a GPU if there is one
    precision: str = "auto"  # of the convolutions: float32, bfloat16, float16; auto: the fastest the hardware is made for
    compile: bool = False  # translate the network with torch.compile first, which takes minutes and needs a C++ compiler
    seed: int = 0  # decides the initial weights, the order of the images and their augmentations

    toy: bool = False  # draw a small data set into the folder toy and train on it from scratch, with the settings of TOY below
    toy_classes: int = TOY_CLASSES  # how many of the twenty classes the toy data have
    toy_images: int = TOY_IMAGES  # training images in the toy data


# What --toy changes of the above, edited or not, unless it is given on the command line: minutes on a processor with two cores
# instead of a day on a GPU.
TOY = {
    "data_folder": "toy",
    "output_folder": "toy",
    "pretrained": False,
    "batch_size": 4,
    "iterations": 120,  # 960 steps of 4 images
    "lr": 5e-3,  # high, as clipping shortens most gradients
    "warm_up": 0.1,
    "decay_at": (0.8, 0.95),
    "grad_clip": 5.0,
    "workers": 1,
}
# What may differ between a checkpoint and the training that goes on from it: where things are and what computes.
FREE_TO_DIFFER = {
    "data_folder", "output_folder", "checkpoint", "checkpoint_every", "pretrained", "base_weights", "workers", "device",
    "precision", "compile", "micro_batch_size", "toy",
}  # fmt: skip


class NonFiniteLossError(RuntimeError):
    """The loss is infinite or not a number; the message says where."""


@dataclass
class Progress:
    """How far a training is. All of it is in the checkpoint."""

    epoch: int = 0  # epochs finished
    iteration: int = 0  # optimizer steps taken
    n_images: int = 0  # images that the next epoch has trained on already
    loss_sums: torch.Tensor = field(
        default_factory=lambda: torch.zeros(2).double()
    )  # over these: confidence, localization
    best_mAP: float = -1.0
    history: list = field(default_factory=list)  # a dict an epoch


class Training(NamedTuple):
    """What takes part in a step."""

    model: SSD300
    network: nn.Module  # the model; with several processes, DistributedDataParallel around it
    criterion: MultiBoxLoss
    optimizer: torch.optim.SGD
    scaler: (
        torch.amp.GradScaler
    )  # keeps the gradients of float16 from vanishing; idle with other precisions
    parameters: Parameters
    fingerprints: dict  # of the lists, by split


# -------------------------------------------------------------------------------------------------------------- schedule


def n_steps(parameters):
    """The number of optimizer steps of the whole training: the iterations, scaled to the batch size."""
    return max(1, round(parameters.iterations * 32 / parameters.batch_size))


def learning_rate(step, parameters):
    """
    The learning rate of a step, from 0: a linear rise during the warm-up, then `lr`, and a tenth of it after each decay.

    :param step: optimizer steps taken so far
    :param parameters: Parameters
    """
    total = n_steps(parameters)
    warm_up = round(parameters.warm_up * total)
    rate = parameters.lr * 0.1 ** sum(step >= round(part * total) for part in parameters.decay_at)
    return rate * min(1.0, (step + 1) / (warm_up + 1))


def create_optimizer(model, parameters):
    """
    Stochastic gradient descent with two groups of parameters: biases have twice the learning rate and no weight decay, as in the
    authors' solver.
    """
    biases = [parameter for name, parameter in model.named_parameters() if name.endswith(".bias")]
    others = [
        parameter for name, parameter in model.named_parameters() if not name.endswith(".bias")
    ]
    groups = [
        {"params": biases, "lr_factor": 2.0, "weight_decay": 0.0},
        {"params": others, "lr_factor": 1.0, "weight_decay": parameters.weight_decay},
    ]
    return torch.optim.SGD(groups, lr=parameters.lr, momentum=parameters.momentum)


# ------------------------------------------------------------------------------------------------------ going on, or not


def check_parameters(parameters):
    """
    :raises ValueError: a parameter has no sensible value
    """
    for name in ("batch_size", "iterations", "lr"):
        if not getattr(parameters, name) > 0:
            raise ValueError(
                f"parameters: {name}: expected more than 0, got {getattr(parameters, name)}"
            )
    at_least_0 = (
        "warm_up",
        "momentum",
        "weight_decay",
        "grad_clip",
        "workers",
        "seed",
        "micro_batch_size",
        "checkpoint_every",
    )
    for name in at_least_0:
        if not getattr(parameters, name) >= 0:
            raise ValueError(
                f"parameters: {name}: expected 0 or more, got {getattr(parameters, name)}"
            )


def check_resumable(state, parameters, given, label_map, fingerprints):
    """
    A training that goes on should be the same training, but for what was changed on purpose. One that starts from other people's
    weights, or from a detector that was converted, needs the same classes only.

    :param state: the checkpoint
    :param parameters: Parameters of this run
    :param given: names of the parameters that were given explicitly
    :param label_map: the classes of the lists
    :param fingerprints: of the lists, by split
    :raises ValueError: the checkpoint knows other classes, or had other data or parameters
    """
    if state["label_map"] != label_map:
        raise ValueError(
            f"{parameters.checkpoint} was trained on the classes {list(state['label_map'])[1:]}, but the lists in "
            f"{parameters.data_folder} have {list(label_map)[1:]}: give the folder it was trained on (--data-folder)"
        )
    for split, fingerprint in fingerprints.items():
        if state.get("data", {}).get(split, fingerprint) != fingerprint:
            raise ValueError(
                f"{parameters.checkpoint} was trained with other lists than those in {parameters.data_folder}: the images or "
                f"objects of {split} differ. Give the folder with its lists (--data-folder); or, to train its weights on "
                "other data, copy them with convert_weights.py and start from the copy"
            )
    current = dataclasses.asdict(parameters)
    differing = {
        name: old
        for name, old in state.get("parameters", {}).items()
        if name in current and name not in FREE_TO_DIFFER | set(given) and current[name] != old
    }
    if differing:
        rows = [f"{name} was {old}, now {current[name]}" for name, old in differing.items()]
        raise ValueError(
            f"{parameters.checkpoint}: was trained with other parameters: {'; '.join(rows)}. Give each on the command line, with "
            "the old value to go on as before or with a new one to change it: "
            + " ".join(map(_as_option, differing.items()))
        )


def _as_option(item):
    """("keep_difficult", False) -> "--no-keep-difficult"; ("lr", 0.001) -> "--lr 0.001" """
    name, value = item[0].replace("_", "-"), item[1]
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} " + shlex.join(map(str, value if isinstance(value, tuple) else [value]))


# -------------------------------------------------------------------------------------------------------------- training


def train_epoch(train_loader, training, progress, interruption, output_folder):
    """
    Train on what is left of an epoch, or up to the end of the training, and write a checkpoint at its end and every now and then.

    :param train_loader: DataLoader over a PascalVOCDataset of the TRAIN split, with ShuffledBatches
    :param training: Training
    :param progress: Progress, which is kept up to date
    :param interruption: Interruption
    :param output_folder: where the checkpoints go
    :return: images a second
    :raises NonFiniteLossError: the loss of a step is not finite; noticed, on a GPU, when the next step is under way
    :raises InterruptedTrainingError: the training was asked to stop; the checkpoint is written
    """
    parameters, dataset = training.parameters, train_loader.dataset
    training.model.train()
    n_left = max(0, min(len(train_loader), n_steps(parameters) - progress.iteration))
    n_before, start = progress.n_images, time.perf_counter()
    # To read a step's losses is to wait until a GPU has computed them: it gets its next step first.
    reports, n_late = deque(), 0 if progress.loss_sums.device.type == "cpu" else 1
    with tqdm(
        train_loader, total=n_left, unit="step", dynamic_ncols=True, disable=rank() > 0
    ) as bar:
        for batch, (images, boxes, labels, _) in zip(
            train_loader.batch_sampler.batches()[:n_left], bar, strict=False
        ):
            losses, stop = take_step(
                images, boxes, labels, training, progress.iteration, interruption.number
            )
            progress.iteration += 1
            progress.n_images += len(batch)
            progress.loss_sums += losses * len(batch)
            reports.append(Report(losses, stop, progress.iteration, batch))
            stop = 0
            if len(reports) > n_late:
                losses, stop = reports.popleft().read(dataset)
                bar.set_postfix(losses)
            is_due = (
                parameters.checkpoint_every > 0
                and progress.iteration % parameters.checkpoint_every == 0
            )
            if is_due or stop:
                for report in reports:
                    report.read(dataset)
                save_progress(training, progress, output_folder)
            if stop:
                raise InterruptedTrainingError(
                    interruption.number or signal.SIGTERM
                )  # where another process has noticed it
    for report in reports:
        report.read(dataset)
    save_progress(training, progress, output_folder)
    return (progress.n_images - n_before) / (time.perf_counter() - start)


def take_step(images, boxes, labels, training, step, stop):
    """
    One step of the optimizer.

    :param images: (N, 3, 300, 300) this process's share of the batch; N may be 0
    :param boxes, labels: lists of N tensors
    :param training: Training
    :param step: steps taken before
    :param stop: a number other than 0 if this process was asked to stop
    :return: the batch's confidence and localization loss, (2,), and the sum of `stop` over all processes, both on the device
    """
    model, network, criterion, optimizer, scaler, parameters, _ = training
    device = model.priors_cxcy.device
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, parameters) * group["lr_factor"]
    if (
        len(images) == 0
    ):  # no share of this batch, but the others wait: a picture without objects has a loss of 0
        images, boxes = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE), [torch.zeros(0, 4)]
        labels = [torch.zeros(0, dtype=torch.int64)]
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    true_classes, true_locs = criterion.match(boxes, labels)
    n_positives = (true_classes > 0).sum()
    if world_size() > 1:
        dist.all_reduce(n_positives)

    optimizer.zero_grad()
    report = torch.zeros(
        3, dtype=torch.float64, device=device
    )  # confidence and localization loss, and whether to stop
    report[2].fill_(stop)
    n_at_once = parameters.micro_batch_size or len(images)
    for first in range(0, len(images), n_at_once):
        part = slice(first, first + n_at_once)
        is_last = part.stop >= len(images)
        # The processes add up their gradients once, after the last part
        with contextlib.nullcontext() if is_last or network is model else network.no_sync():
            with autocast(device, parameters.precision):
                predicted_locs, predicted_scores = network(
                    images[part]
                )  # (n, 8732, 4), (n, 8732, n_classes)
            losses = criterion.compare(
                predicted_locs, predicted_scores, true_classes[part], true_locs[part], n_positives
            )
            # DistributedDataParallel takes the mean of the processes' gradients; that of the batch is their sum
            scaler.scale(criterion.total(losses) * world_size()).backward()
        report[:2] += torch.stack([losses["confidence"], losses["localization"]]).detach()
    if parameters.grad_clip > 0:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), parameters.grad_clip)
    scaler.step(optimizer)
    scaler.update()
    if world_size() > 1:
        dist.all_reduce(report)
    return report[:2], report[2]


class Report:
    """The losses of a step, on their way from the device."""

    def __init__(self, losses, stop, iteration, batch):
        """
        :param losses: (2,) confidence and localization loss, on the device
        :param stop: scalar on the device, see take_step
        :param iteration: number of the step, from 1
        :param batch: indices of its images
        """
        self.iteration, self.batch = iteration, batch
        self.values = torch.cat([losses, stop.view(1)]).to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event() if losses.is_cuda else None
        if self.arrived:
            self.arrived.record()

    def read(self, dataset):
        """
        Wait until the losses are there, no longer.

        :param dataset: names the images
        :return: {"confidence", "localization"} as numbers, and the number other than 0 if a process was asked to stop
        :raises NonFiniteLossError: one of them is not finite; names the images of the batch
        """
        if self.arrived:
            self.arrived.synchronize()
        confidence, localization, stop = self.values.tolist()
        losses = {"confidence": confidence, "localization": localization}
        if not all(math.isfinite(value) for value in losses.values()):
            paths = [dataset.images[i] for i in self.batch]
            raise NonFiniteLossError(
                f"the loss is not finite in iteration {self.iteration}: {losses}. The last checkpoint is as it was. Look at "
                "these images and their boxes, or go on from the checkpoint with a lower learning rate (--lr) or with gradient "
                "clipping (--grad-clip 5):\n" + "\n".join(paths)
            )
        return losses, stop


def check_weights(model, step):
    """
    A loss can be finite and its gradient not: such weights must not replace those of the last checkpoint.

    :raises NonFiniteLossError: a weight is infinite or not a number
    """
    finite = torch.stack(
        [weight.isfinite().all() for weight in model.parameters()]
    ).tolist()  # one look at a GPU, not seventy
    broken = [
        name
        for (name, _), is_finite in zip(model.named_parameters(), finite, strict=True)
        if not is_finite
    ]
    if broken:
        raise NonFiniteLossError(
            f"the weights are not finite after iteration {step}: {', '.join(broken[:3])} ... The last checkpoint is as it was. "
            "Go on from it with a lower learning rate (--lr) or with gradient clipping (--grad-clip 5)"
        )


def save_progress(training, progress, output_folder, is_best=False):
    """
    Write the checkpoint; the first of several processes does it. The one before is kept beside it.

    :param training: Training
    :param progress: Progress
    :param output_folder: where it goes
    :param is_best: also write the checkpoint of the best epoch; it comes first, so that none can be missing which this one names
    :raises NonFiniteLossError: the weights are not finite
    :raises OSError: it can not be written
    """
    check_weights(training.model, progress.iteration)
    if rank() > 0:
        return
    state = {
        **model_state(training.model, training.model.label_map),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict(),
        "parameters": dataclasses.asdict(training.parameters),
        "data": training.fingerprints,
        **vars(progress),
    }
    if is_best:
        save_checkpoint(output_folder / "BEST_checkpoint_ssd300.pth.tar", state)
    save_checkpoint(output_folder / "checkpoint_ssd300.pth.tar", state, keep_previous=True)


def validate(test_loader, training):
    """
    :return: Evaluation, and the part of it that goes into the history; None and {} without test images
    """
    if len(test_loader.dataset) == 0:
        return None, {}
    evaluation = evaluate(
        test_loader, training.model, training.criterion, precision=training.parameters.precision
    )
    losses = {f"validation_{name}": value for name, value in evaluation.losses.items()}
    return evaluation, {
        "validation_loss": training.criterion.total(evaluation.losses),
        **losses,
        "mAP": evaluation.mAP,
    }


def write_history(history, output_folder):
    """Write history.jsonl, a line for each epoch, and the curves as history.png if matplotlib is installed."""
    lines = [
        json.dumps({name: None if value != value else value for name, value in row.items()})
        for row in history
    ]
    (output_folder / "history.jsonl").write_text(
        "".join(line + "\n" for line in lines), encoding="utf-8"
    )
    if not importlib.util.find_spec("matplotlib"):
        return
    from matplotlib.figure import Figure  # not needed for training, and slow to import

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, map_axes = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for name in ("loss", "confidence", "localization", "validation_loss"):
        loss_axes.plot(
            epochs, [row.get(name, math.nan) for row in history], ".-", label=name.replace("_", " ")
        )
    loss_axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    loss_axes.legend()
    map_axes.plot(epochs, [row.get("mAP", math.nan) for row in history], ".-", color="tab:green")
    map_axes.set(xlabel="epoch", ylabel="mAP on the test images", ylim=(0, 1))
    figure.savefig(output_folder / "history.png", dpi=100)


def load_data(parameters):
    """
    The training and test images; toy data are drawn first.

    :return: two PascalVOCDatasets
    :raises ValueError: there are no training images
    """
    if parameters.toy:
        with first_process_first():
            create_toy_data(
                parameters.data_folder,
                parameters.toy_classes,
                parameters.toy_images,
                seed=parameters.seed,
            )
    train_set = PascalVOCDataset(
        parameters.data_folder, "TRAIN", parameters.keep_difficult, parameters.seed
    )
    test_set = PascalVOCDataset(parameters.data_folder, "TEST")
    if len(train_set) == 0:
        raise ValueError(
            f"{parameters.data_folder}: TRAIN_images.json lists no images: make the lists again"
        )
    return train_set, test_set


def find_start(parameters):
    """
    What the training begins with.

    :param parameters: Parameters
    :return: the parameters, with a file in place of auto, and the checkpoint, or None to begin anew
    :raises FileNotFoundError: there is no such file
    :raises WrongFileError: it, or every one that auto could choose, is damaged or has no weights that are known here
    """
    if parameters.checkpoint == "auto":
        path, state = newest_checkpoint(parameters.output_folder)
        print(
            f"Going on from {path}."
            if path
            else f"No checkpoint in {parameters.output_folder}: beginning anew."
        )
        return dataclasses.replace(parameters, checkpoint=str(path or "")), state
    try:
        return parameters, load_checkpoint(parameters.checkpoint) if parameters.checkpoint else None
    except WrongFileError as error:
        raise WrongFileError(
            f"{error}. --checkpoint auto takes the newest readable one in --output-folder"
        ) from error


def create_model(state, label_map, parameters, device):
    """A new SSD300, or that of a checkpoint, with its `label_map`."""
    if state is None:
        torch.manual_seed(
            parameters.seed
        )  # for the initial weights; order and augmentations have generators of their own
        with first_process_first():
            model = SSD300(len(label_map), parameters.pretrained and not parameters.base_weights)
        if parameters.base_weights:
            base, input_shift = load_base_weights(parameters.base_weights)
            model.base.load_state_dict(base)
            model.input_shift.copy_(input_shift)
    else:
        model = SSD300(len(label_map), False, state["priors_cxcy"], state["input_shift"])
        model.load_state_dict(state["model"])
    model.label_map = label_map
    return model.to(device, memory_format=torch.channels_last)


def create_training(model, parameters, fingerprints):
    """The Training of a model on lists with these fingerprints."""
    device = model.priors_cxcy.device
    if parameters.compile:
        model.compile()
    is_alone = world_size() == 1
    network = (
        model
        if is_alone
        else DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
    )
    scaler = torch.amp.GradScaler(
        device.type, enabled=choose_precision(device, parameters.precision) == torch.float16
    )
    criterion, optimizer = MultiBoxLoss(model.priors_cxcy), create_optimizer(model, parameters)
    return Training(model, network, criterion, optimizer, scaler, parameters, fingerprints)


def begins_anew(state):
    """Whether a training begins with this: nothing (None), or weights without an optimizer, which only give it a start."""
    return state is None or "optimizer" not in state


def resume(state, training):
    """
    Take up a training where a checkpoint left it.

    :param state: the checkpoint; None, or one with weights only, to begin a training of its own
    :param training: Training; its optimizer gets the checkpoint's momentum buffers. The momentum, weight decay and batch size of
        its parameters hold from here on.
    :return: Progress, its iteration in steps of the present batch size
    """
    if begins_anew(state):
        return Progress(
            loss_sums=torch.zeros(2, dtype=torch.float64, device=training.model.priors_cxcy.device)
        )
    optimizer, parameters = training.optimizer, training.parameters
    kept = "params", "lr"  # the rate is set in each step
    options = [
        {name: value for name, value in group.items() if name not in kept}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state["optimizer"])
    for group, current in zip(optimizer.param_groups, options, strict=True):
        group.update(current)
    if training.scaler.is_enabled() and state["scaler"]:
        training.scaler.load_state_dict(state["scaler"])
    progress = Progress(**{item.name: state[item.name] for item in dataclasses.fields(Progress)})
    progress.iteration = round(
        progress.iteration * state["parameters"]["batch_size"] / parameters.batch_size
    )
    progress.loss_sums = progress.loss_sums.to(training.model.priors_cxcy.device)
    return progress


def prepare_output_folder(state, parameters, n_classes):
    """
    :param state: the checkpoint to start from, or None
    :param parameters: Parameters
    :param n_classes: number of classes, the background counted
    :return: the output folder, which is there now
    :raises ValueError: it holds an earlier training that this one would overwrite
    :raises OSError: nothing can be written there, or there is too little room
    """
    output_folder = Path(parameters.output_folder)
    path = output_folder / "checkpoint_ssd300.pth.tar"
    if path.exists() and begins_anew(state) and not parameters.toy:
        raise ValueError(
            f"{path}: holds an earlier training, which this one would overwrite: go on with it (--checkpoint {path}), or name "
            "another --output-folder"
        )
    try:
        output_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_folder):
            pass
    except OSError as error:
        raise OSError(
            f"{output_folder}: nothing can be written there ({error}): name another --output-folder"
        ) from error
    with torch.device("meta"):  # sizes only: nothing is allocated
        n_weights = sum(
            weight.numel() for weight in SSD300(n_classes, pretrained=False).parameters()
        )
    # The last checkpoint, the one before, the best and one that is being written: weights and momentum, 4 bytes each
    files = list(output_folder.glob("*checkpoint_ssd300.pth.tar*"))
    needed = 4 * 8 * n_weights - sum(file.stat().st_size for file in files)
    if shutil.disk_usage(output_folder).free < needed:
        raise OSError(
            f"{output_folder}: the checkpoints take {needed / 1e6:.0f} MB more than are free: make room for them"
        )
    return output_folder


def finish_epoch(training, progress, images_per_second, validation, output_folder):
    """
    Put what the epoch brought into the history, and write it and the checkpoint, and the best one if this is it.

    :param validation: the part of the history's row that validate returned
    """
    losses = dict(
        zip(
            ("confidence", "localization"),
            (progress.loss_sums / progress.n_images).tolist(),
            strict=True,
        )
    )
    row = {
        "epoch": progress.epoch + 1,
        "iteration": progress.iteration,
        "lr": learning_rate(progress.iteration - 1, training.parameters),
        "loss": training.criterion.total(losses),
        **losses,
        "images_per_second": images_per_second,
        **validation,
    }
    is_best = row.get("mAP", math.nan) > progress.best_mAP
    progress.epoch, progress.n_images = progress.epoch + 1, 0
    progress.loss_sums.zero_()
    progress.best_mAP = row["mAP"] if is_best else progress.best_mAP
    progress.history.append(row)
    save_progress(training, progress, output_folder, is_best)
    if rank() == 0:
        write_history(progress.history, output_folder)
    print_epoch(row)


def count_epochs(progress, n_images, parameters):
    """The epoch in which the training ends, from 1; the present one, if it was not finished, is also to be validated."""
    n_left = max(0, n_steps(parameters) - progress.iteration)
    if n_left == 0 and progress.n_images == 0:
        return progress.epoch
    n_left -= math.ceil((n_images - progress.n_images) / parameters.batch_size)
    return (
        progress.epoch + 1 + max(0, math.ceil(n_left / math.ceil(n_images / parameters.batch_size)))
    )


def print_plan(train_set, test_set, progress, n_epochs, parameters, device):
    """Print what is going to be done, and what is not."""
    if n_epochs == progress.epoch:
        print("The training of this checkpoint is over: it is evaluated, and that is all.")
        return
    where = f"{device} by {world_size()} processes" if world_size() > 1 else device
    print(
        f"Training on {len(train_set)} images of {len(train_set.label_map) - 1} classes on {where}: "
        f"{n_steps(parameters) - progress.iteration} steps of {parameters.batch_size} images, up to the end of epoch {n_epochs}."
    )
    if len(test_set) == 0:
        print("There are no test images: nothing is validated, and no best checkpoint is chosen.")
    if not importlib.util.find_spec("matplotlib"):
        print("The curves are not drawn: that takes matplotlib (pip install matplotlib).")


def print_epoch(row):
    """Print what an epoch brought, in a line."""
    text = f"epoch {row['epoch']}: loss {row['loss']:.3f}, {row['images_per_second']:.1f} images/s"
    if "mAP" in row:
        text += f", validation loss {row['validation_loss']:.3f}, mAP {row['mAP']:.3f}"
    print(text)


def train(parameters, given, interruption):
    """See main, which prepares for this; `given` is a set of names."""
    device = choose_device(parameters.device)
    torch.backends.cudnn.benchmark = (
        True  # every batch has the same shape, so the search for the fastest algorithm pays
    )
    train_set, test_set = load_data(parameters)
    fingerprints = {dataset.split: dataset.fingerprint() for dataset in (train_set, test_set)}
    parameters, state = find_start(parameters)
    if state is not None:
        check_resumable(state, parameters, given, train_set.label_map, fingerprints)
    with first_process_first():
        output_folder = prepare_output_folder(state, parameters, len(train_set.label_map))

    model = create_model(state, train_set.label_map, parameters, device)
    training = create_training(model, parameters, fingerprints)
    progress = resume(state, training)
    if progress.history and rank() == 0:
        write_history(
            progress.history, output_folder
        )  # which lacks its last line if a kill came between the two files
    batches = ShuffledBatches(
        len(train_set), parameters.batch_size, parameters.seed, rank(), world_size()
    )
    train_loader = create_loader(train_set, batches, parameters.workers, device)
    test_batches = ordered_batches(len(test_set), parameters.batch_size, rank(), world_size())
    test_loader = create_loader(test_set, test_batches, parameters.workers, device)
    n_epochs = count_epochs(progress, len(train_set), parameters)
    print_plan(train_set, test_set, progress, n_epochs, parameters, device)

    evaluation = None
    with interruption.hold():
        while progress.epoch < n_epochs:
            train_set.set_epoch(progress.epoch)
            batches.set_epoch(progress.epoch, progress.n_images)
            images_per_second = train_epoch(
                train_loader, training, progress, interruption, output_folder
            )
            with interruption.hold(False):  # all is saved
                evaluation, validation = validate(test_loader, training)
            finish_epoch(training, progress, images_per_second, validation, output_folder)

    if evaluation is None:  # the checkpoint's training was over
        evaluation, _ = validate(test_loader, training)
    if evaluation is not None:
        print_average_precisions(evaluation.average_precisions, evaluation.mAP)
    if parameters.toy and rank() == 0:
        draw_sheet(test_set.images, model, output_folder / "detections.png")
    print(
        f"The checkpoint, and history.jsonl with what every epoch brought, are in {output_folder.resolve()}."
    )
    return progress.history


def main(parameters, given=None):
    """
    Train, and after every epoch validate, write the checkpoint and the history. Under torchrun its processes train together.

    :param parameters: Parameters
    :param given: names of the parameters that were given explicitly; by default those that differ from the values above
    :return: the history, a list with a dict an epoch
    :raises FileNotFoundError: the lists or the checkpoint are missing
    :raises ValueError: parameters, data or checkpoint that do not go together
    :raises OSError: the checkpoint can not be written
    :raises NonFiniteLossError: see train_epoch
    :raises InterruptedTrainingError: the training was asked to stop; how to go on is printed
    """
    if given is None:
        given = {
            item.name
            for item in dataclasses.fields(parameters)
            if getattr(parameters, item.name) != item.default
        }
    options = [
        _as_option((name, getattr(parameters, name)))
        for name in sorted(given)
        if name != "checkpoint"
    ]
    if parameters.toy:
        parameters = dataclasses.replace(
            parameters, **{name: value for name, value in TOY.items() if name not in given}
        )
    check_parameters(parameters)
    with process_group(), Interruption() as interruption:
        try:
            return train(parameters, given, interruption)
        except InterruptedTrainingError as error:
            launcher = "python" if world_size() == 1 else "torchrun ..."
            print(
                f"Stopped by {error}. Go on with: {' '.join([launcher, 'train.py', *options])} --checkpoint auto"
            )
            raise


if __name__ == "__main__":
    try:
        main(*read_command_line(Parameters, __doc__))
    except InterruptedTrainingError as interrupted:
        sys.exit(128 + interrupted.number)  # as a shell reports a program that a signal ended
    except (OSError, ValueError, NonFiniteLossError, DownloadError) as error:
        sys.exit(describe_error(error))
