"""Convex polygons with flat materials, and painting them on a canvas.

The canvas has four channels of float32: linear RGB, and the number of the visible polygon. That
number and the polygon's plane determine the depth, position and object of every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from eval.street.draw.camera import Camera, Floats

__all__ = [
    "NEAR",
    "Brush",
    "Canvas",
    "Mesh",
    "Soup",
    "clip_near",
    "cross",
    "gather",
    "paint_mask",
    "plane_normals",
    "project",
    "srgb",
]

NEAR = 0.4
"""Metres in front of the camera where polygons are cut off."""

_SHIFT = 4  # fractional bits of coordinates passed to OpenCV
_FAR_PIXEL = 20000.0  # beyond this OpenCV's integers would overflow

Canvas = npt.NDArray[np.float32]


def srgb(*levels: float) -> Floats:
    """Turn sRGB levels 0..255 into linear values 0..1."""
    return np.asarray((np.array(levels, dtype=np.float64) / 255.0) ** 2.2)


def cross(a: Floats, b: Floats) -> Floats:
    """Return the cross product of vectors (..., 3); faster than numpy's for few."""
    x, y, z = a[..., 0], a[..., 1], a[..., 2]
    u, v, w = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=-1)


class Chunk(NamedTuple):
    """Polygons with the same number of points, (n, k, 3); other arrays have n rows or one."""

    points: Floats
    normals: Floats | None
    core: Floats | None
    albedo: Floats
    emission: Floats
    gloss: float
    order: Floats
    casts: bool


@dataclass
class Mesh:
    """An object that consists of convex polygons."""

    chunks: list[Chunk] = field(default_factory=list)

    def add(
        self,
        points: Any,  # noqa: ANN401 (anything that numpy makes an array of)
        albedo: Any,  # noqa: ANN401
        *,
        emission: Any = 0.0,  # noqa: ANN401
        gloss: float = 0.0,
        core: Sequence[float] | Floats | None = None,
        normals: Floats | None = None,
        order: Any = 0.0,  # noqa: ANN401
        casts: bool = True,
    ) -> None:
        """Add polygons.

        Args:
            points: (n, k, 3) or (k, 3), metres.
            albedo: (3,) or (n, 3), linear, 0..1.
            emission: Emitted light, (3,) or (n, 3), linear.
            gloss: 0..1, strength of the reflection of the surroundings.
            core: A point inside the object; only sides that face away from it are drawn. None:
                both sides are drawn.
            normals: (n, 3) or (3,), outward normals; None: those of the planes.
            order: (n,) or a number; within an object, polygons are drawn in ascending order.
            casts: Whether they cast shadows.
        """
        corners = np.asarray(points, dtype=np.float64)
        if corners.ndim == 2:
            corners = corners[None]
        self.chunks.append(
            Chunk(
                corners,
                None if normals is None else np.asarray(normals, dtype=np.float64).reshape(-1, 3),
                None if core is None else np.asarray(core, dtype=np.float64),
                np.asarray(albedo, dtype=np.float64).reshape(-1, 3),
                np.asarray(emission, dtype=np.float64),
                gloss,
                np.asarray(order, dtype=np.float64).reshape(-1),
                casts,
            )
        )

    def add_box(
        self,
        low: Sequence[float],
        high: Sequence[float],
        albedo: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Add the six sides of a box from `low` to `high`, (3,) each; options as for `add`."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        sides = [
            [(x0, y0, z0), (x0, y1, z0), (x0, y1, z1), (x0, y0, z1)],
            [(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)],
            [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
            [(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)],
            [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)],
            [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
        ]
        core = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
        self.add(sides, albedo, core=core, **options)

    def add_post(
        self,
        bottom: Sequence[float] | Floats,
        top: Sequence[float] | Floats,
        radius: float,
        albedo: Floats,
    ) -> None:
        """Add a thin post as a prism of six sides between two points."""
        low, high = np.asarray(bottom, dtype=np.float64), np.asarray(top, dtype=np.float64)
        axis = high - low
        helper = np.array([0.0, 0.0, 1.0]) if abs(axis[1]) > abs(axis[2]) else np.array([0, 1.0, 0])
        first = cross(axis, helper)
        first /= np.linalg.norm(first)
        second = cross(axis, first) / np.linalg.norm(axis)
        angles = np.linspace(0, 2 * np.pi, 7)
        ring = radius * (np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second)
        sides = np.stack(
            [low + ring[:-1], low + ring[1:], high + ring[1:], high + ring[:-1]], axis=1
        )
        self.add(sides, albedo, core=(low + high) / 2)

    def add_disc(
        self,
        centre: Sequence[float],
        axis: Sequence[float],
        radius: float,
        albedo: Any,  # noqa: ANN401
        *,
        corners: int = 14,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Add a disc visible from the side that `axis` points to; options as for `add`."""
        normal = np.asarray(axis, dtype=np.float64)
        helper = np.array([0.0, 1.0, 0.0]) if abs(normal[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
        first = cross(normal, helper)
        first /= np.linalg.norm(first)
        second = cross(normal, first)
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        ring = np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second
        points = np.asarray(centre) + radius * ring
        self.add(points, albedo, core=np.asarray(centre) - normal, **options)

    def moved(self, position: Sequence[float] | Floats, heading: float = 0.0) -> Mesh:
        """Return the mesh turned about y (0: z stays, pi/2: z becomes x), then shifted."""
        sin, cos = np.sin(heading), np.cos(heading)
        turn = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
        shift = np.asarray(position, dtype=np.float64)
        return Mesh(
            [
                chunk._replace(
                    points=chunk.points @ turn + shift,
                    normals=None if chunk.normals is None else chunk.normals @ turn,
                    core=None if chunk.core is None else chunk.core @ turn + shift,
                )
                for chunk in self.chunks
            ]
        )

    def bounds(self) -> Floats:
        """Return the lowest and the highest coordinates, (2, 3)."""
        points = np.concatenate([chunk.points.reshape(-1, 3) for chunk in self.chunks])
        return np.stack([points.min(axis=0), points.max(axis=0)])


@dataclass
class Soup:
    """All polygons of several meshes, flat.

    `points` is (p, 3); polygon i has `counts[i]` of them from `offsets[i]` on. `owner` is the
    number of the mesh that a polygon belongs to.
    """

    points: Floats
    offsets: npt.NDArray[np.intp]
    counts: npt.NDArray[np.intp]
    normals: Floats
    albedo: Floats
    emission: Floats
    gloss: Floats
    order: Floats
    culled: npt.NDArray[np.bool_]
    casts: npt.NDArray[np.bool_]
    owner: npt.NDArray[np.intp]

    centres: Floats
    """The mean of each polygon's points, (n, 3)."""

    def facing(self, eye: Floats) -> npt.NDArray[np.bool_]:
        """Turn the normals of two-sided polygons to `eye`; return which polygons face it, (n,)."""
        toward = ((eye - self.centres) * self.normals).sum(axis=1)
        flip = (toward < 0) & ~self.culled
        self.normals[flip] *= -1
        return np.asarray(~self.culled | (toward > 0))


def plane_normals(points: Floats, offsets: npt.NDArray[np.intp]) -> Floats:
    """Return unit normals (n, 3) of polygons, given by flat points and the start of each."""
    first = points[offsets]
    a, b = points[offsets + 1] - first, points[offsets + 2] - first
    normals = np.empty_like(a)
    normals[:, 0] = a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
    normals[:, 1] = a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]
    normals[:, 2] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    normals /= np.maximum(np.sqrt((normals * normals).sum(axis=1, keepdims=True)), 1e-12)
    return normals


def gather(meshes: Sequence[Mesh]) -> Soup:
    """Flatten meshes; there must be at least one polygon."""
    chunks = [chunk for mesh in meshes for chunk in mesh.chunks]
    owner = [i for i, mesh in enumerate(meshes) for _ in mesh.chunks]
    sizes = np.array([len(chunk.points) for chunk in chunks])
    counts = np.repeat([chunk.points.shape[1] for chunk in chunks], sizes).astype(np.intp)
    points = np.concatenate([chunk.points.reshape(-1, 3) for chunk in chunks])
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)
    centres = np.add.reduceat(points, offsets, axis=0) / counts[:, None]

    total = len(counts)
    albedo, emission = np.empty((total, 3)), np.zeros((total, 3))
    cores, fixed_normals = np.full((total, 3), np.nan), np.full((total, 3), np.nan)
    order, start = np.empty(total), 0
    for chunk, size in zip(chunks, sizes.tolist(), strict=True):
        rows = slice(start, start + size)
        albedo[rows], order[rows] = chunk.albedo, chunk.order
        if chunk.emission.ndim:
            emission[rows] = chunk.emission
        if chunk.core is not None:
            cores[rows] = chunk.core
        if chunk.normals is not None:
            fixed_normals[rows] = chunk.normals
        start += size
    culled = ~np.isnan(cores[:, 0])
    normals = plane_normals(points, offsets)
    outward = ((centres - cores) * normals).sum(axis=1)
    normals[outward < 0] *= -1
    is_fixed = ~np.isnan(fixed_normals[:, 0])
    normals[is_fixed] = fixed_normals[is_fixed]
    return Soup(
        points=points,
        offsets=offsets,
        counts=counts,
        normals=normals,
        albedo=albedo,
        emission=emission,
        gloss=np.repeat([chunk.gloss for chunk in chunks], sizes),
        order=order,
        culled=culled,
        casts=np.repeat([chunk.casts for chunk in chunks], sizes),
        owner=np.repeat(owner, sizes),
        centres=centres,
    )


def clip_near(view: Floats) -> Floats:
    """Clip a polygon (k, 3) in camera axes at the near plane; the result may have no points."""
    inside = view[:, 2] >= NEAR
    kept = []
    for i in range(len(view)):
        here, there = view[i], view[(i + 1) % len(view)]
        if inside[i]:
            kept.append(here)
        if inside[i] != inside[(i + 1) % len(view)]:
            share = (NEAR - here[2]) / (there[2] - here[2])
            kept.append(here + share * (there - here))
    return np.array(kept).reshape(-1, 3)


class Projected(NamedTuple):
    """Polygons in fixed-point pixels.

    Attributes:
        pixels: (p, 2), flat, of all polygons.
        cut: Pixels (k, 2) of the polygons that the near plane clips, by their number.
        on_screen: (n,), whether a polygon is in front of the camera and inside the picture.
    """

    pixels: npt.NDArray[np.int32]
    cut: dict[int, npt.NDArray[np.int32]]
    on_screen: npt.NDArray[np.bool_]


def project(
    points: Floats, offsets: npt.NDArray[np.intp], camera: Camera, scale: float
) -> Projected:
    """Project polygons, given by flat points and the start of each."""
    view = camera.to_view(points)
    depth = view[:, 2]
    nearest = np.minimum.reduceat(depth, offsets)
    farthest = np.maximum.reduceat(depth, offsets)
    safe = view.copy()
    safe[:, 2] = np.maximum(depth, NEAR)
    pixels = camera.to_pixels(safe, scale)
    height, width = (side * scale for side in camera.size_hw)
    low = np.minimum.reduceat(pixels, offsets, axis=0)
    high = np.maximum.reduceat(pixels, offsets, axis=0)
    crosses = (nearest < NEAR) & (farthest > NEAR)
    inside = (low[:, 0] < width) & (high[:, 0] >= 0) & (low[:, 1] < height) & (high[:, 1] >= 0)
    on_screen = (farthest > NEAR) & (inside | crosses)
    ends = np.append(offsets[1:], len(points))
    cut = {}
    for i in np.flatnonzero(crosses & on_screen):
        clipped = clip_near(view[offsets[i] : ends[i]])
        if len(clipped) >= 3:
            cut[int(i)] = _fixed(camera.to_pixels(clipped, scale))
        else:
            on_screen[i] = False
    return Projected(_fixed(pixels), cut, on_screen)


def _fixed(pixels: Floats) -> npt.NDArray[np.int32]:
    # OpenCV has pixel centres at whole numbers; here they are half a pixel further.
    bounded = np.clip(pixels - 0.5, -_FAR_PIXEL, _FAR_PIXEL)
    return np.rint(bounded * (1 << _SHIFT)).astype(np.int32)


class Brush:
    """Draws polygons of a soup on a canvas, later ones over earlier ones.

    Args:
        canvas: (H, W, 4), changed in place.
        soup: The polygons.
        colours: (n, 3), for the first three channels.
        projected: Their pixels, from `project`.
        first: Number of the soup's first polygon in the fourth channel.
    """

    def __init__(
        self, canvas: Canvas, soup: Soup, colours: Floats, projected: Projected, first: int
    ) -> None:
        self._canvas, self._cut = canvas, projected.cut
        numbers = np.arange(first, first + len(colours))
        self._values = np.column_stack([colours, numbers]).tolist()
        starts, counts = soup.offsets.tolist(), soup.counts.tolist()
        pixels = projected.pixels
        self._polygons = [pixels[a : a + n] for a, n in zip(starts, counts, strict=True)]

    def paint(self, order: Sequence[int]) -> None:
        """Draw these polygons in this order."""
        fill, canvas = cv2.fillConvexPoly, self._canvas
        values, polygons, cut = self._values, self._polygons, self._cut
        for i in order:
            fill(canvas, cut.get(i, polygons[i]), values[i], cv2.LINE_8, _SHIFT)


def paint_mask(
    mask: npt.NDArray[np.uint8],
    points: Floats,
    offsets: npt.NDArray[np.intp],
    camera: Camera,
    level: int = 255,
) -> None:
    """Fill polygons, given by flat world points (p, 3), into a mask of the picture's shape."""
    projected = project(points, offsets, camera, mask.shape[1] / camera.size_hw[1])
    ends = np.append(offsets[1:], len(points)).tolist()
    starts = offsets.tolist()
    for i in np.flatnonzero(projected.on_screen).tolist():
        polygon = projected.cut.get(i)
        if polygon is None:
            polygon = projected.pixels[starts[i] : ends[i]]
        cv2.fillConvexPoly(mask, polygon, level, cv2.LINE_8, _SHIFT)
