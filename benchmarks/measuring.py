"""Shared by the benchmarks: alternating runs, counting work, peak rates of the machine."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from rainmer import models
from rainmer.models.rainmer import Rainmer
from rainmer.stage.restorers import NetworkRestorer
from rainmer.stage.specs import resolve

__all__ = [
    "PUBLISHED",
    "add_network_options",
    "alternate",
    "build",
    "count_work",
    "gemm_rate",
    "median_ratio",
    "parse_size",
    "read_rate",
    "synchronize",
]

PUBLISHED = "published"
"""The published configuration "detgalpha" with random weights; other names are specs."""
_PEAK_SIDE, _PEAK_SIDE_OF_GPUS = 2048, 8192  # a GPU needs more for its launches to weigh nothing
_COPIED_BYTES = 1 << 28


def build(name: str) -> Rainmer:
    """Build the published network or load the network of a spec.

    Raises:
        SpecError, WeightsError: The spec cannot be resolved.
        SystemExit: The network is not a Rainmer.
    """
    # Random weights lead to numbers so small that CPUs slow down many times.
    torch.set_flush_denormal(True)
    if name == PUBLISHED:
        torch.manual_seed(0)
        return models.Rainmer(models.RainmerConfig.official("detgalpha")).eval()
    restorer = resolve(name)
    network = restorer.network if isinstance(restorer, NetworkRestorer) else None
    if not isinstance(network, Rainmer):
        raise SystemExit(f"{name} is no Rainmer: give {PUBLISHED}, rainmer-s or rainmer:WEIGHTS")
    return network


def add_network_options(
    parser: argparse.ArgumentParser, sizes_hw: Sequence[tuple[int, int]]
) -> None:
    """Add the options for networks, sizes (with this default) and the output file."""
    parser.add_argument("--networks", nargs="+", default=[PUBLISHED], metavar="SPEC")
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=sizes_hw, metavar="WxH")
    parser.add_argument("--out", type=Path, metavar="JSON")


def parse_size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT into (height, width)."""
    width, height = text.lower().split("x")
    return int(height), int(width)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished; do nothing on other devices."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    *,
    warm: bool = False,
) -> dict[str, list[float]]:
    """Time functions in turns, so that other load on the machine affects all of them.

    Args:
        functions: Functions to time, by name.
        rounds: Number of timed rounds.
        device: Device on which they run.
        warm: Whether they have run before; if not, a first round is not counted.

    Returns:
        Seconds of each function, round by round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(int(warm), rounds + 1):
        for name, function in functions.items():
            synchronize(device)
            start = time.perf_counter()
            function()
            synchronize(device)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


class _ByteCounter(TorchDispatchMode):
    """Adds up the bytes that operators read and write, each tensor once per operator."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self,
        function: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        results = function(*args, **kwargs)
        read = {name: value for name, value in kwargs.items() if name != "out"}
        inputs, outputs = _tensors((args, read)), _tensors(results)
        storages = {_storage(tensor) for tensor in inputs}
        is_view = all(_storage(tensor) in storages for tensor in outputs)
        only_allocates = "empty" in function._schema.name
        if not only_allocates and (function._schema.is_mutable or not is_view):
            self.bytes += sum(t.numel() * t.element_size() for t in (*inputs, *outputs))
        return results


def _storage(tensor: Tensor) -> int:
    """Identify a tensor's memory; tensors on the device "meta" have no address."""
    return tensor.untyped_storage()._cdata


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor)]


def count_work(function: Callable[[], Any]) -> tuple[int, int]:
    """Return the FLOPs of a call (matrix products and convolutions), and the bytes it moves.

    Bytes are counted operator by operator, without regard to caches. Tensors may be on the device
    "meta", where nothing is computed.
    """
    with FlopCounterMode(display=False) as flops, _ByteCounter() as moved:
        function()
    return flops.get_total_flops(), moved.bytes


def gemm_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Measure the FLOP/s of a large matrix product, the best of several runs."""
    side = _PEAK_SIDE if device.type == "cpu" else _PEAK_SIDE_OF_GPUS
    a = torch.rand(side, side, device=device, dtype=dtype)
    taken = alternate({"product": lambda: a @ a}, 5, device)["product"]
    return float(2 * side**3 / min(taken))


def read_rate(device: torch.device) -> float:
    """Measure bytes/s (read plus written) of a large copy, the best of several runs."""
    source = torch.zeros(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    taken = alternate({"copy": lambda: target.copy_(source)}, 5, device)["copy"]
    return 2 * _COPIED_BYTES / min(taken)


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Return the ratio of the medians: how many times as fast the second function is."""
    return statistics.median(slow) / statistics.median(fast)
