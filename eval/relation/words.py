"""Gains and correlations as text: formats, labels, sentences, and the table of the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eval.relation.coefficients import KINDS
from eval.relation.correlations import POPULATIONS
from eval.report.tables import UNDEFINED, Row, number, shorten
from eval.sets import ALL

__all__ = [
    "MEASURES",
    "Measure",
    "agreement_sentence",
    "caution",
    "find_correlation",
    "format_coefficient",
    "format_gain",
    "gain_table",
    "headline",
    "main_correlation",
    "summary_lines",
]

_FEW_POINTS = 8
_LONGEST_NAME = 28
_GAP = "  "


@dataclass(frozen=True)
class Measure:
    """How a gain is shown: its heading, its name in a sentence, factor and digits."""

    title: str
    name: str
    factor: float = 1.0
    digits: int = 2
    unit: str = ""


MEASURES: Mapping[str, Measure] = {
    "delta_psnr": Measure("ΔPSNR (dB)", "PSNR"),
    "delta_ssim": Measure("ΔSSIM", "SSIM", digits=3),
    "delta_psnr_official": Measure("ΔPSNR (dB), paper's code", "PSNR by the paper's code"),
    "delta_ssim_official": Measure("ΔSSIM, paper's code", "SSIM by the paper's code", digits=3),
    "delta_mAP": Measure("ΔmAP (points)", "mAP in points", 100.0, 1),
    "relative_mAP": Measure("ΔmAP / rainy mAP", "mAP relative to rainy", 100.0, 1, " %"),
    "recovered": Measure("recovered", "recovered share", 100.0, 0, " %"),
    "delta_f1": Measure("ΔF1", "F1 of the image"),
}
"""Every gain: of restoration, of detection, and of the detection in a single image."""


def format_gain(row: Row, key: str, *, interval: bool = False) -> str:
    """Format a gain of a row with its sign, and with its interval if asked for.

    >>> format_gain({"delta_mAP": 0.187, "delta_mAP_low": 0.1, "delta_mAP_high": 0.25},
    ...             "delta_mAP", interval=True)
    '+18.7 [10.0, 25.0]'
    """
    value = number(row.get(key))
    if value is None:
        return UNDEFINED
    shape = MEASURES[key]
    text = _fixed(shape.factor * value, shape.digits, "" if key == "recovered" else "+")
    ends = number(row.get(f"{key}_low")), number(row.get(f"{key}_high"))
    if not interval or ends[0] is None or ends[1] is None:
        return text + shape.unit
    low, high = (_fixed(shape.factor * end, shape.digits) for end in ends if end is not None)
    return f"{text} [{low}, {high}]{shape.unit}"


def format_coefficient(row: Row | None, kind: str) -> str:
    """Format a correlation with its interval: `0.62 [0.20, 0.81]`."""
    value = None if row is None else number(row.get(kind))
    if row is None or value is None:
        return UNDEFINED
    low, high = number(row.get(f"{kind}_low")), number(row.get(f"{kind}_high"))
    text = _fixed(value, 2)
    return text if low is None or high is None else f"{text} [{_fixed(low, 2)}, {_fixed(high, 2)}]"


def _fixed(value: float, digits: int, sign: str = "") -> str:
    """Format with a fixed number of digits, and without the sign of a zero."""
    rounded = round(value, digits)
    return f"{rounded:{sign}.{digits}f}" if rounded else f"{0.0:.{digits}f}"


def find_correlation(correlations: Iterable[Row], **wanted: str) -> Row | None:
    """Return the first correlation whose fields are as wanted."""
    for row in correlations:
        if all(row.get(key) == value for key, value in wanted.items()):
            return row
    return None


def main_correlation(
    correlations: Sequence[Row], restoration: str = "delta_psnr", condition: str = ALL
) -> Row | None:
    """Return the correlation with the gain of mAP that a report starts with.

    All sets together if there are several, else the one set; derainers alone if they are enough,
    else with the controls.
    """
    pooled = any(row.get("scope") == "pooled" for row in correlations)
    found = [
        row
        for points in POPULATIONS
        if (
            row := find_correlation(
                correlations,
                scope="pooled" if pooled else "set",
                condition=condition,
                points=points,
                restoration=restoration,
                detection="delta_mAP",
            )
        )
    ]
    defined = [row for row in found if number(row.get("spearman")) is not None]
    return next(iter(defined or found), None)


def headline(correlations: Sequence[Row]) -> str:
    """Say the main result in one line: does a gain of PSNR come with a gain of mAP?"""
    row = main_correlation(correlations)
    if row is None:
        return "No derainer was measured"
    value = number(row.get("spearman"))
    if value is None:
        return f"No correlation of restoration and detection: {row['note']}"
    size = f"Spearman {format_coefficient(row, 'spearman')} over {row['n']} points"
    if row["points"] != POPULATIONS[0]:
        size += ", controls included"
    low, high = number(row.get("spearman_low")), number(row.get("spearman_high"))
    if low is None or high is None:
        return f"Gain of PSNR and gain of mAP: {size}, without an interval"
    if low <= 0 <= high:
        return f"No measurable relation of the gain of PSNR with the gain of mAP: {size}"
    more = "larger" if low > 0 else "smaller"
    return f"A larger gain of PSNR goes with a {more} gain of mAP: {size}"


def caution(correlations: Sequence[Row]) -> str:
    """Say how little a correlation over few derainers means; empty when there are more."""
    row = main_correlation(correlations)
    if row is None or number(row.get("spearman")) is None or row["n"] >= _FEW_POINTS:  # type: ignore[operator]
        return ""
    return (
        f"{row['n']} points are few. The interval says how much the number hangs on the images, "
        "not on which derainers were chosen: another one may turn it."
    )


def agreement_sentence(rows: Sequence[Row]) -> str:
    """Say on how many sets the best derainer by PSNR is the best by mAP; empty without a choice."""
    agreeing, names = [], list(dict.fromkeys(str(row["set"]) for row in rows))
    for name in names:
        chosen = [
            row
            for row in rows
            if (row["set"], row["condition"], row["control"]) == (name, ALL, False)
            and number(row["delta_psnr"]) is not None
            and number(row["delta_mAP"]) is not None
        ]
        if len(chosen) > 1:
            best = [_best(chosen, key) for key in ("delta_psnr", "delta_mAP")]
            agreeing.append(best[0] == best[1])
    if not agreeing:
        return ""
    if len(agreeing) == 1:
        verb = "is" if agreeing[0] else "is not"
        return f"The derainer that gains most PSNR {verb} the one that gains most mAP."
    return (
        f"On {sum(agreeing)} of {len(agreeing)} sets, the derainer that gains most PSNR is the one "
        "that gains most mAP."
    )


def _best(rows: Sequence[Row], key: str) -> object:
    return max(rows, key=lambda row: number(row[key]) or 0.0)["derainer"]


def gain_table(rows: Sequence[Row]) -> str:
    """Format the gains of all sets, conditions and derainers as a text table for a terminal."""
    keys = ("delta_psnr", "delta_ssim", "delta_mAP", "relative_mAP", "recovered")
    head = ["set", "condition", "derainer", *(MEASURES[key].title for key in keys)]
    body = [
        [
            *(shorten(str(row[key]), _LONGEST_NAME) for key in ("set", "condition", "derainer")),
            *(format_gain(row, key, interval=key == "delta_mAP") for key in keys),
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = [
        _GAP.join(
            cell.ljust(wide) if index < 3 else cell.rjust(wide)
            for index, (cell, wide) in enumerate(zip(line, widths, strict=True))
        )
        for line in [head, *body]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def summary_lines(correlations: Sequence[Row]) -> list[str]:
    """Say the main correlations in plain lines: PSNR and SSIM with mAP in points."""
    lines = [headline(correlations)]
    for restoration in ("delta_psnr", "delta_ssim"):
        row = main_correlation(correlations, restoration)
        if row is not None and number(row.get("spearman")) is not None:
            values = (f"{kind.capitalize()} {format_coefficient(row, kind)}" for kind in KINDS)
            lines.append(f"{MEASURES[restoration].name} and mAP: {', '.join(values)}")
    few = caution(correlations)
    return [*lines, few] if few else lines
