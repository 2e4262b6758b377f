"""
How fast everything is, beside a yardstick that is timed in turn with it: loops as a straightforward
tutorial would write them (helpers/loops.py), torchvision, or what the hardware can do. Prints a
Markdown table.

    python tests/benchmark.py                    all of it, on a GPU if there is one
    python tests/benchmark.py --quick            in a few minutes on a processor
    python tests/benchmark.py --only item loss

The photographs and the detections on VOC2007 are read from the folder of shared data that
conftest.py knows; without it, drawn pictures and random detections take their place, and the table
says so.
"""

import contextlib
import importlib.util
import io
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torchvision
from PIL import Image

import eval as evaluation
import export
from checkpoints import load_model, model_state, save_checkpoint
from conftest import SHARED
from datasets import PascalVOCDataset, ShuffledBatches, create_loader, keep_freed_memory
from helpers.loops import (
    decode_and_resize,
    loop_detect_objects,
    loop_loss,
    loop_mean_average_precision,
    torchvision_item,
)
from helpers.real_results import voc2007_result
from model import SSD300, MultiBoxLoss
from runtime import (
    autocast,
    choose_device,
    choose_precision,
    read_command_line,
    readable_errors,
)
from toy_data import create_toy_data
from train import Parameters as TrainParameters
from train import create_run, take_step
from utils import (
    calculate_mAP,
    create_data_lists,
    cxcy_to_gcxgcy,
    cxcy_to_xy,
    find_jaccard_overlap,
    label_map,
    xy_to_cxcy,
)

# Of the convolutions, for one image; additions and multiplications count one each
OPERATIONS = 62_747_075_584
N_CLASSES = len(label_map)
EVALUATION = {"min_score": 0.01, "max_overlap": 0.45, "top_k": 200}


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    device: str = "auto"  # cpu, cuda, mps, xpu, or auto for a GPU if there is one
    threads: int = 0  # of the processor; 0: one for each core
    quick: bool = False  # smaller batches and fewer repeats
    only: tuple = ()  # which measurements, by name; none: all of them


class Row(NamedTuple):
    """A row of the table."""

    what: str
    ours: str
    yardstick: str
    ratio: str
    spread: str = ""  # the range of the repeats of each, as a part of its median
    aim: str = ""


class Bench(NamedTuple):
    """What the measurements share."""

    device: torch.device
    quick: bool
    folder: Path  # for files that are needed on the way


# ------------------------------------------------------------------------------------------- timing


def time_in_turn(functions, repeats, device, warm_up=True):
    """
    Time functions one after the other, again and again, so that whatever else the machine does
    falls on all of them.

    :param functions: {name: function without arguments}
    :param warm_up: call each once before
    :return: {name: list of seconds}
    """
    times = {name: [] for name in functions}
    for function in functions.values() if warm_up else ():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            synchronize(device)
            start = time.perf_counter()
            function()
            synchronize(device)
            times[name].append(time.perf_counter() - start)
    return times


def synchronize(device):
    """Wait until a GPU has done all it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spread(*lists):
    """
    The range of each list of times as a part of its median, as text; nothing for single times.
    """
    if min(map(len, lists)) < 2:
        return ""
    return ", ".join(
        f"{(max(times) - min(times)) / statistics.median(times):.0%}" for times in lists
    )


def milliseconds(seconds):
    return f"{1000 * seconds:,.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def compare(what, times, aim="", each=1):
    """
    The row of two functions' times, the first of which is ours, each doing something for `each`
    images.
    """
    (_, ours), (name, yardstick) = times.items()
    ratio = statistics.median(ours) / statistics.median(yardstick)
    text = f"{1 / ratio:,.1f} x faster" if ratio < 0.95 else f"{ratio:.2f} x its time"
    shown = [milliseconds(statistics.median(values) / each) for values in (ours, yardstick)]
    return Row(what, shown[0], f"{name}: {shown[1]}", text, spread(ours, yardstick), aim)


def part_of(seconds, name, whole, aim):
    """The row that says what part of a longer time the one of the row above is."""
    return Row(
        f"the same as a part of the {name}",
        milliseconds(seconds),
        milliseconds(whole),
        f"{seconds / whole:.1%}",
        "",
        aim,
    )


def rate_row(rate, limit, aim):
    """The row that says what part of the rate of matrix products the one of the row above is."""
    shown = [f"{value / 1e9:,.0f} GFLOP/s" for value in (rate, limit)]
    return Row(
        "the same as a rate",
        shown[0],
        f"matrix product: {shown[1]}",
        f"{rate / limit:.0%}",
        "",
        aim,
    )


# -------------------------------------------------------------------------------- things to work on


def create_model():
    """
    An SSD300 with random weights whose scores are, like those of a trained one, mostly the
    background's.
    """
    torch.manual_seed(0)
    model = SSD300(N_CLASSES, pretrained=False)
    for name, layer in model.pred_convs.named_children():
        if name.startswith("cl_"):
            with torch.no_grad():
                layer.bias[::N_CLASSES] = 9.0
    return model.to(memory_format=torch.channels_last)


@contextlib.contextmanager
def silence():
    """A context that drops what is printed."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def draw_data(folder, n_train, n_test):
    """Drawn data of all twenty classes, and their lists."""
    with silence():
        create_toy_data(folder, n_classes=N_CLASSES - 1, n_train=n_train, n_test=n_test, seed=0)


def random_objects(counts, generator, device):
    """Boxes and labels of images with these numbers of objects: lists of tensors."""
    boxes, labels = [], []
    for count in counts:
        centre, size = (
            torch.rand(count, 2, generator=generator),
            0.05 + 0.4 * torch.rand(count, 2, generator=generator),
        )
        boxes.append(
            torch.cat([centre - size / 2, centre + size / 2], dim=1).clamp(0, 1).to(device)
        )
        labels.append(torch.randint(1, N_CLASSES, (count,), generator=generator).to(device))
    return boxes, labels


def realistic_predictions(n_images, priors_cxcy, background, device):
    """
    Predictions as a detector makes them: priors near objects score for the object's class and a
    little for those it resembles, and their boxes come close to the object's. The lower the
    background, the more candidates there are.

    :return: locs (N, 8732, 4), scores (N, 8732, n_classes), and the mean number of candidates per
        image
    """
    generator = torch.Generator().manual_seed(0)
    priors_cxcy = priors_cxcy.cpu()
    scores = torch.randn(n_images, len(priors_cxcy), N_CLASSES, generator=generator)
    scores[:, :, 0] += background
    locs = 0.5 * torch.randn(n_images, len(priors_cxcy), 4, generator=generator)
    for i in range(n_images):
        n_objects = int(torch.randint(1, 7, (1,), generator=generator))
        (boxes,), (labels,) = random_objects([n_objects], generator, "cpu")
        overlap, nearest = find_jaccard_overlap(boxes, cxcy_to_xy(priors_cxcy)).max(
            dim=0
        )  # (8732) both
        looks_like = 6 * torch.rand(n_objects, N_CLASSES, generator=generator)
        looks_like[:, 0] = 0
        looks_like[torch.arange(n_objects), labels] = 14
        scores[i] += looks_like[nearest] * overlap.unsqueeze(1)
        near = overlap > 0.2
        locs[i, near] += cxcy_to_gcxgcy(xy_to_cxcy(boxes[nearest[near]]), priors_cxcy[near])
    n_candidates = (
        scores.softmax(dim=2)[:, :, 1:] > EVALUATION["min_score"]
    ).sum().item() / n_images
    return locs.to(device), scores.to(device), n_candidates


def photographs(bench):
    """
    Two data folders with lists: photographs of 640 x 480 pixels, and parts of them of 500 x 375,
    with grain that makes the files about as large as those of PASCAL VOC, 88 kB.

    :return: {description: folder}
    """
    whole, cut = bench.folder / "640", bench.folder / "500"
    if (SHARED / "data" / "BCCD").is_dir():
        with silence():
            create_data_lists(SHARED / "data" / "BCCD", "", whole, "auto")
        names = "640 x 480", "500 x 375"
    else:
        draw_data(whole, n_train=80, n_test=1)
        names = "drawn picture", "part of it, 500 x 375"
    paths = json.loads((whole / "TRAIN_images.json").read_text())[:80]
    objects = json.loads((whole / "TRAIN_objects.json").read_text())[:80]
    cut.mkdir()
    rng = np.random.default_rng(0)
    new_paths, new_objects = [], []
    for path, entry in zip(paths, objects, strict=True):
        pixels = np.array(Image.open(path).convert("RGB").crop((0, 0, 500, 375))).astype(float)
        new_paths.append(str(cut / Path(path).with_suffix(".jpg").name))
        grain = rng.normal(0, 14, pixels.shape)
        Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(
            new_paths[-1], quality=90
        )
        inside = [i for i, box in enumerate(entry["boxes"]) if box[0] < 480 and box[1] < 355]
        boxes = [
            [*entry["boxes"][i][:2], min(entry["boxes"][i][2], 500), min(entry["boxes"][i][3], 375)]
            for i in inside
        ]
        others = {name: [entry[name][i] for i in inside] for name in ("labels", "difficulties")}
        new_objects.append({"boxes": boxes, **others})
    for folder, images, entries in ((whole, paths, objects), (cut, new_paths, new_objects)):
        (folder / "TRAIN_images.json").write_text(json.dumps(images))
        (folder / "TRAIN_objects.json").write_text(json.dumps(entries))
        (folder / "label_map.json").write_text((whole / "label_map.json").read_text())
    return dict(zip(names, (whole, cut), strict=True))


# ------------------------------------------------------------------------------------- measurements


def precisions(bench):
    """The names of float32, and of what the device trains in if that is something else."""
    return list(
        dict.fromkeys(
            ["float32", str(choose_precision(bench.device, "auto")).removeprefix("torch.")]
        )
    )


@contextlib.contextmanager
def one_thread():
    """A context in which a single thread computes, as in a process that reads pictures."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def matrix_rate(precision, bench):
    """Operations a second of a product of two matrices."""
    side = 8192 if bench.device.type == "cuda" else 2048
    matrix = torch.randn(side, side, device=bench.device).to(getattr(torch, precision))
    times = time_in_turn({"product": lambda: matrix @ matrix}, 5, bench.device)
    return 2 * side**3 / statistics.median(times["product"])


def measure_forward(bench):
    """The network beside torchvision's, and beside matrix products."""
    n_images = (4 if bench.quick else 32) if bench.device.type == "cpu" else 64
    images = torch.randn(n_images, 3, 300, 300).to(bench.device, memory_format=torch.channels_last)
    ours = create_model().eval().to(bench.device)
    theirs = torchvision.models.detection.ssd300_vgg16(
        weights=None, weights_backbone=None, num_classes=N_CLASSES
    )
    theirs = theirs.eval().to(bench.device, memory_format=torch.channels_last)
    rows = []
    for name in precisions(bench):
        with torch.inference_mode(), autocast(bench.device, name):
            functions = {
                "ours": lambda: ours(images),
                "torchvision": lambda: theirs.head(list(theirs.backbone(images).values())),
            }
            times = time_in_turn(functions, 2 if bench.quick else 7, bench.device)
        what = f"forward pass, {name}, {n_images} images, each"
        rows.append(compare(what, times, "no slower", each=n_images))
        rate, limit = (
            n_images * OPERATIONS / statistics.median(times["ours"]),
            matrix_rate(name, bench),
        )
        rows.append(rate_row(rate, limit, "at least 90%" if name == "float32" else "at least 80%"))
    return rows


def step_data(n_images):
    """Random images with the numbers of objects that VOC's have."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n_images, 3, 300, 300, generator=generator)
    counts = [1, 2, 3, 1, 2, 6, 1, 3] * math.ceil(n_images / 8)
    return images, *random_objects(counts[:n_images], generator, "cpu")


def our_step(bench, n_images, **settings):
    """A training step of train.py, a function without arguments."""
    run = create_run(create_model().to(bench.device), TrainParameters(**settings), {})
    images, boxes, labels = step_data(n_images)
    return lambda: take_step(images, boxes, labels, run)


def plain_step(bench, n_images):
    """
    The same as PyTorch does it unless told otherwise: in float32, with the channels first in
    memory.
    """
    model = create_model().to(bench.device, memory_format=torch.contiguous_format)
    criterion, optimizer = (
        MultiBoxLoss(model.priors_cxcy),
        torch.optim.SGD(model.parameters(), lr=1e-6),
    )
    images, boxes, labels = step_data(n_images)

    def step():
        optimizer.zero_grad()
        criterion(*model(images.to(bench.device)), boxes, labels).backward()
        optimizer.step()

    return step


def measure_step(bench):
    """
    A training step: beside a plain one, beside matrix products, and on a GPU beside a compiled one.
    """
    n_images = 32 if bench.device.type == "cuda" else 4 if bench.quick else 16
    functions = {"ours": our_step(bench, n_images), "plain float32": plain_step(bench, n_images)}
    times = time_in_turn(functions, 2 if bench.quick else 5, bench.device)
    rows = [
        compare(f"training step, {n_images} images, each", times, "2.3 x faster", each=n_images)
    ]
    rate = (
        3 * n_images * OPERATIONS / statistics.median(times["ours"])
    )  # forward, and backward twice as much
    rows.append(rate_row(rate, matrix_rate(precisions(bench)[-1], bench), "at least 40% on a GPU"))
    if bench.device.type == "cuda":
        compiled = {
            "compiled": our_step(bench, n_images, compile=True),
            "not compiled": functions["ours"],
        }
        rows.append(
            compare(
                "training step, compiled, each",
                time_in_turn(compiled, 5, bench.device),
                each=n_images,
            )
        )
    return rows


def measure_loss(bench):
    """
    MultiBoxLoss, forward and backward, beside loops over the images and beside the training step.
    """
    rows = []
    priors_cxcy = SSD300.create_prior_boxes().to(bench.device)
    criterion = MultiBoxLoss(priors_cxcy)
    generator = torch.Generator().manual_seed(0)
    spans = {"VOC's numbers of": (1, 2, 3, 1, 2, 6, 1, 3), "0 to 56": range(57), "56": (56,)}
    n_step, loss_aim = (32, "under 5%") if bench.device.type == "cuda" else (4, "under 3%")
    step = (
        statistics.median(time_in_turn({"": our_step(bench, n_step)}, 2, bench.device)[""])
        * 32
        / n_step
    )
    for n_images in (4, 32):
        locs = (
            torch.randn(n_images, len(priors_cxcy), 4, generator=generator)
            .to(bench.device)
            .requires_grad_()
        )
        scores = (
            torch.randn(n_images, len(priors_cxcy), N_CLASSES, generator=generator)
            .to(bench.device)
            .requires_grad_()
        )
        for name, span in spans.items():
            counts = [
                span[int(i)] for i in torch.randint(len(span), (n_images,), generator=generator)
            ]
            boxes, labels = random_objects(counts, generator, bench.device)

            def run(function, arguments):
                torch.autograd.grad(function(*arguments), arguments[:2])

            ours = [locs, scores, boxes, labels]
            functions = {
                "ours": lambda arguments=ours: run(criterion, arguments),
                "loops": lambda arguments=ours: run(loop_loss, [*arguments, priors_cxcy]),
            }
            times = time_in_turn(functions, 5 if bench.quick else 15, bench.device)
            rows.append(
                compare(
                    f"loss and its gradient, {n_images} images, {name} objects", times, "no slower"
                )
            )
            if n_images == 32:
                rows.append(
                    part_of(statistics.median(times["ours"]), "training step", step, loss_aim)
                )
    return rows


def measure_item(bench):
    """A training item, from the file to the tensors, in one thread like a worker's."""
    rows = []
    for name, folder in photographs(bench).items():
        dataset = PascalVOCDataset(folder, "TRAIN")
        sizes = [os.path.getsize(path) for path in dataset.images]
        n = len(dataset)
        epochs = iter(range(1000))
        tensors = [
            (torch.tensor(entry["boxes"]).view(-1, 4), torch.tensor(entry["labels"]))
            for entry in dataset.objects
        ]

        def ours(dataset=dataset, n=n, epochs=epochs):
            dataset.set_epoch(next(epochs))
            for i in range(n):
                dataset[i]

        def base(paths=dataset.images):
            for path in paths:
                decode_and_resize(path)

        def theirs(paths=dataset.images, tensors=tensors):
            for path, (boxes, labels) in zip(paths, tensors, strict=True):
                torchvision_item(path, boxes, labels)

        functions = {"ours": ours, "decode and resize": base, "torchvision": theirs}
        with one_thread():
            times = time_in_turn(functions, 3 if bench.quick else 9, bench.device)
        base_times, theirs_times = times.pop("decode and resize"), times.pop("torchvision")
        what = f"training item, {name}, {sum(sizes) / n / 1000:.0f} kB"
        rows.append(
            compare(
                what, {**times, "decode and resize": base_times}, "at most 2.0 x its time", each=n
            )
        )
        rows.append(
            compare("the same", {**times, "torchvision v2": theirs_times}, "3 x faster", each=n)
        )
        rows.append(
            Row(
                "the same as a rate",
                f"{n / statistics.median(times['ours']):,.0f} images/s a worker",
                "",
                "",
            )
        )
    return rows


def measure_detect(bench):
    """
    detect_objects on a batch, beside loops over images, classes and boxes, torchvision's way, and
    the forward pass.
    """
    n_images = 32 if bench.device.type == "cpu" else 64
    model = create_model().eval().to(bench.device)
    theirs = torchvision.models.detection.ssd300_vgg16(
        weights=None,
        weights_backbone=None,
        num_classes=N_CLASSES,
        score_thresh=EVALUATION["min_score"],
        nms_thresh=EVALUATION["max_overlap"],
        detections_per_img=EVALUATION["top_k"],
    )
    priors_xy = 300 * cxcy_to_xy(model.priors_cxcy)
    rows = []
    with torch.inference_mode():
        images = torch.randn(4, 3, 300, 300).to(bench.device, memory_format=torch.channels_last)
        with autocast(bench.device, "auto"):
            forward = statistics.median(
                time_in_turn({"": lambda: model(images)}, 3, bench.device)[""]
            ) / len(images)
        for background in (9.5, 7.0, 5.5):
            locs, scores, n_candidates = realistic_predictions(
                n_images, model.priors_cxcy, background, bench.device
            )
            cpu = locs.cpu(), scores.cpu(), model.priors_cxcy.cpu()
            head_outputs = {"bbox_regression": locs, "cls_logits": scores}
            functions = {
                "ours": lambda locs=locs, scores=scores: model.detect_objects(
                    locs, scores, **EVALUATION
                ),
                "loops": lambda cpu=cpu: loop_detect_objects(*cpu, **EVALUATION),
                "torchvision": lambda outputs=head_outputs: theirs.postprocess_detections(
                    outputs, [priors_xy] * n_images, [(300, 300)] * n_images
                ),
            }
            times = time_in_turn(functions, 2 if bench.quick else 5, bench.device)
            what = f"detect_objects, {n_images} images, {n_candidates:,.0f} candidates each; each"
            torchvisions = times.pop("torchvision")
            rows.append(compare(what, times, "20 x faster", each=n_images))
            rows.append(
                compare(
                    "the same", {"ours": times["ours"], "torchvision": torchvisions}, each=n_images
                )
            )
            rows.append(
                part_of(
                    statistics.median(times["ours"]) / n_images,
                    "forward pass",
                    forward,
                    "under 10%",
                )
            )
    return rows


def measure_onnx(bench):
    """
    A file of export.py in onnxruntime, beside the network and detect_objects in PyTorch: both on
    the processor, in float32, and with as many threads.
    """
    if importlib.util.find_spec("onnxruntime") is None or export.missing_packages():
        return [Row("exported file in onnxruntime", "not installed", "", "")]
    import onnxruntime

    n_images = 4 if bench.quick else 32
    checkpoint = bench.folder / "random.pth.tar"
    save_checkpoint(checkpoint, model_state(create_model()))
    with silence():
        path = export.main(export.Parameters(str(checkpoint), str(bench.folder / "random.onnx")))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)

    model = load_model(checkpoint)
    images = torch.randn(n_images, 3, 300, 300)
    ours = images.to(memory_format=torch.channels_last)
    settings = {"min_score": 0.2, "max_overlap": 0.5, "top_k": 200}
    functions = {
        "onnxruntime": lambda: session.run(None, {"images": images.numpy()}),
        "PyTorch": lambda: model.detect_objects(*model(ours), **settings),
    }
    with torch.inference_mode():
        times = time_in_turn(functions, 2 if bench.quick else 7, torch.device("cpu"))
    what = f"exported file in onnxruntime, float32, {n_images} images, each"
    return [compare(what, times, each=n_images)]


def random_result(n_images, n_detections):
    """
    Random detections, near the objects and elsewhere, on images with VOC's number of objects:
    arguments of calculate_mAP.
    """
    generator = torch.Generator().manual_seed(0)
    true_boxes, true_labels = random_objects(
        [1, 2, 3, 1, 2, 6, 1, 3] * (n_images // 8), generator, "cpu"
    )
    difficulties = [torch.rand(len(labels), generator=generator) < 0.2 for labels in true_labels]
    detections = with_more(
        (
            [torch.zeros(0, 4)] * n_images,
            [torch.zeros(0).long()] * n_images,
            [torch.zeros(0)] * n_images,
        ),
        true_boxes,
        true_labels,
        n_detections,
    )
    return *detections, true_boxes, true_labels, difficulties


def with_more(detections, true_boxes, true_labels, n_detections):
    """
    Detections (boxes, labels, scores), and in each image so many more, around its objects, that
    there are n_detections.
    """
    generator = torch.Generator().manual_seed(1)
    boxes, labels, scores = [], [], []
    for *found, objects, classes in zip(*detections, true_boxes, true_labels, strict=True):
        n = max(0, n_detections - len(found[0]))
        chosen = torch.randint(len(objects), (n,), generator=generator)
        jitter = (
            0.3
            * torch.randn(n, 4, generator=generator)
            * (objects[chosen][:, 2:] - objects[chosen][:, :2]).repeat(1, 2)
        )
        other = torch.randint(1, N_CLASSES, (n,), generator=generator)
        label = torch.where(torch.rand(n, generator=generator) < 0.5, classes[chosen], other)
        boxes.append(torch.cat([found[0], objects[chosen] + jitter]))
        labels.append(torch.cat([found[1], label]))
        scores.append(torch.cat([found[2], 0.1 * torch.rand(n, generator=generator)]))
    return boxes, labels, scores


def measure_map(bench):
    """calculate_mAP on a whole VOC2007 test result, beside a loop over classes and detections."""
    archives = SHARED / "data" / "voc"
    if archives.is_dir():
        with tarfile.open(archives / "voc_annotations.tar.xz") as archive:
            wanted = ("VOCdevkit/VOC2007/ImageSets/Main/test.txt", "VOCdevkit/VOC2007/Annotations/")
            members = [member for member in archive if member.name.startswith(wanted)]
            archive.extractall(bench.folder, members, filter="data")
        result = voc2007_result(
            archives / "yolov3_voc07_test_results.tar.xz", bench.folder / "VOCdevkit" / "VOC2007"
        )
        source = "a published detector's"
    else:
        result, source = random_result(4952, 18), "random"
    many = with_more(result[:3], result[3], result[4], 200)
    rows = []
    part = slice(None, None, 10 if bench.quick else 1)  # of the images, for the larger result
    for name, arguments in (
        (source, result),
        ("the same and more", tuple(x[part] for x in (*many, *result[3:]))),
    ):
        functions = {
            "ours": lambda arguments=arguments: calculate_mAP(*arguments),
            "loops": lambda arguments=arguments: loop_mean_average_precision(*arguments, label_map),
        }
        times = time_in_turn(functions, 1, torch.device("cpu"), warm_up=False)
        n_detections = sum(map(len, arguments[0]))
        rows.append(
            compare(f"calculate_mAP, {n_detections:,} detections ({name})", times, "30 x faster")
        )
    return rows


def measure_eval(bench):
    """eval.py as a whole: what part of its time is the forward pass."""
    folder = bench.folder / "evaluation"
    draw_data(folder, n_train=1, n_test=32 if bench.quick else 128)
    classes = json.loads((folder / "label_map.json").read_text())
    save_checkpoint(folder / "random.pth.tar", model_state(create_model(), classes))
    workers = 1 if bench.device.type == "cpu" else 8
    parameters = evaluation.Parameters(
        str(folder), str(folder / "random.pth.tar"), workers=workers, device=str(bench.device)
    )
    parameters.batch_size = 8 if bench.device.type == "cpu" else 32
    forward, seconds = SSD300.forward, []

    def timed_forward(model, images):
        synchronize(bench.device)
        start = time.perf_counter()
        predictions = forward(model, images)
        synchronize(bench.device)
        seconds.append(time.perf_counter() - start)
        return predictions

    start = time.perf_counter()
    with mock.patch.object(SSD300, "forward", timed_forward), silence():
        evaluation.main(parameters)
    whole = time.perf_counter() - start
    n_images = len(json.loads((folder / "TEST_images.json").read_text()))
    name = f"eval.py, {n_images} images, from reading the lists to mAP: the forward pass"
    return [
        Row(
            name,
            milliseconds(sum(seconds)),
            milliseconds(whole),
            f"{sum(seconds) / whole:.0%}",
            "",
            "at least 90%",
        )
    ]


def measure_train(bench):
    """What part of the training the steps wait for data, after the first."""
    on_gpu = bench.device.type == "cuda"
    batch_size, workers, n_steps = (32, 8, 60) if on_gpu else (4, 1, 4 if bench.quick else 12)
    folder = bench.folder / "training"
    draw_data(folder, n_train=batch_size * (n_steps + 1), n_test=1)
    dataset = PascalVOCDataset(folder, "TRAIN", keep_difficult=True)
    parameters = TrainParameters(batch_size=batch_size)
    run = create_run(create_model().to(bench.device), parameters, {})
    loader = create_loader(
        dataset, ShuffledBatches(len(dataset), batch_size, 0), workers, bench.device
    )
    batches = iter(loader)
    take_step(*next(batches)[:3], run)  # the first one sets everything up
    synchronize(bench.device)
    start, waiting = time.perf_counter(), 0.0
    for _ in range(n_steps):
        begin = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - begin
        take_step(*batch[:3], run)
    synchronize(bench.device)
    whole = time.perf_counter() - start
    processes = "1 worker" if workers == 1 else f"{workers} workers"
    name = f"training on images, {batch_size} per step, {processes}: waiting for data"
    rate = batch_size * n_steps / whole
    shown = f"{milliseconds(whole)}, {rate:,.1f} images/s"
    rows = [Row(name, milliseconds(waiting), shown, f"{waiting / whole:.1%}", "", "under 2%")]

    n_items = min(len(dataset), 64)
    with one_thread():
        times = time_in_turn(
            {"items": lambda: [dataset[i] for i in range(n_items)]}, 3, bench.device
        )
    worker_rate = n_items / statistics.median(times["items"])
    needed = math.ceil(batch_size * n_steps / (whole - waiting) / worker_rate)
    return [
        *rows,
        Row(
            "workers that such steps need",
            f"{needed}",
            f"a worker: {worker_rate:,.0f} images/s",
            "",
        ),
    ]


def measure_start(bench):
    """How long a script takes to start."""
    root = Path(__file__).resolve().parents[1]

    def run(*arguments):
        subprocess.run(
            [sys.executable, *arguments], check=True, cwd=root, stdout=subprocess.DEVNULL
        )

    functions = {
        "ours": lambda: run("detect.py", "--help"),
        "importing torch and torchvision": lambda: run("-c", "import torch, torchvision"),
    }
    times = time_in_turn(functions, 2 if bench.quick else 9, torch.device("cpu"))
    return [compare("starting detect.py, with --help", times, "at most 1.1 x its time")]


def measure_memory(bench):
    """The peak memory of a training step, each in a process of its own."""
    rows = []
    for batch_size, micro_batch_size in [(4, 0)] if bench.quick else [(32, 0), (32, 8)]:
        for precision in precisions(bench)[-1:] if bench.quick else precisions(bench):
            arguments = [str(bench.device), str(batch_size), str(micro_batch_size), precision]
            command = [sys.executable, __file__, "--measure-peak-of", *arguments]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            before, peak = map(int, output.split())
            parts = f", {micro_batch_size} at once" if micro_batch_size else ""
            name = f"peak memory of a training step, {batch_size} images{parts}, {precision}"
            rows.append(
                Row(
                    name,
                    f"{peak / 2**30:.1f} GiB",
                    f"the program alone: {before / 2**30:.1f} GiB",
                    "",
                )
            )
    return rows


def print_peak(device, batch_size, micro_batch_size, precision):
    """
    In a process of its own: print the memory in bytes that the program takes, and the most that it
    took in two steps.
    """
    bench = Bench(torch.device(device), True, Path())
    step = our_step(
        bench, int(batch_size), precision=precision, micro_batch_size=int(micro_batch_size)
    )
    before = peak_memory(bench.device)
    for _ in range(2):
        step()
    print(before, peak_memory(bench.device))


def peak_memory(device):
    """
    The most memory, in bytes, that this process has had so far on a GPU or, with the CPU as device,
    altogether.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count the memory of the process that started this one
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    import resource  # which Windows does not have

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


MEASUREMENTS = {
    "forward": measure_forward,
    "step": measure_step,
    "loss": measure_loss,
    "item": measure_item,
    "detect": measure_detect,
    "onnx": measure_onnx,
    "map": measure_map,
    "eval": measure_eval,
    "train": measure_train,
    "start": measure_start,
    "memory": measure_memory,
}


# -------------------------------------------------------------------------------------------- table


def describe_machine(device):
    """What the figures were measured on, in a line."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        names = [
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = names[0].partition(":")[2].strip() if names else processor
    where = f"{processor}, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}; {where}"
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    return f"{time.strftime('%Y-%m-%d')}, {where}, {versions}"


def main(parameters):
    """
    Measure, and print a row after the other.

    :param parameters: Parameters
    :return: list of Rows
    :raises ValueError: no such device, or no such measurement
    """
    unknown = set(parameters.only) - set(MEASUREMENTS)
    if unknown:
        raise ValueError(
            f"--only: no measurement is called {', '.join(sorted(unknown))}: there are "
            f"{', '.join(MEASUREMENTS)}"
        )
    device = choose_device(parameters.device)
    torch.set_num_threads(parameters.threads or os.cpu_count())
    keep_freed_memory()  # as in every program that has a data set
    torch.backends.cudnn.benchmark = True  # as train.py does
    print(f"{describe_machine(device)}\n")
    print("| what | ours | yardstick | ratio | spread | aim |\n|---|---|---|---|---|---|")
    rows = []
    for name in parameters.only or MEASUREMENTS:
        with tempfile.TemporaryDirectory() as folder:
            for row in MEASUREMENTS[name](Bench(device, parameters.quick, Path(folder))):
                print("| " + " | ".join(row) + " |", flush=True)
                rows.append(row)
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure-peak-of"]:
        print_peak(*sys.argv[2:])
    else:
        with readable_errors():
            main(read_command_line(Parameters, "How fast everything is, beside a yardstick.")[0])
