"""The parts of pages: what they say, and that templates show all of it."""

import dataclasses

import numpy as np
import pytest
from markupsafe import Markup

from eval.report.facts import RunFacts
from eval.report.page import render_page
from eval.report.parts import Banner, Cell, Group, Head, Line, Table, Tile, effect_of, flat_table
from eval.report.strips import Panel, Strip, StripGroup
from eval.scores.score import Score
from rainmer.data.defects import Defects
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


def page_with(table, facts=FACTS, **head):
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
        facts=facts,
        fewest=6,
    )
    check_self_contained(text)
    return Page(text)


def gallery(strips):
    return render_page(
        "restoration.html",
        head=Head(title="A title", question="A question?", headline="It gains"),
        facts=FACTS,
        strips=strips and [StripGroup("The worst", strips)],
        **dict.fromkeys(("metrics", "tables", "gains"), ()),
        **dict.fromkeys(("others", "scenes", "scatter", "time_note")),
    )


def test_pictures_shrink_until_the_page_fits(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    strips = [Strip("a.jpg", "all", "prenet", 1, [Panel("rainy", noise)] * 3)] * 2
    empty, whole = len(gallery([])), len(gallery(strips))
    for share in (0.4, 0.1):
        limit = empty + (whole - empty) * share
        monkeypatch.setattr("eval.report.page.LIMIT", limit)
        text = gallery(strips)
        assert limit / 2 < len(text) <= limit
        check_self_contained(text)


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
        {"control": None},
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


def test_a_line_shows_its_key_its_style_and_marks():
    line = Line(
        ["prenet"],
        [Cell(Markup("<b>30.0</b>"), mark="c")],
        {"best": "helps"},
        key="s1 control",
        style="best",
    )
    page = page_with(Table(about="x", texts=["input"], numbers=["mAP"], groups=[Group([line])]))
    classes = [attrs.get("class") for _, attrs in page.tags]
    assert {"best", "dotted", "key s1 control", "tag helps"} <= set(classes)
    assert page.all("b")
    assert page.all("sup")
    assert "30.0 c" in page.text


@pytest.mark.parametrize(
    ("conditions", "texts"),
    [
        (["all", "night"], ["condition", "input"]),
        (["all", "all"], ["input"]),
        ([], ["input"]),
    ],
)
def test_a_flat_table_leaves_out_a_constant_first_column(conditions, texts):
    lines = [Line([condition, "rainy"], [Cell("1")]) for condition in conditions]
    table = flat_table("Counts", ["condition", "input"], ["n"], lines)
    assert table.texts == texts
    assert all(len(line.texts) == len(texts) for line in table.groups[0].lines)
    assert "Counts" in page_with(table).text


def test_repairs_of_labels_are_a_section_only_where_there_are_any():
    defects = Defects()
    defects.error("malformed box", "a.txt:1")
    facts = dataclasses.replace(FACTS, defects={"wet <roads>": defects})
    assert "what was repaired" not in page_with(EMPTY, facts).text
    for line in range(4):
        defects.repair("object listed twice", f"a.txt:{line}")
    text = page_with(EMPTY, facts).text
    assert "Labels: what was repaired" in text
    assert "object listed twice" in text
    assert "a.txt:0, a.txt:1, a.txt:2, ..." in text
    other = dataclasses.replace(facts, defects=facts.defects | {"night": defects})
    assert "wet <roads>" in page_with(EMPTY, other).text
