"""The figure of this code's files: the scripts, and what they are made of, by subject."""

from pathlib import Path

from style import INK, LAYER, MARK, OBJECT, QUIET, SMALL, Card, mix

CODE = Path(__file__).resolve().parents[1]

# Each line: the script, and what it does
SCRIPTS = {
    "create_data_lists": "finds data",
    "train": "trains",
    "eval": "measures",
    "detect": "detects",
    "export": "to ONNX",
    "convert_weights": "converts",
}
# Each column: what it is about, and its files, of which each uses those below it at most, and files
# of other columns
COLUMNS = {
    "the detector": {
        "datasets": "images, batches",
        "model": "network, loss",
        "utils": "boxes, mAP",
    },
    "data": {
        "toy_data": "draws images",
        "toy_drawings": "the shapes",
        "preview": "a first look",
        "data_lists": "writes lists",
        "data_folders": "finds images",
        "voc_folders": "VOC's lists",
        "data_yaml": "YOLO's settings",
        "annotations": "reads objects",
        "downloads": "fetches files",
    },
    "weights, runs": {
        "resume": "going on",
        "history": "curves, log",
        "checkpoints": "writes, reads",
        "published_weights": "of others",
        "safe_loading": "reads safely",
    },
    "results": {
        "report": "a page",
        "diagnosis": "kinds of errors",
        "coco_metric": "COCO's AP",
        "detection_files": "VOC's, COCO's",
        "films": "moving images",
        "drawing": "boxes, labels",
    },
}
FOR_ALL = {"runtime": "command line, errors, devices, several processes"}

BOX_HEIGHT = 96
STEP = 112  # from box to box


def files_shown():
    """The names of all files in the figure."""
    names = [*SCRIPTS, *FOR_ALL]
    for files in COLUMNS.values():
        names += files
    return names


def architecture_of_code():
    """The scripts on top, what they use in columns below, and what all use at the bottom."""
    n_rows = max(len(files) for files in COLUMNS.values())
    bottom = 426 + n_rows * STEP
    card = Card(bottom + BOX_HEIGHT + 40)
    card.text(46, 50, "scripts", SMALL, QUIET, "left", bold=True)
    for number, (name, purpose) in enumerate(SCRIPTS.items()):
        x = 46 + 372 * (number % 3)
        draw_file(card, x, 80 + STEP * (number // 3), 350, name, purpose, OBJECT)
    for number, (title, files) in enumerate(COLUMNS.items()):
        x = 46 + 279 * number
        is_detector = number == 0
        if is_detector:  # what a reader needs
            height = len(files) * STEP + 80
            card.rectangle(x - 12, 332, 286, height, fill=mix(MARK, share=0.75), radius=18)
        card.text(x, 366, title, SMALL, QUIET, "left", bold=True)
        for row, (name, purpose) in enumerate(files.items()):
            draw_file(card, x, 402 + STEP * row, 262, name, purpose, LAYER)
    for name, purpose in FOR_ALL.items():
        draw_file(card, 46, bottom, 1099, name, purpose, LAYER)
    return card.image()


def draw_file(card, x, y, width, name, purpose, colour):
    """Draw a file as a box with its name and purpose; (x, y) is its upper left corner."""
    card.rectangle(x, y, width, BOX_HEIGHT, fill=mix(colour), edge=colour, line=4, radius=16)
    card.text(x + width / 2, y + 30, name, SMALL, INK, bold=True)
    card.text(x + width / 2, y + 68, purpose, SMALL, INK)


FIGURES = {"architecture_of_code.png": architecture_of_code}
