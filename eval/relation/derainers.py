"""Derainers for several sets: one for all of them, or one for each where the spec says `{set}`.

Published methods come as folders of derained images, one per set, and often as weights per set.
`results:theirs/restormer/{set}` is one method: its name is what stays the same on all sets,
`results-restormer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from eval.rows.cache import CachedDerainer
from eval.sets import DetectionSet
from rainmer import Derainer
from rainmer.errors import SpecError
from rainmer.files import match_key
from rainmer.frames.arrays import Frame

__all__ = ["PLACEHOLDER", "Derainers", "name_of_template"]

PLACEHOLDER = "{set}"
"""Stands for the set's name in a spec."""


class _Renamed:
    """A derainer under the name that it has on all sets."""

    def __init__(self, derainer: Derainer, name: str) -> None:
        self._derainer = derainer
        self.name = name
        self.fingerprint = derainer.fingerprint
        self.cacheable = derainer.cacheable
        self.batch = derainer.batch

    def __call__(self, frames: list[Frame], names: Sequence[str] | None = None) -> list[Frame]:
        """Derain frames."""
        return self._derainer(frames, names)


class Derainers:
    """All derainers of a run.

    Args:
        specs: What to compare, without doubles.
        options: Arguments of `rainmer.Derainer`.
        cache: Root of the cache of derained frames; None remembers nothing.

    Attributes:
        names: The derainers' names, in the order of their specs.
        fingerprints: Name to fingerprint, of those that were built so far.

    Raises:
        SpecError, WeightsError: A spec without placeholder cannot be resolved, or two derainers
            have one name.
    """

    def __init__(
        self, specs: Sequence[str], options: Mapping[str, Any], cache: Path | None
    ) -> None:
        self._options, self._cache = dict(options), cache
        self._specs: dict[str, str] = {}
        self._shared: dict[str, Derainer] = {}
        self._cached: dict[str, CachedDerainer] = {}
        self.fingerprints: dict[str, str] = {}
        for spec in specs:
            derainer = None if PLACEHOLDER in spec else Derainer(spec, **self._options)
            name = name_of_template(spec) if derainer is None else derainer.name
            if name in self._specs:
                raise SpecError(f"two derainers are called {name!r}; rename one of their files")
            self._specs[name] = spec
            if derainer is not None:
                self._shared[name] = derainer
                self.fingerprints[name] = derainer.fingerprint
                self._cached[name] = CachedDerainer(derainer, cache)

    @property
    def names(self) -> list[str]:
        """The derainers' names, in the order of their specs."""
        return list(self._specs)

    def for_set(self, name: str) -> list[CachedDerainer]:
        """Return the derainers of one set.

        Raises:
            SpecError, WeightsError: What a placeholder leads to is missing on this set.
        """
        return [self._cached.get(own) or self._build(own, name) for own in self._specs]

    def _build(self, own: str, set_name: str) -> CachedDerainer:
        spec = self._specs[own].replace(PLACEHOLDER, set_name)
        derainer = Derainer(spec, **self._options)
        self.fingerprints[f"{own} on {set_name}"] = derainer.fingerprint
        return CachedDerainer(_Renamed(derainer, own), self._cache)

    def check_names(self, sets: Sequence[DetectionSet]) -> None:
        """Refuse one folder of results for sets that have an image of the same name.

        Raises:
            SpecError: Results of one set would be taken for those of the other.
        """
        precomputed = [name for name, one in self._shared.items() if one.needs_names]
        owners: dict[str, str] = {}
        for data in sets if precomputed else ():
            for sample in data.samples:
                owner = owners.setdefault(match_key(sample.key), data.name)
                if owner != data.name:
                    spec = self._specs[precomputed[0]]
                    raise SpecError(
                        f"{spec}: both {owner} and {data.name} have an image {sample.key}; keep a "
                        f"folder of results per set and write {spec.rstrip('/')}/{PLACEHOLDER}"
                    )


def name_of_template(spec: str) -> str:
    """Name a derainer by what its spec says without the set.

    >>> name_of_template("results:theirs/restormer/{set}"), name_of_template("prenet:{set}.pth")
    ('results-restormer', 'prenet')
    >>> name_of_template("results:{set}/restormer"), name_of_template("prenet:w/rain-{set}.pth")
    ('results-restormer', 'prenet-rain')
    """
    kind, _, target = spec.partition(":")
    for part in reversed(PurePosixPath(target).parts):
        if part == PLACEHOLDER:
            continue
        stem = Path(part).stem if PLACEHOLDER in part and kind != "results" else part
        name = stem.replace(PLACEHOLDER, "").strip("-_. ")
        if name and name != "/":
            return name if name.startswith(kind) else f"{kind}-{name}"
    return kind
