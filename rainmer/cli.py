"""Shared by all commands: common options, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import errno
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

from tqdm import tqdm

from rainmer import console
from rainmer.console import Terminated
from rainmer.errors import RainmerError

__all__ = [
    "StageOptions",
    "add_gate_option",
    "add_stage_options",
    "add_threads_option",
    "fraction",
    "make_parser",
    "non_negative_int",
    "parse_options",
    "positive_int",
    "progress_bar",
    "run_command",
    "set_threads",
    "size_hw",
    "stage_options",
]

_Options = TypeVar("_Options")

_THREADS = "cpu_threads"  # the destination of `--threads`
_threads: ContextVar[int | None] = ContextVar("threads", default=None)

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_USER_ERRNOS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Options of `add_stage_options`, named like the arguments of `rainmer.Derainer`."""

    device: str | None
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    batch: int
    tile: int | None
    overlap: int
    compiled: bool
    runtime: Literal["torch", "auto", "openvino", "onnx"]


class _OneLineParser(argparse.ArgumentParser):
    """A parser that reports errors in one line, as commands report all errors."""

    def error(self, message: str) -> NoReturn:
        _end(f"{message}{self._hint(message)}; see {self.prog} --help")

    def _hint(self, message: str) -> str:
        """Suggest the nearest option for a mistyped one."""
        unknown, _, mistyped = message.partition("unrecognized arguments: ")
        words = [word.partition("=")[0] for word in mistyped.split() if word.startswith("--")]
        for word in words if not unknown else ():
            for meant in difflib.get_close_matches(word, self._option_string_actions, n=1):
                return f"; did you mean {meant}?"
        return ""


def make_parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """Create the parser of a command, its help ending with an example.

    Args:
        prog: How the command is called as a module; as `rainmer VERB`, it is called that.
        description: What it does.
        example: Command lines that begin with `prog`.
    """
    called = sys.argv[0] if sys.argv[0].startswith("rainmer ") else prog
    return _OneLineParser(
        prog=called,
        description=description,
        epilog=f"example:\n{example.replace(prog, called)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_stage_options(parser: argparse.ArgumentParser, precision: str = "auto") -> None:
    """Add the options of the derainer stage.

    Args:
        parser: The command's parser.
        precision: The default of `--precision`: `fp32` where numbers are measured.
    """
    group = parser.add_argument_group("derainer stage")
    group.add_argument("--device", default=None, help="cpu, cuda, cuda:1, mps; default: the best")
    reason = (
        "bf16 where the device and the network have it, else fp32"
        if precision == "auto"
        else "the same numbers on all machines; auto takes bf16 where it is fast"
    )
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default=precision,
        help=f"default: {precision}, {reason}",
    )
    group.add_argument("--batch", type=positive_int, default=8, metavar="N", help="frames at once")
    group.add_argument(
        "--tile", type=positive_int, metavar="PX", help="side of tiles; default: whole frames"
    )
    group.add_argument(
        "--overlap", type=non_negative_int, default=32, metavar="PX", help="overlap of tiles"
    )
    group.add_argument(
        "--compiled", action="store_true", help="use torch.compile: slow to start, for GPUs"
    )
    group.add_argument(
        "--runtime",
        choices=("torch", "auto", "openvino", "onnx"),
        default="torch",
        help="what runs Rainmer on a CPU; auto: OpenVINO where it is installed; default: torch",
    )
    add_threads_option(group)


def add_gate_option(parser: argparse.ArgumentParser) -> None:
    """Add `--gate [auto|T]`: derain only frames that need it; see `rainmer.stage.gate`."""
    parser.add_argument(
        "--gate",
        nargs="?",
        const="auto",
        type=_gate_threshold,
        metavar="T",
        help="derain only frames in which a rain meter expects a benefit for a detector of at "
        "least T, 0..1; all others pass untouched; without T: auto, the fitted threshold",
    )


def _gate_threshold(text: str) -> str | float:
    """Parse `auto` or a threshold."""
    if text == "auto":
        return text
    try:
        return fraction(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number of 0..1") from None


def add_threads_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add `--threads`, which `parse_options` takes out again: results do not depend on it."""
    parser.add_argument(
        "--threads",
        dest=_THREADS,
        type=positive_int,
        metavar="N",
        help="CPU threads that compute; default: the CPUs that the process may use",
    )


def stage_options(options: StageOptions) -> dict[str, Any]:
    """Return the options of `add_stage_options` as arguments of `rainmer.Derainer`."""
    return {item.name: getattr(options, item.name) for item in dataclasses.fields(StageOptions)}


def parse_options(
    parser: argparse.ArgumentParser,
    options: Callable[..., _Options],
    argv: Sequence[str] | None,
    *,
    intermixed: bool = False,
) -> _Options:
    """Parse a command line into a dataclass with one field for each option.

    `set_threads` then knows what `--threads` says.

    Args:
        parser: The command's parser.
        options: A dataclass, whose fields have the names of the parser's options, or a function of
            these names.
        argv: The command line without the program; None: that of the process.
        intermixed: Positional arguments may stand between options.

    Raises:
        SystemExit: The command line is wrong (code 2), or asks for help (code 0).
    """
    parse = parser.parse_intermixed_args if intermixed else parser.parse_args
    values = vars(parse(argv))
    _threads.set(values.pop(_THREADS, None))
    return options(**values)


def set_threads() -> None:
    """Give torch and OpenCV the CPU threads that `parse_options` was told of, or all usable ones.

    Commands call it when everything is imported: parsing needs no torch, and ultralytics, when it
    is imported, takes OpenCV's threads away.
    """
    from rainmer.device import use_threads

    use_threads(_threads.get())


def fraction(text: str) -> float:
    """Parse an option that must be a number of 0..1."""
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1")
    return value


def positive_number(text: str) -> float:
    """Parse an option that must be a number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def positive_int(text: str) -> int:
    """Parse an option that must be a whole number above 0."""
    return _whole_number(text, least=1)


def size_hw(text: str) -> tuple[int, int]:
    """Parse an option HEIGHTxWIDTH, in pixels, into (height, width)."""
    found = re.fullmatch(r"0*([1-9][0-9]*)x0*([1-9][0-9]*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: expected HEIGHTxWIDTH in pixels")
    return int(found[1]), int(found[2])


def non_negative_int(text: str) -> int:
    """Parse an option that must be a whole number, 0 or above."""
    return _whole_number(text, least=0)


def _whole_number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {least}")
    return int(text)


def run_command(command: Callable[[Sequence[str] | None], None]) -> None:
    """Run a command's `main` and end the process with its exit code.

    A `RainmerError`, a full disk, a missing permission or an impossible path becomes one line on
    stderr and exit code 2. An interruption keeps what is written so far and ends with 130, `kill`
    with 143. What the encoding of stdout lacks is printed as escapes; see `rainmer.console`.
    """
    try:
        with console.streams(), console.terminable():
            command(None)
            sys.stdout.flush()
    except RainmerError as error:
        _end(str(error))
    except BrokenPipeError:  # the reader of the output has closed it, as `head` does
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.errno not in _USER_ERRNOS:
            raise
        _end(f"{error.strerror}: {error.filename or 'output'}")
    except ValueError as error:
        if "null byte" not in str(error):
            raise
        _end("a path holds a null byte")
    except KeyboardInterrupt as stopped:
        console.say("interrupted; results so far are kept, the same command resumes")
        sys.exit(128 + stopped.number if isinstance(stopped, Terminated) else EXIT_INTERRUPTED)
    finally:
        console.settle()


def _end(message: str) -> NoReturn:
    console.say(f"error: {' '.join(message.split())}")
    sys.exit(EXIT_USER_ERROR)


def progress_bar(
    total: int | None,
    *,
    quiet: bool,
    unit: str = "image",
    name: str | None = None,
    items: Iterable[Any] = (),
) -> tqdm[Any]:
    """Make a bar that appears when work takes longer than two seconds.

    Args:
        total: Number of units; None: unknown.
        quiet: Show nothing.
        unit: Name of the unit, in the singular.
        name: Text before the bar.
        items: Items for the bar to iterate over and count. Without them, call its `update`.
    """
    return tqdm(
        items, desc=name, total=total, unit=unit, disable=quiet, delay=2, dynamic_ncols=True
    )
