"""`python -m rainmer.align COMMAND`: align sets of pairs before they are mixed.

`crop` cuts large images, `measure` measures the properties of sets, `balance` selects a part whose
rain is as dense as in other sets, `plot` shows sets side by side, `leaks` finds images that occur
in two sets. All but `leaks` resume an interrupted run.
"""

from __future__ import annotations

from collections.abc import Sequence

from rainmer.align.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `rainmer.align.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from rainmer.align.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
