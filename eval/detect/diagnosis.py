"""The errors of every row of a comparison, and what deraining changed, as flat rows and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from eval.detect.comparison import Comparison
from eval.detect.table import RowResult
from eval.scores.changes import ImageChange, compare_rows, rank_changes, tabulate_changes
from eval.scores.errors import break_down
from rainmer.files import write_text

__all__ = ["Diagnosis", "diagnose", "write_diagnosis"]


@dataclass(frozen=True)
class Diagnosis:
    """Why the rows of a comparison score as they do. All rows have `input` and `derainer`.

    Attributes:
        errors: Rows of `eval.scores.errors.break_down`.
        changes: Rows of `eval.scores.changes.tabulate_changes`: against rainy, of `derained_clean`
            against clean.
        images: What changed in each image, the best improvement of each row first: `rank` from 1,
            `image`, `gain`, `found`, `lost`, `background_gained`, `background_removed`, and
            `false`: the change of all false detections.
    """

    errors: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    images: list[dict[str, Any]]


def diagnose(comparison: Comparison, conf: float) -> Diagnosis:
    """Find the errors of every row, and what changed between rows.

    Args:
        comparison: A finished comparison.
        conf: Confidence from which detections count, 0..1.
    """
    conditions = comparison.data.conditions
    diagnosis = Diagnosis([], [], [])
    for row in comparison.rows:
        names = {"input": row.spec.input, "derainer": row.spec.derainer_name}
        errors = break_down(row.evaluation, conditions, conf)
        diagnosis.errors.extend({**names, **error} for error in errors)
        reference = _reference(comparison, row)
        if reference is None:
            continue
        changes = compare_rows(reference.evaluation, row.evaluation, conf)
        table = tabulate_changes(changes, conditions, comparison.truth.categories)
        diagnosis.changes.extend({**names, **change} for change in table)
        images = _image_rows(comparison, changes)
        diagnosis.images.extend({**names, **change} for change in images)
    return diagnosis


def _reference(comparison: Comparison, row: RowResult) -> RowResult | None:
    """Return what a row is compared with; None for the rainy row."""
    if row.spec.input == "rainy":
        return None
    return comparison.find("clean" if row.spec.input == "derained_clean" else "rainy")


def _image_rows(comparison: Comparison, changes: Sequence[ImageChange]) -> list[dict[str, Any]]:
    keys = {sample.image_id: sample.key for sample in comparison.data.samples}
    return [
        {
            "rank": rank,
            "image": keys[change.image_id],
            "gain": change.gain,
            "found": len(change.found),
            "lost": len(change.lost),
            "background_gained": len(change.background_gained),
            "background_removed": len(change.background_removed),
            "false": change.false,
        }
        for rank, change in enumerate(rank_changes(changes), start=1)
    ]


def write_diagnosis(folder: Path, diagnosis: Diagnosis) -> None:
    """Write breakdown.csv, changes.csv and image_changes.csv into a run's folder.

    A file without rows is not written, and one of an earlier run is removed.

    Raises:
        OutputError: A file cannot be written.
    """
    files = {
        "breakdown.csv": diagnosis.errors,
        "changes.csv": diagnosis.changes,
        "image_changes.csv": diagnosis.images,
    }
    for name, rows in files.items():
        if rows:
            write_text(folder / name, pd.DataFrame(rows).to_csv(index=False))
        else:
            (folder / name).unlink(missing_ok=True)
