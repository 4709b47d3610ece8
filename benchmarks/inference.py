"""Speed of the network: fused, as trained, and as a plain reading of the specification.

python -m benchmarks.inference --networks published rainmer-s --sizes 128x128 256x256

The variants take turns in one process with the same weights and frames; medians over rounds, as
ratios to the plain reading (`benchmarks.plain`). The floor is the time of the fused network if its
products ran at the rate of a large matrix product, or if its operators' bytes moved at the rate of
a large copy, both measured here; caches may beat the second floor. On a GPU there are two more
variants in bfloat16, and each call is timed until the device has finished.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import (
    add_network_options,
    alternate,
    build,
    count_work,
    gemm_rate,
    median_ratio,
    read_rate,
)
from benchmarks.plain import plain
from eval.report.files import describe_environment
from rainmer.cli import make_parser, positive_int, run_command
from rainmer.device import resolve_device
from rainmer.files import write_text
from rainmer.models.rainmer import Rainmer
from rainmer.stage.compiling import Compiled

VARIANTS = ("plain", "network", "fused")
GPU_VARIANTS = ("bf16", "compiled")
"""Additional variants on a GPU: fused in bfloat16, without and with torch.compile."""


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    device = resolve_device(options.device)
    torch.set_num_threads(options.threads)
    rates = {"gemm": gemm_rate(device), "copy": read_rate(device)}
    print(
        f"{device}, {options.threads} threads: matrix products {rates['gemm'] / 1e9:.0f} GFLOP/s, "
        f"copies {rates['copy'] / 1e9:.0f} GB/s"
    )
    print("seconds: medians of the rounds (times as fast as plain)")
    rows = []
    for name in options.networks:
        network = build(name).requires_grad_(False).to(device)
        variants = options.variants + (list(GPU_VARIANTS) if device.type == "cuda" else [])
        networks = {variant: make_variant(network, variant) for variant in variants}
        for height, width in options.sizes:
            for batch in options.batches:
                image = torch.rand(
                    batch, 3, height, width, generator=torch.Generator().manual_seed(1)
                ).to(device)
                row = {"network": name, "width": width, "height": height, "batch": batch}
                row |= _measure(networks, image, options.rounds, rates)
                rows.append(row)
                print(_format(row), flush=True)
                if options.out:  # keeps the measurements so far if the run is interrupted
                    result = {
                        "environment": describe_environment(device),
                        "rates": rates,
                        "rows": rows,
                    }
                    write_text(options.out, json.dumps(result, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks.inference",
        "Time the network, fused and not.",
        "  python -m benchmarks.inference --networks rainmer-s --sizes 640x384 --batches 1 4",
    )
    add_network_options(parser, [(128, 128), (256, 256)])
    parser.add_argument("--batches", nargs="+", type=positive_int, default=[1])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads())
    parser.add_argument("--device", default=None)
    return parser.parse_args()


def make_variant(network: Rainmer, variant: str) -> Callable[[Tensor], Tensor]:
    """Return a variant of a network; see `VARIANTS` and `GPU_VARIANTS`."""
    if variant == "plain":
        return plain(network)
    if variant == "network":
        return copy.deepcopy(network).to(memory_format=torch.channels_last)
    fused = network.fuse()
    if variant == "fused":
        return fused
    fused = fused.to(torch.bfloat16)
    return Compiled(fused) if variant == "compiled" else fused


def _measure(
    networks: dict[str, Callable[[Tensor], Tensor]],
    image: Tensor,
    rounds: int,
    rates: dict[str, float],
) -> dict[str, Any]:
    """Time the variants on one batch."""
    with torch.inference_mode():
        outputs = {name: network(image) for name, network in networks.items()}
        seconds = alternate(
            {
                name: lambda network=network: network(image)  # type: ignore[misc]
                for name, network in networks.items()
            },
            rounds,
            image.device,
            warm=True,
        )
        row: dict[str, Any] = {"seconds": seconds}
        first = next(iter(outputs))
        row["difference"] = {
            name: float((output - outputs[first]).abs().max())
            for name, output in outputs.items()
            if name != first
        }
        if "fused" in networks:
            flops, moved = count_work(lambda: networks["fused"](image))
            row["fused_gflop"], row["fused_gb"] = flops / 1e9, moved / 1e9
            row["floor_products_s"] = flops / rates["gemm"]
            row["floor_bytes_s"] = moved / rates["copy"]
    return row


def _format(row: dict[str, Any]) -> str:
    """Format a row as two lines."""
    seconds = row["seconds"]
    columns = []
    for name, taken in seconds.items():
        column = f"{name} {statistics.median(taken):.4f}"
        if "plain" in seconds and name != "plain":
            column += f" ({median_ratio(seconds['plain'], taken):.2f}x)"
        columns.append(column)
    lines = [
        f"{row['network']} {row['width']}x{row['height']} batch {row['batch']}: "
        + ", ".join(columns)
    ]
    facts = [f"{name} differs by {value:.1e}" for name, value in row["difference"].items()]
    if "floor_products_s" in row:
        facts.append(
            f"{row['fused_gflop']:.0f} GFLOP, {row['fused_gb']:.1f} GB moved: floors "
            f"{row['floor_products_s']:.4f} s and {row['floor_bytes_s']:.4f} s"
        )
    return "\n    ".join([*lines, "; ".join(facts)])


if __name__ == "__main__":
    run_command(lambda _: main())
