"""The test sets of a run: from LABEL=NAME:ROOT to pairs of files, with every defect named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2

from eval.sets.config import check_name
from rainmer.data.defects import Defects
from rainmer.data.layouts import Layout, Pair, find_layout
from rainmer.data.layouts.check import pairs_of_equal_size
from rainmer.data.layouts.pairing import scan
from rainmer.errors import ConfigError, DatasetError, ImageError
from rainmer.frames.arrays import Frame
from rainmer.frames.images import read_image

__all__ = [
    "RestorationSet",
    "SetSpec",
    "load_pair",
    "load_sets",
    "parse_set",
    "resize_to_height",
]

_RESIZED = "set3"  # what the released test code looks for in a set's name
_RESIZED_HEIGHT = 512


class SetSpec(NamedTuple):
    """A set as it is asked for.

    Attributes:
        label: What it is called in tables.
        layout: How it lies on the disk.
        root: The folder that the layout's paths start from.
    """

    label: str
    layout: Layout
    root: Path


@dataclass(frozen=True, kw_only=True)
class RestorationSet:
    """A set that is to be restored.

    Attributes:
        label: What it is called in tables.
        layout: Name of its layout; of `folders` the one that is there.
        images: What is evaluated, in natural order.
        available: Number of images that the copy holds, with those that a limit left out.
        height: Height in pixels to which both images are resized first; None: as they are.
        defects: Errors are images that were left out, notes what else is worth knowing.
    """

    label: str
    layout: str
    images: Sequence[Pair]
    available: int
    height: int | None
    defects: Defects

    @property
    def has_reference(self) -> bool:
        """Whether there are clean images; a layout has them for all rainy images or for none."""
        return any(image.clean is not None for image in self.images)

    @property
    def has_scenes(self) -> bool:
        """Whether several images share a scene."""
        scenes = {image.scene for image in self.images}
        return None not in scenes and len(scenes) < len(self.images)


def parse_set(text: str) -> SetSpec:
    """Parse NAME:ROOT or LABEL=NAME:ROOT.

    Without a label, a set is called as its layout, and two plain folders as the folder they are in.

    Raises:
        ConfigError: The text has another form, no test set has this name, or the label would not
            do as a file's name.

    Example:
        >>> parse_set("mine=folders:data/pairs").label
        'mine'
        >>> parse_set("folders:data/pairs").label, parse_set("Rain-100L:data").label
        ('pairs', 'rain100L')
    """
    name, colon, root = text.partition(":")
    label, equals, layout_name = name.rpartition("=")
    if not (colon and root and layout_name) or (equals and not label):
        raise ConfigError(f"{text!r} is not NAME:ROOT or LABEL=NAME:ROOT, such as rain100L:/data")
    layout = find_layout(layout_name, "test")
    path = Path(os.path.expanduser(root))
    if not label:
        label = path.resolve().name if layout.mode is None else layout.name
    check_name(label, f"--sets {text}: LABEL=")
    return SetSpec(label, layout, path)


def load_sets(
    texts: Sequence[str], *, limit: int | None = None, progress: bool = False
) -> list[RestorationSet]:
    """Find the pairs of sets.

    Args:
        texts: The sets; see `parse_set`.
        limit: Most images of each set, evenly spread over its names.
        progress: Show a bar while sizes are read.

    Raises:
        ConfigError: A text is wrong, or two sets have one label.
        DatasetError: A set has no complete pair.
    """
    specs = [parse_set(text) for text in texts]
    labels = [spec.label.casefold() for spec in specs]
    for spec in specs:
        if labels.count(spec.label.casefold()) > 1:
            raise ConfigError(f"two sets are called {spec.label!r}: write LABEL=NAME:ROOT")
    return [_load(spec, limit, progress=progress) for spec in specs]


def _load(spec: SetSpec, limit: int | None, *, progress: bool) -> RestorationSet:
    content = scan(spec.layout, spec.root)
    pairs, defects = content.images.pairs, content.defects
    chosen = pairs
    if limit is not None and limit < len(pairs):
        chosen = [pairs[i * len(pairs) // limit] for i in range(limit)]
    usable, _ = pairs_of_equal_size(chosen, content.root, defects, progress=progress)
    if not usable:
        raise DatasetError(f"{spec.label} in {spec.root}: {'; '.join(defects.error_lines())}")
    return RestorationSet(
        label=spec.label,
        layout=content.layout.name,
        images=usable,
        available=len(pairs),
        height=_RESIZED_HEIGHT if _RESIZED in content.layout.name else None,
        defects=defects,
    )


def load_pair(image: Pair, height: int | None) -> tuple[Frame, Frame | None]:
    """Read an image and its clean partner, if there is one.

    Args:
        image: The pair.
        height: As in `RestorationSet`.

    Raises:
        ImageError: One cannot be read, or their sizes differ.
    """
    rainy = read_image(image.rainy)
    clean = None if image.clean is None else read_image(image.clean)
    if clean is not None and clean.shape != rainy.shape:
        raise ImageError(
            f"{image.rainy} is {_size(rainy)} pixels, but {image.clean} is {_size(clean)}"
        )
    if height is None:
        return rainy, clean
    return (
        resize_to_height(rainy, height),
        None if clean is None else resize_to_height(clean, height),
    )


def resize_to_height(frame: Frame, height: int) -> Frame:
    """Resize a frame (H, W, 3) bilinearly on 8 bits, as the released test code does for `set3`.

    The width is int(W / H * height), in this order of operations.
    """
    width = max(1, int(frame.shape[1] / frame.shape[0] * height))
    resized: Frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def _size(frame: Frame) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"
