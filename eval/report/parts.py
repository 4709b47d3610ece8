"""The parts of pages: dataclasses of texts, which the templates show as they are.

A report turns its rows into these; `parts.html` has a macro for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from markupsafe import Markup

from eval.report.tables import NOTHING, UNDEFINED, number
from eval.scores.score import Score

__all__ = [
    "Banner",
    "Cell",
    "Chart",
    "Effect",
    "Group",
    "Head",
    "Line",
    "Table",
    "Tile",
    "effect_of",
    "flat_table",
]

Effect: TypeAlias = Literal["helps", "harms", "unclear", "undefined"]
"""What a change does; `unclear` when its interval includes zero or is missing."""


def effect_of(change: Score, *, lower_is_better: bool = False) -> Effect:
    """Judge a change by its interval, unrounded.

    >>> effect_of(Score(0.2, 0.1, 0.3)), effect_of(Score(0.2, -0.1, 0.5)), effect_of(Score())
    ('helps', 'unclear', 'undefined')
    """
    value, low, high = map(number, (change.value, change.low, change.high))
    if value is None:
        return "undefined"
    if low is None or high is None or (low <= NOTHING and high >= -NOTHING):
        return "unclear"
    return "helps" if (low > 0) != lower_is_better else "harms"


@dataclass(frozen=True)
class Tile:
    """A large number at the top.

    Attributes:
        value: The number, with its unit.
        about: What the number is, with its interval.
        kind: Its colour, a name of `eval.report.colors.PALETTE`, or empty for none.
    """

    value: str
    about: str
    kind: str = ""


@dataclass(frozen=True)
class Banner:
    """What a reader must know before the numbers.

    Attributes:
        text: Sentences; may be empty if there are lines.
        title: Their first words, in bold.
        lines: Lines below, each with a name in bold.
    """

    text: str = ""
    title: str = ""
    lines: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The top of a page.

    Attributes:
        title: Title of the browser's window.
        question: What the page answers.
        headline: The main result in one sentence.
        lead: A second sentence, or empty.
        subjects: What was measured, as pairs of words and a name in bold: ("detector", "yolo11n").
        date: Date and time as text.
        banners: Boxes above the tiles.
        tiles: Large numbers.
        more: Further sentences, below the second one.
        table: A table below the tiles, or None.
        sections: Anchor to name of each section of the page.
    """

    title: str
    question: str
    headline: str
    lead: str = ""
    subjects: Sequence[tuple[str, str]] = ()
    date: str = ""
    banners: Sequence[Banner] = ()
    tiles: Sequence[Tile] = ()
    more: str = ""
    table: Table | None = None
    sections: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        svg: From `eval.report.figures.to_svg`.
        caption: What it shows.
        title: Heading above it, where a page has several of a kind.
        narrow: The same for the page of a phone; empty: the page scrolls `svg` in its box.
    """

    svg: Markup
    caption: str
    title: str = ""
    narrow: Markup = field(default_factory=Markup)


@dataclass(frozen=True)
class Cell:
    """A number in a table, as text.

    Attributes:
        text: The number, or `UNDEFINED`. Markup is shown as it is.
        effect: Colour of a change.
        note: Shown on hovering, and below an undefined number.
        mark: Sign of a footnote.
    """

    text: str
    effect: Effect | None = None
    note: str = ""
    mark: str = ""

    @property
    def is_defined(self) -> bool:
        """Whether there is a number."""
        return self.text != UNDEFINED


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        texts: The first cells; the last of them names the line.
        cells: Numbers.
        tags: Words in small boxes behind the name, each with the effect that colours it.
        note: Last cell, in tables where any line has a note.
        key: The colour of the square before the name, a name of `eval.report.colors.PALETTE`, and
            behind it `control` for a hollow and `on-clean` for a striped one; empty: no square.
        style: `best` for bold, `rule` for a rule above the line.
    """

    texts: Sequence[str]
    cells: Sequence[Cell]
    tags: Mapping[str, Effect | None] = field(default_factory=dict)
    note: str = ""
    key: str = ""
    style: Literal["best", "rule", ""] = ""


@dataclass(frozen=True)
class Group:
    """Lines of a table below their title (empty: none), with facts behind the title."""

    lines: Sequence[Line]
    title: str = ""
    facts: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of numbers.

    Attributes:
        about: What it shows, for readers who do not see it.
        texts: Titles of the columns of text, which come first.
        numbers: Titles of the columns of numbers; of each span, where there are spans.
        groups: The lines.
        spans: Titles above equal parts of the columns of numbers.
        caption: Text above the table.
    """

    about: str
    texts: Sequence[str]
    numbers: Sequence[str]
    groups: Sequence[Group]
    spans: Sequence[str] = ()
    caption: str = ""

    @property
    def has_notes(self) -> bool:
        """Whether any line has a note."""
        return any(line.note for group in self.groups for line in group.lines)

    @property
    def width(self) -> int:
        """Number of columns."""
        numbers = len(self.numbers) * max(1, len(self.spans))
        return len(self.texts) + numbers + self.has_notes


def flat_table(
    caption: str, texts: Sequence[str], numbers: Sequence[str], lines: Sequence[Line]
) -> Table:
    """Return a table without groups, and without its first column if this says always the same.

    Args:
        caption: Text above the table.
        texts: Titles of the columns of text, at least two.
        numbers: Titles of the columns of numbers.
        lines: The lines.
    """
    if len({line.texts[0] for line in lines}) < 2:
        texts = texts[1:]
        lines = [replace(line, texts=line.texts[1:]) for line in lines]
    return Table(
        about=caption, texts=texts, numbers=numbers, groups=[Group(lines)], caption=caption
    )
