"""Figures hold what they say, for names of any kind."""

import pytest
import torch

from rainmer.figures import save_figure
from rainmer.frames.images import read_image
from rainmer.views.figures import map_figure, similarity_figure
from rainmer.views.projection import Projection


def projection(count, method="pca"):
    return Projection(torch.randn(count, 2, dtype=torch.float64), method, ("east", "north"), {})


@pytest.mark.parametrize("sets", [1, 10, 12, 55])
def test_a_map_has_all_points_and_names(tmp_path, sets):
    names = ["_hidden", "cost $5$", "雨", *(f"set {index}" for index in range(3, 55))][:sets]
    members = torch.arange(sets).repeat(3)
    figure = map_figure(projection(3 * sets), members, names, "A title", "and more")
    (axes,) = figure.axes
    assert sum(len(one.get_offsets()) for one in axes.collections) == 3 * sets
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [f"{name} (3)" for name in names]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("east", "north")
    save_figure(tmp_path / "map.png", figure)
    assert read_image(tmp_path / "map.png").std() > 0


def test_the_sphere_is_shown_whole():
    figure = map_figure(projection(4, "umap"), torch.zeros(4, dtype=torch.long), ["a"], "", "")
    low, high = sorted(figure.axes[0].get_xlim())
    assert low <= -180 < 180 <= high


@pytest.mark.parametrize("sets", [1, 2, 14])
def test_a_heat_map_has_all_values(tmp_path, sets):
    matrix = torch.eye(sets, dtype=torch.float64) - 0.001
    names = [f"a rather long name of set {index}" for index in range(sets)]
    figure = similarity_figure(matrix, names, "A title")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("1.00" if sets > 1 else "0.999") == sets
    assert texts.count("0.00") == sets * (sets - 1)
    save_figure(tmp_path / "heat.png", figure)
    assert read_image(tmp_path / "heat.png").std() > 0
