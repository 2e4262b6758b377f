"""The data lists: from folders good and bad, from the real annotations, fetched from a server on this machine, and drawn."""

import hashlib
import http.server
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import create_data_lists as script
from create_data_lists import TOY_DRAWINGS, TOY_LABELS, Parameters, create_toy_data, draw_toy_image, main
from utils import AnnotationError, create_data_lists, find_images, parse_annotation, read_image_ids, voc_labels

CAR = "car", (11, 21, 50, 60)  # an object: class name, then xmin, ymin, xmax, ymax as in the file


def object_xml(name, box, difficult="<difficult>0</difficult>"):
    """An <object> of an annotation."""
    edges = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{difficult}<bndbox>{edges}</bndbox></object>"


def annotation_xml(*objects, size="<size><width>100</width><height>80</height><depth>3</depth></size>"):
    """An annotation; objects are (class name, box), or XML."""
    return f"<annotation>{size}{''.join(obj if isinstance(obj, str) else object_xml(*obj) for obj in objects)}</annotation>"


def make_voc(folder, trainval, test=None):
    """
    A folder in VOC layout, with an empty file for each picture.

    :param trainval, test: {image name: XML}
    :return: the folder, as a string
    """
    for path in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / path).mkdir(parents=True)
    for image_set, annotations in (("trainval", trainval), ("test", test)):
        if annotations is None:
            continue
        (folder / "ImageSets" / "Main" / f"{image_set}.txt").write_text("".join(f"{name}\n" for name in annotations))
        for name, text in annotations.items():
            (folder / "JPEGImages" / f"{name}.jpg").touch()
            (folder / "Annotations" / f"{name}.xml").write_text(text)
    return str(folder)


def read_lists(folder):
    """{name without .json: content} of the five lists."""
    names = "TRAIN_images", "TRAIN_objects", "TEST_images", "TEST_objects", "label_map"
    return {name: json.loads((Path(folder) / f"{name}.json").read_text()) for name in names}


def read_summary(text):
    """{split: {"images": (listed, kept, left out), class name or "all": {column: count}}} of what create_data_lists() printed."""
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
        for count in table.values():
            assert count["objects"] == count["kept"] + count["degenerate"] + count["outside"]
        total = table.pop("all")
        for column, number in total.items():
            assert number == sum(count[column] for count in table.values())
    return read_summary(text)


def parse(tmp_path, text):
    """What parse_annotation makes of a text."""
    path = tmp_path / "000001.xml"
    path.write_text(text)
    return parse_annotation(path)


# ----------------------------------------------------------------------------------------------------------- annotations


def test_coordinates_become_continuous_edges(tmp_path):
    """Pixels 11 to 50, both included and counted from 1, cover 10 to 50."""
    (obj,) = parse(tmp_path, annotation_xml(("car", (11, 21, 50, 60))))
    assert obj == {"name": "car", "box": [10, 20, 50, 60], "difficult": 0, "repairs": []}


def test_the_whole_image_is_a_box_of_its_size(tmp_path):
    (obj,) = parse(tmp_path, annotation_xml(("car", (1, 1, 100, 80))))
    assert obj["box"] == [0, 0, 100, 80]
    assert obj["repairs"] == []


def test_float_coordinates_are_kept(tmp_path):
    (obj,) = parse(tmp_path, annotation_xml(("car", ("45.70000076293945", " 21.5 ", "50.25", "6e1"))))
    assert obj["box"] == [44.70000076293945, 20.5, 50.25, 60]


@pytest.mark.parametrize(("tag", "difficult"), [("0", 0), ("1", 1), (" 1 ", 1)])
def test_difficult_tag(tmp_path, tag, difficult):
    (obj,) = parse(tmp_path, annotation_xml(object_xml("car", CAR[1], f"<difficult>{tag}</difficult>")))
    assert obj["difficult"] == difficult
    assert obj["repairs"] == []


@pytest.mark.parametrize("tag", ["", "<difficult/>", "<difficult> </difficult>", "<difficult>Unspecified</difficult>"])
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


@pytest.mark.parametrize("size", ["", "<width/>", "<width>0</width><height>0</height>", "<width>?</width><height>-1</height>"])
def test_without_a_size_nothing_is_clipped_at_the_high_edges(tmp_path, size):
    (obj,) = parse(tmp_path, annotation_xml(("car", (-3, 21, 999, 888)), size=f"<size>{size}</size>" if size else ""))
    assert obj["box"] == [0, 20, 999, 888]


def test_boxes_of_parts_are_not_mistaken_for_the_object(tmp_path):
    """VOC2012 marks heads and hands within a person."""
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
    (obj,) = parse(tmp_path, annotation_xml(object_xml(*CAR).replace("<name>", part + "<name>", 1)))
    assert (obj["name"], obj["box"]) == ("car", [10, 20, 50, 60])


@pytest.mark.parametrize("edge", ["xmin", "ymin", "xmax", "ymax"])
def test_missing_coordinate(tmp_path, edge):
    with pytest.raises(AnnotationError, match=rf"000001\.xml: .*no <bndbox/{edge}>: correct the file, or take the image out"):
        parse(tmp_path, re.sub(f"<{edge}>.*</{edge}>", "", annotation_xml(CAR)))


@pytest.mark.parametrize("value", ["left", "nan", "inf", "-inf", "1,5"])
def test_coordinate_that_is_no_number(tmp_path, value):
    with pytest.raises(AnnotationError, match=rf"000001\.xml: <ymin> should be a number.*{value}.*: correct the file, or take"):
        parse(tmp_path, annotation_xml(("car", (11, value, 50, 60))))


@pytest.mark.parametrize("name", ["", "<name/>", "<name> </name>"])
def test_missing_class_name(tmp_path, name):
    with pytest.raises(AnnotationError, match=r"000001\.xml: .*no <name>: write its class there"):
        parse(tmp_path, annotation_xml(object_xml(*CAR).replace("<name>car</name>", name)))


@pytest.mark.parametrize(
    "text", ["", "<annotation>", "<annotation><object></annotation>", "no XML", '<?xml version="1.0" encoding="nonsense"?><a/>']
)
def test_malformed_xml(tmp_path, text):
    with pytest.raises(AnnotationError, match=r"000001\.xml: not readable as XML .*: correct it or fetch it again"):
        parse(tmp_path, text)


def test_annotation_without_objects(tmp_path):
    assert parse(tmp_path, annotation_xml()) == []


# --------------------------------------------------------------------------------------------------- folders in VOC layout


def test_read_image_ids(tmp_path):
    """Repeated names count once, empty lines not at all, and VOC's lists of one class have a second column."""
    folder = make_voc(tmp_path / "voc", {})
    (tmp_path / "voc/ImageSets/Main/trainval.txt").write_bytes(b"\xef\xbb\xbf000002\r\n000001  1\r\n\r\n000002\r\n")
    assert read_image_ids(folder, "trainval") == ["000002", "000001"]


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder: .*--voc07-path.*--download.*--toy"):
        create_data_lists(str(tmp_path / "nowhere"), "", tmp_path)


def test_missing_list(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ImageSets.Main.test\.txt: no such list: write it"):
        create_data_lists(make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}), "", tmp_path)


def test_missing_image_folder(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, {})
    shutil.rmtree(tmp_path / "voc/JPEGImages")
    with pytest.raises(FileNotFoundError, match=r"JPEGImages: no such folder: put the photographs there"):
        create_data_lists(folder, "", tmp_path)


def test_missing_image(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR), "b": annotation_xml(CAR)}, {})
    (tmp_path / "voc/JPEGImages/b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"JPEGImages.b\.jpg: no such image: bring it back, or take b out of .*trainval"):
        create_data_lists(folder, "", tmp_path)


def test_missing_annotation(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, {"b": annotation_xml(CAR)})
    (tmp_path / "voc/Annotations/b.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"Annotations.b\.xml: no such annotation: bring it back, or take b .*test\.txt"):
        create_data_lists(folder, "", tmp_path)


def test_bad_annotation_stops_and_leaves_no_lists(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR), "b": "<annotation>"}, {})
    with pytest.raises(AnnotationError, match=r"b\.xml: not readable as XML"):
        create_data_lists(folder, "", tmp_path / "lists")
    assert not (tmp_path / "lists").exists()


def test_class_that_is_not_among_the_labels(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR, ("unicorn", CAR[1]))}, {})
    with pytest.raises(AnnotationError, match=r"a\.xml: class 'unicorn' is not among the labels \(car, cow\): .*--labels auto"):
        create_data_lists(folder, "", tmp_path, labels=("car", "cow"))


def test_background_is_no_class_of_an_object(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(("background", CAR[1]))}, {})
    with pytest.raises(AnnotationError, match=r"a\.xml: class 'background' is not among the labels"):
        create_data_lists(folder, "", tmp_path)


def test_both_paths_empty(tmp_path):
    with pytest.raises(ValueError, match="both paths are empty: give at least one"):
        create_data_lists("", "", tmp_path)


def test_no_usable_training_image(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml()}, {"b": annotation_xml(CAR)})
    with pytest.raises(ValueError, match="voc: no training image has a usable object: look at the counts"):
        create_data_lists(folder, "", tmp_path)


def test_lists_of_two_folders(tmp_path):
    """Both trainval sets are for training, the first one's test set for testing; paths are absolute."""
    first = make_voc(tmp_path / "2007", {"a": annotation_xml(CAR)}, {"t": annotation_xml(("cow", (1, 1, 9, 9)))})
    second = make_voc(tmp_path / "2012", {"b": annotation_xml(CAR, ("CAT", (2, 3, 4, 5)))}, {"u": annotation_xml(CAR)})
    create_data_lists(first, second, tmp_path / "new" / "lists")
    lists = read_lists(tmp_path / "new" / "lists")
    assert lists["TRAIN_images"] == [str(tmp_path / "2007/JPEGImages/a.jpg"), str(tmp_path / "2012/JPEGImages/b.jpg")]
    assert lists["TEST_images"] == [str(tmp_path / "2007/JPEGImages/t.jpg")]
    car, cat, cow = (voc_labels.index(name) + 1 for name in ("car", "cat", "cow"))
    assert lists["TRAIN_objects"] == [
        {"boxes": [[10, 20, 50, 60]], "labels": [car], "difficulties": [0]},
        {"boxes": [[10, 20, 50, 60], [1, 2, 4, 5]], "labels": [car, cat], "difficulties": [0, 0]},
    ]
    assert lists["TEST_objects"] == [{"boxes": [[0, 0, 9, 9]], "labels": [cow], "difficulties": [0]}]
    assert lists["label_map"] == {"background": 0} | {name: number for number, name in enumerate(voc_labels, start=1)}


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


def test_training_images_without_usable_object_are_left_out_and_test_images_stay(tmp_path, capsys):
    annotations = {"empty": annotation_xml(), "line": annotation_xml(("car", (5, 5, 5, 9))), "good": annotation_xml(CAR)}
    folder = make_voc(tmp_path / "voc", annotations, {f"test_{name}": text for name, text in annotations.items()})
    create_data_lists(folder, "", tmp_path)
    lists = read_lists(tmp_path)
    assert [Path(path).stem for path in lists["TRAIN_images"]] == ["good"]
    assert [Path(path).stem for path in lists["TEST_images"]] == ["test_empty", "test_line", "test_good"]
    assert [len(entry["boxes"]) for entry in lists["TEST_objects"]] == [0, 0, 1]
    summary = check_summary(capsys.readouterr().out)
    assert summary["TRAIN"]["images"] == (3, 1, 2)
    assert summary["TEST"]["images"] == (3, 3, 0)


def test_summary_counts_every_repair(tmp_path, capsys):
    objects = [
        CAR, ("car", (0, 1, 9, 9)), ("Car", (5, 5, 5, 9)), ("CAR", (200, 5, 300, 9)), object_xml("cow", CAR[1], ""),
        object_xml("cow", CAR[1], "<difficult>1</difficult>"),
    ]  # fmt: skip
    create_data_lists(make_voc(tmp_path / "voc", {"a": annotation_xml(*objects)}, {}), "", tmp_path)
    table = check_summary(capsys.readouterr().out)["TRAIN"]
    expected = {"objects": 4, "kept": 2, "difficult": 0, "clipped": 1, "degenerate": 1, "outside": 1, "no difficult tag": 0}
    assert table["car"] == expected
    expected = {"objects": 2, "kept": 2, "difficult": 1, "clipped": 0, "degenerate": 0, "outside": 0, "no difficult tag": 1}
    assert table["cow"] == expected
    assert table["sofa"] == dict.fromkeys(expected, 0)


def test_labels_auto_collects_names_in_any_case(tmp_path):
    first = {"a": annotation_xml(("Zebra", CAR[1]), ("ant", CAR[1])), "b": annotation_xml(("ZEBRA", CAR[1]))}
    folder = make_voc(tmp_path / "voc", first, {"t": annotation_xml(("moth", CAR[1]))})
    main(Parameters(voc07_path=folder, voc12_path="", output_folder=str(tmp_path), labels=("auto",)))
    lists = read_lists(tmp_path)
    assert lists["label_map"] == {"background": 0, "ant": 1, "moth": 2, "Zebra": 3}
    assert [entry["labels"] for entry in lists["TRAIN_objects"]] == [[3, 1], [3]]


def test_labels_are_numbered_in_their_order(tmp_path):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR, ("cow", CAR[1]))}, {})
    main(Parameters(voc07_path=folder, voc12_path="", output_folder=str(tmp_path), labels=("Cow", "Car")))
    lists = read_lists(tmp_path)
    assert lists["label_map"] == {"background": 0, "Cow": 1, "Car": 2}
    assert lists["TRAIN_objects"][0]["labels"] == [2, 1]


@pytest.mark.parametrize("labels", [("car", "CAR"), ("car", "background"), ()])
def test_bad_labels(tmp_path, labels):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, {})
    with pytest.raises(ValueError, match="labels: expected different class names without 'background'"):
        create_data_lists(folder, "", tmp_path, labels=labels)


@pytest.mark.parametrize("ending", [".png", ".JPG", ".jpeg", ".webp"])
def test_other_picture_formats(tmp_path, ending):
    folder = make_voc(tmp_path / "voc", {"a": annotation_xml(CAR)}, {})
    images = tmp_path / "voc/JPEGImages"
    (images / "a.jpg").rename(images / f"a{ending}")
    (images / "a.txt").write_text("not a picture")
    assert find_images(folder, ["a"], "trainval") == [str(images / f"a{ending}")]


# -------------------------------------------------------------------------------------------------------------- real data


@pytest.mark.slow
def test_real_voc(voc_annotations, tmp_path, capsys):
    """All annotations of VOC2007 and VOC2012. 47,223 and 14,976 objects are what the data's own documentation counts."""
    main(
        Parameters(
            voc07_path=str(voc_annotations / "VOC2007"), voc12_path=str(voc_annotations / "VOC2012"), output_folder=str(tmp_path)
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
    difficulties = [difficult for entry in lists["TEST_objects"] for difficult in entry["difficulties"]]
    assert difficulties.count(0) == 12_032


@pytest.mark.parametrize("labels", [("RBC", "WBC", "Platelets"), ("auto",)])
def test_blood_cells(blood_cells, tmp_path, capsys, labels):
    main(Parameters(voc07_path=str(blood_cells), voc12_path="", output_folder=str(tmp_path), labels=labels))
    summary = check_summary(capsys.readouterr().out)
    counts = {
        name: [summary["TRAIN"][name][column] + summary["TEST"][name][column] for column in ("objects", "degenerate")]
        for name in ("RBC", "WBC", "Platelets", "all")
    }
    assert [count[0] for count in counts.values()] == [4155, 372, 361, 4888]
    assert counts["all"][1] == 2
    lists = read_lists(tmp_path)
    assert list(lists["label_map"]) == ["background", *(("Platelets", "RBC", "WBC") if labels == ("auto",) else labels)]
    assert sum(len(entry["boxes"]) for split in ("TRAIN", "TEST") for entry in lists[f"{split}_objects"]) == 4886
    assert (len(lists["TRAIN_images"]), len(lists["TEST_images"])) == (292, 72)
    assert all(Path(path).is_file() for path in lists["TRAIN_images"] + lists["TEST_images"])


# --------------------------------------------------------------------------------------------------------------- download

SETS = ("2007", "trainval"), ("2007", "test"), ("2012", "trainval")


def voc_archive(year, image_set):
    """A tar file of a folder with one picture, as VOC's archives are arranged."""
    name = f"{year}_{image_set}"
    base = f"VOCdevkit/VOC{year}"
    contents = {
        f"{base}/JPEGImages/{name}.jpg": "", f"{base}/Annotations/{name}.xml": annotation_xml(CAR),
        f"{base}/ImageSets/Main/{image_set}.txt": f"{name}\n",
    }  # fmt: skip
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in contents.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch):
    """
    A server on this machine with three small archives, where torchvision is told to fetch VOC from. Its `files` {path: bytes} can
    be changed; `fetched` lists the paths of the bodies it sent; before each it waits for `go_on`.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.server.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.headers.get("Method") == "HEAD":  # torchvision's way of asking where a redirection leads; it reads no body
                return
            self.server.fetched.append(self.path)
            self.server.go_on.wait()
            self.wfile.write(body)

        def log_message(self, *args):
            """Nothing is logged."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files, running.fetched, running.go_on = {}, [], threading.Event()
        running.go_on.set()
        for year, image_set in SETS:
            archive = script.describe_archive(year, image_set)
            body = voc_archive(year, image_set)
            running.files[f"/{archive['filename']}"] = body
            monkeypatch.setitem(archive, "url", f"http://127.0.0.1:{running.server_port}/{archive['filename']}")
            monkeypatch.setitem(archive, "md5", hashlib.md5(body).hexdigest())
        monkeypatch.setattr(script, "ARCHIVES", tuple((*names, 10_240) for names in SETS))
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


def download(folder, **changes):
    """Run with --download into a folder."""
    main(Parameters(download=True, download_folder=str(folder), output_folder=str(folder / "lists"), **changes))


def test_download_fetches_unpacks_and_writes_lists(server, tmp_path, capsys):
    download(tmp_path / "new")
    lists = read_lists(tmp_path / "new/lists")
    assert [Path(path).name for path in lists["TRAIN_images"]] == ["2007_trainval.jpg", "2012_trainval.jpg"]
    assert [Path(path).name for path in lists["TEST_images"]] == ["2007_test.jpg"]
    assert sorted(server.fetched) == sorted(server.files)
    assert capsys.readouterr().out.count(f"into {tmp_path / 'new'}\n") == 3


def test_complete_archives_are_not_fetched_again(server, tmp_path):
    download(tmp_path)
    server.fetched.clear()
    server.files.clear()
    download(tmp_path)
    assert server.fetched == []


def test_truncated_archive_is_fetched_again(server, tmp_path):
    download(tmp_path)
    server.fetched.clear()
    name = script.describe_archive("2007", "test")["filename"]
    (tmp_path / name).write_bytes(server.files[f"/{name}"][:700])
    download(tmp_path)
    assert server.fetched == [f"/{name}"]
    assert (tmp_path / name).read_bytes() == server.files[f"/{name}"]


def test_a_year_that_is_not_wanted_is_not_fetched(server, tmp_path):
    download(tmp_path, voc12_path="")
    assert sorted(server.fetched) == sorted(f"/{script.describe_archive(*names)['filename']}" for names in SETS[:2])
    assert len(read_lists(tmp_path / "lists")["TRAIN_images"]) == 1


def test_nothing_to_fetch(server, tmp_path):
    with pytest.raises(ValueError, match="--download: both --voc07-path and --voc12-path name other data: leave out"):
        download(tmp_path, voc07_path="", voc12_path="elsewhere")
    assert server.fetched == []


def failure_pattern(folder):
    """What the message on an archive that can not be had must say: file, address, remedy, where to and the right sum."""
    archive = script.describe_archive("2007", "test")
    remedy = f"fetch {archive['url']} by hand into {folder}", archive["md5"], "run this again"
    return ".*".join(map(re.escape, (f"{archive['filename']}: not fetched", *remedy)))


def test_wrong_checksum(server, tmp_path):
    server.files["/VOCtest_06-Nov-2007.tar"] = b"something else"
    with pytest.raises(RuntimeError, match=failure_pattern(tmp_path)):
        download(tmp_path)


def test_address_that_is_gone(server, tmp_path):
    del server.files["/VOCtest_06-Nov-2007.tar"]
    with pytest.raises(RuntimeError, match=failure_pattern(tmp_path)) as failure:
        download(tmp_path)
    assert "404" in str(failure.value)
    failure.value.__cause__.close()  # urllib keeps the connection open in its error


def test_nobody_listens(server, tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, so that nobody else can listen there
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/VOCtest_06-Nov-2007.tar"
        monkeypatch.setitem(script.describe_archive("2007", "test"), "url", url)
        with pytest.raises(RuntimeError, match=failure_pattern(tmp_path)) as failure:
            download(tmp_path)
    assert "refused" in str(failure.value)


def test_server_that_stops_answering(server, tmp_path, monkeypatch):
    download(tmp_path)
    (tmp_path / "VOCtest_06-Nov-2007.tar").unlink()
    server.go_on.clear()
    monkeypatch.setattr(script, "NETWORK_TIMEOUT", 0.3)
    with pytest.raises(RuntimeError, match=failure_pattern(tmp_path)) as failure:
        download(tmp_path)
    assert "timed out" in str(failure.value)
    assert socket.getdefaulttimeout() is None


def test_disk_too_full(server, tmp_path, monkeypatch):
    """What is there already is not asked for again."""
    download(tmp_path, voc12_path="")
    server.fetched.clear()
    monkeypatch.setattr(script, "ARCHIVES", tuple((*names, 10**9) for names in SETS))
    # The other two have been unpacked, but their archives are much smaller than they should be
    free = 4 * 10**9 - 2 * 10_240 - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))
    with pytest.raises(RuntimeError, match=re.escape(str(tmp_path)) + r": 4\.0 GB needed, 4\.0 GB free: .*--download-folder"):
        download(tmp_path)
    assert server.fetched == []
    free += 1
    download(tmp_path)
    assert len(server.fetched) == 1


def test_real_addresses_are_those_of_the_three_archives():
    files = [script.describe_archive(year, image_set)["filename"] for year, image_set, _ in script.ARCHIVES]
    assert files == ["VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar", "VOCtrainval_11-May-2012.tar"]
    assert [names[:2] for names in script.ARCHIVES] == list(SETS)


# ---------------------------------------------------------------------------------------------------------------- toy set


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A toy set of all classes."""
    folder = tmp_path_factory.mktemp("toy_of_twenty")
    create_toy_data(folder, n_classes=20, n_train=40, n_test=10, seed=3)
    return folder


def contents(folder):
    """{relative path: bytes} of all pictures, annotations and lists of names."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_toy_set_is_in_voc_layout(toy):
    names = [f"{number:06}" for number in range(1, 51)]
    assert read_image_ids(toy, "trainval") == names[:40]
    assert read_image_ids(toy, "test") == names[40:]
    expected = {f"JPEGImages/{name}.jpg" for name in names} | {f"Annotations/{name}.xml" for name in names}
    assert set(contents(toy)) == expected | {"ImageSets/Main/trainval.txt", "ImageSets/Main/test.txt"}
    lists = read_lists(toy)
    assert (len(lists["TRAIN_images"]), len(lists["TEST_images"])) == (40, 10)
    assert list(lists["label_map"]) == ["background", *TOY_LABELS]


def test_toy_annotations_are_genuine(toy):
    """What VOC's annotations have: size, whole numbers counted from 1 and both included, and the four tags of an object."""
    for path in (toy / "Annotations").iterdir():
        root = ElementTree.parse(path).getroot()
        assert root.findtext("filename") == f"{path.stem}.jpg"
        with Image.open(toy / "JPEGImages" / f"{path.stem}.jpg") as image:
            assert image.mode == "RGB"
            assert [int(root.findtext(f"size/{tag}")) for tag in ("width", "height", "depth")] == [*image.size, 3]
        assert 1 <= len(root.findall("object")) <= 4
        for element in root.iter("object"):
            assert [child.tag for child in element] == ["name", "pose", "truncated", "difficult", "bndbox"]
            x_min, y_min, x_max, y_max = (int(element.findtext(f"bndbox/{tag}")) for tag in ("xmin", "ymin", "xmax", "ymax"))
            assert 1 <= x_min < x_max <= int(root.findtext("size/width"))
            assert 1 <= y_min < y_max <= int(root.findtext("size/height"))


def test_toy_set_needs_no_repair(toy):
    repairs = [obj["repairs"] for path in (toy / "Annotations").iterdir() for obj in parse_annotation(path)]
    assert repairs == [[]] * len(repairs)


def test_toy_drawings_are_those_of_voc(toy):
    assert sorted(TOY_LABELS) == sorted(TOY_DRAWINGS) == sorted(voc_labels)
    drawn = {obj["name"] for path in (toy / "Annotations").iterdir() for obj in parse_annotation(path)}
    assert drawn == set(voc_labels)


def draw_on(colour, monkeypatch, number, classes=TOY_LABELS):
    """A toy picture with one colour in place of the background; as an array (height, width, 3) of int, and the objects."""
    monkeypatch.setattr(script, "draw_background", lambda width, height, rng: np.full((height, width, 3), colour, dtype=np.uint8))
    image, objects = draw_toy_image(7, number, classes)
    return np.array(image).astype(int), objects


@pytest.mark.parametrize("number", range(0, 60, 3))
def test_toy_boxes_are_tight(monkeypatch, number):
    """
    Where the same picture on two backgrounds is equal, something opaque has been drawn: this leads to the boxes without knowing
    how they were found. Edges that are smoothed are wider than what is opaque by a pixel, faint objects are nowhere opaque.
    """
    classes = TOY_LABELS[number % 20 :][:1]
    black, objects = draw_on((0, 0, 0), monkeypatch, number, classes)
    white, again = draw_on((255, 255, 255), monkeypatch, number, classes)
    assert objects == again
    touched = np.abs(white - black).max(axis=2) < 250
    rows, columns = touched.any(axis=1).nonzero()[0], touched.any(axis=0).nonzero()[0]
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    boxes = np.array([obj["box"] for obj in objects])
    union = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    assert np.abs(found - union).max() <= 1
    for left, top, right, bottom in boxes.tolist():  # each edge of each box has something drawn on it
        inside = touched[top:bottom, left:right]
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_toy_boxes_of_covered_objects_end_where_they_are_seen():
    """The lower of two squares, its right half covered by the upper one."""
    lower, upper = np.zeros((2, 20, 30), dtype=bool)
    lower[5:15, 5:15] = True
    upper[4:16, 10:25] = True
    assert script.bounding_box(script.visible_part(0, [lower, upper])) == (5, 5, 10, 15)
    assert script.bounding_box(script.visible_part(1, [lower, upper])) == (10, 4, 25, 16)


def test_toy_objects_do_not_hide_each_other():
    """A drawing as large as the picture leaves no room for another one; apart from it, a smaller one finds its place."""
    rng = np.random.default_rng(0)
    whole, left_half = np.ones((20, 30), dtype=bool), np.zeros((20, 30), dtype=bool)
    left_half[:, :15] = True
    assert script.find_place(np.ones((5, 5), dtype=bool), [whole], 30, 20, rng) is None
    for _ in range(20):
        left, top, mask = script.find_place(np.ones((10, 10), dtype=bool), [left_half], 30, 20, rng)
        assert left >= 10
        assert script.bounding_box(mask) == (left, top, left + 10, top + 10)
        assert mask.sum() == 100


def test_toy_objects_that_are_difficult(monkeypatch):
    """Both reasons occur: faint, drawn with a third of the opacity, and covered for more than a third; and most are neither."""
    monkeypatch.setattr(script, "TOY_SIZES", ((160, 120),))
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
        shares += [max(right - left, bottom - top) / min(image.size) for left, top, right, bottom in boxes]
    assert 0.13 < min(shares) < 0.25
    assert 0.6 < max(shares) < 0.72


def test_same_seed_gives_equal_files(tmp_path):
    create_toy_data(tmp_path / "a", 4, 8, 3, seed=5)
    create_toy_data(tmp_path / "b", 4, 8, 3, seed=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    create_toy_data(tmp_path / "c", 4, 8, 3, seed=6)
    first, other = contents(tmp_path / "a"), contents(tmp_path / "c")
    assert all(first[name] != other[name] for name in first if name.endswith(".jpg"))


def test_a_toy_picture_depends_on_its_number_only(tmp_path):
    create_toy_data(tmp_path / "small", 4, 3, 1, seed=5)
    create_toy_data(tmp_path / "large", 4, 6, 3, seed=5)
    small, large = contents(tmp_path / "small"), contents(tmp_path / "large")
    assert all(small[name] == large[name] for name in small if not name.startswith("ImageSets"))


def test_first_classes_of_the_table_come_first(tmp_path):
    create_toy_data(tmp_path, 2, 4, 0)
    assert read_lists(tmp_path)["label_map"] == {"background": 0, TOY_LABELS[0]: 1, TOY_LABELS[1]: 2}
    assert {label for entry in read_lists(tmp_path)["TRAIN_objects"] for label in entry["labels"]} == {1, 2}


def test_equal_toy_set_is_not_drawn_again(tmp_path, monkeypatch):
    create_toy_data(tmp_path / "toy", 2, 3, 1)
    before = contents(tmp_path / "toy")
    (tmp_path / "toy").rename(tmp_path / "moved")
    monkeypatch.setattr(script, "draw_toy_image", None)
    create_toy_data(tmp_path / "moved", 2, 3, 1)
    assert contents(tmp_path / "moved") == before
    assert read_lists(tmp_path / "moved")["TRAIN_images"][0] == str(tmp_path / "moved/JPEGImages/000001.jpg")  # lists are new


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
    assert len(read_lists(tmp_path / "toy")["TRAIN_images"]) == settings["n_train"] + (4 - 5 if "n_train" in changes else 0)


def test_toy_sets_of_other_drawings_or_with_missing_files_are_drawn_anew(tmp_path, monkeypatch):
    create_toy_data(tmp_path, 2, 3, 1)
    before = contents(tmp_path)
    (tmp_path / "JPEGImages/000002.jpg").unlink()
    create_toy_data(tmp_path, 2, 3, 1)
    assert contents(tmp_path) == before
    (tmp_path / "JPEGImages/000002.jpg").write_bytes(b"of an earlier version")
    monkeypatch.setattr(script, "DRAWINGS_VERSION", script.DRAWINGS_VERSION + 1)
    create_toy_data(tmp_path, 2, 3, 1)
    assert contents(tmp_path) == before


def test_toy_set_that_was_broken_off_is_drawn_anew(tmp_path, monkeypatch):
    drawn = []

    def draw_and_stop(*arguments):
        drawn.append(arguments)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw_toy_image(*arguments)

    monkeypatch.setattr(script, "draw_toy_image", draw_and_stop)
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
    with pytest.raises(ValueError, match=r"mine: not a folder with a toy set, and not empty: name another one with --toy-folder"):
        create_toy_data(tmp_path / "mine", 2, 3, 1)
    assert contents(tmp_path / "mine") == before


def test_a_file_is_no_toy_folder(tmp_path):
    (tmp_path / "toy").write_text("mine")
    with pytest.raises(ValueError, match=r"toy: not a folder with a toy set"):
        create_toy_data(tmp_path / "toy", 2, 3, 1)
    assert (tmp_path / "toy").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"n_classes": 0}, "classes: expected 1 to 20, got 0"),
        ({"n_classes": 21}, "classes: expected 1 to 20, got 21"),
        ({"n_train": 0}, "training images: expected 1 to"),
        ({"n_test": -1}, "test images: expected 0 to"),
        ({"seed": -1}, "seed: expected 0 to"),
    ],
)
def test_toy_settings_out_of_range(tmp_path, changes, name):
    with pytest.raises(ValueError, match=name):
        create_toy_data(tmp_path / "toy", **changes)
    assert not (tmp_path / "toy").exists()


# --------------------------------------------------------------------------------------------------------------- the script


def test_main_draws_the_toy_set(tmp_path):
    folder = tmp_path / "drawn"
    main(Parameters(toy=True, toy_folder=str(folder), toy_classes=3, toy_images=4, toy_test_images=2, seed=9))
    create_toy_data(tmp_path / "same", 3, 4, 2, seed=9)
    assert contents(folder) == contents(tmp_path / "same")
    assert len(read_lists(folder)["TEST_images"]) == 2


def test_toy_and_download_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match=r"--toy .* --download .*: choose one"):
        main(Parameters(toy=True, download=True, toy_folder=str(tmp_path / "toy")))


def test_command_line_ends_with_a_message(tmp_path):
    command = [sys.executable, Path(script.__file__), "--voc07-path", "nowhere", "--voc12-path", "", "--output-folder", "lists"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: nowhere: no such folder")
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
