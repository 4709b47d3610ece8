"""Reading and writing video files frame by frame, through OpenCV."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import cast

import cv2
import numpy as np

from rainmer.errors import ImageError, OutputError
from rainmer.files import atomic_write
from rainmer.frames.arrays import Frame, reverse_channels

__all__ = [
    "VIDEO_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "VideoReader",
    "VideoWriter",
    "is_video",
    "open_video",
    "partial_path",
]

VIDEO_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
"""Suffixes (lower case) of files that `open_video` is meant for."""

_CODECS = {".avi": "MJPG", ".m4v": "mp4v", ".mkv": "mp4v", ".mov": "mp4v", ".mp4": "mp4v"}
WRITABLE_SUFFIXES = frozenset(_CODECS)
"""Suffixes (lower case) that `VideoWriter` has an encoder for."""

DEFAULT_FPS = 25.0
"""Frames per second of files without a frame rate."""

# Containers count their frames by duration times rate when they do not store the number.
_COUNT_TOLERANCE = 0.95
# MPEG-4 stores the rate as a fraction of 16-bit numbers, which OpenCV fills with three decimals.
_MAX_EXACT_FPS = 65.0

_logger = logging.getLogger(__name__)


def is_video(path: str | os.PathLike[str]) -> bool:
    """Tell by its suffix whether a file is a video.

    >>> is_video("drive.MP4"), is_video("drive.png")
    (True, False)
    """
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def open_video(path: str | os.PathLike[str]) -> VideoReader:
    """Open a video file for reading; see `VideoReader`.

    Raises:
        ImageError: The file is missing, is not a video, or no frame of it can be decoded.
    """
    return VideoReader(path)


class VideoReader:
    """The frames of a video file in order, once.

    Rotation metadata is applied, as in OpenCV and therefore in ultralytics. The first frame is
    decoded at construction, so that an unreadable file fails here and `size_hw` is the real size
    of the frames.
    Use it as a context manager, and iterate over it: uint8 arrays (H, W, 3), RGB.

    Args:
        path: A file whose container and codec this build of OpenCV can decode.

    Attributes:
        path: The file.
        fps: Frames per second, above 0; `DEFAULT_FPS` if the file has no rate.
        frame_count: Number of frames as stored in the file (some estimate it); 0 if unknown.
        size_hw: (height, width) of the frames.
        early_end: Once the frames are read: how many are missing if the file is cut off, in one
            line; None if it is whole.

    Raises:
        ImageError: The file is missing, is not a video, or no frame of it can be decoded.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.early_end: str | None = None
        self._frames_read = 0
        if not os.path.isfile(self.path):  # pathlib raises for invalid names
            raise ImageError(f"no video file {self.path}")
        if not os.access(self.path, os.R_OK):
            raise ImageError(f"cannot read the video {self.path}: permission denied")
        self._capture = cv2.VideoCapture(str(self.path))
        self._next = self._decode()
        if self._next is None:
            self.close()
            raise ImageError(
                f"{self.path} cannot be decoded: damaged, not a video, "
                "or of a codec that this build of OpenCV lacks"
            )
        self.size_hw: tuple[int, int] = (self._next.shape[0], self._next.shape[1])
        self.fps = self._read_fps()
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frame_count = int(count) if math.isfinite(count) and count > 0 else 0

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        while self._next is not None:
            frame = self._next
            self._next = self._decode()
            self._frames_read += 1
            yield frame
        closed = not self._capture.isOpened()
        if not closed and self._frames_read < _COUNT_TOLERANCE * self.frame_count:
            self.early_end = (
                f"{self.path} ends early: {self._frames_read} of {self.frame_count} frames could "
                "be decoded"
            )
            _logger.warning("%s", self.early_end)

    def close(self) -> None:
        """Close the file. Nothing can be read afterwards."""
        self._next = None
        self._capture.release()

    def _decode(self) -> Frame | None:
        done, bgr = self._capture.read()
        return reverse_channels(cast(Frame, bgr)) if done else None

    def _read_fps(self) -> float:
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        if math.isfinite(fps) and fps > 0:
            return fps
        _logger.warning("%s does not tell its frame rate: taken as %g", self.path, DEFAULT_FPS)
        return DEFAULT_FPS


class VideoWriter:
    """Encodes frames into a video file, which gets its name when it is complete.

    Use it as a context manager. The final name always means a complete video: on an error the
    temporary file is removed and an older file of that name stays. On an interruption
    (KeyboardInterrupt) the frames so far are kept, playable, as `partial_path(path)`, and a later
    complete run removes that file. There is no sound.

    Args:
        path: The video to write; its suffix chooses the codec: .mp4, .m4v, .mov and .mkv are
            MPEG-4, .avi is Motion JPEG. Both lose a little quality.
        fps: Frames per second, above 0.
        size_hw: (height, width) of every frame. Both even: the codecs halve the colour resolution,
            and OpenCV would silently drop an odd row or column.

    Attributes:
        path: The video to write.
        frames_written: Number of frames so far.

    Raises:
        OutputError: No encoder for the suffix in this build of OpenCV, or the file cannot be
            written. On leaving: nothing was written, or the disk is full.
        ImageError: `size_hw` or `fps` cannot be encoded, or a frame has another size.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fps: float, size_hw: tuple[int, int]
    ) -> None:
        self.path = Path(path)
        self.fps = fps
        self.size_hw = size_hw
        self.frames_written = 0
        height, width = size_hw
        if self.path.suffix.lower() not in _CODECS:
            known = ", ".join(sorted(_CODECS))
            raise OutputError(f"no encoder for {self.path}: use one of the suffixes {known}")
        if not (math.isfinite(fps) and fps > 0):
            raise ImageError(f"cannot write {self.path} with {fps} frames per second")
        if min(size_hw) < 2 or height % 2 or width % 2:
            raise ImageError(
                f"cannot write {self.path} with frames of {width}x{height}: its codec needs even "
                "sides; crop or resize the frames, or write them as images"
            )

    def __enter__(self) -> VideoWriter:
        with contextlib.ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_write(self.path))
            self._temporary.touch()  # raises with the reason, which OpenCV would not tell
            self._encoder = self._open_encoder()
            self._renaming = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._encoder.release()
        if error is None:
            with self._renaming:
                self._check_complete()
            partial_path(self.path).unlink(missing_ok=True)
            return
        if isinstance(error, KeyboardInterrupt) and self.frames_written:
            self._temporary.replace(partial_path(self.path))
            _logger.warning("%d frames kept in %s", self.frames_written, partial_path(self.path))
        self._renaming.__exit__(kind, error, trace)

    def write(self, frame: Frame) -> None:
        """Append a frame (H, W, 3), RGB, uint8, of the size given at the start.

        Raises:
            ImageError: The frame has another shape or type.
        """
        if frame.shape != (*self.size_hw, 3) or frame.dtype != np.uint8:
            raise ImageError(
                f"frame {self.frames_written} of {self.path} is {frame.shape} of {frame.dtype}, "
                f"but the video holds {(*self.size_hw, 3)} of uint8"
            )
        self._encoder.write(reverse_channels(frame))
        self.frames_written += 1

    def _open_encoder(self) -> cv2.VideoWriter:
        codec = _CODECS[self.path.suffix.lower()]
        fps = self.fps if self.fps <= _MAX_EXACT_FPS else round(self.fps, 2)
        size_wh = self.size_hw[::-1]
        encoder = cv2.VideoWriter(
            str(self._temporary), cv2.VideoWriter.fourcc(*codec), float(fps), size_wh
        )
        if not encoder.isOpened():
            encoder.release()
            raise OutputError(
                f"cannot write {self.path}: this build of OpenCV has no encoder {codec} for "
                f"{size_wh[0]}x{size_wh[1]} at {fps:g} frames per second; try the suffix .avi"
            )
        return encoder

    def _check_complete(self) -> None:
        if not self.frames_written:
            raise OutputError(f"no frames to write to {self.path}")
        # OpenCV ignores write errors, and the header may count frames that never arrived: only
        # the end of the file tells. One before the last, as seeking may be off by one.
        capture = cv2.VideoCapture(str(self._temporary))
        capture.set(cv2.CAP_PROP_POS_FRAMES, max(0, self.frames_written - 2))
        arrived, _ = capture.read()
        capture.release()
        if not arrived:
            raise OutputError(
                f"cannot write {self.path}: its last frames did not arrive; is the disk full?"
            )


def partial_path(path: str | os.PathLike[str]) -> Path:
    """Return the name that an interrupted video is kept under.

    >>> str(partial_path("out/drive.mp4"))
    'out/drive.partial.mp4'
    """
    target = Path(path)
    return target.with_name(f"{target.stem}.partial{target.suffix}")
