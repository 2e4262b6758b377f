"""Lists, pictures and items of datasets.py, in drawn data sets and a real one."""

import json
import xml.etree.ElementTree as ElementTree
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datasets import (
    PascalVOCDataset,
    PictureFile,
    ShuffledBatches,
    collate_fn,
    naming_file,
    ordered_batches,
    read_image,
    read_list,
)
from runtime import InterruptedTrainingError
from utils import create_data_lists

pytestmark = pytest.mark.usefixtures("one_thread")

LABEL_MAP = {"background": 0, "cat": 1, "dog": 2}
ENTRIES = [
    {"boxes": [[10, 20, 60, 80], [50, 5, 90, 40]], "labels": [1, 2], "difficulties": [0, 1]},
    {"boxes": [[0, 0, 100, 80]], "labels": [2], "difficulties": [0]},
    {"boxes": [], "labels": [], "difficulties": []},
    {"boxes": [[5.5, 6.25, 30, 40]], "labels": [1], "difficulties": [1]},
    {
        "boxes": [[1, 2, 33, 44], [40, 40, 90, 70], [60, 10, 95, 30]],
        "labels": [2, 1, 1],
        "difficulties": [0, 0, 0],
    },
]


def write_lists(folder, images, entries, label_map=LABEL_MAP):
    for split in ("TRAIN", "TEST"):
        (folder / f"{split}_images.json").write_text(json.dumps([str(path) for path in images]))
        (folder / f"{split}_objects.json").write_text(json.dumps(entries))
    (folder / "label_map.json").write_text(json.dumps(label_map))
    return folder


def change_list(folder, name, change):
    """Let change(content) spoil the content of a list."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


@pytest.fixture
def data_folder(tmp_path):
    """Lists of five pictures of 100 x 80 pixels of noise; the third is without objects."""
    images = []
    for number in range(len(ENTRIES)):
        pixels = np.random.default_rng(number).integers(0, 256, (80, 100, 3), dtype=np.uint8)
        images.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(images[-1])
    return write_lists(tmp_path, images, ENTRIES)


def same(item_1, item_2):
    """Whether two items, or two batches, are equal in all their tensors."""
    flat_1, flat_2 = (
        [t for part in item for t in ([part] if torch.is_tensor(part) else part)]
        for item in (item_1, item_2)
    )
    return len(flat_1) == len(flat_2) and all(
        torch.equal(t_1, t_2) for t_1, t_2 in zip(flat_1, flat_2, strict=True)
    )


# ----------------------------------------------------------------------------------------------------------------- lists


def test_read_list_gives_what_is_written(tmp_path):
    (tmp_path / "x.json").write_text('[1, {"ä": [2.5]}]', encoding="utf-8")
    assert read_list(tmp_path, "x.json") == [1, {"ä": [2.5]}]
    assert read_list(str(tmp_path), "x.json") == [1, {"ä": [2.5]}]


def test_read_list_names_the_file_that_is_missing_and_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"TEST_images\.json.*create_data_lists\.py"):
        read_list(tmp_path, "TEST_images.json")
    with pytest.raises(FileNotFoundError, match=r"TRAIN_images\.json"):
        PascalVOCDataset(tmp_path, "TRAIN")


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"\xff\xfe\x00", b"hello"])
def test_read_list_names_the_file_that_is_not_json(content, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.json: not readable as JSON"):
        read_list(tmp_path, "x.json")


# -------------------------------------------------------------------------------------------------------------- pictures

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
def test_coloured_pictures_of_any_mode_are_read_as_rgb(mode, ending, tmp_path):
    image = Image.fromarray(four_corners())
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    path = tmp_path / f"x.{ending}"
    image.save(path)
    assert_four_corners(read_image(path), list(CORNERS.values()), tolerance=12)


@pytest.mark.parametrize(
    ("mode", "ending"), [("L", "png"), ("L", "jpg"), ("LA", "png"), ("P", "gif")]
)
def test_grey_pictures_of_any_mode_are_read_as_rgb(mode, ending, tmp_path):
    grey = Image.fromarray(four_corners()).convert("L")
    path = tmp_path / f"x.{ending}"
    grey.convert(mode).save(path)
    expected = [[level] * 3 for level in np.array(grey).astype(int)[[0, 0, -1, -1], [0, -1, 0, -1]]]
    assert_four_corners(read_image(path), expected, tolerance=4)


def test_black_and_white_pictures_are_read_as_rgb(tmp_path):
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


def test_grey_pictures_of_16_bits_are_scaled_to_8_or_refused_but_not_read_as_white(tmp_path):
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


STORED = {  # for each EXIF orientation: what the camera writes of an upright picture
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
def test_pictures_are_turned_upright_by_their_exif_orientation(orientation, ending, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](four_corners())))
    assert stored.size == ((30, 20) if orientation < 5 else (20, 30))
    options = {"quality": 100, "subsampling": 0} if ending == "jpg" else {}
    stored.save(tmp_path / f"x.{ending}", exif=exif, **options)
    assert_four_corners(read_image(tmp_path / f"x.{ending}"), list(CORNERS.values()), tolerance=12)


def test_boxes_refer_to_the_upright_picture(tmp_path):
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
def test_a_picture_file_resizes_like_the_decoded_picture(mode, ending, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photograph(240, 160)
    path = tmp_path / f"x.{ending}"
    (image.quantize(64) if mode == "P" else image.convert(mode)).save(path, exif=exif)
    picture, whole = PictureFile(path), read_image(path)
    assert (picture.width, picture.height) == whole.size
    for size, box in (
        ((300, 300), (0, 0, *whole.size)),
        ((120, 90), (10.5, 20.25, 100, 110)),
        ((30, 20), (0, 0, 30, 20)),
    ):
        expected = np.array(whole.resize(size, Image.Resampling.BILINEAR, box))
        assert (np.array(picture.resize(size, Image.Resampling.BILINEAR, box)) == expected).all()


def test_a_jpeg_file_is_decoded_at_a_fraction_of_its_size_without_visible_loss(tmp_path):
    photograph(1200, 901).save(tmp_path / "x.jpg", quality=95)
    whole = read_image(tmp_path / "x.jpg")
    for size, box, scale in (
        ((300, 300), (0, 0, 1200, 901), 2),
        (
            (300, 300),
            (0, 0, 1200, 890),
            1,
        ),  # 445 rows would be left of the half, less than 1.5 x 300
        ((200, 150), (0, 0, 1200, 901), 4),
        ((100, 74), (0, 0, 1200, 901), 8),
        ((20, 10), (0, 0, 1200, 901), 8),  # the decoder can not do less
        ((61, 33), (300.5, 200, 700, 500.75), 4),
        ((300, 300), (600, 400, 1200, 901), 1),
    ):
        picture = PictureFile(tmp_path / "x.jpg")
        pixels = np.array(picture.resize(size, Image.Resampling.BILINEAR, box)).astype(int)
        assert picture.scale == pytest.approx(scale)
        exact = np.array(whole.resize(size, Image.Resampling.BILINEAR, box)).astype(int)
        bicubic = np.array(whole.resize(size, Image.Resampling.BICUBIC, box)).astype(int)
        difference = np.abs(pixels - exact).mean()
        assert (difference > 0) == (scale > 1)
        assert difference <= max(np.abs(bicubic - exact).mean(), 0.5)


def test_a_picture_file_that_was_decoded_small_can_be_decoded_large(tmp_path):
    photograph(1200, 901).save(tmp_path / "x.jpg")
    picture, box = PictureFile(tmp_path / "x.jpg"), (0, 0, 1200, 901)
    for size in ((30, 30), (300, 300), (600, 600), (600, 600), (30, 30)):
        fresh = PictureFile(tmp_path / "x.jpg").resize(size, Image.Resampling.BILINEAR, box)
        difference = np.array(picture.resize(size, Image.Resampling.BILINEAR, box)).astype(
            int
        ) - np.array(fresh)
        assert np.abs(difference).mean() < 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own words about the TIFF file
@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "bmp", "tif", "webp"])
def test_truncated_pictures_are_refused_by_name(ending, tmp_path):
    path = tmp_path / f"broken.{ending}"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    for length in (0, 3, 20, len(content) // 2):
        path.write_bytes(content[:length])
        message = rf"broken\.{ending}: not readable as a picture .*: replace it"
        with pytest.raises(ValueError, match=message):
            read_image(path)
        with pytest.raises(ValueError, match=message):
            PictureFile(path).resize((30, 30), Image.Resampling.BILINEAR, (0, 0, 50, 40))


def test_a_training_that_is_asked_to_stop_while_it_reads_a_picture_does_not_blame_the_picture():
    with pytest.raises(InterruptedTrainingError), naming_file("x.jpg", "replace it"):
        raise InterruptedTrainingError(15)


def test_what_is_no_picture_or_not_there_is_refused_by_name(tmp_path):
    (tmp_path / "note.jpg").write_text("hello")
    for path in (tmp_path / "note.jpg", tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(ValueError, match=f"{path.name}: not readable as a picture"):
            read_image(path)


def test_a_picture_of_absurd_size_is_refused_by_name(tmp_path, monkeypatch):
    Image.fromarray(four_corners()).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # Pillow refuses twice as many
    with pytest.raises(ValueError, match=r"x\.png: not readable as a picture"):
        read_image(tmp_path / "x.png")


def test_a_broken_picture_of_a_data_set_is_named(data_folder):
    (data_folder / "1.png").write_bytes(b"nothing")
    dataset = PascalVOCDataset(data_folder, "TRAIN")
    dataset[0]
    with pytest.raises(ValueError, match=r"1\.png: not readable as a picture"):
        dataset[1]


# ----------------------------------------------------------------------------------------------------------------- items


def test_items_of_the_test_split_are_the_resized_pictures_and_all_their_objects(data_folder):
    dataset = PascalVOCDataset(data_folder, "TEST")
    assert len(dataset) == 5
    assert dataset.label_map == LABEL_MAP
    for number, entry in enumerate(ENTRIES):
        image, boxes, labels, difficulties = dataset[number]
        assert (image.shape, image.dtype) == ((3, 300, 300), torch.float32)
        assert (labels.dtype, difficulties.dtype) == (torch.int64, torch.bool)
        expected = torch.tensor(entry["boxes"]).view(-1, 4) / torch.tensor([100, 80, 100, 80])
        torch.testing.assert_close(boxes, expected)
        assert labels.tolist() == entry["labels"]
        assert difficulties.tolist() == [bool(difficult) for difficult in entry["difficulties"]]
        with Image.open(dataset.images[number]) as picture:
            levels = torch.from_numpy(
                np.array(picture.resize((300, 300), Image.Resampling.BILINEAR))
            )
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        torch.testing.assert_close(
            image.permute(1, 2, 0), (levels / 255 - mean) / std, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_pictures_without_objects_are_items_like_others(split, data_folder):
    image, boxes, labels, difficulties = PascalVOCDataset(data_folder, split)[2]
    assert image.shape == (3, 300, 300)
    assert (boxes.shape, labels.shape, difficulties.shape) == ((0, 4), (0,), (0,))
    assert (boxes.dtype, labels.dtype, difficulties.dtype) == (
        torch.float32,
        torch.int64,
        torch.bool,
    )


@pytest.mark.parametrize(
    ("split", "keep", "kept"),
    [("TRAIN", False, False), ("TRAIN", True, True), ("TEST", False, True)],
)
def test_difficult_objects_are_left_out_of_training_on_request_and_never_of_evaluation(
    split, keep, kept, data_folder, monkeypatch
):
    monkeypatch.setattr(
        "datasets.transform",
        lambda image, boxes, labels, difficulties, split, rng: (boxes, labels, difficulties),
    )
    dataset = PascalVOCDataset(data_folder, split, keep_difficult=keep)
    boxes, labels, difficulties = dataset[0]
    assert boxes.tolist() == ENTRIES[0]["boxes"][: 1 + kept]
    assert labels.tolist() == [1, 2][: 1 + kept]
    assert difficulties.tolist() == [False, True][: 1 + kept]
    assert len(dataset[3][0]) == kept, "the only object is difficult"
    assert len(dataset[4][0]) == 3


def test_difficult_objects_are_left_out_of_training_by_default(data_folder):
    dataset = PascalVOCDataset(data_folder, "TRAIN")
    for epoch in range(30):
        dataset.set_epoch(epoch)
        assert not dataset[0][3].any()
        assert len(dataset[3][1]) == 0


def test_going_through_a_data_set_ends(data_folder):
    assert len(list(PascalVOCDataset(data_folder, "TEST"))) == 5


@pytest.mark.parametrize("split", ["train", "TRAINVAL", None])
def test_another_split_is_refused(split, data_folder):
    with pytest.raises(ValueError, match="expected 'TRAIN' or 'TEST'"):
        PascalVOCDataset(data_folder, split)


# ----------------------------------------------------------------------------------------------------------- wrong lists


@pytest.mark.parametrize(
    "box", [[110, 10, 120, 20], [10, 90, 20, 99], [-30, 10, -10, 20], [10, -30, 20, -10]], ids=str
)
@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_an_object_outside_the_picture_is_an_error_that_names_the_picture(split, box, data_folder):
    change_list(
        data_folder,
        f"{split}_objects.json",
        lambda entries: entries[4]["boxes"].__setitem__(1, box),
    )
    dataset = PascalVOCDataset(data_folder, split)
    dataset[3]
    with pytest.raises(
        ValueError, match=r"4\.png: has an object outside the picture \(100 x 80 pixels\)"
    ):
        dataset[4]


def test_an_object_that_sticks_out_of_the_picture_is_cut_off(data_folder):
    change_list(
        data_folder,
        "TEST_objects.json",
        lambda entries: entries[4]["boxes"].__setitem__(1, [50, 40, 180, 140]),
    )
    boxes = PascalVOCDataset(data_folder, "TEST")[4][1]
    torch.testing.assert_close(boxes[1], torch.tensor([0.5, 0.5, 1, 1]))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda entries: entries.pop(), "5 images but 4 entries"),
        (lambda entries: entries.append(entries[0]), "5 images but 6 entries"),
        (lambda entries: entries[1]["labels"].append(1), r"TRAIN_objects\.json: entry 1 "),
        (lambda entries: entries[1]["difficulties"].pop(), r"TRAIN_objects\.json: entry 1 "),
        (lambda entries: entries[1]["boxes"].append([1, 1, 2, 2]), r"TRAIN_objects\.json: entry 1 "),
        (lambda entries: entries[4]["labels"].__setitem__(2, 3), r"TRAIN_objects\.json: entry 4 .*label_map\.json"),
        (lambda entries: entries[4]["labels"].__setitem__(2, 0), r"TRAIN_objects\.json: entry 4 .*label_map\.json"),
        (lambda entries: entries[4]["labels"].__setitem__(2, -1), r"TRAIN_objects\.json: entry 4 .*label_map\.json"),
        (lambda entries: entries[0]["boxes"].__setitem__(0, [9, 2, 3, 4]), r"TRAIN_objects\.json: entry 0 "),
        (lambda entries: entries[0]["boxes"].__setitem__(0, [1, 4, 3, 4]), r"TRAIN_objects\.json: entry 0 "),
        (lambda entries: entries[0]["boxes"].__setitem__(0, [1, 2, float("nan"), 4]), r"TRAIN_objects\.json: entry 0 "),
        (lambda entries: entries[0]["boxes"].__setitem__(0, [1, 2, 3]), r"TRAIN_objects\.json: entry 0 "),
        (lambda entries: entries[3].pop("difficulties"), r"TRAIN_objects\.json: entry 3 "),
    ],
    ids=[
        "entry missing", "entry too many", "label too many", "difficulty missing", "box too many", "label unknown",
        "label background", "label negative", "box reversed", "box flat", "box not a number", "box with three edges",
        "no difficulties",
    ],
)  # fmt: skip
def test_lists_that_do_not_belong_together_are_refused_with_the_place(
    spoil, complaint, data_folder
):
    change_list(data_folder, "TRAIN_objects.json", spoil)
    PascalVOCDataset(data_folder, "TEST")  # these lists are good
    with pytest.raises(ValueError, match=complaint):
        PascalVOCDataset(data_folder, "TRAIN")


@pytest.mark.parametrize(
    "label_map",
    [
        {},
        {"cat": 1, "dog": 2},
        {"background": 0, "cat": 2},
        {"background": 1, "cat": 0},
        {"cat": 0, "dog": 1},
    ],
    ids=str,
)
def test_a_label_map_without_background_0_or_with_gaps_is_refused(label_map, data_folder):
    (data_folder / "label_map.json").write_text(json.dumps(label_map))
    with pytest.raises(ValueError, match=r"label_map\.json: expected background 0"):
        PascalVOCDataset(data_folder, "TEST")


# ------------------------------------------------------------------------------------------------------------ randomness


def epoch_items(dataset, epoch, order=range(5)):
    dataset.set_epoch(epoch)
    items = {number: dataset[number] for number in order}
    return [items[number] for number in range(5)]


def all_same(items_1, items_2):
    return [same(item_1, item_2) for item_1, item_2 in zip(items_1, items_2, strict=True)]


def test_an_item_depends_on_seed_epoch_and_index_and_on_nothing_else(data_folder):
    dataset = PascalVOCDataset(data_folder, "TRAIN", seed=7)
    first = epoch_items(dataset, 3)
    torch.manual_seed(99)
    np.random.seed(99)
    epoch_items(dataset, 4)
    assert all(all_same(first, epoch_items(dataset, 3, order=(4, 2, 0, 1, 3)))), (
        "the order of reading does not matter"
    )
    again = PascalVOCDataset(data_folder, "TRAIN", seed=7)
    again.set_epoch(3)
    assert same(again[4], first[4]), "nor what was read before"
    assert not any(all_same(first, epoch_items(dataset, 4)))
    assert not any(all_same(first, epoch_items(PascalVOCDataset(data_folder, "TRAIN", seed=8), 3)))
    assert not any(all_same(first, epoch_items(PascalVOCDataset(data_folder, "TRAIN", seed=3), 7)))


def test_one_picture_at_two_places_is_augmented_in_two_ways(data_folder):
    for name, content in (("images", lambda images: images), ("objects", lambda entries: entries)):
        change_list(
            data_folder,
            f"TRAIN_{name}.json",
            lambda entries, same=content: entries.__setitem__(1, same(entries)[0]),
        )
    dataset = PascalVOCDataset(data_folder, "TRAIN")
    assert dataset.images[0] == dataset.images[1]
    assert not same(dataset[0], dataset[1])


def test_seed_and_epoch_are_0_by_default_and_test_items_depend_on_neither(data_folder):
    dataset = PascalVOCDataset(data_folder, "TRAIN")
    assert same(dataset[0], epoch_items(PascalVOCDataset(data_folder, "TRAIN", seed=0), 0)[0])
    test = PascalVOCDataset(data_folder, "TEST", seed=1)
    assert all(
        all_same(
            epoch_items(test, 0), epoch_items(PascalVOCDataset(data_folder, "TEST", seed=2), 5)
        )
    )


def load(loader, dataset, epochs):
    batches = []
    for epoch in epochs:
        dataset.set_epoch(epoch)
        batches.append(list(loader))
    return batches


def loaded(data_folder, epochs, **kwargs):
    dataset = PascalVOCDataset(data_folder, "TRAIN", keep_difficult=True, seed=5)
    return load(DataLoader(dataset, batch_size=2, collate_fn=collate_fn, **kwargs), dataset, epochs)


@pytest.mark.parametrize("persistent", [False, True])
def test_two_workers_give_what_none_gives_and_see_the_epoch_change(persistent, data_folder):
    epochs = (0, 1, 0, 2)
    alone = loaded(data_folder, epochs)
    together = loaded(data_folder, epochs, num_workers=2, persistent_workers=persistent)
    for batches_1, batches_2 in zip(alone, together, strict=True):
        assert len(batches_1) == 3
        assert all(all_same(batches_1, batches_2))
    assert all(all_same(together[0], together[2]))
    assert not any(all_same(together[0], together[1]))
    assert not any(all_same(together[1], together[3]))


@pytest.mark.slow
def test_workers_that_are_started_afresh_see_the_epoch_change_too(data_folder):
    alone = loaded(data_folder, (0, 3))
    together = loaded(
        data_folder, (0, 3), num_workers=1, persistent_workers=True, multiprocessing_context="spawn"
    )
    for batches_1, batches_2 in zip(alone, together, strict=True):
        assert all(all_same(batches_1, batches_2))


def test_batches_have_every_image_once_and_depend_on_seed_and_epoch_only():
    batches = ShuffledBatches(50, 8, seed=3)
    assert len(batches) == 7
    first = list(batches)
    assert [len(batch) for batch in first] == [8] * 6 + [2]
    assert sorted(chain(*first)) == list(range(50))
    assert list(chain(*first)) != list(range(50))
    assert list(batches) == first
    batches.set_epoch(1)
    second = list(batches)
    assert sorted(chain(*second)) == list(range(50))
    assert second != first
    again = ShuffledBatches(50, 8, seed=3)
    torch.manual_seed(1)
    again.set_epoch(1)
    assert list(again) == second
    other = ShuffledBatches(50, 8, seed=1)
    assert list(other) != first
    other.set_epoch(3)
    assert list(other) != second
    assert list(ShuffledBatches(0, 8, seed=4)) == []


def test_an_epoch_goes_on_where_it_stopped():
    batches = ShuffledBatches(21, 4, seed=0)
    whole = list(batches)
    batches.set_epoch(0, n_done=8)
    assert list(batches) == whole[2:]
    assert len(batches) == 4
    larger = ShuffledBatches(21, 8, seed=0)  # given on resuming
    larger.set_epoch(0, n_done=4)
    assert [len(batch) for batch in larger] == [8, 8, 1]
    assert list(chain(*larger)) == list(chain(*whole[1:]))


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_processes_share_each_batch_and_see_every_image_once(world_size):
    whole = list(ShuffledBatches(22, 4, seed=3))
    shares = [list(ShuffledBatches(22, 4, 3, rank, world_size)) for rank in range(world_size)]
    assert {len(share) for share in shares} == {6}
    for number, batch in enumerate(whole):
        assert sorted(chain(*(share[number] for share in shares))) == sorted(batch)
    evaluated = [ordered_batches(22, 4, rank, world_size) for rank in range(world_size)]
    assert sorted(i for share in evaluated for batch in share for i in batch) == list(range(22))
    assert [list(batch) for batch in ordered_batches(6, 4)] == [[0, 1, 2, 3], [4, 5]]


# --------------------------------------------------------------------------------------------------------------- batches


def test_a_share_of_a_batch_may_be_empty():
    images, *objects = collate_fn([])
    assert images.shape == (0, 3, 300, 300)
    assert objects == [[], [], []]


def test_collate_fn_stacks_images_and_lists_the_rest(data_folder):
    dataset = PascalVOCDataset(data_folder, "TEST")
    items = [dataset[number] for number in (0, 2, 4)]
    images, boxes, labels, difficulties = collate_fn(items)
    assert images.shape == (3, 3, 300, 300)
    assert all(torch.equal(images[i], items[i][0]) for i in range(3))
    for place, entries in enumerate((boxes, labels, difficulties), start=1):
        assert isinstance(entries, list)
        assert all(
            torch.equal(entry, item[place]) for entry, item in zip(entries, items, strict=True)
        )
    assert [len(entry) for entry in boxes] == [2, 0, 3]


def test_a_batch_of_one_picture_without_objects_is_a_batch(data_folder):
    images, boxes, labels, difficulties = collate_fn([PascalVOCDataset(data_folder, "TEST")[2]])
    assert images.shape == (1, 3, 300, 300)
    assert ([len(entries) for entries in (boxes, labels, difficulties)], boxes[0].shape) == (
        [1, 1, 1],
        (0, 4),
    )


# ------------------------------------------------------------------------------------------------------- real photographs


def test_photographs_of_blood_cells_have_their_cells_where_the_boxes_say(blood_cells, tmp_path):
    create_data_lists(str(blood_cells), "", tmp_path, labels="auto")
    dataset = PascalVOCDataset(tmp_path, "TEST")
    assert len(dataset) == 72
    assert list(dataset.label_map) == ["background", "Platelets", "RBC", "WBC"]
    for number in range(0, 72, 12):
        image, boxes, labels, _ = dataset[number]
        annotation = (
            blood_cells
            / "Annotations"
            / dataset.images[number].replace("\\", "/").split("/")[-1].replace(".jpg", ".xml")
        )
        expected = []
        for element in ElementTree.parse(annotation).getroot().iter("object"):
            x_min, y_min, x_max, y_max = (
                int(element.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")
            )
            expected.append(
                [
                    max(x_min - 1, 0) / 640,
                    max(y_min - 1, 0) / 480,
                    min(x_max, 640) / 640,
                    min(y_max, 480) / 480,
                ]
            )
        torch.testing.assert_close(boxes, torch.tensor(expected))
        # Nuclei of white cells are stained dark violet: their boxes have less green than the picture has
        for x_min, y_min, x_max, y_max in (300 * boxes[labels == 3]).round().int().tolist():
            assert image[1, y_min:y_max, x_min:x_max].mean() < image[1].mean() - 0.1


def test_photographs_of_blood_cells_can_be_augmented_and_batched(blood_cells, tmp_path):
    create_data_lists(str(blood_cells), "", tmp_path, labels="auto")
    dataset = PascalVOCDataset(tmp_path, "TRAIN")
    assert len(dataset) == 292
    images, boxes, labels, difficulties = collate_fn(
        [dataset[number] for number in range(0, 292, 40)]
    )
    assert images.shape == (8, 3, 300, 300)
    assert images.isfinite().all()
    assert sum(map(len, boxes)) > 8
    for entry, numbers, flags in zip(boxes, labels, difficulties, strict=True):
        assert len(entry) == len(numbers) == len(flags)
        assert (entry[:, :2] < entry[:, 2:]).all()
        assert ((entry >= 0) & (entry <= 1)).all()
        assert ((numbers >= 1) & (numbers <= 3)).all()
