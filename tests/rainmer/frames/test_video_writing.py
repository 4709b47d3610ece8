"""Video files: what is written comes back, and nothing half-written has a final name."""

from __future__ import annotations

import itertools
import signal
import struct

import cv2
import numpy as np
import pytest

from rainmer.errors import ImageError, OutputError
from rainmer.frames.video import (
    VIDEO_SUFFIXES,
    WRITABLE_SUFFIXES,
    VideoWriter,
    is_video,
    open_video,
    partial_path,
)

SIZE_HW = (48, 64)


def ramp(index, size_hw=SIZE_HW):
    """A frame whose red rises with x, green with y, and blue with the index."""
    height, width = size_hw
    frame = np.empty((height, width, 3), np.uint8)
    frame[..., 0] = np.linspace(0, 255, width)
    frame[..., 1] = np.linspace(0, 255, height)[:, None]
    frame[..., 2] = 20 * index % 256
    return frame


def write(path, count=6, fps=12.5):
    return write_frames(path, [ramp(index) for index in range(count)], fps=fps)


def write_frames(path, frames, *, fps=12.5, failure=None):
    with VideoWriter(path, fps=fps, size_hw=SIZE_HW) as writer:
        for frame in frames:
            writer.write(frame)
        if failure is not None:
            raise failure
    return path


@pytest.mark.parametrize("suffix", sorted(WRITABLE_SUFFIXES))
def test_frames_come_back(tmp_path, suffix):
    path = write(tmp_path / f"clip{suffix}")
    with open_video(path) as video:
        assert (video.fps, video.frame_count, video.size_hw) == (12.5, 6, SIZE_HW)
        frames = list(video)
    assert len(frames) == 6
    for index, frame in enumerate(frames):
        assert frame.dtype == np.uint8
        difference = np.abs(frame.astype(int) - ramp(index).astype(int))
        assert difference.mean() < 4  # a channel swap costs more than 40
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("fps", [1.0, 23.976, 29.97, 60.0, 119.88, 239.843])
def test_rate_is_kept(tmp_path, fps):
    with open_video(write(tmp_path / "clip.mp4", fps=fps)) as video:
        assert video.fps == pytest.approx(fps, abs=0.01)


def test_rotation_metadata_is_applied(tmp_path):
    path = write(tmp_path / "clip.mp4")
    content = path.read_bytes()
    one = 1 << 16
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    quarter = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    start = content.index(upright, content.index(b"tkhd"))
    path.write_bytes(content[:start] + quarter + content[start + len(quarter) :])
    with open_video(path) as video:
        assert video.size_hw == SIZE_HW[::-1]
        first = next(iter(video))
    turned = np.rot90(ramp(0), k=-1)
    assert np.abs(first.astype(int) - turned.astype(int)).mean() < 4


def test_suffixes():
    assert is_video("a/b.MP4")
    assert not is_video("a/mp4")
    assert WRITABLE_SUFFIXES < VIDEO_SUFFIXES


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match="no video file"):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(ImageError, match="no video file"):
        open_video(tmp_path)
    for name in ("x" * 300 + ".mp4", "nul\0.mp4"):
        with pytest.raises(ImageError, match="no video file"):
            open_video(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50])
def test_unreadable_file(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"clip\.mp4 cannot be decoded"):
        open_video(path)


def test_early_end_is_told(tmp_path, caplog):
    path = write(tmp_path / "clip.avi", count=20)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with open_video(path) as video:
        frames = list(video)
    assert 0 < len(frames) < 20
    assert video.early_end == f"{path} ends early: {len(frames)} of 20 frames could be decoded"
    assert caplog.messages == [video.early_end]


def test_a_whole_file_does_not_end_early(tmp_path):
    with open_video(write(tmp_path / "clip.mp4", count=20)) as video:
        assert len(list(itertools.islice(video, 9))) == 9
        assert len(list(video)) == 11
        assert video.early_end is None


def test_a_reader_that_is_closed_does_not_end_early(tmp_path, caplog):
    with open_video(write(tmp_path / "clip.mp4", count=20)) as video:
        next(frames := iter(video))
    assert list(frames) == []
    assert video.early_end is None
    assert not caplog.messages


@pytest.mark.parametrize("frame", [ramp(0, (48, 66)), ramp(0).astype(np.float32), ramp(0)[..., 0]])
def test_another_frame_is_refused_and_nothing_remains(tmp_path, frame):
    with pytest.raises(ImageError, match="frame 1 of"):
        write_frames(tmp_path / "clip.mp4", [ramp(0), frame])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size_hw", [(47, 64), (48, 65), (0, 64)])
def test_sizes_that_the_codec_would_cut(tmp_path, size_hw):
    with pytest.raises(ImageError, match="even sides"):
        VideoWriter(tmp_path / "clip.mp4", fps=10.0, size_hw=size_hw)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_that_make_no_video(tmp_path, fps):
    with pytest.raises(ImageError, match="frames per second"):
        VideoWriter(tmp_path / "clip.mp4", fps=fps, size_hw=SIZE_HW)


def test_suffix_without_encoder(tmp_path):
    with pytest.raises(OutputError, match=r"use one of the suffixes \.avi"):
        VideoWriter(tmp_path / "clip.wmv", fps=10.0, size_hw=SIZE_HW)


def test_nothing_written(tmp_path):
    with pytest.raises(OutputError, match="no frames"):
        write_frames(tmp_path / "clip.mp4", [])
    assert list(tmp_path.iterdir()) == []


def test_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "folder").write_text("")
    with pytest.raises(OutputError, match="folder"):
        write(tmp_path / "folder/clip.mp4")


def test_error_keeps_the_older_file(tmp_path):
    path = write(tmp_path / "clip.mp4", count=2)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="boom"):
        write_frames(path, [ramp(0)], failure=RuntimeError("boom"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_interruption_keeps_the_frames_under_another_name(tmp_path, caplog):
    path = tmp_path / "clip.mp4"
    with pytest.raises(KeyboardInterrupt):
        write_frames(path, [ramp(0), ramp(1), ramp(2)], failure=KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == [partial_path(path)]
    assert "3 frames kept" in caplog.text
    with open_video(partial_path(path)) as video:
        assert len(list(video)) == 3
    write(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", sorted(WRITABLE_SUFFIXES))
def test_full_disk_is_noticed(tmp_path, suffix):
    resource = pytest.importorskip("resource", reason="file size limits are of Unix")
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    noise = np.random.default_rng(0).integers(0, 256, (40, *SIZE_HW, 3), np.uint8)
    path = tmp_path / f"clip{suffix}"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="disk full"):
            write_frames(path, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_reader_is_closed_by_its_block(tmp_path):
    with open_video(write(tmp_path / "clip.mp4")) as video:
        pass
    assert list(video) == []
    assert isinstance(video._capture, cv2.VideoCapture)
    assert not video._capture.isOpened()
