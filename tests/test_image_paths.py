"""image_paths.py: folders, patterns and the names of outputs."""

import shutil
from pathlib import Path

from image_paths import choose_output_paths, find_files


def test_a_folder_gives_its_images_and_films_and_those_of_subfolders(photo_folder, capsys):
    Path("photos/2024/.cache").mkdir(parents=True)
    names = ("2024/c.TIFF", "2024/d.webm", "2024/.cache/e.jpg", "._a.jpg", "notes.txt", "jpg")
    for name in names:
        (photo_folder / "photos" / name).touch()
    assert find_files(["photos"], photo_folder / "out") == [
        str(Path("photos/a.jpg")),
        str(Path("photos/b.png")),
        str(Path("photos/2024/c.TIFF")),
        str(Path("photos/2024/d.webm")),
    ]
    assert capsys.readouterr().out == "photos: 3 images and 1 film, subfolders included\n"


def test_a_pattern_is_expanded_as_a_shell_does(photo_folder):
    Path("photos/sub").mkdir()
    shutil.copy("photos/a.jpg", "photos/sub/c.jpg")
    output_folder = Path("out")
    assert find_files(["photos/*.jpg"], output_folder) == ["photos/a.jpg"]
    assert find_files(["photos/?.*", "photos/a.jpg"], output_folder) == [
        "photos/a.jpg",
        "photos/b.png",
    ]
    assert find_files(["photos/**/*.jpg"], output_folder) == ["photos/a.jpg", "photos/sub/c.jpg"]
    # What fits nothing stays as it is, and is named as unreadable later
    assert find_files(["photos/a.jpg", "*.bmp"], output_folder) == ["photos/a.jpg", "*.bmp"]


def test_a_file_whose_name_looks_like_a_pattern_comes_first(photo_folder):
    Path("photos/[ab].jpg").touch()
    assert find_files(["photos/[ab].jpg"], Path("out")) == ["photos/[ab].jpg"]
    Path("photos/[ab].jpg").unlink()
    assert find_files(["photos/[ab].jpg"], Path("out")) == ["photos/a.jpg"]


def test_outputs_with_other_endings_do_not_meet(photo_folder):
    Path("out").mkdir()
    Path("link.png").symlink_to("out/c_detections.png")
    paths = ["a.gif", "a.jpg", "x/a.mp4", "c.jpg", "link.png"]
    output_paths = choose_output_paths(paths, Path("out"))
    assert [path.name for path in output_paths.values()] == [
        "a_detections.png",
        "a_2_detections.png",
        "a_3_detections.png",
        "c_2_detections.png",  # else it would replace what the link stands for
        "link_detections.png",
    ]


def test_output_names_never_collide():
    paths = ["a_3.jpg", "x/a.jpg", "y/a.jpg", "z/a.png", "a_2.jpg", "y/A.jpg"]
    output_paths = choose_output_paths(paths, Path("out"))
    assert list(output_paths) == paths
    assert [path.name for path in output_paths.values()] == [
        "a_3_detections.png",
        "a_detections.png",
        "a_2_detections.png",
        "a_4_detections.png",
        "a_2_2_detections.png",
        "A_5_detections.png",
    ]


def test_an_output_never_replaces_an_image_that_is_still_to_be_read(tmp_path):
    paths = [str(tmp_path / "a.png"), str(tmp_path / "a_detections.png")]
    output_paths = choose_output_paths(paths, tmp_path)
    assert [path.name for path in output_paths.values()] == [
        "a_2_detections.png",
        "a_detections_detections.png",
    ]
