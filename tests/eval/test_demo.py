from pathlib import Path

import numpy as np

from eval.demo import add_streaks, prepare_demo
from eval.sets import load_set
from rainmer.frames import read_image


def test_the_demonstration_is_built_once_and_holds_together(tmp_path):
    demo = prepare_demo(tmp_path, epochs=1, quiet=True)
    data = load_set(demo.data)
    assert not data.defects.lines()
    assert len(data.samples) == 16
    assert {name: len(ids) for name, ids in data.conditions.items()} == {
        "all": 16,
        "light": 8,
        "heavy": 8,
    }
    assert len(data.annotations) > 40
    before = Path(demo.detector).stat().st_mtime_ns
    assert prepare_demo(tmp_path, epochs=1, quiet=True) == demo
    assert Path(demo.detector).stat().st_mtime_ns == before
    losses = {"light": [], "heavy": []}
    for sample in data.samples:
        difference = read_image(sample.rainy).astype(int) - read_image(sample.clean)
        assert difference.min() >= 0, "streaks only add light"
        losses[sample.key.split("-")[0]].append(difference.mean())
    assert np.mean(losses["heavy"]) > np.mean(losses["light"]) > 1


def test_streaks_follow_the_seed():
    grey = np.full((40, 50, 3), 90, np.uint8)
    one, two, other = (add_streaks(grey, 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
