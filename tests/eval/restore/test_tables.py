"""The paper's tables: who is best, what was published, and the same as text."""

import math
import re
from statistics import mean

import pytest

from eval.restore.comparison import TableRow
from eval.restore.metrics import METRICS
from eval.restore.published import PUBLISHED, published_for
from eval.restore.scores import MeanScore
from eval.restore.tables import (
    format_change,
    format_score,
    format_text,
    paper_table,
    to_latex,
    to_markdown,
)
from eval.scores.score import Score

SEVEN = ("rain100L", "rain100H", "test100", "test1200", "test2800", "gtrain", "gtavcrop")


def entry(name, derainer="", psnr=20.0, ssim=0.5, images=100, reference=True, **more):
    """A row in both conventions, without scores of other metrics.

    More fields are those of metrics.json: `delta_psnr_low=...`.
    """
    fields = {}
    for suffix in ("", "_official"):
        fields |= {f"psnr{suffix}": psnr, f"ssim{suffix}": ssim}
        for metric, change in (("psnr", 2.0), ("ssim", 0.1)):
            key = f"delta_{metric}{suffix}"
            if derainer:
                fields |= {key: change, f"{key}_low": change / 2, f"{key}_high": change * 2}
    fields |= more
    keys = ["psnr", "ssim", "psnr_official", "ssim_official", *METRICS]
    return TableRow(
        set=name,
        layout=name,
        input="derained" if derainer else "rainy",
        derainer=derainer,
        scores={key: mean_score(key, fields) for key in keys},
        ms_per_image=12.0 if derainer else None,
        images=images,
        set_images=100,
        scenes=None,
        has_reference=reference,
    )


def mean_score(key, fields):
    """The score of a key, of flat fields as in metrics.json."""
    return MeanScore(
        mean=fields.get(key),
        change=Score(*(fields.get(f"delta_{key}{end}") for end in ("", "_low", "_high"))),
        infinite=fields.get(f"{key}_infinite", 0),
        mean_of_others=fields.get(f"{key}_of_others"),
    )


def table(rows, convention="official"):
    return paper_table(rows, convention)


def line(found, name):
    return next(one for one in found.lines if one.name == name)


def ranks(found, name, column=0):
    cell = line(found, name).cells[column]
    return (*(score.rank for score in cell.scores),)


def test_best_and_second_are_ranked_apart():
    rows = [
        entry("x"), entry("x", "a", 30.0, 0.7), entry("x", "b", 29.0, 0.9),
        entry("x", "c", 28.0, 0.8), entry("x", "d", math.inf, 0.1),
    ]  # fmt: skip
    found = table(rows)
    assert ranks(found, "d") == ("best", "")
    assert ranks(found, "a") == ("second", "")
    assert ranks(found, "b") == ("", "best")
    assert ranks(found, "c") == ("", "second")
    assert ranks(found, "rainy input") == ("", "")


def test_what_is_printed_alike_is_ranked_alike():
    rows = [entry("x"), *(entry("x", n, p) for n, p in (("a", 30.001), ("b", 30.004), ("c", 29.0)))]
    assert [ranks(table(rows), n)[0] for n in "abc"] == ["best", "best", "second"]


def test_a_single_derainer_is_not_the_best():
    assert ranks(table([entry("x"), entry("x", "a", 30.0)]), "a") == ("", "")


def test_a_part_of_the_images_does_not_compete():
    rows = [entry("x"), entry("x", "a", 40.0, images=9), entry("x", "b"), entry("x", "c", 21.0)]
    found = table(rows)
    assert ranks(found, "a") == ("", "")
    assert line(found, "a").cells[0].mark == "†"
    assert ranks(found, "c")[0] == "best"
    assert any(sign == "†" for sign, _ in found.footnotes)


def test_sets_without_reference_have_no_column():
    rows = [entry("x", reference=False), entry("y"), entry("y", "a")]
    assert table(rows).columns == ["y"]
    assert table(rows[:1]) is None


def test_the_published_average_is_that_of_the_seven_sets():
    rows = [entry(name, who) for name in SEVEN for who in ("", "a")]
    found = table(rows)
    assert found.columns[-1] == "average"
    average = line(found, "Rainmer").cells[-1]
    assert tuple(s.text for s in average.scores) == ("31.35", "0.8966")


def test_published_rows_are_marked_and_do_not_compete():
    rows = [entry("test1200"), entry("test1200", "a"), entry("test1200", "b", 21.0)]
    found = table(rows)
    published = line(found, "Rainmer")
    assert published.kind == "published"
    assert published.cells[0].scores[0].text == "31.98"
    assert published.cells[0].mark == "‡", "published on 1200 images, here there are 100"
    assert ranks(found, "b")[0] == "best"
    assert line(table([entry("rain100L")]), "Rainmer").cells[0].mark == ""


def test_prenet_is_shown_in_matlab_s_conventions():
    for convention in ("matlab", "matlab_double"):
        (one,) = published_for(convention, [("input-target", "Rain100-H")])
        score = one.score("rain100H")
        assert (one.method, score.psnr, score.ssim) == ("PReNet", 29.46, 0.899)
    rows = [entry("rain100H")]
    assert line(table(rows, "matlab"), "PReNet").cells[0].scores[1].text == "0.899"
    assert published_for("rgb", [("rain100H",)]) == []
    assert published_for("official", [("realint",)]) == []
    assert all(one.note for one in PUBLISHED)


def test_a_method_without_a_set_has_no_average():
    rows = [entry("x"), entry("y"), entry("x", "a"), entry("x", "b"), entry("y", "b", 30.0)]
    found = table(rows)
    assert line(found, "a").cells == [line(found, "a").cells[0], None, None]
    assert line(found, "b").cells[-1].scores[0].text == f"{mean([20.0, 30.0]):.2f}"


def test_markdown():
    rows = [entry("x_y"), entry("x_y", "a|b", 30.0, 0.7), entry("x_y", "c", math.inf, 0.9)]
    text = to_markdown(table(rows))
    assert r"| method | x\_y |" in text
    assert r"| a\|b | <u>30.00</u> / <u>0.7000</u> |" in text
    assert "| c | **∞** / **0.9000** |" in text


def test_latex():
    rows = [
        entry("rain100H"),
        entry("rain100H", "a_b &\n\n5%~\\", 30.0, 0.7),
        entry("rain100H", "c"),
    ]
    text = to_latex(table([*rows, entry("rain100H", "d", math.inf, 0.6, images=3)]))
    assert (
        r"a\_b \& 5\%\textasciitilde{}\textbackslash{} & \textbf{30.00} / \textbf{0.7000}" in text
    )
    assert r"Rainmer (published) & 29.38 / 0.8775 \\" in text
    assert r"d & $\infty$ / 0.6000$^{\dagger}$ \\" in text
    body = [row for row in text.splitlines() if row.endswith(r"\\")]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in body)
    assert text.count("{") == text.count("}")
    assert all(ord(sign) < 128 for sign in "\n".join(body))


@pytest.mark.parametrize(
    ("value", "text"), [(29.456, "29.46"), (math.inf, "∞"), (None, "–"), (math.nan, "–")]
)
def test_scores_as_text(value, text):
    assert format_score(value, 2) == text


def test_changes_as_text():
    assert format_change(Score(-0.001, -0.004, None), 2) == "0.00"
    assert format_change(Score(-0.001, -0.004, 0.5), 2) == "0.00 [-0.004, 0.50]"
    assert format_change(Score(None), 2) == "–"


def test_terminal():
    rows = [entry("x"), entry("x", "a", images=9), entry("r", "a", None, None, reference=False)]
    lines = format_text(rows, "matlab").splitlines()
    assert len({len(one) for one in lines[:-1]}) == 1
    assert "9 of 100" in lines[3]
    assert "+2.00 [1.00, 4.00]" in lines[3]
    assert lines[-1].startswith("PSNR in dB, convention matlab")
