"""Batches in the order of the run, loaded ahead by threads or by processes.

The order and content of batches depend on neither number. Threads share one cache, and decoding,
resizing and rendering release the GIL; but between those Python's share of a sample is serial, so
that a GPU needs processes. They are torch's own (`DataLoader`), and each loads parts of batches, so
that the first batch of a run or of a stage does not take as long as one process needs for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from rainmer.device import usable_cpus
from rainmer.errors import DatasetError, ImageError, RainmerError
from rainmer.train.config import DataConfig, Stage
from rainmer.train.mixture import Batch, Mixture, Sample, SampleShape
from rainmer.train.recipes import Recipes
from rainmer.train.rendering import render_ahead

__all__ = ["Loader", "loader_processes", "sample_shape"]

Kept = TypeVar("Kept")

_AHEAD = 3
_PART = 8  # samples that a process loads at a time
_LEAST_FAILURES = 3  # a few broken files of a small set are tolerated
_RESERVE = 1 << 40  # offset of the sample numbers that replace unreadable ones
_ATTEMPTS = 100
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT_BYTES = 1 << 25  # the most that glibc takes as a threshold

_log = logging.getLogger(__name__)


def sample_shape(stage: Stage, query: int, negatives: int, classes: int = 0) -> SampleShape:
    """Return the sizes of a stage's samples."""
    return SampleShape(stage.crop, stage.crops_per_frame, query, negatives, classes)


def loader_processes(config: DataConfig, device: torch.device) -> int:
    """Return how many processes load samples; 0: threads do.

    By "auto" a GPU gets all usable CPUs but one, shared with the training processes of the same
    machine. Training on a CPU leaves none idle.
    """
    if config.processes != "auto":
        return config.processes
    if device.type == "cpu":
        return 0
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, (usable_cpus() - 1) // here)


class _Read(NamedTuple):
    """A batch or a part, and the errors by unreadable image; no batch after too many errors.

    Where a device renders, recipes take the place of batches.
    """

    batch: Batch | Recipes | None
    failures: dict[str, str]


class Loader:
    """Loads the batches of a training run.

    Args:
        mixture: The mixture of sources.
        threads: Number of loading threads; 0: batches are loaded in the calling thread.
        processes: Number of loading processes, which take the place of the threads.
        pin: Give batches in pinned memory, from which a GPU copies while it computes.
        rank: Rank of this process.
        world: Number of processes that share every batch.
        max_unreadable: Share of samples that may be unreadable.
        renders_on: The device that renders rain and cuts samples; None: loading does it.
        windows: About how many windows it renders at a time, if it is a GPU.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        threads: int = 2,
        processes: int = 0,
        pin: bool = False,
        rank: int = 0,
        world: int = 1,
        max_unreadable: float = 0.01,
        renders_on: torch.device | None = None,
        windows: int = 512,
    ) -> None:
        self.mixture = mixture
        self.failures: dict[str, str] = {}
        """Errors by unreadable image."""
        self._rank, self._world, self._pin = rank, world, pin
        self._images = sum(map(len, mixture.sources))
        self._max_unreadable = max_unreadable
        self._most = max(_LEAST_FAILURES, max_unreadable * self._images)
        self._renders_on, self._windows = renders_on, windows
        self._load = partial(_read_sample, mixture, most=self._most, rendered=renders_on is None)
        self._pool = self._workers = None
        if processes:
            self._workers = _Processes(_Parts(mixture, self._load), processes)
        elif threads:
            self._pool = ThreadPoolExecutor(threads, initializer=_one_thread)

    def batches(self, numbers: Iterable[range], shape: SampleShape) -> Generator[Batch, None, None]:
        """Load the batches of these sample numbers; each training process loads its share of them.

        Loading processes begin at once; what an earlier call began, they leave.

        Raises:
            DatasetError: Too many samples are unreadable.
            RainmerError: A loading process has died.
        """
        items = ((self._own(batch), shape) for batch in numbers)
        reads = self._read(items) if self._workers is None else self._workers(items)
        if self._renders_on is None:
            return self._checked(reads, Batch.join)
        recipes = self._checked(reads, Recipes.join)
        return render_ahead(recipes, shape, self._renders_on, self._windows)

    def _checked(
        self, reads: Iterator[Sequence[_Read]], join: Callable[..., Kept]
    ) -> Generator[Kept, None, None]:
        for parts in reads:
            batches = []
            for read in parts:
                for image, problem in read.failures.items():
                    self.note(image, problem)
                if read.batch is None:
                    raise DatasetError(f"{_ATTEMPTS} images in a row cannot be read")
                batches.append(read.batch)
            yield join(batches, pin=self._pin)

    def close(self) -> None:
        """Stop the threads or processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._workers is not None:
            self._workers.close()

    def _own(self, batch: range) -> range:
        share = len(batch) // self._world
        return batch[self._rank * share : (self._rank + 1) * share]

    def _read(self, items: Iterator[tuple[range, SampleShape]]) -> Iterator[Sequence[_Read]]:
        load = self._load
        waiting: deque[list[Future[_ReadSample]]] = deque()
        for batch, shape in items:
            if self._pool is None:
                yield [_joined(load(number, shape) for number in batch)]
                continue
            waiting.append([self._pool.submit(load, number, shape) for number in batch])
            if len(waiting) > _AHEAD:
                yield [_joined(future.result() for future in waiting.popleft())]
        while waiting:
            yield [_joined(future.result() for future in waiting.popleft())]

    def note(self, image: str, problem: str) -> None:
        """Count an image that is left out, and warn the first time.

        Raises:
            DatasetError: There are too many.
        """
        if image not in self.failures:
            _log.warning("skipped: %s", problem)
        self.failures[image] = problem
        if len(self.failures) > self._most:
            raise DatasetError(
                f"{len(self.failures)} of {self._images} images cannot be trained on, more than "
                f"{self._max_unreadable:.0%}; the last one: {problem}"
            )


class _ReadSample(NamedTuple):
    sample: Sample | Recipes | None
    failures: dict[str, str]


def _read_sample(
    mixture: Mixture, number: int, shape: SampleShape, *, most: float, rendered: bool
) -> _ReadSample:
    """Load a sample, or a replacement if it is unreadable; give up after too many failures."""
    load = mixture.sample if rendered else mixture.recipe
    failures: dict[str, str] = {}
    for attempt in range(_ATTEMPTS):
        chosen = number + attempt * _RESERVE
        try:
            return _ReadSample(load(chosen, shape), failures)
        except ImageError as error:
            failures[mixture.describe(chosen)] = str(error)
        if len(failures) > most:
            break
    return _ReadSample(None, failures)


def _joined(samples: Iterable[_ReadSample]) -> _Read:
    failures: dict[str, str] = {}
    read: list[Sample] = []
    recipes: list[Recipes] = []
    for sample, own in samples:
        failures.update(own)
        if sample is None:
            return _Read(None, failures)
        if isinstance(sample, Sample):
            read.append(sample)
        else:
            recipes.append(sample)
    return _Read(Batch.of(read) if read else Recipes.join(recipes), failures)


def _one_thread() -> None:
    # The training uses all CPUs: loading threads must not start teams of their own.
    torch.set_num_threads(1)


class _Parts(Dataset[Any]):
    """Reads parts of batches in a loading process, by their sample numbers and shape."""

    def __init__(self, mixture: Mixture, load: Callable[..., _ReadSample]) -> None:
        self.mixture, self._load = mixture, load
        self.turn = torch.zeros((), dtype=torch.int64)
        self.turn.share_memory_()  # type: ignore[no-untyped-call]
        """Which reading is wanted: processes leave what they load for an earlier one."""

    def __getitem__(self, item: tuple[int, range, SampleShape]) -> _Read | RainmerError | None:
        turn, numbers, shape = item
        samples = []
        try:
            for number in numbers:
                if self.turn.item() != turn:
                    return None
                samples.append(self._load(number, shape))
            return _joined(samples)
        except RainmerError as error:  # raised again where the batch is used, in one line
            return error


class _Items(Sampler[Any]):
    """What the processes are to read; it changes from stage to stage, and they stay."""

    def __init__(self) -> None:
        self.coming: Iterator[Any] = iter(())

    def __iter__(self) -> Iterator[Any]:
        return self.coming


class _Processes:
    """Loading processes.

    They come from a server process that has torch imported, not from this one: they start quickly,
    and hold nothing of CUDA. What they render for several visits they share in a folder.
    """

    def __init__(self, parts: _Parts, count: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rainmer-renderings-")
        for number, source in enumerate(parts.mixture.sources):
            source.share(Path(self._folder.name) / str(number))
        self._items = _Items()
        self._turn = parts.turn
        flushed = sys.float_info.min / 2 == 0.0
        self._loader = DataLoader(
            parts,
            batch_size=None,
            sampler=self._items,
            num_workers=count,
            collate_fn=_as_it_is,
            worker_init_fn=partial(_start, flushed=flushed),
            multiprocessing_context=_context(),
            generator=torch.Generator(),  # or it would draw from the one of the training
            persistent_workers=True,
        )
        # The server answers when it has imported torch: meanwhile the caller may go on.
        self._starter = ThreadPoolExecutor(1)
        self._running: Future[Any] | None = None

    def __call__(self, items: Iterator[tuple[range, SampleShape]]) -> Iterator[list[_Read]]:
        """Begin to read; return an iterator over the parts of each item, in the order of items."""
        self._turn += 1
        turn = int(self._turn)
        counts: deque[int] = deque()  # parts of the batches that were begun

        def parts() -> Iterator[tuple[int, range, SampleShape]]:
            for numbers, shape in items:
                starts = range(0, len(numbers), _PART)
                counts.append(len(starts))
                yield from ((turn, numbers[start : start + _PART], shape) for start in starts)

        self._items.coming = parts()
        self._running = self._starter.submit(iter, self._loader)
        return self._results(self._running, counts)

    def _results(self, running: Future[Any], counts: deque[int]) -> Iterator[list[_Read]]:
        with _deaths_in_one_line():
            results = running.result()
            while counts:
                reads = [next(results) for _ in range(counts.popleft())]
                for read in reads:
                    if isinstance(read, RainmerError):
                        raise read
                yield reads

    def close(self) -> None:
        """End the processes, and remove what they shared."""
        self._turn += 1
        self._starter.shutdown()
        if self._running is not None and self._running.exception() is None:
            # torch would do it when the last reference goes, which an exception may keep alive.
            self._running.result()._shutdown_workers()
        with contextlib.suppress(OSError):
            self._folder.cleanup()


def _context() -> Any:  # noqa: ANN401 (contexts of the start methods have no common public class)
    """Return what starts processes; a server, where there can be one, starts to import now."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    # With what the command imports, or each process would import it again.
    context.set_forkserver_preload([__name__, "rainmer.train.run"])
    forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _deaths_in_one_line() -> Iterator[None]:
    """Turn the errors by which a dead process shows itself into one of one line."""
    try:
        yield
    except (RuntimeError, EOFError, OSError) as error:
        # torch notices a death by itself, or its queue breaks in the middle of a batch. What a
        # process raises arrives as "Caught ...", and is no death.
        reason = str(error).partition("\n")[0] or "its connection broke"
        if isinstance(error, RuntimeError) and "worker (pid" not in reason:
            raise
        if reason.startswith("Caught"):
            raise
        raise RainmerError(
            f"a process that loads samples has died ({reason}): if memory or /dev/shm was "
            "full, lower data.processes; the same command resumes"
        ) from error


def _as_it_is(read: Kept) -> Kept:
    return read


def _start(worker: int, *, flushed: bool) -> None:
    """Prepare a loading process: Ctrl-C is for the training, which ends its processes itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_flush_denormal(flushed)
    _keep_memory()


def _keep_memory() -> None:
    """Keep freed memory for the next maps, where the C library can.

    Rendering a window of 288 pixels frees and takes 10 MB again, 2,700 page faults. On virtual
    machines and in sandboxes a page fault may cost ten times what it does elsewhere.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, 8 * _KEPT_BYTES)
