"""
What holds on a GPU only: no waiting for it within a step, and the same answers as on a processor.
"""

import contextlib

import pytest
import torch

from benchmark import random_objects
from model import SSD300, MultiBoxLoss, rank_in_group, suppress
from train import Parameters, create_run, take_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CUDA = torch.device("cuda")


@contextlib.contextmanager
def no_waiting():
    """A context in which everything that waits for the GPU is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def predictions(n_images, random):
    """Locs (N, 8732, 4) and scores (N, 8732, 21), mostly background."""
    locs, scores = (
        torch.randn(n_images, 8732, 4, generator=random),
        torch.randn(n_images, 8732, 21, generator=random),
    )
    scores[:, :, 0] += 6
    return locs, scores


def training_on_gpu(**settings):
    """The Training of a network with random weights on a GPU."""
    torch.manual_seed(0)
    model = SSD300(21, pretrained=False).to(CUDA, memory_format=torch.channels_last)
    return create_run(model, Parameters(**settings), {})


def test_the_loss_does_not_wait_for_the_gpu_and_is_that_of_a_processor(random):
    boxes, labels = random_objects([0, 3, 1, 40], random, "cpu")
    locs, scores = predictions(4, random)
    expected = MultiBoxLoss(SSD300.create_prior_boxes()).components(locs, scores, boxes, labels)
    criterion = MultiBoxLoss(SSD300.create_prior_boxes()).to(CUDA)
    locs, scores = locs.to(CUDA).requires_grad_(), scores.to(CUDA).requires_grad_()
    boxes, labels = [box.pin_memory() for box in boxes], [label.pin_memory() for label in labels]
    with no_waiting():
        losses = criterion.components(locs, scores, boxes, labels)
        criterion.total(losses).backward()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-4)


@pytest.mark.parametrize("micro_batch_size", [0, 2])
def test_a_training_step_does_not_wait_for_the_gpu(micro_batch_size, random):
    precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    training = training_on_gpu(precision=precision, micro_batch_size=micro_batch_size)
    boxes, labels = random_objects([2, 0, 5, 1], random, "cpu")
    images = torch.randn(4, 3, 300, 300, generator=random).pin_memory()
    take_step(images, boxes, labels, training)  # what the first step sets up may wait
    with no_waiting():
        losses = take_step(images, boxes, labels, training)
    assert losses.isfinite().all()


def test_detections_are_those_of_a_processor(random):
    locs, scores = predictions(8, random)
    model = SSD300(21, pretrained=False).eval()
    expected = model.detect_objects(locs, scores, 0.01, 0.45, 200)
    got = model.to(CUDA).detect_objects(locs.to(CUDA), scores.to(CUDA), 0.01, 0.45, 200)
    for ours, theirs in zip(got[2], expected[2], strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)
    assert sum(map(len, got[0])) > 800


def test_boxes_of_a_batch_are_suppressed_in_one_call_as_image_by_image(random):
    low = torch.rand(5000, 2, generator=random)
    boxes = torch.cat([low, low + 0.1], dim=1).to(CUDA)
    scores = torch.rand(5000, generator=random).to(CUDA)
    groups = torch.randint(0, 64 * 21, (5000,), generator=random).to(CUDA)
    together = suppress(boxes, scores, groups, 0.45)
    group_by_group = suppress(boxes.cpu(), scores.cpu(), groups.cpu(), 0.45)
    assert torch.equal(together.cpu(), group_by_group)
    assert torch.equal(rank_in_group(groups).cpu(), rank_in_group(groups.cpu()))


@pytest.mark.slow
def test_a_compiled_network_has_the_same_losses(random):
    boxes, labels = random_objects([2, 0, 5, 1], random, "cpu")
    images = torch.randn(4, 3, 300, 300, generator=random)
    losses = []
    for compiled in (False, True):
        training = training_on_gpu(precision="float32", compile=compiled, lr=1e-4)
        losses.append([take_step(images, boxes, labels, training).cpu() for _ in range(3)])
    torch.testing.assert_close(torch.stack(losses[1]), torch.stack(losses[0]), rtol=1e-2, atol=1e-2)
