"""Draw training samples from a mixture of sources, without state.

The seed and n alone determine sample n: its source (by weight), the image (each once per epoch, in
a new order), the crops and their flips. A run that resumes at step n, or that has several
processes, therefore sees exactly the samples of one uninterrupted process.

Source of crops, flips and blurred negatives: section 1.1 of the training protocol of Rainmer.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from rainmer.errors import DatasetError, ImageError
from rainmer.frames.arrays import Frame
from rainmer.train.boxes import CropBoxes, FrameBoxes, join_boxes
from rainmer.train.recipes import Cuts, Recipes, SampleShape, draw_cuts, joined
from rainmer.train.sources import FramePair, Source

__all__ = ["BLUR_TAPS", "Batch", "Draw", "Mixture", "Sample", "SampleShape", "make_sample"]

_BLOCK = 1000  # draws in which every source occurs in proportion to its weight
BLUR_TAPS = 11
"""Side of the kernel of blurred pictures in pixels."""


class Draw(NamedTuple):
    """The origin of a sample: an image of a source, drawn for the `visit`-th time (from 0)."""

    source: int
    image: int
    visit: int


class Sample(NamedTuple):
    """Crops of one frame, and the whole frame at query size; uint8, RGB.

    Attributes:
        rainy: (K, 3, C, C).
        clean: (K, 3, C, C).
        query: The whole rainy frame (3, S, S), its aspect ratio ignored.
        query_clean: The whole clean frame (3, S, S).
        blurred: Blurred clean crops (N, 3, S, S), the negatives of the detail view.
        boxes: Objects in the K crops, if the shape has classes.
    """

    rainy: Tensor
    clean: Tensor
    query: Tensor
    query_clean: Tensor
    blurred: Tensor
    boxes: tuple[FrameBoxes, ...] = ()


class Batch(NamedTuple):
    """Samples of B frames with K crops each; crops of one frame one after the other; uint8.

    Attributes:
        rainy: (B K, 3, C, C).
        clean: (B K, 3, C, C).
        query: (B, 3, S, S).
        query_clean: (B, 3, S, S).
        blurred: (B, N, 3, S, S).
        boxes: Objects in the B K crops, if the samples have them.
    """

    rainy: Tensor
    clean: Tensor
    query: Tensor
    query_clean: Tensor
    blurred: Tensor
    boxes: CropBoxes | None = None

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Batch:
        """Stack samples of one shape."""
        boxes = [crop for sample in samples for crop in sample.boxes]
        return cls(
            torch.cat([sample.rainy for sample in samples]),
            torch.cat([sample.clean for sample in samples]),
            torch.stack([sample.query for sample in samples]),
            torch.stack([sample.query_clean for sample in samples]),
            torch.stack([sample.blurred for sample in samples]),
            join_boxes(boxes) if boxes else None,
        )

    @classmethod
    def join(cls, parts: Sequence[Batch], *, pin: bool = False) -> Batch:
        """Put batches of one shape one after the other; in pinned memory for a GPU if asked for."""
        if len(parts) == 1 and not pin:
            return parts[0]
        boxes = [part.boxes for part in parts if part.boxes is not None]
        images = zip(*(part[:5] for part in parts), strict=True)
        whole = [joined(tensors, pin=pin) for tensors in images]
        return cls._make([*whole, CropBoxes.join(boxes) if boxes else None])


class Mixture:
    """Sources, and the order in which their images are drawn.

    Args:
        sources: At least one.
        seed: Random seed of the order and the crops.

    Raises:
        DatasetError: There are no sources, or no weight is above 0.
    """

    def __init__(self, sources: Sequence[Source], *, seed: int) -> None:
        if not sources:
            raise DatasetError("data has no sources: name pairs or photos to render rain on")
        weights = [source.weight for source in sources]
        if min(weights) < 0 or not sum(weights):
            raise DatasetError("the weights of the sources must be 0 or more, one above 0")
        self.sources = list(sources)
        self.seed = seed
        self._counts = _shares(weights, _BLOCK)

    def draw(self, number: int) -> Draw:
        """Return the origin of sample `number` (any integer, also negative)."""
        block, position = divmod(number, _BLOCK)
        order, ranks = self._block(block)
        source = order[position]
        visits = block * self._counts[source] + ranks[position]
        epoch, place = divmod(visits, len(self.sources[source]))
        image = _permutation(self.seed, source, epoch, len(self.sources[source]))[place]
        return Draw(source, image, max(epoch, 0))

    @functools.lru_cache(maxsize=4)  # noqa: B019 (a mixture lives as long as its training)
    def _block(self, block: int) -> tuple[list[int], list[int]]:
        """Return the sources of a block's draws, and how often each came before in the block."""
        order = [source for source, count in enumerate(self._counts) for _ in range(count)]
        random.Random(f"{self.seed}/block/{block}").shuffle(order)
        seen = [0] * len(self._counts)
        ranks = []
        for source in order:
            ranks.append(seen[source])
            seen[source] += 1
        return order, ranks

    def sample(self, number: int, shape: SampleShape) -> Sample:
        """Load and cut sample `number`.

        Raises:
            ImageError: The image cannot be read, or is smaller than a crop.
        """
        source, image, visit = self.draw(number)
        pair = self.sources[source].load(image, visit)
        try:
            return make_sample(pair, shape, random.Random(f"{self.seed}/sample/{number}"))
        except ImageError as error:
            raise ImageError(f"{self.describe(number)}: {error}") from error

    def recipe(self, number: int, shape: SampleShape) -> Recipes:
        """Load what sample `number` is made of; see `sample`."""
        source, image, visit = self.draw(number)
        plan = self.sources[source].plan(image, visit)
        try:
            chance = random.Random(f"{self.seed}/sample/{number}")
            cuts = draw_cuts((plan.clean.shape[0], plan.clean.shape[1]), shape, chance)
        except ImageError as error:
            raise ImageError(f"{self.describe(number)}: {error}") from error
        boxes = _crop_boxes(plan.boxes, shape, cuts)
        return Recipes.of(plan, cuts, join_boxes(boxes) if boxes else None)

    def describe(self, number: int) -> str:
        """Name the image of sample `number`."""
        source, image, _ = self.draw(number)
        return f"image {image} of {self.sources[source].name}"


def _shares(weights: Sequence[float], total: int) -> list[int]:
    """Split a total by weights into whole numbers; weights above 0 get at least 1."""
    exact = [weight / sum(weights) * total for weight in weights]
    counts = [max(int(share), 1 if share else 0) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    while sum(counts) < total:
        counts[by_remainder.pop(0)] += 1
    while sum(counts) > total:
        counts[counts.index(max(counts))] -= 1
    return counts


@functools.lru_cache(maxsize=64)
def _permutation(seed: int, source: int, epoch: int, length: int) -> list[int]:
    order = list(range(length))
    random.Random(f"{seed}/order/{source}/{epoch}").shuffle(order)
    return order


def make_sample(pair: FramePair, shape: SampleShape, chance: random.Random) -> Sample:
    """Cut a sample out of a pair of frames.

    Crops are at random places, the same in both frames, and flipped vertically, horizontally or
    not at all. The blurred negatives show the first crop's place, not flipped, at query size.

    Raises:
        ImageError: The frames are smaller than a crop.
    """
    cuts = draw_cuts((pair.rainy.shape[0], pair.rainy.shape[1]), shape, chance)
    rainy, clean = (
        [
            _turn(frame[top : top + shape.crop, left : left + shape.crop], turn)
            for (top, left), turn in zip(cuts.corners, cuts.turns, strict=True)
        ]
        for frame in (pair.rainy, pair.clean)
    )
    query, query_clean = (
        cv2.resize(frame, (shape.query, shape.query), interpolation=cv2.INTER_LINEAR)
        for frame in (pair.rainy, pair.clean)
    )
    return Sample(
        _stack(rainy, shape.crop),
        _stack(clean, shape.crop),
        _stack([query], shape.query)[0],
        _stack([query_clean], shape.query)[0],
        _stack(_blurred(pair.clean, cuts, shape.query), shape.query),
        _crop_boxes(pair.boxes, shape, cuts),
    )


def _crop_boxes(boxes: FrameBoxes | None, shape: SampleShape, cuts: Cuts) -> tuple[FrameBoxes, ...]:
    """Return the objects in each crop, if the shape has classes."""
    if not shape.classes:
        return ()
    boxes = boxes or FrameBoxes.unknown(shape.classes)
    return tuple(
        boxes.crop(corner, shape.crop, turn)
        for corner, turn in zip(cuts.corners, cuts.turns, strict=True)
    )


def _blurred(clean: Frame, cuts: Cuts, side: int) -> list[Frame]:
    """Blur the clean picture around the first crop in several ways."""
    if not cuts.blurs:
        return []
    rows, columns = (
        slice(start := max(0, min(place, length - side)), start + side)
        for place, length in zip(cuts.corners[0], clean.shape[:2], strict=True)
    )
    picture = np.ascontiguousarray(clean[rows, columns])
    if picture.shape[:2] != (side, side):
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR)
    blurred = []
    for blur in cuts.blurs:
        image = cv2.GaussianBlur(picture, (BLUR_TAPS, BLUR_TAPS), blur.sigma)
        if blur.across:
            image = np.flip(image, 1)
        if blur.down:
            image = np.flip(image, 0)
        blurred.append(image)
    return blurred


def _turn(crop: Frame, turn: int) -> Frame:
    """Flip a crop: 1 vertically, 2 horizontally, 0 and 3 not at all."""
    if turn in (1, 2):
        return np.flip(crop, turn - 1)
    return crop


def _stack(images: Sequence[Frame], side: int) -> Tensor:
    if not images:
        return torch.empty(0, 3, side, side, dtype=torch.uint8)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
