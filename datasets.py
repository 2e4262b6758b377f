"""
The data set: images and their objects, as the lists of create_data_lists.py name them, and the
batches in which they are read.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import reprlib
import signal
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset, Sampler

from annotations import MAX_COORDINATE, MIN_SIDE
from utils import IMAGE_SIZE, transform

SPLITS = ("TRAIN", "VAL", "TEST")

# Only these formats are read. Pillow knows more, and hands some of them to other programs.
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# A small file can claim to be an image that does not fit in memory. Cameras have a little more than
# 100 million pixels; as RGB, this many take 360 MB in each process that reads images, and up to
# three times as much while they are converted.
MAX_PIXELS = 120_000_000
# Pixels, as in JPEG files: the memory that resampling takes grows with the longer side, too
MAX_IMAGE_SIDE = 65_535

# A JPEG file is decoded at a reduced size only if that leaves at least this many times the pixels
# that are needed along each side. With 1.5, the result differs from that of the whole image about
# as little as bicubic from bilinear resampling, or less.
DECODED_PIXELS = 1.5

REWRITE_LISTS = "make the lists again with create_data_lists.py"


# -------------------------------------------------------------------------------------- the lists


def read_list(data_folder, name):
    """
    Read one of the JSON lists.

    :raises FileNotFoundError: there is no such list
    :raises ValueError: it is not JSON
    """
    path = Path(data_folder) / name
    if not path.is_file():
        remedy = "make the lists first (python create_data_lists.py --help)"
        if name.startswith("VAL"):
            remedy += "; there are VAL lists only where there is a validation set"
        raise FileNotFoundError(f"{path}: no such list: {remedy}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}): {REWRITE_LISTS}") from error


def read_label_map(data_folder):
    """
    Read label_map.json. An editor may have sorted its names; here they are in the order of their
    numbers, as everywhere else.

    :return: {class name: number}, "background" 0 first
    :raises FileNotFoundError, ValueError: see read_list; or it is not a label map
    """
    content = read_list(data_folder, "label_map.json")
    if not is_label_map(content):
        path = Path(data_folder) / "label_map.json"
        expected = '{"background": 0, class name: 1, class name: 2 ...}'
        raise ValueError(f"{path}: expected {expected}: {REWRITE_LISTS}")
    return dict(sorted(content.items(), key=lambda item: item[1]))


def is_label_map(content):
    """Whether this is {"background": 0, name: 1, name: 2 ...}, in any order."""
    if not isinstance(content, dict):
        return False
    numbers = list(content.values())
    if not all(type(number) is int for number in numbers):  # a bool is not a number
        return False
    return content.get("background") == 0 and sorted(numbers) == list(range(len(numbers)))


def find_fault(entry, n_classes):
    """
    What is wrong with an entry of an objects list, {"boxes", "labels", "difficulties"}.

    :param entry: what the list holds
    :param n_classes: number of classes, including background
    :return: the fault, a text; None if there is none
    """
    form = (
        "is not of the form {boxes: [[x_min, y_min, x_max, y_max], ...], labels: [...], "
        "difficulties: [...]}"
    )
    if not isinstance(entry, dict):
        return form
    boxes, labels, difficulties = (entry.get(name) for name in ("boxes", "labels", "difficulties"))
    if not all(isinstance(values, list) for values in (boxes, labels, difficulties)):
        return form
    if not len(boxes) == len(labels) == len(difficulties):
        return (
            f"has {len(boxes)} boxes, but {len(labels)} labels and {len(difficulties)} difficulties"
        )
    for box, label, difficult in zip(boxes, labels, difficulties, strict=True):
        fault = find_object_fault(box, label, difficult, n_classes)
        if fault:
            return fault
    return None


def find_object_fault(box, label, difficult, n_classes):
    """The same for one object of an entry."""
    if type(label) is not int or not 0 < label < n_classes:  # a bool is not a label
        return f"has the label {reprlib.repr(label)}, which is not in label_map.json"
    if difficult not in (0, 1):
        return f"has the difficulty {reprlib.repr(difficult)}, which should be 0 or 1"
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_edge, box)):
        return f"has the box {reprlib.repr(box)}, which should be four numbers of pixels"
    x_min, y_min, x_max, y_max = box
    if x_max - x_min < MIN_SIDE or y_max - y_min < MIN_SIDE:
        return f"has the box {box}, which has no area, or its edges reversed"
    return None


def is_edge(value):
    """Whether this can be an edge of a box, in pixels."""
    return type(value) in (int, float) and abs(value) <= MAX_COORDINATE


# ----------------------------------------------------------------------------------------- images


def upright_rgb(image):
    """
    Convert an image of any mode (grey, palette, with transparency, CMYK) to RGB, and turn it
    upright if its EXIF data say that the camera was held sideways. Boxes refer to the upright
    image, as viewers and labelling tools show it.

    :param image: PIL image; left as it is
    :return: PIL image, RGB; the same object if nothing had to be done, so that most are not copied
    :raises ValueError: it has more than 8 bits per channel, of which Pillow would keep the wrong
        ones
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"expected 8 bits per channel, got Pillow's mode {image.mode}: scale its values to "
            "0 ... 255 first"
        )
    if "transparency" in image.info:  # of a palette: Pillow warns of a direct conversion to RGB
        image = image.convert("RGBA")
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


@contextlib.contextmanager
def describe_image_errors(path, remedy):
    """
    A context in which every error of reading an image becomes a ValueError that names the file.

    :param path: the image file
    :param remedy: what to do about an error, the end of the message
    """
    formats = f"none of {', '.join(IMAGE_FORMATS)}"
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata, which do not matter, and of sizes, limited in open_image
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: not readable as an image ({formats}): {remedy}") from error
    except Exception as error:  # a damaged file can make Pillow raise almost anything
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = text.splitlines()[0]
        raise ValueError(f"{path}: not readable as an image ({reason}): {remedy}") from error


def open_image(path):
    """Open an image file: a PIL image that is not decoded before its pixels are needed."""
    if os.path.getsize(path) > 4 * MAX_PIXELS:
        raise ValueError(f"it has more than {4 * MAX_PIXELS:,} bytes")
    # From an open file, Pillow would try to read as many bytes as the file claims to have
    content = io.BytesIO(Path(path).read_bytes())
    image = Image.open(content, formats=IMAGE_FORMATS)
    if max(image.size) > MAX_IMAGE_SIDE or image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are too many")
    return image


def read_image(path):
    """
    Read an image file.

    :param path: image file, in one of IMAGE_FORMATS
    :return: PIL image, upright and RGB
    :raises ValueError: the file cannot be read as an image of a sensible size; the message names it
    """
    with describe_image_errors(path, "replace it"):
        image = upright_rgb(open_image(path))
        image.load()
        return image


def read_image_size(path):
    """
    (width, height) of the upright image in a file. Of most formats, only the header is decoded.

    :raises ValueError: see read_image
    """
    with describe_image_errors(path, "replace it"):
        image = open_image(path)
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    # 5 to 8: the camera was held sideways
    return image.size[::-1] if orientation in (5, 6, 7, 8) else image.size


class ImageFile:
    """
    An image file that is not decoded before it is known how large the result will be. A JPEG
    decoder can produce a half, a quarter or an eighth of the pixels along each side, which takes
    much less time than producing all of them: a training item takes a quarter less time with
    photographs 1200 pixels wide, and three quarters less at 4000 (VOC's are 500 pixels wide, and
    gain nothing).

    utils.crop_and_resize uses it like a PIL image: it has `width`, `height` and `resize`.
    """

    def __init__(self, path, remedy="replace it"):
        """
        :param path: image file, in one of IMAGE_FORMATS
        :param remedy: what to do if it cannot be read, for the error message
        :raises ValueError: see read_image; resize raises it, too
        """
        self.path = path
        self.remedy = remedy
        with describe_image_errors(path, remedy):
            self.image = upright_rgb(open_image(path))  # turning or converting it decodes it
        self.width, self.height = self.image.size
        self.scale = 1  # pixels of the file per decoded pixel, along a side

    def resize(self, size, resample, box):
        """
        Cut out a part of the image and resize it.

        :param size: (width, height) of the result in pixels
        :param resample: one of PIL.Image.Resampling
        :param box: (x_min, y_min, x_max, y_max) of the part, in pixels of the whole image
        :return: PIL image
        """
        x_min, y_min, x_max, y_max = box
        decoded_size = (
            math.ceil(DECODED_PIXELS * size[0] * self.width / (x_max - x_min)),
            math.ceil(DECODED_PIXELS * size[1] * self.height / (y_max - y_min)),
        )
        with describe_image_errors(self.path, self.remedy):
            if self.scale > 1:  # decoded before, perhaps with too few pixels for this call
                self.image = open_image(self.path)
            # None if it is no JPEG file or has been decoded already, which leaves it as it is
            drafted = self.image.draft("RGB", decoded_size)
            self.scale = self.width / drafted[1][2] if drafted else 1
            scaled_box = [edge / self.scale for edge in box]
            return self.image.resize(size, resample, box=scaled_box)


# ------------------------------------------------------------------------------------------ items


def has_lists(data_folder, split):
    """Whether there are lists of a split; of VAL there often are none."""
    return (Path(data_folder) / f"{split}_images.json").is_file()


class PascalVOCDataset(Dataset):
    """
    The images of a split, transformed for the network. An item is a tuple of

    - image: (3, 300, 300) float
    - boxes: (n, 4) float, fractional xy; n may be 0
    - labels: (n,) long
    - difficulties: (n,) bool

    For training, the augmentation of an item depends on the seed, the epoch and its index, and on
    nothing else.
    """

    def __init__(
        self,
        data_folder,
        split,
        keep_difficult=False,
        seed=0,
        can_zoom_out=True,
        needs_images=True,
    ):
        """
        :param data_folder: folder with the JSON lists
        :param split: "TRAIN", "VAL" or "TEST"
        :param keep_difficult: train on objects marked difficult, too; VAL and TEST always keep
            them, since an evaluation has to know where they are
        :param seed: for the augmentations
        :param can_zoom_out: see utils.transform
        :param needs_images: whether the image files have to exist; the lists alone are enough to
            compare detections with the objects
        :raises FileNotFoundError: a list or an image is missing
        :raises ValueError: unknown split, or lists that do not belong together
        """
        if split not in SPLITS:
            raise ValueError(f"split: expected 'TRAIN', 'VAL' or 'TEST', got {split!r}")
        self.split = split
        self.keep_difficult = keep_difficult or split != "TRAIN"
        self.seed = seed
        self.can_zoom_out = can_zoom_out
        # In shared memory, so that worker processes that are already running see it change
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self.images = read_list(data_folder, f"{split}_images.json")
        self.objects = read_list(data_folder, f"{split}_objects.json")
        self.label_map = read_label_map(data_folder)
        self._check_lists(Path(data_folder))
        if needs_images:
            self._check_files(Path(data_folder) / f"{split}_images.json")
        keep_freed_memory()

    def _check_lists(self, data_folder):
        """Raise an error that names the list and the place if the two lists do not fit together."""
        images_path = data_folder / f"{self.split}_images.json"
        objects_path = data_folder / f"{self.split}_objects.json"
        if not is_list_of_texts(self.images):
            raise ValueError(f"{images_path}: expected a list of image paths: {REWRITE_LISTS}")
        if not isinstance(self.objects, list):
            expected = "a list with an entry for each image"
            raise ValueError(f"{objects_path}: expected {expected}: {REWRITE_LISTS}")
        if len(self.images) != len(self.objects):
            found = f"{len(self.images)} images but {len(self.objects)} entries of objects"
            raise ValueError(f"{data_folder}: {found} for {self.split}: {REWRITE_LISTS}")
        for number, entry in enumerate(self.objects):
            fault = find_fault(entry, len(self.label_map))
            if fault:
                raise ValueError(f"{objects_path}: entry {number} {fault}: {REWRITE_LISTS}")

    def _check_files(self, images_path):
        """Raise an error if an image is missing; none is opened."""
        missing = [path for path in self.images if not os.path.isfile(path)]
        if missing:
            others = f", nor {len(missing) - 1} others" if len(missing) > 1 else ""
            raise FileNotFoundError(
                f"{missing[0]}: no such file{others} of the {len(self.images)} in {images_path}: "
                f"bring back what is missing, or {REWRITE_LISTS}"
            )

    def fingerprint(self):
        """SHA-256 of the images' names, without their folders, and of their objects: a text."""
        content = json.dumps([[Path(path).name for path in self.images], self.objects])
        return hashlib.sha256(content.encode()).hexdigest()

    def image_sizes(self):
        """(width, height) of each image in pixels, upright."""
        return [read_image_size(path) for path in self.images]

    def objects_px(self):
        """
        The objects of all images as the lists have them, in pixels.

        :return: boxes, labels and difficulties, lists with a tensor (n, 4), (n,) and (n,) per image
        """
        objects = [as_tensors(entry) for entry in self.objects]
        return tuple([tensors[i] for tensors in objects] for i in range(3))

    def set_epoch(self, epoch):
        """Choose the epoch that decides the augmentations from now on."""
        self._epoch.fill_(epoch)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        leave_out = (
            "take it out of the data and make the lists again (create_data_lists.py --verify "
            "finds all such faults)"
        )
        image = ImageFile(self.images[i], f"replace it, or {leave_out}")
        boxes, labels, difficulties = self._read_objects(i, image, leave_out)
        rng = None
        if self.split == "TRAIN":
            rng = np.random.default_rng((self.seed, int(self._epoch), i))
        return transform(image, boxes, labels, difficulties, self.split, rng, self.can_zoom_out)

    def _read_objects(self, i, image, leave_out):
        """
        The objects of an image, clipped to it; without the difficult ones where these are not kept.

        :param i: its index
        :param image: ImageFile
        :param leave_out: how to go on without the image, for the error message
        :return: boxes (n, 4) float in pixels, labels (n,) long, difficulties (n,) bool
        :raises ValueError: an object lies outside the image
        """
        boxes, labels, difficulties = as_tensors(self.objects[i])
        # Boxes may stick out of an image if its annotation did not state its size
        size = torch.tensor([image.width, image.height], dtype=torch.float32)
        boxes = torch.minimum(boxes.clamp(min=0), size.repeat(2))
        sides = boxes[:, 2:] - boxes[:, :2]
        if (sides < MIN_SIDE / 2).any():  # half of it leaves room for rounding
            raise ValueError(
                f"{self.images[i]}: has an object outside the image ({image.width} x "
                f"{image.height} pixels): correct the boxes in its annotation, or {leave_out}"
            )
        if self.keep_difficult:
            return boxes, labels, difficulties
        return boxes[~difficulties], labels[~difficulties], difficulties[~difficulties]


def as_tensors(entry):
    """
    An entry of an objects list: boxes (n, 4) float in pixels, labels (n,) long and difficulties
    (n,) bool.
    """
    return (
        torch.tensor(entry["boxes"], dtype=torch.float32).view(-1, 4),
        torch.tensor(entry["labels"], dtype=torch.int64),
        torch.tensor(entry["difficulties"], dtype=torch.bool),
    )


def is_list_of_texts(content):
    """Whether this is a list of texts only."""
    return isinstance(content, list) and all(isinstance(value, str) for value in content)


def keep_freed_memory():
    """
    Make this process reuse memory that it has freed, which saves a quarter to a third of the time
    that an item takes.

    Every item needs some megabytes for a moment. The GNU C library returns freed memory to the
    system once there is more than twice as much of it as the largest block freed so far; the system
    then has to clear each page before it hands it out again. Freeing one large block raises that
    limit for good. Other C libraries work differently, and lose nothing by this.
    """
    torch.empty(16 * 2**20, dtype=torch.uint8)  # bytes, freed at once


# ---------------------------------------------------------------------------------------- batches


def count_batches(n_images, batch_size):
    """How many batches some images make, the last of which may be smaller."""
    return math.ceil(n_images / batch_size)


class ShuffledBatches(Sampler):
    """
    The batches of an epoch of training, in an order that depends on the seed and the epoch, and on
    nothing else. Where several processes train together, each gets its share of every batch;
    together they see every image exactly once per epoch.
    """

    def __init__(self, n_images, batch_size, seed, rank=0, world_size=1):
        """
        :param n_images: number of images
        :param batch_size: images per batch, of all processes together; an epoch's last batch may
            have fewer
        :param seed: for the order
        :param rank: number of this process, from 0; its share of a batch may be empty
        :param world_size: number of processes
        """
        self.n_images = n_images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.set_epoch(0)

    def set_epoch(self, epoch, n_done=0):
        """
        Choose the epoch whose batches come next.

        :param epoch: number of the epoch
        :param n_done: how many of its images have been seen already; they are left out
        """
        self.epoch = epoch
        self.n_done = n_done

    def batches(self):
        """The remaining batches of the epoch, before they are shared out: lists of indices."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n_images).tolist()
        starts = range(self.n_done, self.n_images, self.batch_size)
        return [order[start : start + self.batch_size] for start in starts]

    def __len__(self):
        return count_batches(self.n_images - self.n_done, self.batch_size)

    def __iter__(self):
        return iter([batch[self.rank :: self.world_size] for batch in self.batches()])


def ordered_batches(n_images, batch_size, rank=0, world_size=1):
    """
    The batches of an evaluation, in order. Where several processes evaluate together, each gets
    whole batches, every `world_size`-th.

    :param n_images, batch_size, rank, world_size: see ShuffledBatches
    :return: list of ranges of indices
    """
    starts = range(0, n_images, batch_size)
    batches = [range(start, min(start + batch_size, n_images)) for start in starts]
    return batches[rank::world_size]


def collate_fn(batch):
    """
    Make a batch of items. Images all have the same size and are stacked; boxes, labels and
    difficulties stay lists of one tensor per image, since the number of objects differs.

    An empty list becomes a batch of one blank image without objects: it is the share of a process
    that gets none of an epoch's last images. Its loss is 0, so the process takes part in the step,
    as the others expect, and adds nothing to it.

    :param batch: list of items of a PascalVOCDataset
    :return: images (N, 3, 300, 300); boxes, labels and difficulties, lists of N tensors
    """
    if not batch:
        batch = [blank_item()]
    images, boxes, labels, difficulties = zip(*batch, strict=True)
    return torch.stack(images), list(boxes), list(labels), list(difficulties)


def blank_item():
    """An item of one colour, ImageNet's mean, without objects."""
    return (
        torch.zeros(3, IMAGE_SIZE, IMAGE_SIZE),
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, dtype=torch.bool),
    )


def start_worker(worker):
    """
    The first thing that a worker process of a DataLoader does.

    Ctrl-C, and SIGTERM from a shell or a cluster such as SLURM, are sent to all processes of a
    program. A worker ignores both: the main process decides when the run stops, and tells its
    workers through their queues.

    :param worker: its number, which DataLoader passes
    """
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def create_loader(dataset, batches, workers, device):
    """
    Make the DataLoader of a data set, for training or evaluation.

    :param dataset: PascalVOCDataset
    :param batches: ShuffledBatches, or the list that ordered_batches returns
    :param workers: number of processes that read and prepare images, kept from epoch to epoch; 0:
        the main process does it
    :param device: torch.device that the batches are moved to later
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate_fn,
        num_workers=workers,
        worker_init_fn=start_worker,
        persistent_workers=workers > 0,
        # Lets the copy to a GPU overlap with computing; Apple's share the processor's memory
        pin_memory=device.type in ("cuda", "xpu"),
    )
