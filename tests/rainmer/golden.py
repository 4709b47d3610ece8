"""Reference numbers of the published networks, and the weights that belong to them.

The smallest files are in `tests/data/golden`; all of them are in the development folder beside the
repository, under `shared/reference/golden`. Both have the same relative names.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from collections.abc import Mapping
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
    own = model.state_dict()
    filled = {
        name: fill(official, tuple(own[name].shape), seed)
        for name, official in model.official_names().items()
    }
    model.load_state_dict(filled)
    return model.eval()


@functools.lru_cache(maxsize=4000)
def fill(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Make up a weight from its published key (see the README beside the files)."""
    generator = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    noise = generator.standard_normal(shape).astype(np.float32)
    offset, scale = _offset_and_scale(key, shape)
    return torch.from_numpy(np.float32(offset) + np.float32(scale) * noise)


def _offset_and_scale(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    last = key.rpartition(".")[2]
    named = {"temperature": (2, 0.5), "attns": (0.25, 0.05), "chr_z": (1, 0.5), "detg_z": (1, 0.5)}
    if last in named:
        return named[last]
    if len(shape) == 1:
        return (1, 0.1) if last == "weight" else (0, 0.1)
    return 0, _gain(key) / math.sqrt(math.prod(shape[1:]))


def _gain(key: str) -> float:
    if "._ops." in key and "._out." in key:
        return 2
    if ".trans." in key:
        return 6
    if ".se." in key:
        return 3
    return 0.1 if key == "output.weight" else 1
