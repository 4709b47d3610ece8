"""Pairs of a rainy and a clean image, with boxes or without.

Boxes of COCO350, BDD350, BDD350-Night and HQ-NightRain are joined by stem from the sets that their
images are taken from. Where there are no boxes, pseudo-labels from the clean images are the truth.

GTAV-NightRain: F. Zhang et al., GTAV-NightRain: Photometric Realistic Large-scale Dataset for
Night-time Rain Streak Removal, 2022. GT-Rain: Y. Ba et al., Not Just Streaks: Towards Ground Truth
for Single Image Deraining, ECCV 2022. COCO350, BDD350: K. Jiang et al., Multi-Scale Progressive
Fusion Network for Single Image Deraining, CVPR 2020. BDD350-Night, HQ-NightRain: Q. Guan et al.,
Rethinking Nighttime Image Deraining via Learnable Color Space Transformation, NeurIPS 2025.
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
    join_by_stem,
    only_allowed,
    read_any,
)
from eval.sets.adapters.files import folders_named, keep_allowed, parts_below, stem_key
from eval.sets.adapters.fitting import fit_uniformly
from eval.sets.model import AdaptedSet, AdapterOptions
from rainmer.data.annotations.records import Annotations
from rainmer.data.defects import Defects
from rainmer.data.layouts.pairing import images_by_key, pair_by_key
from rainmer.data.layouts.sets import SceneFolder, clean_keys, scene_folders
from rainmer.data.layouts.table import CLEAN_FOLDERS, RAINY_FOLDERS
from rainmer.data.layouts.tree import subfolder
from rainmer.errors import DatasetError

__all__ = [
    "read_bdd350",
    "read_bdd350_night",
    "read_coco350",
    "read_gt_rain",
    "read_gtav_nightrain",
    "read_hq_nightrain",
]

_CLEAN_FOLDERS = (*CLEAN_FOLDERS, "groundtruth")
_SUBSETS = re.compile(r"(?:.*[-_])?(rs|rd|sd)")
_SPLITS = ("train", "val", "test")
_SYNTHETIC = "rain is synthetic: objects that it hides wholly still count as missed"
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
        clean = subfolder(rainy.parent, "gt")
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
    pairs = pair_by_key(
        images_by_key(rainy, "rainy", defects),
        images_by_key(clean, "clean", defects),
        defects,
        bases=(root, root),
        clean_key=_clean_key,
    )
    place = rainy.parent.relative_to(root).as_posix()
    fixed = {"domain": "synthetic", "weather": "rain", "timeofday": "night"}
    fixed |= {name: value for name, value in about.items() if value}
    return [
        Draft(
            path,
            None,
            partner,
            {**fixed, "scene_id": f"{place}/{_clean_key(key)}", "source_id": key},
        )
        for key, (path, partner) in pairs.items()
    ]


def _clean_key(key: str) -> str:
    """Return the clean image's key: `0000_03` is a version of `0000`, also in a crop's name."""
    return clean_keys(key, "second-token")[0]


def _split(path: Path, root: Path) -> str | None:
    """Return the last of train, val, test among the folders, the root's own name included."""
    parts = (root.name.casefold(), *parts_below(path, root))
    return next((part for part in reversed(parts) if part in _SPLITS), None)


def _subset(path: Path, root: Path) -> str | None:
    parts = (root.name.casefold(), *parts_below(path, root))
    matches = (re.search(r"set\d+", part) for part in parts)
    return next((match[0] for match in matches if match), None)


def read_gt_rain(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read scenes: folders of rainy frames `*R-*.png` around one clean image `*C-000*.png`."""
    defects = Defects()
    drafts = []
    for folder, scene in _scene_folders(root, options.split, defects).items():
        name = folder.relative_to(root).as_posix()
        if not scene.clean:
            defects.error("scene without a clean image *C-000*, skipped", name)
            continue
        if len(scene.clean) > 1:
            defects.note("scene with several clean images, the first counts", name)
        split = _gt_rain_split(folder, root)
        for path in scene.rainy:
            attributes = {
                "domain": "real",
                "weather": "rain",
                "scene_id": name if name != "." else root.name,
                "source_id": path.name,
                **({"split": split} if split else {}),
            }
            drafts.append(Draft(path, None, scene.clean[0], attributes))
    kept = only_allowed(drafts, options.allow_list, defects)
    gathered = Gathered(name="gt-rain", rainy_base=root, drafts=kept, remarks=_REMARKS)
    return assemble(gathered, defects)


def _scene_folders(root: Path, split: str | None, defects: Defects) -> dict[Path, SceneFolder]:
    """Return the images of each folder that has rainy ones."""
    images = images_by_key(root, "rainy", defects).values()
    wanted = (p for p in images if split is None or _gt_rain_split(p.parent, root) == split)
    folders = scene_folders(wanted)
    for folder, scene in folders.items():
        for path in scene.other:
            defects.note("image that is neither *R-* nor *C-000*, left out", path.name)
        if not scene.rainy:
            defects.note("folder without rainy images", folder.relative_to(root).as_posix())
    scenes = {folder: scene for folder, scene in folders.items() if scene.rainy}
    if not scenes:
        raise DatasetError(
            f"{root}: no folder with images *R-*.png below it; expected GT-RAIN_SPLIT/SCENE"
        )
    return scenes


def _gt_rain_split(folder: Path, root: Path) -> str | None:
    for part in (root.name.casefold(), *parts_below(folder / "x", root)):
        match = re.fullmatch(r"gt-rain_(train|val|test)", part)
        if match:
            return match[1]
    return None


def read_coco350(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read MSPFN's rain on COCO images, with the boxes of COCO."""
    return _read_joined("coco350", root, options, {})


def read_bdd350(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read MSPFN's rain on BDD100K images, with the boxes of BDD100K."""
    return _read_joined("bdd350", root, options, {})


def read_bdd350_night(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read the night images of BDD350, as selected by CST-Net."""
    return _read_joined("bdd350-night", root, options, {"timeofday": "night"})


def _read_joined(
    name: str, root: Path, options: AdapterOptions, known: Mapping[str, str]
) -> AdaptedSet:
    if options.annotations is None:
        raise DatasetError(
            f"{name} comes without usable boxes: give those of the original set with "
            "--annotations FILE (COCO: instances_*.json; BDD100K: det_*.json)"
        )
    defects = Defects()
    rainy_folder = options.images or subfolder(root, *RAINY_FOLDERS) or root
    clean_folder = options.clean or (
        subfolder(root, *_CLEAN_FOLDERS) if rainy_folder != root else None
    )
    rainy = images_by_key(rainy_folder, "rainy", defects)
    rainy = keep_allowed(rainy, options.allow_list, defects)
    clean = _by_stem(clean_folder, defects) if clean_folder is not None else None
    by_stem = {stem_key(path.name): path for path in rainy.values()}
    if len(by_stem) < len(rainy):
        raise DatasetError(f"{rainy_folder}: several images have one stem; give one folder of them")
    pairs = pair_by_key(by_stem, clean, defects, bases=(rainy_folder, clean_folder))
    annotations = read_any(options.annotations, defects)
    records = join_by_stem({key: path for key, (path, _) in pairs.items()}, annotations, defects)
    drafts = [
        Draft(pairs[key][0], record, pairs[key][1], _attributes(key, record.attributes, known))
        for key, record in records.items()
    ]
    gathered = Gathered(
        name=name,
        rainy_base=rainy_folder,
        drafts=drafts,
        categories=annotations.categories,
        rules=conditions_of("timeofday", drafts) if not known else {},
        remarks=(_SYNTHETIC,),
        fit=fit_uniformly,
    )
    return assemble(gathered, defects)


def _by_stem(folder: Path, defects: Defects) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in images_by_key(folder, "clean", defects).values():
        if by_stem.setdefault(stem_key(path.name), path) is not path:
            defects.error("clean image with the stem of another, left out", path.name)
    return by_stem


def _attributes(stem: str, tags: Mapping[str, object], known: Mapping[str, str]) -> dict[str, str]:
    """Weather is that of the added rain; the time of day is that of the original, where tagged."""
    time = tags.get("timeofday")
    return {
        "domain": "synthetic",
        "weather": "rain",
        "scene_id": stem,
        "source_id": stem,
        **({"timeofday": str(time)} if time is not None else {}),
        **known,
    }


def read_hq_nightrain(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read every folder `input` with a folder `target` beside it; boxes are optional."""
    defects = Defects()
    annotations = read_any(options.annotations, defects) if options.annotations else None
    drafts: list[Draft] = []
    for rainy_folder in folders_named(root, "input"):
        clean_folder = subfolder(rainy_folder.parent, "target")
        if clean_folder is None:
            defects.error("folder input without a folder target beside it", str(rainy_folder))
            continue
        about = _about(rainy_folder, root)
        if options.split not in (None, about.get("split")):
            continue
        rainy = images_by_key(rainy_folder, "rainy", defects)
        clean = images_by_key(clean_folder, "clean", defects)
        pairs = pair_by_key(rainy, clean, defects, bases=(rainy_folder, clean_folder))
        drafts += _night_drafts(pairs, annotations, about, defects)
    drafts = only_allowed(drafts, options.allow_list, defects)
    gathered = Gathered(
        name="hq-nightrain",
        rainy_base=root,
        drafts=drafts,
        categories=annotations.categories if annotations else {},
        rules=conditions_of("subset", drafts),
        remarks=(_SYNTHETIC, "night frames of BDD100K: its licence holds"),
        fit=fit_uniformly,
    )
    return assemble(gathered, defects)


def _night_drafts(
    pairs: Mapping[str, tuple[Path, Path | None]],
    annotations: Annotations | None,
    about: Mapping[str, str],
    defects: Defects,
) -> list[Draft]:
    fixed = {"domain": "synthetic", "weather": "rain", "timeofday": "night", **about}
    records = None
    if annotations is not None:
        rainy = {key: path for key, (path, _) in pairs.items()}
        records = join_by_stem(rainy, annotations, defects)
    return [
        Draft(
            path,
            records[key] if records is not None else None,
            clean,
            {**fixed, "scene_id": stem_key(path.name), "source_id": stem_key(path.name)},
        )
        for key, (path, clean) in pairs.items()
        if records is None or key in records
    ]


def _about(folder: Path, root: Path) -> dict[str, str]:
    """Return the subset (RS, RD, SD) and the split that the folders above say."""
    about: dict[str, str] = {}
    for part in (root.name.casefold(), *parts_below(folder, root)):
        match = _SUBSETS.fullmatch(part)
        if match:
            about["subset"] = match[1].upper()
        if part in ("train", "val", "validation", "test"):
            about["split"] = part
    return about
