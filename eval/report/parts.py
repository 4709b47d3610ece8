"""What pages are made of: typed parts that the templates show as they are.

A report turns its rows into these; `parts.html` has a macro for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from markupsafe import Markup

from eval.report.tables import UNDEFINED
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
]

Effect: TypeAlias = Literal["helps", "harms", "unclear", "undefined"]
"""What a change says; `unclear` when its interval holds zero or is missing."""


def effect_of(change: Score, *, lower_is_better: bool = False) -> Effect:
    """Judge a change by its interval.

    >>> effect_of(Score(0.2, 0.1, 0.3)), effect_of(Score(0.2, -0.1, 0.5)), effect_of(Score())
    ('helps', 'unclear', 'undefined')
    """
    if change.value is None:
        return "undefined"
    if change.low is None or change.high is None or change.low <= 0 <= change.high:
        return "unclear"
    return "helps" if (change.low > 0) != lower_is_better else "harms"


@dataclass(frozen=True)
class Tile:
    """A large number at the top.

    Attributes:
        value: The number, with its unit.
        about: What it is, with its interval.
        kind: Its colour: `rainy`, `derained`, `clean`, `harm`, or empty for none.
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
        date: When, in words.
        banners: What a reader must know first.
        tiles: Large numbers.
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
    sections: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """A figure: `svg` from `eval.report.figures.to_svg`, and what it shows."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Cell:
    """A number in a table, as text.

    Attributes:
        text: The number, or `UNDEFINED`.
        effect: Its colour, of a change.
        note: Shown on hovering, and below the text where this is undefined.
    """

    text: str
    effect: Effect | None = None
    note: str = ""

    @property
    def is_defined(self) -> bool:
        """Whether there is a number."""
        return self.text != UNDEFINED


@dataclass(frozen=True)
class Line:
    """A line of a table: texts, then numbers, then a note if any line of the table has one."""

    texts: Sequence[str]
    cells: Sequence[Cell]
    tags: Sequence[str] = ()
    note: str = ""


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
    """

    about: str
    texts: Sequence[str]
    numbers: Sequence[str]
    groups: Sequence[Group]
    spans: Sequence[str] = ()

    @property
    def has_notes(self) -> bool:
        """Whether any line has a note."""
        return any(line.note for group in self.groups for line in group.lines)

    @property
    def width(self) -> int:
        """Number of columns."""
        numbers = len(self.numbers) * max(1, len(self.spans))
        return len(self.texts) + numbers + self.has_notes
