"""Detection in pictures, and drawing."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

import detect as detect_script
from checkpoints import load_model
from detect import Parameters, annotate, detect, find_objects, label_colour, main
from model import SSD300
from utils import voc_labels

LABEL_MAP = {"background": 0, "cat": 1, "dog": 2}


class OneCat(SSD300):
    """Sees, in every picture, a cat in the left upper quarter, and a dog that sticks out of the right lower corner."""

    def __init__(self):
        super().__init__(3, pretrained=False)
        self.label_map = LABEL_MAP
        self.eval()

    def forward(self, image):
        self.seen = image
        locs = torch.zeros(len(image), 8732, 4)
        scores = torch.tensor([9.0, 0, 0]).repeat(len(image), 8732, 1)
        self.priors_cxcy[0] = torch.tensor([0.25, 0.25, 0.5, 0.5])
        scores[:, 0] = torch.tensor([0, 9.0, 0])
        self.priors_cxcy[1] = torch.tensor([1.0, 1.0, 0.5, 0.5])
        scores[:, 1] = torch.tensor([0, 0, 8.0])
        return locs, scores


@pytest.fixture(scope="module")
def model():
    return OneCat()


@pytest.fixture(autouse=True)
def _forget_the_default_model():
    detect_script.default_model.cache_clear()


def picture(width=120, height=80, mode="RGB"):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def test_boxes_come_in_pixels_of_the_picture_and_within_it(model):
    found = find_objects(picture(), 0.5, 0.5, 200, model=model)
    assert [(name, box) for name, _, box in found] == [
        ("cat", (0, 0, 60, 40)),
        ("dog", (90, 60, 120, 80)),
    ]
    assert found[0][1] == pytest.approx(np.exp(9) / (np.exp(9) + 2), abs=1e-5)


def test_the_settings_decide_what_is_found(model):
    assert find_objects(picture(), 0.9999, 0.5, 200, model=model) == []
    assert [name for name, *_ in find_objects(picture(), 0.5, 0.5, 1, model=model)] == ["cat"]
    assert [name for name, *_ in find_objects(picture(), 0.5, 0.5, 200, ["cat"], model)] == ["dog"]


def test_an_unknown_name_to_suppress_is_refused(model):
    with pytest.raises(ValueError, match=r"\['cow'\].*'cat', 'dog'"):
        find_objects(picture(), 0.5, 0.5, 200, ["cow"], model)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_a_picture_of_any_mode_is_copied_and_never_drawn_on(model, mode):
    original = picture(mode=mode)
    before = original.tobytes()
    annotated = detect(original, 0.5, 0.5, 200, model=model)
    assert original.tobytes() == before
    assert original.mode == mode
    assert (annotated.mode, annotated.size) == ("RGB", original.size)
    assert annotated.tobytes() != original.convert("RGB").tobytes()
    assert model.seen.shape == (1, 3, 300, 300)


def test_nothing_found_gives_an_unchanged_copy(model):
    original = picture()
    annotated = detect(original, 0.9999, 0.5, 200, model=model)
    assert annotated is not original
    assert annotated.tobytes() == original.tobytes()


def test_a_picture_taken_sideways_is_turned(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(120, 80).save(tmp_path / "sideways.jpg", exif=exif)
    with Image.open(tmp_path / "sideways.jpg") as original:
        assert detect(original, 0.5, 0.5, 200, model=model).size == (80, 120)


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 5), (4000, 3000)])
def test_any_size_can_be_drawn_on(model, size):
    assert detect(Image.new("RGB", size), 0.5, 0.5, 200, model=model).size == size


@pytest.mark.parametrize("size", [(120, 90), (500, 375), (3000, 2000)])
def test_the_box_is_outlined_and_the_label_stands_in_the_picture(size):
    width, height = size
    box = (width * 0.3, height * 0.4, width * 0.8, height * 0.9)
    for place in (box, (0, 0, width / 2, height / 2), (width * 0.9, height * 0.9, width, height)):
        pixels = np.array(
            annotate(Image.new("RGB", size, "gray"), [("cat", 0.876, place)], LABEL_MAP)
        )
        colour = np.array(label_colour(1, 3))
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        assert columns.min() == pytest.approx(
            place[0], abs=1 + width / 4
        )  # the label may begin further left
        assert columns.max() >= place[2] - 2
        assert rows.max() >= place[3] - 2
        is_text = (pixels != colour).any(axis=2) & (pixels != 128).any(
            axis=2
        )  # neither box nor background
        text_rows, text_columns = np.nonzero(is_text)
        assert np.ptp(text_rows) + 1 >= min(6, height / 40)  # legible
        assert np.ptp(text_columns) > np.ptp(text_rows)


def test_every_class_has_a_colour_of_its_own():
    colours = [label_colour(number, 21) for number in range(1, 21)]
    assert len(set(colours)) == len(voc_labels)
    distances = [
        np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colours) for b in colours[:i]
    ]
    assert min(distances) > 30


def test_the_model_is_loaded_once_and_on_first_use(toy_checkpoint, monkeypatch):
    loads = []

    def load(path, device):
        loads.append(path)
        return load_model(toy_checkpoint, device)

    monkeypatch.setattr(detect_script, "load_model", load)
    for _ in range(2):
        detect(picture(), 0.99, 0.5, 200)
    assert loads == [Parameters().checkpoint]


def test_without_a_checkpoint_the_error_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"checkpoint_ssd300\.pth\.tar.*python train\.py"):
        detect(picture(), 0.2, 0.5, 200)


def test_main_writes_a_picture_for_each_and_keeps_namesakes_apart(toy_checkpoint, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        picture().save(tmp_path / folder / "cell.jpg")
    images = (str(tmp_path / "a" / "cell.jpg"), str(tmp_path / "b" / "cell.jpg"))
    written = main(
        Parameters(images, str(toy_checkpoint), output_folder=str(tmp_path / "out"), device="cpu")
    )
    assert len(set(written)) == 2
    for path in written:
        with Image.open(path) as image:
            assert image.size == (120, 80)
    assert all(path in capsys.readouterr().out for path in images[:1])


def test_main_names_a_missing_or_damaged_picture_before_it_begins(toy_checkpoint, tmp_path):
    missing = tmp_path / "none.jpg"
    with pytest.raises(FileNotFoundError, match=re.escape(str(missing))):
        main(Parameters((str(missing),), str(toy_checkpoint), output_folder=str(tmp_path / "out")))
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=re.escape(str(damaged))):
        main(
            Parameters(
                (str(damaged),),
                str(toy_checkpoint),
                output_folder=str(tmp_path / "out"),
                device="cpu",
            )
        )
