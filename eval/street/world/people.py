"""Pedestrians and cyclists: limbs as shaded capsules that face the camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.street.draw.camera import Floats
from eval.street.draw.raster import Mesh, cross, srgb

__all__ = ["Figure", "draw_bicycle", "draw_pedestrian", "draw_rider"]

_UP = np.array([0.0, 1.0, 0.0])
_SKINS = ((236, 190, 160), (222, 170, 135), (190, 136, 100), (140, 94, 66), (96, 64, 46))
_HAIR = ((30, 24, 20), (58, 40, 28), (110, 76, 44), (170, 134, 84), (150, 150, 150), (24, 24, 26))
_TOPS = (
    (36, 38, 46), (60, 70, 92), (150, 34, 38), (206, 202, 192), (92, 96, 82), (42, 84, 128),
    (214, 168, 44), (112, 60, 96), (226, 226, 228), (70, 52, 42), (38, 110, 100), (196, 96, 46),
)  # fmt: skip
_TROUSERS = ((32, 36, 52), (48, 58, 86), (28, 28, 30), (104, 94, 78), (74, 76, 80), (150, 138, 116))
_UMBRELLAS = ((26, 26, 30), (160, 30, 44), (40, 70, 130), (210, 180, 60), (90, 120, 90))


@dataclass
class Figure:
    """Collects the parts of a person or a bicycle.

    Args:
        position: (3,), metres, between the feet.
        heading: Radians; 0 looks along z, pi/2 along x.
        eye: (3,), position of the camera.
    """

    position: Floats
    heading: float
    eye: Floats
    mesh: Mesh = field(default_factory=Mesh)
    _limbs: list[tuple[Floats, Floats, Floats, Floats]] = field(default_factory=list)

    def world(self, points: Sequence[Sequence[float]] | Floats) -> Floats:
        """Turn points (n, 3) in the figure's axes (right, up, ahead) into world points."""
        sin, cos = math.sin(self.heading), math.cos(self.heading)
        turn = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
        return np.asarray(np.asarray(points, dtype=np.float64) @ turn + self.position)

    def limbs(
        self, ends: Sequence[Sequence[float]], radii: Sequence[Sequence[float]], albedo: Floats,
        order: float,
    ) -> None:  # fmt: skip
        """Add capsules.

        Args:
            ends: (n, 6): two points each, in the figure's axes.
            radii: (n, 2), radii at these two points, metres.
            albedo: (3,) or (n, 3).
            order: See `Mesh.add`.
        """
        both = np.asarray(ends, dtype=np.float64).reshape(-1, 2, 3)
        n = len(both)
        width = np.asarray(radii, dtype=np.float64)
        self._limbs.append(
            (both, width, np.broadcast_to(albedo, (n, 3)), np.broadcast_to(order, n))
        )

    def finished(self) -> Mesh:
        """Turn the limbs into polygons and return the mesh."""
        if self._limbs:
            ends, radii, albedo, order = (
                np.concatenate(part) for part in zip(*self._limbs, strict=True)
            )
            self._add_capsules(ends, radii, albedo, order)
            self._limbs.clear()
        return self.mesh

    def _add_capsules(self, ends: Floats, radii: Floats, albedo: Floats, order: Floats) -> None:
        points = self.world(ends.reshape(-1, 3)).reshape(-1, 2, 3)
        a, b = points[:, 0], points[:, 1]
        ra, rb = radii.T[..., None]
        sight = self.eye - (a + b) / 2
        far = np.linalg.norm(sight, axis=1, keepdims=True)
        sight /= far
        axis = b - a
        axis /= np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-9)
        side = cross(axis, sight)
        length = np.linalg.norm(side, axis=1, keepdims=True)
        # Seen along its axis, a limb is a disc, and any direction can serve as its side.
        side = np.where(length > 0.05, side / np.maximum(length, 1e-9), np.array([1.0, 0.0, 0.0]))
        along = cross(sight, side)
        depth = order + 0.01 * (1.0 - far[:, 0] / 200)
        for left, right, turn in ((-1.0, -0.3, -0.75), (-0.3, 0.35, 0.0), (0.35, 1.0, 0.75)):
            corners = [
                a + side * ra * left - along * ra * _bulge(left),
                a + side * ra * right - along * ra * _bulge(right),
                b + side * rb * right + along * rb * _bulge(right),
                b + side * rb * left + along * rb * _bulge(left),
            ]
            normals = side * turn + sight * math.sqrt(1 - turn * turn)
            self.mesh.add(np.stack(corners, axis=1), albedo, normals=normals, order=depth)

    def ball(
        self, centre: Sequence[float], radii: tuple[float, float], albedo: Floats, order: float
    ) -> None:
        """Add an ellipsoid with a horizontal and a vertical radius, shaded in three stripes."""
        middle = self.world([centre])[0]
        sight = self.eye - middle
        sight /= np.linalg.norm(sight)
        side = cross(_UP, sight)
        side /= np.linalg.norm(side)
        up = cross(sight, side)
        for low, high, turn in ((-1.0, -0.35, -0.8), (-0.35, 0.4, 0.0), (0.4, 1.0, 0.8)):
            xs = np.linspace(low, high, 4)
            ys = np.sqrt(np.maximum(1 - xs * xs, 0.0))
            outline = np.concatenate([np.stack([xs, ys], 1), np.stack([xs, -ys], 1)[::-1]])
            points = middle + outline[:, :1] * radii[0] * side + outline[:, 1:] * radii[1] * up
            normal = side * turn + sight * math.sqrt(1 - turn * turn) + up * 0.15
            self.mesh.add(points, albedo, normals=normal / np.linalg.norm(normal), order=order)


def _bulge(share: float) -> float:
    return 0.8 * math.sqrt(max(1 - share * share, 0.0))


def _choose(rng: np.random.Generator, levels: Sequence[tuple[int, int, int]]) -> Floats:
    return np.asarray(srgb(*levels[int(rng.integers(len(levels)))]) * rng.uniform(0.8, 1.2))


def draw_pedestrian(
    rng: np.random.Generator, position: Floats, heading: float, eye: Floats
) -> tuple[Mesh, Mesh | None]:
    """Draw a person who walks or stands, possibly with an umbrella.

    Args:
        rng: Chooses age, clothes, pose and what the person carries.
        position: (3,), metres.
        heading: Radians, as in `Figure`.
        eye: (3,), the camera.
    """
    figure = Figure(position, heading, eye)
    child = rng.random() < 0.12
    height = float(rng.uniform(1.1, 1.4) if child else rng.normal(1.72, 0.08))
    s = height / 1.75
    build = float(rng.uniform(0.9, 1.2))
    swing = float(rng.uniform(0.15, 0.42)) * (1 if rng.random() < 0.75 else 0.12)
    swing *= float(rng.choice([-1, 1]))
    top, trousers, skin = _choose(rng, _TOPS), _choose(rng, _TROUSERS), _choose(rng, _SKINS)
    coat = rng.random() < 0.3
    _add_legs(figure, s, build, swing, trousers, bare=skin if rng.random() < 0.12 else None)
    _add_torso(figure, s, build, top, coat=coat)
    umbrella = rng.random() < 0.1
    _add_arms(figure, s, build, -swing, (top, skin), raised=umbrella)
    _add_head(figure, s, (skin, _choose(rng, _HAIR)), long_hair=rng.random() < 0.4)
    if rng.random() < 0.25:
        bag = _choose(rng, _TOPS)
        figure.limbs([(0, 1.38 * s, -0.17, 0, 1.08 * s, -0.18)], [(0.14, 0.16)], bag,
                     3.5 if _seen_from_behind(figure) else 1.5)  # fmt: skip
    elif rng.random() < 0.2:
        bag = _choose(rng, _TOPS)
        figure.limbs([(0.3, 0.72 * s, 0, 0.3, 0.5 * s, 0)], [(0.1, 0.13)], bag, 4)
    if umbrella:
        shade = Figure(position, heading, eye)
        _add_umbrella(shade, s, _choose(rng, _UMBRELLAS))
        return figure.finished(), shade.finished()
    return figure.finished(), None


def _seen_from_behind(figure: Figure) -> bool:
    toward = figure.eye - figure.position
    return float(math.sin(figure.heading) * toward[0] + math.cos(figure.heading) * toward[2]) < 0


def _add_legs(
    figure: Figure, s: float, build: float, swing: float, cloth: Floats, bare: Floats | None
) -> None:
    for side in (-1.0, 1.0):
        reach = swing * side
        hip = (side * 0.09 * build, 0.92 * s, 0.0)
        knee = (side * 0.1, (0.5 + 0.02 * abs(reach)) * s, 0.5 * reach + 0.06 * abs(swing))
        foot = (side * 0.1, (0.09 + 0.12 * max(-reach, 0.0)) * s, 1.05 * reach - 0.06 * abs(swing))
        toe = (foot[0] + side * 0.02, max(foot[1] - 0.05, 0.03), foot[2] + 0.17)
        colours = np.stack([cloth, cloth if bare is None else bare])
        figure.limbs(
            [(*hip, *knee), (*knee, *foot)],
            [(0.098 * build * s, 0.072 * build * s), (0.07 * build * s, 0.05 * s)],
            colours, 1.0 if reach < 0 else 1.2,
        )  # fmt: skip
        figure.limbs(
            [(*foot[:1], max(foot[1] - 0.04, 0.035), foot[2], *toe)], [(0.048, 0.036)],
            srgb(30, 28, 28), 1.1 if reach < 0 else 1.3,
        )  # fmt: skip


def _add_torso(figure: Figure, s: float, build: float, cloth: Floats, *, coat: bool) -> None:
    wide = 0.165 * build * s
    parts: list[tuple[float, ...]] = [(0, 1.4 * s, 0, 0, 1.02 * s, 0)]
    radii = [(wide * 1.02, wide * 0.86)]
    if coat:
        parts.append((0, 1.05 * s, 0, 0, 0.68 * s, 0.02))
        radii.append((wide * 0.88, wide * 1.08))
    else:
        parts.append((0, 1.04 * s, 0, 0, 0.95 * s, 0))
        radii.append((wide * 0.86, wide * 0.92))
    parts.append((-wide * 0.75, 1.42 * s, 0, wide * 0.75, 1.42 * s, 0))
    radii.append((0.085 * s, 0.085 * s))
    figure.limbs(parts, radii, cloth, 2)


def _add_arms(
    figure: Figure, s: float, build: float, swing: float, colours: tuple[Floats, Floats], *,
    raised: bool,
) -> None:  # fmt: skip
    for side in (-1.0, 1.0):
        reach = swing * side * 0.8
        shoulder = (side * 0.2 * build * s, 1.4 * s, 0.0)
        elbow = (side * 0.25 * build * s, 1.12 * s, 0.45 * reach - 0.03)
        hand = (side * 0.25 * build * s, 0.86 * s, reach + 0.06)
        if raised and side > 0:
            elbow, hand = (0.26 * s, 1.14 * s, 0.1), (0.14 * s, 1.28 * s, 0.3)
        # The arm on the far side of the body is drawn before the body.
        beyond = figure.world([shoulder])[0] - figure.position
        toward = figure.eye - figure.position
        order = 3.0 if float(beyond[[0, 2]] @ toward[[0, 2]]) > -0.06 * abs(toward[2]) else 1.6
        radii = [(0.056 * s, 0.046 * s), (0.045 * s, 0.035 * s)]
        figure.limbs([(*shoulder, *elbow), (*elbow, *hand)], radii, colours[0] * 0.93, order)
        figure.ball(hand, (0.042 * s, 0.05 * s), colours[1], order + 0.1)


def _add_head(figure: Figure, s: float, colours: tuple[Floats, Floats], *, long_hair: bool) -> None:
    skin, hair = colours
    behind = _seen_from_behind(figure)
    figure.limbs([(0, 1.46 * s, 0, 0, 1.56 * s, 0.01)], [(0.055 * s, 0.05 * s)], skin * 0.8, 2.5)
    if long_hair and not behind:
        figure.ball((0, 1.58 * s, -0.03), (0.105 * s, 0.15 * s), hair, 2.4)
    figure.ball((0, 1.645 * s, 0.015), (0.082 * s, 0.108 * s), skin, 4)
    figure.ball((0, 1.685 * s, -0.022), (0.091 * s, 0.082 * s), hair, 5 if behind else 3.8)
    if not behind:
        figure.ball((0, 1.725 * s, 0.02), (0.072 * s, 0.036 * s), hair, 4.5)
    elif long_hair:
        figure.ball((0, 1.6 * s, -0.03), (0.1 * s, 0.15 * s), hair, 5)


def _add_umbrella(figure: Figure, s: float, cloth: Floats) -> None:
    figure.limbs(
        [(0.14 * s, 1.2 * s, 0.3, 0.1 * s, 2.2 * s, 0.16)], [(0.012, 0.012)], srgb(60, 60, 62), 5
    )
    centre = figure.world([(0.1 * s, 2.22 * s, 0.16)])[0]
    angles = np.linspace(0, 2 * np.pi, 9)
    rim = centre + np.stack([0.52 * np.cos(angles), np.full(9, -0.24), 0.52 * np.sin(angles)], 1)
    panels = np.stack([np.broadcast_to(centre, (8, 3)), rim[:-1], rim[1:]], axis=1)
    shade = np.where(np.arange(8) % 2, 1.0, 0.88)[:, None]
    depth = -np.linalg.norm(panels.mean(axis=1) - figure.eye, axis=1)
    figure.mesh.add(panels, cloth * shade, order=6 + depth / 1000)


def draw_bicycle(rng: np.random.Generator, position: Floats, heading: float, eye: Floats) -> Mesh:
    """Draw a bicycle; arguments as for `draw_pedestrian`."""
    figure = Figure(position, heading, eye)
    frame = _choose(rng, _TOPS)
    rubber, metal = srgb(22, 22, 24), srgb(120, 122, 126)
    angles = np.linspace(0, 2 * np.pi, 17)
    for z in (-0.53, 0.53):
        rim = np.stack([np.zeros(17), 0.34 + 0.32 * np.sin(angles), z + 0.32 * np.cos(angles)], 1)
        figure.limbs(np.hstack([rim[:-1], rim[1:]]).tolist(), [(0.036, 0.036)] * 16, rubber, 0)
        spokes = np.hstack([np.broadcast_to([0, 0.34, z], (8, 3)), rim[:16:2]])
        figure.limbs(spokes.tolist(), [(0.006, 0.006)] * 8, metal, -0.2)
    crank, seat, head = (0, 0.3, -0.05), (0, 0.86, -0.2), (0, 0.86, 0.38)
    tubes = [(*crank, *seat), (*crank, *head), (*seat, *head), (0, 0.34, -0.53, *crank),
             (0, 0.34, -0.53, *seat), (0, 0.34, 0.53, 0, 0.98, 0.34)]  # fmt: skip
    figure.limbs(tubes, [(0.034, 0.034)] * len(tubes), frame, 0.5)
    bar = [(-0.27, 1.04, 0.3, 0.27, 1.04, 0.3), (0, 0.95, 0.35, 0, 1.04, 0.3)]
    figure.limbs(bar, [(0.028, 0.028)] * 2, rubber, 0.7)
    figure.limbs([(0, 0.95, -0.32, 0, 0.96, -0.08)], [(0.075, 0.04)], rubber, 0.7)
    return figure.finished()


def draw_rider(rng: np.random.Generator, position: Floats, heading: float, eye: Floats) -> Mesh:
    """Draw a person who rides a bicycle; see `draw_pedestrian`."""
    figure = Figure(position, heading, eye)
    top, cloth, skin = _choose(rng, _TOPS), _choose(rng, _TROUSERS), _choose(rng, _SKINS)
    turn = float(rng.uniform(0, 2 * np.pi))
    for side in (-1.0, 1.0):
        pedal = (
            side * 0.13,
            0.3 + 0.17 * math.sin(turn) * side,
            -0.02 + 0.17 * math.cos(turn) * side,
        )
        knee = (
            side * 0.13,
            0.74 + 0.09 * math.sin(turn) * side,
            0.16 + 0.05 * math.cos(turn) * side,
        )
        hip = (side * 0.1, 0.96, -0.2)
        figure.limbs([(*hip, *knee), (*knee, *pedal)], [(0.1, 0.075), (0.07, 0.05)], cloth, 1)
        figure.limbs([(*pedal, pedal[0], pedal[1] - 0.03, pedal[2] + 0.17)], [(0.05, 0.04)],
                     srgb(28, 28, 30), 1.1)  # fmt: skip
        shoulder, hand = (side * 0.19, 1.46, 0.06), (side * 0.25, 1.07, 0.3)
        elbow = (side * 0.28, 1.2, 0.14)
        figure.limbs([(*shoulder, *elbow), (*elbow, *hand)], [(0.06, 0.048), (0.047, 0.036)],
                     top * 0.92, 3)  # fmt: skip
        figure.ball(hand, (0.045, 0.045), skin, 3.1)
    figure.limbs([(0, 1.43, 0.05, 0, 1.0, -0.2), (-0.13, 1.46, 0.06, 0.13, 1.46, 0.06)],
                 [(0.17, 0.155), (0.09, 0.09)], top, 2)  # fmt: skip
    figure.limbs([(0, 1.5, 0.06, 0, 1.6, 0.1)], [(0.055, 0.05)], skin * 0.8, 2.5)
    behind = _seen_from_behind(figure)
    figure.ball((0, 1.7, 0.13), (0.085, 0.11), skin, 4)
    helmet = rng.random() < 0.6
    cover = _choose(rng, _TOPS) if helmet else _choose(rng, _HAIR)
    figure.ball((0, 1.755, 0.1), (0.105, 0.085), cover, 5 if behind or helmet else 3.8)
    return figure.finished()
