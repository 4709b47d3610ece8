"""Defects of data sets, collected by kind and summarised in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Defects"]

_EXAMPLES = 3


@dataclass
class Defects:
    """What is wrong with a data set, by kind; nothing is left out in silence.

    `errors` are broken things that were skipped; `notes` are things worth knowing.
    """

    errors: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def error(self, kind: str, subject: str) -> None:
        """Record a broken thing, such as kind "unreadable image", subject its file."""
        self.errors.setdefault(kind, []).append(subject)

    def note(self, kind: str, subject: str) -> None:
        """Record a thing worth knowing."""
        self.notes.setdefault(kind, []).append(subject)

    def extend(self, other: Defects) -> None:
        """Add everything that another collection holds."""
        for kinds, others in ((self.errors, other.errors), (self.notes, other.notes)):
            for kind, subjects in others.items():
                kinds.setdefault(kind, []).extend(subjects)

    def lines(self) -> list[str]:
        """Return one line a kind: how many, of what, and the first examples."""
        return [*_lines(self.errors), *_lines(self.notes)]

    def error_lines(self) -> list[str]:
        """Return the lines of broken things only."""
        return _lines(self.errors)


def _lines(kinds: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for kind, subjects in kinds.items():
        examples = ", ".join(subjects[:_EXAMPLES])
        more = ", ..." if len(subjects) > _EXAMPLES else ""
        lines.append(f"{kind}: {len(subjects)} ({examples}{more})")
    return lines
