"""
The worked examples of the README as plain data. Its text, its figures and the tests take their
numbers from here.
"""

# A fully connected layer as a convolution: an image with 3 channels of 2 x 2 pixels, and a layer
# with two outputs. Both are flattened channel by channel and row by row, as PyTorch does it.
FC_IMAGE = [  # (3, 2, 2)
    [[1, 2], [0, 3]],
    [[2, 0], [1, 1]],
    [[0, 1], [4, 2]],
]
FC_WEIGHTS = [  # (2, 12), one row for each output
    [1, 0, 2, -1, 0, 1, 1, 3, -2, 0, 1, 2],
    [0, 2, -1, 1, 2, 1, 0, -1, 1, 1, 0, -2],
]
FC_BIASES = [4, 5]  # (2)

# Jaccard overlap: two squares, the second one moved by a quarter of its side in both directions;
# xy, pixels of a 300 x 300 image
JACCARD_BOXES = ([30, 40, 190, 200], [70, 80, 230, 240])

# Offsets: the scene's person, fractional cxcy, and the prior that overlaps it most: feature map,
# row and column of the tile, and number of the prior on the tile (from 0; 5 has the ratio 1:3)
OFFSETS_BOX = [0.69, 0.56, 0.31, 0.78]
OFFSETS_PRIOR = ("conv9_2", 2, 3, 5)

# The channels of conv9_2's predictions: for this tile (row, column) and these classes
CHANNELS_TILE = 2, 3
CHANNELS_CLASSES = ("backgr.", "cat", "car")

# Matching: three objects and seven priors, in pixels of a 300 x 300 image, as if there were no more
# priors. The cat and the plant behind it compete for the first prior, and no prior overlaps the car
# by half.
MATCHING_OBJECTS = [  # xy
    ("cat", [50, 90, 160, 220]),
    ("pottedplant", [90, 70, 195, 210]),
    ("car", [200, 235, 290, 280]),
]
MATCHING_PRIORS = [  # cxcy
    [116, 145, 120, 120],
    [180, 153, 120, 120],
    [104, 148, 85, 170],
    [100, 224, 170, 85],
    [240, 240, 60, 60],
    [264, 218, 60, 60],
    [238, 70, 120, 120],
]
MATCHING_THRESHOLD = 0.5

# Hard negatives: an image with two positive priors and fourteen negative ones (instead of 8730).
# These are the probabilities that the network gives the true class: the object's class for the
# positive priors, the background for the negative ones.
MINING_POSITIVES = [0.55, 0.30]
MINING_NEGATIVES = [
    0.99, 0.90, 0.15, 0.97, 0.70, 0.995, 0.35,
    0.95, 0.08, 0.985, 0.50, 0.80, 0.25, 0.99,
]  # fmt: skip
MINING_RATIO = 3

# Non-maximum suppression: two cats and a plant, and what a network might predict: (class, score,
# box), xy in pixels of a 300 x 300 image
NMS_OBJECTS = [
    ("pottedplant", [138, 62, 240, 200]),
    ("cat", [42, 121, 133, 231]),
    ("cat", [122, 98, 223, 217]),
]
NMS_CANDIDATES = [
    ("cat", 0.93, [40, 120, 135, 232]),
    ("cat", 0.86, [121, 96, 225, 218]),
    ("cat", 0.71, [52, 112, 150, 226]),
    ("cat", 0.64, [108, 104, 210, 232]),
    ("cat", 0.52, [30, 130, 120, 246]),
    ("cat", 0.45, [130, 80, 240, 215]),
    ("pottedplant", 0.78, [138, 64, 240, 202]),
]
NMS_MAX_OVERLAP = 0.45

# Average precision of the class cat on three images of 300 x 300 pixels: objects (image, box xy,
# difficult) and detections (score, image, box xy), the best score first
AP_OBJECTS = [
    (0, [30, 110, 140, 240], 0),
    (0, [180, 150, 275, 262], 0),
    (1, [20, 60, 120, 180], 0),
    (1, [150, 130, 270, 272], 0),
    (1, [170, 20, 250, 115], 1),
    (2, [90, 80, 220, 235], 0),
]
AP_DETECTIONS = [
    (0.95, 0, [34, 106, 144, 236]),
    (0.88, 2, [20, 60, 170, 190]),
    (0.81, 1, [26, 66, 124, 186]),
    (0.72, 1, [166, 24, 246, 118]),
    (0.64, 0, [20, 100, 126, 228]),
    (0.55, 1, [160, 120, 276, 262]),
    (0.31, 2, [10, 200, 80, 280]),
]

# Augmentations of the scene: what transform() is told to do, and the seed for what is left to
# chance. `crop` is the index of the minimum overlap in utils.MIN_CROP_OVERLAPS.
AUGMENTATIONS = {
    "zoom_out": [{"seed": 1, "zoom": True}, {"seed": 2, "zoom": True}, {"seed": 3, "zoom": True}],
    "random_crop": [{"seed": 2, "crop": 1}, {"seed": 4, "crop": 3}, {"seed": 3, "crop": 4}],
    "flip": [{"seed": 0, "flip": True}],
}
ONE_RESAMPLE = {"seed": 20, "zoom": True, "crop": 1}

# A batch of three images with different numbers of objects: (class, box) each, fractional xy
BATCH_SCENES = [
    [
        ("car", [0.1, 0.42, 0.62, 0.68]),
        ("person", [0.68, 0.25, 0.88, 0.85]),
        ("cat", [0.2, 0.66, 0.45, 0.95]),
    ],
    [("pottedplant", [0.3, 0.2, 0.7, 0.75])],
    [("cat", [0.08, 0.4, 0.42, 0.8]), ("tvmonitor", [0.5, 0.35, 0.92, 0.7])],
]

# The cells in photographs/blood_cells.jpg, as its data set, BCCD, has them: boundary coordinates in
# pixels (MIT licence, copyright 2017 shenggan)
BLOOD_CELLS = (
    ("WBC", (108, 118, 304, 332)),
    ("RBC", (363, 200, 453, 279)),
    ("RBC", (415, 166, 505, 245)),
    ("RBC", (458, 110, 548, 189)),
    ("RBC", (461, 141, 551, 240)),
    ("RBC", (504, 162, 576, 240)),
    ("RBC", (475, 234, 583, 332)),
    ("RBC", (13, 295, 117, 409)),
    ("RBC", (219, 7, 313, 112)),
    ("RBC", (341, 47, 435, 152)),
    ("RBC", (316, 73, 434, 180)),
    ("RBC", (257, 78, 352, 171)),
    ("RBC", (403, 290, 498, 394)),
    ("RBC", (198, 336, 293, 440)),
    ("RBC", (84, 371, 211, 477)),
    ("RBC", (103, 0, 212, 117)),
    ("Platelets", (84, 152, 122, 196)),
    ("RBC", (261, 418, 354, 480)),
    ("RBC", (0, 76, 94, 180)),
)
