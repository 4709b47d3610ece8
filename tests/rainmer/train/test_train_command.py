"""`python -m rainmer.train` as users call it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from rainmer import models
from rainmer.errors import RainmerError
from rainmer.files import read_lines
from rainmer.frames.images import write_image
from rainmer.train.__main__ import main
from rainmer.train.config import read_config
from rainmer.train.options import parse
from rainmer.train.sources import RainChoice, RenderedConfig, RenderedSource, hold_out

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "train"
SMALL = [
    "model.dim=8",
    "stages=[{steps: 2, crop: 32, batch: 2, crops_per_frame: 2}]",
    "archive=4",
    "data.query=32",
    "data.threads=0",
    "data.rendered.photos.window=48",
    "data.rendered.photos.scale=1.0",
]


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(4):
        write_image(
            tmp_path / "photos" / f"{i}.jpg",
            generator.integers(0, 256, (64, 72, 3), dtype=np.uint8),
        )
    return tmp_path / "photos"


def command(photos, out, *more):
    config = str(CONFIGS / "own-photos.yaml")
    images = f"data.rendered.photos.images={photos}"
    return ["--config", config, images, *SMALL, "--out", str(out), "--device", "cpu", *more]


def test_the_documented_command_trains_on_a_folder_of_photos(tmp_path, photos):
    main(command(photos, tmp_path / "run", "--quiet"))
    assert (tmp_path / "run" / "last.safetensors").is_file()
    resolved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert resolved["data"]["rendered"]["photos"]["images"] == str(photos)


def test_changes_may_stand_after_options(tmp_path, photos):
    main(command(photos, tmp_path / "run", "--quiet", "log_every=1", "--max-steps", "1"))
    assert (tmp_path / "run" / "log.csv").read_text().count("\n") == 2


def test_held_out_photos_decide_which_weights_are_the_best(tmp_path, photos, capsys, caplog):
    for i in range(4, 40):
        shutil.copy(photos / "0.jpg", photos / f"{i}.jpg")
    rain = {"none": RainChoice()}
    (part,) = hold_out([RenderedSource("", RenderedConfig(images=str(photos), rain=rain))], 0.2)
    part._photos[0].path.write_bytes(b"no image")
    out = tmp_path / "run"
    arguments = command(photos, out, "validation={share: 0.2, every: 2, limit: 3, strips: 1}")
    with caplog.at_level("INFO"):
        main([*arguments, "--max-steps", "1"])
        assert "1/1" in capsys.readouterr().err  # this call's end
        main(arguments)
    assert "1/2" in capsys.readouterr().err.partition("2/2")[0]
    assert f"{out}: resumes from step 1 of 2\n" in caplog.text
    assert models.load(f"rainmer:{out / 'best.safetensors'}")
    lines = read_lines(out / "log.jsonl")
    assert [line["step"] for line in lines if "psnr/photos-held-out" in line] == [1, 2]
    assert (
        f"data.rendered.photos: {len(part)} of 40 photos are held out for validation" in caplog.text
    )
    assert "1 images could not be read and were left out" in caplog.text
    with pytest.raises(RainmerError, match=r"differs in validation\.share:"):
        main([*arguments, "validation.share=0"])


def test_minutes_are_an_option_too(tmp_path, photos):
    options = parse(command(photos, tmp_path / "run", "--minutes", "2.5", "minutes=9"))
    assert read_config(options.config, options.all_changes).minutes == 2.5
    options = parse(command(photos, tmp_path / "run", "minutes=9"))
    assert read_config(options.config, options.all_changes).minutes == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["data.rendered.photos.images=nowhere"], "no folder nowhere"),
        (["optimiser.rate=1"], "optimiser: rate: unknown key"),
        (["init=nothing.safetensors"], "nothing.safetensors"),
        (["stages.0.crop=40"], "must be a multiple of 16"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, photos, changes, words):
    with pytest.raises(RainmerError) as caught:
        main(command(photos, tmp_path / "run", "--quiet", *changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_ends_with_code_2(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "rainmer.train", "--config", str(tmp_path / "none.yaml")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "none.yaml" in result.stderr
