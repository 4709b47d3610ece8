"""Houses, street furniture, trees and traffic lights of a street."""

from __future__ import annotations

import math

import numpy as np

from eval.street.draw.light import Glow, Lamp
from eval.street.draw.raster import Mesh, srgb
from eval.street.world.buildings import House, draw_house
from eval.street.world.layout import Stage
from eval.street.world.surroundings import (
    Tree,
    draw_bench,
    draw_billboard,
    draw_bin,
    draw_bollard,
    draw_lamp_post,
    draw_post_box,
    draw_shelter,
    draw_sign,
    draw_tree,
    signal_head,
    signal_post,
)

__all__ = ["build_houses", "place_furniture", "place_lamps", "place_signals", "place_trees"]

_LEAVES = ((74, 102, 44), (92, 112, 50), (60, 92, 50), (112, 116, 48))
_AUTUMN = ((176, 112, 36), (160, 76, 32), (190, 150, 52))
_SIGNALS = {"red": (1.0, 0.1, 0.05), "amber": (1.0, 0.5, 0.05), "green": (0.1, 1.0, 0.45)}


def build_houses(stage: Stage) -> list[House]:
    """Line both sides of the street with houses and gaps, from far to near."""
    rng, road = stage.rng, stage.road
    houses = []
    for side in (-1.0, 1.0):
        z = -12.0
        while z < 170:
            width = float(rng.uniform(9, 20))
            if road.junction and z < road.junction[1] and z + width > road.junction[0] - 2.5:
                if road.junction[0] - 2.5 - z > 5:
                    width = road.junction[0] - 2.5 - z
                else:
                    z = road.junction[1] + 2.5
                    continue
            elif rng.random() < 0.1:
                z += float(rng.uniform(3, 9))
                continue
            if z + width > 2:
                detailed = z < 42
                houses.append(
                    draw_house(
                        rng,
                        side,
                        road.front(side),
                        (z, z + width),
                        night=stage.night,
                        detailed=detailed,
                    )
                )
            z += width
    for house in houses:
        if house.box[0, 2] < 50:
            stage.light.lamps.extend(house.lamps)
    return sorted(houses, key=lambda house: -float(house.box[0, 2]))


def place_lamps(stage: Stage) -> None:
    """Put street lamps along the kerbs; at night they shine."""
    rng, road = stage.rng, stage.road
    height, gap = float(rng.uniform(6.0, 8.5)), float(rng.uniform(20, 30))
    reach = min(2.2, road.kerb * 0.4)
    tints = ((1.0, 0.62, 0.27), (1.0, 0.82, 0.56), (0.92, 0.96, 1.0))
    tint = np.array(tints[int(rng.choice(3, p=[0.4, 0.4, 0.2]))])
    both = rng.random() < 0.6
    start = float(rng.uniform(2, gap))
    power = height**2 * float(rng.uniform(1.5, 3.0))
    for number, z in enumerate(np.arange(start - gap, 125, gap)):
        for side in (-1.0, 1.0) if both else ((-1.0) ** number,):
            shift = gap / 2 if both and side > 0 else 0.0
            mesh, bulb = draw_lamp_post(height, reach, stage.night, tint)
            x, at = side * (road.kerb + 0.5), z + shift
            heading = math.pi if side > 0 else 0.0
            lens = np.array([x - side * bulb[0], bulb[1], at])
            if at > 2.5 and _clear(stage, at):
                glows = [Glow(lens, tint, 6.0)] if stage.night else []
                stage.occupy(x, at, 0.15, 0.15)
                stage.add(mesh.moved((x, 0.1, at), heading), glows=glows)
            if stage.night and at < 100:
                down = np.array([0.0, -1.0, 0.0])
                stage.light.lamps.append(Lamp(lens - [0, 0.1, 0], down, tint * power, 1))


def _clear(stage: Stage, z: float) -> bool:
    """Tell whether there is a kerb at z rather than a cross street."""
    junction = stage.road.junction
    return junction is None or not junction[0] - 0.5 < z < junction[1] + 0.5


def place_trees(stage: Stage) -> list[Tree]:
    """Plant trees along the kerbs."""
    rng, road = stage.rng, stage.road
    if rng.random() < 0.25:
        return []
    leaves = _AUTUMN if rng.random() < 0.2 else _LEAVES
    tint = srgb(*leaves[rng.integers(len(leaves))])
    trees = []
    sides = [(-1.0,), (1.0,), (-1.0, 1.0)][int(rng.integers(3))]
    for side in sides:
        gap = float(rng.uniform(9, 16))
        for z in np.arange(float(rng.uniform(5, 12)), 95, gap):
            x = side * (road.kerb + 0.9)
            if rng.random() < 0.25 or not _clear(stage, z) or not stage.occupy(x, z, 0.3, 0.3):
                continue
            foot = np.array([x, 0.12, z + float(rng.normal(0, 0.5))])
            eye = stage.camera.position
            tree = draw_tree(rng, foot, eye, tint * rng.uniform(0.85, 1.15), math.exp(-z / 30))
            trees.append(tree)
            stage.add(tree.mesh)
            stage.items[-1].footprint = foot + np.array(
                [(-0.3, 0, -0.3), (0.3, 0, -0.3), (0.3, 0, 0.3), (-0.3, 0, 0.3)]
            )
    return trees


def place_furniture(stage: Stage) -> None:
    """Scatter signs, bins, bollards, boxes, benches, a shelter and a billboard."""
    rng, road = stage.rng, stage.road

    def put(
        mesh: Mesh,
        offset: float,
        z: float,
        half: tuple[float, float],
        side: float,
        turn: float = 0.0,
    ) -> None:
        x = side * (road.kerb + offset)
        if _clear(stage, z) and stage.occupy(x, z, *half):
            shade = (half[0] * 0.9, half[1] * 0.9) if half[0] > 0.1 else None
            stage.add(mesh.moved((x, 0.12, z), turn), shade=shade)

    for _ in range(int(rng.integers(1, 5))):
        side = float(rng.choice([-1, 1]))
        # A sign on the left faces oncoming traffic, so only its back is visible.
        put(
            draw_sign(rng),
            0.5,
            float(rng.uniform(7, 45)),
            (0.1, 0.1),
            side,
            0.0 if side > 0 else math.pi,
        )
    for draw, half, share in (
        (draw_bin, (0.32, 0.35), 0.6), (draw_post_box, (0.25, 0.22), 0.3),
        (draw_bench, (0.3, 0.9), 0.3),
    ):  # fmt: skip
        while rng.random() < share:
            side = float(rng.choice([-1, 1]))
            turn = 0.0 if side > 0 else math.pi
            put(draw(rng), 0.75, float(rng.uniform(6, 28)), half, side, turn)
    if rng.random() < 0.35:
        side, z = float(rng.choice([-1, 1])), float(rng.uniform(5, 14))
        for number in range(int(rng.integers(2, 7))):
            put(draw_bollard(rng), 0.4, z + number * 1.6, (0.1, 0.1), side)
    if rng.random() < 0.25:
        side = float(rng.choice([-1, 1]))
        put(
            draw_shelter(rng, stage.night),
            1.7,
            float(rng.uniform(10, 28)),
            (0.9, 2.2),
            side,
            0.0 if side > 0 else math.pi,
        )
    if rng.random() < 0.2:
        side = float(rng.choice([-1, 1]))
        put(
            draw_billboard(rng, stage.night),
            road.pavement[0 if side < 0 else 1] - 2.2,
            float(rng.uniform(16, 40)),
            (2.0, 0.2),
            side,
        )


def place_signals(stage: Stage) -> None:
    """Put traffic lights at crossings."""
    rng, road = stage.rng, stage.road
    if road.crossing is None or rng.random() < 0.12:
        return
    state = str(rng.choice(["red", "amber", "green"], p=[0.45, 0.12, 0.43]))
    stop = road.crossing - 2.2
    beyond = (road.junction[1] + 1.0) if road.junction else road.crossing + 2.4
    size = float(rng.uniform(1.15, 1.4))
    gantry = rng.random() < 0.4
    _signal(stage, (road.kerb + 0.4, stop), state, size, reach=0.0)
    if gantry:
        _signal(
            stage,
            (road.kerb + 0.45, beyond if rng.random() < 0.6 else stop + 0.3),
            state,
            size,
            reach=road.kerb * 0.8,
        )
    if rng.random() < 0.6:
        _signal(
            stage,
            (-road.kerb - 0.4, stop if rng.random() < 0.5 else beyond),
            state,
            size,
            reach=0.0,
        )
    if rng.random() < 0.5:
        _signal(stage, (-road.kerb - 0.45, beyond + 0.5), state, size, reach=0.0, away=True)


def _signal(
    stage: Stage,
    place: tuple[float, float],
    state: str,
    size: float,
    *,
    reach: float,
    away: bool = False,
) -> None:
    x, z = place
    if z < 3.5 or z > 42:
        return
    height = 5.6 if reach else 3.3
    turn = math.pi if x > 0 else 0.0
    stage.occupy(x, z + 0.2, 0.15, 0.15)
    stage.add(signal_post(height + (0.3 if reach else -0.5), reach).moved((x, 0.1, z), turn))
    spots: list[float] = [x - math.copysign(reach, x)] if reach else [x]
    if reach and reach > 3.5:
        spots.append(x - math.copysign(reach * 0.5, x))
    for at in spots:
        base = np.array([at, height - size, z - (0.0 if not reach or x < 0 else 0.4)])
        facing = math.pi if away else 0.0
        mesh = signal_head(state, size).moved(base, facing + float(stage.rng.normal(0, 0.08)))
        glows = []
        if stage.night and not away:
            level = {"red": 0.81, "amber": 0.5, "green": 0.19}[state]
            lens = base + np.array([0, level * size, -0.2])
            glows.append(Glow(lens, np.array(_SIGNALS[state]), 1.2))
        stage.add(mesh, "traffic light", glows=glows)
