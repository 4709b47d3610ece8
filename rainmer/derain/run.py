"""A run of the command: images in batches of one size, videos frame by frame."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rainmer.background import consume, ordered_map, prefetch
from rainmer.derain.jobs import Job
from rainmer.device import usable_cpus
from rainmer.errors import ImageError, SpecError
from rainmer.frames.arrays import Frame
from rainmer.frames.images import read_image, write_image
from rainmer.frames.video import VideoWriter, is_video, open_video
from rainmer.stage import Derainer
from rainmer.stage.results import PrecomputedResults

__all__ = ["Run"]

_MOST_THREADS = 4  # for decoding, and as many for encoding


class Run:
    """Derains files, with decoding and encoding in threads, and counts them.

    Args:
        derainer: The stage, or precomputed results, which exist for images only.
        side_by_side: Write rainy and derained next to each other.
        quiet: No progress bar.

    Attributes:
        images, videos, frames: Number of derained images, videos and video frames.
        failures: One line for each input that could not be read to its end.
        derainer_seconds: Time within the derainer.
    """

    def __init__(
        self, derainer: Derainer | PrecomputedResults, *, side_by_side: bool, quiet: bool
    ) -> None:
        self.images = self.videos = self.frames = 0
        self.failures: list[str] = []
        self.derainer_seconds = 0.0
        self._derainer = derainer
        self._side_by_side = side_by_side
        self._quiet = quiet
        self._threads = min(_MOST_THREADS, usable_cpus())
        self._seconds = 0.0

    def process(self, jobs: Sequence[Job]) -> None:
        """Derain the images and then the videos.

        Raises:
            OutputError: A result cannot be written.
            RainmerError: The derainer fails.
        """
        images = [job for job in jobs if not is_video(job.source)]
        videos = [job for job in jobs if is_video(job.source)]
        start = time.perf_counter()
        with tqdm(total=len(images), unit="frame", disable=self._quiet or not jobs) as progress:
            self._process_images(images, progress)
            for job in videos:
                try:
                    self._process_video(job, progress)
                    self.videos += 1
                except ImageError as error:
                    self.failures.append(str(error))
        self._seconds = time.perf_counter() - start

    def summary(self, out: Path, *, unchanged: int) -> str:
        """Return one line: how many files, by which derainer, and the time."""
        counts = [_count(self.images, "image")]
        if self.videos or self.frames:
            counts.append(f"{_count(self.videos, 'video')} of {_count(self.frames, 'frame')}")
        text = f"derained {' and '.join(counts)} by {self._derainer.name} in {self._seconds:.1f} s"
        if frames := self.images + self.frames:
            text += f", {1000 * self.derainer_seconds / frames:.1f} ms per image in the derainer"
        if unchanged:
            text += f"; {unchanged} done before (--overwrite does them again)"
        return f"{text}; results in {out}"

    def _process_images(self, jobs: Sequence[Job], progress: tqdm[Any]) -> None:
        # An interruption waits for the images that are derained but not yet written.
        writing = ordered_map(
            lambda result: write_image(*result),
            self._derained_images(jobs, progress),
            self._threads,
            self._derainer.batch + self._threads,
        )
        with contextlib.closing(writing):
            for _ in writing:
                self.images += 1
                progress.update()

    def _derained_images(
        self, jobs: Sequence[Job], progress: tqdm[Any]
    ) -> Iterator[tuple[Path, Frame]]:
        """Yield the targets of images with their content, in batches of one size."""
        images = self._read_images(jobs, progress)
        for batch in _batches_of_one_size(images, self._derainer.batch):
            frames = [frame for _, frame in batch]
            derained = self._derain(frames, [job for job, _ in batch])
            for (job, _), frame in zip(batch, derained, strict=True):
                yield job.target, frame

    def _read_images(self, jobs: Sequence[Job], progress: tqdm[Any]) -> Iterator[tuple[Job, Frame]]:
        """Decode images in order, some ahead; add a line to `failures` for each that fails."""
        ahead = self._derainer.batch + self._threads
        reading = ordered_map(_read, jobs, self._threads, ahead, errors=(ImageError,))
        with contextlib.closing(reading):
            for job, frame in reading:
                if isinstance(frame, ImageError):
                    self.failures.append(str(frame))
                    progress.update()
                else:
                    yield job, frame

    def _process_video(self, job: Job, progress: tqdm[Any]) -> None:
        if isinstance(self._derainer, PrecomputedResults):
            raise SpecError(f"{self._derainer.name} holds images: it cannot derain {job.source}")
        with open_video(job.source) as video:
            progress.total = (progress.total or 0) + video.frame_count
            progress.refresh()
            height, width = video.size_hw
            size_hw = (height, 2 * width if self._side_by_side else width)
            with VideoWriter(job.target, fps=video.fps, size_hw=size_hw) as writer:

                def write(frame: Frame) -> None:
                    writer.write(frame)
                    self.frames += 1
                    progress.update()

                consume(self._derained(video), write, 2 * self._derainer.batch)
            if video.early_end:
                self.failures.append(video.early_end)

    def _derained(self, video: Iterable[Frame]) -> Iterator[Frame]:
        """Derain a video's frames in batches, while the next ones are decoded."""
        size = self._derainer.batch
        with contextlib.closing(prefetch(video, 2 * size)) as frames:
            while batch := list(itertools.islice(frames, size)):
                yield from self._derain(batch)

    def _derain(self, frames: list[Frame], jobs: Sequence[Job] = ()) -> list[Frame]:
        start = time.perf_counter()
        if isinstance(self._derainer, PrecomputedResults):
            derained = self._derainer(frames, [job.name.as_posix() for job in jobs])
        else:
            derained = self._derainer(frames)
        self.derainer_seconds += time.perf_counter() - start
        if not self._side_by_side:
            return derained
        return [np.concatenate(pair, axis=1) for pair in zip(frames, derained, strict=True)]


def _read(job: Job) -> Frame:
    return read_image(job.source)


def _batches_of_one_size(
    images: Iterable[tuple[Job, Frame]], size: int
) -> Iterator[list[tuple[Job, Frame]]]:
    """Collect images of equal shape into batches; at most `2 * size` images wait at a time."""
    waiting: dict[tuple[int, ...], list[tuple[Job, Frame]]] = {}
    for job, frame in images:
        alike = waiting.setdefault(frame.shape, [])
        alike.append((job, frame))
        if len(alike) == size:
            yield waiting.pop(frame.shape)
        elif sum(map(len, waiting.values())) == 2 * size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
