"""The streams and signals of a command's process: any encoding, any stream closed, any way to stop.

Python prints what it is given, in the encoding of the terminal or, on Windows, of the system when
the output goes to a file. Here nothing that is printed can fail for its characters.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn, TextIO

from tqdm import tqdm

__all__ = ["Terminated", "as_printed", "printable", "say", "settle", "streams", "terminable"]

READABLE = "rainmer.readable"
"""Name of the error handler that writes what an encoding lacks in a readable way."""

_SUBSTITUTES = {
    "\N{GREEK CAPITAL LETTER DELTA}": "delta",
    "\N{GREEK SMALL LETTER MU}": "u",
    "\N{MICRO SIGN}": "u",
    "\N{MINUS SIGN}": "-",
    "\N{HYPHEN}": "-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MIDDLE DOT}": "-",
    "\N{BULLET}": "*",
    "\N{ALMOST EQUAL TO}": "~",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{INFINITY}": "inf",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LEFTWARDS ARROW}": "<-",
    "\N{UPWARDS ARROW}": "^",
    "\N{DOWNWARDS ARROW}": "v",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{DAGGER}": "*",
    "\N{DOUBLE DAGGER}": "**",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{NO-BREAK SPACE}": " ",
    "\N{SUPERSCRIPT TWO}": "^2",
    "\N{DEGREE SIGN}": " deg",
}
"""The signs of our own texts."""


def _readable(error: UnicodeError) -> tuple[str, int]:
    r"""Substitute our own signs, and escape the rest: `ΔmAP of 雨` is `delta mAP of \u96e8`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign, after = error.object[error.start], error.object[error.start + 1 : error.start + 2]
    text = _SUBSTITUTES.get(sign)
    if text is None:
        # Python keeps a byte of a file name that is not text, such as FF, as the surrogate DCFF.
        byte = ord(sign) - 0xDC00
        text = f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else ascii(sign)[1:-1]
    elif text.isalpha() and len(text) > 1 and after.isalnum():
        text += " "
    return text, error.start + 1


codecs.register_error(READABLE, _readable)


def as_printed(text: str, stream: TextIO | None = None) -> str:
    """Return a text as it appears on a stream, by default stdout; needed to align columns."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, READABLE).decode(encoding)


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Make the streams of the process fit for a command, and send its log to stderr.

    A closed stream writes to nowhere: its number would go to the next file that is opened, which
    stray output would then damage. Decoders written in C (libpng, libjpeg, FFmpeg) are silenced.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors=READABLE))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=READABLE)
    with _silenced_native_libraries(), _logging_to_stderr():
        try:
            yield
        finally:
            # Whatever is said next begins on a line of its own.
            for bar in list(getattr(tqdm, "_instances", ())):
                bar.close()


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)


@contextlib.contextmanager
def _silenced_native_libraries() -> Iterator[None]:
    """Keep decoders written in C from writing to stderr.

    They write to the file descriptor; inside, Python's stderr is a copy of it.
    """
    kept, before = os.dup(2), sys.stderr
    encoding = getattr(before, "encoding", None) or "utf-8"
    with (
        os.fdopen(kept, "w", buffering=1, encoding=encoding, errors=READABLE) as copy,
        open(os.devnull, "wb") as nowhere,
        warnings.catch_warnings(),
    ):
        # torch announces the end of TorchScript at every load.
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        if before is sys.__stderr__:
            sys.stderr = copy
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            sys.stderr = before


def say(line: str) -> None:
    """Write a line to stderr, if that can be written to."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def settle() -> None:
    """Write out what is printed, or drop it where its reader is gone or its disk is full.

    Python would try again as it ends, and report that.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Terminated(KeyboardInterrupt):
    """The process was asked to end, by `kill` or by the terminal that closed.

    An interruption: whatever tidies up after Ctrl-C tidies up after this, too.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Turn the signals that ask a process to end into `Terminated`, where nothing handles them.

    Once stopped, further signals end the process at once, without a word.
    """

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise Terminated(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    in_main = threading.current_thread() is threading.main_thread()
    ours = [n for n in numbers if in_main and signal.getsignal(n) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def printable(text: str) -> str:
    r"""Return a text for one line of print: a name of a file or in a label may hold anything.

    Example:
        >>> printable("a.txt:1"), printable("two\nlines")
        ('a.txt:1', 'two\\nlines')
    """
    if text.isprintable():
        return text
    return text.encode("unicode_escape", "backslashreplace").decode()
