"""Scenes look as they did when their version got its number."""

import json

import numpy as np
import pytest

from eval.street.scene import SCENES_VERSION
from tests.eval.street.appearance import FILE, SEEDS, describe

STORED = json.loads(FILE.read_text(encoding="utf-8"))
HINT = (
    "the drawing has changed: raise SCENES_VERSION in eval/street/scene.py, "
    "then run python -m tests.eval.street.appearance"
)


def test_the_stored_numbers_are_those_of_this_version():
    assert STORED["version"] == SCENES_VERSION, HINT


@pytest.mark.parametrize(
    ("scene", "stored"), zip(SEEDS, STORED["scenes"], strict=True), ids=map(str, SEEDS)
)
def test_scenes_look_as_their_version_says(scene, stored):
    """Processors round differently: single pixels may differ, means of cells hardly do."""
    now = describe(*scene)
    for key, tolerance in (("image", 0.1), ("depth", 0.01)):
        np.testing.assert_allclose(now[key], stored[key], rtol=0, atol=tolerance, err_msg=HINT)
    assert [name for name, *_ in now["objects"]] == [name for name, *_ in stored["objects"]], HINT
    boxes, stored_boxes = ([box for _, *box in found["objects"]] for found in (now, stored))
    np.testing.assert_allclose(boxes, stored_boxes, rtol=0, atol=1.0, err_msg=HINT)
