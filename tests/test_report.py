"""The report of an evaluation: one page that needs nothing but a browser."""

import base64
import io
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from datasets import PascalVOCDataset
from report import N_PER_IMAGE, N_PICTURES, Evaluated, choose_part, make_page, write_report
from utils import calculate_mAP

EMPTY_ELEMENTS = {"meta", "br", "img"}
HOSTILE = "<script>alert('&\"x')</script>"


class PageReader(HTMLParser):
    """Reads a page, and fails where elements do not nest."""

    def __init__(self, page):
        super().__init__()
        self.open = []
        self.elements = []  # (name, attributes), in order
        self.texts = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in EMPTY_ELEMENTS:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):  # in drawings only
        assert "svg" in self.open
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if self.open and self.open[-1] != "style":
            self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def pictures(self):
        return [attributes["src"] for name, attributes in self.elements if name == "img"]


def evaluated(folder, detections="some", names=None):
    """
    An evaluation of the toy data's test images.

    :param detections: "perfect", "none", or "some": each object moved by a third of its width, and
        the first one of each image found with a false label as well
    :param names: in place of the classes' names
    """
    dataset = PascalVOCDataset(folder, "TEST")
    boxes, labels, difficulties = dataset.objects_px()
    det_boxes, det_labels = [box.clone() for box in boxes], [label.clone() for label in labels]
    if detections == "none":
        det_boxes, det_labels = [box[:0] for box in boxes], [label[:0] for label in labels]
    if detections == "some":
        for image, box in enumerate(boxes):
            moved = box + (box[:, 2:3] - box[:, :1]) * torch.tensor([0.5, 0, 0.5, 0])
            det_boxes[image] = torch.cat([moved, box[:1]])
            det_labels[image] = torch.cat([labels[image], 3 - labels[image][:1]])
    scores = [torch.linspace(0.9, 0.3, len(label)) for label in det_labels]
    columns = [det_boxes, det_labels, scores, boxes, labels, difficulties]
    label_map = dataset.label_map
    if names:
        label_map = {"background": 0} | {name: i for i, name in enumerate(names, start=1)}
    aps, mean = calculate_mAP(*columns, label_map=label_map)
    return Evaluated(columns, label_map, aps, mean, "11-point", dataset.images)


@pytest.mark.parametrize("detections", ["some", "perfect", "none"])
def test_elements_nest_and_nothing_is_loaded_or_run(detections, toy_folder):
    page = make_page(evaluated(toy_folder, detections), "a title")
    reader = PageReader(page)
    names = {name for name, _ in reader.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "a", "form"}
    for name, attributes in reader.elements:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "xlink:href", "data", "srcset"):
            assert attributes.get(key, "data:").startswith("data:"), (name, key)
    assert not re.search(r"https?:|url\(|@import", page)
    assert reader.elements.count(("html", {"lang": "en"})) == 1
    assert not re.search(r"\bnan\b", re.sub('"data:[^"]*"', "", page))


def test_the_figures_are_those_of_the_evaluation(toy_folder):
    perfect = PageReader(make_page(evaluated(toy_folder, "perfect"), "perfect")).text
    assert "100.0% mAP (11-point)" in perfect
    assert re.search(r"classification 0 \+0\.0 .* missed 0 \+0\.0", perfect)
    some = evaluated(toy_folder)
    n_detections = sum(map(len, some.columns[1]))
    n_difficult = sum(int(difficulties.sum()) for difficulties in some.columns[5])
    n_objects = sum(map(len, some.columns[4])) - n_difficult
    assert n_difficult
    text = PageReader(make_page(some, "some")).text
    assert f"{100 * some.mAP:.1f}% mAP" in text
    n_images = len(some.image_paths)
    assert f"{n_objects} objects, and {n_difficult} difficult {n_detections} detections" in text
    assert f"detections on {n_images} images" in text


def test_without_detections_the_page_says_so(toy_folder):
    text = PageReader(make_page(evaluated(toy_folder, "none"), "none")).text
    assert "There are no detections." in text
    assert "n/a n/a n/a" in text


def test_texts_from_files_stay_texts(toy_folder):
    page = make_page(evaluated(toy_folder, names=[HOSTILE, "\x1b[31m\u202ered"]), HOSTILE)
    reader = PageReader(page)
    assert "script" not in {name for name, _ in reader.elements}
    assert HOSTILE in reader.text
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_pictures_show_the_worst_and_few_of_an_image(toy_folder):
    some = evaluated(toy_folder)
    reader = PageReader(make_page(some, "some"))
    assert 0 < len(reader.pictures) <= 2 * N_PICTURES
    for source in reader.pictures:
        content = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
        with Image.open(io.BytesIO(content)) as image:
            assert max(image.size) == 320
    names = [attributes["alt"] for name, attributes in reader.elements if name == "img"]
    assert max(names.count(name) for name in names) <= 2 * N_PER_IMAGE
    assert re.search(r"0\.90: (localization|both|classification|background)", reader.text)


def test_a_picture_shows_the_detection_where_it_is(tmp_path):
    Image.new("RGB", (400, 200), "black").save(tmp_path / "black.png")
    box = [300.0, 50.0, 380.0, 150.0]
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    columns = [[torch.tensor([box])], [torch.tensor([1])], [torch.tensor([0.9])]]
    columns += [[tensor] for tensor in nothing]
    label_map = {"background": 0, "cat": 1}
    paths = [str(tmp_path / "black.png")]
    page = make_page(Evaluated(columns, label_map, {"cat": 0.0}, 0.0, "area", paths), "one")
    (source,) = PageReader(page).pictures
    content = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    image = Image.open(io.BytesIO(content)).convert("RGB")
    x_min, y_min, x_max, y_max = choose_part(box, (400, 200))
    scale = 320 / max(x_max - x_min, y_max - y_min)
    # Black but for the outline of the box
    expected = [(box[0] - x_min) * scale, (box[1] - y_min) * scale]
    expected += [(box[2] - x_min) * scale, (box[3] - y_min) * scale]
    found = image.convert("L").point(lambda value: 255 * (value > 60)).getbbox()
    assert found == pytest.approx(expected, abs=3)


@pytest.mark.parametrize(
    "box", [[0, 0, 5, 5], [-50, -50, -20, -20], [0, 0, 400, 200], [390, 90, 900, 95]]
)
def test_a_part_lies_inside_the_image(box):
    x_min, y_min, x_max, y_max = choose_part(box, (400, 200))
    assert 0 <= x_min < x_max <= 400
    assert 0 <= y_min < y_max <= 200


def test_images_that_are_gone_or_damaged_cost_their_picture_only(toy_folder, tmp_path):
    some = evaluated(toy_folder)
    gone = some._replace(image_paths=[f"gone/{i}.jpg" for i in range(len(some.image_paths))])
    reader = PageReader(make_page(gone, "gone"))
    assert reader.pictures == []
    assert "The image files are not here" in reader.text
    assert "in pixels of the image file" in reader.text
    (tmp_path / "damaged.jpg").write_bytes(b"no image")
    damaged = some._replace(image_paths=[str(tmp_path / "damaged.jpg"), *some.image_paths[1:]])
    reader = PageReader(make_page(damaged, "damaged"))
    assert "damaged.jpg: not readable as an image" in reader.text
    assert reader.pictures


def chromium():
    """Path of a browser; skips the test where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    paths = [path for path in map(shutil.which, names) if path]
    if not paths:
        pytest.skip("needs Chromium or Chrome, which is not here")
    return paths[0]


@pytest.mark.slow
def test_a_browser_shows_it_without_loading_anything(toy_folder, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    path = write_report(tmp_path, evaluated(toy_folder, names=[HOSTILE, "x" * 200]), HOSTILE)
    problems, requests = [], []
    with playwright.sync_playwright() as session:
        # The sandbox of Chromium cannot be used by root, as whom tests in containers run
        browser = session.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for width, scheme in ((390, "dark"), (900, "light")):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.set_default_timeout(180_000)  # milliseconds
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: requests.append(request.url))
            page.goto(path.as_uri())
            assert page.title() == HOSTILE
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            is_dark = sum(map(int, re.findall(r"\d+", background)[:3])) < 384
            assert is_dark == (scheme == "dark")
        browser.close()
    assert problems == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()] * 2
