"""`python -m rainmer.meter FRAMES ...`: rain rate, streaks, veil, drops on the glass, night.

Prints a line for each image, and for each video its medians; `--json` prints every frame. With
`--out` each video, and all images together, get a plot over time and a CSV.
"""

from __future__ import annotations

from collections.abc import Sequence

from rainmer.cli import run_command, set_threads
from rainmer.meter.options import parse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `rainmer.meter.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from rainmer.meter.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
