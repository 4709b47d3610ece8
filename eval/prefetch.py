"""Reading ahead: images are decoded in a thread while earlier ones are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["read_ahead"]

_AHEAD = 2  # batches loaded while one is computed

_Item = TypeVar("_Item")
_Loaded = TypeVar("_Loaded")


def read_ahead(load: Callable[[_Item], _Loaded], items: Iterable[_Item]) -> Iterator[_Loaded]:
    """Yield `load(item)` of each item in order, a bounded number of them made in advance."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: deque[Future[_Loaded]] = deque()
        for item in items:
            waiting.append(pool.submit(load, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
