"""train.py: the schedule, real steps, and what stops a run."""

import contextlib
import dataclasses
import json
import math
import re
import shutil

import pytest
import torch

import train
from checkpoints import BEST, LAST, load_checkpoint, load_model, save_checkpoint
from datasets import ShuffledBatches
from helpers.runs import assert_same_checkpoint, small
from history import NonFiniteLossError
from model import SSD300, MultiBoxLoss
from train import Parameters, create_optimizer, learning_rate, main, n_steps

pytestmark = pytest.mark.usefixtures("no_curves", "one_thread")

N_VOC_IMAGES = 16_551  # VOC2007 and VOC2012 trainval


def taken_up(state, parameters):
    """The run that goes on from a checkpoint."""
    data_sets = train.load_data(parameters)
    return train.prepare_run(state, *data_sets, parameters, torch.device("cpu"))


# ----------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize("batch_size", [8, 32, 64])
def test_the_schedule_falls_in_the_papers_epochs_at_any_batch_size(batch_size):
    parameters = Parameters(batch_size=batch_size)
    steps_an_epoch = math.ceil(N_VOC_IMAGES / batch_size)
    rates = torch.tensor([learning_rate(step, parameters) for step in range(n_steps(parameters))])
    falls = ((rates[1:] - rates[:-1]) < -1e-9).nonzero().squeeze(
        1
    ) + 1  # first step at the lower rate
    assert (falls // steps_an_epoch + 1).tolist() == [155, 194]
    assert (len(rates) - 1) // steps_an_epoch + 1 == 232
    assert rates[int(falls[0])] == pytest.approx(1e-4)
    assert rates[int(falls[1])] == pytest.approx(1e-5)
    if batch_size == 32:
        assert steps_an_epoch == 518
        assert [*falls.tolist(), len(rates)] == [80_000, 100_000, 120_000]


def test_the_rate_rises_in_a_line_during_the_warm_up():
    rates = [learning_rate(step, Parameters()) for step in range(502)]
    assert rates[0] == pytest.approx(1e-3 / 501)
    assert rates[250] == pytest.approx(1e-3 * 251 / 501)
    assert rates[500:] == [1e-3, 1e-3]


def test_biases_learn_twice_as_fast_and_do_not_decay(toy_checkpoint):
    network = load_model(toy_checkpoint)
    biases, others = create_optimizer(network, Parameters()).param_groups
    assert (biases["lr_factor"], biases["weight_decay"]) == (2, 0)
    assert (others["lr_factor"], others["weight_decay"]) == (1, 5e-4)
    assert all(parameter.dim() == 1 for parameter in biases["params"])
    assert len(biases["params"]) + len(others["params"]) == len(list(network.parameters()))


# ----------------------------------------------------------------------------------------- training


def test_an_epoch_leaves_checkpoints_and_history(trained, toy_folder):
    folder, history = trained
    state = load_checkpoint(folder / LAST)
    assert (state["epoch"], state["iteration"], state["history"]) == (1, 3, history)
    assert state["parameters"] == dataclasses.asdict(small(toy_folder, folder))
    assert load_checkpoint(folder / BEST)["epoch"] == 1
    (line,) = (folder / "history.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row == history[0]
    assert row["loss"] == pytest.approx(row["confidence"] + row["localization"])
    assert row["validation_loss"] == pytest.approx(
        row["validation_confidence"] + row["validation_localization"]
    )
    assert {"epoch", "iteration", "lr", "images_per_second", "mAP"} <= set(row)


def test_a_run_that_is_made_longer_equals_one_that_was_that_long(trained, toy_folder, tmp_path):
    folder, _ = trained
    longer = {"iterations": 0.375}
    main(small(toy_folder, tmp_path / "whole", **longer))
    checkpoint = str(folder / LAST)
    main(small(toy_folder, tmp_path / "resumed", checkpoint=checkpoint, workers=2, **longer))
    assert_same_checkpoint(tmp_path / "resumed" / LAST, tmp_path / "whole" / LAST)


def test_the_best_checkpoint_is_the_one_with_the_highest_map(toy_folder, tmp_path, validated):
    validated += [{"validation_loss": 1.0, "mAP": mAP} for mAP in (0.1, 0.3, 0.2)]
    main(small(toy_folder, tmp_path, iterations=3 * 0.1875))
    best = load_checkpoint(tmp_path / BEST)
    last = load_checkpoint(tmp_path / LAST)
    assert (best["epoch"], best["best_mAP"]) == (2, 0.3)
    assert (last["epoch"], last["best_mAP"]) == (3, 0.3)


def test_gradient_clipping_bounds_the_step(toy_folder, tmp_path, validated):
    def weights_after(clip):
        changes = {"iterations": 1 / 16, "weight_decay": 0.0, "grad_clip": clip}
        main(small(toy_folder, tmp_path / str(clip), **changes))
        return load_checkpoint(tmp_path / str(clip) / LAST)["model"]

    label_map = {"background": 0, "a": 1, "b": 2}
    start = train.create_model(None, label_map, small(toy_folder)).state_dict()

    def distance(weights):
        return math.sqrt(
            sum(float((value - start[name]).square().sum()) for name, value in weights.items())
        )

    assert distance(weights_after(0.01)) <= 1.01 * 2 * 1e-3 * 0.01  # twice for biases
    assert distance(weights_after(0.0)) > 1e-3


BATCHES_OF_FIVE = {"iterations": 5 * 4 / 32, "batch_size": 5, "grad_clip": 5.0, "lr": 1e-4}


@pytest.fixture(scope="module")
def whole_batches(toy_folder, tmp_path_factory, no_curves, one_thread):
    """The folder and the history of a run with batches of five of the six images, and of one."""
    folder = tmp_path_factory.mktemp("whole_batches")
    return folder, main(small(toy_folder, folder, **BATCHES_OF_FIVE))


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_a_batch_in_parts_gives_the_same_result_as_a_whole(
    toy_folder, tmp_path, whole_batches, micro_batch_size
):
    """In parts of unequal size, and images with unequal numbers of positive priors."""
    folder, whole = whole_batches
    changes = {"micro_batch_size": micro_batch_size, **BATCHES_OF_FIVE}
    parts = main(small(toy_folder, tmp_path, **changes))
    for our, their in zip(parts, whole, strict=True):
        for name in set(their) - {"images_per_second"}:
            assert our[name] == pytest.approx(their[name], rel=1e-4, abs=1e-6), name
    ours, theirs = (load_checkpoint(path / LAST)["model"] for path in (tmp_path, folder))
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=1e-4, atol=1e-6)


def test_no_part_is_larger_than_asked_for(toy_folder, tmp_path, monkeypatch, validated):
    sizes, forward = [], SSD300.forward

    def seen(self, images):
        sizes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(SSD300, "forward", seen)
    main(small(toy_folder, tmp_path, iterations=2 * 5 / 32, batch_size=5, micro_batch_size=2))
    assert sizes == [2, 2, 1, 1]  # a batch of five, one of one


def test_float16_has_its_gradients_scaled_and_goes_on_with_that_scale(
    toy_folder, tmp_path, validated
):
    first = {"iterations": 1 / 32, "batch_size": 1, "precision": "float16", "lr": 1e-4}
    history = main(small(toy_folder, tmp_path, **first))
    assert math.isfinite(history[0]["loss"])
    state = load_checkpoint(tmp_path / LAST)
    assert state["scaler"]["scale"] > 1
    state["scaler"]["scale"] = 64.0
    parameters = small(toy_folder, tmp_path, checkpoint="scaled.tar", **first)
    assert taken_up(state, parameters).scaler.get_scale() == 64.0
    in_float32 = dataclasses.replace(parameters, precision="float32")
    assert not taken_up(state, in_float32).scaler.is_enabled()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler warns of itself
def test_a_compiled_network_learns_the_same(toy_folder, tmp_path):
    eager = main(small(toy_folder, tmp_path / "eager"))
    compiled = main(small(toy_folder, tmp_path / "compiled", compile=True))
    for name in ("loss", "confidence", "localization", "validation_loss"):
        assert compiled[0][name] == pytest.approx(eager[0][name], rel=1e-3)
    ours, theirs = (
        load_checkpoint(tmp_path / name / LAST)["model"] for name in ("compiled", "eager")
    )
    assert ours.keys() == theirs.keys()


def test_difficult_objects_are_kept_or_dropped(toy_folder, tmp_path, monkeypatch):
    for path in toy_folder.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    entries = json.loads((tmp_path / "TRAIN_objects.json").read_text())
    for entry in entries:
        entry["difficulties"] = [1] * len(entry["labels"])
    (tmp_path / "TRAIN_objects.json").write_text(json.dumps(entries))
    for keep in (True, False):
        train_set, test_set = train.load_data(Parameters(str(tmp_path), keep_difficult=keep))
        n_objects = sum(len(train_set[i][1]) for i in range(len(train_set)))
        assert (n_objects > 0) is keep
        assert len(test_set[0][1]) == len(test_set.objects[0]["labels"])


def test_without_test_images_training_still_saves(toy_folder, tmp_path, capsys):
    for path in toy_folder.glob("*.json"):
        (tmp_path / path.name).write_text(
            "[]" if path.name.startswith("TEST") else path.read_text()
        )
    (row,) = main(small(tmp_path, tmp_path, iterations=1 / 16))
    assert "mAP" not in row
    assert "No images to validate with" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / LAST)["iteration"] == 1


def test_toy_settings_give_way_to_what_is_given(toy_folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "check_parameters", seen.append)
    monkeypatch.setattr(train, "choose_device", lambda name: 1 / 0)
    for parameters, given in (
        (Parameters(toy=True, batch_size=7), None),
        (Parameters(toy=True, lr=Parameters.lr), {"toy", "lr"}),
    ):
        with pytest.raises(ZeroDivisionError):
            main(parameters, given)
    assert (seen[0].batch_size, seen[0].lr, seen[0].pretrained) == (7, train.TOY["lr"], False)
    assert (seen[1].batch_size, seen[1].lr) == (train.TOY["batch_size"], Parameters.lr)


def test_a_step_changes_every_weight_of_the_whole_network(toy_folder, tmp_path, validated):
    parameters = small(toy_folder, tmp_path, width=1.0, iterations=1 / 32, batch_size=1)
    label_map = {"background": 0, "a": 1, "b": 2}
    before = train.create_model(None, label_map, parameters).state_dict()
    main(parameters)
    after = load_checkpoint(tmp_path / LAST)["model"]
    assert before.keys() == after.keys()
    # Biases that lead to maps without a positive prior stay
    changed = {name for name, weights in before.items() if not torch.equal(weights, after[name])}
    assert changed >= {name for name in before if not name.endswith("bias")}
    assert "base.conv1_1.bias" in changed
    assert all(weights.isfinite().all() for weights in after.values())


@pytest.mark.slow
def test_it_learns_from_scratch(toy_folder, tmp_path):
    history = main(
        small(
            toy_folder,
            tmp_path,
            iterations=10 * 0.1875,
            lr=1e-3,
            grad_clip=5.0,
            precision="auto",
            warm_up=0.2,
        )
    )
    assert history[-1]["validation_loss"] < 0.7 * history[0]["validation_loss"]


# ------------------------------------------------------------------------------------ what stops it


def test_a_loss_that_is_not_finite_stops_with_its_batch_and_keeps_the_checkpoint(
    toy_folder, tmp_path, monkeypatch, validated
):
    bad_step = 5
    calls = []
    compare = MultiBoxLoss.compare

    def bad_compare(self, *args):
        calls.append(1)
        losses = compare(self, *args)
        if len(calls) == bad_step:
            losses["localization"] = losses["localization"] + math.inf
        return losses

    monkeypatch.setattr(MultiBoxLoss, "compare", bad_compare)
    with pytest.raises(NonFiniteLossError) as raised:
        main(small(toy_folder, tmp_path, iterations=0.375))
    assert len(calls) <= 6  # the losses of several steps are read together
    message = str(raised.value)
    assert f"step {bad_step}:" in message
    assert "'localization': inf" in message
    assert "'confidence': " in message
    images = json.loads((toy_folder / "TRAIN_images.json").read_text())
    batches = ShuffledBatches(6, 2, seed=0)
    batches.set_epoch(1)
    batch = list(batches)[bad_step - 4]
    assert sorted(message.splitlines()[1:]) == sorted(images[i] for i in batch)
    assert load_checkpoint(tmp_path / LAST)["epoch"] == 1


def test_weights_that_are_not_finite_are_not_saved(toy_folder, tmp_path, monkeypatch):
    step = torch.optim.SGD.step

    def spoil(self, *args):
        step(self, *args)
        self.param_groups[1]["params"][0].data[0] = math.nan

    monkeypatch.setattr(torch.optim.SGD, "step", spoil)
    with pytest.raises(
        NonFiniteLossError, match=r"weights are not finite after step 1: rescale_factors"
    ):
        main(small(toy_folder, tmp_path, iterations=1 / 16))
    state = load_checkpoint(tmp_path / LAST)
    assert state["iteration"] == 0
    assert all(weights.isfinite().all() for weights in state["model"].values())


AS_DEFAULT = {"iterations": Parameters.iterations}  # and so not given beside epochs


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch_size": 0}, "batch_size: expected a number above 0, got 0"),
        ({"iterations": 0}, "iterations: expected a number above 0, got 0"),
        ({"lr": -1.0}, "lr: expected a number above 0, got -1.0"),
        ({"lr": math.nan}, "lr: expected a number above 0, got nan"),
        ({"lr": math.inf}, "lr: expected a number above 0, got inf"),
        ({"seed": -1}, "seed: expected a number of at least 0 .*, got -1"),
        ({"momentum": 5.0}, "momentum: expected a number of at least 0 and below 1, got 5.0"),
        (
            {"decay_at": (80_000, 100_000)},
            "decay_at, .*fractions of the run.* at most 1, got 80000",
        ),
        ({"decay_at": (-1.0,)}, "decay_at, .*fractions of the run.* at least 0 .*, got -1"),
        ({"decay_at": (0.5, math.nan)}, "decay_at, .*fractions of the run.*, got nan"),
        ({"warm_up": 500.0}, "warm_up, a fraction of the run: .* at most 1, got 500"),
        ({"precision": "half"}, "precision: expected auto, .*, got 'half'"),
        ({"width": 0.0}, "width: expected a number of at most 4 and above 0, got 0.0"),
        ({"width": 5.0}, "width: expected a number of at most 4 and above 0, got 5.0"),
        ({"width": math.nan}, "width: expected .*, got nan"),
        ({"freeze": -1}, "freeze: expected a number of at least 0 .*, got -1"),
        ({"freeze": 6}, "freeze: expected a number .* of at most 5, got 6"),
        (AS_DEFAULT | {"epochs": -1.0}, "epochs: expected a number of at least 0, got -1.0"),
        (AS_DEFAULT | {"epochs": math.inf}, "epochs: expected a number of at least 0, got inf"),
        ({"alpha": -0.5}, "alpha: expected a number of at least 0, got -0.5"),
        ({"validate_every": 0}, "validate_every: expected a number above 0, got 0"),
    ],
    ids=str,
)
def test_senseless_parameters_are_refused_before_anything_is_read(changes, expected):
    with pytest.raises(ValueError, match=expected):
        main(small("no such folder", "nor this", **changes))


def test_missing_lists_say_how_to_make_them(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=re.escape(str(tmp_path)) + r".*create_data_lists\.py"
    ):
        main(small(tmp_path, tmp_path))


def test_a_run_goes_on_with_the_checkpoints_parameters_and_what_is_given(
    trained, toy_folder, tmp_path, validated, capsys
):
    folder, _ = trained
    checkpoint = str(folder / LAST)
    edited = small(
        toy_folder, tmp_path, checkpoint=checkpoint, lr=1e-4, momentum=0.5, iterations=0.25
    )
    main(edited, given={"lr", "iterations"})
    printed = capsys.readouterr().out
    assert "momentum: 0.9 as in the checkpoint (instead of 0.5)." in printed
    assert "lr: 0.0001 as given (the checkpoint has 0.001)." in printed
    assert "batch_size" not in printed
    state = load_checkpoint(tmp_path / LAST)
    assert (state["parameters"]["momentum"], state["parameters"]["lr"]) == (0.9, 1e-4)
    assert {group["momentum"] for group in state["optimizer"]["param_groups"]} == {0.9}


def test_going_on_without_difficult_objects_has_to_be_asked_for(
    trained, toy_folder, tmp_path, validated
):
    folder, _ = trained
    checkpoint = str(folder / LAST)
    for number, given in enumerate(({"iterations"}, {"iterations", "keep_difficult"})):
        parameters = small(
            toy_folder,
            tmp_path / str(number),
            checkpoint=checkpoint,
            keep_difficult=False,
            iterations=0.25,
        )
        history = main(parameters, given)
        assert [row["epoch"] for row in history] == [1, 2]
        state = load_checkpoint(tmp_path / str(number) / LAST)
        assert state["parameters"]["keep_difficult"] is ("keep_difficult" not in given)


def test_a_new_rate_given_replaces_the_base_rate(trained, toy_folder, tmp_path, validated):
    folder, _ = trained
    checkpoint = str(folder / BEST)
    parameters = small(toy_folder, tmp_path, checkpoint=checkpoint, lr=1e-4, iterations=0.25)
    history = main(parameters, given={"lr", "iterations"})
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[1]["lr"] == pytest.approx(1e-4)


def test_momentum_decay_and_batch_size_given_hold_from_there_on(trained, toy_folder, tmp_path):
    folder, _ = trained
    state = load_checkpoint(folder / LAST)  # 3 steps of 2 images
    parameters = small(toy_folder, tmp_path, momentum=0.5, weight_decay=0.25, batch_size=6)
    parameters = dataclasses.replace(parameters, checkpoint="checkpoint")
    run = taken_up(state, parameters)
    progress = run.progress
    optimizer = run.optimizer
    assert [(group["momentum"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (0.5, 0.0),
        (0.5, 0.25),
    ]
    assert (progress.epoch, progress.step) == (1, 1)
    buffers = [
        optimizer.state[weight]["momentum_buffer"]
        for group in optimizer.param_groups
        for weight in group["params"]
    ]
    assert any(buffer.abs().max() > 0 for buffer in buffers)


def test_a_finished_training_is_evaluated_and_nothing_more(trained, toy_folder, tmp_path, capsys):
    folder, history = trained
    parameters = small(toy_folder, tmp_path, checkpoint=str(folder / LAST))
    assert main(parameters) == history
    assert "mAP (11-point)" in capsys.readouterr().out


def test_other_classes_than_the_checkpoints_are_refused(trained, toy_folder, tmp_path):
    folder, _ = trained
    state = load_checkpoint(folder / LAST)
    save_checkpoint(
        tmp_path / "other.tar", {**state, "label_map": {"background": 0, "x": 1, "y": 2}}
    )
    with pytest.raises(ValueError, match=r"other\.tar.*'x', 'y'.*--data-folder"):
        main(small(toy_folder, tmp_path, checkpoint=str(tmp_path / "other.tar")))


def test_weights_start_a_run_of_their_own(toy_checkpoint, toy_folder, tmp_path):
    history = main(
        small(toy_folder, tmp_path, start_from=str(toy_checkpoint), lr=1e-12, iterations=0.0625)
    )
    assert [row["epoch"] for row in history] == [1]
    trained = load_checkpoint(tmp_path / LAST)
    for name, weights in load_checkpoint(toy_checkpoint)["model"].items():
        torch.testing.assert_close(trained["model"][name], weights)
    assert "optimizer" in trained
    with pytest.raises(ValueError, match="is of an earlier training"):
        main(small(toy_folder, tmp_path, start_from=str(toy_checkpoint)))


def test_a_checkpoint_of_a_run_starts_another_run_anew(trained, toy_folder, tmp_path):
    folder, _ = trained
    last = folder / LAST
    (row,) = main(small(toy_folder, tmp_path, start_from=str(last), iterations=1 / 16))
    assert (row["epoch"], row["iteration"]) == (1, 1)
    state = load_checkpoint(tmp_path / LAST)
    assert state["run_id"] != load_checkpoint(last)["run_id"]


def test_of_other_classes_the_common_ones_come_along(toy_checkpoint, toy_folder, tmp_path, capsys):
    state = load_checkpoint(toy_checkpoint)
    name = list(state["label_map"])[2]
    other_map = {"background": 0, "x": 1, name: 2}
    save_checkpoint(tmp_path / "other.tar", {**state, "label_map": other_map})
    options = {"start_from": str(tmp_path / "other.tar"), "lr": 1e-12, "iterations": 1 / 16}
    main(small(toy_folder, tmp_path / "out", **options))
    assert f"Classes taken over: {name}. The others start anew." in capsys.readouterr().out
    trained = load_checkpoint(tmp_path / "out" / LAST)
    assert trained["label_map"] == state["label_map"]
    before = state["model"]["pred_convs.cl_conv7.weight"].unflatten(0, (-1, 3))
    after = trained["model"]["pred_convs.cl_conv7.weight"].unflatten(0, (-1, 3))
    for label, is_taken_over in enumerate((True, False, True)):
        assert torch.allclose(after[:, label], before[:, label], atol=1e-6) is is_taken_over


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"checkpoint": "coco"}, "to begin one, give --start-from coco"),
        ({"checkpoint": "a", "start_from": "b"}, "give one of them"),
    ],
    ids=str,
)
def test_going_on_and_starting_are_told_apart(toy_folder, tmp_path, changes, expected):
    with pytest.raises(ValueError, match=expected):
        main(small(toy_folder, tmp_path, **changes))


def test_nothing_goes_on_from_weights_alone(toy_checkpoint, toy_folder, tmp_path):
    with pytest.raises(ValueError, match=r"random\.pth\.tar: has weights.*--start-from .*random"):
        main(small(toy_folder, tmp_path, checkpoint=str(toy_checkpoint)))


def test_the_file_of_the_base_is_no_longer_needed_to_go_on(trained, toy_folder, tmp_path):
    folder, history = trained
    last = str(folder / LAST)
    parameters = small(toy_folder, tmp_path, checkpoint=last, base_weights="no such file")
    assert main(parameters) == history


def test_the_first_process_draws_the_toy_data_and_downloads_the_base(toy_folder, monkeypatch):
    events = []

    @contextlib.contextmanager
    def seen_first():
        events.append("first")
        yield
        events.append("then the others")

    def seen_model(*args, **kwargs):
        events.append("base")
        return SSD300(args[0], pretrained=False, **kwargs)

    monkeypatch.setattr(train, "first_process_first", seen_first)
    monkeypatch.setattr(train, "create_toy_data", lambda *args, **_: events.append("drawings"))
    monkeypatch.setattr(train, "SSD300", seen_model)
    parameters = small(toy_folder, toy=True, pretrained=True)
    train_set, _ = train.load_data(parameters)
    assert events == ["first", "drawings", "then the others"]
    train.create_model(None, train_set.label_map, parameters)
    assert events[3:] == ["first", "base", "then the others"]


def test_the_seed_decides_the_initial_weights(toy_folder):
    def weights(seed):
        model = train.create_model(None, {"background": 0, "a": 1}, small(toy_folder, seed=seed))
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_validation_images_are_those_of_val_lists_where_there_are_some(toy_folder, tmp_path):
    for path in toy_folder.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert train.load_data(small(tmp_path))[1].split == "TEST"
    for name in ("images", "objects"):
        test_list = tmp_path / f"TEST_{name}.json"
        (tmp_path / f"VAL_{name}.json").write_bytes(test_list.read_bytes())
    assert train.load_data(small(tmp_path))[1].split == "VAL"


def test_each_epoch_has_augmentations_of_its_own(toy_folder, tmp_path, monkeypatch):
    epochs = []
    monkeypatch.setattr(train.PascalVOCDataset, "set_epoch", lambda self, n: epochs.append(n))
    monkeypatch.setattr(train, "validate", lambda *args: (None, {}))
    train.main(small(toy_folder, tmp_path, iterations=0.375))
    assert epochs == [0, 1]


def test_float16_gradients_are_clipped_to_their_true_norm(toy_folder):
    """Not as they are while GradScaler has made them larger: they would hardly move a weight."""
    parameters = small(
        toy_folder, precision="float16", grad_clip=0.5, momentum=0.0, weight_decay=0.0
    )
    train_set, _ = train.load_data(parameters)
    model = train.create_model(None, train_set.label_map, parameters)
    run = train.create_run(model, parameters, {})
    run.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    train.set_learning_rate(run.optimizer, 1.0)
    before = [weight.detach().clone() for weight in model.parameters()]
    image, boxes, labels, _ = train_set[0]
    train.take_step(image.unsqueeze(0), [boxes], [labels], run)
    squares = 0.0
    for (name, weight), old in zip(model.named_parameters(), before, strict=True):
        rate = 2.0 if name.endswith(".bias") else 1.0
        squares += float(((weight.detach() - old) / rate).square().sum())
    assert squares**0.5 == pytest.approx(0.5, rel=1e-2)
