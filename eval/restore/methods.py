"""The methods of a run: derainers, and folders of precomputed results for each set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.restore.sets import RestorationSet
from eval.rows.derainers import PLACEHOLDER, Derainers
from rainmer.errors import DatasetError, SpecError
from rainmer.folders import subfolders
from rainmer.stage import Derainer
from rainmer.stage.results import PrecomputedResults

__all__ = ["Method", "build_methods"]

_RESULTS = "results:"
_NAMES_LISTED = 20


@dataclass(frozen=True)
class Method:
    """A way of deraining.

    Attributes:
        name: Its name in tables.
        derainers: The derainer of each set, by the set's label.
        missing: Names of the images without a result, by the set's label.
    """

    name: str
    derainers: Mapping[str, Derainer | PrecomputedResults]
    missing: Mapping[str, frozenset[str]]


def build_methods(
    specs: Sequence[str],
    sets: Sequence[RestorationSet],
    stage: Mapping[str, Any],
    *,
    allow_missing: bool = False,
) -> list[Method]:
    """Build the methods of specs.

    Results of several sets need a folder for each set, named as the set: with `results:theirs`,
    those of Rain100H are in `theirs/rain100H`. For a single set, `theirs` itself may hold them.

    Args:
        specs: `[LABEL=]SPEC` of each method; see `eval.rows.derainers.Derainers`.
        sets: The sets to derain.
        stage: Further arguments of `rainmer.Derainer`, by name.
        allow_missing: Accept results that lack images.

    Raises:
        SpecError: A spec cannot be resolved, or two methods have the same name.
        DatasetError: Results lack images, unless `allow_missing`.
    """
    derainers = Derainers(specs, stage)
    methods = []
    for name, spec in derainers.specs.items():
        if spec.startswith(_RESULTS) and PLACEHOLDER not in spec:
            by_set = _results_by_set(Path(spec.removeprefix(_RESULTS)), sets)
        else:
            by_set = {image_set.label: derainers.build(name, image_set.label) for image_set in sets}
        method = Method(name, by_set, _missing(by_set, sets))
        _check_missing(method, sets, allow_missing=allow_missing)
        methods.append(method)
    return methods


def _results_by_set(
    folder: Path, sets: Sequence[RestorationSet]
) -> dict[str, Derainer | PrecomputedResults]:
    """Open the folder of results of each set that has one; keys are labels of sets."""
    inner = {path.name.casefold(): path for path in subfolders(folder)}
    places = {image_set.label: inner.get(image_set.label.casefold()) for image_set in sets}
    if not any(places.values()):
        if len(sets) > 1:
            raise SpecError(
                f"{_RESULTS}{folder} must hold a folder for each set, such as "
                f"{folder / sets[0].label}, because there are several"
            )
        places = {sets[0].label: folder}
    return {label: PrecomputedResults(place) for label, place in places.items() if place}


def _missing(
    by_set: Mapping[str, Derainer | PrecomputedResults], sets: Sequence[RestorationSet]
) -> dict[str, frozenset[str]]:
    """Return the names of images without a result, by label of the set."""
    missing = {}
    for image_set in sets:
        names = [image.name for image in image_set.images]
        derainer = by_set.get(image_set.label)
        if isinstance(derainer, PrecomputedResults):
            names = derainer.missing(names)
        elif derainer is not None:
            names = []
        missing[image_set.label] = frozenset(names)
    return missing


def _check_missing(method: Method, sets: Sequence[RestorationSet], *, allow_missing: bool) -> None:
    """Report missing results, as an error or as notes on the sets."""
    problems = []
    for image_set in sets:
        lacking = [
            image.name
            for image in image_set.images
            if image.name in method.missing[image_set.label]
        ]
        if not lacking:
            continue
        counts = f"{len(lacking)} of the {len(image_set.images)} images of {image_set.label}"
        if allow_missing:
            for name in lacking:
                image_set.defects.note(
                    f"image without a result in {method.name}, left out of it", name
                )
        more = f" and {len(lacking) - _NAMES_LISTED} more" if len(lacking) > _NAMES_LISTED else ""
        problems.append(f"{counts}: {', '.join(lacking[:_NAMES_LISTED])}{more}")
    if problems and not allow_missing:
        raise DatasetError(
            f"{method.name} lacks results of {'; of '.join(problems)}; "
            "--allow-missing evaluates the others"
        )
