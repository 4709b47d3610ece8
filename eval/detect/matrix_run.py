"""A run with several detectors: each one's own run, then the matrix over all of them."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from detection.names import split_spec
from eval.detect.columns import cost_lines, format_table
from eval.detect.harm import harm_sentences
from eval.detect.matrix import Matrix, build_matrix, format_matrix
from eval.detect.matrix_report import render_matrix
from eval.detect.model import conditions, part_of
from eval.detect.run import Bench, Measured, measure_bench
from eval.report.facts import RunFacts
from eval.report.files import now, write_metrics, write_table
from eval.sets import DetectionSet
from rainmer.files import write_text

__all__ = ["MatrixRun", "measure_matrix"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MatrixRun:
    """A finished run: its folder, what is printed after it, and the set without broken images."""

    folder: Path
    lines: list[str]
    data: DetectionSet


def measure_matrix(benches: Mapping[str, Bench], command: str, started: float) -> MatrixRun:
    """Run each detector, then write the matrix into the folder around their folders.

    Args:
        benches: What was set up, by the detector's name; at least two.
        command: The command line, as it could be typed again.
        started: `time.perf_counter` when the run began.

    Raises:
        RainmerError: A mistake in the data, or results cannot be written.
    """
    first, *_ = benches.values()
    data, folder = first.data, first.folder.parent.parent
    runs: dict[str, Measured] = {}
    for number, (name, bench) in enumerate(benches.items(), start=1):
        _log.info("detector %d of %d: %s", number, len(benches), name)
        # Images that one detector's run could not read are out of the others' too.
        runs[name] = measure_bench(replace(bench, data=data), command, time.perf_counter())
        data = runs[name].comparison.data
    comparisons = {name: run.comparison for name, run in runs.items()}
    several = any(split_spec(bench.weights)[0] for bench in benches.values())
    matrix = build_matrix(comparisons, first.settings, "switch" if several else "retrain")
    matrix = replace(matrix, part=part_of(len(data.samples), first.total))
    facts = _facts(runs, matrix, started)
    _write(folder, data, runs, matrix, facts, first.total)
    reports = {
        name: (bench.folder / "report.html").relative_to(folder) for name, bench in benches.items()
    }
    write_text(folder / "report.html", render_matrix(matrix, data.name, facts, reports))
    return MatrixRun(folder, list(_lines(data, runs, matrix, facts)), data)


def _facts(runs: Mapping[str, Measured], matrix: Matrix, started: float) -> RunFacts:
    """Return the facts of all runs together; what depends on the detector, by its name."""
    first = next(iter(runs.values())).facts
    by_detector = {
        key: {name: run.facts.config[key] for name, run in runs.items()}
        for key in ("detector", "imgsz", "detector_fingerprint")
    }
    elapsed = {
        key: sum(run.facts.elapsed_s[key] for run in runs.values()) for key in first.elapsed_s
    }
    return replace(
        first,
        date=now(),
        config={**first.config, **by_detector},
        elapsed_s={**elapsed, "wall": time.perf_counter() - started},
        notes=[*matrix.notes, *_notes(runs)],
        protocol={key: _told(key, runs) for key in first.protocol},
    )


def _told(key: str, runs: Mapping[str, Measured]) -> object:
    """Return a fact of the protocol; where it differs, that of every detector, by its name."""
    facts = {name: run.facts.protocol.get(key, "-") for name, run in runs.items()}
    if len(set(map(str, facts.values()))) == 1:
        return next(iter(facts.values()))
    return "; ".join(f"{name}: {fact}" for name, fact in facts.items())


def _notes(runs: Mapping[str, Measured]) -> Iterator[str]:
    """Yield the notes of all runs; before those that not all have, the names of the detectors."""
    notes = {name: run.facts.notes for name, run in runs.items()}
    for note in dict.fromkeys(note for own in notes.values() for note in own):
        owners = [name for name, own in notes.items() if note in own]
        yield note if len(owners) == len(notes) else f"{', '.join(owners)}: {note}"


def _write(
    folder: Path,
    data: DetectionSet,
    runs: Mapping[str, Measured],
    matrix: Matrix,
    facts: RunFacts,
    total: int,
) -> None:
    """Write the numbers: the rows of all runs, and the matrix."""
    head = {
        "set": data.name,
        "pseudo_labels": False,
        "images_total": total,
        "matrix": matrix.flat(),
        "rows": [],
        "notes": list(facts.notes),
        "defects": data.defects.counts(),
        "elapsed_s": dict(facts.elapsed_s),
        "config": dict(facts.config),
        "environment": dict(facts.environment),
    }
    rows = (
        {"detector": name, **row.flat(), **run.facts.timed_on_columns}
        for name, run in runs.items()
        for row in run.comparison.table
    )
    write_metrics(folder, rows, head)
    write_table(folder / "matrix.csv", (cell.flat() for cell in matrix.cells))
    write_text(folder / "config.yaml", yaml.safe_dump(dict(facts.config), sort_keys=False))


def _lines(
    data: DetectionSet, runs: Mapping[str, Measured], matrix: Matrix, facts: RunFacts
) -> Iterator[str]:
    """Yield what is printed after the run: each detector's table, then the matrix."""
    width = shutil.get_terminal_size((120, 24)).columns
    for name, run in runs.items():
        yield f"detector {name}"
        yield format_table(run.comparison.table, width)
        yield from cost_lines(run.comparison.table, run.facts.timed_on)
        yield from harm_sentences(run.where.harm, conditions(run.comparison.table)[0])
        yield ""
    yield format_matrix(matrix, width)
    yield from (f"note: {note}" for note in facts.notes)
    yield from (f"repaired: {line}" for line in data.defects.repair_lines())
