"""Learning rates: cosine cycles, and steps at milestones.

Source: section 2.4 of the training protocol of Rainmer (cosine annealing with restarts).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rainmer.errors import ConfigError

__all__ = ["Cycle", "cyclic_cosine", "step_decay"]


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """One cycle of the schedule.

    Attributes:
        steps: Its length in optimiser steps.
        lowest: Learning rate at its end.
        weight: Factor on the amplitude above `lowest`: 1 starts at the full rate.
    """

    steps: int
    lowest: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"a cycle has {self.steps} steps, but must have at least 1")


def cyclic_cosine(
    iteration: float,
    highest: float,
    cycles: Sequence[Cycle],
    *,
    accumulate: int = 1,
    extra: int = 0,
) -> float:
    """Return the learning rate of an iteration.

    `lowest + weight (highest - lowest) (1 + cos(pi (t - start) / length)) / 2`. The last
    iteration of a cycle has its lowest rate.

    Args:
        iteration: Count t of forward passes, from 1 on; 0 gives the rate before the first. In a run
            limited by time it stands between two passes.
        highest: Learning rate at the start of a cycle of weight 1.
        cycles: The cycles, in optimiser steps.
        accumulate: Forward passes of an optimiser step: cycles are longer by this factor.
        extra: Forward passes added to every cycle (the published code adds a first stage to each).

    Raises:
        ConfigError: The cycles end before this iteration.

    Example:
        >>> cyclic_cosine(50, 2e-4, [Cycle(steps=100, lowest=0.0)])
        0.0001
    """
    start = 0
    for cycle in cycles:
        length = cycle.steps * accumulate + extra
        if iteration <= start + length:
            progress = (iteration - start) / length
            swing = cycle.weight * (highest - cycle.lowest)
            return cycle.lowest + swing * (1 + math.cos(math.pi * progress)) / 2
        start += length
    raise ConfigError(f"the learning rate is not defined beyond iteration {start}: add a cycle")


def step_decay(
    iteration: float,
    highest: float,
    milestones: Sequence[int],
    factor: float,
    *,
    accumulate: int = 1,
) -> float:
    """Return the learning rate of an iteration: multiplied by a factor after each milestone.

    Args:
        iteration: Count of forward passes, from 1 on.
        highest: Learning rate before the first milestone.
        milestones: Optimiser steps after which the rate falls.
        factor: Factor at each milestone.
        accumulate: Forward passes of an optimiser step.

    Example:
        >>> step_decay(11, 1.0, [10, 20], 0.5), step_decay(21, 1.0, [10, 20], 0.5)
        (0.5, 0.25)
    """
    passed = sum(iteration > milestone * accumulate for milestone in milestones)
    return float(highest * factor**passed)
