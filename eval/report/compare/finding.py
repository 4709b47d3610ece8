"""The runs below folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from eval.report.compare.evaluation import METRICS, EvaluationRun, read_evaluation
from eval.report.compare.training import LOG, TrainingRun, read_training
from rainmer.errors import RainmerError
from rainmer.folders import find_files

__all__ = ["FoundRuns", "find_runs"]

_ROWS = "rows"
"""The folder in which commands keep finished rows; that of eval.relation has one for each set."""

_DETECTORS = "detectors"
"""The folder in which a run with several detectors has the run of each."""

_Run = TypeVar("_Run", TrainingRun, EvaluationRun)


@dataclass
class FoundRuns:
    """Runs, the newest first, and lines that name what was left out."""

    training: list[TrainingRun] = field(default_factory=list)
    evaluation: list[EvaluationRun] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def find_runs(folders: Iterable[Path]) -> FoundRuns:
    """Find and read the runs in folders and below them, each once."""
    found = FoundRuns()
    files: dict[Path, Path] = {}
    for folder in folders:
        below = find_files(folder, {".json", ".jsonl"})
        found.left_out += below.unreadable
        files |= {path.resolve(): path for path in below.files if path.resolve() not in files}
    paths = list(files.values())
    logs = (path.parent for path in paths if path.name == LOG)
    found.training = _read(logs, read_training, found.left_out)
    found.left_out += [
        f"damaged lines of {run.folder / LOG}: {run.damaged}"
        for run in found.training
        if run.damaged
    ]
    finished = [path.parent for path in paths if path.name == METRICS]
    runs = _read(finished, read_evaluation, found.left_out)
    # The rows of a run with several detectors have all that the runs of each have.
    several = {run.folder / _DETECTORS for run in runs if run.several}
    found.evaluation = [run for run in runs if run.folder.parent not in several]
    begun = {
        folder.parent
        for path in paths
        if path.suffix == ".jsonl"
        for folder in path.parents[:2]
        if folder.name == _ROWS
    }
    found.left_out += [
        f"{folder} has no {METRICS} yet: unfinished" for folder in sorted(begun - set(finished))
    ]
    return found


def _read(folders: Iterable[Path], read: Callable[[Path], _Run], left_out: list[str]) -> list[_Run]:
    runs = []
    for folder in folders:
        try:
            runs.append(read(folder))
        except RainmerError as error:
            left_out.append(str(error))
    return sorted(runs, key=lambda run: -run.when)
