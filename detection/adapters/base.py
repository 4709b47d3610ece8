"""What all adapted detectors share: batches, sizes, and which detections are kept."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch

from detection.types import DerainCallable, Detections, HarnessBatch, call_derainer
from rainmer.errors import RainmerError
from rainmer.frames.arrays import Frame

__all__ = [
    "AdaptedDetector",
    "DerainedInside",
    "Found",
    "Settings",
    "resized",
    "size_of",
    "to_array",
]

Array = Any  # a tensor or an array of numbers


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a detector runs.

    Attributes:
        device: Where.
        conf: Lowest score kept, 0..1.
        iou: Overlap above which the weaker of two boxes is dropped; None: as the network's library
            has it. Networks without such a step ignore it.
        imgsz: Longer side of the input in pixels; None: the network's own.
        max_det: Maximum number of detections in a frame.
        batch: Maximum number of frames at once.
        allow_download: Whether published weights may be fetched.
    """

    device: torch.device
    conf: float = 0.25
    iou: float | None = None
    imgsz: int | None = None
    max_det: int = 300
    batch: int = 8
    allow_download: bool = False


class Found(NamedTuple):
    """What a network finds in one frame: boxes (N, 4) `xyxy` in its pixels, scores, labels (N,)."""

    boxes: Array
    scores: Array
    labels: Array


class AdaptedDetector(ABC):
    """A detector of another library: a `Detector` and a `MeasuringDetector` at once.

    Frames share a batch only if their inputs have one size, so that no frame's detections depend
    on the others'. Labels without a name (gaps in COCO's numbers) are left out.

    Args:
        name: Short name for reports and file names.
        names: The classes, label to name.
        source: What errors call it: its spec.
        parts: What its numbers depend on beside the settings, such as the digest of its weights.
        settings: How it runs.

    Attributes:
        name, names, device: See `detection.types.Detector`.
        conf, iou, max_det, batch: As in `Settings`.
        imgsz: Longer side of the input in pixels; None: it has no fixed size.
        classes: Labels to keep; None: all.
        fingerprint: Changes with weights and settings.
    """

    def __init__(
        self,
        name: str,
        names: Mapping[int, str],
        *,
        source: str,
        parts: Sequence[object],
        settings: Settings,
    ) -> None:
        self.name, self.names, self.source = name, dict(names), source
        self.device = settings.device
        self.conf, self.iou, self.max_det = settings.conf, settings.iou, settings.max_det
        self.imgsz, self.batch = settings.imgsz, settings.batch
        self.classes: list[int] | None = None
        key = [*parts, settings.imgsz, self.conf, self.iou, self.max_det]
        self.fingerprint = hashlib.sha256(json.dumps(key).encode()).hexdigest()

    @abstractmethod
    def input_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size of the input for a frame of a size."""

    @abstractmethod
    def _find(self, fitted: Sequence[Frame], input_hw: tuple[int, int]) -> list[Found]:
        """Detect in fitted frames; boxes in their pixels, weak ones too."""

    @property
    def input_words(self) -> str:
        """The size of the input, for reports."""
        return f"{self.imgsz} px" if self.imgsz else "the network's own"

    @property
    def suppression(self) -> str:
        """What drops boxes that overlap, for reports."""
        return "none: the network's own choice"

    @property
    def protocol(self) -> dict[str, object]:
        """How it is measured, for reports."""
        return {
            "input size": f"{self.input_words}, batches of one size, up to {self.batch}",
            "detections from confidence": self.conf,
            "NMS IoU": "-" if self.iou is None else self.iou,
            "detections per image": f"{self.max_det}, of which COCOeval takes 100",
            "NMS": self.suppression,
        }

    def plan(self, sizes_hw: Sequence[tuple[int, int]]) -> list[HarnessBatch]:
        """Return batches of images whose inputs have one size."""
        groups: dict[tuple[int, int], list[int]] = {}
        for i, size_hw in enumerate(sizes_hw):
            groups.setdefault(self.input_hw(size_hw), []).append(i)
        return [
            HarnessBatch(tuple(indices[start : start + self.batch]), input_hw)
            for input_hw, indices in groups.items()
            for start in range(0, len(indices), self.batch)
        ]

    def fit(self, frames: Sequence[Frame], input_hw: tuple[int, int]) -> list[Frame]:
        """Resize the frames of one batch to their part of the input, without padding.

        Args:
            frames: Arrays (H, W, 3), uint8, RGB.
            input_hw: From the batch's plan.
        """
        return [resized(frame, input_hw) for frame in frames]

    def detect_fitted(
        self,
        fitted: Sequence[Frame],
        sizes_hw: Sequence[tuple[int, int]],
        input_hw: tuple[int, int],
    ) -> list[Detections]:
        """Detect in frames that `fit` has resized, possibly derained since.

        Args:
            fitted: Arrays (h, w, 3), uint8, RGB, of the sizes that `fit` gave them.
            sizes_hw: (height, width) of each frame before it was resized.
            input_hw: From the batch's plan.

        Returns:
            Detections in pixels of each frame before it was resized, best first.

        Raises:
            RainmerError: The network gives numbers that are not finite.
        """
        if not fitted:
            return []
        found = self._find(fitted, input_hw)
        return [
            self._kept(one, size_of(frame), size_hw)
            for one, frame, size_hw in zip(found, fitted, sizes_hw, strict=True)
        ]

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detect in frames (H, W, 3), uint8, RGB, of any sizes; same order as given.

        Raises:
            RainmerError: The network gives numbers that are not finite.
        """
        return self._collected(frames, self._detect)

    def through(
        self, frames: Sequence[Frame], change: Callable[[list[Frame]], list[Frame]]
    ) -> list[Detections]:
        """Detect as `__call__` does, in frames that a function changes once they are resized."""

        def detect(chosen: Sequence[Frame], input_hw: tuple[int, int]) -> list[Detections]:
            fitted = change(self.fit(chosen, input_hw))
            return self.detect_fitted(fitted, [size_of(frame) for frame in chosen], input_hw)

        return self._collected(frames, detect)

    def _collected(
        self,
        frames: Sequence[Frame],
        detect: Callable[[Sequence[Frame], tuple[int, int]], list[Detections]],
    ) -> list[Detections]:
        """Run batch by batch; return the detections in the order of the frames."""
        results = [Detections()] * len(frames)
        for batch in self._batches(frames):
            found = detect([frames[i] for i in batch.indices], batch.input_hw)
            for i, detections in zip(batch.indices, found, strict=True):
                results[i] = detections
        return results

    def _batches(self, frames: Sequence[Frame]) -> Iterable[HarnessBatch]:
        """Return the batches of `__call__`."""
        return self.plan([size_of(frame) for frame in frames])

    def _detect(self, frames: Sequence[Frame], input_hw: tuple[int, int]) -> list[Detections]:
        """Detect in frames of one batch, at native size."""
        sizes_hw = [size_of(frame) for frame in frames]
        return self.detect_fitted(self.fit(frames, input_hw), sizes_hw, input_hw)

    def _kept(
        self, found: Found, fitted_hw: tuple[int, int], size_hw: tuple[int, int]
    ) -> Detections:
        """Scale boxes to the frame, and keep the best of the named classes."""
        boxes, scores = to_array(found.boxes).reshape(-1, 4), to_array(found.scores)
        labels = to_array(found.labels).astype(np.int64)
        self._check_finite(boxes, scores)
        gain_y, gain_x = (size / fitted for size, fitted in zip(size_hw, fitted_hw, strict=True))
        boxes = boxes * np.array([gain_x, gain_y, gain_x, gain_y], np.float32)
        wanted = list(self.names if self.classes is None else self.classes)
        keep = np.flatnonzero((scores >= self.conf) & np.isin(labels, wanted))
        keep = keep[np.argsort(-scores[keep], kind="stable")][: self.max_det]
        return Detections(boxes[keep], scores[keep], labels[keep])

    def _check_finite(self, *outputs: Array) -> None:
        """Raise RainmerError unless all numbers are finite."""
        for output in outputs:
            if not np.isfinite(to_array(output)).all():
                raise RainmerError(
                    f"the detector {self.source} gives numbers that are not finite (NaN): its "
                    "weights are damaged, or its precision is too low"
                )


class DerainedInside:
    """An adapted detector that derains at its own resolution, between resizing and detecting.

    Args:
        detector: The detector.
        derainer: Callable `frames -> frames`.
    """

    def __init__(self, detector: AdaptedDetector, derainer: DerainCallable) -> None:
        self._detector, self._derainer = detector, derainer
        self.name, self.names = detector.name, detector.names
        self.classes = detector.classes

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detect in frames (H, W, 3), uint8, RGB, of any sizes; same order as given."""
        detector = self._detector
        detector.classes = self.classes

        def derained(fitted: list[Frame]) -> list[Frame]:
            names = [f"image{i}.jpg" for i in range(len(fitted))]  # as ultralytics calls arrays
            return call_derainer(self._derainer, fitted, names)

        return detector.through(frames, derained)


def resized(frame: Frame, size_hw: tuple[int, int]) -> Frame:
    """Resize a frame as ultralytics does, bilinear without smoothing."""
    if frame.shape[:2] == size_hw:
        return frame
    return cast(Frame, cv2.resize(frame, size_hw[::-1], interpolation=cv2.INTER_LINEAR))


def to_array(values: Array) -> Any:  # noqa: ANN401
    """Return numbers as an array on the CPU, floats as float32."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def size_of(frame: Frame) -> tuple[int, int]:
    """Return (height, width) of a frame."""
    return frame.shape[0], frame.shape[1]
