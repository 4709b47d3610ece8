"""What specs look like, for help texts: nothing here loads torch."""

from __future__ import annotations

import argparse

__all__ = ["DEFAULT_DERAINER", "SPEC_HELP", "add_derain_option"]

DEFAULT_DERAINER = "rainmer-s"
"""The derainer that commands use if none is named."""

SPEC_HELP = (
    "rainmer-s, none, median, NETWORK:WEIGHTS, spandrel:WEIGHTS, onnx:FILE, openvino:FILE, "
    "tensorrt:FILE, torchscript:FILE, results:FOLDER, python:module:callable, blend:A:SPEC, "
    "gate:SPEC"
)


def add_derain_option(parser: argparse.ArgumentParser) -> None:
    """Add `--derain [SPEC]`: what derains, without a spec the default derainer."""
    parser.add_argument(
        "--derain",
        nargs="?",
        const=DEFAULT_DERAINER,
        default=DEFAULT_DERAINER,
        metavar="SPEC",
        help=f"what derains: one of {SPEC_HELP}; default: {DEFAULT_DERAINER}",
    )
