"""Reads files of weights, old and new, without running anything that is in them."""

import contextlib
import io
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch

from annotations import create_label_map, voc_labels
from model import SSD300


class WrongFileError(ValueError):
    """A file that is damaged, asks for code to be run, or has no weights that are known here; the message names it."""


@contextlib.contextmanager
def describe_read_errors(path):
    """
    A context in which errors say which file they come from; a damaged or hostile one leads to nearly any.

    :raises WrongFileError: in place of any other error
    """
    try:
        yield
    except WrongFileError as error:
        raise WrongFileError(f"{path}: {error}: use another file") from error
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        # torch's message begins with advice to run what is in the file; what it refused stands further down
        refused = re.search(r"unsupported (?:global: )?GLOBAL (\S+)", text, flags=re.IGNORECASE)
        detail = re.search(r"WeightsUnpickler error: (.+)", text)
        reason = (
            f"it asks for {refused[1]}, which is not run"
            if refused
            else (detail[1] if detail else text.splitlines()[0])
        )
        raise WrongFileError(
            f"{path}: not readable as weights ({reason}): it is damaged, or was written by another program: use another file"
        ) from error


# ----------------------------------------------------------------------------------------------------------- what is in a file


def read_file(path, how_to_get_one):
    """
    Read a file of weights of either format of torch.save, without running anything.

    :param path: the file
    :param how_to_get_one: what the message says if there is none
    :return: what is in it: from a zip file whatever there is; from one in the old format a dict with MODEL_KEYS, if it has the
        published tutorial's model, or else a dict of tensors
    :raises FileNotFoundError: there is no such file
    :raises WrongFileError: it is damaged, or asks for code to be run
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights: {how_to_get_one}")
    with describe_read_errors(path):
        with open(path, "rb") as file:
            is_zip = file.read(2) == b"PK"
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                n_bytes = sum(entry.file_size for entry in archive.infolist())
            if n_bytes > path.stat().st_size:  # torch.save compresses nothing
                raise WrongFileError(
                    f"its parts would grow to {n_bytes} bytes when read, more than it has"
                )
            return torch.load(path, map_location="cpu", weights_only=True)
        old_file = OldFile(path.read_bytes())
        return old_file.tutorial_checkpoint() or old_file.tensors()


class Storage(NamedTuple):
    """Where the numbers of a tensor are in a file of the old format, as its pickle has it."""

    dtype: torch.dtype
    key: str
    n_values: int


class StandIn:
    """
    What the classes and functions that a pickle names are for us: something that keeps the arguments it is called with and the
    state it is given, and does nothing.
    """

    def __new__(cls, *arguments):
        stand_in = super().__new__(cls)
        stand_in.arguments, stand_in.state = arguments, {}
        return stand_in

    def __setstate__(self, state):
        self.state = state


class MappingStandIn(dict):
    """What dicts of any class are for us: dicts. Version 2 of Python pickled their items as an argument."""

    def __init__(self, items=()):
        super().__init__(items if isinstance(items, list) else ())

    def __setstate__(self, state):
        """Ignore notes about the state dict's modules."""


# All that a pickle may name. Nothing of it is imported: each becomes a stand-in or, of storages, the type of their numbers.
STAND_INS = {
    "model": ("SSD300", "VGGBase", "AuxiliaryConvolutions", "PredictionConvolutions"),
    "torch._utils": ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"),
    "torch.nn.backends.thnn": ("_get_thnn_function_backend",),  # every module of PyTorch 0.4 had it
    "torch.nn.modules.conv": ("Conv2d",),
    "torch.nn.modules.pooling": ("MaxPool2d",),
    "torch.nn.parameter": ("Parameter",),
    "torch.optim.optimizer": ("_RequiredParameter",),
    "torch.optim.sgd": ("SGD",),
    "__builtin__": (
        "dict",
        "set",
    ),  # what a defaultdict fills itself with; every module of PyTorch 1.5 had a set
    "builtins": ("dict", "set"),
}
MAPPINGS = {"collections": ("OrderedDict", "defaultdict")}
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "LongStorage": torch.int64,
}


class InertUnpickler(pickle.Unpickler):
    """
    Reads the pickles in a file of torch.save's old format. Python's own would import and call whatever a pickle names; this one
    knows the few names above, and what they stand for does nothing. torch's (weights_only=True) reads state dicts in this
    format, but no model objects.
    """

    def __init__(self, file, storages, n_bytes):
        """
        :param file: binary file
        :param storages: {key: Storage}, gets those that are met
        :param n_bytes: size of the whole file; no storage can be larger
        """
        super().__init__(file, encoding="utf-8")  # of texts that version 2 of Python wrote
        self.storages, self.n_bytes = storages, n_bytes
        self.classes = {}  # made anew for each pickle: what it may do to them ends with it

    def find_class(self, module, name):
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return STORAGES[name]
        is_mapping = name in MAPPINGS.get(module, ())
        if not is_mapping and name not in STAND_INS.get(module, ()):
            raise WrongFileError(
                f"it asks for {module}.{name}, which no file of weights needs; nothing was run"
            )
        if (module, name) not in self.classes:
            self.classes[module, name] = type(
                name, (MappingStandIn if is_mapping else StandIn,), {}
            )
        return self.classes[module, name]

    def persistent_load(self, record):
        """What torch.save kept out of the pickle: storages, and beside the class of a module its source code."""
        if record[0] == "module":
            _, module_class, _, _ = record
            if module_class not in self.classes.values():
                raise WrongFileError("it has source code of something that is no module")
            return module_class  # the source code was for comparison only
        kind, dtype, key, _, n_values, view = record
        is_plain = isinstance(key, str) and isinstance(n_values, int) and view is None
        if kind != "storage" or dtype not in STORAGES.values() or not is_plain:
            raise WrongFileError("it has a record that is neither a storage nor a module")
        storage = Storage(dtype, key, n_values)
        if (
            not 0 <= n_values * dtype.itemsize <= self.n_bytes
            or self.storages.setdefault(key, storage) != storage
        ):
            raise WrongFileError(
                f"it says that it has {n_values} numbers in a part, but has only {self.n_bytes} bytes in all"
            )
        return storage


class OldFile:
    """
    A file in the format of torch.save before version 1.6: pickles of a magic number, of the format's version, of facts about the
    machine, of the content, and of the storages' keys; then for each key the number of values (8 bytes), and the values.
    """

    MAGIC_NUMBER = 0x1950A86A20F9469CFC6C

    def __init__(self, data):
        """
        :param data: bytes
        :raises WrongFileError: another format, or the file ends too early
        """
        if data[257:262] == b"ustar":
            raise WrongFileError(
                "it is a tar archive, as PyTorch 0.1 wrote, which is not read here"
            )
        self.data, self.file, self.storages = data, io.BytesIO(data), {}
        self.starts, self.values = (
            {},
            {},
        )  # {key: position of its values}, {key: (n,) tensor} of those that were needed
        if self._unpickle() != self.MAGIC_NUMBER:
            raise WrongFileError("it was not written by torch.save")
        _, machine = self._unpickle(), self._unpickle()
        if machine["little_endian"] is not True:
            raise WrongFileError("it was written on a big-endian machine")
        self.content = self._unpickle()
        position = None
        for key in self._unpickle():
            position = self.file.tell() if position is None else position
            storage = self.storages[key]
            if int.from_bytes(data[position : position + 8], "little") != storage.n_values:
                raise WrongFileError(
                    "it is damaged: the sizes of its parts differ from what it says about them"
                )
            self.starts[key] = position + 8
            position += 8 + storage.n_values * storage.dtype.itemsize
            if position > len(data):
                raise WrongFileError("it is damaged: it ends too early")

    def _unpickle(self):
        start = self.file.tell()
        for n_before, (opcode, argument, _) in enumerate(pickletools.genops(self.file)):
            # Python's unpickler makes room up to the largest number that a pickle gives to an object: gigabytes for a lie
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > n_before + 1:
                raise WrongFileError("its pickle numbers its objects in an impossible way")
        self.file.seek(start)
        return InertUnpickler(self.file, self.storages, len(self.data)).load()

    def tensor(self, record):
        """
        :param record: stand-in for a tensor or parameter
        :return: tensor; like all of this file, a view of values that are read once
        :raises WrongFileError: it is something else
        """
        name = type(record).__name__
        if name in ("Parameter", "_rebuild_parameter"):
            record = record.arguments[0]
            name = type(record).__name__
        if not isinstance(record, StandIn) or name not in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            raise WrongFileError(f"it has a {name} where a tensor should be")
        storage, offset, size, stride = record.arguments[:4]
        if storage.key not in self.values:
            start = self.starts[storage.key]
            part = bytearray(self.data[start : start + storage.n_values * storage.dtype.itemsize])
            self.values[storage.key] = torch.frombuffer(part, dtype=storage.dtype)
        return self.values[storage.key].as_strided(
            size, stride, offset
        )  # refuses to reach beyond the values

    def tensors(self):
        """The content, a dict of tensors; :raises WrongFileError: it is something else"""
        if not isinstance(self.content, dict):
            raise WrongFileError("it has no weights")
        return {name: self.tensor(record) for name, record in self.content.items()}

    def tutorial_checkpoint(self):
        """
        The checkpoint that the published tutorial's train.py wrote: a dict with the model, an object, and the optimizer, which is
        of no use without its program.

        :return: dict with MODEL_KEYS, or None if there is no such model in the file
        :raises WrongFileError: the model is not what it should be
        """
        model = self.content.get("model") if isinstance(self.content, dict) else None
        if not isinstance(model, StandIn) or type(model).__name__ != "SSD300":
            return None
        n_classes = len(voc_labels) + 1
        with torch.device("meta"):
            names = list(SSD300(n_classes, pretrained=False).state_dict())
        state = {}
        for name in names:  # "base.conv1_1.weight" is in the model's module base, in that one's conv1_1, its parameter weight
            *modules, parameter = name.split(".")
            holder = model
            for module in modules:
                holder = holder.state["_modules"][module]
            state[name] = self.tensor(holder.state["_parameters"][parameter])
        if len(state["pred_convs.cl_conv4_3.bias"]) != 4 * n_classes:
            raise WrongFileError(
                "its model has other classes than VOC's, and their names are not in the file"
            )
        return {
            "model": state,
            "label_map": create_label_map(voc_labels),
            "priors_cxcy": self.tensor(model.state["priors_cxcy"]),  # 1:3 was 0.333 in them
            "input_shift": torch.zeros(1, 3, 1, 1),
        }
