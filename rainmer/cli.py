"""What every command shares: common options, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import errno
import logging
import sys
from collections.abc import Callable, Sequence

import torch

from rainmer.errors import RainmerError

__all__ = ["add_stage_options", "make_parser", "resolve_device", "run_command"]

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def make_parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """Create the parser of a command, its help ending with an example."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_stage_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a derainer runs."""
    group = parser.add_argument_group("derainer stage")
    group.add_argument("--device", default=None, help="cpu, cuda, cuda:1, mps; default: the best")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    group.add_argument("--batch", type=positive_int, default=8, metavar="N", help="frames at once")
    group.add_argument(
        "--tile", type=positive_int, metavar="PX", help="side of tiles; default: whole frames"
    )
    group.add_argument("--overlap", type=int, default=32, metavar="PX", help="overlap of tiles")


def positive_int(text: str) -> int:
    """Parse an option that must be a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def resolve_device(name: str | None) -> torch.device:
    """Turn an option into a device; None chooses cuda, then mps, then cpu.

    Raises:
        RainmerError: The device does not exist on this machine.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(f"cuda:{name}" if name.isdecimal() else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RainmerError(f"no device {name!r} here: {reason}; use --device cpu") from error
    return device


def run_command(command: Callable[[Sequence[str] | None], None]) -> None:
    """Run a command's `main` and end the process with its exit code.

    A `RainmerError`, a full disk or a missing permission becomes one line on stderr and exit code
    2. An interruption leaves what is written so far and ends with 130.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        command(None)
    except RainmerError as error:
        _end(str(error))
    except OSError as error:
        if error.errno not in {
            errno.ENOSPC,
            errno.EACCES,
            errno.EROFS,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EPERM,
        }:
            raise
        _end(f"{error.strerror}: {error.filename or 'output'}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; results so far are kept, the same command resumes\n")
        sys.exit(EXIT_INTERRUPTED)


def _end(message: str) -> None:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(EXIT_USER_ERROR)
