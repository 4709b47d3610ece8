"""`python -m rainmer.cache [show|clear]`: what is kept between runs, and its removal."""

from __future__ import annotations

from collections.abc import Sequence

from rainmer.cache.options import parse
from rainmer.cli import run_command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `rainmer.cache.command` says what it raises."""
    options = parse(argv)
    from rainmer.cache.command import run

    run(options)


if __name__ == "__main__":
    run_command(main)
