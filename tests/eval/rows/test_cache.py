import json
import os

import numpy as np
import pytest

from eval.rows.cache import CachedDerainer
from eval.rows.gated import GatedRow
from rainmer import Derainer
from rainmer.cache.frames import LIMIT, cached_frames
from rainmer.errors import OutputError
from rainmer.frames.images import write_image
from rainmer.stage.gate import Gate
from tests.eval.trees import scene
from tests.rainmer.meter.fakes import LevelMeter

FRAMES = [scene(seed)[0] for seed in range(3)]
NAMES = ["a.png", "b.png", "c.png"]


def test_a_second_run_derains_nothing_and_gives_the_same(tmp_path):
    first = CachedDerainer(Derainer("median", device="cpu"), tmp_path)
    made = first(FRAMES, NAMES)
    second = CachedDerainer(Derainer("median", device="cpu"), tmp_path)
    recalled = second(FRAMES, NAMES)
    assert (first.calls, second.calls) == (3, 0)
    for one, two in zip(made, recalled, strict=True):
        np.testing.assert_array_equal(one.frame, two.frame)
        assert one.elapsed_ms == two.elapsed_ms is not None
        assert (one.earlier, two.earlier) == (False, True)
    assert not any(item.earlier for item in first(FRAMES, NAMES)), "this run has timed them"


def test_only_what_is_missing_is_derained_and_order_is_kept(tmp_path):
    CachedDerainer(Derainer("median", device="cpu"), tmp_path)([FRAMES[1]], ["b.png"])
    derainer = CachedDerainer(Derainer("median", device="cpu"), tmp_path)
    derained = derainer(FRAMES, NAMES)
    assert derainer.calls == 2
    plain = Derainer("median", device="cpu")
    for item, frame in zip(derained, FRAMES, strict=True):
        np.testing.assert_array_equal(item.frame, plain(frame))


def test_another_derainer_has_its_own_cache(tmp_path):
    CachedDerainer(Derainer("median", device="cpu"), tmp_path)(FRAMES, NAMES)
    other = CachedDerainer(Derainer(lambda batch: 1 - batch, device="cpu"), tmp_path)
    np.testing.assert_array_equal(other(FRAMES, NAMES)[0].frame, 255 - FRAMES[0])


def test_a_damaged_file_is_made_again(tmp_path):
    CachedDerainer(Derainer("median", device="cpu"), tmp_path)(FRAMES, NAMES)
    pictures = sorted(tmp_path.rglob("*.png"))
    pictures[0].write_bytes(pictures[0].read_bytes()[:40])
    pictures[1].write_bytes(b"")
    derainer = CachedDerainer(Derainer("median", device="cpu"), tmp_path)
    assert len(derainer(FRAMES, NAMES)) == 3
    assert derainer.calls == 2


def test_a_file_of_another_size_is_made_again(tmp_path):
    CachedDerainer(Derainer("median", device="cpu"), tmp_path)(FRAMES, NAMES)
    for path in sorted(tmp_path.rglob("*.png"))[:2]:
        write_image(path, FRAMES[0][1:])
    derainer = CachedDerainer(Derainer("median", device="cpu"), tmp_path)
    derained = derainer(FRAMES, NAMES)
    assert [item.frame.shape for item in derained] == [frame.shape for frame in FRAMES]
    assert derainer.calls == 2


DAMAGED = [
    b"\xff\xfe\x00",
    b"[1, 2]",
    b'"key ms"',
    b"[" * 100_000,
    b"9" * 5000,
    b'{"key": "%s"}',
    b'{"key": "%s", "ms": null}',
    b'{"key": "%s", "ms": NaN}',
    b'{"key": "%s", "ms": "soon"}',
    b'{"ms": 3.0}',
]


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_times_are_not_known(tmp_path, line):
    first = CachedDerainer(Derainer("median", device="cpu"), tmp_path)
    made = first(FRAMES[:2], NAMES[:2])
    (times,) = tmp_path.rglob("timings.jsonl")
    kept, damaged = times.read_bytes().splitlines()
    times.write_bytes(line.replace(b"%s", json.loads(damaged)["key"].encode()) + b"\n" + kept)
    recalled = CachedDerainer(Derainer("median", device="cpu"), tmp_path)(FRAMES[:2], NAMES[:2])
    assert recalled[0].elapsed_ms == made[0].elapsed_ms
    assert recalled[1].elapsed_ms is None


def behind_a_gate(folder):
    derainer = Derainer("median", device="cpu")
    derainer.gate = Gate(0.5, meter=LevelMeter())
    return GatedRow(derainer, folder)


def test_what_a_gate_derained_is_known_from_the_cache_too(tmp_path):
    frames = [FRAMES[0], 255 - FRAMES[1], FRAMES[2]]  # dark, bright, dark
    first = behind_a_gate(tmp_path)
    made = first(frames, NAMES)
    assert [item.derained for item in made] == [False, True, False]
    np.testing.assert_array_equal(made[0].frame, frames[0])
    np.testing.assert_array_equal(made[1].frame, Derainer("median", device="cpu")(frames[1]))
    # All share the meter's time; the filter's is that of the frame that it was for.
    assert made[1].elapsed_ms > made[0].elapsed_ms == made[2].elapsed_ms > 0
    assert sum(item.elapsed_ms for item in made) == pytest.approx(1000 * first.busy_s)
    second = behind_a_gate(tmp_path)
    recalled = second(frames, NAMES)
    assert (first.calls, second.calls) == (1, 0)
    assert [item.derained for item in recalled] == [False, True, False]
    assert recalled[1].elapsed_ms - recalled[0].elapsed_ms == pytest.approx(
        made[1].elapsed_ms - made[0].elapsed_ms
    )


def test_a_gate_shares_the_cache_of_its_derainer(tmp_path):
    ungated = CachedDerainer(Derainer("median", device="cpu"), tmp_path)
    ungated([255 - frame for frame in FRAMES], NAMES)
    gated = behind_a_gate(tmp_path)
    assert all(item.derained for item in gated([255 - frame for frame in FRAMES], NAMES))
    assert gated.calls == 0
    assert gated.fingerprint != ungated.fingerprint


class Fickle:
    """A callable that says nothing of what its output depends on."""

    def __call__(self, batch):
        return 1 - batch


def test_what_has_no_fingerprint_is_not_kept(tmp_path):
    for _ in range(2):
        derainer = CachedDerainer(Derainer(Fickle(), device="cpu"), tmp_path)
        derainer(FRAMES, NAMES)
        assert derainer.calls == 3
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_kept(tmp_path):
    derainer = CachedDerainer(Derainer("median", device="cpu"), None)
    derainer(FRAMES, NAMES)
    derainer(FRAMES, NAMES)
    assert derainer.calls == 6
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot create the folder"):
        CachedDerainer(Derainer("median", device="cpu"), tmp_path / "file")(FRAMES, NAMES)


def test_frames_that_are_used_again_count_as_new(tmp_path):
    CachedDerainer(Derainer("median", device="cpu"), tmp_path)(FRAMES, NAMES)
    files = [frame.path for frame in cached_frames(tmp_path)]
    for file in files:
        os.utime(file, (1e9, 1e9))
    CachedDerainer(Derainer("median", device="cpu"), tmp_path)(FRAMES[:1], NAMES[:1])
    assert sum(frame.used > 1e9 for frame in cached_frames(tmp_path)) == 1


def test_a_full_cache_makes_room(tmp_path, monkeypatch):
    monkeypatch.setenv(LIMIT, "1e-9")  # a byte
    derainer = CachedDerainer(Derainer("median", device="cpu"), tmp_path)
    assert len(derainer(FRAMES, NAMES)) == len(FRAMES)
    assert cached_frames(tmp_path) == []
