"""The parts of pages: what they say, and that templates show all of it."""

import pytest

from eval.report.facts import RunFacts
from eval.report.page import render_page
from eval.report.parts import Banner, Cell, Group, Head, Line, Table, Tile, effect_of
from eval.scores.score import Score
from tests.eval.pages import Page, check_self_contained

FACTS = RunFacts(
    command="python -m <it>",
    date="today",
    environment={"torch": "2"},
    config={"seed": 7},
    elapsed_s={"wall": 1.25},
    notes=["a & b"],
    protocol={"NMS IoU": 0.7},
)
EMPTY = Table(about="nothing", texts=["set"], numbers=[], groups=[])


def page_with(table, **head):
    told = {"title": "A title", "question": "A question?", "headline": "It gains 3 [-1, 7]"} | head
    text = render_page(
        "relation.html",
        head=Head(**told),
        charts=[],
        correlations=table,
        coefficients=EMPTY,
        gains=EMPTY,
        all_gains=EMPTY,
        images=EMPTY,
        facts=FACTS,
    )
    check_self_contained(text)
    return Page(text)


@pytest.mark.parametrize(
    ("change", "lower_is_better", "effect"),
    [
        (Score(0.2, 0.1, 0.3), False, "helps"),
        (Score(0.2, 0.1, 0.3), True, "harms"),
        (Score(-0.2, -0.3, -0.1), False, "harms"),
        (Score(-0.2, -0.3, -0.1), True, "helps"),
        (Score(0.2, 0.0, 0.3), False, "unclear"),
        (Score(0.2), False, "unclear"),
        (Score(), False, "undefined"),
    ],
)
def test_a_change_is_judged_by_its_interval(change, lower_is_better, effect):
    assert effect_of(change, lower_is_better=lower_is_better) == effect


def test_the_head_says_all_it_knows():
    page = page_with(
        EMPTY,
        lead="A lead",
        subjects=[("", "rain <b>"), ("detector", "yolo")],
        date="today",
        banners=[Banner("Beware.", "First:", {"x": "gone"}), Banner("Few.")],
        tiles=[Tile("0.80", "Spearman [0.6, 1.0]", "rainy")],
        sections={"figure": "Figure"},
    )
    for words in (
        "A title", "A question?", "It gains 3 [−1, 7]", "A lead",
        "rain <b> · detector yolo · today", "First: Beware.", "x : gone", "Few.",
        "0.80", "Spearman [0.6, 1.0]", "Figure",
    ):  # fmt: skip
        assert words in page.text


def test_the_run_is_told():
    text = page_with(EMPTY).text
    for words in ("python -m <it>", '"torch": "2"', '"seed": 7', "1.2 s", "a & b", "NMS IoU 0.7"):
        assert words in text


def test_a_table_shows_spans_groups_tags_effects_and_notes():
    line = Line(
        ["first", "prenet"],
        [Cell("+3.0", "helps"), Cell("–", note="no such images"), Cell("1", note="5 points")],
        ["control"],
        "a remark",
    )
    table = Table(
        about="Some numbers",
        texts=["set", "derainer"],
        numbers=["gain"],
        groups=[Group([line], "night", "8 images")],
        spans=["a", "b", "c"],
    )
    assert table.width == 6
    page = page_with(table)
    for words in ("night · 8 images", "prenet control", "a remark", "no such images"):
        assert words in page.text
    assert "5 points" not in page.text
    cells = page.all("td")
    assert any("helps-text" in cell.get("class", "") for cell in cells)
    assert any(cell.get("title") == "5 points" for cell in cells)
