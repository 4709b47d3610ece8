"""Recipes of samples: frames as they are read, and what is drawn for them; the rest a device does.

Where a device renders rain, loading decodes, resizes and cuts out windows, draws everything random
as it does for finished samples, and hands both over. See `rainmer.train.rendering`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rainmer.errors import ImageError
from rainmer.rain import Rain
from rainmer.train.boxes import CropBoxes
from rainmer.train.sources import Plan

__all__ = ["Blur", "Cuts", "Recipe", "Recipes", "SampleShape", "Window", "draw_cuts", "joined"]

_BLUR_SIGMA = (0.5, 2.0)


class SampleShape(NamedTuple):
    """Sizes of a sample.

    Attributes:
        crop: Side of the crops in pixels.
        crops: Number of crops per frame.
        query: Side of the query in pixels.
        negatives: Number of blurred clean crops.
        classes: Number of classes whose boxes come with the crops; 0: no boxes.
    """

    crop: int
    crops: int = 1
    query: int = 128
    negatives: int = 0
    classes: int = 0


class Blur(NamedTuple):
    """How a negative of the detail view is made."""

    sigma: float
    across: bool
    """Whether it is flipped horizontally."""
    down: bool
    """Whether it is flipped vertically."""


class Cuts(NamedTuple):
    """What is cut out of a pair of frames.

    Attributes:
        corners: Top and left of each crop.
        turns: Of each crop: 1 flips it vertically, 2 horizontally, 0 and 3 not at all.
        blurs: The blurred negatives of the first crop's place.
    """

    corners: Sequence[tuple[int, int]]
    turns: Sequence[int]
    blurs: Sequence[Blur]


def draw_cuts(size_hw: tuple[int, int], shape: SampleShape, chance: random.Random) -> Cuts:
    """Draw what is cut out of frames of a size.

    Raises:
        ImageError: They are smaller than a crop.
    """
    height, width = size_hw
    if min(height, width) < shape.crop:
        raise ImageError(f"{width}x{height} pixels are too few for crops of {shape.crop}")
    corners = [
        (chance.randint(0, height - shape.crop), chance.randint(0, width - shape.crop))
        for _ in range(shape.crops)
    ]
    blurs = [
        Blur(chance.uniform(*_BLUR_SIGMA), chance.random() < 0.5, chance.random() < 0.5)
        for _ in range(shape.negatives)
    ]
    return Cuts(corners, [chance.randint(0, 3) for _ in corners], blurs)


class Recipe(NamedTuple):
    """One sample of `Recipes`.

    Attributes:
        size_hw: Size of its frames.
        cuts: What is cut out of them.
        rain: What is rendered; None: nothing, because the frame is dry, or was read with its rain.
        paired: Whether a rainy frame was read.
        mapped: Whether there is a depth map that the rain needs.
    """

    size_hw: tuple[int, int]
    cuts: Cuts
    rain: Rain | None
    paired: bool
    mapped: bool


class Window(NamedTuple):
    """The frames of a recipe: uint8 (H, W, 3); depth (H, W) in metres."""

    clean: Tensor
    rainy: Tensor | None
    depth_m: Tensor | None


class Recipes(NamedTuple):
    """Recipes of B samples; all frames in one tensor, so that processes share few.

    Attributes:
        pixels: The frames (H, W, 3), uint8, one after the other in one dimension: of each sample
            the clean one, then the rainy one if it was read.
        depths: The depth maps, float32, likewise.
        samples: What to do with them.
        boxes: Objects in the crops, if the shape has classes.
    """

    pixels: Tensor
    depths: Tensor
    samples: tuple[Recipe, ...]
    boxes: CropBoxes | None = None

    @classmethod
    def of(cls, plan: Plan, cuts: Cuts, boxes: CropBoxes | None) -> Recipes:
        """Make the recipe of one sample."""
        frames = [frame for frame in (plan.clean, plan.rainy) if frame is not None]
        pixels = torch.cat([torch.from_numpy(frame).flatten() for frame in frames])
        depths = torch.empty(0)
        if plan.depth_m is not None and plan.rain and plan.rain.config.style == "physical":
            depths = torch.from_numpy(plan.depth_m).flatten()  # others do not look at it
        height, width = plan.clean.shape[:2]
        paired, mapped = plan.rainy is not None, len(depths) > 0
        return cls(
            pixels, depths, (Recipe((height, width), cuts, plan.rain, paired, mapped),), boxes
        )

    @classmethod
    def join(cls, parts: Sequence[Recipes], *, pin: bool = False) -> Recipes:
        """Put recipes one after the other; in pinned memory for a GPU if asked for."""
        boxes = [part.boxes for part in parts if part.boxes is not None]
        return cls(
            joined([part.pixels for part in parts], pin=pin),
            joined([part.depths for part in parts], pin=pin),
            tuple(recipe for part in parts for recipe in part.samples),
            CropBoxes.join(boxes) if boxes else None,
        )

    def to(self, device: torch.device) -> Recipes:
        """Return them with the frames on a device; boxes stay."""
        pixels, depths = (part.to(device, non_blocking=True) for part in self[:2])
        return self._replace(pixels=pixels, depths=depths)

    def windows(self) -> Iterator[Window]:
        """Yield the frames of each sample, without copying them."""
        pixel = depth = 0
        for recipe in self.samples:
            height, width = recipe.size_hw
            area = height * width
            frames = []
            for _ in range(1 + recipe.paired):
                frames.append(self.pixels[pixel : pixel + 3 * area].view(height, width, 3))
                pixel += 3 * area
            depth_m = None
            if recipe.mapped:
                depth_m = self.depths[depth : depth + area].view(height, width)
                depth += area
            yield Window(frames[0], frames[1] if recipe.paired else None, depth_m)


def joined(tensors: Sequence[Tensor], *, pin: bool) -> Tensor:
    """Put tensors one after the other, in pinned memory if asked for."""
    result = tensors[0].new_empty(sum(map(len, tensors)), *tensors[0].shape[1:], pin_memory=pin)
    return torch.cat(list(tensors), out=result)
