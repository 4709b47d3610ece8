"""Sources of training pairs: files on disk, or rain rendered on clean photos.

A source loads one of its images as a pair of frames (H, W, 3), uint8, RGB. The pair depends only on
the index and the visit (how often the image was drawn before), so that a resumed training sees
exactly the pairs of an uninterrupted one.
"""

from __future__ import annotations

import abc
import contextlib
import copy
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from rainmer.data.depth import find_depth, read_depth
from rainmer.data.layouts import Mode, Pair, find_pairs
from rainmer.errors import ConfigError, DatasetError, ImageError
from rainmer.files import atomic_write, fits_pattern
from rainmer.frames.arrays import Frame, quantize, to_batch
from rainmer.frames.images import list_images, read_image
from rainmer.rain import Rain, RainConfig, rain_config, render_mixed
from rainmer.rain.config import Range
from rainmer.rain.randomness import image_key
from rainmer.train.boxes import FrameBoxes, read_frame_boxes

__all__ = [
    "FramePair",
    "PairedSource",
    "PairsConfig",
    "Plan",
    "RainChoice",
    "RenderedConfig",
    "RenderedSource",
    "Source",
    "hold_out",
    "make_sources",
]

DRY = "none"
"""The kind of rain that leaves the photo unchanged: a pair of equal frames."""

_LEAST_PHOTOS = 40  # of fewer none are held out: a score of one or two says nothing

_log = logging.getLogger(__name__)


class FramePair(NamedTuple):
    """A rainy frame (H, W, 3), uint8, RGB, its clean target of the same size, and its objects."""

    rainy: Frame
    clean: Frame
    boxes: FrameBoxes | None = None


class Plan(NamedTuple):
    """A pair of frames of which rain may still have to be rendered.

    Attributes:
        clean: Clean frame (H, W, 3), uint8, RGB.
        rainy: The rainy frame if it was read; None: it is rendered, or the same as the clean one.
        rain: What is rendered; None: nothing.
        depth_m: Depth of the frame (H, W) in metres, float32; None: guessed as configured.
        boxes: Its objects.
    """

    clean: Frame
    rainy: Frame | None = None
    rain: Rain | None = None
    depth_m: npt.NDArray[np.float32] | None = None
    boxes: FrameBoxes | None = None

    def rendered(self) -> FramePair:
        """Render."""
        if self.rain is None:
            return FramePair(
                self.clean if self.rainy is None else self.rainy, self.clean, self.boxes
            )
        depth_m = None if self.depth_m is None else torch.from_numpy(self.depth_m)[None, None]
        rendered = render_mixed(to_batch([self.clean]), [self.rain], depth_m=depth_m)
        rainy, target = (
            quantize(image)[0].permute(1, 2, 0).contiguous().numpy()
            for image in (rendered.rainy, rendered.clean)
        )
        return FramePair(rainy, target, self.boxes)


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Pairs of files.

    Attributes:
        root: Folder of the data set.
        layout: How files are named below it: a name of `rainmer.data.layouts`; "folders" has
            `input/` and `target/` (or names like these) with equal file names.
        mode: Part of the data set: "train" or "test".
        weight: Share of the mixture, relative to the other sources; None: the number of pairs.
        cache: Keep decoded images in memory.
    """

    root: str
    layout: str = "folders"
    mode: Mode | None = None
    weight: float | None = None
    cache: bool = False


@dataclass(frozen=True, kw_only=True)
class RainChoice:
    """One of the kinds of rain that a source renders.

    Attributes:
        weight: How often it is chosen, relative to the others.
        preset: A preset of the renderer; None: the name of this entry. "none" renders no rain.
        changes: Fields of `RainConfig` that override the preset.
    """

    weight: float = 1.0
    preset: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RenderedConfig:
    """Clean photos that rain is rendered on.

    Attributes:
        images: Folder of clean photos.
        rain: Kinds of rain by name.
        depth: Folder of depth maps of the same names; None: depth is estimated.
        files: Only photos whose path below the folder matches this pattern.
        weight: Share of the mixture; None: the number of photos.
        window: Side of the square part of the photo that is rendered and that counts as the frame,
            in pixels; None: the whole photo. Smaller photos are taken as they are.
        scale: Range of the random factor by which photos are resized first; those that fill the
            window still fill it then.
        frame_width: Width in pixels of the frames that rain is rendered for.
        reuse: Number of visits before rain is rendered anew.
        annotations: Boxes of the photos, for extra losses that need objects: COCO JSON, or a
            folder of YOLO labels; others do not read them.
        names: Class names of YOLO labels, in the order of their numbers.
    """

    images: str
    rain: dict[str, RainChoice]
    depth: str | None = None
    files: str = "*"
    weight: float | None = None
    window: int | None = 256
    scale: Range = 1.0
    frame_width: Range = 640.0
    reuse: int = 1
    annotations: str | None = None
    names: tuple[str, ...] = ()


class Source(abc.ABC):
    """A source of training pairs: a number of images, loaded one at a time."""

    name: str
    weight: float
    """Share of the mixture."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of different images."""

    @abc.abstractmethod
    def load(self, index: int, visit: int) -> FramePair:
        """Load a pair.

        Args:
            index: Index of the image, 0 to length - 1.
            visit: How often it was drawn before.

        Raises:
            ImageError: It cannot be read, or its frames differ in size.
        """

    def plan(self, index: int, visit: int) -> Plan:
        """Load a pair without rendering rain; see `load`."""
        pair = self.load(index, visit)
        return Plan(pair.clean, pair.rainy, boxes=pair.boxes)

    def share(self, folder: Path) -> None:  # noqa: B027 (most sources compute nothing to share)
        """Keep what is computed for several visits in a folder, for several processes."""


class PairedSource(Source):
    """Pairs of files.

    Args:
        name: For messages.
        config: Where the files are.

    Raises:
        DatasetError: There are no pairs, or a rainy image has no target.
    """

    def __init__(self, name: str, config: PairsConfig) -> None:
        self.name = name
        self.pairs: Sequence[Pair] = find_pairs(config.layout, config.root, mode=config.mode)
        if not self.pairs:
            raise DatasetError(f"data.pairs.{name}: no pairs below {config.root}")
        self.weight = float(len(self.pairs)) if config.weight is None else config.weight
        self._cache: dict[int, FramePair] | None = {} if config.cache else None

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int, visit: int) -> FramePair:
        """Read both files, once if the source keeps them. Raises ImageError."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        pair = self.pairs[index]
        if pair.clean is None:
            raise ImageError(f"{pair.rainy} has no clean target: it cannot be trained on")
        frames = FramePair(read_image(pair.rainy), read_image(pair.clean))
        if frames.rainy.shape != frames.clean.shape:
            (height, width), (clean_height, clean_width) = (
                f.shape[:2] for f in (frames.rainy, frames.clean)
            )
            raise ImageError(
                f"{pair.rainy} is {width}x{height} pixels, but its target {pair.clean} is "
                f"{clean_width}x{clean_height}"
            )
        if self._cache is not None:
            self._cache[index] = frames
        return frames


class _Photo(NamedTuple):
    """A clean photo, its place in the order by hashes of names, and what belongs to it."""

    path: Path
    place: float
    depth: Path | None = None
    boxes: FrameBoxes | None = None


class RenderedSource(Source):
    """Photos with rendered rain.

    Args:
        name: For messages; the rain depends on it, too.
        config: Photos and rain.
        seed: Random seed of the rain.
        classes: Names of the classes whose boxes come with the frames; none: no boxes.

    Raises:
        DatasetError: There are no photos, depth maps are missing, or annotations cannot be read.
        ConfigError: A kind of rain is unknown or has a wrong field, or no class is annotated.
    """

    def __init__(
        self, name: str, config: RenderedConfig, *, seed: int = 0, classes: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._config = config
        self._seed = seed
        self._keep(_find_photos(name, config, classes))
        self._choices, self._weights = _kinds(name, config.rain)
        self._folder: Path | None = None

    def _keep(self, photos: Sequence[_Photo]) -> None:
        self._photos = photos
        self.weight = float(len(photos)) if self._config.weight is None else self._config.weight
        self._kept: dict[int, tuple[int, FramePair]] = {}

    def __len__(self) -> int:
        return len(self._photos)

    def hold_out(self, share: float) -> RenderedSource | None:
        """Give up photos to a source of their own: those whose name's hash falls into a share.

        A photo that joins or leaves the folder moves no other one. The new source has them in the
        order of their hashes, so that its first photos are from all folders. At least one photo is
        held out and one is left.

        Returns:
            The new source, of the same kinds of rain; None: there are too few photos.
        """
        if len(self) < _LEAST_PHOTOS:
            return None
        ordered = sorted(self._photos, key=lambda photo: photo.place)
        count = sum(photo.place < share for photo in ordered)
        count = min(max(count, 1), len(self) - 1)
        held_out = copy.copy(self)
        held_out.name = f"{self.name}-held-out"
        held_out._keep(ordered[:count])
        least = ordered[count].place
        self._keep([photo for photo in self._photos if photo.place >= least])
        return held_out

    def load(self, index: int, visit: int) -> FramePair:
        """Render, or reuse the last rendering. Raises ImageError."""
        rendering = visit // self._config.reuse
        if self._config.reuse == 1:
            return self._render(index, rendering)
        if self._folder is not None:
            return self._shared(self._folder, index, rendering)
        kept = self._kept.get(index)
        if kept is not None and kept[0] == rendering:
            return kept[1]
        pair = self._render(index, rendering)
        self._kept[index] = rendering, pair
        return pair

    def share(self, folder: Path) -> None:
        """Keep renderings in a folder: another process may draw the next visit of an image."""
        self._folder = folder

    def _shared(self, folder: Path, index: int, rendering: int) -> FramePair:
        file = folder / f"{index}-{rendering}.npz"
        with contextlib.suppress(FileNotFoundError), np.load(file) as stored:
            boxes = FrameBoxes(stored["boxes"], stored["labelled"]) if "boxes" in stored else None
            return FramePair(stored["rainy"], stored["clean"], boxes)
        pair = self._render(index, rendering)
        objects = {} if pair.boxes is None else vars(pair.boxes)
        with atomic_write(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, rainy=pair.rainy, clean=pair.clean, **objects)
        with contextlib.suppress(OSError):  # gone already, or being read by another process
            (folder / f"{index}-{rendering - 1}.npz").unlink()
        return pair

    def plan(self, index: int, visit: int) -> Plan:
        """Read a photo and draw its rain. Raises ImageError."""
        return self._plan(index, visit // self._config.reuse)

    def _render(self, index: int, rendering: int) -> FramePair:
        return self._plan(index, rendering).rendered()

    def _plan(self, index: int, rendering: int) -> Plan:
        chance = random.Random(f"{self._seed}/{self.name}/{index}/{rendering}")
        photo = self._photos[index]
        depth = None if photo.depth is None else read_depth(photo.depth)
        clean, depth, boxes = self._window(read_image(photo.path), depth, photo.boxes, chance)
        (config,) = chance.choices(self._choices, self._weights)
        frame_width = round(_draw(self._config.frame_width, chance)) or max(clean.shape[:2])
        if config is None:
            return Plan(clean, boxes=boxes)
        rain = Rain(config, image_key(self._seed, f"{index}/{rendering}"), frame_width)
        return Plan(clean, None, rain, depth, boxes)

    def _window(
        self,
        photo: Frame,
        depth: npt.NDArray[np.float32] | None,
        boxes: FrameBoxes | None,
        chance: random.Random,
    ) -> tuple[Frame, npt.NDArray[np.float32] | None, FrameBoxes | None]:
        """Resize a photo, and cut out the window that counts as the frame."""
        side = self._config.window
        factor = _draw(self._config.scale, chance)
        if side is not None:  # or else a photo that fills the window might not after scaling
            factor = max(factor, min(1.0, side / min(photo.shape[:2])))
        if factor != 1.0:
            height, width = (max(1, round(side * factor)) for side in photo.shape[:2])
            method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
            photo = cv2.resize(photo, (width, height), interpolation=method)
            if depth is not None:
                depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
        if side is None:
            return photo, depth, None if boxes is None else boxes.moved(factor, 0, 0)
        rows, columns = (_slice(length, side, chance) for length in photo.shape[:2])
        cut = np.ascontiguousarray(photo[rows, columns])
        return (
            cut,
            None if depth is None else np.ascontiguousarray(depth[rows, columns]),
            None if boxes is None else boxes.moved(factor, columns.start, rows.start),
        )


def make_sources(
    pairs: Mapping[str, PairsConfig],
    rendered: Mapping[str, RenderedConfig],
    *,
    seed: int,
    classes: Sequence[str] = (),
) -> list[Source]:
    """Open sources by their names.

    Args:
        pairs: Pairs of files.
        rendered: Photos.
        seed: Determines the rain on photos.
        classes: See `RenderedSource`.

    Raises:
        DatasetError: A source has no usable images.
        ConfigError: A kind of rain is unknown.
    """
    return [
        *(PairedSource(name, config) for name, config in pairs.items()),
        *(
            RenderedSource(name, config, seed=seed, classes=classes)
            for name, config in rendered.items()
        ),
    ]


def hold_out(sources: Iterable[Source], share: float) -> list[Source]:
    """Hold photos out of the rendered sources, for validation; say of which there are too few.

    Args:
        sources: Those of the training; they lose the photos that the returned ones have.
        share: Share of each one's photos, 0 to 1; at 0 nothing happens.
    """
    held_out: list[Source] = []
    for source in sources if share else ():
        if not isinstance(source, RenderedSource):
            continue
        before, part = len(source), source.hold_out(share)
        if part is None:
            _log.info(
                "data.rendered.%s: %d photos are fewer than %d, so none is held out for validation",
                source.name, before, _LEAST_PHOTOS,
            )  # fmt: skip
        else:
            _log.info(
                "data.rendered.%s: %d of %d photos are held out for validation",
                source.name, len(part), before,
            )  # fmt: skip
            held_out.append(part)
    return held_out


def _find_photos(name: str, config: RenderedConfig, classes: Sequence[str]) -> list[_Photo]:
    root = Path(config.images)
    images = [
        path for path in list_images(root) if fits_pattern(path.relative_to(root), config.files)
    ]
    if not images:
        raise DatasetError(f"data.rendered.{name}: no images below {root}")
    names = [path.relative_to(root).as_posix() for path in images]
    depths: list[Path | None] = [None] * len(images)
    if config.depth is not None:
        stems = (path.relative_to(root).with_suffix("").as_posix() for path in images)
        depths = [find_depth(Path(config.depth), stem) for stem in stems]
    boxes: Sequence[FrameBoxes | None] = [None] * len(images)
    if classes and config.annotations is not None:
        boxes = read_frame_boxes(Path(config.annotations), images, root, classes, config.names)
    places = [random.Random(name).random() for name in names]  # a hash that is a number
    return list(map(_Photo, images, places, depths, boxes))


def _kinds(
    name: str, rain: Mapping[str, RainChoice]
) -> tuple[list[RainConfig | None], list[float]]:
    kinds: list[RainConfig | None] = []
    for kind, choice in rain.items():
        preset = choice.preset or kind
        if preset == DRY:
            kinds.append(None)
            continue
        try:
            kinds.append(rain_config(preset, **choice.changes))
        except ConfigError as error:
            raise ConfigError(f"data.rendered.{name}.rain.{kind}: {error}") from error
    weights = [choice.weight for choice in rain.values()]
    if not kinds or min(weights) < 0 or not sum(weights):
        raise ConfigError(f"data.rendered.{name}.rain: name at least one kind of weight above 0")
    return kinds, weights


def _draw(limits: Range, chance: random.Random) -> float:
    if isinstance(limits, tuple):
        return chance.uniform(*limits)
    return float(limits)


def _slice(length: int, side: int, chance: random.Random) -> slice:
    start = chance.randint(0, max(0, length - side))
    return slice(start, start + side)
