"""ACDC: real driving scenes in rain, at night, in fog and in snow.

C. Sakaridis et al., ACDC: The Adverse Conditions Dataset with Correspondences, ICCV 2021.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from eval.sets.adapters.assembling import (
    Draft,
    Gathered,
    assemble,
    conditions_of,
    merge,
)
from eval.sets.adapters.files import find_folder, keep_allowed
from eval.sets.model import AdaptedSet, AdapterOptions
from rainmer.config import nearest
from rainmer.data.annotations.coco import read_coco
from rainmer.data.annotations.records import Annotations
from rainmer.data.defects import Defects
from rainmer.data.layouts.pairing import images_by_key
from rainmer.errors import ConfigError, DatasetError
from rainmer.folders import list_files

__all__ = ["read_acdc"]

CONDITIONS = ("fog", "night", "rain", "snow")

_LABELS = re.compile(
    r"instancesonly_(?:(fog|night|rain|snow)_)?(train|val)_gt_detection\.json", re.IGNORECASE
)
_REMARK = (
    "the reference images (*_rgb_ref_anon.png) show about the same place on another day: they are "
    "no pixel partners, so there is no clean row, no PSNR and no test on dry frames"
)


def read_acdc(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read the images of the wanted conditions; `--weather` chooses among CONDITIONS."""
    for weather in options.weather:
        if weather not in CONDITIONS:
            raise ConfigError(f"acdc has no condition {weather!r}; {nearest(weather, CONDITIONS)}")
    defects = Defects()
    annotations, splits = _annotations(root, options, defects)
    images = options.images or find_folder(root, "rgb_anon") or root
    wanted = _wanted_images(images, options, splits, defects)
    wanted = keep_allowed(wanted, options.allow_list, defects)
    if options.allow_list is not None:
        names = {key.rsplit("/", 1)[-1] for key in wanted}
        records = {k: r for k, r in annotations.records.items() if k.rsplit("/", 1)[-1] in names}
        annotations = Annotations(annotations.categories, records)
    matched = annotations.match(wanted, defects)
    drafts = [
        Draft(wanted[key], record, attributes=_attributes(key, splits))
        for key, record in matched.items()
    ]
    gathered = Gathered(
        name="acdc",
        rainy_base=images,
        drafts=drafts,
        categories=annotations.categories,
        rules=conditions_of("condition", drafts),
        remarks=(_REMARK,),
    )
    return assemble(gathered, defects)


def _annotations(
    root: Path, options: AdapterOptions, defects: Defects
) -> tuple[Annotations, frozenset[str]]:
    """Return the records of the wanted conditions only, and the splits that have boxes.

    The training file of `rain` lists all four conditions; the path of an image says which it is.
    """
    parts, splits, others = [], set(), Counter[str]()
    for split, path in _label_files(root, options):
        part = read_coco(path, defects)
        kept = {k: r for k, r in part.records.items() if _condition(k) in options.weather}
        others[path.name] += len(part.records) - len(kept)
        parts.append(Annotations(part.categories, kept))
        splits.add(split)
    for name, count in others.items():
        if count:
            defects.note("images of another condition in a file, left out", f"{name}: {count}")
    return merge(parts), frozenset(splits)


def _label_files(root: Path, options: AdapterOptions) -> Iterable[tuple[str, Path]]:
    given = options.annotations or root
    paths = list_files(given, {".json"}) if given.is_dir() else [given]
    labels = []
    for path in paths:
        match = _LABELS.fullmatch(path.name)
        if match is not None and options.split in (None, match[2].lower()):
            labels.append(((match[1] or "").lower(), match[2].lower(), path))
    specific = [(split, path) for weather, split, path in labels if weather in options.weather]
    # Files of all conditions serve where there is none for one.
    covered = {split for split, _ in specific}
    shared = [(split, path) for w, split, path in labels if not w and split not in covered]
    if not specific + shared:
        split = options.split or "SPLIT"
        raise DatasetError(
            f"{given}: no instancesonly_{options.weather[0]}_{split}_gt_detection.json "
            "(the test split has none); say where with --annotations"
        )
    return specific + shared


def _condition(key: str) -> str | None:
    return next((part for part in key.split("/")[:-1] if part in CONDITIONS), None)


def _wanted_images(
    folder: Path, options: AdapterOptions, splits: frozenset[str], defects: Defects
) -> dict[str, Path]:
    wanted, unlabelled = {}, Counter[str]()
    for key, path in images_by_key(folder, "rainy", defects).items():
        if key.endswith("_ref_anon") or _condition(key) not in options.weather:
            continue
        if _split(key, splits) is None:
            unlabelled["/".join(key.split("/")[:2])] += 1
            continue
        wanted[key] = path
    for name, count in unlabelled.items():
        defects.note("images of a split without boxes, left out", f"{name}: {count}")
    return wanted


def _split(key: str, splits: Iterable[str]) -> str | None:
    return next((part for part in key.split("/")[:-1] if part in splits), None)


def _attributes(key: str, splits: Iterable[str]) -> dict[str, str]:
    condition = _condition(key) or ""
    about = {"timeofday": "night"} if condition == "night" else {"weather": condition}
    return {
        "domain": "real",
        "condition": condition,
        "split": _split(key, splits) or "",
        "scene_id": key.split("/")[-2],
        "source_id": key.rsplit("/", 1)[-1],
        **about,
    }
