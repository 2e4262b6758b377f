"""The data set: photographs and their objects, as the lists of create_data_lists.py name them."""

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

# Pictures are read in these formats only. Pillow knows more, and some of them it gives to other programs.
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# A small file can claim to be a picture that no memory holds. Cameras have a little more than 100 million pixels; as RGB, this
# many take 360 MB in each process that reads pictures, and up to three times as much while they are converted.
MAX_PIXELS = 120_000_000
MAX_PICTURE_SIDE = (
    65_535  # pixels, as in JPEG files; the memory that resampling takes grows with it, too
)

# Pixels that are decoded for each one wanted, along a side, before a part is resampled. With 1.5, what that changes is about as
# little as bicubic in place of bilinear resampling would, or less.
DECODED_PIXELS = 1.5


def read_list(data_folder, name):
    """
    Read one of the JSON lists.

    :raises FileNotFoundError: it is not there
    :raises ValueError: it is not JSON
    """
    path = Path(data_folder) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such list: make the lists first (python create_data_lists.py --help)"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not readable as JSON ({error}): make the lists again with create_data_lists.py"
        ) from error


def find_fault(entry, n_classes):
    """
    What is wrong with an entry of an objects list, {"boxes", "labels", "difficulties"}; None if it is as it should be.

    :param n_classes: number of classes, the background counted
    """
    form = "is not of the form {boxes: [[x_min, y_min, x_max, y_max], ...], labels: [...], difficulties: [...]}"
    if not isinstance(entry, dict):
        return form
    boxes, labels, difficulties = (entry.get(name) for name in ("boxes", "labels", "difficulties"))
    if not all(isinstance(values, list) for values in (boxes, labels, difficulties)):
        return form
    if not len(boxes) == len(labels) == len(difficulties):
        return "has not as many labels and difficulties as boxes"
    for label, difficult in zip(labels, difficulties, strict=True):
        if type(label) is not int or not 0 < label < n_classes:  # a bool is not a label
            return f"has the label {reprlib.repr(label)}, which is not in label_map.json"
        if difficult not in (0, 1):
            return f"has the difficulty {reprlib.repr(difficult)}, which should be 0 or 1"
    for box in boxes:
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_edge, box)):
            return f"has the box {reprlib.repr(box)}, which should be four numbers of pixels"
        if box[2] - box[0] < MIN_SIDE or box[3] - box[1] < MIN_SIDE:
            return f"has the box {box}, which has no area, or its edges reversed"
    return None


def is_edge(value):
    """Whether this can be an edge of a box, in pixels."""
    return type(value) in (int, float) and abs(value) <= MAX_COORDINATE


def is_label_map(content):
    """Whether this is {"background": 0, name: 1, name: 2 ...}, in any order."""
    if not isinstance(content, dict) or not all(type(number) is int for number in content.values()):
        return False
    return content.get("background") == 0 and sorted(content.values()) == list(range(len(content)))


def upright_rgb(image):
    """
    A picture of any mode (grey, palette, with transparency, CMYK) as RGB, turned upright if its EXIF data say that the camera was
    held sideways. Boxes refer to the upright picture, as viewers and labelling tools show it.

    :param image: PIL image; left as it is
    :return: PIL image, RGB; the same image if that is what it is
    :raises ValueError: its values have more than 8 bits, of which Pillow would keep the wrong ones
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"expected 8 bits a channel, got Pillow's mode {image.mode}: scale its values to 0 ... 255 first"
        )
    if "transparency" in image.info:  # of a palette, which Pillow converts in two steps
        image = image.convert("RGBA")
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return (
        image if image.mode == "RGB" else image.convert("RGB")
    )  # most are RGB and upright: these are not copied


@contextlib.contextmanager
def naming_file(path, remedy):
    """A context in which every error of reading a picture becomes a ValueError that names the file and what to do with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # what Pillow says about metadata, and about sizes, which are limited here
            yield
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{path}: not readable as a picture (none of {', '.join(PICTURE_FORMATS)}): {remedy}"
        ) from error
    except Exception as error:  # whatever a damaged file leads Pillow to
        reason = (
            getattr(error, "strerror", None) or str(error) or type(error).__name__
        ).splitlines()[0]
        raise ValueError(f"{path}: not readable as a picture ({reason}): {remedy}") from error


def open_picture(path):
    """A picture file as a PIL image, which is not decoded before its pixels are asked for."""
    if os.path.getsize(path) > 4 * MAX_PIXELS:
        raise ValueError(f"it has more than {4 * MAX_PIXELS:,} bytes")
    with open(path, "rb") as file:
        content = io.BytesIO(
            file.read()
        )  # of a file, Pillow would read as much as the file says, not as much as there is
    image = Image.open(content, formats=PICTURE_FORMATS)
    if max(image.size) > MAX_PICTURE_SIDE or image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are too many")
    return image


def read_image(path, remedy="replace it"):
    """
    Read a picture file.

    :param path: picture file, in one of PICTURE_FORMATS
    :param remedy: what to do if it can not be read
    :return: PIL image, upright and RGB
    :raises ValueError: the file can not be read as a picture, or as one of a sensible size; the message names it
    """
    with naming_file(path, remedy):
        image = upright_rgb(open_picture(path))
        image.load()
        return image


class PictureFile:
    """
    A picture file that is decoded when it is known how large it is needed: a JPEG decoder can make a half, a quarter or an eighth
    of the pixels along each side in much less time than all of them. For utils.crop_and_resize this is a PIL image.
    """

    def __init__(self, path, remedy="replace it"):
        """:param path, remedy: see read_image, which raises the same as this and as resize"""
        self.path, self.remedy = path, remedy
        with naming_file(path, remedy):
            self.image = upright_rgb(
                open_picture(path)
            )  # those that have to be turned or converted are decoded by that
        self.width, self.height = self.image.size
        self.scale = 1  # pixels of the file along a side for one of the image

    def resize(self, size, resample, box):
        """
        A part of the picture in another size.

        :param size: (width, height) in pixels
        :param resample: one of PIL.Image.Resampling
        :param box: (x_min, y_min, x_max, y_max) of the part, in pixels of the whole picture
        :return: PIL image
        """
        x_min, y_min, x_max, y_max = box
        enough = [
            math.ceil(DECODED_PIXELS * size[0] * self.width / (x_max - x_min)),
            math.ceil(DECODED_PIXELS * size[1] * self.height / (y_max - y_min)),
        ]
        with naming_file(self.path, self.remedy):
            if self.scale > 1:  # decoded before, and not for this
                self.image = open_picture(self.path)
            drafted = self.image.draft(
                "RGB", enough
            )  # None if it is no JPEG file, or is decoded already
            self.scale = self.width / drafted[1][2] if drafted else 1
            return self.image.resize(size, resample, box=[edge / self.scale for edge in box])


def keep_freed_memory():
    """
    Let this process use memory again that it has freed. Each item takes some megabytes for a moment, and the GNU C library gives
    them back as soon as they are more than twice the largest block freed so far; the system then clears every page that it hands
    out anew, which would take a third of an item's time. So a large block is freed once. Other libraries have other rules, and
    lose nothing by this.
    """
    torch.empty(16 * 2**20, dtype=torch.uint8)  # bytes


class PascalVOCDataset(Dataset):
    """
    The photographs of a split, transformed for the network. Items are (image (3, 300, 300), boxes (n, 4) in fractional xy, labels
    (n,) long, difficulties (n,) bool); n may be 0.

    For training, the augmentation of an item depends on the seed, the epoch and its index, and on nothing else.
    """

    def __init__(self, data_folder, split, keep_difficult=False, seed=0):
        """
        :param data_folder: folder with the JSON lists
        :param split: "TRAIN" or "TEST"
        :param keep_difficult: keep objects marked difficult; an evaluation always keeps them, as it has to know where they are
        :param seed: for the augmentations
        :raises FileNotFoundError: a list or a picture is missing
        :raises ValueError: another split, or lists that do not belong together
        """
        if split not in ("TRAIN", "TEST"):
            raise ValueError(f"split: expected 'TRAIN' or 'TEST', got {split!r}")
        self.split = split
        self.keep_difficult = keep_difficult or split == "TEST"
        self.seed = seed
        # In shared memory, so that worker processes that are already running see it change
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self.images = read_list(data_folder, f"{split}_images.json")
        self.objects = read_list(data_folder, f"{split}_objects.json")
        self.label_map = read_list(data_folder, "label_map.json")
        self._check(data_folder)
        keep_freed_memory()

    def _check(self, data_folder):
        """Raise an error that names the list and the place if the lists are not what create_data_lists() writes."""
        remedy = "make the lists again with create_data_lists.py"
        data_folder = Path(data_folder)
        images_path, objects_path = (
            data_folder / f"{self.split}_{name}.json" for name in ("images", "objects")
        )
        if not is_label_map(self.label_map):
            raise ValueError(
                f"{data_folder / 'label_map.json'}: expected background 0 and classes 1, 2 ...: {remedy}"
            )
        if not isinstance(self.images, list) or not all(
            isinstance(path, str) for path in self.images
        ):
            raise ValueError(f"{images_path}: expected a list of the paths of images: {remedy}")
        if not isinstance(self.objects, list):
            raise ValueError(
                f"{objects_path}: expected a list with an entry for each image: {remedy}"
            )
        if len(self.images) != len(self.objects):
            raise ValueError(
                f"{data_folder}: {len(self.images)} images but {len(self.objects)} entries of objects for {self.split}: {remedy}"
            )
        for number, entry in enumerate(self.objects):
            fault = find_fault(entry, len(self.label_map))
            if fault:
                raise ValueError(f"{objects_path}: entry {number} {fault}: {remedy}")
        missing = [path for path in self.images if not os.path.isfile(path)]
        if missing:
            others = f", nor {len(missing) - 1} others" if len(missing) > 1 else ""
            raise FileNotFoundError(
                f"{missing[0]}: no such file{others} of the {len(self.images)} in {images_path}: bring back what is missing, or "
                f"{remedy}"
            )

    def fingerprint(self):
        """A text that is the same for the same lists: the names of the images, in whatever folder, and their objects."""
        content = json.dumps([[Path(path).name for path in self.images], self.objects])
        return hashlib.sha256(content.encode()).hexdigest()

    def set_epoch(self, epoch):
        """Choose the epoch whose augmentations items get from now on."""
        self._epoch.fill_(epoch)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        take_out = "take it out of ImageSets/Main and make the lists again (create_data_lists.py --verify finds all such faults)"
        image = PictureFile(self.images[i], f"replace it, or {take_out}")
        objects = self.objects[i]
        boxes = torch.tensor(objects["boxes"], dtype=torch.float32).view(-1, 4)  # pixels
        labels = torch.tensor(objects["labels"], dtype=torch.int64)
        difficulties = torch.tensor(objects["difficulties"], dtype=torch.bool)

        size = torch.tensor([image.width, image.height], dtype=torch.float32).repeat(2)
        boxes = torch.minimum(
            boxes.clamp(min=0), size
        )  # for annotations that do not state the size of their image
        if (boxes[:, 2:] - boxes[:, :2] < MIN_SIDE / 2).any():  # half: room for rounding
            raise ValueError(
                f"{self.images[i]}: has an object outside the picture ({image.width} x {image.height} pixels): correct the boxes "
                f"in its annotation, or {take_out}"
            )
        if not self.keep_difficult:
            boxes, labels, difficulties = (
                boxes[~difficulties],
                labels[~difficulties],
                difficulties[~difficulties],
            )
        rng = (
            np.random.default_rng((self.seed, int(self._epoch), i))
            if self.split == "TRAIN"
            else None
        )
        return transform(image, boxes, labels, difficulties, self.split, rng)


class ShuffledBatches(Sampler):
    """
    The batches of an epoch, in an order that depends on the seed and the epoch, and on nothing else. Where several processes
    train together each has its share of every batch; together they see every image exactly once an epoch.
    """

    def __init__(self, n_images, batch_size, seed, rank=0, world_size=1):
        """
        :param n_images: number of images
        :param batch_size: images of a batch, of all processes together; an epoch's last batch may have fewer
        :param seed: for the order
        :param rank, world_size: which share of each batch this process has, and of how many; it may be empty
        """
        self.n_images, self.batch_size, self.seed = n_images, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.set_epoch(0)

    def set_epoch(self, epoch, n_done=0):
        """Choose the epoch whose batches come next, and how many of its images have had their turn already."""
        self.epoch, self.n_done = epoch, n_done

    def batches(self):
        """The whole batches that are left of the epoch, lists of indices."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n_images).tolist()
        return [
            order[first : first + self.batch_size]
            for first in range(self.n_done, self.n_images, self.batch_size)
        ]

    def __len__(self):
        return len(range(self.n_done, self.n_images, self.batch_size))

    def __iter__(self):
        return iter([batch[self.rank :: self.world_size] for batch in self.batches()])


def ordered_batches(n_images, batch_size, rank=0, world_size=1):
    """
    The batches of an evaluation, in order: those that this process evaluates, every n-th.

    :param n_images, batch_size, rank, world_size: see ShuffledBatches
    :return: list of ranges of indices
    """
    batches = [
        range(first, min(first + batch_size, n_images)) for first in range(0, n_images, batch_size)
    ]
    return batches[rank::world_size]


def start_worker(worker):
    """
    What a process that reads images begins with. Ctrl-C, and SIGTERM from a shell or a cluster, go to the whole group of
    processes that a program is. It leaves them: the main process decides what to do, and ends it, by SIGTERM if need be.
    """
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()


def collate_fn(batch):
    """
    Make a batch of items. Images have one size and are stacked; the others have a tensor for each image, as the number of
    objects differs.

    :param batch: list of N items of a PascalVOCDataset; N may be 0
    :return: images (N, 3, 300, 300); boxes, labels and difficulties, lists of N tensors
    """
    if not batch:  # the share that one of many processes has of an epoch's last images
        return torch.zeros(0, 3, IMAGE_SIZE, IMAGE_SIZE), [], [], []
    images, boxes, labels, difficulties = zip(*batch, strict=True)
    return torch.stack(images), list(boxes), list(labels), list(difficulties)


def create_loader(dataset, batches, workers, device):
    """
    The DataLoader of a data set, for training or evaluation.

    :param dataset: PascalVOCDataset
    :param batches: ShuffledBatches, or the list of ordered_batches
    :param workers: processes that read and prepare images, kept from epoch to epoch; 0: this one does it
    :param device: torch.device that the images go to
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate_fn,
        num_workers=workers,
        worker_init_fn=start_worker,
        persistent_workers=workers > 0,
        pin_memory=device.type
        == "cuda",  # memory that a GPU can fetch from while the processor goes on
    )
