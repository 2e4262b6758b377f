"""The numbers of the README: those that follow from the code are computed (watched.py lists them), the rows of its tables too."""

import json
import math
import re
import statistics

import pytest
import torch
import torch.nn.functional as F

import detect
import facts
from annotations import read_image_ids
from conftest import shared_path
from downloads import ARCHIVES, describe_archive
from examples import AP_DETECTIONS, AP_OBJECTS, NMS_CANDIDATES
from facts import EVALUATION, PARAMETERS, layer, short, side
from folders import annotation_xml
from model import FEATURE_MAPS, match_priors
from pages import read_page
from train import learning_rate, n_steps
from utils import (
    IMAGE_SIZE,
    cxcy_to_xy,
    find_jaccard_overlap,
    label_map,
    parse_annotation,
    voc_labels,
)
from watched import WATCHED

README = read_page("README.md")
TEXT = " ".join(
    re.sub(r"\*+(?=\S)|(?<=\S)\*+", "", README.text).split()
)  # without bold and italic type


# -------------------------------------------------------------------------------------------------------------- sentences


def near_miss(sentence):
    """What the README says where the sentence should be, whatever its numbers are; None if it has no such sentence."""
    parts = re.split(r"\{\d*(?::[^{}]*)?\}", sentence.replace("{{", "\0").replace("}}", "\1"))
    pattern = r"(.{1,12}?)".join(
        re.escape(part.replace("\0", "{").replace("\1", "}")) for part in parts
    )
    found = re.search(pattern, TEXT, flags=re.IGNORECASE)
    return found and found[0]


@pytest.mark.parametrize(
    ("sentence", "compute"), [entry[1:] for entry in WATCHED], ids=[entry[0] for entry in WATCHED]
)
def test_number(sentence, compute):
    right = sentence.format(*compute())
    is_there = (
        right.lower() in TEXT.lower()
    )  # a numeral that begins a sentence has a capital letter
    assert is_there, f"should be: {right!r}; is: {near_miss(sentence)!r}"


def test_every_number_that_is_watched_has_a_name_of_its_own():
    names = [name for name, _, _ in WATCHED]
    assert len(names) == len(set(names)) > 150


@pytest.mark.parametrize(
    ("name", "sentence", "compute"),
    [entry for entry in WATCHED if entry[0] in ("tiles", "their losses")],
)
def test_a_wrong_number_would_be_found(name, sentence, compute):
    numbers = [*compute()]
    numbers[-1] += 0.01
    assert sentence.format(*numbers) not in TEXT
    assert near_miss(sentence) is not None


def test_the_number_of_priors_is_the_same_everywhere():
    number = (
        facts.offsets().number
    )  # of the prior in the example of offsets; 8700: the negatives, rounded
    assert set(re.findall(r"(?<![\d.])8\d{3}\b", TEXT)) == {
        f"{len(facts.priors())}",
        f"{number}",
        f"{number + 1}",
        "8700",
    }


def test_shares_of_positives_and_negatives():
    """From the mean number of positive priors, which test_numbers_of_voc counts."""
    positives, negatives = (
        int(re.search(r"(\d+) of them are positive on average", TEXT)[1]),
        re.search(r"the (\d+) neg", TEXT)[1],
    )
    assert int(negatives) == round(len(facts.priors()) - positives, -2)
    share = positives / len(facts.priors())
    assert f"{facts.word(round(1000 * share))} in a thousand" in TEXT
    assert f"right {round(1000 * (1 - share))} times in a thousand" in TEXT


def test_the_formula_of_smooth_l1():
    difference = torch.tensor([0.4, -0.9, 1.5, -3.0])
    loss = F.smooth_l1_loss(difference, torch.zeros(4), reduction="none")
    assert torch.allclose(
        loss, torch.where(difference.abs() < 1, difference**2 / 2, difference.abs() - 1 / 2)
    )
    assert r"\frac{1}{2} d^2 & \text{if } |d| < 1 \\ |d| - \frac{1}{2} & \text{otherwise}" in TEXT


def test_as_many_ideas_as_promised():
    (section,) = [section for section in README.sections if section.title == "Concepts"]
    n_ideas = sum(line.startswith("- **") for line in section.lines)
    assert f"{facts.word(n_ideas).capitalize()} ideas" in TEXT


def test_the_classes_are_those_of_voc():
    quoted = [line.removeprefix("> ") for line in README.text.splitlines() if line.startswith("> ")]
    assert " ".join(quoted) == ", ".join(voc_labels)


def test_the_box_of_the_remark_on_coordinates(tmp_path):
    (tmp_path / "a.xml").write_text(annotation_xml(("car", (1, 1, 3, 3))))
    assert parse_annotation(tmp_path / "a.xml")[0]["box"] == [0, 0, 3, 3]
    assert "a box from 1 to 3 covers three pixels" in TEXT
    assert "the first pixel reaches from 0 to 1, and the same box from 0 to 3" in TEXT


def test_addresses_of_the_archives():
    for year, image_set, _ in ARCHIVES:
        assert f"[VOC{year} {image_set}](" in README.text
        assert f"/{describe_archive(year, image_set)['filename']})" in README.text


# ----------------------------------------------------------------------------------------------------------------- tables


def bare(rows):
    """Rows without bold and italic type and without the marks of code."""
    return [[re.sub(r"[*`]", "", cell) for cell in row] for row in rows]


def shape_text(shape):
    return f"(N, {', '.join(map(str, shape))})"


def test_table_of_fully_connected_layers():
    outputs, channels, height, width = facts.decimated()[0]
    (fc7,) = facts.vgg16()["fc7"]
    inputs = channels * height * width
    assert bare(README.table("layer", "as published")) == [
        [
            "fc6", f"a map of {channels} channels with {height} x {width} tiles, {inputs:,} numbers, to {outputs} outputs",
            f"{outputs} kernels of {channels} x {height} x {width}",
        ],
        ["fc7", f"{outputs} numbers to {fc7} outputs", f"{fc7} kernels of {outputs} x 1 x 1"],
    ]  # fmt: skip


def test_table_of_auxiliary_convolutions():
    rows, before = [], side("conv7")
    for name in list(FEATURE_MAPS)[2:]:
        first, second = layer(name.replace("_2", "_1")), layer(name)
        (stride, _), (padding, _), (kernel, _) = second.stride, second.padding, second.kernel_size
        after = (
            math.floor((before + 2 * padding - kernel) / stride) + 1
        )  # the formula above the table
        assert after == side(name)
        how = f"stride {stride}, {f'padding {padding}' if padding else 'no padding'}"
        pair = name.replace("_2", "_1") + ", " + name
        rows.append(
            [
                pair,
                f"{first.out_channels} channels",
                how,
                f"{before} to {after}",
                str(second.out_channels),
            ]
        )
        before = after
    assert bare(README.table("pair")) == rows


def test_table_of_priors_on_a_tile():
    sizes = facts.priors_of("conv9_2")[2, 2, :, 2:].tolist()
    names = ["1:1, extra" if name == "extra" else name for name in facts.prior_names("conv9_2")]
    rows = [
        [name, f"{width:.4f}", f"{height:.4f}"]
        for name, (width, height) in zip(names, sizes, strict=True)
    ]
    assert bare(README.table("prior", "width")) == rows


def test_table_of_all_priors():
    rows = []
    for name in FEATURE_MAPS:
        ratios = ", ".join(other for other in facts.prior_names(name) if other != "extra")
        extra = short(float(facts.priors_of(name)[0, 0, 1, 2]))
        tiles, ratios = f"{side(name)} x {side(name)}", f"{ratios}, and the extra one"
        rows.append(
            [
                name,
                tiles,
                short(facts.scale(name)),
                extra,
                ratios,
                f"{facts.per_tile(name)}",
                f"{facts.n_priors(name)}",
            ]
        )
    rows.append(["all", "", "", "", "", "", str(len(facts.priors()))])
    assert bare(README.table("map", "tiles")) == rows


def test_table_of_prediction_convolutions():
    shapes = facts.shapes()
    rows = []
    for name in FEATURE_MAPS:
        feature_map, loc, cl = (shape_text(shapes[prefix + name]) for prefix in ("", "loc_", "cl_"))
        rows.append([name, feature_map, str(facts.per_tile(name)), loc, cl])
    assert bare(README.table("map", "its shape (N, channels, side, side)")) == rows
    assert f"{facts.N_CLASSES} classes |" in README.text


def test_table_of_matching():
    example = facts.matching()
    rows = []
    for number, name in enumerate(example["names"]):
        mine = example["positive"] & (example["object"] == number)
        values = [f"{value:.3f}" for value in example["overlap"][number]]
        cells = [
            f"**{value}**" if is_mine else value
            for value, is_mine in zip(values, mine, strict=True)
        ]
        rows.append([name.removeprefix("potted"), *cells])
    assert README.table("Jaccard overlap", "prior 1") == rows


def test_table_of_suppression():
    numbers = [number for number, (name, *_) in enumerate(NMS_CANDIDATES, start=1) if name == "cat"]
    rows = [
        [f"{number}, cat {facts.score_of(number)}"]
        + [
            "1" if other == number else f"{facts.overlap_of(number, other):.3f}"
            for other in numbers
        ]
        for number in numbers
    ]
    assert bare(README.table("Jaccard overlap", "1")) == rows


def test_table_of_everything():
    rows = {row[0]: row[1:3] for row in bare(README.table("step", "what comes out"))}
    locs, scores = ((1, len(facts.priors()), values) for values in (4, facts.N_CLASSES))
    one = {name: (1, *shape) for name, shape in facts.shapes().items()}
    assert rows["read, resize, normalise"][1] == str((1, 3, IMAGE_SIZE, IMAGE_SIZE))
    assert rows["base convolutions"][1] == f"{one['conv4_3']}, {one['conv7']}"
    assert rows["auxiliary convolutions"] == [
        "four smaller maps",
        f"{one['conv8_2']} to {one['conv11_2']}",
    ]
    assert rows["prediction convolutions"][1] == f"{locs}, {scores}"
    assert rows["in training: match"][1] == str(locs[:2])
    assert rows["in use: softmax"][1] == str(scores)


def test_table_of_the_schedule():
    steps = facts.steps_an_epoch()
    rows = []
    for step, rate in [*facts.falls(), (n_steps(PARAMETERS), None)]:
        what = "the end" if rate is None else f"the rate falls to {short(rate, 5)}"
        rows.append([what, f"{step:,}", f"{step / steps:.1f}", str(facts.epoch_of(step))])
    assert bare(README.table("", "iteration")) == rows
    assert [row[-1] for row in rows] == ["155", "194", "232"]
    assert f"divided by {steps} |" in README.text
    first_fall = facts.falls()[0][0]
    assert learning_rate(first_fall - 1, PARAMETERS) == pytest.approx(
        10 * learning_rate(first_fall, PARAMETERS)
    )


def test_table_of_the_evaluations_settings():
    rows = bare(README.table("parameter", "value"))
    assert rows != []
    assert [row[:2] for row in rows] == [[row[0], str(getattr(EVALUATION, row[0]))] for row in rows]


def test_table_of_the_parameters_of_detection():
    defaults = detect.Parameters()
    rows = bare(README.table("parameter", "default"))
    assert [row[0] for row in rows] == ["min_score", "max_overlap", "top_k", "suppress"]
    assert [row[1] for row in rows] == [str(getattr(defaults, row[0]) or "none") for row in rows]
    call = re.search(r'detect\(Image.open\("photo.jpg"\), (.*)\)', README.text)[1]
    assert (
        call
        == f"min_score={defaults.min_score}, max_overlap={defaults.max_overlap}, top_k={defaults.top_k}"
    )


def test_table_of_ranked_detections():
    example, words = (
        facts.ranking(),
        {"true": "true", "false": "false: ", "ignored": "does not count: "},
    )
    rows = bare(README.table("rank", "score"))
    recalls = (example["n_true"] / example["n_objects"]).tolist()
    for rank, (row, (score, image, box)) in enumerate(zip(rows, AP_DETECTIONS, strict=True)):
        others = torch.tensor([other for number, other, _ in AP_OBJECTS if number == image]).float()
        overlap = float(find_jaccard_overlap(torch.tensor([box]).float(), others).max())
        numbers = [
            str(rank + 1),
            f"{score:.2f}",
            f"{overlap:.3f}",
            f"{example['precision'][rank]:.3f}",
            f"{recalls[rank]:.1f}",
        ]
        assert [row[i] for i in (0, 1, 2, 4, 5)] == numbers
        assert row[3].startswith(words[example["judgement"][rank]])


def test_table_of_the_receptive_field_layer_by_layer():
    field, distance = 1, 1
    modules = {
        **dict(facts.network().base.named_children()),
        **dict(facts.network().pred_convs.named_children()),
    }
    for layers, adds, last_field, last_distance in bare(README.table("layers", "adds, pixels")):
        reaches = []
        for name in layers.split(", "):
            module = modules[name]
            kernel, stride = (
                value if isinstance(value, int) else value[0]
                for value in (module.kernel_size, module.stride)
            )
            reaches.append((kernel - 1) * distance)
            if name.startswith("cl_"):  # beside loc_, not after it
                assert reaches[0] == reaches.pop()
                continue
            field, distance = field + reaches[-1], distance * stride
        assert (adds, last_field, last_distance) == (
            " + ".join(map(str, reaches)),
            str(field),
            str(distance),
        )
    assert field == facts.fields()[0]["conv4_3"]


def test_table_of_receptive_fields():
    fields, distances = facts.fields()
    rows = [
        [
            name, f"{distances[name]} px", f"{3 / side(name):.2f}", f"{fields[name]} px = {fields[name] / IMAGE_SIZE:.2f}",
            short(facts.scale(name)), short(facts.longest_prior(name)),
        ]
        for name in FEATURE_MAPS
    ]  # fmt: skip
    assert bare(README.table("map", "distance of tiles")) == rows


# ---------------------------------------------------------------------------------------------- published, measured, counted


def test_mean_of_the_published_table():
    rows = bare(README.table("class", "AP, published there"))
    assert [row[0] for row in rows] == [*voc_labels, "mean"]
    values = [float(row[1]) for row in rows]
    assert values[-1] == round(statistics.mean(values[:-1]), 1)
    lowest = [row[0] for row in sorted(rows, key=lambda row: float(row[1]))[:3]]
    assert lowest == ["bottle", "pottedplant", "chair"]  # as the sentence below the table says
    assert "The lowest figures are those of bottles, potted plants and chairs" in TEXT


def test_published_figures_are_those_of_their_sources():
    notes = shared_path("docs/field-notes.md").read_text(encoding="utf-8")
    published = {}
    for row in re.findall(r"^\| .*\d \|$", notes[notes.index("## G.") :], flags=re.MULTILINE):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        published |= dict(zip(cells[::2], cells[1::2], strict=True))
    rows = {row[0]: row[1] for row in bare(README.table("class", "AP, published there"))}
    assert {name: rows[name] for name in voc_labels} == published
    figures = [
        row[1] for row in bare(README.table("source", "mAP")) if row[1] != "not measured yet"
    ]
    figures += re.findall(
        r"\d\d\.\d+(?=[ ,]|$)", " ".join(row[-1] for row in bare(README.table("weights")))
    )
    figures += re.search(r"of (\S+) without it and (\S+) with it", TEXT).groups()
    figures += re.search(r"(\S+) mAP without and (\S+) with clipping", TEXT).groups()
    figures += re.search(r"points, from (\S+) to (\S+), by zooming out", TEXT).groups()
    assert len(figures) >= 16
    assert [figure for figure in figures if figure not in notes] == []
    addresses = re.findall(r"https://drive\.google\.com/[^\s)]+", README.text)
    assert len(addresses) == 2
    assert all(address in notes for address in addresses)
    assert "its checkpoint of epoch 186" in TEXT
    assert "epoch 186" in notes


def test_differences_of_published_figures():
    gain, low, high = re.search(r"gains (\S+) points, from (\S+) to (\S+), by", TEXT).groups()
    assert float(gain) == round(float(high) - float(low), 1)


def test_measured_figures_fit_together():
    """The mean of the rounded classes may differ from the rounded mean by a tenth."""
    *classes, mean = map(
        float,
        re.search(
            r"AP (\S+) white cells, (\S+) red cells, (\S+) platelets; mAP (\S+) \|", TEXT
        ).groups(),
    )
    assert statistics.mean(classes) == pytest.approx(mean, abs=0.1)
    images, steps, size = map(
        int,
        re.search(
            r"(\d+) to train on, \d+ to test on\), (\d+) steps of (\d+) images", TEXT
        ).groups(),
    )
    assert steps % math.ceil(images / size) == 0  # training is measured at the ends of epochs


def test_numbers_of_blood_cells(blood_cells):
    trained, tested = map(int, re.search(r"(\d+) to train on, (\d+) to test on", TEXT).groups())
    counts = []
    for image_set in ("trainval", "test"):
        ids = read_image_ids(blood_cells, image_set)
        counts.append(len(ids))
    assert counts == [trained, tested]


@pytest.mark.slow
def test_numbers_of_voc(voc_annotations):
    """The table of the data set, and what of VOC2007's training images the text tells about priors."""
    counts = {}
    for year, image_set in (("2007", "trainval"), ("2012", "trainval"), ("2007", "test")):
        folder = voc_annotations / f"VOC{year}"
        paths = [
            folder / "Annotations" / f"{name}.xml" for name in read_image_ids(folder, image_set)
        ]
        counts[year, image_set] = [
            [obj for obj in parse_annotation(path) if obj["box"] is not None] for path in paths
        ]
    n_images = {key: len(images) for key, images in counts.items()}
    n_objects = {key: sum(map(len, images)) for key, images in counts.items()}
    tested = [obj for objects in counts["2007", "test"] for obj in objects]
    n_easy = sum(not obj["difficult"] for obj in tested)
    rows = [
        [
            f"VOC{year} {image_set}",
            f"{n_images[year, image_set]:,}",
            f"{n_objects[year, image_set]:,}",
            "training",
        ]
        for year, image_set in (("2007", "trainval"), ("2012", "trainval"))
    ]
    both = [
        sum(numbers[year, "trainval"] for year in ("2007", "2012"))
        for numbers in (n_images, n_objects)
    ]
    rows.append(["together", *(f"{number:,}" for number in both), "training"])
    objects = f"{n_objects['2007', 'test']:,}, of them {n_easy:,} not difficult"
    rows.append(["VOC2007 test", f"{n_images['2007', 'test']:,}", objects, "testing"])
    assert bare(README.table("set", "images")) == rows
    assert both[0] == facts.TRAINING_IMAGES

    (entry,) = [json.loads(code.text) for code in README.codes if code.language == "json"]
    first = parse_annotation(voc_annotations / "VOC2007/Annotations/000001.xml")
    assert entry["boxes"] == [obj["box"] for obj in first]
    assert entry["labels"] == [label_map[obj["name"]] for obj in first]


@pytest.mark.slow
def test_priors_of_voc(voc_annotations):
    """How many priors the objects of VOC2007's training images have, and how many objects overlap none by half."""
    folder = voc_annotations / "VOC2007"
    priors_xy = cxcy_to_xy(facts.priors())
    n_positives, n_objects, n_without = [], 0, 0
    for name in read_image_ids(folder, "trainval"):
        path = folder / "Annotations" / f"{name}.xml"
        size = [
            float(re.search(rf"<{edge}>(\d+)<", path.read_text())[1])
            for edge in ("width", "height")
        ]
        boxes = torch.tensor(
            [obj["box"] for obj in parse_annotation(path) if obj["box"] is not None]
        ) / torch.tensor(size * 2)
        n_objects += len(boxes)
        n_without += int((find_jaccard_overlap(boxes, priors_xy).amax(dim=1) < 0.5).sum())
        n_positives.append(
            int(
                match_priors(
                    boxes[None], torch.ones(1, len(boxes), dtype=torch.bool), priors_xy, 0.5
                )[1].sum()
            )
        )
    share = f"{100 * n_without / n_objects:.1f}%"
    assert (
        f"of the {n_objects:,} objects in VOC2007's training images (`trainval`, unaugmented), {n_without} ({share})"
        in TEXT
    )
    mean, median = statistics.mean(n_positives), statistics.median(n_positives)
    assert f"{mean:.0f} of them are positive on average (the median is {median:.0f})" in TEXT
