"""Published checkpoints of Rainmer: their keys, and the options inferred from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rainmer.errors import ConfigError, WeightsError
from rainmer.models.network import count_modules, rename
from rainmer.models.rainmer_config import RainmerConfig

__all__ = [
    "BLOCK_RENAMES",
    "U_SHAPE_RENAMES",
    "backbone_options",
    "config_from_official",
    "official_name",
]

U_SHAPE_RENAMES = (
    (r"^embedding\.", "patch_embed.proj."),
    (r"^(encoder|decoder)([123])\.", r"\1_level\2."),
    (r"^bottleneck\.", "latent."),
    (r"^down1\.conv\.", "down1_2.body.0."),
    (r"^down2\.conv\.", "down2_3.body.0."),
    (r"^down3\.conv\.", "down3_4.body.0."),
    (r"^up3\.conv\.", "up4_3.body.0."),
    (r"^up2\.conv\.", "up3_2.body.0."),
    (r"^up1\.conv\.", "up2_1.body.0."),
    (r"^reduce([23])\.", r"reduce_chan_level\1."),
)
"""Published names of the levels of a U-shaped network, by ours."""

BLOCK_RENAMES = (
    (r"\.(norm[12])\.", r".\1.body."),
    (r"\.attention\.qkv_depthwise\.", ".attn.qkv_dwconv."),
    (r"\.attention\.project\.", ".attn.project_out."),
    (r"\.attention\.", ".attn."),
    (r"\.feed_forward\.expand\.", ".ffn.project_in."),
    (r"\.feed_forward\.reduce\.", ".ffn.project_out."),
)
"""Published names of the layers of its transformer blocks, by ours."""

# Applied in this order to our keys.
_RENAMES = (
    # Compensators: two of the backbone, one of the encoder.
    (r"(compensator|refinement)\.gate\.", r"\1.layers.0.ca_fc."),
    (r"(compensator|refinement)\.entry\.", r"\1.layers.1.preprocess.op.0."),
    (r"(compensator|refinement)\.steps\.(\d)\.merge\.", r"\1.layers.1._ops.\2._out.0."),
    (r"(compensator|refinement)\.steps\.(\d)\.operations\.", r"\1.layers.1._ops.\2._ops."),
    (r"\.depthwise1?\.weight$", ".op.0.weight"),
    (r"\.pointwise1?\.weight$", ".op.1.weight"),
    (r"\.depthwise2\.weight$", ".op.3.weight"),
    (r"\.pointwise2\.weight$", ".op.4.weight"),
    # Transformer blocks.
    (r"\.attention\.rate_weights$", ".attn.attns"),
    *BLOCK_RENAMES,
    (r"\.feed_forward\.depthwise([35])\.", r".ffn.dwconv\1x\1."),
    (r"\.feed_forward\.pair([35])\.", r".ffn.dwconv\1x\1_1."),
    # A single prompt goes through the first branch, whichever view it is of.
    (r"\.prompt_term\.attentions\.0\.", ".prompt_term.chr_promptAttn."),
    (r"\.prompt_term\.attentions\.1\.", ".prompt_term.detg_promptAttn."),
    (r"promptAttn\.gate\.", "promptAttn.classifier."),
    (r"promptAttn\.value\.", "promptAttn.trans.0."),
    # The view encoder.
    (r"^encoder\.embedding\.", "encoder.conv.proj."),
    (r"^encoder\.compensator\.", "encoder.MoEs."),
    (r"^encoder\.heads\.chromatic\.", "encoder.Atom.chromatic_enc."),
    (r"^encoder\.heads\.degradation\.", "encoder.Atom.degra_enc."),
    (r"\.squeeze([12])\.reduce\.", r".se\1.se.1."),
    (r"\.squeeze([12])\.expand\.", r".se\1.se.3."),
    (r"^encoder\.", "disentangle.encoder_q."),
    # The backbone.
    (r"^compensator\.", "encoder_level0."),
    (r"^interaction\.location_hidden\.", "cross_fuse.location_map.0."),
    (r"^interaction\.location_out\.", "cross_fuse.location_map.2."),
    (r"^interaction\.channel_hidden\.", "cross_fuse.channel_map.0."),
    (r"^interaction\.channel_out\.", "cross_fuse.channel_map.2."),
    *U_SHAPE_RENAMES,
)

_PROMPT_DIRECTIONS = {"chromatic": "chr_z", "degradation": "detg_z"}
_PROMPT_OWNERS = {"attention": ".attn.", "residual": "."}
_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
_EXPANSION_DECIMALS = 2


def official_name(name: str, config: RainmerConfig) -> str:
    """Return the key in published checkpoints (section 6) of one of our keys."""
    if config.prompt_gate in _PROMPT_DIRECTIONS:
        direction = _PROMPT_DIRECTIONS[config.prompt_gate]
        name = name.replace(".prompt_term.direction", f".prompt_term.{direction}")
    name = rename(name, _RENAMES)
    return name.replace(".prompt_term.", _PROMPT_OWNERS[config.prompt_position])


def config_from_official(weights: Mapping[str, Tensor]) -> RainmerConfig:
    """Read the options off the keys and shapes of a published state dict with bare keys.

    Options that leave no trace get the values of the variant "sum". Where keys are missing, the
    published size is assumed, and loading then lists the differences.

    Raises:
        WeightsError: An option cannot be inferred; the message names it.
    """
    try:
        base_dim = weights["disentangle.encoder_q.Atom.degra_enc.0.weight"].shape[0]
        options = {"base_dim": base_dim, **backbone_options(weights)}
        return RainmerConfig(**options, **_prompt_options(weights))
    except KeyError:
        return RainmerConfig(**_prompt_options(weights))
    except (ConfigError, IndexError) as error:
        raise WeightsError(f"the weights do not fit rainmer: {error}") from error


def backbone_options(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the options of the backbone, which is DRSformer's too, off published weights.

    Raises:
        KeyError, IndexError: Weights are missing, or have other shapes.
        WeightsError: An option cannot be inferred; the message names it.
    """
    dim = weights["patch_embed.proj.weight"].shape[0]
    if not dim:
        raise WeightsError("patch_embed.proj.weight is empty")
    hidden = [weights[f"{level}.0.ffn.project_in.weight"].shape[0] // 2 for level in _LEVELS]
    return {
        "dim": dim,
        "num_blocks": tuple(
            count_modules(weights, f"{level}.{{}}.attn.temperature") for level in _LEVELS
        ),
        "heads": tuple(weights[f"{level}.0.attn.temperature"].shape[0] for level in _LEVELS),
        "ffn_expansion": _expansion(dim, hidden),
        "bias": "output.bias" in weights,
        "layer_norm": _layer_norm(weights),
        "sparse_rates": _sparse_rates(weights),
    }


def _layer_norm(weights: Mapping[str, Tensor]) -> str:
    return "with_bias" if "encoder_level1.0.norm1.body.bias" in weights else "bias_free"


def _expansion(dim: int, hidden: list[int]) -> float:
    """Find a factor, to two decimals, that gives all hidden widths; the published one if it fits.

    Widths are rounded down, so several factors may give the same network, and any of them will do.
    """
    scale = 10**_EXPANSION_DECIMALS
    first = hidden[-1] * scale // (dim << (len(hidden) - 1))
    candidates: list[float] = [n / scale for n in range(first, first + scale)]
    for factor in [RainmerConfig.ffn_expansion, *candidates]:
        if [int((dim << level) * factor) for level in range(len(hidden))] == hidden:
            return factor
    raise WeightsError(
        f"the feed-forward widths {hidden} follow from no ffn_expansion of "
        f"{_EXPANSION_DECIMALS} decimals: give the configuration"
    )


def _sparse_rates(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Infer the sparse rates from their number: only the published list or none."""
    key = "encoder_level1.0.attn.attns"
    if key not in weights:
        return ()
    count = weights[key].shape[0]
    if count != len(RainmerConfig.sparse_rates):
        raise WeightsError(
            f"the weights have {count} sparse rates, but not their values: "
            "give the configuration with sparse_rates"
        )
    return RainmerConfig.sparse_rates


def _prompt_options(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for gate, direction in _PROMPT_DIRECTIONS.items():
        for position, owner in _PROMPT_OWNERS.items():
            if f"decoder_level1.0{owner}{direction}" in weights:
                options["prompt_gate"] = gate
            if f"decoder_level1.0{owner}chr_promptAttn.trans.0.weight" in weights:
                options["prompt_position"] = position
    return options
