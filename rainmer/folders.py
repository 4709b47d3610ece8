"""Folders: the one place that lists them.

Links to folders are followed, except into a folder that one is already inside of. Hidden files and
folders are left out. What cannot be listed is named. A file that two links lead to has two paths
and is found under both: scenes may share a folder of clean images.
"""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rainmer.errors import DatasetError

__all__ = [
    "Found",
    "find_files",
    "find_matches",
    "folders_below",
    "has_magic",
    "is_file",
    "is_folder",
    "list_files",
    "list_folder",
    "skipped_line",
    "subfolders",
]

_KINDS_NAMED = 6

_logger = logging.getLogger(__name__)


@dataclass
class Found:
    """What a search of a folder found.

    Attributes:
        files: Files with one of the wanted suffixes, sorted by path. A link that leads nowhere is
            among them: whoever opens it says so, with its name.
        skipped: How many other files there are, by suffix (lower case; "" for none).
        unreadable: A line for each folder that cannot be listed.
    """

    files: list[Path] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


def find_files(
    root: str | os.PathLike[str],
    suffixes: Collection[str] | None = None,
    *,
    but: Path | None = None,
    within: Path | None = None,
) -> Found:
    """Find the visible files of a folder and its subfolders.

    Args:
        root: The folder.
        suffixes: Wanted suffixes, lower case; None: all.
        but: A subfolder that is not entered, such as that of the results.
        within: A folder around `root` where the search began; links back to it are not followed.
    """
    found = Found()
    for folder in _walk(Path(root), found.unreadable.append, but=but, within=within):
        for entry in folder.files:
            path = folder.path / entry.name
            suffix = path.suffix.lower()
            if suffixes is not None and suffix not in suffixes:
                found.skipped[suffix] += 1
            elif is_file(entry) or not os.path.exists(path):
                found.files.append(path)
            else:
                found.skipped[f"{suffix} (a pipe, socket or device)"] += 1
    found.files.sort()
    return found


def list_files(root: str | os.PathLike[str], suffixes: Collection[str] | None = None) -> list[Path]:
    """Return the visible files of a folder and its subfolders as `find_files` does.

    Args:
        root: The folder.
        suffixes: Wanted suffixes, lower case; None: all.

    Raises:
        DatasetError: The folder or a subfolder cannot be listed.
    """
    found = find_files(root, suffixes)
    if found.unreadable:
        raise DatasetError(found.unreadable[0])
    return found.files


def list_folder(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Return the visible entries of one folder, sorted by name.

    Raises:
        DatasetError: The folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            # macOS leaves hidden companions such as `._1.png` beside images.
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DatasetError(f"cannot list the folder {folder}: {error.strerror}") from error
    return sorted(visible, key=lambda entry: entry.name)


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, links to folders too, sorted; [] if it is none.

    Raises:
        DatasetError: The folder cannot be listed.
    """
    if not folder.is_dir():
        return []
    return [folder / entry.name for entry in list_folder(folder) if is_folder(entry)]


def folders_below(root: Path) -> list[Path]:
    """Return a folder and its visible subfolders at any depth, sorted by path.

    Raises:
        DatasetError: One of them cannot be listed.
    """
    unreadable: list[str] = []
    folders = sorted(folder.path for folder in _walk(root, unreadable.append))
    if unreadable:
        raise DatasetError(unreadable[0])
    return folders


def has_magic(text: str) -> bool:
    """Tell whether a text is a glob.

    >>> has_magic("shots/**/*.jpg"), has_magic("shots/a.jpg")
    (True, False)
    """
    return glob.has_magic(text)


def find_matches(pattern: str) -> list[Path]:
    """Return the files and folders that a glob matches, sorted by path.

    `*`, `?` and `[...]` stand for characters of one name, `**` for a folder and its subfolders at
    any depth. Hidden names match only where the glob spells them out. A folder that cannot be
    listed is logged.
    """
    parts = Path(pattern).parts
    fixed = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts))
    root = Path(*parts[:fixed])
    level = [root]
    for part in parts[fixed:]:
        matches = (path for folder in level for path in _matching(folder, part, root))
        level = list(dict.fromkeys(matches))
    return sorted(level)


def skipped_line(skipped: Counter[str]) -> str:
    """Say how many files were skipped by their suffix.

    >>> skipped_line(Counter({".txt": 10, ".cr2": 2}))
    '12 files skipped by their suffix: .txt 10, .cr2 2'
    """
    kinds = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{suffix or '(none)'} {count}" for suffix, count in kinds[:_KINDS_NAMED]]
    if len(kinds) > _KINDS_NAMED:
        named.append(f"{len(kinds) - _KINDS_NAMED} more")
    total = skipped.total()
    files, their = ("file", "its") if total == 1 else ("files", "their")
    return f"{total} {files} skipped by {their} suffix: {', '.join(named)}"


@dataclass
class _Folder:
    """A folder and its entries that are no folders."""

    path: Path
    files: list[os.DirEntry[str]]


def _walk(
    root: Path,
    report: Callable[[str], None],
    *,
    but: Path | None = None,
    within: Path | None = None,
) -> Iterator[_Folder]:
    """Yield a folder and those below it, the entries sorted by name.

    Args:
        root: The folder.
        report: Called with a line for each folder that cannot be listed.
        but: A subfolder that is not entered.
        within: See `find_files`.
    """
    around = [] if within is None else [p for p in root.parents if p.is_relative_to(within)]
    left_out = None if but is None else _identity(but)
    waiting = [(root, frozenset(map(_identity, around)))]
    while waiting:
        path, above = waiting.pop()
        identity = _identity(path)
        if identity is not None and (identity in above or (identity == left_out and path != root)):
            continue
        try:
            entries = list_folder(path)
        except DatasetError as error:
            report(str(error))
            continue
        inner: list[os.DirEntry[str]] = []
        files: list[os.DirEntry[str]] = []
        for entry in entries:
            (inner if is_folder(entry) else files).append(entry)
        yield _Folder(path, files)
        waiting += [(path / entry.name, above | {identity}) for entry in reversed(inner)]


def _matching(folder: Path, part: str, root: Path) -> Iterable[Path]:
    if part == "**" and os.path.isdir(folder):
        return [inner.path for inner in _walk(folder, _logger.warning, within=root)]
    if not has_magic(part):
        return [folder / part] if os.path.lexists(folder / part) else []
    try:
        entries = list_folder(folder) if os.path.isdir(folder) else []
    except DatasetError as error:
        _logger.warning("%s", error)
        return []
    return [folder / entry.name for entry in entries if fnmatch.fnmatchcase(entry.name, part)]


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return device and inode of a folder, by which links to it are recognised."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder or leads to one."""
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a regular file or leads to one."""
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False
