"""A tree of folders: each is listed once, and names are found whatever their case."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rainmer.errors import DatasetError
from rainmer.files import match_key
from rainmer.folders import is_file, is_folder, list_folder, subfolders
from rainmer.frames.images import IMAGE_SUFFIXES, find_images

__all__ = ["Tree", "natural_key", "subfolder"]


def subfolder(folder: Path, *names: str) -> Path | None:
    """Return the first visible subfolder with one of these names; case does not matter."""
    by_name = {path.name.casefold(): path for path in subfolders(folder)}
    return next((by_name[name.casefold()] for name in names if name.casefold() in by_name), None)


class _Listing(NamedTuple):
    """A folder's content in natural order."""

    folders: dict[str, Path]
    images: dict[str, Path]
    folded: dict[str, list[Path]]
    """Folders and images by the case-folded name."""

    skipped: Counter[str]
    """How many other files there are, by suffix."""


class Tree:
    """Finds files below a root by names and globs with forward slashes.

    Copies of a set differ in the case of names, so a name without an exact match is looked up
    regardless of case. Hidden files and files other than images are ignored. Each folder is listed
    once: later changes go unnoticed.

    Args:
        root: The folder; it exists.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[Path, _Listing] = {}
        self._keys: dict[Path, dict[str, list[Path]]] = {}
        self._skipped: dict[Path, Counter[str]] = {}

    @property
    def skipped(self) -> Counter[str]:
        """How many files beside the images that `match` looked at are no images, by suffix."""
        return sum(self._skipped.values(), Counter[str]())

    def name(self, path: Path) -> str:
        """Return a path below the root, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def folder(self, name: str) -> Path | None:
        """Return the folder of a name, if there is one; "" is the root."""
        folder: Path | None = self.root
        for part in PurePosixPath(name).parts:
            folder = None if folder is None else self._child(folder, part)
        return folder

    def image(self, name: str) -> Path | None:
        """Return the image of a name, if there is one."""
        path = PurePosixPath(name)
        folder = self.folder(path.parent.as_posix())
        if folder is None:
            return None
        listing = self._listing(folder)
        images = [p for p in _folded(listing, path.name) if p.name in listing.images]
        return listing.images.get(path.name) or (images[0] if len(images) == 1 else None)

    def match(self, pattern: str) -> list[Path]:
        """Return the images of a glob, in natural order.

        A folder in it is a name, or `*` for any. The last part is a pattern of file names, in which
        the case of the suffix does not count, or `**` for all images of the folder and its
        subfolders.
        """
        *parts, last = pattern.split("/")
        folders = [self.root]
        for part in parts:
            folders = [inner for folder in folders for inner in self._children(folder, part)]
        if last == "**":
            paths = (path for folder in folders for path in self._images_below(folder))
            return sorted(paths, key=lambda path: natural_key(self.name(path)))
        self._skipped |= {folder: self._listing(folder).skipped for folder in folders}
        images = (self._listing(folder).images for folder in folders)
        return [p for inner in images for name, p in inner.items() if _fits(name, last)]

    def with_stem(self, folder: str, name: str) -> Path | None:
        """Return the image whose path in a folder equals `name` up to suffix and case.

        Raises:
            DatasetError: There are two such images.
        """
        base = self.folder(folder)
        if base is None:
            return None
        if base not in self._keys:
            by_key = self._keys.setdefault(base, {})
            for path in self._images_below(base):
                by_key.setdefault(match_key(path.relative_to(base)), []).append(path)
        paths = self._keys[base].get(match_key(name), [])
        if len(paths) > 1:
            raise DatasetError(
                f"{paths[0]} and {paths[1]} may both belong to one rainy image: remove one"
            )
        return paths[0] if paths else None

    def _images_below(self, folder: Path) -> list[Path]:
        found = find_images(folder)
        if found.unreadable:
            raise DatasetError(found.unreadable[0])
        self._skipped[folder] = found.skipped
        return found.files

    def _children(self, folder: Path, name: str) -> list[Path]:
        if name == "*":
            return list(self._listing(folder).folders.values())
        child = self._child(folder, name)
        return [] if child is None else [child]

    def _child(self, folder: Path, name: str) -> Path | None:
        listing = self._listing(folder)
        folders = [p for p in _folded(listing, name) if p.name in listing.folders]
        return listing.folders.get(name) or (folders[0] if len(folders) == 1 else None)

    def _listing(self, folder: Path) -> _Listing:
        if folder not in self._listings:
            self._listings[folder] = _list(folder)
        return self._listings[folder]


def _folded(listing: _Listing, name: str) -> list[Path]:
    return listing.folded.get(name.casefold(), [])


def _list(folder: Path) -> _Listing:
    listing = _Listing({}, {}, {}, Counter())
    for entry in sorted(list_folder(folder), key=lambda entry: natural_key(entry.name)):
        path = folder / entry.name
        if is_folder(entry):
            listing.folders[entry.name] = path
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            listing.skipped[path.suffix.lower()] += 1
            continue
        elif is_file(entry):
            listing.images[entry.name] = path
        else:
            listing.skipped[f"{path.suffix.lower()} (a link that leads nowhere)"] += 1
            continue
        listing.folded.setdefault(entry.name.casefold(), []).append(path)
    return listing


def _fits(name: str, pattern: str) -> bool:
    stem, suffix = os.path.splitext(name)
    return fnmatch.fnmatchcase(stem + suffix.lower(), pattern)


def natural_key(name: str) -> tuple[str, str]:
    """Return a sort key for natural order: folder by folder, 2 before 10.

    Example:
        >>> sorted(["b/1.png", "a/10.png", "a/2.png", "a/02.png"], key=natural_key)
        ['a/02.png', 'a/2.png', 'a/10.png', 'b/1.png']
    """
    # Files inside a folder sort before names that merely begin with the folder's name.
    parted = name.casefold().replace("/", "\0")
    return re.sub("[0-9]+", _with_length, parted), name


def _with_length(number: re.Match[str]) -> str:
    """Prefix a number with its number of digits, so that it sorts numerically as text."""
    digits = number[0].lstrip("0")
    return f"{len(digits):03d}{digits}"
