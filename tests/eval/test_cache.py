import numpy as np
import pytest

from eval.cache import CachedDerainer
from rainmer import Derainer
from rainmer.errors import OutputError
from tests.eval.trees import scene

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
