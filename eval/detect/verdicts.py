"""What the numbers say, in sentences that always state their uncertainty.

A change whose 95 % interval holds zero is no measurable change, whatever its sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.detect.model import ClassRow, TableRow, conditions, find_row
from eval.report.parts import Effect, effect_of
from eval.report.tables import (
    format_interval,
    format_percent,
    format_points,
    format_share,
    number,
)
from eval.scores.score import Score
from eval.sets import ALL

__all__ = [
    "Verdict",
    "control_warning",
    "decisive_classes",
    "headline",
    "judge",
    "rain_sentence",
    "signed_text",
    "size_text",
]

_SMALLEST_SHOWN = 0.0005  # 0.05 points: the smallest change that tables show as one


@dataclass(frozen=True)
class Verdict:
    """What a derainer does to the detector's mAP in one condition, in words.

    Attributes:
        derainer: Its name, the subject of both sentences.
        condition: On which images.
        control: True for the identity and the median filter.
        effect: On rainy images.
        sentence: What follows the name, ending with a full stop.
        clean_effect: On clean images; `undefined` when these were not measured.
        clean_sentence: A complete sentence, or empty.
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


def size_text(change: Score) -> str:
    """Say how large a change is, as a loss when it is one: `3.4 points [1.9, 5.0]`."""
    value, low, high = (number(end) for end in (change.value, change.low, change.high))
    if value is not None and value < 0:
        low, high = (None if end is None else -end for end in (high, low))
    amount = format_points(abs(value or 0.0)).lstrip("+")
    return f"{amount} points {format_interval(low, high)}".rstrip()


def signed_text(change: Score) -> str:
    """Say a change with its sign: `-0.3 points [-1.2, 0.4]`."""
    interval = format_interval(change.low, change.high)
    return f"{format_points(change.value)} points {interval or 'without an interval'}"


def judge(rows: Sequence[TableRow]) -> list[Verdict]:
    """Say what each derainer does in each condition.

    Args:
        rows: Rows of the table of scores.

    Returns:
        One verdict per derained row: by condition, in each the best derainer first, controls last.
    """
    order = {name: index for index, name in enumerate(conditions(rows))}
    verdicts = [_judge_row(row, rows) for row in rows if row.input == "derained"]
    return sorted(
        verdicts,
        key=lambda verdict: (
            order[verdict.condition],
            verdict.control,
            float("inf") if verdict.gain is None else -verdict.gain,
        ),
    )


def _judge_row(row: TableRow, rows: Sequence[TableRow]) -> Verdict:
    harm = find_row(rows, row.condition, "derained_clean", row.derainer)
    return Verdict(
        row.derainer,
        row.condition,
        row.is_control,
        effect_of(row.change),
        _rain_effect(row, find_row(rows, row.condition, "rainy")),
        "undefined" if harm is None else effect_of(harm.change),
        "" if harm is None else _clean_effect(harm),
        number(row.change.value),
    )


def _rain_effect(row: TableRow, rainy: TableRow | None) -> str:
    """Say what a derainer does to rainy images, without its name."""
    effect = effect_of(row.change)
    if effect == "undefined":
        return "could not be judged: mAP is undefined here, for lack of boxes."
    if effect == "unclear":
        if number(row.change.low) is None:
            return f"changes mAP by {signed_text(row.change)}, so it may be chance."
        return f"makes no measurable change to mAP on the rainy images ({signed_text(row.change)})."
    levels = ""
    if rainy is not None:
        levels = f" ({format_percent(rainy.mean_ap)} → {format_percent(row.mean_ap)})"
    verb = "raises" if effect == "helps" else "lowers"
    sentence = f"{verb} mAP by {size_text(row.change)} over the rainy images{levels}"
    share = number(row.recovered)
    if effect == "helps" and share is not None:
        return f"{sentence} and recovers {format_share(share)} of what the rain took."
    return f"{sentence}."


def _clean_effect(row: TableRow) -> str:
    """Say what a derainer does where there is no rain, as a complete sentence."""
    effect = effect_of(row.change)
    if effect == "undefined":
        return ""
    if effect == "unclear":
        if number(row.change.low) is None:
            return f"On clean images it changes mAP by {signed_text(row.change)}."
        return f"On clean images it makes no measurable change ({signed_text(row.change)})."
    return f"On clean images it {'adds' if effect == 'helps' else 'costs'} {size_text(row.change)}."


def rain_sentence(rows: Sequence[TableRow], condition: str) -> str:
    """Say what the rain takes from the detector in a condition; empty without clean images."""
    clean, rainy = find_row(rows, condition, "clean"), find_row(rows, condition, "rainy")
    if clean is None or rainy is None:
        return ""
    effect = effect_of(clean.change)
    if effect == "undefined":
        return ""
    levels = f"{format_percent(clean.mean_ap)} on clean images"
    levels += f", {format_percent(rainy.mean_ap)} on rainy ones"
    if effect == "helps":
        return f"The rain takes {size_text(clean.change)} of mAP from the detector: {levels}."
    if effect == "harms":
        return f"The detector does better in the rain, by {size_text(clean.change)}: {levels}."
    if number(clean.change.low) is None:
        return (
            f"Between clean and rainy images mAP differs by {signed_text(clean.change)}: {levels}."
        )
    return (
        f"The rain takes no measurable mAP from the detector: {levels}. "
        "There is nothing measurable for a derainer to recover."
    )


def headline(rows: Sequence[TableRow]) -> str:
    """Say the main result in one line, on all images (or on the first condition)."""
    verdicts = judge(rows)
    if not verdicts:
        return "No derainer was measured"
    best = verdicts[0]
    row = find_row(rows, best.condition, "derained", best.derainer)
    assert row is not None
    among = sum(not other.control for other in verdicts if other.condition == best.condition)
    text = {
        "helps": f"{best.derainer} raises mAP by {size_text(row.change)}",
        "harms": f"{best.derainer} lowers mAP by {size_text(row.change)}",
        "unclear": f"No measurable change of mAP with {best.derainer}",
        "undefined": "mAP is undefined: no boxes to find",
    }[best.effect]
    if among > 1 and best.effect != "undefined":
        text += f", the best of {among} measured"
    harm = find_row(rows, best.condition, "derained_clean", best.derainer)
    if harm is not None and best.clean_effect == "harms":
        text += ", and" if best.effect == "harms" else ", but"
        text += f" costs {size_text(harm.change)} where there is no rain"
    return text


def control_warning(verdicts: Sequence[Verdict]) -> str:
    """Say when a control does as well as the best derainer of the first condition."""
    first = [verdict for verdict in verdicts if verdict.condition == verdicts[0].condition]
    gains = [verdict.gain for verdict in first if not verdict.control and verdict.gain is not None]
    for verdict in first:
        if verdict.control and verdict.gain is not None and gains and verdict.gain >= max(gains):
            return (
                f"The control “{verdict.derainer}” does at least as well "
                f"({format_points(verdict.gain)} points): "
                "on these images a derainer brings nothing that the control does not."
            )
    return ""


def decisive_classes(rows: Sequence[TableRow], per_class: Sequence[ClassRow]) -> list[str]:
    """Say where one class with few boxes makes most of a change of mAP, or turns its sign.

    Args:
        rows: Rows of the table of scores.
        per_class: Rows of the table of classes, of these rows and others.

    Returns:
        A sentence for each derained row where that is so.
    """
    sentences = []
    for row in rows:
        change = number(row.change.value)
        classes = [
            other
            for other in per_class
            if (other.condition, other.input, other.derainer)
            == (row.condition, row.input, row.derainer)
            and number(other.change.value) is not None
        ]
        rare = [other for other in classes if other.is_rare]
        if row.is_control or not row.derainer or change is None or not rare or len(classes) < 2:
            continue
        decisive = max(rare, key=lambda other: abs(number(other.change.value) or 0.0))
        share = number(decisive.change.value) or 0.0
        others = (change * len(classes) - share) / (len(classes) - 1)
        if abs(change) >= _SMALLEST_SHOWN and _is_decisive(change, others):
            sentences.append(_decisive_sentence(row, decisive, len(classes), others))
    return sentences


def _is_decisive(change: float, others: float) -> bool:
    """Whether the change without a class has the other sign, or less than half the size."""
    return change * others < 0 or abs(others) < abs(change) / 2


def _decisive_sentence(row: TableRow, decisive: ClassRow, count: int, others: float) -> str:
    boxes = "1 box" if decisive.boxes == 1 else f"{decisive.boxes} boxes"
    where = "" if row.condition == ALL else f" ({row.condition})"
    text = (
        f"{row.label}{where}: the change of mAP, {format_points(row.change.value)} points over "
        f"{count} classes, depends on one class with {boxes}, {decisive.class_name} "
        f"({format_points(decisive.change.value)}); without it {format_points(others)}"
    )
    if number(row.change_by_boxes.value) is not None:
        text += f", weighted by boxes {signed_text(row.change_by_boxes)}"
    return f"{text}."
