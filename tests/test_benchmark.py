"""
The yardsticks of benchmark.py compute what the code computes, and the benchmark prints its table.
Times are not looked at.
"""

import re
import subprocess
import sys

import pytest
import torch

import benchmark
from benchmark import (
    Parameters,
    Row,
    compare,
    main,
    random_objects,
    random_result,
    realistic_predictions,
    time_in_turn,
    with_more,
)
from helpers.loops import (
    decode_and_resize,
    loop_detect_objects,
    loop_loss,
    loop_mean_average_precision,
    loop_overlap,
    torchvision_item,
)
from helpers.oracles import slow_jaccards
from model import SSD300, MultiBoxLoss
from utils import calculate_mAP, label_map

CPU = torch.device("cpu")


def test_overlaps_are_those_of_the_plain_loop(random):
    (boxes, others), _ = random_objects([7, 9], random, CPU)
    expected = torch.tensor(slow_jaccards(boxes.tolist(), others.tolist()))
    torch.testing.assert_close(loop_overlap(boxes, others), expected)


def test_the_loss_with_loops_is_the_loss_where_no_two_objects_want_one_prior(random):
    priors_cxcy = SSD300.create_prior_boxes()
    boxes = [
        torch.tensor([[0.1, 0.1, 0.3, 0.4], [0.5, 0.5, 0.9, 0.95]]),
        torch.zeros(0, 4),
        torch.tensor([[0.2, 0.6, 0.7, 0.9]]),
    ]
    labels = [torch.tensor([3, 7]), torch.zeros(0, dtype=torch.int64), torch.tensor([20])]
    locs, scores = (
        torch.randn(3, 8732, 4, generator=random),
        torch.randn(3, 8732, 21, generator=random),
    )
    ours = MultiBoxLoss(priors_cxcy)(locs, scores, boxes, labels)
    torch.testing.assert_close(loop_loss(locs, scores, boxes, labels, priors_cxcy), ours)


@pytest.mark.parametrize("background", [9.5, 6.0])
def test_detections_with_loops_are_the_detections(background):
    model = SSD300(21, pretrained=False)
    locs, scores, n_candidates = realistic_predictions(2, model.priors_cxcy, background, CPU)
    assert n_candidates > 100
    ours = model.detect_objects(locs, scores, **benchmark.EVALUATION)
    loops = loop_detect_objects(locs, scores, model.priors_cxcy, **benchmark.EVALUATION)
    for field, expected in zip(ours, loops, strict=True):
        for tensor, other in zip(field, expected, strict=True):
            torch.testing.assert_close(tensor, other)
    assert len(ours[0][0]) > 5


def test_mean_average_precision_with_loops_is_that_of_calculate_mAP():
    result = random_result(80, 30)
    aps, mean = calculate_mAP(*result)
    loop_aps, loop_mean = loop_mean_average_precision(*result, label_map)
    assert loop_aps == pytest.approx(aps, abs=1e-6, nan_ok=True)
    assert loop_mean == pytest.approx(mean, abs=1e-6)
    assert 0.05 < mean < 0.95


def test_more_detections_are_added_up_to_a_number():
    result = random_result(16, 5)
    boxes, labels, scores = with_more(result[:3], result[3], result[4], 12)
    assert [len(tensor) for tensor in (*boxes, *labels, *scores)] == [12] * 48
    assert torch.equal(boxes[3][:5], result[0][3])


def test_items_of_torchvision_have_the_form_of_ours(toy_folder):
    path = next((toy_folder / "JPEGImages").iterdir())
    torch.manual_seed(0)
    image, target = torchvision_item(
        path, torch.tensor([[10.0, 10.0, 200.0, 200.0]]), torch.tensor([1])
    )
    assert image.shape == (3, 300, 300)
    assert image.dtype == torch.float32
    assert len(target["boxes"]) == len(target["labels"])
    assert decode_and_resize(path).size == (300, 300)


def test_functions_are_timed_in_turn():
    calls = []
    times = time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, CPU)
    assert calls == ["a", "b"] * 4
    assert [len(values) for values in times.values()] == [3, 3]
    del calls[:]
    time_in_turn({"a": lambda: calls.append("a")}, 1, CPU, warm_up=False)
    assert calls == ["a"]


def test_a_row_compares_medians():
    row = compare("loss", {"ours": [1.0, 1.0, 7.0], "loops": [3.0, 4.0, 5.0]}, "no slower", each=10)
    assert row == Row(
        "loss", "100.0 ms", "loops: 400.0 ms", "4.0 x faster", "600%, 50%", "no slower"
    )
    assert compare("loss", {"ours": [3.0], "loops": [2.0]}).ratio == "1.50 x its time"
    assert compare("loss", {"ours": [0.999], "loops": [1.0]}).ratio == "1.00 x its time"


def test_a_measurement_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="no measurement is called speed: there are forward, step"):
        main(Parameters(only=("speed",)))


@pytest.mark.slow
def test_the_benchmark_prints_a_table():
    command = [
        sys.executable,
        benchmark.__file__,
        "--quick",
        "--device",
        "cpu",
        "--only",
        "item",
        "memory",
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    head, rows = output.split("|---|---|---|---|---|---|\n")
    assert re.match(r"\d{4}-\d\d-\d\d, .* threads, torch \d", head)
    assert "| what | ours | yardstick | ratio | spread | aim |" in head
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows.splitlines()]
    assert all(len(row) == 6 for row in rows)
    assert len(rows) == 6 + 1
