"""Figures of a trained detector: what it finds in unseen drawn scenes, and its training run."""

import functools
import json
from pathlib import Path

import torch

from checkpoints import load_model
from detect import Parameters, find_objects
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
from utils import find_jaccard_overlap

SEED = 1000  # of the scenes; the toy data have another one
N_SCENES = 20
MIN_SCORES = (0.1, 0.3, 0.5)  # compared with each other in one figure
MIN_SCORE = 0.3  # in the other figures, as in the examples that train.py draws


@functools.cache
def detections_of(checkpoint):
    """
    Run the detector on all scenes.

    :param checkpoint: path
    :return: a list of (image, objects, detections) with scores above the lowest of MIN_SCORES; see
        draw_toy_image and find_objects
    """
    model = load_model(checkpoint)
    classes = list(model.label_map)[1:]  # without background
    settings = Parameters()
    scenes = []
    for number in range(N_SCENES):
        image, objects = draw_toy_image(SEED, number, classes)
        found = find_objects(
            image, min(MIN_SCORES), settings.max_overlap, settings.top_k, model=model
        )
        scenes.append((image, objects, found))
    return scenes


def judge(objects, detections, min_overlap=0.5):
    """
    Compare detections, the best first, with the objects of a scene, as the evaluation does.

    :return: for each detection "right", "wrong" or "ignored" (on a difficult object); and the list
        of the missed objects
    """
    judgements = []
    found = set()
    for name, _, box in detections:
        same = [number for number, obj in enumerate(objects) if obj["name"] == name]
        boxes = torch.tensor([objects[number]["box"] for number in same]).float().view(-1, 4)
        overlaps = find_jaccard_overlap(torch.tensor([box]), boxes)[0].tolist()
        overlap, best = max(zip(overlaps, same, strict=True), default=(0.0, None))
        if overlap > min_overlap and objects[best]["difficult"]:
            judgements.append("ignored")
        elif overlap > min_overlap and best not in found:
            judgements.append("right")
            found.add(best)
        else:
            judgements.append("wrong")
    missed = [
        obj for number, obj in enumerate(objects) if number not in found and not obj["difficult"]
    ]
    return judgements, missed


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


def show_detections(card, scene, x, y, side, min_score, labels=True):
    """
    Show a scene with its detections, and its missed objects. Wrong detections are dashed.

    :param scene: (image, objects, detections)
    :param labels: label the detections, where there is room
    """
    image, objects, detections = scene
    detections = above(detections, min_score)
    judgements, missed = judge(objects, detections)
    place = show_image(card, image, x, y, side)
    taken = []
    for (name, score, box), judgement in zip(detections, judgements, strict=True):
        fractions = to_fractions(box, image)
        place.box(fractions, CLASS_COLOURS[name], line=6, dashed=judgement == "wrong")
        if labels:
            text = f"{short(name)} {score:.2f}"
            add_label(card, place, fractions, text, CLASS_COLOURS[name], taken)
    for obj in missed:
        place.box(to_fractions(obj["box"], image), HARD, line=4, dashed=True)


def add_label(card, place, box, text, colour, taken):
    """Write the label of a box, if there is room; for `taken` see free_place."""
    at = free_place(place, box, 21 * len(text) + 20, taken)
    if at:
        x, y = at
        look = {"bold": True, "background": colour}
        card.text(x + 8, y + 6, text, SMALL, "white", "left", "top", **look)


def free_place(place, box, width, taken, height=58):
    """
    Find a place for a label: above its box, inside at the top or the bottom, or below. It must lie
    within the image and apart from other labels.

    :param taken: places of the labels so far, (x, y, width); the one that is found is added
    :return: (x, y) of its upper left corner; None if there is no room
    """
    left, top = place.at(*box[:2])
    bottom = place.at(*box[2:])[1]
    x = max(place.x, min(left, place.x + place.width - width))
    for y in (top - height, top, bottom - height, bottom):
        inside = place.y <= y and y + height <= place.y + place.height
        apart = all(
            abs(y - other_y) >= height or x + width < other_x or other_x + other < x
            for other_x, other_y, other in taken
        )
        if inside and apart:
            taken.append((x, y, width))
            return x, y
    return None


def sheet(scenes, min_score, headline):
    """Four scenes with their detections."""
    card = Card(1330)
    for number, scene in enumerate(scenes):
        x = 46 + 564 * (number % 2)
        y = 40 + 616 * (number // 2)
        show_detections(card, scene, x, y, 544, min_score)
        card.text(x + 272, y + 574, caption_of(scene, min_score), SMALL)
    card.text(600, 1286, headline, SMALL, QUIET)
    return card.image()


def count_results(scene, min_score):
    """How many detections of a scene are right, how many are wrong, and how many objects missed."""
    _, objects, detections = scene
    judgements, missed = judge(objects, above(detections, min_score))
    return judgements.count("right"), judgements.count("wrong"), len(missed)


def count_mistakes(scene):
    """The number of wrong detections and missed objects of a scene."""
    _, n_wrong, n_missed = count_results(scene, MIN_SCORE)
    return n_wrong + n_missed


def caption_of(scene, min_score):
    """The results of a scene in a few words."""
    n_right, n_wrong, n_missed = count_results(scene, min_score)
    parts = [f"{n_right} right"]
    if n_wrong:
        parts.append(f"{n_wrong} wrong")
    if n_missed:
        parts.append(f"{n_missed} missed")
    return ", ".join(parts)


def detections(checkpoint):
    """The scenes with the fewest mistakes; among equals, those with more objects first."""
    scenes = detections_of(checkpoint)
    ranked = sorted(scenes, key=lambda scene: count_results(scene, MIN_SCORE)[0], reverse=True)
    ranked.sort(key=count_mistakes)
    flawless = sum(count_mistakes(scene) == 0 for scene in scenes)
    choice = f"the 4 best of {len(scenes)} unseen scenes, min_score {MIN_SCORE}"
    return sheet(ranked[:4], MIN_SCORE, f"{choice}; {flawless} flawless")


def more_detections_1(checkpoint):
    """One scene with three values of min_score, and the results over all scenes."""
    scenes = detections_of(checkpoint)

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
        show_detections(card, scene, x, y, 544, min_score, labels=min_score > MIN_SCORES[0])
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


def more_detections_2(checkpoint):
    """The scenes with the most mistakes."""
    scenes = detections_of(checkpoint)
    ranked = sorted(scenes, key=count_mistakes, reverse=True)
    headline = f"the 4 worst of {len(scenes)}: dashed boxes are wrong, thin red ones missed"
    return sheet(ranked[:4], MIN_SCORE, headline)


def training_curves(checkpoint):
    """Loss and mean average precision after each epoch."""
    lines = Path(checkpoint).with_name("history.jsonl").read_text(encoding="utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    card = Card(780)
    losses = {"loss": PREDICTION, "validation_loss": INK}
    draw_curves(card, 110, "loss", history, losses, top=None)
    draw_curves(card, 700, "mAP, validation", history, {"mAP": POSITIVE}, top=1)
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
    epochs = [row["epoch"] for row in history]
    for name, colour in colours.items():
        values = [row.get(name) for row in history]
        axes.plot(epochs, values, "o-", color=colour, linewidth=5, markersize=11)
    axes.set(xlim=(min(epochs) - 0.3, max(epochs) + 0.3), ylim=(0, top))
    axes.set(xticks=epochs[:: 1 + len(epochs) // 8])
    card.text(x + 225, 80, title, NORMAL, bold=True)
    card.text(x + 225, 656, "epoch", SMALL)


FIGURES = {}
TRAINED_FIGURES = {
    "detections.png": detections,
    "more_detections_1.png": more_detections_1,
    "more_detections_2.png": more_detections_2,
    "training_curves.png": training_curves,
}
