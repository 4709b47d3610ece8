"""Rain added to images of COCO and BDD100K: boxes are joined from the original sets by stem.

COCO350, BDD350: K. Jiang et al., Multi-Scale Progressive Fusion Network for Single Image Deraining,
CVPR 2020. BDD350-Night, HQ-NightRain: Q. Guan et al., Rethinking Nighttime Image Deraining via
Learnable Color Space Transformation, NeurIPS 2025.
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
    pair_up,
)
from eval.sets.adapters.files import (
    child,
    folders_named,
    images_by_key,
    keep_allowed,
    parts_below,
    stem_key,
)
from eval.sets.adapters.fitting import fit_uniformly
from eval.sets.adapters.model import AdaptedSet, AdapterOptions
from eval.sets.adapters.sources import read_any
from rainmer.data.annotations.records import Annotations
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError

__all__ = ["read_bdd350", "read_bdd350_night", "read_coco350", "read_hq_nightrain"]

_RAINY = ("input", "rainy", "rain")
_CLEAN = ("target", "gt", "clean", "norain", "groundtruth")
_SUBSETS = re.compile(r"(?:.*[-_])?(rs|rd|sd)")
_SYNTHETIC = "rain is synthetic: objects that it hides wholly still count as missed"


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
    rainy_folder = options.images or child(root, *_RAINY) or root
    clean_folder = options.clean or (child(root, *_CLEAN) if rainy_folder != root else None)
    rainy = images_by_key(rainy_folder, "rainy", defects)
    rainy = keep_allowed(rainy, options.allow_list, defects)
    clean = _by_stem(clean_folder, defects) if clean_folder is not None else None
    by_stem = {stem_key(path.name): path for path in rainy.values()}
    if len(by_stem) < len(rainy):
        raise DatasetError(f"{rainy_folder}: several images have one stem; give one folder of them")
    pairs = pair_up(by_stem, clean, rainy_folder, defects)
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
    found: dict[str, Path] = {}
    for path in images_by_key(folder, "clean", defects).values():
        if found.setdefault(stem_key(path.name), path) is not path:
            defects.error("clean image with the stem of another, left out", path.name)
    return found


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
        clean_folder = child(rainy_folder.parent, "target")
        if clean_folder is None:
            defects.error("folder input without a folder target beside it", str(rainy_folder))
            continue
        about = _about(rainy_folder, root)
        if options.split not in (None, about.get("split")):
            continue
        rainy = images_by_key(rainy_folder, "rainy", defects)
        clean = images_by_key(clean_folder, "clean", defects)
        pairs = pair_up(rainy, clean, rainy_folder, defects)
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
