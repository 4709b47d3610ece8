"""Images of a unit as bytes: files, members of tar shards (as streams), rows of Parquet files."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from detection.bulk.places import Place
from detection.bulk.units import Unit
from rainmer.errors import DatasetError, ImageError, first_line
from rainmer.extras import import_extra
from rainmer.frames.arrays import Frame
from rainmer.frames.formats import DECODE_ERRORS, IMAGE_SUFFIXES, format_of
from rainmer.frames.images import decode_image
from rainmer.frames.levels import Stretch

__all__ = ["Columns", "Item", "check_columns", "decode", "read_unit"]

_ROWS = 64  # of a Parquet file in memory at a time


@dataclass(frozen=True)
class Columns:
    """Which columns of Parquet files hold the images and their names; None: file and row."""

    image: str = "image"
    id: str | None = None


@dataclass(frozen=True)
class Item:
    """An image on its way to an actor's threads.

    Attributes:
        id: Its name, unique in the unit.
        content: Its bytes; None: they are still to be read, or there are none.
        path: Its file, where it has one of its own.
        reason: Why there are no bytes.
    """

    id: str
    content: bytes | None = None
    path: str | None = None
    reason: str | None = None


def read_unit(place: Place, unit: Unit, columns: Columns) -> Iterator[Item]:
    """Yield the images of a unit, always the same in the same order.

    A shard that cannot be read to its end is an item itself, with the reason, after those that
    could.

    Raises:
        DatasetError: The place itself, not one file, cannot be read.
    """
    if unit.kind == "images":
        for path in unit.paths:
            yield Item(_valid(path or posixpath.basename(place.root)), path=path)
        return
    (path,) = unit.paths
    name = _valid(path or posixpath.basename(place.root))
    members = _tar if unit.kind == "tar" else _parquet
    seen: Counter[str] = Counter()
    try:
        for item in members(place, path, name, columns):
            seen[item.id] += 1
            number = seen[item.id]
            yield item if number == 1 else replace(item, id=f"{item.id}#{number}")
    except OSError as error:
        yield Item(name, reason=_told(place, name, error))
    except _DAMAGED as error:
        yield Item(name, reason=f"{name} is damaged or ends early: {first_line(error)}")


_DAMAGED = (tarfile.TarError, EOFError, ValueError, ArithmeticError, LookupError, MemoryError)


def _told(place: Place, name: str, error: OSError) -> str:
    """Say why a file cannot be read. Raises DatasetError where others would fail like it."""
    reason = f"cannot read {name}: {error.strerror or first_line(error)}"
    if place.is_lost(error):
        return reason
    raise DatasetError(f"{place}: {reason}; the same command goes on") from error


def _valid(name: str) -> str:
    """Return a name that is text: bytes that are none become escapes."""
    return name.encode(errors="backslashreplace").decode()


def _tar(place: Place, path: str, name: str, _: Columns) -> Iterator[Item]:
    with place.open(path) as file, tarfile.open(fileobj=file, mode="r|*") as shard:
        for member in shard:
            suffix = posixpath.splitext(member.name)[1].lower()
            hidden = posixpath.basename(member.name).startswith(".")
            if not member.isfile() or hidden or suffix not in IMAGE_SUFFIXES:
                continue
            content = shard.extractfile(member)
            yield Item(_valid(f"{name}/{member.name}"), content.read() if content else b"")


def _parquet(place: Place, path: str, name: str, columns: Columns) -> Iterator[Item]:
    parquet = import_extra("pyarrow.parquet", "bulk", name)
    wanted = [columns.image, *([columns.id] if columns.id else [])]
    with place.open(path, seekable=True) as file:
        table = parquet.ParquetFile(file)
        for column in wanted:
            if column not in table.schema_arrow.names:
                yield Item(name, reason=missing_column(name, column, table.schema_arrow.names))
                return
        number = 0
        for batch in table.iter_batches(_ROWS, columns=wanted):
            names = batch.column(wanted[-1]).to_pylist() if columns.id else [None] * len(batch)
            for value, own in zip(batch.column(columns.image), names, strict=True):
                given = f"{name}#{number}" if own is None else _valid(str(own))
                yield _of_value(given, value.as_py())
                number += 1


def check_columns(place: Place, path: str, columns: Columns) -> None:
    """Look at the columns of a Parquet file; one that cannot be read is left to the actors.

    Raises:
        DatasetError: It lacks the wanted ones.
    """
    parquet = import_extra("pyarrow.parquet", "bulk", str(place))
    try:
        with place.open(path, seekable=True) as file:
            names = parquet.ParquetFile(file).schema_arrow.names
    except (OSError, ValueError):
        return
    for column in (columns.image, *([columns.id] if columns.id else [])):
        if column not in names:
            raise DatasetError(f"{place}: {missing_column(path, column, names)}")


def missing_column(name: str, column: str, columns: list[str]) -> str:
    """Say that a Parquet file lacks a column."""
    return f"{name} has no column {column}, but {', '.join(columns)}; see --image-column"


def _of_value(name: str, value: Any) -> Item:  # noqa: ANN401
    """Return the image of a cell: bytes, or a mapping with `bytes`, as data sets of others have."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, bytes):
        return Item(name, value)
    kind = "empty" if value is None else f"a {type(value).__name__}, not the bytes of an image"
    return Item(name, reason=f"its cell is {kind}")


def decode(place: Place, item: Item, stretch: Stretch | None, max_pixels: int) -> Frame:
    """Read and decode an image.

    Raises:
        ImageError: It has no bytes, too many pixels, or is no image.
        DatasetError: See `read_unit`.
    """
    if item.reason is not None:
        raise ImageError(item.reason)
    content = item.content
    if content is None:
        try:
            with place.open(cast(str, item.path)) as file:
                content = file.read()
        except OSError as error:
            raise ImageError(_told(place, item.id, error)) from error
    refuse_bomb(content, item.id, max_pixels)
    return decode_image(content, item.id, stretch)


def refuse_bomb(content: bytes, name: str, max_pixels: int) -> None:
    """Look at the header alone. Raises ImageError for more pixels than are wanted."""
    kind = format_of(content)
    try:
        if kind is None:
            return
        with kind.open(io.BytesIO(content)) as image:
            width, height = image.size
    except ImageError as error:  # a package is missing
        raise ImageError(f"{name}: {error}") from error
    except DECODE_ERRORS:  # the decoder says what is wrong with it
        return
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width}x{height} pixels, more than --max-pixels {max_pixels} allows"
        )
