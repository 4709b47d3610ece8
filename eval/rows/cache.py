"""A cache of derained frames by content: no frame is derained twice.

The key is the frame's pixels and the derainer's fingerprint (weights, precision, tiles), so the
cache serves other detectors, other sets that share images, and interrupted runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from rainmer.errors import ImageError
from rainmer.files import append_line, read_lines, safe_file_name, write_bytes
from rainmer.frames.arrays import Frame
from rainmer.frames.images import decode_image, encode_image
from rainmer.stage.gate import Gate

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
        elapsed_ms: The milliseconds that deraining took, those of a gate's meter included; None:
            unknown.
        derained: Whether the gate derained it; None: there is no gate.
    """

    frame: Frame
    elapsed_ms: float | None
    derained: bool | None = None


class RowDerainer(Protocol):
    """What derains the images of a row: a `CachedDerainer`, or precomputed results.

    Attributes:
        name: What it is called in tables.
        fingerprint: Changes whenever the output may.
        batch: How many frames it takes at once.
        precomputed: Whether there are results of the rainy images only, at their native size.
        busy_s: Seconds spent deraining, or reading results, so far.
    """

    name: str
    fingerprint: str
    batch: int
    precomputed: bool
    busy_s: float

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
        busy_s: Seconds spent inside the derainer so far.
        calls: Frames derained so far, those from the cache not counted.
    """

    precomputed = False

    def __init__(
        self, derainer: NamedDerainer, folder: Path | None, name: str | None = None
    ) -> None:
        self._derainer = derainer
        gate = getattr(derainer, "gate", None)
        self._gate = gate if isinstance(gate, Gate) else None
        self.name = name or derainer.name
        self.fingerprint = derainer.fingerprint
        self.batch = derainer.batch
        self._folder = (
            folder / f"{safe_file_name(derainer.name)}-{derainer.fingerprint[:16]}"
            if folder is not None and derainer.cacheable
            else None
        )
        self._notes = _read_notes(self._folder / _TIMINGS) if self._folder else {}
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
            results = self._derain([frames[i] for i in missing])
            for i, result in zip(missing, results, strict=True):
                derained[i] = result
                self._remember(digests[i], result)
        return [item for item in derained if item is not None]

    def _derain(self, frames: list[Frame]) -> list[Derained]:
        """Derain frames, those that a gate chooses: all share the meter's time, these the rest."""
        started = decided = time.perf_counter()
        if self._gate is None:
            chosen: list[bool | None] = [None] * len(frames)
            derained = self._derainer(frames)
        else:
            decisions = self._gate.decide(frames)
            decided = time.perf_counter()
            chosen = [decision.derain for decision in decisions]
            derained = cast(Any, self._derainer)(frames, decisions=decisions)
        ended = time.perf_counter()
        self.busy_s += ended - started
        self.calls += len(frames)
        meter_ms = 1000.0 * (decided - started) / len(frames)
        worked = [choice is not False for choice in chosen]
        worked = worked if any(worked) else [True] * len(frames)
        rest_ms = 1000.0 * (ended - decided) / sum(worked)
        return [
            Derained(frame, meter_ms + rest_ms * works, choice)
            for frame, works, choice in zip(derained, worked, chosen, strict=True)
        ]

    def _recall(self, key: str, rainy: Frame) -> Derained | None:
        if self._folder is None:
            return None
        path = self._folder / f"{key}.png"
        elapsed_ms, chosen = self._notes.get(key, (None, None))
        if self._gate is not None and chosen is None:
            return None
        # A damaged file counts as missing.
        with contextlib.suppress(OSError, ImageError):
            frame = decode_image(path.read_bytes(), str(path))
            if frame.shape == rainy.shape:
                return Derained(frame, elapsed_ms, chosen)
        return None

    def _remember(self, key: str, made: Derained) -> None:
        if self._folder is None:
            return
        write_bytes(self._folder / f"{key}.png", encode_image(made.frame))
        self._notes[key] = (made.elapsed_ms, made.derained)
        note = {"key": key, "ms": made.elapsed_ms}
        note |= {} if made.derained is None else {"derained": made.derained}
        append_line(self._folder / _TIMINGS, note)


def _read_notes(path: Path) -> dict[str, tuple[float | None, bool | None]]:
    """Return of each frame the milliseconds and whether a gate derained it, as far as known."""
    notes = ((r.get("key"), r.get("ms"), r.get("derained")) for r in read_lines(path))
    return {
        key: (ms, derained if isinstance(derained, bool) else None)
        for key, ms, derained in notes
        if isinstance(key, str) and isinstance(ms, float) and math.isfinite(ms)
    }


def _content_key(frame: Frame) -> str:
    digest = hashlib.blake2b(digest_size=20)
    digest.update(str(frame.shape).encode())
    digest.update(frame.tobytes())
    return digest.hexdigest()
