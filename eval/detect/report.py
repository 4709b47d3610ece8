"""The report of a detection run: one page with the main result first, then all numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

from eval.detect import figures as plots
from eval.detect.class_report import class_charts, class_table
from eval.detect.columns import (
    COLUMNS,
    Column,
    change_column,
    format_change,
    number_column,
    used_columns,
)
from eval.detect.cost_report import cost_section, cost_tile
from eval.detect.error_report import BreakdownSection
from eval.detect.model import (
    ClassRow,
    TableRow,
    condition_title,
    conditions,
    find_row,
    part_of,
    sort_rows,
)
from eval.detect.operating import OperatingRow
from eval.detect.operating_report import (
    f1_falls,
    first_points,
    operating_section,
    operating_sentence,
)
from eval.detect.strips import INVENTED
from eval.detect.verdicts import (
    Verdict,
    control_warning,
    decisive_classes,
    headline,
    judge,
    rain_sentence,
)
from eval.detect.where_report import WhereSection
from eval.report.facts import RunFacts
from eval.report.figures import draw_chart
from eval.report.page import render_page
from eval.report.parts import (
    Banner,
    Cell,
    Chart,
    Effect,
    Group,
    Head,
    Line,
    Table,
    Tile,
    flat_table,
)
from eval.report.strips import Strip, StripGroup
from eval.report.tables import (
    UNDEFINED,
    format_count,
    format_db,
    format_interval,
    format_percent,
    format_points,
    format_share,
    format_ssim,
)
from eval.report.timing import TimedOn
from eval.rows.run import RowInput
from eval.scores.means import FEW_BOXES, FEWEST_BOXES, FEWEST_IMAGES
from eval.sets import ALL

__all__ = ["Report", "render_report"]

_MAIN_COLUMNS = frozenset({
    "mAP", "delta_mAP", "delta_frame", "recovered", "mAP50", "mAP75", "mAP_small", "AR", "psnr",
    "ssim", "share_derained",
})  # fmt: skip
_RESTORATION = (
    number_column("psnr", "PSNR", format_db, lambda row: row.psnr),
    number_column("ssim", "SSIM", format_ssim, lambda row: row.ssim),
    number_column("psnr_official", "PSNR, paper's code", format_db, lambda row: row.psnr_official),
    number_column(
        "ssim_official", "SSIM, paper's code", format_ssim, lambda row: row.ssim_official
    ),
)
_MEANS = (
    number_column("mAP", "mAP", format_percent, lambda row: row.mean_ap),
    change_column("delta_mAP", lambda row: row.change),
    number_column("AP_by_boxes", "by boxes", format_percent, lambda row: row.ap_by_boxes),
    change_column("delta_AP_by_boxes", lambda row: row.change_by_boxes),
    number_column("AP_common", "common", format_percent, lambda row: row.ap_common),
    change_column("delta_AP_common", lambda row: row.change_common),
    number_column("AR", "AR", format_percent, lambda row: row.mean_ar),
    change_column("delta_AR", lambda row: row.change_ar),
)
_OUTCOMES = (
    number_column("precision", "precision", format_percent, lambda row: row.precision),
    number_column("recall", "recall", format_percent, lambda row: row.recall),
    number_column("tp", "found", format_count, lambda row: row.tp),
    number_column("fp", "false", format_count, lambda row: row.fp),
    number_column("fn", "missed", format_count, lambda row: row.fn),
)
_MEANS_CAPTION = "Other means of the same detections in percent, with their changes in points"
_QUALITY_CAPTION = "PSNR in dB and SSIM against the clean images"
_OUTCOMES_CAPTION = "Detections at a fixed confidence; precision and recall in percent"
_BARS_CAPTION = (
    "mAP of every row, with its change in parentheses. Dashed: what the rows below are compared "
    "with. Whiskers: the 95 % interval of the change, counted from the dashed line; one that meets "
    "the line is no measurable change."
)
_SCATTER_CAPTION = (
    "Each point is a derainer in a condition, both gains against the rainy images; whiskers are "
    "95 % intervals of the change of mAP."
)
_PSEUDO_LABELS = (
    "This set has no annotations: the truth is what the detector finds on the clean images. The "
    "ceiling is high by construction, and a derainer is rewarded for images that look clean to "
    "this detector."
)
_LIMITS = {
    "few_boxes": FEW_BOXES,
    "fewest_images": FEWEST_IMAGES,
    "fewest_boxes": FEWEST_BOXES,
}
_STRIP_GROUPS = (
    ("gain", "Where deraining helped most"),
    ("loss", "Where deraining hurt most"),
    (INVENTED, "Most new false detections"),
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
        tallies: In how many images each derainer changed what, in words.
        count_conf: Confidence of the counts, 0..1.
        pseudo_labels: Whether the truth is the detector's output on the clean images: the numbers
            are then agreement with it, not accuracy.
        breakdown: The section on errors by kind; None leaves it out.
        operating: Operating points of the rows.
        where: The section on when to derain; None leaves it out.
        total: Images of the set; 0: as many as were measured.
    """

    set_name: str
    detector: str
    facts: RunFacts
    rows: Sequence[TableRow]
    per_class: Sequence[ClassRow] = ()
    strips: Sequence[Strip] = ()
    tallies: Sequence[str] = ()
    count_conf: float = 0.25
    pseudo_labels: bool = False
    breakdown: BreakdownSection | None = None
    operating: Sequence[OperatingRow] = ()
    where: WhereSection | None = None
    total: int = 0

    @property
    def titles(self) -> dict[str, str]:
        """What each condition is called: `all` is never that of a part of a set."""
        images = max((row.images for row in self.rows if row.condition == ALL), default=0)
        part = part_of(images, self.total)
        return {name: condition_title(name, part) for name in [ALL, *conditions(self.rows)]}


def render_report(report: Report) -> str:
    """Render a report as one self-contained HTML page: no other file, no network.

    Args:
        report: What to show. Names may hold any characters; they are escaped.

    Returns:
        The page's text, to be written as UTF-8.
    """
    rows = sort_rows(report.rows)
    main = conditions(rows)[0] if rows else ALL
    verdicts = judge(rows)
    charts = class_charts(report.per_class, verdicts, main)
    classes = class_table(report.per_class, main)
    operating = operating_section(report.operating, report.titles, _small(rows).__contains__)
    scatter = _scatter(rows)
    restoration = _number_table(_QUALITY_CAPTION, rows, _RESTORATION, ("rainy", "derained"))
    costs = cost_section(rows, main, report.facts.timed_on)
    strips = _strip_groups(report.strips)
    sections = {
        "verdicts": ("Findings", verdicts),
        "scores": ("Scores", True),
        "operating": ("Operating point", operating),
        "where": ("Where it helps", report.where),
        "classes": ("Classes", charts or classes),
        "errors": ("Errors", report.breakdown),
        "restoration": ("Restoration", scatter or restoration),
        "cost": ("Cost", costs),
        "pictures": ("Pictures", strips),
        "notes": ("Data", report.facts.notes),
        "labels": ("Labels", report.facts.repairs),
        "method": ("Method", True),
    }
    columns = used_columns(rows, [column for column in COLUMNS if column.key in _MAIN_COLUMNS])
    return render_page(
        "report.html",
        head=_head(report, rows, verdicts, main, sections),
        main=main,
        verdicts=_group_verdicts(verdicts),
        titles=report.titles,
        operating=operating,
        where=report.where,
        **_LIMITS,
        scores=_score_table(rows, columns, report.titles),
        columns=columns,
        bars=_bars(rows, report.titles),
        means=_number_table(_MEANS_CAPTION, rows, _MEANS),
        outcomes=_number_table(_OUTCOMES_CAPTION, rows, _OUTCOMES),
        count_conf=report.count_conf,
        class_charts=charts,
        class_table=classes,
        errors=report.breakdown,
        scatter=scatter,
        restoration=restoration,
        costs=costs,
        strips=strips,
        tallies=report.tallies,
        facts=report.facts,
    )


def _head(
    report: Report,
    rows: Sequence[TableRow],
    verdicts: Sequence[Verdict],
    main: str,
    sections: Mapping[str, tuple[str, object]],
) -> Head:
    """Return the top of the page; it links to the sections that have content."""
    banners = []
    if report.pseudo_labels:
        banners.append(Banner(_PSEUDO_LABELS, "Agreement, not accuracy."))
    warning = control_warning(verdicts) if verdicts else ""
    if warning:
        banners.append(Banner(warning))
    banners += [
        Banner(text, "A tiny class decides.")
        for text in decisive_classes(
            [row for row in rows if row.condition == main],
            report.per_class,
        )
    ]
    subjects = [("", report.set_name), ("detector", report.detector)]
    if report.titles[main] != condition_title(main):
        subjects.append(("measured on", report.titles[main]))
    if main != ALL:
        subjects.append(("numbers above and below of condition", main))
    small = _small(rows)
    drawback, more = _operating_words(report, verdicts, small)
    return Head(
        title=f"Deraining and detection: {report.set_name}",
        question="Does deraining help the detector?",
        headline=headline(rows, drawback),
        lead=rain_sentence(rows, main),
        more=more,
        table=first_points(report.operating, main, small=main in small),
        subjects=subjects,
        date=report.facts.date,
        banners=banners,
        tiles=[] if main in small else _tiles(rows, verdicts, report.facts.timed_on),
        sections={anchor: name for anchor, (name, content) in sections.items() if content},
    )


def _small(rows: Sequence[TableRow]) -> set[str]:
    """Return the conditions with too few images or boxes to claim anything."""
    return {row.condition for row in rows if row.is_small}


def _operating_words(
    report: Report, verdicts: Sequence[Verdict], small: Collection[str]
) -> tuple[str, str]:
    """Return what goes against the best derainer's gain of mAP in use, and how it is used best.

    A loss in any condition is named, so that a gain on all images does not hide it.
    """
    if not verdicts:
        return "", ""
    main, best = verdicts[0].condition, verdicts[0].derainer
    rows = report.operating
    more = [operating_sentence(rows, main, best, small=main in small)]
    for name in conditions(rows):
        loss = "" if name == main or name in small else f1_falls(rows, name, best)
        more += [f"On {name}, {loss}."] if loss else []
    more += [report.where.advice] if report.where else []
    return f1_falls(rows, main, best), " ".join(filter(None, more))


def _tiles(
    rows: Sequence[TableRow], verdicts: Sequence[Verdict], timed_on: TimedOn | None
) -> list[Tile]:
    """Return the large numbers at the top: of the best derainer in the first condition."""
    if not verdicts:
        return []
    name, condition = verdicts[0].derainer, verdicts[0].condition
    own = plots.derainer_series(rows)[name]
    tiles = []
    if rainy := find_row(rows, condition, "rainy"):
        tiles.append(Tile(_percent(rainy.mean_ap), "mAP on rainy images", "rainy"))
    derained = find_row(rows, condition, "derained", name)
    if derained:
        about = f"mAP derained: {format_change(derained.change)}"
        tiles.append(Tile(_percent(derained.mean_ap), about, own))
    if clean := find_row(rows, condition, "clean"):
        tiles.append(Tile(_percent(clean.mean_ap), "mAP on clean images, the ceiling", "clean"))
    if derained:
        share = format_share(derained.recovered)
        tiles.append(Tile(share, "of what the rain took is recovered"))
    if harm := find_row(rows, condition, "derained_clean", name):
        about = f"points on clean images {format_interval(harm.change.low, harm.change.high)}"
        tiles.append(Tile(format_points(harm.change.value), about, f"{own} on-clean"))
    if derained:
        tiles.append(cost_tile(rows, derained, timed_on))
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


def _score_table(
    rows: Sequence[TableRow], columns: Sequence[Column], titles: Mapping[str, str]
) -> Table:
    """Show all rows by condition, in the main columns."""
    groups, series = [], plots.derainer_series(rows)
    for name in conditions(rows):
        members = [row for row in rows if row.condition == name]
        lines = [_score_line(row, columns, series) for row in members]
        first = members[0]
        facts = f"{format_count(first.images)} images, {format_count(first.boxes)} boxes"
        groups.append(Group(lines, titles[name], facts))
    return Table(
        about="Scores of every input",
        texts=["input"],
        numbers=[column.title for column in columns],
        groups=groups,
    )


def _score_line(row: TableRow, columns: Sequence[Column], series: Mapping[str, str]) -> Line:
    tags: dict[str, Effect | None] = {}
    if row.is_control and row.input == "derained":
        tags["control"] = None
    if is_best := _is_best(row):
        tags["best"] = row.effect
    return Line(
        [row.label],
        [_score_cell(row, column) for column in columns],
        tags,
        key=plots.key_of_row(row, series),
        style="best" if is_best else "",
    )


def _is_best(row: TableRow) -> bool:
    """Whether a derainer is beyond chance above every other one and above the control."""
    rivals = [
        change
        for name, change in ((row.control, row.control_change), (row.rival, row.rival_change))
        if name
    ]
    return bool(rivals) and all(row.judged(change) == "helps" for change in rivals)


def _score_cell(row: TableRow, column: Column) -> Cell:
    # Rain, not a derainer, makes the clean row differ: it stays without colour.
    if column.key != "delta_mAP" or row.input not in ("derained", "derained_clean"):
        return Cell(column.text(row))
    effect = row.effect
    against_clean = row.input == "derained_clean" and effect != "undefined"
    return Cell(column.text(row), effect, mark="c" if against_clean else "")


def _number_table(
    caption: str,
    rows: Sequence[TableRow],
    columns: Sequence[Column],
    kinds: Sequence[RowInput] = get_args(RowInput),
) -> Table | None:
    """Return a table of some columns, or None when no row of these inputs defines one."""
    shown = [row for row in rows if row.input in kinds]
    used = used_columns(shown, columns)
    if not used:
        return None
    lines = [
        Line([row.condition, row.label], [Cell(column.text(row)) for column in used])
        for row in shown
        if used_columns([row], used)
    ]
    return flat_table(caption, ["condition", "input"], [column.title for column in used], lines)


def _bars(rows: Sequence[TableRow], titles: Mapping[str, str]) -> Chart | None:
    """Draw the mAP of every row; None without rows."""
    if not rows:
        return None
    alt = "Bars of mAP for every row of the table"
    return draw_chart(partial(plots.score_bars, rows, titles), "bars", alt, _BARS_CAPTION)


def _scatter(rows: Sequence[TableRow]) -> Chart | None:
    """Draw gains of PSNR and SSIM against gains of mAP; None without such gains."""
    alt = "Gain of PSNR and SSIM against gain of mAP, one point per derainer and condition"
    return draw_chart(partial(plots.gain_scatter, rows), "scatter", alt, _SCATTER_CAPTION)


def _strip_groups(strips: Sequence[Strip]) -> list[StripGroup]:
    """Group the strips: gains first, then losses, each with the largest change first."""
    groups = []
    ordered = sorted(strips, key=lambda strip: -abs(strip.gain))
    for kind, title in _STRIP_GROUPS:
        chosen = [strip for strip in ordered if _direction(strip) == kind]
        if chosen:
            groups.append(StripGroup(title, chosen, "loss" if kind == INVENTED else kind))
    return groups


def _direction(strip: Strip) -> str:
    if strip.kind:
        return strip.kind
    if strip.gain > 0:
        return "gain"
    return "loss" if strip.gain < 0 else "same"
