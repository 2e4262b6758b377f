"""The worked examples of matching, hard negatives, suppression and average precision: the code computes what the README says."""

import numpy as np
import pytest
import torch

import data_figures
import detection_figures
import oracles
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
from model import SSD300, MultiBoxLoss
from utils import IMAGE_SIZE, calculate_mAP, cxcy_to_gcxgcy, transform, xy_to_cxcy


def slow_matches():
    """The matching example, by the slow definitions: overlaps and the object of each prior."""
    priors = [oracles.slow_corners(prior) for prior in MATCHING_PRIORS]
    overlaps = oracles.slow_jaccards([box for _, box in MATCHING_OBJECTS], priors)
    return overlaps, oracles.slow_matching(overlaps, MATCHING_THRESHOLD)


def test_matching_is_that_of_the_slow_definition():
    example = training_figures.matching_example()
    overlaps, matched = slow_matches()
    assert np.allclose(example["overlap"], overlaps, atol=1e-6)
    pairs = zip(example["object"].tolist(), example["positive"].tolist(), strict=True)
    assert [number if positive else None for number, positive in pairs] == matched


def test_matching_shows_each_rule():
    example = training_figures.matching_example()
    names, overlap, own = example["names"], example["overlap"], example["own"].tolist()
    cat, plant, car = (names.index(name) for name in ("cat", "pottedplant", "car"))
    # The cat and the plant have the same best prior; the cat overlaps it more, and the plant gets its next best one
    assert overlap[cat].argmax() == overlap[plant].argmax() == own[cat]
    assert overlap[plant].topk(2).indices[1] == own[plant]
    assert MATCHING_THRESHOLD < overlap[plant, own[cat]] < overlap[cat, own[cat]]
    # No prior overlaps the car by the threshold, and the plant's own one does not either
    assert overlap[car].max() < MATCHING_THRESHOLD
    assert overlap[plant, own[plant]] < MATCHING_THRESHOLD
    # One prior is positive by the threshold alone, some are negative
    by_threshold = [
        number for number in range(7) if example["positive"][number] and number not in own
    ]
    assert by_threshold == [2]
    assert example["object"][2] == cat
    assert (~example["positive"]).nonzero().flatten().tolist() == [3, 5, 6]


def test_hard_negatives_are_those_that_the_loss_counts():
    probabilities = torch.tensor(MINING_POSITIVES + MINING_NEGATIVES, dtype=torch.float64)
    positive = torch.arange(len(probabilities)) < len(MINING_POSITIVES)
    pair = torch.stack(
        [probabilities, 1 - probabilities], dim=1
    )  # of the true class, and the other one
    scores = torch.where(positive.unsqueeze(1), pair.flip(1), pair).log()
    criterion = MultiBoxLoss(torch.rand(len(probabilities), 4), neg_pos_ratio=MINING_RATIO)
    n_positives = torch.tensor([len(MINING_POSITIVES)])
    loss = criterion._confidence_loss(
        scores[None], positive.long()[None], positive[None], n_positives
    )
    hard = sorted(MINING_NEGATIVES)[: MINING_RATIO * len(MINING_POSITIVES)]
    assert float(loss) == pytest.approx(-sum(np.log(MINING_POSITIVES + hard)))
    assert len(hard) < len(MINING_NEGATIVES)


def test_suppression_is_that_of_detect_objects():
    _, _, kept = detection_figures.nms_example()
    # A network whose first priors predict the candidates, and whose others predict the background
    model = SSD300(3, pretrained=False)
    boxes = torch.tensor([box for *_, box in NMS_CANDIDATES]) / IMAGE_SIZE
    locs, scores = torch.zeros(1, 8732, 4), torch.zeros(1, 8732, 3)
    locs[0, : len(boxes)] = cxcy_to_gcxgcy(xy_to_cxcy(boxes), model.priors_cxcy[: len(boxes)])
    scores[..., 0] = 50.0
    for number, (name, score, _) in enumerate(NMS_CANDIDATES):
        rest = (1 - score) / 2
        both = (score, rest) if name == "cat" else (rest, score)
        scores[0, number] = torch.tensor([rest, *both]).log()
    found, labels, found_scores = (
        tensors[0] for tensors in model.detect_objects(locs, scores, 0.4, NMS_MAX_OVERLAP, 200)
    )
    assert found_scores.tolist() == pytest.approx(
        sorted((NMS_CANDIDATES[number][1] for number in kept), reverse=True), abs=1e-4
    )
    assert torch.allclose(found, boxes[kept], atol=1e-4)
    assert labels.tolist() == [1 if NMS_CANDIDATES[number][0] == "cat" else 2 for number in kept]


def test_steps_of_the_suppression():
    _, overlaps, kept = detection_figures.nms_example()
    assert kept == [0, 1, 6]
    assert detection_figures.suppressed_by(0, overlaps) == [2, 4]
    assert detection_figures.suppressed_by(1, overlaps) == [3, 5]
    assert (
        overlaps[1, 6] > NMS_MAX_OVERLAP
    )  # the plant stays although it overlaps a cat: it is of another class


def ap_tensors():
    """The average precision example as calculate_mAP takes it."""
    images = sorted({image for image, _, _ in AP_OBJECTS})
    found = [
        [(score, box) for score, number, box in AP_DETECTIONS if number == image]
        for image in images
    ]
    true = [
        [(box, difficult) for number, box, difficult in AP_OBJECTS if number == image]
        for image in images
    ]
    return (
        [torch.tensor([box for _, box in rows], dtype=torch.float32) for rows in found],
        [torch.ones(len(rows), dtype=torch.int64) for rows in found],
        [torch.tensor([score for score, _ in rows]) for rows in found],
        [torch.tensor([box for box, _ in rows], dtype=torch.float32) for rows in true],
        [torch.ones(len(rows), dtype=torch.int64) for rows in true],
        [torch.tensor([difficult for _, difficult in rows], dtype=torch.bool) for rows in true],
    )


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


def test_chosen_augmentations_do_what_they_are_told():
    image, boxes, labels, difficulties = source_scene(300)
    for split, rng in (
        ("TEST", None),
        ("TRAIN", ChosenAugmentations(seed=0)),
    ):  # nothing chosen: nothing changes
        unchanged, same_boxes, _, _ = transform(image, boxes, labels, difficulties, split, rng)
        assert torch.allclose(same_boxes, boxes / 300)
        if split == "TEST":
            expected = unchanged
    assert torch.equal(unchanged, expected)
    flipped, flipped_boxes, _, _ = transform(
        image, boxes, labels, difficulties, "TRAIN", ChosenAugmentations(seed=0, flip=True)
    )
    assert torch.equal(flipped, expected.flip(2))
    assert torch.allclose(flipped_boxes[:, 0], 1 - boxes[:, 2] / 300)


def test_files_build_on_each_other_without_circles():
    imports = data_figures.direct_imports()
    assert imports["utils"] == set()
    assert "model" in imports["checkpoints"]
    heights = {name: y for name, (_, y, *_) in data_figures.CODE_FILES.items()}
    assert all(heights[name] < heights[other] for name, used in imports.items() for other in used)


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
    ]
    judgements, missed = trained_figures.judge(objects, detections)
    assert judgements == ["right", "wrong", "ignored", "wrong"]
    assert missed == [objects[2]]
