import dataclasses

import numpy as np
import pytest

from eval.street import CLASSES
from eval.street.draw.camera import Camera
from eval.street.draw.light import day_light
from eval.street.painting import SKY_M, paint_stage
from eval.street.scene import draw_scene
from eval.street.world import furnish
from eval.street.world.backdrop import Road
from eval.street.world.layout import Stage
from eval.street.world.vehicles import draw_car

SMALL = (192, 320)
SCENES = {
    (seed, night): draw_scene(seed, night=night, size_hw=SMALL)
    for seed in range(4)
    for night in (False, True)
}


def test_a_seed_gives_the_same_scene_again():
    again = draw_scene(2, night=True, size_hw=SMALL)
    np.testing.assert_array_equal(again.image, SCENES[2, True].image)
    np.testing.assert_array_equal(again.depth_m, SCENES[2, True].depth_m)
    assert again.objects == SCENES[2, True].objects


def test_another_seed_gives_another_scene():
    assert (SCENES[0, False].image != SCENES[1, False].image).mean() > 0.5


def test_default_size_and_types():
    scene = draw_scene(0, night=False)
    assert scene.image.shape == (384, 640, 3)
    assert scene.image.dtype == np.uint8
    assert scene.depth_m.shape == (384, 640)
    assert scene.depth_m.dtype == np.float32
    assert (scene.night, scene.seed) == (False, 0)


@pytest.mark.parametrize("key", SCENES)
def test_objects_are_inside_the_picture(key):
    for thing in SCENES[key].objects:
        x0, y0, x1, y1 = thing.box_xyxy
        assert thing.name in CLASSES
        assert 0 <= x0 < x1 <= SMALL[1]
        assert 0 <= y0 < y1 <= SMALL[0]
        assert 0.3 <= thing.visibility <= 1


def test_every_class_appears():
    assert {thing.name for scene in SCENES.values() for thing in scene.objects} == set(CLASSES)


@pytest.mark.parametrize("key", SCENES)
def test_depth_is_positive_and_ends_with_the_sky(key):
    depth = SCENES[key].depth_m
    assert depth.min() > 0
    assert depth.max() <= SKY_M
    assert np.median(depth[-1]) < np.median(depth[SMALL[0] // 2])


def test_day_is_brighter_than_night():
    day = [scene.image.mean() for (_, night), scene in SCENES.items() if not night]
    night = [scene.image.mean() for (_, night), scene in SCENES.items() if night]
    assert min(day) > 80
    assert 15 < min(night) <= max(night) < 50


def painted(*cars):
    """Paint a street with cars at (x, z), and nothing else in it but a lamp post far behind."""
    rng = np.random.default_rng(5)
    road = Road(3.4, 1, 0.0, (4.0, 4.0), 0.0, None, None)
    camera = Camera(0.0, 1.6, 0.0, 0.0, 0.0, 600.0, (384, 640))
    stage = Stage(rng, road, camera, day_light(np.random.default_rng(1)), night=False)
    houses = furnish.build_houses(stage)
    for x, z in cars:
        mesh = draw_car(np.random.default_rng(3), lit=False).mesh.moved((x, 0.0, z))
        stage.add(mesh, "car")
    stage.add(draw_car(rng, lit=False).mesh.moved((60.0, 0.0, 90.0)))
    return paint_stage(stage, houses, [])


def test_a_box_holds_its_object_and_nothing_more():
    empty, full = painted(), painted((-1.0, 12.0))
    ((name, box, visibility),) = full.seen
    rows, columns = np.nonzero(empty.depth_m != full.depth_m)
    assert (name, visibility) == ("car", 1.0)
    drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(box, drawn, atol=1.0)


def test_what_hides_an_object_lowers_its_visibility():
    seen = painted((0.0, 20.0), (0.3, 10.0)).seen
    (far, near) = seen if seen[0].box_xyxy[2] < seen[1].box_xyxy[2] else seen[::-1]
    assert near.visibility == 1.0
    assert 0.0 < far.visibility < 0.5
    alone = painted((0.0, 20.0)).seen[0]
    assert alone.box_xyxy == far.box_xyxy
    assert alone.visibility == 1.0


def test_the_depth_of_the_ground_follows_from_the_camera():
    depth = painted().depth_m
    # 1.6 m above the road with a focal length of 600 pixels, row 300 is 108.5 below the horizon.
    assert depth[300, 320] == pytest.approx(600 * 1.6 / 108.5, rel=0.01)


def test_a_camera_puts_points_where_it_should():
    camera = Camera(1.0, 2.0, 0.0, 0.0, 0.0, 500.0, (384, 640))
    view = camera.to_view(np.array([[2.0, 2.0, 10.0], [1.0, 1.0, 5.0]]))
    np.testing.assert_allclose(camera.to_pixels(view), [[370, 192], [320, 292]])
    turned = dataclasses.replace(camera, yaw=0.2, pitch=0.1, roll=0.05)
    np.testing.assert_allclose(turned.axes @ turned.axes.T, np.eye(3), atol=1e-12)
    ray = turned.rays()[100, 400].astype(float)
    pixel = turned.to_pixels(turned.to_view(turned.position + 7 * ray))
    np.testing.assert_allclose(pixel, [400.5, 100.5], atol=1e-3)
