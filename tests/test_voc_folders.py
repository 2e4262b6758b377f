"""voc_folders.py: finding the images that the lists of VOC's layout name."""

import shutil
from pathlib import Path

import pytest

from annotations import AnnotationError
from helpers.folders import CAR, annotation_xml, make_voc, read_lists
from utils import create_data_lists
from voc_folders import ListedImage, find_listed_images, read_image_ids


def test_read_image_ids(tmp_path, capsys):
    """
    Repeated names count once, empty lines not at all, and VOC's lists of one class have a second
    column.
    """
    folder = make_voc(tmp_path / "voc", {})
    (tmp_path / "voc/ImageSets/Main/trainval.txt").write_bytes(
        b"\xef\xbb\xbf000002\r\n000001  1\r\n\r\n000002\r\n"
    )
    assert read_image_ids(folder, "trainval") == ["000002", "000001"]
    assert "trainval.txt: 1 repeated names are used once" in capsys.readouterr().out


def test_a_name_that_ends_like_a_second_column_is_not_cut(tmp_path):
    """Only where the full name has no image, it is a name and VOC's second column."""
    names = ("photo", "photo 0", "photo 1", "photo  -1", "other")
    annotations = dict.fromkeys(names, annotation_xml(CAR))
    folder = make_voc(tmp_path / "voc", annotations, {"other": annotation_xml(CAR)})
    create_data_lists(folder, "", tmp_path)
    assert [Path(path).stem for path in read_lists(tmp_path)["TRAIN_images"]] == list(names)
    path = tmp_path / "voc/ImageSets/Main/test.txt"
    path.write_text("photo 1 -1\nother -1\nphoto\nother.jpg  1\nlost 1\n")
    assert read_image_ids(folder, "test") == ["photo 1", "other", "photo", "lost"]


def test_a_list_may_have_the_endings_of_the_image_files(tmp_path):
    annotations = dict.fromkeys(("a", "b.c", "d.jpg"), annotation_xml(CAR))
    folder = make_voc(tmp_path / "voc", annotations, {})
    (tmp_path / "voc/JPEGImages/b.c.jpg").rename(tmp_path / "voc/JPEGImages/b.c.PNG")
    path = tmp_path / "voc/ImageSets/Main/trainval.txt"
    path.write_text("a.jpg\nb.c.PNG\nd.jpg\na\n")  # the last file is called d.jpg.jpg
    create_data_lists(folder, "", tmp_path)
    images = [Path(path).name for path in read_lists(tmp_path)["TRAIN_images"]]
    assert images == ["a.jpg", "b.c.PNG", "d.jpg.jpg"]
    path.write_text("lost.png\n")
    with pytest.raises(FileNotFoundError, match=r"JPEGImages.lost\.png: no such file: bring it"):
        create_data_lists(folder, "", tmp_path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_a_list_in_another_encoding(tmp_path, encoding):
    folder = make_voc(tmp_path / "voc", {"Füße": annotation_xml(CAR)}, {})
    path = tmp_path / "voc/ImageSets/Main/trainval.txt"
    path.write_text("Füße\nStraße\n", encoding=encoding)
    with pytest.raises(
        AnnotationError, match=r"trainval\.txt: expected text in UTF-8, but .*: save it again"
    ):
        create_data_lists(folder, "", tmp_path)


@pytest.mark.parametrize("other", ["voc", "voc/", "link", "nowhere/../voc"])
def test_the_same_folder_twice(tmp_path, monkeypatch, other):
    monkeypatch.chdir(tmp_path)
    make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, {})
    Path("link").symlink_to("voc")
    Path("nowhere").mkdir()
    Path("voc/ImageSets/Main/trainval.txt").write_bytes(b"\xff")  # must not be read
    with pytest.raises(ValueError, match=r"voc and .* are the same folder.*: give it once"):
        create_data_lists("voc", other, "lists")


def test_a_name_that_is_too_long_for_a_file(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, {})
    (tmp_path / "voc/ImageSets/Main/trainval.txt").write_text("x" * 5000)
    with pytest.raises(FileNotFoundError, match=r"xxx\.jpg: no such file: bring it back"):
        create_data_lists(folder, "", tmp_path)


def test_names_of_images_may_have_blanks(tmp_path):
    folder = make_voc(tmp_path / "voc", {"my photo 12": annotation_xml(CAR)}, {})
    create_data_lists(folder, "", tmp_path)
    assert [Path(path).name for path in read_lists(tmp_path)["TRAIN_images"]] == ["my photo 12.jpg"]


def test_missing_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere: no such folder: .*--voc07-path.*--download.*--toy"
    ):
        create_data_lists(str(tmp_path / "nowhere"), "", tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ImageSets/Main/test.txt", r"ImageSets.Main.test\.txt: no such list: write it"),
        ("JPEGImages", r"JPEGImages: no such folder: put the images there"),
        (
            "JPEGImages/b.jpg",
            r"JPEGImages.b\.jpg: no such file: bring it back, or take b out of .*trainval",
        ),
        (
            "Annotations/c.xml",
            r"Annotations.c\.xml: no such file: bring it back, or take c .*test\.txt",
        ),
    ],
)
def test_what_is_missing_is_named_with_the_remedy(path, message, tmp_path):
    annotations = {"a": annotation_xml(CAR), "b": annotation_xml(CAR)}
    folder = make_voc(tmp_path / "voc", annotations, {"c": annotation_xml(CAR)})
    path = tmp_path / "voc" / path
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        create_data_lists(folder, "", tmp_path)


def test_both_paths_empty(tmp_path):
    with pytest.raises(ValueError, match="both paths are empty: give at least one"):
        create_data_lists("", "", tmp_path)


def test_relative_folders_give_absolute_paths(tmp_path, monkeypatch):
    make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, {})
    monkeypatch.chdir(tmp_path)
    create_data_lists("voc", "", "lists")
    assert read_lists("lists")["TRAIN_images"] == [str(tmp_path / "voc/JPEGImages/a.jpg")]


@pytest.mark.parametrize("test", [None, {"t": annotation_xml(CAR)}])
def test_only_the_second_folder(tmp_path, test):
    """It is tested on if it has such a list; the real VOC2012 has none."""
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, test)
    create_data_lists("", folder, tmp_path)
    lists = read_lists(tmp_path)
    assert len(lists["TRAIN_images"]) == 1
    assert len(lists["TEST_images"]) == len(lists["TEST_objects"]) == (0 if test is None else 1)


@pytest.mark.parametrize("ending", [".png", ".JPG", ".jpeg", ".webp"])
def test_other_image_formats(tmp_path, ending):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, {})
    images = tmp_path / "voc/JPEGImages"
    (images / "a.jpg").rename(images / f"a{ending}")
    (images / "a.txt").write_text("not an image")
    found, faults = find_listed_images(folder, "trainval")
    assert found == [ListedImage(str(images / f"a{ending}"), tmp_path / "voc/Annotations/a.xml")]
    assert faults == []
