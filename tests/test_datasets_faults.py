"""Images that came to harm after their lists were made: reading stops with a message."""

import json
import re
import shutil
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import train
from datasets import PascalVOCDataset, collate_fn
from helpers.damage import replace_by_folder, replace_by_note, replace_by_small_image, truncate
from helpers.runs import WIDTH, settings
from helpers.scripts import message_of_error
from toy_data import create_toy_data

# ----------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def small_toy(tmp_path_factory):
    """Toy data of two training images and one test image."""
    folder = tmp_path_factory.mktemp("small_toy")
    create_toy_data(folder, n_classes=2, n_train=2, n_test=1, seed=0)
    return folder


def spoilt_copy(small_toy, folder, name, spoil):
    """
    Copy the toy data, whose lists are made already, and spoil one image.

    :return: the path of that image
    """
    shutil.copytree(small_toy, folder)
    for path in folder.glob("*_images.json"):
        path.write_text(
            json.dumps(
                [
                    str(folder / "JPEGImages" / Path(image).name)
                    for image in json.loads(path.read_text())
                ]
            )
        )
    spoil(folder / "JPEGImages" / name)
    return folder / "JPEGImages" / name


@pytest.mark.parametrize(
    ("name", "spoil", "workers", "message"),
    [
        ("000002.jpg", truncate, 2, "not readable as an image (image file is truncated"),
        (
            "000001.jpg",
            replace_by_small_image,
            0,
            "has an object outside the image (10 x 8 pixels)",
        ),
        ("000002.jpg", Path.unlink, 2, "no such file"),
        ("000003.jpg", replace_by_folder, 0, "no such file"),  # found in the validation
        ("000003.jpg", replace_by_note, 2, "not readable as an image (none of BMP, GIF, "),
    ],
)
def test_training_stops_with_the_path_and_the_remedy(
    small_toy, tmp_path, no_curves, name, spoil, workers, message
):
    path = spoilt_copy(small_toy, tmp_path / "toy", name, spoil)
    parameters = settings(tmp_path / "toy", tmp_path, iterations=1 / 16, workers=workers)
    error = message_of_error(train.main, parameters)
    assert error.startswith(f"error: {path}: {message}")
    assert "make the lists again" in error


def test_the_script_ends_with_the_path_in_its_last_line(small_toy, tmp_path, start_script):
    path = spoilt_copy(small_toy, tmp_path / "toy", "000002.jpg", truncate)
    folders = ("--data-folder", tmp_path / "toy", "--output-folder", tmp_path)
    options = ("--no-pretrained", "--width", WIDTH, "--device", "cpu")
    script = start_script("train.py", *folders, *options)
    assert script.wait() == 1
    assert "Traceback" not in script.printed
    message = re.split(r"[\r\n]", script.printed.strip())[-1]  # a progress bar may precede it
    assert f"error: {path}: not readable as an image" in message
    assert "make the lists again" in message


@pytest.mark.parametrize(
    ("spoil", "workers"),
    [
        (truncate, 0),
        (truncate, 2),
        (replace_by_note, 0),
        (replace_by_folder, 0),
        (replace_by_small_image, 0),
        (Path.unlink, 0),
    ],
)
@pytest.mark.parametrize(("split", "name"), [("TRAIN", "000002.jpg"), ("TEST", "000003.jpg")])
def test_an_image_spoilt_during_training_is_named(small_toy, tmp_path, split, name, spoil, workers):
    spoilt_copy(small_toy, tmp_path / "toy", name, lambda path: None)
    dataset = PascalVOCDataset(tmp_path / "toy", split)
    loader = DataLoader(
        dataset, 1, num_workers=workers, collate_fn=collate_fn, persistent_workers=workers > 0
    )
    assert len(list(loader)) == len(dataset)
    path = tmp_path / "toy/JPEGImages" / name
    spoil(path)
    message = message_of_error(list, loader)
    assert message.startswith(f"error: {path}: ")
    assert "make the lists again (create_data_lists.py --verify finds all such faults)" in message
    assert "\n" not in message
