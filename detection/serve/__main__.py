"""`python -m detection.serve --detector WEIGHTS`: derain and detect over HTTP, with a live view.

Images come in by POST requests, live pictures from `--source`; all share one queue of batches.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from detection.serve.options import parse
from rainmer.cli import run_command, set_threads

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `detection.serve.command` says what it raises."""
    options = parse(argv)
    # OpenCV reads it when it is loaded. Sizes are checked before decoding, but a header may lie.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(options.limits.pixels))

    from detection.serve.command import run

    set_threads()
    run(options)


if __name__ == "__main__":
    run_command(main)
