"""The script that trains without some part: what each ablation replaces, and nothing after it."""

import json

import pytest
import torch
from PIL import Image

import ablations
import datasets
import record_results
import train
from model import SSD300
from runtime import changed_parameters


def test_without_mining_all_negatives_count(random):
    scores = torch.randn(2, 8732, 4, generator=random)
    boxes = [torch.tensor([[0.1, 0.2, 0.5, 0.6]]), torch.tensor([[0.3, 0.3, 0.4, 0.9]])]
    labels = [torch.tensor([1]), torch.tensor([3])]
    locs = torch.zeros(2, 8732, 4)
    with ablations.no_hard_negative_mining():
        criterion = train.MultiBoxLoss(SSD300.create_prior_boxes())
    true_classes, _ = criterion.match(boxes, labels)
    all_losses = torch.nn.functional.cross_entropy(scores.flatten(0, 1), true_classes.flatten())
    expected = all_losses * true_classes.numel() / (true_classes > 0).sum()
    losses = criterion.components(locs, scores, boxes, labels)
    assert torch.isclose(losses["confidence"], expected)


def test_without_augmentation_training_images_are_prepared_like_others():
    image = Image.effect_noise((90, 60), 80).convert("RGB")
    objects = (torch.tensor([[5.0, 6, 40, 50]]), torch.tensor([1]), torch.tensor([False]))
    expected = datasets.transform(image, *objects, "TEST")
    with ablations.no_augmentation():
        found = datasets.transform(image, *objects, "TRAIN", None, True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_without_a_map_the_others_predict_the_same():
    torch.manual_seed(0)
    whole = SSD300(3, pretrained=False, width=1 / 32).eval()
    images = torch.randn(1, 3, 300, 300)
    with ablations.no_conv4_3():
        part = SSD300(3, pretrained=False, width=1 / 32).eval()
        part.load_state_dict(whole.state_dict())
        locs, scores = part(images)
        assert torch.equal(train.PRIORS["paper"](), part.priors_cxcy)
    all_locs, all_scores = whole(images)
    assert all_locs.shape == (1, 8732, 4)
    assert torch.equal(part.priors_cxcy, whole.priors_cxcy[38 * 38 * 4 :])
    assert torch.equal(locs, all_locs[:, 38 * 38 * 4 :])
    assert torch.equal(scores, all_scores[:, 38 * 38 * 4 :])


@pytest.mark.parametrize("name", ablations.ABLATIONS)
def test_afterwards_nothing_is_replaced(name):
    def parts():
        priors = train.PRIORS["paper"], SSD300.create_prior_boxes
        return (
            train.MultiBoxLoss,
            datasets.transform,
            priors,
            ablations.PredictionConvolutions.forward,
        )

    before = parts()
    with ablations.ABLATIONS[name]():
        assert (parts() == before) == (name == "nothing")
    assert parts() == before


def test_each_ablation_is_trained_with_each_seed(tmp_path, monkeypatch):
    seeds = []

    def trained(parameters):
        assert parameters.iterations == ablations.SETTINGS.iterations
        # What is not the default is as if it had been given; the first seed is the default
        given = changed_parameters(parameters) | ({"seed"} if parameters.seed == 0 else set())
        assert given >= {"toy", "iterations", "seed", "data_folder", "output_folder"}
        seeds.append(parameters.seed)
        return [{"epoch": 1}, {"epoch": 2, "mAP": parameters.seed / 10}]

    monkeypatch.setattr(train, "main", trained)
    monkeypatch.setattr(record_results, "RESULTS", tmp_path / "results.json")
    (tmp_path / "results.json").write_text('{"toy": 1, "ablations": {"nothing": [0.9]}}')
    ablations.main(ablations.Parameters(only=("no_conv4_3", "no_augmentation"), seeds=3))
    assert seeds == [0, 1, 2, 0, 1, 2]
    values = [0.0, 0.1, 0.2]
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "toy": 1,
        "ablations": {"nothing": [0.9], "no_conv4_3": values, "no_augmentation": values},
    }


def test_unknown_ablations_are_named():
    with pytest.raises(ValueError, match=r"no_conv4_3.*got 'no_conv9'"):
        ablations.main(ablations.Parameters(only=("no_conv9",)))
