"""The files of a restoration run, besides its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from eval.report.facts import RunFacts
from eval.report.files import write_metrics, write_table
from eval.restore.comparison import Comparison, RowResult, SceneRow, Settings, TableRow
from eval.restore.scores import MeanScore, Measure, measures_of
from eval.restore.sets import RestorationSet
from eval.restore.tables import paper_tables, to_latex, to_markdown
from rainmer.files import write_text

__all__ = ["flat_row", "write_comparison"]


def write_comparison(
    folder: Path, comparison: Comparison, settings: Settings, facts: RunFacts
) -> None:
    """Write everything but the report of a comparison into a run's folder.

    metrics.json and metrics.csv hold the rows (equal images have PSNR "inf"), images.csv the images
    of each row, scenes.csv the scenes of sets that have scenes, table.md and table.tex the tables
    in the form of the paper, config.yaml the resolved configuration.

    Raises:
        OutputError: A file cannot be written.
    """
    content = {
        "sets": [_describe(image_set) for image_set in comparison.sets],
        "conventions": list(settings.conventions),
        "metrics": [metric.key for metric in settings.metrics],
        "rows": [],
        "notes": list(comparison.notes),
        "elapsed_s": dict(facts.elapsed_s),
        "config": dict(facts.config),
        "environment": dict(facts.environment),
    }
    rows = [flat_row(row, settings) | facts.timed_on_columns for row in comparison.table]
    write_metrics(folder, rows, content)
    write_table(folder / "images.csv", _image_rows(comparison.rows))
    if comparison.scenes:
        write_table(folder / "scenes.csv", map(_flat_scene, comparison.scenes))
    else:
        (folder / "scenes.csv").unlink(missing_ok=True)  # left by a run with other sets
    tables = paper_tables(comparison.table, settings.conventions, settings.metrics)
    write_text(folder / "table.md", "\n".join(map(to_markdown, tables)))
    write_text(folder / "table.tex", "\n".join(map(to_latex, tables)))
    write_text(folder / "config.yaml", yaml.safe_dump(dict(facts.config), sort_keys=False))


def flat_row(row: TableRow, settings: Settings) -> dict[str, object]:
    """Return a row of metrics.json: a flat mapping of plain values."""
    scores: dict[str, object] = {}
    for convention in settings.conventions:
        psnr, ssim = measures_of(convention)
        scores |= _flat_score(psnr, row.scores[psnr.key])
        scores |= _flat_score(ssim, row.scores[ssim.key])
        scores[f"{psnr.key}_infinite"] = row.scores[psnr.key].infinite
        scores[f"{psnr.key}_of_others"] = row.scores[psnr.key].mean_of_others
    for metric in settings.metrics:
        scores |= _flat_score(metric, row.scores[metric.key])
    return {
        "set": row.set,
        "layout": row.layout,
        "condition": "all",
        "input": row.input,
        "derainer": row.derainer,
        **scores,
        "ms_per_image": row.ms_per_image,
        "ms_median": row.timing.ms,
        "ms_p90": row.timing.high,
        "ms_timed": row.timing.when,
        "ms_images": row.timing.images,
        "images": row.images,
        "set_images": row.set_images,
        "scenes": row.scenes,
        "reference": row.has_reference,
    }


def _flat_score(measure: Measure, score: MeanScore) -> dict[str, object]:
    return {
        measure.key: score.mean,
        f"delta_{measure.key}": score.change.value,
        f"delta_{measure.key}_low": score.change.low,
        f"delta_{measure.key}_high": score.change.high,
    }


def _flat_scene(row: SceneRow) -> dict[str, object]:
    return {
        "set": row.set,
        "scene": row.scene,
        "input": row.input,
        "derainer": row.derainer,
        **row.means,
        "images": row.images,
    }


def _describe(image_set: RestorationSet) -> dict[str, object]:
    return {
        "set": image_set.label,
        "layout": image_set.layout,
        "images": len(image_set.images),
        "available": image_set.available,
        "errors": image_set.defects.errors,
        "notes": image_set.defects.notes,
    }


def _image_rows(rows: Sequence[RowResult]) -> Iterable[Mapping[str, object]]:
    """Yield the rows of images.csv: each image of each row, including failures."""
    for row in rows:
        for image in row.image_set.images:
            if image.name in row.scores:
                score = row.scores[image.name]
                yield {
                    "set": row.image_set.label,
                    "image": image.name,
                    "scene": image.scene,
                    "input": row.input,
                    "derainer": row.name,
                    **score.scores,
                    "ms_per_image": score.elapsed_ms,
                    "ms_earlier": score.earlier,
                    "error": score.error,
                }
