"""Checkpoints: everything that a run needs to resume exactly.

A checkpoint is a pickle of tensors and plain values, written by `torch.save` and read with
`weights_only=True`. Weights for inference are separate safetensors files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rainmer.errors import LOAD_ERRORS, ConfigError, WeightsError, first_sentence
from rainmer.models.weights import RUN_FORMAT, write_torch
from rainmer.train.config import TrainConfig, differing_keys
from rainmer.train.losses import ExtraLoss

__all__ = ["read_checkpoint", "refuse_other_run", "write_checkpoint"]

_VERSION = 1

# Keys that may differ when a run resumes: they change how it runs, not its results.
_FREE_KEYS = (
    "data.threads",
    "data.processes",
    "data.rendering",  # and data.rendering_ahead
    "graphs",
    "kernels",
    "save_every",
    "keep_every",
    "log_every",
    "max_skipped",
    "validation.",
    "name",
)
_SHARE_KEY = "validation.share"  # decides which photos are trained on


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, all or nothing: on failure the old one stays.

    Raises:
        OutputError: It cannot be written, for instance because the disk is full.
    """
    write_torch(path, {"format": RUN_FORMAT, "version": _VERSION, **state})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        WeightsError: The file is damaged, or not a checkpoint of this version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        raise WeightsError(f"{path} is damaged: {first_sentence(str(error))}") from error
    if not isinstance(content, dict) or content.get("format") != RUN_FORMAT:
        raise WeightsError(f"{path} is no checkpoint of a training run")
    if content.get("version") != _VERSION:
        raise WeightsError(
            f"{path} has version {content.get('version')}, but this version of the toolkit reads "
            f"{_VERSION}"
        )
    return content


def refuse_other_run(
    config: TrainConfig, extra_loss: ExtraLoss | None, stored: dict[str, Any], out: Path
) -> None:
    """Refuse to resume a run of another configuration, or with another extra loss.

    Args:
        config: The configuration to resume with.
        extra_loss: The loss to resume with.
        stored: The checkpoint.
        out: The run's folder, for the message.

    Raises:
        ConfigError: It differs in more than how the run is run; names the keys.
    """
    before = stored["config"]
    before = {**before, "validation": {"share": 0.0, **before.get("validation", {})}}  # of old runs
    differing = [
        key
        for key in differing_keys(config, before)
        if key == _SHARE_KEY or not key.startswith(_FREE_KEYS)
    ]
    if differing:
        raise ConfigError(
            f"{out} has a run of another configuration; it differs in {', '.join(differing)}: "
            "choose another --out, or delete the folder"
        )
    if getattr(extra_loss, "fingerprint", None) != stored.get("extra_loss"):
        raise ConfigError(
            f"{out} has a run with another extra loss (its detector or weights differ): choose "
            "another --out, or delete the folder"
        )
