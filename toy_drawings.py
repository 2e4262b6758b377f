"""
The drawings of the toy data: one for each of VOC's classes, made of simple shapes.

Coordinates are percentages of the drawing's width and height, x before y. A part is

    ("polygon", corners, colour)
    ("rectangle" or "ellipse", (left, top, right, bottom), colour)
    ("line", points, colour, thickness)
    ("ring", (left, top, right, bottom), colour, thickness)

where the thickness is a percentage of the drawing's shorter side. Later parts cover earlier ones. A
colour is "main", "dark" or "light", shades of the main colour, which varies a little from object to
object, or a fixed one.
"""

from typing import NamedTuple


class Drawing(NamedTuple):
    """How an object of one class is drawn."""

    aspect_ratio: float  # width / height
    colour: tuple  # the main colour, (red, green, blue) from 0 to 255
    parts: tuple  # in the order in which they are painted, see above


BLACK = "#1e1e22"
GREY = "#77777f"
SILVER = "#c8c8ce"
WHITE = "#f6f6f2"
GLASS = "#bfe6f7"
SKIN = "#f0c09a"
BROWN = "#5b3418"
PINK = "#f09aa6"
ORANGE = "#f59a1c"
YELLOW = "#ffe27a"

# The classes that look least alike come first: a toy set of n classes takes the first n
TOY_DRAWINGS = {
    "car": Drawing(
        aspect_ratio=2.0,
        colour=(215, 40, 40),
        parts=(
            ("polygon", (17, 50, 31, 6, 66, 6, 83, 50), "main"),
            ("polygon", (26, 46, 35, 14, 48, 14, 48, 46), GLASS),
            ("polygon", (52, 46, 52, 14, 63, 14, 74, 46), GLASS),
            ("polygon", (0, 52, 6, 44, 90, 46, 100, 56, 100, 84, 0, 84), "main"),
            ("rectangle", (0, 70, 100, 78), "dark"),
            ("ellipse", (12, 62, 31, 100), BLACK),
            ("ellipse", (17, 72, 26, 90), SILVER),
            ("ellipse", (69, 62, 88, 100), BLACK),
            ("ellipse", (74, 72, 83, 90), SILVER),
            ("ellipse", (92, 53, 100, 66), YELLOW),
        ),
    ),
    "person": Drawing(
        aspect_ratio=0.45,
        colour=(40, 90, 200),
        parts=(
            ("ellipse", (28, 0, 72, 14), BROWN),
            ("ellipse", (31, 3, 69, 18), SKIN),
            ("polygon", (22, 20, 0, 50, 15, 54, 36, 32), "main"),
            ("ellipse", (0, 49, 16, 57), SKIN),
            ("polygon", (78, 20, 100, 50, 85, 54, 64, 32), "main"),
            ("ellipse", (84, 49, 100, 57), SKIN),
            ("rectangle", (25, 54, 48, 96), "#33333f"),
            ("rectangle", (52, 54, 75, 96), "#33333f"),
            ("polygon", (22, 19, 78, 19, 75, 58, 25, 58), "main"),
            ("ellipse", (18, 93, 49, 100), BROWN),
            ("ellipse", (51, 93, 82, 100), BROWN),
        ),
    ),
    "tvmonitor": Drawing(
        aspect_ratio=1.2,
        colour=(62, 62, 72),
        parts=(
            ("rectangle", (43, 74, 57, 94), "dark"),
            ("ellipse", (22, 87, 78, 100), "dark"),
            ("rectangle", (0, 0, 100, 79), "main"),
            ("rectangle", (6, 7, 94, 71), "#2fc4e6"),
            ("polygon", (12, 64, 44, 13, 62, 13, 30, 64), "#9ae8f7"),
        ),
    ),
    "cat": Drawing(
        aspect_ratio=0.85,
        colour=(240, 140, 40),
        parts=(
            ("line", (74, 94, 92, 84, 94, 62), "dark", 12),
            ("ellipse", (18, 42, 82, 100), "main"),
            ("ellipse", (35, 58, 65, 100), "light"),
            ("polygon", (10, 34, 12, 0, 42, 14), "main"),
            ("polygon", (16, 26, 17, 8, 32, 15), PINK),
            ("polygon", (90, 34, 88, 0, 58, 14), "main"),
            ("polygon", (84, 26, 83, 8, 68, 15), PINK),
            ("ellipse", (8, 8, 92, 57), "main"),
            ("ellipse", (24, 22, 42, 36), "#7ddc5a"),
            ("ellipse", (30, 22, 36, 36), BLACK),
            ("ellipse", (58, 22, 76, 36), "#7ddc5a"),
            ("ellipse", (64, 22, 70, 36), BLACK),
            ("polygon", (44, 40, 56, 40, 50, 46), "#d8506e"),
            ("line", (42, 45, 16, 41), WHITE, 2),
            ("line", (42, 48, 18, 50), WHITE, 2),
            ("line", (58, 45, 84, 41), WHITE, 2),
            ("line", (58, 48, 82, 50), WHITE, 2),
            ("ellipse", (27, 90, 48, 100), "light"),
            ("ellipse", (52, 90, 73, 100), "light"),
        ),
    ),
    "pottedplant": Drawing(
        aspect_ratio=0.75,
        colour=(40, 165, 60),
        parts=(
            ("polygon", (50, 68, 20, 56, 0, 30, 30, 36), "dark"),
            ("polygon", (50, 68, 80, 56, 100, 30, 70, 36), "dark"),
            ("polygon", (48, 68, 22, 34, 20, 4, 44, 28), "main"),
            ("polygon", (52, 68, 78, 34, 80, 4, 56, 28), "main"),
            ("polygon", (50, 68, 38, 30, 50, 0, 62, 30), "light"),
            ("polygon", (20, 66, 80, 66, 70, 100, 30, 100), "#c05a28"),
            ("rectangle", (15, 60, 85, 71), "#dc7a42"),
        ),
    ),
    "bus": Drawing(
        aspect_ratio=2.3,
        colour=(246, 196, 30),
        parts=(
            ("rectangle", (0, 2, 100, 88), "main"),
            ("rectangle", (3, 14, 16, 46), "#2e4a66"),
            ("rectangle", (19, 14, 33, 46), "#2e4a66"),
            ("rectangle", (36, 14, 50, 46), "#2e4a66"),
            ("rectangle", (53, 14, 67, 46), "#2e4a66"),
            ("rectangle", (71, 14, 81, 84), "#2e4a66"),
            ("rectangle", (85, 14, 100, 52), "#2e4a66"),
            ("rectangle", (0, 56, 69, 64), BLACK),
            ("ellipse", (13, 70, 26, 100), BLACK),
            ("ellipse", (17, 79, 22, 91), SILVER),
            ("ellipse", (53, 70, 66, 100), BLACK),
            ("ellipse", (57, 79, 62, 91), SILVER),
        ),
    ),
    "sheep": Drawing(
        aspect_ratio=1.3,
        colour=(238, 236, 226),
        parts=(
            ("rectangle", (20, 66, 29, 100), BLACK),
            ("rectangle", (34, 70, 43, 100), BLACK),
            ("rectangle", (52, 70, 61, 100), BLACK),
            ("rectangle", (65, 66, 74, 100), BLACK),
            ("ellipse", (0, 26, 34, 66), "main"),
            ("ellipse", (6, 8, 40, 48), "main"),
            ("ellipse", (28, 0, 60, 42), "main"),
            ("ellipse", (48, 4, 80, 46), "main"),
            ("ellipse", (10, 44, 44, 82), "main"),
            ("ellipse", (34, 48, 64, 86), "main"),
            ("ellipse", (54, 34, 86, 80), "main"),
            ("ellipse", (16, 16, 74, 74), "main"),
            ("ellipse", (66, 24, 82, 36), BLACK),
            ("ellipse", (74, 18, 100, 58), BLACK),
            ("ellipse", (86, 28, 92, 36), WHITE),
        ),
    ),
    "boat": Drawing(
        aspect_ratio=0.95,
        colour=(150, 82, 40),
        parts=(
            ("rectangle", (47, 0, 53, 76), BROWN),
            ("polygon", (55, 4, 55, 68, 97, 68), WHITE),
            ("polygon", (45, 14, 45, 68, 6, 68), "#e63c3c"),
            ("polygon", (0, 74, 100, 74, 82, 100, 18, 100), "main"),
            ("polygon", (5, 81, 95, 81, 91, 87, 9, 87), "light"),
        ),
    ),
    "bottle": Drawing(
        aspect_ratio=0.34,
        colour=(24, 120, 66),
        parts=(
            ("rectangle", (35, 4, 65, 42), "main"),
            ("rectangle", (29, 0, 71, 10), "#d4af37"),
            ("ellipse", (2, 28, 98, 58), "main"),
            ("rectangle", (2, 42, 98, 96), "main"),
            ("ellipse", (2, 90, 98, 100), "main"),
            ("rectangle", (2, 54, 98, 82), "#f5ecd0"),
            ("ellipse", (28, 61, 72, 75), "#a02040"),
            ("rectangle", (14, 40, 26, 51), "light"),
        ),
    ),
    "sofa": Drawing(
        aspect_ratio=1.9,
        colour=(200, 60, 125),
        parts=(
            ("rectangle", (10, 90, 18, 100), BROWN),
            ("rectangle", (82, 90, 90, 100), BROWN),
            ("rectangle", (7, 0, 93, 80), "main"),
            ("line", (50, 2, 50, 50), "dark", 3),
            ("rectangle", (13, 48, 49, 72), "light"),
            ("rectangle", (51, 48, 87, 72), "light"),
            ("rectangle", (6, 72, 94, 92), "main"),
            ("ellipse", (0, 26, 17, 56), "dark"),
            ("rectangle", (0, 40, 17, 92), "dark"),
            ("ellipse", (83, 26, 100, 56), "dark"),
            ("rectangle", (83, 40, 100, 92), "dark"),
        ),
    ),
    "aeroplane": Drawing(
        aspect_ratio=2.1,
        colour=(224, 232, 242),
        parts=(
            ("polygon", (42, 46, 58, 46, 44, 10, 36, 10), "dark"),
            ("polygon", (2, 0, 12, 0, 28, 42, 6, 48), "#2468c8"),
            ("polygon", (4, 40, 30, 34, 86, 34, 97, 44, 100, 52, 94, 60, 30, 64, 10, 54), "main"),
            ("polygon", (0, 44, 14, 44, 18, 54, 2, 56), "#2468c8"),
            ("polygon", (86, 36, 95, 44, 86, 46), "#2e4a66"),
            ("line", (30, 44, 36, 44), "#2e4a66", 5),
            ("line", (42, 44, 48, 44), "#2e4a66", 5),
            ("line", (54, 44, 60, 44), "#2e4a66", 5),
            ("line", (66, 44, 72, 44), "#2e4a66", 5),
            ("polygon", (42, 54, 66, 54, 38, 100, 28, 100), "dark"),
            ("ellipse", (46, 66, 62, 80), "#2468c8"),
        ),
    ),
    "train": Drawing(
        aspect_ratio=1.7,
        colour=(44, 58, 130),
        parts=(
            ("polygon", (70, 42, 72, 12, 67, 0, 89, 0, 84, 12, 86, 42), BLACK),
            ("ellipse", (44, 24, 60, 54), YELLOW),
            ("rectangle", (24, 36, 90, 74), "main"),
            ("rectangle", (60, 36, 63, 74), YELLOW),
            ("rectangle", (38, 36, 41, 74), YELLOW),
            ("rectangle", (2, 10, 32, 80), "main"),
            ("rectangle", (0, 5, 36, 15), BLACK),
            ("rectangle", (7, 22, 26, 44), GLASS),
            ("polygon", (84, 72, 90, 72, 100, 100, 84, 100), BLACK),
            ("ellipse", (3, 62, 25, 100), "#cc2222"),
            ("ellipse", (11, 76, 17, 86), WHITE),
            ("ellipse", (28, 62, 50, 100), "#cc2222"),
            ("ellipse", (36, 76, 42, 86), WHITE),
            ("ellipse", (53, 75, 67, 100), "#cc2222"),
            ("ellipse", (69, 75, 83, 100), "#cc2222"),
            ("line", (14, 86, 62, 86), SILVER, 6),
            ("ellipse", (86, 40, 95, 56), YELLOW),
        ),
    ),
    "bird": Drawing(
        aspect_ratio=1.35,
        colour=(36, 160, 222),
        parts=(
            ("line", (42, 80, 40, 100, 48, 100), ORANGE, 4),
            ("line", (54, 80, 54, 100, 62, 100), ORANGE, 4),
            ("polygon", (30, 56, 0, 42, 3, 60, 0, 72, 26, 76), "dark"),
            ("polygon", (88, 30, 100, 40, 88, 46), ORANGE),
            ("ellipse", (15, 40, 76, 90), "main"),
            ("ellipse", (40, 54, 74, 88), "#ffd9a0"),
            ("ellipse", (60, 16, 92, 60), "main"),
            ("ellipse", (77, 27, 85, 38), WHITE),
            ("ellipse", (79, 30, 84, 37), BLACK),
            ("polygon", (30, 64, 6, 0, 30, 6, 46, 20, 58, 58), "dark"),
        ),
    ),
    "horse": Drawing(
        aspect_ratio=1.1,
        colour=(126, 66, 30),
        parts=(
            ("polygon", (16, 42, 4, 42, 0, 56, 2, 86, 9, 78, 16, 56), BLACK),
            ("polygon", (24, 56, 34, 58, 31, 100, 23, 100), "dark"),
            ("polygon", (52, 58, 62, 56, 58, 100, 50, 100), "dark"),
            ("polygon", (14, 50, 27, 56, 22, 76, 20, 100, 12, 100, 14, 76), "main"),
            ("polygon", (59, 54, 74, 50, 71, 76, 71, 100, 63, 100, 63, 76), "main"),
            ("ellipse", (11, 36, 75, 66), "main"),
            ("polygon", (48, 42, 64, 8, 78, 3, 70, 40), BLACK),
            ("polygon", (52, 46, 72, 12, 86, 14, 74, 56), "main"),
            ("polygon", (70, 10, 76, 0, 81, 7, 100, 26, 97, 34, 90, 35, 76, 26), "main"),
            ("ellipse", (81, 12, 85, 17), BLACK),
            ("ellipse", (94, 27, 97, 31), BLACK),
        ),
    ),
    "chair": Drawing(
        aspect_ratio=0.62,
        colour=(196, 124, 60),
        parts=(
            ("rectangle", (28, 56, 38, 92), "dark"),
            ("rectangle", (72, 56, 82, 92), "dark"),
            ("rectangle", (0, 0, 15, 100), "main"),
            ("rectangle", (84, 54, 99, 100), "main"),
            ("polygon", (15, 2, 40, 8, 40, 44, 15, 46), "light"),
            ("line", (28, 6, 28, 44), "dark", 5),
            ("rectangle", (0, 50, 100, 60), "main"),
            ("ellipse", (12, 43, 100, 54), "#c8323c"),
        ),
    ),
    "bicycle": Drawing(
        aspect_ratio=1.6,
        colour=(0, 160, 150),
        parts=(
            ("ring", (0, 36, 40, 100), BLACK, 7),
            ("ring", (60, 36, 100, 100), BLACK, 7),
            ("line", (20, 68, 45, 72, 70, 30, 36, 30, 20, 68), "main", 8),
            ("line", (45, 72, 34, 18), "main", 8),
            ("line", (80, 68, 67, 8), "main", 8),
            ("line", (56, 10, 69, 5, 77, 12), BLACK, 8),
            ("ellipse", (24, 8, 46, 20), BROWN),
            ("ellipse", (40, 64, 50, 80), SILVER),
        ),
    ),
    "diningtable": Drawing(
        aspect_ratio=1.7,
        colour=(168, 100, 50),
        parts=(
            ("rectangle", (20, 52, 27, 86), "dark"),
            ("rectangle", (73, 52, 80, 86), "dark"),
            ("rectangle", (3, 52, 13, 100), "main"),
            ("rectangle", (87, 52, 97, 100), "main"),
            ("polygon", (16, 18, 84, 18, 100, 48, 0, 48), "light"),
            ("rectangle", (0, 46, 100, 60), "main"),
            ("ellipse", (14, 26, 38, 42), WHITE),
            ("ellipse", (19, 29, 33, 39), SILVER),
            ("ellipse", (62, 26, 86, 42), WHITE),
            ("ellipse", (67, 29, 81, 39), SILVER),
            ("ellipse", (44, 0, 56, 20), "#e04040"),
            ("polygon", (44, 12, 56, 12, 53, 34, 47, 34), "#6a3cc0"),
        ),
    ),
    "dog": Drawing(
        aspect_ratio=1.35,
        colour=(206, 160, 104),
        parts=(
            ("line", (22, 46, 8, 30, 5, 10), "main", 9),
            ("rectangle", (28, 58, 38, 98), "dark"),
            ("rectangle", (56, 58, 66, 98), "dark"),
            ("rectangle", (16, 50, 28, 100), "main"),
            ("rectangle", (64, 50, 76, 100), "main"),
            ("rectangle", (16, 36, 76, 70), "main"),
            ("polygon", (54, 44, 64, 14, 86, 40, 76, 56), "main"),
            ("ellipse", (60, 2, 90, 44), "main"),
            ("ellipse", (76, 20, 100, 42), "light"),
            ("ellipse", (94, 20, 100, 29), BLACK),
            ("ellipse", (77, 12, 82, 19), BLACK),
            ("ellipse", (58, 4, 71, 46), BROWN),
            ("line", (59, 50, 76, 50), "#d02830", 6),
        ),
    ),
    "motorbike": Drawing(
        aspect_ratio=1.6,
        colour=(128, 36, 168),
        parts=(
            ("ellipse", (0, 44, 36, 100), BLACK),
            ("ellipse", (9, 58, 27, 86), SILVER),
            ("ellipse", (64, 44, 100, 100), BLACK),
            ("ellipse", (73, 58, 91, 86), SILVER),
            ("line", (82, 72, 66, 12), GREY, 7),
            ("line", (56, 6, 70, 10), BLACK, 7),
            ("polygon", (34, 46, 66, 46, 62, 88, 36, 88), GREY),
            ("line", (46, 84, 4, 88), SILVER, 8),
            ("polygon", (2, 30, 14, 24, 46, 34, 46, 48, 20, 50), BLACK),
            ("ellipse", (36, 18, 72, 54), "main"),
            ("polygon", (60, 40, 96, 36, 100, 48, 70, 52), "main"),
            ("ellipse", (68, 14, 80, 34), YELLOW),
        ),
    ),
    "cow": Drawing(
        aspect_ratio=1.5,
        colour=(240, 238, 234),
        parts=(
            ("line", (10, 30, 2, 36, 2, 66), BLACK, 4),
            ("ellipse", (30, 60, 48, 80), PINK),
            ("rectangle", (10, 56, 19, 100), "main"),
            ("rectangle", (23, 56, 31, 96), "dark"),
            ("rectangle", (54, 56, 62, 96), "dark"),
            ("rectangle", (64, 56, 73, 100), "main"),
            ("rectangle", (8, 24, 76, 72), "main"),
            ("ellipse", (14, 26, 34, 56), BLACK),
            ("ellipse", (42, 38, 60, 68), BLACK),
            ("ellipse", (62, 25, 74, 46), BLACK),
            ("rectangle", (10, 90, 19, 100), BLACK),
            ("rectangle", (64, 90, 73, 100), BLACK),
            ("line", (74, 12, 72, 0), "#d8c28a", 5),
            ("line", (90, 12, 92, 0), "#d8c28a", 5),
            ("ellipse", (66, 14, 78, 26), BLACK),
            ("polygon", (72, 8, 92, 8, 97, 48, 77, 48), "main"),
            ("ellipse", (76, 36, 100, 56), PINK),
            ("ellipse", (76, 20, 81, 27), BLACK),
            ("ellipse", (86, 20, 91, 27), BLACK),
        ),
    ),
}
