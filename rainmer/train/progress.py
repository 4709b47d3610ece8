"""What a call of a training run shows of its steps: a bar, and a line about the time left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from rainmer.train.timetable import Timetable

__all__ = ["Progress"]

_SETTLED, _PACED = 10, 20  # steps, whose median is the pace: the first ones take longer
_SMOOTHING = 0.05  # of the bar's rate, so that a validation or a save does not shake the time left

_log = logging.getLogger(__name__)


class Progress:
    """The progress of one call: its rate and the time left are those of this call.

    The bar starts at the steps that earlier calls have done, and ends with this call; a run of
    minutes shows these in place of an end.

    Args:
        timetable: Of the run.
        end: The step at which this call ends; None: the clock decides.
        quiet: Show nothing.
        now: A clock, in seconds.
    """

    def __init__(
        self,
        timetable: Timetable,
        end: int | None,
        *,
        quiet: bool,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timetable, self._end, self._now = timetable, end, now
        self._first, self._times = timetable.step, [now()]
        self.bar = tqdm(
            total=end, initial=timetable.step, desc=timetable.config.name, unit="step",
            smoothing=_SMOOTHING, disable=quiet, dynamic_ncols=True,
        )  # fmt: skip

    def update(self) -> None:
        """Count a step; after some steps of a call say once how long the others will take."""
        self.bar.update()
        if self.bar.disable or self._end is None:
            return
        done, left = self._timetable.step - self._first, self._end - self._timetable.step
        if done <= _PACED:
            self._times.append(self._now())
        if done == _PACED and left:
            # The median: a validation or a save in between is no step.
            step_s = float(np.median(np.diff(self._times[_SETTLED:])))
            _log.info("%.2g s a step: about %s left at this pace", step_s, _spoken(step_s * left))

    def show(self, loss: float) -> None:
        """Show the loss beside the bar, and the minutes if the run is limited by them."""
        minutes, values = self._timetable.config.minutes, {"loss": f"{loss:.4f}"}
        if minutes is not None:
            values["minutes"] = f"{self._timetable.elapsed_s / 60:.1f} of {minutes:g}"
        self.bar.set_postfix(values, refresh=False)


def _spoken(seconds: float) -> str:
    """Return hours and minutes, at least one.

    >>> _spoken(4), _spoken(59 * 60 + 40), _spoken(9000)
    ('1 min', '1 h 0 min', '2 h 30 min')
    """
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
