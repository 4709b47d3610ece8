"""One derainer by PyTorch, ONNX Runtime and OpenVINO, in every precision: speed and quality.

python -m benchmarks.runtimes --size 640x384 --pairs PAIRS --json runtimes.json

All run in one process and in turns on the same rainy frame. PAIRS is a folder with `input` and
`target`, whose images have the same names; without it, only the differences to PyTorch in float32
are told. Exports are made once and kept in the user's cache folder, int8 too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.measuring import alternate, parse_size
from rainmer import Derainer, models
from rainmer.cli import make_parser, parse_options, positive_int, run_command
from rainmer.device import use_threads
from rainmer.export.kept import kept_export
from rainmer.export.request import ExportRequest
from rainmer.export.samples import rainy_samples
from rainmer.frames.arrays import Frame
from rainmer.frames.images import list_images, read_image
from rainmer.metrics import psnr
from rainmer.stage.names import DEFAULT_DERAINER

_CPU = torch.device("cpu")


def main() -> None:
    """Run the benchmark."""
    options = parse_options(_parser(), argparse.Namespace, None)
    use_threads(options.cpus)
    derainers = _derainers(options.derain)
    frame = rainy_samples(1, options.size)[0]
    rows = _speeds(derainers, frame, options.rounds)
    for name, row in rows.items():
        row.update(_quality(derainers[name], derainers["torch fp32"], frame, options.pairs))
    print(f"{options.derain}, {options.size[1]}x{options.size[0]}, {options.cpus} threads")
    table = [{"runtime": name, **row} for name, row in rows.items()]
    print(tabulate(table, headers="keys", tablefmt="github", floatfmt=".3f"))
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("python -m benchmarks.runtimes", __doc__.partition("\n")[0], "")
    parser.add_argument("--derain", default=DEFAULT_DERAINER, metavar="SPEC")
    parser.add_argument("--size", type=parse_size, default=(384, 640), metavar="WxH")
    parser.add_argument("--rounds", type=positive_int, default=7, metavar="N")
    parser.add_argument("--cpus", type=positive_int, default=2, metavar="N", help="threads")
    parser.add_argument("--pairs", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


def _derainers(spec: str) -> dict[str, Derainer]:
    """Make the derainer by every runtime and precision that there is."""
    made = {
        "torch fp32": Derainer(spec, "cpu", "fp32"),
        "torch bf16": Derainer(spec, "cpu", "bf16"),
        "onnx fp32": Derainer(spec, "cpu", "fp32", runtime="onnx"),
        "openvino fp32": Derainer(spec, "cpu", "fp32", runtime="openvino"),
        "openvino bf16": Derainer(spec, "cpu", "bf16", runtime="openvino"),
    }
    request = ExportRequest(format="openvino", size_hw=None, batch=None, precision="int8")
    path = kept_export(models.load(spec), spec, request)
    made["openvino int8"] = Derainer(f"openvino:{path}", "cpu", "fp32")
    return made


def _speeds(
    derainers: dict[str, Derainer], frame: Frame, rounds: int
) -> dict[str, dict[str, float]]:
    """Return medians in milliseconds: of the clock, and of the CPUs, which other load spares."""
    used: dict[str, list[float]] = {name: [] for name in derainers}

    def timed(name: str) -> Callable[[], Any]:
        def run() -> None:
            start = time.process_time()
            derainers[name](frame)
            used[name].append(time.process_time() - start)

        return run

    seconds = alternate({name: timed(name) for name in derainers}, rounds, _CPU)
    first = "torch fp32"
    return {
        name: {
            "ms": statistics.median(times) * 1e3,
            "frames/s": 1.0 / statistics.median(times),
            "faster": statistics.median(
                before / after for before, after in zip(seconds[first], times, strict=True)
            ),
            "CPU ms": statistics.median(used[name][1:]) * 1e3,
        }
        for name, times in seconds.items()
    }


def _quality(
    derainer: Derainer, reference: Derainer, frame: Frame, pairs: Path | None
) -> dict[str, float]:
    """Return the largest difference to PyTorch in levels, and the mean PSNR on pairs in dB."""
    difference = np.abs(derainer(frame).astype(int) - reference(frame)).max()
    quality = {"levels": float(difference)}
    if pairs is not None:
        quality["dB"] = statistics.mean(
            float(psnr(_tensor(derainer(read_image(rainy))), _tensor(read_image(clean))))
            for rainy, clean in zip(
                list_images(pairs / "input"), list_images(pairs / "target"), strict=True
            )
        )
    return quality


def _tensor(frame: Frame) -> torch.Tensor:
    return torch.from_numpy(frame).permute(2, 0, 1)[None]


if __name__ == "__main__":
    run_command(lambda argv: main())
