"""Networks from other projects: exported files, and weights that spandrel recognises.

The libraries that run them are optional and imported here, inside the functions.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rainmer.errors import WeightsError, first_sentence
from rainmer.export.formats import METADATA_FILE
from rainmer.export.sessions import OPENERS
from rainmer.extras import import_extra
from rainmer.files import file_sha256
from rainmer.models.weights import load_state_dict_file
from rainmer.stage.exported_function import UNKNOWN_MULTIPLE, ExportedFunction
from rainmer.stage.restorers import ForeignRestorer, digest
from rainmer.stage.rules import InputRules
from rainmer.stage.trials import ScriptedModule, TriedRestorer

__all__ = ["EXPORTED"]


def _torchscript(path: Path) -> ForeignRestorer:
    """Load a TorchScript file. Raises WeightsError."""
    _check_file(path)
    written = {METADATA_FILE: ""}  # filled by torch
    try:
        module = torch.jit.load(  # type: ignore[no-untyped-call]
            str(path), map_location="cpu", _extra_files=written
        ).eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise WeightsError(f"{path} is not a TorchScript file: {reason}") from error
    fingerprint = digest("torchscript", file_sha256(path))
    if not written[METADATA_FILE]:
        rules = InputRules(UNKNOWN_MULTIPLE)
        return TriedRestorer(ScriptedModule(module), path, fingerprint, rules)
    metadata = json.loads(written[METADATA_FILE])
    scripted = ScriptedModule(
        module,
        channels_last=metadata["layout"] == "nhwc",
        levels=metadata["frames"] == "uint8",
    )
    return _ours(scripted, path, fingerprint, _written_rules(metadata))


def _written_rules(metadata: Mapping[str, str]) -> InputRules:
    """Return what a file of ours takes, by its metadata; it pads inside."""
    size, batch = metadata["size"], metadata["batch"]
    height, width = (None, None) if size == "dynamic" else map(int, size.split("x"))
    return InputRules(1, (height, width), None if batch == "dynamic" else int(batch))


def _ours(
    function: Callable[[Tensor], Tensor], path: Path, fingerprint: str, rules: InputRules
) -> ForeignRestorer:
    """Return a file of `rainmer.export`, which says what it takes."""
    return ForeignRestorer(
        function,
        path.stem,
        source=str(path),
        fingerprint=fingerprint,
        rules=rules,
        tileable=True,
    )


def _by_runtime(kind: str, path: Path) -> ForeignRestorer:
    """Load a file with the runtime of its format. Raises WeightsError or SpecError."""
    _check_file(path)
    function = ExportedFunction(OPENERS[kind](path), path)
    fingerprint = digest(kind, file_sha256(path))
    if function.is_ours:
        return _ours(function, path, fingerprint, function.rules)
    return TriedRestorer(function, path, fingerprint, function.rules)


def _spandrel(path: Path) -> ForeignRestorer:
    """Load weights of any restorer that spandrel recognises. Raises WeightsError or SpecError."""
    spandrel = import_extra("spandrel", "spandrel", "spandrel:")
    weights = load_state_dict_file(path)
    try:
        descriptor = spandrel.ModelLoader().load_from_state_dict(dict(weights))
    except Exception as error:
        reason = first_sentence(str(error)) or type(error).__name__
        raise WeightsError(
            f"{path}: spandrel does not recognise these weights: {reason}"
        ) from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise WeightsError(f"{path} holds {descriptor.architecture.name}, which takes a mask too")
    if descriptor.scale != 1 or {descriptor.input_channels, descriptor.output_channels} != {3}:
        raise WeightsError(
            f"{path} holds {descriptor.architecture.name}, {descriptor.input_channels} to "
            f"{descriptor.output_channels} channels at scale {descriptor.scale}: not a restorer of "
            "RGB images"
        )
    # Models that cut tiles by themselves need the whole frame for that.
    tileable = descriptor.tiling != spandrel.ModelTiling.INTERNAL
    parts = ("spandrel", file_sha256(path), *(() if tileable else ("whole",)))
    return ForeignRestorer(
        _SpandrelModule(descriptor),
        path.stem,
        source=str(path),
        fingerprint=digest(*parts),
        rules=InputRules(max(1, descriptor.size_requirements.multiple_of)),
        tileable=tileable,
    )


class _SpandrelModule(nn.Module):
    """A spandrel descriptor as a module, which pads to the sizes its network needs.

    To a minimum, and to squares, it pads by itself.
    """

    def __init__(self, descriptor: Any) -> None:  # noqa: ANN401 (an optional package's)
        super().__init__()
        self.network = descriptor.model.eval().requires_grad_(False)
        self.supports_half = bool(descriptor.supports_half)
        self.supports_bfloat16 = bool(descriptor.supports_bfloat16)
        self._descriptor = descriptor

    def forward(self, batch: Tensor) -> Tensor:
        restored: Tensor = self._descriptor(batch)
        return restored


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"no file {path}")


EXPORTED: Mapping[str, Callable[[Path], ForeignRestorer]] = {
    "torchscript": _torchscript,
    **{kind: functools.partial(_by_runtime, kind) for kind in OPENERS},
    "spandrel": _spandrel,
}
"""Loaders by the kind of the spec."""
