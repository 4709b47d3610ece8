"""The overhead of eval.detect over deraining, detecting and decoding.

Runs the whole command in this process with the cache of derained frames switched off, and compares
its wall time with the seconds spent in derainers, in the detector and in decoding. The command
reads ahead, so the ratio can be below 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from eval.detect.__main__ import main as detect
from rainmer.cli import make_parser

LIMIT = 1.1


def main(argv: Sequence[str] | None = None) -> None:
    """Print the ratio of wall time to the time of the parts, the median of several runs."""
    parser = make_parser(
        "python -m benchmarks.overhead",
        "Compare the time of eval.detect with the time of its parts.",
        "  python -m benchmarks.overhead --data set.yaml --detector yolov8n.pt "
        "--derain median --limit 16",
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--detector", required=True)
    parser.add_argument("--derain", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=16, help="images")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(argv)
    ratios = [_run(options) for _ in range(options.runs)]
    verdict = "within" if statistics.median(ratios) <= LIMIT else "above"
    print(
        f"wall / (derain + detect + decode): median {statistics.median(ratios):.3f} of "
        f"{options.runs} runs ({', '.join(f'{r:.3f}' for r in ratios)}), {verdict} {LIMIT}"
    )


def _run(options: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--data", options.data, "--detector", options.detector, "--no-cache"]
        arguments += ["--limit", str(options.limit), "--out", folder, "--quiet"]
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            detect([*arguments, "--derain", *options.derain])
        wall = time.perf_counter() - started
        elapsed = json.loads(Path(folder, "metrics.json").read_text())["elapsed_s"]
    parts = elapsed["derain"] + elapsed["detect"] + elapsed["decode"]
    print(
        f"wall {wall:.1f} s; derain {elapsed['derain']:.1f} s, detect {elapsed['detect']:.1f} s, "
        f"decode {elapsed['decode']:.1f} s; ratio {wall / parts:.3f}"
    )
    return wall / parts


if __name__ == "__main__":
    main()
