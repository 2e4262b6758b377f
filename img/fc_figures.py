"""Figures of a fully connected layer that becomes a convolution, in four steps."""

FIGURES = {}
