"""Defects of data sets, collected by kind and summarised in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rainmer.console import printable

__all__ = ["Defects", "examples"]

_EXAMPLES = 3


@dataclass
class Defects:
    """What is wrong with a data set, by kind.

    `errors` are broken items that were skipped; `repairs` are items that could be read in one way
    only and were (numbers given as text, an object listed twice); `notes` are items worth knowing
    about.
    """

    errors: dict[str, list[str]] = field(default_factory=dict)
    repairs: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def error(self, kind: str, subject: str) -> None:
        """Record a broken item, for instance kind "unreadable image" with its file as subject."""
        self.errors.setdefault(kind, []).append(subject)

    def repair(self, kind: str, subject: str) -> None:
        """Record an item that was fixed."""
        self.repairs.setdefault(kind, []).append(subject)

    def note(self, kind: str, subject: str) -> None:
        """Record an item worth knowing about."""
        self.notes.setdefault(kind, []).append(subject)

    def extend(self, other: Defects) -> None:
        """Add everything in another collection."""
        for degree, others in vars(other).items():
            kinds = getattr(self, degree)
            for kind, subjects in others.items():
                kinds.setdefault(kind, []).extend(subjects)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many there are of each kind, under `errors`, `repairs` and `notes`."""
        return {
            degree: {kind: len(subjects) for kind, subjects in kinds.items()}
            for degree, kinds in vars(self).items()
        }

    def lines(self) -> list[str]:
        """Return a line for each kind: its count, and the first examples."""
        return [*self.error_lines(), *self.repair_lines(), *self.note_lines()]

    def error_lines(self) -> list[str]:
        """Return the lines of errors only."""
        return list(_lines(self.errors))

    def repair_lines(self) -> list[str]:
        """Return the lines of repairs only."""
        return list(_lines(self.repairs))

    def note_lines(self) -> list[str]:
        """Return the lines of notes only."""
        return list(_lines(self.notes))


def _lines(kinds: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for kind, subjects in kinds.items():
        yield f"{kind}: {len(subjects)} ({examples(subjects)})"


def examples(subjects: Sequence[str]) -> str:
    """Return the first subjects as text.

    Example:
        >>> examples(["a.txt:1", "a.txt:2", "b.txt:7", "c.txt:1"])
        'a.txt:1, a.txt:2, b.txt:7, ...'
    """
    shown = [printable(subject) for subject in subjects[:_EXAMPLES]]
    return ", ".join([*shown, *(["..."] if len(subjects) > _EXAMPLES else [])])
