"""Objects beside the traffic: trees, lamps, signs, bins, shelters, traffic lights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eval.street.draw.camera import Floats
from eval.street.draw.raster import Mesh, cross, srgb

__all__ = [
    "Tree",
    "draw_bench",
    "draw_billboard",
    "draw_bin",
    "draw_bollard",
    "draw_lamp_post",
    "draw_post_box",
    "draw_shelter",
    "draw_sign",
    "draw_tree",
    "signal_head",
    "signal_post",
]  # fmt: skip

_METAL = srgb(92, 96, 100)
_DARK = srgb(34, 36, 40)


class Tree(NamedTuple):
    """A tree: its mesh and its crown, centre (3,) and radius in metres."""

    mesh: Mesh
    centre: Floats
    radius: float


def draw_tree(
    rng: np.random.Generator, position: Floats, eye: Floats, tint: Floats, detail: float
) -> Tree:
    """Draw a broad-leaved tree.

    Args:
        rng: Chooses size and shape.
        position: (3,), the foot of the trunk.
        eye: (3,), the camera.
        tint: (3,), albedo of the leaves.
        detail: 0..1, share of the leaves to draw.
    """
    height = float(rng.uniform(5.0, 9.5))
    radius = height * float(rng.uniform(0.24, 0.33))
    stem = height - 1.75 * radius
    mesh = Mesh()
    bark = srgb(82, 70, 58) * rng.uniform(0.7, 1.2)
    foot, up = np.asarray(position), np.array([0.0, 1.0, 0.0])
    mesh.add_post(foot, foot + up * (stem + 0.5 * radius), 0.022 * height, bark)
    centre = foot + up * (height - radius)
    for _ in range(4):
        reach = rng.normal(0, 0.45, 3) * radius
        mesh.add_post(foot + up * stem * 0.9, centre + reach * [1, 0.5, 1], 0.009 * height, bark)
    lobes = rng.normal(0, 1, (7, 3))
    lobes /= np.linalg.norm(lobes, axis=1, keepdims=True)
    lobes *= radius * rng.uniform(0.25, 0.6, (7, 1)) * [1, 0.8, 1]
    count = int(110 + 620 * detail)
    out = rng.normal(0, 1, (count, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    inner = rng.uniform(0.55, 1.0, (count, 1)) ** 0.5
    spots = centre + lobes[rng.integers(7, size=count)] + out * inner * radius * 0.56
    outward = spots - centre
    depth = np.linalg.norm(outward, axis=1, keepdims=True) / radius
    normals = outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    leaf = radius * rng.uniform(0.5, 1.25, count) * (1.5 / np.sqrt(count))
    shades = tint * rng.uniform(0.75, 1.3, (count, 1)) * np.clip(0.35 + 0.75 * depth, 0.3, 1.1)
    shades = shades * (1 + rng.normal(0, 0.07, (count, 3)))
    mesh.add(
        _clumps(rng, spots, leaf, eye), np.clip(shades, 0.01, 0.9), normals=normals,
        order=1 - np.linalg.norm(spots - eye, axis=1) / 1000,
    )  # fmt: skip
    return Tree(mesh, centre, radius)


def _clumps(rng: np.random.Generator, spots: Floats, sizes: Floats, eye: Floats) -> Floats:
    """Return irregular hexagons (n, 6, 3) around points, turned to the camera."""
    sight = eye - spots.mean(axis=0)
    side = cross(np.array([0.0, 1.0, 0.0]), sight)
    side /= np.linalg.norm(side)
    up = cross(sight, side)
    up /= np.linalg.norm(up)
    angles = np.linspace(0, 2 * np.pi, 6, endpoint=False) + rng.uniform(0, 1, (len(spots), 1))
    far = sizes[:, None] * rng.uniform(0.75, 1.25, (len(spots), 6))
    flat = (far * np.cos(angles))[..., None] * side + (far * np.sin(angles))[..., None] * up * 0.8
    return np.asarray(spots[:, None] + flat)


def draw_lamp_post(height: float, reach: float, lit: bool, tint: Floats) -> tuple[Mesh, Floats]:
    """Draw a street lamp at the origin, its arm towards +x; return it and its light's position."""
    mesh = Mesh()
    mesh.add_post((0, 0, 0), (0, 1.2, 0), 0.09, _METAL * 0.8)
    mesh.add_post((0, 1.2, 0), (0, height, 0), 0.055, _METAL * 0.8)
    mesh.add_post((0, height, 0), (reach, height + 0.25, 0), 0.04, _METAL * 0.8)
    mesh.add_box((reach - 0.1, height + 0.14, -0.14), (reach + 0.55, height + 0.3, 0.14), _METAL)
    x0, x1, y = reach - 0.04, reach + 0.5, height + 0.13
    lens = [(x0, y, -0.11), (x1, y, -0.11), (x1, y, 0.11), (x0, y, 0.11)]
    mesh.add(lens, srgb(220, 220, 210), emission=tint * 40 if lit else 0.0, order=1)
    return mesh, np.array([reach + 0.22, y, 0.0])


def signal_head(state: str, size: float) -> Mesh:
    """Draw the head of a traffic light with its lenses towards -z.

    Args:
        state: `red`, `amber` or `green`.
        size: Height in metres.
    """
    mesh = Mesh()
    half, r = 0.19 * size, 0.115 * size
    mesh.add_box((-half, 0.0, -0.12), (half, size, 0.12), srgb(26, 28, 30), order=1)
    lamps = {
        "red": (0.81, (5.5, 0.22, 0.12), (70, 14, 14)),
        "amber": (0.5, (5.0, 2.0, 0.1), (76, 50, 12)),
        "green": (0.19, (0.15, 4.2, 1.7), (10, 58, 40)),
    }
    for name, (level, glow, dim) in lamps.items():
        emission = np.array(glow) if name == state else 0.0
        centre = (0.0, level * size, -0.125)
        ring = srgb(12, 12, 13)
        mesh.add_disc(centre, (0, 0, -1), r * 1.2, ring, order=2, casts=False)
        mesh.add_disc((0, level * size, -0.13), (0, 0, -1), r, srgb(*dim), emission=emission,
                      order=3, casts=False)  # fmt: skip
        y = level * size + r * 0.75
        visor = [(-r * 1.1, y, -0.13), (r * 1.1, y, -0.13), (r * 1.1, y + 0.05, -0.33),
                 (-r * 1.1, y + 0.05, -0.33)]  # fmt: skip
        mesh.add(visor, srgb(16, 16, 17), order=4, casts=False)
    return mesh


def signal_post(height: float, reach: float) -> Mesh:
    """Draw the post of a traffic light, with an arm over the road towards +x if `reach` > 0."""
    mesh = Mesh()
    mesh.add_post((0, 0, 0.2), (0, height, 0.2), 0.07, _METAL * 0.7)
    if reach > 0:
        mesh.add_post((0, height - 0.1, 0.2), (reach, height - 0.1, 0.2), 0.05, _METAL * 0.7)
    return mesh


def draw_sign(rng: np.random.Generator) -> Mesh:
    """Draw a traffic sign at the origin that faces -z."""
    mesh = Mesh()
    mesh.add_post((0, 0, 0), (0, 2.9, 0), 0.035, _METAL)
    kind = str(rng.choice(["limit", "no", "blue", "warning", "yield", "plate"]))
    y, z, front = 2.55, -0.05, (0.0, 0.0, -1.0)
    red, white, blue = srgb(186, 26, 30), srgb(232, 232, 228), srgb(28, 76, 160)
    if kind in {"limit", "no", "blue"}:
        mesh.add_disc((0, y, z), front, 0.34, blue if kind == "blue" else red, order=1)
        inner = white if kind == "limit" else blue
        mesh.add_disc((0, y, z - 0.01), front, 0.25, inner, order=2, casts=False)
        if kind == "limit":
            for x in (-0.13, 0.03):
                mesh.add(_plate((x, y - 0.11), (x + 0.1, y + 0.11), z - 0.02), _DARK, order=3)
        else:
            bar = red if kind == "no" else white
            ends = ((-0.2, -0.16), (-0.14, -0.21), (0.2, 0.16), (0.14, 0.21))
            mesh.add([(a, y + b, z - 0.02) for a, b in ends], bar, order=3)
    elif kind in {"warning", "yield"}:
        turn = 1.0 if kind == "warning" else -1.0
        for size, colour, order in ((0.42, red, 1), (0.29, white, 2)):
            shape = ((-1.0, -0.55), (1.0, -0.55), (0.0, 1.0))
            points = [(a * size, y + turn * b * size, z - 0.01 * order) for a, b in shape]
            mesh.add(points, colour, order=order)
    else:
        mesh.add(_plate((-0.5, y - 0.2), (0.5, y + 0.2), z), blue, order=1)
        mesh.add(_plate((-0.42, y - 0.05), (0.3, y + 0.06), z - 0.01), white, order=2)
    return mesh


def _plate(low: tuple[float, float], high: tuple[float, float], z: float) -> Floats:
    """Return a rectangle across the street from `low` to `high` of x and y."""
    return np.array(
        [(low[0], low[1], z), (high[0], low[1], z), (high[0], high[1], z), (low[0], high[1], z)]
    )


def draw_bollard(rng: np.random.Generator) -> Mesh:
    """Draw a bollard with a light ring."""
    mesh = Mesh()
    colour = srgb(*rng.choice([(40, 42, 46), (150, 150, 146), (96, 40, 36)]))
    mesh.add_post((0, 0, 0), (0, 0.9, 0), 0.09, colour)
    mesh.add_post((0, 0.72, 0), (0, 0.8, 0), 0.094, srgb(220, 220, 214))
    return mesh


def draw_bin(rng: np.random.Generator) -> Mesh:
    """Draw a litter bin or a wheeled bin."""
    mesh = Mesh()
    colour = srgb(*rng.choice([(52, 92, 58), (58, 60, 64), (196, 110, 28), (40, 60, 96)]))
    mesh.add_box((-0.28, 0.06, -0.3), (0.28, 0.98, 0.3), colour, gloss=0.1)
    mesh.add_box((-0.31, 0.98, -0.34), (0.31, 1.08, 0.33), colour * 0.75, order=1)
    return mesh


def draw_post_box(rng: np.random.Generator) -> Mesh:
    """Draw a post box, red or yellow."""
    mesh = Mesh()
    colour = srgb(*rng.choice([(190, 28, 30), (232, 186, 24)]))
    mesh.add_box((-0.24, 0.0, -0.2), (0.24, 1.45, 0.2), colour, gloss=0.25)
    mesh.add(_plate((-0.17, 1.12), (0.17, 1.2), -0.205), _DARK, core=(0, 1, 0), order=1)
    return mesh


def draw_bench(rng: np.random.Generator) -> Mesh:
    """Draw a bench that faces -x."""
    mesh = Mesh()
    wood = srgb(132, 96, 62) * rng.uniform(0.7, 1.2)
    for z in (-0.7, 0.65):
        mesh.add_box((-0.22, 0.0, z), (0.22, 0.42, z + 0.06), _DARK)
    mesh.add_box((-0.24, 0.42, -0.85), (0.22, 0.47, 0.85), wood, order=1)
    mesh.add_box((0.2, 0.55, -0.85), (0.25, 0.86, 0.85), wood * 0.9, order=1)
    return mesh


def draw_shelter(rng: np.random.Generator, lit: bool) -> Mesh:
    """Draw a bus shelter open to -x, with a lit poster at its end."""
    mesh = Mesh()
    for z in (-1.9, 1.9):
        for x in (-0.6, 0.6):
            mesh.add_post((x, 0, z), (x, 2.4, z), 0.045, _METAL)
    mesh.add_box((-0.8, 2.4, -2.1), (0.75, 2.52, 2.1), _METAL * 0.9, order=3)
    glass = [(0.6, 0.35, -1.85), (0.6, 0.35, 1.85), (0.6, 2.2, 1.85), (0.6, 2.2, -1.85)]
    mesh.add(glass, srgb(96, 112, 116), gloss=0.6, order=-1)
    poster = srgb(*rng.integers(30, 235, 3))
    glow = poster * 1.1 if lit else 0.0
    mesh.add_box((-0.55, 0.3, -1.98), (0.55, 2.25, -1.9), _DARK, order=1)
    mesh.add([(-0.47, 0.5, -1.99), (0.47, 0.5, -1.99), (0.47, 2.15, -1.99), (-0.47, 2.15, -1.99)],
             poster, emission=glow, order=2)  # fmt: skip
    band = srgb(*rng.integers(120, 250, 3))
    mesh.add([(-0.4, 0.7, -2.0), (0.4, 0.7, -2.0), (0.4, 1.2, -2.0), (-0.4, 1.2, -2.0)],
             band, emission=band if lit else 0.0, order=2.5)  # fmt: skip
    mesh.add_box((0.25, 0.45, -1.5), (0.55, 0.52, 1.5), srgb(120, 92, 66), order=0)
    return mesh


def draw_billboard(rng: np.random.Generator, lit: bool) -> Mesh:
    """Draw a billboard on two posts that faces -z, showing plain shapes."""
    mesh = Mesh()
    for x in (-1.3, 1.3):
        mesh.add_post((x, 0, 0.1), (x, 2.4, 0.1), 0.07, _METAL * 0.7)
    mesh.add_box((-2.0, 2.0, -0.08), (2.0, 4.2, 0.08), _DARK, order=1)
    share = 0.8 if lit else 0.0
    for number in range(5):
        colour = srgb(*rng.integers(30, 245, 3))
        x0, y0 = (-1.9, 2.1) if number == 0 else (rng.uniform(-1.8, 1.0), rng.uniform(2.2, 3.4))
        x1 = 1.9 if number == 0 else min(x0 + rng.uniform(0.3, 1.6), 1.85)
        y1 = 4.1 if number == 0 else min(y0 + rng.uniform(0.15, 0.8), 4.05)
        mesh.add([(x0, y0, -0.09), (x1, y0, -0.09), (x1, y1, -0.09), (x0, y1, -0.09)], colour,
                 emission=colour * share, order=2 + number, casts=False)  # fmt: skip
    return mesh
