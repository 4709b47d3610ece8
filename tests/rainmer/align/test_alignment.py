"""Alignment of sets: reference numbers of the published analysis, and properties that must hold."""

import dataclasses
import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from rainmer.align.balance import draw, plan_balance, published_shares, target_shares
from rainmer.align.crop import crop_frame, folder_jobs
from rainmer.align.figures import density_figure, radar_figure, radar_values
from rainmer.align.leaks import (
    Fingerprint,
    fingerprint,
    leaks_between,
    leaks_within,
    perceptual_hash,
)
from rainmer.align.measure import (
    MeasuredPair,
    bin_shares,
    densities_of,
    density_histogram,
    measure_images,
    read_measured,
    read_summary,
    summarize,
    write_summary,
)
from rainmer.align.published import PUBLISHED_SUMMARIES
from rainmer.background import ordered_map
from rainmer.data.layouts import ImageSet, Pair
from rainmer.data.layouts.sets import clean_keys, pair_folders, read_set
from rainmer.data.properties import PairProperties
from rainmer.errors import DatasetError, ImageError
from rainmer.figures import save_figure
from rainmer.files import match_key
from rainmer.frames.images import decode_image, encode_image, read_image, write_image
from tests.numerics import rounding
from tests.rainmer.golden import COPIES


@pytest.fixture(scope="module")
def balance():
    return load_file(COPIES / "balance.safetensors")


@pytest.fixture(scope="module")
def stats():
    return load_file(COPIES / "dataset_stats.safetensors")


def measured(density=0.1, name="a.png", clean="a.png", **properties):
    values = dict.fromkeys((f.name for f in dataclasses.fields(PairProperties)), 1.0)
    pair = Pair(name, Path(name), Path(clean), clean)
    return MeasuredPair(pair, "", density, PairProperties(**{**values, **properties}))


def texture(seed=0, size_hw=(96, 128)):
    """A smooth random picture with structure at many sizes."""
    generator = np.random.default_rng(seed)
    frame = np.zeros((*size_hw, 3))
    for cells in (3, 6, 12, 24):
        noise = generator.normal(size=(cells, cells, 3)) * 60 / math.sqrt(cells)
        frame += cv2.resize(noise, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(frame + 120, 0, 255).astype(np.uint8)


def prints(frames):
    return [fingerprint(frame, Path(f"{number}.png")) for number, frame in enumerate(frames)]


# --- reference numbers ----------------------------------------------------------------------------


def test_balance_equals_the_published_rule(balance):
    references = [bin_shares(balance[f"in/{name}"]) for name in ("syn", "gt_rain")]
    for shares, name in zip(references, ("syn", "gtrain"), strict=True):
        assert shares[0] == float(balance[f"out/{name}_rho_004"])
        assert shares[1] == float(balance[f"out/{name}_rho_004_008"])
    shares = target_shares(references)
    names = ("rho_004", "rho_004_008", "rho_larger_008")
    assert shares == tuple(float(balance[f"out/{name}"]) for name in names)
    plan = plan_balance(balance["in/gtav_crop"], shares)
    assert plan.total == float(balance["out/tot_num"])
    assert plan.wanted == tuple(
        int(balance[f"out/{name}"]) for name in ("num_004", "num_004_008", "num_larger_008")
    )


def test_the_seeded_draw_equals_the_published_one(balance):
    densities = balance["in/gtav_crop"]
    shares = target_shares([bin_shares(balance[f"in/{name}"]) for name in ("syn", "gt_rain")])
    drawn = draw(densities, plan_balance(densities, shares), seed=123)
    for indices, name in zip(
        drawn, ("select_004", "select_004_008", "indices_larger_008"), strict=True
    ):
        np.testing.assert_array_equal(indices, balance[f"out/{name}"])


def test_the_draw_leaves_the_global_generator_alone(balance):
    densities = balance["in/gtav_crop"]
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    draw(densities, plan_balance(densities, (0.1, 0.3, 0.6)), seed=123)
    assert np.random.random() == expected


def test_published_shares_give_the_published_set():
    shares = target_shares(
        [published_shares(PUBLISHED_SUMMARIES[name]) for name in ("SynRain", "GT-Rain")]
    )
    assert shares[:2] == pytest.approx((0.0357038, 0.2306717), abs=5e-8)
    crops = np.repeat(np.float32([0.02, 0.06, 0.1]), [29191, 21769, 9040])
    plan = plan_balance(crops, shares)
    assert plan.total == pytest.approx(12322.38, abs=0.005)
    assert plan.taken == (439, 2842, 9040)


def test_set_summary_equals_the_published_aggregates(stats, tmp_path):
    for number, name in enumerate("abc"):
        for role, folder in (("rain", "rainy"), ("gt", "clean")):
            frame = stats[f"in/{number}/{role}_u8"].transpose(1, 2, 0)
            write_image(tmp_path / folder / f"{name}.png", np.ascontiguousarray(frame))
    rows = list(measure_images(read_set(str(tmp_path)), tmp_path / "x.csv", threads=2, skipped=[]))
    summary = summarize("x", rows)
    expected = {key.rpartition("/")[2]: stats[key] for key in stats if "out/props/" in key}
    assert summary.clean_entropy_sum == pytest.approx(
        expected["gt_entropies"].sum(), rel=rounding(depth=4)
    )
    assert summary.rainy_entropy_sum == pytest.approx(
        expected["rain_entropies"].sum(), rel=rounding(depth=4)
    )
    assert summary.density == pytest.approx(expected["densities"].mean(), rel=rounding(depth=4))
    assert summary.gradient == pytest.approx(expected["y_gradients"].mean(), rel=rounding(depth=10))
    assert summary.gradient_pairs == summary.colourfulness_pairs == 2
    assert summary.clean_luminance == pytest.approx(
        expected["gt_illus"].mean(), rel=rounding(depth=4)
    )
    assert summary.rainy_luminance == pytest.approx(
        expected["rain_illus"].mean(), rel=rounding(depth=4)
    )
    assert summary.colourfulness == pytest.approx(
        expected["non_monos"].mean(), rel=rounding(depth=10)
    )
    assert summary.psnr_db == pytest.approx(expected["psnrs"].mean(), abs=1e-3)
    np.testing.assert_array_equal(densities_of(rows), stats["out/density_01"])


def test_histogram_equals_the_published_one(stats):
    counts = density_histogram(stats["in/densities_hist"])
    assert counts == tuple(stats["out/hist_counts"].astype(int).tolist())


# --- balance --------------------------------------------------------------------------------------


densities_lists = st.lists(
    st.floats(0, 1, width=32, allow_subnormal=False), min_size=1, max_size=60
).map(lambda values: np.array(values, np.float32))


@given(densities_lists, st.integers(0, 99), st.sampled_from(["heaviest", "scarcest"]))
@settings(max_examples=60, deadline=None)
def test_a_draw_is_a_part_of_the_set_and_keeps_one_bin_whole(densities, seed, keep):
    try:
        plan = plan_balance(densities, (0.2, 0.3, 0.5), keep=keep)
    except DatasetError:
        counts = [round(share * len(densities)) for share in bin_shares(densities)]
        assert counts[2] == 0 or (keep == "scarcest" and 0 in counts)
        return
    drawn = draw(densities, plan, seed)
    together = np.concatenate(drawn)
    assert len(set(together.tolist())) == len(together)
    assert tuple(map(len, drawn)) == plan.taken
    assert plan.taken[plan.whole] == plan.available[plan.whole]
    if keep == "scarcest":
        assert plan.taken == plan.wanted
    limits = [-math.inf, np.float32(0.04), np.float32(0.08), math.inf]
    for low, high, indices in zip(limits, limits[1:], drawn, strict=False):
        assert all(low < densities[index] <= high for index in indices)


def test_shares_sum_to_one_and_edges_belong_below():
    densities = np.array([0.04, 0.08, 0.2, 0.5], np.float32)
    assert bin_shares(densities) == [0.25, 0.25, 0.5]
    assert bin_shares(densities, (0.1, 0.3, 0.6)) == [0.5, 0.25, 0.25, 0.0]


def test_too_few_pairs_of_a_bin_are_all_taken():
    densities = np.array([0.01] + [0.3] * 10, np.float32)
    plan = plan_balance(densities, (0.5, 0.0, 0.5))
    assert plan.wanted == (10, 0, 10)
    assert plan.taken == (1, 0, 10)
    scarce = plan_balance(densities, (0.5, 0.0, 0.5), keep="scarcest")
    assert (scarce.whole, scarce.taken) == (0, (1, 0, 1))


def test_an_empty_bin_cannot_be_kept():
    with pytest.raises(DatasetError, match="no pair of rain density above"):
        plan_balance(np.array([0.01], np.float32), (0.2, 0.3, 0.5))


def test_published_shares_need_edges_of_the_histogram():
    summary = PUBLISHED_SUMMARIES["GT-Rain"]
    assert sum(published_shares(summary, (0.04, 0.2, 0.4))) == pytest.approx(1)
    for edges in ((0.05,), (0.04, 0.44)):
        with pytest.raises(DatasetError, match="multiples of"):
            published_shares(summary, edges)


# --- crops and pairs ------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_crops_tile_the_top_left_corner_row_by_row(height, width, size):
    frame = np.arange(height * width * 3, dtype=np.int64).reshape(height, width, 3)
    crops = crop_frame(frame, size)
    rows, columns = height // size, width // size
    assert len(crops) == rows * columns
    if crops:
        lines = [np.hstack(crops[row * columns : (row + 1) * columns]) for row in range(rows)]
        np.testing.assert_array_equal(np.vstack(lines), frame[: rows * size, : columns * size])


NAMES = st.text("ab01_", min_size=1, max_size=8).filter(lambda name: name.strip("_"))


@given(NAMES, NAMES)
def test_crops_pair_again_as_their_images_did(rainy, clean):
    partner = next((key for key in clean_keys(rainy) if key == clean), None)
    if partner is None:
        clean = clean_keys(rainy)[-1]
    pair = Pair(f"{rainy}.png", Path("r"), Path("c"), f"{clean}.jpg")
    job = folder_jobs(ImageSet(name="x", pairs=(pair,)))[0]
    keys = clean_keys(match_key(f"{job.rainy_stem}_2crop.png"))
    assert match_key(f"{job.clean_stem}_2crop.png") in keys


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("auto", ["s/11_03_x", "s/11_x", "s/11"]),
        ("same-name", ["s/11_03_x"]),
        ("second-token", ["s/11_x"]),
        ("first-token", ["s/11"]),
    ],
)
def test_pairing_rules(rule, expected):
    assert clean_keys("s/11_03_x", rule) == expected


@pytest.mark.parametrize(
    ("rainy", "clean"), [("rainy", "gt"), ("Input", "Target"), ("rain", "norain")]
)
def test_a_root_is_known_by_its_folders(tmp_path, rainy, clean):
    write_image(tmp_path / rainy / "7_01.png", texture())
    write_image(tmp_path / rainy / "8_01.png", texture())
    write_image(tmp_path / clean / "7.jpg", texture())
    write_image(tmp_path / clean / "9.jpg", texture())
    images = read_set(f"name:{tmp_path}")
    assert images.name == "name"
    assert [(pair.name, pair.clean_name) for pair in images.pairs] == [("7_01.png", "7.jpg")]
    assert [path.name for path in images.unpaired] == ["8_01.png"]
    assert [path.name for path in images.lone_clean] == ["9.jpg"]


def test_scenes_of_gt_rain_share_their_first_clean_image(tmp_path):
    for name in ("s/a-R-000.png", "s/a-R-001.png", "s/a-C-000.png", "t/b-R-000.png"):
        write_image(tmp_path / name, texture())
    images = read_set(str(tmp_path))
    assert [(pair.name, pair.clean_name) for pair in images.pairs] == [
        ("s/a-R-000.png", "s/a-C-000.png"),
        ("s/a-R-001.png", "s/a-C-000.png"),
    ]
    assert [path.name for path in images.unpaired] == ["b-R-000.png"]


def test_two_clean_images_of_one_stem_are_refused(tmp_path):
    write_image(tmp_path / "r/1.png", texture())
    for suffix in ("png", "jpg"):
        write_image(tmp_path / f"c/1.{suffix}", texture())
    with pytest.raises(DatasetError, match="keep one of them"):
        pair_folders("x", tmp_path / "r", tmp_path / "c")


@pytest.mark.parametrize("text", ["nowhere", "a:b:c:d", "a:", ":b", "a\0b"])
def test_what_is_no_set_is_said_so(text):
    with pytest.raises(DatasetError, match="write a set as"):
        read_set(text)


def test_a_name_that_is_no_file_name_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="cannot be that of a file"):
        read_set(f"a/b:{tmp_path}")


# --- measures -------------------------------------------------------------------------------------


def test_entropies_of_clean_images_count_once_per_file_name():
    rows = [
        measured(name="a_1.png", clean="x/a.png", clean_entropy=2.0),
        measured(name="a_2.png", clean="y/a.png", clean_entropy=9.0),
        measured(name="b_1.png", clean="b.png", clean_entropy=1.0),
    ]
    summary = summarize("x", rows)
    assert (summary.distinct_clean, summary.clean_entropy_sum) == (2, 3.0)
    assert summary.rainy_entropy_sum == 3.0


def test_undefined_measures_are_left_out_of_means():
    rows = [
        measured(gradient=None, colourfulness=None, psnr_db=math.inf),
        measured(gradient=4.0, colourfulness=2.0, psnr_db=30.0),
    ]
    summary = summarize("x", rows)
    assert (summary.gradient, summary.gradient_pairs) == (4.0, 1)
    assert (summary.colourfulness, summary.psnr_db, summary.equal_pairs) == (2.0, 30.0, 1)
    empty = summarize("x", rows[:1])
    assert empty.gradient is empty.colourfulness is empty.psnr_db is None
    with pytest.raises(DatasetError, match="no pair"):
        summarize("x", [])


def test_summaries_survive_writing(tmp_path):
    summary = summarize("x", [measured(gradient=None)])
    write_summary(tmp_path / "x.json", summary, ["broken.png"])
    assert read_summary(tmp_path / "x.json") == summary


@pytest.mark.parametrize("content", ["", "[]", "{", '{"name": 3}', "\xff"])
def test_what_is_no_summary_is_named(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.json"):
        read_summary(path)


def tree(folder, count=3):
    for number in range(count):
        clean = texture(number, (24, 32))
        write_image(folder / f"gt/{number}.png", clean)
        write_image(folder / f"rainy/{number}_0.png", np.clip(clean + 30.0, 0, 255).astype("u1"))
    return read_set(str(folder))


def run(images, table, skipped=None):
    return list(
        measure_images(images, table, threads=2, skipped=[] if skipped is None else skipped)
    )


def test_measuring_goes_on_where_it_stopped(tmp_path, monkeypatch):
    images, table = tree(tmp_path / "set"), tmp_path / "set.csv"
    rows = run(images, table)
    whole = table.read_bytes()
    assert read_measured(table) == [
        dataclasses.replace(
            row,
            pair=Pair(
                row.pair.name,
                tmp_path / "set/rainy" / row.pair.name,
                tmp_path / "set/gt" / row.pair.clean_name,
                row.pair.clean_name,
            ),
        )
        for row in rows
    ]
    calls = []

    def read(path):
        calls.append(path.name)
        return read_image(path)

    monkeypatch.setattr("rainmer.align.measure.read_image", read)
    run(images, table)
    assert calls == []
    # The last row is cut, as by an interruption: only that pair is measured again.
    table.write_bytes(whole[:-9])
    run(images, table)
    assert sorted(calls) == ["2.png", "2_0.png"]
    assert table.read_bytes() == whole
    # A changed image is measured again.
    calls.clear()
    write_image(tmp_path / "set/rainy/1_0.png", texture(9, (24, 32)))
    os.utime(tmp_path / "set/rainy/1_0.png", ns=(1, 1))
    run(images, table)
    assert sorted(calls) == ["1.png", "1_0.png"]
    assert len(read_measured(table)) == 3


def test_an_interrupted_run_has_its_rows_on_disk(tmp_path):
    images, table = tree(tmp_path / "set"), tmp_path / "set.csv"
    coming = measure_images(images, table, threads=1, skipped=[])
    next(coming)
    coming.close()
    assert len(read_measured(table)) == 1


def test_pairs_that_left_the_set_leave_the_table(tmp_path):
    images, table = tree(tmp_path / "set"), tmp_path / "set.csv"
    run(images, table)
    run(dataclasses.replace(images, pairs=images.pairs[1:]), table)
    assert [row.pair.name for row in read_measured(table)] == ["1_0.png", "2_0.png"]


def test_broken_pairs_are_skipped_and_named(tmp_path):
    images, table = tree(tmp_path / "set"), tmp_path / "set.csv"
    write_image(tmp_path / "set/rainy/0_0.png", texture(0, (20, 20)))
    (tmp_path / "set/gt/1.png").write_bytes(b"no image")
    skipped = []
    rows = run(images, table, skipped)
    assert [row.pair.name for row in rows] == ["2_0.png"]
    assert "20x20" in skipped[0]
    assert "1.png cannot be decoded" in skipped[1]


def test_another_table_is_not_overwritten(tmp_path):
    images, table = tree(tmp_path / "set"), tmp_path / "set.csv"
    table.write_text("my,own,table\n1,2,3\n")
    with pytest.raises(DatasetError, match="other columns"):
        run(images, table)
    assert table.read_text() == "my,own,table\n1,2,3\n"


def test_names_with_commas_quotes_and_lines_survive(tmp_path):
    for name in ('a,"b"', "new\nline"):
        for folder in ("rainy", "gt"):
            write_image(tmp_path / "set" / folder / f"{name}.png", texture(1, (8, 8)))
    rows = run(read_set(str(tmp_path / "set")), tmp_path / "set.csv")
    names = [row.pair.name for row in read_measured(tmp_path / "set.csv")]
    assert names == [row.pair.name for row in rows] == ['a,"b".png', "new\nline.png"]


def test_results_come_in_order_and_errors_with_them():
    def work(number):
        if number == 3:
            raise ImageError("broken")
        return number * 10

    done = list(ordered_map(work, range(9), threads=3, errors=(ImageError, DatasetError)))
    assert [item for item, _ in done] == list(range(9))
    assert isinstance(done[3][1], ImageError)
    assert done[8][1] == 80


# --- leaks ----------------------------------------------------------------------------------------


CHANGES = {
    "jpeg": lambda frame: decode_image(encode_image(frame, ".jpg", 50)),
    "half": lambda frame: cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "square": lambda frame: cv2.resize(frame, (200, 200), interpolation=cv2.INTER_CUBIC),
    "darker": lambda frame: (frame * 0.6).astype(np.uint8),
    "grey": lambda frame: cv2.cvtColor(cv2.cvtColor(frame, 7), cv2.COLOR_GRAY2RGB),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_are_found_and_others_are_not(change, seed):
    train = prints([texture(seed), texture(seed + 100)])
    test = prints([texture(seed + 200), CHANGES[change](texture(seed))])
    found = leaks_between(train, test, threshold=8)
    assert [(leak.kind, leak.first.name, leak.second.name) for leak in found] == [
        ("near", "0.png", "1.png")
    ]


def test_exact_duplicates_are_equal_pixels_not_files():
    frame = texture()
    again = decode_image(encode_image(frame, ".bmp"))
    leaks = leaks_between(prints([frame]), prints([again]), threshold=0)
    assert [(leak.kind, leak.distance) for leak in leaks] == [("exact", 0)]


def test_equal_pixels_of_another_shape_are_no_duplicates():
    flat = np.zeros((4, 8, 3), np.uint8)
    assert leaks_between(prints([flat]), prints([flat.reshape(8, 4, 3)]), threshold=8) == []


def test_flat_images_match_only_exactly():
    flat = [np.full((40, 40, 3), level, np.uint8) for level in (0, 9, 9)]
    assert perceptual_hash(flat[0]) is None
    leaks = leaks_within(prints(flat), threshold=8)
    assert [(leak.kind, leak.first.name, leak.second.name) for leak in leaks] == [
        ("exact", "1.png", "2.png")
    ]


def test_within_a_set_each_image_is_told_once():
    frame = texture()
    images = prints([frame, texture(7), frame, CHANGES["jpeg"](frame)])
    leaks = leaks_within(images, threshold=8)
    assert [(leak.kind, leak.first.name, leak.second.name) for leak in leaks] == [
        ("exact", "0.png", "2.png"),
        ("near", "0.png", "3.png"),
    ]


hashes = st.lists(st.one_of(st.none(), st.integers(0, 2**64 - 1)), max_size=12)


@given(hashes, hashes, st.integers(0, 40))
@settings(deadline=None)
def test_hashes_are_compared_bit_by_bit(first, second, threshold):
    sets = [
        [Fingerprint(Path(str(i)), f"{role}{i}", value) for i, value in enumerate(values)]
        for role, values in (("a", first), ("b", second))
    ]
    expected = {
        (i, j): (a ^ b).bit_count()
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if a is not None and b is not None and (a ^ b).bit_count() <= threshold
    }
    leaks = leaks_between(*sets, threshold)
    assert {(int(x.first.name), int(x.second.name)): x.distance for x in leaks} == expected


def test_empty_sets_have_no_leaks():
    assert leaks_between([], prints([texture()]), 8) == leaks_within([], 8) == []


# --- figures --------------------------------------------------------------------------------------


def test_the_radar_shows_shares_of_the_largest_set():
    values = radar_values(list(PUBLISHED_SUMMARIES.values()))
    for spoke in zip(*values, strict=True):
        assert max(spoke) == 1
    assert values[1][0] == pytest.approx(273.947 / 46702.31)
    means = radar_values(list(PUBLISHED_SUMMARIES.values()), "mean")
    assert means[1][0] == pytest.approx(3.0781 / 3.4062)


def test_the_radar_takes_sets_that_lack_properties():
    summary = summarize("x", [measured(gradient=None, colourfulness=None, psnr_db=math.inf)])
    assert radar_values([summary])[0][3] is None
    labels = [text.get_text() for text in radar_figure([summary]).legends[0].get_texts()]
    assert "undefined: vertical gradient" in labels[0]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_figures_are_the_same_files_every_time(tmp_path, suffix):
    summaries = list(PUBLISHED_SUMMARIES.values())
    for draw_figure in (radar_figure, density_figure):
        contents = []
        for number in range(2):
            path = tmp_path / f"{number}.{suffix}"
            save_figure(path, draw_figure(summaries))
            contents.append(path.read_bytes())
        assert contents[0] == contents[1]
        if suffix == "svg":
            assert b"GTAV-balance" in contents[0]


def test_published_summaries_agree_with_the_published_tables():
    counts = {name: sum(one.rain_density_counts) for name, one in PUBLISHED_SUMMARIES.items()}
    assert counts == {"SynRain": 13658, "GT-Rain": 26124, "GTAV-balance": 12307}
    for one in PUBLISHED_SUMMARIES.values():
        assert one.rainy_entropy_sum / one.pairs == pytest.approx(one.rainy_entropy, abs=1e-4)
        mean = one.clean_entropy_sum / one.distinct_clean
        assert mean == pytest.approx(one.clean_entropy, abs=1e-4)
