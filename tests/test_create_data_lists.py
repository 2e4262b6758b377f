"""The script create_data_lists.py: downloads, from a server on this machine, and the command line."""

import hashlib
import http.server
import io
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

import create_data_lists as script
from create_data_lists import Parameters, main
from folders import CAR, annotation_xml, read_lists

# --------------------------------------------------------------------------------------------------------------- download

SETS = ("2007", "trainval"), ("2007", "test"), ("2012", "trainval")


def voc_archive(year, image_set):
    """A tar file of a folder with one picture, as VOC's archives are arranged."""
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
    A server on this machine with three small archives, where torchvision is told to fetch VOC from. Its `files` {path: bytes} can
    be changed; `fetched` lists the paths of the bodies it sent; before each it waits for `go_on`.
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
            if (
                self.headers.get("Method") == "HEAD"
            ):  # torchvision's way of asking where a redirection leads; it reads no body
                return
            self.server.fetched.append(self.path)
            self.server.go_on.wait()
            self.wfile.write(body)

        def log_message(self, *args):
            """Nothing is logged."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files, running.fetched, running.go_on = {}, [], threading.Event()
        running.go_on.set()
        for year, image_set in SETS:
            archive = script.describe_archive(year, image_set)
            body = voc_archive(year, image_set)
            running.files[f"/{archive['filename']}"] = body
            monkeypatch.setitem(
                archive, "url", f"http://127.0.0.1:{running.server_port}/{archive['filename']}"
            )
            monkeypatch.setitem(archive, "md5", hashlib.md5(body).hexdigest())
        monkeypatch.setattr(script, "ARCHIVES", tuple((*names, 10_240) for names in SETS))
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
    name = script.describe_archive("2007", "test")["filename"]
    (tmp_path / name).write_bytes(server.files[f"/{name}"][:700])
    download(tmp_path)
    assert server.fetched == [f"/{name}"]
    assert (tmp_path / name).read_bytes() == server.files[f"/{name}"]


def test_a_year_that_is_not_wanted_is_not_fetched(server, tmp_path):
    download(tmp_path, voc12_path="")
    assert sorted(server.fetched) == sorted(
        f"/{script.describe_archive(*names)['filename']}" for names in SETS[:2]
    )
    assert len(read_lists(tmp_path / "lists")["TRAIN_images"]) == 1


def test_nothing_to_fetch(server, tmp_path):
    with pytest.raises(
        ValueError,
        match="--download: both --voc07-path and --voc12-path name other data: leave out",
    ):
        download(tmp_path, voc07_path="", voc12_path="elsewhere")
    assert server.fetched == []


def failure_pattern(folder):
    """What the message on an archive that can not be had must say: file, address, remedy, where to and the right sum."""
    archive = script.describe_archive("2007", "test")
    remedy = f"fetch {archive['url']} by hand into {folder}", archive["md5"], "run this again"
    return ".*".join(map(re.escape, (f"{archive['filename']}: not fetched", *remedy)))


def test_wrong_checksum(server, tmp_path):
    server.files["/VOCtest_06-Nov-2007.tar"] = b"something else"
    with pytest.raises(RuntimeError, match=failure_pattern(tmp_path)):
        download(tmp_path)


def test_address_that_is_gone(server, tmp_path):
    del server.files["/VOCtest_06-Nov-2007.tar"]
    with pytest.raises(RuntimeError, match=failure_pattern(tmp_path)) as failure:
        download(tmp_path)
    assert "404" in str(failure.value)
    failure.value.__cause__.close()  # urllib keeps the connection open in its error


def test_nobody_listens(server, tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, so that nobody else can listen there
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/VOCtest_06-Nov-2007.tar"
        monkeypatch.setitem(script.describe_archive("2007", "test"), "url", url)
        with pytest.raises(RuntimeError, match=failure_pattern(tmp_path)) as failure:
            download(tmp_path)
    assert "refused" in str(failure.value)


def test_server_that_stops_answering(server, tmp_path, monkeypatch):
    download(tmp_path)
    (tmp_path / "VOCtest_06-Nov-2007.tar").unlink()
    server.go_on.clear()
    monkeypatch.setattr(script, "NETWORK_TIMEOUT", 0.3)
    with pytest.raises(RuntimeError, match=failure_pattern(tmp_path)) as failure:
        download(tmp_path)
    assert "timed out" in str(failure.value)
    assert socket.getdefaulttimeout() is None


def test_disk_too_full(server, tmp_path, monkeypatch):
    """What is there already is not asked for again."""
    download(tmp_path, voc12_path="")
    server.fetched.clear()
    monkeypatch.setattr(script, "ARCHIVES", tuple((*names, 10**9) for names in SETS))
    # The other two have been unpacked, but their archives are much smaller than they should be
    free = 4 * 10**9 - 2 * 10_240 - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))
    with pytest.raises(
        RuntimeError,
        match=re.escape(str(tmp_path)) + r": 4\.0 GB needed, 4\.0 GB free: .*--download-folder",
    ):
        download(tmp_path)
    assert server.fetched == []
    free += 1
    download(tmp_path)
    assert len(server.fetched) == 1


def test_real_addresses_are_those_of_the_three_archives():
    files = [
        script.describe_archive(year, image_set)["filename"]
        for year, image_set, _ in script.ARCHIVES
    ]
    assert files == [
        "VOCtrainval_06-Nov-2007.tar",
        "VOCtest_06-Nov-2007.tar",
        "VOCtrainval_11-May-2012.tar",
    ]
    assert [names[:2] for names in script.ARCHIVES] == list(SETS)


# --------------------------------------------------------------------------------------------------------------- the script


def test_toy_and_download_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match=r"--toy .* --download .*: choose one"):
        main(Parameters(toy=True, download=True, toy_folder=str(tmp_path / "toy")))


def test_command_line_ends_with_a_message(tmp_path):
    command = [
        sys.executable,
        Path(script.__file__),
        "--voc07-path",
        "nowhere",
        "--voc12-path",
        "",
        "--output-folder",
        "lists",
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: nowhere: no such folder")
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
