"""`python -m rainmer.views`: sets of pictures become vectors, numbers and figures."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from rainmer.errors import (
    ConfigError,
    DatasetError,
    ImageError,
    OutputError,
    RainmerError,
    SpecError,
    WeightsError,
)
from rainmer.frames.images import read_image, write_image
from rainmer.models import PReNet, Rainmer, RainmerConfig, save_weights
from rainmer.views import default_method
from rainmer.views.__main__ import main
from tests.numerics import rounding

TINY = {"dim": 8, "base_dim": 16, "num_blocks": (1, 1, 1, 1)}
FIGURES = [
    f"{kind}-{view}.png" for kind in ("map", "similarity") for view in ("chromatic", "degradation")
]
COLOURS = {"red": (220, 40, 40), "blue": (30, 40, 200)}


def paint(folder, colour, count, seed=0):
    random = np.random.default_rng(seed)
    for index in range(count):
        noise = random.integers(-25, 26, (24, 30 + index, 3))
        frame = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
        write_image(folder / f"{index:02}.png", frame)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of plain red and of plain blue pictures."""
    root = tmp_path_factory.mktemp("sets")
    return {
        name: paint(root / name, colour, 8, seed)
        for seed, (name, colour) in enumerate(COLOURS.items())
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_weights(root / "tiny.safetensors", Rainmer(RainmerConfig(**TINY)))
    baseline = RainmerConfig.official("baseline", **TINY)
    save_weights(root / "baseline.safetensors", Rainmer(baseline))
    single = RainmerConfig.official("wochr", **TINY)
    save_weights(root / "wochr.safetensors", Rainmer(single))
    save_weights(root / "prenet.safetensors", PReNet(iterations=1))
    (root / "text.safetensors").write_text("no weights")
    return root


@pytest.fixture
def views(weights, tmp_path, monkeypatch):
    """Run the command on sets; figures take longest and are drawn only where a test wants them."""

    def run(
        *sets,
        more=("--method", "pca"),
        spec="rainmer:{weights}/tiny.safetensors",
        out="out",
        draw=False,
    ):
        if not draw:
            monkeypatch.setattr("rainmer.views.command.draw_views", lambda *_: None)
        arguments = ["--derain", spec.format(weights=weights), "--sets", *sets]
        arguments += ["--out", tmp_path / out, "--device", "cpu", "--quiet", *more]
        main(list(map(str, arguments)))
        return tmp_path / out

    return run


def both(folders):
    return [f"{name}:{folder}" for name, folder in folders.items()]


def rows_of(out):
    with (out / "views.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def measures(out):
    return json.loads((out / "views.json").read_text(encoding="utf-8"))


def vectors(rows):
    return torch.tensor([[float(row[f"v{index}"]) for index in range(16)] for row in rows])


# --- what it writes -------------------------------------------------------------------------------


def test_two_sets_become_vectors_numbers_and_figures(views, folders, capsys):
    out = views(*both(folders), draw=True)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*FIGURES, "views.csv", "views.json"]
    )
    for name in FIGURES:
        assert read_image(out / name).std() > 0
    rows = rows_of(out)
    assert [(row["view"], row["set"]) for row in rows] == [
        (view, name) for view in ("chromatic", "degradation") for name in COLOURS for _ in range(8)
    ]
    assert rows[0]["file"] == str(folders["red"] / "00.png")
    assert vectors(rows).norm(dim=1).allclose(torch.ones(32), atol=rounding(depth=1))
    content = measures(out)
    assert content["schema"] == 1
    assert content["derainer"]["name"] == "rainmer-tiny"
    assert [one["name"] for one in content["sets"]] == list(COLOURS)
    assert content["settings"]["images"] == 500
    for view in ("chromatic", "degradation"):
        one = content["views"][view]
        assert one["separability"]["accuracy"] == 1.0
        assert one["separability"]["chance"] == 0.5
        assert one["map"]["method"] == "pca"
        matrix = torch.tensor(one["similarity"])
        assert torch.equal(matrix, matrix.T)
        assert one["similarity_min"] == pytest.approx(float(matrix.min()), abs=rounding(depth=1))
        assert one["similarity_max"] == pytest.approx(float(matrix.max()), abs=rounding(depth=1))
        red, blue = (
            vectors([row for row in rows if (row["view"], row["set"]) == (view, name)])
            for name in COLOURS
        )
        assert one["similarity"][0][1] == pytest.approx(
            float((red @ blue.T).mean()), abs=rounding(depth=1)
        )
    printed = capsys.readouterr().out
    assert "chromatic: nearest centroid names the set of 100.0% of held-out images" in printed
    assert "embedded 16 images of 2 sets" in printed


def test_equal_sets_are_not_separated(views, folders):
    out = views(f"one:{folders['red']}", f"two:{folders['red']}")
    one = measures(out)["views"]["chromatic"]
    assert one["separability"]["accuracy"] == pytest.approx(0.5, abs=0.3)
    assert one["separability"]["silhouette"] < 0.05
    assert one["similarity"][0][0] == pytest.approx(one["similarity"][0][1], abs=rounding(depth=1))


def test_a_single_set_has_a_map_but_nothing_to_separate(views, folders):
    out = views(f"red:{folders['red']}", draw=True)
    one = measures(out)["views"]["chromatic"]
    assert one["separability"] is None
    assert len(one["similarity"]) == 1


def test_a_network_with_one_view(views, folders):
    out = views(*both(folders), spec="rainmer:{weights}/wochr.safetensors", draw=True)
    assert list(measures(out)["views"]) == ["degradation"]
    assert not (out / "map-chromatic.png").exists()


def test_the_rainy_images_of_a_layout(views, tmp_path, folders):
    for part, name in (("rain", "red"), ("norain", "blue")):
        paint(tmp_path / "pairs" / part, COLOURS[name], 4)
    out = views(f"mine:folders:{tmp_path / 'pairs'}")
    assert {row["file"] for row in rows_of(out)} == {
        str(tmp_path / "pairs" / "rain" / f"0{index}.png") for index in range(4)
    }


def test_drawing_is_decided_by_the_seed(views, folders):
    def files(seed, out):
        more = ("--method", "pca", "--images", 3, "--seed", seed)
        return [row["file"] for row in rows_of(views(*both(folders), more=more, out=out))]

    first = files(0, "first")
    assert len(first) == 2 * 2 * 3
    assert first == files(0, "again")
    assert first != files(1, "other")


def test_drawing_with_replacement_measures_distinct_images(views, folders):
    more = ("--method", "pca", "--images", 40, "--replace")
    out = views(*both(folders), more=more)
    assert len(rows_of(out)) == 2 * 2 * 40
    for one in measures(out)["sets"]:
        assert (one["images"], one["embedded"], one["distinct"]) == (8, 40, 8)


def test_a_second_run_replaces_results_and_does_not_read_them(views, folders, tmp_path):
    paint(tmp_path / "mine", (10, 200, 10), 3)
    for _ in range(2):
        out = views(f"mine:{tmp_path / 'mine'}", out="mine/out", draw=True)
        assert measures(out)["sets"][0]["images"] == 3


# --- maps -----------------------------------------------------------------------------------------


def test_without_the_extra_the_map_is_pca_and_a_line_says_so(views, folders, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "umap", None)
    with caplog.at_level("INFO"):
        out = views(*both(folders), more=())
    assert measures(out)["views"]["chromatic"]["map"]["method"] == "pca"
    assert "pip install 'rainmer[views]'" in caplog.text


def test_a_method_that_was_asked_for_is_not_replaced(views, folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(RainmerError, match="needs umap-learn"):
        views(*both(folders), more=("--method", "umap"))


@pytest.mark.parametrize(
    ("more", "method", "package"),
    [((), "umap", "umap"), (("--method", "tsne"), "tsne", "sklearn")],
)
def test_maps_of_the_extra(views, folders, more, method, package):
    pytest.importorskip(package, reason="needs the extra: rainmer[views]")
    out = views(*both(folders), more=more, draw=True)
    assert measures(out)["views"]["chromatic"]["map"]["method"] == method
    if method == "umap":
        assert default_method() == "umap"
        for row in rows_of(out):
            assert -180 <= float(row["map_x"]) <= 180
            assert 0 <= float(row["map_y"]) <= 180


# --- bad input ------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(tmp_path):
    folder = paint(tmp_path / "spoilt", (90, 90, 90), 5)
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "00.png").read_bytes()[:60])
    return folder


def test_broken_images_are_skipped_counted_and_named_at_the_end(views, folders, spoilt, tmp_path):
    with pytest.raises(ImageError, match="2 of 15 files could not be read in full") as raised:
        views(f"spoilt:{spoilt}", *both(folders)[:1], draw=True)
    assert "cut.png is truncated" in str(raised.value)
    assert "empty.png is empty" in str(raised.value)
    content = measures(tmp_path / "out")
    assert [one["embedded"] for one in content["sets"]] == [5, 8]
    assert len(content["sets"][0]["failures"]) == 2
    assert (tmp_path / "out" / "map-chromatic.png").exists()


def test_a_set_of_broken_images_is_an_error(views, folders, tmp_path):
    for name in "abc":
        (tmp_path / "broken").mkdir(exist_ok=True)
        (tmp_path / "broken" / f"{name}.png").write_bytes(b"\x89PNG")
    with pytest.raises(DatasetError, match=r"gives 0 images, but at least 3 .* 3 could not"):
        views(f"broken:{tmp_path / 'broken'}", *both(folders))
    assert not (tmp_path / "out" / "views.csv").exists()


@pytest.mark.parametrize(
    ("sets", "error", "message"),
    [
        (["one:{here}/empty"], ImageError, "holds no images"),
        (["one:{here}/nothing"], ImageError, "no file or folder"),
        (["{here}/two"], ConfigError, "is not NAME:FOLDER"),
        (["one:{here}/two"], DatasetError, "has 2 images, but at least 3"),
        (["one:{here}/two", "one:{here}/empty"], ConfigError, "two sets are named 'one'"),
        (["one:nothing:{here}/two"], ConfigError, "no layout 'nothing'"),
        (["one:{here}/out"], OutputError, "is the folder of a set"),
    ],
)
def test_sets_that_cannot_be_used(views, tmp_path, sets, error, message):
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "two", (1, 2, 3), 2)
    paint(tmp_path / "out", (1, 2, 3), 3)
    with pytest.raises(error, match=message):
        views(*(text.format(here=tmp_path) for text in sets))
    assert not (tmp_path / "out" / "views.csv").exists()


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("prenet:{weights}/prenet.safetensors", SpecError, "prenet has no views"),
        ("rainmer:{weights}/baseline.safetensors", SpecError, "built without views"),
        ("rainmer:{weights}/prenet.safetensors", WeightsError, "the weights are of prenet"),
        ("rainmer:{weights}/text.safetensors", WeightsError, "text.safetensors"),
        ("rainmer:{weights}/nothing.safetensors", WeightsError, "nothing.safetensors"),
        ("median", SpecError, "median has no views"),
        ("results:{weights}", SpecError, "has no views"),
        ("nonsense", SpecError, "unknown derainer"),
    ],
)
def test_networks_that_cannot_embed(views, folders, tmp_path, spec, error, message):
    with pytest.raises(error, match=message):
        views(*both(folders), spec=spec)
    assert not (tmp_path / "out").exists()


def test_too_few_images_asked_for(views, folders):
    with pytest.raises(ConfigError, match="--images 2: at least 3"):
        views(*both(folders), more=("--images", 2))


def test_the_process_ends_with_one_line_and_code_2(weights, spoilt, tmp_path):
    command = [sys.executable, "-m", "rainmer.views", "--derain"]
    command += [f"rainmer:{weights / 'tiny.safetensors'}", "--sets", f"spoilt:{spoilt}"]
    command += ["--out", str(tmp_path / "out"), "--method", "pca", "--device", "cpu", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: 2 of 7 files could not be read in full")
    assert "embedded 5 images of 1 set;" in done.stdout
