"""Boxes with labels on frames, and rainy next to derained."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.types import Detections, IntArray
from rainmer.fonts import drawable, render
from rainmer.frames.arrays import Frame

__all__ = [
    "class_color",
    "draw_detections",
    "draw_note",
    "side_by_side",
]

_GOLDEN_RATIO = 0.618034
_LONGEST_NAME = 40
_DARK = (16, 16, 16)
_WHITE = (255, 255, 255)

Color: TypeAlias = tuple[int, int, int]
"""Red, green, blue, each 0..255."""


def class_color(label: int) -> Color:
    """Return the colour (R, G, B) of a class: consecutive classes differ strongly in hue."""
    hue = (label * _GOLDEN_RATIO + 0.02) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.95 if label % 2 == 0 else 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    frame: Frame,
    detections: Detections,
    names: Mapping[int, str],
    tracks: IntArray | None = None,
) -> Frame:
    """Draw boxes, class names and scores on a copy of a frame.

    Lines and text scale with the frame. Labels are above all boxes, the highest score on top.

    Args:
        frame: (H, W, 3), uint8, RGB.
        detections: Boxes in pixels of this frame.
        names: Class names by label, in any script; a label without name, or whose name no font
            of this machine has, shows its number.
        tracks: (N,) numbers of the objects, written behind the class; below 0: none.

    Returns:
        (H, W, 3), uint8, RGB.
    """
    picture = np.ascontiguousarray(frame.copy())
    thickness = _line_width(frame)
    order = np.argsort(detections.scores, kind="stable")
    corners = np.rint(detections.boxes_xyxy).astype(int)
    colors = [class_color(int(label)) for label in detections.labels]
    for i in order:
        left, top, right, bottom = corners[i].tolist()
        cv2.rectangle(picture, (left, top), (right, bottom), colors[i], thickness)
    for i in order:
        label = int(detections.labels[i])
        name = _shown_name(names.get(label, ""), label)
        number = f" #{tracks[i]}" if tracks is not None and tracks[i] >= 0 else ""
        texts = (name, f"{number} {detections.scores[i]:.2f}")
        left, top = int(corners[i, 0]) - thickness // 2, int(corners[i, 1])
        _put_label(picture, texts, left, top, colors[i])
    return picture


def draw_note(frame: Frame, text: str) -> Frame:
    """Write a line in the upper left corner of a copy of a frame (H, W, 3), uint8, RGB."""
    picture = np.ascontiguousarray(frame.copy())
    _put_label(picture, (text,), 0, 0, _DARK)
    return picture


@lru_cache(maxsize=4096)
def _shown_name(name: str, label: int) -> str:
    """Return a class's name as it can be drawn, cut if it is long; else its number."""
    shown = drawable(name, str(label))
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"


def side_by_side(frames: Sequence[Frame], captions: Sequence[str]) -> Frame:
    """Join frames of equal height side by side, each under its caption.

    Args:
        frames: Arrays (H, W, 3), uint8, RGB, of one height.
        captions: One per frame.

    Returns:
        (H + caption, sum of widths + gaps, 3), uint8, RGB.

    Raises:
        ValueError: There are no frames, or the number of captions differs.
    """
    if not frames or len(frames) != len(captions):
        raise ValueError(f"expected a caption per frame, but got {len(captions)} of {len(frames)}")
    height, gap, size = frames[0].shape[0], 2 * _line_width(frames[0]), _font_size(frames[0])
    top = round(1.8 * size)
    width = sum(frame.shape[1] + gap for frame in frames) - gap
    canvas = np.full((top + height, width, 3), 255, np.uint8)
    left = 0
    for frame, caption in zip(frames, captions, strict=True):
        right = left + frame.shape[1]
        canvas[top:, left:right] = frame
        # A long caption is cut at the edge of its picture.
        mask = render(drawable(caption, ascii(caption)), size)
        _write(canvas[:top, left:right], mask, (size // 3, size // 3), _WHITE)
        left = right + gap
    return canvas


def _put_label(picture: Frame, texts: Sequence[str], left: int, bottom: int, color: Color) -> None:
    """Write texts on a filled bar at a lower left corner, moved to stay inside the frame."""
    height, width = picture.shape[:2]
    size = _font_size(picture)
    margin = max(2, size // 6)
    masks = [render(text, size) for text in texts]
    bar_height, text_width = masks[0].shape[0] + margin // 2, sum(mask.shape[1] for mask in masks)
    left = max(0, min(left, width - text_width - 2 * margin))
    top = min(max(0, bottom - bar_height), max(0, height - bar_height))
    right = left + text_width + 2 * margin - 1
    cv2.rectangle(picture, (left, top), (right, top + bar_height - 1), color, cv2.FILLED)
    left += margin
    for mask in masks:
        _write(picture, mask, (left, top), color)
        left += mask.shape[1]


def _write(
    picture: NDArray[np.uint8], mask: NDArray[np.uint8], place: tuple[int, int], ground: Color
) -> None:
    """Write a text's mask at its upper left corner (x, y), cut at the edges of the picture."""
    x, y = place
    view = picture[y : y + mask.shape[0], x : x + mask.shape[1]]
    if view.size:
        cv2.applyColorMap(mask[: view.shape[0], : view.shape[1]], _shades(ground), view)


@lru_cache(maxsize=512)
def _shades(ground: Color) -> NDArray[np.uint8]:
    """Return the colours from the ground (0) to a readable ink (255), (256, 1, 3)."""
    return np.rint(np.linspace(ground, _readable_on(ground), 256)).astype(np.uint8)[:, None]


def _readable_on(color: Color) -> Color:
    red, green, blue = color
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return _DARK if luma > 140 else _WHITE


def _line_width(frame: Frame) -> int:
    return max(1, round(sum(frame.shape[:2]) * 0.0016))


def _font_size(frame: Frame) -> int:
    """Return the height of the font for a frame: about 2 % of its size, but legible."""
    return max(12, round(sum(frame.shape[:2]) * 0.0125))
