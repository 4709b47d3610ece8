"""Work of the stage recorded as CUDA graphs, one for each shape of input, replayed in one launch.

A fused network has several hundred operators. Launched one by one they take longer than a GPU needs
for a single frame; a graph launches them together and computes the same bits.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rainmer.errors import first_line, is_out_of_memory

__all__ = ["MOST_GRAPHS", "CudaEngine", "CudaGraphs", "Engine", "Graphs", "Recording", "Work"]

MOST_GRAPHS = 12
"""Graphs kept per stage; the least recently used one goes."""

_MOST_BYTES = 2 << 30  # of the inputs and outputs of all graphs of a stage
_MOST_MET = 256  # shapes remembered
_log = logging.getLogger(__name__)

Work = Callable[..., tuple[Tensor, ...]]
_Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Recording:
    """Recorded work, and the memory that it reads and writes whenever it is replayed.

    Attributes:
        inputs: To be filled before a replay.
        outputs: Valid until the next replay of any recording of the engine.
        replay: Computes the outputs.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    replay: Callable[[], None]

    @property
    def size(self) -> int:
        """Memory of inputs and outputs in bytes; what lies between is shared."""
        return sum(tensor.nbytes for tensor in (*self.inputs, *self.outputs))


class Engine(Protocol):
    """What records and replays. `Graphs` calls it by one thread at a time."""

    def record(self, work: Work, inputs: tuple[Tensor, ...]) -> Recording:
        """Run work once on copies of the inputs, so that kernels are loaded, then record it."""

    def wait(self) -> None:
        """Let what the calling thread does next on the device wait for what `done` closed."""

    def done(self) -> None:
        """Close what the calling thread did on the device."""

    def reset(self) -> None:
        """Free the memory of recordings, none of which is held any more."""


class CudaGraphs:
    """A stream on which CUDA graphs are captured, and a pool of memory that they share.

    A capture forbids only its own thread what breaks one.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, work: Work, inputs: Sequence[Tensor], *, run_first: bool) -> Recording:
        """Capture work on copies of the inputs.

        Args:
            work: See `Graphs.run`.
            inputs: Tensors on the device.
            run_first: Whether to run it once before, so that its kernels are loaded.
        """
        stream, current = self._stream, torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        # The outer context restores the stream even where the end of a failed capture raises.
        with torch.cuda.stream(stream):
            copies = tuple(torch.empty_like(given).copy_(given) for given in inputs)
            if run_first:
                work(*copies)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
            ):
                outputs = work(*copies)
        current.wait_stream(stream)
        return Recording(copies, outputs, graph.replay)

    def reset(self) -> None:
        """Give the memory back, and start another pool: a pool cannot be used after its end."""
        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()


class CudaEngine(CudaGraphs):
    """CUDA graphs of inference.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._done: torch.cuda.Event | None = None

    def record(self, work: Work, inputs: tuple[Tensor, ...]) -> Recording:
        """Run work on the engine's stream, then capture it there; see `Engine`."""
        # Inputs must be ordinary tensors: nothing may write to those of the inference mode later.
        with torch.inference_mode(False), torch.no_grad():
            return self.capture(work, inputs, run_first=True)

    def wait(self) -> None:
        """Let the current stream wait for the last use of the shared memory."""
        if self._done is not None:
            torch.cuda.current_stream(self._device).wait_event(self._done)

    def done(self) -> None:
        """Mark the end of a use of the shared memory."""
        self._done = torch.cuda.current_stream(self._device).record_event()


class Graphs:
    """Runs work as recorded where its shape of input comes back, and as it is otherwise.

    A shape is recorded the second time that it is met: sizes that change with every frame never
    are. One whose recording had to make room for another's waits twice as long each time, so that
    many sizes in turn spend their time on frames. Where recording fails, work runs as it is, with
    one warning; if only memory was lacking, other shapes may still be recorded.

    Threads may share it. They replay one after the other, since recordings share their memory; the
    results are copies, each thread's own.

    Args:
        engine: What records; None: everything runs as it is.
        most: Maximum number of recordings.
    """

    def __init__(self, engine: Engine | None = None, most: int = MOST_GRAPHS) -> None:
        self._engine = engine
        self._most = most
        self._recorded: OrderedDict[_Key, Recording] = OrderedDict()
        # By shape: how often it must still be met, and how often it had to be at first.
        self._met: OrderedDict[_Key, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._holder: int | None = None  # the thread that records or replays at the moment
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._recorded)

    @property
    def active(self) -> bool:
        """Whether anything will be recorded."""
        return self._engine is not None

    def run(self, label: Hashable, work: Work, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute `work(*inputs)`.

        Args:
            label: What the work is, apart from the shapes and types of its inputs.
            work: A function that does the same operations for all inputs of one shape, waits for
                nothing, and leaves its inputs as they are. Work that is a part of other work is
                recorded with it.
            inputs: Tensors on one device.

        Raises:
            Whatever the work raises.
        """
        if self._engine is None or self._holder == threading.get_ident():
            return work(*inputs)
        key = (label, *((tuple(given.shape), given.dtype) for given in inputs))
        with self._lock:
            self._holder = threading.get_ident()
            try:
                recording = self._recording(key, work, inputs)
                if recording is not None:
                    return self._replay(recording, inputs)
            finally:
                self._holder = None
        return work(*inputs)

    def clear(self) -> None:
        """Drop all recordings and give their memory back. Shapes must be met again."""
        with self._lock:
            self._met.clear()
            self._drop_all()

    def _recording(self, key: _Key, work: Work, inputs: tuple[Tensor, ...]) -> Recording | None:
        if key in self._recorded:
            self._recorded.move_to_end(key)
            return self._recorded[key]
        return self._record(key, work, inputs) if self._is_due(key) else None

    def _is_due(self, key: _Key) -> bool:
        """Count a meeting with a shape; tell whether it is to be recorded now."""
        left, patience = self._met.pop(key, (1, 1))
        self._met[key] = (left - 1, patience)
        if len(self._met) > _MOST_MET:
            self._met.popitem(last=False)
        return left <= 0

    def _record(self, key: _Key, work: Work, inputs: tuple[Tensor, ...]) -> Recording | None:
        engine = self._engine
        if engine is None:  # switched off while this thread waited for the lock
            return None
        try:
            engine.wait()
            recording = engine.record(work, inputs)
            engine.done()
        except Exception as error:  # noqa: BLE001 (run as it is, work raises its own errors again)
            self._drop_all()
            if is_out_of_memory(error):
                self._met[key] = (math.inf, math.inf)
            else:
                self._engine = None
            self._warn(error)
            return None
        self._recorded[key] = recording
        # Only now: a pool without any graph could not take another.
        while len(self._recorded) > self._most or (len(self._recorded) > 1 and self._is_large()):
            dropped, _ = self._recorded.popitem(last=False)
            patience = 2 * self._met.get(dropped, (1, 1))[1]
            self._met[dropped] = (patience, patience)
        return recording

    def _is_large(self) -> bool:
        return sum(recording.size for recording in self._recorded.values()) > _MOST_BYTES

    def _replay(self, recording: Recording, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert self._engine is not None
        self._engine.wait()
        for copy, given in zip(recording.inputs, inputs, strict=True):
            copy.copy_(given)
        recording.replay()
        results = tuple(output.clone() for output in recording.outputs)
        self._engine.done()
        return results

    def _drop_all(self) -> None:
        self._recorded.clear()
        if self._engine is not None:
            self._engine.reset()

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning("no CUDA graph, going on without: %s", first_line(error))
