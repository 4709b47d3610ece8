import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from rainmer.kernels import products
from rainmer.models import attention as attention_module
from rainmer.models.attention import (
    SparseChannelAttention,
    kept_entries,
    sparse_cascade,
    sparse_softmax,
)
from rainmer.models.layers import (
    ChannelNorm,
    Downsample,
    FeatureCompensator,
    MixedScaleFeedForward,
    Upsample,
    depthwise,
    per_image_projection,
)
from tests.numerics import assert_same_sum, rounding


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("length", "kept"),
    [(48, [24, 32, 36, 38]), (96, [48, 64, 72, 76]), (8, [4, 5, 6, 6]), (32, [16, 21, 24, 25])],
)
def test_kept_entries_of_published_widths(length, kept):
    rates = [Fraction(rate) for rate in ("1/2", "2/3", "3/4", "4/5")]
    assert [kept_entries(length, rate) for rate in rates] == kept


def test_sparse_softmax_by_hand():
    kept = sparse_softmax(torch.tensor([[0.0, math.log(3), -5.0, 0.0]]), 2, ties="lowest")
    torch.testing.assert_close(kept, torch.tensor([[0.25, 0.75, 0.0, 0.0]]))


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12).flatmap(
        lambda row: st.tuples(st.just(row), st.integers(1, len(row)))
    )
)
def test_lowest_of_tied_entries_are_kept(case):
    row, count = case
    result = sparse_softmax(torch.tensor([row], dtype=torch.float32), count, ties="lowest")
    by_rule = sorted(range(len(row)), key=lambda index: (-row[index], index))[:count]
    assert result[0].nonzero().flatten().tolist() == sorted(by_rule)
    assert result.sum().item() == pytest.approx(1, abs=rounding(depth=1))


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9))
def test_ties_do_not_matter_without_ties(seed, count):
    scores = features(2, 3, 9, seed=seed)
    lowest = sparse_softmax(scores, count, ties="lowest")
    assert torch.equal(lowest, sparse_softmax(scores, count, ties="native"))


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    scale=st.sampled_from([1.0, 300.0]),
)
def test_cascade_is_one_sparse_softmax_after_the_other(seed, counts, scale):
    """Also where rounds keep less than before, and where a softmax underflows to ties at zero."""
    logits = scale * features(2, 3, 9, seed=seed)
    scores, expected = logits, []
    for count in counts:
        scores = sparse_softmax(scores, count, ties="lowest")
        expected.append(scores)
    maps = sparse_cascade(logits, counts, ties="lowest")
    for found, wanted in zip(maps, expected, strict=True):
        assert_same_sum(found, wanted)


@pytest.mark.parametrize("size_hw", [(12, 16), (7, 16), (9, 5)], ids=str)
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (7, 1), (5, 2), (7, 2), (7, 3)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
def test_depthwise_is_the_convolution(size_hw, kernel, dilation, order):
    """With and without gradients, for which some kernels go another way."""
    x = features(2, 6, *size_hw).contiguous(memory_format=order)
    weight = features(6, 1, kernel, kernel, seed=1)
    results = []
    for function in (
        lambda x, w: depthwise(x, w, dilation=dilation),
        lambda x, w: F.conv2d(x, w, None, 1, dilation * (kernel // 2), dilation, 6),
    ):
        inputs = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = function(*inputs)
        gradients = torch.autograd.grad((out * out).sum(), inputs)
        with torch.no_grad():
            results.append((out.detach(), function(x, weight), *gradients))
    for found, wanted in zip(*results, strict=True):
        assert_same_sum(found, wanted, depth=2)
    rows = dilation * (kernel // 2)
    if size_hw[0] > 2 * rows:
        inner = depthwise(x, weight, dilation=dilation, pad_rows=False)
        assert_same_sum(inner, results[1][1][:, :, rows:-rows])


def test_cascade_by_hand():
    """The second rate works on the probabilities of the first, and brings back one exact zero."""
    attention = SparseChannelAttention(4, 1, sparse_rates=[Fraction(1, 2), Fraction(3, 4)])
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).expand(1, 1, 4, 4)
    first = torch.tensor([0.0, 1 / (1 + math.e), math.e / (1 + math.e), 0.0])
    second = torch.tensor([1.0, first[1].exp(), first[2].exp(), 0.0])
    expected = 0.2 * first + 0.2 * second / second.sum()
    with torch.no_grad():
        combined = attention.combine_maps(logits)
    torch.testing.assert_close(combined, expected.expand(1, 1, 4, 4))


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_attention_is_the_formula(heads, bias):
    """Normalised q and k, softmax, product with v, then the projection."""
    attention = SparseChannelAttention(8, heads, bias=bias).requires_grad_(False)
    x = features(2, 8, 5, 6)
    q, k, v = (
        t.reshape(2, heads, 8 // heads, 30)
        for t in attention.qkv_depthwise(attention.qkv(x)).chunk(3, 1)
    )
    maps = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * attention.temperature).softmax(-1)
    merged = (maps @ v).reshape(2, 8, 5, 6)
    expected = attention.project(merged.movedim(1, -1)).movedim(-1, 1)
    assert_same_sum(attention(x), expected, depth=4)


def test_attention_of_a_blank_map_is_finite():
    attention = SparseChannelAttention(8, 2, sparse_rates=[Fraction(1, 2)])
    x = torch.zeros(1, 8, 4, 4, requires_grad=True)
    attention(x).sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in attention.parameters())


@pytest.fixture
def low_precision_products(monkeypatch):
    """What a GPU does; `torch.bmm` has no float32 results of half precision on a CPU."""
    calls = []

    def multiply(a, b):
        assert a.dtype == b.dtype == torch.bfloat16
        calls.append(a.shape)
        return a.float() @ b.float()

    monkeypatch.setattr(attention_module, "sums_low_precision", lambda x: x.dtype != torch.float32)
    monkeypatch.setattr(products, "_multiply", multiply)
    return calls


@pytest.mark.parametrize(
    "shape", [(2, 2304, 12), (1, 7 * 11, 12), (1, 1, 12), (3, 1021, 24)], ids=str
)
def test_half_precision_products_are_summed_in_float32(low_precision_products, shape):
    wide = features(*shape[:2], 3 * shape[2] // 2).bfloat16()
    both = wide[..., : shape[2]]  # as q and k lie beside v
    results = attention_module.products_and_squares(both, 2)
    expected = attention_module.products_and_squares(both.float(), 2)
    assert len(low_precision_products) == 1
    for found, wanted in zip(results, expected, strict=True):
        assert found.dtype == torch.float32
        assert_same_sum(found, wanted)


def test_products_are_cut_into_parts_without_copies(low_precision_products):
    attention_module.products_and_squares(torch.zeros(2, 2304, 12, dtype=torch.bfloat16), 2)
    assert low_precision_products == [(2 * 9, 12, 256)]


def test_attention_in_half_precision_is_near_and_its_gradient_unchanged(low_precision_products):
    attention = SparseChannelAttention(8, 2).bfloat16()
    both = attention.qkv_depthwise(attention.qkv(features(2, 8, 16, 24).bfloat16()))[:, :16]
    logits = attention.similarities(both)
    assert not low_precision_products
    assert logits.requires_grad
    with torch.no_grad():
        assert_same_sum(attention.similarities(both), logits)
    assert len(low_precision_products) == 1


def test_half_precision_products_have_shapes_on_meta():
    both = torch.empty(2, 600, 16, dtype=torch.bfloat16, device="meta")
    products, squares = attention_module.products_and_squares(both, 2)
    assert (products.shape, products.dtype) == ((2, 2, 4, 4), torch.float32)
    assert squares.shape == (2, 16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_products_on_a_gpu(dtype):
    both = features(2, 14400, 96).to(dtype)[..., :64]
    expected = attention_module.products_and_squares(both.float(), 4)
    for found, wanted in zip(
        attention_module.products_and_squares(both.cuda(), 4), expected, strict=True
    ):
        assert_same_sum(found.cpu(), wanted, depth=4)


def test_channel_norm():
    x = features(2, 6, 3, 4) * 5 + 2
    centred, plain = ChannelNorm(6), ChannelNorm(6, bias=False)
    mean, variance = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
    torch.testing.assert_close(centred(x), (x - mean) / (variance + 1e-5).sqrt())
    torch.testing.assert_close(plain(x), x / (variance + 1e-5).sqrt())
    assert plain.bias is None


def test_compensator_is_the_formula():
    block = FeatureCompensator(6).requires_grad_(False)
    x = features(2, 6, 9, 7)
    alpha = block.gate(x.mean((2, 3))).reshape(2, 4, 8).softmax(-1)
    state = block.entry(x).relu()
    for index, step in enumerate(block.steps):
        weighted = [
            alpha[:, index, j, None, None, None] * operation(state)
            for j, operation in enumerate(step.operations)
        ]
        state = (step.merge(torch.cat(weighted, 1)).relu() + state).relu()
    assert_same_sum(block(x), state, depth=15)


def test_feed_forward_pairs_neighbouring_channels():
    """Output channel j of a pairing convolution sees channels 2j and 2j + 1 only."""
    pair = MixedScaleFeedForward(4, 1.5).pair3
    x = torch.zeros(1, 12, 5, 5)
    x[:, 5] = 1
    seen = pair(x).abs().sum((0, 2, 3)).nonzero().flatten().tolist()
    assert seen == [2]


def test_resampling_order():
    """Channel c·4 + 2·dy + dx of the low resolution is pixel (dy, dx) of channel c."""
    down, up = Downsample(2), Upsample(4)
    for layer in (down, up):
        torch.nn.init.dirac_(layer.conv.weight)
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    with torch.no_grad():
        assert_same_sum(down(x)[0, 1], x[0, 0, 0::2, 1::2])
        assert up(features(1, 4, 3, 3)).shape == (1, 2, 6, 6)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_per_image_projection(batch, height, width, channels_last):
    x, weight = features(batch, 5, height, width), features(batch, 2, 5, seed=1)
    bias = features(2, seed=2)
    order = torch.channels_last if channels_last else torch.contiguous_format
    projected = per_image_projection(x.contiguous(memory_format=order), weight, bias)
    expected = torch.einsum("bchw,bdc->bdhw", x, weight) + bias[:, None, None]
    assert_same_sum(projected, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_blocks_keep_other_precisions(dtype):
    x = features(1, 8, 4, 4).to(dtype)
    blocks = [
        ChannelNorm(8),
        ChannelNorm(8, bias=False),
        SparseChannelAttention(8, 2, sparse_rates=[Fraction(1, 2)], bias=True),
        MixedScaleFeedForward(8, 2.66),
        FeatureCompensator(8),
    ]
    for block in blocks:
        result = block.to(dtype)(x)
        assert result.dtype == dtype
        assert result.isfinite().all()


class NormsFromTheFront(TorchFunctionMode):
    """Refuses norms over dimensions counted from the end."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.linalg.vector_norm:
            assert kwargs["dim"] >= 0
        return function(*args, **kwargs or {})


def test_norms_name_their_dimension_from_the_front():
    """For dim=-1 of size 1, torch 2.11 compiles a result of another shape (pytorch#182181)."""
    attention = SparseChannelAttention(8, 2, sparse_rates=[Fraction(1, 2)])
    pixel = torch.rand(2, 8, 1, 1)
    with NormsFromTheFront():
        assert attention(pixel).shape == pixel.shape
