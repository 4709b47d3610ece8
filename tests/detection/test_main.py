import json
import re
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from detection.__main__ import main
from detection.run.sources import find_sources
from rainmer.errors import ImageError, OutputError, RainmerError
from rainmer.frames.images import read_image, write_image
from rainmer.frames.video import VideoWriter, open_video
from tests.detection.conftest import SHARED, make_frame, make_yolo
from tests.detection.run.servers import MjpegServer, jpeg, part, pictures
from tests.images import FORMATS, encoded, with_orientation
from tests.videos import record, sound_of, zero_avi_frame


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    make_yolo().save(path)
    return str(path)


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "rainy"
    for i, name in enumerate(["0.png", "1.png", "night/2.png"]):
        write_image(folder / name, make_frame(60, 91, i))
    return folder


def run(source, weights: str, out: Path, *options: str, derain: str = "median") -> list[dict]:
    fixed = ["--device", "cpu", "--imgsz", "96", "--conf", "0.1", "--quiet"]
    main(
        [
            *(map(str, source) if isinstance(source, list) else [str(source)]),
            "--derain",
            derain,
            "--detector",
            weights,
            "--out",
            str(out),
            *fixed,
            *options,
        ]
    )
    return records(out)


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]


def test_records_and_summary(images, weights, tmp_path, capsys):
    found = run(images, weights, tmp_path / "out")

    assert [record["name"] for record in found] == ["0.png", "1.png", "night/2.png"]
    assert sum(len(record["boxes"]) for record in found) > 10
    assert found[0]["width"] == 91
    assert set(found[0]["boxes"][0]) == {"xyxy", "score", "label", "class"}
    summary = json.loads((tmp_path / "out" / "run.json").read_text())["summary"]
    assert summary["boxes"] == sum(len(record["boxes"]) for record in found)
    out = capsys.readouterr().out
    rows = dict(line.rsplit(maxsplit=1) for line in out.splitlines())
    assert re.search(r"^ms per frame: decode \S+, upload .* s in all, \S+ frames/s$", out, re.M)
    assert int(rows["frames"]) == 3
    assert int(rows["boxes"]) == summary["boxes"]
    assert float(rows["ms derain"]) > 0
    assert not (tmp_path / "out" / "images").exists()


def test_boxes_are_those_of_the_derained_image(images, weights, tmp_path):
    derained = tmp_path / "derained"
    for path in images.glob("*.png"):
        frame = read_image(path)
        write_image(derained / path.name, np.ascontiguousarray(cv2.medianBlur(frame, 5)))

    ours = run(images, weights, tmp_path / "a")
    theirs = run(derained, weights, tmp_path / "b", derain="none")

    assert [r["boxes"] for r in ours[:2]] == [r["boxes"] for r in theirs]


def test_saved_images_keep_their_names(images, weights, tmp_path):
    run(images, weights, tmp_path / "out", "--save", "--limit", "2")
    alone = read_image(tmp_path / "out" / "images" / "0.png")
    run(images, weights, tmp_path / "out", "--save", "--side-by-side")

    assert alone.shape == (60, 91, 3)
    for name in ("0.png", "1.png", "night/2.png"):
        composed = read_image(tmp_path / "out" / "images" / name)
        assert composed.shape[0] > 60
        assert composed.shape[1] > 2 * 91


def test_network_mode_times_the_derainer(images, weights, tmp_path):
    found = run(images, weights, tmp_path / "out", "--where", "network")

    assert all(record["derain_ms"] > 0 for record in found)


def test_video(weights, tmp_path):
    write_video(tmp_path / "drive.mp4")

    found = run(tmp_path / "drive.mp4", weights, tmp_path / "out", "--save", "--batch", "2")

    assert [(r["source"], r["name"]) for r in found] == [
        ("drive.mp4", "000000"),
        ("drive.mp4", "000001"),
        ("drive.mp4", "000002"),
    ]
    with open_video(tmp_path / "out" / "drive.mp4") as video:
        assert (video.fps, video.frame_count, video.size_hw) == (5.0, 3, (48, 64))


def test_objects_of_videos_are_numbered(weights, tmp_path):
    """Each video has numbers of its own, and weak detections stay where a track has them."""
    for name in ("a", "b"):
        with VideoWriter(tmp_path / f"{name}.mp4", fps=5, size_hw=(64, 96)) as writer:
            for _ in range(4):
                writer.write(make_frame(64, 96, ord(name)))
    both = run([tmp_path / "a.mp4", tmp_path / "b.mp4"], weights, tmp_path / "both", "--track")
    alone = run(tmp_path / "a.mp4", weights, tmp_path / "alone", "--track")
    boxes = [[line["boxes"] for line in lines if "a" in line["source"]] for lines in (both, alone)]
    assert boxes[0] == boxes[1]
    numbers = [[box.get("track") for box in frame] for frame in boxes[1]]
    assert set(numbers[0]) & set(numbers[-1]) - {None}
    assert all(box["score"] >= 0.1 or "track" in box for frame in boxes[1] for box in frame)


def test_images_are_not_tracked(images, weights, tmp_path):
    with pytest.raises(RainmerError, match=r"--track needs videos or streams, but .* are images"):
        run(images, weights, tmp_path / "out", "--track")


def test_frames_are_shown(images, weights, tmp_path, monkeypatch):
    shown = []

    class Window:
        def __init__(self, titles):
            self.titles = titles

        def show(self, title, picture):
            shown.append((self.titles == [title], picture.shape))

    monkeypatch.setattr("detection.run.streams.Window", Window)
    run(images, weights, tmp_path / "out", "--show", "--side-by-side")
    assert [first for first, _ in shown] == [True] * 3
    assert all(shape[1] > 2 * 90 for _, shape in shown)


@pytest.mark.parametrize("limit", [None, 6])
def test_times_and_sound_of_a_video(weights, tmp_path, limit):
    times_s = [i / 10 for i in range(8)] + [1.5, 2.0, 2.5]
    record(tmp_path / "drive.mp4", times_s, sound=True)
    options = () if limit is None else ("--limit", str(limit))

    found = run(tmp_path / "drive.mp4", weights, tmp_path / "out", "--save", *options)

    assert [r["frame"] for r in found] == list(range(limit or 11))
    assert [r["time_s"] for r in found] == pytest.approx(times_s[:limit])
    with open_video(tmp_path / "out" / "drive.mp4") as video:
        assert [frame.time_s for frame in video] == pytest.approx(times_s[:limit])
    theirs, ours = (sound_of(tmp_path / name) for name in ("drive.mp4", "out/drive.mp4"))
    kept = [content for time_s, content in theirs if limit is None or time_s < 0.6]
    assert len(ours) == pytest.approx(len(kept), abs=2)
    assert [content for _, content in ours[: len(kept)]] == kept[: len(ours)]


def test_a_damaged_frame_is_named_and_later_ones_keep_their_names(weights, tmp_path):
    write_video(tmp_path / "drive.avi", frames=6)
    zero_avi_frame(tmp_path / "drive.avi", 2)

    for _ in range(2):
        with pytest.raises(ImageError, match=r"drive\.avi: 1 damaged frame left out: 2 \(0\.400 s"):
            run(tmp_path / "drive.avi", weights, tmp_path / "out", "--save")

    found = records(tmp_path / "out")
    assert [r["name"] for r in found] == ["000000", "000001", "000003", "000004", "000005"]
    assert [r["time_s"] for r in found] == pytest.approx([0, 0.2, 0.6, 0.8, 1.0])


def test_videos_go_through_together_as_they_would_alone(weights, tmp_path):
    for name, frames in (("left.mp4", 5), ("right.avi", 3), ("third.mp4", 2)):
        write_video(tmp_path / "in" / name, frames)
    options = ("--save", "--side-by-side", "--batch", "4")

    together = run(tmp_path / "in", weights, tmp_path / "out", *options, "--streams", "2")

    for name in ("left.mp4", "right.avi", "third.mp4"):
        alone = run(tmp_path / "in" / name, weights, tmp_path / name, *options)
        ours = [record for record in together if record["source"] == name]
        assert [r["name"] for r in ours] == [r["name"] for r in alone]
        for one, other in zip(ours, alone, strict=True):
            assert [box["label"] for box in one["boxes"]] == [b["label"] for b in other["boxes"]]
        saved = Path(name).with_suffix(".mp4")
        with (
            open_video(tmp_path / "out" / saved) as one,
            open_video(tmp_path / name / saved) as other,
        ):
            for ours, theirs in zip(one, other, strict=True):
                assert ours.time_s == theirs.time_s
                assert np.array_equal(ours.image, theirs.image)
    order = [record["source"] for record in together]
    assert order[:4] == ["left.mp4", "right.avi", "left.mp4", "right.avi"]


def test_sources_of_one_name_stay_apart(weights, tmp_path):
    write_video(tmp_path / "a.mp4")
    write_image(tmp_path / "in" / "a.mp4" / "0.png", make_frame(48, 64))
    write_video(tmp_path / "in" / "b" / "a.mp4")

    found = run(tmp_path / "in" / "a.mp4", weights, tmp_path / "out", "--limit", "2")
    main_sources = find_sources([str(tmp_path / "in" / "a.mp4"), str(tmp_path / "a.mp4")])

    assert [(r["source"], r["name"]) for r in found] == [("a.mp4", "0.png")]
    assert [source.name for source in main_sources] == ["a.mp4-2", "a.mp4"]


def test_size_that_changes_within_a_stream_is_fitted(weights, tmp_path):
    sizes_hw, patient = {2: (64, 64), 3: (33, 21)}, ("--max-latency", "60")

    def plan(_):
        for number in range(4):
            yield part(jpeg(number + 20, *sizes_hw.get(number, (48, 64))))

    with MjpegServer(plan) as server:
        found = run(server.url, weights, tmp_path / "out", "--save", "--limit", "4", *patient)

    assert [(r["height"], r["width"]) for r in found] == [(48, 64), (48, 64), (64, 64), (33, 21)]
    assert [r["frame"] for r in found] == [0, 1, 2, 3]
    assert [r["captured"] for r in found] == sorted(r["captured"] for r in found)
    with open_video(tmp_path / "out" / "live-video.mp4") as video:
        pictures = [frame.image for frame in video]
    assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 4
    assert pictures[2][:, :7].mean() < 16 < pictures[2][:, 16:48].mean()  # black at its side


def test_stream_that_breaks_off_is_reported_and_the_others_are_complete(
    weights, tmp_path, capsys, caplog
):
    write_video(tmp_path / "good.mp4", 4)
    options = ("--save", "--reconnect", "0", "--timeout", "0.3", "--max-latency", "60")

    with MjpegServer(lambda _: pictures(0, 6)) as server:
        address = server.url.replace("//", "//user:secret@") + "?password=secret"
        message = rf"^1 of 2 sources .* the stream {server.url} has broken off after 6 frames: "
        with pytest.raises(ImageError, match=message) as raised:
            run([address, tmp_path / "good.mp4"], weights, tmp_path / "out", *options)

    found = Counter(record["source"] for record in records(tmp_path / "out"))
    assert found == {"live-video": 6, "good.mp4": 4}
    with open_video(tmp_path / "out" / "good.mp4") as video:
        assert len(list(video)) == 4
    run_json = (tmp_path / "out" / "run.json").read_text()
    summary = json.loads(run_json)["summary"]
    assert summary["failures"] == 1
    timing = summary["timing"]
    assert set(timing["stage_ms"]) == {
        "decode", "upload", "derain", "letterbox", "detect", "write",
    }  # fmt: skip
    assert all(timing["stage_ms"][stage] > 0 for stage in ("decode", "derain", "detect", "write"))
    assert timing["frames_per_s"] == pytest.approx(10 / timing["wall_s"], rel=0.01)
    counts = {"received": 6, "dropped": 0, "damaged": 0, "reconnects": 0, "offline_s": 0.0}
    assert timing["live"] == {"live-video": counts}
    printed = capsys.readouterr().out
    assert "live-video: 6 frames came, 0 dropped to keep up, 0 damaged; 0 reconnects" in printed
    assert "secret" not in run_json + printed + caplog.text + str(raised.value)
    assert not any("secret" in str(path) for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("option", ["--max-latency", "--timeout", "--frozen"])
@pytest.mark.parametrize("value", ["-1", "soon", "nan", "inf"])
def test_times_that_are_none(option, value, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["0", "--detector", "none.pt", f"{option}={value}"])
    assert f"{value} is not a number of seconds above 0" in capsys.readouterr().err


def test_classes_by_name_and_number(images, weights, tmp_path):
    found = run(images, weights, tmp_path / "out", "--classes", "3", "5")

    assert {box["label"] for record in found for box in record["boxes"]} <= {3, 5}
    with pytest.raises(RainmerError, match="knows no class 'dragon'"):
        run(images, weights, tmp_path / "out", "--classes", "dragon")


def write_video(path, frames: int = 3):
    with VideoWriter(path, fps=5, size_hw=(48, 64)) as writer:
        for i in range(frames):
            writer.write(make_frame(48, 64, i))


def test_what_cannot_be_read_is_counted_and_the_rest_is_kept(images, weights, tmp_path, capsys):
    (images / "broken.png").write_bytes(b"no image")
    (images / "dangling.png").symlink_to("gone.png")
    (images / "empty.png").mkdir()
    (images / "broken.mp4").write_bytes(b"no video")
    write_video(images / "cut.avi", frames=20)
    content = (images / "cut.avi").read_bytes()
    (images / "cut.avi").write_bytes(content[: len(content) // 2])
    write_video(images / "good.avi", frames=2)
    out = tmp_path / "out"

    with pytest.raises(
        ImageError, match=r"^4 of 8 files could not be .*broken\.png.*and 1 more$"
    ) as caught:
        run(images, weights, out, "--save")

    frames = Counter(record["source"] for record in records(out))
    assert frames.pop("cut.avi") in range(1, 20)
    assert frames == {"rainy": 3, "good.avi": 2}
    written = json.loads((out / "run.json").read_text())
    assert written["summary"]["failures"] == len(written["failures"]) == 4
    assert any(re.search(r"cut\.avi: .*ends early", line) for line in written["failures"])
    assert "\n" not in str(caught.value)
    assert "results in" in capsys.readouterr().out
    saved = sorted(path.name for path in out.rglob("*") if path.suffix in {".mp4", ".png"})
    assert saved == ["0.png", "1.png", "2.png", "cut.mp4", "good.mp4"]


def test_nothing_readable(weights, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"^1 of 1 file could not be read"):
        run(tmp_path / "broken.png", weights, tmp_path / "out")


def test_saved_results_replace_neither_each_other_nor_inputs(weights, tmp_path, monkeypatch):
    write_video(tmp_path / "ok.mp4")
    write_video(tmp_path / "ok.avi")
    write_image(tmp_path / "images" / "0.png", make_frame(60, 91))
    before = (tmp_path / "ok.mp4").read_bytes()
    for source, out, message in [
        (".", "out", r"ok\.avi and ok\.mp4 would both become out/ok\.mp4"),
        ("ok.mp4", ".", r"the result of ok\.mp4 would replace the input ok\.mp4"),
        ("ok.avi", ".", r"ok\.mp4 exists and is not a result of this command"),
        ("images", ".", r"the result of images/0\.png would replace the input images/0\.png"),
    ]:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(OutputError, match=message):
            run(source, weights, Path(out), "--save")
    found = run(".", weights, tmp_path / "out")
    assert {record["source"] for record in found} == {"images", "ok.avi", "ok.mp4"}
    assert (tmp_path / "ok.mp4").read_bytes() == before


def test_interrupted_run_goes_on(images, weights, tmp_path, monkeypatch):
    (tmp_path / "interrupting.py").write_text(
        "from pathlib import Path\n"
        "calls = []\n"
        "def derain(batch):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2:\n"
        "        raise KeyboardInterrupt\n"
        "    return batch\n"
        "derain.fingerprint = '1'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = {"derain": "python:interrupting:derain"}

    with pytest.raises(KeyboardInterrupt):
        run(images, weights, tmp_path / "out", "--batch", "1", **options)
    assert [r["name"] for r in records(tmp_path / "out")] == ["0.png"]
    with (tmp_path / "out" / "detections.jsonl").open("a") as file:
        file.write('{"source": "rai')  # as a killed process may leave it
    again = run(images, weights, tmp_path / "out", "--batch", "1", **options)
    calls = len(sys.modules["interrupting"].calls)
    fresh = run(images, weights, tmp_path / "out", "--batch", "1", **options)

    assert [r["name"] for r in again] == ["0.png", "1.png", "night/2.png"]
    assert calls == 2 + 2
    assert len(sys.modules["interrupting"].calls) == calls + 3
    assert [r["boxes"] for r in fresh] == [r["boxes"] for r in again]


@pytest.mark.parametrize(
    "options", [["--side-by-side"], ["--save", "--side-by-side", "--where", "network"]]
)
def test_options_that_exclude_each_other(options, images, weights, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(images, weights, tmp_path / "out", *options)

    assert stop.value.code == 2
    assert "--side-by-side needs" in capsys.readouterr().err


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data folder")
def test_real_detector_finds_more_after_deraining(tmp_path):
    weights = str(SHARED / "detectors" / "yolov8n-coco.pt")
    rainy = [str(SHARED / "coco128-rain100h" / "rainy" / f"{i:012d}.jpg") for i in (9, 25, 34)]
    clean = SHARED / "coco128" / "images"
    common = ["--detector", weights, "--device", "cpu", "--quiet", "--out"]

    main([*rainy, "--derain", "none", *common, str(tmp_path / "rainy")])
    main([*rainy, "--derain", f"results:{clean}", *common, str(tmp_path / "clean")])

    score = {
        kind: sum(box["score"] for r in records(tmp_path / kind) for box in r["boxes"])
        for kind in ("rainy", "clean")
    }
    assert score["clean"] > 1.5 * score["rainy"]


def test_frames_are_those_of_ultralytics(weights, tmp_path, caplog):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for kind in ("AVIF", "JPEG", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP"):
        exif = with_orientation(6 if kind in ("AVIF", "JPEG") else 1)
        content = encoded(make_frame(60, 91, len(kind)), kind, exif=exif)
        (folder / f"{kind}{FORMATS[kind]}").write_bytes(content)
    (folder / "notes.txt").touch()
    (source,) = find_sources([str(folder)])
    ours = {frame.name: frame[1] for frame in source}
    stock = make_yolo().predict(folder, stream=True, imgsz=96, verbose=False)
    theirs = {Path(result.path).name: result.orig_img[..., ::-1] for result in stock}
    assert sorted(ours) == sorted(theirs)
    for name, frame in ours.items():
        assert np.array_equal(frame, theirs[name]), name
    assert caplog.messages == [f"{folder}: 1 file skipped by its suffix: .txt 1"]
    run(folder, weights, tmp_path / "out", "--save")
    saved = {path.name for path in (tmp_path / "out/images").glob("*")}
    assert saved == {"AVIF.png", "JPEG.jpg", "JPEG2000.png", "MPO.png", "PNG.png", "TIFF.tif",
                     "WEBP.webp"}  # fmt: skip


def test_linked_folders_are_searched_once(images, tmp_path):
    write_image(tmp_path / "else" / "3.png", make_frame(60, 91, 3))
    (images / "day").symlink_to(tmp_path / "else")
    (images / "loop").symlink_to(images)
    (source,) = find_sources([str(images)])
    assert [name for name, _ in source.files] == ["0.png", "1.png", "day/3.png", "night/2.png"]


def test_deep_images_are_stretched_if_asked_to(weights, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.linspace(7000, 9000, 4096).reshape(64, 64).astype("u2"))
    levels = [
        len(np.unique(next(iter(find_sources([str(tmp_path)], stretch=stretch)[0]))[1]))
        for stretch in (None, (0, 100))
    ]
    assert levels == [9, 256]
    run(tmp_path / "a.png", weights, tmp_path / "out", "--stretch", "1,99")
    run(tmp_path / "a.png", weights, tmp_path / "out", "--stretch", "1,99")
    settings = json.loads((tmp_path / "out" / "run.json").read_text())
    assert settings["settings"]["stretch"] == [1, 99]
