"""Reading PASCAL VOC annotations: one XML file for each image.

Files that declare a document type or entities are refused, so that parsing cannot expand or fetch
anything.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from rainmer.data.annotations.parsing import as_flag, as_whole, box_of_corners
from rainmer.data.annotations.records import (
    Annotation,
    Annotations,
    ImageRecord,
    Repeats,
    box_annotation,
)
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError
from rainmer.files import match_key
from rainmer.folders import list_files

__all__ = ["read_voc", "voc_files"]

_MOST_BYTES = 4 << 20
_DEEPEST = 32
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _RefusedError(Exception):
    """An XML file that is refused; the message has the reason."""


def voc_files(folder: Path) -> dict[str, Path]:
    """Return the XML files of a folder and its subfolders by match key of their relative path.

    Raises:
        DatasetError: The folder does not exist.
    """
    if not folder.is_dir():
        raise DatasetError(f"no folder {folder} of XML annotations")
    return {
        match_key(path.relative_to(folder).as_posix()): path
        for path in list_files(folder, {".xml"})
    }


def read_voc(files: Mapping[str, Path], defects: Defects) -> Annotations:
    """Read VOC annotations.

    A file belongs to the image of the same name; its `filename` and `path` refer to the annotator's
    disk and are ignored. Corners are positions (width = xmax - xmin). Objects marked `difficult`
    become crowds, which are ignored in scoring. Objects listed twice count once. Categories get ids
    from 1 in the order of their names.

    Args:
        files: XML files by the key of their image, see `voc_files`.
        defects: Where defects are recorded.
    """
    parsed = {key: _parse(files[key], defects) for key in sorted(files)}
    roots = {key: root for key, root in parsed.items() if root is not None}
    names = {
        name
        for root in roots.values()
        for item in root.findall("object")
        if (name := _text(item, "name"))
    }
    ids = {name: number for number, name in enumerate(sorted(names), start=1)}
    records = {}
    for image_id, (key, root) in enumerate(roots.items(), start=1):
        boxes = list(_boxes(root, image_id, ids, files[key].name, defects))
        records[key] = ImageRecord(image_id, _size_hw(root), boxes, {})
    return Annotations({number: name for name, number in ids.items()}, records)


def _parse(path: Path, defects: Defects) -> Element | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _RefusedError(f"larger than {_MOST_BYTES >> 20} MiB")
        root = _tree(path.read_bytes())
        if root.tag != "annotation":
            raise _RefusedError(f"its root is <{root.tag[:40]}>, not <annotation>")
    except OSError as error:
        defects.error("unreadable XML file", f"{path.name}: {error.strerror}")
    except ParseError as error:
        defects.error("malformed XML file", f"{path.name}: {error}")
    except (_RefusedError, LookupError, ValueError) as error:
        defects.error("refused XML file", f"{path.name}: {error}")
    else:
        return root
    return None


def _tree(content: bytes) -> Element:
    try:
        root = fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise _RefusedError("it declares a document type or entities") from error
    level = [root]
    for _ in range(_DEEPEST):
        level = [inner for element in level for inner in element]
    if level:
        raise _RefusedError(f"nested deeper than {_DEEPEST} elements")
    return root


def _text(element: Element, path: str) -> str:
    return " ".join((element.findtext(path) or "").split())


def _size_hw(root: Element) -> tuple[int, int] | None:
    """Return (height, width), or None where they are absent or, as some tools write, 0."""
    height, width = (as_whole(_text(root, f"size/{side}")) or 0 for side in ("height", "width"))
    return (height, width) if height > 0 and width > 0 else None


def _boxes(
    root: Element, image_id: int, ids: Mapping[str, int], file: str, defects: Defects
) -> Iterator[Annotation]:
    repeats = Repeats(defects)
    for number, item in enumerate(root.findall("object"), start=1):
        where, name = f"{file}: object {number}", _text(item, "name")
        if not name:
            defects.error("object without a name", where)
            continue
        texts = [_text(item, f"bndbox/{corner}") for corner in _CORNERS]
        bbox = box_of_corners(texts, where, defects)
        if bbox is None:
            continue
        difficult = as_flag(_text(item, "difficult"))
        if difficult is None:
            flag = reprlib.repr(_text(item, "difficult"))
            defects.repair("`difficult` that is neither 0 nor 1, taken as 0", f"{where}: {flag}")
        annotation = box_annotation(image_id, ids[name], bbox, is_crowd=bool(difficult))
        if not repeats.holds(annotation, where):
            yield annotation
