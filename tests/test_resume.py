"""Training that is interrupted, killed or short of disk, and goes on as if nothing had happened."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import checkpoints
import model
import train
from checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from runtime import InterruptedTrainingError
from safe_loading import WrongFileError
from train import Parameters, main

pytestmark = pytest.mark.usefixtures(
    "thin_base", "one_thread"
)  # thin as in the processes that are started

THIN = Path(__file__).with_name("thin.py")
LAST, BEST, PREVIOUS = (name + "checkpoint_ssd300.pth.tar" for name in ("", "BEST_", "previous_"))


def settings(toy_folder, output_folder, **changes):
    """Parameters for two epochs of three steps."""
    fixed = {
        "data_folder": str(toy_folder),
        "output_folder": str(output_folder),
        "pretrained": False,
        "device": "cpu",
    }
    schedule = {
        "batch_size": 2,
        "iterations": 0.375,
        "lr": 1e-4,
        "warm_up": 0.5,
        "decay_at": (0.7,),
        "precision": "float32",
    }
    return Parameters(**{**fixed, **schedule, "workers": 0, **changes})


def command(toy_folder, output_folder, *options):
    """The command line of a training of 80 steps in 27 epochs, as a user would type it."""
    fixed = f"train.py --data-folder {toy_folder} --output-folder {output_folder} --no-pretrained --device cpu --workers 0"
    schedule = "--batch-size 2 --iterations 5 --lr 1e-4 --precision float32 --checkpoint-every 1"
    return [sys.executable, str(THIN), *fixed.split(), *schedule.split(), *options]


def start(toy_folder, output_folder, *options, **arguments):
    """The same as a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        command(toy_folder, output_folder, *options), env=environment, **pipes, **arguments
    )


def wait_for(path, process, after=0.0):
    """Wait until a file is there that is younger than a moment, or until the process has ended."""
    while process.poll() is None:
        try:
            if os.stat(path).st_mtime > after:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.001)


def read_history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def assert_same_training(folder, other):
    """The last and the best checkpoints of two trainings are equal to the bit, times and paths aside."""
    for name in (LAST, BEST):
        ours, theirs = (torch.load(path / name, weights_only=True) for path in (folder, other))
        assert ours.keys() == theirs.keys()
        for state in (ours, theirs):
            for row in state["history"]:
                del row["images_per_second"]
            for parameter in ("output_folder", "checkpoint", "checkpoint_every", "workers"):
                del state["parameters"][parameter]
        assert_equal(ours, theirs)


def assert_equal(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_equal(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs, strict=True):
            assert_equal(our, their)
    else:
        assert ours == theirs or (ours != ours and theirs != theirs)


@pytest.fixture(scope="module")
def whole(toy_folder, tmp_path_factory, thin_base, one_thread):
    """The folder of a training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    main(settings(toy_folder, folder))
    return folder


class PullPlugError(BaseException):
    """Stands for the end of a process in the tests that stay in one."""


def pull_plug_at(monkeypatch, moment):
    """Let the process "end" when the n-th checkpoint is about to be written, half written, or written but not renamed."""
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

    monkeypatch.setattr(checkpoints.torch, "save", torch_save)
    monkeypatch.setattr(checkpoints.os, "replace", os_replace)


# -------------------------------------------------------------------------------------------------------- exact resuming


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "n", [2, 4, 6, 7, 9]
)  # the third is written before the validation, the fourth and fifth after it
def test_training_interrupted_anywhere_equals_training_that_was_not(
    toy_folder, tmp_path, whole, monkeypatch, n, workers
):
    place = ("before", "half", "after")[n % 3]
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
    write_history = train.write_history

    def write_or_end(history, output_folder):
        if len(history) == 2:  # the last epoch: after it nothing else would write the file again
            raise PullPlugError
        write_history(history, output_folder)

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
        train, "save_checkpoint", lambda path, state, **_: saved.append((path.name, dict(state)))
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
    assert last == [(0, 2, 4), (0, 3, 6), (1, 3, 0), (1, 4, 2), (1, 6, 6), (1, 6, 6), (2, 6, 0)]
    assert progress[2] == (True, 1, 3, 0)  # the best one is written before the last one


@pytest.mark.slow
def test_killed_at_random_moments(toy_folder, tmp_path):
    """
    22 times SIGKILL: at the start, some time after a checkpoint (of a step, of an epoch, during validation), and in the middle
    of writing one. Then it may end.
    """
    process = start(toy_folder, tmp_path / "whole")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    moments = random.Random(0)
    folder, n_killed, n_in_writing = tmp_path / "killed", 0, 0
    while n_killed < 22:
        began = time.time()
        process = start(toy_folder, folder, "--checkpoint", "auto", "--workers", str(n_killed % 2))
        if n_killed < 2:
            time.sleep(moments.uniform(0.5, 4.0))
        elif n_killed % 3 == 0:
            wait_for(folder / LAST, process, after=began)
            wait_for(folder / f"{LAST}.tmp", process, after=began)
            time.sleep(moments.uniform(0.0, 0.02))
        else:
            wait_for(folder / LAST, process, after=began)
            time.sleep(moments.uniform(0.0, 0.3))
        n_in_writing += any(path.name.endswith(".tmp") for path in folder.glob("*"))
        process.kill()
        process.communicate()
        n_killed += process.returncode == -signal.SIGKILL
        if process.returncode == 0:  # it had ended before it was killed
            break
    assert n_killed >= 20
    assert n_in_writing >= 3
    process = start(toy_folder, folder, "--checkpoint", "auto")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert_same_training(folder, tmp_path / "whole")
    assert list(folder.glob("*.tmp")) == []


# ------------------------------------------------------------------------------------------------------- being asked to stop


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_writes_a_checkpoint_and_says_how_to_go_on(
    toy_folder, tmp_path, number, status
):
    process = start(
        toy_folder, tmp_path, "--workers", "1", "--checkpoint-every", "0", start_new_session=True
    )
    for line in process.stdout:
        if "step/s" in line:
            break
    os.killpg(process.pid, number)  # as a terminal or a cluster does: to the workers, too
    output, _ = process.communicate(timeout=120)
    assert process.returncode == status, output
    assert "Traceback" not in output
    (advice,) = [line for line in output.splitlines() if "Go on with" in line]
    assert advice.startswith(f"Stopped by {number.name}")
    state = load_checkpoint(tmp_path / LAST)
    assert state["iteration"] > 0
    resumed = advice.split("Go on with: ")[1].split()
    assert resumed[:2] == ["python", "train.py"]
    parameters, given = train.read_command_line(Parameters, "", resumed[2:])
    assert (parameters.checkpoint, parameters.batch_size, parameters.workers) == ("auto", 2, 1)
    _, found = train.find_start(parameters)
    assert found["iteration"] == state["iteration"]
    assert "iterations" in given


def test_a_signal_during_validation_loses_nothing(toy_folder, tmp_path, whole, monkeypatch):
    def interrupted_validate(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("validation was not interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(train, "validate", interrupted_validate)
        with pytest.raises(InterruptedTrainingError):
            main(settings(toy_folder, tmp_path))
    state = load_checkpoint(tmp_path / LAST)
    assert (state["epoch"], state["iteration"], state["n_images"]) == (0, 3, 6)
    main(settings(toy_folder, tmp_path, checkpoint="auto"))
    assert_same_training(tmp_path, whole)


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(5)  # in which Python runs the handler, which raises


@pytest.fixture
def default_handler():
    """What Ctrl-C does in a terminal; a shell lets programs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_is_held_during_a_step_and_raises_after_it(default_handler):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    steps = []

    def take_steps():
        with model.Interruption() as interruption, interruption.hold():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            steps.append(interruption.number)
            assert (
                signal.getsignal(signal.SIGTERM),
                signal.getsignal(signal.SIGINT),
            ) == before  # a second one acts at once
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGINT)
            steps.append("saved")
            with interruption.hold(False):
                steps.append("validated")

    with pytest.raises(InterruptedTrainingError, match="SIGTERM"):
        take_steps()
    assert steps == [signal.SIGTERM, "saved"]
    released = model.Interruption()
    with (
        released,
        released.hold(),
        released.hold(False),
        pytest.raises(InterruptedTrainingError, match="SIGINT"),
    ):
        send(signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_training_runs_in_a_thread_that_can_not_handle_signals(toy_folder, tmp_path):
    results = []
    thread = threading.Thread(
        target=lambda: results.append(main(settings(toy_folder, tmp_path, iterations=1 / 16)))
    )
    thread.start()
    thread.join()
    assert len(results) == 1


# -------------------------------------------------------------------------------------------------- which checkpoint, and whether


def test_the_checkpoint_before_is_kept(toy_folder, tmp_path, whole):
    last, previous = load_checkpoint(whole / LAST), load_checkpoint(whole / PREVIOUS)
    assert (last["epoch"], last["n_images"]) == (2, 0)
    assert (previous["epoch"], previous["n_images"]) == (1, 6)
    assert list(whole.glob("*.tmp")) == []


def test_without_hard_links_the_checkpoint_before_is_renamed(tmp_path, monkeypatch):
    def link(*paths):
        raise OSError("no hard links here")

    monkeypatch.setattr(checkpoints.os, "link", link)
    for content in (1, 2, 3):
        save_checkpoint(tmp_path / LAST, {"a": content}, keep_previous=True)
    assert torch.load(tmp_path / LAST, weights_only=True) == {"a": 3}
    assert torch.load(tmp_path / PREVIOUS, weights_only=True) == {"a": 2}


def copy_of(folder, target, pattern="*"):
    target.mkdir()
    for path in folder.glob(pattern):
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_auto_takes_the_newest_readable_one(toy_folder, tmp_path, whole, capsys):
    folder = copy_of(whole, tmp_path / "copy")
    for path in folder.iterdir():
        os.utime(path, (0, 0))  # times are not what it goes by: copies have others
    assert newest_checkpoint(folder)[0].name == LAST
    (folder / LAST).write_bytes((folder / LAST).read_bytes()[:-1000])
    path, state = newest_checkpoint(folder)
    best = load_checkpoint(folder / BEST)
    assert (state["epoch"], state["n_images"]) >= (1, 6)
    assert path.name in ((BEST,) if best["epoch"] == 2 else (PREVIOUS, BEST))
    assert "Passed over" in capsys.readouterr().out
    main(settings(toy_folder, folder, checkpoint="auto"))
    assert_same_training(folder, whole)


def test_auto_begins_anew_where_there_is_none_and_stops_where_none_can_be_read(
    toy_folder, tmp_path, capsys
):
    (row,) = main(settings(toy_folder, tmp_path / "new", checkpoint="auto", iterations=1 / 16))
    assert row["epoch"] == 1
    assert "beginning anew" in capsys.readouterr().out
    for path in (tmp_path / "new").glob("*.tar"):
        path.write_bytes(b"PK")
    with pytest.raises(
        WrongFileError, match=r"none of its checkpoints can be read.*checkpoint_ssd300"
    ):
        main(settings(toy_folder, tmp_path / "new", checkpoint="auto"))


def test_a_truncated_checkpoint_names_itself_and_auto(toy_folder, tmp_path, whole):
    folder = copy_of(whole, tmp_path / "copy")
    (folder / LAST).write_bytes((folder / LAST).read_bytes()[:1000])
    with pytest.raises(
        WrongFileError, match=r"copy/checkpoint_ssd300\.pth\.tar: .*--checkpoint auto"
    ):
        main(settings(toy_folder, tmp_path / "resumed", checkpoint=str(folder / LAST)))


def test_other_lists_are_refused(toy_folder, tmp_path, whole):
    moved = copy_of(toy_folder, tmp_path / "moved", "*.json")
    images = json.loads((moved / "TRAIN_images.json").read_text())
    (tmp_path / "elsewhere").symlink_to(Path(images[0]).parent)
    (moved / "TRAIN_images.json").write_text(
        json.dumps([str(tmp_path / "elsewhere" / Path(path).name) for path in images])
    )
    parameters = settings(moved, tmp_path / "out", checkpoint=str(whole / LAST))
    fingerprints = {dataset.split: dataset.fingerprint() for dataset in train.load_data(parameters)}
    assert (
        fingerprints == load_checkpoint(whole / LAST)["data"]
    )  # a folder that was moved is the same data

    for split in ("TRAIN", "TEST"):
        objects = json.loads((moved / f"{split}_objects.json").read_text())
        objects[0]["boxes"][0][0] += 1
        (moved / f"{split}_objects.json").write_text(json.dumps(objects))
        with pytest.raises(
            ValueError,
            match=rf"checkpoint_ssd300\.pth\.tar was trained with other lists.*objects of {split}",
        ):
            main(parameters)
        objects[0]["boxes"][0][0] -= 1
        (moved / f"{split}_objects.json").write_text(json.dumps(objects))


# ------------------------------------------------------------------------------------------------------------ the disk


def test_a_full_disk_stops_with_an_error_and_keeps_the_checkpoint(toy_folder, tmp_path, whole):
    folder = copy_of(whole, tmp_path / "copy")
    before = (folder / LAST).read_bytes()
    program = "\n".join((
        "import resource, runpy, signal, sys",
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2)",
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)",
        "del sys.argv[0]",
        "runpy.run_path(sys.argv[0], run_name='__main__')",
    ))  # fmt: skip
    options = command(
        toy_folder, folder, "--checkpoint", "auto", "--warm-up", "0.5", "--decay-at", "0.7"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *options[1:]], capture_output=True, text=True
    )
    assert result.returncode == 1
    error = result.stderr.strip().splitlines()[-1]
    assert error.startswith(f"error: {folder / LAST}: can not be written")
    assert "make room" in error
    assert (folder / LAST).read_bytes() == before
    assert list(folder.glob("*.tmp")) == []


def test_too_little_room_stops_before_the_training(toy_folder, tmp_path, monkeypatch):
    usage = train.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(train.shutil, "disk_usage", lambda path: usage._replace(free=10_000_000))
    with pytest.raises(OSError, match=r"checkpoints take \d+ MB more than are free"):
        main(settings(toy_folder, tmp_path / "out"))


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(),
    reason="needs a folder that nobody can write in, as Linux's /proc",
)
def test_a_folder_that_can_not_be_written_in_stops_before_the_training(toy_folder):
    for folder in ("/proc/training", "/proc/self"):
        with pytest.raises(
            OSError, match=rf"{folder}: nothing can be written there .*--output-folder"
        ):
            main(settings(toy_folder, folder))


def test_all_of_the_progress_is_in_a_checkpoint(whole):
    state = load_checkpoint(whole / LAST)
    assert {item.name for item in dataclasses.fields(train.Progress)} <= set(state)
