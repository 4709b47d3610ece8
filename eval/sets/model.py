"""A detection set in memory: samples, boxes, conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.config import nearest
from rainmer.data.annotations.records import Annotation
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError

__all__ = ["ALL", "DetectionSet", "Sample"]


ALL = "all"
"""The condition that every image belongs to."""


@dataclass(frozen=True)
class Sample:
    """One scene: the rainy image, its clean partner if there is one, and its size."""

    key: str
    """Path of the rainy image relative to its folder: its name in every result."""
    image_id: int
    rainy: Path
    clean: Path | None
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
