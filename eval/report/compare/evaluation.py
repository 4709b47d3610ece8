"""Runs of eval.detect, eval.restore and eval.relation, as their metrics.json tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from eval.report.tables import number
from eval.scores.score import Score
from rainmer.errors import DatasetError

__all__ = ["METRICS", "EvaluationRow", "EvaluationRun", "read_evaluation"]

METRICS = "metrics.json"
"""The file by which a run is recognised."""

_ALL = "all"


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """A row of a run, over all images of a set.

    Attributes:
        image_set: Name of the set.
        detector: Name of the detector; empty where there is none.
        name: The derainer's name, `X on clean`, `rainy` or `clean`.
        mean_ap: mAP, 0..1.
        change: mAP minus that of the rainy row (of the clean one for `X on clean`).
        found, false: Detections at the confidence `conf`.
        psnr: Against the clean images in dB; "inf" where all are equal.
        ssim: Against the clean images.
        convention: Of both: `matlab` or `official`.
    """

    image_set: str
    detector: str
    name: str
    mean_ap: float | None
    change: Score
    found: int | None
    false: int | None
    conf: float | None
    psnr: float | str | None
    ssim: float | None
    convention: str


@dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """A finished run: its folder, when metrics.json was written (Unix time), its rows.

    `several` tells that it has several detectors, whose own runs lie in folders below it.
    """

    folder: Path
    when: float
    several: bool
    rows: list[EvaluationRow]


def read_evaluation(folder: Path) -> EvaluationRun:
    """Read a run.

    Raises:
        DatasetError: Its metrics.json cannot be read, is damaged, or is of another command.
    """
    path = folder / METRICS
    try:
        when = path.stat().st_mtime
        metrics = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is damaged: no JSON") from error
    rows = metrics.get("rows") if isinstance(metrics, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{path} is of no evaluation: it has no rows")
    if not all(_is_measured(row) for row in rows):
        raise DatasetError(f"{path} is of no eval.detect, eval.restore or eval.relation")
    config = metrics.get("config")
    config = config if isinstance(config, dict) else {}
    return EvaluationRun(
        folder=folder,
        when=when,
        several="matrix" in metrics,
        rows=[_row(row, config) for row in rows if row.get("condition", _ALL) == _ALL],
    )


def _is_measured(row: Mapping[str, Any]) -> bool:
    return "set" in row and any(key in row for key in ("mAP", "psnr", "psnr_official"))


def _row(row: Mapping[str, Any], config: Mapping[str, Any]) -> EvaluationRow:
    convention = "matlab" if "psnr" in row else "official"
    end = "" if convention == "matlab" else "_official"
    psnr = row.get(f"psnr{end}")
    # eval.relation names the ends of every interval, eval.detect has the first one's as they are.
    low, high = (row.get(f"ci_{side}", row.get(f"delta_mAP_{side}")) for side in ("low", "high"))
    return EvaluationRow(
        image_set=str(row["set"]),
        detector=_detector(row, config),
        name=_name(row),
        mean_ap=number(row.get("mAP")),
        change=Score(number(row.get("delta_mAP")), number(low), number(high)),
        found=_count(row.get("tp")),
        false=_count(row.get("fp")),
        conf=number(config.get("conf")),
        psnr=psnr if psnr == "inf" else number(psnr),
        ssim=number(row.get(f"ssim{end}")),
        convention=convention,
    )


def _name(row: Mapping[str, Any]) -> str:
    derainer = str(row.get("derainer", ""))
    match row.get("input", "derained"):
        case "derained":
            return derainer
        case "derained_clean":
            return f"{derainer} on clean"
        case other:
            return str(other)


def _detector(row: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the name of a row's detector: its own where there are several, or the file's."""
    if "detector" in row:
        return str(row["detector"])
    path = config.get("detector")
    return PurePath(path).stem if isinstance(path, str) else ""


def _count(value: object) -> int | None:
    finite = number(value)
    return None if finite is None else round(finite)
