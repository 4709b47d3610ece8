"""Files decoded and encoded on several threads, their results in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rainmer.errors import DatasetError, ImageError

__all__ = ["in_order"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_AHEAD_OF_EACH_THREAD = 2


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[tuple[_Item, _Result | ImageError | DatasetError]]:
    """Apply a function to items on threads and yield each with its result, in the items' order.

    Only a few items are under way at a time, so that memory stays small and an interruption ends
    soon. An image that is broken is a result too: the others go on.

    Raises:
        OutputError: And whatever else `function` raises but ImageError and DatasetError.
    """
    coming = iter(items)
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        while True:
            for item in itertools.islice(coming, _AHEAD_OF_EACH_THREAD * threads - len(waiting)):
                waiting.append((item, pool.submit(function, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                result: _Result | ImageError | DatasetError = future.result()
            except (ImageError, DatasetError) as error:
                result = error
            yield item, result
