"""Video files, through PyAV: frames with their times in, frames with sound and subtitles out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rainmer.frames.video.codecs import CODECS, DEFAULT_FPS, WRITABLE_SUFFIXES
from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from rainmer.frames.video.on_device import DeviceFrame, DeviceReader
    from rainmer.frames.video.reading import VideoFrame, VideoInfo, VideoReader, open_video
    from rainmer.frames.video.writing import VideoWriter, partial_path

__all__ = [
    "CODECS",
    "DEFAULT_FPS",
    "VIDEO_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "DeviceFrame",
    "DeviceReader",
    "VideoFrame",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "is_video",
    "open_video",
    "partial_path",
]

__getattr__ = lazy_names(
    __name__,
    {
        "rainmer.frames.video.on_device": "DeviceFrame DeviceReader",
        "rainmer.frames.video.reading": "VideoFrame VideoInfo VideoReader open_video",
        "rainmer.frames.video.writing": "VideoWriter partial_path",
    },
)

VIDEO_SUFFIXES = WRITABLE_SUFFIXES | frozenset(
    {
        *(".3g2", ".3gp", ".asf", ".dav", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265"),
        *(".hevc", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".mjpeg", ".mjpg", ".mpe", ".mpeg"),
        *(".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".rm", ".rmvb", ".vob", ".wmv", ".y4m"),
    }
)
"""Suffixes (lower case) of files that `open_video` is meant for."""


def is_video(path: str | os.PathLike[str]) -> bool:
    """Tell by its suffix whether a file is a video.

    >>> is_video("drive.MP4"), is_video("drive.png")
    (True, False)
    """
    return Path(path).suffix.lower() in VIDEO_SUFFIXES
