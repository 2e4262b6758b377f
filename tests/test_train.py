"""Training: the schedule, two real steps and going on from them, and what stops it."""

import dataclasses
import importlib.util
import json
import math
import re
import shutil

import pytest
import torch
from PIL import Image

import model
import train
from checkpoints import load_checkpoint, load_model, model_state, save_checkpoint
from datasets import ShuffledBatches
from eval import Evaluation
from model import SSD300, MultiBoxLoss, VGGBase
from train import NonFiniteLossError, Parameters, create_optimizer, learning_rate, main, n_steps

pytestmark = pytest.mark.usefixtures("thin_base")

N_VOC_IMAGES = 16_551  # VOC2007 and VOC2012 trainval


def small(toy_folder, output_folder, **changes):
    """Parameters for one epoch of three steps on the toy data."""
    settings = {
        "data_folder": str(toy_folder),
        "output_folder": str(output_folder),
        "pretrained": False,
        "batch_size": 2,
        "iterations": 0.1875,  # 3 steps of 2 images
        "workers": 0,
        "device": "cpu",
        "precision": "float32",
    }
    return Parameters(**{**settings, **changes})


@pytest.fixture(scope="module")
def toy_checkpoint(toy_folder, tmp_path_factory, thin_base):
    """In place of the fixture of that name for all tests: weights for a network with the thin base."""
    label_map = json.loads((toy_folder / "label_map.json").read_text())
    path = tmp_path_factory.mktemp("checkpoint") / "random.pth.tar"
    save_checkpoint(path, model_state(SSD300(len(label_map), pretrained=False), label_map))
    return path


@pytest.fixture(scope="module")
def trained(toy_folder, tmp_path_factory, thin_base):
    """The folder and the history of a training of one epoch, the first half of a training of two."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, main(small(toy_folder, folder))


@pytest.fixture
def validated(monkeypatch):
    """In place of validating: the parts of the epochs' rows that are in this list, in order, and then none."""
    rows, evaluation = [], Evaluation({"a": math.nan}, math.nan, {})
    monkeypatch.setattr(train, "validate", lambda *args: (evaluation, rows.pop(0) if rows else {}))
    return rows


# -------------------------------------------------------------------------------------------------------------- schedule


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


# -------------------------------------------------------------------------------------------------------------- training


def test_an_epoch_leaves_checkpoints_history_and_curves(trained, toy_folder):
    folder, history = trained
    state = load_checkpoint(folder / "checkpoint_ssd300.pth.tar")
    assert (state["epoch"], state["iteration"], state["history"]) == (1, 3, history)
    assert state["parameters"] == dataclasses.asdict(small(toy_folder, folder))
    assert load_checkpoint(folder / "BEST_checkpoint_ssd300.pth.tar")["epoch"] == 1
    (line,) = (folder / "history.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row == history[0]
    assert row["loss"] == pytest.approx(row["confidence"] + row["localization"])
    assert row["validation_loss"] == pytest.approx(
        row["validation_confidence"] + row["validation_localization"]
    )
    assert {"epoch", "iteration", "lr", "images_per_second", "mAP"} <= set(row)
    with Image.open(folder / "history.png") as curves:
        assert curves.size == (1000, 400)


def test_training_that_goes_on_equals_training_without_a_break(toy_folder, tmp_path):
    twice = {"iterations": 0.375, "decay_at": (2.0,), "warm_up": 0.0, "batch_size": 2}
    once = {**twice, "iterations": 0.1875}
    whole = main(small(toy_folder, tmp_path / "whole", **twice))
    main(small(toy_folder, tmp_path / "half", **once))
    checkpoint = str(tmp_path / "half" / "checkpoint_ssd300.pth.tar")
    resumed = main(
        small(toy_folder, tmp_path / "resumed", checkpoint=checkpoint, workers=2, **twice)
    )

    def without_time(rows):
        return [
            {name: value for name, value in row.items() if name != "images_per_second"}
            for row in rows
        ]

    assert without_time(resumed) == without_time(whole)
    ours = load_checkpoint(tmp_path / "resumed" / "checkpoint_ssd300.pth.tar")
    theirs = load_checkpoint(tmp_path / "whole" / "checkpoint_ssd300.pth.tar")
    assert all(
        torch.equal(weights, theirs["model"][name]) for name, weights in ours["model"].items()
    )
    for number, momentum in ours["optimizer"]["state"].items():
        assert torch.equal(
            momentum["momentum_buffer"], theirs["optimizer"]["state"][number]["momentum_buffer"]
        )


def test_the_best_checkpoint_is_the_one_with_the_highest_map(toy_folder, tmp_path, validated):
    validated += [{"validation_loss": 1.0, "mAP": mAP} for mAP in (0.1, 0.3, 0.2)]
    main(small(toy_folder, tmp_path, iterations=3 * 0.1875))
    best = load_checkpoint(tmp_path / "BEST_checkpoint_ssd300.pth.tar")
    last = load_checkpoint(tmp_path / "checkpoint_ssd300.pth.tar")
    assert (best["epoch"], best["best_mAP"]) == (2, 0.3)
    assert (last["epoch"], last["best_mAP"]) == (3, 0.3)


def test_gradient_clipping_bounds_the_step(toy_folder, tmp_path):
    def weights_after(clip):
        changes = {
            "iterations": 1 / 16,
            "warm_up": 0.0,
            "weight_decay": 0.0,
            "lr": 1e-3,
            "grad_clip": clip,
        }
        main(small(toy_folder, tmp_path / str(clip), **changes))
        return load_checkpoint(tmp_path / str(clip) / "checkpoint_ssd300.pth.tar")["model"]

    start = train.create_model(
        None, {"background": 0, "a": 1, "b": 2}, Parameters(pretrained=False), torch.device("cpu")
    )
    start = start.state_dict()

    def distance(weights):
        return math.sqrt(
            sum(float((value - start[name]).square().sum()) for name, value in weights.items())
        )

    assert distance(weights_after(0.01)) <= 1.01 * 2 * 1e-3 * 0.01  # twice for biases
    assert distance(weights_after(0.0)) > 1e-3


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_a_batch_in_parts_gives_the_same_result_as_a_whole(toy_folder, tmp_path, micro_batch_size):
    """As many as five of six images, in parts of unequal size, and images with unequal numbers of positive priors."""
    changes = {"iterations": 5 * 4 / 32, "batch_size": 5, "grad_clip": 5.0, "lr": 1e-4}
    whole = main(small(toy_folder, tmp_path / "whole", **changes))
    parts = main(
        small(toy_folder, tmp_path / "parts", micro_batch_size=micro_batch_size, **changes)
    )
    for our, their in zip(parts, whole, strict=True):
        for name in set(their) - {"images_per_second"}:
            assert our[name] == pytest.approx(their[name], rel=1e-4, abs=1e-6), name
    ours, theirs = (
        load_checkpoint(tmp_path / name / "checkpoint_ssd300.pth.tar")["model"]
        for name in ("parts", "whole")
    )
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
    toy_folder, tmp_path, monkeypatch
):
    first = {
        "iterations": 0.125,
        "precision": "float16",
        "decay_at": (2.0,),
        "warm_up": 0.0,
        "lr": 1e-4,
    }
    history = main(small(toy_folder, tmp_path, **first))
    assert math.isfinite(history[0]["loss"])
    state = load_checkpoint(tmp_path / "checkpoint_ssd300.pth.tar")
    assert state["scaler"]["scale"] > 1
    state["scaler"]["scale"] = 64.0
    save_checkpoint(tmp_path / "scaled.tar", state)
    parameters = small(toy_folder, tmp_path, **first)
    network = train.create_model(state, state["label_map"], parameters, torch.device("cpu"))
    training = train.create_training(network, parameters, {})
    train.resume(state, training)
    assert training.scaler.get_scale() == 64.0
    other = train.create_training(
        training.model, dataclasses.replace(parameters, precision="float32"), {}
    )
    train.resume(state, other)
    assert not other.scaler.is_enabled()


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_a_gpu_computes_in_bfloat16_where_it_can_and_else_in_float16(
    monkeypatch, capability, dtype
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert model.choose_precision(torch.device("cuda"), "auto") == dtype
    assert model.choose_precision(torch.device("cuda"), "float32") == torch.float32


def test_a_processor_computes_in_bfloat16_only_where_it_is_made_for_it(monkeypatch):
    for found, dtype in (
        ("amx_bf16", torch.bfloat16),
        ("avx512_bf16", torch.bfloat16),
        ("avx2", torch.float32),
    ):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda name=found: {name: True}, raising=False
        )
        assert model.choose_precision(torch.device("cpu"), "auto") == dtype
    with pytest.raises(ValueError, match="expected auto, float32, bfloat16, float16, got 'half'"):
        model.choose_precision(torch.device("cpu"), "half")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler warns of itself
def test_a_compiled_network_learns_the_same(toy_folder, tmp_path):
    eager = main(small(toy_folder, tmp_path / "eager"))
    compiled = main(small(toy_folder, tmp_path / "compiled", compile=True))
    for name in ("loss", "confidence", "localization", "validation_loss"):
        assert compiled[0][name] == pytest.approx(eager[0][name], rel=1e-3)
    ours, theirs = (
        load_checkpoint(tmp_path / name / "checkpoint_ssd300.pth.tar")["model"]
        for name in ("compiled", "eager")
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


def test_without_matplotlib_one_line_says_so(toy_folder, tmp_path, monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
    )
    main(small(toy_folder, tmp_path, iterations=1 / 16))
    assert not (tmp_path / "history.png").exists()
    assert capsys.readouterr().out.count("pip install matplotlib") == 1


def test_without_test_images_training_still_saves(toy_folder, tmp_path, capsys):
    for path in toy_folder.glob("*.json"):
        (tmp_path / path.name).write_text(
            "[]" if path.name.startswith("TEST") else path.read_text()
        )
    (row,) = main(small(tmp_path, tmp_path, iterations=1 / 16))
    assert "mAP" not in row
    assert "no test images" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "checkpoint_ssd300.pth.tar")["iteration"] == 1


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


def test_a_step_changes_every_weight_of_the_whole_network(
    toy_folder, tmp_path, monkeypatch, validated
):
    monkeypatch.setattr(model, "VGGBase", VGGBase)
    parameters = small(toy_folder, tmp_path, iterations=1 / 32, batch_size=1, warm_up=0.0)
    before = train.create_model(
        None, {"background": 0, "a": 1, "b": 2}, parameters, torch.device("cpu")
    ).state_dict()
    main(parameters)
    after = load_checkpoint(tmp_path / "checkpoint_ssd300.pth.tar")["model"]
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


# ------------------------------------------------------------------------------------------------------- what stops it


@pytest.mark.parametrize(("bad_step", "value"), [(4, math.nan), (5, math.inf), (6, math.nan)])
def test_a_loss_that_is_not_finite_stops_with_its_batch_and_keeps_the_checkpoint(
    toy_folder, tmp_path, monkeypatch, validated, bad_step, value
):
    calls = []
    compare = MultiBoxLoss.compare

    def bad_compare(self, *args):
        calls.append(1)
        losses = compare(self, *args)
        return (
            {**losses, "localization": losses["localization"] + value}
            if len(calls) == bad_step
            else losses
        )

    monkeypatch.setattr(MultiBoxLoss, "compare", bad_compare)
    with pytest.raises(NonFiniteLossError) as raised:
        main(small(toy_folder, tmp_path, iterations=0.375))
    assert len(calls) == bad_step
    message = str(raised.value)
    assert f"iteration {bad_step}:" in message
    assert f"'localization': {value}" in message
    assert "'confidence': " in message
    images = json.loads((toy_folder / "TRAIN_images.json").read_text())
    batches = ShuffledBatches(6, 2, seed=0)
    batches.set_epoch(1)
    batch = list(batches)[bad_step - 4]
    assert sorted(message.splitlines()[1:]) == sorted(images[i] for i in batch)
    assert load_checkpoint(tmp_path / "checkpoint_ssd300.pth.tar")["epoch"] == 1


def test_weights_that_are_not_finite_are_not_saved(toy_folder, tmp_path, monkeypatch):
    step = torch.optim.SGD.step

    def spoil(self, *args):
        step(self, *args)
        self.param_groups[1]["params"][0].data[0] = math.nan

    monkeypatch.setattr(torch.optim.SGD, "step", spoil)
    with pytest.raises(
        NonFiniteLossError, match=r"weights are not finite after iteration 1: rescale_factors"
    ):
        main(small(toy_folder, tmp_path, iterations=1 / 16))
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_training_is_not_overwritten(trained, toy_folder):
    folder, _ = trained
    with pytest.raises(
        ValueError, match=r"checkpoint_ssd300\.pth\.tar: holds an earlier training.*--checkpoint"
    ):
        main(small(toy_folder, folder))


@pytest.mark.parametrize(
    "changes", [{"batch_size": 0}, {"iterations": 0}, {"lr": -1.0}, {"lr": math.nan}, {"seed": -1}]
)
def test_senseless_parameters_are_refused(toy_folder, tmp_path, changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"{name}: expected .*0"):
        main(small(toy_folder, tmp_path, **changes))


def test_missing_lists_say_how_to_make_them(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=re.escape(str(tmp_path)) + r".*create_data_lists\.py"
    ):
        main(small(tmp_path, tmp_path))


def test_differences_from_the_checkpoint_are_named_unless_given(
    trained, toy_folder, tmp_path, monkeypatch
):
    folder, _ = trained
    checkpoint = str(folder / "checkpoint_ssd300.pth.tar")
    parameters = small(toy_folder, tmp_path, checkpoint=checkpoint, lr=1e-4, momentum=0.5)
    with pytest.raises(ValueError, match=r"momentum was 0\.9, now 0\.5.*--momentum 0\.9") as raised:
        main(parameters, given={"lr"})
    assert "lr was" not in str(raised.value)


def test_going_on_without_difficult_objects_has_to_be_asked_for(trained, toy_folder, tmp_path):
    folder, _ = trained
    checkpoint = str(folder / "checkpoint_ssd300.pth.tar")
    parameters = small(
        toy_folder, tmp_path, checkpoint=checkpoint, keep_difficult=False, iterations=0.375
    )
    with pytest.raises(
        ValueError, match=r"keep_difficult was True, now False\. .*--keep-difficult$"
    ):
        main(parameters, given={"iterations"})
    history = main(parameters, given={"keep_difficult", "iterations"})
    assert [row["epoch"] for row in history] == [1, 2]
    assert (
        load_checkpoint(tmp_path / "checkpoint_ssd300.pth.tar")["parameters"]["keep_difficult"]
        is False
    )


def test_a_new_rate_given_replaces_the_base_rate(trained, toy_folder, tmp_path):
    folder, _ = trained
    checkpoint = str(folder / "BEST_checkpoint_ssd300.pth.tar")
    parameters = small(toy_folder, tmp_path, checkpoint=checkpoint, lr=1e-4, iterations=0.375)
    history = main(parameters, given={"lr", "iterations"})
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[1]["lr"] == pytest.approx(
        learning_rate(5, dataclasses.replace(parameters, lr=1e-3)) / 10
    )


def test_momentum_decay_and_batch_size_given_hold_from_there_on(trained, toy_folder, tmp_path):
    folder, _ = trained
    state = load_checkpoint(folder / "checkpoint_ssd300.pth.tar")  # 3 steps of 2 images
    parameters = small(toy_folder, tmp_path, momentum=0.5, weight_decay=0.25, batch_size=6)
    network = train.create_model(state, state["label_map"], parameters, torch.device("cpu"))
    training = train.create_training(network, parameters, {})
    progress, optimizer = train.resume(state, training), training.optimizer
    assert [(group["momentum"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (0.5, 0.0),
        (0.5, 0.25),
    ]
    assert (progress.epoch, progress.iteration) == (1, 1)
    buffers = [
        optimizer.state[weight]["momentum_buffer"]
        for group in optimizer.param_groups
        for weight in group["params"]
    ]
    assert any(buffer.abs().max() > 0 for buffer in buffers)


def test_a_finished_training_is_evaluated_and_nothing_more(trained, toy_folder, tmp_path, capsys):
    folder, history = trained
    parameters = small(toy_folder, tmp_path, checkpoint=str(folder / "checkpoint_ssd300.pth.tar"))
    assert main(parameters) == history
    assert "mAP (11-point)" in capsys.readouterr().out


def test_other_classes_than_the_checkpoints_are_refused(trained, toy_folder, tmp_path):
    folder, _ = trained
    state = load_checkpoint(folder / "checkpoint_ssd300.pth.tar")
    save_checkpoint(
        tmp_path / "other.tar", {**state, "label_map": {"background": 0, "x": 1, "y": 2}}
    )
    with pytest.raises(ValueError, match=r"other\.tar.*'x', 'y'.*--data-folder"):
        main(small(toy_folder, tmp_path, checkpoint=str(tmp_path / "other.tar")))


def test_weights_alone_start_a_training_of_their_own(toy_checkpoint, toy_folder, tmp_path):
    history = main(
        small(toy_folder, tmp_path, checkpoint=str(toy_checkpoint), lr=1e-12, iterations=0.0625)
    )
    assert [row["epoch"] for row in history] == [1]
    trained = load_checkpoint(tmp_path / "checkpoint_ssd300.pth.tar")
    for name, weights in load_checkpoint(toy_checkpoint)["model"].items():
        torch.testing.assert_close(trained["model"][name], weights)
    assert "optimizer" in trained
    with pytest.raises(ValueError, match="holds an earlier training"):
        main(small(toy_folder, tmp_path, checkpoint=str(toy_checkpoint)))


def test_weights_alone_need_the_same_classes(toy_checkpoint, toy_folder, tmp_path):
    state = load_checkpoint(toy_checkpoint)
    save_checkpoint(
        tmp_path / "other.tar", {**state, "label_map": {"background": 0, "x": 1, "y": 2}}
    )
    with pytest.raises(ValueError, match=r"other\.tar.*'x', 'y'.*--data-folder"):
        main(small(toy_folder, tmp_path, checkpoint=str(tmp_path / "other.tar")))


def test_the_file_of_the_base_is_no_longer_needed_to_go_on():
    parameters = Parameters(base_weights="vgg16_reducedfc.pth", checkpoint="checkpoint")
    state = {"label_map": {}, "parameters": dataclasses.asdict(parameters), "optimizer": {}}
    train.check_resumable(state, Parameters(checkpoint="checkpoint"), set(), {}, {})
