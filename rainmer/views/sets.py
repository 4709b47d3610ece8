"""Which images stand for a data set."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.data.layouts import Layout, Mode, find_layout, find_pairs
from rainmer.errors import ConfigError, DatasetError, OutputError
from rainmer.frames.images import IMAGE_SUFFIXES
from rainmer.frames.inputs import find_inputs, real_path

__all__ = ["ImageSet", "draw_images", "find_set"]


@dataclass(frozen=True)
class ImageSet:
    """Images that belong together.

    Attributes:
        name: What plots call them.
        source: Where they were found, as the user wrote it.
        paths: The files, each once, in an order that does not depend on the disk.
    """

    name: str
    source: str
    paths: Sequence[Path]


def find_set(text: str, *, mode: Mode | None = None, out: Path | None = None) -> ImageSet:
    """Find the images of a set.

    Args:
        text: `NAME:IMAGES`, where IMAGES is a folder (with its subfolders), a file or a glob; or
            `NAME:LAYOUT:ROOT` with a layout of `rainmer.data.layouts`, of which the rainy images
            are taken.
        mode: Which is meant by the name of a training and a test set; other names ignore it.
        out: Folder of results; what lies in it is no input.

    Raises:
        ConfigError: The text is of another form, or there is no such layout.
        DatasetError: The set has no images, or a layout's files are missing.
        ImageError: The folder or file does not exist.
        OutputError: The set is the folder of results.
    """
    name, _, source = text.partition(":")
    if not name.strip() or not source:
        raise ConfigError(f"{text!r} is not NAME:FOLDER or NAME:LAYOUT:ROOT, such as snow:photos/")
    layout, colon, root = source.partition(":")
    if colon and not os.path.exists(os.path.expanduser(source)):
        pairs = find_pairs(_layout(layout, mode), os.path.expanduser(root))
        return ImageSet(name, source, [pair.rainy for pair in pairs])
    return ImageSet(name, source, _images(os.path.expanduser(source), out))


def _layout(name: str, mode: Mode | None) -> Layout:
    try:
        return find_layout(name, mode)
    except ConfigError:
        return find_layout(name)  # there is none of this mode, but perhaps of the other


def _images(source: str, out: Path | None) -> list[Path]:
    if out is not None and os.path.isdir(source) and real_path(Path(source)) == real_path(out):
        raise OutputError(f"--out is the folder of a set, {source}: choose another folder")
    found = [one.path for one in find_inputs(source, out)]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DatasetError(f"{source} holds no images")
    return images


def draw_images(images: ImageSet, count: int, *, seed: int, replace: bool = False) -> list[Path]:
    """Draw images of a set at random, the same on every machine.

    Args:
        images: The set.
        count: How many.
        seed: Another seed, other images.
        replace: Draw `count` images one by one, each from the whole set, as the published
            visualisation does; some then come several times. Otherwise no image comes twice, and
            all are taken when there are no more than `count`.

    Returns:
        Files in the order of the set; with `replace` in the order they were drawn.
    """
    chance = random.Random(f"{seed}/{images.name}")
    if replace:
        return chance.choices(images.paths, k=count)
    if len(images.paths) <= count:
        return list(images.paths)
    return [images.paths[index] for index in sorted(chance.sample(range(len(images.paths)), count))]
