"""toy_data.py: small data sets in VOC layout."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

import toy_data
from helpers.folders import CAR, annotation_xml, make_voc, read_lists
from helpers.toys import contents, draw_on
from toy_data import TOY_LABELS, create_toy_data, draw_toy_image
from utils import parse_annotation
from voc_folders import read_image_ids


def test_toy_set_is_in_voc_layout(toy_of_twenty):
    names = [f"{number:06}" for number in range(1, 51)]
    assert read_image_ids(toy_of_twenty, "trainval") == names[:40]
    assert read_image_ids(toy_of_twenty, "test") == names[40:]
    expected = {"ImageSets/Main/trainval.txt", "ImageSets/Main/test.txt"}
    expected |= {f"JPEGImages/{name}.jpg" for name in names}
    expected |= {f"Annotations/{name}.xml" for name in names}
    assert set(contents(toy_of_twenty)) == expected
    lists = read_lists(toy_of_twenty)
    assert (len(lists["TRAIN_images"]), len(lists["TEST_images"])) == (40, 10)
    assert list(lists["label_map"]) == ["background", *TOY_LABELS]


def test_toy_annotations_are_genuine(toy_of_twenty):
    """Like VOC's: a size, whole numbers counted from 1 to the last pixel, and an object's tags."""
    for path in (toy_of_twenty / "Annotations").iterdir():
        root = ElementTree.parse(path).getroot()
        assert root.findtext("filename") == f"{path.stem}.jpg"
        with Image.open(toy_of_twenty / "JPEGImages" / f"{path.stem}.jpg") as image:
            assert image.mode == "RGB"
            stated = [int(root.findtext(f"size/{tag}")) for tag in ("width", "height", "depth")]
            assert stated == [*image.size, 3]
        assert 1 <= len(root.findall("object")) <= 6
        for element in root.iter("object"):
            tags = [child.tag for child in element]
            assert tags == ["name", "pose", "truncated", "difficult", "bndbox"]
            x_min, y_min, x_max, y_max = (
                int(element.findtext(f"bndbox/{tag}")) for tag in ("xmin", "ymin", "xmax", "ymax")
            )
            assert 1 <= x_min < x_max <= int(root.findtext("size/width"))
            assert 1 <= y_min < y_max <= int(root.findtext("size/height"))


def test_toy_set_needs_no_repair(toy_of_twenty):
    repairs = [
        obj["repairs"]
        for path in (toy_of_twenty / "Annotations").iterdir()
        for obj in parse_annotation(path)
    ]
    assert repairs == [[]] * len(repairs)


def test_toy_boxes_of_covered_objects_end_where_they_are_seen():
    """The lower of two squares, its right half covered by the upper one."""
    lower, upper = np.zeros((2, 20, 30), dtype=bool)
    lower[5:15, 5:15] = True
    upper[4:16, 10:25] = True
    assert toy_data.bounding_box(toy_data.visible_part(0, [lower, upper])) == (5, 5, 10, 15)
    assert toy_data.bounding_box(toy_data.visible_part(1, [lower, upper])) == (10, 4, 25, 16)


def test_toy_objects_do_not_hide_each_other():
    """A drawing as large as the image leaves no room; a smaller one leaves room beside it."""
    rng = np.random.default_rng(0)
    whole, left_half = np.ones((20, 30), dtype=bool), np.zeros((20, 30), dtype=bool)
    left_half[:, :15] = True
    assert toy_data.find_place(np.ones((5, 5), dtype=bool), [whole], 30, 20, rng) is None
    for _ in range(20):
        square = np.ones((10, 10), dtype=bool)
        left, top, mask = toy_data.find_place(square, [left_half], 30, 20, rng)
        assert left >= 10
        assert toy_data.bounding_box(mask) == (left, top, left + 10, top + 10)
        assert mask.sum() == 100


def test_toy_objects_that_are_difficult(monkeypatch):
    """Both reasons occur, faint and covered by more than a third, and most objects are neither."""
    monkeypatch.setattr(toy_data, "IMAGE_SIZES", ((160, 120),))
    n_faint = n_covered = n_easy = 0
    for number in range(100):
        black, objects = draw_on((0, 0, 0), monkeypatch, number)
        white, _ = draw_on((255, 255, 255), monkeypatch, number)
        for obj in objects:
            left, top, right, bottom = obj["box"]
            opaque = (np.abs(white - black).max(axis=2) == 0)[top:bottom, left:right].any()
            n_faint += not opaque
            n_covered += opaque and obj["difficult"]
            n_easy += not obj["difficult"]
            assert opaque or obj["difficult"]
    assert n_faint >= 2
    assert n_covered >= 5
    assert n_easy > 4 * (n_faint + n_covered)


def test_toy_objects_have_several_sizes():
    shares = []
    for number in range(60):
        image, objects = draw_toy_image(1, number, TOY_LABELS)
        boxes = [obj["box"] for obj in objects if not obj["truncated"]]
        shares += [
            max(right - left, bottom - top) / min(image.size) for left, top, right, bottom in boxes
        ]
    assert 0.13 < min(shares) < 0.25
    assert 0.42 < max(shares) < 0.53


def test_same_seed_gives_equal_files(tmp_path):
    create_toy_data(tmp_path / "a", 4, 8, 3, seed=5)
    create_toy_data(tmp_path / "b", 4, 8, 3, seed=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    create_toy_data(tmp_path / "c", 4, 8, 3, seed=6)
    first, other = contents(tmp_path / "a"), contents(tmp_path / "c")
    assert all(first[name] != other[name] for name in first if name.endswith(".jpg"))


def test_a_toy_image_depends_on_its_number_only(tmp_path):
    create_toy_data(tmp_path / "small", 4, 3, 1, seed=5)
    create_toy_data(tmp_path / "large", 4, 6, 3, seed=5)
    small, large = contents(tmp_path / "small"), contents(tmp_path / "large")
    assert all(small[name] == large[name] for name in small if not name.startswith("ImageSets"))


def test_first_classes_of_the_table_come_first(tmp_path):
    create_toy_data(tmp_path, 2, 4, 0)
    assert read_lists(tmp_path)["label_map"] == {
        "background": 0,
        TOY_LABELS[0]: 1,
        TOY_LABELS[1]: 2,
    }
    assert {
        label for entry in read_lists(tmp_path)["TRAIN_objects"] for label in entry["labels"]
    } == {1, 2}


def test_equal_toy_set_is_not_drawn_again(tmp_path, monkeypatch):
    create_toy_data(tmp_path / "toy", 2, 3, 1)
    before = contents(tmp_path / "toy")
    (tmp_path / "toy").rename(tmp_path / "moved")
    monkeypatch.setattr(toy_data, "draw_toy_image", None)
    create_toy_data(tmp_path / "moved", 2, 3, 1)
    assert contents(tmp_path / "moved") == before
    assert read_lists(tmp_path / "moved")["TRAIN_images"][0] == str(
        tmp_path / "moved/JPEGImages/000001.jpg"
    )  # lists are new


@pytest.mark.parametrize("changes", [{"n_classes": 3}, {"n_train": 4}, {"n_test": 2}, {"seed": 1}])
def test_other_toy_set_replaces_the_earlier_one(tmp_path, changes):
    settings = {"n_classes": 2, "n_train": 5, "n_test": 3, "seed": 0}
    create_toy_data(tmp_path / "toy", **settings)
    (tmp_path / "toy" / "checkpoint.pth.tar").touch()
    create_toy_data(tmp_path / "toy", **settings | changes)
    create_toy_data(tmp_path / "new", **settings | changes)
    assert (tmp_path / "toy" / "checkpoint.pth.tar").exists()  # only what was drawn is removed
    (tmp_path / "toy" / "checkpoint.pth.tar").unlink()
    assert contents(tmp_path / "toy") == contents(tmp_path / "new")
    assert len(read_lists(tmp_path / "toy")["TRAIN_images"]) == settings["n_train"] + (
        4 - 5 if "n_train" in changes else 0
    )


def test_toy_sets_of_other_drawings_or_with_missing_files_are_drawn_anew(tmp_path, monkeypatch):
    create_toy_data(tmp_path, 2, 3, 1)
    before = contents(tmp_path)
    (tmp_path / "JPEGImages/000002.jpg").unlink()
    create_toy_data(tmp_path, 2, 3, 1)
    assert contents(tmp_path) == before
    (tmp_path / "JPEGImages/000002.jpg").write_bytes(b"of an earlier version")
    monkeypatch.setattr(toy_data, "DRAWINGS_VERSION", toy_data.DRAWINGS_VERSION + 1)
    create_toy_data(tmp_path, 2, 3, 1)
    assert contents(tmp_path) == before


def test_toy_set_that_was_broken_off_is_drawn_anew(tmp_path, monkeypatch):
    drawn = []

    def draw_and_stop(*arguments):
        drawn.append(arguments)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw_toy_image(*arguments)

    monkeypatch.setattr(toy_data, "draw_toy_image", draw_and_stop)
    with pytest.raises(KeyboardInterrupt):
        create_toy_data(tmp_path / "toy", 2, 4, 1)
    monkeypatch.undo()
    create_toy_data(tmp_path / "toy", 2, 4, 1)
    create_toy_data(tmp_path / "new", 2, 4, 1)
    assert contents(tmp_path / "toy") == contents(tmp_path / "new")


@pytest.mark.parametrize("marker", [None, "{", "[]", '{"made_by": "someone else"}'])
def test_other_data_are_never_overwritten(tmp_path, marker):
    make_voc(tmp_path / "mine", {"000001": annotation_xml(CAR)})
    if marker is not None:
        (tmp_path / "mine/toy.json").write_text(marker)
    before = contents(tmp_path / "mine")
    with pytest.raises(
        ValueError,
        match=r"mine: expected .* with a toy set, but it holds something else: name another folder",
    ):
        create_toy_data(tmp_path / "mine", 2, 3, 1)
    assert contents(tmp_path / "mine") == before


def test_a_file_is_no_toy_folder(tmp_path):
    (tmp_path / "toy").write_text("mine")
    with pytest.raises(
        ValueError, match=r"toy: expected a new or empty folder, or one with a toy set"
    ):
        create_toy_data(tmp_path / "toy", 2, 3, 1)
    assert (tmp_path / "toy").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"n_classes": 0}, "toy classes: expected a number of at least 1 and of at most 20, got 0"),
        ({"n_classes": 21}, "toy classes: expected .* at most 20, got 21"),
        ({"n_train": 0}, "toy training images: expected a number of at least 1"),
        ({"n_test": -1}, "toy test images: expected a number of at least 0"),
        ({"seed": -1}, "seed: expected a number of at least 0"),
    ],
)
def test_toy_settings_out_of_range(tmp_path, changes, name):
    with pytest.raises(ValueError, match=name):
        create_toy_data(tmp_path / "toy", **changes)
    assert not (tmp_path / "toy").exists()
