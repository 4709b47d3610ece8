"""The frames of footage: videos, folders of frames, single images."""

from __future__ import annotations

import itertools
from collections.abc import Container, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple, cast

from detection.run.addresses import is_live
from detection.run.sources import Images, Video, find_sources
from rainmer.errors import ImageError, RainmerError
from rainmer.frames.arrays import Frame
from rainmer.frames.images import read_image
from rainmer.frames.levels import Stretch

__all__ = ["Footage", "FootageFrame", "FrameKey", "find_footage"]


class FrameKey(NamedTuple):
    """Which frame: its source and its name there, a number in videos."""

    source: str
    name: str


class FootageFrame(NamedTuple):
    """One frame.

    Attributes:
        key: Which frame.
        shot: Name of the video or folder.
        time_s: When it is shown, in seconds since the start of the video or folder.
        image: uint8 (H, W, 3), RGB.
    """

    key: FrameKey
    shot: str
    time_s: float
    image: Frame


@dataclass
class Footage:
    """What is looked at; iterating reads it, as often as one likes.

    Attributes:
        sources: Videos and images.
        fps: Frames per second of folders of frames.
        every: Only each such frame.
        limit: At most so many frames of each video, and of all images; None: all.
        failures: After iterating: a line for each file that could not be read in full.
    """

    sources: Sequence[Images | Video]
    fps: float
    every: int = 1
    limit: int | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        """All files."""
        return [path for source in self.sources for _, path in source.files]

    @property
    def name(self) -> str:
        """What results are named after."""
        return Path(self.sources[0].name).stem

    @property
    def count(self) -> int | None:
        """Number of frames, often an estimate; None if unknown."""
        counts = [source.count for source in self.sources]
        taken = [-(-count // self.every) for count in counts]
        return sum(min(n, self.limit or n) for n in taken) if all(counts) else None

    def __iter__(self) -> Generator[FootageFrame, None, None]:
        self.failures = []
        for source in self.sources:
            source.failures.clear()
            yield from self._images(source) if isinstance(source, Images) else self._video(source)
            self.failures += source.failures

    def again(self, wanted: Container[FrameKey], count: int) -> Iterator[FootageFrame]:
        """Read again, and yield some frames.

        Args:
            wanted: Which ones.
            count: How many these are; after the last one nothing more is read.
        """
        failures = self.failures  # all have been told
        yield from itertools.islice((frame for frame in self if frame.key in wanted), count)
        self.failures = failures

    def _video(self, video: Video) -> Iterator[FootageFrame]:
        last = None if self.limit is None else self.limit * self.every
        for frame in itertools.islice(video, 0, last, self.every):
            key = FrameKey(video.name, frame.name)
            image = cast(Frame, frame.image)  # decoded on no device, it is an array
            yield FootageFrame(key, video.name, frame.time_s or 0.0, image)

    def _images(self, images: Images) -> Iterator[FootageFrame]:
        """Yield images folder by folder; each one counts from zero."""
        folders: dict[str, list[tuple[str, Path]]] = {}
        for name, path in images.files:
            folders.setdefault(PurePosixPath(name).parent.as_posix(), []).append((name, path))
        chosen = {
            place: [(n, pair) for n, pair in enumerate(files)][:: self.every]
            for place, files in folders.items()
        }
        left = self.limit
        for place, numbered in chosen.items():
            shot = images.name if place == "." else f"{images.name}/{place}"
            for n, (name, path) in numbered[:left]:
                try:
                    image = read_image(path, images.stretch)
                except ImageError as error:
                    images.failures.append(str(error))
                    continue
                yield FootageFrame(FrameKey(images.name, name), shot, n / self.fps, image)
            left = None if left is None else max(0, left - len(numbered))


def find_footage(
    arguments: Sequence[str],
    out: Path | None,
    *,
    fps: float,
    every: int = 1,
    limit: int | None = None,
    stretch: Stretch | None = None,
) -> Footage:
    """Find the videos, folders and images that a command names; see `Footage`.

    Args:
        arguments: Files, folders and globs.
        out: Folder of the results, which is not searched.
        fps: Frames per second of folders of frames.
        every: Only each such frame.
        limit: At most so many frames; see `Footage`.
        stretch: How images of more than 8 bits are read.

    Raises:
        ImageError: An argument matches nothing that can be read.
        RainmerError: An argument is a camera or a stream.
    """
    lives = [argument for argument in arguments if is_live(argument)]
    if lives:
        raise RainmerError(
            f"{lives[0]} is a camera or a stream: footage is looked at more than once, so record "
            "it to a file first"
        )
    found = find_sources(arguments, out, stretch=stretch)
    sources = [source for source in found if isinstance(source, Images | Video)]
    return Footage(sources, fps, every, limit)
