"""The file of a row: one line for each finished image, so that an interrupted run resumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from rainmer.files import append_line, read_lines, safe_file_name
from rainmer.stage.restorers import digest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["RecordFile", "is_finite_number"]

_Record = TypeVar("_Record", bound="DataclassInstance")


class RecordFile(Generic[_Record]):
    """A file of dataclasses, one per line; damaged lines are skipped when it is read.

    Args:
        folder: Where the files of rows are kept.
        label: Name of the row, such as `derained-median`.
        parts: All that the row's numbers depend on; other parts, another file.
        record: A dataclass of plain values.
        is_valid: Whether the values of a record have the types that its fields declare.

    Attributes:
        path: The file; there is none before the first record.
    """

    def __init__(
        self,
        folder: Path,
        label: str,
        parts: Sequence[object],
        record: type[_Record],
        is_valid: Callable[[_Record], bool],
    ) -> None:
        self.path = folder / f"{safe_file_name(label)}-{digest(*parts)[:12]}.jsonl"
        self._record = record
        self._is_valid = is_valid
        self._fields = {item.name for item in fields(record)}

    def read(self) -> list[_Record]:
        """Return the records that are whole, in the order in which they were written."""
        lines = (line for line in read_lines(self.path) if line.keys() == self._fields)
        return [record for line in lines if self._is_valid(record := self._record(**line))]

    def append(self, *records: _Record) -> None:
        """Add records, all or nothing. Raises OutputError."""
        append_line(self.path, *map(asdict, records))


def is_finite_number(value: object) -> bool:
    """Tell whether a value read from JSON is a float other than NaN and infinity."""
    return isinstance(value, float) and math.isfinite(value)
