"""Figures of the loss: matching priors with objects, smooth L1, hard negatives."""

import math

import torch
import torch.nn.functional as F

from examples import (
    MATCHING_OBJECTS,
    MATCHING_PRIORS,
    MATCHING_THRESHOLD,
    MINING_NEGATIVES,
    MINING_POSITIVES,
    MINING_RATIO,
)
from model import match_priors
from scene import draw_boxed_scene
from style import (
    FAINT,
    HARD,
    INK,
    MARK,
    NORMAL,
    OBJECT,
    POSITIVE,
    PREDICTION,
    PRIOR,
    QUIET,
    SMALL,
    Card,
    add_plot,
    in_points,
    mix,
    short,
)
from utils import IMAGE_SIZE, cxcy_to_xy, find_jaccard_overlap

# Where the number of each prior stands, as fractions of the prior's width and height
BADGES = ((0.5, 0), (1, 0.5), (0, 0), (0, 1), (0, 0.5), (1, 0.5), (0.5, 0.5))


def matching_example():
    """
    Compute the worked example of matching.

    :return: {"names", "boxes" (3, 4) and "priors" (7, 4) fractional xy, "overlap" (3, 7), "object"
        (7,) of each prior, "positive" (7,), "own" (3,): the prior that each object keeps}
    """
    names = [name for name, _ in MATCHING_OBJECTS]
    boxes = torch.tensor([box for _, box in MATCHING_OBJECTS]) / IMAGE_SIZE
    priors = cxcy_to_xy(torch.tensor(MATCHING_PRIORS) / IMAGE_SIZE)
    is_object = torch.ones(1, len(boxes), dtype=torch.bool)
    matched, positive = match_priors(boxes.unsqueeze(0), is_object, priors, MATCHING_THRESHOLD)
    # With a threshold that no overlap reaches, only the priors that objects keep are positive
    owner, is_own = match_priors(boxes.unsqueeze(0), is_object, priors, 2.0)
    owner = owner[0].masked_fill(~is_own[0], -1)
    own = [owner.tolist().index(number) for number in range(len(boxes))]
    return {
        "names": names,
        "boxes": boxes,
        "priors": priors,
        "overlap": find_jaccard_overlap(boxes, priors),
        "object": matched[0],
        "positive": positive[0],
        "own": torch.tensor(own),
    }


def draw_example(card, example, x, y, width):
    """
    Draw the scene of the matching example.

    :return: its Place
    """
    boxes = dict(zip(example["names"], example["boxes"].tolist(), strict=True))
    # The cat sits in front of the plant
    objects = [(name, boxes[name]) for name in ("pottedplant", "cat", "car")]
    return card.show(draw_boxed_scene(objects), x, y, width)


def draw_example_legend(card, solid, dashed):
    """Say below the scene what its solid and dashed boxes are; both parameters: (text, colour)."""
    card.legend_entry(150, 1170, *solid, line=9, size=NORMAL, length=80, gap=20)
    card.legend_entry(600, 1170, *dashed, line=6, dashed=True, size=NORMAL, length=80, gap=20)


def matching_priors():
    """Three objects and seven priors."""
    example = matching_example()
    card = Card(1230)
    place = draw_example(card, example, 70, 50, 1060)
    for box in example["boxes"].tolist():
        place.box(box, OBJECT, line=9)
    for number, prior in enumerate(example["priors"].tolist()):
        place.box(prior, PRIOR, dashed=True, line=6)
        card.badge(*place.on_box(prior, *BADGES[number]), str(number + 1), PRIOR)
    draw_example_legend(card, ("3 objects", OBJECT), ("7 priors", PRIOR))
    return card.image()


def matching_table():
    """The Jaccard overlap of each prior with each object, and what the prior has to predict."""
    example = matching_example()
    rows = [["prior", *map(short, example["names"]), "has to predict"]]
    looks = {}
    for number, overlaps in enumerate(example["overlap"].T.tolist()):
        best = int(example["object"][number])
        positive = bool(example["positive"][number])
        name = short(example["names"][best]) if positive else "background"
        rows.append([str(number + 1), *(f"{value:.2f}" for value in overlaps), name])
        looks[number + 1, 0] = {"bold": True, "colour": PRIOR}
        looks[number + 1, 4] = {"bold": positive, "colour": POSITIVE if positive else QUIET}
        for column in range(len(overlaps)):
            looks[number + 1, column + 1] = look_of_overlap(example, number, column)
    card = Card(1080)
    below = card.table(60, 50, rows, (140, 190, 190, 190, 370), 86, looks)
    explain_matching_table(card, below + 66)
    return card.image()


def look_of_overlap(example, prior, number):
    """How the matching table shows the overlap of a prior and an object, as Card.table takes it."""
    overlap = example["overlap"][number, prior]
    own_prior = example["own"][number]
    look = {"colour": INK if overlap > 0 else QUIET}
    if overlap >= MATCHING_THRESHOLD and example["object"][prior] == number:
        look["fill"] = mix(POSITIVE, share=0.6)
    if own_prior == prior:
        look |= {"fill": MARK, "bold": True}
    elif overlap == example["overlap"][number].max():
        look["strike"] = True
    return look


def explain_matching_table(card, y):
    """Write what the looks of the matching table's cells mean, from y on."""
    text = f"at least {MATCHING_THRESHOLD}: the prior is positive"
    card.rectangle(70, y - 26, 90, 52, mix(POSITIVE, share=0.6), QUIET, 2)
    card.text(190, y, text, NORMAL, align="left")
    y += 86
    card.rectangle(70, y - 26, 90, 52, MARK, QUIET, 2)
    card.text(190, y, "an object's own prior, whatever the overlap", NORMAL, align="left")
    y += 86
    card.rectangle(70, y - 26, 90, 52, "white", QUIET, 2)
    card.line([(82, y), (148, y)], HARD, 4, layer=11)
    card.text(190, y, "an object's best prior, taken by another object", NORMAL, align="left")


def matching_result():
    """The positive priors with the objects that they have to predict, and the negative ones."""
    example = matching_example()
    card = Card(1230)
    place = draw_example(card, example, 70, 50, 1060)
    for number, prior in enumerate(example["priors"].tolist()):
        badge = place.on_box(prior, *BADGES[number])
        if example["positive"][number]:
            place.box(prior, POSITIVE, line=9)
            text = f"{number + 1} {short(example['names'][example['object'][number]])}"
            card.text(*badge, text, SMALL, "white", bold=True, background=POSITIVE)
        else:
            place.box(prior, QUIET, dashed=True, line=6)
            card.badge(*badge, str(number + 1), QUIET)
    n_positives = int(example["positive"].sum())
    n_negatives = len(example["priors"]) - n_positives
    positive = (f"{n_positives} positive", POSITIVE)
    draw_example_legend(card, positive, (f"{n_negatives} negative: background", QUIET))
    return card.image()


def smooth_l1():
    """The smooth L1 loss beside the L1 loss, and the gradients of both."""
    card = Card(760)
    difference = torch.linspace(-3, 3, 601, requires_grad=True)
    loss_axes = add_plot(card, 90, 130, 460, 440)
    gradient_axes = add_plot(card, 690, 130, 460, 440)
    for loss, colour, line, style in (
        (F.l1_loss, QUIET, 4, "--"),
        (F.smooth_l1_loss, PREDICTION, 8, "-"),
    ):
        values = loss(difference, torch.zeros_like(difference), reduction="none")
        gradients = torch.autograd.grad(values.sum(), difference)[0]
        look = {"color": colour, "linewidth": in_points(line), "linestyle": style}
        loss_axes.plot(difference.tolist(), values.tolist(), **look)
        gradient_axes.plot(difference.tolist(), gradients.tolist(), **look)
    loss_axes.set(xlim=(-3, 3), xticks=[-2, -1, 0, 1, 2], ylim=(0, 3), yticks=[0, 1, 2, 3])
    gradient_axes.set(xlim=(-3, 3), xticks=[-2, -1, 0, 1, 2], ylim=(-1.3, 1.3), yticks=[-1, 0, 1])
    for x, title in ((320, "loss"), (920, "gradient")):
        card.text(x, 80, title, NORMAL, bold=True)
        card.text(x, 650, "predicted − true offset", SMALL)
    card.legend_entry(250, 712, "smooth L1", PREDICTION, gap=20)
    card.legend_entry(690, 712, "L1", QUIET, 4, dashed=True, gap=20)
    return card.image()


def hard_negatives():
    """An image's negative priors, hardest first: a fixed number of them per positive one counts."""
    ranked = sorted(MINING_NEGATIVES)  # the less probable the background, the higher the loss
    n_positives = len(MINING_POSITIVES)
    n_hard = MINING_RATIO * n_positives
    hard = ranked[:n_hard]
    easy = ranked[n_hard:]
    longest = max(-math.log(p) for p in (*MINING_POSITIVES, *ranked))
    unit = 430 / longest
    card = Card(230 + 60 * (n_positives + len(ranked)))
    card.text(265, 66, "p(true class)", SMALL, QUIET, "right")
    card.text(300, 66, "confidence loss", SMALL, QUIET, "left")
    look = {"align": "right", "bold": True}

    y = 130
    bottom = draw_losses(card, y, MINING_POSITIVES, POSITIVE, unit)
    middle = (y + bottom) / 2
    card.text(1150, middle - 29, f"{n_positives} positive priors", colour=POSITIVE, **look)
    y = bottom + 36
    bottom = draw_losses(card, y, hard, HARD, unit)
    middle = (y + bottom) / 2
    card.text(1150, middle - 30, f"{MINING_RATIO} × {n_positives} = {n_hard}", colour=HARD, **look)
    card.text(1150, middle + 26, "hard negatives", colour=HARD, **look)
    y = bottom + 36
    bottom = draw_losses(card, y, easy, FAINT, unit)
    middle = (y + bottom) / 2
    card.text(1150, middle - 30, f"{len(easy)} easy negatives", colour=QUIET, **look)
    card.text(1150, middle + 26, "do not count", colour=QUIET, **look)
    return card.image()


def draw_losses(card, y, probabilities, colour, unit):
    """
    Draw bars of the confidence losses of some priors.

    :param y: of the first one
    :param probabilities: of the true class
    :param unit: pixels for a loss of 1
    :return: the y after the last one
    """
    for p in probabilities:
        loss = -math.log(p)
        width = unit * loss
        edge = QUIET if colour == FAINT else "none"
        card.text(265, y, f"{p:g}", NORMAL, INK, "right")
        card.rectangle(300, y - 21, max(width, 3), 42, colour, edge, 2)
        card.text(316 + width, y, f"{loss:.2f}", SMALL, QUIET, "left")
        y += 58
    return y


FIGURES = {
    "matching_priors.png": matching_priors,
    "matching_table.png": matching_table,
    "matching_result.png": matching_result,
    "smooth_l1.png": smooth_l1,
    "hard_negatives.png": hard_negatives,
}
