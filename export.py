"""
Write a detector into an ONNX file, which other programs run without PyTorch and without this code.
Decoding and non-maximum suppression are inside. Needs onnx and onnxscript and, to compare the file
with PyTorch, onnxruntime: pip install onnx onnxscript onnxruntime
"""

import importlib.util
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from annotations import printable
from checkpoints import load_model
from detect import check_numbers
from model import MAX_CANDIDATES_PER_CLASS, suppress
from runtime import check_range, read_command_line, readable_errors, written_whole
from utils import IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, cxcy_to_xy, gcxgcy_to_cxcy

OPSET = 18  # version of ONNX's operators
# Without an upper bound of the batch, torch 2.6 does not accept that it is of any size
MAX_BATCH = 2**31 - 1
# Boxes that are further away, in sides of the image, are moved here: infinity is no number to
# compute overlaps with
FAR = 1e4

# How the file and PyTorch are compared
N_COMPARED = 20  # detections per image, the best ones
MAX_BOX_DIFFERENCE = 0.1  # pixels of 300
MAX_SCORE_DIFFERENCE = 1e-3
MAX_RAW_DIFFERENCE = 1e-3  # as a part of the largest prediction


@dataclass
class Parameters:
    """Settings, to be changed here or on the command line."""

    # Files: what is read and written
    checkpoint: str = ""  # any file of weights, or coco to download one
    output: str = ""  # the .onnx file to write; an earlier one is replaced

    # Detections: which the file puts out, fixed in it
    min_score: float = 0.2  # a detection's probability is above this
    max_overlap: float = 0.5  # Jaccard overlap above which the worse of two boxes of a class goes
    top_k: int = 200  # places for detections per image; those left over are filled with zeros
    raw: bool = False  # offsets, scores and priors instead of detections, which you then find


# ------------------------------------------------------------------- detections of a fixed number


class Detector(nn.Module):
    """
    What SSD300 and its detect_objects compute, in tensors whose sizes do not depend on the image:
    the best 400 candidates of each class, of which suppression sets the scores to zero, and the
    best top_k of all.
    """

    def __init__(self, network, min_score, max_overlap, top_k):
        """
        :param network: SSD300
        :param min_score, max_overlap, top_k: see SSD300.detect_objects
        :raises ValueError: top_k is more than the classes have candidates
        """
        super().__init__()
        n_candidates = MAX_CANDIDATES_PER_CLASS * (network.n_classes - 1)
        check_range("top_k", top_k, 1, n_candidates)
        self.network = network
        self.top_k = top_k
        # Tensors, so that the file has them under these names
        self.register_buffer("min_score", torch.tensor(min_score, dtype=torch.float32))
        self.register_buffer("max_overlap", torch.tensor(max_overlap, dtype=torch.float32))

    def forward(self, images):
        """
        :param images: (N, 3, 300, 300) float, see SSD300.forward
        :return: see find_detections
        """
        return self.find_detections(*self.network(images))

    def find_detections(self, predicted_locs, predicted_scores):
        """
        :param predicted_locs: (N, 8732, 4) float, offsets gcxgcy
        :param predicted_scores: (N, 8732, n_classes) float, before the softmax
        :return: best detection first, zeros after the last one: boxes (N, top_k, 4) in fractional
            xy, not clipped to the image; labels (N, top_k) long; scores (N, top_k)
        """
        boxes = cxcy_to_xy(gcxgcy_to_cxcy(predicted_locs, self.network.priors_cxcy))
        boxes = boxes.nan_to_num(nan=0.0).clamp(-FAR, FAR)  # (N, 8732, 4)
        probabilities = predicted_scores.softmax(dim=2).nan_to_num(nan=0.0)
        probabilities = probabilities[:, :, 1:].transpose(1, 2)  # (N, n_classes - 1, 8732)

        # 1. Candidates: the best 400 priors of each class, whatever their scores
        scores, priors = probabilities.topk(MAX_CANDIDATES_PER_CLASS, dim=2)  # (N, C, 400) both
        boxes = take_boxes(boxes, priors.flatten(1))  # (N, C * 400, 4)

        # 2. Non-maximum suppression within each class of each image
        boxes_of_groups = boxes.reshape(-1, MAX_CANDIDATES_PER_CLASS, 4)  # (N * C, 400, 4)
        scores_of_groups = scores.flatten(0, 1)  # (N * C, 400)
        scores_of_groups = suppress_scores(
            boxes_of_groups, scores_of_groups, self.min_score, self.max_overlap
        )
        scores = scores_of_groups.reshape(scores.shape).flatten(1)  # (N, C * 400)

        # 3. The best top_k of each image, over all its classes
        scores, places = scores.topk(self.top_k, dim=1)  # (N, top_k) both
        found = scores > 0
        boxes = take_boxes(boxes, places) * found.unsqueeze(2)
        labels = (places // MAX_CANDIDATES_PER_CLASS + 1) * found
        return boxes, labels, scores


class RawPredictor(nn.Module):
    """The network's predictions, and the priors that they are relative to."""

    def __init__(self, network):
        """:param network: SSD300"""
        super().__init__()
        self.network = network

    def forward(self, images):
        """
        :param images: (N, 3, 300, 300) float, see SSD300.forward
        :return: locs (N, 8732, 4) and scores (N, 8732, n_classes), see SSD300.forward; and
            priors (8732, 4), cxcy
        """
        # A copy: what is put out is no longer the network's own buffer
        return *self.network(images), self.network.priors_cxcy.clone()


def take_boxes(boxes, indices):
    """
    :param boxes: (N, n, 4)
    :param indices: (N, m) long, below n
    :return: (N, m, 4)
    """
    return boxes.gather(1, indices.unsqueeze(2).expand(-1, -1, 4))


# Operators that are known to the exporter only by name, and translated as a whole: inside, sizes
# depend on how many boxes stay, which torch.export does not allow


@torch.library.custom_op("ssd300::suppress_scores", mutates_args=())
def suppress_scores(
    boxes: Tensor, scores: Tensor, min_score: Tensor, max_overlap: Tensor
) -> Tensor:
    """
    Non-maximum suppression within each group of boxes.

    :param boxes: (G, n, 4) float, xy
    :param scores: (G, n) float, the best of each group first
    :param min_score, max_overlap: scalars, see SSD300.detect_objects
    :return: (G, n), the scores of the boxes that stay, and zero for the others
    """
    n_groups, n_boxes = scores.shape
    groups = torch.arange(n_groups).repeat_interleave(n_boxes)
    (candidates,) = (scores.flatten() > min_score).nonzero(as_tuple=True)
    kept = suppress(
        boxes.flatten(0, 1)[candidates],
        scores.flatten()[candidates],
        groups[candidates],
        float(max_overlap),
    )
    places = candidates[kept]
    remaining = torch.zeros_like(scores).flatten()
    remaining[places] = scores.flatten()[places]
    return remaining.view_as(scores)


@suppress_scores.register_fake
def _(boxes, scores, min_score, max_overlap):
    """What torch.export has to know about it: the shape and the type of the result."""
    return torch.empty_like(scores)


def suppress_scores_in_onnx(boxes, scores, min_score, max_overlap):
    """The same in ONNX's operators; called by the exporter, with names for tensors."""
    from onnxscript import opset18 as op

    # Of each group one class. Rows of (group, class, box), one for each box that stays
    kept = op.NonMaxSuppression(
        boxes, op.Unsqueeze(scores, [1]), [MAX_CANDIDATES_PER_CLASS], max_overlap, min_score
    )
    places = op.Gather(kept, [0, 2], axis=1)
    zeros = op.Sub(scores, scores)
    return op.ScatterND(zeros, places, op.GatherND(scores, places))


# ---------------------------------------------------------------------------------------- the file


def to_onnx(module, inputs, output_names):
    """
    :param module: Detector or RawPredictor, in eval mode on the CPU
    :param inputs: {name: tensor}, what it takes, in order; any two images will do as an example
    :param output_names: names for what it returns
    :return: onnx.ModelProto, which takes batches of any size
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    batch = torch.export.Dim("N", max=MAX_BATCH)
    translations = {torch.ops.ssd300.suppress_scores.default: suppress_scores_in_onnx}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own insides
        # Not strict: the code is run with tensors that record it, and not analysed
        program = torch.export.export(
            module, tuple(inputs.values()), dynamic_shapes=[{0: batch}] * len(inputs), strict=False
        )
        program = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=output_names,
            custom_translation_table=translations,
            # The optimizer (of onnxscript 0.7) takes adding 1e-10 in SSD300.forward for adding
            # nothing, by which features of zero become NaN; and onnxruntime has one of its own
            optimize=False,
            verbose=False,
        )
    # Where each node comes from, with the paths of this machine
    ClearMetadataAndDocStringPass()(program.model)
    return program.model_proto


def add_metadata(model, properties):
    """
    :param model: onnx.ModelProto, which is changed
    :param properties: {name: text, or what JSON can hold}
    """
    for name, value in properties.items():
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=name, value=text)


def describe_input(network):
    """What a user of any of the files has to know: {name: value}."""
    by_number = sorted(network.label_map.items(), key=lambda item: item[1])
    return {
        "class_names": [name for name, _ in by_number],  # the label is the place in this list
        "image_size": IMAGE_SIZE,
        "resize": "squeezed to a square, bilinear with antialiasing, as Pillow's Image.resize",
        "channels": "RGB",
        "normalisation": "(value / 255 - mean) / std",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }


def describe_detections(parameters):
    """What the file puts out: {name: value}."""
    return {
        "boxes": "x_min, y_min, x_max, y_max as fractions of the image's sides, not clipped to it",
        "min_score": parameters.min_score,
        "max_overlap": parameters.max_overlap,
        "top_k": parameters.top_k,
    }


def describe_predictions():
    """What a raw file puts out: {name: value}."""
    return {
        "priors_cxcy": "centre x, centre y, width, height as fractions of the image's sides",
        "locs": "offsets: centre = locs[:2] * prior_size / 10 + prior_centre, "
        "size = exp(locs[2:] / 5) * prior_size",
        "scores": "before the softmax over the classes, of which 0 is background",
    }


# ------------------------------------------------------------------------------------- the checks


def check_onnx(path, module, parameters):
    """
    Read a file that was just written, and compare what it computes with PyTorch. Prints the result.

    :param path: the file
    :param module: Detector or RawPredictor that it was made from
    :param parameters: Parameters
    :raises ValueError: the file is not valid, or computes something else
    """
    import onnx

    model = onnx.load(path, format="protobuf")
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"{parameters.output}: not valid: {error}: {OTHER_VERSIONS}") from error
    if importlib.util.find_spec("onnxruntime") is None:
        print("The file is valid. It was not run: that needs onnxruntime (pip install onnxruntime)")
        return
    # Noise, on which a network finds little, so that the best detections are compared, whatever
    # their scores; and a batch of another size than when the file was made
    images = torch.randn(3, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    if parameters.raw:
        is_same = compare_predictions(model, module.network, images)
    else:
        is_same = compare_detections(model, module.network, images, parameters.max_overlap)
    if not is_same:
        raise ValueError(f"{parameters.output}: differs from PyTorch: {OTHER_VERSIONS}")


OTHER_VERSIONS = "nothing was written; try other versions of torch, onnxscript or onnxruntime"


def run_file(model, inputs):
    """
    Run a file in onnxruntime, on the CPU.

    :param model: onnx.ModelProto
    :param inputs: {name: tensor}
    :return: list of numpy arrays, its outputs
    """
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


@torch.inference_mode()
def compare_predictions(model, network, images):
    """
    Print how much the predictions of a raw file and of PyTorch differ.

    :param model: onnx.ModelProto
    :param network: SSD300
    :param images: (N, 3, 300, 300) float
    :return: whether it is little
    """
    differences = []
    for ours, other in zip(network(images), run_file(model, {"images": images}), strict=False):
        ours = ours.numpy()
        differences.append(np.abs(other - ours).max() / np.abs(ours).max())
    shown = ", ".join(f"{difference:.1e}" for difference in differences)
    print(f"On random images the largest differences from PyTorch are {shown} (offsets, scores),")
    print("as parts of the largest prediction.")
    return max(differences) <= MAX_RAW_DIFFERENCE


@torch.inference_mode()
def compare_detections(model, network, images, max_overlap):
    """
    Print how much the best detections of a file and of PyTorch differ, whatever their scores.

    :param model: onnx.ModelProto; its min_score is set to zero
    :param network: SSD300
    :param images: (N, 3, 300, 300) float
    :param max_overlap: see SSD300.detect_objects
    :return: whether it is little
    """
    set_min_score(model, 0.0)
    theirs = run_file(model, {"images": images})
    ours = network.detect_objects(*network(images), 0.0, max_overlap, theirs[2].shape[1])
    box_differences = []
    score_differences = []
    for our_detections, their_detections in zip(
        zip(*ours, strict=True), zip(*theirs, strict=True), strict=True
    ):
        boxes, labels, scores = (values.numpy()[:N_COMPARED] for values in our_detections)
        their_boxes, their_labels, their_scores = their_detections
        score_differences += np.abs(scores - their_scores[: len(scores)]).tolist()
        for box, label in zip(boxes, labels, strict=True):
            same_class = their_boxes[their_labels == label]
            # Equal scores may come in another order: the nearest one is meant
            distances = np.abs(same_class - box).max(axis=1, initial=0.0)
            box_differences.append(float(distances.min(initial=np.inf)))
    if not box_differences:
        print("Neither the file nor PyTorch finds anything in random images.")
        return True
    box_difference = IMAGE_SIZE * max(box_differences)
    score_difference = max(score_differences)
    print(
        f"On random images, the best {len(box_differences)} detections differ from PyTorch's by at "
        f"most {box_difference:.1e} px of {IMAGE_SIZE} and {score_difference:.1e} in score."
    )
    return box_difference <= MAX_BOX_DIFFERENCE and score_difference <= MAX_SCORE_DIFFERENCE


def set_min_score(model, min_score):
    """
    Change the lowest score of a file.

    :param model: onnx.ModelProto, which is changed
    :param min_score: number
    """
    from onnx import numpy_helper

    (constant,) = [tensor for tensor in model.graph.initializer if tensor.name == "min_score"]
    value = np.array(min_score, dtype=np.float32)
    constant.CopyFrom(numpy_helper.from_array(value, "min_score"))


# -------------------------------------------------------------------------------------- the script


def main(parameters):
    """
    Write the ONNX file, check it, and print what it is.

    :param parameters: Parameters
    :return: the file's path
    :raises OSError: there is no checkpoint, or the file could not be written
    :raises ValueError: a package is missing, a parameter has no sensible value, the checkpoint
        has no weights that we know, or the file does not compute what PyTorch does
    """
    check_packages()
    check_numbers(parameters.min_score, parameters.max_overlap, parameters.top_k)
    output = check_output(parameters)
    network = load_model(parameters.checkpoint)
    inputs = {"images": torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE)}
    if parameters.raw:
        module = RawPredictor(network)
        model = to_onnx(module, inputs, ["locs", "scores", "priors_cxcy"])
        add_metadata(model, describe_input(network) | describe_predictions())
    else:
        module = Detector(network, parameters.min_score, parameters.max_overlap, parameters.top_k)
        model = to_onnx(module, inputs, ["boxes", "labels", "scores"])
        add_metadata(model, describe_input(network) | describe_detections(parameters))
    with written_whole(output) as unfinished:
        unfinished.write_bytes(model.SerializeToString())
        check_onnx(unfinished, module, parameters)
    names = printable(", ".join(list(network.label_map)[1:]))
    megabytes = output.stat().st_size / 1e6
    print(f"{output}: {megabytes:.1f} MB, for {network.n_classes - 1} classes, {names}.")
    return output


def missing_packages():
    """The names of the packages that the exporter needs and that are not installed."""
    needed = ("onnx", "onnxscript")
    return [name for name in needed if importlib.util.find_spec(name) is None]


def check_packages():
    """:raises ValueError: what the exporter needs is not installed"""
    missing = missing_packages()
    if missing:
        raise ValueError(
            f"export.py needs {' and '.join(missing)}: pip install onnx onnxscript onnxruntime"
        )


def check_output(parameters):
    """
    Look at the output before the checkpoint is read.

    :return: its path
    :raises OSError: its folder is missing, or it is no file
    :raises ValueError: its name is missing or has another ending, or it is the checkpoint
    """
    output = Path(parameters.output)
    if output.suffix != ".onnx":
        raise ValueError(f"output: expected a name that ends in .onnx, got {parameters.output!r}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output.parent}: no such folder: make it, or name another one")
    if output.is_dir():
        raise IsADirectoryError(f"{output}: is a folder: name a file")
    checkpoint = Path(parameters.checkpoint)
    if output.exists() and checkpoint.exists() and output.samefile(checkpoint):
        raise ValueError(f"{output}: is the checkpoint: give the output another name")
    return output


if __name__ == "__main__":
    with readable_errors():
        main(read_command_line(Parameters, __doc__, positional=("checkpoint", "output"))[0])
