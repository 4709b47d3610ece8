"""Folders: links are followed but not in circles, and nothing is left out without a word."""

from __future__ import annotations

import glob
import os
from collections import Counter

import pytest

from rainmer.errors import DatasetError
from rainmer.folders import (
    find_files,
    find_matches,
    folders_below,
    list_files,
    skipped_line,
    subfolders,
)


@pytest.fixture
def linked(tmp_path):
    """A folder with a linked one, a link in a circle, and what else folders hold."""
    for name in ("else/a.png", "wet/b.png", "wet/notes.TXT", "wet/.hidden/c.png", "wet/._b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "wet" / "night").mkdir()
    (tmp_path / "wet" / "day").symlink_to(tmp_path / "else")
    (tmp_path / "wet" / "loop").symlink_to(tmp_path / "wet")
    (tmp_path / "wet" / "night" / "up").symlink_to("..")
    (tmp_path / "wet" / "gone.png").symlink_to("nowhere.png")
    return tmp_path / "wet"


def below(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_links_are_followed_once(linked):
    found = find_files(linked, {".png"})
    assert below(found.files, linked) == ["b.png", "day/a.png", "gone.png"]
    assert (found.skipped, found.unreadable) == (Counter({".txt": 1}), [])
    assert below(list_files(linked), linked) == ["b.png", "day/a.png", "gone.png", "notes.TXT"]
    assert below(folders_below(linked), linked) == [".", "day", "night"]
    assert below(subfolders(linked), linked) == ["day", "loop", "night"]
    assert below(list_files(linked / "loop", {".png"}), linked) == [
        "loop/b.png",
        "loop/day/a.png",
        "loop/gone.png",
    ]


def test_two_links_to_one_folder_are_two_folders(linked):
    (linked / "dusk").symlink_to(linked / "day")
    assert {"day/a.png", "dusk/a.png"} < set(below(list_files(linked), linked))


def test_a_folder_of_results_is_not_entered(linked):
    found = find_files(linked, {".png"}, but=linked / "day")
    assert below(found.files, linked) == ["b.png", "gone.png"]
    assert below(find_files(linked, {".png"}, but=linked).files, linked)[0] == "b.png"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**", [".", "day", "night"]),
        ("**/*.png", ["b.png", "day/a.png", "gone.png"]),
        ("*/*.png", ["day/a.png", "loop/b.png", "loop/gone.png"]),
        ("day/*", ["day/a.png"]),
        ("[dl]*/", ["day", "loop"]),
        ("n*/**", ["night"]),
        ("[bc].p?g", ["b.png"]),
    ],
)
def test_globs_follow_links_once(linked, pattern, expected):
    assert below(find_matches(f"{linked}/{pattern}"), linked) == expected


@pytest.mark.parametrize("pattern", ["*.png", "**/*.png", "*/b*", "[[]x]/*", "?/**/c.*", "none/*"])
def test_globs_match_as_those_of_python(tmp_path, monkeypatch, pattern):
    for name in ("a.png", "b/b.png", "b/c/c.png", "b/c/c.jpg", "[x]/b.png", "d/.e/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in find_matches(pattern)] == sorted(
        glob.glob(pattern, recursive=True)
    )


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"new\nline.png", "長頸鹿.png".encode()])
def test_any_name_survives(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), b"in\nner", name)
    os.mkdir(os.path.dirname(path))
    with open(path, "wb"):
        assert [os.fsencode(file) for file in list_files(tmp_path)] == [path]


def test_what_cannot_be_listed_is_named(linked, monkeypatch):
    def scandir(path, original=os.scandir):
        if os.fspath(path).endswith("night"):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_files(linked, {".png"})
    assert found.unreadable == [f"cannot list the folder {linked}/night: Permission denied"]
    assert len(found.files) == 3
    for function in (list_files, folders_below):
        with pytest.raises(DatasetError, match=r"wet/night: Permission denied"):
            function(linked)
    with pytest.raises(DatasetError, match="No such file"):
        list_files(linked / "none")


def test_what_is_no_file_is_counted(tmp_path):
    os.mkfifo(tmp_path / "camera.png")
    found = find_files(tmp_path, {".png"})
    assert (found.files, found.skipped.total()) == ([], 1)
    assert "socket" in skipped_line(found.skipped)


def test_the_line_of_what_was_skipped():
    assert skipped_line(Counter({"": 1})) == "1 file skipped by its suffix: (none) 1"
    many = skipped_line(Counter({f".{i}": 1 for i in range(9)}))
    assert many.endswith(".5 1, 3 more")
