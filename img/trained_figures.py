"""
Figures of trained detectors: what they find in photographs and in unseen drawn scenes, and how a
training run went. What was found stands in results.json, see record_results.py.
"""

import functools
import statistics

import numpy as np
import torch

from datasets import read_image
from drawing import place_labels, total_overlap
from examples import BLOOD_CELLS
from model import SSD300, MultiBoxLoss
from preview import as_image, positive_priors
from record_results import N_SCENES, PHOTOGRAPHS, SCENES_SEED, read_results
from style import (
    CLASS_COLOURS,
    HARD,
    INK,
    NORMAL,
    OBJECT,
    POSITIVE,
    PREDICTION,
    QUIET,
    SMALL,
    Card,
    add_plot,
    short,
)
from toy_data import draw_toy_image
from utils import find_jaccard_overlap, transform

COLOURS = {
    **CLASS_COLOURS,
    "dog": "#a15c00",
    "horse": "#2b8a3e",
    "cow": "#495057",
    "sheep": "#0b7285",
    "RBC": "#c92a2a",
    "WBC": "#1864ab",
    "Platelets": "#5c940d",
}
CELL_NAMES = {"RBC": "red blood cell", "WBC": "white blood cell", "Platelets": "platelet"}
AUGMENTATION_SEED = 5  # one that zooms in, and leaves several cells
ABLATION_NAMES = {
    "nothing": "as it is",
    "no_hard_negative_mining": "no hard negative mining",
    "no_augmentation": "no augmentation",
    "no_conv4_3": "without conv4_3",
}
MIN_SCORES = (0.1, 0.3, 0.5)  # compared with each other in one figure
MIN_SCORE = 0.3  # in the other figures, as in the examples that train.py draws
DOUBTFUL = 0.25  # in the figure of failures


@functools.cache
def scenes_with_detections():
    """
    :return: a list of (image, objects, detections) with scores above the lowest of MIN_SCORES; see
        draw_toy_image and record_results.detections_in
    """
    toy = read_results()["toy"]
    scenes = []
    for number in range(N_SCENES):
        image, objects = draw_toy_image(SCENES_SEED, number, toy["classes"])
        scenes.append((image, objects, toy["scenes"][number]))
    return scenes


def judge(objects, detections, min_overlap=0.5):
    """
    Compare detections, the best first, with the objects of a scene, as the evaluation does.

    :return: for each detection "right", "ignored" (on a difficult object), or what is wrong with
        it, see fault_of; and the list of the missed objects
    """
    judgements = []
    found = set()
    for name, _, box in detections:
        overlap, best = best_object(box, objects, name)
        if overlap > min_overlap and objects[best]["difficult"]:
            judgements.append("ignored")
        elif overlap > min_overlap and best not in found:
            judgements.append("right")
            found.add(best)
        else:
            judgements.append(fault_of(name, box, objects, min_overlap))
    missed = [
        obj for number, obj in enumerate(objects) if number not in found and not obj["difficult"]
    ]
    return judgements, missed


def best_object(box, objects, name=None):
    """
    The object that a box overlaps most.

    :param name: only objects of this class count; None: all
    :return: the Jaccard overlap, and the number of the object; 0 and None if there is none
    """
    numbers = [n for n, obj in enumerate(objects) if name is None or obj["name"] == name]
    boxes = torch.tensor([objects[n]["box"] for n in numbers]).float().view(-1, 4)
    overlaps = find_jaccard_overlap(torch.tensor([box]), boxes)[0].tolist()
    return max(zip(overlaps, numbers, strict=True), default=(0.0, None))


def fault_of(name, box, objects, min_overlap):
    """What is wrong with a detection, in a few words."""
    overlap, _ = best_object(box, objects, name)
    if overlap > min_overlap:
        return "found twice"
    if overlap > 0.1:
        return "badly placed"
    overlap, other = best_object(box, objects)
    if overlap > min_overlap:
        return f"it is a {short(objects[other]['name'])}"
    return "nothing there"


def above(detections, min_score):
    """The detections above a score."""
    return [detection for detection in detections if detection[1] > min_score]


def to_fractions(box, image):
    """A box in pixels of an image, as fractions of the image's sides."""
    return [edge / size for edge, size in zip(box, image.size * 2, strict=True)]


def show_image(card, image, x, y, side):
    """
    Show an image of any shape in the middle of a square.

    :return: its Place
    """
    factor = side / max(image.size)
    width = image.width * factor
    height = image.height * factor
    return card.show(image, x + (side - width) / 2, y + (side - height) / 2, width, height)


def show_scene(card, scene, x, y, side, min_score, labels=True):
    """
    Show a scene with its detections, and its missed objects. Wrong detections are dashed.

    :param scene: (image, objects, detections)
    :param labels: label the detections
    """
    image, objects, detections = scene
    detections = above(detections, min_score)
    judgements, missed = judge(objects, detections)
    place = show_image(card, image, x, y, side)
    for (name, _, box), judgement in zip(detections, judgements, strict=True):
        dashed = judgement not in ("right", "ignored")
        place.box(to_fractions(box, image), COLOURS[name], line=6, dashed=dashed)
    for obj in missed:
        place.box(to_fractions(obj["box"], image), HARD, line=4, dashed=True)
    if labels:
        add_labels(card, place, image, detections)


def add_labels(card, place, image, detections):
    """
    Write a label for each detection, outside its box where there is room. Those that would cover a
    better one's are left out.
    """
    scale = place.width / image.width
    boxes = [[edge * scale for edge in box] for _, _, box in detections]
    texts = [f"{short(name)} {score:.2f}" for name, score, _ in detections]
    sizes = [(19 * len(text) + 10, 52) for text in texts]
    labels = place_labels(boxes, sizes, (place.width, place.height))
    taken = []
    for label, text, (name, _, _) in zip(labels, texts, detections, strict=True):
        if total_overlap(label, taken) > 0:
            continue
        taken.append(label)
        look = {"bold": True, "background": COLOURS[name]}
        x, y = place.x + label[0] + 7, place.y + label[1] + 12
        card.text(x, y, text, SMALL, "white", "left", "top", **look)


def sheet(scenes, min_score, captions):
    """Four scenes with their detections, and a caption below each."""
    card = Card(1270)
    for number, (scene, caption) in enumerate(zip(scenes, captions, strict=True)):
        x = 46 + 564 * (number % 2)
        y = 40 + 616 * (number // 2)
        show_scene(card, scene, x, y, 544, min_score)
        card.text(x + 272, y + 574, caption, SMALL)
    return card.image()


def count_results(scene, min_score):
    """How many detections of a scene are right, how many are wrong, and how many objects missed."""
    _, objects, detections = scene
    judgements, missed = judge(objects, above(detections, min_score))
    n_right = judgements.count("right")
    return n_right, len(judgements) - n_right - judgements.count("ignored"), len(missed)


def mistakes_of(scene):
    """The mistakes of a scene in a few words."""
    _, objects, detections = scene
    judgements, missed = judge(objects, above(detections, MIN_SCORE))
    faults = [judgement for judgement in judgements if judgement not in ("right", "ignored")]
    faults += [f"{short(obj['name'])} missed" for obj in missed]
    return ", ".join(faults) or "all right"


def first_picture():
    """Three photographs, each with what its detector finds."""
    card = Card(1020)
    show_photograph(card, "animals", "cat.jpg", 46, 46, 646)
    show_photograph(card, "animals", "astronaut.jpg", 718, 46, 430)
    show_photograph(card, "blood", "blood_cells.jpg", 46, 506, 646, labels=False)
    for number, (label, name) in enumerate(CELL_NAMES.items()):
        card.legend_entry(718, 560 + 70 * number, name, COLOURS[label])
    return card.image()


def own_data():
    """A photograph as labelled, as training gets it, and as a detector sees it in the end."""
    image = read_image(PHOTOGRAPHS / "blood_cells.jpg")
    boxes = torch.tensor([box for _, box in BLOOD_CELLS], dtype=torch.float32)
    names = [name for name, _ in BLOOD_CELLS]
    card = Card(1030)
    place = card.show(image, 46, 46, 540)
    for name, box in zip(names, boxes.tolist(), strict=True):
        place.box(to_fractions(box, image), COLOURS[name], line=5)
    card.text(316, 486, "as labelled", SMALL)

    show_augmented(card, image, boxes, names, 614, 46)
    card.text(884, 622, "as training gets it: augmented,", SMALL)
    card.text(884, 664, "with the positive priors as thin lines", SMALL)

    show_photograph(card, "blood", "blood_cells.jpg", 46, 546, 540, labels=False)
    card.text(316, 986, "as detected", SMALL)
    for number, (label, name) in enumerate(CELL_NAMES.items()):
        card.legend_entry(680, 776 + 70 * number, name, COLOURS[label])
    return card.image()


def show_augmented(card, image, boxes, names, x, y, side=540):
    """
    Show what an image can become in training, and the priors that are positive then.

    :param boxes: (n, 4) float, in pixels
    :param names: the n classes
    """
    classes = list(CELL_NAMES)
    labels = torch.tensor([classes.index(name) + 1 for name in names])
    difficulties = torch.zeros(len(names), dtype=torch.bool)
    rng = np.random.default_rng(AUGMENTATION_SEED)
    pixels, boxes, labels, _ = transform(image, boxes, labels, difficulties, "TRAIN", rng)
    priors, numbers = positive_priors(MultiBoxLoss(SSD300.create_prior_boxes()), boxes, labels)

    place = card.show(as_image(pixels), x, y, side)
    for prior, number in zip(priors.clamp(0, 1).tolist(), numbers, strict=True):
        place.box(prior, COLOURS[classes[number - 1]], line=1.5, halo=False)
    for box, number in zip(boxes.tolist(), labels.tolist(), strict=True):
        place.box(box, COLOURS[classes[number - 1]], line=5)


def show_photograph(card, detector, name, x, y, width, min_score=MIN_SCORE, labels=True):
    """
    Show a photograph with its detections.

    :param detector: "animals" or "blood"
    :param name: file in the folder PHOTOGRAPHS
    :param labels: label the detections
    """
    image = read_image(PHOTOGRAPHS / name)
    detections = above(read_results()[detector][name], min_score)
    place = card.show(image, x, y, width)
    for label, _, box in detections:
        place.box(to_fractions(box, image), COLOURS[label], line=6)
    if labels:
        add_labels(card, place, image, detections)


def detections():
    """The first four scenes, so that nobody chose them."""
    scenes = scenes_with_detections()[:4]
    return sheet(scenes, MIN_SCORE, [mistakes_of(scene) for scene in scenes])


def more_detections_1():
    """One scene with three values of min_score, and the results over all scenes."""
    scenes = scenes_with_detections()

    def n_different(scene):
        return len({len(above(scene[2], min_score)) for min_score in MIN_SCORES})

    scene = max(scenes, key=n_different)
    image, objects, _ = scene
    card = Card(1610)
    place = show_image(card, image, 46, 40, 544)
    for obj in objects:
        place.box(to_fractions(obj["box"], image), OBJECT, dashed=bool(obj["difficult"]))
    card.text(318, 614, "objects", SMALL)
    for number, min_score in enumerate(MIN_SCORES, start=1):
        x = 46 + 564 * (number % 2)
        y = 40 + 616 * (number // 2)
        # There are too many detections for labels with the lowest min_score
        show_scene(card, scene, x, y, 544, min_score, labels=min_score > MIN_SCORES[0])
        card.text(x + 272, y + 574, f"min_score {min_score}", SMALL)
    card.text(600, 1290, f"all {len(scenes)} scenes:", SMALL, QUIET)
    rows = table_of_results(scenes)
    card.table(200, 1320, rows, (260, 180, 180, 180), 62, size=SMALL)
    return card.image()


def table_of_results(scenes):
    """The results over all scenes with each of MIN_SCORES, as rows for Card.table."""
    rows = [["min_score"], ["right"], ["wrong"], ["missed"]]
    for min_score in MIN_SCORES:
        results = [count_results(scene, min_score) for scene in scenes]
        totals = map(sum, zip(*results, strict=True))
        for row, value in zip(rows, [min_score, *totals], strict=True):
            row.append(str(value))
    return rows


def more_detections_2():
    """Two photographs in which the detector is wrong, with doubtful detections, too."""
    card = Card(600)
    show_photograph(card, "animals", "astronaut.jpg", 46, 46, 508, DOUBTFUL)
    show_photograph(card, "animals", "coffee.jpg", 566, 46, 588, DOUBTFUL)
    return card.image()


def training_curves():
    """Loss and mean average precision after each epoch."""
    history = read_results()["history"]
    card = Card(780)
    losses = {"loss": PREDICTION, "validation_loss": INK}
    draw_curves(card, 110, "loss", history, losses, top=None)
    percent = [{**row, "mAP": 100 * row["mAP"]} for row in history if "mAP" in row]
    draw_curves(card, 700, "mAP, validation", percent, {"mAP": POSITIVE}, top=100)
    card.legend_entry(120, 724, "training", PREDICTION)
    card.legend_entry(390, 724, "validation", INK)
    return card.image()


def draw_curves(card, x, title, history, colours, top):
    """
    Plot values of the history against epochs.

    :param x: the left edge
    :param history: a dict for each epoch
    :param colours: {name of the value: colour}
    :param top: the highest value of the axis; None: as the values are
    """
    axes = add_plot(card, x, 130, 450, 450)
    for name, colour in colours.items():
        points = [(row["epoch"], row[name]) for row in history if name in row]
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, "o-", color=colour, linewidth=5, markersize=9)
    last = history[-1]["epoch"]
    axes.set(xlim=(0.5, last + 0.5), ylim=(0, top))
    axes.set_xticks(range(0, last + 1, max(1, last // 5)))
    card.text(x + 225, 80, title, NORMAL, bold=True)
    card.text(x + 225, 656, "epoch", SMALL)


def ablations():
    """The mAP of each short training without a part, and the mean of those with the same parts."""
    results = read_results()["ablations"]
    row_height = 110
    height = row_height * len(ABLATION_NAMES)
    card = Card(height + 190)
    axes = add_plot(card, 470, 40, 670, height)
    for row, (key, name) in enumerate(ABLATION_NAMES.items()):
        values = [100 * value for value in results[key]]
        mean = statistics.mean(values)
        colour = POSITIVE if key == "nothing" else PREDICTION
        axes.plot(values, [row] * len(values), "o", color=colour, markersize=13, alpha=0.55)
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color=colour, linewidth=6)
        card.text(440, 40 + row_height * (row + 0.5), name, SMALL, align="right")
    axes.set(xlim=(0, 100), ylim=(len(ABLATION_NAMES) - 0.5, -0.5))
    axes.set_yticks([])
    card.text(805, card.height - 40, "mAP on 200 unseen images", SMALL)
    return card.image()


FIGURES = {
    "first_picture.png": first_picture,
    "detections.png": detections,
    "more_detections_1.png": more_detections_1,
    "more_detections_2.png": more_detections_2,
    "own_data.png": own_data,
    "training_curves.png": training_curves,
    "ablations.png": ablations,
}
