"""Writing video files."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.container
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from rainmer.device import usable_cpus
from rainmer.errors import ImageError, OutputError
from rainmer.files import atomic_write
from rainmer.frames.arrays import Frame
from rainmer.frames.decoding import ACCURATE
from rainmer.frames.video.codecs import choose_encoder, exact_rate
from rainmer.frames.video.copying import CopiedStreams
from rainmer.frames.video.reading import VideoInfo, open_input

__all__ = ["VideoWriter", "partial_path"]

_MOST_THREADS = 16
_BT709 = 1  # FFmpeg's number of matrix, primaries and transfer curve
_TICKS = 10_000  # about as many a second
_COARSE_TICK = Fraction(1, 60_000)
_QSCALE_UNIT = 118  # FFmpeg's FF_QP2LAMBDA

_logger = logging.getLogger(__name__)


class VideoWriter:
    """Encodes frames into a video file, which gets its name when it is complete.

    Use it as a context manager. The final name always means a complete video: on an error the
    temporary file is removed and an older file of that name stays. On an interruption
    (KeyboardInterrupt) the frames so far are kept, playable, as `partial_path(path)`; a later
    complete run removes that file, and a later interruption replaces it only by a longer one.

    Args:
        path: The video to write; its suffix chooses container and codec: Motion JPEG in .avi, VP9
            in .webm, otherwise H.264 (all with 4:2:0 colours, a little quality is lost).
        fps: Frames per second, above 0: of frames that are written without a time, and for the
            encoder's planning.
        size_hw: (height, width) of every frame. Encoders that need even sides repeat an odd last
            row or column.
        source: The video that the frames come from. Times are kept in its unit, its pixels' aspect,
            sound, subtitles and metadata are copied.
        whole: All frames of the source will be written: copy its sound to the end.
        codec: One of `CODECS`.
        crf: Quality of the encoders that have this scale: 0 is best; None: visually near lossless.

    Attributes:
        path: The video to write.
        frames_written: Number of frames so far.

    Raises:
        OutputError: No encoder for the suffix in this build of FFmpeg, or the file cannot be
            written. On leaving: nothing was written, or the disk is full.
        ImageError: `size_hw` or `fps` cannot be encoded, or a frame has another size.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float,
        size_hw: tuple[int, int],
        source: VideoInfo | None = None,
        whole: bool = True,
        codec: str = "auto",
        crf: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.size_hw = size_hw
        self.frames_written = 0
        self._fps, self._source, self._whole, self._crf = fps, source, whole, crf
        self._encoder = choose_encoder(self.path.suffix.lower(), codec, crf)
        if not (math.isfinite(fps) and fps > 0):
            raise ImageError(f"cannot write {self.path} with {fps} frames per second")
        if min(size_hw) < 1:
            raise ImageError(f"cannot write {self.path}: its frames have no pixels")
        self._time_base = self._choose_time_base()
        self._reformatter = VideoReformatter()
        self._rgb: av.VideoFrame | None = None  # what is converted next
        self._last_pts = -1
        self._end_s = 0.0

    def __enter__(self) -> VideoWriter:
        with contextlib.ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_write(self.path))
            self._temporary.touch()  # raises with the reason, which FFmpeg would not tell
            with self._errors():
                options = {"movflags": "+faststart"} if _is_mp4(self.path) else {}
                self._output = av.open(f"file:{self._temporary}", "w", container_options=options)
                stack.callback(self._discard)
                self._stream = self._add_stream()
                self._copied = (
                    stack.enter_context(CopiedStreams(self._source, self._output, self.path))
                    if self._source is not None
                    else None
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            with self._stack:
                if not self.frames_written:
                    raise OutputError(f"no frames to write to {self.path}")
                with self._errors():
                    self._finish(self._whole)
            partial_path(self.path).unlink(missing_ok=True)
            return
        if isinstance(error, KeyboardInterrupt) and self.frames_written:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._finish(whole=False)
                self._keep_partial()
        self._stack.__exit__(kind, error, trace)

    def write(
        self, frame: Frame, time_s: float | None = None, duration_s: float | None = None
    ) -> None:
        """Append a frame.

        Args:
            frame: (H, W, 3), RGB, uint8, of the size given at the start.
            time_s: When it is shown, in seconds, later than the frame before; None: one step of
                `fps` after it.
            duration_s: How long it is shown; None: unknown.

        Raises:
            ImageError: The frame has another shape or type.
            OutputError: The file cannot be written.
        """
        if frame.shape != (*self.size_hw, 3) or frame.dtype != np.uint8:
            raise ImageError(
                f"frame {self.frames_written} of {self.path} is {frame.shape} of {frame.dtype}, "
                f"but the video holds {(*self.size_hw, 3)} of uint8"
            )
        step_s = duration_s or 1.0 / self._fps
        if time_s is None:
            time_s = self._end_s
        encoded = self._converted(frame)
        encoded.time_base = self._time_base
        encoded.pts = max(round(Fraction(time_s) / self._time_base), self._last_pts + 1)
        encoded.duration = round(Fraction(step_s) / self._time_base)
        with self._errors():
            if self._copied is not None:
                self._copied.copy(time_s)
            self._output.mux(self._stream.encode(encoded))
        self._last_pts, self._end_s = encoded.pts, time_s + step_s
        self.frames_written += 1

    def _choose_time_base(self) -> Fraction:
        """Return the unit of times: the source's, or one that divides the time of a frame."""
        given = None if self._source is None else self._source.time_base
        step = 1 / exact_rate(self._fps)
        if self.path.suffix.lower() == ".avi":  # holds one frame for each tick, empty or not
            return given or step
        tick = given or step / max(1, _TICKS // step.denominator)
        return tick if tick.denominator <= self._encoder.most_ticks else _COARSE_TICK

    def _converted(self, frame: Frame) -> av.VideoFrame:
        if self._encoder.even:
            odd_rows, odd_columns = frame.shape[0] % 2, frame.shape[1] % 2
            if odd_rows or odd_columns:
                frame = np.pad(frame, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
        # Into the same memory each time, by numpy: PyAV's `from_ndarray` takes new memory, and
        # holds Python's lock while it copies.
        if self._rgb is None:
            self._rgb = av.VideoFrame(frame.shape[1], frame.shape[0], "rgb24")
        plane = self._rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.shape[0], plane.line_size)
        np.copyto(rows[:, : 3 * frame.shape[1]].reshape(frame.shape), frame)
        matrix, levels = self._encoder.colours or (None, None)
        return self._reformatter.reformat(
            self._rgb,
            format=self._encoder.pixels,
            dst_colorspace=matrix,
            dst_color_range=levels,
            interpolation=Interpolation.BICUBIC | ACCURATE,
            threads=1,
        )

    def _add_stream(self) -> av.VideoStream:
        encoder, (height, width) = self._encoder, self.size_hw
        options = dict(encoder.options)
        if encoder.crf is not None:
            options["crf"] = str(encoder.crf if self._crf is None else self._crf)
        try:
            stream = self._output.add_stream(
                encoder.name, rate=exact_rate(self._fps), options=options
            )
        except ValueError as error:
            raise OutputError(
                f"{self.path.suffix} cannot hold {encoder.name}: choose another --codec"
            ) from error
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, encoder.pixels
        if encoder.even:
            stream.width, stream.height = width + width % 2, height + height % 2
        context = stream.codec_context
        context.time_base = stream.time_base = self._time_base
        context.flags |= Flags.frame_duration
        context.thread_count = min(usable_cpus(), _MOST_THREADS)
        if self._source is not None:
            context.sample_aspect_ratio = self._source.pixel_aspect
        if encoder.quality is not None:
            context.qscale = True
            context.global_quality = encoder.quality * _QSCALE_UNIT
        if encoder.colours is not None and encoder.colours[1] == ColorRange.MPEG:
            context.color_range = ColorRange.MPEG
            if encoder.colours[0] == _BT709:
                context.colorspace = _BT709
                context.color_primaries = context.color_trc = _BT709
        if encoder.tag is not None and _is_mp4(self.path):
            context.codec_tag = encoder.tag
        return stream

    def _finish(self, whole: bool) -> None:
        """Write what the encoder still holds, the rest of the sound, and the file's end."""
        self._output.mux(self._stream.encode(None))
        if self._copied is not None:
            self._copied.copy(None if whole else self._end_s)
        self._output.close()

    def _discard(self) -> None:
        """Close the file after an error; it is removed."""
        with contextlib.suppress(av.FFmpegError, OSError):
            self._output.close()

    def _keep_partial(self) -> None:
        kept = partial_path(self.path)
        if _seconds_of(kept) > self._end_s:
            _logger.warning("%s holds more than this run: left as it is", kept)
            return
        self._temporary.replace(kept)
        _logger.warning("%d frames kept in %s", self.frames_written, kept)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"cannot write {self.path}: {reason}; is the disk full?") from error


def _is_mp4(path: Path) -> bool:
    return path.suffix.lower() in {".m4v", ".mov", ".mp4"}


def _seconds_of(path: Path) -> float:
    """Return the duration of a video; 0 if there is none."""
    try:
        with open_input(path) as container:
            return (container.duration or 0) / av.time_base
    except ImageError:
        return 0.0


def partial_path(path: str | os.PathLike[str]) -> Path:
    """Return the name that an interrupted video is kept under.

    >>> str(partial_path("out/drive.mp4"))
    'out/drive.partial.mp4'
    """
    target = Path(path)
    return target.with_name(f"{target.stem}.partial{target.suffix}")
