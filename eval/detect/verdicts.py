"""What the numbers say, in plain words, and never without their uncertainty.

A change whose 95 % interval holds zero is no measurable change, whatever its sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from eval.report.tables import (
    Row,
    conditions,
    find_row,
    format_interval,
    format_percent,
    format_points,
    format_share,
    is_control,
    number,
)

__all__ = [
    "Effect",
    "Verdict",
    "control_warning",
    "effect_of",
    "headline",
    "judge",
    "rain_sentence",
]

Effect: TypeAlias = Literal["helps", "harms", "unclear", "undefined"]
"""What a difference says; `unclear` when its interval holds zero or is missing."""


@dataclass(frozen=True)
class Verdict:
    """What a derainer does to the detector's mAP in one condition, in words.

    Attributes:
        derainer: Its name, the subject of both sentences.
        condition: Where.
        control: True for the identity and the median filter.
        effect: On rainy images.
        sentence: What follows the name, ending with a full stop.
        clean_effect: On clean images; `undefined` when these were not measured.
        clean_sentence: A sentence of its own, or empty.
        gain: Change of mAP as a fraction, or None.
    """

    derainer: str
    condition: str
    control: bool
    effect: Effect
    sentence: str
    clean_effect: Effect
    clean_sentence: str
    gain: float | None

    @property
    def text(self) -> str:
        """Both sentences, with the name."""
        return f"{self.derainer} {self.sentence} {self.clean_sentence}".rstrip()


def effect_of(row: Row | None) -> Effect:
    """Judge a row's difference by its interval; see `Effect`."""
    if row is None or number(row.get("delta_mAP")) is None:
        return "undefined"
    low, high = number(row.get("ci_low")), number(row.get("ci_high"))
    if low is None or high is None or low <= 0 <= high:
        return "unclear"
    return "helps" if low > 0 else "harms"


def _size(row: Row) -> str:
    """Say how large a difference is, as a loss when it is one: `3.4 points [1.9, 5.0]`."""
    change, low, high = (number(row.get(key)) for key in ("delta_mAP", "ci_low", "ci_high"))
    if change is not None and change < 0:
        low, high = (None if end is None else -end for end in (high, low))
    amount = format_points(abs(change or 0.0)).lstrip("+")
    return f"{amount} points {format_interval(low, high)}".rstrip()


def _signed(row: Row) -> str:
    interval = format_interval(row.get("ci_low"), row.get("ci_high"))
    return f"{format_points(row.get('delta_mAP'))} points {interval or 'without an interval'}"


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Say what each derainer does in each condition.

    Args:
        rows: Rows of metrics.json.

    Returns:
        One verdict per derained row: by condition, in each the best derainer first, controls last.
    """
    order = {name: index for index, name in enumerate(conditions(rows))}
    verdicts = [_judge_row(row, rows) for row in rows if row.get("input") == "derained"]
    return sorted(
        verdicts,
        key=lambda one: (
            order[one.condition],
            one.control,
            float("inf") if one.gain is None else -one.gain,
        ),
    )


def _judge_row(row: Row, rows: Sequence[Row]) -> Verdict:
    name, condition = str(row.get("derainer") or "the derainer"), str(row.get("condition"))
    harm = find_row(rows, condition, "derained_clean", name)
    return Verdict(
        name,
        condition,
        is_control(row),
        effect_of(row),
        _rain_effect(row, find_row(rows, condition, "rainy")),
        effect_of(harm),
        "" if harm is None else _clean_effect(harm),
        number(row.get("delta_mAP")),
    )


def _rain_effect(row: Row, rainy: Row | None) -> str:
    """Say what a derainer does to rainy images, without its name."""
    effect = effect_of(row)
    if effect == "undefined":
        return "could not be judged: mAP is undefined here, for lack of boxes."
    if effect == "unclear":
        if number(row.get("ci_low")) is None:
            return f"changes mAP by {_signed(row)}, so it may be chance."
        return f"makes no measurable change to mAP on the rainy images ({_signed(row)})."
    levels = ""
    if rainy is not None:
        levels = f" ({format_percent(rainy.get('mAP'))} → {format_percent(row.get('mAP'))})"
    verb = "raises" if effect == "helps" else "lowers"
    sentence = f"{verb} mAP by {_size(row)} over the rainy images{levels}"
    share = number(row.get("recovered"))
    if effect == "helps" and share is not None:
        return f"{sentence} and recovers {format_share(share)} of what the rain took."
    return f"{sentence}."


def _clean_effect(row: Row) -> str:
    """Say what a derainer does where there is no rain, as a sentence of its own."""
    effect = effect_of(row)
    if effect == "undefined":
        return ""
    if effect == "unclear":
        if number(row.get("ci_low")) is None:
            return f"On clean images it changes mAP by {_signed(row)}."
        return f"On clean images it makes no measurable change ({_signed(row)})."
    return f"On clean images it {'adds' if effect == 'helps' else 'costs'} {_size(row)}."


def rain_sentence(rows: Sequence[Row], condition: str) -> str:
    """Say what the rain takes from the detector in a condition; empty without clean images."""
    clean, rainy = find_row(rows, condition, "clean"), find_row(rows, condition, "rainy")
    effect = effect_of(clean)
    if clean is None or rainy is None or effect == "undefined":
        return ""
    levels = f"{format_percent(clean.get('mAP'))} on clean images"
    levels += f", {format_percent(rainy.get('mAP'))} on rainy ones"
    if effect == "helps":
        return f"The rain takes {_size(clean)} of mAP from the detector: {levels}."
    if effect == "harms":
        return f"The detector does better in the rain, by {_size(clean)}: {levels}."
    if number(clean.get("ci_low")) is None:
        return f"Between clean and rainy images mAP differs by {_signed(clean)}: {levels}."
    return (
        f"The rain takes no measurable mAP from the detector: {levels}. "
        "There is nothing measurable for a derainer to recover."
    )


def headline(rows: Sequence[Row]) -> str:
    """Say the main result in one line, on all images (or on the first condition)."""
    verdicts = judge(rows)
    if not verdicts:
        return "No derainer was measured"
    best = verdicts[0]
    row = find_row(rows, best.condition, "derained", best.derainer) or {}
    among = sum(not one.control for one in verdicts if one.condition == best.condition)
    text = {
        "helps": f"{best.derainer} raises mAP by {_size(row)}",
        "harms": f"{best.derainer} lowers mAP by {_size(row)}",
        "unclear": f"No measurable change of mAP with {best.derainer}",
        "undefined": "mAP is undefined: no boxes to find",
    }[best.effect]
    if among > 1 and best.effect != "undefined":
        text += f", the best of {among} measured"
    harm = find_row(rows, best.condition, "derained_clean", best.derainer)
    if harm is not None and best.clean_effect == "harms":
        text += ", and" if best.effect == "harms" else ", but"
        text += f" costs {_size(harm)} where there is no rain"
    return text


def control_warning(verdicts: Sequence[Verdict]) -> str:
    """Say when a control does as well as the best derainer of the first condition."""
    first = [one for one in verdicts if one.condition == verdicts[0].condition]
    real = [one.gain for one in first if not one.control and one.gain is not None]
    for one in first:
        if one.control and one.gain is not None and real and one.gain >= max(real):
            return (
                f"The control “{one.derainer}” does at least as well "
                f"({format_points(one.gain)} points): "
                "on these images a derainer brings nothing that the control does not."
            )
    return ""
