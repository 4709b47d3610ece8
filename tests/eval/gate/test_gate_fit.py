"""Trials count what is found and lost; the threshold keeps the gain, or bounds the harm."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from detection import Detections
from eval.gate.__main__ import main
from eval.gate.fit import choose_threshold, fit_benefit, table
from eval.gate.measure import Trial, find_scenes, matched
from eval.scores.binomial import upper_bound
from rainmer.errors import DatasetError
from rainmer.frames.images import write_image
from rainmer.meter.benefit import Benefit
from rainmer.meter.head import MeterWeights
from tests.rainmer.meter.fakes import STATISTICS, random_weights

BOXES = [
    {"bbox": [0.0, 0.0, 10.0, 10.0], "label": 1},
    {"bbox": [20.0, 0.0, 10.0, 10.0], "label": 1},
    {"bbox": [40.0, 0.0, 10.0, 10.0], "label": 2},
]


def trials(count=60):
    """Half of the frames are dry; the others gain the more the wetter they are."""
    random = np.random.default_rng(0)
    made = []
    for index in range(count):
        wet = index % 2
        statistics = (random.normal(size=STATISTICS) * 0.1 + wet).tolist()
        gained = int(random.integers(1, 5)) if wet else 0
        kind = "day" if wet else "dry"
        made.append(Trial(f"{index}.png", kind, 30.0, 9, 4, gained, 0, 2, 2, statistics))
    return made


def test_each_object_is_found_once():
    corners = [[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    detections = Detections(corners, [0.5, 0.9, 0.8, 0.7], [1, 1, 1, 1])
    assert matched(detections, BOXES) == ({0, 1}, 2)
    assert matched(Detections(), BOXES) == (set(), 0)
    assert matched(detections, []) == (set(), 4)


def test_the_fit_tells_wet_from_dry_and_the_threshold_keeps_the_gain():
    made = trials()
    benefit, scores = fit_benefit(made, random_weights().head)
    wet = torch.tensor([trial.kind == "day" for trial in made])
    assert scores[wet].min() > scores[~wet].max()
    choice = choose_threshold(made, scores, harm=0.1, keep=1.0)
    assert choice.kept == 1.0
    assert choice.dry_passed == 1.0
    assert choice.derained == 0.5
    assert choice.bound == upper_bound(0, len(made)) < 0.05
    assert "| all | 60 | 540 |" in "\n".join(table(made, scores, choice.threshold))
    assert Benefit.from_mapping(json.loads(json.dumps(benefit.to_mapping()))).bias == benefit.bias


def test_harm_raises_the_threshold_at_the_cost_of_gain():
    made = trials()
    # Of the wet frames the least wet lose.
    _, scores = fit_benefit(made, random_weights().head)
    wet = [index for index, trial in enumerate(made) if trial.kind == "day"]
    for index in sorted(wet, key=lambda i: float(scores[i]))[:12]:
        made[index] = dataclasses.replace(made[index], gained=0, lost=1)
    loose = choose_threshold(made, scores, harm=1.0, keep=0.97)
    strict = choose_threshold(made, scores, harm=0.1, keep=0.97)
    assert strict.bound <= 0.1
    assert strict.threshold >= loose.threshold


def test_too_few_trials_are_refused():
    with pytest.raises(DatasetError, match="too few"):
        fit_benefit(trials(10), random_weights().head)
    with pytest.raises(DatasetError, match="0 gains"):
        fit_benefit([dataclasses.replace(t, gained=0) for t in trials()], random_weights().head)


def test_the_command_writes_a_meter_that_knows_its_threshold(tmp_path, capsys):
    random_weights(benefit=None).save(tmp_path / "meter.safetensors")
    lines = "".join(json.dumps(dataclasses.asdict(trial)) + "\n" for trial in trials())
    (tmp_path / "trials.jsonl").write_text(lines)
    out = tmp_path / "fitted.safetensors"
    options = ["--weights", str(tmp_path / "meter.safetensors"), "--out", str(out)]
    main(["fit", str(tmp_path / "trials.jsonl"), *options])
    assert "of the gain is kept" in capsys.readouterr().out
    assert 0.0 < MeterWeights.load(out).benefit["threshold"] < 1.0
    (tmp_path / "other.jsonl").write_text('{"name": 1}\n')
    with pytest.raises(DatasetError, match="holds no trials"):
        main(["fit", str(tmp_path / "other.jsonl"), *options])


def test_scenes_that_trained_the_meter_are_left_out(tmp_path):
    for number in range(20):
        write_image(tmp_path / "night" / f"{number}.png", np.zeros((8, 8, 3), np.uint8))
    scenes = find_scenes(tmp_path / "night", {0: "car"})
    assert 2 < len(scenes) < 15
    assert all(scene.night and scene.boxes is None for scene in scenes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no pictures"):
        find_scenes(tmp_path / "empty", {})
