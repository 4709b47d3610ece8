"""Keys and shapes of published checkpoints, by rules that follow the published definitions.

Nothing here asks our networks: they are checked against these tables.
"""

import math

import torch


def random_weights(shapes, seed=0, dtype=torch.float64):
    """Draw a state dict of these shapes with values that keep features in range."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, shape in shapes.items():
        values = torch.randn(shape, generator=generator, dtype=dtype)
        if key.endswith(("num_batches_tracked", "queue_ptr")):
            weights[key] = torch.zeros(shape, dtype=torch.long)
        elif key.endswith("running_var"):
            weights[key] = values.abs() + 0.5
        elif len(shape) > 1:
            weights[key] = values / math.sqrt(math.prod(shape[1:]))
        else:
            is_scale = key.endswith("weight")
            weights[key] = is_scale + 0.2 * values
    return weights


def count_parameters(shapes):
    """Count what an optimiser would count: without buffers."""
    buffers = ("running_mean", "running_var", "num_batches_tracked", "queue", "queue_ptr")
    return sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(buffers))


def _named(prefix, shapes):
    return {f"{prefix}.{key}": shape for key, shape in shapes.items()}


def _conv(channels_in, channels_out, kernel=3, *, bias=True):
    weight = {"weight": (channels_out, channels_in, kernel, kernel)}
    return weight | ({"bias": (channels_out,)} if bias else {})


# PromptIR ----------------------------------------------------------------------------------------

PROMPTIR_WITHOUT_EFFECT = [
    *(f"chnl_reduce{i}.weight" for i in (1, 2, 3)),
    *(f"reduce_noise_channel_{i}.weight" for i in (1, 2, 3)),
]


def _restormer_block(channels, heads):
    hidden = int(channels * 2.66)
    return {
        "norm1.body.weight": (channels,),
        "norm1.body.bias": (channels,),
        "attn.temperature": (heads, 1, 1),
        "attn.qkv.weight": (3 * channels, channels, 1, 1),
        "attn.qkv_dwconv.weight": (3 * channels, 1, 3, 3),
        "attn.project_out.weight": (channels, channels, 1, 1),
        "norm2.body.weight": (channels,),
        "norm2.body.bias": (channels,),
        "ffn.project_in.weight": (2 * hidden, channels, 1, 1),
        "ffn.dwconv.weight": (2 * hidden, 1, 3, 3),
        "ffn.project_out.weight": (channels, hidden, 1, 1),
    }


def promptir_shapes(
    dim=48,
    num_blocks=(4, 6, 6, 8),
    refinement_blocks=4,
    heads=(1, 2, 4, 8),
    prompt_count=5,
    prompt_channels=(64, 128, 320),
    prompt_sizes=(64, 32, 16),
):
    levels = {
        "encoder_level1": (num_blocks[0], dim, heads[0]),
        "encoder_level2": (num_blocks[1], 2 * dim, heads[1]),
        "encoder_level3": (num_blocks[2], 4 * dim, heads[2]),
        "latent": (num_blocks[3], 8 * dim, heads[3]),
        "decoder_level3": (num_blocks[2], 4 * dim, heads[2]),
        "decoder_level2": (num_blocks[1], 2 * dim, heads[1]),
        "decoder_level1": (num_blocks[0], 2 * dim, heads[0]),
        "refinement": (refinement_blocks, 2 * dim, heads[0]),
    }
    shapes = _named("patch_embed.proj", _conv(3, dim, bias=False))
    for level, (count, width, level_heads) in levels.items():
        for block in range(count):
            shapes |= _named(f"{level}.{block}", _restormer_block(width, level_heads))
    resizing = {
        "down1_2": (dim, dim // 2),
        "down2_3": (2 * dim, dim),
        "down3_4": (4 * dim, 2 * dim),
        "up4_3": (4 * dim, 8 * dim),
        "up3_2": (4 * dim, 8 * dim),
        "up2_1": (2 * dim, 4 * dim),
    }
    for layer, (a, b) in resizing.items():
        shapes |= _named(f"{layer}.body.0", _conv(a, b, bias=False))
    pointwise = {"reduce_chan_level3": (6 * dim, 4 * dim), "reduce_chan_level2": (4 * dim, 2 * dim)}
    # By number of the prompt: width of the features that it joins, and of what leaves.
    for number, features, width in (
        (1, 2 * dim, 2 * dim),
        (2, 4 * dim, 4 * dim),
        (3, 8 * dim, 4 * dim),
    ):
        channels, size = prompt_channels[number - 1], prompt_sizes[number - 1]
        shapes[f"prompt{number}.prompt_param"] = (1, prompt_count, channels, size, size)
        shapes |= {f"prompt{number}.linear_layer.weight": (prompt_count, features)}
        shapes |= {f"prompt{number}.linear_layer.bias": (prompt_count,)}
        shapes |= _named(f"prompt{number}.conv3x3", _conv(channels, channels, bias=False))
        joined = features + channels
        shapes |= _named(f"noise_level{number}", _restormer_block(joined, heads[2]))
        pointwise[f"reduce_noise_level{number}"] = (joined, width)
    # These six have the published widths in every size, and no output depends on them.
    pointwise |= {"chnl_reduce1": (64, 64), "chnl_reduce2": (128, 128), "chnl_reduce3": (320, 256)}
    for number, width, extra in ((1, dim, 64), (2, 2 * dim, 128), (3, 4 * dim, 256)):
        pointwise[f"reduce_noise_channel_{number}"] = (width + extra, width)
    for layer, (a, b) in pointwise.items():
        shapes |= _named(layer, _conv(a, b, 1, bias=False))
    return shapes | _named("output", _conv(2 * dim, 3, bias=False))


# AirNet ------------------------------------------------------------------------------------------


def _batch_norm(channels):
    vectors = ("weight", "bias", "running_mean", "running_var")
    return dict.fromkeys(vectors, (channels,)) | {"num_batches_tracked": ()}


def _residual_block(a, b):
    return (
        _named("backbone.0", _conv(a, b, bias=False))
        | _named("backbone.1", _batch_norm(b))
        | _named("backbone.3", _conv(b, b, bias=False))
        | _named("backbone.4", _batch_norm(b))
        | _named("shortcut.0", _conv(a, b, 1, bias=False))
        | _named("shortcut.1", _batch_norm(b))
    )


def _airnet_encoder(dim):
    return (
        _named("E_pre", _residual_block(3, dim))
        | _named("E.0", _residual_block(dim, 2 * dim))
        | _named("E.1", _residual_block(2 * dim, 4 * dim))
        | {"mlp.0.weight": (4 * dim, 4 * dim), "mlp.0.bias": (4 * dim,)}
        | {"mlp.2.weight": (4 * dim, 4 * dim), "mlp.2.bias": (4 * dim,)}
    )


def _guide(dim):
    shapes = {"dcn.weight": (dim, dim, 3, 3)}
    shapes |= _named("dcn.conv_offset_mask", _conv(2 * dim, 27))
    for layer in ("conv_gamma.0", "conv_gamma.2", "conv_beta.0", "conv_beta.2"):
        shapes |= _named(f"sft.{layer}", _conv(dim, dim, 1, bias=False))
    return shapes


def airnet_shapes(dim=64, groups=5, blocks=5, batch_size=1):
    """Shapes of a checkpoint trained with that batch size, which sets the length of the queue."""
    shapes = _named("R.head.0", _conv(3, dim)) | _named("R.tail.0", _conv(dim, 3))
    for group in range(groups):
        for block in range(blocks):
            prefix = f"R.body.{group}.body.{block}"
            for number in (1, 2):
                shapes |= _named(f"{prefix}.dgm{number}", _guide(dim))
                shapes |= _named(f"{prefix}.conv{number}", _conv(dim, dim))
        shapes |= _named(f"R.body.{group}.body.{blocks}", _conv(dim, dim))
    shapes |= _named(f"R.body.{groups}", _conv(dim, dim))
    for encoder in ("encoder_q", "encoder_k"):
        shapes |= _named(f"E.E.{encoder}", _airnet_encoder(dim))
    return shapes | {"E.E.queue": (4 * dim, batch_size * 4 * dim), "E.E.queue_ptr": (1,)}


def airnet_without_effect(shapes):
    used = ("R.", "E.E.encoder_q.E_pre.")
    return [key for key in shapes if not key.startswith(used)]


# EfficientDeRain ---------------------------------------------------------------------------------


def efficientderain_shapes(dim=64, kernel_size=3, dilations=(1, 2, 3, 4)):
    filters = 3 * kernel_size**2
    levels = [
        (3, dim),
        (dim, 2 * dim),
        (2 * dim, 4 * dim),
        (4 * dim, 8 * dim),
        (8 * dim, 8 * dim),
        (16 * dim, 8 * dim),
        (12 * dim, 4 * dim),
        (6 * dim, filters),
    ]
    shapes = {}
    for number, (a, b) in enumerate(levels, start=1):
        for place, channels_in in ((0, a), (2, b), (4, b)):
            shapes |= _named(f"conv{number}.conv1.{place}", _conv(channels_in, b))
    shapes |= _named("outc", _conv(filters, filters, 1))
    return shapes | _named("conv_final", _conv(3 * len(dilations), 3))
