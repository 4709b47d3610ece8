"""What `benchmarks.gpu` times of `rainmer.kernels`: each at the widest maps of `rainmer-s`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rainmer.models.attention import products_and_squares
from rainmer.models.blocks import TransformerBlock
from rainmer.models.folding import Normed
from rainmer.models.fused import FusedCompensator, FusedTransformerBlock
from rainmer.models.layers import ChannelNorm, FeatureCompensator
from rainmer.models.rainmer_config import RainmerConfig
from rainmer.models.strips import Filters, Rows

__all__ = ["KernelCase", "kernel_cases"]

_STRIDE = 2  # of the entry of `rainmer-s`


@dataclass(frozen=True)
class KernelCase:
    """One call that runs a kernel where it can, else its twin.

    Attributes:
        name: What is computed.
        shape: The map (B, H, W, C).
        moved: Bytes that the kernel reads and writes.
        call: Runs it.
        twin: The other way, where that is not `call` under `twins_only`.
    """

    name: str
    shape: tuple[int, ...]
    moved: int
    call: Callable[[], object]
    twin: Callable[[], object] | None = None


@torch.no_grad()
def kernel_cases(
    device: torch.device, size_hw: tuple[int, int], dtype: torch.dtype, batch: int = 4
) -> Iterator[KernelCase]:
    """Yield the cases for frames of a size, those that save most first."""
    height, width = (side // _STRIDE for side in size_hw)
    rows, whole = Rows(0, height, height), slice(None)

    def make(name: str, channels: int, maps: float, of: Callable[[Tensor], object]) -> KernelCase:
        x = torch.rand(batch, height, width, channels, device=device).to(dtype)
        moved = int(maps * x.numel() * x.element_size())
        return KernelCase(name, tuple(x.shape), moved, lambda: of(x))

    def filters(channels: int, side: int, dilation: int = 1) -> Filters:
        weight = torch.rand(channels, 1, side, side, device=device).to(dtype)
        return Filters(weight, dilation=dilation)

    shares = torch.rand(batch, 8, device=device)
    for channels in (32, 16):
        step = FusedCompensator(FeatureCompensator(channels, 1)).to(device, dtype).steps[0]
        yield make("mixture", channels, 9, lambda x, step=step: step(x, shares))
    plain, pairs = filters(64, 5), filters(64, 5)
    sums = torch.empty(batch, height, width, 32, device=device, dtype=dtype)
    yield make("sums of pairs 5x5", 64, 1.5, lambda x: pairs.add_pairs(x, rows, rows, sums))
    yield make("filter 5x5 and ReLU", 64, 2, lambda x: plain(x, rows, rows, relu=True))
    dilated, small = filters(32, 7, 2), filters(96, 3)
    yield make("filter 3x3", 96, 2, lambda x: small(x, rows, rows))
    yield make("filter 7x7, dilated", 32, 2, lambda x: dilated(x, rows, rows))
    norm = ChannelNorm(32).to(device, dtype)
    matrix = torch.rand(96, 32, device=device).to(dtype)
    yield make("norm and product", 32, 4, lambda x: Normed(norm, x).product(whole, matrix, None))
    block = TransformerBlock(32, 2, RainmerConfig(base_dim=64), prompted=True)
    fused = FusedTransformerBlock(block).to(device, dtype)
    assert fused.prompts is not None
    prompts = fused.prompts.of(torch.rand(batch, 2, 64, device=device), dtype)
    square = torch.rand(batch, 32, 32, device=device).to(dtype)
    yield make("end of an attention", 32, 3, lambda x: fused.attended(x, square, x, prompts, whole))
    gram, of_gram = torch.rand(batch, 64, 64, device=device), fused.attention.from_gram
    yield KernelCase(
        "attention matrices", (batch, 64, 64), gram.nbytes, lambda: of_gram(gram, dtype)
    )
    case = make("products of q and k", 64, 1, lambda x: products_and_squares(x.flatten(1, 2), 2))
    both = torch.rand(batch, height * width, 64, device=device).to(dtype)
    yield replace(case, twin=lambda: products_and_squares(both.float(), 2))
