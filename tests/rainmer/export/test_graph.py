import pytest
import torch
from torch import Tensor

from rainmer import models
from rainmer.export.graph import DerainGraph
from rainmer.frames.arrays import quantize
from rainmer.models import Rainmer, RainmerConfig
from rainmer.stage.restorers import make_query

SMALL = {
    "dim": 8,
    "base_dim": 16,
    "num_blocks": (1, 1, 1, 1),
    "heads": (1, 2, 2, 2),
    "compensator_steps": 1,
}


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


def steep(network: models.Network) -> models.Network:
    """Make all weights of a fresh network matter, biases and gains too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
            else:
                weight.mul_(1.5)
    return network.eval()


def frames(height: int, width: int, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).to(torch.uint8)


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.float() - theirs.float()).abs().max())


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"bias": True, "ffn_expansion": 2.66}, id="biases and an odd width"),
        pytest.param({"layer_norm": "bias_free", "entry_stride": 2}, id="bias-free"),
        pytest.param(
            {"prompt_gate": "degradation", "prompt_position": "residual"}, id="gated prompts"
        ),
        pytest.param({"views": (), "spatial_channel": False}, id="without encoder"),
        pytest.param({"sparse_rates": ()}, id="dense"),
        pytest.param({"sparse_rates": ("3/4", "1/2")}, id="descending rates"),
    ],
)
@pytest.mark.parametrize("size_hw", [(40, 51), None])
@torch.no_grad()
def test_the_graph_computes_what_the_stage_computes(options, size_hw):
    network = steep(Rainmer(RainmerConfig.from_mapping({**SMALL, **options})))
    batch = frames(40, 51, 2)
    unit = batch.float() / 255.0
    restored = network(unit, make_query(unit)).clamp(0.0, 1.0)
    graph = DerainGraph(network, size_hw=size_hw)
    assert difference(graph(unit), restored) < 1e-5
    assert difference(graph(batch), quantize(restored)) <= 1
    assert (restored - unit).abs().mean() > 0.05


@torch.no_grad()
def test_layouts_and_types():
    network = steep(Rainmer(RainmerConfig.from_mapping(SMALL)))
    batch = frames(24, 33)
    rows = DerainGraph(network, size_hw=(24, 33), layout="nhwc")(batch.permute(0, 2, 3, 1))
    assert rows.dtype == torch.uint8
    assert rows.shape == (1, 24, 33, 3)
    assert torch.equal(rows.permute(0, 3, 1, 2), DerainGraph(network, size_hw=(24, 33))(batch))


@torch.no_grad()
def test_rows_of_equal_scores_keep_the_first_ones():
    """A dead channel makes a row of zeros, of which the stage keeps the lowest indices."""
    network = steep(Rainmer(RainmerConfig.from_mapping(SMALL)))
    network.encoder1[0].attention.qkv.weight[:3] = 0.0
    batch = frames(16, 24)
    unit = batch.float() / 255.0
    restored = network(unit, make_query(unit)).clamp(0.0, 1.0)
    assert difference(DerainGraph(network, size_hw=(16, 24))(unit), restored) < 1e-5


@torch.no_grad()
def test_baselines_become_graphs():
    for name, options in (("prenet", {"iterations": 1}), ("drsformer", {"dim": 8})):
        network = steep(models.build(name, **options))
        unit = frames(17, 24).float() / 255.0
        graph = DerainGraph(network, size_hw=(17, 24))
        assert difference(graph(unit), network(unit).clamp(0.0, 1.0)) < 1e-5
