"""Rows: resumable image by image, and sharing the cache of derained frames."""

import json

import pytest

from eval.restore.methods import Method
from eval.restore.rows import RowRunner
from eval.restore.sets import load_sets
from eval.rows.cache import CachedDerainer
from rainmer import Derainer
from rainmer.errors import OutputError
from rainmer.frames.images import read_image, write_image
from tests.eval.restore.trees import Counting, grey, write_pairs


def counting(label, stop_at=None, batch=1):
    derainer = Counting(stop_at)
    return derainer, Method("counting", {label: Derainer(derainer, device="cpu", batch=batch)}, {})


@pytest.fixture
def pairs(tmp_path):
    (one,) = load_sets([f"folders:{write_pairs(tmp_path / 'set', 6)}"])
    return one


def start(tmp_path, pairs, stop_at=None, **more):
    derainer, method = counting(pairs.label, stop_at)
    runner = RowRunner(tmp_path / "rows", ["matlab"], **more)
    try:
        return derainer.seen, runner.run(pairs, method), derainer
    except KeyboardInterrupt:
        return derainer.seen, None, derainer


def test_an_interrupted_row_goes_on_where_it_stopped(tmp_path, pairs):
    _, whole, _ = start(tmp_path / "other", pairs)
    assert start(tmp_path, pairs, stop_at=4)[1] is None
    _, scores, derainer = start(tmp_path, pairs)
    assert derainer.seen == 3
    assert {n: s.scores for n, s in scores.items()} == {n: s.scores for n, s in whole.items()}
    assert list(scores) == [f"{n}.png" for n in range(1, 7)]


def test_a_larger_limit_only_adds(tmp_path):
    root = write_pairs(tmp_path / "set", 6)
    for limit, seen in ((2, 2), (4, 4), (None, 0)):
        (one,) = load_sets([f"folders:{root}"], limit=limit)
        _, scores, derainer = start(tmp_path, one)
        assert len(scores) == len(one.images)
        assert derainer.seen <= seen or limit is None
    assert derainer.seen < 6


def test_a_changed_file_is_done_again(tmp_path, pairs):
    start(tmp_path, pairs)
    write_image(pairs.images[2].rainy, grey(70))
    assert start(tmp_path, pairs)[2].seen == 1
    write_image(pairs.images[4].clean, grey(70))
    assert start(tmp_path, pairs)[2].seen == 1


def test_other_conventions_start_anew(tmp_path, pairs):
    start(tmp_path, pairs)
    derainer, method = counting(pairs.label)
    RowRunner(tmp_path / "rows", ["matlab", "rgb"]).run(pairs, method)
    assert derainer.seen == 6


@pytest.mark.parametrize(
    "change",
    [{"scores": None}, {"scores": {"psnr": "x"}}, {"elapsed_ms": "soon"}, {"name": 3}, {"x": 1}],
)
def test_a_damaged_line_is_done_again(tmp_path, pairs, change):
    _, whole, _ = start(tmp_path, pairs)
    (path,) = (tmp_path / "rows").glob("*.jsonl")
    first, *others = path.read_text().splitlines()
    spoiled = json.dumps({**json.loads(first), **change})
    path.write_text("\n".join([spoiled, *others[:-1], others[-1][:-20]]))
    _, again, derainer = start(tmp_path, pairs)
    assert derainer.seen == 2
    assert [s.scores for s in again.values()] == [s.scores for s in whole.values()]


def test_frames_come_from_the_cache_of_detection_runs(tmp_path, pairs):
    derainer, method = counting(pairs.label)
    cache = CachedDerainer(method.derainers[pairs.label], tmp_path / "cache")
    frames = [read_image(image.rainy) for image in pairs.images]
    cache(frames, [image.name for image in pairs.images])
    assert derainer.seen == 6
    _, scores, other = start(tmp_path, pairs, cache=tmp_path / "cache")
    assert other.seen == 0
    assert all(score.elapsed_ms is not None for score in scores.values())


def test_rows_that_cannot_be_written(tmp_path, pairs):
    (tmp_path / "rows").write_text("in the way")
    with pytest.raises(OutputError, match="cannot create the folder"):
        start(tmp_path, pairs)


def test_progress_counts_every_image_once(tmp_path, pairs):
    counts = []
    for _ in range(2):
        _, method = counting(pairs.label, batch=4)
        RowRunner(tmp_path / "rows", ["matlab"]).run(pairs, method, counts.append)
    assert sum(counts) == 12
