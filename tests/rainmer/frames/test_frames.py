"""Images: every kind of file becomes what one sees, and nothing changes on the way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from rainmer.errors import ImageError, OutputError
from rainmer.frames.arrays import (
    Download,
    download,
    quantize,
    reverse_channels,
    to_batch,
    to_frames,
    upload,
)
from rainmer.frames.formats import WRITABLE_SUFFIXES
from rainmer.frames.images import (
    decode_image,
    encode_image,
    image_orientation,
    image_size_hw,
    list_images,
    read_image,
    write_image,
)
from tests import images
from tests.images import encoded, with_orientation

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
frame_arrays = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))


@pytest.fixture
def picture():
    """A smooth uint8 picture (30, 40, 3) whose channels differ."""
    return images.picture()


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF"])
def test_lossless_files(picture, kind):
    assert np.array_equal(decode_image(encoded(picture, kind)), picture)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_files_keep_the_colours(picture, kind):
    decoded = decode_image(encoded(picture, kind, quality=95))
    assert np.abs(decoded.astype(int) - picture).mean() < 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_of_colour(picture, mode):
    image = Image.fromarray(picture).convert(mode)
    assert np.array_equal(decode_image(encoded(image, "PNG")), np.asarray(image.convert("RGB")))


def test_alpha_is_dropped_not_blended():
    clear = np.full((8, 9, 4), 200, np.uint8)
    clear[..., 3] = 0
    assert (decode_image(encoded(clear, "PNG")) == 200).all()


def test_cmyk_becomes_rgb(picture):
    image = Image.fromarray(picture).convert("CMYK")
    decoded = decode_image(encoded(image, "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - picture).mean() < 8


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".tiff", 1)])
def test_sixteen_bits_lose_the_lower_byte(picture, suffix, tolerance):
    deep = picture[..., ::-1].astype(np.uint16) * 256 + 255
    decoded = decode_image(cv2.imencode(suffix, deep)[1].tobytes())
    assert np.abs(decoded.astype(int) - picture).max() <= tolerance
    gray = decode_image(cv2.imencode(suffix, deep[..., 0])[1].tobytes())
    assert np.abs(gray.astype(int) - picture[..., 2:]).max() <= tolerance


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied(tmp_path, picture, kind, orientation):
    content = encoded(picture, kind, exif=with_orientation(orientation))
    quarter_turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    expected = np.rot90(picture, quarter_turns)
    decoded = decode_image(content)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < 8
    path = tmp_path / f"turned.{kind.lower()}"
    path.write_bytes(content)
    assert image_size_hw(path) == expected.shape[:2]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_truncated_files_are_refused(picture, kind, share):
    content = encoded(picture, kind)
    with pytest.raises(ImageError, match=r"rainy\.x (is truncated|cannot be decoded)"):
        decode_image(content[: int(share * len(content))], source="rainy.x")


def test_truncated_file_with_a_thumbnail_is_refused(picture):
    # The thumbnail ends with an end marker of its own; the picture's is missing.
    thumbnail = encoded(picture[:8, :8], "JPEG")
    application = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    content = encoded(picture, "JPEG")
    content = content[:2] + application + content[2:]
    assert decode_image(content).shape == picture.shape
    with pytest.raises(ImageError, match="truncated"):
        decode_image(content[:-20])


def test_truncated_progressive_file_is_refused(picture):
    content = encoded(picture, "JPEG", progressive=True)
    assert decode_image(content).shape == picture.shape
    with pytest.raises(ImageError, match="truncated"):
        decode_image(content[:-2])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "tail",
    [bytes(10_000), b"\xff\xda and more", b"\xff\xd8\xff\xda" * 9],
    ids=["zeros", "scan marker", "image markers"],
)
def test_data_behind_the_image_is_no_harm(picture, kind, tail):
    # Phones append a short video to a photo.
    content = encoded(picture, kind)
    assert np.array_equal(decode_image(content + tail), decode_image(content))


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        read_image(path)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        image_size_hw(path)


def test_missing_files(tmp_path):
    for function in (read_image, image_size_hw):
        with pytest.raises(ImageError, match=r"none\.png: No such file"):
            function(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot read"):
        read_image(tmp_path)


@settings(deadline=None, max_examples=20)
@given(frame=frame_arrays)
def test_png_round_trip(frame):
    assert np.array_equal(decode_image(encode_image(frame)), frame)


@pytest.mark.parametrize("suffix", sorted(WRITABLE_SUFFIXES))
def test_every_suffix_has_an_encoder(tmp_path, picture, suffix):
    path = tmp_path / "new" / f"image{suffix.upper()}"
    write_image(path, picture)
    assert np.abs(read_image(path).astype(int) - picture).mean() < 4
    assert image_size_hw(path) == (30, 40)
    assert list(path.parent.iterdir()) == [path]


def test_suffix_without_encoder(tmp_path, picture):
    with pytest.raises(ImageError, match=r"'\.docx': use \.png or \.jpg"):
        write_image(tmp_path / "image.docx", picture)
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written(tmp_path, picture):
    (tmp_path / "image.png").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*image\.png"):
        write_image(tmp_path / "image.png", picture)


def test_list_images(tmp_path):
    for name in ("b.png", "a.JPG", "sub/c.webp", "notes.txt", ".hidden.png", ".cache/d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a.JPG", "b.png", "sub/c.webp"]


def test_list_images_within_a_hidden_folder(tmp_path):
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data/a.png").touch()
    assert len(list_images(tmp_path / ".data")) == 1


def test_list_images_of_no_folder(tmp_path):
    with pytest.raises(ImageError, match="no folder"):
        list_images(tmp_path / "none")


@settings(deadline=None, max_examples=20)
@given(frame=frame_arrays, count=st.integers(1, 3))
def test_batch_round_trip(frame, count):
    frames = [np.roll(frame, shift, axis=1) for shift in range(count)]
    batch = to_batch(frames)
    assert batch.shape == (count, 3, *frame.shape[:2])
    assert batch.dtype == torch.float32
    assert 0 <= batch.min() <= batch.max() <= 1
    assert torch.equal(batch[0, 1] * 255, torch.from_numpy(frame[..., 1]).float())
    for restored, original in zip(to_frames(batch), frames, strict=True):
        assert restored.dtype == np.uint8
        assert np.array_equal(restored, original)


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 3), np.float32)],
)
def test_arrays_that_are_no_frames(frame):
    with pytest.raises(ImageError, match=r"expected a frame \(H, W, 3\) of uint8"):
        to_batch([frame])


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_of_any_memory_order_go_up_and_down(device, dtype):
    base = np.arange(2 * 5 * 7 * 3).reshape(2, 5, 7, 3).astype(dtype)
    frozen = base[0].copy()
    frozen.flags.writeable = False
    frames = [frozen, base[1], base[1, ::-1], base[0, :, ::-1], np.asfortranarray(base[1])]
    batch = upload(frames, device)
    assert batch.shape == (5, 3, 5, 7)
    for found in (download(batch), Download(batch).frames()):
        np.testing.assert_array_equal(found, frames)
        assert all(frame.dtype == dtype for frame in found)


def test_quantize_clamps_and_rounds_half_to_even():
    levels = torch.tensor([-1.0, 0.0, 0.5 / 255, 1.5 / 255, 0.4 / 255, 254.6 / 255, 1.0, 7.0])
    assert quantize(levels).tolist() == [0, 0, 0, 2, 0, 255, 255, 255]
    assert quantize(torch.tensor([0.5], dtype=torch.bfloat16)).dtype == torch.uint8


def test_quantize_rounds_down_if_asked_to():
    levels = torch.tensor([-1.0, 0.9 / 255, 1.1 / 255, 254.9 / 255, 1.0, 7.0])
    assert quantize(levels, truncate=True).tolist() == [0, 0, 1, 254, 255, 255]


def test_reverse_channels_is_its_own_inverse(picture):
    turned = reverse_channels(picture)
    assert np.array_equal(turned, picture[..., ::-1])
    assert turned.flags["C_CONTIGUOUS"]
    assert np.array_equal(reverse_channels(turned), picture)


@pytest.mark.parametrize(("written", "found"), [(None, 1), (0, 1), (1, 1), (6, 6), (8, 8), (9, 1)])
def test_the_orientation_of_a_photo(tmp_path, written, found):
    exif = Image.Exif()
    if written is not None:
        exif[0x0112] = written
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert image_orientation(tmp_path / "a.jpg") == found
    (tmp_path / "b.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"b\.jpg cannot be decoded"):
        image_orientation(tmp_path / "b.jpg")
