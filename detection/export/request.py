"""What a graph of derainer and detector is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rainmer.errors import ConfigError
from rainmer.export.request import OPSETS, ExportRequest, Layout

__all__ = ["INPUTS", "GraphFormat", "GraphInput", "GraphRequest"]

GraphFormat = Literal["onnx", "openvino", "tensorrt"]
GraphInput = Literal["frames", "letterboxed"]
INPUTS = ("frames", "letterboxed")


@dataclass(frozen=True, kw_only=True)
class GraphRequest:
    """A wanted file.

    Attributes:
        derain: Spec of a derainer with weights, or `none`: detected in as they are.
        detector: Weights of an ultralytics detector, a `.pt` file.
        format: What runs the file.
        size_hw: (height, width) of the frames in pixels. Letterboxed: of the network's input; None:
            `imgsz` x `imgsz`.
        imgsz: Longer side of the detector's input in pixels.
        frame_hw: Letterboxed: (height, width) of the frames before, by which the grey border is
            left out of deraining; None: unknown, it is derained with the rest.
        batch: Number of frames.
        input: `frames`: uint8, of any camera; the letterbox is inside, boxes are in their pixels.
            `letterboxed`: floats 0..1 as ultralytics prepares them; what comes out is what its own
            exports give.
        nms: Whether the NMS is inside, with the three numbers below.
        conf: Lowest score of a detection, 0..1.
        iou: Overlap (IoU) above which the box with the lower score is dropped, 0..1.
        max_det: Detections of a frame that come out, padded by zeros.
        gate: `auto` or a benefit 0..1: derain only where the rain meter expects it; None: always.
        layout: Order of the frames' axes.
        precision: What the networks compute in; OpenVINO's `fp16` stores the weights in it.
        opset: Version of ONNX's operators.

    Raises:
        ConfigError: Values are out of range or do not fit together.
    """

    derain: str
    detector: str
    format: GraphFormat = "onnx"
    size_hw: tuple[int, int] | None = (720, 1280)
    imgsz: int = 640
    frame_hw: tuple[int, int] | None = None
    batch: int = 1
    input: GraphInput = "frames"
    nms: bool = False
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    gate: str | float | None = None
    layout: Layout = "nchw"
    precision: Literal["fp32", "fp16"] = "fp32"
    opset: int = OPSETS[0]

    def __post_init__(self) -> None:
        if self.input not in INPUTS:
            raise ConfigError(f"input is {self.input!r}: expected {' or '.join(INPUTS)}")
        if self.precision not in ("fp32", "fp16"):
            raise ConfigError(f"precision is {self.precision!r}: expected fp32 or fp16")
        for name, value in (("imgsz", self.imgsz), ("max_det", self.max_det)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, but is {value}")
        if self.letterboxed and self.gate is not None:
            raise ConfigError("the gate reads whole frames: leave out gate, or input letterboxed")
        if self.letterboxed and self.layout != "nchw":
            raise ConfigError("letterboxed input is (B, 3, H, W): leave out layout nhwc")
        if self.gate is not None and self.derain == "none":
            raise ConfigError("a gate without a derainer decides nothing: leave out gate")
        if self.size_hw is None and not self.letterboxed:
            raise ConfigError("frames need a size: give size_hw, or input letterboxed")
        if self.frame_hw is not None and not self.letterboxed:
            raise ConfigError("frame_hw is for input letterboxed: the size of frames is size_hw")
        _ = self.export  # checks the rest

    @property
    def letterboxed(self) -> bool:
        """Whether the input is the detector's own."""
        return self.input == "letterboxed"

    @property
    def export(self) -> ExportRequest:
        """The same in the words of `rainmer.export`."""
        return ExportRequest(
            format=self.format,
            size_hw=self.input_hw,
            batch=self.batch,
            precision=self.precision,
            frames="float32" if self.letterboxed else "uint8",
            layout=self.layout,
            opset=self.opset,
        )

    @property
    def input_hw(self) -> tuple[int, int]:
        """(height, width) of what goes in."""
        return self.size_hw or (self.imgsz, self.imgsz)
