"""List the layouts of training and test sets, and check copies of them.

python -m rainmer.data.layouts check synrain:/data rain100L:/data
"""

from __future__ import annotations

from collections.abc import Sequence

from rainmer.cli import run_command, set_threads
from rainmer.data.layouts.options import parse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `rainmer.data.layouts.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from rainmer.data.layouts.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
