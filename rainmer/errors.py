"""Errors that a user can cause and correct. Commands print them in one line and exit with 2."""

from __future__ import annotations

import pickle
import re
import struct

__all__ = [
    "LOAD_ERRORS",
    "ConfigError",
    "DatasetError",
    "ImageError",
    "OutputError",
    "RainmerError",
    "SpecError",
    "WeightsError",
    "first_line",
    "first_sentence",
    "is_out_of_memory",
]


class RainmerError(Exception):
    """A user error. The message says what is wrong, where, and what to do instead."""


class ConfigError(RainmerError, ValueError):
    """A configuration field that is unknown, of the wrong type, or out of range."""


class SpecError(RainmerError, ValueError):
    """A derainer spec that is unknown, or that cannot be used here."""


class WeightsError(RainmerError, ValueError):
    """A weights file that is missing, unsafe to open, or for another network."""


class ImageError(RainmerError, ValueError):
    """An image that cannot be decoded, or whose shape or type does not fit."""


class DatasetError(RainmerError, ValueError):
    """A data set whose files or annotations do not fit together."""


class OutputError(RainmerError, OSError):
    """A result that cannot be written: no permission, disk full, or a file in the way."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether torch, Python or another runtime ran out of memory."""
    import torch  # here: most of those who import this module want names only

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # torch's CPU allocator, TorchScript and onnxruntime raise errors of other kinds.
    return not isinstance(error, RainmerError) and bool(_OUT_OF_MEMORY.search(str(error)))


_OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator|not enough memory|out of memory|bad.?alloc"
    r"|fail(ed|ure) to allocate memory",
    re.IGNORECASE,
)


LOAD_ERRORS = (
    pickle.UnpicklingError,
    struct.error,
    AttributeError,
    AssertionError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch.load raises on files that are damaged or of another kind."""


def first_line(error: BaseException) -> str:
    r"""Return the first line of what an error says, or its kind if it says nothing.

    >>> first_line(RuntimeError("no kernel\nCompile with ...")), first_line(KeyError())
    ('no kernel', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def first_sentence(text: str) -> str:
    """Return the first sentence of an error's text, which may go on with advice.

    >>> first_sentence("file read failed. This is an internal error.")
    'file read failed'
    """
    return re.split(r"\.?\s*\n|\.\s", text.strip())[0].rstrip(".")
