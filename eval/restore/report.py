"""The report of a restoration run: a page with the paper's tables, gains, and the worst cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from markupsafe import Markup
from matplotlib.figure import Figure

from eval.report.colors import color_in, series_of
from eval.report.facts import RunFacts
from eval.report.figures import WIDTH, draw_chart, legend, ruled, spread_legend
from eval.report.page import render_page
from eval.report.parts import (
    Cell,
    Chart,
    Effect,
    Group,
    Head,
    Line,
    Table,
    Tile,
    effect_of,
    flat_table,
)
from eval.report.strips import StripGroup
from eval.report.tables import CONTROLS, UNDEFINED, format_count, format_ms, number
from eval.report.timing import TimedOn, format_timing
from eval.restore.comparison import Comparison, RowResult, SceneRow, Settings, TableRow
from eval.restore.metrics import Metric
from eval.restore.scores import MeanScore, Measure, key_of, measures_of
from eval.restore.strips import Strips
from eval.restore.tables import (
    RAINY,
    PaperCell,
    PaperTable,
    format_change,
    format_images,
    format_score,
    paper_tables,
    time_note,
)
from rainmer.figures import marker_of, styled
from rainmer.metrics import Convention

__all__ = ["MOST_POINTS", "Report", "gain_points", "headline", "image_scatter", "render_report"]

MOST_POINTS = 400
"""Most images of a set and method that are drawn, so that the page stays small."""

_MOST_SCENE_LINES = 400
_OTHERS = "Other metrics"
_SCATTER_CAPTION = (
    "Each point is an image: how close to the clean one it is in the rain, and what deraining "
    f"adds. Below zero deraining did harm. Of a set, at most {MOST_POINTS} images are drawn."
)
_RANKED = {"best": Markup("<b>{}</b>"), "second": Markup("<u>{}</u>"), "": Markup("{}")}
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
        comparison: Rows, scenes and the scores of each image.
        settings: How images were scored; the first convention is the main one.
        facts: Command, configuration and environment of the run.
        strips: Strips of pictures.
    """

    comparison: Comparison
    settings: Settings
    facts: RunFacts
    strips: Strips = field(default_factory=lambda: Strips([], [], [], []))


def render_report(report: Report) -> str:
    """Render a report as one self-contained HTML page: no other file, no network.

    Args:
        report: What to show. Names may hold any characters; they are escaped.

    Returns:
        The page's text, to be written as UTF-8.
    """
    rows, settings, notes = report.comparison.table, report.settings, report.facts.notes
    main = settings.conventions[0]
    tables = paper_tables(rows, settings.conventions, settings.metrics)
    scatter = _scatter(report.comparison.rows, main)
    strips = [
        StripGroup(_STRIP_TITLES[name], group)
        for name, group in zip(Strips._fields, report.strips, strict=True)
        if group
    ]
    sections = {
        "tables": ("Tables", tables),
        "gains": ("Gains", True),
        "images": ("Images", scatter),
        "pictures": ("Pictures", strips),
        "notes": ("Data", notes),
        "method": ("Method", True),
    }
    sets = ", ".join(dict.fromkeys(row.set for row in rows))
    head = Head(
        title=f"Deraining: {sets}",
        question="How close to the clean image?",
        headline=headline(rows, main, settings.metrics),
        subjects=[("", sets), ("numbers above and below in convention", main)],
        date=report.facts.date,
        tiles=_tiles(rows, main, report.facts.timed_on),
        sections={anchor: name for anchor, (name, content) in sections.items() if content},
    )
    return render_page(
        "restoration.html",
        head=head,
        facts=report.facts,
        metrics=settings.metrics,
        tables=[(_shown_table(table, _series(rows)), table.footnotes) for table in tables],
        gains=[_gain_table(rows, f"Convention {c}", measures_of(c)) for c in settings.conventions],
        others=_gain_table(rows, _OTHERS, settings.metrics) if settings.metrics else None,
        scenes=_scene_table(report.comparison.scenes, settings.main_measures),
        time_note=report.facts.timed_on and time_note(rows, report.facts.timed_on),
        scatter=scatter,
        strips=strips,
    )


def headline(
    rows: Sequence[TableRow], convention: Convention, metrics: Sequence[Metric] = ()
) -> str:
    """Return the main result as a sentence: the method with the largest mean PSNR gain.

    Args:
        rows: The rows of a comparison.
        convention: Convention of the PSNR that decides.
        metrics: Other metrics that were measured.
    """
    psnr = measures_of(convention)[0]
    best = _best_rows(rows, psnr.key)
    if not best:
        derained = any(row.derainer for row in rows)
        titles = [
            metric.title
            for metric in metrics
            if any(number(row.scores[metric.key].mean) is not None for row in rows)
        ]
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
    """Return the rows of the derainer with the largest mean change; empty without changes.

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


def _time_words(row: TableRow, timed_on: TimedOn | None) -> str:
    words = f"ms to derain an image{', timed earlier' if row.timing.earlier else ''}"
    return f"{words} ({timed_on.short})" if timed_on else words


def _tiles(
    rows: Sequence[TableRow], convention: Convention, timed_on: TimedOn | None
) -> list[Tile]:
    """Return the large numbers: the best method's on the first of its sets."""
    psnr, ssim = measures_of(convention)
    best = _best_rows(rows, psnr.key)
    if not best:
        return []
    row = best[0]
    own = _series(rows)[row.derainer]
    rainy = next(other for other in rows if other.set == row.set and not other.derainer)
    change = format_change(row.scores[psnr.key].change, psnr.digits)
    before, after = (
        [format_score(scored.scores[m.key].mean, m.digits) for m in (psnr, ssim)]
        for scored in (rainy, row)
    )
    tiles = [
        Tile(before[0], f"dB of the rainy images of {row.set}", "rainy"),
        Tile(after[0], f"dB with {row.derainer}: {change}", own),
        Tile(before[1], "SSIM of the rainy images", "rainy"),
        Tile(after[1], "SSIM derained", own),
        Tile(format_ms(row.timing.ms), _time_words(row, timed_on)),
    ]
    return [tile for tile in tiles if tile.value != UNDEFINED]


def _series(rows: Sequence[TableRow]) -> dict[str, str]:
    """Return the name of each derainer's colour."""
    return series_of(row.derainer for row in rows if row.derainer)


def _shown_table(table: PaperTable, series: Mapping[str, str]) -> Table:
    """Show a table as papers print it, with a rule above each group of rows."""
    lines: list[Line] = []
    kind = "rainy"
    for line in table.lines:
        lines.append(
            Line(
                [line.name],
                list(map(_paper_cell, line.cells)),
                {"published": None} if line.kind == "published" else {},
                key=line.kind if line.kind == "published" else series.get(line.name, line.kind),
                style="rule" if line.kind != kind else "",
            )
        )
        kind = line.kind
    return Table(
        about=table.caption,
        texts=["method"],
        numbers=table.columns,
        groups=[Group(lines)],
        caption=table.title,
    )


def _paper_cell(cell: PaperCell | None) -> Cell:
    if cell is None:
        return Cell(UNDEFINED)
    texts = [_RANKED[score.rank].format(score.text) for score in cell.scores]
    return Cell(Markup(" / ").join(texts), mark=cell.mark)


def _gain_table(rows: Sequence[TableRow], title: str, measures: Sequence[Measure]) -> Table:
    """Show the scores of each set, and their changes with intervals."""
    with_scenes = any(row.scenes is not None for row in rows)
    groups: dict[str, list[Line]] = {}
    series = _series(rows)
    for row in rows:
        line = _gain_line(row, measures, series, with_scenes=with_scenes)
        groups.setdefault(row.set, []).append(line)
    titles = [text for m in measures for text in (m.heading, f"Δ {m.title} [95 %]")]
    return Table(
        about=title,
        texts=["input"],
        numbers=[*titles, "images", *(["scenes"] if with_scenes else []), "ms"],
        groups=[Group(lines, name) for name, lines in groups.items()],
    )


def _gain_line(
    row: TableRow, measures: Sequence[Measure], series: Mapping[str, str], *, with_scenes: bool
) -> Line:
    cells = []
    tags: dict[str, Effect | None] = {}
    is_control = row.derainer in CONTROLS
    if is_control:
        tags["control"] = None
    for measure in measures:
        score = row.scores[measure.key]
        effect = effect_of(score.change, lower_is_better=measure.lower_is_better)
        cells.append(Cell(format_score(score.mean, measure.digits)))
        cells.append(Cell(format_change(score.change, measure.digits), effect))
        if score.infinite:
            tags[_equal(score)] = None
    cells.append(Cell(format_images(row)))
    if with_scenes:
        cells.append(Cell(format_count(row.scenes)))
    cells.append(Cell(format_timing(row.timing)))
    key = series.get(row.derainer, RAINY) + (" control" if is_control else "")
    return Line([row.derainer or RAINY], cells, tags, key=key)


def _equal(score: MeanScore) -> str:
    """Return how many images equal the clean ones, and the mean PSNR of the others, as text."""
    text = f"{score.infinite} equal"
    others = score.mean_of_others
    return text if others is None else f"{text}, the others {others:.2f}"


def _scene_table(scenes: Sequence[SceneRow], measures: Sequence[Measure]) -> Table | None:
    """Return the mean scores of scenes; None if there are none, or too many for a page."""
    if not 0 < len(scenes) <= _MOST_SCENE_LINES:
        return None
    lines = [
        Line(
            [f"{row.set}: {row.scene}", row.derainer or RAINY],
            [
                *(Cell(format_score(row.means[m.key], m.digits)) for m in measures),
                Cell(format_count(row.images)),
            ],
        )
        for row in sorted(scenes, key=lambda row: (row.set, row.scene))
    ]
    titles = [*(m.heading for m in measures), "images"]
    return flat_table("Mean of each scene", ["scene", "input"], titles, lines)


def _scatter(rows: Sequence[RowResult], convention: Convention) -> Chart | None:
    alt = "Gain of PSNR of each image against the PSNR of the rainy image"
    draw = partial(image_scatter, rows, key_of("psnr", convention))
    return draw_chart(draw, "scatter", alt, _SCATTER_CAPTION)


def gain_points(rainy: RowResult, row: RowResult, key: str) -> list[tuple[float, float]]:
    """Return the score of each rainy image and its change by deraining.

    Images with an infinite score are left out. More than `MOST_POINTS` images are thinned out
    evenly.
    """
    points = [
        (before, after - before)
        for _, before, after in row.pairs(rainy, key)
        if math.isfinite(before) and math.isfinite(after)
    ]
    shown = min(len(points), MOST_POINTS)
    return [points[i * len(points) // shown] for i in range(shown)]


@styled
def image_scatter(rows: Sequence[RowResult], key: str, width: float = WIDTH) -> Figure | None:
    """Draw the PSNR gain of each image against its PSNR in the rain.

    Args:
        rows: Rows of a comparison by set, rainy images first.
        key: Name of the PSNR measure.
        width: Of the figure in inches.

    Returns:
        The figure, with a colour for each method and a marker for each set; None without points.
    """
    rainy = {row.image_set.label: row for row in rows if row.method is None}
    shown = [
        (row.name, row.image_set.label, points)
        for row in rows
        if row.method is not None and (points := gain_points(rainy[row.image_set.label], row, key))
    ]
    if not shown:
        return None
    names = dict.fromkeys(name for name, _, _ in shown)
    sets = list(dict.fromkeys(label for _, label, _ in shown))
    colors = series_of(row.name for row in rows if row.method is not None)
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, label, points in shown:
        axes.plot(
            *zip(*points, strict=True),
            color=color_in(colors[name]),
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
    handles = legend({name: colors[name] for name in names}, sets)
    if width < WIDTH:
        spread_legend(figure, handles, width, 4)
    else:
        figure.legend(handles=handles, loc="outside right upper")
    return figure
