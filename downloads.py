"""Downloads: pretrained weights through torchvision, and the archives of PASCAL VOC."""

import http.client
import shutil
import socket
from pathlib import Path

from torchvision.datasets import VOCDetection, voc


class DownloadError(RuntimeError):
    """Weights to start from that can not be had; the message says what to do."""


def download_weights(weights, name, remedy):
    """
    Fetch weights that torchvision offers, once: they stay in torch's cache. Nothing in the file is run.

    :param weights: member of one of torchvision's enumerations of weights
    :param name: what the message calls them
    :param remedy: what to do with the file if it is fetched by hand
    :return: state dict
    :raises DownloadError: they can not be downloaded, or the file in the cache is damaged
    """
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # of the network or the disk, or whatever a damaged file leads to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DownloadError(
            f"{name} can not be had ({reason}): fetch {weights.url} {remedy}"
        ) from error


# -------------------------------------------------------------------------------------------------------------- download

ARCHIVES = (  # year, image set, bytes of the archive; unpacked it takes about the same again
    ("2007", "trainval", 460_032_000),
    ("2007", "test", 451_020_800),
    ("2012", "trainval", 1_999_639_040),
)
NETWORK_TIMEOUT = (
    60  # seconds without an answer after which a download fails; torchvision would wait for ever
)


def download_voc(folder, years):
    """
    Fetch and unpack the archives of PASCAL VOC. Those already there and complete (by their MD5 sum) are not fetched again.

    :param folder: where the archives go; they unpack to VOCdevkit in it
    :param paths: {"2007": path, "2012": path}; a year whose path is not the default of Parameters is not fetched
    :return: the paths, those of the fetched years replaced by where they are now
    :raises ValueError: there is nothing to fetch
    :raises RuntimeError: the disk is too full, or an archive can not be fetched
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    check_disk_space(folder, years)
    for year, image_set, _ in ARCHIVES:
        if year in years:
            print(f"VOC{year} {image_set}: into {folder.resolve()}")
            download_archive(folder, year, image_set)
    return {year: str(folder / "VOCdevkit" / f"VOC{year}") for year in years}


def describe_archive(year, image_set):
    """What torchvision knows of an archive: {"url", "filename", "md5", "base_dir"}."""
    return voc.DATASET_YEAR_DICT["2007-test" if (year, image_set) == ("2007", "test") else year]


def check_disk_space(folder, years):
    """Raise a RuntimeError unless what is missing of the archives of these years, and what they hold, fits on the disk."""
    needed = 0
    for year, image_set, size in ARCHIVES:
        if year not in years:
            continue
        archive = folder / describe_archive(year, image_set)["filename"]
        unpacked = folder / "VOCdevkit" / f"VOC{year}" / "ImageSets" / "Main" / f"{image_set}.txt"
        needed += max(0, size - (archive.stat().st_size if archive.is_file() else 0))
        needed += 0 if unpacked.is_file() else size
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RuntimeError(
            f"{folder.resolve()}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free: make room, or name another "
            "--download-folder"
        )


def download_archive(folder, year, image_set):
    """
    Fetch one archive unless it is there and complete, and unpack it.

    :raises RuntimeError: it can not be fetched; the message says from where to where
    """
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        VOCDetection(str(folder), year=year, image_set=image_set, download=True)
    except (
        OSError,
        RuntimeError,
        http.client.HTTPException,
    ) as error:  # OSError: of the network and of the disk
        archive = describe_archive(year, image_set)
        raise RuntimeError(
            f"{archive['filename']}: not fetched and unpacked ({error}): fetch {archive['url']} by hand into {folder.resolve()} "
            f"(its MD5 sum should be {archive['md5']}) and run this again"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
