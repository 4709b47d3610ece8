"""A run of the command, from its options to what it prints."""

from __future__ import annotations

import logging

from eval.cli import result_text
from eval.footage.finish import finish
from eval.footage.options import FootageOptions
from eval.footage.run import look_at_frames, raise_unreadable, set_up

__all__ = ["run"]


def run(options: FootageOptions, command: str) -> None:
    """Run the command; `command` is how it was typed.

    Raises:
        RainmerError: A mistake in the options, or no frame can be read. At the end also when files
            could not be read in full; the results of all others are kept.
    """
    if options.quiet:
        logging.getLogger().setLevel(logging.WARNING)
    bench = set_up(options)
    frames = look_at_frames(bench)
    lines = finish(bench, frames, command)
    print(result_text(bench.folder, lines, as_json=options.json))
    raise_unreadable(bench.footage)
