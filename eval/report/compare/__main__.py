"""`python -m eval.report.compare [FOLDER ...]`: compare runs of training and of evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from eval.report.compare.options import parse
from rainmer.cli import run_command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `eval.report.compare.command` says what it raises."""
    options = parse(argv)
    from eval.report.compare.command import run

    run(options)


if __name__ == "__main__":
    run_command(main)
