"""Whatever an exported network's size and whatever a frame's, no pixel is lost or moved."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer import Derainer

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.rainmer.stage.onnx_files import write_onnx

SIDES = st.integers(1, 70)
DECLARED = st.sampled_from([None, 9, 16, 31, 64])


@functools.cache
def onnx_file(shape):
    folder = Path(tempfile.mkdtemp(prefix="fixed-"))
    return write_onnx(folder / "net.onnx", shape)


# An example takes a tenth of a second: a fifth of the usual number.
@settings(max_examples=settings().max_examples // 5)
@given(
    declared=st.tuples(st.sampled_from([None, 1, 3]), DECLARED, DECLARED),
    channels_last=st.booleans(),
    tile=st.sampled_from([None, 8, 40]),
    overlap=st.integers(0, 7),
    batch=st.integers(1, 4),
    sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=2),
)
def test_the_identity_of_any_size_gives_the_frame(
    declared, channels_last, tile, overlap, batch, sizes
):
    count, height, width = declared
    shape = (count, height, width, 3) if channels_last else (count, 3, height, width)
    derainer = Derainer(
        f"onnx:{onnx_file(shape)}", device="cpu", tile=tile, overlap=overlap, batch=batch
    )
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    for frame, restored in zip(frames, derainer(frames), strict=True):
        np.testing.assert_array_equal(restored, frame)
