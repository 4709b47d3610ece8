"""Cameras and streams: read as they come, reconnected when they break off, never waited for."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer

from detection.run.addresses import connect, is_finite, name_of, reason, shown_address
from detection.run.options import LiveOptions
from detection.types import SourceFrame
from rainmer.errors import ImageError
from rainmer.frames.decoding import to_rgb
from rainmer.frames.video import DEFAULT_FPS

__all__ = ["Live", "LiveCounts"]

_LONGEST_PAUSE_S = 30.0
_MOST_WAITING = 16  # frames, 50 MB of 1080p
_POLL_S = 0.1
_LONGEST_JOIN_S = 0.2
_TIMEOUTS_UNTIL_STUCK = 3  # opening alone may take two
# HLS: frames further from where their time stamps belong start a new clock.
_LATE_S, _EARLY_S = 0.5, 60.0
_REMEMBERED = 1024  # frames: after a reconnect HLS repeats up to three segments

# What waiting does not mend if the very first connection fails by it.
_PERMANENT = (
    av.error.HTTPBadRequestError,
    av.error.HTTPUnauthorizedError,
    av.error.HTTPForbiddenError,
    av.error.HTTPNotFoundError,
    av.error.InvalidDataError,
    av.error.ProtocolNotFoundError,
    av.error.DecoderNotFoundError,
    av.error.FileNotFoundError,
    av.error.PermissionError,
)

_logger = logging.getLogger(__name__)


@dataclass
class LiveCounts:
    """What happened to the frames of a live source.

    Attributes:
        received: Whole frames that arrived.
        dropped: Those of them that gave way to newer ones.
        damaged: Frames that could not be decoded in full. They are skipped.
        reconnects: How often the source was lost and came back.
        offline_s: Time in s until it came back, in all.
    """

    received: int = 0
    dropped: int = 0
    damaged: int = 0
    reconnects: int = 0
    offline_s: float = 0.0


@dataclass(frozen=True, eq=False)
class _Arrived:
    """A picture as it came: its number, its times as in `SourceFrame`, itself."""

    number: int
    time_s: float
    captured: float | None
    picture: av.VideoFrame


class _LostError(Exception):
    """The source has broken off; the text is the reason."""


@dataclass
class Live:
    """A camera by its number, or a stream by its address.

    A thread of its own reads it from the first frame asked for until it ends for good. What the
    consumer does not take in time is dropped, so that the newest frames are processed. The address
    of something finite (a video file on a web server, a recording) is a video: it is read at the
    consumer's pace, and its end is no loss.

    Args:
        address: A camera number, or an address that FFmpeg opens. Its credentials are shown
            nowhere.
        options: Time-outs and limits.
        limit: Most frames to process; None: no limit.

    Attributes:
        closed: Iterating ends when this is set.
        counts: What happened to the frames so far.
    """

    address: str
    options: LiveOptions = field(default_factory=LiveOptions)
    limit: int | None = None
    count: int = 0
    fps: float = DEFAULT_FPS
    failures: list[str] = field(default_factory=list)
    counts: LiveCounts = field(default_factory=LiveCounts)
    closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if "\0" in self.address:
            raise ImageError(f"{self.label}: an address cannot hold a null byte")
        self.name = name_of(self.address)
        self._change = threading.Condition()
        self._waiting: deque[_Arrived] = deque()
        self._admitted = 0
        self._stop = threading.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._numbers = itertools.count()
        self._newest = -1
        self._finite: bool | None = None
        self._start_s: float | None = None
        self._last_s: float | None = None
        self._lost_s: float | None = None
        self._expected_s = math.inf
        self._pictures = _PictureWatch(self.options.frozen)

    @property
    def label(self) -> str:
        """What messages call it."""
        kind = "camera" if self.address.isdecimal() else "stream"
        return f"the {kind} {shown_address(self.address)}"

    @property
    def files(self) -> list[tuple[str, Path]]:
        """The address, without credentials, under its name."""
        return [(self.name, Path(shown_address(self.address)))]

    def __iter__(self) -> Iterator[SourceFrame]:
        """Yield frames as they come; add to `failures` unless the source ends well.

        A frame is named by its number among all that came: gaps are frames dropped or damaged. Its
        `time_s` counts from the arrival of the first one (of a finite source: as it says itself).
        """
        reader = threading.Thread(target=self._read, name=f"live {self.name}", daemon=True)
        reader.start()
        try:
            while (arrived := self._next()) is not None:
                yield SourceFrame(
                    name=f"{arrived.number:06d}",
                    image=to_rgb(arrived.picture),
                    number=arrived.number,
                    time_s=arrived.time_s,
                    captured=arrived.captured,
                )
        finally:
            self._finish()
            # A reader that is inside FFmpeg ends at its time-out: nobody waits for that.
            reader.join(_LONGEST_JOIN_S)
        if isinstance(self._error, ImageError):
            self.failures.append(f"{self.name}: {self._error}")
        elif self._error is not None:
            raise self._error
        elif self._finite and self.counts.damaged:
            self.failures.append(f"{self.name}: damaged frames left out: {self.counts.damaged}")

    def admit(self, frame: SourceFrame) -> bool:
        """Tell whether a frame that was handed out is to be processed, now that its turn has come.

        It is not if the limit is reached, or if it has become too old and a newer one has come.
        """
        if self.limit is not None and self._admitted >= self.limit:
            return False
        if not self._finite and self._is_old(frame):
            with self._change:
                self.counts.dropped += 1
            return False
        self._admitted += 1
        if self._admitted == self.limit:
            self._finish()
        return True

    def _is_old(self, frame: SourceFrame) -> bool:
        age_s = time.monotonic() - cast(float, self._start_s) - cast(float, frame.time_s)
        return age_s > self.options.max_latency and cast(int, frame.number) < self._newest

    def _finish(self) -> None:
        with self._change:
            self._stop.set()
            self._change.notify_all()

    def _next(self) -> _Arrived | None:
        """Wait for a picture; None: the source has ended, or no more are wanted."""
        with self._change:
            while not (self._stop.is_set() or self.closed.is_set()):
                if self._waiting:
                    self._change.notify_all()
                    return self._waiting.popleft()
                if time.monotonic() > self._expected_s:
                    self._error = ImageError(
                        f"{self.label} does not answer, and no time-out ends it"
                    )
                if self._ended or self._error is not None:
                    return None
                self._change.wait(_POLL_S)
        return None

    def _read(self) -> None:
        """Read until the source ends for good; the target of the thread."""
        try:
            self._read_and_reconnect()
        except BaseException as error:  # noqa: BLE001 - told by the thread that iterates
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _read_and_reconnect(self) -> None:
        attempts = 0
        while not self._stop.is_set():
            received = self.counts.received
            why = self._read_once()
            if why is None or self._stop.is_set():
                return
            if self._finite:
                raise ImageError(f"{self.label} ends early, after {self._frames()}: {why}")
            if self.counts.received > received:
                attempts = 0
            if attempts >= self.options.reconnect:
                raise ImageError(self._farewell(why, attempts))
            pause_s = min(self.options.first_pause * 2.0**attempts, _LONGEST_PAUSE_S)
            attempts += 1
            _logger.warning(
                "%s: %s; trying again in %.3g s (%d of %d)",
                *(self.label, why, pause_s, attempts, self.options.reconnect),
            )
            self._lost_s = self._last_s
            self._stop.wait(pause_s)

    def _farewell(self, why: str, attempts: int) -> str:
        more = f"{attempts} more attempt{'s' * (attempts != 1)}"
        tried = f"; no picture in {more} (see --reconnect)" if attempts else ""
        if not self.counts.received:
            return f"cannot open {self.label}: {why}{tried}"
        return f"{self.label} has broken off after {self._frames()}: {why}{tried}"

    def _frames(self) -> str:
        return f"{self.counts.received} frame{'s' * (self.counts.received != 1)}"

    def _read_once(self) -> str | None:
        """Connect, and read until the connection is lost; return why, None after a good end."""
        connected = False
        try:
            self._expect()
            with connect(self.address, self.options.timeout) as container:
                connected, finite = True, is_finite(container)
                if finite and self._finite is False and self.counts.received:
                    return None  # a live stream that has become a recording: it is over
                self._finite = finite
                self._play(container)
        except _LostError as error:
            return str(error)
        except (av.FFmpegError, OSError, ValueError) as error:
            why = reason(error, self.options.timeout, connected=connected)
            hopeless = self.address.isdecimal() or isinstance(error, _PERMANENT)
            if self.address.isdecimal():
                why = f"not there, not readable, or in use ({why})"
            if hopeless and not self.counts.received:
                raise ImageError(f"cannot open {self.label}: {why}") from None
            return why
        finally:
            self._expected_s = math.inf
        return None

    def _play(self, container: InputContainer) -> None:
        """Take the pictures of a connection until it ends well.

        Raises:
            _LostError: No picture comes, none that is new, or a live source ends.
            av.FFmpegError: The connection is lost.
        """
        if not container.streams.video:
            raise _LostError("it holds no video")
        video = container.streams.video[0]
        self.fps = float(video.average_rate or video.guessed_rate or DEFAULT_FPS)
        if video.codec_context.name == "mjpeg":
            # Half a picture would come out as a whole one, the rest of it gray.
            video.codec_context.options = {"err_detect": "explode"}
        clock = None
        if container.format.name == "hls" and not self._finite:
            clock = _SegmentClock(self._stop)
        picture_s = time.monotonic()
        for packet in self._packets(container):
            pictures = self._decode(packet) if packet.stream is video else []
            for picture in pictures:
                if clock is not None:
                    if self._pictures.is_repeated(picture):
                        continue
                    clock.wait(picture)
                self._take(picture)
                picture_s = time.monotonic()
            if time.monotonic() - picture_s > self.options.timeout:
                raise _LostError(f"no picture for {self.options.timeout:g} s")
        if not self._finite and not self._stop.is_set():
            raise _LostError("the connection has ended")

    def _packets(self, container: InputContainer) -> Iterator[av.Packet[Any]]:
        """Yield packets, and note since when FFmpeg owes one: some devices ignore time-outs."""
        packets = container.demux()
        while not self._stop.is_set():
            self._expect()
            packet = next(packets, None)
            self._expected_s = math.inf
            if packet is None:
                return
            yield packet

    def _expect(self) -> None:
        self._expected_s = time.monotonic() + _TIMEOUTS_UNTIL_STUCK * self.options.timeout

    def _decode(self, packet: av.Packet[Any]) -> list[av.VideoFrame]:
        """Return the whole pictures of a packet; count the others."""
        try:
            pictures = packet.decode()
            whole = [picture for picture in pictures if not picture.is_corrupt]
            damaged = len(pictures) - len(whole)
        except av.FFmpegError:
            whole, damaged = [], 1
        for _ in range(damaged):
            next(self._numbers)
        self.counts.damaged += damaged
        return whole

    def _take(self, picture: av.VideoFrame) -> None:
        """Let a picture wait for the consumer; the oldest that waits gives way.

        Raises:
            _LostError: The picture has been the same for too long.
        """
        now = time.monotonic()
        with self._change:
            if self._finite:
                while len(self._waiting) >= _MOST_WAITING and not self._stop.is_set():
                    self._change.wait(_POLL_S)
            elif len(self._waiting) >= _MOST_WAITING:
                self._waiting.popleft()
                self.counts.dropped += 1
            if self._lost_s is not None:
                self.counts.reconnects += 1
                self.counts.offline_s = round(self.counts.offline_s + now - self._lost_s, 3)
                self._lost_s = None
            self.counts.received += 1
            self._newest, self._last_s = next(self._numbers), now
            self._waiting.append(self._stamped(picture, now))
            self._change.notify_all()
        if not self._finite:
            self._pictures.check(picture, now)

    def _stamped(self, picture: av.VideoFrame, now_s: float) -> _Arrived:
        own_s = picture.time if picture.pts is not None else self._newest / self.fps
        if self._start_s is None:
            self._start_s = own_s if self._finite else now_s
        if self._finite:
            return _Arrived(self._newest, own_s - self._start_s, None, picture)
        return _Arrived(self._newest, now_s - self._start_s, time.time(), picture)


class _PictureWatch:
    """Notices a picture that stays the same, and pictures that came before.

    A camera has noise, but what it sends is compressed: of a scene at rest, an encoder may repeat
    the picture exactly until the next key frame, for seconds. Only a picture that is the same for
    much longer is a sign of a server that hangs. If it is still the same after the new connection,
    the scene may be a test picture: the time doubles until it changes.

    Args:
        frozen_s: How long a picture may stay the same; 0: for ever.
    """

    def __init__(self, frozen_s: float) -> None:
        self._frozen_s = frozen_s
        self._allowed_s = frozen_s
        self._checksum: int | None = None
        self._since_s = 0.0
        self._seen: deque[tuple[int | None, int]] = deque(maxlen=_REMEMBERED)

    def check(self, picture: av.VideoFrame, now_s: float) -> None:
        """Note a picture.

        Raises:
            _LostError: It has been the same for too long.
        """
        checksum = _checksum(picture)
        if checksum != self._checksum:
            self._checksum, self._since_s, self._allowed_s = checksum, now_s, self._frozen_s
        elif 0 < self._allowed_s < now_s - self._since_s:
            self._since_s, self._allowed_s = now_s, 2 * self._allowed_s
            raise _LostError(f"the picture has been the same for {self._allowed_s / 2:g} s")

    def is_repeated(self, picture: av.VideoFrame) -> bool:
        """Tell whether this picture came before at the same time of the stream."""
        key = picture.pts, _checksum(picture)
        if key in self._seen:
            return True
        self._seen.append(key)
        return False


def _checksum(picture: av.VideoFrame) -> int:
    """Return a checksum of the first plane (luma, or all of a packed format), without padding."""
    plane, form = picture.planes[0], picture.format
    bits = form.components[0].bits if form.is_planar else form.padded_bits_per_pixel
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return zlib.crc32(rows[:, : plane.width * -(-bits // 8)].tobytes())


class _SegmentClock:
    """Hands out frames at their own pace: HLS brings them in whole segments of seconds."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._start_s: float | None = None

    def wait(self, picture: av.VideoFrame) -> None:
        """Wait until the picture's time, counted from the first one's."""
        if picture.pts is None:
            return
        now = time.monotonic()
        early_s = math.inf if self._start_s is None else self._start_s + picture.time - now
        if not -_LATE_S < early_s < _EARLY_S:
            self._start_s, early_s = now - picture.time, 0.0
        self._stop.wait(max(early_s, 0.0))
