"""Small sets of rainy and clean images in the layouts of published ones, and runs over them."""

import numpy as np
import torch

from eval.restore.comparison import Settings, compare_sets
from eval.restore.methods import build_methods
from eval.restore.output import flat_row
from eval.restore.rows import RowRunner
from eval.restore.sets import load_sets
from rainmer.frames.images import write_image
from tests.eval.trees import rain, scene

SIZE = (24, 32)


def pair(seed, size=SIZE):
    """A clean scene, and the same under streaks."""
    clean = scene(seed, size)[0]
    return rain(clean, seed, share=0.02), clean


def write_pairs(root, count=4, *, rainy="input/{}.png", clean="target/{}.png", size=SIZE):
    """Write pairs 1, 2, ... below a root by templates of their names; return the root."""
    for number in range(1, count + 1):
        wet, dry = pair(number, size)
        write_image(root / rainy.format(number), wet)
        if clean:
            write_image(root / clean.format(number), dry)
    return root


def write_scenes(root, scenes=("a", "b", "c"), frames=2):
    """Write GT-Rain's test set: rainy frames of scenes with one clean image each."""
    for index, name in enumerate(scenes):
        folder = root / "GT-Rain" / "GT-RAIN_test" / name
        _, clean = pair(index)
        write_image(folder / f"{name}-C-000.png", clean)
        for frame in range(frames):
            share = 0.01 + 0.01 * index
            write_image(folder / f"{name}-R-{frame:03d}.png", rain(clean, frame, share=share))
    return root


def run(tmp_path, texts, specs=("median",), **more):
    """Compare specs on sets; return the comparison."""
    limit, missing = more.pop("limit", None), more.pop("allow_missing", False)
    conventions = more.pop("conventions", ["matlab", "official"])
    stage = more.pop("stage", {"device": "cpu"})
    settings = Settings(conventions=conventions, resamples=more.pop("resamples", 50))
    sets = load_sets(texts, limit=limit)
    methods = build_methods(specs, sets, stage, allow_missing=missing)
    runner = RowRunner(tmp_path / "rows", conventions, **more)
    return compare_sets(sets, methods, runner, settings)


def flat_rows(comparison, conventions=("matlab", "official")):
    """Return the rows of a comparison as metrics.json has them."""
    return [flat_row(row, Settings(conventions=conventions)) for row in comparison.table]


def row(comparison, derainer="", name=None, conventions=("matlab", "official")):
    """Return the flat row of a derainer, on the only set or the one of this name."""
    (found,) = [
        one
        for one in flat_rows(comparison, conventions)
        if one["derainer"] == derainer and name in (None, one["set"])
    ]
    return found


class Counting:
    """A derainer that counts the images it sees, and stops the run at one of them."""

    fingerprint = "counting-1"
    name = "counting"

    def __init__(self, stop_at=None):
        self.seen, self.stop_at = 0, stop_at

    def __call__(self, batch):
        self.seen += len(batch)
        if self.stop_at is not None and self.seen >= self.stop_at:
            raise KeyboardInterrupt
        return 1.0 - batch


def add_third_of_a_level(batch):
    """Change every value by less than rounding to 8 bits keeps."""
    return torch.clamp(batch + 0.3 / 255.0, 0.0, 1.0)


def grey(value=90, size=SIZE):
    return np.full((*size, 3), value, np.uint8)
