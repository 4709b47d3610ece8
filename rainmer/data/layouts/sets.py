"""Which images of a set are rainy, and which clean image belongs to each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rainmer.errors import DatasetError
from rainmer.files import match_key
from rainmer.frames.images import list_images

__all__ = [
    "CLEAN_FOLDERS",
    "RAINY_FOLDERS",
    "ImageSet",
    "Pair",
    "PairingRule",
    "clean_keys",
    "pair_folders",
    "read_set",
    "read_sets",
    "subfolder",
    "unpaired_lines",
]

RAINY_FOLDERS = ("rainy", "input", "rain")
CLEAN_FOLDERS = ("clean", "gt", "target", "norain")
"""Names of the folders of a set, in any case of letters."""

PairingRule = Literal["auto", "same-name", "second-token", "first-token"]
"""How the clean image's name follows from the rainy one's; see `clean_keys`."""

_NO_FILE_NAME = re.compile(r"[/\\\0\n\r]|^\.*$")


@dataclass(frozen=True)
class Pair:
    """A rainy image and its clean partner.

    Attributes:
        name: The rainy image's path below its folder, with `/`.
        clean_name: The clean image's path below its folder.
        rainy: The rainy image.
        clean: The clean image; several rainy ones may share it.
    """

    name: str
    clean_name: str
    rainy: Path
    clean: Path


@dataclass(frozen=True)
class ImageSet:
    """The images of one set.

    Attributes:
        name: What tables and files call it.
        pairs: Rainy images with their clean partners, sorted by path.
        unpaired: Rainy images without a partner; all images where there are no clean ones.
        lone_clean: Clean images that no rainy one belongs to.
    """

    name: str
    pairs: tuple[Pair, ...] = ()
    unpaired: tuple[Path, ...] = ()
    lone_clean: tuple[Path, ...] = ()

    @property
    def clean(self) -> list[Path]:
        """The distinct clean images, in the order of the pairs."""
        return list(dict.fromkeys([*(pair.clean for pair in self.pairs), *self.lone_clean]))

    @property
    def rainy(self) -> list[Path]:
        """The rainy images."""
        return [*(pair.rainy for pair in self.pairs), *self.unpaired]


def clean_keys(key: str, rule: PairingRule = "auto") -> list[str]:
    """Return the keys that the clean partner of a rainy image may have, the first choice first.

    `same-name`; `second-token`: the name without the second of its parts between `_` (crops of
    GTAV-NightRain); `first-token`: only its first part (GTAV-NightRain itself). `auto` tries them
    in this order.

    Args:
        key: The rainy image's `match_key`.
        rule: How names are paired.

    Example:
        >>> clean_keys("0011_03_set1_2crop")
        ['0011_03_set1_2crop', '0011_set1_2crop', '0011']
    """
    folder, slash, stem = key.rpartition("/")
    tokens = stem.split("_")
    names: dict[str, str] = {
        "same-name": stem,
        "second-token": "_".join([*tokens[:1], *tokens[2:]]),
        "first-token": tokens[0],
    }
    chosen = list(names.values()) if rule == "auto" else [names[rule]]
    return [f"{folder}{slash}{name}" for name in dict.fromkeys(chosen) if name]


def read_set(text: str, rule: PairingRule = "auto") -> ImageSet:
    """Find the images of a set by what a user writes.

    Args:
        text: `NAME:RAINY:CLEAN` (two folders), `NAME:ROOT` or `ROOT`: a folder with one of
            `RAINY_FOLDERS` and one of `CLEAN_FOLDERS` in it; a tree of GT-Rain, whose scenes have
            rainy frames `*R-*` beside a clean `*C-000*`; or any folder of images, then without
            clean ones.
        rule: How names are paired.

    Raises:
        DatasetError: The text has another form, or an image has several clean partners.
        ImageError: A folder does not exist.
    """
    # A folder may have a colon in its name.
    parts = [Path(text).resolve().name, text] if os.path.isdir(text) else text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise DatasetError(f"no folder {text}; write a set as ROOT, NAME:ROOT or NAME:RAINY:CLEAN")
    name, *folders = parts
    if _NO_FILE_NAME.search(name):
        raise DatasetError(f"{text}: the name {name!r} cannot be that of a file; choose another")
    if len(folders) == 2:
        return pair_folders(name, Path(folders[0]), Path(folders[1]), rule)
    return _read_root(name, Path(folders[0]), rule)


def pair_folders(name: str, rainy: Path, clean: Path, rule: PairingRule = "auto") -> ImageSet:
    """Pair the images of two folders by their paths below them, suffixes left out.

    Raises:
        DatasetError: A rainy image may belong to several clean ones, alike but for their suffix.
        ImageError: A folder does not exist.
    """
    partners: dict[str, list[Path]] = {}
    for path in list_images(clean):
        partners.setdefault(match_key(path.relative_to(clean)), []).append(path)
    pairs, unpaired = [], []
    for path in list_images(rainy):
        below = path.relative_to(rainy)
        keys = (key for key in clean_keys(match_key(below), rule) if key in partners)
        found = partners.get(next(keys, ""), [])
        if len(found) > 1:
            raise DatasetError(f"{path} may belong to {found[0]} or {found[1]}: keep one of them")
        if found:
            partner = found[0]
            clean_name = partner.relative_to(clean).as_posix()
            pairs.append(Pair(below.as_posix(), clean_name, path, partner))
        else:
            unpaired.append(path)
    return _image_set(name, pairs, unpaired, [p for paths in partners.values() for p in paths])


def subfolder(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first subfolder that has one of these names, in any case of letters."""
    if not folder.is_dir():
        return None
    found = {path.name.casefold(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((found[name] for name in names if name in found), None)


def _read_root(name: str, root: Path, rule: PairingRule) -> ImageSet:
    rainy, clean = subfolder(root, RAINY_FOLDERS), subfolder(root, CLEAN_FOLDERS)
    if rainy is not None and clean is not None:
        return pair_folders(name, rainy, clean, rule)
    images = list_images(root)
    return _scenes(name, root, images) or ImageSet(name, unpaired=tuple(images))


def _scenes(name: str, root: Path, images: Sequence[Path]) -> ImageSet | None:
    """Pair the images of GT-Rain: each rainy frame with the first clean image of its folder."""
    clean: dict[Path, Path] = {}
    for path in images:
        if "C-000" in path.name:
            clean.setdefault(path.parent, path)
    pairs, unpaired = [], []
    for path in images:
        if "R-" not in path.name:
            continue
        partner = clean.get(path.parent)
        if partner is None:
            unpaired.append(path)
            continue
        names = [one.relative_to(root).as_posix() for one in (path, partner)]
        pairs.append(Pair(names[0], names[1], path, partner))
    return _image_set(name, pairs, unpaired, clean.values()) if pairs else None


def _image_set(
    name: str, pairs: Sequence[Pair], unpaired: Sequence[Path], clean: Iterable[Path]
) -> ImageSet:
    used = {pair.clean for pair in pairs}
    lone = tuple(path for path in clean if path not in used)
    return ImageSet(name, tuple(pairs), tuple(unpaired), lone)


def read_sets(texts: Sequence[str], rule: PairingRule) -> list[ImageSet]:
    """Read sets of pairs by their texts; none may be empty. Raises DatasetError."""
    sets = [read_set(text, rule) for text in texts]
    for one, text in zip(sets, texts, strict=True):
        if not one.rainy and not one.clean:
            raise DatasetError(f"{text} holds no images")
    names = [one.name.casefold() for one in sets]
    for one in sets:
        if names.count(one.name.casefold()) > 1:
            raise DatasetError(f"two sets are called {one.name}: write NAME:ROOT")
    return sets


def _no_pairs(name: str, images: ImageSet) -> str:
    example = f", such as {images.unpaired[0]}" if images.unpaired else ""
    return f"{name}: no rainy image has a clean partner{example}; see --pairing"


def unpaired_lines(images: ImageSet) -> list[str]:
    """Say which rainy images have no clean partner, a line for each."""
    return [f"{path}: no clean partner" for path in images.unpaired]
