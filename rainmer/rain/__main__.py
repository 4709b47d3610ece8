"""`python -m rainmer.rain INPUT ... --out DIR --preset night --rate 50`: render rain.

Images become pairs of rainy image and clean target, with masks; with `--boxes` also a set that
`eval.detect` reads. Videos become rainy videos whose drops fall through space.
"""

from __future__ import annotations

from collections.abc import Sequence

from rainmer.cli import run_command, set_threads
from rainmer.rain.options import parse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `rainmer.rain.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from rainmer.rain.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
