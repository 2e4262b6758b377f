"""
Reads files of weights without running anything that is in them.

A file of torch.save holds a pickle, and beside it the numbers of the tensors. A pickle is a program
for a small stack machine: its instructions can import anything and call it. Therefore

1. check_pickle() looks at all the instructions before any is carried out, and refuses what no file
   of weights needs;
2. InertUnpickler carries them out with stand-ins for the classes and functions that they name,
   which do nothing but keep what they are given;
3. TensorInserter puts tensors in the places of their stand-ins.
"""

import contextlib
import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch

from annotations import printable


class WrongFileError(ValueError):
    """A file that is damaged, hostile, or holds no weights that we know; the message names it."""


@contextlib.contextmanager
def describe_read_errors(path):
    """
    A context in which errors say which file they come from. A damaged or hostile file can lead to
    nearly any error, and its texts must not reach the terminal as they are.

    :raises WrongFileError: in place of any other error
    """
    try:
        yield
    except WrongFileError as error:
        raise WrongFileError(f"{path}: {printable(str(error))}: use another file") from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise WrongFileError(
            f"{path}: could not be read as weights ({printable(lines[0])}): it is damaged, or was "
            "written by another program: use another file"
        ) from error


# ----------------------------------------------------------------------------- the two file formats


def read_file(path, how_to_get_one):
    """
    Read a file of weights in either format of torch.save, without running anything.

    :param path: the file
    :param how_to_get_one: what the message says if there is none
    :return: its content: dicts, lists, tuples, numbers, texts and tensors, and a StandIn for every
        object of another class
    :raises FileNotFoundError: there is no such file
    :raises WrongFileError: it is damaged, or asks for code to be run
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights: {how_to_get_one}")
    n_bytes = path.stat().st_size
    with open(path, "rb") as file, describe_read_errors(path):
        is_zip = file.read(2) == b"PK"
        file.seek(0)
        return read_zip(file, n_bytes) if is_zip else read_old(file, n_bytes)


def read_zip(file, n_bytes):
    """
    Read the format of torch.save since version 1.6: a zip archive with one folder, in which
    `data.pkl` is the pickle, and `data/0`, `data/1` ... are the numbers of the tensors. zipfile
    compares everything that it reads with its checksum.

    :param file: binary file
    :param n_bytes: its size
    :return: its content, see read_file
    """
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > n_bytes:
                raise WrongFileError(f"{entry.filename} is packed, which torch.save never does")
        names = archive.namelist()
        folder = names[0].partition("/")[0]
        byte_order = f"{folder}/byteorder"
        if byte_order in names and archive.read(byte_order) != b"little":
            raise WrongFileError("it was written on a big-endian machine")
        pickled = io.BytesIO(archive.read(f"{folder}/data.pkl"))
        content, storages = unpickle(pickled, n_bytes)
        numbers = {
            key: storage.to_tensor(archive.read(f"{folder}/data/{key}"))
            for key, storage in storages.items()
        }
    return TensorInserter(numbers).copy(content)


# How a file in the old format begins
MAGIC_NUMBER = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def read_old(file, n_bytes):
    """
    Read the format of torch.save before version 1.6: pickles of a magic number, of the format's
    version, of facts about the machine, of the content, and of a list of keys. Then come the
    numbers of the tensors: for each key how many there are (8 bytes), and the numbers.

    For the arguments and the result see read_zip.
    """
    data = file.read()
    if data[257:262] == b"ustar":
        raise WrongFileError("it is a tar archive of PyTorch 0.1, a format that is not supported")
    if not data.startswith(MAGIC_NUMBER):
        raise WrongFileError("it was not written by torch.save, or is damaged")
    file = io.BytesIO(data)  # a file on the disk would make room for a text of 4 GB that is made up
    file.seek(len(MAGIC_NUMBER))
    unpickle(file, n_bytes)  # the version
    machine, _ = unpickle(file, n_bytes)
    if machine["little_endian"] is not True:
        raise WrongFileError("it was written on a big-endian machine")
    content, storages = unpickle(file, n_bytes)
    keys, _ = unpickle(file, n_bytes)
    numbers = {}
    for key in keys:
        storage = storages[key]
        if int.from_bytes(file.read(8), "little") != storage.n_values:
            raise WrongFileError("it is damaged: a tensor's size is given in two ways")
        numbers[key] = storage.to_tensor(file.read(storage.n_bytes))
    return TensorInserter(numbers).copy(content)


class Storage(NamedTuple):
    """The numbers of a tensor, or of several that share them, as a pickle describes them."""

    dtype: torch.dtype
    key: str
    n_values: int

    @property
    def n_bytes(self):
        return self.n_values * self.dtype.itemsize

    def to_tensor(self, values):
        """
        :param values: the numbers as bytes, as they are in the file
        :return: (n_values,) tensor
        :raises WrongFileError: there are more or fewer than the pickle says
        """
        if len(values) != self.n_bytes:
            raise WrongFileError(
                f"it is damaged: a tensor should have {self.n_bytes} bytes, and has {len(values)}"
            )
        if not values:  # frombuffer refuses them
            return torch.empty(0, dtype=self.dtype)
        return torch.frombuffer(bytearray(values), dtype=self.dtype)


# ------------------------------------------------------------------------------------ the stand-ins


class StandIn:
    """What a file's classes and functions become: it keeps its arguments and its state."""

    def __new__(cls, *arguments):
        stand_in = super().__new__(cls)
        stand_in.arguments = arguments
        stand_in.state = {}
        return stand_in

    def __setstate__(self, state):
        self.state = state


class TensorStandIn(StandIn):
    """A tensor: its first arguments are a Storage, where in it to begin, its shape and strides."""


class ParameterStandIn(StandIn):
    """A parameter: its first argument is a tensor."""


class MarkedTensorStandIn:
    """A tensor with attributes, such as torch.compile adds, which are ignored."""

    def __new__(cls, stand_in, _tensor_class, arguments, _attributes):
        return stand_in(*arguments)


class DictStandIn(dict):
    """A dict of any class. Python 2 pickled the items of an OrderedDict as a list of pairs."""

    def __init__(self, items=()):
        super().__init__()
        for name, value in items if isinstance(items, list) else ():
            if not isinstance(name, str):
                raise WrongFileError("a dict has a key that is no text")
            self[name] = value

    def __setstate__(self, state):
        """Ignore what a state dict notes about its modules."""


# All that a pickle may name, and what stands in for it. Nothing of this is imported.
STAND_INS = {
    "collections.OrderedDict": DictStandIn,
    "torch._utils._rebuild_tensor": TensorStandIn,
    "torch._utils._rebuild_tensor_v2": TensorStandIn,
    "torch._utils._rebuild_parameter": ParameterStandIn,
    "torch._tensor._rebuild_from_type_v2": MarkedTensorStandIn,
    "torch.Tensor": StandIn,
    # What the published tutorial's checkpoints need besides: they hold its model and its optimizer
    "model.SSD300": StandIn,
    "model.VGGBase": StandIn,
    "model.AuxiliaryConvolutions": StandIn,
    "model.PredictionConvolutions": StandIn,
    "torch.nn.modules.conv.Conv2d": StandIn,
    "torch.nn.modules.pooling.MaxPool2d": StandIn,
    "torch.nn.parameter.Parameter": ParameterStandIn,
    "torch.nn.backends.thnn._get_thnn_function_backend": StandIn,  # in modules of PyTorch 0.4
    "torch.optim.optimizer._RequiredParameter": StandIn,
    "torch.optim.sgd.SGD": StandIn,
    "collections.defaultdict": DictStandIn,
    "__builtin__.dict": StandIn,  # what a defaultdict fills itself with
    "builtins.dict": StandIn,
    "__builtin__.set": StandIn,  # in modules of PyTorch 1.5 and later
    "builtins.set": StandIn,
}
# The types of numbers, which a pickle names by the class of their storage
DTYPES = {
    f"{module}.{kind}Storage": dtype
    for module in ("torch", "torch.cuda")
    for kind, dtype in (
        ("Float", torch.float32),
        ("Double", torch.float64),
        ("Half", torch.float16),
        ("BFloat16", torch.bfloat16),
        ("Long", torch.int64),
        ("Int", torch.int32),
        ("Short", torch.int16),
        ("Char", torch.int8),
        ("Byte", torch.uint8),
        ("Bool", torch.bool),
    )
}


# -------------------------------------------------------------------------- reading what is pickled


def unpickle(file, n_bytes):
    """
    Read a pickle without running anything.

    :param file: binary file; left at the end of the pickle
    :param n_bytes: size of the whole file of weights
    :return: the content, and {key: Storage} of the tensors in it
    """
    start = file.tell()
    check_pickle(file)
    end = file.tell()
    file.seek(start)
    unpickler = InertUnpickler(io.BytesIO(file.read(end - start)), n_bytes)
    return unpickler.load(), unpickler.storages


class InertUnpickler(pickle.Unpickler):
    """An unpickler that imports nothing: whatever a pickle names, it gets a stand-in for it."""

    def __init__(self, file, n_bytes):
        super().__init__(file, encoding="utf-8")  # of texts that Python 2 wrote
        self.storages = {}
        self.n_bytes_left = n_bytes  # the tensors cannot take more than the file has
        # Classes for this pickle alone: whatever it may do to them ends with it
        self.stand_ins = {name: type(name, (base,), {}) for name, base in STAND_INS.items()}

    def find_class(self, module, name):
        full_name = f"{module}.{name}"
        return DTYPES[full_name] if full_name in DTYPES else self.stand_ins[full_name]

    def persistent_load(self, record):
        """What torch.save keeps outside the pickle: ("storage", dtype, key, device, n_values)."""
        if record[0] == "module":  # in the old format: a class and its source code
            return record[1]
        kind, dtype, key, _, n_values, *view = record
        is_plain = isinstance(key, str) and isinstance(n_values, int) and view in ([], [None])
        if kind != "storage" or not is_plain:
            raise WrongFileError("it has a record that is neither a storage nor a module")
        storage = Storage(dtype, key, n_values)
        if key not in self.storages:
            self.storages[key] = storage
            self.n_bytes_left -= storage.n_bytes
        if storage != self.storages[key] or n_values < 0 or self.n_bytes_left < 0:
            raise WrongFileError(
                f"it is damaged: no tensor of {n_values} numbers would fit into the file"
            )
        return storage


class TensorInserter:
    """Copies the content of a pickle, with tensors in place of their stand-ins."""

    def __init__(self, numbers):
        """:param numbers: {key of a storage: (n,) tensor}"""
        self.numbers = numbers
        self.n_copied = 0

    def copy(self, content):
        """
        :param content: what InertUnpickler made of a pickle
        :return: the same with tensors, which share their numbers as they did when they were saved
        :raises WrongFileError: it has too many objects; a small pickle can name each of them again
            and again, so that whoever goes through all of it would never come to an end
        """
        self.n_copied += 1
        if self.n_copied > MAX_OBJECTS:
            raise WrongFileError("it has more objects in it than any file of weights")
        if isinstance(content, dict):
            return {name: self.copy(value) for name, value in content.items()}
        if isinstance(content, (list, tuple)):
            values = [self.copy(value) for value in content]
            return values if isinstance(content, list) else tuple(values)
        if isinstance(content, TensorStandIn):
            storage, offset, size, stride = content.arguments[:4]
            # as_strided refuses to reach beyond the numbers
            return self.numbers[storage.key].as_strided(size, stride, offset)
        if isinstance(content, ParameterStandIn):
            return self.copy(content.arguments[0])
        if isinstance(content, StandIn):
            copied = type(content)(*content.arguments)
            copied.state = self.copy(content.state)
            return copied
        return content


# -------------------------------------------------------------- checking a pickle before it is read

# The instructions that torch.save writes (those of version 2 of the pickle protocol)
INSTRUCTIONS = {
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),  # objects that are named again
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
}
# A checkpoint with the history of 120,000 epochs, the most that a training run has by default, has
# 3,000,000
MAX_OBJECTS = 4_000_000
MARK = 0  # on the stack: where the items of a tuple, list or dict begin; no object is that small


def check_pickle(file):
    """
    Read the instructions of a pickle, without carrying them out, and refuse what no file of weights
    needs: other names, other instructions, and objects that cost far more than their place in the
    file. This follows the sizes of the objects on the stack: 1, or for a tuple, the number of
    objects in it and in the tuples in it. Python compares and hashes tuples with all that is in
    them, which for nested ones can take for ever, or crash the interpreter.

    :param file: binary file; left at the end of the pickle
    :raises WrongFileError: it has something else in it
    """
    stack = []
    memo = {}  # objects by number, to be named again
    n_objects = 0
    for n_before, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        check_instruction(opcode.name, argument, n_before)
        taken = take_from_stack(stack, opcode)
        if opcode.name in ("SETITEM", "SETITEMS") and max(taken[1::2], default=1) > 1:
            raise WrongFileError("a dict has a tuple as a key, which no file of weights needs")
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        for _ in opcode.stack_after:
            size = size_of_result(opcode.name, argument, taken, memo)
            stack.append(size)
            n_objects += size
        if max(n_before, n_objects) > MAX_OBJECTS:
            raise WrongFileError("it has more objects in it than any file of weights")


def check_instruction(name, argument, n_before):
    """
    :param name: of an instruction
    :param argument: which follows it in the pickle
    :param n_before: number of instructions before it
    :raises WrongFileError: no file of weights needs it
    """
    if name not in INSTRUCTIONS:
        raise WrongFileError(f"it has an instruction that torch.save never writes, {name}")
    if name == "GLOBAL":
        full_name = argument.replace(" ", ".")
        if full_name not in STAND_INS and full_name not in DTYPES:
            raise WrongFileError(
                f"it asks for {full_name}, which no file of weights needs; nothing was run"
            )
    # Python makes room for all numbers up to the largest: gigabytes, for one that is made up
    if name in ("BINPUT", "LONG_BINPUT") and argument > n_before:
        raise WrongFileError("it numbers its objects in an impossible way")
    # Larger ones can be chosen so that all have the same hash, which makes a dict of them slow
    if name == "LONG1" and abs(argument) >= 2**63:
        raise WrongFileError("it has a number of more than 64 bits")


def take_from_stack(stack, opcode):
    """Remove the objects that an instruction takes; return their sizes, the topmost first."""
    taken = []
    for kind in reversed(opcode.stack_before):
        if kind is pickletools.stackslice:  # all down to the last mark
            while stack[-1] != MARK:
                taken.append(stack.pop())
        else:
            taken.append(stack.pop())
    return taken


def size_of_result(name, argument, taken, memo):
    """The size of the object that an instruction leaves on the stack."""
    if name == "MARK":
        return MARK
    if name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
        return 1 + sum(taken)
    if name in ("BINGET", "LONG_BINGET"):
        return memo[argument]
    return 1
