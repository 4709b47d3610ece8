"""Names of any script on pictures and in figures."""

import logging
import unicodedata
import warnings

import matplotlib.font_manager
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from rainmer import fonts
from rainmer.figures import save_figure, styled
from rainmer.frames.images import read_image

GIRAFFE = "长颈鹿"


def write_font(path, characters, family="Squares"):
    """Write a font whose characters are filled squares."""
    names = [".notdef", *(f"u{ord(c):04x}" for c in characters)]
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (900, 700), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"u{ord(c):04x}" for c in characters})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def forget():
    caches = (fonts._path_for, fonts._system_fonts, fonts._note_once, fonts.font_for, fonts.render)
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def installed(monkeypatch):
    """Set the fonts of the system."""

    def install(*paths):
        monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: list(paths))
        forget()

    install()
    yield install
    forget()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("car", "car"),
        ("сирота́", "сирота́"),
        ("سيارة", "سيارة"),
        ("מכונית", "מכונית"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "café"),
        ("$x_1^2$", "$x_1^2$"),
        ("<script>", "<script>"),
        (" traffic\n\tlight ", "traffic light"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}rac\x00", "rac"),
        (GIRAFFE, "7"),
        ("\N{GIRAFFE FACE}", "7"),
        ("\udcff", "7"),
        ("", "7"),
        ("\n", "7"),
    ],
)
def test_a_name_or_its_number(installed, name, shown):
    assert fonts.drawable(name, "7") == shown


def test_a_font_of_the_system_is_found(installed, tmp_path):
    installed(tmp_path / "gone.ttf", write_font(tmp_path / "squares.ttf", GIRAFFE))
    assert fonts.drawable(GIRAFFE, "7") == GIRAFFE
    mask = fonts.render(GIRAFFE, 20)
    assert mask.shape == (25, 60)
    assert (mask[10:18, 4:16] == 255).all()
    assert mask.shape[0] == fonts.render("car", 20).shape[0]
    assert fonts.drawable("斑马", "8") == "8"
    assert fonts.drawable(f"car {GIRAFFE}", "9") == "9"  # no font has both


def test_fonts_of_symbols_and_damaged_ones_are_passed_over(installed, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"\0\1\0\0")
    installed(tmp_path / "broken.ttf", write_font(tmp_path / "LastResort.ttf", GIRAFFE))
    assert fonts.drawable(GIRAFFE, "7") == "7"


def test_names_that_cannot_be_drawn_are_said_once(installed, caplog):
    with caplog.at_level(logging.WARNING):
        assert [fonts.drawable(name, str(i)) for i, name in enumerate(GIRAFFE)] == ["0", "1", "2"]
    (line,) = caplog.messages
    assert line.startswith("no font here has the characters of 长: pictures show 0 for it")


@given(st.text(st.characters(), max_size=30))
def test_any_text_is_drawn(text):
    shown = fonts.drawable(text, "7")
    assert shown == shown.strip()
    assert not any(unicodedata.category(c) == "Cc" for c in shown)
    assert fonts.render(shown, 12).shape[0] == 15


@styled
def named_chart(name):
    figure = Figure(figsize=(3, 2))
    axes = figure.add_subplot()
    axes.set_yticks([0, 1], [name, "car"])
    axes.set_title(name, fontweight="bold")
    return figure


@pytest.mark.parametrize("has_font", [True, False])
def test_figures_show_names_or_escapes(installed, tmp_path, caplog, has_font):
    if has_font:
        installed(write_font(tmp_path / "squares.ttf", GIRAFFE))
    expected = GIRAFFE if has_font else r"\u957f\u9888\u9e7f"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in ("png", "svg"):
            save_figure(tmp_path / f"a.{suffix}", named_chart(GIRAFFE))
            save_figure(tmp_path / f"expected.{suffix}", named_chart(expected))
    assert np.array_equal(read_image(tmp_path / "a.png"), read_image(tmp_path / "expected.png"))
    assert GIRAFFE in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert not caplog.messages
