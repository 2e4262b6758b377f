"""annotations.py: COCO's JSON and YOLO's text, good, bad and hostile."""

import json
import math

import pytest

import annotations
from annotations import AnnotationError, read_class_names, read_coco, read_yolo
from helpers.memory import has_memory_meter, read_and_measure

NAN = math.nan


def coco(**changes):
    """A small COCO file; changes replace values of its only annotation, or whole lists."""
    annotation = {"id": 1, "image_id": 9, "category_id": 3, "bbox": [10, 20, 40, 40], "iscrowd": 0}
    content = {
        "images": [{"id": 9, "file_name": "a.jpg", "width": 100, "height": 80}],
        "annotations": [annotation],
        "categories": [{"id": 3, "name": "cat"}],
    }
    for key, value in changes.items():
        (content if key in content else annotation)[key] = value
    return content


def read(tmp_path, content):
    """What read_coco makes of a content, or a text."""
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_coco(path)


@pytest.mark.parametrize(
    ("bbox", "box", "repairs"),
    [
        ([10, 20, 40, 40], [10, 20, 50, 60], []),
        ([0, 0, 100, 80], [0, 0, 100, 80], []),
        ([61.3, 20.1, 38.7, 59.9], [61.3, 20.1, 100, 80], []),  # sums that are not exact
        ([-1, 20, 40, 40], [0, 20, 39, 60], ["clipped"]),
        ([10, 20, 90.5, 40], [10, 20, 100, 60], ["clipped"]),
        ([10, 20, 0, 40], None, ["degenerate"]),
        ([10, 20, 40, -3], None, ["degenerate"]),
        ([99.8, 20, 40, 40], None, ["outside"]),
    ],
)
def test_boxes_of_coco(bbox, box, repairs, tmp_path):
    (image,) = read(tmp_path, coco(bbox=bbox)).images
    assert image.objects == [{"name": "cat", "box": box, "difficult": 0, "repairs": repairs}]


def test_crowds_are_difficult_and_the_flag_may_be_missing(tmp_path):
    content = coco(iscrowd=1)
    content["annotations"].append({"image_id": 9, "category_id": 3, "bbox": [1, 1, 5, 5]})
    (image,) = read(tmp_path, content).images
    assert [obj["difficult"] for obj in image.objects] == [1, 0]


def test_numbers_may_be_texts_and_sizes_may_be_missing(tmp_path):
    content = coco(image_id="x", images=[{"id": "x", "file_name": "a.jpg", "width": None}])
    (image,) = read(tmp_path, content).images
    assert image.image_size == (math.inf, math.inf)
    assert image.objects[0]["box"] == [10, 20, 50, 60]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [10, 20, NAN, 40]}, r"annotation 1: expected a bbox of four numbers"),
        ({"bbox": [10, 20, math.inf, 40]}, r"annotation 1: expected a bbox"),
        ({"bbox": [10, 20, 10**400, 40]}, r"annotation 1: expected a bbox"),
        ({"bbox": [10, 20, "40", 40]}, r"annotation 1: expected a bbox"),
        ({"bbox": [10, 20, True, 40]}, r"annotation 1: expected a bbox"),
        ({"bbox": []}, r"annotation 1: expected a bbox .* got \[\]"),
        ({"bbox": None}, r"annotation 1: expected a bbox"),
        ({"iscrowd": 2}, r"annotation 1: iscrowd should be 0 or 1, got 2"),
        ({"iscrowd": [1]}, r"annotation 1: iscrowd"),
        ({"image_id": 10}, r"annotation 1: image 10 is not among the images"),
        ({"image_id": [9]}, r"annotation 1: image \[9\] is not among the images"),
        ({"category_id": 4}, r"annotation 1: category 4 is not among the categories"),
        ({"category_id": True}, r"annotation 1: category True"),
        ({"id": "\x1b[2J" * 50, "bbox": 1}, r"annotation '\\x1b"),
        ({"images": {}}, r"expected a list of objects as 'images'"),
        ({"annotations": None}, r"expected a list of objects as 'annotations'"),
        ({"categories": [3]}, r"expected a list of objects as 'categories'"),
        ({"categories": [{"id": 3}]}, r"category 3, None: expected an id of its own and a name"),
        ({"categories": [{"id": 3, "name": " "}]}, r"category 3, ' ': expected"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, r"category 3, 'b'"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "A"}]}, r"are called a: give"),
        ({"images": [{"id": 9}]}, r"image 9, None: expected an id and a file_name"),
        ({"images": [{"id": None, "file_name": "a"}]}, r"image None, 'a': expected an id"),
        ({"images": [{"id": 9, "file_name": x} for x in "ab"]}, r"image 9, 'b': another image"),
        ({"images": [{"id": x, "file_name": "a"} for x in (9, 8)]}, r"image 8, 'a': another image"),
    ],
)
def test_contradictions_and_wrong_types_are_named(changes, message, tmp_path):
    with pytest.raises(AnnotationError, match=rf"a\.json: .*{message}") as error:
        read(tmp_path, coco(**changes))
    assert len(str(error.value)) < 400 + len(str(tmp_path))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", "[" * 100_000, '{"a":' * 100_000, '{"images": ' + "9" * 5000 + "}"],
    ids=str.__len__,
)
def test_what_is_no_coco_file(text, tmp_path):
    with pytest.raises(AnnotationError, match=r"a\.json: (not readable as JSON|expected)"):
        read(tmp_path, text)


def test_a_missing_file_and_a_huge_one(tmp_path, monkeypatch):
    with pytest.raises(AnnotationError, match=r"lost\.json: not readable as JSON \(.*No such file"):
        read_coco(tmp_path / "lost.json")
    monkeypatch.setattr(annotations, "MAX_JSON_BYTES", 100)
    with pytest.raises(AnnotationError, match=r"not readable as JSON \(it has more than 100 bytes"):
        read(tmp_path, coco())


# ------------------------------------------------------------------------------------------- YOLO


def read_label(tmp_path, text, size=(100, 80)):
    """What read_yolo makes of a text."""
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    return read_yolo(path, {0: "cat", 5: "dog"}, size)


@pytest.mark.parametrize(
    ("line", "box", "repairs"),
    [
        ("0 0.3 0.5 0.4 0.5", [10, 20, 50, 60], []),
        ("0.0  .3\t.5 4e-1 .5 ", [10, 20, 50, 60], []),
        ("0 0.5 0.5 1 1", [0, 0, 100, 80], []),
        ("0 0.5 0.5 1.00001 1.00001", [0, 0, 100, 80], []),  # rounding is no repair
        ("0 0.1 0.5 0.4 0.5", [0, 20, 30, 60], ["clipped"]),
        ("0 0.3 0.5 0 0.5", None, ["degenerate"]),
        ("0 0.3 0.5 0.4 -0.5", None, ["degenerate"]),
        ("0 1.3 0.5 0.4 0.5", None, ["outside"]),
        ("0 0.1 0.25 0.5 0.25 0.5 0.75", [10, 20, 50, 60], ["polygon"]),
        ("0 -0.1 0.25 0.5 0.25 0.5 0.75 0 0.3", [0, 20, 50, 60], ["polygon", "clipped"]),
        ("0 0.1 0.2 0.1 0.3 0.1 0.4", None, ["polygon", "degenerate"]),
    ],
)
def test_boxes_of_yolo(line, box, repairs, tmp_path):
    (obj,) = read_label(tmp_path, line)
    assert obj == {"name": "cat", "box": box, "difficult": 0, "repairs": repairs}


def test_six_decimals_give_whole_pixels_back(tmp_path):
    for size in ((640, 480), (500, 333), (4000, 3000)):
        box = [size[0] // 3, size[1] // 7, size[0] - 1, size[1] - 2]
        x, y = (box[0] + box[2]) / 2 / size[0], (box[1] + box[3]) / 2 / size[1]
        w, h = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
        (obj,) = read_label(tmp_path, f"5 {x:.6f} {y:.6f} {w:.6f} {h:.6f}", size)
        assert (obj["name"], obj["box"]) == ("dog", box)


def test_empty_label_files_and_lines(tmp_path):
    assert read_label(tmp_path, "") == []
    assert len(read_label(tmp_path, "\ufeff\r\n0 .5 .5 .1 .1\r\n \r\n0 .5 .5 .1 .1")) == 2


def test_label_files_in_another_encoding_and_endless_ones(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("0 .5 .5 .1 .1".encode("utf-16"))
    with pytest.raises(AnnotationError, match=r"a\.txt: expected text in UTF-8"):
        read_yolo(path, {0: "cat"}, (9, 9))
    path.write_bytes(b"0 .5 .5 .1 .1\n" * 1_000_000)
    with pytest.raises(AnnotationError, match=r"a\.txt: more than .* bytes are too many"):
        read_yolo(path, {0: "cat"}, (9, 9))
    path.unlink()
    path.mkdir()
    with pytest.raises(AnnotationError, match=r"a\.txt: not readable"):
        read_yolo(path, {0: "cat"}, (9, 9))


def test_class_names(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("cat\r\n traffic light \r\n\r\n")
    assert read_class_names(path) == {0: "cat", 1: "traffic light"}
    for text, message in (("", "expected the name of a class"), ("a\nb\nA\n", "are called a")):
        path.write_text(text)
        with pytest.raises(AnnotationError, match=rf"classes\.txt: .*{message}"):
            read_class_names(path)


@has_memory_meter
def test_a_json_bomb_takes_memory_in_proportion(tmp_path):
    """Lists in lists take some twenty times as much memory as their text."""
    path = tmp_path / "a.json"
    path.write_text('{"categories": [' + "[]," * 1_000_000 + "[]]}")
    ((message, n_bytes),) = read_and_measure("annotations", "read_coco", [path])
    assert "expected a list of objects as 'categories'" in message
    assert n_bytes < 50 * path.stat().st_size
