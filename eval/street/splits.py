"""The fixed test split, the unlimited training scenes, and writing scenes to files."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from tqdm import tqdm

from eval.street.scene import CLASSES, StreetObject, draw_scene
from rainmer.data.depth import write_depth
from rainmer.device import usable_cpus
from rainmer.files import make_folder, write_text
from rainmer.frames.images import write_image

__all__ = [
    "TEST",
    "TEST_DAY",
    "TEST_NIGHT",
    "SceneId",
    "train_scenes",
    "train_seed",
    "write_split",
]

_FIRST_TRAIN_SEED = 10_000
_CLEARLY_VISIBLE = 0.4
_CLEAR_SIDE_PX = 10.0  # of the shorter side of a box, in a picture 640 pixels wide


class SceneId(NamedTuple):
    """A scene: the name of its files, its seed, and day or night."""

    name: str
    seed: int
    night: bool


TEST_DAY = tuple(range(64))
"""Seeds of the day scenes of the test split."""

TEST_NIGHT = tuple(range(100, 164))
"""Seeds of the night scenes of the test split."""

TEST = tuple(
    [SceneId(f"day-{i:03d}", seed, False) for i, seed in enumerate(TEST_DAY)]
    + [SceneId(f"night-{i:03d}", seed, True) for i, seed in enumerate(TEST_NIGHT)]
)
"""The test split: 64 scenes by day, 64 by night."""


def train_seed(index: int) -> int:
    """Return the seed of training scene `index` >= 0, which differs from all test seeds."""
    if index < 0:
        raise ValueError(f"a training scene's index is 0 or more, not {index}")
    return _FIRST_TRAIN_SEED + index


def train_scenes(count: int, first: int = 0) -> tuple[SceneId, ...]:
    """Return `count` training scenes from index `first` on, alternating day and night."""
    return tuple(
        SceneId(f"train-{i:06d}", train_seed(i), bool(i % 2)) for i in range(first, first + count)
    )


def write_split(
    folder: str | os.PathLike[str],
    scenes: Sequence[SceneId] = TEST,
    *,
    size_hw: tuple[int, int] = (384, 640),
    processes: int | None = None,
    quiet: bool = False,
) -> Path:
    """Draw scenes into files: `images/NAME.png`, `depth/NAME.png`, `instances.json`.

    Images are clean; depth is in the format of `rainmer.data.depth.write_depth`. Annotations are in
    COCO format: category ids are 1-based in the order of `CLASSES`, each annotation has its
    `visibility`, small and hidden objects are crowds, and each image has
    `attributes: {time: day|night}`. `instances.json` is written last.

    Args:
        folder: Created if needed; files in it are replaced.
        scenes: The scenes to draw.
        size_hw: Height and width in pixels.
        processes: Number of processes; None: one per usable CPU.
        quiet: Show no progress.

    Returns:
        The path of `instances.json`.

    Raises:
        OutputError: The folder cannot be written.
    """
    root = make_folder(folder)
    for part in ("images", "depth"):
        make_folder(root / part)
    count = min(processes or usable_cpus(), max(len(scenes), 1))
    written = _write_scenes(root, scenes, size_hw, count)
    bar = tqdm(
        written, total=len(scenes), desc="drawing", unit="img", disable=quiet, file=sys.stderr
    )
    objects = list(bar)
    path = root / "instances.json"
    write_text(path, json.dumps(_instances(scenes, objects, size_hw)))
    return path


def _write_scenes(
    root: Path, scenes: Sequence[SceneId], size_hw: tuple[int, int], processes: int
) -> Iterator[tuple[StreetObject, ...]]:
    """Write scenes in one or more processes; yield the objects of each scene, in order."""
    write = partial(_write_scene, root, size_hw)
    if processes == 1:
        yield from map(write, scenes)
        return
    # A child forked from a process with threads may hang; spawned children do not.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(write, scenes, chunksize=4)


def _write_scene(root: Path, size_hw: tuple[int, int], scene: SceneId) -> tuple[StreetObject, ...]:
    cv2.setNumThreads(1)
    street = draw_scene(scene.seed, night=scene.night, size_hw=size_hw)
    write_image(root / "images" / f"{scene.name}.png", street.image)
    write_depth(root / "depth" / f"{scene.name}.png", street.depth_m)
    return street.objects


def _is_doubtful(thing: StreetObject, width: int) -> bool:
    """Tell whether an object is too small or too hidden to count.

    It becomes a COCO crowd, so that neither detecting nor missing it counts as an error, like the
    DontCare regions of KITTI.
    """
    x0, y0, x1, y1 = thing.box_xyxy
    side = min(x1 - x0, y1 - y0) * 640 / width
    return thing.visibility < _CLEARLY_VISIBLE or side < _CLEAR_SIDE_PX


def _instances(
    scenes: Sequence[SceneId], objects: Sequence[Sequence[StreetObject]], size_hw: tuple[int, int]
) -> dict[str, Any]:
    """Return the content of a COCO file."""
    images = [
        {
            "id": number,
            "file_name": f"{scene.name}.png",
            "height": size_hw[0],
            "width": size_hw[1],
            "attributes": {"time": "night" if scene.night else "day"},
        }
        for number, scene in enumerate(scenes, start=1)
    ]
    annotations: list[dict[str, Any]] = []
    for number, things in enumerate(objects, start=1):
        for thing in things:
            x0, y0, x1, y1 = thing.box_xyxy
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": CLASSES.index(thing.name) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(_is_doubtful(thing, size_hw[1])),
                    "visibility": round(thing.visibility, 4),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}
