"""The page of a restoration run."""

import math

import numpy as np
import pytest

from eval.report.facts import RunFacts
from eval.report.strips import Panel, Strip
from eval.restore.comparison import Comparison, SceneRow, Settings
from eval.restore.report import MOST_POINTS, Report, headline, image_scatter, render_report
from eval.restore.strips import Strips, select_strips
from tests.eval.pages import Page, check_self_contained
from tests.eval.restore.test_tables import entry
from tests.eval.restore.trees import run, write_pairs, write_scenes

HOSTILE = '<script>alert("x")</script>&$a_b$'


def strips(name="worst.png", label="x"):
    frame = np.full((30, 40, 3), 90, np.uint8)
    panels = [Panel("rainy", frame, caption="20.00 dB, SSIM 0.5000"), Panel(label, frame)]
    return Strips([Strip(name, label, label, -1.25, panels, unit="dB")], [], [], [])


ROWS = (
    entry("rain100H"), entry("rain100H", "median"), entry("rain100H", "a", 30.0, 0.7),
    entry("real", reference=False, psnr=None, ssim=None),
)  # fmt: skip


def full_report(
    rows=ROWS, conventions=("official", "matlab"), metrics=(), scenes=(), results=(),
    command="python -m eval.restore --derain a", config=None,
    notes=("rain100H: 3 of 20 images, evenly spread",), protocol=None, **more,
):  # fmt: skip
    facts = RunFacts(
        command=command, date="", environment={"torch": "2"}, elapsed_s={"derain": 1.0},
        config={"seed": 0} if config is None else config, notes=notes,
        protocol=protocol or {"scored": "rounded"},
    )  # fmt: skip
    values = {
        "comparison": Comparison([], results, rows, scenes, notes),
        "settings": Settings(conventions=conventions, metrics=metrics),
        "facts": facts,
        "strips": strips(),
    }
    return Report(**values | more)


def test_page_is_whole_and_self_contained():
    text = render_report(full_report())
    check_self_contained(text)
    page = Page(text)
    for words in (
        "a gains 2.00 dB of PSNR [1.00, 4.00] on rain100H",
        "Convention official",
        "29.38 / 0.8775",
        "published",
        "ACM MM 2024",
        "+2.00 [1.00, 4.00]",
        "3 of 20 images",
        "20.00 dB, SSIM 0.5000",
        "−1.25 dB",
        "python -m eval.restore --derain a",
    ):
        assert words in page.text, words
    assert "<b>30.00</b> / <b>0.7000</b>" in text
    assert "<u>20.00</u> / <u>0.5000</u>" in text
    assert all(image.get("alt") for image in page.all("img"))
    assert all(head.get("scope") for head in page.all("th"))


def test_hostile_names_are_escaped():
    rows = [entry(HOSTILE), entry(HOSTILE, HOSTILE), entry(HOSTILE, "b")]
    means = {key: score.mean for key, score in rows[1].scores.items()}
    scenes = [
        SceneRow(
            set=HOSTILE, scene=HOSTILE, input="derained", derainer=HOSTILE, means=means, images=100
        )
    ]
    report = full_report(
        rows=rows, scenes=scenes, strips=strips(HOSTILE, HOSTILE), command=HOSTILE,
        notes=[HOSTILE], protocol={HOSTILE: HOSTILE}, config={HOSTILE: HOSTILE},
    )  # fmt: skip
    text = render_report(report)
    assert text.count("<script") == 1
    assert Page(text).text.count(HOSTILE) >= 10


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"rows": []}, id="no rows"),
        pytest.param({"rows": [entry("x")]}, id="only rainy"),
        pytest.param(
            {"rows": [entry("x", d, None, None, reference=False) for d in ("", "a")]}, id="no truth"
        ),
        pytest.param({"rows": [entry("x"), entry("x", "a", math.inf)]}, id="infinite"),
        pytest.param({"strips": Strips([], [], [], []), "notes": [], "config": {}}, id="bare"),
    ],
)
def test_page_survives_what_is_missing(changes):
    text = render_report(full_report(**changes))
    check_self_contained(text)
    assert "None" not in Page(text).text
    assert "nan" not in Page(text).text.split()


def test_equal_images_are_counted_on_the_page():
    one = entry("x", "a", math.inf, psnr_official_infinite=3, psnr_official_of_others=21.0)
    page = Page(render_report(full_report(rows=[entry("x"), one])))
    assert "3 equal, the others 21.00" in page.text
    assert "∞ / 0.5000" in page.text


def change(value, half=0.5):
    keys = ("delta_psnr", "delta_psnr_low", "delta_psnr_high")
    return dict(zip(keys, (value, value - half, value + half), strict=True))


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([entry("x", "a", **change(-2.0))], "a loses 2.00 dB of PSNR [1.50, 2.50] on x"),
        ([entry("x", "a", **change(2.0)), entry("x", "median", **change(5.0))], "a gains 2.00 dB"),
        ([entry("x", "median", **change(5.0))], "median gains 5.00 dB"),
        (
            [entry("x", "a", **change(2.0)), entry("y", "a", **change(4.0))],
            "a gains 3.00 dB of PSNR on average over 2 sets",
        ),
        ([entry("x", "a", delta_psnr=None)], "No score could be given"),
        ([entry("x")], "No derainer was measured"),
    ],
)
def test_headline(rows, text):
    assert headline(rows, "matlab").startswith(text)


def test_scatter_has_a_point_for_each_image(tmp_path):
    root = write_pairs(tmp_path / "set")
    comparison = run(tmp_path, [f"folders:{root}"], ["none", "median"])
    (axes,) = image_scatter(comparison.rows, "psnr").axes
    points = [one for one in axes.lines if one.get_linestyle() == "None"]
    assert [len(one.get_xdata()) for one in points] == [4, 4]
    rainy, _, median = comparison.rows
    for x, y, name in zip(points[1].get_xdata(), points[1].get_ydata(), rainy.scores, strict=True):
        assert x == rainy.scores[name].scores["psnr"]
        assert y == pytest.approx(median.scores[name].scores["psnr"] - x)
    assert len(comparison.rows[0].usable) < MOST_POINTS
    assert image_scatter(comparison.rows[:1], "psnr") is None


def test_strips_show_the_extremes_once(tmp_path):
    root = write_pairs(tmp_path / "set", 8)
    comparison = run(tmp_path, [f"folders:{root}"], ["none", "median"])
    chosen = select_strips(comparison.rows, "matlab", lambda row, frame, name: 255 - frame)
    assert [len(group) for group in chosen] == [6, 4, 2, 0], "both are controls, so both are shown"
    worst = [strip for strip in chosen.worst if strip.derainer == "median"]
    gains = [strip.gain for strip in worst]
    assert gains == sorted(gains)
    names = [strip.image for group in chosen for strip in group if strip.derainer == "median"]
    assert len(names) == len(set(names)) == 6
    rainy, derained, clean = worst[0].panels
    np.testing.assert_array_equal(derained.frame, 255 - rainy.frame)
    assert clean.facts == "the target"
    assert rainy.facts.endswith("dB, SSIM " + rainy.facts.rsplit(" ", 1)[1])


def test_strips_without_clean_images(tmp_path):
    write_pairs(tmp_path / "set", 5, rainy="Real_Internet/{}.png", clean=None)
    comparison = run(tmp_path, [f"realint:{tmp_path / 'set'}"])
    chosen = select_strips(comparison.rows, "matlab", lambda row, frame, name: frame)
    assert [len(group) for group in chosen] == [0, 0, 0, 2]
    assert len(chosen.unscored[0].panels) == 2
    assert chosen.unscored[0].panels[0].facts == "no score"


def test_scenes_are_on_the_page(tmp_path):
    comparison = run(tmp_path, [f"gtrain:{write_scenes(tmp_path / 'set')}"])
    report = full_report(
        rows=comparison.table, scenes=comparison.scenes, results=comparison.rows,
        conventions=["matlab"], strips=Strips([], [], [], []),
    )  # fmt: skip
    text = render_report(report)
    check_self_contained(text)
    assert "gtrain: b" in Page(text).text
    assert text.count("<svg") == 2
