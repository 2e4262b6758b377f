"""Figures of what comes after the network: non-maximum suppression and average precision."""

import torch
import torchvision

from examples import AP_DETECTIONS, AP_OBJECTS, NMS_CANDIDATES, NMS_MAX_OVERLAP, NMS_OBJECTS
from scene import draw_boxed_scene
from style import (
    FAINT,
    HARD,
    INK,
    LARGE,
    MARK,
    NORMAL,
    OBJECT,
    POSITIVE,
    PREDICTION,
    QUIET,
    SMALL,
    Card,
    add_plot,
    mix,
    short,
)
from utils import IMAGE_SIZE, average_precision, find_jaccard_overlap, judge_detections

# Where the number of each candidate stands, as fractions of its box's width and height
BADGES = ((0, 0.4), (1, 0.5), (1, 0), (0.5, 1), (0, 1), (1, 0), (0.6, 0))


def nms_example():
    """
    Compute the worked example of non-maximum suppression.

    :return: boxes (7, 4), fractional xy; their overlaps (7, 7); and the numbers of those kept, the
        best score first
    """
    boxes = torch.tensor([box for _, _, box in NMS_CANDIDATES], dtype=torch.float32) / IMAGE_SIZE
    scores = torch.tensor([score for _, score, _ in NMS_CANDIDATES])
    labels = torch.tensor([class_number(name) for name, _, _ in NMS_CANDIDATES])
    kept = torchvision.ops.batched_nms(boxes, scores, labels, NMS_MAX_OVERLAP).tolist()
    return boxes, find_jaccard_overlap(boxes, boxes), kept


def class_number(name):
    """The number of a class in the example: that of its first candidate."""
    return [other for other, _, _ in NMS_CANDIDATES].index(name)


def suppressed_by(number, overlaps):
    """
    The candidates that a kept one removes: those of its class with lower scores that overlap it too
    much.

    :param number: of the kept one
    :param overlaps: (7, 7) of all candidates
    :return: their numbers
    """
    kept_name, kept_score, _ = NMS_CANDIDATES[number]
    removed = []
    for other, (name, score, _) in enumerate(NMS_CANDIDATES):
        is_lower = name == kept_name and score < kept_score
        if is_lower and overlaps[number, other] > NMS_MAX_OVERLAP:
            removed.append(other)
    return removed


def cats_of(numbers):
    """Those of the given candidates that belong to the class of the best one, the cat."""
    best_name = NMS_CANDIDATES[0][0]
    return [number for number in numbers if NMS_CANDIDATES[number][0] == best_name]


def box_fractions(box):
    """A box in pixels of an example's image, as fractions of its sides."""
    return [edge / IMAGE_SIZE for edge in box]


STATE_COLOURS = {"open": PREDICTION, "kept": POSITIVE, "goes": HARD, "gone": QUIET}


def draw_candidates(card, boxes, states):
    """
    Draw the scene with the candidates' boxes, and a list of the candidates beside it.

    :param states: for each candidate "open", "kept", "goes" or "gone"
    """
    objects = [(name, box_fractions(box)) for name, box in NMS_OBJECTS]
    place = card.show(draw_boxed_scene(objects), 50, 50, 660)
    for number, (box, state) in enumerate(zip(boxes.tolist(), states, strict=True)):
        if state == "gone":
            continue
        colour = STATE_COLOURS[state]
        place.box(box, colour, dashed=state == "goes", line=10 if state == "kept" else 6)
        card.badge(*place.on_box(box, *BADGES[number]), str(number + 1), colour, 25)
    for number, state in enumerate(states):
        list_candidate(card, 96 + 94 * number, number, state)


def list_candidate(card, y, number, state):
    """Write a line of the list of candidates: number, class, score and state."""
    name, score, _ = NMS_CANDIDATES[number]
    colour = STATE_COLOURS[state]
    is_gone = state == "gone"
    is_kept = state == "kept"
    if is_gone:
        card.badge(772, y, str(number + 1), FAINT, text_colour=QUIET)
    else:
        card.badge(772, y, str(number + 1), colour)
    text_colour = QUIET if is_gone else INK
    text = f"{short(name)} {score:.2f}"
    card.text(816, y, text, NORMAL, text_colour, "left", bold=is_kept)
    word = "" if state == "open" else state
    card.text(1158, y, word, SMALL, colour, "right", bold=is_kept)


def overlap_table(card, y, overlaps, best, gone):
    """
    Draw the overlaps of the cats with each other. In the row of the best one, overlaps that are too
    large are marked.

    :param best: number of the best candidate that is left
    :param gone: numbers of the candidates that were removed before
    :return: the y below the table
    """
    cats = cats_of(range(len(NMS_CANDIDATES)))
    rows = [["", *(str(number + 1) for number in cats)]]
    looks = {}
    for i, number in enumerate(cats, start=1):
        values = [f"{overlaps[number, other]:.2f}" for other in cats]
        values[i - 1] = ""  # with itself
        rows.append([str(number + 1), *values])
        looks[i, 0] = {"bold": True}
        for j, other in enumerate(cats, start=1):
            if number in gone or other in gone:
                looks[i, j] = {"colour": "#b5b9bf"}
            elif number == best and other in suppressed_by(best, overlaps):
                looks[i, j] = {"fill": mix(HARD, share=0.7), "colour": HARD, "bold": True}
            elif number == best:
                looks[i, j] = {"fill": mix(POSITIVE, share=0.8)}
    card.text(600, y, "Jaccard overlap of the cats", NORMAL, INK, bold=True)
    return card.table(75, y + 46, rows, [150] * (len(cats) + 1), 66, looks)


def nms_1():
    """All candidates whose scores are high enough."""
    boxes, _, _ = nms_example()
    card = Card(760)
    draw_candidates(card, boxes, ["open"] * len(boxes))
    return card.image()


def draw_step(step):
    """
    Draw a step of the suppression among the cats: the best one that is left is kept, and those that
    overlap it too much are removed.

    :param step: from 0
    """
    boxes, overlaps, kept = nms_example()
    kept_cats = cats_of(kept)
    best = kept_cats[step]
    gone = []
    for number in kept_cats[:step]:
        gone += suppressed_by(number, overlaps)
    states = ["open"] * len(boxes)
    for number in kept_cats[: step + 1]:
        states[number] = "kept"
    for number in suppressed_by(best, overlaps):
        states[number] = "goes"
    for number in gone:
        states[number] = "gone"
    card = Card(1370)
    draw_candidates(card, boxes, states)
    y = overlap_table(card, 772, overlaps, best, gone)
    card.text(600, y + 42, f"{best + 1} is kept; above {NMS_MAX_OVERLAP}: goes", NORMAL, INK)
    return card.image()


def nms_2():
    """The best cat is kept."""
    return draw_step(0)


def nms_3():
    """The best cat that is left is kept, too."""
    return draw_step(1)


def nms_4():
    """What is left. The plant stays, because it overlaps a cat, an object of another class."""
    boxes, overlaps, kept = nms_example()
    card = Card(860)
    states = ["kept" if number in kept else "gone" for number in range(len(boxes))]
    draw_candidates(card, boxes, states)
    cats = cats_of(kept)
    (plant,) = set(kept) - set(cats)
    cat = max(cats, key=lambda number: overlaps[plant, number])
    overlap = f"{overlaps[plant, cat]:.2f}"
    text = f"{plant + 1} overlaps {cat + 1} by {overlap}: another class, so it stays"
    card.text(600, 790, text, NORMAL, INK)
    return card.image()


# -------------------------------------------------------------------------------- average precision


def ap_example():
    """
    Compute the worked example of average precision.

    :return: {"judgement": a text for each detection, "n_true" and "precision": (7,) so far,
        "n_objects": a number, "points": the best precision from each of 11 recalls on, "ap":
        {metric: value}}
    """
    images = torch.tensor([image for image, _, _ in AP_OBJECTS])
    objects = torch.tensor([box for _, box, _ in AP_OBJECTS], dtype=torch.float32)
    difficult = torch.tensor([difficult for _, _, difficult in AP_OBJECTS], dtype=torch.bool)
    det_images = torch.tensor([image for _, image, _ in AP_DETECTIONS])
    det_boxes = torch.tensor([box for _, _, box in AP_DETECTIONS], dtype=torch.float32)
    n_images = int(images.max()) + 1
    is_true, is_false = judge_detections(
        det_images, det_boxes, images, objects, difficult, n_images, 0.5
    )
    n_true = is_true.cumsum(0)
    n_false = is_false.cumsum(0)
    precision = n_true / (n_true + n_false)
    n_objects = int((~difficult).sum())
    points = []
    for k in range(11):
        is_reached = 10 * n_true >= k * n_objects
        points.append(max(precision[is_reached].tolist(), default=0.0))
    metrics = ("11-point", "area")
    return {
        "judgement": name_judgements(is_true, is_false),
        "n_true": n_true,
        "precision": precision,
        "n_objects": n_objects,
        "points": points,
        "ap": {name: average_precision(is_true, is_false, n_objects, name) for name in metrics},
    }


def name_judgements(is_true, is_false):
    """A text for each detection: "true", "false", or "ignored" on a difficult object."""
    names = []
    for true, false in zip(is_true, is_false, strict=True):
        if true:
            names.append("true")
        elif false:
            names.append("false")
        else:
            names.append("ignored")
    return names


JUDGEMENT_COLOURS = {"true": POSITIVE, "false": HARD, "ignored": QUIET}
# Where the rank of each detection stands, as fractions of its box's width and height
RANKS = ((0, 0), (1, 0), (0, 0), (1, 1), (0, 1), (1, 1), (0.5, 0.5))


def draw_ap_images(card, example, y):
    """Draw the three images with their objects, and the detections with their ranks."""
    for image in range(3):
        objects = [(box, difficult) for number, box, difficult in AP_OBJECTS if number == image]
        scene = draw_boxed_scene([("cat", box_fractions(box)) for box, _ in objects], 600)
        place = card.show(scene, 45 + 375 * image, y, 360)
        for box, difficult in objects:
            place.box(box_fractions(box), OBJECT, line=6, dashed=bool(difficult))
        for rank, (_, number, box) in enumerate(AP_DETECTIONS):
            if number == image:
                place.box(box_fractions(box), PREDICTION, line=5)
                colour = JUDGEMENT_COLOURS[example["judgement"][rank]]
                at = place.on_box(box_fractions(box), *RANKS[rank])
                card.badge(*at, str(rank + 1), colour, 22)


def precision_recall():
    """
    Ranked detections of one class, precision and recall after each of them, and the average
    precision computed in both ways.
    """
    example = ap_example()
    card = Card(1820)
    draw_ap_images(card, example, 50)
    card.legend_entry(70, 455, "object", OBJECT, 7)
    card.legend_entry(390, 455, "difficult object", OBJECT, 7, dashed=True)
    card.legend_entry(830, 455, "detection", PREDICTION, 6)
    y = ranking_table(card, 505, example)
    draw_curve(add_plot(card, 140, y + 60, 620, 540), example)
    card.text(450, y + 675, "recall", NORMAL)
    card.text(60, y + 330, "precision", NORMAL, rotation=90)
    explain_curve(card, y, example["ap"])
    return card.image()


def ranking_table(card, y, example):
    """
    Draw the table of ranked detections.

    :return: the y below it
    """
    rows = [["rank", "score", "detection is", "precision", "recall"]]
    looks = {}
    for i, judgement in enumerate(example["judgement"]):
        precision = ""
        recall = ""
        if judgement != "ignored":
            precision = f"{example['precision'][i]:.2f}"
            recall = f"{int(example['n_true'][i])} / {example['n_objects']}"
        rows.append([str(i + 1), f"{AP_DETECTIONS[i][0]:.2f}", judgement, precision, recall])
        looks[i + 1, 2] = {"colour": JUDGEMENT_COLOURS[judgement], "bold": True}
    return card.table(100, y, rows, (140, 180, 280, 220, 180), 70, looks)


DOTS = {"color": MARK, "mec": INK, "mew": 2, "markersize": 15}
CROSSES = {"color": INK, "mew": 4, "markersize": 13}


def draw_curve(axes, example):
    """Plot precision against recall: the detections, the steps above them, and the 11 points."""
    recalls = (example["n_true"] / example["n_objects"]).tolist()
    precisions = example["precision"].tolist()
    # The steps: the best precision at this recall or a higher one. Recalls never fall with the rank
    best = [max(precisions[recalls.index(recall) :]) for recall in recalls]
    xs = [0.0, *recalls, recalls[-1], 1.0]
    ys = [best[0], *best, 0.0, 0.0]
    axes.fill_between(xs, ys, step="pre", color=mix(PREDICTION, share=0.8), zorder=1)
    axes.step(xs, ys, where="pre", color=PREDICTION, linewidth=5, zorder=2)
    axes.plot([k / 10 for k in range(11)], example["points"], "o", zorder=3, clip_on=False, **DOTS)
    axes.plot(recalls, precisions, "x", zorder=4, **CROSSES)
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set(xlim=(0, 1), ylim=(0, 1.05), xticks=ticks, yticks=ticks)


def explain_curve(card, y, average_precisions):
    """
    Say beside the curve what it shows, and write the average precisions.

    :param average_precisions: {metric: value}
    """
    card.axes.plot([822], [y + 85], "x", zorder=6, **CROSSES)
    card.text(860, y + 85, "a detection", NORMAL, align="left")
    look = {"align": "left", "bold": True}
    card.axes.plot([822], [y + 210], "o", zorder=6, **DOTS)
    card.text(860, y + 210, "mean of the\n11 points", NORMAL, align="left")
    card.text(860, y + 300, f"AP = {average_precisions['11-point']:.3f}", LARGE, **look)
    card.rectangle(804, y + 412, 36, 36, mix(PREDICTION, share=0.8), PREDICTION, 4)
    card.text(860, y + 430, "area under\nthe steps", NORMAL, align="left")
    card.text(860, y + 520, f"AP = {average_precisions['area']:.3f}", LARGE, **look)


FIGURES = {
    "nms_1.png": nms_1,
    "nms_2.png": nms_2,
    "nms_3.png": nms_3,
    "nms_4.png": nms_4,
    "precision_recall.png": precision_recall,
}
