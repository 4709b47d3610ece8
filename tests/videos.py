"""Video files as cameras, phones and browsers make them, and damage to them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE_HW = (48, 64)


def ramp(index, size_hw=SIZE_HW):
    """A frame whose red rises with x, green with y, and blue with the index."""
    height, width = size_hw
    frame = np.empty((height, width, 3), np.uint8)
    frame[..., 0] = np.linspace(0, 255, width)
    frame[..., 1] = np.linspace(0, 255, height)[:, None]
    frame[..., 2] = 20 * index % 256
    return frame


def distance(image, wanted) -> float:
    """Mean difference of two pictures in levels; a swap of channels costs more than 40."""
    return float(np.abs(image.astype(int) - wanted.astype(int)).mean())


def record(
    path,
    times_s,
    *,
    codec="libx264",
    pixels="yuv420p",
    size_hw=SIZE_HW,
    rate=30,
    ticks=90_000,
    frame=ramp,
    options=None,
    container=None,
    set_up=None,
    sound=False,
) -> Path:
    """Write a video with PyAV alone.

    Args:
        path: The file.
        times_s: When each frame is shown.
        codec, pixels, size_hw, rate, options: Of the encoder.
        ticks: Parts of a second in which times are written.
        frame: `(index, size_hw) -> frame`.
        container: Options of the container.
        set_up: Called with the stream, to change it.
        sound: Add a second of AAC for each second, in English.
    """
    Path(path).parent.mkdir(exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size_hw, pixels
        stream.codec_context.time_base = Fraction(1, ticks)
        if set_up is not None:
            set_up(stream)
        audio = None
        if sound:
            audio = output.add_stream("aac", rate=16_000)
            audio.metadata["language"] = "eng"
        for index, time_s in enumerate(times_s):
            picture = av.VideoFrame.from_ndarray(frame(index, size_hw), "rgb24")
            picture = picture.reformat(
                format=pixels,
                dst_colorspace=stream.colorspace if stream.colorspace != 2 else None,
                dst_color_range=stream.color_range or None,
            )
            picture.pts, picture.time_base = round(time_s * ticks), Fraction(1, ticks)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
        if audio is not None:
            for packet in _noise(audio, times_s[-1]):
                output.mux(packet)
    return Path(path)


def _noise(stream, seconds):
    generator = np.random.default_rng(0)
    for index in range(int(seconds * 16_000 / 1024)):
        wave = 0.1 * generator.standard_normal((1, 1024))
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 1024 * index, Fraction(1, 16_000)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def sound_of(path) -> list[tuple[float, bytes]]:
    """Return the packets of the first sound of a file: times in s, contents."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.audio[0]) if p.size]
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets]


def zero_avi_frame(path, number):
    """Overwrite the data of one frame of an AVI file by zeros."""
    content = bytearray(Path(path).read_bytes())
    at = content.index(b"movi") + 4
    for _ in range(number):
        at += 8 + (length := int.from_bytes(content[at + 4 : at + 8], "little")) + length % 2
    length = int.from_bytes(content[at + 4 : at + 8], "little")
    content[at + 8 : at + 8 + length] = bytes(length)
    Path(path).write_bytes(content)


def zero_packet(path, number):
    """Overwrite one packet of a video by zeros, where it stands in the file."""
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]
    content = Path(path).read_bytes()
    packet = packets[number]
    assert content.count(packet) == 1
    Path(path).write_bytes(content.replace(packet, bytes(len(packet))))


def cut(path, share):
    """Keep the first part of a file."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(share * len(content))])
