"""The report of a relation run: an HTML file built from the parts that all reports share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from eval.detect.model import condition_title
from eval.relation.coefficients import KINDS, Kind
from eval.relation.correlations import FEWEST_DERAINERS, POPULATIONS, Correlation
from eval.relation.figures import condition_scatters, order_derainers, relation_figure
from eval.relation.gains import RESTORATION, GainRow
from eval.relation.labels import REMARK
from eval.relation.output import Relation
from eval.relation.words import (
    MEASURES,
    agreement_sentence,
    caution,
    find_correlation,
    format_coefficient,
    format_gain,
    headline,
    is_enough,
    main_correlation,
)
from eval.report.figures import draw_chart
from eval.report.page import render_page
from eval.report.parts import Banner, Cell, Chart, Group, Head, Line, Table, Tile, effect_of
from eval.report.tables import UNDEFINED, format_count
from eval.sets import ALL

__all__ = ["render_relation"]

_SHOWN_GAINS = ("delta_psnr", "delta_ssim", "delta_mAP")
_ALL_GAINS = (*RESTORATION, "delta_mAP", "relative_mAP", "recovered")
_TILES: tuple[tuple[str, Kind, str], ...] = (
    ("delta_psnr", "spearman", "Spearman of PSNR and mAP"),
    ("delta_psnr", "kendall", "Kendall of PSNR and mAP"),
    ("delta_psnr", "pearson", "Pearson of PSNR and mAP"),
    ("delta_ssim", "spearman", "Spearman of SSIM and mAP"),
)
_MAIN_CAPTION = (
    "Above: what each derainer gains in PSNR and in mAP, one line per set, derainers in order of "
    "their gain of PSNR, controls first. Below: one gain against the other; numbers are those of "
    "the derainers, lines join a set's points. Whiskers are 95 % intervals."
)
_CONDITIONS_CAPTION = (
    "The same relation in each condition, on equal axes. Numbers are those of the derainers above."
)


def render_relation(relation: Relation) -> str:
    """Render the report as one self-contained HTML page: no other file, no network, no script.

    Args:
        relation: A finished run. Names may hold any characters; they are escaped.

    Returns:
        The page's text, to be written as UTF-8.
    """
    rows, correlations = relation.rows, relation.correlations
    names = sorted(dict.fromkeys(row.condition for row in rows), key=lambda name: name != ALL)
    return render_page(
        "relation.html",
        head=_head(relation),
        charts=_charts(rows, names),
        correlations=_correlation_table(correlations, names, relation.part),
        coefficients=_coefficient_table(correlations),
        gains=_gain_table(rows, names, relation.truths, relation.part),
        all_gains=_table_of_all_gains(rows),
        images=_image_table(correlations, names, relation.part),
        facts=relation.facts,
        fewest=FEWEST_DERAINERS,
    )


def _head(relation: Relation) -> Head:
    self_labelled = [measured.gains.name for measured in relation.sets if measured.self_labelled]
    banners = []
    if relation.failures:
        banners.append(Banner(title="Sets that are missing here:", lines=relation.failures))
    if self_labelled:
        banners.append(Banner(REMARK.format(sets=", ".join(self_labelled))))
    few = caution(relation.correlations)
    if few:
        banners.append(Banner(few))
    sections = {
        "figure": "Figure",
        "correlations": "Correlations",
        "gains": "Gains",
        "images": "Images",
        "notes": "Data",
        "labels": "Labels",
        "method": "Method",
    }
    if not relation.facts.notes:
        del sections["notes"]
    if relation.facts.repairs is None:
        del sections["labels"]
    return Head(
        title="Restoration gain and detection gain",
        question="Does better restoration mean better detection?",
        headline=headline(relation.correlations),
        lead=agreement_sentence(relation.rows),
        subjects=[
            ("", ", ".join(relation.truths)),
            ("detector", relation.detector),
            *([("measured on", relation.part)] if relation.part else []),
        ],
        date=relation.facts.date,
        banners=banners,
        tiles=_tiles(relation.correlations),
        sections=sections,
    )


def _tiles(correlations: Sequence[Correlation]) -> list[Tile]:
    """Return the large numbers at the top; none over too few derainers."""
    main = main_correlation(correlations)
    if main is None or not is_enough(main):
        return []
    tiles = []
    for restoration, coefficient, about in _TILES:
        correlation = main_correlation(correlations, restoration)
        value, _, interval = format_coefficient(correlation, coefficient).partition(" ")
        if value != UNDEFINED:
            tiles.append(Tile(value, f"{about} {interval}".rstrip()))
    points = "derainers on sets" if main.scope == "pooled" else "derainers"
    tiles.append(Tile(str(main.count), f"points: {points}, controls apart"))
    if main.p_value is not None:
        about = "p of Spearman, by permutation of the derainers"
        tiles.append(Tile(f"{main.p_value:.2g}", about))
    return tiles


def _charts(rows: Sequence[GainRow], conditions: Sequence[str]) -> list[Chart]:
    """Draw the main figure, and a figure of the conditions if there are any."""
    by_condition = [(name, [row for row in rows if row.condition == name]) for name in conditions]
    alt = "Gains of restoration and of detection per derainer, and one against the other"
    draw = partial(relation_figure, by_condition[0][1])
    charts = [draw_chart(draw, "relation", alt, _MAIN_CAPTION)]
    if by_condition[1:]:
        alt = "Gain of mAP against gain of PSNR in each condition"
        draw = partial(condition_scatters, by_condition[1:])
        charts.append(draw_chart(draw, "conditions", alt, _CONDITIONS_CAPTION))
    return [chart for chart in charts if chart]


def _correlation_table(
    correlations: Sequence[Correlation], conditions: Sequence[str], part: str
) -> Table:
    """Show Spearman's coefficient by scope and restoration gain, conditions side by side."""
    scopes = dict.fromkeys((c.scope, c.set_name) for c in _over_derainers(correlations))
    groups = []
    for scope, set_name in scopes:
        lines = []
        for restoration in ("delta_psnr", "delta_ssim"):
            for population in POPULATIONS:
                members = [
                    find_correlation(
                        correlations,
                        scope=scope,
                        set_name=set_name,
                        condition=condition,
                        points=population,
                        restoration=restoration,
                        detection="delta_mAP",
                    )
                    for condition in conditions
                ]
                if any(members):
                    label = f"{MEASURES[restoration].name}, {population}"
                    lines.append(Line([label], list(map(_correlation_cell, members))))
        groups.append(Group(lines, set_name or "all sets together"))
    return Table(
        about="Correlations of each set and condition",
        texts=["restoration gain, points"],
        numbers=[condition_title(name, part) for name in conditions],
        groups=groups,
    )


def _over_derainers(correlations: Iterable[Correlation]) -> list[Correlation]:
    return [correlation for correlation in correlations if correlation.scope != "images"]


def _correlation_cell(correlation: Correlation | None) -> Cell:
    if correlation is None:
        return Cell(UNDEFINED, note="no such images")
    text = format_coefficient(correlation, "spearman")
    note = correlation.note or f"{correlation.count} points"
    if correlation.p_value is not None:
        note += f", p = {correlation.p_value:.2g} by permutation"
    return Cell(text, note=note)


def _coefficient_table(correlations: Sequence[Correlation]) -> Table:
    """Show every correlation over derainers."""
    lines = [
        Line(
            [
                correlation.set_name or "all sets",
                correlation.condition,
                correlation.points,
                MEASURES[correlation.restoration].name,
                MEASURES[correlation.detection].name,
            ],
            [
                Cell(str(correlation.count)),
                Cell(UNDEFINED if correlation.p_value is None else f"{correlation.p_value:.2g}"),
                *(Cell(format_coefficient(correlation, kind)) for kind in KINDS),
            ],
            note=correlation.note,
        )
        for correlation in _over_derainers(correlations)
    ]
    return Table(
        about="Every coefficient",
        texts=["set", "condition", "points", "restoration", "detection"],
        numbers=["n", "p of Spearman", *(kind.capitalize() for kind in KINDS)],
        groups=[Group(lines)],
    )


def _gain_table(
    rows: Sequence[GainRow], conditions: Sequence[str], truths: Mapping[str, str], part: str
) -> Table:
    """Show the gains by set and derainer, conditions side by side."""
    index = {(row.set_name, row.condition, row.derainer): row for row in rows}
    groups = []
    for set_name, truth in truths.items():
        of_set = [row for row in rows if (row.set_name, row.condition) == (set_name, conditions[0])]
        lines, sizes = [], []
        for derainer in order_derainers(of_set):
            members = [index.get((set_name, condition, derainer)) for condition in conditions]
            sizes = [UNDEFINED if row is None else format_count(row.images) for row in members]
            cells = [_gain_cell(row, gain) for row in members for gain in _SHOWN_GAINS]
            is_control = index[set_name, conditions[0], derainer].control
            lines.append(Line([derainer], cells, tags={"control": None} if is_control else {}))
        facts = f"{' / '.join(sizes)} images · scored against {truth}"
        groups.append(Group(lines, set_name, facts))
    return Table(
        about="Gains of each derainer, conditions side by side",
        texts=["derainer"],
        numbers=[MEASURES[gain].title for gain in _SHOWN_GAINS],
        groups=groups,
        spans=[condition_title(name, part) for name in conditions],
    )


def _gain_cell(row: GainRow | None, gain: str) -> Cell:
    if row is None:
        return Cell(UNDEFINED)
    if gain != "delta_mAP":
        return Cell(format_gain(row.gains[gain], gain))
    return Cell(format_gain(row.gains[gain], gain, interval=True), effect_of(row.gains[gain]))


def _table_of_all_gains(rows: Sequence[GainRow]) -> Table:
    lines = [
        Line(
            [row.set_name, row.condition, row.derainer],
            [Cell(format_gain(row.gains[gain], gain, interval=True)) for gain in _ALL_GAINS],
        )
        for row in rows
    ]
    return Table(
        about="All gains",
        texts=["set", "condition", "derainer"],
        numbers=[MEASURES[gain].title for gain in _ALL_GAINS],
        groups=[Group(lines)],
    )


def _image_table(
    correlations: Sequence[Correlation], conditions: Sequence[str], part: str
) -> Table:
    """Show the correlation of PSNR and F1 over images, by set and derainer."""
    over_images = [
        correlation
        for correlation in correlations
        if correlation.scope == "images" and correlation.restoration == "delta_psnr"
    ]
    index = {(c.set_name, c.derainer, c.condition): c for c in over_images}
    lines = [
        Line(
            [set_name, derainer],
            [_correlation_cell(index.get((set_name, derainer, name))) for name in conditions],
        )
        for set_name, derainer in dict.fromkeys((c.set_name, c.derainer) for c in over_images)
    ]
    return Table(
        about="Correlations over images",
        texts=["set", "derainer"],
        numbers=[condition_title(name, part) for name in conditions],
        groups=[Group(lines)],
    )
