"""Maps in the plane: by torch alone, and by the optional packages where they are installed."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F

from rainmer.errors import RainmerError
from rainmer.views import default_method, project
from rainmer.views.projection import sphere_to_plane
from tests.numerics import rounding


@pytest.fixture
def needs():
    def check(package):
        return pytest.importorskip(package, reason="needs the extra: rainmer[views]")

    return check


def two_clouds(count, spread=0.1):
    chance = torch.Generator().manual_seed(0)
    centres = torch.eye(16)[torch.arange(count) % 2]
    return F.normalize(centres + spread * torch.randn(count, 16, generator=chance), dim=1)


def test_pca_finds_the_direction_that_differs():
    vectors = two_clouds(40)
    projection = project(vectors, "pca")
    x = projection.points[:, 0]
    assert (x[::2].min() > x[1::2].max()) or (x[::2].max() < x[1::2].min())
    assert projection.points.mean(0).abs().max() < rounding(depth=1)
    shares = projection.settings["variance_shares"]
    assert 0.5 < shares[0] <= 1
    assert projection.axes[0] == f"component 1 ({shares[0]:.0%} of variance)"


def test_pca_keeps_distances_in_a_plane():
    flat = torch.zeros(6, 5)
    flat[:, 1:3] = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    points = project(flat, "pca").points
    assert torch.cdist(points, points).allclose(
        torch.cdist(flat, flat).double(), atol=rounding(depth=4)
    )


def test_pca_of_equal_vectors_is_one_point():
    projection = project(torch.ones(3, 4) / 2, "pca")
    assert projection.points.abs().max() < 1e-12
    assert projection.settings["variance_shares"][0] <= 1


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
def test_two_vectors_are_too_few(method):
    with pytest.raises(ValueError, match="at least 3"):
        project(torch.eye(2), method)


def test_the_sphere_is_plotted_as_published():
    quarter = math.pi / 2
    cases = {
        (0.0, 0.3): (None, 0.0),  # the pole: no longitude
        (quarter, 0.0): (quarter, quarter),  # x = 1: atan2(x, y) counts from the y axis
        (quarter, quarter): (0.0, quarter),  # y = 1
        (quarter, -quarter): (math.pi, quarter),
        (-quarter, 0.0): (-quarter, quarter),  # angles of any size come back
        (quarter + 2 * math.pi, 0.0): (quarter, quarter),
    }
    plane = sphere_to_plane(torch.tensor(list(cases), dtype=torch.float64))
    for (longitude, polar), expected in zip(plane.tolist(), cases.values(), strict=True):
        assert polar == pytest.approx(expected[1])
        if expected[0] is not None:
            assert longitude == pytest.approx(expected[0])


@pytest.mark.parametrize(
    ("method", "package", "named"),
    [("umap", "umap", "umap-learn"), ("tsne", "sklearn.manifold", "scikit-learn")],
)
def test_missing_packages_are_named(monkeypatch, method, package, named):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RainmerError, match=rf"needs {named}: pip install 'rainmer\[views\]'"):
        project(two_clouds(4), method)


def test_the_default_is_what_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    assert default_method() == "pca"


def test_umap_separates_two_clouds_on_the_sphere(needs):
    needs("umap")
    vectors = two_clouds(60)
    projection = project(vectors, "umap")
    again = project(vectors, "umap")
    assert torch.equal(projection.points, again.points)
    assert projection.settings == {"n_neighbors": 50, "min_dist": 0.0, "seed": 42}
    longitude, polar = projection.points.deg2rad().unbind(1)
    assert longitude.abs().max() <= math.pi
    assert polar.min() >= 0
    assert polar.max() <= math.pi
    on_sphere = torch.stack(
        [polar.sin() * longitude.sin(), polar.sin() * longitude.cos(), polar.cos()], dim=1
    )
    nearest = (on_sphere @ on_sphere.T).fill_diagonal_(-2).argmax(1)
    assert (nearest % 2 == torch.arange(60) % 2).float().mean() > 0.9


@pytest.mark.parametrize("count", [3, 4, 9, 10, 12])
@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_few_points(needs, method, count):
    needs("umap" if method == "umap" else "sklearn")
    projection = project(two_clouds(count), method)
    assert projection.points.shape == (count, 2)
    assert projection.points.isfinite().all()


@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_equal_vectors_have_a_place(needs, method):
    needs("umap" if method == "umap" else "sklearn")
    projection = project(two_clouds(1).repeat(12, 1), method)
    assert projection.points.isfinite().all()


def test_tsne_keeps_neighbours(needs):
    needs("sklearn")
    points = project(two_clouds(60), "tsne").points
    nearest = torch.cdist(points, points).fill_diagonal_(torch.inf).argmin(1)
    assert (nearest % 2 == torch.arange(60) % 2).float().mean() > 0.9
