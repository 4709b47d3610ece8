"""Finding folders, images and partners in trees whose case and nesting vary between copies."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rainmer.data.defects import Defects
from rainmer.errors import DatasetError
from rainmer.files import match_key
from rainmer.folders import folders_below, list_folder, subfolders

__all__ = [
    "common_folder",
    "files_in",
    "find_folder",
    "folders_named",
    "keep_allowed",
    "one_per_stem",
    "parts_below",
    "plain_stem",
    "read_names",
    "stem_key",
]

_COCO_STEM = re.compile(r"(?:coco_(?:train|val|test)20\d\d_)?0*(\d+)")
_DEEPEST = 4


def find_folder(root: Path, *names: str) -> Path | None:
    """Return the folder with one of these names nearest to `root`, which may be `root` itself."""
    level = [root]
    for _ in range(_DEEPEST):
        for folder in level:
            if folder.name.casefold() in {name.casefold() for name in names}:
                return folder
        level = [inner for folder in level for inner in subfolders(folder)]
    return None


def folders_named(root: Path, *names: str) -> Iterator[Path]:
    """Yield every folder at or below `root` that has one of these names, sorted by path."""
    wanted = {name.casefold() for name in names}
    return (folder for folder in folders_below(root) if folder.name.casefold() in wanted)


def files_in(folder: Path, suffix: str) -> list[Path]:
    """Return the files of one suffix (lower case) in a folder, without its subfolders, sorted."""
    paths = (folder / entry.name for entry in list_folder(folder))
    return [path for path in paths if path.suffix.lower() == suffix]


def parts_below(path: Path, base: Path) -> tuple[str, ...]:
    """Return the names of the folders between `base` and `path`, case folded."""
    return tuple(part.casefold() for part in path.relative_to(base).parts[:-1])


def stem_key(name: str | os.PathLike[str]) -> str:
    """Return the key by which an image is recognised in several sets: its stem, case folded.

    COCO's numbers lose their prefix and their zeros.

    Example:
        >>> stem_key("COCO_val2014_000000000139.jpg"), stem_key("139.png"), stem_key("a/B1-c.jpg")
        ('139', '139', 'b1-c')
    """
    stem = plain_stem(name)
    number = _COCO_STEM.fullmatch(stem)
    return number[1] if number else stem


def plain_stem(path: str | os.PathLike[str]) -> str:
    """Return the file name without suffix, case folded."""
    return match_key(path).rsplit("/", 1)[-1]


def one_per_stem(paths: Iterable[Path], what: str, defects: Defects) -> dict[str, Path]:
    """Return files by `plain_stem`; files with the stem of an earlier one are errors, left out."""
    by_stem: dict[str, Path] = {}
    for path in paths:
        if by_stem.setdefault(plain_stem(path), path) is not path:
            defects.error(f"{what} with the stem of another, left out", path.name)
    return by_stem


def read_names(path: Path) -> list[str]:
    """Return the lines of a list of names; empty lines and those behind `#` do not count.

    Raises:
        DatasetError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null character in the path
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise DatasetError(f"cannot read the list {path}: {reason}") from error
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def keep_allowed(
    images: Mapping[str, Path], allow_list: Path | None, defects: Defects
) -> dict[str, Path]:
    """Keep the images that an allow-list names by stem; None keeps all.

    Names without an image are errors; how many images the list leaves out is noted.

    Raises:
        DatasetError: The list cannot be read or is empty.
    """
    if allow_list is None:
        return dict(images)
    names = {stem_key(name): name for name in read_names(allow_list)}
    if not names:
        raise DatasetError(f"the allow-list {allow_list} names no image; one name a line")
    kept = {key: path for key, path in images.items() if stem_key(path.name) in names}
    present = {stem_key(path.name) for path in kept.values()}
    for stem, name in names.items():
        if stem not in present:
            defects.error("name on the allow-list that no image of this set has", name)
    if len(kept) < len(images):
        defects.note(
            "images that are not on the allow-list, left out", str(len(images) - len(kept))
        )
    return kept


def common_folder(paths: Iterable[Path]) -> Path:
    """Return the deepest folder that holds all these files."""
    return Path(os.path.commonpath([path.parent for path in paths]))
