"""The script export.py, and what its files compute in onnxruntime beside SSD300.detect_objects."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image, ImageOps

import detect
import export
from checkpoints import load_model, model_state, save_checkpoint
from conftest import shared_path, tutorial_priors
from datasets import read_image
from export import Detector, Parameters, main, run_file, set_min_score, to_onnx
from helpers.oracles import slow_detection
from helpers.pages import read_page
from helpers.runs import WIDTH
from helpers.scripts import run_script
from model import SSD300
from utils import find_jaccard_overlap

ROOT = Path(__file__).resolve().parents[1]
STRANGE = {"background": 0, 'say "cheese"': 1, "\x1b]0;title\x07": 2, "한글": 3}
MAX_OVERLAP = 0.45


def calm(network):
    """
    Make random predictions less extreme: thousands of candidates with scores of nearly 1 would be
    ranked, and suppress each other, by rounding errors.
    """
    with torch.no_grad():
        network.rescale_factors.fill_(20.0)
        for name, weights in network.pred_convs.named_parameters():
            weights *= 0.1 if name.startswith("loc") else 0.3
            if name.startswith("cl") and name.endswith("bias"):
                weights[:: network.n_classes] += 5.5


@pytest.fixture(scope="module")
def strange_checkpoint(tmp_path_factory):
    """One with all that converted networks have of their own: priors, input shift, strange names"""
    path = tmp_path_factory.mktemp("strange") / "strange.pth.tar"
    torch.manual_seed(3)
    network = SSD300(
        len(STRANGE),
        pretrained=False,
        priors_cxcy=tutorial_priors(),
        input_shift=torch.tensor([0.5, -1.0, 0.25]).view(1, 3, 1, 1),
        width=WIDTH,
        label_map=STRANGE,
    )
    calm(network)
    save_checkpoint(path, model_state(network))
    return path


@pytest.fixture(scope="module")
def strange_file(strange_checkpoint, one_thread):
    """That checkpoint as an ONNX file."""
    return main(Parameters(str(strange_checkpoint), f"{strange_checkpoint}.onnx"))


@pytest.fixture(scope="module")
def raw_file(strange_checkpoint, one_thread):
    """The raw file of that checkpoint."""
    return main(Parameters(str(strange_checkpoint), f"{strange_checkpoint}.raw.onnx", raw=True))


class Suppression(Detector):
    """A detector without its network."""

    def forward(self, locs, scores):
        return self.find_detections(locs, scores)


@pytest.fixture(scope="module")
def detector(strange_checkpoint):
    # Both settings are equal, and stay two in the file: tests change the first
    network = load_model(strange_checkpoint)
    return Suppression(network, min_score=MAX_OVERLAP, max_overlap=MAX_OVERLAP, top_k=200)


@pytest.fixture(scope="module")
def suppression_file(detector, one_thread):
    """Decoding and suppression alone, as an onnx.ModelProto."""
    inputs = {"locs": torch.zeros(2, 8732, 4), "scores": torch.zeros(2, 8732, len(STRANGE))}
    return to_onnx(detector, inputs, ["boxes", "labels", "found_scores"])


# --------------------------------------------------------------------------------- same detections


def assert_same_detections(got, expected):
    """
    The same detections in each image, and zeros after them. Those with nearly equal scores may
    come in another order.

    :param got: boxes (N, k, 4), labels (N, k) and scores (N, k), tensors or arrays
    :param expected: what detect_objects returns
    """
    for image, (boxes, labels, scores) in enumerate(zip(*expected, strict=True)):
        n = len(boxes)
        boxes = boxes.nan_to_num().clamp(-export.FAR, export.FAR)
        their_boxes, their_labels, their_scores = (torch.as_tensor(part[image]) for part in got)
        assert [part[n:].abs().sum() for part in (their_boxes, their_labels, their_scores)] == [
            0
        ] * 3
        assert (their_scores[:n] > 0).all()
        assert (their_scores.diff() <= 0).all()
        torch.testing.assert_close(their_scores[:n], scores, rtol=0, atol=1e-4)
        left = list(range(n))
        for box, label, score in zip(boxes, labels, scores, strict=True):
            same = [
                i
                for i in left
                if their_labels[i] == label
                and abs(their_scores[i] - score) < 1e-4
                and torch.allclose(their_boxes[i], box, rtol=1e-6, atol=1e-3 / 300)
            ]
            assert same, (image, label, score, box)
            left.remove(same[0])


def drawn_images(toy_folder):
    paths = sorted((toy_folder / "JPEGImages").iterdir())
    return [detect.network_input(read_image(path)) for path in paths]


def photographs():
    folder = shared_path("data/free_photographs")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg")]
    assert len(paths) >= 4
    return [detect.network_input(read_image(path)) for path in paths]


def assert_file_finds_the_same(path, checkpoint, images):
    network = load_model(checkpoint)
    defaults = detect.Parameters()
    with torch.inference_mode():
        expected = network.detect_objects(
            *network(images), defaults.min_score, defaults.max_overlap, defaults.top_k
        )
    assert sum(map(len, expected[0])) > 10 * len(images)
    assert_same_detections(run_file(onnx.load(path), {"images": images}), expected)


@pytest.mark.parametrize("n_images", [1, 5])
def test_the_file_finds_the_same_in_drawn_images(
    strange_file, strange_checkpoint, toy_folder, n_images
):
    images = torch.stack(drawn_images(toy_folder)[:n_images])
    assert_file_finds_the_same(strange_file, strange_checkpoint, images)


def test_the_file_finds_the_same_in_photographs(strange_file, strange_checkpoint):
    assert_file_finds_the_same(strange_file, strange_checkpoint, torch.stack(photographs()))


# ------------------------------------------------------------------- decoding and suppression alone


def sure_of(n_sure, random):
    """
    Scores by which so many priors are each sure of a class to another degree: no two come close
    enough for a rounding error to change their order.

    :return: (1, 8732, 4)
    """
    scores = torch.full((1, 8732, len(STRANGE)), -20.0)
    scores[:, :, 0] = 0.0
    priors = torch.randperm(8732, generator=random)[:n_sure]
    labels = torch.arange(n_sure) % (len(STRANGE) - 1) + 1
    scores[0, priors, labels] = torch.linspace(-3, 6, n_sure)
    return scores


def few(random):
    return torch.randn(1, 8732, 4, generator=random), sure_of(60, random)


def more_than_400_candidates_of_a_class(random):
    return 2 * torch.randn(1, 8732, 4, generator=random), sure_of(3000, random)


def outside_of_the_image(random):
    return 60 * torch.randn(1, 8732, 4, generator=random).clamp(-1, 1), sure_of(300, random)


def huge_and_tiny(random):
    """Sizes up to infinity and down to zero, and scores that saturate the softmax."""
    sign = torch.randint(0, 2, (1, 8732, 4), generator=random) * 2.0 - 1
    locs = sign * torch.tensor([1e3, 1e6, 600.0, 2e3])
    scores = sure_of(100, random)
    scores[0, :3, 1] = 1e30
    scores[0, 3:6] = -1e30
    return locs, scores


def equal_scores(random):
    """Forty groups of equal scores, of small boxes that do not meet."""
    locs = torch.zeros(1, 8732, 4)
    locs[:, :, 2:] = -15.0
    scores = torch.full((1, 8732, len(STRANGE)), -20.0)
    scores[:, :, 0] = 0.0
    scores[0, :160:4, 1] = 1.0
    scores[0, 1600:1760:4, 3] = 1.0
    scores[0, 3200:3360:4, 2] = 2.0
    return locs, scores


def nothing_above_min_score(random):
    scores = torch.randn(1, 8732, len(STRANGE), generator=random)
    scores[:, :, 0] += 30
    return torch.randn(1, 8732, 4, generator=random), scores


def not_a_number(random):
    locs, scores = few(random)
    locs[0, ::7] = torch.nan
    scores[0, ::5] = torch.nan
    return locs, scores


CASES = [
    few,
    more_than_400_candidates_of_a_class,
    outside_of_the_image,
    huge_and_tiny,
    equal_scores,
    nothing_above_min_score,
    not_a_number,
]


@pytest.mark.parametrize("min_score", [0.05, 0.2])
@pytest.mark.parametrize("case", CASES, ids=[case.__name__ for case in CASES])
def test_suppression_of_a_fixed_size_is_that_of_detect_objects(
    case, min_score, detector, suppression_file, random
):
    locs, scores = case(random)
    # With another image beside it: images of a batch never meet
    locs = torch.cat([locs, torch.zeros_like(locs), locs])
    scores = torch.cat([scores, sure_of(20, random), scores])
    expected = detector.network.detect_objects(locs, scores, min_score, MAX_OVERLAP, 200)
    if case is not nothing_above_min_score:
        assert len(expected[0][0]) >= 20

    file = onnx.ModelProto()
    file.CopyFrom(suppression_file)
    set_min_score(file, min_score)
    assert_same_detections(run_file(file, {"locs": locs, "scores": scores}), expected)
    changed = Detector(detector.network, min_score, MAX_OVERLAP, 200)
    assert_same_detections(changed.find_detections(locs, scores), expected)


def test_where_all_scores_are_equal_the_first_priors_go_on(detector, suppression_file, random):
    """Which 400 candidates go on is open. In ONNX it is the first ones, as in the plain loop."""
    locs = 0.5 * torch.randn(1, 8732, 4, generator=random)
    scores = torch.zeros(1, 8732, len(STRANGE))
    priors = detector.network.priors_cxcy
    rows = [part.tolist() for part in (locs[0], scores[0], priors)]
    expected = slow_detection(*rows, 0.2, MAX_OVERLAP, 200)
    assert 50 < len(expected) <= 200
    file = onnx.ModelProto()
    file.CopyFrom(suppression_file)
    set_min_score(file, 0.2)
    boxes, labels, found = run_file(file, {"locs": locs, "scores": scores})
    n = len(expected)
    assert labels[0, :n].tolist() == [label for _, label, _ in expected]
    assert np.allclose(boxes[0, :n], [box for _, _, box in expected], atol=1e-5)
    assert found[0, :n].tolist() == pytest.approx([0.25] * n)

    boxes, labels, found = detector.find_detections(locs, scores.clone())
    assert found.abs().sum() == 0  # 0.25 is not above 0.45
    changed = Detector(detector.network, 0.2, MAX_OVERLAP, 200)
    boxes, labels, found = (part[0] for part in changed.find_detections(locs, scores))
    kept = found > 0
    assert 50 < kept.sum() <= 200
    for label in range(1, len(STRANGE)):
        of_class = boxes[kept & (labels == label)]
        overlaps = find_jaccard_overlap(of_class, of_class).fill_diagonal_(0)
        assert overlaps.numel() == 0 or overlaps.max() <= MAX_OVERLAP


def test_there_is_a_place_for_every_candidate_and_no_more(detector, random):
    locs, scores = few(random)
    expected = detector.network.detect_objects(locs, scores, 0.2, MAX_OVERLAP, 1200)
    every = Detector(detector.network, 0.2, MAX_OVERLAP, 1200)
    boxes, _, _ = every.find_detections(locs, scores)
    assert boxes.shape == (1, 1200, 4)
    assert_same_detections(every.find_detections(locs, scores), expected)
    with pytest.raises(ValueError, match=r"top_k: expected .* at most 1200, got 1201"):
        Detector(detector.network, 0.2, MAX_OVERLAP, 1201)


# ----------------------------------------------------------------------------- what is in the files


def test_raw_files_put_out_predictions_and_priors(raw_file, strange_checkpoint, toy_folder):
    network = load_model(strange_checkpoint)
    images = torch.stack(drawn_images(toy_folder)[:3])
    with torch.inference_mode():
        expected = [*network(images), network.priors_cxcy]
    for ours, other in zip(
        expected, run_file(onnx.load(raw_file), {"images": images}), strict=True
    ):
        torch.testing.assert_close(torch.from_numpy(other), ours, rtol=1e-4, atol=1e-4)


def test_files_say_how_to_use_them(raw_file, toy_onnx, toy_checkpoint):
    session = onnxruntime.InferenceSession(toy_onnx, providers=["CPUExecutionProvider"])
    shapes = {
        tensor.name: tensor.shape for tensor in (*session.get_inputs(), *session.get_outputs())
    }
    batch = shapes["images"][0]
    assert isinstance(batch, str)  # a name, for any number
    assert shapes == {
        "images": [batch, 3, 300, 300],
        "boxes": [batch, 200, 4],
        "labels": [batch, 200],
        "scores": [batch, 200],
    }
    metadata = session.get_modelmeta().custom_metadata_map
    defaults = detect.Parameters()
    for name in ("min_score", "max_overlap", "top_k"):
        assert json.loads(metadata[name]) == getattr(defaults, name)
    assert json.loads(metadata["class_names"]) == list(load_model(toy_checkpoint).label_map)

    session = onnxruntime.InferenceSession(raw_file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(STRANGE)
    assert {"locs", "scores", "priors_cxcy"} <= metadata.keys()


def test_files_are_of_known_operators_and_tell_nothing_of_the_machine(raw_file, toy_onnx):
    for path in (raw_file, toy_onnx):
        (operators,) = onnx.load(path).opset_import  # no operators but ONNX's own
        assert (operators.domain, operators.version >= 18) == ("", True)
        content = Path(path).read_bytes()
        for name in (str(ROOT), "site-packages", "stack_trace", ".py"):
            assert name.encode() not in content


# ----------------------------------------------------------------------------- the README's example


@pytest.fixture
def example(strange_file, tmp_path, monkeypatch):
    """A function that runs the README's example on an image file; returns its detections."""
    codes = [code.text for code in read_page("README.md").codes if code.language == "python"]
    (code,) = [text for text in codes if "onnxruntime" in text]
    monkeypatch.chdir(tmp_path)
    os.symlink(strange_file, "ssd300.onnx")

    def run(path):
        os.symlink(path, "photo.jpg")
        namespace = {}
        exec(compile(code, "<README>", "exec"), namespace)
        os.unlink("photo.jpg")
        return namespace["detections"]

    return run


def assert_example_agrees(detections, path, checkpoint):
    image = read_image(path)
    network = load_model(checkpoint)
    expected = detect.find_objects(image, 0.2, 0.5, 200, model=network)
    assert len(expected) > 10
    assert len(detections) == len(expected)
    side = max(image.size)
    left = list(detections)
    for name, score, box in expected:
        same = [
            other
            for other in left
            if other[0] == name
            and abs(other[1] - score) < 1e-4
            and np.allclose(other[2], box, rtol=0, atol=1e-3 / 300 * side)
        ]
        assert same, (name, score, box)
        left.remove(same[0])


def test_the_example_finds_what_detect_finds_in_photographs(example, strange_checkpoint):
    for path in sorted(shared_path("data/free_photographs").iterdir()):
        if path.suffix in (".png", ".jpg"):
            assert_example_agrees(example(path), path, strange_checkpoint)


def test_the_example_turns_images_upright(example, strange_checkpoint, toy_folder, tmp_path):
    image = Image.open(min((toy_folder / "JPEGImages").iterdir())).resize((500, 220))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    path = tmp_path / "turned.png"
    image.save(path, exif=exif)
    assert ImageOps.exif_transpose(Image.open(path)).size == (220, 500)
    assert_example_agrees(example(path), path, strange_checkpoint)


# --------------------------------------------------------------------------------------- the script


def test_the_defaults_are_those_of_detect():
    for name in ("min_score", "max_overlap", "top_k"):
        assert getattr(Parameters(), name) == getattr(detect.Parameters(), name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "ssd300.pt"}, r"ends in \.onnx, got 'ssd300\.pt'"),
        ({"output": ""}, r"ends in \.onnx"),
        ({"output": "nowhere/ssd300.onnx"}, "nowhere: no such folder"),
        ({"output": "folder.onnx"}, "is a folder"),
        ({"output": "ours.onnx"}, "is the checkpoint"),
        ({"checkpoint": "none.pth.tar"}, "none.pth.tar: no such"),
        ({"min_score": 1.5}, "min_score: expected"),
        ({"top_k": 0}, "top_k: expected"),
        ({"top_k": 801}, "top_k: expected .* at most 800"),
    ],
)
def test_what_cannot_work_is_refused(changes, message, toy_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder.onnx")
    content = toy_checkpoint.read_bytes()
    Path("ours.onnx").write_bytes(content)
    parameters = {"checkpoint": "ours.onnx", "output": "ssd300.onnx", **changes}
    with pytest.raises((OSError, ValueError), match=message):
        main(Parameters(**parameters))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.onnx", "ours.onnx"]
    assert Path("ours.onnx").read_bytes() == content


def test_missing_packages_are_named(toy_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = run_script("export.py", toy_checkpoint, tmp_path / "ssd300.onnx")
    assert message.startswith("error: export.py needs onnx and onnxscript: pip install onnx ")


def test_without_onnxruntime_the_file_is_not_run(toy_onnx, detector, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(export, "run_file", lambda *_: pytest.fail("it was run"))
    export.check_onnx(toy_onnx, detector, Parameters())
    assert "pip install onnxruntime" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["boxes", "scores", "nothing"])
def test_a_file_that_differs_from_pytorch_does_not_replace_another(
    change, toy_onnx, toy_checkpoint, monkeypatch, tmp_path, capsys
):
    """In place of the exporter's, which takes seconds: a file from before, which errs or not."""
    model = onnx.load(toy_onnx)
    del model.metadata_props[:]
    monkeypatch.setattr(export, "to_onnx", lambda *_: model)
    run = export.run_file

    def run_wrongly(model, inputs):
        boxes, labels, scores = run(model, inputs)
        scores = scores + (change == "scores") * 0.01
        return boxes + (change == "boxes") * 0.01, labels, scores

    monkeypatch.setattr(export, "run_file", run_wrongly)
    output = tmp_path / "ssd300.onnx"
    output.write_bytes(b"an earlier file")
    parameters = Parameters(str(toy_checkpoint), str(output))
    if change == "nothing":
        assert main(parameters) == output
        assert "2 classes" in capsys.readouterr().out
        onnx.checker.check_model(output)
    else:
        with pytest.raises(ValueError, match=r"ssd300\.onnx: differs from PyTorch"):
            main(parameters)
        assert output.read_bytes() == b"an earlier file"
    assert [path.name for path in tmp_path.iterdir()] == ["ssd300.onnx"]


def test_a_network_that_finds_nothing_is_exported_as_well(toy_onnx, detector, monkeypatch, capsys):
    """Diverged weights give no numbers, of which PyTorch and the file find nothing."""
    images = torch.full((2, 3, 300, 300), torch.nan)
    network = detector.network
    monkeypatch.setattr(export, "run_file", lambda *_: (np.zeros((2, 9, 4)), *np.zeros((2, 2, 9))))
    assert export.compare_detections(onnx.load(toy_onnx), network, images, MAX_OVERLAP)
    assert "Neither the file nor PyTorch finds anything" in capsys.readouterr().out


def test_an_image_is_compared_only_with_itself(toy_onnx, toy_checkpoint):
    """What a file finds in an image does not depend on those beside it."""
    network_inputs = torch.randn(17, 3, 300, 300, generator=torch.Generator().manual_seed(1))
    file = onnx.load(toy_onnx)
    together = run_file(file, {"images": network_inputs})
    alone = run_file(file, {"images": network_inputs[-1:]})
    for ours, other in zip(alone, together, strict=True):
        assert np.allclose(ours[0], other[-1], atol=1e-5)
