"""
Find, download or draw a data set, and write the lists that training and evaluation read.

    python create_data_lists.py my_folder     your own data, see below
    python create_data_lists.py               for VOCdevkit/VOC2007 and VOC2012
    python create_data_lists.py --download    downloads them first
    python create_data_lists.py --verify      looks at every image first
    python create_data_lists.py --preview 12  draws twelve of the images, too
    python create_data_lists.py --toy         draws a data set to try things out

The format of your folder is told by what is in it: PASCAL VOC's layout, COCO's JSON (Roboflow's,
too), YOLO's text files, or an XML file beside each image, as LabelImg writes it. Images without
objects are left out of the training list, since this loss learns nothing from them.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader
from tqdm import tqdm

from annotations import MIN_SIDE, AnnotationError, printable, voc_labels
from data_folders import find_data
from data_lists import TEST_FRACTION, check_labels, divide, write_data_lists
from datasets import PascalVOCDataset, read_image, read_image_size
from downloads import download_voc, voc_folder
from preview import warn_of_what_is_out_of_reach, write_preview
from runtime import check_range, read_command_line, readable_errors
from toy_data import TOY_CLASSES, TOY_IMAGES, TOY_TEST_IMAGES, create_toy_data
from voc_folders import check_folders, find_images


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    folder: str = ""  # folder with your own data, instead of the two in VOC layout
    voc07_path: str = "VOCdevkit/VOC2007"  # folder in VOC layout to train and test on; "" for none
    voc12_path: str = "VOCdevkit/VOC2012"  # a second one, to train on too; "" for none
    output_folder: str = "data"  # where the lists go
    labels: tuple = ()  # class names; auto for the data's; by default auto with FOLDER, else VOC's
    val_fraction: float = 0.0  # of the training images to validate on, if there are no others
    test_fraction: float = 0.0  # to test on; 0.2 if nothing is there to measure a detector with
    verify: bool = False  # first decode every image and compare it with its annotation
    workers: int = 4  # processes that verify; 0: this one does it
    preview: int = 0  # draw so many training images with their objects, in preview.png; 0: none
    download: bool = False  # first download VOC2007 and VOC2012 (2.9 GB) to the download folder
    download_folder: str = "."  # archives are kept here; they unpack to VOCdevkit in it
    toy: bool = False  # draw a small data set instead; its lists go to the toy folder as well
    toy_folder: str = "toy"  # where the toy set goes: a new folder, or one with an earlier toy set
    toy_classes: int = TOY_CLASSES  # classes in the toy set, 1 to 20
    toy_images: int = TOY_IMAGES  # training images in the toy set
    toy_test_images: int = TOY_TEST_IMAGES  # test images in the toy set
    seed: int = 0  # of the toy set, of the images that the two fractions draw, and of the preview


def main(parameters):
    """
    Make the lists that the parameters ask for.

    :raises OSError, ValueError: with a message that says what to do
    """
    check_parameters(parameters)
    if parameters.toy:
        draw_toy_data(parameters)
        look_at_lists(parameters.toy_folder, parameters)
        return
    found = find(parameters)
    if parameters.verify:
        verify(found, parameters.workers)
    divide(found, parameters.val_fraction, test_fraction(found, parameters), parameters.seed)
    write_data_lists(found, parameters.output_folder, chosen_labels(parameters))
    if not found.splits["TEST"] and "VAL" in found.splits:
        print("There are no test images: measure a detector with eval.py --split VAL.")
    look_at_lists(parameters.output_folder, parameters)


def find(parameters):
    """Find the images of the folder, or of the two in VOC layout: FoundImages."""
    if parameters.folder:
        found = find_data(parameters.folder, read_image_size)
        print("\n  ".join(printable(note) for note in found.notes))
        return found
    voc07_path, voc12_path = folders_to_read(parameters)
    check_folders(voc07_path, voc12_path)
    if parameters.download:
        download_voc(parameters.download_folder, years_to_download(parameters))
    return find_images(voc07_path, voc12_path)


def test_fraction(found, parameters):
    """The part of the images to draw for testing."""
    fractions = (parameters.val_fraction, parameters.test_fraction)
    is_divided = found.splits["TEST"] or found.splits.get("VAL")
    if not parameters.folder or is_divided or fractions != (0, 0):
        return parameters.test_fraction
    print(
        "The data are not divided: some images are drawn to test on. --test-fraction and "
        "--val-fraction say how many"
    )
    return TEST_FRACTION


def look_at_lists(data_folder, parameters):
    """Say what in the lists is out of SSD300's reach, and draw a preview if one is asked for."""
    train_set = PascalVOCDataset(data_folder, "TRAIN", keep_difficult=True, seed=parameters.seed)
    warn_of_what_is_out_of_reach(train_set)
    if parameters.preview > 0:
        write_preview(train_set, parameters.preview, Path(data_folder) / "preview.png")


# --------------------------------------------------------------------------------------- parameters


def check_parameters(parameters):
    """Raise a ValueError about what the command line alone shows to be wrong."""
    check_range("preview", parameters.preview, low=0)
    if parameters.toy and parameters.download:
        raise ValueError("--toy draws a data set and --download downloads one: choose one of them")
    if parameters.folder and (parameters.toy or parameters.download):
        option = "--toy draws" if parameters.toy else "--download downloads"
        raise ValueError(f"{option} a data set: give no folder of your own")
    voc_paths = (parameters.voc07_path, parameters.voc12_path)
    if parameters.folder and voc_paths != (Parameters.voc07_path, Parameters.voc12_path):
        raise ValueError(
            f"{parameters.folder}: give one folder, of any format, or --voc07-path and --voc12-path"
        )
    if parameters.toy and parameters.verify:
        raise ValueError(
            "--verify is for given data: to verify a toy set, give its folder as --voc07-path"
        )
    if parameters.toy:
        return  # create_toy_data checks the rest
    if parameters.download and not years_to_download(parameters):
        raise ValueError(
            "--download: both --voc07-path and --voc12-path name other data: leave out one of "
            "them, or --download"
        )
    for name in ("val_fraction", "test_fraction"):
        option = "--" + name.replace("_", "-")
        check_range(option, getattr(parameters, name), low=0, below=1)
    if parameters.workers < 0:
        raise ValueError(f"--workers: expected 0 or more, got {parameters.workers}")
    check_labels(chosen_labels(parameters))
    check_can_be_folder(Path(parameters.output_folder), "--output-folder")
    if parameters.download:
        check_can_be_folder(Path(parameters.download_folder).expanduser(), "--download-folder")


def check_can_be_folder(path, option):
    """Raise a ValueError if a file is in the way of a folder that is made later."""
    for place in (path, *path.parents):
        if os.path.lexists(place) and not place.is_dir():
            raise ValueError(f"{option} {path}: {place} is not a folder: name another place")


def chosen_labels(parameters):
    """The labels as write_data_lists takes them."""
    if parameters.labels == ("auto",) or (parameters.folder and not parameters.labels):
        return "auto"
    return parameters.labels or voc_labels


def years_to_download(parameters):
    """The years whose path is the default; those of another path are there already, or unwanted."""
    years = []
    if parameters.voc07_path == Parameters.voc07_path:
        years.append("2007")
    if parameters.voc12_path == Parameters.voc12_path:
        years.append("2012")
    return years


def folders_to_read(parameters):
    """The paths of both folders in VOC layout; downloaded ones are in the download folder."""
    paths = {"2007": parameters.voc07_path, "2012": parameters.voc12_path}
    if parameters.download:
        for year in years_to_download(parameters):
            paths[year] = str(voc_folder(parameters.download_folder, year))
    return paths["2007"], paths["2012"]


def draw_toy_data(parameters):
    """Draw the toy set and write its lists."""
    create_toy_data(
        parameters.toy_folder,
        parameters.toy_classes,
        parameters.toy_images,
        parameters.toy_test_images,
        parameters.seed,
    )


# ------------------------------------------------------------------------------------- verification


def verify(found, workers):
    """
    Decode every image and compare it with its annotation.

    :param found: voc_folders.FoundImages
    :param workers: number of processes
    :raises ValueError: there is a fault; the message lists all of them
    """
    faults = [str(fault) for fault in found.faults]
    # An image may be in two splits; it is looked at once
    images = [image for split in ("TRAIN", "VAL", "TEST") for image in found.splits.get(split, [])]
    images = list({image.image: image for image in images}.values())
    # As in training, a DataLoader hands the images to processes; what these return is text
    loader = DataLoader(images, batch_size=None, collate_fn=find_faults, num_workers=workers)
    for faults_of_image in tqdm(loader, desc="verifying", unit="image", dynamic_ncols=True):
        faults += faults_of_image
    if faults:
        n_images = len(images) + len(found.faults)
        raise ValueError(
            f"faults in {n_images} images: {len(faults)}; no lists were written:\n"
            + "\n".join(faults)
        )
    print(f"All {len(images)} images are intact and agree with their annotations.")


def find_faults(files):
    """
    :param files: voc_folders.ListedImage, or one of the other formats
    :return: what is wrong with the image or its annotation: [message]
    """
    faults = []
    objects = []
    stated_size = (math.inf, math.inf)
    try:
        objects, stated_size = files.read()
    except AnnotationError as error:
        faults.append(str(error))
    except ValueError:
        pass  # the image's size cannot be read: nor can the image
    try:
        image_size = read_image(files.image).size
    except ValueError as error:
        faults.append(str(error))
        return faults
    return faults + find_disagreements(files, objects, stated_size, image_size)


def find_disagreements(files, objects, stated_size, image_size):
    """
    :param files: see find_faults
    :param objects, stated_size: what its annotation says, see ListedImage.read
    :param image_size: (width, height) of the image itself
    :return: in what the two disagree: [message]
    """
    faults = []
    width, height = image_size
    if stated_size[0] not in (width, math.inf) or stated_size[1] not in (height, math.inf):
        faults.append(
            f"{files.annotation}: states a size of {stated_size[0]:g} x {stated_size[1]:g} pixels, "
            f"but {files.image} has {width} x {height} when it is upright: find out which one is "
            "wrong, and correct the boxes if they are"
        )
    for number, obj in enumerate(objects, start=1):
        if is_outside(obj, image_size):
            faults.append(
                f"{files.annotation}: object {number} ({printable(obj['name'][:40])}) is outside "
                "the image: correct its box, or remove it"
            )
    return faults


def is_outside(obj, image_size):
    """Whether less than MIN_SIDE of an object's box is in the image."""
    if obj["box"] is None:
        return "outside" in obj["repairs"]
    x_min, y_min, x_max, y_max = obj["box"]
    visible_width = min(x_max, image_size[0]) - x_min
    visible_height = min(y_max, image_size[1]) - y_min
    return min(visible_width, visible_height) < MIN_SIDE


if __name__ == "__main__":
    with readable_errors():
        main(read_command_line(Parameters, __doc__, positional=("folder?",))[0])
