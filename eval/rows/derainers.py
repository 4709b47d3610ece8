"""The derainers of a run: each spec once, names that tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rainmer import Derainer
from rainmer.errors import SpecError

__all__ = ["CONTROL", "build_derainers"]

CONTROL = "median"
"""What every real derainer has to beat."""


def build_derainers(specs: Iterable[str], stage: Mapping[str, Any]) -> list[Derainer]:
    """Build the derainers of specs; a spec given twice counts once.

    Args:
        specs: What derains; see `rainmer.stage.specs.SPEC_HELP`.
        stage: Further arguments of `rainmer.Derainer`, by name.

    Raises:
        SpecError: Two have the same name, or one cannot be resolved.
    """
    derainers: dict[str, Derainer] = {}
    for spec in dict.fromkeys(specs):
        derainer = Derainer(spec, **stage)
        if derainer.name in derainers:
            raise SpecError(
                f"two derainers are called {derainer.name!r}; rename one of their files"
            )
        derainers[derainer.name] = derainer
    return list(derainers.values())
