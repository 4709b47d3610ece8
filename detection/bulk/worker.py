"""The actor: a derainer and a detector, and the loop that turns a unit of images into parts."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detection.bulk.parts import (
    BOXES,
    DERAINED,
    Row,
    find_parts,
    part_name,
    read_rows,
    rows_as_parquet,
    tar_of,
)
from detection.bulk.places import Place
from detection.bulk.reading import Columns, Item, decode, read_unit
from detection.bulk.units import Unit
from detection.pipeline import Pipeline, Processed
from detection.specs import LoadedDetector, load_detector
from detection.types import SourceFrame
from detection.yolo.letterbox import PAD_VALUE
from rainmer.background import ordered_map, prefetch
from rainmer.device import resolve_device, use_threads
from rainmer.errors import ImageError, RainmerError
from rainmer.frames.images import encode_image
from rainmer.frames.levels import Stretch
from rainmer.stage.results import make_derainer

__all__ = ["Settings", "Worker", "make_detector"]

_STARTS = 4  # of a unit over which actors died
_REASONS = 3  # in a report; the rows have all


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an actor is told, of plain values: it is sent to other processes and machines.

    Attributes:
        source, out: Addresses of the input and the results.
        folder: The working folder of the command, which relative paths begin at.
        derain, gate, stage: Arguments of `rainmer.stage.results.make_derainer`.
        detector, detection: Arguments of `detection.specs.load_detector`.
        columns, stretch, max_pixels: How images are read.
        save: Type of the derained images that are written; None: none.
        threads: CPU threads of the actor.
        known: Images that parts of other units hold, from before the input changed.
    """

    source: str
    out: str
    folder: str
    derain: str
    gate: str | float | None
    stage: dict[str, Any]
    detector: str
    detection: dict[str, Any]
    columns: Columns
    stretch: Stretch | None
    max_pixels: int
    save: str | None
    threads: int
    known: frozenset[str] = frozenset()


def make_detector(settings: Settings, device: str) -> LoadedDetector:
    """Load the detector. Raises RainmerError, WeightsError."""
    batch = settings.stage["batch"]
    return load_detector(settings.detector, device, batch=batch, **settings.detection)


class Worker:
    """An actor of the pool, for `map_batches`.

    Args:
        settings: What to do.
        ledger: An actor whose `start` counts how often a unit was begun; None: nobody counts.

    Errors of ours become a report: of what actors raise, Ray keeps a traceback only.
    """

    def __init__(self, settings: Settings, ledger: Any = None) -> None:  # noqa: ANN401
        logging.getLogger().setLevel(logging.ERROR)
        # Also on other machines, if it is there: specs may hold relative paths.
        with contextlib.suppress(OSError):
            os.chdir(settings.folder)
        use_threads(settings.threads)
        self.name = f"{platform.node()}:{os.getpid()}"
        self._settings, self._ledger = settings, ledger
        self._broken = ""
        try:
            self._set_up(settings)
        except RainmerError as error:
            self._broken = str(error)

    def _set_up(self, settings: Settings) -> None:
        self._source, self._out = Place(settings.source), Place(settings.out)
        derainer = make_derainer(settings.derain, gate=settings.gate, **settings.stage)
        device = str(resolve_device(settings.stage["device"]))
        self._pipeline = Pipeline(derainer, make_detector(settings, device))
        # Set-up takes seconds, which must not count towards the first image.
        self._pipeline.detector([np.full((64, 64, 3), PAD_VALUE, np.uint8)])

    def __call__(self, batch: dict[str, Sequence[str]]) -> Iterator[dict[str, list[Any]]]:
        """Yield a report for each part of the units, once the part is written.

        If a result cannot be written, a network cannot be loaded or does not do, or a unit killed
        one actor after the other, the report has an `error`.
        """
        for text in batch["unit"]:
            unit, error, again = Unit.from_json(str(text)), self._broken, False
            try:
                again = not error and self._starts(unit) > 1
                for report in self.process(unit, again=again) if not error else ():
                    yield _told(report, unit if again else None)
            except RainmerError as failed:
                error = str(failed)
            if error:
                yield _told(self._report([], 0), unit if again else None, error)
                return

    def process(self, unit: Unit, *, again: bool = False) -> Iterator[dict[str, Any]]:
        """Write the parts of a unit that are not done, and yield a report for each.

        Args:
            unit: The unit.
            again: Another actor has died over it. What that one has written is reported as it is:
                Ray leaves out as many reports as have come already.
        """
        there = find_parts(self._out.names(BOXES)).get(unit.key, []) if again else []
        written = {part.number: part for part in there}
        items = read_unit(self._source, unit, self._settings.columns)
        # One part is read while another one is computed.
        chunks = prefetch(_chunks(items, unit.part), 1)
        with contextlib.closing(chunks):
            for number, (chunk, last) in enumerate(chunks):
                if number in unit.done:
                    continue
                if number in written:
                    yield self._report(read_rows(self._out, written[number]), len(chunk))
                else:
                    yield self._write_part(unit, number, chunk, last=last)

    def _starts(self, unit: Unit) -> int:
        """Return how often the unit was begun. Raises RainmerError if it killed too many actors."""
        if self._ledger is None:
            return 1
        import ray

        starts = int(ray.get(self._ledger.start.remote(unit.key)))
        if starts > _STARTS:
            raise RainmerError(
                f"{starts - 1} actors died over {unit.paths[0]} and the images after it (out of "
                "memory?): fewer --actors, smaller --batch or --tile may help; results so far are "
                "kept, the same command goes on"
            )
        return starts

    def _write_part(
        self, unit: Unit, number: int, chunk: Sequence[Item], *, last: bool
    ) -> dict[str, Any]:
        began, computed_s = time.time(), time.process_time()
        chosen = [item for item in chunk if item.id not in self._settings.known]
        rows, images = self._rows(chosen)
        name = part_name(unit.key, number, len(rows), last=last)
        if images:
            self._out.write(f"{DERAINED}/{name.replace('.parquet', '.tar')}", tar_of(images))
        # Last: what is there is done.
        self._out.write(f"{BOXES}/{name}", rows_as_parquet(rows))
        report = self._report(rows, len(chunk))
        return {**report, "began": began, "cpu_s": time.process_time() - computed_s}

    def _report(self, rows: Sequence[Row], images: int) -> dict[str, Any]:
        reasons = [row.reason for row in rows if row.reason is not None]
        return {
            "actor": self.name,
            "images": len(rows),
            "known": images - len(rows),
            "failed": len(reasons),
            "boxes": sum(len(row.detections) for row in rows if row.detections is not None),
            "derained": sum(row.derained for row in rows),
            "began": time.time(),
            "ended": time.time(),
            "cpu_s": 0.0,
            "reasons": "\n".join(reasons[:_REASONS]),
        }

    def _rows(self, items: Sequence[Item]) -> tuple[list[Row], list[tuple[str, bytes]]]:
        """Derain and detect; return a row for each image, and the derained images if wanted."""
        rows: dict[str, Row] = {}
        images: list[tuple[str, bytes]] = []
        stream = self._pipeline.run(self._frames(items, rows), self._settings.stage["batch"])
        with contextlib.closing(stream):
            if self._settings.save is None:
                for processed in stream:
                    rows[processed.name] = _row(processed)
            else:
                for processed, content in ordered_map(
                    self._encoded, stream, self._settings.threads
                ):
                    rows[processed.name] = _row(processed)
                    images.append((_image_name(processed.name, self._settings.save), content))
        return [rows[item.id] for item in items], images

    def _frames(self, items: Sequence[Item], rows: dict[str, Row]) -> Iterator[SourceFrame]:
        """Yield the images that can be decoded; the others become rows at once."""
        settings = self._settings

        def decoded(item: Item) -> Any:  # noqa: ANN401
            return decode(self._source, item, settings.stretch, settings.max_pixels)

        for item, frame in ordered_map(decoded, items, settings.threads, errors=(ImageError,)):
            if isinstance(frame, ImageError):
                rows[item.id] = Row(item.id, reason=str(frame))
            else:
                yield SourceFrame(item.id, frame)

    def _encoded(self, processed: Processed) -> bytes:
        return encode_image(processed.derained, f".{self._settings.save}")


def _told(report: dict[str, Any], again: Unit | None, error: str = "") -> dict[str, list[Any]]:
    """Return a report as a batch of one row."""
    told = {**report, "again": again.key if again else "", "error": error}
    return {key: [value] for key, value in told.items()}


def _row(processed: Processed) -> Row:
    decision = processed.decision
    derained = decision is None or decision.derain
    return Row(processed.name, processed.size_hw, processed.detections, derained)


def _image_name(name: str, suffix: str) -> str:
    return name if name.lower().endswith(f".{suffix}") else f"{name}.{suffix}"


def _chunks(items: Iterator[Item], size: int) -> Iterator[tuple[list[Item], bool]]:
    """Yield the items in lists of a size, each with whether it is the last one; at least one."""
    chunk = list(itertools.islice(items, size))
    while True:
        following = list(itertools.islice(items, size))
        yield chunk, not following
        if not following:
            return
        chunk = following
