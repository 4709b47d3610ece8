"""How much work and memory all requests together may take."""

from __future__ import annotations

from types import TracebackType

from fastapi import HTTPException

__all__ = ["BUSY_AFTER_S", "Budget", "Share"]

BUSY_AFTER_S = 1
"""When those who were refused may come again, in s."""


class Budget:
    """Images and bytes that are in the server at a time. Only the event loop's thread uses it.

    Args:
        images: Most images.
        memory: Most bytes.
    """

    def __init__(self, images: int, memory: int) -> None:
        self.most = (images, memory)
        self.images = self.memory = 0

    def share(self) -> Share:
        """Return the share of a request, still empty; use it as a context manager."""
        return Share(self)

    @property
    def is_full(self) -> bool:
        """Whether no further image has room."""
        return self.images >= self.most[0]


class Share:
    """What one request takes of a budget, given back once its answer is on its way."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._images = self._memory = 0

    def take(self, images: int = 0, memory: int = 0) -> None:
        """Take more.

        Raises:
            HTTPException: There is not so much left: 503, with the time to wait.
        """
        budget = self._budget
        if budget.images + images > budget.most[0] or budget.memory + memory > budget.most[1]:
            raise HTTPException(
                503,
                "the server has no room for this now; come again",
                {"Retry-After": str(BUSY_AFTER_S)},
            )
        budget.images += images
        budget.memory += memory
        self._images += images
        self._memory += memory

    def give_images(self) -> None:
        """Give the images back: they are computed, and only their answer takes memory."""
        self._budget.images -= self._images
        self._images = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_images()
        self._budget.memory -= self._memory
        self._memory = 0
