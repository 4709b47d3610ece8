"""What adapters share: reading and joining annotations, checking images, fitting boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from eval.sets.adapters.classes import aliases_for
from eval.sets.adapters.files import keep_allowed, stem_key
from eval.sets.adapters.fitting import Fit, fit_exactly
from eval.sets.model import AdaptedSet, Rules, Scene
from rainmer.data.annotations.coco import read_coco
from rainmer.data.annotations.parsing import read_json
from rainmer.data.annotations.records import Annotation, Annotations, ImageRecord, clip_to_image
from rainmer.data.annotations.scalabel import read_scalabel
from rainmer.data.annotations.voc import read_voc, voc_files
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError, ImageError
from rainmer.files import match_key
from rainmer.folders import list_files
from rainmer.frames.images import image_size_hw

__all__ = [
    "Draft",
    "Gathered",
    "assemble",
    "conditions_of",
    "join_by_stem",
    "merge",
    "only_allowed",
    "read_any",
]


@dataclass(frozen=True)
class Draft:
    """A scene before its files are read.

    `record` has boxes in the pixels that were annotated; None where the set has no boxes.
    """

    rainy: Path
    record: ImageRecord | None
    clean: Path | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The content of a folder, from which `assemble` makes a set."""

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
    # The bar appears after two seconds.
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
        conditions=_used_rules(gathered.rules, scenes),
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
    return Scene(
        name=name,
        rainy=draft.rainy,
        clean=draft.clean,
        size_hw=size_hw,
        boxes=inside,
        attributes=draft.attributes,
    )


def _used_rules(rules: Rules, scenes: Iterable[Scene]) -> Rules:
    attributes = [scene.attributes for scene in scenes]
    return {
        name: rule
        for name, rule in rules.items()
        if any(rule.items() <= of_scene.items() for of_scene in attributes)
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


def join_by_stem(
    images: Mapping[str, Path], annotations: Annotations, defects: Defects
) -> dict[str, ImageRecord]:
    """Give images the records of a larger set by stem, see `stem_key`.

    Images without a record are noted; records without an image are the rest of the larger set and
    no defect. A stem that several records share is an error.
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


def read_any(path: Path, defects: Defects) -> Annotations:
    """Read a COCO or Scalabel JSON file, or a folder of VOC XML or Scalabel JSON files.

    Raises:
        DatasetError: The path is missing or holds nothing of that kind.
    """
    if path.is_dir():
        files = voc_files(path)
        if files:
            return read_voc(files, defects)
        if not list_files(path, {".json"}):
            raise DatasetError(f"{path} holds neither XML nor JSON annotations")
        return read_scalabel(path, defects)
    if _starts_a_list(path):  # these are large: BDD100K's training labels have a gigabyte
        return read_scalabel(path, defects)
    content = read_json(path)
    if isinstance(content, dict) and "frames" in content:
        return read_scalabel(path, defects)
    return read_coco(path, defects)


def _starts_a_list(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except OSError as error:
        raise DatasetError(f"cannot read the annotations {path}: {error.strerror}") from error


def merge(parts: list[Annotations]) -> Annotations:
    """Merge the annotations of several files: categories by name, new ids from 1.

    Of records with equal keys the first is kept.
    """
    names = sorted({name for part in parts for name in part.categories.values()})
    ids = {name: number for number, name in enumerate(names, start=1)}
    merged = Annotations({number: name for name, number in ids.items()}, {})
    for part in parts:
        for key, record in part.records.items():
            boxes = [
                {**box, "category_id": ids[part.categories[box["category_id"]]]}
                for box in record.boxes
            ]
            number = len(merged.records) + 1
            merged.records.setdefault(
                key, dataclasses.replace(record, image_id=number, boxes=boxes)
            )
    return merged
