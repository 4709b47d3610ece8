"""The report of a restoration run: one page with the paper's tables, gains, and the worst cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup
from matplotlib.figure import Figure

from eval.report.facts import RunFacts
from eval.report.figures import WIDTH, color_of, legend, marker_of, ruled, styled, to_svg
from eval.report.page import as_text, render_page, strip_group
from eval.report.strips import Strip
from eval.report.tables import CONTROLS, UNDEFINED, format_count, format_ms
from eval.restore.comparison import Comparison, RowResult, SceneRow, Settings, TableRow
from eval.restore.metrics import Metric
from eval.restore.scores import MeanScore, Measure, key_of, measures_of
from eval.restore.strips import Strips
from eval.restore.tables import RAINY, format_change, format_images, format_score, paper_tables
from rainmer.metrics import Convention

__all__ = ["MOST_POINTS", "Report", "gain_points", "headline", "image_scatter", "render_report"]

MOST_POINTS = 400
"""Most images of a set and method that are drawn, so that the page stays small."""

_MOST_SCENE_LINES = 400
_STRIP_TITLES = {
    "worst": "The images that gain least",
    "lowest": "The lowest PSNR after deraining",
    "best": "The images that gain most",
    "unscored": "Without clean images to compare with",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report shows.

    Attributes:
        comparison: Rows and scenes, with the scores of each image for the scatter plot.
        settings: How images were scored; the first convention is the main one.
        facts: How the numbers came about.
        protocol: Name and value of each fact about the measurement.
        strips: Pictures to show.
    """

    comparison: Comparison
    settings: Settings
    facts: RunFacts
    protocol: Mapping[str, object] = field(default_factory=dict)
    strips: Strips = field(default_factory=lambda: Strips([], [], [], []))


@dataclass(frozen=True)
class _Tile:
    """A large number at the top of the page; `kind` chooses its colour."""

    kind: Literal["rainy", "derained", ""]
    value: str
    about: str


@dataclass(frozen=True)
class _Change:
    """A change as text, and whether its interval lies on one side of zero."""

    text: str
    effect: Literal["helps", "harms", "unclear"]


@dataclass(frozen=True, kw_only=True)
class _GainLine:
    """A row in a table of gains: a score and a change for each measure."""

    label: str
    kind: Literal["rainy", "derained"]
    control: bool
    scores: Sequence[str]
    equal: str
    changes: Sequence[_Change]
    images: str
    scenes: str
    ms: str


@dataclass(frozen=True, kw_only=True)
class _GainTable:
    """Scores and changes with intervals; `groups` holds each set's name and lines."""

    title: str
    measures: Sequence[Measure]
    groups: Sequence[tuple[str, Sequence[_GainLine]]]
    scenes: bool


@dataclass(frozen=True)
class _SceneTable:
    """Means of scenes; a line is a scene, a row's name, and the texts below `titles`."""

    titles: Sequence[str]
    lines: Sequence[tuple[str, str, Sequence[str]]]


def render_report(report: Report) -> str:
    """Render a report as one self-contained HTML page: no other file, no network, no script.

    Args:
        report: What to show. Names may hold any characters; they are escaped.

    Returns:
        The page's text, to be written as UTF-8.
    """
    rows, settings, facts = report.comparison.table, report.settings, report.facts
    main = settings.conventions[0]
    return render_page(
        "restoration.html",
        date=facts.date,
        notes=facts.notes,
        metrics=settings.metrics,
        headline=headline(rows, main, settings.metrics),
        sets=list(dict.fromkeys(row.set for row in rows)),
        main=main,
        tiles=_tiles(rows, main),
        tables=paper_tables(rows, settings.conventions, settings.metrics),
        gains=[_gain_table(rows, f"Convention {c}", measures_of(c)) for c in settings.conventions],
        others=_gain_table(rows, "Other metrics", settings.metrics),
        scenes=_scene_table(report.comparison.scenes, settings.main_measures),
        scatter=_scatter(report.comparison.rows, main),
        most_points=MOST_POINTS,
        strips=[
            strip_group("", _STRIP_TITLES[name], group)
            for name, group in _named_groups(report.strips)
        ],
        run={"protocol": report.protocol, "command": facts.command, "elapsed": facts.elapsed_s},
        config=as_text(facts.config),
        environment=as_text(facts.environment),
    )


def headline(
    rows: Sequence[TableRow], convention: Convention, metrics: Sequence[Metric] = ()
) -> str:
    """Say the main result in one line: the method with the largest mean gain of PSNR.

    Args:
        rows: The rows of a comparison.
        convention: Whose PSNR decides.
        metrics: What else was measured.
    """
    psnr = measures_of(convention)[0]
    best = _best_rows(rows, psnr.key)
    if not best:
        derained = any(row.derainer for row in rows)
        titles = [m.title for m in metrics if any(_is_finite(row.scores[m.key]) for row in rows)]
        if derained and titles:
            return f"No PSNR could be given; {', '.join(titles)} below"
        return "No score could be given" if derained else "No derainer was measured"
    name, change = best[0].derainer, _mean_change(best, psnr.key)
    verb = "gains" if change >= 0 else "loses"
    if len(best) > 1:
        return f"{name} {verb} {abs(change):.2f} dB of PSNR on average over {len(best)} sets"
    interval = best[0].scores[psnr.key].change
    text = f"{name} {verb} {abs(round(change, psnr.digits)):.{psnr.digits}f} dB of PSNR"
    if interval.low is not None and interval.high is not None:
        ends = (interval.low, interval.high) if change >= 0 else (-interval.high, -interval.low)
        low, high = (round(end, psnr.digits) + 0.0 for end in ends)
        text += f" [{low:.{psnr.digits}f}, {high:.{psnr.digits}f}]"
    return f"{text} on {best[0].set}"


def _best_rows(rows: Sequence[TableRow], key: str) -> list[TableRow]:
    """Return the rows of the derainer with the largest mean change; empty without a change.

    Derainers with changes on more sets come first, controls last.
    """
    by_derainer: dict[str, list[TableRow]] = {}
    for row in rows:
        if row.derainer and row.scores[key].change.value is not None:
            by_derainer.setdefault(row.derainer, []).append(row)

    def order(rows: Sequence[TableRow]) -> tuple[bool, int, float]:
        return rows[0].derainer not in CONTROLS, len(rows), _mean_change(rows, key)

    return max(by_derainer.values(), key=order, default=[])


def _mean_change(rows: Sequence[TableRow], key: str) -> float:
    return sum(row.scores[key].change.value or 0.0 for row in rows) / len(rows)


def _is_finite(score: MeanScore) -> bool:
    return score.mean is not None and math.isfinite(score.mean)


def _tiles(rows: Sequence[TableRow], convention: Convention) -> list[_Tile]:
    """Return the large numbers: those of the best method on the first set that it has."""
    psnr, ssim = measures_of(convention)
    best = _best_rows(rows, psnr.key)
    if not best:
        return []
    row = best[0]
    rainy = next(other for other in rows if other.set == row.set and not other.derainer)
    change = format_change(row.scores[psnr.key].change, psnr.digits)
    before, after = (
        [format_score(scored.scores[m.key].mean, m.digits) for m in (psnr, ssim)]
        for scored in (rainy, row)
    )
    tiles = [
        _Tile("rainy", before[0], f"dB of the rainy images of {row.set}"),
        _Tile("derained", after[0], f"dB with {row.derainer}: {change}"),
        _Tile("rainy", before[1], "SSIM of the rainy images"),
        _Tile("derained", after[1], "SSIM derained"),
        _Tile("", format_ms(row.ms_per_image), "ms to derain an image"),
    ]
    return [tile for tile in tiles if tile.value != UNDEFINED]


def _gain_table(rows: Sequence[TableRow], title: str, measures: Sequence[Measure]) -> _GainTable:
    """Return the scores of each set, and their changes with intervals."""
    groups: dict[str, list[_GainLine]] = {}
    for row in rows:
        groups.setdefault(row.set, []).append(_gain_line(row, measures))
    return _GainTable(
        title=title,
        measures=measures,
        groups=list(groups.items()),
        scenes=any(row.scenes is not None for row in rows),
    )


def _gain_line(row: TableRow, measures: Sequence[Measure]) -> _GainLine:
    scores = [(row.scores[measure.key], measure) for measure in measures]
    return _GainLine(
        label=row.derainer or RAINY,
        kind=row.input,
        control=row.derainer in CONTROLS,
        scores=[format_score(score.mean, measure.digits) for score, measure in scores],
        equal=next((_equal(score) for score, _ in scores if score.infinite), ""),
        changes=[
            _Change(format_change(score.change, measure.digits), _effect(score, measure))
            for score, measure in scores
        ],
        images=format_images(row),
        scenes=format_count(row.scenes),
        ms=format_ms(row.ms_per_image),
    )


def _equal(score: MeanScore) -> str:
    """Say how many images equal the clean ones, and the mean PSNR of the others."""
    text = f"{score.infinite} equal"
    others = score.mean_of_others
    return text if others is None else f"{text}, the others {others:.2f}"


def _effect(score: MeanScore, measure: Measure) -> Literal["helps", "harms", "unclear"]:
    """Judge a change by its interval."""
    low, high = score.change.low, score.change.high
    if low is None or high is None or low <= 0 <= high:
        return "unclear"
    return "helps" if (low > 0) != measure.lower_is_better else "harms"


def _scene_table(scenes: Sequence[SceneRow], measures: Sequence[Measure]) -> _SceneTable | None:
    """Return the mean scores of scenes; None without scenes and with too many for a page."""
    if not 0 < len(scenes) <= _MOST_SCENE_LINES:
        return None
    lines = [
        (
            f"{row.set}: {row.scene}",
            row.derainer or RAINY,
            [format_score(row.means[m.key], m.digits) for m in measures]
            + [format_count(row.images)],
        )
        for row in sorted(scenes, key=lambda row: (row.set, row.scene))
    ]
    return _SceneTable([*(m.heading for m in measures), "images"], lines)


def _named_groups(strips: Strips) -> list[tuple[str, list[Strip]]]:
    """Return name and strips of each group that has some."""
    return [(name, group) for name, group in zip(Strips._fields, strips, strict=True) if group]


def _scatter(rows: Sequence[RowResult], convention: Convention) -> Markup | None:
    figure = image_scatter(rows, key_of("psnr", convention))
    alt = "Gain of PSNR of each image against the PSNR of the rainy image"
    return None if figure is None else Markup(to_svg(figure, "scatter", alt))


def gain_points(rainy: RowResult, row: RowResult, key: str) -> list[tuple[float, float]]:
    """Return the score of each rainy image and what deraining adds to it.

    Images with an infinite score are left out. Of more than `MOST_POINTS` images, evenly spread
    ones are returned.
    """
    points = [
        (before, after - before)
        for _, before, after in row.pairs(rainy, key)
        if math.isfinite(before) and math.isfinite(after)
    ]
    shown = min(len(points), MOST_POINTS)
    return [points[i * len(points) // shown] for i in range(shown)]


@styled
def image_scatter(rows: Sequence[RowResult], key: str) -> Figure | None:
    """Draw the gain of PSNR of each image against its PSNR in the rain.

    Args:
        rows: Rows of a comparison; of each set the rainy images first.
        key: Name of the score, a PSNR.

    Returns:
        The figure, with a colour for each method and a marker for each set; None without a point.
    """
    rainy = {row.image_set.label: row for row in rows if row.method is None}
    series = [
        (row.name, row.image_set.label, points)
        for row in rows
        if row.method is not None and (points := gain_points(rainy[row.image_set.label], row, key))
    ]
    if not series:
        return None
    names = list(dict.fromkeys(name for name, _, _ in series))
    sets = list(dict.fromkeys(label for _, label, _ in series))
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, label, points in series:
        axes.plot(
            *zip(*points, strict=True),
            color=color_of(names.index(name)),
            marker=marker_of(sets.index(label)),
            markersize=4.5,
            linestyle="none",
            alpha=0.6,
        )
    axes.set_xlabel("PSNR of the rainy image (dB)")
    axes.set_ylabel("gain of PSNR (dB)")
    axes.margins(0.05)
    left, right = axes.get_xlim()
    ruled(axes)
    axes.set_xlim(left, right)  # `ruled` widened it to 0 dB, where no image is
    figure.legend(handles=legend(names, sets), loc="outside right upper")
    return figure
