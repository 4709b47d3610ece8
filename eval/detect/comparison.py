"""The comparison itself: rainy, derained and clean images through one detector, and their rows."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detection.timing import StageTimes
from detection.types import MeasuringDetector, Where
from eval.detect.model import ClassRow, TableRow
from eval.detect.table import RowResult, Settings, table_rows
from eval.detect.truth import CategoryMatch, match_categories, pseudo_truth, set_truth
from eval.detect.union import unite_runs
from eval.detect.verdicts import decisive_classes
from eval.rows.cache import RowDerainer
from eval.rows.run import ImageResult, RowSpec, run_row
from eval.scores.coco import Evaluation, GroundTruth
from eval.sets import DetectionSet
from rainmer.errors import SpecError

__all__ = ["Comparison", "compare", "row_specs"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        data: The set, without images that turned out unreadable.
        truth: What rows were scored against.
        rows: Rainy first.
        table: The table of scores, fractions 0..1.
        per_class: The same by class.
        pseudo_labels: Whether the truth is what the detector finds on the clean images.
        data_notes: What a reader must know about the data.
        not_on_clean: Derainers that were not measured on clean images, though the set has them.
    """

    data: DetectionSet
    truth: GroundTruth
    rows: Sequence[RowResult]
    table: list[TableRow]
    per_class: list[ClassRow]
    pseudo_labels: bool
    data_notes: list[str]
    not_on_clean: Sequence[str]

    @property
    def notes(self) -> list[str]:
        """What a reader must know about the data, about missing rows, and about tiny classes."""
        notes = [*self.data_notes]
        if self.not_on_clean:
            notes.append(f"not measured on clean images: {', '.join(self.not_on_clean)}")
        notes += decisive_classes(self.table, self.per_class)
        return notes

    def find(self, input_name: str, derainer: str = "") -> RowResult | None:
        """Return the row of an input and a derainer's name, if it was run."""
        for row in self.rows:
            if (row.spec.input, row.spec.derainer_name) == (input_name, derainer):
                return row
        return None


def row_specs(
    data: DetectionSet,
    derainers: Sequence[RowDerainer],
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
    for derainer in derainers:
        if derainer.precomputed and "network" in where:
            raise SpecError(
                f"{derainer.name} has derained frames of native size only: leave out either it or "
                "--where network"
            )
        for place in where:
            specs += [RowSpec("derained", derainer, united, place) for united in unions]
            if data.has_clean and not derainer.precomputed:
                specs += [RowSpec("derained_clean", derainer, united, place) for united in unions]
    return specs


def compare(
    data: DetectionSet,
    detector: MeasuringDetector,
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
        times: Decoding and detecting add their time to it, see `run_row`.
        progress: Called with a row's label and the number of images just finished.

    Raises:
        DatasetError: No category matches, or no truth is left.
        OutputError: Results cannot be written.
    """
    times = times or StageTimes()
    match = None
    if data.annotations is not None:
        match = match_categories(data.categories, detector.names, data.aliases)
        set_truth(data, match)  # a useless set is refused before the work
    runs: dict[RowSpec, Mapping[int, ImageResult]] = {}
    for spec in specs:
        advance = functools.partial(progress, spec.label)
        if spec.union:
            runs[spec] = _united(spec, runs, settings)
            advance(len(data.samples))
        else:
            runs[spec] = run_row(spec, data, detector, folder, times=times, progress=advance)
    data = _without_failures(data, runs.values())
    to_category = match.label_to_category if match else {label: label for label in detector.names}
    results = {spec: _coco_results(data, run, to_category) for spec, run in runs.items()}
    truth = _truth(data, match, detector, specs, results, settings)
    rows = [
        RowResult(spec, runs[spec], Evaluation(truth, results[spec]), results[spec])
        for spec in specs
    ]
    table, per_class = table_rows(data, truth, rows, settings)
    return Comparison(
        data=data,
        truth=truth,
        rows=rows,
        table=table,
        per_class=per_class,
        pseudo_labels=match is None,
        data_notes=_notes(data, match),
        not_on_clean=_not_on_clean(data, specs),
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
    """Leave images that any row could not read out of all rows."""
    failed = {
        image_id: result.error for run in runs for image_id, result in run.items() if result.error
    }
    if not failed:
        return data
    for sample in data.samples:
        if sample.image_id in failed:
            data.defects.error("unreadable image, skipped", sample.name)
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
    detector: MeasuringDetector,
    specs: Sequence[RowSpec],
    results: Mapping[RowSpec, Sequence[Mapping[str, Any]]],
    settings: Settings,
) -> GroundTruth:
    if match is not None:
        return set_truth(data, match)
    clean = next(spec for spec in specs if spec.input == "clean")
    return pseudo_truth(data, results[clean], detector.names, settings.pseudo_conf)


def _notes(data: DetectionSet, match: CategoryMatch | None) -> list[str]:
    notes = [*data.defects.error_lines(), *data.defects.note_lines()]
    if match is None:
        notes.insert(
            0, "no boxes are given: rows are scored against the detector's view of the clean images"
        )
    elif match.unmatched:
        ids = {i for i, name in data.categories.items() if name in match.unmatched}
        boxes = sum(a["category_id"] in ids for a in data.annotations or ())
        notes.append(
            f"categories that the detector does not know, left out: {', '.join(match.unmatched)} "
            f"({boxes} boxes)"
        )
    if match is not None and match.unused:
        notes.append(f"{match.unused} classes of the detector are not in the set and do not count")
    if not data.has_clean:
        notes.append("no clean images: no ceiling, no PSNR, no test on dry frames")
    return notes


def _not_on_clean(data: DetectionSet, specs: Sequence[RowSpec]) -> list[str]:
    derained = {s.derainer_name for s in specs if s.input == "derained" and not s.union}
    clean = {s.derainer_name for s in specs if s.input == "derained_clean"}
    return sorted(derained - clean) if data.has_clean else []
