"""Checkpoints: everything that a run needs to resume exactly.

A checkpoint is a pickle of tensors and plain values, written by `torch.save` and read with
`weights_only=True`. Weights for inference are separate safetensors files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rainmer.errors import LOAD_ERRORS, WeightsError, first_sentence
from rainmer.models.weights import RUN_FORMAT, write_torch

__all__ = ["read_checkpoint", "write_checkpoint"]

_VERSION = 1


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
