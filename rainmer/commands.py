"""`rainmer VERB ...`: one command for all that the toolkit does.

Each verb is a module with a `main`, which `python -m` runs as well, and only the chosen one is
imported. Unlike `python -m`, an installed command does not look for modules in the working folder:
a file `eval.py` that lies there does no harm.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rainmer.cli import run_command
from rainmer.config import nearest
from rainmer.errors import RainmerError
from rainmer.version import __version__

__all__ = ["VERBS", "Verb", "dispatch", "main"]


class Verb(NamedTuple):
    """A command: the package whose `__main__` it is, and what it does."""

    package: str
    about: str


VERBS = {
    "derain": Verb("rainmer.derain", "derain images, folders and videos"),
    "detect": Verb("detection", "derain and detect: images, videos, cameras, streams"),
    "serve": Verb("detection.serve", "derain and detect over HTTP, with a live view"),
    "bulk": Verb("detection.bulk", "derain and detect in millions of images, on Ray"),
    "eval": Verb("eval.detect", "does deraining help a detector? mAP rainy, derained, clean"),
    "restore": Verb("eval.restore", "PSNR, SSIM and other scores on test sets"),
    "relation": Verb("eval.relation", "gains in PSNR and SSIM against gains in mAP"),
    "footage": Verb("eval.footage", "what can be said about footage without labels"),
    "sets": Verb("eval.sets", "check and write detection sets"),
    "layouts": Verb("rainmer.data.layouts", "list and check training and test sets of pairs"),
    "train": Verb("rainmer.train", "train a derainer"),
    "tune": Verb("detection.tune", "fine-tune a derainer for a frozen detector"),
    "augment": Verb("detection.augment", "train a detector on rendered rain"),
    "runs": Verb("eval.report.compare", "compare runs of training and of evaluation"),
    "rain": Verb("rainmer.rain", "render rain on images and videos"),
    "align": Verb("rainmer.align", "crop, measure and balance sets of pairs, find leaks"),
    "views": Verb("rainmer.views", "what a network's encoder tells apart"),
    "meter": Verb("rainmer.meter", "measure rain in images and videos"),
    "gate": Verb("eval.gate", "fit when deraining helps, for --gate"),
    "export": Verb("rainmer.export", "a derainer as one graph for ONNX, OpenVINO, TensorRT"),
    "deploy": Verb("detection.export", "derainer and detector as one graph, for any runtime"),
    "weights": Verb("rainmer.weights", "show and convert weights files"),
    "cache": Verb("rainmer.cache", "show and clear what is kept between runs"),
    "street": Verb("eval.street", "draw synthetic street scenes"),
}
"""All commands by their verbs."""


def main() -> None:
    """Run the command that the first argument names, in this process, and end it."""
    run_command(dispatch)


def dispatch(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first word names, with the others as its command line.

    Args:
        argv: The words; None takes those of the process.

    Raises:
        RainmerError: There is no such command, or it has failed.
        SystemExit: See `rainmer.cli.parse_options`.
    """
    verb, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print("\n".join(_help()))
    elif verb == "--version":
        print(f"rainmer {__version__}")
    elif verb in VERBS:
        # The first word is what parsers then call themselves.
        sys.argv = [f"rainmer {verb}", *rest]
        importlib.import_module(f"{VERBS[verb].package}.__main__").main()
    else:
        raise RainmerError(f"there is no rainmer {verb}: {nearest(verb, VERBS)}")


def _help() -> Iterator[str]:
    width = max(map(len, VERBS))
    yield "usage: rainmer VERB ...\n"
    yield from (f"  {verb:<{width}}  {about}" for verb, (_, about) in VERBS.items())
    yield "\nrainmer VERB --help lists the options of each."
