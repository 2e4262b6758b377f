"""What a script needs to run: command line, errors, device, precision, several processes, being asked to stop."""

import argparse
import contextlib
import dataclasses
import inspect
import os
import re
import signal
import threading
import warnings

import torch
import torch.distributed as dist

# --------------------------------------------------------------------------------------------------------- command lines


def read_command_line(parameters_class, description, argv=None, positional=()):
    """
    Let the command line change the parameters that stand at the beginning of a script: `batch_size: int = 32  # comment` can be
    changed with `--batch-size 8`, and the comment is what --help says about it.

    :param parameters_class: a dataclass whose fields have a default each: a text, a number, a truth value (--x / --no-x) or a
        tuple (any number of values)
    :param description: what the script does
    :param argv: arguments; by default those of the program
    :param positional: names of those that take the arguments without a name, in order
    :return: the parameters, and the set of the names of those that were given
    """
    comments = dict(
        re.findall(
            r"^    (\w+): .*?  # (.+)$", inspect.getsource(parameters_class), flags=re.MULTILINE
        )
    )
    # SUPPRESS: what was not given is absent from the result
    parser = argparse.ArgumentParser(description=description, argument_default=argparse.SUPPRESS)
    for field in dataclasses.fields(parameters_class):
        default = field.default
        flag = "--" + field.name.replace("_", "-")
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        help_text = comments.get(field.name, "") + f" (default: {shown})" * (shown != "")
        help_text = help_text.replace("%", "%%")  # argparse formats it
        if field.name in positional:
            nargs = "+" if isinstance(default, tuple) else None
            parser.add_argument(
                field.name,
                nargs=nargs,
                metavar=field.name.upper().removesuffix("S"),
                help=help_text,
            )
        elif isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_text)
        elif isinstance(default, tuple):
            parser.add_argument(
                flag, nargs="+", type=type(default[0]) if default else str, help=help_text
            )
        else:
            parser.add_argument(flag, type=field.type, help=help_text)
    given = vars(parser.parse_args(argv))
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    return parameters_class(**values), set(values)


def describe_error(error):
    """What a script says when it stops because of an expected error; of a DataLoader worker's, the last line of its traceback."""
    message = str(error).strip()
    if message.startswith("Caught "):
        message = message.splitlines()[-1].partition(": ")[2]
    return f"error: {message}"


# ---------------------------------------------------------------------------------------- where and how precisely it all runs


def choose_device(name):
    """
    :param name: "auto" for a GPU if there is one, "cpu", "cuda", or one of several GPUs, like "cuda:1"
    :return: torch.device
    :raises ValueError: there is no such device here
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if (
        name == "cuda" and world_size() > 1
    ):  # torchrun says which of the machine's GPUs is this process's
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):  # others lack float64, or are untried
            raise RuntimeError("only cpu and cuda are supported")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise ValueError(
            f"--device {name}: not available here ({str(error).splitlines()[0]}): use --device cpu"
        ) from error
    return device


def choose_precision(device, precision):
    """
    The type that convolutions compute in.

    :param device: torch.device
    :param precision: "float32", "bfloat16", "float16", or "auto": bfloat16 where the hardware computes in it, else float16 on a
        GPU and float32 on a processor
    :return: torch.dtype
    :raises ValueError: another precision
    """
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if precision in dtypes:
        return dtypes[precision]
    if precision != "auto":
        raise ValueError(f"precision: expected auto, {', '.join(dtypes)}, got {precision!r}")
    if device.type == "cuda":  # bfloat16 came with Ampere, capability 8.0
        return (
            torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
        )
    # float32 on older releases of torch, which have no public way to ask what the processor can do
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    has_bfloat16 = capabilities.get("amx_bf16", False) or capabilities.get("avx512_bf16", False)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def autocast(device, precision):
    """
    A context in which convolutions run in the chosen precision; the weights, the loss and the decoding of boxes are in float32
    in any case. For the arguments and the error see choose_precision.
    """
    dtype = choose_precision(device, precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


# ------------------------------------------------------------------------------------------------------- several processes


@contextlib.contextmanager
def process_group():
    """
    A context in which the processes that torchrun started work together, each on its device; what any but the first prints is
    dropped. Without torchrun there is one process, and nothing to do.
    """
    if (
        "TORCHELASTIC_RUN_ID" not in os.environ
    ):  # torchrun sets it, and all that init_process_group reads
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    output = (
        contextlib.redirect_stdout(None) if rank() > 0 else contextlib.nullcontext()
    )  # the first process speaks for all
    with output, warnings.catch_warnings():
        # Said of rescale_factors, (1, 512, 1, 1), whose memory is the same in every layout
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        yield
    dist.destroy_process_group()  # not after an error: the others may be waiting, and torchrun ends them


def world_size():
    """How many processes work together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank():
    """The number of this process, from 0. Number 0 is the one that prints and writes."""
    return dist.get_rank() if world_size() > 1 else 0


@contextlib.contextmanager
def first_process_first():
    """A context that process 0 of each machine goes through before the others: it downloads or draws what they then find."""
    local_rank = int(os.environ["LOCAL_RANK"]) if world_size() > 1 else 0
    if local_rank > 0:
        dist.barrier()
    yield
    if local_rank == 0 and world_size() > 1:
        dist.barrier()


# ---------------------------------------------------------------------------------------------------- being asked to stop


class InterruptedTrainingError(
    BaseException
):  # like KeyboardInterrupt: no `except Exception` should take it for its own
    """The training was asked to stop, by Ctrl-C or SIGTERM; `number` is the signal's."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interruption:
    """
    A context in which Ctrl-C and SIGTERM raise InterruptedTrainingError; while it is held, they are only noted in `number`, so
    that a step can be finished and saved. A second one ends the program at once, but not under torchrun, which sends several.
    """

    def __init__(self):
        self.number, self.held, self.handlers = 0, False, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # Python allows it there only
            self.handlers = {
                number: signal.signal(number, self._note)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *error):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.number = number
        if world_size() == 1:
            self.__exit__()
        if not self.held:
            raise InterruptedTrainingError(number)

    @contextlib.contextmanager
    def hold(self, held=True):
        """A context in which a signal is only noted, or with held=False again raises, also one that was noted before."""
        before, self.held = self.held, held
        if self.number and not held:
            raise InterruptedTrainingError(self.number)
        try:
            yield
        finally:
            self.held = before
