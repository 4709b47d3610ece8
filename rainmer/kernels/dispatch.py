"""The choice between a kernel and its PyTorch twin, and all kernels as functions.

Maps are pixels (B, H, W, C). The twin is a function without arguments that computes the same.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from rainmer.errors import first_line, is_out_of_memory
from rainmer.kernels.prompts import Prompts

__all__ = [
    "attend",
    "attention_matrices",
    "channel_norm",
    "depthwise",
    "fits",
    "fits_map",
    "mixture",
    "norm_linear",
    "pair_sums",
    "twins_only",
]

_TYPES = (torch.bfloat16, torch.float16, torch.float32)
_PRODUCT_TYPES = (torch.bfloat16, torch.float16)
"""Types of kernels that multiply matrices: without TF32, products of float32 spill registers."""
_WIDEST = 128
"""Most channels of those kernels; wider ones are bound by products, not bytes."""
_LONGEST = 64
"""Longest row of an attention map that fits into the registers of a program."""

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


class _Switch:
    """Whether kernels are used at all."""

    on = True


_switch = _Switch()


def fits(pixels: Tensor, *, multiplied: bool = False) -> bool:
    """Whether a map goes to the kernels; not while torch.compile traces, which has its own.

    Args:
        pixels: (B, H, W, C).
        multiplied: Whether the kernel multiplies the pixels by a matrix.
    """
    return (
        _goes_to_kernels(pixels)
        and pixels.dtype in (_PRODUCT_TYPES if multiplied else _TYPES)
        and not (multiplied and pixels.shape[-1] > _WIDEST)
    )


def fits_map(gram: Tensor, heads: int) -> bool:
    """Whether products of q and k (B, 2C, 2C) go to the kernel: a program holds those of a head."""
    return _goes_to_kernels(gram) and gram.shape[-1] // 2 // heads <= _LONGEST


@contextlib.contextmanager
def twins_only() -> Iterator[None]:
    """Run the twins instead of the kernels, in all threads: to compare the two."""
    before, _switch.on = _switch.on, False
    try:
        yield
    finally:
        _switch.on = before


def _goes_to_kernels(given: Tensor) -> bool:
    return _switch.on and _on_device(given) and not torch.compiler.is_compiling()


def _on_device(pixels: Tensor) -> bool:
    return pixels.is_cuda


def _choose(pixels: Tensor, kernel: Callable[[], _Result], twin: Callable[[], _Result]) -> _Result:
    """Run the kernel, or the twin: for good once a kernel has failed, with one warning."""
    if not _switch.on:
        return twin()
    here = torch.cuda.device(pixels.device) if pixels.is_cuda else contextlib.nullcontext()
    try:
        with here:  # Triton launches on the current device
            return kernel()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # Triton may be missing, too old for the GPU, or without a compiler; an error of the input
        # itself is raised by the twin.
        _switch.on = False
        _log.warning("Triton kernels failed, going on without: %s", first_line(error))
        return twin()


def channel_norm(
    pixels: Tensor,
    gain: Tensor,
    shift: Tensor | None,
    epsilon: float,
    *,
    twin: Callable[[], Tensor],
) -> Tensor:
    """Normalise the channels of each pixel; see `rainmer.models.layers.ChannelNorm`."""

    def kernel() -> Tensor:
        from rainmer.kernels import norm

        return norm.channel_norm(pixels, gain, shift, epsilon)

    return _choose(pixels, kernel, twin)


def norm_linear(
    pixels: Tensor,
    gain: Tensor,
    shift: Tensor | None,
    epsilon: float,
    matrix: Tensor,
    bias: Tensor | None,
    *,
    twin: Callable[[], Tensor],
) -> Tensor:
    """Normalise the channels and multiply them by a matrix (D, C): (B, H, W, D)."""

    def kernel() -> Tensor:
        from rainmer.kernels import norm

        return norm.norm_linear(pixels, gain, shift, epsilon, matrix, bias)

    return _choose(pixels, kernel, twin)


def attend(
    values: Tensor,
    matrices: Tensor,
    pixels: Tensor,
    bias: Tensor | None,
    prompts: Prompts | None,
    *,
    twin: Callable[[], Tensor],
) -> Tensor:
    """Add the products of v with each image's matrix, and the prompts' term, to the pixels."""

    def kernel() -> Tensor:
        from rainmer.kernels import attending

        return attending.attend(values, matrices, pixels, bias, prompts)

    return _choose(pixels, kernel, twin)


def attention_matrices(
    gram: Tensor,
    temperature: Tensor,
    shares: Tensor | None,
    weight: Tensor,
    dtype: torch.dtype,
    *,
    kept: Sequence[int],
    twin: Callable[[], Tensor],
) -> Tensor:
    """Turn products of q and k (B, 2C, 2C) into matrices (B, C in, C out) that multiply v."""

    def kernel() -> Tensor:
        from rainmer.kernels import sparse

        channels = gram.shape[-1] // 2
        out = gram.new_empty(len(gram), channels, channels, dtype=dtype)
        return sparse.attention_matrices(gram, temperature, shares, weight, out, kept=kept)

    return _choose(gram, kernel, twin)


def depthwise(
    pixels: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    *,
    dilation: int,
    relu: bool,
    twin: Callable[[], Tensor],
) -> Tensor:
    """Convolve every channel with its own filter, taps (k, k, C), keeping the size."""

    def kernel() -> Tensor:
        from rainmer.kernels import filters

        return filters.depthwise(pixels, taps, bias, dilation=dilation, relu=relu)

    return _choose(pixels, kernel, twin)


def pair_sums(
    pixels: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    first: int,
    second: int,
    relu: bool,
    twin: Callable[[], Tensor],
) -> Tensor:
    """Filter channels from `first` on and from `second` on, and write the sums to `out`."""

    def kernel() -> Tensor:
        from rainmer.kernels import filters

        return filters.pair_sums(pixels, taps, bias, out, first=first, second=second, relu=relu)

    return _choose(pixels, kernel, twin)


def mixture(
    state: Tensor,
    taps: Tensor,
    inner: Tensor,
    merges: Tensor,
    *,
    twin: Callable[[], Tensor],
) -> Tensor:
    """Run a step of a mixture; see `rainmer.kernels.mixing`."""

    def kernel() -> Tensor:
        from rainmer.kernels import mixing

        return mixing.mixture(state, taps, inner, merges)

    return _choose(state, kernel, twin)
