"""Batches in the order of the run, loaded ahead by threads.

Threads, not processes: decoding, resizing and rendering release the GIL, and threads share one
cache. The order and content of batches do not depend on the number of threads.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from rainmer.errors import DatasetError, ImageError
from rainmer.train.config import Stage
from rainmer.train.mixture import Batch, Mixture, Sample, SampleShape

__all__ = ["Loader", "sample_shape"]

_AHEAD = 3
_LEAST_FAILURES = 3  # a few broken files of a small set are tolerated
_RESERVE = 1 << 40  # offset of the sample numbers that replace unreadable ones

_log = logging.getLogger(__name__)


def sample_shape(stage: Stage, query: int, negatives: int) -> SampleShape:
    """Return the sizes of a stage's samples."""
    return SampleShape(stage.crop, stage.crops_per_frame, query, negatives)


class Loader:
    """Loads the batches of a training run.

    Args:
        mixture: The mixture of sources.
        threads: Number of loading threads; 0: batches are loaded in the calling thread.
        rank: Rank of this process.
        world: Number of processes that share every batch.
        max_unreadable: Share of samples that may be unreadable.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        threads: int = 2,
        rank: int = 0,
        world: int = 1,
        max_unreadable: float = 0.01,
    ) -> None:
        self.mixture = mixture
        self.failures: dict[str, str] = {}
        """Errors by unreadable image."""
        self._rank, self._world = rank, world
        self._max_unreadable = max_unreadable
        self._pool = ThreadPoolExecutor(threads, initializer=_one_thread) if threads else None

    def batches(self, numbers: Iterable[range], shape: SampleShape) -> Generator[Batch, None, None]:
        """Load the batches of these sample numbers; each process loads its part of every batch.

        Raises:
            DatasetError: Too many samples are unreadable.
        """
        waiting: deque[list[Future[Sample]] | range] = deque()
        for batch in numbers:
            waiting.append(self._submit(batch, shape))
            if len(waiting) > _AHEAD:
                yield self._collect(waiting.popleft(), shape)
        while waiting:
            yield self._collect(waiting.popleft(), shape)

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _submit(self, batch: range, shape: SampleShape) -> list[Future[Sample]] | range:
        share = len(batch) // self._world
        numbers = batch[self._rank * share : (self._rank + 1) * share]
        if self._pool is None:
            return numbers
        return [self._pool.submit(self._load, number, shape) for number in numbers]

    def _collect(self, batch: list[Future[Sample]] | range, shape: SampleShape) -> Batch:
        if isinstance(batch, range):
            return Batch.of([self._load(number, shape) for number in batch])
        return Batch.of([future.result() for future in batch])

    def _load(self, number: int, shape: SampleShape) -> Sample:
        """Load a sample, or a replacement if it is unreadable."""
        for attempt in range(100):
            try:
                sample = self.mixture.sample(number + attempt * _RESERVE, shape)
            except ImageError as error:
                self._note(self.mixture.describe(number + attempt * _RESERVE), str(error))
            else:
                return sample
        raise DatasetError("100 images in a row cannot be read")

    def _note(self, image: str, problem: str) -> None:
        if image not in self.failures:
            _log.warning("skipped: %s", problem)
        self.failures[image] = problem
        limit = max(_LEAST_FAILURES, self._max_unreadable * self._images)
        if len(self.failures) > limit:
            raise DatasetError(
                f"{len(self.failures)} of {self._images} images cannot be trained on, more than "
                f"{self._max_unreadable:.0%}; the last one: {problem}"
            )

    @property
    def _images(self) -> int:
        return sum(map(len, self.mixture.sources))


def _one_thread() -> None:
    # The training uses all CPUs: loading threads must not start teams of their own.
    torch.set_num_threads(1)
