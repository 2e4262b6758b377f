"""Figures of what comes after the network: non-maximum suppression, average precision, and detections of a trained model."""

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

# Where on its box each candidate's number stands, as fractions of its width and height: apart from each other
BADGES = ((0, 0.4), (1, 0.5), (1, 0), (0.5, 1), (0, 1), (1, 0), (0.6, 0))


def nms_example():
    """
    The worked example of non-maximum suppression.

    :return: boxes (7, 4), fractional xy; their overlaps (7, 7); and the numbers of the ones kept, in order of their scores
    """
    boxes = torch.tensor([box for _, _, box in NMS_CANDIDATES], dtype=torch.float32) / IMAGE_SIZE
    scores = torch.tensor([score for _, score, _ in NMS_CANDIDATES])
    labels = torch.tensor([class_number(name) for name, _, _ in NMS_CANDIDATES])
    kept = torchvision.ops.batched_nms(boxes, scores, labels, NMS_MAX_OVERLAP).tolist()
    return boxes, find_jaccard_overlap(boxes, boxes), kept


def class_number(name):
    """The number of a candidate's class in the example: by its first appearance."""
    return [other for other, _, _ in NMS_CANDIDATES].index(name)


def suppressed_by(number, overlaps):
    """The candidates that a kept one removes: those of its class, with lower scores, that overlap it too much."""
    name, score, _ = NMS_CANDIDATES[number]
    return [
        other
        for other, (other_name, other_score, _) in enumerate(NMS_CANDIDATES)
        if other_name == name and other_score < score and overlaps[number, other] > NMS_MAX_OVERLAP
    ]


def draw_candidates(card, boxes, states):
    """
    The scene with candidates, and a list of them beside it.

    :param states: for each candidate "open", "kept", "goes" or "gone"
    """
    objects = [(name, [edge / IMAGE_SIZE for edge in box]) for name, box in NMS_OBJECTS]
    place = card.picture(draw_boxed_scene(objects), 50, 50, 660)
    look = {
        "open": (PREDICTION, False, 6),
        "kept": (POSITIVE, False, 10),
        "goes": (HARD, True, 6),
        "gone": (None, False, 0),
    }
    for number, (box, state) in enumerate(zip(boxes.tolist(), states, strict=True)):
        colour, dashed, line = look[state]
        if colour is None:
            continue
        place.box(box, colour, dashed=dashed, line=line)
        card.badge(*place.on_box(box, *BADGES[number]), str(number + 1), colour, 25)
    words = {"open": "", "kept": "kept", "goes": "goes", "gone": "gone"}
    for number, ((name, score, _), state) in enumerate(zip(NMS_CANDIDATES, states, strict=True)):
        middle = 96 + 94 * number
        colour = look[state][0] or QUIET
        if state == "gone":
            card.badge(772, middle, str(number + 1), FAINT, text_colour=QUIET)
        else:
            card.badge(772, middle, str(number + 1), colour)
        text = f"{short(name)} {score:.2f}"
        card.text(
            816,
            middle,
            text,
            NORMAL,
            QUIET if state == "gone" else INK,
            "left",
            bold=state == "kept",
        )
        card.text(1158, middle, words[state], SMALL, colour, "right", bold=state == "kept")


def overlap_table(card, y, overlaps, best, gone):
    """The overlaps of the cats with each other: the row of the best one is marked, and what it overlaps too much."""
    cats = [
        number
        for number, (name, _, _) in enumerate(NMS_CANDIDATES)
        if name == NMS_CANDIDATES[best][0]
    ]
    rows, looks = [["", *(str(number + 1) for number in cats)]], {}
    for i, number in enumerate(cats, start=1):
        rows.append(
            [
                str(number + 1),
                *(f"{overlaps[number, other]:.2f}" if other != number else "" for other in cats),
            ]
        )
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
    """All candidates that score enough."""
    boxes, _, _ = nms_example()
    card = Card(760)
    draw_candidates(card, boxes, ["open"] * len(boxes))
    return card.image()


def draw_step(step):
    """
    A step of the suppression among the cats: the best one that is left is kept, and what overlaps it too much goes.

    :param step: from 0
    """
    boxes, overlaps, kept = nms_example()
    kept_cats = [
        number for number in kept if NMS_CANDIDATES[number][0] == NMS_CANDIDATES[kept[0]][0]
    ]
    best, states, gone = kept_cats[step], ["open"] * len(boxes), []
    for number in kept_cats[: step + 1]:
        states[number] = "kept"
    for number in kept_cats[:step]:
        gone += suppressed_by(number, overlaps)
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
    """What is left: the plant stays, as it is of another class than the cat that it overlaps."""
    boxes, overlaps, kept = nms_example()
    card = Card(860)
    draw_candidates(
        card, boxes, ["kept" if number in kept else "gone" for number in range(len(boxes))]
    )
    plant = next(
        number for number in kept if NMS_CANDIDATES[number][0] != NMS_CANDIDATES[kept[0]][0]
    )
    other = max(
        (number for number in kept if number != plant), key=lambda number: overlaps[plant, number]
    )
    text = f"{plant + 1} overlaps {other + 1} by {overlaps[plant, other]:.2f}: another class, so it stays"
    card.text(600, 790, text, NORMAL, INK)
    return card.image()


# ------------------------------------------------------------------------------------------------------ average precision


def ap_example():
    """
    The worked example of average precision.

    :return: {"judgement": a text for each detection, "n_true" and "precision" (7,) so far, "n_objects", "points" (11,) the best
        precision from each recall on, "ap": {metric: value}}
    """
    objects = torch.tensor([box for _, box, _ in AP_OBJECTS], dtype=torch.float32)
    images = torch.tensor([image for image, _, _ in AP_OBJECTS])
    difficult = torch.tensor([difficult for _, _, difficult in AP_OBJECTS], dtype=torch.bool)
    det_boxes = torch.tensor([box for _, _, box in AP_DETECTIONS], dtype=torch.float32)
    det_images = torch.tensor([image for _, image, _ in AP_DETECTIONS])
    is_true, is_false = judge_detections(
        det_images, det_boxes, images, objects, difficult, int(images.max()) + 1, 0.5
    )
    n_true, n_false, n_objects = is_true.cumsum(0), is_false.cumsum(0), int((~difficult).sum())
    precision = n_true / (n_true + n_false)
    points = [precision[10 * n_true >= k * n_objects] for k in range(11)]
    return {
        "judgement": ["true" if t else "false" if f else "ignored" for t, f in zip(is_true, is_false, strict=True)],
        "n_true": n_true, "precision": precision, "n_objects": n_objects,
        "points": [float(values.max()) if len(values) else 0.0 for values in points],
        "ap": {metric: average_precision(is_true, is_false, n_objects, metric) for metric in ("11-point", "area")},
    }  # fmt: skip


JUDGEMENT_COLOURS = {"true": POSITIVE, "false": HARD, "ignored": QUIET}


def draw_ap_images(card, example, y):
    """The three images with their objects, and the detections with their ranks."""
    corners = ((0, 0), (1, 0), (0, 0), (1, 1), (0, 1), (1, 1), (0.5, 0.5))
    for image in range(3):
        objects = [
            ("cat", [edge / IMAGE_SIZE for edge in box])
            for number, box, _ in AP_OBJECTS
            if number == image
        ]
        place = card.picture(draw_boxed_scene(objects, 600), 45 + 375 * image, y, 360)
        for number, box, difficult in AP_OBJECTS:
            if number == image:
                place.box(
                    [edge / IMAGE_SIZE for edge in box], OBJECT, line=6, dashed=bool(difficult)
                )
        for rank, (_, number, box) in enumerate(AP_DETECTIONS):
            if number != image:
                continue
            box = [edge / IMAGE_SIZE for edge in box]
            place.box(box, PREDICTION, line=5)
            colour = JUDGEMENT_COLOURS[example["judgement"][rank]]
            card.badge(*place.on_box(box, *corners[rank]), str(rank + 1), colour, 22)


def precision_recall():
    """Ranked detections of one class, precision and recall after each, and the average precision in both ways."""
    example = ap_example()
    card = Card(1820)
    draw_ap_images(card, example, 50)
    card.legend_entry(70, 455, "object", OBJECT, 7)
    card.legend_entry(390, 455, "difficult object", OBJECT, 7, dashed=True)
    card.legend_entry(830, 455, "detection", PREDICTION, 6)

    rows, looks = [["rank", "score", "detection is", "precision", "recall"]], {}
    for rank, judgement in enumerate(example["judgement"]):
        n_true = int(example["n_true"][rank])
        shown = [f"{example['precision'][rank]:.2f}", f"{n_true} / {example['n_objects']}"]
        shown = ["", ""] if judgement == "ignored" else shown
        rows.append([str(rank + 1), f"{AP_DETECTIONS[rank][0]:.2f}", judgement, *shown])
        looks[rank + 1, 2] = {"colour": JUDGEMENT_COLOURS[judgement], "bold": True}
    y = card.table(100, 505, rows, (140, 180, 280, 220, 180), 70, looks)

    axes = add_plot(card, 140, y + 60, 620, 540)
    recalls = (example["n_true"] / example["n_objects"]).tolist()
    best = [
        max(p for p, r in zip(example["precision"].tolist(), recalls, strict=True) if r >= recall)
        for recall in recalls
    ]
    steps = [(0.0, best[0]), *zip(recalls, best, strict=True), (recalls[-1], 0.0), (1.0, 0.0)]
    xs, ys = zip(*steps, strict=True)
    axes.fill_between(xs, ys, step="pre", color=mix(PREDICTION, share=0.8), zorder=1)
    axes.step(xs, ys, where="pre", color=PREDICTION, linewidth=5, zorder=2)
    dots = {"color": MARK, "mec": INK, "mew": 2, "markersize": 15}
    axes.plot([k / 10 for k in range(11)], example["points"], "o", zorder=3, clip_on=False, **dots)
    axes.plot(
        recalls, example["precision"].tolist(), "x", color=INK, mew=4, markersize=13, zorder=4
    )
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.05),
        xticks=[0, 0.2, 0.4, 0.6, 0.8, 1],
        yticks=[0, 0.2, 0.4, 0.6, 0.8, 1],
    )
    card.text(450, y + 675, "recall", NORMAL)
    card.text(60, y + 330, "precision", NORMAL, rotation=90)

    card.axes.plot([822], [y + 85], "x", color=INK, mew=4, markersize=13, zorder=6)
    card.text(860, y + 85, "a detection", NORMAL, align="left")
    for middle, text, value in (
        (210, "mean of the\n11 points", "11-point"),
        (430, "area under\nthe steps", "area"),
    ):
        if value == "11-point":
            card.axes.plot([822], [y + middle], "o", zorder=6, **dots)
        else:
            card.rectangle(804, y + middle - 18, 36, 36, mix(PREDICTION, share=0.8), PREDICTION, 4)
        card.text(860, y + middle, text, NORMAL, align="left")
        card.text(
            860, y + middle + 90, f"AP = {example['ap'][value]:.3f}", LARGE, INK, "left", bold=True
        )
    return card.image()


FIGURES = {
    "nms_1.png": nms_1,
    "nms_2.png": nms_2,
    "nms_3.png": nms_3,
    "nms_4.png": nms_4,
    "precision_recall.png": precision_recall,
}
