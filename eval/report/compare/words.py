"""Runs as tables for a terminal, and as JSON."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from eval.report.compare.evaluation import EvaluationRow, EvaluationRun
from eval.report.compare.finding import FoundRuns
from eval.report.compare.training import TrainingRun, differing
from eval.report.tables import (
    UNDEFINED,
    align_table,
    format_count,
    format_db,
    format_fixed,
    format_percent,
    format_ssim,
    format_with_interval,
    shorten,
)

__all__ = ["to_json", "to_lines"]

_MOST_KEYS = 6
_LONGEST_NAME = 48
_LONGEST_VALUE = 24


def to_json(found: FoundRuns, keys: Sequence[str]) -> dict[str, object]:
    """Return runs as plain data; of configurations `keys`, or without any those that differ."""
    shown = keys or differing(found.training)
    return {
        "training": [
            {
                **asdict(run),
                **_place(run.folder, run.when),
                "config": {key: run.config[key] for key in shown if key in run.config},
            }
            for run in found.training
        ],
        "evaluation": [{**asdict(run), **_place(run.folder, run.when)} for run in found.evaluation],
        "left_out": found.left_out,
    }


def to_lines(found: FoundRuns, keys: Sequence[str]) -> Iterator[str]:
    """Yield a table for each kind of run, and one of `keys`, or of those that differ."""
    if found.training:
        yield _training_table(found.training)
        yield from _config_lines(found.training, keys)
    if found.training and found.evaluation:
        yield ""
    if found.evaluation:
        yield _evaluation_table(found.evaluation)
        yield (
            "mAP in percent; Δ in points of mAP with its 95 % interval, against rainy images, of "
            "'X on clean' against clean ones; detections at the run's confidence"
        )


def _training_table(runs: Sequence[TrainingRun]) -> str:
    sets = list(dict.fromkeys(name for run in runs for name in run.psnr_db))
    head = ["training", "steps", "minutes", "loss", *(f"PSNR {name}" for name in sets)]
    head += [*(["at step"] if sets else []), "lr", "when (UTC)"]
    lines = []
    for run in runs:
        best = [format_db(run.psnr_db.get(name)) for name in sets]
        best += [format_count(run.best_step)] if sets else []
        done = [_done(run), _minutes(run), _digits(run.loss, 4)]
        lines.append([_name(run.folder), *done, *best, _digits(run.lr, 3), _date(run.when)])
    return align_table(head, lines, texts=1)


def _config_lines(runs: Sequence[TrainingRun], keys: Sequence[str]) -> Iterator[str]:
    shown = list(keys) or differing(runs)[:_MOST_KEYS]
    if not shown:
        return
    lines = [
        [_name(run.folder), *(_value(run.config.get(key, UNDEFINED)) for key in shown)]
        for run in runs
    ]
    yield ""
    yield align_table(["configuration", *shown], lines, texts=1 + len(shown))
    hidden = [key for key in differing(runs) if key not in shown]
    if hidden and not keys:
        named = ", ".join(hidden[:_MOST_KEYS]) + (", ..." if len(hidden) > _MOST_KEYS else "")
        yield f"others that differ, for --keys ({len(hidden)}): {named}"


def _evaluation_table(runs: Sequence[EvaluationRun]) -> str:
    head = [
        "evaluation",
        "set",
        "detector",
        "row",
        "mAP",
        "Δ [95 %]",
        "found/false",
        "PSNR",
        "SSIM",
    ]
    lines = [[_name(run.folder), *_cells(row), _date(run.when)] for run in runs for row in run.rows]
    used = [i for i in range(len(head)) if any(line[i] not in ("", UNDEFINED) for line in lines)]
    used.append(len(head))
    lines = [[line[i] for i in used] for line in lines]
    texts = sum(i < 4 for i in used)
    return align_table([[*head, "when (UTC)"][i] for i in used], lines, texts)


def _cells(row: EvaluationRow) -> list[str]:
    counts = f"{format_count(row.found)}/{format_count(row.false)}"
    if row.conf is not None:
        counts += f" at {row.conf:g}"
    psnr = row.psnr if isinstance(row.psnr, str) else format_db(row.psnr)
    # What the paper's code computes differs by tenths of a dB.
    mark = " official" if row.convention == "official" else ""
    return [
        row.image_set,
        row.detector,
        row.name,
        format_percent(row.mean_ap),
        format_with_interval(row.change, 1, factor=100, sign="+"),
        UNDEFINED if row.found is None else counts,
        psnr if psnr == UNDEFINED else psnr + mark,
        format_ssim(row.ssim),
    ]


def _done(run: TrainingRun) -> str:
    """Return the steps; in a run of minutes the clock decides how many there are in all."""
    return f"{run.step}" if run.planned_minutes else f"{run.step} of {run.steps}"


def _minutes(run: TrainingRun) -> str:
    taken = UNDEFINED if run.minutes is None else format_fixed(run.minutes, 1)
    return f"{taken} of {run.planned_minutes:g}" if run.planned_minutes else taken


def _digits(value: float | None, digits: int) -> str:
    return UNDEFINED if value is None else f"{value:.{digits}g}"


def _name(folder: Path) -> str:
    return shorten(str(folder), _LONGEST_NAME)


def _value(value: object) -> str:
    return shorten("none" if value is None else str(value), _LONGEST_VALUE)


def _date(when: float) -> str:
    moment = datetime.datetime.fromtimestamp(when, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M")


def _place(folder: Path, when: float) -> dict[str, str]:
    """Return the fields of a run that JSON has in another form."""
    moment = datetime.datetime.fromtimestamp(when, datetime.timezone.utc)
    return {"folder": str(folder), "when": moment.isoformat(timespec="seconds")}
