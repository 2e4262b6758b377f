"""Small files that claim to be huge are refused before they take memory; pictures of a sensible size are not."""

import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotations import AnnotationError
from datasets import MAX_PICTURE_SIDE, MAX_PIXELS, read_image
from folders import CAR, annotation_xml
from utils import parse_annotation

# Reads a file in a process of its own; prints the error, and how many bytes reading took at its height
MEASURE = """
import resource, sys
sys.path[:0] = {paths!r}
from datasets import read_image
from utils import parse_annotation
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    (parse_annotation if sys.argv[1].endswith("xml") else read_image)(sys.argv[1])
except ValueError as error:
    print(error)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def png(width, height, content=b""):
    """A grey PNG file of this size with this content, unpacked."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(content, 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
        for name, body in chunks
    )


def with_size(tmp_path, ending, change):
    """The bytes of a small picture, changed."""
    path = tmp_path / f"small.{ending}"
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(
        path, **({"lossless": True} if ending == "webp" else {})
    )
    return change(path.read_bytes())


def huge_tiff(content):
    """A TIFF file of 16 x 16 pixels that says 50,000 x 50,000 (and rows a strip) in its directory."""
    for tag in (256, 257, 278):
        place = content.index(tag.to_bytes(2, "little"), int.from_bytes(content[4:8], "little"))
        content = content[: place + 8] + (50_000).to_bytes(4, "little") + content[place + 12 :]
        content = content[: place + 2] + (4).to_bytes(2, "little") + content[place + 4 :]
    return content


def bombs(tmp_path):
    """{name of the file: its bytes}"""
    huge = (50_000).to_bytes(2, "little")
    bits = (16_383 | 16_383 << 14).to_bytes(4, "little")  # WebP's largest size, less one
    laughs = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 12))
    values = f'<!ATTLIST object x CDATA "{"long " * 100_000}">'
    return {
        "x.png": png(50_000, 50_000, bytes(10_000_000)),
        "wide.png": png(100_000_000, 1, bytes(10_000)),
        "x.gif": with_size(tmp_path, "gif", lambda content: content[:6] + huge + huge + content[10:]),
        "x.jpg": with_size(tmp_path, "jpg", lambda content: re.sub(
            rb"(\xff\xc0\x00\x11\x08)....", lambda found: found[1] + huge[::-1] * 2, content, flags=re.DOTALL)),
        "x.bmp": with_size(tmp_path, "bmp", lambda content: content[:18] + (huge + b"\0\0") * 2 + content[26:]),
        "x.tif": with_size(tmp_path, "tif", huge_tiff),
        "x.webp": with_size(tmp_path, "webp", lambda content: content[:21] + bits + content[25:]),
        "laughs.xml": f'<!DOCTYPE a [<!ENTITY e0 "ha">{laughs}]><annotation>&e11;</annotation>'.encode(),
        "laughs16.xml": f'<!DOCTYPE a [<!ENTITY e0 "ha">{laughs}]><annotation>&e11;</annotation>'.encode("utf-16"),
        "values.xml": f"<!DOCTYPE a [{values}]><annotation>{'<object/>' * 100_000}</annotation>".encode(),
        "long.xml": b"<annotation>" + b"<object/>" * 1_500_000 + b"</annotation>",
    }  # fmt: skip


@pytest.mark.skipif(
    sys.platform == "win32", reason="the memory that a process took is not to be had there"
)
@pytest.mark.parametrize("name", ["x.png", "x.webp", "laughs.xml", "values.xml", "long.xml"])
def test_bombs_take_little_memory(name, tmp_path):
    (tmp_path / name).write_bytes(bombs(tmp_path)[name])
    program = MEASURE.format(paths=[str(Path(__file__).resolve().parents[1])])
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path / name],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    message, n_bytes = result.stdout.splitlines()
    assert message.startswith(f"{tmp_path / name}: not readable as")
    assert int(n_bytes) < (400_000_000 if name == "long.xml" else 50_000_000)


@pytest.mark.parametrize(
    "name", ["x.png", "wide.png", "x.gif", "x.jpg", "x.bmp", "x.tif", "x.webp"]
)
def test_pictures_that_claim_to_be_huge_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(bombs(tmp_path)[name])
    with pytest.raises(
        ValueError, match=rf"{name}: not readable as a picture \(.*pixels.*\): replace it"
    ):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("size", "is_read"),
    [
        ((1, MAX_PICTURE_SIDE), True), ((1, MAX_PICTURE_SIDE + 1), False), ((MAX_PICTURE_SIDE + 1, 1), False),
        ((10_000, MAX_PIXELS // 10_000 + 1), False),
    ],
    ids=str,
)  # fmt: skip
def test_the_limits_of_pictures(size, is_read, tmp_path):
    width, height = size
    (tmp_path / "x.png").write_bytes(
        png(width, height, bytes((width + 1) * height) if is_read else b"")
    )
    if is_read:
        assert read_image(tmp_path / "x.png").size == size
    else:
        with pytest.raises(
            ValueError,
            match=rf"x\.png: not readable as a picture \({width} x {height} pixels are too many\)",
        ):
            read_image(tmp_path / "x.png")


@pytest.mark.slow
def test_a_picture_of_the_largest_size_is_read(tmp_path):
    width, height = 12_000, MAX_PIXELS // 12_000
    (tmp_path / "x.png").write_bytes(png(width, height, bytes((width + 1) * height)))
    assert read_image(tmp_path / "x.png").size == (width, height)


@pytest.mark.parametrize("name", ["laughs.xml", "laughs16.xml", "values.xml"])
def test_annotations_with_a_document_type_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(bombs(tmp_path)[name])
    with pytest.raises(
        AnnotationError, match=rf"{name}: not readable as XML \(it has a document type"
    ):
        parse_annotation(tmp_path / name)


def test_annotations_may_be_long_but_not_endless(tmp_path):
    path = tmp_path / "x.xml"
    path.write_text(annotation_xml(*[CAR] * 20_000))
    assert len(parse_annotation(path)) == 20_000
    path.write_bytes(bombs(tmp_path)["long.xml"])
    with pytest.raises(AnnotationError, match=r"x\.xml: not readable as XML"):
        parse_annotation(path)


def test_formats_that_other_programs_read_are_refused(tmp_path):
    """Pillow hands EPS files to Ghostscript, whatever they are called."""
    Image.new("RGB", (16, 16)).save(tmp_path / "x.jpg", "EPS")
    with pytest.raises(
        ValueError,
        match=r"x\.jpg: not readable as a picture \(none of BMP, GIF, JPEG, PNG, TIFF, WEBP",
    ):
        read_image(tmp_path / "x.jpg")
