"""
One look for every figure: colours, text sizes, and a card to draw on in pixels, which are counted
from the top left as in images.
"""

from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle
from PIL import Image

from model import FEATURE_MAPS

WIDTH = 1200  # pixels of a card: twice the width of a page, more than three times that of a phone
MARGIN = 44  # pixels that stay free at the sides
DPI = 100
DASHES = (0, (3, 1.6))  # for matplotlib: offset, (dash, gap), in widths of the line

# Text sizes in pixels. A phone, 375 pixels wide, shows a card 3.2 times smaller: SMALL becomes 10.
LARGE = 46
NORMAL = 38
SMALL = 32

CARD = "#fbfaf6"
BORDER = "#c8c4b8"
INK = "#1f2430"  # text and outlines
QUIET = "#5d6675"  # remarks
FAINT = "#d9d6cc"  # auxiliary lines
OBJECT = "#187a36"  # a ground-truth object
PRIOR = "#d9480f"  # a prior
PREDICTION = "#6f2dbd"  # a predicted box, an offset
POSITIVE = "#2f9e44"  # a prior with an object; what is right
HARD = "#c92a2a"  # hard negatives; what is suppressed or wrong
MARK = "#ffe066"  # behind what the eye should find
LAYER = "#98a2b3"  # any layer without a colour of its own

# Each feature map has the same colour wherever it appears, from blue (fine) to red (coarse)
FROM_FINE_TO_COARSE = ("#3b5bdb", "#1c8fc4", "#0b9e8e", "#b98500", "#d9632b", "#b0245f")
MAP_COLOURS = dict(zip(FEATURE_MAPS, FROM_FINE_TO_COARSE, strict=True))
CLASS_COLOURS = {
    "cat": "#b0245f",
    "car": "#1864ab",
    "person": "#6741d9",
    "pottedplant": "#2b8a3e",
    "bird": "#0b7285",
    "bottle": "#a15c00",
    "tvmonitor": "#495057",
}
SHORT_NAMES = {"pottedplant": "plant", "tvmonitor": "tv"}


def in_points(pixels):
    """Pixels of a card in points, the unit of matplotlib's texts and lines."""
    return pixels * 72 / DPI


def mix(colour, other=CARD, share=0.8):
    """
    Mix a colour with another one; by default the result is a pale version of it.

    :param share: of the other colour, 0 to 1
    :return: (red, green, blue) from 0 to 1
    """
    pairs = zip(matplotlib.colors.to_rgb(colour), matplotlib.colors.to_rgb(other), strict=True)
    return tuple((1 - share) * first + share * second for first, second in pairs)


def short(name):
    """A class's name, short enough for a label."""
    return SHORT_NAMES.get(name, name)


def number_text(value, decimals=0):
    """A number with a proper minus sign."""
    return f"{value:.{decimals}f}".replace("-", "−")


class Card:
    """A light card with a rounded border. All numbers are its pixels, y grows downwards."""

    def __init__(self, height, width=WIDTH):
        self.width = width
        self.height = height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.axis("off")
        self.texts = []
        look = {"fill": CARD, "edge": BORDER, "line": 3, "radius": 22, "layer": 0}
        self.rectangle(3, 3, width - 6, height - 6, **look)

    def text(self, x, y, text, size=NORMAL, colour=INK, align="center", valign="center", **options):
        """
        Write a text. The given point is its centre, or the side that `align` (left, right) and
        `valign` (top, bottom, baseline) name.

        :param options: bold=True, mono=True (as code), background=colour, rotation in degrees
        """
        rotation = options.get("rotation", 0)
        if "\n" not in text and not rotation:
            # Place the baseline, so that words with and without descenders stand on one line
            y += {"center": 0.36, "top": 0.78, "bottom": -0.24}.get(valign, 0) * size
            valign = "baseline"
        made = self.axes.text(
            x,
            y,
            text,
            fontsize=in_points(size),
            color=colour,
            ha=align,
            va=valign,
            zorder=10,
            weight="bold" if options.get("bold") else "normal",
            rotation=rotation,
            linespacing=1.25,
            family="DejaVu Sans Mono" if options.get("mono") else "DejaVu Sans",
            bbox=_background_of_text(options.get("background")),
        )
        self.texts.append(made)
        return made

    def right_of(self, text):
        """The x of the right edge of a text that was written."""
        return text.get_window_extent(self.figure.canvas.get_renderer()).x1

    def words(self, x, y, words):
        """
        Write words of different colours on one line that begins at x.

        :param words: (text, colour) each
        :return: matplotlib texts
        """
        made = []
        for text, colour in words:
            made.append(self.text(x, y, text, NORMAL, colour, "left"))
            x = self.right_of(made[-1]) + 0.28 * NORMAL
        return made

    def centred_words(self, x, y, words):
        """Write words of different colours on one line around x, see words."""
        made = self.words(x, y, words)
        shift = (self.right_of(made[-1]) - x) / 2
        for text in made:
            text.set_x(text.get_position()[0] - shift)

    def rectangle(
        self,
        x,
        y,
        width,
        height,
        fill="none",
        edge="none",
        line=4,
        radius=0,
        dashed=False,
        alpha=None,
        layer=2,
    ):
        """
        Draw a rectangle.

        :param x, y: its top left corner
        :param radius: of its corners
        :param layer: higher layers cover lower ones
        """
        look = {
            "facecolor": fill,
            "edgecolor": edge,
            "linewidth": in_points(line),
            "linestyle": DASHES if dashed else "-",
            "alpha": alpha,
            "zorder": layer,
        }
        if radius:
            look["boxstyle"] = f"round,pad=0,rounding_size={radius}"
            patch = FancyBboxPatch((x, y), width, height, **look)
        else:
            patch = Rectangle((x, y), width, height, joinstyle="miter", **look)
        self.axes.add_patch(patch)

    def polygon(self, points, fill, edge, line=2.5):
        """Draw a closed polygon through the points."""
        look = {"facecolor": fill, "edgecolor": edge, "linewidth": in_points(line), "zorder": 3}
        self.axes.add_patch(Polygon(points, joinstyle="round", **look))

    def line(self, points, colour=INK, line=4, dashed=False, layer=3):
        """Draw straight lines from point to point."""
        xs, ys = zip(*points, strict=True)
        look = {
            "color": colour,
            "linewidth": in_points(line),
            "linestyle": DASHES if dashed else "-",
            "zorder": layer,
            "solid_capstyle": "round",
        }
        self.axes.plot(xs, ys, **look)

    def legend_entry(self, x, y, text, colour, line=8, dashed=False, size=SMALL, length=70, gap=18):
        """
        Draw a coloured stroke, followed by the name of what is drawn with it.

        :param x, y: where the stroke begins
        :param length, gap: of the stroke, and between it and the text
        """
        self.line([(x, y), (x + length, y)], colour, line, dashed)
        self.text(x + length + gap, y, text, size, align="left")

    def dot(self, x, y, colour=INK, radius=9, layer=6):
        """Draw a dot with a light rim."""
        look = {"color": colour, "markersize": in_points(2 * radius), "mec": CARD, "mew": 1.5}
        self.axes.plot([x], [y], "o", zorder=layer, **look)

    def badge(self, x, y, text, colour, radius=27, text_colour="white"):
        """Write a number on a round field."""
        self.dot(x, y, colour, radius, layer=8)
        self.text(x, y, text, SMALL, text_colour, bold=True)

    def arrow(self, start, end, colour=INK, line=5, both=False):
        """Draw an arrow from (x, y) to (x, y), with a head at its end or at both ends."""
        look = {
            "arrowstyle": "<|-|>" if both else "-|>",
            "color": colour,
            "linewidth": in_points(line),
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 22,
        }
        self.axes.annotate("", end, start, arrowprops=look, zorder=4)

    def show(self, image, x, y, width, height=None):
        """
        Show a PIL image.

        :return: its Place, on which boxes can be drawn in fractional coordinates
        """
        height = height or width * image.height / image.width
        size = (round(width), round(height))
        image = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        extent = (x, x + width, y + height, y)
        self.axes.imshow(image, extent=extent, interpolation="nearest", zorder=1, aspect="auto")
        self.axes.set(xlim=(0, self.width), ylim=(self.height, 0))  # imshow changes them
        return Place(self, x, y, width, height)

    def block(self, x, y, width, height, depth, colour, line=2.5):
        """
        Draw a block that stands for a feature map. The top left corner of its front is (x, y), and
        its depth runs to the upper right.
        """
        dx = depth * 0.75
        dy = depth * 0.45
        right = x + width
        bottom = y + height
        front = [(x, y), (right, y), (right, bottom), (x, bottom)]
        top = [(x, y), (x + dx, y - dy), (right + dx, y - dy), (right, y)]
        side = [(right, y), (right + dx, y - dy), (right + dx, bottom - dy), (right, bottom)]
        edge = mix(colour, INK, 0.45)
        self.polygon(front, mix(colour, share=0.35), edge, line)
        self.polygon(top, mix(colour, share=0.6), edge, line)
        self.polygon(side, mix(colour, INK, 0.15), edge, line)

    def grid(self, x, y, side, n, colour=INK, line=2.0, fill="none", layer=2):
        """
        Draw n x n tiles in a square.

        :return: Place of the square
        """
        self.rectangle(x, y, side, side, fill=fill, edge=colour, line=line * 1.6, layer=layer)
        for i in range(1, n):
            at = side * i / n
            self.line([(x + at, y), (x + at, y + side)], colour, line, layer=layer)
            self.line([(x, y + at), (x + side, y + at)], colour, line, layer=layer)
        return Place(self, x, y, side, side)

    def table(self, x, y, rows, widths, row_height=64, looks=None, size=NORMAL):
        """
        Draw a table; the first row is its header.

        :param rows: lists of texts
        :param widths: of the columns, pixels
        :param looks: {(row, column): look} of the cells that differ, see _cell
        :return: the y below it
        """
        looks = looks or {}
        header = {"fill": mix(LAYER, share=0.7), "bold": True}
        for i, row in enumerate(rows):
            left = x
            for j, (text, width) in enumerate(zip(row, widths, strict=True)):
                look = (header if i == 0 else {}) | looks.get((i, j), {})
                self._cell((left, y, width, row_height), text, size, look)
                left += width
            y += row_height
        return y

    def _cell(self, area, text, size, look):
        """
        Draw a cell of a table.

        :param area: x, y, width and height
        :param look: {"fill", "colour", "bold", "strike"}, each of them optional
        """
        x, y, width, height = area
        middle = y + height / 2
        self.rectangle(*area, fill=look.get("fill", "white"), edge=BORDER, line=2)
        if text:
            colour = look.get("colour", INK)
            self.text(x + width / 2, middle, text, size, colour, bold=look.get("bold", False))
        if look.get("strike"):
            stroke = [(x + 0.12 * width, middle), (x + 0.88 * width, middle)]
            self.line(stroke, HARD, 4, layer=11)

    def image(self):
        """
        Give the card as a PIL image, RGBA, transparent outside its round corners.

        :raises ValueError: a text is cut off at the border, or covers another one
        """
        self.figure.set_facecolor("none")
        self.figure.canvas.draw()
        self._check_texts()
        pixels = bytes(self.figure.canvas.buffer_rgba())
        return Image.frombytes("RGBA", (self.width, self.height), pixels)

    def _check_texts(self):
        """:raises ValueError: a text is cut off at the border, or covers another one"""
        renderer = self.figure.canvas.get_renderer()
        earlier = []
        for made in self.texts:
            text = made.get_text()
            with_background = made.get_bbox_patch() or made
            extent = with_background.get_window_extent(renderer)
            if not self._contains(extent):
                raise ValueError(f"figure: {text!r} is cut off at the border of the card")
            for other, other_extent in earlier:
                if _overlap_noticeably(extent, other_extent):
                    raise ValueError(f"figure: {text!r} covers {other!r}")
            earlier.append((text, extent))

    def _contains(self, extent, margin=10):
        """Whether a matplotlib Bbox lies on the card, apart from its border."""
        return (
            extent.x0 >= margin
            and extent.y0 >= margin
            and extent.x1 <= self.width - margin
            and extent.y1 <= self.height - margin
        )


def _background_of_text(colour):
    """The coloured field behind a text, for matplotlib; None if there is no colour."""
    if not colour:
        return None
    shape = "round,pad=0.18,rounding_size=0.15"
    return {"facecolor": colour, "edgecolor": "none", "boxstyle": shape}


def _overlap_noticeably(extent, other):
    """Whether two matplotlib Bboxes share more than a few pixels."""
    width = min(extent.x1, other.x1) - max(extent.x0, other.x0)
    height = min(extent.y1, other.y1) - max(extent.y0, other.y0)
    return width > 2 and height > 4


class Place:
    """Where an image or a grid lies on a card; turns its fractional coordinates into pixels."""

    def __init__(self, card, x, y, width, height):
        self.card = card
        self.x = x
        self.y = y
        self.width = width
        self.height = height

    def at(self, x, y):
        """The pixel of the card at fractional coordinates."""
        return self.x + float(x) * self.width, self.y + float(y) * self.height

    def on_box(self, box_xy, across, down):
        """
        The pixel of the card at fractions of a box's width and height.

        :param box_xy: the box, fractional boundary coordinates
        """
        x_min, y_min, x_max, y_max = box_xy
        return self.at(x_min + across * (x_max - x_min), y_min + down * (y_max - y_min))

    def box(self, box_xy, colour, label="", dashed=False, line=7, halo=True):
        """
        Draw a box, with a label above its upper edge.

        :param box_xy: fractional boundary coordinates
        :param halo: a light rim, unless the box is dashed
        """
        x_min, y_min = self.at(*box_xy[:2])
        x_max, y_max = self.at(*box_xy[2:])
        area = (x_min, y_min, x_max - x_min, y_max - y_min)
        if halo and not dashed:
            self.card.rectangle(*area, edge="white", line=line + 4, alpha=0.75, layer=4)
        self.card.rectangle(*area, edge=colour, line=line, dashed=dashed, layer=5)
        if label:
            look = {"bold": True, "background": colour}
            self.card.text(x_min + 4, y_min - 10, label, SMALL, "white", "left", "bottom", **look)

    def cell(self, row, column, n, fill, alpha=1.0, layer=2):
        """Fill the tile (row, column) of n x n."""
        side = self.width / n
        x = self.x + column * side
        y = self.y + row * side
        self.card.rectangle(x, y, side, side, fill=fill, alpha=alpha, layer=layer)

    def cell_centre(self, row, column, n):
        """The pixel of the card in the middle of the tile (row, column) of n x n."""
        return self.at((column + 0.5) / n, (row + 0.5) / n)


def save(image, path):
    """
    Write a figure: a PIL image as a PNG, a list of them as an animated GIF. Colours are reduced to
    a palette, and only the pixels are written: a figure drawn twice is the same file.

    :param image: PIL image, RGBA, or a list of them
    :param path: ends in .png or .gif
    """
    if Path(path).suffix == ".gif":
        save_gif(image, path)
    else:
        save_png(image, path)


def save_gif(images, path, n_colours=32):
    """
    Write an animated GIF. The colour after the last one stands for transparency.

    :param images: list of PIL images, RGBA; transparent in the same places
    :param n_colours: the most frequent colours of the middle frame, which all frames are drawn in
    """
    frames = [on_ground(image, BORDER) for image in images]
    counts = frames[len(frames) // 2].getcolors(1 << 24)
    most_frequent = sorted(counts, reverse=True)[:n_colours]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for _, colour in most_frequent for value in colour])
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    for frame, image in zip(frames, images, strict=True):
        frame.paste(n_colours, mask=outside(image))
    options = {"duration": 220, "loop": 0, "optimize": True, "disposal": 1}
    options["transparency"] = n_colours
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


def save_png(image, path, n_colours=255):
    """
    Write a PNG. The colour after the last one stands for transparency.

    :param image: PIL image, RGBA
    """
    method = Image.Quantize.MEDIANCUT
    options = {"method": method, "kmeans": 3, "dither": Image.Dither.NONE}
    reduced = on_ground(image, BORDER).quantize(n_colours, **options)
    palette = reduced.getpalette()
    # Only a colour of the palette can be declared transparent: fill it up to 256 colours
    reduced.putpalette(palette + [0] * (3 * 256 - len(palette)))
    reduced.paste(n_colours, mask=outside(image))
    reduced.save(path, optimize=True, transparency=n_colours)


def outside(image):
    """Where an RGBA image is more transparent than not: a mask for PIL."""
    return image.getchannel("A").point(lambda alpha: 255 * (alpha < 128))


def on_ground(image, colour):
    """Lay a transparent image on a ground of one colour; gives an RGB image."""
    ground = Image.new("RGBA", image.size, colour)
    ground.alpha_composite(image)
    return ground.convert("RGB")


def add_plot(card, x, y, width, height):
    """
    Add axes to plot in.

    :param x, y, width, height: of the area inside the axes, pixels of the card; the numbers stand
        to its left and below it
    :return: matplotlib Axes
    """
    bottom = 1 - (y + height) / card.height  # matplotlib counts from the bottom
    area = (x / card.width, bottom, width / card.width, height / card.height)
    axes = card.figure.add_axes(area)
    axes.set(facecolor="white", zorder=5)
    label_size = in_points(0.86 * SMALL)
    axes.tick_params(labelsize=label_size, labelcolor=INK, color=BORDER, width=2, length=8)
    axes.grid(color=FAINT, linewidth=1.5)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set(edgecolor=BORDER, linewidth=2)
    return axes
