"""Resizing must equal OpenCV's bit for bit: detectors' numbers depend on it."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer.frames.resize import resize_bilinear

sides = st.integers(1, 120)


def opencv(image, size_hw):
    return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_LINEAR)


def ours(image, size_hw):
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    return resize_bilinear(batch, size_hw)[0].permute(1, 2, 0).numpy()


@settings(max_examples=150, deadline=None)
@given(height=sides, width=sides, new_height=sides, new_width=sides, seed=st.integers(0, 2**16))
def test_equals_opencv_for_any_sizes(height, width, new_height, new_width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = opencv(image, (new_height, new_width))
    np.testing.assert_array_equal(ours(image, (new_height, new_width)), expected)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((480, 640), (128, 128)),  # a query
        ((720, 1280), (360, 640)),  # exactly half: OpenCV averages blocks
        ((375, 500), (480, 640)),  # enlarging
        ((427, 640), (427, 640)),  # nothing to do
    ],
)
def test_equals_opencv_for_sizes_of_practice(size, target):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(ours(image, target), opencv(image, target))


@pytest.mark.parametrize(
    "batch", [torch.zeros(1, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)]
)
def test_refuses_what_is_no_byte_batch(batch):
    with pytest.raises(ValueError, match="uint8"):
        resize_bilinear(batch, (2, 2))
