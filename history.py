"""
How a training run is going: its progress, the losses of its steps, a line of history for each
epoch, and what is printed about them.
"""

import importlib.util
import json
import math
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from runtime import (
    as_command_line,
    changed_parameters,
    count,
    describe_precision,
    rank,
    sum_over_processes,
    world_size,
    written_whole,
)
from utils import without_nan

# Drawing the curves takes a quarter of a second of a CPU: less often than this, under 1% of a run
CURVES_EVERY = 30  # seconds

# A run of more epochs gets a line about its length: by default, one on fewer than 3,800 images. VOC
# 07+12 has 232 epochs, VOC2007 alone 765
MANY_EPOCHS = 1000
# What is advised then: to see as many images as 2,500 steps of 8. The runs on six classes and on
# blood cells in the README saw 43,200 and 10,512
IMAGES_OF_A_SHORT_RUN = 20_000


@dataclass
class Progress:
    """How far a training run is. All of it is in the checkpoint, `step` under the key iteration."""

    epoch: int = 0  # epochs finished
    step: int = 0  # optimizer steps taken
    n_images: int = 0  # images of the unfinished epoch that were trained on so far
    # Of the steps with these images, each loss times its step's images: confidence, localization
    loss_sums: list = field(default_factory=lambda: [0.0, 0.0])
    best_mAP: float = -1.0
    history: list = field(default_factory=list)  # a dict per epoch

    def finish_epoch(self, row):
        """
        Add an epoch to the history.

        :param row: dict, see epoch_row
        :return: whether it is the best one so far
        """
        is_best = row.get("mAP", math.nan) > self.best_mAP
        if is_best:
            self.best_mAP = row["mAP"]
        self.epoch += 1
        self.n_images = 0
        self.loss_sums = [0.0, 0.0]
        self.history.append(row)
        return is_best


class NonFiniteLossError(ValueError):
    """The loss or a weight is infinite or not a number; the message says where."""


REMEDY = (
    "The last checkpoint is untouched: resume from it with a lower learning rate (--lr) or with "
    "gradient clipping (--grad-clip 5)"
)


def collect_losses(recent, progress, image_paths):
    """
    Fetch the losses of the latest steps from the device, check them, and add them to the sums of
    the epoch. Fetching a loss waits until a GPU has computed it, so several are fetched together.

    :param recent: a list of (indices of the step's images, its confidence and localization loss:
        this process's share, a tensor (2,)); it is emptied
    :param progress: Progress; the last step in `recent` was the last one taken
    :param image_paths: of all training images
    :return: the losses of the last step, {"confidence": number, "localization": number}; {} if
        `recent` is empty
    :raises NonFiniteLossError: a loss is not finite; names the images of the first such step
    """
    losses = {}
    if not recent:
        return losses
    values = sum_over_processes(torch.stack([loss for _, loss in recent])).tolist()
    first_step = progress.step - len(recent) + 1
    for i, (confidence, localization) in enumerate(values):
        indices, _ = recent[i]
        losses = {"confidence": confidence, "localization": localization}
        if not (math.isfinite(confidence) and math.isfinite(localization)):
            paths = "\n".join(image_paths[index] for index in indices)
            raise NonFiniteLossError(
                f"the loss is not finite in step {first_step + i}: {losses}. {REMEDY}; or look at "
                f"the images of this step, and at their boxes:\n{paths}"
            )
        progress.loss_sums[0] += confidence * len(indices)
        progress.loss_sums[1] += localization * len(indices)
    recent.clear()
    return losses


def check_weights_are_finite(model, step):
    """
    A loss can be finite and its gradient not: such weights must not replace those of the last
    checkpoint.

    :param step: number of the last step
    :raises NonFiniteLossError: a weight is infinite or not a number
    """
    broken = find_non_finite(dict(model.named_parameters()))
    if broken:
        raise NonFiniteLossError(
            f"the weights are not finite after step {step}: {', '.join(broken[:3])} ... {REMEDY}"
        )


def find_non_finite(weights):
    """
    :param weights: {name: tensor}, all on one device
    :return: the names of those with a value that is infinite or not a number
    """
    # Collected on the device, so that a GPU is waited for once instead of seventy times
    finite = torch.stack([weight.isfinite().all() for weight in weights.values()]).tolist()
    return [name for name, is_finite in zip(weights, finite, strict=True) if not is_finite]


def epoch_row(progress, criterion, lr, images_per_second, validation):
    """
    What an epoch adds to the history.

    :param progress: Progress, at the end of the epoch
    :param criterion: MultiBoxLoss, which adds up the total
    :param lr: learning rate of the last step
    :param validation: dict of what a validation found; may be empty
    """
    confidence, localization = (total / progress.n_images for total in progress.loss_sums)
    losses = {"confidence": confidence, "localization": localization}
    return {
        "epoch": progress.epoch + 1,
        "iteration": progress.step,
        "lr": lr,
        "loss": criterion.total(losses),
        **losses,
        "images_per_second": images_per_second,
        **validation,
    }


def write_history(run, is_last=False):
    """
    Write history.jsonl, a line per epoch, and its curves where matplotlib is installed; the first
    of several processes does it.

    :param run: train.Run
    :param is_last: whether the run is over. Before that, the curves are drawn every half minute
    """
    if rank() > 0:
        return
    folder = Path(run.parameters.output_folder)
    lines = [json.dumps(without_nan(row)) + "\n" for row in run.progress.history]
    if not lines:
        return
    with written_whole(folder / "history.jsonl") as unfinished:
        unfinished.write_text("".join(lines), encoding="utf-8")
    curves_path = folder / "history.png"
    if has_matplotlib() and (is_last or seconds_since_written(curves_path) >= CURVES_EVERY):
        try:
            with written_whole(curves_path) as unfinished:
                draw_curves(run.progress.history, unfinished)
        except Exception as error:  # of matplotlib, whatever it is: hours of training go on
            warnings.warn(f"{curves_path} could not be drawn: {error!r}", stacklevel=2)


def seconds_since_written(path):
    """How long ago a file was written; infinity if there is none, or if clocks disagree."""
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return math.inf
    return age if age >= 0 else math.inf


def draw_curves(history, path):
    """
    Draw the losses and the mAP of each epoch.

    :param history: list of dicts, see epoch_row
    :param path: the PNG file to write
    """
    from matplotlib.figure import Figure  # optional, and slow to import

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, map_axes = figure.subplots(1, 2, sharex=True)
    for name in ("loss", "confidence", "localization", "validation_loss"):
        loss_axes.plot(*curve(history, name), ".-", label=name.replace("_", " "))
    loss_axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    loss_axes.legend()
    epochs, mAPs = curve(history, "mAP")
    map_axes.plot(epochs, [100 * mAP for mAP in mAPs], ".-", color="tab:green")
    map_axes.set(xlabel="epoch", ylabel="mAP on the validation images", ylim=(0, 100))
    figure.savefig(path, dpi=100)


def curve(history, name):
    """The epochs that have a value of this name (some have no validation), and their values."""
    rows = [row for row in history if name in row]
    return [row["epoch"] for row in rows], [row[name] for row in rows]


def has_matplotlib():
    """Whether curves can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


class Forecast:
    """
    How long a run will still take, from the pace of its latest steps. It is printed as soon as it
    can be told, and again when it has changed by more than a fifth and by 20 seconds.
    """

    def __init__(self, run, n_steps, n_validations, n_validation_images):
        """
        :param run: train.Run
        :param n_steps: steps of the whole run
        :param n_validations: how many are still to come
        :param n_validation_images: images of one validation
        """
        parameters = run.parameters
        device = run.model.priors_cxcy.device
        self.how = describe_precision(device, parameters.precision)
        self.n_steps = n_steps
        self.n_validations = n_validations
        # A guess, until one has been timed: the backward pass, which a validation does without,
        # takes twice as long as the forward pass
        self.steps_per_validation = n_validation_images / parameters.batch_size / 3
        self.seconds_per_validation = None
        self.last = None  # step and time up to which steps have been counted
        self.seconds = 0.0  # that the steps since the last look took
        self.n_timed = 0  # how many these were
        self.total_seconds = 0.0  # that all steps so far took
        self.next_look = 0.0  # when they have taken as long as this
        self.expected_end = None  # time, as was printed last

    def begin(self, step):
        """After a step: begin to measure, unless that has begun. The first step is left out."""
        if self.last is None:
            self.last = (step, time.perf_counter())

    def add_steps(self, step):
        """Count the steps up to this one, which has been computed; print what that tells."""
        last_step, last_time = self.last
        now = time.perf_counter()
        self.last = (step, now)
        self.n_timed += step - last_step
        self.seconds += now - last_time
        self.total_seconds += now - last_time
        if self.n_timed > 0 and self.total_seconds >= self.next_look:
            self.look(step, now)

    def look(self, step, now):
        """Judge the pace, at intervals that grow from seconds to ten minutes; then begin anew."""
        self.print_if_new(self.seconds_left(step), now)
        self.next_look = self.total_seconds + min(self.total_seconds, 600)
        self.seconds = 0.0
        self.n_timed = 0

    def end(self, step):
        """The epoch is over, and something else is going to take time."""
        if self.last is not None:
            self.add_steps(step)
            self.last = None

    def add_validation(self, seconds):
        """Count a validation."""
        self.n_validations -= 1
        self.seconds_per_validation = seconds

    def seconds_left(self, step):
        """How long the rest of the run will take."""
        seconds_per_step = self.seconds / self.n_timed
        per_validation = self.seconds_per_validation
        if per_validation is None:
            per_validation = self.steps_per_validation * seconds_per_step
        return (self.n_steps - step) * seconds_per_step + self.n_validations * per_validation

    def print_if_new(self, seconds_left, now):
        """Print how long the run will still take, if that differs from what was said last."""
        if self.expected_end is not None:
            expected = self.expected_end - now
            change = abs(seconds_left - expected)
            if change < min(expected, seconds_left) / 5 or change < 20:
                return
        self.expected_end = now + seconds_left
        if rank() == 0:
            tqdm.write(f"Time left: about {describe_duration(seconds_left)}, {self.how}.")


def describe_duration(seconds):
    """A duration in words, like "1.5 hours" or "10 minutes"."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            number = seconds / length
            return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
    return count(round(seconds), "second")


def print_settings(run):
    """Print what the result of a run depends on, besides the data; `run` is a train.Run."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    print(f"Versions: {versions}.")
    changed = changed_parameters(run.parameters)
    if "epochs" in changed:
        changed.discard("iterations")  # which follow from them
    print(f"Parameters other than the defaults: {as_command_line(run.parameters, changed)}")


def print_plan(run, train_set, validation_set, n_steps_left, n_epochs):
    """
    Print what is going to be done, and what is not.

    :param run: train.Run
    :param train_set, validation_set: PascalVOCDatasets
    :param n_steps_left: steps up to the end of the run
    :param n_epochs: number of its last epoch
    """
    if n_epochs == run.progress.epoch:
        print("The run of this checkpoint is over: it is evaluated, and nothing more.")
        return
    where = str(run.model.priors_cxcy.device)
    if world_size() > 1:
        where += f" by {world_size()} processes"
    n_classes = len(train_set.label_map) - 1
    print(
        f"Training on {len(train_set)} images of {n_classes} classes on {where}: {n_steps_left} "
        f"steps of {run.parameters.batch_size} images, up to the end of epoch {n_epochs}."
    )
    if n_epochs > MANY_EPOCHS and run.progress.epoch == 0:
        print(advise_on_length(run.parameters, len(train_set), n_epochs))
    if len(validation_set) == 0:
        print("No images to validate with: no best checkpoint is chosen.")
    else:
        print(f"Validating on {len(validation_set)} images of {validation_set.split}.")
    if not has_matplotlib():
        print(
            "history.png, with the curves of losses and mAP, is not drawn: that takes matplotlib "
            "(pip install matplotlib)."
        )


def advise_on_length(parameters, n_images, n_epochs):
    """
    The line about a run whose default length suits many more images: which options to try.

    :param parameters: train.Parameters
    :param n_images: number of training images
    :param n_epochs: length of the run
    """
    n_enough = min(max(20, round(IMAGES_OF_A_SHORT_RUN / n_images)), MANY_EPOCHS)
    options = f"--epochs {n_enough} --batch-size 8 --warm-up 0.05"
    if not parameters.start_from and parameters.width == 1:
        options += " --freeze 3 --start-from coco"
    return (
        f"Careful: {n_epochs:,} epochs are far more than so few images are likely to need. Try "
        f"{options}"
    )


def print_epoch(row):
    """Print a line about an epoch."""
    text = f"epoch {row['epoch']}: loss {row['loss']:.3f}, {row['images_per_second']:.1f} images/s"
    if "mAP" in row:
        text += f", validation loss {row['validation_loss']:.3f}, mAP {100 * row['mAP']:.1f}"
    print(text)
