"""detect.py: detection in images, and the script."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

import detect as detect_script
from checkpoints import load_model
from detect import (
    Parameters,
    detect,
    draw_sheet,
    find_objects,
    main,
    put_images_first,
)
from helpers.detectors import OneCat, draw_noise, save_small_checkpoint
from helpers.runs import WIDTH
from helpers.scripts import run_script
from model import SSD300

UNICODE_FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return OneCat()


@pytest.fixture(autouse=True)
def _forget_the_default_model():
    detect_script.default_model.cache_clear()


def test_boxes_come_in_pixels_of_the_image_and_within_it(model):
    found = find_objects(draw_noise(), 0.5, 0.5, 200, model=model)
    assert [(name, box) for name, _, box in found] == [
        ("cat", (0, 0, 60, 40)),
        ("dog", (90, 60, 120, 80)),
    ]
    assert found[0][1] == pytest.approx(np.exp(9) / (np.exp(9) + 2), abs=1e-5)


def test_boxes_that_are_no_numbers_do_not_stop_the_drawing(monkeypatch):
    network = OneCat()
    forward = network.forward

    def spoilt_forward(image):
        locs, scores = forward(image)
        locs[:, 0] = float("nan")
        return locs, scores

    monkeypatch.setattr(network, "forward", spoilt_forward)
    assert detect(draw_noise(), 0.5, 0.5, 200, model=network).size == (120, 80)


def test_the_settings_decide_what_is_found(model):
    assert find_objects(draw_noise(), 0.9999, 0.5, 200, model=model) == []
    assert [name for name, *_ in find_objects(draw_noise(), 0.5, 0.5, 1, model=model)] == ["cat"]
    assert [name for name, *_ in find_objects(draw_noise(), 0.5, 0.5, 200, ["cat"], model)] == [
        "dog"
    ]


def test_an_unknown_name_to_suppress_is_refused(model):
    with pytest.raises(ValueError, match=r"suppress: .*'cat', 'dog'.* got \['cow'\]"):
        find_objects(draw_noise(), 0.5, 0.5, 200, ["cow"], model)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_an_image_of_any_mode_is_copied_and_never_drawn_on(model, mode):
    original = draw_noise(mode=mode)
    before = original.tobytes()
    annotated = detect(original, 0.5, 0.5, 200, model=model)
    assert original.tobytes() == before
    assert original.mode == mode
    assert (annotated.mode, annotated.size) == ("RGB", original.size)
    assert annotated.tobytes() != original.convert("RGB").tobytes()
    assert model.seen.shape == (1, 3, 300, 300)


def test_nothing_found_gives_an_unchanged_copy(model):
    original = draw_noise()
    annotated = detect(original, 0.9999, 0.5, 200, model=model)
    assert annotated is not original
    assert annotated.tobytes() == original.tobytes()


def test_an_image_taken_sideways_is_turned(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw_noise(120, 80).save(tmp_path / "sideways.jpg", exif=exif)
    with Image.open(tmp_path / "sideways.jpg") as original:
        assert detect(original, 0.5, 0.5, 200, model=model).size == (80, 120)


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 5), (4000, 3000)])
def test_any_size_can_be_drawn_on(model, size):
    assert detect(Image.new("RGB", size), 0.5, 0.5, 200, model=model).size == size


def test_the_model_is_loaded_once_and_on_first_use(toy_checkpoint, monkeypatch):
    loads = []

    def load(path, device):
        loads.append(path)
        return load_model(toy_checkpoint, device)

    monkeypatch.setattr(detect_script, "load_model", load)
    for _ in range(2):
        detect(draw_noise(), 0.99, 0.5, 200)
    assert loads == [Parameters().checkpoint]


def test_without_a_checkpoint_the_error_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"checkpoint_ssd300\.pth\.tar.*python train\.py"):
        detect(draw_noise(), 0.2, 0.5, 200)
    draw_noise().save("image.png")
    with pytest.raises(FileNotFoundError, match=r"give coco in its place.*COCO's 80 classes"):
        main(Parameters(images=("image.png",)))


def test_main_writes_an_image_for_each_and_keeps_namesakes_apart(toy_checkpoint, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        draw_noise().save(tmp_path / folder / "cell.jpg")
    images = (str(tmp_path / "a" / "cell.jpg"), str(tmp_path / "b" / "cell.jpg"))
    written = main(
        Parameters(images, str(toy_checkpoint), output_folder=str(tmp_path / "out"), device="cpu")
    )
    assert len(set(written)) == 2
    for path in written:
        with Image.open(path) as image:
            assert image.size == (120, 80)
    assert all(path in capsys.readouterr().out for path in images[:1])


def test_main_names_a_missing_or_damaged_image(toy_checkpoint, tmp_path):
    missing = tmp_path / "none.jpg"
    with pytest.raises(FileNotFoundError, match=re.escape(str(missing))):
        main(Parameters((str(missing),), str(toy_checkpoint), output_folder=str(tmp_path / "out")))
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no image")
    parameters = Parameters(
        (str(damaged),), str(toy_checkpoint), output_folder=str(tmp_path / "out"), device="cpu"
    )
    with pytest.raises(ValueError, match=re.escape(str(damaged))):
        main(parameters)


def test_a_new_model_detects_without_further_ado():
    """Its classes have numbers for names, and training mode makes no difference."""
    torch.manual_seed(0)
    network = SSD300(21, pretrained=False, width=WIDTH)
    assert network.training
    annotated = detect(draw_noise(), 0.2, 0.5, 200, model=network)
    assert annotated.size == (120, 80)
    found = find_objects(draw_noise(), 0.01, 0.5, 200, model=network)
    assert found
    assert {name for name, _, _ in found} <= {str(number) for number in range(1, 21)}
    assert find_objects(draw_noise(), 0.01, 0.5, 200, model=network.eval()) == found


def test_the_font_that_is_given_reaches_the_labels(model):
    plain = detect(draw_noise(), 0.5, 0.5, 200, model=model)
    other = detect(draw_noise(), 0.5, 0.5, 200, model=model, font=str(UNICODE_FONT))
    assert plain.tobytes() != other.tobytes()


def test_one_line_names_the_letters_that_cannot_be_drawn_and_the_remedy(
    image_file, tmp_path, capsys
):
    label_map = {"background": 0, "고양이": 1, "개": 2}
    checkpoint = save_small_checkpoint(tmp_path / "korean.pth.tar", label_map)
    parameters = Parameters((image_file,), checkpoint, output_folder=str(tmp_path))
    main(parameters)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "--font" in line]
    assert "개고양이" in line


# --------------------------------------------------------------------------------------- the script


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "noise.png"
    draw_noise().save(path)
    return str(path)


@pytest.fixture
def small_checkpoint(tmp_path):
    """A checkpoint of a small model that knows cats and dogs."""
    return save_small_checkpoint(tmp_path / "small.pth.tar")


def test_an_unreadable_image_does_not_stop_the_others(small_checkpoint, image_file, tmp_path):
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no image")
    other = tmp_path / "other.png"
    draw_noise(90, 60).save(other)
    out = tmp_path / "out"
    paths = (str(damaged), image_file, str(tmp_path / "none.jpg"), str(other))
    with pytest.raises(ValueError, match=r"^2 of 4 files failed:\n") as raised:
        main(Parameters(paths, small_checkpoint, output_folder=str(out)))
    lines = str(raised.value).splitlines()[1:]
    for line, path in zip(lines, (damaged, tmp_path / "none.jpg"), strict=True):
        assert line.startswith(f"{path}: not readable as an image")
    assert sorted(path.name for path in out.iterdir()) == [
        "noise_detections.png",
        "other_detections.png",
    ]


def test_the_exit_status_says_whether_all_went_well(small_checkpoint, image_file, tmp_path):
    options = ("--checkpoint", small_checkpoint, "--output-folder", tmp_path / "out")
    assert run_script("detect.py", image_file, *options) == 0
    message = run_script("detect.py", image_file, tmp_path / "none.jpg", *options)
    assert message.startswith("error: 1 of 2 files failed:")  # and so status 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": -1}, "top_k: expected a number of at least 1, got -1"),
        ({"top_k": 0}, "top_k: expected a number of at least 1, got 0"),
        (
            {"min_score": float("nan")},
            "min_score: expected a number of at least 0 and of at most 1, got nan",
        ),
        ({"min_score": -0.1}, "min_score: expected"),
        (
            {"max_overlap": 2.0},
            "max_overlap: expected a number of at least 0 and of at most 1, got 2.0",
        ),
        ({"max_overlap": float("nan")}, "max_overlap: expected"),
        ({"font": "none.ttf"}, "font: expected a TrueType or OpenType file, got none.ttf"),
        ({"output_folder": __file__}, "output_folder: expected a folder, got the file"),
        ({"device": "abacus"}, "--device abacus"),
        ({"images": ()}, "images: expected at least one"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused_before_the_model_is_loaded(
    changes, message, image_file, monkeypatch, tmp_path
):
    monkeypatch.setattr(detect_script, "load_model", None)
    given = {"images": (image_file,), "output_folder": str(tmp_path / "out")} | changes
    with pytest.raises(ValueError, match=re.escape(message)):
        main(Parameters(**given))
    assert not (tmp_path / "out").exists()


def test_numbers_out_of_range_are_refused_by_the_functions_too(model):
    with pytest.raises(ValueError, match="top_k: expected a number of at least 1"):
        find_objects(draw_noise(), 0.2, 0.5, 0, model=model)
    with pytest.raises(ValueError, match="min_score: expected a number"):
        detect(draw_noise(), float("nan"), 0.5, 200, model=model)


def test_an_unknown_class_to_suppress_stops_main_before_the_first_image(
    small_checkpoint, image_file, tmp_path
):
    parameters = Parameters(
        (image_file,), small_checkpoint, suppress=("cow",), output_folder=str(tmp_path / "out")
    )
    with pytest.raises(ValueError, match=r"suppress: .*\['cow'\]"):
        main(parameters)
    assert not (tmp_path / "out").exists()


def test_images_may_stand_after_suppress(small_checkpoint, image_file, tmp_path, capsys):
    options = ("--checkpoint", small_checkpoint, "--output-folder", tmp_path / "out")
    assert (
        run_script("detect.py", *options, "--min-score", "0", "--suppress", "dog", image_file) == 0
    )
    printed = capsys.readouterr().out
    assert re.search(r"cat [01]\.\d\d at", printed)
    assert "dog " not in printed


def test_files_among_the_classes_to_suppress_are_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.jpg", "cat"):
        Path(name).touch()

    def in_order(line):
        return " ".join(put_images_first(line.split()))

    assert in_order("a.jpg --top-k 3") == "a.jpg --top-k 3"
    assert in_order("--suppress dog a.jpg b.jpg") == "a.jpg b.jpg --suppress dog"
    assert in_order("a.jpg --suppress dog b.jpg") == "a.jpg b.jpg --suppress dog"
    assert in_order("a.jpg --suppress dog cat") == "a.jpg --suppress dog cat"
    moved = "--top-k 3 a.jpg --suppress dog cat --device cpu"
    assert in_order("--top-k 3 --suppress dog cat a.jpg --device cpu") == moved
    moved = "a.jpg b.jpg --top-k 3 --suppress dog"
    assert in_order("a.jpg --top-k 3 --suppress dog b.jpg") == moved
    assert in_order("--suppress dog none.jpg") == "--suppress dog none.jpg"


def test_class_names_cannot_control_the_terminal(image_file, tmp_path, capsys):
    label_map = {"background": 0, "\x1b[31mred\n": 1}
    checkpoint = save_small_checkpoint(tmp_path / "odd.pth.tar", label_map)
    main(Parameters((image_file,), checkpoint, min_score=0.0, output_folder=str(tmp_path)))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert re.search(r"\\x1b\[31mred\\n [01]\.\d\d at", printed)


def test_ctrl_c_ends_the_script_without_a_traceback(image_file, monkeypatch):
    def interrupt(path, device):
        raise KeyboardInterrupt

    monkeypatch.setattr("checkpoints.load_model", interrupt)
    assert run_script("detect.py", image_file) == 130


def test_a_sheet_shows_the_first_images(model, tmp_path):
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        draw_noise(60, 40 + 10 * number).save(paths[-1])
    draw_sheet(paths, model, tmp_path / "sheet.png", n_columns=2, n_rows=2, side=50)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (100, 100)
        pixels = np.array(sheet)
    for row in (0, 50):
        for column in (0, 50):
            assert (pixels[row : row + 50, column : column + 50] != 255).any()
