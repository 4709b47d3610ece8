"""`python -m rainmer.export SPEC --format FORMAT --out FILE`: a derainer as one graph."""

from __future__ import annotations

from collections.abc import Sequence

from rainmer.cli import run_command, set_threads
from rainmer.export.options import parse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `rainmer.export.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from rainmer.export.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
