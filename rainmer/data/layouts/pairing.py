"""The pair finder: which clean image belongs to each rainy one, in any set of pairs.

`match_pairs` is the only place where images become pairs. `pair_by_key` applies it to folders whose
images share names, `scan` to a layout of the table, recording everything that does not fit.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Generic, NamedTuple, TypeVar

from rainmer.data.defects import Defects
from rainmer.data.layouts.rules import FirstInScene, NameRule, Numbered, OneOf, SameStem
from rainmer.data.layouts.table import Layout, Mode, find_layout
from rainmer.data.layouts.tree import Tree, natural_key
from rainmer.errors import DatasetError
from rainmer.files import match_key
from rainmer.folders import skipped_line
from rainmer.frames.images import find_images

__all__ = [
    "ImageSet",
    "Matching",
    "Pair",
    "Scan",
    "find_pairs",
    "images_by_key",
    "match_pairs",
    "pair_by_key",
    "scan",
]

_Rainy = TypeVar("_Rainy")

_COMPANIONS = frozenset(
    {"", ".csv", ".db", ".ini", ".json", ".md", ".npy", ".txt", ".xml", ".yaml", ".yml"}
)
"""Suffixes of what lies beside images for a reason: labels, depth, thumbnails."""


@dataclass(frozen=True)
class Pair:
    """A rainy image and its clean partner.

    Attributes:
        name: Path of the rainy image below the folder of the rainy images, with `/` and suffix.
        rainy: The rainy image.
        clean: The clean image, which several rainy ones may share; None: there is no reference.
        clean_name: Path of the clean image below the folder of the clean images; empty without one.
        scene: Key shared by the rainy images of one clean scene; None: each has its own.
    """

    name: str
    rainy: Path
    clean: Path | None = None
    clean_name: str = ""
    scene: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The rainy image, and the clean one if there is one."""
        return (self.rainy,) if self.clean is None else (self.rainy, self.clean)

    @property
    def fingerprint(self) -> str:
        """Twelve digits that change when one of the files does."""
        stats = [path.stat() for path in self.files]
        parts = [self.name, *((stat.st_size, stat.st_mtime_ns) for stat in stats)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """The images of one set.

    Attributes:
        name: What tables, files and plots call it.
        source: Its location as the user wrote it.
        pairs: Rainy images with their clean partners.
        unpaired: Rainy images without a partner; all images where there are no clean ones.
        lone_clean: Clean images without a rainy partner.
    """

    name: str
    source: str = ""
    pairs: Sequence[Pair] = ()
    unpaired: Sequence[Path] = ()
    lone_clean: Sequence[Path] = ()

    @property
    def clean(self) -> list[Path]:
        """The distinct clean images, in the order of the pairs."""
        partners = (pair.clean for pair in self.pairs if pair.clean is not None)
        return list(dict.fromkeys([*partners, *self.lone_clean]))

    @property
    def rainy(self) -> list[Path]:
        """The rainy images."""
        return [*(pair.rainy for pair in self.pairs), *self.unpaired]


@dataclass(frozen=True)
class Matching(Generic[_Rainy]):
    """The result of `match_pairs`, in the order of its arguments.

    Attributes:
        pairs: Rainy images with their clean partners.
        unpaired: Rainy images without a partner.
        lone_clean: Clean images without a rainy partner.
    """

    pairs: list[tuple[_Rainy, Path]]
    unpaired: list[_Rainy]
    lone_clean: list[Path]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The files of a layout below a root.

    Attributes:
        layout: The layout; for `folders` the variant that was detected.
        root: The root.
        images: The set: its pairs are those that count, in natural order of their paths.
        skipped: Complete pairs that the layout leaves out.
        listed: Number of rainy images that exist or should exist, including skipped ones.
        defects: Errors are missing images, notes whatever else is worth knowing.
    """

    layout: Layout
    root: Path
    images: ImageSet
    skipped: Sequence[Pair]
    listed: int
    defects: Defects


class _Listed(NamedTuple):
    """A rainy image that exists or should exist, and the name of its partner by the rules."""

    name: str
    rainy: Path | None
    clean: str | None
    scene: str | None


def match_pairs(
    rainy: Iterable[_Rainy],
    clean: Iterable[Path],
    partner_of: Callable[[_Rainy], Path | None],
) -> Matching[_Rainy]:
    """Give each rainy image its clean partner.

    Args:
        rainy: Rainy images, in any form that `partner_of` knows.
        clean: All clean images.
        partner_of: Returns the clean image of a rainy one; None: it has none.
    """
    pairs: list[tuple[_Rainy, Path]] = []
    unpaired = []
    for image in rainy:
        partner = partner_of(image)
        if partner is None:
            unpaired.append(image)
        else:
            pairs.append((image, partner))
    used = {partner for _, partner in pairs}
    return Matching(pairs, unpaired, [path for path in clean if path not in used])


def images_by_key(folder: Path, role: str, defects: Defects) -> dict[str, Path]:
    """Return the images of a folder by `match_key` of their path below it.

    Args:
        folder: The folder.
        role: What the images are, for messages: rainy or clean.
        defects: An error is added for each image with the key of an earlier one, which is left out,
            and for each folder that cannot be listed; a note for files that are no images by their
            suffix, unless those are labels or text.

    Raises:
        DatasetError: The folder does not exist.
    """
    if not folder.is_dir():
        raise DatasetError(f"no folder {folder} of {role} images")
    found = find_images(folder)
    for line in found.unreadable:
        defects.error("folder left out", line)
    _note_others(found.skipped, f"other files in the folder of {role} images", defects)
    by_key: dict[str, Path] = {}
    for path in found.files:
        name = path.relative_to(folder).as_posix()
        if by_key.setdefault(match_key(name), path) is not path:
            defects.error(f"{role} images that differ only in suffix or case, left out", name)
    return by_key


def _note_others(skipped: Counter[str], kind: str, defects: Defects) -> None:
    others = Counter({k: n for k, n in skipped.items() if k not in _COMPANIONS})
    if others:
        defects.note(kind, skipped_line(others))


def pair_by_key(
    rainy: Mapping[str, Path],
    clean: Mapping[str, Path] | None,
    defects: Defects,
    *,
    bases: tuple[Path, Path | None],
    clean_key: Callable[[str], str] = str,
) -> dict[str, tuple[Path, Path | None]]:
    """Return (rainy image, clean partner) by the rainy image's key.

    Args:
        rainy: Rainy images by key.
        clean: Clean images by key; None: there are none, and every rainy image stays alone.
        defects: An error is added for each rainy image without partner, which is left out, and a
            note for each clean image without partner.
        bases: Folders of the rainy and of the clean images, which these messages leave out.
        clean_key: Returns the key of the partner of a rainy image's key; default: the same key.
    """
    if clean is None:
        return {key: (path, None) for key, path in rainy.items()}
    matching = match_pairs(rainy, clean.values(), lambda key: clean.get(clean_key(key)))
    rainy_base, clean_base = bases
    for path in sorted(matching.lone_clean):
        name = path.relative_to(clean_base) if clean_base is not None else Path(path.name)
        defects.note("clean image without rainy partner", name.as_posix())
    for key in matching.unpaired:
        name = rainy[key].relative_to(rainy_base)
        defects.error("rainy image without clean partner, skipped", name.as_posix())
    return {key: (rainy[key], partner) for key, partner in matching.pairs}


def find_pairs(
    layout: str | Layout,
    root: str | os.PathLike[str],
    *,
    mode: Mode | None = None,
    partial: bool = False,
) -> list[Pair]:
    """Return the pairs of a set in natural order of their names.

    Args:
        layout: Name or alias of a layout, see `LAYOUTS`; or a `Layout`.
        root: The folder that the layout's paths start from.
        mode: For names of both a training and a test set.
        partial: Accept a copy with missing files, and return its complete pairs.

    Raises:
        ConfigError: No layout has this name, or several have.
        DatasetError: There is no pair, or, unless `partial`, files are missing.
    """
    content = scan(layout, root, mode=mode)
    pairs = content.images.pairs
    errors = content.defects.error_lines()
    if errors and not partial:
        raise DatasetError(
            f"{content.layout} in {content.root}: {len(pairs)} pairs are complete, but "
            f"{'; '.join(errors)}; `python -m rainmer.data.layouts check "
            f"{content.layout.name}:{content.root} --json` lists all"
        )
    return list(pairs)


def scan(layout: str | Layout, root: str | os.PathLike[str], *, mode: Mode | None = None) -> Scan:
    """Find all files of a layout below a root. For arguments see `find_pairs`.

    Raises:
        ConfigError: No layout has this name, or several have.
        DatasetError: There is no pair, a folder cannot be listed, or two files are ambiguous.
    """
    chosen = find_layout(layout, mode) if isinstance(layout, str) else layout
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"no folder {root}; {chosen} expects {_places(chosen, root)}")
    tree = Tree(root)
    if isinstance(chosen.clean, OneOf):
        chosen = _layout_that_is_there(chosen.clean, tree)
    listed = list(_listed(chosen, tree))
    defects = Defects()
    images = _match(listed, chosen, tree, defects)
    kept = [pair for pair in images.pairs if not _is_skipped(pair.rainy, chosen)]
    skipped = [pair for pair in images.pairs if _is_skipped(pair.rainy, chosen)]
    if not kept:
        raise DatasetError(_nothing(chosen, tree, listed, defects))
    for pair in skipped:
        name = _without_suffix(tree.name(pair.rainy))
        defects.note(f"left out by the layout, `{chosen.skip}` in their name", name)
    _note_extras(chosen, tree, listed, images, defects)
    _note_others(tree.skipped, "other files beside the images", defects)
    kept.sort(key=lambda pair: natural_key(_without_suffix(tree.name(pair.rainy))))
    return Scan(
        layout=chosen,
        root=root,
        images=dataclasses.replace(images, pairs=kept),
        skipped=skipped,
        listed=len(listed),
        defects=defects,
    )


def _layout_that_is_there(choice: OneOf, tree: Tree) -> Layout:
    layouts = [find_layout(name) for name in choice.layouts]
    here = [layout for layout in layouts if all(map(tree.folder, _top_folders(layout)))]
    if len(here) > 1:
        names = " or ".join(f"{layout.name}:{tree.root}" for layout in here)
        raise DatasetError(
            f"{tree.root} holds the folders of several layouts: say {names} instead of folders"
        )
    if not here:
        raise DatasetError(f"{tree.root} holds none of these pairs of folders: {_choices(choice)}")
    return here[0]


def _choices(choice: OneOf) -> str:
    folders = (_top_folders(find_layout(name)) for name in choice.layouts)
    return ", ".join(f"{rainy}/ + {clean}/" for rainy, clean in folders)


def _top_folders(layout: Layout) -> tuple[str, str]:
    assert isinstance(layout.clean, SameStem)
    return layout.rainy.partition("/")[0], layout.clean.folder


def _listed(layout: Layout, tree: Tree) -> Iterator[_Listed]:
    """Yield every rainy image: of numbered sets those of the list, else those that are there."""
    rule = layout.clean
    if isinstance(rule, Numbered):
        yield from _numbered(layout.rainy, rule, tree)
        return
    # In a scene, clean images may fit the glob of rainy ones.
    clean_images = set(_clean_images(layout, tree))
    for path in tree.match(layout.rainy):
        if path in clean_images:
            continue
        name = tree.name(path)
        rainy = PurePosixPath(name)
        if isinstance(rule, NameRule):
            yield _Listed(name, path, rule.partner(rainy), rule.scene(rainy))
        else:
            yield _Listed(name, path, None, None)


def _numbered(rainy: str, rule: Numbered, tree: Tree) -> Iterator[_Listed]:
    numbers = range(len(tree.match(rule.i))) if isinstance(rule.i, str) else rule.i
    for i, j in itertools.product(numbers, rule.j):
        name = rainy.format(i=i, j=j)
        clean = None if rule.clean is None else rule.clean.format(i=i, j=j)
        scene = None if rule.scene is None else rule.scene.format(i=i, j=j)
        path = tree.image(name)
        yield _Listed(name if path is None else tree.name(path), path, clean, scene)


def _match(listed: Sequence[_Listed], layout: Layout, tree: Tree, defects: Defects) -> ImageSet:
    """Return the complete pairs and the images left over, which become defects.

    Raises:
        DatasetError: The names of two rainy images differ in suffix or case only.
    """
    for image in listed:
        if image.rainy is None:
            defects.error("listed rainy image that is missing", image.name)
    there = {image.rainy: image for image in listed if image.rainy is not None}
    _refuse_twins(there)
    clean_files = _clean_files(layout)
    if clean_files is None:
        pairs = [Pair(_below(i.name, layout.rainy), p, scene=i.scene) for p, i in there.items()]
        return ImageSet(name=layout.name, pairs=pairs)
    find = functools.lru_cache(maxsize=None)(functools.partial(_partner, layout=layout, tree=tree))
    clean = [path for path in tree.match(clean_files) if path not in there]
    matching = match_pairs(there, clean, lambda path: find(str(there[path].clean)))
    for path in matching.unpaired:
        if not _is_skipped(path, layout):
            subject = f"{there[path].name}: no {there[path].clean}"
            defects.error("rainy image without clean partner", subject)
    pairs = [
        Pair(
            name=_below(there[path].name, layout.rainy),
            rainy=path,
            clean=partner,
            clean_name=_below(tree.name(partner), clean_files),
            scene=there[path].scene,
        )
        for path, partner in matching.pairs
    ]
    return ImageSet(
        name=layout.name,
        pairs=pairs,
        unpaired=matching.unpaired,
        lone_clean=matching.lone_clean,
    )


def _refuse_twins(rainy: Mapping[Path, _Listed]) -> None:
    by_key: dict[str, Path] = {}
    for path, image in rainy.items():
        other = by_key.setdefault(_without_suffix(image.name).casefold(), path)
        if other is not path:
            raise DatasetError(f"{other} and {path} differ only in suffix or case: remove one")


def _without_suffix(name: str) -> str:
    return os.path.splitext(name)[0]


def _below(name: str, pattern: str) -> str:
    """Return a path relative to the fixed folders of its pattern."""
    *folders, _ = pattern.split("/")
    fixed = itertools.takewhile(lambda folder: "*" not in folder and "{" not in folder, folders)
    return "/".join(name.split("/")[len(list(fixed)) :])


def _is_skipped(rainy: Path, layout: Layout) -> bool:
    return layout.skip is not None and layout.skip in rainy.name


def _partner(name: str, *, layout: Layout, tree: Tree) -> Path | None:
    rule = layout.clean
    if isinstance(rule, FirstInScene):
        return next(iter(tree.match(name)), None)
    if isinstance(rule, SameStem):
        return tree.with_stem(rule.folder, name.removeprefix(f"{rule.folder}/"))
    return tree.image(name)


def _note_extras(
    layout: Layout, tree: Tree, listed: Sequence[_Listed], images: ImageSet, defects: Defects
) -> None:
    """Note images that are not part of the layout; they do no harm."""
    for path in images.lone_clean:
        defects.note("clean image without rainy partner", tree.name(path))
    known = {image.rainy for image in listed} | set(images.clean)
    for path in tree.match(_all_in_folder_of(layout.rainy)):
        if path not in known:
            subject = tree.name(path)
            defects.note("image beside the rainy ones that the layout does not name", subject)


def _clean_images(layout: Layout, tree: Tree) -> list[Path]:
    files = _clean_files(layout)
    return [] if files is None else tree.match(files)


def _clean_files(layout: Layout) -> str | None:
    """Return the glob of all clean images; None where there are none."""
    rule = layout.clean
    if isinstance(rule, Numbered):
        return None if rule.clean is None else _all_in_folder_of(rule.clean)
    return rule.files if isinstance(rule, NameRule) else None


def _all_in_folder_of(template: str) -> str:
    return f"{template.rpartition('/')[0]}/*"


def _nothing(layout: Layout, tree: Tree, listed: Sequence[_Listed], defects: Defects) -> str:
    """Return the message for a root without a pair."""
    if all(image.rainy is None for image in listed):
        return (
            f"{tree.root} does not hold {layout}: expected "
            f"{_places(layout, tree.root)}{_hint(layout, tree)}"
        )
    if errors := defects.error_lines():
        return f"{layout} in {tree.root} has no complete pair: {'; '.join(errors)}"
    return f"{layout} in {tree.root} has only images that the layout leaves out ({layout.skip})"


def _places(layout: Layout, root: Path) -> str:
    """Return the places where the images should be."""
    if isinstance(layout.clean, OneOf):
        return f"one of these pairs of folders in it: {_choices(layout.clean)}"
    rainy = f"rainy images {root / layout.describe_rainy()}"
    files = _clean_files(layout)
    return rainy if files is None else f"{rainy} and clean ones {root / files}"


def _hint(layout: Layout, tree: Tree) -> str:
    """Return a hint at the likely mistake: a folder above or below, or files of other names."""
    parts = [part.casefold() for part in PurePosixPath(layout.rainy).parts[:-1]]
    above = [part.casefold() for part in tree.root.resolve().parts]
    for depth in range(len(parts), 0, -1):
        if above[-depth:] == parts[:depth]:
            return f"; give {tree.root.resolve().parents[depth - 1]} instead"
    others = tree.match(_all_in_folder_of(layout.rainy)) if parts else []
    return f"; other images are there, such as {others[0].name}" if others else ""
