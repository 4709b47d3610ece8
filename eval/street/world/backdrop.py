"""The ground with its markings, the sky, and the town beyond the end of the street."""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from eval.street.draw.camera import Camera, Floats
from eval.street.draw.light import Lighting, Singles
from eval.street.draw.raster import Mesh, srgb

__all__ = ["ASPHALT", "GRASS", "PAINT", "PAVING", "PLAIN", "WALL", "Road", "draw_ground",
           "draw_skyline", "noise_tile", "sky_colours", "surface_pattern"]  # fmt: skip

PLAIN, ASPHALT, PAVING, GRASS, PAINT, WALL = range(6)

_FAR = 500.0
_TILE = 512


class Road(NamedTuple):
    """Cross-section of a street in metres: right-hand traffic, x = 0 divides the directions.

    Attributes:
        lane: Width of a lane.
        lanes: Number of lanes per direction.
        parking: Width of the strip of parked cars on each side, 0: none.
        pavement: Width of each pavement, left and right.
        verge: Width of the grass between kerb and pavement, 0: none.
        crossing: z of a crosswalk, or None.
        junction: z of a cross street's near and far edge, or None.
    """

    lane: float
    lanes: int
    parking: float
    pavement: tuple[float, float]
    verge: float
    crossing: float | None
    junction: tuple[float, float] | None

    @property
    def edge(self) -> float:
        """Distance of the outer edge of the lanes from the middle."""
        return self.lane * self.lanes

    @property
    def kerb(self) -> float:
        """Distance of the kerbs from the middle."""
        return self.edge + self.parking

    def front(self, side: float) -> float:
        """Distance of the façades from the middle on the left (-1) or on the right (1)."""
        return self.kerb + self.pavement[0 if side < 0 else 1]


def _strip(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> Floats:
    return np.array([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)])


def draw_ground(rng: np.random.Generator, road: Road) -> list[tuple[Mesh, int]]:
    """Draw ground, kerbs and markings; return meshes with their surfaces in drawing order."""
    base, asphalt, kerbs, paving, grass, paint = (Mesh() for _ in range(6))
    base.add(_strip(-300, 300, -5, _FAR), srgb(104, 108, 92), normals=np.array([0, 1.0, 0]))
    tone = float(rng.uniform(66, 98))
    dark = srgb(tone, tone * 1.0, tone * 1.02)
    up = np.array([0.0, 1.0, 0.0])
    asphalt.add(_strip(-road.kerb, road.kerb, -5, _FAR), dark, normals=up)
    if road.junction:
        asphalt.add(_strip(-90, 90, *road.junction), dark * 1.02, normals=up)
    for _ in range(int(rng.integers(2, 7))):
        x, z = rng.uniform(-road.edge, road.edge), rng.uniform(4, 45)
        patch = _strip(x, x + rng.uniform(0.6, 2.2), z, z + rng.uniform(1.0, 7.0))
        asphalt.add(patch, dark * rng.uniform(0.72, 1.2), normals=up, order=1)
    for _ in range(int(rng.integers(1, 4))):
        spot = (rng.uniform(-road.edge, road.edge), 0.0, rng.uniform(5, 35))
        asphalt.add_disc(spot, (0, 1, 0), 0.36, dark * 0.55, order=2)
    stone = srgb(168, 164, 156) * rng.uniform(0.7, 1.0)
    slab = srgb(150, 146, 138) * rng.uniform(0.7, 1.05)
    for side in (-1.0, 1.0):
        inner = side * road.kerb
        for z0, z1 in _stretches(road):
            face = [(inner, 0, z0), (inner, 0, z1), (inner, 0.12, z1), (inner, 0.12, z0)]
            kerbs.add(face, stone * 0.8, normals=np.array([-side, 0, 0]))
            kerbs.add(_strip(inner, inner + side * 0.22, z0, z1, 0.12), stone, normals=up, order=1)
            paving.add(
                _strip(inner + side * 0.22, side * (road.front(side) + 0.2), z0, z1, 0.12),
                slab,
                normals=up,
            )
            if road.verge:
                edges = (inner + side * 0.22, inner + side * (0.22 + road.verge))
                grass.add(_strip(*edges, z0, z1, 0.12), srgb(84, 104, 56), normals=up)
    _add_markings(paint, rng, road)
    return [(base, GRASS), (asphalt, ASPHALT), (kerbs, PLAIN), (paving, PAVING), (grass, GRASS),
            (paint, PAINT)]  # fmt: skip


def _stretches(road: Road) -> list[tuple[float, float]]:
    if road.junction is None:
        return [(-5.0, _FAR)]
    return [(-5.0, road.junction[0]), (road.junction[1], _FAR)]


def _add_markings(paint: Mesh, rng: np.random.Generator, road: Road) -> None:
    up = np.array([0.0, 1.0, 0.0])
    white = srgb(214, 214, 208) * rng.uniform(0.75, 1.0)
    centre = srgb(216, 178, 60) if rng.random() < 0.3 else white
    gaps: list[tuple[float, float]] = []
    if road.crossing is not None:
        gaps.append((road.crossing - 4.5, road.crossing + 2.5))
    if road.junction:
        gaps.append((road.junction[0] - 1, road.junction[1] + 1))

    def add(x: float, width: float, dashes: tuple[float, float] | None, colour: Floats) -> None:
        starts = np.arange(-4.0, 150.0, sum(dashes) if dashes else 4.0)
        length = dashes[0] if dashes else 4.0
        shown = [z for z in starts if not any(z + length > a and z < b for a, b in gaps)]
        if shown:
            quads = np.stack([_strip(x - width / 2, x + width / 2, z, z + length) for z in shown])
            paint.add(quads, colour, normals=up)

    if road.lanes > 1 or rng.random() < 0.4:
        add(-0.12, 0.12, None, centre)
        add(0.12, 0.12, None if road.lanes > 1 else (3.0, 3.0), centre)
    else:
        add(0.0, 0.14, (3.0, 4.5), centre)
    for side in (-1.0, 1.0):
        for lane in range(1, road.lanes):
            add(side * lane * road.lane, 0.12, (2.5, 4.0), white)
        if road.parking:
            add(side * road.edge, 0.1, None, white * 0.9)
            ends = [
                z for z in np.arange(-2, 90, 6.0) if not any(a - 1 < z < b + 1 for a, b in gaps)
            ]
            inner, outer = sorted((side * road.edge, side * road.kerb))
            paint.add(
                np.stack([_strip(inner, outer, z, z + 0.1) for z in ends]), white * 0.9, normals=up
            )
        else:
            add(side * (road.kerb - 0.35), 0.12, None, white)
    if road.crossing is not None:
        bars = np.arange(-road.kerb + 0.4, road.kerb - 0.6, 1.0)
        z0 = road.crossing - 1.7
        paint.add(
            np.stack([_strip(x, x + 0.5, z0, z0 + 3.4) for x in bars]), white, normals=up, order=1
        )
        paint.add(_strip(0.2, road.edge - 0.1, z0 - 1.5, z0 - 1.1), white, normals=up, order=1)


def _pane(x: float, y: float, z: float) -> Floats:
    side = 1.6
    return np.array([(x, y, z), (x + side, y, z), (x + side, y + side, z), (x, y + side, z)])


def draw_skyline(rng: np.random.Generator, night: bool) -> Mesh:
    """Draw the blocks beyond the end of the street, with a few lit windows."""
    mesh = Mesh()
    for z in (420.0, 330.0, 260.0):
        x = -260.0
        while x < 260:
            width, height = float(rng.uniform(14, 42)), float(rng.uniform(9, 40)) * z / 330
            tone = srgb(*([float(rng.uniform(110, 165))] * 3)) * [0.95, 1.0, 1.08]
            block = [(x, 0, z), (x + width, 0, z), (x + width, height, z), (x, height, z)]
            mesh.add(block, tone, normals=np.array([0.0, 0.0, -1.0]), order=-z)
            if night:
                count = int(rng.integers(2, 9))
                u, v = x + rng.uniform(1, width - 2, count), rng.uniform(4, height - 2, count)
                panes = np.stack([_pane(a, b, z - 1)
                                  for a, b in zip(u, v, strict=True)])  # fmt: skip
                mesh.add(panes, srgb(60, 60, 60), emission=srgb(255, 200, 130) * 0.35, order=-z + 1)
            x += width * float(rng.uniform(0.8, 1.3))
    return mesh


@functools.cache
def noise_tile(seed: int, coarse: int) -> Singles:
    """Return a repeating tile of noise (512, 512) with several octaves, mean 0, deviation 1.

    Args:
        seed: Chooses the tile.
        coarse: Cells of the coarsest octave along a side; a power of two.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((_TILE, _TILE), np.float32)
    cells, weight = coarse, 1.0
    while cells <= _TILE:
        grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        padded = np.pad(grid, 2, mode="wrap")
        scale = _TILE // cells
        wide = cv2.resize(padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += weight * wide[2 * scale : -2 * scale, 2 * scale : -2 * scale]
        cells, weight = cells * 2, weight * 0.62
    return np.asarray((total - total.mean()) / total.std(), dtype=np.float32)


def _sample(tile: Singles, u: Singles, v: Singles, period: float) -> Singles:
    """Sample a repeating tile at (u, v) in metres; `period` is the tile's side in metres."""
    scale = np.float32(_TILE / period)
    x, y = ((w * scale).astype(np.int32) & (_TILE - 1) for w in (u, v))
    return np.asarray(tile[y, x], dtype=np.float32)


def sky_colours(rng: np.random.Generator, camera: Camera, light: Lighting) -> Singles:
    """Return the sky behind everything at half size, (H/2, W/2, 3), linear."""
    rays = camera.rays(2)
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    up = np.clip(rays[..., 1], 0.0, 1.0)
    share = (1 - np.exp(-up * 4.5))[..., None]
    sky = light.horizon_rgb * (1 - share) + light.zenith_rgb * share
    toward = np.clip(rays @ light.sun.astype(np.float32), 0, 1)[..., None]
    sky = sky + light.sun_rgb * (0.12 * toward**6 + 0.5 * toward**60)
    height = np.maximum(up, 0.025)
    shift = rng.uniform(0, 60, 2)
    u, v = (
        np.float32(s) + rays[..., i] / height * np.float32(3)
        for s, i in zip(shift, (0, 2), strict=True)
    )
    thick = _sample(noise_tile(11, 4), u, v, 40.0)
    cover = np.clip((thick - (1.1 - 2.4 * light.clouds)) * 0.8, 0, 1) * np.clip(up * 9 - 0.2, 0, 1)
    lit = light.horizon_rgb * 0.95 + light.sun_rgb * 0.1
    shaded = light.horizon_rgb * 0.62 + light.zenith_rgb * 0.12
    body = np.clip(0.75 - 0.28 * thick, 0, 1)[..., None]
    cloud = lit * body + shaded * (1 - body)
    cover = cover[..., None] * 0.85
    return np.asarray(sky * (1 - cover) + cloud * cover, dtype=np.float32)


def surface_pattern(
    surface: Singles, points: Singles, across: npt.NDArray[np.bool_], road: Road
) -> Singles:
    """Return the texture of the background as a factor on its albedo, (H, W).

    Args:
        surface: (H, W), `ASPHALT`, `PAVING`, ... of each pixel.
        points: (H, W, 3), metres.
        across: (H, W), whether a wall runs along the street.
        road: Lanes and edges of the asphalt.
    """
    factor = np.ones(surface.shape, np.float32)
    for kind, pattern in ((ASPHALT, _asphalt), (PAVING, _paving), (GRASS, _grass), (PAINT, _worn)):
        mask = surface == kind
        if mask.any():
            x, _, z = points[mask].T
            factor[mask] = pattern(x, z, road)
    mask = surface == WALL
    if mask.any():
        x, y, z = points[mask].T
        factor[mask] = _plaster(np.where(across[mask], z, x), y, z)
    return factor


def _grain(z: Singles) -> Singles:
    """Return the strength of fine texture, which averages out where pixels cover much ground."""
    return np.clip(16.0 / np.maximum(z, 1.0), 0.1, 1.0)


def _asphalt(x: Singles, z: Singles, road: Road) -> Singles:
    lane = np.abs(x) / np.float32(road.lane)
    lane -= np.floor(lane)
    wheels = np.exp(-(((lane - 0.22) / 0.1) ** 2)) + np.exp(-(((lane - 0.78) / 0.1) ** 2))
    dark = 0.09 * wheels * (np.abs(x) < road.edge) + 0.06 * np.exp(-(((lane - 0.5) / 0.07) ** 2))
    return np.asarray(1 + 0.13 * _fine(x, z) * _grain(z) + 0.09 * _broad(x, z) - dark)


def _fine(x: Singles, z: Singles) -> Singles:
    return _sample(noise_tile(1, 256), x, z * np.float32(0.7), 11.0)


def _broad(x: Singles, z: Singles) -> Singles:
    return _sample(noise_tile(2, 4), x, z * np.float32(0.5), 26.0)


def _paving(x: Singles, z: Singles, road: Road) -> Singles:
    u, v = x / np.float32(0.6), z / np.float32(0.8)
    column, row = np.floor(u), np.floor(v)
    joints = ((u - column < 0.05) | (v - row < 0.055)) * np.clip(
        14.0 / np.maximum(z, 1) - 0.3, 0, 1
    )
    slabs = _sample(noise_tile(3, 512), column, row, 512.0)
    near = _grain(z)
    return np.asarray(1 + 0.07 * (_fine(x, z) + slabs) * near + 0.08 * _broad(x, z) - 0.35 * joints)


def _grass(x: Singles, z: Singles, road: Road) -> Singles:
    return np.asarray(1 + 0.3 * _fine(x, z) * _grain(z) + 0.16 * _broad(x, z))


def _worn(x: Singles, z: Singles, road: Road) -> Singles:
    broad = np.clip(_broad(x, z), 0, 2)
    return np.asarray(1 + 0.1 * _fine(x, z) * _grain(z) - 0.12 * broad)


def _plaster(along: Singles, y: Singles, z: Singles) -> Singles:
    stains = _sample(noise_tile(4, 8), along, y * np.float32(0.35), 24.0)
    rough = _sample(noise_tile(1, 256), along, y, 20.0)
    soiled = 1 - 0.3 * np.exp(-np.maximum(y, 0) / 1.6)
    return np.asarray((1 + 0.07 * stains + 0.04 * rough * _grain(z)) * soiled)
