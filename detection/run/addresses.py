"""Addresses of cameras and streams: what to show of them, and how FFmpeg opens them."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from pathlib import Path

import av
from av.container import InputContainer

__all__ = ["connect", "is_finite", "is_live", "name_of", "reason", "shown_address"]

_CAMERA_DIGITS = 4


def is_live(argument: str) -> bool:
    """Tell whether a command's argument is a camera number or an address, not a path."""
    if argument.isdecimal() and len(argument) <= _CAMERA_DIGITS:
        return not os.path.exists(argument)
    return "://" in argument


def shown_address(address: str) -> str:
    """Return an address without what may be secret: user, password, query.

    >>> shown_address("rtsp://admin:secret@10.0.0.7:554/stream1?token=abc")
    'rtsp://10.0.0.7:554/stream1'
    >>> shown_address("rtsp://admin:pass/word@10.0.0.7/stream1")
    'rtsp://...'
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    path = re.split("[?#]", rest[len(host) :], maxsplit=1)[0]
    if "@" in rest[len(host) :] or not re.fullmatch(r"(.*@)?(\[.*\]|[^:]*)(:\d*)?", host):
        return f"{scheme}://..."  # a password may hold what ends the host
    return f"{scheme}://{host.rpartition('@')[2]}{path}"


def name_of(address: str) -> str:
    """Name a source by the last part of its address, or by its host."""
    place = shown_address(address).rpartition("://")[2].rstrip("/")
    _, slash, last = place.rpartition("/")
    stem = Path(last).stem if slash else last
    return f"live-{re.sub(r'[^0-9A-Za-z_-]+', '-', stem).strip('-') or 'stream'}"


def connect(address: str, timeout: float) -> InputContainer:
    """Connect to a source; it may take twice the time-out.

    Raises:
        av.FFmpegError: It cannot be opened.
        OSError: The same, or no answer came in time.
    """
    file, device = (address, None) if not address.isdecimal() else _camera(int(address))
    scheme = address.partition("://")[0].lower()
    options = {"fpsprobesize": "0"}  # 20 frames would be late by the time that they take
    if scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_flags": "prefer_tcp"}
    elif scheme in ("http", "https"):
        options |= {"reconnect": "1"}  # a file goes on where it broke off
    started = time.monotonic()
    try:
        return av.open(
            file, "r", format=device, options=options, timeout=timeout, metadata_errors="replace"
        )
    except av.error.InvalidDataError:
        if time.monotonic() - started < timeout:
            raise
        raise TimeoutError from None  # how RTSP calls it


def _camera(number: int) -> tuple[str, str]:
    """Return the file and the format by which FFmpeg knows a camera."""
    if sys.platform == "darwin":
        return str(number), "avfoundation"
    if sys.platform == "win32":
        cameras = [d.name for d in av.enumerate_input_devices("dshow") if "video" in d.media_types]
        if number >= len(cameras):
            raise FileNotFoundError(None, f"there are {len(cameras)} cameras")
        return f"video={cameras[number]}", "dshow"
    return f"/dev/video{number}", "v4l2"


def is_finite(container: InputContainer) -> bool:
    """Tell whether a source is a file or a recording: it has a length."""
    return container.duration is not None or (container.format.name != "hls" and container.size > 0)


def reason(error: Exception, timeout: float, *, connected: bool) -> str:
    """Say why FFmpeg failed, without the address."""
    if isinstance(error, av.error.ExitError | TimeoutError):
        return f"no answer for {timeout:g} s"
    if isinstance(error, av.error.InvalidDataError):
        return "what it sends is no video"
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return "the connection broke" if connected else "not reachable, or broken off at once"
    return str(getattr(error, "strerror", None) or "it is not understood")
