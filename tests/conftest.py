"""
Where the tests find real data: in a folder `shared` beside the checkout, or where SSD_SHARED says;
else they are skipped.
"""

import contextlib
import json
import math
import os
import signal
import sys
import tarfile
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image

import export
import train
from checkpoints import model_state, save_checkpoint
from eval import Evaluation
from helpers.detectors import draw_noise
from helpers.runs import WIDTH, settings, small
from helpers.scripts import Script
from model import FEATURE_MAPS, SSD300
from toy_data import create_toy_data
from utils import transform

SHARED = Path(os.environ.get("SSD_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def shared_path(name):
    """A file or folder of the shared data; skips the test where there are none at all."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {name} of the shared data, which are not here")
    path = SHARED / name
    if not path.exists():
        pytest.fail(f"{path}: not among the shared data")
    return path


@pytest.fixture(scope="session")
def golden():
    """The published tutorial's own answers."""
    return json.loads(shared_path("golden/golden.json").read_text())


@pytest.fixture(scope="session")
def voc_annotations(tmp_path_factory):
    """
    The folder VOCdevkit with all annotations of VOC2007 and VOC2012, and an empty file in place of
    each photograph.
    """
    folder = tmp_path_factory.mktemp("voc")
    with tarfile.open(shared_path("data/voc/voc_annotations.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    for year in ("VOC2007", "VOC2012"):
        images = folder / "VOCdevkit" / year / "JPEGImages"
        images.mkdir()
        for annotation in (folder / "VOCdevkit" / year / "Annotations").iterdir():
            (images / f"{annotation.stem}.jpg").touch()
    return folder / "VOCdevkit"


@pytest.fixture(scope="session")
def blood_cells():
    """The folder with photographs of blood cells, in VOC layout."""
    return shared_path("data/BCCD")


@contextlib.contextmanager
def single_thread():
    """A context in which torch computes in one thread."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def one_thread():
    """For small images a second thread only waits."""
    with single_thread():
        yield


@pytest.fixture(scope="module")
def no_curves():
    """Training runs draw no curves, which takes as long as many steps."""
    with mock.patch("history.draw_curves", lambda history, path: path.touch()):
        yield


@pytest.fixture
def start_script(tmp_path):
    """A function that starts a script, given its command line; whatever is left is killed."""
    if sys.platform == "win32":
        pytest.skip("Windows cannot fork processes")
    scripts = []

    def start(*words, **environment):
        output = tmp_path / f"printed{len(scripts)}.txt"
        scripts.append(Script([str(word) for word in words], output, environment))
        return scripts[-1]

    yield start
    for script in scripts:
        if script.is_running:
            script.kill()


@pytest.fixture
def default_handlers():
    """What signals do in a terminal; a shell lets programs in the background ignore Ctrl-C."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler)]
    before.append(signal.signal(signal.SIGTERM, signal.SIG_DFL))
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


@pytest.fixture
def random():
    """A torch Generator with a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def photo_folder(tmp_path, monkeypatch):
    """A folder to work in, with two photographs in `photos`."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    draw_noise(120, 80).save("photos/a.jpg")
    draw_noise(60, 40).save("photos/b.png")
    return tmp_path


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory):
    """A folder with toy data of two classes: 6 training and 4 test images, and their lists."""
    folder = tmp_path_factory.mktemp("toy")
    create_toy_data(folder, n_classes=2, n_train=6, n_test=4, seed=0)
    return folder


@pytest.fixture(scope="session")
def toy_of_twenty(tmp_path_factory):
    """A folder with toy data of all twenty classes: 40 training and 10 test images."""
    folder = tmp_path_factory.mktemp("toy_of_twenty")
    create_toy_data(folder, n_classes=20, n_train=40, n_test=10, seed=3)
    return folder


@pytest.fixture(scope="session")
def toy_checkpoint(toy_folder, tmp_path_factory):
    """A checkpoint of a narrow model with random weights for the classes of the toy data."""
    label_map = json.loads((toy_folder / "label_map.json").read_text())
    torch.manual_seed(17)  # no seed of a training run
    path = tmp_path_factory.mktemp("checkpoint") / "random.pth.tar"
    model = SSD300(len(label_map), pretrained=False, width=WIDTH, label_map=label_map)
    save_checkpoint(path, model_state(model))
    return path


@pytest.fixture(scope="session")
def toy_onnx(toy_checkpoint, tmp_path_factory):
    """That model as an ONNX file."""
    path = tmp_path_factory.mktemp("onnx") / "toy.onnx"
    with single_thread():
        return export.main(export.Parameters(str(toy_checkpoint), str(path)))


@pytest.fixture(scope="session")
def whole(toy_folder, tmp_path_factory):
    """The folder of a run of two epochs that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with mock.patch("history.draw_curves", lambda history, path: path.touch()), single_thread():
        train.main(settings(toy_folder, folder))
    return folder


@pytest.fixture(scope="module")
def trained(toy_folder, tmp_path_factory, no_curves, one_thread):
    """
    The folder and the history of a training of one epoch, the first half of a training of two.
    """
    folder = tmp_path_factory.mktemp("trained")
    return folder, train.main(small(toy_folder, folder))


@pytest.fixture
def validated(monkeypatch):
    """
    In place of validating: the parts of the epochs' rows that are in this list, in order, and then
    none.
    """
    rows, evaluation = [], Evaluation({"a": math.nan}, math.nan, {})
    monkeypatch.setattr(train, "validate", lambda *args: (evaluation, rows.pop(0) if rows else {}))
    return rows


def network_input(pixels):
    """
    A picture as a detector gets it.

    :param pixels: (height, width, 3) uint8 array
    :return: (1, 3, 300, 300) float
    """
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    return transform(Image.fromarray(pixels), *nothing, "TEST")[0].unsqueeze(0)


def tutorial_priors():
    """
    Our priors with 0.333 in place of 1/3, as the published tutorial's code made its answers in
    `golden.json`.
    """
    table = {
        name: feature_map._replace(
            aspect_ratios=tuple(
                0.333 if ratio == 1 / 3 else ratio for ratio in feature_map.aspect_ratios
            )
        )
        for name, feature_map in FEATURE_MAPS.items()
    }
    return SSD300.create_prior_boxes(table)
