"""Video frames that are decoded on a GPU by torchcodec, and stay there."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from rainmer.errors import first_line
from rainmer.frames.video.counting import Clock
from rainmer.frames.video.reading import VideoFrame, VideoInfo, VideoReader

__all__ = ["DeviceFrame", "DeviceReader"]

_AT_ONCE = 8  # frames

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class DeviceFrame:
    """A frame on a device, otherwise as `VideoFrame`.

    Attributes:
        number, time_s, duration_s: See `VideoFrame`.
        image: uint8 (3, H, W), RGB.
    """

    number: int
    time_s: float
    image: Tensor
    duration_s: float | None = None


class DeviceReader:
    """The frames of a video file in order, once, as tensors on a device.

    Numbers and times are those of `VideoReader`. Its frames come in their place, with one line of
    warning, where torchcodec is missing, the GPU does not know the codec, or the video is not plain
    (see `VideoReader.is_plain`), and from a frame on that torchcodec fails at. What a damaged file
    lacks is not noticed while the GPU decodes.

    Args:
        path: As of `VideoReader`.
        device: Where the frames will be.

    Raises:
        ImageError: As `VideoReader`.
    """

    def __init__(self, path: str | os.PathLike[str], device: torch.device) -> None:
        self._reader = VideoReader(path)
        self._decoder: Any = None
        try:
            self._decoder = self._open(device)
        except Exception as error:  # noqa: BLE001 (of a foreign library: the CPU can do it)
            self._warn(error)

    @property
    def info(self) -> VideoInfo:
        """What the file tells about the video."""
        return self._reader.info

    @property
    def failure(self) -> str | None:
        """See `VideoReader`."""
        return self._reader.failure

    def __enter__(self) -> DeviceReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Nothing can be read afterwards."""
        self._decoder = None
        self._reader.close()

    def __iter__(self) -> Iterator[DeviceFrame | VideoFrame]:
        count = 0
        if self._decoder is not None:
            frames = self._decoded(self._decoder)
            while True:
                try:
                    frame = next(frames, None)
                except Exception as error:  # noqa: BLE001 (as above)
                    self._warn(error)
                    break
                if frame is None:
                    return
                yield frame
                count += 1
        for other in self._reader:
            if other.number >= count:
                yield other

    def _open(self, device: torch.device) -> Any:  # noqa: ANN401 (torchcodec is optional)
        """Open the file with torchcodec.

        Raises:
            RuntimeError: It cannot be used for this video.
            ImportError: It is not installed.
        """
        if not self._reader.is_plain:
            raise RuntimeError("turned, interlaced, or not 8 bits of 4:2:0")
        decoders = importlib.import_module("torchcodec.decoders")
        decoder = decoders.VideoDecoder(
            str(self._reader.path), stream_index=self._reader.stream_index, device=str(device)
        )
        if device.type == "cuda" and decoder.cpu_fallback:
            raise RuntimeError(str(decoder.cpu_fallback))
        return decoder

    def _decoded(self, decoder: Any) -> Iterator[DeviceFrame]:  # noqa: ANN401
        info, clock = self.info, Clock()
        for first in range(0, len(decoder), _AT_ONCE):
            frames = decoder.get_frames_in_range(first, min(first + _AT_ONCE, len(decoder)))
            times = zip(frames.pts_seconds.tolist(), frames.duration_seconds.tolist(), strict=True)
            for i, (stamp_s, duration_s) in enumerate(times):
                # Exactly, as the other reader computes it: from the stamp in units of the file.
                stamp = round(stamp_s / info.time_base)
                raw_s = float(stamp * info.time_base - info.start_s)
                time_s = clock.tick(raw_s, duration_s or 1.0 / info.fps)
                yield DeviceFrame(first + i, time_s, frames.data[i], duration_s or None)

    def _warn(self, error: Exception) -> None:
        _logger.warning("%s: decoded without torchcodec: %s", self._reader.path, first_line(error))
