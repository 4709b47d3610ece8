"""Painting a stage: background, light and shadow, then the objects from far to near."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from eval.street.draw.camera import Camera, Floats
from eval.street.draw.light import Singles
from eval.street.draw.raster import (
    NEAR,
    Brush,
    Canvas,
    Projected,
    Soup,
    gather,
    paint_mask,
    plane_normals,
    project,
)
from eval.street.world import backdrop
from eval.street.world.buildings import House
from eval.street.world.layout import Item, Stage
from eval.street.world.surroundings import Tree

__all__ = ["SKY_M", "Painted", "Seen", "paint_stage"]

SKY_M = 1000.0
"""Depth of the sky in metres."""

_SCALE = 2  # canvas pixels per picture pixel along a side; averaged at the end
_NOTHING = 0.0  # number of the sky; polygons are numbered from 1


class Seen(NamedTuple):
    """An object of an annotated class in the picture; for box and visibility see `StreetObject`."""

    name: str
    box_xyxy: tuple[float, float, float, float]
    visibility: float


class Painted(NamedTuple):
    """Linear light (H, W, 3), depth (H, W) in metres, and the objects of annotated classes."""

    picture: Singles
    depth_m: Singles
    seen: list[Seen]


def paint_stage(stage: Stage, houses: Sequence[House], trees: Sequence[Tree]) -> Painted:
    """Paint a stage; needs at least one item and one house."""
    return _Painting(stage, houses, trees).paint()


class _Painting:
    """The canvas of a stage, with the depth and the polygon of each pixel."""

    def __init__(self, stage: Stage, houses: Sequence[House], trees: Sequence[Tree]) -> None:
        self.stage, self.houses, self.trees = stage, houses, trees
        height, width = stage.camera.size_hw
        self.canvas: Canvas = np.empty((height * _SCALE, width * _SCALE, 4), np.float32)
        sky = backdrop.sky_colours(stage.rng, stage.camera, stage.light)
        # Negative values are emitted light; see `_light_background`.
        self.canvas[..., :3] = cv2.resize(-sky, (width * _SCALE, height * _SCALE))
        self.canvas[..., 3] = _NOTHING
        self._rays = stage.camera.rays()
        self._depth: Singles = np.empty(0, np.float32)
        self.items = [stage.items[i] for i in _back_to_front(stage.items, stage.camera)]

    def paint(self) -> Painted:
        """Paint everything; call it only once."""
        camera = self.stage.camera
        things = gather([item.mesh for item in self.items])
        ground = self._paint_background(things)
        first = len(ground.offsets) + 1
        spans = self._paint_things(things, first)
        index = self.canvas[::_SCALE, ::_SCALE, 3].astype(np.intp)
        depth, front = self._depth, index >= first
        depth[front] = _depths(things, index[front] - first, self._rays[front], camera)
        numbers = self.canvas[..., 3]
        seen = []
        for name, (low, high), extent in spans:
            x0, y0, x1, y1 = extent.box
            area = numbers[y0:y1, x0:x1]
            visible = np.count_nonzero((area >= low) & (area < high))
            box = (x0 / _SCALE, y0 / _SCALE, x1 / _SCALE, y1 / _SCALE)
            seen.append(Seen(name, box, visible / extent.pixels))
        height, width = camera.size_hw
        picture = cv2.resize(self.canvas[..., :3], (width, height), interpolation=cv2.INTER_AREA)
        return Painted(picture, depth, seen)

    def _paint_background(self, things: Soup) -> Soup:
        """Draw ground and houses in their albedo, then multiply each pixel by its light."""
        stage = self.stage
        parts = [(backdrop.draw_skyline(stage.rng, stage.night), backdrop.PLAIN)]
        parts += backdrop.draw_ground(stage.rng, stage.road)
        parts += [(house.mesh, backdrop.WALL) for house in self.houses]
        soup = gather([mesh for mesh, _ in parts])
        seen = soup.facing(stage.camera.position)
        projected = project(soup.points, soup.offsets, stage.camera, _SCALE)
        order = np.lexsort((soup.order, soup.owner))
        order = order[(seen & projected.on_screen)[order]]
        glowing = soup.emission.max(axis=1) > 0
        colours = np.where(glowing[:, None], -soup.emission, soup.albedo)
        Brush(self.canvas, soup, colours, projected, 1).paint(order.tolist())
        surfaces = np.array([surface for _, surface in parts], np.float32)[soup.owner]
        self._light_background(soup, surfaces, things)
        return soup

    def _light_background(self, soup: Soup, surfaces: Singles, things: Soup) -> None:
        camera, light = self.stage.camera, self.stage.light
        number = self.canvas[::_SCALE, ::_SCALE, 3].astype(np.intp)
        index = np.maximum(number - 1, 0)
        self._depth = _depths(soup, index, self._rays, camera)
        self._depth[number == _NOTHING] = SKY_M
        points = camera.position.astype(np.float32) + self._rays * self._depth[..., None]
        surface, across = surfaces[index], (np.abs(soup.normals[:, 0]) > 0.5)[index]
        sunlit = self._sunlit(surface, across, things)
        normals = soup.normals.astype(np.float32)
        # Divide by the albedo, because all light is multiplied by it below.
        shown = light.reflected(soup.centres, soup.normals, camera.position)
        shown *= soup.gloss[:, None] / np.maximum(soup.albedo, 0.02)
        flat = (light.without_lamps(normals, np.zeros(len(normals))) + shown)[index]
        facing = np.clip(normals @ light.sun.astype(np.float32), 0, None)[index] * sunlit
        flat += facing[..., None] * light.sun_rgb.astype(np.float32)
        if light.lamps:
            h, w = points[::2, ::2].shape[:2]
            half = light.from_lamps(
                points[::2, ::2].reshape(-1, 3), normals[index[::2, ::2].ravel()]
            )
            flat += cv2.resize(half.reshape(h, w, 3), (points.shape[1], points.shape[0]))
        pattern = backdrop.surface_pattern(surface, points, across, self.stage.road)
        factor = np.ones((*flat.shape[:2], 4), np.float32)
        np.multiply(flat, (pattern * self._contact(surface))[..., None], out=factor[..., :3])
        large = cv2.resize(factor, self.canvas.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        for top in range(0, len(large), 32):  # 32 rows fit into the CPU's cache
            rows, light_on = self.canvas[top : top + 32], large[top : top + 32]
            # Negative values are emitted light, which is not multiplied by other light. The fourth
            # channel, the polygon's number, is multiplied by 1.
            light_on *= rows
            np.maximum(light_on, -rows, out=rows)

    def _sunlit(self, surface: Singles, across: npt.NDArray[np.bool_], things: Soup) -> Singles:
        """Return the share of sun that reaches ground and house fronts, (H, W), 0..1."""
        light, camera = self.stage.light, self.stage.camera
        shape = surface.shape
        if light.sun_rgb.max() <= 0:
            return np.zeros(shape, np.float32)
        boxes = np.concatenate([_box_sides(house.box) for house in self.houses])
        solid, offsets = boxes.reshape(-1, 3), np.arange(0, 4 * len(boxes), 4)
        thin, thin_offsets = _points_of(things, things.casts)
        ground = np.zeros(shape, np.uint8)
        for points, starts in ((solid, offsets), (thin, thin_offsets)):
            flat = points - light.sun * (np.maximum(points[:, 1:2], 0) / light.sun[1])
            paint_mask(ground, flat, starts, camera)
        front = np.zeros(shape, np.uint8)
        side = -float(np.sign(light.sun[0]))
        plane = side * self.stage.road.front(side)
        if abs(light.sun[0]) > 0.12:
            opposite = [h for h in self.houses if h.box[0, 0] * side < 0]
            if opposite:
                far = np.concatenate([_box_sides(house.box) for house in opposite])
                solid, offsets = far.reshape(-1, 3), np.arange(0, 4 * len(far), 4)
                for points, starts in ((solid, offsets), (thin, thin_offsets)):
                    away = (points[:, :1] - plane) / light.sun[0]
                    paint_mask(front, points - light.sun * np.maximum(away, 0), starts, camera)
        level = np.where(surface == backdrop.WALL, np.uint8(0), ground)
        mask = np.where((surface == backdrop.WALL) & across, front, level)
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)
        return np.asarray(1 - soft / 255, dtype=np.float32)

    def _contact(self, surface: Singles) -> Singles:
        """Return the factor by which objects darken the ground beneath them, (H, W)."""
        mask = np.zeros(surface.shape, np.uint8)
        prints = [item.footprint for item in self.items if item.footprint is not None]
        if prints:
            paint_mask(
                mask, np.concatenate(prints), np.arange(0, 4 * len(prints), 4), self.stage.camera
            )
        width = surface.shape[1]
        soft = cv2.GaussianBlur(mask, (0, 0), 2.2 * width / 640).astype(np.float32)
        soft *= (surface != backdrop.WALL) / np.float32(255)
        return np.asarray(1 - np.float32(0.72) * soft)

    def _paint_things(self, soup: Soup, first: int) -> list[tuple[str, tuple[int, int], _Extent]]:
        """Draw the items; return names, polygon numbers and extents of annotated items."""
        stage = self.stage
        eye = stage.camera.position
        seen = soup.facing(eye)
        centres = soup.centres
        colours = stage.light.on(centres, soup.normals, self._reached(centres)) * soup.albedo
        glossy = soup.gloss > 0
        shown = stage.light.reflected(centres[glossy], soup.normals[glossy], eye)
        colours[glossy] += shown * soup.gloss[glossy, None]
        colours = np.maximum(colours, soup.emission)
        projected = project(soup.points, soup.offsets, stage.camera, _SCALE)
        far = np.linalg.norm(centres - eye, axis=1)
        order = np.lexsort((-far, soup.order, soup.owner))
        order = order[(seen & projected.on_screen)[order]]
        owners = soup.owner[order]
        starts = np.searchsorted(owners, np.arange(len(self.items) + 1))
        bounds = np.searchsorted(soup.owner, np.arange(len(self.items) + 1))
        brush = Brush(self.canvas, soup, colours, projected, first)
        spans = []
        for number, item in enumerate(self.items):
            chosen = order[starts[number] : starts[number + 1]]
            brush.paint(chosen.tolist())
            if item.name is not None and len(chosen):
                span = (int(bounds[number]) + first, int(bounds[number + 1]) + first)
                extent = self._extent(span, chosen, soup, projected)
                if extent is not None:
                    spans.append((item.name, span, extent))
        return spans

    def _extent(
        self, span: tuple[int, int], chosen: npt.NDArray[np.intp], soup: Soup, projected: Projected
    ) -> _Extent | None:
        """Measure an object right after drawing it, when nothing hides it yet."""
        height, width = self.canvas.shape[:2]
        if any(int(i) in projected.cut for i in chosen):
            low, high = np.array([0, 0]), np.array([width, height])
        else:
            corners = projected.pixels[_flat_indices(soup, chosen)] // 16
            low = np.clip(corners.min(axis=0) - 1, 0, [width, height])
            high = np.clip(corners.max(axis=0) + 3, 0, [width, height])
        numbers = self.canvas[low[1] : high[1], low[0] : high[0], 3]
        mask = (numbers >= span[0]) & (numbers < span[1])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        x0, x1 = int(low[0] + columns[0]), int(low[0] + columns[-1] + 1)
        y0, y1 = int(low[1] + rows[0]), int(low[1] + rows[-1] + 1)
        return _Extent((x0, y0, x1, y1), int(np.count_nonzero(mask)))

    def _reached(self, points: Floats) -> Floats:
        """Return the share of the sun that houses and trees let through to points (n, 3)."""
        light = self.stage.light
        share = np.ones(len(points))
        if light.sun_rgb.max() <= 0:
            return share
        with np.errstate(divide="ignore"):
            inverse = 1 / light.sun
        for house in self.houses:
            near, far = (house.box[0] - points) * inverse, (house.box[1] - points) * inverse
            enter, leave = np.minimum(near, far).max(axis=1), np.maximum(near, far).min(axis=1)
            share[(leave > 0) & (enter < leave)] = 0.0
        for tree in self.trees:
            toward = tree.centre - points
            along = toward @ light.sun
            beside = (toward * toward).sum(axis=1) - along * along
            share[(along > tree.radius) & (beside < (0.8 * tree.radius) ** 2)] *= 0.35
        return share


class _Extent(NamedTuple):
    """Box in canvas pixels and pixel count of an object that nothing hides."""

    box: tuple[int, int, int, int]
    pixels: int


def _depths(soup: Soup, index: npt.NDArray[np.intp], rays: Singles, camera: Camera) -> Singles:
    """Return the depth (...) where rays (..., 3) meet the polygons `index` (...)."""
    normals = plane_normals(soup.points, soup.offsets)
    offsets = ((soup.points[soup.offsets] - camera.position) * normals).sum(axis=1)
    depth = camera.to_view(soup.points)[:, 2]
    low = np.maximum(np.minimum.reduceat(depth, soup.offsets), NEAR)
    high = np.maximum(np.maximum.reduceat(depth, soup.offsets), NEAR)
    table = np.column_stack([normals, offsets, low, high]).astype(np.float32)
    chosen = np.take(table, index, axis=0)
    along = (rays * chosen[..., :3]).sum(axis=-1)
    steep = np.where(np.abs(along) < 1e-6, np.float32(1e-6), along)
    return np.asarray(np.clip(chosen[..., 3] / steep, chosen[..., 4], chosen[..., 5]))


def _flat_indices(soup: Soup, chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the indices in `soup.points` of the points of the chosen polygons."""
    counts = soup.counts[chosen]
    ends = np.cumsum(counts)
    within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    return np.asarray(np.repeat(soup.offsets[chosen], counts) + within)


def _box_sides(box: Floats) -> Floats:
    """Return the four walls and the top of a box, (5, 4, 3)."""
    (x0, y0, z0), (x1, y1, z1) = box
    return np.array(
        [
            [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)],
            [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
            [(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)],
            [(x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)],
            [(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)],
        ]
    )


def _points_of(soup: Soup, chosen: npt.NDArray[np.bool_]) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Return the flat points of some polygons, and the start of each."""
    which = np.flatnonzero(chosen)
    if not len(which):
        return np.zeros((0, 3)), np.zeros(0, np.intp)
    ends = np.cumsum(soup.counts[which])
    return soup.points[_flat_indices(soup, which)], np.asarray(ends - soup.counts[which])


def _back_to_front(items: Sequence[Item], camera: Camera) -> list[int]:
    """Sort items for painting: of two items separated by a plane, the farther comes first."""
    low = np.array([item.box[0] for item in items])
    high = np.array([item.box[1] for item in items])
    eye = camera.position
    before = np.zeros((len(items), len(items)), bool)
    for axis in (1, 0, 2):
        apart = low[:, None, axis] >= high[None, :, axis] - 1e-6
        middle = (low[:, None, axis] + high[None, :, axis]) / 2
        upper_first = apart & (eye[axis] < middle)
        lower_first = apart & (eye[axis] >= middle)
        # Depth is the last axis and overrides the others.
        before[upper_first | lower_first.T] = True
        before[upper_first.T | lower_first] = False
    far = np.linalg.norm((low + high) / 2 - eye, axis=1)
    waiting = before.sum(axis=0)
    order: list[int] = []
    remaining = np.ones(len(items), bool)
    while remaining.any():
        ready = remaining & (waiting == 0)
        candidates = np.flatnonzero(ready if ready.any() else remaining)
        chosen = int(candidates[np.argmax(far[candidates])])
        order.append(chosen)
        remaining[chosen] = False
        waiting = waiting - before[chosen]
    return order
