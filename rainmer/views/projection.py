"""Map unit vectors to the plane: UMAP on a sphere as published, t-SNE, or PCA."""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rainmer.errors import RainmerError
from rainmer.views.options import Method

__all__ = ["Projection", "default_method", "project", "sphere_to_plane"]

_SEED = 42  # of the published UMAP; t-SNE shares it
_NEIGHBOURS = 50
_PERPLEXITY = 30.0
_POINTS_FOR_SPECTRAL_START = 10


class Projection(NamedTuple):
    """Points in the plane.

    Attributes:
        points: (N, 2), float64: x and y.
        method: The method that computed them.
        axes: What x and y are.
        settings: The method's settings as plain values, for records.
    """

    points: Tensor
    method: Method
    axes: tuple[str, str]
    settings: dict[str, Any]


def default_method() -> Method:
    """Return "umap" where umap-learn is installed, else "pca"."""
    return "umap" if importlib.util.find_spec("umap") is not None else "pca"


def project(vectors: Tensor, method: Method) -> Projection:
    """Map unit vectors to the plane; deterministic.

    Args:
        vectors: (N, C), unit length, on the CPU; N at least 3.
        method: "umap": 50 neighbours (all, if there are fewer), distance = angle, onto a sphere,
            minimum distance 0, seed 42, as published; x is a longitude and y a polar angle.
            "tsne": scikit-learn's, perplexity 30 or a third of the others. "pca": the two
            directions of largest variance.

    Raises:
        RainmerError: The method's package is not installed.
        ValueError: There are fewer than 3 vectors.
    """
    if vectors.ndim != 2 or len(vectors) < 3:
        raise ValueError(f"expected (N, C) with N of at least 3, but got {tuple(vectors.shape)}")
    return _PROJECTIONS[method](vectors)


def _umap(vectors: Tensor) -> Projection:
    try:
        import umap
    except ImportError as error:
        raise _not_installed("umap", "umap-learn") from error
    settings = {"n_neighbors": min(_NEIGHBOURS, len(vectors) - 1), "min_dist": 0.0}
    with warnings.catch_warnings():
        # UMAP warns that this metric cannot be inverted, and that few points are few.
        warnings.simplefilter("ignore")
        embedding = umap.UMAP(
            **settings,
            metric=_angle_metric(),
            output_metric="haversine",
            random_state=_SEED,
            n_jobs=1,  # as the seed requires
            init="spectral" if len(vectors) >= _POINTS_FOR_SPECTRAL_START else "random",
        ).fit_transform(vectors.float().numpy())
    points = sphere_to_plane(torch.from_numpy(embedding).double())
    axes = ("longitude (degrees)", "polar angle (degrees)")
    return Projection(points.rad2deg(), "umap", axes, {**settings, "seed": _SEED})


@functools.cache
def _angle_metric() -> Any:  # noqa: ANN401 (a compiled function)
    """Compile the angle between two unit vectors, once: UMAP compiles its callers again."""
    import numba

    def angle(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
        cosine = 0.0
        for i in range(a.shape[0]):
            cosine += a[i] * b[i]
        return math.acos(min(1.0, max(-1.0, cosine)))

    return numba.njit(angle)


def sphere_to_plane(angles: Tensor) -> Tensor:
    """Map UMAP's pairs of angles on a sphere to longitudes and polar angles.

    As published: with x = sin t cos p, y = sin t sin p, z = cos t, the longitude is atan2(x, y), in
    this order of arguments, and the polar angle arccos z.

    Args:
        angles: Pairs (t, p), (N, 2), radians, of any size.

    Returns:
        (N, 2), radians: longitude in -pi..pi and polar angle in 0..pi.
    """
    theta, phi = angles.unbind(1)
    x, y, z = theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()
    return torch.stack([torch.atan2(x, y), z.clamp(-1, 1).acos()], dim=1)


def _tsne(vectors: Tensor) -> Projection:
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise _not_installed("tsne", "scikit-learn") from error
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    # Equal vectors have no principal axes: scikit-learn divides by zero and crashes on the NaN.
    start = "random" if bool((vectors == vectors[0]).all()) else "pca"
    # Between unit vectors the chord grows with the angle, so Euclidean distance serves.
    points = TSNE(perplexity=perplexity, init=start, random_state=_SEED).fit_transform(
        vectors.double().numpy()
    )
    settings = {"perplexity": perplexity, "seed": _SEED}
    return Projection(torch.from_numpy(points).double(), "tsne", ("t-SNE 1", "t-SNE 2"), settings)


def _pca(vectors: Tensor) -> Projection:
    centred = vectors.double() - vectors.double().mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    first = directions[:2]
    # The sign of a direction is arbitrary: its largest component is made positive.
    strongest = first.gather(1, first.abs().argmax(1, keepdim=True))
    points = centred @ (first * strongest.sign()).T
    variances = values**2
    shares = (variances[:2] / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)).tolist()
    axes = [f"component {i} ({share:.0%} of variance)" for i, share in enumerate(shares, 1)]
    return Projection(points, "pca", (axes[0], axes[1]), {"variance_shares": shares})


def _not_installed(method: str, package: str) -> RainmerError:
    return RainmerError(
        f"--method {method} needs {package}: pip install 'rainmer[views]', or use --method pca"
    )


_PROJECTIONS: dict[Method, Callable[[Tensor], Projection]] = {
    "umap": _umap,
    "tsne": _tsne,
    "pca": _pca,
}
