import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.data.augment import LetterBox

from detection.yolo.letterbox import letterbox, place

SIDES = st.integers(1, 190)
TARGETS = st.integers(1, 8).map(lambda cells: cells * 32)


@settings(max_examples=120, deadline=None)
@given(
    frame_hw=st.tuples(SIDES, SIDES),
    target_hw=st.tuples(TARGETS, TARGETS),
    auto=st.booleans(),
    stretch=st.booleans(),
    scaleup=st.booleans(),
    center=st.booleans(),
    stride=st.sampled_from([32, 64]),
)
def test_equals_ultralytics_bit_for_bit(
    frame_hw, target_hw, auto, stretch, scaleup, center, stride
):
    frame = np.random.default_rng(0).integers(0, 256, (*frame_hw, 3), dtype=np.uint8)
    shared = {"auto": auto, "scaleup": scaleup, "center": center, "stride": stride}
    theirs = LetterBox(target_hw, scale_fill=stretch, **shared)(image=frame.copy())
    placement = place(frame_hw, target_hw, stretch=stretch, **shared)

    ours = letterbox(torch.from_numpy(frame).permute(2, 0, 1)[None], placement)

    assert np.array_equal(ours[0].permute(1, 2, 0).numpy(), theirs)


def test_content_is_what_padding_surrounds():
    frame = torch.zeros(1, 3, 30, 64, dtype=torch.uint8)
    placement = place((30, 64), (64, 64))

    boxed = letterbox(frame, placement)
    rows, columns = placement.content

    assert not boxed[:, :, rows, columns].any()
    assert (boxed == 114).sum() == 3 * (64 * 64 - 30 * 64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_equals_the_cpu_on_cuda():
    frame = torch.randint(0, 256, (2, 3, 211, 333), dtype=torch.uint8)
    placement = place((211, 333), (640, 640), auto=True)

    assert torch.equal(letterbox(frame.cuda(), placement).cpu(), letterbox(frame, placement))
