"""
Convert weights that others published into a checkpoint, which the other scripts take like one of
their own.
"""

from dataclasses import dataclass
from pathlib import Path

from annotations import printable
from checkpoints import load_checkpoint, save_checkpoint
from published_weights import MODEL_KEYS
from runtime import read_command_line, readable_errors


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    source: str = ""  # file of weights, or coco for torchvision's, which are downloaded
    output: str = ""  # the checkpoint to write
    voc_classes: bool = False  # keep only PASCAL VOC's 20 of COCO's 80 classes


def main(parameters):
    """
    Convert the weights, and print what they are.

    :param parameters: Parameters
    :return: the checkpoint's path
    :raises OSError: the source or the output's folder is missing, the output exists already, or
        something could not be downloaded or written
    :raises ValueError: no output is named; or the source is damaged, asks for code to be run, or
        has no weights that we know
    """
    output = check_output(parameters.output)
    state = load_checkpoint(parameters.source, parameters.voc_classes)
    save_checkpoint(output, {key: state[key] for key in MODEL_KEYS})
    names = list(state["label_map"])[1:]
    print(f"{output}: an SSD300 for {len(names)} classes, {printable(', '.join(names))}.")
    return output


def check_output(name):
    """Look at the output before anything is downloaded or read; return its path."""
    if not name:
        raise ValueError("the output has no name: give one to the checkpoint to write")
    output = Path(name)
    if output.exists():
        raise FileExistsError(f"{output}: exists already: give the checkpoint another name")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output.parent}: no such folder: make it, or name another one")
    return output


if __name__ == "__main__":
    with readable_errors():
        main(read_command_line(Parameters, __doc__, positional=("source", "output"))[0])
