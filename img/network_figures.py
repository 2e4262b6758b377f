"""Figures of the network: what its layers are, and how VGG-16 became its base."""

FIGURES = {}
