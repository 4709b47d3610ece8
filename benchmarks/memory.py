"""Memory of the network: fused, as trained, and as a plain reading of the specification.

python -m benchmarks.memory --sizes 256x256

Each variant derains one frame in its own process. On a CPU the figure is the rise of resident
memory above that with the network loaded, as reported by Linux; on a GPU it is torch's peak
allocation minus the weights.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
from pathlib import Path

import torch

from benchmarks.inference import VARIANTS, make_variant
from benchmarks.measuring import add_network_options, build
from eval.report.files import describe_environment
from rainmer.cli import make_parser, positive_int, run_command
from rainmer.device import resolve_device
from rainmer.files import write_text

_STATUS = Path("/proc/self/status")
_CLEAR_PEAK = Path("/proc/self/clear_refs")


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    resolve_device(options.device)
    rows = []
    print(
        "network          frame    " + " ".join(f"{name:>9}" for name in VARIANTS) + "   MB; ratio"
    )
    for name in options.networks:
        for size_hw in options.sizes:
            peaks = {
                variant: _in_own_process(name, variant, size_hw, options.threads, options.device)
                for variant in VARIANTS
            }
            rows.append({"network": name, "size_hw": size_hw, "bytes": peaks})
            columns = " ".join(f"{peaks[variant] / 1e6:9.0f}" for variant in VARIANTS)
            size = f"{size_hw[1]}x{size_hw[0]}"
            ratio = peaks["fused"] / peaks["plain"]
            print(f"{name[:14]:14} {size:>9}  {columns}   {ratio:.2f}", flush=True)
    if options.out:
        environment = describe_environment(resolve_device(options.device))
        result = {"environment": environment, "rows": rows}
        write_text(options.out, json.dumps(result, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks.memory",
        "Measure the network's memory, fused and not.",
        "  python -m benchmarks.memory --networks published rainmer-s --sizes 256x256",
    )
    add_network_options(parser, [(256, 256)])
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def _in_own_process(
    name: str, variant: str, size_hw: tuple[int, int], threads: int, device: str
) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_bytes, (name, variant, size_hw, threads, device))


def _peak_bytes(
    name: str, variant: str, size_hw: tuple[int, int], threads: int, device: str
) -> int:
    """Derain a random frame and return the bytes of memory that this took."""
    torch.set_num_threads(threads)
    chosen = resolve_device(device)
    network = make_variant(build(name).requires_grad_(False).to(chosen), variant)
    with torch.inference_mode():
        network(torch.rand(1, 3, 16, 16, device=chosen))  # loads libraries that load on first use
        image = torch.rand(1, 3, *size_hw, device=chosen)
        if chosen.type == "cuda":
            torch.cuda.reset_peak_memory_stats(chosen)
            before = torch.cuda.memory_allocated(chosen)
            network(image)
            return torch.cuda.max_memory_allocated(chosen) - before
        _CLEAR_PEAK.write_text("5")
        before = _status("VmRSS")
        network(image)
        return _status("VmHWM") - before


def _status(field: str) -> int:
    """Return a memory field of `/proc/self/status` in bytes."""
    match = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


if __name__ == "__main__":
    run_command(lambda _: main())
