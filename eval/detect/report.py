"""The report of a detection run: one page that says first what was found, then shows it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from eval.detect import figures as plots
from eval.detect.verdicts import Verdict, control_warning, effect_of, headline, judge, rain_sentence
from eval.report.figures import to_svg
from eval.report.page import as_text, render_page, strip_group
from eval.report.strips import COLORS, Strip, StripGroup
from eval.report.tables import (
    COLUMNS,
    UNDEFINED,
    Column,
    Row,
    conditions,
    find_row,
    format_count,
    format_db,
    format_delta,
    format_interval,
    format_ms,
    format_percent,
    format_points,
    format_share,
    format_ssim,
    is_control,
    number,
    row_label,
    sort_rows,
    used_columns,
)

__all__ = ["Report", "render_report"]

_MAIN_COLUMNS = (
    "mAP", "delta_mAP", "delta_frame", "recovered", "mAP50", "mAP75", "mAP_small", "AR", "psnr",
)  # fmt: skip
_RESTORATION = (
    ("psnr", "PSNR", format_db),
    ("ssim", "SSIM", format_ssim),
    ("psnr_official", "PSNR, paper's code", format_db),
    ("ssim_official", "SSIM, paper's code", format_ssim),
)
_OUTCOMES = (
    ("precision", "precision", format_percent),
    ("recall", "recall", format_percent),
    ("tp", "found", format_count),
    ("fp", "false", format_count),
    ("fn", "missed", format_count),
)
_STRIP_GROUPS = (
    ("gain", "Where deraining helped most"),
    ("loss", "Where deraining hurt most"),
    ("same", "Where nothing changed"),
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report shows, as plain data.

    Attributes:
        set_name: Name of the rainy detection set.
        detector: Name of the detector.
        rows: Rows of metrics.json, fractions 0..1.
        per_class: Rows with `condition`, `input`, `derainer`, `class`, `boxes`, `AP`, `AP50` and
            `delta_AP`.
        strips: Pictures to show; gains come before losses whatever their order here.
        command: The command line that made this.
        date: When, in words.
        protocol: Facts of the measurement, such as `imgsz`, `conf`, `bootstrap resamples`.
        notes: Sentences on the data: what was skipped, what did not match.
        environment: Versions and devices.
        config: The resolved configuration.
        elapsed: Seconds of each part of the run.
        pseudo_labels: True when the truth is the detector's own detections on clean images: the
            numbers are then agreement with these, not accuracy.
        breakdown: The section on errors, from `eval.detect.error_report`; empty leaves it out.
    """

    set_name: str
    detector: str
    rows: Sequence[Row]
    per_class: Sequence[Row] = ()
    strips: Sequence[Strip] = ()
    command: str = ""
    date: str = ""
    protocol: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()
    environment: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    elapsed: Mapping[str, float] = field(default_factory=dict)
    pseudo_labels: bool = False
    breakdown: Mapping[str, Any] = field(default_factory=dict)


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
        config=as_text(report.config),
        environment=as_text(report.environment),
    )


def _tiles(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> list[dict[str, str]]:
    """Return the large numbers at the top: of the best derainer in the first condition."""
    if not verdicts:
        return []
    name, condition = verdicts[0].derainer, verdicts[0].condition
    rainy = find_row(rows, condition, "rainy") or {}
    row = find_row(rows, condition, "derained", name) or {}
    clean = find_row(rows, condition, "clean") or {}
    harm = find_row(rows, condition, "derained_clean", name) or {}
    tiles = [
        ("rainy", _percent(rainy.get("mAP")), "mAP on rainy images"),
        ("derained", _percent(row.get("mAP")), f"mAP derained: {format_delta(row)}"),
        ("clean", _percent(clean.get("mAP")), "mAP on clean images, the ceiling"),
        ("", format_share(row.get("recovered")), "of what the rain took is recovered"),
        (
            "harm",
            format_points(harm.get("delta_mAP")),
            f"points on clean images {format_interval(harm.get('ci_low'), harm.get('ci_high'))}",
        ),
        ("", _unit(format_ms(row.get("ms_derain")), "ms"), "to derain an image"),
    ]
    return [
        {"kind": kind, "value": value, "about": about}
        for kind, value, about in tiles
        if value != UNDEFINED
    ]


def _percent(value: object) -> str:
    return _unit(format_percent(value), "%")


def _unit(text: str, unit: str) -> str:
    return text if text == UNDEFINED else f"{text} {unit}"


def _group_verdicts(verdicts: Sequence[Verdict]) -> list[tuple[Verdict, list[Verdict]]]:
    """Return each derainer's verdict in the first condition, with those in the other ones."""
    groups: dict[str, list[Verdict]] = {}
    for one in verdicts:
        groups.setdefault(one.derainer, []).append(one)
    return [(group[0], group[1:]) for group in groups.values()]


def _score_table(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the columns and groups of the key table."""
    wanted = [column for column in COLUMNS if column.keys[0] in (*_MAIN_COLUMNS, "ssim")]
    columns = used_columns(rows, wanted)
    groups = [
        (name, [_score_line(row, rows, columns) for row in rows if row.get("condition") == name])
        for name in conditions(rows)
    ]
    return {"columns": columns, "groups": groups}


def _score_line(row: Row, rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Any]:
    rivals = [
        number(other.get("mAP")) or 0.0
        for other in rows
        if other.get("condition") == row.get("condition") and other.get("input") == "derained"
    ]
    value = number(row.get("mAP"))
    best = row.get("input") == "derained" and value is not None and value >= max(rivals)
    # What the rain takes is no merit of anybody: the clean row stays without colour.
    compared = row.get("input") in ("derained", "derained_clean")
    cells = [
        {
            "text": column.text(row),
            "effect": effect_of(row) if compared and column.keys == ("delta_mAP",) else "",
        }
        for column in columns
    ]
    return {
        "label": row_label(row),
        "kind": row.get("input"),
        "best": best and len(rivals) > 1,
        "effect": effect_of(row),
        "control": is_control(row),
        "images": format_count(row.get("images")),
        "boxes": format_count(row.get("boxes")),
        "cells": cells,
    }


def _plain_table(
    rows: Sequence[Row], columns: Sequence[tuple[str, str, Any]], kinds: Sequence[str]
) -> dict[str, Any] | None:
    """Return a table of some keys, or None when no row of these inputs defines one."""
    shown = [row for row in rows if row.get("input") in kinds]
    used = [
        column for column in columns if any(number(row.get(column[0])) is not None for row in shown)
    ]
    if not used:
        return None
    lines = [
        (str(row.get("condition")), row_label(row), [text(row.get(key)) for key, _, text in used])
        for row in shown
        if any(number(row.get(key)) is not None for key, _, _ in used)
    ]
    return {"titles": [title for _, title, _ in used], "lines": lines}


def _costs(rows: Sequence[Row], condition: str) -> list[dict[str, Any]]:
    """Return time per image of the rainy and derained rows of a condition, with shares of bars."""
    shown = [
        row
        for row in rows
        if row.get("condition") == condition
        and row.get("input") in ("rainy", "derained")
        and (number(row.get("ms_derain")) or number(row.get("ms_detect")))
    ]
    totals = [
        (number(row.get("ms_derain")) or 0.0) + (number(row.get("ms_detect")) or 0.0)
        for row in shown
    ]
    return [
        {
            "label": row_label(row),
            "derain": format_ms(row.get("ms_derain")),
            "detect": format_ms(row.get("ms_detect")),
            "total": format_ms(total),
            "rate": f"{1000 / total:.1f}",
            "derain_share": 100 * (number(row.get("ms_derain")) or 0.0) / max(totals),
            "detect_share": 100 * (number(row.get("ms_detect")) or 0.0) / max(totals),
        }
        for row, total in zip(shown, totals, strict=True)
    ]


def _class_table(per_class: Sequence[Row], condition: str) -> dict[str, Any] | None:
    """Return AP per class and input of a condition, classes with most boxes first."""
    shown = sort_rows([row for row in per_class if row.get("condition") == condition])
    if not shown:
        return None
    inputs = list(dict.fromkeys(row_label(row) for row in shown))
    classes: dict[str, dict[str, Any]] = {}
    for row in shown:
        line = classes.setdefault(str(row.get("class")), {"boxes": row.get("boxes"), "cells": {}})
        line["cells"][row_label(row)] = format_percent(row.get("AP"))
    order = sorted(classes, key=lambda name: -(number(classes[name]["boxes"]) or 0.0))
    lines = [
        (
            name,
            format_count(classes[name]["boxes"]),
            [classes[name]["cells"].get(label, UNDEFINED) for label in inputs],
        )
        for name in order
    ]
    return {"inputs": inputs, "lines": lines}


def _figures(
    rows: Sequence[Row], per_class: Sequence[Row], verdicts: Sequence[Verdict], condition: str
) -> dict[str, Any]:
    """Draw the page's figures: bars of mAP, changes per class and derainer, and the scatter."""
    bars = ""
    if rows:
        bars = to_svg(plots.score_bars(rows), "bars", "Bars of mAP for every row of the table")
    scatter = plots.gain_scatter(rows)
    gains = "Gain of PSNR and SSIM against gain of mAP, one point per derainer and condition"
    return {
        "bars": Markup(bars),
        "scatter": Markup(to_svg(scatter, "scatter", gains)) if scatter else "",
        "classes": _class_figures(per_class, verdicts, condition),
    }


def _class_figures(
    per_class: Sequence[Row], verdicts: Sequence[Verdict], condition: str
) -> list[dict[str, Any]]:
    """Draw the changes per class of each derainer in a condition, the best one first."""
    figures: list[dict[str, Any]] = []
    for one in verdicts:
        chosen = [
            row
            for row in per_class
            if row.get("condition") == condition == one.condition
            and row.get("input") == "derained"
            and row.get("derainer") == one.derainer
        ]
        figure = plots.class_changes(chosen)
        if figure is not None:
            alt = f"Change of AP per class with {one.derainer}, in points"
            svg = to_svg(figure, f"classes-{len(figures)}", alt)
            caption = _caption_changes(chosen)
            figures.append({"name": one.derainer, "svg": Markup(svg), "caption": caption})
    return figures


def _caption_changes(classes: Sequence[Row]) -> str:
    changes = [number(row.get("delta_AP")) for row in classes]
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
