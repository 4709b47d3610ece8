"""Where images lie and results go: a local path, or a bucket behind a file system of pyarrow."""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from detection.run.addresses import shown_address
from rainmer.errors import DatasetError, OutputError, RainmerError, first_line
from rainmer.extras import import_extra
from rainmer.files import write_bytes
from rainmer.folders import find_files

__all__ = ["Entry", "Place"]

_TEMPORARY = ".writing-"
_ORPHAN_AGE_S = 3600.0
_GCS_PATIENCE = "retry_limit_seconds=60"  # pyarrow's own is 15 minutes
_LOST = ("NoSuchKey", "NO_SUCH_KEY", "does not exist", "404")


class Entry(NamedTuple):
    """A file: its path below the place, with `/`, and what changes with its content."""

    path: str
    state: str = ""


class Place:
    """A file or folder, by its path or address; actors make their own of the same address.

    Args:
        address: A local path, or `s3://bucket/key`, `gs://bucket/key`, `file:///path`.

    Attributes:
        shown: The address without credentials.
        is_local: Whether it is on a file system of this machine.

    Raises:
        DatasetError: There is no such kind of address, or its service does not answer.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.shown = shown_address(address)
        self._fs: Any = None
        if address.startswith("file://"):
            address = address.removeprefix("file://")
        self.is_local = "://" not in address
        if self.is_local:
            self.root = address
            return
        fs = import_extra("pyarrow.fs", "bulk", self.shown)
        if address.startswith(("gs://", "gcs://")) and "retry_limit_seconds" not in address:
            address += ("&" if "?" in address else "?") + _GCS_PATIENCE
        with self._told(DatasetError):
            self._fs, self.root = fs.FileSystem.from_uri(address)

    def __str__(self) -> str:
        return self.shown

    @property
    def is_file(self) -> bool:
        """Whether it is a file; raises DatasetError if it is nothing or cannot be reached."""
        if self.is_local:
            if not os.path.exists(self.root):
                raise DatasetError(f"no file or folder {self.root}")
            return os.path.isfile(self.root)
        with self._told(DatasetError):
            info = self._fs.get_file_info(self.root)
            if info.type.name == "NotFound":
                raise DatasetError(f"no file or folder {self.shown}")
            return bool(info.is_file)

    def entry(self) -> Entry:
        """Return the place itself, a file, as an entry with an empty path."""
        if self.is_local:
            return Entry("", _state(Path(self.root)))
        with self._told(DatasetError):
            info = self._fs.get_file_info(self.root)
            return Entry("", f"{info.size} {info.mtime_ns}")

    def files(
        self, suffixes: Collection[str] | None, but: Place | None = None
    ) -> tuple[list[Entry], dict[str, int], list[str]]:
        """Find the visible files of the folder and its subfolders.

        Args:
            suffixes: Wanted suffixes, lower case; None: all.
            but: A folder that is left out, such as that of the results.

        Returns:
            The files, sorted by path; the others, counted by suffix; a line for each folder that
            cannot be listed.

        Raises:
            DatasetError: The folder cannot be listed.
        """
        if not self.is_local:
            return self._remote_files(suffixes, but)
        left_out = Path(but.root) if but is not None and but.is_local else None
        found = find_files(self.root, suffixes, but=left_out)
        root = Path(self.root)
        entries = [Entry(p.relative_to(root).as_posix(), _state(p)) for p in found.files]
        return entries, dict(found.skipped), found.unreadable

    def _remote_files(
        self, suffixes: Collection[str] | None, but: Place | None
    ) -> tuple[list[Entry], dict[str, int], list[str]]:
        fs = import_extra("pyarrow.fs", "bulk", self.shown)
        with self._told(DatasetError):
            infos = self._fs.get_file_info(fs.FileSelector(self.root, recursive=True))
        entries, skipped = [], dict[str, int]()
        inside = None if but is None or but.is_local else f"{but.root.rstrip('/')}/"
        for info in infos:
            path = posixpath.relpath(info.path, self.root)
            hidden = any(part.startswith(".") for part in path.split("/"))
            if not info.is_file or hidden or (inside and info.path.startswith(inside)):
                continue
            suffix = posixpath.splitext(path)[1].lower()
            if suffixes is not None and suffix not in suffixes:
                skipped[suffix] = skipped.get(suffix, 0) + 1
            else:
                entries.append(Entry(path, f"{info.size} {info.mtime_ns}"))
        return sorted(entries), skipped, []

    def open(self, path: str = "", *, seekable: bool = False) -> IO[bytes]:
        """Open a file below the place, or the place itself, for reading.

        Raises:
            FileNotFoundError, OSError: As `open` and pyarrow do; see `is_lost`.
        """
        if self.is_local:
            return open(os.path.join(self.root, path) if path else self.root, "rb")
        where = self._join(path)
        opened = self._fs.open_input_file(where) if seekable else self._fs.open_input_stream(where)
        return cast("IO[bytes]", opened)

    def is_lost(self, error: OSError) -> bool:
        """Tell whether an error of reading is about one file, not about the whole place."""
        return (
            self.is_local
            or isinstance(error, FileNotFoundError | PermissionError)
            or any(text in str(error) for text in _LOST)
        )

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file at once, under a temporary name that is then changed.

        Raises:
            OutputError: It cannot be written.
        """
        if self.is_local:
            write_bytes(os.path.join(self.root, path), content)
            return
        folder, name = posixpath.split(self._join(path))
        temporary = f"{folder}/{_TEMPORARY}{secrets.token_hex(4)}-{name}"
        with self._told(OutputError):
            self._fs.create_dir(folder, recursive=True)
            with self._fs.open_output_stream(temporary) as file:
                file.write(content)
            self._fs.move(temporary, f"{folder}/{name}")

    def read(self, path: str) -> bytes | None:
        """Return the content of a small file of the results; None: there is none.

        Raises:
            OutputError: It cannot be read.
        """
        with self._told(OutputError):
            try:
                with self.open(path) as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def remove(self, path: str) -> None:
        """Remove a file of the results, if it is there. Raises OutputError."""
        with self._told(OutputError), contextlib.suppress(FileNotFoundError):
            if self.is_local:
                os.unlink(os.path.join(self.root, path))
            else:
                self._fs.delete_file(self._join(path))

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder of the results, [] if there is none.

        What interrupted commands have left there under temporary names is removed.

        Raises:
            OutputError: The folder cannot be listed.
        """
        if self.is_local:
            where = Path(self.root, folder)
            return [path.name for path in find_files(where).files] if where.is_dir() else []
        fs = import_extra("pyarrow.fs", "bulk", self.shown)
        with self._told(OutputError):
            infos = self._fs.get_file_info(
                fs.FileSelector(self._join(folder), allow_not_found=True, recursive=False)
            )
            names = []
            for info in infos:
                if not info.base_name.startswith(_TEMPORARY):
                    names.append(info.base_name)
                elif _age_s(info.mtime) > _ORPHAN_AGE_S:
                    self._fs.delete_file(info.path)
        return names

    def make(self) -> None:
        """Create the folder. Raises OutputError where nothing can be written to it."""
        if self.is_local:
            with self._told(OutputError):
                os.makedirs(self.root, exist_ok=True)
        self.write(f"{_TEMPORARY}trial", b"")
        self.remove(f"{_TEMPORARY}trial")

    def _join(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}" if path else self.root

    @contextlib.contextmanager
    def _told(self, kind: Callable[[str], RainmerError]) -> Iterator[None]:
        """Turn what file systems raise into one line with the place's name."""
        try:
            yield
        except RainmerError:
            raise
        except (OSError, ValueError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise kind(f"{self.shown}: {reason}") from error


def _state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # a link that leads nowhere, which says so when it is read
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _age_s(modified: datetime | None) -> float:
    if modified is None:
        return 0.0
    return time.time() - modified.astimezone(timezone.utc).timestamp()
