"""The kernels of training against the derivatives of their twins.

As in `test_kernels`, natively on a GPU, and here in Triton's interpreter, in the process of that.
"""

import contextlib

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F

from rainmer.config import from_mapping
from rainmer.kernels import dispatch, products, training, twins_only
from rainmer.kernels.products import linear
from rainmer.models import attention as attention_module
from rainmer.models.blocks import TransformerBlock
from rainmer.models.layers import ChannelNorm, FeatureCompensator, MixedScaleFeedForward
from rainmer.models.rainmer_config import RainmerConfig
from rainmer.train.config import TrainConfig
from rainmer.train.mixture import Batch
from rainmer.train.step import Trainer
from tests.numerics import assert_same_sum
from tests.rainmer.kernels.test_kernels import (
    INTERPRETED,
    cases,
    chosen,
    maps,
    no_tf32,
    on_devices,
    values,
)
from tests.rainmer.train.conftest import TINY
from tests.rainmer.train.test_deferred import batch

__all__ = ["chosen", "no_tf32"]  # fixtures

only_here = pytest.mark.skipif(INTERPRETED, reason="has nothing to interpret")
on_a_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled in the interpreter")
def test_they_compile_for_a_gpu_that_is_not_here():
    """Without registers that spill to memory."""
    pytest.importorskip("triton")
    from benchmarks.instructions import compile_only, registers_and_spilled

    x, gain, shift = (torch.zeros(*shape, 48) for shape in ((1, 9, 20), (), ()))
    taps = [torch.zeros(side, side, 48) for side in (3, 5, 7)]
    with compile_only(capability=90) as launches:
        for operation, inputs in (
            (training.ChannelNorms(1e-5), [x, gain, shift]),
            (training.ChannelNorms(1e-5), [x, gain]),
            (training.Filters((1, 2, 1), relu=True), [x, *taps, gain, gain, gain]),
            (training.PairSums(), [x, x, *taps[:2]]),
        ):
            half = [t.bfloat16() if t.ndim == 4 else t for t in inputs]
            results = operation.run(half)
            operation.gradients(half, results, results)
    assert len(launches) == 2 + 2 + 3 * 3 + 4 * 3
    assert all(registers_and_spilled(launch)[1] == 0 for launch in launches)


def assert_same_gradients(operation, *inputs, depth=1):
    """Compare results and gradients with those of the twin in float64."""
    own = [tensor.clone().requires_grad_() for tensor in inputs]
    wide = [tensor.detach().cpu().double().requires_grad_() for tensor in inputs]
    results, expected = training._Kernels.apply(operation, *own), operation.twin(wide)
    grads = [values(*r.shape, seed=7 + i).to(r) for i, r in enumerate(results)]
    found = torch.autograd.grad(results, own, grads)
    wanted = torch.autograd.grad(expected, wide, [grad.cpu().double() for grad in grads])
    for one, other in zip((*results, *found), (*expected, *wanted), strict=True):
        # float64 is compared in the type of what is tested, of which gradients have the inputs'.
        assert_same_sum(one.cpu(), other, depth=depth)
    assert [grad.dtype for grad in found] == [tensor.dtype for tensor in inputs]


@on_devices
@cases(
    "shape centred",
    ((1, 1, 1, 16), True),
    ((3, 1, 37, 8), True),
    ((1, 9, 1, 384), True),
    ((2, 5, 7, 33), False),
    ((1, 3, 1, 8), False),
)
def test_norm(device, dtype, shape, centred):
    x = 3 * maps(*shape, device=device, dtype=dtype) + 1
    parameters = [values(shape[-1], seed=i).to(device) for i in (1, 2)[: 1 + centred]]
    assert_same_gradients(training.ChannelNorms(1e-5), x, *parameters, depth=4)


@on_devices
@cases(
    "shape sides dilations biased",
    ((1, 1, 3, 384), (1,), (1,), False),
    ((1, 4, 1, 33), (3,), (2,), False),
    ((2, 3, 9, 8), (5,), (1,), True),
)
def test_filters(device, dtype, shape, sides, dilations, biased):
    x = maps(*shape, device=device, dtype=dtype)
    taps = [values(side, side, shape[-1], seed=1).to(device) for side in sides]
    biases = [values(shape[-1], seed=2).to(device) for _ in sides] if biased else []
    assert_same_gradients(training.Filters(dilations, relu=biased), x, *taps, *biases, depth=4)


@pytest.mark.slow
@on_devices
@cases(
    "shape sides dilations biased",
    ((3, 1, 37, 8), (5,), (1,), True),
    ((1, 19, 1, 40), (3, 7), (2, 1), False),
    ((2, 5, 7, 33), (7,), (2,), True),
    ((1, 4, 35, 48), (3, 5), (1, 2), True),
    ((1, 17, 3, 16), (3,), (3,), False),
)
def test_more_filters(device, dtype, shape, sides, dilations, biased):
    test_filters(device, dtype, shape, sides, dilations, biased)


@pytest.mark.slow
@on_devices
@cases("width biased", (8, True))
def test_sums_of_pairs(device, dtype, width, biased):
    first, second = (maps(1, 2, 3, 2 * width, device=device, dtype=dtype, seed=i) for i in (0, 1))
    taps = [values(side, side, 2 * width, seed=2).to(device) for side in (3, 5)]
    biases = [values(width, seed=i).to(device) for i in (3, 4)] if biased else []
    assert_same_gradients(training.PairSums(), first, second, *taps, *biases, depth=4)


@pytest.mark.slow
@on_devices
@cases("width biased", (8, False), (80, True))
def test_more_sums_of_pairs(device, dtype, width, biased):
    test_sums_of_pairs(device, dtype, width, biased)


@on_devices
def test_the_relu_lets_what_torch_does_pass(device):
    """Zeros, and NaN."""
    x = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 2.0, torch.nan], device=device)
    x = x.view(1, 1, 6, 1).repeat(1, 1, 1, 8).requires_grad_()
    one, bias = torch.ones(1, 1, 8, device=device), torch.zeros(8, device=device).requires_grad_()
    for way in (contextlib.nullcontext, twins_only):
        with way():
            (result,) = training.filters(x, [one], [bias], relu=True)
        grads = torch.autograd.grad(result.sum(), [x, bias])
        assert result[0, 0, :, 0].tolist()[:5] == [0.0, 0.0, 0.0, pytest.approx(1e-30), 2.0]
        assert result[0, 0, 5].isnan().all()
        assert grads[0][0, 0, :, 0].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
        assert grads[1].tolist() == [3.0] * 8


@on_devices
def test_parts_of_maps_and_spread_gradients(device):
    """Rows, columns and channels that lie apart, and the gradient of a sum, which is one value."""
    whole = values(2, 9, 12, 40).to(device)
    taps = values(3, 3, 16, seed=1).to(device)
    found = []
    for part in (whole[:, 2:8, 1:, 8:24], whole[:, 2:8, 1:, 8:24].permute(0, 3, 1, 2).contiguous()):
        pixels = part if part.shape[-1] == 16 else part.permute(0, 2, 3, 1)
        inputs = [pixels.requires_grad_(), taps.requires_grad_()]
        (result,) = training._Kernels.apply(training.Filters((1,), False), *inputs)
        found.append(torch.autograd.grad(result.sum(), inputs))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_a_gpu)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (2, 33, 64, 12), (1, 17, 61, 40)], ids=str)
@only_here
def test_products_have_gradients_in_float32(device, dtype, shape):
    wide = maps(*shape[:3], shape[3] + 5, device=device, dtype=dtype)
    pixels = wide[..., : shape[3]].detach().requires_grad_()  # rows that lie apart
    matrix, bias = values(24, shape[3], seed=1).to(device), values(24, seed=2).to(device)
    inputs = [pixels, matrix.requires_grad_(), bias.requires_grad_()]
    result = linear(*inputs)
    assert result.dtype == pixels.dtype
    grad = maps(*shape[:3], 30, device=device, dtype=dtype, seed=3)[..., 4:28]
    found = torch.autograd.grad(result, inputs, grad)
    rounded = [tensor.detach().to(pixels.dtype).cpu().double() for tensor in inputs]
    wanted = [tensor.requires_grad_() for tensor in rounded]
    expected = F.linear(*wanted)
    for one, other in zip(
        (result, *found),
        (expected, *torch.autograd.grad(expected, wanted, grad.cpu().double())),
        strict=True,
    ):
        assert_same_sum(one.cpu(), other, depth=4)
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in inputs]


def gradients_of(module, *inputs):
    """Return a module's result and all its gradients."""
    own = [tensor.clone().requires_grad_() for tensor in inputs]
    result = module(*own)
    grad = values(*result.shape, seed=9).to(result)
    found = torch.autograd.grad(result, [*own, *module.parameters()], grad, allow_unused=True)
    return [result, *(gradient for gradient in found if gradient is not None)]


def both_ways(module, *inputs):
    """Return `gradients_of` by kernels and by twins."""
    by_kernels = gradients_of(module, *inputs)
    with twins_only():
        return by_kernels, gradients_of(module, *inputs)


def with_random_weights(module, device):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.to(device)


def slow_if(slow, case):
    return pytest.param(case, marks=pytest.mark.slow if slow else ())


LAYERS = {  # with channels, and operations by kernels
    "norm": (lambda: ChannelNorm(8, bias=False), 8, 1),
    "feed-forward": (lambda: MixedScaleFeedForward(8, 2.0), 8, 2),
    "biases": (lambda: MixedScaleFeedForward(4, 2.0, bias=True), 4, 2),
    "odd": (lambda: MixedScaleFeedForward(6, 1.5, bias=True), 6, 4),
    "compensator": (lambda: FeatureCompensator(8, 1), 8, 4),
    "block": (lambda: TransformerBlock(8, 2, RainmerConfig(ffn_expansion=2.0)), 8, 5),
}


@on_devices
@pytest.mark.parametrize("kind", [slow_if(k != "norm", k) for k in LAYERS])
def test_layers_are_the_same_with_kernels(device, chosen, kind):
    make, channels, count = LAYERS[kind]
    layer = with_random_weights(make(), device)
    by_kernels, by_twins = both_ways(layer, values(2, channels, 3, 5).to(device))
    assert chosen == ["_apply"] * count + ["_Kernels"] * count
    for one, other in zip(by_kernels, by_twins, strict=True):
        assert_same_sum(one.cpu(), other.cpu(), depth=20)


@pytest.mark.slow
@on_devices
def test_equal_inputs_have_equal_gradients(device, chosen):
    layer = with_random_weights(MixedScaleFeedForward(4, 1.0, bias=True), device)
    x = values(3, 4, 3, 4).to(device)
    first, again = (gradients_of(layer, x) for _ in range(2))
    assert all(map(torch.equal, first, again))


@pytest.mark.slow
@on_devices
@hypothesis.settings(max_examples=15)
@hypothesis.given(
    shape=st.tuples(*map(st.integers, (1, 1, 1, 1), (3, 9, 9, 40))),
    side=st.sampled_from((1, 3, 5, 7)),
    dilation=st.integers(1, 3),
)
def test_gradients_are_those_of_a_product(device, shape, side, dilation):
    """A filter is linear in pixels and in taps: <g, filtered> = <spread, x> = <sums, taps>."""
    x, grad = values(*shape).to(device), values(*shape, seed=1).to(device)
    inputs = [x.requires_grad_(), values(side, side, shape[-1], seed=2).to(device).requires_grad_()]
    (result,) = training._Kernels.apply(training.Filters((dilation,), False), *inputs)
    found = torch.autograd.grad(result, inputs, grad)
    expected = (result * grad).sum().item()
    size = (result * grad).abs().sum().item()
    for own, wanted in zip(inputs, found, strict=True):
        assert (own * wanted).sum().item() == pytest.approx(expected, abs=1e-5 * size)


RUN = {
    "name": "tiny",
    "variant": "chralpha",
    # Without sparse rates: rounding would decide on entries of the attention.
    "model": {**TINY, "dim": 4, "sparse_rates": []},
    "data": {"query": 16, "negatives": 1},
    "stages": [{"steps": 4, "crop": 16, "batch": 1}],
    "archive": 4,
    "optimiser": {"lr": 0.001},
    "graphs": False,
}


def small_batch(number):
    whole = batch(number)
    queries = [images[:1, :, :16, :16] for images in (whole.query, whole.query_clean)]
    blurred = whole.blurred[:1, :1, :, :16, :16]
    return Batch(whole.rainy[:1], whole.clean[:1], *queries, blurred)


def steps(device="cpu", count=1, **changes):
    """Train; return the losses of each step, then all weights."""
    config = from_mapping(TrainConfig, {**RUN, **changes})
    torch.manual_seed(0)
    network = config.build_network().to(device, memory_format=torch.channels_last).train()
    network.checkpointing = config.checkpointing
    trainer = Trainer(network, config)
    trainer.fill_archives([small_batch(-1)])
    results = trainer.read([trainer.step([small_batch(i)]) for i in range(count)])
    assert not any(result.skipped for result in results)
    losses = torch.tensor([[*result.losses.values(), result.grad_norm] for result in results])
    return losses, torch.cat([p.detach().flatten().cpu() for p in network.parameters()])


@pytest.mark.slow
@on_devices
def test_a_step_is_the_same_with_kernels(device, chosen):
    by_kernels, _ = steps(device)
    assert "_Kernels" in chosen
    count = len(chosen)
    by_twins, _ = steps(device, kernels=False)
    assert len(chosen) == count
    assert_same_sum(by_kernels, by_twins, depth=100)


@pytest.fixture
def by_torch(monkeypatch, chosen):
    """Operations as on a GPU, each computed by its twin: what lies around the kernels is tested."""
    for kind in (training.ChannelNorms, training.Filters, training.PairSums):
        monkeypatch.setattr(kind, "run", kind.twin)
        monkeypatch.setattr(
            kind, "gradients", lambda self, i, r, g: training._gradients_of_twin(self, i, g)
        )
    return chosen


@only_here
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_the_same_with_operations_of_kernels(by_torch, checkpointing):
    losses, weights = steps(count=2, checkpointing=checkpointing)
    count = by_torch.count("_Kernels")
    assert count
    expected_losses, expected_weights = steps(count=2, kernels=False)
    assert by_torch.count("_Kernels") == count
    assert_same_sum(losses, expected_losses, depth=100)
    assert_same_sum(weights, expected_weights, depth=100)


@only_here
def test_mixed_precision_keeps_parameters_and_their_gradients_float32(by_torch):
    losses, _ = steps(precision="bf16")
    assert by_torch
    assert_same_sum(losses.bfloat16(), steps(kernels=False)[0].bfloat16(), depth=4)


@only_here
def test_a_gradient_that_fails_is_the_twins_with_one_warning(by_torch, monkeypatch, caplog):
    def failing(*_):
        raise RuntimeError("no such instruction\nin this GPU")

    monkeypatch.setattr(dispatch, "_switch", dispatch._Switch())
    monkeypatch.setattr(training.Filters, "gradients", failing)
    losses, _ = steps(count=2)
    assert [record.getMessage() for record in caplog.records] == [
        "Triton kernels failed, going on without: no such instruction"
    ]
    monkeypatch.setattr(dispatch, "_switch", dispatch._Switch())  # so that `by_torch` ends well
    assert_same_sum(losses, steps(count=2, kernels=False)[0], depth=100)


@only_here
def test_products_of_q_and_k_have_a_gradient_in_half_precision(by_torch, monkeypatch):
    """On a CPU `torch.bmm` has no float32 results of half precision."""
    attention = attention_module.SparseChannelAttention(8, 2)
    both = values(2, 16, 9, 7).bfloat16().requires_grad_()
    grad = values(2, 2, 4, 4, seed=1)
    (expected,) = torch.autograd.grad(attention.similarities(both), both, grad)
    monkeypatch.setattr(attention_module, "sums_low_precision", lambda x: True)
    monkeypatch.setattr(products, "_multiply", lambda a, b: a.float() @ b.float())
    logits = attention.similarities(both)
    assert logits.grad_fn is not None
    (found,) = torch.autograd.grad(logits, both, grad)
    assert_same_sum(found, expected)


@pytest.mark.gpu
@on_a_gpu[1]
def test_gradients_in_bfloat16_are_as_exact_with_kernels():
    block = with_random_weights(TransformerBlock(16, 2, RainmerConfig()), "cpu")
    x = values(2, 16, 40, 56)
    expected = both_ways(block, x)[1]
    block.cuda()
    with torch.autocast("cuda", torch.bfloat16):
        found = both_ways(block, x.cuda())
    assert dispatch._switch.on
    for exact_one, *others in zip(expected, *found, strict=True):
        errors = [(other.detach().cpu().float() - exact_one).norm().item() for other in others]
        assert errors[0] <= 1.3 * errors[1] + 1e-6


@pytest.mark.gpu
@on_a_gpu[1]
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_steps_have_kernels(precision):
    by_graph, _ = steps("cuda", 6, graphs=True, precision=precision)
    assert dispatch._switch.on
    as_it_is, _ = steps("cuda", 6, precision=precision)
    torch.testing.assert_close(by_graph, as_it_is, rtol=1e-3, atol=1e-5)
