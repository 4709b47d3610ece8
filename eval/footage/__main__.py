"""What can be said about deraining on rainy footage without labels and clean frames.

python -m eval.footage drive.mp4 --derain rainmer-s --detector yolo11n.pt
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.cli import command_line
from eval.footage.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `eval.footage.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from eval.footage.command import run

    set_threads()
    run(options, command_line("eval.footage", argv))


if __name__ == "__main__":
    run_command(main)
