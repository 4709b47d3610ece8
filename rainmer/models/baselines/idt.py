"""IDT: an image deraining transformer with attention inside windows and between windows.

Xiao et al., "Image De-raining Transformer", IEEE Transactions on Pattern Analysis and Machine
Intelligence 2023. Section 4 of the baselines' specification.

Between the blocks, maps are (B, H, W, C): the pixels are the tokens, in raster order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.config import check_integer
from rainmer.errors import ConfigError, ImageError, WeightsError
from rainmer.frames.tiling import merge_tiles, pad_to_least, split_tiles
from rainmer.models.checkpoints import bare_weights
from rainmer.models.convolutions import maps_of
from rainmer.models.layers import conv3x3, depthwise_conv
from rainmer.models.network import RenamedNetwork, rename
from rainmer.models.strips import pixels_of

__all__ = ["IDT", "IDTConfig"]

_CHANNELS = 3
_WINDOW = 8
_WINDOW_PIXELS = _WINDOW**2
_WINDOW_BOUND = 8
_LARGEST_POSITION_REACH = 2
_INIT_STD = 0.02
_DROP_STEPS = 9
_TILES_AT_ONCE = 16  # 512 x 512 pixels, as in the evaluation protocol

_RENAMES = (
    (r"^embedding\.", "input_proj.proj.0."),
    (r"^output\.", "output_proj.proj.0."),
    (r"^(en|de)coders\.(\d)\.", r"\1coderlayer_\2.blocks."),
    (r"^bottleneck\.", "bottle.blocks."),
    (r"^downs\.(\d)\.", r"dowsample_\1.conv.0."),
    (r"^ups\.(\d)\.", r"upsample_\1.deconv.0."),
    (r"\.attention\.bias_table$", ".attn.relative_position_bias_table"),
    (r"\.attention\.position\.", ".attn.Position_Extract."),
    (r"\.attention\.query\.", ".attn.qkv.to_q."),
    (r"\.attention\.key_value\.", ".attn.qkv.to_kv."),
    (r"\.attention\.project\.", ".attn.proj."),
    (r"\.feed_forward\.expand\.", ".mlp.linear1.0."),
    (r"\.feed_forward\.depthwise\.", ".mlp.dwconv.0."),
    (r"\.feed_forward\.reduce\.", ".mlp.linear2.0."),
)
"""Patterns and replacements that turn our keys into the published ones, applied in order."""

_IMAGE_SIZES = {1: 64, 3: 128}
"""Image size by the kernel size of the positional convolution between windows, encoder stage 3."""

_AnyIDT = TypeVar("_AnyIDT", bound="IDT")


class _Stage(NamedTuple):
    """A stage of the U-shape: its resolution, width and blocks."""

    level: int  # halvings of the resolution
    width: int  # as a multiple of the configured width
    windows: int  # window blocks, before the spatial block
    bound: int | None  # clip bound of offsets in the spatial block; None: no such block
    drops: tuple[int, int]  # ninths of the drop rate, in window blocks and in the spatial block


_ENCODER = (
    _Stage(0, 1, 3, 16, (0, 2)),
    _Stage(1, 2, 3, 8, (3, 5)),
    _Stage(2, 4, 2, 4, (6, 7)),
    _Stage(3, 8, 2, 2, (8, 9)),
)
_BOTTLENECK = _Stage(4, 16, 1, None, (9, 9))
_DECODER = (
    _Stage(3, 16, 1, 2, (9, 9)),
    _Stage(2, 8, 2, 4, (8, 7)),
    _Stage(1, 4, 2, 8, (6, 5)),
    _Stage(0, 2, 3, 16, (4, 2)),
)
_STAGES = (*_ENCODER, _BOTTLENECK, *_DECODER)


@dataclass(frozen=True, kw_only=True)
class IDTConfig:
    """The options of IDT; the defaults are the published size.

    Attributes:
        image_size: Side of the square images that the network is built for: 64, or a multiple of
            128. Other images are padded, or cut into tiles of that size.
        dim: Width at full resolution.
        heads: Attention heads of the four encoder stages, the bottleneck, and the four decoder
            stages; each divides the stage's width and the 64 pixels of a window.
        ffn_expansion: Hidden width of the feed-forward nets as a multiple of their width.
        drop_path: Highest rate at which training skips a branch of a block.

    Raises:
        ConfigError: A value is of the wrong type or out of range.
    """

    image_size: int = 128
    dim: int = 32
    heads: tuple[int, ...] = (1, 2, 4, 8, 16, 16, 8, 4, 2)
    ffn_expansion: float = 4.0
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        check_integer("image_size", self.image_size, 64)
        if self.image_size != 64 and self.image_size % 128:
            raise ConfigError(
                f"image_size is {self.image_size}, but must be 64 or a multiple of 128: "
                "windows of 8x8 tile the maps of every level"
            )
        check_integer("dim", self.dim, 1)
        object.__setattr__(self, "heads", self._checked_heads())
        least = 1 / min(self.dim, _WINDOW_PIXELS)  # one hidden unit
        _check_number("ffn_expansion", self.ffn_expansion, least, math.inf)
        _check_number("drop_path", self.drop_path, 0, 1)

    def _checked_heads(self) -> tuple[int, ...]:
        if not isinstance(self.heads, list | tuple) or len(self.heads) != len(_STAGES):
            raise ConfigError(
                f"heads is {self.heads!r}, but must be a list of {len(_STAGES)} whole numbers"
            )
        for i, (heads, stage) in enumerate(zip(self.heads, _STAGES, strict=True)):
            check_integer(f"heads[{i}]", heads, 1)
            width = self.dim * stage.width
            if width % heads or _WINDOW_PIXELS % heads:
                raise ConfigError(
                    f"heads[{i}] is {heads}, but must divide the width {width} of its stage and "
                    f"the {_WINDOW_PIXELS} pixels of a window"
                )
        return tuple(self.heads)


def _check_number(field: str, value: object, least: float, limit: float) -> None:
    """Raise ConfigError unless `value` is a number with least <= value < limit."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < limit:
        raise ConfigError(
            f"{field} is {value!r}, but must be a number of at least {least:g} and below {limit:g}"
        )


class _PositionedAttention(nn.Module):
    """Attention among the cells of a square, with two position-dependent terms.

    Logits get a learned bias for the clipped offset between two cells, and a third projection of
    the cells, convolved over the square, is added to the attended values.

    Args:
        channels: Width of the cells.
        heads: Attention heads.
        side: Cells along a side of the square, n.
        bound: Offsets are clipped to less than this.
    """

    bias_index: Tensor

    def __init__(self, channels: int, heads: int, side: int, bound: int) -> None:
        super().__init__()
        self.heads = heads
        self.side = side
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.bias_table = nn.Parameter(torch.empty((2 * bound - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias_table, std=_INIT_STD)
        self.register_buffer("bias_index", _bias_index(side, bound), persistent=False)
        kernel = 2 * min(side - 1, _LARGEST_POSITION_REACH) + 1
        self.position = nn.Sequential(
            depthwise_conv(channels, kernel, bias=True),
            nn.Conv2d(channels, channels, 1, groups=heads),
        )

    def forward(self, cells: Tensor) -> Tensor:
        """Map the cells of squares, (S, n * n, C), to the same shape."""
        key, value, position = self.key_value(cells).chunk(3, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # S, heads, n * n, C/heads
            for part in (self.query(cells), key, value)
        )
        bias = self.bias_table[self.bias_index].permute(2, 0, 1)  # heads, n * n, n * n
        attended = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
        square = position.transpose(1, 2).unflatten(-1, (self.side, self.side))
        convolved: Tensor = self.position(square).flatten(2).transpose(1, 2)
        return cast(Tensor, self.project(attended.transpose(1, 2).flatten(2) + convolved))


def _bias_index(side: int, bound: int) -> Tensor:
    """Return the row of the bias table for each pair of cells: (n * n, n * n), int64."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    largest = bound - 1
    offset_y, offset_x = (
        (place.flatten()[:, None] - place.flatten()).clamp(-largest, largest) + largest
        for place in (y, x)
    )
    return offset_y * (2 * bound - 1) + offset_x


class _FeedForward(nn.Module):
    """Two linear layers around a depthwise convolution with a residual ("LeFF").

    Args:
        channels: Width of the features.
        hidden: Width in between.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = depthwise_conv(hidden, 3, bias=True)
        self.reduce = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        expanded = F.gelu(self.expand(x))
        convolved = self.depthwise(maps_of(expanded)).permute(0, 2, 3, 1)
        return cast(Tensor, self.reduce(F.gelu(convolved) + expanded))


class _DropPath(nn.Module):
    """Stochastic depth: skip a branch for some images of a training batch, keeping its mean."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        if not (self.training and self.rate):
            return branch
        kept = branch.new_empty(branch.shape[0], 1, 1, 1).bernoulli_(1 - self.rate)
        return branch * kept / (1 - self.rate)


class _WindowBlock(nn.Module):
    """Attention among the pixels of each window, and feed-forward, with residuals.

    Args:
        channels: Width of the features.
        heads: Attention heads.
        side: Side of the maps in pixels.
        expansion: Hidden width of the feed-forward net as a multiple of `channels`.
        drop_rate: Drop rate of the branches.
    """

    def __init__(
        self, channels: int, heads: int, *, side: int, expansion: float, drop_rate: float
    ) -> None:
        super().__init__()
        self.window = min(_WINDOW, side)  # a smaller map is a single window
        self.norm1 = nn.LayerNorm(channels)
        self.attention = _PositionedAttention(channels, heads, self.window, _WINDOW_BOUND)
        self.norm2 = nn.LayerNorm(channels)
        self.feed_forward = _FeedForward(channels, int(channels * expansion))
        self.drop_path = _DropPath(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return cast(Tensor, x + self.drop_path(self.feed_forward(self.norm2(x))))

    def _attend(self, x: Tensor) -> Tensor:
        windows = _cut(x, self.window)  # B, rows, columns, n, n, C
        # As squares of pixels: B * windows, n * n, C.
        attended: Tensor = self.attention(windows.flatten(3, 4).flatten(0, 2))
        attended = attended.view(windows.shape)
        return attended.transpose(2, 3).reshape(x.shape)


class _SpatialBlock(nn.Module):
    """Attention among the windows of each channel, and feed-forward, with residuals.

    As in the published code, the attention gets features without a norm, and its results are added
    in the order of the windows: pixel number w * 64 + p in raster order gets the result of pixel p
    of window w. The published weights were trained with both.

    Args:
        channels: Width of the features.
        heads: Attention heads.
        side: Side of the maps in pixels.
        bound: Clip bound of the offsets between windows.
        expansion: Hidden width of the feed-forward net as a multiple of 64, at every width.
        drop_rate: Drop rate of the branches.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        side: int,
        bound: int,
        expansion: float,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.attention = _PositionedAttention(_WINDOW_PIXELS, heads, side // _WINDOW, bound)
        self.norm2 = nn.LayerNorm(channels)
        self.feed_forward = _FeedForward(channels, int(_WINDOW_PIXELS * expansion))
        self.drop_path = _DropPath(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        x = x + self.drop_path(self._attend(x))
        return cast(Tensor, x + self.drop_path(self.feed_forward(self.norm2(x))))

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[0], x.shape[-1]
        by_channel = _cut(x, _WINDOW).permute(0, 5, 1, 2, 3, 4)  # B, C, rows, columns, n, n
        # As squares of windows, whose pixels are the features: B * C, windows, 64.
        squares = by_channel.flatten(4).flatten(2, 3).flatten(0, 1)
        attended: Tensor = self.attention(squares)
        attended = attended.view(batch, channels, -1, _WINDOW_PIXELS)  # B, C, windows, 64
        return attended.permute(0, 2, 3, 1).reshape(x.shape)


def _cut(x: Tensor, window: int) -> Tensor:
    """Cut maps (B, H, W, C) into windows: (B, H/n, W/n, n, n, C)."""
    batch, height, width, channels = x.shape
    grid = x.reshape(batch, height // window, window, width // window, window, channels)
    return grid.transpose(2, 3)


class IDT(RenamedNetwork):
    """The image deraining transformer.

    It is built for square images of one size. Smaller ones are padded by reflection; larger ones
    are cut into tiles of that size that overlap by a quarter of it, which are merged by their score
    maps, as in the evaluation protocol. (The stage's own tiles do the same with `tile=128,
    overlap=32, blend="score"`.)

    Args:
        config: The options; default: the published size.

    Example:
        >>> model = IDT(IDTConfig(image_size=64, dim=4, heads=(1,) * 9)).eval()
        >>> model(torch.rand(1, 3, 7, 13)).shape
        torch.Size([1, 3, 7, 13])
    """

    name = "idt"
    size_multiple = 1  # it pads and cuts tiles itself
    takes_query = False
    config_class = IDTConfig
    config: IDTConfig

    def __init__(self, config: IDTConfig | None = None) -> None:
        super().__init__(config)
        config = self.config
        dim = config.dim
        self.embedding = conv3x3(_CHANNELS, dim, bias=True)
        heads = iter(config.heads)
        self.encoders = nn.ModuleList(self._blocks(stage, next(heads)) for stage in _ENCODER)
        self.downs = nn.ModuleList(
            nn.Conv2d(dim * stage.width, 2 * dim * stage.width, 4, stride=2, padding=1)
            for stage in _ENCODER
        )
        self.bottleneck = self._blocks(_BOTTLENECK, next(heads))
        # A decoder stage is as wide as what comes from below and from the encoder together.
        widths = [dim * stage.width for stage in (_BOTTLENECK, *_DECODER)]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(below, width // 2, 2, stride=2)
            for below, width in itertools.pairwise(widths)
        )
        self.decoders = nn.ModuleList(self._blocks(stage, next(heads)) for stage in _DECODER)
        self.output = conv3x3(widths[-1], _CHANNELS, bias=True)
        self.apply(_initialise)

    def _blocks(self, stage: _Stage, heads: int) -> nn.Sequential:
        config, width = self.config, self.config.dim * stage.width
        side, expansion = config.image_size >> stage.level, config.ffn_expansion
        window_rate, spatial_rate = (config.drop_path * n / _DROP_STEPS for n in stage.drops)
        blocks: list[nn.Module] = [
            _WindowBlock(width, heads, side=side, expansion=expansion, drop_rate=window_rate)
            for _ in range(stage.windows)
        ]
        if stage.bound is not None:
            spatial = _SpatialBlock(
                width,
                heads,
                side=side,
                bound=stage.bound,
                expansion=expansion,
                drop_rate=spatial_rate,
            )
            blocks.append(spatial)
        return nn.Sequential(*blocks)

    def forward(self, image: Tensor) -> Tensor:
        """Restore rainy images (B, 3, H, W), RGB, 0..1, any H and W.

        The output is not clamped, with one exception: in eval mode, the tiles of images larger than
        `config.image_size` are clamped before they are merged.

        Raises:
            ImageError: The shape is not (B, 3, H, W).
        """
        if image.ndim != 4 or image.shape[1] != _CHANNELS:
            raise ImageError(f"the image has shape {tuple(image.shape)}, expected (B, 3, H, W)")
        height, width = image.shape[-2:]
        padded = pad_to_least(image, self.config.image_size)
        if max(padded.shape[-2:]) > self.config.image_size:
            restored = self._restore_tiles(padded)
        else:
            restored = self._restore(padded)
        return restored[..., :height, :width]

    def _restore_tiles(self, image: Tensor) -> Tensor:
        """Restore (B, 3, H, W) in tiles; both sides must be at least `config.image_size`."""
        side = self.config.image_size
        overlap = side // 4
        tiles, places = split_tiles(image, (side, side), overlap)
        starts = range(0, len(tiles), _TILES_AT_ONCE)
        parts = [self._restore(tiles[start : start + _TILES_AT_ONCE]) for start in starts]
        restored = torch.cat(parts)
        if not self.training:
            restored = restored.clamp(0.0, 1.0)
        size_hw = (image.shape[-2], image.shape[-1])
        return merge_tiles(restored, places, size_hw, overlap=overlap, blend="score")

    def _restore(self, image: Tensor) -> Tensor:
        """Run the U-shape on (B, 3, S, S), S being `config.image_size`."""
        features = pixels_of(F.leaky_relu(self.embedding(_channels_last(image)), 0.01))
        skipped = []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            features = blocks(features)
            skipped.append(features)
            features = pixels_of(down(maps_of(features)))
        features = self.bottleneck(features)
        for blocks, up in zip(self.decoders, self.ups, strict=True):
            raised = pixels_of(up(maps_of(features)))
            features = blocks(torch.cat((raised, skipped.pop()), dim=-1))
        return cast(Tensor, self.output(maps_of(features)) + image)

    @classmethod
    def from_official(cls: type[_AnyIDT], state_dict: Mapping[str, Any]) -> _AnyIDT:
        """Build the network of a published checkpoint; its options are read off the shapes.

        The drop rate, which acts in training only, is set to the published one.

        Raises:
            WeightsError: The keys or shapes belong to another network, or to an image size above
                128, which cannot be inferred from them.
        """
        model = cls(_config_of(bare_weights(state_dict)))
        model.load_official(state_dict)
        return model

    def _official_name(self, name: str) -> str:
        return rename(name, _RENAMES)


def _initialise(module: nn.Module) -> None:
    """Initialise linear layers with small values; other layers keep torch's defaults."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=_INIT_STD)
        nn.init.zeros_(module.bias)


def _channels_last(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last)


def _config_of(weights: Mapping[str, Tensor]) -> IDTConfig:
    """Read the options off published weights; the published size where a key is missing.

    Loading then lists the differences.

    Raises:
        WeightsError: An option cannot be inferred, or contradicts the others.
    """
    layers = [f"encoderlayer_{i}" for i in range(4)] + ["bottle"]
    layers += [f"decoderlayer_{i}" for i in range(4)]
    try:
        dim = weights["input_proj.proj.0.weight"].shape[0]
        kernel = weights["encoderlayer_3.blocks.2.attn.Position_Extract.0.weight"].shape[-1]
        bottleneck_hidden = weights["bottle.blocks.0.mlp.linear1.0.weight"].shape[0]
        tables = [weights[f"{i}.blocks.0.attn.relative_position_bias_table"] for i in layers]
        heads = tuple(table.shape[-1] for table in tables)
    except (KeyError, IndexError):
        return IDTConfig()
    if not dim:
        raise WeightsError("input_proj.proj.0.weight is empty")
    if kernel not in _IMAGE_SIZES:
        raise WeightsError("the weights of idt are for images larger than 128x128 or damaged")
    expansion = bottleneck_hidden / (dim * _BOTTLENECK.width)
    try:
        return IDTConfig(
            image_size=_IMAGE_SIZES[kernel], dim=dim, heads=heads, ffn_expansion=expansion
        )
    except ConfigError as error:
        raise WeightsError(f"the weights do not fit idt: {error}") from error
