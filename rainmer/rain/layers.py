"""Rain as in the benchmarks: sums of motion-blurred noise.

Rain100H, Rain800 (Test100), Rain12600 and Test1200 were drawn by such recipes: random pixels are
thresholded and blurred along a line, several layers of different lengths, widths, densities and
slants are summed, and the sum is added to the picture or screened with it until it saturates.
Unlike lines of one width, the streaks of such a layer have soft ends, overlap, vary in brightness,
and lie on a raised floor.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from rainmer.rain.randomness import uniform

__all__ = ["noise_layers"]

_PEAK = 0.995  # the quantile of a layer that its strength stands for
_BRIGHTEST = 1.6  # of a layer, relative to that quantile
_FLOOR = 0.10  # the quantile of a layer that counts as its floor
_TAPER = 1.15  # a streak keeps its full brightness up to the root of 0.15 of its half length

Draw = Callable[[str, int], Tensor]
"""Values (B,) of a field of `RainConfig` for a numbered layer."""


def noise_layers(
    draw: Draw, keys: Tensor, size_hw: tuple[int, int], *, frame_width: Tensor
) -> Tensor:
    """Draw streaks as sums of motion-blurred noise.

    Args:
        draw: Returns the density, strength, length, width and slant of each layer.
        keys: Random keys (B,).
        size_hw: (height, width) in pixels.
        frame_width: Width of whole frames in pixels (B,), float64; streaks grow with it.

    Returns:
        Light of the streaks (B, 1, H, W), 0 or more, to be added to frames of 0..1.
    """
    counts = draw("layers", 0).round()
    total = torch.zeros(len(keys), *size_hw, device=keys.device)
    for layer in range(int(counts.max().item())):
        strength = torch.where(counts > layer, draw("layer_strength", layer), 0.0)
        total += strength[:, None, None] * _layer(draw, keys, layer, size_hw, frame_width)
    mean = total.mean((1, 2)).clamp_min(1e-6)
    total *= (draw("layer_most", 0) / mean).clamp_max(1.0)[:, None, None]
    return (total + draw("layer_floor", 0)[:, None, None])[:, None]


def _layer(
    draw: Draw, keys: Tensor, layer: int, size_hw: tuple[int, int], frame_width: Tensor
) -> Tensor:
    """Return one layer (B, H, W), 0 on its floor and 1 where its bright streaks are."""
    seeds = _seeds(draw("layer_density", layer), keys, layer, size_hw)
    scale = (frame_width / 640).clamp_min(1.0).float()
    kernel = _streak(
        (draw("layer_length", layer) * frame_width.float()).clamp_min(2.0),
        draw("layer_width_px", layer) * scale,
        torch.deg2rad(draw("layer_slant_deg", layer)),
        size_hw,
    )
    if seeds.is_cuda:
        blurred = _blur(seeds, kernel)
    else:
        # One at a time: transforms of a batch round differently from those of a single image, and
        # an image must not depend on its batch.
        blurred = torch.stack([_blur(*pair) for pair in zip(seeds, kernel, strict=True)])
    floor, peak = (_quantile(blurred, share)[:, None, None] for share in (_FLOOR, _PEAK))
    return ((blurred - floor) / (peak - floor).clamp_min(1e-6)).clamp(0.0, _BRIGHTEST)


def _blur(seeds: Tensor, kernel: Tensor) -> Tensor:
    """Convolve (..., H, W) with kernels around pixel (0, 0), by Fourier transforms.

    The frame wraps around: noise has no edge.
    """
    product = torch.fft.rfft2(seeds) * torch.fft.rfft2(kernel)
    blurred: Tensor = torch.fft.irfft2(product, s=seeds.shape[-2:])
    return blurred.clamp_min(0.0)


def _quantile(maps: Tensor, share: float) -> Tensor:
    """Return a quantile of each map (B, H, W) as (B,); `torch.quantile` refuses large batches."""
    pixels = maps.flatten(1)
    rank = 1 + round(share * (pixels.shape[1] - 1))
    return pixels.kthvalue(rank, dim=1).values


def _seeds(density: Tensor, keys: Tensor, layer: int, size_hw: tuple[int, int]) -> Tensor:
    """Return random pixels (B, H, W), 0..1, of which a share of `density` is above 0."""
    height, width = size_hw
    pixels = torch.arange(height * width, device=keys.device).view(1, height, width)
    stream = zlib.crc32(b"layer seeds") + 2 * layer
    key, density = keys[:, None, None], density[:, None, None]
    above = ((uniform(key, pixels, stream) - (1.0 - density)) / density).clamp_min(0.0)
    return above * uniform(key, pixels, stream + 1)


def _streak(length: Tensor, width: Tensor, slant: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Return a streak around pixel (0, 0) of a torus (B, H, W), its sum 1.

    Args:
        length: In pixels (B,).
        width: Between the half-bright edges, in pixels (B,).
        slant: Angle to the vertical in radians (B,).
        size_hw: (height, width) in pixels.
    """
    rows, columns = (
        (torch.arange(side, device=length.device) + side // 2) % side - side // 2
        for side in size_hw
    )
    sine, cosine = (f(slant)[:, None, None] for f in (torch.sin, torch.cos))
    along = columns * sine + rows[:, None] * cosine  # (B, H, W)
    across = columns * cosine - rows[:, None] * sine
    half = 0.5 * length[:, None, None]
    body = (_TAPER - (along / half).square()).clamp(0.0, 1.0) * (along.abs() <= half)
    kernel = body * (1.0 - across.abs() / width[:, None, None].clamp_min(1.0)).clamp_min(0.0)
    return kernel / kernel.sum((1, 2), keepdim=True)
