"""Gradients in bfloat16 on the CPU, where oneDNN's own of dilated filters are wrong."""

import pytest
import torch
import torch.nn.functional as F

from rainmer.models.layers import depthwise


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size_hw", [(64, 64), (33, 48)])
def test_gradients_of_dilated_filters_are_right(size_hw, kernel, autocast):
    torch.manual_seed(0)
    x, gradient = torch.rand(2, 16, *size_hw), torch.randn(2, 16, *size_hw)
    x, gradient = (t.contiguous(memory_format=torch.channels_last) for t in (x, gradient))
    weight = torch.randn(16, 1, kernel, kernel)
    exact = [t.bfloat16().double().requires_grad_() for t in (x, weight)]
    F.conv2d(*exact, padding=kernel - 1, dilation=2, groups=16).backward(
        gradient.bfloat16().double()
    )
    own = [(t if autocast else t.bfloat16()).requires_grad_() for t in (x, weight)]
    freed = [torch.full((1 << n,), float("nan")) for n in range(8, 20)]  # for a kernel to find
    del freed
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = depthwise(*own, dilation=2)
    result.backward(gradient.to(result.dtype))
    for tensor, expected in zip(own, exact, strict=True):
        error = (tensor.grad.double() - expected.grad).abs().max() / expected.grad.abs().max()
        assert error < 0.02
