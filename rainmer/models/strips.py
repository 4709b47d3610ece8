"""Processing large maps in horizontal strips that keep intermediate results in the CPU's cache.

Maps are (B, H, W, C): the memory of a (B, C, H, W) map in channels-last order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rainmer import kernels
from rainmer.models.convolutions import depthwise, maps_of

__all__ = ["Filters", "Rows", "filter_rows", "pixels_of", "strips"]

_STRIP_BYTES = 4 << 20
"""Size of the widest map of a strip on a CPU."""
_LEAST_ROWS = 8  # in a strip, because rows at its borders are computed twice


@dataclass(frozen=True)
class Rows:
    """Rows `first` to `last` (exclusive) of images `height` rows high."""

    first: int
    last: int
    height: int

    def grown(self, margin: int) -> Rows:
        """Return these rows and `margin` rows above and below, clipped to the image."""
        return Rows(max(self.first - margin, 0), min(self.last + margin, self.height), self.height)

    def within(self, outer: Rows) -> slice:
        """Return the slice of these rows in a map that holds only the outer rows."""
        return slice(self.first - outer.first, self.last - outer.first)

    @property
    def in_image(self) -> slice:
        """The slice of these rows in a map of the whole image."""
        return slice(self.first, self.last)


def strips(pixels: Tensor, channels: int) -> Iterator[tuple[slice, Rows]]:
    """Cut (B, H, W, C) into images and rows whose maps of `channels` channels fit into the cache.

    Small images stay whole and are grouped. On a GPU everything is one strip, because small strips
    would not keep it busy.
    """
    count, height, width = pixels.shape[:3]
    if pixels.device.type != "cpu":
        yield slice(0, count), Rows(0, height, height)
        return
    fitting = _STRIP_BYTES / (width * channels * pixels.element_size())  # rows
    parts = max(1, round(height / max(fitting, _LEAST_ROWS)))
    together = max(1, int(fitting / height))  # images
    bounds = [height * i // parts for i in range(parts + 1)]
    for first_image in range(0, count, together):
        images = slice(first_image, min(first_image + together, count))
        for first, last in itertools.pairwise(bounds):
            yield images, Rows(first, last, height)


def pixels_of(maps: Tensor) -> Tensor:
    """Turn (B, C, H, W) into contiguous (B, H, W, C); channels-last maps are not copied."""
    return maps.permute(0, 2, 3, 1).contiguous()


def filter_rows(
    pixels: Tensor,
    given: Rows,
    wanted: Rows,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: int = 1,
) -> Tensor:
    """Apply `layers.depthwise` to pixels of the given rows, for the wanted rows.

    Args:
        pixels: The given rows (B, h, W, C).
        given: The rows that `pixels` holds: those wanted and all that the filters reach.
        wanted: Rows to compute; the image is padded with zeros.
        weight: Filters (C, 1, k, k), k odd.
        bias: (C,).
        dilation: Dilation of the filters.

    Returns:
        The wanted rows (B, H, W, C).
    """
    margin = dilation * (weight.shape[-1] // 2)
    needed = wanted.grown(margin)
    x = maps_of(pixels[:, needed.within(given)])
    inside = needed.last - needed.first == wanted.last - wanted.first + 2 * margin
    filtered = depthwise(x, weight, bias, dilation=dilation, pad_rows=not inside)
    filtered = filtered.permute(0, 2, 3, 1)  # B, H, W, C
    return filtered if inside else filtered[:, wanted.within(needed)]


class Filters(nn.Module):
    """A filter for each channel, and what follows it, for inference.

    Args:
        weight: Filters (C, 1, k, k), k odd.
        bias: (C,).
        dilation: Dilation of the filters.
    """

    weight: Tensor
    bias: Tensor | None
    taps: Tensor  # k, k, C: the order of the kernels

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, dilation: int = 1) -> None:
        super().__init__()
        self.dilation = dilation
        self.margin = dilation * (weight.shape[-1] // 2)
        self.register_buffer("weight", weight.detach().contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.register_buffer("taps", self.weight[:, 0].permute(1, 2, 0).contiguous())

    def forward(self, pixels: Tensor, given: Rows, wanted: Rows, *, relu: bool = False) -> Tensor:
        """Filter, and replace negative results by zeros if asked; see `filter_rows`."""

        def twin() -> Tensor:
            filtered = filter_rows(pixels, given, wanted, self.weight, self.bias, self.dilation)
            return filtered.relu_() if relu else filtered

        if not kernels.fits(pixels):
            return twin()
        return kernels.depthwise(
            pixels, self.taps, self.bias, dilation=self.dilation, relu=relu, twin=twin
        )

    def add_pairs(
        self,
        pixels: Tensor,
        given: Rows,
        wanted: Rows,
        out: Tensor,
        *,
        first: int = 0,
        bias: Tensor | None = None,
        relu: bool = False,
    ) -> None:
        """Filter 2N channels, and add the N channels of the second half to those of the first.

        Args:
            pixels: The given rows (B, h, W, 2N).
            given: See `filter_rows`.
            wanted: See `filter_rows`.
            out: Receives sums (B, H, W, D): of channels `first` and N, and so on.
            first: Channels before those that are added.
            bias: Added to the sums (D,).
            relu: Whether to replace negative sums by zeros.
        """
        second, count = pixels.shape[-1] // 2, out.shape[-1]

        def twin() -> Tensor:
            filtered = filter_rows(pixels, given, wanted, self.weight)
            parts = filtered[..., first : first + count], filtered[..., second : second + count]
            _add_into(out, *parts)
            if bias is not None:
                out.add_(bias)
            if relu:
                out.relu_()
            return out

        if kernels.fits(pixels):
            kernels.pair_sums(
                pixels, self.taps, bias, out, first=first, second=second, relu=relu, twin=twin
            )
        else:
            twin()


def _add_into(target: Tensor, a: Tensor, b: Tensor) -> None:
    """Write a + b into a slice of a map. torch.compile traces a copy there, but not `out=`."""
    if torch.compiler.is_compiling():
        target.copy_(a + b)
    else:
        torch.add(a, b, out=target)
