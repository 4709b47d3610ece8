"""An export against PyTorch: by how much its frames differ, and at which layer that begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rainmer.errors import RainmerError, first_line
from rainmer.export.formats import OUTPUT, quiet, write_format
from rainmer.export.graph import DerainGraph
from rainmer.export.request import ExportRequest
from rainmer.export.sessions import OPENERS

__all__ = ["BOUNDS", "Bound", "Difference", "as_input", "compare", "first_differing"]

_LAYER_BOUND = 0.05
"""Of a layer's largest difference, as a share of its largest value."""


@dataclass(frozen=True)
class Difference:
    """How far frames are from those of PyTorch in float32.

    Attributes:
        levels: The largest difference, in levels of 0..255; NaN if a value is not finite.
        psnr_db: Peak signal-to-noise ratio between the two, infinite for equal frames.
    """

    levels: float
    psnr_db: float

    def __str__(self) -> str:
        if math.isnan(self.levels):
            return "values that are not finite"
        return f"{self.levels:.2g} levels at most, {self.psnr_db:.1f} dB"


@dataclass(frozen=True)
class Bound:
    """What an export may differ by: the largest difference in levels, or the PSNR, must hold."""

    levels: float
    psnr_db: float

    def holds(self, difference: Difference) -> bool:
        """Tell whether a difference is within the bound; values that are not finite never are."""
        return difference.levels <= self.levels or difference.psnr_db >= self.psnr_db

    def __str__(self) -> str:
        return f"{self.levels:g} levels or {self.psnr_db:g} dB"


BOUNDS = {
    # Rounding alone may change which of two nearly equal attention entries is kept, and with it the
    # whole frame a little: fused and unfused networks in PyTorch differ so by 2 levels, at 57 dB.
    "fp32": Bound(1.0, 52.0),
    "fp16": Bound(2.0, 50.0),
    "bf16": Bound(2.0, 45.0),
    "int8": Bound(2.0, 32.0),
}
"""By precision."""


def as_input(levels: Tensor, request: ExportRequest) -> npt.NDArray[Any]:
    """Turn levels (B, 3, H, W) into the values that a file takes."""
    batch = levels if request.layout == "nchw" else levels.permute(0, 2, 3, 1)
    values = batch if request.frames == "uint8" else batch.float().div(255.0)
    return values.contiguous().numpy()


def compare(
    path: Path, request: ExportRequest, samples: Sequence[Tensor], wanted: Sequence[Tensor]
) -> Difference:
    """Run a file on levels (B, 3, H, W) and compare with float32 frames (B, 3, H, W) of 0..1.

    Raises:
        RainmerError: Its runtime cannot run it.
    """
    largest, squares, count = 0.0, 0.0, 0
    run = _opened(path, request)
    for sample, target in zip(samples, wanted, strict=True):
        [restored] = run(sample, (OUTPUT,))
        batch = torch.from_numpy(restored).float()
        batch = batch if request.layout == "nchw" else batch.permute(0, 3, 1, 2)
        target = target.mul(255.0)
        if request.frames == "uint8":
            target = target.round()
        else:
            batch = batch.mul(255.0)
        error = (batch - target).abs().double()
        if not torch.isfinite(error).all():
            return Difference(math.nan, -math.inf)
        largest = max(largest, float(error.max()))
        squares, count = squares + float((error * error).sum()), count + error.numel()
    mean = squares / count
    return Difference(largest, 10.0 * math.log10(255.0**2 / mean) if mean else math.inf)


def _opened(
    path: Path, request: ExportRequest
) -> Callable[[Tensor, Sequence[str]], list[npt.NDArray[Any]]]:
    """Open a file as a function of levels (B, 3, H, W) and the names of outputs."""
    if request.format == "torchscript":
        with quiet():
            module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

        def results(values: npt.NDArray[Any], names: Sequence[str]) -> list[npt.NDArray[Any]]:
            with torch.no_grad():
                given = module(torch.from_numpy(values))
            return [value.numpy() for value in (given if isinstance(given, tuple) else (given,))]
    else:
        results = OPENERS[request.format](path).run

    def run(levels: Tensor, names: Sequence[str]) -> list[npt.NDArray[Any]]:
        try:
            return results(as_input(levels, request), names)
        except RuntimeError as error:
            reason = first_line(error)
            raise RainmerError(f"{request.format} cannot run its file: {reason}") from error

    return run


def first_differing(
    graph: DerainGraph, request: ExportRequest, levels: Tensor, beside: Path
) -> str:
    """Name the first layer whose values in a file differ from PyTorch's.

    The layers' values become further outputs of a second file, which is removed again.

    Args:
        graph: What was exported.
        request: How; int8 is named by its float32 file, which tells what the quantiser met.
        levels: Frames (B, 3, H, W).
        beside: A file beside which the second one may be.
    """
    probed = _Probed(graph)
    with torch.no_grad():
        wanted = probed(torch.from_numpy(as_input(levels, request)))
    names = tuple(probed.names)
    path = beside.with_name(f"{beside.stem}-layers{beside.suffix}")
    try:
        write_format(
            probed,
            request,
            path,
            {},
            calibration=lambda: [as_input(levels, request)],
            outputs=names,
        )
        found = _opened(path, request)(levels, names)
    finally:
        path.unlink(missing_ok=True)
        path.with_suffix(".bin").unlink(missing_ok=True)
    for name, ours, theirs in zip(names, found, wanted, strict=True):
        target = theirs.float().numpy()
        error = np.abs(ours.astype(np.float32) - target).max()
        if not error <= _LAYER_BOUND * max(1.0, float(np.abs(target).max())):
            return name
    return OUTPUT


class _Probed(nn.Module):
    """A graph whose layers' results are outputs before its own.

    Args:
        graph: The graph.

    Attributes:
        names: Of the outputs, in the order in which they are computed; known after a run.
    """

    def __init__(self, graph: DerainGraph) -> None:
        super().__init__()
        self.graph = graph
        self.names: list[str] = []

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return the result of every layer, and at last the frames."""
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Any:  # noqa: ANN401 (a hook of torch)
            def hook(module: nn.Module, given: object, result: object) -> None:
                if isinstance(result, Tensor) and result.ndim == 4:
                    seen.setdefault(name, result)

            return hook

        hooks = [
            layer.register_forward_hook(keep(name))
            for name, layer in self.graph.network.named_modules()
            if name and name.count(".") <= 1
        ]
        derained = self.graph(frames)
        for hook in hooks:
            hook.remove()
        self.names = [*seen, OUTPUT]
        return (*seen.values(), derained)
