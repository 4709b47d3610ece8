"""What the numbers say, in sentences that always state their uncertainty.

A change whose 95 % interval includes zero is no measurable change, whatever its sign. With too few
images or boxes nothing is claimed at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from eval.detect.model import ClassRow, TableRow, conditions, find_row
from eval.report.parts import Effect
from eval.report.tables import (
    format_interval,
    format_percent,
    format_points,
    format_share,
    number,
)
from eval.scores.means import FEWEST_BOXES, FEWEST_IMAGES
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
        rival: Name of the control that it has to beat; empty without one.
        rival_change: Its mAP minus that of this control.
        rival_effect: What that says.
        few: Whether there are too few images or boxes to claim anything.
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
    rival: str = ""
    rival_change: Score = field(default_factory=Score)
    rival_effect: Effect = "undefined"
    few: bool = False

    @property
    def text(self) -> str:
        """All sentences, with the name."""
        parts = (self.derainer, self.sentence, self.rival_sentence, self.clean_sentence)
        return " ".join(part for part in parts if part)

    @property
    def rival_sentence(self) -> str:
        """A complete sentence on the control, or empty."""
        change = self.rival_change
        if self.rival_effect == "undefined":
            return ""
        if self.rival_effect == "unclear":
            unclear = "" if self.few else ", no clear difference"
            return f"Against the control {self.rival}: {signed_text(change)}{unclear}."
        side = "above" if self.rival_effect == "helps" else "below"
        return f"It is {size_text(change)} {side} the control {self.rival}."


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
        row.effect,
        _rain_effect(row, find_row(rows, row.condition, "rainy")),
        "undefined" if harm is None else harm.effect,
        "" if harm is None else _clean_effect(harm),
        number(row.change.value),
        row.control,
        row.control_change,
        row.judged(row.control_change),
        row.is_small,
    )


def _rain_effect(row: TableRow, rainy: TableRow | None) -> str:
    """Say what a derainer does to rainy images, without its name."""
    effect = row.effect
    if effect == "undefined":
        return "could not be judged: mAP is undefined here, for lack of boxes."
    if effect == "unclear":
        if row.is_small:
            return f"changes mAP by {signed_text(row.change)} on {_size(row)}: too few to tell."
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


def _size(row: TableRow) -> str:
    """Say on how much a row was measured: `8 images with 31 boxes`."""
    images = "1 image" if row.images == 1 else f"{row.images} images"
    return f"{images} with {'1 box' if row.boxes == 1 else f'{row.boxes} boxes'}"


def _clean_effect(row: TableRow) -> str:
    """Say what a derainer does where there is no rain, as a complete sentence."""
    effect = row.effect
    if effect == "undefined":
        return ""
    if effect == "unclear":
        if row.is_small or number(row.change.low) is None:
            return f"On clean images it changes mAP by {signed_text(row.change)}."
        return f"On clean images it makes no measurable change ({signed_text(row.change)})."
    return f"On clean images it {'adds' if effect == 'helps' else 'costs'} {size_text(row.change)}."


def rain_sentence(rows: Sequence[TableRow], condition: str) -> str:
    """Say what the rain takes from the detector in a condition; empty without clean images."""
    clean, rainy = find_row(rows, condition, "clean"), find_row(rows, condition, "rainy")
    if clean is None or rainy is None:
        return ""
    effect = clean.effect
    if effect == "undefined":
        return ""
    levels = f"{format_percent(clean.mean_ap)} on clean images"
    levels += f", {format_percent(rainy.mean_ap)} on rainy ones"
    if effect == "helps":
        return f"The rain takes {size_text(clean.change)} of mAP from the detector: {levels}."
    if effect == "harms":
        return f"The detector does better in the rain, by {size_text(clean.change)}: {levels}."
    if clean.is_small or number(clean.change.low) is None:
        return (
            f"Between clean and rainy images mAP differs by {signed_text(clean.change)}: {levels}."
        )
    return (
        f"The rain takes no measurable mAP from the detector: {levels}. "
        "There is nothing measurable for a derainer to recover."
    )


def headline(rows: Sequence[TableRow], drawback: str = "") -> str:
    """Say the main result in one line, on all images (or on the first condition).

    Args:
        rows: Rows of the table of scores.
        drawback: What goes the other way at the confidence of the counts, or empty.
    """
    verdicts = judge(rows)
    if not verdicts:
        return "No derainer was measured"
    best = verdicts[0]
    row = find_row(rows, best.condition, "derained", best.derainer)
    assert row is not None
    if best.effect == "undefined":
        return "mAP is undefined: no boxes to find"
    if row.is_small:
        what = "images" if row.images < FEWEST_IMAGES else "boxes"
        return (
            f"Too few {what} to tell: {_size(row)}, where at least {FEWEST_IMAGES} images and "
            f"{FEWEST_BOXES} boxes are needed"
        )
    text = {
        "helps": f"{best.derainer} raises mAP by {size_text(row.change)}",
        "harms": f"{best.derainer} lowers mAP by {size_text(row.change)}",
        "unclear": f"No measurable change of mAP with {best.derainer}",
    }[best.effect] + _rank(row, verdicts)
    harm = find_row(rows, best.condition, "derained_clean", best.derainer)
    drawbacks = [drawback] if drawback and best.effect == "helps" else []
    if harm is not None and best.clean_effect == "harms":
        drawbacks.append(f"costs {size_text(harm.change)} where there is no rain")
    if drawbacks:
        text += f", {'and' if best.effect == 'harms' else 'but'} {' and '.join(drawbacks)}"
    return text


def _rank(row: TableRow, verdicts: Sequence[Verdict]) -> str:
    """Say that a row is the best of several derainers, where its lead is beyond chance."""
    among = sum(not other.control for other in verdicts if other.condition == row.condition)
    if among < 2 or not row.rival:
        return ""
    if row.judged(row.rival_change) == "helps":
        return f", the best of {among} measured"
    return f", the highest of {among} measured but not clearly above {row.rival}"


def control_warning(verdicts: Sequence[Verdict]) -> str:
    """Say when the best derainer of the first condition is not beyond chance above a control."""
    best = verdicts[0]
    if best.control or best.few or best.rival_effect in ("helps", "undefined"):
        return ""
    change = signed_text(best.rival_change)
    if best.rival_effect == "harms":
        return (
            f"The control “{best.rival}” does better than {best.derainer} ({change}): on these "
            "images a derainer brings nothing that the control does not."
        )
    warning = f"{best.derainer} is not clearly better than the control “{best.rival}” ({change})"
    if best.effect == "helps":
        warning += ": what it gains on these images may be what any smoothing gains"
    return f"{warning}."


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
