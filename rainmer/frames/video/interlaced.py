"""Interlaced frames: two half pictures, taken one after the other, become one whole picture."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import av.filter

__all__ = ["Stamped", "deinterlaced"]

# Only frames that are marked as interlaced are changed; one frame out for each frame in.
_FILTER = ("bwdif", "mode=send_frame:deint=interlaced")


@dataclass(frozen=True, eq=False)
class Stamped:
    """A decoded frame with its place in the file; see `VideoFrame`."""

    number: int
    time_s: float
    duration_s: float | None
    decoded: av.VideoFrame


def deinterlaced(frames: Iterator[Stamped]) -> Iterator[Stamped]:
    """Yield the frames, interlaced ones made whole by FFmpeg's bwdif.

    The filter needs the frame after the one that it works on; it runs from the first interlaced
    frame on.
    """
    running: _Filter | None = None
    for stamped in frames:
        form = _form(stamped.decoded)
        if running is not None and running.form != form:
            yield from running.flush()
            running = None
        if running is None and not stamped.decoded.interlaced_frame:
            yield stamped
            continue
        running = running or _Filter(form)
        yield from running.push(stamped)
    if running is not None:
        yield from running.flush()


def _form(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


class _Filter:
    """A filter graph for frames of one size and format."""

    def __init__(self, form: tuple[int, int, str]) -> None:
        self.form = form
        width, height, pixels = form
        self._graph = av.filter.Graph()
        steps = [
            self._graph.add_buffer(
                width=width, height=height, format=av.VideoFormat(pixels), time_base=Fraction(1, 25)
            ),
            self._graph.add(*_FILTER),
            self._graph.add("buffersink"),
        ]
        for step, following in itertools.pairwise(steps):
            step.link_to(following)
        self._graph.configure()
        self._waiting: deque[Stamped] = deque()
        self._pushed = 0

    def push(self, stamped: Stamped) -> Iterator[Stamped]:
        """Give a frame in, and take out what is ready."""
        frame = stamped.decoded
        frame.pts, frame.time_base = self._pushed, Fraction(1, 25)
        self._pushed += 1
        self._waiting.append(stamped)
        self._graph.push(frame)
        yield from self._pull()

    def flush(self) -> Iterator[Stamped]:
        """Take out the rest."""
        self._graph.push(None)
        yield from self._pull()

    def _pull(self) -> Iterator[Stamped]:
        while self._waiting:
            try:
                whole = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(whole, av.VideoFrame)
            yield replace(self._waiting.popleft(), decoded=whole)
