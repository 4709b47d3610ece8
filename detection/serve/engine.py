"""The networks behind the server: what each kind of job computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from detection.pipeline import Pipeline, Processed
from detection.timing import Stopwatch
from detection.types import Detections, Detector
from rainmer.device import frames_at_once
from rainmer.frames.arrays import Frame
from rainmer.stage import Derainer
from rainmer.stage.gate import GateState

__all__ = ["Answer", "Engine", "Kind"]

Kind = Literal["derain", "detect", "plain", "compare"]
"""What is done: derain; derain and detect; detect in the rainy frame; detect in both."""

_WARM_UP_HW = (256, 256)


class Answer(NamedTuple):
    """What a job comes to.

    Attributes:
        processed: The frame; without detections if it is only derained.
        in_rainy: The detections in the rainy frame of a comparison.
        rainy_ms: The time that these took.
    """

    processed: Processed
    in_rainy: Detections | None = None
    rainy_ms: float = 0.0


class Engine:
    """Runs batches of frames of one size, all of one kind. One thread uses it.

    Args:
        derainer: What derains.
        detector: What detects.
    """

    def __init__(self, derainer: Derainer, detector: Detector) -> None:
        self.derainer = derainer
        self.detector = detector
        both = Pipeline(derainer, detector)
        self._pipelines: dict[Kind, Pipeline] = {
            "derain": Pipeline(derainer, _find_nothing),  # type: ignore[arg-type]
            "detect": both,
            "plain": Pipeline(_unchanged, detector),
            "compare": both,
        }

    def at_once(self, size_hw: tuple[int, int]) -> int:
        """Return how many frames of a size make a batch."""
        return frames_at_once(self.derainer.batch, size_hw, self.derainer.device)

    def warm_up(self) -> None:
        """Run everything once, so that the first request does not wait for set-up."""
        height, width = _WARM_UP_HW
        self.derainer.warm_up(height, width)
        black = np.zeros((height, width, 3), np.uint8)
        self("compare", [black], [""], [None])  # which does all that the others do

    def __call__(
        self,
        kind: Kind,
        frames: Sequence[Frame],
        names: Sequence[str],
        states: Sequence[GateState | None],
    ) -> list[Answer]:
        """Compute a batch.

        Args:
            kind: What is done.
            frames: (H, W, 3), uint8, RGB, of one size.
            names: Of the frames.
            states: Of each frame's stream, if it belongs to one; see `Pipeline.process`.

        Raises:
            RainmerError: See `Derainer` and the detector.
        """
        both = kind == "compare"
        batch = self._pipelines[kind].process(frames, names, states=states, download=both)
        if not both:
            return [Answer(item) for item in batch]
        # What a gate has let through is the same, and so is what is found in it.
        changed = [item for item in batch if item.decision is None or item.decision.derain]
        with Stopwatch() as watch:
            found = iter(self.detector([item.frame for item in changed]) if changed else [])
        share_ms = watch.elapsed_ms / max(len(changed), 1)
        is_changed = {id(item) for item in changed}
        return [
            Answer(item, next(found), share_ms)
            if id(item) in is_changed
            else Answer(item, item.detections)
            for item in batch
        ]


def _find_nothing(frames: Sequence[Frame]) -> list[Detections]:
    return [Detections() for _ in frames]


def _unchanged(frames: list[Frame]) -> list[Frame]:
    return frames
