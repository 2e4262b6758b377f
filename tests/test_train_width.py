"""train.py with networks of another width, and runs from before there was one."""

import pytest
import torch

import train
from checkpoints import BEST, LAST, load_checkpoint, load_model
from helpers.runs import WIDTH, PullPlugError, small
from train import TOY, Parameters, main

pytestmark = pytest.mark.usefixtures("no_curves", "one_thread")


@pytest.fixture
def nothing_begins(monkeypatch):
    """Drawing, reading lists and downloading fail the test."""
    for name in ("create_toy_data", "PascalVOCDataset", "SSD300", "load_base_weights"):
        monkeypatch.setattr(train, name, lambda *_, **__: pytest.fail("too late to refuse"))


def test_a_run_has_the_width_that_is_asked_for(toy_folder, tmp_path, validated):
    main(small(toy_folder, tmp_path, width=1 / 16, iterations=1 / 16))
    for name in (LAST, "previous_" + LAST):
        state = load_checkpoint(tmp_path / name)
        assert state["width"] == state["parameters"]["width"] == 1 / 16
    loaded = load_model(tmp_path / LAST)
    assert loaded.width == 1 / 16
    assert loaded.base.conv7.weight.shape == (64, 64, 1, 1)


# ---------------------------------------------------------------------------------- from scratch


@pytest.mark.parametrize("checkpoint", ["", "auto"])
@pytest.mark.parametrize("weights", [{"pretrained": True}, {"base_weights": "vgg16.pth"}], ids=str)
def test_published_weights_for_another_width_are_refused_before_anything_is_drawn_or_downloaded(
    weights, checkpoint, tmp_path, monkeypatch, nothing_begins
):
    monkeypatch.chdir(tmp_path)
    parameters = Parameters(
        toy=True, width=0.5, checkpoint=checkpoint, pretrained=False, device="cpu"
    )
    for name, value in weights.items():
        setattr(parameters, name, value)
    with pytest.raises(ValueError, match=r"--width 0\.5: .*--no-pretrained.*no --base-weights"):
        main(parameters, given={"toy", "width", "checkpoint", "device", *weights})
    assert list(tmp_path.iterdir()) == []


def test_what_toy_sets_and_the_full_network_go_together(tmp_path, monkeypatch):
    """--toy --width 1: the width that is given counts, and no weights are downloaded for it."""
    monkeypatch.setitem(train.TOY, "width", 0.25)
    seen = []
    monkeypatch.setattr(train, "begin_run", lambda parameters, _: seen.append(parameters) or 1 / 0)
    for given in ({"toy", "width"}, {"toy"}):
        with pytest.raises(ZeroDivisionError):
            main(Parameters(toy=True, output_folder=str(tmp_path)), given)
    assert [(parameters.width, parameters.pretrained) for parameters in seen] == [
        (1.0, False),
        (0.25, False),
    ]


# --------------------------------------------------------------------------------- from a file


@pytest.fixture
def file(request, trained, toy_checkpoint):
    """A file of each kind that a run can begin with, by the name of the parameter."""
    folder, _ = trained
    return {"checkpoint": folder / BEST, "start_from": toy_checkpoint}[request.param]


BOTH_WAYS = pytest.mark.parametrize(
    ("parameter", "file"),
    [("checkpoint", "checkpoint"), ("start_from", "start_from")],
    indirect=["file"],
    ids=["checkpoint", "start_from"],
)


@BOTH_WAYS
def test_a_file_brings_its_width_along(parameter, file, toy_folder, tmp_path, validated, capsys):
    """Also past the default of pretrained weights, which no longer matter."""
    changes = {parameter: str(file), "pretrained": True, "iterations": 0.25}
    main(small(toy_folder, tmp_path, width=1.0, **changes))
    assert "width: 0.03125 as in " in capsys.readouterr().out
    state = load_checkpoint(tmp_path / LAST)
    assert state["width"] == state["parameters"]["width"] == WIDTH


@BOTH_WAYS
@pytest.mark.parametrize("width", [0.5, 1.0])
def test_another_width_than_the_files_is_refused_before_anything_begins(
    parameter, file, width, toy_folder, tmp_path, nothing_begins
):
    parameters = small(toy_folder, tmp_path / "out", width=width, **{parameter: str(file)})
    message = rf"--width {width}: .*\.pth\.tar has the width 0\.03125, which .* leave out --width"
    with pytest.raises(ValueError, match=message):
        main(parameters, given={"width", parameter})
    assert not (tmp_path / "out").exists()


@BOTH_WAYS
def test_the_width_of_the_file_may_be_given(parameter, file, toy_folder, tmp_path, validated):
    changes = {parameter: str(file), "pretrained": True, "iterations": 0.25}
    main(small(toy_folder, tmp_path, width=WIDTH, **changes))
    assert load_checkpoint(tmp_path / LAST)["width"] == WIDTH


# ------------------------------------------------------------------------------- older checkpoints


def older_checkpoint(path):
    """Take out of a checkpoint what was not in those of older versions."""
    state = torch.load(path, weights_only=True)
    del state["width"]
    for name in ("width", "freeze", "epochs", "alpha", "zoom_out", "validate_every"):
        del state["parameters"][name]
    torch.save(state, path)


def test_a_run_of_an_older_checkpoint_goes_on_as_it_did_whatever_toy_sets_now(
    toy_folder, tmp_path, validated, monkeypatch
):
    """Two steps with the full network, without an interruption, and with one after the first."""
    settings = {"width": 1.0, "batch_size": 1, "iterations": 2 / 32, "checkpoint_every": 1}
    main(small(toy_folder, tmp_path / "whole", **settings))
    take_step = train.take_step
    steps = []

    def take_one_step(*args):
        if steps:
            raise PullPlugError
        steps.append(1)
        return take_step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(train, "take_step", take_one_step)
        with pytest.raises(PullPlugError):
            main(small(toy_folder, tmp_path / "older", **settings))
    older_checkpoint(tmp_path / "older" / LAST)

    monkeypatch.setattr(train, "create_toy_data", lambda *_, **__: None)
    now = {"width": 0.25, "zoom_out": False, "alpha": 0.5, "freeze": 2, "validate_every": 7}
    monkeypatch.setattr(train, "TOY", TOY | now)
    main(
        Parameters(
            toy=True,
            checkpoint="auto",
            data_folder=str(toy_folder),
            output_folder=str(tmp_path / "older"),
            device="cpu",
            precision="float32",
            workers=0,
        )
    )
    ours = load_checkpoint(tmp_path / "older" / LAST)
    theirs = load_checkpoint(tmp_path / "whole" / LAST)
    assert ours["iteration"] == theirs["iteration"] == 2
    for name, weights in theirs["model"].items():
        assert torch.equal(ours["model"][name], weights), name
    for name in ("width", "freeze", "epochs", "alpha", "zoom_out"):
        assert ours["parameters"][name] == theirs["parameters"][name] == getattr(Parameters, name)
