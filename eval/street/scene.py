"""Drawing a whole street scene with its boxes and its depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eval.street.draw.finish import add_glows, add_haze, develop
from eval.street.draw.light import day_light, night_light
from eval.street.painting import SKY_M, Seen, paint_stage
from eval.street.world import furnish
from eval.street.world.layout import Stage, choose_camera, choose_road, place_people, place_traffic
from rainmer.frames.arrays import Frame

__all__ = ["CLASSES", "SCENES_VERSION", "SKY_M", "StreetObject", "StreetScene", "draw_scene"]

SCENES_VERSION = 1
"""Version of the scenes. Increase it when a change to the drawing changes any pixel, because the
embedded set is cached under this number."""

CLASSES = ("person", "bicycle", "car", "bus", "truck", "traffic light")
"""The annotated classes, by their COCO names."""

_LEAST_VISIBLE = 0.3
_LEAST_SIDES = (5.0, 11.0)  # shorter and longer side of a box, in a picture 640 pixels wide


@dataclass(frozen=True)
class StreetObject:
    """An annotated object.

    Attributes:
        name: One of `CLASSES`.
        box_xyxy: Tight box around the whole object, hidden parts included, clipped to the picture;
            pixels.
        visibility: Unhidden share of its pixels inside the picture, 0..1.
    """

    name: str
    box_xyxy: tuple[float, float, float, float]
    visibility: float


@dataclass(frozen=True)
class StreetScene:
    """A street scene.

    Attributes:
        image: (H, W, 3), uint8, RGB.
        depth_m: (H, W), float32, metres along the viewing direction; the sky is at `SKY_M`.
        objects: The annotated objects.
        night: Whether it is a night scene.
        seed: The seed of the scene.
    """

    image: Frame
    depth_m: npt.NDArray[np.float32]
    objects: tuple[StreetObject, ...]
    night: bool
    seed: int


def draw_scene(seed: int, *, night: bool, size_hw: tuple[int, int] = (384, 640)) -> StreetScene:
    """Draw a street scene; equal arguments give equal scenes.

    Args:
        seed: Determines everything else.
        night: Draw a night scene.
        size_hw: Height and width in pixels.
    """
    rng = np.random.default_rng([seed, int(night)])
    road = choose_road(rng)
    camera = choose_camera(rng, road, size_hw)
    light = night_light(rng) if night else day_light(rng)
    stage = Stage(rng, road, camera, light, night)
    houses = furnish.build_houses(stage)
    furnish.place_lamps(stage)
    furnish.place_signals(stage)
    place_traffic(stage)
    place_people(stage)
    trees = furnish.place_trees(stage)
    furnish.place_furniture(stage)
    painted = paint_stage(stage, houses, trees)
    picture = add_haze(painted.picture, painted.depth_m, light, SKY_M)
    glows = [glow for item in stage.items for glow in item.glows]
    add_glows(picture, painted.depth_m, camera, glows)
    image = develop(rng, picture, night)
    objects = tuple(_annotated(painted.seen, size_hw[1] / 640))
    return StreetScene(image, painted.depth_m, objects, night, seed)


def _annotated(seen: list[Seen], scale: float) -> list[StreetObject]:
    """Return the objects that are large and visible enough to be annotated."""
    objects = []
    for thing in seen:
        x0, y0, x1, y1 = thing.box_xyxy
        shorter, longer = sorted((x1 - x0, y1 - y0))
        large = shorter >= _LEAST_SIDES[0] * scale and longer >= _LEAST_SIDES[1] * scale
        if large and thing.visibility >= _LEAST_VISIBLE:
            objects.append(StreetObject(thing.name, thing.box_xyxy, thing.visibility))
    return objects
