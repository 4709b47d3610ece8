"""`python -m rainmer.rain`: pairs, masks, boxes and videos."""

import itertools
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from rainmer.data.depth import read_depth, write_depth
from rainmer.errors import ConfigError, DatasetError, ImageError, OutputError
from rainmer.frames.images import read_image, write_image
from rainmer.frames.video import VideoWriter, open_video
from rainmer.rain.__main__ import main
from tests.videos import distance, record

SIZE = (48, 64)
KINDS = ("rainy", "clean", "alpha")


def picture(level=110):
    frame = np.full((*SIZE, 3), level, np.uint8)
    frame[:20] = (190, 205, 235)
    return frame


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    write_image(folder / "a.png", picture())
    write_image(folder / "b.jpg", picture(60))
    write_image(folder / "sub/a.png", picture(80)[:32, :40])
    return folder


@pytest.fixture
def rain(tmp_path):
    def run(*arguments, preset="day", out="out"):
        options = ["--out", tmp_path / out, "--preset", preset, "--device", "cpu", "--quiet"]
        main([*map(str, arguments), *map(str, options)])
        return tmp_path / out

    return run


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))


@pytest.mark.parametrize("preset", ["day", "night", "streaks"])
def test_folders_become_pairs_and_masks(photos, rain, preset, capsys):
    out = rain(photos, preset=preset)
    names = ["a.png", "b.png", "sub/a.png"]
    assert files(out) == sorted(
        f"{kind}/{n}" for kind in ("alpha", "clean", "rainy") for n in names
    )
    for name in names:
        rainy, clean, alpha = (
            read_image(out / kind / name) for kind in ("rainy", "clean", "alpha")
        )
        assert rainy.shape == clean.shape == alpha.shape
        assert alpha.max() > 0
        assert not np.array_equal(rainy, clean)
    assert (preset == "night") == (read_image(out / "clean/a.png").mean() < 70)
    assert "rendered 3 images" in capsys.readouterr().out
    assert yaml.safe_load((out / "set.yaml").read_text())["annotations"] is None


def test_batches_do_not_change_pixels(photos, rain):
    one, many = rain(photos, "--batch", 1, out="one"), rain(photos, "--batch", 8, out="many")
    for name in files(one):
        assert (one / name).read_bytes() == (many / name).read_bytes()


def test_a_second_run_goes_on_and_another_seed_starts_anew(photos, rain):
    out = rain(photos)
    times = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    (out / "rainy/b.png").unlink()
    rain(photos)
    later = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    assert {name.split("/", 1)[1] for name in times if later[name] != times[name]} == {"b.png"}
    before = read_image(out / "rainy/a.png")
    rain(photos, "--seed", 1)
    assert not np.array_equal(read_image(out / "rainy/a.png"), before)


def test_the_rate_is_the_severity(photos, rain):
    errors = []
    for rate in (5, 50, 200):
        out = rain(photos, "--rate", rate, out=str(rate))
        rainy, clean = (
            read_image(out / kind / "a.png").astype(float) for kind in ("rainy", "clean")
        )
        errors.append(np.square(rainy - clean).mean())
    assert errors == sorted(errors)


def instances():
    boxes = [("a.png", [10, 22, 20, 20]), ("b.jpg", [0, 0, 64, 48]), ("b.jpg", [50, 40, 30, 30])]
    images = ["a.png", "b.jpg"]
    return {
        "images": [
            {"id": i, "file_name": n, "height": 48, "width": 64} for i, n in enumerate(images, 1)
        ],
        "categories": [{"id": 3, "name": "car"}],
        "annotations": [
            {"id": i, "image_id": 1 + images.index(n), "category_id": 3, "bbox": box}
            for i, (n, box) in enumerate(boxes, 1)
        ],
    }


def test_boxes_learn_how_much_rain_hides(photos, rain, tmp_path):
    (tmp_path / "boxes.json").write_text(json.dumps(instances()))
    out = rain(
        photos / "a.png", photos / "b.jpg", "--boxes", tmp_path / "boxes.json", "--rate", 150
    )
    content = json.loads((out / "instances.json").read_text())
    assert [i["file_name"] for i in content["images"]] == ["a.png", "b.png"]
    assert [a["bbox"] for a in content["annotations"]][2] == [50, 40, 14, 8]  # cut at the border
    for annotation in content["annotations"]:
        name = content["images"][annotation["image_id"] - 1]["file_name"]
        left, top, width, height = (int(v) for v in annotation["bbox"])
        mask = read_image(out / "alpha" / name)[top : top + height, left : left + width] / 255
        assert annotation["rain_occlusion"] == pytest.approx(mask.mean(), abs=0.002)
        assert 0 < annotation["rain_transmission"] <= 1
    assert yaml.safe_load((out / "set.yaml").read_text())["annotations"] == "instances.json"


def test_yolo_labels(photos, rain, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    out = rain(photos / "a.png", "--boxes", tmp_path / "labels", "--names", "car")
    content = json.loads((out / "instances.json").read_text())
    assert [a["bbox"] for a in content["annotations"]] == [[24.0, 12.0, 16.0, 24.0]]
    with pytest.raises(DatasetError, match="--names"):
        rain(photos / "a.png", "--boxes", tmp_path / "labels")


def test_depth_maps(photos, rain, tmp_path):
    write_depth(tmp_path / "depth" / "a.png", np.full(SIZE, 0.2, np.float32))
    out = rain(photos / "a.png", "--depth", tmp_path / "depth")
    assert read_image(out / "alpha/a.png").max() == 0
    np.save(tmp_path / "depth" / "b.npy", np.full(SIZE, 50.0))
    out = rain(photos / "b.jpg", "--depth", tmp_path / "depth", out="far")
    assert read_image(out / "alpha/b.png").max() > 0
    write_depth(tmp_path / "depth" / "a.png", np.full((5, 5), 2.0, np.float32))
    with pytest.raises(ImageError, match=r"a\.png is 5x5 pixels"):
        rain(photos / "a.png", "--depth", tmp_path / "depth", out="other")


def test_depth_files_round_trip(tmp_path):
    depth = np.array([[0.5, 12.344], [655.0, 9000.0]], np.float32)
    write_depth(tmp_path / "d.png", depth)
    assert np.allclose(read_depth(tmp_path / "d.png"), [[0.5, 12.34], [655.0, 655.35]], atol=0.006)
    write_image(tmp_path / "photo.png", picture())
    with pytest.raises(ImageError, match="16-bit"):
        read_depth(tmp_path / "photo.png")
    np.save(tmp_path / "text.npy", np.array(["a"]))
    with pytest.raises(ImageError, match="no array of numbers"):
        read_depth(tmp_path / "text.npy")


@pytest.mark.parametrize("preset", ["day", "night"])
def test_videos_get_drops_that_move(rain, tmp_path, preset):
    with VideoWriter(tmp_path / "drive.mp4", fps=10.0, size_hw=SIZE) as writer:
        for _ in range(6):
            writer.write(picture())
    out = rain(tmp_path / "drive.mp4", "--video", "--rate", 120, "--batch", 4, preset=preset)
    with open_video(out / "rainy/drive.mp4") as video, open_video(out / "clean/drive.mp4") as dry:
        assert video.fps == pytest.approx(10.0)
        frames, clean = ([frame.image for frame in clip] for clip in (video, dry))
    assert len(frames) == len(clean) == 6
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(frames))
    assert (np.mean(clean) < 70) == (preset == "night")


def test_rain_falls_by_the_clock_not_by_the_frame(rain, tmp_path):
    """A frame at a time gets the same rain, however many frames came before."""
    pictures = {}
    for name, times_s in (("even", [0, 0.1, 0.2, 0.3]), ("uneven", [0, 0.3])):
        record(tmp_path / name / "drive.mp4", times_s, size_hw=SIZE, frame=lambda *_: picture())
        out = rain(tmp_path / name / "drive.mp4", "--rate", 120, preset="streaks")
        with open_video(out / "rainy/drive.mp4") as video:
            pictures[name] = {round(frame.time_s, 3): frame.image for frame in video}
    even, uneven = pictures["even"], pictures["uneven"]
    assert list(uneven) == [0, 0.3]
    assert distance(uneven[0.3], even[0.3]) < 0.5 * distance(uneven[0.3], even[0.1])


def test_an_image_becomes_a_clip(photos, rain):
    out = rain(photos / "sub/a.png", "--video", "0.4", "--fps", 10)
    with open_video(out / "rainy/a.mp4") as video:
        assert video.size_hw == (32, 40)
        assert len(list(video)) == 4


def test_images_of_all_kinds(tmp_path, rain):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("L", (9, 7), 120).save(folder / "grey.png")
    Image.new("RGBA", (9, 7), (10, 200, 30, 40)).save(folder / "alpha.png")
    Image.new("CMYK", (9, 7)).save(folder / "cmyk.jpg")
    Image.fromarray(np.full((7, 9), 40000, np.uint16)).save(folder / "deep.png")
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    out = rain(folder)
    assert len(files(out)) == 15
    assert read_image(out / "rainy/pixel.png").shape == (1, 1, 3)


def test_a_broken_image_costs_no_other(photos, rain, tmp_path):
    (photos / "b.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    with pytest.raises(ImageError, match=r"1 of 3 files could not be read.*b\.jpg"):
        rain(photos)
    assert len(files(tmp_path / "out")) == 6


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["--rate", "-5"], ConfigError, "not within 0..300"),
        (["--rate", "9999"], ConfigError, "not within 0..300"),
        (["--rate", "nan"], ConfigError, "no range"),
        (["--preset", "strom"], ConfigError, "no rain preset"),
        (["--boxes", "none.json"], DatasetError, "cannot read"),
        (["--depth", "none"], DatasetError, "no depth map"),
        (["--rain", "none.yaml"], ConfigError, "cannot read"),
    ],
)
def test_mistakes_are_named(photos, tmp_path, arguments, error, said):
    with pytest.raises(error, match=said):
        main([str(photos), "--out", str(tmp_path / "out"), "--quiet", *arguments])


def test_fields_of_the_rain_come_from_a_file(photos, rain, tmp_path):
    (tmp_path / "rain.yaml").write_text("lens_drops: 8\nwind_m_s: [3, 5]\n")
    out = rain(photos / "a.png", "--rain", tmp_path / "rain.yaml")
    assert json.loads((out / "rain.json").read_text())["rain"]["wind_m_s"] == [3.0, 5.0]
    (tmp_path / "rain.yaml").write_text("lens_drop: 8\n")
    with pytest.raises(ConfigError, match="did you mean 'lens_drop"):
        rain(photos / "a.png", "--rain", tmp_path / "rain.yaml")


def test_inputs_are_never_overwritten(photos, tmp_path):
    with pytest.raises(OutputError, match="is the input folder"):
        main([str(photos), "--out", str(photos)])
    write_image(photos / "a.jpg", picture())
    with pytest.raises(OutputError, match="same name"):
        main([str(photos), "--out", str(tmp_path / "out"), "--quiet"])


def test_pictures_do_not_depend_on_threads(photos, rain):
    one = rain(photos, out="one")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = rain(photos, out="two")
    finally:
        torch.set_num_threads(threads)
    for name in files(one):
        a, b = read_image(one / name).astype(int), read_image(two / name).astype(int)
        assert np.abs(a - b).max() <= 1


def test_linked_folders_are_rendered(photos, rain, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "day").symlink_to(photos)
    (photos / "loop").symlink_to(tmp_path / "linked")
    assert "rainy/day/sub/a.png" in files(rain(tmp_path / "linked", preset="streaks"))
    assert len(files(tmp_path / "out")) == 9
