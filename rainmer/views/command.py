"""A run of the command: images to vectors, measures and maps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rainmer.data.layouts import ImageSet
from rainmer.data.layouts.sets import draw_images, find_set
from rainmer.device import resolve_device
from rainmer.errors import ConfigError, DatasetError, SpecError
from rainmer.files import make_folder
from rainmer.frames.inputs import raise_failures
from rainmer.models import Rainmer
from rainmer.stage.restorers import NetworkRestorer
from rainmer.stage.results import open_results
from rainmer.stage.specs import resolve
from rainmer.views import (
    Method,
    default_method,
    embed_images,
    mean_cosines,
    measure_separability,
    project,
    views_of,
)
from rainmer.views.options import ViewsOptions
from rainmer.views.output import (
    EmbeddedSet,
    ViewResult,
    draw_views,
    print_results,
    write_json,
    write_points,
)

__all__ = ["run"]

_log = logging.getLogger(__name__)

_FEWEST = 3
_SETTINGS = ("images", "replace", "seed", "mode", "batch")


def run(options: ViewsOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the arguments, or a result that cannot be written. At the end
            also when some images could not be read; the others are embedded and drawn.
    """
    image_sets = _find_sets(options)
    network, name, fingerprint = _network(options.derain)
    out = make_folder(options.out)
    method = _method(options.method)
    sets = _embed(image_sets, network, options)
    views = tqdm(views_of(network), desc="maps", unit="view", disable=options.quiet, delay=2)
    results = [
        _view_result(view, index, sets, method, options.seed) for index, view in enumerate(views)
    ]
    write_points(out / "views.csv", sets, results)
    derainer = {"spec": options.derain, "name": name, "fingerprint": fingerprint}
    settings = {name: getattr(options, name) for name in _SETTINGS}
    write_json(out / "views.json", sets, results, derainer=derainer, settings=settings)
    draw_views(out, sets, results)
    print_results(sets, results, out)
    failures = [line for embedded in sets for line in embedded.failures]
    read = sum(len(embedded.distinct) for embedded in sets)
    raise_failures(failures, read + len(failures))


def _find_sets(options: ViewsOptions) -> list[ImageSet]:
    if options.images < _FEWEST:
        raise ConfigError(f"--images {options.images}: at least {_FEWEST} of each set are needed")
    names = [text.partition(":")[0] for text in options.sets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"--sets: two sets are named {twice!r}: give each a name of its own")
    sets = [find_set(text, mode=options.mode, out=options.out) for text in options.sets]
    for images in sets:
        _check_count(images, len(images.rainy), "has")
    return sets


def _check_count(images: ImageSet, count: int, verb: str, failures: Sequence[str] = ()) -> None:
    """Refuse a set of too few images. Raises DatasetError."""
    if count < _FEWEST:
        broken = f"; {len(failures)} could not be read, first: {failures[0]}" if failures else ""
        raise DatasetError(
            f"set {images.name} ({images.source}) {verb} {count} "
            f"{'image' if count == 1 else 'images'}, but at least {_FEWEST} are needed{broken}"
        )


def _network(spec: str) -> tuple[Rainmer, str, str]:
    """Load the network of a spec; return it, its name and fingerprint."""
    restorer = None if open_results(spec) else resolve(spec)
    if not isinstance(restorer, NetworkRestorer):
        raise SpecError(f"{spec} has no views to embed images by: give rainmer:WEIGHTS")
    network = restorer.network
    views_of(network)  # raises for other networks
    assert isinstance(network, Rainmer)
    return network, restorer.name, restorer.fingerprint


def _method(asked: Method | None) -> Method:
    method = asked or default_method()
    if asked is None and method != "umap":
        _log.info("note: the maps are PCA; for UMAP: pip install 'rainmer[views]'")
    return method


def _embed(sets: Sequence[ImageSet], network: Rainmer, options: ViewsOptions) -> list[EmbeddedSet]:
    network.to(resolve_device(options.device))
    sampled = [
        draw_images(images, options.images, seed=options.seed, replace=options.replace)
        for images in sets
    ]
    total = sum(len(set(paths)) for paths in sampled)
    with tqdm(total=total, unit="image", disable=options.quiet, delay=2) as bar:
        return [
            _embed_set(images, paths, network, options.batch, bar)
            for images, paths in zip(sets, sampled, strict=True)
        ]


def _embed_set(
    images: ImageSet, paths: Sequence[Path], network: Rainmer, batch: int, bar: tqdm[Any]
) -> EmbeddedSet:
    embedded = embed_images(
        network, list(dict.fromkeys(paths)), batch=batch, on_progress=bar.update
    )
    _check_count(images, len(embedded.paths), "gives", embedded.failures)
    row_of = {path: row for row, path in enumerate(embedded.paths)}
    sampled = [path for path in paths if path in row_of]
    vectors = embedded.vectors[[row_of[path] for path in sampled]]
    return EmbeddedSet(images, sampled, vectors, embedded.vectors, embedded.failures)


def _view_result(
    view: str, index: int, sets: Sequence[EmbeddedSet], method: Method, seed: int
) -> ViewResult:
    per_set = [embedded.vectors[:, index] for embedded in sets]
    distinct = [embedded.distinct[:, index] for embedded in sets]
    vectors = torch.cat(per_set)
    return ViewResult(
        name=view,
        vectors=vectors,
        similarity=mean_cosines(per_set),
        # Distinct images only: a classifier must not be tested on images that it has seen.
        separability=measure_separability(distinct, seed=seed),
        projection=project(vectors, method),
    )
