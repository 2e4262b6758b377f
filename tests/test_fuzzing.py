"""
Mutated annotations, lists and images: each must give a correct result, or one of our errors that
names the file; no other exception, no crash, no hang, and no memory without bounds.

200 inputs of each kind run with the quick tests and 1,000 with the slow ones; `SSD_FUZZ=10000
python -m pytest tests/test_fuzzing.py -m slow` runs 10,000. They follow from fixed seeds. Each kind
runs in a process of its own, `python tests/test_fuzzing.py KIND N FOLDER`, with a limit to its
memory; the input that it died of, or that broke a rule, is left in the folder.
"""

import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from annotations import MAX_COORDINATE, MIN_SIDE, AnnotationError, read_coco, read_yolo
from data_yaml import read_data_yaml
from datasets import MAX_IMAGE_SIDE, MAX_PIXELS, PascalVOCDataset, read_image
from helpers.folders import CAR, annotation_xml, make_voc, object_xml
from utils import parse_annotation
from voc_folders import find_listed_images, list_path

N_INPUTS = int(os.environ.get("SSD_FUZZ", "1000"))
# An image of MAX_PIXELS takes 360 MB as RGB; with transparency, 480 MB more; and there is the file
MEMORY = 1_500_000_000  # bytes, beyond what the imports take
HOSTILE_NUMBERS = (
    "0", "-1", "-0.0", "1e999", "-1e999", "nan", "inf", "-Infinity", "1e-320", "1e308", "9" * 30,
    "9" * 5000, "0x10", "1_000", "1,5", "", " ", "١٢", "2147483648", "18446744073709551616", "0.1",
    "99.9999999", "true",
)  # fmt: skip

# ---------------------------------------------------------------------------------------- mutations


def mutate_bytes(content, others, rng):
    """
    One to four changes of bytes: bits flipped, numbers of 2 or 4 bytes replaced, parts deleted,
    doubled or cut off, bytes put in, or the rest of another file put in place of this one's.
    """
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        if not content:
            break
        # Half of the changes near the beginning, where the headers are
        place = (
            int(rng.integers(len(content)))
            if rng.random() < 0.5
            else int(rng.integers(min(len(content), 64)))
        )
        length = int(rng.integers(1, 2 + min(len(content) - place, 200)))
        kind = rng.integers(7)
        if kind == 0:
            content[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            value = int(
                rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 50_000])
            )
            size = 4 if value > 0xFFFF or rng.random() < 0.5 else 2
            content[place : place + size] = value.to_bytes(
                size, "little" if rng.random() < 0.5 else "big"
            )
        elif kind == 2:
            del content[place : place + length]
        elif kind == 3:
            content[place:place] = content[place : place + length] * int(rng.integers(1, 20))
        elif kind == 4:
            del content[place:]
        elif kind == 5:
            content[place:place] = rng.bytes(length)
        else:
            other = others[rng.integers(len(others))]
            content[place:] = other[int(rng.integers(len(other))) :]
    return bytes(content)


def replace_number(text, rng):
    """Put a hostile number in place of one of the numbers of a text."""
    places = [match.span() for match in re.finditer(r"-?\d+(?:\.\d+)?", text)]
    if not places:
        return text
    start, end = places[rng.integers(len(places))]
    return text[:start] + str(rng.choice(HOSTILE_NUMBERS)) + text[end:]


def bomb(levels, open_tag="&"):
    """A document type in which each entity is ten of the one before: 10 ** levels in the end."""
    entities = ['<!ENTITY e0 "lol">']
    entities += [f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, levels)]
    return f"<!DOCTYPE annotation [{''.join(entities)}]>"


def mutate_xml(text, others, rng):
    """A change that only makes sense for annotations, or any change of bytes."""
    kind = rng.integers(10)
    tags = re.findall(r"</?\w+>", text)
    if kind == 0:
        return replace_number(text, rng).encode()
    if kind == 1:
        tag = str(rng.choice(tags))
        return text.replace(
            tag,
            str(rng.choice([*tags, "", "<", tag * 2, "<x y='1' y='2'>", "<![CDATA[", "&amp;"])),
            1,
        ).encode()
    if kind == 2:
        depth = int(rng.choice([10, 1000, 100_000]))
        return ("<object>" * depth + text + "</object>" * depth).encode()
    if kind == 3:
        levels = int(rng.integers(1, 12))
        return (bomb(levels) + text.replace(">car<", f">&e{levels - 1};<")).encode(
            str(rng.choice(["utf-8", "utf-16"]))
        )
    if kind == 4:
        declared, used = rng.choice(
            ["utf-8", "utf-16", "utf-16-le", "latin-1", "utf-7", "cp037", "shift-jis"], 2
        )
        declared = str(rng.choice([declared, used, "idna", "hex", "unicode_escape", "nonsense"]))
        text = f'<?xml version="1.0" encoding="{declared}"?>' + text.replace("car", "Fußgänger")
        return text.encode(str(used), errors="replace")
    if kind == 5:
        return (text * int(rng.integers(2, 4))).encode()
    if kind == 6:
        names = "&#0;", "&#xD800;", "&nothing;", "a\0b", "x" * 100_000, "\n", "🚗"
        return text.replace("car", str(rng.choice(names))).encode()
    if kind == 7:  # another root, or a namespace for one kind of tags
        name = str(rng.choice(["annotation", "object", "name", "xmax", "size"]))
        new_name = str(rng.choice(["html", "Annotation", "Object", "v:object", "OBJECT", "item"]))
        text = text.replace(f"<{name}>", f'<{new_name} xmlns:v="urn:v" xmlns="urn:x">')
        return text.replace(f"</{name}>", f"</{new_name}>").encode()
    return mutate_bytes(text.encode(), others, rng)


HOSTILE_VALUES = (
    None, True, False, 0, -1, 1.5, 1e308, -0.0, float("nan"), float("inf"), float("-inf"), 10**30,
    10**4000, "", "1", "\0", "\ud800", "x" * 5000, [], {}, [[]], [None] * 4, {"boxes": []},
    [1, 2, 3], [1, 2, 3, 4], [9, 9, 1, 1],
)  # fmt: skip


def mutate_json(content, others, rng):
    """Replace, remove or double one value anywhere in the content; perhaps change the text, too."""
    places = []

    def collect(node):
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                collect(node[key])

    content = [json.loads(json.dumps(content))]
    collect(content)
    for _ in range(rng.integers(0, 3)):
        node, key = places[rng.integers(len(places))]
        kind = rng.integers(4)
        if kind == 0 and isinstance(node, list) and node is not content:
            node.append(HOSTILE_VALUES[rng.integers(len(HOSTILE_VALUES))])
        elif kind == 1 and isinstance(node, dict):
            node[str(rng.choice(["boxes", "background", "labels", "x"]))] = node.get(key)
        elif isinstance(node, dict) or key < len(node):
            node[key] = HOSTILE_VALUES[rng.integers(len(HOSTILE_VALUES))]
    text = json.dumps(content[0])
    kind = rng.integers(8)
    if kind == 0:
        return replace_number(text, rng).encode()
    if kind == 1:
        depth = int(rng.choice([10, 900, 100_000]))
        return ("[" * depth + text + "]" * depth).encode()
    if kind == 2:  # a key twice
        return re.sub(r"\{", '{"boxes": 1, "background": 0, ', text, count=1).encode()
    if kind == 3:
        return text.encode(str(rng.choice(["utf-16", "utf-8-sig", "utf-32"])))
    return mutate_bytes(text.encode(), others, rng) if kind == 4 else text.encode()


def mutate_names(text, rng):
    """A change of a list of names, or any change of bytes."""
    names = text.splitlines()
    place = int(rng.integers(len(names)))
    kind = rng.integers(6)
    if kind == 0:
        names[place] += str(
            rng.choice([" 0", "  1", " -1", "\t1", " 2", ".jpg", ".PNG", ".xml", "/"])
        )
    elif kind == 1:
        names[place] = str(rng.choice(HOSTILE_NAMES))
    elif kind == 2:
        names *= int(rng.integers(2, 4))
    text = "\n".join(names)
    if kind == 3:
        encoding = str(rng.choice(["utf-16", "utf-16-be", "utf-8-sig", "latin-1", "utf-32"]))
        return text.encode(encoding, errors="replace")
    return mutate_bytes(text.encode(), [b"other 1\nb -1\n"], rng) if kind > 3 else text.encode()


HOSTILE_NAMES = (
    "..", ".", "/", "../JPEGImages/a", "/etc/passwd", "a/../b", "\x1b[2J", "x" * 300, "x" * 70_000,
    "a\u2028b", "a\x85b", "\u202egpj.a", "a.jpg.jpg", "c:\\a", "~", "*", "-1", "1", "a.jpg -1 1",
)  # fmt: skip


def mutate_image(content, others, rng):
    """A change of bytes; in half of the changed PNG files, the checksums are made right again."""
    content = mutate_bytes(content, others, rng)
    if content.startswith(b"\x89PNG") and rng.random() < 0.5:
        return with_checksums(content)
    return content


def with_checksums(content):
    """A PNG file whose chunks have the right checksums, as far as there are chunks."""
    result, place = content[:8], 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        body = content[place + 4 : place + 8 + length]
        result += content[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        place += 12 + length
    return result


# -------------------------------------------------------------------------------------------- seeds


def xml_seeds():
    """Annotations as VOC and labelling tools write them."""
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    part = f"<part><name>head</name>{box}</part>"
    return [
        annotation_xml(
            CAR,
            ("person", (1, 1, 100, 80)),
            object_xml("cat", (3, 4, 50, 60), "<difficult>1</difficult>"),
        ),
        '<?xml version="1.0" encoding="utf-8"?>\n'
        + annotation_xml(CAR, ("car", (45.7, 21.5, 50.25, 60.0)), size=""),
        annotation_xml(
            object_xml(*CAR).replace(
                "<name>", part + "<pose>Left</pose><truncated>1</truncated><name>", 1
            ),
            CAR,
        ),
        annotation_xml(),
    ]


def coco_seed():
    """What a COCO file says about two images."""
    boxes = ([10, 20, 30.5, 40], [600, 400, 100, 100], [0, 0, 0, 5])
    return {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 480}
            for number in (3, 4)
        ],
        "annotations": [
            {"id": number, "image_id": 3, "category_id": 1 + number, "bbox": bbox, "iscrowd": 0}
            for number, bbox in enumerate(boxes)
        ],
        "categories": [
            {"id": 1 + number, "name": name, "supercategory": "x"}
            for number, name in enumerate(("cat", "dog", "cow"))
        ],
    }


@functools.cache
def image_seeds():
    """Small images in many modes of all formats, some with metadata."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    pixels[:24] = np.linspace(0, 255, 64, dtype=np.uint8)[:, None]
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    two_frames = {"save_all": True, "append_images": [image.rotate(90)]}
    variants = [
        (image, "JPEG", {"exif": exif}),
        (image, "JPEG", {"progressive": True}),
        (image.convert("CMYK"), "JPEG", {}),
        (image, "PNG", {"exif": exif}),
        (image.quantize(16), "PNG", {"transparency": 3}),
        (image.convert("LA"), "PNG", {}),
        (image, "GIF", two_frames),
        (image, "BMP", {}),
        (image.quantize(8), "BMP", {}),
        (image, "WEBP", {"exif": exif}),
        (image, "WEBP", {"lossless": True}),
        (image, "WEBP", two_frames),
        (image, "TIFF", {"exif": exif}),
        (image, "TIFF", {"compression": "tiff_lzw"}),
        (image, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (image.convert("1"), "TIFF", {"compression": "group4"}),
        (image, "TIFF", {"compression": "jpeg"}),
    ]
    seeds = []
    for variant, image_format, options in variants:
        file = io.BytesIO()
        variant.save(file, image_format, **options)
        seeds.append(file.getvalue())
    return seeds


def list_seeds(folder):
    """
    The contents of the three lists of two images, which are written into the folder; the label map
    has three classes.
    """
    paths = [folder / "a.png", folder / "b.png"]
    for path in paths:
        Image.new("RGB", (64, 48), "red").save(path)
    entries = [
        {"boxes": [[1, 2, 30, 40], [20.5, 10, 64, 48]], "labels": [1, 2], "difficulties": [0, 1]},
        {"boxes": [[0, 0, 64, 48]], "labels": [3], "difficulties": [False]},
    ]
    return {
        "TRAIN_images.json": [str(path) for path in paths],
        "TRAIN_objects.json": entries,
        "label_map.json": {"background": 0, "cat": 1, "dog": 2, "cow": 3},
    }


# -------------------------------------------------------------------------------------------- rules


def check_objects(objects):
    """What parse_annotation returns must be usable as it is."""
    for obj in objects:
        assert obj["name"].strip() == obj["name"] != ""
        assert obj["difficult"] in (0, 1)
        if obj["box"] is not None:
            x_min, y_min, x_max, y_max = obj["box"]
            assert x_max - x_min >= MIN_SIDE
            assert y_max - y_min >= MIN_SIDE
            assert 0 <= min(obj["box"]) <= max(obj["box"]) <= MAX_COORDINATE


def check_image(image):
    """What read_image returns must be a decoded image of a sensible size."""
    assert image.mode == "RGB"
    assert 1 <= min(image.size) <= max(image.size) <= MAX_IMAGE_SIDE
    assert image.width * image.height <= MAX_PIXELS
    assert image.getpixel((image.width - 1, image.height - 1)) is not None


def check_item(item, n_classes):
    """An item must be what the network and its loss take."""
    image, boxes, labels, difficulties = item
    assert image.shape == (3, 300, 300)
    assert image.isfinite().all()
    assert len(boxes) == len(labels) == len(difficulties)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert ((labels > 0) & (labels < n_classes)).all()


def check_error(error, folder, allowed):
    """
    An error must be one of ours: in one line, with the file's name, and not about a resource that
    ran out.
    """
    assert type(error) in allowed
    assert not isinstance(error.__cause__, (MemoryError, RecursionError)) or "JSON" in str(error)
    assert str(folder) in str(error)
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 10_000


# -------------------------------------------------------------------------------------------- kinds


def try_annotation(folder, rng):
    """Returns what became of one annotation."""
    seeds = xml_seeds()
    (folder / "input.xml").write_bytes(
        mutate_xml(seeds[rng.integers(len(seeds))], [seed.encode() for seed in seeds], rng)
    )
    try:
        objects = parse_annotation(folder / "input.xml")
    except AnnotationError as error:
        check_error(error, folder, (AnnotationError,))
        return "refused"
    check_objects(objects)
    return "read"


def try_coco(folder, rng):
    """Returns what became of one COCO file."""
    content = coco_seed()
    (folder / "input.json").write_bytes(mutate_json(content, [json.dumps(content).encode()], rng))
    try:
        coco = read_coco(folder / "input.json")
    except AnnotationError as error:
        check_error(error, folder, (AnnotationError,))
        return "refused"
    for image in coco.images:
        check_objects(image.objects)
        assert {obj["name"] for obj in image.objects} <= set(coco.classes)
    return "read"


def try_yolo(folder, rng):
    """Returns what became of one YOLO label file."""
    text = "0 0.5 0.5 0.25 0.5\n1 0.1 0.25 0.5 0.25 0.5 0.75\n\n0 0.999 1.0 1.2 -0.1\n"
    if rng.random() < 0.5:
        content = replace_number(text, rng).encode()
    else:
        content = mutate_bytes(text.encode(), [b"0 0.1 0.1\n"], rng)
    (folder / "input.txt").write_bytes(content)
    try:
        objects = read_yolo(folder / "input.txt", {0: "cat", 1: "dog"}, (640, 480))
    except AnnotationError as error:
        check_error(error, folder, (AnnotationError,))
        return "refused"
    check_objects(objects)
    return "read"


def try_yaml(folder, rng):
    """Returns what became of one data.yaml."""
    seeds = (
        "path: ..\ntrain: a/images  # x\nval: [b, 'c']\nnc: 2\nnames: ['cat', \"dog\"]\n",
        "names:\n  0: cat\n  7: it's\ntrain:\n- a\n- b\n",
    )
    content = mutate_bytes(seeds[rng.integers(2)].encode(), [b"[{'\"}]:,# &*!|\n"], rng)
    (folder / "data.yaml").write_bytes(content)
    try:
        values = read_data_yaml(folder / "data.yaml")
    except AnnotationError as error:
        check_error(error, folder, (AnnotationError,))
        return "refused"
    names = values.get("names", {})
    assert all(type(number) is int and name.strip() == name != "" for number, name in names.items())
    assert all(isinstance(name, str) for key in ("train", "val") for name in values.get(key, []))
    return "read"


def try_names(folder, rng):
    """Returns what became of a VOC folder of which a list of names is mutated."""
    names = ("a", "b 1", "b", "c.jpg", "Füße")
    if not (folder / "voc").is_dir():
        make_voc(folder / "voc", dict.fromkeys(names, annotation_xml(CAR)))
    path = list_path(folder / "voc", "trainval")
    path.write_bytes(mutate_names("\n".join(names), rng))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            images, faults = find_listed_images(folder / "voc", "trainval")
        except AnnotationError as error:
            check_error(error, path, (AnnotationError,))
            return "refused"
    assert len(set(images)) == len(images)
    assert all(image.annotation.is_file() for image in images)
    for fault in faults:
        assert "no such file: bring it back" in str(fault)
        assert str(fault).isprintable()
    assert "repeated" in printed.getvalue() or printed.getvalue() == ""
    return "read"


def try_lists(folder, rng):
    """Returns what became of a data set of which one list is mutated."""
    contents = list_seeds(folder)
    others = [json.dumps(content).encode() for content in contents.values()]
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    name = str(rng.choice(list(contents)))
    (folder / name).write_bytes(mutate_json(contents[name], others, rng))
    try:
        dataset = PascalVOCDataset(
            folder, "TRAIN", keep_difficult=bool(rng.integers(2)), seed=int(rng.integers(1000))
        )
        for number in range(len(dataset)):
            check_item(dataset[number], len(dataset.label_map))
    except (ValueError, FileNotFoundError) as error:
        check_error(
            error,
            folder if "no such file" not in str(error) else "",
            (ValueError, FileNotFoundError),
        )
        return "refused"
    return "read"


def try_image(folder, rng):
    """Returns what became of a mutated image, as such and as an item."""
    seeds = image_seeds()
    path = folder / "input.jpg"
    path.write_bytes(mutate_image(seeds[rng.integers(len(seeds))], seeds, rng))
    entry = {"boxes": [[1, 1, 20, 20], [5, 5, 60, 40]], "labels": [1, 2], "difficulties": [0, 1]}
    contents = {
        "TRAIN_images": [str(path)],
        "TRAIN_objects": [entry],
        "label_map": {"background": 0, "a": 1, "b": 2},
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    dataset = PascalVOCDataset(folder, "TRAIN", seed=int(rng.integers(1000)))
    try:
        check_image(read_image(path))
        check_item(dataset[0], n_classes=3)
    except ValueError as error:
        check_error(error, folder, (ValueError,))
        return "refused"
    return "read"


KINDS = {
    "annotations": try_annotation,
    "coco": try_coco,
    "yolo": try_yolo,
    "yaml": try_yaml,
    "names": try_names,
    "lists": try_lists,
    "images": try_image,
}


def limit_memory(n_bytes):
    """Let this process take so much more memory than now; on Windows, which cannot, do nothing."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = 2**36
    if Path("/proc").is_dir():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard_limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + n_bytes, hard_limit))


def run(kind, n_inputs, folder):
    """Try inputs of a kind; stops at the first that breaks a rule, and leaves it in the folder."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # as Python does: some codecs have such remarks
    folder = Path(folder)
    outcomes = Counter()
    limit_memory(MEMORY)
    for number in range(n_inputs):
        try:
            outcomes[KINDS[kind](folder, np.random.default_rng((number, *kind.encode())))] += 1
        except Exception as error:
            raise RuntimeError(
                f"{kind}: input {number}, left in {folder}, breaks a rule"
            ) from error
    print(f"{kind}: {dict(outcomes)}")
    return outcomes


@pytest.mark.parametrize("n_inputs", [200, pytest.param(N_INPUTS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_inputs_are_read_correctly_or_refused_with_our_errors(kind, n_inputs, tmp_path):
    command = [sys.executable, __file__, kind, str(n_inputs), str(tmp_path)]
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60 + n_inputs,  # it takes a few hundredths of that
        env={**os.environ, "PYTHONPATH": paths},
        errors="replace",
    )
    assert result.returncode == 0, result.stderr[-4000:]
    outcomes = {word: int(count) for word, count in re.findall(r"'(\w+)': (\d+)", result.stdout)}
    assert sum(outcomes.values()) == n_inputs
    # If all are read or all are refused, the mutations are no good
    assert min(outcomes["read"], outcomes["refused"]) > n_inputs / 20


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), sys.argv[3])
