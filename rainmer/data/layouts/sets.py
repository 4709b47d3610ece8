"""Turn command-line texts into sets of images: folders, globs, layouts and trees of scenes."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rainmer.data.layouts.pairing import ImageSet, Matching, Pair, find_pairs, match_pairs
from rainmer.data.layouts.rules import PairingRule, without_token
from rainmer.data.layouts.table import CLEAN_FOLDERS, RAINY_FOLDERS, Layout, Mode, find_layout
from rainmer.data.layouts.tree import subfolder
from rainmer.errors import ConfigError, DatasetError, OutputError
from rainmer.files import match_key
from rainmer.frames.images import IMAGE_SUFFIXES, list_images
from rainmer.frames.inputs import find_inputs, real_path

__all__ = [
    "SceneFolder",
    "clean_keys",
    "draw_images",
    "find_set",
    "no_pairs_message",
    "pair_folders",
    "read_set",
    "read_sets",
    "scene_folders",
    "unpaired_lines",
]

_NO_FILE_NAME = re.compile(r"[/\\\0\n\r]|^\.*$")


class SceneFolder(NamedTuple):
    """The images of one folder of GT-Rain: frames `*R-*` of rain, and `*C-000*` after it."""

    rainy: list[Path]
    clean: list[Path]
    other: list[Path]


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
    names: dict[str, str] = {
        "same-name": stem,
        "second-token": without_token(stem),
        "first-token": stem.partition("_")[0],
    }
    chosen = list(names.values()) if rule == "auto" else [names[rule]]
    return [f"{folder}{slash}{name}" for name in dict.fromkeys(chosen) if name]


def read_sets(texts: Sequence[str], rule: PairingRule) -> list[ImageSet]:
    """Read sets, see `read_set`.

    Raises:
        DatasetError: A text is wrong, a set is empty, or two sets have the same name.
        ImageError: A folder does not exist.
    """
    sets = [read_set(text, rule) for text in texts]
    for images in sets:
        if not images.rainy and not images.clean:
            raise DatasetError(f"{images.source} holds no images")
    names = [images.name.casefold() for images in sets]
    for images in sets:
        if names.count(images.name.casefold()) > 1:
            raise DatasetError(f"two sets are called {images.name}: write NAME:ROOT")
    return sets


def read_set(text: str, rule: PairingRule = "auto") -> ImageSet:
    """Find the rainy and clean images of a set.

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
        return pair_folders(name, Path(folders[0]), Path(folders[1]), rule, source=text)
    root = Path(folders[0])
    rainy, clean = subfolder(root, *RAINY_FOLDERS), subfolder(root, *CLEAN_FOLDERS)
    if rainy is not None and clean is not None:
        return pair_folders(name, rainy, clean, rule, source=text)
    images = list_images(root)
    scenes = scene_folders(images)
    matching = match_pairs(
        sorted(path for scene in scenes.values() for path in scene.rainy),
        (scene.clean[0] for scene in scenes.values() if scene.clean),
        lambda path: next(iter(scenes[path.parent].clean), None),
    )
    if matching.pairs:
        return _image_set(name, text, matching, (root, root))
    return ImageSet(name=name, source=text, unpaired=images)


def pair_folders(
    name: str, rainy: Path, clean: Path, rule: PairingRule = "auto", *, source: str = ""
) -> ImageSet:
    """Pair the images of two folders by their paths below them, suffixes left out.

    Raises:
        DatasetError: A rainy image has several clean partners, which differ in suffix only.
        ImageError: A folder does not exist.
    """
    by_key: dict[str, list[Path]] = {}
    for path in list_images(clean):
        by_key.setdefault(match_key(path.relative_to(clean)), []).append(path)

    def partner_of(path: Path) -> Path | None:
        keys = clean_keys(match_key(path.relative_to(rainy)), rule)
        candidates = next((by_key[key] for key in keys if key in by_key), [])
        if len(candidates) > 1:
            first, second = candidates[:2]
            raise DatasetError(f"{path} may belong to {first} or {second}: keep one of them")
        return candidates[0] if candidates else None

    all_clean = [path for paths in by_key.values() for path in paths]
    matching = match_pairs(list_images(rainy), all_clean, partner_of)
    return _image_set(name, source, matching, (rainy, clean))


def scene_folders(images: Iterable[Path]) -> dict[Path, SceneFolder]:
    """Group the images of GT-Rain by folder, one for each scene."""
    folders: dict[Path, SceneFolder] = {}
    for path in images:
        scene = folders.setdefault(path.parent, SceneFolder([], [], []))
        kind = 1 if "C-000" in path.stem else 0 if "R-" in path.stem else 2
        scene[kind].append(path)
    return folders


def _image_set(
    name: str, source: str, matching: Matching[Path], bases: tuple[Path, Path]
) -> ImageSet:
    rainy_base, clean_base = bases
    pairs = [
        Pair(
            name=rainy.relative_to(rainy_base).as_posix(),
            rainy=rainy,
            clean=clean,
            clean_name=clean.relative_to(clean_base).as_posix(),
        )
        for rainy, clean in matching.pairs
    ]
    return ImageSet(
        name=name,
        source=source,
        pairs=pairs,
        unpaired=matching.unpaired,
        lone_clean=matching.lone_clean,
    )


def no_pairs_message(name: str, images: ImageSet) -> str:
    """Return the message for a set without a pair, with a rainy image as an example."""
    example = f", such as {images.unpaired[0]}" if images.unpaired else ""
    return f"{name}: no rainy image has a clean partner{example}; see --pairing"


def unpaired_lines(images: ImageSet) -> list[str]:
    """Return a line for each rainy image without a clean partner."""
    return [f"{path}: no clean partner" for path in images.unpaired]


def find_set(text: str, *, mode: Mode | None = None, out: Path | None = None) -> ImageSet:
    """Find the rainy images of a set; a plain folder counts as a set of rainy images.

    Args:
        text: `NAME:IMAGES`, where IMAGES is a folder (with its subfolders), a file or a glob; or
            `NAME:LAYOUT:ROOT` with a layout of `rainmer.data.layouts`, of which the rainy images
            are taken.
        mode: Chooses between the training and the test set of a name that has both.
        out: Folder of results; files in it are not inputs.

    Raises:
        ConfigError: The text is of another form, or there is no such layout.
        DatasetError: The set has no images, or a layout's files are missing.
        ImageError: The folder or file does not exist.
        OutputError: The set is the folder of results.
    """
    name, _, source = text.partition(":")
    if not name.strip() or not source:
        raise ConfigError(f"{text!r} is not NAME:FOLDER or NAME:LAYOUT:ROOT, such as snow:photos/")
    layout, colon, root = source.partition(":")
    if colon and not os.path.exists(os.path.expanduser(source)):
        pairs = find_pairs(_layout(layout, mode), os.path.expanduser(root))
        return ImageSet(name=name, source=source, pairs=pairs)
    images = _images(os.path.expanduser(source), out)
    return ImageSet(name=name, source=source, unpaired=images)


def _layout(name: str, mode: Mode | None) -> Layout:
    try:
        return find_layout(name, mode)
    except ConfigError:
        return find_layout(name)  # not in this mode, but perhaps in the other


def _images(source: str, out: Path | None) -> list[Path]:
    if out is not None and os.path.isdir(source) and real_path(Path(source)) == real_path(out):
        raise OutputError(f"--out is the folder of a set, {source}: choose another folder")
    paths = (item.path for item in find_inputs(source, out))
    images = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DatasetError(f"{source} holds no images")
    return images


def draw_images(images: ImageSet, count: int, *, seed: int, replace: bool = False) -> list[Path]:
    """Draw random rainy images of a set, the same ones on every machine.

    Args:
        images: The set.
        count: Number of images.
        seed: Random seed of the draw.
        replace: Draw `count` images with replacement, as the published visualisation does.
            Otherwise without, and all images if there are no more than `count`.

    Returns:
        Files in the order of the set; with `replace` in the order they were drawn.
    """
    chance = random.Random(f"{seed}/{images.name}")
    paths = images.rainy
    if replace:
        return chance.choices(paths, k=count)
    if len(paths) <= count:
        return paths
    return [paths[index] for index in sorted(chance.sample(range(len(paths)), count))]
