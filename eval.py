"""
Evaluate a checkpoint, or files of detections: the average precision of each class on the test
images, and the mean.
"""

import json
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from tqdm import tqdm

from annotations import printable
from checkpoints import load_model
from coco_metric import CocoResult, calculate_coco_mAP, load_pycocotools, print_coco
from datasets import PascalVOCDataset, create_loader, has_lists, ordered_batches
from detection_files import check_names, read_detections, save_detections
from model import number_classes
from published_weights import match_numbers
from report import Evaluated, write_report
from runtime import (
    autocast,
    check_file,
    check_folder,
    check_precision,
    check_range,
    choose_device,
    describe_versions,
    process_group,
    rank,
    read_command_line,
    readable_errors,
    world_size,
)
from utils import METRICS, calculate_mAP, percent, send, without_nan


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

    # Files: what is read in place of running a model, and what is written beside the table
    detections: str = ""  # evaluate this folder of VOC's or COCO's result files; no model is run
    save_detections: str = ""  # folder for the detections, as VOC's and COCO's result files
    report: str = ""  # folder for report.html: curves, kinds of errors, sizes, worst pictures
    json: str = ""  # file for the results, to be read by programs

    # Measuring: as published figures were measured (paper, section 3.7; VOC2007 devkit)
    min_score: float = 0.01  # a class's probability must be above this
    max_overlap: float = 0.45  # Jaccard overlap above which the worse of two boxes is suppressed
    top_k: int = 200  # the most detections per image
    metric: str = "11-point"  # VOC2007's average precision; area: VOC2010's; coco: COCO's


class Evaluation(NamedTuple):
    """What an evaluation finds."""

    average_precisions: dict  # {class name: AP from 0 to 1, NaN without countable objects}
    mAP: float
    losses: dict  # {"confidence", "localization"}: means of the batches, see BatchResult; or {}
    columns: list | None = None  # the first six lists of BatchResult, over all images
    label_map: dict | None = None  # the classes that were compared
    coco: CocoResult | None = None  # with the metric coco


class BatchResult(NamedTuple):
    """The detections and the objects of a batch: lists with one tensor per image."""

    det_boxes: list
    det_labels: list
    det_scores: list
    true_boxes: list
    true_labels: list
    true_difficulties: list
    losses: dict  # of the batch, times its number of images, so that small batches count less


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
    :param metric: "11-point" or "area", see utils.calculate_mAP; or "coco", see coco_metric
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
            losses = criterion.components(*predictions, boxes, labels)
            losses = {name: float(loss) * len(images) for name, loss in losses.items()}
        results.append(BatchResult(*detections, *truth, losses))
        if after_batch is not None:
            after_batch()
    results = gather_results(results)

    columns = [[] for _ in range(6)]  # detections and objects, without losses
    for result in results:
        for column, tensors in zip(columns, result[:6], strict=True):
            column += tensors
    label_map = dataset.label_map
    if has_other_classes(model, label_map):
        label_map, columns = keep_shared_classes(columns, model.label_map, label_map)
    measured = to_pixels(columns, dataset) if metric == "coco" else columns
    average_precisions, mAP, coco = measure(measured, label_map, metric)
    losses = {
        name: sum(result.losses[name] for result in results) / len(dataset)
        for name in results[0].losses
    }
    return Evaluation(average_precisions, mAP, losses, columns, label_map, coco)


def measure(columns, label_map, metric):
    """
    :param columns: the six lists that calculate_mAP takes; in pixels for the metric "coco"
    :param label_map: {class name: number}
    :param metric: see evaluate
    :return: {class name: AP}, their mean, and CocoResult or None
    """
    if metric != "coco":
        return *calculate_mAP(*columns, label_map=label_map, metric=metric), None
    coco = calculate_coco_mAP(*columns, label_map)
    average_precisions = {name: figures["AP"] for name, figures in coco.classes.items()}
    return average_precisions, coco.mean["AP"], coco


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
        print(f"{printable(name):<{width}}{percent(ap):>6}")


def check_parameters(parameters):
    """:raises ValueError: a parameter has no sensible value"""
    if parameters.metric not in (*METRICS, "coco"):
        raise ValueError(
            f"metric: expected '11-point', 'area' or 'coco', got {parameters.metric!r}"
        )
    if parameters.metric == "coco":
        load_pycocotools()  # an error before the images, if it is missing
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
    Evaluate a checkpoint, or files of detections, and print the table.

    :param parameters: Parameters
    :return: Evaluation
    :raises FileNotFoundError: the checkpoint, a list or a file of detections is missing
    :raises ValueError: a parameter has no sensible value, the checkpoint is damaged or has no class
        in common with the lists, a file of detections does not fit them, or there are no images
    :raises OSError: what is to be written could not be
    """
    check_parameters(parameters)
    needs_images = not parameters.detections
    dataset = PascalVOCDataset(parameters.data_folder, parameters.split, needs_images=needs_images)
    if len(dataset) == 0:
        has_others = parameters.split == "TEST" and has_lists(parameters.data_folder, "VAL")
        remedy = "give --split VAL, or " if has_others else ""
        raise ValueError(
            f"{parameters.data_folder}: {parameters.split}_images.json lists no images: {remedy}"
            "make lists with images to test with (create_data_lists.py --test-fraction)"
        )
    check_outputs(parameters, dataset)
    if parameters.detections:
        evaluation = evaluate_files(parameters.detections, dataset, parameters.metric)
    else:
        evaluation = evaluate_checkpoint(parameters, dataset)
    if evaluation.coco:
        print_coco(evaluation.coco)
    else:
        print_average_precisions(evaluation.average_precisions, evaluation.mAP, parameters.metric)
    if rank() == 0:
        write_outputs(parameters, evaluation, dataset)
    return evaluation


def check_outputs(parameters, dataset):
    """
    Find out before the evaluation whether what it finds can be written.

    :raises OSError: a folder cannot be written to
    :raises ValueError: names that files of detections cannot hold
    """
    if rank() > 0:
        return
    if parameters.save_detections:
        check_names(dataset.images, dataset.label_map)
        check_folder(parameters.save_detections)
    if parameters.report:
        check_folder(parameters.report)
    if parameters.json:
        check_file(parameters.json)


def evaluate_files(path, dataset, metric):
    """
    Compare the detections in files with the objects of a data set.

    :param path: see detection_files.read_detections
    :param dataset: PascalVOCDataset of the TEST or VAL split; its images are not opened
    :param metric: see evaluate
    :return: Evaluation; boxes are in pixels
    """
    columns = [*read_detections(path, dataset.images, dataset.label_map), *dataset.objects_px()]
    n_detections = sum(map(len, columns[2]))
    print(f"{n_detections:,} detections on {len(dataset):,} images, from {path}")
    average_precisions, mAP, coco = measure(columns, dataset.label_map, metric)
    return Evaluation(average_precisions, mAP, {}, columns, dataset.label_map, coco)


def evaluate_checkpoint(parameters, dataset):
    """
    :param parameters: Parameters
    :param dataset: PascalVOCDataset
    :return: Evaluation; boxes are fractional
    """
    device = choose_device(parameters.device)
    model = load_model(parameters.checkpoint, device)
    if has_other_classes(model, dataset.label_map):
        print_shared_classes(model.label_map, dataset.label_map, parameters.checkpoint)
    batches = ordered_batches(len(dataset), parameters.batch_size, rank(), world_size())
    loader = create_loader(dataset, batches, parameters.workers, device)
    return evaluate(
        loader,
        model,
        min_score=parameters.min_score,
        max_overlap=parameters.max_overlap,
        top_k=parameters.top_k,
        metric=parameters.metric,
        precision=parameters.precision,
    )


def write_outputs(parameters, evaluation, dataset):
    """Write what the parameters ask for; see Parameters."""
    if parameters.json:
        write_json(parameters, evaluation)
        print(f"The results are in {parameters.json}.")
    if not parameters.save_detections and not parameters.report:
        return
    columns = evaluation.columns
    if not parameters.detections:
        columns = to_pixels(columns, dataset)
    if parameters.save_detections:
        save_detections(
            parameters.save_detections,
            *columns[:3],
            dataset.images,
            evaluation.label_map,
            image_set=parameters.split.lower(),
        )
        print(f"The detections are in {parameters.save_detections}.")
    if parameters.report:
        evaluated = Evaluated(
            columns,
            evaluation.label_map,
            evaluation.average_precisions,
            evaluation.mAP,
            parameters.metric,
            dataset.images,
        )
        source = parameters.detections or parameters.checkpoint
        title = f"{Path(source).name} on {parameters.split} images"
        print(f"The report is in {write_report(parameters.report, evaluated, title)}.")


def write_json(parameters, evaluation):
    """Write the results for programs: shares from 0 to 1, null where there is none."""
    _, _, det_scores, _, true_labels, true_difficulties = evaluation.columns
    compared = torch.tensor(list(evaluation.label_map.values()))  # classes that the model knows
    n_objects = 0
    n_difficult = 0
    for labels, difficulties in zip(true_labels, true_difficulties, strict=True):
        difficulties = difficulties[torch.isin(labels, compared)]
        n_objects += len(difficulties)
        n_difficult += int(difficulties.sum())
    results = {
        "metric": parameters.metric,
        "mAP": evaluation.mAP,
        "average_precisions": evaluation.average_precisions,
        "coco": evaluation.coco._asdict() if evaluation.coco else None,
        "losses": evaluation.losses,
        "counts": {
            "images": len(det_scores),
            "detections": sum(map(len, det_scores)),
            "objects": n_objects - n_difficult,
            "difficult objects": n_difficult,
        },
        "checkpoint": None if parameters.detections else parameters.checkpoint,
        "parameters": asdict(parameters),
        "versions": describe_versions(),
    }
    text = json.dumps(without_nan(results), indent=2, allow_nan=False)
    Path(parameters.json).write_text(text + "\n", encoding="utf-8")


def to_pixels(columns, dataset):
    """
    Detections in pixels of their images, and the objects as the lists have them.

    :param columns: the first six lists of BatchResult, over all images; boxes are fractional
    :param dataset: PascalVOCDataset
    :return: such lists
    """
    det_boxes, det_labels, det_scores, *_ = columns
    sizes = torch.tensor(dataset.image_sizes(), dtype=torch.float32).repeat(1, 2)  # (n, 4)
    det_boxes_px = [boxes * size for boxes, size in zip(det_boxes, sizes, strict=True)]
    return [det_boxes_px, det_labels, det_scores, *dataset.objects_px()]


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
