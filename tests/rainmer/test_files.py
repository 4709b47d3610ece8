"""Files: a result is there as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainmer.errors import OutputError
from rainmer.files import (
    _remove_orphans,
    atomic_write,
    file_sha256,
    make_folder,
    safe_file_name,
    write_bytes,
    write_text,
)

REPOSITORY = Path(__file__).resolve().parents[2]


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


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def write_privately(path):
    """Write as safetensors does: to a private file that is renamed."""
    with atomic_write(path) as temporary:
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        os.close(descriptor)
        os.replace(name, temporary)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_umask_decides_who_may_read(tmp_path, umask):
    for number, write in enumerate([write_privately, lambda path: write_text(path, "x")]):
        path = tmp_path / f"{number}.txt"
        write(path)
        assert mode(path) == 0o666 & ~umask
        path.chmod(0o640)
        write(path)
        assert mode(path) == 0o640
    write_text(tmp_path / "new/a.txt", "x")
    assert mode(tmp_path / "new") == 0o777 & ~umask
    assert sorted(os.listdir(tmp_path)) == ["0.txt", "1.txt", "new"]


@pytest.mark.parametrize("there", [True, False])
def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path, there):
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk/real.txt", tmp_path / "link.txt"
    if there:
        real.write_text("old")
    link.symlink_to("disk/real.txt")
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert os.listdir(tmp_path / "disk") == ["real.txt"]


def test_devices_and_pipes_are_written_to_as_they_are(tmp_path):
    write_text("/dev/null", "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_text(tmp_path / "pipe", "through")
    reader.join()
    assert read == [b"through"]
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


WRITER = """
import sys, time
from rainmer.files import atomic_write, write_text
write_text(sys.argv[1] + "/first.txt", "x")
with atomic_write(sys.argv[1] + "/clip.avi") as temporary:
    temporary.write_bytes(b"half")
    print(temporary, flush=True)
    time.sleep(60)
"""


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        left = Path(process.stdout.readline().strip())
        process.kill()
    old = tmp_path / ".long ago.b-00000000-ffffffff-abcd"
    others = [".hidden", ".a-12345678.txt", "clip-00000000-1-0000.avi", ".-x-1-0000.avi"]
    for name in (old.name, *others):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    recent = tmp_path / ".clip-00000000-1-0000.avi"  # of another machine
    recent.touch()
    assert left.exists()
    with atomic_write(tmp_path / "clip.avi") as temporary:
        temporary.write_bytes(b"whole")
        _remove_orphans.cache_clear()
        write_text(tmp_path / "clip.avi", "of a second writer")
        assert temporary.exists()
    assert (tmp_path / "clip.avi").read_bytes() == b"whole"
    assert set(os.listdir(tmp_path)) == {*others, recent.name, "clip.avi", "first.txt"}


def test_names_of_temporary_files_fit_for_any_name(tmp_path):
    for name in (
        "ü" * 125 + ".txt",
        "x" * 250,
        "." + "y" * 240,
        b"\xff\xfe.png".decode(errors="surrogateescape"),
    ):
        write_text(tmp_path / name, "fits")
        assert (tmp_path / name).read_text() == "fits"
    assert len(os.listdir(tmp_path)) == 4


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
