"""PSNR and SSIM of restored images, in the conventions of published tables.

| convention | PSNR | SSIM |
| --- | --- | --- |
| `matlab` | luma rounded to 8 bits | that luma |
| `matlab_double` | luma of 8-bit images, not rounded itself | that luma |
| `official` | luma without any rounding | that luma, averaged down from a short side of 384 on |
| `rgb` | all three channels, without any rounding | mean over the three channels |

`matlab` is used by Restormer's scripts and most later tables (`rgb2ycbcr` of uint8),
`matlab_double` by PReNet's scripts and earlier tables (`im2double` comes first), `official` by
Rainmer's published code. At 30 dB they agree to about 0.02 dB. The SSIM of `matlab` is
about 0.001 lower, because rounding the luma adds noise to smooth areas. That of `official` is
higher for large images, because averaging hides fine errors. PSNR on RGB is 1 to 1.5 dB lower.

SSIM uses a Gaussian window of 11x11 pixels with a standard deviation of 1.5, only at positions
where it lies inside the image, K1 = 0.01, K2 = 0.03, and biased variances (Wang et al., Image
quality assessment, IEEE TIP 2004).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rainmer.errors import ConfigError, ImageError
from rainmer.frames.arrays import quantize

__all__ = ["Convention", "luma", "luma_8bit", "psnr", "restoration_scores", "ssim"]

Convention = Literal["matlab", "matlab_double", "official", "rgb"]

WINDOW = 11
"""Side of the window of SSIM in pixels; smaller images have no SSIM."""

_SIGMA = 1.5
_C1 = 0.01**2
_C2 = 0.03**2
_POOLED_SIDE = 256  # short side in pixels that `official` averages down to, about

_LUMA = (0.256789, 0.504129, 0.097906)
_LUMA_OFFSET = 16 / 255
# MATLAB's rgb2ycbcr has 65.481, 128.553 and 24.966 over 255: thousandths keep the sum whole.
_LUMA_THOUSANDTHS = (65481, 128553, 24966)


@torch.no_grad()
def psnr(preds: Tensor, target: Tensor, *, convention: Convention = "matlab") -> Tensor:
    """Return the peak signal-to-noise ratio of each image, 10 log10(peak² / mean squared error).

    Args:
        preds: Restored images (B, 3, H, W), RGB, uint8 of 0..255 or floating point of 0..1. Values
            outside 0..1 are clamped, as when a file is written.
        target: Clean images of the same shape; the type may differ.
        convention: What is compared; see the table above. Where it says 8 bits, floating-point
            images are rounded first, as `rainmer.frames` writes them.

    Returns:
        Decibels, float64 (B,), on the CPU; infinity for equal images.

    Raises:
        ImageError: The shapes differ or are not (B, 3, H, W), or a type or range is wrong.
        ConfigError: There is no such convention.

    Example:
        >>> clean = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
        >>> psnr(clean + 10, clean, convention="rgb")  # 20 log10(255 / 10)
        tensor([28.1308], dtype=torch.float64)
    """
    errors = [_squared_error(*pair) for pair in _compared(preds, target, convention)]
    return _decibels(_collect(errors))


@torch.no_grad()
def ssim(preds: Tensor, target: Tensor, *, convention: Convention = "matlab") -> Tensor:
    """Return the structural similarity of each image.

    Args:
        preds: As in `psnr`.
        target: As in `psnr`.
        convention: What is compared; see the table above.

    Returns:
        Similarities of -1..1, float64 (B,), on the CPU; exactly 1 for equal images, NaN for images
        with a side below 11 pixels, because the window does not fit.

    Raises:
        ImageError: The shapes differ or are not (B, 3, H, W), or a type or range is wrong.
        ConfigError: There is no such convention.

    Example:
        >>> clean = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
        >>> ssim(clean, clean)
        tensor([1.], dtype=torch.float64)
    """
    pairs = _compared(preds, target, convention)
    if convention == "official":
        pairs = (_averaged_down(*pair) for pair in pairs)
    return _collect([_ssim(*pair) for pair in pairs])


@torch.no_grad()
def restoration_scores(preds: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return PSNR and SSIM in the `matlab` and in the `official` convention.

    Args:
        preds: As in `psnr`.
        target: As in `psnr`.

    Returns:
        `psnr`, `ssim`, `psnr_official` and `ssim_official`, each float64 (B,), on the CPU.

    Raises:
        ImageError: The shapes differ or are not (B, 3, H, W), or a type or range is wrong.
    """
    errors, similarities, exact_errors, pooled_similarities = [], [], [], []
    exact_pairs = _compared(preds, target, "official")
    for rounded, exact in zip(_compared(preds, target, "matlab"), exact_pairs, strict=True):
        errors.append(_squared_error(*rounded))
        similarities.append(_ssim(*rounded))
        exact_errors.append(_squared_error(*exact))
        pooled_similarities.append(_ssim(*_averaged_down(*exact)))
    return {
        "psnr": _decibels(_collect(errors)),
        "ssim": _collect(similarities),
        "psnr_official": _decibels(_collect(exact_errors)),
        "ssim_official": _collect(pooled_similarities),
    }


def luma(images: Tensor) -> Tensor:
    """Return the luma Y / 255 of BT.601 (16..235 of 255), without rounding.

    Args:
        images: (..., 3, H, W), RGB, uint8 of 0..255 or floating point of 0..1.

    Returns:
        Float32 (..., H, W), 0.063..0.922.
    """
    red, green, blue = _unit_range(images).unbind(-3)
    weighted = red * _LUMA[0]
    return weighted.add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2]).add_(_LUMA_OFFSET)


def luma_8bit(images: Tensor) -> Tensor:
    """Return the luma of MATLAB's `rgb2ycbcr` for 8-bit images: rounded, ties upwards.

    It is computed in whole numbers, so it is the same on every device. Floating-point images are
    rounded to 8 bits first.

    Args:
        images: (..., 3, H, W), RGB, uint8 of 0..255 or floating point of 0..1.

    Returns:
        Int32 (..., H, W), 16..235.

    Example:
        >>> luma_8bit(torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 1, 2))
        tensor([[[ 16, 235]]], dtype=torch.int32)
    """
    red, green, blue = _quantized(images).int().unbind(-3)
    weighted = red * _LUMA_THOUSANDTHS[0]
    weighted.add_(green, alpha=_LUMA_THOUSANDTHS[1]).add_(blue, alpha=_LUMA_THOUSANDTHS[2])
    return weighted.add_(127_500).div_(255_000, rounding_mode="floor").add_(16)


def _compared(
    preds: Tensor, target: Tensor, convention: Convention
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return what a convention compares: pairs of float32 (C, H, W) in 0..1, one for each image.

    One image at a time fits into a CPU's cache and is faster than the whole batch at once.
    """
    if convention not in _PLANES:
        known = ", ".join(_PLANES)
        raise ConfigError(f"no convention {convention!r} of PSNR and SSIM: use one of {known}")
    if preds.shape != target.shape:
        raise ImageError(
            f"restored images are {tuple(preds.shape)} but clean ones {tuple(target.shape)}"
        )
    _check(preds)
    _check(target)
    planes = _PLANES[convention]
    return ((planes(first), planes(second)) for first, second in zip(preds, target, strict=True))


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ImageError(f"expected images (B, 3, H, W), but got {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise ImageError(f"expected images of uint8 or floating point, but got {images.dtype}")
    # Networks overshoot a little; floating-point values of 0..255 are a mistake, and so is NaN.
    if images.numel() and not float(images.abs().amax()) <= 2.0:
        raise ImageError("floating-point images must lie in 0..1; divide those of 0..255 by 255")


def _unit_range(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images.float().div_(255.0)
    return images.float().clamp(0.0, 1.0)


def _quantized(images: Tensor) -> Tensor:
    return images if images.dtype == torch.uint8 else quantize(images)


_PLANES: dict[str, Callable[[Tensor], Tensor]] = {
    "matlab": lambda image: luma_8bit(image).div(255.0).unsqueeze(0),
    "matlab_double": lambda image: luma(_quantized(image)).unsqueeze(0),
    "official": lambda image: luma(image).unsqueeze(0),
    "rgb": _unit_range,
}


def _collect(scores: list[Tensor]) -> Tensor:
    """Move the scores of all images to the CPU in one transfer, as float64 (B,)."""
    return torch.stack(scores).cpu().double() if scores else torch.empty(0, dtype=torch.float64)


def _squared_error(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).square_().mean()


def _decibels(squared_errors: Tensor) -> Tensor:
    return -10.0 * squared_errors.log10()


def _averaged_down(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Average (C, H, W) down to a short side of about 256 pixels; drop incomplete blocks."""
    # Python rounds halves to even: 384 pixels give a factor of 2, 640 give 2, 896 give 4.
    factor = max(1, round(min(first.shape[-2:]) / _POOLED_SIDE))
    if factor == 1:
        return first, second
    return avg_pool2d(first, factor), avg_pool2d(second, factor)


def _ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the SSIM of (C, H, W), both of 0..1, as the mean over the channels."""
    if min(first.shape[-2:]) < WINDOW:
        return first.new_tensor(math.nan)
    return torch.stack([_ssim_of_planes(*pair) for pair in zip(first, second, strict=True)]).mean()


def _ssim_of_planes(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean SSIM of (H, W), both of 0..1.

    With the sum s and the difference d of the images, SSIM needs four filtered maps instead of
    five: S and D being local means, 2 μ₁ μ₂ = (S² - D²) / 2 and μ₁² + μ₂² = (S² + D²) / 2, and
    likewise for the (co)variances. Equal images get exactly 1, and the result is symmetric.
    """
    # An offset does not change variances; around 0 they lose fewer digits.
    total = (first + second).sub_(1.0)
    difference = first - second
    mean_s, mean_d = _gaussian_filter(total), _gaussian_filter(difference)
    variance_s = _gaussian_filter(total.square_()).addcmul_(mean_s, mean_s, value=-1.0)
    variance_d = _gaussian_filter(difference.square_()).addcmul_(mean_d, mean_d, value=-1.0)
    square_s, square_d = mean_s.add_(1.0).square_(), mean_d.square_()
    luminance = (square_s - square_d).add_(2 * _C1) / square_s.add_(square_d).add_(2 * _C1)
    contrast = (variance_s - variance_d).add_(2 * _C2) / variance_s.add_(variance_d).add_(2 * _C2)
    return luminance.mul_(contrast).mean()


def _gaussian_filter(plane: Tensor) -> Tensor:
    """Filter (H, W) with the Gaussian window where it fits, giving (H - 10, W - 10).

    One pass along each axis, as a sum of shifted views: on a CPU this is many times as fast as a
    convolution with one channel.
    """
    for axis in (0, 1):
        size = plane.shape[axis] - WINDOW + 1
        filtered = torch.zeros_like(plane.narrow(axis, 0, size))
        for shift, weight in enumerate(_gaussian_weights()):
            filtered.add_(plane.narrow(axis, shift, size), alpha=weight)
        plane = filtered
    return plane


@functools.cache
def _gaussian_weights() -> tuple[float, ...]:
    """Return the weights of the window along one axis; their sum is 1."""
    radius = WINDOW // 2
    weights = [math.exp(-(x**2) / (2 * _SIGMA**2)) for x in range(-radius, radius + 1)]
    return tuple(weight / sum(weights) for weight in weights)
