"""The layout of a street: road, camera, traffic and people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.street.draw.camera import Camera, Floats
from eval.street.draw.light import Glow, Lamp, Lighting
from eval.street.draw.raster import Mesh
from eval.street.world.backdrop import Road
from eval.street.world.heavy import draw_bus, draw_truck
from eval.street.world.people import draw_bicycle, draw_pedestrian, draw_rider
from eval.street.world.vehicles import Bulb, Vehicle, draw_car

__all__ = ["Item", "Stage", "choose_camera", "choose_road", "place_people", "place_traffic"]

_HEAD = np.array([1.0, 0.95, 0.84])
_TAIL = np.array([1.0, 0.06, 0.03])


@dataclass
class Item:
    """An object in the street.

    Attributes:
        mesh: Its polygons in world axes.
        name: Its class; None: not annotated.
        box: (2, 3), bounds in metres, used to sort objects for painting.
        footprint: (4, 3), the ground that it darkens, or None.
        glows: Points of light at night.
    """

    mesh: Mesh
    name: str | None
    box: Floats
    footprint: Floats | None = None
    glows: list[Glow] = field(default_factory=list)


@dataclass
class Stage:
    """A street to which objects are added.

    Attributes:
        rng: Source of all random choices.
        road: The street's cross-section.
        camera: The camera.
        light: Sun, sky and lamps; objects add their lamps.
        night: Whether it is night.
        items: The objects so far.
        occupied: Occupied areas of ground: lowest x, highest x, lowest z, highest z; metres.
    """

    rng: np.random.Generator
    road: Road
    camera: Camera
    light: Lighting
    night: bool
    items: list[Item] = field(default_factory=list)
    occupied: list[tuple[float, float, float, float]] = field(default_factory=list)

    def occupy(self, x: float, z: float, half_x: float, half_z: float) -> bool:
        """Occupy an area, unless part of it is occupied or directly in front of the camera.

        Args:
            x: Centre, metres.
            z: Centre, metres.
            half_x: Half the side along x, metres.
            half_z: Half the side along z, metres.

        Returns:
            Whether the area was free.
        """
        x0, x1, z0, z1 = area = (x - half_x, x + half_x, z - half_z, z + half_z)
        eye = self.camera
        if x0 - 0.8 < eye.x < x1 + 0.8 and z0 < 2.5 and eye.height < 4:
            return False
        for left, right, near, far in self.occupied:
            if x0 < right and left < x1 and z0 < far and near < z1:
                return False
        self.occupied.append(area)
        return True

    def level(self, x: float, z: float) -> float:
        """Return the height of the ground in metres; pavements lie above the road."""
        junction = self.road.junction
        on_cross_street = junction is not None and junction[0] < z < junction[1]
        return 0.12 if abs(x) > self.road.kerb and not on_cross_street else 0.0

    def add(self, mesh: Mesh, name: str | None = None, *, shade: tuple[float, float] | None = None,
            glows: Sequence[Glow] = ()) -> None:  # fmt: skip
        """Add an object.

        Args:
            mesh: Its polygons in world axes.
            name: Its class; None: not annotated.
            shade: Half the sides along x and z of the ground that it darkens, metres.
            glows: Points of light at night.
        """
        box = mesh.bounds()
        footprint = None
        if shade is not None:
            cx, cz = (box[0, 0] + box[1, 0]) / 2, (box[0, 2] + box[1, 2]) / 2
            (a, b), y = shade, self.level(cx, cz)
            footprint = np.array(
                [(cx - a, y, cz - b), (cx + a, y, cz - b), (cx + a, y, cz + b), (cx - a, y, cz + b)]
            )
        self.items.append(Item(mesh, name, box, footprint, list(glows)))


def choose_road(rng: np.random.Generator) -> Road:
    """Choose a street's cross-section, crosswalk and cross street."""
    lanes = int(rng.choice([1, 2], p=[0.6, 0.4]))
    parking = 2.3 if rng.random() < 0.6 else 0.0
    crossing = float(rng.uniform(8, 22)) if rng.random() < 0.65 else None
    junction = None
    if crossing is not None and rng.random() < 0.6:
        junction = (crossing + 3.0, crossing + 3.0 + float(rng.uniform(8, 12)))
    verge = 1.3 if rng.random() < 0.25 else 0.0
    pavement = (float(rng.uniform(3.2, 5.5)), float(rng.uniform(3.2, 5.5)))
    return Road(float(rng.uniform(3.1, 3.6)), lanes, parking, pavement, verge, crossing, junction)


def choose_camera(rng: np.random.Generator, road: Road, size_hw: tuple[int, int]) -> Camera:
    """Choose the position of the camera: in a car, on a pavement or on a mast."""
    height, width = size_hw
    focal = float(rng.uniform(560, 840)) * width / 640
    kind = str(rng.choice(["car", "pavement", "mast"], p=[0.5, 0.25, 0.25]))
    if kind == "car":
        x, eye = road.lane * float(rng.uniform(0.3, 0.7)), float(rng.uniform(1.35, 2.2))
        if road.lanes == 2 and rng.random() < 0.5:
            x += road.lane
        yaw, horizon = float(rng.normal(0, 0.035)), float(rng.uniform(0.4, 0.52))
    elif kind == "pavement":
        side = float(rng.choice([-1, 1]))
        x, eye = side * (road.kerb + float(rng.uniform(-0.3, 1.2))), float(rng.uniform(1.6, 2.7))
        yaw, horizon = -side * float(rng.uniform(0.06, 0.26)), float(rng.uniform(0.4, 0.5))
    else:
        x, eye = float(rng.uniform(-0.8, 1.0)) * road.kerb, float(rng.uniform(3.2, 4.8))
        yaw = -float(np.sign(x)) * float(rng.uniform(0.0, 0.14))
        horizon = float(rng.uniform(0.24, 0.36))
    pitch = math.atan((0.5 - horizon) * height / focal)
    return Camera(x, eye, yaw, pitch, float(rng.normal(0, 0.008)), focal, size_hw)


def place_traffic(stage: Stage) -> None:
    """Put vehicles on lanes, on the cross street and on parking strips."""
    rng, road = stage.rng, stage.road
    density = float(rng.uniform(0.5, 1.2))
    for side in (1.0, -1.0):
        for lane in range(road.lanes):
            x = side * (lane + 0.5) * road.lane
            same = side > 0 and abs(stage.camera.x - x) < road.lane * 0.6
            z = float(rng.uniform(8, 22) if same else rng.uniform(4, 20))
            for _ in range(int(rng.integers(1, 4))):
                if rng.random() < density:
                    heading = (0.0 if side > 0 else math.pi) + float(rng.normal(0, 0.025))
                    _drive(
                        stage,
                        _choose_vehicle(rng, stage.night),
                        x + float(rng.normal(0, 0.2)),
                        z,
                        heading,
                    )
                z += 9 + float(rng.exponential(9))
    if road.junction and rng.random() < 0.75:
        for share, heading in ((0.3, math.pi / 2), (0.72, -math.pi / 2)):
            if rng.random() < 0.65:
                z = road.junction[0] + share * (road.junction[1] - road.junction[0])
                vehicle = _choose_vehicle(rng, stage.night)
                _drive(
                    stage,
                    vehicle,
                    float(rng.uniform(-8, 8)),
                    z,
                    heading + float(rng.normal(0, 0.06)),
                )
    if road.parking:
        _park(stage)
    eye = stage.camera
    if stage.night and eye.height < 2.25 and 0 < eye.x < road.edge:
        # The camera is in a car, whose headlights shine ahead.
        beam = np.array([math.sin(eye.yaw) + 0.04, -0.06, 1.0])
        place = np.array([eye.x, 0.65, 1.0])
        stage.light.lamps.append(Lamp(place, beam / np.linalg.norm(beam), _HEAD * 200, 24))


def _park(stage: Stage) -> None:
    rng, road = stage.rng, stage.road
    share = float(rng.uniform(0.15, 0.75))
    for side in (-1.0, 1.0):
        for z in np.arange(3.0, 50.0, 6.0):
            blocked = road.crossing is not None and road.crossing - 7 < z < road.crossing + 3
            if road.junction:
                blocked = blocked or road.junction[0] - 3 < z < road.junction[1] + 3
            if not blocked and rng.random() < share * math.exp(-z / 60):
                heading = (0.0 if side > 0 else math.pi) + float(rng.normal(0, 0.03))
                x = side * (road.edge + 1.1)
                vehicle = (
                    draw_car(rng, lit=False) if rng.random() < 0.9 else draw_truck(rng, lit=False)
                )
                _drive(stage, ("car" if vehicle.size[2] < 2.5 else "truck", vehicle), x, z, heading)


def _choose_vehicle(rng: np.random.Generator, night: bool) -> tuple[str, Vehicle]:
    name = str(rng.choice(["car", "bus", "truck"], p=[0.68, 0.15, 0.17]))
    lit = night or rng.random() < 0.25
    if name == "bus":
        return name, draw_bus(rng, lit=lit, night=night)
    return name, (draw_car if name == "car" else draw_truck)(rng, lit=lit)


def _drive(stage: Stage, named: tuple[str, Vehicle], x: float, z: float, heading: float) -> None:
    """Place a vehicle whose near end is at z, if there is room."""
    name, vehicle = named
    length, width, _ = vehicle.size
    across = abs(math.sin(heading)) > 0.7
    half_x, half_z = (length / 2, width / 2) if across else (width / 2, length / 2)
    if not across:
        z += half_z
    if z > 58 or not stage.occupy(x, z, half_x + 0.25, half_z + 0.6):
        return
    position = np.array([x, 0.0, z])
    mesh = vehicle.placed(position, heading, stage.camera.position)
    glows = [glow for bulb in vehicle.bulbs for glow in _glow(stage, bulb, position, heading)]
    stage.add(mesh, name, shade=(half_x * 1.02, half_z * 1.0), glows=glows)
    heads = [bulb for bulb in vehicle.bulbs if bulb.kind == "head"]
    if stage.night and heads and z < 60:
        ahead = np.array([math.sin(heading), 0.0, math.cos(heading)])
        nose = position + ahead * (length / 2 + 0.3) + [0, 0.65, 0]
        beam = ahead + np.array([0, -0.07, 0])
        stage.light.lamps.append(Lamp(nose, beam / np.linalg.norm(beam), _HEAD * 240, 26))
        tail = position - ahead * (length / 2 + 0.25) + [0, 0.8, 0]
        stage.light.lamps.append(Lamp(tail, -ahead, _TAIL * 3, 1))


def _glow(stage: Stage, bulb: Bulb, position: Floats, heading: float) -> list[Glow]:
    """Return the glow of a bulb; empty by day, or if it faces away from the camera."""
    sin, cos = math.sin(heading), math.cos(heading)
    x, y, z = bulb.position
    place = position + np.array([x * cos + z * sin, y, z * cos - x * sin])
    ahead = np.array([sin, 0.0, cos]) * bulb.facing
    toward = stage.camera.position - place
    cosine = float(ahead @ toward / np.linalg.norm(toward))
    if not stage.night or cosine <= 0.05:
        return []
    if bulb.kind == "head":
        return [Glow(place, _HEAD, 1.2 + 5.0 * cosine**12)]
    return [Glow(place, _TAIL, 1.0 * cosine)]


def place_people(stage: Stage) -> None:
    """Put pedestrians, riders and parked bicycles into the street."""
    rng, road = stage.rng, stage.road
    for _ in range(int(rng.integers(2, 7))):
        side = float(rng.choice([-1, 1]))
        low = road.kerb + 0.4 + road.verge
        x = side * float(rng.uniform(low, max(road.front(side) - 0.5, low + 0.2)))
        z = float(rng.uniform(4.5, 10) if rng.random() < 0.5 else rng.uniform(9, 24))
        heading = float(rng.choice([0, math.pi])) + float(rng.normal(0, 0.3))
        _walk(stage, x, z, heading)
        if rng.random() < 0.3:
            _walk(stage, x + float(rng.choice([-0.7, 0.7])), z + float(rng.normal(0, 0.2)), heading)
    if road.crossing is not None:
        for _ in range(int(rng.integers(0, 4))):
            x = float(rng.uniform(-road.kerb, road.kerb))
            _walk(
                stage,
                x,
                road.crossing + float(rng.uniform(-1.3, 1.3)),
                float(rng.choice([-1, 1])) * math.pi / 2,
            )
    elif rng.random() < 0.3:
        _walk(
            stage, float(rng.uniform(-road.kerb, road.kerb)), float(rng.uniform(7, 17)), math.pi / 2
        )
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.25, 0.4, 0.25, 0.1]))):
        _ride(stage)
    if rng.random() < 0.45:
        side = float(rng.choice([-1, 1]))
        z, lengthwise = float(rng.uniform(5, 15)), rng.random() < 0.5
        for _ in range(int(rng.integers(1, 4))):
            x = side * (road.kerb + 0.8) if lengthwise else side * (road.front(side) - 1.0)
            heading = float(rng.normal(0, 0.1)) + (0 if lengthwise else math.pi / 2)
            if stage.occupy(x, z, 0.3 if lengthwise else 0.9, 0.9 if lengthwise else 0.3):
                place = np.array([x, stage.level(x, z), z])
                stage.add(
                    draw_bicycle(rng, place, heading, stage.camera.position),
                    "bicycle",
                    shade=(0.3, 0.3),
                )
            z += 2.0 if lengthwise else float(rng.uniform(0.8, 1.2))


def _walk(stage: Stage, x: float, z: float, heading: float) -> None:
    if not stage.occupy(x, z, 0.3, 0.3):
        return
    place = np.array([x, stage.level(x, z), z])
    mesh, umbrella = draw_pedestrian(stage.rng, place, heading, stage.camera.position)
    stage.add(mesh, "person", shade=(0.26, 0.22))
    if umbrella is not None:
        stage.add(umbrella)


def _ride(stage: Stage) -> None:
    rng, road = stage.rng, stage.road
    side = 1.0 if rng.random() < 0.6 else -1.0
    if road.junction and rng.random() < 0.2:
        x, z = float(rng.uniform(-6, 6)), road.junction[0] + float(rng.uniform(0.5, 1.5))
        heading = float(rng.choice([-1, 1])) * math.pi / 2
    else:
        x = side * (road.edge - float(rng.uniform(0.5, 1.0)))
        z, heading = float(rng.uniform(5, 17)), 0.0 if side > 0 else math.pi
    heading += float(rng.normal(0, 0.12))
    across = abs(math.sin(heading)) > 0.7
    if not stage.occupy(x, z, 1.0 if across else 0.45, 0.45 if across else 1.0):
        return
    place, eye = np.array([x, 0.0, z]), stage.camera.position
    bicycle = draw_bicycle(rng, place, heading, eye)
    rider = draw_rider(rng, place, heading, eye)
    glows = []
    if stage.night:
        front = math.cos(heading) < 0
        shift = np.array([math.sin(heading), 0.0, math.cos(heading)]) * (0.5 if front else -0.5)
        lamp = place + shift + [0, 0.85, 0]
        glows.append(Glow(lamp, _HEAD, 0.5) if front else Glow(lamp, _TAIL, 0.35))
    # The bicycle is painted before its rider, whichever side is visible.
    stage.add(bicycle, "bicycle", shade=(0.3, 0.3), glows=glows)
    stage.add(rider, "person")
    stage.items[-1].box = stage.items[-2].box + np.array([[0, 0, -1e-3], [0, 0, -1e-3]])
