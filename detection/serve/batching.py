"""One thread that computes, and jobs that wait for it in batches."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from detection.serve.engine import Answer, Engine, Kind
from detection.serve.metrics import Metrics
from rainmer.errors import RainmerError
from rainmer.frames.arrays import Frame
from rainmer.stage.gate import GateState

__all__ = ["Batcher", "Job"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Job:
    """A frame that waits.

    Attributes:
        kind: What is to be done.
        frame: (H, W, 3), uint8, RGB.
        name: Of the frame.
        state: Of its stream's gate; None: it belongs to none.
        done: Its answer, later. Cancelling it takes the job out, unless it has begun.
    """

    kind: Kind
    frame: Frame
    name: str = ""
    state: GateState | None = None
    done: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[object, ...]:
        """What jobs of one batch have in common."""
        return self.kind, self.frame.shape


class Batcher:
    """Computes jobs in the order of their arrival, those of one kind and size together.

    The thread takes the oldest job and all like it, as many as make a batch; if they are fewer, it
    waits for others until the oldest has waited `wait_s`. The networks belong to this thread from
    their warm-up on. How many jobs may wait is limited by those who submit them.

    Args:
        engine: The networks.
        wait_s: Longest time in s that a job waits for company while the thread has nothing to do.
        metrics: Where batches and times are counted.

    Attributes:
        ready: Set when the networks are warm.
        failure: The error that the warm-up ended with.
    """

    def __init__(self, engine: Engine, wait_s: float, metrics: Metrics) -> None:
        self._engine = engine
        self._wait_s = wait_s
        self._metrics = metrics
        self._waiting: deque[Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="networks", daemon=True)
        self.ready = threading.Event()
        self.failure: Exception | None = None
        metrics.queue.set_function(lambda: len(self._waiting))

    def start(self) -> None:
        """Warm up, then compute; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Compute what waits, then end the thread."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, job: Job) -> Future[Answer]:
        """Let a job wait for its turn.

        Raises:
            RainmerError: The batcher is closed, or the networks cannot be used.
        """
        with self._change:
            if self._closed:
                raise RainmerError("the server is shutting down")
            self._waiting.append(job)
            self._change.notify_all()
        return job.done

    def _work(self) -> None:
        try:
            self._engine.warm_up()
        except Exception as error:  # noqa: BLE001 - told by the command, which ends
            self.failure = error
            with self._change:
                self._closed = True
        else:
            self.ready.set()
        while jobs := self._next_batch():
            if self.failure is not None:
                _fail(jobs, self.failure)
            else:
                self._compute(jobs)

    def _next_batch(self) -> list[Job]:
        """Wait for jobs that are due; none: the batcher is closed."""
        with self._change:
            while True:
                if not self._waiting:
                    if self._closed:
                        return []
                    self._change.wait()
                    continue
                oldest = self._waiting[0]
                most = self._engine.at_once(oldest.frame.shape[:2])
                alike = [job for job in self._waiting if job.key == oldest.key][:most]
                left_s = oldest.since + self._wait_s - time.monotonic()
                if len(alike) >= most or left_s <= 0 or self._closed:
                    for job in alike:
                        self._waiting.remove(job)
                    return alike
                self._change.wait(left_s)

    def _compute(self, jobs: list[Job]) -> None:
        now = time.monotonic()
        jobs = [job for job in jobs if job.done.set_running_or_notify_cancel()]
        if not jobs:
            return
        for job in jobs:
            self._metrics.stage("queue", (now - job.since) * 1e3)
        self._metrics.batch.labels(jobs[0].kind).observe(len(jobs))
        try:
            answers = self._run(jobs)
        except Exception as error:  # noqa: BLE001 - told to those who wait
            self._compute_singly(jobs, error)
            return
        for job, answer in zip(jobs, answers, strict=True):
            for stage, elapsed_ms in answer.processed.stage_ms.items():
                self._metrics.stage(stage, elapsed_ms)
            job.done.set_result(answer)

    def _compute_singly(self, jobs: list[Job], error: Exception) -> None:
        """Find out which frame of a batch that failed is to blame: the others get their answers."""
        if len(jobs) == 1:
            _fail(jobs, error)
            return
        for job in jobs:
            try:
                job.done.set_result(self._run([job])[0])
            except Exception as own:  # noqa: BLE001 - told to the one who waits
                _fail([job], own)

    def _run(self, jobs: Sequence[Job]) -> list[Answer]:
        frames, names = [job.frame for job in jobs], [job.name for job in jobs]
        return self._engine(jobs[0].kind, frames, names, [job.state for job in jobs])


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    trace = not isinstance(error, RainmerError)
    _log.error("a frame of %s failed: %s", jobs[0].frame.shape, error, exc_info=trace)
    for job in jobs:
        if job.done.running() or job.done.set_running_or_notify_cancel():
            job.done.set_exception(error)
