"""data_lists.py: finding the images of VOC folders, good, bad and real, and writing the lists."""

import re
from pathlib import Path

import numpy as np
import pytest

from annotations import AnnotationError
from create_data_lists import Parameters, main
from helpers.folders import CAR, annotation_xml, make_voc, object_xml, read_lists
from utils import create_data_lists, voc_labels


def read_summary(text):
    """
    What create_data_lists() printed: {split: {"images": (listed, kept, left out), "all" or a class
    name: {column: count}}}.
    """
    summary = {}
    for block in re.split(r"\n(?=TRAIN:|TEST:)", text)[1:]:
        first, columns, *rows = block.splitlines()
        counts = re.fullmatch(r"(\w+): (\d+) images listed, (\d+) kept, (\d+) left out .*", first)
        table = {"images": tuple(int(number) for number in counts.groups()[1:])}
        columns = re.split(r"  +", columns.strip())[1:]
        for row in rows:
            if found := re.fullmatch(r"  (\S.*?) +(\d[ \d]*)", row):
                table[found[1]] = dict(zip(columns, map(int, found[2].split()), strict=True))
        summary[counts[1]] = table
    return summary


def check_summary(text):
    """The printed summary must account for every image and object."""
    summary = read_summary(text)
    assert set(summary) == {"TRAIN", "TEST"}
    for table in summary.values():
        listed, kept, left_out = table.pop("images")
        assert listed == kept + left_out
        if listed == 0:
            assert table == {}
            continue
        for count in table.values():
            assert count["objects"] == count["kept"] + count["degenerate"] + count["outside"]
        total = table.pop("all")
        for column, number in total.items():
            assert number == sum(count[column] for count in table.values())
    return read_summary(text)


# ---------------------------------------------------------------------------- folders in VOC layout


def test_class_names_cannot_control_the_terminal(tmp_path, capsys):
    name = "c\u009b2Jat\u202e"
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml((name, CAR[1]))}, {})
    create_data_lists(folder, "", tmp_path, labels="auto")
    assert r"c\x9b2Jat\u202e" in capsys.readouterr().out
    assert list(read_lists(tmp_path)["label_map"]) == ["background", name]
    with pytest.raises(AnnotationError, match=r"class .* is not among the labels") as error:
        create_data_lists(folder, "", tmp_path, labels=(f"{name}s",))
    assert str(error.value).isprintable()


def test_images_for_training_and_testing_are_pointed_out(tmp_path, capsys):
    both = {"a": annotation_xml(CAR)}
    create_data_lists(make_voc(tmp_path / "voc", both, both), "", tmp_path)
    assert "1 images are for training and for testing, such as " in capsys.readouterr().out


@pytest.mark.parametrize("objects", [(), (("background", CAR[1]),)])
def test_labels_auto_must_find_classes(tmp_path, objects):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(*objects)}, {})
    with pytest.raises(
        ValueError, match=r"voc: --labels auto found the classes .*correct the annotations"
    ):
        create_data_lists(folder, "", tmp_path, labels="auto")


def test_one_class_name_is_no_list_of_names(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, {})
    with pytest.raises(ValueError, match="expected a list of class names or 'auto', got 'car'"):
        create_data_lists(folder, "", tmp_path, labels="car")


def test_bad_annotation_stops_and_leaves_no_lists(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR), "b": "<annotation>"}, {})
    with pytest.raises(AnnotationError, match=r"b\.xml: not readable as XML"):
        create_data_lists(folder, "", tmp_path / "lists")
    assert not (tmp_path / "lists").exists()


def test_class_that_is_not_among_the_labels(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR, ("unicorn", CAR[1]))}, {})
    with pytest.raises(
        AnnotationError,
        match=r"a\.xml: class 'unicorn' is not among the labels \(car, cow\): .*--labels auto",
    ):
        create_data_lists(folder, "", tmp_path, labels=("car", "cow"))


def test_background_is_no_class_of_an_object(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(("background", CAR[1]))}, {})
    with pytest.raises(
        AnnotationError, match=r"a\.xml: class 'background' is not among the labels"
    ):
        create_data_lists(folder, "", tmp_path)


def test_no_usable_training_image(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml()}, {"b": annotation_xml(CAR)})
    with pytest.raises(
        ValueError, match="voc: no training image has a usable object: look at the counts"
    ):
        create_data_lists(folder, "", tmp_path)


def test_lists_of_two_folders(tmp_path):
    """
    Both trainval sets are for training, the first one's test set is for testing. Paths are
    absolute.
    """
    first = make_voc(
        tmp_path / "2007", {"a": annotation_xml(CAR)}, {"t": annotation_xml(("cow", (1, 1, 9, 9)))}
    )
    second = make_voc(
        tmp_path / "2012",
        {"b": annotation_xml(CAR, ("CAT", (2, 3, 4, 5)))},
        {"u": annotation_xml(CAR)},
    )
    create_data_lists(first, second, tmp_path / "new" / "lists")
    lists = read_lists(tmp_path / "new" / "lists")
    assert lists["TRAIN_images"] == [
        str(tmp_path / "2007/JPEGImages/a.jpg"),
        str(tmp_path / "2012/JPEGImages/b.jpg"),
    ]
    assert lists["TEST_images"] == [str(tmp_path / "2007/JPEGImages/t.jpg")]
    car, cat, cow = (voc_labels.index(name) + 1 for name in ("car", "cat", "cow"))
    assert lists["TRAIN_objects"] == [
        {"boxes": [[10, 20, 50, 60]], "labels": [car], "difficulties": [0]},
        {"boxes": [[10, 20, 50, 60], [1, 2, 4, 5]], "labels": [car, cat], "difficulties": [0, 0]},
    ]
    assert lists["TEST_objects"] == [
        {"boxes": [[0, 0, 9, 9]], "labels": [cow], "difficulties": [0]}
    ]
    numbers = {name: number for number, name in enumerate(voc_labels, start=1)}
    assert lists["label_map"] == {"background": 0} | numbers


def test_training_images_without_usable_object_are_left_out_and_test_images_stay(tmp_path, capsys):
    annotations = {
        "empty": annotation_xml(),
        "line": annotation_xml(("car", (5, 5, 5, 9))),
        "good": annotation_xml(CAR),
    }
    folder = make_voc(
        tmp_path / "voc", annotations, {f"test_{name}": text for name, text in annotations.items()}
    )
    create_data_lists(folder, "", tmp_path)
    lists = read_lists(tmp_path)
    assert [Path(path).stem for path in lists["TRAIN_images"]] == ["good"]
    assert [Path(path).stem for path in lists["TEST_images"]] == [
        "test_empty",
        "test_line",
        "test_good",
    ]
    assert [len(entry["boxes"]) for entry in lists["TEST_objects"]] == [0, 0, 1]
    summary = check_summary(capsys.readouterr().out)
    assert summary["TRAIN"]["images"] == (3, 1, 2)
    assert summary["TEST"]["images"] == (3, 3, 0)


def test_summary_counts_every_repair(tmp_path, capsys):
    objects = [
        CAR,
        ("car", (0, 1, 9, 9)),
        ("Car", (5, 5, 5, 9)),
        ("CAR", (200, 5, 300, 9)),
        object_xml("cow", CAR[1], ""),
        object_xml("cow", CAR[1], "<difficult>1</difficult>"),
    ]
    create_data_lists(make_voc(tmp_path / "voc", {"a": annotation_xml(*objects)}, {}), "", tmp_path)
    table = check_summary(capsys.readouterr().out)["TRAIN"]
    expected = {
        "objects": 4,
        "kept": 2,
        "difficult": 0,
        "clipped": 1,
        "degenerate": 1,
        "outside": 1,
        "no difficult tag": 0,
    }
    assert table["car"] == expected
    expected = {
        "objects": 2,
        "kept": 2,
        "difficult": 1,
        "clipped": 0,
        "degenerate": 0,
        "outside": 0,
        "no difficult tag": 1,
    }
    assert table["cow"] == expected
    assert table["sofa"] == dict.fromkeys(expected, 0)


def test_labels_auto_collects_names_in_any_case(tmp_path):
    first = {
        "a": annotation_xml(("Zebra", CAR[1]), ("ant", CAR[1])),
        "b": annotation_xml(("ZEBRA", CAR[1])),
    }
    folder = make_voc(tmp_path / "voc", first, {"t": annotation_xml(("moth", CAR[1]))})
    main(
        Parameters(voc07_path=folder, voc12_path="", output_folder=str(tmp_path), labels=("auto",))
    )
    lists = read_lists(tmp_path)
    assert lists["label_map"] == {"background": 0, "ant": 1, "moth": 2, "Zebra": 3}
    assert [entry["labels"] for entry in lists["TRAIN_objects"]] == [[3, 1], [3]]


def test_labels_are_numbered_in_their_order(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR, ("cow", CAR[1]))}, {})
    main(
        Parameters(
            voc07_path=folder, voc12_path="", output_folder=str(tmp_path), labels=("Cow", "Car")
        )
    )
    lists = read_lists(tmp_path)
    assert lists["label_map"] == {"background": 0, "Cow": 1, "Car": 2}
    assert lists["TRAIN_objects"][0]["labels"] == [2, 1]


@pytest.mark.parametrize("labels", [("car", "CAR"), ("car", "background"), ()])
def test_bad_labels(tmp_path, labels):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, {})
    with pytest.raises(
        ValueError, match="labels: expected different class names without 'background'"
    ):
        create_data_lists(folder, "", tmp_path, labels=labels)


# ---------------------------------------------------------------------------------------- real data


@pytest.mark.slow
def test_real_voc(voc_annotations, tmp_path, capsys):
    """
    All annotations of VOC2007 and VOC2012. 47,223 and 14,976 objects are what the data's own
    documentation counts.
    """
    main(
        Parameters(
            voc07_path=str(voc_annotations / "VOC2007"),
            voc12_path=str(voc_annotations / "VOC2012"),
            output_folder=str(tmp_path),
        )
    )
    summary = check_summary(capsys.readouterr().out)
    assert summary["TRAIN"]["images"] == (16_551, 16_551, 0)
    assert summary["TEST"]["images"] == (4_952, 4_952, 0)
    assert summary["TRAIN"]["all"]["objects"] == 47_223
    assert summary["TEST"]["all"]["objects"] == summary["TEST"]["all"]["kept"] == 14_976
    lists = read_lists(tmp_path)
    for split in ("TRAIN", "TEST"):
        boxes = np.array([box for entry in lists[f"{split}_objects"] for box in entry["boxes"]])
        assert len(boxes) == summary[split]["all"]["kept"]
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    difficulties = [
        difficult for entry in lists["TEST_objects"] for difficult in entry["difficulties"]
    ]
    assert difficulties.count(0) == 12_032


@pytest.mark.parametrize("labels", [("RBC", "WBC", "Platelets"), ("auto",)])
def test_blood_cells(blood_cells, tmp_path, capsys, labels):
    main(
        Parameters(
            voc07_path=str(blood_cells), voc12_path="", output_folder=str(tmp_path), labels=labels
        )
    )
    summary = check_summary(capsys.readouterr().out)
    counts = {
        name: [
            summary["TRAIN"][name][column] + summary["TEST"][name][column]
            for column in ("objects", "degenerate")
        ]
        for name in ("RBC", "WBC", "Platelets", "all")
    }
    assert [count[0] for count in counts.values()] == [4155, 372, 361, 4888]
    assert counts["all"][1] == 2
    lists = read_lists(tmp_path)
    assert list(lists["label_map"]) == [
        "background",
        *(("Platelets", "RBC", "WBC") if labels == ("auto",) else labels),
    ]
    assert (
        sum(
            len(entry["boxes"])
            for split in ("TRAIN", "TEST")
            for entry in lists[f"{split}_objects"]
        )
        == 4886
    )
    assert (len(lists["TRAIN_images"]), len(lists["TEST_images"])) == (292, 72)
    assert all(Path(path).is_file() for path in lists["TRAIN_images"] + lists["TEST_images"])
