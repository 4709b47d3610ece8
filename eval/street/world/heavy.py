"""Buses and trucks; see `eval.street.world.vehicles`."""

from __future__ import annotations

import itertools

import numpy as np

from eval.street.draw.camera import Floats
from eval.street.draw.raster import Mesh, srgb
from eval.street.world.vehicles import (
    DARK,
    GLASS,
    PLATE,
    Vehicle,
    add_face,
    add_lamp_pairs,
    add_smooth,
    add_wheels,
    inset,
    pick_paint,
)

__all__ = ["draw_bus", "draw_truck"]

_AMBER = srgb(200, 110, 20)
_LIVERIES = (
    ((178, 30, 34), (236, 236, 232)), ((232, 228, 214), (30, 90, 150)),
    ((232, 184, 36), (40, 42, 46)), ((44, 112, 70), (236, 236, 230)),
    ((38, 76, 148), (240, 240, 240)), ((225, 226, 226), (196, 44, 36)),
)  # fmt: skip


def _add_hull(mesh: Mesh, low: Floats, high: Floats, albedo: Floats) -> None:
    """Add a box with bevelled upper edges."""
    bevel = 0.16
    (x0, y0, z0), (x1, y1, z1) = low, high
    mesh.add_box((x0, y0, z0), (x1, y1 - bevel, z1), albedo, gloss=0.45, order=1)
    core = (low + high) / 2
    base = np.array([(x0, z0), (x1, z0), (x1, z1), (x0, z1)])
    top = base - np.sign(base) * bevel
    for i in range(4):
        j = (i + 1) % 4
        out = (base[i] + base[j]) / 2
        out = out / np.linalg.norm(out)
        edge = [(*base[i], y1 - bevel), (*base[j], y1 - bevel), (*top[j], y1), (*top[i], y1)]
        quad = np.array([(x, y, z) for x, z, y in edge])
        low_normal, high_normal = (out[0], 0.2, out[1]), (out[0] * 0.3, 1.0, out[1] * 0.3)
        normals = np.array([low_normal, low_normal, high_normal, high_normal])
        add_smooth(
            mesh, quad[None], normals[None], (1, 3), albedo, gloss=0.45, core=core.tolist(), order=1
        )
    mesh.add([(x, y1, z) for x, z in top], albedo, core=core, gloss=0.3, order=1)


def draw_bus(rng: np.random.Generator, *, lit: bool, night: bool) -> Vehicle:
    """Draw a city bus, rarely a double-decker. See `draw_car`."""
    length, width = float(rng.uniform(9.5, 12.0)), 2.5
    decks = 2 if rng.random() < 0.15 else 1
    height = 4.2 if decks == 2 else float(rng.uniform(2.95, 3.2))
    main, second = (srgb(*levels) for levels in _LIVERIES[rng.integers(len(_LIVERIES))])
    inside = srgb(255, 232, 190) * rng.uniform(0.3, 0.8) if night else 0.0
    mesh = Mesh()
    half, front, rear = width / 2, length / 2, -length / 2
    add_wheels(mesh, length, width, 0.48, (0.29, -0.24))
    _add_hull(mesh, np.array([-half, 0.32, rear]), np.array([half, height, front]), main)
    for side in (-1.0, 1.0):
        _add_bus_side(mesh, side * (half + 0.003), length, decks, second, inside)
    for base in [1.25] if decks == 1 else [1.2, 2.75]:
        pane = (base - (0.15 if base < 2 else 0.0), base + 1.15)
        add_face(mesh, front + 0.01, (-half * 0.94, half * 0.94), pane, GLASS, 3, gloss=1.0)
        add_face(mesh, rear - 0.01, (-half * 0.8, half * 0.8), (base + 0.2, base + 1.1), GLASS, 3,
                  gloss=0.8, emission=np.multiply(inside, 0.5))  # fmt: skip
    sign = srgb(255, 150, 30) * (1.1 if night else 0.7)
    add_face(
        mesh, front + 0.01, (-half * 0.86, half * 0.86), (height - 0.5, height - 0.12), DARK, 3
    )
    for left in np.arange(-0.85, 0.8, 0.16):
        wide = float(rng.uniform(0.04, 0.12))
        if rng.random() < 0.85:
            add_face(mesh, front + 0.02, (left, left + wide), (height - 0.41, height - 0.21),
                      _AMBER, 4, emission=sign)  # fmt: skip
    for z in (front + 0.015, rear - 0.015):
        add_face(mesh, z, (-half, half), (0.32, 0.56), DARK, 3)
        add_face(mesh, z, (-0.26, 0.26), (0.6, 0.72), PLATE, 4)
    bulbs = add_lamp_pairs(mesh, front + 0.02, (0.78, 1.15), (0.62, 0.86), "head", lit)
    bulbs += add_lamp_pairs(mesh, rear - 0.02, (0.95, 1.18), (0.7, 1.2), "tail", lit)
    return Vehicle(mesh, (length, width, height), bulbs)


def _add_bus_side(
    mesh: Mesh, x: float, length: float, decks: int, second: Floats, inside: Floats | float
) -> None:
    """Add windows, doors and a stripe to one side of a bus."""
    front, core = length / 2, (0.0, 1.5, 0.0)

    def rectangle(z: tuple[float, float], y: tuple[float, float]) -> Floats:
        return np.array([(x, y[0], z[0]), (x, y[0], z[1]), (x, y[1], z[1]), (x, y[1], z[0])])

    mesh.add(
        rectangle((-front, front), (0.32, 0.72)), second, core=core, gloss=0.3, order=2, casts=False
    )
    for base in [1.2] if decks == 1 else [1.1, 2.75]:
        band = rectangle((-front + 0.3, front - 0.15), (base, base + 1.15))
        mesh.add(band, DARK * 0.7, core=core, gloss=0.5, order=3, casts=False)
        panes = np.linspace(-front + 0.4, front - 0.25, 8)
        quads = np.stack(
            [rectangle((a + 0.06, b - 0.06), (base + 0.1, base + 1.05))
             for a, b in itertools.pairwise(panes)]
        )  # fmt: skip
        mesh.add(quads, GLASS * 1.3, emission=inside, core=core, gloss=0.8, order=4, casts=False)
    if x > 0:
        for z in (front - 1.6, -0.7):
            door = rectangle((z, z + 1.2), (0.4, 2.4))
            mesh.add(door, DARK, core=core, gloss=0.3, order=5, casts=False)
            for a in (z + 0.06, z + 0.64):
                glass = rectangle((a, a + 0.5), (0.55, 2.3))
                mesh.add(glass, GLASS, core=core, gloss=0.8, order=6, casts=False)


def draw_truck(rng: np.random.Generator, *, lit: bool) -> Vehicle:
    """Draw a truck with a box, a tarpaulin or a tipper behind its cab. See `draw_car`."""
    length, width = float(rng.uniform(6.5, 9.5)), 2.4
    height = float(rng.uniform(3.1, 3.7))
    paint = pick_paint(rng)
    half, front, rear = width / 2, length / 2, -length / 2
    cab = float(rng.uniform(1.75, 2.1))
    mesh = Mesh()
    axles = (0.36, -0.2, -0.34) if length > 8 else (0.35, -0.3)
    add_wheels(mesh, length, width * 0.96, 0.47, axles)
    mesh.add_box((-half * 0.8, 0.55, rear + 0.1), (half * 0.8, 0.85, front - 0.3), DARK, order=-1)
    _add_load(mesh, rng, (half, height, rear, front - cab - 0.15))
    head = Mesh()
    _add_cab(head, half * 0.97, front, cab, min(2.75, height - 0.3), paint)
    add_face(mesh, rear - 0.02, (-half, half), (0.5, 0.78), DARK, 7)
    add_face(mesh, rear - 0.03, (-0.26, 0.26), (0.56, 0.68), PLATE, 7.5)
    bulbs = add_lamp_pairs(head, front + 0.03, (0.7, 1.08), (0.66, 0.9), "head", lit)
    bulbs += add_lamp_pairs(mesh, rear - 0.04, (0.82, 1.15), (0.54, 0.74), "tail", lit)
    return Vehicle(mesh, (length, width, height), bulbs, (head, front - cab))


def _add_load(
    mesh: Mesh, rng: np.random.Generator, limits: tuple[float, float, float, float]
) -> None:
    half, height, rear, front = limits
    kind = str(rng.choice(["box", "tarpaulin", "tipper"], p=[0.55, 0.25, 0.2]))
    if kind == "tipper":
        colour = srgb(*rng.choice([(190, 120, 20), (90, 96, 100), (60, 92, 60)]))
        top = 2.0
        mesh.add_box((-half, 0.95, rear), (half, top, front), colour, order=3)
        heap = [
            (-half * 0.9, top, rear + 0.2),
            (half * 0.9, top, rear + 0.2),
            (0.0, top + 0.5, (rear + front) / 2),
        ]
        mesh.add(heap, srgb(120, 100, 76), order=3.5)
        for z in np.arange(rear + 0.5, front, 0.9):
            for x in (-half - 0.03, half + 0.03):
                rib = [(x, 0.95, z), (x, 0.95, z + 0.12), (x, top, z + 0.12), (x, top, z)]
                mesh.add(rib, colour * 0.6, core=(0, 1.4, 0), order=4, casts=False)
        return
    colours = {"box": ((228, 229, 226), (240, 240, 236), (60, 96, 140), (190, 60, 40)),
               "tarpaulin": ((58, 82, 120), (110, 116, 100), (150, 40, 40))}  # fmt: skip
    colour = srgb(*colours[kind][rng.integers(len(colours[kind]))])
    mesh.add_box((-half, 0.88, rear), (half, height, front), colour, gloss=0.12, order=3)
    stripe = srgb(*rng.integers(20, 220, 3))
    for x in (-half - 0.01, half + 0.01):
        if rng.random() < 0.75:
            z0 = rear + 0.18 * (front - rear)
            z1 = rear + rng.uniform(0.6, 0.9) * (front - rear)
            y0 = 0.88 + 0.35 * (height - 0.88)
            sign = [(x, y0, z0), (x, y0, z1), (x, y0 + 0.8, z1), (x, y0 + 0.8, z0)]
            mesh.add(sign, stripe, core=(0, 2, 0), order=4, casts=False)
        for y in (0.9, height - 0.1):
            edge = [(x, y, rear), (x, y, front), (x, y + 0.09, front), (x, y + 0.09, rear)]
            mesh.add(edge, colour * 0.5, core=(0, 2, 0), order=4, casts=False)
    add_face(mesh, rear - 0.01, (-half * 0.94, half * 0.94), (0.98, height - 0.1), colour * 0.85, 4)
    add_face(mesh, rear - 0.015, (-0.02, 0.02), (0.98, height - 0.1), DARK, 5)
    for x in (-0.5, 0.5):
        add_face(
            mesh, rear - 0.02, (x - 0.025, x + 0.025), (1.0, height - 0.15), srgb(120, 122, 124), 5
        )


def _add_cab(
    mesh: Mesh, half: float, front: float, depth: float, height: float, paint: Floats
) -> None:
    core = (0.0, height * 0.5, front - depth / 2)
    slope = front - 0.3
    outline = [(front, 0.42), (front, 0.55 * height), (slope, 0.97 * height),
               (slope - 0.3, height), (front - depth, height), (front - depth, 0.42)]  # fmt: skip
    left = np.array([(-half, y, z) for z, y in outline])
    right = left * [-1, 1, 1]
    strips = np.stack([left[:-1], right[:-1], right[1:], left[1:]], axis=1)
    mesh.add(strips, paint, gloss=0.5, core=core, order=5)
    mesh.add(np.stack([left, right]), paint, gloss=0.4, core=core, order=5)
    mesh.add(inset(strips[1], (0.05, 0.95), (0.08, 0.85)), GLASS, gloss=1.0, core=core, order=6)
    for x in (-half - 0.005, half + 0.005):
        low, high = 0.56 * height, 0.88 * height
        pane = [
            (x, low, front - 0.12),
            (x, low, front - 1.05),
            (x, high, front - 1.05),
            (x, high, slope - 0.05),
        ]
        mesh.add(pane, GLASS, gloss=0.9, core=core, order=6, casts=False)
        mirror = sorted((x * 1.02, x * 1.17))
        mesh.add_box((mirror[0], low, front - 0.1), (mirror[1], high, front), DARK, order=6)
    add_face(mesh, front + 0.01, (-half * 0.8, half * 0.8), (0.36 * height, 0.5 * height), DARK, 6)
    add_face(mesh, front + 0.01, (-half, half), (0.4, 0.6), DARK, 6)
    add_face(mesh, front + 0.02, (-0.26, 0.26), (0.46, 0.58), PLATE, 7)
