"""From a layout and a root to pairs of files, with everything written down that does not fit."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rainmer.data.defects import Defects
from rainmer.data.layouts.rules import FirstInScene, NameRule, Numbered, OneOf, SameStem
from rainmer.data.layouts.table import Layout, Mode, find_layout
from rainmer.data.layouts.tree import Tree, natural_key
from rainmer.errors import DatasetError

__all__ = ["Pair", "Scan", "find_pairs", "scan"]


class Pair(NamedTuple):
    """A rainy image and its clean partner.

    Attributes:
        rainy: File of the rainy image.
        clean: File of the clean image; None: there is no reference.
        scene: What rainy images of one clean scene share; None: each has its own.
        name: Path of the rainy image below the root without suffix, which no other pair has.
    """

    rainy: Path
    clean: Path | None
    scene: str | None
    name: str


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What lies below a root in a layout.

    Attributes:
        layout: The layout; for `folders` the one that was found.
        root: The root.
        pairs: All complete pairs that count, in natural order of their names.
        skipped: Complete pairs that the layout leaves out.
        listed: Number of rainy images that are there or should be, with those left out.
        defects: Errors are images that should be there, notes what else is worth knowing.
    """

    layout: Layout
    root: Path
    pairs: Sequence[Pair]
    skipped: Sequence[Pair]
    listed: int
    defects: Defects


class _Listed(NamedTuple):
    """A rainy image that is there or should be, and the names that rules give its partner."""

    name: str
    rainy: Path | None
    clean: str | None
    scene: str | None


def find_pairs(
    layout: str | Layout,
    root: str | os.PathLike[str],
    *,
    mode: Mode | None = None,
    partial: bool = False,
) -> list[Pair]:
    """Return the pairs of a set in natural order of their names.

    Args:
        layout: Name or alias of a layout, see `LAYOUTS`; or a layout of your own.
        root: The folder that the layout's paths start from.
        mode: For names that mean a training and a test set.
        partial: Take the complete pairs of a copy in which files are missing.

    Raises:
        ConfigError: No layout has this name, or several have.
        DatasetError: There is no pair, or, unless `partial`, files are missing.
    """
    found = scan(layout, root, mode=mode)
    errors = found.defects.error_lines()
    if errors and not partial:
        raise DatasetError(
            f"{found.layout} in {found.root}: {len(found.pairs)} pairs are complete, but "
            f"{'; '.join(errors)}; `python -m rainmer.data.layouts check "
            f"{found.layout.name}:{found.root} --json` lists all"
        )
    return list(found.pairs)


def scan(layout: str | Layout, root: str | os.PathLike[str], *, mode: Mode | None = None) -> Scan:
    """Look at everything that a layout speaks of below a root. For arguments see `find_pairs`.

    Raises:
        ConfigError: No layout has this name, or several have.
        DatasetError: There is no pair, a folder cannot be listed, or two files cannot be told
            apart.
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
    pairs = _pairs(listed, chosen, tree, defects)
    kept = [pair for pair in pairs if not _is_skipped(pair.rainy, chosen)]
    skipped = [pair for pair in pairs if _is_skipped(pair.rainy, chosen)]
    if not kept:
        raise DatasetError(_nothing(chosen, tree, listed, defects))
    for pair in skipped:
        defects.note(f"left out by the layout, `{chosen.skip}` in their name", pair.name)
    _note_extras(chosen, tree, listed, pairs, defects)
    return Scan(
        layout=chosen,
        root=root,
        pairs=sorted(kept, key=lambda pair: natural_key(pair.name)),
        skipped=skipped,
        listed=len(listed),
        defects=defects,
    )


def _layout_that_is_there(choice: OneOf, tree: Tree) -> Layout:
    layouts = [find_layout(name) for name in choice.layouts]
    here = [one for one in layouts if all(tree.folder(name) for name in _top_folders(one))]
    if len(here) > 1:
        names = " or ".join(f"{one.name}:{tree.root}" for one in here)
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


# --- what there should be -------------------------------------------------------------------------


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


# --- what is there --------------------------------------------------------------------------------


def _pairs(listed: Sequence[_Listed], layout: Layout, tree: Tree, defects: Defects) -> list[Pair]:
    """Return the complete pairs, the others written down.

    Raises:
        DatasetError: Two rainy images have one name but for suffix and case.
    """
    partner_of = functools.lru_cache(maxsize=None)(
        functools.partial(_partner, layout=layout, tree=tree)
    )
    pairs = []
    by_key: dict[str, Path] = {}
    for one in listed:
        if one.rainy is None:
            defects.error("listed rainy image that is missing", one.name)
            continue
        name = os.path.splitext(one.name)[0]
        other = by_key.setdefault(name.casefold(), one.rainy)
        if other is not one.rainy:
            raise DatasetError(f"{other} and {one.rainy} differ only in suffix or case: remove one")
        clean = None if one.clean is None else partner_of(one.clean)
        if one.clean is not None and clean is None:
            if not _is_skipped(one.rainy, layout):
                defects.error("rainy image without clean partner", f"{one.name}: no {one.clean}")
            continue
        pairs.append(Pair(one.rainy, clean, one.scene, name))
    return pairs


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
    layout: Layout, tree: Tree, listed: Sequence[_Listed], pairs: Sequence[Pair], defects: Defects
) -> None:
    """Note images beside those of the layout, which do no harm."""
    known = {one.rainy for one in listed} | {pair.clean for pair in pairs}
    for path in _clean_images(layout, tree):
        if path not in known:
            defects.note("clean image without rainy partner", tree.name(path))
            known.add(path)
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


# --- when there is nothing ------------------------------------------------------------------------


def _nothing(layout: Layout, tree: Tree, listed: Sequence[_Listed], defects: Defects) -> str:
    """Return the message for a root without a pair."""
    there = [one for one in listed if one.rainy is not None]
    if not there:
        return (
            f"{tree.root} does not hold {layout}: expected "
            f"{_places(layout, tree.root)}{_hint(layout, tree)}"
        )
    if errors := defects.error_lines():
        return f"{layout} in {tree.root} has no complete pair: {'; '.join(errors)}"
    return f"{layout} in {tree.root} has only images that the layout leaves out ({layout.skip})"


def _places(layout: Layout, root: Path) -> str:
    """Return where the images should be."""
    if isinstance(layout.clean, OneOf):
        return f"one of these pairs of folders in it: {_choices(layout.clean)}"
    rainy = f"rainy images {root / layout.describe_rainy()}"
    files = _clean_files(layout)
    return rainy if files is None else f"{rainy} and clean ones {root / files}"


def _hint(layout: Layout, tree: Tree) -> str:
    """Return what may have been meant: a folder above, or files of another name."""
    parts = [part.casefold() for part in PurePosixPath(layout.rainy).parts[:-1]]
    above = [part.casefold() for part in tree.root.resolve().parts]
    for depth in range(len(parts), 0, -1):
        if above[-depth:] == parts[:depth]:
            return f"; give {tree.root.resolve().parents[depth - 1]} instead"
    others = tree.match(_all_in_folder_of(layout.rainy)) if parts else []
    return f"; other images are there, such as {others[0].name}" if others else ""
