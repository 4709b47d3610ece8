"""PSNR and SSIM of derainers on test sets, in the conventions of published numbers.

python -m eval.restore --derain prenet:prenet.pth --sets rain100H:/data rain100L:/data
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.cli import command_line
from eval.restore.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `eval.restore.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from eval.restore.command import run

    set_threads()
    run(options, command_line("eval.restore", argv))


if __name__ == "__main__":
    run_command(main)
