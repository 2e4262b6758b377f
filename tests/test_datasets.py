"""datasets.py: lists, items and batches, in drawn data sets and a real one."""

import json
import os
import signal
import xml.etree.ElementTree as ElementTree
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from datasets import (
    SPLITS,
    PascalVOCDataset,
    ShuffledBatches,
    collate_fn,
    create_loader,
    ordered_batches,
    read_label_map,
    read_list,
    start_worker,
)
from helpers.folders import LABEL_MAP, write_lists
from model import MultiBoxLoss
from utils import create_data_lists

pytestmark = pytest.mark.usefixtures("one_thread")

ENTRIES = [
    {"boxes": [[10, 20, 60, 80], [50, 5, 90, 40]], "labels": [1, 2], "difficulties": [0, 1]},
    {"boxes": [[0, 0, 100, 80]], "labels": [2], "difficulties": [0]},
    {"boxes": [], "labels": [], "difficulties": []},
    {"boxes": [[5.5, 6.25, 30, 40]], "labels": [1], "difficulties": [1]},
    {
        "boxes": [[1, 2, 33, 44], [40, 40, 90, 70], [60, 10, 95, 30]],
        "labels": [2, 1, 1],
        "difficulties": [0, 0, 0],
    },
]


def change_list(folder, name, change):
    """Let change(content) spoil the content of a list."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


@pytest.fixture
def data_folder(tmp_path):
    """Lists of five images of 100 x 80 pixels of noise; the third is without objects."""
    images = []
    for number in range(len(ENTRIES)):
        pixels = np.random.default_rng(number).integers(0, 256, (80, 100, 3), dtype=np.uint8)
        images.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(images[-1])
    return write_lists(tmp_path, images, ENTRIES)


def same(item_1, item_2):
    """Whether two items, or two batches, are equal in all their tensors."""
    flat_1, flat_2 = (
        [t for part in item for t in ([part] if torch.is_tensor(part) else part)]
        for item in (item_1, item_2)
    )
    return len(flat_1) == len(flat_2) and all(
        torch.equal(t_1, t_2) for t_1, t_2 in zip(flat_1, flat_2, strict=True)
    )


# -------------------------------------------------------------------------------------------- lists


def test_read_list_gives_what_is_written(tmp_path):
    (tmp_path / "x.json").write_text('[1, {"ä": [2.5]}]', encoding="utf-8")
    assert read_list(tmp_path, "x.json") == [1, {"ä": [2.5]}]
    assert read_list(str(tmp_path), "x.json") == [1, {"ä": [2.5]}]


def test_read_list_names_the_file_that_is_missing_and_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"TEST_images\.json.*create_data_lists\.py"):
        read_list(tmp_path, "TEST_images.json")
    with pytest.raises(FileNotFoundError, match=r"TRAIN_images\.json"):
        PascalVOCDataset(tmp_path, "TRAIN")


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"\xff\xfe\x00", b"hello"])
def test_read_list_names_the_file_that_is_not_json(content, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.json: not readable as JSON"):
        read_list(tmp_path, "x.json")


def test_a_broken_image_of_a_data_set_is_named(data_folder):
    (data_folder / "1.png").write_bytes(b"nothing")
    dataset = PascalVOCDataset(data_folder, "TRAIN")
    dataset[0]
    with pytest.raises(ValueError, match=r"1\.png: not readable as an image"):
        dataset[1]


# -------------------------------------------------------------------------------------------- items


def test_items_of_the_test_split_are_the_resized_images_and_all_their_objects(data_folder):
    dataset = PascalVOCDataset(data_folder, "TEST")
    assert len(dataset) == 5
    assert dataset.label_map == LABEL_MAP
    for number, entry in enumerate(ENTRIES):
        image, boxes, labels, difficulties = dataset[number]
        assert (image.shape, image.dtype) == ((3, 300, 300), torch.float32)
        assert (labels.dtype, difficulties.dtype) == (torch.int64, torch.bool)
        expected = torch.tensor(entry["boxes"]).view(-1, 4) / torch.tensor([100, 80, 100, 80])
        torch.testing.assert_close(boxes, expected)
        assert labels.tolist() == entry["labels"]
        assert difficulties.tolist() == [bool(difficult) for difficult in entry["difficulties"]]
        with Image.open(dataset.images[number]) as original:
            resized = original.resize((300, 300), Image.Resampling.BILINEAR)
        levels = torch.from_numpy(np.array(resized))
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        torch.testing.assert_close(
            image.permute(1, 2, 0), (levels / 255 - mean) / std, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("split", SPLITS)
def test_images_without_objects_are_items_like_others(split, data_folder):
    image, boxes, labels, difficulties = PascalVOCDataset(data_folder, split)[2]
    assert image.shape == (3, 300, 300)
    assert (boxes.shape, labels.shape, difficulties.shape) == ((0, 4), (0,), (0,))
    assert (boxes.dtype, labels.dtype, difficulties.dtype) == (
        torch.float32,
        torch.int64,
        torch.bool,
    )


@pytest.mark.parametrize(
    ("split", "keep", "kept"),
    [
        ("TRAIN", False, False),
        ("TRAIN", True, True),
        ("VAL", False, True),
        ("TEST", False, True),
    ],
)
def test_difficult_objects_are_left_out_of_training_on_request_and_never_of_evaluation(
    split, keep, kept, data_folder, monkeypatch
):
    monkeypatch.setattr(
        "datasets.transform",
        lambda image, boxes, labels, difficulties, *_: (boxes, labels, difficulties),
    )
    dataset = PascalVOCDataset(data_folder, split, keep_difficult=keep)
    boxes, labels, difficulties = dataset[0]
    assert boxes.tolist() == ENTRIES[0]["boxes"][: 1 + kept]
    assert labels.tolist() == [1, 2][: 1 + kept]
    assert difficulties.tolist() == [False, True][: 1 + kept]
    assert len(dataset[3][0]) == kept, "the only object is difficult"
    assert len(dataset[4][0]) == 3


def test_difficult_objects_are_left_out_of_training_by_default(data_folder):
    dataset = PascalVOCDataset(data_folder, "TRAIN")
    for epoch in range(30):
        dataset.set_epoch(epoch)
        assert not dataset[0][3].any()
        assert len(dataset[3][1]) == 0


def test_validation_items_are_prepared_like_test_items_from_lists_of_their_own(data_folder):
    change_list(data_folder, "VAL_images.json", lambda images: images.reverse())
    change_list(data_folder, "VAL_objects.json", lambda entries: entries.reverse())
    validation = PascalVOCDataset(data_folder, "VAL", seed=1)
    validation.set_epoch(2)
    test = PascalVOCDataset(data_folder, "TEST")
    assert all(same(validation[number], test[4 - number]) for number in range(5))


def test_missing_validation_lists_are_named_and_explained(data_folder):
    (data_folder / "VAL_images.json").unlink()
    message = r"VAL_images\.json: no such list.*only where there is a validation set"
    with pytest.raises(FileNotFoundError, match=message):
        PascalVOCDataset(data_folder, "VAL")


def test_the_lists_alone_are_enough_where_no_image_is_read(data_folder):
    for path in json.loads((data_folder / "TEST_images.json").read_text()):
        os.remove(path)
    with pytest.raises(FileNotFoundError):
        PascalVOCDataset(data_folder, "TEST")
    dataset = PascalVOCDataset(data_folder, "TEST", needs_images=False)
    boxes, labels, difficulties = dataset.objects_px()
    assert sum(map(len, boxes)) > 0
    for i, entry in enumerate(json.loads((data_folder / "TEST_objects.json").read_text())):
        assert boxes[i].shape == (len(entry["boxes"]), 4)
        assert boxes[i].tolist() == entry["boxes"]
        assert labels[i].tolist() == entry["labels"]
        assert difficulties[i].tolist() == list(map(bool, entry["difficulties"]))


def test_going_through_a_data_set_ends(data_folder):
    assert len(list(PascalVOCDataset(data_folder, "TEST"))) == 5


@pytest.mark.parametrize("split", ["train", "TRAINVAL", None])
def test_another_split_is_refused(split, data_folder):
    with pytest.raises(ValueError, match="expected 'TRAIN', 'VAL' or 'TEST'"):
        PascalVOCDataset(data_folder, split)


# -------------------------------------------------------------------------------------- wrong lists


@pytest.mark.parametrize(
    "box", [[110, 10, 120, 20], [10, 90, 20, 99], [-30, 10, -10, 20], [10, -30, 20, -10]], ids=str
)
@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_an_object_outside_the_image_is_an_error_that_names_the_image(split, box, data_folder):
    change_list(
        data_folder,
        f"{split}_objects.json",
        lambda entries: entries[4]["boxes"].__setitem__(1, box),
    )
    dataset = PascalVOCDataset(data_folder, split)
    dataset[3]
    with pytest.raises(
        ValueError, match=r"4\.png: has an object outside the image \(100 x 80 pixels\)"
    ):
        dataset[4]


def test_an_object_that_sticks_out_of_the_image_is_cut_off(data_folder):
    change_list(
        data_folder,
        "TEST_objects.json",
        lambda entries: entries[4]["boxes"].__setitem__(1, [50, 40, 180, 140]),
    )
    boxes = PascalVOCDataset(data_folder, "TEST")[4][1]
    torch.testing.assert_close(boxes[1], torch.tensor([0.5, 0.5, 1, 1]))


def replace(entry, key, index, value):
    """A function that puts another value into one entry of a list of objects."""
    return lambda entries: entries[entry][key].__setitem__(index, value)


UNKNOWN = r"entry 4 has the label .* not in label_map\.json: make the lists again"
REVERSED = "entry 0 has the box .*edges reversed: make the lists again"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda entries: entries.pop(), "5 images but 4 entries"),
        (lambda entries: entries.append(entries[0]), "5 images but 6 entries"),
        (lambda entries: entries[1]["labels"].append(1), "entry 1 "),
        (lambda entries: entries[1]["difficulties"].pop(), "entry 1 "),
        (lambda entries: entries[1]["boxes"].append([1, 1, 2, 2]), "entry 1 "),
        (lambda entries: entries[3].pop("difficulties"), "entry 3 "),
        *[(replace(4, "labels", 2, label), UNKNOWN) for label in (0, 3, -1, 255, 1.5, True, "1")],
        (replace(4, "difficulties", 2, 2), "entry 4 .*0 or 1"),
        (replace(0, "boxes", 0, [40, 50, 10, 10]), REVERSED),
        (replace(0, "boxes", 0, [40, 10, 10, 50]), REVERSED),
        (replace(0, "boxes", 0, [10, 10, 10, 50]), REVERSED),
        (replace(0, "boxes", 0, [10, 10, 40, 10]), REVERSED),
        (replace(0, "boxes", 0, [10, 10, 10 + 1e-9, 50]), REVERSED),
        (replace(0, "boxes", 0, [0.1, 0.2, 0.4, 0.6]), REVERSED),  # fractions of the image
        (replace(0, "boxes", 0, [1, 2, float("nan"), 4]), "entry 0 "),
        (replace(0, "boxes", 0, [1, 2, 3]), "entry 0 "),
    ],
)
def test_lists_that_do_not_belong_together_are_refused_with_the_place(
    spoil, complaint, data_folder
):
    change_list(data_folder, "TRAIN_objects.json", spoil)
    PascalVOCDataset(data_folder, "TEST")  # these lists are good
    if complaint.startswith("entry"):
        complaint = r"TRAIN_objects\.json: " + complaint
    with pytest.raises(ValueError, match=complaint):
        PascalVOCDataset(data_folder, "TRAIN")


@pytest.mark.parametrize(
    "names", [("cat", "dog", "background"), ("dog", "cat", "background")], ids=str
)
def test_a_label_map_that_an_editor_sorted_is_read_in_the_order_of_its_numbers(names, data_folder):
    sorted_by_name = {name: LABEL_MAP[name] for name in names}
    (data_folder / "label_map.json").write_text(json.dumps(sorted_by_name))
    expected = list(LABEL_MAP.items())
    assert list(read_label_map(data_folder).items()) == expected
    assert list(PascalVOCDataset(data_folder, "TRAIN").label_map.items()) == expected


@pytest.mark.parametrize(
    "label_map",
    [
        {},
        {"cat": 1, "dog": 2},
        {"background": 0, "cat": 2},
        {"background": 1, "cat": 0},
        {"cat": 0, "dog": 1},
    ],
    ids=str,
)
def test_a_label_map_without_background_0_or_with_gaps_is_refused(label_map, data_folder):
    (data_folder / "label_map.json").write_text(json.dumps(label_map))
    with pytest.raises(ValueError, match=r"label_map\.json: expected \{\"background\": 0"):
        PascalVOCDataset(data_folder, "TEST")


# --------------------------------------------------------------------------------------- randomness


def epoch_items(dataset, epoch, order=range(5)):
    dataset.set_epoch(epoch)
    items = {number: dataset[number] for number in order}
    return [items[number] for number in range(5)]


def all_same(items_1, items_2):
    return [same(item_1, item_2) for item_1, item_2 in zip(items_1, items_2, strict=True)]


def test_an_item_depends_on_seed_epoch_and_index_and_on_nothing_else(data_folder):
    dataset = PascalVOCDataset(data_folder, "TRAIN", seed=7)
    first = epoch_items(dataset, 3)
    torch.manual_seed(99)
    np.random.seed(99)
    epoch_items(dataset, 4)
    assert all(all_same(first, epoch_items(dataset, 3, order=(4, 2, 0, 1, 3)))), (
        "the order of reading does not matter"
    )
    again = PascalVOCDataset(data_folder, "TRAIN", seed=7)
    again.set_epoch(3)
    assert same(again[4], first[4]), "nor what was read before"
    assert not any(all_same(first, epoch_items(dataset, 4)))
    assert not any(all_same(first, epoch_items(PascalVOCDataset(data_folder, "TRAIN", seed=8), 3)))
    assert not any(all_same(first, epoch_items(PascalVOCDataset(data_folder, "TRAIN", seed=3), 7)))


@pytest.mark.parametrize(
    ("options", "is_zoomed_out"), [({}, True), ({"can_zoom_out": False}, False)], ids=str
)
def test_items_are_zoomed_out_unless_told_otherwise(
    options, is_zoomed_out, data_folder, monkeypatch
):
    calls = []

    def note_call(width, height, rng):
        calls.append(1)
        return (0, 0, width, height)

    monkeypatch.setattr("utils.zoom_out", note_call)
    epoch_items(PascalVOCDataset(data_folder, "TRAIN", **options), 0)
    epoch_items(PascalVOCDataset(data_folder, "TRAIN", **options), 1)
    assert (len(calls) > 0) is is_zoomed_out


def test_one_image_at_two_places_is_augmented_in_two_ways(data_folder):
    for name, content in (("images", lambda images: images), ("objects", lambda entries: entries)):
        change_list(
            data_folder,
            f"TRAIN_{name}.json",
            lambda entries, same=content: entries.__setitem__(1, same(entries)[0]),
        )
    dataset = PascalVOCDataset(data_folder, "TRAIN")
    assert dataset.images[0] == dataset.images[1]
    assert not same(dataset[0], dataset[1])


def test_seed_and_epoch_are_0_by_default_and_test_items_depend_on_neither(data_folder):
    dataset = PascalVOCDataset(data_folder, "TRAIN")
    assert same(dataset[0], epoch_items(PascalVOCDataset(data_folder, "TRAIN", seed=0), 0)[0])
    test = PascalVOCDataset(data_folder, "TEST", seed=1)
    assert all(
        all_same(
            epoch_items(test, 0), epoch_items(PascalVOCDataset(data_folder, "TEST", seed=2), 5)
        )
    )


def load(loader, dataset, epochs):
    batches = []
    for epoch in epochs:
        dataset.set_epoch(epoch)
        batches.append(list(loader))
    return batches


def loaded(data_folder, epochs, **kwargs):
    dataset = PascalVOCDataset(data_folder, "TRAIN", keep_difficult=True, seed=5)
    return load(DataLoader(dataset, batch_size=2, collate_fn=collate_fn, **kwargs), dataset, epochs)


@pytest.mark.parametrize("persistent", [False, True])
def test_two_workers_give_what_none_gives_and_see_the_epoch_change(persistent, data_folder):
    epochs = (0, 1, 0, 2)
    alone = loaded(data_folder, epochs)
    together = loaded(data_folder, epochs, num_workers=2, persistent_workers=persistent)
    for batches_1, batches_2 in zip(alone, together, strict=True):
        assert len(batches_1) == 3
        assert all(all_same(batches_1, batches_2))
    assert all(all_same(together[0], together[2]))
    assert not any(all_same(together[0], together[1]))
    assert not any(all_same(together[1], together[3]))


@pytest.mark.slow
def test_workers_that_are_started_afresh_see_the_epoch_change_too(data_folder):
    alone = loaded(data_folder, (0, 3))
    together = loaded(
        data_folder, (0, 3), num_workers=1, persistent_workers=True, multiprocessing_context="spawn"
    )
    for batches_1, batches_2 in zip(alone, together, strict=True):
        assert all(all_same(batches_1, batches_2))


def test_batches_have_every_image_once_and_depend_on_seed_and_epoch_only():
    batches = ShuffledBatches(50, 8, seed=3)
    assert len(batches) == 7
    first = list(batches)
    assert [len(batch) for batch in first] == [8] * 6 + [2]
    assert sorted(chain(*first)) == list(range(50))
    assert list(chain(*first)) != list(range(50))
    assert list(batches) == first
    batches.set_epoch(1)
    second = list(batches)
    assert sorted(chain(*second)) == list(range(50))
    assert second != first
    again = ShuffledBatches(50, 8, seed=3)
    torch.manual_seed(1)
    again.set_epoch(1)
    assert list(again) == second
    other = ShuffledBatches(50, 8, seed=1)
    assert list(other) != first
    other.set_epoch(3)
    assert list(other) != second
    assert list(ShuffledBatches(0, 8, seed=4)) == []


def test_an_epoch_goes_on_where_it_stopped():
    batches = ShuffledBatches(21, 4, seed=0)
    whole = list(batches)
    batches.set_epoch(0, n_done=8)
    assert list(batches) == whole[2:]
    assert len(batches) == 4
    larger = ShuffledBatches(21, 8, seed=0)  # given on resuming
    larger.set_epoch(0, n_done=4)
    assert [len(batch) for batch in larger] == [8, 8, 1]
    assert list(chain(*larger)) == list(chain(*whole[1:]))


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_processes_share_each_batch_and_see_every_image_once(world_size):
    whole = list(ShuffledBatches(22, 4, seed=3))
    shares = [list(ShuffledBatches(22, 4, 3, rank, world_size)) for rank in range(world_size)]
    assert {len(share) for share in shares} == {6}
    for number, batch in enumerate(whole):
        assert sorted(chain(*(share[number] for share in shares))) == sorted(batch)
    evaluated = [ordered_batches(22, 4, rank, world_size) for rank in range(world_size)]
    assert sorted(i for share in evaluated for batch in share for i in batch) == list(range(22))
    assert [list(batch) for batch in ordered_batches(6, 4)] == [[0, 1, 2, 3], [4, 5]]


# ------------------------------------------------------------------------------------------ batches


def test_an_empty_share_of_a_batch_becomes_a_blank_image_whose_loss_is_0():
    images, boxes, labels, difficulties = collate_fn([])
    assert images.shape == (1, 3, 300, 300)
    assert not images.any()
    assert [(t.shape, t.dtype) for t in boxes] == [((0, 4), torch.float32)]
    assert [(t.shape, t.dtype) for t in labels] == [((0,), torch.int64)]
    assert [(t.shape, t.dtype) for t in difficulties] == [((0,), torch.bool)]

    priors_cxcy = torch.rand(10, 4) / 2 + 0.25
    locs = torch.randn(1, 10, 4, requires_grad=True)
    scores = torch.randn(1, 10, 3, requires_grad=True)
    loss = MultiBoxLoss(priors_cxcy)(locs, scores, boxes, labels)
    loss.backward()
    assert loss == 0
    assert not locs.grad.any()
    assert not scores.grad.any()


def test_collate_fn_stacks_images_and_lists_the_rest(data_folder):
    dataset = PascalVOCDataset(data_folder, "TEST")
    items = [dataset[number] for number in (0, 2, 4)]
    images, boxes, labels, difficulties = collate_fn(items)
    assert images.shape == (3, 3, 300, 300)
    assert all(torch.equal(images[i], items[i][0]) for i in range(3))
    for place, entries in enumerate((boxes, labels, difficulties), start=1):
        assert isinstance(entries, list)
        assert all(
            torch.equal(entry, item[place]) for entry, item in zip(entries, items, strict=True)
        )
    assert [len(entry) for entry in boxes] == [2, 0, 3]


def test_a_batch_of_one_image_without_objects_is_a_batch(data_folder):
    images, boxes, labels, difficulties = collate_fn([PascalVOCDataset(data_folder, "TEST")[2]])
    assert images.shape == (1, 3, 300, 300)
    assert ([len(entries) for entries in (boxes, labels, difficulties)], boxes[0].shape) == (
        [1, 1, 1],
        (0, 4),
    )


# --------------------------------------------------------------------------------- real photographs


def test_photographs_of_blood_cells_have_their_cells_where_the_boxes_say(blood_cells, tmp_path):
    create_data_lists(str(blood_cells), "", tmp_path, labels="auto")
    dataset = PascalVOCDataset(tmp_path, "TEST")
    assert len(dataset) == 72
    assert list(dataset.label_map) == ["background", "Platelets", "RBC", "WBC"]
    for number in range(0, 72, 12):
        image, boxes, labels, _ = dataset[number]
        annotation = (
            blood_cells
            / "Annotations"
            / dataset.images[number].replace("\\", "/").split("/")[-1].replace(".jpg", ".xml")
        )
        expected = []
        for element in ElementTree.parse(annotation).getroot().iter("object"):
            x_min, y_min, x_max, y_max = (
                int(element.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")
            )
            expected.append(
                [
                    max(x_min - 1, 0) / 640,
                    max(y_min - 1, 0) / 480,
                    min(x_max, 640) / 640,
                    min(y_max, 480) / 480,
                ]
            )
        torch.testing.assert_close(boxes, torch.tensor(expected))
        # Nuclei of white cells are stained dark violet: their boxes are less green than the image
        for x_min, y_min, x_max, y_max in (300 * boxes[labels == 3]).round().int().tolist():
            assert image[1, y_min:y_max, x_min:x_max].mean() < image[1].mean() - 0.1


def test_photographs_of_blood_cells_can_be_augmented_and_batched(blood_cells, tmp_path):
    create_data_lists(str(blood_cells), "", tmp_path, labels="auto")
    dataset = PascalVOCDataset(tmp_path, "TRAIN")
    assert len(dataset) == 292
    images, boxes, labels, difficulties = collate_fn(
        [dataset[number] for number in range(0, 292, 40)]
    )
    assert images.shape == (8, 3, 300, 300)
    assert images.isfinite().all()
    assert sum(map(len, boxes)) > 8
    for entry, numbers, flags in zip(boxes, labels, difficulties, strict=True):
        assert len(entry) == len(numbers) == len(flags)
        assert (entry[:, :2] < entry[:, 2:]).all()
        assert ((entry >= 0) & (entry <= 1)).all()
        assert ((numbers >= 1) & (numbers <= 3)).all()


class AboutTheWorker(Dataset):
    """Its item says what signals the process that reads it gets."""

    def __len__(self):
        return 1

    def __getitem__(self, i):
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_a_worker_is_left_alone_by_signals_to_the_program():
    dataset = AboutTheWorker()
    loader = DataLoader(dataset, batch_size=None, num_workers=1, worker_init_fn=start_worker)
    (handlers,) = loader
    assert handlers == [signal.SIG_IGN, signal.SIG_IGN]
    device = torch.device("cpu")
    assert create_loader(dataset, [[0]], 1, device).worker_init_fn is start_worker
