"""Operating points of every row of a comparison: at the user's confidence, and at others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.detect.comparison import Comparison
from eval.detect.measures import image_weights
from eval.detect.model import Cell, Row
from eval.detect.table import Settings
from eval.report.files import write_table
from eval.scores.operating import Operating, Point, operate, sweep
from eval.scores.score import Score
from eval.sets import ALL

__all__ = ["OperatingRow", "cut_results", "operating_rows", "write_curves"]


@dataclass(frozen=True, kw_only=True)
class OperatingRow(Row):
    """A row of `operating` in metrics.json.

    Attributes:
        points: Counts at chosen confidences, and at all; changes are to the rainy row, those of
            derained clean images to the clean one.
    """

    points: Operating

    def flat(self) -> dict[str, Cell]:
        """Return the row as in metrics.json: `equal_` at equal false alarms, `best_` at best F1."""
        points = self.points
        return {
            "condition": self.condition,
            "input": self.input,
            "derainer": self.derainer,
            **_counts("", points.at),
            **_change("f1", points.change_f1),
            **_counts("equal_", points.equal),
            **_change("equal_recall", points.change_recall),
            **_counts("best_", points.best),
            **_change("best_f1", points.change_best_f1),
        }

    def curve(self) -> Iterator[dict[str, Cell]]:
        """Yield the rows of operating.csv: counts at every confidence."""
        for index in range(len(self.points.curve.confs)):
            yield {
                "condition": self.condition,
                "input": self.input,
                "derainer": self.derainer,
                **_counts("", self.points.curve.point(index)),
            }


def _counts(prefix: str, point: Point | None) -> dict[str, Cell]:
    values: dict[str, Cell] = dict.fromkeys(("conf", "tp", "fp", "fn", "f1"))
    if point is not None:
        counts = (point.conf, point.found, point.false, point.missed, point.f1)
        values = dict(zip(values, counts, strict=True))
    return {f"{prefix}{name}": value for name, value in values.items()}


def _change(name: str, change: Score) -> dict[str, Cell]:
    return {
        f"delta_{name}": change.value,
        f"{name}_ci_low": change.low,
        f"{name}_ci_high": change.high,
    }


def operating_rows(comparison: Comparison, settings: Settings) -> list[OperatingRow]:
    """Return the operating points of every row in every condition."""
    sweeps = {row.spec: sweep(row.evaluation, settings.count_conf) for row in comparison.rows}
    every = comparison.rows[0].evaluation.image_ids
    rows = []
    for condition, image_ids in comparison.data.conditions.items():
        inside = np.array([image_id in image_ids for image_id in every])
        weights = image_weights(inside, settings.resamples, settings.seed)
        for spec, counts in sweeps.items():
            reference = None if spec.reference is None else sweeps.get(spec.reference)
            rows.append(
                OperatingRow(
                    condition=condition,
                    input=spec.input,
                    derainer=spec.derainer_name,
                    points=operate(counts, reference, inside, weights),
                )
            )
    return rows


def write_curves(folder: Path, rows: Sequence[OperatingRow]) -> None:
    """Write operating.csv into a run's folder. Raises OutputError."""
    write_table(folder / "operating.csv", (line for row in rows for line in row.curve()))


def cut_results(
    comparison: Comparison, rows: Sequence[OperatingRow]
) -> dict[str, list[Mapping[str, object]]]:
    """Cut each row's COCO results where it invents no more than its reference does, on all images.

    Args:
        comparison: A finished comparison.
        rows: Its operating points.

    Returns:
        The results of each row by its label; a row without such a confidence has none, a row
        without a reference those from the confidence of the counts.
    """
    cut = {}
    for row in comparison.rows:
        points = next(
            other.points
            for other in rows
            if (other.condition, other.input, other.derainer)
            == (ALL, row.spec.input, row.spec.derainer_name)
        )
        point = points.at if row.spec.reference is None else points.equal
        cut[row.spec.label] = [
            result for result in row.results if point is not None and result["score"] >= point.conf
        ]
    return cut
