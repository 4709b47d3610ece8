"""From what FFmpeg decodes to frames: colours, depth and orientation."""

from __future__ import annotations

import struct
from typing import Any, cast

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import Interpolation

from rainmer.frames.arrays import Frame

__all__ = ["ACCURATE", "is_plain", "is_turned", "to_rgb"]

_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
_MATRIX = struct.Struct("=9i")
# 8-bit formats take swscale's direct conversion, the same as OpenCV's, bit for bit. Deeper ones
# have no such path: there the colour planes are interpolated at full resolution.
ACCURATE = 0x40000  # SWS_ACCURATE_RND, which PyAV names from version 18 on
_DEEP = Interpolation.BICUBIC | ACCURATE | 0x2000  # SWS_FULL_CHR_H_INT


def to_rgb(frame: av.VideoFrame) -> Frame:
    """Turn a decoded frame into an upright array (H, W, 3), uint8, RGB.

    The frame's own colour matrix and range are used; a file that names no matrix is taken as
    BT.601, as FFmpeg and OpenCV do. More than 8 bits are rounded to 8, gray becomes three equal
    channels, alpha is dropped. The display matrix (rotation, mirroring) is applied, to the next
    right angle.

    Raises:
        av.FFmpegError: The pixel format cannot be converted.
    """
    transposed, mirrored, upside_down = _orientation(frame)
    # What GPUs decode to; the rest is then the same as without one.
    if (planar := _PLANAR.get(frame.format.name)) is not None:
        frame = frame.reformat(format=planar, threads=1)
    depth = max((component.bits for component in frame.format.components), default=0)
    rgb = frame.reformat(
        format="rgb24",
        interpolation=_DEEP if depth > 8 else Interpolation.BICUBIC,
        threads=1,  # more cost more than they bring: frames are converted beside other work
    )
    image = cast(Frame, rgb.to_ndarray())
    if transposed:
        image = cast(Frame, cv2.transpose(image))
    if mirrored or upside_down:
        image = cast(Frame, cv2.flip(image, -1 if mirrored and upside_down else int(mirrored)))
    return np.ascontiguousarray(image)


def is_plain(frame: av.VideoFrame) -> bool:
    """Return whether a frame is of 8 bits in 4:2:0, progressive, and shown as it is stored.

    Every decoder makes the same picture of it, up to the rounding of colours.
    """
    formats = ("yuv420p", "yuvj420p", "nv12")
    progressive = frame.format.name in formats and not frame.interlaced_frame
    return progressive and not any(_orientation(frame))


def is_turned(frame: av.VideoFrame) -> bool:
    """Return whether `to_rgb` exchanges the sides of a frame."""
    return _orientation(frame)[0]


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Return how to turn a frame upright: transpose, then flip columns, then flip rows."""
    try:
        # Not `frame.side_data`: the frame keeps that one, which keeps the frame. Such circles hold
        # pictures of megabytes each until Python looks for garbage.
        entries = cast(Any, SideDataContainer)(frame)
        content = bytes(entries[Type.DISPLAYMATRIX])
    except KeyError:
        return False, False, False
    except ValueError:  # another entry is of a kind that this PyAV does not know
        turns = round(frame.rotation / 90) % 4  # counterclockwise
        return turns % 2 == 1, turns in (2, 3), turns in (1, 2)
    # A pixel (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d, *_ = _MATRIX.unpack(content[: _MATRIX.size])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0
