"""Evaluation of a checkpoint."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import eval as evaluation_script
from checkpoints import load_model
from datasets import PascalVOCDataset, collate_fn
from eval import Parameters, evaluate, fetch, main, print_average_precisions
from model import MultiBoxLoss
from utils import cxcy_to_gcxgcy, xy_to_cxcy

ROOT = Path(__file__).resolve().parents[1]


class PerfectModel(torch.nn.Module):
    """Predicts the objects of the images that it is shown, in the order of a data set."""

    def __init__(self, model, dataset):
        super().__init__()
        self.priors_cxcy, self.n_classes = model.priors_cxcy, model.n_classes
        self.detect_objects = model.detect_objects
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


def test_fetched_tensors_have_their_own_memory(random):
    tensors = [torch.randn(n, 4, generator=random) for n in (3, 0, 5)]
    fetched = fetch(tensors)
    assert all(map(torch.equal, fetched, tensors))
    assert [tensor.untyped_storage().nbytes() for tensor in fetched] == [48, 0, 80]


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
        str(toy_folder), str(toy_checkpoint), batch_size=3, workers=0, device="cpu",
        min_score=0.1, max_overlap=0.2, top_k=7, metric="area",
    )  # fmt: skip
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


def test_a_set_without_test_images_is_refused(toy_folder, toy_checkpoint, tmp_path):
    for path in toy_folder.glob("*.json"):
        (tmp_path / path.name).write_text(
            "[]" if path.name.startswith("TEST") else path.read_text()
        )
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ".*no images"):
        main(Parameters(str(tmp_path), str(toy_checkpoint), workers=0, device="cpu"))


def test_an_error_on_the_command_line_is_one_line(tmp_path):
    command = [sys.executable, evaluation_script.__file__, "--data-folder", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "TEST_images.json" in result.stderr
    assert "Traceback" not in result.stderr
