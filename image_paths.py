"""
The files that a command line names, be it by folders or patterns, and the names of the outputs that
are made of them.
"""

import glob
import itertools
import os
from pathlib import Path

from PIL import Image

from annotations import printable
from datasets import IMAGE_FORMATS
from films import FILM_ENDINGS, is_film
from runtime import count


def find_files(arguments, output_folder):
    """
    Find the files that the arguments stand for, and print how many there are in each folder.

    :param arguments: files, folders and patterns, as a shell expands them (on Windows, it does not)
    :param output_folder: is left out where it lies in one of the folders
    :return: list of paths, each once; whether they can be read is seen later
    :raises FileNotFoundError: none of them exists
    :raises ValueError: there is none
    """
    paths = []
    for argument in itertools.chain.from_iterable(map(expand_pattern, map(str, arguments))):
        if not os.path.isdir(argument):
            paths.append(argument)
            continue
        in_folder = find_in_folder(argument, output_folder)
        n_films = sum(map(is_film, in_folder))
        n_images = len(in_folder) - n_films
        print(
            f"{printable(argument)}: {count(n_images, 'image')} and {count(n_films, 'film')}, "
            "subfolders included"
        )
        paths += in_folder
    if not paths:
        raise ValueError(
            f"{', '.join(map(str, arguments))}: no images or films there: name another folder"
        )
    if not any(map(os.path.exists, paths)):
        raise FileNotFoundError(f"{paths[0]}: no such image")
    return list(dict.fromkeys(paths))


def expand_pattern(argument):
    """
    :param argument: a file, a folder, or a pattern with *, ? or [...]; ** is for subfolders
    :return: list of paths: what fits the pattern, or as in a shell the argument itself if nothing
        does; a file that really has such a name comes first
    """
    if os.path.exists(argument):
        return [argument]
    return sorted(glob.glob(argument, recursive=True)) or [argument]


def find_in_folder(folder, output_folder):
    """
    :return: list of the images and films in a folder and its subfolders, in alphabetical order,
        judged by the endings of their names. Hidden files and folders are left out, and outputs
    """
    known_endings = Image.registered_extensions()  # {".jpg": "JPEG", ...}
    endings = {ending for ending, name in known_endings.items() if name in IMAGE_FORMATS}
    endings |= FILM_ENDINGS
    paths = []
    for parent, folders, names in os.walk(folder):
        # os.walk goes on with the folders that are left in the list
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and Path(parent, name).resolve() != output_folder.resolve()
        ]
        paths += [
            os.path.join(parent, name)
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in endings
        ]
    return paths


def choose_output_paths(paths, output_folder):
    """
    Choose a name for each output: that of its image, with a number if another one has it already,
    whatever its ending.

    :param paths: image files; a repeated one counts once
    :param output_folder: where the outputs go
    :return: {path of the image: path of its output}; no output replaces another one, nor an image.
        All end in .png; of films and animated pictures the ending changes
    """
    folder = output_folder.resolve()
    # In lower case, since for some systems "A.png" and "a.png" are the same file
    taken = set()
    for path in map(Path, paths):
        for place in (path.parent.resolve() / path.name, path.resolve()):  # a link, and its target
            if place.parent == folder:
                taken.add(place.stem.lower())
    output_paths = {}
    for path in dict.fromkeys(paths):
        stem = f"{Path(path).stem}_detections"
        number = 2
        while stem.lower() in taken:
            stem = f"{Path(path).stem}_{number}_detections"
            number += 1
        taken.add(stem.lower())
        output_paths[path] = output_folder / f"{stem}.png"
    return output_paths
