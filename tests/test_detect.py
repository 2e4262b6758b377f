"""detect.py: detection in images, and drawing."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import detect as detect_script
from checkpoints import load_model, model_state, save_checkpoint
from detect import (
    Parameters,
    annotate,
    choose_output_paths,
    detect,
    draw_box,
    draw_sheet,
    find_objects,
    label_colour,
    load_font,
    main,
    missing_letters,
    place_labels,
    put_images_first,
    total_overlap,
)
from helpers.folders import LABEL_MAP
from helpers.runs import WIDTH
from helpers.scripts import run_script
from model import SSD300
from utils import voc_labels

pytestmark = pytest.mark.usefixtures("one_thread")


class OneCat(SSD300):
    """
    Sees, in every image, a cat in the left upper quarter, and a dog that sticks out of the right
    lower corner.
    """

    def __init__(self):
        super().__init__(3, pretrained=False, width=WIDTH, label_map=LABEL_MAP)
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


def draw_noise(width=120, height=80, mode="RGB"):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


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


@pytest.mark.parametrize("size", [(120, 90), (500, 375), (3000, 2000)])
def test_the_box_is_outlined_and_the_label_stands_in_the_draw_noise(size):
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


# ----------------------------------------------------------------------------------- labels' places


IMAGE_SIZE = (200, 100)


def test_a_label_stands_above_its_box_or_else_below_it_or_beside_it_or_else_in_it():
    size = (40, 10)
    for box, label in (
        ((50, 30, 120, 60), (50, 20, 90, 30)),  # above
        ((50, 0, 120, 60), (50, 60, 90, 70)),  # below
        ((50, 0, 120, 100), (120, 0, 160, 10)),  # on the right
        ((100, 0, 200, 100), (60, 0, 100, 10)),  # on the left
        ((0, 0, 200, 100), (0, 0, 40, 10)),  # no room outside
        ((180, 30, 200, 60), (160, 20, 200, 30)),  # above, moved into the image
    ):
        assert place_labels([box], [size], IMAGE_SIZE) == [label]


def test_a_label_avoids_other_boxes_and_the_labels_before_it():
    box, size = (50, 30, 120, 60), (40, 10)
    assert place_labels([box, (45, 5, 75, 25)], [size, size], IMAGE_SIZE)[0] == (80, 20, 120, 30)
    assert place_labels([box, (0, 0, 200, 25)], [size, size], IMAGE_SIZE)[0] == (50, 60, 90, 70)
    same_box = place_labels([box] * 6, [size] * 6, IMAGE_SIZE)
    for number, label in enumerate(same_box):
        assert total_overlap(label, [box, *same_box[:number]]) == 0


def test_a_label_in_a_larger_box_does_not_cover_its_own():
    whole_image, inner_box = (0, 0, 200, 100), (50, 30, 120, 60)
    labels = place_labels([whole_image, inner_box], [(40, 10), (40, 10)], IMAGE_SIZE)
    assert labels[1] == (50, 20, 90, 30)
    assert total_overlap(*labels[:1], labels[1:]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_many_boxes_stay_in_the_image_and_apart(seed):
    """Boxes that fill the cells of a grid for the most part, with some room for the labels."""
    rng = np.random.default_rng(seed)
    boxes = []
    for x in range(0, 600, 100):
        for y in range(0, 400, 100):
            left, top = rng.integers(0, 20, 2).tolist()
            right, bottom = rng.integers(60, 75, 2).tolist()
            boxes.append((x + left, y + top, x + right, y + bottom))
    labels = place_labels(boxes, [(50, 15)] * len(boxes), (600, 400))
    for number, label in enumerate(labels):
        assert 0 <= label[0] < label[2] == label[0] + 50 <= 600
        assert 0 <= label[1] < label[3] == label[1] + 15 <= 400
        assert total_overlap(label, boxes + labels[:number]) == 0


def test_labels_are_drawn_outside_the_boxes():
    boxes = [(30.4, 40, 130.2, 120), (180, 0, 280, 199), (10, 130, 150, 200)]
    image = Image.new("RGB", (300, 200), "gray")
    detections = [("cat", 0.9, box) for box in boxes]
    pixels = np.array(annotate(image, detections, LABEL_MAP))
    for box in boxes:
        x_min, y_min, x_max, y_max = (round(edge) for edge in box)
        assert (pixels[y_min + 2 : y_max - 2, x_min + 2 : x_max - 2] == 128).all()
    assert (pixels[32:38, 32:60] != 128).any()  # the first one's label, above it


# -------------------------------------------------------------------------------------------- fonts


UNICODE_FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


def test_letters_that_a_font_lacks_are_found():
    names = ["cat 0.9", "café", "Straße", "고양이"]
    assert missing_letters(names, load_font("", 20)) == "ßé고양이"
    assert missing_letters(names, load_font(str(UNICODE_FONT), 20)) == "고양이"
    assert missing_letters([], load_font("", 20)) == ""


def test_labels_are_written_in_the_font_that_is_given(model):
    def annotated(**options):
        detections = [("café", 0.9, (10, 40, 60, 70))]
        label_map = {"background": 0, "café": 1}
        image = annotate(Image.new("RGB", (120, 80)), detections, label_map, **options)
        return image.tobytes()

    assert annotated() == annotated(font="")
    assert annotated() != annotated(font=str(UNICODE_FONT))
    plain = detect(draw_noise(), 0.5, 0.5, 200, model=model)
    other = detect(draw_noise(), 0.5, 0.5, 200, model=model, font=str(UNICODE_FONT))
    assert plain.tobytes() != other.tobytes()


@pytest.mark.parametrize("exists", [False, True])
def test_what_is_no_font_is_refused(exists, tmp_path):
    path = tmp_path / "x.ttf"
    if exists:
        path.write_bytes(b"no font")
    with pytest.raises(
        ValueError, match=r"font: expected a TrueType or OpenType file, got .*x\.ttf"
    ):
        load_font(str(path), 20)


def test_one_line_names_the_letters_that_cannot_be_drawn_and_the_remedy(
    image_file, tmp_path, capsys
):
    label_map = {"background": 0, "고양이": 1, "개": 2}
    checkpoint = tmp_path / "korean.pth.tar"
    network = SSD300(3, pretrained=False, width=WIDTH, label_map=label_map)
    save_checkpoint(checkpoint, model_state(network, label_map))
    parameters = Parameters((image_file,), str(checkpoint), output_folder=str(tmp_path))
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
    path = tmp_path / "small.pth.tar"
    torch.manual_seed(0)
    network = SSD300(3, pretrained=False, width=WIDTH, label_map=LABEL_MAP)
    save_checkpoint(path, model_state(network, LABEL_MAP))
    return str(path)


def test_output_names_never_collide():
    paths = ["a_3.jpg", "x/a.jpg", "y/a.jpg", "z/a.png", "a_2.jpg", "y/A.jpg"]
    output_paths = choose_output_paths(paths, Path("out"))
    assert list(output_paths) == paths
    assert [path.name for path in output_paths.values()] == [
        "a_3_detections.png",
        "a_detections.png",
        "a_2_detections.png",
        "a_4_detections.png",
        "a_2_2_detections.png",
        "A_5_detections.png",
    ]


def test_an_output_never_replaces_an_image_that_is_still_to_be_read(tmp_path):
    paths = [str(tmp_path / "a.png"), str(tmp_path / "a_detections.png")]
    output_paths = choose_output_paths(paths, tmp_path)
    assert [path.name for path in output_paths.values()] == [
        "a_2_detections.png",
        "a_detections_detections.png",
    ]


def test_an_unreadable_image_does_not_stop_the_others(small_checkpoint, image_file, tmp_path):
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no image")
    other = tmp_path / "other.png"
    draw_noise(90, 60).save(other)
    out = tmp_path / "out"
    paths = (str(damaged), image_file, str(tmp_path / "none.jpg"), str(tmp_path), str(other))
    with pytest.raises(ValueError, match=r"^3 of 5 images could not be read:\n") as raised:
        main(Parameters(paths, small_checkpoint, output_folder=str(out)))
    lines = str(raised.value).splitlines()[1:]
    for line, path in zip(lines, (damaged, tmp_path / "none.jpg", tmp_path), strict=True):
        assert line.startswith(f"{path}: not readable as an image")
    assert sorted(path.name for path in out.iterdir()) == [
        "noise_detections.png",
        "other_detections.png",
    ]


def test_the_exit_status_says_whether_all_went_well(small_checkpoint, image_file, tmp_path):
    options = ("--checkpoint", small_checkpoint, "--output-folder", tmp_path / "out")
    assert run_script("detect.py", image_file, *options) == 0
    message = run_script("detect.py", image_file, tmp_path / "none.jpg", *options)
    assert message.startswith("error: 1 of 2 images could not be read:")  # and so status 1


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
    checkpoint = tmp_path / "odd.pth.tar"
    network = SSD300(2, pretrained=False, width=WIDTH, label_map=label_map)
    save_checkpoint(checkpoint, model_state(network, label_map))
    main(Parameters((image_file,), str(checkpoint), min_score=0.0, output_folder=str(tmp_path)))
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


def test_the_best_detection_is_drawn_on_top():
    image = Image.new("RGB", (300, 300))
    label_map = {"background": 0, "cat": 1, "dog": 2}
    best = ("cat", 0.9, (50.0, 50.0, 150.0, 150.0))
    other = ("dog", 0.5, (100.0, 100.0, 200.0, 200.0))
    annotated_image = annotate(image, [best, other], label_map)
    assert annotated_image.getpixel((149, 100)) == label_colour(1, 3)  # where the outlines cross
    assert annotated_image.getpixel((199, 150)) == label_colour(2, 3)


def test_a_label_covers_two_other_boxes_rather_than_its_own():
    own = (
        0,
        0,
        60,
        20,
    )  # in a corner: a label above it would be moved onto it
    others = [(0, 20, 200, 200), (60, 0, 200, 20)] * 2
    boxes = [own, *others]
    labels = place_labels(boxes, [(60, 10)] * len(boxes), (200, 200))
    assert total_overlap(labels[0], [own]) == 0
    assert total_overlap(labels[0], others) == 2 * 600


def test_the_outline_of_a_box_lies_in_it():
    image = Image.new("RGB", (300, 300))
    draw_box(ImageDraw.Draw(image), (50, 60, 100, 120), (255, 0, 0), 2)
    assert image.getbbox() == (50, 60, 100, 120)
