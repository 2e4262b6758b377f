"""
Files of weights: our own checkpoints, dicts of plain state (tensors, numbers, texts) that are written whole or not at all, and
those that others published, which become like ours when they are read. Nothing in a file is ever run.
"""

import contextlib
import io
import os
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.models.detection import SSD300_VGG16_Weights

from model import FEATURE_MAPS, SSD300, download_weights
from utils import IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, create_label_map, voc_labels

# What a checkpoint has at least: enough to make the model again. Training adds what it needs to go on.
MODEL_KEYS = ("model", "label_map", "priors_cxcy", "input_shift")
# In place of a file: torchvision's SSD300, trained on COCO, with the classes of PASCAL VOC
COCO = "coco"
HOW_TO_GET_A_MODEL = (
    f"take --checkpoint {COCO}, which downloads a detector of VOC's classes (136 MB); name another with --checkpoint; or train "
    "one: python train.py, or in minutes python train.py --toy, which leaves toy/checkpoint_ssd300.pth.tar"
)
HOW_TO_GET_THE_BASE = "the README, Start from published weights, says where it was published; or train without --base-weights"


class WrongFileError(ValueError):
    """A file that is damaged, asks for code to be run, or has no weights that are known here; the message names it."""


@contextlib.contextmanager
def naming(path):
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
    :raises UnavailableWeightsError: the download failed
    """
    if str(path) == COCO:
        content, voc_classes = download_coco(), voc_classes in (True, None)
    else:
        content = read_file(path, HOW_TO_GET_A_MODEL)
    with naming(path):
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
    :raises UnavailableWeightsError: the download failed
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


def load_base_weights(path):
    """
    Read the base that the paper starts from: `vgg16_reducedfc.pth`, Caffe's VGG-16 with decimated fc6 and fc7.

    :param path: the file
    :return: state dict of VGGBase, and the input_shift (1, 3, 1, 1) that goes with it
    :raises FileNotFoundError: there is no such file
    :raises WrongFileError: it is damaged, asks for code to be run, or is another file
    """
    content = read_file(path, HOW_TO_GET_THE_BASE)
    with naming(path):
        if not isinstance(content, dict) or PAPER_BASE["base.conv7"] + ".weight" not in content:
            raise WrongFileError("not the base of the paper, vgg16_reducedfc.pth")
        state = rename(content, PAPER_BASE)
        check_weights(state, n_classes=1, part="base.")
        state, input_shift = fold_input(state, CAFFE_MEAN)
    return {name.removeprefix("base."): tensor for name, tensor in state.items()}, input_shift


def to_checkpoint(content, voc_classes):
    """
    Tell the kind of a file by what is in it, and convert it.

    :param content: what read_file returned
    :param voc_classes: keep the twenty classes of PASCAL VOC of COCO's eighty
    :return: dict with MODEL_KEYS
    :raises WrongFileError: it has no weights that are known here
    """
    content = content if isinstance(content, dict) else {}
    if "backbone.scale_weight" in content:
        return from_torchvision(content, voc_classes)
    if voc_classes:
        raise WrongFileError("its classes are not COCO's, of which VOC's could be kept")
    if "vgg.0.weight" in content:
        return from_amdegroot(content)
    if PAPER_BASE["base.conv7"] + ".weight" in content:
        raise WrongFileError("the base of a network only, to train from (train.py --base-weights)")
    missing = [key for key in MODEL_KEYS if key not in content]
    if missing and "model" in content:
        raise WrongFileError(f"not a checkpoint of train.py: it has no {', '.join(missing)}")
    if missing:
        raise WrongFileError(
            f"it has no weights of a network that is known here, but: {str(list(content)[:3])[1:100]} ..."
        )
    return content


def check_label_map(label_map):
    """
    :raises WrongFileError: not {class name: number} with the numbers 0, 1, 2 ...
    """
    names = list(label_map) if isinstance(label_map, dict) else []
    if (
        not names
        or not all(isinstance(name, str) for name in names)
        or list(label_map.values()) != list(range(len(names)))
    ):
        raise WrongFileError("its label_map does not number the classes 0, 1, 2 ...")


def check_tensor(name, tensor, shape):
    """
    :raises WrongFileError: not a tensor of numbers of this shape; or one without a number for each place, which a small file can
        make as large as it likes
    """
    if not isinstance(tensor, torch.Tensor) or tensor.shape != shape:
        got = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise WrongFileError(f"{name}: expected {tuple(shape)}, got {got}")
    if (
        tensor.layout != torch.strided
        or tensor.device.type != "cpu"
        or tensor.dtype != torch.float32
    ):
        raise WrongFileError(f"{name}: expected 32-bit floating-point numbers")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise WrongFileError(f"{name}: has fewer numbers than places")


def check_weights(state, n_classes, part=""):
    """
    :param state: state dict of an SSD300, or of the part of it whose names begin with `part`
    :param n_classes: number of classes, the background counted
    :raises WrongFileError: the names or shapes are others
    """
    with torch.device("meta"):  # shapes only: nothing is allocated
        expected = {
            name: tensor.shape
            for name, tensor in SSD300(n_classes, False).state_dict().items()
            if name.startswith(part)
        }
    try:
        if not isinstance(state, dict) or set(state) != set(expected):
            different = set(expected) ^ set(state if isinstance(state, dict) else ())
            raise WrongFileError(
                f"missing or unknown: {', '.join(sorted(map(str, different))[:3])} ..."
            )
        for name, shape in expected.items():
            check_tensor(name, state[name], shape)
    except WrongFileError as error:
        network = "the base of an SSD300" if part else f"an SSD300 for its {n_classes} classes"
        raise WrongFileError(f"its weights are not those of {network}: {error}") from error


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
    with naming(path):
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


# ------------------------------------------------------------------------------------------------------ other people's networks

BASE_LAYERS = (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
    "conv5_1", "conv5_2", "conv5_3", "conv6", "conv7",
)  # fmt: skip
AUXILIARY_LAYERS = (
    "conv8_1",
    "conv8_2",
    "conv9_1",
    "conv9_2",
    "conv10_1",
    "conv10_2",
    "conv11_1",
    "conv11_2",
)
# Places in a list of all layers, poolings and ReLUs counted
VGG_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)

# What the layers of others are called: {ours: theirs}
PAPER_BASE = {
    f"base.{layer}": str(place) for layer, place in zip(BASE_LAYERS, VGG_PLACES, strict=True)
}
AMDEGROOT_LAYERS = {
    **{layer: f"vgg.{place}" for layer, place in PAPER_BASE.items()},
    **{f"aux_convs.{layer}": f"extras.{i}" for i, layer in enumerate(AUXILIARY_LAYERS)},
    **{f"pred_convs.loc_{name}": f"loc.{i}" for i, name in enumerate(FEATURE_MAPS)},
    **{f"pred_convs.cl_{name}": f"conf.{i}" for i, name in enumerate(FEATURE_MAPS)},
}
TORCHVISION_LAYERS = {
    **{
        f"base.{layer}": f"backbone.features.{place}"
        for layer, place in zip(BASE_LAYERS[:10], VGG_PLACES[:10], strict=True)
    },
    "base.conv5_1": "backbone.extra.0.1",
    "base.conv5_2": "backbone.extra.0.3",
    "base.conv5_3": "backbone.extra.0.5",
    "base.conv6": "backbone.extra.0.7.1",
    "base.conv7": "backbone.extra.0.7.3",
    **{
        f"aux_convs.{layer}": f"backbone.extra.{1 + i // 2}.{i % 2 * 2}"
        for i, layer in enumerate(AUXILIARY_LAYERS)
    },
    **{
        f"pred_convs.loc_{name}": f"head.regression_head.module_list.{i}"
        for i, name in enumerate(FEATURE_MAPS)
    },
    **{
        f"pred_convs.cl_{name}": f"head.classification_head.module_list.{i}"
        for i, name in enumerate(FEATURE_MAPS)
    },
}

# What Caffe's VGG-16 had taken off its input of values from 0 to 255, by channel: red, green, blue. amdegroot/ssd.pytorch writes
# 104, 117, 123, as it takes them off a picture in the order blue, green, red; then it turns the channels round to red, green,
# blue (data/voc0712.py), and so this is the order that all networks with its base, torchvision's too, have the input in.
CAFFE_MEAN = (123.0, 117.0, 104.0)
# torchvision/models/detection/ssd.py, ssd300_vgg16: the same to three digits, of values from 0 to 1, then multiplied by 255
TORCHVISION_MEAN = (255 * 0.48235, 255 * 0.45882, 255 * 0.40784)

# Sides of the square priors by feature map, and last the one that only the last extra prior needs
AMDEGROOT_SCALES = tuple(pixels / IMAGE_SIZE for pixels in (30, 60, 111, 162, 213, 264, 315))
TORCHVISION_SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
STEPS_PX = (
    8,
    16,
    32,
    64,
    100,
    300,
)  # between the centres of priors; tiles are a little smaller on some maps

# VOC's classes that have another name in COCO
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def from_amdegroot(content):
    """
    Convert a state dict of amdegroot/ssd.pytorch, trained on PASCAL VOC.

    :param content: {name: tensor}
    :return: dict with MODEL_KEYS
    :raises WrongFileError: names or shapes are others
    """
    n_classes = len(voc_labels) + 1
    state = rename(content, AMDEGROOT_LAYERS, "L2Norm.weight")
    check_weights(state, n_classes)
    priors_cxcy = stepped_priors(AMDEGROOT_SCALES).clamp(
        0, 1
    )  # the centres too: 20 would lie beyond the right or lower edge
    return _converted(state, create_label_map(voc_labels), priors_cxcy, CAFFE_MEAN)


def from_torchvision(content, voc_classes):
    """
    Convert a state dict of torchvision's ssd300_vgg16, trained on COCO.

    Of the 91 places for classes those that COCO never used are dropped, or all but VOC's. The scores of the others stay as they
    are, but their probabilities rise: those that the dropped ones had are shared out among them.

    :param content: {name: tensor}
    :param voc_classes: keep the twenty classes of PASCAL VOC only
    :return: dict with MODEL_KEYS
    :raises WrongFileError: names or shapes are others
    """
    categories = SSD300_VGG16_Weights.COCO_V1.meta["categories"]  # the place 0 is the background's
    if voc_classes:
        labels = voc_labels
        places = [0] + [categories.index(COCO_NAMES.get(label, label)) for label in voc_labels]
    else:
        places = [place for place, name in enumerate(categories) if name != "N/A"]
        labels = [categories[place] for place in places[1:]]
    state = rename(content, TORCHVISION_LAYERS, "backbone.scale_weight")
    check_weights(state, len(categories))
    for name in [name for name in state if ".cl_" in name]:
        state[name] = state[name].unflatten(0, (-1, len(categories)))[:, places].flatten(0, 1)
    priors_cxcy = stepped_priors(TORCHVISION_SCALES)
    priors_cxcy[:, 2:].clamp_(0, 1)
    return _converted(state, create_label_map(labels), priors_cxcy, TORCHVISION_MEAN)


def download_coco():
    """
    :return: the state dict of torchvision's ssd300_vgg16, trained on COCO
    :raises UnavailableWeightsError: it can not be downloaded, or the file in the cache is damaged
    """
    return download_weights(
        SSD300_VGG16_Weights.COCO_V1,
        "torchvision's SSD300",
        "elsewhere and name the file with --checkpoint",
    )


def rename(content, layers, scale=None):
    """
    Give weights our names.

    :param content: {their name: tensor}
    :param layers: {our name of a convolution: theirs}
    :param scale: their name of conv4_3's rescaling factors (512), if there are any
    :return: {our name: tensor}
    :raises WrongFileError: a name is missing, or there are others
    """
    names = {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in layers.items()
        for kind in ("weight", "bias")
    }
    if scale is not None:
        names["rescale_factors"] = scale
    different = sorted(map(str, set(names.values()) ^ set(content)))
    if different:
        raise WrongFileError(
            f"not the network that it looks like: missing or unknown: {', '.join(different[:3])} ..."
        )
    state = {ours: content[theirs] for ours, theirs in names.items()}
    if scale is not None:
        check_tensor(scale, state["rescale_factors"], (512,))
        state["rescale_factors"] = state["rescale_factors"].view(1, 512, 1, 1)
    return state


def _converted(state, label_map, priors_cxcy, mean):
    """A checkpoint of weights under our names, but in the others' order of a tile's priors, and for an input less a mean."""
    state, input_shift = fold_input(reorder_heads(state), mean)
    return {
        "model": state,
        "label_map": label_map,
        "priors_cxcy": priors_cxcy,
        "input_shift": input_shift,
    }


def fold_input(state, mean):
    """
    Make weights for an input from 0 to 255 less a mean into weights for ours, normalised with ImageNet's mean and deviation.

    Theirs is 255 * deviation * (ours + shift). The factor goes into the first convolution. The shift can not go into its bias:
    the zeros of the padding are zeros of their input, to which nothing is added. SSD300 adds it to the image, before padding.

    :param state: {our name: tensor}
    :param mean: of red, green and blue
    :return: {our name: tensor}, and the shift (1, 3, 1, 1)
    """
    deviation = 255 * torch.tensor(IMAGENET_STD, dtype=torch.float64).view(1, 3, 1, 1)
    our_mean, mean = (
        torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
        for values in (IMAGENET_MEAN, mean)
    )
    weight = (state["base.conv1_1.weight"] * deviation).float()
    return {**state, "base.conv1_1.weight": weight}, ((255 * our_mean - mean) / deviation).float()


def reorder_heads(state):
    """
    Bring the predictions for a tile's priors from the order 1:1, extra, 2:1, 1:2, 3:1, 1:3 into ours: 1:1, extra, 2:1, 3:1 ...
    Tiles with four priors have the same order in both.
    """
    state = dict(state)
    for name, feature_map in FEATURE_MAPS.items():
        if len(feature_map.aspect_ratios) == 5:
            for key in (
                f"{head}_{name}.{kind}"
                for head in ("pred_convs.loc", "pred_convs.cl")
                for kind in ("weight", "bias")
            ):
                state[key] = state[key].unflatten(0, (6, -1))[[0, 1, 2, 4, 3, 5]].flatten(0, 1)
    return state


def stepped_priors(scales):
    """
    Priors as the authors' released code and its followers have them: centres by a step in pixels, other scales.

    :param scales: of the six feature maps and one more, fractions of the image's side
    :return: (8732, 4) float, fractional cxcy, in the order of SSD300.create_prior_boxes(); not clipped
    """
    priors = []
    tables = FEATURE_MAPS.values(), STEPS_PX, scales[:-1], scales[1:]
    for (side, _, _, aspect_ratios), step, scale, next_scale in zip(*tables, strict=True):
        sizes = [(scale * ratio**0.5, scale / ratio**0.5) for ratio in aspect_ratios]
        sizes.insert(1, ((scale * next_scale) ** 0.5,) * 2)
        priors += [
            ((column + 0.5) * step / IMAGE_SIZE, (row + 0.5) * step / IMAGE_SIZE, width, height)
            for row in range(side)
            for column in range(side)
            for width, height in sizes
        ]
    return torch.tensor(priors, dtype=torch.float32)
