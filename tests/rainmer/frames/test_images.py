"""Formats: what OpenCV, Pillow or pillow-heif reads is read, by its content, as others see it."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from ultralytics.utils.patches import imread

from rainmer.errors import ImageError
from rainmer.frames.formats import IMAGE_SUFFIXES, result_suffix
from rainmer.frames.images import (
    decode_image,
    find_images,
    image_orientation,
    image_size_hw,
    list_images,
    read_image,
)
from rainmer.frames.levels import parse_stretch
from tests.images import FORMATS, encoded, float_tiff, picture, small_files, with_orientation

LOSSLESS = ("BMP", "PNG", "PPM", "TIFF", "JPEG2000")


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(tmp_path, kind):
    frame = picture()
    path = write(tmp_path, f"a{FORMATS[kind]}", encoded(frame, kind))
    read = read_image(path)
    assert np.abs(read.astype(int) - frame).mean() < (0.5 if kind in LOSSLESS else 12)
    assert image_size_hw(path) == frame.shape[:2]
    assert list_images(tmp_path) == [path]
    # The content decides: a photo may have the wrong suffix.
    assert np.array_equal(read_image(write(tmp_path, "a.png", path.read_bytes())), read)


@pytest.mark.parametrize("kind", sorted(FORMATS.keys() - {"GIF", "PPM", "HEIF"}))
def test_pixels_are_those_of_ultralytics(tmp_path, kind):
    for number in range(2):
        path = write(tmp_path, f"{number}{FORMATS[kind]}", encoded(picture(seed=number), kind))
        assert np.array_equal(read_image(path), imread(path)[..., ::-1])


@pytest.mark.parametrize("kind", ["BMP", "JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pixels_of_8_bits_are_those_of_opencv(kind, mode):
    image = Image.fromarray(picture()).convert("RGBA" if mode == "LA" else mode).convert(mode)
    try:
        content = encoded(image, kind)
    except OSError:
        pytest.skip(f"{kind} has no {mode}")
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decode_image(content), expected[..., ::-1])


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(tmp_path, kind, orientation):
    # HEIC: pillow-heif stores the turn in the file's own properties; JPEG 2000 has none.
    content = encoded(picture(), kind, exif=with_orientation(orientation))
    path = write(tmp_path, f"a{FORMATS[kind]}", content)
    read = read_image(path)
    assert image_size_hw(path) == read.shape[:2]
    assert image_orientation(path) == (1 if kind in ("HEIF", "JPEG2000") else orientation)
    if kind in ("AVIF", "TIFF"):
        shown = decode_image(encoded(picture(), "PNG", exif=with_orientation(orientation)))
        assert np.abs(read.astype(int) - shown).mean() < 12


def test_an_orientation_of_xmp_alone_is_not_believed(tmp_path):
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = write(tmp_path, "a.jpg", encoded(picture(), "JPEG", xmp=packet))
    assert image_size_hw(path) == read_image(path).shape[:2] == (30, 40)
    assert image_orientation(path) == 1


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    content = encoded(picture(), "PNG", exif=with_orientation(6))
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    moved = content[:start] + content[stop:end] + content[start:stop] + content[end:]
    path = write(tmp_path, "a.png", moved)
    assert image_size_hw(path) == read_image(path).shape[:2] == (40, 30)


def test_heic_without_its_package(tmp_path, monkeypatch):
    path = write(tmp_path, "a.heic", encoded(picture(), "HEIF"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for function in (read_image, image_size_hw):
        with pytest.raises(
            ImageError, match=r'a\.heic: HEIC needs .* pip install "rainmer\[heif\]"$'
        ):
            function(path)


@pytest.mark.parametrize("name", sorted(small_files()))
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_truncated_files_are_named(name, share):
    content = small_files()[name]
    if "pages" in name and share > 0.5:
        pytest.skip("the first picture is whole")
    with pytest.raises(ImageError, match=rf"^x/{name} (is truncated|cannot be decoded)[^\n]*$"):
        decode_image(content[: int(share * len(content))], f"x/{name}")


def test_more_pixels_than_are_read():
    gif = bytearray(encoded(picture(), "GIF"))
    gif[6:10] = b"\xff" * 4
    with pytest.raises(ImageError, match=r"^a\.gif has more pixels than are read: 65535x65535$"):
        decode_image(bytes(gif), "a.gif")
    ppm = b"P6 60000 60000 255\n" + bytes(9)
    with pytest.raises(ImageError, match=r"^a\.ppm has more pixels .*OPENCV_IO_MAX_IMAGE_PIXELS"):
        decode_image(ppm, "a.ppm")


def test_what_else_a_file_holds_is_noted_once(tmp_path, caplog):
    pages = {name for name in small_files() if name.startswith("pages") and "webp" not in name}
    for name in sorted(pages):
        for number in range(2):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            read = read_image(write(folder, f"{number}.x", small_files()[name]))
            assert np.abs(read.astype(int) - picture((13, 17))).mean() < 12
    assert len(caplog.messages) == len(pages) == 2
    assert all("0.x: it holds 3 pictures; only the first is read" in m for m in caplog.messages)


class TestDepth:
    """Images of more than 8 bits."""

    ramp = np.linspace(7000, 9000, 64 * 32).astype(np.uint16).reshape(32, 64)

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_16_bits_lose_the_lower_byte_as_in_ultralytics(self, tmp_path, suffix, channels):
        deep = np.random.default_rng(1).integers(0, 1 << 16, (30, 40, channels)).astype(np.uint16)
        if suffix == ".pgm" and channels > 1:
            pytest.skip("PGM is grey")
        path = write(tmp_path, f"a{suffix}", cv2.imencode(suffix, deep)[1].tobytes())
        read = read_image(path)
        expected = np.broadcast_to((deep >> 8)[..., :3], read.shape)
        assert np.array_equal(read, expected[..., ::-1])
        assert np.array_equal(read, np.broadcast_to(imread(path)[..., ::-1], read.shape))

    def test_lost_levels_are_noted(self, tmp_path, caplog):
        for name in ("a.png", "b.png"):
            path = write(tmp_path, name, cv2.imencode(".png", self.ramp)[1].tobytes())
            assert len(np.unique(read_image(path))) == 9
        assert caplog.messages == [
            f"{tmp_path}/a.png: 16 bits of 7000..9000 become 9 levels of 8 bits; --stretch keeps "
            "more (said once for this folder)"
        ]
        assert len(np.unique(read_image(path, stretch=(0, 100)))) == 256

    def test_a_full_range_and_a_black_frame_are_no_loss(self, caplog):
        for deep in (np.arange(0, 65536, 16, np.uint16).reshape(64, 64), np.zeros_like(self.ramp)):
            decode_image(cv2.imencode(".png", deep)[1].tobytes(), "full/a.png")
        assert caplog.messages == []

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2", ".pgm"])
    def test_stretch(self, suffix):
        content = (
            encoded(Image.fromarray(self.ramp), "JPEG2000")
            if suffix == ".jp2"
            else cv2.imencode(suffix, self.ramp)[1].tobytes()
        )
        read = decode_image(content, stretch=(10, 90))[..., 0]
        assert (read.min(), read.max()) == (0, 255)
        share = (read == 0).mean(), (read == 255).mean()
        assert share == pytest.approx((0.1, 0.1), abs=0.01)
        assert (np.diff(read.ravel().astype(int)) >= 0).all()

    def test_stretch_leaves_8_bits_alone(self):
        for kind in ("PNG", "JPEG", "TIFF", "AVIF"):
            content = encoded(picture(), kind)
            assert np.array_equal(decode_image(content, stretch=(10, 90)), decode_image(content))

    def test_colours_share_one_range(self):
        deep = np.stack([self.ramp, self.ramp + 1000, self.ramp + 2000], axis=-1)
        read = decode_image(cv2.imencode(".png", deep)[1].tobytes(), stretch=(0, 100))
        assert (read[..., 0] > read[..., 1]).all()
        assert (read[..., 1] > read[..., 2]).all()

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_floats_of_0_to_1(self, tmp_path, orientation):
        values = picture()[..., 0]
        path = write(tmp_path, "a.tif", float_tiff(values / 255, orientation))
        turned = encoded(values, "PNG", exif=with_orientation(orientation))
        assert np.array_equal(read_image(path), decode_image(turned))
        assert image_size_hw(path) == read_image(path).shape[:2]

    @pytest.mark.parametrize("channels", [3, 4])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_floats_in_colour(self, channels, dtype):
        values = np.dstack([picture()[..., ::-1], np.zeros((30, 40))])[..., :channels] / 255
        content = cv2.imencode(".tif", values.astype(dtype))[1].tobytes()
        assert np.array_equal(decode_image(content), picture())

    def test_floats_out_of_range(self, caplog):
        values = picture()[..., 0] / 255
        values[:2] = 1.5
        assert (decode_image(float_tiff(values), "hdr/a.tif")[:2] == 255).all()
        assert "hdr/a.tif: values of" in caplog.text
        celsius = float_tiff(values * 20 + 5)
        with pytest.raises(ImageError, match=r"^a\.tif has values of .*--stretch"):
            decode_image(celsius, "a.tif")
        stretched = decode_image(celsius, stretch=(0, 95))
        assert (stretched.min(), stretched.max()) == (0, 255)

    def test_values_that_are_no_numbers(self, caplog):
        values = picture()[..., 0] / 255
        values[0], values[1, 0] = np.nan, np.inf
        for stretch in (None, (0, 100)):
            read = decode_image(float_tiff(values), "nan/a.tif", stretch)
            assert (read[0] == 0).all()
        assert "nan/a.tif: " in caplog.text
        assert not decode_image(float_tiff(np.full((4, 4), np.nan))).any()

    def test_signed_integers_need_a_range(self):
        signed = Image.fromarray(self.ramp.astype(np.int32) - 8000)
        with pytest.raises(ImageError, match=r"-1000\.\.1000 \(int32\).*--stretch"):
            decode_image(encoded(signed, "TIFF"))
        assert decode_image(encoded(signed, "TIFF"), stretch=(0, 100)).max() == 255

    @pytest.mark.parametrize("text", ["", "1", "99,1", "-1,50", "a,b", "1,2,3", "nan,5", "0,101"])
    def test_stretches_that_cannot_be(self, text):
        with pytest.raises(Exception, match="percentiles LOW,HIGH"):
            parse_stretch(text)


def test_of_a_photo_in_two_formats_the_common_one_counts(tmp_path):
    for name in ("a.dng", "a.jpg", "b.HEIC", "b.avif", "c.jpg", "c.png", "d/a.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["a.jpg", "b.HEIC", "b.avif", "c.jpg", "c.png", "d/a.heic"]
    assert find_images(tmp_path).skipped == {".dng (a second format)": 1}


def test_results_of_what_is_not_written_become_png():
    kept = {suffix for suffix in IMAGE_SUFFIXES if result_suffix(f"a{suffix}") == suffix}
    assert kept == {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
    assert result_suffix("a.b.HEIC") == ".png"
