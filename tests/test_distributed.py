"""Several processes that train together, on one machine and without a GPU, follow the training of a single one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from toy_data import create_toy_data

THIN = Path(__file__).with_name("thin.py")
LAST = "checkpoint_ssd300.pth.tar"


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """Ten training and five test images: batches of four leave two and one, fewer than three processes have shares for."""
    folder = tmp_path_factory.mktemp("ten")
    create_toy_data(folder, n_classes=2, n_train=10, n_test=5, seed=1)
    return folder


def arguments(world_size, script, *options):
    """The command line of a script by torchrun, or without it if world_size is None."""
    torchrun = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world_size}"]
        if world_size
        else []
    )
    return [
        sys.executable,
        *torchrun,
        str(THIN),
        script,
        "--device",
        "cpu",
        "--workers",
        "0",
        *options,
    ]


def run(world_size, script, *options, check=True, **environment):
    """Run a script to its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = arguments(world_size, script, *options)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def training_options(data_folder, output_folder):
    """24 steps of 4 images (the last of each epoch has 2), in 8 epochs."""
    schedule = "--no-pretrained --batch-size 4 --iterations 3 --lr 1e-4 --precision float32 --warm-up 0 --decay-at 2"
    return [
        "--data-folder",
        str(data_folder),
        "--output-folder",
        str(output_folder),
        *schedule.split(),
    ]


def train(world_size, data_folder, output_folder, *options, **settings):
    return run(
        world_size, "train.py", *training_options(data_folder, output_folder), *options, **settings
    )


def start(world_size, data_folder, output_folder, *options, **settings):
    """The same as a process that runs on."""
    command = arguments(
        world_size, "train.py", *training_options(data_folder, output_folder), *options
    )
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **settings)


def read_history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def assert_close_histories(ours, theirs):
    for our, their in zip(ours, theirs, strict=True):
        for name in set(their) - {"images_per_second"}:
            assert our[name] == pytest.approx(their[name], rel=2e-4, abs=1e-6), (our["epoch"], name)


@pytest.fixture(scope="module")
def alone(data_folder, tmp_path_factory):
    """The folder of a training by a single process."""
    folder = tmp_path_factory.mktemp("alone")
    train(None, data_folder, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_follow_a_single_one(data_folder, alone, tmp_path, world_size):
    result = train(world_size, data_folder, tmp_path)
    together, single = read_history(tmp_path), read_history(alone)
    assert together[-1]["iteration"] == 24
    assert_close_histories(together, single)
    ours, theirs = (
        torch.load(folder / LAST, weights_only=True)["model"] for folder in (tmp_path, alone)
    )
    assert (
        ours.keys() == theirs.keys()
    )  # without the prefix that DistributedDataParallel gives names
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=1e-3, atol=1e-5)
    assert result.stdout.count("epoch 1: loss") == 1  # one process speaks for all
    assert result.stdout.count("mAP (11-point)") == 1
    assert f"by {world_size} processes" in result.stdout


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(data_folder, alone, tmp_path):
    """Two processes until one of them fails; then three; then one. The failure ends the run instead of a hang."""
    options = "--checkpoint", "auto", "--checkpoint-every", "2"
    # In step 9, as validations count too
    failed = train(2, data_folder, tmp_path, *options, check=False, FAIL_RANK="1", FAIL_STEP="11")
    assert failed.returncode != 0
    assert "this process fails on purpose" in failed.stderr
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert state["iteration"] == 8
    train(3, data_folder, tmp_path, *options, "--iterations", "2")
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert state["iteration"] == 16
    single = read_history(alone)
    assert_close_histories(read_history(tmp_path)[:5], single[:5])


@pytest.mark.slow
def test_all_processes_stop_after_the_same_step(data_folder, tmp_path):
    options = "--iterations", "40", "--checkpoint", "auto", "--workers", "1"
    with open(tmp_path / "output", "w+") as output:
        process = start(
            2, data_folder, tmp_path, *options, stdout=output, stderr=output, start_new_session=True
        )
        while process.poll() is None and not (tmp_path / "history.jsonl").is_file():
            time.sleep(0.01)
        os.killpg(
            process.pid, signal.SIGTERM
        )  # torchrun sends it on to the others, which so get it twice
        assert process.wait(timeout=120) != 0
        output.seek(0)
        printed = output.read()
    assert printed.count("Stopped by SIGTERM. Go on with: torchrun ... train.py ") == 1
    assert "Connection closed" not in printed
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert 3 <= state["iteration"] < 320


@pytest.mark.slow
def test_an_evaluation_is_shared_out_and_gathered_exactly(data_folder, alone):
    options = (
        "--data-folder",
        str(data_folder),
        "--checkpoint",
        str(alone / LAST),
        "--batch-size",
        "2",
    )
    single = run(None, "eval.py", *options).stdout
    assert "mAP (11-point)" in single
    for world_size in (2, 4):  # three batches: one of four processes has none
        assert run(world_size, "eval.py", *options).stdout == single
