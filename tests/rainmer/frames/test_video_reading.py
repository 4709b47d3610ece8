"""Video files of all kinds: their frames, numbers and times, and what is said of damage."""

from __future__ import annotations

import itertools
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.codec.context import Flags

from rainmer.errors import ImageError
from rainmer.frames.video import (
    VIDEO_SUFFIXES,
    WRITABLE_SUFFIXES,
    VideoWriter,
    is_video,
    open_video,
)
from tests.videos import SIZE_HW, cut, distance, ramp, record, zero_avi_frame, zero_packet

THIRTIETHS = [i / 30 for i in range(60)]
# Fast, then slow: one second of 30 frames, then one and a half of 15.
CHANGING = [i / 30 for i in range(30)] + [1 + i / 10 for i in range(15)]
# A browser's recording: 33, 34 or 50 ms apart.
UNEVEN = [0.117 * (i // 3) + (0.0, 0.033, 0.067)[i % 3] for i in range(44)]


def read(path, **options):
    """Return the frames of a file, and what it says went wrong."""
    with open_video(path, **options) as video:
        return list(video), video.failure


def times(frames):
    return [frame.time_s for frame in frames]


def numbers(frames):
    return [frame.number for frame in frames]


@pytest.mark.parametrize(
    ("suffix", "codec", "unit_s"),
    [
        (".mp4", "libx264", 0),
        (".mov", "libx264", 0),
        (".ts", "libx264", 0),
        (".mkv", "libx264", 5e-4),
        (".flv", "libx264", 5e-4),
        (".webm", "libvpx", 5e-4),
    ],
)
def test_times_are_those_of_the_file(tmp_path, suffix, codec, unit_s):
    path = record(tmp_path / f"a{suffix}", CHANGING, codec=codec)

    frames, failure = read(path)

    assert failure is None
    assert numbers(frames) == list(range(45))
    assert times(frames) == pytest.approx(CHANGING, abs=unit_s + 1e-9)
    assert all(distance(frame.image, ramp(frame.number)) < 8 for frame in frames)


def test_a_browsers_recording_lasts_as_long_as_it_did(tmp_path):
    path = record(
        *(tmp_path / "rec.webm", UNEVEN),
        codec="libvpx", rate=1000, ticks=1000, container={"live": "1"},
    )  # fmt: skip

    with open_video(path) as video:
        frames = list(video)

    assert times(frames) == pytest.approx(UNEVEN)
    assert 10 < video.fps < 100  # not the unit of the time stamps


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".webm"])
def test_a_pause_is_no_damage(tmp_path, suffix):
    pausing = [0.0, 0.04, 0.08, 9.0, 9.04]
    codec = "libvpx" if suffix == ".webm" else "libx264"

    frames, failure = read(record(tmp_path / f"a{suffix}", pausing, codec=codec))

    assert failure is None
    assert times(frames) == pytest.approx(pausing, abs=1e-3)


def test_a_header_that_counts_too_many_frames_is_no_damage(tmp_path):
    path = record(tmp_path / "a.avi", THIRTIETHS, codec="mjpeg", pixels="yuvj420p", ticks=30)
    content = bytearray(path.read_bytes())
    for tag, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        struct.pack_into("<I", content, content.index(tag) + offset, 64)
    path.write_bytes(content)

    with open_video(path) as video:
        assert video.frame_count == 64
        assert len(list(video)) == 60
        assert video.failure is None


@pytest.mark.parametrize("fps", [120, 240, 960])
def test_high_frame_rates(tmp_path, fps):
    path = record(tmp_path / "a.mp4", [i / fps for i in range(24)], rate=fps)

    frames, _ = read(path)

    assert times(frames) == pytest.approx([i / fps for i in range(24)], abs=2e-5)


def test_times_start_with_the_first_stream(tmp_path):
    """Transport streams begin at any time stamp; a late picture stays late."""
    path = record(tmp_path / "a.ts", [100 + t for t in CHANGING])
    late = record(tmp_path / "late.mkv", [2.0, 2.04], sound=True)

    assert times(read(path)[0])[:3] == pytest.approx(CHANGING[:3])
    assert times(read(late)[0]) == pytest.approx([2.0, 2.04])


def test_rotated_frames_and_pixels_that_are_not_square(tmp_path):
    def turn(stream):
        stream.set_display_rotation(90)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    with open_video(record(tmp_path / "a.mp4", [0.0], set_up=turn)) as video:
        assert video.size_hw == SIZE_HW[::-1]
        assert video.info.pixel_aspect == Fraction(3, 4)
        assert next(iter(video)).image.shape == (*SIZE_HW[::-1], 3)


def moving_bars(index, size_hw):
    """Two half pictures, the second a little later."""
    frame = np.zeros((*size_hw, 3), np.uint8)
    frame[0::2, 4 * index : 4 * index + 8] = 255
    frame[1::2, 4 * index + 2 : 4 * index + 10] = 255
    return frame


@pytest.mark.parametrize("is_interlaced", [True, False])
def test_interlaced_frames_are_made_whole(tmp_path, is_interlaced):
    def interlace(stream):
        if is_interlaced:
            stream.codec_context.flags |= Flags.interlaced_dct | Flags.interlaced_me

    path = record(
        *(tmp_path / "a.mp4", CHANGING[20:32]),
        frame=moving_bars, options={"crf": "4"}, set_up=interlace,
    )  # fmt: skip

    frames, failure = read(path)

    assert failure is None
    assert times(frames) == pytest.approx([t - CHANGING[20] for t in CHANGING[20:32]])
    combs = [np.abs(np.diff(f.image[..., 0].astype(int), axis=0)).mean() for f in frames]
    assert (max(combs) < 2) if is_interlaced else (min(combs) > 5)


def two_sizes(path, codec):
    """Join the packets of two encoders in one stream."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE_HW, "yuv420p"
        for start, size_hw in ((0, SIZE_HW), (4, (96, 64))):
            encoder = av.CodecContext.create(codec, "w")
            encoder.height, encoder.width, encoder.pix_fmt = *size_hw, "yuv420p"
            encoder.time_base = Fraction(1, 25)
            for index in range(start, start + 4):
                picture = av.VideoFrame.from_ndarray(ramp(index, size_hw), "rgb24")
                picture = picture.reformat(format="yuv420p")
                picture.pts, picture.time_base = index, Fraction(1, 25)
                for packet in encoder.encode(picture):
                    packet.stream = stream
                    output.mux(packet)
            for packet in encoder.encode(None):
                packet.stream = stream
                output.mux(packet)
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.webm", "libvpx")])
def test_a_size_that_changes_is_scaled_to_the_first(tmp_path, caplog, name, codec):
    frames, failure = read(two_sizes(tmp_path / name, codec))

    assert failure is None
    assert [frame.image.shape for frame in frames] == [(*SIZE_HW, 3)] * 8
    assert all(distance(frame.image, ramp(frame.number)) < 8 for frame in frames)
    assert f"{tmp_path / name} changes its size: 4 frames scaled to 64x48" in caplog.messages


@pytest.mark.parametrize("number", [0, 30, 59])
def test_a_damaged_frame_of_a_camera_is_named_and_the_others_stay(tmp_path, caplog, number):
    path = record(tmp_path / "a.avi", THIRTIETHS, codec="mjpeg", pixels="yuvj420p", ticks=30)
    zero_avi_frame(path, number)

    frames, failure = read(path)

    assert numbers(frames) == [i for i in range(60) if i != number]
    assert times(frames) == pytest.approx([frame.number / 30 for frame in frames])
    assert all(distance(frame.image, ramp(frame.number)) < 8 for frame in frames)
    assert failure == f"{path}: 1 damaged frame left out: {number} ({number / 30:.3f} s)"
    assert caplog.messages == [failure]


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".webm", "libvpx", {}),
        (".webm", "libvpx-vp9", {"cpu-used": "8"}),
        (".mp4", "libx264", {"g": "10"}),  # with frames that are shown in another order
        (".mkv", "mpeg4", {"g": "10"}),
    ],
)
def test_a_damaged_packet_of_any_codec_costs_no_other_number(tmp_path, suffix, codec, options):
    path = record(tmp_path / f"a{suffix}", UNEVEN, codec=codec, options=options, ticks=1000)
    wanted, _ = read(path)
    zero_packet(path, 20)

    frames, failure = read(path)

    lost = sorted(set(range(44)) - set(numbers(frames)))
    assert 0 < len(lost) < 15
    assert f"{len(lost)} damaged frame" in failure
    assert f"{lost[0]} ({wanted[lost[0]].time_s:.3f} s)" in failure
    assert all(frame.time_s == wanted[frame.number].time_s for frame in frames)


def test_many_damaged_frames_are_counted(tmp_path):
    path = record(tmp_path / "a.avi", THIRTIETHS[:20], codec="mjpeg", pixels="yuvj420p", ticks=30)
    for number in range(2, 12):
        zero_avi_frame(path, number)

    frames, failure = read(path)

    assert len(frames) == 10
    assert "10 damaged frames left out: 2 (0.067 s), " in failure
    assert failure.endswith(", 6 (0.200 s) and 5 more")


@pytest.mark.parametrize("suffix", sorted(WRITABLE_SUFFIXES))
@pytest.mark.parametrize("share", [0.75, 0.9])
def test_of_a_file_that_is_cut_off_the_rest_is_read(tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path, fps=30, size_hw=SIZE_HW) as writer:
        for index in range(40):
            writer.write(ramp(index))
    cut(path, share)
    if suffix == ".ts":
        path.write_bytes(path.read_bytes()[:-100])  # within one of its packets of 188

    frames, failure = read(path)

    assert 5 < len(frames) < 40
    assert all(distance(frame.image, ramp(round(30 * frame.time_s))) < 8 for frame in frames)
    last = frames[-1]
    assert f"it ends early, after frame {last.number} ({last.time_s:.3f} s)" in failure


def test_a_reader_that_is_closed_says_nothing(tmp_path, caplog):
    path = record(tmp_path / "a.avi", THIRTIETHS, codec="mjpeg", pixels="yuvj420p", ticks=30)
    cut(path, 0.5)
    with open_video(path) as video:
        next(frames := iter(video))
    assert list(frames) == []
    assert list(video) == []
    assert video.failure is None
    assert not caplog.messages


def test_reading_goes_on_where_it_stopped(tmp_path):
    with open_video(record(tmp_path / "a.mp4", THIRTIETHS)) as video:
        assert numbers(itertools.islice(video, 9)) == list(range(9))
        assert numbers(video) == list(range(9, 60))
        assert list(video) == []


def test_hardware_decoding_falls_back(tmp_path):
    path = record(tmp_path / "a.mp4", THIRTIETHS)
    wanted, got = read(path)[0], read(path, hardware=True)[0]
    assert all(np.array_equal(*(f.image for f in pair)) for pair in zip(wanted, got, strict=True))


def test_suffixes():
    assert is_video("a/b.MP4")
    assert is_video("a/b.m2ts")
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


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"


@pytest.mark.parametrize(
    "content", [b"", b"not a video at all" * 50, bytes(5000), b"RIFF\xff\xff\0\0AVI LIST", PLAYLIST]
)
def test_what_is_no_video(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"clip\.mp4 cannot be decoded"):
        open_video(path)


def test_files_without_pictures(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=16_000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 16_000
        output.mux(stream.encode(silence))
        output.mux(stream.encode(None))
    with pytest.raises(ImageError, match="there is no video in it"):
        open_video(tmp_path / "sound.mp4")
    path = record(tmp_path / "a.mkv", [0.0])
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\x1f\x43\xb6\x75")])  # before the first cluster
    with pytest.raises(ImageError, match="cannot be decoded"):
        open_video(path)


@pytest.mark.parametrize("name", ["http:a.mp4", "concat:a|b.mp4", "%03d.mp4", "na\udcffme.mp4"])
def test_names_are_names(tmp_path, monkeypatch, name):
    record(tmp_path / "plain.mp4", [0.0]).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read(name)[0]) == 1
