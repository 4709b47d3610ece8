"""Small runs on small pictures."""

import numpy as np
import pytest
import torch
import yaml

from rainmer.frames.images import write_image
from rainmer.train import step as step_module

TINY = {
    "dim": 8,
    "base_dim": 16,
    "num_blocks": [1, 1, 1, 1],
    "heads": [1, 1, 1, 1],
    "compensator_steps": 1,
    "entry_stride": 2,
}


@pytest.fixture(autouse=True)
def curves(request, monkeypatch):
    """Curves take most of the time of a small run; they are drawn where a test is marked so."""
    if request.node.get_closest_marker("curves") is None:
        monkeypatch.setattr("rainmer.train.record.draw_curves", lambda rows, path: None)


def picture(seed, size_hw=(48, 56)):
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)[: size_hw[0], : size_hw[1]]


@pytest.fixture
def photos(tmp_path):
    """A folder of six clean pictures."""
    folder = tmp_path / "photos"
    for i in range(6):
        write_image(folder / f"{i}.png", picture(i))
    return folder


@pytest.fixture
def pairs(tmp_path):
    """A folder of six pairs: bright columns are the rain."""
    root = tmp_path / "pairs"
    for i in range(6):
        clean = picture(i)
        rainy = clean.copy()
        rainy[:, i::9] = 255
        write_image(root / "input" / f"{i}.png", rainy)
        write_image(root / "target" / f"{i}.png", clean)
    return root


@pytest.fixture
def run_mapping(pairs):
    """The configuration of a run of six short steps, as plain values."""
    return {
        "name": "tiny",
        "variant": "chralpha",
        "model": dict(TINY),
        "data": {
            "pairs": {"columns": {"root": str(pairs)}},
            "query": 32,
            "negatives": 2,
            "threads": 0,
        },
        "stages": [
            {"steps": 4, "crop": 16, "batch": 2, "crops_per_frame": 2},
            {"steps": 2, "crop": 32, "batch": 2},
        ],
        "archive": 8,
        "optimiser": {"lr": 0.001, "warmup": 2},
        "ema": 0.9,
        "save_every": 3,
        "log_every": 1,
    }


@pytest.fixture
def config_file(tmp_path, run_mapping):
    """The same as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(run_mapping))
    return path


@pytest.fixture
def losses_of_bright_crops_break(monkeypatch):
    """What `bright` gives is skipped."""
    original = step_module.PIXEL_LOSSES["charbonnier_ssim"]

    def sometimes(restored, target):
        loss = original(restored, target)
        factor = torch.where(target.mean() > 0.99, float("nan"), 1.0)
        return loss._replace(total=loss.total * factor)

    monkeypatch.setitem(step_module.PIXEL_LOSSES, "charbonnier_ssim", sometimes)
