"""What the command reads: images, folders, globs, videos, cameras and streams."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import cv2

from rainmer.errors import ImageError
from rainmer.frames import IMAGE_SUFFIXES, Frame, list_images, read_image, reverse_channels
from rainmer.video import DEFAULT_FPS, VIDEO_SUFFIXES, is_video, open_video

__all__ = ["Images", "Live", "Source", "Video", "find_sources"]


@dataclass
class Images:
    """Image files, each with the relative name that its result gets."""

    name: str
    files: list[tuple[str, Path]]
    fps: None = None
    skipped: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of files, readable or not."""
        return len(self.files)

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield what can be read; note what cannot."""
        for name, path in self.files:
            try:
                frame = read_image(path)
            except ImageError as error:
                self.skipped.append(str(error))
                continue
            yield name, frame


@dataclass
class Video:
    """A video file; its frames are named by their number."""

    path: Path
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        with open_video(self.path) as reader:
            self.fps: float | None = reader.fps
            self.count = reader.frame_count
        self.name = self.path.stem

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield the frames in order."""
        with open_video(self.path) as reader:
            for i, frame in enumerate(reader):
                yield f"{i:06d}", frame


@dataclass
class Live:
    """A camera by its number, or a stream by its address. It ends when it breaks off."""

    address: str
    count: int = 0
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        target = int(self.address) if self.address.isdecimal() else self.address
        self._capture = cv2.VideoCapture(target)
        if not self._capture.isOpened():
            kind = "camera" if self.address.isdecimal() else "stream"
            raise ImageError(f"cannot open the {kind} {self.address}: not there, or in use")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps < 1000 else DEFAULT_FPS
        self.name = f"live-{Path(self.address).stem}"

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
"""What frames come from, as pairs of name and frame (H, W, 3), uint8, RGB.

`name` is short, for folders and files; `count` the number of frames, 0 if unknown; `fps` frames
per second, None for images; `skipped` what could not be read, one line each.
"""


def find_sources(arguments: Sequence[str]) -> list[Source]:
    """Turn the command's arguments into sources: all images as one, each video for itself.

    Args:
        arguments: Image and video files, folders, globs, camera numbers, stream addresses.

    Raises:
        ImageError: An argument matches nothing that can be read.
    """
    live = [a for a in arguments if _is_live(a)]
    files = [found for a in arguments if not _is_live(a) for found in _find_files(a)]
    sources: list[Source] = []
    images = [(root, path) for root, path in files if not is_video(path)]
    if images:
        names = _relative_names(images)
        pairs = [(name, path) for name, (_, path) in zip(names, images, strict=True)]
        sources.append(Images(_name_of(arguments), pairs))
    sources += [Video(path) for _, path in files if is_video(path)]
    sources += [Live(address) for address in live]
    return sources


def _is_live(argument: str) -> bool:
    return "://" in argument or (argument.isdecimal() and not Path(argument).exists())


def _find_files(argument: str) -> list[tuple[Path, Path]]:
    """Return (root, file) pairs of a file, a folder or a glob."""
    path = Path(argument)
    if path.is_dir():
        videos = [p for p in path.rglob("*") if is_video(p) and p.is_file()]
        found = sorted({*list_images(path), *videos})
        if not found:
            raise ImageError(f"no images or videos in {path}")
        return [(path, p) for p in found]
    if path.is_file():
        if path.suffix.lower() not in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            raise ImageError(f"{path} is neither an image nor a video by its suffix")
        return [(path.parent, path)]
    matches = [Path(p) for p in sorted(glob.glob(argument, recursive=True))]
    found = [p for p in matches if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
    if not found:
        raise ImageError(f"no image, folder or video matches {argument}")
    root = Path(os.path.commonpath([p.parent for p in found]))
    return [(root, p) for p in found]


def _relative_names(files: Sequence[tuple[Path, Path]]) -> list[str]:
    """Name files relative to their roots, or to what is common to all where names collide."""
    names = [path.relative_to(root).as_posix() for root, path in files]
    if len(set(names)) == len(names):
        return names
    paths = [path.resolve() for _, path in files]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return [path.relative_to(common).as_posix() for path in paths]


def _name_of(arguments: Sequence[str]) -> str:
    first = Path(arguments[0])
    return (first.name if first.is_dir() else first.stem.replace("*", "")) or "images"
