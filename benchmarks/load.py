"""Clients of a server in a process of their own, so that they do not share Python's lock with it.

`python -m benchmarks.load` reads orders from stdin, a line of JSON each, and prints what came of
each: `statuses` by number of answers, and `latencies` in s of those with status 200.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["Clients", "clients"]

_TIMEOUT_S = 300.0
_PAUSE_S = 0.02  # of a client that was told to come again


class Clients:
    """The process of clients."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def send(self, port: int, path: str, files: Sequence[Path], requests: int, at_once: int) -> Any:  # noqa: ANN401
        """Send image files in turns, each client over one connection; return what came."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"port": port, "path": path, "files": [*map(str, files)]}
        self._process.stdin.write(json.dumps({**order, "requests": requests, "at_once": at_once}))
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def clients() -> Iterator[Clients]:
    """Start the process; end it afterwards."""
    command = [sys.executable, "-m", "benchmarks.load"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Clients(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _carry_out(order: Mapping[str, Any]) -> dict[str, Any]:
    bodies = [Path(file).read_bytes() for file in order["files"]]
    numbers, lock = iter(range(order["requests"])), threading.Lock()
    statuses: Counter[int] = Counter()
    latencies: list[float] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", order["port"], timeout=_TIMEOUT_S)
        with contextlib.closing(connection):
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                begun = time.perf_counter()
                connection.request("POST", order["path"], bodies[number % len(bodies)])
                answer = connection.getresponse()
                answer.read()
                taken = time.perf_counter() - begun
                with lock:
                    statuses[answer.status] += 1
                    latencies.extend([taken] * (answer.status == 200))
                if answer.status == 503:
                    time.sleep(_PAUSE_S)

    with ThreadPoolExecutor(order["at_once"]) as pool:
        for done in [pool.submit(ask) for _ in range(order["at_once"])]:
            done.result()
    return {"statuses": statuses, "latencies": latencies}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_carry_out(json.loads(line))), flush=True)
