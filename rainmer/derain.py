"""`python -m rainmer.derain INPUT ... --out DIR`: derain images, folders and videos.

Files are decoded and encoded by a few threads beside the derainer, which is then what takes the
time. The same command continues an interrupted run: a hidden record in the output folder says which
derainer its files are of, and files newer than the record and than their input are left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rainmer.background import consume, prefetch
from rainmer.cli import (
    add_stage_options,
    make_parser,
    positive_int,
    run_command,
    stage_options,
)
from rainmer.errors import ImageError, OutputError, SpecError
from rainmer.files import make_folder, write_text
from rainmer.frames import IMAGE_SUFFIXES, Frame, read_image, write_image
from rainmer.inputs import find_inputs, raise_failures, real_path
from rainmer.specs import DEFAULT_DERAINER, SPEC_HELP
from rainmer.stage import Derainer
from rainmer.video import WRITABLE_SUFFIXES, VideoWriter, is_video, open_video

__all__ = ["main"]

RECORD_NAME = ".derain.json"
"""File in the output folder that says which derainer its results are of."""

_THREADS = min(4, os.cpu_count() or 1)
_EXAMPLE = """\
  python -m rainmer.derain rainy/ drive.mp4 --out derained
  python -m rainmer.derain 'shots/**/*.jpg' --out derained --derain median --side-by-side"""


@dataclasses.dataclass(frozen=True)
class Job:
    """A file to derain.

    Attributes:
        source: The rainy image or video.
        name: Its path below the folder or the fixed part of the glob it was found by.
        target: Where the result goes.
    """

    source: Path
    name: Path
    target: Path


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: The arguments; None takes those of the process.

    Raises:
        RainmerError: A mistake in the arguments, or a result that cannot be written. At the end
            also when some inputs could not be read to their end; all other results are kept.
    """
    options = _parse(argv)
    jobs = find_jobs(options.input, options.out, options.suffix)[: options.limit]
    derainer = Derainer(options.derain, **stage_options(options))
    due = _due_jobs(jobs, options, derainer)
    run = Run(derainer, side_by_side=options.side_by_side, quiet=options.quiet)
    run.process(due)
    print(run.summary(options.out, unchanged=len(jobs) - len(due)))
    raise_failures(run.failures, len(due))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "python -m rainmer.derain",
        "Derain images, folders (with their subfolders) and videos. Results keep the size, the "
        "name and the folder structure of their inputs. Videos lose their sound; a video type "
        "without an encoder becomes .mp4.",
        _EXAMPLE,
    )
    parser.add_argument(
        "input", nargs="+", metavar="INPUT", help="image, video, folder, or a glob in quotes"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    parser.add_argument(
        "--derain",
        default=DEFAULT_DERAINER,
        metavar="SPEC",
        help=f"what derains: one of {SPEC_HELP}; default: {DEFAULT_DERAINER}",
    )
    parser.add_argument(
        "--suffix", type=_image_suffix, help="type of the results of images; default: the input's"
    )
    parser.add_argument(
        "--side-by-side", action="store_true", help="write rainy and derained next to each other"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace all existing files of these names"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N files")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_stage_options(parser)
    return parser.parse_args(argv)


def _image_suffix(text: str) -> str:
    suffix = f".{text.lower().lstrip('.')}"
    if suffix not in IMAGE_SUFFIXES:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise argparse.ArgumentTypeError(f"{text!r} is no image type: use one of {known}")
    return suffix


# --- what to do -----------------------------------------------------------------------------------


def find_jobs(inputs: Sequence[str], out: Path, suffix: str | None = None) -> list[Job]:
    """Find the files to derain and where their results go.

    Args:
        inputs: Files, folders (searched with their subfolders, hidden ones and `out` left out), and
            globs.
        out: Folder of the results.
        suffix: Suffix of the results of images; None keeps each input's.

    Returns:
        In the order of the inputs, sorted within each; a file that is found twice is taken once.

    Raises:
        ImageError: An input does not exist, or holds no image and no video.
        OutputError: Two results would have the same name, or one would replace an input.
    """
    jobs: dict[Path, Job] = {}
    for text in inputs:
        if os.path.isdir(text) and real_path(Path(text)) == real_path(out):
            raise OutputError(f"--out is the input folder {text} itself: choose another folder")
        for found in find_inputs(text, out):
            target = out / found.name.with_suffix(_target_suffix(found.path, suffix))
            jobs.setdefault(real_path(found.path), Job(found.path, found.name, target))
    by_target: dict[Path, Job] = {}
    for job in jobs.values():
        target = real_path(job.target)
        if target in jobs:
            raise OutputError(
                f"the result of {job.source} would replace the input {job.target}: "
                "choose another folder for --out"
            )
        other = by_target.setdefault(target, job)
        if other is not job:
            raise OutputError(
                f"{other.source} and {job.source} would both become {job.target}: "
                "derain them into different folders"
            )
    return list(jobs.values())


def _target_suffix(source: Path, suffix: str | None) -> str:
    if not is_video(source):
        return suffix or source.suffix
    return source.suffix if source.suffix.lower() in WRITABLE_SUFFIXES else ".mp4"


def _due_jobs(jobs: list[Job], options: argparse.Namespace, derainer: Derainer) -> list[Job]:
    """Return the jobs that this derainer has not done yet, the way it is asked to now.

    Raises:
        OutputError: The folder has a file of a result's name, but no record that it is a result.
    """
    record = make_folder(options.out) / RECORD_NAME
    taken = next((job.target for job in jobs if os.path.exists(job.target)), None)
    if taken and not record.is_file() and not options.overwrite:
        raise OutputError(
            f"{taken} exists and is not a result of this command: choose another folder for --out, "
            "or add --overwrite"
        )
    content = json.dumps(
        {"derainer": derainer.fingerprint, "side_by_side": options.side_by_side}, indent=2
    )
    if options.overwrite or not record.is_file() or record.read_bytes() != content.encode():
        write_text(record, content)
    since = record.stat().st_mtime_ns
    return [job for job in jobs if not _is_done(job, since)]


def _is_done(job: Job, since: int) -> bool:
    with contextlib.suppress(OSError):
        done = job.target.stat().st_mtime_ns
        return done >= since and done >= job.source.stat().st_mtime_ns
    return False


# --- doing it -------------------------------------------------------------------------------------


class Run:
    """Derains files with decoding and encoding beside it, and counts.

    Args:
        derainer: The stage.
        side_by_side: Write rainy and derained next to each other.
        quiet: No progress bar.

    Attributes:
        images, videos, frames: Number of images, of videos, and of the videos' frames derained.
        failures: One line for each input that could not be read to its end.
        derainer_seconds: Time within the derainer.
    """

    def __init__(self, derainer: Derainer, *, side_by_side: bool, quiet: bool) -> None:
        self.images = self.videos = self.frames = 0
        self.failures: list[str] = []
        self.derainer_seconds = 0.0
        self._derainer = derainer
        self._side_by_side = side_by_side
        self._quiet = quiet
        self._seconds = 0.0

    def process(self, jobs: Sequence[Job]) -> None:
        """Derain the images and then the videos.

        Raises:
            OutputError: A result cannot be written.
            RainmerError: The derainer cannot do this.
        """
        images = [job for job in jobs if not is_video(job.source)]
        videos = [job for job in jobs if is_video(job.source)]
        start = time.perf_counter()
        # On an interruption the pool still writes what is derained.
        with (
            ThreadPoolExecutor(_THREADS) as pool,
            tqdm(total=len(images), unit="frame", disable=self._quiet or not jobs) as progress,
        ):
            self._process_images(images, pool, progress)
            for job in videos:
                try:
                    self._process_video(job, progress)
                    self.videos += 1
                except ImageError as error:
                    self.failures.append(str(error))
        self._seconds = time.perf_counter() - start

    def summary(self, out: Path, *, unchanged: int) -> str:
        """Return what was done in one line."""
        done = [_count(self.images, "image")]
        if self.videos or self.frames:
            done.append(f"{_count(self.videos, 'video')} of {_count(self.frames, 'frame')}")
        text = f"derained {' and '.join(done)} by {self._derainer.name} in {self._seconds:.1f} s"
        if frames := self.images + self.frames:
            text += f", {1000 * self.derainer_seconds / frames:.1f} ms per image in the derainer"
        if unchanged:
            text += f"; {unchanged} done before (--overwrite does them again)"
        return f"{text}; results in {out}"

    def _process_images(
        self, jobs: Sequence[Job], pool: ThreadPoolExecutor, progress: tqdm[Any]
    ) -> None:
        writing: deque[Future[None]] = deque()
        size = self._derainer.batch
        for batch in _batches_of_one_size(self._read_ahead(jobs, pool, progress), size):
            frames = [frame for _, frame in batch]
            derained = self._derain(frames, [job.name.as_posix() for job, _ in batch])
            for (job, _), frame in zip(batch, derained, strict=True):
                writing.append(pool.submit(write_image, job.target, frame))
            while len(writing) > size:
                self._finish_image(writing.popleft(), progress)
        for future in writing:
            self._finish_image(future, progress)

    def _finish_image(self, writing: Future[None], progress: tqdm[Any]) -> None:
        writing.result()
        self.images += 1
        progress.update()

    def _read_ahead(
        self, jobs: Sequence[Job], pool: ThreadPoolExecutor, progress: tqdm[Any]
    ) -> Iterator[tuple[Job, Frame]]:
        """Decode the images of jobs in order, some ahead of their use; note those that fail."""
        coming = iter(jobs)
        waiting: deque[tuple[Job, Future[Frame]]] = deque()
        while True:
            for job in itertools.islice(coming, self._derainer.batch + _THREADS - len(waiting)):
                waiting.append((job, pool.submit(read_image, job.source)))
            if not waiting:
                return
            job, reading = waiting.popleft()
            try:
                frame = reading.result()
            except ImageError as error:
                self.failures.append(str(error))
                progress.update()
            else:
                yield job, frame

    def _process_video(self, job: Job, progress: tqdm[Any]) -> None:
        if self._derainer.needs_names:
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
        """Derain a video's frames in batches, while those that come are decoded."""
        size = self._derainer.batch
        with contextlib.closing(prefetch(video, 2 * size)) as frames:
            while batch := list(itertools.islice(frames, size)):
                yield from self._derain(batch, None)

    def _derain(self, frames: list[Frame], names: list[str] | None) -> list[Frame]:
        start = time.perf_counter()
        derained = self._derainer(frames, names)
        self.derainer_seconds += time.perf_counter() - start
        if not self._side_by_side:
            return derained
        return [np.concatenate(pair, axis=1) for pair in zip(frames, derained, strict=True)]


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


if __name__ == "__main__":
    run_command(main)
