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

_RESIZED = "set3"  # what the released test code looks for in the name of a set
_RESIZED_HEIGHT = 512


class SetSpec(NamedTuple):
    """A set as given on the command line.

    Attributes:
        label: Its name in tables.
        layout: Its layout on disk.
        root: The folder that the layout's paths are relative to.
    """

    label: str
    layout: Layout
    root: Path


@dataclass(frozen=True, kw_only=True)
class RestorationSet:
    """A set to restore.

    Attributes:
        label: Its name in tables.
        layout: Name of its layout; for `folders`, the variant that matched.
        images: The images to evaluate, in natural order.
        available: Number of images in the copy, including those left out by a limit.
        height: Height in pixels to which both images are resized first; None: not resized.
        defects: Errors are images that were left out; notes are other remarks.
    """

    label: str
    layout: str
    images: Sequence[Pair]
    available: int
    height: int | None
    defects: Defects

    @property
    def has_reference(self) -> bool:
        """Whether there are clean images; a layout has them for all rainy images or none."""
        return any(image.clean is not None for image in self.images)

    @property
    def has_scenes(self) -> bool:
        """Whether several images share a scene."""
        scenes = {image.scene for image in self.images}
        return None not in scenes and len(scenes) < len(self.images)


def parse_set(text: str) -> SetSpec:
    """Parse NAME:ROOT or LABEL=NAME:ROOT.

    The default label is the layout's name, or for two plain folders that of their parent folder.

    Raises:
        ConfigError: The text has another form, no test set has this name, or the label is not
            usable as a file name.

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
    """Find the image pairs of sets.

    Args:
        texts: The sets; see `parse_set`.
        limit: Maximum number of images per set, evenly spread over the sorted names.
        progress: Show a progress bar while sizes are read.

    Raises:
        ConfigError: A text is invalid, or two sets have the same label.
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
    """Read an image and its clean partner, if any.

    Args:
        image: The pair.
        height: As in `RestorationSet`.

    Raises:
        ImageError: An image cannot be read, or the sizes differ.
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
    """Resize an 8-bit frame (H, W, 3) bilinearly, as the released test code does for `set3`.

    The width is int(W / H * height), evaluated in this order.
    """
    width = max(1, int(frame.shape[1] / frame.shape[0] * height))
    resized: Frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def _size(frame: Frame) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"
