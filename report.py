"""
What an evaluation shows, as one HTML page that needs nothing but a browser: no network, no script.
"""

import base64
import io
import math
from html import escape
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw

import diagnosis
from annotations import printable
from datasets import ImageFile, read_image
from utils import IMAGE_SIZE

FILE_NAME = "report.html"
N_PICTURES = 12  # of each sort
N_PER_IMAGE = 2  # pictures of the same image
PICTURE_SIDE = 320  # pixels of the longer side
BOX_COLOUR = (255, 106, 0)  # of what a picture is about
OBJECT_COLOUR = (60, 220, 110)  # of the other objects in it

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f5f6f8; --text: #1c2128;
  --quiet: #59626d; --line: #d3d8de; --first: #1f66c1; --second: #b4500b; --third: #2a7d3f; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1c222a; --text: #e4e9ef;
  --quiet: #9aa5b1; --line: #39424d; --first: #6cabf7; --second: #f09a58; --third: #62c378; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 960px; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; line-height: 1.2; margin: 8px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 36px 0 4px; }
p { margin: 4px 0 12px; max-width: 70ch; }
figcaption { color: var(--quiet); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; }
.tile { background: var(--card); border-radius: 8px; padding: 10px 12px; }
.tile b { display: block; font-size: 22px; line-height: 1.3; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-weight: normal; }
thead th { color: var(--quiet); vertical-align: bottom; }
tbody th, thead th:first-child, td.text, th.text { text-align: left; }
th[scope=colgroup] { text-align: center; border-left: 1px solid var(--line); }
tbody th { position: sticky; left: 0; background: var(--page); max-width: 32vw;
  overflow: hidden; text-overflow: ellipsis; }
td.text { white-space: normal; min-width: 190px; }
tr.all > * { font-weight: bold; border-bottom: 0; }
.bar { display: inline-block; height: 9px; border-radius: 2px; background: var(--second);
  margin-right: 6px; }
figure { margin: 0; }
figcaption { font-size: 13px; line-height: 1.35; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--quiet); font: 11px system-ui, sans-serif; }
.chart { max-width: 430px; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 12px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr));
  gap: 14px; align-items: start; }
.pictures img { display: block; width: 100%; height: auto; border-radius: 6px; }
.grid { stroke: var(--line); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.first { stroke: var(--first); } .second { stroke: var(--second); } .third { stroke: var(--third); }
.second { stroke-dasharray: 6 3; } .third { stroke-dasharray: 2 3; }
.mark { stroke: var(--text); stroke-width: 1; stroke-dasharray: 3 3; }
.found { fill: var(--third); } .notfound { fill: var(--line); }
.key { display: inline-block; margin-right: 14px; }
@media (max-width: 500px) { table { font-size: 13px; } th, td { padding: 4px 5px; }
  thead th { white-space: normal; } .bar { display: none; } td.text { min-width: 150px; } }
.key svg { display: inline-block; width: 26px; height: 10px; vertical-align: middle; }
"""


class Evaluated(NamedTuple):
    """What a report is about."""

    columns: list  # the six lists that utils.calculate_mAP takes, boxes in pixels
    label_map: dict  # {class name: number} of the classes that were compared
    average_precisions: dict  # {class name: AP}
    mAP: float
    metric: str  # "11-point", "area" or "coco"
    image_paths: list  # the image files, which need not be there


def write_report(folder, evaluated, title):
    """
    Write report.html.

    :param folder: made if it is missing
    :param evaluated: Evaluated
    :param title: what was evaluated, for the heading
    :return: Path of the page
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    path.write_text(make_page(evaluated, title), encoding="utf-8")
    return path


def make_page(evaluated, title):
    """:return: the page as text; for the parameters see write_report"""
    label_map = evaluated.label_map
    detections, objects = diagnosis.compare(evaluated.columns, label_map)
    n_objects = int((~objects.difficulties).sum())
    threshold = diagnosis.recommend_threshold(
        detections.scores, detections.is_true, detections.is_false, n_objects
    )
    min_score = threshold.min_score if threshold else 0.0
    # Sizes and gains need a curve at one overlap; COCO's mean over ten has none
    metric = "area" if evaluated.metric == "coco" else evaluated.metric
    sections = [
        heading(evaluated, title, detections, objects, threshold),
        class_section(evaluated, detections, objects, threshold),
        curve_section(evaluated, detections, objects),
        error_section(detections, objects, label_map, min_score, metric),
        score_section(detections, n_objects, threshold),
        size_section(evaluated, detections, objects, min_score, metric),
        picture_section(evaluated, detections, objects, min_score),
    ]
    body = "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )


# ---------------------------------------------------------------------------------- text and tables


def text(value):
    """A text from a file or from the user, which must not become a part of the page's code."""
    return escape(printable(str(value)))


def percent(value):
    """A share in percent."""
    return "n/a" if math.isnan(value) else f"{100 * value:.1f}"


def score_text(score):
    """A score, rounded down, so that what was above it still is."""
    return f"{math.floor(score * 1000) / 1000:.3f}"


def table(head, rows, last_is_total=True):
    """
    A table that scrolls sideways by itself where it is too wide.

    :param head: the row of headings, as HTML
    :param rows: lists of cells as HTML, the first of which names the row
    """
    lines = []
    for number, (name, *cells) in enumerate(rows, start=1):
        row_class = ' class="all"' if last_is_total and number == len(rows) else ""
        cells = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr{row_class}><th scope="row">{name}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="table" tabindex="0"><table>\n<thead>{head}</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def head_row(names):
    """A row of headings."""
    return "<tr>" + "".join(f'<th scope="col">{name}</th>' for name in names) + "</tr>"


# ----------------------------------------------------------------------------------------- drawing


def plot(lines, ticks, label, size=(360, 220), mark=None):
    """
    A chart of shares, 0 to 100% upwards.

    :param lines: {style, "first" to "third": list of (x, y)}, y from 0 to 1
    :param ticks: {x: text} along the axis, which they span; empty for a small one without texts
    :param label: what a screen reader says in place of it
    :param size: (width, height) of the drawing
    :param mark: x of a vertical line, or None
    :return: SVG
    """
    width, height = size
    left, bottom = (38, 22) if ticks else (4, 4)
    right = top = 8
    low, high = (min(ticks), max(ticks)) if ticks else (0.0, 1.0)

    def place(x, y):
        x = left + (x - low) / (high - low) * (width - left - right)
        return round(x, 1), round(top + (1 - y) * (height - top - bottom), 1)

    parts = []
    for share in (0, 0.5, 1):
        (x_1, y), (x_2, _) = place(low, share), place(high, share)
        parts.append(f'<line class="grid" x1="{x_1}" y1="{y}" x2="{x_2}" y2="{y}"/>')
        if ticks:
            parts.append(f'<text x="{left - 5}" y="{y + 4}" text-anchor="end">{share:.0%}</text>')
    for tick, name in ticks.items():
        x, y = place(tick, 0)
        parts.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle">{text(name)}</text>')
    if mark is not None:
        (x, y_1), (_, y_2) = place(mark, 0), place(mark, 1)
        parts.append(f'<line class="mark" x1="{x}" y1="{y_1}" x2="{x}" y2="{y_2}"/>')
    for style, points in lines.items():
        path = " ".join("{},{}".format(*place(x, y)) for x, y in points if not math.isnan(y))
        parts.append(f'<polyline class="line {style}" points="{path}"/>')
    return svg(parts, size, label)


def svg(parts, size, label):
    """A drawing made of parts."""
    content = "".join(parts)
    return (
        f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{text(label)}">'
        f"{content}</svg>"
    )


def key(names):
    """What the lines of a plot are: {style: name}."""
    entries = []
    for style, name in names.items():
        line = f'<polyline class="line {style}" points="1,5 25,5"/>'
        sample = f'<svg viewBox="0 0 26 10" aria-hidden="true">{line}</svg>'
        entries.append(f'<span class="key">{sample} {name}</span>')
    return f"<p>{''.join(entries)}</p>"


def bars(rows, label, size=(360, 220)):
    """
    Objects by size: a bar for each range, its lower part for those that were found.

    :param rows: what diagnosis.count_by_side returns
    """
    width, height = size
    left, top, bottom = 4, 18, 22
    most = max(n_objects for _, _, n_objects, _ in rows)
    step = (width - 2 * left) / len(rows)
    parts = []
    for i, (low, _, n_objects, n_found) in enumerate(rows):
        x = left + i * step
        full = n_objects / most * (height - top - bottom)
        found = n_found / most * (height - top - bottom)
        base = height - bottom
        for style, y, length in (("notfound", base - full, full), ("found", base - found, found)):
            parts.append(
                f'<rect class="{style}" x="{x + 1:.1f}" y="{y:.1f}" width="{step - 2:.1f}" '
                f'height="{length:.1f}"/>'
            )
        if n_objects:
            middle = f'x="{x + step / 2:.1f}" text-anchor="middle"'
            share = f"{n_found / n_objects:.0%}"
            parts.append(f'<text {middle} y="{base - full - 4:.1f}">{share}</text>')
        if i % math.ceil(len(rows) / 12) == 0:
            edge = f'x="{max(x, 8):.1f}" text-anchor="middle"'
            parts.append(f'<text {edge} y="{base + 15}">{low:.0f}</text>')
    return svg(parts, size, label)


# ---------------------------------------------------------------------------------------- sections


def heading(evaluated, title, detections, objects, threshold):
    """The title, and the figures that matter most."""
    n_difficult = int(objects.difficulties.sum())
    n_objects = len(objects.labels) - n_difficult
    difficult = f", and {n_difficult:,} difficult" if n_difficult else ""
    tiles = {
        f"mAP ({evaluated.metric})": percent(evaluated.mAP) + "%",
        f"objects{difficult}": f"{n_objects:,}",
        f"detections on {len(evaluated.image_paths):,} images": f"{len(detections.labels):,}",
    }
    if threshold:
        shares = f"{percent(threshold.precision)}% right, {percent(threshold.recall)}% found"
        tiles[f"recommended min_score: {shares}"] = score_text(threshold.min_score)
    shown = "".join(
        f'<div class="tile"><b>{value}</b>{text(name)}</div>' for name, value in tiles.items()
    )
    return f'<h1>{text(title)}</h1>\n<div class="tiles">{shown}</div>'


def class_section(evaluated, detections, objects, threshold):
    """The table of the classes, each with its own best threshold."""
    rows = []
    for name, number in classes_of(evaluated):
        of_class = detections.labels == number
        n_objects = int(((objects.labels == number) & ~objects.difficulties).sum())
        best = diagnosis.recommend_threshold(
            detections.scores[of_class],
            detections.is_true[of_class],
            detections.is_false[of_class],
            n_objects,
        )
        average = percent(evaluated.average_precisions[name])
        rows.append([text(name), f"{n_objects:,}", average, *threshold_cells(best)])
    n_objects = int((~objects.difficulties).sum())
    total = ["all classes", f"{n_objects:,}", percent(evaluated.mAP), *threshold_cells(threshold)]
    names = ["class", "objects", "AP %", "min_score", "right %", "found %"]
    return (
        "<h2>Classes</h2>\n"
        f"<p>Average precision (AP) as the metric {text(evaluated.metric)} defines it. The "
        "recommended min_score is the one with the best F1, the harmonic mean of the share of "
        "detections that are right (precision) and the share of objects found (recall): the two "
        "last columns. Give a higher one where a false alarm costs more than a missed object.</p>\n"
        + table(head_row(names), [*rows, total])
    )


def classes_of(evaluated):
    """(name, number) of each class that was compared."""
    return [(name, number) for name, number in evaluated.label_map.items() if number > 0]


def threshold_cells(threshold):
    """The cells of a table about a threshold, or about None."""
    if threshold is None:
        return ["n/a"] * 3
    shares = [percent(threshold.precision), percent(threshold.recall)]
    return [score_text(threshold.min_score), *shares]


def curve_section(evaluated, detections, objects):
    """A small precision-recall curve for each class."""
    figures = []
    for name, number in classes_of(evaluated):
        of_class = detections.labels == number
        n_objects = int(((objects.labels == number) & ~objects.difficulties).sum())
        caption = f"{text(name)}: n/a, no objects"
        points = []
        if n_objects:
            judged = detections.is_true[of_class], detections.is_false[of_class]
            points = diagnosis.curve(*judged, n_objects)
            caption = f"{text(name)}: {percent(evaluated.average_precisions[name])}"
        drawing = plot({"first": points}, {}, f"precision-recall curve of {name}", (160, 120))
        figures.append(f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>")
    return (
        "<h2>Precision and recall</h2>\n"
        "<p>From left to right: the share of the objects that are found, 0 to 100%. Upwards: the "
        "share of the detections that are right (overlap above 0.5) when so many are found. Below "
        "each curve its AP from the table. "
        "A curve that ends early belongs to a class whose objects are missed; one that sinks "
        "early, to a class with false alarms at high scores.</p>\n"
        f'<div class="curves">{"".join(figures)}</div>'
    )


def error_section(detections, objects, label_map, min_score, metric):
    """How many errors of which kind there are, and what they cost."""
    counts = diagnosis.count_errors(detections, objects, min_score)
    gains = diagnosis.find_gains(detections, objects, label_map, metric)
    largest = max([1, *counts.values()])
    rows = []
    for kind, meaning in diagnosis.KINDS.items():
        bar = f'<span class="bar" style="width:{round(60 * counts[kind] / largest)}px"></span>'
        gain = "n/a" if math.isnan(gains[kind]) else f"{100 * gains[kind]:+.1f}"
        meaning = f'<td class="text">{text(meaning)}</td>'
        rows.append([kind, f"{bar}{counts[kind]:,}", gain, meaning])
    head = head_row(["kind", "errors", "mAP gain"])
    head = head.replace("</tr>", '<th scope="col" class="text">what it is</th></tr>')
    return (
        "<h2>Kinds of errors</h2>\n"
        "<p>The six kinds of TIDE (Bolya et al. 2020). Errors are those that remain at the "
        f"recommended min_score, {score_text(min_score)}. The gain is by how many points the mAP "
        f"({metric}, overlap above 0.5) would grow, over detections of all scores, if all errors "
        "of that kind were mended: mend first what gains most.</p>\n"
        + table(head, rows, last_is_total=False)
    )


def score_section(detections, n_objects, threshold):
    """Precision and recall against the threshold."""
    if len(detections.scores) == 0:
        return "<h2>Choosing min_score</h2>\n<p>There are no detections.</p>"
    low = min(0.0, float(detections.scores[-1]))
    high = max(1.0, float(detections.scores[0]))
    thresholds = [low + (high - low) * i / 100 for i in range(101)]
    precision, recall = diagnosis.precision_and_recall(detections, n_objects, thresholds)
    both = zip(precision, recall, strict=True)
    f1 = [2 * p * r / (p + r) if p + r > 0 else math.nan for p, r in both]
    lines = {
        style: list(zip(thresholds, values, strict=True))
        for style, values in (("first", precision), ("second", recall), ("third", f1))
    }
    ticks = {low + (high - low) * i / 5: f"{low + (high - low) * i / 5:.1f}" for i in range(6)}
    drawing = plot(
        lines,
        ticks,
        "precision, recall and F1 against min_score",
        mark=threshold.min_score if threshold else None,
    )
    names = {"first": "right (precision)", "second": "found (recall)", "third": "F1"}
    chosen = "No detection is right, so no threshold is better than another."
    if threshold:
        chosen = (
            f"The vertical line, {score_text(threshold.min_score)}, has the best F1 over all "
            "classes together."
        )
    return (
        "<h2>Choosing min_score</h2>\n"
        "<p>From left to right: the score above which detections are kept (min_score of "
        f"detect.py). {chosen}</p>\n"
        f'<figure class="chart">{drawing}</figure>\n{key(names)}'
    )


def size_section(evaluated, detections, objects, min_score, metric):
    """How well objects of which size are found."""
    results = diagnosis.measure_by_size(
        detections, objects, evaluated.label_map, len(evaluated.columns[1]), min_score, metric
    )
    rows = []
    for name, _ in classes_of(evaluated):
        cells = []
        for by_class in results.values():
            cells += size_cells([by_class[name]])
        rows.append([text(name), *cells])
    total = ["all classes"]
    for by_class in results.values():
        total += size_cells(list(by_class.values()))
    groups = "".join(f'<th scope="colgroup" colspan="3">{size}</th>' for size in diagnosis.SIZES)
    head = f"<tr><th></th>{groups}</tr>" + head_row(["class", *["objects", "found %", "AP %"] * 3])
    return (
        "<h2>Sizes of objects</h2>\n"
        + side_figure(evaluated, detections, objects, min_score)
        + "<p>Small, medium and large as COCO has them: an area below 32 x 32, below 96 x 96, and "
        "from 96 x 96 pixels of the image file. Found: by detections above the recommended "
        f"min_score. AP: {metric}, overlap above 0.5.</p>\n" + table(head, [*rows, total])
    )


def size_cells(results):
    """The cells about some classes' SizeResults together: objects, found, mean AP."""
    n_objects = sum(result.n_objects for result in results)
    if n_objects == 0:
        return ["0", "n/a", "n/a"]
    present = [result for result in results if result.n_objects]
    recall = sum(result.recall * result.n_objects for result in present) / n_objects
    average = sum(result.average_precision for result in present) / len(present)
    return [f"{n_objects:,}", percent(recall), percent(average)]


def side_figure(evaluated, detections, objects, min_score):
    """The chart of objects by their side, and from what side on they are found."""
    countable = ~objects.difficulties
    sides = diagnosis.areas(objects.boxes_px).clamp(min=0).sqrt()
    sizes = read_sizes(evaluated.image_paths)
    unit = "pixels of the image file"
    if sizes is not None:
        width, height = sizes[objects.images].unbind(1)
        sides = sides * IMAGE_SIZE / (width * height).sqrt()
        unit = f"pixels of the {IMAGE_SIZE} x {IMAGE_SIZE} image that the network sees"
    found = diagnosis.find_found(detections, objects, min_score)
    rows = diagnosis.count_by_side(sides[countable], found[countable])
    if not rows:
        return "<p>There are no objects.</p>\n"
    smallest = diagnosis.smallest_side(rows)
    verdict = "Less than half of even the largest objects are found."
    if smallest is not None:
        verdict = f"At least half of the objects are found from {smallest:.0f} pixels on."
    drawing = bars(rows, "objects by size, and the share of them that was found")
    return (
        f"<p>{verdict} From left to right: the side of a square with an object's area, in {unit}. "
        "Each bar's height is the number of objects, its coloured part and the number above it "
        "the share that is found.</p>\n"
        f'<figure class="chart">{drawing}</figure>\n'
    )


def read_sizes(image_paths):
    """
    :return: (n, 2) float, width and height of each image in pixels; None if some are not there
    """
    try:
        files = [ImageFile(path) for path in image_paths]
    except (OSError, ValueError):
        return None
    return torch.tensor([[file.width, file.height] for file in files], dtype=torch.float32)


# ---------------------------------------------------------------------------------------- pictures


def picture_section(evaluated, detections, objects, min_score):
    """The worst false alarms and misses as pictures, where the image files are there."""
    if not any(Path(path).is_file() for path in evaluated.image_paths):
        return "<h2>Pictures</h2>\n<p>The image files are not here, so there are no pictures.</p>"
    alarms = false_alarms(evaluated, detections, objects)
    misses = missed_objects(evaluated, detections, objects, min_score)
    return (
        "<h2>False alarms with the highest scores</h2>\n"
        "<p>Orange: the detection. Green: the objects of the image. An object that someone forgot "
        "to annotate shows up here, too.</p>\n"
        + gallery(alarms)
        + "\n<h2>The largest objects that were missed</h2>\n"
        "<p>Orange: an object that nothing was found for at the recommended min_score. Green: the "
        "other objects of the image.</p>\n" + gallery(misses)
    )


class Picture(NamedTuple):
    """What a picture shows."""

    path: str  # image file
    box_px: list  # what it is about
    others_px: list  # other objects of the image
    caption: str  # HTML


def gallery(pictures):
    """Pictures side by side."""
    figures = []
    for picture in pictures:
        try:
            source = thumbnail(picture)
        except (OSError, ValueError) as error:  # the page is worth having without it
            figures.append(f"<figure><figcaption>{text(error)}</figcaption></figure>")
            continue
        name = text(Path(picture.path).name)
        figures.append(
            f'<figure><img src="{source}" alt="{name}">'
            f"<figcaption>{picture.caption}<br>{name}</figcaption></figure>"
        )
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def false_alarms(evaluated, detections, objects):
    """:return: list of Picture, of the false positives with the highest scores but duplicates"""
    names = {number: name for name, number in evaluated.label_map.items()}
    kinds = diagnosis.find_kinds(detections)
    rows = (detections.is_false & ~kinds["duplicate"]).nonzero().squeeze(1)
    pictures = []
    for row in few_per_image(rows, detections.images):
        (kind,) = [kind for kind, is_kind in kinds.items() if is_kind[row]]
        caption = f"{text(names[int(detections.labels[row])])} {detections.scores[row]:.2f}: {kind}"
        if kind == "classification":
            label = int(objects.labels[detections.other_object[row]])
            caption += f", it is {text(names[label])}"
        image = int(detections.images[row])
        others = objects.boxes_px[objects.images == image].tolist()
        box = detections.boxes_px[row].tolist()
        pictures.append(Picture(evaluated.image_paths[image], box, others, caption))
    return pictures


def missed_objects(evaluated, detections, objects, min_score):
    """:return: list of Picture, of the largest missed objects"""
    names = {number: name for name, number in evaluated.label_map.items()}
    kinds = diagnosis.find_kinds(detections)
    missed = diagnosis.find_missed(detections, objects, kinds, min_score)
    sizes = diagnosis.areas(objects.boxes_px)
    rows = torch.where(missed, sizes, -1.0).argsort(descending=True, stable=True)
    pictures = []
    for row in few_per_image(rows[: int(missed.sum())], objects.images):
        image = int(objects.images[row])
        is_other = objects.images == image
        is_other[row] = False
        x_min, y_min, x_max, y_max = box = objects.boxes_px[row].tolist()
        size = f"{x_max - x_min:.0f} x {y_max - y_min:.0f} pixels"
        caption = f"{text(names[int(objects.labels[row])])}, {size}"
        others = objects.boxes_px[is_other].tolist()
        pictures.append(Picture(evaluated.image_paths[image], box, others, caption))
    return pictures


def few_per_image(rows, images):
    """The first N_PICTURES of the rows, but no more than N_PER_IMAGE of the same image."""
    counts = {}
    chosen = []
    for row in rows.tolist():
        image = int(images[row])
        counts[image] = counts.get(image, 0) + 1
        if counts[image] <= N_PER_IMAGE:
            chosen.append(row)
        if len(chosen) == N_PICTURES:
            break
    return chosen


def thumbnail(picture):
    """
    The part of an image around a box, with the boxes drawn.

    :return: data URI of a JPEG
    :raises ValueError, OSError: the image cannot be read
    """
    image = read_image(picture.path)
    part = choose_part(picture.box_px, image.size)
    scale = PICTURE_SIDE / max(part[2] - part[0], part[3] - part[1])
    size = [max(1, round((part[i + 2] - part[i]) * scale)) for i in range(2)]
    small = image.resize(size, Image.Resampling.BICUBIC, box=part)
    pen = ImageDraw.Draw(small)
    for box in picture.others_px:
        draw_box(pen, box, part, scale, OBJECT_COLOUR, 2)
    draw_box(pen, picture.box_px, part, scale, BOX_COLOUR, 3)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def choose_part(box_px, image_size, margin=0.4, smallest_share=0.4):
    """
    The part of an image that shows a box and what is around it.

    :param margin: on each side, in sides of the box
    :param smallest_share: of the image's sides, the least that is shown
    :return: (x_min, y_min, x_max, y_max) in pixels, inside of the image
    """
    edges = []
    for axis in range(2):
        low, high, full = box_px[axis], box_px[axis + 2], image_size[axis]
        length = max((1 + 2 * margin) * (high - low), smallest_share * full, 1)
        length = min(length, full)
        start = (low + high - length) / 2
        start = max(0, min(start, full - length))
        edges.append((start, start + length))
    (x_min, x_max), (y_min, y_max) = edges
    return x_min, y_min, x_max, y_max


def draw_box(pen, box_px, part, scale, colour, line_width):
    """Draw a box of the image onto the picture of a part of it."""
    x_min, y_min, x_max, y_max = box_px
    left, top = (x_min - part[0]) * scale, (y_min - part[1]) * scale
    right, bottom = (x_max - part[0]) * scale, (y_max - part[1]) * scale
    corners = (left, top, max(left, right - 1), max(top, bottom - 1))
    pen.rectangle(corners, outline=colour, width=line_width)
