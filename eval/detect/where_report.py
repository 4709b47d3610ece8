"""The part of the report on when to derain: change against the meter, and the bound on harm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.detect.figures import color_of_row, derainer_series, key_of_row
from eval.detect.harm import harm_sentences
from eval.detect.model import TableRow, find_row, is_control
from eval.detect.verdicts import judge
from eval.detect.where import GATE, Bin, WhereHelps, WhereRow
from eval.report.colors import color_in
from eval.report.figures import WIDTH, draw_chart, short, spread_legend
from eval.report.parts import Cell, Chart, Effect, Group, Line, Table, effect_of
from eval.report.tables import format_count, format_share, format_with_interval, number
from eval.scores.score import Score
from rainmer.figures import INK, draw_grid, styled

__all__ = ["WhereSection", "when_to_derain", "where_section"]

_TITLES = {
    "benefit": "expected benefit",
    "rate_mm_h": "rain rate (mm/h)",
    "transmission": "transmission of the veil",
    "night": "time of day",
}
_NAMES = {("night", 0.0): "day", ("night", 0.5): "night"}
_MOST_DERAINERS = 4
_FADED = 0.4
_CAPTION = (
    "Objects found minus objects lost per image at the confidence of the counts, by what the rain "
    "meter reads in the image before it is derained. Whiskers: 95 % intervals. Rings: clean images "
    "derained. Faint: too few images to tell. In parentheses: number of rainy, and of clean "
    "images. Dotted: the gate's threshold."
)
_TOO_FEW = "too few images to tell"
_ADVICE: dict[tuple[Effect | str, Effect | str], str] = {
    ("helps", "helps"): "Derain every frame",
    ("few", "helps"): "Derain every frame",
    ("unclear", "helps"): "The meter does not tell when to derain frames like these",
    ("harms", "helps"): "The meter does not tell when to derain frames like these",
    ("unclear", "unclear"): "Nothing tells that frames like these should be derained",
    ("unclear", "harms"): "Leave frames like these as they are",
    ("unclear", "few"): "Nothing tells that frames like these should be derained",
    ("harms", "unclear"): "Leave frames like these as they are",
    ("harms", "harms"): "Leave frames like these as they are",
    ("harms", "few"): "Leave frames like these as they are",
    ("few", "unclear"): "Nothing tells that frames like these should be derained",
    ("few", "harms"): "Leave frames like these as they are",
}


@dataclass(frozen=True, kw_only=True)
class WhereSection:
    """What `where.html` shows.

    Attributes:
        advice: When to derain, in one sentence.
        chart: Changes by reading; None without any.
        table: The same in numbers.
        gates: What each gate derained.
        harm: The bounds on harm, in sentences.
    """

    advice: str
    chart: Chart | None
    table: Table
    gates: Sequence[str]
    harm: Sequence[str]


def where_section(where: WhereHelps, table: Sequence[TableRow], main: str) -> WhereSection | None:
    """Prepare the section for the template `where.html`; None without derained images.

    Args:
        where: What was found.
        table: The table of scores.
        main: The condition of the sentences on gates and harm.
    """
    if not where.rows:
        return None
    about = "Objects gained per image by reading of the meter"
    return WhereSection(
        advice=when_to_derain(where, _advised(table, main)),
        chart=draw_chart(partial(where_charts, where), "where", about, _CAPTION),
        table=_table(where.rows),
        gates=list(_gates(table, main)),
        harm=list(harm_sentences(where.harm, main)),
    )


def _advised(table: Sequence[TableRow], main: str) -> str:
    """Return the best derainer that derains every image, else the best one."""
    names = [verdict.derainer for verdict in judge(table) if verdict.condition == main]
    gated = {row.derainer for row in table if row.share_derained is not None}
    other = {name for name in names if is_control(name) or name.startswith("union-")}
    free = [name for name in names if name not in gated | other]
    return next(iter(free or names), "")


def when_to_derain(where: WhereHelps, derainer: str) -> str:
    """Say when to derain, by the gains below and from the gate's threshold on.

    Args:
        where: What was found.
        derainer: The derainer that is spoken of.

    Returns:
        A sentence; empty without the derainer.
    """
    sides = {
        (row.input, row.bin.low > 0): row
        for row in where.rows
        if row.bin.reading == GATE and row.derainer == derainer
    }
    below, above = (sides.get(("derained", is_above)) for is_above in (False, True))
    if below is None or above is None:
        return ""
    dry = sides.get(("derained_clean", False))
    if dry is not None and below.is_small and not dry.is_small:
        below = dry
    if above.is_small and below.is_small:
        return f"When to derain: {_TOO_FEW}."
    key = (_effect(above), _effect(below))
    default = (
        f"Derain when the rain meter expects a benefit of {where.threshold:.3g} or more, as a gate "
        "does"
    )
    return f"{_ADVICE.get(key, default)}: with {derainer} {_facts(below, above, where.threshold)}."


def _effect(row: WhereRow) -> str:
    return "few" if row.is_small else row.effect


def _facts(below: WhereRow, above: WhereRow, threshold: float) -> str:
    """Say what is gained from the threshold on, and below it."""
    texts = []
    below_it = "below it" if below.input == "derained" else "below it on clean images"
    for row, side in ((above, f"from {threshold:.3g} on"), (below, below_it)):
        images = "1 image" if row.images == 1 else f"{row.images} images"
        if row.is_small:
            texts.append(f"an unknown number {side} ({images}, too few to tell)")
        elif row.found == row.lost == 0:
            texts.append(f"none {side} ({images})")
        else:
            text = f"{_signed(row.gain)} {side} ({images})"
            if effect_of(row.false, lower_is_better=True) == "harms":
                text += f" with {_signed(row.false)} false detections"
            texts.append(text)
    return f"objects gained per image are {texts[0]}, {texts[1]}"


def _signed(change: Score) -> str:
    return format_with_interval(change, 2, sign="+")


def _gates(table: Sequence[TableRow], main: str) -> Iterator[str]:
    """Say which share of the images each gate derained."""
    for row in table:
        if row.condition != main or row.input != "derained" or row.share_derained is None:
            continue
        if row.derainer.startswith("union-"):
            continue  # it has the gate of the row that it unites
        clean = find_row(table, main, "derained_clean", row.derainer)
        dry = "" if clean is None else f" and {format_share(clean.share_derained)} of the clean"
        yield f"{row.derainer} derains {format_share(row.share_derained)} of the rainy{dry} images"


def _table(rows: Sequence[WhereRow]) -> Table:
    """Show all bins that have images."""
    groups, series = [], derainer_series(rows)
    for reading, title in {GATE: "the gate's threshold, by expected benefit", **_TITLES}.items():
        members = [row for row in rows if row.bin.reading == reading and row.images]
        lines = [
            Line([bin_name(row.bin), row.label], _cells(row), key=key_of_row(row, series))
            for row in members
        ]
        if lines:
            groups.append(Group(lines, title))
    return Table(
        about="What deraining changes by the rain meter's reading",
        texts=["reading", "input"],
        numbers=[
            "images", "objects", "found", "lost", "gained per image [95 %]",
            "false per image [95 %]",
        ],
        groups=groups,
    )  # fmt: skip


def _cells(row: WhereRow) -> list[Cell]:
    counts = (row.images, row.boxes, row.found, row.lost)
    false: Effect = "unclear" if row.is_small else effect_of(row.false, lower_is_better=True)
    return [
        *(Cell(format_count(count)) for count in counts),
        Cell(_signed(row.gain), row.effect),
        Cell(_signed(row.false), false),
    ]


def bin_name(bin_: Bin) -> str:
    """Name a bin.

    >>> bin_name(Bin("rate_mm_h", 2.5, 10.0)), bin_name(Bin("rate_mm_h", 0.0, 2.5))
    ('2.5–10', 'below 2.5')
    """
    if name := _NAMES.get((bin_.reading, bin_.low)):
        return name
    if bin_.high is None:
        return f"from {bin_.low:.2g}"
    return f"{bin_.low:.2g}–{bin_.high:.2g}" if bin_.low else f"below {bin_.high:.2g}"


@styled
def where_charts(where: WhereHelps, width: float = WIDTH) -> Figure:
    """Draw the objects gained per image by bin: a panel for each reading, a point a derainer.

    Args:
        where: What was found, of at least one derainer.
        width: Of the figure in inches.
    """
    colors = derainer_series(where.rows)
    names = [name for name in colors if not is_control(name)] or list(colors)
    names = names[:_MOST_DERAINERS]
    series = [(name, shown) for name in names for shown in where.readings]
    shape, height = ((2, 2), 4.6) if width >= WIDTH else ((4, 1), 7.6)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(*shape, sharey=True, squeeze=False)
    for axes, (reading, title) in zip(panels.flat, _TITLES.items(), strict=True):
        bins: dict[Bin, dict[str, int]] = {}
        for index, (name, shown) in enumerate(series):
            key = (reading, name, shown)
            rows = [r for r in where.rows if (r.bin.reading, r.derainer, r.input) == key]
            shift = min(0.16, 0.8 / len(series)) * (index - (len(series) - 1) / 2)
            for position, row in enumerate(rows):
                _point(axes, position + shift, row, color_of_row(row, colors))
                bins.setdefault(row.bin, {})[shown] = row.images
        labels = [f"{bin_name(b)}\n({', '.join(map(str, n.values()))})" for b, n in bins.items()]
        axes.set_xticks(range(len(bins)), labels)
        axes.set_xlim(-0.6, len(bins) - 0.4)
        axes.set_xlabel(title)
        axes.axhline(0, color=INK, linewidth=1, alpha=0.7)
        draw_grid(axes, "y")
        if reading == "benefit":
            edge = [bin_.low for bin_ in bins].index(where.threshold) - 0.5
            axes.axvline(edge, color=INK, linewidth=1, linestyle=":")
    for axes in panels[:, 0]:
        axes.set_ylabel("objects gained per image")
    entries = [
        Line2D([], [], color=color_in(colors[n]), marker="o", ls="none", label=short(n, width))
        for n in names
    ]
    spread_legend(figure, entries, width, 5)
    return figure


def _point(axes: Axes, x: float, row: WhereRow, color: str) -> None:
    value, low, high = map(number, (row.gain.value, row.gain.low, row.gain.high))
    if value is None:
        return
    alpha = _FADED if row.is_small else 1.0
    if low is not None and high is not None:
        axes.plot((x, x), (low, high), color=color, linewidth=1.6, alpha=alpha)
    face = color if row.input == "derained" else "none"
    axes.plot(x, value, "o", color=color, markerfacecolor=face, markersize=6, mew=1.5, alpha=alpha)
