"""Helpers for readers of annotations: JSON files, and what counts as a number, a flag, a box.

Every field of every format is read by these, so that what one field takes another takes too.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from rainmer.data.defects import Defects
from rainmer.errors import DatasetError

__all__ = [
    "as_flag",
    "as_number",
    "as_whole",
    "box_around",
    "box_of_corners",
    "covers",
    "note_text",
    "read_json",
]

_DECIMAL = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(?=(\.0*)?\Z)")
_FLAGS = {"": False, "false": False, "true": True}


def read_json(path: Path) -> object:
    """Read a JSON file, with or without a byte order mark.

    Raises:
        DatasetError: The file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"cannot read the annotations {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not valid JSON: {error}") from error


def as_number(value: object) -> float | None:
    """Return the finite number that a value is, or that its text is in plain decimal notation.

    Everything else gives None: True, NaN, 10**400, "1_0", "0x1", "1,5".

    Example:
        >>> as_number(12), as_number(" 12.5 "), as_number("inf"), as_number(None)
        (12.0, 12.5, None, None)
    """
    if isinstance(value, str):
        value = float(value) if _DECIMAL.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_whole(value: object) -> int | None:
    """Return a whole number of 64 bits given as 3, 3.0, "3" or "3.0"; None for anything else."""
    match value:
        case bool():
            return None
        case str():
            # Not by way of a float: ids have up to 18 digits.
            digits = _WHOLE.match(value.strip())
            return int(digits[0]) if digits else None
        case int() | float() if abs(value) < 2**63 and value == int(value):
            return int(value)
    return None


def as_flag(value: object) -> bool | None:
    """Return whether a flag is set; one that is null or empty is not. None: it is no flag.

    Example:
        >>> as_flag("1"), as_flag("False"), as_flag(None), as_flag(2)
        (True, False, False, None)
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().casefold() in _FLAGS:
        return _FLAGS[value.strip().casefold()]
    number = as_number(value)
    return bool(number) if number in (0, 1) else None


def note_text(values: Iterable[object], where: str, defects: Defects) -> None:
    """Record that an entry of a JSON file has numbers as text; other text does not count."""
    if any(isinstance(value, str) and as_number(value) is not None for value in values):
        defects.repair("number given as text, read as a number", where)


def box_around(xs: Sequence[object], ys: Sequence[object]) -> list[float] | None:
    """Return left, top, width, height of the smallest box around points.

    None if there are none, one is no number, or the box covers nothing.

    Example:
        >>> box_around([12, 2.0], [3.0, "8"])
        [2.0, 3.0, 10.0, 5.0]
    """
    numbers = [[n for n in map(as_number, values) if n is not None] for values in (xs, ys)]
    if not xs or [len(xs), len(ys)] != list(map(len, numbers)):
        return None
    left, top = map(min, numbers)
    width, height = max(numbers[0]) - left, max(numbers[1]) - top
    return [left, top, width, height] if covers(width, height) else None


def covers(width: float, height: float) -> bool:
    """Return whether a box of these sides has an area, and one that is a number."""
    return width > 0 and height > 0 and 0 < width * height < math.inf


def box_of_corners(corners: Sequence[object], where: str, defects: Defects) -> list[float] | None:
    """Return left, top, width, height of a box given as left, top, right, bottom.

    Opposite corners in another order, as some tools write a box that was drawn from right to left,
    are the same box: a repair. None, and an error, for anything that is no box.
    """
    bbox = box_around(corners[::2], corners[1::2])
    if bbox is None:
        defects.error("malformed box", f"{where}: {reprlib.repr(list(corners))}")
    elif (as_number(corners[0]), as_number(corners[1])) != (bbox[0], bbox[1]):
        defects.repair("corners of a box in the wrong order, swapped", where)
    return bbox
