"""How close the server comes to the speed of its networks, and how it stands a long load.

python -m benchmarks.serving --rounds 3
python -m benchmarks.serving --derain median --detector none --soak 5000

Requests over the loopback and calls of the networks on the same decoded frames take turns in one
process; medians over rounds. The networks are called in full batches, as the fastest caller would,
and frame by frame. The target is 0.85 of the former: reading, decoding, waiting and answering are
to overlap with the networks, although the clients need the same CPUs. `--soak` then sends so many
more requests from more clients than the queue has room for, and counts what became of each. The
clients are a process of their own, as they are in life.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import clients
from benchmarks.measuring import alternate, median_ratio, parse_size
from detection import Detections, YoloDetector
from detection.serve.app import make_app
from detection.serve.engine import Engine, Kind
from detection.serve.options import Limits
from detection.serve.server import listen, make_server
from eval.report.files import describe_environment
from eval.street import draw_scene
from eval.street.detector import detector_weights
from rainmer import Derainer
from rainmer.cli import (
    StageOptions,
    add_stage_options,
    make_parser,
    non_negative_int,
    parse_options,
    positive_int,
    run_command,
    stage_options,
)
from rainmer.files import write_text
from rainmer.frames.arrays import Frame
from rainmer.frames.images import read_image, write_image
from rainmer.stage.specs import DEFAULT_DERAINER

WANTED = 0.85
_SCENES = 8
_TICK_S = 0.5
_TIMEOUT_S = 120.0

Ask = Callable[[str, int, int], "dict[str, Any]"]
"""Sends so many requests to an address from so many clients; see `benchmarks.load`."""


@dataclass(frozen=True, kw_only=True)
class _Options(StageOptions):
    """The options of the benchmark."""

    derain: str
    detector: str | None
    size: tuple[int, int]
    requests: int
    clients: int
    rounds: int
    soak: int
    out: Path | None


class _NoDetector:
    """Finds nothing, at once."""

    name = "none"
    names: dict[int, str] = {}  # noqa: RUF012

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        return [Detections() for _ in frames]


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    derainer = Derainer(options.derain, **stage_options(options))
    engine = Engine(derainer, _make_detector(options, derainer))
    result: dict[str, Any] = {"derain": derainer.name, "detector": engine.detector.name}
    with (
        tempfile.TemporaryDirectory() as name,
        clients() as asking,
        running(engine, Limits(seconds=_TIMEOUT_S)) as port,
    ):
        files = [Path(name) / f"{i}.jpg" for i in range(_SCENES)]
        for i, file in enumerate(files):
            write_image(file, draw_scene(i, night=i % 2 == 1, size_hw=options.size).image)

        def ask(path: str, requests: int, at_once: int) -> dict[str, Any]:
            answers: dict[str, Any] = asking.send(port, path, files, requests, at_once)
            return answers

        frames = [read_image(file) for file in files]
        kinds = ("derain", "detect")
        result["rates"] = [measure(kind, engine, frames, ask, options) for kind in kinds]
        if options.soak:
            result["soak"] = soak(ask, options.soak)
    if options.out is not None:
        result["environment"] = describe_environment(derainer.device)
        write_text(options.out, json.dumps(result, indent=1, default=str))


def _parse() -> _Options:
    parser = make_parser(
        "python -m benchmarks.serving",
        "Requests per second against calling the networks directly.",
        "  python -m benchmarks.serving --rounds 3",
    )
    parser.add_argument("--derain", default=DEFAULT_DERAINER, metavar="SPEC")
    parser.add_argument("--detector", metavar="WEIGHTS", help="none: finds nothing, at once")
    parser.add_argument("--size", type=parse_size, default=(192, 320), metavar="WxH")
    parser.add_argument("--requests", type=positive_int, default=48, help="of a round")
    parser.add_argument("--clients", type=positive_int, default=16, help="at the same time")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--soak", type=non_negative_int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, metavar="JSON")
    add_stage_options(parser)
    return parse_options(parser, _Options, None)


def _make_detector(options: _Options, derainer: Derainer) -> YoloDetector | _NoDetector:
    if options.detector == "none":
        return _NoDetector()
    weights = options.detector or str(detector_weights())
    size = max(options.size)
    return YoloDetector(weights, device=str(derainer.device), imgsz=size, batch=options.batch)


@contextlib.contextmanager
def running(engine: Engine, limits: Limits) -> Iterator[int]:
    """Run a server in a thread of this process; yield its port."""
    app = make_app(engine, limits)
    server = make_server(app, limits.seconds)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        app.state.service.batcher.ready.wait()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def measure(
    kind: Kind, engine: Engine, scenes: Sequence[Frame], ask: Ask, options: _Options
) -> dict[str, Any]:
    """Compare requests with calls; print and return rates and latencies."""
    frames = [scenes[i % len(scenes)] for i in range(options.requests)]
    most = engine.at_once(options.size)
    latencies: list[float] = []

    def in_batches(size: int) -> Callable[[], None]:
        def run() -> None:
            for start in range(0, len(frames), size):
                part = frames[start : start + size]
                engine(kind, part, [""] * len(part), [None] * len(part))

        return run

    def served() -> None:
        answers = ask(f"/v1/{kind}", options.requests, options.clients)
        assert answers["statuses"] == {"200": options.requests}, answers["statuses"]
        latencies.extend(answers["latencies"])

    cpu_s: dict[str, list[float]] = {"batches": [], "singly": [], "served": []}
    functions = (in_batches(most), in_batches(1), served)
    ways = {
        way: _counted(function, cpu)
        for function, (way, cpu) in zip(functions, cpu_s.items(), strict=True)
    }
    seconds = alternate(ways, options.rounds, engine.derainer.device)
    rates = {way: options.requests / float(np.median(taken)) for way, taken in seconds.items()}
    cpu_ms = {way: 1e3 * float(np.median(t)) / options.requests for way, t in cpu_s.items()}
    ratio = 1.0 / median_ratio(seconds["served"], seconds["batches"])
    p50, p95 = np.percentile(latencies, (50, 95)) * 1e3
    print(
        f"/v1/{kind}: {rates['served']:.2f} requests/s; networks alone {rates['batches']:.2f} in "
        f"batches of {most}, {rates['singly']:.2f} one by one; ratio {ratio:.2f}, wanted {WANTED}\n"
        f"  CPU ms a frame: {cpu_ms['served']:.1f} served, {cpu_ms['batches']:.1f} in batches; "
        f"{options.clients} clients wait p50 {p50:.0f}, p95 {p95:.0f} ms",
        flush=True,
    )
    row = {"kind": kind, **rates, "ratio": ratio, "cpu_ms": cpu_ms}
    return {**row, "p50_ms": p50, "p95_ms": p95}


def _counted(function: Callable[[], None], cpu_s: list[float]) -> Callable[[], None]:
    """Note the CPU time of this process, too: other work on the machine hardly changes it."""

    def run() -> None:
        begun = time.process_time()
        function()
        cpu_s.append(time.process_time() - begun)

    return run


def soak(ask: Ask, requests: int) -> dict[str, Any]:
    """Send requests from more clients than the queue has room for; print what became of them."""
    memory: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_TICK_S):
            memory.append(_resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    try:
        answers = ask("/v1/detect", requests, 2 * Limits().queue)
    finally:
        done.set()
        watcher.join()
    seconds, statuses = time.perf_counter() - begun, answers["statuses"]
    p50, p95 = np.percentile(answers["latencies"], (50, 95)) * 1e3
    third = max(len(memory) // 3, 1)
    first, last = (float(np.median(part)) for part in (memory[:third], memory[-third:]))
    print(
        f"{requests} requests of {2 * Limits().queue} clients in {seconds:.1f} s: "
        f"{statuses}, lost {requests - sum(statuses.values())}; "
        f"p50 {p50:.0f}, p95 {p95:.0f} ms; resident memory {first:.0f} MB in the first third, "
        f"{last:.0f} MB in the last"
    )
    return {
        "requests": requests,
        "statuses": statuses,
        "seconds": seconds,
        "p50_ms": p50,
        "p95_ms": p95,
        "memory_mb": memory,
    }


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1e3
    return float("nan")


if __name__ == "__main__":
    run_command(lambda _: main())
