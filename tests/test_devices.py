"""
Devices that are not here. Fake tensors of torch have a shape, a type and a device, but no numbers:
with them a step on a GPU runs on a processor, up to the backward pass. What is on the wrong device
raises, and so does whatever reads a number, for which the processor would have to wait.
"""

import contextlib

import pytest
import torch
from torch import nn

import datasets
import runtime
from model import SSD300, MultiBoxLoss, suppress
from runtime import choose_device, choose_precision, find_gpu
from utils import average_precision, send, to_float64

try:  # a private interface, which may change with any release
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensorMode,
    )
except ImportError:
    FakeTensorMode = None

needs_fakes = pytest.mark.skipif(
    FakeTensorMode is None, reason="this release of torch has other fake tensors"
)
CUDA = torch.device("cuda")
WIDTH = 1 / 32


@contextlib.contextmanager
def fake_tensors():
    """A context in which tensors are fake; they are on the CPU unless something says otherwise."""
    mode = FakeTensorMode()
    try:
        with mode, CUDA:
            is_usable = nn.Conv2d(1, 1, kernel_size=1).weight.device.type == "cuda"
    except (AttributeError, RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        pytest.skip(f"fake tensors of torch {torch.__version__} need a real GPU here ({reason})")
    if not is_usable:
        pytest.skip("fake tensors of this release ignore the device")
    with mode:
        yield


def batch(counts):
    """Images, boxes and labels of a batch, as a DataLoader leaves them on the CPU."""
    images = torch.zeros(len(counts), 3, 300, 300)
    boxes = [torch.zeros(count, 4) for count in counts]
    labels = [torch.ones(count, dtype=torch.int64) for count in counts]
    return images, boxes, labels


def create_model(width=WIDTH):
    """A network on a GPU."""
    with CUDA:
        return SSD300(21, pretrained=False, width=width)


def step_up_to_the_backward_pass(model, counts):
    """As train.take_step does it."""
    images, boxes, labels = batch(counts)
    criterion = MultiBoxLoss(model.priors_cxcy)
    images = send(images, model.priors_cxcy.device, memory_format=torch.channels_last)
    true_classes, true_locs = criterion.match(boxes, labels)
    with torch.autocast("cuda", enabled=False):
        predictions = model(images)
    n_positives = (true_classes > 0).sum()
    losses = criterion.compare(*predictions, true_classes, true_locs, n_positives)
    return criterion.total(losses)


# ------------------------------------------------------------------------ a step on a pretended GPU


@needs_fakes
def test_the_whole_network_and_its_loss_run_on_a_gpu():
    with fake_tensors():
        loss = step_up_to_the_backward_pass(create_model(width=1.0), [0, 3])
    assert loss.device.type == "cuda"
    assert loss.shape == ()
    assert loss.requires_grad


@needs_fakes
@pytest.mark.parametrize("counts", [[0], [1], [50], [0, 0, 0], [0, 1, 7, 50]], ids=str)
def test_any_number_of_objects_is_matched_without_waiting_for_the_gpu(counts):
    with fake_tensors():
        criterion = MultiBoxLoss(create_model().priors_cxcy)
        _, boxes, labels = batch(counts)
        true_classes, true_locs = criterion.match(boxes, labels)
        assert step_up_to_the_backward_pass(create_model(), counts).shape == ()
    assert {true_classes.device.type, true_locs.device.type} == {"cuda"}
    assert true_classes.shape == (len(counts), 8732)
    assert true_locs.shape == (len(counts), 8732, 4)


@needs_fakes
def test_a_tensor_on_the_wrong_device_raises():
    """The tests above can fail."""
    with fake_tensors():
        model = create_model()
        model.input_shift = model.input_shift.cpu()
        with pytest.raises(RuntimeError, match=r"device.*c(pu|uda)"):
            step_up_to_the_backward_pass(model, [2])
        model = create_model()
        model.aux_convs.conv8_1.weight = nn.Parameter(model.aux_convs.conv8_1.weight.cpu())
        with pytest.raises(RuntimeError, match=r"device.*c(pu|uda)"):
            step_up_to_the_backward_pass(model, [2])


@needs_fakes
def test_what_waits_for_the_gpu_raises(monkeypatch):
    """The tests above can fail."""
    match = MultiBoxLoss.match

    def stop_early(self, boxes, labels):
        true_classes, true_locs = match(self, boxes, labels)
        return (true_classes, true_locs) if true_classes.any() else None

    def count(self, boxes, labels):
        true_classes, true_locs = match(self, boxes, labels)
        return true_classes, true_locs[true_classes > 0]

    for waiting, error in (
        (stop_early, DataDependentOutputException),
        (count, DynamicOutputShapeException),
    ):
        monkeypatch.setattr(MultiBoxLoss, "match", waiting)
        with fake_tensors(), pytest.raises(error):
            step_up_to_the_backward_pass(create_model(), [2])


# -------------------------------------------------------------------------- which devices there are


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends a machine with a kind of accelerator, and some processes."""

    def pretend(kind, n_processes=1, local_rank=0):
        accelerator = torch.accelerator
        monkeypatch.setattr(accelerator, "is_available", lambda: kind is not None)
        monkeypatch.setattr(accelerator, "current_accelerator", lambda: torch.device(kind))
        monkeypatch.setattr(runtime, "world_size", lambda: n_processes)
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))
        chosen = []
        monkeypatch.setattr(accelerator, "set_device_index", chosen.append)
        monkeypatch.setattr(runtime.torch, "empty", lambda *size, device: None)
        return chosen

    return pretend


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(None, "cpu"), ("cuda", "cuda"), ("mps", "mps"), ("xpu", "xpu"), ("mtia", "cpu")],
)
def test_auto_takes_the_gpu_that_is_there_if_it_is_of_a_known_kind(machine, kind, expected):
    machine(kind)
    assert find_gpu() == expected
    assert choose_device("auto") == torch.device(expected)


@pytest.mark.parametrize(
    ("kind", "device", "backend"),
    [
        (None, "cpu", "gloo"),
        ("cuda", "cuda:3", "cpu:gloo,cuda:nccl"),
        ("xpu", "xpu:3", "cpu:gloo,xpu:xccl"),
        ("mps", "cpu", "gloo"),
    ],
)
def test_each_of_several_processes_has_a_device_of_its_own(machine, kind, device, backend):
    current = machine(kind, n_processes=4, local_rank=3)
    assert choose_device("auto") == torch.device(device)
    assert current == ([3] if ":" in device else [])  # else the first GPU gets the pinned memory
    assert runtime.process_group_backend() == backend


def test_what_cannot_be_used_is_refused_with_the_remedy(machine):
    machine("mps", n_processes=2)
    with pytest.raises(ValueError, match=r"--device mps: .*gradients.*use --device cpu"):
        choose_device("mps")
    machine(None)
    for name in ("meta", "hpu", "nonsense"):
        with pytest.raises(ValueError, match=rf"--device {name}: .*use --device cpu"):
            choose_device(name)


@pytest.mark.parametrize("name", ["cuda", "xpu", "mps"])
def test_a_device_that_is_not_here_is_refused(name):
    if find_gpu() == name:
        pytest.skip(f"this machine has {name}")
    with pytest.raises(ValueError, match=rf"--device {name}: not available here .*--device cpu"):
        choose_device(name)


def test_a_processor_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")
    assert torch.zeros(1, device=choose_device("auto")).item() == 0


# --------------------------------------------------------------------------------- what they can do


class Elsewhere(torch.Tensor):
    """A tensor on a processor that says it is on another device, until it is moved."""

    kind = "mps"

    @property
    def device(self):
        return torch.device(self.kind)

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        if self.kind == "mps":
            raise TypeError("the MPS framework doesn't support float64")
        return super().double()


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_float64_is_computed_on_the_processor_where_a_gpu_has_none(kind, monkeypatch):
    monkeypatch.setattr(Elsewhere, "kind", kind)
    numbers = torch.tensor([1.5, 2.0]).as_subclass(Elsewhere)
    double = to_float64(numbers)
    assert type(double) is torch.Tensor
    assert double.tolist() == [1.5, 2.0]
    assert double.dtype == torch.float64


def test_boxes_are_suppressed_and_precision_is_computed_there(monkeypatch):
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9], [2.0, 2.0, 3.0, 3.0]])
    scores = torch.tensor([0.5, 0.9, 0.7])
    moved = []
    really_move = torch.Tensor.to

    def move(tensor, *where, **options):
        if where == (torch.device("mps"),):
            moved.append("back")
            where = ("cpu",)
        return really_move(tensor, *where, **options)

    monkeypatch.setattr(torch.Tensor, "to", move)
    elsewhere = [tensor.as_subclass(Elsewhere) for tensor in (boxes, scores)]
    kept = suppress(*elsewhere, torch.zeros(3, dtype=torch.int64), 0.45)
    assert kept.tolist() == [1, 2]
    assert moved == ["back"]
    hits = torch.tensor([True, False, True])
    right, wrong = hits.as_subclass(Elsewhere), (~hits).as_subclass(Elsewhere)
    for metric in ("11-point", "area"):
        assert average_precision(right, wrong, 2, metric) == average_precision(
            hits, ~hits, 2, metric
        )


@pytest.mark.parametrize(
    ("kind", "ahead", "pinned"),
    [("cpu", True, False), ("cuda", True, True), ("xpu", True, True), ("mps", False, False)],
)
def test_batches_are_copied_ahead_where_that_is_safe(kind, ahead, pinned, monkeypatch):
    options = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_, **given: options.append(given))
    send(torch.zeros(1), torch.device(kind), memory_format=torch.channels_last)
    assert options == [{"non_blocking": ahead, "memory_format": torch.channels_last}]
    loader = datasets.create_loader([0], [[0]], 0, torch.device(kind))
    assert loader.pin_memory is pinned


def test_the_precision_of_other_gpus_is_what_is_known_to_work(monkeypatch):
    assert choose_precision(torch.device("mps"), "auto") == torch.float32
    assert choose_precision(torch.device("mps"), "bfloat16") == torch.bfloat16
    for has_bfloat16, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda has=has_bfloat16: has)
        assert choose_precision(torch.device("xpu"), "auto") == dtype


@pytest.mark.parametrize("kind", ["cpu", "mps", "xpu"])
@pytest.mark.filterwarnings("error")
def test_float32_is_no_reason_to_warn(kind):
    with runtime.autocast(torch.device(kind), "float32"):
        assert not torch.is_autocast_enabled(kind)
