"""From the scores of images to rows: rainy and derained, set by set, on the same images."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.restore.methods import Method
from eval.restore.metrics import Metric
from eval.restore.rows import ImageScore, RowRunner
from eval.restore.scores import compare_scores, key_of, mean_score, measures_of
from eval.restore.sets import RestorationSet
from rainmer.data.layouts import Pair
from rainmer.metrics import WINDOW, Convention

__all__ = ["Comparison", "RowResult", "Settings", "compare_sets"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What turns scores of images into numbers of sets."""

    conventions: Sequence[Convention]
    """How images are scored; the first one is the main one."""
    resamples: int = 1000
    """Bootstrap resamples of the intervals; 0 leaves intervals out."""
    seed: int = 0
    """Seed of the bootstrap."""
    metrics: Sequence[Metric] = ()
    """What is measured beside PSNR and SSIM."""


@dataclass(frozen=True)
class RowResult:
    """One row with everything behind it: a set, and a method or None for the rainy images."""

    images: RestorationSet
    method: Method | None
    scores: Mapping[str, ImageScore]
    """Of the images that were read, by name; with `error` where a result does not fit."""

    @property
    def name(self) -> str:
        """The method's name; empty of the rainy images."""
        return self.method.name if self.method else ""

    @property
    def usable(self) -> list[Pair]:
        """The images that count in this row."""
        return [
            image
            for image in self.images.images
            if image.name in self.scores and self.scores[image.name].error is None
        ]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        sets: The sets, with every defect found on the way.
        rows: By set; of each the rainy images first.
        table: Flat rows of metrics.json.
        scenes: Flat rows of scenes.csv, of sets with scenes.
        notes: What a reader must know about the data.
    """

    sets: Sequence[RestorationSet]
    rows: Sequence[RowResult]
    table: list[dict[str, Any]]
    scenes: list[dict[str, Any]]
    notes: list[str]

    def errors(self) -> list[str]:
        """Return one line for each set with broken things."""
        lines = ((one.label, one.defects.error_lines()) for one in self.sets)
        return [f"{label}: {'; '.join(errors)}" for label, errors in lines if errors]


def compare_sets(
    sets: Sequence[RestorationSet],
    methods: Sequence[Method],
    runner: RowRunner,
    settings: Settings,
    progress: Callable[[str, int], None] = lambda label, images: None,
) -> Comparison:
    """Run every row and score it.

    Args:
        sets: What is to be restored.
        methods: What derains.
        runner: Runs a row.
        settings: Conventions and bootstrap.
        progress: Called with a row's label and the number of images just done.

    Raises:
        OutputError: Results cannot be written.
    """
    rows: list[RowResult] = []
    for one in sets:
        runs = []
        for method in (None, *methods):
            label = f"{one.label} {method.name if method else 'rainy'}"
            tell = lambda images, label=label: progress(label, images)  # noqa: E731
            runs.append(RowResult(one, method, runner.run(one, method, tell)))
        rows += _without_unreadable(runs)
    table = [row for one in sets for row in _rows_of(one, rows, settings)]
    scenes = [row for one in sets for row in _scene_rows(one, rows, settings)]
    notes = [note for one in sets for note in _notes(one, rows, settings)]
    return Comparison(sets, rows, table, scenes, notes)


def _without_unreadable(rows: Sequence[RowResult]) -> list[RowResult]:
    """Leave an image that cannot be read out of all rows; write down what each row lacks."""
    defects = rows[0].images.defects
    unreadable = {score.name: score.error for score in rows[0].scores.values() if score.error}
    for error in unreadable.values():
        defects.error("unreadable image, left out", str(error))
    kept = []
    for row in rows:
        scores = {name: s for name, s in row.scores.items() if name not in unreadable}
        for score in scores.values():
            if score.error is not None:
                defects.error(f"result of {row.name} that does not fit, left out", score.error)
        kept.append(RowResult(row.images, row.method, scores))
    return kept


def _rows_of(
    one: RestorationSet, rows: Sequence[RowResult], settings: Settings
) -> list[dict[str, Any]]:
    own = [row for row in rows if row.images is one]
    return [_table_row(row, own[0], settings) for row in own if row.usable]


def _table_row(row: RowResult, rainy: RowResult, settings: Settings) -> dict[str, Any]:
    usable = row.usable
    times = [ms for image in usable if (ms := row.scores[image.name].elapsed_ms) is not None]
    entry: dict[str, Any] = {
        "set": row.images.label,
        "layout": row.images.layout,
        "condition": "all",
        "input": "derained" if row.method else "rainy",
        "derainer": row.name,
    }
    for convention in settings.conventions:
        for measure in measures_of(convention):
            entry |= _score_fields(row, rainy, measure.key, settings)
        key = key_of("psnr", convention)
        values = [s.scores[key] for i in usable if key in (s := row.scores[i.name]).scores]
        infinite = sum(map(math.isinf, values))
        entry[f"{key}_infinite"] = infinite
        entry[f"{key}_of_others"] = (
            mean_score([v for v in values if math.isfinite(v)]) if infinite else None
        )
    for metric in settings.metrics:
        entry |= _score_fields(row, rainy, metric.key, settings)
    return entry | {
        "ms_per_image": float(np.mean(times)) if times else None,
        "images": len(usable),
        "set_images": len(row.images.images),
        "scenes": len({image.scene for image in usable}) if row.images.has_scenes else None,
        "reference": row.images.has_reference,
    }


def _score_fields(
    row: RowResult, rainy: RowResult, key: str, settings: Settings
) -> dict[str, float | None]:
    """Return the mean of a score, and its difference to the rainy images."""
    names = [image.name for image in row.usable]
    values = [row.scores[name].scores[key] for name in names if key in row.scores[name].scores]
    fields = {key: mean_score(values)}
    if row.method is None:
        return fields | dict.fromkeys((f"delta_{key}", f"delta_{key}_low", f"delta_{key}_high"))
    pairs = [
        (image, after[key], before[key])
        for image in row.usable
        if key in (after := row.scores[image.name].scores)
        and key in (before := rainy.scores[image.name].scores)
    ]
    changes = [_change(after, before) for _, after, before in pairs]
    units = [_unit(image) for image, _, _ in pairs]
    change = compare_scores(changes, units, settings.resamples, settings.seed)
    return fields | {
        f"delta_{key}": change.mean,
        f"delta_{key}_low": change.low,
        f"delta_{key}_high": change.high,
    }


def _change(after: float, before: float) -> float:
    """Return the difference; that of two infinite numbers is undefined."""
    return after - before if math.isfinite(after) or math.isfinite(before) else math.nan


def _unit(image: Pair) -> Hashable:
    return ("image", image.name) if image.scene is None else ("scene", image.scene)


def _scene_rows(
    one: RestorationSet, rows: Sequence[RowResult], settings: Settings
) -> Iterable[dict[str, Any]]:
    """Yield the mean of each scene in each row, of a set with scenes and clean images."""
    if not (one.has_scenes and one.has_reference):
        return
    keys = [m.key for convention in settings.conventions for m in measures_of(convention)]
    keys += [metric.key for metric in settings.metrics]
    for row in rows:
        if row.images is not one:
            continue
        by_scene: dict[str | None, list[ImageScore]] = {}
        for image in row.usable:
            by_scene.setdefault(image.scene, []).append(row.scores[image.name])
        for scene, scores in by_scene.items():
            means = {
                key: mean_score([s.scores[key] for s in scores if key in s.scores]) for key in keys
            }
            yield {
                "set": one.label,
                "scene": scene,
                "input": "derained" if row.method else "rainy",
                "derainer": row.name,
                **means,
                "images": len(scores),
            }


def _notes(one: RestorationSet, rows: Sequence[RowResult], settings: Settings) -> Iterable[str]:
    """Yield what a reader must know about a set."""
    if len(one.images) < one.available:
        yield f"{one.label}: {len(one.images)} of {one.available} images, evenly spread"
    if not one.has_reference:
        lonely = ", ".join(m.title for m in settings.metrics if not m.needs_clean)
        rest = f"{lonely}, images and times" if lonely else "images and times"
        yield f"{one.label}: no clean images, so no PSNR and SSIM: {rest} only"
    if one.height is not None:
        yield f"{one.label}: rainy and clean images resized to a height of {one.height} pixels"
    own = [row for row in rows if row.images is one]
    for row in own:
        yield from _equal_notes(row, settings)
        yield from _undefined_notes(row, settings)
    tiny = sum(
        any(name.startswith("psnr") for name in score.scores)
        and not any(name.startswith("ssim") for name in score.scores)
        for score in own[0].scores.values()
    )
    if tiny:
        yield f"{one.label}: no SSIM of {tiny} images with a side below {WINDOW} pixels"
    yield from (f"{one.label}: {line}" for line in one.defects.lines())


def _undefined_notes(row: RowResult, settings: Settings) -> Iterable[str]:
    """Yield of how many images a metric is undefined, where it could have been measured."""
    for metric in settings.metrics:
        if metric.needs_clean and not row.images.has_reference:
            continue
        lacking = sum(metric.key not in row.scores[image.name].scores for image in row.usable)
        if lacking:
            yield (
                f"{row.images.label}: {row.name or 'rainy'}: no {metric.title} of {lacking} of "
                f"{len(row.usable)} images: a side below {metric.least_side} pixels, or too plain"
            )


def _equal_notes(row: RowResult, settings: Settings) -> Iterable[str]:
    for convention in settings.conventions:
        key = key_of("psnr", convention)
        values = [row.scores[image.name].scores.get(key, 0.0) for image in row.usable]
        equal = sum(map(math.isinf, values))
        if equal:
            yield (
                f"{row.images.label}: {row.name or 'rainy'}: {equal} of {len(values)} images equal "
                f"the clean ones ({convention}), so the mean PSNR is infinite"
            )
