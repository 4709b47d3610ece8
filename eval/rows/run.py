"""Running one row of a comparison: every image through derainer and detector, resumable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from detection.timing import StageTimes
from detection.types import Detections, MeasuringDetector, Where
from eval.rows.cache import Derained, RowDerainer
from eval.rows.records import RecordFile
from eval.sets import DetectionSet, Sample
from rainmer.background import prefetch
from rainmer.errors import ImageError
from rainmer.frames.arrays import Frame, upload
from rainmer.frames.images import read_image
from rainmer.metrics import restoration_scores

__all__ = ["ImageResult", "RowInput", "RowSpec", "boxes_of", "run_row"]

RowInput = Literal["rainy", "derained", "clean", "derained_clean"]
"""What a row shows to the detector."""


@dataclass(frozen=True)
class RowSpec:
    """Which pixels a row shows to the detector.

    A row with `union` shows it both the derained image and its original, and unites the detections.
    `where` is that of `detection.attach`: `network` derains the image at the detector's resolution,
    without the grey padding.
    """

    input: RowInput
    derainer: RowDerainer | None = None
    union: bool = False
    where: Where = "frame"

    @property
    def derainer_name(self) -> str:
        """Name of the derainer; empty where there is none.

        With `network-` before it where it derains at the detector's resolution, and `union-` before
        that of a union.
        """
        if self.derainer is None:
            return ""
        name = self.derainer.name
        name = name if self.where == "frame" else f"{self.where}-{name}"
        return f"union-{name}" if self.union else name

    @property
    def label(self) -> str:
        """A name for progress and files, such as `derained-median`."""
        return f"{self.input}-{self.derainer_name}" if self.derainer else self.input

    @property
    def shows_clean(self) -> bool:
        """Whether the row starts from the clean images."""
        return self.input in ("clean", "derained_clean")

    @property
    def reference(self) -> RowSpec | None:
        """The row that this one is compared with: clean for `derained_clean`, else rainy."""
        if self.input == "rainy":
            return None
        return RowSpec("clean" if self.input == "derained_clean" else "rainy")

    @property
    def has_frames(self) -> bool:
        """Whether there are frames of native size, to be scored and shown as pictures."""
        return not self.union and self.where == "frame"


@dataclass(frozen=True)
class ImageResult:
    """The result of one row for one image.

    `boxes` are (left, top, width, height, score, label); coordinates rounded to 1/1000 pixel and
    scores to 5 decimals, as ultralytics writes them, so that the numbers follow from the files.
    `scores` lacks what cannot be measured, such as the SSIM of an image smaller than its window.
    `derain_earlier` and `detect_earlier` say of a time that an earlier run took it: the frame comes
    from the cache, or the whole result from an interrupted run. An image that could not be read has
    `error`.
    `derained` says whether the derainer's gate derained it; None: there is no gate.
    """

    image_id: int
    boxes: list[list[float]] = field(default_factory=list)
    derain_ms: float | None = None
    detect_ms: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    derain_earlier: bool = False
    detect_earlier: bool = False
    derained: bool | None = None


def run_row(
    spec: RowSpec,
    data: DetectionSet,
    detector: MeasuringDetector,
    folder: Path,
    *,
    times: StageTimes,
    progress: Callable[[int], None] = lambda images: None,
) -> dict[int, ImageResult]:
    """Run one row, resuming an interrupted run of the same row.

    Results are appended to a file in `folder`, batch by batch; its name holds a digest of all that
    the row depends on, so a changed set, detector or derainer starts a new one.

    Args:
        spec: Which pixels the detector sees.
        data: The set; every row of a comparison gets the same one.
        detector: The measuring harness.
        folder: Where row files are kept.
        times: Decoding and detecting add their time to its stages `decode` and `detect`.
        progress: Called with the number of images just finished.

    Returns:
        The result of each image by image id; unreadable images have `error`.

    Raises:
        OutputError: The results cannot be written.
    """
    file = RecordFile(
        folder, spec.label, _key_parts(spec, data, detector), ImageResult, _has_valid_values
    )
    results = {
        result.image_id: replace(result, derain_earlier=True, detect_earlier=True)
        for result in file.read()
    }
    pending = []
    for batch in detector.plan([sample.size_hw for sample in data.samples]):
        samples = [data.samples[i] for i in batch.indices]
        if all(sample.image_id in results for sample in samples):
            progress(len(samples))
        else:
            pending.append((samples, batch.input_hw))
    batches = ((_load(spec, chosen, times), input_hw) for chosen, input_hw in pending)
    for loaded, input_hw in prefetch(batches, ahead=2):
        batch_results = _run_batch(spec, loaded, input_hw, detector, times, progress)
        file.append(*batch_results)
        results.update({result.image_id: result for result in batch_results})
    return {sample.image_id: results[sample.image_id] for sample in data.samples}


@dataclass(frozen=True)
class _Loaded:
    """A decoded pair: the image that the row shows and its clean partner, or why there is none."""

    sample: Sample
    frame: Frame | None = None
    clean: Frame | None = None
    error: str | None = None


def _load(spec: RowSpec, samples: Sequence[Sample], times: StageTimes) -> list[_Loaded]:
    loaded = []
    with times.measuring("decode"):
        for sample in samples:
            try:
                clean = _read(sample.clean, sample.size_hw) if sample.clean is not None else None
                frame = clean if spec.shows_clean else _read(sample.rainy, sample.size_hw)
                loaded.append(_Loaded(sample, frame, clean))
            except ImageError as error:
                loaded.append(_Loaded(sample, error=str(error)))
    return loaded


def _read(path: Path, size_hw: tuple[int, int]) -> Frame:
    """Read an image; raise ImageError if its size is not that of its header."""
    frame = read_image(path)
    height, width = frame.shape[:2]
    if (height, width) != size_hw:
        raise ImageError(
            f"{path} is {width}x{height} but was {size_hw[1]}x{size_hw[0]} by its header; "
            "copy it again"
        )
    return frame


def _run_batch(
    spec: RowSpec,
    loaded: Sequence[_Loaded],
    input_hw: tuple[int, int],
    detector: MeasuringDetector,
    times: StageTimes,
    progress: Callable[[int], None],
) -> list[ImageResult]:
    usable = [item for item in loaded if item.frame is not None]
    frames = [item.frame for item in usable if item.frame is not None]
    names = [item.sample.name for item in usable]
    before_ms = times.total_ms("detect")
    if spec.where == "network":
        with times.measuring("detect"):
            frames = detector.fit(frames, input_hw)
        shown = _shown(spec, frames, names, progress)
        fitted = [item.frame for item in shown]
    else:
        shown = _shown(spec, frames, names, progress)
        with times.measuring("detect"):
            fitted = detector.fit([item.frame for item in shown], input_hw)
    with times.measuring("detect"):
        detections = detector.detect_fitted(
            fitted, [item.sample.size_hw for item in usable], input_hw
        )
    elapsed_ms = times.total_ms("detect") - before_ms
    scores = _scores(spec, [item.frame for item in shown], [item.clean for item in usable])
    results = [
        ImageResult(
            item.sample.image_id,
            boxes_of(in_image),
            derain_ms=derained.elapsed_ms,
            detect_ms=elapsed_ms / len(usable),
            scores=score,
            derain_earlier=derained.earlier,
            derained=derained.derained,
        )
        for item, in_image, derained, score in zip(usable, detections, shown, scores, strict=True)
    ]
    failed = [item for item in loaded if item.frame is None]
    progress(len(failed))
    return results + [ImageResult(item.sample.image_id, error=item.error) for item in failed]


def _shown(
    spec: RowSpec, frames: Sequence[Frame], names: Sequence[str], progress: Callable[[int], None]
) -> list[Derained]:
    """Return what the detector sees: the frames, derained a few at a time if the row says so."""
    if spec.derainer is None:
        progress(len(frames))
        return [Derained(frame, None) for frame in frames]
    shown: list[Derained] = []
    for start in range(0, len(frames), spec.derainer.batch):
        part = slice(start, start + spec.derainer.batch)
        shown += spec.derainer(frames[part], names[part])
        progress(len(shown) - start)
    return shown


def _scores(
    spec: RowSpec, frames: Sequence[Frame], cleans: Sequence[Frame | None]
) -> list[dict[str, float]]:
    """Return PSNR and SSIM of each frame against its clean partner.

    Empty where there is no partner, or no frame of its size; what is not a number (SSIM of tiny
    images) is left out.
    """
    scores: list[dict[str, float]] = [{} for _ in frames]
    if spec.input == "clean" or not spec.has_frames:
        return scores
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, (frame, clean) in enumerate(zip(frames, cleans, strict=True)):
        if clean is not None:
            groups.setdefault(frame.shape, []).append(i)
    for indices in groups.values():
        preds = upload([frames[i] for i in indices])
        target = upload([clean for i in indices if (clean := cleans[i]) is not None])
        batch = {
            name: values.tolist() for name, values in restoration_scores(preds, target).items()
        }
        for position, i in enumerate(indices):
            scores[i] = {
                name: values[position]
                for name, values in batch.items()
                if not math.isnan(values[position])
            }
    return scores


def boxes_of(detections: Detections) -> list[list[float]]:
    """Return the boxes of an image as `ImageResult` has them."""
    left_top, right_bottom = detections.boxes_xyxy[:, :2], detections.boxes_xyxy[:, 2:]
    ltwh = np.concatenate([left_top, right_bottom - left_top], axis=1).astype(np.float64)
    return [
        [*(round(value, 3) for value in box), round(score, 5), label]
        for box, score, label in zip(
            ltwh.tolist(),
            detections.scores.astype(np.float64).tolist(),
            detections.labels.tolist(),
            strict=True,
        )
    ]


def _has_valid_values(result: ImageResult) -> bool:
    """Tell whether the values of a result that was read have the types of their fields."""
    times = [ms for ms in (result.derain_ms, result.detect_ms) if ms is not None]
    return (
        type(result.image_id) is int
        and isinstance(result.boxes, list)
        and all(isinstance(box, list) and len(box) == 6 for box in result.boxes)
        and all(_are_floats(box[:5]) and type(box[5]) is int for box in result.boxes)
        and isinstance(result.scores, dict)
        and _are_floats([*result.scores.values(), *times])
        and isinstance(result.error, str | None)
        and isinstance(result.derain_earlier, bool)
        and isinstance(result.detect_earlier, bool)
        and isinstance(result.derained, bool | None)
    )


def _are_floats(values: Sequence[object]) -> bool:
    """Tell whether all are floats; infinity is one, NaN is none."""
    return all(isinstance(value, float) and not math.isnan(value) for value in values)


def _key_parts(spec: RowSpec, data: DetectionSet, detector: MeasuringDetector) -> list[object]:
    """Return all that the row's numbers depend on."""
    return [
        data.fingerprint,
        [sample.image_id for sample in data.samples],
        detector.fingerprint,
        spec.input,
        spec.derainer.fingerprint if spec.derainer else "",
        spec.where,
    ]
