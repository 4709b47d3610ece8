import pytest

from detection.run.options import LiveOptions
from detection.run.sources import Images, Live, Video, find_sources
from rainmer.errors import ImageError
from rainmer.frames.images import write_image
from rainmer.frames.video import VideoWriter
from tests.detection.conftest import make_frame


def write_video(path, frames: int = 3):
    with VideoWriter(path, fps=5, size_hw=(48, 64)) as writer:
        for i in range(frames):
            writer.write(make_frame(48, 64, i))


def names(source) -> list[str]:
    return [frame.name for frame in source]


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
    assert (video.name, video.fps, video.count) == ("drive.mp4", 5.0, 3)
    assert names(video) == ["000000", "000001", "000002"]


def test_unreadable_images_are_skipped_and_named(tmp_path):
    write_image(tmp_path / "a.png", make_frame(8, 9))
    (tmp_path / "b.png").write_bytes(b"broken")
    (source,) = find_sources([str(tmp_path)])

    assert names(source) == ["a.png"]
    assert len(source.failures) == 1
    assert "b.png" in source.failures[0]


def test_videos_of_one_stem_have_names_of_their_own(tmp_path):
    write_video(tmp_path / "day" / "ok.mp4", frames=1)
    write_video(tmp_path / "day" / "ok.avi", frames=1)
    write_video(tmp_path / "night" / "ok.avi", frames=1)

    below = [video.name for video in find_sources([str(tmp_path)])]
    several = find_sources([str(tmp_path / "day"), str(tmp_path / "night" / "ok.avi")])

    assert below == ["day/ok.avi", "day/ok.mp4", "night/ok.avi"]
    assert [video.name for video in several] == below


def test_bad_videos_are_noted_when_they_are_read(tmp_path):
    write_video(tmp_path / "a_cut.avi", frames=20)
    content = (tmp_path / "a_cut.avi").read_bytes()
    (tmp_path / "a_cut.avi").write_bytes(content[: len(content) // 2])
    (tmp_path / "b_broken.mp4").write_bytes(b"broken")
    write_video(tmp_path / "c_good.avi", frames=2)

    cut, broken, good = find_sources([str(tmp_path)])

    assert 0 < len(names(cut)) < 20
    assert "it ends early, after frame " in cut.failures[0]
    assert names(broken) == []
    assert "b_broken.mp4 cannot be decoded" in broken.failures[0]
    assert names(good) == ["000000", "000001"]
    assert good.failures == []


def test_results_hidden_files_and_repeated_files_are_left_out(tmp_path):
    for name in ("a.png", ".hidden/b.png", "out/images/a.png"):
        write_image(tmp_path / name, make_frame(8, 9))

    (source,) = find_sources([str(tmp_path), str(tmp_path / "a.png")], tmp_path / "out")

    assert names(source) == ["a.png"]


def test_addresses_and_camera_numbers_are_live(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "7" / "a.png", make_frame(8, 9))
    options = LiveOptions(timeout=5)

    folder, first, second, camera = find_sources(
        ["rtsp://user:secret@one/stream", "7", "rtsp://two/stream", "0", "rtsp://two/stream"],
        live=options,
        limit=3,
    )

    assert [source.name for source in (folder, first, second, camera)] == [
        "7", "live-stream", "live-stream-2", "live-0",
    ]  # fmt: skip
    for source in (first, second, camera):
        assert isinstance(source, Live)
        assert (source.options, source.limit, source.count) == (options, 3, 0)
    assert "secret" not in str(first.files)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("missing.png", "no file or folder missing.png"),
        ("*.nothing", "holds no images and no videos"),
        (".", "holds no images and no videos"),
        ("text.txt", "neither an image nor a video"),
        ("1" * 5000, "no file or folder"),
        ("x" * 300 + ".mp4", "no file or folder"),
        ("nul\0.png", "no file or folder"),
        ("rtsp://nul\0", "cannot hold a null byte"),
    ],
)
def test_nothing_to_read_is_one_line(argument, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if argument == "text.txt":
        (tmp_path / "text.txt").write_text("")

    with pytest.raises(ImageError, match=message):
        find_sources([argument])
