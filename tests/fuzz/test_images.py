"""Damaged images: an image or one line, and a header that agrees with the pixels."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rainmer.errors import ImageError
from rainmer.frames.images import image_size_hw, read_image
from tests.images import small_files

STARTS = [b"", *(content[:24] for content in small_files().values())]


@st.composite
def damaged_files(draw):
    """A small file with some bits flipped, bytes replaced, or its end missing."""
    name = draw(st.sampled_from(sorted(small_files())))
    content = bytearray(small_files()[name])
    for _ in range(draw(st.integers(0, 4))):
        # Headers decide more than pixels: they are hit more often.
        position = draw(st.integers(0, len(content) - 1) | st.integers(0, 99))
        content[position % len(content)] = draw(st.integers(0, 255))
    end = draw(st.just(len(content)) | st.integers(0, len(content)))
    return name, bytes(content[:end])


def check(path, content):
    """Read the size in the header of a file, and decode it."""
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's on damaged tags
        size_hw = outcome(image_size_hw, path)
        # Files that claim to be large are decoded for seconds.
        assume(size_hw is None or size_hw[0] * size_hw[1] < 1 << 20)
        frame = outcome(read_image, path)
    if frame is not None:
        assert (frame.ndim, frame.shape[2], frame.dtype) == (3, 3, "uint8")
        assert size_hw in (None, frame.shape[:2])


def outcome(function, path):
    """The result, or None for an error of one line that names the file."""
    try:
        return function(path)
    except ImageError as error:
        line = str(error)
    assert str(path) in line
    assert "\n" not in line
    return None


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file that is written again and again."""
    return tmp_path_factory.mktemp("images") / "x.png"


@given(file=damaged_files())
def test_damaged_files(path, file):
    check(path, file[1])


@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=300))
def test_random_bytes(path, start, rest):
    check(path, start + rest)
