"""Where deraining helps: what it changes in each image against what the rain meter reads in it.

Derained rainy images are told apart by the reading of the rainy image, derained clean ones by that
of the clean image: these are the dry frames, at the low end of every reading.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.detect.comparison import Comparison
from eval.detect.harm import HarmRow, harm_rows
from eval.detect.model import Cell, ImageChangeRow, Row
from eval.report.files import write_table
from eval.report.parts import Effect, effect_of
from eval.rows.run import RowInput
from eval.scores.bootstrap import difference_interval, draw_weights
from eval.scores.means import are_few
from eval.scores.score import Score
from eval.sets import ALL
from rainmer.frames.images import read_image
from rainmer.meter import RainMeter, Reading

__all__ = [
    "GATE",
    "Bin",
    "Readings",
    "WhereHelps",
    "WhereRow",
    "bins_of",
    "find_where",
    "write_where",
]

GATE = "gate"
"""Name of the two bins below and from the gate's threshold on."""

_RATES = (0.0, 2.5, 10.0, 50.0, None)  # mm/h: light, moderate, heavy, violent rain
_TRANSMISSIONS = (0.0, 0.7, 0.8, 0.9, None)
_NIGHT = (0.0, 0.5, None)
_AT_ONCE = 8  # images in memory


@dataclass(frozen=True)
class Bin:
    """Images of like readings.

    Attributes:
        reading: A field of `Reading`, or `GATE`, which is of the benefit.
        low: The least value.
        high: The value that is too large; None: there is none.
    """

    reading: str
    low: float
    high: float | None

    def holds(self, reading: Reading) -> bool:
        """Whether an image of this reading belongs here."""
        value = getattr(reading, "benefit" if self.reading == GATE else self.reading) or 0.0
        return bool(value >= self.low and (self.high is None or value < self.high))


def bins_of(threshold: float) -> list[Bin]:
    """Return all bins: those of the benefit have an edge at the gate's threshold."""
    edges = {
        GATE: (0.0, threshold, None),
        "benefit": (0.0, threshold / 2, threshold, (1 + threshold) / 2, None),
        "rate_mm_h": _RATES,
        "transmission": _TRANSMISSIONS,
        "night": _NIGHT,
    }
    return [
        Bin(reading, low or 0.0, high)
        for reading, values in edges.items()
        for low, high in itertools.pairwise(values)
    ]


@dataclass(frozen=True, kw_only=True)
class WhereRow(Row):
    """A row of where.csv: what a derainer changes in the images of a bin, of all conditions.

    Attributes:
        bin: Which images, by the meter's reading of what was derained.
        images, boxes: Numbers of images and of objects.
        found, lost: Objects found only with, and only without deraining.
        gain: Objects found minus objects lost, per image.
        false: Change of the number of false detections, per image.
    """

    bin: Bin
    images: int
    boxes: int
    found: int
    lost: int
    gain: Score = field(default_factory=Score)
    false: Score = field(default_factory=Score)

    @property
    def is_small(self) -> bool:
        """Whether there are too few images or boxes to claim anything."""
        return are_few(self.images, self.boxes)

    @property
    def effect(self) -> Effect:
        """What the gain says; `unclear` of too few images."""
        effect = effect_of(self.gain)
        return "unclear" if self.is_small and effect != "undefined" else effect

    def flat(self) -> dict[str, Cell]:
        """Return the row as in where.csv and metrics.json."""
        return {
            "input": self.input,
            "derainer": self.derainer,
            "reading": self.bin.reading,
            "from": self.bin.low,
            "below": self.bin.high,
            "images": self.images,
            "boxes": self.boxes,
            "found": self.found,
            "lost": self.lost,
            "gain": self.gain.value,
            "gain_ci_low": self.gain.low,
            "gain_ci_high": self.gain.high,
            "false": self.false.value,
            "false_ci_low": self.false.low,
            "false_ci_high": self.false.high,
        }


@dataclass(frozen=True)
class WhereHelps:
    """What is known about when to derain; empty if that was not asked for.

    Attributes:
        threshold: The benefit from which a gate set to `auto` derains.
        readings: What the meter reads in each image, by its name, of the rainy ones under
            `derained`, of the clean ones under `derained_clean`, if these were derained.
        rows: Changes by bin.
        harm: Images that lose objects.
    """

    threshold: float = 0.0
    readings: Mapping[RowInput, Mapping[str, Reading]] = field(default_factory=dict)
    rows: Sequence[WhereRow] = ()
    harm: Sequence[HarmRow] = ()

    def flat(self) -> dict[str, Any]:
        """Return what metrics.json holds of it."""
        return {
            "gate_threshold": self.threshold if self.readings else None,
            "where": [row.flat() for row in self.rows],
            "harm": [row.flat() for row in self.harm],
        }


class Readings:
    """Reads images with the rain meter, each file once.

    Args:
        device: Where the meter computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._meter: RainMeter | None = None
        self._known: dict[Path, Reading] = {}

    @property
    def meter(self) -> RainMeter:
        """The meter, loaded when it is first needed."""
        self._meter = self._meter or RainMeter(device=self._device)
        return self._meter

    def __call__(
        self, files: Mapping[str, Path], progress: Callable[[int], object] = lambda images: None
    ) -> dict[str, Reading]:
        """Return the reading of each image, by its name.

        Args:
            files: Image files by name.
            progress: Called with the number of images just finished.

        Raises:
            ImageError: An image cannot be read.
        """
        paths = list(files.values())
        for start in range(0, len(paths), _AT_ONCE):
            part = [path for path in paths[start : start + _AT_ONCE] if path not in self._known]
            readings = self.meter([read_image(path) for path in part])
            self._known.update(zip(part, readings, strict=True))
            progress(len(paths[start : start + _AT_ONCE]))
        return {name: self._known[path] for name, path in files.items()}


def find_where(
    comparison: Comparison,
    changes: Sequence[ImageChangeRow],
    threshold: float,
    readings: Mapping[RowInput, Mapping[str, Reading]],
    *,
    resamples: int,
    seed: int,
) -> WhereHelps:
    """Count what each derainer changes, by the meter's reading, and the images that it harms.

    Args:
        comparison: A finished comparison.
        changes: What changed in each of its images; see `eval.detect.diagnosis`.
        threshold: The gate's.
        readings: See `WhereHelps`.
        resamples: Bootstrap resamples; 0 leaves intervals out.
        seed: Seed of the bootstrap.
    """
    names = {sample.image_id: sample.name for sample in comparison.data.samples}
    boxes = Counter(names.get(a["image_id"]) for a in comparison.truth.annotations)
    by_row: dict[tuple[RowInput, str], list[ImageChangeRow]] = {}
    for change in sorted(changes, key=lambda change: change.image):
        by_row.setdefault((change.input, change.derainer), []).append(change)
    rows = []
    for bin_ in bins_of(threshold):
        for (shown, derainer), members in by_row.items():
            known = readings.get(shown, {})
            chosen = [c for c in members if c.image in known and bin_.holds(known[c.image])]
            weights = draw_weights(len(chosen), resamples, seed) if resamples and chosen else None
            if known:
                rows.append(
                    WhereRow(
                        condition=ALL,
                        input=shown,
                        derainer=derainer,
                        bin=bin_,
                        images=len(chosen),
                        boxes=sum(boxes[change.image] for change in chosen),
                        found=sum(change.found for change in chosen),
                        lost=sum(change.lost for change in chosen),
                        gain=_mean([change.gain for change in chosen], weights),
                        false=_mean([change.false for change in chosen], weights),
                    )
                )
    conditions = {
        name: {names[i] for i in image_ids if i in names}
        for name, image_ids in comparison.data.conditions.items()
    }
    return WhereHelps(threshold, readings, rows, harm_rows(changes, conditions))


def _mean(values: Sequence[int], weights: np.ndarray[Any, Any] | None) -> Score:
    """Return the mean over images with its interval, of two or more; undefined without images."""
    if not values:
        return Score()
    mean = float(np.mean(values))
    if weights is None or len(values) < 2:
        return Score(mean)
    samples = weights @ np.array(values, dtype=np.float64) / len(values)
    return Score(mean, *(difference_interval(samples, np.zeros_like(samples)) or (None, None)))


def write_where(folder: Path, where: WhereHelps) -> None:
    """Write where.csv, harm.csv and readings.csv into a run's folder.

    A file without rows is not written, and one of an earlier run is removed.

    Raises:
        OutputError: A file cannot be written.
    """
    files: dict[str, list[dict[str, Cell]]] = {
        "where.csv": [row.flat() for row in where.rows],
        "harm.csv": [row.flat() for row in where.harm],
        "readings.csv": list(_reading_rows(where.readings)),
    }
    for name, rows in files.items():
        if rows:
            write_table(folder / name, rows)
        else:
            (folder / name).unlink(missing_ok=True)


def _reading_rows(
    readings: Mapping[RowInput, Mapping[str, Reading]],
) -> Iterator[dict[str, Cell]]:
    for derained, known in readings.items():
        shown = "clean" if derained == "derained_clean" else "rainy"
        for image, reading in known.items():
            values = reading.as_mapping()
            del values["intervals"]
            yield {"image": image, "input": shown, **values}
