"""Live sources: each is read and computed by its own pace, and only its newest frame is kept."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from detection.run.sources import Images, Live, Source, Video
from detection.serve.batching import Batcher, Job
from detection.serve.metrics import Metrics
from detection.serve.options import PlayOptions
from detection.serve.shown import Shown
from detection.timing import Stopwatch
from detection.types import SourceFrame
from rainmer.background import prefetch
from rainmer.errors import first_line
from rainmer.frames.arrays import Frame
from rainmer.stage.gate import GateState

__all__ = ["Channel", "LiveView"]

_AHEAD = 2
_HISTORY_S = 600
_RATE_WINDOW = 50  # frames whose times make the frames per second
_IMAGES_PER_S = 1.0

_ORIGIN = ("number", "time_s", "duration_s", "captured")

_log = logging.getLogger(__name__)


@dataclass
class _Second:
    """What happened to a source's frames in one second."""

    time: int
    sums: dict[str, float] = field(default_factory=dict)
    frames: int = 0

    def add(self, values: Mapping[str, float]) -> None:
        self.frames += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Return the second, its frames, and the mean of each value."""
        means = {name: round(total / self.frames, 4) for name, total in self.sums.items()}
        return {"time": self.time, "frames": self.frames, **means}


class Channel:
    """Plays one source: its frames go through the batcher, one after the other.

    Nobody who looks at it is waited for: there is its newest frame, ten minutes of means by the
    second, and nothing else.

    Args:
        source: Images, a video, a camera or a stream.
        batcher: What computes.
        names: Class names by label.
        metrics: Where frames are counted.
        play: How.

    Attributes:
        state: `waiting` for the first frame, `playing`, `ended`, or `failed`.
        newest: The newest frame; None: there was none.
    """

    def __init__(
        self,
        source: Source,
        batcher: Batcher,
        names: Mapping[int, str],
        metrics: Metrics,
        play: PlayOptions,
    ) -> None:
        self._source = source
        self._batcher = batcher
        self._names = names
        self._metrics = metrics
        self._loop = play.loop and not isinstance(source, Live)
        self._pace = play.pace or (_IMAGES_PER_S if isinstance(source, Images) else None)
        self._kind: Literal["compare", "detect"] = "compare" if play.compare else "detect"
        self._closed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"channel {source.name}", daemon=True
        )
        self._lock = threading.Lock()
        self._history: deque[_Second] = deque(maxlen=_HISTORY_S)
        self._done_s: deque[float] = deque(maxlen=_RATE_WINDOW)
        self._frames = self._failures = 0
        self.state: Literal["waiting", "playing", "ended", "failed"] = "waiting"
        self.newest: Shown | None = None
        if isinstance(source, Live):
            source.closed = self._stop
            metrics.dropped.labels(source.name).set_function(lambda: source.counts.dropped)

    @property
    def source_name(self) -> str:
        """The name by which it is asked for; no path, and no address."""
        return self._source.name

    def start(self) -> None:
        """Play the source until it ends or `close` is called; returns at once."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._play()
        except Exception as error:  # noqa: BLE001 - the other sources go on
            if not self._closed:
                _log.error("the source %s has failed: %s", self.source_name, first_line(error))
                self.state = "failed"
                return
        self.state = "ended" if self._frames else "failed"

    def stop(self) -> None:
        """Ask it to stop playing; `close` waits for that."""
        self._closed = True
        self._stop.set()

    def close(self) -> None:
        """Stop playing, and wait until the frame that is computed is done."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join()

    def summary(self) -> dict[str, Any]:
        """Return its state and its numbers, for those who look at several sources."""
        now = time.monotonic()
        with self._lock:
            done = [moment for moment in self._done_s if now - moment < 10]
            newest = self.newest
            rate = (len(done) - 1) / (now - done[0]) if len(done) > 1 else 0.0
            counts = {"frames": self._frames, "failures": self._failures}
        if isinstance(self._source, Live):
            counts |= asdict(self._source.counts)
        return {
            "name": self.source_name,
            "kind": _kind_of(self._source),
            "state": self.state,
            "frames_per_s": round(rate, 2) if self.state == "playing" else 0.0,
            **counts,
            "stage_ms": newest.record["stage_ms"] if newest else {},
        }

    def history(self, since: int) -> list[dict[str, float]]:
        """Return the complete seconds after one, in seconds of Unix time."""
        now = int(time.time())
        with self._lock:
            return [second.means() for second in self._history if since < second.time < now]

    def _play(self) -> None:
        while not self._stop.is_set():
            before = self._frames
            try:
                self._play_once()
            except BaseException:
                self._stop.set()  # or the thread that reads would wait for its next frame
                raise
            finally:
                for line in self._source.failures:
                    _log.warning("%s", line)
                self._failures += len(self._source.failures)
                self._source.failures.clear()
            if not self._loop or self._frames == before:
                return

    def _play_once(self) -> None:
        gate = GateState()
        with contextlib.closing(prefetch(self._timed(), _AHEAD)) as frames:
            for frame, decode_ms in frames:
                if self._stop.is_set():
                    return
                if not isinstance(self._source, Live) or self._source.admit(frame):
                    self._show(frame, decode_ms, gate)

    def _timed(self) -> Iterator[tuple[SourceFrame, float]]:
        """Yield frames when they are due, each with the time in ms that decoding took."""
        frames, begun = iter(self._source), time.monotonic()
        number = 0
        while True:
            with Stopwatch() as watch:
                frame = next(frames, None)
            if frame is None or self._stop.is_set():
                return
            if not isinstance(self._source, Live):
                due_s = number / self._pace if self._pace else frame.time_s or 0.0
                late_s = time.monotonic() - begun - due_s
                begun += max(late_s, 0.0)  # what is late is not caught up with
                self._stop.wait(max(-late_s, 0.0))
            number += 1
            # What a live source takes is the time until a picture comes.
            yield frame, 0.0 if isinstance(self._source, Live) else watch.elapsed_ms

    def _show(self, frame: SourceFrame, decode_ms: float, gate: GateState) -> None:
        image: Frame = frame.image  # type: ignore[assignment]
        state = gate if frame.is_moving else None
        waiting = Stopwatch()
        with waiting:
            answer = self._batcher.submit(Job(self._kind, image, frame.name, state)).result()
        origin = {key: getattr(frame, key) for key in _ORIGIN}
        answer = answer._replace(processed=replace(answer.processed, **origin))
        computed_ms = sum(answer.processed.stage_ms.values()) + answer.rainy_ms
        stage_ms = {"decode": decode_ms, "queue": max(waiting.elapsed_ms - computed_ms, 0.0)}
        extra = {"source": self.source_name, "stage_ms": stage_ms}
        shown = Shown(answer, self._names, self._frames + 1, extra)
        self._metrics.frames.labels(self.source_name).inc()
        if decode_ms:
            self._metrics.stage("decode", decode_ms)
        values, now = _values_of(shown), int(time.time())
        with self._lock:
            self._frames += 1
            self._done_s.append(time.monotonic())
            if not self._history or self._history[-1].time != now:
                self._history.append(_Second(now))
            self._history[-1].add(values)
            self.newest = shown
            self.state = "playing"


def _values_of(shown: Shown) -> dict[str, float]:
    """Return what the page draws over time."""
    record, changes = shown.record, shown.changes
    values = {"derain_ms": record["derain_ms"], "detect_ms": record["detect_ms"]}
    if changes is not None:
        values |= {"found": float(changes.found.sum()), "lost": float(changes.lost.sum())}
    if "meter" in record:
        meter = record["meter"]
        values |= {"rate_mm_h": meter["rate_mm_h"], "rain": meter["rain"]}
        values |= {"benefit": meter["benefit"] or 0.0, "derained": float(record["derained"])}
    return values


def _kind_of(source: Source) -> str:
    if isinstance(source, Live):
        return "camera" if source.address.isdecimal() else "stream"
    return "video" if isinstance(source, Video) else "images"


class LiveView:
    """All channels of a server, by the names of their sources."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.channels = {channel.source_name: channel for channel in channels}

    def start(self) -> None:
        """Start all channels."""
        for channel in self.channels.values():
            channel.start()

    def close(self) -> None:
        """Stop all channels and wait for their ends."""
        for channel in self.channels.values():
            channel.stop()
        for channel in self.channels.values():
            channel.close()
