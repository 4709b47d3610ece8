"""PromptIR: one network for several degradations, told apart by learned prompts.

Potlapalli et al., "PromptIR: Prompting for All-in-One Blind Image Restoration", NeurIPS 2023. The
backbone is Restormer's (Zamir et al., CVPR 2022): a U-shape of transformer blocks that attend
between channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.errors import ConfigError
from rainmer.frames.tiling import pad_to_multiple
from rainmer.models.attention import SparseChannelAttention
from rainmer.models.baselines.published import PublishedNetwork, check_counts
from rainmer.models.layers import (
    ChannelNorm,
    Downsample,
    Upsample,
    channel_conv,
    conv3x3,
    depthwise_conv,
    global_average,
)
from rainmer.models.network import count_modules
from rainmer.models.rainmer_official import BLOCK_RENAMES, U_SHAPE_RENAMES

__all__ = ["PromptIR", "PromptIRConfig"]

_CHANNELS = 3
_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
_PROMPTS = ("prompt1", "prompt2", "prompt3")


@dataclass(frozen=True, kw_only=True)
class PromptIRConfig:
    """The options of PromptIR; the defaults are the published size.

    Attributes:
        dim: Width of level 1; even. Levels 2, 3 and the bottleneck are 2, 4 and 8 times as wide.
        num_blocks: Transformer blocks at levels 1, 2, 3 and in the bottleneck. Decoder levels have
            as many as their encoder level.
        refinement_blocks: Blocks after the last decoder level.
        heads: Attention heads at levels 1, 2, 3 and in the bottleneck. The blocks that read the
            prompts have as many as level 3.
        ffn_expansion: Hidden width of the feed-forward nets as a multiple of the width.
        prompt_count: Learned components that each prompt is mixed from.
        prompt_channels: Width of the prompts that join the features of level 2 and of level 3, and
            those of the bottleneck.
        prompt_sizes: Side of the components in pixels, in the same order.

    Raises:
        ConfigError: A value is out of range, or a number of heads does not divide its width.
    """

    dim: int = 48
    num_blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    refinement_blocks: int = 4
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    ffn_expansion: float = 2.66
    prompt_count: int = 5
    prompt_channels: tuple[int, int, int] = (64, 128, 320)
    prompt_sizes: tuple[int, int, int] = (64, 32, 16)

    def __post_init__(self) -> None:
        check_counts(self)
        if self.dim % 2:
            raise ConfigError(f"dim is {self.dim}, but must be even: downsampling halves it")
        if int(self.dim * self.ffn_expansion) < 1:
            raise ConfigError(f"ffn_expansion is {self.ffn_expansion}, but must be at least 1/dim")
        prompted = zip(self.widths[1:], self.prompt_channels, strict=True)
        joined = [(width + channels, self.heads[2]) for width, channels in prompted]
        for width, heads in (*zip(self.widths, self.heads, strict=True), *joined):
            if width % heads:
                raise ConfigError(
                    f"heads is {list(self.heads)}, but {heads} does not divide the width {width}"
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of levels 1, 2, 3 and of the bottleneck."""
        return tuple(self.dim * 2**level for level in range(len(_LEVELS)))


class GatedFeedForward(nn.Module):
    """Feed-forward net in which one half of the features gates the other.

    The "gated-Dconv feed-forward network" of Restormer: `reduce(gelu(a) * b)`, where a and b are
    the halves of the expanded features after a 3x3 depthwise convolution.
    """

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.expand = channel_conv(channels, 2 * hidden, bias=False)
        self.depthwise = depthwise_conv(2 * hidden, 3)
        self.reduce = channel_conv(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        gate, value = self.depthwise(self.expand(x)).chunk(2, dim=1)
        return cast(Tensor, self.reduce(F.gelu(gate) * value))


class TransformerBlock(nn.Module):
    """Attention between channels and gated feed-forward, each normed before and added after."""

    def __init__(self, channels: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        # Without sparse rates this is Restormer's dense attention.
        self.attention = SparseChannelAttention(channels, heads)
        self.norm2 = ChannelNorm(channels)
        self.feed_forward = GatedFeedForward(channels, expansion)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        x = x + self.attention(self.norm1(x))
        return cast(Tensor, x + self.feed_forward(self.norm2(x)))


class PromptGenerator(nn.Module):
    """Mix a prompt for each image from learned components (the "prompt generation module").

    `conv(resize(sum_i w_i * component_i))`, with the weights w the softmax of a linear map of the
    features' average.

    Args:
        features: Width of the features that determine the weights.
        channels: Width of the prompt.
        count: Number of components.
        size: Side of the components in pixels.
    """

    def __init__(self, features: int, channels: int, *, count: int, size: int) -> None:
        super().__init__()
        self.components = nn.Parameter(torch.rand(count, channels, size, size))
        self.choose = nn.Linear(features, count)
        self.conv = conv3x3(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Make a prompt (B, channels, H, W) from features (B, features, H, W)."""
        weights = self.choose(global_average(x)).softmax(-1)
        mixed = torch.einsum("bn,nchw->bchw", weights, self.components.to(weights.dtype))
        resized = F.interpolate(mixed, x.shape[-2:], mode="bilinear", align_corners=False)
        return cast(Tensor, self.conv(resized))


class PromptInteraction(nn.Module):
    """Combine a prompt and the features in a transformer block (the "prompt interaction module").

    Args:
        prompt: The generator of the prompt.
        channels: Width of features and prompt together.
        width: Width of the result.
        heads: Attention heads of the block.
        expansion: Hidden width of its feed-forward net as a multiple of the width.
    """

    def __init__(
        self, prompt: PromptGenerator, *, channels: int, width: int, heads: int, expansion: float
    ) -> None:
        super().__init__()
        self.prompt = prompt
        self.block = TransformerBlock(channels, heads, expansion)
        self.reduce = channel_conv(channels, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, C, H, W) to (B, width, H, W)."""
        return cast(Tensor, self.reduce(self.block(torch.cat((x, self.prompt(x)), dim=1))))


class PromptIR(PublishedNetwork):
    """The network; all-in-one and single-task weights have the same form.

    Published checkpoints also hold six convolutions that no output depends on; they are left out.
    The prompts depend on averages over the input: tiles of a frame may get different prompts than
    the whole frame.

    Args:
        config: The options; default: the published size.

    Example:
        >>> tiny = PromptIRConfig(dim=8, num_blocks=(1, 1, 1, 1), prompt_channels=(8, 8, 8))
        >>> PromptIR(tiny).eval()(torch.rand(1, 3, 21, 33)).shape
        torch.Size([1, 3, 21, 33])
    """

    name = "promptir"
    size_multiple = 8
    takes_query = False
    config_class = PromptIRConfig
    without_effect = r"(chnl_reduce|reduce_noise_channel_)[123]\.weight"
    renames = (
        *U_SHAPE_RENAMES,
        (r"^interaction([123])\.prompt\.components$", r"prompt\1.prompt_param"),
        (r"^interaction([123])\.prompt\.choose\.", r"prompt\1.linear_layer."),
        (r"^interaction([123])\.prompt\.conv\.", r"prompt\1.conv3x3."),
        (r"^interaction([123])\.block\.", r"noise_level\1."),
        (r"^interaction([123])\.reduce\.", r"reduce_noise_level\1."),
        (r"\.feed_forward\.depthwise\.", ".ffn.dwconv."),
        *BLOCK_RENAMES,
    )
    config: PromptIRConfig

    def __init__(self, config: PromptIRConfig | None = None) -> None:
        super().__init__(config)
        width1, width2, width3, width4 = self.config.widths
        self.embedding = conv3x3(_CHANNELS, width1, bias=False)
        self.encoder1 = self._level(0, width1)
        self.down1 = Downsample(width1)
        self.encoder2 = self._level(1, width2)
        self.down2 = Downsample(width2)
        self.encoder3 = self._level(2, width3)
        self.down3 = Downsample(width3)
        self.bottleneck = self._level(3, width4)
        self.interaction3 = self._interaction(2, width4, width3)
        self.up3 = Upsample(width3)
        self.reduce3 = channel_conv(width2 + width3, width3, bias=False)
        self.decoder3 = self._level(2, width3)
        self.interaction2 = self._interaction(1, width3, width3)
        self.up2 = Upsample(width3)
        self.reduce2 = channel_conv(width2 + width2, width2, bias=False)
        self.decoder2 = self._level(1, width2)
        self.interaction1 = self._interaction(0, width2, width2)
        self.up1 = Upsample(width2)
        # The last decoder level is as wide as both its inputs together: nothing is reduced.
        self.decoder1 = self._level(0, width2)
        self.refinement = self._blocks(self.config.refinement_blocks, width2, self.config.heads[0])
        self.output = conv3x3(width2, _CHANNELS, bias=False)

    def _level(self, level: int, width: int) -> nn.Sequential:
        return self._blocks(self.config.num_blocks[level], width, self.config.heads[level])

    def _blocks(self, count: int, width: int, heads: int) -> nn.Sequential:
        expansion = self.config.ffn_expansion
        return nn.Sequential(*(TransformerBlock(width, heads, expansion) for _ in range(count)))

    def _interaction(self, index: int, features: int, width: int) -> PromptInteraction:
        config = self.config
        channels = config.prompt_channels[index]
        prompt = PromptGenerator(
            features, channels, count=config.prompt_count, size=config.prompt_sizes[index]
        )
        return PromptInteraction(
            prompt,
            channels=features + channels,
            width=width,
            heads=config.heads[2],
            expansion=config.ffn_expansion,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Restore rainy images (B, 3, H, W), RGB, 0..1, any H and W; the output is not clamped."""
        padded = pad_to_multiple(image, self.size_multiple)
        restored = self._restore(padded.contiguous(memory_format=torch.channels_last))
        return restored[..., : image.shape[2], : image.shape[3]]

    def _restore(self, image: Tensor) -> Tensor:
        """Run the U-shape on images whose sides are multiples of `size_multiple`."""
        level1 = self.encoder1(self.embedding(image))
        level2 = self.encoder2(self.down1(level1))
        level3 = self.encoder3(self.down2(level2))
        features = self.interaction3(self.bottleneck(self.down3(level3)))
        features = self.reduce3(torch.cat((self.up3(features), level3), dim=1))
        features = self.interaction2(self.decoder3(features))
        features = self.reduce2(torch.cat((self.up2(features), level2), dim=1))
        features = self.interaction1(self.decoder2(features))
        features = self.decoder1(torch.cat((self.up1(features), level1), dim=1))
        correction: Tensor = self.output(self.refinement(features))
        return correction + image

    @classmethod
    def options_of(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Read the sizes; only `ffn_expansion` is assumed to be the published one."""
        counts = [count_modules(weights, f"{level}.{{}}.attn.temperature") for level in _LEVELS]
        components = [weights[f"{prompt}.prompt_param"].shape for prompt in _PROMPTS]
        return {
            "dim": weights["patch_embed.proj.weight"].shape[0],
            "num_blocks": tuple(counts),
            "refinement_blocks": count_modules(weights, "refinement.{}.attn.temperature"),
            "heads": tuple(weights[f"{level}.0.attn.temperature"].shape[0] for level in _LEVELS),
            "prompt_count": components[0][1],
            "prompt_channels": tuple(shape[2] for shape in components),
            "prompt_sizes": tuple(shape[3] for shape in components),
        }
