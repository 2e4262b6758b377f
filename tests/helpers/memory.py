"""Calls a function with hostile files in a process of its own, and measures the memory it takes."""

import subprocess
import sys

import pytest

from helpers.pages import ROOT

has_memory_meter = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows does not tell how much memory a process took"
)

# Prints three lines for each file: its path, what came of it, and the memory at its height so far
PROGRAM = """
import resource, sys
sys.path.insert(0, {root!r})
from {module} import {function}
def height():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = height()
for path in sys.argv[1:]:
    print(path, flush=True)  # the last one, if it crashes
    try:
        {function}(path{arguments})
        print("was read")
    except ValueError as error:
        print(error)
    print(height() - before)
"""


def read_and_measure(module, function, paths, arguments=""):
    """
    Call a function of a module with each of some files.

    :param arguments: what else the function takes, such as ", 3"
    :return: for each file the message of the ValueError, or "was read", and the bytes that the
        process had taken at most until then
    """
    program = PROGRAM.format(root=str(ROOT), module=module, function=function, arguments=arguments)
    command = [sys.executable, "-c", program, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = result.stdout.splitlines()
    assert result.returncode == 0, (lines[-2:], result.stderr)
    assert lines[::3] == list(map(str, paths))
    return list(zip(lines[1::3], map(int, lines[2::3]), strict=True))
