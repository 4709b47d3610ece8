"""The record of a run: a CSV log, TensorBoard, curves and picture strips."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rainmer.files import append_line, atomic_write, read_lines, write_text
from rainmer.frames.arrays import Frame
from rainmer.frames.images import write_image
from rainmer.train.figures import draw_curves

__all__ = ["Record"]

_log = logging.getLogger(__name__)


class Record:
    """Writes the log of a run line by line.

    Lines are written as JSON during the run, and as CSV in between; lines beyond the step that a
    run resumes from are dropped.

    Args:
        folder: The run's folder.
        step: The step that the run starts or resumes from.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.folder = folder
        self._lines = folder / "log.jsonl"
        self._board = _tensorboard(folder)
        kept = [line for line in read_lines(self._lines) if line.get("step", 0) <= step]
        write_text(self._lines, "".join(json.dumps(line) + "\n" for line in kept))
        self._rows: list[dict[str, Any]] = kept

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log values of a step. Raises OutputError."""
        row = {"step": step, **{name: _rounded(value) for name, value in values.items()}}
        append_line(self._lines, row)
        self._rows.append(row)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def write_csv(self) -> None:
        """Write all lines as `log.csv`. Raises OutputError."""
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        with (
            atomic_write(self.folder / "log.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows)

    def draw_curves(self) -> None:
        """Draw losses and scores over the steps as `curves.png`. Raises OutputError."""
        draw_curves(self._rows, self.folder / "curves.png")

    def write_strip(self, name: str, step: int, rows: Sequence[Sequence[Frame]]) -> None:
        """Write pictures side by side, one row below the other, equal in size within each row."""
        width = max(sum(frame.shape[1] for frame in row) for row in rows)
        strips = []
        for row in rows:
            strip = np.concatenate(list(row), axis=1)
            pad = width - strip.shape[1]
            strips.append(np.pad(strip, ((0, 0), (0, pad), (0, 0)), constant_values=255))
        picture = np.concatenate(strips)
        write_image(self.folder / "strips" / f"{name}-{step:07d}.jpg", picture)
        if self._board is not None:
            self._board.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is buffered."""
        if self._board is not None:
            self._board.close()


def _rounded(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _tensorboard(folder: Path) -> Any:  # noqa: ANN401 (an optional package's class)
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _log.info("no TensorBoard log: install rainmer[train] for it; log.csv has the same numbers")
        return None
    return SummaryWriter(str(folder / "tensorboard"))
