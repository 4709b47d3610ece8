"""`python -m rainmer.views --derain SPEC --sets NAME:FOLDER ... --out DIR`: views of data sets.

Embeds images of several sets with the encoder of a Rainmer network, draws a map of them for each
view, and says in numbers whether the views separate the sets.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import rainmer
from rainmer.cli import make_parser, non_negative_int, positive_int, resolve_device, run_command
from rainmer.embedding import (
    METHODS,
    ImageSet,
    Method,
    Projection,
    Separability,
    default_method,
    draw_images,
    embed_images,
    find_set,
    mean_cosines,
    measure_separability,
    project,
    views_of,
)
from rainmer.errors import ConfigError, DatasetError, SpecError
from rainmer.files import atomic_write, make_folder, write_text
from rainmer.inputs import raise_failures
from rainmer.models import Rainmer
from rainmer.specs import NetworkRestorer, resolve

__all__ = ["main"]

_log = logging.getLogger(__name__)

SCHEMA = 1
"""Of views.json: raised when a key changes its meaning."""

_FEWEST = 3
_EXAMPLE = """\
  python -m rainmer.views --derain rainmer:rainmer.pth --out views \\
      --sets synthetic:rain100h:/data night:gtav-balance:/data clean:photos/
  python -m rainmer.views --derain rainmer:rainmer.pth --out views --method tsne \\
      --sets 'DDN1:rain14000/*_1.jpg' 'DDN5:rain14000/*_5.jpg'"""


@dataclass(frozen=True)
class EmbeddedSet:
    """A set whose images are vectors.

    Attributes:
        images: The set.
        drawn: The files that stand for it and could be read; with `--replace` some repeatedly.
        vectors: Their vectors, (N, P, C).
        distinct: The vectors of the distinct files, (M, P, C).
        failures: A line for each file that could not be read.
    """

    images: ImageSet
    drawn: list[Path]
    vectors: Tensor
    distinct: Tensor
    failures: list[str]


@dataclass(frozen=True)
class ViewResult:
    """What one view makes of all sets.

    Attributes:
        name: The view.
        vectors: Of all sets, one after the other, (N, C).
        similarity: Mean cosines between sets, (S, S).
        separability: None for a single set.
        projection: Where the N images lie in the map.
    """

    name: str
    vectors: Tensor
    similarity: Tensor
    separability: Separability | None
    projection: Projection


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: The arguments; None takes those of the process.

    Raises:
        RainmerError: A mistake in the arguments, or a result that cannot be written. At the end
            also when some images could not be read; the others are embedded and drawn.
    """
    options = _parse(argv)
    found = _find_sets(options)
    network, name, fingerprint = _network(options.derain)
    out = make_folder(options.out)
    method = _method(options.method)
    sets = _embed(found, network, options)
    views = tqdm(views_of(network), desc="maps", unit="view", disable=options.quiet, delay=2)
    results = [
        _view_result(view, index, sets, method, options.seed) for index, view in enumerate(views)
    ]
    _write_csv(out / "views.csv", sets, results)
    derainer = {"spec": options.derain, "name": name, "fingerprint": fingerprint}
    _write_json(out / "views.json", sets, results, {"derainer": derainer, **_settings(options)})
    _draw(out, sets, results)
    _print(sets, results, out)
    failures = [line for one in sets for line in one.failures]
    read = sum(len(one.distinct) for one in sets)
    raise_failures(failures, read + len(failures))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "python -m rainmer.views",
        "Embed images of data sets with the encoder of a Rainmer network, and show for each view "
        "whether it separates the sets. DIR gets views.csv (vectors and positions in the map), "
        "views.json (measures), and for each view map-VIEW.png and similarity-VIEW.png.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--derain", required=True, metavar="SPEC", help="a Rainmer network: rainmer:WEIGHTS"
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        required=True,
        metavar="NAME:IMAGES",
        help="a name, then a folder or glob of images, or LAYOUT:ROOT for the rainy images of a "
        "known set (python -m rainmer.data.layouts list)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    parser.add_argument(
        "--mode", choices=("train", "test"), help="for names that mean a training and a test set"
    )
    parser.add_argument(
        "--images", type=positive_int, default=500, metavar="N", help="of each set; default: 500"
    )
    parser.add_argument(
        "--replace", action="store_true", help="draw with replacement, as the paper does"
    )
    parser.add_argument(
        "--method", choices=METHODS, help="of the map; default: umap if installed, else pca"
    )
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="of drawing and splits; default: 0"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; default: the best")
    parser.add_argument(
        "--batch", type=positive_int, default=32, metavar="N", help="images at once; default: 32"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(argv)


# --- what to embed, and by what -------------------------------------------------------------------


def _find_sets(options: argparse.Namespace) -> list[ImageSet]:
    if options.images < _FEWEST:
        raise ConfigError(f"--images {options.images}: at least {_FEWEST} of each set are needed")
    names = [text.partition(":")[0] for text in options.sets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"--sets: two sets are named {twice!r}: give each a name of its own")
    found = [find_set(text, mode=options.mode, out=options.out) for text in options.sets]
    for one in found:
        _check_count(one, len(one.paths), "has")
    return found


def _check_count(images: ImageSet, count: int, verb: str, failures: Sequence[str] = ()) -> None:
    """Refuse a set that says nothing. Raises DatasetError."""
    if count < _FEWEST:
        broken = f"; {len(failures)} could not be read, first: {failures[0]}" if failures else ""
        raise DatasetError(
            f"set {images.name} ({images.source}) {verb} {count} "
            f"{'image' if count == 1 else 'images'}, but at least {_FEWEST} are needed{broken}"
        )


def _network(spec: str) -> tuple[Rainmer, str, str]:
    """Load the network of a spec; return it, its name and fingerprint."""
    restorer = resolve(spec)
    if not isinstance(restorer, NetworkRestorer):
        raise SpecError(f"{spec} has no views to embed images by: give rainmer:WEIGHTS")
    network = restorer.network
    views_of(network)  # refuses other networks
    assert isinstance(network, Rainmer)
    return network, restorer.name, restorer.fingerprint


def _method(asked: Method | None) -> Method:
    method = asked or default_method()
    if asked is None and method != "umap":
        _log.info("note: the maps are PCA; for UMAP: pip install 'rainmer[views]'")
    return method


def _embed(
    found: Sequence[ImageSet], network: Rainmer, options: argparse.Namespace
) -> list[EmbeddedSet]:
    network.to(resolve_device(options.device))
    drawn = [
        draw_images(one, options.images, seed=options.seed, replace=options.replace)
        for one in found
    ]
    total = sum(len(set(paths)) for paths in drawn)
    with tqdm(total=total, unit="image", disable=options.quiet, delay=2) as bar:
        return [
            _embed_set(images, paths, network, options.batch, bar)
            for images, paths in zip(found, drawn, strict=True)
        ]


def _embed_set(
    images: ImageSet, paths: Sequence[Path], network: Rainmer, batch: int, bar: tqdm[Any]
) -> EmbeddedSet:
    embedded = embed_images(
        network, list(dict.fromkeys(paths)), batch=batch, on_progress=bar.update
    )
    _check_count(images, len(embedded.paths), "gives", embedded.failures)
    row_of = {path: row for row, path in enumerate(embedded.paths)}
    drawn = [path for path in paths if path in row_of]
    vectors = embedded.vectors[[row_of[path] for path in drawn]]
    return EmbeddedSet(images, drawn, vectors, embedded.vectors, embedded.failures)


def _view_result(
    view: str, index: int, sets: Sequence[EmbeddedSet], method: Method, seed: int
) -> ViewResult:
    vectors = torch.cat([one.vectors[:, index] for one in sets])
    return ViewResult(
        name=view,
        vectors=vectors,
        similarity=mean_cosines([one.vectors[:, index] for one in sets]),
        # Of distinct images: a classifier must not know what it is tested on.
        separability=measure_separability([one.distinct[:, index] for one in sets], seed=seed),
        projection=project(vectors, method),
    )


# --- results --------------------------------------------------------------------------------------


def _write_csv(path: Path, sets: Sequence[EmbeddedSet], results: Sequence[ViewResult]) -> None:
    images = [(one.images.name, file) for one in sets for file in one.drawn]
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        dimensions = results[0].vectors.shape[1]
        writer.writerow(["set", "file", "view", "map_x", "map_y", *_columns(dimensions)])
        for result in results:
            points = result.projection.points.float().numpy()
            rows = zip(images, points, result.vectors.numpy(), strict=True)
            for (name, image), point, vector in rows:
                # The text of a float32 is the shortest that gives it back.
                writer.writerow([name, image, result.name, *map(str, point), *map(str, vector)])


def _columns(dimensions: int) -> list[str]:
    return [f"v{index}" for index in range(dimensions)]


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    names = ("images", "replace", "seed", "mode", "batch")
    packages = ("torch", "umap-learn", "scikit-learn")
    return {
        "settings": {name: getattr(options, name) for name in names},
        "versions": {"rainmer": rainmer.__version__, **{one: _version(one) for one in packages}},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _write_json(
    path: Path,
    sets: Sequence[EmbeddedSet],
    results: Sequence[ViewResult],
    origin: dict[str, Any],
) -> None:
    content = {
        "schema": SCHEMA,
        **origin,
        "sets": [
            {
                "name": one.images.name,
                "source": one.images.source,
                "images": len(one.images.paths),
                "embedded": len(one.drawn),
                "distinct": len(one.distinct),
                "failures": one.failures,
            }
            for one in sets
        ],
        "views": {result.name: _measures(result) for result in results},
    }
    write_text(path, json.dumps(content, indent=1))


def _measures(result: ViewResult) -> dict[str, Any]:
    """Return the numbers of a view; matrices are in the order of the sets."""
    projection, separability = result.projection, result.separability
    content: dict[str, Any] = {
        "similarity": result.similarity.tolist(),
        "similarity_min": float(result.similarity.min()),
        "similarity_max": float(result.similarity.max()),
        "map": {"method": projection.method, **projection.settings},
        "separability": None,
    }
    if separability is not None:
        content["separability"] = {
            "accuracy": separability.accuracy,
            "ci_low": separability.ci_low,
            "ci_high": separability.ci_high,
            "chance": separability.chance,
            "confusion": separability.confusion.tolist(),
            "silhouette": separability.silhouette,
            "silhouettes": separability.silhouettes.tolist(),
        }
    return content


def _draw(out: Path, sets: Sequence[EmbeddedSet], results: Sequence[ViewResult]) -> None:
    from rainmer.embedding.plots import map_figure, save_figure, similarity_figure

    names = [one.images.name for one in sets]
    members = torch.repeat_interleave(torch.tensor([len(one.drawn) for one in sets]))
    for result in results:
        title = f"{result.name.capitalize()} view, {_METHOD_TITLES[result.projection.method]}"
        figure = map_figure(result.projection, members, names, title, _short_verdict(result))
        save_figure(out / f"map-{result.name}.png", figure)
        title = f"{result.name.capitalize()} view, similarity of sets"
        figure = similarity_figure(result.similarity, names, title)
        save_figure(out / f"similarity-{result.name}.png", figure)


_METHOD_TITLES: dict[Method, str] = {"umap": "UMAP on a sphere", "tsne": "t-SNE", "pca": "PCA"}


def _verdict(result: ViewResult) -> str:
    one = result.separability
    if one is None:
        return "a single set: nothing to separate"
    return (
        f"nearest centroid names the set of {one.accuracy:.1%} of held-out images "
        f"[{one.ci_low:.1%}, {one.ci_high:.1%}], chance {one.chance:.1%}; "
        f"silhouette {one.silhouette:.2f}"
    )


def _short_verdict(result: ViewResult) -> str:
    one = result.separability
    if one is None:
        return ""
    return (
        f"set of a held-out image by nearest centroid: {one.accuracy:.1%} right, "
        f"chance {one.chance:.1%}; silhouette {one.silhouette:.2f}"
    )


def _print(sets: Sequence[EmbeddedSet], results: Sequence[ViewResult], out: Path) -> None:
    width = max(len(one.images.name) for one in sets)
    for result in results:
        low, high = float(result.similarity.min()), float(result.similarity.max())
        print(f"{result.name}: {_verdict(result)}")
        print(f"  mean cosines between sets: min {low:.3f}, max {high:.3f}")
        for one, values in zip(sets, result.similarity.tolist(), strict=True):
            cells = " ".join(f"{round(value, 3) + 0.0:6.3f}" for value in values)
            print(f"  {one.images.name:{width}}  {cells}")
    count = sum(len(one.drawn) for one in sets)
    noun = "set" if len(sets) == 1 else "sets"
    print(f"embedded {count} images of {len(sets)} {noun}; results in {out}")


if __name__ == "__main__":
    run_command(main)
