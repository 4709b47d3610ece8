"""The choice of a device."""

from __future__ import annotations

import torch

from rainmer.errors import RainmerError

__all__ = ["resolve_device"]

_DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")


def resolve_device(name: str | torch.device | None) -> torch.device:
    """Turn an option into a device; None chooses cuda, then mps, then cpu.

    Raises:
        RainmerError: The device does not exist on this machine.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(f"cuda:{name}" if str(name).isdecimal() else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise RainmerError(f"no device {name!r} here: {reason}; use --device cpu") from error
    if device.type not in _DEVICE_TYPES:
        raise RainmerError(f"no device {name!r} here: use {', '.join(_DEVICE_TYPES)}")
    return device
