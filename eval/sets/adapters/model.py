"""What an adapter takes and gives: options in, one common form of scenes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rainmer.data.annotations.records import Annotation
from rainmer.data.defects import Defects

__all__ = ["AdaptedSet", "Adapter", "AdapterOptions", "Rules", "Scene"]

Rules = Mapping[str, Mapping[str, str]]
"""Conditions by name: attribute and value, all of which must hold."""


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """What a user may say beside the folder. An adapter takes some of these, see `Adapter`."""

    images: Path | None = None
    """Folder of the rainy images, where they are not in the expected place."""
    clean: Path | None = None
    """Folder of the clean images."""
    annotations: Path | None = None
    """File or folder of the boxes."""
    split: str | None = None
    """Only this split, such as `val`; default: every split that is there."""
    weather: tuple[str, ...] = ()
    """Weathers to keep, in the words of the set; default: rain, see `Adapter.weather`."""
    allow_list: Path | None = None
    """Text file with one image name a line: only these are kept."""
    turns: Path | None = None
    """Text file with `name degrees` lines: clockwise turns from the labels to the image."""
    names: tuple[str, ...] = ()
    """Class names of YOLO labels, in the order of their numbers."""

    def given(self) -> frozenset[str]:
        """Return the names of the options that differ from their default."""
        return frozenset(
            field.name
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )


@dataclass(frozen=True)
class Scene:
    """One rainy image with what is known of it.

    Attributes:
        name: Path of the rainy image relative to the set's folder of rainy images.
        rainy: The rainy image.
        clean: The same pixels without rain, of the same size; None where there are none.
        size_hw: (height, width) of the rainy image as it is read, EXIF orientation applied.
        boxes: COCO annotations in these pixels, inside the image.
        attributes: domain, weather, timeofday, scene_id, source_id, ... as far as known.
    """

    name: str
    rainy: Path
    clean: Path | None
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
        remarks: What a user of this set should know, whatever its state.
        defects: Everything that was left out or looked odd.
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
        return tuple(
            scene for scene in self.scenes if all(scene.attributes.get(k) == v for k, v in rule)
        )


@dataclass(frozen=True)
class Adapter:
    """How one published layout is read.

    Attributes:
        description: One line.
        layout: What is expected under ROOT, one path a line.
        options: Names of the fields of `AdapterOptions` that count.
        read: Reads a folder; raises DatasetError where nothing fits.
        weather: What `AdapterOptions.weather` is when the user says nothing.
    """

    description: str
    layout: str
    options: frozenset[str]
    read: Callable[[Path, AdapterOptions], AdaptedSet]
    weather: tuple[str, ...] = ("rain",)
