"""Evaluate a checkpoint: the average precision of each class on the test images, and the mean."""

import math
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import NamedTuple

import torch
import torch.distributed as dist
from tqdm import tqdm

from annotations import printable
from checkpoints import load_model
from datasets import PascalVOCDataset, create_loader, ordered_batches
from model import number_classes
from published_weights import match_numbers
from runtime import (
    autocast,
    check_precision,
    check_range,
    choose_device,
    process_group,
    rank,
    read_command_line,
    readable_errors,
    world_size,
)
from utils import calculate_mAP, check_metric, send


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    # Images and model: what is evaluated
    data_folder: str = "data"  # folder with the lists that create_data_lists.py wrote
    checkpoint: str = "checkpoint_ssd300.pth.tar"  # the model: a file of any known kind, or coco
    split: str = "TEST"  # which images: TEST, or VAL where there are validation lists

    # Machine: what computes, and how
    batch_size: int = 32  # images at a time
    workers: int = 4  # processes per GPU that read and prepare images; 0: none but this one
    device: str = "auto"  # cpu, cuda, mps, xpu, or auto for a GPU if there is one
    precision: str = "auto"  # of convolutions: float32, bfloat16, float16, or auto for the fastest

    # Measuring: as published figures were measured (paper, section 3.7; VOC2007 devkit)
    min_score: float = 0.01  # a class's probability must be above this
    max_overlap: float = 0.45  # Jaccard overlap above which the worse of two boxes is suppressed
    top_k: int = 200  # the most detections per image
    metric: str = "11-point"  # as VOC2007 defines average precision; or area, as VOC2010 does


class Evaluation(NamedTuple):
    """What an evaluation finds."""

    average_precisions: dict  # {class name: AP from 0 to 1, NaN without countable objects}
    mAP: float
    losses: dict  # {"confidence", "localization"}: means over the images; empty without a criterion


class BatchResult(NamedTuple):
    """The detections and the objects of a batch: lists with one tensor per image."""

    det_boxes: list
    det_labels: list
    det_scores: list
    true_boxes: list
    true_labels: list
    true_difficulties: list
    losses: dict  # sums over the images


@torch.inference_mode()
def evaluate(
    test_loader,
    model,
    criterion=None,
    min_score=0.01,
    max_overlap=0.45,
    top_k=200,
    metric="11-point",
    precision="auto",
    after_batch=None,
):
    """
    Detect the objects of all test images and compare them with the true ones.

    :param test_loader: DataLoader over a PascalVOCDataset of the TEST or VAL split; under torchrun
        over this process's share, see datasets.ordered_batches
    :param model: SSD300, in eval mode afterwards. If its classes are others than the data set's,
        those that both have are compared, by name
    :param criterion: MultiBoxLoss, to add up the losses on the way; or None
    :param min_score, max_overlap, top_k: see SSD300.detect_objects
    :param metric: see utils.calculate_mAP
    :param precision: see runtime.autocast
    :param after_batch: a function without arguments that is called after each batch, or None
    :return: Evaluation
    :raises ValueError: the model and the data set have no class in common
    """
    model.eval()
    device = model.priors_cxcy.device
    dataset = test_loader.dataset
    if has_other_classes(model, dataset.label_map):
        find_shared_classes(model.label_map, dataset.label_map)  # an error before the images
    results = []
    for images, *truth in tqdm(
        test_loader, "evaluating", unit="batch", leave=False, disable=rank() > 0
    ):
        images = send(images, device, memory_format=torch.channels_last)
        with autocast(device, precision):
            predictions = model(images)  # locs (N, 8732, 4) and scores (N, 8732, n_classes)
        detections = model.detect_objects(*predictions, min_score, max_overlap, top_k)
        detections = [to_cpu(tensors) for tensors in detections]
        losses = {}
        if criterion is not None:
            boxes, labels, _ = truth
            means = criterion.components(*predictions, boxes, labels)
            losses = {name: float(loss) * len(images) for name, loss in means.items()}
        results.append(BatchResult(*detections, *truth, losses))
        if after_batch is not None:
            after_batch()
    results = gather_results(results)

    columns = [
        list(chain.from_iterable(lists)) for lists in zip(*(r[:6] for r in results), strict=True)
    ]
    label_map = dataset.label_map
    if has_other_classes(model, label_map):
        label_map, columns = keep_shared_classes(columns, model.label_map, label_map)
    average_precisions, mAP = calculate_mAP(*columns, label_map=label_map, metric=metric)
    losses = {
        name: sum(result.losses[name] for result in results) / len(dataset)
        for name in results[0].losses
    }
    return Evaluation(average_precisions, mAP, losses)


def to_cpu(tensors):
    """Tensors of a GPU as tensors on the CPU, with one copy for all of them."""
    parts = torch.cat(tensors).cpu().split([len(tensor) for tensor in tensors])
    return [part.clone() for part in parts]  # pickling a view would send its whole storage


def gather_results(results):
    """
    The results of all processes, each of which has evaluated every n-th batch.

    :param results: list of the results of this process, one per batch
    :return: list of the results of all batches in their order; the same in every process
    """
    if world_size() == 1:
        return results
    shares = [None] * world_size()
    dist.all_gather_object(shares, results)
    return [result for batches in zip_longest(*shares) for result in batches if result is not None]


def has_other_classes(model, label_map):
    """Whether a model's classes differ from these; one without names may have any."""
    return model.label_map not in (label_map, number_classes(len(label_map)))


def find_shared_classes(model_classes, data_classes, model_name="the model"):
    """
    The classes that a model and a data set have in common, by name.

    :param model_classes, data_classes: label maps {class name: number}
    :param model_name: what the message calls the model
    :return: {data set's number: model's number}, background included
    :raises ValueError: there is none but background
    """
    shared = match_numbers(model_classes, data_classes)
    if len(shared) == 1:
        raise ValueError(
            f"{model_name} knows the classes {list(model_classes)[1:]}, the data have "
            f"{list(data_classes)[1:]}: none is the same: give the data that it was trained on "
            "(--data-folder)"
        )
    return shared


def keep_shared_classes(columns, model_classes, data_classes):
    """
    Make detections of a model comparable with the objects of a data set that has other classes.

    :param columns: the six lists of BatchResult, over all images
    :param model_classes, data_classes: label maps {class name: number}
    :return: the label map of the classes that both have, in the data set's names and numbers; and
        the lists, without detections of other classes, labels as in the data set
    :raises ValueError: they have no class in common
    """
    shared = find_shared_classes(model_classes, data_classes)
    to_data = torch.zeros(len(model_classes), dtype=torch.int64)  # 0: a class of the model's alone
    for data_label, model_label in shared.items():
        to_data[model_label] = data_label

    det_boxes, det_labels, det_scores, *truth = columns
    det_labels = [to_data[labels] for labels in det_labels]
    kept = [labels > 0 for labels in det_labels]
    detections = [
        [values[keep] for values, keep in zip(column, kept, strict=True)]
        for column in (det_boxes, det_labels, det_scores)
    ]
    label_map = {name: number for name, number in data_classes.items() if number in shared}
    return label_map, [*detections, *truth]


def print_average_precisions(average_precisions, mAP, metric="11-point"):
    """Print a table of the average precision of each class, in percent, and their mean."""
    width = max(len("mAP (11-point)"), *map(len, average_precisions)) + 2
    print(f"\n{'class':<{width}}{'AP':>6}")
    for name, ap in [*average_precisions.items(), (f"mAP ({metric})", mAP)]:
        value = "   n/a" if math.isnan(ap) else f"{100 * ap:6.1f}"
        print(f"{printable(name):<{width}}{value}")


def check_parameters(parameters):
    """:raises ValueError: a parameter has no sensible value"""
    check_metric(parameters.metric)
    check_precision(parameters.precision)
    if parameters.split not in ("TEST", "VAL"):
        raise ValueError(f"split: expected TEST or VAL, got {parameters.split!r}")
    check_range("batch_size", parameters.batch_size, low=1)
    check_range("workers", parameters.workers, low=0)
    check_range("top_k", parameters.top_k, low=1)
    check_range("min_score", parameters.min_score, low=0, high=1)
    check_range("max_overlap", parameters.max_overlap, low=0, high=1)


def main(parameters):
    """
    Evaluate a checkpoint and print the table.

    :param parameters: Parameters
    :return: Evaluation
    :raises FileNotFoundError: the checkpoint or a list is missing
    :raises ValueError: a parameter has no sensible value, the checkpoint is damaged or has no class
        in common with the lists, or there are no images
    """
    check_parameters(parameters)
    device = choose_device(parameters.device)
    dataset = PascalVOCDataset(parameters.data_folder, parameters.split)
    if len(dataset) == 0:
        list_name = f"{parameters.split}_images.json"
        raise ValueError(
            f"{parameters.data_folder}: {list_name} lists no images: make lists with a test set"
        )
    model = load_model(parameters.checkpoint, device)
    if has_other_classes(model, dataset.label_map):
        print_shared_classes(model.label_map, dataset.label_map, parameters.checkpoint)
    batches = ordered_batches(len(dataset), parameters.batch_size, rank(), world_size())
    loader = create_loader(dataset, batches, parameters.workers, device)
    evaluation = evaluate(
        loader,
        model,
        min_score=parameters.min_score,
        max_overlap=parameters.max_overlap,
        top_k=parameters.top_k,
        metric=parameters.metric,
        precision=parameters.precision,
    )
    print_average_precisions(evaluation.average_precisions, evaluation.mAP, parameters.metric)
    return evaluation


def print_shared_classes(model_classes, data_classes, checkpoint):
    """
    Say which classes are going to be compared.

    :raises ValueError: there is none
    """
    shared = find_shared_classes(model_classes, data_classes, checkpoint)
    names = [name for name, number in data_classes.items() if number > 0 and number in shared]
    shown = printable(", ".join(names))
    print(f"{checkpoint} has other classes than the lists. Classes compared: {shown}.")
    others = [name for name in list(data_classes)[1:] if name not in names]
    if others:
        shown = printable(", ".join(others))
        print(f"Left out of the mean, since the model does not know them: {shown}.")


if __name__ == "__main__":
    with readable_errors(), process_group():
        main(read_command_line(Parameters, __doc__)[0])
