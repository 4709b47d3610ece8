"""Derainer and detector as one graph, for ONNX Runtime, OpenVINO or TensorRT.

`export_pipeline(GraphRequest(...), "rainy.onnx")` writes a file, runs it and compares its
detections with those of `detection.Pipeline`. Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from detection.export.exporting import ExportedPipeline, export_pipeline
    from detection.export.graph import PipelineGraph
    from detection.export.request import GraphRequest

__all__ = ["ExportedPipeline", "GraphRequest", "PipelineGraph", "export_pipeline"]

__getattr__ = lazy_names(
    __name__,
    {
        "detection.export.exporting": "ExportedPipeline export_pipeline",
        "detection.export.graph": "PipelineGraph",
        "detection.export.request": "GraphRequest",
    },
)
