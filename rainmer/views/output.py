"""The output of the command: points, measures, figures and verdicts in words."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rainmer
from rainmer.data.layouts import ImageSet
from rainmer.figures import save_figure
from rainmer.files import atomic_write, write_text
from rainmer.views import Method, Projection, Separability

__all__ = [
    "SCHEMA",
    "EmbeddedSet",
    "ViewResult",
    "draw_views",
    "print_results",
    "write_json",
    "write_points",
]

SCHEMA = 1
"""Version of views.json: raised when a key changes its meaning."""

_PACKAGES = ("torch", "umap-learn", "scikit-learn")
_METHOD_TITLES: dict[Method, str] = {"umap": "UMAP on a sphere", "tsne": "t-SNE", "pca": "PCA"}


@dataclass(frozen=True)
class EmbeddedSet:
    """A set whose images are vectors.

    Attributes:
        images: The set.
        sampled: The sampled files that could be read; with `--replace` some repeatedly.
        vectors: Their vectors, (N, P, C).
        distinct: The vectors of the distinct files, (M, P, C).
        failures: A line for each file that could not be read.
    """

    images: ImageSet
    sampled: list[Path]
    vectors: Tensor
    distinct: Tensor
    failures: list[str]


@dataclass(frozen=True)
class ViewResult:
    """The vectors of all sets in one view, with their measures and map.

    Attributes:
        name: The view.
        vectors: Of all sets, one after the other, (N, C).
        similarity: Mean cosines between sets, (S, S).
        separability: None for a single set.
        projection: The N images as points of the map.
    """

    name: str
    vectors: Tensor
    similarity: Tensor
    separability: Separability | None
    projection: Projection


def write_points(path: Path, sets: Sequence[EmbeddedSet], results: Sequence[ViewResult]) -> None:
    """Write every image's point in the plane as CSV."""
    images = [(embedded.images.name, file) for embedded in sets for file in embedded.sampled]
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
                # The text of a float32 is the shortest that reads back as the same number.
                writer.writerow([name, image, result.name, *map(str, point), *map(str, vector)])


def _columns(dimensions: int) -> list[str]:
    return [f"v{index}" for index in range(dimensions)]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def write_json(
    path: Path,
    sets: Sequence[EmbeddedSet],
    results: Sequence[ViewResult],
    *,
    derainer: Mapping[str, str],
    settings: Mapping[str, Any],
) -> None:
    """Write settings, measures and set sizes as JSON.

    Args:
        path: The file.
        sets: The sets, in the order of the rows of every matrix.
        results: One for each view.
        derainer: Spec, name and fingerprint of the network.
        settings: Options that the numbers depend on.
    """
    content = {
        "schema": SCHEMA,
        "derainer": derainer,
        "settings": settings,
        "versions": {
            "rainmer": rainmer.__version__,
            **{package: _version(package) for package in _PACKAGES},
        },
        "sets": [
            {
                "name": embedded.images.name,
                "source": embedded.images.source,
                "images": len(embedded.images.rainy),
                "embedded": len(embedded.sampled),
                "distinct": len(embedded.distinct),
                "failures": embedded.failures,
            }
            for embedded in sets
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


def draw_views(out: Path, sets: Sequence[EmbeddedSet], results: Sequence[ViewResult]) -> None:
    """Draw maps and similarities, a file for each view."""
    from rainmer.views.figures import map_figure, similarity_figure

    names = [embedded.images.name for embedded in sets]
    members = torch.repeat_interleave(torch.tensor([len(embedded.sampled) for embedded in sets]))
    for result in results:
        title = f"{result.name.capitalize()} view, {_METHOD_TITLES[result.projection.method]}"
        figure = map_figure(result.projection, members, names, title, _short_verdict(result))
        save_figure(out / f"map-{result.name}.png", figure)
        title = f"{result.name.capitalize()} view, similarity of sets"
        figure = similarity_figure(result.similarity, names, title)
        save_figure(out / f"similarity-{result.name}.png", figure)


def _verdict(result: ViewResult) -> str:
    measure = result.separability
    if measure is None:
        return "a single set: nothing to separate"
    return (
        f"nearest centroid names the set of {measure.accuracy:.1%} of held-out images "
        f"[{measure.ci_low:.1%}, {measure.ci_high:.1%}], chance {measure.chance:.1%}; "
        f"silhouette {measure.silhouette:.2f}"
    )


def _short_verdict(result: ViewResult) -> str:
    measure = result.separability
    if measure is None:
        return ""
    return (
        f"set of a held-out image by nearest centroid: {measure.accuracy:.1%} right, "
        f"chance {measure.chance:.1%}; silhouette {measure.silhouette:.2f}"
    )


def print_results(sets: Sequence[EmbeddedSet], results: Sequence[ViewResult], out: Path) -> None:
    """Print the measures and what they mean."""
    width = max(len(embedded.images.name) for embedded in sets)
    for result in results:
        low, high = float(result.similarity.min()), float(result.similarity.max())
        print(f"{result.name}: {_verdict(result)}")
        print(f"  mean cosines between sets: min {low:.3f}, max {high:.3f}")
        for embedded, values in zip(sets, result.similarity.tolist(), strict=True):
            cells = " ".join(f"{round(value, 3) + 0.0:6.3f}" for value in values)
            print(f"  {embedded.images.name:{width}}  {cells}")
    count = sum(len(embedded.sampled) for embedded in sets)
    noun = "set" if len(sets) == 1 else "sets"
    print(f"embedded {count} images of {len(sets)} {noun}; results in {out}")
