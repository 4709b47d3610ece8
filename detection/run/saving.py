"""Annotated frames of each source, saved as images or as a video."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from detection.draw import draw_detections, side_by_side
from detection.pipeline import Processed
from detection.run.records import RECORD_NAME
from detection.run.sources import Images, Source
from detection.types import Detections
from detection.yolo.letterbox import place
from rainmer.errors import OutputError
from rainmer.frames.arrays import Frame
from rainmer.frames.images import write_image
from rainmer.frames.inputs import real_path
from rainmer.frames.video import VideoWriter

__all__ = ["Saver", "count_boxes", "refuse_clashes"]


def refuse_clashes(sources: Sequence[Source], folder: Path) -> None:
    """Check that saved results do not replace each other, an input or an unrelated file.

    Raises:
        OutputError: They would; the message names the file.
    """
    inputs = {real_path(path) for source in sources for _, path in source.files}
    is_ours = (folder / RECORD_NAME).is_file()
    by_target: dict[Path, Path] = {}
    for path, target in _saved_files(sources, folder):
        if real_path(target) in inputs:
            raise OutputError(
                f"the result of {path} would replace the input {target}: "
                "choose another folder for --out"
            )
        if not is_ours and os.path.lexists(target):
            raise OutputError(
                f"{target} exists and is not a result of this command: choose another folder for "
                "--out"
            )
        other = by_target.setdefault(target, path)
        if other is not path:
            raise OutputError(
                f"{other} and {path} would both become {target}: run the command on each alone, "
                "with different folders for --out"
            )


def _saved_files(sources: Sequence[Source], folder: Path) -> Iterator[tuple[Path, Path]]:
    for source in sources:
        for name, path in source.files:
            yield path, _saved_file(source, name, folder)


def _saved_file(source: Source, name: str, folder: Path) -> Path:
    """Return the path of an annotated image, or of the video for other sources."""
    if isinstance(source, Images):
        return folder / "images" / name
    return folder / Path(name).with_suffix(".mp4")


class Saver(contextlib.ExitStack):
    """Writes annotated frames: images under their names, videos as one file.

    A video has the size of its first frame; frames of other sizes are fitted into it. As a context
    manager, it closes the video.

    Args:
        source: The source of the frames.
        derainer: Name of the derainer, for captions.
        names: Class names by label.
        folder: The folder of the run.
    """

    def __init__(
        self,
        source: Source,
        derainer: str,
        names: dict[int, str],
        folder: Path,
    ) -> None:
        super().__init__()
        self._source = source
        self._derainer = derainer
        self._names = names
        self._folder = folder
        self._video: VideoWriter | None = None

    def save(self, processed: Processed, in_rainy: Detections | None) -> None:
        """Draw and write a frame, beside the rainy frame if detections in that are given."""
        picture = self._compose(processed, in_rainy)
        if self._source.fps is None:
            write_image(_saved_file(self._source, processed.name, self._folder), picture)
            return
        if self._video is None:
            picture = _with_even_sides(picture)
            path = _saved_file(self._source, self._source.name, self._folder)
            size_hw = (picture.shape[0], picture.shape[1])
            self._video = self.enter_context(
                VideoWriter(path, fps=self._source.fps, size_hw=size_hw)
            )
        self._video.write(_fitted(picture, self._video.size_hw))

    def _compose(self, processed: Processed, in_rainy: Detections | None) -> Frame:
        names = self._names
        annotated = draw_detections(processed.derained, processed.detections, names)
        if in_rainy is None:
            return annotated
        captions = [
            f"rainy: {count_boxes(len(in_rainy))}",
            f"{self._derainer}: {count_boxes(len(processed.detections))}",
        ]
        return side_by_side(
            [draw_detections(processed.frame, in_rainy, names), annotated], captions
        )


def _with_even_sides(frame: Frame) -> Frame:
    """Repeat the last row or column where a side is odd: video codecs need even ones."""
    odd_rows, odd_columns = frame.shape[0] % 2, frame.shape[1] % 2
    return np.pad(frame, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")


def _fitted(frame: Frame, size_hw: tuple[int, int]) -> Frame:
    """Fit a frame to a video's size: pad odd sides, or scale and centre on black."""
    if frame.shape[:2] == size_hw:
        return frame
    frame = _with_even_sides(frame)
    if frame.shape[:2] == size_hw:
        return frame
    placement = place((frame.shape[0], frame.shape[1]), size_hw)
    canvas = np.zeros((*size_hw, 3), np.uint8)
    canvas[placement.content] = cv2.resize(frame, placement.size_hw[::-1])
    return canvas


def count_boxes(count: int) -> str:
    """Return "1 box", "2 boxes", ...."""
    return f"{count} box" if count == 1 else f"{count} boxes"
