"""Houses along a street: façades with windows, balconies, shops and doors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.street.draw.camera import Floats
from eval.street.draw.light import Lamp
from eval.street.draw.raster import Mesh, srgb

__all__ = ["House", "draw_house"]

_WALLS = (
    (196, 178, 150), (168, 96, 74), (206, 200, 188), (150, 138, 124), (182, 150, 116),
    (126, 72, 58), (170, 176, 178), (214, 190, 142), (140, 150, 148), (188, 160, 160),
    (224, 216, 196), (110, 104, 100),
)  # fmt: skip
_ROOFS = ((110, 58, 44), (70, 70, 76), (86, 62, 52))
_SHOPS = (
    (170, 40, 36),
    (30, 78, 120),
    (40, 96, 70),
    (224, 196, 70),
    (44, 44, 48),
    (120, 60, 110),
    (226, 226, 220),
)
_WARM = ((255, 196, 120), (255, 214, 150), (255, 236, 200), (236, 240, 255), (255, 176, 96))


@dataclass
class House:
    """A house: its mesh, its box (2, 3) for shadows, and the lamps of its shop windows."""

    mesh: Mesh
    box: Floats
    lamps: list[Lamp] = field(default_factory=list)


@dataclass
class _Front:
    """The street side of a house: the plane x = side * distance, from z0 to z1."""

    mesh: Mesh
    side: float
    distance: float
    z0: float
    z1: float
    height: float
    rng: np.random.Generator
    night: bool

    def __post_init__(self) -> None:
        self.normal = np.array([[-self.side, 0.0, 0.0]])

    def add(
        self, z0: Any, z1: Any, y0: Any, y1: Any, albedo: Any, order: float, *,  # noqa: ANN401
        out: float = 0.0, emission: Any = 0.0, gloss: float = 0.0,  # noqa: ANN401
    ) -> None:  # fmt: skip
        """Add rectangles on the front, `out` metres in front of it."""
        quads = np.empty((max(np.size(z0), np.size(z1), np.size(y0), np.size(y1)), 4, 3))
        quads[:, :, 0] = self.side * (self.distance - out)
        quads[:, 0, 1] = quads[:, 1, 1] = y0
        quads[:, 2, 1] = quads[:, 3, 1] = y1
        quads[:, 0, 2] = quads[:, 3, 2] = z0
        quads[:, 1, 2] = quads[:, 2, 2] = z1
        self.mesh.add(quads, albedo, emission=emission, gloss=gloss, order=order,
                      normals=self.normal, casts=False)  # fmt: skip


def draw_house(
    rng: np.random.Generator, side: float, distance: float, span: tuple[float, float], *,
    night: bool, detailed: bool,
) -> House:  # fmt: skip
    """Draw a house.

    Args:
        rng: Chooses its style.
        side: -1 left, 1 right of the street.
        distance: Metres from the middle of the road to its front.
        span: z of its ends in metres.
        night: Light some windows.
        detailed: Add frames and sills, for near houses.
    """
    floors = int(rng.choice([2, 3, 4, 5, 6, 8], p=[0.16, 0.24, 0.26, 0.18, 0.1, 0.06]))
    ground, storey = float(rng.uniform(3.6, 4.4)), float(rng.uniform(2.9, 3.4))
    height = ground + storey * (floors - 1) + float(rng.uniform(0.5, 1.1))
    wall = srgb(*_WALLS[rng.integers(len(_WALLS))]) * rng.uniform(0.75, 1.05)
    mesh = Mesh()
    z0, z1 = span
    front = _Front(mesh, side, distance, z0, z1, height, rng, night)
    far = side * (distance + 14)
    x = side * distance
    front.add(z0, z1, 0.0, height, wall, 1)
    end = [(x, 0, z0), (far, 0, z0), (far, height, z0), (x, height, z0)]
    mesh.add(end, wall * 0.92, normals=np.array([0.0, 0.0, -1.0]), order=0)
    _add_end_windows(mesh, front, end, ground, storey, floors)
    if rng.random() < 0.45 and floors <= 5:
        _add_roof(mesh, rng, (x, side, z0, z1, height))
    trim = wall * 1.25 if rng.random() < 0.6 else wall * 0.7
    front.add(z0, z1, height - 0.35, height, np.clip(trim, 0, 0.9), 2, out=0.02)
    front.add(z0, z1, ground - 0.25, ground, np.clip(trim, 0, 0.9), 2, out=0.02)
    front.add(z0, z1, 0, 0.55, wall * 0.5, 2, out=0.02)
    _add_windows(front, ground, storey, floors, trim, detailed)
    lamps = _add_ground_floor(front, ground, wall, detailed)
    low, high = sorted((x, far))
    return House(mesh, np.array([[low, 0.0, z0], [high, height, z1]]), lamps)


def _add_roof(
    mesh: Mesh, rng: np.random.Generator, place: tuple[float, float, float, float, float]
) -> None:
    x, side, z0, z1, height = place
    rise, back = float(rng.uniform(2.0, 3.5)), side * 6.5
    colour = srgb(*_ROOFS[rng.integers(len(_ROOFS))])
    eave = x - side * 0.35
    slope = [(eave, height - 0.1, z0), (eave, height - 0.1, z1), (x + back, height + rise, z1),
             (x + back, height + rise, z0)]  # fmt: skip
    up = np.array([-side * rise, 6.5, 0.0])
    mesh.add(slope, colour, normals=up / np.linalg.norm(up), order=3)
    gable = [(x, height, z0), (x + 2 * back, height, z0), (x + back, height + rise, z0)]
    mesh.add(gable, colour * 0.8, normals=np.array([0.0, 0.0, -1.0]), order=0)
    for z in np.arange(z0 + 1.5, z1 - 1.5, float(rng.uniform(3, 6))):
        part = np.array([0.25, 0.6])
        xs, ys = x + back * part, height + rise * part
        ys = ys + 0.05
        pane = [(xs[0], ys[0], z), (xs[0], ys[0], z + 0.9), (xs[1], ys[1], z + 0.9),
                (xs[1], ys[1], z)]  # fmt: skip
        mesh.add(pane, srgb(40, 46, 54), gloss=0.8, normals=up / np.linalg.norm(up), order=4)


def _lit_panes(rng: np.random.Generator, count: int, share: float) -> Floats:
    """Return the light of windows, (n, 3); most are dark."""
    lit = rng.random(count) < share
    colours = np.array([srgb(*levels) for levels in _WARM])[rng.integers(len(_WARM), size=count)]
    strength = rng.uniform(0.12, 0.85, count) ** 1.5
    return np.asarray(colours * (lit * strength)[:, None])


def _add_end_windows(
    mesh: Mesh, front: _Front, end: list[tuple[float, float, float]], ground: float, storey: float,
    floors: int,
) -> None:  # fmt: skip
    x0 = end[0][0]
    for floor in range(1, floors):
        y = ground + (floor - 1) * storey + 0.9
        for offset in (2.0, 5.0, 8.0):
            if front.rng.random() < 0.6:
                xs = (x0 + front.side * offset, x0 + front.side * (offset + 1.0))
                pane = [
                    (xs[0], y, front.z0),
                    (xs[1], y, front.z0),
                    (xs[1], y + 1.3, front.z0),
                    (xs[0], y + 1.3, front.z0),
                ]
                glow = _lit_panes(front.rng, 1, 0.3)[0] if front.night else 0.0
                mesh.add(pane, srgb(46, 54, 62), emission=glow, gloss=0.5,
                         normals=np.array([0.0, 0.0, -1.0]), order=0.5)  # fmt: skip


def _add_windows(
    front: _Front, ground: float, storey: float, floors: int, trim: Floats, detailed: bool
) -> None:
    """Add a grid of windows with frames, sills, curtains and some balconies."""
    rng = front.rng
    bay = float(rng.uniform(2.3, 3.6))
    count = max(1, int((front.z1 - front.z0) / bay))
    bay = (front.z1 - front.z0) / count
    wide = bay * float(rng.uniform(0.36, 0.62))
    low, tall = float(rng.uniform(0.5, 0.95)), float(rng.uniform(1.4, 1.9))
    z = front.z0 + (np.arange(count) + 0.5) * bay - wide / 2
    y = ground + np.arange(floors - 1) * storey + low
    z0, y0 = (grid.ravel() for grid in np.meshgrid(z, y))
    n = len(z0)
    if n == 0:
        return
    if detailed:
        frame = np.clip(trim * 1.1, 0, 0.85)
        front.add(z0 - 0.1, z0 + wide + 0.1, y0 - 0.1, y0 + tall + 0.12, frame, 3, out=0.01)
        front.add(z0 - 0.16, z0 + wide + 0.16, y0 - 0.2, y0 - 0.08, frame * 0.8, 3.1, out=0.06)
    shade = rng.uniform(0.5, 1.8, (n, 1))
    glow = _lit_panes(rng, n, float(rng.uniform(0.12, 0.5))) if front.night else np.zeros((n, 3))
    front.add(z0, z0 + wide, y0, y0 + tall, srgb(44, 52, 62) * shade, 4, emission=glow, gloss=0.7)
    curtained = rng.random(n) < 0.45
    if curtained.any():
        part = wide * rng.uniform(0.2, 0.5, curtained.sum())
        cloth = srgb(214, 208, 196) * rng.uniform(0.4, 0.85, (curtained.sum(), 1))
        for left in (z0[curtained], z0[curtained] + wide - part):
            front.add(left, left + part, y0[curtained], y0[curtained] + tall, cloth, 4.2,
                      emission=glow[curtained] * 0.35)  # fmt: skip
    if detailed:
        top = y0 + tall
        front.add(z0, z0 + wide, top - 0.16, top, srgb(24, 26, 30), 4.4)
        middle = z0 + wide / 2
        front.add(middle - 0.035, middle + 0.035, y0, top, np.clip(trim, 0, 0.8), 4.5)
        front.add(
            z0, z0 + wide, y0 + tall * 0.66, y0 + tall * 0.66 + 0.05, np.clip(trim, 0, 0.8), 4.5
        )
    if rng.random() < 0.3:
        _add_balconies(front, z0 - 0.4, z0 + wide + 0.4, y0 - low, rng.random(n) < 0.4, detailed)


def _add_balconies(
    front: _Front,
    z0: Floats,
    z1: Floats,
    y: Floats,
    chosen: npt.NDArray[np.bool_],
    detailed: bool,
) -> None:
    rail = srgb(46, 48, 52)
    z0, z1, y = z0[chosen], z1[chosen], y[chosen]
    for a, b, level in zip(z0, z1, y, strict=True):
        xs = sorted((front.side * front.distance, front.side * (front.distance - 0.9)))
        front.mesh.add_box(
            (xs[0], level - 0.12, a), (xs[1], level, b), srgb(168, 164, 156), order=6
        )
    if not len(z0):
        return
    front.add(z0, z1, y + 0.9, y + 0.98, rail, 8, out=0.9)
    if detailed:
        steps = np.arange(0.0, 1.0, 0.07)
        bars = (z0[:, None] + (z1 - z0)[:, None] * steps).ravel()
        levels = np.repeat(y, len(steps))
        front.add(bars, bars + 0.05, levels, levels + 0.95, rail, 8, out=0.9)
    else:
        front.add(z0, z1, y, y + 0.9, rail * 1.6, 7, out=0.9)


def _add_ground_floor(front: _Front, ground: float, wall: Floats, detailed: bool) -> list[Lamp]:
    """Add shops, doors and windows at street level; return the lamps of lit shop windows."""
    rng, lamps = front.rng, []
    shops = rng.random() < 0.6
    z = front.z0 + 0.4
    while z < front.z1 - 1.2:
        if shops and front.z1 - z > 3.5 and rng.random() < 0.85:
            width = min(float(rng.uniform(3.5, 7.0)), front.z1 - z - 0.3)
            lamp = _add_shop(front, z, width, ground, detailed)
            if lamp is not None:
                lamps.append(lamp)
            z += width + 0.35
        elif rng.random() < 0.35:
            door = srgb(*rng.choice([(70, 48, 34), (40, 62, 50), (96, 30, 30), (50, 54, 60)]))
            front.add(z, z + 1.3, 0.0, 2.6, np.clip(wall * 1.3, 0, 0.8), 3)
            front.add(z + 0.12, z + 1.18, 0.0, 2.15, door, 4)
            glow = _lit_panes(rng, 1, 0.7)[0] if front.night else 0.0
            front.add(z + 0.12, z + 1.18, 2.2, 2.5, srgb(60, 66, 72), 4, emission=glow)
            z += 1.9
        else:
            glow = _lit_panes(rng, 1, 0.35)[0] if front.night else 0.0
            front.add(z, z + 1.5, 0.95, 2.65, np.clip(wall * 1.3, 0, 0.8), 3)
            front.add(z + 0.12, z + 1.38, 1.07, 2.53, srgb(40, 46, 54), 4, emission=glow, gloss=0.6)
            z += 2.4
    return lamps


def _add_shop(front: _Front, z: float, width: float, ground: float, detailed: bool) -> Lamp | None:
    rng = front.rng
    colour = srgb(*_SHOPS[rng.integers(len(_SHOPS))])
    open_late = front.night and rng.random() < 0.5
    tone = srgb(*_WARM[rng.integers(len(_WARM))])
    board = ground - 0.35
    front.add(z, z + width, 0.0, board, colour * 0.45, 3, out=0.03)
    front.add(z, z + width, board - 0.75, board, colour, 3.5, out=0.05,
              emission=colour * 0.7 + tone * 0.1 if open_late else 0.0)  # fmt: skip
    glyphs = np.arange(z + width * 0.2, z + width * 0.8, 0.42)
    glyphs = glyphs[rng.random(len(glyphs)) < 0.85]
    if len(glyphs):
        light = srgb(240, 238, 228) if colour.mean() < 0.35 else srgb(40, 40, 44)
        sizes = rng.uniform(0.14, 0.32, len(glyphs))
        front.add(glyphs, glyphs + sizes, board - 0.55, board - 0.2, light, 3.7, out=0.06,
                  emission=light * 0.9 if open_late else 0.0)  # fmt: skip
    panes = np.linspace(z + 0.12, z + width - 0.12, max(2, round(width / 1.7)) + 1)
    glow = tone * rng.uniform(0.5, 1.0, (len(panes) - 1, 1)) * float(open_late)
    front.add(panes[:-1] + 0.05, panes[1:] - 0.05, 0.35, board - 0.85, srgb(46, 54, 60), 4,
              out=0.03, emission=glow, gloss=0.9)  # fmt: skip
    goods = rng.uniform(z + 0.2, z + width - 0.9, 7)
    tops = rng.uniform(0.6, 1.7, 7)
    shades = srgb(*rng.integers(30, 220, 3)) * rng.uniform(0.3, 1.0, (7, 3))
    front.add(goods, goods + rng.uniform(0.2, 0.7, 7), 0.37, tops, shades * 0.5, 4.3, out=0.03,
              emission=shades * tone * (0.6 if open_late else 0.0))  # fmt: skip
    if rng.random() < 0.4:
        _add_awning(front, z, width, board - 0.8, colour)
    if detailed and rng.random() < 0.5:
        x = front.side * front.distance
        xs = sorted((x - front.side * 0.15, x - front.side * 0.95))
        sign = srgb(*_SHOPS[rng.integers(len(_SHOPS))])
        low, high = (xs[0], board + 0.1, z + 0.5), (xs[1], board + 0.9, z + 0.6)
        front.mesh.add_box(low, high, sign, order=9,
                           emission=sign * 0.9 if open_late else 0.0)  # fmt: skip
    if not open_late:
        return None
    place = np.array([front.side * (front.distance - 0.25), 1.9, z + width / 2])
    down = np.array([-front.side * 0.87, -0.5, 0.0])
    return Lamp(place, down, tone * 2.6 * min(width / 4, 1.4), 1)


def _add_awning(front: _Front, z: float, width: float, y: float, colour: Floats) -> None:
    x = front.side * front.distance
    stripes = np.linspace(z, z + width, max(4, int(width / 0.45)))
    near = x - front.side * 1.25
    quads = np.stack(
        [np.array([(x, y + 0.5, a), (x, y + 0.5, b), (near, y, b), (near, y, a)])
         for a, b in itertools.pairwise(stripes)]
    )  # fmt: skip
    light = np.where(np.arange(len(quads))[:, None] % 2, srgb(226, 222, 210), colour)
    up = np.array([-front.side * 0.37, 0.93, 0.0])
    front.mesh.add(quads, light, normals=up, order=8)
    edge = quads[:, [3, 2]]
    fringe = np.concatenate([edge, edge[:, ::-1] - [0, 0.22, 0]], axis=1)
    front.mesh.add(fringe, light * 0.9, normals=np.array([-front.side, 0.0, 0.0]), order=9)
