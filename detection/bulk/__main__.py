"""`python -m detection.bulk IN --out OUT --detector WEIGHTS`: detect in masses of rainy images.

Ray Data spreads folders, tar shards and Parquet files over actors, on this machine or, with
`RAY_ADDRESS`, on a cluster. The same command goes on after an interruption.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.bulk.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `detection.bulk.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from detection.bulk.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
