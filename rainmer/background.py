"""Background threads that keep the order of items and bound the memory.

`prefetch` iterates over a source in a thread, `consume` uses results in one: in
`consume(derain(prefetch(decode(), 16)), write, 8)` decoding, deraining and writing run at the same
time. `interleave` is `prefetch` for several sources. `ordered_map` applies a function to items on
several threads. Networks stay in the calling thread, as the CUDA graphs of torch.compile require.
OpenCV and torch release Python's lock while they work, which is why threads help.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

__all__ = ["End", "consume", "interleave", "ordered_map", "prefetch"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Error = TypeVar("Error", bound=Exception)

_AHEAD_PER_THREAD = 2
_POLL_S = 0.1


@dataclass(frozen=True)
class End:
    """The end of a source.

    Attributes:
        error: The error that ended it; None if it had no more items.
    """

    error: BaseException | None = None


def prefetch(source: Iterable[Item], ahead: int) -> Generator[Item, None, None]:
    """Iterate over a source in a thread that is at most `ahead` items ahead.

    An error of the source is raised after the items before it. Closing the generator early waits
    for the item that the thread is working on; a source that is a generator is closed, too.
    """
    for chunk in interleave({"": source}, 1, ahead=ahead):
        for _, item in chunk:
            if not isinstance(item, End):
                yield item
            elif item.error is not None:
                raise item.error


@overload
def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int | None = None,
) -> Generator[tuple[Item, Result], None, None]: ...
@overload
def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int | None = None,
    *,
    errors: tuple[type[Error], ...],
) -> Generator[tuple[Item, Result | Error], None, None]: ...


def ordered_map(
    function: Callable[[Item], Any],
    items: Iterable[Item],
    threads: int,
    ahead: int | None = None,
    *,
    errors: tuple[type[Exception], ...] = (),
) -> Generator[tuple[Item, Any], None, None]:
    """Apply a function to items on threads; yield each item with its result, in the items' order.

    Args:
        function: Called with each item, in any of the threads.
        items: Iterated over in the calling thread.
        threads: Number of threads.
        ahead: Maximum number of items in progress or waiting; None: two per thread.
        errors: Types of errors that are yielded in place of a result; others are raised.

    Raises:
        Other errors of `function` when their item is due, and errors of `items` at once. Either
        waits for the items already taken, as do an interruption and `close`.
    """
    coming = iter(items)
    limit = _AHEAD_PER_THREAD * threads if ahead is None else ahead
    waiting: deque[tuple[Item, Future[Any]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        while True:
            for item in itertools.islice(coming, limit - len(waiting)):
                waiting.append((item, pool.submit(function, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                result = future.result()
            except errors as error:
                result = error
            yield item, result


def consume(items: Iterable[Item], use: Callable[[Item], None], ahead: int) -> None:
    """Iterate over items in the calling thread, and use them in another one.

    Args:
        items: A generator is closed at the end. An error or interruption of it is raised once the
            items before it are used.
        use: Called with each item, in order. Its first error is raised here, and no further item
            is used.
        ahead: Maximum number of items that wait to be used.
    """
    waiting: queue.Queue[Item | End] = queue.Queue(ahead)
    failed: list[BaseException] = []

    def work() -> None:
        while not isinstance(item := waiting.get(), End):
            try:
                if not failed:
                    use(item)
            except BaseException as error:  # noqa: BLE001 - raised again by the calling thread
                failed.append(error)

    thread = threading.Thread(target=work, name="consume", daemon=True)
    thread.start()
    try:
        for item in items:
            waiting.put(item)
            if failed:
                break
    finally:
        if isinstance(items, Generator):
            items.close()
        waiting.put(End())
        thread.join()
    if failed:
        raise failed[0]


def interleave(
    sources: Mapping[str, Iterable[Item]],
    size: int,
    *,
    ahead: int,
    at_once: int | None = None,
    live: bool = False,
    closed: threading.Event | None = None,
) -> Generator[list[tuple[str, Item | End]], None, None]:
    """Iterate over several sources, each in its own thread, in chunks of their items.

    Args:
        sources: The sources by name.
        size: Maximum number of items in a chunk.
        ahead: Maximum number of waiting items: per source, or in total if they are live.
        at_once: Maximum number of sources open at a time, in their order; None opens all.
        live: Yield items as they arrive, so that no source waits for another. Otherwise sources
            take turns and chunks are full, the same in every run.
        closed: Set on closing, before the threads are joined: for sources that wait themselves.

    Yields:
        Pairs of a source's name and its item, in order; last its `End`, which does not count.
    """
    coming = iter(sources.items())
    closed = closed or threading.Event()
    shared: queue.Queue[tuple[str, Item | End]] | None = queue.Queue(ahead) if live else None
    started: list[_Feeder[Item]] = []
    turns: deque[_Feeder[Item]] = deque()

    def open_next() -> None:
        for name, source in itertools.islice(coming, 1):
            feeder = _Feeder(name, source, shared or queue.Queue(ahead), closed)
            started.append(feeder)
            turns.append(feeder)
            feeder.start()

    try:
        for _ in range(at_once or len(sources)):
            open_next()
        chunk: list[tuple[str, Item | End]] = []
        while turns:
            feeder = turns.popleft()
            if chunk and live and feeder.waiting.empty():
                yield chunk
                chunk = []
            chunk.append(_wait_for(feeder.waiting))
            if isinstance(chunk[-1][1], End):
                # From a shared queue it may be the end of another source: only the count matters.
                open_next()
            else:
                turns.append(feeder)
            if sum(not isinstance(item, End) for _, item in chunk) == size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
    finally:
        closed.set()
        for feeder in started:
            feeder.join()


def _wait_for(waiting: queue.Queue[Item]) -> Item:
    """Return the next item; in steps, because Ctrl-C need not end a wait without a limit."""
    while True:
        with contextlib.suppress(queue.Empty):
            return waiting.get(timeout=_POLL_S)


class _Feeder(threading.Thread, Generic[Item]):
    """Puts a source's items, and its end, into a queue."""

    def __init__(
        self,
        name: str,
        source: Iterable[Item],
        waiting: queue.Queue[tuple[str, Item | End]],
        closed: threading.Event,
    ) -> None:
        super().__init__(name=f"prefetch {name}".strip(), daemon=True)
        self.waiting = waiting
        self._source_name = name
        self._source: Iterable[Item] | None = source
        self._closed = closed

    def run(self) -> None:
        """Iterate over the source until it ends or the consumer stops."""
        source, self._source = self._source, None
        end = End()
        try:
            for item in source or ():
                if not self._put(item):
                    break
            if isinstance(source, Generator):
                source.close()
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            end = End(error)
        self._put(end)

    def _put(self, item: Item | End) -> bool:
        while not self._closed.is_set():
            try:
                self.waiting.put((self._source_name, item), timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False
