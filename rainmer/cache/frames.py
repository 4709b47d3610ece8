"""The frames in a cache of derained frames, and how it stays below its limit.

A frame is `FOLDER/DERAINER-FINGERPRINT/KEY.png`, both with hexadecimal digits; nothing else is
counted or removed. Whoever uses a frame touches the file: the oldest one has been unused longest.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rainmer.errors import ConfigError
from rainmer.folders import list_folder, subfolders

__all__ = ["GB", "LIMIT", "CachedFrame", "Keeper", "cached_frames", "keeper", "limit_gb", "trim"]

GB = 10**9
LIMIT = "RAINMER_CACHE_GB"
"""The environment variable that sets the limit."""

_DEFAULT_GB = 20.0
_SHARE = 0.1  # of the limit
_FOLDER = re.compile(r".*-[0-9a-f]{16}")
_FILE = re.compile(r"[0-9a-f]{40}\.png")


class CachedFrame(NamedTuple):
    """A derained frame on disk: when it was last used (seconds of Unix time), and its bytes."""

    used: float
    size: int
    path: Path


def limit_gb() -> float:
    """Return the limit of a cache of derained frames in GB. Raises ConfigError."""
    text = os.environ.get(LIMIT, "")
    with contextlib.suppress(ValueError):
        limit = float(text) if text else _DEFAULT_GB
        if 0 < limit < math.inf:
            return limit
    raise ConfigError(f"{LIMIT} is {text!r}, but must be a number of GB above 0")


def cached_frames(folder: Path) -> list[CachedFrame]:
    """Return the frames in a cache, the least recently used first.

    Raises:
        DatasetError: A folder cannot be listed.
    """
    found = []
    for derainer in subfolders(folder):
        for entry in list_folder(derainer) if _FOLDER.fullmatch(derainer.name) else ():
            if _FILE.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):  # another command trims, too
                    status = entry.stat(follow_symlinks=False)
                    found.append(CachedFrame(status.st_mtime, status.st_size, Path(entry.path)))
    return sorted(found)


def trim(frames: Iterable[CachedFrame], most_bytes: float) -> int:
    """Remove the least recently used frames until the others take no more than `most_bytes`.

    Returns:
        The bytes that were removed. Files that cannot be are left.
    """
    frames = list(frames)
    excess = sum(frame.size for frame in frames) - most_bytes
    removed = 0
    for frame in frames:
        if removed >= excess:
            break
        with contextlib.suppress(OSError):
            frame.path.unlink()
            removed += frame.size
    return removed


class Keeper:
    """Keeps a cache below the limit while a process writes to it.

    It looks at the cache at once and whenever another tenth of the limit is written, and if less
    than that is free, makes room for two.

    Args:
        folder: The cache.

    Raises:
        ConfigError: The limit is no number.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._limit = limit_gb() * GB
        self._written = 0.0
        self._look()

    def wrote(self, size: int) -> None:
        """Count bytes that were written."""
        self._written += size
        if self._written > _SHARE * self._limit:
            self._look()

    def _look(self) -> None:
        frames = cached_frames(self._folder)
        if sum(frame.size for frame in frames) > (1 - _SHARE) * self._limit:
            trim(frames, (1 - 2 * _SHARE) * self._limit)
        self._written = 0.0


@functools.cache
def keeper(folder: Path) -> Keeper:
    """Return the keeper of a cache, one in a process. Raises ConfigError."""
    return Keeper(folder)
