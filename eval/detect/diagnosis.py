"""The errors of every row of a comparison, and what deraining changed, as rows and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eval.detect.comparison import Comparison
from eval.detect.model import ChangeRow, ErrorRow, ImageChangeRow
from eval.detect.table import RowResult
from eval.report.files import write_table
from eval.scores.changes import ImageChange, compare_rows, rank_changes, tabulate_changes
from eval.scores.errors import break_down

__all__ = ["Diagnosis", "diagnose", "write_diagnosis"]


@dataclass(frozen=True)
class Diagnosis:
    """Why the rows of a comparison score as they do; empty lists where nobody asked.

    Attributes:
        errors: Errors by kind.
        changes: Objects found and lost against rainy, of `derained_clean` against clean.
        images: What changed in each image, the best improvement of each row first.
    """

    errors: list[ErrorRow] = field(default_factory=list)
    changes: list[ChangeRow] = field(default_factory=list)
    images: list[ImageChangeRow] = field(default_factory=list)


def diagnose(comparison: Comparison, conf: float) -> Diagnosis:
    """Find the errors of every row, and what changed between rows.

    Args:
        comparison: A finished comparison.
        conf: Confidence from which detections count, 0..1.
    """
    conditions = comparison.data.conditions
    diagnosis = Diagnosis()
    for row in comparison.rows:
        shown, name = row.spec.input, row.spec.derainer_name
        diagnosis.errors.extend(
            ErrorRow(input=shown, derainer=name, **vars(error))
            for error in break_down(row.evaluation, conditions, conf)
        )
        reference = _reference(comparison, row)
        if reference is None:
            continue
        changes = compare_rows(reference.evaluation, row.evaluation, conf)
        diagnosis.changes.extend(
            ChangeRow(input=shown, derainer=name, **vars(change))
            for change in tabulate_changes(changes, conditions, comparison.truth.categories)
        )
        diagnosis.images.extend(_image_rows(comparison, row, changes))
    return diagnosis


def _reference(comparison: Comparison, row: RowResult) -> RowResult | None:
    """Return what a row is compared with; None for the rainy row."""
    if row.spec.input == "rainy":
        return None
    return comparison.find("clean" if row.spec.input == "derained_clean" else "rainy")


def _image_rows(
    comparison: Comparison, row: RowResult, changes: Sequence[ImageChange]
) -> list[ImageChangeRow]:
    keys = {sample.image_id: sample.key for sample in comparison.data.samples}
    return [
        ImageChangeRow(
            input=row.spec.input,
            derainer=row.spec.derainer_name,
            rank=rank,
            image=keys[change.image_id],
            gain=change.gain,
            found=len(change.found),
            lost=len(change.lost),
            background_gained=len(change.background_gained),
            background_removed=len(change.background_removed),
            false=change.false,
        )
        for rank, change in enumerate(rank_changes(changes), start=1)
    ]


def write_diagnosis(folder: Path, diagnosis: Diagnosis) -> None:
    """Write breakdown.csv, changes.csv and image_changes.csv into a run's folder.

    A file without rows is not written, and one of an earlier run is removed.

    Raises:
        OutputError: A file cannot be written.
    """
    files: dict[str, Sequence[ErrorRow | ChangeRow | ImageChangeRow]] = {
        "breakdown.csv": diagnosis.errors,
        "changes.csv": diagnosis.changes,
        "image_changes.csv": diagnosis.images,
    }
    for name, rows in files.items():
        if rows:
            write_table(folder / name, (row.flat() for row in rows))
        else:
            (folder / name).unlink(missing_ok=True)
