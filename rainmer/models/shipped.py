"""The weights that come with the package, by name. Each has a model card beside it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["shipped_names", "shipped_weights"]

_FOLDER = Path(__file__).resolve().parents[1] / "weights"
_SUFFIX = ".safetensors"


def shipped_names() -> list[str]:
    """Return the names, sorted: each is a spec of a derainer.

    Example:
        >>> shipped_names()
        ['rainmer-s']
    """
    return sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}"))


def shipped_weights(name: str) -> Path:
    """Return the weights file of a name of `shipped_names()`."""
    return _FOLDER / f"{name}{_SUFFIX}"
