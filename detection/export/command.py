"""What the command writes, checks and prints."""

from __future__ import annotations

from typing import cast

from detection.export.checking import check_files
from detection.export.describing import describe
from detection.export.exporting import export_pipeline
from detection.export.options import GraphOptions
from detection.export.request import GraphFormat, GraphInput, GraphRequest
from rainmer.export.request import Layout

__all__ = ["run"]

_MB = 1e6
_FRAME_HW = (720, 1280)


def run(options: GraphOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: See `export_pipeline`; or a configuration does not fit its model.
    """
    if options.check:
        model, *configs = options.check
        for line in check_files(model, configs):
            print(line)
        return
    assert options.detector is not None
    assert options.out is not None
    request = _request(options, options.detector)
    done = export_pipeline(request, options.out, photos=options.photos, overwrite=options.overwrite)
    print(
        f"{done.path}: {request.derain} and {options.detector} for {request.format}, "
        f"{request.precision}, size {request.export.size_text}, batch {request.batch}; "
        f"{done.bytes / _MB:.1f} MB, written and compared in {done.seconds:.0f} s"
    )
    print(f"against the Python pipeline in float32: {done.comparison}")
    if not done.comparison.detections:
        print("nothing was compared: give --photos DIR with what the detector knows")
    print(f"outputs: {', '.join(done.outputs)}")
    for kind in options.describe:
        for path in describe(done.path, kind, overwrite=options.overwrite):
            print(f"written: {path}")


def _request(options: GraphOptions, detector: str) -> GraphRequest:
    size_hw = options.size
    if size_hw is None and options.input == "frames":
        size_hw = _FRAME_HW
    return GraphRequest(
        derain=options.derain,
        detector=detector,
        format=cast(GraphFormat, options.format),
        size_hw=size_hw,
        imgsz=options.imgsz,
        frame_hw=options.frame,
        batch=options.batch,
        input=cast(GraphInput, options.input),
        nms=options.nms,
        conf=options.conf,
        iou=options.iou,
        max_det=options.max_det,
        gate=options.gate,
        layout=cast(Layout, options.layout),
        precision="fp16" if options.precision == "fp16" else "fp32",
        opset=options.opset,
    )
