"""Rows of scores: rainy and derained, set by set, on the same images."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from eval.restore.methods import Method
from eval.restore.metrics import Metric
from eval.restore.rows import ImageScore, RowRunner
from eval.restore.scores import (
    MeanScore,
    Measure,
    compare_scores,
    key_of,
    mean_score,
    measures_of,
)
from eval.restore.sets import RestorationSet
from eval.scores.score import Score
from eval.scores.timing import Timing, timing_of
from rainmer.data.layouts import Pair
from rainmer.metrics import WINDOW, Convention

__all__ = ["Comparison", "RowResult", "SceneRow", "Settings", "TableRow", "compare_sets"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are scored and the scores averaged over sets.

    Attributes:
        conventions: How images are scored; the first is the main one.
        resamples: Bootstrap resamples of the intervals; 0 leaves intervals out.
        seed: Seed of the bootstrap.
        metrics: Metrics to measure besides PSNR and SSIM.
    """

    conventions: Sequence[Convention]
    resamples: int = 1000
    seed: int = 0
    metrics: Sequence[Metric] = ()

    @property
    def measures(self) -> list[Measure]:
        """All measures: PSNR and SSIM of each convention, then the other metrics."""
        return [m for name in self.conventions for m in measures_of(name)] + [*self.metrics]

    @property
    def main_measures(self) -> list[Measure]:
        """PSNR and SSIM of the main convention, then the other metrics."""
        return [*measures_of(self.conventions[0]), *self.metrics]


@dataclass(frozen=True)
class RowResult:
    """The scores of a set's images, derained by a method or as they are.

    Attributes:
        image_set: The set.
        method: The method; None for the rainy images.
        scores: Scores of the readable images, by name; with `error` where a result does not match
            its image.
    """

    image_set: RestorationSet
    method: Method | None
    scores: Mapping[str, ImageScore]

    @property
    def name(self) -> str:
        """The method's name; empty for the rainy images."""
        return self.method.name if self.method else ""

    @property
    def input(self) -> Literal["rainy", "derained"]:
        """Which images were scored."""
        return "derained" if self.method else "rainy"

    @property
    def usable(self) -> list[Pair]:
        """The images that count in this row: those without an error."""
        return [
            image
            for image in self.image_set.images
            if image.name in self.scores and self.scores[image.name].error is None
        ]

    def values(self, key: str) -> list[float]:
        """Return the scores of a measure over the usable images that have it."""
        scores = (self.scores[image.name].scores for image in self.usable)
        return [values[key] for values in scores if key in values]

    def pairs(self, rainy: RowResult, key: str) -> list[tuple[Pair, float, float]]:
        """Return the images scored in both rows, with their rainy scores and those of this row."""
        return [
            (image, before[key], after[key])
            for image in self.usable
            if key in (before := rainy.scores[image.name].scores)
            and key in (after := self.scores[image.name].scores)
        ]


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row of metrics.json: a set as it is, or derained by one method.

    Attributes:
        set: The set's label.
        layout: Name of the set's layout.
        input: Which images were scored.
        derainer: Name of the method; empty for the rainy images.
        scores: Scores by name of the measure; all rows of a run have the same measures.
        ms_per_image: Mean time of the derainer in milliseconds; None where it is unknown.
        timing: The median, which is what is shown.
        images: Number of images that count.
        set_images: Number of images of the set in this run.
        scenes: Number of scenes; None for a set without scenes.
        has_reference: Whether the set has clean images.
    """

    set: str
    layout: str
    input: Literal["rainy", "derained"]
    derainer: str
    scores: Mapping[str, MeanScore]
    ms_per_image: float | None
    images: int
    set_images: int
    scenes: int | None
    has_reference: bool
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True, kw_only=True)
class SceneRow:
    """One row of scenes.csv: a scene as it is, or derained by one method.

    Attributes:
        set: The set's label.
        scene: The scene's name.
        input: Which images were scored.
        derainer: Name of the method; empty for the rainy images.
        means: Mean score by name of the measure.
        images: Number of images of the scene that count.
    """

    set: str
    scene: str
    input: Literal["rainy", "derained"]
    derainer: str
    means: Mapping[str, float | None]
    images: int


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        sets: The sets, with all defects found while reading them.
        rows: Rows of image scores by set, rainy images first.
        table: Rows of metrics.json.
        scenes: Rows of scenes.csv, of sets with scenes.
        notes: Remarks on the data for readers of the report.
    """

    sets: Sequence[RestorationSet]
    rows: Sequence[RowResult]
    table: Sequence[TableRow]
    scenes: Sequence[SceneRow]
    notes: Sequence[str]

    def errors(self) -> list[str]:
        """Return one line for each set with images that were left out."""
        lines = ((image_set.label, image_set.defects.error_lines()) for image_set in self.sets)
        return [f"{label}: {'; '.join(errors)}" for label, errors in lines if errors]


def compare_sets(
    sets: Sequence[RestorationSet],
    methods: Sequence[Method],
    runner: RowRunner,
    settings: Settings,
    progress: Callable[[str, int], None] = lambda label, images: None,
) -> Comparison:
    """Run and score every row.

    Args:
        sets: The sets to restore.
        methods: The methods to compare.
        runner: Runs a row.
        settings: Conventions and bootstrap.
        progress: Called with a row's label and the number of images just finished.

    Raises:
        OutputError: Results cannot be written.
    """
    rows: list[RowResult] = []
    table: list[TableRow] = []
    scenes: list[SceneRow] = []
    notes: list[str] = []
    for image_set in sets:
        of_set = []
        for method in (None, *methods):
            tell = partial(progress, f"{image_set.label} {method.name if method else 'rainy'}")
            of_set.append(RowResult(image_set, method, runner.run(image_set, method, tell)))
        of_set = _without_unreadable(of_set)
        rows += of_set
        table += [_table_row(row, of_set[0], settings) for row in of_set if row.usable]
        if image_set.has_scenes and image_set.has_reference:
            scenes += [scene for row in of_set for scene in _scene_rows(row, settings)]
        notes += [f"{image_set.label}: {note}" for note in _notes(image_set, of_set, settings)]
    return Comparison(sets, rows, table, scenes, notes)


def _without_unreadable(rows: Sequence[RowResult]) -> list[RowResult]:
    """Drop unreadable images from all rows, and report them and mismatched results.

    Args:
        rows: All rows of one set, the rainy images first.
    """
    defects = rows[0].image_set.defects
    unreadable = {score.name: score.error for score in rows[0].scores.values() if score.error}
    for error in unreadable.values():
        defects.error("unreadable image, left out", str(error))
    kept = []
    for row in rows:
        scores = {name: s for name, s in row.scores.items() if name not in unreadable}
        for score in scores.values():
            if score.error is not None:
                defects.error(f"result of {row.name} that does not fit, left out", score.error)
        kept.append(RowResult(row.image_set, row.method, scores))
    return kept


def _table_row(row: RowResult, rainy: RowResult, settings: Settings) -> TableRow:
    usable = row.usable
    timed = [
        (row.scores[image.name].elapsed_ms, row.scores[image.name].earlier) for image in usable
    ]
    times = [ms for ms, _ in timed if ms is not None]
    keys = [measure.key for measure in settings.measures]
    return TableRow(
        set=row.image_set.label,
        layout=row.image_set.layout,
        input=row.input,
        derainer=row.name,
        scores={key: _mean_score(row, rainy, key, settings) for key in keys},
        ms_per_image=float(np.mean(times)) if times else None,
        timing=timing_of(timed),
        images=len(usable),
        set_images=len(row.image_set.images),
        scenes=len({image.scene for image in usable}) if row.image_set.has_scenes else None,
        has_reference=row.image_set.has_reference,
    )


def _mean_score(row: RowResult, rainy: RowResult, key: str, settings: Settings) -> MeanScore:
    values = row.values(key)
    finite = [value for value in values if math.isfinite(value)]
    infinite = sum(map(math.isinf, values))
    return MeanScore(
        mean=mean_score(values),
        change=_change(row, rainy, key, settings) if row.method else Score(),
        infinite=infinite,
        mean_of_others=mean_score(finite) if infinite else None,
    )


def _change(row: RowResult, rainy: RowResult, key: str, settings: Settings) -> Score:
    """Return the mean difference to the rainy images, over the images scored in both rows."""
    pairs = row.pairs(rainy, key)
    differences = [_difference(before, after) for _, before, after in pairs]
    units = [_unit(image) for image, _, _ in pairs]
    return compare_scores(differences, units, settings.resamples, settings.seed)


def _difference(before: float, after: float) -> float:
    """Return the difference of two scores; NaN if both are infinite."""
    return after - before if math.isfinite(after) or math.isfinite(before) else math.nan


def _unit(image: Pair) -> Hashable:
    """Return the unit that the bootstrap resamples: the scene, or the image if there is none."""
    return ("image", image.name) if image.scene is None else ("scene", image.scene)


def _scene_rows(row: RowResult, settings: Settings) -> Iterable[SceneRow]:
    """Yield the mean scores of each scene in a row."""
    by_scene: dict[str, list[ImageScore]] = {}
    for image in row.usable:
        by_scene.setdefault(str(image.scene), []).append(row.scores[image.name])
    keys = [measure.key for measure in settings.measures]
    for scene, scores in by_scene.items():
        yield SceneRow(
            set=row.image_set.label,
            scene=scene,
            input=row.input,
            derainer=row.name,
            means={
                key: mean_score([s.scores[key] for s in scores if key in s.scores]) for key in keys
            },
            images=len(scores),
        )


def _notes(
    image_set: RestorationSet, rows: Sequence[RowResult], settings: Settings
) -> Iterable[str]:
    """Yield remarks on a set for readers of the report.

    Args:
        image_set: The set.
        rows: Its rows, the rainy images first.
        settings: What was measured.
    """
    if len(image_set.images) < image_set.available:
        yield f"{len(image_set.images)} of {image_set.available} images, evenly spread"
    if not image_set.has_reference:
        titles = ", ".join(m.title for m in settings.metrics if not m.needs_clean)
        rest = f"{titles}, images and times" if titles else "images and times"
        yield f"no clean images, so no PSNR and SSIM: {rest} only"
    if image_set.height is not None:
        yield f"rainy and clean images resized to a height of {image_set.height} pixels"
    for row in rows:
        yield from _equal_notes(row, settings)
        yield from _undefined_notes(row, settings)
    conventions = settings.conventions
    tiny = sum(
        any(key_of("psnr", name) in score.scores for name in conventions)
        and not any(key_of("ssim", name) in score.scores for name in conventions)
        for score in rows[0].scores.values()
    )
    if tiny:
        yield f"no SSIM of {tiny} images with a side below {WINDOW} pixels"
    yield from image_set.defects.lines()


def _undefined_notes(row: RowResult, settings: Settings) -> Iterable[str]:
    """Yield notes on images that lack a metric although their set allows it."""
    for metric in settings.metrics:
        if metric.needs_clean and not row.image_set.has_reference:
            continue
        lacking = len(row.usable) - len(row.values(metric.key))
        if lacking:
            yield (
                f"{row.name or 'rainy'}: no {metric.title} of {lacking} of "
                f"{len(row.usable)} images: a side below {metric.least_side} pixels, or too plain"
            )


def _equal_notes(row: RowResult, settings: Settings) -> Iterable[str]:
    """Yield notes on images that equal their clean partners."""
    for convention in settings.conventions:
        equal = sum(map(math.isinf, row.values(key_of("psnr", convention))))
        if equal:
            yield (
                f"{row.name or 'rainy'}: {equal} of {len(row.usable)} images "
                f"equal the clean ones ({convention}), so the mean PSNR is infinite"
            )
