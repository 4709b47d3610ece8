"""`python -m eval.gate measure|fit ...`: fit a gate's threshold to what helps a detector.

`measure` renders rain from none to heavy on pictures, derains, and records for each what the
detector finds before and after. `fit` learns from these records when deraining helps, chooses the
threshold, prints the table, and writes a rain meter that knows it.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.gate.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `eval.gate.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from eval.gate.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
