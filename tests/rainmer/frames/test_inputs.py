"""Which files an argument names, and what is said of those that cannot be read."""

from __future__ import annotations

import os

import pytest

from rainmer.errors import ImageError
from rainmer.frames.inputs import find_inputs, raise_failures, real_path


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.MP4", "notes.txt", "night/a.jpg", ".hidden/a.png", "night/.a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(text, out=None):
    return [found.name.as_posix() for found in find_inputs(str(text), out)]


def test_folders_files_and_globs(folder):
    assert names(folder) == ["a.MP4", "b.png", "night/a.jpg"]
    assert names(folder / "night" / "a.jpg") == ["a.jpg"]
    assert names(folder / "**" / "a.*") == ["a.MP4", "night/a.jpg"]
    assert names(folder / "n*") == ["night/a.jpg"]
    assert [one.path for one in find_inputs(str(folder / "n*"))] == [folder / "night" / "a.jpg"]


def test_results_are_left_out(folder):
    assert names(folder, folder / "night") == ["a.MP4", "b.png"]
    assert names(folder, folder) == names(folder)
    assert names(folder / "night", folder) == ["a.jpg"]


@pytest.mark.parametrize(
    "name", ["-dash.png", "with space.png", "ünïcödé 雨.png", "b[a]r{s}*?.png", "new\nline.png"]
)
def test_a_name_is_a_name_first(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for file in (name, "bar.png"):
        (tmp_path / file).touch()
    assert names(name) == [name]


def test_what_can_be_no_image_is_found_too(tmp_path):
    (tmp_path / "dangling.png").symlink_to("gone")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "empty.png").mkdir()
    (tmp_path / "frames.mp4").mkdir()
    (tmp_path / "frames.mp4" / "0.png").touch()
    expected = ["circle.png", "dangling.png", "frames.mp4/0.png"]
    assert names(tmp_path) == expected
    assert names(tmp_path, tmp_path / "out") == expected
    assert names(tmp_path / "*.png") == expected[:2]
    assert real_path(tmp_path / "circle.png").name == "circle.png"


@pytest.mark.parametrize("text", ["x" * 300, "x" * 5000 + "/*.png", "nul\0.png", "nul\0/*", ""])
def test_names_that_cannot_be(text):
    with pytest.raises(ImageError, match=r"no file or folder|holds no images"):
        find_inputs(text)


def test_linked_folders_are_searched_and_others_files_counted(folder, caplog):
    (folder / "day").mkdir()
    (folder / "day" / "linked").symlink_to(folder / "night")
    (folder / "night" / "loop").symlink_to(folder)
    expected = ["a.MP4", "b.png", "day/linked/a.jpg", "night/a.jpg"]
    assert names(folder) == expected
    assert names(folder / "**") == expected
    assert caplog.messages == [f"{folder}: 1 file skipped by its suffix: .txt 1"] * 2
    caplog.clear()
    assert names(folder / "[d-n]*") == expected[2:]
    assert names(folder, folder / "day") == ["a.MP4", "b.png", "night/a.jpg"]
    assert caplog.messages == [f"{folder}: 1 file skipped by its suffix: .txt 1"] * 2


def test_a_folder_that_cannot_be_listed_is_named(folder, caplog, monkeypatch):
    def scandir(path, original=os.scandir):
        if os.fspath(path).endswith("night"):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert names(folder) == ["a.MP4", "b.png"]
    assert f"cannot list the folder {folder}/night: Permission denied: what" in caplog.text


def test_failures_are_counted_and_the_first_named():
    raise_failures([], 3)
    with pytest.raises(ImageError, match=r"^1 of 1 file could not be read in full: a$"):
        raise_failures(["a"], 1)
    with pytest.raises(ImageError, match=r"^5 of 9 files .*: a; b; c; and 2 more$"):
        raise_failures(list("abcde"), 9)


def test_an_address_is_sent_to_the_command_that_reads_it_without_its_password():
    with pytest.raises(
        ImageError, match=r"^rtsp://\.\.\. is an address.*python -m detection"
    ) as told:
        find_inputs("rtsp://user:secret@10.0.0.7/stream1")
    assert "secret" not in str(told.value)
