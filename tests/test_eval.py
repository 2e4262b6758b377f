"""Evaluation of a checkpoint."""

import json
import math
import re

import pytest
import torch
from torch.utils.data import DataLoader

from checkpoints import load_model, model_state, save_checkpoint
from datasets import PascalVOCDataset, collate_fn
from eval import Parameters, evaluate, keep_shared_classes, main, print_average_precisions, to_cpu
from helpers.runs import WIDTH
from helpers.scripts import run_script
from model import SSD300, MultiBoxLoss
from utils import cxcy_to_gcxgcy, xy_to_cxcy

pytestmark = pytest.mark.usefixtures("one_thread")


class PerfectModel(torch.nn.Module):
    """Predicts the objects of the images that it is shown, in the order of a data set."""

    def __init__(self, model, dataset):
        super().__init__()
        self.priors_cxcy, self.n_classes = model.priors_cxcy, model.n_classes
        self.detect_objects = model.detect_objects
        self.label_map = dataset.label_map
        self.items = iter([dataset[i] for i in range(len(dataset))])

    def forward(self, images):
        locs = torch.zeros(len(images), 8732, 4)
        scores = torch.zeros(len(images), 8732, self.n_classes)
        scores[:, :, 0] = 20
        for i in range(len(images)):
            _, boxes, labels, _ = next(self.items)
            priors = torch.arange(len(boxes)) * 50  # any will do, each for an object
            locs[i, priors] = cxcy_to_gcxgcy(xy_to_cxcy(boxes), self.priors_cxcy[priors])
            scores[i, priors, labels] = 40
        return locs, scores


@pytest.fixture
def loader(toy_folder):
    return DataLoader(PascalVOCDataset(toy_folder, "TEST"), batch_size=3, collate_fn=collate_fn)


@pytest.mark.parametrize("metric", ["11-point", "area"])
def test_perfect_predictions_have_an_average_precision_of_one(loader, toy_checkpoint, metric):
    model = load_model(toy_checkpoint)
    evaluation = evaluate(loader, PerfectModel(model, loader.dataset), metric=metric)
    countable = [ap for ap in evaluation.average_precisions.values() if not math.isnan(ap)]
    assert countable
    assert countable == pytest.approx([1.0] * len(countable))
    assert evaluation.mAP == pytest.approx(1.0)
    assert evaluation.losses == {}


def test_the_loss_is_the_mean_over_images_whatever_the_batch_size(loader, toy_checkpoint):
    model = load_model(toy_checkpoint)
    criterion = MultiBoxLoss(model.priors_cxcy)
    losses = evaluate(loader, model, criterion, precision="float32").losses
    assert set(losses) == {"confidence", "localization"}
    expected = dict.fromkeys(losses, 0.0)
    with torch.inference_mode():
        for images, boxes, labels, _ in loader:
            for name, value in criterion.components(*model(images), boxes, labels).items():
                expected[name] += float(value) * len(images) / len(loader.dataset)
    assert losses == pytest.approx(expected, rel=1e-4)


def test_tensors_brought_to_the_cpu_have_their_own_memory(random):
    tensors = [torch.randn(n, 4, generator=random) for n in (3, 0, 5)]
    on_cpu = to_cpu(tensors)
    assert all(map(torch.equal, on_cpu, tensors))
    assert [tensor.untyped_storage().nbytes() for tensor in on_cpu] == [48, 0, 80]


def test_the_table_shows_percents_and_classes_without_objects(capsys):
    print_average_precisions({"cat": 0.5, "unicorn": math.nan}, 0.5)
    lines = capsys.readouterr().out.split("\n")
    assert [line.split() for line in lines if line][1:] == [
        ["cat", "50.0"],
        ["unicorn", "n/a"],
        ["mAP", "(11-point)", "50.0"],
    ]


def test_main_passes_its_parameters_on(toy_folder, toy_checkpoint, monkeypatch, capsys):
    seen = {}

    def detect_nothing(self, locs, scores, min_score, max_overlap, top_k):
        seen.update(n=[*seen.get("n", []), len(locs)], settings=(min_score, max_overlap, top_k))
        nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        return tuple([tensor] * len(locs) for tensor in nothing)

    monkeypatch.setattr("model.SSD300.detect_objects", detect_nothing)
    parameters = Parameters(
        str(toy_folder),
        str(toy_checkpoint),
        batch_size=3,
        workers=0,
        device="cpu",
        min_score=0.1,
        max_overlap=0.2,
        top_k=7,
        metric="area",
    )
    evaluation = main(parameters)
    assert seen == {"n": [3, 1], "settings": (0.1, 0.2, 7)}
    assert evaluation.mAP == 0
    assert "mAP (area)" in capsys.readouterr().out


def test_other_classes_than_the_checkpoints_are_refused(toy_folder, toy_checkpoint, tmp_path):
    for path in toy_folder.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    label_map = json.loads((tmp_path / "label_map.json").read_text())
    renamed = {f"{name}s" if number else name: number for name, number in label_map.items()}
    (tmp_path / "label_map.json").write_text(json.dumps(renamed))
    with pytest.raises(ValueError, match=re.escape(str(toy_checkpoint)) + ".*--data-folder"):
        main(Parameters(str(tmp_path), str(toy_checkpoint), workers=0, device="cpu"))


def test_of_other_classes_those_that_both_have_are_compared(toy_folder, tmp_path, capsys):
    """A model that knows the same things by COCO's names, in another order, and more of them."""
    lists = tmp_path / "lists"
    lists.mkdir()
    for path in toy_folder.glob("*.json"):
        (lists / path.name).write_text(path.read_text())
    (lists / "label_map.json").write_text(json.dumps({"background": 0, "sofa": 1, "person": 2}))
    model_classes = {"background": 0, "person": 1, "zebra": 2, "couch": 3}
    torch.manual_seed(0)
    network = SSD300(4, pretrained=False, width=WIDTH, label_map=model_classes)
    state = model_state(network)
    save_checkpoint(tmp_path / "more.tar", state)
    # The same network with the classes of the lists only: rows 0 (background), 3 and 1
    for name, tensor in state["model"].items():
        if "cl_" in name:
            state["model"][name] = tensor.unflatten(0, (-1, 4))[:, [0, 3, 1]].flatten(0, 1)
    state["label_map"] = {"background": 0, "sofa": 1, "person": 2}
    save_checkpoint(tmp_path / "same.tar", state)

    # A low threshold and no ranking across classes, so that the softmax over fewer classes, which
    # changes scores but hardly their order, decides little
    results = {}
    for name in ("more", "same"):
        results[name] = main(
            Parameters(str(lists), str(tmp_path / f"{name}.tar"), workers=0, device="cpu")
        )
        assert list(results[name].average_precisions) == ["sofa", "person"]
    printed = capsys.readouterr().out
    assert "Classes compared: sofa, person." in printed
    for name, ap in results["same"].average_precisions.items():
        assert results["more"].average_precisions[name] == pytest.approx(ap, abs=0.1)


def test_detections_of_classes_that_the_data_lack_are_dropped():
    columns = [
        [torch.arange(12.0).view(3, 4)],
        [torch.tensor([1, 2, 3])],
        [torch.tensor([0.9, 0.8, 0.7])],
        ["boxes"],
        ["labels"],
        ["difficulties"],
    ]
    model_classes = {"background": 0, "person": 1, "zebra": 2, "couch": 3}
    data_classes = {"background": 0, "sofa": 1, "person": 2, "boat": 3}
    label_map, kept = keep_shared_classes(columns, model_classes, data_classes)
    assert label_map == {"background": 0, "sofa": 1, "person": 2}
    assert kept[0][0].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert kept[1][0].tolist() == [2, 1]
    assert kept[2][0].tolist() == pytest.approx([0.9, 0.7])
    assert kept[3:] == columns[3:]


def test_a_model_without_names_is_compared_by_its_numbers(loader, toy_checkpoint):
    named = load_model(toy_checkpoint)
    unnamed = SSD300(len(named.label_map), pretrained=False, width=WIDTH)
    unnamed.load_state_dict(named.state_dict())
    ours = evaluate(loader, unnamed, precision="float32")
    theirs = evaluate(loader, named, precision="float32")
    assert ours.average_precisions == theirs.average_precisions


def test_a_model_that_shares_no_class_is_refused(loader):
    model = SSD300(2, pretrained=False, width=WIDTH, label_map={"background": 0, "zebra": 1})
    with pytest.raises(ValueError, match=r"knows the classes \['zebra'\], the data have"):
        evaluate(loader, model, precision="float32")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metric": "12-point"}, "metric: expected '11-point', 'area' or 'coco', got '12-point'"),
        ({"precision": "foo"}, "precision: expected auto, .*, got 'foo'"),
        ({"split": "TRAIN"}, "split: expected TEST or VAL, got 'TRAIN'"),
        ({"batch_size": 0}, "batch_size: expected a number of at least 1, got 0"),
        ({"top_k": -1}, "top_k: expected a number of at least 1, got -1"),
        ({"workers": -1}, "workers: expected a number of at least 0, got -1"),
        (
            {"min_score": math.nan},
            "min_score: expected a number of at least 0 and of at most 1, got nan",
        ),
        ({"max_overlap": 2.0}, "max_overlap: expected a number .* of at most 1, got 2.0"),
    ],
    ids=str,
)
def test_senseless_parameters_are_refused_before_anything_is_read(changes, expected):
    with pytest.raises(ValueError, match=expected):
        main(Parameters("no such folder", "nor this", **changes))


def test_a_set_without_test_images_is_refused(toy_folder, toy_checkpoint, tmp_path):
    for path in toy_folder.glob("*.json"):
        (tmp_path / path.name).write_text(
            "[]" if path.name.startswith("TEST") else path.read_text()
        )
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ".*no images"):
        main(Parameters(str(tmp_path), str(toy_checkpoint), workers=0, device="cpu"))


def test_an_error_on_the_command_line_is_one_line(tmp_path):
    message = run_script("eval.py", "--data-folder", tmp_path)
    assert re.fullmatch(r"error: .*TEST_images\.json: no such .*", message)
