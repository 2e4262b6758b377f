"""
Train an SSD300: on PASCAL VOC as the paper did, on your own images, or on drawings (--toy).

From top to bottom: the parameters, the learning rate's schedule, the optimizer, one step, one
epoch, and `main`, which trains epoch after epoch. After each of them it validates, and writes a
checkpoint and a line of history. How checkpoints are written is in checkpoints.py, and how a
stopped run is resumed, in resume.py; devices, several processes and Ctrl-C are in runtime.py.
"""

import dataclasses
import math
import signal
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from annotations import printable
from checkpoints import build_model, save_run
from datasets import (
    PascalVOCDataset,
    ShuffledBatches,
    count_batches,
    create_loader,
    has_lists,
    ordered_batches,
)
from detect import draw_sheet
from eval import evaluate, print_average_precisions
from history import (
    Forecast,
    Progress,
    collect_losses,
    epoch_row,
    print_epoch,
    print_plan,
    print_settings,
    write_history,
)
from model import MAX_WIDTH, SSD300, MultiBoxLoss
from preview import write_preview
from published_weights import OTHER_PRIORS, PRIORS, load_base_weights, match_classes
from resume import (
    check_output_folder,
    check_same_data,
    find_start,
    restore_training,
    take_output_folder,
    take_over_network,
    take_over_parameters,
)
from runtime import (
    StopRequest,
    as_command_line,
    autocast,
    changed_parameters,
    check_precision,
    check_range,
    choose_device,
    choose_precision,
    describe_versions,
    first_process_first,
    process_group,
    rank,
    read_command_line,
    readable_errors,
    sum_over_processes,
    sync_gradients,
    world_size,
)
from toy_data import TOY_CLASSES, TOY_IMAGES, create_toy_data
from utils import send


@dataclass
class Parameters:
    """What can be set, here or on the command line. It is stored in the checkpoint."""

    # Data and results: where they are
    data_folder: str = "data"  # folder with the lists that create_data_lists.py wrote
    output_folder: str = "."  # where checkpoints, history.jsonl and history.png go
    keep_difficult: bool = True  # learn from objects marked difficult, too
    preview: int = 0  # draw this many training images and their priors in preview.png, then stop

    # Beginning: by default torchvision's VGG-16 base, and random layers above it
    checkpoint: str = ""  # resume this run: a file, or auto for the last in the output folder
    start_from: str = ""  # begin a new run from the weights of a detector: a file, or coco
    pretrained: bool = True  # start the base from ImageNet weights (528 MB, downloaded once)
    base_weights: str = ""  # start the base from this file: vgg16_reducedfc.pth, as the paper did
    priors: str = "paper"  # paper, or released: those of the authors' code, which are not capped
    width: float = 1.0  # factor for the channels of all layers; only 1 has published weights
    freeze: int = 0  # groups of the base's convolutions, conv1 to conv5, that do not learn

    # Schedule: that of the authors' script for VOC 07+12 (paper, section 3.6). One iteration is 32
    # images, whatever the batch size: 120,000 are 232 epochs of the 16,551 images, and the rate
    # falls in the 155th and in the 194th.
    batch_size: int = 32  # images per step, of all GPUs together
    iterations: int = 120_000  # length of the run, in steps of 32 images
    epochs: float = 0.0  # length of the run in epochs, in place of iterations
    lr: float = 1e-3  # learning rate of weights; that of biases is twice as high
    decay_at: tuple = (2 / 3, 5 / 6)  # fractions of the run after which the rate falls to a tenth
    # DEVIATION(warm-up): the authors had none; from random layers, the full rate at once can make
    # the loss explode.
    warm_up: float = 1 / 240  # fraction of the run in which the rate rises (500 iterations)
    momentum: float = 0.9  # of stochastic gradient descent
    weight_decay: float = 5e-4  # of weights; biases have none
    grad_clip: float = 0.0  # largest norm of the gradient of all weights; 0: no clipping
    alpha: float = 1.0  # weight of the localization loss; the published tutorial has 0.25
    zoom_out: bool = True  # augment by zooming out, too, which slows down learning in short runs
    seed: int = 0  # decides the initial weights, the order of images and their augmentation

    # Machine: what computes, and how often it reports
    micro_batch_size: int = 0  # most images in a GPU's memory at once; 0: the whole batch
    checkpoint_every: int = 500  # steps between checkpoints within an epoch; 0: none
    validate_every: int = 1  # epochs between validations; the last epoch always has one
    log_every: int = 10  # steps after which the losses are read and shown
    workers: int = 4  # extra processes per GPU that read and prepare images; 0: no extra ones
    device: str = "auto"  # cpu, cuda, mps, xpu, or auto for a GPU if there is one
    precision: str = "auto"  # of convolutions: float32, bfloat16, float16, or auto for the fastest
    compile: bool = False  # run the network through torch.compile, which takes minutes at first

    # Toy run: a first success without data
    toy: bool = False  # draw a small data set into the folder toy, and train on it from scratch
    toy_classes: int = TOY_CLASSES  # how many of the twenty classes the drawings have
    toy_images: int = TOY_IMAGES  # training images to draw


# What --toy changes of the above, except for what is given on the command line: five minutes on two
# CPU cores instead of a day on a GPU. In so short a time, many steps of a narrow network learn more
# than fewer steps of a wide one.
TOY = {
    "data_folder": "toy",
    "output_folder": "toy",
    "pretrained": False,
    "width": 0.125,
    "zoom_out": False,
    "batch_size": 2,
    "iterations": 220,  # 3520 steps of 2 images
    "lr": 7e-3,  # high, since clipping shortens most gradients
    "warm_up": 0.1,
    "decay_at": (0.8, 0.95),
    "grad_clip": 5.0,
    "validate_every": 8,
    "workers": 0,  # a narrow network needs both cores
}

# A resumed run has the parameters of its checkpoint, but for these: where things are, and what
# computes, may change with the machine; what a run started from no longer matters.
FREE_TO_DIFFER = {
    "data_folder",
    "output_folder",
    "preview",
    "checkpoint",
    "start_from",
    "pretrained",
    "base_weights",
    "micro_batch_size",
    "checkpoint_every",
    "validate_every",
    "log_every",
    "workers",
    "device",
    "precision",
    "compile",
    "toy",
}


# --------------------------------------------------------------------------------------- schedule


def n_steps(parameters):
    """Optimizer steps of the whole run: its iterations, which are of 32 images, in batches."""
    return max(1, round(parameters.iterations * 32 / parameters.batch_size))


def set_iterations(parameters, n_images):
    """
    Convert a length given in epochs to iterations. The last batch of an epoch may be smaller than
    the others, and is a step like them.

    :param parameters: Parameters
    :param n_images: number of training images
    :return: Parameters
    """
    if parameters.epochs == 0:
        return parameters
    total = parameters.epochs * count_batches(n_images, parameters.batch_size)
    return dataclasses.replace(parameters, iterations=total * parameters.batch_size / 32)


def learning_rate(step, parameters):
    """
    The learning rate of a step, counted from 0: it rises linearly during the warm-up, stays at
    `lr`, and falls to a tenth at each decay.
    """
    total = n_steps(parameters)
    n_warm_up = round(parameters.warm_up * total)
    n_decays = sum(step >= round(part * total) for part in parameters.decay_at)
    rise = min(1.0, (step + 1) / (n_warm_up + 1))
    return parameters.lr * 0.1**n_decays * rise


def count_epochs(progress, n_images, parameters):
    """The last epoch of a run, counted from 1. The last step may come in the middle of it."""
    n_left = max(0, n_steps(parameters) - progress.step)
    if n_left == 0 and progress.n_images == 0:  # nothing is left to do
        return progress.epoch
    n_left_of_epoch = count_batches(n_images - progress.n_images, parameters.batch_size)
    steps_per_epoch = count_batches(n_images, parameters.batch_size)
    n_more_epochs = max(0, math.ceil((n_left - n_left_of_epoch) / steps_per_epoch))
    return progress.epoch + 1 + n_more_epochs


# -------------------------------------------------------------------------------------- optimizer


def create_optimizer(model, parameters):
    """
    Stochastic gradient descent with two groups of parameters: biases have twice the learning rate
    and no weight decay, as in the authors' solver.
    """
    biases = []
    others = []
    for name, parameter in model.named_parameters():
        group = biases if name.endswith(".bias") else others
        group.append(parameter)
    groups = [
        {"params": biases, "lr_factor": 2.0, "weight_decay": 0.0},
        {"params": others, "lr_factor": 1.0, "weight_decay": parameters.weight_decay},
    ]
    return torch.optim.SGD(groups, lr=parameters.lr, momentum=parameters.momentum)


def freeze(model, n_groups):
    """
    Let the first groups of the base's convolutions keep their weights: 1 stands for conv1_1 and
    conv1_2, before the first pooling; 5 for all up to conv5_3.
    """
    frozen = tuple(f"conv{number}_" for number in range(1, n_groups + 1))
    for name, parameter in model.base.named_parameters():
        if name.startswith(frozen):
            # Neither a gradient nor a step. And the backward pass ends here: with four groups
            # frozen, a step takes less than half the time
            parameter.requires_grad_(False)


def set_learning_rate(optimizer, rate):
    """Give each group of parameters its learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


# --------------------------------------------------------------------------------------- one step


@dataclass
class Run:
    """A training run: everything that takes part in a step, and how far it is."""

    parameters: Parameters
    model: SSD300
    network: nn.Module  # the model; with several processes, DistributedDataParallel around it
    criterion: MultiBoxLoss
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler  # keeps float16 gradients from vanishing; idle otherwise
    fingerprints: dict  # {split: hash of its lists}, to recognise the data
    run_id: str  # tells its checkpoints from those of other runs
    versions: dict  # see describe_versions
    progress: Progress = field(default_factory=Progress)


def take_step(images, boxes, labels, run):
    """
    One step of the optimizer.

    :param images: (N, 3, 300, 300) float, the batch; with several processes this one's share of
        it, N >= 1
    :param boxes, labels: lists of N tensors, see MultiBoxLoss
    :param run: Run
    :return: (2,) tensor, the confidence and the localization loss; with several processes this
        one's share of them, which add up to the losses of the batch
    """
    parameters = run.parameters
    device = run.model.priors_cxcy.device
    images = send(images, device, memory_format=torch.channels_last)
    true_classes, true_locs = run.criterion.match(boxes, labels)
    n_positives = sum_over_processes((true_classes > 0).sum())  # whole batch

    run.optimizer.zero_grad()
    step_losses = torch.zeros(2, device=device)
    # Usually there is one part, the whole batch. Smaller parts need less
    # memory, and their gradients add up to the same
    part_size = parameters.micro_batch_size or len(images)
    for first in range(0, len(images), part_size):
        part = slice(first, first + part_size)
        is_last = part.stop >= len(images)
        with sync_gradients(run.network, is_last):
            with autocast(device, parameters.precision):
                locs_and_scores = run.network(images[part])
            losses = run.criterion.compare(
                *locs_and_scores, true_classes[part], true_locs[part], n_positives
            )
            # DistributedDataParallel averages gradients over the processes:
            # undo the division
            loss = run.criterion.total(losses) * world_size()
            run.scaler.scale(loss).backward()
        both_losses = [losses["confidence"], losses["localization"]]
        step_losses += torch.stack(both_losses).detach()

    if parameters.grad_clip > 0:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), parameters.grad_clip)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return step_losses


# -------------------------------------------------------------------------------------- one epoch


def train_one_epoch(train_loader, run, stop_request, forecast):
    """
    Train on the images that are left of an epoch, or up to the end of the run. A checkpoint is
    written every now and then, and at the end.

    :param train_loader: DataLoader over the TRAIN split, with ShuffledBatches
    :param run: Run; its progress is kept up to date
    :param stop_request: StopRequest
    :param forecast: Forecast
    :raises KeyboardInterrupt: the run was asked to stop; the checkpoint is written
    :raises NonFiniteLossError: the loss of a step is not finite
    """
    parameters = run.parameters
    progress = run.progress
    image_paths = train_loader.dataset.images
    run.model.train()
    n_left = max(0, n_steps(parameters) - progress.step)
    # The indices of each batch's images; the loader gives this process its share of these images
    batches = train_loader.batch_sampler.batches()[:n_left]
    recent = []  # (indices, losses) of the latest steps, the losses still on the device
    with tqdm(
        train_loader, total=len(batches), unit="step", dynamic_ncols=True, disable=rank() > 0
    ) as loader:
        # `batches` first: zip stops after the last of them, without asking for another image
        for indices, (images, boxes, labels, _difficulties) in zip(batches, loader, strict=False):
            set_learning_rate(run.optimizer, learning_rate(progress.step, parameters))
            recent.append((indices, take_step(images, boxes, labels, run)))
            progress.step += 1
            progress.n_images += len(indices)
            forecast.begin(progress.step)

            stop = stop_request.is_due(progress.step)
            save = stop or is_multiple(progress.step, parameters.checkpoint_every)
            if save or is_multiple(progress.step, parameters.log_every):
                loader.set_postfix(collect_losses(recent, progress, image_paths))
                forecast.add_steps(progress.step)
            if save:
                save_run(run)
            if stop:
                raise KeyboardInterrupt
    collect_losses(recent, progress, image_paths)
    forecast.end(progress.step)
    save_run(run)
    if stop_request.is_due():
        raise KeyboardInterrupt


def is_multiple(step, every):
    """Whether something that happens every so many steps is due; never if `every` is 0."""
    return every > 0 and step % every == 0


def validate(validation_loader, run, stop_request):
    """
    :return: Evaluation, and the part of it that goes into the history; None and {} without images
    :raises KeyboardInterrupt: the run was asked to stop. (Several processes finish the validation:
        they would have to agree on the batch)
    """

    def stop_if_asked():
        if world_size() == 1 and stop_request.is_due():
            raise KeyboardInterrupt

    if len(validation_loader.dataset) == 0:
        return None, {}
    evaluation = evaluate(
        validation_loader,
        run.model,
        run.criterion,
        precision=run.parameters.precision,
        after_batch=stop_if_asked,
    )
    losses = {f"validation_{name}": value for name, value in evaluation.losses.items()}
    total = run.criterion.total(evaluation.losses)
    return evaluation, {"validation_loss": total, **losses, "mAP": evaluation.mAP}


# ------------------------------------------------------------------------------------------- main


def main(parameters, given=None):
    """
    Train; after every epoch validate, and write the checkpoint and the history. Processes that
    torchrun started train together.

    :param parameters: Parameters
    :param given: names of the parameters that were given explicitly; by default those that differ
        from the values above
    :return: the history, a list with a dict per epoch; empty after a preview
    :raises FileNotFoundError: the lists or the checkpoint are missing
    :raises ValueError: parameters, data and checkpoint do not go together
    :raises OSError: the checkpoint could not be written
    :raises NonFiniteLossError: see train_one_epoch
    :raises SystemExit: the run was asked to stop; how to resume it is printed
    """
    if given is None:
        given = changed_parameters(parameters)
    command = as_command_line(parameters, given)
    command_to_resume = as_command_line(parameters, given - {"checkpoint"}) + " --checkpoint auto"
    if {"epochs", "iterations"} <= given:
        raise ValueError("--epochs and --iterations: a run has one length: give one of them")
    if parameters.toy:
        toy = {name: value for name, value in TOY.items() if name not in given}
        parameters = dataclasses.replace(parameters, **toy)
    check_parameters(parameters)
    stop_request = StopRequest()
    with process_group(), stop_request:
        try:
            if parameters.preview > 0:
                draw_preview(parameters)
                return []
            run, train_set, validation_set = begin_run(parameters, given)
            # From here on signals only set a flag: a step, or a checkpoint, is not interrupted
            with stop_request.deferred():
                take_output_folder(run)
                command = command_to_resume
                return train(run, train_set, validation_set, stop_request)
        except KeyboardInterrupt:
            number = stop_request.signal_number or signal.SIGINT
            launcher = "python" if world_size() == 1 else "torchrun ..."
            print(f"Stopped by {signal.Signals(number).name}.", end=" ")
            print(f"Resume with: {launcher} train.py {command}")
            sys.exit(128 + number)  # as a shell reports a program that a signal ended


def draw_preview(parameters):
    """
    Draw what a run would be trained on, see write_preview. No weights are read, so that priors that
    come with a file to start from are not known.

    :raises ValueError: a run would be resumed, whose parameters are in its checkpoint; or the
        priors would be those of a file
    """
    if parameters.checkpoint:
        raise ValueError("--preview shows what a new run is trained on: leave out --checkpoint")
    if parameters.priors not in PRIORS:
        raise ValueError(f"--preview draws priors that are {' or '.join(PRIORS)}: name one of them")
    if parameters.start_from:
        print(f"The priors are those of --priors {parameters.priors}; no file is read here.")
    train_set, _ = load_data(parameters)
    if rank() == 0:
        path = Path(parameters.output_folder) / "preview.png"
        write_preview(train_set, parameters.preview, path, PRIORS[parameters.priors]())


def begin_run(parameters, given):
    """
    Everything up to the first step: what the run begins with, its data, its model.

    :param parameters, given: see main
    :return: Run, and two PascalVOCDatasets, to train on and to validate with
    """
    device = choose_device(parameters.device)
    torch.backends.cudnn.benchmark = True  # all batches have one shape: a search for speed pays
    parameters, state = find_start(parameters)
    if parameters.checkpoint:
        parameters = take_over_parameters(parameters, given, state, FREE_TO_DIFFER)
    check_parameters(parameters)  # again: they may have changed
    if state is not None:
        parameters = take_over_network(parameters, given, state)
    check_output_folder(parameters, state)
    train_set, validation_set = load_data(parameters)
    parameters = set_iterations(parameters, len(train_set))
    run = prepare_run(state, train_set, validation_set, parameters, device)
    return run, train_set, validation_set


def train(run, train_set, validation_set, stop_request):
    """
    Train epoch after epoch, to the end of the run.

    :param run: Run, at its beginning or where a checkpoint left it
    :param train_set, validation_set: PascalVOCDatasets
    :param stop_request: StopRequest, its signals deferred
    :return: the history
    :raises KeyboardInterrupt: the run was asked to stop, and is saved
    """
    parameters = run.parameters
    progress = run.progress
    train_loader, validation_loader = create_loaders(run, train_set, validation_set)
    n_epochs = count_epochs(progress, len(train_set), parameters)
    n_left = max(0, n_steps(parameters) - progress.step)
    print_settings(run)
    print_plan(run, train_set, validation_set, n_left, n_epochs)
    epochs = range(progress.epoch + 1, n_epochs)
    n_validations = 1 + sum(is_multiple(epoch, parameters.validate_every) for epoch in epochs)
    forecast = Forecast(run, n_steps(parameters), n_validations, len(validation_set))

    evaluation = None
    while progress.epoch < n_epochs:
        train_set.set_epoch(progress.epoch)
        train_loader.batch_sampler.set_epoch(progress.epoch, progress.n_images)
        n_before = progress.n_images
        start = time.perf_counter()
        train_one_epoch(train_loader, run, stop_request, forecast)
        images_per_second = (progress.n_images - n_before) / (time.perf_counter() - start)

        validation = {}
        is_last = progress.epoch + 1 == n_epochs
        if is_last or is_multiple(progress.epoch + 1, parameters.validate_every):
            start = time.perf_counter()
            evaluation, validation = validate(validation_loader, run, stop_request)
            forecast.add_validation(time.perf_counter() - start)
        rate = learning_rate(progress.step - 1, parameters)
        row = epoch_row(progress, run.criterion, rate, images_per_second, validation)
        is_best = progress.finish_epoch(row)
        save_run(run, is_best)  # again, now with the history: a validation can take long
        write_history(run, is_last)
        print_epoch(row)

    if evaluation is None:  # there was nothing left to train
        evaluation, _ = validate(validation_loader, run, stop_request)
    if evaluation is not None:
        print_average_precisions(evaluation.average_precisions, evaluation.mAP)
    folder = Path(parameters.output_folder)
    if parameters.toy and rank() == 0:
        draw_sheet(validation_set.images, run.model, folder / "detections.png")
    print(f"The checkpoint and history.jsonl, with a line per epoch, are in {folder.resolve()}.")
    return progress.history


def load_data(parameters):
    """
    The images to train on and those to validate with; toy data are drawn first.

    :return: two PascalVOCDatasets
    :raises ValueError: there are no training images
    """
    folder = parameters.data_folder
    if parameters.toy:
        with first_process_first():
            create_toy_data(
                folder, parameters.toy_classes, parameters.toy_images, seed=parameters.seed
            )
    train_set = PascalVOCDataset(
        folder, "TRAIN", parameters.keep_difficult, parameters.seed, parameters.zoom_out
    )
    if len(train_set) == 0:
        raise ValueError(f"{folder}: TRAIN_images.json lists no images: make the lists again")
    split = "VAL" if has_lists(folder, "VAL") else "TEST"
    return train_set, PascalVOCDataset(folder, split)


def create_loaders(run, train_set, validation_set):
    """
    The loaders of the images to train on and of those to validate with; if there are several
    processes, of this one's share of them.

    :return: two DataLoaders
    """
    parameters = run.parameters
    device = run.model.priors_cxcy.device
    share = (rank(), world_size())
    batches = ShuffledBatches(len(train_set), parameters.batch_size, parameters.seed, *share)
    validation_batches = ordered_batches(len(validation_set), parameters.batch_size, *share)
    train_loader = create_loader(train_set, batches, parameters.workers, device)
    validation_loader = create_loader(
        validation_set, validation_batches, parameters.workers, device
    )
    return train_loader, validation_loader


def prepare_run(state, train_set, validation_set, parameters, device):
    """
    The run that is about to begin or to be resumed.

    :param state: see find_start
    :return: Run
    :raises ValueError: a resumed run had other classes or lists
    """
    fingerprints = {dataset.split: dataset.fingerprint() for dataset in (train_set, validation_set)}
    if parameters.checkpoint:
        check_same_data(
            state, parameters.checkpoint, train_set.label_map, fingerprints, parameters.data_folder
        )
    model = create_model(state, train_set.label_map, parameters)
    model = model.to(device, memory_format=torch.channels_last)
    run = create_run(model, parameters, fingerprints)
    if parameters.checkpoint:
        restore_training(run, state, len(train_set))
    return run


def create_run(model, parameters, fingerprints):
    """Put together what takes part in training a model, on the model's device; see Run."""
    freeze(model, parameters.freeze)
    if parameters.compile:
        model.compile()
    network = model
    if world_size() > 1:
        network = DistributedDataParallel(
            model, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    device = model.priors_cxcy.device
    is_float16 = choose_precision(device, parameters.precision) == torch.float16
    return Run(
        parameters=parameters,
        model=model,
        network=network,
        criterion=MultiBoxLoss(model.priors_cxcy, alpha=parameters.alpha),
        optimizer=create_optimizer(model, parameters),
        scaler=torch.amp.GradScaler(device.type, enabled=is_float16),
        fingerprints=fingerprints,
        versions=describe_versions(),
        run_id=uuid.uuid4().hex,  # that of the first process counts, which writes the checkpoints
    )


def create_model(state, label_map, parameters):
    """
    A new SSD300, or that of a checkpoint.

    :param state: see find_start
    :param label_map: the classes of the lists
    :return: SSD300 on the CPU
    """
    if parameters.checkpoint:
        return build_model(state)
    torch.manual_seed(parameters.seed)  # for initial weights; all else has its own generators
    if state is not None:
        weights, taken_over = match_classes(state, label_map)
        print(f"Starting from the weights of {parameters.start_from}.")
        if state["label_map"] != label_map:
            shown = printable(", ".join(taken_over)) or "none"
            print(f"Classes taken over: {shown}. The others start anew.")
        return build_model({**state, "model": weights, "label_map": label_map})
    with first_process_first():  # it downloads the base
        pretrained = parameters.pretrained and not parameters.base_weights
        model = SSD300(
            len(label_map),
            pretrained,
            priors_cxcy=PRIORS[parameters.priors](),
            width=parameters.width,
            label_map=label_map,
        )
    if parameters.base_weights:
        base, input_shift = load_base_weights(parameters.base_weights)
        model.base.load_state_dict(base)
        model.input_shift.copy_(input_shift)
    return model


def check_parameters(parameters):
    """:raises ValueError: a parameter has no sensible value; the message says what is expected"""
    check_precision(parameters.precision)
    for name in ("batch_size", "iterations", "lr", "log_every", "validate_every"):
        check_range(name, getattr(parameters, name), above=0)
    for name in ("epochs", "alpha", "weight_decay", "grad_clip"):
        check_range(name, getattr(parameters, name), low=0)
    for name in ("micro_batch_size", "checkpoint_every", "workers", "preview"):
        check_range(name, getattr(parameters, name), low=0)
    check_range("freeze", parameters.freeze, low=0, high=5)
    check_range("width", parameters.width, above=0, high=MAX_WIDTH)
    is_new = not parameters.checkpoint and not parameters.start_from
    if parameters.priors not in PRIORS and (is_new or parameters.priors != OTHER_PRIORS):
        raise ValueError(f"priors: expected {' or '.join(PRIORS)}, got {parameters.priors!r}")
    if parameters.width != 1 and is_new and (parameters.pretrained or parameters.base_weights):
        raise ValueError(
            f"--width {parameters.width}: published weights have width 1, so other widths begin "
            "with random ones: give --no-pretrained, and no --base-weights"
        )
    check_range("seed", parameters.seed, low=0, high=2**32 - 1)
    check_range("momentum", parameters.momentum, low=0, below=1)
    check_range("warm_up, a fraction of the run", parameters.warm_up, low=0, high=1)
    for part in parameters.decay_at:
        check_range("decay_at, fractions of the run", part, low=0, high=1)


if __name__ == "__main__":
    with readable_errors():
        main(*read_command_line(Parameters, __doc__.split("\n\n")[0]))
