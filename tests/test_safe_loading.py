"""safe_loading.py: nothing in a file is run, bombs are refused, the rest comes back as it was."""

import io
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from PIL import Image

import safe_loading
from checkpoints import load_model
from helpers.foreign import (
    old_file,
    save_old,
    zip_file,
)
from helpers.memory import has_memory_meter, read_and_measure
from published_weights import load_base_weights
from safe_loading import WrongFileError, check_pickle, read_file

# ------------------------------------------------------------------------------------ hostile files


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def named(module, name, *arguments):
    """A pickle that calls what a dotted name behind a module leads to."""
    texts = b"".join(pickle.dumps(text, protocol=2)[2:-1] for text in (module, name))
    return b"\x80\x04" + texts + b"\x93" + pickle.dumps(arguments, protocol=2)[2:-1] + b"R."


def payloads(made):
    """Pickles that would make a file: {name: (bytes, what the message names)}"""
    touch = f"touch '{made}'"
    system = f"{os.system.__module__}.system"

    def dump(*contents, protocol=2):
        return pickle.dumps({"model": Calls(*contents)}, protocol=protocol, fix_imports=False)

    module = ("module", Calls(os.system, touch), "model.py", "class SSD300")

    class WithRecord(pickle.Pickler):
        def persistent_id(self, content):
            return module if content == "here" else None

    record = io.BytesIO()
    WithRecord(record, protocol=2).dump({"model": "here"})
    make_folder = f"__import__('os').mkdir({str(made)!r})"
    return {
        "os.system": (dump(os.system, touch), system),
        "subprocess": (dump(subprocess.call, ["touch", str(made)]), "subprocess.call"),
        "eval": (dump(eval, make_folder), "eval"),
        "import": (b"\x80\x02chostile_import\nanything\n.", "hostile_import.anything"),
        "protocol 0": (dump(os.system, touch, protocol=0), "instruction"),
        "protocol 4": (dump(os.system, touch, protocol=4), "instruction"),
        "an instance": (
            b"\x80\x02(" + pickle.dumps(touch, protocol=2)[2:-1] + b"ios\nsystem\n.",
            "INST",
        ),
        "escaped": (b"\x80\x02ccollection\\x73\nOrderedDict\n)R.", "OrderedDict"),
        "behind an allowed module": (
            named("torch._utils", "torch.os.system", touch),
            "STACK_GLOBAL",
        ),
        "behind an allowed name": (
            named("collections", "OrderedDict.__init__.__class__", touch),
            "STACK_GLOBAL",
        ),
        "in the record of a module": (record.getvalue(), "system"),
    }


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The file that hostile ones would make; one does it when it is imported."""
    made = tmp_path / "made"
    (tmp_path / "hostile_import.py").write_text(
        f"import os\nos.mkdir({str(made)!r})\nanything = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield made
    sys.modules.pop("hostile_import", None)


@pytest.mark.parametrize("name", list(payloads("")))
def test_the_unpickler_itself_runs_nothing(name, made):
    """Not even if check_pickle, which comes before it, overlooked something."""
    payload, _ = payloads(made)[name]
    with pytest.raises((KeyError, TypeError)):
        safe_loading.InertUnpickler(io.BytesIO(payload), 1000).load()
    assert not made.exists()
    assert "hostile_import" not in sys.modules


def write_pickle(payload, path, zipped):
    """Write a file of weights around a pickle, in either format."""
    if zipped:
        return zip_file(payload, path)
    path.write_bytes(old_file(payload))
    return path


def message_about(path, read=load_model):
    """What is said about a file that is refused; it advises nobody to run what is in it."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        read(path)
    message = str(caught.value)
    assert "weights_only" not in message
    assert message.isprintable()
    return message


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", list(payloads("")))
def test_nothing_that_a_file_asks_for_is_run(name, zipped, made, tmp_path):
    payload, named_in_message = payloads(made)[name]
    path = write_pickle(payload, tmp_path / "hostile.pth", zipped)
    for read in (load_model, load_base_weights):
        assert named_in_message in message_about(path, read)
    assert not made.exists()
    assert "hostile_import" not in sys.modules


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "pickled",
    [
        # New attributes for a class
        b"cmodel\nSSD300\n(}X\x0c\x00\x00\x00__setstate__ccollections\nOrderedDict\nstb",
        b"ccollections\nOrderedDict\n}X\x06\x00\x00\x00updateK\x01sb",
        # A tensor of nothing
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        # A class where an object should be
        b"cmodel\nSSD300\n)\x81}X\x08\x00\x00\x00_modulescmodel\nVGGBase\nsb",
        # New attributes for a type of numbers
        b"ctorch\nFloatStorage\n}X\x08\x00\x00\x00itemsizeK\x01sb",
    ],
)
def test_allowed_names_do_nothing_else_than_they_should(pickled, zipped, tmp_path):
    payload = b"\x80\x02}X\x05\x00\x00\x00model" + pickled + b"s."
    path = write_pickle(payload, tmp_path / "strange.pth", zipped)
    classes = safe_loading.StandIn, safe_loading.TensorStandIn, safe_loading.DictStandIn
    attributes = [dir(kind) for kind in classes]
    message_about(path)
    assert attributes == [dir(kind) for kind in classes]


def tensor_payload(n_values, key="0", name="vgg.0.weight"):
    """A pickle of a dict with a tensor of n_values."""
    number = pickle.dumps(n_values, protocol=2)[2:-1]
    key = pickle.dumps(key, protocol=2)[2:-1]
    record = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + key
    record += b"X\x03\x00\x00\x00cpu" + number + b"NtQ"
    shape = b"".join(pickle.dumps(part, protocol=2)[2:-1] for part in ((n_values,), (1,)))
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + record + b"K\x00" + shape + b"tR"
    return b"\x80\x02}" + pickle.dumps(name, protocol=2)[2:-1] + tensor + b"s."


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("n_values", [10**6, 10**12, 2**62, -5])
def test_a_tensor_cannot_be_larger_than_the_file(n_values, zipped, tmp_path):
    path = tmp_path / "large.pth"
    payload = tensor_payload(n_values)
    if zipped:
        zip_file(payload, path, {"data/0": bytes(4)})
    else:
        path.write_bytes(old_file(payload, ["0"], bytes(12)))
    assert f"no tensor of {n_values} numbers would fit" in message_about(path)


def test_a_record_of_a_zip_file_has_the_size_that_its_tensor_needs(tmp_path):
    records = {"data/0": bytes(16), "data/1": bytes(10_000)}
    path = zip_file(tensor_payload(1000), tmp_path / "short.pth", records)
    assert "a tensor should have 4000 bytes, and has 16" in message_about(path)


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    torch.save({"vgg.0.weight": torch.zeros(3_000_000)}, tmp_path / "flat.pth")
    path = tmp_path / "bomb.pth"
    with (
        zipfile.ZipFile(tmp_path / "flat.pth") as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was read"))
    assert "is packed" in message_about(path)


@pytest.mark.parametrize("zipped", [False, True])
def test_texts_of_a_file_cannot_control_the_terminal(zipped, tmp_path):
    contents = {
        "key.pth": {"\x1b[31mred\u202e": torch.zeros(1)},
        "layer.pth": {"vgg.0.weight": torch.zeros(1), "\x1b]0;title\x07": torch.zeros(1)},
        "model.pth": {"model": {"\x9b31m\r\n": torch.zeros(1)}, "label_map": {"background": 0}},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        message_about(tmp_path / name)
    payload = b"\x80\x02c\x1b[31m\nsystem\n."
    message_about(write_pickle(payload, tmp_path / "global.pth", zipped))


# ---------------------------------------------------------------------------- harmless files, whole


def assert_same(got, expected):
    """The same plain values and tensors, through all containers."""
    if isinstance(expected, torch.Tensor):
        assert got.dtype == expected.dtype
        assert got.stride() == expected.stride()
        assert torch.equal(got, expected)
    elif isinstance(expected, dict):
        assert type(got) is dict
        assert list(got) == list(expected)
        for name, value in expected.items():
            assert_same(got[name], value)
    elif isinstance(expected, (list, tuple)):
        assert type(got) is type(expected)
        for value, other in zip(got, expected, strict=True):
            assert_same(value, other)
    else:
        assert type(got) is type(expected)
        assert got == expected


@pytest.mark.parametrize("zipped", [False, True])
def test_what_torch_saved_comes_back_as_it_was(zipped, tmp_path):
    layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD([{"params": [layer.weight], "lr": 0.1}], lr=1e-3, momentum=0.9)
    layer(torch.zeros(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    shared = [1, 2]
    row = {"epoch": 1, "loss": 2.5, "mAP": None, "large": 2**40, "negative": -(2**33)}
    content = {
        "model": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameters": {"decay_at": (80_000, 100_000), "nested": ((1, 2), ()), "toy": False},
        "history": [row, dict(row)],
        "shared": [shared, shared],
        "é": "\N{HANGUL SYLLABLE HAN}",
        "empty": torch.zeros(0),
        "views": [torch.arange(12).view(3, 4).T, torch.arange(12)[3:5]],
        "parameter": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "types": [
            torch.ones(2).to(getattr(torch, name))
            for name in (
                *("float64", "float16", "bfloat16", "int64", "int32", "int16", "int8"),
                *("uint8", "bool"),
            )
        ],
    }
    path = tmp_path / "plain.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    content["model"] = dict(content["model"])
    assert_same(read_file(path, ""), content)


def test_a_file_of_a_big_endian_machine_is_refused(tmp_path):
    records = {"data/0": bytes(4), "byteorder": b"big"}
    assert "big-endian" in message_about(zip_file(tensor_payload(1), tmp_path / "big.pth", records))


# -------------------------------------------------------------------------------- wrong and damaged


@pytest.mark.parametrize("length", [0, 1, 20, 100, 1000, 3000, -1, -1000])
def test_a_truncated_old_file_is_named(length, tmp_path):
    path = save_old(
        {f"vgg.{i}.weight": torch.ones(100) for i in range(20)}, tmp_path / "truncated.pth"
    )
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*damaged"):
        load_model(path)


def test_a_damaged_old_file_is_named(tmp_path):
    path = save_old({"vgg.0.weight": torch.ones(100)}, tmp_path / "damaged.pth")
    data = bytearray(path.read_bytes())
    data[-408] ^= 1  # in the number of values
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*damaged: a tensor's size"):
        load_model(path)


@pytest.mark.parametrize("place", ["data.pkl", "data/0"])
def test_a_flipped_bit_in_a_zip_file_is_found(place, tmp_path):
    path = tmp_path / "damaged.pth"
    torch.save({"vgg.0.weight": torch.ones(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        content = archive.read(f"damaged/{place}")
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)
    assert "CRC" in message_about(path)


@pytest.mark.parametrize("kind", ["PNG", "text", "zip", "nearly a zip", "tar", "pickle"])
def test_a_misnamed_file_is_named(kind, tmp_path):
    path = tmp_path / "weights.pth"
    if kind == "PNG":
        Image.new("RGB", (8, 8)).save(path, "PNG")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "no weights")
    else:
        contents = {
            "text": b"no weights",
            "nearly a zip": b"PK\x03\x04 nor a zip file",
            "tar": bytes(257) + b"ustar" + bytes(250),
            "pickle": pickle.dumps({"vgg.0.weight": 1}),
        }
        path.write_bytes(contents[kind])
    with pytest.raises(
        ValueError, match=re.escape(str(path)) + (".*tar archive" if kind == "tar" else "")
    ):
        load_model(path)


# ------------------------------------------- small files that would take memory or time without end


def put(text):
    """A text in a pickle."""
    return b"X" + struct.pack("<I", len(text)) + text.encode()


MORE = "more objects"

KEY = "a tuple as a key"

INSIDE_ITSELF = b"q\x00h\x00\x86"  # an object becomes a tuple of it and it


def small_bombs():
    """{name: (pickle, what is said about it)}"""
    same_hash = sys.hash_info.modulus  # of it and its multiples
    multiples = (same_hash * n for n in range(1, 2000))
    numbers = b"".join(b"\x8a\x0a" + n.to_bytes(10, "little") + b"N" for n in multiples)
    pairs = b"".join(b"J" + struct.pack("<i", n) + b"K\x01\x86N" for n in range(1000))
    nested = b")" + b"\x85" * 1500
    return {
        "nested key": (b"})" + b"\x85" * 200_000 + b"Ns", MORE),
        "nested key, not so deep": (b"}" + nested + b"Ns", KEY),
        "doubled key": (b"})" + INSIDE_ITSELF * 30 + b"Ns", MORE),
        "key of a Python 2 dict": (
            b"ccollections\nOrderedDict\n](](" + nested + b"Nee\x85R",
            "key that is no text",
        ),
        "keys of the same hash": (b"}(" + numbers + b"u", "more than 64 bits"),
        "keys that are pairs": (b"}(" + pairs + b"u", KEY),
        "itself": (b"]q\x00h\x00a", "recursion"),
        "bytearray": (b"cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x02\x85R", "bytearray"),
        "memo": (b"}r" + struct.pack("<I", 2**31), "impossible"),
        "text": (b"X" + struct.pack("<I", 2**32 - 1) + b"a", ""),
        "number": (b"\x8b" + struct.pack("<i", 2**30) + b"a", ""),
        "bytes": (b"\x96" + struct.pack("<Q", 2**40) + b"a", ""),
        "frame": (b"\x95" + struct.pack("<Q", 2**40) + b"N", "FRAME"),
    }


def large_bombs():
    """The same, of those that are refused late."""
    list_of_two = b"q\x00](h\x00h\x00e"
    dict_of_two = b"q\x00}(" + put("a") + b"h\x00" + put("b") + b"h\x00u"
    module = b"cmodel\nSSD300\nq\x00"
    return {
        "doubled list": (b"]" + list_of_two * 40, MORE),
        "doubled dict": (b"}" + dict_of_two * 40, MORE),
        "deep list": (b"]" * 1_500_000 + b"a" * 1_499_999, "recursion"),
        "long list": (b"](" + b"]" * 5_000_000 + b"e", MORE),
        "many modules": (module + b"](" + b"h\x00)\x81" * 1_300_000 + b"e", "was read"),  # just so
    }


@has_memory_meter
@pytest.mark.parametrize(
    ("bombs", "limit"),
    [
        (small_bombs, 50_000_000),
        pytest.param(large_bombs, 1_000_000_000, marks=pytest.mark.slow),
    ],
)
def test_bombs_are_refused(bombs, limit, tmp_path):
    expected = {}
    for number, (pickled, message) in enumerate(bombs().values()):
        for zipped in (False, True) if bombs is small_bombs else (number % 2 == 0,):
            path = tmp_path / f"{number}{zipped}.pth"
            write_pickle(b"\x80\x02" + pickled + b".", path, zipped)
            expected[path] = message
    results = read_and_measure("safe_loading", "read_file", expected, ', ""')
    for (path, wanted), (message, n_bytes) in zip(expected.items(), results, strict=True):
        assert re.search(wanted, message), message
        assert message.startswith(f"{path}: ") or wanted == "was read"
        assert n_bytes < limit


def test_a_pickle_is_refused_before_any_of_it_is_carried_out():
    pickled = io.BytesIO(pickle.dumps(print, protocol=2))
    with pytest.raises(WrongFileError, match=r"it asks for __builtin__\.print, which no file of"):
        check_pickle(pickled)
