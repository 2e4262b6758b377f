"""train.py: runs of a given number of epochs, and after which of them there is a validation."""

import contextlib
import json
import math
import re

import pytest

import train
from checkpoints import BEST, LAST, load_checkpoint
from helpers.runs import PullPlugError, assert_equal, settings, small
from runtime import read_command_line
from train import Parameters, main, n_steps, set_iterations

pytestmark = pytest.mark.usefixtures("no_curves", "one_thread")


def epochs_and_steps(history):
    """[(epoch, steps up to its end)]"""
    return [(row["epoch"], row["iteration"]) for row in history]


@contextlib.contextmanager
def stopped_in_epoch(number):
    """A context in which the process "ends" before the first step of an epoch."""
    train_one_epoch = train.train_one_epoch

    def end_or_train(loader, run, *args):
        if run.progress.epoch + 1 == number:
            raise PullPlugError
        train_one_epoch(loader, run, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train_one_epoch", end_or_train)
        with pytest.raises(PullPlugError):
            yield


# ------------------------------------------------------------------------------- length in epochs


@pytest.mark.parametrize(
    ("n_images", "batch_size", "epochs", "expected"),
    [
        (16_551, 32, 232, 232 * 518),
        (16_551, 8, 3, 3 * 2069),
        (6, 4, 2, 4),
        (6, 32, 5, 5),
        (100, 3, 0.5, 17),
        (1, 7, 10, 10),
    ],
)
def test_epochs_are_counted_in_steps_of_which_the_last_may_be_smaller(
    n_images, batch_size, epochs, expected
):
    parameters = Parameters(batch_size=batch_size, epochs=epochs)
    assert n_steps(set_iterations(parameters, n_images)) == expected


def test_without_epochs_the_iterations_count():
    parameters = Parameters(iterations=7)
    assert set_iterations(parameters, 100) == parameters


def test_a_run_ends_with_its_last_epoch_as_the_same_run_in_iterations(toy_folder, tmp_path):
    """Six images in batches of four: each epoch is a step of four images and one of two."""
    in_epochs = {"batch_size": 4, "epochs": 2, "iterations": Parameters.iterations}
    history = main(settings(toy_folder, tmp_path / "epochs", **in_epochs))
    assert epochs_and_steps(history) == [(1, 2), (2, 4)]
    main(settings(toy_folder, tmp_path / "iterations", batch_size=4, iterations=4 * 4 / 32))
    ours = load_checkpoint(tmp_path / "epochs" / LAST)
    theirs = load_checkpoint(tmp_path / "iterations" / LAST)
    assert (ours["parameters"]["epochs"], theirs["parameters"]["epochs"]) == (2, 0)
    assert ours["parameters"]["iterations"] == theirs["parameters"]["iterations"]
    for state in (ours, theirs):
        for row in state["history"]:
            del row["images_per_second"]
    for part in ("model", "optimizer", "history", "n_images"):
        assert_equal(ours[part], theirs[part])


def test_epochs_and_iterations_are_not_given_together():
    words = ["--epochs", "2", "--iterations", "5", "--data-folder", "no such folder"]
    with pytest.raises(ValueError, match=r"--epochs and --iterations: .*give one of them"):
        main(*read_command_line(Parameters, "", words))


def test_epochs_count_in_place_of_the_iterations_that_toy_sets(toy_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "create_toy_data", lambda *_, **__: None)
    parameters = small(toy_folder, tmp_path, toy=True, epochs=2)
    given = {"toy", "epochs", "data_folder", "output_folder", "width", "batch_size", "workers"}
    assert epochs_and_steps(main(parameters, given)) == [(1, 3), (2, 6)]


def test_the_command_that_goes_on_gives_the_epochs_again(toy_folder, tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "take_step", interrupt)
    parameters = small(toy_folder, tmp_path, epochs=3, iterations=Parameters.iterations)
    with pytest.raises(SystemExit):
        main(parameters)
    printed = capsys.readouterr().out
    assert "--epochs 3 " in printed.split("Resume with:")[1]
    assert "--iterations" not in printed


# ----------------------------------------------------------------------- another length, going on


def test_a_run_that_was_stopped_keeps_its_epochs(toy_folder, tmp_path, validated):
    in_epochs = {"epochs": 2, "iterations": Parameters.iterations}
    with stopped_in_epoch(2):
        main(small(toy_folder, tmp_path, **in_epochs))
    history = main(small(toy_folder, tmp_path, checkpoint="auto"), given={"checkpoint"})
    assert epochs_and_steps(history) == [(1, 3), (2, 6)]


def test_iterations_replace_the_epochs_of_a_checkpoint(toy_folder, tmp_path, validated, capsys):
    main(small(toy_folder, tmp_path, epochs=1, iterations=Parameters.iterations))
    longer = small(toy_folder, tmp_path, checkpoint="auto", iterations=4 / 16)
    history = main(longer, given={"checkpoint", "iterations"})
    assert epochs_and_steps(history) == [(1, 3), (2, 4)]
    saved = load_checkpoint(tmp_path / LAST)["parameters"]
    assert (saved["epochs"], saved["iterations"]) == (0, 4 / 16)
    printed = capsys.readouterr().out
    assert "length: --iterations 0.25 as given (the checkpoint has --epochs 1)." in printed
    assert not re.search(r"^(epochs|iterations):", printed, re.MULTILINE)


@pytest.mark.parametrize("first", [{"epochs": 1, "iterations": Parameters.iterations}, {}], ids=str)
def test_epochs_replace_the_length_of_a_checkpoint(toy_folder, tmp_path, validated, first, capsys):
    main(small(toy_folder, tmp_path, **first))
    longer = small(toy_folder, tmp_path, checkpoint="auto", epochs=2)
    history = main(longer, given={"checkpoint", "epochs"})
    assert epochs_and_steps(history) == [(1, 3), (2, 6)]
    saved = load_checkpoint(tmp_path / LAST)["parameters"]
    assert (saved["epochs"], saved["iterations"]) == (2, 6 / 16)
    printed = capsys.readouterr().out
    before = "--epochs 1" if first else "--iterations 0.1875"
    assert f"length: --epochs 2 as given (the checkpoint has {before})." in printed
    assert not re.search(r"^(epochs|iterations):", printed, re.MULTILINE)


def test_the_length_of_a_checkpoint_is_told_once(toy_folder, tmp_path, validated, capsys):
    main(small(toy_folder, tmp_path, epochs=1, iterations=Parameters.iterations))
    main(small(toy_folder, tmp_path, checkpoint="auto"), given={"checkpoint"})
    printed = capsys.readouterr().out
    assert "length: --epochs 1 as in the checkpoint (instead of --iterations 0.1875)." in printed
    assert printed.count("as in the checkpoint") == 1


@pytest.mark.parametrize(
    ("batch_size", "new_batch_size", "n_before", "expected"),
    [
        (2, 4, 1, [(1, 3), (2, 4), (3, 6), (4, 8)]),
        (4, 1, 1, [(1, 2), (2, 12), (3, 18), (4, 24)]),
        (4, 1, 3, [(1, 2), (2, 4), (3, 6), (4, 24)]),
    ],
)
def test_another_batch_size_keeps_the_number_of_epochs(
    toy_folder, tmp_path, validated, batch_size, new_batch_size, n_before, expected
):
    """
    Six images: four of six are a step, and so are two of six. Steps count as if the batch size had
    always been the new one.
    """
    in_epochs = {"batch_size": batch_size, "epochs": 4, "iterations": Parameters.iterations}
    with stopped_in_epoch(n_before + 1):
        main(small(toy_folder, tmp_path, **in_epochs))
    changed = small(toy_folder, tmp_path, checkpoint="auto", batch_size=new_batch_size)
    history = main(changed, given={"checkpoint", "batch_size"})
    assert epochs_and_steps(history) == expected


# --------------------------------------------------------------------------- which are validated


def validations(*mAPs):
    """What validations add to the rows of their epochs."""
    return [{"validation_loss": 1.0, "mAP": mAP} for mAP in mAPs]


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])]
)
def test_each_so_many_epochs_have_a_validation_and_the_last_one_always(
    toy_folder, tmp_path, validated, every, expected
):
    validated += validations(*[0.5] * 5)
    parameters = small(toy_folder, tmp_path, batch_size=6, epochs=5, validate_every=every)
    history = main(parameters, given=set())
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    for rows in (history, lines):
        assert [row["epoch"] for row in rows if "mAP" in row] == expected
        assert [row["epoch"] for row in rows if "validation_loss" in row] == expected
    assert len(validated) == 5 - len(expected)


def test_the_best_checkpoint_is_chosen_among_the_epochs_with_a_validation(
    toy_folder, tmp_path, validated
):
    validated += validations(0.1, 0.3, 0.2)  # after epochs 2, 4 and 5
    main(small(toy_folder, tmp_path, batch_size=6, epochs=5, validate_every=2), given=set())
    best = load_checkpoint(tmp_path / BEST)
    assert (best["epoch"], best["best_mAP"], len(best["history"])) == (4, 0.3, 4)
    assert load_checkpoint(tmp_path / LAST)["epoch"] == 5


def test_a_run_that_goes_on_validates_as_it_is_told_now(toy_folder, tmp_path, validated):
    validated += validations(0.1, 0.2, 0.3, 0.4)
    main(small(toy_folder, tmp_path, batch_size=6, epochs=2, validate_every=9), given=set())
    longer = small(toy_folder, tmp_path, checkpoint="auto", epochs=6, validate_every=2)
    history = main(longer, given={"checkpoint", "epochs"})
    assert [row["epoch"] for row in history if "mAP" in row] == [2, 4, 6]


@pytest.mark.parametrize(
    ("every", "n_before", "n_validations"),
    [(1, 0, 5), (2, 0, 3), (2, 2, 2), (2, 3, 2), (9, 1, 1)],
)
def test_forecasts_know_all_steps_and_the_validations_to_come(
    toy_folder, tmp_path, monkeypatch, every, n_before, n_validations
):
    arguments = []
    calls = []
    forecast = train.Forecast

    def seen_forecast(run, *args):
        arguments.append(args)
        return forecast(run, *args)

    def seen_validate(*args):
        calls.append(1)
        return None, {}

    monkeypatch.setattr(train, "validate", seen_validate)
    parameters = small(toy_folder, tmp_path, batch_size=6, epochs=5, validate_every=every)
    if n_before > 0:
        with stopped_in_epoch(n_before + 1):
            main(parameters, given=set())
        arguments.clear()
        parameters.checkpoint = "auto"
    monkeypatch.setattr(train, "Forecast", seen_forecast)
    calls.clear()
    main(parameters, given={"checkpoint"})
    calls_after_epochs = len(calls) - 1  # as none gave a result, there is one more at the end
    assert arguments == [(5, n_validations, 4)]
    assert calls_after_epochs == n_validations


def test_a_forecast_hears_of_steps_as_their_losses_are_read_and_of_validations(
    toy_folder, tmp_path, validated, monkeypatch
):
    heard = []

    class Listener:
        def __init__(self, *args):
            pass

        def begin(self, step):
            heard.append(("begin", step))

        def add_steps(self, step):
            heard.append(("steps", step))

        def end(self, step):
            heard.append(("end", step))

        def add_validation(self, seconds):
            heard.append("validation")

    monkeypatch.setattr(train, "Forecast", Listener)
    changes = {"iterations": 6 / 16, "log_every": 2, "validate_every": 2}
    main(small(toy_folder, tmp_path, **changes))
    first = [("begin", 1), ("begin", 2), ("steps", 2), ("begin", 3), ("end", 3)]
    second = [("begin", 4), ("steps", 4), ("begin", 5), ("begin", 6), ("steps", 6), ("end", 6)]
    assert heard == [*first, *second, "validation"]


def test_a_run_says_how_long_it_will_take(toy_folder, tmp_path, validated, capsys):
    main(small(toy_folder, tmp_path, log_every=1))
    printed = capsys.readouterr().out
    assert "Time left: about " in printed
    assert printed.index("Time left: about ") < printed.index("epoch 1: ")


def test_a_run_of_one_step_says_nothing_about_time_that_it_cannot_know(
    toy_folder, tmp_path, validated, capsys
):
    (row,) = main(small(toy_folder, tmp_path, iterations=1 / 16))
    assert math.isfinite(row["loss"])
    assert "Time left" not in capsys.readouterr().out
