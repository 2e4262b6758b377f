"""train.py with the priors of the paper's text, of the authors' code, and of a file of weights."""

import dataclasses

import pytest
import torch

import train
from checkpoints import LAST, load_checkpoint, load_model, save_checkpoint
from helpers.runs import PullPlugError, copy_of, settings, small, stop_before_the_first_step
from model import SSD300
from published_weights import PRIORS, name_priors
from train import Parameters, main

pytestmark = pytest.mark.usefixtures("no_curves", "one_thread")


def caffe_priors():
    """
    The priors as the authors' PriorBox layer makes them from the parameters in ssd_pascal.py, in
    pixels and one by one; then in our order.
    """
    layers = [
        (38, 8, 30, 60, (2,)),
        (19, 16, 60, 111, (2, 3)),
        (10, 32, 111, 162, (2, 3)),
        (5, 64, 162, 213, (2, 3)),
        (3, 100, 213, 264, (2,)),
        (1, 300, 264, 315, (2,)),
    ]
    priors = []
    for side, step, min_size, max_size, ratios in layers:
        for row in range(side):
            for column in range(side):
                sizes = [(min_size, min_size), ((min_size * max_size) ** 0.5,) * 2]
                sizes += [(min_size * ratio**0.5, min_size / ratio**0.5) for ratio in ratios]
                sizes += [(min_size / ratio**0.5, min_size * ratio**0.5) for ratio in ratios]
                centre = (column + 0.5) * step, (row + 0.5) * step
                priors += [(*centre, *size) for size in sizes]
    return torch.tensor(priors, dtype=torch.float64) / 300


def test_released_priors_are_those_of_the_authors_code():
    priors = PRIORS["released"]()
    torch.testing.assert_close(priors.double(), caffe_priors(), rtol=0, atol=1e-6)
    assert priors[:, 2:].max() > 1  # nothing is capped
    assert priors.shape == SSD300.create_prior_boxes().shape
    assert (priors - SSD300.create_prior_boxes()).abs().max() > 0.01


def test_priors_have_names():
    for name, create_priors in PRIORS.items():
        assert name_priors(create_priors()) == name
    assert name_priors(PRIORS["released"]().clamp(0, 1)) == "other"


@pytest.fixture(scope="module")
def released(toy_folder, tmp_path_factory, no_curves, one_thread):
    """The folder of a run with released priors that stopped after one of its two epochs."""
    folder = tmp_path_factory.mktemp("released")
    main(small(toy_folder, folder, priors="released"))
    return folder


def test_a_run_has_the_priors_that_are_asked_for(released):
    state = load_checkpoint(released / LAST)
    assert state["parameters"]["priors"] == "released"
    assert torch.equal(load_model(released / LAST).priors_cxcy, PRIORS["released"]())


def test_the_loss_matches_objects_with_them(toy_folder, tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(train, "train", lambda run, *_: runs.append(run))
    main(small(toy_folder, tmp_path, priors="released"))
    assert torch.equal(runs[0].criterion.priors_cxcy, PRIORS["released"]())


def test_going_on_keeps_them(released, toy_folder, tmp_path, capsys, monkeypatch):
    folder = copy_of(released, tmp_path / "copy")
    runs = []
    monkeypatch.setattr(train, "train", lambda run, *_: runs.append(run))
    main(small(toy_folder, folder, checkpoint="auto"), given={"checkpoint"})
    assert "priors: released as in the checkpoint" in capsys.readouterr().out
    assert runs[0].parameters.priors == "released"
    assert torch.equal(runs[0].model.priors_cxcy, PRIORS["released"]())
    with pytest.raises(ValueError, match=r"--priors paper: .*\(released\).*leave out --priors"):
        main(small(toy_folder, folder, checkpoint="auto"), given={"checkpoint", "priors"})


def test_a_run_from_before_there_was_a_choice_goes_on(trained, toy_folder, tmp_path, monkeypatch):
    folder = copy_of(trained[0], tmp_path / "copy")
    state = torch.load(folder / LAST, weights_only=True)
    del state["parameters"]["priors"]
    save_checkpoint(folder / LAST, state)
    runs = []
    monkeypatch.setattr(train, "train", lambda run, *_: runs.append(run))
    main(small(toy_folder, folder, checkpoint="auto"), given={"checkpoint"})
    assert runs[0].parameters.priors == "paper"


@pytest.mark.parametrize("name", ["released", "other"])
def test_a_new_run_keeps_those_of_the_weights_it_starts_from(
    name, released, toy_folder, tmp_path, capsys, monkeypatch
):
    state = load_checkpoint(released / LAST)
    if name == "other":  # clipped, as in networks that are converted
        state["priors_cxcy"].clamp_(0, 1)
    path = tmp_path / "weights.pth.tar"
    save_checkpoint(path, state)
    folder = tmp_path / "new"
    start = settings(toy_folder, folder, start_from=str(path))
    stop_before_the_first_step(monkeypatch)
    with pytest.raises(PullPlugError):
        main(start, given={"start_from"})
    assert f"priors: {name} as in {path}" in capsys.readouterr().out
    begun = load_checkpoint(folder / LAST)
    assert begun["parameters"]["priors"] == name
    assert torch.equal(begun["priors_cxcy"], state["priors_cxcy"])

    monkeypatch.setattr(train, "train", lambda run, *_: run.parameters.priors)
    assert main(dataclasses.replace(start, checkpoint="auto"), {"checkpoint"}) == name
    for other in {"paper", "released"} - {name}:
        asked = dataclasses.replace(start, output_folder=str(tmp_path / "a"), priors=other)
        with pytest.raises(ValueError, match=f"--priors {other}: .*weights.pth.tar .*other priors"):
            main(asked, given={"start_from", "priors"})


@pytest.mark.parametrize("priors", ["other", "caffe", ""])
def test_priors_that_there_are_none_of_are_refused(priors, tmp_path):
    with pytest.raises(ValueError, match="priors: expected paper or released, got"):
        main(Parameters(priors=priors, output_folder=str(tmp_path / "out"), device="cpu"))
    assert not (tmp_path / "out").exists()
