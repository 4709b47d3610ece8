"""Files: atomic writing, JSON lines, hashes, matching of names."""

from __future__ import annotations

import contextlib
import csv
import fnmatch
import functools
import hashlib
import io
import json
import os
import platform
import re
import secrets
import stat
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs

from rainmer.errors import OutputError

__all__ = [
    "append_line",
    "atomic_write",
    "default_cache_folder",
    "file_sha256",
    "fits_pattern",
    "make_folder",
    "match_key",
    "read_lines",
    "safe_file_name",
    "write_bytes",
    "write_csv",
    "write_text",
]

_LONGEST_SAFE_NAME = 160
"""Of `safe_file_name` in bytes; file systems take 255, and names get prefixes and suffixes."""
_LONGEST_NAME = 255  # bytes, of nearly all file systems
_PRIVATE = 0o600
_ORPHAN_AGE_S = 3600.0
_TEMPORARY = re.compile(r"^\..*-(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9a-f]+)-[0-9a-f]{4}(\.[^.]*)?$")
"""Names of `atomic_write`: hidden, with machine, process and four random digits."""


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder with its parents and return it.

    Raises:
        OutputError: The folder cannot be created, or a file has its name.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {folder}: {error.strerror}") from error
    return folder


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside `path`, and rename it to `path` if the block succeeds.

    The temporary name has the suffix of `path`, by which encoders choose the format. If the block
    raises, the temporary file is removed and an existing `path` is left as it was. Where `path` is
    a link, the file that it leads to is replaced; a device or a pipe is written to as it is. The
    file gets the permissions of the one it replaces, or those that a new file has.

    What killed processes have left in the folder is removed at the first write into it.

    Raises:
        OutputError: The file cannot be written, with the reason (permission, disk space, ...).
    """
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    if os.path.exists(target) and not (os.path.isfile(target) or os.path.isdir(target)):
        yield target
        return
    make_folder(target.parent)
    _remove_orphans(target.parent.absolute())
    temporary = _temporary_name(target)
    try:
        yield temporary
        _set_permissions(temporary, target)
        temporary.replace(target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _temporary_name(target: Path) -> Path:
    """Return a hidden name beside a file that tells which process writes it, see `_TEMPORARY`."""
    token = f"{_machine()}-{os.getpid():x}-{secrets.token_hex(2)}"
    room = _LONGEST_NAME - len(os.fsencode(f".-{token}{target.suffix}"))
    stem = os.fsencode(target.stem)[:room].decode(errors="ignore")
    return target.with_name(f".{stem}-{token}{target.suffix}")


def _set_permissions(temporary: Path, target: Path) -> None:
    """Give a new file the permissions of the one it replaces, or those that the umask leaves."""
    mode = stat.S_IMODE(temporary.stat().st_mode)
    if target.is_file():
        wanted = stat.S_IMODE(target.stat().st_mode)
    elif mode == _PRIVATE:  # some writers make a private file and rename it
        probe = _temporary_name(target)
        probe.touch(exist_ok=False)
        wanted = stat.S_IMODE(probe.stat().st_mode)
        probe.unlink()
    else:
        wanted = mode
    if wanted != mode:
        with contextlib.suppress(OSError):  # some file systems have no permissions
            temporary.chmod(wanted)


@functools.cache
def _remove_orphans(folder: Path) -> None:
    """Remove the temporary files in a folder whose process is gone, once in a process.

    A process of another machine cannot be seen: its files are left until they are an hour old.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _TEMPORARY.search(entry.name)
            if found and not _in_use(entry, found["machine"], int(found["pid"], 16)):
                with contextlib.suppress(OSError):
                    os.unlink(entry)


def _in_use(entry: os.DirEntry[str], machine: str, pid: int) -> bool:
    if machine == _machine() and os.name == "posix":
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:  # of another user
            return True
        return True
    return time.time() - entry.stat(follow_symlinks=False).st_mtime < _ORPHAN_AGE_S


@functools.cache
def _machine() -> str:
    """Return eight digits for the machine since its start, or the container: where a pid counts."""
    facts = [platform.node()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        facts.append(os.readlink("/proc/self/ns/pid"))
    return f"{zlib.crc32(' '.join(facts).encode()):08x}"


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a whole file at once, or leave the old one. Raises OutputError."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    r"""Write a whole UTF-8 text file at once, or leave the old one. Raises OutputError.

    Bytes of file names that are not text are written as escapes such as `\udcff`.
    """
    write_bytes(path, content.encode(errors="backslashreplace"))


def append_line(path: Path, *records: object) -> None:
    """Append records to a file of JSON lines, in one write.

    Raises:
        OutputError: The file cannot be written.
    """
    make_folder(path.parent)
    text = "".join(json.dumps(record) + "\n" for record in records)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the mappings in a file of JSON lines.

    Lines that are damaged, for instance cut by an interruption, are skipped.
    """
    records = []
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fits_pattern(path: str | os.PathLike[str], pattern: str) -> bool:
    """Return whether a path, or its last part alone, matches a shell pattern.

    Example:
        >>> fits_pattern("night/a.png", "night/*"), fits_pattern("night/a.png", "a.*")
        (True, True)
    """
    name = PurePosixPath(path)
    return fnmatch.fnmatch(name.as_posix(), pattern) or fnmatch.fnmatch(name.name, pattern)


def match_key(path: str | os.PathLike[str]) -> str:
    """Return the key by which files of one scene match: relative path, no suffix, case folded.

    Example:
        >>> match_key("Day/01.PNG") == match_key("day/01.jpg")
        True
    """
    posix = PurePosixPath(os.fspath(path).replace("\\", "/"))
    return str(posix.with_suffix("")).casefold()


def safe_file_name(name: str) -> str:
    """Turn any name into one that a file or folder can have on every system.

    Plain names stay as they are; others get a digest, so that they stay distinct.

    >>> safe_file_name("prenet-雨"), safe_file_name("a/b:c")
    ('prenet-雨', 'a-b-c-3b07f8')
    """
    safe = re.sub(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]+', "-", name).strip(". ")
    if re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", safe, re.IGNORECASE):
        safe = f"-{safe}"
    safe = safe.encode()[:_LONGEST_SAFE_NAME].decode(errors="ignore")
    if name and safe == name:
        return name
    return f"{safe}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:6]}"


def default_cache_folder() -> Path:
    """Return the user's cache folder for derained frames.

    On Linux that is `~/.cache/rainmer/derained`, or in `XDG_CACHE_HOME` if it is set.
    """
    return platformdirs.user_cache_path("rainmer", appauthor=False) / "derained"


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV, all or nothing."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # File names need not be valid text.
    write_bytes(path, text.getvalue().encode(errors="surrogateescape"))
