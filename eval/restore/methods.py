"""The methods of a run: derainers, and folders of results that others made, one for each set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.restore.sets import RestorationSet
from eval.rows.derainers import build_derainers
from rainmer import Derainer
from rainmer.errors import DatasetError, SpecError

__all__ = ["Method", "build_methods"]

_RESULTS = "results:"
_NAMES_LISTED = 20


@dataclass(frozen=True)
class Method:
    """A way of deraining.

    Attributes:
        name: What it is called in tables.
        derainers: What derains each set, by the set's label.
        missing: Names of the images without a result, by the set's label.
    """

    name: str
    derainers: Mapping[str, Derainer]
    missing: Mapping[str, frozenset[str]]


def build_methods(
    specs: Sequence[str],
    sets: Sequence[RestorationSet],
    stage: Mapping[str, Any],
    *,
    allow_missing: bool = False,
) -> list[Method]:
    """Build the methods of specs.

    Results of several sets lie in a folder for each of them, named as the set: with
    `results:theirs`, those of Rain100H in `theirs/rain100H`. Of a single set they may also lie in
    `theirs` itself.

    Args:
        specs: What derains; see `rainmer.stage.specs.SPEC_HELP`.
        sets: What is to be derained.
        stage: Further arguments of `rainmer.Derainer`, by name.
        allow_missing: Take results that are not there for all images.

    Raises:
        SpecError: A spec cannot be resolved, or two have one name.
        DatasetError: Results lack images, unless `allow_missing`.
    """
    derainers = build_derainers(specs, stage)
    methods = []
    for spec, derainer in zip(dict.fromkeys(specs), derainers, strict=True):
        if derainer.needs_names:
            method = _results(derainer.name, Path(spec.removeprefix(_RESULTS)), sets, stage)
            _check_missing(method, sets, allow_missing=allow_missing)
            methods.append(method)
        else:
            by_set = dict.fromkeys((one.label for one in sets), derainer)
            methods.append(Method(derainer.name, by_set, {}))
    return methods


def _results(
    name: str, folder: Path, sets: Sequence[RestorationSet], stage: Mapping[str, Any]
) -> Method:
    """Find the results of each set; where a set has no folder, all of them are missing."""
    subfolders = {path.name.casefold(): path for path in folder.iterdir() if path.is_dir()}
    places = {one.label: subfolders.get(one.label.casefold()) for one in sets}
    if not any(places.values()):
        if len(sets) > 1:
            raise SpecError(
                f"{_RESULTS}{folder} must hold a folder for each set, such as "
                f"{folder / sets[0].label}, because there are several"
            )
        places = {sets[0].label: folder}
    derainers: dict[str, Derainer] = {}
    missing = {}
    for one in sets:
        names = [image.name for image in one.images]
        place = places[one.label]
        if place is not None:
            derainers[one.label] = Derainer(f"{_RESULTS}{place}", **stage)
            names = derainers[one.label].missing(names)
        missing[one.label] = frozenset(names)
    return Method(name, derainers, missing)


def _check_missing(method: Method, sets: Sequence[RestorationSet], *, allow_missing: bool) -> None:
    """Say which results are missing, as an error or as notes on the sets."""
    problems = []
    for one in sets:
        lacking = [image.name for image in one.images if image.name in method.missing[one.label]]
        if not lacking:
            continue
        counts = f"{len(lacking)} of the {len(one.images)} images of {one.label}"
        if allow_missing:
            for name in lacking:
                one.defects.note(f"image without a result in {method.name}, left out of it", name)
        more = f" and {len(lacking) - _NAMES_LISTED} more" if len(lacking) > _NAMES_LISTED else ""
        problems.append(f"{counts}: {', '.join(lacking[:_NAMES_LISTED])}{more}")
    if problems and not allow_missing:
        raise DatasetError(
            f"{method.name} lacks results of {'; of '.join(problems)}; "
            "--allow-missing evaluates the others"
        )
