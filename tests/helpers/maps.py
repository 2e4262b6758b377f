"""The feature maps of the paper, written out."""

SIDES = (38, 19, 10, 5, 3, 1)

CHANNELS = (512, 1024, 512, 256, 256, 256)

PRIORS_PER_TILE = (4, 6, 6, 6, 4, 4)

# Where each map's priors begin, and their number: sums of side * side * priors per tile, written
# out
FIRST_PRIORS = (0, 5776, 7942, 8542, 8692, 8728, 8732)
