"""The cost of two derainers sharing the CPUs: at the same time, and one after the other.

python -m benchmarks.together --cpus 2 --frames 8

Both run `python -m rainmer.derain` on the same frames and the same few CPUs, each with a thread per
CPU. Rounds alternate between the two modes. The ratio of wall times is 1 if sharing is free;
threads that spin while they wait raise it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import alternate, parse_size
from rainmer.cli import make_parser, positive_int, run_command
from rainmer.frames.images import write_image
from rainmer.stage.specs import DEFAULT_DERAINER

WANTED = 1.3


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cpus])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_frames(folder / "rainy", options.size, options.frames)

        def start(number: int) -> subprocess.Popen[bytes]:
            return _start(folder, folder / f"out-{number}", options)

        def together() -> None:
            for process in [start(0), start(1)]:
                _finish(process)

        def in_turn() -> None:
            for number in range(2):
                _finish(start(number))

        functions = {"together": together, "in turn": in_turn}
        seconds = alternate(functions, options.rounds, torch.device("cpu"))
    _print(seconds)


def _print(seconds: dict[str, list[float]]) -> None:
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    for name, times in seconds.items():
        print(f"{name:8} {statistics.median(times):6.2f} s ({_listed(times)})")
    ratio = statistics.median(ratios)
    print(
        f"together / in turn: {ratio:.2f} ({_listed(ratios)}), at most "
        f"{WANTED} {'reached' if ratio <= WANTED else 'missed'}"
    )


def _listed(numbers: list[float]) -> str:
    return ", ".join(f"{number:.2f}" for number in numbers)


def _parse() -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks.together",
        "Time two derainers at once beside one after the other.",
        "  python -m benchmarks.together --cpus 2 --frames 8",
    )
    parser.add_argument("--derain", default=DEFAULT_DERAINER, metavar="SPEC")
    parser.add_argument("--size", type=parse_size, default=(384, 640), metavar="WxH")
    parser.add_argument("--frames", type=positive_int, default=8)
    parser.add_argument("--cpus", type=positive_int, default=2)
    parser.add_argument("--rounds", type=positive_int, default=3)
    return parser.parse_args()


def _write_frames(folder: Path, size_hw: tuple[int, int], count: int) -> None:
    generator = np.random.default_rng(0)
    for number in range(count):
        write_image(
            folder / f"{number}.png", generator.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        )


def _start(folder: Path, out: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rainmer.derain", str(folder / "rainy"), "--out", str(out)]
    command += ["--derain", options.derain, "--device", "cpu", "--batch", "1"]
    command += ["--overwrite", "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise SystemExit(f"{process.args} ended with {process.returncode}")


if __name__ == "__main__":
    run_command(lambda _: main())
