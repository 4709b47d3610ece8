"""The options of `python -m detection.export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detection.export.request import INPUTS
from rainmer.cli import (
    add_gate_option,
    add_threads_option,
    fraction,
    make_parser,
    parse_options,
    positive_int,
    size_hw,
)
from rainmer.export.options import add_opset_option

__all__ = ["DESCRIPTIONS", "GraphOptions", "parse"]

DESCRIPTIONS = ("deepstream", "triton")

_EXAMPLE = """\
  python -m detection.export --derain rainmer-s --detector yolo11n.pt --size 720x1280 --nms \\
      --out rainy.onnx
  python -m detection.export --derain rainmer-s --detector yolo11n.pt --input letterboxed \\
      --frame 720x1280 --nms --describe deepstream --out rainy-yolo.onnx
  python -m detection.export --check rainy-yolo.onnx config_infer_primary.txt"""


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """The command line, option by option; `size` is (height, width)."""

    derain: str
    detector: str | None
    format: str
    size: tuple[int, int] | None
    imgsz: int
    frame: tuple[int, int] | None
    batch: int
    input: str
    nms: bool
    conf: float
    iou: float
    max_det: int
    gate: str | float | None
    layout: str
    precision: str
    opset: int
    photos: Path | None
    describe: Sequence[str]
    out: Path | None
    overwrite: bool
    check: Sequence[Path]


def parse(argv: Sequence[str] | None) -> GraphOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m detection.export",
        "Write a derainer and a detector as one graph: frames in, boxes in their pixels out. The "
        "file is run at once and compared with the Python pipeline; it is deleted if its "
        "detections differ.",
        _EXAMPLE,
    )
    _add_networks(parser)
    _add_shape(parser)
    _add_nms(parser)
    _add_file(parser)
    add_threads_option(parser)

    def options(**values: Any) -> GraphOptions:  # noqa: ANN401 (of any type)
        if not values["check"] and None in (values["detector"], values["out"]):
            parser.error("expected --detector WEIGHTS and --out FILE, or --check FILE CONFIG ...")
        if len(values["check"]) == 1:
            parser.error("--check needs the file of a model and its configurations")
        return GraphOptions(**values)

    return parse_options(parser, options, argv)


def _add_networks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--derain",
        default="rainmer-s",
        metavar="SPEC",
        help="rainmer-s, ..., NETWORK:WEIGHTS, or none: the detector alone; default: rainmer-s",
    )
    parser.add_argument("--detector", metavar="WEIGHTS", help="a .pt file of ultralytics")
    parser.add_argument(
        "--format",
        choices=("onnx", "openvino", "tensorrt"),
        default="onnx",
        help="what runs the file; default: onnx",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="what the networks compute in; default: fp32",
    )
    add_opset_option(parser)
    add_gate_option(parser)


def _add_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        choices=INPUTS,
        default="frames",
        help="frames: uint8, the letterbox is inside; letterboxed: floats 0..1, as ultralytics and "
        "DeepStream prepare them; default: frames",
    )
    parser.add_argument(
        "--size",
        type=size_hw,
        metavar="HxW",
        help="height and width of the frames in pixels; default: 720x1280; letterboxed: of the "
        "detector's input, default: imgsz x imgsz",
    )
    parser.add_argument(
        "--imgsz",
        type=positive_int,
        default=640,
        metavar="PX",
        help="longer side of the detector's input; default: 640",
    )
    parser.add_argument(
        "--frame",
        type=size_hw,
        metavar="HxW",
        help="letterboxed: size of the frames before, so that the grey border is not derained",
    )
    parser.add_argument(
        "--batch", type=positive_int, default=1, metavar="N", help="frames at once; default: 1"
    )
    parser.add_argument(
        "--layout",
        choices=("nchw", "nhwc"),
        default="nchw",
        help="order of the frames' axes; default: nchw, (B, 3, H, W)",
    )


def _add_nms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nms", action="store_true", help="with the NMS inside")
    parser.add_argument(
        "--conf",
        type=fraction,
        default=0.25,
        metavar="S",
        help="lowest score of a detection; default: 0.25",
    )
    parser.add_argument(
        "--iou",
        type=fraction,
        default=0.7,
        metavar="R",
        help="overlap above which the worse box is dropped; default: 0.7",
    )
    parser.add_argument(
        "--max-det",
        type=positive_int,
        default=300,
        metavar="N",
        help="detections of a frame that come out; default: 300",
    )


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="photos on which rain is rendered for the comparison; default: two of ultralytics",
    )
    parser.add_argument(
        "--describe",
        nargs="+",
        choices=DESCRIPTIONS,
        default=(),
        metavar="FOR",
        help="write a configuration beside the file: deepstream, triton",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--check",
        nargs="+",
        type=Path,
        default=(),
        metavar="FILE",
        help="check configurations of DeepStream and Triton against a model: its file, then theirs",
    )
