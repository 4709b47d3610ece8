"""The inputs of `yolo val`: batches sorted by aspect ratio, and a letterbox that never enlarges.

This module does not need ultralytics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from detection.types import HarnessBatch
from detection.yolo.letterbox import PAD_VALUE, Placement, place
from rainmer.frames.arrays import Frame

__all__ = ["Rectangles", "stack"]


@dataclass(frozen=True)
class Rectangles:
    """How frames become inputs.

    Attributes:
        imgsz: Long side of the input in pixels.
        stride: Multiple that the sides of an input are of, in pixels.
        batch: Images per batch.
        square: Whether every input is a square of `imgsz`.
        stretch: Whether frames fill it without keeping their aspect ratio (RT-DETR's squares).
    """

    imgsz: int
    stride: int
    batch: int
    square: bool = False
    stretch: bool = False

    def plan(self, sizes_hw: Sequence[tuple[int, int]]) -> list[HarnessBatch]:
        """Return the batches of `yolo val` for images of these sizes, given in order of path.

        Images are sorted by aspect ratio, and each batch gets the smallest input that fits it,
        plus half a stride (`rect=True`).
        """
        sides = np.asarray(sizes_hw, dtype=np.float64).reshape(-1, 2)
        ratios = sides[:, 0] / sides[:, 1]
        # The same sort as ultralytics', ties included, so that batches hold the same images.
        order = ratios.argsort() if not self.square else np.arange(len(ratios))
        batches = []
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            batches.append(
                HarnessBatch(tuple(int(i) for i in chosen), self.input_hw(ratios[chosen]))
            )
        return batches

    def input_hw(self, ratios: npt.NDArray[np.float64] | None = None) -> tuple[int, int]:
        """Return the input for images of these ratios (height / width) together; None: a square."""
        if self.square or ratios is None:
            return (self.imgsz, self.imgsz)
        height, width = 1.0, 1.0
        if ratios.max() < 1:
            height = float(ratios.max())
        elif ratios.min() > 1:
            width = 1.0 / float(ratios.min())
        return (self._padded_side(height), self._padded_side(width))

    def _padded_side(self, share: float) -> int:
        return math.ceil(share * self.imgsz / self.stride + 0.5) * self.stride

    def place(self, size_hw: tuple[int, int], input_hw: tuple[int, int]) -> Placement:
        """Return where a frame of a size lies in an input."""
        if self.stretch:
            return place(size_hw, input_hw, stretch=True)
        return place(self._scaled(size_hw), input_hw, scaleup=False)

    def fit(self, frame: Frame, input_hw: tuple[int, int]) -> Frame:
        """Resize the long side to the input size, then to the letterbox's content size.

        The data set of `val` resizes in the same two steps.
        """
        size_hw = (frame.shape[0], frame.shape[1])
        content_hw = self.place(size_hw, input_hw).size_hw
        for target_hw in (content_hw if self.stretch else self._scaled(size_hw), content_hw):
            if target_hw != frame.shape[:2]:
                frame = cv2.resize(frame, target_hw[::-1], interpolation=cv2.INTER_LINEAR)
        return frame

    def _scaled(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size of a frame with its long side scaled to the input size."""
        scale = self.imgsz / max(size_hw)
        if scale == 1:
            return size_hw
        height, width = (min(math.ceil(side * scale), self.imgsz) for side in size_hw)
        return height, width


def stack(fitted: Sequence[Frame], placements: Sequence[Placement], count: int = 0) -> Frame:
    """Pad fitted frames with grey and stack them.

    Args:
        fitted: Arrays (h, w, 3), uint8.
        placements: Where they lie in their inputs, which have one size.
        count: Further inputs are grey, up to so many.

    Returns:
        (B, H, W, 3), uint8.
    """
    inputs = list(map(_pad, fitted, placements))
    grey = np.full_like(inputs[0], PAD_VALUE)
    return np.stack(inputs + [grey] * (count - len(inputs)))


def _pad(fitted: Frame, placement: Placement) -> Frame:
    canvas = np.full((*placement.canvas_hw, 3), PAD_VALUE, np.uint8)
    canvas[placement.content] = fitted
    return canvas
