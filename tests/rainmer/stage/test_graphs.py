"""Work that is recorded and replayed: when, for which shapes, and what happens when it fails."""

import logging
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rainmer import Derainer, models
from rainmer.errors import RainmerError
from rainmer.models.rainmer import SparseUNet
from rainmer.stage.graphs import Graphs
from rainmer.stage.restorers import make_query
from tests.rainmer.models.baselines.test_baselines import OPTIONS
from tests.rainmer.stage.recording import StandIn

TINY = {"dim": 8, "base_dim": 16, "num_blocks": (1, 1, 1, 1), "heads": (1, 1, 2, 4)}
SMALL = {
    **OPTIONS,
    "airnet": {"dim": 16, "groups": 1, "blocks": 1},
    "promptir": {"dim": 8, "num_blocks": (1, 1, 1, 1), "refinement_blocks": 1},
    "rainmer": TINY,
}
LOST = RuntimeError("CUDA error: operation not permitted when stream is capturing\nlong text")


def halve(batch):
    return batch * 0.5, batch.sum()


def run(graphs, side, seed=0):
    """Run on a batch of one shape, check the result, and return the calls of the engine."""
    batch = torch.rand(1, side, generator=torch.Generator().manual_seed(seed))
    before = len(graphs._engine.calls) if graphs._engine else 0
    halved, total = graphs.run("halve", halve, batch)
    assert halved.equal(batch * 0.5)
    assert total.equal(batch.sum())
    return graphs._engine.calls[before:] if graphs._engine else []


def frame(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_shape_is_recorded_when_it_is_met_again():
    graphs = Graphs(StandIn())
    assert [run(graphs, 4, seed) for seed in range(4)] == [
        [],
        ["record", "replay"],
        ["replay"],
        ["replay"],
    ]
    assert run(graphs, 5) == []
    assert run(graphs, 4) == ["replay"]


def test_results_outlive_the_next_replay():
    graphs = Graphs(StandIn())
    results = [graphs.run("halve", halve, torch.full((2,), float(i)))[0] for i in range(5)]
    assert [result[0].item() for result in results] == [0, 0.5, 1, 1.5, 2]


def test_labels_and_types_are_told_apart():
    graphs = Graphs(StandIn())
    for _ in range(3):
        for dtype in (torch.float32, torch.float64):
            [same] = graphs.run("same", lambda x: (x + 0,), torch.ones(2, dtype=dtype))
            [twice] = graphs.run("twice", lambda x: (x * 2,), torch.ones(2, dtype=dtype))
            assert (same.dtype, same[0], twice[0]) == (dtype, 1, 2)
    assert len(graphs) == 4


@given(sides=st.lists(st.integers(1, 8), max_size=60), most=st.integers(1, 4))
def test_any_order_of_shapes_gives_right_results_and_few_graphs(sides, most):
    graphs = Graphs(StandIn(), most)
    for seed, side in enumerate(sides):
        run(graphs, side, seed)
        assert len(graphs) <= most


def test_sizes_that_change_with_every_frame_are_never_recorded():
    graphs = Graphs(StandIn())
    for side in range(1, 600):
        run(graphs, side)
    assert graphs._engine.calls == []
    assert len(graphs._met) <= 256


def test_many_sizes_in_turn_are_recorded_ever_more_rarely():
    graphs = Graphs(StandIn(), 4)
    for _ in range(64):
        for side in range(1, 9):
            run(graphs, side)
    assert graphs._engine.calls.count("record") < 8 * 8  # of 512 frames


def test_large_graphs_make_room(monkeypatch):
    monkeypatch.setattr("rainmer.stage.graphs._MOST_BYTES", 2500)
    graphs = Graphs(StandIn())
    for side in (100, 200, 300, 400):  # 8 bytes a value: input and output
        run(graphs, side)
        run(graphs, side)
    assert [key[1][0] for key in graphs._recorded] == [(1, 400)]


def test_after_a_failure_everything_runs_as_it_is_with_one_warning(caplog):
    graphs = Graphs(StandIn(LOST))
    engine = graphs._engine
    with caplog.at_level(logging.WARNING):
        for side in (3, 3, 3, 4, 4, 4):
            run(graphs, side)
    assert engine.calls == ["record", "reset"]
    assert not graphs.active
    assert [record.message for record in caplog.records] == [
        "no CUDA graph, going on without: "
        "CUDA error: operation not permitted when stream is capturing"
    ]


def test_without_memory_for_one_shape_others_are_recorded(caplog):
    out = torch.OutOfMemoryError("CUDA out of memory")
    graphs = Graphs(StandIn())
    with caplog.at_level(logging.WARNING):
        run(graphs, 3)
        run(graphs, 3)
        graphs._engine.errors += [out, out]
        for side in (9, 9, 9, 9, 8, 8, 8):
            run(graphs, side)
        assert len(graphs) == 0, "all memory was needed"
        for _ in range(3):
            run(graphs, 3)
    assert graphs._engine.calls.count("record") == 4
    assert len(graphs) == 1
    assert len(caplog.records) == 1


def test_errors_of_the_work_itself_are_raised():
    def refuse(batch):
        raise RainmerError("no")

    graphs = Graphs(StandIn())
    for _ in range(3):
        with pytest.raises(RainmerError, match="no"):
            graphs.run("refuse", refuse, torch.ones(1))


def test_a_part_of_work_is_recorded_with_it():
    graphs = Graphs(StandIn())

    def outer(batch):
        [inner] = graphs.run("inner", lambda x: (x + 1,), batch * 2)
        return (inner,)

    for _ in range(3):
        assert graphs.run("outer", outer, torch.ones(1))[0].item() == 3
    assert graphs._engine.calls == ["record", "replay", "replay"]


def test_threads_share_graphs():
    graphs, errors = Graphs(StandIn()), []

    def work(side):
        try:
            for seed in range(200):
                run(graphs, side, seed)
        except Exception as error:  # noqa: BLE001 (told below)
            errors.append(error)

    threads = [threading.Thread(target=work, args=(side,)) for side in (3, 4, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(graphs) == 2


def recorded(derainer):
    """Let a stage record, as it does on CUDA."""
    derainer._runner.graphs = Graphs(StandIn())
    return derainer


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "rainmer-tiny.safetensors"
    models.save_weights(path, models.build("rainmer", **TINY))
    return f"rainmer:{path}"


def test_the_stage_gives_the_same_bits(spec):
    plain, derainer = (Derainer(spec, device="cpu", graphs=on) for on in (False, True))
    recorded(derainer)
    frames = [frame(13, 22, seed) for seed in range(2)]
    expected = plain(frames)
    for _ in range(3):
        for result, wanted in zip(derainer(frames), expected, strict=True):
            np.testing.assert_array_equal(result, wanted)
    assert derainer._runner.graphs._engine.calls.count("replay") == 2
    assert derainer.fingerprint == plain.fingerprint


def test_tiles_of_all_frames_share_graphs(spec):
    plain, derainer = (
        Derainer(spec, device="cpu", precision="fp32", tile=64, overlap=8, batch=2)
        for _ in range(2)
    )
    recorded(derainer)
    for size in ((70, 64), (64, 100)):
        np.testing.assert_array_equal(derainer(frame(*size)), plain(frame(*size)))
    [key] = derainer._runner.graphs._recorded
    assert key[:2] == ("network", ((2, 3, 64, 64), torch.float32))


def test_warm_up_records():
    derainer = recorded(_tiny())
    derainer.warm_up(9, 7, batch=1)
    assert len(derainer._runner.graphs) == 1
    derainer(frame(9, 7))
    assert derainer._runner.graphs._engine.calls == ["record", "replay", "replay"]


def _tiny():
    derainer = Derainer("none", device="cpu")
    derainer._restorer.recordable = True
    return derainer


def test_values_that_are_not_finite_are_found_in_a_replay():
    derainer = recorded(_tiny())
    good, bad = torch.zeros(3, 4, 4), torch.full((3, 4, 4), float("nan"))
    for _ in range(3):
        derainer(good)
        with pytest.raises(RainmerError, match="not finite"):
            derainer(bad)


def test_memory_that_runs_out_frees_the_graphs_and_shrinks_the_calls():
    derainer = recorded(_tiny())
    derainer._restorer.tileable = True
    derainer(frame(64, 64))
    derainer(frame(64, 64))
    assert len(derainer._runner.graphs) == 1
    most = []

    def hungry(batch):
        most.append(batch.numel() // 3)
        if most[-1] > 72 * 72:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch

    derainer._restorer.function = hungry
    for _ in range(3):
        np.testing.assert_array_equal(derainer(frame(100, 100)), frame(100, 100))
    assert max(most[-4:]) <= 72 * 72
    assert {key[0] for key in derainer._runner.graphs._recorded} == {"network"}


@pytest.mark.parametrize("name", sorted(models.network_names()))
def test_no_network_waits_for_its_device(name):
    """Tensors without contents cannot be read on the host, which a CUDA graph forbids, too."""
    with torch.device("meta"):
        network = models.build(name, **SMALL.get(name, {})).eval()
    image = torch.rand(1, 3, 24, 32, device="meta")
    with torch.no_grad():
        if isinstance(network, SparseUNet):
            network = network.fuse()
        if isinstance(network, models.Rainmer):
            assert network(image, prompts=network.prompts(make_query(image))).shape == image.shape
        assert network(image).shape == image.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("options", [{}, {"tile": 64, "overlap": 8}])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_graphs_give_the_same_bits_on_a_gpu(precision, options, caplog):
    options = {"device": "cuda", "precision": precision, **options}
    graphed, eager = (Derainer("rainmer-s", graphs=on, **options) for on in (True, False))
    frames = [frame(100, 90, seed) for seed in range(3)]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for result, wanted in zip(graphed(frames), eager(frames), strict=True):
                np.testing.assert_array_equal(result, wanted)
    assert len(graphed._runner.graphs) >= 1
    assert not caplog.records


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_threads_share_graphs_on_a_gpu():
    derainer = Derainer("rainmer-s", device="cuda")
    derainer.warm_up(64, 64, batch=1)
    derainer.warm_up(40, 72, batch=1)
    batches = {
        size: torch.from_numpy(frame(*size)).permute(2, 0, 1) for size in ((64, 64), (40, 72))
    }
    expected = {size: derainer(batch) for size, batch in batches.items()}
    wrong = []

    def work(size):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                if not derainer(batches[size]).equal(expected[size]):
                    wrong.append(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
