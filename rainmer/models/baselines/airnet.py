"""AirNet: one network for several degradations, guided by a map of the degradation.

Li et al., "All-In-One Image Restoration for Unknown Corruption", CVPR 2022. An encoder, trained by
contrast between degradations, describes the image's degradation; a restorer deforms its
convolutions and scales its features accordingly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.errors import SpecError
from rainmer.models.baselines.published import PublishedNetwork, check_counts
from rainmer.models.layers import LEAKY_SLOPE, channel_conv, conv3x3
from rainmer.models.network import count_modules

__all__ = ["AirNet", "AirNetConfig"]

_CHANNELS = 3
_KERNEL = 3
_TAPS = _KERNEL**2


@dataclass(frozen=True, kw_only=True)
class AirNetConfig:
    """The options of AirNet; the defaults are the published size.

    Attributes:
        dim: Width of all features.
        groups: Groups of the restorer.
        blocks: Guided blocks in each group.

    Raises:
        ConfigError: A value is below 1.
    """

    dim: int = 64
    groups: int = 5
    blocks: int = 5

    def __post_init__(self) -> None:
        check_counts(self)


class DegradationEncoder(nn.Module):
    """Describe the degradation of an image by a map: a residual block with batch norms.

    It is the first block of the published encoder ("CBDE" in the paper). The later blocks serve
    the contrastive training only.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(_CHANNELS, dim, bias=False)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv2 = conv3x3(dim, dim, bias=False)
        self.norm2 = nn.BatchNorm2d(dim)
        self.shortcut = channel_conv(_CHANNELS, dim, bias=False)
        self.shortcut_norm = nn.BatchNorm2d(dim)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to degradation maps (B, dim, H, W)."""
        hidden = F.leaky_relu(self.norm1(self.conv1(image)), LEAKY_SLOPE)
        branch = self.norm2(self.conv2(hidden))
        return F.leaky_relu(branch + self.shortcut_norm(self.shortcut(image)), LEAKY_SLOPE)


class GuidedDeformation(nn.Module):
    """Modulated deformable 3x3 convolution with offsets that follow the degradation.

    At pixel p: `sum_k weight_k * m_k(p) * x(p + p_k + offset_k(p))`, with x interpolated bilinearly
    and zero outside the image, and m the sigmoid of a map predicted together with the offsets
    (Zhu et al., "Deformable ConvNets v2", CVPR 2019, equation 1).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim, _KERNEL, _KERNEL))
        bound = 1 / math.sqrt(dim * _TAPS)
        nn.init.uniform_(self.weight, -bound, bound)
        self.offsets = conv3x3(2 * dim, 3 * _TAPS, bias=True)
        # Training starts from the plain grid, as published.
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(cast(Tensor, self.offsets.bias))

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        """Map features and a degradation map, both (B, C, H, W), to (B, C, H, W)."""
        predicted = self.offsets(torch.cat((x, degradation), dim=1))
        # Two channels per tap, vertical shift first; then the modulation of each tap.
        offsets, modulation = predicted.split((2 * _TAPS, _TAPS), dim=1)
        # torchvision has no bfloat16 kernel on every device, not even under autocast.
        dtype = torch.promote_types(x.dtype, torch.float32)
        deformed = _deform_conv2d()(
            x.to(dtype),
            offsets.to(dtype),
            self.weight.to(dtype),
            padding=_KERNEL // 2,
            mask=modulation.to(dtype).sigmoid(),
        )
        return deformed.to(x.dtype)


def _deform_conv2d() -> Callable[..., Tensor]:
    """Import the deformable convolution where it is used: nothing else here needs torchvision.

    Raises:
        SpecError: torchvision is missing, or does not match the installed torch.
    """
    try:
        # Importing it creates tensors, which must not end up on a default device "meta".
        with torch.device("cpu"):
            from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError) as error:
        raise SpecError(
            "airnet: needs the package torchvision, of the release that fits torch: "
            "pip install torchvision"
        ) from error
    return cast("Callable[..., Tensor]", deform_conv2d)


class DegradationGuide(nn.Module):
    """Add two versions of the features to them: deformed, and scaled and shifted ("DGM").

    `x + deform(x, d) + x * scale(d) + shift(d)` for features x and the degradation map d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.deform = GuidedDeformation(dim)
        self.scale = _pointwise_pair(dim)
        self.shift = _pointwise_pair(dim)

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        """Map features and a degradation map, both (B, C, H, W), to (B, C, H, W)."""
        modulated = x * self.scale(degradation) + self.shift(degradation)
        return cast(Tensor, x + self.deform(x, degradation) + modulated)


def _pointwise_pair(dim: int) -> nn.Sequential:
    return nn.Sequential(
        channel_conv(dim, dim, bias=False),
        nn.LeakyReLU(LEAKY_SLOPE),
        channel_conv(dim, dim, bias=False),
    )


class GuidedBlock(nn.Module):
    """Guide, convolution, guide, convolution, with a residual ("DGB")."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.guide1 = DegradationGuide(dim)
        self.conv1 = conv3x3(dim, dim, bias=True)
        self.guide2 = DegradationGuide(dim)
        self.conv2 = conv3x3(dim, dim, bias=True)

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        """Map features and a degradation map, both (B, C, H, W), to (B, C, H, W)."""
        hidden = F.leaky_relu(self.guide1(x, degradation), LEAKY_SLOPE)
        hidden = F.leaky_relu(self.conv1(hidden), LEAKY_SLOPE)
        hidden = F.leaky_relu(self.guide2(hidden, degradation), LEAKY_SLOPE)
        return cast(Tensor, self.conv2(hidden) + x)


class GuidedGroup(nn.Module):
    """Guided blocks and a convolution, with a residual ("DGG")."""

    def __init__(self, dim: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(GuidedBlock(dim) for _ in range(blocks))
        self.merge = conv3x3(dim, dim, bias=True)

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        """Map features and a degradation map, both (B, C, H, W), to (B, C, H, W)."""
        hidden = x
        for block in self.blocks:
            hidden = block(hidden, degradation)
        return cast(Tensor, self.merge(hidden) + x)


class AirNet(PublishedNetwork):
    """The restorer ("DGRN" in the paper) and the part of the encoder that it needs.

    The rest of the encoder, its momentum copy and the queue of negatives, which only contrastive
    training uses, are in published checkpoints too; they are left out.

    Args:
        config: The options; default: the published size.

    Raises:
        SpecError: torchvision, which provides the deformable convolution, is not installed.

    Example:
        >>> AirNet(AirNetConfig(dim=4, groups=1, blocks=1)).eval()(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 3, 9, 7])
    """

    name = "airnet"
    size_multiple = 1
    takes_query = False
    config_class = AirNetConfig
    without_effect = r"E\.E\.(encoder_k\..*|encoder_q\.(E|mlp)\..*|queue|queue_ptr)"
    renames = (
        (r"^encoder\.(conv1|norm1|conv2|norm2)\.", r"E.E.encoder_q.E_pre.backbone.\1."),
        (r"\.backbone\.conv1\.", ".backbone.0."),
        (r"\.backbone\.norm1\.", ".backbone.1."),
        (r"\.backbone\.conv2\.", ".backbone.3."),
        (r"\.backbone\.norm2\.", ".backbone.4."),
        (r"^encoder\.shortcut\.", "E.E.encoder_q.E_pre.shortcut.0."),
        (r"^encoder\.shortcut_norm\.", "E.E.encoder_q.E_pre.shortcut.1."),
        (r"^(head|tail)\.", r"R.\1.0."),
        (r"^groups\.(\d+)\.blocks\.", r"R.body.\1.body."),
        (r"\.guide([12])\.", r".dgm\1."),
        (r"\.deform\.weight$", ".dcn.weight"),
        (r"\.deform\.offsets\.", ".dcn.conv_offset_mask."),
        (r"\.scale\.", ".sft.conv_gamma."),
        (r"\.shift\.", ".sft.conv_beta."),
    )
    config: AirNetConfig

    def __init__(self, config: AirNetConfig | None = None) -> None:
        super().__init__(config)
        _deform_conv2d()  # fails now rather than at the first frame
        dim = self.config.dim
        self.encoder = DegradationEncoder(dim)
        self.head = conv3x3(_CHANNELS, dim, bias=True)
        self.groups = nn.ModuleList(
            GuidedGroup(dim, self.config.blocks) for _ in range(self.config.groups)
        )
        self.merge = conv3x3(dim, dim, bias=True)
        self.tail = conv3x3(dim, _CHANNELS, bias=True)

    def forward(self, image: Tensor) -> Tensor:
        """Restore rainy images (B, 3, H, W), RGB, 0..1, any H and W; the output is not clamped."""
        image = image.contiguous(memory_format=torch.channels_last)
        degradation = self.encoder(image)
        shallow = self.head(image)
        features = shallow
        for group in self.groups:
            features = group(features, degradation)
        # No skip connection from the image: the network outputs the whole result.
        return cast(Tensor, self.tail(self.merge(features) + shallow))

    def _official_name(self, name: str) -> str:
        # In the published lists, the last convolution follows the blocks, or the groups.
        groups, blocks = self.config.groups, self.config.blocks
        name = name.replace(".merge.", f".blocks.{blocks}.")
        if name.startswith("merge."):
            return f"R.body.{groups}.{name.removeprefix('merge.')}"
        return super()._official_name(name)

    @classmethod
    def options_of(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Read all options."""
        offsets = "R.body.{}.body.{}.dgm1.dcn.weight"
        return {
            "dim": weights["R.head.0.weight"].shape[0],
            "groups": count_modules(weights, offsets.format("{}", 0)),
            "blocks": count_modules(weights, offsets.format(0, "{}")),
        }
