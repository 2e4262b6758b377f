"""
Runs a script as the whole of a process, and can let it fail:

    python tests/helpers/processes.py train.py --data-folder toy ...

FAIL_RANK and FAIL_STEP in the environment make one of several processes fail in a step.
"""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the program

import model

ROOT = Path(__file__).resolve().parents[2]


def fail_in_step(number):
    """Let this process fail when it is about to compute a loss for that many times."""
    compare = model.MultiBoxLoss.compare
    calls = []

    def fail(self, *args):
        calls.append(1)
        if len(calls) == number:
            raise ValueError("this process fails on purpose")
        return compare(self, *args)

    model.MultiBoxLoss.compare = fail


def run(words):
    """Run a script in this process, as `python word word ...` would, but without drawing curves."""
    sys.argv = list(words)
    if os.environ.get("RANK", "0") == os.environ.get("FAIL_RANK"):
        fail_in_step(int(os.environ["FAIL_STEP"]))
    with mock.patch("history.draw_curves", return_value=b""):  # takes as long as many steps
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def run_as_process(words, output, environment):
    """
    The same as the whole of a process, which leads a group of its own.

    :param output: file for all that is printed
    :param environment: {name: value} to set
    """
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the default, not how this one was started
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    status = 0
    try:
        run(words)
    except SystemExit as stop:
        status = stop.code
    if isinstance(status, str):  # an error
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(status or 0)  # the garbage collector would wait ten seconds for each worker


if __name__ == "__main__":
    run(sys.argv[1:])
