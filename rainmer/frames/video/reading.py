"""Reading video files: every frame with its number and its time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import av.container
import cv2
from av.codec.hwaccel import HWAccel
from av.stream import Disposition

from rainmer.device import usable_cpus
from rainmer.errors import ImageError
from rainmer.frames.arrays import Frame
from rainmer.frames.decoding import is_plain, is_turned, to_rgb
from rainmer.frames.video.codecs import DEFAULT_FPS
from rainmer.frames.video.counting import Clock, Numbering
from rainmer.frames.video.interlaced import Stamped, deinterlaced
from rainmer.frames.video.truncation import is_cut_off

__all__ = ["VideoFrame", "VideoInfo", "VideoReader", "open_input", "open_video"]

# Browsers and phones write the unit of their time stamps (ms) where the frame rate belongs.
_MOST_FPS = 480
_MOST_THREADS = 16

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame of a video.

    Attributes:
        number: Its number in the file, from 0; damaged frames have numbers, too.
        time_s: When it is shown, in seconds since the start of the file; rises strictly.
        image: uint8 (H, W, 3), RGB.
        duration_s: How long it is shown, in seconds; None if the file does not tell.
    """

    number: int
    time_s: float
    image: Frame
    duration_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a file tells about its video.

    Attributes:
        path: The file.
        size_hw: (height, width) of the frames, turned upright.
        fps: Mean frames per second, above 0; the frames' times are what counts.
        frame_count: Number of frames, often an estimate; 0 if unknown.
        time_base: Unit of the file's time stamps, in seconds.
        pixel_aspect: Width of a pixel by its height.
        start_s: Time stamp of the file that counts as 0.
    """

    path: Path
    size_hw: tuple[int, int]
    fps: float
    frame_count: int
    time_base: Fraction
    pixel_aspect: Fraction
    start_s: Fraction


def open_video(path: str | os.PathLike[str], *, hardware: bool = False) -> VideoReader:
    """Open a video file for reading; see `VideoReader`.

    Raises:
        ImageError: The file is missing, is not a video, or no frame of it can be decoded.
    """
    return VideoReader(path, hardware=hardware)


class VideoReader:
    """The frames of a video file in order, once.

    Frames come upright and in the colours that the file declares (see `to_rgb`), interlaced ones
    deinterlaced, with their own times: the rate may vary. A frame that the decoder cannot read, or
    marks as damaged, is left out; later frames keep their numbers and times. If the size changes
    within the file, frames are scaled to the first size. The first frame is decoded at
    construction, so that an unreadable file fails here.
    Use it as a context manager, and iterate over it: `VideoFrame`.

    Args:
        path: A file of any container and codec that FFmpeg decodes. Of several videos in one file
            FFmpeg's choice is read.
        hardware: Decode on an NVIDIA GPU if there is one that knows the codec. Pixels are the same.

    Attributes:
        info: What the file tells about the video.
        is_plain: Whether its first frame is (`rainmer.frames.decoding.is_plain`).
        stream_index: Which of the file's streams is read.
        failure: Once the frames are read: what is damaged or missing, in one line; None if the
            video was read in full.

    Raises:
        ImageError: The file is missing, is not a video, or no frame of it can be decoded.
    """

    def __init__(self, path: str | os.PathLike[str], *, hardware: bool = False) -> None:
        self.path = Path(path)
        self.failure: str | None = None
        container = open_input(self.path, hardware=hardware)
        self._container: av.container.InputContainer | None = container
        try:
            self._stream = _video_stream(container, self.path)
        except ImageError:
            container.close()
            raise
        self._time_base = _fraction(self._stream.time_base) or Fraction(1, 90_000)
        start = Fraction(container.start_time or 0, av.time_base)
        self._start = round(start / self._time_base)
        self._numbering = Numbering(self._seconds)
        self._corrupt: set[int] = set()  # time stamps of packets that are not whole
        self._last = ""
        self._clock = Clock()
        self._cut: str | None = None
        self._resized = 0
        self._leading = 0
        self._is_told = False
        self._frames = deinterlaced(self._stamped())
        self._first = next(self._frames, None)
        if self._first is None:
            self.close()
            if hardware:  # the GPU may know the codec, but not this kind of it
                VideoReader.__init__(self, path)
                return
            raise ImageError(f"{self.path} cannot be decoded: no frame of it is readable")
        self.info = self._read_info(self._first.decoded)
        self.is_plain = is_plain(self._first.decoded)
        self.stream_index = self._stream.index

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return self.info.size_hw

    @property
    def fps(self) -> float:
        """Mean frames per second."""
        return self.info.fps

    @property
    def frame_count(self) -> int:
        """Number of frames, often an estimate; 0 if unknown."""
        return self.info.frame_count

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        while (stamped := self._take()) is not None:
            try:
                image = self._fitted(to_rgb(stamped.decoded))
            except av.FFmpegError as error:
                raise ImageError(
                    f"frame {stamped.number} of {self.path} cannot be converted: {error.strerror}"
                ) from error
            yield VideoFrame(stamped.number, stamped.time_s, image, stamped.duration_s)
        if self._container is not None and not self._is_told:
            self._is_told = True
            self._tell()

    def close(self) -> None:
        """Close the file. Nothing can be read afterwards."""
        self._first, self._frames = None, iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def _take(self) -> Stamped | None:
        first, self._first = self._first, None
        return first or next(self._frames, None)

    def _stamped(self) -> Iterator[Stamped]:
        """Decode, leave out what is damaged, and number the rest."""
        for frame in self._decoded():
            pts = frame.pts if frame.pts is not None else frame.dts
            if frame.is_corrupt or pts in self._corrupt:
                self._numbering.note_damage(frame.pts)
            elif not self._numbering.is_misplaced(pts):
                number = self._numbering.number(pts, is_key=frame.key_frame)
                duration_s = float(frame.duration * self._time_base) if frame.duration else None
                raw_s = None if pts is None else self._seconds(pts)
                time_s = self._clock.tick(raw_s, duration_s or 1.0 / self._fps())
                self._last = f"{number} ({time_s:.3f} s)"
                yield Stamped(number, time_s, duration_s, frame)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        context = self._stream.codec_context
        for packet in self._packets():
            try:
                yield from context.decode(packet)
            except av.FFmpegError:
                if packet is None:
                    return
                if not (self._numbering.next or packet.is_keyframe):
                    self._leading += 1  # a recording that starts between two key frames
                    continue
                self._numbering.note_damage(packet.pts)

    def _packets(self) -> Iterator[av.Packet[av.VideoStream] | None]:
        """Yield the packets of the video, then None, which fetches what the decoder still holds."""
        assert self._container is not None
        is_corrupt = False
        try:
            for packet in self._container.demux(self._stream):
                if not packet.size:  # a pause, or the end
                    continue
                is_corrupt = packet.is_corrupt
                if packet.pts is not None and is_corrupt:
                    self._corrupt.add(packet.pts)
                if packet.pts is not None and not packet.is_discard and self._is_shown(packet):
                    self._numbering.expect(packet.pts)
                yield packet
        except av.FFmpegError as error:
            self._cut = error.strerror or str(error)
        if is_corrupt or is_cut_off(self.path, self._container.format.name):
            self._cut = self._cut or "the file is cut off"
        yield None

    def _is_shown(self, packet: av.Packet[av.VideoStream]) -> bool:
        """Return whether a packet gives a frame: VP8 has some that later ones only refer to."""
        is_vp8 = self._stream.codec_context.codec.name == "vp8"
        return not is_vp8 or bool(memoryview(packet)[0] & 0x10)

    def _seconds(self, pts: int) -> float:
        return float((pts - self._start) * self._time_base)

    def _fps(self) -> float:
        for rate in (self._stream.average_rate, self._stream.guessed_rate):
            value = _fraction(rate)
            if value is not None and 0 < value <= _MOST_FPS:
                return float(value)
        return DEFAULT_FPS

    def _read_info(self, first: av.VideoFrame) -> VideoInfo:
        size_hw = (first.height, first.width)
        aspect = _fraction(self._stream.sample_aspect_ratio) or Fraction(1)
        if is_turned(first):
            size_hw, aspect = size_hw[::-1], 1 / aspect
        assert self._container is not None
        fps = self._fps()
        count = self._stream.frames
        if not count and self._container.duration:
            count = round(self._container.duration / av.time_base * fps)
        return VideoInfo(
            path=self.path,
            size_hw=size_hw,
            fps=fps,
            frame_count=max(count, 0),
            time_base=self._time_base,
            pixel_aspect=aspect,
            start_s=self._start * self._time_base,
        )

    def _fitted(self, image: Frame) -> Frame:
        """Scale a frame of another size to the first frame's, as FFmpeg's tools do."""
        height, width = self.size_hw
        if image.shape[:2] == (height, width):
            return image
        self._resized += 1
        smaller = image.shape[0] * image.shape[1] > height * width
        way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        return cast(Frame, cv2.resize(image, (width, height), interpolation=way))

    def _tell(self) -> None:
        """Say at the end what was odd."""
        path, (height, width) = self.path, self.size_hw
        if self._leading:
            _logger.warning("%s: %d frames before its first key frame", path, self._leading)
        if self._clock.moved:
            _logger.warning("%s: %d times did not rise: moved", path, self._clock.moved)
        if self._resized:
            _logger.warning(
                "%s changes its size: %d frames scaled to %dx%d", path, self._resized, width, height
            )
        told = [] if (damage := self._numbering.damage()) is None else [damage]
        if self._cut:
            told.append(f"it ends early, after frame {self._last}: {self._cut}")
        if told:
            self.failure = f"{path}: {'; '.join(told)}"
            _logger.warning("%s", self.failure)


def open_input(path: Path, *, hardware: bool = False) -> av.container.InputContainer:
    """Open a local file with FFmpeg.

    Raises:
        ImageError: It is missing, may not be read, or FFmpeg does not know its format.
    """
    if not os.path.isfile(path):  # pathlib raises for invalid names
        raise ImageError(f"no video file {path}")
    if not os.access(path, os.R_OK):
        raise ImageError(f"cannot read the video {path}: permission denied")
    acceleration = HWAccel("cuda", allow_software_fallback=True) if hardware else None
    try:
        # By its protocol, so that a colon in a name starts none; playlists must not reach out.
        return av.open(
            f"file:{path}",
            options={"protocol_whitelist": "file"},
            metadata_errors="replace",
            hwaccel=acceleration,
        )
    except av.FFmpegError as error:
        if acceleration is not None:
            _logger.warning("no hardware decoding here: %s", error.strerror)
            return open_input(path)
        raise ImageError(
            f"{path} cannot be decoded: damaged, or not a video ({error.strerror})"
        ) from error


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """Return the video to read, its decoder set up.

    Threads work on the slices of one frame: with several frames in work, FFmpeg reports a damaged
    one while it is given another, and could not say which it was.

    Raises:
        ImageError: There is none, or no decoder for it.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    stream = best if best in streams else next(iter(streams), None)
    if not isinstance(stream, av.VideoStream):
        raise ImageError(f"{path} cannot be decoded: there is no video in it")
    # FFmpeg crashes on streams whose codec it could not find out.
    if cast("object", stream.codec_context) is None or not stream.codec_context.codec.name:
        raise ImageError(f"{path} cannot be decoded: damaged, or of an unknown codec")
    stream.codec_context.thread_type = "SLICE"
    stream.codec_context.thread_count = min(usable_cpus(), _MOST_THREADS)
    return stream


def _fraction(value: object) -> Fraction | None:
    """Return one of PyAV's fractions as Python's; None if it is unknown or zero."""
    numerator, denominator = getattr(value, "numerator", 0), getattr(value, "denominator", 0)
    return Fraction(numerator, denominator) if numerator and denominator else None
