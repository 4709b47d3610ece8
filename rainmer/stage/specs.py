"""Specs, which name derainers on the command line, and how they become restorers.

| spec | restorer |
| --- | --- |
| `none` | the unchanged frame |
| `median` | a 5x5 median filter |
| `rainmer-s`, ... | the shipped weights of that name |
| `NETWORK:WEIGHTS` | a network of `rainmer.models` with a weights file |
| `spandrel:WEIGHTS` | other networks, see `stage.exported` |
| `onnx:FILE`, `openvino:FILE`, `tensorrt:FILE`, `torchscript:FILE` | exports, ours or others' |
| `results:FOLDER` | images that someone else derained, matched by file name |
| `python:module:callable` | the user's own function |
| `blend:A:SPEC` | a share A of what SPEC restores, the rest of the rainy frame |

`gate:SPEC` and `gate:T:SPEC` stand before all others: the stage then derains only frames that need
it; see `stage.gate`.

`rainmer.Derainer` wraps a restorer, which takes float batches, into the stage, which takes frames
of any kind and size.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from rainmer import models
from rainmer.errors import SpecError
from rainmer.stage.exported import EXPORTED
from rainmer.stage.names import DEFAULT_DERAINER, SPEC_HELP
from rainmer.stage.restorers import (
    BlendRestorer,
    CallableRestorer,
    FunctionRestorer,
    NetworkRestorer,
    Restorer,
    first_line,
    median_filter,
)

__all__ = [
    "DEFAULT_DERAINER",
    "SPEC_HELP",
    "import_callable",
    "resolve",
    "split_blend",
    "split_gate",
]

# Suffixes of weights, with the prefix for their files; empty: the network's.
_PREFIXES = {
    ".ckpt": "",
    ".engine": "tensorrt",
    ".onnx": "onnx",
    ".pt": "",
    ".pth": "",
    ".safetensors": "",
    ".ts": "torchscript",
    ".xml": "openvino",
}


def resolve(spec: str) -> Restorer:
    """Turn a spec into a restorer.

    Args:
        spec: One of `SPEC_HELP`.

    Raises:
        SpecError: The spec has no known form, names something missing, or names results, which
            only callers that know file names can use: see `rainmer.stage.results`.
        WeightsError: The weights file cannot be used.
    """
    kind, _, rest = spec.partition(":")
    if spec == "none":
        return FunctionRestorer(lambda batch: batch, "none")
    if spec == "median":
        return FunctionRestorer(median_filter, "median")
    if spec in models.shipped_names():
        return NetworkRestorer(models.load(spec), spec)
    if kind == "blend":
        share, blended = split_blend(rest)
        return BlendRestorer(share, resolve(blended))
    if kind == "gate":
        raise SpecError(f"{spec}: a gate stands before a whole spec, and where frames are derained")
    if rest and kind == "results":
        raise SpecError(
            f"{spec} needs file names, which frames alone do not have: "
            "use rainmer.stage.results.PrecomputedResults"
        )
    if rest and kind == "python":
        return _python_callable(rest)
    if rest and kind in EXPORTED:
        return EXPORTED[kind](Path(rest))
    if rest and kind in models.network_names():
        return NetworkRestorer(models.load(spec), _network_name(kind, Path(rest)))
    raise _unknown(spec)


def _unknown(spec: str) -> SpecError:
    """Make the error for a spec of no known form: what was probably meant, and what there is."""
    kind, colon, _ = spec.partition(":")
    networks = models.network_names()
    kinds = [*networks, *EXPORTED, "results", "python", "blend", "gate"]
    names = ["none", "median", *models.shipped_names()]
    near = difflib.get_close_matches(kind, kinds if colon else names, n=1)
    file = Path(spec)
    meant = ""
    if file.suffix.lower() in _PREFIXES and not (colon and near):
        network = next((name for name in networks if name in file.stem.lower()), "rainmer")
        prefix = _PREFIXES[file.suffix.lower()] or network
        meant = f"say what the file holds, as in {prefix}:{spec}; "
    elif near and near[0] != kind:
        meant = f"did you mean {near[0]}{colon}? "
    elif spec in networks:
        meant = f"it needs its weights, {spec}:FILE; "
    elif spec and os.path.isdir(spec):
        meant = f"for images that are derained already say results:{spec}; "
    return SpecError(
        f"unknown derainer {spec!r}: {meant}expected one of {SPEC_HELP}; "
        f"NETWORK is one of {', '.join(networks)}"
    )


def _network_name(kind: str, weights: Path) -> str:
    return weights.stem if weights.stem.startswith(kind) else f"{kind}-{weights.stem}"


def split_blend(target: str) -> tuple[float, str]:
    """Split `A:SPEC`, what follows `blend:`, into the share 0..1 and the spec. Raises SpecError."""
    share, _, spec = target.partition(":")
    try:
        weight = float(share)
    except ValueError:
        weight = -1.0
    if not (0.0 <= weight <= 1.0 and spec):
        raise SpecError(
            f"blend:{target}: expected blend:A:SPEC with A in 0..1, such as blend:0.5:median"
        )
    return weight, spec


def split_gate(spec: str) -> tuple[str | float | None, str]:
    """Split `gate:SPEC` or `gate:T:SPEC` into the threshold and the spec; None: it has no gate.

    Raises:
        SpecError: Nothing follows, or a second gate.

    Example:
        >>> split_gate("gate:0.3:median"), split_gate("gate:median"), split_gate("median")
        ((0.3, 'median'), ('auto', 'median'), (None, 'median'))
    """
    kind, _, rest = spec.partition(":")
    if kind != "gate":
        return None, spec
    first, _, after = rest.partition(":")
    threshold: str | float = "auto"
    gated = after if first == "auto" else rest
    with contextlib.suppress(ValueError):
        threshold, gated = float(first), after
    if not gated or gated.startswith("gate:"):
        raise SpecError(f"{spec}: expected gate:SPEC or gate:T:SPEC, such as gate:rainmer-s")
    return threshold, gated


def _python_callable(target: str) -> CallableRestorer:
    function = import_callable(target)
    return CallableRestorer(function, target.rpartition(":")[2], f"python:{target}")


def import_callable(target: str) -> Callable[..., Any]:
    """Return what `module:callable` names, an object of it if it is a class.

    The working folder is looked in last.

    Raises:
        SpecError: It cannot be imported or made, or is not callable.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute or module_name.startswith("."):
        raise SpecError(f"python:{target}: expected python:module:callable")
    if os.getcwd() not in sys.path:  # as for an installed command; its own packages come first
        sys.path.append(os.getcwd())
    try:
        function: Any = getattr(importlib.import_module(module_name), attribute)
        if isinstance(function, type):
            function = function()
    except (Exception, SystemExit) as error:
        raise SpecError(f"python:{target} failed: {first_line(error)}") from error
    if not callable(function):
        raise SpecError(f"python:{target} is not callable")
    return cast("Callable[..., Any]", function)
