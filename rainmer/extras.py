"""Packages of the optional extras, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from rainmer.errors import SpecError

__all__ = ["import_extra"]


def import_extra(module: str, extra: str, needed_by: str) -> Any:  # noqa: ANN401 (any package's)
    """Import a package of an extra.

    Args:
        module: The package.
        extra: The extra of this project that brings it.
        needed_by: What needs it, the subject of the error.

    Raises:
        SpecError: It is not installed; the line says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SpecError(
            f"{needed_by} needs the package {module}: pip install 'rainmer[{extra}]'"
        ) from error
