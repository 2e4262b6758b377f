"""Pictures that were damaged, replaced or lost: --verify finds them all, and training stops at them with a message."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

import create_data_lists
import thin
from create_data_lists import Parameters, main
from datasets import PascalVOCDataset, collate_fn
from folders import CAR, annotation_xml, make_voc, read_lists
from runtime import describe_error
from toy_data import create_toy_data

pytestmark = pytest.mark.usefixtures("one_thread")


def draw(path, size=(100, 80), **options):
    """Write a picture of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def truncate(path):
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_by_note(path):
    path.write_text("a note instead of a picture")


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_small_picture(path):
    draw(path, (10, 8))


# ----------------------------------------------------------------------------------------------------------------- verify


@pytest.fixture
def voc(tmp_path):
    """A folder in VOC layout with pictures of 100 x 80 pixels: images 0 to 5 for training, 6 to 11 for testing."""
    annotations = [
        {str(number): annotation_xml(CAR) for number in numbers}
        for numbers in (range(6), range(6, 12))
    ]
    folder = Path(make_voc(tmp_path / "voc", *annotations))
    for path in (folder / "JPEGImages").iterdir():
        draw(path)
    return folder


def verify(folder, workers=0):
    """Run with --verify; returns the message of the error that stops it, line by line."""
    output_folder = folder.parent / "lists"
    parameters = Parameters(
        voc07_path=str(folder),
        voc12_path="",
        output_folder=str(output_folder),
        labels=("car",),
        verify=True,
        workers=workers,
    )
    with pytest.raises(ValueError, match="no lists were written") as raised:
        main(parameters)
    assert not output_folder.exists()
    return str(raised.value).splitlines()


def test_verify_writes_the_lists_where_all_is_well(voc, capsys):
    main(
        Parameters(
            voc07_path=str(voc),
            voc12_path="",
            output_folder=str(voc / "lists"),
            verify=True,
            workers=2,
        )
    )
    output = capsys.readouterr()
    assert "All 12 pictures are whole and agree with their annotations." in output.out
    assert "verifying: 100%" in output.err
    assert len(read_lists(voc / "lists")["TEST_images"]) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_verify_reports_all_faults_at_once(voc, workers):
    images, annotations = voc / "JPEGImages", voc / "Annotations"
    truncate(images / "0.jpg")
    replace_by_note(images / "1.jpg")
    replace_by_folder(images / "2.jpg")
    (images / "3.jpg").unlink()
    replace_by_small_picture(images / "4.jpg")
    draw(images / "5.png")
    (annotations / "6.xml").unlink()
    truncate(annotations / "7.xml")
    (annotations / "8.xml").write_text(annotation_xml(("car", (120, 1, 130, 9)), size=""))
    exif = Image.Exif()
    exif[0x0112] = 6  # held sideways: the upright picture has 80 x 100 pixels
    draw(images / "9.jpg", exif=exif)
    (annotations / "10.xml").write_text(annotation_xml(CAR, ("car", (1, 200, 9, 230))))
    title, *faults = verify(voc, workers)
    assert title == "12 faults in 12 images, and no lists were written:"
    expected = [  # first those that are known without opening a file
        r"JPEGImages.2\.jpg: no such file: bring it back, or take 2 out of ImageSets.Main.trainval\.txt",
        r"JPEGImages.3\.jpg: no such file: bring it back",
        r"JPEGImages.5\.jpg: 5\.png has the same name: take away",
        r"Annotations.6\.xml: no such file: bring it back, or take 6 out of ImageSets.Main.test\.txt",
        r"JPEGImages.0\.jpg: not readable as a picture \(image file is truncated.*\): replace it",
        r"JPEGImages.1\.jpg: not readable as a picture \(none of BMP, GIF, JPEG, PNG, TIFF, WEBP\): replace it",
        r"Annotations.4\.xml: states a size of 100 x 80 pixels, but .*JPEGImages.4\.jpg has 10 x 8 when it is upright",
        r"Annotations.4\.xml: object 1 \(car\) is outside the picture: correct its box, or remove it",
        r"Annotations.7\.xml: not readable as XML",
        r"Annotations.8\.xml: object 1 \(car\) is outside the picture",
        r"Annotations.9\.xml: states a size of 100 x 80 pixels, but .*JPEGImages.9\.jpg has 80 x 100 when it is upright",
        r"Annotations.10\.xml: object 2 \(car\) is outside the picture",
    ]
    for pattern, fault in zip(expected, faults, strict=True):
        assert re.search(pattern, fault), fault


def test_an_image_for_training_and_for_testing_is_verified_once(voc):
    (voc / "ImageSets/Main/test.txt").write_text("0\n")
    truncate(voc / "JPEGImages/0.jpg")
    assert verify(voc)[0].startswith("1 faults in 6 images")


def test_annotations_without_a_size_and_degenerate_boxes_are_no_faults(voc):
    (voc / "Annotations/0.xml").write_text(annotation_xml(CAR, ("car", (5, 5, 5, 9)), size=""))
    (voc / "Annotations/1.xml").write_text(
        annotation_xml(CAR, size="<size><width>0</width><height>0</height></size>")
    )
    main(
        Parameters(
            voc07_path=str(voc),
            voc12_path="",
            output_folder=str(voc / "lists"),
            verify=True,
            workers=0,
        )
    )


def test_the_script_ends_with_the_list_of_faults(voc):
    truncate(voc / "JPEGImages/0.jpg")
    command = [
        sys.executable, create_data_lists.__file__, "--voc07-path", voc, "--voc12-path=", "--output-folder", voc / "lists",
        "--verify", "--workers", "2",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last_lines = result.stderr.splitlines()[-2:]
    assert last_lines[0].endswith("error: 1 faults in 12 images, and no lists were written:")
    assert last_lines[1].startswith(f"{voc / 'JPEGImages/0.jpg'}: not readable as a picture")


def test_toy_data_have_nothing_to_verify(tmp_path):
    with pytest.raises(ValueError, match="--verify is for given data"):
        main(Parameters(toy=True, verify=True, toy_folder=str(tmp_path / "toy")))


def test_two_pictures_of_one_name_are_an_error_only_if_the_name_is_listed(voc):
    parameters = Parameters(voc07_path=str(voc), voc12_path="", output_folder=str(voc / "lists"))
    draw(voc / "JPEGImages/unlisted.png")
    draw(voc / "JPEGImages/unlisted.jpg")
    main(parameters)
    draw(voc / "JPEGImages/7.png")
    with pytest.raises(
        ValueError, match=r"7\.jpg: 7\.png has the same name: take away the one that is not meant"
    ):
        main(parameters)


# --------------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def small_toy(tmp_path_factory):
    """Toy data of two training images and one test image."""
    folder = tmp_path_factory.mktemp("small_toy")
    create_toy_data(folder, n_classes=2, n_train=2, n_test=1, seed=0)
    return folder


def spoilt_copy(small_toy, folder, name, spoil):
    """A copy of the toy data with one picture spoilt after its lists were made; and that picture's path."""
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
    ("name", "spoil", "workers", "reason"),
    [
        ("000002.jpg", truncate, 2, "not readable as a picture (image file is truncated"),
        (
            "000001.jpg",
            replace_by_small_picture,
            0,
            "has an object outside the picture (10 x 8 pixels): correct",
        ),
        ("000002.jpg", Path.unlink, 2, "no such file"),
        ("000003.jpg", replace_by_folder, 0, "no such file"),
        (
            "000003.jpg",
            replace_by_note,
            2,
            "not readable as a picture (none of BMP, GIF, ",
        ),  # found in the validation
    ],
)
def test_training_stops_with_the_path_and_the_remedy(
    small_toy, tmp_path, name, spoil, workers, reason
):
    path = spoilt_copy(small_toy, tmp_path / "toy", name, spoil)
    options = {
        "data-folder": tmp_path / "toy", "output-folder": tmp_path, "iterations": 1, "workers": workers, "device": "cpu",
    }  # fmt: skip
    given = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, thin.__file__, "train.py", "--no-pretrained", *given]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    message = re.split(r"[\r\n]", result.stderr.strip())[-1]  # a progress bar may stand before it
    assert f"error: {path}: {reason}" in message
    assert re.search(r"make the lists again", message)


@pytest.mark.parametrize(
    ("spoil", "workers"),
    [
        (truncate, 0),
        (truncate, 2),
        (replace_by_note, 0),
        (replace_by_folder, 0),
        (replace_by_small_picture, 0),
        (Path.unlink, 0),
    ],
)
@pytest.mark.parametrize(("split", "name"), [("TRAIN", "000002.jpg"), ("TEST", "000003.jpg")])
def test_a_picture_spoilt_during_training_is_named(
    small_toy, tmp_path, split, name, spoil, workers
):
    spoilt_copy(small_toy, tmp_path / "toy", name, lambda path: None)
    dataset = PascalVOCDataset(tmp_path / "toy", split)
    loader = DataLoader(
        dataset, 1, num_workers=workers, collate_fn=collate_fn, persistent_workers=workers > 0
    )
    assert len(list(loader)) == len(dataset)
    path = tmp_path / "toy/JPEGImages" / name
    spoil(path)
    with pytest.raises(ValueError, match=re.escape(str(path))) as raised:
        list(loader)
    message = describe_error(raised.value)
    assert message.startswith(f"error: {path}: ")
    assert "make the lists again (create_data_lists.py --verify finds all such faults)" in message
    assert "\n" not in message
