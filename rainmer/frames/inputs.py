"""The images and videos that a command's arguments name, and the errors for unreadable ones."""

from __future__ import annotations

import glob
import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from rainmer.errors import DatasetError, ImageError
from rainmer.frames.images import IMAGE_SUFFIXES
from rainmer.frames.video import VIDEO_SUFFIXES

__all__ = ["Input", "find_inputs", "printable", "raise_failures", "raise_skipped", "real_path"]

_FAILURES_NAMED = 3


@dataclass(frozen=True)
class Input:
    """An image or a video by its suffix.

    Attributes:
        path: Where it is. It is not opened here: a link that leads nowhere fails when it is read.
        name: Its path below the folder, or below the fixed part of the glob, that matched it.
    """

    path: Path
    name: Path


def find_inputs(text: str, out: Path | None = None) -> list[Input]:
    """Find the images and videos that one argument names.

    A folder is searched with its subfolders. Hidden files and files inside `out` are left out.

    Args:
        text: A file, a folder or a glob; an existing name wins over a glob.
        out: Folder of the results, if there is one.

    Returns:
        The inputs, sorted by path.

    Raises:
        ImageError: The argument does not exist, or holds no image and no video.
    """
    # os.path, because pathlib raises for names that are too long or hold a NUL.
    path = Path(text)
    if os.path.isdir(text):
        inputs = _inputs_below(path, path, out)
    elif os.path.exists(text):
        if not _is_known(path):
            raise ImageError(f"{path} is neither an image nor a video by its suffix")
        inputs = [Input(path, Path(path.name))]
    elif glob.has_magic(text) and "\0" not in text:
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        inputs = [item for match in matches for item in _inputs_below(match, root, out)]
    else:
        raise ImageError(f"no file or folder {text}")
    if not inputs:
        raise ImageError(f"{text} holds no images and no videos")
    return inputs


def raise_failures(failures: Sequence[str], total: int, unit: str = "file") -> None:
    """Raise ImageError if any of `total` inputs could not be read, naming the first of them.

    Args:
        failures: One line for each such input.
        total: Number of inputs, read or not.
        unit: What they are, in the singular.
    """
    if not failures:
        return
    named = "; ".join(failures[:_FAILURES_NAMED])
    more = len(failures) - _FAILURES_NAMED
    raise ImageError(
        f"{len(failures)} of {total} {unit}{'s' * (total != 1)} could not be read in "
        f"full: {named}" + (f"; and {more} more" if more > 0 else "")
    )


def real_path(path: Path) -> Path:
    """Return the absolute path, links followed; circular links are no error, unlike in pathlib."""
    return Path(os.path.realpath(path))


def _inputs_below(path: Path, root: Path, out: Path | None) -> list[Input]:
    """Return the inputs of a folder, or of one file, with their paths below `root`."""
    inputs = []
    results = None if out is None else real_path(out)
    results_inside = results is not None and real_path(root) in results.parents
    for file in sorted({path, *path.rglob("*")} - {root}) if path.is_dir() else [path]:
        name = file.relative_to(root)
        left_out = any(part.startswith(".") for part in name.parts) or (
            results_inside and results in real_path(file).parents
        )
        if not left_out and _is_known(file):
            inputs.append(Input(file, name))
    # A folder may be named like an image: if it holds inputs, it was searched as a folder.
    searched = {parent for item in inputs for parent in item.path.parents}
    return [item for item in inputs if item.path not in searched]


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def printable(text: str) -> str:
    """Return text that every terminal can print: file names may hold bytes that are not text."""
    return text.encode(errors="backslashreplace").decode()


def raise_skipped(skipped: Sequence[str], total: int) -> None:
    """Raise DatasetError if images were skipped, naming the first; the others go to stderr.

    Args:
        skipped: One line for each skipped image.
        total: Number of images, skipped or not.
    """
    if not skipped:
        return
    for line in skipped[_FAILURES_NAMED:]:
        tqdm.write(printable(f"skipped: {line}"), file=sys.stderr)
    named = "; ".join(skipped[:_FAILURES_NAMED])
    count = len(skipped) - _FAILURES_NAMED
    more = f"; and {count} more, above" if count > 0 else ""
    raise DatasetError(f"{len(skipped)} of {total} were skipped: {named}{more}")
