"""Picture strips: one image rainy, derained and clean side by side, with its detections.

Boxes are no part of the pictures: the page lays them over, so that their lines and letters stay
crisp at every size, and each outcome can be switched off. Every outcome has its colour and its line
style, so that strips can be read without colour vision.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import cv2
import numpy as np

from eval.report.tables import shorten
from rainmer.frames.arrays import Frame
from rainmer.frames.images import encode_image

__all__ = [
    "COLORS",
    "DETAILS",
    "Detail",
    "Mark",
    "Outcome",
    "Panel",
    "Strip",
    "StripGroup",
    "count_outcomes",
]

Outcome: TypeAlias = Literal["found", "missed", "false"]

COLORS: dict[Outcome, tuple[int, int, int]] = {
    "found": (46, 230, 166),
    "missed": (250, 170, 255),
    "false": (245, 72, 24),
}
"""RGB of each outcome; they differ in brightness too."""


class Detail(NamedTuple):
    """How much of the pictures a page shows: the scale of their sides, and the JPEG quality."""

    scale: float
    quality: int


DETAILS = (Detail(1.0, 85), *(Detail(2 ** (-step / 3), 75) for step in range(13)))
"""From all of it down to a sixteenth of the sides: a page takes the first with which it fits."""

_LONGEST_LABEL = 22
_SMALLEST_SIDE = 96  # pixels of the long side, below which no picture is scaled down


@dataclass(frozen=True)
class Mark:
    """One box on a picture.

    Attributes:
        xyxy: Left, top, right, bottom in pixels of the panel's frame.
        kind: `found` is a correct detection, `missed` a true box that no detection meets, `false`
            a detection without a true box.
        label: The class's name.
        score: The detection's confidence 0..1; None for what is missed.
    """

    xyxy: tuple[float, float, float, float]
    kind: Outcome
    label: str
    score: float | None = None

    @property
    def text(self) -> str:
        """The class, cut if it is long, and the confidence."""
        name = shorten(self.label, _LONGEST_LABEL)
        return name if self.score is None else f"{name} {self.score:.2f}"


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
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the picture in pixels."""
        height, width = self.frame.shape[:2]
        return int(width), int(height)

    @property
    def boxes(self) -> list[tuple[Mark, str]]:
        """The marks in the order in which they lie on each other, with their places as CSS.

        Rare and telling outcomes lie on top of the common one. Parts outside of the picture are cut
        off.
        """
        ordered = sorted(self.marks, key=lambda mark: list(COLORS).index(mark.kind))
        return [(mark, _place(mark, self.size_wh)) for mark in ordered]

    def source(self, detail: Detail = DETAILS[0]) -> str:
        """Return the picture without its boxes as a data URL of a JPEG."""
        picture = self.frame
        scale = max(detail.scale, min(1.0, _SMALLEST_SIDE / max(self.size_wh)))
        if scale < 1:
            size = tuple(max(1, round(side * scale)) for side in self.size_wh)
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        content = encode_image(picture, ".jpg", quality=detail.quality)
        return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"


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


def _place(mark: Mark, size_wh: tuple[int, int]) -> str:
    """Return a mark's place within its picture, in percent."""
    (left, right), (top, bottom) = (
        sorted(100 * min(max(end / side, 0.0), 1.0) for end in ends)
        for ends, side in zip((mark.xyxy[::2], mark.xyxy[1::2]), size_wh, strict=True)
    )
    lengths = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    return ";".join(f"{name}:{value:.2f}%" for name, value in lengths.items())
