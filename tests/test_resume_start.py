"""resume.py: which checkpoint a run goes on from, whether it can, and what is never overwritten."""

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
import torch

import train
from checkpoints import BEST, LAST, PREVIOUS, load_checkpoint, load_model, save_checkpoint
from helpers.runs import (
    PullPlugError,
    assert_same_training,
    copy_of,
    settings,
    stop_before_the_first_step,
)
from resume import check_output_folder, check_training_state, find_last_checkpoint
from safe_loading import WrongFileError
from train import Parameters, main

pytestmark = pytest.mark.usefixtures("no_curves", "one_thread")


def test_auto_takes_the_last_one_and_if_that_is_damaged_the_one_before(
    toy_folder, tmp_path, whole, capsys
):
    folder = copy_of(whole, tmp_path / "copy")
    for path in folder.iterdir():
        os.utime(path, (0, 0))  # times are not what it goes by: copies have others
    (folder / f"old_{LAST}").write_bytes((folder / LAST).read_bytes())
    assert find_last_checkpoint(settings(toy_folder, folder))[0].name == LAST
    (folder / LAST).write_bytes((folder / LAST).read_bytes()[:-1000])
    path, state = find_last_checkpoint(settings(toy_folder, folder))
    assert path.name == PREVIOUS
    assert (state["epoch"], state["n_images"]) == (1, 6)
    assert "Skipped" in capsys.readouterr().out
    main(settings(toy_folder, folder, checkpoint="auto"))
    assert_same_training(folder, whole)


def test_auto_begins_anew_where_there_is_none_and_stops_where_none_can_be_read(
    toy_folder, tmp_path, capsys
):
    (row,) = main(settings(toy_folder, tmp_path / "new", checkpoint="auto", iterations=1 / 16))
    assert row["epoch"] == 1
    assert "a new run begins" in capsys.readouterr().out
    for path in (tmp_path / "new").glob("*.tar"):
        path.write_bytes(b"PK")
    with pytest.raises(WrongFileError, match=r"no checkpoint can be read.*checkpoint_ssd300"):
        main(settings(toy_folder, tmp_path / "new", checkpoint="auto"))


def test_auto_finds_the_run_that_was_just_stopped_not_the_one_that_got_furthest(
    toy_folder, tmp_path, whole, monkeypatch
):
    folder = copy_of(whole, tmp_path / "copy")
    best = str(folder / BEST)
    parameters = settings(toy_folder, folder, checkpoint=best, lr=1e-5, iterations=0.75)
    with monkeypatch.context() as patch:
        stop_before_the_first_step(patch)
        with pytest.raises(PullPlugError):
            main(parameters)
    path, state = find_last_checkpoint(settings(toy_folder, folder))
    assert path.name == LAST
    assert state["iteration"] == load_checkpoint(best)["iteration"]
    assert state["parameters"]["lr"] == 1e-5


def test_a_second_toy_run_replaces_the_first_from_its_start(tmp_path, monkeypatch, toy_folder):
    data_folder = str(toy_folder)
    monkeypatch.setattr(train, "create_toy_data", lambda *args, **_: None)
    first = settings(data_folder, tmp_path, toy=True)
    main(first)
    run_id = load_checkpoint(tmp_path / LAST)["run_id"]
    with monkeypatch.context() as patch:
        stop_before_the_first_step(patch)
        with pytest.raises(PullPlugError):
            main(first)
    _, state = find_last_checkpoint(first)
    assert state["iteration"] == 0
    assert state["run_id"] != run_id
    assert not (tmp_path / BEST).exists()  # that was the first run's
    assert not (tmp_path / "history.jsonl").exists()


def test_an_old_best_checkpoint_alone_is_no_run_to_go_on_with(toy_folder, tmp_path, whole):
    folder = copy_of(whole, tmp_path / "copy", BEST)
    assert find_last_checkpoint(settings(toy_folder, folder)) == (None, None)
    with pytest.raises(ValueError, match=r"BEST_checkpoint.*is of an earlier training run"):
        main(settings(toy_folder, folder, checkpoint="auto"))


def test_no_other_run_is_overwritten(toy_folder, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(train, "create_toy_data", lambda *args, **_: None)
    other = tmp_path / "other"
    main(settings(toy_folder, other, iterations=1 / 16))
    before = (other / LAST).read_bytes()
    for changes in (
        {"checkpoint": str(whole / LAST)},  # going on with one run where another is
        {"start_from": str(whole / LAST)},
        {"toy": True},  # where one is that is no toy
        {},
    ):
        with pytest.raises(ValueError, match=r"other/.*is of an earlier training run.*--output"):
            main(settings(toy_folder, other, **changes))
    assert (other / LAST).read_bytes() == before


def test_a_symbolic_link_stays_one_and_the_checkpoint_before_is_found_beside_it(
    toy_folder, tmp_path
):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / LAST).symlink_to(tmp_path / "elsewhere.tar")
    parameters = settings(toy_folder, folder, iterations=1 / 16)
    main(parameters)
    assert (folder / LAST).is_symlink()
    assert load_checkpoint(tmp_path / "elsewhere.tar")["iteration"] == 1
    (tmp_path / "elsewhere.tar").write_bytes(b"PK")
    path, _ = find_last_checkpoint(parameters)
    assert path == folder / PREVIOUS


def without(folder, name, *keys):
    """Take entries out of a checkpoint."""
    state = torch.load(folder / name, weights_only=True)
    for key in keys:
        del state[key]
    torch.save(state, folder / name)


def test_runs_of_older_checkpoints_without_identity_are_told_apart_by_their_folders(
    toy_folder, tmp_path, whole
):
    first = copy_of(whole, tmp_path / "first")
    second = copy_of(whole, tmp_path / "second")
    for folder in (first, second):
        for name in (LAST, PREVIOUS, BEST):
            without(folder, name, "run_id")
    before = (second / LAST).read_bytes()
    with pytest.raises(ValueError, match=r"second/.*is of an earlier training run"):
        main(settings(toy_folder, second, checkpoint=str(first / LAST)))
    assert (second / LAST).read_bytes() == before
    main(settings(toy_folder, first, checkpoint="auto", iterations=7 / 16))
    assert load_checkpoint(first / LAST)["run_id"]


def test_weights_alone_in_the_output_folder_are_not_overwritten(toy_folder, tmp_path, whole):
    folder = copy_of(whole, tmp_path / "copy", LAST)
    without(folder, LAST, "optimizer", "run_id")
    with pytest.raises(ValueError, match=r"copy/.*is of an earlier training run"):
        main(settings(toy_folder, folder, checkpoint=str(whole / LAST)))


def test_a_toy_run_that_is_refused_has_removed_nothing(toy_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "create_toy_data", lambda *args, **_: None)
    toy = settings(toy_folder, tmp_path, toy=True, iterations=1 / 16)
    main(toy)
    (tmp_path / BEST).write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"BEST_.*or damaged"):
        main(toy)
    assert load_checkpoint(tmp_path / LAST)["iteration"] == 1


def test_a_history_without_checkpoints_is_left_alone_until_there_is_a_new_one(
    toy_folder, tmp_path, monkeypatch
):
    (tmp_path / "history.jsonl").write_text("an earlier one")
    stop_before_the_first_step(monkeypatch)
    with pytest.raises(PullPlugError):
        main(settings(toy_folder, tmp_path))
    assert (tmp_path / "history.jsonl").read_text() == "an earlier one"


def test_a_run_that_goes_on_in_another_folder_has_a_best_checkpoint_there(
    toy_folder, tmp_path, whole
):
    last = str(whole / LAST)
    main(settings(toy_folder, tmp_path, checkpoint=last, iterations=9 / 16))
    assert load_checkpoint(tmp_path / BEST)["epoch"] == 3


def test_a_detector_can_be_used_if_only_its_run_cannot_go_on(toy_folder, tmp_path, whole):
    folder = copy_of(whole, tmp_path / "copy", LAST)
    without(folder, LAST, "scaler")
    load_model(folder / LAST)
    with pytest.raises(WrongFileError, match="its run cannot be resumed: it has no valid 'scaler'"):
        main(settings(toy_folder, tmp_path / "out", checkpoint=str(folder / LAST)))
    options = {"start_from": str(folder / LAST), "iterations": 1 / 16}
    main(settings(toy_folder, tmp_path / "out", **options))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parameters", None),
        ("parameters", {}),
        ("parameters", {"batch_size": 2, "momentum": "fast"}),
        ("parameters", {"batch_size": 2, "decay_at": ("a",)}),
        ("parameters", {"batch_size": 2, "lr": torch.zeros(2)}),
        ("parameters", {"batch_size": 2, "freeze": 2.5}),
        ("parameters", {"batch_size": 2.0}),
        ("parameters", {"batch_size": 2, "seed": True}),
        ("epoch", None),
        ("epoch", "1"),
        ("iteration", -1),
        ("history", {}),
        ("history", [1]),
        ("history", [{"epoch": 1, "loss": torch.zeros(2)}]),
        ("scaler", None),
        ("best_mAP", None),
        ("loss_sums", torch.zeros(3)),
        ("optimizer", {}),
        ("optimizer", {"param_groups": [], "state": {}}),
        ("momentum", torch.zeros(3)),
        ("momentum", None),
    ],
    ids=str,
)
def test_damaged_training_state_is_a_clear_error_and_auto_takes_the_file_before(
    toy_folder, tmp_path, whole, name, value
):
    folder = copy_of(whole, tmp_path / "copy")
    state = torch.load(folder / LAST, weights_only=True)
    if name == "momentum":
        state["optimizer"]["state"][0] = {"momentum_buffer": value} if value is not None else value
    else:
        state[name] = value
    torch.save(state, folder / LAST)
    with pytest.raises(WrongFileError, match=r"copy/checkpoint_ssd300\.pth\.tar: "):
        main(settings(toy_folder, tmp_path / "out", checkpoint=str(folder / LAST)))
    assert find_last_checkpoint(settings(toy_folder, folder))[0].name == PREVIOUS


@pytest.mark.parametrize(
    "name", [item.name for item in dataclasses.fields(Parameters) if item.type is int]
)
def test_a_fraction_in_place_of_a_whole_number_is_named(whole, name):
    """Iterations may be one: they follow from epochs, or from batches of fewer than 32."""
    state = load_checkpoint(whole / LAST)
    state["parameters"][name] = 2.5
    if name == "iterations":
        check_training_state(state, Parameters())
        return
    with pytest.raises(WrongFileError, match=f"parameter {name} should be of type int, not float"):
        check_training_state(state, Parameters())


def test_other_lists_are_refused(toy_folder, tmp_path, whole):
    moved = copy_of(toy_folder, tmp_path / "moved", "*.json")
    images = json.loads((moved / "TRAIN_images.json").read_text())
    (tmp_path / "elsewhere").symlink_to(Path(images[0]).parent)
    (moved / "TRAIN_images.json").write_text(
        json.dumps([str(tmp_path / "elsewhere" / Path(path).name) for path in images])
    )
    parameters = settings(moved, tmp_path / "out", checkpoint=str(whole / LAST))
    fingerprints = {dataset.split: dataset.fingerprint() for dataset in train.load_data(parameters)}
    assert (
        fingerprints == load_checkpoint(whole / LAST)["data"]
    )  # a folder that was moved is the same data

    for split in ("TRAIN", "TEST"):
        objects = json.loads((moved / f"{split}_objects.json").read_text())
        objects[0]["boxes"][0][0] += 1
        (moved / f"{split}_objects.json").write_text(json.dumps(objects))
        with pytest.raises(
            ValueError,
            match=rf"checkpoint_ssd300\.pth\.tar was trained with other lists.*objects of {split}",
        ):
            main(parameters)
        objects[0]["boxes"][0][0] -= 1
        (moved / f"{split}_objects.json").write_text(json.dumps(objects))


@pytest.mark.parametrize("parameter", ["checkpoint", "start_from"])
def test_weights_that_are_no_numbers_are_blamed_on_their_file(
    toy_folder, tmp_path, whole, parameter
):
    state = torch.load(whole / LAST, weights_only=True)
    state["model"]["base.conv4_3.weight"][0, 0, 0, 0] = float("nan")
    path = tmp_path / "broken.tar"
    save_checkpoint(path, state)
    with pytest.raises(WrongFileError, match=r"broken\.tar: its weights .*base\.conv4_3\.weight"):
        main(settings(toy_folder, tmp_path / "out", **{parameter: str(path)}))


def test_fewer_iterations_than_were_trained_leave_nothing_to_do(
    toy_folder, tmp_path, whole, capsys
):
    last = str(whole / LAST)
    history = main(settings(toy_folder, tmp_path, checkpoint=last, iterations=1 / 16))
    assert len(history) == 2
    printed = capsys.readouterr().out
    assert "The run of this checkpoint is over" in printed
    assert not re.search(r"-\d+ (steps|images)", printed)


def test_an_output_folder_that_is_a_file_is_a_clear_error(toy_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file: this is not a folder: .*--output-folder"):
        main(settings(toy_folder, tmp_path / "file"))


def test_a_damaged_checkpoint_is_not_overwritten_by_another_run(tmp_path):
    (tmp_path / LAST).write_bytes(b"damaged")
    state = {"run_id": "a run"}
    for changes in ({}, {"toy": True}, {"checkpoint": str(tmp_path / "other" / LAST)}):
        with pytest.raises(ValueError, match=r"\(or damaged\), and would be overwritten"):
            check_output_folder(settings("", tmp_path, **changes), state)
    check_output_folder(settings("", tmp_path, checkpoint=str(tmp_path / PREVIOUS)), state)
    assert (tmp_path / LAST).exists()
