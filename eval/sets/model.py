"""Annotated sets in memory: what a set file gives, and what an adapter makes of a published set.

Both are pairs of images (`rainmer.data.layouts.Pair`) with boxes and conditions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.sets.options import AdapterOptions
from rainmer.config import nearest
from rainmer.data.annotations.records import Annotation
from rainmer.data.defects import Defects
from rainmer.data.layouts import Pair
from rainmer.errors import DatasetError

__all__ = [
    "ALL",
    "AdaptedSet",
    "Adapter",
    "AdapterOptions",
    "DetectionSet",
    "Rules",
    "Sample",
    "Scene",
]

ALL = "all"
"""The condition that every image belongs to."""

Rules = Mapping[str, Mapping[str, str]]
"""Conditions by name: attribute and value, all of which must hold."""


@dataclass(frozen=True, kw_only=True)
class Sample(Pair):
    """A pair of a set that is evaluated.

    Attributes:
        image_id: Its number in the annotations.
        size_hw: (height, width) of both images.
    """

    image_id: int
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class DetectionSet:
    """A set that was read and checked.

    `annotations` is None when the truth is to be made from the clean images (pseudo-labels).
    `conditions` has image ids by name and always holds `ALL`.
    """

    name: str
    samples: tuple[Sample, ...]
    categories: Mapping[int, str]
    annotations: tuple[Annotation, ...] | None
    aliases: Mapping[str, str]
    conditions: Mapping[str, frozenset[int]]
    defects: Defects
    fingerprint: str

    @property
    def has_clean(self) -> bool:
        """Whether every rainy image has a clean partner."""
        return all(sample.clean is not None for sample in self.samples)

    def restricted(
        self, conditions: Sequence[str] | None = None, limit: int | None = None
    ) -> DetectionSet:
        """Return the set with only these conditions, and at most `limit` images.

        A limit takes images evenly spread over the sorted names, so that sets that keep day and
        night apart by name are still seen whole.

        Raises:
            DatasetError: A condition is unknown, or no image is left.
        """
        kept_conditions = dict(self.conditions)
        wanted = self.conditions[ALL]
        if conditions:
            unknown = [name for name in conditions if name not in self.conditions]
            if unknown:
                raise DatasetError(
                    f"{self.name} has no condition {unknown[0]!r}; "
                    f"{nearest(unknown[0], self.conditions)}"
                )
            wanted = frozenset().union(*(self.conditions[name] for name in conditions))
            kept_conditions = {name: self.conditions[name] for name in conditions}
        samples = [sample for sample in self.samples if sample.image_id in wanted]
        if limit is not None and limit < len(samples):
            samples = [samples[i * len(samples) // limit] for i in range(limit)]
        return self._only(samples, kept_conditions)

    def without(self, image_ids: Iterable[int]) -> DetectionSet:
        """Return the set without some images, as when they turn out to be unreadable."""
        dropped = frozenset(image_ids)
        samples = [sample for sample in self.samples if sample.image_id not in dropped]
        return self._only(samples, self.conditions)

    def _only(
        self, samples: Sequence[Sample], conditions: Mapping[str, frozenset[int]]
    ) -> DetectionSet:
        ids = frozenset(sample.image_id for sample in samples)
        if not ids:
            raise DatasetError(f"{self.name}: no image is left to evaluate")
        annotations = self.annotations
        if annotations is not None:
            annotations = tuple(a for a in annotations if a["image_id"] in ids)
        return dataclasses.replace(
            self,
            samples=tuple(samples),
            annotations=annotations,
            conditions={ALL: ids} | {n: c & ids for n, c in conditions.items() if c & ids},
        )


@dataclass(frozen=True, kw_only=True)
class Scene(Pair):
    """A pair with its boxes and attributes; both images have the same size and view.

    Attributes:
        size_hw: (height, width) of the rainy image as it is read, EXIF orientation applied.
        boxes: COCO annotations in these pixels, inside the image.
        attributes: domain, weather, timeofday, scene_id, source_id, ... as far as known.
    """

    size_hw: tuple[int, int]
    boxes: tuple[Annotation, ...]
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class AdaptedSet:
    """A published set in the common form.

    Attributes:
        name: Short name.
        rainy_base: Folder that the names of scenes are relative to.
        scenes: Sorted by name.
        categories: Names by id, from 1; empty where the set has no boxes.
        aliases: Category names that COCO detectors call differently.
        conditions: Only those that a scene belongs to.
        has_boxes: False: the truth is to be pseudo-labels from the clean images.
        remarks: Warnings about the set, for every user.
        defects: Everything that was left out or looks wrong.
    """

    name: str
    rainy_base: Path
    scenes: tuple[Scene, ...]
    categories: Mapping[int, str]
    aliases: Mapping[str, str]
    conditions: Rules
    has_boxes: bool
    remarks: tuple[str, ...]
    defects: Defects

    def members(self, condition: str) -> tuple[Scene, ...]:
        """Return the scenes of a condition."""
        rule = self.conditions[condition].items()
        return tuple(scene for scene in self.scenes if rule <= scene.attributes.items())


@dataclass(frozen=True)
class Adapter:
    """How one published layout is read.

    Attributes:
        description: One line.
        layout: Expected paths below ROOT, one per line.
        options: Names of the fields of `AdapterOptions` that count.
        read: Reads a folder; raises DatasetError where nothing fits.
        weather: Default of `AdapterOptions.weather`.
    """

    description: str
    layout: str
    options: frozenset[str]
    read: Callable[[Path, AdapterOptions], AdaptedSet]
    weather: tuple[str, ...] = ("rain",)
