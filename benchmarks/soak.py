"""A stream of a whole day through the real pipeline, as fast as it goes: does anything grow?

python -m benchmarks.soak --hours 24 --size 64x48

A camera (a process of its own, multipart JPEG over HTTP on the loopback) sends as many frames as it
would in that time and breaks off every half hour of it. The pipeline is that of `python -m
detection`: it connects, decodes, asks the gate if there is one, derains, detects, writes a record
for every frame, and connects again. The camera never is more than a few frames ahead of the
records, so that none is dropped. Memory, open files and threads of the pipeline's process are
sampled; exit code 1 if one of them grows, or if a frame, a record or a reconnect is missing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import multiprocessing
import re
import socketserver
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from benchmarks.measuring import parse_size
from rainmer.cli import make_parser, positive_int, progress_bar, run_command
from rainmer.folders import list_folder

_FPS = 25
_AHEAD = 16  # frames; `detection.run.live` drops what waits beyond
_PICTURES = 250
_POLL_S = 0.0005
_MB = 1 << 20
_GROWTH_MB = 8.0
_WARM = 0.1  # share of the samples in which caches still fill
_LEAST_SAMPLES = 40
_HEADER = (
    b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
)  # fmt: skip


@dataclass(frozen=True)
class _Sample:
    """What the process holds after so many frames, and after so many seconds."""

    frames: int
    elapsed_s: float
    rss_mb: float
    files: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options of the benchmark."""

    hours: float
    size: tuple[int, int]
    derain: str
    gate: str | None
    detector: str | None
    batch: int
    breaks: int
    minutes: float
    seconds: float
    out: Path | None
    quiet: bool


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark.

    Raises:
        SystemExit: Something grows or is missing.
    """
    options = _parse(argv)
    logging.getLogger("detection.run.live").setLevel(logging.ERROR)  # of lost connections
    total = round(options.hours * 3600 * _FPS)
    context = multiprocessing.get_context("spawn")
    written: Synchronized[int] = context.Value("q", 0)
    port: Synchronized[int] = context.Value("i", 0)
    camera = context.Process(
        target=_serve, args=(options.size, total, options.breaks, written, port), daemon=True
    )
    camera.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = _soak(options, total, Path(folder), written, _port(camera, port))
    finally:
        camera.kill()
        camera.join()
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _print(result)
    if result["faults"]:
        sys.exit(1)


def _parse(argv: Sequence[str] | None) -> _Options:
    parser = make_parser(
        "python -m benchmarks.soak",
        "Run hours of a stream through the pipeline; memory, files and threads must not grow.",
        "  python -m benchmarks.soak --hours 24 --size 64x48 --out soak.json",
    )
    parser.add_argument("--hours", type=float, default=24.0, help="of the stream, 25 frames/s")
    parser.add_argument("--size", type=parse_size, default=(48, 64), metavar="WxH")
    parser.add_argument("--derain", default="median", metavar="SPEC")
    parser.add_argument("--gate", nargs="?", const="auto", metavar="T", help="auto, or a threshold")
    parser.add_argument("--detector", metavar="WEIGHTS", help="default: a tiny one")
    parser.add_argument("--batch", type=positive_int, default=8, metavar="N")
    parser.add_argument(
        "--breaks", type=positive_int, default=48, metavar="N", help="the camera breaks off N times"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, metavar="M", help="stop after so long"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="from sample to sample")
    parser.add_argument("--out", type=Path, metavar="JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return _Options(**vars(parser.parse_args(argv)))


def _soak(
    options: _Options, total: int, folder: Path, written: Synchronized[int], port: int
) -> dict[str, Any]:
    """Run the pipeline on the camera, and compare what comes out with what was sent."""
    from detection.pipeline import Processed
    from detection.run.options import parse
    from detection.run.records import RunFolder
    from detection.run.sources import Live
    from detection.run.streams import Streams
    from detection.yolo import YoloDetector
    from rainmer.cpus import usable_cpus
    from rainmer.device import use_threads
    from rainmer.stage.results import make_derainer

    class Records(RunFolder):
        """Tells the camera how many records there are, and ends the run when its time is over."""

        def add(self, source: str, processed: Processed) -> None:
            super().add(source, processed)
            written.value += 1
            if live.limit == total and time.monotonic() > ends:
                live.limit = min(total, written.value + 2 * _AHEAD)

    use_threads(1 if options.detector is None else usable_cpus())
    side = max(32, max(options.size))
    weights = options.detector or str(_tiny_detector(folder))
    command = [f"http://127.0.0.1:{port}/camera", "--detector", weights, "--device", "cpu"]
    command += ["--max-latency", "3600", "--frozen", "0", "--quiet", "--limit", str(total)]
    if options.detector is None:  # random weights are sure of nothing
        command += ["--conf", "0.0001", "--max-det", "3"]
    chosen = replace(parse([*command, "--batch", str(options.batch)]), first_pause=0.02)
    live = Live(chosen.source[0], chosen, total)
    gate = float(options.gate) if options.gate not in (None, "auto") else options.gate
    derainer = make_derainer(options.derain, gate=gate, device="cpu", batch=options.batch)
    detector = YoloDetector(
        weights, "cpu", chosen.conf, imgsz=side, max_det=chosen.max_det, batch=options.batch
    )
    streams = Streams([live], chosen, derainer, detector)
    ends = time.monotonic() + 60 * options.minutes
    with (
        _sampling(written, options.seconds) as samples,
        _bar(total, written, quiet=options.quiet),
        Records(folder / "run", {}, detector.names) as run,
    ):
        streams.process(run)
    with (folder / "run" / "detections.jsonl").open("rb") as file:
        records = sum(1 for _ in file)
    wanted = live.limit or total
    breaks = sum(end < wanted for end in _ends(total, options.breaks))
    counts = {"wanted": wanted, "records": records, "breaks": breaks, **asdict(live.counts)}
    counts["boxes"] = run.summary()["boxes"]
    timing = streams.timing()
    faults = [*_wrong_counts(counts, total), *_growing(samples), *live.failures]
    return {
        "options": {key: str(value) for key, value in vars(options).items()},
        "counts": counts,
        "timing": timing,
        "faults": faults,
        "samples": [asdict(sample) for sample in samples],
    }


def _wrong_counts(counts: dict[str, Any], total: int) -> Iterator[str]:
    """Compare the counts; where time was over, frames on their way were received in vain."""
    wanted = counts["wanted"]
    underway = _AHEAD if wanted < total else 0
    if counts["records"] != wanted:
        yield f"records are {counts['records']}, not {wanted}"
    if not wanted <= counts["received"] <= wanted + underway:
        yield f"received are {counts['received']}, not {wanted}"
    for name, right in (("reconnects", counts["breaks"]), ("dropped", 0), ("damaged", 0)):
        if counts[name] != right:
            yield f"{name} are {counts[name]}, not {right}"


def _growing(samples: Sequence[_Sample]) -> Iterator[str]:
    """Compare the last quarter of the samples with the first one after the warm-up."""
    if len(samples) < _LEAST_SAMPLES:
        yield f"only {len(samples)} samples; {_LEAST_SAMPLES} are needed: see --seconds"
        return
    warm = samples[round(_WARM * len(samples)) :]
    early, late = warm[: len(warm) // 4], warm[-(len(warm) // 4) :]
    for field, allowed in (("rss_mb", _GROWTH_MB), ("files", 0), ("threads", 0)):
        before, after = (statistics.median(getattr(s, field) for s in p) for p in (early, late))
        if after > before + allowed:
            yield f"{field} grows: from {before:g} to {after:g}"


@contextlib.contextmanager
def _sampling(written: Synchronized[int], every_s: float) -> Iterator[list[_Sample]]:
    """Sample what the process holds, in a thread, until the block ends."""
    samples: list[_Sample] = []
    ended = threading.Event()
    started = time.monotonic()

    def sample() -> None:
        while not ended.wait(every_s):
            status = Path("/proc/self/status").read_text(encoding="ascii")
            rss_kb, threads = (
                int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1])  # type: ignore[index]
                for name in ("VmRSS", "Threads")
            )
            files = len(list_folder("/proc/self/fd"))
            elapsed_s = round(time.monotonic() - started, 1)
            rss_mb = round(rss_kb / 1024, 2)
            samples.append(_Sample(written.value, elapsed_s, rss_mb, files, threads))

    thread = threading.Thread(target=sample, name="samples", daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _bar(total: int, written: Synchronized[int], *, quiet: bool) -> Iterator[None]:
    ended = threading.Event()
    with progress_bar(total, quiet=quiet, unit="frame") as bar:

        def show() -> None:
            while not ended.wait(1.0):
                bar.update(written.value - bar.n)

        thread = threading.Thread(target=show, name="bar", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _print(result: dict[str, Any]) -> None:
    counts, timing, samples = result["counts"], result["timing"], result["samples"]
    print(", ".join(f"{name} {value}" for name, value in counts.items()))
    stages = ", ".join(f"{name} {ms:.2f}" for name, ms in timing["stage_ms"].items())
    print(f"{timing['frames_per_s']:.0f} frames/s; ms per frame: {stages}")
    for tenth in range(1, 11):
        if samples:
            sample = samples[max(0, tenth * len(samples) // 10 - 1)]
            print(
                f"{sample['frames']:>9} frames {sample['elapsed_s']:>8.0f} s "
                f"{sample['rss_mb']:>8.1f} MB {sample['files']:>4} files "
                f"{sample['threads']:>3} threads"
            )
    print("; ".join(result["faults"]) or "nothing grows, nothing is missing")


def _tiny_detector(folder: Path) -> Path:
    """Write a YOLO of a sixteenth of the nano's width, with random weights, and return it."""
    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    from eval.street.detector import write_checkpoint

    torch.manual_seed(0)
    shape = {**yaml_model_load("yolov8n.yaml"), "nc": 4, "scales": {"n": [0.33, 0.0625, 256]}}
    network = DetectionModel(shape, verbose=False)
    network.names = dict(enumerate("abcd"))
    network.args = get_cfg()
    write_checkpoint(network, folder / "tiny.pt")
    return folder / "tiny.pt"


def _port(camera: BaseProcess, port: Synchronized[int]) -> int:
    while port.value == 0:
        if not camera.is_alive():
            raise SystemExit(f"the camera ended with {camera.exitcode}")
        time.sleep(0.05)
    return port.value


def _serve(
    size_hw: tuple[int, int],
    total: int,
    breaks: int,
    written: Synchronized[int],
    port: Synchronized[int],
) -> None:
    """Be the camera: send all frames, over one connection more than there are breaks.

    Args:
        size_hw: (height, width) of the frames.
        total: Number of frames.
        breaks: How often to close the connection.
        written: How many records there are.
        port: Set to the port when the camera listens.
    """
    parts = _parts(size_hw)
    sent = 0
    ends = _ends(total, breaks)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            nonlocal sent
            self.request.recv(65536)
            self.request.sendall(_HEADER)
            for number in range(sent, next((end for end in ends if end > sent), sent)):
                while number - written.value >= _AHEAD:
                    time.sleep(_POLL_S)
                self.request.sendall(parts[number % len(parts)])
                sent = number + 1
            if sent == total:  # the client closes: it has its limit
                self.request.recv(1)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        port.value = server.server_address[1]
        server.serve_forever()


def _ends(total: int, breaks: int) -> list[int]:
    """Return how many frames are sent when each connection ends."""
    return [total * (number + 1) // (breaks + 1) for number in range(breaks + 1)]


def _parts(size_hw: tuple[int, int]) -> list[bytes]:
    """Encode a rainy street that drives by, as parts of a multipart stream."""
    import cv2
    import numpy as np

    from eval.street import draw_scene

    height, width = size_hw
    scene = draw_scene(0, night=False).image
    small = cv2.resize(scene, (width * 2, height))
    rng = np.random.default_rng(0)
    parts = []
    for number in range(_PICTURES):
        image = np.roll(small, number * 2, axis=1)[:, :width].copy()
        image[:, rng.integers(0, width, width // 8)] |= 64
        content = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
        parts.append(
            b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(content)
            + content
            + b"\r\n"
        )
    return parts


if __name__ == "__main__":
    run_command(main)
