"""What Ray costs, and what a second actor brings: `detection.bulk` beside a plain loop.

python -m benchmarks.bulk --images 512 --rounds 3

The same images go through the same pipeline: in a loop in this process, by one actor, and by two,
taking turns; medians over rounds, on one CPU thread each. Starting Ray and loading networks takes
seconds once, however many images there are, so it is told apart: rates count from the first image's
beginning to the last one's end. On a busy machine the CPU time of an image tells more than wall
time: that of the actor's process and of the loop's is compared, too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from benchmarks.measuring import parse_size
from detection import Pipeline, YoloDetector
from detection.bulk.parts import Row, rows_as_parquet
from eval.street import draw_scene
from eval.street.detector import detector_weights
from rainmer import Derainer
from rainmer.background import ordered_map
from rainmer.cli import make_parser, positive_int, run_command
from rainmer.device import use_threads
from rainmer.files import write_bytes
from rainmer.frames.images import encode_image, list_images, read_image

WANTED = 1.15
_SCENES = 16


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options of the benchmark."""

    images: int
    size: tuple[int, int]
    derain: str
    rounds: int
    part: int
    out: Path | None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parse(argv)
    use_threads(1)
    seconds: dict[str, list[float]] = {"loop": [], "1 actor": [], "2 actors": []}
    cpu_s: dict[str, list[float]] = {name: [] for name in seconds}
    starts: list[float] = []
    loads: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_images(folder / "in", options)
        weights = str(detector_weights())
        loop = _Loop(folder, weights, options)
        loop.run()  # once uncounted: sizes are new to it
        for number in tqdm(range(options.rounds), delay=2, leave=False):
            computed_s = time.process_time()
            seconds["loop"].append(loop.run())
            cpu_s["loop"].append(time.process_time() - computed_s)
            for actors, name in ((1, "1 actor"), (2, "2 actors")):
                run = _bulk(folder, f"{number}-{actors}", weights, actors, options)
                seconds[name].append(run.images_s)
                cpu_s[name].append(run.cpu_s)
                starts.append(run.start_s)
            loads.append(os.getloadavg()[0])
    _print(seconds, cpu_s, starts, loads, options)


def _parse(argv: Sequence[str] | None) -> _Options:
    parser = make_parser(
        "python -m benchmarks.bulk",
        "Time detection.bulk with one and two actors beside a plain loop.",
        "  python -m benchmarks.bulk --images 512 --rounds 3 --out bulk.json",
    )
    parser.add_argument("--images", type=positive_int, default=512, metavar="N")
    parser.add_argument("--size", type=parse_size, default=(192, 320), metavar="WxH")
    parser.add_argument("--derain", default="rainmer-s", metavar="SPEC")
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--part", type=positive_int, default=64, metavar="N")
    parser.add_argument("--out", type=Path, metavar="JSON")
    return _Options(**vars(parser.parse_args(argv)))


def _write_images(folder: Path, options: _Options) -> None:
    scenes = [draw_scene(i, night=False, size_hw=options.size).image for i in range(_SCENES)]
    contents = [encode_image(scene, ".jpg") for scene in scenes]
    for number in range(options.images):
        write_bytes(folder / f"{number:05d}.jpg", contents[number % _SCENES])


class _Loop:
    """A plain loop over the images: a thread decodes, the pipeline runs, rows are written."""

    def __init__(self, folder: Path, weights: str, options: _Options) -> None:
        derainer = Derainer(options.derain, device="cpu", batch=8)
        detector = YoloDetector(weights, "cpu", imgsz=max(options.size), batch=8)
        self._pipeline = Pipeline(derainer, detector)
        self._folder, self._part = folder, options.part

    def run(self) -> float:
        """Return the seconds that it takes."""
        started = time.perf_counter()
        paths = list_images(self._folder / "in")
        for start in range(0, len(paths), self._part):
            frames = (image for _, image in ordered_map(read_image, paths[start:][: self._part], 1))
            rows = [
                Row(path.name, processed.size_hw, processed.detections, derained=True)
                for path, processed in zip(
                    paths[start:], self._pipeline.run(frames, 8), strict=False
                )
            ]
            write_bytes(self._folder / "loop" / f"{start}.parquet", rows_as_parquet(rows))
        return time.perf_counter() - started


class _Run(NamedTuple):
    """Seconds of the images, those before and after, and CPU time of the actors."""

    images_s: float
    start_s: float
    cpu_s: float


def _bulk(folder: Path, name: str, weights: str, actors: int, options: _Options) -> _Run:
    """Run the command and return what it took."""
    command = [sys.executable, "-m", "detection.bulk", str(folder / "in"), "--quiet"]
    command += ["--out", str(folder / name), "--detector", weights, "--derain", options.derain]
    command += ["--device", "cpu", "--precision", "auto", "--imgsz", str(max(options.size))]
    command += ["--actors", str(actors), "--cpus", "1", "--part", str(options.part)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole_s = time.perf_counter() - started
    done = json.loads((folder / name / "summary.json").read_text(encoding="utf-8"))["this_run"]
    if done["images"] != options.images:
        raise SystemExit(f"{done['images']} rows, {options.images} images")
    images_s = done["images"] / done["images_per_s"]
    cpu_s = sum(actor["cpu_s"] for actor in done["actors"].values())
    return _Run(images_s, whole_s - images_s, cpu_s)


def _print(
    seconds: dict[str, list[float]],
    cpu_s: dict[str, list[float]],
    starts: list[float],
    loads: list[float],
    options: _Options,
) -> None:
    for name, times in seconds.items():
        listed = ", ".join(f"{value:.1f}" for value in times)
        rate = options.images / statistics.median(times)
        cpu_ms = 1e3 * statistics.median(cpu_s[name]) / options.images
        print(f"{name:9} {rate:7.1f} images/s ({listed} s), {cpu_ms:.1f} ms of CPU an image")
    overhead, gain = (
        _ratio(seconds["1 actor"], seconds["loop"]),
        _ratio(seconds["1 actor"], seconds["2 actors"]),
    )
    cpu = _ratio(cpu_s["1 actor"], cpu_s["loop"])
    reached = "reached" if overhead <= WANTED else "missed"
    print(f"one actor takes {overhead:.3f} times as long as the loop, at most {WANTED} {reached}")
    print(f"and {cpu:.3f} times its CPU time; two actors are {gain:.2f} times as fast as one")
    start = statistics.median(starts)
    load = ", ".join(f"{value:.1f}" for value in loads)
    print(f"start and end: {start:.1f} s; load of {os.cpu_count()} CPUs after each round: {load}")
    if options.out:
        result = {"seconds": seconds, "cpu_s": cpu_s, "starts": starts, "loads": loads}
        write_bytes(options.out, (json.dumps(result) + "\n").encode())


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Compare runs of one round, because other load on the machine changes slowly."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


if __name__ == "__main__":
    run_command(main)
