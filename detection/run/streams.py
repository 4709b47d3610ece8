"""Run all sources through one pipeline: decode, derain, detect, write."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from detection.pipeline import STAGES, Pipeline, Processed
from detection.run.options import DetectionOptions
from detection.run.records import RunFolder
from detection.run.saving import Saver, annotated
from detection.run.sources import Images, Live, Source, Video
from detection.run.window import Window
from detection.timing import StageTimes
from detection.tracks import Tracker, make_tracker
from detection.types import Detections, Detector
from rainmer.background import consume
from rainmer.cli import progress_bar
from rainmer.device import frames_at_once, resolve_device
from rainmer.errors import ImageError, RainmerError
from rainmer.frames.arrays import Frame
from rainmer.frames.images import image_size_hw
from rainmer.stage import Derainer
from rainmer.stage.results import PrecomputedResults

__all__ = ["StreamResult", "Streams"]


class StreamResult(NamedTuple):
    """A frame on its way to the thread that writes.

    Attributes:
        source: Name of the source.
        processed: The frame; None: the source has ended.
        in_rainy: Detections in the rainy frame, if that is shown.
    """

    source: str
    processed: Processed | None
    in_rainy: Detections | None


class Streams:
    """Runs all sources through the pipeline, in three stages at the same time.

    Each source is decoded in its own thread, the calling thread derains and detects, and one more
    thread draws and writes.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        options: DetectionOptions,
        derainer: Derainer | PrecomputedResults,
        detector: Detector,
    ) -> None:
        self._sources = {source.name: source for source in sources}
        self._lives = {source.name: source for source in sources if isinstance(source, Live)}
        self._options = options
        self._derainer = derainer
        self._detector = detector
        # At network size the attached derainer runs inside the detector.
        self._pipeline = Pipeline(_unchanged if options.where == "network" else derainer, detector)
        self._window = Window(list(self._sources)) if options.show else None
        self._trackers = _trackers(self._sources, options) if options.track else {}
        self._times = StageTimes()
        self._frames = 0
        self._wall_s = 0.0

    def process(self, run: RunFolder) -> None:
        """Write the results of all sources.

        Raises:
            StreamError: Sources failed; the results of all others are complete.
        """
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            savers = self._open_savers(run.folder, stack)
            bar = stack.enter_context(self._progress_bar())

            def write(result: StreamResult) -> None:
                self._write(result, savers.get(result.source), run)
                bar.update(result.processed is not None)

            try:
                consume(self._detected(), write, 2 * self._options.batch)
            finally:
                self._wall_s = time.perf_counter() - start

    def _open_savers(self, folder: Path, stack: contextlib.ExitStack) -> dict[str, Saver]:
        """Return the savers by source; none without `--save`."""
        if not self._options.save:
            return {}
        return {
            name: stack.enter_context(
                Saver(
                    source,
                    self._derainer.name,
                    self._detector.names,
                    folder,
                    video=self._options,
                    whole=self._options.limit is None,
                )
            )
            for name, source in self._sources.items()
        }

    def _progress_bar(self) -> tqdm[Any]:
        limit = self._options.limit
        counts = [
            min(source.count or limit or 0, limit or source.count)
            for source in self._sources.values()
        ]
        return progress_bar(
            sum(counts) if all(counts) else None,
            quiet=self._options.quiet,
            unit="frame",
            name=next(iter(self._sources)) if len(counts) == 1 else f"{len(counts)} sources",
        )

    def timing(self) -> dict[str, Any]:
        """Return ms per frame of each stage, s in all, frames per s, what live and gate counted."""
        lives = {name: dataclasses.asdict(live.counts) for name, live in self._lives.items()}
        return {
            "stage_ms": {
                stage: round(self._times.total_ms(stage) / max(self._frames, 1), 3)
                for stage in ("decode", *STAGES, "write")
            },
            "wall_s": round(self._wall_s, 3),
            "frames_per_s": round(self._frames / self._wall_s, 3) if self._wall_s else None,
            **({"live": lives} if lives else {}),
            **self._gate_counts(),
        }

    def _gate_counts(self) -> dict[str, Any]:
        gate = self._derainer.gate if isinstance(self._derainer, Derainer) else None
        return {"gate": {"derained": gate.derained, "passed": gate.passed}} if gate else {}

    def _batch(self) -> int:
        """Return how many frames to process at once: only on the CPU not as many as wanted."""
        sizes = [_size_hw(source) for source in self._sources.values()]
        return max(
            frames_at_once(self._options.batch, size_hw, resolve_device(self._options.device))
            for size_hw in sizes
        )

    def _write(self, result: StreamResult, saver: Saver | None, run: RunFolder) -> None:
        if result.processed is None:
            if saver is not None:
                saver.close()
            return
        with self._times.measuring("write"):
            if saver is not None:
                saver.save(result.processed, result.in_rainy)
            run.add(result.source, result.processed)
        for stage, elapsed_ms in result.processed.stage_ms.items():
            self._times.add(stage, elapsed_ms)
        self._frames += 1

    def _detected(self) -> Iterator[StreamResult]:
        """Derain and detect; detect in the rainy frames, too, if they are shown."""
        limit, closed = self._options.limit, threading.Event()
        for live in self._lives.values():
            live.closed = closed
        frames = {
            # Live sources first: they cannot wait until a video ends. They know the limit.
            name: self._times.of_items(
                "decode", itertools.islice(source, None if name in self._lives else limit)
            )
            for name, source in sorted(
                self._sources.items(), key=lambda item: item[0] not in self._lives
            )
        }
        streams = self._pipeline.run_streams(
            frames,
            self._batch(),
            at_once=max(len(self._lives), self._options.streams),
            live=bool(self._lives),
            download=self._options.save or self._options.show,
            admit=lambda stream, frame: (
                stream not in self._lives or self._lives[stream].admit(frame)
            ),
            closed=closed,
        )
        with contextlib.closing(streams):
            for name, processed in streams:
                yield self._result(name, processed)

    def _result(self, name: str, processed: Processed | None) -> StreamResult:
        """Add what the options ask for: numbers of objects, and detections in the rainy frame."""
        if processed is None:
            return StreamResult(name, None, None)
        in_rainy, conf = None, self._options.conf
        if self._options.side_by_side:
            (in_rainy,) = self._detector([processed.frame])
            in_rainy = in_rainy.select(in_rainy.scores >= conf)
        if name in self._trackers:
            found = processed.detections
            tracks = self._trackers[name](found, processed.size_hw)
            keep = (tracks >= 0) | (found.scores >= conf)
            processed = dataclasses.replace(
                processed, detections=found.select(keep), tracks=tracks[keep]
            )
        if self._window is not None:
            names = self._detector.names
            self._window.show(name, annotated(processed, in_rainy, names, self._derainer.name))
        return StreamResult(name, processed, in_rainy)


def _trackers(sources: Mapping[str, Source], options: DetectionOptions) -> dict[str, Tracker]:
    """Make a tracker for each source. Raises RainmerError for images, which follow no order."""
    for source in sources.values():
        if isinstance(source, Images):
            raise RainmerError(f"--track needs videos or streams, but {source.name} are images")
    return {name: make_tracker(options.conf) for name in sources}


def _size_hw(source: Source) -> tuple[int, int]:
    """Return the size of a source's (first) frames, as far as it is known; otherwise 0, 0."""
    with contextlib.suppress(ImageError):
        if isinstance(source, Images) and source.files:
            return image_size_hw(source.files[0][1])
        if isinstance(source, Video) and source.info is not None:
            return source.info.size_hw
    return 0, 0


def _unchanged(frames: list[Frame]) -> list[Frame]:
    return frames
