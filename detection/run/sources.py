"""Sources of frames: images, folders, globs, videos, cameras and streams."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import cv2

from rainmer.errors import ImageError
from rainmer.frames.arrays import Frame, reverse_channels
from rainmer.frames.images import read_image
from rainmer.frames.inputs import Input, find_inputs, real_path
from rainmer.frames.video import DEFAULT_FPS, is_video, open_video

__all__ = ["Images", "Live", "Source", "Video", "find_sources"]

_CAMERA_DIGITS = 4


@dataclass
class Images:
    """Image files, each with the relative name of its result."""

    name: str
    files: list[tuple[str, Path]]
    fps: None = None
    failures: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of files, readable or not."""
        return len(self.files)

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield the readable files; add a line to `failures` for every other file."""
        for name, path in self.files:
            try:
                frame = read_image(path)
            except ImageError as error:
                self.failures.append(str(error))
                continue
            yield name, frame


@dataclass
class Video:
    """A video file; its frames are named by their number."""

    name: str
    path: Path
    count: int = 0
    fps: float | None = DEFAULT_FPS
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        with contextlib.suppress(ImageError), open_video(self.path) as reader:
            self.count, self.fps = reader.frame_count, reader.fps

    @property
    def files(self) -> list[tuple[str, Path]]:
        """The file under its name."""
        return [(self.name, self.path)]

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield the frames in order; add to `failures` if the video cannot be read in full."""
        try:
            reader = open_video(self.path)
        except ImageError as error:
            self.failures.append(str(error))
            return
        with reader:
            for i, frame in enumerate(reader):
                yield f"{i:06d}", frame
        if reader.early_end:
            self.failures.append(reader.early_end)


@dataclass
class Live:
    """A camera by its number, or a stream by its address; read until it breaks off."""

    address: str
    count: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        target = int(self.address) if self.address.isdecimal() else self.address
        self._capture = cv2.VideoCapture(target)
        if not self._capture.isOpened():
            kind = "camera" if self.address.isdecimal() else "stream"
            raise ImageError(f"cannot open the {kind} {self.address}: not there, or in use")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps < 1000 else DEFAULT_FPS
        self.name = f"live-{Path(self.address).stem.replace('.', '-')}"

    @property
    def files(self) -> list[tuple[str, Path]]:
        """The address under its name."""
        return [(self.name, Path(self.address))]

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield frames until the source ends."""
        number = 0
        try:
            while (read := self._capture.read())[0]:
                yield f"{number:06d}", reverse_channels(cast(Frame, read[1]))
                number += 1
        finally:
            self._capture.release()


Source = Images | Video | Live
"""Iterates over pairs of a name and a frame (H, W, 3), uint8, RGB.

`name` names the folders and files of the results; `files` are the paths, each with a name;
`count` is the number of frames, 0 if unknown; `fps` is frames per second, None for images;
`failures`, complete after iterating, has a line for each file that could not be read in full.
"""


def find_sources(arguments: Sequence[str], out: Path | None = None) -> list[Source]:
    """Turn the command's arguments into sources: one for all images, one for each video.

    Args:
        arguments: Image and video files, folders, globs, camera numbers, stream addresses.
        out: Folder of the results, which is not searched.

    Returns:
        The sources, each with a different name.

    Raises:
        ImageError: An argument matches nothing that can be read.
    """
    live = list(dict.fromkeys(a for a in arguments if _is_live(a)))
    unique: dict[Path, Input] = {}
    for argument in arguments:
        for entry in () if _is_live(argument) else find_inputs(argument, out):
            unique.setdefault(real_path(entry.path), entry)
    files = _name_files(list(unique.values()))
    images = [(name, path) for name, path in files if not is_video(path)]
    folders = [Images(_name_of(arguments), images)] if images else []
    videos = [Video(name, path) for name, path in files if is_video(path)]
    lives = [Live(address) for address in live]
    _tell_apart([*folders, *lives], {video.name for video in videos})
    return [*folders, *videos, *lives]


def _tell_apart(sources: Sequence[Images | Live], taken: set[str]) -> None:
    """Append numbers to duplicate names."""
    for source in sources:
        wanted, number = source.name, 2
        while source.name in taken:
            source.name, number = f"{wanted}-{number}", number + 1
        taken.add(source.name)


def _is_live(argument: str) -> bool:
    if argument.isdecimal() and len(argument) <= _CAMERA_DIGITS:
        return not os.path.exists(argument)
    return "://" in argument and "\0" not in argument


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
