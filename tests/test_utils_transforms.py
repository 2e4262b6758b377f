"""The transforms of utils.py: where boxes and pixels go, how often and how far."""

import numpy as np
import pytest
import torch
from PIL import Image

import utils
from helpers.oracles import slow_crop_and_resize, slow_jaccard_overlap, slow_transform_boxes
from helpers.scenes import COLOURS, PLAIN, as_arguments, draw_scene, to_pixels, within_4_sigma
from utils import FILLER, crop_and_resize, random_crop, transform, zoom_out

pytestmark = pytest.mark.usefixtures("one_thread")


def nearest_colours(pixels):
    """The closest colour of each pixel, as a label; 0 for the plain background and the filling."""
    palette = np.array([PLAIN, *COLOURS, FILLER], dtype=np.float32)
    # In the same order as the distances, but faster
    closeness = pixels.reshape(-1, 3) @ palette.T - (palette**2).sum(axis=1) / 2
    return closeness.argmax(axis=1).reshape(pixels.shape[:2]) % (len(palette) - 1)


def find_box(nearest, label):
    """The edges, in pixels, of all that has a label's colour; None if nothing does."""
    rows, columns = np.nonzero(nearest == label)
    return (
        None if len(rows) == 0 else [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    )


def keep_colours(monkeypatch):
    monkeypatch.setattr(utils, "photometric_distort", lambda pixels, rng: pixels)


def keep_place(monkeypatch):
    """No zooming out, no crop."""
    monkeypatch.setattr(utils, "zoom_out", lambda width, height, rng: (0, 0, width, height))
    monkeypatch.setattr(utils, "random_crop", lambda window, boxes, rng: window)


def assert_objects_are_where_the_boxes_say(image, boxes, labels, tolerance=1.5):
    nearest = nearest_colours(to_pixels(image))
    for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
        found = find_box(nearest, label)
        assert found is not None, f"object {label} at {box} is not in the image"
        assert np.abs(np.array(found) - 300 * np.array(box)).max() <= tolerance, (label, box, found)


# ---------------------------------------------------------------------------------------- transform


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_boxes_follow_the_pixels(split, monkeypatch):
    keep_colours(monkeypatch)
    n_kept = n_lost = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        scene, boxes_px = draw_scene(rng)
        image, boxes, labels, difficulties = transform(scene, *as_arguments(boxes_px), split, rng)
        assert image.shape == (3, 300, 300)
        assert image.dtype == boxes.dtype == torch.float32
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert torch.equal(difficulties, labels % 2 == 0), "difficulties stay with their objects"
        assert labels.tolist() == sorted(set(labels.tolist())), "objects keep their order"
        assert_objects_are_where_the_boxes_say(image, boxes, labels)
        n_kept += len(boxes)
        n_lost += len(boxes_px) - len(boxes)
    assert n_kept > 80
    assert (n_lost > 0) == (split == "TRAIN")


def test_test_images_are_resized_and_nothing_else():
    scene, boxes_px = draw_scene(np.random.default_rng(5))
    image, boxes, labels, _ = transform(scene, *as_arguments(boxes_px), "TEST")
    expected = scene.resize((300, 300), Image.Resampling.BILINEAR)
    assert np.abs(to_pixels(image) - np.array(expected)).max() < 0.01
    torch.testing.assert_close(
        boxes, torch.tensor(boxes_px) / torch.tensor([scene.width, scene.height] * 2)
    )
    assert len(labels) == len(boxes_px)


def test_normalisation_hand_value():
    image = transform(Image.new("RGB", (7, 5), (0, 255, 51)), *as_arguments([]), "TEST")[0]
    expected = torch.tensor([(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(image[:, 150, 150], expected, rtol=1e-4, atol=1e-4)


def test_boxes_are_those_of_the_window_drawn_and_objects_stay_if_their_centre_does(monkeypatch):
    keep_colours(monkeypatch)
    windows = []

    def spy(window, boxes, rng):
        windows.append(random_crop(window, boxes, rng))
        return windows[-1]

    monkeypatch.setattr(utils, "random_crop", spy)
    n_lost = n_cut = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        size = rng.integers(50, 400, 2)
        corners = rng.uniform(0, 1, (8, 2, 2)) * size
        boxes_px = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).tolist()
        image = Image.new("RGB", tuple(size.tolist()))
        _, boxes, labels, _ = transform(image, *as_arguments(boxes_px), "TRAIN", rng)
        straight, flipped = (
            slow_transform_boxes(boxes_px, windows[-1], flip) for flip in (False, True)
        )
        assert (labels - 1).tolist() == straight[1]
        differences = [
            (boxes - torch.tensor(answer[0]).view(-1, 4)).abs().amax().item()
            for answer in (straight, flipped)
            if len(boxes)
        ]
        assert min(differences, default=0) < 1e-4
        n_lost += len(boxes_px) - len(boxes)
        n_cut += int(((boxes == 0) | (boxes == 1)).any(dim=1).sum())
    assert n_lost > 100
    assert n_cut > 100


def test_flipping_twice_is_the_identity(monkeypatch):
    keep_colours(monkeypatch)
    keep_place(monkeypatch)
    scene, boxes_px = draw_scene(np.random.default_rng(1))
    scene = scene.resize((300, 300), Image.Resampling.NEAREST)
    boxes_px = torch.tensor(boxes_px) / torch.tensor([10.0, 20.0, 10.0, 20.0])  # any boxes
    _, labels, difficulties = as_arguments(boxes_px.tolist())
    straight = transform(scene, boxes_px, labels, difficulties, "TEST")
    n_flips = 0
    for seed in range(20):
        once = transform(
            scene, boxes_px, labels, difficulties, "TRAIN", np.random.default_rng(seed)
        )
        if torch.equal(once[0], straight[0]):
            assert torch.equal(once[1], straight[1])
            continue
        n_flips += 1
        assert torch.equal(once[0], straight[0].flip(2))
        torch.testing.assert_close(once[1][:, [0, 2]], 1 - straight[1][:, [2, 0]])
        picture = Image.fromarray(to_pixels(once[0]).round().astype(np.uint8))
        twice = transform(
            picture, 300 * once[1], labels, difficulties, "TRAIN", np.random.default_rng(seed)
        )
        torch.testing.assert_close(twice[0], straight[0])
        torch.testing.assert_close(twice[1], straight[1])
    assert 3 <= n_flips <= 17


def test_half_are_zoomed_out_and_half_are_flipped_independently(monkeypatch):
    keep_place(monkeypatch)
    zoomed = []
    monkeypatch.setattr(
        utils, "zoom_out", lambda width, height, rng: zoomed.append(True) or (0, 0, width, height)
    )
    monkeypatch.setattr(
        utils, "crop_and_resize", lambda image, window, rng: torch.zeros(3, 300, 300)
    )
    image, arguments = Image.new("RGB", (8, 8)), as_arguments([[0, 0, 2, 8]])
    n, counts = 3000, np.zeros((2, 2))
    rng = np.random.default_rng(0)
    for _ in range(n):
        zoomed.clear()
        _, boxes, _, _ = transform(image, *arguments, "TRAIN", rng)
        counts[len(zoomed), int(boxes[0, 0] > 0.5)] += 1
    assert all(within_4_sigma(count, n, 1 / 4) for count in counts.ravel()), counts


@pytest.mark.parametrize("can_zoom_out", [True, False])
def test_zooming_out_is_drawn_first_or_never(can_zoom_out, monkeypatch):
    """With it, each draw is what it was before it could be left out."""
    keep_colours(monkeypatch)
    states = []

    def note_state(window, boxes, rng):
        states.append(rng.bit_generator.state)
        return window

    monkeypatch.setattr(utils, "random_crop", note_state)
    scene, boxes_px = draw_scene(np.random.default_rng(3))
    n_zoomed = 0
    for seed in range(20):
        transform(
            scene,
            *as_arguments(boxes_px),
            "TRAIN",
            np.random.default_rng(seed),
            can_zoom_out=can_zoom_out,
        )
        rng = np.random.default_rng(seed)
        if can_zoom_out and rng.random() < 0.5:
            zoom_out(scene.width, scene.height, rng)
            n_zoomed += 1
        assert states[-1] == rng.bit_generator.state
    assert (0 < n_zoomed < 20) is can_zoom_out


def test_zooming_out_is_one_of_the_augmentations_unless_told_otherwise():
    scene, boxes_px = draw_scene(np.random.default_rng(3))
    for seed in range(6):
        arguments = (scene, *as_arguments(boxes_px), "TRAIN")
        images = [
            transform(*arguments, np.random.default_rng(seed), *option)[0]
            for option in ((), (True,), (False,))
        ]
        assert torch.equal(images[0], images[1])
        assert not torch.equal(images[0], images[2])


def test_colours_are_distorted_in_training_only(monkeypatch):
    keep_place(monkeypatch)
    colour = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    monkeypatch.setattr(utils, "photometric_distort", lambda pixels, rng: colour.expand_as(pixels))
    image = Image.new("RGB", (40, 30), PLAIN)
    assert np.allclose(
        to_pixels(transform(image, *as_arguments([]), "TRAIN")[0]), (1, 2, 3), atol=0.01
    )
    assert np.allclose(to_pixels(transform(image, *as_arguments([]), "TEST")[0]), PLAIN, atol=0.01)


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_images_without_objects_pass_through(split):
    scene, _ = draw_scene(np.random.default_rng(0))
    for seed in range(20):
        image, boxes, labels, difficulties = transform(
            scene, *as_arguments([]), split, np.random.default_rng(seed)
        )
        assert image.shape == (3, 300, 300)
        assert image.isfinite().all()
        assert (boxes.shape, labels.shape, difficulties.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_image_and_tensors_that_go_in_are_never_changed(split):
    scene, boxes_px = draw_scene(np.random.default_rng(3))
    arguments = as_arguments(boxes_px)
    before = scene.tobytes(), [argument.clone() for argument in arguments]
    for seed in range(20):
        image, *results = transform(scene, *arguments, split, np.random.default_rng(seed))
        for result in (image, *results):  # what comes out is no view of what went in
            result.zero_()
        assert scene.tobytes() == before[0]
        assert all(
            torch.equal(argument, copy) for argument, copy in zip(arguments, before[1], strict=True)
        )


def test_one_seed_gives_one_result_and_other_seeds_others():
    scene, boxes_px = draw_scene(np.random.default_rng(3))
    results = [
        transform(scene, *as_arguments(boxes_px), "TRAIN", np.random.default_rng(seed))
        for seed in (7, 7, 8)
    ]
    assert all(
        torch.equal(first, second) for first, second in zip(results[0], results[1], strict=True)
    )
    assert not torch.equal(results[0][0], results[2][0])


def test_global_random_states_are_neither_used_nor_changed():
    scene, boxes_px = draw_scene(np.random.default_rng(3))
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        state = torch.get_rng_state()
        results.append(
            transform(scene, *as_arguments(boxes_px), "TRAIN", np.random.default_rng(5))[0]
        )
        assert torch.equal(torch.get_rng_state(), state)
        assert np.random.randint(10**9) == np.random.RandomState(seed).randint(10**9)
    assert torch.equal(*results)


def test_without_a_generator_every_call_is_another_draw():
    scene, boxes_px = draw_scene(np.random.default_rng(3))
    results = [transform(scene, *as_arguments(boxes_px), "TRAIN")[0] for _ in range(6)]
    assert not all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("split", ["train", "", None])
def test_another_split_is_refused(split):
    with pytest.raises(ValueError, match="expected 'TRAIN', 'VAL' or 'TEST'"):
        transform(Image.new("RGB", (8, 8)), *as_arguments([]), split)


@pytest.mark.parametrize(
    "size", [(1000, 20), (20, 1000), (1, 1), (3, 500), (500, 3), (2, 2)], ids=str
)
def test_extreme_pictures_end_and_are_valid(size):
    width, height = size
    whole, part = [0, 0, width, height], [0.1 * width, 0.3 * height, 0.35 * width, 0.9 * height]
    for seed in range(30):
        for boxes_px in ([whole, part], [part], []):
            rng = np.random.default_rng(seed)
            image, boxes, labels, _ = transform(
                Image.new("RGB", size, COLOURS[0]), *as_arguments(boxes_px), "TRAIN", rng
            )
            assert image.shape == (3, 300, 300)
            assert image.isfinite().all()
            assert ((boxes >= 0) & (boxes <= 1)).all()
            assert (boxes[:, :2] < boxes[:, 2:]).all()
            assert len(boxes) == len(labels) <= len(boxes_px)
        image = transform(Image.new("RGB", size, COLOURS[0]), *as_arguments([whole]), "TEST")[0]
        assert np.allclose(to_pixels(image), COLOURS[0], atol=0.01)


# ----------------------------------------------------------------------------------------- zoom out


def test_zoom_out_has_one_factor_from_1_to_4_for_both_sides_and_holds_the_image():
    rng = np.random.default_rng(0)
    windows = np.array([zoom_out(300, 200, rng) for _ in range(4000)])
    x_min, y_min, x_max, y_max = windows.T
    factors = (x_max - x_min) / 300
    assert np.allclose(factors, (y_max - y_min) / 200)
    assert factors.min() >= 1 - 1e-9
    assert factors.max() <= 4 + 1e-9
    assert max(x_min.max(), y_min.max()) <= 0
    assert x_max.min() >= 300 - 1e-9
    assert y_max.min() >= 200 - 1e-9
    for below in (1.75, 2.5, 3.25):  # evenly spread
        assert within_4_sigma((factors < below).sum(), len(factors), (below - 1) / 3)


def test_zoom_out_places_the_image_at_random_both_ways():
    rng = np.random.default_rng(1)
    x_min, y_min, x_max, y_max = np.array([zoom_out(300, 200, rng) for _ in range(4000)]).T
    left, top = -x_min / (x_max - x_min - 300), -y_min / (y_max - y_min - 200)  # from 0 to 1
    for quarter in (0.25, 0.5, 0.75):
        assert within_4_sigma((left < quarter).sum(), len(left), quarter)
        assert within_4_sigma((top < quarter).sum(), len(top), quarter)
    assert within_4_sigma(((left < 0.5) == (top < 0.5)).sum(), len(left), 0.5), (
        "the two are independent"
    )


# --------------------------------------------------------------------------------------------- crop


class Recorder(tuple):
    """A tuple that remembers which of its entries were taken."""

    taken: list

    def __getitem__(self, place):
        self.taken.append(super().__getitem__(place))
        return self.taken[-1]


@pytest.fixture
def drawn_overlaps(monkeypatch):
    recorder = Recorder(utils.MIN_CROP_OVERLAPS)
    recorder.taken = []
    monkeypatch.setattr(utils, "MIN_CROP_OVERLAPS", recorder)
    return recorder.taken


def test_the_seven_choices_of_a_crop_are_equally_likely_and_none_keeps_the_window(drawn_overlaps):
    window, rng, n = (-10.0, 20.0, 290.0, 320.0), np.random.default_rng(0), 3500
    for _ in range(n):
        # Without objects, any crop will do: one choice per call
        crop = random_crop(window, torch.zeros(0, 4), rng)
        assert (crop == window) == (drawn_overlaps[-1] is None)
    assert len(drawn_overlaps) == n
    assert set(drawn_overlaps) == {0, 0.1, 0.3, 0.5, 0.7, 0.9, None}
    for choice in set(drawn_overlaps):
        assert within_4_sigma(drawn_overlaps.count(choice), n, 1 / 7), choice


@pytest.mark.parametrize(
    "window", [(0, 0, 500, 375), (-200.0, -50.5, 400.0, 800.0), (0, 0, 40, 40)], ids=str
)
def test_a_crop_has_the_promised_overlap_sides_and_aspect_ratio(window, drawn_overlaps):
    x_min, y_min, x_max, y_max = window
    rng = np.random.default_rng(2)
    width, height = x_max - x_min, y_max - y_min
    reached = {}
    for number in range(1000):
        corners = rng.uniform(0, 1, (rng.integers(1, 6), 2, 2)) * (width, height) + (x_min, y_min)
        boxes = torch.from_numpy(
            np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        ).float()
        if number % 3 == 0:  # a large object: an overlap of 0.9 hardly ever occurs by chance
            boxes[0] = torch.tensor(window)
        crop = random_crop(window, boxes, rng)
        if drawn_overlaps[-1] is None:
            assert crop == window
            continue
        assert x_min - 1e-9 <= crop[0] < crop[2] <= x_max + 1e-9
        assert y_min - 1e-9 <= crop[1] < crop[3] <= y_max + 1e-9
        sides = (crop[2] - crop[0]) / width, (crop[3] - crop[1]) / height
        assert 0.3 - 1e-9 <= min(sides) <= max(sides) <= 1 + 1e-9
        assert 0.5 - 1e-9 <= (crop[2] - crop[0]) / (crop[3] - crop[1]) <= 2 + 1e-9
        best = max(slow_jaccard_overlap(crop, box) for box in boxes.tolist())
        assert best >= drawn_overlaps[-1] - 1e-9
        reached.setdefault(drawn_overlaps[-1], []).append(best)
    assert set(reached) == {0, 0.1, 0.3, 0.5, 0.7, 0.9}
    assert min(reached[0.3]) < 0.4, "no more is asked than what was drawn"
    assert min(reached[0]) < 0.1


def test_one_object_that_is_overlapped_enough_is_enough(drawn_overlaps):
    rng = np.random.default_rng(5)
    # A speck, and the whole window
    boxes = torch.tensor([[10.0, 10.0, 11.0, 11.0], [0.0, 0.0, 300.0, 300.0]])
    last = []
    for _ in range(400):
        random_crop((0, 0, 300, 300), boxes, rng)
        last.append(drawn_overlaps[-1])
    assert min(last.count(0.3), last.count(0.5), last.count(0.7)) > 20


def test_a_crop_keeps_the_centre_of_at_least_one_object():
    """With a minimum overlap of 0, or with objects that are larger than the crop, too."""
    rng = np.random.default_rng(0)
    small = torch.tensor([[10.0, 10.0, 20.0, 25.0], [250.0, 200.0, 280.0, 290.0]])
    large = torch.tensor([[0.0, 0.0, 290.0, 280.0]])
    for boxes in (small, large):
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        for _ in range(500):
            x_min, y_min, x_max, y_max = random_crop((0, 0, 300, 300), boxes, rng)
            assert any(x_min <= x <= x_max and y_min <= y <= y_max for x, y in centres.tolist())


def test_up_to_fifty_crops_are_tried(drawn_overlaps):
    drawn = []
    rng = np.random.default_rng(0)

    class CountingGenerator:
        """Counts the sizes that are drawn for one minimum overlap."""

        def __getattr__(self, name):
            return getattr(rng, name)

        def uniform(self, low, high, size=None):
            drawn.append(size)
            return rng.uniform(low, high, size)

    random_crop((0, 0, 300, 300), torch.zeros(0, 4), CountingGenerator())
    while not drawn:  # no crop was what was drawn
        random_crop((0, 0, 300, 300), torch.zeros(0, 4), CountingGenerator())
    assert drawn[0] == (50, 2)


def test_crops_reach_all_of_the_window_and_all_sizes():
    rng = np.random.default_rng(3)
    window = (100.0, 200.0, 200.0, 300.0)
    crops = np.array([random_crop(window, torch.zeros(0, 4), rng) for _ in range(2000)])
    widths = crops[:, 2] - crops[:, 0]
    assert widths.min() < 32
    assert widths[widths < 100].max() > 97
    assert crops[:, :2].max() > 255
    spare = 100.5 - (crops[:, 2:] - crops[:, :2])
    first_half = (crops[:, :2] - window[:2]) / spare < 0.5
    small = (spare > 20).all(axis=1)
    assert within_4_sigma((first_half[:, 0] == first_half[:, 1])[small].sum(), small.sum(), 0.5), (
        "the two are independent"
    )
    for side in (0, 1):  # a narrow crop is anywhere between the edges
        narrow = crops[crops[:, side + 2] - crops[:, side] < 50]
        low = (narrow[:, side] - window[side]) / (100 - (narrow[:, side + 2] - narrow[:, side]))
        assert within_4_sigma((low < 0.5).sum(), len(low), 0.5)
        assert low.min() < 0.05
        assert low.max() > 0.95


def test_a_choice_that_no_crop_can_meet_is_drawn_again(drawn_overlaps):
    rng = np.random.default_rng(4)
    # No crop of 90 x 90 or more overlaps it by more than 1 / 8100
    speck = torch.tensor([[10.0, 10.0, 11.0, 11.0]])
    last = []
    for _ in range(200):
        random_crop((0, 0, 300, 300), speck, rng)
        last.append(drawn_overlaps[-1])
    assert set(last) == {0, None}
    assert within_4_sigma(last.count(0), 200, 1 / 2)
    assert len(drawn_overlaps) > 400


# ---------------------------------------------------------------------------------- crop and resize


def smooth_image(width, height):
    """
    An image whose three channels change evenly from edge to edge.

    :return: PIL image, and the function of continuous x and y that it samples
    """

    def level(x, y):
        return np.stack(
            [40 + 170 * x / width, 220 - 150 * y / height, 30 + 100 * x / width + 90 * y / height],
            axis=-1,
        )

    y, x = np.mgrid[:height, :width] + 0.5
    return Image.fromarray(level(x, y).round().astype(np.uint8)), level


def test_crop_and_resize_agrees_with_drawing_the_canvas_cropping_and_resizing_step_by_step():
    n_partly_outside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        width, height = rng.integers(60, 400, 2).tolist()
        image, _ = smooth_image(width, height)
        x_min, y_min = (
            int(rng.integers(-width, width - 20)),
            int(rng.integers(-height, height - 20)),
        )
        x_max = int(rng.integers(max(x_min, 0) + 20, 3 * width))
        y_max = int(rng.integers(max(y_min, 0) + 20, 3 * height))
        fast = crop_and_resize(image, (x_min, y_min, x_max, y_max)).permute(1, 2, 0).numpy()
        slow = np.array(slow_crop_and_resize(image, (x_min, y_min, x_max, y_max))).astype(int)
        assert fast.shape == (300, 300, 3)
        # Where the slow version mixes image and filling
        near_edge = np.zeros((300, 300), dtype=bool)
        for axis, low, high, side in ((1, x_min, x_max, width), (0, y_min, y_max, height)):
            scale = 300 / (high - low)
            for edge in (0, side):
                if low < edge < high:
                    distance = np.abs(np.arange(300) + 0.5 - (edge - low) * scale) < max(
                        2, 1.5 * scale
                    )
                    near_edge |= distance[None, :] if axis == 1 else distance[:, None]
                    n_partly_outside += 1
        assert np.abs(fast - slow)[~near_edge].max() <= 3
    assert n_partly_outside > 60


def test_crop_and_resize_shows_what_is_at_each_place_and_fills_the_rest():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        width, height = rng.integers(80, 500, 2).tolist()
        image, level = smooth_image(width, height)
        low = rng.uniform(-0.5, 0.5, 2) * (width, height)
        high = low + rng.uniform(0.3, 3, 2) * (width, height)
        pixels = crop_and_resize(image, (*low, *high)).permute(1, 2, 0).numpy()
        y, x = np.mgrid[:300, :300] + 0.5
        x, y = low[0] + x * (high[0] - low[0]) / 300, low[1] + y * (high[1] - low[1]) / 300
        # The distance from the edge in pixels of the image; outside, it is below 0
        from_edge = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))
        pixel = max(high - low) / 300  # of the result, in pixels of the image
        inside = from_edge > 1.5 * pixel + 0.5
        assert np.abs(pixels - level(x, y))[inside].max(initial=0) <= 2
        assert (pixels[from_edge < 0] == FILLER).all()


def test_a_part_of_a_single_pixel_is_read_like_any_other():
    image = Image.new("RGB", (300, 300), COLOURS[0])
    pixels = crop_and_resize(image, (299, 299, 599, 599))
    assert pixels[:, 0, 0].tolist() == list(COLOURS[0])
    assert (pixels[:, 1:, 1:] == torch.tensor(FILLER).view(3, 1, 1)).all()


def test_a_window_beside_the_image_is_all_filling():
    image = Image.new("RGB", (50, 40), COLOURS[0])
    for window in ((60, 0, 100, 40), (-40, -40, 0, 0), (0, 41.5, 30, 80)):
        assert (crop_and_resize(image, window) == torch.tensor(FILLER).view(3, 1, 1)).all()


def test_filling_is_the_imagenet_mean_and_is_not_distorted(monkeypatch):
    assert np.abs(np.array(FILLER) / 255 - (0.485, 0.456, 0.406)).max() <= 0.5 / 255
    keep_place(monkeypatch)
    monkeypatch.setattr(
        utils, "zoom_out", lambda width, height, rng: (-width, -height, 2 * width, 2 * height)
    )
    n_zoomed = n_distorted = 0
    for seed in range(60):
        image = transform(
            Image.new("RGB", (90, 60), (200, 80, 40)),
            *as_arguments([]),
            "TRAIN",
            np.random.default_rng(seed),
        )[0]
        pixels = to_pixels(image)
        if not np.allclose(pixels[0, 0], FILLER, atol=0.01):
            continue  # half are not zoomed out
        n_zoomed += 1
        n_distorted += not np.allclose(pixels[150, 150], (200, 80, 40), atol=3)
        outside = np.ones((300, 300), dtype=bool)
        outside[100:200, 100:200] = False
        assert np.allclose(pixels[outside], FILLER, atol=0.01)
        assert image[:, 0, 0].abs().max() < 0.01, "filling is about 0 after normalisation"
        assert np.ptp(pixels[100:200, 100:200].reshape(-1, 3), axis=0).max() < 0.01, (
            "the image is the whole middle ninth"
        )
    assert n_zoomed > 15
    assert n_distorted > 10
