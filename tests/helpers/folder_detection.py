"""Runs detect.py on a folder, for a process whose memory is measured."""

import contextlib
import os

import detect


def detect_in_folder(folder, checkpoint, output_folder):
    """Quietly, and without a detection: each image is drawn all the same."""
    parameters = detect.Parameters(
        (folder,), checkpoint, min_score=1.0, output_folder=output_folder, device="cpu"
    )
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        detect.main(parameters)
