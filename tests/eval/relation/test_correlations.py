"""Correlations from gains that are written down, and the sentences about them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from eval.relation.coefficients import permutation_p
from eval.relation.correlations import Correlation, correlate
from eval.relation.figures import condition_scatters, order_derainers, relation_figure
from eval.relation.gains import (
    DETECTION,
    RESTORATION,
    ConditionGains,
    GainRow,
    ImageGains,
    Levels,
    SetGains,
    f1_score,
    interval_of,
)
from eval.relation.words import (
    agreement_sentence,
    caution,
    find_correlation,
    format_coefficient,
    format_gain,
    gain_table,
    headline,
)
from eval.scores.score import Score
from rainmer.figures import save_figure
from rainmer.frames.images import read_image

SCORES = ("psnr", "ssim", "psnr_official", "ssim_official")


def gains(name, derainers, *, resamples=200, noise=0.0, seed=0):
    """Make a set of derainers with these (restoration, detection) gains on 12 images."""
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(12, np.full(12, 1 / 12), resamples).astype(float)
    rows, samples, images = [], {}, {}
    for derainer, (restoration, detection) in derainers.items():
        values = dict.fromkeys(RESTORATION, restoration) | dict.fromkeys(DETECTION, detection)
        rows.append(
            GainRow(
                set_name=name,
                condition="all",
                derainer=derainer,
                control=derainer in ("none", "median"),
                truth="boxes",
                images=12,
                boxes=12,
                mean_ap=Levels(0.2, 0.2 + detection),
                clean_mean_ap=0.9,
                images_scored=12,
                levels=dict.fromkeys(SCORES, Levels(20.0, 20.0 + restoration)),
                gains={key: Score(value) for key, value in values.items()},
            )
        )
        samples[derainer] = {
            key: value + noise * rng.normal(size=resamples) for key, value in values.items()
        }
        rainy = rng.integers(10, 30, 12).astype(float)
        counts = np.zeros((12, 2, 3), np.int64)
        counts[:, 1, 0] = np.arange(12) % 3
        counts[:, :, 2] = 1
        images[derainer] = ImageGains(
            {score: (rainy, rainy + np.arange(12) % 4) for score in SCORES}, counts
        )
    condition = ConditionGains(np.arange(12), weights, rows, samples)
    return SetGains(name, "boxes", tuple(range(12)), {"all": condition}, images)


RISING = {"a": (1.0, 0.1), "b": (2.0, 0.2), "c": (3.0, 0.4), "none": (0.0, 0.0)}
FALLING = {"a": (1.0, 0.4), "b": (2.0, 0.3), "c": (3.0, 0.1), "none": (0.0, 0.0)}


def find(table, scope, points="derainers", **more):
    """Return the correlation as the flat row of correlations.csv."""
    wanted = {"restoration": "delta_psnr", "detection": "delta_mAP", **more}
    correlation = find_correlation(table, scope=scope, points=points, **wanted)
    return None if correlation is None else correlation.as_record()


def test_ranks_that_agree_and_ranks_that_do_not():
    table = correlate([gains("up", RISING), gains("down", FALLING)])
    assert find(table, "set", set_name="up")["spearman"] == pytest.approx(1.0)
    assert find(table, "set", set_name="up")["pearson"] == pytest.approx(0.98198, abs=1e-5)
    assert find(table, "set", set_name="down")["kendall"] == pytest.approx(-1.0)
    assert find(table, "set", set_name="down")["n"] == 3
    with_controls = find(table, "set", "derainers and controls", set_name="down")
    assert with_controls["n"] == 4
    assert with_controls["kendall"] == pytest.approx(0.0)
    assert find(table, "pooled")["n"] == 6


def test_an_interval_follows_the_spread_of_the_resamples():
    still = find(correlate([gains("still", RISING)]), "set")
    assert (still["spearman_low"], still["spearman_high"]) == pytest.approx((1.0, 1.0))
    noisy = find(correlate([gains("noisy", RISING, noise=1.0)]), "set")
    assert noisy["spearman_low"] < 0 < noisy["spearman_high"]


def test_pooled_resamples_of_equal_sets_are_not_the_same_ones():
    """Two sets drawn with one seed must not share the luck of a resample."""
    both = [gains(name, RISING, noise=0.5, seed=1) for name in ("first", "second")]
    table = correlate(both, seed=0)
    single, pooled = find(table, "set"), find(table, "pooled")
    width = {
        name: row["pearson_high"] - row["pearson_low"]
        for name, row in (("single", single), ("pooled", pooled))
    }
    assert width["pooled"] < 0.9 * width["single"]
    assert find(correlate(both, seed=0), "pooled") == pooled


def test_images_of_one_derainer():
    table = correlate([gains("one", {"a": (1.0, 0.1)})])
    row = find(table, "images", "images", detection="delta_f1", derainer="a")
    assert row["n"] == 12
    expected = stats.spearmanr(np.arange(12) % 4, np.arange(12) % 3).statistic
    assert row["spearman"] == pytest.approx(expected)
    assert row["spearman_low"] < row["spearman_high"]
    assert find(table, "pooled") is None


def test_why_there_is_no_correlation():
    two = correlate([gains("two", {"a": (1.0, 0.1), "b": (2.0, 0.2)})])
    assert find(two, "set")["note"] == "2 points: a correlation needs 3"
    assert headline(two) == "2 derainers are too few for a correlation: it takes 6"
    flat = {name: (1.0, number) for name, number in (("a", 0.1), ("b", 0.2), ("c", 0.3))}
    row = find(correlate([gains("flat", flat)]), "set")
    assert row["note"] == "the restoration gain is the same at all points"
    assert row["pearson"] is None
    upright = {name: (number, 0.1) for name, (_, number) in flat.items()}
    assert "detection gain is the same" in find(correlate([gains("x", upright)]), "set")["note"]


def test_mostly_undefined_resamples_give_no_interval():
    one = gains("one", RISING)
    for values in one.conditions["all"].samples.values():
        values["recovered"][:20] = np.nan
    row = find(correlate([one]), "set", detection="recovered")
    assert row["spearman"] == pytest.approx(1.0)
    assert row["spearman_low"] is None
    assert row["note"].startswith("no interval: fewer than 95 %")
    assert interval_of(np.array([1.0] * 97 + [np.nan] * 3)) == (1.0, 1.0)
    assert interval_of(np.zeros(0)) is None


def test_f1_of_images():
    counts = np.array([[1, 0, 1], [0, 0, 2], [0, 2, 0], [0, 0, 0]])
    assert f1_score(counts).tolist() == pytest.approx([2 / 3, 0.0, 0.0, 1.0])


def test_p_is_the_share_of_orders_that_agree_as_well():
    """On two sets a derainer keeps both its points: 3! orders of derainers, not 6! of points."""
    table = correlate([gains("up", RISING), gains("too", RISING)])
    assert find(table, "set", set_name="up")["spearman_p"] == pytest.approx(2 / 6)
    assert find(table, "pooled")["spearman_p"] == pytest.approx(2 / 6)
    assert find(table, "pooled")["n_derainers"] == 3
    assert find(table, "set", "derainers and controls", set_name="up")["spearman_p"] is None
    half = {name: gain for name, gain in RISING.items() if name != "c"}
    assert (
        find(correlate([gains("up", RISING), gains("half", half)]), "pooled")["spearman_p"] is None
    )
    x = np.random.default_rng(0).normal(size=(2, 6))
    ours = permutation_p(x[:1], x[1:])
    assert ours == pytest.approx(
        stats.permutation_test(
            (x[0],), lambda v: stats.spearmanr(v, x[1]).statistic, permutation_type="pairings"
        ).pvalue
    )


def six(gain):
    """Six derainers and a control whose detection gain follows a function of the other gain."""
    return {name: (float(i), gain(i)) for i, name in enumerate("abcdef", start=1)} | {
        "none": (0.0, 0.0)
    }


def test_sentences():
    rising = correlate([gains("up", six(lambda i: 0.1 * i))])
    falling = correlate([gains("down", six(lambda i: 0.9 - 0.1 * i))])
    noisy = correlate([gains("noisy", six(lambda i: 0.1 * i), noise=3.0)])
    chance = correlate([gains("chance", six(lambda i: 0.1 * (i % 4)))])
    assert headline(chance).startswith("No measurable relation of the gain of PSNR")
    assert "over 6 points, p = 0.0028 by permutation of the 6 derainers" in headline(rising)
    assert headline(correlate([gains("up", RISING)])) == (
        "3 derainers are too few for a correlation: it takes 6"
    )
    assert caution(correlate([gains("up", RISING)])) == ""
    assert headline(rising).startswith("A larger gain of PSNR goes with a larger gain of mAP: ")
    assert headline(falling).startswith("A larger gain of PSNR goes with a smaller gain of mAP")
    assert headline(noisy).startswith("No measurable relation of the gain of PSNR")
    assert headline([]) == "No derainer was measured"
    assert caution(rising).startswith("6 derainers are few.")
    rows = [row for values in (RISING, FALLING) for row in rows_of(values)]
    assert agreement_sentence(rows[:4]) == (
        "The derainer that gains most PSNR is the one that gains most mAP."
    )
    assert agreement_sentence(rows).startswith("On 1 of 2 sets")
    assert agreement_sentence(rows[3:4]) == ""


def rows_of(values):
    return gains(str(values["a"]), values).conditions["all"].rows


def test_numbers_as_text():
    empty = Correlation(
        scope="set",
        set_name="one",
        condition="all",
        points="derainers",
        restoration="delta_psnr",
        detection="delta_mAP",
    )
    known = replace(empty, coefficients={"spearman": Score(-0.004, -0.5, 0.25)})
    assert format_coefficient(known, "spearman") == "0.00 [-0.50, 0.25]"
    assert format_coefficient(empty, "spearman") == "–"
    assert format_gain(Score(0.123), "relative_mAP") == "+12.3 %"
    assert format_gain(Score(None), "delta_psnr") == "–"
    assert len(set(map(len, gain_table(rows_of(RISING)).splitlines()))) == 1


def test_figures(tmp_path):
    rows = [row for values in (RISING, FALLING) for row in rows_of(values)]
    assert order_derainers(rows) == ["none", "a", "b", "c"]
    undefined = [replace(row, gains={**row.gains, "delta_ssim": Score()}) for row in rows]
    save_figure(tmp_path / "relation.png", relation_figure(undefined))
    save_figure(tmp_path / "by.svg", condition_scatters([("day", rows), ("night", rows[:2])]))
    assert read_image(tmp_path / "relation.png").shape[1] == 1472
    svg = (tmp_path / "by.svg").read_text()
    assert "night" in svg
    assert "hollow: control" in svg
