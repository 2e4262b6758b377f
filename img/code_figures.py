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
# Each column: groups of files, by what they are about
COLUMNS = (
    {
        "the detector": {
            "datasets": "images, batches",
            "model": "network, loss",
            "utils": "boxes, mAP",
        },
        "weights, runs": {
            "resume": "begins, goes on",
            "history": "curves, log",
            "checkpoints": "writes, reads",
            "published_weights": "those of others",
            "safe_loading": "reads safely",
        },
    },
    {
        "data": {
            "data_folders": "finds images",
            "voc_folders": "in VOC's lists",
            "data_yaml": "YOLO's settings",
            "annotations": "reads objects",
            "data_lists": "writes lists",
            "downloads": "fetches files",
            "preview": "a first look",
        },
        "toy data": {
            "toy_data": "draws images",
            "toy_drawings": "the shapes",
        },
    },
    {
        "results": {
            "image_paths": "which files",
            "drawing": "boxes, labels",
            "films": "moving images",
            "detection_files": "VOC's, COCO's",
            "coco_metric": "COCO's AP",
            "diagnosis": "kinds of errors",
            "report": "all on a page",
        },
    },
)
FOR_ALL = {"runtime": "command line, errors, devices, several processes"}

WIDTH = 352  # of a box, pixels
HEIGHT = 104
STEP_X = 374  # from box to box
STEP_Y = 116
TITLE = 70  # room for the title of a group
GAP = 20  # below a group
TOP = 352  # of the columns


def files_shown():
    """The names of all files in the figure."""
    groups = [group for column in COLUMNS for group in column.values()]
    return [name for group in (SCRIPTS, *groups, FOR_ALL) for name in group]


def architecture_of_code():
    """The scripts on top, what they use in columns below, and what all use at the bottom."""
    bottom = TOP + max(height_of(column) for column in COLUMNS)
    card = Card(bottom + HEIGHT + 36)
    draw_title(card, 50, 30, "scripts")
    for number, (name, purpose) in enumerate(SCRIPTS.items()):
        row, column = divmod(number, 3)
        y = 30 + TITLE + STEP_Y * row
        draw_file(card, 50 + STEP_X * column, y, WIDTH, name, purpose, OBJECT)
    for number, column in enumerate(COLUMNS):
        x = 50 + STEP_X * number
        y = TOP
        for title, files in column.items():
            draw_group(card, x, y, title, files)
            y += height_of({title: files})
    for name, purpose in FOR_ALL.items():
        draw_file(card, 50, bottom, 2 * STEP_X + WIDTH, name, purpose, LAYER)
    return card.image()


def height_of(groups):
    """How much room groups of files take below each other."""
    return sum(TITLE + STEP_Y * len(files) + GAP for files in groups.values())


def draw_group(card, x, y, title, files):
    """Draw the files of a group below its title."""
    if title == "the detector":  # all that is needed to understand it
        height = TITLE + STEP_Y * len(files) + 6
        card.rectangle(x - 11, y, WIDTH + 22, height, fill=mix(MARK, share=0.75), radius=18)
    draw_title(card, x, y, title)
    for row, (name, purpose) in enumerate(files.items()):
        draw_file(card, x, y + TITLE + STEP_Y * row, WIDTH, name, purpose, LAYER)


def draw_title(card, x, y, title):
    """Write the title of a group."""
    card.text(x, y + 40, title, SMALL, QUIET, "left", bold=True)


def draw_file(card, x, y, width, name, purpose, colour):
    """Draw a file as a box with its name and purpose; (x, y) is its upper left corner."""
    card.rectangle(x, y, width, HEIGHT, fill=mix(colour), edge=colour, line=4, radius=16, layer=5)
    card.text(x + width / 2, y + 30, name, SMALL, INK, bold=True)
    card.text(x + width / 2, y + 74, purpose, SMALL, INK)


FIGURES = {"architecture_of_code.png": architecture_of_code}
