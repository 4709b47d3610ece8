"""How fast the network derains: fused, as it is trained, and as the specification reads.

python -m benchmarks.inference --networks published rainmer-s --sizes 128x128 256x256

The variants take turns in one process with the same weights and frames; medians over rounds, as
ratios to the plain reading (`benchmarks.plain`). The floor is what the fused network would take if
its products ran at the rate of a large matrix product, or if its operators' bytes moved at the
rate of a large copy, both measured here; caches may beat the second one.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import (
    PUBLISHED,
    alternate,
    build,
    count_work,
    gemm_rate,
    median_ratio,
    parse_size,
    read_rate,
)
from benchmarks.plain import plain
from eval.files import describe_environment
from rainmer.cli import make_parser, positive_int, resolve_device, run_command
from rainmer.files import write_text
from rainmer.models.rainmer import Rainmer

VARIANTS = ("plain", "network", "fused")


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
    print(_HEADER)
    rows = []
    for name in options.networks:
        network = build(name).requires_grad_(False).to(device)
        networks = {v: make_variant(network, v) for v in VARIANTS if v in options.variants}
        for height, width in options.sizes:
            for batch in options.batches:
                image = torch.rand(
                    batch, 3, height, width, generator=torch.Generator().manual_seed(1)
                ).to(device)
                row = {"network": name, "width": width, "height": height, "batch": batch}
                row |= _measure(networks, image, options.rounds, rates)
                rows.append(row)
                print(_format(row), flush=True)
                if options.out:  # what is measured is kept when the rest is interrupted
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
    parser.add_argument("--networks", nargs="+", default=[PUBLISHED], metavar="SPEC")
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=[(128, 128), (256, 256)])
    parser.add_argument("--batches", nargs="+", type=positive_int, default=[1])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads())
    parser.add_argument("--device", default=None)
    parser.add_argument("--out", type=Path, metavar="JSON")
    return parser.parse_args()


def make_variant(network: Rainmer, variant: str) -> Rainmer:
    """Return a variant of a network, see `VARIANTS`."""
    if variant == "plain":
        return plain(network)
    return network.fuse() if variant == "fused" else network.to(memory_format=torch.channels_last)


def _measure(
    networks: dict[str, Rainmer], image: Tensor, rounds: int, rates: dict[str, float]
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
        )
        row: dict[str, Any] = {"seconds": seconds}
        if "plain" in networks and "fused" in networks:
            row["difference"] = float((outputs["plain"] - outputs["fused"]).abs().max())
        for name, network in networks.items():
            flops, moved = count_work(lambda network=network: network(image))  # type: ignore[misc]
            row[f"{name}_gflop"], row[f"{name}_gb"] = flops / 1e9, moved / 1e9
        if "fused" in networks:
            row["floor_products_s"] = row["fused_gflop"] * 1e9 / rates["gemm"]
            row["floor_bytes_s"] = row["fused_gb"] * 1e9 / rates["copy"]
    return row


_HEADER = (
    "network          frame    batch   plain s network s   fused s  network x  fused x  "
    "difference  GFLOP  floor s (products, bytes)"
)


def _format(row: dict[str, Any]) -> str:
    seconds = row["seconds"]
    medians = [
        f"{statistics.median(seconds[v]):9.3f}" if v in seconds else " " * 9 for v in VARIANTS
    ]
    ratios = [
        f"{median_ratio(seconds['plain'], seconds[v]):8.2f}"
        if v in seconds and "plain" in seconds
        else " " * 8
        for v in VARIANTS[1:]
    ]
    size = f"{row['width']}x{row['height']}"
    difference = f"{row['difference']:.1e}" if "difference" in row else ""
    gflop = next(row[f"{name}_gflop"] for name in reversed(VARIANTS) if f"{name}_gflop" in row)
    floor = (
        f"{row['floor_products_s']:.3f}, {row['floor_bytes_s']:.3f}"
        if "floor_products_s" in row
        else ""
    )
    return (
        f"{row['network'][:14]:14} {size:>9} {row['batch']:6} {' '.join(medians)}   "
        f"{' '.join(ratios)}  {difference:>10} {gflop:6.0f}  {floor}"
    )


if __name__ == "__main__":
    run_command(lambda _: main())
