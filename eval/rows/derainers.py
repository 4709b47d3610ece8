"""The derainers of a run: `[LABEL=]SPEC`, each under a unique name, on one set or several.

Published methods come as folders of derained images, one for each set, and often as weights for
each set: `{set}` in a spec stands for the set's name. `results:theirs/restormer/{set}` is one
method; its name is what stays the same on all sets, `results-restormer`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from eval.rows.cache import CachedDerainer, Derained, RowDerainer
from eval.rows.gated import GatedRow
from eval.rows.names import CONTROL, PLACEHOLDER, Named, distinct_names, split_label
from eval.sets import DetectionSet
from rainmer.errors import SpecError
from rainmer.files import match_key
from rainmer.frames.arrays import Frame
from rainmer.stage import Derainer
from rainmer.stage.results import PrecomputedResults, make_derainer

__all__ = ["CONTROL", "PLACEHOLDER", "Derainers", "PrecomputedRow", "name_of_template"]


_Built: TypeAlias = Derainer | PrecomputedResults


class PrecomputedRow:
    """Precomputed results as the derainer of a row; they exist for the rainy images only.

    Args:
        results: The folder of results.
        name: What it is called in tables.

    Attributes:
        busy_s: Seconds spent reading results so far.
    """

    precomputed = True
    precision = ""

    def __init__(self, results: PrecomputedResults, name: str) -> None:
        self._results = results
        self.name = name
        self.fingerprint = results.fingerprint
        self.batch = results.batch
        self.busy_s = 0.0

    def __call__(self, frames: Sequence[Frame], keys: Sequence[str]) -> list[Derained]:
        """Look frames up by their keys; the time is what reading takes."""
        started = time.perf_counter()
        derained = self._results(frames, keys)
        elapsed = time.perf_counter() - started
        self.busy_s += elapsed
        return [Derained(frame, 1000.0 * elapsed / len(frames)) for frame in derained]


class Derainers:
    """The derainers of a run; every command that compares derainers builds them here.

    Users write `SPEC` or `LABEL=SPEC`. Without a label a derainer has the name of its weights or
    folder; equal names are told apart by their folders: `prenet:a/net.pth` and `prenet:b/net.pth`
    become `prenet-net-a` and `prenet-net-b`. A text given twice counts once.

    Specs without `{set}` are built at once, so that mistakes end a command before the work; the
    others when `build` or `for_set` asks for them.

    Args:
        texts: `[LABEL=]SPEC`, in the order of the rows; see `rainmer.stage.specs.SPEC_HELP`.
        stage: Further arguments of `rainmer.Derainer`, by name.
        cache: Root of the cache of derained frames; None: no cache.

    Attributes:
        specs: Name in tables to spec, in the order of `texts`.
        fingerprints: Name to fingerprint of those that were built so far; those of one set as
            `NAME on SET`.

    Raises:
        SpecError, WeightsError: A spec without placeholder cannot be resolved, or two derainers
            have one name.

    Example:
        >>> derainers = Derainers(["median", "soft=blend:0.5:median"], {"device": "cpu"})
        >>> derainers.names, derainers.specs["soft"]
        (['median', 'soft'], 'blend:0.5:median')
    """

    def __init__(
        self, texts: Iterable[str], stage: Mapping[str, Any], cache: Path | None = None
    ) -> None:
        self._stage, self._cache = dict(stage), cache
        self.fingerprints: dict[str, str] = {}
        self.specs: dict[str, str] = {}
        self._shared: dict[str, _Built] = {}
        self._rows: dict[str, RowDerainer] = {}
        entries = [self._entry(text) for text in dict.fromkeys(texts)]
        names = distinct_names([named for named, _ in entries], "derainers")
        for name, (named, derainer) in zip(names, entries, strict=True):
            self.specs[name] = named.text
            if derainer is not None:
                self._shared[name] = derainer
                self.fingerprints[name] = derainer.fingerprint

    def _entry(self, text: str) -> tuple[Named, _Built | None]:
        label, spec = split_label(text)
        if PLACEHOLDER in spec:
            return Named(label, name_of_template(spec), spec), None
        derainer = make_derainer(spec, **self._stage)
        return Named(label, derainer.name, spec), derainer

    @property
    def names(self) -> list[str]:
        """The derainers' names, in the order of their specs."""
        return list(self.specs)

    def build(self, name: str, set_name: str) -> _Built:
        """Return what derains a set: the same object for all sets unless the spec says `{set}`.

        Raises:
            SpecError, WeightsError: What a placeholder leads to is missing on this set.
        """
        if name in self._shared:
            return self._shared[name]
        derainer = make_derainer(self.specs[name].replace(PLACEHOLDER, set_name), **self._stage)
        self.fingerprints[f"{name} on {set_name}"] = derainer.fingerprint
        return derainer

    def for_set(self, set_name: str) -> list[RowDerainer]:
        """Return the derainers of one set, ready for rows, in the order of `names`.

        Raises:
            SpecError, WeightsError: See `build`.
        """
        rows = []
        for name in self.specs:
            row = self._rows.get(name) or _as_row(self.build(name, set_name), name, self._cache)
            if name in self._shared:
                self._rows[name] = row
            rows.append(row)
        return rows

    def check_names(self, sets: Sequence[DetectionSet]) -> None:
        """Refuse one folder of results for sets that have an image of the same name.

        Raises:
            SpecError: Results of one set would be taken for those of the other.
        """
        precomputed = [
            name
            for name, derainer in self._shared.items()
            if isinstance(derainer, PrecomputedResults)
        ]
        owners: dict[str, str] = {}
        for data in sets if precomputed else ():
            for sample in data.samples:
                owner = owners.setdefault(match_key(sample.name), data.name)
                if owner != data.name:
                    spec = self.specs[precomputed[0]]
                    raise SpecError(
                        f"{spec}: both {owner} and {data.name} have an image {sample.name}; keep a "
                        f"folder of results per set and write {spec.rstrip('/')}/{PLACEHOLDER}"
                    )


def _as_row(derainer: _Built, name: str, cache: Path | None) -> RowDerainer:
    if isinstance(derainer, PrecomputedResults):
        return PrecomputedRow(derainer, name)
    row = CachedDerainer if derainer.gate is None else GatedRow
    return row(derainer, cache, name)


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
