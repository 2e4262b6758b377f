"""The README's figures are there, fit a page, and show what the code computes."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageSequence
from torch import nn

import data_figures
import draw_figures
import kernel_figures
import network_figures
import prediction_figures
import prior_figures
import style
from examples import FC_BIASES, FC_IMAGE, FC_WEIGHTS, JACCARD_BOXES, OFFSETS_BOX, OFFSETS_PRIOR
from model import FEATURE_MAPS, SSD300, AuxiliaryConvolutions, VGGBase
from scene import OBJECTS, draw_scene
from train import Parameters, n_steps
from utils import (
    cxcy_to_gcxgcy,
    cxcy_to_xy,
    find_jaccard_overlap,
    gcxgcy_to_cxcy,
    photometric_distort,
    scale_saturation,
    shift_hue,
    xy_to_cxcy,
)

FIGURES = draw_figures.all_figures()
FILES = sorted(path for path in draw_figures.FOLDER.iterdir() if path.suffix in (".png", ".gif"))


def test_every_figure_is_there_and_no_other():
    assert sum(len(module.FIGURES) for module in draw_figures.MODULES) == len(FIGURES)  # none twice
    assert {path.name for path in FILES} == FIGURES.keys()


def test_there_are_many_small_files():
    assert len(FILES) >= 23
    assert sum(path.stat().st_size for path in FILES) < min(6e6, 90_000 * len(FILES))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_figures_are_wide_enough_and_carry_nothing_else(path):
    with Image.open(path) as image:
        assert image.width >= 900
        assert not getattr(image, "text", {})  # neither dates nor versions
        if path.suffix == ".gif":
            assert image.n_frames > 10
            assert path.stat().st_size < 300_000
        else:
            assert image.mode == "P"
        for frame in ImageSequence.Iterator(image):
            opacity = frame.convert("RGBA").getchannel("A")
            assert opacity.getpixel((0, 0)) == 0  # outside round corners the page shines through
            assert opacity.getpixel((image.width // 2, image.height // 2)) == 255


@pytest.mark.parametrize("name", ["jaccard_overlap.png", "fc_to_conv_1.png"])
def test_a_figure_drawn_twice_is_the_same_file(name, tmp_path):
    for folder in (tmp_path / "first", tmp_path / "second"):
        draw_figures.main(draw_figures.Parameters(only=(name,), output_folder=str(folder)))
    assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_can_be_drawn(name):
    drawn = FIGURES[name]()
    for image in drawn if isinstance(drawn, list) else [drawn]:
        assert image.mode == "RGBA"


def test_texts_that_cover_each_other_or_are_cut_off_are_refused():
    card = style.Card(200)
    card.text(600, 100, "one")
    card.text(620, 110, "another")
    with pytest.raises(ValueError, match="covers"):
        card.image()
    card = style.Card(200)
    card.text(1190, 100, "too far right")
    with pytest.raises(ValueError, match="cut off"):
        card.image()


def test_unknown_figures_are_named(tmp_path):
    unknown = draw_figures.Parameters(only=("nothing.png",), output_folder=str(tmp_path))
    with pytest.raises(ValueError, match=r"nothing\.png"):
        draw_figures.main(unknown)


@pytest.mark.parametrize("number", range(len(OBJECTS)))
def test_the_scenes_boxes_fit_its_objects(number):
    image, boxes, names = draw_scene()
    without, _, _ = draw_scene(OBJECTS[:number] + OBJECTS[number + 1 :])
    left, top, right, bottom = ImageChops.difference(image, without).getbbox()
    assert names[number] == OBJECTS[number][0]
    found = torch.tensor([left, top, right, bottom]) / image.width
    assert torch.allclose(found, boxes[number], atol=2 / image.width)


def test_the_fully_connected_example_is_equal_to_its_convolution():
    image = torch.tensor(FC_IMAGE, dtype=torch.float32)
    weights = torch.tensor(FC_WEIGHTS, dtype=torch.float32)
    biases = torch.tensor(FC_BIASES, dtype=torch.float32)
    connected = F.linear(image.flatten(), weights, biases)
    convolved = F.conv2d(image.unsqueeze(0), weights.view(2, 3, 2, 2), biases)
    assert convolved.shape == (1, 2, 1, 1)
    assert connected.tolist() == convolved.flatten().tolist() == [14, 12]


def test_the_jaccard_example_by_counting_pixels():
    first, second = (
        {(x, y) for x in range(x_min, x_max) for y in range(y_min, y_max)}
        for x_min, y_min, x_max, y_max in JACCARD_BOXES
    )
    boxes = torch.tensor(JACCARD_BOXES, dtype=torch.float64)
    overlap = find_jaccard_overlap(boxes[:1], boxes[1:]).item()
    assert overlap == pytest.approx(len(first & second) / len(first | second))
    assert f"{overlap:.2f}" == "0.39"


def test_the_offsets_example_is_the_scenes_person_and_its_best_prior():
    _, boxes, names = draw_scene()
    box = torch.tensor(OFFSETS_BOX)
    assert torch.allclose(xy_to_cxcy(boxes[names.index("person")]), box, atol=0.005)
    name, row, column, number = OFFSETS_PRIOR
    prior = prior_figures.priors_of_map(name)[row, column, number]
    priors = SSD300.create_prior_boxes()
    overlaps = find_jaccard_overlap(cxcy_to_xy(box[None]), cxcy_to_xy(priors))[0]
    assert torch.equal(priors[overlaps.argmax()], prior)
    assert prior_figures.names_of_priors(name)[number] == "1:3"
    assert torch.allclose(gcxgcy_to_cxcy(cxcy_to_gcxgcy(box, prior), prior), box)


def test_the_priors_of_each_map_are_all_priors_in_order():
    flat = torch.cat([prior_figures.priors_of_map(name).flatten(0, 2) for name in FEATURE_MAPS])
    assert torch.equal(flat, SSD300.create_prior_boxes())
    for name in FEATURE_MAPS:
        names = prior_figures.names_of_priors(name)
        for ratio_name, prior in zip(names, prior_figures.priors_of_map(name)[0, 0], strict=True):
            width, height = map(float, ratio_name.replace("extra", "1:1").split(":"))
            if prior.max() < 1:  # not capped
                assert prior[2] / prior[3] == pytest.approx(width / height)


def one_dimensional(layer, signal):
    """A layer along one dimension, with weights of one, and with averages in place of maxima."""
    if isinstance(layer, nn.MaxPool2d):
        return F.avg_pool1d(signal, layer.kernel_size, layer.stride, layer.padding)
    options = {key: getattr(layer, key)[0] for key in ("stride", "padding", "dilation")}
    return F.conv1d(signal, torch.ones(1, 1, layer.kernel_size[0]), **options)


def test_receptive_fields_by_what_a_gradient_reaches():
    image = torch.zeros(1, 1, 4096, requires_grad=True)
    fields = kernel_figures.receptive_fields()
    assert fields.keys() == FEATURE_MAPS.keys()
    signal = image
    for name, layer in [*VGGBase().named_children(), *AuxiliaryConvolutions().named_children()]:
        signal = one_dimensional(layer, signal)
        if name not in FEATURE_MAPS:
            continue
        prediction = F.conv1d(signal, torch.ones(1, 1, 3), padding=1)
        middle = prediction.size(2) // 2
        (gradient,) = torch.autograd.grad(prediction[0, 0, middle], image, retain_graph=True)
        reached = gradient[0, 0].nonzero()[:, 0].tolist()
        size, distance, centre = fields[name]
        assert reached[0] == centre + middle * distance - size / 2
        assert reached[-1] + 1 == centre + middle * distance + size / 2
    assert fields["conv4_3"][0] / 300 == 0.36


def test_epochs_at_which_the_learning_rate_falls():
    parameters = Parameters()
    ends = [round(part * n_steps(parameters)) for part in (*parameters.decay_at, 1)]
    assert ends == [80_000, 100_000, 120_000]
    assert [kernel_figures.epoch_of(end, parameters) for end in ends] == [155, 194, 232]


def test_shapes_in_the_figures_are_those_of_the_published_networks():
    stages = dict(network_figures.vgg16_stages())
    assert len([name for name in stages if name.startswith("conv")]) == 13
    assert stages["conv3_3"] == (256, 56, 56)
    assert stages["pool5"] == (512, 7, 7)
    assert (stages["fc6"], stages["fc7"], stages["fc8"]) == ((4096,), (4096,), (1000,))
    base = network_figures.on_meta(VGGBase)
    shapes = network_figures.output_shapes(base, 3, 300, 300)
    for name in ("conv4_3", "conv7"):
        side = FEATURE_MAPS[name].side
        assert shapes[name] == (FEATURE_MAPS[name].channels, side, side)
    assert shapes["conv3_3"][1:] == (network_figures.POOL3_SIDE,) * 2


def test_what_the_figure_of_the_base_says_about_vgg16():
    base = network_figures.on_meta(VGGBase)
    shapes = network_figures.output_shapes(base, 3, 300, 300)
    stages = network_figures.stages_of_base(base, shapes)
    changes = {stage.heading: (stage.size, stage.note, stage.change) for stage in stages}
    changes = {name: row for name, row in changes.items() if row[-1]}
    assert changes == {
        "image": ("300 × 300 × 3", "", (1, "dashed square", "224 × 224 × 3")),
        "pool3": ("75 → 38", "rounds up", (2, "rounds down", "75 → 37")),
        "pool5": ("19 → 19", "3 × 3, stride 1", (3, "2 × 2, stride 2", "19 → 9")),
        "conv6": ("19 × 19 × 1024", "3 × 3, dilation 6", (5, "fc6, fully connected", "4,096")),
        "conv7": ("19 × 19 × 1024", "1 × 1", (5, "fc7, fully connected", "4,096")),
        "no fc8": ("", "", (4, "fc8, a score for each class", "1,000")),
    }


class Blocks(style.Card):
    """A card that remembers the fronts of its blocks and its rectangles: (width, height) each."""

    def __init__(self):
        self.sizes = []
        super().__init__(3000)
        self.sizes.clear()  # the card itself

    def block(self, x, y, width, height, depth, *args, **options):
        self.sizes.append((width, height))

    def rectangle(self, x, y, width, height, *args, **options):
        self.sizes.append((width, height))


def test_maps_are_drawn_in_one_scale():
    card = Blocks()
    auxiliary = network_figures.stages_of_auxiliary_convolutions()
    base = network_figures.on_meta(VGGBase)
    shapes = network_figures.output_shapes(base, 3, 300, 300)
    of_base = [stage for stage in network_figures.stages_of_base(base, shapes) if stage.shape[1:]]
    for stage in of_base[1:]:  # without the image
        network_figures.draw_output(card, stage, 0, 0)
    for stage in auxiliary:
        network_figures.draw_auxiliary(card, stage, 1000)
    sides = [stage.shape[1] for stage in of_base[1:]]
    sides += [side for stage in auxiliary for side in (stage.shape[1], 10 * stage.shape[1])]
    assert [size[0] / card.sizes[0][0] for size in card.sizes] == pytest.approx(
        [side / sides[0] for side in sides]
    )


def test_the_stack_of_predictions_is_drawn_to_scale():
    counts = {"conv4_3": 5776, "conv7": 2166, "conv11_2": 4}
    card = Blocks()
    middles = prediction_figures.draw_stack(card, 100, counts, ((0, 40), (60, 210)), 0.5)
    assert card.sizes == [(40, 2888), (210, 2888), (40, 1083), (210, 1083), (40, 2), (210, 2)]
    assert middles == {"conv4_3": 1544, "conv7": 3529.5, "conv11_2": 4072}


@pytest.mark.parametrize(
    ("name", "amount", "distort"),
    [
        ("brightness", 20, lambda pixels: pixels + 20),
        ("contrast", 0.7, lambda pixels: pixels * 0.7),
        ("saturation", 0.6, lambda pixels: scale_saturation(pixels, 0.6)),
        ("hue", 0.05, lambda pixels: shift_hue(pixels, 0.05)),
    ],
)
def test_a_chosen_distortion_is_the_only_one_that_is_applied(name, amount, distort):
    pixels = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 200
    distorted = photometric_distort(pixels, data_figures.ChosenDistortions({name: amount}))
    assert torch.allclose(distorted, distort(pixels))
    assert not torch.allclose(distorted, pixels)
