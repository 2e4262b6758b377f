"""annotations.py: names of classes, and reading one annotation, good, bad or hostile."""

import re

import pytest

import utils
from annotations import AnnotationError, printable
from helpers.folders import CAR, annotation_xml, object_xml
from helpers.memory import has_memory_meter, read_and_measure
from utils import parse_annotation

# ------------------------------------------------------------------------------------------- labels


def test_voc_label_map_has_background_0_and_twenty_classes_in_the_devkits_order():
    assert utils.label_map["background"] == 0
    assert utils.label_map["aeroplane"] == 1
    assert utils.label_map["person"] == 15
    assert utils.label_map["tvmonitor"] == 20
    assert sorted(utils.label_map.values()) == list(range(21))
    assert list(utils.voc_labels) == sorted(utils.voc_labels)


def test_rev_label_map_is_the_inverse():
    assert utils.rev_label_map[0] == "background"
    assert {
        utils.rev_label_map[number]: number for number in utils.rev_label_map
    } == utils.label_map


def test_create_label_map_numbers_in_the_order_given():
    assert utils.create_label_map(["RBC", "Platelets"]) == {
        "background": 0,
        "RBC": 1,
        "Platelets": 2,
    }
    assert utils.create_label_map(("x",)) == {"background": 0, "x": 1}


@pytest.mark.parametrize(
    "labels",
    [[], ["cat", "dog", "cat"], ["cat", "Cat"], ["cat", "background"], ["BackGround"]],
    ids=str,
)
def test_create_label_map_refuses_repeated_and_reserved_names_and_none(labels):
    with pytest.raises(ValueError, match="different class names"):
        utils.create_label_map(labels)


def test_printable():
    assert printable("Füße 사람") == "Füße 사람"
    assert printable("a\x1b[2J\nb\udc80") == r"a\x1b[2J\nb\udc80"


# ------------------------------------------------------------------------------------- what is read


def parse(tmp_path, text):
    """What parse_annotation makes of a text."""
    path = tmp_path / "000001.xml"
    path.write_text(text)
    return parse_annotation(path)


def test_coordinates_become_continuous_edges(tmp_path):
    """Pixels 11 to 50, both included and counted from 1, cover 10 to 50."""
    (obj,) = parse(tmp_path, annotation_xml(("car", (11, 21, 50, 60))))
    assert obj == {"name": "car", "box": [10, 20, 50, 60], "difficult": 0, "repairs": []}


def test_the_whole_image_is_a_box_of_its_size(tmp_path):
    (obj,) = parse(tmp_path, annotation_xml(("car", (1, 1, 100, 80))))
    assert obj["box"] == [0, 0, 100, 80]
    assert obj["repairs"] == []


def test_float_coordinates_are_kept(tmp_path):
    (obj,) = parse(
        tmp_path, annotation_xml(("car", ("45.70000076293945", " 21.5 ", "50.25", "6e1")))
    )
    assert obj["box"] == [44.70000076293945, 20.5, 50.25, 60]


@pytest.mark.parametrize(("tag", "difficult"), [("0", 0), ("1", 1), (" 1 ", 1)])
def test_difficult_tag(tmp_path, tag, difficult):
    (obj,) = parse(
        tmp_path, annotation_xml(object_xml("car", CAR[1], f"<difficult>{tag}</difficult>"))
    )
    assert obj["difficult"] == difficult
    assert obj["repairs"] == []


@pytest.mark.parametrize(
    "tag", ["", "<difficult/>", "<difficult> </difficult>", "<difficult>Unspecified</difficult>"]
)
def test_missing_difficult_tag_counts_as_not_difficult(tmp_path, tag):
    (obj,) = parse(tmp_path, annotation_xml(object_xml("car", CAR[1], tag)))
    assert obj["difficult"] == 0
    assert obj["repairs"] == ["no difficult tag"]


@pytest.mark.parametrize(
    ("box", "expected", "repair"),
    [
        ((-5, 21, 50, 60), [0, 20, 50, 60], "clipped"),
        ((0, 0, 50, 60), [0, 0, 50, 60], "clipped"),
        ((11, 21, 101, 81), [10, 20, 100, 80], "clipped"),
        ((101, 21, 140, 60), None, "outside"),
        ((11, -60, 50, 0), None, "outside"),
        ((11, 21, 11, 60), None, "degenerate"),
        ((11, 21, 50, 21), None, "degenerate"),
        ((50, 21, 11, 60), None, "degenerate"),
    ],
)
def test_boxes_that_need_repair(tmp_path, box, expected, repair):
    (obj,) = parse(tmp_path, annotation_xml(("car", box)))
    assert obj["box"] == expected
    assert obj["repairs"] == [repair]


@pytest.mark.parametrize(
    "size",
    ["", "<width/>", "<width>0</width><height>0</height>", "<width>?</width><height>-1</height>"],
)
def test_without_a_size_nothing_is_clipped_at_the_high_edges(tmp_path, size):
    (obj,) = parse(
        tmp_path,
        annotation_xml(("car", (-3, 21, 999, 888)), size=f"<size>{size}</size>" if size else ""),
    )
    assert obj["box"] == [0, 20, 999, 888]


def test_boxes_of_parts_are_not_mistaken_for_the_object(tmp_path):
    """VOC2012 marks heads and hands within a person."""
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    part = f"<part><name>head</name>{box}</part>"
    (obj,) = parse(tmp_path, annotation_xml(object_xml(*CAR).replace("<name>", part + "<name>", 1)))
    assert (obj["name"], obj["box"]) == ("car", [10, 20, 50, 60])


def test_annotation_without_objects(tmp_path):
    assert parse(tmp_path, annotation_xml()) == []


@pytest.mark.parametrize(
    ("box", "repair"),
    [
        ((40, 50, 10, 10), "degenerate"),
        ((10, 10, 10, 50), "degenerate"),
        ((10, 10, 40, 10), "degenerate"),
        ((100.9999, 10, 120, 50), "outside"),
        ((10, 80.6, 20, 90), "outside"),
        ((-5, 10, 0.4, 50), "outside"),
        ((-5, 10, 0.6, 50), "clipped"),
    ],
    ids=str,
)
def test_annotations_with_such_boxes_give_lists_without_them(box, repair, tmp_path):
    """Of a picture of 100 x 80 pixels."""
    (tmp_path / "x.xml").write_text(annotation_xml(("car", box)))
    (obj,) = parse_annotation(tmp_path / "x.xml")
    assert obj["repairs"] == [repair]
    assert (obj["box"] is None) == (repair != "clipped")


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("edge", ["xmin", "ymin", "xmax", "ymax"])
def test_missing_coordinate(tmp_path, edge):
    with pytest.raises(
        AnnotationError,
        match=rf"000001\.xml: .*no <bndbox/{edge}>: correct the file, or take the image out",
    ):
        parse(tmp_path, re.sub(f"<{edge}>.*</{edge}>", "", annotation_xml(CAR)))


@pytest.mark.parametrize("value", ["left", "nan", "inf", "-inf", "1,5"])
def test_coordinate_that_is_no_number(tmp_path, value):
    with pytest.raises(
        AnnotationError,
        match=rf"000001\.xml: <ymin> should be a number.*{value}.*: correct the file, or take",
    ):
        parse(tmp_path, annotation_xml(("car", (11, value, 50, 60))))


@pytest.mark.parametrize("name", ["", "<name/>", "<name> </name>"])
def test_missing_class_name(tmp_path, name):
    with pytest.raises(AnnotationError, match=r"000001\.xml: .*no <name>: write its class there"):
        parse(tmp_path, annotation_xml(object_xml(*CAR).replace("<name>car</name>", name)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<annotation>",
        "<annotation><object></annotation>",
        "no XML",
        '<?xml version="1.0" encoding="nonsense"?><a/>',
    ],
)
def test_malformed_xml(tmp_path, text):
    with pytest.raises(
        AnnotationError, match=r"000001\.xml: not readable as XML .*: correct it or fetch it again"
    ):
        parse(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<html/>", "<html>"),
        ("<Annotation/>", "<Annotation>"),
        ("<objects><object/></objects>", "<objects>"),
        (annotation_xml(CAR).replace("<annotation>", '<annotation xmlns="urn:x">'), "<{urn:x}"),
        (
            annotation_xml(CAR)
            .replace("<annotation>", '<annotation xmlns:v="urn:v">')
            .replace("object>", "v:object>"),
            "<{urn:v}object>",
        ),
        (annotation_xml(CAR).replace("object>", "Object>"), "<Object>"),
    ],
)
def test_xml_of_another_structure_is_not_an_image_without_objects(tmp_path, text, found):
    with pytest.raises(AnnotationError, match=r"000001\.xml: expected .*: export it as") as error:
        parse(tmp_path, text)
    assert f"found {found}" in str(error.value)


def bombs():
    """{name of the file: its bytes}"""
    entities = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 12))
    laughs = f'<!DOCTYPE a [<!ENTITY e0 "ha">{entities}]><annotation>&e11;</annotation>'
    attribute = f'<!ATTLIST object x CDATA "{"long " * 100_000}">'
    objects = "<object/>" * 100_000
    return {
        "laughs.xml": laughs.encode(),
        "laughs16.xml": laughs.encode("utf-16"),
        "values.xml": f"<!DOCTYPE a [{attribute}]><annotation>{objects}</annotation>".encode(),
        "long.xml": b"<annotation>" + b"<object/>" * 1_500_000 + b"</annotation>",
    }


@pytest.mark.parametrize("name", ["laughs.xml", "laughs16.xml", "values.xml"])
def test_annotations_with_a_document_type_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(bombs()[name])
    with pytest.raises(
        AnnotationError, match=rf"{name}: not readable as XML \(it has a document type"
    ):
        parse_annotation(tmp_path / name)


def test_annotations_may_be_long_but_not_endless(tmp_path):
    path = tmp_path / "x.xml"
    path.write_text(annotation_xml(*[CAR] * 20_000))
    assert len(parse_annotation(path)) == 20_000
    path.write_bytes(bombs()["long.xml"])
    with pytest.raises(AnnotationError, match=r"x\.xml: not readable as XML"):
        parse_annotation(path)


@has_memory_meter
def test_bombs_take_little_memory(tmp_path):
    paths = []
    for name, content in bombs().items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    results = read_and_measure("annotations", "parse_annotation", paths)
    for path, (message, n_bytes) in zip(paths, results, strict=True):
        assert message.startswith(f"{path}: not readable as XML")
        assert n_bytes < (400_000_000 if path.name == "long.xml" else 50_000_000)
