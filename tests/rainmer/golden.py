"""Reference numbers of the published networks, and the weights that belong to them.

The smallest files are in `tests/data/golden`; all of them are in the development folder beside the
repository, under `shared/reference/golden`. Both have the same relative names.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from rainmer.models.rainmer import Rainmer
from rainmer.models.rainmer_config import RainmerConfig

_REPOSITORY = Path(__file__).resolve().parents[2]
COPIES = _REPOSITORY / "tests" / "data" / "golden"
SHARED = _REPOSITORY.parent / "shared"
SHARED_GOLDEN = SHARED / "reference" / "golden"


def shared_golden(name: str) -> Path:
    """Return a file of the development folder, or skip the test where that folder is missing."""
    return shared_file(f"reference/golden/{name}")


def shared_file(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the development folder: no {path}")
    return path


def read_golden(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file and its metadata, JSON decoded."""
    with safe_open(path, framework="pt") as content:
        metadata = {key: json.loads(value) for key, value in (content.metadata() or {}).items()}
    return load_file(path), metadata


def config_of(official: Mapping[str, Any], **overrides: Any) -> RainmerConfig:
    """Translate a published configuration, as the metadata hold it."""
    options = {
        "dim": official["dim"],
        "base_dim": official["base_dim"],
        "num_blocks": official["num_blocks"],
        "heads": official["heads"],
        "ffn_expansion": official["ffn_expansion_factor"],
        "bias": official["bias"],
        "layer_norm": "bias_free" if official["LayerNorm_type"] == "BiasFree" else "with_bias",
        "sparse_rates": official["sparse_rates"],
    }
    return RainmerConfig.official(official["variant"], **{**options, **overrides})


def rule_model(config: RainmerConfig, seed: int) -> Rainmer:
    """Build a network with the weights of the fill rule, in eval mode."""
    model = Rainmer(config)
    weights = rule_weights(official_shapes(model), seed)
    model.load_state_dict({ours: weights[key] for ours, key in model.official_names().items()})
    return model.eval()


def official_shapes(model: Any) -> dict[str, torch.Size]:
    """Return the published keys of a network that has `official_names`, with our shapes."""
    own = model.state_dict()
    return {official: own[name].shape for name, official in model.official_names().items()}


def rule_weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Make up published weights from their keys and shapes."""
    return {key: fill(key, tuple(shape), seed) for key, shape in shapes.items()}


def stored_weights(name: str) -> dict[str, Tensor]:
    """Read a file of stored weights, which are float16 there; counters are integers."""
    weights = load_file(shared_golden(name))
    return {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}


@functools.lru_cache(maxsize=4000)
def fill(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Make up a weight from its published key (see the README beside the files)."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    generator = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    noise = generator.standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        noise = np.abs(noise)
    offset, scale = _offset_and_scale(key, shape)
    return torch.from_numpy(np.float32(offset) + np.float32(scale) * noise)


_BY_LAST_PART = {
    "running_var": (1, 0.2),
    "running_mean": (0, 0.05),
    "temperature": (2, 0.5),
    "attns": (0.25, 0.05),
    "chr_z": (1, 0.5),
    "detg_z": (1, 0.5),
    "relative_position_bias_table": (0, 0.5),
    "tau": (0.5, 0.05),
    "m_step": (1, 0.1),
    "b_step": (5, 0.5),
    "cz": (1 / 9, 0.02),
    "c0": (0.01, 0.02),
    "c": (0.01, 0.02),
}


def _offset_and_scale(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    last = key.rpartition(".")[2]
    if last in _BY_LAST_PART:
        return _BY_LAST_PART[last]
    if len(shape) == 1:
        if last != "weight":
            return 0, 0.1
        return (0.2, 0.05) if key.startswith("proxNet_") else (1, 0.1)
    return 0, _gain(key) / math.sqrt(math.prod(shape[1:]))


def _gain(key: str) -> float:
    if "._ops." in key and "._out." in key:
        return 2
    if ".trans." in key:
        return 6
    if ".se." in key:
        return 3
    if key in ("output.weight", "output_proj.proj.0.weight"):
        return 0.1
    return 0.5 if ".attn.qkv.to_" in key or ".attn.proj.weight" in key else 1
