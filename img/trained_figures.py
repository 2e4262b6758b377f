"""Figures of a trained detector: what it finds in drawn scenes that it has not seen, and its training."""

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

SEED, N_SCENES = 1000, 20  # of the scenes; the training has another seed
MIN_SCORES = (0.1, 0.3, 0.5)  # compared with each other
MIN_SCORE = 0.3  # of the other pictures, as train.py draws its examples


@functools.cache
def detections_of(checkpoint):
    """
    What the detector finds in all scenes.

    :return: a list of (image, objects, detections) with scores above the lowest of MIN_SCORES, see draw_toy_image, find_objects
    """
    model = load_model(checkpoint)
    settings = Parameters()
    scenes = []
    for number in range(N_SCENES):
        image, objects = draw_toy_image(SEED, number, list(model.label_map)[1:])
        found = find_objects(
            image, min(MIN_SCORES), settings.max_overlap, settings.top_k, model=model
        )
        scenes.append((image, objects, found))
    return scenes


def judge(objects, detections, min_overlap=0.5):
    """
    Hold detections against the objects of a scene, best first, as the evaluation does.

    :return: for each detection "right", "wrong" or "ignored" (on a difficult object); and the objects that are missed
    """
    judgements, found = [], set()
    for name, _, box in detections:
        same = [number for number, obj in enumerate(objects) if obj["name"] == name]
        boxes = torch.tensor([objects[number]["box"] for number in same], dtype=torch.float32).view(
            -1, 4
        )
        overlaps = find_jaccard_overlap(torch.tensor([box]), boxes)[0].tolist()
        overlap, best = max(zip(overlaps, same, strict=True), default=(0.0, None))
        if overlap > min_overlap and objects[best]["difficult"]:
            judgements.append("ignored")
        elif overlap > min_overlap and best not in found:
            judgements.append("right")
            found.add(best)
        else:
            judgements.append("wrong")
    return judgements, [
        obj for number, obj in enumerate(objects) if number not in found and not obj["difficult"]
    ]


def above(detections, min_score):
    """The detections above a score."""
    return [detection for detection in detections if detection[1] > min_score]


def to_fractions(box, image):
    """A box in pixels of an image as fractions of its sides."""
    return [edge / size for edge, size in zip(box, image.size * 2, strict=True)]


def show_picture(card, image, x, y, side):
    """A picture of any shape in the middle of a square."""
    factor = side / max(image.size)
    width, height = image.width * factor, image.height * factor
    return card.picture(image, x + (side - width) / 2, y + (side - height) / 2, width, height)


def show_detections(card, scene, x, y, side, min_score, labels=True):
    """A scene with its detections; wrong ones are dashed. Labels stand where there is room."""
    image, objects, detections = scene
    detections = above(detections, min_score)
    judgements, missed = judge(objects, detections)
    place = show_picture(card, image, x, y, side)
    taken = []
    for (name, score, box), judgement in zip(detections, judgements, strict=True):
        fractions = to_fractions(box, image)
        colour = CLASS_COLOURS[name]
        place.box(fractions, colour, line=6, dashed=judgement == "wrong")
        text = f"{short(name)} {score:.2f}"
        at = free_place(place, fractions, 21 * len(text) + 20, taken) if labels else None
        if at:
            card.text(
                at[0] + 8,
                at[1] + 6,
                text,
                SMALL,
                "white",
                "left",
                "top",
                bold=True,
                background=colour,
            )
    for obj in missed:
        place.box(to_fractions(obj["box"], image), HARD, line=4, dashed=True)
    return judgements, missed


def free_place(place, box, width, taken, height=58):
    """
    Where a label may stand: above, at the top inside, or below its box, within the picture and apart from the others.

    :param taken: places of labels so far, (x, y, width); the one found is added
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


def sheet(scenes, min_score, captions, headline):
    """Four scenes with their detections."""
    card = Card(1330)
    for number, (scene, caption) in enumerate(zip(scenes, captions, strict=True)):
        x, y = 46 + 564 * (number % 2), 40 + 616 * (number // 2)
        show_detections(card, scene, x, y, 544, min_score)
        card.text(x + 272, y + 574, caption, SMALL)
    card.text(600, 1286, headline, SMALL, QUIET)
    return card.image()


def count_mistakes(scene, min_score):
    """How many objects of a scene are found rightly, how many detections are wrong, and how many objects are missed."""
    judgements, missed = judge(scene[1], above(scene[2], min_score))
    return judgements.count("right"), judgements.count("wrong"), len(missed)


def caption_of(scene, min_score):
    """What became of a scene, in a few words."""
    n_right, n_wrong, n_missed = count_mistakes(scene, min_score)
    parts = (
        [f"{n_right} right"]
        + [f"{n_wrong} wrong"] * (n_wrong > 0)
        + [f"{n_missed} missed"] * (n_missed > 0)
    )
    return ", ".join(parts)


def detections(checkpoint):
    """The scenes with the fewest mistakes."""
    scenes, min_score = detections_of(checkpoint), MIN_SCORE
    # Of scenes with as many mistakes, those with more objects first
    ranked = sorted(scenes, key=lambda scene: count_mistakes(scene, min_score)[0], reverse=True)
    ranked.sort(key=lambda scene: sum(count_mistakes(scene, min_score)[1:]))
    flawless = sum(not any(count_mistakes(scene, min_score)[1:]) for scene in scenes)
    headline = (
        f"the 4 best of {len(scenes)} unseen scenes, min_score {min_score}; {flawless} flawless"
    )
    return sheet(
        ranked[:4], min_score, [caption_of(scene, min_score) for scene in ranked[:4]], headline
    )


def more_detections_2(checkpoint):
    """The scenes with the most mistakes."""
    scenes, min_score = detections_of(checkpoint), MIN_SCORE
    ranked = sorted(scenes, key=lambda scene: -sum(count_mistakes(scene, min_score)[1:]))
    headline = f"the 4 worst of {len(scenes)}: dashed boxes are wrong, thin red ones missed"
    return sheet(
        ranked[:4], min_score, [caption_of(scene, min_score) for scene in ranked[:4]], headline
    )


def more_detections_1(checkpoint):
    """One scene with three values of min_score, and the counts over all scenes."""
    scenes = detections_of(checkpoint)
    scene = max(
        scenes, key=lambda scene: len({len(above(scene[2], min_score)) for min_score in MIN_SCORES})
    )
    card = Card(1610)
    place = show_picture(card, scene[0], 46, 40, 544)
    for obj in scene[1]:
        place.box(to_fractions(obj["box"], scene[0]), OBJECT, dashed=bool(obj["difficult"]))
    card.text(318, 614, "objects", SMALL)
    for number, min_score in enumerate(MIN_SCORES, start=1):
        x, y = 46 + 564 * (number % 2), 40 + 616 * (number // 2)
        show_detections(card, scene, x, y, 544, min_score, labels=min_score > MIN_SCORES[0])
        card.text(x + 272, y + 574, f"min_score {min_score}", SMALL)
    rows = [["min_score", *map(str, MIN_SCORES)]]
    totals = [[count_mistakes(scene, min_score) for scene in scenes] for min_score in MIN_SCORES]
    for row, text in enumerate(("right", "wrong", "missed")):
        rows.append([text, *(str(sum(counts[row] for counts in total)) for total in totals)])
    card.text(600, 1290, f"all {len(scenes)} scenes:", SMALL, QUIET)
    card.table(200, 1320, rows, (260, 180, 180, 180), 62, size=SMALL)
    return card.image()


def training_curves(checkpoint):
    """Loss and mean average precision after each epoch."""
    lines = Path(checkpoint).with_name("history.jsonl").read_text(encoding="utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    epochs = [row["epoch"] for row in history]
    card = Card(780)
    for x, title, curves in (
        (110, "loss", {"loss": PREDICTION, "validation_loss": INK}), (700, "mAP, validation", {"mAP": POSITIVE}),
    ):  # fmt: skip
        axes = add_plot(card, x, 130, 450, 450)
        for name, colour in curves.items():
            values = [row.get(name) for row in history]
            axes.plot(epochs, values, "o-", color=colour, linewidth=5, markersize=11)
        axes.set(
            xlim=(min(epochs) - 0.3, max(epochs) + 0.3), xticks=epochs[:: 1 + len(epochs) // 8]
        )
        axes.set(ylim=(0, 1)) if "mAP" in curves else axes.set(ylim=(0, None))
        card.text(x + 225, 80, title, NORMAL, bold=True)
        card.text(x + 225, 656, "epoch", SMALL)
    card.legend_entry(120, 724, "training", PREDICTION)
    card.legend_entry(390, 724, "validation", INK)
    return card.image()


FIGURES = {}
TRAINED_FIGURES = {
    "detections.png": detections,
    "more_detections_1.png": more_detections_1,
    "more_detections_2.png": more_detections_2,
    "training_curves.png": training_curves,
}
