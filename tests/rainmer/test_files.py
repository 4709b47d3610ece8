"""Files: a result is there as a whole or not at all."""

from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainmer.errors import OutputError
from rainmer.files import (
    atomic_write,
    file_sha256,
    make_folder,
    safe_file_name,
    write_bytes,
    write_text,
)


def write_and_raise(path, error):
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_make_folder_with_parents(tmp_path):
    folder = tmp_path / "a/b"
    assert make_folder(folder) == folder
    assert make_folder(str(folder)).is_dir()


def test_make_folder_where_a_file_is(tmp_path):
    (tmp_path / "a").touch()
    for name in ("a", "a/b"):
        with pytest.raises(OutputError, match="cannot create the folder"):
            make_folder(tmp_path / name)


def test_atomic_write_renames_at_the_end(tmp_path):
    target = tmp_path / "new/result.png"
    with atomic_write(target) as temporary:
        assert (temporary.parent, temporary.suffix) == (target.parent, ".png")
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert os.listdir(target.parent) == ["result.png"]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_atomic_write_keeps_the_old_file_on_errors(tmp_path, error):
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(type(error)):
        write_and_raise(target, error)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.txt"]


def test_atomic_write_says_why(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*result\.txt: No space left"):
        write_and_raise(tmp_path / "result.txt", OSError(28, "No space left on device"))
    (tmp_path / "result.txt").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*result\.txt"):
        write_text(tmp_path / "result.txt", "new")
    assert os.listdir(tmp_path) == ["result.txt"]


def test_atomic_write_without_a_file(tmp_path):
    with pytest.raises(OutputError, match="No such file"), atomic_write(tmp_path / "result.txt"):
        pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            write_text(tmp_path / "result.txt", "new")
    finally:
        tmp_path.chmod(0o700)


def test_write_replaces_the_old_file(tmp_path):
    target = tmp_path / "result.txt"
    write_text(target, "größer")
    assert target.read_bytes() == "größer".encode()
    write_bytes(target, b"\x00")
    assert target.read_bytes() == b"\x00"


def test_long_names(tmp_path):
    target = tmp_path / ("x" * 240 + ".txt")
    write_text(target, "fits")
    assert target.read_text() == "fits"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_hash_of_a_file(tmp_path, size):
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["derained-median", "blend-0.5-a b", "prenet-雨", "v1.2"])
def test_plain_names_name_their_files(name):
    assert safe_file_name(name) == name


@given(st.text(st.characters(), max_size=300))
def test_any_name_gives_a_file_name(name):
    safe = safe_file_name(name)
    assert 0 < len(safe.encode()) < 200
    assert not set(safe) & set('<>:"/\\|?*\0\n')
    assert safe.strip(". ") == safe
    assert safe.partition(".")[0].upper() not in ("CON", "NUL", "COM1")
    assert safe_file_name(f"{name}/") != safe  # they stay distinct


def test_text_that_is_no_unicode_is_escaped(tmp_path):
    write_text(tmp_path / "a.txt", "b\udcff.png")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == r"b\udcff.png"
