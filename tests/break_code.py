"""
Breaks lines of the code, one at a time, and says which of these changes the tests notice. Each is
made in a temporary copy of the project, where tests that should notice it are run. Prints a
Markdown table, and ends with status 1 if a change survives.

    python tests/break_code.py                    all of them: ten minutes or more on one core
    python tests/break_code.py --only model.py    those with this text in their row of the table
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import read_command_line, readable_errors

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 150  # seconds; a change by which tests hang is noticed, too

# For each change a line: file | what is broken | file of tests -k which of its tests (see pytest).
# Below it, indented: the old text, which the file has exactly once, --> and the new text. There,
# \n is a line break, and a line break is a blank.
BREAKS = r"""
annotations.py | low edges are still counted from 1 | test_annotations.py -k continuous_edges
    box = [x_min - 1, y_min - 1, x_max, y_max] --> box = [x_min, y_min, x_max, y_max]
annotations.py | NaN passes for a coordinate | test_annotations.py -k no_number
    if not abs(value) <= MAX_COORDINATE: --> if abs(value) > MAX_COORDINATE:
annotations.py | a document type passes in UTF-16 | test_annotations.py -k document_type
    if b"<!DOCTYPE" in content.replace(b"\0", b""): --> if b"<!DOCTYPE" in content:
annotations.py | COCO's low edges lose a pixel | test_annotations_formats.py -k boxes_of_coco
    rounded([x_min, y_min, x_min + width --> rounded([x_min - 1, y_min - 1, x_min + width
annotations.py | a polygon is taken for a box | test_annotations_formats.py -k boxes_of_yolo
    polygon_edges(values) if is_polygon --> centre_to_edges(values[:4]) if is_polygon
data_lists.py | test images without objects are left out | test_data_lists.py -k test_images_stay
    if split != "TRAIN" or has_usable_object(image) --> if has_usable_object(image)
data_lists.py | an earlier validation set stays | test_data_folders.py -k drawn_if_asked
    (output_folder / name).unlink() --> pass
data_lists.py | splits are drawn from full paths | test_data_folders.py -k nothing_else
    path = path.relative_to(folder.resolve()) --> pass
data_folders.py | file names lead out of the folder | test_data_folders.py -k cannot_lead_out
    ".." not in PurePosixPath(name).parts --> True
datasets.py | sizes are those of images lying on their side | test_data_folders.py -k upright
    image.size[::-1] if orientation --> image.size if orientation
voc_folders.py | VAL keeps training images | test_data_folders.py -k trained_on_is_none
    if image.image not in trained --> if True
create_data_lists.py | --verify swaps the sides | test_create_data_lists_verify.py -k well
    stated_size[0] not in (width, math.inf) or stated_size[1] not in (height, math.inf) -->
    stated_size[0] not in (height, math.inf) or stated_size[1] not in (width, math.inf)
downloads.py | MD5 sums are not compared | test_downloads.py -k checksum
    filename=archive.filename, md5=archive.md5 --> filename=archive.filename
utils.py | sizes of boxes have the wrong sign | test_utils.py -k hand
    high - low], dim=-1) --> low - high], dim=-1)
utils.py | offsets of centres have the factor 5 | test_utils.py -k hand
    (prior_size / 10) --> (prior_size / 5)
utils.py | offsets of sizes have the factor 10 | test_utils.py -k hand
    torch.log(size / prior_size) * 5 --> torch.log(size / prior_size) * 10
utils.py | boxes that miss each other both ways overlap | test_utils.py -k overlap
    width.clamp_(min=0) * height.clamp_(min=0) --> width * height
utils.py | zooming out is drawn although it is off | test_utils_transforms.py -k drawn_first
    if can_zoom_out and rng.random() < 0.5: --> if rng.random() < 0.5 and can_zoom_out:
utils.py | a crop overlaps objects too little | test_utils_transforms.py -k promised_overlap
    good &= overlaps.amax(dim=1) >= min_overlap --> pass
utils.py | a crop loses the centres of all objects | test_utils_transforms.py -k centre_of_at_least
    good &= centres_inside(boxes_px, crops).any(dim=1) --> pass
utils.py | a flip swaps x and y | test_utils_transforms.py -k boxes_follow
    [1 - x_max, y_min, 1 - x_min, y_max] --> [x_min, 1 - y_max, x_max, 1 - y_min]
utils.py | boxes reach out of a crop | test_utils_transforms.py -k boxes_are_those
    size.repeat(2)).clamp(0, 1) --> size.repeat(2))
utils.py | `>=` for `>`: half an overlap is a hit | test_utils_map.py -k one_half
    hits = best_overlap > min_overlap --> hits = best_overlap >= min_overlap
utils.py | detections of difficult objects count | test_utils_map.py -k difficult
    counts = hits & ~true_difficulties[best_object] --> counts = hits
utils.py | the worst of several hits is true | test_utils_map.py -k better_scored
    reduce="amin" --> reduce="amax"
detection_files.py | boxes are written counted from 0 | test_detection_files.py -k as_the_devkit
    {x_min + 1:.3f} --> {x_min:.3f}
detection_files.py | boxes are read as if counted from 0 | test_detection_files.py -k is_read_again
    ordered_box((x_min - 1, y_min - 1, --> ordered_box((x_min, y_min,
coco_metric.py | ids of objects begin with 0 | test_coco_metric.py -k hand
    "id": len(entries) + 1, --> "id": len(entries),
diagnosis.py | an error is of several kinds | test_diagnosis.py -k kind
    left = left & ~condition --> left = left
diagnosis.py | difficult objects are missed | test_diagnosis.py -k kind
    missed = ~objects.difficulties --> missed = torch.ones_like(objects.difficulties)
diagnosis.py | equal scores are separated | test_diagnosis.py -k best_f1
    f1[scores == following] = -1 --> f1[scores < following] = -1
report.py | names of classes become code | test_report.py -k stay_texts
    return escape(printable(str(value))) --> return printable(str(value))
utils.py | NaN is written as it is | test_eval.py -k "null or programs"
    return None if isinstance(value, float) and math.isnan(value) else value --> return value
eval.py | boxes are saved as fractions | test_eval.py -k pixels_of
    boxes * size for boxes, size --> boxes for boxes, size
model.py | the extra prior comes first | test_model_priors.py -k hand_values
    sizes.insert(1, (extra, extra)) --> sizes.insert(0, (extra, extra))
model.py | priors are wider than the image | test_model_priors.py -k no_larger_than
    dtype=torch.float32).clamp(0, 1) --> dtype=torch.float32)
model.py | a narrow layer has no channel at all | test_model.py -k follow_the_width
    max(1, round(number * width)) --> round(number * width)
model.py | predictions go over the columns first | test_model.py -k stand_in_the_order
    out.permute(0, 2, 3, 1) --> out.permute(0, 3, 2, 1)
model.py | conv6 sees half as far | test_model.py -k conv6_reaches
    padding=6, dilation=6 --> padding=3, dilation=3
model.py | squares of float16 features overflow | test_model.py -k large_float16
    conv4_3_feats = conv4_3_feats.float() --> pass
model.py | background is detected | test_model_detection.py -k background
    probabilities[:, :, 0] = -torch.inf --> pass
model.py | `>` for `>=`: the threshold itself is negative | test_model_loss.py -k exactly_the
    overlap_for_each_prior >= threshold --> overlap_for_each_prior > threshold
model.py | hard negatives are counted over the batch | test_model_loss.py -k mined_for_each
    self.neg_pos_ratio * positive.sum(dim=1, keepdim=True) --> self.neg_pos_ratio * positive.sum()
model.py | the confidence loss is a sum | test_model_loss.py -k gradients_agree
    "confidence": confidence / divisor --> "confidence": confidence
model.py | without positives, 0 is divided by 0 | test_model_loss.py -k without_positives
    n_positives.clamp(min=1) --> n_positives
datasets.py | zooming out is never left out | test_datasets.py -k zoomed_out_unless
    self.split, rng, self.can_zoom_out) --> self.split, rng)
datasets.py | evaluations miss difficult objects | test_datasets.py -k never_of_evaluation
    keep_difficult or split != "TRAIN" --> keep_difficult
datasets.py | augmentation forgets the index | test_datasets.py -k at_two_places
    default_rng((self.seed, int(self._epoch), i)) --> default_rng((self.seed, int(self._epoch)))
datasets.py | augmentation forgets the epoch | test_datasets.py -k item_depends
    default_rng((self.seed, int(self._epoch), i)) --> default_rng((self.seed, i))
datasets.py | workers do not see the epoch change | test_datasets.py -k two_workers
    dtype=torch.int64).share_memory_() --> dtype=torch.int64)
datasets.py | batches leave out their first image | test_datasets.py -k batches_have
    batch[self.rank :: self.world_size] --> batch[self.rank + 1 :: self.world_size]
datasets.py | images stay as the camera was held | test_datasets_images.py -k turned_upright
    image = ImageOps.exif_transpose(image) --> pass
datasets.py | SIGTERM ends the workers | test_datasets.py -k worker_is_left
    signal.signal(signal.SIGTERM, signal.SIG_IGN) --> pass
history.py | a loss that is NaN does not stop the run | test_train.py -k loss_that_is_not_finite
    if not (math.isfinite(confidence) and math.isfinite(localization)): --> if False:
history.py | weights that are NaN are saved | test_train.py -k weights_that_are_not_finite
    if broken: --> if False:
history.py | losses forget how many images a step had | test_history.py -k weighted
    progress.loss_sums[1] += localization * len(indices) --> progress.loss_sums[1] += localization
history.py | the time left tells each change | test_history.py -k "worth_a_line or a_fifth"
    if change < min(expected, seconds_left) / 5 or change < 20: --> if change == 0:
history.py | what is done between epochs slows the forecast | test_history.py -k between_epochs
    self.add_steps(step)\n            self.last = None --> self.add_steps(step)
history.py | validations take no time in the forecast | test_history.py -k replaces_the_guess
    + self.n_validations * per_validation --> + 0
train.py | `>` for `>=`: the rate falls a step late | test_train.py -k schedule_falls
    sum(step >= round(part * total) --> sum(step > round(part * total)
train.py | the warm-up begins with a rate of 0 | test_train.py -k rate_rises
    (step + 1) / (n_warm_up + 1) --> step / n_warm_up
train.py | epochs end in the middle of their last step | test_train_epochs.py -k smaller
    total = parameters.epochs * count_batches(n_images, parameters.batch_size) -->
    total = parameters.epochs * n_images / parameters.batch_size
resume.py | a new number of iterations does not count | test_train_epochs.py -k iterations_replace
    if not given & LENGTH: --> if "epochs" not in given:
train.py | the last epoch has no validation | test_train_epochs.py -k each_so_many
    if is_last or is_multiple( --> if is_multiple(
train.py | one group too few is frozen | test_train_options.py -k first_groups
    range(1, n_groups + 1) --> range(1, n_groups)
train.py | frozen layers lose weight | test_train_options.py -k first_groups
    parameter.requires_grad_(False) --> parameter.register_hook(torch.zeros_like)
train.py | the weight of the localization loss is lost | test_train_options.py -k alpha
    MultiBoxLoss(model.priors_cxcy, alpha=parameters.alpha) --> MultiBoxLoss(model.priors_cxcy)
train.py | biases decay | test_train.py -k biases
    "weight_decay": 0.0} --> "weight_decay": parameters.weight_decay}
train.py | parts of a batch count their own positives | test_train.py -k a_batch_in_parts
    true_classes[part], true_locs[part], n_positives -->
    true_classes[part], true_locs[part], (true_classes[part] > 0).sum()
train.py | float16 gradients are clipped while scaled | test_train.py -k true_norm
    run.scaler.unscale_(run.optimizer) --> pass
train.py | all epochs are augmented alike | test_train.py -k each_epoch
    train_set.set_epoch(progress.epoch) --> pass
train.py | the seed does not decide initial weights | test_train.py -k initial_weights
    torch.manual_seed(parameters.seed) --> pass
train.py | validation lists are not used | test_train.py -k validation_images
    has_lists(folder, "VAL") --> False
train.py | all processes draw toy data at once | test_train.py -k process_draws
    with first_process_first():\n            create_toy_data( -->
    if True:\n            create_toy_data(
train.py | losses forget the number of processes | test_distributed.py -k follow
    run.criterion.total(losses) * world_size() --> run.criterion.total(losses)
runtime.py | a history can be half written | test_history.py -k whole_whenever
    unfinished = path.with_name(f"unfinished_{path.name}") --> unfinished = path
history.py | curves are drawn after each epoch | test_history.py -k time_to_time
    seconds_since_written(curves_path) >= CURVES_EVERY --> True
preview.py | boxes of a preview keep the scale of the file | test_preview.py -k lists_are_drawn
    torch.tensor(entry["boxes"]).view(-1, 4) * scale --> torch.tensor(entry["boxes"]).view(-1, 4)
preview.py | a preview shows another epoch | test_preview.py -k training_gets
    train_set.set_epoch(0) --> pass
preview.py | small objects are counted by area | test_preview.py -k third_is_small
    IMAGE_SIZE * math.sqrt(share_of_image) --> IMAGE_SIZE * share_of_image
resume.py | a fraction passes for a whole number | test_resume_start.py -k fraction
    item.type is float or item.name == "iterations" --> item.type in numbers
resume.py | TOY changes the runs of older checkpoints | test_train_width.py -k older
    saved = {**defaults, --> saved = {**dataclasses.asdict(parameters),
resume.py | a width that is given is passed over | test_train_width.py -k another_width_than
    if name in given:\n            raise ValueError( --> if False:\n            raise ValueError(
runtime.py | a checkpoint is renamed too early | test_checkpoints.py -k before_it_is_renamed
    os.fsync(file.fileno()) --> pass
runtime.py | the temporary file stays | test_checkpoints.py -k interrupted_write
    unfinished.unlink(missing_ok=True) --> pass
checkpoints.py | for a moment there is no checkpoint | test_checkpoints.py -k every_moment
    os.link(path, second_path) --> os.replace(path, second_path)
resume.py | momentum is lost on going on | test_train.py -k momentum
    run.optimizer.load_state_dict(state["optimizer"]) --> pass
resume.py | images seen are forgotten on going on | test_resume.py -k 3-0
    n_images=state["n_images"] --> n_images=0
resume.py | other runs are overwritten | test_resume_start.py -k no_other_run
    return state["run_id"] == content["run_id"] --> return True
resume.py | damaged checkpoints are overwritten | test_resume_start.py -k damaged_checkpoint
    if content is None:\n        return resumes_here --> if content is None:\n        return True
runtime.py | signal handlers are not put back | test_runtime.py -k only_noted
    signal.signal(number, handler) --> pass
runtime.py | other processes do not wait for the first | test_runtime.py -k machine_goes_first
    if local_rank > 0:\n        dist.barrier() --> pass
runtime.py | sums over processes are those of one | test_distributed.py -k follow
    dist.all_reduce(tensor) --> pass
safe_loading.py | names are imported | test_safe_loading.py -k unpickler_itself
    DTYPES[full_name] if full_name in DTYPES else self.stand_ins[full_name] -->
    super().find_class(module, name)
safe_loading.py | names are checked too late | test_safe_loading.py -k carried_out
    if full_name not in STAND_INS and full_name not in DTYPES: --> if False:
safe_loading.py | tensors are larger than their file | test_safe_loading.py -k larger_than
    or n_values < 0 or self.n_bytes_left < 0: --> or n_values < 0:
safe_loading.py | objects are named again and again | test_safe_loading.py -k bombs
    if self.n_copied > MAX_OBJECTS: --> if False:
safe_loading.py | a zip bomb is unpacked | test_safe_loading.py -k zip_bomb
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > n_bytes: --> if False:
published_weights.py | red and blue are swapped | test_published_weights.py -k amdegroots
    CAFFE_MEAN = (123.0, 117.0, 104.0) --> CAFFE_MEAN = (104.0, 117.0, 123.0)
published_weights.py | a truth value is taken for a width | test_checkpoints.py -k wrong_width
    type(width) not in (int, float) --> not isinstance(width, (int, float))
published_weights.py | priors keep their order | test_published_weights_torchvision.py -k scores_and
    fold_input(reorder_heads(state), TORCHVISION_MEAN) --> fold_input(state, TORCHVISION_MEAN)
published_weights.py | a sofa is no couch | test_published_weights_torchvision.py -k among_cocos
    "sofa": "couch", --> "sofa": "sofa",
eval.py | labels of detections are mapped the wrong way | test_eval.py -k classes_that_the_data_lack
    to_data[model_label] = data_label --> to_data[data_label] = model_label
eval.py | a process evaluates its own share only | test_distributed.py -k shared_out
    return [result for batches in zip_longest(*shares) for result in batches if result is not None]
    --> return results
detect.py | boxes reach out of the image | test_detect.py -k within_it
    nan_to_num().clamp(0, 1) * size --> nan_to_num() * size
detect.py | suppressed classes are shown | test_detect.py -k settings_decide
    if detection.name not in suppress] --> if True]
detect.py | the precision is forgotten | test_detect_files.py -k precision_reaches
    with autocast(device, precision): --> with autocast(device, "float32"):
detect.py | large images fill a batch up | test_detect_files.py -k large_images
    if len(batch) == batch_size or n_pixels > MAX_BATCH_PIXELS: --> if len(batch) == batch_size:
detect.py | all images are read first | test_detect_files.py -k memory
    in make_batches(pictures, --> in make_batches(list(pictures),
detect.py | unreadable files are not in the JSON file | test_detect_files.py -k names_them
    for path, message in results.unreadable.items() --> for path, message in ()
image_paths.py | outputs are taken for images | test_detect_files.py -k outputs_in_a_folder
    .resolve() != output_folder.resolve() --> .resolve() != output_folder
image_paths.py | an output replaces what a link stands for | test_image_paths.py -k do_not_meet
    (path.parent.resolve() / path.name, path.resolve()) --> (path.parent.resolve() / path.name,)
films.py | what is transparent is black | test_films.py -k begins_transparent
    Image.new("RGB", image.size, "white") --> Image.new("RGB", image.size)
films.py | all frames are shown equally long | test_films.py -k keeps_its_format
    duration=self.durations_ms, --> duration=100,
films.py | the picture in front is a frame | test_films.py -k without_animations
    self.first = 1 if --> self.first = 0 if
films.py | films come with red for blue | test_films.py -k rate_and_size
    Image.fromarray(self.opencv.cvtColor(pixels, self.opencv.COLOR_BGR2RGB)) -->
    Image.fromarray(pixels)
drawing.py | labels cover their own boxes | test_drawing.py -k rather_than_its_own
    (total_overlap(place, [box, *labels]), total_overlap(place, boxes)) -->
    (total_overlap(place, labels), total_overlap(place, boxes))
drawing.py | the worst detection is drawn on top | test_drawing.py -k drawn_on_top
    for box, colour in reversed(list(zip(boxes, colours, strict=True))): -->
    for box, colour in zip(boxes, colours, strict=True):
toy_data.py | other data are overwritten | test_toy_data.py -k never_overwritten
    if not isinstance(settings, dict) or settings.get("made_by") != MADE_BY: --> if False:
"""


@dataclass
class Parameters:
    """What can be set, here or on the command line."""

    only: str = ""  # make only the changes with this text in their row of the table
    list: bool = False  # show the table and run nothing


class Break(NamedTuple):
    """A change that tests should notice."""

    file: str
    what: str
    test_file: str
    selection: str  # which of its tests, as for pytest -k
    old: str
    new: str

    @property
    def row(self):
        """Its row of the printed table, but for the last cell."""
        return f"| {self.file} | {self.what} | {self.test_file} |"


def read_breaks():
    """
    :return: [Break]
    :raises ValueError: the code is another by now: an old text is no longer in it exactly once
    """
    entries = []  # a line, and all lines below it
    for line in BREAKS.strip().splitlines():
        if line.startswith(" "):
            entries[-1][1] += line.strip() + " "
        else:
            entries.append([line, ""])
    breaks = []
    for title, change in entries:
        file, what, tests = title.split(" | ")
        test_file, _, selection = tests.partition(" -k ")
        old, new = change.replace(r"\n", "\n").rstrip(" ").split(" --> ")
        n_found = (ROOT / file).read_text(encoding="utf-8").count(old)
        if n_found != 1:
            raise ValueError(
                f"{file}: expected once, found {n_found} times: {old!r}: correct its entry in "
                "tests/break_code.py"
            )
        breaks.append(Break(file, what, test_file, selection.strip('"'), old, new))
    return breaks


def run_tests(folder, test_file, selection, timeout):
    """
    Run tests up to the first one that fails.

    :param folder: a copy of the project
    :param test_file, selection: see Break
    :param timeout: seconds, or None
    :return: the exit status of pytest; None if the time was not enough
    """
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", selection]
    shared = str(ROOT.parent / "shared")  # see conftest.py
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "pytest", f"tests/{test_file}", *options],
        cwd=folder,
        env={"OMP_NUM_THREADS": "1", "SSD_SHARED": shared, **os.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a group of its own, with all that the tests start
    )
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def check_tests(folder, breaks):
    """Raise a ValueError if one of the tests fails where nothing is broken."""
    selections = defaultdict(set)
    for change in breaks:
        selections[change.test_file].add(f"({change.selection})")
    for test_file, parts in selections.items():
        status = run_tests(folder, test_file, " or ".join(sorted(parts)), timeout=None)
        if status != 0:
            raise ValueError(f"{test_file}: pytest ends with {status} where nothing is broken")


def judge(folder, change):
    """Make a change in a copy of the project, run its tests, and undo it: its row's last cell."""
    path = folder / change.file
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace(change.old, change.new), encoding="utf-8")
    status = run_tests(folder, change.test_file, change.selection, TIMEOUT)
    path.write_text(source, encoding="utf-8")
    if status == 0:
        return "SURVIVES"
    if status is None or status == 1 or status < 0:  # a hang, a failure, a crash
        return "caught"
    return f"SURVIVES: pytest could not run the tests ({status})"


def main(parameters):
    """
    Print the table.

    :param parameters: Parameters
    :return: whether all changes were noticed
    :raises ValueError: the changes do not fit the code, or tests fail without them
    """
    breaks = [change for change in read_breaks() if parameters.only in change.row]
    if parameters.list:
        print("\n".join(change.row for change in breaks))
        return True
    results = []
    unneeded = shutil.ignore_patterns(".*", "__pycache__", "*.png", "*.gif", "*.tar")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT, folder, ignore=unneeded, dirs_exist_ok=True)
        check_tests(folder, breaks)
        print("| file | what is broken | tests | |\n|---|---|---|---|")
        for change in breaks:
            results.append(judge(folder, change))
            print(f"{change.row} {results[-1]} |", flush=True)
    print(f"\n{results.count('caught')} of {len(breaks)} changes were caught.")
    return results.count("caught") == len(breaks)


if __name__ == "__main__":
    with readable_errors():
        all_caught = main(read_command_line(Parameters, __doc__)[0])
    sys.exit(not all_caught)
