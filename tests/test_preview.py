"""preview.py: the sheet of training images, and warnings about what SSD300 cannot find."""

import json
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

import preview
import train
from create_data_lists import Parameters, main
from data_lists import create_data_lists
from datasets import PascalVOCDataset
from drawing import label_colour, load_font
from helpers.folders import LABEL_MAP, write_lists
from helpers.oracles import slow_corners, slow_jaccards, slow_matching
from helpers.runs import settings
from model import SSD300, MultiBoxLoss
from preview import (
    PANEL,
    SMALLEST_SIDE,
    as_image,
    choose_images,
    draw_as_read,
    draw_as_trained_on,
    label_text,
    long_images,
    small_objects,
    warn_of_what_is_out_of_reach,
    write_preview,
)
from published_weights import PRIORS
from utils import cxcy_to_xy, find_jaccard_overlap, transform

GREY = (128, 128, 128)


def entry(*boxes, labels=None, difficult=()):
    """The objects of an image, of class 1 unless other labels are given."""
    return {
        "boxes": [list(box) for box in boxes],
        "labels": labels or [1] * len(boxes),
        "difficulties": [number in difficult for number in range(len(boxes))],
    }


def images_with(folder, entries, size=(200, 100), label_map=LABEL_MAP, **changes):
    """The TRAIN split of a folder in which every image is grey."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:03}.png" for number in range(len(entries))]
    for path in paths:
        Image.new("RGB", size, GREY).save(path)
    write_lists(folder, paths, entries, label_map)
    return PascalVOCDataset(folder, "TRAIN", keep_difficult=True, **changes)


def coloured(image, colour):
    """(x_min, y_min, x_max, y_max) of the pixels of a colour, the last ones not included."""
    rows, columns = np.nonzero((np.asarray(image) == colour).all(axis=2))
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


# --------------------------------------------------------------------------------------- the sheet


def test_an_image_for_the_network_becomes_the_picture_that_it_was(toy_folder):
    path = json.loads((toy_folder / "TRAIN_images.json").read_text())[0]
    picture = Image.open(path).convert("RGB").resize((300, 300), Image.Resampling.BILINEAR)
    nothing = torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool()
    pixels, *_ = transform(Image.open(path).convert("RGB"), *nothing, split="TEST")
    assert np.array_equal(np.asarray(as_image(pixels)), np.asarray(picture))


def test_the_objects_of_the_lists_are_drawn_where_they_are(tmp_path):
    train_set = images_with(tmp_path, [entry((20, 60, 80, 90), labels=[2])])
    image, caption = draw_as_read(train_set, 0)
    assert image.size == (PANEL, PANEL // 2)
    edges = coloured(image, label_colour(2, 3))
    scale = PANEL / 200
    # The label stands above the box, and begins where the box does
    assert (edges[0], edges[2], edges[3]) == (20 * scale, 80 * scale, 90 * scale)
    assert edges[1] < 60 * scale
    assert caption == "000.png, 200 x 100: 1 object"


def test_a_picture_that_lies_on_its_side_is_turned_as_for_training(tmp_path):
    train_set = images_with(tmp_path, [entry((0, 0, 50, 150))])
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    Image.new("RGB", (200, 100), GREY).save(train_set.images[0], exif=exif)
    image, caption = draw_as_read(train_set, 0)
    assert image.size == (PANEL // 2, PANEL)
    assert "100 x 200" in caption


@pytest.mark.parametrize("i", range(6))
def test_objects_and_priors_are_those_that_training_gets(toy_folder, i):
    train_set = PascalVOCDataset(toy_folder, "TRAIN", keep_difficult=True, seed=5)
    _, boxes, labels, _ = train_set[i]
    priors = SSD300.create_prior_boxes()
    corners = [slow_corners(prior) for prior in priors.tolist()]
    matching = slow_matching(slow_jaccards(boxes.tolist(), corners), 0.5)
    n_positive = sum(number is not None for number in matching)
    train_set.set_epoch(3)  # the first one is drawn in any case
    _, caption = draw_as_trained_on(train_set, i, MultiBoxLoss(priors))
    found = [int(number) for number in re.findall(r"\d+", caption)]
    assert found == [len(labels), n_positive]


def test_positive_priors_are_drawn_in_the_colour_of_their_class(tmp_path, monkeypatch):
    train_set = images_with(tmp_path, [entry((20, 20, 80, 80), (120, 20, 180, 80), labels=[1, 2])])
    drawn = []
    monkeypatch.setattr(
        preview, "draw_box", lambda pen, box, colour, line_width: drawn.append((box, colour))
    )
    criterion = MultiBoxLoss(SSD300.create_prior_boxes())
    draw_as_trained_on(train_set, 0, criterion)
    _, boxes, labels, _ = train_set[0]
    true_classes, _ = criterion.match([boxes], [labels])
    priors_px = (cxcy_to_xy(criterion.priors_cxcy) * PANEL)[true_classes[0] > 0]
    colours = [label_colour(number, 3) for number in true_classes[true_classes > 0].tolist()]
    priors = drawn[: len(colours)]
    assert torch.allclose(torch.tensor([box for box, _ in priors]), priors_px)
    assert [colour[:3] for _, colour in priors] == colours
    objects = drawn[len(colours) :]
    assert [box for box, _ in objects] == [
        tuple(map(round, box)) for box in (boxes * PANEL).tolist()
    ]
    assert [colour for _, colour in objects] == [label_colour(n, 3) for n in labels.tolist()]


def test_difficult_objects_are_marked_and_left_out_where_training_leaves_them_out(
    tmp_path, monkeypatch
):
    train_set = images_with(tmp_path, [entry((20, 20, 60, 60), (90, 20, 160, 80), difficult={1})])
    train_set.keep_difficult = False
    texts = []
    monkeypatch.setattr(preview, "draw_label", lambda pen, place, text, *_: texts.append(text))
    draw_as_read(train_set, 0)
    assert texts == ["cat", "cat (difficult)"]
    texts.clear()
    while not texts:  # an augmentation can lose the other object
        train_set.seed += 1
        draw_as_trained_on(train_set, 0, MultiBoxLoss(SSD300.create_prior_boxes()))
    assert texts == ["cat"]


def test_a_class_whose_letters_the_font_lacks_is_shown_as_its_number():
    font = load_font("", 14)
    assert label_text("traffic light", 3, font) == "traffic light"
    assert label_text("신호등", 3, font) == "class 3"


def test_images_of_rare_classes_are_among_the_chosen_ones(tmp_path):
    common = entry((0, 0, 50, 50), labels=[1])
    rare = entry((0, 0, 50, 50), labels=[2])
    train_set = images_with(tmp_path, [*[common] * 30, rare, rare], size=(50, 50))
    chosen = choose_images(train_set, 4)
    assert Counter(train_set.objects[i]["labels"][0] for i in chosen) == {1: 2, 2: 2}
    assert choose_images(train_set, 4) == chosen
    assert len(set(choose_images(train_set, 20))) == 20
    train_set.seed = 1
    assert choose_images(train_set, 4) != chosen


def test_images_without_objects_come_last_and_there_are_no_more_than_all(tmp_path):
    train_set = images_with(tmp_path, [entry(), entry((0, 0, 9, 9)), entry()], size=(50, 50))
    chosen = choose_images(train_set, 9)
    assert chosen[0] == 1
    assert sorted(chosen) == [0, 1, 2]


@pytest.mark.parametrize(("n_images", "n_columns", "n_rows"), [(1, 1, 1), (3, 2, 2), (6, 2, 3)])
def test_a_sheet_is_about_square(toy_folder, tmp_path, capsys, n_images, n_columns, n_rows):
    train_set = PascalVOCDataset(toy_folder, "TRAIN")
    path = tmp_path / "new folder" / "sheet.png"
    write_preview(train_set, n_images, path)
    with Image.open(path) as sheet:
        assert (sheet.width // (2 * PANEL), sheet.height // PANEL) == (n_columns, n_rows)
    assert str(path) in capsys.readouterr().out


# ------------------------------------------------------------------------------------- the scripts


def test_the_lists_come_with_a_preview_if_one_is_asked_for(tmp_path):
    changes = {"toy_classes": 2, "toy_images": 4, "toy_test_images": 1}
    for number in (0, 2):
        folder = tmp_path / str(number)
        main(Parameters(toy=True, toy_folder=str(folder), preview=number, **changes))
        assert (folder / "preview.png").exists() == (number > 0)


def test_a_preview_of_training_begins_no_run(toy_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "create_model", lambda *_: pytest.fail("there is a model"))
    assert train.main(settings(toy_folder, tmp_path / "new", preview=2, start_from="coco")) == []
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["preview.png"]


def test_a_preview_shows_the_priors_that_the_run_would_have(toy_folder, tmp_path, monkeypatch):
    matched = []

    def seen_pair(train_set, i, criterion):
        matched.append(criterion)
        return Image.new("RGB", (9, 9))

    monkeypatch.setattr(preview, "draw_pair", seen_pair)
    for number, name in enumerate(("paper", "released")):
        train.main(settings(toy_folder, tmp_path, preview=1, priors=name))
        assert torch.equal(matched[number].priors_cxcy, PRIORS[name]())


def test_a_preview_does_not_guess_the_priors_of_a_file(toy_folder, tmp_path):
    parameters = settings(toy_folder, tmp_path, preview=2, start_from="coco", priors="other")
    with pytest.raises(ValueError, match=r"paper or released: name one"):
        train.main(parameters)


def test_a_preview_is_of_a_new_run(toy_folder, tmp_path):
    parameters = settings(toy_folder, tmp_path, preview=2, checkpoint="auto")
    with pytest.raises(ValueError, match=r"--preview .*leave out --checkpoint"):
        train.main(parameters)


@pytest.mark.parametrize("script", [main, train.main])
def test_a_negative_number_of_images_is_an_error(script):
    parameters = Parameters if script is main else train.Parameters
    with pytest.raises(ValueError, match="preview: expected a number of at least 0, got -1"):
        script(parameters(preview=-1))


# --------------------------------------------------------------------------- what lies out of reach


def test_smaller_objects_overlap_no_prior_by_a_half_and_larger_squares_do(random):
    priors = cxcy_to_xy(SSD300.create_prior_boxes())
    centres = torch.rand(300, 2, generator=random) * 0.8 + 0.1
    ratios = (torch.rand(300, generator=random) * 4 - 2).exp()
    for factor, is_reached in ((0.999, False), (1.001, True)):
        side = factor * SMALLEST_SIDE / 300
        sizes = torch.full((300, 2), side)
        if not is_reached:
            sizes *= torch.stack([ratios**0.5, ratios**-0.5], dim=1)
        boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1)
        best = find_jaccard_overlap(boxes, priors).amax(dim=1)
        assert ((best >= 0.5) == is_reached).all()


def test_lists_of_a_folder_are_looked_at_once(toy_folder, tmp_path, capsys):
    main(Parameters(folder=str(toy_folder), output_folder=str(tmp_path), preview=2))
    assert capsys.readouterr().out.count("training images are drawn in") == 1
    assert (tmp_path / "preview.png").is_file()


@pytest.mark.parametrize(
    ("sides", "is_warned"),
    [
        # Images of 600 x 150 pixels: 42 x 10.5 are 21 x 21 in the network's input
        ([(42, 10.5), (200, 100)], True),
        ([(43, 10.7), (200, 100)], False),
        ([(42, 10.5), *[(200, 100)] * 2], False),  # a third is not yet too much
        ([(42, 10.5), (42, 10.5), *[(200, 100)] * 3], True),
    ],
    ids=str,
)
def test_a_class_of_which_more_than_a_third_is_small_is_named(tmp_path, sides, is_warned, capsys):
    small = [(0, 0, width, height) for width, height in sides]
    large = [(0, 0, 300, 100)] * 9
    objects = entry(*small, *large, labels=[2] * len(small) + [1] * len(large))
    train_set = images_with(tmp_path, [objects], size=(600, 150))
    warn_of_what_is_out_of_reach(train_set)
    n_small = sum(side == (42, 10.5) for side in sides)
    warning = f"small objects: dog {n_small} of {len(sides)} have less than 21 x 21 pixels"
    printed = capsys.readouterr().out
    assert (warning in printed) == is_warned
    assert ("small objects" in printed) == is_warned


@pytest.mark.parametrize(("n_long", "is_warned"), [(1, False), (2, True)])
def test_long_images_are_counted(n_long, is_warned):
    long = [(301, 100), (100, 301)][:n_long]
    sizes = dict(enumerate([*long, *[(300, 100)] * (20 - n_long)]))
    assert (f" {n_long} of 20 " in long_images(sizes)) == is_warned
    assert (long_images(sizes) != "") == is_warned


def test_of_many_images_some_are_looked_at(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(preview, "MAX_IMAGES_LOOKED_AT", 3)
    train_set = images_with(tmp_path, [entry((0, 0, 5, 5))] * 7, size=(600, 100))
    warn_of_what_is_out_of_reach(train_set)
    first, second = capsys.readouterr().out.splitlines()
    assert "cat 3 of 3 in 3 images" in first
    assert "3 of 3 " in second


def test_images_that_cannot_be_read_are_passed_over(tmp_path, capsys):
    train_set = images_with(tmp_path, [entry((0, 0, 50, 50))] * 3)
    for path, content in zip(train_set.images, (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"), strict=True):
        (tmp_path / path).write_bytes(content)
    warn_of_what_is_out_of_reach(train_set)
    assert capsys.readouterr().out == ""


def test_platelets_are_pointed_out_and_nothing_of_voc(blood_cells, voc_annotations, tmp_path):
    """Sizes are those that the annotations state; VOC's images are not here."""
    voc2007 = voc_annotations / "VOC2007"
    for folder, expected in ((blood_cells, ["Platelets 130 of 292"]), (voc2007, [])):
        create_data_lists(str(folder), "", tmp_path, labels="auto")
        train_set = PascalVOCDataset(tmp_path, "TRAIN", keep_difficult=True)
        sizes = {}
        for i, path in enumerate(train_set.images):
            annotation = path.replace("JPEGImages", "Annotations").replace(".jpg", ".xml")
            size = ElementTree.parse(annotation).find("size")
            sizes[i] = tuple(int(size.find(tag).text) for tag in ("width", "height"))
        warning = small_objects(train_set, sizes)
        assert re.findall(r"\w+ \d+ of \d+", warning) == expected
        assert long_images(sizes) == ""
