"""`python -m detection.export`: derainer and detector as one graph."""

from __future__ import annotations

from collections.abc import Sequence

from detection.export.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `detection.export.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from detection.export.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
