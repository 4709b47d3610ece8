"""Colours, depth and orientation of decoded frames."""

import gc

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange

from rainmer.frames.decoding import to_rgb
from tests.videos import SIZE_HW, distance, ramp, record

BT709, BT601, BT2020 = 1, 5, 9  # FFmpeg's numbers


def decoded(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def first_by_opencv(path):
    return np.ascontiguousarray(cv2.VideoCapture(str(path)).read()[1][..., ::-1])


@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
@pytest.mark.parametrize("levels", [ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
def test_colours_are_those_that_the_file_declares(tmp_path, matrix, levels, pixels):
    if matrix == BT2020 and int(av.__version__.partition(".")[0]) < 18:
        pytest.skip("PyAV converts from BT.2020 from version 18 on")

    def declare(stream):
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = levels

    path = record(tmp_path / "a.mp4", [0.0], pixels=pixels, options={"crf": "4"}, set_up=declare)

    image = to_rgb(decoded(path)[0])

    assert distance(image, ramp(0)) < 3  # the wrong matrix or range costs 6 or more
    if pixels == "yuv420p":
        assert np.array_equal(image, first_by_opencv(path))


@pytest.mark.parametrize(
    ("codec", "pixels", "size_hw", "suffix", "least"),
    [
        ("ffv1", "gbrp16le", (47, 65), ".mkv", 0.0),
        ("ffv1", "bgra", (47, 65), ".mkv", 0.0),
        ("ffv1", "yuv422p10le", SIZE_HW, ".mkv", 1.5),
        ("mjpeg", "yuvj420p", (47, 65), ".avi", 5.0),
        ("libx265", "yuv420p12le", SIZE_HW, ".mp4", 4.0),
        ("libvpx-vp9", "yuv420p", (47, 65), ".webm", 3.0),
    ],
)
def test_any_format_becomes_8_bit_rgb(tmp_path, codec, pixels, size_hw, suffix, least):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    form = {"codec": codec, "pixels": pixels, "size_hw": size_hw, "options": options}
    path = record(tmp_path / f"a{suffix}", [0.0], ticks=30, **form)

    image = to_rgb(decoded(path)[0])

    assert (image.dtype, image.shape) == (np.uint8, (*size_hw, 3))
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert distance(image, ramp(0, size_hw)) <= least


def test_frames_as_gpus_decode_them_have_the_same_pixels(tmp_path):
    (frame,) = decoded(record(tmp_path / "a.mp4", [0.0]))

    assert np.array_equal(to_rgb(frame.reformat(format="nv12")), to_rgb(frame))


def test_gray_becomes_three_equal_channels(tmp_path):
    path = record(tmp_path / "a.mkv", [0.0], codec="ffv1", pixels="gray16le")

    image = to_rgb(decoded(path)[0])

    assert (np.ptp(image, axis=2) == 0).all()


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flips", [{}, {"hflip": True}, {"vflip": True}])
def test_rotation_and_mirroring_are_applied(tmp_path, degrees, flips):
    path = record(
        tmp_path / "a.mp4",
        [0.0],
        set_up=lambda stream: stream.set_display_rotation(degrees, **flips),
    )
    plain = to_rgb(decoded(record(tmp_path / "plain.mp4", [0.0]))[0])
    wanted = np.rot90(plain, degrees // 90)  # counterclockwise; then it is mirrored
    wanted = wanted[:, ::-1] if "hflip" in flips else wanted
    wanted = wanted[::-1] if "vflip" in flips else wanted

    image = to_rgb(decoded(path)[0])

    assert np.array_equal(image, wanted)
    if not flips:
        assert np.array_equal(image, first_by_opencv(path))


def test_frames_go_without_the_garbage_collector(tmp_path):
    """`frame.side_data` ties a frame to itself: pictures would pile up until Python collects."""
    path = record(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
    gc.collect()
    gc.disable()
    try:
        for frame in decoded(path):
            to_rgb(frame)
        del frame
        left = [item for item in gc.get_objects() if type(item) is av.VideoFrame]
        assert left == []
    finally:
        gc.enable()
