"""Each kernel against its twin: natively on a GPU, and here in Triton's interpreter.

The interpreter has to be chosen before Triton is imported and then holds for the whole process, so
one test runs this file again in a process of its own.
"""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rainmer.kernels import Prompts, dispatch, twins_only
from rainmer.models.attention import SparseChannelAttention, split_gram
from rainmer.models.blocks import TransformerBlock
from rainmer.models.folding import norm_of
from rainmer.models.fused import FusedTransformerBlock
from rainmer.models.layers import ChannelNorm
from rainmer.models.rainmer_config import RainmerConfig
from tests.numerics import assert_same_sum
from tests.rainmer.golden import rule_model

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

if INTERPRETED:
    DEVICES = ["cpu"]
else:
    no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    DEVICES = [pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])]

on_devices = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch):
    """By torch's default cuDNN computes float32 convolutions with a mantissa of 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def cases(names, *rows, products=False):
    """Run each row in every type; in the interpreter, which is slow, in one type in turn.

    It multiplies the bits of bfloat16 as if they were whole numbers, so not where products are.
    """
    if products:
        types = ["float32", "float16"] if INTERPRETED else ["bfloat16", "float16"]
    else:
        types = ["bfloat16", "float16", "float32"]
    if INTERPRETED:
        table = [(types[i % len(types)], *row) for i, row in enumerate(rows)]
    else:
        table = [(dtype, *row) for dtype in types for row in rows]
    return pytest.mark.parametrize(("dtype", *names.split()), table, ids=str)


@pytest.mark.skipif(INTERPRETED, reason="this is the process of its own")
@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_in_the_interpreter(marked):
    """These and the gradients."""
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", marked]
    command += [__file__, str(Path(__file__).with_name("test_gradients.py"))]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled in the interpreter")
def test_they_compile_for_a_gpu_that_is_not_here():
    """Half of the rules that a kernel must keep are the compiler's, not the interpreter's."""
    pytest.importorskip("triton")
    from benchmarks.instructions import compile_only, count_instructions

    with compile_only(capability=90) as launches:
        launch_all()
    assert len(launches) == 10
    codes = {launch.name: count_instructions(launch) for launch in launches if launch.sides}
    assert set(codes) == {"_filter_kernel", "_first_pass", "_second_pass"}
    for code in codes.values():  # more is needed where loads or masks are not shared
        assert code.instructions < 3.5 * code.multiply_adds


def launch_all():
    from rainmer.kernels import attending, filters, mixing, norm, sparse

    def zeros(*shape):
        return torch.zeros(*shape, dtype=torch.bfloat16)

    x, gain, wide = zeros(1, 20, 33, 48), zeros(48), zeros(1, 20, 33, 144)
    norm.channel_norm(x, gain, None, 1e-5)
    norm.norm_linear(x, gain, gain, 1e-5, zeros(96, 48))
    filters.depthwise(x, zeros(5, 5, 48), gain, dilation=2, relu=True)
    filters.pair_sums(
        x, zeros(5, 5, 48), None, wide[..., 1:24], first=1, second=24, relu=False
    )  # an odd number of pairs: nothing is aligned
    mixing.mixture(x, zeros(mixing.TAP_ROWS, 48), zeros(4, 48, 48), zeros(1, 8, 48, 48))
    prompts = Prompts(
        zeros(96, 48), zeros(96), zeros(2, 96), zeros(2), zeros(2, 48), zeros(1, 2, 48),
        zeros(1, 2), after=False,
    )  # fmt: skip
    square = zeros(1, 48, 48)
    attending.attend(wide[..., 96:], square.transpose(1, 2), x, None, prompts)
    attending.attend(wide[..., 96:], square, x, gain, None)
    gram = torch.zeros(1, 96, 96)
    for shares, kept in ((zeros(3), (6, 8, 9)), (None, ())):
        sparse.attention_matrices(gram, zeros(4, 1, 1), shares, zeros(48, 48), square, kept=kept)


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(*shape, device, dtype, seed=0):
    return values(*shape, seed=seed).to(device, getattr(torch, dtype))


def exact(tensor):
    """The twin computes in float32 on the CPU, from the same rounded numbers."""
    return None if tensor is None else tensor.cpu().float()


def filtered(pixels, taps, bias=None, dilation=1):
    side = taps.shape[0]
    out = F.conv2d(
        exact(pixels).permute(0, 3, 1, 2),
        exact(taps).permute(2, 0, 1).unsqueeze(1),
        exact(bias),
        padding=dilation * (side // 2),
        dilation=dilation,
        groups=taps.shape[2],
    )
    return out.permute(0, 2, 3, 1)


@on_devices
@cases(
    "shape centred",
    ((1, 1, 1, 16), True),
    ((2, 1, 37, 8), True),
    ((1, 9, 1, 384), True),
    ((2, 5, 7, 33), False),
    ((1, 3, 1, 8), False),
)
def test_norm(device, dtype, shape, centred):
    from rainmer.kernels.norm import channel_norm

    x = 3 * maps(*shape, device=device, dtype=dtype) + 1
    gain, shift = (maps(shape[-1], device=device, dtype=dtype, seed=i) for i in (1, 2))
    found = channel_norm(x, gain, shift if centred else None, 1e-5)
    assert_same_sum(found.cpu(), plain_norm(x, gain, shift if centred else None))
    assert found.dtype == x.dtype


def plain_norm(x, gain, shift):
    x, gain = exact(x), exact(gain)
    if shift is not None:
        return F.layer_norm(x, gain.shape, gain, exact(shift), 1e-5)
    return x * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + 1e-5) * gain


@on_devices
@cases(
    "shape outputs centred",
    ((1, 1, 1, 16), 48, True),
    ((2, 1, 37, 8), 24, False),
    ((1, 9, 7, 128), 80, True),
    ((2, 5, 7, 33), 65, False),
    products=True,
)
def test_norm_and_matrix(device, dtype, shape, outputs, centred):
    from rainmer.kernels.norm import norm_linear

    x = 3 * maps(*shape, device=device, dtype=dtype) + 1
    gain, shift = (maps(shape[-1], device=device, dtype=dtype, seed=i) for i in (1, 2))
    matrix = maps(outputs, shape[-1], device=device, dtype=dtype, seed=3)
    bias = maps(outputs, device=device, dtype=dtype, seed=4) if centred else None
    found = norm_linear(x, gain, shift if centred else None, 1e-5, matrix, bias)
    expected = F.linear(plain_norm(x, gain, shift if centred else None), exact(matrix), exact(bias))
    assert_same_sum(found.cpu(), expected, depth=2)


@on_devices
@cases(
    "shape number after",
    ((1, 1, 1, 16), 0, False),
    ((2, 1, 37, 8), 1, False),
    ((1, 9, 7, 48), 2, True),
    ((3, 5, 7, 33), 2, False),
    products=True,
)
def test_the_end_of_an_attention(device, dtype, shape, number, after):
    from rainmer.kernels.attending import attend

    batch, count = shape[0], shape[-1]

    def weights(seed, *size, scale=1.0):
        return scale * maps(*size, device=device, dtype=dtype, seed=seed)

    pixels, values = weights(0, *shape), weights(1, *shape[:3], 3 * count)[..., 2 * count :]
    matrices = weights(2, batch, count, count, scale=1 / count).transpose(1, 2)
    bias = weights(3, count) if after else None
    prompts = None
    if number:
        prompts = Prompts(
            weights(4, number * count, count, scale=1 / count),
            weights(5, number * count),
            torch.block_diag(*weights(6, number, 1, count, scale=1 / count)),
            weights(7, number),
            weights(8, number, count),
            weights(9, batch, number, count),
            weights(10, batch, number),
            after,
        )
    found = attend(values, matrices, pixels, bias, prompts)
    expected = plain_attend(values, matrices, pixels, bias, prompts)
    assert_same_sum(found.cpu(), expected, depth=4)


def plain_attend(values, matrices, pixels, bias, prompts):
    attended = torch.einsum("bhwi,bio->bhwo", exact(values), exact(matrices))
    if bias is not None:
        attended += exact(bias)
    total = exact(pixels) + attended
    if prompts is None:
        return total
    source = total.clone() if prompts.after else attended
    gate_in, gate_in_bias, gate_out, gate_out_bias, offsets, values, shares = map(
        exact, prompts[:7]
    )
    hidden = F.gelu(F.linear(source, gate_in, gate_in_bias))
    gates = F.linear(hidden, gate_out, gate_out_bias).sigmoid()
    for p, offset in enumerate(offsets):
        spread = offset + gates[..., p : p + 1] * values[:, p, None, None]
        total += F.silu(spread) * shares[:, p, None, None, None]
    return total


@on_devices
@pytest.mark.parametrize(
    ("channels", "heads", "rates"),
    [
        (16, 1, ("1/2", "2/3", "3/4", "4/5")),
        (48, 4, ()),
        (40, 2, ("1/2", "4/5")),
        pytest.param(96, 2, ("1/2", "1"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_attention_matrices(device, channels, heads, rates):
    """Also of channels that are equal, and of one without contents."""
    from rainmer.kernels.sparse import attention_matrices

    rates = tuple(map(Fraction, rates))
    attention = SparseChannelAttention(channels, heads, sparse_rates=rates).requires_grad_(False)
    for i, parameter in enumerate(attention.parameters()):
        parameter.copy_(values(*parameter.shape, seed=i))
    both = values(3, 37, 2 * channels)
    both[0, :, 3] = 0
    both[1, :, 8 : 2 * channels : channels] = both[1, :, 7 : 2 * channels : channels]
    gram = both.transpose(1, 2) @ both
    block = FusedTransformerBlock(TransformerBlock(channels, heads, RainmerConfig()))
    block.attention.attention = attention
    expected = block.attention.matrices(*split_gram(gram, heads))
    attention.to(device)
    found = attention_matrices(
        gram.to(device),
        attention.temperature,
        attention.rate_weights,
        attention.project.weight,
        torch.empty_like(gram[:, :channels, :channels], device=device),
        kept=attention.kept,
    )
    assert_same_sum(found.cpu(), expected, depth=6)


@on_devices
@cases(
    "shape side dilation relu",
    ((1, 1, 1, 16), 3, 1, False),
    ((2, 1, 37, 8), 5, 1, True),
    ((1, 9, 1, 384), 3, 2, True),
    ((2, 5, 7, 33), 7, 2, False),
    ((1, 9, 5, 48), 7, 1, True),
    ((1, 3, 70, 16), 5, 2, False),
)
def test_filters(device, dtype, shape, side, dilation, relu):
    from rainmer.kernels.filters import depthwise

    x = maps(*shape, device=device, dtype=dtype)
    taps = maps(side, side, shape[-1], device=device, dtype=dtype, seed=1)
    bias = maps(shape[-1], device=device, dtype=dtype, seed=2) if relu else None
    found = depthwise(x, taps, bias, dilation=dilation, relu=relu)
    expected = filtered(x, taps, bias, dilation)
    assert_same_sum(found.cpu(), expected.relu() if relu else expected)
    assert found.dtype == x.dtype


@on_devices
def test_filters_of_a_part_of_a_map(device):
    """Rows, columns and channels of a larger map, which lie apart."""
    from rainmer.kernels.filters import depthwise

    whole = maps(2, 9, 12, 40, device=device, dtype="float32")
    taps = maps(3, 3, 16, device=device, dtype="float32", seed=1)
    part = whole[:, 2:8, 1:, 8:24]
    assert_same_sum(depthwise(part, taps, relu=False).cpu(), filtered(part, taps))


@on_devices
@cases("first second count", (0, 24, 24), (1, 24, 23))
def test_sums_of_pairs(device, dtype, first, second, count):
    from rainmer.kernels.filters import pair_sums

    x = maps(2, 6, 5, 48, device=device, dtype=dtype)
    taps = maps(5, 5, 48, device=device, dtype=dtype, seed=1)
    bias = maps(count, device=device, dtype=dtype, seed=2)
    wide = torch.full((2, 6, 5, 100), 7.0, device=device, dtype=x.dtype)
    pair_sums(x, taps, bias, wide[..., 30 : 30 + count], first=first, second=second, relu=True)
    both = filtered(x, taps)
    summed = both[..., first : first + count] + both[..., second : second + count] + exact(bias)
    assert_same_sum(wide[..., 30 : 30 + count].cpu(), summed.relu())
    assert (wide[..., :30] == 7).all()
    assert (wide[..., 30 + count :] == 7).all()


@on_devices
@cases("shape", ((1, 1, 1, 16),), ((1, 5, 6, 16),), products=True)
def test_mixture(device, dtype, shape):
    check_mixture(device, dtype, shape)


@pytest.mark.slow
@on_devices
@cases("shape", ((2, 5, 19, 24),), ((1, 9, 6, 96),), products=True)
def test_mixture_of_channels_in_parts(device, dtype, shape):
    check_mixture(device, dtype, shape)


def check_mixture(device, dtype, shape):
    from rainmer.kernels.mixing import TAP_ROWS, mixture

    count = shape[-1]
    state = maps(*shape, device=device, dtype=dtype).relu()
    taps = maps(TAP_ROWS, count, device=device, dtype=dtype, seed=1)
    taps[-9:] = 1
    inner = maps(4, count, count, device=device, dtype=dtype, seed=2) / count
    merges = maps(shape[0], 8, count, count, device=device, dtype=dtype, seed=3) / count
    found = mixture(state, taps, inner, merges)
    assert_same_sum(found.cpu(), plain_mixture(state, taps, inner, merges), depth=6)


def plain_mixture(state, taps, inner, merges):
    x, inner, merges = exact(state), exact(inner), exact(merges)
    tables = taps.split([9, 25, 49] * 3 + [9])
    tables = [rows.unflatten(0, (int(len(rows) ** 0.5), -1)) for rows in tables]
    branches = [(x @ inner[0]).relu()]
    for i in range(3):
        hidden = (filtered(x, tables[i]) @ inner[i + 1]).relu()
        branches.append(filtered(hidden, tables[3 + i]))
    branches += [filtered(x, tables[6 + i], dilation=2) for i in range(3)]
    averaged = F.avg_pool2d(x.permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=False)
    branches.append(averaged.permute(0, 2, 3, 1))
    merged = sum(b @ merges[:, i, None] for i, b in enumerate(branches))
    return merged.relu() + x


@pytest.fixture
def chosen(monkeypatch):
    """Sends every map to the kernels and lists which ran; twins would hide a failure."""
    names = []
    choose = dispatch._choose

    def count(pixels, kernel, twin):
        names.append(kernel.__qualname__.split(".")[0])
        return choose(pixels, kernel, twin)

    monkeypatch.setattr(dispatch, "_on_device", lambda pixels: True)
    monkeypatch.setattr(dispatch, "_choose", count)
    monkeypatch.setattr(dispatch, "_PRODUCT_TYPES", dispatch._TYPES if INTERPRETED else ())
    yield names
    assert dispatch._switch.on


@on_devices
def test_the_norm_of_wide_maps_and_of_float32(device, chosen):
    norm = ChannelNorm(8).requires_grad_(False).to(device)
    torch.nn.init.uniform_(norm.weight)
    x = values(2, 3, 5, 8).to(device)
    found = norm_of(norm, x)
    assert chosen == ["channel_norm"]
    with twins_only():
        assert_same_sum(found.cpu(), norm_of(norm, x).cpu())


@pytest.mark.slow
@on_devices
def test_the_network_is_the_same_with_kernels(device, chosen):
    options = {
        "dim": 4,
        "base_dim": 16,
        "num_blocks": (1, 1, 1, 1),
        "heads": (1, 2, 4, 4),
        "ffn_expansion": 1.5,
    }
    config = RainmerConfig.official("wolocf", compensator_steps=1, sparse_rates=(), **options)
    network = rule_model(config, 1).requires_grad_(False)
    image, query = values(1, 3, 8, 8), values(1, 3, 4, 4, seed=1)
    found = network.fuse().to(device)(image.to(device), query.to(device)).cpu()
    assert set(chosen) >= {"depthwise", "pair_sums"}
    if INTERPRETED:  # there with products of float32 too: seven blocks, three mixtures
        assert len(chosen) == 13 * 7 + 3
        assert set(chosen) == {"norm_linear", "depthwise", "pair_sums", "mixture", "attend"}
    with twins_only():
        assert_same_sum(found, network.fuse()(image, query), depth=80)


def half_network(dtype):
    """A network on a GPU with its inputs there, and the float32 result of a CPU."""
    options = {"dim": 16, "base_dim": 16, "num_blocks": (1, 1, 1, 1), "heads": (1, 2, 4, 8)}
    network = rule_model(RainmerConfig.official("chralpha", sparse_rates=(), **options), 1)
    network.requires_grad_(False)
    image, query = values(2, 3, 40, 56), values(2, 3, 32, 32, seed=1)
    expected = network.fuse()(image, query)
    return network.fuse().to("cuda", dtype), (image.cuda(), query.cuda()), expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_with_kernels(dtype):
    fused, inputs, expected = half_network(dtype)
    with_kernels = fused(*inputs)
    assert dispatch._switch.on
    with twins_only():
        without = fused(*inputs)
    errors = [(out.cpu() - expected).abs().mean().item() for out in (with_kernels, without)]
    assert errors[0] <= 1.2 * errors[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphs_capture_the_kernels():
    fused, inputs, _ = half_network(torch.bfloat16)
    expected = fused(*inputs)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = fused(*inputs)
    graph.replay()
    assert dispatch._switch.on
    assert torch.equal(captured, expected)


@on_devices
@pytest.mark.parametrize(
    "layer_norm", [pytest.param("with_bias", marks=pytest.mark.slow), "bias_free"]
)
def test_an_odd_number_of_pairs_and_biases(device, chosen, layer_norm):
    options = RainmerConfig(ffn_expansion=2.66, bias=True, layer_norm=layer_norm)
    torch.manual_seed(0)
    block = TransformerBlock(12, 2, options).requires_grad_(False)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = values(2, 12, 3, 5)
    expected = block(x)  # before its parameters, some of which the two share, move to the device
    found = FusedTransformerBlock(block).to(device)(x.to(device)).cpu()
    assert chosen.count("pair_sums") == 4
    assert_same_sum(found, expected, depth=20)


def test_a_kernel_that_fails_is_left_out_with_one_warning(monkeypatch, caplog):
    monkeypatch.setattr(dispatch, "_on_device", lambda pixels: True)
    monkeypatch.setattr(dispatch, "_switch", dispatch._Switch())
    # As if Triton were missing, or as if the module had not been imported yet.
    monkeypatch.setitem(sys.modules, "rainmer.kernels.norm", None)
    monkeypatch.delattr("rainmer.kernels.norm", raising=False)
    norm = ChannelNorm(8).requires_grad_(False)
    x = values(1, 2, 3, 8)
    for _ in range(2):
        assert torch.equal(norm_of(norm, x).permute(0, 3, 1, 2), norm(x.permute(0, 3, 1, 2)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "going on without" in caplog.text


def test_memory_that_runs_out_is_no_failure_of_a_kernel(monkeypatch):
    def run_out():
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(dispatch, "_switch", dispatch._Switch())
    with pytest.raises(torch.OutOfMemoryError):
        dispatch._choose(values(1, 1, 1, 1), run_out, lambda: None)
    assert dispatch._switch.on
