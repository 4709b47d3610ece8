"""The report of a relation run: one HTML file in the look of eval.detect's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from eval.relation.coefficients import KINDS
from eval.relation.correlations import POPULATIONS
from eval.relation.figures import condition_scatters, order_derainers, relation_figure
from eval.relation.gains import RESTORATION
from eval.relation.words import (
    MEASURES,
    agreement_sentence,
    caution,
    find_correlation,
    format_coefficient,
    format_gain,
    headline,
    main_correlation,
)
from eval.report.figures import to_svg
from eval.report.page import as_text, render_page
from eval.report.tables import UNDEFINED, Row, conditions, format_count

__all__ = ["RelationReport", "render_relation"]

_SHOWN_GAINS = ("delta_psnr", "delta_ssim", "delta_mAP")
_ALL_GAINS = (*RESTORATION, "delta_mAP", "relative_mAP", "recovered")
_TILES = (
    ("derained", "delta_psnr", "spearman", "Spearman of PSNR and mAP"),
    ("derained", "delta_psnr", "kendall", "Kendall of PSNR and mAP"),
    ("derained", "delta_psnr", "pearson", "Pearson of PSNR and mAP"),
    ("rainy", "delta_ssim", "spearman", "Spearman of SSIM and mAP"),
)


@dataclass(frozen=True, kw_only=True)
class RelationReport:
    """Everything that a report shows, as plain data.

    Attributes:
        rows: Rows of relation.csv, fractions 0..1, at least one.
        correlations: Rows of correlations.csv.
        detector: Name of the detector.
        truths: Set to what its detections were scored against, in words.
        remarks: What a reader must know before the numbers, such as how labels were made.
        notes: Set to sentences on its data.
        failures: Set to the reason why it is missing.
        protocol: Facts of the measurement.
        command: The command line that made this.
        date: When, in words.
        environment: Versions and devices.
        config: The resolved configuration.
    """

    rows: Sequence[Row]
    correlations: Sequence[Row]
    detector: str
    truths: Mapping[str, str]
    remarks: Sequence[str] = ()
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    protocol: Mapping[str, object] = field(default_factory=dict)
    command: str = ""
    date: str = ""
    environment: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)


def render_relation(report: RelationReport) -> str:
    """Render a report as one self-contained HTML page: no other file, no network, no script.

    Args:
        report: What to show. Names may hold any characters; they are escaped.

    Returns:
        The page's text, to be written as UTF-8.
    """
    names = conditions(report.rows)
    return render_page(
        "relation.html",
        report=report,
        headline=headline(report.correlations),
        lead=agreement_sentence(report.rows),
        caution=caution(report.correlations),
        tiles=_tiles(report.correlations),
        conditions=names,
        figures=_figures(report.rows, names),
        gains=_gain_groups(report.rows, names),
        all_gains=_all_gains(report.rows),
        scopes=_scopes(report.correlations, names),
        coefficients=_coefficients(report.correlations),
        images=_image_table(report.correlations, names),
        config=as_text(report.config),
        environment=as_text(report.environment),
    )


def _tiles(correlations: Sequence[Row]) -> list[dict[str, str]]:
    """Return the large numbers at the top."""
    tiles = []
    for kind, restoration, coefficient, about in _TILES:
        row = main_correlation(correlations, restoration)
        value, _, interval = format_coefficient(row, coefficient).partition(" ")
        if value != UNDEFINED:
            tiles.append({"kind": kind, "value": value, "about": f"{about} {interval}".rstrip()})
    row = main_correlation(correlations)
    if row is not None:
        what = "derainers on sets" if row["scope"] == "pooled" else "derainers"
        if row["points"] != POPULATIONS[0]:
            what += ", controls included"
        tiles.append({"kind": "", "value": str(row["n"]), "about": f"points: {what}"})
    return tiles


def _figures(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    main = [row for row in rows if row["condition"] == names[0]]
    groups = [(name, [row for row in rows if row["condition"] == name]) for name in names[1:]]
    alt = "Gains of restoration and of detection per derainer, and one against the other"
    by_condition = "Gain of mAP against gain of PSNR in each condition"
    return {
        "main": Markup(to_svg(relation_figure(main), "relation", alt)),
        "conditions": Markup(to_svg(condition_scatters(groups), "conditions", by_condition))
        if groups
        else "",
    }


def _gain_groups(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """Return the gains by set and derainer, conditions side by side."""
    index = {(row["set"], row["condition"], row["derainer"]): row for row in rows}
    groups = []
    for name in dict.fromkeys(str(row["set"]) for row in rows):
        own = [row for row in rows if row["set"] == name and row["condition"] == names[0]]
        lines = []
        for derainer in order_derainers(own):
            found = [index.get((name, condition, derainer)) for condition in names]
            cells = [_gain_cell(row, key) for row in found for key in _SHOWN_GAINS]
            control = bool(index[name, names[0], derainer]["control"])
            lines.append({"label": derainer, "control": control, "cells": cells})
        sizes = [index.get((name, condition, own[0]["derainer"])) for condition in names]
        facts = [f"{format_count(row['images'])}" if row else UNDEFINED for row in sizes]
        groups.append({"set": name, "images": facts, "lines": lines})
    titles = [MEASURES[key].title for key in _SHOWN_GAINS]
    return {"titles": titles, "groups": groups}


def _gain_cell(row: Row | None, key: str) -> dict[str, str]:
    if row is None:
        return {"text": UNDEFINED, "effect": ""}
    return {
        "text": format_gain(row, key, interval=key == "delta_mAP"),
        "effect": _effect(row) if key == "delta_mAP" else "",
    }


def _effect(row: Row) -> str:
    """Judge a gain of mAP by its interval, as eval.detect's report does."""
    low, high = row.get("delta_mAP_low"), row.get("delta_mAP_high")
    if not isinstance(low, float) or not isinstance(high, float) or low <= 0 <= high:
        return "unclear"
    return "helps" if low > 0 else "harms"


def _all_gains(rows: Sequence[Row]) -> dict[str, Any]:
    lines = [
        (
            [str(row[key]) for key in ("set", "condition", "derainer")],
            [format_gain(row, key, interval=True) for key in _ALL_GAINS],
        )
        for row in rows
    ]
    return {"titles": [MEASURES[key].title for key in _ALL_GAINS], "lines": lines}


def _scopes(correlations: Sequence[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return Spearman's coefficient by scope and restoration gain, conditions side by side."""
    scopes = dict.fromkeys(
        (str(row["scope"]), str(row["set"])) for row in correlations if row["scope"] != "images"
    )
    groups = []
    for scope, name in scopes:
        lines = []
        for restoration in ("delta_psnr", "delta_ssim"):
            for population in POPULATIONS:
                found = [
                    find_correlation(
                        correlations,
                        scope=scope,
                        set=name,
                        condition=condition,
                        points=population,
                        restoration=restoration,
                        detection="delta_mAP",
                    )
                    for condition in names
                ]
                if any(found):
                    label = f"{MEASURES[restoration].name}, {population}"
                    lines.append({"label": label, "cells": list(map(_correlation_cell, found))})
        groups.append({"title": name or "all sets together", "lines": lines})
    return groups


def _correlation_cell(row: Row | None) -> dict[str, str]:
    if row is None:
        return {"text": UNDEFINED, "note": "no such images"}
    text = format_coefficient(row, "spearman")
    return {"text": text, "note": str(row["note"]) or f"{row['n']} points"}


def _coefficients(correlations: Sequence[Row]) -> list[tuple[list[str], list[str], str]]:
    """Return every correlation over derainers as text."""
    return [
        (
            [
                str(row["set"]) or "all sets",
                str(row["condition"]),
                str(row["points"]),
                MEASURES[str(row["restoration"])].name,
                MEASURES[str(row["detection"])].name,
            ],
            [str(row["n"]), *(format_coefficient(row, kind) for kind in KINDS)],
            str(row["note"]),
        )
        for row in correlations
        if row["scope"] != "images"
    ]


def _image_table(correlations: Sequence[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the per-image correlation of PSNR and F1 by set and derainer."""
    own = [
        row
        for row in correlations
        if row["scope"] == "images" and row["restoration"] == "delta_psnr"
    ]
    keys = dict.fromkeys((str(row["set"]), str(row["derainer"])) for row in own)
    lines = []
    for name, derainer in keys:
        found = [
            find_correlation(own, set=name, derainer=derainer, condition=condition)
            for condition in names
        ]
        cells = list(map(_correlation_cell, found))
        lines.append({"set": name, "derainer": derainer, "cells": cells})
    return lines
