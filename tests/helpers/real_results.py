"""A published detector's result on the whole VOC2007 test set, as calculate_mAP takes it."""

import tarfile

import torch

from utils import label_map, parse_annotation


def as_tensors(det_boxes, det_labels, det_scores, true_boxes, true_labels, true_difficulties):
    """Turn lists, a list per image, into the tensors that calculate_mAP takes."""
    return (
        [torch.tensor(boxes, dtype=torch.float32).view(-1, 4) for boxes in det_boxes],
        [torch.tensor(labels, dtype=torch.int64) for labels in det_labels],
        [torch.tensor(scores, dtype=torch.float32) for scores in det_scores],
        [torch.tensor(boxes, dtype=torch.float32).view(-1, 4) for boxes in true_boxes],
        [torch.tensor(labels, dtype=torch.int64) for labels in true_labels],
        [torch.tensor(difficulties, dtype=torch.bool) for difficulties in true_difficulties],
    )


def read_results(archive_path, image_ids):
    """
    Read result files in the devkit's format.

    :return: for each image a list of (label, score, box); boxes have continuous edges
    """
    detections = {image_id: [] for image_id in image_ids}
    with tarfile.open(archive_path) as archive:
        for member in archive.getmembers():
            if not member.isfile():
                continue
            label = label_map[member.name.removesuffix(".txt").split("_")[-1]]
            for line in archive.extractfile(member).read().decode().splitlines():
                image_id, score, x_min, y_min, x_max, y_max = line.split()
                box = float(x_min) - 1, float(y_min) - 1, float(x_max), float(y_max)
                detections[image_id].append((label, float(score), box))
    return [detections[image_id] for image_id in image_ids]


def voc2007_result(archive_path, voc2007_path):
    """
    The arguments of calculate_mAP.

    :param archive_path: archive of the detector's result files
    :param voc2007_path: Path of a folder with ImageSets and Annotations
    """
    image_ids = (voc2007_path / "ImageSets" / "Main" / "test.txt").read_text().split()
    truth = [
        parse_annotation(voc2007_path / "Annotations" / f"{image_id}.xml") for image_id in image_ids
    ]
    detections = read_results(archive_path, image_ids)
    return as_tensors(
        [[box for _, _, box in image] for image in detections],
        [[label for label, _, _ in image] for image in detections],
        [[score for _, score, _ in image] for image in detections],
        [[obj["box"] for obj in image] for image in truth],
        [[label_map[obj["name"]] for obj in image] for image in truth],
        [[obj["difficult"] for obj in image] for image in truth],
    )
