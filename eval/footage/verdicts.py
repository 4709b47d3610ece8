"""Plain words about footage without labels, and what they cannot know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.footage.records import RAINY
from eval.footage.study import Row, Study
from eval.footage.tracks import STEADY_S
from eval.report.parts import Effect, effect_of
from eval.report.tables import format_fixed, format_with_interval, number

__all__ = ["UNKNOWN", "Verdict", "headline", "judge"]

UNKNOWN = (
    "Whether a detection that deraining adds is an object, and whether one that it takes away was: "
    "nobody has labelled these frames. More detections may be more false ones. What lasts for "
    f"{STEADY_S:g} s is more likely real than what flickers, but a reflection lasts too.",
    "What the detector misses in both versions, and which of two boxes fits better: boxes of a "
    "class count as the same from IoU 0.5 on.",
    "Other footage. The intervals are about these frames; other rain, roads and nights differ.",
)
"""What no number here can tell."""


@dataclass(frozen=True)
class Verdict:
    """What can be said about one derainer.

    Attributes:
        derainer: Its name.
        effect: Whether things are seen more steadily; `unclear` also where signs disagree.
        title: A few words, to follow its name.
        sentence: Sentences that explain them.
    """

    derainer: str
    effect: Effect
    title: str
    sentence: str


def judge(study: Study) -> list[Verdict]:
    """Judge every derainer, the steadiest first."""
    verdicts = [_judge(study, study.row(name)) for name in study.derainers]
    gains = {name: study.row(name).changes["steady_per_frame"].value for name in study.derainers}
    return sorted(verdicts, key=lambda verdict: -(number(gains[verdict.derainer]) or 0.0))


def _judge(study: Study, row: Row) -> Verdict:
    before = study.row(RAINY)
    if not (row.detections or before.detections):
        text = (
            f"At confidence {study.rules.conf:g} the detector finds nothing in any frame, rainy or "
            "derained: lower --conf, or take a detector that knows what the footage shows."
        )
        return Verdict(row.derainer, "undefined", "nothing is found, so nothing can be said", text)
    if not study.tracked:
        return Verdict(row.derainer, "undefined", _counted(row), _without_tracks(row))
    steady, flicker = row.changes["steady_per_frame"], row.changes["flicker"]
    effects = effect_of(steady), effect_of(flicker, lower_is_better=True)
    effect, title = _title(*effects)
    if steady.value is not None and not steady.has_interval:
        title = "too short for a verdict"
    sentences = [
        f"Steady detections a frame: {_before_after(before, row, 'steady_per_frame')}.",
        f"Flicker per 100 detections: {_before_after(before, row, 'flicker')}.",
        f"In all it gains {row.gained} detections and loses {row.lost}, and {row.kept} stay.",
        _MEANINGS[title],
    ]
    return Verdict(row.derainer, effect, title, " ".join(sentences))


_MEANINGS = {
    "things are seen more steadily": "What it adds lasts, as real objects do: it probably helps.",
    "things are seen less steadily": "What lasted before is seen less: it probably harms.",
    "less flicker, as many steady detections": (
        "It calms the detections without finding more: useful for tracking, perhaps for nothing "
        "else."
    ),
    "more flicker, no more steady detections": (
        "What it adds does not last, as false detections do not: it probably harms."
    ),
    "more steady detections, but more flicker too": (
        "It adds things that last and things that do not: only labels can weigh them up."
    ),
    "fewer steady detections, but less flicker too": (
        "It takes away things that last and things that do not: only labels can weigh them up."
    ),
    "no measurable change": "These frames do not show that deraining changes anything.",
    "too short for a verdict": (
        "There are too few seconds for an interval, so any difference may be chance."
    ),
}
"""What each title means; the titles of derainers whose tracks are known."""


def _title(steady: Effect, flicker: Effect) -> tuple[Effect, str]:
    """Return the judgement, and its words, from what steadiness and flicker say."""
    if steady == "helps":
        if flicker == "harms":
            return "unclear", "more steady detections, but more flicker too"
        return "helps", "things are seen more steadily"
    if steady == "harms":
        if flicker == "helps":
            return "unclear", "fewer steady detections, but less flicker too"
        return "harms", "things are seen less steadily"
    if flicker == "helps":
        return "unclear", "less flicker, as many steady detections"
    if flicker == "harms":
        return "harms", "more flicker, no more steady detections"
    return "unclear", "no measurable change"


def _counted(row: Row) -> str:
    difference = row.gained - row.lost
    if not difference:
        return "as many detections as before"
    things = "detection" if abs(difference) == 1 else "detections"
    return f"{abs(difference)} {things} {'more' if difference > 0 else 'fewer'}"


def _without_tracks(row: Row) -> str:
    return (
        f"It gains {row.gained} detections and loses {row.lost}, and {row.kept} stay. Nothing "
        "could be followed from frame to frame, so nothing tells real ones from false ones: give "
        "consecutive frames, or labels."
    )


def _before_after(before: Row, after: Row, key: str) -> str:
    """Say how a measure changes.

    Both levels, then the change with its interval.
    """
    levels = [number(row.values[key]) for row in (before, after)]
    if levels[0] is None or levels[1] is None:
        return "undefined"
    change = format_with_interval(after.changes[key], 2, sign="+")
    return f"{format_fixed(levels[0], 2)} → {format_fixed(levels[1], 2)} ({change})"


def headline(verdicts: Sequence[Verdict]) -> str:
    """Say the main result in one line."""
    best = verdicts[0]
    among = f", the best of {len(verdicts)}" if len(verdicts) > 1 else ""
    return f"With {best.derainer}{among}: {best.title}"
