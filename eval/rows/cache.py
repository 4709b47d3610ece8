"""A cache of derained frames by content: no frame is derained twice.

The key is the frame's pixels and the derainer's fingerprint (weights, precision, tiles), so the
cache serves other detectors, other sets that share images, and interrupted runs. Its size has a
limit, see `rainmer.cache.frames`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rainmer.cache.frames import keeper
from rainmer.errors import ImageError
from rainmer.files import append_line, read_lines, safe_file_name, write_bytes
from rainmer.frames.arrays import Frame
from rainmer.frames.images import decode_image, encode_image

__all__ = ["CachedDerainer", "Derained", "RowDerainer"]

_TIMINGS = "timings.jsonl"


class NamedDerainer(Protocol):
    """`rainmer.Derainer`, or any callable with a name and a fingerprint."""

    @property
    def name(self) -> str:
        """Short name for reports."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the output may."""

    @property
    def cacheable(self) -> bool:
        """Whether the output depends on nothing but the frames and the fingerprint."""

    @property
    def batch(self) -> int:
        """How many frames it takes at once."""

    def __call__(self, frames: list[Frame]) -> list[Frame]:
        """Derain frames (H, W, 3), uint8, RGB."""


@dataclass(frozen=True)
class Derained:
    """A derained frame.

    Attributes:
        frame: What became of it.
        elapsed_ms: The milliseconds that deraining took, a gate's meter included; None: unknown.
        earlier: Whether the frame comes from the cache, where an earlier run has put it.
        derained: Whether the gate derained it; None: there is no gate.
    """

    frame: Frame
    elapsed_ms: float | None
    earlier: bool = False
    derained: bool | None = None


class RowDerainer(Protocol):
    """What derains the images of a row: a `CachedDerainer`, a `GatedRow`, precomputed results.

    Attributes:
        name: What it is called in tables.
        fingerprint: Changes whenever the output may.
        batch: How many frames it takes at once.
        precision: In what it computes; empty: unknown.
        precomputed: Whether there are results of the rainy images only, at their native size.
        busy_s: Seconds spent deraining, or reading results, so far.
    """

    name: str
    fingerprint: str
    batch: int
    precision: str
    precomputed: bool

    @property
    def busy_s(self) -> float:
        """See above."""

    def __call__(self, frames: Sequence[Frame], keys: Sequence[str]) -> list[Derained]:
        """Derain frames (H, W, 3), uint8, RGB, whose images have these keys in their set."""


class CachedDerainer:
    """A derainer with a cache of its results.

    Args:
        derainer: Called with lists of uint8 RGB frames.
        folder: Root of the cache; None: no cache.
        name: What it is called in tables; default: the derainer's name.

    Attributes:
        name: What it is called in tables.
        fingerprint: The derainer's fingerprint.
        batch: How many frames the derainer takes at once.
        precision: In what it computes; empty: unknown.
        busy_s: Seconds spent inside the derainer so far.
        calls: Frames derained so far, those from the cache not counted.
    """

    precomputed = False

    def __init__(
        self, derainer: NamedDerainer, folder: Path | None, name: str | None = None
    ) -> None:
        self._derainer = derainer
        self.name = name or derainer.name
        self.fingerprint = derainer.fingerprint
        self.batch = derainer.batch
        self.precision = str(getattr(derainer, "precision", ""))
        self._folder = (
            folder / f"{safe_file_name(derainer.name)}-{derainer.fingerprint[:16]}"
            if folder is not None and derainer.cacheable
            else None
        )
        self._timings: dict[str, float] = {}
        self._timings_size = -1  # of the file when it was read
        self._own: set[str] = set()  # what this run has put into the cache
        self._keeper = keeper(folder) if folder and self._folder else None
        self.busy_s = 0.0
        self.calls = 0

    def __call__(self, frames: Sequence[Frame], keys: Sequence[str] = ()) -> list[Derained]:
        """Derain frames of any sizes, or take them from the cache.

        Args:
            frames: Arrays (H, W, 3), uint8, RGB.
            keys: Unused; frames are told apart by their pixels.

        Raises:
            OutputError: The cache cannot be written.
        """
        digests = [_content_key(frame) for frame in frames] if self._folder else [""] * len(frames)
        derained = [self._recall(*pair) for pair in zip(digests, frames, strict=True)]
        missing = [i for i, known in enumerate(derained) if known is None]
        if missing:
            results, elapsed_ms = self._derain([frames[i] for i in missing])
            for i, frame in zip(missing, results, strict=True):
                derained[i] = Derained(frame, elapsed_ms)
                self._remember(digests[i], frame, elapsed_ms)
        return [item for item in derained if item is not None]

    def _derain(self, frames: list[Frame]) -> tuple[list[Frame], float]:
        started = time.perf_counter()
        derained = self._derainer(frames)
        elapsed = time.perf_counter() - started
        self.busy_s += elapsed
        self.calls += len(frames)
        return derained, 1000.0 * elapsed / len(frames)

    def _recall(self, key: str, rainy: Frame) -> Derained | None:
        if self._folder is None:
            return None
        path = self._folder / f"{key}.png"
        # A damaged file counts as missing.
        with contextlib.suppress(OSError, ImageError):
            frame = decode_image(path.read_bytes(), str(path))
            if frame.shape == rainy.shape:
                with contextlib.suppress(OSError):  # of another user, perhaps
                    os.utime(path)  # the least recently used go first
                return Derained(frame, self._time_of(key), key not in self._own)
        return None

    def _time_of(self, key: str) -> float | None:
        """Return a frame's time; another row of the run may have written it by now."""
        if key not in self._timings and self._folder is not None:
            file = self._folder / _TIMINGS
            size = file.stat().st_size if file.is_file() else 0
            if size != self._timings_size:
                self._timings.update(_read_timings(file))
                self._timings_size = size
        return self._timings.get(key)

    def _remember(self, key: str, frame: Frame, elapsed_ms: float) -> None:
        if self._folder is None:
            return
        content = encode_image(frame)
        write_bytes(self._folder / f"{key}.png", content)
        if self._keeper is not None:
            self._keeper.wrote(len(content))
        self._timings[key] = elapsed_ms
        self._own.add(key)
        append_line(self._folder / _TIMINGS, {"key": key, "ms": elapsed_ms})


def _read_timings(path: Path) -> dict[str, float]:
    times = ((record.get("key"), record.get("ms")) for record in read_lines(path))
    return {
        key: ms
        for key, ms in times
        if isinstance(key, str) and isinstance(ms, float) and math.isfinite(ms)
    }


def _content_key(frame: Frame) -> str:
    digest = hashlib.blake2b(digest_size=20)
    digest.update(str(frame.shape).encode())
    digest.update(frame.tobytes())
    return digest.hexdigest()
