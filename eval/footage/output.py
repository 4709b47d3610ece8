"""The files of a run: metrics.json, a table of frames, the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from eval.footage.records import RAINY
from eval.footage.study import Study
from eval.footage.verdicts import UNKNOWN, Verdict
from eval.report.facts import RunFacts
from eval.report.files import SCHEMA, write_table
from rainmer.files import write_text

__all__ = ["write_study"]


def write_study(
    folder: Path,
    study: Study,
    verdicts: Sequence[Verdict],
    facts: RunFacts,
    failures: Sequence[str],
) -> None:
    """Write everything but report and pictures into a run's folder.

    metrics.json holds the rows, the bands of confidence, the verdicts and how all came about;
    metrics.csv a line for each frame and derainer; config.yaml the resolved configuration.

    Raises:
        OutputError: A file cannot be written.
    """
    metrics = {
        "schema": SCHEMA,
        "rows": [row.flat() for row in study.rows],
        "bands": [
            {"derainer": name, **asdict(band)}
            for name, bands in study.bands.items()
            for band in bands
        ],
        "teaching": [asdict(row) for row in study.teaching],
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "unknown": list(UNKNOWN),
        "shots": [
            {"shot": shot.name, "frames": len(shot.frames), "tracked": shot.tracked}
            for shot in study.shots
        ],
        "failures": list(failures),
        "notes": list(facts.notes),
        "elapsed_s": dict(facts.elapsed_s),
        "config": dict(facts.config),
        "environment": dict(facts.environment),
        "timed_on": facts.timed_on_columns,
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    write_table(folder / "metrics.csv", _frame_rows(study))
    write_text(folder / "config.yaml", yaml.safe_dump(dict(facts.config), sort_keys=False))


def _frame_rows(study: Study) -> Iterator[dict[str, object]]:
    for shot in study.shots:
        for n in shot.frames:
            frame = study.frames[n]
            meter = frame.inputs[RAINY].meter
            for name in study.derainers:
                change, record = study.changes[name][n], frame.inputs[name]
                yield {
                    "shot": shot.name,
                    "frame": frame.key.name,
                    "time_s": round(frame.time_s, 4),
                    "derainer": name,
                    "rainy": len(change.kept) + len(change.lost),
                    "derained": len(change.kept) + len(change.gained),
                    **{key: len(value) for key, value in asdict(change).items()},
                    "ms_derain": record.derain_ms,
                    "ms_detect": record.detect_ms,
                    **{f"meter_{key}": value for key, value in meter.items()},
                }
