"""Rules for the clean partner of a rainy image, as data; they concern names only.

A name is a path below the root of the data, with forward slashes. `pairing` looks for the files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

__all__ = [
    "FirstInScene",
    "NameRule",
    "NoReference",
    "Numbered",
    "OneOf",
    "PairingRule",
    "Prefixed",
    "Rule",
    "SameName",
    "SameStem",
    "TextBefore",
    "WithoutToken",
    "without_token",
]

PairingRule = Literal["auto", "same-name", "second-token", "first-token"]
"""How the clean image's name follows from the rainy image's; see `sets.clean_keys`."""


def without_token(stem: str) -> str:
    """Return a file's stem without the second of its parts between `_`.

    Example:
        >>> without_token("0000_03"), without_token("0011_03_set1_2crop"), without_token("0000")
        ('0000', '0011_set1_2crop', '0000')
    """
    first, *rest = stem.split("_")
    return "_".join([first, *rest[1:]])


@dataclass(frozen=True)
class NameRule(ABC):
    """A rule that derives the partner's name from the name of the rainy image.

    Attributes:
        files: Glob of all clean images, see `Tree.match`.
    """

    files: str

    @property
    def folder(self) -> str:
        """The folder of the clean images."""
        return self.files.rpartition("/")[0]

    @abstractmethod
    def partner(self, rainy: PurePosixPath) -> str:
        """Return the name of the clean image, or a glob; its first match is the clean image."""

    def scene(self, rainy: PurePosixPath) -> str | None:
        """Return the key that rainy images of one clean image share; None if each has its own."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """Return the rule in words."""


@dataclass(frozen=True)
class SameName(NameRule):
    """The file of the same name in another folder."""

    def partner(self, rainy: PurePosixPath) -> str:
        """Return the same file name in the clean folder."""
        return f"{self.folder}/{rainy.name}"

    def describe(self) -> str:
        """Return the rule in words."""
        return f"{self.folder}/ + same name"


@dataclass(frozen=True)
class SameStem(NameRule):
    """The file of the same path below another top folder, whatever its suffix and case."""

    def partner(self, rainy: PurePosixPath) -> str:
        """Return the path with the top folder changed and the suffix left open."""
        below = PurePosixPath(*rainy.parts[1:]).with_suffix("")
        return f"{self.folder}/{below}.*"

    def describe(self) -> str:
        """Return the rule in words."""
        return f"{self.folder}/ + same name, any suffix and case"


@dataclass(frozen=True)
class FirstInScene(NameRule):
    """The first file of a pattern in the folder of the rainy image."""

    def partner(self, rainy: PurePosixPath) -> str:
        """Return the pattern in the rainy image's folder."""
        return f"{rainy.parent}/{PurePosixPath(self.files).name}"

    def scene(self, rainy: PurePosixPath) -> str:
        """Return the name of the folder."""
        return rainy.parent.name

    def describe(self) -> str:
        """Return the rule in words."""
        return f"first {PurePosixPath(self.files).name} of the scene"


@dataclass(frozen=True)
class WithoutToken(NameRule):
    """The name with its second `_`-separated token removed.

    Example:
        >>> rule = WithoutToken("gt/*.png")
        >>> rule.partner(PurePosixPath("rainy/0011_03_set1_2crop.png"))
        'gt/0011_set1_2crop.png'
        >>> rule.partner(PurePosixPath("rainy/0011_03.png"))
        'gt/0011.png'
    """

    def partner(self, rainy: PurePosixPath) -> str:
        """Return the shortened name in the clean folder; a name of one token stays as it is."""
        return f"{self.folder}/{self.scene(rainy)}{rainy.suffix}"

    def scene(self, rainy: PurePosixPath) -> str:
        """Return the shortened name without suffix."""
        return without_token(rainy.stem)

    def describe(self) -> str:
        """Return the rule in words."""
        return f'{self.folder}/ + name without its second "_" token'


@dataclass(frozen=True)
class TextBefore(NameRule):
    """The text before the first `mark`, with the suffix of the clean images.

    Example:
        >>> rule = TextBefore("gt/*.png", mark="_s")
        >>> rule.partner(PurePosixPath("rain/im_0001_s80_a04.jpg"))
        'gt/im_0001.png'
    """

    mark: str

    def partner(self, rainy: PurePosixPath) -> str:
        """Return the text before the mark in the clean folder; without a mark the whole stem."""
        return f"{self.folder}/{self.scene(rainy)}{PurePosixPath(self.files).suffix}"

    def scene(self, rainy: PurePosixPath) -> str:
        """Return the text before the mark."""
        return rainy.stem.partition(self.mark)[0]

    def describe(self) -> str:
        """Return the rule in words."""
        suffix = PurePosixPath(self.files).suffix
        return f'{self.folder}/ + text before "{self.mark}" + {suffix}'


@dataclass(frozen=True)
class Prefixed(NameRule):
    """The name with a prefix, in the parent of the rainy image's folder."""

    prefix: str

    def partner(self, rainy: PurePosixPath) -> str:
        """Return the longer name."""
        return (rainy.parent.parent / f"{self.prefix}{rainy.name}").as_posix()

    def describe(self) -> str:
        """Return the rule in words."""
        return f'{self.files}, "{self.prefix}" + name'


@dataclass(frozen=True)
class NoReference:
    """There is no clean image; the rainy image takes its place where a pair is needed."""

    def describe(self) -> str:
        """Return the rule in words."""
        return "none"


@dataclass(frozen=True)
class Numbered:
    """A listed set: names from templates in which `{i}` and `{j}` run through numbers.

    The layout holds the template of the rainy images.

    Attributes:
        clean: Template of the clean images; None: there are none.
        i: Numbers, or a glob: numbers from 0, as many as it has matches.
        j: Numbers of the inner loop.
        scene: Template of the key shared by the rainy images of a scene; None: each has its own.
    """

    clean: str | None
    i: range | str
    j: range = range(1)
    scene: str | None = None

    def describe(self) -> str:
        """Return the rule in words."""
        return self.clean or "none"

    def numbers(self) -> str:
        """Return the numbers in words.

        Example:
            >>> Numbered("gt/{i}_{j}.png", range(801, 1001), range(1, 15)).numbers()
            'i = 801..1000, j = 1..14'
        """
        i = f"0..(number of {self.i}) - 1" if isinstance(self.i, str) else _span(self.i)
        return f"i = {i}" if len(self.j) == 1 else f"i = {i}, j = {_span(self.j)}"


def _span(numbers: range) -> str:
    return f"{numbers[0]}..{numbers[-1]}"


@dataclass(frozen=True)
class OneOf:
    """The first of several layouts whose folders both exist."""

    layouts: tuple[str, ...]

    def describe(self) -> str:
        """Return the rule in words."""
        return f"that of {', '.join(self.layouts)}, whichever is there"


Rule = NameRule | Numbered | NoReference | OneOf
