"""One look for every figure: colours, sizes of text, and a card to draw on in pixels, from the top left as in images."""

from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle
from PIL import Image

from model import FEATURE_MAPS

WIDTH = 1200  # pixels of a card; half the pixels on a page 600 wide, less than a third on a phone
MARGIN = 44  # free at the sides
DPI = 100
DASHES = (
    0,
    (3, 1.6),
)  # as matplotlib takes them: offset, then lengths of a dash and a gap in widths of the line
# Sizes of text in pixels. On a phone, 375 pixels wide, a card is reduced 3.2 times: SMALL becomes 10 pixels.
LARGE, NORMAL, SMALL = 46, 38, 32

CARD, BORDER = "#fbfaf6", "#c8c4b8"
INK, QUIET, FAINT = (
    "#1f2430",
    "#5d6675",
    "#d9d6cc",
)  # text and outlines; what is said in passing; helping lines
OBJECT = "#187a36"  # a ground-truth object
PRIOR = "#d9480f"  # a prior
PREDICTION = "#6f2dbd"  # a predicted box, an offset
POSITIVE = "#2f9e44"  # a prior with an object, what goes right
HARD = "#c92a2a"  # hard negatives, what is suppressed, what goes wrong
MARK = "#ffe066"  # behind what the eye should find
# Each feature map has its colour wherever it appears: the finest blue, the coarsest red
MAP_COLOURS = dict(
    zip(
        FEATURE_MAPS,
        ("#3b5bdb", "#1c8fc4", "#0b9e8e", "#b98500", "#d9632b", "#b0245f"),
        strict=True,
    )
)
LAYER = "#98a2b3"  # any other layer
CLASS_COLOURS = {
    "cat": "#b0245f", "car": "#1864ab", "person": "#6741d9", "pottedplant": "#2b8a3e", "bird": "#0b7285",
    "bottle": "#a15c00", "tvmonitor": "#495057",
}  # fmt: skip
SHORT_NAMES = {"pottedplant": "plant", "tvmonitor": "tv"}


def in_points(pixels):
    """Pixels of a card in points, the unit of matplotlib's texts and lines."""
    return pixels * 72 / DPI


def mix(colour, other=CARD, share=0.8):
    """A colour with a share of another one mixed in, (red, green, blue) from 0 to 1: pale by default."""
    pair = (matplotlib.colors.to_rgb(colour), matplotlib.colors.to_rgb(other))
    return tuple((1 - share) * first + share * second for first, second in zip(*pair, strict=True))


def short(name):
    """A class's name, short enough for a label."""
    return SHORT_NAMES.get(name, name)


def number_text(value, decimals=0):
    """A number with a proper minus sign."""
    return f"{value:.{decimals}f}".replace("-", "−")


class Card:
    """A light card with a rounded border. All coordinates and sizes are pixels of it, y downwards."""

    def __init__(self, height, width=WIDTH):
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.axis("off")
        self.texts = []
        self.rectangle(
            3, 3, width - 6, height - 6, fill=CARD, edge=BORDER, line=3, radius=22, layer=0
        )

    def text(self, x, y, text, size=NORMAL, colour=INK, align="center", valign="center", **options):
        """
        Write. The point given is the text's centre, or what `align` (left, right) and `valign` (top, bottom, baseline) say.

        :param options: bold=True, mono=True (as code), background=colour, rotation in degrees
        """
        background = options.get("background")
        bbox = background and {
            "facecolor": background,
            "edgecolor": "none",
            "boxstyle": "round,pad=0.18,rounding_size=0.15",
        }
        if "\n" not in text and not options.get(
            "rotation"
        ):  # so that words with and without descenders stand on one line
            y += {"center": 0.36, "top": 0.78, "bottom": -0.24}.get(valign, 0) * size
            valign = "baseline"
        made = self.axes.text(
            x, y, text, fontsize=in_points(size), color=colour, ha=align, va=valign, zorder=10,
            weight="bold" if options.get("bold") else "normal", rotation=options.get("rotation", 0), linespacing=1.25,
            family="DejaVu Sans Mono" if options.get("mono") else "DejaVu Sans", bbox=bbox or None,
        )  # fmt: skip
        self.texts.append(made)
        return made

    def words(self, x, y, words):
        """
        Words of different colours on one line that begins at x.

        :param words: (text, colour) each
        """
        renderer = self.figure.canvas.get_renderer()
        for text, colour in words:
            made = self.text(x, y, text, NORMAL, colour, "left")
            x = made.get_window_extent(renderer).x1 + 0.28 * NORMAL

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
        """A rectangle with its top left corner at (x, y), perhaps with round corners; `layer`: higher ones cover lower ones."""
        look = {
            "facecolor": fill, "edgecolor": edge, "linewidth": in_points(line), "alpha": alpha, "zorder": layer,
            "linestyle": DASHES if dashed else "-",
        }  # fmt: skip
        if radius:
            patch = FancyBboxPatch(
                (x, y), width, height, boxstyle=f"round,pad=0,rounding_size={radius}", **look
            )
        else:
            patch = Rectangle((x, y), width, height, joinstyle="miter", **look)
        self.axes.add_patch(patch)

    def polygon(self, points, fill, edge):
        """A closed polygon through the points."""
        look = {"facecolor": fill, "edgecolor": edge, "linewidth": in_points(2.5), "zorder": 3}
        self.axes.add_patch(Polygon(points, joinstyle="round", **look))

    def line(self, points, colour=INK, line=4, dashed=False, layer=3):
        """Straight lines from point to point."""
        style = DASHES if dashed else "-"
        xs, ys = zip(*points, strict=True)
        self.axes.plot(
            xs,
            ys,
            color=colour,
            linewidth=in_points(line),
            linestyle=style,
            zorder=layer,
            solid_capstyle="round",
        )

    def legend_entry(self, x, y, text, colour, line=8, dashed=False, size=SMALL, length=70, gap=18):
        """
        A coloured stroke, and behind it what is drawn in this way.

        :param x, y: where the stroke begins
        :param length, gap: of the stroke, and between it and the text
        """
        self.line([(x, y), (x + length, y)], colour, line, dashed)
        self.text(x + length + gap, y, text, size, align="left")

    def dot(self, x, y, colour=INK, radius=9, layer=6):
        """A dot with a light rim."""
        self.axes.plot(
            [x],
            [y],
            "o",
            color=colour,
            markersize=in_points(2 * radius),
            zorder=layer,
            mec=CARD,
            mew=1.5,
        )

    def badge(self, x, y, text, colour, radius=27, text_colour="white"):
        """A number in a round field."""
        self.dot(x, y, colour, radius, layer=8)
        self.text(x, y, text, SMALL, text_colour, bold=True)

    def arrow(self, start, end, colour=INK, line=5, both=False):
        """An arrow from (x, y) to (x, y), with a head at its end or at both."""
        look = {
            "arrowstyle": "<|-|>" if both else "-|>", "color": colour, "linewidth": in_points(line), "shrinkA": 0, "shrinkB": 0,
            "mutation_scale": 22,
        }  # fmt: skip
        self.axes.annotate("", end, start, arrowprops=look, zorder=4)

    def picture(self, image, x, y, width, height=None):
        """Show a PIL image, and give its place, on which boxes can be drawn in fractional coordinates."""
        height = height or width * image.height / image.width
        image = image.convert("RGB").resize((round(width), round(height)), Image.Resampling.LANCZOS)
        self.axes.imshow(
            image,
            extent=(x, x + width, y + height, y),
            interpolation="nearest",
            zorder=1,
            aspect="auto",
        )
        self.axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        return Place(self, x, y, width, height)

    def block(self, x, y, width, height, depth, colour):
        """A block standing for a feature map: its front has (x, y) at the top left, its depth runs to the upper right."""
        dx, dy = depth * 0.75, depth * 0.45
        right, bottom = x + width, y + height
        top = [(x, y), (x + dx, y - dy), (right + dx, y - dy), (right, y)]
        side = [(right, y), (right + dx, y - dy), (right + dx, bottom - dy), (right, bottom)]
        edge = mix(colour, INK, 0.45)
        self.polygon(
            [(x, y), (right, y), (right, bottom), (x, bottom)], mix(colour, share=0.35), edge
        )
        self.polygon(top, mix(colour, share=0.6), edge)
        self.polygon(side, mix(colour, INK, 0.15), edge)

    def grid(self, x, y, side, n, colour=INK, line=2.0, fill="none", layer=2):
        """n x n tiles in a square, and the place they lie in."""
        self.rectangle(x, y, side, side, fill=fill, edge=colour, line=line * 1.6, layer=layer)
        for i in range(1, n):
            at = side * i / n
            self.line([(x + at, y), (x + at, y + side)], colour, line, layer=layer)
            self.line([(x, y + at), (x + side, y + at)], colour, line, layer=layer)
        return Place(self, x, y, side, side)

    def table(self, x, y, rows, widths, row_height=64, looks=None, size=NORMAL):
        """
        A table; the first row is its header.

        :param rows: lists of texts
        :param widths: of the columns, pixels
        :param looks: {(row, column): {"fill", "colour", "bold", "strike"}} for cells that differ
        :return: the y below it
        """
        looks = looks or {}
        for i, row in enumerate(rows):
            left = x
            for j, (cell, width) in enumerate(zip(row, widths, strict=True)):
                look = looks.get((i, j), {})
                fill = look.get("fill", "white" if i else mix(LAYER, share=0.7))
                self.rectangle(left, y, width, row_height, fill=fill, edge=BORDER, line=2)
                colour, bold = look.get("colour", INK), look.get("bold", i == 0)
                if cell:
                    self.text(left + width / 2, y + row_height / 2, cell, size, colour, bold=bold)
                if look.get("strike"):
                    middle = y + row_height / 2
                    self.line(
                        [(left + 0.12 * width, middle), (left + 0.88 * width, middle)],
                        HARD,
                        4,
                        layer=11,
                    )
                left += width
            y += row_height
        return y

    def image(self):
        """
        The card as a PIL image, RGBA, transparent outside its round corners.

        :raises ValueError: a text is cut off at the border, or covers another one
        """
        self.figure.set_facecolor("none")
        self.figure.canvas.draw()
        self._check_texts()
        return Image.frombytes(
            "RGBA", (self.width, self.height), bytes(self.figure.canvas.buffer_rgba())
        )

    def _check_texts(self):
        """Texts must lie on the card, and beside each other."""
        renderer = self.figure.canvas.get_renderer()
        extents = []
        for made in self.texts:
            with_background = made.get_bbox_patch() or made
            extents.append((made.get_text(), with_background.get_window_extent(renderer)))
        for i, (text, extent) in enumerate(extents):
            if (
                extent.x0 < 10
                or extent.y0 < 10
                or extent.x1 > self.width - 10
                or extent.y1 > self.height - 10
            ):
                raise ValueError(f"figure: {text!r} is cut off at the border of the card")
            for other, other_extent in extents[:i]:
                width = min(extent.x1, other_extent.x1) - max(extent.x0, other_extent.x0)
                height = min(extent.y1, other_extent.y1) - max(extent.y0, other_extent.y0)
                if width > 2 and height > 4:
                    raise ValueError(f"figure: {text!r} covers {other!r}")


class Place:
    """Where a picture or a grid lies on a card: fractional coordinates in it become pixels of the card."""

    def __init__(self, card, x, y, width, height):
        self.card, self.x, self.y, self.width, self.height = card, x, y, width, height

    def at(self, x, y):
        """The pixel of the card at fractional coordinates."""
        return self.x + float(x) * self.width, self.y + float(y) * self.height

    def on_box(self, box_xy, across, down):
        """The pixel of the card at fractions of a box's width and height; the box in fractional boundary coordinates."""
        x_min, y_min, x_max, y_max = box_xy
        return self.at(x_min + across * (x_max - x_min), y_min + down * (y_max - y_min))

    def box(self, box_xy, colour, label="", dashed=False, line=7, halo=True):
        """
        A box, with a label above its upper edge.

        :param box_xy: fractional boundary coordinates
        :param halo: a light rim, unless the box is dashed
        """
        x_min, y_min = self.at(*box_xy[:2])
        x_max, y_max = self.at(*box_xy[2:])
        size_px = (x_max - x_min, y_max - y_min)
        if halo and not dashed:
            self.card.rectangle(
                x_min, y_min, *size_px, edge="white", line=line + 4, alpha=0.75, layer=4
            )
        self.card.rectangle(x_min, y_min, *size_px, edge=colour, line=line, dashed=dashed, layer=5)
        if label:
            self.card.text(
                x_min + 4,
                y_min - 10,
                label,
                SMALL,
                "white",
                "left",
                "bottom",
                bold=True,
                background=colour,
            )

    def cell(self, row, column, n, fill, alpha=1.0, layer=2):
        """Fill the tile (row, column) of n x n."""
        side = self.width / n
        self.card.rectangle(
            self.x + column * side,
            self.y + row * side,
            side,
            side,
            fill=fill,
            alpha=alpha,
            layer=layer,
        )

    def cell_centre(self, row, column, n):
        """The pixel of the card in the middle of the tile (row, column) of n x n."""
        return self.at((column + 0.5) / n, (row + 0.5) / n)


def save(image, path, colours=255):
    """
    Write a figure: a PIL image as a PNG, a list of them as an animated GIF. Colours are reduced to a palette, and nothing but the
    pixels is written, so that the same figure is the same bytes.

    :param image: PIL image RGBA, or a list of them
    :param path: ends in .png or .gif
    """
    path = Path(path)
    if path.suffix == ".gif":
        frames = [on_ground(frame, CARD) for frame in image]
        counts = frames[len(frames) // 2].getcolors(1 << 24)
        palette = Image.new("P", (1, 1))
        palette.putpalette(
            [value for _, colour in sorted(counts, reverse=True)[:32] for value in colour]
        )
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=220,
            loop=0,
            optimize=True,
            disposal=1,
        )
        return
    transparent = image.getchannel("A").point(lambda alpha: 255 * (alpha < 128))
    reduced = on_ground(image, BORDER).quantize(
        colours, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE
    )
    palette = reduced.getpalette()
    reduced.putpalette(
        palette + [0] * (3 * 256 - len(palette))
    )  # a PNG can declare only a colour of its palette transparent
    reduced.paste(colours, mask=transparent)
    reduced.save(path, optimize=True, transparency=colours)


def on_ground(image, colour):
    """An image with transparency as an RGB image, the colour shining through."""
    ground = Image.new("RGBA", image.size, colour)
    ground.alpha_composite(image)
    return ground.convert("RGB")


def add_plot(card, x, y, width, height):
    """
    Axes to plot in.

    :param x, y, width, height: of the area inside the axes, pixels of the card; the numbers stand to its left and below it
    :return: matplotlib Axes
    """
    axes = card.figure.add_axes(
        (x / card.width, 1 - (y + height) / card.height, width / card.width, height / card.height)
    )
    axes.set(facecolor="white", zorder=5)
    axes.tick_params(
        labelsize=in_points(0.86 * SMALL), labelcolor=INK, color=BORDER, width=2, length=8
    )
    axes.grid(color=FAINT, linewidth=1.5)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set(edgecolor=BORDER, linewidth=2)
    return axes
