"""Defects of data sets, collected by kind and summarised in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Defects"]

_EXAMPLES = 3


@dataclass
class Defects:
    """What is wrong with a data set, by kind.

    `errors` are broken items that were skipped; `notes` are items worth knowing about.
    """

    errors: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def error(self, kind: str, subject: str) -> None:
        """Record a broken item, for instance kind "unreadable image" with its file as subject."""
        self.errors.setdefault(kind, []).append(subject)

    def note(self, kind: str, subject: str) -> None:
        """Record an item worth knowing about."""
        self.notes.setdefault(kind, []).append(subject)

    def extend(self, other: Defects) -> None:
        """Add everything in another collection."""
        for kinds, others in ((self.errors, other.errors), (self.notes, other.notes)):
            for kind, subjects in others.items():
                kinds.setdefault(kind, []).extend(subjects)

    def lines(self) -> list[str]:
        """Return a line for each kind: its count, and the first examples."""
        return [*_lines(self.errors), *_lines(self.notes)]

    def error_lines(self) -> list[str]:
        """Return the lines of errors only."""
        return _lines(self.errors)


def _lines(kinds: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for kind, subjects in kinds.items():
        examples = ", ".join(subjects[:_EXAMPLES])
        more = ", ..." if len(subjects) > _EXAMPLES else ""
        lines.append(f"{kind}: {len(subjects)} ({examples}{more})")
    return lines
