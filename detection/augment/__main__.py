"""`python -m detection.augment train --data FILE --model FILE`: train a detector on rain.

The honest competitor of a derainer: ultralytics' own training, with rain rendered on its images.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.augment.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `detection.augment.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from detection.augment.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
