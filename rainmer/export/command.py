"""What the command writes and prints."""

from __future__ import annotations

from typing import cast

from rainmer.export.exporting import export
from rainmer.export.options import ExportOptions
from rainmer.export.request import (
    ExportFormat,
    ExportPrecision,
    ExportRequest,
    FrameType,
    Layout,
)

__all__ = ["run"]

_MB = 1e6


def run(options: ExportOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: See `rainmer.export.exporting.export`.
    """
    request = ExportRequest(
        format=cast(ExportFormat, options.format),
        size_hw=options.size,
        batch=options.batch,
        precision=cast(ExportPrecision, options.precision),
        frames=cast(FrameType, options.frames),
        layout=cast(Layout, options.layout),
        opset=options.opset,
    )
    done = export(options.spec, options.out, request=request, photos=options.calibration)
    print(
        f"{done.path}: {options.spec} for {request.format}, {request.precision}, "
        f"size {request.size_text}, batch {request.batch_text}; {done.bytes / _MB:.1f} MB, "
        f"written and compared in {done.seconds:.0f} s"
    )
    print(f"against PyTorch in float32: {done.difference}")
    if request.size_hw and any(side % int(done.metadata["multiple"]) for side in request.size_hw):
        multiple = done.metadata["multiple"]
        print(f"sides are padded to multiples of {multiple} inside: those waste nothing")
    if request.format != "tensorrt":
        print(f"as a derainer: {request.format}:{done.path}")
