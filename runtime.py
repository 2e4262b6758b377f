"""
What a script needs to run: its command line and error messages, the device and the precision,
several processes, and being asked to stop. Nothing here knows about detection.
"""

import argparse
import contextlib
import dataclasses
import inspect
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torchvision

# ------------------------------------------------------------------------ command line and errors


def read_command_line(parameters_class, description, argv=None, positional=()):
    """
    Turn a dataclass of parameters into a command line. The field `batch_size: int = 32  # comment`
    becomes `--batch-size 8`, and its comment is what --help says about it. A comment of its own
    line, `# Schedule: ...` after an empty line, begins a group of that name in --help.

    :param parameters_class: a dataclass whose fields all have a default: a text, a number, a
        boolean (--x / --no-x) or a tuple (any number of values)
    :param description: what the script does
    :param argv: the arguments; by default those of the program
    :param positional: names of the fields that take the arguments without a flag, in order; a
        question mark after a name says that it may be left out
    :return: the parameters, and the set of the names that were given explicitly
    """
    # SUPPRESS: a parameter that was not given is absent from the result
    parser = argparse.ArgumentParser(
        description=description,
        argument_default=argparse.SUPPRESS,
        formatter_class=HelpFormatter,
    )
    groups = {"options": parser}
    comments = read_comments(parameters_class)
    for field in dataclasses.fields(parameters_class):
        title, comment = comments.get(field.name, ("options", ""))
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        help_text = _help_text(field.default, comment)
        _add_argument(groups[title], field, help_text, positional)
    given = vars(parser.parse_args(argv))
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    return parameters_class(**values), set(values)


def read_comments(parameters_class):
    """
    The comments in the source of a dataclass.

    :return: {field: (title of its group, comment)}
    """
    comments = {}
    title = "options"
    is_after_empty_line = False
    for line in inspect.getsource(parameters_class).splitlines():
        heading = re.match(r"    # (\w[\w ]*):", line)
        field = re.match(r"    (\w+): .*?  # (.+)$", line)
        if heading and is_after_empty_line:
            title = heading[1].lower()
        if field:
            comments[field[1]] = (title, field[2])
        is_after_empty_line = not line.strip()
    return comments


class HelpFormatter(argparse.HelpFormatter):
    """Fits a description to the terminal's width, but keeps lines of code, which are indented."""

    def _fill_text(self, text, width, indent):
        filled = []
        for paragraph in text.strip("\n").split("\n\n"):
            if not paragraph.startswith(" "):
                paragraph = super()._fill_text(paragraph, width, indent)
            filled.append(paragraph)
        return "\n\n".join(filled)


def _help_text(default, comment):
    """What --help says about a parameter."""
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    text = f"{comment} (default: {shown})" if shown else comment
    return text.replace("%", "%%")  # argparse formats it


def _add_argument(parser, field, help_text, positional):
    """Add one parameter to the command line, or to a group of it."""
    default = field.default
    flag = "--" + field.name.replace("_", "-")
    may_be_left_out = f"{field.name}?" in positional
    if may_be_left_out or field.name in positional:
        nargs = "+" if isinstance(default, tuple) else None
        nargs = "?" if may_be_left_out else nargs
        metavar = field.name.upper().removesuffix("S")
        parser.add_argument(field.name, nargs=nargs, metavar=metavar, help=help_text)
    elif isinstance(default, bool):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_text)
    elif isinstance(default, tuple):
        element_type = type(default[0]) if default else str
        parser.add_argument(flag, nargs="+", type=element_type, help=help_text)
    else:
        parser.add_argument(flag, type=field.type, help=help_text)


def as_command_line(parameters, names):
    """
    The inverse: the options that set these parameters.

    :param parameters: an instance of such a dataclass
    :param names: of the fields to mention
    :return: a text like "--batch-size 8 --no-keep-difficult"
    """
    options = []
    for name in sorted(names):
        value = getattr(parameters, name)
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            values = value if isinstance(value, tuple) else [value]
            options.append(f"--{flag} {shlex.join(map(str, values))}")
    return " ".join(options)


def changed_parameters(parameters):
    """The names of the fields of a dataclass whose values are not their defaults: a set."""
    fields = dataclasses.fields(parameters)
    return {item.name for item in fields if getattr(parameters, item.name) != item.default}


def check_range(name, value, low=-math.inf, high=math.inf, above=-math.inf, below=math.inf):
    """
    :param name: what the message calls the value
    :param low, high: the smallest and the largest value that is allowed
    :param above, below: bounds that are not allowed themselves
    :raises ValueError: the value lies outside, or is infinite or not a number
    """
    if low <= value <= high and above < value < below and math.isfinite(value):
        return
    bounds = {"of at least": low, "of at most": high, "above": above, "below": below}
    expected = [f"{word} {bound}" for word, bound in bounds.items() if math.isfinite(bound)]
    raise ValueError(f"{name}: expected a number {' and '.join(expected)}, got {value}")


def check_folder(path):
    """
    Make a folder if it is missing, and write a file there as a trial: better before hours of work
    than after.

    :param path: a folder
    :raises OSError: it cannot be made or written to; the message names it
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{path}: cannot be written to ({reason}): name another folder") from error


def check_file(path):
    """
    Find out whether a file can be written; make its folder if that is missing. What the file holds
    is left alone.

    :raises OSError: it is a folder, or its folder cannot be written to
    """
    if Path(path).is_dir():
        raise OSError(f"{path}: is a folder: name a file")
    check_folder(Path(path).parent)


@contextlib.contextmanager
def written_whole(path):
    """
    A context for writing a file: it gives the path of another one beside it, with the same ending,
    which takes the file's place in the end, once it is on the disk. Whoever reads the file gets the
    earlier content or the new one, and after an error or a crash the earlier one is still there.

    :param path: the file to write; its folder exists, and a symbolic link is followed
    """
    path = Path(path).resolve()
    unfinished = path.with_name(f"unfinished_{path.name}")
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def count(number, noun):
    """Like "1 image" or "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextlib.contextmanager
def readable_errors():
    """
    A context for a whole script. Errors that a user can do something about, which are OSError and
    ValueError throughout this project, end the program with their message instead of a traceback;
    so does Ctrl-C, without one.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)  # as a shell reports a program that a signal ended
    except (OSError, ValueError) as error:
        sys.exit(describe_error(error))


def describe_error(error):
    """What a script prints about an error before it ends, mostly a line."""
    message = str(error).strip()
    if message.startswith("Caught "):  # in a DataLoader's worker: the last line of its traceback
        message = message.splitlines()[-1].partition(": ")[2]
    return f"error: {message}"


# --------------------------------------------------------------------------- device and precision


# The kinds of devices, and how several processes combine their gradients on each; Apple's GPUs
# cannot
BACKENDS = {"cpu": "gloo", "cuda": "nccl", "xpu": "xccl", "mps": None}


def find_gpu():
    """The kind of this machine's GPU, cuda (AMD's too), mps or xpu; cpu if there is none."""
    if not torch.accelerator.is_available():
        return "cpu"
    kind = torch.accelerator.current_accelerator().type
    return kind if kind in BACKENDS else "cpu"


def choose_device(name):
    """
    :param name: "auto" for a GPU if there is one, "cpu", "cuda", "mps", "xpu", or one of several,
        like "cuda:1"
    :return: torch.device
    :raises ValueError: there is no such device here, or several processes cannot share it
    """
    several = world_size() > 1
    if name == "auto":
        name = find_gpu()
        if several and BACKENDS[name] is None:
            name = "cpu"
    if name in ("cuda", "xpu") and several:  # torchrun numbers the processes of a machine
        name = f"{name}:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        if device.type not in BACKENDS:
            raise RuntimeError(f"only {', '.join(BACKENDS)} are supported")
        if several and BACKENDS[device.type] is None:
            raise RuntimeError("several processes cannot combine their gradients on it")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {name}: not available here ({reason}): use --device cpu"
        ) from error
    if device.index is not None and device.type in ("cuda", "xpu"):
        # What pins memory, and whatever else names no device, would take room on the first one
        torch.accelerator.set_device_index(device.index)
    return device


PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def check_precision(precision):
    """:raises ValueError: not the name of a precision"""
    if precision != "auto" and precision not in PRECISIONS:
        names = ", ".join(["auto", *PRECISIONS])
        raise ValueError(f"precision: expected {names}, got {precision!r}")


def choose_precision(device, precision):
    """
    The number type that convolutions compute in.

    :param device: torch.device
    :param precision: "float32", "bfloat16", "float16", or "auto": bfloat16 where the hardware
        computes in it, else float16 on a CUDA GPU and float32 elsewhere
    :return: torch.dtype
    :raises ValueError: unknown precision
    """
    check_precision(precision)
    if precision != "auto":
        return PRECISIONS[precision]
    if device.type == "cuda":  # bfloat16 came with Ampere, compute capability 8.0
        has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if device.type == "xpu":
        return torch.bfloat16 if torch.xpu.is_bf16_supported() else torch.float32
    if device.type == "mps":  # what is safe; whether the others are faster was not tried
        return torch.float32
    # Releases of torch before get_capabilities have no public way to ask: float32 there
    capabilities = {}
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
    has_bfloat16 = capabilities.get("amx_bf16", False) or capabilities.get("avx512_bf16", False)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def describe_precision(device, precision):
    """The chosen precision in words, and why it is float32 on a CPU, which takes twice as long."""
    dtype = choose_precision(device, precision)
    text = f"with convolutions in {str(dtype).removeprefix('torch.')}"
    if device.type == "cpu" and precision == "auto" and dtype == torch.float32:
        text += " (this processor has no fast bfloat16)"
    return text


def autocast(device, precision):
    """
    A context in which convolutions run in the chosen precision. Weights, losses and the decoding of
    boxes stay in float32. For the arguments and the error see choose_precision.
    """
    dtype = choose_precision(device, precision)
    if dtype == torch.float32:  # which autocast may warn of, even where it is not enabled
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)


def describe_versions():
    """
    What a result depends on besides the parameters.

    :return: {"torch": version, "torchvision": version, "revision": of this code, if git knows it}
    """
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
        revision = result.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):  # no git here
        revision = ""
    return {
        "torch": str(torch.__version__),  # of a class that no checkpoint should contain
        "torchvision": str(torchvision.__version__),
        "revision": revision or "unknown",
    }


# ------------------------------------------------------------------------------- several processes


@contextlib.contextmanager
def process_group():
    """
    A context in which the processes that torchrun started work together, each on its own device.
    Only the first one prints. Without torchrun there is one process and nothing to set up.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun sets it
        yield
        return
    dist.init_process_group(process_group_backend())
    silence = contextlib.redirect_stdout(None) if rank() > 0 else contextlib.nullcontext()
    with silence, warnings.catch_warnings():
        # About rescale_factors, (1, 512, 1, 1), whose memory is the same in every layout
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        yield
    # Not after an error: the other processes may be waiting, and torchrun ends them
    dist.destroy_process_group()


def process_group_backend():
    """What init_process_group is told: how the processes talk, on CPUs and on the GPUs here."""
    backend = BACKENDS[find_gpu()]
    if backend in (None, "gloo"):
        return "gloo"
    return f"cpu:gloo,{find_gpu()}:{backend}"


def world_size():
    """How many processes work together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank():
    """The number of this process, from 0. Process 0 is the one that prints and writes."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_over_processes(tensor):
    """The sum of a tensor over all processes, in place; with one process, the tensor as it is."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def sync_gradients(network, wanted):
    """
    A context for a forward and a backward pass, which decides whether several processes combine
    their gradients after it. If a batch comes in parts, only the last one needs that.

    :param network: a network, or DistributedDataParallel around one
    :param wanted: whether they are combined
    """
    if wanted or world_size() == 1:
        return contextlib.nullcontext()
    return network.no_sync()


@contextlib.contextmanager
def first_process_first():
    """
    A context that process 0 of each machine runs through before the others: it downloads or draws
    what they then find on disk.
    """
    local_rank = int(os.environ["LOCAL_RANK"]) if world_size() > 1 else 0
    if local_rank > 0:
        dist.barrier()
    yield
    if local_rank == 0 and world_size() > 1:
        dist.barrier()


# ---------------------------------------------------------------------------- being asked to stop


class StopRequest:
    """
    A context in which SIGTERM, by which clusters ask a program to stop, raises KeyboardInterrupt as
    Ctrl-C does. Within `deferred`, both only set a flag, and the program stops where it asks for
    it: see `is_due`. A second Ctrl-C ends a single process at once.
    """

    AGREE_EVERY = 10  # steps after which several processes ask one another

    def __init__(self):
        self.signal_number = 0  # of the signal that arrived, else 0
        self._is_deferred = False
        self._handlers = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # Python allows it only there
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error):
        self._restore_handlers()

    def _restore_handlers(self):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        self.signal_number = number
        if world_size() == 1:  # torchrun sends its processes several signals
            self._restore_handlers()
        if not self._is_deferred:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def deferred(self):
        """A context in which signals only set a flag, so that work can be finished and saved."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def is_due(self, step=0):
        """
        Whether the program should stop now. All processes get the same answer, so they have to ask
        at the same places.

        :param step: number of the step, the same in all processes; they only agree every ten steps
        """
        if world_size() > 1:
            if step % self.AGREE_EVERY != 0:
                return False
            numbers = torch.tensor(self.signal_number)
            dist.all_reduce(numbers, dist.ReduceOp.MAX)
            self.signal_number = int(numbers)
        return self.signal_number != 0
