"""
Tests of runtime.py: command lines, errors, precision, and being asked to stop. Several processes
have tests of their own.
"""

import dataclasses
import math
import re
import shlex
import signal
import subprocess

import pytest
import torch

import runtime
from runtime import (
    StopRequest,
    as_command_line,
    check_range,
    choose_precision,
    describe_error,
    describe_precision,
    describe_versions,
    read_command_line,
    readable_errors,
)

# ------------------------------------------------------------------------------------ command lines


@dataclasses.dataclass
class Example:
    """Parameters of all kinds."""

    images: tuple = ()  # pictures to look at
    batch_size: int = 32  # images, 50% of them (paper)
    lr: float = 1e-3  # a step's size
    output_folder: str = "here"  # where results go
    checkpoint: str = ""  # a file
    pretrained: bool = True  # begin with ImageNet
    toy: bool = False  # small
    milestones: tuple = (80, 100)  # iterations
    scales: tuple = (0.5, 1.0)  # factors
    labels: tuple = ("cat", "dog")  # class names


def test_without_arguments_parameters_are_those_of_the_file():
    assert read_command_line(Example, "does", []) == (Example(), set())


def test_arguments_change_parameters_of_each_type_and_only_these_are_given():
    argv = [
        "--batch-size",
        "8",
        "--lr",
        "1e-4",
        "--output-folder",
        "there",
        "--toy",
        "--milestones",
        "1",
        "2",
        "3",
    ]
    argv += ["--scales", "1", "--labels", "a", "b"]
    parameters, given = read_command_line(Example, "does", argv)
    assert parameters == Example(
        batch_size=8,
        lr=1e-4,
        output_folder="there",
        toy=True,
        milestones=(1, 2, 3),
        scales=(1.0,),
        labels=("a", "b"),
    )
    assert given == {"batch_size", "lr", "output_folder", "toy", "milestones", "scales", "labels"}
    assert [type(value) for value in (*parameters.milestones, *parameters.scales)] == [
        int,
        int,
        int,
        float,
    ]


def test_an_argument_with_the_default_value_counts_as_given():
    parameters, given = read_command_line(Example, "does", ["--batch-size", "32", "--pretrained"])
    assert parameters == Example()
    assert given == {"batch_size", "pretrained"}


def test_truth_values_can_be_turned_on_and_off():
    assert read_command_line(Example, "does", ["--no-pretrained"]) == (
        Example(pretrained=False),
        {"pretrained"},
    )
    assert read_command_line(Example, "does", ["--toy", "--no-toy"]) == (Example(), {"toy"})


def test_texts_may_be_empty():
    assert read_command_line(Example, "does", ["--output-folder", ""])[0].output_folder == ""


def test_positional_arguments_fill_their_tuple():
    parameters, given = read_command_line(
        Example, "does", ["a.jpg", "b.jpg", "--toy"], positional=("images",)
    )
    assert parameters == Example(images=("a.jpg", "b.jpg"), toy=True)
    assert given == {"images", "toy"}


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--batch-size", "many"], "invalid int value: 'many'"),
        (["--batch-size", "2.5"], "invalid int value"),
        (["--milestones", "1", "x"], "invalid int value: 'x'"),
        (["--batch-size"], "expected one argument"),
        (["--colour", "red"], "--colour"),
        (["--no-lr"], "--no-lr"),
        (["a.jpg"], "a.jpg"),
    ],
    ids=" ".join,
)
def test_wrong_arguments_stop_with_a_message(argv, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        read_command_line(Example, "does", argv)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_positional_argument_may_be_left_out():
    places = ("output_folder?",)
    assert read_command_line(Example, "does", [], positional=places) == (Example(), set())
    parameters, given = read_command_line(Example, "does", ["here", "--toy"], positional=places)
    assert (parameters.output_folder, given) == ("here", {"output_folder", "toy"})


def test_a_positional_argument_is_asked_for(capsys):
    with pytest.raises(SystemExit) as stop:
        read_command_line(Example, "does", [], positional=("images",))
    assert stop.value.code == 2
    assert "IMAGE" in capsys.readouterr().err


def test_help_shows_description_comments_and_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        read_command_line(Example, "Looks at pictures", ["--help"], positional=("images",))
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "Looks at pictures",
        "pictures to look at",
        "--batch-size BATCH_SIZE images, 50% of them (paper) (default: 32)",
        "a step's size (default: 0.001)",
        "--pretrained, --no-pretrained begin with ImageNet (default: True)",
        "iterations (default: 80 100)",
        "class names (default: cat dog)",
    ):
        assert part in text
    assert "(default: )" not in text


@dataclasses.dataclass
class GroupedExample:
    """Parameters in groups."""

    plain: int = 1  # before any group

    # Data and results: where they are
    folder: str = "here"  # with the lists
    # No heading: there is no empty line before it
    split: str = "TEST"  # of the lists

    # This comment begins no group, for it has no title
    # Schedule: nor does this one
    lr: float = 1e-3  # of weights

    # Toy run: small
    toy: bool = False  # draw images


def test_help_groups_parameters_as_their_comments_do(capsys):
    with pytest.raises(SystemExit):
        read_command_line(GroupedExample, "does", ["--help"])
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if re.match(r"\S.*:$|  --", line)]
    words = [re.split(r"[ ,]", line.strip())[0] if line[0] == " " else line for line in lines]
    assert words[words.index("--plain") :] == [
        "--plain",
        "data and results:",
        "--folder",
        "--split",
        "--lr",
        "toy run:",
        "--toy",
    ]


def test_an_error_from_a_worker_is_described_by_what_it_says():
    assert describe_error(ValueError("a.jpg: not readable")) == "error: a.jpg: not readable"
    traceback = (
        "Caught ValueError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n"
        "  File x\n"
    )
    assert (
        describe_error(ValueError(traceback + "ValueError: a.jpg: not readable"))
        == "error: a.jpg: not readable"
    )


def test_a_command_line_gives_back_the_parameters():
    parameters = Example(batch_size=8, toy=True, pretrained=False, labels=("a b", "c"), lr=0.5)
    names = {"batch_size", "toy", "pretrained", "labels", "lr"}
    text = as_command_line(parameters, names)
    assert text == "--batch-size 8 --labels 'a b' c --lr 0.5 --no-pretrained --toy"
    assert read_command_line(Example, "does", shlex.split(text)) == (parameters, names)


@pytest.mark.parametrize("value", [0, 1, -0.5, 3, math.nan, math.inf])
@pytest.mark.parametrize(
    "bounds",
    [
        {"low": 0},
        {"low": 0, "high": 1},
        {"above": 0},
        {"low": 0, "below": 1},
        {"above": 0, "high": 3},
    ],
    ids=str,
)
def test_ranges_are_what_they_say(value, bounds):
    inside = math.isfinite(value)
    inside = inside and value >= bounds.get("low", value) and value <= bounds.get("high", value)
    inside = inside and not value <= bounds.get("above", -math.inf)
    inside = inside and not value >= bounds.get("below", math.inf)
    if inside:
        check_range("x", value, **bounds)
    else:
        with pytest.raises(ValueError, match=rf"x: expected a number .*, got {value}"):
            check_range("x", value, **bounds)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("a.jpg: broken"), "error: a.jpg: broken"),
        (FileNotFoundError("a.jpg: no such file"), "error: a.jpg: no such file"),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
def test_expected_errors_end_a_script_without_a_traceback(error, code):
    with pytest.raises(SystemExit) as stop, readable_errors():
        raise error
    assert stop.value.code == code


def test_other_errors_are_faults_of_ours_and_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), readable_errors():
        raise ZeroDivisionError


# ---------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_a_gpu_computes_in_bfloat16_where_it_can_and_else_in_float16(
    monkeypatch, capability, dtype
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(torch.device("cuda"), "auto") == dtype
    assert choose_precision(torch.device("cuda"), "float32") == torch.float32


def test_a_processor_computes_in_bfloat16_only_where_it_is_made_for_it(monkeypatch):
    for found, dtype in (
        ("amx_bf16", torch.bfloat16),
        ("avx512_bf16", torch.bfloat16),
        ("avx2", torch.float32),
    ):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda name=found: {name: True}, raising=False
        )
        assert choose_precision(torch.device("cpu"), "auto") == dtype
    with pytest.raises(ValueError, match="expected auto, float32, bfloat16, float16, got 'half'"):
        choose_precision(torch.device("cpu"), "half")


def test_the_precision_is_described_with_the_reason_why_it_is_not_faster(monkeypatch):
    cpu = torch.device("cpu")
    for precision in ("float32", "bfloat16", "float16"):
        assert describe_precision(cpu, precision) == f"with convolutions in {precision}"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert describe_precision(cpu, "auto") == "with convolutions in bfloat16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    assert describe_precision(cpu, "auto") == (
        "with convolutions in float32 (this processor has no fast bfloat16)"
    )
    assert describe_precision(cpu, "float32") == "with convolutions in float32"  # as was asked for
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert describe_precision(torch.device("cuda"), "auto") == "with convolutions in float16"


# ----------------------------------------------------------------------------------------- versions


def test_versions_are_plain_texts_that_a_checkpoint_can_have():
    versions = describe_versions()
    assert list(versions) == ["torch", "torchvision", "revision"]
    assert {type(value) for value in versions.values()} == {str}
    assert versions["torch"] == str(torch.__version__)


@pytest.mark.parametrize("failure", [FileNotFoundError, subprocess.TimeoutExpired("git", 10)])
def test_without_git_the_revision_is_unknown(failure, monkeypatch):
    def run(*args, **options):
        raise failure

    monkeypatch.setattr(subprocess, "run", run)
    assert describe_versions()["revision"] == "unknown"


# ------------------------------------------------------------------------------ being asked to stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_raises_at_once_where_nothing_puts_it_off(default_handlers, number):
    stop_request = StopRequest()
    with pytest.raises(KeyboardInterrupt), stop_request:
        signal.raise_signal(number)
    assert stop_request.signal_number == number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_signal_is_only_noted(default_handlers, number):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest() as stop_request, stop_request.deferred():
        assert not stop_request.is_due(1)
        signal.raise_signal(number)
        assert stop_request.is_due(2)
        assert stop_request.is_due()
    assert stop_request.signal_number == number
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_ctrl_c_acts_at_once(default_handlers):
    steps = []

    def work():
        with StopRequest() as stop_request, stop_request.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            steps.append("saved")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == []


@pytest.mark.parametrize(
    ("local_rank", "n_processes", "expected"),
    [
        (0, 1, ["drawn"]),
        (0, 2, ["drawn", "all are here"]),
        (1, 2, ["all are here", "drawn"]),
    ],
)
def test_the_first_process_of_a_machine_goes_first(local_rank, n_processes, expected, monkeypatch):
    events = []
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    monkeypatch.setattr(runtime, "world_size", lambda: n_processes)
    monkeypatch.setattr(runtime.dist, "barrier", lambda: events.append("all are here"))
    with runtime.first_process_first():
        events.append("drawn")
    assert events == expected


# -------------------------------------------------------------------------------- where results go


def test_a_folder_for_results_is_made_and_tried(tmp_path):
    runtime.check_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    runtime.check_file(tmp_path / "other" / "file.json")
    assert list((tmp_path / "other").iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=re.escape(f"{path}: cannot be written to (")):
            runtime.check_folder(path)
    runtime.check_file(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(OSError, match="is a folder: name a file"):
        runtime.check_file(tmp_path)
