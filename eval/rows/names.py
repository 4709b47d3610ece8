"""Unique names in tables for what users give as `[LABEL=]TEXT`: derainers and detectors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from rainmer.errors import SpecError

__all__ = ["CONTROL", "PLACEHOLDER", "Named", "distinct_names", "split_label"]

CONTROL = "median"
"""The filter that every real derainer has to beat."""

PLACEHOLDER = "{set}"
"""Stands for the set's name in a spec."""

_LABELLED = re.compile(r"(\w[\w .+-]*)=(.+)", re.DOTALL)
"""A label has no colon and no slash, so a path that holds `=` is not taken for one."""


class Named(NamedTuple):
    """What a user wrote; `name` is what it is called without a label."""

    label: str
    name: str
    text: str


def split_label(text: str) -> tuple[str, str]:
    """Return the label, empty without one, and what it names.

    >>> split_label("soft=blend:0.5:median"), split_label("a/b=c.pt")
    (('soft', 'blend:0.5:median'), ('', 'a/b=c.pt'))
    """
    match = _LABELLED.fullmatch(text)
    return (match[1], match[2]) if match else ("", text)


def distinct_names(entries: Sequence[Named], kind: str) -> list[str]:
    """Return labels, and other names with as many folders as it takes to tell equal ones apart.

    Args:
        entries: What the user gave.
        kind: What they are, in the plural.

    Raises:
        SpecError: Two labels are the same, or no folder differs.

    >>> pair = [Named("", "best", "a/best.pt"), Named("", "best", "b/best.pt")]
    >>> distinct_names(pair, "detectors")
    ['best-a', 'best-b']
    """
    names = [entry.label or entry.name for entry in entries]
    alike: dict[str, list[int]] = {}
    for i, entry in enumerate(entries):
        if not entry.label:
            alike.setdefault(entry.name, []).append(i)
    for indices in alike.values():
        folders = [_folders(entries[i].text) for i in indices]
        for depth in range(1, max(map(len, folders)) + 1 if len(indices) > 1 else 0):
            tails = ["-".join(parts[-depth:]) for parts in folders]
            if len(set(tails)) == len(tails):
                for i, tail in zip(indices, tails, strict=True):
                    names[i] = f"{names[i]}-{tail}".rstrip("-")
                break
    for i, (name, entry) in enumerate(zip(names, entries, strict=True)):
        if name in names[:i]:
            raise SpecError(
                f"two {kind} are called {name!r}; give one of them another name: LABEL={entry.text}"
            )
    return names


def _folders(text: str) -> tuple[str, ...]:
    """Return the folders above the file or folder that a spec names, as far as it names them."""
    parts = PurePosixPath(text.rpartition(":")[2]).parts[:-1]
    return tuple(part for part in parts if part not in ("/", PLACEHOLDER))
