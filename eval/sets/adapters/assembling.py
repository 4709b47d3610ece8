"""The last steps of every adapter: check images and pairs, fit boxes, name conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from eval.sets.adapters.classes import aliases_for
from eval.sets.adapters.files import keep_allowed, stem_key
from eval.sets.adapters.fitting import Fit, fit_exactly
from eval.sets.adapters.model import AdaptedSet, Rules, Scene
from rainmer.data.annotations.records import Annotation, Annotations, ImageRecord, clip_to_image
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError, ImageError
from rainmer.files import match_key
from rainmer.frames.images import image_size_hw

__all__ = [
    "Draft",
    "Gathered",
    "assemble",
    "conditions_of",
    "join_by_stem",
    "match_by_path",
    "only_allowed",
    "pair_up",
]


@dataclass(frozen=True)
class Draft:
    """A scene before its files are looked at.

    `record` has boxes in the pixels that were annotated; None where the set has no boxes.
    """

    rainy: Path
    record: ImageRecord | None
    clean: Path | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What an adapter found in a folder; `assemble` makes the set of it."""

    name: str
    rainy_base: Path
    drafts: Sequence[Draft]
    categories: Mapping[int, str] = field(default_factory=dict)
    rules: Rules = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    fit: Fit = fit_exactly


def assemble(gathered: Gathered, defects: Defects) -> AdaptedSet:
    """Check every scene, leave out what is broken, and put the set together.

    Raises:
        DatasetError: No scene is left.
    """
    scenes = []
    names: set[str] = set()
    # Two seconds of silence, then a bar.
    for draft in tqdm(gathered.drafts, gathered.name, delay=2, leave=False, disable=None):
        name = draft.rainy.relative_to(gathered.rainy_base).as_posix()
        scene = _scene(name, draft, gathered.fit, defects)
        if scene is not None and match_key(name) in names:
            defects.error("rainy images that differ only in suffix or case, left out", name)
        elif scene is not None:
            names.add(match_key(name))
            scenes.append(scene)
    if not scenes:
        reasons = "; ".join(defects.lines()) or "no image was found"
        raise DatasetError(
            f"{gathered.rainy_base}: nothing usable as {gathered.name}: {reasons}; "
            "`python -m eval.sets list` shows the layout"
        )
    has_boxes = any(draft.record is not None for draft in gathered.drafts)
    return AdaptedSet(
        name=gathered.name,
        rainy_base=gathered.rainy_base,
        scenes=tuple(sorted(scenes, key=lambda scene: scene.name)),
        categories=gathered.categories,
        aliases=aliases_for(gathered.categories.values()),
        conditions=_inhabited(gathered.rules, scenes),
        has_boxes=has_boxes,
        remarks=gathered.remarks,
        defects=defects,
    )


def _scene(name: str, draft: Draft, fit: Fit, defects: Defects) -> Scene | None:
    try:
        size_hw = image_size_hw(draft.rainy)
        clean_hw = image_size_hw(draft.clean) if draft.clean is not None else size_hw
        if clean_hw != size_hw:
            defects.error(
                "rainy and clean image of different size, skipped",
                f"{name}: {size_hw[1]}x{size_hw[0]} and {clean_hw[1]}x{clean_hw[0]}",
            )
            return None
        boxes: list[Annotation] | None = []
        if draft.record is not None:
            boxes = fit(draft.rainy, draft.record, size_hw, defects)
    except ImageError as error:
        defects.error("unreadable image, skipped", f"{name}: {error}")
        return None
    if boxes is None:
        return None
    inside = tuple(clip_to_image(boxes, size_hw, name, defects))
    return Scene(name, draft.rainy, draft.clean, size_hw, inside, draft.attributes)


def _inhabited(rules: Rules, scenes: Iterable[Scene]) -> Rules:
    held = [scene.attributes for scene in scenes]
    return {
        name: rule
        for name, rule in rules.items()
        if any(all(has.get(k) == v for k, v in rule.items()) for has in held)
    }


def conditions_of(attribute: str, drafts: Iterable[Draft]) -> Rules:
    """Return a condition for each value of an attribute that the scenes have."""
    values = {draft.attributes[attribute] for draft in drafts if attribute in draft.attributes}
    return {value: {attribute: value} for value in sorted(values)}


def only_allowed(drafts: Sequence[Draft], allow_list: Path | None, defects: Defects) -> list[Draft]:
    """Keep the scenes whose rainy image an allow-list names, see `keep_allowed`."""
    paths = {draft.rainy.as_posix(): draft.rainy for draft in drafts}
    kept = keep_allowed(paths, allow_list, defects)
    return [draft for draft in drafts if draft.rainy.as_posix() in kept]


def pair_up(
    rainy: Mapping[str, Path], clean: Mapping[str, Path] | None, base: Path, defects: Defects
) -> dict[str, tuple[Path, Path | None]]:
    """Give each rainy image its clean partner of the same key; without `clean`, none.

    Rainy images without partner are errors and left out, clean ones are noted.
    """
    if clean is None:
        return {key: (path, None) for key, path in rainy.items()}
    for key in sorted(clean.keys() - rainy.keys()):
        defects.note("clean image without rainy partner", clean[key].name)
    for key in sorted(rainy.keys() - clean.keys()):
        defects.error(
            "rainy image without clean partner, skipped", rainy[key].relative_to(base).as_posix()
        )
    return {key: (path, clean[key]) for key, path in rainy.items() if key in clean}


def match_by_path(
    keys: Iterable[str], annotations: Annotations, defects: Defects
) -> dict[str, ImageRecord]:
    """Give images their records by relative path, else by file name where that is unique.

    Raises:
        DatasetError: Several images match one record.
    """
    by_name: dict[str, list[ImageRecord]] = {}
    for key, record in annotations.records.items():
        by_name.setdefault(key.rsplit("/", 1)[-1], []).append(record)
    matched: dict[str, ImageRecord] = {}
    for key in keys:
        candidates = by_name.get(key.rsplit("/", 1)[-1], [])
        found = annotations.records.get(key) or (candidates[0] if len(candidates) == 1 else None)
        if found is None:
            defects.note("image that the annotations do not list, left out", key)
        else:
            matched[key] = found
    used = {record.image_id for record in matched.values()}
    if len(used) < len(matched):
        raise DatasetError("several images match one entry of the annotations by name; use paths")
    for key, record in annotations.records.items():
        if record.image_id not in used:
            defects.note("annotated image without file", key)
    return matched


def join_by_stem(
    images: Mapping[str, Path], annotations: Annotations, defects: Defects
) -> dict[str, ImageRecord]:
    """Give images the records of a larger set by stem, see `stem_key`.

    Images that the annotations do not know are noted; annotated images that are not here are the
    rest of the larger set and no defect. A stem that several records share is an error.
    """
    by_stem: dict[str, list[ImageRecord]] = {}
    for key, record in annotations.records.items():
        by_stem.setdefault(stem_key(f"{key}.x"), []).append(record)
    matched = {}
    for key, path in images.items():
        candidates = by_stem.get(stem_key(path.name), [])
        if len(candidates) == 1:
            matched[key] = candidates[0]
        elif candidates:
            defects.error("image whose stem several annotated images have, skipped", path.name)
        else:
            defects.note("image whose stem the annotations do not have, left out", path.name)
    return matched
