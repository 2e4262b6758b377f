"""films.py: animated pictures and films, read and written."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

import films
from films import Animation, Film, is_animated, is_film, open_film_or_animation
from helpers.gifs import CLEAR, KEEP, RESTORE, TRANSPARENT, gif_bytes, shown_frames

DURATIONS = [50, 120, 1000]  # milliseconds
COLOURS = ["#ff0000", "#00a000", "#0000ff"]
NAMES = ("x.gif", "x.png", "x.webp")


def draw_frames(size=(48, 32)):
    """Three frames in which a square moves, in few colours."""
    frames = []
    for number, colour in enumerate(COLOURS):
        frame = Image.new("RGB", size, "#808080")
        frame.paste(colour, (8 * number, 8, 8 * number + 16, 24))
        frames.append(frame)
    return frames


def save_animation(path, frames=None, durations=DURATIONS, **options):
    first, *others = frames or draw_frames()
    first.save(path, save_all=True, append_images=others, duration=durations, **options)
    return path


def read_durations(path):
    with Image.open(path) as image:
        durations = []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            durations.append(image.info.get("duration", 0))
        return durations


def differences(frames, others):
    """The mean difference of each frame from another one."""
    return [
        np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean()
        for a, b in zip(frames, others, strict=True)
    ]


# ------------------------------------------------------------------------------- animated pictures


@pytest.mark.parametrize("name", NAMES)
def test_an_animation_keeps_its_format_frames_durations_loop_and_size(name, tmp_path):
    path = save_animation(tmp_path / name, loop=3)
    animation = Animation(path)
    assert (animation.ending, animation.n_frames) == (path.suffix, 3)
    frames = [ImageOps.mirror(frame) for frame in animation]
    assert animation.timing() == {"durations_ms": DURATIONS}
    animation.write(frames, tmp_path / f"out{path.suffix}")

    with Image.open(tmp_path / f"out{path.suffix}") as image:
        assert (image.format, image.size) == (animation.image.format, (48, 32))
        assert image.info["loop"] == animation.image.info["loop"]
    assert read_durations(tmp_path / f"out{path.suffix}") == DURATIONS
    written = list(Animation(tmp_path / f"out{path.suffix}"))
    expected = [ImageOps.mirror(frame) for frame in draw_frames()]
    assert max(differences(written, expected)) < (4 if name == "x.webp" else 0.01)


@pytest.mark.parametrize("name", NAMES)
def test_an_animation_that_is_played_for_ever_stays_one(name, tmp_path):
    animation = Animation(save_animation(tmp_path / name, loop=0))
    animation.write(list(animation), tmp_path / f"out_{name}")
    with Image.open(tmp_path / f"out_{name}") as image:
        assert image.info["loop"] == 0


def test_a_gif_file_that_is_played_once_stays_one(tmp_path):
    animation = Animation(save_animation(tmp_path / "x.gif"))
    animation.write(list(animation), tmp_path / "out.gif")
    with Image.open(tmp_path / "out.gif") as image:
        assert "loop" not in image.info


@pytest.mark.parametrize("has_transparency", [False, True])
@pytest.mark.parametrize("disposal", [KEEP, CLEAR, RESTORE])
def test_frames_of_a_gif_file_are_those_that_a_viewer_shows(disposal, has_transparency, tmp_path):
    """
    Frames that cover a part, with holes, each of which stays, goes, or gives way. In a picture
    without transparency, the background colour appears where one has gone.
    """
    rng = np.random.default_rng(disposal)
    size = (13, 9)
    frames = [(rng.integers(0, 3, (9, 13)), 0, 0, KEEP, has_transparency, 7)]
    for left, top, width, height in ((2, 1, 5, 4), (4, 3, 9, 6), (0, 0, 13, 9), (7, 2, 3, 3)):
        pixels = rng.integers(0, TRANSPARENT + 1, (height, width))
        frames.append((pixels, left, top, disposal, has_transparency, 7))
    (tmp_path / "x.gif").write_bytes(gif_bytes(size, frames))
    read = list(Animation(tmp_path / "x.gif"))
    background = -1 if has_transparency else 0
    for frame, expected in zip(read, shown_frames(size, frames, background), strict=True):
        assert np.array_equal(np.asarray(frame), expected)


def test_a_gif_file_that_begins_transparent_is_white_there(tmp_path):
    frames = [
        (np.full((4, 6), TRANSPARENT), 0, 0, KEEP, True, 5),
        (np.full((2, 2), 1), 1, 1, CLEAR, True, 5),
        (np.full((2, 2), 2), 4, 2, KEEP, True, 5),
    ]
    (tmp_path / "x.gif").write_bytes(gif_bytes((6, 4), frames))
    read = list(Animation(tmp_path / "x.gif"))
    for frame, expected in zip(read, shown_frames((6, 4), frames), strict=True):
        assert np.array_equal(np.asarray(frame), expected)


def test_frames_without_a_duration_and_of_none_keep_it(tmp_path):
    frames = [(np.full((4, 6), number % 3), 0, 0, KEEP, False, d) for number, d in ((0, 0), (1, 9))]
    frames.append((np.full((4, 6), 2), 0, 0, KEEP, False, None))
    (tmp_path / "x.gif").write_bytes(gif_bytes((6, 4), frames))
    animation = Animation(tmp_path / "x.gif")
    animation.write(list(animation), tmp_path / "out.gif")
    assert read_durations(tmp_path / "out.gif") == [0, 90, 0]


def test_a_frame_that_sticks_out_is_cut_off(tmp_path, monkeypatch):
    frames = [
        (np.full((4, 6), 0), 0, 0, KEEP, False, 5),
        (np.full((4, 6), 1), 3, 2, KEEP, False, 5),
    ]
    (tmp_path / "x.gif").write_bytes(gif_bytes((6, 4), frames))
    read = list(Animation(tmp_path / "x.gif"))
    for frame, expected in zip(read, shown_frames((6, 4), frames), strict=True):
        assert np.array_equal(np.asarray(frame), expected)
    monkeypatch.setattr(films, "MAX_PIXELS", 50)  # the picture has 24, with that frame 54
    with pytest.raises(ValueError, match=r"x\.gif: .*frame 1 sticks out too far"):
        list(Animation(tmp_path / "x.gif"))


def test_the_picture_for_viewers_without_animations_is_no_frame(tmp_path):
    frames = [Image.new("RGB", (48, 32), "white"), *draw_frames()]
    path = save_animation(tmp_path / "x.png", frames, default_image=True)
    animation = Animation(path)
    assert animation.n_frames == 3
    assert max(differences(list(animation), draw_frames())) == 0
    assert animation.durations_ms == DURATIONS


@pytest.mark.parametrize("name", NAMES)
def test_equal_frames_are_shown_as_long_as_before(name, tmp_path):
    animation = Animation(save_animation(tmp_path / name))
    first, *_, last = list(animation)
    animation.write([first, first, last], tmp_path / f"out_{name}")
    assert sum(read_durations(tmp_path / f"out_{name}")) == sum(DURATIONS)


def test_a_duration_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path):
    """A GIF file has room for eleven minutes; two equal frames become one with the sum."""
    animation = Animation(save_animation(tmp_path / "x.gif", durations=[400_000] * 3))
    first, *_, last = list(animation)
    with pytest.raises(ValueError, match=r"out\.gif: could not be written"):
        animation.write([first, first, last], tmp_path / "out.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["x.gif"]


def test_pictures_of_one_frame_and_pages_are_no_animation(tmp_path):
    draw_frames()[0].save(tmp_path / "one.gif", save_all=True)
    save_animation(tmp_path / "pages.tiff")
    save_animation(tmp_path / "three.gif")
    found = {}
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            found[path.name] = is_animated(image)
    assert found == {"one.gif": False, "pages.tiff": False, "three.gif": True}


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_animation_is_named_and_leaves_no_file(name, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8)
    path = save_animation(tmp_path / name, [Image.fromarray(pixels) for pixels in noise])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 5 // 6])
    (tmp_path / "out").mkdir()

    def rewrite():
        animation = Animation(path)
        animation.write(animation, tmp_path / "out" / name)

    with pytest.raises(ValueError, match=rf"{name}: not readable as an image \("):
        rewrite()
    assert list((tmp_path / "out").iterdir()) == []


def test_an_animation_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = save_animation(tmp_path / "x.gif")
    monkeypatch.setattr(films, "MAX_ANIMATION_PIXELS", 3 * 48 * 32 - 1)
    with pytest.raises(ValueError, match=r"x\.gif: .*4,608 pixels in 3 frames are too many"):
        Animation(path)


# ------------------------------------------------------------------------------------------- films


@pytest.fixture
def opencv():
    return pytest.importorskip("cv2", reason="films need OpenCV: opencv-python-headless")


def save_film(opencv, path, codec="MJPG", rate=12.5, frames=None):
    frames = frames or draw_frames((64, 48))
    code = opencv.VideoWriter_fourcc(*codec)
    writer = opencv.VideoWriter(str(path), opencv.CAP_FFMPEG, code, rate, frames[0].size)
    for frame in frames:
        writer.write(np.asarray(frame)[:, :, ::-1].copy())
    writer.release()
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "MJPG"), ("b.MP4", "mp4v"), ("%d.mkv", "mp4v")]
)
def test_a_film_keeps_its_frames_rate_and_size(name, codec, opencv, tmp_path):
    path = save_film(opencv, tmp_path / name, codec)
    film = open_film_or_animation(path)
    assert isinstance(film, Film)
    frames = [ImageOps.mirror(frame) for frame in film]
    assert film.n_frames == len(frames) == 3
    film.write(frames, tmp_path / "out.mp4")

    written = Film(tmp_path / "out.mp4")
    assert written.timing() == film.timing() == {"frames_per_second": pytest.approx(12.5)}
    expected = [ImageOps.mirror(frame) for frame in draw_frames((64, 48))]
    assert max(differences(list(written), expected)) < 8  # 14 with red for blue


def test_a_film_is_read_and_written_frame_by_frame(opencv, tmp_path):
    film = Film(save_film(opencv, tmp_path / "a.avi", frames=draw_frames() * 5))
    order = []

    def watched_frames():
        for frame in film:
            order.append("read")
            yield frame
            order.append("written")

    film.write(watched_frames(), tmp_path / "out.mp4")
    assert order == ["read", "written"] * 15


def test_what_is_no_film_is_named(opencv, tmp_path):
    (tmp_path / "junk.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match=r"junk\.mp4: not readable as a film: replace it"):
        Film(tmp_path / "junk.mp4")
    with pytest.raises(ValueError, match=r"none\.mp4: not readable as a film \(no such file\)"):
        Film(tmp_path / "none.mp4")


def test_a_film_without_a_constant_frame_rate_is_refused_with_the_remedy(opencv, tmp_path):
    path = save_film(opencv, tmp_path / "a.avi", rate=1000)
    with pytest.raises(ValueError, match=r"a\.avi: states 1000 frames a second.* ffmpeg -i"):
        Film(path)


def test_an_error_while_a_film_is_written_leaves_the_earlier_file(opencv, tmp_path):
    film = Film(save_film(opencv, tmp_path / "a.avi"))
    (tmp_path / "out.mp4").write_bytes(b"earlier")

    def failing_frames():
        yield next(iter(film))
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        film.write(failing_frames(), tmp_path / "out.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {"a.avi", "out.mp4"}
    assert (tmp_path / "out.mp4").read_bytes() == b"earlier"


def test_a_film_that_was_not_written_whole_is_an_error(opencv, tmp_path):
    film = Film(save_film(opencv, tmp_path / "a.avi"))
    first, *_ = list(film)
    other_size = first.resize((32, 24))  # which OpenCV leaves out, as it does on a full disk
    with pytest.raises((OSError, opencv.error)):
        film.write([first, other_size], tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_without_opencv_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"a\.mp4: .*pip install opencv-python-headless"):
        Film(tmp_path / "a.mp4")


def test_films_are_told_by_their_names():
    assert [name for name in ("a.mp4", "b.MOV", "c.gif", "mp4") if is_film(name)] == [
        "a.mp4",
        "b.MOV",
    ]
