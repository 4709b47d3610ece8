"""The images and videos that a command's arguments name, and the errors for unreadable ones."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from rainmer.console import printable
from rainmer.errors import DatasetError, ImageError
from rainmer.folders import find_files, find_matches, has_magic, skipped_line
from rainmer.frames.images import IMAGE_SUFFIXES
from rainmer.frames.video import VIDEO_SUFFIXES

__all__ = ["Input", "find_inputs", "raise_failures", "raise_skipped", "real_path"]

_FAILURES_NAMED = 3

_logger = logging.getLogger(__name__)


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

    A folder is searched with its subfolders, linked ones too. Hidden files and files inside `out`
    are left out; how many others a folder holds, and which folders cannot be listed, is logged.

    Args:
        text: A file, a folder or a glob; an existing name wins over a glob.
        out: Folder of the results, if there is one.

    Returns:
        The inputs, sorted by path. A file that two links lead to is there twice.

    Raises:
        ImageError: The argument does not exist, or holds no image and no video.
    """
    # os.path, because pathlib raises for names that are too long or hold a NUL.
    path = Path(text)
    if os.path.isdir(text):
        inputs = _inputs_below([path], path, out)
    elif os.path.exists(text):
        if not _is_known(path):
            raise ImageError(f"{path} is neither an image nor a video by its suffix")
        inputs = [Input(path, Path(path.name))]
    elif has_magic(text) and "\0" not in text:
        root = Path(*itertools.takewhile(lambda part: not has_magic(part), path.parts))
        inputs = _inputs_below(_outermost(find_matches(text)), root, out)
    elif "://" in text:  # which may hold a password
        raise ImageError(
            f"{text.partition('://')[0]}://... is an address, not a file: cameras and streams are "
            "read by `python -m detection`; download videos and images first"
        )
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


def _outermost(paths: Sequence[Path]) -> list[Path]:
    """Leave out what lies in a folder that is there itself."""
    there = set(paths)
    return [path for path in paths if there.isdisjoint(path.parents)]


def _inputs_below(paths: Iterable[Path], root: Path, out: Path | None) -> list[Input]:
    """Return the inputs of folders and files, with their paths below `root`, and log the others."""
    files, skipped = [], Counter[str]()
    for path in paths:
        if os.path.isdir(path):
            found = find_files(path, IMAGE_SUFFIXES | VIDEO_SUFFIXES, but=out, within=root)
            files += found.files
            skipped += found.skipped
            for line in found.unreadable:
                _logger.warning("%s: what it holds is left out", line)
        elif _is_known(path):
            files.append(path)
        else:
            skipped[path.suffix.lower()] += 1
    if skipped:
        _logger.warning("%s: %s", root, skipped_line(skipped))
    results = None if out is None else real_path(out)
    results_inside = results is not None and real_path(root) in results.parents
    inputs = [Input(file, file.relative_to(root)) for file in files]
    return [
        item
        for item in inputs
        if not any(part.startswith(".") for part in item.name.parts)
        and not (results_inside and results in real_path(item.path).parents)
    ]


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


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
