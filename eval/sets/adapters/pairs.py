"""Pairs without boxes: GTAV-NightRain and GT-Rain. The truth are pseudo-labels.

F. Zhang et al., GTAV-NightRain: Photometric Realistic Large-scale Dataset for Night-time Rain
Streak Removal, 2022; Y. Ba et al., Not Just Streaks: Towards Ground Truth for Single Image
Deraining, ECCV 2022.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from eval.sets.adapters.assembling import (
    Draft,
    Gathered,
    assemble,
    conditions_of,
    only_allowed,
)
from eval.sets.adapters.files import (
    child,
    folders_named,
    images_by_key,
    parts_below,
)
from eval.sets.adapters.model import AdaptedSet, AdapterOptions
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError

__all__ = ["read_gt_rain", "read_gtav_nightrain"]

_SPLITS = ("train", "val", "test")
_REMARKS = (
    "there are no boxes: pseudo-labels from the clean images are the truth, which measures "
    "agreement with the detector's own view of them, not accuracy",
    "several rainy images share one clean image: they are not independent, and intervals over "
    "images are too narrow (scene_id tells which belong together)",
)


def read_gtav_nightrain(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read every folder `Rainy` that has a folder `GT` beside it, in any case of letters."""
    defects = Defects()
    drafts = []
    for rainy in folders_named(root, "rainy"):
        split = _split(rainy / "x", root)
        if options.split not in (None, split):
            continue
        clean = child(rainy.parent, "gt")
        if clean is None:
            defects.error("folder of rainy images without a folder GT beside it", str(rainy))
            continue
        about = {"subset": _subset(rainy / "x", root), "split": split}
        drafts += _gtav_drafts(rainy, clean, root, about, defects)
    kept = only_allowed(drafts, options.allow_list, defects)
    gathered = Gathered(
        name="gtav-nightrain",
        rainy_base=root,
        drafts=kept,
        rules=conditions_of("subset", kept),
        remarks=_REMARKS,
    )
    return assemble(gathered, defects)


def _gtav_drafts(
    rainy: Path, clean: Path, root: Path, about: Mapping[str, str | None], defects: Defects
) -> list[Draft]:
    partners = images_by_key(clean, "clean", defects)
    used, drafts = set(), []
    place = rainy.parent.relative_to(root).as_posix()
    for key, path in images_by_key(rainy, "rainy", defects).items():
        partner = _without_second_token(key)
        if partner not in partners:
            defects.error(
                "rainy image without clean partner, skipped", path.relative_to(root).as_posix()
            )
            continue
        used.add(partner)
        attributes = {
            "domain": "synthetic",
            "weather": "rain",
            "timeofday": "night",
            "scene_id": f"{place}/{partner}",
            "source_id": key,
            **{name: value for name, value in about.items() if value},
        }
        drafts.append(Draft(path, None, partners[partner], attributes))
    for key in sorted(partners.keys() - used):
        name = partners[key].relative_to(root).as_posix()
        defects.note("clean image without rainy partner", name)
    return drafts


def _without_second_token(key: str) -> str:
    """Return the clean image's key: `0000_03` is a version of `0000`.

    Example:
        >>> _without_second_token("0000_03"), _without_second_token("0011_03_set1_2crop")
        ('0000', '0011_set1_2crop')
    """
    first, _, rest = key.partition("_")
    _, separator, behind = rest.partition("_")
    return first + separator + behind


def _split(path: Path, root: Path) -> str | None:
    """Return the last of train, val, test among the folders, the root's own name included."""
    parts = (root.name.casefold(), *parts_below(path, root))
    return next((part for part in reversed(parts) if part in _SPLITS), None)


def _subset(path: Path, root: Path) -> str | None:
    parts = (root.name.casefold(), *parts_below(path, root))
    found = (re.search(r"set\d+", part) for part in parts)
    return next((match[0] for match in found if match), None)


def read_gt_rain(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read scenes: folders of rainy frames `*R-*.png` around one clean image `*C-000*.png`."""
    defects = Defects()
    folders = _scene_folders(root, options.split, defects)
    drafts = []
    for folder, (rainy, clean) in folders.items():
        name = folder.relative_to(root).as_posix()
        if not clean:
            defects.error("scene without a clean image *C-000*, skipped", name)
            continue
        if len(clean) > 1:
            defects.note("scene with several clean images, the first counts", name)
        split = _gt_rain_split(folder, root)
        for path in rainy:
            attributes = {
                "domain": "real",
                "weather": "rain",
                "scene_id": name if name != "." else root.name,
                "source_id": path.name,
                **({"split": split} if split else {}),
            }
            drafts.append(Draft(path, None, clean[0], attributes))
    kept = only_allowed(drafts, options.allow_list, defects)
    gathered = Gathered(name="gt-rain", rainy_base=root, drafts=kept, remarks=_REMARKS)
    return assemble(gathered, defects)


def _scene_folders(
    root: Path, split: str | None, defects: Defects
) -> dict[Path, tuple[list[Path], list[Path]]]:
    """Return the rainy and the clean images of each folder that has rainy ones."""
    folders: dict[Path, tuple[list[Path], list[Path]]] = {}
    for path in images_by_key(root, "rainy", defects).values():
        if split is not None and _gt_rain_split(path.parent, root) != split:
            continue
        rainy, clean = folders.setdefault(path.parent, ([], []))
        if "C-000" in path.stem:
            clean.append(path)
        elif "R-" in path.stem:
            rainy.append(path)
        else:
            defects.note("image that is neither *R-* nor *C-000*, left out", path.name)
    found = {folder: both for folder, both in folders.items() if both[0]}
    for folder in folders.keys() - found.keys():
        defects.note("folder without rainy images", folder.relative_to(root).as_posix())
    if not found:
        raise DatasetError(
            f"{root}: no folder with images *R-*.png below it; expected GT-RAIN_SPLIT/SCENE"
        )
    return found


def _gt_rain_split(folder: Path, root: Path) -> str | None:
    for part in (root.name.casefold(), *parts_below(folder / "x", root)):
        match = re.fullmatch(r"gt-rain_(train|val|test)", part)
        if match:
            return match[1]
    return None
