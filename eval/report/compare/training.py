"""Runs of training, as their folders tell: log.jsonl and config.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.report.tables import number
from rainmer.config import flatten, read_yaml
from rainmer.errors import ConfigError, DatasetError
from rainmer.files import read_lines

__all__ = ["LOG", "TrainingRun", "check_keys", "differing", "read_training"]

LOG = "log.jsonl"
"""The file by which a run is recognised; `rainmer.train` and `detection.tune` write it."""

_CONFIG = "config.yaml"
_SCORE = "psnr/"


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A run of training.

    Attributes:
        folder: Its folder.
        when: Unix time of the log's last line.
        step: Steps done.
        steps: All steps of the configuration; with `planned_minutes` only its shape.
        minutes: Time so far, over all calls; None in logs of old versions.
        planned_minutes: Time of the whole run; None: the steps count.
        loss: Total loss, mean over the steps since the line before.
        lr: Learning rate of the last step.
        best_step: Step of the validation with the highest mean PSNR, whose weights are
            best.safetensors; None: it has not been validated.
        scores: All scores of that validation, such as `psnr/SET` in dB and `ssim/SET`.
        config: The configuration, by dotted keys.
        damaged: Lines of the log that cannot be read and do not count.
    """

    folder: Path
    when: float
    step: int
    steps: int
    minutes: float | None
    planned_minutes: float | None
    loss: float | None
    lr: float | None
    best_step: int | None
    scores: Mapping[str, float]
    config: Mapping[str, Any]
    damaged: int

    @property
    def psnr_db(self) -> dict[str, float]:
        """The PSNR of each set at the best validation."""
        return {
            key.removeprefix(_SCORE): value
            for key, value in self.scores.items()
            if key.startswith(_SCORE)
        }


def read_training(folder: Path) -> TrainingRun:
    """Read a run.

    Raises:
        ConfigError: Its configuration cannot be read.
        DatasetError: Its log cannot be read, or has no step yet.
    """
    log = folder / LOG
    try:
        when, written = log.stat().st_mtime, len(log.read_bytes().splitlines())
    except OSError as error:
        raise DatasetError(f"cannot read {log}: {error.strerror}") from error
    lines = [line for line in read_lines(log) if isinstance(line.get("step"), int)]
    trained = [line for line in lines if "total" in line]
    if not trained:
        damaged = written and not lines
        raise DatasetError(f"{log} is damaged" if damaged else f"{log} has no step yet: unfinished")
    config = read_yaml(folder / _CONFIG)
    last, best = trained[-1], _best(lines)
    seconds = number(last.get("seconds"))
    return TrainingRun(
        folder=folder,
        when=when,
        step=last["step"],
        steps=_steps(config, folder),
        minutes=None if seconds is None else seconds / 60,
        planned_minutes=number(config.get("minutes")),
        loss=number(last["total"]),
        lr=number(last.get("lr")),
        best_step=best.get("step"),
        scores={key: value for key, value in _numbers(best).items() if "/" in key},
        config=flatten(config),
        damaged=written - len(lines),
    )


def _steps(config: Mapping[str, Any], folder: Path) -> int:
    try:
        return sum(int(stage["steps"]) for stage in config["stages"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder / _CONFIG} has no stages with steps") from error


def _best(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the line of the validation whose weights were kept; empty without any."""
    best: Mapping[str, Any] = {}
    highest = -1.0
    for line in lines:
        scores = [number(value) for key, value in line.items() if key.startswith(_SCORE)]
        finite = [score for score in scores if score is not None]
        # As in training: a validation with an undefined score is not kept, nor a later equal one.
        if finite and len(finite) == len(scores) and sum(finite) / len(finite) > highest:
            best, highest = line, sum(finite) / len(finite)
    return best


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    values = ((key, number(value)) for key, value in line.items())
    return {key: value for key, value in values if value is not None}


def differing(runs: Sequence[TrainingRun]) -> list[str]:
    """Return the keys in which the configurations of runs differ, but for the name, in order."""
    keys = dict.fromkeys(key for run in runs for key in run.config if key != "name")
    missing = object()
    return [
        key
        for key in keys
        if any(run.config.get(key, missing) != runs[0].config.get(key, missing) for run in runs)
    ]


def check_keys(runs: Sequence[TrainingRun], keys: Sequence[str]) -> None:
    """Refuse keys that no configuration has. Raises ConfigError with similar ones."""
    known = {key for run in runs for key in run.config}
    for key in keys if runs else ():
        if key not in known:
            # All of them would be more than a hundred.
            near = difflib.get_close_matches(key, known, cutoff=0.4) or differing(runs)[:3]
            hint = f": did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(f"--keys: no configuration has {key}{hint}")
