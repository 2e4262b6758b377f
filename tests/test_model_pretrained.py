"""Where the weights of model.py's base come from, and how fc6 and fc7 become convolutions."""

import re
import urllib.error

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from downloads import DownloadError
from model import SSD300, VGGBase
from utils import decimate

FC6_STRIDES, FC7_STRIDES = (
    (101, 7),
    (89, 5),
)  # fc weights are windows on a few numbers: 400 MB in a file of a few


@pytest.fixture(scope="module")
def fake_vgg16(tmp_path_factory):
    """
    A file of torchvision's names and shapes where torch looks for VGG-16: the hub folder, the
    weights and fc's numbers.
    """
    random = torch.Generator().manual_seed(7)
    state, numbers = {}, {}
    plan = [64, 64, None, 128, 128, None, 256, 256, 256, None, 512, 512, 512, None, 512, 512, 512]
    channels, index = 3, 0
    for width in plan:
        if width is None:
            index += 1  # a pooling
            continue
        state[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3, generator=random)
        state[f"features.{index}.bias"] = torch.randn(width, generator=random)
        channels, index = width, index + 2  # the rectifier
    shapes = {
        "classifier.0": (4096, 25088),
        "classifier.3": (4096, 4096),
        "classifier.6": (1000, 4096),
    }
    for (name, shape), strides in zip(
        shapes.items(), (FC6_STRIDES, FC7_STRIDES, (1, 1)), strict=True
    ):
        numbers[name] = torch.randn(shape[0] * strides[0] + shape[1] * strides[1], generator=random)
        state[f"{name}.weight"] = numbers[name].as_strided(shape, strides)
        state[f"{name}.bias"] = torch.randn(shape[0], generator=random)
    hub = tmp_path_factory.mktemp("hub")
    (hub / "checkpoints").mkdir()
    torch.save(state, hub / "checkpoints" / "vgg16-397923af.pth")
    return hub, state, numbers


@pytest.fixture
def no_network(monkeypatch):
    """Each attempt to download is noted, and fails at once."""
    attempts = []

    def refuse(request, *args, **kwargs):
        attempts.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return attempts


@pytest.fixture
def hub_folder(monkeypatch):
    """A function that makes torch look for its downloads in another folder."""
    before = torch.hub._hub_dir
    yield lambda folder: torch.hub.set_dir(str(folder))
    torch.hub._hub_dir = before


@pytest.fixture
def pretrained_base(fake_vgg16, hub_folder, no_network):
    """A base that was filled from the local file, without the network."""
    hub_folder(fake_vgg16[0])
    base = VGGBase()
    base.load_pretrained_layers()
    assert no_network == []
    return base


CONVOLUTIONS = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv4_1": 17,
    "conv4_2": 19,
    "conv4_3": 21,
    "conv5_1": 24,
    "conv5_2": 26,
    "conv5_3": 28,
}


def test_pretrained_layers_are_those_of_the_local_file(pretrained_base, fake_vgg16):
    _, vgg16, numbers = fake_vgg16
    state = pretrained_base.state_dict()
    assert len(state) == 2 * (len(CONVOLUTIONS) + 2)
    for name, index in CONVOLUTIONS.items():
        for kind in ("weight", "bias"):
            assert torch.equal(state[f"{name}.{kind}"], vgg16[f"features.{index}.{kind}"]), name

    # fc6 reads a map of 512 x 7 x 7: filter f, channel c, row y, column x is entry (f, 49 c + 7 y +
    # x). Each fourth filter, each third row and column stay.
    a, b = FC6_STRIDES
    fc6 = numbers["classifier.0"]
    for f, c, y, x in (
        (0, 0, 0, 0),
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 0, 1),
        (77, 300, 2, 1),
        (1023, 511, 2, 2),
    ):
        assert (
            state["conv6.weight"][f, c, y, x] == fc6[a * 4 * f + b * (49 * c + 7 * 3 * y + 3 * x)]
        )
    a, b = FC7_STRIDES
    fc7 = numbers["classifier.3"]
    for f, c in ((0, 0), (1, 0), (0, 1), (512, 3), (1023, 1023)):
        assert state["conv7.weight"][f, c, 0, 0] == fc7[a * 4 * f + b * 4 * c]
    for f in (0, 1, 500, 1023):
        assert state["conv6.bias"][f] == vgg16["classifier.0.bias"][4 * f]
        assert state["conv7.bias"][f] == vgg16["classifier.3.bias"][4 * f]


def test_a_pretrained_network_starts_from_that_file(fake_vgg16, hub_folder, no_network):
    hub_folder(fake_vgg16[0])
    pretrained = SSD300(2)  # pretrained is the default
    assert no_network == []
    assert torch.equal(pretrained.base.conv5_3.weight, fake_vgg16[1]["features.28.weight"])


def test_the_file_is_found_through_torch_home(
    fake_vgg16, tmp_path, monkeypatch, hub_folder, no_network
):
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub").symlink_to(fake_vgg16[0])
    base = VGGBase()
    base.load_pretrained_layers()
    assert no_network == []
    assert torch.equal(base.conv1_1.weight, fake_vgg16[1]["features.0.weight"])


def test_without_network_and_file_the_error_names_both_remedies(tmp_path, hub_folder, no_network):
    hub_folder(tmp_path)
    base = VGGBase()
    with pytest.raises(DownloadError) as error:
        base.load_pretrained_layers()
    url = "https://download.pytorch.org/models/vgg16-397923af.pth"
    assert no_network == [url]
    for part in (url, f"{tmp_path}/checkpoints", "--no-pretrained", "no network in tests"):
        assert part in str(error.value)


def test_an_unpretrained_network_downloads_nothing(tmp_path, hub_folder, no_network):
    hub_folder(tmp_path)
    SSD300(2, pretrained=False)
    assert no_network == []
    assert list(tmp_path.iterdir()) == []


def test_pretrained_weights_do_not_fit_another_width(tmp_path, hub_folder, no_network):
    hub_folder(tmp_path)
    with pytest.raises(ValueError, match=r"width: .* fit width 1, not 0\.5: .*pretrained=False"):
        SSD300(2, width=0.5)
    assert no_network == []


class Trap:
    """An object whose pickle calls a function as it is read."""

    def __reduce__(self):
        return pytest.fail, ("reading the downloaded file ran code from it",)


def test_the_file_of_weights_can_not_run_code(tmp_path, hub_folder, no_network):
    hub_folder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    torch.save({"features.0.weight": Trap()}, tmp_path / "checkpoints" / "vgg16-397923af.pth")
    base = VGGBase()
    with pytest.raises(DownloadError, match=r"(?i)weights[ _]only.*--no-pretrained"):
        base.load_pretrained_layers()


def test_a_damaged_file_of_weights_is_named(tmp_path, hub_folder, no_network):
    hub_folder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"half of a file")
    with pytest.raises(DownloadError, match=f"{re.escape(str(tmp_path))}/checkpoints"):
        VGGBase().load_pretrained_layers()


# --------------------------------------------------- fully connected layers written as convolutions


def test_a_fully_connected_layer_written_as_a_convolution_computes_the_same(random):
    maps = torch.randn(2, 5, 7, 7, generator=random)
    fc6, fc7 = nn.Linear(5 * 7 * 7, 12), nn.Linear(12, 8)
    expected = fc7(F.relu(fc6(maps.flatten(1))))
    hidden = F.relu(F.conv2d(maps, fc6.weight.view(12, 5, 7, 7), fc6.bias))
    got = F.conv2d(hidden, fc7.weight.view(8, 12, 1, 1), fc7.bias)
    assert got.shape == (2, 8, 1, 1)
    torch.testing.assert_close(got.flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_a_decimated_kernel_with_holes_sees_what_the_whole_kernel_saw_there(random):
    maps, kernel = (
        torch.randn(1, 3, 19, 19, generator=random),
        torch.randn(8, 3, 7, 7, generator=random),
    )
    small = decimate(kernel, m=[4, None, 3, 3])
    assert small.shape == (2, 3, 3, 3)
    holes = torch.zeros(2, 3, 7, 7)  # filters 0 and 4, rows and columns 0, 3 and 6
    for y in (0, 3, 6):
        for x in (0, 3, 6):
            holes[:, :, y, x] = kernel[[0, 4], :, y, x]
    expected = F.conv2d(maps, holes, padding=3)
    torch.testing.assert_close(
        F.conv2d(maps, small, padding=3, dilation=3), expected, rtol=1e-4, atol=1e-5
    )
