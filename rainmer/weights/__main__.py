"""`python -m rainmer.weights show FILE` and `convert IN OUT.safetensors`.

Checkpoints are read as data: no code of theirs runs. What they hold beside the weights is named and
left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from rainmer.cli import run_command, set_threads
from rainmer.weights.options import parse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `rainmer.weights.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from rainmer.weights.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
