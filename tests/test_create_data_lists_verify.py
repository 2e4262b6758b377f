"""create_data_lists.py --verify finds all images that were damaged, replaced or lost."""

from pathlib import Path

import pytest
from PIL import Image

from create_data_lists import Parameters, main
from helpers.damage import (
    draw,
    replace_by_folder,
    replace_by_note,
    replace_by_small_image,
    truncate,
)
from helpers.folders import CAR, annotation_xml, assert_each_matches, make_voc, read_lists
from helpers.scripts import message_of_error, run_script


@pytest.fixture
def voc(tmp_path):
    """
    A folder in VOC layout with images of 100 x 80 pixels: 0 to 5 are for training, 6 to 11 for
    testing.
    """
    annotations = [
        {str(number): annotation_xml(CAR) for number in numbers}
        for numbers in (range(6), range(6, 12))
    ]
    folder = Path(make_voc(tmp_path / "voc", *annotations))
    for path in (folder / "JPEGImages").iterdir():
        draw(path)
    return folder


def verifying(folder, output_folder, **changes):
    """Parameters that verify one folder."""
    folders = {"voc07_path": str(folder), "voc12_path": "", "output_folder": str(output_folder)}
    return Parameters(**folders, verify=True, **changes)


def verify(folder, workers=0):
    """Run with --verify; returns the message of the error that stops it, line by line."""
    output_folder = folder.parent / "lists"
    parameters = verifying(folder, output_folder, labels=("car",), workers=workers)
    message = message_of_error(main, parameters)
    assert "no lists were written" in message
    assert not output_folder.exists()
    return message.removeprefix("error: ").splitlines()


def test_verify_writes_the_lists_where_all_is_well(voc, capsys):
    main(verifying(voc, voc / "lists", workers=2))
    output = capsys.readouterr()
    assert "All 12 images are intact and agree with their annotations." in output.out
    assert "verifying: 100%" in output.err
    assert len(read_lists(voc / "lists")["TEST_images"]) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_verify_reports_all_faults_at_once(voc, workers):
    images, annotations = voc / "JPEGImages", voc / "Annotations"
    truncate(images / "0.jpg")
    replace_by_note(images / "1.jpg")
    replace_by_folder(images / "2.jpg")
    (images / "3.jpg").unlink()
    replace_by_small_image(images / "4.jpg")
    draw(images / "5.png")
    (annotations / "6.xml").unlink()
    truncate(annotations / "7.xml")
    (annotations / "8.xml").write_text(annotation_xml(("car", (120, 1, 130, 9)), size=""))
    exif = Image.Exif()
    exif[0x0112] = 6  # held sideways: the upright image has 80 x 100 pixels
    draw(images / "9.jpg", exif=exif)
    (annotations / "10.xml").write_text(annotation_xml(CAR, ("car", (1, 200, 9, 230))))
    title, *faults = verify(voc, workers)
    assert title == "faults in 12 images: 12; no lists were written:"
    expected = [  # first those that are known without opening a file
        r"JPEGImages.2\.jpg: no such file: bring it back, or take 2 out of .*Main.trainval\.txt",
        r"JPEGImages.3\.jpg: no such file: bring it back",
        r"JPEGImages.5\.jpg: 5\.png has the same name: remove",
        r"Annotations.6\.xml: no such file: bring it back, or take 6 out of .*Main.test\.txt",
        r"JPEGImages.0\.jpg: not readable as an image \(image file is truncated.*\): replace it",
        r"JPEGImages.1\.jpg: not readable as an image \(none of BMP, GIF, .*\): replace it",
        r"Annotations.4\.xml: states a size of 100 x 80 pixels, but .*4\.jpg has 10 x 8 when it is",
        r"Annotations.4\.xml: object 1 \(car\) is outside the image: correct its box, or remove it",
        r"Annotations.7\.xml: not readable as XML",
        r"Annotations.8\.xml: object 1 \(car\) is outside the image",
        r"Annotations.9\.xml: states a size of 100 x 80 .*9\.jpg has 80 x 100 when it is upright",
        r"Annotations.10\.xml: object 2 \(car\) is outside the image",
    ]
    assert_each_matches(faults, expected)


def test_an_image_for_training_and_for_testing_is_verified_once(voc):
    (voc / "ImageSets/Main/test.txt").write_text("0\n")
    truncate(voc / "JPEGImages/0.jpg")
    assert verify(voc)[0].startswith("faults in 6 images: 1;")


def test_annotations_without_a_size_and_degenerate_boxes_are_no_faults(voc):
    (voc / "Annotations/0.xml").write_text(annotation_xml(CAR, ("car", (5, 5, 5, 9)), size=""))
    (voc / "Annotations/1.xml").write_text(
        annotation_xml(CAR, size="<size><width>0</width><height>0</height></size>")
    )
    main(verifying(voc, voc / "lists", workers=0))


def test_the_script_ends_with_the_list_of_faults(voc):
    truncate(voc / "JPEGImages/0.jpg")
    folders = ["--voc07-path", voc, "--voc12-path=", "--output-folder", voc / "lists"]
    message = run_script("create_data_lists.py", *folders, "--verify", "--workers", "2")
    title, fault = message.splitlines()
    assert title == "error: faults in 12 images: 1; no lists were written:"
    assert fault.startswith(f"{voc / 'JPEGImages/0.jpg'}: not readable as an image")


def test_toy_data_have_nothing_to_verify(tmp_path):
    with pytest.raises(ValueError, match="--verify is for given data"):
        main(Parameters(toy=True, verify=True, toy_folder=str(tmp_path / "toy")))


def test_two_images_of_one_name_are_an_error_only_if_the_name_is_listed(voc):
    parameters = Parameters(voc07_path=str(voc), voc12_path="", output_folder=str(voc / "lists"))
    draw(voc / "JPEGImages/unlisted.png")
    draw(voc / "JPEGImages/unlisted.jpg")
    main(parameters)
    draw(voc / "JPEGImages/7.png")
    with pytest.raises(
        ValueError, match=r"7\.jpg: 7\.png has the same name: remove the one that is not meant"
    ):
        main(parameters)
