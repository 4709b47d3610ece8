"""Annotated frames of each source, saved as images or as a video."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from detection.draw import draw_detections, draw_note, side_by_side
from detection.pipeline import Processed
from detection.run.records import RECORD_NAME
from detection.run.sources import Images, Source, Video
from detection.types import Detections
from detection.yolo.letterbox import place
from rainmer.errors import OutputError
from rainmer.frames.arrays import Frame
from rainmer.frames.formats import result_suffix
from rainmer.frames.images import write_image
from rainmer.frames.inputs import real_path
from rainmer.frames.video import VideoWriter
from rainmer.frames.video.options import VideoOptions
from rainmer.stage.gate import Decision

__all__ = ["Saver", "annotated", "count_boxes", "note", "refuse_clashes"]


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
        return folder / "images" / Path(name).with_suffix(result_suffix(name))
    return folder / Path(name).with_suffix(".mp4")


class Saver(contextlib.ExitStack):
    """Writes annotated frames: images under their names, videos as one file.

    A video has the size of its first frame; frames of other sizes are fitted into it. Times, sound
    and subtitles are those of the source. As a context manager, it closes the video.

    Args:
        source: The source of the frames.
        derainer: Name of the derainer, for captions.
        names: Class names by label.
        folder: The folder of the run.
        video: How videos are written.
        whole: All frames of the source will come.
    """

    def __init__(
        self,
        source: Source,
        derainer: str,
        names: dict[int, str],
        folder: Path,
        *,
        video: VideoOptions,
        whole: bool,
    ) -> None:
        super().__init__()
        self._source = source
        self._derainer = derainer
        self._names = names
        self._folder = folder
        self._options = video
        self._whole = whole
        self._video: VideoWriter | None = None

    def save(self, processed: Processed, in_rainy: Detections | None) -> None:
        """Draw and write a frame, beside the rainy frame if detections in that are given."""
        picture = annotated(processed, in_rainy, self._names, self._derainer)
        if self._source.fps is None:
            write_image(_saved_file(self._source, processed.name, self._folder), picture)
            return
        if self._video is None:
            source = self._source.info if isinstance(self._source, Video) else None
            self._video = self.enter_context(
                VideoWriter(
                    _saved_file(self._source, self._source.name, self._folder),
                    fps=self._source.fps,
                    size_hw=(picture.shape[0], picture.shape[1]),
                    source=source,
                    whole=self._whole,
                    codec=self._options.codec,
                    crf=self._options.crf,
                )
            )
        picture = _fitted(picture, self._video.size_hw)
        self._video.write(picture, processed.time_s, processed.duration_s)


def annotated(
    processed: Processed, in_rainy: Detections | None, names: dict[int, str], derainer: str
) -> Frame:
    """Draw a frame's detections, beside the rainy frame if detections in that are given.

    Args:
        processed: The frame.
        in_rainy: Detections in the rainy frame, or None.
        names: Class names by label.
        derainer: Name of the derainer, for captions.
    """
    picture = draw_detections(processed.derained, processed.detections, names, processed.tracks)
    if processed.decision is not None:
        picture = draw_note(picture, note(processed.decision))
    if in_rainy is None:
        return picture
    captions = [
        f"rainy: {count_boxes(len(in_rainy))}",
        f"{derainer}: {count_boxes(len(processed.detections))}",
    ]
    return side_by_side([draw_detections(processed.frame, in_rainy, names), picture], captions)


def note(decision: Decision) -> str:
    """Return what the meter read and the gate decided, as a line on the picture."""
    reading = decision.reading
    light = "night" if reading.night > 0.5 else "day"
    done = "derained" if decision.derain else "passed"
    rain = f"rain {reading.rain:.0%}, {reading.rate_mm_h:.0f} mm/h"
    return f"{done}: {rain}, drops {reading.drops:.0%}, {light}"


def _fitted(frame: Frame, size_hw: tuple[int, int]) -> Frame:
    """Fit a frame to a video's size: scale and centre on black."""
    if frame.shape[:2] == size_hw:
        return frame
    placement = place((frame.shape[0], frame.shape[1]), size_hw)
    canvas = np.zeros((*size_hw, 3), np.uint8)
    canvas[placement.content] = cv2.resize(frame, placement.size_hw[::-1])
    return canvas


def count_boxes(count: int) -> str:
    """Return "1 box", "2 boxes", ...."""
    return f"{count} box" if count == 1 else f"{count} boxes"
