"""data_folders.py: data in COCO's, YOLO's and LabelImg's form give the same lists as VOC's."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from create_data_lists import Parameters, main
from data_folders import find_data
from data_lists import write_data_lists
from datasets import read_image_size
from helpers.damage import draw, truncate
from helpers.folders import CAR, annotation_xml, make_voc, read_lists
from helpers.formats import (
    Picture,
    pictures_of,
    write_coco,
    write_labelimg,
    write_roboflow,
    write_yolo,
)
from helpers.scripts import message_of_error, run_script
from utils import create_data_lists, voc_labels

LABELS = ["RBC", "WBC", "Platelets"]


def lists_by_name(folder):
    """The lists with the names of the images in place of their paths, sorted by name."""
    lists = read_lists(folder)
    for split in ("TRAIN", "VAL", "TEST"):
        path = Path(folder) / f"{split}_images.json"
        if path.is_file():
            images = json.loads(path.read_text())
            assert all(Path(image).is_file() for image in images)
            objects = json.loads((Path(folder) / f"{split}_objects.json").read_text())
            names = [Path(image).name for image in images]
            pairs = sorted(zip(names, objects, strict=True), key=lambda pair: pair[0])
            lists[f"{split}_images"] = [name for name, _ in pairs]
            lists[f"{split}_objects"] = [entry for _, entry in pairs]
    return lists


def without_difficult(lists):
    """The same lists, as a format has them that knows no difficult objects."""
    for name, content in lists.items():
        if name.endswith("_objects"):
            for entry in content:
                entry["difficulties"] = [0] * len(entry["boxes"])
    return lists


def run(folder, output_folder, **changes):
    """Run the script on a folder; the lists."""
    main(Parameters(folder=str(folder), output_folder=str(output_folder), **changes))
    return lists_by_name(output_folder)


# --------------------------------------------------------------------------------------- round trip


@pytest.fixture(scope="module")
def cells(blood_cells, tmp_path_factory):
    """The lists of the blood cells, and their Pictures."""
    folder = tmp_path_factory.mktemp("cells")
    create_data_lists(str(blood_cells), "", folder, LABELS)
    lists = read_lists(folder)
    splits = {
        name: pictures_of(lists, split, blood_cells)
        for name, split in (("train", "TRAIN"), ("test", "TEST"))
    }
    return lists_by_name(folder), splits


@pytest.mark.parametrize(
    "write",
    [
        lambda folder, splits: write_coco(folder, splits, LABELS, first_category=7, step=13),
        lambda folder, splits: write_roboflow(folder, splits, LABELS),
        lambda folder, splits: write_yolo(folder, splits, LABELS),
        lambda folder, splits: write_yolo(folder, splits, LABELS, "data.yaml"),
    ],
    ids=["COCO", "Roboflow", "YOLO", "YOLO with data.yaml"],
)
def test_the_blood_cells_in_other_formats_give_the_same_lists(cells, write, tmp_path, capsys):
    expected, splits = cells
    lists = run(write(tmp_path / "data", splits), tmp_path / "lists")
    assert lists == expected
    printed = capsys.readouterr().out
    assert "TRAIN: 292 images listed, 292 kept, 0 left out" in printed
    assert not (tmp_path / "lists" / "VAL_images.json").exists()


def test_the_blood_cells_with_xml_beside_the_images(cells, tmp_path, capsys):
    expected, splits = cells
    lists = run(write_labelimg(tmp_path / "data", splits), tmp_path / "lists", labels=LABELS)
    assert lists == expected
    lists = run(tmp_path / "data", tmp_path / "lists")
    assert list(lists["label_map"]) == ["background", "Platelets", "RBC", "WBC"]  # by name


def test_a_validation_folder_becomes_val(cells, tmp_path, capsys):
    expected, splits = cells
    splits = {"train": splits["train"], "valid": splits["test"]}
    folder = write_roboflow(tmp_path / "data", splits, LABELS)
    lists = run(folder, tmp_path / "lists")
    assert lists["VAL_images"] == expected["TEST_images"]
    assert lists["VAL_objects"] == expected["TEST_objects"]
    assert lists["TEST_images"] == []
    assert "no test images: measure a detector with eval.py --split VAL" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["COCO", "YOLO", "LabelImg"])
def test_all_annotations_of_voc2007_in_other_formats_give_the_same_lists(
    name, voc_annotations, tmp_path, capsys
):
    voc = voc_annotations / "VOC2007"
    create_data_lists(str(voc), "", tmp_path / "voc")
    lists = read_lists(tmp_path / "voc")
    splits = {
        name: pictures_of(lists, split, voc)
        for name, split in (("train", "TRAIN"), ("test", "TEST"))
    }
    if name == "COCO":
        write_coco(tmp_path / "data", splits, voc_labels)
    elif name == "YOLO":
        write_yolo(tmp_path / "data", splits, voc_labels)
    else:
        write_labelimg(tmp_path / "data", splits)
    sizes = {picture.path.name: picture.size for split in splits.values() for picture in split}
    found = find_data(tmp_path / "data", lambda path: sizes[Path(path).name])
    write_data_lists(found, tmp_path / "lists", "auto")
    expected = lists_by_name(tmp_path / "voc")
    if name == "YOLO":
        expected = without_difficult(expected)
    assert lists_by_name(tmp_path / "lists") == expected


# --------------------------------------------------------------------------- telling the formats


@pytest.fixture
def picture(tmp_path):
    """An image file of 100 x 80 pixels with a cat and a dog, outside of the data."""
    draw(tmp_path / "a.png")
    objects = [("cat", [10, 20, 50, 60], 0), ("dog", [0, 0, 100, 80], 0)]
    return Picture(tmp_path / "a.png", (100, 80), objects)


def pictures(tmp_path, number, objects=(("cat", [10, 20, 50, 60], 0),)):
    """Some image files of 100 x 80 pixels, outside of the data, with the same objects."""
    paths = [tmp_path / f"{index:02}.png" for index in range(number)]
    for path in paths:
        draw(path)
    return [Picture(path, (100, 80), list(objects)) for path in paths]


def message(folder, **changes):
    """The error that stops the script; no lists may be written."""
    lists = Path(folder).parent / "lists"
    parameters = Parameters(folder=str(folder), output_folder=str(lists), **changes)
    text = message_of_error(main, parameters)
    assert text
    assert not lists.exists()
    return text


def test_a_folder_without_a_known_format(tmp_path):
    (tmp_path / "data").mkdir()
    draw(tmp_path / "data/a.png")
    (tmp_path / "data/notes.txt").write_text("nothing")
    text = message(tmp_path / "data")
    for looked_for in ("ImageSets/Main", "instances_*.json", "data.yaml or classes.txt", "XML"):
        assert looked_for in text


def test_a_missing_folder(tmp_path):
    assert "nowhere: no such folder: give" in message(tmp_path / "nowhere")


def test_a_folder_with_two_formats(picture, tmp_path):
    folder = write_coco(tmp_path / "data", {"train": [picture]}, ["cat", "dog"])
    write_yolo(folder, {"": [picture]}, ["cat", "dog"])
    assert "it has several formats, COCO and YOLO: move" in message(folder)


def test_a_voc_folder_is_read_as_one(tmp_path, capsys):
    annotations = {"a": annotation_xml(CAR)}
    make_voc(tmp_path / "voc", annotations, {"t": annotation_xml(("moth", CAR[1]))})
    (tmp_path / "voc/classes.txt").write_text("car\n")  # no label files: not YOLO
    lists = run(tmp_path / "voc", tmp_path)
    assert list(lists["label_map"]) == ["background", "car", "moth"]
    assert "voc: PASCAL VOC" in capsys.readouterr().out


def test_voc_folder_without_trainval_is_validated_on_val(tmp_path, capsys):
    annotations = {name: annotation_xml(CAR) for name in "abc"}
    folder = make_voc(tmp_path / "voc", annotations, {"t": annotation_xml(CAR)})
    sets = tmp_path / "voc/ImageSets/Main"
    (sets / "train.txt").write_text("a\nb\n")
    (sets / "val.txt").write_text("c\n")
    lists = run(folder, tmp_path / "lists")
    assert "VAL_images" not in lists  # it is a part of trainval
    assert len(lists["TRAIN_images"]) == 3
    (sets / "trainval.txt").unlink()
    for output in ("folder", "paths"):
        if output == "folder":
            lists = run(folder, tmp_path / output)
        else:
            create_data_lists(folder, "", tmp_path / output)
            lists = lists_by_name(tmp_path / output)
        assert lists["TRAIN_images"] == ["a.jpg", "b.jpg"]
        assert lists["VAL_images"] == ["c.jpg"]


def test_options_that_exclude_a_folder(tmp_path):
    for changes, words in (
        ({"toy": True}, "--toy draws a data set: give no folder"),
        ({"download": True}, "--download downloads a data set: give no folder"),
        ({"voc12_path": ""}, "give one folder, of any format, or --voc07-path"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            main(Parameters(folder=str(tmp_path), **changes))


def test_hidden_files_and_loops_of_links_are_passed_over(picture, tmp_path, capsys):
    folder = write_labelimg(tmp_path / "data", {"": [picture]})
    (folder / "._a.png").write_text("a trace of another system")
    (folder / ".idea").mkdir()
    (folder / ".idea/project.xml").write_text("<project/>")
    (folder / "up").symlink_to(folder)
    found = find_data(folder, read_image_size)
    assert [image.image for image in found.splits["TRAIN"]] == [str(folder / "a.png")]


# ------------------------------------------------------------------------------------------- COCO


def coco_folder(folder, content):
    """A folder with images of 100 x 80 pixels, img/a.png and b.png, and one COCO file."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "images" / "img").mkdir(parents=True)
    draw(folder / "images/img/a.png")
    draw(folder / "images/b.png")
    (folder / "annotations/instances_default.json").write_text(json.dumps(content))
    return folder


def coco(images=("img/a.png", "b.png"), boxes=((1, [10, 20, 40, 40]),)):
    """What a COCO file says: boxes of category 5 on images, by their numbers."""
    return {
        "images": [
            {"id": number, "file_name": name, "width": 100, "height": 80}
            for number, name in enumerate(images, start=1)
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": 5, "bbox": bbox}
            for number, (image, bbox) in enumerate(boxes)
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 90, "name": "dog"}],
    }


def test_images_in_subfolders_and_classes_without_boxes(tmp_path, capsys):
    folder = coco_folder(tmp_path / "data", coco(boxes=((1, [10, 20, 40, 40]), (2, [0, 0, 9, 9]))))
    lists = run(folder, tmp_path / "lists", test_fraction=0.5)
    assert lists["label_map"] == {"background": 0, "cat": 1, "dog": 2}
    entries = lists["TRAIN_objects"] + lists["TEST_objects"]
    assert sorted(entry["boxes"][0] for entry in entries) == [[0, 0, 9, 9], [10, 20, 50, 60]]


def test_every_image_and_object_is_accounted_for(tmp_path, capsys):
    boxes = [(1, bbox) for bbox in ([-5, 2, 20, 20], [50, 50, 0, 9], [300, 2, 9, 9], [1, 2, 3, 4])]
    content = coco(boxes=boxes)
    content["annotations"][3]["iscrowd"] = 1
    content["images"].append(content["images"][0])
    found = find_data(coco_folder(tmp_path / "data", content), read_image_size)
    write_data_lists(found, tmp_path / "lists", "auto")
    assert found.notes[-1] == "annotations/instances_default.json: 1 repeated images are used once"
    printed = capsys.readouterr().out
    columns = "objects  kept  difficult  clipped  degenerate  outside"
    assert re.search(rf"class +{columns} .*\n  cat +4 +2 +1 +1 +1 +1 +0\n", printed)
    assert "TRAIN: 2 images listed, 1 kept, 1 left out" in printed


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "C:\\Users\\a.png", "..\\b.png", "img/../../b.png"],
)
def test_file_names_cannot_lead_out_of_the_folder(name, tmp_path):
    draw(tmp_path / "b.png")
    text = message(coco_folder(tmp_path / "data", coco(images=("b.png", name))))
    assert re.search(r"instances_default\.json: image .*: leads out of the folder: write", text)


@pytest.mark.parametrize("name", ["lost.png", "x" * 5000, "\0", "img"])
def test_missing_images_are_named(name, tmp_path):
    text = message(coco_folder(tmp_path / "data", coco(images=("b.png", name))))
    assert re.search(r"instances_default\.json: image .*: no such file in .*: bring it back", text)
    assert text.isprintable()


def test_verify_reports_all_faults_of_a_coco_folder(tmp_path):
    content = coco(
        images=("img/a.png", "b.png", "lost.png", "../up.png", "c.png"),
        boxes=((1, [10, 20, 40, 40]), (5, [90, 70, 5, 5])),
    )
    folder = coco_folder(tmp_path / "data", content)
    draw(folder / "images/c.png", (50, 40))
    truncate(folder / "images/b.png")
    title, *faults = message(folder, verify=True, workers=0).splitlines()
    assert title == "error: faults in 5 images: 5; no lists were written:"
    expected = [
        r"image lost\.png: no such file",
        r"image \.\./up\.png: leads out",
        r"b\.png: not readable as an image",
        r"image c\.png: states a size of 100 x 80 pixels, but .*c\.png has 50 x 40",
        r"image c\.png: object 1 \(cat\) is outside the image",
    ]
    for pattern, fault in zip(expected, faults, strict=True):
        assert re.search(pattern, fault), fault


def test_several_coco_files_for_one_split(picture, tmp_path):
    folder = write_coco(tmp_path / "data", {"train": [picture]}, ["cat", "dog"])
    path = folder / "annotations/instances_train2014.json"
    path.write_bytes((folder / "annotations/instances_train2017.json").read_bytes())
    assert "expected one for each of train, val and test, or one alone" in message(folder)


def test_a_group_that_has_objects_and_a_class_that_is_its_own_group_stay(tmp_path, capsys):
    content = coco()
    content["categories"] = [
        {"id": 5, "name": "cat", "supercategory": "animal"},
        {"id": 6, "name": "animal", "supercategory": "animal"},
        {"id": 7, "name": "dog", "supercategory": "dog"},
        {"id": 8, "name": "Background"},
    ]
    folder = coco_folder(tmp_path / "data", content)
    found = find_data(folder, read_image_size)
    write_data_lists(found, tmp_path / "lists", "auto")
    assert list(read_lists(tmp_path / "lists")["label_map"]) == ["background", "cat", "dog"]
    assert "no object has them: animal, Background" in capsys.readouterr().out
    content["annotations"].append({**content["annotations"][0], "category_id": 6})
    (folder / "annotations/instances_default.json").write_text(json.dumps(content))
    found = find_data(folder, read_image_size)
    write_data_lists(found, tmp_path / "lists", "auto")
    names = list(read_lists(tmp_path / "lists")["label_map"])
    assert names == ["background", "cat", "animal", "dog"]


# ------------------------------------------------------------------------------------------- YOLO


def yolo_folder(folder, labels, names="cat\ndog\n"):
    """
    A folder with images of 100 x 80 pixels.

    :param labels: {name of an image: what its label file says, or None for no file}
    """
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for name, text in labels.items():
        draw(folder / "images" / f"{name}.png")
        if text is not None:
            (folder / "labels" / f"{name}.txt").write_text(text)
    (folder / "classes.txt").write_text(names)
    return folder


CAT = "0 0.3 0.5 0.4 0.5\n"  # 10 to 50, 20 to 60 pixels


def test_pictures_without_a_label_file_have_no_objects(tmp_path, capsys):
    folder = yolo_folder(tmp_path / "data", {"a": CAT, "b": None, "c": "", "d": CAT})
    lists = run(folder, tmp_path / "lists", val_fraction=0.25, seed=1)
    entries = lists["TRAIN_objects"] + lists["VAL_objects"]
    assert [10, 20, 50, 60] in [box for entry in entries for box in entry["boxes"]]
    printed = capsys.readouterr().out
    assert "without a label file, taken to have no objects: 1" in printed
    assert "this loss learns nothing from images without objects" in printed


def test_polygons_are_boxed_and_counted(tmp_path, capsys):
    polygon = "1 0.1 0.5 0.3 0.25 0.5 0.5 0.3 0.75\n"
    folder = yolo_folder(tmp_path / "data", {"a": polygon + CAT, "b": CAT})
    found = find_data(folder, read_image_size)
    write_data_lists(found, tmp_path / "lists", "auto")
    lists = read_lists(tmp_path / "lists")
    assert lists["TRAIN_objects"][0]["boxes"] == [[10, 20, 50, 60], [10, 20, 50, 60]]
    assert lists["TRAIN_objects"][0]["labels"] == [2, 1]
    assert "of 1 polygons, the boxes around them are used" in capsys.readouterr().out


def test_boxes_refer_to_the_upright_image(tmp_path, capsys):
    folder = yolo_folder(tmp_path / "data", {"a": CAT, "b": CAT})
    exif = Image.Exif()
    exif[0x0112] = 6  # held sideways: the upright image has 80 x 100 pixels
    for ending in ("png", "jpg", "webp"):
        for path in (folder / "images").iterdir():
            path.unlink()
        draw(folder / f"images/a.{ending}", exif=exif)
        draw(folder / f"images/b.{ending}")
        found = find_data(folder, read_image_size)
        write_data_lists(found, tmp_path / "lists", "auto")
        lists = read_lists(tmp_path / "lists")
        assert lists["TRAIN_objects"][0]["boxes"] == [[8, 25, 40, 75]]
        assert lists["TRAIN_objects"][1]["boxes"] == [[10, 20, 50, 60]]


def test_images_and_labels_in_one_folder(tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in "ab":
        draw(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(CAT)
    (folder / "classes.txt").write_text("cat\n")
    lists = run(folder, tmp_path / "lists", test_fraction=0.5)
    assert lists["TRAIN_images"] + lists["TEST_images"] in (["a.png", "b.png"], ["b.png", "a.png"])


@pytest.mark.parametrize(
    ("text", "message_part"),
    [
        ("0 0.5 0.5 0.1", "got 4 values"),
        ("0 0.5 0.5 0.1 0.1 0.9", "got 6 values"),
        ("0 1 2 3 4 5 6 7", "got 8 values"),
        ("0 0.5 nan 0.1 0.1", "fractions of the image"),
        ("0 320 200 50 80", "fractions of the image"),
        ("0 0.5 0.5 1e999 0.1", "fractions of the image"),
        ("2 0.5 0.5 0.1 0.1", "class 2 has no name"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 has no name"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 has no name"),
        ("cat 0.5 0.5 0.1 0.1", "class cat has no name"),
        ("nan 0.5 0.5 0.1 0.1", "class nan has no name"),
        ("\x1b[2J 0.5", "got 2 values"),
    ],
)
def test_malformed_lines_are_named(text, message_part, tmp_path):
    folder = yolo_folder(tmp_path / "data", {"a": CAT, "b": CAT + text})
    error = message(folder)
    assert f"{folder / 'labels/b.txt'}: " in error
    assert message_part in error
    assert error.isprintable()


def test_label_files_without_image_and_images_of_one_name(tmp_path):
    folder = yolo_folder(tmp_path / "data", {"a": CAT, "b": CAT})
    (folder / "labels/lost.txt").write_text(CAT)
    draw(folder / "images/a.jpg")
    faults = message(folder, verify=True, workers=0).splitlines()[1:]
    assert re.search(r"lost\.txt: no image of this name: bring it back, or remove", faults[0])
    assert re.search(r"a\.jpg: a\.png has the same name: remove", faults[1])
    assert len(faults) == 2


def test_damaged_images_are_reported_once(tmp_path):
    folder = yolo_folder(tmp_path / "data", {"a": CAT, "b": CAT})
    (folder / "images/b.png").write_text("a note instead of an image")
    assert re.search(r"b\.png: not readable as an image \(none of BMP", message(folder))
    assert len(message(folder, verify=True, workers=0).splitlines()) == 2


def test_classes_that_contradict_each_other(tmp_path):
    folder = yolo_folder(tmp_path / "data", {"a": CAT})
    (folder / "data.yaml").write_text("names: [dog, cat]\n")
    assert "classes.txt: its classes differ from those of" in message(folder)
    (folder / "classes.txt").unlink()
    (folder / "data.yaml").write_text("nc: 2\n")
    assert "data.yaml: it has no names of classes: write names" in message(folder)


@pytest.mark.parametrize(
    "text",
    [
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images",  # Roboflow's
        "path: /content/somewhere/else\ntrain: train/images\nval: valid/images",
        "path: ../datasets/mine\ntrain: train\nval: [valid]\ntest:",
        "path: .\ntrain:\n  - train/images\nval: ./valid/images  # half of them",
    ],
)
def test_folders_of_a_data_yaml(text, tmp_path, capsys):
    splits = {"train": pictures(tmp_path, 2), "valid": pictures(tmp_path, 4)[2:]}
    for split, some in splits.items():
        write_yolo(tmp_path / "data" / split, {"": some}, ["cat"])
        (tmp_path / "data" / split / "classes.txt").unlink()
    (tmp_path / "data/data.yaml").write_text(f"names: ['cat']\n{text}\n")
    lists = run(tmp_path / "data", tmp_path / "lists")
    assert lists["TRAIN_images"] == ["00.png", "01.png"]
    assert lists["VAL_images"] == ["02.png", "03.png"]
    printed = capsys.readouterr().out
    assert ("test: ../test/images: no such folder, left out" in printed) == ("../test" in text)


@pytest.mark.parametrize("name", ["../../other", "/etc", "train.txt", "nowhere", "C:/data"])
def test_a_data_yaml_without_its_training_folder(name, tmp_path):
    folder = yolo_folder(tmp_path / "data", {"a": CAT})
    (folder / "train.txt").write_text("images/a.png\n")
    (tmp_path / "other").mkdir()
    (folder / "data.yaml").write_text(f"names: [cat, dog]\ntrain: {name}\n")
    assert f"data.yaml: train: {name}: no such folder in " in message(folder)


def test_a_validation_folder_that_is_trained_on_is_none(tmp_path, capsys):
    folder = yolo_folder(tmp_path / "data", dict.fromkeys("abcde", CAT))
    (folder / "data.yaml").write_text("names: [cat, dog]\ntrain: images\nval: images\n")
    lists = run(folder, tmp_path / "lists")
    assert "VAL_images" not in lists
    assert (len(lists["TRAIN_images"]), len(lists["TEST_images"])) == (4, 1)
    assert "VAL: 5 of 5 images are trained on as well" in capsys.readouterr().out


# --------------------------------------------------------------------------------------- LabelImg


def test_xml_in_a_folder_of_its_own_and_images_without(tmp_path, capsys):
    folder = tmp_path / "data"
    write_labelimg(folder / "images", {"": pictures(tmp_path, 3)})
    (folder / "xml").mkdir()
    for name in ("00", "01"):
        (folder / f"images/{name}.xml").rename(folder / f"xml/{name}.xml")
    (folder / "images/02.xml").unlink()
    found = find_data(folder, read_image_size)
    assert [Path(image.image).name for image in found.splits["TRAIN"]] == ["00.png", "01.png"]
    run(folder, tmp_path / "lists")
    assert "images without an XML file, left out: 1" in capsys.readouterr().out


def test_faults_of_xml_without_lists(tmp_path):
    folder = write_labelimg(tmp_path / "data", {"": pictures(tmp_path, 4)})
    (folder / "00.png").unlink()
    draw(folder / "01.jpg")
    (folder / "more").mkdir()
    (folder / "more/02.xml").write_text(annotation_xml(CAR))
    (folder / "03.xml").write_text("<annotation>")
    faults = message(folder, verify=True, workers=0).splitlines()[1:]
    expected = [
        r"00\.xml: no image of this name: bring it back, or remove the XML file",
        r"01\.jpg: 01\.png has the same name",
        r"more.02\.xml: .*02\.xml is of the same image: remove",
        r"03\.xml: not readable as XML",
    ]
    for pattern, fault in zip(expected, faults, strict=True):
        assert re.search(pattern, fault), fault


# ----------------------------------------------------------------------------------------- splits


def test_data_without_splits_are_divided_and_it_is_said(tmp_path, capsys):
    folder = write_yolo(tmp_path / "data", {"": pictures(tmp_path, 10)}, ["cat"])
    lists = run(folder, tmp_path / "lists")
    assert (len(lists["TRAIN_images"]), len(lists["TEST_images"])) == (8, 2)
    assert not set(lists["TRAIN_images"]) & set(lists["TEST_images"])
    printed = capsys.readouterr().out
    assert "not divided" in printed
    assert "TEST: 2 of 10 images, drawn by --test-fraction 0.2, seed 0" in printed


def test_drawn_splits_depend_on_the_seed_and_nothing_else(tmp_path, capsys):
    some = pictures(tmp_path, 20)
    fractions = {"val_fraction": 0.2, "test_fraction": 0.3}
    first = run(write_yolo(tmp_path / "one", {"": some}, ["cat"]), tmp_path / "lists", **fractions)
    assert [len(first[f"{split}_images"]) for split in ("TRAIN", "VAL", "TEST")] == [10, 4, 6]
    every = first["TRAIN_images"] + first["VAL_images"] + first["TEST_images"]
    assert sorted(every) == [picture.path.name for picture in some]
    folder = write_yolo(tmp_path / "elsewhere", {"": some[::-1]}, ["cat"])
    assert run(folder, tmp_path / "lists", **fractions) == first
    assert run(folder, tmp_path / "lists", seed=1, **fractions) != first


def test_a_validation_set_of_voc_is_drawn_if_asked_for(tmp_path, capsys):
    annotations = {str(number): annotation_xml(CAR) for number in range(10)}
    folder = make_voc(tmp_path / "voc", annotations, {"t": annotation_xml(CAR)})
    paths = {"voc07_path": folder, "voc12_path": "", "output_folder": str(tmp_path / "lists")}
    main(Parameters(**paths, val_fraction=0.3))
    lists = lists_by_name(tmp_path / "lists")
    assert (len(lists["TRAIN_images"]), len(lists["VAL_images"])) == (7, 3)
    main(Parameters(**paths))  # the earlier validation set must not stay
    assert not list((tmp_path / "lists").glob("VAL_*"))
    assert len(lists_by_name(tmp_path / "lists")["TRAIN_images"]) == 10
    assert "VAL_images.json, of earlier lists, is removed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_fraction": 0.5}, "--val-fraction: the data have 2 VAL images of their own"),
        ({"test_fraction": 0.9}, "--test-fraction: 2 images are too few to draw 2 of them"),
        ({"test_fraction": 1.0}, "--test-fraction: expected a number of at least 0 and below 1"),
        ({"val_fraction": float("nan")}, "--val-fraction: expected a number"),
    ],
)
def test_fractions_that_make_no_sense(changes, words, tmp_path):
    some = pictures(tmp_path, 4)
    folder = write_yolo(tmp_path / "data", {"train": some[:2], "val": some[2:]}, ["cat"])
    assert words in message(folder, **changes)


def test_images_outside_of_the_split_folders(tmp_path):
    some = pictures(tmp_path, 3)
    splits = {"train": some[:1], "val": some[1:2], "": some[2:]}
    folder = write_yolo(tmp_path / "data", splits, ["cat"])
    assert re.search(r"and 1 are not, such as .*02\.png: move or remove them", message(folder))


def test_a_class_that_is_not_among_the_labels(tmp_path):
    splits = {"train": pictures(tmp_path, 2)[:1], "val": pictures(tmp_path, 2)[1:]}
    folder = write_coco(tmp_path / "data", splits, ["cat", "dog"])
    assert "class 'cat' is not among the labels (dog)" in message(folder, labels=("dog",))


def test_the_folder_is_the_argument_without_a_flag(picture, tmp_path, capsys):
    folder = write_coco(tmp_path / "data", {"train": [picture], "val": [picture]}, ["dog", "cat"])
    assert run_script("create_data_lists.py", folder, "--output-folder", tmp_path / "lists") == 0
    assert lists_by_name(tmp_path / "lists")["label_map"] == {"background": 0, "dog": 1, "cat": 2}
