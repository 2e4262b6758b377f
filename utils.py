"""What the other files share: the label map, data lists, box math, transforms, mean average precision, and command lines."""

import math

import numpy as np
import torch
from PIL import Image

from annotations import create_data_lists, create_label_map, parse_annotation, voc_labels  # noqa: F401

label_map = create_label_map(voc_labels)
rev_label_map = {number: label for label, number in label_map.items()}


# -------------------------------------------------------------------------------------------------------------- box math


def xy_to_cxcy(xy):
    """
    Boundary coordinates to centre-size coordinates.

    :param xy: (..., 4) x_min, y_min, x_max, y_max
    :return: (..., 4) c_x, c_y, w, h
    """
    low, high = xy[..., :2], xy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def cxcy_to_xy(cxcy):
    """
    Centre-size coordinates to boundary coordinates.

    :param cxcy: (..., 4) c_x, c_y, w, h
    :return: (..., 4) x_min, y_min, x_max, y_max
    """
    centre, size = cxcy[..., :2], cxcy[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def cxcy_to_gcxgcy(cxcy, priors_cxcy):
    """
    Encode boxes as offsets from their priors (paper, equation 2). The factors 10 and 5 are one over the "variances" 0.1 and 0.2
    of the authors' code: they make the offsets of matched priors of the order of one.

    :param cxcy: (..., P, 4) one box for each prior
    :param priors_cxcy: (P, 4)
    :return: (..., P, 4) offsets g_c_x, g_c_y, g_w, g_h
    """
    centre, size = cxcy[..., :2], cxcy[..., 2:]
    prior_centre, prior_size = priors_cxcy[..., :2], priors_cxcy[..., 2:]
    return torch.cat(
        [(centre - prior_centre) / (prior_size / 10), torch.log(size / prior_size) * 5], dim=-1
    )


def gcxgcy_to_cxcy(gcxgcy, priors_cxcy):
    """
    Decode offsets to boxes: the inverse of cxcy_to_gcxgcy.

    :param gcxgcy: (..., P, 4) offsets g_c_x, g_c_y, g_w, g_h
    :param priors_cxcy: (P, 4)
    :return: (..., P, 4) c_x, c_y, w, h
    """
    offset, log_size = gcxgcy[..., :2], gcxgcy[..., 2:]
    prior_centre, prior_size = priors_cxcy[..., :2], priors_cxcy[..., 2:]
    return torch.cat(
        [offset * prior_size / 10 + prior_centre, torch.exp(log_size / 5) * prior_size], dim=-1
    )


def find_jaccard_overlap(set_1, set_2):
    """
    The Jaccard overlap (intersection over union) of every box of one set with every box of another.

    :param set_1: (..., n1, 4) boundary coordinates
    :param set_2: (..., n2, 4) boundary coordinates, in the same unit
    :return: (..., n1, n2), from 0 to 1; 0 for two boxes without area
    """
    # Edges side by side in memory, as a processor is fast with
    x_min_1, y_min_1, x_max_1, y_max_1 = (
        set_1.unsqueeze(-2).movedim(-1, 0).contiguous()
    )  # each (..., n1, 1)
    x_min_2, y_min_2, x_max_2, y_max_2 = (
        set_2.unsqueeze(-3).movedim(-1, 0).contiguous()
    )  # each (..., 1, n2)
    width = torch.minimum(x_max_1, x_max_2).sub_(torch.maximum(x_min_1, x_min_2))  # (..., n1, n2)
    height = torch.minimum(y_max_1, y_max_2).sub_(torch.maximum(y_min_1, y_min_2))
    intersection = width.clamp_(min=0).mul_(
        height.clamp_(min=0)
    )  # boxes that miss each other have a negative width or height
    area_1 = (x_max_1 - x_min_1) * (y_max_1 - y_min_1)
    area_2 = (x_max_2 - x_min_2) * (y_max_2 - y_min_2)
    union = (area_1 + area_2).sub_(intersection).clamp_(min=torch.finfo(intersection.dtype).tiny)
    return intersection.div_(union)


def decimate(tensor, m):
    """
    Keep every m-th value along each dimension.

    :param tensor: any tensor
    :param m: a step for each dimension; None keeps the dimension whole
    :return: the smaller tensor, a view
    :raises ValueError: not one step for each dimension
    """
    if len(m) != tensor.dim():
        raise ValueError(
            f"decimate: expected {tensor.dim()} steps for a tensor {tuple(tensor.shape)}, got {m}"
        )
    return tensor[tuple(slice(None, None, step) for step in m)]


# ------------------------------------------------------------------------------------------------------------ transforms

IMAGE_SIZE = 300  # pixels along each side of the network's input
IMAGENET_MEAN = (
    0.485,
    0.456,
    0.406,
)  # RGB, of values from 0 to 1: what torchvision's VGG-16 was trained with
IMAGENET_STD = (0.229, 0.224, 0.225)
FILLER = tuple(
    round(255 * mean) for mean in IMAGENET_MEAN
)  # colour around an image that was zoomed out

MAX_ZOOM_OUT = 4.0  # sides of the canvas, times the image's (paper, section 3.6)
MIN_CROP_OVERLAPS = (
    0.0,
    0.1,
    0.3,
    0.5,
    0.7,
    0.9,
    None,
)  # None: no crop (section 2.2; 0: the paper's "randomly sample a patch")
# DEVIATION(crop-scale): the paper says 0.1 to 1 of the image. In the authors' code the area is 0.3 squared to 1, and the aspect
# ratio that of fractional sides; here, as in the published tutorial, each side is 0.3 to 1, and the aspect ratio that of pixels.
CROP_SIDES = (0.3, 1.0)
CROP_ASPECT_RATIOS = (0.5, 2.0)  # width / height in pixels
CROP_TRIES = 50
BRIGHTNESS = 32  # of 255, added or taken off (magnitudes of distort_param in the authors' code)
CONTRAST = SATURATION = (0.5, 1.5)  # factor
HUE = 18 / 180  # of the colour circle, either way


def scale_saturation(pixels, factor):
    """
    Multiply the saturation of each pixel, up to that of a pure colour. In HSV the value is the largest channel, the saturation
    says how far below it the smallest is: hue and value stay if the distances of all channels from the largest grow alike.

    :param pixels: (3, height, width) float, RGB; :param factor: 0 makes all grey; :return: the same, changed
    """
    value = pixels.amax(dim=0)
    spread = value - pixels.amin(dim=0)
    factor = (value / spread.clamp(min=1e-6)).clamp(
        max=factor
    )  # value / spread takes the smallest channel to 0, a pure colour
    return value - (value - pixels).mul_(factor)


def shift_hue(pixels, turn):
    """
    Turn the hue of each pixel on the circle of colours: red, after a sixth yellow, then green, cyan, blue, magenta, red. Up to a
    sixth away from its own colour a channel is at its highest, from two sixths on at its lowest, and between it falls evenly.

    :param pixels: (3, height, width) float, RGB; :param turn: part of the circle, at most a third; :return: the same, changed
    """
    red, green, blue = pixels
    highest, lowest = pixels.amax(dim=0), pixels.amin(dim=0)
    spread = highest - lowest
    divisor = spread.clamp(min=1e-6)  # grey has no hue: any will do
    near_green, near_blue = (blue - red) / divisor + 2, (red - green) / divisor + 4
    hue = torch.where(
        highest == red,
        (green - blue) / divisor,
        torch.where(highest == green, near_green, near_blue),
    )  # sixths
    own_hue = torch.tensor([0, 2, 4]).view(3, 1, 1)
    closeness = (
        (hue + 6 * turn - own_hue).abs_().sub_(3).abs_()
    )  # of each channel: 3 at its own hue, 0 opposite
    return closeness.sub_(1).clamp_(0, 1).mul_(spread).add_(lowest)


def photometric_distort(pixels, rng):
    """
    Change brightness, contrast, saturation and hue, each with a chance of one half, in random order.

    DEVIATION(photometric-order): in the authors' code only contrast changes place, first or last, and colours are distorted
    before the image is zoomed out and cropped; here afterwards, on fewer pixels, and the filling keeps its colour.

    :param pixels: (3, height, width) float, RGB from 0 to 255; left as it is
    :param rng: numpy Generator
    :return: the same, distorted
    """
    distortions = (
        lambda pixels: (pixels + rng.uniform(-BRIGHTNESS, BRIGHTNESS)).clamp_(0, 255),
        lambda pixels: (pixels * rng.uniform(*CONTRAST)).clamp_(0, 255),
        lambda pixels: scale_saturation(pixels, rng.uniform(*SATURATION)),
        lambda pixels: shift_hue(pixels, rng.uniform(-HUE, HUE)),
    )
    for i in rng.permutation(len(distortions)):
        if rng.random() < 0.5:
            pixels = distortions[i](pixels)
    return pixels


def zoom_out(width, height, rng):
    """
    Place the image at random on a larger canvas, so that its objects become small.

    :return: the canvas, a window (x_min, y_min, x_max, y_max) in pixels of the image, larger than the image on all sides
    """
    factor = rng.uniform(1, MAX_ZOOM_OUT)
    left, top = rng.uniform(0, width * (factor - 1)), rng.uniform(0, height * (factor - 1))
    return -left, -top, width * factor - left, height * factor - top


def random_crop(window, boxes_px, rng):
    """
    Choose a random part of a window that at least one object overlaps enough; objects become large, or partly hidden.

    DEVIATION(crop-choice): the minimum overlap is drawn first, as the paper says, and drawn again if no try succeeds. The
    authors' code tries all seven and chooses among those that succeed.

    :param window: (x_min, y_min, x_max, y_max) in pixels
    :param boxes_px: (n, 4) in the same pixels; without boxes any part will do
    :param rng: numpy Generator
    :return: the part, a window again; or the whole window, where no crop is what was drawn
    """
    x_min, y_min, x_max, y_max = window
    while True:
        min_overlap = MIN_CROP_OVERLAPS[rng.integers(len(MIN_CROP_OVERLAPS))]
        if min_overlap is None:
            return window
        sizes = rng.uniform(*CROP_SIDES, (CROP_TRIES, 2)) * (
            x_max - x_min,
            y_max - y_min,
        )  # (50, 2) of all tries at once
        low = (x_min, y_min) + rng.uniform(0, 1, (CROP_TRIES, 2)) * (
            (x_max - x_min, y_max - y_min) - sizes
        )
        crops = np.concatenate([low, low + sizes], axis=1)  # (50, 4)
        aspect_ratios = sizes[:, 0] / sizes[:, 1]
        good = (aspect_ratios >= CROP_ASPECT_RATIOS[0]) & (aspect_ratios <= CROP_ASPECT_RATIOS[1])
        if len(boxes_px) > 0:
            overlaps = find_jaccard_overlap(torch.from_numpy(crops), boxes_px.double())  # (50, n)
            good &= (overlaps.amax(dim=1) >= min_overlap).numpy()
        if good.any():
            return tuple(crops[good.argmax()].tolist())


def crop_and_resize(image, window, rng=None):
    """
    The pixels of a window of an image, 300 x 300, in one resampling; where the window reaches beyond the image it is filled.

    DEVIATION(resize): always bilinear; the authors' code draws one of five ways to resample in training.

    :param image: PIL image, RGB, or datasets.PictureFile
    :param window: (x_min, y_min, x_max, y_max) in pixels of the image
    :param rng: numpy Generator, if the colours of the image's part (not of the filling) are to be distorted
    :return: (3, 300, 300) float, RGB from 0 to 255
    """
    places, source = (
        [],
        [],
    )  # of the part that shows the image: edges in the result's whole pixels, and in the image's
    for low, high, side in (
        (window[0], window[2], image.width),
        (window[1], window[3], image.height),
    ):
        scale = IMAGE_SIZE / (high - low)
        # Pixels that the image covers in part only, at its border, are filled; the tolerance is for rounding errors.
        place = (
            max(0, math.ceil(-low * scale - 1e-6)),
            min(IMAGE_SIZE, math.floor((side - low) * scale + 1e-6)),
        )
        places.append(place)
        source.append([min(max(low + edge / scale, 0), side) for edge in place])
    (left, right), (top, bottom) = places
    canvas = (
        torch.tensor(FILLER, dtype=torch.float32).view(3, 1, 1).repeat(1, IMAGE_SIZE, IMAGE_SIZE)
    )
    if right <= left or bottom <= top:  # a crop beside the image
        return canvas
    box = source[0][0], source[1][0], source[0][1], source[1][1]
    part = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=box)
    pixels = torch.from_numpy(np.array(np.asarray(part).transpose(2, 0, 1), order="C")).float()
    canvas[:, top:bottom, left:right] = pixels if rng is None else photometric_distort(pixels, rng)
    return canvas


def transform(image, boxes, labels, difficulties, split, rng=None):
    """
    Make a picture the network's input; for training, with the augmentations of the paper (sections 2.2 and 3.6). They decide on
    a window of the picture first and touch the pixels once: the window alone is resampled, then distorted in colour.

    :param image: PIL image, RGB, or datasets.PictureFile
    :param boxes: (n, 4) float, boundary coordinates in pixels; n may be 0
    :param labels: (n,) long
    :param difficulties: (n,) bool
    :param split: "TRAIN" or "TEST"
    :param rng: numpy Generator that decides the augmentations; by default a fresh one
    :return: image (3, 300, 300) float, normalised; boxes (m, 4), fractional; labels and difficulties (m,) of the m <= n objects
        whose centre is still in the picture
    :raises ValueError: another split
    """
    if split not in ("TRAIN", "TEST"):
        raise ValueError(f"split: expected 'TRAIN' or 'TEST', got {split!r}")
    window, flip = (0, 0, image.width, image.height), False
    rng = None if split == "TEST" else rng or np.random.default_rng()
    if rng is not None:
        if rng.random() < 0.5:
            window = zoom_out(image.width, image.height, rng)
        window = random_crop(window, boxes, rng)
        flip = rng.random() < 0.5

    low, high = (
        torch.tensor(window[:2], dtype=torch.float32),
        torch.tensor(window[2:], dtype=torch.float32),
    )
    centres = xy_to_cxcy(boxes)[:, :2]
    stays = ((centres >= low) & (centres <= high)).all(dim=1)  # (n,)
    boxes = ((boxes[stays] - low.repeat(2)) / (high - low).repeat(2)).clamp(
        0, 1
    )  # what sticks out of the window is cut off

    pixels = crop_and_resize(image, window, rng)
    if flip:
        pixels = pixels.flip(2)
        x_min, y_min, x_max, y_max = boxes.unbind(dim=1)
        boxes = torch.stack([1 - x_max, y_min, 1 - x_min, y_max], dim=1)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return pixels.sub_(255 * mean).div_(255 * std), boxes, labels[stays], difficulties[stays]


# ------------------------------------------------------------------------------------------------ mean average precision


def calculate_mAP(
    det_boxes, det_labels, det_scores, true_boxes, true_labels, true_difficulties,
    label_map=label_map, metric="11-point", min_overlap=0.5,
):  # fmt: skip
    """
    Average precision of each class, and their mean, as the VOC devkit defines them (Everingham et al. 2010, section 4.2).

    All arguments are lists with one tensor an image. Boxes may be in any unit, the same for detections and objects.

    :param det_boxes, det_labels, det_scores: detections, tensors (n, 4), (n,) and (n,)
    :param true_boxes, true_labels, true_difficulties: objects, tensors (m, 4), (m,) and (m,); a difficult one neither counts as
        missed nor its detection as false
    :param label_map: {class name: number}
    :param metric: "11-point" (VOC2007: mean of the best precision at recalls 0, 0.1 ... 1) or "area" (VOC2010: under the curve)
    :param min_overlap: a detection is right if its Jaccard overlap with an object is above this
    :return: {class name: AP}, NaN for a class without countable objects; and the mean of the others (NaN if there is none)
    :raises ValueError: another metric, or lists of different lengths
    """
    if metric not in ("11-point", "area"):
        raise ValueError(f"metric: expected '11-point' or 'area', got {metric!r}")
    lengths = {
        len(entry)
        for entry in (det_boxes, det_labels, det_scores, true_boxes, true_labels, true_difficulties)
    }
    if len(lengths) != 1:
        raise ValueError(
            f"calculate_mAP: expected lists with one tensor for each image, got the lengths {sorted(lengths)}"
        )
    if lengths == {0}:
        return dict.fromkeys(
            [name for name in label_map if label_map[name] > 0], math.nan
        ), math.nan

    n_images = len(det_boxes)
    det_images, true_images = _image_numbers(det_labels), _image_numbers(true_labels)
    det_boxes, det_labels, det_scores = map(torch.cat, (det_boxes, det_labels, det_scores))
    true_boxes, true_labels, true_difficulties = map(
        torch.cat, (true_boxes, true_labels, true_difficulties)
    )
    true_difficulties = true_difficulties.bool()

    average_precisions = {}
    for name, label in label_map.items():
        if label == 0:
            continue
        objects = true_labels == label
        n_objects = int((objects & ~true_difficulties).sum())
        if n_objects == 0:
            average_precisions[name] = math.nan
            continue
        ranked = (det_labels == label).nonzero().squeeze(1)
        ranked = ranked[det_scores[ranked].argsort(descending=True, stable=True)]
        is_true, is_false = judge_detections(
            det_images[ranked], det_boxes[ranked],
            true_images[objects], true_boxes[objects], true_difficulties[objects], n_images, min_overlap,
        )  # fmt: skip
        average_precisions[name] = average_precision(is_true, is_false, n_objects, metric)
    countable = [ap for ap in average_precisions.values() if not math.isnan(ap)]
    return average_precisions, sum(countable) / len(countable) if countable else math.nan


def _image_numbers(tensors):
    """For tensors of n_0, n_1 ... rows: 0 n_0 times, 1 n_1 times, and so on."""
    return torch.repeat_interleave(torch.tensor([len(tensor) for tensor in tensors])).to(
        tensors[0].device
    )


def judge_detections(
    det_images, det_boxes, true_images, true_boxes, true_difficulties, n_images, min_overlap
):
    """
    Tell right from wrong detections of one class. A detection is held against the object of its image that it overlaps most. It
    is true if it overlaps that enough and no better detection did, and false otherwise; one on a difficult object is neither.

    :param det_images: (D,) long, the image of each detection, best score first
    :param det_boxes: (D, 4)
    :param true_images: (T,) long, T >= 1, ascending
    :param true_boxes: (T, 4)
    :param true_difficulties: (T,) bool
    :return: whether a detection is true (D,) bool, and whether it is false (D,) bool
    """
    # The objects of a detection's image stand in a row in true_boxes: side by side, as wide as the fullest image
    n_objects = torch.bincount(true_images, minlength=n_images)  # (n_images)
    first = n_objects.cumsum(0) - n_objects
    column = torch.arange(int(n_objects.max()), device=det_images.device)  # (M)
    is_object = column < n_objects[det_images].unsqueeze(1)  # (D, M)
    objects = torch.where(
        is_object, first[det_images].unsqueeze(1) + column, 0
    )  # (D, M), indices below T
    overlap = find_jaccard_overlap(det_boxes.unsqueeze(1), true_boxes[objects]).squeeze(1)  # (D, M)
    overlap, best = torch.where(is_object, overlap, -1.0).max(dim=1)  # (D) both

    objects = objects.gather(1, best.unsqueeze(1)).squeeze(1)  # (D)
    hits = overlap > min_overlap
    counts = hits & ~true_difficulties[objects]
    rank = torch.arange(len(det_images), device=det_images.device)
    first_hit = torch.full(
        (len(true_boxes),), len(rank), device=rank.device
    )  # the rank of the best detection of each object
    first_hit.scatter_reduce_(0, objects[counts], rank[counts], reduce="amin")
    is_true = counts & (first_hit[objects] == rank)
    return is_true, ~hits | (counts & ~is_true)


def average_precision(is_true, is_false, n_objects, metric):
    """
    Average precision of one class.

    :param is_true, is_false: (D,) bool, what each detection is, best score first
    :param n_objects: number of objects to be found, at least 1
    :param metric: "11-point" or "area"
    :return: a number from 0 to 1
    """
    n_true, n_false = is_true.cumsum(0), is_false.cumsum(0)  # (D) both, among the detections so far
    precision = n_true.double() / (n_true + n_false).clamp(min=1)
    if metric == "11-point":
        # Recall is n_true / n_objects; whole numbers compare it with k / 10 without rounding error
        best = [precision[10 * n_true >= k * n_objects] for k in range(11)]
        return sum(float(values.max()) if len(values) else 0.0 for values in best) / 11
    best_from_here = precision.flip(0).cummax(0).values.flip(0)  # at this recall or any higher one
    return float((best_from_here * is_true).sum()) / n_objects
