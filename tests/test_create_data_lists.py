"""The script create_data_lists.py: its command line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import create_data_lists as script
from create_data_lists import Parameters, main
from helpers.folders import read_lists
from helpers.toys import contents
from toy_data import create_toy_data


def test_toy_and_download_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match=r"--toy .* --download .*: choose one"):
        main(Parameters(toy=True, download=True, toy_folder=str(tmp_path / "toy")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": -1}, "--workers: expected 0 or more, got -1"),
        ({"labels": ("car", "Car")}, "labels: expected different class names"),
        ({"output_folder": "file"}, "--output-folder file: file is not a folder: name another"),
        ({"output_folder": "file/lists"}, "--output-folder file/lists: file is not a folder"),
        ({"download": True, "download_folder": "file"}, "--download-folder file: file is not a"),
        ({"voc07_path": "", "voc12_path": ""}, "both paths are empty: give at least one"),
        (
            {"download": True, "voc12_path": "VOCdevkit/../VOCdevkit/VOC2007/"},
            "are the same folder, and each of its images would be trained on twice",
        ),
    ],
)
def test_the_command_line_is_checked_before_anything_is_read(
    changes, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for name in ("find_images", "download_voc", "write_data_lists"):
        monkeypatch.setattr(script, name, lambda *_: pytest.fail("something was read"))
    with pytest.raises(ValueError, match=re.escape(message)):
        main(Parameters(**changes))
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_what_toy_data_do_not_use_is_not_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").touch()
    main(Parameters(toy=True, toy_classes=1, toy_images=1, toy_test_images=0))
    assert len(read_lists("toy")["TRAIN_images"]) == 1


def test_command_line_ends_with_a_message(tmp_path):
    command = [
        sys.executable,
        Path(script.__file__),
        "--voc07-path",
        "nowhere",
        "--voc12-path",
        "",
        "--output-folder",
        "lists",
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: nowhere: no such folder")
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_main_draws_the_toy_set(tmp_path):
    folder = tmp_path / "drawn"
    main(
        Parameters(
            toy=True, toy_folder=str(folder), toy_classes=3, toy_images=4, toy_test_images=2, seed=9
        )
    )
    create_toy_data(tmp_path / "same", 3, 4, 2, seed=9)
    assert contents(folder) == contents(tmp_path / "same")
    assert len(read_lists(folder)["TEST_images"]) == 2
