"""What the command shows and removes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from rainmer.cache.frames import GB, LIMIT, cached_frames, limit_gb, trim
from rainmer.cache.options import CacheOptions
from rainmer.errors import OutputError
from rainmer.files import default_cache_folder
from rainmer.folders import find_files, subfolders

__all__ = ["run"]


def run(options: CacheOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A folder cannot be listed or removed.
    """
    folder = options.cache or default_cache_folder()
    if options.action == "show":
        print("\n".join(_lines(folder, with_others=options.cache is None)))
        return
    removed = trim(cached_frames(folder), GB * (options.to or 0.0))
    print(f"{folder}: {_gb(removed)} of derained frames removed")
    if options.cache is None and options.to is None:
        for other in _others(folder):
            size = _size(other)
            _remove(other)
            print(f"{other}: {_gb(size)} removed")


def _lines(folder: Path, *, with_others: bool) -> Iterator[str]:
    frames = cached_frames(folder)
    derainers = {frame.path.parent for frame in frames}
    size = sum(frame.size for frame in frames)
    yield (
        f"{folder}: {_gb(size)}, {len(frames)} frames of {len(derainers)} derainers; "
        f"limit {limit_gb():g} GB, set by {LIMIT}"
    )
    for other in _others(folder) if with_others else ():
        yield f"{other}: {_gb(_size(other))}"


def _others(folder: Path) -> list[Path]:
    """Return what else the toolkit keeps beside the folder of derained frames."""
    return [other for other in subfolders(folder.parent) if other != folder]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in find_files(folder).files if file.is_file())


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"cannot remove {folder}: {error.strerror or error}") from error


def _gb(size: float) -> str:
    return f"{size / GB:.2f} GB"
