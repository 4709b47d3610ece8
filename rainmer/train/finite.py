"""Finding the values that are not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["first_not_finite", "named_tensors"]


def named_tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:  # noqa: ANN401
    """Yield the tensors in nested dictionaries and lists, with their places joined by dots."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping | list):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from named_tensors(value, f"{name}.{key}" if name else str(key))


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor that is not finite; one transfer for all of a device."""
    for device in dict.fromkeys(tensor.device for tensor in tensors.values()):
        own = {name: tensor for name, tensor in tensors.items() if tensor.device == device}
        finite = torch.stack([tensor.isfinite().all() for tensor in own.values()]).tolist()
        for name, good in zip(own, finite, strict=True):
            if not good:
                return name
    return None
