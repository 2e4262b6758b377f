"""The figure of this code's files, and which of them builds on which."""

import ast
from pathlib import Path
from typing import NamedTuple

from style import INK, LAYER, MARK, NORMAL, OBJECT, QUIET, SMALL, Card, mix

CODE = Path(__file__).resolve().parents[1]
HALF_HEIGHT = 52  # of a file's box on the card, pixels


class Box(NamedTuple):
    """Where a file stands on the card, in pixels, and what it does."""

    x: int  # of its middle
    y: int
    half_width: int
    purpose: str


# A file uses only files that stand lower. The detector is in the middle; its data are on the left,
# its weights on the right.
CODE_FILES = {
    "create_data_lists": Box(178, 170, 160, "makes the lists"),
    "train": Box(600, 170, 95, "trains"),
    "convert_weights": Box(1004, 170, 178, "converts them"),
    "toy_data": Box(186, 330, 120, "toy images"),
    "eval": Box(503, 330, 93, "evaluates"),
    "detect": Box(702, 330, 93, "detects"),
    "image_paths": Box(716, 455, 94, "which files"),
    "checkpoints": Box(1004, 520, 178, "saves and loads"),
    "drawing": Box(618, 590, 64, "labels"),
    "films": Box(750, 590, 58, "frames"),
    "toy_drawings": Box(184, 640, 124, "simple shapes"),
    "history": Box(952, 670, 126, "progress, log"),
    "datasets": Box(681, 760, 114, "reads images"),
    "published_weights": Box(1004, 820, 178, "those of others"),
    "model": Box(523, 970, 118, "network, loss"),
    "safe_loading": Box(1004, 970, 178, "reads files safely"),
    "utils": Box(600, 1120, 203, "boxes, transforms, mAP"),
    "data_lists": Box(485, 1280, 105, "VOC to lists"),
    "downloads": Box(180, 1440, 162, "fetches files"),
    "annotations": Box(777, 1440, 405, "names of classes, objects in VOC's XML"),
    "runtime": Box(600, 1580, 582, "command line, device, processes (arrows to it are left out)"),
}
FOR_ALL = "runtime"
# Where arrows start and end, x in pixels, if they would otherwise cross a box
DETOURS = {
    ("create_data_lists", "downloads"): (40, 40),
    ("create_data_lists", "datasets"): (280, 572),
    ("toy_data", "data_lists"): (300, 395),
    ("eval", "checkpoints"): (570, 880),
    ("eval", "datasets"): (420, 590),
    ("detect", "checkpoints"): (790, 940),
    ("detect", "drawing"): (611, 614),
    ("drawing", "datasets"): (640, 650),
    ("films", "datasets"): (750, 740),
    ("checkpoints", "published_weights"): (1125, 1125),
    ("model", "downloads"): (410, 300),
}


def code_files():
    """The names of the files that are there, in the order of CODE_FILES."""
    return [name for name in CODE_FILES if (CODE / f"{name}.py").is_file()]


def imports_of(name):
    """The files of this code that one of them imports."""
    tree = ast.parse((CODE / f"{name}.py").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found & set(code_files())


def direct_imports():
    """
    Which file builds on which, without what follows from that: if a file imports two others, and
    one of them builds on the other, only the first one counts.

    :return: {name: names}
    """
    imports = {name: imports_of(name) for name in code_files()}

    def builds_on(name, other):
        return any(other == step or builds_on(step, other) for step in imports[name])

    direct = {}
    for name, used in imports.items():
        direct[name] = {
            other for other in used if not any(builds_on(step, other) for step in used - {other})
        }
    return direct


def is_script(name):
    """Whether a file can be run."""
    return '__name__ == "__main__"' in (CODE / f"{name}.py").read_text(encoding="utf-8")


def architecture_of_code():
    """The files, and which builds on which."""
    card = Card(1760)
    card.rectangle(388, 30, 424, 1172, fill=mix(MARK, share=0.75), radius=18, layer=1)
    card.text(178, 68, "data", NORMAL, QUIET, bold=True)
    card.text(600, 68, "the detector", NORMAL, QUIET, bold=True)
    card.text(1004, 68, "weights", NORMAL, QUIET, bold=True)
    for name in code_files():
        draw_file(card, name)
    for name, used in direct_imports().items():
        for other in sorted(used - {FOR_ALL}):
            draw_import(card, name, other)
    card.rectangle(44, 1680, 60, 44, mix(OBJECT), OBJECT, 4)
    card.text(122, 1702, "can be run", SMALL, align="left")
    card.arrow((420, 1702), (500, 1702), INK, 4)
    card.text(520, 1702, "builds on (and on what is below)", SMALL, align="left")
    return card.image()


def draw_file(card, name):
    """Draw a file as a box with its name and purpose."""
    x, y, half_width, purpose = CODE_FILES[name]
    colour = OBJECT if is_script(name) else LAYER
    area = (x - half_width, y - HALF_HEIGHT, 2 * half_width, 2 * HALF_HEIGHT)
    card.rectangle(*area, fill=mix(colour), edge=colour, line=4, radius=16, layer=5)
    card.text(x, y - 22, name, SMALL, INK, bold=True)
    card.text(x, y + 22, purpose, SMALL, INK)


def draw_import(card, name, other):
    """Draw an arrow from a file to one that it imports."""
    file = CODE_FILES[name]
    target = CODE_FILES[other]
    if (name, other) in DETOURS:
        start, end = DETOURS[name, other]
    elif abs(target.x - file.x) < target.half_width:  # below it
        start = file.x
        end = file.x
    else:
        side = 1 if target.x > file.x else -1
        start = file.x + side * 0.75 * file.half_width
        end = target.x - side * 0.75 * target.half_width
    tip = target.y - HALF_HEIGHT - 4
    card.arrow((start, file.y + HALF_HEIGHT), (end, tip), INK, 4)


FIGURES = {"architecture_of_code.png": architecture_of_code}
