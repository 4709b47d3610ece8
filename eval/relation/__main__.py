"""Does better restoration mean better detection? Gains of both, over derainers and sets.

python -m eval.relation --derain prenet:prenet.pth --sets day.yaml night.yaml --detector yolov8n.pt
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.cli import command_line
from eval.relation.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `eval.relation.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from eval.relation.command import run

    set_threads()
    run(options, command_line("eval.relation", argv))


if __name__ == "__main__":
    run_command(main)
