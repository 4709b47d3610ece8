"""torch.compile around a network, and what happens when it fails."""

import logging
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from rainmer import Derainer
from rainmer.stage.compiling import Compiled


class Recording(nn.Module):
    """Halves images and remembers the sizes of its batches."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.sizes = []

    def forward(self, image, prompts=None):
        self.sizes.append(tuple(image.shape))
        halved = image * self.weight
        return halved if prompts is None else halved + prompts[:, :1, :1, None]


@pytest.fixture
def eager(monkeypatch):
    """Leave compiling out, which takes long and needs a C++ compiler on CPUs."""
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("count", "filled"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8)])
def test_batches_are_filled_up(count, filled):
    network = Recording()
    image = torch.rand(count, 3, 4, 4)
    prompts = torch.rand(count, 1, 2)
    with torch.no_grad():
        result = Compiled(network)(image, prompts=prompts)
        assert network.sizes == [(filled, 3, 4, 4)]
        torch.testing.assert_close(result, network(image, prompts), rtol=0, atol=0)


def test_without_a_compiler_the_network_runs_as_it_is(monkeypatch, caplog):
    def fail(*arguments, **options):
        raise RuntimeError("no C++ compiler was found\nlong explanation")

    monkeypatch.setattr(torch, "compile", lambda network, **options: fail)
    compiled = Compiled(Recording())
    image = torch.rand(3, 3, 4, 4)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(compiled(image), image / 2)
    messages = [record.message for record in caplog.records]
    assert messages == ["torch.compile failed, going on without: no C++ compiler was found"]
    assert compiled.network.sizes == [(3, 3, 4, 4)] * 3


def test_memory_that_runs_out_is_the_caller_s_business(monkeypatch):
    def exhaust(*arguments, **options):
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(torch, "compile", lambda network, **options: exhaust)
    compiled = Compiled(Recording())
    with pytest.raises(torch.OutOfMemoryError):
        compiled(torch.rand(1, 3, 4, 4))
    assert not compiled.network.sizes


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile on CPUs needs a C++ compiler"
)
def test_compiled_code_gives_the_same():
    network = nn.Conv2d(3, 3, 3, padding=1).eval().requires_grad_(False)
    image = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(Compiled(network)(image), network(image))


@pytest.mark.usefixtures("eager")
def test_the_stage_compiles_for_few_sizes():
    """Only the padding differs, which the network sees at the bottom and the right."""
    frames = [np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)]
    derainer = Derainer("rainmer-s", device="cpu", precision="fp32", compiled=True)
    plain = Derainer("rainmer-s", device="cpu", precision="fp32")
    assert derainer.fingerprint != plain.fingerprint
    [result] = derainer(frames)
    assert result.shape == frames[0].shape
    assert derainer._restorer.rules.multiple == 32
    aligned = [np.ascontiguousarray(frames[0][:32, :32])]
    np.testing.assert_array_equal(derainer(aligned)[0], plain(aligned)[0])
