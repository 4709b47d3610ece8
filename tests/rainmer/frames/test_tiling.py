import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from rainmer.frames.tiling import (
    blend_window,
    merge_tiles,
    pad_to_least,
    pad_to_multiple,
    score_map,
    split_tiles,
    tile_starts,
)
from tests.numerics import rounding


@given(length=st.integers(1, 300), tile=st.integers(1, 80), share=st.floats(0, 0.99))
def test_tiles_cover_the_axis_and_stay_inside(length, tile, share):
    starts = tile_starts(length, tile, int(tile * share))
    covered = {p for start in starts for p in range(start, start + min(tile, length))}
    assert covered == set(range(length))
    assert starts == sorted(set(starts))


def test_an_overlap_as_large_as_the_tile_is_refused():
    with pytest.raises(ValueError, match="overlap"):
        tile_starts(100, 32, 32)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    overlap=st.integers(0, 15),
    blend=st.sampled_from(["smooth", "mean", "score"]),
)
def test_merging_untouched_tiles_gives_the_frame_back(height, width, overlap, blend):
    batch = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    tiles, places = split_tiles(batch, (16, 24), overlap)
    merged = merge_tiles(tiles, places, (height, width), overlap=overlap, blend=blend)
    torch.testing.assert_close(merged, batch, atol=rounding(depth=1), rtol=0)


def test_ramps_of_neighbours_sum_to_one():
    window = blend_window((16, 16), 6, torch.device("cpu"))[8]
    torch.testing.assert_close(window[-6:] + window[:6], torch.ones(6))


GRIDS = {
    "a": (72, 88, 32, 0),
    "b": (72, 88, 32, 8),
    "c": (512, 512, 512, 0),
    "d": (513, 700, 512, 0),
    "e": (1024, 1024, 512, 0),
    "f": (321, 481, 128, 32),
    "g": (720, 1280, 512, 64),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("case", GRIDS)
def test_starts_equal_the_official_ones(reference, case):
    golden = load_file(reference / "golden" / "tiling.safetensors")
    height, width, tile, overlap = GRIDS[case]
    assert tile_starts(height, tile, overlap) == golden[f"out/grid/{case}/hs"].tolist()
    assert tile_starts(width, tile, overlap) == golden[f"out/grid/{case}/ws"].tolist()


@pytest.mark.shared_data
@pytest.mark.parametrize(("case", "overlap"), [("m1", 0), ("m2", 6)])
@pytest.mark.parametrize(("blend", "output"), [("mean", "plain"), ("score", "score")])
def test_merge_equals_the_official_one(reference, case, overlap, blend, output):
    golden = load_file(reference / "golden" / "tiling.safetensors")
    places = [(t, w) for t in tile_starts(40, 16, overlap) for w in tile_starts(52, 16, overlap)]
    tiles = golden[f"in/crops/{case}"].clamp(0, 1)
    merged = merge_tiles(tiles, places, (40, 52), overlap=overlap, blend=blend)
    torch.testing.assert_close(
        merged[0], golden[f"out/merge/{case}/{output}"], atol=rounding(depth=1), rtol=0
    )


@pytest.mark.shared_data
@pytest.mark.parametrize("side", [16, 24, 128])
def test_score_map_equals_the_official_one(reference, side):
    golden = load_file(reference / "golden" / "tiling.safetensors")
    scores = score_map((side, side), torch.device("cpu"))
    torch.testing.assert_close(scores, golden[f"out/score_map/{side}x{side}"][0])
    assert scores.argmax() == side // 2 * side + side // 2


@pytest.mark.parametrize(
    ("size", "expected"), [((5, 9), (8, 16)), ((8, 8), (8, 8)), ((1, 2), (8, 8))]
)
def test_padding_keeps_the_frame_in_the_corner(size, expected):
    batch = torch.rand(1, 3, *size)
    padded = pad_to_multiple(batch, 8)
    assert padded.shape[-2:] == expected
    torch.testing.assert_close(padded[..., : size[0], : size[1]], batch)


def test_padding_reflects():
    padded = pad_to_multiple(torch.arange(5.0).reshape(1, 1, 1, 5).repeat(1, 1, 5, 1), 8)
    assert padded[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("size", "expected"), [((5, 9), (8, 9)), ((8, 8), (8, 8)), ((1, 20), (8, 20))]
)
def test_padding_to_a_least_size(size, expected):
    batch = torch.rand(1, 3, *size)
    padded = pad_to_least(batch, 8)
    assert padded.shape[-2:] == expected
    torch.testing.assert_close(padded[..., : size[0], : size[1]], batch)
