"""Cars and vans as shaded polygons, and the parts shared with buses and trucks.

A vehicle stands at the origin of its own axes: x across, y up, z forward.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from eval.street.draw.camera import Floats
from eval.street.draw.raster import Mesh, srgb

__all__ = [
    "DARK",
    "GLASS",
    "PLATE",
    "Bulb",
    "Vehicle",
    "add_face",
    "add_lamp_pairs",
    "add_smooth",
    "add_wheels",
    "draw_car",
    "inset",
    "pick_paint",
]

GLASS = srgb(34, 42, 50)
_TYRE = srgb(24, 24, 26)
DARK = srgb(30, 31, 34)
_LENS = srgb(215, 220, 225)
_RED = srgb(150, 18, 16)
PLATE = srgb(215, 215, 205)

_PAINTS = (
    ((232, 233, 232), 0.2), ((28, 29, 32), 0.18), ((140, 144, 148), 0.18), ((84, 88, 94), 0.12),
    ((160, 24, 26), 0.09), ((28, 58, 120), 0.1), ((196, 186, 164), 0.03), ((40, 84, 60), 0.03),
    ((212, 150, 30), 0.03), ((106, 158, 190), 0.04),
)  # fmt: skip
_ANGLES = np.linspace(0, 2 * np.pi, 14, endpoint=False)
_CIRCLE = np.column_stack([np.zeros(14), np.cos(_ANGLES), np.sin(_ANGLES)])
# Arch, tyre, rim, spokes and hub of a wheel: radius as a share of the tyre's, and grey level.
_RINGS = ((1.16, 10.0), (1.0, 25.0), (0.66, 130.0), (0.5, 72.0), (0.16, 166.0))


class Bulb(NamedTuple):
    """A light of a vehicle; `kind` is `head`, `tail` or `sign`, `facing` 1 for +z or -1 for -z."""

    position: Floats
    kind: str
    facing: float


@dataclass
class Vehicle:
    """A vehicle in its own axes.

    Attributes:
        mesh: Its polygons, without the cab.
        size: Length, width and height in metres.
        bulbs: Its lights.
        cab: The cab of a truck, and the z of the gap behind it; None: no separate cab.
    """

    mesh: Mesh
    size: tuple[float, float, float]
    bulbs: list[Bulb] = field(default_factory=list)
    cab: tuple[Mesh, float] | None = None

    def placed(self, position: Floats, heading: float, eye: Floats) -> Mesh:
        """Return the mesh in world axes; of cab and load, the nearer to `eye` is painted last."""
        if self.cab is None:
            return self.mesh.moved(position, heading)
        cab, gap = self.cab
        ahead = np.array([np.sin(heading), 0.0, np.cos(heading)])
        is_nearer = (eye - position) @ ahead > gap
        shift = 50.0 if is_nearer else -50.0
        moved = Mesh([chunk._replace(order=chunk.order + shift) for chunk in cab.chunks])
        return Mesh(self.mesh.chunks + moved.chunks).moved(position, heading)


class _Body(NamedTuple):
    """Silhouette of a car from front to rear: (z, y) as shares of length and height."""

    length: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]
    nose: float
    cowl: tuple[float, float]
    roof: tuple[float, float]
    rear_glass: tuple[float, float]
    tail: float
    pillars: tuple[float, ...]


_BODIES = {
    "hatch": _Body((3.7, 4.2), (1.7, 1.8), (1.45, 1.53), 0.5, (0.24, 0.66), (0.04, -0.36),
                   (-0.47, 0.68), 0.62, (0.5,)),
    "sedan": _Body((4.4, 4.9), (1.78, 1.88), (1.4, 1.48), 0.47, (0.2, 0.66), (0.03, -0.2),
                   (-0.36, 0.7), 0.66, (0.52,)),
    "wagon": _Body((4.4, 4.9), (1.78, 1.88), (1.45, 1.55), 0.48, (0.22, 0.65), (0.06, -0.4),
                   (-0.48, 0.68), 0.62, (0.38, 0.7)),
    "suv": _Body((4.3, 4.9), (1.82, 1.98), (1.65, 1.85), 0.54, (0.22, 0.66), (0.08, -0.41),
                 (-0.47, 0.68), 0.64, (0.4, 0.72)),
    "van": _Body((4.6, 5.3), (1.85, 2.0), (1.85, 2.1), 0.46, (0.34, 0.58), (0.18, -0.46),
                 (-0.49, 0.6), 0.58, (0.3, 0.64)),
}  # fmt: skip


def pick_paint(rng: np.random.Generator) -> Floats:
    """Choose the albedo of a vehicle's paint, (3,)."""
    weights = np.array([weight for _, weight in _PAINTS])
    chosen = _PAINTS[rng.choice(len(_PAINTS), p=weights / weights.sum())][0]
    return np.clip(srgb(*chosen) * rng.uniform(0.8, 1.15), 0.012, 0.85)


def inset(quad: Floats, u: tuple[float, float], v: tuple[float, float]) -> Floats:
    """Return part of a quad (4, 3): u along its first side, v along its last, 0..1."""
    a, b, c, d = quad
    spots = ((u[0], v[0]), (u[1], v[0]), (u[1], v[1]), (u[0], v[1]))
    return np.array(
        [(1 - s) * (1 - t) * a + s * (1 - t) * b + s * t * c + (1 - s) * t * d for s, t in spots]
    )


def draw_car(rng: np.random.Generator, *, lit: bool) -> Vehicle:
    """Draw a car of some type and colour.

    Args:
        rng: Chooses type and colour.
        lit: Whether head and tail lights are on.
    """
    body = _BODIES[str(rng.choice(list(_BODIES), p=[0.27, 0.24, 0.16, 0.22, 0.11]))]
    length, width, height = (float(rng.uniform(*r)) for r in (body.length, body.width, body.height))
    paint = pick_paint(rng)
    mesh = Mesh()
    add_wheels(mesh, length, width, 0.32 + 0.02 * height, (0.31, -0.31))
    _add_shell(mesh, body, length, width, height, paint)
    bulbs = _add_car_lights(mesh, body, length, width, height, lit)
    for side in (-1, 1):
        z, y = length * body.cowl[0] - 0.35, height * body.cowl[1] + 0.04
        x = side * (width / 2 + 0.02)
        low, high = (min(x, x + side * 0.16), y, z), (max(x, x + side * 0.16), y + 0.13, z + 0.1)
        mesh.add_box(low, high, paint * 0.8, order=6)
    return Vehicle(mesh, (length, width, height), bulbs)


def add_wheels(
    mesh: Mesh, length: float, width: float, radius: float, axles: Sequence[float]
) -> None:
    """Add wheels: tyres visible from front and rear, arches, discs and rims on the sides."""
    half = width / 2
    for share in axles:
        z = share * length
        for side in (-1.0, 1.0):
            inner, outer = sorted((side * (half - 0.24), side * (half - 0.02)))
            low, high = (inner, 0.0, z - radius * 0.9), (outer, radius * 1.7, z + radius * 0.9)
            mesh.add_box(low, high, _TYRE, order=-2)
    spots = np.array([(side, share * length) for share in axles for side in (-1.0, 1.0)])
    centres = np.stack([half * spots[:, 0], np.full(len(spots), radius), spots[:, 1]], axis=1)
    normals = np.column_stack([spots[:, 0], np.zeros((len(spots), 2))])
    for number, (grow, level) in enumerate(_RINGS):
        shift = normals * (0.004 + 0.003 * number) + [0, 0.06 * radius * (grow > 1.1), 0]
        discs = (centres + shift)[:, None] + _CIRCLE * (radius * grow)
        mesh.add(discs, srgb(level, level, level * 1.02), normals=normals, core=(0, radius, 0),
                 order=2 + 0.1 * number, casts=grow == 1.0)  # fmt: skip


def _outline(body: _Body, length: float, height: float) -> Floats:
    """Return the silhouette from the front bumper over the roof to the rear bumper, (10, 2)."""
    spots = [
        (0.5, 0.2), (0.5, 0.8 * body.nose), (0.465, body.nose + 0.02),
        body.cowl, (body.roof[0], 0.985), (body.roof[1], 0.985), body.rear_glass,
        (min(-0.475, body.rear_glass[0] - 0.005), body.tail), (-0.5, 0.72 * body.tail),
        (-0.5, 0.22),
    ]  # fmt: skip
    return np.array(spots) * [length, height]


@functools.cache
def _weights(split: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return a quad's corner weights at the corners (4n, 4) and middles (n, 4) of its pieces."""
    u, v = split

    def at(s: float, t: float) -> list[float]:
        return [(1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t]

    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    pieces = [(i, j) for i in range(u) for j in range(v)]
    points = [at((i + a) / u, (j + b) / v) for i, j in pieces for a, b in corners]
    middles = [at((i + 0.5) / u, (j + 0.5) / v) for i, j in pieces]
    return np.array(points), np.array(middles)


def add_smooth(
    mesh: Mesh, corners: Floats, normals: Floats, split: tuple[int, int], albedo: Floats, *,
    gloss: float, core: Sequence[float], order: Floats | float,
) -> None:  # fmt: skip
    """Add quads (m, 4, 3) in pieces, with normals interpolated between the corners.

    `split` is the number of pieces along the first and the last side; `order` may be (m,).
    """
    points, middles = _weights(split)
    quads = (points @ corners).reshape(-1, 4, 3)
    bent = (middles @ normals).reshape(-1, 3)
    bent /= np.sqrt((bent * bent).sum(axis=1, keepdims=True))
    orders = np.repeat(np.broadcast_to(order, len(corners)), len(middles))
    mesh.add(quads, albedo, gloss=gloss, core=core, normals=bent, order=orders, casts=False)


def _add_shell(
    mesh: Mesh, body: _Body, length: float, width: float, height: float, paint: Floats
) -> None:
    outline = _outline(body, length, height)
    half = width / 2
    across = half * np.array([0.84, 0.88, 0.84, 0.9, 0.68, 0.68, 0.88, 0.86, 0.9, 0.86])
    steps = np.diff(outline, axis=0)
    facing = np.column_stack([-steps[:, 0], steps[:, 1]])  # (y, z) of each segment's normal
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    shared = np.vstack([facing[:1], (facing[:-1] + facing[1:]) / 2, facing[-1:]])
    core = (0.0, height * 0.45, -0.05 * length)
    orders = np.array([1, 1, 1, 3, 5, 3, 1, 1, 1])
    begin, end = (0.45 * facing + 0.55 * near for near in (shared[:-1], shared[1:]))
    for side in (-1.0, 1.0):
        rim = np.column_stack([side * across, outline[:, 1], outline[:, 0]])
        crown = np.column_stack([np.zeros(10), outline[:, 1] + 0.02, outline[:, 0]])
        quads = np.stack([rim[:-1], rim[1:], crown[1:], crown[:-1]], axis=1)
        tilts = np.stack(
            [np.column_stack([np.full(9, x), yz])
             for x, yz in ((side * 0.5, begin), (side * 0.5, end), (0, end), (0, begin))], axis=1,
        )  # fmt: skip
        add_smooth(mesh, quads, tilts, (3, 2), paint, gloss=0.8, core=core, order=orders)
        glass = [3, 5]
        panes = np.stack([inset(quads[i], (0.06, 0.9), (0.08, 1.0)) for i in glass])
        add_smooth(mesh, panes, tilts[glass], (3, 2), GLASS, gloss=1.0, core=core, order=3.5)
    # There are too many pieces to cast shadows; plain polygons beneath them do.
    x, y, z = half * 0.9, 0.2, length / 2
    mesh.add([(-x, y, z), (x, y, z), (x, y, -z), (-x, y, -z)], paint, order=-4)
    roof = np.array(
        [
            (s * half * 0.68, outline[k, 1], outline[k, 0])
            for s, k in ((-1, 4), (1, 4), (1, 5), (-1, 5))
        ]
    )
    mesh.add(roof - [0, 0.02, 0], paint, order=-4)
    for side in (-1.0, 1.0):
        _add_flank(mesh, body, outline, side, half, paint, core)


def _add_flank(
    mesh: Mesh, body: _Body, outline: Floats, side: float, half: float, paint: Floats,
    core: tuple[float, float, float],
) -> None:  # fmt: skip
    """Add one side: sill, door panels that bend inwards at both edges, and the windows above."""
    front, rear = outline[0, 0], outline[-1, 0]
    cowl, back = outline[3], outline[6]
    height = outline[4, 1] / 0.985
    stations = np.array([front, front * 0.84, cowl[0], 0.0, back[0], rear * 0.86, rear])
    upper = outline[[1, 2, 3, 6, 7, 8]]
    belt = np.interp(-stations, -upper[:, 0], upper[:, 1])
    swell = half * np.array([0.86, 0.985, 1.0, 1.0, 1.0, 0.985, 0.88])
    turn = np.array([0.9, 0.25, 0.0, 0.0, 0.0, -0.25, -0.9])
    levels = (np.full(7, 0.2), np.full(7, 0.27 * height), belt * 0.68, belt)
    widths = (swell * 0.95, swell * 0.985, swell, swell * 0.94)
    tilt = (-0.35, -0.12, 0.05, 0.75)
    lines = [np.column_stack([side * w, y, stations]) for w, y in zip(widths, levels, strict=True)]
    for level in range(3):
        colour, gloss = (DARK * 0.8, 0.1) if level == 0 else (paint, 0.6)
        low, high = lines[level], lines[level + 1]
        quads = np.stack([low[:-1], low[1:], high[1:], high[:-1]], axis=1)
        tops, bottoms = np.full(7, tilt[level + 1]), np.full(7, tilt[level])
        out = np.full(7, side)
        lower, above = (np.column_stack([out, y, turn]) for y in (bottoms, tops))
        normals = np.stack([lower[:-1], lower[1:], above[1:], above[:-1]], axis=1)
        split = (1, 1 if level == 0 else 3)
        add_smooth(mesh, quads, normals, split, colour, gloss=gloss, core=core, order=1)
    outer = np.concatenate([lines[0], lines[3][::-1]])
    mesh.add(outer, paint * 0.5, order=-4)
    roof = outline[[4, 5]]
    house = np.array(
        [(side * half * 0.9, cowl[1], cowl[0]), (side * half * 0.88, back[1], back[0]),
         (side * half * 0.68, roof[1, 1], roof[1, 0]), (side * half * 0.68, roof[0, 1], roof[0, 0])]
    )  # fmt: skip
    mesh.add(house, paint, gloss=0.5, core=core, order=4)
    edges = (0.05, *body.pillars, 0.95)
    tilts = np.array([(side, 0.05, 0.0), (side, 0.05, 0.0), (side, 0.6, 0.0), (side, 0.6, 0.0)])
    panes = np.stack(
        [inset(house, (left + 0.015, right - 0.015), (0.08, 0.87))
         for left, right in itertools.pairwise(edges)]
    )  # fmt: skip
    tilts = np.broadcast_to(tilts, (len(panes), 4, 3))
    add_smooth(mesh, panes, tilts, (1, 3), GLASS, gloss=0.9, core=core, order=4.2)
    for gap in (cowl[0] - 0.12 * front, (cowl[0] + back[0]) / 2, back[0] * 0.72):
        seam = [(0.987, 0.3 * height, gap), (0.987, 0.3 * height, gap - 0.025),
                (0.95, belt[3], gap - 0.025), (0.95, belt[3], gap)]  # fmt: skip
        line = [(side * half * w, y, z) for w, y, z in seam]
        mesh.add(line, paint * 0.35, core=core, order=1.5, casts=False)


def add_face(
    mesh: Mesh, z: float, x: tuple[float, float], y: tuple[float, float], colour: Floats,
    order: float, *, emission: Floats | float = 0.0, gloss: float = 0.0,
) -> None:  # fmt: skip
    """Add a rectangle on the front (z > 0) or on the rear."""
    quad = [(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)]
    mesh.add(
        quad, colour, emission=emission, gloss=gloss, core=(0, y[0], 0), order=order, casts=False
    )


def add_lamp_pairs(
    mesh: Mesh, z: float, x: tuple[float, float], y: tuple[float, float], kind: str, lit: bool
) -> list[Bulb]:
    """Add a lamp on the left and the right, and return the bulbs."""
    bulbs = []
    colour = _LENS if kind == "head" else _RED
    glow = np.array([6.0, 5.6, 4.8]) if kind == "head" else np.array([1.6, 0.06, 0.04])
    for side in (-1.0, 1.0):
        span = (min(side * x[0], side * x[1]), max(side * x[0], side * x[1]))
        add_face(mesh, z, span, y, colour, 8, emission=glow if lit else 0.0, gloss=0.5)
        centre = np.array([side * (x[0] + x[1]) / 2, (y[0] + y[1]) / 2, z])
        bulbs.append(Bulb(centre, kind, float(np.sign(z))))
    return bulbs if lit else []


def _add_car_lights(
    mesh: Mesh, body: _Body, length: float, width: float, height: float, lit: bool
) -> list[Bulb]:
    """Add the lamps, grille, plates and bumpers of front and rear."""
    half, front, rear = width / 2, length * 0.502, -length * 0.502
    nose, tail = body.nose * height, body.tail * height
    add_face(mesh, front, (-half * 0.84, half * 0.84), (0.21, 0.2 + 0.2 * nose), DARK, 7)
    add_face(mesh, front, (-half * 0.48, half * 0.48), (0.5 * nose, 0.78 * nose), DARK * 0.6, 7)
    add_face(mesh, front, (-0.26, 0.26), (0.36 * nose, 0.36 * nose + 0.12), PLATE, 7.5)
    bulbs = add_lamp_pairs(
        mesh, front, (half * 0.52, half * 0.85), (0.56 * nose, 0.79 * nose), "head", lit
    )
    add_face(mesh, rear, (-half * 0.84, half * 0.84), (0.21, 0.22 + 0.2 * tail), DARK, 7)
    add_face(mesh, rear, (-0.26, 0.26), (0.5 * tail, 0.5 * tail + 0.12), PLATE, 7.5)
    low, high = (0.48 * tail, 0.7 * tail) if body.tail < 0.63 else (0.52 * tail, 0.71 * tail)
    bulbs += add_lamp_pairs(mesh, rear, (half * 0.6, half * 0.89), (low, high), "tail", lit)
    return bulbs
