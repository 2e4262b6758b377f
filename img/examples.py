"""The worked examples of the README as plain data: its text, its figures and the tests take the numbers from here."""

# A fully connected layer as a convolution: an image of 3 channels with 2 x 2 pixels each, and a layer with two outputs. Both are
# flattened channel by channel and row by row, as PyTorch does.
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

# Jaccard overlap: two squares, the second one moved by a quarter of the side in both directions. Pixels of a 300 x 300 image, xy
JACCARD_BOXES = ([30, 40, 190, 200], [70, 80, 230, 240])

# Offsets: the scene's person, fractional cxcy, and the prior that overlaps it most: map, row and column of the tile, and number
# of the prior on it, counted from 0 (5 is the one with aspect ratio 1:3)
OFFSETS_BOX = [0.69, 0.56, 0.31, 0.78]
OFFSETS_PRIOR = ("conv9_2", 2, 3, 5)
