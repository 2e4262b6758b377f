"""Figures of the loss: matching priors with objects, smooth L1, hard negatives."""

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

# Where on its box each prior's number stands, as fractions of its width and height: apart from each other
BADGES = ((0.5, 0), (1, 0.5), (0, 0), (0, 1), (0, 0.5), (1, 0.5), (0.5, 0.5))


def matching_example():
    """
    The worked example of matching, all of it computed.

    :return: {"names", "boxes" (3, 4) and "priors" (7, 4) fractional xy, "overlap" (3, 7), "object" (7,) of each prior, "positive"
        (7,), "own" (3,): the prior that an object has for itself}
    """
    names = [name for name, _ in MATCHING_OBJECTS]
    boxes = torch.tensor([box for _, box in MATCHING_OBJECTS]) / IMAGE_SIZE
    priors = cxcy_to_xy(torch.tensor(MATCHING_PRIORS) / IMAGE_SIZE)
    is_object = torch.ones(1, len(boxes), dtype=torch.bool)
    matched, positive = match_priors(boxes.unsqueeze(0), is_object, priors, MATCHING_THRESHOLD)
    # With a threshold that nothing reaches, the priors that objects have for themselves are all that is positive
    owner, is_own = match_priors(boxes.unsqueeze(0), is_object, priors, 2.0)
    own = [
        int((is_own[0] & (owner[0] == number)).nonzero().squeeze()) for number in range(len(boxes))
    ]
    return {
        "names": names, "boxes": boxes, "priors": priors, "overlap": find_jaccard_overlap(boxes, priors), "object": matched[0],
        "positive": positive[0], "own": torch.tensor(own),
    }  # fmt: skip


def draw_example(card, example, x, y, width):
    """The scene of the matching example."""
    objects = zip(example["names"], example["boxes"].tolist(), strict=True)
    order = ("pottedplant", "cat", "car")  # the cat sits before the plant
    return card.picture(
        draw_boxed_scene(sorted(objects, key=lambda pair: order.index(pair[0]))), x, y, width
    )


def draw_example_legend(card, solid, dashed):
    """Below the scene of the matching example, what its solid and its dashed boxes are: (text, colour) each."""
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
    """The Jaccard overlap of each prior with each object, and what becomes of the prior."""
    example = matching_example()
    overlap, own = example["overlap"], example["own"].tolist()
    rows, looks = [["prior", *map(short, example["names"]), "has to predict"]], {}
    for number in range(overlap.size(1)):
        best, positive = int(example["object"][number]), bool(example["positive"][number])
        name = short(example["names"][best]) if positive else "background"
        rows.append(
            [str(number + 1), *(f"{value:.2f}" for value in overlap[:, number].tolist()), name]
        )
        looks[number + 1, 0] = {"bold": True, "colour": PRIOR}
        looks[number + 1, 4] = {"bold": positive, "colour": POSITIVE if positive else QUIET}
        for column, value in enumerate(overlap[:, number].tolist()):
            look = {"colour": INK if value > 0 else QUIET}
            if value >= MATCHING_THRESHOLD and column == best:
                look["fill"] = mix(POSITIVE, share=0.6)
            if own[column] == number:
                look |= {"fill": MARK, "bold": True}
            if value == overlap[column].max() and own[column] != number:
                look |= {"strike": True}
            looks[number + 1, column + 1] = look
    card = Card(1080)
    y = card.table(60, 50, rows, (140, 190, 190, 190, 370), 86, looks) + 66
    for fill, text in (
        (mix(POSITIVE, share=0.6), f"at least {MATCHING_THRESHOLD}: the prior is positive"),
        (MARK, "an object's own prior, whatever the overlap"),
        (None, "an object's best prior, taken by another object"),
    ):
        card.rectangle(70, y - 26, 90, 52, fill or "white", QUIET, 2)
        if not fill:
            card.line([(82, y), (148, y)], HARD, 4, layer=11)
        card.text(190, y, text, NORMAL, align="left")
        y += 86
    return card.image()


def matching_result():
    """The positive priors with the objects that they have to predict, and the negative ones."""
    example = matching_example()
    card = Card(1230)
    place = draw_example(card, example, 70, 50, 1060)
    for number, prior in enumerate(example["priors"].tolist()):
        positive = bool(example["positive"][number])
        colour = POSITIVE if positive else QUIET
        place.box(prior, colour, dashed=not positive, line=9 if positive else 6)
        x, y = place.on_box(prior, *BADGES[number])
        if positive:
            name = short(example["names"][int(example["object"][number])])
            card.text(x, y, f"{number + 1} {name}", SMALL, "white", bold=True, background=colour)
        else:
            card.badge(x, y, str(number + 1), colour)
    n_positives = int(example["positive"].sum())
    negative = f"{len(example['priors']) - n_positives} negative: background"
    draw_example_legend(card, (f"{n_positives} positive", POSITIVE), (negative, QUIET))
    return card.image()


def smooth_l1():
    """The smooth L1 loss beside the L1 loss, and the gradients of both."""
    card = Card(760)
    difference = torch.linspace(-3, 3, 601, requires_grad=True)
    zeros = torch.zeros_like(difference)
    for x, title, is_gradient in ((90, "loss", False), (690, "gradient", True)):
        axes = add_plot(card, x, 130, 460, 440)
        for loss, colour, line, dashed in (
            (F.l1_loss, QUIET, 4, True),
            (F.smooth_l1_loss, PREDICTION, 8, False),
        ):
            values = loss(difference, zeros, reduction="none")
            if is_gradient:
                values = torch.autograd.grad(values.sum(), difference)[0]
            look = {
                "color": colour,
                "linewidth": in_points(line),
                "linestyle": "--" if dashed else "-",
            }
            axes.plot(difference.tolist(), values.tolist(), **look)
        axes.set(xlim=(-3, 3), xticks=[-2, -1, 0, 1, 2])
        axes.set(ylim=(-1.3, 1.3), yticks=[-1, 0, 1]) if is_gradient else axes.set(
            ylim=(0, 3), yticks=[0, 1, 2, 3]
        )
        card.text(x + 230, 80, title, NORMAL, bold=True)
        card.text(x + 230, 650, "predicted − true offset", SMALL)
    card.legend_entry(250, 712, "smooth L1", PREDICTION, gap=20)
    card.legend_entry(690, 712, "L1", QUIET, 4, dashed=True, gap=20)
    return card.image()


def hard_negatives():
    """The negative priors of an image, hardest first: as many count as the ratio times the positive ones."""
    ranked = sorted(
        MINING_NEGATIVES
    )  # the lower the probability of the background, the higher the loss
    n_hard = MINING_RATIO * len(MINING_POSITIVES)
    entries = [(p, POSITIVE) for p in MINING_POSITIVES]
    entries += [(p, HARD if rank < n_hard else FAINT) for rank, p in enumerate(ranked)]
    losses = [-torch.tensor(p).log().item() for p, _ in entries]
    card = Card(230 + 60 * len(entries))
    card.text(265, 66, "p(true class)", SMALL, QUIET, "right")
    card.text(300, 66, "confidence loss", SMALL, QUIET, "left")
    y = 130
    for number, ((p, colour), loss) in enumerate(zip(entries, losses, strict=True)):
        y += 36 * (number in (len(MINING_POSITIVES), len(MINING_POSITIVES) + n_hard))
        card.text(265, y, f"{p:g}", NORMAL, INK, "right")
        width = 430 * loss / max(losses)
        card.rectangle(
            300, y - 21, max(width, 3), 42, colour, QUIET if colour == FAINT else "none", 2
        )
        card.text(316 + width, y, f"{loss:.2f}", SMALL, QUIET, "left")
        y += 58
    middle = 130 + 29
    card.text(
        1150,
        middle,
        f"{len(MINING_POSITIVES)} positive priors",
        NORMAL,
        POSITIVE,
        "right",
        bold=True,
    )
    middle = 130 + 36 + 58 * (len(MINING_POSITIVES) + n_hard / 2)
    card.text(
        1150,
        middle - 30,
        f"{MINING_RATIO} × {len(MINING_POSITIVES)} = {n_hard}",
        NORMAL,
        HARD,
        "right",
        bold=True,
    )
    card.text(1150, middle + 26, "hard negatives", NORMAL, HARD, "right", bold=True)
    middle = 130 + 72 + 58 * (len(MINING_POSITIVES) + n_hard + (len(ranked) - n_hard) / 2)
    card.text(
        1150,
        middle - 30,
        f"{len(ranked) - n_hard} easy negatives",
        NORMAL,
        QUIET,
        "right",
        bold=True,
    )
    card.text(1150, middle + 26, "do not count", NORMAL, QUIET, "right", bold=True)
    return card.image()


FIGURES = {
    "matching_priors.png": matching_priors,
    "matching_table.png": matching_table,
    "matching_result.png": matching_result,
    "smooth_l1.png": smooth_l1,
    "hard_negatives.png": hard_negatives,
}
