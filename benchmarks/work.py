"""The work per frame on any device: FLOPs and bytes, counted without computing.

python -m benchmarks.work --networks published rainmer-s --sizes 640x360 1280x720

The networks run on torch's device "meta", which tracks only shapes. As on a GPU, whole maps are
processed at once, without strips. Bytes are what each operator reads and writes; a compiler that
merges operators saves some. Given the rates of a device, the output also has a floor: the longer of
the times for the FLOPs and for the bytes.
"""

from __future__ import annotations

import argparse
import json

import torch
from torch import nn

from benchmarks.inference import VARIANTS, make_variant
from benchmarks.measuring import add_network_options, build, count_work
from rainmer.cli import make_parser, run_command
from rainmer.files import write_text

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Count the work and print it."""
    options = _parse()
    rows = []
    for name in options.networks:
        network = build(name).requires_grad_(False)
        for variant in VARIANTS:
            # Only the fused network handles lower precision itself.
            for dtype in options.dtypes if variant == "fused" else ["fp32"]:
                runnable = make_variant(network, variant)
                assert isinstance(runnable, nn.Module)
                runnable.to("meta", _DTYPES[dtype])
                for size_hw in options.sizes:
                    row = {"network": name, "variant": variant, "dtype": dtype}
                    row |= _count(runnable, size_hw, options.tflops, options.gbps)
                    rows.append(row)
                    print(_format(row), flush=True)
    if options.out:
        write_text(options.out, json.dumps({"rows": rows}, indent=2) + "\n")


def _count(
    network: nn.Module, size_hw: tuple[int, int], tflops: float | None, gbps: float | None
) -> dict[str, float]:
    height, width = size_hw
    image = torch.empty(1, 3, height, width, device="meta")
    with torch.inference_mode():
        flops, moved = count_work(lambda: network(image))
    row = {"width": width, "height": height, "gflop": flops / 1e9, "gb": moved / 1e9}
    if tflops and gbps:
        row["floor_ms"] = 1e3 * max(flops / (tflops * 1e12), moved / (gbps * 1e9))
    return row


def _parse() -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks.work",
        "Count what a frame costs.",
        "  python -m benchmarks.work --sizes 1280x720 --tflops 600 --gbps 3350",
    )
    add_network_options(parser, [(720, 1280)])
    parser.add_argument("--dtypes", nargs="+", choices=_DTYPES, default=list(_DTYPES))
    parser.add_argument("--tflops", type=float, help="of the device, in matrix products")
    parser.add_argument("--gbps", type=float, help="GB/s of the device's memory")
    return parser.parse_args()


def _format(row: dict[str, object]) -> str:
    line = (
        f"{row['network']!s:12.12} {row['variant']:8} {row['dtype']} "
        f"{row['width']}x{row['height']}: {row['gflop']:8.1f} GFLOP {row['gb']:8.1f} GB"
    )
    return line + (f"  floor {row['floor_ms']:.1f} ms" if "floor_ms" in row else "")


if __name__ == "__main__":
    run_command(lambda _: main())
