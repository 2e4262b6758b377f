"""Train an SSD300: on PASCAL VOC as the paper did, on any data in VOC layout, or with --toy on a small drawn data set."""

import dataclasses
import importlib.util
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from checkpoints import load_base_weights, load_checkpoint, model_state, save_checkpoint
from create_data_lists import TOY_CLASSES, TOY_IMAGES, create_toy_data
from datasets import PascalVOCDataset, ShuffledOrder, collate_fn, read_image
from detect import detect
from eval import evaluate, print_average_precisions
from model import SSD300, MultiBoxLoss, UnavailableWeightsError, autocast, choose_device
from utils import describe_error, read_command_line


@dataclass
class Parameters:
    """What can be set, here or on the command line; it is stored in the checkpoint."""

    data_folder: str = "data"  # folder with the lists that create_data_lists.py wrote
    keep_difficult: bool = True  # learn from objects marked difficult, too
    output_folder: str = "."  # where checkpoints, history.jsonl and history.png go
    checkpoint: str = ""  # a checkpoint to go on from, other people's weights to start from, or coco; none: begin anew
    pretrained: bool = True  # start the base from torchvision's ImageNet weights (528 MB, downloaded once)
    base_weights: str = ""  # start the base from this file instead, vgg16_reducedfc.pth: Caffe's VGG-16, as the paper did

    # The schedule of the authors' script for VOC 07+12 (paper, section 3.6). An iteration is a step on 32 images: with another
    # batch size there are as many more or fewer steps, so that the epochs stay: the rate falls in the 155th and 194th of 232.
    batch_size: int = 32  # images a step
    iterations: int = 120_000  # length of the training in steps of 32 images
    lr: float = 1e-3  # learning rate, for weights; biases have twice as much
    decay_at: tuple = (2 / 3, 5 / 6)  # parts of the training after which the rate falls to a tenth
    # DEVIATION(warm-up): the authors had none; from random layers, the full rate at once can make the loss explode.
    warm_up: float = 1 / 240  # part of the training during which the rate rises from zero (500 of 120,000 iterations)
    momentum: float = 0.9  # of stochastic gradient descent
    weight_decay: float = 5e-4  # for weights; biases have none
    grad_clip: float = 0.0  # longest gradient of all parameters together, longer ones are shortened; 0: none is

    workers: int = 4  # processes that read and prepare images, and as many to validate; 0: this one does it
    device: str = "auto"  # cuda, cpu, or auto for a GPU if there is one
    precision: str = "auto"  # of the convolutions: float32, bfloat16, or auto for bfloat16 where the hardware has it
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
    "data_folder", "output_folder", "checkpoint", "pretrained", "base_weights", "workers", "device", "precision", "toy",
}  # fmt: skip


class NonFiniteLossError(RuntimeError):
    """The loss is infinite or not a number; the message says where."""


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
    others = [parameter for name, parameter in model.named_parameters() if not name.endswith(".bias")]
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
            raise ValueError(f"parameters: {name}: expected more than 0, got {getattr(parameters, name)}")
    for name in ("warm_up", "momentum", "weight_decay", "grad_clip", "workers", "seed"):
        if not getattr(parameters, name) >= 0:
            raise ValueError(f"parameters: {name}: expected 0 or more, got {getattr(parameters, name)}")


def check_resumable(state, parameters, given, label_map):
    """
    A training that goes on should be the same training, but for what was changed on purpose. One that starts from other people's
    weights, or from a detector that was converted, needs the same classes only.

    :param state: the checkpoint
    :param parameters: Parameters of this run
    :param given: names of the parameters that were given explicitly
    :param label_map: the classes of the data
    :raises ValueError: the checkpoint knows other classes, or had other parameters
    """
    if state["label_map"] != label_map:
        raise ValueError(
            f"{parameters.checkpoint} was trained on the classes {list(state['label_map'])[1:]}, but the lists in "
            f"{parameters.data_folder} have {list(label_map)[1:]}: give the folder that it was trained on (--data-folder)"
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
            "the old value to go on as before or with a new one to change it: " + " ".join(map(_as_option, differing.items()))
        )


def _as_option(item):
    """("keep_difficult", False) -> "--no-keep-difficult"; ("lr", 0.001) -> "--lr 0.001" """
    name, value = item[0].replace("_", "-"), item[1]
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} " + (" ".join(map(str, value)) if isinstance(value, tuple) else str(value))


# -------------------------------------------------------------------------------------------------------------- training


def train_epoch(train_loader, model, criterion, optimizer, step, parameters):
    """
    One pass over the training images, or up to the end of the training.

    :param train_loader: DataLoader over a PascalVOCDataset of the TRAIN split
    :param model: SSD300
    :param criterion: MultiBoxLoss
    :param optimizer: of create_optimizer
    :param step: optimizer steps taken before
    :param parameters: Parameters
    :return: the steps taken now, and {"loss", "confidence", "localization", "images_per_second"}: losses are means over images
    :raises NonFiniteLossError: the loss of a step is not finite; noticed when the next step is under way
    """
    model.train()
    device = model.priors_cxcy.device
    sums, n_images, start = torch.zeros(2, device=device), 0, time.perf_counter()
    previous = None  # losses of the step before, looked at when the device has its next step to work on
    n_left = min(len(train_loader), n_steps(parameters) - step)
    progress = tqdm(train_loader, total=n_left, unit="step", dynamic_ncols=True)
    for batch, (images, boxes, labels, _) in enumerate(progress):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step + batch, parameters) * group["lr_factor"]
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        boxes = [box.to(device, non_blocking=True) for box in boxes]
        labels = [label.to(device, non_blocking=True) for label in labels]

        with autocast(device, parameters.precision):
            predicted_locs, predicted_scores = model(images)  # (N, 8732, 4), (N, 8732, n_classes)
        losses = criterion.components(predicted_locs, predicted_scores, boxes, labels)
        optimizer.zero_grad()
        criterion.total(losses).backward()
        if parameters.grad_clip > 0:
            nn.utils.clip_grad_norm_(model.parameters(), parameters.grad_clip)
        optimizer.step()

        if previous is not None:
            progress.set_postfix(_checked(previous, step, batch - 1, train_loader))
        previous = torch.stack([losses["confidence"], losses["localization"]]).detach()
        sums += previous * len(images)
        n_images += len(images)
        if batch + 1 == n_left:
            break
    progress.close()
    _checked(previous, step, batch, train_loader)
    check_weights(model, step + n_left)
    losses = dict(zip(("confidence", "localization"), (sums / n_images).tolist(), strict=True))
    images_per_second = n_images / (time.perf_counter() - start)
    return n_left, {"loss": criterion.total(losses), **losses, "images_per_second": images_per_second}


def _checked(losses, step, batch, train_loader):
    """
    The losses of a batch as numbers by name.

    :param losses: (2,) confidence and localization loss
    :param step: steps taken before this epoch
    :param batch: number of the batch in this epoch
    :raises NonFiniteLossError: one of them is not finite; names the images of the batch
    """
    losses = dict(zip(("confidence", "localization"), losses.tolist(), strict=True))
    if not all(math.isfinite(value) for value in losses.values()):
        size = train_loader.batch_size
        paths = [train_loader.dataset.images[i] for i in list(train_loader.sampler)[batch * size : (batch + 1) * size]]
        raise NonFiniteLossError(
            f"the loss is not finite in iteration {step + batch + 1}: {losses}. The last checkpoint is as it was. Look at these "
            "images and their boxes, or go on from the checkpoint with a lower learning rate (--lr) or with gradient clipping "
            "(--grad-clip 5):\n" + "\n".join(paths)
        )
    return losses


def check_weights(model, step):
    """
    A loss can be finite and its gradient not: such weights must not replace those of the last checkpoint.

    :raises NonFiniteLossError: a weight is infinite or not a number
    """
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise NonFiniteLossError(
            f"the weights are not finite after iteration {step}: {', '.join(broken[:3])} ... The last checkpoint is as it was. "
            "Go on from it with a lower learning rate (--lr) or with gradient clipping (--grad-clip 5)"
        )


def validate(test_loader, model, criterion, parameters):
    """
    :return: Evaluation, and the part of it that goes into the history; None and {} without test images
    """
    if len(test_loader.dataset) == 0:
        return None, {}
    evaluation = evaluate(test_loader, model, criterion, precision=parameters.precision)
    losses = {f"validation_{name}": value for name, value in evaluation.losses.items()}
    return evaluation, {"validation_loss": criterion.total(evaluation.losses), **losses, "mAP": evaluation.mAP}


def write_history(history, output_folder):
    """Write history.jsonl, a line for each epoch, and the curves as history.png if matplotlib is installed."""
    lines = [json.dumps({name: None if value != value else value for name, value in row.items()}) for row in history]
    (output_folder / "history.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    if not importlib.util.find_spec("matplotlib"):
        return
    from matplotlib.figure import Figure  # not needed for training, and slow to import

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, map_axes = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for name in ("loss", "confidence", "localization", "validation_loss"):
        loss_axes.plot(epochs, [row.get(name, math.nan) for row in history], ".-", label=name.replace("_", " "))
    loss_axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    loss_axes.legend()
    map_axes.plot(epochs, [row.get("mAP", math.nan) for row in history], ".-", color="tab:green")
    map_axes.set(xlabel="epoch", ylabel="mAP on the test images", ylim=(0, 1))
    figure.savefig(output_folder / "history.png", dpi=100)


def draw_examples(model, dataset, path, n_columns=4, n_rows=2, side=400):
    """Write a picture of the first test images with their detections drawn."""
    sheet = Image.new("RGB", (n_columns * side, n_rows * side), "white")
    for i, image_path in enumerate(dataset.images[: n_columns * n_rows]):
        annotated_image = detect(read_image(image_path), min_score=0.3, max_overlap=0.45, top_k=200, model=model)
        annotated_image.thumbnail((side - 8, side - 8))
        sheet.paste(annotated_image, (i % n_columns * side + 4, i // n_columns * side + 4))
    sheet.save(path)
    print(f"The first test images with their detections are drawn in {path}.")


def load_data(parameters):
    """
    The training and test images; toy data are drawn first.

    :return: two PascalVOCDatasets
    :raises ValueError: there are no training images
    """
    if parameters.toy:
        create_toy_data(parameters.data_folder, parameters.toy_classes, parameters.toy_images, seed=parameters.seed)
    train_set = PascalVOCDataset(parameters.data_folder, "TRAIN", parameters.keep_difficult, parameters.seed)
    test_set = PascalVOCDataset(parameters.data_folder, "TEST")
    if len(train_set) == 0:
        raise ValueError(f"{parameters.data_folder}: TRAIN_images.json lists no images: make the lists again")
    return train_set, test_set


def create_loaders(train_set, test_set, order, parameters, device):
    """The DataLoaders of both sets; the training images come in the given order."""
    settings = {
        "batch_size": parameters.batch_size,
        "collate_fn": collate_fn,
        "num_workers": parameters.workers,
        "persistent_workers": parameters.workers > 0,
        "pin_memory": device.type == "cuda",
    }
    return DataLoader(train_set, sampler=order, **settings), DataLoader(test_set, **settings)


def create_model(state, label_map, parameters, device):
    """A new SSD300, or that of a checkpoint, with its `label_map`."""
    if state is None:
        torch.manual_seed(parameters.seed)  # for the initial weights; order and augmentations have generators of their own
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


def begins_anew(state):
    """Whether a training begins with this: nothing (None), or weights without an optimizer, which only give it a start."""
    return state is None or "optimizer" not in state


def resume(state, optimizer, parameters):
    """
    Take up a training where a checkpoint left it.

    :param state: the checkpoint; None, or one with weights only, to begin a training of its own
    :param optimizer: of create_optimizer; gets the checkpoint's momentum buffers
    :param parameters: Parameters; their momentum, weight decay and batch size hold from here on
    :return: {"epoch", "iteration" (steps taken, of the present batch size), "best_mAP", "history"}
    """
    if state is None or "optimizer" not in state:
        return {"epoch": 0, "iteration": 0, "best_mAP": -1.0, "history": []}
    options = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer"])
    for group, current in zip(optimizer.param_groups, options, strict=True):
        group.update(current)
    iteration = round(state["iteration"] * state["parameters"]["batch_size"] / parameters.batch_size)
    return {"epoch": state["epoch"], "iteration": iteration, "best_mAP": state["best_mAP"], "history": state["history"]}


def prepare_output_folder(state, parameters):
    """
    :param state: the checkpoint to start from, or None
    :param parameters: Parameters
    :return: the output folder, which is there now
    :raises ValueError: it holds an earlier training that this one would overwrite
    """
    output_folder = Path(parameters.output_folder)
    path = output_folder / "checkpoint_ssd300.pth.tar"
    if path.exists() and begins_anew(state) and not parameters.toy:
        raise ValueError(
            f"{path}: holds an earlier training, which this one would overwrite: go on with it (--checkpoint {path}), or name "
            "another --output-folder"
        )
    output_folder.mkdir(parents=True, exist_ok=True)
    return output_folder


def finish_epoch(row, progress, model, optimizer, parameters, output_folder):
    """
    Write the checkpoint, the best one if this is it, and the history.

    :param row: what the epoch brought, for the history
    :param progress: of the epochs before, see resume
    :return: the progress now
    """
    mAP = row.get("mAP", math.nan)
    is_best = mAP > progress["best_mAP"]
    progress = {
        "epoch": row["epoch"],
        "iteration": row["iteration"],
        "best_mAP": mAP if is_best else progress["best_mAP"],
        "history": [*progress["history"], row],
    }
    state = {
        **model_state(model, model.label_map),
        "optimizer": optimizer.state_dict(),
        "parameters": dataclasses.asdict(parameters),
        **progress,
    }
    save_checkpoint(output_folder / "checkpoint_ssd300.pth.tar", state)
    if is_best:
        save_checkpoint(output_folder / "BEST_checkpoint_ssd300.pth.tar", state)
    write_history(progress["history"], output_folder)
    print_epoch(row)
    return progress


def print_plan(train_set, test_set, n_left, n_epochs, parameters, device):
    """Print what is going to be done, and what is not."""
    if n_left == 0:
        print("The training of this checkpoint is over: it is evaluated, and that is all.")
        return
    print(
        f"Training on {len(train_set)} images of {len(train_set.label_map) - 1} classes on {device}: {n_left} steps of "
        f"{parameters.batch_size} images, up to the end of epoch {n_epochs}."
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


def main(parameters, given=None):
    """
    Train, and after every epoch validate, write the checkpoint and the history.

    :param parameters: Parameters
    :param given: names of the parameters that were given explicitly; by default those that differ from the values above
    :return: the history, a list with a dict an epoch
    :raises FileNotFoundError: the lists or the checkpoint are missing
    :raises ValueError: parameters, data or checkpoint that do not go together
    :raises NonFiniteLossError: see train_epoch
    """
    if given is None:
        given = {field.name for field in dataclasses.fields(parameters) if getattr(parameters, field.name) != field.default}
    if parameters.toy:
        parameters = dataclasses.replace(parameters, **{name: value for name, value in TOY.items() if name not in given})
    check_parameters(parameters)
    device = choose_device(parameters.device)
    torch.backends.cudnn.benchmark = True  # every batch has the same shape, so the search for the fastest algorithm pays
    train_set, test_set = load_data(parameters)
    state = load_checkpoint(parameters.checkpoint) if parameters.checkpoint else None
    if state is not None:
        check_resumable(state, parameters, given, train_set.label_map)
    output_folder = prepare_output_folder(state, parameters)

    model = create_model(state, train_set.label_map, parameters, device)
    criterion = MultiBoxLoss(model.priors_cxcy)
    optimizer = create_optimizer(model, parameters)
    progress = resume(state, optimizer, parameters)
    order = ShuffledOrder(len(train_set), parameters.seed)
    train_loader, test_loader = create_loaders(train_set, test_set, order, parameters, device)
    n_left = max(0, n_steps(parameters) - progress["iteration"])
    n_epochs = progress["epoch"] + math.ceil(n_left / len(train_loader))
    print_plan(train_set, test_set, n_left, n_epochs, parameters, device)

    evaluation = None
    for epoch in range(progress["epoch"], n_epochs):
        train_set.set_epoch(epoch)
        order.set_epoch(epoch)
        steps_taken, losses = train_epoch(train_loader, model, criterion, optimizer, progress["iteration"], parameters)
        evaluation, validation = validate(test_loader, model, criterion, parameters)
        step = progress["iteration"] + steps_taken
        row = {"epoch": epoch + 1, "iteration": step, "lr": learning_rate(step - 1, parameters), **losses, **validation}
        progress = finish_epoch(row, progress, model, optimizer, parameters, output_folder)

    if evaluation is None:  # the checkpoint's training was over
        evaluation, _ = validate(test_loader, model, criterion, parameters)
    if evaluation is not None:
        print_average_precisions(evaluation.average_precisions, evaluation.mAP)
    if parameters.toy:
        draw_examples(model, test_set, output_folder / "detections.png")
    print(f"The checkpoint, and history.jsonl with what every epoch brought, are in {output_folder.resolve()}.")
    return progress["history"]


if __name__ == "__main__":
    try:
        main(*read_command_line(Parameters, __doc__))
    except (OSError, ValueError, NonFiniteLossError, UnavailableWeightsError) as error:
        sys.exit(describe_error(error))
