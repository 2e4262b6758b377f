"""
What a machine can tell about the README: its code runs, what it names exists, its tables follow
from the code, and both languages show the same. How a sentence is worded is nobody's business here.
"""

import dataclasses
import importlib
import inspect
import json
import operator
import re
import runpy
import shlex
import shutil
import textwrap
from unicodedata import east_asian_width
from urllib.parse import urlsplit

import pytest
import torch
from PIL import Image

import detect
import examples
from detection_figures import ap_example
from helpers.commands import is_understood, load
from helpers.folders import CAR, annotation_xml, make_voc
from helpers.pages import ROOT, Page, numbers, read_page
from kernel_figures import epoch_of, receptive_fields
from model import FEATURE_MAPS
from prior_figures import names_of_priors, priors_of_map
from train import Parameters, learning_rate, n_steps
from utils import IMAGE_SIZE, find_jaccard_overlap, rev_label_map

PAGES = {name: read_page(name) for name in ("README.md", "README.ko.md")}
README = PAGES["README.md"]
on_each_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)

MODULES = {path.stem: importlib.import_module(path.stem) for path in sorted(ROOT.glob("*.py"))}
SOURCES = [*ROOT.glob("*.py"), *(ROOT / "img").glob("*.py"), ROOT / "tests" / "benchmark.py"]
CODE = "".join(path.read_text(encoding="utf-8") for path in SOURCES)

# ---------------------------------------------------------------------------------- names and files

# Names in code spans that the code does not have, and why
OTHER_NAMES = {
    "source .venv/bin/activate": "a command of the shell",
    "bin": "a folder of a virtual environment",
    "Scripts": "a folder of a virtual environment on Windows",
    "photo.jpg": "a reader's photograph",
    "detections/photo_detections.png": "what is found in it",
    "ssd300_mAP_77.43_v2.pth": "weights of another project",
    "annotations/instances_train.json": "a reader's annotations",
    "previous_checkpoint_ssd300.pth.tar": "put together from two parts",
    "loc_conv4_3": "put together from two parts",
}


def words_of_the_code():
    """Everything that is called something in the code, and the parts of the files' names."""
    folders = ("", "img", "tests", "tests/helpers")
    files = [path.name for folder in folders for path in (ROOT / folder).iterdir()]
    return set(re.findall(r"\w+", " ".join([CODE, *files])))


def has(module, name):
    """Whether a dotted name leads somewhere from a module."""
    try:
        operator.attrgetter(name)(module)
    except AttributeError:
        return False
    return True


def is_known(span, words):
    """Whether the names in a code span are in the code, and `SSD300.forward` where it says."""
    owners = [module for module in MODULES.values() if has(module, span.split(".")[0])]
    if owners and re.fullmatch(r"[A-Z]\w+(\.\w+)+", span):
        return any(has(module, span) for module in owners)
    return all(word in words for word in re.findall(r"[A-Za-z_]\w*", span))


def is_command(span):
    return re.match(r"-|python |torchrun ", span) is not None


@on_each_page
def test_names_exist(page):
    words = words_of_the_code()
    names = [span for span in page.spans if not is_command(span) and span not in OTHER_NAMES]
    assert [name for name in names if not is_known(name, words)] == []
    for wrong in ("SSD300.forwards", "conv12_1", "find_iou(box)", "img/vgg19.png"):
        assert not is_known(wrong, words)


def test_names_are_in_the_files_that_they_are_said_to_be_in():
    """As in: `xy_to_cxcy` and `cxcy_to_xy` in [`utils.py`](utils.py)"""
    text = " ".join(README.text.split()).replace("*", "")
    said = re.findall(r"((?:`[\w.]+`(?:, and | and |, )?)+),? in \[`(\w+)\.py`\]", text)
    pairs = [(name, module) for names, module in said for name in re.findall(r"[\w.]+(?=`)", names)]
    assert len(pairs) >= 20
    wrong = [(name, module) for name, module in pairs if not has(MODULES[module], name)]
    assert wrong == []


@on_each_page
def test_departures_from_the_paper_are_those_of_the_code(page):
    in_code = re.findall(r"DEVIATION\(([\w-]+)\)", CODE)
    names = [[row[0].strip("`") for row in table[1:]] for table in page.tables]
    listed = max(names, key=lambda column: len(set(column) & set(in_code)))
    assert sorted(listed) == sorted(set(in_code))


# -------------------------------------------------------------------------------- links and figures


def broken_links(page):
    """Links into the repository that lead nowhere, and others that are no addresses."""
    broken = []
    for link in page.links:
        address = urlsplit(link)
        if address.scheme:
            is_right = address.scheme in ("http", "https") and "." in address.netloc
        elif address.path:
            is_right = (ROOT / address.path).exists()
        else:
            is_right = address.fragment in page.anchors
        broken += [] if is_right else [link]
    return broken


@on_each_page
def test_links_lead_somewhere(page):
    assert broken_links(page) == []
    assert PAGES.keys() & page.links  # to the other language


def test_broken_links_are_found():
    right = ["#a-b", "#a-b-1", "#맵-map", "README.md", "https://example.org/a_(b)"]
    wrong = ["#a-b-2", "util.py", "htp://example.org", "https://example"]
    links = " ".join(f"[x]({link})" for link in right + wrong)
    page = Page(f"# A, `b`\n## A, b\n# [맵](https://example.org)-map?\n{links}\n")
    assert page.links[1:] == right + wrong
    assert broken_links(page) == wrong


@on_each_page
def test_contents_list_every_part_in_order(page):
    """All parts that follow; the sections of a part all or not at all."""
    listed = re.findall(r"^( *)- \[(.+)\]\(#(.+)\)$", page.without_code, flags=re.MULTILINE)
    parts = []
    for heading, anchor in zip(page.headings, page.anchors, strict=True):
        if heading.level == 2:
            parts.append([])
        if heading.level in (2, 3):
            parts[-1].append(("  " * (heading.level - 2), heading.title, anchor))
    first = [part[0] for part in parts].index(listed[0])
    expected = []
    for part in parts[first:]:
        expected += part if set(part[1:]) & set(listed) else part[:1]
    assert listed == expected


@on_each_page
def test_every_figure_is_used_once_and_described(page):
    files = [path for path in (ROOT / "img").iterdir() if path.suffix in (".png", ".gif")]
    used = [figure.path for figure in page.figures]
    assert sorted(used) == sorted(f"img/{path.name}" for path in files)
    assert all(len(figure.text) > 20 for figure in page.figures)


# ----------------------------------------------------------------------------------------- commands

# Commands that are checked but not run, and why
NOT_RUN = {
    r"\bpip install\b": "installs",
    r"\bpytest\b": "runs these tests",
    r"\bmy_run\b|\bours\b": "goes on with a run that was not made",
    r"\btrain\.py\b": "trains for long; other tests train",
    r"--download\b|\bcoco\b": "downloads",
    r"\bbenchmark\.py\b": "takes many minutes; test_benchmark.py runs parts of it",
}
TEXT = "".join(code.text for code in README.codes if code.language == "bash")
BASH = [
    line.replace(".venv/bin/", "")
    for line in TEXT.replace("\\\n", "").splitlines()
    if line and not line.startswith("#")
]


@on_each_page
def test_commands_name_scripts_parameters_and_values_that_exist(page, capsys):
    blocks = [part for line in BASH for part in line.split(" && ") if ".py" in part]
    commands = blocks + [span for span in page.spans if is_command(span)]
    assert len(commands) >= 30
    assert [command for command in commands if not is_understood(command)] == []
    for wrong in ("python train.py --batchsize 8", "python eval.py --top-k many", "--labls"):
        assert not is_understood(wrong)
    capsys.readouterr()


@pytest.fixture
def workplace(tmp_path, monkeypatch, toy_folder, toy_checkpoint, toy_onnx, no_curves, one_thread):
    """The current folder with what the examples need: networks, a photograph, data, lists."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy" / "JPEGImages").mkdir(parents=True)
    for path in ("toy/checkpoint_ssd300.pth.tar", "checkpoint_ssd300.pth.tar"):
        (tmp_path / path).symlink_to(toy_checkpoint)
    (tmp_path / "ssd300.onnx").symlink_to(toy_onnx)
    image = min((toy_folder / "JPEGImages").iterdir())
    for path in ("toy/JPEGImages/000601.jpg", "photo.jpg"):
        shutil.copy(image, tmp_path / path)
    shutil.copytree(toy_folder, tmp_path / "data")
    annotations = {"a": annotation_xml(CAR), "b": annotation_xml(CAR)}
    for folder in ("VOCdevkit/VOC2007", "VOCdevkit/VOC2012", "my_folder"):
        make_voc(tmp_path / folder, annotations, {"c": annotation_xml(CAR)})
        for path in (tmp_path / folder / "JPEGImages").iterdir():
            Image.new("RGB", (100, 80)).save(path)  # as large as their annotations say
    detect.default_model.cache_clear()
    yield
    detect.default_model.cache_clear()


# A machine with few cores
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize(
    "command", [line for line in BASH if not any(re.search(part, line) for part in NOT_RUN)]
)
def test_commands_run(command, workplace, monkeypatch, capsys):
    python, *words = shlex.split(command)
    assert python == "python"
    monkeypatch.setattr("sys.argv", words)
    runpy.run_path(str(ROOT / words[0]), run_name="__main__")  # a script that fails exits
    assert capsys.readouterr().out != ""


# -------------------------------------------------------------------------------------- code blocks

# A block that begins with a file and a name ("# model.py, SSD300.forward") is taken from there
EXCERPT = re.compile(r"# (?P<file>[\w/]+)\.py, (?P<name>[\w.]+)\n(?P<code>.*)", flags=re.DOTALL)
BLOCKS = [code.text for code in README.codes if code.language == "python"]
EXCERPTS = [found for found in map(EXCERPT.fullmatch, BLOCKS) if found]
PYTHON = [block for block in BLOCKS if not EXCERPT.fullmatch(block)]


def run_block(block):
    """The variables that an example leaves."""
    namespace = {"__name__": "example"}
    exec(compile(block, "<README>", "exec"), namespace)
    return namespace


def test_code_is_of_known_languages():
    assert {code.language for code in README.codes} == {"bash", "json", "math", "python", "text"}


@on_each_page
def test_code_fits_a_page(page):
    """A wider line must be scrolled to be read; letters of Korean have the width of two."""
    for code in page.codes:
        for line in code.text.splitlines():
            width = sum(2 if east_asian_width(letter) in "FW" else 1 for letter in line)
            assert width <= 78, line


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=[found["name"] for found in EXCERPTS])
def test_code_on_the_page_is_that_of_the_files(excerpt):
    module = importlib.import_module(excerpt["file"].removeprefix("tests/").replace("/", "."))
    source = inspect.getsource(operator.attrgetter(excerpt["name"])(module))
    indented = [textwrap.indent(excerpt["code"], depth * " ") for depth in (0, 4, 8)]
    assert any(text in source for text in indented)


def test_the_passages_that_matter_are_shown():
    shown = {found["name"] for found in EXCERPTS}
    assert shown >= {"SSD300.forward", "MultiBoxLoss._confidence_loss", "take_step"}


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_examples_print_what_they_promise(block, workplace, capsys):
    """Beside a line that prints, a comment may say what."""
    run_block(block)
    printed = capsys.readouterr().out.splitlines()
    promised = re.findall(r"^print\(.*?\)(?:  # (.*))?$", block, flags=re.MULTILINE)
    assert len(printed) == len(promised) == block.count("print(")
    assert [is_there or line for is_there, line in zip(promised, printed, strict=True)] == printed


@pytest.mark.parametrize(
    "values",
    [
        {"first": examples.JACCARD_BOXES[0], "second": examples.JACCARD_BOXES[1]},
        {"image": examples.FC_IMAGE, "weights": examples.FC_WEIGHTS, "biases": examples.FC_BIASES},
        {"box": examples.OFFSETS_BOX},
        {
            "objects_px": [box for _, box in examples.MATCHING_OBJECTS],
            "priors_px": examples.MATCHING_PRIORS,
        },
        {
            "boxes": [box for *_, box in examples.NMS_CANDIDATES],
            "scores": [score for _, score, _ in examples.NMS_CANDIDATES],
        },
    ],
    ids="-".join,
)
def test_examples_compute_with_the_numbers_of_the_figures(values, capsys):
    block = next(code for code in PYTHON if all(f"\n{name} = " in code for name in values))
    namespace = run_block(block)
    for name, value in values.items():
        assert torch.allclose(namespace[name].squeeze(0).float(), torch.tensor(value).float()), name


def test_the_entry_of_a_list_looks_like_one(toy_folder):
    (shown,) = [json.loads(code.text) for code in README.codes if code.language == "json"]
    entry = json.loads((toy_folder / "TRAIN_objects.json").read_text())[0]
    assert list(shown) == list(entry)
    assert len(set(map(len, shown.values()))) == 1
    assert set(shown["labels"]) <= set(rev_label_map)


# ------------------------------------------------------------------------------------------- tables


def assert_table(rows):
    """
    Some table of the README has these numbers, cell by cell.

    :param rows: lists of cells, without the header; an empty cell stands for any words
    """
    expected = [[cell and numbers(cell) for cell in row] for row in rows]
    others = []
    for _, *table in README.tables:
        if [len(row) for row in table] == [len(row) for row in rows]:
            pairs = [list(zip(*both, strict=True)) for both in zip(rows, table, strict=True)]
            others.append([[cell and numbers(shown) for cell, shown in row] for row in pairs])
    assert expected in others


def short(number):
    """A number without needless zeros: 0.1, 1."""
    return f"{number:.4f}".rstrip("0").rstrip(".")


def test_table_of_all_priors():
    rows = []
    for name, feature_map in FEATURE_MAPS.items():
        priors = priors_of_map(name)
        height, width, per_tile, _ = priors.shape
        ratios = [other for other in names_of_priors(name) if other != "extra"]
        sides = [short(feature_map.scale), short(priors[0, 0, 1, 2])]
        counts = [f"{per_tile}", f"{height * width * per_tile}"]
        rows.append(["", f"{height} x {width}", *sides, " ".join(ratios), *counts])
    total = sum(int(row[-1]) for row in rows)
    rows.append([""] * 6 + [str(total)])
    assert_table(rows)


def test_table_of_average_precision():
    example = ap_example()
    recalls = (example["n_true"] / example["n_objects"]).tolist()
    rows = []
    for i, (score, image, box) in enumerate(examples.AP_DETECTIONS):
        objects = [other for number, other, _ in examples.AP_OBJECTS if number == image]
        overlaps = find_jaccard_overlap(torch.tensor([box]).float(), torch.tensor(objects).float())
        measured = [f"{score:.2f}", f"{overlaps.max():.3f}"]
        so_far = [f"{example['precision'][i]:.3f}", f"{recalls[i]:.1f}"]
        rows.append([str(i + 1), *measured, "", *so_far])
    assert_table(rows)


def test_table_of_receptive_fields():
    rows = []
    for name, (size, distance, _) in receptive_fields().items():
        covered = f"{3 / FEATURE_MAPS[name].side:.2f}"
        sides = [short(FEATURE_MAPS[name].scale), short(priors_of_map(name)[..., 2:].max())]
        rows.append(["", f"{distance}", covered, f"{size} {size / IMAGE_SIZE:.2f}", *sides])
    assert_table(rows)


def test_table_of_the_schedule():
    parameters = Parameters()
    total = n_steps(parameters)
    rows = []
    for part in (*parameters.decay_at, 1):
        step = round(part * total)
        rate = f"{learning_rate(step, parameters):.5f}".rstrip("0") if part < 1 else ""
        epoch = str(epoch_of(step, parameters))
        rows.append([rate, f"{step:,}", f"{step / 518:.1f}", epoch])
    assert_table(rows)


@pytest.mark.parametrize("script", ["eval.py", "detect.py"])
def test_table_of_parameters(script):
    defaults = dataclasses.asdict(load(script).Parameters())
    shown = {name: str(value or "none") for name, value in defaults.items()}
    tables = [{row[0].strip("`"): row[1] for row in table[1:]} for table in README.tables]
    assert any(table.items() <= shown.items() for table in tables)


# ---------------------------------------------------------------------------------------- languages


def test_both_languages_show_the_same():
    """The levels of the headings, figures, code, and the numbers in tables, in the same order."""
    assert PAGES["README.ko.md"].outline == README.outline


def test_formulas_and_bold_type_are_shown_as_such():
    """
    GitHub leaves a dollar as it is where a letter touches it from outside, and asterisks between
    punctuation and a letter. Both happen easily where particles follow without a space.
    """
    text = re.sub(r"`[^`]+`", "`x`", PAGES["README.ko.md"].without_code)
    for found in re.finditer(r"\$[^$]+\$|\*\*[^*]+\*\*", text):
        mark = found[0].strip("$*")
        for outside, inside in ((text[found.start() - 1], mark[0]), (text[found.end()], mark[-1])):
            is_plain = outside.isalnum() and (found[0][0] == "$" or not inside.isalnum())
            assert not is_plain, found[0]
