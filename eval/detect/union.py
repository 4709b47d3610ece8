"""The union of two rows: what a detector finds in the rainy and in the derained image together.

It costs two passes of the detector. Objects that deraining wipes out are still found, but false
detections that rain causes remain too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eval.rows.run import ImageResult
from eval.scores.errors import box_overlaps

__all__ = ["class_wise_nms", "unite_runs"]


def class_wise_nms(
    boxes: Sequence[Sequence[float]], iou_threshold: float, max_det: int
) -> list[list[float]]:
    """Suppress what overlaps a better box of its class by more than a threshold.

    Args:
        boxes: (left, top, width, height, score, label) of one image. Among equal scores the
            earlier box is the better one.
        iou_threshold: Largest IoU of two boxes of a class that both stay, 0..1.
        max_det: Most boxes of all classes together that stay.

    Returns:
        The boxes left, best first.
    """
    ordered = sorted((list(box) for box in boxes), key=lambda box: -box[4])
    items = [{"bbox": box[:4]} for box in ordered]
    labels = np.array([box[5] for box in ordered])
    rivals = (box_overlaps(items, items) > iou_threshold) & (labels[:, None] == labels[None, :])
    suppressed = np.zeros(len(ordered), dtype=bool)
    kept: list[list[float]] = []
    for n, box in enumerate(ordered):
        if len(kept) == max_det:
            break
        if not suppressed[n]:
            kept.append(box)
            suppressed |= rivals[n]
    return kept


def unite_runs(
    plain: Mapping[int, ImageResult],
    derained: Mapping[int, ImageResult],
    *,
    iou_threshold: float,
    max_det: int,
) -> dict[int, ImageResult]:
    """Unite the boxes of two rows over the same images by class-wise NMS.

    Args:
        plain: Results by image id of the images as they are.
        derained: Results of the derained images.
        iou_threshold: As in the detector's NMS.
        max_det: Most boxes of one image, as in the detector's NMS.

    Returns:
        By image id: the united boxes, the derainer's time, and the detector's for both passes.
        There is no united image, hence no restoration score. An image that either row could not
        read has its error.
    """
    united = {}
    for image_id, first in plain.items():
        second = derained[image_id]
        times = [first.detect_ms, second.detect_ms]
        united[image_id] = ImageResult(
            image_id,
            class_wise_nms([*first.boxes, *second.boxes], iou_threshold, max_det),
            derain_ms=second.derain_ms,
            detect_ms=None if None in times else sum(ms for ms in times if ms is not None),
            error=first.error or second.error,
            derain_earlier=second.derain_earlier,
            detect_earlier=first.detect_earlier or second.detect_earlier,
            derained=second.derained,
        )
    return united
