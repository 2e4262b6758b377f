"""Figures of kernels: decimation, dilation, receptive fields; and the learning rate."""

FIGURES = {}
