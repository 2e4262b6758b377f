"""Figures of how a fully connected layer becomes a convolution, in four steps."""

import torch
import torch.nn.functional as F

from examples import FC_BIASES, FC_IMAGE, FC_WEIGHTS
from style import INK, LARGE, MARGIN, NORMAL, PREDICTION, QUIET, Card, mix, number_text

CHANNEL_COLOURS = ("#e03131", "#2f9e44", "#1971c2")
CELL = 84  # side of a number's cell, pixels


def example():
    """The worked example as tensors: image (3, 2, 2), weights (2, 12) and biases (2)."""
    values = (FC_IMAGE, FC_WEIGHTS, FC_BIASES)
    return [torch.tensor(numbers, dtype=torch.float32) for numbers in values]


def draw_cell(card, x, y, value, colour):
    """Draw a number of an image or a kernel in the colour of its channel."""
    card.rectangle(x, y, CELL, CELL, fill=mix(colour, share=0.78), edge=mix(colour, INK, 0.2))
    card.text(x + CELL / 2, y + CELL / 2, number_text(value), NORMAL)


def draw_channels(card, x, y, tensor, gap=40):
    """Draw the channels of an image or a kernel (channels, height, width) side by side."""
    for channel, colour in zip(tensor, CHANNEL_COLOURS, strict=True):
        for i, row in enumerate(channel.tolist()):
            for j, value in enumerate(row):
                draw_cell(card, x + j * CELL, y + i * CELL, value, colour)
        x += channel.size(1) * CELL + gap


def draw_vector(card, x, y, values):
    """Draw a flattened image or the weights of an output, coloured by channel."""
    per_channel = len(values) // len(CHANNEL_COLOURS)
    for i, value in enumerate(values.tolist()):
        draw_cell(card, x + i * CELL, y, value, CHANNEL_COLOURS[i // per_channel])


def output_cell(card, x, y, value):
    """Draw an output's number; x is its left edge, y its middle."""
    card.rectangle(x, y - 46, 110, 92, fill=mix(PREDICTION, share=0.75), edge=PREDICTION)
    card.text(x + 55, y, number_text(value), LARGE, PREDICTION, bold=True)


def fc_to_conv_1():
    """The image, flattened."""
    image, _, _ = example()
    card = Card(760)
    card.text(600, 80, "1   An image, flattened", LARGE, bold=True)
    draw_channels(card, 308, 170, image)
    card.text(600, 400, "3 channels, 2 × 2 each", NORMAL, QUIET)
    card.arrow((600, 440), (600, 510), line=7)
    draw_vector(card, 96, 540, image.flatten())
    card.text(600, 690, f"{image.numel()} numbers", NORMAL, QUIET)
    return card.image()


def fc_to_conv_2():
    """The fully connected layer: every output is a weighted sum of all numbers."""
    image, weights, biases = example()
    outputs = F.linear(image.flatten(), weights, biases)
    card = Card(1100)
    card.text(600, 80, "2   A fully connected layer", LARGE, bold=True)
    draw_vector(card, 96, 150, image.flatten())
    card.text(600, 278, "the image", NORMAL, QUIET)
    for i, (row, bias, output) in enumerate(zip(weights, biases, outputs, strict=True)):
        y = 350 + 380 * i
        card.text(96, y + 24, f"weights of output {i + 1}", NORMAL, align="left", bold=True)
        draw_vector(card, 96, y + 70, row)
        weighted_sum = (row * image.flatten()).sum()
        y += 240
        words = f"sum of products {number_text(weighted_sum)}  +  bias {number_text(bias)}  ="
        card.text(960, y, words, NORMAL, align="right")
        output_cell(card, 994, y, output)
    return card.image()


def fc_to_conv_3():
    """Each output's weights, reshaped to a kernel as large as the image."""
    image, weights, _ = example()
    kernels = weights.view(len(weights), *image.shape)  # (2, 3, 2, 2)
    card = Card(1270)
    card.text(600, 80, "3   Weights, reshaped to kernels", LARGE, bold=True)
    for i, (row, kernel) in enumerate(zip(weights, kernels, strict=True)):
        y = 150 + 560 * i
        card.text(96, y + 20, f"weights of output {i + 1}", NORMAL, align="left", bold=True)
        draw_vector(card, 96, y + 66, row)
        card.arrow((600, y + 165), (600, y + 225), line=7)
        draw_channels(card, 308, y + 245, kernel)
        card.text(600, y + 460, f"kernel {i + 1}:  2 × 2, 3 channels", NORMAL, QUIET)
    return card.image()


def fc_to_conv_4():
    """A convolution with these kernels gives the same outputs."""
    image, weights, biases = example()
    kernels = weights.view(len(weights), *image.shape)
    connected = F.linear(image.flatten(), weights, biases)
    convolved = F.conv2d(image[None], kernels, biases)[0, :, 0, 0]
    card = Card(1420)
    card.text(600, 80, "4   The same outputs", LARGE, bold=True)
    draw_channels(card, MARGIN + 46, 190, image, gap=14)
    card.text(352, 400, "image", NORMAL, QUIET)
    for i, (kernel, bias, output) in enumerate(zip(kernels, biases, convolved, strict=True)):
        y = 480 + 290 * i
        draw_channels(card, MARGIN + 46, y, kernel, gap=14)
        card.text(352, y + 210, f"kernel {i + 1}", NORMAL, QUIET)
        card.text(790, y + 84, f"+ bias {number_text(bias)}  =", NORMAL)
        output_cell(card, 960, y + 84, output)
    card.text(790, 274, "convolved with", NORMAL, QUIET)
    rows = [
        ["", "output 1", "output 2"],
        ["fully connected", *map(number_text, connected)],
        ["convolution", *map(number_text, convolved)],
    ]
    looks = {(i, j): {"colour": PREDICTION, "bold": True} for i in (1, 2) for j in (1, 2)}
    card.table(150, 1090, rows, (420, 240, 240), 86, looks)
    return card.image()


FIGURES = {
    "fc_to_conv_1.png": fc_to_conv_1,
    "fc_to_conv_2.png": fc_to_conv_2,
    "fc_to_conv_3.png": fc_to_conv_3,
    "fc_to_conv_4.png": fc_to_conv_4,
}
