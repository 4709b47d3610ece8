"""`python -m rainmer.derain INPUT ... --out DIR`: derain images, folders and videos.

A few threads decode and encode files while the derainer runs. The same command continues an
interrupted run: a hidden record in the output folder names the derainer that made its files, and
files newer than both the record and their input are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from rainmer.cli import run_command, set_threads
from rainmer.derain.options import parse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `rainmer.derain.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from rainmer.derain.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
