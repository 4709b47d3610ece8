"""`export_pipeline`: a file for a runtime, run at once and compared with the Python pipeline."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from detection.export.comparing import BOUNDS, Comparison, compare, detections_of
from detection.export.gate import RainGate
from detection.export.graph import PipelineGraph, Suppression
from detection.export.request import GraphRequest
from detection.pipeline import Pipeline
from detection.types import Detections
from detection.yolo.adapter import YoloDetector
from detection.yolo.export import PHOTOS, YoloGraph, stride_of, yolo_metadata
from detection.yolo.letterbox import PAD_VALUE, Placement, place
from rainmer import Derainer, models
from rainmer.errors import ConfigError, OutputError, RainmerError, SpecError, WeightsError
from rainmer.export.checking import as_input
from rainmer.export.formats import write_format
from rainmer.export.graph import DerainGraph
from rainmer.export.request import SUFFIXES
from rainmer.export.samples import rainy_samples
from rainmer.export.sessions import OPENERS
from rainmer.extras import import_extra
from rainmer.files import atomic_write, file_sha256, write_text
from rainmer.frames.arrays import Frame
from rainmer.meter import RainMeter
from rainmer.stage.gate import check_threshold
from rainmer.version import __version__

__all__ = ["ExportedPipeline", "export_pipeline"]

_CHECKED = 3  # frames, or whole batches of more
_MOST_FAULTS = 3  # that an error names
_PACKAGES = {
    "onnx": ("onnx", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": ("openvino", ("onnx", "onnxscript", "openvino")),
    "tensorrt": ("tensorrt", ("onnx", "onnxscript", "tensorrt")),
}


@dataclass(frozen=True, kw_only=True)
class ExportedPipeline:
    """A file that was written and compared.

    Attributes:
        path: The file; OpenVINO has its weights in a `.bin` beside it.
        bytes: Of the file and what lies beside it.
        seconds: That writing and comparing took.
        comparison: Its detections against those of `detection.Pipeline` in float32.
        outputs: Names of its outputs.
    """

    path: Path
    bytes: int
    seconds: float
    comparison: Comparison
    outputs: tuple[str, ...]


def export_pipeline(
    request: GraphRequest, out: Path | str, *, photos: Path | None = None, overwrite: bool = False
) -> ExportedPipeline:
    """Export a derainer and a detector.

    Args:
        request: What is asked for.
        out: The file, with the suffix of its format (`rainmer.export.request.SUFFIXES`).
        photos: Folder of photos, on which rain is rendered for the comparison; None: two that come
            with ultralytics.
        overwrite: Whether to replace an existing file.

    Raises:
        SpecError: The spec names no weights, or a package is missing.
        ConfigError: Sizes do not fit the detector.
        WeightsError: The detector cannot be exported, or weights are too large for half precision.
        RainmerError: The file gives other detections than the pipeline: it is then deleted.
        OutputError: The file exists, or cannot be written.
    """
    began = time.perf_counter()
    path = _checked_path(request, Path(out), overwrite)
    extra, packages = _PACKAGES[request.format]
    for package in packages:
        import_extra(package, extra, f"an export to {request.format}")
    detector = YoloDetector(
        request.detector,
        device="cpu",
        conf=request.conf,
        iou=request.iou,
        imgsz=max(request.input_hw) if request.letterboxed else request.imgsz,
        max_det=request.max_det,
    )
    graph = build_graph(request, detector)
    wanted_frames = _frames(request, photos)
    wanted = _pipeline(request, detector)(wanted_frames)
    with atomic_write(path) as temporary:
        try:
            _write(graph, request, temporary)
            comparison = _compared(graph, request, temporary, wanted_frames, wanted)
            if comparison.faults:
                raise RainmerError(_refusal(path, request, comparison.faults))
            if request.format == "openvino":
                _keep_beside(graph, request, temporary, path)
        finally:
            temporary.with_suffix(".bin").unlink(missing_ok=True)
    files = [path, *([path.with_suffix(".bin")] if request.format == "openvino" else [])]
    return ExportedPipeline(
        path=path,
        bytes=sum(file.stat().st_size for file in files),
        seconds=time.perf_counter() - began,
        comparison=comparison,
        outputs=graph.outputs,
    )


def _checked_path(request: GraphRequest, path: Path, overwrite: bool) -> Path:
    suffix = SUFFIXES[request.format]
    if path.suffix.lower() != suffix:
        raise SpecError(f"a file of {request.format} ends in {suffix}, unlike {path.name}")
    if path.is_dir() or (path.exists() and not overwrite):
        raise OutputError(f"{path} exists already: give another --out, or --overwrite")
    return path


def build_graph(request: GraphRequest, detector: YoloDetector) -> PipelineGraph:
    """Put derainer, letterbox, detector and NMS together.

    Raises:
        SpecError, ConfigError, WeightsError: See `export_pipeline`.
    """
    half = request.precision == "fp16" and request.format != "openvino"
    dtype = torch.float16 if half else torch.float32
    frame_hw = request.input_hw
    placement = _placement(request, stride_of(detector))
    network = YoloGraph(
        detector,
        frame_hw if placement is None else placement.canvas_hw,
        batch=request.batch,
        count=request.max_det,
        dtype=dtype,
    )
    derainer, content = None, _content(request)
    if request.derain != "none":
        restorer = _network(request.derain)
        size_hw = frame_hw if content is None else content.size_hw
        derainer = DerainGraph(restorer, size_hw=size_hw, dtype=dtype)
    suppression = Suppression(request.conf, request.iou, request.max_det)
    graph = PipelineGraph(
        derainer,
        network,
        frame_hw=frame_hw,
        placement=placement,
        suppression=suppression if request.nms and not network.end_to_end else None,
        content=content,
        gate=_gate(request),
        layout=request.layout,
    ).eval()
    if request.precision == "fp16":
        _check_half(detector, restorer if derainer is not None else None)
    return graph.requires_grad_(False)


def _network(spec: str) -> models.Network:
    try:
        return models.load(spec)
    except SpecError as error:
        raise SpecError(f"only networks with weights are exported: {error}") from error


def _placement(request: GraphRequest, stride: int) -> Placement | None:
    """Return where the letterbox places frames; None: they are placed already."""
    sides = request.input_hw if request.letterboxed else (request.imgsz,)
    for side in sides:
        if side % stride:
            lower = side // stride * stride
            near = " or ".join(str(near) for near in (lower, lower + stride) if near)
            raise ConfigError(
                f"{side} px is no multiple of the detector's stride, {stride}: give {near}"
            )
    if request.letterboxed:
        return None
    return place(request.input_hw, (request.imgsz, request.imgsz), auto=True, stride=stride)


def _content(request: GraphRequest) -> Placement | None:
    """Return where frames lie in a letterboxed input; None: unknown, or there is none."""
    return None if request.frame_hw is None else place(request.frame_hw, request.input_hw)


def _gate(request: GraphRequest) -> RainGate | None:
    if request.gate is None:
        return None
    threshold = check_threshold(request.gate)
    meter = RainMeter(device="cpu")
    value = meter.threshold if threshold == "auto" else float(threshold)
    return RainGate(meter, value, request.input_hw)


def _check_half(detector: YoloDetector, restorer: models.Network | None) -> None:
    """Refuse weights that are too large for half precision.

    Raises:
        WeightsError: One is; it is named.
    """
    for role, network in (("derainer", restorer), ("detector", detector.yolo.model)):
        if not isinstance(network, nn.Module):
            continue
        for name, weight in network.named_parameters():
            largest = float(weight.detach().abs().max()) if weight.numel() else 0.0
            if not largest <= torch.finfo(torch.float16).max:
                raise WeightsError(
                    f"the weights of the {role} forbid half precision: {name} holds {largest:.3g}; "
                    "give --precision fp32"
                )


def _frames(request: GraphRequest, photos: Path | None) -> list[Frame]:
    """Render rain on photos of the wanted size, a whole number of batches."""
    count = -(-_CHECKED // request.batch) * request.batch
    frames = rainy_samples(min(count, _CHECKED), request.input_hw, photos or PHOTOS, seed=1)
    return [frames[i % len(frames)] for i in range(count)]


def _pipeline(request: GraphRequest, detector: YoloDetector) -> Pipeline:
    """Return the pipeline in float32 that a file is compared with."""
    gate = None if request.gate is None else check_threshold(request.gate)
    derainer = Derainer(request.derain, device="cpu", precision="fp32", gate=gate)
    content = _content(request)
    if content is None:
        return Pipeline(derainer, detector)
    inside = content.content

    def derain_inside(frames: list[Frame]) -> list[Frame]:
        derained = []
        for frame in derainer([np.ascontiguousarray(frame[inside]) for frame in frames]):
            canvas = np.full((*content.canvas_hw, 3), PAD_VALUE, np.uint8)
            canvas[inside] = frame
            derained.append(canvas)
        return derained

    return Pipeline(derain_inside, detector)


def _compared(
    graph: PipelineGraph,
    request: GraphRequest,
    path: Path,
    frames: list[Frame],
    wanted: list[Detections],
) -> Comparison:
    """Run a file and compare it with the pipeline.

    Raises:
        RainmerError: Its runtime fails, or values are not finite.
    """
    session = OPENERS[request.format](path)
    suppression = Suppression(request.conf, request.iou, request.max_det)
    found: list[Detections] = []
    for start in range(0, len(frames), request.batch):
        levels = torch.from_numpy(np.stack(frames[start : start + request.batch]))
        values = as_input(levels.permute(0, 3, 1, 2), request.export)
        try:
            results = session.run(values, graph.outputs)
        except RuntimeError as error:
            raise RainmerError(f"{request.format} cannot run its file: {error}") from error
        outputs = dict(zip(graph.outputs, results, strict=True))
        try:
            found += detections_of(
                outputs,
                suppression,
                end_to_end=graph.detector.end_to_end,
                frame_hw=request.input_hw,
            )
        except RainmerError as error:
            raise RainmerError(_refusal(path, request, [str(error)])) from error
    names = graph.detector.names
    bound = BOUNDS[request.precision]
    return compare(found, wanted, names, conf=request.conf, bound=bound)


def _refusal(path: Path, request: GraphRequest, faults: list[str]) -> str:
    more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
    return (
        f"{path} was not kept: it differs from the Python pipeline by more than "
        f"{BOUNDS[request.precision]}: {'; '.join(faults[:_MOST_FAULTS])}{more}"
    )


def _metadata(request: GraphRequest, graph: PipelineGraph) -> dict[str, str]:
    """Return what a file tells about itself."""
    derainer = None if request.derain == "none" else _network(request.derain)
    return {
        "derain": request.derain,
        "weights": "" if derainer is None else models.weights_fingerprint(derainer),
        "detector": Path(request.detector).name,
        "detector_sha256": file_sha256(request.detector),
        "names": json.dumps(graph.detector.names),
        "input": request.input,
        "imgsz": str(request.imgsz),
        "size": request.export.size_text,
        "batch": str(request.batch),
        "layout": request.layout,
        "precision": request.precision,
        "nms": json.dumps(bool(graph.suppression) or graph.detector.end_to_end),
        "conf": str(request.conf),
        "iou": str(request.iou),
        "gate": "" if graph.gate is None else str(graph.gate.threshold),
        "version": __version__,
    }


def _yolo_metadata(request: GraphRequest, graph: PipelineGraph) -> Mapping[str, Any]:
    """Return what ultralytics reads; nothing for files that it cannot run."""
    if not request.letterboxed:
        return {}
    return yolo_metadata(
        graph.detector, request.input_hw, batch=request.batch, nms=graph.suppression is not None
    )


def _write(graph: PipelineGraph, request: GraphRequest, path: Path) -> None:
    metadata = _metadata(request, graph)
    theirs = _yolo_metadata(request, graph)
    if request.format == "tensorrt":
        metadata = {**metadata, **theirs}
    write_format(graph, request.export, path, metadata, calibration=list, outputs=graph.outputs)
    if request.format == "onnx":
        onnx = import_extra("onnx", "onnx", "an ONNX export")
        model = onnx.load(path)
        for key, value in theirs.items():
            model.metadata_props.add(key=key, value=str(value))
        onnx.save(model, path)


def _keep_beside(graph: PipelineGraph, request: GraphRequest, temporary: Path, path: Path) -> None:
    """Move OpenVINO's weights to their place, and write what ultralytics reads beside them."""
    with atomic_write(path.with_suffix(".bin")) as target:
        temporary.with_suffix(".bin").replace(target)
    theirs = _yolo_metadata(request, graph)
    if theirs:
        write_text(path.with_name("metadata.yaml"), yaml.safe_dump(dict(theirs), sort_keys=False))
