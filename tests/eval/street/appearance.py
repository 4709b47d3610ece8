"""How a few scenes of the embedded set look, in numbers that every processor gives.

python -m tests.eval.street.appearance stores them, after SCENES_VERSION was raised.
"""

import json
from pathlib import Path

import numpy as np

from eval.street.scene import SCENES_VERSION, draw_scene

FILE = Path(__file__).resolve().parents[2] / "data" / "street_scenes.json"
SIZE_HW = (96, 160)
CELL = 16
SEEDS = ((3, False), (40, False), (105, True), (150, True))


def describe(seed, night):
    """Mean colour 0..255 and mean logarithm of the depth in cells of 16 pixels, and the objects."""
    scene = draw_scene(seed, night=night, size_hw=SIZE_HW)
    return {
        "image": cell_means(scene.image).round(2).tolist(),
        "depth": cell_means(np.log(scene.depth_m)[..., None]).round(4).tolist(),
        "objects": [[thing.name, *thing.box_xyxy] for thing in scene.objects],
    }


def cell_means(array):
    """Return the means of (H, W, C) in cells, (H/16, W/16, C)."""
    height, width, channels = array.shape
    cells = array.reshape(height // CELL, CELL, width // CELL, CELL, channels)
    return cells.astype(np.float64).mean(axis=(1, 3))


def describe_all():
    return {"version": SCENES_VERSION, "scenes": [describe(*scene) for scene in SEEDS]}


if __name__ == "__main__":
    FILE.write_text(json.dumps(describe_all()) + "\n", encoding="utf-8")
