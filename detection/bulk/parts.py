"""The files of results: a part holds the rows of a few hundred images, and is whole or not there.

A part is called `KEY-NUMBER-ROWS.parquet`, the last one of a unit `KEY-NUMBER-ROWS-last.parquet`.
The name depends on the images alone: an actor that does a part again, because another one died
over it or was cut off, writes the same file. So nothing is there twice, and the names alone say
what is done.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detection.bulk.places import Place
from detection.bulk.units import Unit
from detection.types import Detections
from rainmer.errors import OutputError
from rainmer.extras import import_extra

__all__ = [
    "BOXES",
    "DERAINED",
    "Part",
    "Row",
    "find_parts",
    "known_ids",
    "part_name",
    "read_rows",
    "remaining",
    "rows_as_parquet",
    "tar_of",
]

BOXES = "boxes"
"""Folder of the parts."""
DERAINED = "derained"
"""Folder of the tar shards with the derained images, named as the parts are."""

_NAME = re.compile(
    r"(?P<key>[0-9a-f]{16})-(?P<number>\d{6})-(?P<rows>\d+)(?P<last>-last)?\.parquet"
)


@dataclass(frozen=True)
class Row:
    """What is known about an image.

    Attributes:
        id: Its name.
        size_hw: (height, width) in pixels; None if it could not be decoded.
        detections: What was found; None if it could not be decoded.
        derained: Whether it was derained; a gate may pass it on as it is.
        reason: Why it could not be decoded.
    """

    id: str
    size_hw: tuple[int, int] | None = None
    detections: Detections | None = None
    derained: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class Part:
    """A part, as its name tells."""

    key: str
    number: int
    rows: int
    is_last: bool
    name: str


def part_name(key: str, number: int, rows: int, *, last: bool) -> str:
    """Return the name of a part.

    >>> part_name("0123456789abcdef", 2, 17, last=True)
    '0123456789abcdef-000002-17-last.parquet'
    """
    return f"{key}-{number:06d}-{rows}{'-last' * last}.parquet"


def find_parts(names: Iterable[str]) -> dict[str, list[Part]]:
    """Return the parts among the files of a folder, by unit."""
    parts: dict[str, list[Part]] = {}
    for name in sorted(names):
        if found := _NAME.fullmatch(name):
            last = found["last"] is not None
            part = Part(found["key"], int(found["number"]), int(found["rows"]), last, name)
            parts.setdefault(part.key, []).append(part)
    return parts


def remaining(units: Sequence[Unit], parts: Mapping[str, Sequence[Part]]) -> list[Unit]:
    """Return the units that are not whole, each with the numbers of its parts that are done."""
    left = []
    for unit in units:
        done = {part.number for part in parts.get(unit.key, ())}
        ends = [part.number + 1 for part in parts.get(unit.key, ()) if part.is_last]
        if not ends or done != set(range(ends[0])):
            left.append(replace(unit, done=frozenset(done)))
    return left


def known_ids(out: Place, parts: Mapping[str, Sequence[Part]]) -> frozenset[str]:
    """Read the names of the images in parts: those of units that the input no longer makes.

    Files that were added since, or another `--part`, put the same images into other units.

    Raises:
        OutputError: A part cannot be read.
    """
    tables = (_table(out, part, ["id"]) for found in parts.values() for part in found)
    return frozenset(name for table in tables for name in table.column("id").to_pylist())


def read_rows(out: Place, part: Part) -> list[Row]:
    """Return the rows of a part. Raises OutputError if it cannot be read."""
    rows = []
    for record in _table(out, part).to_pylist():
        found = None
        if record["boxes"] is not None:
            found = Detections(record["boxes"], record["scores"], record["labels"])
        size_hw = None if found is None else (record["height"], record["width"])
        rows.append(Row(record["id"], size_hw, found, record["derained"], record["reason"]))
    return rows


def _table(out: Place, part: Part, columns: list[str] | None = None) -> Any:  # noqa: ANN401
    parquet = import_extra("pyarrow.parquet", "bulk", "a file of results")
    content = out.read(f"{BOXES}/{part.name}") or b""
    try:
        return parquet.read_table(io.BytesIO(content), columns=columns)
    except (OSError, ValueError) as error:
        raise OutputError(f"{out}/{BOXES}/{part.name} is damaged: remove it") from error


def rows_as_parquet(rows: Sequence[Row]) -> bytes:
    """Return rows as a Parquet file.

    Its columns: `id`; `width` and `height` in pixels; `boxes`, lists of left, top, right and bottom
    in pixels, with `scores` (0..1) and `labels`; `derained`; `reason`. An image that could not be
    decoded has a reason and nothing else; one in which nothing was found has empty lists.
    """
    pa = import_extra("pyarrow", "bulk", "a file of results")
    parquet = import_extra("pyarrow.parquet", "bulk", "a file of results")
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
            ("scores", pa.list_(pa.float32())),
            ("labels", pa.list_(pa.int32())),
            pa.field("derained", pa.bool_(), nullable=False),
            ("reason", pa.string()),
        ]
    )
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([_record(row) for row in rows], schema), file)
    return file.getvalue()


def _record(row: Row) -> dict[str, Any]:
    found = row.detections
    return {
        "id": row.id,
        "width": row.size_hw and row.size_hw[1],
        "height": row.size_hw and row.size_hw[0],
        "boxes": None if found is None else found.boxes_xyxy.tolist(),
        "scores": None if found is None else found.scores.tolist(),
        "labels": None if found is None else found.labels.tolist(),
        "derained": row.derained,
        "reason": row.reason,
    }


def tar_of(images: Iterable[tuple[str, bytes]]) -> bytes:
    """Return named images as a tar shard, the same bytes for the same images."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as shard:
        for name, content in images:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return file.getvalue()
