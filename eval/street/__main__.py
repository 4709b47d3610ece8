"""`python -m eval.street --out DIR --scenes 480`: draw training scenes of Rainy Street as files."""

from __future__ import annotations

from collections.abc import Sequence

from eval.street.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `eval.street.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from eval.street.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
