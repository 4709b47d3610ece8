"""What an export is asked for, and what the formats cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rainmer.errors import ConfigError

__all__ = [
    "FORMATS",
    "OPSETS",
    "PRECISIONS",
    "SUFFIXES",
    "ExportFormat",
    "ExportPrecision",
    "ExportRequest",
    "FrameType",
    "Layout",
]

ExportFormat = Literal["onnx", "openvino", "tensorrt", "torchscript"]
ExportPrecision = Literal["fp32", "fp16", "bf16", "int8"]
FrameType = Literal["uint8", "float32"]
Layout = Literal["nchw", "nhwc"]

FORMATS: tuple[str, ...] = get_args(ExportFormat)
PRECISIONS: tuple[str, ...] = get_args(ExportPrecision)
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "tensorrt": ".engine", "torchscript": ".ts"}
OPSETS = (18, 23)
"""The oldest and the newest version of ONNX's operators that torch writes and runtimes read."""

_IMPOSSIBLE = {
    ("onnx", "bf16"): "onnxruntime has no bfloat16 convolutions on CPUs: use fp16 or fp32",
    ("torchscript", "int8"): "TorchScript has no quantised operators of ours: use openvino or onnx",
}


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """A wanted file.

    Attributes:
        format: What runs it.
        size_hw: The only (height, width) of the frames in pixels; None: any.
        batch: The only number of frames; None: any.
        precision: What the network computes in. OpenVINO's `fp16` stores the weights in it; `int8`
            is quantised on rendered rain.
        frames: Type of the frames, and of the result: levels 0..255, or floats 0..1.
        layout: Order of their axes: `nchw`, (B, 3, H, W), or `nhwc`, (B, H, W, 3).
        opset: Version of ONNX's operators.

    Raises:
        ConfigError: A value is out of range, or the format cannot do it.
    """

    format: ExportFormat = "onnx"
    size_hw: tuple[int, int] | None = (384, 640)
    batch: int | None = 1
    precision: ExportPrecision = "fp32"
    frames: FrameType = "uint8"
    layout: Layout = "nchw"
    opset: int = OPSETS[0]

    def __post_init__(self) -> None:
        for name, value, kind in (
            ("format", self.format, ExportFormat),
            ("precision", self.precision, ExportPrecision),
            ("frames", self.frames, FrameType),
            ("layout", self.layout, Layout),
        ):
            if value not in get_args(kind):
                raise ConfigError(f"{name} is {value!r}: expected {' or '.join(get_args(kind))}")
        if self.size_hw is not None and min(self.size_hw) < 1:
            raise ConfigError(f"the size must be at least 1x1, but is {self.size_text}")
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"the batch must be at least 1, but is {self.batch}")
        if not OPSETS[0] <= self.opset <= OPSETS[1]:
            raise ConfigError(
                f"there is no opset {self.opset} here: {OPSETS[0]} to {OPSETS[1]} are written"
            )
        reason = _IMPOSSIBLE.get((self.format, self.precision))
        if reason:
            raise ConfigError(f"{self.format} cannot be {self.precision}: {reason}")
        if self.format == "tensorrt" and None in (self.size_hw, self.batch):
            raise ConfigError(
                "a TensorRT engine is built for one shape: give --size HxW and --batch N"
            )

    @property
    def size_text(self) -> str:
        """The size as HxW, or `dynamic`."""
        return "dynamic" if self.size_hw is None else "x".join(map(str, self.size_hw))

    @property
    def batch_text(self) -> str:
        """The batch as a number, or `dynamic`."""
        return "dynamic" if self.batch is None else str(self.batch)

    def shape(self, *, batch: int, size_hw: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of frames of the layout."""
        sides = (3, *size_hw) if self.layout == "nchw" else (*size_hw, 3)
        return (batch, *sides)
