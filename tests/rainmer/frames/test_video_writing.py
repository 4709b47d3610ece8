"""Written videos: what goes in comes back, and nothing half-written has a final name."""

from __future__ import annotations

import itertools
import signal
from fractions import Fraction

import av
import numpy as np
import pytest

from rainmer.errors import ImageError, OutputError
from rainmer.frames.video import (
    CODECS,
    WRITABLE_SUFFIXES,
    VideoWriter,
    codecs,
    open_video,
    partial_path,
)
from tests.videos import SIZE_HW, distance, ramp, record, sound_of

CHANGING = [i / 30 for i in range(30)] + [1 + i / 10 for i in range(15)]


def write(path, count=6, fps=12.5):
    return write_frames(path, [ramp(index) for index in range(count)], fps=fps)


def write_frames(path, frames, *, fps=12.5, failure=None):
    with VideoWriter(path, fps=fps, size_hw=SIZE_HW) as writer:
        for frame in frames:
            writer.write(frame)
        if failure is not None:
            raise failure
    return path


def rewrite(source, target, *, most=None, **options):
    """Read a video and write it again, or the first frames of it."""
    with (
        open_video(source) as video,
        VideoWriter(
            target, fps=video.fps, size_hw=video.size_hw, source=video.info, **options
        ) as writer,
    ):
        for frame in video:
            if frame.number == most:
                break
            writer.write(frame.image, frame.time_s, frame.duration_s)
    return target


def read(path):
    with open_video(path) as video:
        return list(video)


@pytest.mark.parametrize("suffix", sorted(WRITABLE_SUFFIXES))
def test_frames_come_back(tmp_path, suffix):
    path = write(tmp_path / f"clip{suffix}")
    with open_video(path) as video:
        assert (video.fps, video.frame_count, video.size_hw) == (12.5, 6, SIZE_HW)
        frames = list(video)
    assert [frame.time_s for frame in frames] == pytest.approx([i / 12.5 for i in range(6)])
    for index, frame in enumerate(frames):
        assert frame.image.dtype == np.uint8
        assert distance(frame.image, ramp(index)) < 4
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("codec", CODECS)
def test_each_codec(tmp_path, codec):
    with VideoWriter(tmp_path / "a.mkv", fps=25, size_hw=SIZE_HW, codec=codec) as writer:
        for index in range(3):
            writer.write(ramp(index))
    wrong = [distance(frame.image, ramp(frame.number)) for frame in read(tmp_path / "a.mkv")]
    assert len(wrong) == 3
    assert max(wrong) < (1e-9 if codec == "ffv1" else 4)


def test_what_browsers_play(tmp_path):
    """H.264 with 4:2:0 colours, its index before its frames."""
    path = write(tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.colorspace) == ("h264", "yuv420p", 1)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize(
    ("missing", "found"), [({"libx264"}, "vp9"), ({"libx264", "libvpx-vp9"}, "mpeg4")]
)
def test_a_build_without_h264_writes_what_it_can(tmp_path, monkeypatch, missing, found):
    left = set(av.codecs_available) - missing - {"libopenh264"}
    monkeypatch.setattr(codecs.av, "codecs_available", left)
    path = write(tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == found
    with pytest.raises(OutputError, match="no encoder libx264"):
        VideoWriter(tmp_path / "a.mp4", fps=25, size_hw=SIZE_HW, codec="h264")


def test_quality(tmp_path):
    sizes, noise = [], np.random.default_rng(0).integers(0, 256, (4, *SIZE_HW, 3), np.uint8)
    for crf in (0, 20, 40):
        path = tmp_path / f"{crf}.mp4"
        with VideoWriter(path, fps=25, size_hw=SIZE_HW, crf=crf) as writer:
            for frame in noise:
                writer.write(frame)
        sizes.append(path.stat().st_size)
    assert sizes[0] > 1.5 * sizes[1] > 3 * sizes[2]
    with pytest.raises(OutputError, match=r"libx264 takes 0 \(best\) to 51"):
        VideoWriter(tmp_path / "a.mp4", fps=25, size_hw=SIZE_HW, crf=52)
    with pytest.raises(OutputError, match=r"mjpeg \(for \.avi\) has no --crf"):
        VideoWriter(tmp_path / "a.avi", fps=25, size_hw=SIZE_HW, crf=20)


@pytest.mark.parametrize("fps", [1.0, 23.976, 29.97, 60.0, 119.88, 239.843])
def test_rate_is_kept(tmp_path, fps):
    with open_video(write(tmp_path / "clip.mp4", fps=fps)) as video:
        assert video.fps == pytest.approx(fps, abs=0.01)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "auto"), (".mp4", "mpeg4"), (".mkv", "mpeg4"), (".ts", "auto"), (".webm", "auto")],
)
def test_times_are_kept(tmp_path, suffix, codec):
    source = record(tmp_path / "a.mkv", CHANGING, ticks=1000)
    again = rewrite(source, tmp_path / f"again{suffix}", codec=codec)
    wanted = [frame.time_s for frame in read(source)]
    assert [frame.time_s for frame in read(again)] == pytest.approx(wanted, abs=1e-5)


def test_how_long_the_last_frame_is_shown(tmp_path):
    source = record(tmp_path / "a.mp4", CHANGING)
    again = rewrite(source, tmp_path / "again.mp4")
    *_, before, last = (frame.duration_s for frame in read(source))
    # MP4 keeps durations in decoding order, in which x264 may put another frame last.
    assert min(abs(read(again)[-1].duration_s - d) for d in (last, before)) < 1e-3


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".webm"])
def test_odd_sides(tmp_path, suffix):
    """H.264 halves the sides of its colour planes: there a row and a column are repeated."""
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path, fps=25, size_hw=(47, 65)) as writer:
        writer.write(ramp(0, (47, 65)))
    (frame,) = read(path)
    assert frame.image.shape[:2] == ((48, 66) if suffix == ".mp4" else (47, 65))
    assert distance(frame.image[:47, :65], ramp(0, (47, 65))) < 4


def test_rotation_is_not_applied_twice(tmp_path):
    def turn(stream):
        stream.set_display_rotation(90)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    source = record(tmp_path / "a.mp4", [0.0, 0.04], set_up=turn)
    again = rewrite(source, tmp_path / "again.mp4")
    with open_video(again) as video:
        assert video.size_hw == SIZE_HW[::-1]
        assert video.info.pixel_aspect == Fraction(3, 4)
        wanted = read(source)[0].image
        assert distance(next(iter(video)).image, wanted) < 4


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts"])
def test_sound_is_copied(tmp_path, suffix):
    source = record(tmp_path / f"a{suffix}", CHANGING, sound=True)
    again = rewrite(source, tmp_path / f"again{suffix}")
    theirs, ours = sound_of(source), sound_of(again)
    assert [content for _, content in ours] == [content for _, content in theirs]
    offset = ours[0][0] - theirs[0][0]
    assert [t for t, _ in ours] == pytest.approx([t + offset for t, _ in theirs], abs=2e-3)
    assert abs(offset) < 0.1
    with av.open(str(again)) as container:
        assert container.streams.audio[0].language == "eng"


def test_sound_ends_with_the_frames_that_are_written(tmp_path):
    source = record(tmp_path / "a.mp4", CHANGING, sound=True)
    again = rewrite(source, tmp_path / "again.mp4", most=15, whole=False)
    assert 0.3 < sound_of(again)[-1][0] < 0.6


SUBTITLES = "1\n00:00:00,500 --> 00:00:01,500\nRain\n\n2\n00:00:02,000 --> 00:00:02,300\nSun\n"


@pytest.fixture
def subtitled(tmp_path):
    """A Matroska file with a video, sound and subtitles, and a title."""
    (tmp_path / "a.srt").write_text(SUBTITLES)
    plain = record(tmp_path / "plain.mkv", CHANGING, sound=True)
    path = tmp_path / "subtitled.mkv"
    with (
        av.open(str(plain)) as video,
        av.open(str(tmp_path / "a.srt")) as text,
        av.open(str(path), "w") as output,
    ):
        output.metadata["title"] = "A wet day"
        copies = {s: output.add_stream_from_template(s) for s in (*video.streams, *text.streams)}
        for packet in itertools.chain(video.demux(), text.demux()):
            if packet.size:
                packet.stream = copies[packet.stream]
                output.mux(packet)
    return path


def texts_of(path):
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.subtitles[0]) if p.size]
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets]


def test_subtitles_and_titles_are_copied(subtitled, tmp_path):
    again = rewrite(subtitled, tmp_path / "again.mkv")
    assert texts_of(again) == [(0.5, b"Rain"), (2.0, b"Sun")]
    with av.open(str(again)) as container:
        assert container.metadata["title"] == "A wet day"


def test_what_the_container_cannot_hold_is_named(subtitled, tmp_path, caplog):
    again = rewrite(subtitled, tmp_path / "again.mp4")
    assert sound_of(again)
    (line,) = caplog.messages
    assert line == (f"{again} cannot hold stream 2 of {subtitled} (subtitle, srt): left out")
    with pytest.raises(OutputError, match=r"\.webm cannot hold libx264: choose another --codec"):
        rewrite(subtitled, tmp_path / "again.webm", codec="h264")


@pytest.mark.parametrize("frame", [ramp(0, (48, 66)), ramp(0).astype(np.float32), ramp(0)[..., 0]])
def test_another_frame_is_refused_and_nothing_remains(tmp_path, frame):
    with pytest.raises(ImageError, match="frame 1 of"):
        write_frames(tmp_path / "clip.mp4", [ramp(0), frame])
    assert list(tmp_path.iterdir()) == []


def test_frames_without_pixels(tmp_path):
    with pytest.raises(ImageError, match="no pixels"):
        VideoWriter(tmp_path / "clip.mp4", fps=10.0, size_hw=(0, 64))


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
    assert len(read(partial_path(path))) == 3
    with pytest.raises(KeyboardInterrupt):  # an earlier one destroys nothing
        write_frames(path, [ramp(0)], failure=KeyboardInterrupt())
    assert "holds more than this run: left as it is" in caplog.text
    assert len(read(partial_path(path))) == 3
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
