"""
How a training run begins from a file, or is resumed from a checkpoint: which file that is, whether
it can be used, what of it holds from here on, and that no run overwrites another one.
"""

import dataclasses
from pathlib import Path

import torch

from annotations import printable
from checkpoints import BEST, LAST, PREVIOUS, load_checkpoint, save_run
from datasets import count_batches
from history import Progress, find_non_finite, write_history
from published_weights import COCO, check_tensor, name_priors
from runtime import rank
from safe_loading import WrongFileError, describe_read_errors

# The parameters that both say how long a run is: epochs count in place of iterations
LENGTH = {"epochs", "iterations"}


# ------------------------------------------------------------------------------- where a run begins


def find_start(parameters):
    """
    What the run begins with.

    :param parameters: Parameters
    :return: the parameters, their `checkpoint` a file if a run is resumed, else empty; and the
        checkpoint to resume or to start from, or None to begin anew
    :raises FileNotFoundError, WrongFileError: see load_checkpoint
    :raises ValueError: the file is of no use for what was asked
    """
    path = parameters.checkpoint
    state = None
    if parameters.start_from and parameters.base_weights:
        raise ValueError("--start-from brings a base along: leave out --base-weights")
    if path == "auto":
        path, state = find_last_checkpoint(parameters)
        parameters = dataclasses.replace(parameters, checkpoint=str(path or ""))
        found = f"Resuming from {path}." if path else "No checkpoint there yet: a new run begins."
        print(f"{parameters.output_folder}: {found}")
    elif path and parameters.start_from:
        raise ValueError(
            "--checkpoint resumes a run, --start-from begins a new one: give one of them"
        )
    elif path == COCO:
        raise ValueError("--checkpoint resumes a run: to begin one, give --start-from coco")
    elif path:
        try:
            state = load_run(path, parameters)
        except WrongFileError as error:
            advice = "--checkpoint auto takes the one before, if there is one in --output-folder"
            raise WrongFileError(f"{error}. {advice}") from error
    if state is None and parameters.start_from:
        state = load_checkpoint(parameters.start_from)
        with describe_read_errors(parameters.start_from):
            check_weights_are_numbers(state["model"])
    return parameters, state


def find_last_checkpoint(parameters):
    """
    The checkpoint that `--checkpoint auto` resumes: the last one in the output folder or, if
    that is damaged, the one before.

    :param parameters: train.Parameters
    :return: the path and the checkpoint, see load_run; None and None if there is none
    :raises WrongFileError: there are some, and none can be read
    """
    faults = []
    for name in (LAST, PREVIOUS):
        path = Path(parameters.output_folder) / name
        if not path.exists():
            continue
        try:
            return path, load_run(path, parameters)
        except (OSError, WrongFileError) as error:
            faults.append(str(error))
            print(f"Skipped: {error}")
    if faults:
        shown = "; ".join(faults)
        raise WrongFileError(f"{parameters.output_folder}: no checkpoint can be read: {shown}")
    return None, None


# --------------------------------------------------------------------------- a checkpoint to resume


def load_run(path, parameters):
    """
    Read the checkpoint of a training run that is to be resumed.

    :param path: the file
    :param parameters: train.Parameters, whose types those in the file have to have
    :return: the checkpoint
    :raises FileNotFoundError, WrongFileError: see load_checkpoint
    :raises ValueError: it has weights, but no run
    """
    state = load_checkpoint(path)
    if "optimizer" not in state:
        raise ValueError(
            f"{path}: has weights, but no run to resume: begin a new one from them "
            f"(--start-from {path})"
        )
    with describe_read_errors(path):
        check_training_state(state, parameters)
        check_optimizer_state(state["optimizer"], state["model"])
        check_weights_are_numbers(state["model"])
    return state


def check_training_state(state, parameters):
    """
    :param state: a checkpoint with an optimizer
    :param parameters: train.Parameters, as this run was started
    :raises WrongFileError: what it takes to resume a run is missing or has another form
    """
    forms = {
        "scaler": dict,
        "parameters": dict,
        "data": dict,
        "epoch": int,
        "iteration": int,
        "n_images": int,
        "best_mAP": (float, int),
        "history": list,
    }
    for name, form in forms.items():
        if not isinstance(state.get(name), form):
            raise WrongFileError(f"its run cannot be resumed: it has no valid {name!r}")
    if min(state["epoch"], state["iteration"], state["n_images"]) < 0:
        raise WrongFileError(
            "its run cannot be resumed: its epoch, step or image count is negative"
        )
    if torch.as_tensor(state.get("loss_sums", ())).shape != (2,):
        raise WrongFileError("its run cannot be resumed: it has no valid 'loss_sums'")
    for row in state["history"]:
        is_row = isinstance(row, dict) and "epoch" in row
        if not is_row or not all(isinstance(value, (int, float)) for value in row.values()):
            raise WrongFileError("its run cannot be resumed: it has no valid 'history'")
    if "batch_size" not in state["parameters"]:
        raise WrongFileError("its run cannot be resumed: it has no batch size")
    for item in dataclasses.fields(parameters):
        value = state["parameters"].get(item.name, item.default)
        if not has_type_of(item, value):
            raise WrongFileError(
                f"its run cannot be resumed: its parameter {item.name} should be of type "
                f"{item.type.__name__}, not {type(value).__name__}"
            )


def has_type_of(item, value):
    """Whether a value can be that of a parameter, a field of a dataclass."""
    numbers = (int, float)
    if item.type is tuple:
        return isinstance(value, tuple) and all(type(part) in numbers for part in value)
    # Iterations are a fraction where they follow from epochs, or from a part of a batch of 32
    if item.type is float or item.name == "iterations":
        return type(value) in numbers
    return type(value) is item.type


def check_optimizer_state(optimizer_state, weights):
    """:raises WrongFileError: not the state of train.create_optimizer for these weights"""
    names = sorted(weights, key=lambda name: not name.endswith(".bias"))  # biases come first
    if not isinstance(optimizer_state, dict):
        raise WrongFileError("its optimizer has no state")
    groups = optimizer_state.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise WrongFileError("its optimizer has no groups of parameters")
    numbers = [number for group in groups for number in group.get("params", ())]
    if len(groups) != 2 or numbers != list(range(len(names))):
        raise WrongFileError("its optimizer has other groups of parameters")
    states = optimizer_state.get("state")
    if not isinstance(states, dict) or not set(states) <= set(numbers):
        raise WrongFileError("its optimizer has momentum for other weights")
    for number, momentum in states.items():
        name = names[number]
        if not isinstance(momentum, dict):
            raise WrongFileError(f"its optimizer has no valid momentum for {name}")
        buffer = momentum.get("momentum_buffer")
        if buffer is not None:
            check_tensor(f"the momentum of {name}", buffer, weights[name].shape)


def check_weights_are_numbers(weights):
    """:raises WrongFileError: a weight is infinite or not a number, and so would be every loss"""
    broken = find_non_finite(weights)
    if broken:
        raise WrongFileError(
            f"its weights are not all finite numbers ({broken[0]} ...): its run went wrong before "
            "it was saved"
        )


# ---------------------------------------------------------------------------------- what it decides


def take_over_parameters(parameters, given, state, free_to_differ):
    """
    The parameters of a resumed run: the checkpoint's, except for those that were given on the
    command line and those that decide nothing about the result. What differs is printed.

    :param parameters: train.Parameters, as this run was started
    :param given: names of those that were given explicitly
    :param state: the checkpoint
    :param free_to_differ: names of those that are always this run's
    :return: train.Parameters
    """
    # A parameter that an older checkpoint lacks had the value that is its default now
    defaults = {item.name: item.default for item in dataclasses.fields(parameters)}
    saved = {**defaults, **state["parameters"]}
    current = dataclasses.asdict(parameters)
    changes = {}
    for name in current.keys() - free_to_differ - LENGTH:
        if name not in given:
            changes[name] = saved[name]
    if not given & LENGTH:
        changes |= {name: saved[name] for name in LENGTH}
    print_differences(current, saved, changes, free_to_differ)
    return dataclasses.replace(parameters, **changes)


def print_differences(current, saved, changes, free_to_differ):
    """
    Print which parameters a resumed run takes from its checkpoint, and which it does not.

    :param current, saved: {name: value} of the parameters, as this run was started and as the
        checkpoint has them
    :param changes: those of the checkpoint that hold from here on
    :param free_to_differ: see take_over_parameters
    """
    for name in current:
        if name in free_to_differ | LENGTH or saved[name] == current[name]:
            continue
        print_difference(name, current[name], printable(str(saved[name])), name in changes)
    lengths = describe_length(current), describe_length(saved)
    if lengths[0] != lengths[1]:
        is_saved_one = changes.keys() >= LENGTH
        print_difference("length", *lengths, is_saved_one)


def print_difference(name, current, saved, is_saved_one):
    """Print which of two values of a parameter holds."""
    if is_saved_one:
        print(f"{name}: {saved} as in the checkpoint (instead of {current}).")
    else:
        print(f"{name}: {current} as given (the checkpoint has {saved}).")


def describe_length(parameters):
    """
    The option that gives a run its length.

    :param parameters: {name: value}
    """
    name = "epochs" if parameters["epochs"] > 0 else "iterations"
    return f"--{name} {parameters[name]:.10g}"


def take_over_network(parameters, given, state):
    """
    What the weights of a file were made for comes with them: the network's width, and the priors
    that its offsets are relative to.

    :param parameters, given: see take_over_parameters
    :param state: the checkpoint that the run begins with
    :return: train.Parameters
    :raises ValueError: something else was given explicitly
    """
    file = parameters.checkpoint or parameters.start_from
    priors = name_priors(state["priors_cxcy"])
    of_file = {
        "width": (state["width"], f"has the width {state['width']}, which its weights keep"),
        "priors": (
            priors,
            f"was trained with other priors ({priors}), which its weights depend on",
        ),
    }
    changes = {}
    for name, (value, explanation) in of_file.items():
        current = getattr(parameters, name)
        if value == current:
            continue
        if name in given:
            raise ValueError(
                f"--{name} {current}: {file} {explanation}: leave out --{name}, or begin a new run "
                "without these weights"
            )
        print(f"{name}: {value} as in {file}.")
        changes[name] = value
    return dataclasses.replace(parameters, **changes)


def check_same_data(state, checkpoint, label_map, fingerprints, data_folder):
    """
    A resumed run has to have the same classes and the same lists.

    :param state: the checkpoint, and `checkpoint` its path
    :param label_map: the classes of the lists
    :param fingerprints: of the lists, by split
    :raises ValueError: they differ; the message says what to do
    """
    if state["label_map"] != label_map:
        raise ValueError(
            f"{checkpoint} was trained on the classes {list(state['label_map'])[1:]}, but the "
            f"lists in {data_folder} have {list(label_map)[1:]}: give the folder it was trained on "
            "(--data-folder), or begin a new run from its weights (--start-from)"
        )
    for split, fingerprint in fingerprints.items():
        if state["data"].get(split) != fingerprint:
            raise ValueError(
                f"{checkpoint} was trained with other lists than those in {data_folder}: the "
                f"images or objects of {split} differ. Give the folder with its lists "
                "(--data-folder), or begin a new run from its weights (--start-from)"
            )


def restore_training(run, state, n_train):
    """
    Put a run back to where a checkpoint left it. What its parameters say about momentum, weight
    decay, learning rate and batch size holds from here on.

    :param run: train.Run, just created, its model with the checkpoint's weights
    :param state: the checkpoint
    :param n_train: number of training images
    """
    of_checkpoint = ("params", "lr")  # the rate is set in each step
    options = [
        {name: value for name, value in group.items() if name not in of_checkpoint}
        for group in run.optimizer.param_groups
    ]
    run.optimizer.load_state_dict(state["optimizer"])  # the momentum of each weight, and options
    for group, current in zip(run.optimizer.param_groups, options, strict=True):
        group.update(current)
    if run.scaler.is_enabled() and state["scaler"]:
        run.scaler.load_state_dict(state["scaler"])

    # Older files have a tensor of sums
    loss_sums = torch.as_tensor(state["loss_sums"], dtype=torch.float64).tolist()
    step = state["iteration"]
    batch_size = run.parameters.batch_size
    if batch_size != state["parameters"]["batch_size"]:
        # Steps are counted as if it had always been this one. Each epoch ends with a step
        steps_per_epoch = count_batches(n_train, batch_size)
        n_left_of_epoch = count_batches(n_train - state["n_images"], batch_size)
        step = (state["epoch"] + 1) * steps_per_epoch - n_left_of_epoch
    run.progress = Progress(
        epoch=state["epoch"],
        step=step,
        n_images=state["n_images"],
        loss_sums=loss_sums,
        best_mAP=state["best_mAP"],
        history=state["history"],
    )
    run.run_id = state.get("run_id", run.run_id)  # older files have none


# -------------------------------------------------------------------------------- the output folder


def check_output_folder(parameters, state):
    """
    Make sure that no other training run is going to be overwritten.

    :param parameters: train.Parameters
    :param state: the checkpoint that the run begins with, or None
    :raises ValueError: the output folder holds another run
    :raises OSError: it is not a folder
    """
    folder = Path(parameters.output_folder)
    if folder.exists() and not folder.is_dir():
        raise OSError(f"{folder}: this is not a folder: name another --output-folder")
    for path in files_of_runs(folder):
        if is_of_this_run(path, parameters, state) or may_be_replaced(path, parameters):
            continue
        raise ValueError(
            f"{path}: is of an earlier training run (or damaged), and would be overwritten: resume "
            "that one (--checkpoint), move its files away, or name another --output-folder"
        )


def files_of_runs(folder):
    """The checkpoints that are in an output folder."""
    return [folder / name for name in (LAST, PREVIOUS, BEST) if (folder / name).exists()]


def is_of_this_run(path, parameters, state):
    """
    Whether a file in the output folder is a checkpoint of the run that is about to resume. Runs are
    told apart by an identity that their checkpoints carry. Older ones have none, and damaged files
    cannot tell: they count as this run's if it resumes from a file in the same folder.
    """
    if not parameters.checkpoint:
        return False
    resumes_here = path.parent.resolve() == Path(parameters.checkpoint).parent.resolve()
    content = load_if_readable(path)
    if content is None:
        return resumes_here
    if "run_id" in state and "run_id" in content:
        return state["run_id"] == content["run_id"]
    return resumes_here and "optimizer" in content


def may_be_replaced(path, parameters):
    """Whether a file is of a toy run, and a new one begins."""
    if parameters.checkpoint or not parameters.toy:
        return False
    content = load_if_readable(path) or {}
    saved = content.get("parameters")
    return isinstance(saved, dict) and saved.get("toy") is True


def load_if_readable(path):
    """The checkpoint in a file; None if the file is damaged."""
    try:
        return load_checkpoint(path)
    except (OSError, WrongFileError):
        return None


def take_output_folder(run):
    """
    Make the output folder this run's, by a checkpoint before the first step: what could not be
    written after hours of training fails now, and --checkpoint auto finds this run in any case.

    :param run: train.Run, for which check_output_folder has been called
    :raises OSError: nothing can be written there
    """
    if rank() > 0:
        return
    folder = Path(run.parameters.output_folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{folder}: this folder could not be made ({error}): name another --output-folder"
        ) from error
    is_new = not run.parameters.checkpoint
    if is_new and files_of_runs(folder):  # those of a toy run, which makes way for this one
        for path in [*files_of_runs(folder), folder / "history.jsonl"]:
            path.unlink(missing_ok=True)
    if not (folder / BEST).exists():  # the best one so far may be in another folder
        run.progress.best_mAP = -1.0

    start = None if is_new else Path(run.parameters.checkpoint).resolve()
    if start != (folder / LAST).resolve():
        # If it is the previous one, the last one may be damaged, and must not take its place
        save_run(run, keep_previous=start != (folder / PREVIOUS).resolve())
    write_history(run)
