"""Detections of a file against those of the Python pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from detection.export.graph import Suppression
from detection.types import Detections
from rainmer.errors import RainmerError

__all__ = ["BOUNDS", "Bound", "Comparison", "compare", "detections_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Bound:
    """What detections may differ by: sides of boxes in pixels of the frame, and scores.

    A detection whose score is within the bound of the lowest one may be missing.
    """

    pixels: float
    score: float

    def __str__(self) -> str:
        return f"{self.pixels:g} px and a score of {self.score:g}"


BOUNDS = {"fp32": Bound(0.5, 1e-3), "fp16": Bound(4.0, 0.05)}
"""By precision."""


@dataclass
class Comparison:
    """How far detections are from the pipeline's.

    Attributes:
        frames, detections: How many were compared.
        pixels: Largest distance of a box's side, in pixels of the frame.
        score: Largest difference of a score.
        faults: What is beyond the bound, in words.
    """

    frames: int
    detections: int
    pixels: float
    score: float
    faults: list[str]

    def __str__(self) -> str:
        if not self.detections:
            return f"no detection in {self.frames} frames"
        return (
            f"{self.detections} detections in {self.frames} frames, boxes within "
            f"{self.pixels:.2g} px, scores within {self.score:.1g}"
        )


def compare(
    found: Sequence[Detections],
    wanted: Sequence[Detections],
    names: Mapping[int, str],
    *,
    conf: float,
    bound: Bound,
) -> Comparison:
    """Compare detections, frame by frame.

    Args:
        found: Of the file.
        wanted: Of the pipeline.
        names: The classes, label to name.
        conf: Lowest score of a detection.
        bound: What they may differ by.
    """
    result = Comparison(len(wanted), sum(map(len, wanted)), 0.0, 0.0, [])
    for i, (ours, theirs) in enumerate(zip(found, wanted, strict=True), 1):
        left = set(range(len(ours)))
        for j in range(len(theirs)):
            word = f"frame {i}: {_word(theirs, j, names)}"
            distances = {k: _distance(ours, k, theirs, j) for k in left}
            nearest = min(distances, key=lambda k: distances[k], default=None)
            if nearest is None or math.isinf(distances[nearest]):
                if theirs.scores[j] > conf + bound.score:
                    result.faults.append(f"{word} is missing")
                continue
            left.remove(nearest)
            pixels = float(np.abs(ours.boxes_xyxy[nearest] - theirs.boxes_xyxy[j]).max())
            score = abs(float(ours.scores[nearest] - theirs.scores[j]))
            result.pixels, result.score = max(result.pixels, pixels), max(result.score, score)
            if pixels > bound.pixels or score > bound.score:
                result.faults.append(f"{word} is off by {pixels:.2g} px, its score by {score:.1g}")
        for k in sorted(left):
            if ours.scores[k] > conf + bound.score:
                result.faults.append(f"frame {i}: {_word(ours, k, names)} is too many")
    return result


def _distance(ours: Detections, k: int, theirs: Detections, j: int) -> float:
    """Return how unlike two detections are: infinite for other classes or boxes far apart."""
    box = theirs.boxes_xyxy[j]
    far = max(8.0, 0.3 * float((box[2:] - box[:2]).max()))
    pixels = float(np.abs(ours.boxes_xyxy[k] - box).max())
    if ours.labels[k] != theirs.labels[j] or pixels > far:
        return math.inf
    return pixels / far + abs(float(ours.scores[k] - theirs.scores[j]))


def _word(detections: Detections, k: int, names: Mapping[int, str]) -> str:
    label = int(detections.labels[k])
    left, top = detections.boxes_xyxy[k, :2]
    score = detections.scores[k]
    return f"{names.get(label, label)} {score:.2f} at {left:.0f},{top:.0f}"


def detections_of(
    outputs: Mapping[str, Array],
    suppression: Suppression,
    *,
    end_to_end: bool,
    frame_hw: tuple[int, int],
) -> list[Detections]:
    """Read the outputs of a file, frame by frame.

    Args:
        outputs: By name; see `PipelineGraph.outputs`.
        suppression: The NMS, for files without it.
        end_to_end: Whether the detector's head chooses itself.
        frame_hw: (height, width) that boxes are clipped to, in pixels.

    Raises:
        RainmerError: A value is not finite; the output is named.
    """
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise RainmerError(f"the output {name} holds values that are not finite")
    if "count" in outputs:
        columns = [outputs[name] for name in ("boxes", "scores", "labels")]
    elif "boxes" in outputs:
        columns = _suppressed(outputs["boxes"], outputs["scores"], suppression)
    elif end_to_end or outputs["predictions"].shape[2] == 6:
        rows = outputs["predictions"]
        columns = [rows[..., :4], rows[..., 4], rows[..., 5].astype(np.int64)]
    else:
        rows = outputs["predictions"].transpose(0, 2, 1)
        centres, halves = rows[..., :2], rows[..., 2:4] / 2.0
        boxes = np.concatenate((centres - halves, centres + halves), 2)
        columns = _suppressed(boxes, rows[..., 4:], suppression)
    found = []
    most = np.asarray(frame_hw[::-1] * 2, np.float32)
    for boxes, scores, labels in zip(*columns, strict=True):
        keep = scores > suppression.conf
        found.append(Detections(boxes[keep].clip(0.0, most), scores[keep], labels[keep]))
    return found


def _suppressed(boxes: Array, scores: Array, suppression: Suppression) -> list[Array]:
    chosen = suppression(torch.from_numpy(boxes).float(), torch.from_numpy(scores).float())
    return [column.numpy() for column in chosen]
