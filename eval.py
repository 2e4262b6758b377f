"""Evaluate a checkpoint: the average precision of each class on the test images, and their mean (mAP)."""

import math
import sys
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch
import torch.distributed as dist
from tqdm import tqdm

from checkpoints import load_model
from datasets import PascalVOCDataset, create_loader, ordered_batches
from downloads import DownloadError
from runtime import (
    autocast,
    choose_device,
    describe_error,
    process_group,
    rank,
    read_command_line,
    world_size,
)
from utils import calculate_mAP


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    data_folder: str = "data"  # folder with the lists that create_data_lists.py wrote
    checkpoint: str = "checkpoint_ssd300.pth.tar"  # the model to evaluate, of any kind that is known here, or coco
    batch_size: int = 32  # images at a time
    workers: int = 4  # processes, for each GPU, that read and prepare images; 0: this one does it
    device: str = "auto"  # cuda, cpu, or auto for a GPU if there is one
    precision: str = "auto"  # of the convolutions: float32, bfloat16, float16; auto: the fastest the hardware is made for
    # The settings that the published figures were measured with (paper, section 3.7; VOC2007 devkit)
    min_score: float = 0.01  # a class's probability must be above this
    max_overlap: float = 0.45  # Jaccard overlap above which the worse of two boxes of a class goes
    top_k: int = 200  # most detections an image
    metric: str = "11-point"  # average precision as VOC2007 defines it, or area: under the curve, as VOC2010 does


class Evaluation(NamedTuple):
    """What an evaluation finds."""

    average_precisions: (
        dict  # {class name: AP from 0 to 1, NaN for a class without countable objects}
    )
    mAP: float
    losses: dict  # {"confidence", "localization"}: means over the images; empty without a criterion


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
):
    """
    Detect the objects of all test images and hold them against the truth; on the way, add up the loss if asked for.

    :param test_loader: DataLoader over a PascalVOCDataset of the TEST split; under torchrun of this process's share, see
        datasets.ordered_batches
    :param model: SSD300, in eval mode afterwards
    :param criterion: MultiBoxLoss, or None
    :param min_score, max_overlap, top_k: see SSD300.detect_objects
    :param metric: see utils.calculate_mAP
    :param precision: see model.autocast
    :return: Evaluation
    """
    model.eval()
    device = model.priors_cxcy.device
    results = []  # of each batch: detections (boxes, labels, scores), truth (boxes, labels, difficulties), sums of the losses
    for images, boxes, labels, difficulties in tqdm(
        test_loader, "evaluating", unit="batch", leave=False, disable=rank() > 0
    ):
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        with autocast(device, precision):
            predicted_locs, predicted_scores = model(images)
        losses = (
            criterion.components(predicted_locs, predicted_scores, boxes, labels)
            if criterion is not None
            else {}
        )
        found = model.detect_objects(
            predicted_locs, predicted_scores, min_score, max_overlap, top_k
        )
        found = [fetch(tensors) for tensors in found]
        sums = {name: float(loss) * len(images) for name, loss in losses.items()}
        results.append((found, (boxes, labels, difficulties), sums))
    results = gather_results(results)

    detections, truths = (
        [[tensor for result in results for tensor in result[kind][part]] for part in range(3)]
        for kind in range(2)
    )
    dataset = test_loader.dataset
    average_precisions, mAP = calculate_mAP(
        *detections, *truths, label_map=dataset.label_map, metric=metric
    )
    losses = {
        name: sum(sums[name] for _, _, sums in results) / len(dataset) for name in results[0][2]
    }
    return Evaluation(average_precisions, mAP, losses)


def fetch(tensors):
    """Tensors of a GPU as tensors of their own on the CPU, in one copy."""
    parts = torch.cat(tensors).cpu().split([len(tensor) for tensor in tensors])
    return [
        part.clone() for part in parts
    ]  # of a view, gather_results would send all that it is a part of


def gather_results(results):
    """
    The results of all processes, each of which has evaluated every n-th batch, in the order of the batches.

    :param results: list with the results of this process, one for each of its batches
    :return: list with those of all batches; the same for every process
    """
    if world_size() == 1:
        return results
    shares = [None] * world_size()
    dist.all_gather_object(shares, results)
    return [result for batches in zip_longest(*shares) for result in batches if result is not None]


def print_average_precisions(average_precisions, mAP, metric="11-point"):
    """Print a table of the average precision of each class, in percent, and their mean."""
    width = max(len("mAP (11-point)"), *map(len, average_precisions)) + 2
    print(f"\n{'class':<{width}}{'AP':>6}")
    for name, ap in [*average_precisions.items(), (f"mAP ({metric})", mAP)]:
        print(f"{name:<{width}}" + ("   n/a" if math.isnan(ap) else f"{100 * ap:6.1f}"))


def main(parameters):
    """
    Evaluate a checkpoint and print the table.

    :param parameters: Parameters
    :return: Evaluation
    :raises FileNotFoundError: the checkpoint or a list is missing
    :raises ValueError: the checkpoint is damaged or knows other classes than the lists, or there are no test images
    """
    device = choose_device(parameters.device)
    dataset = PascalVOCDataset(parameters.data_folder, "TEST")
    if len(dataset) == 0:
        raise ValueError(
            f"{parameters.data_folder}: TEST_images.json lists no images: make lists with a test set"
        )
    model = load_model(parameters.checkpoint, device)
    if model.label_map != dataset.label_map:
        raise ValueError(
            f"{parameters.checkpoint} was trained on the classes {list(model.label_map)}, but {parameters.data_folder} has "
            f"{list(dataset.label_map)}: evaluate it on the data it was trained for (--data-folder)"
        )
    batches = ordered_batches(len(dataset), parameters.batch_size, rank(), world_size())
    loader = create_loader(dataset, batches, parameters.workers, device)
    evaluation = evaluate(
        loader, model, None, parameters.min_score, parameters.max_overlap, parameters.top_k, parameters.metric,
        parameters.precision,
    )  # fmt: skip
    print_average_precisions(evaluation.average_precisions, evaluation.mAP, parameters.metric)
    return evaluation


if __name__ == "__main__":
    try:
        with process_group():
            main(read_command_line(Parameters, __doc__)[0])
    except (OSError, ValueError, DownloadError) as error:
        sys.exit(describe_error(error))
