"""Pseudo-labels from a detector other than the measured one.

The paper takes the measured detector's detections on the clean images as the truth. This rewards a
derainer for what looks clean to that detector, errors included. Labels from a stronger detector of
another family are closer to the truth, and the measured detector's score on clean images is no
longer 100 % by construction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from detection.timing import StageTimes
from detection.types import MeasuringDetector
from eval.detect.truth import pseudo_truth
from eval.rows.run import RowSpec, run_row
from eval.sets import DetectionSet

__all__ = ["REMARK", "label_set"]

REMARK = (
    "{sets}: no boxes are given, so the detector's own detections on the clean images are the "
    "truth, as in the paper. That is agreement, not accuracy, and it rewards images that look "
    "clean to this very detector; --labeller with a stronger detector is recommended."
)
"""Remark on sets whose truth comes from the measured detector."""


def label_set(
    data: DetectionSet,
    labeller: MeasuringDetector,
    conf: float,
    folder: Path,
    *,
    times: StageTimes,
    progress: Callable[[int], None] = lambda images: None,
) -> DetectionSet:
    """Label a set with the labeller's confident detections on its clean images.

    Args:
        data: A set with clean images.
        labeller: The detector that labels; its classes become the set's categories.
        conf: Confidence from which a detection is a label, 0..1.
        folder: Where the labeller's row is kept, for resuming.
        times: Receives the times of decoding and detecting; see `run_row`.
        progress: Called with the number of images done.

    Raises:
        DatasetError: Nothing was detected with this confidence.
        OutputError: The row cannot be written.
    """
    run = run_row(RowSpec("clean"), data, labeller, folder, times=times, progress=progress)
    detections = [
        {"image_id": image_id, "category_id": int(label), "bbox": box, "score": score}
        for image_id, result in run.items()
        for *box, score, label in result.boxes
    ]
    truth = pseudo_truth(data, detections, labeller.names, conf)
    used = {box["category_id"] for box in truth.annotations}
    categories = {number: name for number, name in truth.categories.items() if number in used}
    return dataclasses.replace(data, annotations=truth.annotations, categories=categories)
