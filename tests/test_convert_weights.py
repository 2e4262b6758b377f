"""The script convert_weights.py, which writes converted weights."""

import re
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import SSD300_VGG16_Weights

from checkpoints import LAST, load_checkpoint, load_model, model_state
from convert_weights import Parameters, main
from helpers.runs import WIDTH
from helpers.scripts import run_script
from model import SSD300
from runtime import read_command_line

ROOT = Path(__file__).resolve().parents[1]


# -------------------------------------------------------------------------------------- the command


def test_the_command_asks_for_both_files(capsys):
    with pytest.raises(SystemExit):
        read_command_line(Parameters, "Converts", ["one.pth"], positional=("source", "output"))
    assert "OUTPUT" in capsys.readouterr().err


def test_the_command_names_what_is_wrong(tmp_path):
    message = run_script("convert_weights.py", tmp_path / "none.pth", tmp_path / "ours.pth.tar")
    assert message.startswith(f"error: {tmp_path / 'none.pth'}: no such")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        main(Parameters(str(tmp_path / "none.pth"), str(tmp_path / "no folder" / "ours.pth.tar")))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_download(monkeypatch):
    monkeypatch.setattr(
        SSD300_VGG16_Weights, "get_state_dict", lambda *_, **__: pytest.fail("it was downloaded")
    )


@pytest.mark.parametrize("name", ["ours.pth.tar", "link.pth.tar", "folder"])
def test_the_command_overwrites_nothing(name, toy_checkpoint, no_download, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "ours.pth.tar").write_bytes(b"weeks of training")
    (tmp_path / "link.pth.tar").symlink_to(tmp_path / "ours.pth.tar")
    for source in (str(toy_checkpoint), "coco", str(tmp_path / name)):
        with pytest.raises(OSError, match=rf"{re.escape(str(tmp_path / name))}: exists already"):
            main(Parameters(source, str(tmp_path / name)))
    assert (tmp_path / "ours.pth.tar").read_bytes() == b"weeks of training"
    assert list((tmp_path / "folder").iterdir()) == []


def test_the_command_needs_a_name_for_the_output(no_download, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="output has no name"):
        main(Parameters("coco", ""))
    assert list(tmp_path.iterdir()) == []


def test_class_names_cannot_control_the_terminal(tmp_path, capsys):
    strange = {"background": 0, "\x1b]0;title\x07\x9b31m": 1, "na\u202eme\n": 2, "한글": 3}
    state = model_state(SSD300(4, pretrained=False, width=WIDTH, label_map=strange))
    torch.save(state, tmp_path / "strange.pth.tar")
    main(Parameters(str(tmp_path / "strange.pth.tar"), str(tmp_path / "ours.pth.tar")))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert "한글" in line
    assert load_checkpoint(tmp_path / "ours.pth.tar")["label_map"] == strange


def test_the_command_keeps_the_model_of_a_run_and_leaves_out_the_rest(whole, tmp_path):
    main(Parameters(str(whole / LAST), str(tmp_path / "ours.pth.tar")))
    state = torch.load(tmp_path / "ours.pth.tar", weights_only=True)
    assert set(state) == {"model", "label_map", "priors_cxcy", "input_shift", "width"}
    converted = load_model(tmp_path / "ours.pth.tar")
    assert converted.width == WIDTH
    for name, weights in load_model(whole / LAST).state_dict().items():
        assert torch.equal(converted.state_dict()[name], weights)


def test_vocs_classes_can_be_chosen_from_cocos_only(toy_checkpoint, tmp_path):
    with pytest.raises(ValueError, match=re.escape(str(toy_checkpoint)) + ".*COCO"):
        main(Parameters(str(toy_checkpoint), str(tmp_path / "voc.pth.tar"), voc_classes=True))
