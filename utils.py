"""What the other files share: labels, box math, transforms and mean average precision."""

import math

import numpy as np
import torch
from PIL import Image

# Two of these are not used here: other projects import them from utils
from annotations import create_label_map, parse_annotation, voc_labels  # noqa: F401
from data_lists import create_data_lists  # noqa: F401

label_map = create_label_map(voc_labels)  # {"background": 0, "aeroplane": 1 ... "tvmonitor": 20}
rev_label_map = {number: label for label, number in label_map.items()}


# --------------------------------------------------------------------------------------- box math


def xy_to_cxcy(xy):
    """
    Boundary coordinates to centre-size coordinates.

    :param xy: (..., 4) x_min, y_min, x_max, y_max
    :return: (..., 4) c_x, c_y, w, h
    """
    low = xy[..., :2]
    high = xy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def cxcy_to_xy(cxcy):
    """
    Centre-size coordinates to boundary coordinates.

    :param cxcy: (..., 4) c_x, c_y, w, h
    :return: (..., 4) x_min, y_min, x_max, y_max
    """
    centre = cxcy[..., :2]
    size = cxcy[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def cxcy_to_gcxgcy(cxcy, priors_cxcy):
    """
    Encode boxes as offsets from their priors (paper, equation 2). The factors 10 and 5 are one over
    the "variances" 0.1 and 0.2 of the authors' code: they bring the offsets of matched priors to
    the order of one.

    :param cxcy: (..., P, 4) one box per prior
    :param priors_cxcy: (P, 4)
    :return: (..., P, 4) offsets g_c_x, g_c_y, g_w, g_h
    """
    centre = cxcy[..., :2]
    size = cxcy[..., 2:]
    prior_centre = priors_cxcy[..., :2]
    prior_size = priors_cxcy[..., 2:]
    offset = (centre - prior_centre) / (prior_size / 10)
    log_size = torch.log(size / prior_size) * 5
    return torch.cat([offset, log_size], dim=-1)


def gcxgcy_to_cxcy(gcxgcy, priors_cxcy):
    """
    Decode offsets to boxes: the inverse of cxcy_to_gcxgcy.

    :param gcxgcy: (..., P, 4) offsets g_c_x, g_c_y, g_w, g_h
    :param priors_cxcy: (P, 4)
    :return: (..., P, 4) c_x, c_y, w, h
    """
    offset = gcxgcy[..., :2]
    log_size = gcxgcy[..., 2:]
    prior_centre = priors_cxcy[..., :2]
    prior_size = priors_cxcy[..., 2:]
    centre = offset * prior_size / 10 + prior_centre
    size = torch.exp(log_size / 5) * prior_size
    return torch.cat([centre, size], dim=-1)


def find_jaccard_overlap(set_1, set_2):
    """
    The Jaccard overlap (intersection over union, IoU) of every box of one set with every box of
    another.

    :param set_1: (..., n1, 4) boundary coordinates
    :param set_2: (..., n2, 4) boundary coordinates, in the same unit
    :return: (..., n1, n2), from 0 to 1; 0 for two boxes without area
    """
    # The coordinates of all boxes side by side in memory, which a CPU adds and compares faster
    x_min_1, y_min_1, x_max_1, y_max_1 = set_1.unsqueeze(-2).movedim(-1, 0).contiguous()
    x_min_2, y_min_2, x_max_2, y_max_2 = set_2.unsqueeze(-3).movedim(-1, 0).contiguous()
    # From (..., n1, 1) and (..., 1, n2) follows (..., n1, n2)
    width = torch.minimum(x_max_1, x_max_2) - torch.maximum(x_min_1, x_min_2)
    height = torch.minimum(y_max_1, y_max_2) - torch.maximum(y_min_1, y_min_2)
    # Boxes that miss each other have a negative width or height
    intersection = width.clamp_(min=0) * height.clamp_(min=0)
    area_1 = (x_max_1 - x_min_1) * (y_max_1 - y_min_1)
    area_2 = (x_max_2 - x_min_2) * (y_max_2 - y_min_2)
    union = area_1 + area_2 - intersection
    return intersection / union.clamp_(min=torch.finfo(union.dtype).tiny)


def decimate(tensor, m):
    """
    Keep every m-th value along each dimension.

    :param tensor: any tensor
    :param m: a step for each dimension; None keeps the dimension whole
    :return: the smaller tensor, a view
    :raises ValueError: not one step for each dimension
    """
    if len(m) != tensor.dim():
        expected = f"{tensor.dim()} steps for a tensor {tuple(tensor.shape)}"
        raise ValueError(f"decimate: expected {expected}, got {m}")
    return tensor[tuple(slice(None, None, step) for step in m)]


# --------------------------------------------------------------------------- what devices cannot do


def to_float64(tensor):
    """
    The same numbers in float64: on the CPU if they are on a GPU without it. Apple's (mps) have
    none, and of Intel's (xpu) not all do.
    """
    if tensor.device.type in ("mps", "xpu"):
        tensor = tensor.cpu()
    return tensor.double()


def send(tensor, device, **options):
    """
    Copy a tensor to a device without waiting for the copy, where that is safe. To Apple's GPUs it
    is not: there the copy may read memory that was freed meanwhile (pytorch/pytorch #139550).

    :param tensor: any tensor on the CPU
    :param device: torch.device
    :param options: see torch.Tensor.to
    """
    return tensor.to(device, non_blocking=device.type != "mps", **options)


# ------------------------------------------------------------------------------------- transforms

IMAGE_SIZE = 300  # pixels along each side of the network's input
# RGB, of values from 0 to 1: the normalisation that torchvision's VGG-16 was trained with
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FILLER = tuple(round(255 * mean) for mean in IMAGENET_MEAN)  # colour around a zoomed-out image

# DEVIATION(zoom-out): the paper (section 3.6) only speaks of a canvas 16 times as large. As in the
# authors' code, every second image is zoomed out, and its sides grow by a factor of 1 to 4.
MAX_ZOOM_OUT = 4.0  # sides of the canvas, times the image's
# None: no crop; 0: any patch, the paper's "randomly sample a patch" (section 2.2)
MIN_CROP_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, None)
# DEVIATION(crop-scale): the paper says 0.1 to 1 of the image. In the authors' code the area is 0.3
# squared to 1, and the aspect ratio that of fractional sides; here, as in the published tutorial,
# each side is 0.3 to 1, and the aspect ratio that of pixels.
CROP_SIDES = (0.3, 1.0)
CROP_ASPECT_RATIOS = (0.5, 2.0)  # width / height in pixels
CROP_TRIES = 50
# Magnitudes of distort_param in the authors' code
BRIGHTNESS = 32  # of 255, added or subtracted
CONTRAST = (0.5, 1.5)  # factor
SATURATION = (0.5, 1.5)  # factor
HUE = 18 / 180  # of the colour circle, either way


def scale_saturation(pixels, factor):
    """
    Multiply the saturation of each pixel, at most up to that of a pure colour. In HSV the value is
    the largest channel, and the saturation says how far below it the smallest one lies: hue and
    value stay the same if the distances of all channels from the largest grow by one factor.

    :param pixels: (3, height, width) float, RGB
    :param factor: 0 makes everything grey
    :return: (3, height, width), changed
    """
    value = pixels.amax(dim=0)
    spread = value - pixels.amin(dim=0)
    largest_factor = value / spread.clamp(min=1e-6)  # takes the smallest channel to 0
    return value - (value - pixels) * largest_factor.clamp(max=factor)


def shift_hue(pixels, shift):
    """
    Move the hue of each pixel along the circle of colours: red, after a sixth yellow, then green,
    cyan, blue, magenta, red. Up to a sixth away from its own colour a channel is at its highest,
    from two sixths on at its lowest, and in between it falls linearly.

    :param pixels: (3, height, width) float, RGB
    :param shift: fraction of the circle, at most a third
    :return: (3, height, width), changed
    """
    red, green, blue = pixels
    highest = pixels.amax(dim=0)
    lowest = pixels.amin(dim=0)
    spread = highest - lowest
    divisor = spread.clamp(min=1e-6)  # grey has no hue: any will do
    near_red = (green - blue) / divisor
    near_green = (blue - red) / divisor + 2
    near_blue = (red - green) / divisor + 4
    hue = torch.where(highest == green, near_green, near_blue)
    hue = torch.where(highest == red, near_red, hue)  # in sixths of the circle

    own_hue = torch.tensor([0, 2, 4]).view(3, 1, 1)
    # How close the new hue is to that of each channel: 3 at its own hue, 0 opposite
    closeness = ((hue + 6 * shift - own_hue).abs() - 3).abs()
    return lowest + (closeness - 1).clamp(0, 1) * spread


def photometric_distort(pixels, rng):
    """
    Change brightness, contrast, saturation and hue, each with a chance of one half, in random
    order.

    DEVIATION(photometric-order): in the authors' code brightness comes first and contrast second or
    last, and colours are distorted before the image is zoomed out and cropped; here the order is
    free, and it happens afterwards, on fewer pixels, and the filling keeps its colour.

    :param pixels: (3, height, width) float, RGB from 0 to 255
    :param rng: numpy Generator
    :return: (3, height, width), distorted
    """
    distortions = (
        lambda pixels: (pixels + rng.uniform(-BRIGHTNESS, BRIGHTNESS)).clamp(0, 255),
        lambda pixels: (pixels * rng.uniform(*CONTRAST)).clamp(0, 255),
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

    :return: the canvas, a window (x_min, y_min, x_max, y_max) in pixels of the image, larger than
        the image on all sides
    """
    factor = rng.uniform(1, MAX_ZOOM_OUT)
    left = rng.uniform(0, width * (factor - 1))
    top = rng.uniform(0, height * (factor - 1))
    return -left, -top, width * factor - left, height * factor - top


def random_crop(window, boxes_px, rng):
    """
    Choose a random part of a window that at least one object overlaps enough; objects become large,
    or partly hidden. The centre of at least one object stays inside.

    DEVIATION(crop-choice): the minimum overlap is drawn first, as the paper says, and drawn again
    if none of 50 tries succeeds. The authors' code tries each minimum up to 50 times, and chooses
    among the crops that succeeded and the whole image; a crop of theirs may lose all objects.

    :param window: (x_min, y_min, x_max, y_max) in pixels
    :param boxes_px: (n, 4) in the same pixels; without boxes any part will do
    :param rng: numpy Generator
    :return: the part, a window again; or the whole window, where no crop is what was drawn
    """
    while True:
        min_overlap = MIN_CROP_OVERLAPS[rng.integers(len(MIN_CROP_OVERLAPS))]
        if min_overlap is None:
            return window
        crops = draw_crops(window, rng)  # (50, 4), all tries at once
        sizes = crops[:, 2:] - crops[:, :2]
        aspect_ratios = sizes[:, 0] / sizes[:, 1]
        good = (aspect_ratios >= CROP_ASPECT_RATIOS[0]) & (aspect_ratios <= CROP_ASPECT_RATIOS[1])
        if len(boxes_px) > 0:
            overlaps = find_jaccard_overlap(crops, boxes_px.double())  # (50, n)
            good &= overlaps.amax(dim=1) >= min_overlap
            good &= centres_inside(boxes_px, crops).any(dim=1)
        if good.any():
            return tuple(crops[good.nonzero()[0, 0]].tolist())  # the first try that succeeded


def draw_crops(window, rng):
    """
    Random parts of a window, each side CROP_SIDES of the window's.

    :param window: (x_min, y_min, x_max, y_max)
    :param rng: numpy Generator
    :return: (CROP_TRIES, 4) double, xy
    """
    low = np.array(window[:2])
    window_size = np.array(window[2:]) - low
    sizes = rng.uniform(*CROP_SIDES, (CROP_TRIES, 2)) * window_size
    low = low + rng.uniform(0, 1, (CROP_TRIES, 2)) * (window_size - sizes)
    return torch.from_numpy(np.concatenate([low, low + sizes], axis=1))


def centres_inside(boxes, windows):
    """
    Which boxes have their centre inside which window.

    :param boxes: (n, 4) xy
    :param windows: (w, 4) xy, in the same unit
    :return: (w, n) bool
    """
    centres = xy_to_cxcy(boxes)[:, :2]  # (n, 2)
    low = windows[:, None, :2]  # (w, 1, 2)
    high = windows[:, None, 2:]  # (w, 1, 2)
    return ((centres >= low) & (centres <= high)).all(dim=2)


def crop_and_resize(image, window, rng=None):
    """
    The pixels of a window of an image, 300 x 300, in one resampling. What lies outside the image is
    filled.

    DEVIATION(resize): always bilinear; the authors' code draws one of five ways of resampling.

    :param image: PIL image, RGB, or datasets.ImageFile
    :param window: (x_min, y_min, x_max, y_max) in pixels of the image
    :param rng: numpy Generator, if the colours of the image (not of the filling) are to be
        distorted
    :return: (3, 300, 300) float, RGB from 0 to 255
    """
    x_min, y_min, x_max, y_max = window
    left, right, x_low, x_high = visible_part(x_min, x_max, image.width)
    top, bottom, y_low, y_high = visible_part(y_min, y_max, image.height)
    filler = torch.tensor(FILLER, dtype=torch.float32).view(3, 1, 1)
    canvas = filler.repeat(1, IMAGE_SIZE, IMAGE_SIZE)
    if right <= left or bottom <= top:  # the window lies beside the image
        return canvas

    size = (right - left, bottom - top)
    box = (x_low, y_low, x_high, y_high)
    part = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
    pixels = torch.from_numpy(np.array(part.transpose(2, 0, 1), order="C")).float()
    if rng is not None:
        pixels = photometric_distort(pixels, rng)
    canvas[:, top:bottom, left:right] = pixels
    return canvas


def visible_part(low, high, side):
    """
    Where the image appears when a window is resized to IMAGE_SIZE pixels; along one axis.

    :param low, high: edges of the window, in pixels of the image
    :param side: of the image, pixels
    :return: first and last edge in the result, whole pixels; and the same edges in the image
    """
    scale = IMAGE_SIZE / (high - low)
    # Pixels at the border that the image covers only in part are filled. The tolerance is for
    # rounding errors
    first = max(0, math.ceil(-low * scale - 1e-6))
    last = min(IMAGE_SIZE, math.floor((side - low) * scale + 1e-6))
    source = [min(max(low + edge / scale, 0), side) for edge in (first, last)]
    return first, last, *source


def transform(image, boxes, labels, difficulties, split, rng=None, can_zoom_out=True):
    """
    Make an image the network's input; for training, with the augmentations of the paper (sections
    2.2 and 3.6). Zooming out and cropping only choose a window of the image; then the pixels are
    touched once: the window is resampled, and its colours distorted.

    :param image: PIL image, RGB, or datasets.ImageFile
    :param boxes: (n, 4) float, boundary coordinates in pixels; n may be 0
    :param labels: (n,) long
    :param difficulties: (n,) bool
    :param split: "TRAIN" (augmented), "VAL" or "TEST"
    :param rng: numpy Generator that decides the augmentations; by default a fresh one
    :param can_zoom_out: whether zooming out is one of the augmentations
    :return: image (3, 300, 300) float, normalised; boxes (m, 4), fractional; labels and
        difficulties (m,) of the m <= n objects whose centre is still inside
    :raises ValueError: unknown split
    """
    if split not in ("TRAIN", "VAL", "TEST"):
        raise ValueError(f"split: expected 'TRAIN', 'VAL' or 'TEST', got {split!r}")
    window = (0, 0, image.width, image.height)
    flip = False
    if split != "TRAIN":
        rng = None
    else:
        rng = rng or np.random.default_rng()
        if can_zoom_out and rng.random() < 0.5:
            window = zoom_out(image.width, image.height, rng)
        window = random_crop(window, boxes, rng)
        flip = rng.random() < 0.5

    window_xy = torch.tensor(window, dtype=torch.float32)
    stays = centres_inside(boxes, window_xy.unsqueeze(0)).squeeze(0)  # (n,)
    low = window_xy[:2]
    size = window_xy[2:] - low
    # Fractions of the window; what sticks out of it is cut off
    boxes = ((boxes[stays] - low.repeat(2)) / size.repeat(2)).clamp(0, 1)

    pixels = crop_and_resize(image, window, rng)
    if flip:
        pixels = pixels.flip(2)
        x_min, y_min, x_max, y_max = boxes.unbind(dim=1)
        boxes = torch.stack([1 - x_max, y_min, 1 - x_min, y_max], dim=1)
    mean = 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (pixels - mean) / std, boxes, labels[stays], difficulties[stays]


# ------------------------------------------------------------------------- mean average precision

METRICS = ("11-point", "area")


def check_metric(metric):
    """:raises ValueError: not the name of a metric"""
    if metric not in METRICS:
        raise ValueError(f"metric: expected '11-point' or 'area', got {metric!r}")


def calculate_mAP(
    det_boxes,
    det_labels,
    det_scores,
    true_boxes,
    true_labels,
    true_difficulties,
    label_map=label_map,
    metric="11-point",
    min_overlap=0.5,
):
    """
    The average precision (AP) of each class, and their mean, as the VOC devkit defines them
    (Everingham et al. 2010, section 4.2).

    All arguments are lists with one tensor per image. Boxes may be in any unit, the same for
    detections and objects.

    :param det_boxes, det_labels, det_scores: detections, tensors (n, 4), (n,) and (n,)
    :param true_boxes, true_labels, true_difficulties: objects, tensors (m, 4), (m,) and (m,); a
        difficult one is not counted: neither is missing it an error, nor detecting it
    :param label_map: {class name: number}
    :param metric: "11-point" (VOC2007: mean of the best precision at recalls 0, 0.1 ... 1) or
        "area" (VOC2010: area under the curve)
    :param min_overlap: a detection is right if its Jaccard overlap with an object exceeds this, as
        the devkit's text says (its code has >=, which differs on exact halves only)
    :return: {class name: AP}, NaN for a class without countable objects; and the mean of the others
        (NaN if there is none)
    :raises ValueError: another metric, or lists of different lengths
    """
    check_metric(metric)
    lists = (det_boxes, det_labels, det_scores, true_boxes, true_labels, true_difficulties)
    lengths = {len(tensors) for tensors in lists}
    if len(lengths) != 1:
        expected = "lists with one tensor for each image"
        raise ValueError(f"calculate_mAP: expected {expected}, got the lengths {sorted(lengths)}")
    classes = {name: label for name, label in label_map.items() if label > 0}
    if lengths == {0}:
        return dict.fromkeys(classes, math.nan), math.nan

    n_images = len(det_boxes)
    det_images = image_numbers(det_labels).to(det_labels[0].device)
    true_images = image_numbers(true_labels).to(true_labels[0].device)
    det_boxes, det_labels, det_scores = map(torch.cat, (det_boxes, det_labels, det_scores))
    true_boxes = torch.cat(true_boxes)
    true_labels = torch.cat(true_labels)
    true_difficulties = torch.cat(true_difficulties).bool()

    average_precisions = {}
    for name, label in classes.items():
        objects = true_labels == label
        n_objects = int((objects & ~true_difficulties).sum())
        if n_objects == 0:
            average_precisions[name] = math.nan
            continue
        ranked = (det_labels == label).nonzero().squeeze(1)
        ranked = ranked[det_scores[ranked].argsort(descending=True, stable=True)]
        is_true, is_false = judge_detections(
            det_images[ranked],
            det_boxes[ranked],
            true_images[objects],
            true_boxes[objects],
            true_difficulties[objects],
            n_images,
            min_overlap,
        )
        average_precisions[name] = average_precision(is_true, is_false, n_objects, metric)
    countable = [ap for ap in average_precisions.values() if not math.isnan(ap)]
    mean = sum(countable) / len(countable) if countable else math.nan
    return average_precisions, mean


def image_numbers(tensors):
    """For tensors with n_0, n_1 ... rows: 0 n_0 times, 1 n_1 times, and so on; on the CPU."""
    n_rows = torch.tensor([len(tensor) for tensor in tensors], dtype=torch.int64)
    return torch.repeat_interleave(n_rows)


def judge_detections(
    det_images, det_boxes, true_images, true_boxes, true_difficulties, n_images, min_overlap
):
    """
    Tell true from false positives among the detections of one class. Each detection is compared
    with the object of its image that it overlaps most. It is a true positive if it overlaps that
    enough and no better detection did, else a false positive. On a difficult object it is neither.

    :param det_images: (D,) long, the image of each detection, best score first
    :param det_boxes: (D, 4)
    :param true_images: (T,) long, T >= 1, ascending
    :param true_boxes: (T, 4)
    :param true_difficulties: (T,) bool
    :return: whether a detection is a true positive (D,) bool, and a false positive (D,) bool
    """
    device = det_images.device
    # The objects of one image stand in a row in true_boxes. Here they stand side by side for each
    # detection, in as many columns as the fullest image has objects
    n_objects = torch.bincount(true_images, minlength=n_images)  # (n_images,)
    first = n_objects.cumsum(0) - n_objects
    column = torch.arange(int(n_objects.max()), device=device)  # (M,)
    is_object = column < n_objects[det_images].unsqueeze(1)  # (D, M)
    objects = first[det_images].unsqueeze(1) + column  # (D, M), indices into true_boxes
    objects = torch.where(is_object, objects, 0)
    overlap = find_jaccard_overlap(det_boxes.unsqueeze(1), true_boxes[objects]).squeeze(1)
    best_overlap, best_column = torch.where(is_object, overlap, -1.0).max(dim=1)  # (D,) both
    best_object = objects.gather(1, best_column.unsqueeze(1)).squeeze(1)  # (D,)

    hits = best_overlap > min_overlap
    counts = hits & ~true_difficulties[best_object]
    # The first detection of an object, which is the one with the best score, is the true one
    rank = torch.arange(len(det_images), device=device)
    first_rank = torch.full((len(true_boxes),), len(rank), device=device)
    first_rank.scatter_reduce_(0, best_object[counts], rank[counts], reduce="amin")
    is_true = counts & (first_rank[best_object] == rank)
    is_false = ~hits | (counts & ~is_true)
    return is_true, is_false


def average_precision(is_true, is_false, n_objects, metric):
    """
    The average precision of one class.

    :param is_true, is_false: (D,) bool, whether each detection is a true or a false positive, best
        score first
    :param n_objects: number of objects to be found, at least 1
    :param metric: "11-point" or "area"
    :return: a number from 0 to 1
    """
    is_true = is_true.cpu()  # not every GPU has float64
    is_false = is_false.cpu()
    n_true = is_true.cumsum(0)  # (D,), among the detections so far
    n_false = is_false.cumsum(0)
    precision = n_true.double() / (n_true + n_false).clamp(min=1)
    if metric == "11-point":
        # Recall is n_true / n_objects; whole numbers compare it with k / 10 without rounding error
        best = [precision[10 * n_true >= k * n_objects] for k in range(11)]
        return sum(float(values.max()) if len(values) else 0.0 for values in best) / 11
    best_from_here = precision.flip(0).cummax(0).values.flip(0)  # at this recall or a higher one
    return float((best_from_here * is_true).sum()) / n_objects


def percent(share):
    """A share from 0 to 1 as text, in percent; NaN as n/a."""
    return "n/a" if math.isnan(share) else f"{100 * share:.1f}"


def without_nan(value):
    """The same with None in place of NaN, which JSON does not have; also within dicts."""
    if isinstance(value, dict):
        return {name: without_nan(content) for name, content in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
