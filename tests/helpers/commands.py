"""Whether commands in a text would be understood by the scripts that they name."""

import ast
import dataclasses
import importlib
import inspect
import re
import shlex
from pathlib import Path

from helpers.pages import ROOT
from runtime import read_command_line


def scripts():
    """The scripts that have a command line, by their paths in the repository."""
    files = [path for folder in (".", "img", "tests") for path in (ROOT / folder).glob("*.py")]
    return [
        path.relative_to(ROOT).as_posix()
        for path in sorted(files)
        if "\nclass Parameters" in path.read_text(encoding="utf-8")
    ]


def is_understood(command):
    """
    Whether the script in a command, or some script where there is none, takes all the rest.

    :param command: such as "python eval.py --top-k 10", or a part of one, such as "--top-k 10"
    """
    found = re.search(r"([\w/]+\.py)(?: |$)", command)
    if found:
        words = shlex.split(command[found.end() :])
        return found[1] in scripts() and _takes(load(found[1]), words, is_whole=True)
    words = shlex.split(command)
    if len(words) == 1 and "=" not in command:  # a flag that is named without its value
        return any(_has_flag(load(script), command) for script in scripts())
    return any(_takes(load(script), words, is_whole=False) for script in scripts())


def load(script):
    """The module of a script, by its path."""
    return importlib.import_module(Path(script).stem)


def _positional(module):
    """The names of the parameters that a script takes without a flag."""
    found = re.search(r"positional=(\(.*?\))", inspect.getsource(module))
    return ast.literal_eval(found[1]) if found else ()


def _has_flag(module, word):
    """Whether --x-y, or --no-x-y, is a flag; argparse would be content with its beginning."""
    name = word.removeprefix("--").removeprefix("no-").partition("=")[0].replace("-", "_")
    return name in {"help", *[field.name for field in dataclasses.fields(module.Parameters)]}


def _takes(module, words, is_whole):
    """Whether a script takes some words: all that it is given, or a part."""
    flags = [word for word in words if word.startswith("--")]
    if not all(_has_flag(module, flag) for flag in flags):
        return False
    positional = _positional(module) if is_whole else ()
    try:
        parameters, _ = read_command_line(module.Parameters, "", words, positional)
        if is_whole and hasattr(module, "check_parameters"):
            module.check_parameters(parameters)
    except SystemExit as stop:
        return stop.code == 0  # --help
    except ValueError:
        return False
    except OSError:
        return True  # that a reader's files are not here is no fault of the command
    return True
