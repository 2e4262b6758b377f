"""The repository as a whole: importing does nothing, imports run in one direction, and the README tells the truth."""

import ast
import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Each file may import from those before it
LAYERS = (
    {"utils"},
    {"model", "datasets"},
    {"checkpoints"},
    {"convert_weights", "create_data_lists", "eval", "detect", "train"},
)
SCRIPTS = sorted(set().union(*LAYERS))
ENTRIES = sorted(LAYERS[-1])


def source(script):
    return (ROOT / f"{script}.py").read_text(encoding="utf-8")


def test_the_list_of_scripts_is_complete():
    assert {path.stem for path in ROOT.glob("*.py")} == set(SCRIPTS)


def test_importing_does_nothing(tmp_path):
    program = f"""
import random, sys
import numpy, torch
before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.get_default_dtype()
sys.path.insert(0, {str(ROOT)!r})
for script in {SCRIPTS!r}:
    __import__(script)
after = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.get_default_dtype()
assert before == after
assert "matplotlib" not in sys.modules
assert not torch.cuda.is_initialized()
"""
    result = subprocess.run(
        [sys.executable, "-B", "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_imports_run_one_way(script):
    layer = next(number for number, names in enumerate(LAYERS) if script in names)
    allowed = set().union(*LAYERS[:layer]) | (LAYERS[-1] if script in ENTRIES else set())
    for node in ast.walk(ast.parse(source(script))):
        if isinstance(node, ast.ImportFrom):
            assert node.names[0].name != "*"
            assert node.module not in SCRIPTS or node.module in allowed
        if isinstance(node, ast.Import):
            assert all(alias.name not in SCRIPTS or alias.name in allowed for alias in node.names)


@pytest.mark.parametrize("script", ENTRIES)
def test_help_explains_every_parameter(script):
    result = subprocess.run(
        [sys.executable, ROOT / f"{script}.py", "--help"], capture_output=True, text=True
    )
    assert result.returncode == 0
    parameters = importlib.import_module(script).Parameters
    for field in dataclasses.fields(parameters):
        positional = {"images": "IMAGE", "source": "SOURCE", "output": "OUTPUT"}
        flag = positional.get(field.name, "--" + field.name.replace("_", "-"))
        (explanation,) = re.findall(
            rf"^    {field.name}: .*?  # (.+)$", source(script), flags=re.MULTILINE
        )
        assert flag in result.stdout
        assert "".join(explanation.split()) in "".join(result.stdout.split())


def test_every_departure_from_the_paper_stands_in_the_remarks():
    tags = set(re.findall(r"DEVIATION\(([\w-]+)\)", "".join(map(source, SCRIPTS))))
    remarks = README[README.index("## Remarks") :].split("\n## ")[
        0
    ]  # up to the next part of the tutorial
    listed = re.findall(r"^\| `([\w-]+)` \|", remarks, flags=re.MULTILINE)
    assert sorted(listed) == sorted(tags)


def test_the_readmes_table_of_files_names_what_exists():
    section = README[README.index("## The files") : README.index("## Remarks")]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", section, flags=re.MULTILINE)
    rows = [(files, content) for files, content in rows if ".py" in files]
    assert len(rows) >= 6
    for files, content in rows:
        for file in re.findall(r"`([\w/.]+)`", files):
            assert (ROOT / file).exists()
        (script, *others) = re.findall(r"`(\w+)\.py`", files)
        names = [] if others else re.findall(r"`(\w+)`", content)
        for name in names:
            assert hasattr(importlib.import_module(script), name), name


def test_the_readme_is_finished():
    assert re.findall(r"\b(?:[A-Z]+_TEXT|TODO|TBD)\b", README) == []
