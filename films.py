"""
Animated pictures and films: their frames, one after the other, and files like them with other
frames. Nothing here knows about detection.
"""

import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets import MAX_PIXELS, describe_image_errors, open_image
from runtime import written_whole

# Formats of animated pictures, as Pillow calls them. (TIFF files may have pages, but these are not
# an animation.)
ANIMATION_ENDINGS = {"GIF": ".gif", "PNG": ".png", "WEBP": ".webp"}
FILM_ENDINGS = {".avi", ".mkv", ".mov", ".mp4", ".webm"}

# Of all frames of an animated picture, which are kept in memory until they are written; Pillow
# takes up to 7 bytes for each
MAX_ANIMATION_PIXELS = 250_000_000
# Frames a second. Films without a constant frame rate state one of 1000 or more
MAX_FRAME_RATE = 240


def is_film(path):
    """Whether a file is a film, judged by the ending of its name."""
    return Path(path).suffix.lower() in FILM_ENDINGS


def is_animated(image):
    """Whether this is an animated picture: a GIF, WebP or PNG file with several frames."""
    return image.format in ANIMATION_ENDINGS and getattr(image, "is_animated", False)


def open_film_or_animation(path):
    """
    :param path: a film, or an animated picture
    :return: Film or Animation
    :raises ValueError: the file cannot be read, or OpenCV is missing; the message names the remedy
    """
    return Film(path) if is_film(path) else Animation(path)


# ------------------------------------------------------------------------------- animated pictures


class Animation:
    """
    An animated GIF, WebP or PNG file. Iterating over it gives its frames in order: whole pictures,
    as a viewer shows them, PIL images in RGB. What is transparent is white. (Where a GIF file says
    that a frame is cleared before the next one, Pillow shows the background colour if the first
    frame is not transparent. The format says so; browsers show what is behind the picture.)
    """

    def __init__(self, path):
        """
        :param path: the file
        :raises ValueError: it cannot be read, or has too many pixels
        """
        self.path = path
        self.durations_ms = []  # of the frames that were read so far
        with self._readable_errors():
            self.image = open_image(path)
            self.ending = ANIMATION_ENDINGS[self.image.format]
            self.size = self.image.size
            # An animated PNG file may have a picture in front, for viewers that show no animations
            self.first = 1 if self.image.info.get("default_image") else 0
            self.n_frames = self.image.n_frames - self.first
            n_pixels = self.n_frames * self.image.width * self.image.height
            if n_pixels > MAX_ANIMATION_PIXELS:
                raise ValueError(f"{n_pixels:,} pixels in {self.n_frames} frames are too many")

    def _readable_errors(self):
        return describe_image_errors(self.path, "replace it, or make a film of it")

    def __iter__(self):
        """:raises ValueError: a frame is damaged"""
        self.durations_ms = []
        for number in range(self.n_frames):
            yield self._read_frame(number)

    def _read_frame(self, number):
        with self._readable_errors():
            self.image.seek(self.first + number)
            # Pillow enlarges the picture if a frame of a GIF file sticks out of it; viewers do not
            if self.image.width * self.image.height > MAX_PIXELS:
                raise ValueError(f"frame {number} sticks out too far")
            self.image.load()
            self.durations_ms.append(self.image.info.get("duration", 0))  # WebP: once it is loaded
            frame = self.image.convert("RGBA").crop((0, 0, *self.size))
            return on_white(ImageOps.exif_transpose(frame))

    def timing(self):
        """For the machine: what a list of the frames needs beside it. Once all were read."""
        return {"durations_ms": self.durations_ms}

    def write(self, frames, path):
        """
        Write an animated picture of the same format that is played like this one. Where successive
        frames are equal, Pillow makes one of them, with the sum of their durations.

        :param frames: iterable of as many PIL images
        :param path: the file to write; only once all frames are there
        :raises ValueError: the format cannot express such a duration
        :raises OSError: it could not be written
        """
        first, *others = list(frames)
        # Without a loop, a GIF file is played once
        loop = {"loop": self.image.info["loop"]} if "loop" in self.image.info else {}
        with written_whole(path) as unfinished:
            try:
                first.save(
                    unfinished,
                    self.image.format,
                    save_all=True,
                    append_images=others,
                    duration=self.durations_ms,
                    quality=90,  # WebP's alone
                    **loop,
                )
            # Equal frames for more than eleven minutes, in older and newer versions of Pillow
            except (struct.error, OverflowError) as error:
                raise ValueError(f"{path}: could not be written ({error})") from error


def on_white(image):
    """
    :param image: PIL image, RGBA
    :return: PIL image, RGB: the image in front of a white background
    """
    background = Image.new("RGB", image.size, "white")
    background.paste(image, mask=image.getchannel("A"))
    return background


# ------------------------------------------------------------------------------------------- films


class Film:
    """
    A film, read by OpenCV. Iterating over it gives its frames in order: PIL images in RGB. Its
    sound is not read.
    """

    ending = ".mp4"

    def __init__(self, path):
        """
        :param path: the file
        :raises ValueError: it cannot be read, its frame rate is not constant, or OpenCV is missing
        """
        self.path = path
        self.opencv = import_opencv(path)
        # FFmpeg alone: OpenCV's other readers take names with a % for patterns of many files
        self.film = self.opencv.VideoCapture(str(path), self.opencv.CAP_FFMPEG)
        if not self.film.isOpened():
            self._raise_error(error_reading(path))
        self.n_frames = max(0, int(self.film.get(self.opencv.CAP_PROP_FRAME_COUNT)))  # as it states
        self.frame_rate = self.film.get(self.opencv.CAP_PROP_FPS)
        if not 0 < self.frame_rate <= MAX_FRAME_RATE:
            self._raise_error(
                f"{path}: states {self.frame_rate:g} frames a second, as films do whose frame rate "
                "is not constant: make it constant, for example with ffmpeg -i FILM -r 25 OTHER.mp4"
            )

    def _raise_error(self, message):
        self.film.release()
        raise ValueError(message)

    def __iter__(self):
        """:raises ValueError: there is no frame"""
        number = 0
        while True:
            was_read, pixels = self.film.read()  # (height, width, 3), blue first
            if not was_read:
                break
            number += 1
            yield Image.fromarray(self.opencv.cvtColor(pixels, self.opencv.COLOR_BGR2RGB))
        self.film.release()
        if number == 0:
            raise ValueError(error_reading(self.path))

    def timing(self):
        """For the machine: what a list of the frames needs beside it."""
        return {"frames_per_second": self.frame_rate}

    def write(self, frames, path):
        """
        Write a film with the same frame rate, without sound: MPEG-4 in an MP4 file, which OpenCV
        can write everywhere. Of an odd width or height, that format loses the last pixel.

        :param frames: iterable of PIL images, all of the same size
        :param path: the file to write; only once all frames are there
        :raises OSError: it could not be written
        """
        with written_whole(path) as unfinished:
            n_frames = self._write_frames(frames, str(unfinished))
            # OpenCV does not say whether the disk is full
            written = self.opencv.VideoCapture(str(unfinished), self.opencv.CAP_FFMPEG)
            is_whole = written.get(self.opencv.CAP_PROP_FRAME_COUNT) == n_frames
            written.release()
            if not is_whole:
                raise OSError(f"{path}: could not be written: make room, or name another folder")

    def _write_frames(self, frames, path):
        """:return: how many there were"""
        writer = self.opencv.VideoWriter()
        code = self.opencv.VideoWriter_fourcc(*"mp4v")
        n_frames = 0
        for frame in frames:
            if n_frames == 0:
                writer.open(path, self.opencv.CAP_FFMPEG, code, self.frame_rate, frame.size)
            writer.write(self.opencv.cvtColor(np.asarray(frame), self.opencv.COLOR_RGB2BGR))
            n_frames += 1
        writer.release()
        return n_frames


def import_opencv(path):
    """
    :param path: the film that needs it, for the message
    :raises ValueError: OpenCV is not installed
    """
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            f"{path}: films need OpenCV: pip install opencv-python-headless"
        ) from error
    return cv2


def error_reading(path):
    """What to say about a film that OpenCV cannot read, which gives no reason."""
    if not os.path.isfile(path):
        return f"{path}: not readable as a film (no such file): replace it"
    return f"{path}: not readable as a film: replace it"
