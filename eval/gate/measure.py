"""What deraining changes in a frame for a detector: objects found and lost, beside the readings."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detection.types import Detections, Detector
from eval.scores.errors import box_overlaps
from rainmer.data.annotations.coco import read_coco
from rainmer.data.annotations.records import Annotation
from rainmer.data.defects import Defects
from rainmer.data.depth import find_depth, read_depth
from rainmer.errors import DatasetError
from rainmer.files import match_key
from rainmer.frames.arrays import Frame, to_batch, to_frames, upload
from rainmer.frames.images import list_images, read_image
from rainmer.meter.features import meter_views, view_statistics
from rainmer.meter.samples import KINDS, render_kind, split_of
from rainmer.models.rainmer import ViewEncoder
from rainmer.stage import Derainer

__all__ = [
    "DRY",
    "UNMEASURED",
    "Scene",
    "Trial",
    "dry_trials",
    "find_scenes",
    "matched",
    "measure_scenes",
]

DRY, UNMEASURED = "dry", "dry, not measured"
_HALF = 0.5  # least overlap of a box with its object
_BY_DAY = (
    *(DRY, "day", "day-heavy", "drizzle", "windscreen", "spray", "streaks", "layers", "lens"),
    "haze",
)
_BY_NIGHT = (
    *(DRY, "night", "night-heavy", "night-lens", "night-windscreen", "layers", "streaks"),
    "night-haze",
)


@dataclass(frozen=True)
class Scene:
    """A dry picture with boxes, of which the detector knows the classes.

    Attributes:
        path: The picture.
        boxes: COCO annotations with `bbox` and the detector's `label`; None: what the detector
            finds in the clean picture counts as the truth.
        depth: Its depth map, if there is one.
        night: Whether it is of the night.
    """

    path: Path
    boxes: Sequence[Annotation] | None
    depth: Path | None
    night: bool


@dataclass(frozen=True)
class Trial:
    """A frame before and after deraining.

    Attributes:
        name: Of the picture.
        kind: `dry`, or a name of `KINDS`.
        rate_mm_h: The rain's.
        objects: Number of objects.
        found, gained, lost: Objects found in the rainy frame; found only after, only before.
        false_before, false_after: Detections without an object.
        statistics: What the meter's head is given.
    """

    name: str
    kind: str
    rate_mm_h: float
    objects: int
    found: int
    gained: int
    lost: int
    false_before: int
    false_after: int
    statistics: list[float]

    @property
    def net(self) -> int:
        """Objects gained minus objects lost."""
        return self.gained - self.lost


def find_scenes(folder: Path, names: dict[int, str]) -> list[Scene]:
    """Find the pictures of a folder that did not train the meter.

    `FOLDER/images`, `FOLDER/instances.json` and `FOLDER/depth`, as `python -m eval.street` writes
    them; or a folder of pictures alone. Night is what lies below a folder `night`.

    Raises:
        DatasetError: There is none.
    """
    images = folder / "images" if (folder / "images").is_dir() else folder
    instances, depths = folder / "instances.json", folder / "depth"
    truth = read_coco(instances, Defects()) if instances.is_file() else None
    labels = {name.lower(): label for label, name in names.items()}
    scenes = []
    for path in list_images(images):
        if split_of(path) == "train":
            continue
        boxes = None
        if truth is not None:
            record = truth.find(match_key(path.name))
            boxes = [
                {**box, "label": labels[name]}
                for box in (record.boxes if record else ())
                if (name := truth.categories[box["category_id"]].lower()) in labels
            ]
        depth = find_depth(depths, path.stem) if depths.is_dir() else None
        scenes.append(Scene(path, boxes, depth, "night" in path.parts))
    if not scenes:
        raise DatasetError(f"{folder} holds no pictures that the meter was not trained on")
    return scenes


def measure_scenes(
    scenes: Sequence[Scene],
    derainer: Derainer,
    detector: Detector,
    encoder: ViewEncoder,
    *,
    seed: int = 0,
) -> Iterator[Trial]:
    """Yield a trial for each scene, under the kinds of rain in turn."""
    turns = {False: 0, True: 0}
    for scene in scenes:
        kinds = _BY_NIGHT if scene.night else _BY_DAY
        kind = kinds[turns[scene.night] % len(kinds)]
        turns[scene.night] += 1
        clean, rainy, rate = _pictures(scene, kind, seed)
        boxes = scene.boxes
        if boxes is None:
            boxes = _as_boxes(detector([clean])[0])
        before, after = detector([rainy, derainer(rainy)])
        found, false_before = matched(before, boxes)
        found_after, false_after = matched(after, boxes)
        statistics = view_statistics(encoder, *meter_views(upload([rainy])))
        yield Trial(
            name=scene.path.name,
            kind=kind,
            rate_mm_h=round(rate, 2),
            objects=len(boxes),
            found=len(found),
            gained=len(found_after - found),
            lost=len(found - found_after),
            false_before=false_before,
            false_after=false_after,
            statistics=[float(f"{value:.6g}") for value in statistics[0].tolist()],
        )


def dry_trials(folder: Path, encoder: ViewEncoder) -> Iterator[Trial]:
    """Yield trials of dry frames without a run of the network: they count as if nothing changed.

    Raises:
        DatasetError: The folder holds no frames that did not train the meter.
    """
    for scene in find_scenes(folder, {}):
        statistics = view_statistics(encoder, *meter_views(upload([read_image(scene.path)])))
        yield Trial(
            scene.path.name, UNMEASURED, 0.0, 0, 0, 0, 0, 0, 0, [*map(float, statistics[0])]
        )


def _pictures(scene: Scene, kind: str, seed: int) -> tuple[Frame, Frame, float]:
    """Return the clean and the rainy picture, and the rate."""
    frame = read_image(scene.path)
    if kind == DRY:
        return frame, frame, 0.0
    depth = None if scene.depth is None else torch.from_numpy(read_depth(scene.depth))[None, None]
    draw = random.Random(f"{seed} {scene.path.name}")
    rendered = render_kind(kind, to_batch([frame]), scene.path.name, draw, seed=seed, depth_m=depth)
    rate = float(rendered.rate_mm_h) if KINDS[kind][0] not in ("streaks", "layers") else 0.0
    return to_frames(rendered.clean)[0], to_frames(rendered.rainy)[0], rate


def _as_boxes(detections: Detections) -> list[dict[str, Any]]:
    corners = detections.boxes_xyxy
    sides = corners[:, 2:] - corners[:, :2]
    return [
        {"bbox": [*map(float, corner[:2]), *map(float, side)], "label": int(label)}
        for corner, side, label in zip(corners, sides, detections.labels, strict=True)
    ]


def matched(detections: Detections, objects: Sequence[Annotation]) -> tuple[set[int], int]:
    """Return the objects that are found, and the number of detections without one.

    In the order of their scores, each detection takes the free object of its class that it overlaps
    most, by half at least.
    """
    ordered = detections.select((-detections.scores).argsort(kind="stable"))
    items = _as_boxes(ordered)
    overlaps = box_overlaps(items, objects)
    found: set[int] = set()
    false = 0
    for index, item in enumerate(items):
        best, least = None, _HALF
        for other, candidate in enumerate(objects):
            if candidate["label"] != item["label"] or other in found:
                continue
            if float(overlaps[index, other]) >= least:
                best, least = other, float(overlaps[index, other])
        if best is None:
            false += 1
        else:
            found.add(best)
    return found, false
