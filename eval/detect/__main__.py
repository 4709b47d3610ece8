"""The main job: mAP of a detector on rainy, derained and clean images.

python -m eval.detect --derain prenet:prenet.pth --data set.yaml --detector yolov8n.pt
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.cli import command_line
from eval.detect.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `eval.detect.command` says what it raises."""
    options = parse(argv)

    # After the options: it needs torch, help and mistakes do not.
    from eval.detect.command import run

    set_threads()
    run(options, command_line("eval.detect", argv))


if __name__ == "__main__":
    run_command(main)
