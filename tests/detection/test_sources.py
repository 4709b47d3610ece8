import numpy as np
import pytest

from detection.sources import Images, Live, Video, find_sources
from rainmer.errors import ImageError
from rainmer.frames import write_image
from rainmer.video import VideoWriter
from tests.detection.conftest import make_frame


def write_video(path, frames: int = 3):
    with VideoWriter(path, fps=5, size_hw=(48, 64)) as writer:
        for i in range(frames):
            writer.write(make_frame(48, 64, i))


def names(source) -> list[str]:
    return [name for name, _ in source]


def test_folder_gives_relative_names(tmp_path):
    write_image(tmp_path / "b.png", make_frame(8, 9))
    write_image(tmp_path / "sub" / "a.jpg", make_frame(8, 9))
    (tmp_path / "notes.txt").write_text("no image")

    (source,) = find_sources([str(tmp_path)])

    assert isinstance(source, Images)
    assert names(source) == ["b.png", "sub/a.jpg"]
    assert source.count == 2
    assert source.name == tmp_path.name


def test_same_names_of_two_folders_stay_apart(tmp_path):
    for folder in ("day", "night"):
        write_image(tmp_path / folder / "0.png", make_frame(8, 9))

    (source,) = find_sources([str(tmp_path / "day"), str(tmp_path / "night")])

    assert names(source) == ["day/0.png", "night/0.png"]


def test_globs_and_single_files(tmp_path):
    for name in ("a.png", "b.png", "c.jpg"):
        write_image(tmp_path / name, make_frame(8, 9))

    assert names(find_sources([str(tmp_path / "*.png")])[0]) == ["a.png", "b.png"]
    assert names(find_sources([str(tmp_path / "c.jpg")])[0]) == ["c.jpg"]


def test_videos_are_sources_of_their_own(tmp_path):
    write_video(tmp_path / "drive.mp4")
    write_image(tmp_path / "a.png", make_frame(8, 9))

    images, video = find_sources([str(tmp_path)])

    assert isinstance(images, Images)
    assert isinstance(video, Video)
    assert (video.name, video.fps, video.count) == ("drive", 5.0, 3)
    assert names(video) == ["000000", "000001", "000002"]


def test_unreadable_images_are_skipped_and_named(tmp_path):
    write_image(tmp_path / "a.png", make_frame(8, 9))
    (tmp_path / "b.png").write_bytes(b"broken")
    (source,) = find_sources([str(tmp_path)])

    assert names(source) == ["a.png"]
    assert len(source.skipped) == 1
    assert "b.png" in source.skipped[0]


def test_addresses_are_live(tmp_path):
    # A video file by its address stands for a stream: OpenCV opens both alike.
    write_video(tmp_path / "stream.mp4", frames=2)
    live = Live(str(tmp_path / "stream.mp4"))

    frames = list(live)

    assert [name for name, _ in frames] == ["000000", "000001"]
    assert frames[0][1].shape == (48, 64, 3)
    assert np.abs(frames[0][1].astype(int) - make_frame(48, 64, 0)).mean() < 12
    assert live.count == 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("missing.png", "matches missing.png"),
        ("*.nothing", "matches"),
        ("rtsp://127.0.0.1:1/none", "cannot open the stream"),
        (".", "no images or videos in"),
        ("text.txt", "neither an image nor a video"),
    ],
)
def test_nothing_to_read_is_one_line(argument, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if argument == "text.txt":
        (tmp_path / "text.txt").write_text("")

    with pytest.raises(ImageError, match=message):
        find_sources([argument])
