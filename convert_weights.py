"""Convert a file of weights that others published into a checkpoint, which the other scripts take like one of their own."""

import sys
from dataclasses import dataclass
from pathlib import Path

from checkpoints import load_checkpoint, save_checkpoint
from downloads import DownloadError
from published_weights import MODEL_KEYS
from runtime import describe_error, read_command_line


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    source: str = ""  # the file of weights, or coco for those of torchvision, which are downloaded
    output: str = ""  # the checkpoint to write
    voc_classes: bool = False  # of the eighty classes of COCO keep the twenty of PASCAL VOC


def main(parameters):
    """
    Convert, and say what it was.

    :param parameters: Parameters
    :return: the checkpoint's path
    :raises FileNotFoundError: the source, or the folder of the checkpoint, is missing
    :raises ValueError: the source is damaged, asks for code to be run, or has no weights that are known here
    :raises DownloadError: the download failed
    """
    output = Path(parameters.output)
    if not output.parent.is_dir():
        raise FileNotFoundError(
            f"{output.parent}: no such folder: make it, or name another for the checkpoint"
        )
    state = load_checkpoint(parameters.source, parameters.voc_classes)
    save_checkpoint(output, {key: state[key] for key in MODEL_KEYS})
    names = list(state["label_map"])[1:]
    print(f"{output}: an SSD300 for {len(names)} classes, {', '.join(names)}.")
    return output


if __name__ == "__main__":
    try:
        main(read_command_line(Parameters, __doc__, positional=("source", "output"))[0])
    except (OSError, ValueError, DownloadError) as error:
        sys.exit(describe_error(error))
