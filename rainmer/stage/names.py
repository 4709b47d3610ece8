"""What specs look like, for help texts: nothing here loads torch."""

from __future__ import annotations

__all__ = ["DEFAULT_DERAINER", "SPEC_HELP"]

DEFAULT_DERAINER = "rainmer-s"
"""The derainer that commands use if none is named."""

SPEC_HELP = (
    "rainmer-s, none, median, NETWORK:WEIGHTS, spandrel:WEIGHTS, onnx:FILE, torchscript:FILE, "
    "results:FOLDER, python:module:callable, blend:A:SPEC, gate:SPEC"
)
