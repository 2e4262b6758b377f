"""The drawn data set: simple drawings of VOC's classes, to try everything out in minutes."""

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from annotations import create_data_lists

# The toy set unless something else is asked for: what train.py --toy learns well in ten minutes on two processor cores
TOY_CLASSES, TOY_IMAGES, TOY_TEST_IMAGES = 5, 600, 60


# --------------------------------------------------------------------------------------------------------------- toy set

TOY_LABELS = (  # those that look least like each other first
    "car", "person", "tvmonitor", "cat", "pottedplant", "bus", "sheep", "boat", "bottle", "sofa", "aeroplane", "train", "bird",
    "horse", "chair", "bicycle", "diningtable", "dog", "motorbike", "cow",
)  # fmt: skip
DRAWINGS_VERSION = (
    1  # goes up with every change of what is drawn, so that older toy sets are drawn anew
)
MADE_BY = "create_data_lists.py --toy"
TOY_SIZES = (500, 375), (375, 500), (400, 400), (320, 240)  # width and height of the images, pixels
OBJECT_SIZES = 0.15, 0.5  # longer side of an object, as a fraction of the shorter side of its image
MAX_OVERLAP = 0.5  # of two drawings, as a fraction of the smaller one's pixels
MAX_COVERED = 1 / 3  # an object of which more is covered is marked difficult
FAINT_SHARE, FAINT_OPACITY = (
    0.08,
    0.35,
)  # share of images whose first object is drawn faintly, and marked difficult
BLACK, GREY, SILVER, WHITE, GLASS, SKIN = (
    "#1e1e22",
    "#77777f",
    "#c8c8ce",
    "#f6f6f2",
    "#bfe6f7",
    "#f0c09a",
)
BROWN, PINK, ORANGE, YELLOW = "#5b3418", "#f09aa6", "#f59a1c", "#ffe27a"

# Each drawing: width / height, main colour, and what to paint, in this order. Coordinates are fractions of the drawing's width
# and height, x before y. A colour is "main", "dark" or "light" (shades of the main colour, which varies), or a fixed one.
#     polygon: corners      rectangle, ellipse: left, top, right, bottom
#     line: width as a fraction of the drawing's shorter side, then points      ring: the same, then left, top, right, bottom
TOY_DRAWINGS = {
    "car": (2.0, (215, 40, 40), [
        ("polygon", (0.17, 0.50, 0.31, 0.06, 0.66, 0.06, 0.83, 0.50), "main"),
        ("polygon", (0.26, 0.46, 0.35, 0.14, 0.48, 0.14, 0.48, 0.46), GLASS),
        ("polygon", (0.52, 0.46, 0.52, 0.14, 0.63, 0.14, 0.74, 0.46), GLASS),
        ("polygon", (0, 0.52, 0.06, 0.44, 0.90, 0.46, 1, 0.56, 1, 0.84, 0, 0.84), "main"),
        ("rectangle", (0, 0.70, 1, 0.78), "dark"),
        ("ellipse", (0.12, 0.62, 0.31, 1), BLACK), ("ellipse", (0.17, 0.72, 0.26, 0.90), SILVER),
        ("ellipse", (0.69, 0.62, 0.88, 1), BLACK), ("ellipse", (0.74, 0.72, 0.83, 0.90), SILVER),
        ("ellipse", (0.92, 0.53, 1, 0.66), YELLOW),
    ]),
    "person": (0.45, (40, 90, 200), [
        ("ellipse", (0.28, 0, 0.72, 0.14), BROWN), ("ellipse", (0.31, 0.03, 0.69, 0.18), SKIN),
        ("polygon", (0.22, 0.20, 0, 0.50, 0.15, 0.54, 0.36, 0.32), "main"), ("ellipse", (0, 0.49, 0.16, 0.57), SKIN),
        ("polygon", (0.78, 0.20, 1, 0.50, 0.85, 0.54, 0.64, 0.32), "main"), ("ellipse", (0.84, 0.49, 1, 0.57), SKIN),
        ("rectangle", (0.25, 0.54, 0.48, 0.96), "#33333f"), ("rectangle", (0.52, 0.54, 0.75, 0.96), "#33333f"),
        ("polygon", (0.22, 0.19, 0.78, 0.19, 0.75, 0.58, 0.25, 0.58), "main"),
        ("ellipse", (0.18, 0.93, 0.49, 1), BROWN), ("ellipse", (0.51, 0.93, 0.82, 1), BROWN),
    ]),
    "tvmonitor": (1.2, (62, 62, 72), [
        ("rectangle", (0.43, 0.74, 0.57, 0.94), "dark"), ("ellipse", (0.22, 0.87, 0.78, 1), "dark"),
        ("rectangle", (0, 0, 1, 0.79), "main"), ("rectangle", (0.06, 0.07, 0.94, 0.71), "#2fc4e6"),
        ("polygon", (0.12, 0.64, 0.44, 0.13, 0.62, 0.13, 0.30, 0.64), "#9ae8f7"),
    ]),
    "cat": (0.85, (240, 140, 40), [
        ("line", (0.12, 0.74, 0.94, 0.92, 0.84, 0.94, 0.62), "dark"), ("ellipse", (0.18, 0.42, 0.82, 1), "main"),
        ("ellipse", (0.35, 0.58, 0.65, 1), "light"),
        ("polygon", (0.10, 0.34, 0.12, 0, 0.42, 0.14), "main"), ("polygon", (0.16, 0.26, 0.17, 0.08, 0.32, 0.15), PINK),
        ("polygon", (0.90, 0.34, 0.88, 0, 0.58, 0.14), "main"), ("polygon", (0.84, 0.26, 0.83, 0.08, 0.68, 0.15), PINK),
        ("ellipse", (0.08, 0.08, 0.92, 0.57), "main"),
        ("ellipse", (0.24, 0.22, 0.42, 0.36), "#7ddc5a"), ("ellipse", (0.30, 0.22, 0.36, 0.36), BLACK),
        ("ellipse", (0.58, 0.22, 0.76, 0.36), "#7ddc5a"), ("ellipse", (0.64, 0.22, 0.70, 0.36), BLACK),
        ("polygon", (0.44, 0.40, 0.56, 0.40, 0.50, 0.46), "#d8506e"),
        ("line", (0.02, 0.42, 0.45, 0.16, 0.41), WHITE), ("line", (0.02, 0.42, 0.48, 0.18, 0.50), WHITE),
        ("line", (0.02, 0.58, 0.45, 0.84, 0.41), WHITE), ("line", (0.02, 0.58, 0.48, 0.82, 0.50), WHITE),
        ("ellipse", (0.27, 0.90, 0.48, 1), "light"), ("ellipse", (0.52, 0.90, 0.73, 1), "light"),
    ]),
    "pottedplant": (0.75, (40, 165, 60), [
        ("polygon", (0.50, 0.68, 0.20, 0.56, 0, 0.30, 0.30, 0.36), "dark"),
        ("polygon", (0.50, 0.68, 0.80, 0.56, 1, 0.30, 0.70, 0.36), "dark"),
        ("polygon", (0.48, 0.68, 0.22, 0.34, 0.20, 0.04, 0.44, 0.28), "main"),
        ("polygon", (0.52, 0.68, 0.78, 0.34, 0.80, 0.04, 0.56, 0.28), "main"),
        ("polygon", (0.50, 0.68, 0.38, 0.30, 0.50, 0, 0.62, 0.30), "light"),
        ("polygon", (0.20, 0.66, 0.80, 0.66, 0.70, 1, 0.30, 1), "#c05a28"), ("rectangle", (0.15, 0.60, 0.85, 0.71), "#dc7a42"),
    ]),
    "bus": (2.3, (246, 196, 30), [
        ("rectangle", (0, 0.02, 1, 0.88), "main"), ("rectangle", (0.03, 0.14, 0.16, 0.46), "#2e4a66"),
        ("rectangle", (0.19, 0.14, 0.33, 0.46), "#2e4a66"), ("rectangle", (0.36, 0.14, 0.50, 0.46), "#2e4a66"),
        ("rectangle", (0.53, 0.14, 0.67, 0.46), "#2e4a66"), ("rectangle", (0.71, 0.14, 0.81, 0.84), "#2e4a66"),
        ("rectangle", (0.85, 0.14, 1, 0.52), "#2e4a66"), ("rectangle", (0, 0.56, 0.69, 0.64), BLACK),
        ("ellipse", (0.13, 0.70, 0.26, 1), BLACK), ("ellipse", (0.17, 0.79, 0.22, 0.91), SILVER),
        ("ellipse", (0.53, 0.70, 0.66, 1), BLACK), ("ellipse", (0.57, 0.79, 0.62, 0.91), SILVER),
    ]),
    "sheep": (1.3, (238, 236, 226), [
        ("rectangle", (0.20, 0.66, 0.29, 1), BLACK), ("rectangle", (0.34, 0.70, 0.43, 1), BLACK),
        ("rectangle", (0.52, 0.70, 0.61, 1), BLACK), ("rectangle", (0.65, 0.66, 0.74, 1), BLACK),
        ("ellipse", (0, 0.26, 0.34, 0.66), "main"), ("ellipse", (0.06, 0.08, 0.40, 0.48), "main"),
        ("ellipse", (0.28, 0, 0.60, 0.42), "main"), ("ellipse", (0.48, 0.04, 0.80, 0.46), "main"),
        ("ellipse", (0.10, 0.44, 0.44, 0.82), "main"), ("ellipse", (0.34, 0.48, 0.64, 0.86), "main"),
        ("ellipse", (0.54, 0.34, 0.86, 0.80), "main"), ("ellipse", (0.16, 0.16, 0.74, 0.74), "main"),
        ("ellipse", (0.66, 0.24, 0.82, 0.36), BLACK), ("ellipse", (0.74, 0.18, 1, 0.58), BLACK),
        ("ellipse", (0.86, 0.28, 0.92, 0.36), WHITE),
    ]),
    "boat": (0.95, (150, 82, 40), [
        ("rectangle", (0.47, 0, 0.53, 0.76), BROWN), ("polygon", (0.55, 0.04, 0.55, 0.68, 0.97, 0.68), WHITE),
        ("polygon", (0.45, 0.14, 0.45, 0.68, 0.06, 0.68), "#e63c3c"),
        ("polygon", (0, 0.74, 1, 0.74, 0.82, 1, 0.18, 1), "main"),
        ("polygon", (0.05, 0.81, 0.95, 0.81, 0.91, 0.87, 0.09, 0.87), "light"),
    ]),
    "bottle": (0.34, (24, 120, 66), [
        ("rectangle", (0.35, 0.04, 0.65, 0.42), "main"), ("rectangle", (0.29, 0, 0.71, 0.10), "#d4af37"),
        ("ellipse", (0.02, 0.28, 0.98, 0.58), "main"), ("rectangle", (0.02, 0.42, 0.98, 0.96), "main"),
        ("ellipse", (0.02, 0.90, 0.98, 1), "main"), ("rectangle", (0.02, 0.54, 0.98, 0.82), "#f5ecd0"),
        ("ellipse", (0.28, 0.61, 0.72, 0.75), "#a02040"), ("rectangle", (0.14, 0.40, 0.26, 0.51), "light"),
    ]),
    "sofa": (1.9, (200, 60, 125), [
        ("rectangle", (0.10, 0.90, 0.18, 1), BROWN), ("rectangle", (0.82, 0.90, 0.90, 1), BROWN),
        ("rectangle", (0.07, 0, 0.93, 0.80), "main"), ("line", (0.03, 0.50, 0.02, 0.50, 0.50), "dark"),
        ("rectangle", (0.13, 0.48, 0.49, 0.72), "light"), ("rectangle", (0.51, 0.48, 0.87, 0.72), "light"),
        ("rectangle", (0.06, 0.72, 0.94, 0.92), "main"),
        ("ellipse", (0, 0.26, 0.17, 0.56), "dark"), ("rectangle", (0, 0.40, 0.17, 0.92), "dark"),
        ("ellipse", (0.83, 0.26, 1, 0.56), "dark"), ("rectangle", (0.83, 0.40, 1, 0.92), "dark"),
    ]),
    "aeroplane": (2.1, (224, 232, 242), [
        ("polygon", (0.42, 0.46, 0.58, 0.46, 0.44, 0.10, 0.36, 0.10), "dark"),
        ("polygon", (0.02, 0, 0.12, 0, 0.28, 0.42, 0.06, 0.48), "#2468c8"),
        ("polygon", (0.04, 0.40, 0.30, 0.34, 0.86, 0.34, 0.97, 0.44, 1, 0.52, 0.94, 0.60, 0.30, 0.64, 0.10, 0.54), "main"),
        ("polygon", (0, 0.44, 0.14, 0.44, 0.18, 0.54, 0.02, 0.56), "#2468c8"),
        ("polygon", (0.86, 0.36, 0.95, 0.44, 0.86, 0.46), "#2e4a66"),
        ("line", (0.05, 0.30, 0.44, 0.36, 0.44), "#2e4a66"), ("line", (0.05, 0.42, 0.44, 0.48, 0.44), "#2e4a66"),
        ("line", (0.05, 0.54, 0.44, 0.60, 0.44), "#2e4a66"), ("line", (0.05, 0.66, 0.44, 0.72, 0.44), "#2e4a66"),
        ("polygon", (0.42, 0.54, 0.66, 0.54, 0.38, 1, 0.28, 1), "dark"), ("ellipse", (0.46, 0.66, 0.62, 0.80), "#2468c8"),
    ]),
    "train": (1.7, (44, 58, 130), [
        ("polygon", (0.70, 0.42, 0.72, 0.12, 0.67, 0, 0.89, 0, 0.84, 0.12, 0.86, 0.42), BLACK),
        ("ellipse", (0.44, 0.24, 0.60, 0.54), YELLOW), ("rectangle", (0.24, 0.36, 0.90, 0.74), "main"),
        ("rectangle", (0.60, 0.36, 0.63, 0.74), YELLOW), ("rectangle", (0.38, 0.36, 0.41, 0.74), YELLOW),
        ("rectangle", (0.02, 0.10, 0.32, 0.80), "main"), ("rectangle", (0, 0.05, 0.36, 0.15), BLACK),
        ("rectangle", (0.07, 0.22, 0.26, 0.44), GLASS), ("polygon", (0.84, 0.72, 0.90, 0.72, 1, 1, 0.84, 1), BLACK),
        ("ellipse", (0.03, 0.62, 0.25, 1), "#cc2222"), ("ellipse", (0.11, 0.76, 0.17, 0.86), WHITE),
        ("ellipse", (0.28, 0.62, 0.50, 1), "#cc2222"), ("ellipse", (0.36, 0.76, 0.42, 0.86), WHITE),
        ("ellipse", (0.53, 0.75, 0.67, 1), "#cc2222"), ("ellipse", (0.69, 0.75, 0.83, 1), "#cc2222"),
        ("line", (0.06, 0.14, 0.86, 0.62, 0.86), SILVER), ("ellipse", (0.86, 0.40, 0.95, 0.56), YELLOW),
    ]),
    "bird": (1.35, (36, 160, 222), [
        ("line", (0.04, 0.42, 0.80, 0.40, 1, 0.48, 1), ORANGE), ("line", (0.04, 0.54, 0.80, 0.54, 1, 0.62, 1), ORANGE),
        ("polygon", (0.30, 0.56, 0, 0.42, 0.03, 0.60, 0, 0.72, 0.26, 0.76), "dark"),
        ("polygon", (0.88, 0.30, 1, 0.40, 0.88, 0.46), ORANGE),
        ("ellipse", (0.15, 0.40, 0.76, 0.90), "main"), ("ellipse", (0.40, 0.54, 0.74, 0.88), "#ffd9a0"),
        ("ellipse", (0.60, 0.16, 0.92, 0.60), "main"), ("ellipse", (0.77, 0.27, 0.85, 0.38), WHITE),
        ("ellipse", (0.79, 0.30, 0.84, 0.37), BLACK),
        ("polygon", (0.30, 0.64, 0.06, 0, 0.30, 0.06, 0.46, 0.20, 0.58, 0.58), "dark"),
    ]),
    "horse": (1.1, (126, 66, 30), [
        ("polygon", (0.16, 0.42, 0.04, 0.42, 0, 0.56, 0.02, 0.86, 0.09, 0.78, 0.16, 0.56), BLACK),
        ("polygon", (0.24, 0.56, 0.34, 0.58, 0.31, 1, 0.23, 1), "dark"),
        ("polygon", (0.52, 0.58, 0.62, 0.56, 0.58, 1, 0.50, 1), "dark"),
        ("polygon", (0.14, 0.50, 0.27, 0.56, 0.22, 0.76, 0.20, 1, 0.12, 1, 0.14, 0.76), "main"),
        ("polygon", (0.59, 0.54, 0.74, 0.50, 0.71, 0.76, 0.71, 1, 0.63, 1, 0.63, 0.76), "main"),
        ("ellipse", (0.11, 0.36, 0.75, 0.66), "main"), ("polygon", (0.48, 0.42, 0.64, 0.08, 0.78, 0.03, 0.70, 0.40), BLACK),
        ("polygon", (0.52, 0.46, 0.72, 0.12, 0.86, 0.14, 0.74, 0.56), "main"),
        ("polygon", (0.70, 0.10, 0.76, 0, 0.81, 0.07, 1, 0.26, 0.97, 0.34, 0.90, 0.35, 0.76, 0.26), "main"),
        ("ellipse", (0.81, 0.12, 0.85, 0.17), BLACK), ("ellipse", (0.94, 0.27, 0.97, 0.31), BLACK),
    ]),
    "chair": (0.62, (196, 124, 60), [
        ("rectangle", (0.28, 0.56, 0.38, 0.92), "dark"), ("rectangle", (0.72, 0.56, 0.82, 0.92), "dark"),
        ("rectangle", (0, 0, 0.15, 1), "main"), ("rectangle", (0.84, 0.54, 0.99, 1), "main"),
        ("polygon", (0.15, 0.02, 0.40, 0.08, 0.40, 0.44, 0.15, 0.46), "light"), ("line", (0.05, 0.28, 0.06, 0.28, 0.44), "dark"),
        ("rectangle", (0, 0.50, 1, 0.60), "main"), ("ellipse", (0.12, 0.43, 1, 0.54), "#c8323c"),
    ]),
    "bicycle": (1.6, (0, 160, 150), [
        ("ring", (0.07, 0, 0.36, 0.40, 1), BLACK), ("ring", (0.07, 0.60, 0.36, 1, 1), BLACK),
        ("line", (0.08, 0.20, 0.68, 0.45, 0.72, 0.70, 0.30, 0.36, 0.30, 0.20, 0.68), "main"),
        ("line", (0.08, 0.45, 0.72, 0.34, 0.18), "main"), ("line", (0.08, 0.80, 0.68, 0.67, 0.08), "main"),
        ("line", (0.08, 0.56, 0.10, 0.69, 0.05, 0.77, 0.12), BLACK), ("ellipse", (0.24, 0.08, 0.46, 0.20), BROWN),
        ("ellipse", (0.40, 0.64, 0.50, 0.80), SILVER),
    ]),
    "diningtable": (1.7, (168, 100, 50), [
        ("rectangle", (0.20, 0.52, 0.27, 0.86), "dark"), ("rectangle", (0.73, 0.52, 0.80, 0.86), "dark"),
        ("rectangle", (0.03, 0.52, 0.13, 1), "main"), ("rectangle", (0.87, 0.52, 0.97, 1), "main"),
        ("polygon", (0.16, 0.18, 0.84, 0.18, 1, 0.48, 0, 0.48), "light"), ("rectangle", (0, 0.46, 1, 0.60), "main"),
        ("ellipse", (0.14, 0.26, 0.38, 0.42), WHITE), ("ellipse", (0.19, 0.29, 0.33, 0.39), SILVER),
        ("ellipse", (0.62, 0.26, 0.86, 0.42), WHITE), ("ellipse", (0.67, 0.29, 0.81, 0.39), SILVER),
        ("ellipse", (0.44, 0, 0.56, 0.20), "#e04040"), ("polygon", (0.44, 0.12, 0.56, 0.12, 0.53, 0.34, 0.47, 0.34), "#6a3cc0"),
    ]),
    "dog": (1.35, (206, 160, 104), [
        ("line", (0.09, 0.22, 0.46, 0.08, 0.30, 0.05, 0.10), "main"),
        ("rectangle", (0.28, 0.58, 0.38, 0.98), "dark"), ("rectangle", (0.56, 0.58, 0.66, 0.98), "dark"),
        ("rectangle", (0.16, 0.50, 0.28, 1), "main"), ("rectangle", (0.64, 0.50, 0.76, 1), "main"),
        ("rectangle", (0.16, 0.36, 0.76, 0.70), "main"), ("polygon", (0.54, 0.44, 0.64, 0.14, 0.86, 0.40, 0.76, 0.56), "main"),
        ("ellipse", (0.60, 0.02, 0.90, 0.44), "main"), ("ellipse", (0.76, 0.20, 1, 0.42), "light"),
        ("ellipse", (0.94, 0.20, 1, 0.29), BLACK), ("ellipse", (0.77, 0.12, 0.82, 0.19), BLACK),
        ("ellipse", (0.58, 0.04, 0.71, 0.46), BROWN), ("line", (0.06, 0.59, 0.50, 0.76, 0.50), "#d02830"),
    ]),
    "motorbike": (1.6, (128, 36, 168), [
        ("ellipse", (0, 0.44, 0.36, 1), BLACK), ("ellipse", (0.09, 0.58, 0.27, 0.86), SILVER),
        ("ellipse", (0.64, 0.44, 1, 1), BLACK), ("ellipse", (0.73, 0.58, 0.91, 0.86), SILVER),
        ("line", (0.07, 0.82, 0.72, 0.66, 0.12), GREY), ("line", (0.07, 0.56, 0.06, 0.70, 0.10), BLACK),
        ("polygon", (0.34, 0.46, 0.66, 0.46, 0.62, 0.88, 0.36, 0.88), GREY), ("line", (0.08, 0.46, 0.84, 0.04, 0.88), SILVER),
        ("polygon", (0.02, 0.30, 0.14, 0.24, 0.46, 0.34, 0.46, 0.48, 0.20, 0.50), BLACK),
        ("ellipse", (0.36, 0.18, 0.72, 0.54), "main"), ("polygon", (0.60, 0.40, 0.96, 0.36, 1, 0.48, 0.70, 0.52), "main"),
        ("ellipse", (0.68, 0.14, 0.80, 0.34), YELLOW),
    ]),
    "cow": (1.5, (240, 238, 234), [
        ("line", (0.04, 0.10, 0.30, 0.02, 0.36, 0.02, 0.66), BLACK), ("ellipse", (0.30, 0.60, 0.48, 0.80), PINK),
        ("rectangle", (0.10, 0.56, 0.19, 1), "main"), ("rectangle", (0.23, 0.56, 0.31, 0.96), "dark"),
        ("rectangle", (0.54, 0.56, 0.62, 0.96), "dark"), ("rectangle", (0.64, 0.56, 0.73, 1), "main"),
        ("rectangle", (0.08, 0.24, 0.76, 0.72), "main"),
        ("ellipse", (0.14, 0.26, 0.34, 0.56), BLACK), ("ellipse", (0.42, 0.38, 0.60, 0.68), BLACK),
        ("ellipse", (0.62, 0.25, 0.74, 0.46), BLACK), ("rectangle", (0.10, 0.90, 0.19, 1), BLACK),
        ("rectangle", (0.64, 0.90, 0.73, 1), BLACK), ("line", (0.05, 0.74, 0.12, 0.72, 0), "#d8c28a"),
        ("line", (0.05, 0.90, 0.12, 0.92, 0), "#d8c28a"), ("ellipse", (0.66, 0.14, 0.78, 0.26), BLACK),
        ("polygon", (0.72, 0.08, 0.92, 0.08, 0.97, 0.48, 0.77, 0.48), "main"), ("ellipse", (0.76, 0.36, 1, 0.56), PINK),
        ("ellipse", (0.76, 0.20, 0.81, 0.27), BLACK), ("ellipse", (0.86, 0.20, 0.91, 0.27), BLACK),
    ]),
}  # fmt: skip


def create_toy_data(
    folder, n_classes=TOY_CLASSES, n_train=TOY_IMAGES, n_test=TOY_TEST_IMAGES, seed=0
):
    """
    Draw a data set in VOC layout, and write its lists into the same folder. If the folder holds the very same set already,
    nothing is drawn again; if it holds another toy set, that is replaced.

    :param folder: where it goes; made if it is not there
    :param n_classes: 1 to 20; the first ones of TOY_LABELS
    :param n_train: number of training images, at least 1
    :param n_test: number of test images
    :param seed: the same one gives the same files
    :raises ValueError: another number, or the folder holds something else than a toy set
    """
    for name, value, low, high in (
        ("classes", n_classes, 1, len(TOY_LABELS)), ("training images", n_train, 1, 999_999 - n_test),
        ("test images", n_test, 0, 999_998), ("seed", seed, 0, math.inf),
    ):  # fmt: skip
        if not low <= value <= high:
            raise ValueError(f"toy set: {name}: expected {low} to {high}, got {value}")
    folder = Path(folder)
    classes = TOY_LABELS[:n_classes]
    settings = {
        "made_by": MADE_BY, "drawings": DRAWINGS_VERSION, "classes": list(classes), "n_train": n_train, "n_test": n_test,
        "seed": seed,
    }  # fmt: skip
    if read_toy_marker(folder) != settings or len(find_toy_files(folder)) != 2 * (n_train + n_test):
        draw_toy_data(folder, settings)
    create_data_lists(str(folder), "", folder, labels=classes)


def read_toy_marker(folder):
    """
    The settings with which the toy set in this folder was drawn; None if the folder is empty or missing.

    :raises ValueError: there is something else in it
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        settings = json.loads((folder / "toy.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = None
    if not isinstance(settings, dict) or settings.get("made_by") != MADE_BY:
        raise ValueError(
            f"{folder}: not a folder with a toy set, and not empty: name another folder"
        )
    return settings


def find_toy_files(folder):
    """The pictures and annotations of a toy set."""
    return [
        *folder.glob(f"JPEGImages/{'[0-9]' * 6}.jpg"),
        *folder.glob(f"Annotations/{'[0-9]' * 6}.xml"),
    ]


def draw_toy_data(folder, settings):
    """Draw all pictures of a toy set, with their annotations and the lists of their names, in VOC layout."""
    for path in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / path).mkdir(parents=True, exist_ok=True)
    marker = folder / "toy.json"
    marker.write_text(
        json.dumps({"made_by": MADE_BY}), encoding="utf-8"
    )  # unfinished: if this is broken off, it is drawn anew
    for path in find_toy_files(folder):
        path.unlink()
    n_train, n_images = settings["n_train"], settings["n_train"] + settings["n_test"]
    names = [f"{number + 1:06}" for number in range(n_images)]
    for number, name in enumerate(tqdm(names, desc="drawing", unit="image")):
        image, objects = draw_toy_image(settings["seed"], number, settings["classes"])
        image.save(folder / "JPEGImages" / f"{name}.jpg", quality=90)
        write_annotation(folder / "Annotations" / f"{name}.xml", f"{name}.jpg", image.size, objects)
    for image_set, listed in (("trainval", names[:n_train]), ("test", names[n_train:])):
        (folder / "ImageSets" / "Main" / f"{image_set}.txt").write_text(
            "".join(f"{name}\n" for name in listed)
        )
    marker.write_text(json.dumps(settings), encoding="utf-8")


def write_annotation(path, image_name, image_size, objects):
    """
    Write one annotation as VOC has them.

    :param objects: as draw_toy_image gives them
    """
    root = ElementTree.Element("annotation")
    size = dict(zip(("width", "height", "depth"), (*image_size, 3), strict=True))
    source = {"database": f"drawn by {MADE_BY}"}
    add_tags(
        root,
        {"folder": "toy", "filename": image_name, "source": source, "size": size, "segmented": 0},
    )
    for obj in objects:
        left, top, right, bottom = obj["box"]
        # VOC counts pixels from 1 and includes both ends: pixels left ... right - 1 are left + 1 ... right there
        box = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
        state = {
            "pose": "Unspecified",
            "truncated": obj["truncated"],
            "difficult": obj["difficult"],
        }
        add_tags(root, {"object": {"name": obj["name"], **state, "bndbox": box}})
    ElementTree.indent(root, "\t")
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8") + b"\n")


def add_tags(parent, tags):
    """Add {tag: text, or a dictionary of further tags} to an XML element."""
    for tag, content in tags.items():
        element = ElementTree.SubElement(parent, tag)
        if isinstance(content, dict):
            add_tags(element, content)
        else:
            element.text = str(content)


def draw_toy_image(seed, number, classes):
    """
    Draw one picture of a toy set. It depends on these arguments and on nothing else.

    :param number: of the picture, from 0
    :param classes: the class names to choose from; picture 0 has the first of them, picture 1 the second, and so on
    :return: PIL image, RGB; and its objects, each {"name", "difficult", "truncated" (its visible part has a smaller box
        than the whole), "box" (of the visible part: left, top, right, bottom in whole pixels, the latter two exclusive)}
    """
    rng = np.random.default_rng((seed, number))
    width, height = TOY_SIZES[rng.integers(len(TOY_SIZES))]
    image = Image.fromarray(draw_background(width, height, rng))
    names = [classes[number % len(classes)], *rng.choice(classes, rng.integers(1, 6)).tolist()]
    faint = rng.random() < FAINT_SHARE  # the first one only: nothing may shine through from below
    masks, drawn = [], []
    for name in names:
        tile = draw_object(name, rng.uniform(*OBJECT_SIZES) * min(width, height), rng)
        place = find_place(np.array(tile.getchannel("A")) >= 64, masks, width, height, rng)
        if place is None:  # no room left
            continue
        left, top, mask = place
        opacity = FAINT_OPACITY if faint and not drawn else 1.0
        image.paste(
            tile,
            (left, top),
            tile.getchannel("A").point(lambda alpha, opacity=opacity: alpha * opacity),
        )
        drawn.append(name)
        masks.append(mask)

    objects = []
    for index, (name, mask) in enumerate(zip(drawn, masks, strict=True)):
        visible = visible_part(index, masks)
        box = bounding_box(visible)
        covered = 1 - visible.sum() / mask.sum()
        difficult = int((faint and index == 0) or covered > MAX_COVERED)
        objects.append(
            {
                "name": name,
                "box": box,
                "difficult": difficult,
                "truncated": int(box != bounding_box(mask)),
            }
        )
    return image, objects


def draw_background(width, height, rng):
    """
    A background of dull colours: a gradient, stripes, blobs or noise.

    :return: (height, width, 3) uint8
    """
    first, second = (
        np.clip(rng.uniform(50, 205) + rng.uniform(-30, 30, 3), 0, 255) for _ in range(2)
    )  # (3) both
    angle = rng.uniform(0, 2 * np.pi)
    across = (
        np.cos(angle) * np.arange(width) / width
        + np.sin(angle) * np.arange(height)[:, None] / height
    )  # (height, width)
    across = (across - across.min()) / np.ptp(across)
    kind = rng.integers(4)
    if kind == 0:
        share = across
    elif kind == 1:
        share = (np.sin(2 * np.pi * across * rng.integers(3, 12)) > 0) * 0.5
    elif kind == 2:
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8), dtype=np.uint8))
        share = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / 255
    else:
        coarse = Image.fromarray(rng.integers(0, 256, (height // 3, width // 3), dtype=np.uint8))
        share = (
            0.7 * across
            + 0.3 * np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST)) / 255
        )
    palette = (first + np.linspace(0, 1, 256)[:, None] * (second - first)).astype(
        np.uint8
    )  # (256, 3)
    return palette[(share * 255).astype(np.uint8)]


def draw_object(name, side, rng):
    """
    Draw an object of a class, with small changes of colour and proportions, and mirrored or not.

    :param side: length of its longer side, pixels
    :return: PIL image, RGBA, transparent where the object is not
    """
    aspect, main, parts = TOY_DRAWINGS[name]
    aspect *= math.exp(rng.uniform(-0.15, 0.15))
    width, height = (max(8, round(side * min(1, factor))) for factor in (aspect, 1 / aspect))
    main = np.clip(np.array(main) * rng.uniform(0.85, 1.15) + rng.uniform(-18, 18, 3), 0, 255)
    colours = {"main": main, "dark": 0.65 * main, "light": main + 0.45 * (255 - main)}
    colours = {shade: tuple(colour.astype(int).tolist()) for shade, colour in colours.items()}

    # Twice as large as asked for, which smooths the edges when it is reduced; the margin takes the outline
    inner, margin = np.array([width - 2, height - 2]) * 2 - 1, 2
    tile = Image.new("RGBA", (2 * width, 2 * height))
    pen = ImageDraw.Draw(tile)
    for kind, numbers, colour in parts:
        paint(pen, kind, numbers, colours.get(colour, colour), inner, margin)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    tile = tile.reduce(2)

    outlined = Image.new("RGBA", tile.size, (20, 20, 24, 255))
    outlined.putalpha(tile.getchannel("A").filter(ImageFilter.MaxFilter(3)))
    outlined.alpha_composite(tile)
    return outlined


def paint(pen, kind, numbers, colour, inner, margin):
    """
    Paint one part of a drawing.

    :param pen: ImageDraw
    :param kind, numbers, colour: a part, as TOY_DRAWINGS has it, the colour as Pillow takes it
    :param inner: (2) width and height to which the coordinates are scaled
    :param margin: pixels around them
    """
    thickness = 0
    if kind in ("line", "ring"):
        thickness, numbers = max(1, round(numbers[0] * min(inner))), numbers[1:]
    points = [tuple(point) for point in (np.reshape(numbers, (-1, 2)) * inner + margin).tolist()]
    if kind == "polygon":
        pen.polygon(points, fill=colour)
    elif kind == "ellipse":
        pen.ellipse(points, fill=colour)
    elif kind == "ring":
        pen.ellipse(points, outline=colour, width=thickness)
    elif kind == "rectangle":
        pen.rounded_rectangle(points, radius=0.05 * min(inner), fill=colour)
    else:
        pen.line(points, fill=colour, width=thickness, joint="curve")


def find_place(shape, masks, width, height, rng, n_tries=20):
    """
    A place for a drawing in a picture where it neither hides nor is hidden by too much of another one.

    :param shape: (h, w) bool, the drawing's pixels
    :param masks: (height, width) bool each, those of the earlier ones
    :return: left, top, and the drawing's pixels in the picture (height, width) bool; None if no such place is found
    """
    for _ in range(n_tries):
        left, top = (
            int(rng.integers(room + 1))
            for room in (width - shape.shape[1], height - shape.shape[0])
        )
        mask = np.zeros((height, width), dtype=bool)
        mask[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
        apart = all(
            (mask & other).sum() <= MAX_OVERLAP * min(mask.sum(), other.sum()) for other in masks
        )
        visible = (
            visible_part(index, [*masks, mask]).sum() >= MAX_OVERLAP * other.sum()
            for index, other in enumerate(masks)
        )
        if apart and all(visible):
            return left, top, mask
    return None


def visible_part(index, masks):
    """What of a drawing the later ones leave visible: (height, width) bool."""
    visible = masks[index]
    for later in masks[index + 1 :]:
        visible = visible & ~later
    return visible


def bounding_box(mask):
    """The smallest box around the pixels of a mask: (left, top, right, bottom), the latter two exclusive."""
    columns, rows = mask.any(axis=0).nonzero()[0], mask.any(axis=1).nonzero()[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
