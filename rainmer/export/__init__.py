"""Exports of the derainer: one graph for ONNX Runtime, OpenVINO, TensorRT or TorchScript.

`export("rainmer-s", "rainmer-s.onnx")` writes a file, runs it and compares it with PyTorch;
`ExportRequest` says what is wanted. `DerainGraph` is the stage as one module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from rainmer.export.exporting import Exported, export
    from rainmer.export.graph import DerainGraph
    from rainmer.export.request import ExportRequest

__all__ = ["DerainGraph", "ExportRequest", "Exported", "export"]

__getattr__ = lazy_names(
    __name__,
    {
        "rainmer.export.exporting": "Exported export",
        "rainmer.export.graph": "DerainGraph",
        "rainmer.export.request": "ExportRequest",
    },
)
