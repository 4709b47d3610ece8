"""Gains and correlations as text: formats, labels, sentences, and the table of the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eval.relation.coefficients import KINDS, Kind
from eval.relation.correlations import FEWEST_DERAINERS, POPULATIONS, Correlation
from eval.relation.gains import GainRow
from eval.report.tables import UNDEFINED, align_table, format_with_interval, shorten
from eval.scores.score import Score
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
    "is_enough",
    "main_correlation",
    "summary_lines",
]

_FEW_DERAINERS = 8
_LIKELY_CHANCE = 0.05
_LONGEST_NAME = 28


@dataclass(frozen=True)
class Measure:
    """How a gain is shown.

    Attributes:
        title: Its heading.
        name: Its name in a sentence.
        factor: Factor on the value.
        digits: Number of decimals.
        unit: Text after the number.
        sign: `+` if positive gains show their sign.
    """

    title: str
    name: str
    factor: float = 1.0
    digits: int = 2
    unit: str = ""
    sign: str = "+"


MEASURES: Mapping[str, Measure] = {
    "delta_psnr": Measure("ΔPSNR (dB)", "PSNR"),
    "delta_ssim": Measure("ΔSSIM", "SSIM", digits=3),
    "delta_psnr_official": Measure("ΔPSNR (dB), paper's code", "PSNR by the paper's code"),
    "delta_ssim_official": Measure("ΔSSIM, paper's code", "SSIM by the paper's code", digits=3),
    "delta_mAP": Measure("ΔmAP (points)", "mAP in points", 100.0, 1),
    "relative_mAP": Measure("ΔmAP / rainy mAP", "mAP relative to rainy", 100.0, 1, " %"),
    "recovered": Measure("recovered", "recovered share", 100.0, 0, " %", sign=""),
    "delta_f1": Measure("ΔF1", "F1 of the image"),
}
"""All gains: of restoration, of detection, and of detection in single images."""


def format_gain(score: Score, gain: str, *, interval: bool = False) -> str:
    """Format a gain with its sign, and optionally with its interval.

    >>> format_gain(Score(0.187, 0.1, 0.25), "delta_mAP", interval=True)
    '+18.7 [10.0, 25.0]'
    """
    if score.value is None:
        return UNDEFINED
    shape = MEASURES[gain]
    shown = score if interval else Score(score.value)
    return (
        format_with_interval(shown, shape.digits, factor=shape.factor, sign=shape.sign) + shape.unit
    )


def format_coefficient(correlation: Correlation | None, kind: Kind) -> str:
    """Format a coefficient with its interval: `0.62 [0.20, 0.81]`."""
    return (
        UNDEFINED
        if correlation is None
        else format_with_interval(correlation.coefficients[kind], 2)
    )


def find_correlation(correlations: Iterable[Correlation], **wanted: str) -> Correlation | None:
    """Return the first correlation with these values of its fields; None without a match."""
    for correlation in correlations:
        if all(getattr(correlation, name) == value for name, value in wanted.items()):
            return correlation
    return None


def main_correlation(
    correlations: Sequence[Correlation], restoration: str = "delta_psnr", condition: str = ALL
) -> Correlation | None:
    """Return the main correlation with the mAP gain, which a report shows first.

    It pools all sets if there are several, and leaves the controls out.
    """
    pooled = any(correlation.scope == "pooled" for correlation in correlations)
    return find_correlation(
        correlations,
        scope="pooled" if pooled else "set",
        condition=condition,
        points=POPULATIONS[0],
        restoration=restoration,
        detection="delta_mAP",
    )


def is_enough(correlation: Correlation | None) -> bool:
    """Tell whether a correlation is over enough derainers to be claimed."""
    return (
        correlation is not None
        and correlation.derainers >= FEWEST_DERAINERS
        and correlation.coefficients["spearman"].value is not None
    )


def headline(correlations: Sequence[Correlation]) -> str:
    """Return the main result as a sentence: does a PSNR gain come with an mAP gain?"""
    main = main_correlation(correlations)
    if main is None or not main.derainers:
        return "No derainer was measured"
    if main.derainers < FEWEST_DERAINERS:
        count = "1 derainer is" if main.derainers == 1 else f"{main.derainers} derainers are"
        return f"{count} too few for a correlation: it takes {FEWEST_DERAINERS}"
    spearman = main.coefficients["spearman"]
    if spearman.value is None:
        return f"No correlation of restoration and detection: {main.note}"
    size = f"Spearman {format_coefficient(main, 'spearman')} over {main.count} points"
    if main.p_value is not None:
        size += f", p = {main.p_value:.2g} by permutation of the {main.derainers} derainers"
    if spearman.low is None or spearman.high is None:
        return f"Gain of PSNR and gain of mAP: {size}, without an interval"
    if spearman.low <= 0 <= spearman.high or (main.p_value or 0.0) > _LIKELY_CHANCE:
        return f"No measurable relation of the gain of PSNR with the gain of mAP: {size}"
    more = "larger" if spearman.low > 0 else "smaller"
    return f"A larger gain of PSNR goes with a {more} gain of mAP: {size}"


def caution(correlations: Sequence[Correlation]) -> str:
    """Warn that a correlation over few derainers means little; empty for more, or for none."""
    main = main_correlation(correlations)
    if main is None or not is_enough(main) or main.derainers >= _FEW_DERAINERS:
        return ""
    return (
        f"{main.derainers} derainers are few. The interval says how much the number depends on the "
        "images, not on which derainers were chosen: another one may turn it."
    )


def agreement_sentence(rows: Sequence[GainRow]) -> str:
    """Say on how many sets the best derainer by PSNR is best by mAP; empty if none has two."""
    sets = dict.fromkeys(row.set_name for row in rows)
    answers = [_best_agree([row for row in rows if row.set_name == name]) for name in sets]
    agreeing = [answer for answer in answers if answer is not None]
    if not agreeing:
        return ""
    if len(agreeing) == 1:
        verb = "is" if agreeing[0] else "is not"
        return f"The derainer that gains most PSNR {verb} the one that gains most mAP."
    return (
        f"On {sum(agreeing)} of {len(agreeing)} sets, the derainer that gains most PSNR is the one "
        "that gains most mAP."
    )


def _best_agree(rows: Iterable[GainRow]) -> bool | None:
    """Tell whether the best derainer by PSNR is best by mAP; None if there are fewer than two."""
    gains = {
        row.derainer: (psnr, mean_ap)
        for row in rows
        if row.condition == ALL
        and not row.control
        and (psnr := row.gains["delta_psnr"].value) is not None
        and (mean_ap := row.gains["delta_mAP"].value) is not None
    }
    if len(gains) < 2:
        return None
    best_psnr = max(gains, key=lambda derainer: gains[derainer][0])
    best_mean_ap = max(gains, key=lambda derainer: gains[derainer][1])
    return best_psnr == best_mean_ap


def gain_table(rows: Sequence[GainRow]) -> str:
    """Format the gains of all sets, conditions and derainers as a text table for a terminal."""
    gains = ("delta_psnr", "delta_ssim", "delta_mAP", "relative_mAP", "recovered")
    head = ["set", "condition", "derainer", *(MEASURES[gain].title for gain in gains)]
    lines = [
        [
            *(shorten(t, _LONGEST_NAME) for t in (row.set_name, row.condition, row.derainer)),
            *(format_gain(row.gains[g], g, interval=g == "delta_mAP") for g in gains),
        ]
        for row in rows
    ]
    return align_table(head, lines, texts=3)


def summary_lines(correlations: Sequence[Correlation]) -> list[str]:
    """Return lines with the main correlations: PSNR and SSIM gains with the mAP gain."""
    lines = [headline(correlations)]
    for restoration in ("delta_psnr", "delta_ssim"):
        main = main_correlation(correlations, restoration)
        if main is not None and is_enough(main):
            values = (f"{kind.capitalize()} {format_coefficient(main, kind)}" for kind in KINDS)
            lines.append(f"{MEASURES[restoration].name} and mAP: {', '.join(values)}")
    few = caution(correlations)
    return [*lines, few] if few else lines
