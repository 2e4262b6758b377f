"""Files of detections in the formats of the VOC devkit and of COCO."""

import json
import re

import pytest
import torch

from detection_files import COCO_NAME, check_names, read_detections, save_detections

LABEL_MAP = {"background": 0, "cat": 1, "traffic light": 2}
PATHS = ["a/000001.jpg", "b/two words.png", "b/2008_000003.jpg"]


@pytest.fixture
def columns(random):
    """Detections of three images, the second without any."""
    counts = (3, 0, 40)
    low = [torch.rand(n, 2, generator=random) * 400 for n in counts]
    sides = [torch.rand(n, 2, generator=random) * 99 for n in counts]
    return (
        [torch.cat([a, a + b], dim=1) for a, b in zip(low, sides, strict=True)],
        [torch.randint(1, 3, (n,), generator=random) for n in counts],
        [torch.rand(n, generator=random) for n in counts],
    )


def by_score(columns, image):
    """The detections of an image, sorted: the order within an image means nothing."""
    boxes, labels, scores = (column[image] for column in columns)
    order = scores.argsort()
    return boxes[order], labels[order], scores[order]


@pytest.mark.parametrize("kind", ["*.json", "*.txt"])
def test_what_is_written_in_either_format_is_read_again(kind, columns, tmp_path):
    save_detections(tmp_path, *columns, PATHS, LABEL_MAP)
    other = {"*.json": "*.txt", "*.txt": "*.json"}[kind]
    for path in tmp_path.glob(other):
        path.unlink()
    read = read_detections(tmp_path, PATHS, LABEL_MAP)
    assert [len(scores) for scores in read[2]] == [3, 0, 40]
    assert read[0][1].shape == (0, 4)
    for image in range(3):
        ours, theirs = by_score(columns, image), by_score(read, image)
        torch.testing.assert_close(theirs[0], ours[0], atol=2e-3, rtol=0)
        assert torch.equal(theirs[1], ours[1])
        assert torch.equal(theirs[2], ours[2]), "a score was rounded, which may reorder detections"


def test_the_files_are_as_the_devkit_and_coco_have_them(tmp_path):
    boxes = [torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[9.0, 19.0, 40.0, 60.5]])]
    labels = [torch.tensor([1]), torch.tensor([2])]
    scores = [torch.tensor([0.5]), torch.tensor([0.25])]
    save_detections(tmp_path, boxes, labels, scores, PATHS[:2], LABEL_MAP, "val")
    assert {path.name: path.read_text() for path in tmp_path.glob("*.txt")} == {
        "comp4_det_val_cat.txt": "000001 0.5 1.000 1.000 1.000 1.000\n",  # the first pixel alone
        "comp4_det_val_traffic light.txt": "two words 0.25 10.000 20.000 40.000 60.500\n",
    }
    assert json.loads((tmp_path / COCO_NAME).read_text()) == [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5},
        {"image_id": "two words", "category_id": 2, "bbox": [9, 19, 31, 41.5], "score": 0.25},
    ]


def test_a_class_without_detections_has_an_empty_file(tmp_path):
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    save_detections(tmp_path, *([tensor] * 3 for tensor in nothing), PATHS, LABEL_MAP)
    assert len(list(tmp_path.glob("comp4_det_test_*.txt"))) == 2
    assert json.loads((tmp_path / COCO_NAME).read_text()) == []
    assert [len(scores) for scores in read_detections(tmp_path, PATHS, LABEL_MAP)[2]] == [0, 0, 0]


def test_names_that_the_files_cannot_hold_are_refused():
    repeated = ["cats/1.jpg", "dogs/1.jpg"]
    with pytest.raises(ValueError, match=r"cats/1\.jpg and dogs/1\.jpg: .* rename"):
        check_names(repeated, LABEL_MAP)
    with pytest.raises(ValueError, match=r"a/1\.jpg and a/01\.jpg"):
        check_names(["a/1.jpg", "a/01.jpg"], LABEL_MAP)
    with pytest.raises(ValueError, match=r"a/x\\ny\.jpg: .* rename"):
        check_names(["a/x\ny.jpg"], LABEL_MAP)
    for name in ("../cat", "a\\b", "cat\x1b"):
        with pytest.raises(ValueError, match="cannot be part of the name"):
            check_names(PATHS, {"background": 0, name: 1})
    check_names(PATHS, LABEL_MAP)


GOOD = "000001 0.5 1 1 5 5\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("000001 0.5 1 1 5\n", "line 1: expected 'image_id score x_min"),
        (GOOD + "000001 high 1 1 5 5\n", "line 2: expected 'image_id score x_min"),
        ("000001 nan 1 1 5 5\n", "line 1: expected a score, got nan"),
        ("000001 inf 1 1 5 5\n", "line 1: expected a score, got inf"),
        ("000001 0.5 1 1 nan 5\n", "line 1: expected a box in pixels"),
        ("000001 0.5 1 1 1e9 5\n", "line 1: expected a box in pixels"),
        (GOOD + "\n000009 0.5 1 1 5 5\n", "line 3: the image '000009' is not in the lists"),
    ],
)
def test_a_bad_line_is_named(lines, expected, tmp_path):
    path = tmp_path / "comp4_det_test_cat.txt"
    path.write_text(lines)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {expected}")):
        read_detections(tmp_path, PATHS, LABEL_MAP)


ENTRY = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        (json.dumps({"annotations": []}), "expected COCO's results"),
        (json.dumps([ENTRY, "cat"]), "entry 1: expected "),
        (json.dumps([{**ENTRY, "category_id": True}]), "entry 0: expected "),
        (json.dumps([{**ENTRY, "bbox": [0, 0, 4]}]), "entry 0: expected "),
        (json.dumps([{**ENTRY, "bbox": [0, 0, 4, "4"]}]), "entry 0: expected "),
        (json.dumps([{**ENTRY, "bbox": [0, 0, 4, 10**400]}]), "entry 0: expected a box in pixels"),
        (json.dumps([{**ENTRY, "score": 10**400}]), "entry 0: expected a score"),
        (json.dumps([{**ENTRY, "score": float("nan")}]), "entry 0: expected a score"),
        (json.dumps([{**ENTRY, "category_id": 3}]), "entry 0: the class number 3 is not one of"),
        (json.dumps([{**ENTRY, "category_id": 0}]), "entry 0: the class number 0 is not one of"),
        (json.dumps([{**ENTRY, "image_id": 7}]), "entry 0: the image 7 is not in the lists"),
    ],
    ids=range(13),
)
def test_a_bad_entry_is_named(content, expected, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {expected}")):
        read_detections(path, PATHS, LABEL_MAP)


def test_files_of_unknown_classes_and_two_of_one_class_are_refused(tmp_path):
    (tmp_path / "comp4_det_test_dog.txt").write_text("")
    with pytest.raises(ValueError, match=r"the class 'dog' is not one of .*'cat'"):
        read_detections(tmp_path, PATHS, LABEL_MAP)
    (tmp_path / "comp4_det_test_dog.txt").rename(tmp_path / "comp3_det_test_cat.txt")
    (tmp_path / "comp4_det_test_cat.txt").write_text("")
    with pytest.raises(ValueError, match="two files of the class 'cat'"):
        read_detections(tmp_path, PATHS, LABEL_MAP)


def test_files_that_are_no_text_or_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no detections: expected .*comp4_det_test_"):
        read_detections(tmp_path, PATHS, LABEL_MAP)
    with pytest.raises(FileNotFoundError, match="no detections"):
        read_detections(tmp_path / "nowhere", PATHS, LABEL_MAP)
    (tmp_path / "comp4_det_test_cat.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not readable as text"):
        read_detections(tmp_path, PATHS, LABEL_MAP)


def test_a_box_with_reversed_edges_overlaps_nothing(tmp_path):
    """As published detectors write them for what lies outside of an image."""
    (tmp_path / "comp4_det_test_cat.txt").write_text("000001 0.5 10 10 50 -5.4\n")
    (boxes, *_), _, _ = read_detections(tmp_path, PATHS, LABEL_MAP)
    assert boxes.tolist() == [[9, 9, 50, 9]]


def test_ids_are_numbers_or_texts_and_names_may_contain_spaces(tmp_path):
    entries = [ENTRY, {**ENTRY, "image_id": "000001"}, {**ENTRY, "image_id": "two words"}]
    (tmp_path / COCO_NAME).write_text(json.dumps(entries))
    counts = [len(scores) for scores in read_detections(tmp_path, PATHS, LABEL_MAP)[2]]
    assert counts == [2, 1, 0]
