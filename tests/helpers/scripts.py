"""Runs scripts with a command line, in this process or in one of their own."""

import multiprocessing
import os
import runpy
import sys
import time
import traceback
from unittest import mock

from helpers.processes import ROOT, run_as_process
from runtime import describe_error


def run_script(name, *arguments):
    """
    Run a script in this process, as `python name argument ...` would.

    :return: its exit status; for an error, its message, which Python would print
    """
    with mock.patch.object(sys, "argv", [name, *map(str, arguments)]):
        try:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        except SystemExit as stop:
            return stop.code
    return 0


def message_of_error(function, *arguments):
    """
    What a script says about the error that a function raises. pytest.raises would keep the error
    with all it refers to, and a DataLoader that is left to the garbage collector takes ten seconds
    to end its workers: here all is cleared away.
    """
    try:
        function(*arguments)
    except (OSError, ValueError) as error:
        message = describe_error(error)
        traceback.clear_frames(error.__traceback__)
        return message
    return ""


class Script:
    """
    A script that runs in a process of its own. That is forked from a process that has imported all
    it needs, so that it starts in a moment instead of three seconds.
    """

    def __init__(self, words, output, environment):
        """For the arguments see run_as_process."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["helpers.processes", "train"])
        self.output = output
        arguments = (words, str(output), environment)
        self.process = context.Process(target=run_as_process, args=arguments)
        # For the process that all are forked from, which is started with the first one
        folders = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        with mock.patch.dict(os.environ, PYTHONPATH=folders, OMP_NUM_THREADS="1"):
            self.process.start()
        self.pid = self.process.pid

    @property
    def is_running(self):
        return self.process.is_alive()

    @property
    def printed(self):
        """All that was printed so far."""
        return self.output.read_text() if self.output.exists() else ""

    def wait(self, timeout=120):
        """Wait for the end; return the exit status, which is negative if a signal ended it."""
        self.process.join(timeout)
        assert not self.is_running, f"still running after {timeout} seconds:\n{self.printed}"
        return self.process.exitcode

    def kill(self):
        """SIGKILL, which no process can put off."""
        self.process.kill()
        return self.wait()

    def wait_until(self, condition):
        """Wait until a condition holds, or until the process has ended."""
        while self.is_running and not condition():
            time.sleep(0.001)
