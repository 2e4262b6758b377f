"""The repository as a whole: what importing does, who imports whom, and what no file contains."""

import ast
import dataclasses
import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each file may import from those in the lines before its own
ORDER = (
    ("annotations", "downloads", "runtime", "toy_drawings"),
    ("data_yaml", "detection_files", "voc_folders"),
    ("data_folders", "data_lists"),
    ("utils",),
    ("coco_metric", "datasets", "diagnosis", "history", "model"),
    ("drawing", "films", "safe_loading"),
    ("image_paths", "published_weights", "report"),
    ("checkpoints",),
    ("resume",),
    ("preview", "toy_data"),
    ("convert_weights", "create_data_lists", "detect", "eval"),
    ("export", "train"),  # which evaluates and draws detections as well
)
SCRIPTS = [script for line in ORDER for script in line]
ENTRIES = ["convert_weights", "create_data_lists", "detect", "eval", "export", "train"]


def imports(script):
    """The modules that a script imports, anywhere in it: {"torch.nn.functional", ...}."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / f"{script}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.names[0].name != "*"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def files():
    """The files of the repository, without what git ignores."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    result = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        pytest.skip("not a git repository")
    paths = [ROOT / name for name in result.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


# ------------------------------------------------------------------------------------------ imports


def test_the_list_of_scripts_is_complete():
    assert {path.stem for path in ROOT.glob("*.py")} == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_tests_that_begin_with_its_name(script):
    assert list((ROOT / "tests").glob(f"test_{script}*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_imports_run_one_way(script):
    (line,) = [number for number, names in enumerate(ORDER) if script in names]
    allowed = {name for names in ORDER[:line] for name in names}
    assert imports(script) & set(SCRIPTS) <= allowed


def test_the_network_knows_nothing_of_machines():
    machinery = {"os", "signal", "threading", "torch.distributed"}
    assert imports("model") & machinery == set()


def test_importing_does_nothing(tmp_path):
    program = f"""
import random, sys
import numpy, torch
def state():
    generators = random.getstate(), numpy.random.get_state()[1].tolist()
    return generators, torch.get_rng_state().tolist(), torch.get_default_dtype()
before = state()
sys.path.insert(0, {str(ROOT)!r})
for script in {SCRIPTS!r}:
    __import__(script)
assert before == state()
assert not {{"matplotlib", "onnx", "onnxscript", "onnxruntime"}} & set(sys.modules)
assert not torch.cuda.is_initialized()
"""
    command = [sys.executable, "-B", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------ command lines


@pytest.mark.parametrize("script", ENTRIES)
def test_help_explains_every_parameter(script, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    entries = {}
    for entry in re.split(r"\n  (?=[\w-])", shown):
        flag, _, explanation = re.sub(r"\s{2,}", "\n", entry).partition("\n")
        entries[re.split(r"[ ,]", flag)[0]] = re.sub(r"\(default:.*", "", explanation)
    for field in dataclasses.fields(importlib.import_module(script).Parameters):
        names = {"--" + field.name.replace("_", "-"), field.name.upper().removesuffix("S")}
        (name,) = names & entries.keys()
        assert len(entries[name].split()) >= 3, f"{name}: no explanation"


# ----------------------------------------------------------------------------------- what is stored


def test_no_file_is_large():
    assert [path.name for path in files() if path.stat().st_size > 400_000] == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<![\w.)/-])/(?:home|Users|root|work|workspace|mnt|srv|opt)/\w",  # somebody's machine
        r"--(?:extra-)?index-url|--trusted-host|--find-links",  # where packages come from
    ],
)
def test_no_file_knows_the_machine_it_was_written_on(pattern):
    texts = [path for path in files() if path.suffix not in (".png", ".gif", ".jpg")]
    found = [
        path.name
        for path in texts
        if path != Path(__file__) and re.search(pattern, path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_requirements_name_packages_and_their_oldest_versions_only():
    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert re.fullmatch(r"-r \S+\.txt|[\w-]+>=[\d.]+", line), f"{path.name}: {line}"
