"""The contents of a set in numbers: what `python -m eval.sets check` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.sets.adapters.classes import without_counterpart
from eval.sets.model import AdaptedSet, DetectionSet
from rainmer.console import printable
from rainmer.data.annotations.records import Annotation
from rainmer.data.defects import Defects

__all__ = ["Summary", "summary_of_adapted", "summary_of_loaded", "to_json", "to_lines"]

_MOST_VALUES = 12


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A set in numbers.

    Attributes:
        name: Short name.
        scenes: Number of rainy images that can be used.
        pairs: How many of them have a clean partner.
        boxes: Number of boxes by class, crowds excluded; None where pseudo-labels are the truth.
        crowds: Number of boxes that count neither way.
        empty: Number of scenes without a box.
        sizes: Number of scenes by size, as "WIDTHxHEIGHT".
        attributes: Number of scenes by attribute and value.
        conditions: Number of scenes by condition.
        aliases: Class names that COCO detectors call differently.
        unmatched: Class names that COCO detectors do not know.
        remarks: Warnings about the set.
        defects: All defects of the set.
    """

    name: str
    scenes: int
    pairs: int
    boxes: Mapping[str, int] | None
    crowds: int
    empty: int
    sizes: Mapping[str, int]
    attributes: Mapping[str, Mapping[str, int]]
    conditions: Mapping[str, int]
    aliases: Mapping[str, str]
    unmatched: Sequence[str]
    remarks: Sequence[str]
    defects: Defects


def summary_of_adapted(data: AdaptedSet) -> Summary:
    """Count what an adapter found."""
    names = sorted({name for scene in data.scenes for name in scene.attributes})
    values = {
        name: Counter(s.attributes[name] for s in data.scenes if name in s.attributes)
        for name in names
    }
    boxes = [box for scene in data.scenes for box in scene.boxes]
    return Summary(
        name=data.name,
        scenes=len(data.scenes),
        pairs=sum(scene.clean is not None for scene in data.scenes),
        boxes=_by_class(boxes, data.categories) if data.has_boxes else None,
        crowds=sum(box["iscrowd"] for box in boxes),
        empty=sum(not scene.boxes for scene in data.scenes),
        sizes=_sizes(scene.size_hw for scene in data.scenes),
        attributes={name: dict(counts.most_common()) for name, counts in values.items()},
        conditions={name: len(data.members(name)) for name in data.conditions},
        aliases=data.aliases,
        unmatched=without_counterpart(data.categories.values()),
        remarks=data.remarks,
        defects=data.defects,
    )


def summary_of_loaded(data: DetectionSet) -> Summary:
    """Count what a loaded set holds: its conditions, but not the attributes of its images."""
    boxes = data.annotations
    known = {name for name in data.categories.values() if name not in data.aliases}
    return Summary(
        name=data.name,
        scenes=len(data.samples),
        pairs=sum(sample.clean is not None for sample in data.samples),
        boxes=_by_class(boxes, data.categories) if boxes is not None else None,
        crowds=sum(box["iscrowd"] for box in boxes or ()),
        empty=len(data.samples) - len({box["image_id"] for box in boxes or ()}),
        sizes=_sizes(sample.size_hw for sample in data.samples),
        attributes={},
        conditions={name: len(ids) for name, ids in data.conditions.items()},
        aliases=data.aliases,
        unmatched=without_counterpart(sorted(known)),
        remarks=(),
        defects=data.defects,
    )


def _by_class(boxes: Iterable[Annotation], categories: Mapping[int, str]) -> dict[str, int]:
    counts = Counter(box["category_id"] for box in boxes if not box["iscrowd"])
    return {name: counts[number] for number, name in sorted(categories.items())}


def _sizes(sizes_hw: Iterable[tuple[int, int]]) -> dict[str, int]:
    return dict(Counter(f"{width}x{height}" for height, width in sizes_hw).most_common())


def to_json(summary: Summary) -> dict[str, Any]:
    """Return plain data: every field, defects in full."""
    plain = {k: v for k, v in vars(summary).items() if k != "defects"}
    return {**plain, **vars(summary.defects)}


def to_lines(summary: Summary) -> Iterator[str]:
    """Yield the lines of the text: counts first, then every defect with all its subjects."""
    yield f"{summary.name}: {summary.scenes} scenes, {summary.pairs} with a clean partner"
    if summary.boxes is None:
        yield "boxes: none; pseudo-labels from the clean images are the truth"
    else:
        total = sum(summary.boxes.values())
        yield f"boxes: {total}, crowds: {summary.crowds}, scenes without a box: {summary.empty}"
        yield from _table(summary.boxes, summary)
    yield f"sizes: {_counts(summary.sizes)}"
    for name, values in summary.attributes.items():
        if name != "source_id":  # one for each image, or nearly so
            yield f"{name}: {_counts(values)}"
    if summary.conditions:
        yield f"conditions: {_counts(summary.conditions)}"
    for remark in summary.remarks:
        yield f"remark: {remark}"
    yield from _defects("error", summary.defects.errors)
    yield from _defects("repaired", summary.defects.repairs)
    yield from _defects("note", summary.defects.notes)


def _table(boxes: Mapping[str, int], summary: Summary) -> Iterator[str]:
    width = max((len(name) for name in boxes), default=0)
    for name, count in boxes.items():
        remark = ""
        if name in summary.aliases:
            remark = f"  as {summary.aliases[name]}"
        elif name in summary.unmatched:
            remark = "  no class of COCO detectors"
        yield f"  {name:{width}}  {count:7d}{remark}"


def _counts(counts: Mapping[str, int]) -> str:
    if len(counts) > _MOST_VALUES:
        return f"{len(counts)} different"
    return ", ".join(f"{value} ({count})" for value, count in counts.items())


def _defects(degree: str, kinds: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for kind, subjects in kinds.items():
        yield f"{degree}: {kind}: {len(subjects)}"
        for subject in subjects:
            yield f"  {printable(subject)}"
