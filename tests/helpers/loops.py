"""
The yardsticks of benchmark.py: what the code does in whole batches, written as a straightforward
tutorial would write it, with loops over images, classes or detections; and torchvision's transforms
in the same steps as ours. test_benchmark.py compares their results.
"""

import math

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from utils import (
    FILLER,
    IMAGE_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    cxcy_to_gcxgcy,
    cxcy_to_xy,
    gcxgcy_to_cxcy,
    xy_to_cxcy,
)


def loop_overlap(set_1, set_2):
    """Jaccard overlap of each box of one set (n1, 4) with each of another (n2, 4): (n1, n2)."""
    low = torch.max(set_1[:, :2].unsqueeze(1), set_2[:, :2].unsqueeze(0))  # (n1, n2, 2)
    high = torch.min(set_1[:, 2:].unsqueeze(1), set_2[:, 2:].unsqueeze(0))
    sides = (high - low).clamp(min=0)
    intersection = sides[:, :, 0] * sides[:, :, 1]
    area_1 = (set_1[:, 2] - set_1[:, 0]) * (set_1[:, 3] - set_1[:, 1])
    area_2 = (set_2[:, 2] - set_2[:, 0]) * (set_2[:, 3] - set_2[:, 1])
    return intersection / (area_1.unsqueeze(1) + area_2.unsqueeze(0) - intersection)


def loop_loss(predicted_locs, predicted_scores, boxes, labels, priors_cxcy):
    """
    The MultiBox loss with a loop over the images. An object takes the prior that it overlaps most,
    even if another object wants it too; in that case this is not the loss of model.py, and cheaper.
    """
    n_images, n_priors, n_classes = predicted_scores.shape
    priors_xy = cxcy_to_xy(priors_cxcy)
    true_locs = torch.zeros_like(predicted_locs)
    true_classes = torch.zeros(n_images, n_priors, dtype=torch.int64, device=predicted_locs.device)
    for i in range(n_images):
        n_objects = len(boxes[i])
        if n_objects == 0:
            continue
        overlap = loop_overlap(boxes[i], priors_xy)  # (n_objects, P)
        overlap_for_each_prior, object_for_each_prior = overlap.max(dim=0)
        prior_for_each_object = overlap.max(dim=1).indices
        object_for_each_prior[prior_for_each_object] = torch.arange(
            n_objects, device=overlap.device
        )
        overlap_for_each_prior[prior_for_each_object] = 1.0
        classes = labels[i][object_for_each_prior]
        classes[overlap_for_each_prior < 0.5] = 0
        true_classes[i] = classes
        true_locs[i] = cxcy_to_gcxgcy(xy_to_cxcy(boxes[i][object_for_each_prior]), priors_cxcy)

    positive = true_classes > 0
    n_positives = positive.sum(dim=1)
    localization = F.smooth_l1_loss(predicted_locs[positive], true_locs[positive], reduction="sum")
    loss = F.cross_entropy(
        predicted_scores.view(-1, n_classes), true_classes.view(-1), reduction="none"
    )
    loss = loss.view(n_images, -1)
    negative_loss = loss.clone()
    negative_loss[positive] = 0.0
    negative_loss, _ = negative_loss.sort(dim=1, descending=True)
    is_hard = torch.arange(n_priors, device=loss.device).unsqueeze(0) < 3 * n_positives.unsqueeze(1)
    total = loss[positive].sum() + negative_loss[is_hard].sum() + localization
    return total / n_positives.sum().clamp(min=1)


def loop_detect_objects(
    predicted_locs, predicted_scores, priors_cxcy, min_score, max_overlap, top_k, n_candidates=400
):
    """SSD300.detect_objects with loops over images, classes and boxes."""
    detections = []
    probabilities = predicted_scores.softmax(dim=2)
    for i in range(len(predicted_locs)):
        decoded = cxcy_to_xy(gcxgcy_to_cxcy(predicted_locs[i], priors_cxcy))
        boxes = [torch.zeros(0, 4)]
        labels = [torch.zeros(0, dtype=torch.int64)]
        scores = [torch.zeros(0)]
        for label in range(1, predicted_scores.size(2)):
            class_scores = probabilities[i, :, label]
            above = class_scores > min_score
            if not above.any():
                continue
            class_scores, order = class_scores[above].sort(descending=True)
            class_boxes = decoded[above][order][:n_candidates]
            class_scores = class_scores[:n_candidates]
            overlap = loop_overlap(class_boxes, class_boxes)
            suppressed = torch.zeros(len(class_boxes), dtype=torch.bool)
            for box in range(len(class_boxes)):
                if suppressed[box]:
                    continue
                suppressed = suppressed | (overlap[box] > max_overlap)
                suppressed[box] = False
            boxes.append(class_boxes[~suppressed])
            labels.append(torch.full((int((~suppressed).sum()),), label))
            scores.append(class_scores[~suppressed])
        scores, order = torch.cat(scores).sort(descending=True, stable=True)
        boxes = torch.cat(boxes)[order]
        labels = torch.cat(labels)[order]
        detections.append((boxes[:top_k], labels[:top_k], scores[:top_k]))
    return tuple(map(list, zip(*detections, strict=True)))


def loop_mean_average_precision(
    det_boxes, det_labels, det_scores, true_boxes, true_labels, true_difficulties, label_map
):
    """calculate_mAP with loops over classes and detections; 11 points, overlaps above 0.5."""
    det_images = torch.cat([torch.full((len(labels),), i) for i, labels in enumerate(det_labels)])
    true_images = torch.cat([torch.full((len(labels),), i) for i, labels in enumerate(true_labels)])
    det_boxes = torch.cat(det_boxes)
    det_labels = torch.cat(det_labels)
    det_scores = torch.cat(det_scores)
    true_boxes = torch.cat(true_boxes)
    true_labels = torch.cat(true_labels)
    true_difficulties = torch.cat(true_difficulties)
    average_precisions = {}
    for name, label in label_map.items():
        if label == 0:
            continue
        is_class = true_labels == label
        class_images = true_images[is_class]
        class_boxes = true_boxes[is_class]
        class_difficulties = true_difficulties[is_class]
        n_objects = int((~class_difficulties).sum())
        scores, order = det_scores[det_labels == label].sort(descending=True, stable=True)
        images = det_images[det_labels == label][order]
        boxes = det_boxes[det_labels == label][order]
        found = torch.zeros(len(class_boxes), dtype=torch.bool)
        is_true = torch.zeros(len(scores))
        is_false = torch.zeros(len(scores))
        for d in range(len(scores)):
            here = (class_images == images[d]).nonzero().squeeze(1)
            if len(here) == 0:
                is_false[d] = 1
                continue
            overlaps = loop_overlap(boxes[d].unsqueeze(0), class_boxes[here]).squeeze(0)
            overlap, place = overlaps.max(dim=0)
            best = here[place]
            if overlap <= 0.5:
                is_false[d] = 1
            elif not class_difficulties[best]:
                is_false[d] = float(found[best])
                is_true[d] = float(not found[best])
                found[best] = True
        n_true = is_true.cumsum(0)
        n_false = is_false.cumsum(0)
        precision = n_true / (n_true + n_false).clamp(min=1)
        points = []
        for k in range(11):
            reached = 10 * n_true >= k * n_objects
            points.append(precision[reached].max() if reached.any() else 0.0)
        average_precisions[name] = float(sum(points)) / 11 if n_objects > 0 else math.nan
    countable = [ap for ap in average_precisions.values() if not math.isnan(ap)]
    return average_precisions, sum(countable) / len(countable)


TRANSFORMS = v2.Compose(
    [
        v2.RandomPhotometricDistort(
            brightness=(0.875, 1.125), contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.1, 0.1)
        ),
        v2.RandomZoomOut(fill=FILLER, side_range=(1.0, 4.0), p=0.5),
        v2.RandomIoUCrop(),
        v2.RandomHorizontalFlip(0.5),
        v2.Resize((IMAGE_SIZE, IMAGE_SIZE)),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        v2.SanitizeBoundingBoxes(),
    ]
)


def torchvision_item(path, boxes, labels):
    """
    A training item as torchvision's transforms make it, in torchvision's own recipe for SSD.

    :param path: image file
    :param boxes, labels: (n, 4) float, pixels, and (n,) long
    """
    image = Image.open(path).convert("RGB")
    boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width))
    return TRANSFORMS(image, {"boxes": boxes, "labels": labels})


def decode_and_resize(path):
    """What every training item needs: an image file decoded and resized to the network's input."""
    image = Image.open(path).convert("RGB")
    return image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
