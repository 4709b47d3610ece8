"""The options of `python -m rainmer.export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.cli import make_parser, parse_options, positive_int, size_hw
from rainmer.export.request import FORMATS, OPSETS, PRECISIONS

__all__ = ["ExportOptions", "add_opset_option", "parse"]

_EXAMPLE = """\
  python -m rainmer.export rainmer-s --format onnx --size 384x640 --out rainmer-s.onnx
  python -m rainmer.export rainmer-s --format openvino --precision bf16 --size 384x640 \\
      --out rainmer-s.xml
  python -m rainmer.export rainmer-s --format onnx --size dynamic --batch dynamic --out any.onnx"""

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The command line, option by option; `size` is (height, width), None: any."""

    spec: str
    format: str
    size: Size | None
    batch: int | None
    precision: str
    frames: str
    layout: str
    opset: int
    calibration: Path | None
    out: Path


def parse(argv: Sequence[str] | None) -> ExportOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m rainmer.export",
        "Write a derainer as one graph for a runtime: frames in, derained frames out, conversion, "
        "padding and the query inside. The file is run at once and compared with PyTorch; it is "
        "deleted if its frames differ.",
        _EXAMPLE,
    )
    parser.add_argument("spec", metavar="SPEC", help="rainmer-s, ..., or NETWORK:WEIGHTS")
    parser.add_argument("--format", choices=FORMATS, required=True, help="what runs the file")
    parser.add_argument(
        "--size",
        type=_size,
        default=(384, 640),
        metavar="HxW",
        help="height and width of the frames in pixels, or dynamic; default: 384x640",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        default=1,
        metavar="N",
        help="frames at once, or dynamic; default 1",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="what the network computes in; int8 is quantised on rendered rain; default: fp32",
    )
    parser.add_argument(
        "--frames",
        choices=("uint8", "float32"),
        default="uint8",
        help="type of the frames in and out: levels, or floats 0..1; default: uint8",
    )
    parser.add_argument(
        "--layout",
        choices=("nchw", "nhwc"),
        default="nchw",
        help="order of their axes; default: nchw, (B, 3, H, W)",
    )
    add_opset_option(parser)
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="photos on which rain is rendered, for int8 and for the comparison; default: drawn "
        "scenes",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    return parse_options(parser, ExportOptions, argv)


def add_opset_option(parser: argparse.ArgumentParser) -> None:
    """Add `--opset`."""
    parser.add_argument(
        "--opset",
        type=positive_int,
        default=OPSETS[0],
        metavar="N",
        help=f"version of ONNX's operators, {OPSETS[0]} to {OPSETS[1]}; default: {OPSETS[0]}",
    )


def _size(text: str) -> Size | None:
    return None if text == "dynamic" else size_hw(text)


def _batch(text: str) -> int | None:
    return None if text == "dynamic" else positive_int(text)
