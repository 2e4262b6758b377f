"""train.py: groups of layers that do not learn, the localization loss's weight, and zooming out."""

import pytest
import torch

import train
from checkpoints import LAST, load_checkpoint
from helpers.runs import assert_same_checkpoint, small
from train import Parameters, create_run, load_data, main, take_step

pytestmark = pytest.mark.usefixtures("no_curves", "one_thread")

# The base's convolutions between its poolings
GROUPS = (
    ("conv1_1", "conv1_2"),
    ("conv2_1", "conv2_2"),
    ("conv3_1", "conv3_2", "conv3_3"),
    ("conv4_1", "conv4_2", "conv4_3"),
    ("conv5_1", "conv5_2", "conv5_3"),
)


def assert_only_frozen_stay(before, after, n_groups):
    """
    The weights and biases of the first groups are equal to the bit. All other weights differ, and
    so do the other biases of the base. (Biases that lead to maps without a positive prior, or to
    activations below 0, may stay.)
    """
    frozen = [f"base.{name}." for group in GROUPS[:n_groups] for name in group]
    assert before.keys() == after.keys()
    for name, weights in before.items():
        is_frozen = name.startswith(tuple(frozen))
        if is_frozen or not name.endswith(".bias"):
            assert torch.equal(after[name], weights) is is_frozen, name
    learned = [name for name, weights in before.items() if not torch.equal(after[name], weights)]
    assert "base.conv7.bias" in learned


# ------------------------------------------------------------------------------------------ freeze


@pytest.mark.parametrize("n_groups", range(6))
def test_the_first_groups_keep_their_weights_and_all_others_learn(
    toy_folder, tmp_path, validated, n_groups
):
    """Although weights decay."""
    parameters = small(toy_folder, tmp_path, freeze=n_groups, weight_decay=0.5, grad_clip=5.0)
    before = train.create_model(None, load_data(parameters)[0].label_map, parameters).state_dict()
    main(parameters)
    assert_only_frozen_stay(before, load_checkpoint(tmp_path / LAST)["model"], n_groups)


def test_a_run_with_frozen_groups_goes_on_exactly(toy_folder, tmp_path):
    frozen = {"freeze": 3, "weight_decay": 0.5}
    main(small(toy_folder, tmp_path / "whole", iterations=6 / 16, **frozen))
    main(small(toy_folder, tmp_path / "resumed", **frozen))
    changes = {"checkpoint": "auto", "iterations": 6 / 16}
    main(small(toy_folder, tmp_path / "resumed", **changes), given={"checkpoint", "iterations"})
    assert_same_checkpoint(tmp_path / "resumed" / LAST, tmp_path / "whole" / LAST)


@pytest.mark.parametrize(("first", "then"), [(0, 4), (4, 0), (2, 5)])
def test_groups_can_be_frozen_and_freed_on_going_on(toy_folder, tmp_path, validated, first, then):
    """Momentum that frozen weights have from before does not move them."""
    main(small(toy_folder, tmp_path, freeze=first))
    before = load_checkpoint(tmp_path / LAST)["model"]
    longer = small(toy_folder, tmp_path, checkpoint="auto", freeze=then, iterations=6 / 16)
    main(longer, given={"checkpoint", "freeze", "iterations"})
    state = load_checkpoint(tmp_path / LAST)
    assert_only_frozen_stay(before, state["model"], then)
    assert state["parameters"]["freeze"] == then


def test_a_run_from_the_weights_of_a_detector_can_freeze_its_base(
    toy_checkpoint, toy_folder, tmp_path, validated
):
    main(small(toy_folder, tmp_path, start_from=str(toy_checkpoint), freeze=5))
    before = load_checkpoint(toy_checkpoint)["model"]
    assert_only_frozen_stay(before, load_checkpoint(tmp_path / LAST)["model"], 5)


# ------------------------------------------------------------------------------------------- alpha


@pytest.mark.parametrize("alpha", [0.25, 2.0])
def test_alpha_weighs_the_localization_loss_in_training_and_validation(toy_folder, tmp_path, alpha):
    (row,) = main(small(toy_folder, tmp_path, alpha=alpha))
    assert row["localization"] > 0.1
    assert row["loss"] == pytest.approx(row["confidence"] + alpha * row["localization"])
    expected = row["validation_confidence"] + alpha * row["validation_localization"]
    assert row["validation_loss"] == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_alpha_scales_the_gradient_of_the_localization(toy_folder, alpha):
    gradients = []
    for number in (1.0, alpha):
        parameters = small(toy_folder, alpha=number)
        train_set, _ = load_data(parameters)
        model = train.create_model(None, train_set.label_map, parameters)
        image, boxes, labels, _ = train_set[0]
        take_step(image.unsqueeze(0), [boxes], [labels], create_run(model, parameters, {}))
        predictions = model.pred_convs
        gradients.append((predictions.loc_conv7.weight.grad, predictions.cl_conv7.weight.grad))
    (full_loc, full_class), (loc, class_) = gradients
    assert full_loc.abs().max() > 0
    torch.testing.assert_close(loc, alpha * full_loc)
    torch.testing.assert_close(class_, full_class)


# ---------------------------------------------------------------------------------------- zoom_out


@pytest.mark.parametrize(("changes", "expected"), [({}, True), ({"zoom_out": False}, False)])
def test_training_images_are_zoomed_out_if_that_is_asked_for(
    toy_folder, tmp_path, validated, monkeypatch, changes, expected
):
    calls = []

    def note_call(width, height, rng):
        calls.append(1)
        return (0, 0, width, height)

    monkeypatch.setattr("utils.zoom_out", note_call)
    main(small(toy_folder, tmp_path, iterations=6 / 16, **changes))
    assert (len(calls) > 0) is expected  # of twelve images about six


def test_zooming_out_stays_as_the_run_began(toy_folder, tmp_path, validated, capsys):
    main(small(toy_folder, tmp_path, zoom_out=False))
    longer = small(toy_folder, tmp_path, checkpoint="auto", iterations=6 / 16)
    main(longer, given={"checkpoint", "iterations"})
    assert "zoom_out: False as in the checkpoint (instead of True)." in capsys.readouterr().out
    assert load_checkpoint(tmp_path / LAST)["parameters"]["zoom_out"] is False
    assert Parameters.zoom_out is True
