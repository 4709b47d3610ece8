"""`rainmer VERB ...`: one command for all that the toolkit does.

Each verb is a module with a `main`, which `python -m` runs as well, and only the chosen one is
imported. Unlike `python -m`, an installed command does not look for modules in the working folder:
a file `eval.py` that lies there does no harm.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence

from rainmer.cli import run_command
from rainmer.config import nearest
from rainmer.errors import RainmerError
from rainmer.version import __version__

__all__ = ["VERBS", "main"]

VERBS = {
    "derain": ("rainmer.derain", "derain images, folders and videos"),
    "detect": ("detection", "derain and detect: images, videos, cameras, streams"),
    "eval": ("eval.detect", "does deraining help a detector? mAP rainy, derained, clean"),
    "restore": ("eval.restore", "PSNR, SSIM and other scores on test sets"),
    "relation": ("eval.relation", "gains in PSNR and SSIM against gains in mAP"),
    "footage": ("eval.footage", "what can be said about footage without labels"),
    "sets": ("eval.sets", "check and write detection sets"),
    "layouts": ("rainmer.data.layouts", "list and check training and test sets of pairs"),
    "train": ("rainmer.train", "train a derainer"),
    "tune": ("detection.tune", "fine-tune a derainer for a frozen detector"),
    "augment": ("detection.augment", "train a detector on rendered rain"),
    "rain": ("rainmer.rain", "render rain on images and videos"),
    "align": ("rainmer.align", "crop, measure and balance sets of pairs, find leaks"),
    "views": ("rainmer.views", "what a network's encoder tells apart"),
    "meter": ("rainmer.meter", "measure rain in images and videos"),
    "gate": ("eval.gate", "fit when deraining helps, for --gate"),
    "weights": ("rainmer.weights", "show and convert weights files"),
    "street": ("eval.street", "draw synthetic street scenes"),
}
"""Each verb, with its module and what it does."""


def main() -> None:
    """Run the command that the first argument names, in this process, and end it."""
    run_command(_run)


def _run(argv: Sequence[str] | None) -> None:
    verb, *rest = argv or sys.argv[1:] or ["--help"]
    if verb in ("-h", "--help", "help"):
        print("\n".join(_help()))
    elif verb == "--version":
        print(f"rainmer {__version__}")
    elif verb in VERBS:
        # The first word is what parsers then call themselves.
        sys.argv = [f"rainmer {verb}", *rest]
        importlib.import_module(f"{VERBS[verb][0]}.__main__").main()
    else:
        raise RainmerError(f"there is no rainmer {verb}: {nearest(verb, VERBS)}")


def _help() -> Iterator[str]:
    width = max(map(len, VERBS))
    yield "usage: rainmer VERB ...\n"
    yield from (f"  {verb:<{width}}  {about}" for verb, (_, about) in VERBS.items())
    yield "\nrainmer VERB --help lists the options of each."


if __name__ == "__main__":
    main()
