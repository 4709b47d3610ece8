"""`python -m detection.tune --config FILE`: fine-tune a derainer for a frozen detector.

The loss of a training run gets a further part: how far the detector sees the restored crops from
the clean ones. The detector itself never changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.tune.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `detection.tune.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from detection.tune.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
