"""The row of a derainer behind a gate: what it derains is what the derainer alone makes of it.

The rain meter reads every frame anew; frames that pass need no cache, and derained ones come from
that of the derainer without its gate, which another row may have filled.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.rows.cache import CachedDerainer, Derained
from rainmer.errors import RainmerError
from rainmer.frames.arrays import Frame
from rainmer.stage import Derainer

__all__ = ["GatedRow"]


class GatedRow:
    """A `RowDerainer` that knows which frames its gate derained.

    Args:
        derainer: A derainer with a gate.
        folder: Root of the cache; None: no cache.
        name: What it is called in tables; default: the derainer's name.

    Attributes:
        name: What it is called in tables.
        fingerprint: The derainer's fingerprint, gate included.
        batch: How many frames the derainer takes at once.
        precision: In what the derainer computes.

    Raises:
        RainmerError: The derainer has no gate.
    """

    precomputed = False

    def __init__(self, derainer: Derainer, folder: Path | None, name: str | None = None) -> None:
        if derainer.gate is None:
            raise RainmerError(f"{derainer.name} has no gate")
        self._gate = derainer.gate
        self._ungated = CachedDerainer(derainer.without_gate(), folder)
        self.name = name or derainer.name
        self.fingerprint = derainer.fingerprint
        self.batch = derainer.batch
        self.precision = self._ungated.precision
        self._meter_s = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds spent in the meter and in the derainer so far."""
        return self._meter_s + self._ungated.busy_s

    @property
    def calls(self) -> int:
        """Frames derained so far, those from the cache and those that passed not counted."""
        return self._ungated.calls

    def __call__(self, frames: Sequence[Frame], keys: Sequence[str] = ()) -> list[Derained]:
        """Derain the frames that the gate chooses; all share the time of the meter.

        Args:
            frames: Arrays (H, W, 3), uint8, RGB, at least one.
            keys: Unused.

        Raises:
            OutputError: The cache cannot be written.
        """
        started = time.perf_counter()
        decisions = self._gate.decide(frames)
        elapsed = time.perf_counter() - started
        self._meter_s += elapsed
        meter_ms = 1000.0 * elapsed / len(frames)
        chosen = [i for i, decision in enumerate(decisions) if decision.derain]
        made = dict(zip(chosen, self._ungated([frames[i] for i in chosen]), strict=True))
        return [
            _behind(made[i], meter_ms)
            if i in made
            else Derained(np.copy(frame), meter_ms, derained=False)
            for i, frame in enumerate(frames)
        ]


def _behind(made: Derained, meter_ms: float) -> Derained:
    elapsed_ms = None if made.elapsed_ms is None else meter_ms + made.elapsed_ms
    return Derained(made.frame, elapsed_ms, made.earlier, derained=True)
