"""What an actor takes on at a time: some images of a folder, a tar shard, or a Parquet file."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from detection.bulk.places import Entry, Place
from rainmer.errors import DatasetError
from rainmer.folders import skipped_line
from rainmer.frames.formats import IMAGE_SUFFIXES

__all__ = ["PARQUET_SUFFIXES", "TAR_SUFFIXES", "Unit", "find_entries", "make_units", "part_size"]

TAR_SUFFIXES = frozenset({".tar", ".tgz", ".gz"})
PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})

_PART = 256
_PARTS_AN_ACTOR = 4

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unit:
    """Images that one actor reads in one go.

    Attributes:
        kind: What it is.
        paths: The images, or the one shard, below the place of the input.
        part: How many of its images, in their order, share a file of results.
        key: Names those files: a digest of all that decides which image is in which.
        done: Numbers of the parts that are there already.
    """

    kind: Literal["images", "tar", "parquet"]
    paths: tuple[str, ...]
    part: int
    key: str
    done: frozenset[int] = field(default_factory=frozenset)

    def to_json(self) -> str:
        """Return the unit as a text."""
        return json.dumps({**asdict(self), "done": sorted(self.done)})

    @staticmethod
    def from_json(text: str) -> Unit:
        """Return the unit of a text of `to_json`."""
        plain = json.loads(text)
        sets = {"paths": tuple(plain["paths"]), "done": frozenset(plain["done"])}
        return Unit(**{**plain, **sets})


def find_entries(place: Place, out: Place) -> list[Entry]:
    """Return the images and shards of the input, sorted by path.

    A place that is a file itself is an entry with an empty path. What is neither by its suffix is
    counted in the log.

    Raises:
        DatasetError: There is no such place, or nothing in it.
    """
    known = IMAGE_SUFFIXES | TAR_SUFFIXES | PARQUET_SUFFIXES
    if place.is_file:
        if kind_of(place.root) is None:
            raise DatasetError(f"{place} is no image, tar shard or Parquet file by its suffix")
        return [place.entry()]
    entries, skipped, unreadable = place.files(known, but=out)
    odd = Counter(".gz" for entry in entries if kind_of(entry.path) is None)
    for line in unreadable:
        _logger.warning("%s: what it holds is left out", line)
    if skipped or odd:
        _logger.warning("%s: %s", place, skipped_line(Counter(skipped) + odd))
    entries = [entry for entry in entries if kind_of(entry.path) is not None]
    if not entries:
        raise DatasetError(f"{place} holds no images, tar shards or Parquet files")
    return entries


def kind_of(path: str) -> Literal["images", "tar", "parquet"] | None:
    """Tell by the suffix what a file is; None if it is nothing that is read.

    >>> kind_of("a/B.JPG"), kind_of("00.tar.gz"), kind_of("b.csv.gz")
    ('images', 'tar', None)
    """
    lower = path.lower()
    suffix = f".{lower.rpartition('.')[2]}"
    if suffix in PARQUET_SUFFIXES:
        return "parquet"
    if lower.endswith((".tar", ".tgz", ".tar.gz")):
        return "tar"
    return "images" if suffix in IMAGE_SUFFIXES else None


def part_size(entries: Sequence[Entry], actors: int) -> int:
    """Return how many images share a file of results: few where few images wait for many actors."""
    if any(kind_of(entry.path or "a.tar") != "images" for entry in entries):
        return _PART
    return max(1, min(_PART, math.ceil(len(entries) / (_PARTS_AN_ACTOR * actors))))


def make_units(place: Place, entries: Sequence[Entry], part: int) -> list[Unit]:
    """Return the units of the entries: shards first, for they take longest.

    A shard's key changes with its size and its time; of images only the names count.
    """
    return [*_shards(place, entries, part), *_images(place, entries, part)]


def _shards(place: Place, entries: Sequence[Entry], part: int) -> Iterator[Unit]:
    for entry in entries:
        kind = kind_of(entry.path or place.root)
        if kind in ("tar", "parquet"):
            key = _digest(kind, entry.path or place.root.rpartition("/")[2], entry.state, part)
            yield Unit(kind, (entry.path,), part, key)


def _images(place: Place, entries: Sequence[Entry], part: int) -> Iterator[Unit]:
    paths = [e.path for e in entries if kind_of(e.path or place.root) == "images"]
    for start in range(0, len(paths), part):
        chosen = tuple(paths[start : start + part])
        yield Unit("images", chosen, part, _digest("images", *chosen))


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
