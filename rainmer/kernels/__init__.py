"""Triton kernels for channels-last maps on CUDA, each with a PyTorch twin.

`dispatch` chooses between the two and is all that other code calls for inference; `training` has
those that torch can differentiate, with their own kernels for the gradients. Triton comes with the
CUDA builds of torch on Linux; it is imported when the first CUDA tensor arrives. Kernels take
bfloat16, float16 and, where they multiply no matrices, float32, and compute in float32.
Their launch parameters depend on shapes only: nothing is tuned at run time, nothing waits for the
device, so CUDA graphs can capture them once a first call has compiled them.

Each kernel states the bytes that it moves for a pixel, counted in maps: one map is C values of the
map's type, read or written once; rows around a tile and weights come from caches.
"""

from rainmer.kernels.dispatch import (
    attend,
    attention_matrices,
    channel_norm,
    depthwise,
    fits,
    fits_map,
    mixture,
    norm_linear,
    pair_sums,
    twins_only,
)
from rainmer.kernels.prompts import Prompts

__all__ = [
    "Prompts",
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
