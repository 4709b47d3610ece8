"""EfficientDeRain: a network that predicts a small filter for every pixel.

Guo et al., "EfficientDeRain: Learning Pixel-wise Dilation Filtering for High-Efficiency
Single-Image Deraining", AAAI 2021. A U-shape predicts one kernel per pixel and colour; the image is
filtered with them at several dilations, and a convolution fuses the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.errors import ConfigError
from rainmer.frames.tiling import pad_to_multiple
from rainmer.models.baselines.published import PublishedNetwork, check_counts
from rainmer.models.layers import channel_conv, conv3x3

__all__ = ["EfficientDeRain", "EfficientDeRainConfig", "filter_pixelwise"]

_CHANNELS = 3
_LEVELS = 5
_CONVS = 3


@dataclass(frozen=True, kw_only=True)
class EfficientDeRainConfig:
    """The options of EfficientDeRain; the defaults are the published size ("v3", "v4").

    Attributes:
        dim: Width of the first level. The next are 2, 4, 8 and 8 times as wide.
        kernel_size: Side of the predicted filters, odd.
        dilations: Spacings of the filters' taps in pixels; each gives one filtered image.

    Raises:
        ConfigError: A value is below 1, or the kernel size even.
    """

    dim: int = 64
    kernel_size: int = 3
    dilations: tuple[int, ...] = (1, 2, 3, 4)

    def __post_init__(self) -> None:
        check_counts(self)
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size is {self.kernel_size}, but must be odd")
        if not self.dilations:
            raise ConfigError("dilations is empty, but must hold at least one spacing")

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the levels, from full resolution down."""
        return tuple(self.dim * factor for factor in (1, 2, 4, 8, 8))


def filter_pixelwise(image: Tensor, kernels: Tensor, dilation: int) -> Tensor:
    """Filter every pixel with its own kernel (sections 3.1 and 3.2 of the paper).

    `out(c, p) = sum_k kernels(c, k, p) * image(c, p + dilation * t_k)`, where t_k runs over the
    square around 0 row by row, and the image is 0 outside.

    Args:
        image: (B, C, H, W).
        kernels: (B, C, K * K, H, W), K odd.
        dilation: Spacing of the taps in pixels.

    Returns:
        (B, C, H, W).

    Example:
        >>> image = torch.arange(9.0).view(1, 1, 3, 3)
        >>> average = torch.full((1, 1, 9, 3, 3), 1 / 9)
        >>> filter_pixelwise(image, average, 1)[0, 0, 1, 1].item()
        4.0
    """
    height, width = image.shape[-2:]
    side = round(kernels.shape[2] ** 0.5)
    reach = side // 2 * dilation
    padded = F.pad(image, (reach, reach, reach, reach))
    filtered = torch.zeros_like(image)
    # One tap at a time: unfolding the image would take K * K times its memory.
    for tap, kernel in enumerate(kernels.unbind(2)):
        top, left = (dilation * place for place in divmod(tap, side))
        filtered = filtered + kernel * padded[..., top : top + height, left : left + width]
    return filtered


class EfficientDeRain(PublishedNetwork):
    """The network: U-shape, filters per pixel, fusion.

    Published evaluation resizes images to multiples of 16 and the results back; here they are
    padded and cropped. Results are the same where both sides divide by 16.

    Args:
        config: The options; default: the published size.

    Example:
        >>> tiny = EfficientDeRainConfig(dim=4)
        >>> EfficientDeRain(tiny).eval()(torch.rand(1, 3, 21, 33)).shape
        torch.Size([1, 3, 21, 33])
    """

    name = "efficientderain"
    size_multiple = 2 ** (_LEVELS - 1)
    takes_query = False
    config_class = EfficientDeRainConfig
    without_effect = r"(?!)"  # matches no key
    renames = (
        *((rf"^encoder\.{level}\.", f"conv{level + 1}.conv1.") for level in range(_LEVELS)),
        *((rf"^decoder\.{step}\.", f"conv{step + 1 + _LEVELS}.conv1.") for step in range(3)),
        (r"^kernels\.", "outc."),
        (r"^fuse\.", "conv_final."),
    )
    config: EfficientDeRainConfig

    def __init__(self, config: EfficientDeRainConfig | None = None) -> None:
        super().__init__(config)
        widths = self.config.widths
        _, width2, width3, width4, width5 = widths
        filters = _CHANNELS * self.config.kernel_size**2
        self.encoder = nn.ModuleList(_convs(a, b) for a, b in pairwise((_CHANNELS, *widths)))
        # Full resolution has no decoder step: filters are predicted at half of it and resized.
        self.decoder = nn.ModuleList(
            [
                _convs(width4 + width5, width4),
                _convs(width3 + width4, width3),
                _convs(width2 + width3, filters),
            ]
        )
        self.kernels = channel_conv(filters, filters, bias=True)
        self.fuse = conv3x3(_CHANNELS * len(self.config.dilations), _CHANNELS, bias=True)

    def forward(self, image: Tensor) -> Tensor:
        """Restore rainy images (B, 3, H, W), RGB, 0..1, any H and W; the output is not clamped."""
        padded = pad_to_multiple(image, self.size_multiple)
        restored = self._restore(padded.contiguous(memory_format=torch.channels_last))
        return restored[..., : image.shape[2], : image.shape[3]]

    def _restore(self, image: Tensor) -> Tensor:
        kernels = self.predict_kernels(image)
        filtered = [
            filter_pixelwise(image, kernels, dilation) for dilation in self.config.dilations
        ]
        # No skip connection from the image: the filters pass it on.
        return cast(Tensor, self.fuse(torch.cat(filtered, dim=1)))

    def predict_kernels(self, image: Tensor) -> Tensor:
        """Predict filters (B, 3, K * K, H, W) for (B, 3, H, W); sides are multiples of 16."""
        features, levels = image, []
        for index, convs in enumerate(self.encoder):
            features = convs(F.avg_pool2d(features, 2) if index else features)
            levels.append(features)
        # Neither the full-resolution features nor those of the bottom have a skip connection.
        for convs, skipped in zip(self.decoder, reversed(levels[1:-1]), strict=True):
            features = convs(torch.cat((skipped, _double(features)), dim=1))
        # The published code resizes before this convolution, at four times the cost. The result is
        # the same, because the weights of an interpolation sum to one.
        kernels = _double(self.kernels(features))
        return kernels.view(len(image), _CHANNELS, -1, *image.shape[-2:])

    @classmethod
    def options_of(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Read all options; dilations are assumed to be 1, 2, and so on."""
        taps = weights["outc.weight"].shape[0] // _CHANNELS
        dilations = weights["conv_final.weight"].shape[1] // _CHANNELS
        return {
            "dim": weights["conv1.conv1.0.weight"].shape[0],
            "kernel_size": round(taps**0.5),
            "dilations": tuple(range(1, dilations + 1)),
        }


def _convs(channels_in: int, channels_out: int) -> nn.Sequential:
    """Make three 3x3 convolutions, each followed by a ReLU."""
    layers: list[nn.Module] = []
    for index in range(_CONVS):
        layers += [conv3x3(channels_out if index else channels_in, channels_out, bias=True)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
