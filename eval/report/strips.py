"""Picture strips: one image rainy, derained and clean side by side, with its detections.

Boxes are drawn after scaling, so lines and letters stay crisp at the size at which they are seen.
Every outcome has its colour and its line style, so that strips can be read without colour vision.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageDraw

from detection.draw import PixelBox, do_overlap, label_places, outline_box
from eval.report.tables import shorten
from rainmer.fonts import drawable, render
from rainmer.frames.arrays import Frame
from rainmer.frames.images import encode_image

__all__ = [
    "COLORS",
    "Mark",
    "Outcome",
    "Panel",
    "Strip",
    "StripGroup",
    "count_outcomes",
    "draw_panel",
    "encode_panel",
    "panel_height",
]

Outcome: TypeAlias = Literal["found", "missed", "false"]

COLORS: dict[Outcome, tuple[int, int, int]] = {
    "found": (46, 230, 166),
    "missed": (250, 170, 255),
    "false": (245, 72, 24),
}
"""RGB of each outcome; they differ in brightness too."""

# Lengths in pixels of a line's dashes and gaps; None is a solid line.
_DASHES: dict[Outcome, tuple[int, int] | None] = {
    "found": None,
    "missed": (11, 7),
    "false": (4, 4),
}
_LINE: dict[Outcome, int] = {"found": 3, "missed": 3, "false": 4}
_FONT_SIZE = 15
_LONGEST_LABEL = 22
_CROWD = 8  # with more boxes than that, small ones get no label: it would hide the picture
_PANEL_WIDTH = 512
_PANEL_HEIGHT = 384


@dataclass(frozen=True)
class Mark:
    """One box on a picture.

    Attributes:
        xyxy: Left, top, right, bottom in pixels of the panel's frame.
        kind: `found` is a correct detection, `missed` a true box that no detection meets, `false`
            a detection without a true box.
        label: The class's name.
        score: The detection's confidence 0..1; None for what is missed.
        number: The class's number, which is drawn where no font has its name.
    """

    xyxy: tuple[float, float, float, float]
    kind: Outcome
    label: str
    score: float | None = None
    number: int | None = None

    @property
    def shown(self) -> str:
        """What pictures show for the class."""
        return drawable(self.label, "?" if self.number is None else str(self.number))


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a strip.

    Attributes:
        title: What it is, such as `rainy`.
        frame: The picture (H, W, 3), uint8, RGB.
        marks: Boxes to draw on it.
        caption: Text below it; None: counts of the marks.
    """

    title: str
    frame: Frame
    marks: Sequence[Mark] = ()
    caption: str | None = None

    @property
    def facts(self) -> str:
        """The caption, or how many boxes of each outcome there are."""
        return count_outcomes(self.marks) if self.caption is None else self.caption

    @property
    def source(self) -> str:
        """The picture with its boxes as a data URL of a JPEG."""
        return f"data:image/jpeg;base64,{base64.b64encode(encode_panel(self)).decode('ascii')}"


@dataclass(frozen=True, eq=False)
class Strip:
    """One image in its versions, with what deraining changed.

    Attributes:
        image: The file's name.
        condition: The image's condition, such as `night`; `all` without conditions.
        derainer: Name of the derainer.
        gain: What deraining changed, as `unit` says.
        panels: The versions of the image, all of one size.
        unit: What `gain` counts.
        kind: What the strip is an example of; empty: a gain above 0 helped, one below hurt.
    """

    image: str
    condition: str
    derainer: str
    gain: float
    panels: Sequence[Panel]
    unit: str = "correct detections"
    kind: str = ""

    @property
    def change(self) -> str:
        """The gain with its sign and unit."""
        if not self.gain:
            return "no change"
        unit = self.unit.removesuffix("s") if abs(self.gain) == 1 else self.unit
        return f"{self.gain:+.4g} {unit}"

    @property
    def numbered(self) -> dict[str, str]:
        """The classes whose numbers the pictures show, as no font has their names: to the name."""
        marks = [mark for panel in self.panels for mark in panel.marks]
        numbers = {mark.shown: mark.label for mark in marks if mark.shown == str(mark.number)}
        return {number: name for number, name in sorted(numbers.items()) if name != number}


@dataclass(frozen=True)
class StripGroup:
    """Strips below a title.

    Attributes:
        title: The title.
        strips: In the order in which they are shown.
        kind: Colour of the changes: `gain`, `loss`, or any other word for none.
    """

    title: str
    strips: Sequence[Strip]
    kind: str = ""


def count_outcomes(marks: Sequence[Mark]) -> str:
    """Say how many boxes of each outcome there are, for captions and texts without pictures."""
    counts = Counter(mark.kind for mark in marks)
    return ", ".join(f"{counts[kind]} {kind}" for kind in COLORS if counts[kind]) or "no boxes"


def panel_height(frame: Frame) -> int:
    """Return the height in pixels at which a frame fits into a report's panel."""
    height, width = map(int, frame.shape[:2])
    return max(1, min(_PANEL_HEIGHT, round(_PANEL_WIDTH * height / width)))


def draw_panel(frame: Frame, marks: Sequence[Mark], height: int) -> Frame:
    """Scale a frame and draw its marks on it.

    Args:
        frame: Picture (H, W, 3), uint8, RGB; stays as it is.
        marks: Boxes in pixels of `frame`. Parts outside of it are cut off.
        height: Height of the result in pixels; the width follows.

    Returns:
        A new array (height, width, 3), uint8, RGB.
    """
    scale = height / frame.shape[0]
    width = max(1, round(frame.shape[1] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = Image.fromarray(cv2.resize(frame, (width, height), interpolation=method))
    # Rare and telling outcomes lie on top of the common one.
    ordered = sorted(marks, key=lambda mark: list(COLORS).index(mark.kind))
    boxes = [_scaled_box(mark, scale, canvas.size) for mark in ordered]
    draw = ImageDraw.Draw(canvas, "RGBA")
    for mark, box in zip(ordered, boxes, strict=True):
        outline_box(draw, box, COLORS[mark.kind], _LINE[mark.kind], _DASHES[mark.kind])
    taken: list[PixelBox] = []
    crowded = len(marks) > _CROWD
    for mark, box in zip(reversed(ordered), reversed(boxes), strict=True):
        _draw_label(draw, mark, box, taken, crowded=crowded)
    return np.array(canvas)


def _scaled_box(mark: Mark, scale: float, size: tuple[int, int]) -> PixelBox:
    """Return a mark's box in pixels of the scaled picture, both ends inside of it."""
    left, top, right, bottom = (round(value * scale) for value in mark.xyxy)
    width, height = size
    left, right = (min(max(x, 0), width - 1) for x in (left, right))
    top, bottom = (min(max(y, 0), height - 1) for y in (top, bottom))
    return left, top, max(left, right), max(top, bottom)


def _draw_label(
    draw: ImageDraw.ImageDraw, mark: Mark, box: PixelBox, taken: list[PixelBox], *, crowded: bool
) -> None:
    """Write a mark's label beside its box, unless every place beside it is taken."""
    score = "" if mark.score is None else f" {mark.score:.2f}"
    masks = [render(text, _FONT_SIZE) for text in (shorten(mark.shown, _LONGEST_LABEL), score)]
    size = sum(mask.shape[1] for mask in masks) + 6, masks[0].shape[0]
    if crowded and size[0] * size[1] > (box[2] - box[0]) * (box[3] - box[1]):
        return
    for place in label_places(box, size, draw.im.size):
        if not any(do_overlap(place, other) for other in taken):
            taken.append(place)
            draw.rectangle(place, fill=COLORS[mark.kind])
            left = place[0] + 3
            for mask in masks:
                draw.bitmap((left, place[1]), Image.fromarray(mask), fill=(10, 16, 20))
                left += mask.shape[1]
            return


def encode_panel(panel: Panel) -> bytes:
    """Draw a panel at a report's size and encode it as JPEG, small enough to be embedded."""
    picture = draw_panel(panel.frame, panel.marks, panel_height(panel.frame))
    return encode_image(picture, ".jpg", quality=85)
