"""Downloads: pretrained weights through torchvision, and the archives of PASCAL VOC."""

import contextlib
import http.client
import shutil
import socket
from pathlib import Path
from typing import NamedTuple

from torchvision.datasets.utils import download_and_extract_archive


class DownloadError(OSError):
    """A file could not be downloaded; the message says from where, and what to do instead."""


# ------------------------------------------------------------------------------- pretrained weights


def download_weights(weights, name, remedy):
    """
    Load weights that torchvision offers. They are downloaded once and stay in torch's cache.
    Loading them never runs code from the file.

    :param weights: member of one of torchvision's enumerations of weights
    :param name: what an error message calls them
    :param remedy: what to do with the file after fetching it by hand
    :return: state dict
    :raises DownloadError: they could not be downloaded, or the file in the cache is damaged
    """
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # besides the network and the disk: whatever a damaged file leads to
        raise DownloadError(
            f"{name} could not be loaded ({reason_of(error)}): fetch {weights.url} {remedy}"
        ) from error


def reason_of(error):
    """The first line of an error's message; not torch's advice to turn its protection off."""
    message = str(error).strip() or type(error).__name__
    if "weights only" in message.lower().replace("_", " "):
        return "the file is damaged, or holds more than weights: weights_only refuses it"
    return message.splitlines()[0]


# --------------------------------------------------------------------------- archives of PASCAL VOC

VOC_HOST = "https://thor.robots.ox.ac.uk/pascal/VOC"
NETWORK_TIMEOUT = 60  # seconds without an answer until a download fails; torchvision has no limit


class Archive(NamedTuple):
    """An archive of PASCAL VOC. It unpacks to VOCdevkit/VOC<year>."""

    year: str
    image_set: str
    url: str
    md5: str
    n_bytes: int  # unpacked it takes about the same again

    @property
    def filename(self):
        return self.url.rpartition("/")[2]


# Our own list, as older releases of torchvision have addresses that are no longer served
ARCHIVES = (
    Archive(
        year="2007",
        image_set="trainval",
        url=f"{VOC_HOST}/voc2007/VOCtrainval_06-Nov-2007.tar",
        md5="c52e279531787c972589f7e41ab4ae64",
        n_bytes=460_032_000,
    ),
    Archive(
        year="2007",
        image_set="test",
        url=f"{VOC_HOST}/voc2007/VOCtest_06-Nov-2007.tar",
        md5="b6e924de25625d8de591ea690078ad9f",
        n_bytes=451_020_800,
    ),
    Archive(
        year="2012",
        image_set="trainval",
        url=f"{VOC_HOST}/voc2012/VOCtrainval_11-May-2012.tar",
        md5="6cd6e144f989b92b3379bac3b3de84fd",
        n_bytes=1_999_639_040,
    ),
)


def voc_folder(folder, year):
    """Where the archives of a year are unpacked to, if they are downloaded into a folder."""
    return Path(folder).expanduser() / "VOCdevkit" / f"VOC{year}"


def download_voc(folder, years):
    """
    Download and unpack the archives of PASCAL VOC. Those that are there already and complete (by
    their MD5 sum) are not downloaded again.

    :param folder: where the archives go; for where they are unpacked see voc_folder
    :param years: of "2007" and "2012"
    :raises DownloadError: the disk is too full, or an archive could not be downloaded
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    archives = [archive for archive in ARCHIVES if archive.year in years]
    check_disk_space(folder, archives)
    for archive in archives:
        print(f"VOC{archive.year} {archive.image_set}: into {folder.resolve()}")
        download_archive(folder, archive)


def check_disk_space(folder, archives):
    """Raise a DownloadError unless what is still missing of the archives fits on the disk."""
    needed = sum(missing_bytes(folder, archive) for archive in archives)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{folder.resolve()}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free: make "
            "room, or name another --download-folder"
        )


def missing_bytes(folder, archive):
    """How much disk space downloading and unpacking an archive still takes."""
    path = folder / archive.filename
    downloaded = path.stat().st_size if path.is_file() else 0
    image_sets = voc_folder(folder, archive.year) / "ImageSets" / "Main"
    is_unpacked = (image_sets / f"{archive.image_set}.txt").is_file()
    to_unpack = 0 if is_unpacked else archive.n_bytes
    return max(0, archive.n_bytes - downloaded) + to_unpack


def download_archive(folder, archive):
    """
    Download an archive unless it is there and complete, and unpack it.

    :raises DownloadError: this failed
    """
    try:
        with network_timeout(NETWORK_TIMEOUT):
            download_and_extract_archive(
                archive.url, str(folder), filename=archive.filename, md5=archive.md5
            )
    # OSError: of the network and the disk; RuntimeError: a wrong MD5 sum
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DownloadError(
            f"{archive.filename} could not be downloaded and unpacked ({error}): fetch "
            f"{archive.url} by hand into {folder.resolve()} (its MD5 sum should be {archive.md5}) "
            "and run this again"
        ) from error


@contextlib.contextmanager
def network_timeout(seconds):
    """A context in which connections fail that stay silent for so long."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
