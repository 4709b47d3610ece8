"""A bound on harm: the share of images in which deraining loses objects."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from eval.detect.model import Cell, ImageChangeRow, Row, find_row
from eval.report.tables import format_percent
from eval.scores.binomial import upper_bound

__all__ = ["HarmRow", "harm_rows", "harm_sentences"]


@dataclass(frozen=True, kw_only=True)
class HarmRow(Row):
    """A row of harm.csv, at the confidence of the counts.

    Attributes:
        images: Number of images, at least one.
        losing: Those with an object that is found before and not after: without deraining and with
            it.
        losing_more: Those that lose more objects than deraining finds in them.
    """

    images: int
    losing: int
    losing_more: int

    @property
    def bound(self) -> float:
        """The share of images that lose an object is no larger, with 95 % confidence."""
        return upper_bound(self.losing, self.images)

    def flat(self) -> dict[str, Cell]:
        """Return the row as in harm.csv and metrics.json."""
        return {
            "condition": self.condition,
            "input": self.input,
            "derainer": self.derainer,
            "images": self.images,
            "losing": self.losing,
            "losing_bound": self.bound,
            "losing_more": self.losing_more,
            "losing_more_bound": upper_bound(self.losing_more, self.images),
        }


def harm_rows(
    changes: Sequence[ImageChangeRow], conditions: Mapping[str, Collection[str]]
) -> list[HarmRow]:
    """Count the images that lose objects, of each derained row in each condition.

    Args:
        changes: What changed in each image; rows of other inputs are left out.
        conditions: Name of each condition and its images.
    """
    by_row: dict[tuple[str, str], list[ImageChangeRow]] = {}
    for change in changes:
        if change.input in ("derained", "derained_clean"):
            by_row.setdefault((change.input, change.derainer), []).append(change)
    rows = []
    for condition, images in conditions.items():
        for members in by_row.values():
            inside = [change for change in members if change.image in images]
            if inside:
                rows.append(
                    HarmRow(
                        condition=condition,
                        input=inside[0].input,
                        derainer=inside[0].derainer,
                        images=len(inside),
                        losing=sum(change.lost > 0 for change in inside),
                        losing_more=sum(change.gain < 0 for change in inside),
                    )
                )
    return rows


def harm_sentences(rows: Sequence[HarmRow], condition: str) -> Iterator[str]:
    """Yield a sentence for each derainer but the controls, on rainy and on clean images."""
    for row in rows:
        if row.condition != condition or row.input != "derained" or row.is_control:
            continue
        text = (
            f"{row.derainer}: at most {format_percent(row.bound)} % of images lose an object, with "
            f"95 % confidence: seen in {row.losing} of {row.images}"
        )
        clean = find_row(rows, condition, "derained_clean", row.derainer)
        if clean is not None:
            text += (
                f"; of clean images at most {format_percent(clean.bound)} %: seen in "
                f"{clean.losing} of {clean.images}"
            )
        yield text
