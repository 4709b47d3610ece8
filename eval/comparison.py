"""The comparison itself: rainy, derained and clean images through one detector, and their rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from detection.timing import StageTimes
from eval.bootstrap import average_precisions, difference_interval, draw_weights
from eval.cache import CachedDerainer
from eval.coco import ClassMatches, Evaluation, GroundTruth
from eval.rows import ImageResult, MeasuringDetector, RowSpec, run_row
from eval.sets import DetectionSet
from eval.truth import CategoryMatch, match_categories, pseudo_truth, set_truth
from eval.union import unite_runs
from rainmer.errors import SpecError

if TYPE_CHECKING:
    from detection.yolo.binding import Where

__all__ = ["Comparison", "NamedDetector", "RowResult", "Settings", "compare"]

_log = logging.getLogger(__name__)

SCORES = ("psnr", "ssim", "psnr_official", "ssim_official")


class NamedDetector(MeasuringDetector, Protocol):
    """A measuring detector that knows its classes."""

    @property
    def names(self) -> Mapping[int, str]:
        """Label to class name."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What turns detections into numbers."""

    count_conf: float = 0.25
    """Confidence of the TP/FP/FN counts, 0..1."""
    pseudo_conf: float = 0.25
    """Confidence from which a detection on a clean image is a pseudo-label, 0..1."""
    resamples: int = 1000
    """Bootstrap resamples of the intervals; 0 leaves intervals out."""
    seed: int = 0
    """Seed of the bootstrap."""
    union_iou: float = 0.7
    """IoU of the NMS that unites two rows; that of the detector's own NMS."""
    union_max_det: int = 300
    """Most boxes of one image in a united row; that of the detector's own NMS."""


@dataclass(frozen=True)
class RowResult:
    """One row with everything behind it."""

    spec: RowSpec
    images: Mapping[int, ImageResult]
    evaluation: Evaluation
    results: Sequence[Mapping[str, Any]]
    """COCO results of the images that count."""


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        data: The set, without images that turned out unreadable.
        truth: What rows were scored against.
        rows: Rainy first.
        table: Flat rows of metrics.json, fractions 0..1.
        per_class: Flat rows of per_class.csv.
        pseudo_labels: Whether the truth is the detector's own.
        notes: What a reader must know about the data.
    """

    data: DetectionSet
    truth: GroundTruth
    rows: Sequence[RowResult]
    table: list[dict[str, Any]]
    per_class: list[dict[str, Any]]
    pseudo_labels: bool
    notes: list[str]

    def find(self, input_name: str, derainer: str = "") -> RowResult | None:
        """Return the row of an input and a derainer's name, if it was run."""
        for row in self.rows:
            if (row.spec.input, row.spec.derainer_name) == (input_name, derainer):
                return row
        return None


def row_specs(
    data: DetectionSet,
    derainers: Sequence[CachedDerainer],
    needs_names: Sequence[bool],
    *,
    union: bool = False,
    where: Sequence[Where] = ("frame",),
) -> list[RowSpec]:
    """List the rows: rainy, clean, then each derainer on the rainy and on the clean images.

    Precomputed results exist for the rainy images only, so they get no row on clean ones. With
    `union`, each derained row is followed by its union with the row that was not derained. Each
    derainer has these rows once for each place of `where`.

    Raises:
        SpecError: Precomputed results are to be shown at the detector's resolution.
    """
    specs = [RowSpec("rainy")]
    if data.has_clean:
        specs.append(RowSpec("clean"))
    unions = (False, True) if union else (False,)
    for derainer, precomputed in zip(derainers, needs_names, strict=True):
        if precomputed and "network" in where:
            raise SpecError(
                f"{derainer.name} has derained frames of native size only: leave out either it or "
                "--where network"
            )
        for place in where:
            specs += [RowSpec("derained", derainer, united, place) for united in unions]
            if data.has_clean and not precomputed:
                specs += [RowSpec("derained_clean", derainer, united, place) for united in unions]
    return specs


def compare(
    data: DetectionSet,
    detector: NamedDetector,
    specs: Sequence[RowSpec],
    folder: Path,
    settings: Settings,
    *,
    times: StageTimes | None = None,
    progress: Callable[[str, int], None] = lambda label, images: None,
) -> Comparison:
    """Run every row and score it.

    Args:
        data: The set.
        detector: The measuring harness.
        specs: The rows, rainy first; see `row_specs`. A union comes after both its parts.
        folder: Where unfinished and finished rows are kept, for resuming.
        settings: Confidences and bootstrap.
        times: Gains what decoding and detecting take, see `run_row`.
        progress: Called with a row's label and the number of images just done.

    Raises:
        DatasetError: No category matches, or no truth is left.
        OutputError: Results cannot be written.
    """
    times = times or StageTimes()
    match = None
    if data.annotations is not None:
        match = match_categories(data.categories, detector.names, data.aliases)
        set_truth(data, match)  # what makes a set useless is said before the work, not after
    runs: dict[RowSpec, Mapping[int, ImageResult]] = {}
    for spec in specs:
        if spec.union:
            runs[spec] = _united(spec, runs, settings)
            progress(spec.label, len(data.samples))
            continue
        runs[spec] = run_row(
            spec,
            data,
            detector,
            folder,
            times=times,
            progress=lambda images, label=spec.label: progress(label, images),  # type: ignore[misc]
        )
    data = _without_failures(data, runs.values())
    to_category = match.label_to_category if match else {label: label for label in detector.names}
    results = {spec: _coco_results(data, run, to_category) for spec, run in runs.items()}
    truth = _truth(data, match, detector, specs, results, settings)
    rows = [
        RowResult(spec, runs[spec], Evaluation(truth, results[spec]), results[spec])
        for spec in specs
    ]
    return Comparison(
        data=data,
        truth=truth,
        rows=rows,
        table=_table(data, truth, rows, settings),
        per_class=_per_class(data, rows),
        pseudo_labels=match is None,
        notes=_notes(data, match, specs),
    )


def _united(
    spec: RowSpec, runs: Mapping[RowSpec, Mapping[int, ImageResult]], settings: Settings
) -> dict[int, ImageResult]:
    return unite_runs(
        runs[RowSpec("clean" if spec.shows_clean else "rainy")],
        runs[replace(spec, union=False)],
        iou_threshold=settings.union_iou,
        max_det=settings.union_max_det,
    )


def _without_failures(
    data: DetectionSet, runs: Iterable[Mapping[int, ImageResult]]
) -> DetectionSet:
    """Leave an image that one row could not read out of all rows."""
    failed = {
        image_id: result.error for run in runs for image_id, result in run.items() if result.error
    }
    if not failed:
        return data
    for sample in data.samples:
        if sample.image_id in failed:
            data.defects.error("unreadable image, skipped", sample.key)
            _log.warning("%s", failed[sample.image_id])
    return data.without(failed)


def _coco_results(
    data: DetectionSet, run: Mapping[int, ImageResult], to_category: Mapping[int, int]
) -> list[dict[str, Any]]:
    """Return COCO results in the set's categories; classes that the set lacks are left out."""
    return [
        {
            "image_id": sample.image_id,
            "category_id": to_category[int(label)],
            "bbox": box,
            "score": score,
        }
        for sample in data.samples
        for *box, score, label in run[sample.image_id].boxes
        if int(label) in to_category
    ]


def _truth(
    data: DetectionSet,
    match: CategoryMatch | None,
    detector: NamedDetector,
    specs: Sequence[RowSpec],
    results: Mapping[RowSpec, Sequence[Mapping[str, Any]]],
    settings: Settings,
) -> GroundTruth:
    if match is not None:
        return set_truth(data, match)
    clean = next(spec for spec in specs if spec.input == "clean")
    return pseudo_truth(data, results[clean], detector.names, settings.pseudo_conf)


def _table(
    data: DetectionSet, truth: GroundTruth, rows: Sequence[RowResult], settings: Settings
) -> list[dict[str, Any]]:
    table = []
    matches = [row.evaluation.class_matches() for row in rows]
    for condition, image_ids in data.conditions.items():
        summaries = [row.evaluation.summary(image_ids) for row in rows]
        maps = {row.spec: summary["mAP"] for row, summary in zip(rows, summaries, strict=True)}
        samples = _resampled(rows, matches, image_ids, settings)
        objects = sum(a["image_id"] in image_ids for a in truth.annotations)
        for row, summary in zip(rows, summaries, strict=True):
            change = _change(row.spec, _reference(row.spec), maps, samples)
            # What the place changes, where the same row was also derained at native size.
            frame = replace(row.spec, where="frame") if row.spec.where == "network" else None
            place = _change(row.spec, frame, maps, samples)
            table.append(
                {
                    "set": data.name,
                    "condition": condition,
                    "input": row.spec.input,
                    "derainer": row.spec.derainer_name,
                    **summary,
                    "delta_mAP": change.difference,
                    "ci_low": change.low,
                    "ci_high": change.high,
                    "delta_frame": place.difference,
                    "frame_ci_low": place.low,
                    "frame_ci_high": place.high,
                    "recovered": _recovered(row.spec, maps),
                    **_mean_scores(row, image_ids),
                    **_counts(row, image_ids, settings.count_conf),
                    **_times(row, image_ids),
                    "images": len(image_ids),
                    "boxes": objects,
                }
            )
    return table


def _resampled(
    rows: Sequence[RowResult],
    matches: Sequence[Sequence[ClassMatches]],
    image_ids: frozenset[int],
    settings: Settings,
) -> dict[RowSpec, npt.NDArray[np.float64]]:
    """Return the mAP of each row on each bootstrap resample; empty where there is no interval."""
    if settings.resamples == 0 or len(image_ids) < 2:
        return {}
    order = rows[0].evaluation.image_ids
    positions = [n for n, image_id in enumerate(order) if image_id in image_ids]
    weights = np.zeros((settings.resamples, len(order)))
    weights[:, positions] = draw_weights(len(positions), settings.resamples, settings.seed)
    return {
        row.spec: average_precisions(classes, weights)
        for row, classes in zip(rows, matches, strict=True)
    }


class _Change(NamedTuple):
    """A difference of two rows with the ends of its 95 % interval, as far as they are defined."""

    difference: float | None
    low: float | None = None
    high: float | None = None


def _reference(spec: RowSpec) -> RowSpec | None:
    """Return the row that a row is compared with."""
    if spec.input == "rainy":
        return None
    return RowSpec("clean" if spec.input == "derained_clean" else "rainy")


def _change(
    spec: RowSpec,
    reference: RowSpec | None,
    maps: Mapping[RowSpec, float | None],
    samples: Mapping[RowSpec, npt.NDArray[np.float64]],
) -> _Change:
    if reference is None or reference not in maps:
        return _Change(None)
    difference = _difference(maps[spec], maps[reference])
    if not samples:
        return _Change(difference)
    interval = difference_interval(samples[spec], samples[reference])
    return _Change(difference, *(interval or (None, None)))


def _difference(value: float | None, reference: float | None) -> float | None:
    return value - reference if value is not None and reference is not None else None


def _recovered(spec: RowSpec, maps: Mapping[RowSpec, float | None]) -> float | None:
    """Return (derained - rainy) / (clean - rainy); None where the rain took nothing."""
    derained, rainy, clean = maps[spec], maps[RowSpec("rainy")], maps.get(RowSpec("clean"))
    if spec.input != "derained" or derained is None or rainy is None or clean is None:
        return None
    return (derained - rainy) / (clean - rainy) if clean > rainy else None


def _mean_scores(row: RowResult, image_ids: Iterable[int]) -> dict[str, float | None]:
    """Return the mean of each restoration score over images; infinite for equal images."""
    means: dict[str, float | None] = dict.fromkeys(SCORES)
    for name in SCORES:
        values = [s[name] for i in image_ids if name in (s := row.images[i].scores)]
        if values:
            means[name] = float(np.mean(values))
    return means


def _counts(row: RowResult, image_ids: Iterable[int], conf: float) -> dict[str, float | int | None]:
    counts = row.evaluation.counts(image_ids, conf)
    found, detected = counts["tp"], counts["tp"] + counts["fp"]
    objects = counts["tp"] + counts["fn"]
    return {
        **counts,
        "precision": found / detected if detected else None,
        "recall": found / objects if objects else None,
    }


def _times(row: RowResult, image_ids: Iterable[int]) -> dict[str, float | None]:
    results = [row.images[i] for i in image_ids]
    derain = [r.derain_ms for r in results if r.derain_ms is not None]
    detect = [r.detect_ms for r in results if r.detect_ms is not None]
    derain_ms = float(np.mean(derain)) if derain else None
    detect_ms = float(np.mean(detect)) if detect else None
    if detect_ms is None or (row.spec.derainer is not None and derain_ms is None):
        total = None
    else:
        total = detect_ms + (derain_ms or 0.0)
    return {"ms_derain": derain_ms, "ms_detect": detect_ms, "ms_per_image": total}


def _per_class(data: DetectionSet, rows: Sequence[RowResult]) -> list[dict[str, Any]]:
    """Return AP per class, condition and row; `delta_AP` as `delta_mAP` in the table."""
    table = []
    for condition, image_ids in data.conditions.items():
        references: dict[str, dict[str, float | None]] = {}
        for row in rows:
            classes = row.evaluation.per_class(image_ids)
            if row.spec.derainer is None:
                references[row.spec.input] = {entry["class"]: entry["AP"] for entry in classes}
            reference = references["clean" if row.spec.input == "derained_clean" else "rainy"]
            for entry in classes:
                delta = _difference(entry["AP"], reference[entry["class"]])
                table.append(
                    {
                        "condition": condition,
                        "input": row.spec.input,
                        "derainer": row.spec.derainer_name,
                        **entry,
                        "delta_AP": None if row.spec.input == "rainy" else delta,
                    }
                )
    return table


def _notes(data: DetectionSet, match: CategoryMatch | None, specs: Sequence[RowSpec]) -> list[str]:
    notes = data.defects.lines()
    if match is None:
        notes.insert(
            0, "no boxes are given: rows are scored against the detector's view of the clean images"
        )
    elif match.unmatched:
        lost = set(match.unmatched)
        names = {i for i, name in data.categories.items() if name in lost}
        boxes = sum(a["category_id"] in names for a in data.annotations or ())
        notes.append(
            f"categories that the detector does not know, left out: {', '.join(match.unmatched)} "
            f"({boxes} boxes)"
        )
    if match is not None and match.unused:
        notes.append(f"{match.unused} classes of the detector are not in the set and do not count")
    if not data.has_clean:
        notes.append("no clean images: no ceiling, no PSNR, no test on dry frames")
    derained = {s.derainer_name for s in specs if s.input == "derained" and not s.union}
    dry = {s.derainer_name for s in specs if s.input == "derained_clean"}
    if data.has_clean and derained - dry:
        notes.append(f"not measured on clean images: {', '.join(sorted(derained - dry))}")
    return notes
