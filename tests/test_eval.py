"""Evaluation of a checkpoint."""

import json
import math
import re
import shutil
import sys
import tarfile

import pytest
import torch
from torch.utils.data import DataLoader

from checkpoints import load_model, model_state, save_checkpoint
from conftest import shared_path
from data_lists import create_data_lists
from datasets import PascalVOCDataset, collate_fn, read_image
from detection_files import read_detections
from eval import (
    Evaluation,
    Parameters,
    evaluate,
    keep_shared_classes,
    main,
    print_average_precisions,
    to_cpu,
    to_pixels,
)
from helpers.coco import second_opinion
from helpers.runs import WIDTH
from helpers.scripts import run_script
from model import SSD300, MultiBoxLoss
from utils import cxcy_to_gcxgcy, without_nan, xy_to_cxcy

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
    parameters = Parameters(str(tmp_path), str(toy_checkpoint), workers=0, device="cpu")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ".*no images: make lists"):
        main(parameters)
    for kind in ("images", "objects"):
        shutil.copy(tmp_path / f"TRAIN_{kind}.json", tmp_path / f"VAL_{kind}.json")
    with pytest.raises(ValueError, match=r"no images: give --split VAL, or make lists"):
        main(parameters)


# ---------------------------------------------------------------- files of detections, and results


@pytest.fixture
def run(toy_folder, toy_checkpoint):
    """A function that evaluates the random model, or files of detections."""

    def evaluate_with(**changes):
        fixed = {"workers": 0, "device": "cpu", "precision": "float32"}
        checkpoint = changes.pop("checkpoint", str(toy_checkpoint))
        return main(Parameters(str(toy_folder), checkpoint, **fixed, **changes))

    return evaluate_with


@pytest.mark.parametrize("metric", ["11-point", "area", "coco"])
def test_saved_detections_give_the_same_result_without_a_model(run, metric, tmp_path, capsys):
    if metric == "coco":
        pytest.importorskip("pycocotools")
    ours = run(save_detections=str(tmp_path / "new" / "folder"), metric=metric)
    for path in (tmp_path / "new" / "folder", tmp_path / "new" / "folder" / "detections.json"):
        theirs = run(detections=str(path), checkpoint="none", metric=metric)
        assert theirs.average_precisions == pytest.approx(ours.average_precisions, abs=1e-3)
        assert theirs.mAP == pytest.approx(ours.mAP, abs=1e-3)
    assert "detections on 4 images, from" in capsys.readouterr().out


def test_saved_detections_are_in_pixels_of_their_images(loader, toy_folder, run, tmp_path):
    """Those of a perfect model are the boxes of the lists."""
    dataset = loader.dataset
    perfect = PerfectModel(load_model_of(toy_folder), dataset)
    columns = to_pixels(evaluate(loader, perfect).columns, dataset)
    for found, truth in zip(columns[0], columns[3], strict=True):
        distances = torch.cdist(truth, found).min(dim=1).values
        assert float(distances.max()) < 0.1
    sizes = [read_image(path).size for path in dataset.images]
    assert dataset.image_sizes() == sizes


def load_model_of(folder):
    """A model with the classes of a folder's lists."""
    label_map = json.loads((folder / "label_map.json").read_text())
    return SSD300(len(label_map), pretrained=False, width=WIDTH, label_map=label_map)


def test_files_of_detections_need_no_images(toy_folder, run, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    for path in toy_folder.glob("*.json"):
        (lists / path.name).write_text(path.read_text().replace("/JPEGImages/", "/gone/"))
    with pytest.raises(FileNotFoundError, match="gone"):
        main(Parameters(str(lists), "none"))
    label_map = json.loads((lists / "label_map.json").read_text())
    (name, *_) = list(label_map)[1:]
    (tmp_path / f"comp4_det_test_{name}.txt").write_text("")
    evaluation = main(Parameters(str(lists), "none", detections=str(tmp_path)))
    assert evaluation.mAP == 0


def test_results_for_programs(run, tmp_path):
    path = tmp_path / "new" / "results.json"
    evaluation = run(json=str(path), top_k=7)
    results = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert results["mAP"] == evaluation.mAP
    aps = evaluation.average_precisions.items()
    expected = {name: None if math.isnan(ap) else ap for name, ap in aps}
    assert results["average_precisions"] == expected
    assert results["parameters"]["top_k"] == 7
    assert results["checkpoint"] == results["parameters"]["checkpoint"]
    assert results["counts"]["images"] == 4
    assert results["counts"]["detections"] == 4 * 7
    n_difficult = sum(int(difficulties.sum()) for difficulties in evaluation.columns[5])
    assert results["counts"]["difficult objects"] == n_difficult > 0
    assert results["counts"]["objects"] == sum(map(len, evaluation.columns[4])) - n_difficult
    run(detections=saved(tmp_path, evaluation), json=str(path))
    results = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert results["checkpoint"] is None
    assert set(results["average_precisions"].values()) <= {0, None}


def saved(folder, evaluation):
    """A folder with an empty file of detections."""
    name = list(evaluation.label_map)[1]
    (folder / f"comp4_det_test_{name}.txt").write_text("")
    return str(folder)


def test_nan_becomes_null():
    content = {"a": math.nan, "b": {"c": 1.0, "d": math.nan}, "e": 3, "f": "nan"}
    assert without_nan(content) == {"a": None, "b": {"c": 1.0, "d": None}, "e": 3, "f": "nan"}


def test_a_report_is_written(run, tmp_path, capsys):
    run(report=str(tmp_path / "report"))
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "random.pth.tar on TEST images" in page
    assert "data:image/jpeg" in page
    assert str(tmp_path / "report" / "report.html") in capsys.readouterr().out


@pytest.mark.parametrize("name", ["save_detections", "report", "json"])
def test_what_cannot_be_written_is_found_before_the_images_are_read(
    name, run, tmp_path, monkeypatch
):
    monkeypatch.setattr("eval.load_model", pytest.fail)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        run(**{name: str(tmp_path / "file" / "below")})
    if name == "json":
        with pytest.raises(OSError, match="is a folder: name a file"):
            run(json=str(tmp_path))


def test_only_the_first_process_writes(run, tmp_path, monkeypatch):
    monkeypatch.setattr("eval.rank", lambda: 1)
    monkeypatch.setattr("eval.world_size", lambda: 2)
    monkeypatch.setattr("eval.evaluate", lambda *args, **names: Evaluation({"a": 0.5}, 0.5, {}))
    names = ("save_detections", "report", "json")
    run(**{name: str(tmp_path / name) for name in names})
    assert list(tmp_path.iterdir()) == []


def test_coco_prints_its_table_and_names_what_is_missing(run, monkeypatch, capsys):
    pytest.importorskip("pycocotools")
    evaluation = run(metric="coco")
    assert evaluation.mAP == evaluation.coco.mean["AP"]
    assert "AP small" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    monkeypatch.setattr("eval.load_model", pytest.fail)
    with pytest.raises(ValueError, match="pip install pycocotools"):
        run(metric="coco")


@pytest.mark.slow
def test_a_published_result_through_the_command_line(voc_annotations, tmp_path, capsys):
    """YOLOv3 on VOC2007, without its photographs; COCO's figures as another library has them."""
    create_data_lists(voc_annotations / "VOC2007", "", tmp_path)
    with tarfile.open(shared_path("data/voc/yolov3_voc07_test_results.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = {path.parent for path in tmp_path.rglob("comp4_det_test_*.txt")}
    words = ["--data-folder", tmp_path, "--detections", folder, "--json", tmp_path / "x.json"]
    assert run_script("eval.py", *words) == 0
    assert json.loads((tmp_path / "x.json").read_text())["mAP"] == pytest.approx(0.67748, abs=1e-4)
    pytest.importorskip("pycocotools")
    assert run_script("eval.py", *words, "--metric", "coco") == 0
    figures = json.loads((tmp_path / "x.json").read_text())["coco"]["mean"]
    dataset = PascalVOCDataset(tmp_path, "TEST", needs_images=False)
    columns = [*read_detections(folder, dataset.images, dataset.label_map), *dataset.objects_px()]
    expected = second_opinion(columns, dataset.label_map)
    assert list(figures.values()) == pytest.approx(expected, abs=1e-4)


def test_an_error_on_the_command_line_is_one_line(tmp_path):
    message = run_script("eval.py", "--data-folder", tmp_path)
    assert re.fullmatch(r"error: .*TEST_images\.json: no such .*", message)
