"""history.py: what a run reports about itself. Whole runs are in test_train.py."""

import importlib.util
import json
import math
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import history
import train
from helpers.folders import LABEL_MAP
from history import (
    CURVES_EVERY,
    Forecast,
    NonFiniteLossError,
    Progress,
    advise_on_length,
    check_weights_are_finite,
    collect_losses,
    describe_duration,
    draw_curves,
    epoch_row,
    print_epoch,
    print_plan,
    print_settings,
    write_history,
)
from model import MultiBoxLoss
from runtime import read_command_line
from train import Parameters

PATHS = [f"{number}.jpg" for number in range(8)]  # of the training images


def row(epoch, **changes):
    """A line of the history."""
    losses = {"loss": 3.0, "confidence": 2.0, "localization": 1.0}
    return {"epoch": epoch, "iteration": 3 * epoch, "lr": 1e-3, **losses} | {
        "images_per_second": 12.5,
        **changes,
    }


def run_with(rows=(), **parameters):
    """What write_history and the printing functions need of a train.Run."""
    return SimpleNamespace(
        progress=Progress(epoch=len(rows), history=list(rows)),
        parameters=Parameters(**parameters),
        model=SimpleNamespace(priors_cxcy=torch.zeros(1)),
        versions={"torch": "1.2", "revision": "abc"},
    )


# ----------------------------------------------------------------------------------------- progress


def test_an_epoch_that_is_finished_leaves_its_row_and_nothing_of_its_images():
    progress = Progress(step=7, n_images=6, loss_sums=[4.0, 5.0])
    assert progress.finish_epoch(row(1, mAP=0.25))
    assert progress == Progress(epoch=1, step=7, best_mAP=0.25, history=[row(1, mAP=0.25)])


@pytest.mark.parametrize(
    ("mAPs", "best", "best_mAP"),
    [
        ((0.1, 0.3, 0.2), [True, True, False], 0.3),
        ((0.0, 0.0), [True, False], 0.0),  # the first counts, whatever it is, and no equal one
        ((math.nan, 0.1, math.nan), [False, True, False], 0.1),
        ((None, None), [False, False], -1.0),  # not validated
    ],
    ids=str,
)
def test_an_epoch_is_the_best_if_its_map_is_higher_than_all_before(mAPs, best, best_mAP):
    progress = Progress()
    rows = [row(1) if mAP is None else row(1, mAP=mAP) for mAP in mAPs]
    assert [progress.finish_epoch(row) for row in rows] == best
    assert progress.best_mAP == best_mAP


def test_the_losses_of_an_epoch_are_means_over_its_images():
    progress = Progress(epoch=4, step=9, n_images=5, loss_sums=[10.0, 20.0])
    criterion = MultiBoxLoss(torch.zeros(1, 4), alpha=2.0)
    assert epoch_row(progress, criterion, 0.1, 7.5, {"mAP": 0.5}) == {
        "epoch": 5,
        "iteration": 9,
        "lr": 0.1,
        "loss": 2.0 + 2.0 * 4.0,
        "confidence": 2.0,
        "localization": 4.0,
        "images_per_second": 7.5,
        "mAP": 0.5,
    }


# ----------------------------------------------------------------------------- losses of some steps


def test_losses_are_summed_over_images_and_the_last_ones_shown():
    progress = Progress(step=5, loss_sums=[1.0, 2.0])
    recent = [([0, 1, 2], torch.tensor([3.0, 0.5])), ([3], torch.tensor([4.0, 8.0]))]
    assert collect_losses(recent, progress, PATHS) == {"confidence": 4.0, "localization": 8.0}
    assert progress.loss_sums == [1.0 + 3 * 3.0 + 4.0, 2.0 + 3 * 0.5 + 8.0]
    assert recent == []


def test_without_a_step_nothing_is_collected():
    progress = Progress(step=5, loss_sums=[1.0, 2.0])
    assert collect_losses([], progress, PATHS) == {}
    assert progress.loss_sums == [1.0, 2.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_the_first_step_whose_loss_is_not_finite_is_named_with_its_images(value, part, bad):
    recent = [([2 * i, 2 * i + 1], torch.tensor([1.0, 2.0])) for i in range(4)]
    recent[bad][1][part] = value
    recent[3][1][:] = math.nan  # a later one, as all are after it
    with pytest.raises(NonFiniteLossError) as raised:
        collect_losses(recent, Progress(step=10), PATHS)
    first, *paths = str(raised.value).splitlines()
    assert f"the loss is not finite in step {7 + bad}:" in first
    assert f"'{('confidence', 'localization')[part]}': {value}" in first
    assert "--lr" in first
    assert paths == PATHS[2 * bad : 2 * bad + 2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(value):
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    check_weights_are_finite(network, 12)
    network[1].weight.data[4, 3] = value
    with pytest.raises(NonFiniteLossError, match=r"not finite after step 12: 1\.weight \.\.\."):
        check_weights_are_finite(network, 12)


# ------------------------------------------------------------------------------------- time left


class Clock:
    """What tells the time in place of the module `time`."""

    now = 1000.0  # seconds

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("history.time", clock)
    return clock


def forecast_of(n_steps=1000, n_validations=2, n_validation_images=60, **parameters):
    """A Forecast of a run with batches of four."""
    run = run_with(batch_size=4, **{"precision": "float32", **parameters})
    return Forecast(run, n_steps, n_validations, n_validation_images)


def take_steps(forecast, clock, first, last, seconds_per_step):
    """Tell a forecast of steps, as an epoch or a part of it does."""
    for step in range(first, last + 1):
        clock.now += seconds_per_step
        forecast.begin(step)
    forecast.add_steps(last)


@pytest.fixture
def forecasts(monkeypatch):
    """[(time left, time)] of all that forecasts find out, whether it is told or not."""
    found = []
    monkeypatch.setattr(Forecast, "print_if_new", lambda _, left, now: found.append((left, now)))
    return found


def test_the_time_left_is_first_told_from_the_pace_of_some_steps(clock, capsys):
    forecast = forecast_of()
    clock.now += 50  # until the first step is done
    forecast.begin(1)
    forecast.add_steps(1)
    assert capsys.readouterr().out == ""  # nothing is timed yet
    take_steps(forecast, clock, 2, 11, 1.0)
    # 989 steps, and two validations of 60 images: each as long as a third of 15 steps
    assert capsys.readouterr().out == (
        "Time left: about 17 minutes, with convolutions in float32.\n"
    )


def test_the_time_left_is_told_again_if_the_latest_steps_take_longer(clock, capsys):
    forecast = forecast_of()
    forecast.begin(1)
    take_steps(forecast, clock, 2, 11, 1.0)
    capsys.readouterr()
    take_steps(forecast, clock, 12, 21, 1.1)
    assert capsys.readouterr().out == ""
    take_steps(forecast, clock, 22, 31, 2.2)  # 969 more of these, and two validations
    assert capsys.readouterr().out == (
        "Time left: about 36 minutes, with convolutions in float32.\n"
    )


def test_the_pace_is_that_of_all_steps_since_the_last_look(clock, forecasts):
    forecast = forecast_of(n_validations=0)
    forecast.begin(1)
    take_steps(forecast, clock, 2, 11, 1.0)
    take_steps(forecast, clock, 12, 16, 1.0)  # too early for another look
    take_steps(forecast, clock, 17, 21, 3.0)
    assert [left for left, _ in forecasts] == [989, 979 * 2]


def test_looks_at_the_pace_become_rarer_but_not_than_every_ten_minutes(clock, forecasts):
    start = clock.now
    forecast = forecast_of()
    forecast.begin(1)
    for step in range(2, 40):
        take_steps(forecast, clock, step, step, 100.0)
    times = [now - start for _, now in forecasts]
    assert times == [100, 200, 400, 800, 1400, 2000, 2600, 3200, 3800]


@pytest.mark.parametrize(
    ("seconds", "is_told"),
    [
        (600, False),
        (719, False),
        (721, True),
        (501, False),
        (499, True),
        (0, True),
    ],
)
def test_a_change_by_a_fifth_is_told(seconds, is_told, capsys):
    forecast = forecast_of()
    forecast.print_if_new(700, now=100.0)
    capsys.readouterr()
    forecast.print_if_new(seconds, now=200.0)  # 600 were expected
    assert (capsys.readouterr().out != "") is is_told
    # The next change is one of what was told last
    forecast.print_if_new(seconds, now=200.0)
    assert capsys.readouterr().out == ""


def test_a_change_by_some_seconds_is_not_worth_a_line(capsys):
    forecast = forecast_of()
    forecast.print_if_new(30, now=0.0)
    capsys.readouterr()
    forecast.print_if_new(49, now=0.0)
    assert capsys.readouterr().out == ""
    forecast.print_if_new(51, now=0.0)
    assert capsys.readouterr().out.startswith("Time left: about 51 seconds")


def test_a_run_that_is_overdue_is_told_its_time_left_anew(capsys):
    forecast = forecast_of()
    forecast.print_if_new(100, now=0.0)
    forecast.print_if_new(40, now=150.0)
    assert capsys.readouterr().out.count("Time left") == 2


def test_what_happens_between_epochs_is_not_in_the_pace_of_the_steps(clock, forecasts):
    forecast = forecast_of(n_validations=0)
    forecast.begin(1)
    take_steps(forecast, clock, 2, 11, 1.0)
    forecast.end(11)
    forecast.end(11)  # as after an epoch without a step
    clock.now += 300  # a validation, a checkpoint, and starting to read images again
    take_steps(forecast, clock, 12, 22, 1.0)
    assert [left for left, _ in forecasts] == [989, 978]


def test_the_last_steps_of_an_epoch_count(clock, forecasts):
    forecast = forecast_of(n_validations=0)
    forecast.begin(1)
    clock.now += 30.0
    forecast.end(11)
    assert [left for left, _ in forecasts] == [989 * 3]


def test_a_validation_that_was_timed_replaces_the_guess(clock, forecasts):
    forecast = forecast_of(n_validations=3)
    forecast.begin(1)
    take_steps(forecast, clock, 2, 11, 1.0)
    forecast.add_validation(40.0)
    take_steps(forecast, clock, 12, 21, 1.0)
    forecast.add_validation(60.0)
    take_steps(forecast, clock, 22, 41, 1.0)
    forecast.add_validation(60.0)
    take_steps(forecast, clock, 42, 81, 1.0)
    expected = [989 + 3 * 5, 979 + 2 * 40, 959 + 60, 919]
    assert [left for left, _ in forecasts] == expected


def test_without_validation_images_only_steps_take_time(clock, forecasts):
    forecast = forecast_of(n_validation_images=0)
    forecast.begin(1)
    take_steps(forecast, clock, 2, 11, 1.0)
    assert [left for left, _ in forecasts] == [989]


def test_one_of_several_processes_tells_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr("history.rank", lambda: 1)
    forecast = forecast_of()
    forecast.print_if_new(600, now=0.0)
    assert capsys.readouterr().out == ""
    assert forecast.expected_end == 600


def test_the_time_left_names_the_precision(monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    for precision in ("auto", "bfloat16"):
        forecast_of(precision=precision).print_if_new(1000, now=0.0)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("in float32 (this processor has no fast bfloat16).")
    assert second.endswith("in bfloat16.")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 seconds"),
        (0.6, "1 second"),
        (1.4, "1 second"),
        (1.6, "2 seconds"),
        (9.4, "9 seconds"),
        (89, "89 seconds"),
        (90, "1.5 minutes"),
        (150, "2.5 minutes"),
        (590, "9.8 minutes"),
        (599, "10 minutes"),
        (89 * 60, "89 minutes"),
        (90 * 60, "1.5 hours"),
        (9.94 * 3600, "9.9 hours"),
        (9.96 * 3600, "10 hours"),
        (35 * 3600, "35 hours"),
        (36 * 3600, "1.5 days"),
        (9.96 * 86_400, "10 days"),
        (99 * 86_400, "99 days"),
    ],
)
def test_a_duration_has_two_digits_in_the_unit_that_fits(seconds, expected):
    assert describe_duration(seconds) == expected


# -------------------------------------------------------------------------------------------- files


def test_the_history_is_a_line_of_json_an_epoch_and_curves(tmp_path):
    rows = [row(1, mAP=math.nan), row(2, mAP=0.5, validation_loss=2.5)]
    write_history(run_with(rows, output_folder=str(tmp_path)))
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row(1, mAP=None), rows[1]]
    with Image.open(tmp_path / "history.png") as curves:
        assert curves.size == (1000, 400)


def test_epochs_without_a_validation_leave_no_gap_in_the_curves(tmp_path):
    """Between two points there is a line: many pixels in the colour of the mAP."""
    path = tmp_path / "history.png"
    draw_curves([row(1, mAP=0.1), row(2), row(3), row(4, mAP=0.9)], path)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    map_axes = pixels[:, 550:]
    assert (map_axes == (44, 160, 44)).all(axis=2).sum() > 250


def test_curves_are_drawn_again_from_time_to_time_and_at_the_end(tmp_path):
    curves = tmp_path / "history.png"
    run = run_with([row(1)], output_folder=str(tmp_path))
    write_history(run)
    for age, is_last, is_drawn in (
        (CURVES_EVERY - 9, False, False),
        (CURVES_EVERY - 9, True, True),
        (CURVES_EVERY + 1, False, True),
        (-100, False, True),  # of another run, or of a machine whose clock is ahead
    ):
        curves.write_bytes(b"before")
        os.utime(curves, (time.time() - age,) * 2)
        write_history(run, is_last)
        assert (curves.read_bytes() != b"before") == is_drawn
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "history.png"]


@pytest.mark.parametrize("name", ["history.jsonl", "history.png"])
def test_a_file_is_whole_whenever_it_is_read(name, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"before")
    os.utime(tmp_path / name, (0, 0))
    contents = []
    replace = os.replace

    def seen_replace(source, target):
        contents.append((tmp_path / name).read_bytes())
        replace(source, target)

    monkeypatch.setattr("os.replace", seen_replace)
    write_history(run_with([row(1)], output_folder=str(tmp_path)))
    assert contents[["history.jsonl", "history.png"].index(name)] == b"before"
    assert len((tmp_path / name).read_bytes()) > 100


def test_a_drawing_that_fails_stops_nothing(tmp_path, monkeypatch):
    def fail(rows, path):
        raise RuntimeError("no font")

    monkeypatch.setattr(history, "draw_curves", fail)
    with pytest.warns(UserWarning, match=r"history\.png could not be drawn: .*no font"):
        write_history(run_with([row(1)], output_folder=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


def test_one_of_several_processes_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "rank", lambda: 1)
    write_history(run_with([row(1)], output_folder=str(tmp_path)), is_last=True)
    assert list(tmp_path.iterdir()) == []


def test_without_epochs_no_history_is_written(tmp_path):
    write_history(run_with(output_folder=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ printed


class Images(list):
    """What print_plan asks of a PascalVOCDataset."""

    label_map = LABEL_MAP
    split = "VAL"


def test_the_plan_says_what_is_done_and_what_is_not(capsys):
    run = run_with([row(1)], batch_size=4)
    print_plan(run, Images(PATHS), Images(PATHS[:3]), n_steps_left=6, n_epochs=4)
    assert capsys.readouterr().out == (
        "Training on 8 images of 2 classes on cpu: 6 steps of 4 images, up to the end of epoch 4.\n"
        "Validating on 3 images of VAL.\n"
    )
    print_plan(run, Images(PATHS), Images(), n_steps_left=6, n_epochs=4)
    assert "No images to validate with" in capsys.readouterr().out
    print_plan(run, Images(PATHS), Images(PATHS), n_steps_left=0, n_epochs=1)
    assert capsys.readouterr().out.startswith("The run of this checkpoint is over")


@pytest.mark.parametrize(
    ("changes", "n_epochs", "expected"),
    [
        ({}, 1000, None),
        ({}, 19_200, "--epochs 100 --batch-size 8 --warm-up 0.05 --freeze 3 --start-from coco"),
        ({"start_from": "a.tar"}, 1001, "--epochs 100 --batch-size 8 --warm-up 0.05"),
        ({"width": 0.5}, 1001, "--epochs 100 --batch-size 8 --warm-up 0.05"),
    ],
    ids=str,
)
def test_a_run_that_is_far_too_long_for_its_images_is_told_a_length(
    changes, n_epochs, expected, capsys
):
    images = Images(PATHS * 25)  # 200
    print_plan(run_with(**changes), images, images, n_steps_left=9, n_epochs=n_epochs)
    printed = capsys.readouterr().out
    advice = [line.split(" Try ")[1] for line in printed.splitlines() if "Careful" in line]
    assert advice == ([expected] if expected else [])
    assert (f"{n_epochs:,} epochs" in printed) == (expected is not None)
    if expected:  # and what it says is understood
        parameters, _ = read_command_line(Parameters, "", expected.split())
        train.check_parameters(parameters)
    print_plan(run_with([row(1)], **changes), images, images, n_steps_left=9, n_epochs=n_epochs)
    assert "Careful" not in capsys.readouterr().out


@pytest.mark.parametrize(("n_images", "n_epochs"), [(3, 1000), (20, 1000), (292, 68), (3000, 20)])
def test_the_length_that_is_advised_follows_from_the_number_of_images(n_images, n_epochs):
    assert f"--epochs {n_epochs} " in advise_on_length(Parameters(), n_images, 2000)


def test_without_matplotlib_one_line_says_so_and_no_curves_are_drawn(tmp_path, monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
    )
    run = run_with([row(1)], output_folder=str(tmp_path))
    print_plan(run, Images(PATHS), Images(PATHS), n_steps_left=6, n_epochs=4)
    assert capsys.readouterr().out.count("pip install matplotlib") == 1
    write_history(run)
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


def test_versions_and_parameters_that_are_not_the_default_are_printed(capsys):
    print_settings(run_with(lr=0.5, pretrained=False, batch_size=Parameters.batch_size))
    assert capsys.readouterr().out.splitlines() == [
        "Versions: torch 1.2, revision abc.",
        "Parameters other than the defaults: --lr 0.5 --no-pretrained",
    ]


def test_iterations_that_follow_from_epochs_are_not_printed(capsys):
    print_settings(run_with(epochs=2, iterations=0.5))
    print_settings(run_with(iterations=0.5))
    lines = capsys.readouterr().out.splitlines()[1::2]
    assert [line.split(": ")[1] for line in lines] == ["--epochs 2", "--iterations 0.5"]


def test_an_epoch_is_a_line_with_its_validation_if_there_was_one(capsys):
    print_epoch(row(3))
    print_epoch(row(4, mAP=0.25, validation_loss=2.5))
    assert capsys.readouterr().out.splitlines() == [
        "epoch 3: loss 3.000, 12.5 images/s",
        "epoch 4: loss 3.000, 12.5 images/s, validation loss 2.500, mAP 25.0",
    ]


def test_losses_are_weighted_by_the_images_of_their_step():
    progress = Progress(step=2, loss_sums=[1.0, 0.5])
    recent = [([4, 1], torch.tensor([1.0, 2.0])), ([0], torch.tensor([4.0, 8.0]))]
    assert collect_losses(recent, progress, []) == {"confidence": 4.0, "localization": 8.0}
    assert progress.loss_sums == [1.0 + 2 * 1.0 + 4.0, 0.5 + 2 * 2.0 + 8.0]
    assert recent == []
