"""resume.py: training that is interrupted or killed goes on as if nothing had happened."""

import os
import random
import signal
import threading
import time

import pytest
import torch

import checkpoints
import history
import train
from checkpoints import BEST, LAST, load_checkpoint
from helpers.runs import WIDTH, PullPlugError, assert_same_training, read_history, settings
from model import SSD300
from resume import find_start
from runtime import read_command_line
from train import Parameters, main

pytestmark = pytest.mark.usefixtures("no_curves", "one_thread")


def command(toy_folder, output_folder):
    """The command line of a run of 80 steps in 27 epochs, as a user would type it."""
    folders = f"--data-folder {toy_folder} --output-folder {output_folder}"
    fixed = f"--no-pretrained --width {WIDTH} --device cpu --workers 0"
    schedule = "--batch-size 2 --iterations 5 --lr 1e-4 --precision float32 --checkpoint-every 1"
    return f"train.py {folders} {fixed} {schedule}".split()


def is_younger(path, moment):
    """Whether a file is there that was written after a moment."""
    try:
        return os.stat(path).st_mtime > moment
    except FileNotFoundError:
        return False


def pull_plug_at(monkeypatch, moment):
    """
    Let the process "end" when the n-th checkpoint is about to be written, half written, or written
    but not renamed.
    """
    n_calls, save, replace = [], torch.save, os.replace
    n, place = moment

    def torch_save(state, file):
        n_calls.append(1)
        if len(n_calls) == n and place == "before":
            raise PullPlugError
        if len(n_calls) == n and place == "half":
            file.write(b"PK half a checkpoint")
            raise PullPlugError
        save(state, file)

    def os_replace(*paths):
        if len(n_calls) == n and place == "after":
            raise PullPlugError
        replace(*paths)

    monkeypatch.setattr("torch.save", torch_save)
    monkeypatch.setattr("os.replace", os_replace)


# ----------------------------------------------------------------------------------- exact resuming


@pytest.mark.parametrize("workers", [0, 2])
# The first is written before the first step, the fourth before the validation, the sixth and the
# seventh, best and last, after it
@pytest.mark.parametrize("n", [1, 3, 5, 7, 8, 10])
def test_training_interrupted_anywhere_equals_training_that_was_not(
    toy_folder, tmp_path, whole, monkeypatch, n, workers
):
    place = ("half", "after", "before")[n % 3]
    with monkeypatch.context() as patch:
        pull_plug_at(patch, (n, place))
        with pytest.raises(PullPlugError):
            main(settings(toy_folder, tmp_path, checkpoint_every=1))
    main(settings(toy_folder, tmp_path, checkpoint="auto", checkpoint_every=2, workers=workers))
    assert_same_training(tmp_path, whole)
    assert [row["epoch"] for row in read_history(tmp_path)] == [1, 2]


def test_a_history_that_a_kill_left_behind_the_checkpoint_catches_up(
    toy_folder, tmp_path, monkeypatch
):
    write_history = history.write_history

    def write_or_end(run, is_last):
        if len(run.progress.history) == 2:  # the last epoch: nothing else would write it again
            raise PullPlugError
        write_history(run, is_last)

    with monkeypatch.context() as patch:
        patch.setattr(train, "write_history", write_or_end)
        with pytest.raises(PullPlugError):
            main(settings(toy_folder, tmp_path))
    assert len(read_history(tmp_path)) == 1
    assert load_checkpoint(tmp_path / LAST)["epoch"] == 2
    assert main(settings(toy_folder, tmp_path, checkpoint="auto")) == read_history(tmp_path)
    assert [row["epoch"] for row in read_history(tmp_path)] == [1, 2]


def test_a_checkpoint_within_an_epoch_says_how_far_it_is(toy_folder, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        checkpoints,
        "save_checkpoint",
        lambda path, state, *_: saved.append((path.name, dict(state))),
    )
    main(settings(toy_folder, tmp_path, checkpoint_every=2))
    progress = [
        (name == BEST, state["epoch"], state["iteration"], state["n_images"])
        for name, state in saved
    ]
    last = [
        (epoch, iteration, n_images)
        for is_best, epoch, iteration, n_images in progress
        if not is_best
    ]
    first_epoch = [(0, 0, 0), (0, 2, 4), (0, 3, 6), (1, 3, 0)]
    assert last == [*first_epoch, (1, 4, 2), (1, 6, 6), (1, 6, 6), (2, 6, 0)]
    assert progress[3] == (True, 1, 3, 0)  # the best one is written before the last one


@pytest.mark.slow
def test_killed_at_random_moments(toy_folder, tmp_path, start_script):
    """
    22 times SIGKILL: at the start, some time after a checkpoint (of a step, of an epoch, during
    validation), and in the middle of writing one. Then it may end.
    """
    script = start_script(*command(toy_folder, tmp_path / "whole"))
    assert script.wait() == 0, script.printed
    moments = random.Random(0)
    folder = tmp_path / "killed"
    words = [*command(toy_folder, folder), "--checkpoint", "auto"]
    n_killed = 0
    n_in_writing = 0
    while n_killed < 22:
        began = time.time()
        script = start_script(*words, "--workers", n_killed % 2)
        if n_killed < 2:
            time.sleep(moments.uniform(0.0, 1.0))
        elif n_killed % 3 == 0:
            script.wait_until(lambda began=began: is_younger(folder / LAST, began))
            script.wait_until(lambda began=began: is_younger(folder / f"unfinished_{LAST}", began))
            time.sleep(moments.uniform(0.0, 0.005))
        else:
            script.wait_until(lambda began=began: is_younger(folder / LAST, began))
            time.sleep(moments.uniform(0.0, 0.1))
        n_in_writing += any(folder.glob("unfinished_*"))
        status = script.kill()
        if status == 0:  # it had ended before it was killed
            break
        assert status == -signal.SIGKILL, script.printed
        n_killed += 1
    assert n_killed >= 20
    assert n_in_writing >= 3
    script = start_script(*words)
    assert script.wait() == 0, script.printed
    assert_same_training(folder, tmp_path / "whole")
    assert list(folder.glob("unfinished_*")) == []


# ------------------------------------------------------------------------------ being asked to stop


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_writes_a_checkpoint_and_says_how_to_go_on(
    toy_folder, tmp_path, start_script, number, status
):
    words = command(toy_folder, tmp_path)
    script = start_script(*words, "--workers", 1, "--checkpoint-every", 0)
    script.wait_until(lambda: "step/s" in script.printed)
    os.killpg(script.pid, number)  # as a terminal or a cluster does: to the workers, too
    assert script.wait() == status, script.printed
    assert "Traceback" not in script.printed
    (advice,) = [line for line in script.printed.splitlines() if "Resume with" in line]
    assert advice.startswith(f"Stopped by {number.name}")
    state = load_checkpoint(tmp_path / LAST)
    assert state["iteration"] > 0
    resumed = advice.split("Resume with: ")[1].split()
    assert resumed[:2] == ["python", "train.py"]
    parameters, given = read_command_line(Parameters, "", resumed[2:])
    assert (parameters.checkpoint, parameters.batch_size, parameters.workers) == ("auto", 2, 1)
    _, found = find_start(parameters)
    assert found["iteration"] == state["iteration"]
    assert "iterations" in given


def test_a_signal_during_validation_loses_nothing(
    toy_folder, tmp_path, whole, monkeypatch, default_handlers, capsys
):
    detect_objects = SSD300.detect_objects
    batches = []

    def interrupted(self, *args):
        batches.append(1)
        signal.raise_signal(signal.SIGTERM)
        return detect_objects(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(SSD300, "detect_objects", interrupted)
        with pytest.raises(SystemExit) as raised:
            main(settings(toy_folder, tmp_path))
    assert raised.value.code == 143
    assert len(batches) == 1
    assert "Resume with: python train.py --" in capsys.readouterr().out
    state = load_checkpoint(tmp_path / LAST)
    assert (state["epoch"], state["iteration"], state["n_images"]) == (0, 3, 6)
    main(settings(toy_folder, tmp_path, checkpoint="auto"))
    assert_same_training(tmp_path, whole)


def test_training_runs_in_a_thread_that_cannot_handle_signals(toy_folder, tmp_path):
    results = []
    thread = threading.Thread(
        target=lambda: results.append(main(settings(toy_folder, tmp_path, iterations=1 / 16)))
    )
    thread.start()
    thread.join()
    assert len(results) == 1


@pytest.mark.parametrize("parameter", ["checkpoint", "start_from"])
def test_a_run_stopped_before_its_first_checkpoint_begins_in_the_same_way_again(
    toy_folder, tmp_path, whole, monkeypatch, capsys, parameter
):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "load_data", interrupt)
    best = str(whole / BEST)
    with pytest.raises(SystemExit) as raised:
        main(settings(toy_folder, tmp_path, iterations=1, **{parameter: best}))
    assert raised.value.code == 130
    command = capsys.readouterr().out.split("Resume with: python train.py ")[1]
    parameters, _ = read_command_line(Parameters, "", command.split())
    assert getattr(parameters, parameter) == best
    assert parameters.checkpoint == (best if parameter == "checkpoint" else "")


def test_a_signal_while_a_checkpoint_is_written_waits_until_it_is_whole(
    toy_folder, tmp_path, monkeypatch, default_handlers, capsys
):
    save = torch.save
    saved = []

    def interrupted_save(state, file):
        saved.append(state["epoch"])
        if saved.count(1) == 1:  # the best checkpoint after the first epoch
            signal.raise_signal(signal.SIGTERM)
        save(state, file)

    monkeypatch.setattr("torch.save", interrupted_save)
    with pytest.raises(SystemExit) as raised:
        main(settings(toy_folder, tmp_path))
    assert raised.value.code == 143
    assert "--checkpoint auto" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / BEST)["epoch"] == 1
    assert load_checkpoint(tmp_path / LAST)["iteration"] == 4  # a step later
