"""The head learns what the statistics tell, knows its errors, and files are kept apart."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from rainmer.errors import ImageError
from rainmer.frames.images import write_image
from rainmer.meter import check, train
from rainmer.meter.fit import area_under_curve, fit_head, held_out_errors, score_table
from rainmer.meter.head import MeterHead, MeterWeights
from rainmer.meter.samples import KINDS, SPLITS, Samples, split_of

NAN = float("nan")


def samples_of_one_statistic(count=500):
    """Frames whose first statistic tells the rate, and whose second tells night."""
    torch.manual_seed(0)
    statistics = torch.rand(count, 6)
    rate, night = statistics[:, 0] * 100, (statistics[:, 1] > 0.5).float()
    rain = (statistics[:, 0] > 0.3).float()
    nothing = torch.zeros(count)
    truth = torch.stack([rate, rate / 500, 1 - rate / 400, nothing + NAN, night, rain], 1)
    splits = [SPLITS[i % 3] for i in range(count)]
    return Samples(statistics, truth, ["day"] * count, splits, ["photos"] * count)


def test_the_head_learns_and_tells_its_errors():
    samples = samples_of_one_statistic()
    head = fit_head(samples, steps=300)
    held = samples.where(splits="test")
    read, truth = MeterHead.decode(head(samples.statistics[held])), samples.truth[held]
    assert float(((read[:, 0] - truth[:, 0]).abs() / truth[:, 0]).median()) < 0.2
    assert ((read[:, 4] > 0.5).float() == truth[:, 4]).float().mean() > 0.9
    errors = held_out_errors(head, samples)
    assert "drops" not in errors  # of which nothing is known
    low, high = errors["rate_mm_h"]["low"], errors["rate_mm_h"]["high"]
    assert len(low) == len(high) == len(errors["rate_mm_h"]["edges"]) + 1
    assert all(a <= 0 <= b for a, b in zip(low, high, strict=True))
    # Of the frames that tested nothing yet about 8 of 10 are within.
    bins = torch.bucketize(read[:, 0].contiguous(), torch.tensor(errors["rate_mm_h"]["edges"]))
    rest = truth[:, 0] - read[:, 0]
    inside = (rest >= torch.tensor(low)[bins]) & (rest <= torch.tensor(high)[bins])
    assert 0.6 < inside.float().mean() < 0.97


def test_training_repeats_and_needs_frames():
    samples = samples_of_one_statistic(120)
    once, again = (fit_head(samples, steps=4).parameters() for _ in range(2))
    assert all(map(torch.equal, once, again))
    with pytest.raises(ImageError, match="too few"):
        fit_head(samples_of_one_statistic(12))


def test_area_under_the_curve():
    assert area_under_curve(torch.tensor([0.9, 0.8]), torch.tensor([0.1])) == 1.0
    assert area_under_curve(torch.tensor([0.5]), torch.tensor([0.5])) == 0.5


def test_the_table_has_a_row_for_each_kind():
    samples = samples_of_one_statistic()
    lines = score_table(fit_head(samples, steps=4), samples)
    assert any(line.startswith("| day | ") for line in lines)


def test_splits_are_of_names_alone():
    assert split_of(Path("a/0001.jpg")) == split_of(Path("b/c/0001.jpg"))
    splits = [split_of(Path(f"{number}.png")) for number in range(1000)]
    assert [round(splits.count(name) / 1000, 1) for name in SPLITS] == [0.6, 0.2, 0.2]


def test_train_and_check_from_folders(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "fit_head", functools.partial(fit_head, steps=4))
    random = np.random.default_rng(0)
    for folder in ("day", "night", "rain/night"):
        for number in range(6):
            level = random.integers(0, 60 if "night" in folder else 256, (24, 40, 3), np.uint8)
            write_image(tmp_path / folder / f"{number}.png", level)
    names = {"--day": "day", "--night": "night", "--rainy": "rain"}
    folders = [part for key, name in names.items() for part in (key, tmp_path / name)]
    cache, out = tmp_path / "cache.safetensors", tmp_path / "meter.safetensors"
    options = [*folders, "--renderings", 1, "--cache", cache, "--quiet"]
    train.main([*map(str, options), "--out", str(out)])
    assert "| dry |" in capsys.readouterr().out
    written = cache.stat().st_mtime_ns
    weights = MeterWeights.load(out)
    assert weights.facts["frames"] == 12 * 3 + 6 * 7
    check.main([*map(str, options), "--weights", str(out), "--also", f"mine:{tmp_path / 'day'}"])
    assert "| mine | 6 | - |" in capsys.readouterr().out
    assert cache.stat().st_mtime_ns == written  # read back, not rendered again


def test_every_kind_is_a_preset_with_fields():
    from rainmer.rain import rain_config

    for preset, changes in KINDS.values():
        rain_config(preset, **changes)
