"""`python -m rainmer.derain`: what goes in comes out derained, under the same name and size."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import types

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from rainmer import Derainer
from rainmer.derain.__main__ import main
from rainmer.derain.jobs import RECORD_NAME, find_jobs
from rainmer.errors import ImageError, OutputError, SpecError
from rainmer.frames.images import read_image, write_image
from rainmer.frames.video import VideoWriter, open_video, partial_path
from tests.images import FORMATS
from tests.videos import cut, record, sound_of, zero_avi_frame


def picture(seed=0, size_hw=(24, 32)):
    noise = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


def write_clip(path, count=10, size_hw=(32, 48)):
    with VideoWriter(path, fps=12.5, size_hw=size_hw) as writer:
        for index in range(count):
            writer.write(picture(index, size_hw))


def derain(*arguments, spec="median"):
    main([*map(str, arguments), "--derain", spec, "--device", "cpu", "--quiet"])


def names_below(folder):
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name != RECORD_NAME)


@pytest.fixture
def rainy(tmp_path):
    """A folder of three images of two sizes, one of them in a subfolder."""
    folder = tmp_path / "rainy"
    write_image(folder / "a.png", picture(1))
    write_image(folder / "b.png", picture(2, (30, 20)))
    write_image(folder / "night/a.png", picture(3))
    return folder


def test_the_derainer_computes_with_the_threads_asked_for(rainy, tmp_path, monkeypatch):
    monkeypatch.setattr("rainmer.device._let_idle_threads_sleep", lambda: None)
    threads = set()
    module = types.ModuleType("counting")
    module.derain = lambda frames: (
        threads.add((torch.get_num_threads(), cv2.getNumThreads())) or frames
    )
    monkeypatch.setitem(sys.modules, "counting", module)
    before = cv2.getNumThreads()
    try:
        derain(rainy, "--out", tmp_path / "out", "--threads", 3, spec="python:counting:derain")
    finally:
        cv2.setNumThreads(before)
    assert threads == {(3, 3)}


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_folder_keeps_its_structure(rainy, tmp_path, capsys, batch):
    derain(rainy, "--out", tmp_path / "out", "--batch", batch)
    assert names_below(tmp_path / "out") == ["a.png", "b.png", "night/a.png"]
    median = Derainer("median", device="cpu")
    for name in names_below(rainy):
        expected = median(read_image(rainy / name))
        assert np.array_equal(read_image(tmp_path / "out" / name), expected)
        assert not np.array_equal(expected, read_image(rainy / name))
    captured = capsys.readouterr()
    assert captured.out.startswith("derained 3 images by median in ")
    assert captured.out.count("\n") == 1
    assert captured.err == ""


def test_many_images_of_many_sizes(tmp_path):
    sizes = [(12 + i % 5, 16 + i % 3) for i in range(40)]
    for index, size_hw in enumerate(sizes):
        write_image(tmp_path / f"rainy/{index:02}.png", picture(index, size_hw))
    derain(tmp_path / "rainy", "--out", tmp_path / "out", "--batch", 3, spec="none")
    assert len(names_below(tmp_path / "out")) == 40
    for name in names_below(tmp_path / "rainy"):
        assert np.array_equal(
            read_image(tmp_path / "out" / name), read_image(tmp_path / "rainy" / name)
        )


def encoded(kind, **options):
    image = options.pop("image", None) or Image.fromarray(picture())
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def odd_files():
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = cv2.imencode(".png", picture().astype(np.uint16) * 256)[1].tobytes()
    return {
        "gray.png": encoded("PNG", image=Image.fromarray(picture()).convert("L")),
        "alpha.png": encoded("PNG", image=Image.fromarray(picture()).convert("RGBA")),
        "deep.png": deep,
        "turned.jpg": encoded("JPEG", exif=turned),
        "tiny.bmp": encoded("BMP", image=Image.fromarray(picture(size_hw=(1, 1)))),
    }


@pytest.mark.parametrize("name", odd_files())
def test_images_of_every_kind(tmp_path, name):
    (tmp_path / name).write_bytes(odd_files()[name])
    derain(tmp_path / name, "--out", tmp_path / "out", spec="none")
    before, after = read_image(tmp_path / name), read_image(tmp_path / "out" / name)
    assert after.shape == before.shape
    assert np.abs(after.astype(int) - before).mean() < 3  # JPEG is encoded again
    if name == "turned.jpg":
        assert after.shape == (32, 24, 3)


def test_other_suffix(tmp_path):
    write_image(tmp_path / "a.JPG", picture())
    derain(tmp_path / "a.JPG", "--out", tmp_path / "out", "--suffix", "png", spec="none")
    assert names_below(tmp_path / "out") == ["a.png"]
    derain(tmp_path / "a.JPG", "--out", tmp_path / "same", spec="none")
    assert names_below(tmp_path / "same") == ["a.JPG"]


def test_side_by_side(tmp_path):
    write_image(tmp_path / "a.png", picture())
    derain(tmp_path / "a.png", "--out", tmp_path / "out", "--side-by-side")
    both = read_image(tmp_path / "out/a.png")
    assert np.array_equal(both[:, :32], picture())
    assert np.array_equal(both[:, 32:], Derainer("median", device="cpu")(picture()))


def test_globs_keep_the_structure_below_their_fixed_part(rainy, tmp_path):
    derain(rainy / "**/a.*", "--out", tmp_path / "out")
    assert names_below(tmp_path / "out") == ["a.png", "night/a.png"]
    derain(rainy / "n*", "--out", tmp_path / "folders")
    assert names_below(tmp_path / "folders") == ["night/a.png"]


def test_limit(rainy, tmp_path):
    derain(rainy, "--out", tmp_path / "out", "--limit", 2)
    assert names_below(tmp_path / "out") == ["a.png", "b.png"]


def test_results_of_others(rainy, tmp_path):
    for name in names_below(rainy):
        unique = name.replace("/", "-")
        write_image(tmp_path / "in" / unique, read_image(rainy / name))
        write_image(tmp_path / "theirs" / unique, 255 - read_image(rainy / name))
    spec = f"results:{tmp_path / 'theirs'}"
    derain(tmp_path / "in", "--out", tmp_path / "out", spec=spec)
    for name in names_below(tmp_path / "theirs"):
        theirs = read_image(tmp_path / "theirs" / name)
        assert np.array_equal(read_image(tmp_path / "out" / name), theirs)


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_video(tmp_path, capsys, batch):
    write_clip(tmp_path / "drive.avi")
    derain(tmp_path / "drive.avi", "--out", tmp_path / "out", "--batch", batch)
    with open_video(tmp_path / "drive.avi") as video:
        expected = [Derainer("median", device="cpu")(frame.image) for frame in video]
    with open_video(tmp_path / "out/drive.avi") as video:
        assert (video.fps, video.size_hw) == (12.5, (32, 48))
        frames = list(video)
    assert len(frames) == 10
    for frame, wanted in zip(frames, expected, strict=True):
        assert np.abs(frame.image.astype(int) - wanted).mean() < 6  # other frames differ by over 20
    assert "0 images and 1 video of 10 frames" in capsys.readouterr().out


def test_folder_of_images_and_videos(rainy, tmp_path, capsys):
    write_clip(rainy / "night/drive.mp4", count=3)
    derain(rainy, "--out", tmp_path / "out", "--side-by-side")
    assert names_below(tmp_path / "out") == ["a.png", "b.png", "night/a.png", "night/drive.mp4"]
    assert "derained 3 images and 1 video of 3 frames" in capsys.readouterr().out
    with open_video(tmp_path / "out/night/drive.mp4") as video:
        assert (video.frame_count, video.size_hw) == (3, (32, 96))


def test_video_type_without_encoder_becomes_mp4(tmp_path):
    (tmp_path / "old.wmv").touch()
    assert find_jobs([str(tmp_path / "old.wmv")], tmp_path / "out")[0].target.name == "old.mp4"


def test_results_do_not_derain_videos(rainy, tmp_path):
    write_clip(tmp_path / "drive.avi", count=1)
    with pytest.raises(SpecError, match="cannot derain"):
        derain(tmp_path / "drive.avi", "--out", tmp_path / "out", spec=f"results:{rainy}")


def test_second_run_does_nothing(rainy, tmp_path, capsys):
    out = tmp_path / "out"
    derain(rainy, "--out", out)
    before = {name: (out / name).stat().st_mtime_ns for name in names_below(out)}
    capsys.readouterr()
    derain(rainy, "--out", out)
    assert "derained 0 images" in (text := capsys.readouterr().out)
    assert "3 done before (--overwrite" in text
    assert before == {name: (out / name).stat().st_mtime_ns for name in names_below(out)}
    derain(rainy, "--out", out, "--overwrite")
    assert "derained 3 images" in capsys.readouterr().out


def test_only_what_is_missing_or_changed_is_derained(rainy, tmp_path, capsys):
    out = tmp_path / "out"
    derain(rainy, "--out", out)
    (out / "a.png").unlink()
    write_image(rainy / "b.png", picture(9))
    os.utime(rainy / "b.png", ns=((out / "b.png").stat().st_mtime_ns + 10**9,) * 2)
    capsys.readouterr()
    derain(rainy, "--out", out)
    assert "derained 2 images" in capsys.readouterr().out
    assert (out / "a.png").exists()
    assert read_image(out / "b.png").shape == (24, 32, 3)


def test_results_of_another_derainer_are_replaced(rainy, tmp_path, capsys):
    out = tmp_path / "out"
    derain(rainy, "--out", out)
    derain(rainy, "--out", out, "--limit", 1, spec="none")
    assert np.array_equal(read_image(out / "a.png"), picture(1))
    capsys.readouterr()
    derain(rainy, "--out", out, spec="none")  # the other two are still of the median
    assert "derained 2 images" in capsys.readouterr().out
    assert np.array_equal(read_image(out / "night/a.png"), picture(3))
    derain(rainy, "--out", out, "--side-by-side", spec="none")
    assert read_image(out / "a.png").shape == (24, 64, 3)
    json.loads((out / RECORD_NAME).read_text())


def test_results_within_the_input_folder_are_no_inputs(rainy, capsys):
    for _ in range(2):
        derain(rainy, "--out", rainy / "out")
    assert names_below(rainy / "out") == ["a.png", "b.png", "night/a.png"]


def test_interruption_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    (tmp_path / "impatient.py").write_text(
        "calls = []\n"
        "def derain(batch):\n"
        "    calls.append(len(batch))\n"
        "    if len(calls) == 3:\n"
        "        raise KeyboardInterrupt\n"
        "    return batch\n"
        "derain.fingerprint = '1'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for index in range(6):
        write_image(tmp_path / f"rainy/{index}.png", picture(index))
    arguments = (tmp_path / "rainy", "--out", tmp_path / "out", "--batch", 1)
    with pytest.raises(KeyboardInterrupt):
        derain(*arguments, spec="python:impatient:derain")
    assert names_below(tmp_path / "out") == ["0.png", "1.png"]
    capsys.readouterr()
    derain(*arguments, spec="python:impatient:derain")
    assert "derained 4 images" in (text := capsys.readouterr().out)
    assert "2 done before" in text

    sys.modules["impatient"].calls.clear()
    write_clip(tmp_path / "drive.mp4")
    arguments = (tmp_path / "drive.mp4", "--out", tmp_path / "out", "--batch", 4)
    with pytest.raises(KeyboardInterrupt):
        derain(*arguments, spec="python:impatient:derain")
    with open_video(partial_path(tmp_path / "out/drive.mp4")) as video:
        assert len(list(video)) == 8
    derain(*arguments, spec="python:impatient:derain")
    with open_video(tmp_path / "out/drive.mp4") as video:
        assert len(list(video)) == 10
    assert not partial_path(tmp_path / "out/drive.mp4").exists()


def test_unreadable_files_are_skipped_and_named(rainy, tmp_path, capsys):
    whole = (rainy / "a.png").read_bytes()
    (rainy / "half.png").write_bytes(whole[: len(whole) // 2])
    (rainy / "broken.mp4").write_bytes(b"no video")
    write_clip(rainy / "drive.mp4", count=2)
    with pytest.raises(ImageError, match=r"^2 of 6 files could not be read in full: ") as caught:
        derain(rainy, "--out", tmp_path / "out")
    assert "half.png" in str(caught.value)
    assert "broken.mp4" in str(caught.value)
    assert names_below(tmp_path / "out") == ["a.png", "b.png", "drive.mp4", "night/a.png"]
    assert "derained 3 images and 1 video" in capsys.readouterr().out


def test_links_and_folders_named_as_images_are_counted(rainy, tmp_path, capsys):
    (rainy / "dangling.png").symlink_to("gone.png")
    (rainy / "circle.mp4").symlink_to("circle.mp4")
    (rainy / "empty.png").mkdir()
    write_image(rainy / "frames.mp4" / "0.png", picture(5))
    for images in (4, 0):
        with pytest.raises(ImageError, match="could not be read in full: ") as caught:
            derain(rainy, "--out", tmp_path / "out")
        for name in ("dangling.png: No such file", "circle.mp4"):
            assert name in str(caught.value)
        assert "frames.mp4" not in str(caught.value)
        assert "empty.png" not in str(caught.value)  # a folder, which holds nothing
        assert f"derained {images} images" in capsys.readouterr().out
    assert "frames.mp4/0.png" in names_below(tmp_path / "out")


def test_a_video_that_ends_early_is_kept_and_counted(rainy, tmp_path, capsys):
    write_clip(rainy / "drive.avi", count=20)
    cut(rainy / "drive.avi", 0.5)
    with pytest.raises(ImageError, match=r"^1 of 4 files .*drive\.avi: .*ends early, after frame"):
        derain(rainy, "--out", tmp_path / "out")
    with open_video(tmp_path / "out/drive.avi") as video:
        count = len(list(video))
    assert 0 < count < 20
    assert f"derained 3 images and 1 video of {count} frames" in capsys.readouterr().out


def test_a_damaged_frame_is_told_by_every_run_until_the_file_is_whole(rainy, tmp_path, capsys):
    write_clip(rainy / "drive.avi")
    whole = (rainy / "drive.avi").read_bytes()
    zero_avi_frame(rainy / "drive.avi", 3)
    told = []
    for images in (3, 0):
        with pytest.raises(ImageError, match=r"drive\.avi: 1 damaged frame left out: 3 ") as caught:
            derain(rainy, "--out", tmp_path / "out")
        told.append(str(caught.value).partition("full: ")[2])
        expected = f"derained {images} images and 1 video of 9 frames"
        assert expected in capsys.readouterr().out
    assert told[0] == told[1]
    with open_video(tmp_path / "out/drive.avi") as video:
        times = [frame.time_s for frame in video]
    assert times == pytest.approx([i / 12.5 for i in range(10) if i != 3])
    (rainy / "drive.avi").write_bytes(whole)
    derain(rainy, "--out", tmp_path / "out")
    assert "1 video of 10 frames" in capsys.readouterr().out
    derain(rainy, "--out", tmp_path / "out")
    assert "0 images" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_videos_keep_their_times_and_their_sound(tmp_path, suffix):
    times_s = [i / 30 for i in range(10)] + [1 + i / 10 for i in range(5)]
    record(tmp_path / f"drive{suffix}", times_s, sound=True)
    derain(tmp_path / f"drive{suffix}", "--out", tmp_path / "out", "--batch", 4)
    with (
        open_video(tmp_path / f"drive{suffix}") as video,
        open_video(tmp_path / f"out/drive{suffix}") as result,
    ):
        times = [frame.time_s for frame in video]
        assert [frame.time_s for frame in result] == pytest.approx(times)
    assert np.diff(times) == pytest.approx(np.diff(times_s), abs=1e-3)
    theirs, ours = sound_of(tmp_path / f"drive{suffix}"), sound_of(tmp_path / f"out/drive{suffix}")
    assert [content for _, content in ours] == [content for _, content in theirs]


@pytest.mark.parametrize(("size_hw", "expected"), [((32, 48), [3]), ((360, 640), [1, 1, 1])])
def test_on_the_cpu_large_frames_come_one_by_one(tmp_path, monkeypatch, size_hw, expected):
    """So the bar moves with each of them, and nothing is lost: a batch would be no faster."""
    (tmp_path / "counted.py").write_text(
        "calls = []\n"
        "def derain(batch):\n"
        "    calls.append(len(batch))\n"
        "    return batch\n"
        "derain.fingerprint = '1'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "counted", raising=False)
    write_clip(tmp_path / "drive.mp4", 3, size_hw)
    derain(tmp_path / "drive.mp4", "--out", tmp_path / "out", spec="python:counted:derain")
    assert sys.modules["counted"].calls == expected


def test_codec_and_quality_of_videos(tmp_path):
    write_clip(tmp_path / "drive.mp4", count=2)
    derain(tmp_path / "drive.mp4", "--out", tmp_path / "out", "--codec", "vp9", "--crf", 40)
    with av.open(str(tmp_path / "out/drive.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "vp9"
    with pytest.raises(OutputError, match="libx264 takes 0"):
        derain(tmp_path / "drive.mp4", "--out", tmp_path / "out", "--overwrite", "--crf", 60)


def test_many_unreadable_files_are_counted(tmp_path):
    (tmp_path / "rainy").mkdir()
    for index in range(5):
        (tmp_path / f"rainy/{index}.png").touch()
    with pytest.raises(ImageError, match=r"^5 of 5 files .*0\.png.*1\.png.*2\.png.*and 2 more$"):
        derain(tmp_path / "rainy", "--out", tmp_path / "out")


def test_inputs_are_never_replaced(rainy, tmp_path):
    with pytest.raises(OutputError, match="choose another folder"):
        derain(rainy, "--out", rainy)
    with pytest.raises(OutputError, match=r"would replace the input .*a\.png"):
        derain(rainy / "a.png", "--out", rainy)
    with pytest.raises(OutputError, match=r"would replace the input .*a\.png"):
        derain(rainy / "night", rainy / "a.png", "--out", rainy)
    assert np.array_equal(read_image(rainy / "a.png"), picture(1))


def test_files_of_others_are_not_replaced(rainy):
    with pytest.raises(OutputError, match=r"a\.png exists and is not a result of this command"):
        derain(rainy / "night", "--out", rainy)
    assert np.array_equal(read_image(rainy / "a.png"), picture(1))
    derain(rainy / "night", "--out", rainy, "--overwrite", spec="none")
    assert np.array_equal(read_image(rainy / "a.png"), picture(3))


def test_results_of_one_name(rainy, tmp_path):
    write_image(tmp_path / "copy/a.png", picture())
    with pytest.raises(OutputError, match=r"a\.png and .*a\.png would both become .*a\.png"):
        derain(rainy, tmp_path / "copy", "--out", tmp_path / "out")
    write_image(rainy / "a.jpg", picture())
    with pytest.raises(OutputError, match=r"a\.jpg and .*a\.png would both become"):
        derain(rainy, "--out", tmp_path / "out", "--suffix", ".png")
    assert not (tmp_path / "out").exists()


def test_an_input_given_twice_is_derained_once(rainy, tmp_path, capsys):
    derain(rainy, rainy / "night", rainy / "*.png", "--out", tmp_path / "out")
    assert names_below(tmp_path / "out") == ["a.png", "b.png", "night/a.png"]
    assert "derained 3 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.png", "no file or folder"),
        ("none/*.png", "holds no images and no videos"),
        ("empty", "holds no images and no videos"),
        ("notes.txt", "neither an image nor a video"),
        ("x" * 300 + ".png", "no file or folder"),
        ("x" * 300 + "/*.png", "holds no images and no videos"),
        ("nul\0.png", "no file or folder"),
        ("nul\0/*.png", "no file or folder"),
    ],
)
def test_inputs_that_are_not_there(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match=message):
        derain(tmp_path / name, "--out", tmp_path / "out")


def test_the_default_derainer(rainy, tmp_path, capsys):
    main([str(rainy), "--out", str(tmp_path / "out"), "--limit", "1"])
    assert "by rainmer-s" in capsys.readouterr().out


def test_an_unknown_derainer(rainy, tmp_path):
    with pytest.raises(SpecError, match="unknown derainer 'medain'"):
        derain(rainy, "--out", tmp_path / "out", spec="medain")
    assert not (tmp_path / "out").exists()


def test_wrong_suffix(rainy, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        derain(rainy, "--out", tmp_path / "out", "--suffix", "gif")
    assert "'gif' is no image type to write: use one of .bmp" in capsys.readouterr().err


def test_output_folder_that_cannot_be(rainy, tmp_path):
    with pytest.raises(OutputError, match="cannot create the folder"):
        derain(rainy, "--out", rainy / "a.png")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_output_folder_without_permission(rainy, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        derain(rainy, "--out", tmp_path / "out")


def run(*arguments):
    command = [sys.executable, "-m", "rainmer.derain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "example:\n  python -m rainmer.derain rainy/" in capsys.readouterr().out


def test_a_mistake_is_one_line_and_code_2(tmp_path):
    failed = run(tmp_path / "none.png", "--out", tmp_path / "out", "--derain", "none")
    assert failed.returncode == 2
    assert failed.stderr == f"error: no file or folder {tmp_path / 'none.png'}\n"


def test_what_is_read_but_not_written_becomes_png(tmp_path, caplog):
    rainy = tmp_path / "rainy"
    rainy.mkdir()
    for stem, kind in zip(
        "abcdef", ("AVIF", "HEIF", "GIF", "JPEG2000", "MPO", "WEBP"), strict=True
    ):
        (rainy / f"{stem}{FORMATS[kind]}").write_bytes(
            encoded(kind, image=Image.fromarray(picture(3)))
        )
    for name in ("raw.cr2", "notes.txt", "more.txt"):
        (rainy / name).touch()
    derain(rainy, "--out", tmp_path / "out", spec="none")
    results = ["a.png", "b.png", "c.png", "d.png", "e.png", "f.webp"]
    assert names_below(tmp_path / "out") == results
    for name, result in zip(sorted(rainy.glob("[a-e].*")), results, strict=False):
        assert np.array_equal(read_image(tmp_path / "out" / result), read_image(name))
    assert caplog.messages == [f"{rainy}: 3 files skipped by their suffix: .txt 2, .cr2 1"]


def test_linked_folders_are_derained(rainy, tmp_path):
    write_image(tmp_path / "else" / "c.png", picture(4))
    (rainy / "day").symlink_to(tmp_path / "else")
    (rainy / "loop").symlink_to(rainy)
    expected = ["a.png", "b.png", "day/c.png", "night/a.png"]
    for out, argument in (("out", rainy), ("out2", f"{rainy}/**/*.png"), ("out3", f"{rainy}/**")):
        derain(argument, "--out", tmp_path / out, spec="none")
        assert names_below(tmp_path / out) == expected


def test_stretch(tmp_path, caplog):
    ramp = np.linspace(7000, 9000, 32 * 64).astype(np.uint16).reshape(32, 64)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), ramp)
    levels = []
    for options in ([], ["--stretch"], ["--stretch", "0,100"], ["--stretch", "0,100"]):
        derain(tmp_path / "in", "--out", tmp_path / "out", *options, spec="none")
        levels.append(len(np.unique(read_image(tmp_path / "out/a.png"))))
    assert levels[0] == 9
    assert levels[1] > 240
    assert levels[2:] == [256, 256]
    assert ["--stretch keeps more" in message for message in caplog.messages] == [True]
