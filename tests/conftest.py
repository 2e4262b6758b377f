"""Where the tests find real data: in a folder `shared` beside the checkout, or where SSD_SHARED says; else they are skipped."""

import json
import os
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

import model
from checkpoints import model_state, save_checkpoint
from model import FEATURE_MAPS, SSD300
from thin import ThinBase
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
    """The folder VOCdevkit with all annotations of VOC2007 and VOC2012, and an empty file in place of each photograph."""
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


@pytest.fixture(scope="module")
def one_thread():
    """For small pictures a second thread only waits."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def thin_base():
    """New networks have a base that costs little: for tests of everything around the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "VGGBase", ThinBase)
        yield


@pytest.fixture
def random():
    """A torch Generator with a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory):
    """A folder with toy data of two classes: 6 training and 4 test images, and their lists."""
    folder = tmp_path_factory.mktemp("toy")
    create_toy_data(folder, n_classes=2, n_train=6, n_test=4, seed=0)
    return folder


@pytest.fixture(scope="session")
def toy_checkpoint(toy_folder, tmp_path_factory):
    """A checkpoint of a model with random weights for the classes of the toy data."""
    label_map = json.loads((toy_folder / "label_map.json").read_text())
    torch.manual_seed(0)
    network = SSD300(len(label_map), pretrained=False)
    path = tmp_path_factory.mktemp("checkpoint") / "random.pth.tar"
    save_checkpoint(path, model_state(network, label_map))
    return path


def network_input(pixels):
    """
    A picture as a detector gets it.

    :param pixels: (height, width, 3) uint8 array
    :return: (1, 3, 300, 300) float
    """
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    return transform(Image.fromarray(pixels), *nothing, "TEST")[0].unsqueeze(0)


def tutorial_priors():
    """Our priors with 0.333 in place of 1/3, as the published tutorial's code made its answers in `golden.json`."""
    table = {
        name: feature_map._replace(
            aspect_ratios=tuple(
                0.333 if ratio == 1 / 3 else ratio for ratio in feature_map.aspect_ratios
            )
        )
        for name, feature_map in FEATURE_MAPS.items()
    }
    return SSD300.create_prior_boxes(table)
