"""downloads.py: pretrained weights, and VOC's archives from a local server."""

import hashlib
import http.server
import io
import pickle
import re
import shutil
import socket
import tarfile
import threading
from pathlib import Path

import pytest
import torch
from torchvision.datasets import voc

import downloads
from create_data_lists import Parameters, main
from downloads import ARCHIVES, DownloadError, download_weights
from helpers.folders import CAR, annotation_xml, read_lists

# ------------------------------------------------------------------------------------------ weights


class FakeWeights:
    """What torchvision has for a file of weights; loading it does what a function does."""

    url = "https://example.org/weights.pth"

    def __init__(self, load):
        self.load = load

    def get_state_dict(self, progress, check_hash, weights_only):
        assert check_hash
        assert weights_only
        return self.load()


def load_hostile_file(folder):
    """Let torch read a pickle that would call print()."""
    path = folder / "weights.pth"
    path.write_bytes(b"\x80\x04" + pickle.dumps(print, protocol=2)[2:])
    return torch.load(path, weights_only=True)


def fail(error):
    raise error


def test_what_was_loaded_is_returned():
    assert download_weights(FakeWeights(dict), "the weights", "elsewhere") == {}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("no network\nat all"), "no network"),
        (RuntimeError("invalid hash value"), "invalid hash value"),
        (EOFError(), "EOFError"),
    ],
)
def test_the_message_says_why_from_where_and_what_to_do(error, reason):
    weights = FakeWeights(lambda: fail(error))
    with pytest.raises(DownloadError) as raised:
        download_weights(weights, "the weights", "and put them there")
    expected = f"the weights could not be loaded ({reason}): fetch {weights.url} and put them there"
    assert str(raised.value) == expected
    assert isinstance(raised.value, OSError)


def test_no_message_contains_the_advice_to_turn_the_protection_off(tmp_path):
    """torch gives it for files of several kinds, partly in the first line."""
    advice = "Re-running `torch.load` with `weights_only` set to `False` will likely succeed"
    loads = [
        lambda: load_hostile_file(tmp_path),
        lambda: fail(RuntimeError(f"Cannot use ``weights_only=True`` with TorchScript. {advice}")),
        lambda: fail(pickle.UnpicklingError(f"Weights only load failed. {advice}")),
    ]
    for load in loads:
        with pytest.raises(DownloadError, match=r"the file is damaged, or holds more") as raised:
            download_weights(FakeWeights(load), "the weights", "elsewhere")
        assert "False" not in str(raised.value)
        assert "trust" not in str(raised.value)


# ----------------------------------------------------------------------------------------- archives


def voc_archive(year, image_set):
    """A tar file of a folder with one image, as VOC's archives are arranged."""
    name = f"{year}_{image_set}"
    base = f"VOCdevkit/VOC{year}"
    contents = {
        f"{base}/JPEGImages/{name}.jpg": "", f"{base}/Annotations/{name}.xml": annotation_xml(CAR),
        f"{base}/ImageSets/Main/{image_set}.txt": f"{name}\n",
    }  # fmt: skip
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in contents.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch):
    """
    A server on this machine with three small archives in place of VOC's. Its `files` {path: bytes}
    can be changed; `fetched` lists the paths of the bodies it sent; before each it waits for
    `go_on`.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.server.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # torchvision's way of asking where a redirection leads; it reads no body
            if self.headers.get("Method") == "HEAD":
                return
            self.server.fetched.append(self.path)
            self.server.go_on.wait()
            self.wfile.write(body)

        def log_message(self, *args):
            """Nothing is logged."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files = {}
        running.fetched = []
        running.go_on = threading.Event()
        running.go_on.set()
        archives = []
        for archive in ARCHIVES:
            body = voc_archive(archive.year, archive.image_set)
            running.files[f"/{archive.filename}"] = body
            url = f"http://127.0.0.1:{running.server_port}/{archive.filename}"
            md5 = hashlib.md5(body).hexdigest()
            archives.append(archive._replace(url=url, md5=md5, n_bytes=10_240))
        monkeypatch.setattr(downloads, "ARCHIVES", tuple(archives))
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


def download(folder, **changes):
    """Run with --download into a folder."""
    main(
        Parameters(
            download=True,
            download_folder=str(folder),
            output_folder=str(folder / "lists"),
            **changes,
        )
    )


def test_download_fetches_unpacks_and_writes_lists(server, tmp_path, capsys):
    download(tmp_path / "new")
    lists = read_lists(tmp_path / "new/lists")
    assert [Path(path).name for path in lists["TRAIN_images"]] == [
        "2007_trainval.jpg",
        "2012_trainval.jpg",
    ]
    assert [Path(path).name for path in lists["TEST_images"]] == ["2007_test.jpg"]
    assert sorted(server.fetched) == sorted(server.files)
    assert capsys.readouterr().out.count(f"into {tmp_path / 'new'}\n") == 3


def test_complete_archives_are_not_fetched_again(server, tmp_path):
    download(tmp_path)
    server.fetched.clear()
    server.files.clear()
    download(tmp_path)
    assert server.fetched == []


def test_truncated_archive_is_fetched_again(server, tmp_path):
    download(tmp_path)
    server.fetched.clear()
    name = "VOCtest_06-Nov-2007.tar"
    (tmp_path / name).write_bytes(server.files[f"/{name}"][:700])
    download(tmp_path)
    assert server.fetched == [f"/{name}"]
    assert (tmp_path / name).read_bytes() == server.files[f"/{name}"]


def test_a_year_that_is_not_wanted_is_not_fetched(server, tmp_path):
    download(tmp_path, voc12_path="")
    assert sorted(server.fetched) == [
        "/VOCtest_06-Nov-2007.tar",
        "/VOCtrainval_06-Nov-2007.tar",
    ]
    assert len(read_lists(tmp_path / "lists")["TRAIN_images"]) == 1


def failure_pattern(folder):
    """
    What the message about an archive that could not be downloaded must say: its name, the remedy
    with address and folder, and the right MD5 sum.
    """
    archive = archive_of_test_set()
    parts = (
        f"{archive.filename} could not be downloaded",
        f"fetch {archive.url} by hand into {folder}",
        archive.md5,
        "run this again",
    )
    return ".*".join(map(re.escape, parts))


def archive_of_test_set():
    """The archive of VOC2007's test set."""
    return next(archive for archive in downloads.ARCHIVES if archive.image_set == "test")


def test_wrong_checksum(server, tmp_path):
    server.files["/VOCtest_06-Nov-2007.tar"] = b"something else"
    with pytest.raises(DownloadError, match=failure_pattern(tmp_path)):
        download(tmp_path)


def test_address_that_is_gone(server, tmp_path):
    del server.files["/VOCtest_06-Nov-2007.tar"]
    with pytest.raises(DownloadError, match=failure_pattern(tmp_path)) as failure:
        download(tmp_path)
    assert "404" in str(failure.value)
    failure.value.__cause__.close()  # urllib keeps the connection open in its error


def test_nobody_listens(server, tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, so that nobody else can listen there
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/VOCtest_06-Nov-2007.tar"
        monkeypatch.setattr(downloads, "ARCHIVES", (archive_of_test_set()._replace(url=url),))
        with pytest.raises(DownloadError, match=failure_pattern(tmp_path)) as failure:
            download(tmp_path)
    assert "refused" in str(failure.value)


def test_server_that_stops_answering(server, tmp_path, monkeypatch):
    download(tmp_path)
    (tmp_path / "VOCtest_06-Nov-2007.tar").unlink()
    server.go_on.clear()
    monkeypatch.setattr(downloads, "NETWORK_TIMEOUT", 0.3)
    with pytest.raises(DownloadError, match=failure_pattern(tmp_path)) as failure:
        download(tmp_path)
    assert "timed out" in str(failure.value)
    assert socket.getdefaulttimeout() is None


def test_disk_too_full(server, tmp_path, monkeypatch):
    """What is there already is not asked for again."""
    download(tmp_path, voc12_path="")
    server.fetched.clear()
    large = tuple(archive._replace(n_bytes=10**9) for archive in downloads.ARCHIVES)
    monkeypatch.setattr(downloads, "ARCHIVES", large)
    # The other two have been unpacked, but their archives are much smaller than they should be
    free = 4 * 10**9 - 2 * 10_240 - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))
    with pytest.raises(
        DownloadError,
        match=re.escape(str(tmp_path)) + r": 4\.0 GB needed, 4\.0 GB free: .*--download-folder",
    ):
        download(tmp_path)
    assert server.fetched == []
    free += 1
    download(tmp_path)
    assert len(server.fetched) == 1


def test_the_addresses_are_our_own(server, tmp_path, monkeypatch):
    """Older releases of torchvision have addresses that are no longer served."""
    for archive in voc.DATASET_YEAR_DICT.values():
        monkeypatch.setitem(archive, "url", f"http://127.0.0.1:1/{archive['filename']}")
    download(tmp_path)
    assert sorted(server.fetched) == sorted(server.files)


def test_the_archives_are_those_that_torchvision_knows():
    keys = {
        ("2007", "trainval"): "2007",
        ("2007", "test"): "2007-test",
        ("2012", "trainval"): "2012",
    }
    assert [(archive.year, archive.image_set) for archive in ARCHIVES] == list(keys)
    for archive in ARCHIVES:
        known = voc.DATASET_YEAR_DICT[keys[archive.year, archive.image_set]]
        assert (archive.filename, archive.md5) == (known["filename"], known["md5"])
        assert archive.url.startswith("https://")
        assert archive.url.rpartition("/VOC/")[2] == known["url"].rpartition("/VOC/")[2]


def test_nothing_to_fetch(server, tmp_path):
    with pytest.raises(
        ValueError,
        match="--download: both --voc07-path and --voc12-path name other data: leave out",
    ):
        download(tmp_path, voc07_path="", voc12_path="elsewhere")
    assert server.fetched == []
