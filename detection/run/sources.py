"""Sources of frames: images, folders, globs, videos, cameras and streams."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from detection.run.addresses import is_live
from detection.run.live import Live
from detection.run.options import LiveOptions
from detection.types import SourceFrame
from rainmer.errors import ImageError
from rainmer.frames.images import read_image
from rainmer.frames.inputs import Input, find_inputs, real_path
from rainmer.frames.levels import Stretch
from rainmer.frames.video import (
    DEFAULT_FPS,
    DeviceReader,
    VideoInfo,
    VideoReader,
    is_video,
    open_video,
)

__all__ = ["Images", "Live", "Source", "Video", "find_sources"]


@dataclass
class Images:
    """Image files, each with the relative name of its result."""

    name: str
    files: list[tuple[str, Path]]
    stretch: Stretch | None = None
    fps: None = None
    failures: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of files, readable or not."""
        return len(self.files)

    def __iter__(self) -> Iterator[SourceFrame]:
        """Yield the readable files; add a line to `failures` for every other file."""
        for name, path in self.files:
            try:
                frame = read_image(path, self.stretch)
            except ImageError as error:
                self.failures.append(str(error))
                continue
            yield SourceFrame(name, frame)


@dataclass
class Video:
    """A video file; its frames are named by their number.

    Args:
        name: Name of its results.
        path: The file.
        hardware: See `VideoReader`.
        device: Where frames are decoded and stay, if possible; None: frames are arrays.

    Attributes:
        info: What the file tells about itself; None if it cannot be read.
    """

    name: str
    path: Path
    hardware: bool = False
    device: torch.device | None = None
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.info: VideoInfo | None = None
        with contextlib.suppress(ImageError), open_video(self.path) as reader:
            self.info = reader.info

    @property
    def count(self) -> int:
        """Number of frames, often an estimate; 0 if unknown."""
        return self.info.frame_count if self.info else 0

    @property
    def fps(self) -> float | None:
        """Mean frames per second."""
        return self.info.fps if self.info else DEFAULT_FPS

    @property
    def files(self) -> list[tuple[str, Path]]:
        """The file under its name."""
        return [(self.name, self.path)]

    def __iter__(self) -> Iterator[SourceFrame]:
        """Yield the frames in order; add to `failures` if the video cannot be read in full."""
        try:
            if self.device is not None:
                reader: DeviceReader | VideoReader = DeviceReader(self.path, self.device)
            else:
                reader = open_video(self.path, hardware=self.hardware)
        except ImageError as error:
            self.failures.append(str(error))
            return
        with reader:
            for frame in reader:
                name = f"{frame.number:06d}"
                yield SourceFrame(name, frame.image, frame.number, frame.time_s, frame.duration_s)
        if reader.failure:
            self.failures.append(reader.failure)


Source = Images | Video | Live
"""Iterates over `SourceFrame`.

`name` names the folders and files of the results; `files` are the paths, each with a name;
`count` is the number of frames, 0 if unknown; `fps` is frames per second, None for images;
`failures`, complete after iterating, has a line for each file that could not be read in full.
"""


def find_sources(
    arguments: Sequence[str],
    out: Path | None = None,
    *,
    stretch: Stretch | None = None,
    hardware: bool = False,
    device: torch.device | None = None,
    live: LiveOptions | None = None,
    limit: int | None = None,
) -> list[Source]:
    """Turn the command's arguments into sources: one for all images, one for each video.

    Args:
        arguments: Image and video files, folders, globs, camera numbers, stream addresses.
        out: Folder of the results, which is not searched.
        stretch: How images of more than 8 bits are read, see `read_image`.
        hardware: Decode videos on a GPU that can.
        device: See `Video`.
        live: How cameras and streams are read.
        limit: Most frames of each of those.

    Returns:
        The sources, each with a different name.

    Raises:
        ImageError: An argument matches nothing that can be read.
    """
    addresses = list(dict.fromkeys(a for a in arguments if is_live(a)))
    unique: dict[Path, Input] = {}
    for argument in arguments:
        for entry in () if is_live(argument) else find_inputs(argument, out):
            unique.setdefault(real_path(entry.path), entry)
    files = _name_files(list(unique.values()))
    images = [(name, path) for name, path in files if not is_video(path)]
    named = [a for a in arguments if not is_live(a)]
    folders = [Images(_name_of(named), images, stretch)] if images else []
    videos = [Video(name, path, hardware, device) for name, path in files if is_video(path)]
    lives = [Live(address, live or LiveOptions(), limit) for address in addresses]
    _tell_apart([*folders, *lives], {video.name for video in videos})
    return [*folders, *videos, *lives]


def _tell_apart(sources: Sequence[Images | Live], taken: set[str]) -> None:
    """Append numbers to duplicate names."""
    for source in sources:
        wanted, number = source.name, 2
        while source.name in taken:
            source.name, number = f"{wanted}-{number}", number + 1
        taken.add(source.name)


def _name_files(files: Sequence[Input]) -> list[tuple[str, Path]]:
    """Name files relative to their roots, or to their common folder if names collide."""
    paths = [entry.path for entry in files]
    names = [entry.name.as_posix() for entry in files]
    if len(set(names)) < len(names):
        absolute = [Path(os.path.abspath(path)) for path in paths]
        common = os.path.commonpath([path.parent for path in absolute])
        names = [path.relative_to(common).as_posix() for path in absolute]
    return list(zip(names, paths, strict=True))


def _name_of(arguments: Sequence[str]) -> str:
    first = Path(arguments[0])
    return (first.name if os.path.isdir(first) else first.stem.replace("*", "")) or "images"
