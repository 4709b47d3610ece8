"""Boxes of labelled photos on their way into crops, for extra losses that need objects."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rainmer.data.annotations import Annotations, clip_to_image, read_coco, read_yolo
from rainmer.data.defects import Defects
from rainmer.errors import ConfigError, ImageError
from rainmer.files import match_key
from rainmer.frames.images import image_size_hw

__all__ = ["CropBoxes", "FrameBoxes", "join_boxes", "read_frame_boxes"]

_LEAST_SHARE = 0.3  # of an object that a crop must hold
_LEAST_SIDE = 3.0  # pixels; smaller boxes are dropped

_log = logging.getLogger(__name__)

BoxArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FrameBoxes:
    """Objects of one frame.

    Attributes:
        boxes: (N, 5): class, left, top, right, bottom in pixels of the frame.
        labelled: (C,): which classes the annotations know. Objects of others may be there without
            a box.
    """

    boxes: BoxArray
    labelled: npt.NDArray[np.bool_]

    @classmethod
    def unknown(cls, classes: int) -> FrameBoxes:
        """Return what is known of a frame without annotations: nothing."""
        return cls(np.zeros((0, 5), np.float32), np.zeros(classes, np.bool_))

    def moved(self, factor: float, left: float, top: float) -> FrameBoxes:
        """Return the boxes after a resize by a factor, seen from a window at (left, top)."""
        boxes = self.boxes.copy()
        boxes[:, 1:] = boxes[:, 1:] * factor - np.array([left, top, left, top], np.float32)
        return FrameBoxes(boxes, self.labelled)

    def crop(self, corner: tuple[int, int], side: int, turn: int) -> FrameBoxes:
        """Return the objects of a square crop.

        Those of which less than 30 % are inside, and boxes below 3 pixels, are dropped.

        Args:
            corner: Top and left of the crop.
            side: Its side.
            turn: 1: it is flipped vertically, 2: horizontally.
        """
        boxes = self.moved(1.0, corner[1], corner[0]).boxes
        whole = _area(boxes)
        boxes[:, 1:] = boxes[:, 1:].clip(0, side)
        sides = boxes[:, 3:] - boxes[:, 1:3]
        boxes = boxes[(_area(boxes) >= _LEAST_SHARE * whole) & (sides.min(1) >= _LEAST_SIDE)]
        if turn in (1, 2):
            ends = [2, 4] if turn == 1 else [1, 3]
            boxes[:, ends] = side - boxes[:, ends[::-1]]
        return FrameBoxes(boxes, self.labelled)


class CropBoxes(NamedTuple):
    """Objects of K crops.

    Attributes:
        boxes: (N, 6), float32: crop, class, left, top, right, bottom in pixels of the crop.
        labelled: (K, C), bool: which classes the annotations of a crop's frame know.
    """

    boxes: Tensor
    labelled: Tensor

    @classmethod
    def join(cls, parts: Sequence[CropBoxes]) -> CropBoxes:
        """Put the crops of several batches one after the other."""
        starts = itertools.accumulate((len(part.labelled) for part in parts), initial=0)
        moved = [part.boxes.clone() for part in parts]
        for boxes, start in zip(moved, starts, strict=False):
            boxes[:, 0] += start
        return cls(torch.cat(moved), torch.cat([part.labelled for part in parts]))

    def to(self, device: torch.device) -> CropBoxes:
        """Return them on a device."""
        return CropBoxes(*(tensor.to(device, non_blocking=True) for tensor in self))


def read_frame_boxes(
    path: Path,
    images: Sequence[Path],
    root: Path,
    classes: Sequence[str],
    names: Sequence[str] = (),
) -> list[FrameBoxes]:
    """Read the boxes of photos. Classes are matched by name, whatever their case.

    Boxes of classes that are not asked for are left out, which is logged, and so are crowds.

    Args:
        path: COCO JSON, or a folder of YOLO labels.
        images: The photos.
        root: Their folder: annotations name paths below it.
        classes: The classes that are asked for, in the order of their numbers.
        names: Class names of YOLO labels.

    Raises:
        DatasetError: The annotations cannot be read.
        ConfigError: YOLO labels come without names, or no class is known by both.
    """
    keys = [match_key(image.relative_to(root)) for image in images]
    sizes = {key: _size_hw(image) for key, image in zip(keys, images, strict=True)}
    defects = Defects()
    annotations = _read(path, names, sizes, defects)
    numbers = {_folded(name): number for number, name in enumerate(classes)}
    known = {key: numbers.get(_folded(name)) for key, name in annotations.categories.items()}
    labelled = np.zeros(len(classes), np.bool_)
    labelled[[number for number in known.values() if number is not None]] = True
    if not labelled.any():
        raise ConfigError(
            f"{path}: none of its classes ({', '.join(annotations.categories.values())}) is one of "
            f"the detector's ({', '.join(classes)})"
        )
    frames = []
    for key in keys:
        record = annotations.find(key)
        if record is None:
            defects.note("image that the annotations do not list, its objects unknown", key)
            frames.append(FrameBoxes.unknown(len(classes)))
            continue
        kept = clip_to_image(record.boxes, sizes[key], key, defects)
        rows: list[tuple[float, ...]] = []
        for box in kept:
            number = known[box["category_id"]]
            if number is None:
                defects.note("box of a class that the detector lacks, left out", key)
            elif not box["iscrowd"]:
                left, top, width, height = box["bbox"]
                rows.append((number, left, top, left + width, top + height))
        frames.append(FrameBoxes(np.array(rows, np.float32).reshape(-1, 5), labelled))
    for line in defects.lines():
        _log.info("%s: %s", path, line)
    return frames


def _read(
    path: Path, names: Sequence[str], sizes: dict[str, tuple[int, int]], defects: Defects
) -> Annotations:
    if path.suffix.lower() == ".json":
        return read_coco(path, defects)
    if not names:
        raise ConfigError(f"{path}: YOLO labels have only numbers: give their names")
    return read_yolo(path, dict(enumerate(names)), sizes, defects)


def _size_hw(image: Path) -> tuple[int, int]:
    try:
        return image_size_hw(image)
    except ImageError:  # it is left out, with a warning, when it is drawn
        return 1, 1


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _area(boxes: BoxArray) -> BoxArray:
    return (boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2])


def join_boxes(crops: Sequence[FrameBoxes]) -> CropBoxes:
    """Number the objects of several crops, or whole frames, by crop."""
    rows = [F.pad(torch.from_numpy(crop.boxes), (1, 0), value=i) for i, crop in enumerate(crops)]
    labelled = np.stack([crop.labelled for crop in crops])
    return CropBoxes(torch.cat(rows), torch.from_numpy(labelled))
