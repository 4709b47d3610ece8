"""Check published rainy sets and write set files for them.

python -m eval.sets check /data/bdd100k --adapter bdd100k --split val
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.sets.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `eval.sets.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from eval.sets.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
