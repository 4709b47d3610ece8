"""A run of the command: images in batches of one size, videos frame by frame."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rainmer.background import consume, ordered_map, prefetch
from rainmer.derain.jobs import Job, mark_partial
from rainmer.device import frames_at_once, usable_cpus
from rainmer.errors import ImageError, SpecError
from rainmer.frames.arrays import Frame
from rainmer.frames.images import read_image, write_image
from rainmer.frames.levels import Stretch
from rainmer.frames.video import VideoFrame, VideoReader, VideoWriter, is_video, open_video
from rainmer.frames.video.options import VideoOptions
from rainmer.stage import Derainer
from rainmer.stage.gate import GateState
from rainmer.stage.results import PrecomputedResults

__all__ = ["Run"]

_MOST_THREADS = 4  # for decoding, and as many for encoding


class Run:
    """Derains files, with decoding and encoding in threads, and counts them.

    Args:
        derainer: The stage, or precomputed results, which exist for images only.
        video: How videos are read and written.
        side_by_side: Write rainy and derained next to each other.
        quiet: No progress bar.

    Attributes:
        images, videos, frames: Number of derained images, videos and video frames.
        failures: One line for each input that could not be read to its end.
        derainer_seconds: Time within the derainer.
    """

    def __init__(
        self,
        derainer: Derainer | PrecomputedResults,
        video: VideoOptions,
        *,
        side_by_side: bool,
        quiet: bool,
    ) -> None:
        self.images = self.videos = self.frames = 0
        self.failures: list[str] = []
        self.derainer_seconds = 0.0
        self._derainer = derainer
        self._gate = derainer.gate if isinstance(derainer, Derainer) else None
        self._video = video
        self._side_by_side = side_by_side
        self._quiet = quiet
        self._threads = min(_MOST_THREADS, usable_cpus())
        self._seconds = 0.0
        self._stretch: Stretch | None = None

    def process(self, jobs: Sequence[Job], stretch: Stretch | None = None) -> None:
        """Derain the images and then the videos.

        Args:
            jobs: What to derain.
            stretch: How images of more than 8 bits are read, see `read_image`.

        Raises:
            OutputError: A result cannot be written.
            RainmerError: The derainer fails.
        """
        images = [job for job in jobs if not is_video(job.source)]
        videos = [job for job in jobs if is_video(job.source)]
        self._stretch = stretch
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
        if self._gate is not None:
            text += f"; the gate {self._gate.summary()}"
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
        for batch in _batches_of_one_size(images, self._at_once):
            frames = [frame for _, frame in batch]
            derained = self._derain(frames, [job for job, _ in batch])
            for (job, _), frame in zip(batch, derained, strict=True):
                yield job.target, frame

    def _read_images(self, jobs: Sequence[Job], progress: tqdm[Any]) -> Iterator[tuple[Job, Frame]]:
        """Decode images in order, some ahead; add a line to `failures` for each that fails."""
        ahead = self._derainer.batch + self._threads

        def read(job: Job) -> Frame:
            return read_image(job.source, self._stretch)

        reading = ordered_map(read, jobs, self._threads, ahead, errors=(ImageError,))
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
        options, before = self._video, self.frames
        with open_video(job.source, hardware=options.hardware_decoding) as video:
            progress.total = (progress.total or 0) + video.frame_count
            progress.refresh()
            height, width = video.size_hw
            with VideoWriter(
                job.target,
                fps=video.fps,
                size_hw=(height, 2 * width if self._side_by_side else width),
                source=video.info,
                codec=options.codec,
                crf=options.crf,
            ) as writer:

                def write(item: tuple[VideoFrame, Frame]) -> None:
                    frame, derained = item
                    writer.write(derained, frame.time_s, frame.duration_s)
                    self.frames += 1
                    progress.update()

                consume(self._derained(video), write, 2 * self._derainer.batch)
            progress.total += self.frames - before - video.frame_count  # an estimate until now
            if video.failure:
                self.failures.append(video.failure)
                mark_partial(job)

    def _derained(self, video: VideoReader) -> Iterator[tuple[VideoFrame, Frame]]:
        """Derain a video's frames in batches, while the next ones are decoded."""
        size, state = self._at_once(video.size_hw), GateState()
        with contextlib.closing(prefetch(video, 2 * size)) as frames:
            while batch := list(itertools.islice(frames, size)):
                derained = self._derain([frame.image for frame in batch], state=state)
                yield from zip(batch, derained, strict=True)

    def _at_once(self, size_hw: tuple[int, int]) -> int:
        device = None if isinstance(self._derainer, PrecomputedResults) else self._derainer.device
        return frames_at_once(self._derainer.batch, size_hw, device)

    def _derain(
        self, frames: list[Frame], jobs: Sequence[Job] = (), state: GateState | None = None
    ) -> list[Frame]:
        start = time.perf_counter()
        if isinstance(self._derainer, PrecomputedResults):
            derained = self._derainer(frames, [job.name.as_posix() for job in jobs])
        elif self._gate is not None:
            decisions = self._gate.decide(frames, [state] * len(frames))
            derained = self._derainer(frames, decisions=decisions)
        else:
            derained = self._derainer(frames)
        self.derainer_seconds += time.perf_counter() - start
        if not self._side_by_side:
            return derained
        return [np.concatenate(pair, axis=1) for pair in zip(frames, derained, strict=True)]


def _batches_of_one_size(
    images: Iterable[tuple[Job, Frame]], at_once: Callable[[tuple[int, int]], int]
) -> Iterator[list[tuple[Job, Frame]]]:
    """Collect images of equal shape into batches; at most two full ones wait at a time.

    Args:
        images: The images.
        at_once: Number of images of a size in a batch.
    """
    waiting: dict[tuple[int, int], list[tuple[Job, Frame]]] = {}
    for job, frame in images:
        size_hw = (frame.shape[0], frame.shape[1])
        alike = waiting.setdefault(size_hw, [])
        alike.append((job, frame))
        size = at_once(size_hw)
        if len(alike) == size:
            yield waiting.pop(size_hw)
        elif sum(map(len, waiting.values())) >= 2 * size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
