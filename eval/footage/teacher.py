"""Pseudo-labels of a larger detector: how much of what it surely sees does the detector find?

The teacher looks at the same frames. It shares their blind spots: what rain hides from both counts
as nobody's loss. Labels that it makes on derained frames favour that derainer, for it may see the
same artefacts; those made on rainy frames favour no deraining. So both are shown, and what counts
is what both say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from detection.types import Detections, Detector
from eval.footage.matching import pair
from rainmer.errors import RainmerError
from rainmer.frames.arrays import Frame
from rainmer.stage.restorers import digest

__all__ = ["Agreement", "Teacher", "agree"]


class Teacher:
    """A detector whose confident detections serve as labels for another one.

    Args:
        detector: The larger detector.
        names: Classes of the detector that it teaches; they match by name.
        conf: Confidence from which its detections are labels, 0..1.
        weights: Fingerprint of its weights.

    Attributes:
        name: Its name.
        weights: Fingerprint of its weights.
        fingerprint: Changes with weights and confidence.
        labels: Classes of the taught detector that it knows.

    Raises:
        RainmerError: It knows none of these classes.
    """

    def __init__(
        self, detector: Detector, names: Mapping[int, str], conf: float, weights: str
    ) -> None:
        self.name = detector.name
        self.weights, self.fingerprint = weights, digest(weights, str(conf))
        self._detector, self._conf = detector, conf
        taught = {name.casefold(): label for label, name in names.items()}
        self._labels = {
            own: taught[name.casefold()]
            for own, name in detector.names.items()
            if name.casefold() in taught
        }
        self.labels = frozenset(self._labels.values())
        if not self._labels:
            raise RainmerError(
                f"the teacher {self.name} knows none of the detector's classes: "
                f"{', '.join(names.values())}"
            )

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        """Label frames (H, W, 3), uint8, RGB, with the classes of the taught detector."""
        return [self._labels_of(found) for found in self._detector(frames)]

    def _labels_of(self, found: Detections) -> Detections:
        sure = found.select((found.scores >= self._conf) & np.isin(found.labels, [*self._labels]))
        labels = np.array([self._labels[int(label)] for label in sure.labels], np.int64)
        return Detections(sure.boxes_xyxy, sure.scores, labels)


class Agreement(NamedTuple):
    """Counts of one frame: labels that are found, all labels, all detections."""

    found: int
    labels: int
    detections: int


def agree(
    labels: Detections, detections: Detections, conf: float, classes: Collection[int]
) -> Agreement:
    """Compare detections that reach a confidence with labels, by class and IoU 0.5.

    Args:
        labels: What the teacher sees.
        detections: What the detector finds.
        conf: Confidence from which that counts, 0..1.
        classes: The classes that the teacher knows; others do not count.
    """
    counts = (detections.scores >= conf) & np.isin(detections.labels, [*classes])
    sure = detections.select(counts)
    return Agreement(len(pair(labels, sure)), len(labels), len(sure))
