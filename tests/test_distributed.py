"""
Several processes that train together, on one machine and without a GPU, follow the training of a
single one.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from unittest import mock

import pytest
import torch

from helpers import processes
from helpers.runs import WIDTH
from runtime import read_command_line
from toy_data import create_toy_data
from train import Parameters, main

LAST = "checkpoint_ssd300.pth.tar"


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """
    Ten training and five test images: batches of four leave two and one, fewer than three processes
    have shares for.
    """
    folder = tmp_path_factory.mktemp("ten")
    create_toy_data(folder, n_classes=2, n_train=10, n_test=5, seed=1)
    return folder


def training_words(data_folder, output_folder):
    """The command line of 24 steps of 4 images (the last of each epoch has 2), in 8 epochs."""
    return (
        f"train.py --data-folder {data_folder} --output-folder {output_folder} --no-pretrained "
        f"--width {WIDTH} --device cpu --workers 0 --batch-size 4 --iterations 3 --lr 2e-5 "
        "--precision float32 --warm-up 0 --decay-at 1"
    ).split()


def start_by_torchrun(n_processes, words, file):
    """Start several processes as a user does; all that they print goes into a file."""
    torchrun = f"-m torch.distributed.run --standalone --nproc_per_node={n_processes}".split()
    command = [sys.executable, *torchrun, processes.__file__, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = {"stdout": file, "stderr": file, "start_new_session": True}
    return subprocess.Popen(command, env=environment, **options)


def free_port():
    """A port of this machine at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def run_together(start_script):
    """
    A function that runs a script in several processes with the environment that torchrun makes, but
    without torchrun, which takes five seconds, and returns what was printed.
    """

    def run(n_processes, words, **environment):
        environment |= {
            "TORCHELASTIC_RUN_ID": "tests",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(n_processes),
        }
        scripts = [
            start_script(*words, **environment, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank in range(n_processes)
        ]
        printed = []
        for script in scripts:
            assert script.wait() == 0, script.printed
            printed.append(script.printed)
        return "".join(printed)

    return run


def read_history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def assert_close_histories(ours, theirs):
    for our, their in zip(ours, theirs, strict=True):
        for name in set(their) - {"images_per_second"}:
            # Two detections with nearly equal scores may change places
            tolerance = 1e-4 if name == "mAP" else 1e-6
            expected = pytest.approx(their[name], rel=2e-5, abs=tolerance)
            assert our[name] == expected, (our["epoch"], name)


@pytest.fixture(scope="module")
def alone(data_folder, tmp_path_factory, no_curves, one_thread):
    """The folder of a run by a single process."""
    folder = tmp_path_factory.mktemp("alone")
    words = training_words(data_folder, folder)
    main(read_command_line(Parameters, "", words[1:])[0])
    return folder


def assert_follows(folder, alone):
    """A run of several processes had the losses and ends with the weights of a single one."""
    together = read_history(folder)
    assert together[-1]["iteration"] == 24
    assert_close_histories(together, read_history(alone))
    ours, theirs = (torch.load(path / LAST, weights_only=True)["model"] for path in (folder, alone))
    assert ours.keys() == theirs.keys()  # without the prefix that DistributedDataParallel gives
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("n_processes", [2, 3])
def test_processes_together_follow_a_single_one(
    data_folder, alone, tmp_path, run_together, n_processes
):
    printed = run_together(n_processes, training_words(data_folder, tmp_path))
    assert_follows(tmp_path, alone)
    assert printed.count("epoch 1: loss") == 1  # one process speaks for all
    assert printed.count("mAP (11-point)") == 1
    assert f"by {n_processes} processes" in printed


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(data_folder, alone, tmp_path, run_together):
    """Two processes by torchrun until one of them fails, which ends the run instead of a hang."""
    words = training_words(data_folder, tmp_path)
    words += ["--checkpoint", "auto", "--checkpoint-every", "2"]
    with (
        open(tmp_path / "output", "w+") as file,
        mock.patch.dict(os.environ, FAIL_RANK="1", FAIL_STEP="11"),
    ):  # in step 9, as validations count too
        assert start_by_torchrun(2, words, file).wait(timeout=120) != 0
    assert "this process fails on purpose" in (tmp_path / "output").read_text()
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert state["iteration"] == 8
    run_together(3, words)
    assert_follows(tmp_path, alone)


@pytest.mark.slow
def test_all_processes_stop_after_the_same_step(data_folder, tmp_path):
    words = training_words(data_folder, tmp_path)
    words += ["--iterations", "40", "--checkpoint", "auto", "--workers", "1"]
    history = tmp_path / "history.jsonl"
    with open(tmp_path / "output", "w+") as file:
        process = start_by_torchrun(2, words, file)
        while process.poll() is None and not (history.is_file() and history.stat().st_size):
            time.sleep(0.01)
        # torchrun sends it on to the others, which so get it twice
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=120) != 0
    printed = (tmp_path / "output").read_text()
    assert printed.count("Stopped by SIGTERM. Resume with: torchrun ... train.py ") == 1
    assert "Connection closed" not in printed
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert 3 <= state["iteration"] < 320


@pytest.mark.slow
def test_an_evaluation_is_shared_out_and_gathered_exactly(
    data_folder, alone, run_together, start_script
):
    words = f"eval.py --data-folder {data_folder} --checkpoint {alone / LAST} --batch-size 2"
    words = [*words.split(), "--device", "cpu", "--workers", "0"]
    single = start_script(*words)
    assert single.wait() == 0, single.printed
    table = single.printed[single.printed.index("class ") :]
    assert "mAP (11-point)" in table
    for n_processes in (2, 4):  # three batches: one of four processes has none
        assert table in run_together(n_processes, words)
