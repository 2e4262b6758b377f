"""How datasets.py reads images, at a fraction of their size too, and which it refuses."""

import re
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets import (
    MAX_IMAGE_SIDE,
    MAX_PIXELS,
    ImageFile,
    PascalVOCDataset,
    describe_image_errors,
    read_image,
)
from helpers.folders import write_lists
from helpers.memory import has_memory_meter, read_and_measure

# ------------------------------------------------------------------------------------- what is read


CORNERS = {
    (0, 0): (250, 10, 20),
    (0, 1): (30, 240, 40),
    (1, 0): (50, 60, 230),
    (1, 1): (240, 240, 10),
}  # (low, right): colour


def four_corners():
    """An array (20, 30, 3) of four quarters of different colours."""
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    for (low, right), colour in CORNERS.items():
        pixels[10 * low : 10 * low + 10, 15 * right : 15 * right + 15] = colour
    return pixels


def assert_four_corners(image, expected, tolerance):
    assert image.mode == "RGB"
    assert image.size == (30, 20)
    pixels = np.array(image).astype(int)
    assert np.abs(pixels[[0, 0, -1, -1], [0, -1, 0, -1]] - np.array(expected)).max() <= tolerance


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        ("RGB", "png"),
        ("RGB", "jpg"),
        ("RGB", "bmp"),
        ("RGB", "webp"),
        ("RGBA", "png"),
        ("CMYK", "jpg"),
        ("CMYK", "tif"),
        ("P", "png"),
    ],
)
def test_coloured_images_of_any_mode_are_read_as_rgb(mode, ending, tmp_path):
    image = Image.fromarray(four_corners())
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    path = tmp_path / f"x.{ending}"
    image.save(path)
    assert_four_corners(read_image(path), list(CORNERS.values()), tolerance=12)


@pytest.mark.parametrize(
    ("mode", "ending"), [("L", "png"), ("L", "jpg"), ("LA", "png"), ("P", "gif")]
)
def test_grey_images_of_any_mode_are_read_as_rgb(mode, ending, tmp_path):
    grey = Image.fromarray(four_corners()).convert("L")
    path = tmp_path / f"x.{ending}"
    grey.convert(mode).save(path)
    expected = [[level] * 3 for level in np.array(grey).astype(int)[[0, 0, -1, -1], [0, -1, 0, -1]]]
    assert_four_corners(read_image(path), expected, tolerance=4)


def test_black_and_white_images_are_read_as_rgb(tmp_path):
    black_and_white = Image.new("1", (30, 20))
    black_and_white.paste(1, (15, 0, 30, 20))
    black_and_white.save(tmp_path / "x.png")
    assert_four_corners(
        read_image(tmp_path / "x.png"), [[0] * 3, [255] * 3, [0] * 3, [255] * 3], tolerance=0
    )


@pytest.mark.parametrize("transparency", [3, bytes([0, 128, 255])], ids=str)
def test_palettes_with_transparency_are_read_without_a_warning(transparency, tmp_path):
    Image.fromarray(four_corners()).quantize(4).save(tmp_path / "x.png", transparency=transparency)
    assert_four_corners(read_image(tmp_path / "x.png"), list(CORNERS.values()), tolerance=4)


def test_grey_images_of_16_bits_are_scaled_to_8_or_refused_but_not_read_as_white(tmp_path):
    levels = (
        np.array([[0, 20_000], [40_000, 65_535]], dtype=np.uint16)
        .repeat(10, axis=0)
        .repeat(15, axis=1)
    )
    Image.fromarray(levels).save(tmp_path / "x.png")
    try:
        image = read_image(tmp_path / "x.png")
    except ValueError:
        return
    assert_four_corners(image, [[level] * 3 for level in (0, 78, 156, 255)], tolerance=1)


STORED = {  # for each EXIF orientation: what the camera writes of an upright image
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_images_are_turned_upright_by_their_exif_orientation(orientation, ending, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](four_corners())))
    assert stored.size == ((30, 20) if orientation < 5 else (20, 30))
    options = {"quality": 100, "subsampling": 0} if ending == "jpg" else {}
    stored.save(tmp_path / f"x.{ending}", exif=exif, **options)
    assert_four_corners(read_image(tmp_path / f"x.{ending}"), list(CORNERS.values()), tolerance=12)


def test_boxes_refer_to_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(STORED[6](four_corners()))).save(
        tmp_path / "x.png", exif=exif
    )
    entry = {"boxes": [[15, 10, 30, 20]], "labels": [1], "difficulties": [0]}
    image, boxes, _, _ = PascalVOCDataset(
        write_lists(tmp_path, [tmp_path / "x.png"], [entry]), "TEST"
    )[0]
    assert boxes.tolist() == [[0.5, 0.5, 1, 1]]
    quarter = image[:, 160:, 160:].flatten(1)
    assert (quarter == quarter[:, :1]).all(), "the box holds one colour"


def photograph(width, height):
    """Something with soft and sharp edges and a little noise: PIL image."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (250, 240, 30)
    return Image.fromarray((pixels + rng.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(
    ("mode", "ending"),
    [("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGB", "png"), ("P", "png")],
)
def test_an_image_file_resizes_like_the_decoded_image(mode, ending, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photograph(240, 160)
    path = tmp_path / f"x.{ending}"
    (image.quantize(64) if mode == "P" else image.convert(mode)).save(path, exif=exif)
    file = ImageFile(path)
    whole = read_image(path)
    assert (file.width, file.height) == whole.size
    for size, box in (
        ((300, 300), (0, 0, *whole.size)),
        ((120, 90), (10.5, 20.25, 100, 110)),
        ((30, 20), (0, 0, 30, 20)),
    ):
        expected = np.array(whole.resize(size, Image.Resampling.BILINEAR, box))
        assert (np.array(file.resize(size, Image.Resampling.BILINEAR, box)) == expected).all()


@pytest.mark.parametrize(
    ("size", "box", "scale"),
    [
        ((300, 300), (0, 0, 1200, 901), 2),
        ((300, 300), (0, 0, 1200, 890), 1),  # half of it would be 445 rows, less than 1.5 x 300
        ((200, 150), (0, 0, 1200, 901), 4),
        ((100, 74), (0, 0, 1200, 901), 8),
        ((20, 10), (0, 0, 1200, 901), 8),  # the most that a decoder can do
        ((61, 33), (300.5, 200, 700, 500.75), 4),
        ((300, 300), (600, 400, 1200, 901), 1),
    ],
)
def test_a_jpeg_file_is_decoded_at_a_fraction_of_its_size_without_visible_loss(
    size, box, scale, tmp_path
):
    photograph(1200, 901).save(tmp_path / "x.jpg", quality=95)
    whole = read_image(tmp_path / "x.jpg")
    file = ImageFile(tmp_path / "x.jpg")
    pixels = np.array(file.resize(size, Image.Resampling.BILINEAR, box)).astype(int)
    assert file.scale == pytest.approx(scale)
    exact = np.array(whole.resize(size, Image.Resampling.BILINEAR, box)).astype(int)
    bicubic = np.array(whole.resize(size, Image.Resampling.BICUBIC, box)).astype(int)
    difference = np.abs(pixels - exact).mean()
    assert (difference > 0) == (scale > 1)
    assert difference <= max(np.abs(bicubic - exact).mean(), 0.5)


def test_an_image_file_that_was_decoded_small_can_be_decoded_large(tmp_path):
    photograph(1200, 901).save(tmp_path / "x.jpg")
    file = ImageFile(tmp_path / "x.jpg")
    for size in ((30, 30), (300, 300), (600, 600), (600, 600), (30, 30)):
        fresh_file = ImageFile(tmp_path / "x.jpg")
        pixels, fresh_pixels = (
            np.array(reused.resize(size, Image.Resampling.BILINEAR, (0, 0, 1200, 901))).astype(int)
            for reused in (file, fresh_file)
        )
        assert np.abs(pixels - fresh_pixels).mean() < 1


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own words about the TIFF file
@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "bmp", "tif", "webp"])
def test_truncated_images_are_refused_by_name(ending, tmp_path):
    path = tmp_path / f"broken.{ending}"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    for length in (0, 3, 20, len(content) // 2):
        path.write_bytes(content[:length])
        message = rf"broken\.{ending}: not readable as an image .*: replace it"
        with pytest.raises(ValueError, match=message):
            read_image(path)
        with pytest.raises(ValueError, match=message):
            ImageFile(path).resize((30, 30), Image.Resampling.BILINEAR, (0, 0, 50, 40))


def test_ctrl_c_while_an_image_is_read_is_not_blamed_on_the_image():
    with pytest.raises(KeyboardInterrupt), describe_image_errors("x.jpg", "replace it"):
        raise KeyboardInterrupt


def test_what_is_no_image_or_not_there_is_refused_by_name(tmp_path):
    (tmp_path / "note.jpg").write_text("hello")
    for path in (tmp_path / "note.jpg", tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(ValueError, match=f"{path.name}: not readable as an image"):
            read_image(path)


# ---------------------------------------------------------------------- files that claim to be huge


HUGE = (50_000).to_bytes(2, "little")


def png(width, height, content=b""):
    """A grey PNG file of this size with this content, unpacked."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(content, 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
        for name, body in chunks
    )


def with_size(tmp_path, ending, change):
    """The bytes of a small image, changed."""
    path = tmp_path / f"small.{ending}"
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(
        path, **({"lossless": True} if ending == "webp" else {})
    )
    return change(path.read_bytes())


def huge_gif(content):
    """A GIF file whose header says 50,000 x 50,000."""
    return content[:6] + HUGE + HUGE + content[10:]


def huge_jpg(content):
    """A JPEG file whose frame says 50,000 x 50,000."""
    frame = rb"(\xff\xc0\x00\x11\x08)...."
    return re.sub(frame, lambda found: found[1] + HUGE[::-1] * 2, content, flags=re.DOTALL)


def huge_bmp(content):
    """A BMP file whose header says 50,000 x 50,000."""
    return content[:18] + (HUGE + b"\0\0") * 2 + content[26:]


def huge_webp(content):
    """A WebP file of the largest size that it can have, less one."""
    bits = (16_383 | 16_383 << 14).to_bytes(4, "little")
    return content[:21] + bits + content[25:]


def huge_tiff(content):
    """A TIFF file whose directory says 50,000 x 50,000 pixels (and rows per strip)."""
    for tag in (256, 257, 278):
        directory = int.from_bytes(content[4:8], "little")
        place = content.index(tag.to_bytes(2, "little"), directory)
        content = content[: place + 8] + (50_000).to_bytes(4, "little") + content[place + 12 :]
        content = content[: place + 2] + (4).to_bytes(2, "little") + content[place + 4 :]
    return content


def bombs(tmp_path):
    """{name of the file: its bytes}"""
    return {
        "x.png": png(50_000, 50_000, bytes(10_000_000)),
        "wide.png": png(100_000_000, 1, bytes(10_000)),
        "x.gif": with_size(tmp_path, "gif", huge_gif),
        "x.jpg": with_size(tmp_path, "jpg", huge_jpg),
        "x.bmp": with_size(tmp_path, "bmp", huge_bmp),
        "x.tif": with_size(tmp_path, "tif", huge_tiff),
        "x.webp": with_size(tmp_path, "webp", huge_webp),
    }


@pytest.mark.parametrize(
    "name", ["x.png", "wide.png", "x.gif", "x.jpg", "x.bmp", "x.tif", "x.webp"]
)
def test_images_that_claim_to_be_huge_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(bombs(tmp_path)[name])
    with pytest.raises(
        ValueError, match=rf"{name}: not readable as an image \(.*pixels.*\): replace it"
    ):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("size", "is_read"),
    [
        ((1, MAX_IMAGE_SIDE), True),
        ((1, MAX_IMAGE_SIDE + 1), False),
        ((MAX_IMAGE_SIDE + 1, 1), False),
        ((10_000, MAX_PIXELS // 10_000 + 1), False),
    ],
    ids=str,
)
def test_the_limits_of_images(size, is_read, tmp_path):
    width, height = size
    (tmp_path / "x.png").write_bytes(
        png(width, height, bytes((width + 1) * height) if is_read else b"")
    )
    if is_read:
        assert read_image(tmp_path / "x.png").size == size
    else:
        with pytest.raises(
            ValueError,
            match=rf"x\.png: not readable as an image \({width} x {height} pixels are too many\)",
        ):
            read_image(tmp_path / "x.png")


@pytest.mark.slow
def test_an_image_of_the_largest_size_is_read(tmp_path):
    width, height = 12_000, MAX_PIXELS // 12_000
    (tmp_path / "x.png").write_bytes(png(width, height, bytes((width + 1) * height)))
    assert read_image(tmp_path / "x.png").size == (width, height)


def test_formats_that_other_programs_read_are_refused(tmp_path):
    """Pillow hands EPS files to Ghostscript, whatever they are called."""
    Image.new("RGB", (16, 16)).save(tmp_path / "x.jpg", "EPS")
    with pytest.raises(
        ValueError,
        match=r"x\.jpg: not readable as an image \(none of BMP, GIF, JPEG, PNG, TIFF, WEBP",
    ):
        read_image(tmp_path / "x.jpg")


@has_memory_meter
def test_bombs_take_little_memory(tmp_path):
    paths = [tmp_path / name for name in ("x.png", "x.webp")]
    for path in paths:
        path.write_bytes(bombs(tmp_path)[path.name])
    results = read_and_measure("datasets", "read_image", paths)
    for path, (message, n_bytes) in zip(paths, results, strict=True):
        assert message.startswith(f"{path}: not readable as an image")
        assert n_bytes < 50_000_000
