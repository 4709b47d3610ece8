"""The look of figures: what is drawn in it, and the files."""

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from rainmer.errors import OutputError
from rainmer.figures import INK, color_of, draw_grid, marker_of, save_figure, styled
from rainmer.frames.images import read_image


@styled
def chart():
    figure = Figure(figsize=(2, 1))
    axes = figure.add_subplot()
    axes.plot([0, 1], [1, 0], color=color_of(0), marker=marker_of(0), label="cost $5$ 雨")
    axes.legend()
    draw_grid(axes)
    return figure


def test_the_style_ends_with_the_drawing():
    before = dict(mpl.rcParams)
    assert chart().axes[0].xaxis.label.get_color() == INK
    assert dict(mpl.rcParams) == before


def test_series_repeat_colors_and_markers():
    assert len({color_of(i) for i in range(20)}) == 8
    assert color_of(8) == color_of(0)
    assert marker_of(8) == marker_of(0) != marker_of(1)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_figure_is_the_same_file_every_time(tmp_path, suffix):
    paths = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for path in paths:
        save_figure(path, chart())
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_files_are_on_white(tmp_path):
    save_figure(tmp_path / "a.PNG", chart())
    image = read_image(tmp_path / "a.PNG")
    assert image.shape == (160, 320, 3)
    assert (image[0, 0] == 255).all()
    save_figure(tmp_path / "a.svg", chart())
    assert "fill: #ffffff" in (tmp_path / "a.svg").read_text()


def test_a_folder_in_the_way_is_said(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match=r"a\.png"):
        save_figure(tmp_path / "a.png", chart())
