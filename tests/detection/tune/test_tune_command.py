"""`python -m detection.tune` as users call it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from detection.tune.__main__ import main
from detection.tune.config import read_config
from rainmer import models
from rainmer.errors import ConfigError, RainmerError
from rainmer.frames.images import write_image
from rainmer.train.run import train
from tests.detection.conftest import make_frame, make_yolo
from tests.rainmer.train.conftest import TINY

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "tune"


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    monkeypatch.setattr("rainmer.train.record.draw_curves", lambda rows, path: None)


@pytest.fixture
def config(tmp_path):
    """A tuning run of four short steps on three photos."""
    for i in range(3):
        write_image(tmp_path / "photos" / f"{i}.png", make_frame(64, 64, i))
    make_yolo().save(tmp_path / "detector.pt")
    rendered = {"photos": {"images": str(tmp_path / "photos"), "rain": {"streaks": {}}}}
    path = tmp_path / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "variant": "chralpha",
                "model": dict(TINY),
                "data": {"rendered": rendered, "query": 32, "negatives": 1, "threads": 0},
                "stages": [{"steps": 4, "crop": 32, "batch": 2}],
                "archive": 4,
                "log_every": 1,
                "validation": {"rendered": rendered, "every": 4, "limit": 1, "strips": 0},
                "detector": {
                    "weights": str(tmp_path / "detector.pt"),
                    "features": 1.0,
                    "agreement": 0.5,
                },
            }
        )
    )
    return path


def run(config, out, *more):
    main(["--config", str(config), "--out", str(out), "--device", "cpu", "--quiet", *more])
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_every_configuration_is_valid():
    for path in CONFIGS.glob("*.yaml"):
        config, detector = read_config(path)
        assert config.build_network(on="meta").name == config.network
        assert detector.features > 0


def test_a_run_logs_and_validates_what_the_detector_sees(tmp_path, config):
    log = run(config, tmp_path / "run")
    steps = [row for row in log if "total" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    for row in steps:
        parts = sum(row[name] for name in ("feature", "agreement", "charbonnier"))
        assert row["total"] > parts > 0
    validated = [row["step"] for row in log if "feature/photos" in row]
    assert validated == [0, 4]
    assert models.load(f"rainmer:{tmp_path / 'run' / 'last.safetensors'}").name == "rainmer"


@pytest.fixture
def labels(tmp_path):
    """YOLO labels of the photos; one box is outside of its image."""
    (tmp_path / "labels").mkdir()
    for i in range(3):
        (tmp_path / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n1 4.0 0.5 0.5 0.5\n")
    return [
        f"{part}.rendered.photos.{key}"
        for part in ("data", "validation")
        for key in (f"annotations={tmp_path / 'labels'}", "names=[first, boat]")
    ]


def test_labelled_photos_bring_the_detectors_own_loss(tmp_path, config, labels):
    names = list(make_yolo().names.values())
    changes = [change.replace("first", f"'{names[0]}'") for change in labels]
    log = run(config, tmp_path / "run", "detector.boxes=0.1", *changes)
    assert all(row["boxes"] > 0 for row in log if "total" in row)
    assert all(row["boxes/photos"] > 0 for row in log if "feature/photos" in row)
    with pytest.raises(ConfigError, match="none of its classes"):
        run(config, tmp_path / "other", "detector.boxes=0.1", *labels)


@pytest.mark.slow
def test_a_stopped_run_resumes_with_the_same_losses(tmp_path, config):
    whole = run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", "--max-steps", "2")
    parts = run(config, tmp_path / "parts")
    name = "feature"
    assert [r[name] for r in parts if name in r] == [r[name] for r in whole if name in r]


def test_another_detector_does_not_resume_a_run(tmp_path, config):
    run(config, tmp_path / "run", "--max-steps", "1")
    make_yolo(seed=1).save(tmp_path / "detector.pt")
    with pytest.raises(ConfigError, match="another extra loss"):
        run(config, tmp_path / "run")


def test_a_loss_that_is_not_finite_is_named_and_changes_nothing(tmp_path, config, caplog):
    options, _ = read_config(config, ["max_skipped=3", "validation.every=0"])

    class Broken:
        fingerprint = "broken"
        classes = ()

        def __call__(self, restored, clean, boxes=None):
            return {"feature": restored.mean() * torch.nan}

    with pytest.raises(RainmerError, match="not finite in 3 steps in a row"):
        train(options, tmp_path / "run", quiet=True, extra_loss=Broken())
    assert "not finite: total, feature" in caplog.text
    assert not (tmp_path / "run" / "last.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("detector.features=-1", "must be 0 or more"),
        ("detector={weights: x.pt, features: 0}", "nothing is tuned"),
        ("detector.boxes=-1", "must be 0 or more"),
        ("detector={weights: efficientnet-lite0, agreement: 1}", "detects nothing"),
        ("detector.wieghts=x", "did you mean 'weights'"),
        ("detector=null", "no section `detector`"),
        ("detector.weights=absent.pt", "no file absent.pt"),
        ("detector.layers=[99]", "no layer 99"),
    ],
)
def test_mistakes_are_one_line(tmp_path, config, change, words):
    with pytest.raises(RainmerError) as caught:
        run(config, tmp_path / "run", change)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_with_a_loss_of_their_own_cannot_be_tuned(tmp_path, config):
    own = ["network=rcdnet", "variant=null", "model={}", "pixel_loss=own", "stages.0.crop=32"]
    with pytest.raises(ConfigError, match="own gives no restored crops"):
        run(config, tmp_path / "run", *own)


def test_frames_are_derained_by_the_tuned_weights(tmp_path, config):
    run(config, tmp_path / "run")
    network = models.load(f"rainmer:{tmp_path / 'run' / 'last.safetensors'}")
    frame = np.zeros((32, 32, 3), np.uint8)
    batch = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    assert network(batch).isfinite().all()
