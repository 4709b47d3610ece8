"""`python -m rainmer.views --derain SPEC --sets NAME:FOLDER ... --out DIR`: views of data sets.

Embeds images of several sets with the encoder of a Rainmer network, draws a map of them for each
view, and measures whether the views separate the sets.
"""

from __future__ import annotations

from collections.abc import Sequence

from rainmer.cli import run_command, set_threads
from rainmer.views.options import parse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `rainmer.views.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from rainmer.views.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
