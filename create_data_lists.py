"""
Find, fetch or draw a data set, and write the lists that training and evaluation read.

    python create_data_lists.py --voc07-path VOCdevkit/VOC2007 --voc12-path VOCdevkit/VOC2012
    python create_data_lists.py --download          fetches both first
    python create_data_lists.py --verify            looks at every picture first
    python create_data_lists.py --voc07-path my_photographs --voc12-path "" --labels auto
    python create_data_lists.py --toy               draws a small data set, to try everything out
"""

import functools
import math
import sys
from dataclasses import dataclass

from torch.utils.data import DataLoader
from tqdm import tqdm

from annotations import (
    MIN_SIDE,
    AnnotationError,
    create_data_lists,
    parse_annotation,
    read_xml,
    stated_size,
    voc_labels,
)
from datasets import read_image
from downloads import download_voc
from runtime import describe_error, read_command_line
from toy_data import TOY_CLASSES, TOY_IMAGES, TOY_TEST_IMAGES, create_toy_data


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    voc07_path: str = "VOCdevkit/VOC2007"  # VOC-like folder: trainval is for training, test for testing; "" for none
    voc12_path: str = "VOCdevkit/VOC2012"  # a second one: trainval is for training too; "" for none
    output_folder: str = "data"  # where the lists go
    labels: tuple = voc_labels  # class names, or auto to collect them from the annotations
    verify: bool = False  # first decode every picture and hold it against its annotation; lists are written if all are well
    workers: int = 4  # processes that verify; 0: this one does it
    download: bool = False  # first fetch VOC2007 and VOC2012 (2.9 GB) into the download folder
    download_folder: str = "."  # archives are kept here; they unpack to VOCdevkit in it
    toy: bool = (
        False  # draw a small data set instead, into the toy folder; the lists go there as well
    )
    toy_folder: str = "toy"  # where the toy set goes: a new folder, or one with an earlier toy set
    toy_classes: int = TOY_CLASSES  # classes in the toy set, 1 to 20
    toy_images: int = TOY_IMAGES  # training images in the toy set
    toy_test_images: int = TOY_TEST_IMAGES  # test images in the toy set
    seed: int = 0  # of the toy set


def main(parameters):
    """
    Make the lists that the parameters ask for.

    :raises FileNotFoundError, ValueError, RuntimeError: with a message that says what to do
    """
    if parameters.toy and parameters.download:
        raise ValueError("--toy draws a data set and --download fetches one: choose one of them")
    if parameters.toy and parameters.verify:
        raise ValueError(
            "--verify is for given data: give the folder of a toy set as --voc07-path to verify that"
        )
    if parameters.toy:
        create_toy_data(
            parameters.toy_folder,
            parameters.toy_classes,
            parameters.toy_images,
            parameters.toy_test_images,
            parameters.seed,
        )
        return
    paths = {"2007": parameters.voc07_path, "2012": parameters.voc12_path}
    if parameters.download:
        default_paths = {"2007": Parameters.voc07_path, "2012": Parameters.voc12_path}
        years = [year for year, path in paths.items() if path == default_paths[year]]
        if not years:
            raise ValueError(
                "--download: both --voc07-path and --voc12-path name other data: leave out one of "
                "them, or --download"
            )
        paths |= download_voc(parameters.download_folder, years)
    labels = "auto" if parameters.labels == ("auto",) else parameters.labels
    check = functools.partial(verify, workers=parameters.workers) if parameters.verify else None
    create_data_lists(
        paths["2007"], paths["2012"], parameters.output_folder, labels=labels, check=check
    )


# ---------------------------------------------------------------------------------------------------------- verification


def verify(pairs, faults, workers):
    """
    Decode every picture, and hold it against its annotation.

    :param pairs: [(path of the picture, path of its annotation)]
    :param faults: errors that are known already
    :param workers: number of processes
    :raises ValueError: there is a fault; the message lists all of them
    """
    messages = [str(fault) for fault in faults]
    pairs = list(dict.fromkeys(pairs))  # an image may be for training and for testing
    # As for training, a DataLoader hands the work to processes; here what it makes of a pair is the list of its faults
    loader = DataLoader(pairs, batch_size=None, collate_fn=find_faults, num_workers=workers)
    for found in tqdm(loader, desc="verifying", unit="image", dynamic_ncols=True):
        messages += found
    if messages:
        n_images = len(pairs) + len(faults)
        raise ValueError(
            f"{len(messages)} faults in {n_images} images, and no lists were written:\n"
            + "\n".join(messages)
        )
    print(f"All {len(pairs)} pictures are whole and agree with their annotations.")


def find_faults(pair):
    """
    :param pair: path of a picture, path of its annotation
    :return: what is wrong with them, [text]
    """
    image_path, annotation_path = pair
    faults, objects, size = [], [], (math.inf, math.inf)
    try:
        objects, size = parse_annotation(annotation_path), stated_size(read_xml(annotation_path))
    except AnnotationError as error:
        faults.append(str(error))
    try:
        width, height = read_image(image_path).size
    except ValueError as error:
        return [*faults, str(error)]
    if any(
        stated not in (actual, math.inf)
        for stated, actual in zip(size, (width, height), strict=True)
    ):
        faults.append(
            f"{annotation_path}: states a size of {size[0]:g} x {size[1]:g} pixels, but {image_path} has {width} x {height} when "
            "it is upright: find out which one is wrong, and correct the boxes if they are"
        )
    for number, obj in enumerate(objects, start=1):
        x_min, y_min, x_max, y_max = obj["box"] or (0, 0, width, height)
        visible = min(x_max, width) - x_min, min(y_max, height) - y_min
        if "outside" in obj["repairs"] or min(visible) < MIN_SIDE:
            name = obj["name"][:40]
            faults.append(
                f"{annotation_path}: object {number} ({name}) is outside the picture: correct its box, or remove it"
            )
    return faults


if __name__ == "__main__":
    try:
        main(
            read_command_line(Parameters, "Find, fetch or draw a data set, and write its lists.")[0]
        )
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(describe_error(error))
