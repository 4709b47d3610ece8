"""Detections of each image by itself, for the pictures: what they show must not depend on others.

`yolo val` gives all images of a batch one input, so an image's grey padding follows the others in
its batch, and with it a few of its detections: the same image could gain objects in a part of a set
and lose them in the whole. The measured rows stay those of `yolo val`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detection.types import MeasuringDetector
from eval.detect.comparison import Comparison
from eval.detect.table import RowResult
from eval.detect.truth import match_categories
from eval.rows.run import RowSpec, boxes_of
from eval.scores.coco import Evaluation
from eval.sets import DetectionSet, Sample
from rainmer.errors import ImageError
from rainmer.frames.arrays import Frame
from rainmer.frames.images import read_image

__all__ = ["frame_of", "padded_by_others", "seen_alone"]


def padded_by_others(data: DetectionSet, detector: MeasuringDetector) -> dict[int, tuple[int, int]]:
    """Return the images whose input in the run is not the one that they have alone.

    Args:
        data: The set as it was run.
        detector: The harness of the run.

    Returns:
        Image id to (height, width) of the input that the image has alone.
    """
    sizes = [sample.size_hw for sample in data.samples]
    alone = {size: detector.plan([size])[0].input_hw for size in set(sizes)}
    return {
        data.samples[i].image_id: alone[sizes[i]]
        for batch in detector.plan(sizes)
        for i in batch.indices
        if tuple(batch.input_hw) != tuple(alone[sizes[i]])
    }


def seen_alone(
    comparison: Comparison,
    rows: Sequence[RowResult],
    inputs: Mapping[int, tuple[int, int]],
    detector: MeasuringDetector,
    progress: Callable[[str, int], None] = lambda label, images: None,
) -> dict[RowSpec, Evaluation]:
    """Detect again where another image of the batch had a say in the padding.

    Args:
        comparison: A finished comparison.
        rows: Those that pictures show; each has frames of native size.
        inputs: From `padded_by_others`.
        detector: The harness of the run.
        progress: Called with a row's label and the number of images just finished.

    Returns:
        Each row's detections, matched to the truth; where nothing was padded, those of the run.
    """
    data = comparison.data
    to_category: Mapping[int, int] = {label: label for label in detector.names}
    if data.annotations is not None:
        match = match_categories(data.categories, detector.names, data.aliases)
        to_category = match.label_to_category
    again = [sample for sample in data.samples if sample.image_id in inputs]
    seen = {}
    for row in rows:
        results = [dict(r) for r in row.results if r["image_id"] not in inputs]
        for sample in again:
            results += _detect(row.spec, sample, inputs[sample.image_id], detector, to_category)
            progress(row.spec.label, 1)
        seen[row.spec] = Evaluation(comparison.truth, results) if again else row.evaluation
    return seen


def _detect(
    spec: RowSpec,
    sample: Sample,
    input_hw: tuple[int, int],
    detector: MeasuringDetector,
    to_category: Mapping[int, int],
) -> list[dict[str, Any]]:
    fitted = detector.fit([frame_of(spec, sample)], input_hw)
    (detections,) = detector.detect_fitted(fitted, [sample.size_hw], input_hw)
    return [
        {
            "image_id": sample.image_id,
            "category_id": to_category[int(label)],
            "bbox": box,
            "score": score,
        }
        for *box, score, label in boxes_of(detections)
        if int(label) in to_category
    ]


def frame_of(spec: RowSpec, sample: Sample) -> Frame:
    """Return what a row with frames of native size shows of an image.

    Raises:
        ImageError: The image cannot be read any more.
    """
    path = sample.clean if spec.shows_clean else sample.rainy
    if path is None:
        raise ImageError(f"{sample.name} has no clean image")
    frame = read_image(path)
    return frame if spec.derainer is None else spec.derainer([frame], [sample.name])[0].frame
