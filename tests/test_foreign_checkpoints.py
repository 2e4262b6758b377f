"""Files of weights that others published: the models in them compute what their authors' did, and nothing in a file is run."""

import io
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import checkpoints
from checkpoints import load_checkpoint, load_model
from conftest import network_input, tutorial_priors
from foreign import (
    amdegroot_order,
    amdegroot_priors,
    amdegroot_state,
    base_forward,
    caffe_input,
    forward,
    old_file,
    paper_base_state,
    random_network,
    save_old,
    save_tutorial_checkpoint,
)
from model import SSD300
from published_weights import load_base_weights
from train import Parameters, create_model
from utils import label_map


@pytest.fixture(scope="module")
def picture():
    """A picture with strong colours up to its border."""
    return np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def our_input(picture):
    return network_input(picture)


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture(scope="module")
def caffe_network(network):
    """The same for inputs up to 255."""
    (weight, bias), *others = network.base
    return network._replace(base=[(weight / 70, bias), *others])


# --------------------------------------------------------------------------------------------------- what the models compute


@pytest.mark.parametrize("old", [True, False], ids=["PyTorch 0.4", "later"])
def test_the_tutorials_model_computes_what_it_did(network, our_input, tmp_path, old):
    path = save_tutorial_checkpoint(
        network, tutorial_priors(), tmp_path / "checkpoint_ssd300.pth.tar", old
    )
    assert (b"class PredictionConvolutions(nn.Module)" in path.read_bytes()) == old
    assert (b"cuda:0" in path.read_bytes()) == old
    model = load_model(path)
    with torch.no_grad():
        locs, scores = model(our_input)
    expected_locs, expected_scores = forward(network, our_input)
    assert expected_scores.std() > 0.3
    torch.testing.assert_close(locs, expected_locs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-4, atol=1e-4)
    assert model.label_map == label_map
    assert torch.equal(model.priors_cxcy, tutorial_priors())
    assert not model.input_shift.any()


def test_amdegroots_model_computes_what_it_did(caffe_network, picture, our_input, tmp_path):
    path = save_old(amdegroot_state(caffe_network), tmp_path / "ssd300_mAP_77.43_v2.pth")
    model = load_model(path)
    with torch.no_grad():
        locs, scores = model(our_input)
    expected_locs, expected_scores = map(
        amdegroot_order, forward(caffe_network, caffe_input(picture))
    )
    assert expected_scores.std() > 0.3
    torch.testing.assert_close(locs, expected_locs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-4, atol=1e-4)
    assert model.label_map == label_map
    torch.testing.assert_close(
        model.priors_cxcy, amdegroot_order(amdegroot_priors().unsqueeze(0))[0], rtol=0, atol=1e-6
    )


def test_training_starts_from_the_papers_base(caffe_network, picture, our_input, tmp_path):
    path = save_old(paper_base_state(caffe_network), tmp_path / "vgg16_reducedfc.pth")
    model = create_model(
        None, {"background": 0, "cat": 1}, Parameters(base_weights=str(path)), torch.device("cpu")
    )
    with torch.no_grad():
        got = model.base(our_input + model.input_shift)
        expected = base_forward(caffe_network.base, caffe_input(picture))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    checkpoints.save_checkpoint(
        tmp_path / "ours.pth.tar", checkpoints.model_state(model, model.label_map)
    )
    assert torch.equal(load_model(tmp_path / "ours.pth.tar").input_shift, model.input_shift)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*--base-weights"):
        load_checkpoint(path)
    with pytest.raises(
        FileNotFoundError, match=r"none\.pth: no such file of weights: .*README.*--base-weights"
    ):
        load_base_weights(tmp_path / "none.pth")


# ------------------------------------------------------------------------------------------------------------- hostile files


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def named(module, name, *arguments):
    """A pickle that calls what a dotted name behind a module leads to."""
    texts = [b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)]
    return (
        b"\x80\x04" + b"".join(texts) + b"\x93" + pickle.dumps(arguments, protocol=2)[2:-1] + b"R."
    )


def payloads(made):
    """Pickles that would make a file: {name: (bytes, what the message names)}"""
    touch = f"touch '{made}'"

    def dump(*contents):
        return pickle.dumps({"model": Calls(*contents)}, protocol=2, fix_imports=False)

    module = ("module", Calls(os.system, touch), "model.py", "class SSD300")

    class WithRecord(pickle.Pickler):
        def persistent_id(self, content):
            return module if content == "here" else None

    record = io.BytesIO()
    WithRecord(record, protocol=2).dump({"model": "here"})
    return {
        "os.system": (dump(os.system, touch), f"{os.system.__module__}.system"),
        "subprocess": (dump(subprocess.call, ["touch", str(made)]), "subprocess.call"),
        "eval": (dump(eval, f"__import__('os').mkdir({str(made)!r})"), "eval"),
        "import": (b"\x80\x02chostile_import\nanything\n.", "hostile_import.anything"),
        "behind an allowed module": (
            named("torch._utils", "torch.os.system", touch),
            "torch._utils.torch.os.system",
        ),
        "behind an allowed name": (
            named("collections", "OrderedDict.__init__.__class__", touch),
            "OrderedDict.__init__",
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
def test_nothing_that_a_file_asks_for_is_run(name, made, tmp_path):
    payload, named_in_message = payloads(made)[name]
    path = tmp_path / "hostile.pth"
    path.write_bytes(old_file(payload))
    for read in (load_model, load_base_weights):
        with pytest.raises(
            ValueError, match=re.escape(str(path)) + ".*" + re.escape(named_in_message)
        ):
            read(path)
    assert not made.exists()
    assert "hostile_import" not in sys.modules


@pytest.mark.parametrize("name", ["os.system", "subprocess", "eval", "import"])
def test_nothing_in_a_zip_file_is_run(name, made, tmp_path):
    payload, named_in_message = payloads(made)[name]
    path = tmp_path / "hostile.pth"
    torch.save({"a": torch.zeros(2)}, tmp_path / "harmless.pth")
    with zipfile.ZipFile(tmp_path / "harmless.pth") as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            target.writestr(
                entry.filename,
                payload if entry.filename.endswith("data.pkl") else source.read(entry),
            )
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(named_in_message)):
        load_model(path)
    assert not made.exists()
    assert "hostile_import" not in sys.modules


@pytest.mark.parametrize(
    "pickled",
    [
        b"cmodel\nSSD300\n(}X\x0c\x00\x00\x00__setstate__ccollections\nOrderedDict\nstb",  # new attributes for a class
        b"ccollections\nOrderedDict\n}X\x06\x00\x00\x00updateI1\nsb",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",  # a tensor of nothing
        b"cmodel\nSSD300\n)\x81}X\x08\x00\x00\x00_modulescmodel\nVGGBase\nsb",  # a class where an object should be
    ],
)
def test_allowed_names_do_nothing_else_than_they_should(pickled, tmp_path):
    path = tmp_path / "strange.pth"
    path.write_bytes(old_file(b"\x80\x02}X\x05\x00\x00\x00model" + pickled + b"s."))
    attributes = dir(checkpoints.StandIn), dir(checkpoints.MappingStandIn)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_model(path)
    assert attributes == (dir(checkpoints.StandIn), dir(checkpoints.MappingStandIn))


def storage_record(n_values, key="0"):
    """A pickled tensor of n_values, with one number in the file."""
    tensor = b"ctorch._utils\n_rebuild_tensor\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    tensor += (
        pickle.dumps(key, protocol=2)[2:-1]
        + b"X\x03\x00\x00\x00cpu"
        + pickle.dumps(n_values, protocol=2)[2:-1]
        + b"NtQ"
    )
    return (
        tensor
        + b"K\x00"
        + pickle.dumps(((n_values,), (1,)), protocol=2)[2:-1].replace(b"\x86", b"\x86")
        + b"tR"
    )


@pytest.mark.parametrize("n_values", [10**6, 10**12, 2**62, -5])
def test_a_part_can_not_be_larger_than_the_file(n_values, tmp_path):
    path = tmp_path / "large.pth"
    path.write_bytes(
        old_file(
            b"\x80\x02}X\x0c\x00\x00\x00vgg.0.weight" + storage_record(n_values) + b"s.",
            ["0"],
            bytes(12),
        )
    )
    with pytest.raises(
        ValueError, match=re.escape(str(path)) + ".*numbers in a part, but has only"
    ):
        load_model(path)


def test_a_pickle_can_not_ask_for_a_large_memo(tmp_path):
    path = tmp_path / "memo.pth"
    path.write_bytes(old_file(b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."))
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*impossible"):
        load_model(path)


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
    monkeypatch.setattr(checkpoints.torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*would grow to 12"):
        load_model(path)


# --------------------------------------------------------------------------------------------------------- wrong and damaged


@pytest.fixture(scope="module")
def small_state(network):
    """amdegroot's names and shapes in a small file: each tensor is one number, shown at every place."""
    return {
        name: torch.zeros(1).expand(tensor.shape)
        for name, tensor in amdegroot_state(network).items()
    }


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vgg.0.weight": torch.zeros(64, 4, 3, 3)},
            r"base\.conv1_1\.weight: expected \(64, 3, 3, 3\), got \(64, 4, 3, 3\)",
        ),
        (
            {"vgg.0.weight": torch.zeros(64, 3, 3, 3).long()},
            r"base\.conv1_1\.weight: expected 32-bit",
        ),
        (
            {"vgg.0.weight": torch.zeros(1).expand(64, 3, 3, 3)},
            r"base\.conv1_1\.weight: has fewer numbers than places",
        ),
        ({"L2Norm.weight": torch.zeros(256)}, r"L2Norm\.weight: expected \(512,\), got \(256,\)"),
        ({"vgg.3.weight": torch.zeros(1)}, r"missing or unknown: vgg\.3\.weight"),
        ({"conf.5.bias": None}, r"conf\.5\.bias"),
    ],
)
def test_wrong_shapes_and_names_are_named(small_state, changes, message, old, tmp_path):
    state = {**small_state, "L2Norm.weight": torch.zeros(512), **changes}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    path = tmp_path / "wrong.pth"
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
        load_model(path)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    "state",
    [
        {"layer1.0.conv1.weight": torch.zeros(2)},
        {"features.0.weight": torch.zeros(64, 3, 3, 3)},
        {},
        [torch.zeros(2)],
    ],
)
def test_another_network_is_named(state, old, tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    for read in (load_model, load_base_weights):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read(path)


def test_a_tutorials_model_of_other_classes_is_refused(tmp_path):
    network = random_network(3)
    path = save_tutorial_checkpoint(
        network, tutorial_priors(), tmp_path / "cells.pth.tar", n_classes=3
    )
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*other classes than VOC's"):
        load_model(path)


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
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*damaged: the sizes"):
        load_model(path)


@pytest.mark.parametrize("kind", ["PNG", "text", "zip", "tar", "pickle"])
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
            "tar": bytes(257) + b"ustar" + bytes(250),
            "pickle": pickle.dumps({"vgg.0.weight": 1}),
        }
        path.write_bytes(contents[kind])
    with pytest.raises(
        ValueError, match=re.escape(str(path)) + (".*tar archive" if kind == "tar" else "")
    ):
        load_model(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_map": {"background": 0, "cat": 2}}, "label_map"),
        ({"label_map": torch.zeros(1).expand(10**9)}, "label_map"),
        ({"label_map": {str(i): i for i in range(1000)}}, "1000 classes"),
        ({"priors_cxcy": torch.zeros(8731, 4)}, r"priors: expected \(8732, 4\)"),
        ({"input_shift": torch.zeros(3)}, r"input: expected \(1, 3, 1, 1\)"),
        ({"model": [1, 2]}, "its weights"),
    ],
)
def test_a_strange_checkpoint_of_ours_is_named(changes, message, tmp_path):
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in SSD300(2, False).state_dict().items()}
    state = {
        "model": {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()},
        "label_map": {"background": 0, "cat": 1},
        "priors_cxcy": SSD300.create_prior_boxes(),
        "input_shift": torch.zeros(1, 3, 1, 1),
    }
    path = tmp_path / "strange.pth.tar"
    torch.save({**state, **changes}, path)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
        load_model(path)
