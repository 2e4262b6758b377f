"""The README tells the truth: what it names exists, its links lead somewhere, its figures are there and its examples run."""

import ast
import dataclasses
import importlib
import inspect
import json
import re
import runpy
import shlex
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
import torchvision
from PIL import Image

import benchmark
import examples
from draw_figures import all_figures
from folders import CAR, annotation_xml, make_voc
from model import SSD300
from pages import ROOT, Page, read_page
from runtime import read_command_line
from utils import IMAGE_SIZE

PAGES = ("README.md", "README.ko.md")
README = read_page("README.md")
MODULES = {path.stem: importlib.import_module(path.stem) for path in sorted(ROOT.glob("*.py"))}
SCRIPTS = {name: module for name, module in MODULES.items() if hasattr(module, "Parameters")} | {
    "benchmark": benchmark
}
POSITIONAL = {"detect": ("images",), "convert_weights": ("source", "output")}
TREES = {name: ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES}


@pytest.fixture(params=PAGES)
def page(request):
    return read_page(request.param)


# ------------------------------------------------------------------------------------------------------ files and symbols

# Names in code spans that are not this project's, or stand for a reader's own: why they can not be looked up
NAMES_OF_OTHERS = {
    "fc6": "a layer of VGG-16 as published",
    "fc7": "a layer of VGG-16 as published",
    "fc8": "a layer of VGG-16 as published",
    "ssd300_mAP_77.43_v2.pth": "weights of another project",
    "vgg16_reducedfc.pth": "weights of another project",
    "photo.jpg": "a reader's photograph",
    "python": "the interpreter",
    "source .venv/bin/activate": "a command of the shell",
    "bin": "a folder of a virtual environment",
    "Scripts": "a folder of a virtual environment on Windows",
    "xy": "a format of boxes: the ending of names",
    "cxcy": "a format of boxes: the ending of names",
    "gcxgcy": "a format of boxes: the ending of names",
    "<size>": "a tag of VOC's annotations",
    "torchrun": "PyTorch's launcher of several processes",
    "previous_checkpoint_ssd300.pth.tar": "save_checkpoint puts the beginning before any name; tests/test_resume.py looks for it",
}
PYTORCH = (
    torch,
    torch.Tensor,
    torch.nn.Module,
    torch.nn.parallel,
    torch.amp,
    torchvision.models.detection,
)


def arguments(function):
    return {argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]}


@pytest.fixture(scope="module")
def symbols():
    """What the code defines: modules, functions, their arguments, classes, their attributes, layers, and texts such as keys."""
    names = set(MODULES) | {"DEVIATION"}
    for name, module in MODULES.items():
        names |= set(vars(module))
        names |= set(re.findall(r"DEVIATION\(([\w-]+)\)", inspect.getsource(module)))
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.FunctionDef):
                names |= arguments(node)
            if isinstance(node, ast.ClassDef):
                names |= set(vars(getattr(module, node.name, object)))
                names |= set(
                    getattr(getattr(module, node.name, object), "__dataclass_fields__", ())
                )
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(r"\.?[\w-]+", node.value)
            ):
                names.add(node.value)
    with torch.device("meta"):
        model = SSD300(21, pretrained=False)
    for path, layer in model.named_modules():
        names |= {*path.split("."), *vars(layer)}
    return (
        names
        | {name for path in model.state_dict() for name in path.split(".")}
        | {name for name, _ in model.named_buffers()}
    )


@pytest.fixture(scope="module")
def written_names():
    """Patterns of the texts in the code that name files: what stands between braces in an f-string may be any name."""
    texts = []  # lists of parts, None for braces
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append([node.value])
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    [part.value if isinstance(part, ast.Constant) else None for part in node.values]
                )
    return {
        "".join(r"[\w-]+" if part is None else re.escape(part) for part in parts)
        for parts in texts
        if re.search(
            r"\w{4}.*\.\w+$", "".join(part or "" for part in parts)
        )  # some of the name, and its ending
    }


def is_known_file(path, written_names, toy_folder):
    """
    Whether a file is part of the repository, belongs to a folder in VOC layout (`x` stands for any name there), or is named in
    the code, by its last part.
    """
    if any((folder / path).exists() for folder in (ROOT, ROOT / "tests", toy_folder)):
        return True
    if Path(path).stem == "x":
        return any(toy_folder.glob(str(Path(path).with_stem("*"))))
    return any(re.fullmatch(pattern, Path(path).name) for pattern in written_names)


def lookup(path):
    """Whether a dotted name leads somewhere, from a module of ours, from what stands in one, or from PyTorch."""
    first, *others = path.split(".")
    starts = [
        getattr(place, first) for place in (*MODULES.values(), *PYTORCH) if hasattr(place, first)
    ]
    starts += [MODULES[first]] if first in MODULES else []
    for start in starts:
        for name in others:
            start = getattr(start, name, None)
        if start is not None:
            return start
    return None


def unknown_in(span, symbols):
    """The names in a code span that nothing in the code is called: it is read as what stands between the brackets of a call."""
    if span.endswith("..."):
        return [] if any(name.startswith(span[:-3]) for name in symbols) else [span]
    if re.fullmatch(r"\.?[\w-]+=?", span):
        name = span.removesuffix("=")
        return [] if name in symbols or lookup(name) is not None else [name]
    unknown = []
    for node in ast.walk(ast.parse(f"_({span})").body[0].value):
        if isinstance(node, ast.Attribute) and lookup(ast.unparse(node)) is None:
            unknown.append(ast.unparse(node))
        if (
            isinstance(node, ast.Name)
            and node.id not in {"_", *symbols}
            and lookup(node.id) is None
        ):
            unknown.append(node.id)
        if isinstance(node, ast.Call):
            called = lookup(ast.unparse(node.func))
            known = (
                inspect.signature(called).parameters if callable(called) else symbols
            )  # symbols: for the outer call, `_`
            unknown += [f"{keyword.arg}=" for keyword in node.keywords if keyword.arg not in known]
    return unknown


def is_command(span):
    return span.startswith("-") or span.split()[0] in ("python", "source")


def test_every_name_exists(page, symbols, written_names, toy_folder):
    missing = []
    for span in dict.fromkeys(page.spans):
        if span in NAMES_OF_OTHERS or is_command(span):
            continue
        if is_known_file(span, written_names, toy_folder):
            continue
        try:
            missing += [f"{name} (in `{span}`)" for name in unknown_in(span, symbols)]
        except SyntaxError:
            missing.append(span)
    assert missing == []


def test_names_of_others_are_still_in_the_readme():
    assert set(NAMES_OF_OTHERS) <= set(README.spans)


@pytest.mark.parametrize(
    "span",
    ["SSD300.forwards", "conv12_1", "MultiBoxLoss.matches", "checkpoint_ssd512.pth.tar", "find_iou(box)", "detect(min=0.2)",
     "torch.lode(weights_only=True)", "torch.load(weights=True)", "img/vgg19.png", "box_...", "JPEGImages/x.bmp"],
)  # fmt: skip
def test_a_name_that_does_not_exist_is_found(span, symbols, written_names, toy_folder):
    assert not is_known_file(span, written_names, toy_folder)
    assert "/" in span or unknown_in(span, symbols) != []


def test_names_are_in_the_files_that_they_are_said_to_be_in(page):
    """As in: `xy_to_cxcy` and `cxcy_to_xy` in [`utils.py`](utils.py)"""
    pairs = []
    for names, module in re.findall(
        r"((?:`[\w.]+`(?:, and | and |, )?)+),? in \[`(\w+)\.py`\]", page.plain
    ):
        pairs += [(name, module) for name in re.findall(r"`([\w.]+)`", names)]
    if page.text == README.text:  # the other page has other words between them
        assert len(pairs) >= 25
    for name, module in pairs:
        place = MODULES[module]
        for part in name.split("."):
            assert hasattr(place, part), f"{name} is not in {module}.py"
            place = getattr(place, part)


# ------------------------------------------------------------------------------------------------- links, contents, figures


def faults_of_links(page):
    """What is wrong with a page's links: those in the repository have to lead somewhere, others only to be well formed."""
    faults = [
        f"[{name}] has no address" for _, name in page.references if name not in page.definitions
    ]
    faults += [
        f"[{name}] is not used"
        for name in page.definitions
        if name not in [name for _, name in page.references]
    ]
    n_brackets = len(re.findall(r"\]\(", page.without_code))
    if n_brackets != len(page.links):
        faults.append(f"{n_brackets} links, of which {len(page.links)} can be read")
    for target in [link.target for link in page.links] + list(page.definitions.values()):
        address = urlsplit(target)
        if address.scheme:
            if address.scheme not in ("http", "https") or not re.fullmatch(
                r"[\w-]+(\.[\w-]+)+", address.netloc
            ):
                faults.append(f"{target}: no address")
        elif not address.path:
            if address.fragment not in page.anchors:
                faults.append(f"{target}: no such heading")
        elif not (ROOT / address.path).exists():
            faults.append(f"{target}: no such file")
    return faults


def test_links_lead_somewhere(page):
    assert faults_of_links(page) == []
    assert len(page.links) > 150


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[x](utils.py) [y](util.py)", "util.py: no such file"),
        ("# A b\n[x](#a-b) [y](#a-c)", "#a-c: no such heading"),
        ("[x](https://example.org/a_(b)) [y](htp://example.org)", "htp://example.org: no address"),
        ("[x](https://example)", "https://example: no address"),
        ("[x][y]", "[y] has no address"),
        ("[y]: https://example.org", "[y] is not used"),
        ("[x](two words)", "1 links, of which 0 can be read"),
    ],
)
def test_a_broken_link_is_found(text, fault):
    assert faults_of_links(Page(text)) == [fault]


def test_anchors_follow_githubs_rule():
    """Lower case, punctuation dropped, hyphens for spaces; the second of two equal ones is numbered; all letters stay."""
    page = Page(
        "# A, b & `c_d`: why?\n## A 3 x 3\n## A 3 x 3\n## [L1](https://example.org) or smooth L1?\n## 매칭(match)은?\n"
    )
    assert page.anchors == [
        "a-b--c_d-why",
        "a-3-x-3",
        "a-3-x-3-1",
        "l1-or-smooth-l1",
        "매칭match은",
    ]


def test_contents_list_every_part_in_order(page):
    """All headings of the second and third level that follow; the questions only as a whole."""
    number = next(
        i
        for i, section in enumerate(page.sections)
        if [line[:3] for line in section.lines].count("- [") > 5
    )
    listed = [
        re.fullmatch(r"( *)- \[(.+)\]\(#(.+)\)", line).groups()
        for line in page.sections[number].lines
        if line
    ]
    questions = [section.title for section in README.sections if section.level == 2].index(
        "Frequently asked questions"
    )
    parts, part = [], -1
    for section, anchor in zip(page.sections[1:], page.anchors, strict=True):
        part += section.level == 2
        is_question = section.level == 3 and part == questions
        if page.sections.index(section) > number and section.level in (2, 3) and not is_question:
            parts.append(("  " * (section.level - 2), section.title, anchor))
    assert listed == parts


def test_every_figure_is_drawn_by_the_script_and_used(page):
    used = [figure.target for figure in page.figures]
    assert len(used) == len(set(used))
    figures, trained = all_figures()
    assert set(used) == {f"img/{name}" for name in figures | trained}
    assert set(used) == {
        f"img/{path.name}" for path in (ROOT / "img").iterdir() if path.suffix in (".png", ".gif")
    }
    assert all(len(figure.text) > 20 for figure in page.figures)


# ------------------------------------------------------------------------------------------------------------ code blocks

# Commands that the tests do not run, and why; all others are run
NOT_RUN = {
    "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/python train.py --toy": "installs, trains",
    "python train.py --toy --toy-classes 20 --toy-images 5000 --batch-size 32 --iterations 4000 --workers 8": "needs a GPU",
    'python3 -m venv .venv && .venv/bin/pip install -r requirements-dev.txt && .venv/bin/python -m pytest -m "not slow"':
        "installs, and is what runs this test",
    "python create_data_lists.py --download": "downloads 2.9 GB",
    "python train.py --data-folder my_data": "downloads 528 MB, needs a GPU",
    "python tests/benchmark.py": "takes twenty minutes; tests/test_benchmark.py runs parts of it",
    "python train.py": "downloads 528 MB, needs a GPU for a day",
    "python train.py --checkpoint auto": "needs a GPU for a day",
    "torchrun --nproc_per_node=4 train.py": "needs four GPUs; tests/test_distributed.py does the like with processors",
    "torchrun --nnodes=2 --node_rank=0 --nproc_per_node=4 --master_addr=first-machine --master_port=29500 train.py":
        "needs two machines",
    "python detect.py photo.jpg --checkpoint coco": "downloads 136 MB",
}  # fmt: skip
COMMANDS = [
    line for code in README.codes if code.language == "bash" for line in code.text.splitlines()
]
PYTHON_BLOCKS = [code.text for code in README.codes if code.language == "python"]


def parse_command(command, name):
    """The parameters that a command or a part of one, such as `--lr 1e-4`, gives a script."""
    used = re.search(r"(\w+)\.py\b", command)
    words = shlex.split(command[used.end() :] if used else command)
    positional = POSITIONAL.get(name, ()) if used else ()
    return read_command_line(SCRIPTS[name].Parameters, "", words, positional)


def is_understood(command):
    """Whether the script that a command names, or any script if it names none, knows all its flags and values."""
    used = re.search(r"(\w+)\.py\b", command)
    options = (
        command[used.end() :] if command.startswith("torchrun") else command
    )  # those before the script are torchrun's
    flags = {
        flag.removeprefix("no-").replace("-", "_")
        for flag in re.findall(r"(?:^| )--([\w-]+)", options)
    } - {"help"}
    for name in [used[1]] if used else SCRIPTS:
        if not flags <= {field.name for field in dataclasses.fields(SCRIPTS[name].Parameters)}:
            continue
        try:
            parse_command(command, name)
        except SystemExit as stop:
            if stop.code != 0:  # --help stops with 0
                continue
        return True
    return False


def test_code_blocks_are_of_known_languages():
    assert {code.language for code in README.codes} == {"bash", "python", "json", "math"}
    assert len(COMMANDS) >= 12
    assert len(PYTHON_BLOCKS) >= 14


@pytest.mark.parametrize(
    "command", [command for command in dict.fromkeys(COMMANDS) if ".py" in command]
)
def test_commands_name_scripts_and_parameters_that_exist(command):
    assert (ROOT / re.search(r"[\w/]+\.py", command)[0]).is_file()
    assert is_understood(command)


def test_commands_in_sentences_are_understood(page, capsys):
    commands = [
        span
        for span in dict.fromkeys(page.spans)
        if is_command(span) and span not in NAMES_OF_OTHERS
    ]
    assert len(commands) >= 20
    for command in commands:
        script = re.search(r"[\w/]+\.py\b", command)
        assert script is None or (ROOT / script[0]).is_file(), command
        if script and script[0].startswith("img/"):
            continue  # has its own test of its parameters
        is_bare = re.fullmatch(r"--([\w-]+)", command)  # named without the value that it needs
        fields = {
            field.name
            for module in SCRIPTS.values()
            for field in dataclasses.fields(module.Parameters)
        }
        assert is_understood(command) or (is_bare and is_bare[1].replace("-", "_") in fields), (
            command
        )
    capsys.readouterr()


@pytest.mark.parametrize(
    "command", ["python train.py --batchsize 8", "python eval.py --top-k many", "--labls auto"]
)
def test_a_command_that_would_fail_is_found(command, capsys):
    assert not is_understood(command)
    capsys.readouterr()


def test_requirements_and_markers_in_commands_exist():
    for command in COMMANDS:
        for file in re.findall(r"-r (\S+)", command):
            assert (ROOT / file).is_file()
        for marker in re.findall(r'-m "not (\w+)"', command):
            assert re.search(
                rf'markers = \["{marker}:', (ROOT / "pyproject.toml").read_text(encoding="utf-8")
            )


def test_commands_that_are_not_run_are_still_in_the_readme():
    assert set(NOT_RUN) <= set(COMMANDS)


@pytest.fixture
def workplace(tmp_path, monkeypatch, toy_folder, toy_checkpoint):
    """The current folder with what the examples need: checkpoints, a photograph, toy data, lists, and folders in VOC layout."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy" / "JPEGImages").mkdir(parents=True)
    for path in ("toy/checkpoint_ssd300.pth.tar", "checkpoint_ssd300.pth.tar"):
        (tmp_path / path).symlink_to(toy_checkpoint)
    picture = sorted((toy_folder / "JPEGImages").iterdir())[0]
    for path in ("toy/JPEGImages/000601.jpg", "photo.jpg"):
        shutil.copy(picture, tmp_path / path)
    (tmp_path / "data").symlink_to(toy_folder)
    annotations = {"a": annotation_xml(CAR), "b": annotation_xml(CAR)}
    for folder in ("VOCdevkit/VOC2007", "VOCdevkit/VOC2012", "my_folder"):
        make_voc(tmp_path / folder, annotations, {"c": annotation_xml(CAR)})
        for path in (tmp_path / folder / "JPEGImages").iterdir():
            Image.new("RGB", (100, 80)).save(path)  # as large as their annotations say
    return tmp_path


def expected_files(command):
    """What a command leaves according to the README."""
    lists = [
        f"{split}_{content}.json"
        for split in ("TRAIN", "TEST")
        for content in ("images", "objects")
    ] + ["label_map.json"]
    if "create_data_lists" in command:
        return [
            f"{parse_command(command, 'create_data_lists')[0].output_folder}/{name}"
            for name in lists
        ]
    if "detect.py" in command:
        return [f"detections/{Path(shlex.split(command)[2]).stem}_detections.png"]
    return []


@pytest.mark.filterwarnings(
    "ignore:This DataLoader will create:UserWarning"
)  # on a machine with few processors
@pytest.mark.parametrize(
    "command", [command for command in dict.fromkeys(COMMANDS) if command not in NOT_RUN]
)
def test_commands_run(command, workplace, monkeypatch, capsys, one_thread):
    words = shlex.split(command)
    assert words[0] == "python"
    assert words[1] != "train.py", "a training takes long: put the command into NOT_RUN"
    assert not {"--download", "coco"} & set(words), (
        "tests download nothing: put the command into NOT_RUN"
    )
    if words[1] == "create_data_lists.py":
        (
            workplace / "data"
        ).unlink()  # else the lists would be written over the ones that other tests share
    monkeypatch.setattr("sys.argv", words[1:])
    runpy.run_path(str(ROOT / words[1]), run_name="__main__")  # a script that fails exits
    for path in expected_files(command):
        assert (workplace / path).is_file()
    assert capsys.readouterr().out != ""


def run_block(block):
    """Run a Python example in a namespace of its own."""
    namespace = {"__name__": "example"}
    exec(compile(block, "<README>", "exec"), namespace)
    return namespace


def promised_output(block):
    """For each line that a block prints, the comment beside it that says what; None without one."""
    return [
        comment or None
        for comment in re.findall(r"^print\(.*?\)(?:  # (.*))?$", block, flags=re.MULTILINE)
    ]


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=range(len(PYTHON_BLOCKS)))
def test_python_examples_print_what_they_promise(block, workplace, capsys, one_thread):
    MODULES["detect"].default_model.cache_clear()
    run_block(block)
    MODULES["detect"].default_model.cache_clear()
    printed = capsys.readouterr().out.splitlines()
    promised = promised_output(block)
    assert len(printed) == len(promised) == block.count("print(")
    assert [line for line, promise in zip(printed, promised, strict=True) if promise] == [
        line for line in promised if line
    ]


def test_nearly_all_examples_promise_something():
    assert sum(any(promised_output(block)) for block in PYTHON_BLOCKS) >= len(PYTHON_BLOCKS) - 2


def block_with(text):
    (block,) = [block for block in PYTHON_BLOCKS if text in block]
    return block


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "find_jaccard_overlap",
            {"first": examples.JACCARD_BOXES[:1], "second": examples.JACCARD_BOXES[1:]},
        ),
        (
            "F.linear",
            {
                "image": examples.FC_IMAGE,
                "weights": examples.FC_WEIGHTS,
                "biases": examples.FC_BIASES,
            },
        ),
        ("cxcy_to_gcxgcy", {"box": [examples.OFFSETS_BOX]}),
        (
            "match_priors",
            {
                "objects": tensor([box for _, box in examples.MATCHING_OBJECTS]) / IMAGE_SIZE,
                "priors": tensor(examples.MATCHING_PRIORS) / IMAGE_SIZE,
            },
        ),
        (
            "batched_nms",
            {
                "scores": [score for _, score, _ in examples.NMS_CANDIDATES],
                "boxes": [box for _, _, box in examples.NMS_CANDIDATES],
                "labels": [
                    MODULES["utils"].label_map[name] for name, _, _ in examples.NMS_CANDIDATES
                ],
            },
        ),
    ],
)
def test_examples_have_the_numbers_of_the_figures(text, expected, workplace, capsys):
    namespace = run_block(block_with(text))
    for name, values in expected.items():
        assert torch.equal(namespace[name].float(), torch.as_tensor(values, dtype=torch.float32)), (
            name
        )
    capsys.readouterr()


def test_the_entry_of_a_list_looks_like_one(toy_folder):
    (block,) = [json.loads(code.text) for code in README.codes if code.language == "json"]
    (entry, *_) = json.loads((toy_folder / "TRAIN_objects.json").read_text())
    assert list(block) == list(entry)
    assert len(set(map(len, block.values()))) == 1
    assert [MODULES["utils"].rev_label_map[label] for label in block["labels"]] == ["dog", "person"]
