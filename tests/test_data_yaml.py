"""data_yaml.py: the forms in which data sets have their data.yaml, and those that are refused."""

import pytest

from annotations import AnnotationError
from data_yaml import read_data_yaml


def read(tmp_path, text):
    """What read_data_yaml makes of a text."""
    path = tmp_path / "data.yaml"
    path.write_text(text, encoding="utf-8")
    return read_data_yaml(path)


NAMES = {0: "cat", 1: "traffic light", 2: "driver's seat"}


@pytest.mark.parametrize(
    "text",
    [
        "names: ['cat', 'traffic light', 'driver''s seat']",
        'names: [cat, traffic light, "driver\'s seat",]',
        "names: ['cat',\n  'traffic light',\n  \"driver's seat\"\n]\n",
        "names:\n  - cat\n  - traffic light  # red\n  - driver's seat\n",
        "names:\n- cat\n- 'traffic light'\n- driver's seat\nother:\n- x: 1\n",
        "names:\n  0: cat\n  1: traffic light\n  2: driver's seat\n",
        "names: {0: cat, 1: 'traffic light', 2: \"driver's seat\"}",
        "---\n# mine\nnc: 3  # all\nnames:\n\n  1: traffic light\n  0: cat\n  2: driver's seat\n",
        '\ufeffnames: [cat, traffic light, "driver\'s seat"]\r\nroboflow:\r\n  license: a: b\r\n',
    ],
)
def test_names(text, tmp_path):
    assert read(tmp_path, text) == {"names": NAMES}


def test_numbers_may_have_gaps_and_names_may_look_like_something_else(tmp_path):
    text = "names:\n  0: '#1'\n  7: true\n  80: 사람\n"
    assert read(tmp_path, text) == {"names": {0: "#1", 7: "true", 80: "사람"}}


def test_folders(tmp_path):
    text = "path: ../data  # root\ntrain: [a/images, 'b/images']\nval: valid\ntest:\n"
    text += "nc: 1\nnames: [x]\n"
    assert read(tmp_path, text) == {
        "path": "../data",
        "train": ["a/images", "b/images"],
        "val": ["valid"],
        "names": {0: "x"},
    }


@pytest.mark.parametrize(
    "text",
    [
        "names: &all [a, b]",
        "names: *all",
        "names: !!python/object/apply:os.system ['ls']",
        "names: |\n  a\n  b\n",
        "names: cat",
        "names: [a, [b, c]]",
        "names: [a, b",
        "names: [a, 'b]",
        "names: ['', b]",
        "names: [a, , b]",
        'names: ["a\\u0041", b]',
        "names:\n  - x: cat\n",
        "names:\n  0:\n    cat\n",
        "names: {0: a, 0: b}",
        "names: {a: 0, b: 1}",
        "names: [a, A]",
        "nc: 3\nnames: [a, b]",
        "train: {0: a}",
        "kpt_shape: [17, 3]\nnames: [person]",
    ],
)
def test_other_forms_are_refused_with_the_file(text, tmp_path):
    with pytest.raises(AnnotationError, match=r"data\.yaml: .+") as error:
        read(tmp_path, text)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "names: " + "[" * 150_000,
        "names: " + "[a," * 60_000,
        "names: [" + " " * 150_000 + "'",
        "names: '" + "''" * 75_000 + "x",
        "names: ['x" + " #" * 75_000,
        "names: [a]" + "x" * 1_000_000,
    ],
    ids=str.__len__,
)
def test_hostile_texts_are_refused(text, tmp_path):
    """At once: a pattern that tries all possibilities would take hours."""
    with pytest.raises(AnnotationError):
        read(tmp_path, text)


@pytest.mark.parametrize("content", [b"\xff\xfenames", "names: [a]".encode("utf-16-le")])
def test_other_encodings(content, tmp_path):
    path = tmp_path / "data.yaml"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=r"data\.yaml: expected text in UTF-8"):
        read_data_yaml(path)
