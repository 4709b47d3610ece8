"""Which encoder writes which video file, and with what settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.video.reformatter import ColorRange, Colorspace

from rainmer.errors import OutputError

__all__ = [
    "CODECS",
    "CONTAINERS",
    "DEFAULT_FPS",
    "WRITABLE_SUFFIXES",
    "Encoder",
    "choose_encoder",
    "exact_rate",
]

DEFAULT_FPS = 25.0
"""Frames per second of files that tell nothing of their rate."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """One of FFmpeg's encoders, as we use it.

    Attributes:
        name: FFmpeg's name of it.
        pixels: Pixel format that it is given.
        colours: Matrix and range of these pixels; None: no conversion of colours.
        crf: Default of `--crf`; None: it has no such scale.
        most_crf: Highest value of that scale.
        even: Both sides must be even: an odd one gets one row or column more, a repeated one.
        options: Its settings.
        quality: Its fixed quality, for encoders without `crf`: FFmpeg's qscale.
        tag: The name that players expect in MP4.
        most_ticks: Finest unit of time that it knows, in parts of a second.
    """

    name: str
    pixels: str = "yuv420p"
    colours: tuple[Colorspace, ColorRange] | None = (Colorspace.ITU709, ColorRange.MPEG)
    crf: int | None = None
    most_crf: int = 51
    even: bool = False
    options: dict[str, str] = field(default_factory=dict)
    quality: int | None = None
    tag: str | None = None
    most_ticks: int = 1_000_000


_LEGACY = (Colorspace.ITU601, ColorRange.MPEG)
_H264 = Encoder(name="libx264", crf=18, even=True, options={"preset": "superfast"})
_OPENH264 = Encoder(name="libopenh264", even=True, options={"b": "8M"})
_HEVC = Encoder(
    name="libx265",
    crf=20,
    even=True,
    options={"preset": "veryfast", "x265-params": "log-level=none"},
    tag="hvc1",
)
_VP9 = Encoder(
    name="libvpx-vp9",
    crf=24,
    most_crf=63,
    options={"b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "1"},
)
_AV1 = Encoder(name="libsvtav1", crf=28, most_crf=63, even=True, options={"preset": "10"})
_MPEG4 = Encoder(name="mpeg4", colours=_LEGACY, quality=2, most_ticks=65_535)
_MJPEG = Encoder(
    name="mjpeg", pixels="yuvj420p", colours=(Colorspace.ITU601, ColorRange.JPEG), quality=2
)
_FFV1 = Encoder(name="ffv1", pixels="bgr0", colours=None)

_ENCODERS: dict[str, tuple[Encoder, ...]] = {
    "h264": (_H264, _OPENH264),
    "hevc": (_HEVC,),
    "vp9": (_VP9,),
    "av1": (_AV1,),
    "mpeg4": (_MPEG4,),
    "mjpeg": (_MJPEG,),
    "ffv1": (_FFV1,),
}
CODECS = ("auto", *_ENCODERS)
"""Values of `--codec`. `ffv1` loses nothing; browsers play `h264`, `vp9` and `av1`."""

# What browsers play first; the last ones are in every FFmpeg.
_FIRST_CHOICE = (_H264, _OPENH264, _VP9, _MPEG4)
CONTAINERS: dict[str, tuple[Encoder, ...]] = {
    ".avi": (_MJPEG,),
    ".m4v": _FIRST_CHOICE,
    ".mkv": _FIRST_CHOICE,
    ".mov": (_H264, _OPENH264, _MPEG4),
    ".mp4": _FIRST_CHOICE,
    ".ts": (_H264, _OPENH264, _MPEG4),
    ".webm": (_VP9,),
}
WRITABLE_SUFFIXES = frozenset(CONTAINERS)
"""Suffixes (lower case) that `VideoWriter` has an encoder for."""


def choose_encoder(suffix: str, codec: str, crf: int | None) -> Encoder:
    """Choose the encoder of a file.

    Args:
        suffix: Suffix of the file, lower case.
        codec: One of `CODECS`.
        crf: A value of `--crf`, or None.

    Raises:
        OutputError: There is none in this build of FFmpeg, or it does not know `crf`.
    """
    if suffix not in CONTAINERS:
        known = ", ".join(sorted(CONTAINERS))
        raise OutputError(
            f"no encoder for {suffix or 'files without suffix'}: use one of the suffixes {known}"
        )
    wanted = CONTAINERS[suffix] if codec == "auto" else _ENCODERS[codec]
    chosen = next((e for e in wanted if e.name in av.codecs_available and _encodes(e.name)), None)
    if chosen is None:
        names = " or ".join(encoder.name for encoder in wanted)
        raise OutputError(f"this FFmpeg has no encoder {names} for {suffix}; try another --codec")
    if crf is not None and chosen.crf is None:
        raise OutputError(f"{chosen.name} (for {suffix}) has no --crf: leave it out")
    if crf is not None and not 0 <= crf <= chosen.most_crf:
        raise OutputError(f"--crf {crf}: {chosen.name} takes 0 (best) to {chosen.most_crf}")
    return chosen


def _encodes(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except av.FFmpegError:
        return False
    except ValueError:  # it only decodes
        return False
    return True


def exact_rate(fps: float) -> Fraction:
    """Return a rate as a fraction, the NTSC ones as they are meant.

    >>> exact_rate(29.97), exact_rate(25.0), exact_rate(12.5)
    (Fraction(30000, 1001), Fraction(25, 1), Fraction(25, 2))
    """
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    if abs(float(ntsc) - fps) < 5e-3 and abs(fps - round(fps)) > 5e-3:
        return ntsc
    return Fraction(fps).limit_denominator(1000)
