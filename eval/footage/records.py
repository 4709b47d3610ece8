"""What is known of a frame: the record of each input, and the frame with all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from detection.types import Detections
from eval.footage.frames import FrameKey
from eval.rows.records import is_finite_number

__all__ = ["RAINY", "Boxes", "FrameRecord", "FrameResult", "as_boxes", "as_detections", "is_valid"]

RAINY = ""
"""Name of the input that no derainer has touched."""

Boxes: TypeAlias = list[list[float]]
"""Left, top, right, bottom in pixels, score, label; one list for each detection."""


@dataclass(frozen=True)
class FrameRecord:
    """What one input of a frame gave, as a line of JSON.

    Attributes:
        source, name: The frame's `FrameKey`.
        boxes: What the detector finds, weak detections too.
        detect_ms: Its share of the time of the detector.
        derain_ms: Its share of the time of the derainer; None: unknown, or there is none.
        derain_earlier, detect_earlier: Whether an earlier run took that time.
        labels: What the teacher finds; empty without one.
        meter: Values of the rain meter by name, in the record of the rainy input.
    """

    source: str
    name: str
    boxes: Boxes
    detect_ms: float
    derain_ms: float | None = None
    derain_earlier: bool = False
    detect_earlier: bool = False
    labels: Boxes = field(default_factory=list)
    meter: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> FrameKey:
        """Which frame."""
        return FrameKey(self.source, self.name)

    @property
    def detections(self) -> Detections:
        """What the detector finds."""
        return as_detections(self.boxes)


@dataclass(frozen=True, eq=False)
class FrameResult:
    """A frame with what all inputs gave.

    Attributes:
        key: Which frame.
        shot: Name of its video or folder.
        time_s: When it is shown, in seconds since the start of that.
        size_hw: (height, width) in pixels.
        inputs: The records by input: `RAINY`, and the names of derainers.
    """

    key: FrameKey
    shot: str
    time_s: float
    size_hw: tuple[int, int]
    inputs: Mapping[str, FrameRecord]


def as_boxes(detections: Detections) -> Boxes:
    """Return detections as plain lists, rounded to 1/100 pixel and 5 decimals of the score."""
    return [
        [*(round(value, 2) for value in box), round(score, 5), label]
        for box, score, label in zip(
            detections.boxes_xyxy.astype(np.float64).tolist(),
            detections.scores.astype(np.float64).tolist(),
            detections.labels.tolist(),
            strict=True,
        )
    ]


def as_detections(boxes: Sequence[Sequence[float]]) -> Detections:
    """Return plain lists as detections."""
    table = np.array(boxes, np.float64).reshape(-1, 6)
    boxes_xyxy, scores = table[:, :4].astype(np.float32), table[:, 4].astype(np.float32)
    return Detections(boxes_xyxy, scores, table[:, 5].astype(np.int64))


def is_valid(record: FrameRecord) -> bool:
    """Tell whether the values of a record that was read have the types of their fields."""
    times = [ms for ms in (record.detect_ms, record.derain_ms) if ms is not None]
    return (
        isinstance(record.source, str)
        and isinstance(record.name, str)
        and _are_boxes(record.boxes)
        and _are_boxes(record.labels)
        and isinstance(record.meter, dict)
        and isinstance(record.derain_earlier, bool)
        and isinstance(record.detect_earlier, bool)
        and _are_finite([*times, *record.meter.values()])
    )


def _are_boxes(boxes: object) -> bool:
    return isinstance(boxes, list) and all(
        isinstance(box, list)
        and len(box) == 6
        and _are_finite(box[:5])
        and type(box[5]) is int
        and box[5] >= 0
        for box in boxes
    )


def _are_finite(values: Iterable[object]) -> bool:
    return all(map(is_finite_number, values))
