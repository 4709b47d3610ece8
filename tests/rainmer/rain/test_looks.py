"""What rainy pictures look like: numbers of single pictures, and the command's table."""

import numpy as np
import pytest

from rainmer.errors import ImageError
from rainmer.frames.images import write_image
from rainmer.rain.looks import main, measure_looks


def picture(low=40, high=200):
    """Dark and bright stripes 40 pixels wide, in 360 x 640 pixels."""
    stripes = np.where(np.arange(640) // 40 % 2, high, low).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(stripes[None, :, None], (360, 640, 3)))


def test_stripes_by_hand():
    looks = measure_looks(picture())
    assert looks.luminance == pytest.approx(120)
    assert looks.contrast == pytest.approx(80 / 120, abs=1e-3)
    # Two columns at each of 15 edges: Sobel spreads a step of 160 over both, half each.
    assert looks.road_gradient == pytest.approx(80 * 30 / 640, rel=0.01)
    # 8 dark stripes of 40 columns, which grow by 7 at each of the 15 edges.
    dark = (8 * 40 + 15 * 7) / 640
    assert looks.dark_channel == pytest.approx(dark * 40 + (1 - dark) * 200, rel=0.01)
    assert looks.specks == 0


def test_haze_lowers_contrast_and_raises_the_dark_channel_and_drops_are_specks():
    dry, hazy = measure_looks(picture()), measure_looks(picture(110, 180))
    assert hazy.contrast < dry.contrast
    assert hazy.road_gradient < dry.road_gradient
    assert hazy.dark_channel > dry.dark_channel
    dotted = picture()
    dotted[20::40, 20::40] = 255
    assert measure_looks(dotted).specks > 0


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 500), (300, 2), (721, 1283)])
def test_any_size(size_hw):
    looks = measure_looks(np.full((*size_hw, 3), 90, np.uint8))
    assert looks.luminance == pytest.approx(90)
    assert looks.contrast == looks.specks == looks.road_gradient == 0


def test_the_table_has_a_row_for_each_folder(tmp_path, capsys):
    for name, high in (("real", 200), ("wet", 150)):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "a.png", picture(40, high))
    main([str(tmp_path / "real"), str(tmp_path / "wet"), "--quiet"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "| 1 | 120 |" in lines[2]
    assert "| 1 | 95 |" in lines[3]


def test_a_folder_without_pictures_is_named(tmp_path):
    with pytest.raises(ImageError, match="holds no image"):
        main([str(tmp_path), "--quiet"])
