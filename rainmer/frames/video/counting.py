"""Numbers and times of the frames of a video, damaged ones included."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Clock", "Numbering"]

_DAMAGE_NAMED = 5
_JUMP_S = 1.0  # a step back by more is a new clock, not a single wrong time


class Numbering:
    """Numbers frames in the order in which they are shown.

    Every packet is expected to give a frame. One that does not is damaged if its decoder has
    complained since the last key frame; otherwise it is one that is never shown.

    Args:
        seconds: Turns a time stamp into seconds.

    Attributes:
        next: Number of the next frame.
    """

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.next = 0
        self._seconds = seconds
        self._expected: list[int] = []  # a heap of time stamps
        self._is_damaged = False
        self._unplaced = 0  # damaged frames without a time stamp
        self._last: int | None = None
        self._named: list[str] = []

    def expect(self, pts: int) -> None:
        """Note a packet by its time stamp, before it is decoded."""
        heapq.heappush(self._expected, pts)

    def note_damage(self, pts: int | None) -> None:
        """Note that the decoder could not read a packet, or marked its frame as damaged."""
        self._is_damaged = True
        if pts is None:
            self._unplaced += 1
        elif pts not in self._expected:
            heapq.heappush(self._expected, pts)

    def is_misplaced(self, pts: int | None) -> bool:
        """Return whether a frame comes too late: without its references the order is lost."""
        return self._is_damaged and None not in (pts, self._last) and pts <= self._last  # type: ignore[operator]

    def number(self, pts: int | None, *, is_key: bool) -> int:
        """Return the number of a whole frame, after those of the damaged frames before it."""
        self._number_damaged(pts)
        self._is_damaged = self._is_damaged and not is_key
        self._last = pts
        self.next += 1
        return self.next - 1

    def damage(self) -> str | None:
        """Return, after the last frame, how many are damaged and which; None: none."""
        self._number_damaged(None)
        count = len(self._named)
        if not count:
            return None
        more = f" and {count - _DAMAGE_NAMED} more" if count > _DAMAGE_NAMED else ""
        named = ", ".join(self._named[:_DAMAGE_NAMED])
        return f"{count} damaged frame{'s' * (count > 1)} left out: {named}{more}"

    def _number_damaged(self, before: int | None) -> None:
        for _ in range(self._unplaced):
            self._name(self._last)
        self._unplaced = 0
        while self._expected and (before is None or self._expected[0] <= before):
            pts = heapq.heappop(self._expected)
            if self._is_damaged and pts != before:
                self._name(pts)

    def _name(self, pts: int | None) -> None:
        place = "" if pts is None else f" ({self._seconds(pts):.3f} s)"
        self._named.append(f"{self.next}{place}")
        self.next += 1


class Clock:
    """Keeps the times of frames rising.

    Attributes:
        now_s: Time of the last frame.
        moved: Number of times that did not rise.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.moved = 0
        self._shift_s = 0.0
        self._is_running = False

    def tick(self, raw_s: float | None, step_s: float) -> float:
        """Return the time of the next frame.

        Args:
            raw_s: Its time by the file; None: unknown.
            step_s: Time between two frames.
        """
        if not self._is_running:
            self._is_running = True
            self.now_s = raw_s or 0.0
        elif raw_s is None:
            self.now_s += step_s
        elif raw_s + self._shift_s < self.now_s - _JUMP_S:  # recordings joined end to end
            self._shift_s = self.now_s + step_s - raw_s
            self.now_s += step_s
            self.moved += 1
        elif raw_s + self._shift_s <= self.now_s:
            self.now_s += step_s / 10
            self.moved += 1
        else:
            self.now_s = raw_s + self._shift_s
        return self.now_s
