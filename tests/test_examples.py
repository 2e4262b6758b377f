"""
The worked examples behind the README's figures: matching, hard negatives, suppression, average
precision and augmentation. What the figures show is what the code and the plain loops compute.
"""

import inspect

import numpy as np
import pytest
import torch

import code_figures
import detection_figures
import trained_figures
import training_figures
from data_figures import ChosenAugmentations, source_scene
from examples import (
    AP_DETECTIONS,
    AP_OBJECTS,
    MATCHING_OBJECTS,
    MATCHING_PRIORS,
    MATCHING_THRESHOLD,
    MINING_NEGATIVES,
    MINING_POSITIVES,
    MINING_RATIO,
    NMS_CANDIDATES,
    NMS_MAX_OVERLAP,
)
from helpers import oracles
from model import SSD300, MultiBoxLoss
from utils import (
    IMAGE_SIZE,
    calculate_mAP,
    cxcy_to_gcxgcy,
    transform,
    xy_to_cxcy,
)

# ----------------------------------------------------------------------------------------- matching


def test_matching_is_that_of_the_plain_loop():
    example = training_figures.matching_example()
    priors = [oracles.slow_corners(prior) for prior in MATCHING_PRIORS]
    overlaps = oracles.slow_jaccards([box for _, box in MATCHING_OBJECTS], priors)
    assert np.allclose(example["overlap"], overlaps, atol=1e-6)
    matched = oracles.slow_matching(overlaps, MATCHING_THRESHOLD)
    pairs = zip(example["object"].tolist(), example["positive"].tolist(), strict=True)
    assert [number if positive else None for number, positive in pairs] == matched


def test_matching_shows_each_rule():
    example = training_figures.matching_example()
    names = example["names"]
    overlap = example["overlap"]
    own = example["own"].tolist()
    cat, plant, car = (names.index(name) for name in ("cat", "pottedplant", "car"))
    # The cat and the plant overlap the same prior most; the cat gets it, the plant its next best
    assert overlap[cat].argmax() == overlap[plant].argmax() == own[cat]
    assert overlap[plant].topk(2).indices[1] == own[plant]
    assert MATCHING_THRESHOLD < overlap[plant, own[cat]] < overlap[cat, own[cat]]
    # No prior overlaps the car by the threshold, and the plant's own prior does not reach it either
    assert overlap[car].max() < MATCHING_THRESHOLD
    assert overlap[plant, own[plant]] < MATCHING_THRESHOLD
    # One prior is positive by the threshold alone, some are negative
    positive = example["positive"].nonzero().flatten().tolist()
    assert [prior for prior in positive if prior not in own] == [2]
    assert example["object"][2] == cat
    assert (~example["positive"]).nonzero().flatten().tolist() == [3, 5, 6]


def test_the_examples_of_the_loss_have_its_default_settings():
    defaults = inspect.signature(MultiBoxLoss).parameters
    assert defaults["threshold"].default == MATCHING_THRESHOLD == 0.5
    assert defaults["neg_pos_ratio"].default == MINING_RATIO == 3


# ----------------------------------------------------------------------------------- hard negatives


def test_hard_negatives_are_those_that_the_loss_counts():
    n_priors = len(MINING_POSITIVES) + len(MINING_NEGATIVES)
    n_positives = len(MINING_POSITIVES)
    # Priors side by side, the first of which are the objects themselves: all offsets are zero
    left = torch.arange(n_priors) / n_priors
    boxes = torch.stack([left, torch.zeros(n_priors), left + 1 / n_priors, torch.ones(n_priors)], 1)
    of_an_object = MINING_POSITIVES + [1 - p for p in MINING_NEGATIVES]
    probabilities = torch.tensor([[1 - p, p] for p in of_an_object])
    loss = MultiBoxLoss(xy_to_cxcy(boxes), neg_pos_ratio=MINING_RATIO)(
        torch.zeros(1, n_priors, 4),
        probabilities.log().unsqueeze(0),
        [boxes[:n_positives]],
        [torch.ones(n_positives, dtype=torch.int64)],
    )
    hard = sorted(MINING_NEGATIVES)[: MINING_RATIO * n_positives]
    assert len(hard) < len(MINING_NEGATIVES)
    total = -np.log(MINING_POSITIVES + hard).sum()
    assert loss.item() == pytest.approx(total / n_positives, rel=1e-5)


# -------------------------------------------------------------------------------------- suppression


def test_suppression_is_that_of_detect_objects():
    """A network's first priors predict the candidates, and all others the background."""
    _, _, kept = detection_figures.nms_example()
    model = SSD300(3, pretrained=False)
    boxes = torch.tensor([box for *_, box in NMS_CANDIDATES]) / IMAGE_SIZE
    locs = torch.zeros(1, 8732, 4)
    locs[0, : len(boxes)] = cxcy_to_gcxgcy(xy_to_cxcy(boxes), model.priors_cxcy[: len(boxes)])
    scores = torch.zeros(1, 8732, 3)
    scores[..., 0] = 50.0
    for number, (name, score, _) in enumerate(NMS_CANDIDATES):
        rest = (1 - score) / 2
        probabilities = [rest, score, rest] if name == "cat" else [rest, rest, score]
        scores[0, number] = torch.tensor(probabilities).log()

    detections = model.detect_objects(locs, scores, 0.4, NMS_MAX_OVERLAP, 200)
    found_boxes, found_labels, found_scores = (tensors[0] for tensors in detections)
    assert torch.allclose(found_boxes, boxes[kept], atol=1e-4)
    assert found_labels.tolist() == [
        1 if NMS_CANDIDATES[number][0] == "cat" else 2 for number in kept
    ]
    best_first = [NMS_CANDIDATES[number][1] for number in kept]
    assert best_first == sorted(best_first, reverse=True)
    assert found_scores.tolist() == pytest.approx(best_first, abs=1e-4)


def test_steps_of_the_suppression():
    _, overlaps, kept = detection_figures.nms_example()
    assert kept == [0, 1, 6]
    assert detection_figures.suppressed_by(0, overlaps) == [2, 4]
    assert detection_figures.suppressed_by(1, overlaps) == [3, 5]
    assert overlaps[1, 6] > NMS_MAX_OVERLAP  # the plant stays: the cat is of another class


# -------------------------------------------------------------------------------- average precision


def ap_tensors():
    """The example of average precision as calculate_mAP takes it, image by image."""
    lists = [[] for _ in range(6)]
    for image in sorted({image for image, _, _ in AP_OBJECTS}):
        found = [(score, box) for score, other, box in AP_DETECTIONS if other == image]
        true = [(box, difficult) for other, box, difficult in AP_OBJECTS if other == image]
        columns = [
            torch.tensor([box for _, box in found]).float(),
            torch.ones(len(found), dtype=torch.int64),
            torch.tensor([score for score, _ in found]),
            torch.tensor([box for box, _ in true]).float(),
            torch.ones(len(true), dtype=torch.int64),
            torch.tensor([difficult for _, difficult in true]).bool(),
        ]
        for values, column in zip(lists, columns, strict=True):
            values.append(column)
    return lists


@pytest.mark.parametrize("metric", ["11-point", "area"])
def test_average_precision_example(metric):
    example = detection_figures.ap_example()
    _, mAP = calculate_mAP(*ap_tensors(), label_map={"background": 0, "cat": 1}, metric=metric)
    assert example["ap"][metric] == pytest.approx(mAP)
    assert mAP == pytest.approx(oracles.slow_average_precision(AP_DETECTIONS, AP_OBJECTS, metric))


def test_average_precision_example_shows_each_judgement():
    example = detection_figures.ap_example()
    assert example["judgement"] == oracles.slow_judgements(AP_DETECTIONS, AP_OBJECTS, 0.5)
    assert example["judgement"] == ["true", "false", "true", "ignored", "false", "true", "false"]
    assert sum(example["points"]) / 11 == pytest.approx(example["ap"]["11-point"])


def test_detections_are_judged_as_the_evaluation_does():
    objects = [
        {"name": "cat", "box": (0, 0, 10, 10), "difficult": 0},
        {"name": "cat", "box": (20, 0, 30, 10), "difficult": 1},
        {"name": "car", "box": (0, 20, 10, 30), "difficult": 0},
    ]
    detections = [
        ("cat", 0.9, (0.0, 0.0, 10.0, 9.0)),
        ("cat", 0.8, (0.0, 0.0, 9.0, 10.0)),
        ("cat", 0.7, (20.0, 0.0, 30.0, 9.0)),
        ("person", 0.6, (0.0, 20.0, 10.0, 30.0)),
        ("car", 0.5, (0.0, 24.0, 10.0, 34.0)),
        ("car", 0.4, (50.0, 50.0, 60.0, 60.0)),
    ]
    judgements, missed = trained_figures.judge(objects, detections)
    assert judgements[:3] == ["right", "found twice", "ignored"]
    assert judgements[3:] == ["it is a car", "badly placed", "nothing there"]
    assert missed == [objects[2]]


# ------------------------------------------------------------------------- augmentations, the files


def test_chosen_augmentations_do_what_they_are_told():
    image, boxes, labels, difficulties = source_scene(300)
    expected, _, _, _ = transform(image, boxes, labels, difficulties, "TEST")

    nothing = ChosenAugmentations(seed=0)
    same, same_boxes, _, _ = transform(image, boxes, labels, difficulties, "TRAIN", nothing)
    assert torch.equal(same, expected)
    assert torch.allclose(same_boxes, boxes / 300)

    flip = ChosenAugmentations(seed=0, flip=True)
    flipped, flipped_boxes, _, _ = transform(image, boxes, labels, difficulties, "TRAIN", flip)
    assert torch.equal(flipped, expected.flip(2))
    assert torch.allclose(flipped_boxes[:, 0], 1 - boxes[:, 2] / 300)


def test_each_file_is_in_the_figure_once():
    files = [path.stem for path in code_figures.CODE.glob("*.py")]
    assert sorted(code_figures.files_shown()) == sorted(files)


def test_the_scripts_of_the_figure_can_be_run():
    is_script = [
        '__name__ == "__main__"' in path.read_text(encoding="utf-8")
        for path in (code_figures.CODE / f"{name}.py" for name in code_figures.files_shown())
    ]
    assert is_script == [name in code_figures.SCRIPTS for name in code_figures.files_shown()]
