"""The report of a detection run: one page that says first what was found, then shows it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from eval.detect import figures as plots
from eval.detect.columns import COLUMNS, Column, format_change, number_column, used_columns
from eval.detect.error_report import BreakdownSection
from eval.detect.model import ClassRow, TableRow, conditions, find_row, sort_rows
from eval.detect.verdicts import (
    Effect,
    Verdict,
    control_warning,
    effect_of,
    headline,
    judge,
    rain_sentence,
)
from eval.report.facts import RunFacts
from eval.report.figures import to_svg
from eval.report.page import render_page, strip_group
from eval.report.strips import COLORS, Strip, StripGroup
from eval.report.tables import (
    UNDEFINED,
    format_count,
    format_db,
    format_interval,
    format_ms,
    format_percent,
    format_points,
    format_share,
    format_ssim,
    number,
)
from eval.rows.run import RowInput

__all__ = ["Report", "render_report"]

_MAIN_COLUMNS = frozenset({
    "mAP", "delta_mAP", "delta_frame", "recovered", "mAP50", "mAP75", "mAP_small", "AR", "psnr",
    "ssim",
})  # fmt: skip
_RESTORATION = (
    number_column("psnr", "PSNR", format_db, lambda row: row.psnr),
    number_column("ssim", "SSIM", format_ssim, lambda row: row.ssim),
    number_column("psnr_official", "PSNR, paper's code", format_db, lambda row: row.psnr_official),
    number_column(
        "ssim_official", "SSIM, paper's code", format_ssim, lambda row: row.ssim_official
    ),
)
_OUTCOMES = (
    number_column("precision", "precision", format_percent, lambda row: row.precision),
    number_column("recall", "recall", format_percent, lambda row: row.recall),
    number_column("tp", "found", format_count, lambda row: row.tp),
    number_column("fp", "false", format_count, lambda row: row.fp),
    number_column("fn", "missed", format_count, lambda row: row.fn),
)
_STRIP_GROUPS = (
    ("gain", "Where deraining helped most"),
    ("loss", "Where deraining hurt most"),
    ("same", "Where nothing changed"),
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report shows.

    Attributes:
        set_name: Name of the rainy detection set.
        detector: Name of the detector.
        facts: How the numbers came about.
        rows: The table of scores.
        per_class: The same by class.
        strips: Pictures to show; gains come before losses whatever their order here.
        count_conf: Confidence of the counts, 0..1.
        pseudo_labels: True when the truth is the detector's own detections on clean images: the
            numbers are then agreement with these, not accuracy.
        breakdown: The section on errors by kind; None leaves it out.
    """

    set_name: str
    detector: str
    facts: RunFacts
    rows: Sequence[TableRow]
    per_class: Sequence[ClassRow] = ()
    strips: Sequence[Strip] = ()
    count_conf: float = 0.25
    pseudo_labels: bool = False
    breakdown: BreakdownSection | None = None


@dataclass(frozen=True)
class _Tile:
    """One of the large numbers at the top; `kind` decides its colour."""

    kind: str
    value: str
    about: str


@dataclass(frozen=True)
class _Cell:
    """A cell of the key table; `effect` decides its colour, empty for none."""

    text: str
    effect: Effect | str = ""


@dataclass(frozen=True)
class _ScoreLine:
    """A line of the key table: a row, whether it is the best derained one, and its cells."""

    row: TableRow
    best: bool
    effect: Effect
    cells: Sequence[_Cell]
    images: str
    boxes: str


@dataclass(frozen=True)
class _ScoreTable:
    """The key table: its columns, and a group of lines for each condition."""

    columns: Sequence[Column]
    groups: Sequence[tuple[str, Sequence[_ScoreLine]]]


@dataclass(frozen=True)
class _PlainTable:
    """Titles of the columns, and lines of condition, label and cells."""

    titles: Sequence[str]
    lines: Sequence[tuple[str, str, Sequence[str]]]


@dataclass(frozen=True)
class _Cost:
    """Time per image of a row as text, and the widths of its bars in percent of the longest."""

    label: str
    derain: str
    detect: str
    total: str
    rate: str
    derain_share: float
    detect_share: float


@dataclass(frozen=True)
class _ClassLine:
    """A class with its number of boxes and its AP by label of the row."""

    boxes: int
    cells: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _ClassTable:
    """AP by class: labels of the rows, and lines of class, boxes and cells."""

    inputs: Sequence[str]
    lines: Sequence[tuple[str, str, Sequence[str]]]


@dataclass(frozen=True)
class _ClassFigure:
    """Changes per class with one derainer."""

    name: str
    svg: Markup
    caption: str


@dataclass(frozen=True)
class _Figures:
    """The page's figures; empty where there is nothing to draw."""

    bars: Markup
    scatter: Markup
    classes: Sequence[_ClassFigure]


def render_report(report: Report) -> str:
    """Render a report as one self-contained HTML page: no other file, no network, no script.

    Args:
        report: What to show. Names may hold any characters; they are escaped.

    Returns:
        The page's text, to be written as UTF-8.
    """
    rows = sort_rows(report.rows)
    main = conditions(rows)[0] if rows else "all"
    verdicts = judge(rows)
    return render_page(
        "report.html",
        report=report,
        facts=report.facts,
        headline=headline(rows),
        rain=rain_sentence(rows, main),
        warning=control_warning(verdicts) if verdicts else "",
        main=main,
        tiles=_tiles(rows, verdicts),
        verdicts=_group_verdicts(verdicts),
        scores=_score_table(rows),
        restoration=_plain_table(rows, _RESTORATION, ("rainy", "derained")),
        outcomes=_plain_table(rows, _OUTCOMES, ("rainy", "derained", "clean", "derained_clean")),
        costs=_costs(rows, main),
        classes=_class_table(report.per_class, main),
        figures=_figures(rows, report.per_class, verdicts, main),
        strips=_strip_groups(report.strips),
        colors=COLORS,
    )


def _tiles(rows: Sequence[TableRow], verdicts: Sequence[Verdict]) -> list[_Tile]:
    """Return the large numbers at the top: of the best derainer in the first condition."""
    if not verdicts:
        return []
    name, condition = verdicts[0].derainer, verdicts[0].condition
    tiles = []
    if rainy := find_row(rows, condition, "rainy"):
        tiles.append(_Tile("rainy", _percent(rainy.mean_ap), "mAP on rainy images"))
    derained = find_row(rows, condition, "derained", name)
    if derained:
        about = f"mAP derained: {format_change(derained.change)}"
        tiles.append(_Tile("derained", _percent(derained.mean_ap), about))
    if clean := find_row(rows, condition, "clean"):
        tiles.append(_Tile("clean", _percent(clean.mean_ap), "mAP on clean images, the ceiling"))
    if derained:
        share = format_share(derained.recovered)
        tiles.append(_Tile("", share, "of what the rain took is recovered"))
    if harm := find_row(rows, condition, "derained_clean", name):
        about = f"points on clean images {format_interval(harm.change.low, harm.change.high)}"
        tiles.append(_Tile("harm", format_points(harm.change.value), about))
    if derained:
        tiles.append(_Tile("", _unit(format_ms(derained.ms_derain), "ms"), "to derain an image"))
    return [tile for tile in tiles if tile.value != UNDEFINED]


def _percent(value: float | None) -> str:
    return _unit(format_percent(value), "%")


def _unit(text: str, unit: str) -> str:
    return text if text == UNDEFINED else f"{text} {unit}"


def _group_verdicts(verdicts: Sequence[Verdict]) -> list[tuple[Verdict, list[Verdict]]]:
    """Return each derainer's verdict in the first condition, with those in the other ones."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.derainer, []).append(verdict)
    return [(group[0], group[1:]) for group in groups.values()]


def _score_table(rows: Sequence[TableRow]) -> _ScoreTable:
    """Return the columns and groups of the key table."""
    columns = used_columns(rows, [column for column in COLUMNS if column.key in _MAIN_COLUMNS])
    groups = [
        (name, [_score_line(row, rows, columns) for row in rows if row.condition == name])
        for name in conditions(rows)
    ]
    return _ScoreTable(columns, groups)


def _score_line(row: TableRow, rows: Sequence[TableRow], columns: Sequence[Column]) -> _ScoreLine:
    rivals = [
        number(other.mean_ap) or 0.0
        for other in rows
        if other.condition == row.condition and other.input == "derained"
    ]
    value = number(row.mean_ap)
    best = row.input == "derained" and value is not None and value >= max(rivals)
    # No derainer has a part in what the rain takes: the clean row stays without colour.
    compared = row.input in ("derained", "derained_clean")
    cells = [
        _Cell(column.text(row), effect_of(row) if compared and column.key == "delta_mAP" else "")
        for column in columns
    ]
    return _ScoreLine(
        row=row,
        best=best and len(rivals) > 1,
        effect=effect_of(row),
        cells=cells,
        images=format_count(row.images),
        boxes=format_count(row.boxes),
    )


def _plain_table(
    rows: Sequence[TableRow], columns: Sequence[Column], kinds: Sequence[RowInput]
) -> _PlainTable | None:
    """Return a table of some columns, or None when no row of these inputs defines one."""
    shown = [row for row in rows if row.input in kinds]
    used = used_columns(shown, columns)
    if not used:
        return None
    lines = [
        (row.condition, row.label, [column.text(row) for column in used])
        for row in shown
        if used_columns([row], used)
    ]
    return _PlainTable([column.title for column in used], lines)


def _costs(rows: Sequence[TableRow], condition: str) -> list[_Cost]:
    """Return time per image of the rainy and derained rows of a condition."""
    shown = [
        row
        for row in rows
        if row.condition == condition
        and row.input in ("rainy", "derained")
        and (row.ms_derain or row.ms_detect)
    ]
    totals = [(row.ms_derain or 0.0) + (row.ms_detect or 0.0) for row in shown]
    return [
        _Cost(
            label=row.label,
            derain=format_ms(row.ms_derain),
            detect=format_ms(row.ms_detect),
            total=format_ms(total),
            rate=f"{1000 / total:.1f}",
            derain_share=100 * (row.ms_derain or 0.0) / max(totals),
            detect_share=100 * (row.ms_detect or 0.0) / max(totals),
        )
        for row, total in zip(shown, totals, strict=True)
    ]


def _class_table(per_class: Sequence[ClassRow], condition: str) -> _ClassTable | None:
    """Return AP per class and input of a condition, classes with most boxes first."""
    shown = sort_rows([row for row in per_class if row.condition == condition])
    if not shown:
        return None
    inputs = list(dict.fromkeys(row.label for row in shown))
    classes: dict[str, _ClassLine] = {}
    for row in shown:
        line = classes.setdefault(row.class_name, _ClassLine(row.boxes))
        line.cells[row.label] = format_percent(row.ap)
    lines = [
        (name, format_count(line.boxes), [line.cells.get(label, UNDEFINED) for label in inputs])
        for name, line in sorted(classes.items(), key=lambda item: -item[1].boxes)
    ]
    return _ClassTable(inputs, lines)


def _figures(
    rows: Sequence[TableRow],
    per_class: Sequence[ClassRow],
    verdicts: Sequence[Verdict],
    condition: str,
) -> _Figures:
    """Draw the page's figures: bars of mAP, changes per class and derainer, and the scatter."""
    bars = scatter = ""
    if rows:
        bars = to_svg(plots.score_bars(rows), "bars", "Bars of mAP for every row of the table")
    gains = plots.gain_scatter(rows)
    if gains:
        alt = "Gain of PSNR and SSIM against gain of mAP, one point per derainer and condition"
        scatter = to_svg(gains, "scatter", alt)
    classes = _class_figures(per_class, verdicts, condition)
    return _Figures(Markup(bars), Markup(scatter), classes)


def _class_figures(
    per_class: Sequence[ClassRow], verdicts: Sequence[Verdict], condition: str
) -> list[_ClassFigure]:
    """Draw the changes per class of each derainer in a condition, the best one first."""
    figures: list[_ClassFigure] = []
    for verdict in verdicts:
        chosen = [
            row
            for row in per_class
            if row.condition == condition == verdict.condition
            and (row.input, row.derainer) == ("derained", verdict.derainer)
        ]
        figure = plots.class_changes(chosen)
        if figure is not None:
            alt = f"Change of AP per class with {verdict.derainer}, in points"
            svg = Markup(to_svg(figure, f"classes-{len(figures)}", alt))
            figures.append(_ClassFigure(verdict.derainer, svg, _caption_changes(chosen)))
    return figures


def _caption_changes(classes: Sequence[ClassRow]) -> str:
    changes = [number(row.change) for row in classes]
    known = [change for change in changes if change is not None]
    gained, lost = sum(change > 0 for change in known), sum(change < 0 for change in known)
    text = f"Of {len(known)} classes with boxes, AP rises in {gained} and falls in {lost}."
    shown = plots.count_shown(classes)
    return text if shown == len(known) else f"{text} Shown are the largest changes of both signs."


def _strip_groups(strips: Sequence[Strip]) -> list[StripGroup]:
    """Encode the strips: gains first, then losses, each with the largest change first."""
    groups = []
    ordered = sorted(strips, key=lambda strip: -abs(strip.gain))
    for kind, title in _STRIP_GROUPS:
        chosen = [strip for strip in ordered if _direction(strip) == kind]
        if chosen:
            groups.append(strip_group(kind, title, chosen))
    return groups


def _direction(strip: Strip) -> str:
    if strip.gain > 0:
        return "gain"
    return "loss" if strip.gain < 0 else "same"
