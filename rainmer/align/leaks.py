"""Find images that occur in two sets, or twice in one: exactly, or up to coding and size.

The perceptual hash follows C. Zauner, Implementation and Benchmarking of Perceptual Image Hash
Functions, 2010, section 3.2: whether each of the 64 lowest frequencies without the mean is above
their median.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from rainmer.align.options import HASH_BITS
from rainmer.data.layouts.pairing import ImageSet
from rainmer.frames.arrays import Frame
from rainmer.frames.images import read_image

__all__ = [
    "Fingerprint",
    "Leak",
    "compared_images",
    "find_leaks",
    "fingerprint",
    "leaks_between",
    "leaks_within",
    "perceptual_hash",
    "read_fingerprint",
]

_SIDE = 32
_FLAT_LEVELS = 1.0  # standard deviation, 0..255, up to which a thumbnail counts as flat
_BLOCK = 1 << 22  # hashes compared at once
_LOWEST = sorted(((i, j) for i in range(_SIDE) for j in range(_SIDE)), key=lambda p: (sum(p), p))
_ROWS, _COLUMNS = np.array(_LOWEST[1 : HASH_BITS + 1]).T


@dataclass(frozen=True)
class Fingerprint:
    """The hashes by which an image is compared.

    Attributes:
        path: The image.
        digest: Hash of its size and decoded pixels.
        hash: `perceptual_hash`; None for a flat image.
    """

    path: Path
    digest: str
    hash: int | None


@dataclass(frozen=True)
class Leak:
    """Two images that are the same, or nearly.

    Attributes:
        kind: `exact`: all decoded pixels are equal. `near`: the hashes are.
        distance: Number of hash bits that differ, 0..64.
        first, second: The images.
    """

    kind: Literal["exact", "near"]
    distance: int
    first: Path
    second: Path


def compared_images(sets: Sequence[ImageSet]) -> list[Path]:
    """Return the distinct images of sets that `find_leaks` compares."""
    # Between a set without clean images and another, all images are compared.
    everything = any(not images.clean for images in sets)
    return list(dict.fromkeys(p for images in sets for p in _compared(images, everything)))


def _compared(images: ImageSet, everything: bool) -> list[Path]:
    """Return all images of a set, or only the clean ones where there are some."""
    if everything:
        return [*images.clean, *images.rainy]
    return images.clean or images.rainy


def find_leaks(
    train: ImageSet, tests: Sequence[ImageSet], known: Mapping[Path, Fingerprint], threshold: int
) -> list[tuple[str, str, Leak]]:
    """Find images of a training set in test sets, and images twice within any of them.

    Clean images are compared, because they show a scene whatever its rain; if either set has none,
    all images of both are compared. Within a set, rainy images are compared only if there are no
    clean ones.

    Args:
        train: The training set.
        tests: The test sets.
        known: Fingerprints by path; images without one are left out.
        threshold: As for `leaks_between`.

    Returns:
        Leaks with the names of the sets of both images: first those between sets.
    """

    def prints(images: ImageSet, *, everything: bool = False) -> list[Fingerprint]:
        return [known[path] for path in _compared(images, everything) if path in known]

    leaks = []
    for test in tests:
        everything = not (train.clean and test.clean)
        first, second = (prints(images, everything=everything) for images in (train, test))
        leaks += [(train.name, test.name, leak) for leak in leaks_between(first, second, threshold)]
    for images in (train, *tests):
        within = leaks_within(prints(images), threshold)
        leaks += [(images.name, images.name, leak) for leak in within]
    return leaks


def read_fingerprint(path: Path) -> Fingerprint:
    """Read an image file and return its fingerprint.

    Raises:
        ImageError: The file is missing, or not an image.
    """
    return fingerprint(read_image(path), path)


def fingerprint(frame: Frame, path: Path) -> Fingerprint:
    """Return the fingerprint of a frame (H, W, 3), uint8, RGB, which `path` names."""
    digest = hashlib.blake2b(repr(frame.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(frame).data)
    return Fingerprint(path, digest.hexdigest(), perceptual_hash(frame))


def perceptual_hash(frame: Frame) -> int | None:
    """Return 64 bits that hardly change with coding, size and brightness of a frame (H, W, 3).

    None for a flat frame: its frequencies are noise and would match those of any flat frame.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    thumbnail = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if float(thumbnail.std()) < _FLAT_LEVELS:
        return None
    lowest = cv2.dct(thumbnail)[_ROWS, _COLUMNS]
    bits = np.packbits(lowest > np.median(lowest))
    return int.from_bytes(bits.tobytes(), "big")


def leaks_between(
    first: Sequence[Fingerprint], second: Sequence[Fingerprint], threshold: int
) -> list[Leak]:
    """Return every pair of equal or nearly equal images of two sets.

    Args:
        first: One set.
        second: The other.
        threshold: Maximum number of hash bits, of 64, in which near duplicates differ.

    Returns:
        In the order of `second`, then of `first`.
    """
    distances: dict[tuple[int, int], int] = {}
    for row, column, distance in _near(first, second, threshold):
        distances[column, row] = distance
    by_digest: dict[str, list[int]] = {}
    for row, image in enumerate(first):
        by_digest.setdefault(image.digest, []).append(row)
    for column, image in enumerate(second):
        for row in by_digest.get(image.digest, ()):
            distances[column, row] = 0
    return [
        _leak(first[row], second[column], distances[column, row])
        for column, row in sorted(distances)
    ]


def leaks_within(images: Sequence[Fingerprint], threshold: int) -> list[Leak]:
    """Return each image of a set that equals or resembles an earlier one, with the nearest one.

    Args:
        images: The set.
        threshold: As for `leaks_between`.
    """
    nearest: dict[int, tuple[int, int]] = {}
    for row, column, distance in _near(images, images, threshold):
        if row < column:
            nearest[column] = min((distance, row), nearest.get(column, (HASH_BITS, row)))
    by_digest: dict[str, int] = {}
    for column, image in enumerate(images):
        row = by_digest.setdefault(image.digest, column)
        if row != column:
            nearest[column] = (0, row)
    return [
        _leak(images[nearest[column][1]], images[column], nearest[column][0])
        for column in sorted(nearest)
    ]


def _leak(first: Fingerprint, second: Fingerprint, distance: int) -> Leak:
    kind: Literal["exact", "near"] = "exact" if first.digest == second.digest else "near"
    return Leak(kind, distance, first.path, second.path)


def _near(
    first: Sequence[Fingerprint], second: Sequence[Fingerprint], threshold: int
) -> Iterator[tuple[int, int, int]]:
    """Yield places in both sets whose hashes are near, and their distance.

    Hashes are compared in blocks of rows: the whole table would not fit into memory.
    """
    rows, row_hashes = _hashes(first)
    columns, column_hashes = _hashes(second)
    height = max(1, _BLOCK // max(1, len(columns)))
    for start in range(0, len(rows), height):
        block = row_hashes[start : start + height, None]
        distances = np.bitwise_count(block ^ column_hashes[None])
        row, column = np.nonzero(distances <= threshold)
        yield from zip(
            rows[start + row].tolist(),
            columns[column].tolist(),
            distances[row, column].tolist(),
            strict=True,
        )


def _hashes(
    images: Sequence[Fingerprint],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Return the places of images that have a hash, and their hashes."""
    known = [(place, image.hash) for place, image in enumerate(images) if image.hash is not None]
    places = np.array([place for place, _ in known], np.int64)
    return places, np.array([value for _, value in known], np.uint64)
