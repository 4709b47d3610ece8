"""Finding a network's weights in a checkpoint: one reader for all networks.

Training frameworks put the weights somewhere inside (BasicSR under "params", Lightning under
"state_dict", timm under "state_dict_ema", ...), beside optimisers and counters, and wrappers
(data parallel, compiled, the training module) add prefixes to their names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rainmer.errors import WeightsError
from rainmer.models.unpickling import Unread

__all__ = ["Checkpoint", "bare_weights", "find_weights"]

_AVERAGED = (
    "params_ema", "state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "net_g_ema",
    "netG_ema", "generator_ema", "g_ema", "ema", "average", "shadow",
)  # fmt: skip
_CONTAINERS = (
    *_AVERAGED, "params", "state_dict", "model_state_dict", "model_state", "model", "network",
    "net", "net_g", "netG", "generator", "gen", "G", "derainer", "student", "weights", "module",
    "trainer",
)  # fmt: skip
"""Entries that hold the weights, or another container; averaged weights first."""
_PREFIXES = (
    "ema_model", "model_ema", "net_g_ema", "netG_ema", "generator_ema", "model", "network", "net",
    "net_g", "netG", "generator", "derainer",
)  # fmt: skip
"""Names that training modules give to the network that they train; averaged ones first."""
_WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
"""Parts of keys that data parallel and compiled modules add, at any place."""
_LISTED = 8
_LONGEST = 60
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Checkpoint:
    """The weights found in a checkpoint.

    Attributes:
        weights: Tensors by name, as they are called in the file.
        path: The entries, from outside to inside, in which they were; empty: at the top.
        left_out: What else the file holds, with the class of what is not read.
    """

    weights: Mapping[str, Tensor]
    path: Sequence[str] = ()
    left_out: Sequence[str] = ()

    @property
    def entry(self) -> str:
        """Where the weights were, such as "model.params_ema"; empty: at the top."""
        return ".".join(map(_shown, self.path))

    def described(self) -> str:
        """Return what was taken and what was not, in words."""
        taken = f"took {len(self.weights)} tensors"
        if self.path:
            taken += f" of its entry '{self.entry}'"
        return f"{taken}; left out {', '.join(self.left_out)}" if self.left_out else taken


def find_weights(content: Mapping[Any, Any]) -> Checkpoint:
    """Find the weights in the content of a file.

    Raises:
        WeightsError: There are none, or several and no telling which are meant; or they are inside
            a pickled object, which only the code of its project can read.

    Example:
        >>> import torch
        >>> weights = {"conv.bias": torch.zeros(1)}
        >>> find_weights({"iter": 3, "params": weights, "params_ema": weights}).described()
        "took 1 tensors of its entry 'params_ema'; left out iter, params"
    """
    path: list[str] = []
    left_out: list[str] = []
    while len(path) <= _MAX_DEPTH:
        entry = _container(content)
        weights = {k: v for k, v in content.items() if isinstance(v, Tensor)}
        if entry is None and weights:
            _check_weights(weights)
            left_out += [*_names(content, path, weights), *_beside_network(weights)]
            return Checkpoint(weights, path, left_out)
        if entry is None:
            entry = _only_state_dict(content, path)
        left_out += _names(content, path, {entry})
        path.append(entry)
        content = content[entry]
    raise WeightsError(f"the checkpoint has more than {_MAX_DEPTH} levels of entries")


def bare_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights in a checkpoint under the network's own names.

    Args:
        checkpoint: A state dict, or a training checkpoint with one inside. Prefixes that wrappers
            and training modules add are removed; with a training module, what it holds besides the
            network is left out.

    Raises:
        WeightsError: As `find_weights`; or two names become one.

    Example:
        >>> import torch
        >>> list(bare_weights({"state_dict": {"net.module.conv.bias": torch.zeros(1)}}))
        ['conv.bias']
    """
    bare: dict[str, Tensor] = {}
    for key, value in find_weights(checkpoint).weights.items():
        name = ".".join(_parts(key))
        if name in bare:
            raise WeightsError(f"the checkpoint has two weights {_shown(name)}")
        bare[name] = value
    return _without_prefix(bare)


def _beside_network(weights: Mapping[str, Tensor]) -> list[str]:
    """Return what a training module holds besides the network, by the first part of its names."""
    bare = [".".join(_parts(key)) for key in weights]
    prefix = _training_prefix(bare)
    counts = Counter(key.partition(".")[0] for key in bare if prefix and not key.startswith(prefix))
    return [f"{_shown(owner)} ({count} tensors)" for owner, count in counts.items()]


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := _training_prefix(weights):
        weights = {
            key.removeprefix(prefix): value
            for key, value in weights.items()
            if key.startswith(prefix)
        }
    return weights


def _training_prefix(names: Iterable[str]) -> str:
    """Return the prefix of the network's own weights, with its dot; empty if there is none."""
    owners = {name.partition(".")[0] for name in names if "." in name}
    return next((f"{name}." for name in _PREFIXES if name in owners), "")


def _parts(key: str) -> list[str]:
    return [part for part in key.split(".") if part not in _WRAPPERS]


def _container(content: Mapping[Any, Any]) -> str | None:
    """Return the first known entry in which there are tensors."""
    return next((name for name in _CONTAINERS if _holds_tensors(content.get(name))), None)


def _holds_tensors(value: Any) -> bool:  # noqa: ANN401
    """Tell whether named tensors are in a value, at any depth."""
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if _is_state_dict(part):
            return True
        if isinstance(part, Mapping) and id(part) not in seen:
            seen.add(id(part))
            waiting += [inner for name, inner in part.items() if isinstance(name, str)]
    return False


def _is_state_dict(value: Any) -> bool:  # noqa: ANN401
    """Tell whether a value has named tensors; a number alone, as an average has, is no weight."""
    return isinstance(value, Mapping) and any(
        isinstance(inner, Tensor) and inner.ndim and isinstance(name, str)
        for name, inner in value.items()
    )


def _only_state_dict(content: Mapping[Any, Any], path: Sequence[str]) -> str:
    """Return the only entry that is, or holds, a state dict, whatever its name."""
    where = f"its entry '{'.'.join(map(_shown, path))}'" if path else "the checkpoint"
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    found = [name for name, value in named.items() if _is_state_dict(value)]
    found = found or [name for name, value in named.items() if _holds_tensors(value)]
    if len(found) == 1:
        return found[0]
    if found:
        raise WeightsError(
            f"{where} holds several sets of weights ({', '.join(map(_shown, found))}), and no "
            "telling which is meant: save one of them alone"
        )
    for name, value in content.items():
        if isinstance(value, Unread) and value.holds_tensors:
            entry = ".".join(map(_shown, [*path, name]))
            raise WeightsError(
                f"its entry '{entry}' is a pickled {_shown(value.origin)}, which only the code of "
                "its project can read: there, save its state_dict() alone, and use that"
            )
    names = ", ".join(_names(content, (), ())[:_LISTED])
    raise WeightsError(f"{where} holds no weights, but {names or 'nothing'}")


def _check_weights(weights: Mapping[Any, Tensor]) -> None:
    for key, value in weights.items():
        if not isinstance(key, str):
            raise WeightsError(
                f"the checkpoint is no state dict: {_shown(key)} is not the name of a weight"
            )
        odd = value.layout != torch.strided or value.is_quantized or value.is_nested
        if odd or value.is_meta or value.is_complex():
            raise WeightsError(f"the weight {_shown(key)} is no tensor of plain real numbers")


def _names(content: Mapping[Any, Any], path: Sequence[str], taken: Any) -> list[str]:  # noqa: ANN401
    """Return the names of the entries that are not taken, with the class of what is not read."""
    return [
        ".".join(map(_shown, [*path, key]))
        + (f" ({_shown(value.origin)})" if isinstance(value, Unread) else "")
        for key, value in content.items()
        if key not in taken
    ]


def _shown(name: Any) -> str:  # noqa: ANN401
    """Return a key of a file as short text in one line."""
    text = repr(name)[1:-1] if isinstance(name, str) else repr(name)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
