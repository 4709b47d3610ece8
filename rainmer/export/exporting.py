"""`export`: a derainer as a file for a runtime, run at once and compared with PyTorch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rainmer import models
from rainmer.errors import RainmerError, SpecError
from rainmer.export.checking import BOUNDS, Difference, as_input, compare, first_differing
from rainmer.export.formats import write_format
from rainmer.export.graph import DerainGraph, Query
from rainmer.export.request import SUFFIXES, ExportRequest
from rainmer.export.samples import rainy_samples
from rainmer.files import atomic_write
from rainmer.models.rainmer import SparseUNet
from rainmer.version import __version__

__all__ = ["Exported", "export", "export_network", "metadata_of"]

_CHECKED = 3
_CHECKED_HW = ((96, 128), (101, 133))  # of files for any size
_CALIBRATED = 48
_CALIBRATED_HW = (192, 256)  # of files for any size
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written and compared.

    Attributes:
        path: The file; OpenVINO has its weights in a `.bin` beside it.
        bytes: Of the file and what lies beside it.
        seconds: That writing and comparing took.
        difference: To PyTorch in float32 on the whole frames that were compared.
        metadata: What the file tells about itself.
    """

    path: Path
    bytes: int
    seconds: float
    difference: Difference
    metadata: Mapping[str, str]


def export(
    spec: str,
    out: Path | str,
    *,
    request: ExportRequest | None = None,
    photos: Path | None = None,
) -> Exported:
    """Export a derainer.

    Args:
        spec: `rainmer-s`, another name of shipped weights, or `NETWORK:WEIGHTS`.
        out: The file, with the suffix of its format (`SUFFIXES`).
        request: What is asked for; default: ONNX, float32, one uint8 frame of 640x384.
        photos: Folder of photos, on which rain is rendered for int8 and for the comparison;
            default: drawn scenes.

    Raises:
        SpecError: The spec names no weights, or a package is missing.
        ConfigError: The format cannot do it; see `ExportRequest`.
        RainmerError: The network cannot be exported so, or the file gives other frames than
            PyTorch: it is then deleted, and the first layer that differs is named.
        OutputError: The file cannot be written.
    """
    request = request or ExportRequest()
    path = Path(out)
    if path.suffix.lower() != SUFFIXES[request.format]:
        raise SpecError(
            f"a file of {request.format} ends in {SUFFIXES[request.format]}, unlike {path.name}"
        )
    try:
        network = models.load(spec)
    except SpecError as error:
        raise SpecError(f"only networks with weights are exported: {error}") from error
    return export_network(network, spec, path, request, photos=photos)


def export_network(
    network: models.Network,
    spec: str,
    path: Path,
    request: ExportRequest,
    *,
    photos: Path | None = None,
) -> Exported:
    """Export a network that is loaded, in eval mode and on the CPU; see `export`.

    Args:
        network: The network.
        spec: What the file shall call it.
        path: The file.
        request: What is asked for.
        photos: See `export`.
    """
    began = time.perf_counter()
    graph = _graph(network, request)
    metadata = metadata_of(spec, network, request)
    samples = list(_checked(request, photos))
    fused = network.fuse() if isinstance(network, SparseUNet) else network
    wanted = [_restored(fused, sample, spec) for sample in samples]
    with atomic_write(path) as temporary:
        try:
            write_format(
                graph,
                request,
                temporary,
                metadata,
                calibration=lambda: _calibration(request, photos),
            )
            difference = compare(temporary, request, samples, wanted)
            if not BOUNDS[request.precision].holds(difference):
                layer = first_differing(graph, request, samples[0], temporary)
                raise RainmerError(
                    f"{path} was not kept: its frames differ from PyTorch's by {difference}, "
                    f"more than {BOUNDS[request.precision]}; the first layer to differ is {layer}"
                )
            _keep_weights(temporary, path)
        finally:
            temporary.with_suffix(".bin").unlink(missing_ok=True)
    files = [path, *([path.with_suffix(".bin")] if request.format == "openvino" else [])]
    return Exported(
        path=path,
        bytes=sum(file.stat().st_size for file in files),
        seconds=time.perf_counter() - began,
        difference=difference,
        metadata=metadata,
    )


def metadata_of(spec: str, network: models.Network, request: ExportRequest) -> dict[str, str]:
    """Return what a file tells about itself."""
    return {
        "spec": spec,
        "network": network.name,
        "weights": models.weights_fingerprint(network),
        "format": request.format,
        "precision": request.precision,
        "size": request.size_text,
        "batch": request.batch_text,
        "frames": request.frames,
        "layout": request.layout,
        "multiple": str(network.size_multiple),
        "version": __version__,
    }


def _graph(network: models.Network, request: ExportRequest) -> DerainGraph:
    """Return the graph in the type of the precision; OpenVINO is told the type when it runs."""
    dtype = None if request.format == "openvino" else _DTYPES.get(request.precision)
    return DerainGraph(
        network,
        size_hw=request.size_hw,
        layout=request.layout,
        dtype=dtype or torch.float32,
    ).eval()


def _checked(request: ExportRequest, photos: Path | None) -> Iterator[Tensor]:
    """Make the batches of levels that are compared, (B, 3, H, W)."""
    batch = request.batch or 2
    for size_hw in [request.size_hw] if request.size_hw else _CHECKED_HW:
        frames = rainy_samples(max(batch, _CHECKED), size_hw, photos, seed=1)
        stacked = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
        stacked = stacked[torch.arange(max(batch, len(stacked))) % len(stacked)]
        for start in range(0, len(stacked) - batch + 1, batch):
            yield stacked[start : start + batch].contiguous()


@torch.no_grad()
def _restored(network: models.Network, sample: Tensor, spec: str) -> Tensor:
    """Restore levels (B, 3, H, W) by the network itself as the stage runs it, float32 of 0..1."""
    size_hw = (sample.shape[2], sample.shape[3])
    unit = sample.float().div(255.0)
    extra: tuple[Tensor, ...] = ()
    if isinstance(network, models.Rainmer):
        extra = (Query(size_hw)(unit),)
    restored: Tensor = network(unit, *extra)
    if not torch.isfinite(restored).all():
        raise RainmerError(f"{spec} gives values that are not finite: nothing is exported")
    return restored.clamp(0.0, 1.0)


def _calibration(request: ExportRequest, photos: Path | None) -> Iterator[npt.NDArray[Any]]:
    batch = request.batch or 1
    frames = rainy_samples(_CALIBRATED, request.size_hw or _CALIBRATED_HW, photos)
    for start in range(0, len(frames) - batch + 1, batch):
        values = torch.from_numpy(np.stack(frames[start : start + batch]))
        yield as_input(values.permute(0, 3, 1, 2), request)


def _keep_weights(temporary: Path, path: Path) -> None:
    """Move what OpenVINO has written beside a file, before the file itself."""
    beside = temporary.with_suffix(".bin")
    if beside.is_file():
        with atomic_write(path.with_suffix(".bin")) as target:
            beside.replace(target)
