"""Training steps recorded as CUDA graphs, one for each size of crops, replayed in one launch.

A step has several thousand operators. Launched one by one they take longer than a GPU needs. What
differs from step to step is read from tensors (`PassInputs`, learning rates), and what a step
changes stays where it is in memory, so that a replay is a step.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from rainmer.errors import first_line
from rainmer.stage.graphs import CudaGraphs, Recording, Work
from rainmer.train.boxes import CropBoxes

__all__ = ["CudaStepEngine", "Pace", "PassInputs", "StepEngine", "StepGraphs"]

_EAGER_STEPS = 3
"""Steps of a size before it is recorded: kernels are loaded and states of optimisers made."""

_AHEAD = 2

_log = logging.getLogger(__name__)

_Names = TypeVar("_Names")


class PassInputs(NamedTuple):
    """What differs from one forward and backward pass to the next, all of it on the device.

    Attributes:
        rainy: (B K, 3, C, C), uint8, as of `Batch`.
        clean: (B K, 3, C, C), uint8.
        query: (B, 3, S, S), uint8.
        query_clean: (B, 3, S, S), uint8.
        blurred: (B, N, 3, S, S), uint8.
        signature: Signature (B, 3, 32) of the rain, if there is a degradation view.
        entries: Where the archives take the batch (B,), if there are views.
        flips: What `draw_flips` gives, if there are views that are flipped.
        boxes: Objects in the crops, if there are any; such passes are not recorded.
    """

    rainy: Tensor
    clean: Tensor
    query: Tensor
    query_clean: Tensor
    blurred: Tensor
    signature: Tensor | None = None
    entries: Tensor | None = None
    flips: Tensor | None = None
    boxes: CropBoxes | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All but the boxes, in order."""
        return [part for part in self if isinstance(part, Tensor)]


class Pace:
    """Lets the processor run two steps ahead of a GPU, but no more.

    The GPU never lacks work then, and the clock of a run limited by time tells its steps, not those
    that were only launched.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ends: deque[torch.cuda.Event] = deque()

    def end_step(self) -> None:
        """Note the end of a step; wait for the end of the one before the last."""
        # Blocking: the processor is free for those that load samples.
        end = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        end.record(torch.cuda.current_stream(self._device))
        self._ends.append(end)
        if len(self._ends) > _AHEAD:
            self._ends.popleft().synchronize()


Step = Callable[[Sequence[PassInputs]], tuple[Tensor, _Names]]
"""Changes weights; returns one tensor of values, and what they are, alike for inputs of a shape."""


class StepEngine(Protocol):
    """What records and replays a step."""

    def record(self, work: Work, inputs: Sequence[Tensor]) -> Recording:
        """Record work on copies of the inputs, without changing anything yet."""

    def reset(self) -> None:
        """Free the memory of recordings, none of which is held any more."""


class CudaStepEngine(CudaGraphs):
    """CUDA graphs of steps.

    Args:
        device: A CUDA device.
    """

    def record(self, work: Work, inputs: Sequence[Tensor]) -> Recording:
        """Capture work; see `StepEngine`."""
        return self.capture(work, inputs, run_first=False)


class StepGraphs:
    """Replays steps whose shapes of inputs come back, and runs the others as they are.

    Where recording fails, steps run as they are from then on, with one warning.

    Args:
        engine: What records; None: everything runs as it is.
        clean_up: Called after a failure: undoes what the recorded step left behind on the host.
    """

    def __init__(self, engine: StepEngine | None, clean_up: Callable[[], None]) -> None:
        self._engine = engine
        self._clean_up = clean_up
        self._met: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, tuple[Recording, object]] = {}
        self.replays = 0
        """Steps that were replayed."""

    @property
    def active(self) -> bool:
        """Whether anything will be recorded."""
        return self._engine is not None

    @property
    def steps_before(self) -> int:
        """How many steps of a size come before the first that is replayed."""
        return _EAGER_STEPS if self.active else 0

    def run(self, step: Step[_Names], passes: Sequence[PassInputs]) -> tuple[Tensor, _Names]:
        """Do a step; see `Step`."""
        if self._engine is None or any(inputs.boxes is not None for inputs in passes):
            return step(passes)
        tensors = [tensor for inputs in passes for tensor in inputs.tensors]
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
        if key not in self._recorded and not self._record(key, step, passes, tensors):
            return step(passes)
        recording, names = self._recorded[key]
        for copy, given in zip(recording.inputs, tensors, strict=True):
            copy.copy_(given)
        recording.replay()
        self.replays += 1
        return recording.outputs[0].clone(), names  # type: ignore[return-value]

    def clear(self) -> None:
        """Drop all recordings, because what steps change has moved in memory."""
        self._met.clear()
        self._recorded.clear()
        if self._engine is not None:
            self._engine.reset()

    def _record(
        self, key: Hashable, step: Step[_Names], passes: Sequence[PassInputs], tensors: list[Tensor]
    ) -> bool:
        """Record a step unless its shape is still new; return whether it can be replayed."""
        self._met[key] += 1
        if self._engine is None or self._met[key] <= _EAGER_STEPS:
            return False
        found: list[_Names] = []

        def work(*copies: Tensor) -> tuple[Tensor, ...]:
            left = iter(copies)
            values, names = step([_filled(inputs, left) for inputs in passes])
            found.append(names)
            return (values,)

        try:
            recording = self._engine.record(work, tensors)
        except Exception as error:  # noqa: BLE001 (the step runs as it is, and raises its own errors)
            self._clean_up()
            self.clear()
            self._engine = None
            _log.warning("no CUDA graph of training steps, going on without: %s", first_line(error))
            return False
        self._recorded[key] = recording, found[0]
        return True


def _filled(inputs: PassInputs, tensors: Iterator[Tensor]) -> PassInputs:
    """Return inputs with other tensors in place of theirs."""
    return PassInputs._make(next(tensors) if isinstance(p, Tensor) else p for p in inputs)
