"""The files of a restoration run, beside its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from eval.report.files import write_metrics, write_table
from eval.restore.comparison import Comparison
from eval.restore.scores import Measure
from eval.restore.sets import RestorationSet
from eval.restore.tables import paper_tables
from eval.restore.texts import to_latex, to_markdown
from rainmer.files import write_text
from rainmer.metrics import Convention

__all__ = ["write_comparison"]


def write_comparison(
    folder: Path,
    comparison: Comparison,
    conventions: Sequence[Convention],
    metrics: Sequence[Measure] = (),
    *,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    elapsed: Mapping[str, float],
) -> None:
    """Write everything but the report of a comparison into a run's folder.

    metrics.json and metrics.csv hold the rows (equal images have PSNR "inf"), images.csv each image
    of each row, scenes.csv the scenes of sets that have some, table.md and table.tex the paper's
    tables, config.yaml the resolved configuration.

    Raises:
        OutputError: A file cannot be written.
    """
    facts = {
        "sets": [_describe(one) for one in comparison.sets],
        "conventions": list(conventions),
        "metrics": [metric.key for metric in metrics],
        "rows": [],
        "notes": comparison.notes,
        "elapsed_s": dict(elapsed),
        "config": dict(config),
        "environment": dict(environment),
    }
    write_metrics(folder, comparison.table, facts)
    write_table(folder / "images.csv", _image_rows(comparison))
    if comparison.scenes:
        write_table(folder / "scenes.csv", comparison.scenes)
    else:
        (folder / "scenes.csv").unlink(missing_ok=True)  # of a run with other sets
    tables = paper_tables(comparison.table, conventions, metrics)
    write_text(folder / "table.md", "\n".join(map(to_markdown, tables)))
    write_text(folder / "table.tex", "\n".join(map(to_latex, tables)))
    write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def _describe(one: RestorationSet) -> dict[str, Any]:
    return {
        "set": one.label,
        "layout": one.layout,
        "images": len(one.images),
        "available": one.available,
        "errors": one.defects.errors,
        "notes": one.defects.notes,
    }


def _image_rows(comparison: Comparison) -> Iterable[dict[str, Any]]:
    for row in comparison.rows:
        for image in row.images.images:
            score = row.scores.get(image.name)
            if score is not None:
                yield {
                    "set": row.images.label,
                    "image": image.name,
                    "scene": image.scene,
                    "input": "derained" if row.method else "rainy",
                    "derainer": row.name,
                    **score.scores,
                    "ms_per_image": score.elapsed_ms,
                    "error": score.error,
                }
