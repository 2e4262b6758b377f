"""detect.py: folders, patterns, animated pictures, films and JSON; several images at a time."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import detect as detect_script
from datasets import read_image
from detect import Parameters, find_objects, main, make_batches
from helpers.detectors import OneCat, draw_noise, save_small_checkpoint
from helpers.folders import LABEL_MAP
from helpers.memory import has_memory_meter, read_and_measure
from helpers.runs import WIDTH
from helpers.scripts import run_script
from image_paths import find_files
from model import SSD300

pytestmark = pytest.mark.usefixtures("one_thread")


class WatchedCat(OneCat):
    """OneCat that remembers how many images came at a time, and how convolutions would compute."""

    def __init__(self):
        super().__init__()
        self.batch_sizes = []
        self.dtypes = set()

    def forward(self, image):
        self.batch_sizes.append(len(image))
        is_autocast = torch.is_autocast_enabled("cpu")
        self.dtypes.add(torch.get_autocast_dtype("cpu") if is_autocast else torch.float32)
        return super().forward(image)


@pytest.fixture
def model(monkeypatch):
    """The model that main loads, whatever the checkpoint."""
    network = WatchedCat()
    monkeypatch.setattr(detect_script, "load_model", lambda path, device: network)
    return network


def settings(*images, **changes):
    fixed = {"output_folder": "out", "device": "cpu", "precision": "float32"}
    return Parameters(images, **{**fixed, **changes})


def read_strictly(path):
    """JSON without NaN and Infinity, which only Python knows."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(Path(path).read_text(), parse_constant=refuse)


def save_animation(path, n_frames=3, duration=70):
    first, *others = [draw_noise(64, 48, seed=number) for number in range(n_frames)]
    first.save(path, save_all=True, append_images=others, duration=duration, loop=2)


# ---------------------------------------------------------------------------------- names of files


def test_outputs_in_a_folder_are_no_images_of_it(photo_folder, model):
    for _ in range(2):
        main(settings("photos", output_folder="photos/found"))
    assert sorted(path.name for path in Path("photos/found").iterdir()) == [
        "a_detections.png",
        "b_detections.png",
    ]
    assert len(find_files(["photos/found"], Path("photos/found"))) == 2  # if it is asked for


def test_a_pattern_after_suppress_is_no_class(photo_folder, monkeypatch):
    ordered = detect_script.put_images_first(["--suppress", "dog", "photos/*.jpg"])
    assert ordered == ["photos/*.jpg", "--suppress", "dog"]


def test_a_folder_without_images_is_refused_before_the_model_is_loaded(photo_folder, monkeypatch):
    monkeypatch.setattr(detect_script, "load_model", None)
    Path("empty").mkdir()
    Path("empty/notes.txt").touch()
    with pytest.raises(ValueError, match="empty: no images or films there"):
        main(settings("empty"))
    with pytest.raises(FileNotFoundError, match=r"\*\.bmp: no such image"):
        main(settings("*.bmp"))
    assert not Path("out").exists()


def test_a_file_that_is_named_twice_counts_once(photo_folder, model):
    assert main(settings("photos/a.jpg", "photos", "photos/*")) == [
        Path("out/a_detections.png"),
        Path("out/b_detections.png"),
    ]


# ------------------------------------------------------------------------- several images at a time


def test_a_list_gives_for_each_image_what_it_gives_alone():
    torch.manual_seed(0)
    network = SSD300(3, pretrained=False, width=WIDTH, label_map=LABEL_MAP)
    modes = ("RGB", "L", "RGBA", "P", "RGB")
    images = [draw_noise(50 + 30 * i, 120, mode, seed=i) for i, mode in enumerate(modes)]
    together = find_objects(images, 0.5, 0.5, 5, model=network, batch_size=2)
    assert len(together) == 5
    for image, found in zip(images, together, strict=True):
        alone = find_objects(image, 0.5, 0.5, 5, model=network)
        assert [detection.name for detection in found] == [name for name, _, _ in alone]
        for detection, (_, score, box) in zip(found, alone, strict=True):
            assert detection.score == pytest.approx(score, abs=1e-4)
            assert detection.box == pytest.approx(box, abs=0.05)
    assert together[0] != together[1]


def test_images_go_through_the_network_together(model):
    images = [draw_noise(seed=i) for i in range(5)]
    found = find_objects(images, model=model, batch_size=2)
    assert model.batch_sizes == [2, 2, 1]
    assert [[detection.name for detection in each] for each in found] == [["cat", "dog"]] * 5
    assert find_objects([], model=model) == []


def test_what_is_no_image_is_refused(model):
    for wrong in ("photo.jpg", [draw_noise(), np.zeros((3, 3))], ["photo.jpg"]):
        with pytest.raises(ValueError, match="images: expected PIL images"):
            find_objects(wrong, model=model)
    with pytest.raises(ValueError, match="batch_size: expected a number of at least 1"):
        find_objects([draw_noise()], model=model, batch_size=0)


def test_the_precision_reaches_the_network(photo_folder, model):
    find_objects(draw_noise(), model=model)
    assert model.dtypes == {torch.float32}
    find_objects(draw_noise(), model=model, precision="bfloat16")
    assert model.dtypes == {torch.float32, torch.bfloat16}
    model.dtypes.clear()
    main(settings("photos", precision="bfloat16", json="found.json"))
    assert model.dtypes == {torch.bfloat16}
    assert read_strictly("found.json")["precision"] == "bfloat16"
    with pytest.raises(ValueError, match="precision: expected"):
        main(settings("photos", precision="float8"))


def test_pictures_come_in_batches_although_some_cannot_be_read(photo_folder, model):
    for number in range(5):
        draw_noise(seed=number).save(f"photos/x{number}.png")
    for name in ("0.jpg", "x0.jpg", "x3.jpg"):
        Path("photos", name).write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"^3 of 10 files failed"):
        main(settings("photos", batch_size=3))
    assert model.batch_sizes == [3, 3, 1]


def test_a_batch_of_large_images_is_not_filled_up(monkeypatch):
    monkeypatch.setattr(detect_script, "MAX_BATCH_PIXELS", 100)
    sides = (5, 9, 11, 2, 2, 2)
    images = ((side, Image.new("L", (side, side))) for side in sides)
    batches = [[name for name, _ in batch] for batch in make_batches(images, 2)]
    assert batches == [[5, 9], [11], [2, 2], [2]]


@has_memory_meter
def test_the_memory_does_not_grow_with_the_number_of_images(tmp_path):
    checkpoint = save_small_checkpoint(tmp_path / "small.pth.tar")
    for n_images in (10, 150):
        folder = tmp_path / str(n_images)
        folder.mkdir()
        for number in range(n_images):  # a megabyte each, once they are decoded
            Image.new("RGB", (700, 500)).save(folder / f"{number}.jpg")
    arguments = f", {checkpoint!r}, {str(tmp_path / 'out')!r}"
    folders = [tmp_path / "10", tmp_path / "150"]
    (_, first), (_, second) = read_and_measure(
        "tests.helpers.folder_detection", "detect_in_folder", folders, arguments
    )
    assert len(list((tmp_path / "out").iterdir())) == 150
    assert second - first < 40e6  # all images together take 157 MB


# -------------------------------------------------------------------------------------------- JSON


def test_json_has_what_find_objects_finds(photo_folder, model):
    main(settings("./photos/a.jpg", "photos/b.png", json="new/found.json", suppress=("dog",)))
    content = read_strictly("new/found.json")
    assert content["classes"] == ["cat", "dog"]
    assert (content["min_score"], content["max_overlap"], content["top_k"]) == (0.2, 0.5, 200)
    assert (content["suppress"], content["unreadable"]) == (["dog"], [])
    assert [entry["path"] for entry in content["images"]] == ["./photos/a.jpg", "photos/b.png"]
    for entry in content["images"]:
        image = read_image(entry["path"])
        assert (entry["width"], entry["height"]) == image.size
        assert entry["milliseconds"] > 0
        assert Path(entry["output"]).is_file()
        found = find_objects(image, suppress=["dog"], model=model)
        assert entry["boxes"] == [list(detection.box) for detection in found]
        assert entry["labels"] == [detection.name for detection in found] == ["cat"]
        assert entry["scores"] == [detection.score for detection in found]


def test_json_is_written_although_files_were_unreadable_and_names_them(photo_folder, model):
    Path("photos/0.jpg").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"^2 of 4 files failed"):
        main(settings("none.jpg", "photos", json="found.json"))
    content = read_strictly("found.json")
    assert [entry["path"] for entry in content["images"]] == ["photos/a.jpg", "photos/b.png"]
    assert [entry["path"] for entry in content["unreadable"]] == ["none.jpg", "photos/0.jpg"]
    assert "No such file" in content["unreadable"][0]["error"]


def test_json_is_free_of_nan(photo_folder, model, monkeypatch):
    forward = model.forward

    def spoilt_forward(image):
        locs, scores = forward(image)
        locs[:, 0] = float("nan")
        scores[:, 2] = float("nan")
        return locs, scores

    monkeypatch.setattr(model, "forward", spoilt_forward)
    main(settings("photos/a.jpg", json="found.json"))
    (entry,) = read_strictly("found.json")["images"]
    assert len(entry["boxes"]) == 2


@pytest.mark.parametrize("name", ["photos/a.jpg", "found", "folder.json"])
def test_json_replaces_no_image_and_no_folder(name, photo_folder, monkeypatch):
    monkeypatch.setattr(detect_script, "load_model", None)
    Path("folder.json").mkdir()
    expected = r"json: expected a name that ends in \.json, got|folder\.json: is a folder"
    with pytest.raises((OSError, ValueError), match=expected):
        main(settings("photos/b.png", json=name))
    assert read_image("photos/a.jpg").size == (120, 80)


# --------------------------------------------------------------------- animated pictures and films


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_an_animated_picture_gives_an_annotated_one(ending, photo_folder, model, capsys):
    save_animation(f"moves.{ending}")
    written = main(settings(f"moves.{ending}", "photos/b.png", json="x.json", batch_size=2))
    assert written == [Path(f"out/moves_detections.{ending}"), Path("out/b_detections.png")]
    assert model.batch_sizes == [1, 2, 1]  # the photograph, then the frames
    assert f"moves.{ending}: 3 frames, 6 objects, " in capsys.readouterr().out
    assert sorted(Path("out").iterdir()) == sorted(written)

    with Image.open(written[0]) as image:
        assert (image.size, image.n_frames, image.info["loop"]) == ((64, 48), 3, 2)
        for number in range(3):
            image.seek(number)
            image.load()
            assert image.info["duration"] == 70
            red, green, blue = np.asarray(image.convert("RGB"), dtype=int)[:24, 31].mean(axis=0)
            assert (
                red > max(green, blue) + 50
            )  # the right edge of the cat's box, whose colour is red

    entry, photograph = read_strictly("x.json")["images"]
    assert photograph["path"] == "photos/b.png"
    assert (entry["width"], entry["height"]) == (64, 48)
    assert entry["durations_ms"] == [70] * 3
    assert [frame["labels"] for frame in entry["frames"]] == [["cat", "dog"]] * 3
    assert entry["frames"][0]["boxes"][0] == [0, 0, 32, 24]


def test_a_gif_file_with_one_frame_is_a_picture(photo_folder, model):
    draw_noise().save("still.gif", save_all=True)
    assert main(settings("still.gif", json="x.json")) == [Path("out/still_detections.png")]
    (entry,) = read_strictly("x.json")["images"]
    assert entry["labels"] == ["cat", "dog"]


def test_a_damaged_animation_is_passed_over_and_leaves_nothing(photo_folder, model):
    save_animation("moves.gif", n_frames=4)
    content = Path("moves.gif").read_bytes()
    Path("moves.gif").write_bytes(content[: len(content) * 7 // 8])
    with pytest.raises(ValueError, match=r"^1 of 3 files failed:\nmoves\.gif: not "):
        main(settings("moves.gif", "photos", json="x.json"))
    assert len(list(Path("out").iterdir())) == 2
    assert [entry["path"] for entry in read_strictly("x.json")["unreadable"]] == ["moves.gif"]


def test_a_film_gives_an_annotated_one(photo_folder, model, capsys):
    opencv = pytest.importorskip("cv2", reason="films need OpenCV: opencv-python-headless")
    code = opencv.VideoWriter_fourcc(*"MJPG")
    writer = opencv.VideoWriter("photos/film.avi", opencv.CAP_FFMPEG, code, 12.5, (160, 120))
    for _ in range(5):
        writer.write(np.full((120, 160, 3), 128, dtype=np.uint8))
    writer.release()

    *_, written = main(settings("photos", json="x.json", batch_size=2))
    assert written == Path("out/film_detections.mp4")
    assert "film.avi: 5 frames, 10 objects, " in capsys.readouterr().out
    film = opencv.VideoCapture(str(written))
    assert film.get(opencv.CAP_PROP_FPS) == pytest.approx(12.5)
    for _ in range(5):
        was_read, pixels = film.read()
        assert was_read
        assert pixels.shape == (120, 160, 3)
        blue, green, red = pixels[10:50, 79].astype(int).mean(axis=0)
        assert red > max(blue, green) + 50  # the right edge of the cat's box, whose colour is red
    assert not film.read()[0]
    entry = read_strictly("x.json")["images"][2]
    assert entry["frames_per_second"] == pytest.approx(12.5)
    assert [frame["labels"] for frame in entry["frames"]] == [["cat", "dog"]] * 5


def test_without_opencv_films_are_passed_over_and_the_package_is_named(
    photo_folder, model, monkeypatch
):
    monkeypatch.setitem(sys.modules, "cv2", None)
    Path("photos/film.mp4").touch()
    with pytest.raises(ValueError, match="pip install opencv-python-headless"):
        main(settings("photos"))
    assert len(list(Path("out").iterdir())) == 2


def test_the_script_takes_all_of_it(photo_folder):
    save_animation("photos/moves.webp")
    checkpoint = save_small_checkpoint(photo_folder / "small.pth.tar")
    options = ("--checkpoint", checkpoint, "--min-score", "0.9", "--json", "found.json")
    assert run_script("detect.py", "photos", *options, "--batch-size", 2) == 0
    assert len(read_strictly("found.json")["images"]) == 3
    assert len(list(Path("detections").iterdir())) == 3
