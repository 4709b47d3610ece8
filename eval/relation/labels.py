"""Pseudo-labels by another detector than the one that is measured.

The paper takes the detector's own detections on the clean images as the truth. A derainer is then
rewarded for what looks clean to that very detector, errors included. Labels of a stronger detector
of another family are nearer to the truth, and the measured detector's clean row becomes a ceiling
that is not 100 % by construction.
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
"""What a reader must know of sets whose truth is the detector's own."""


def label_set(
    data: DetectionSet,
    labeller: MeasuringDetector,
    conf: float,
    folder: Path,
    *,
    times: StageTimes,
    progress: Callable[[int], None] = lambda images: None,
) -> DetectionSet:
    """Give a set the labeller's confident detections on its clean images as boxes.

    Args:
        data: A set with clean images.
        labeller: The detector that labels; its classes become the set's categories.
        conf: Confidence from which a detection is a label, 0..1.
        folder: Where the labeller's row is kept, for resuming.
        times: Decoding and detecting add their time to it, see `run_row`.
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
