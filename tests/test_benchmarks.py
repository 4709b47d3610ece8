"""What the benchmarks compare with: the plain network is the same function."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.measuring import count_work, parse_size
from benchmarks.plain import plain
from rainmer.models.rainmer import Rainmer
from rainmer.models.rainmer_config import OFFICIAL_VARIANTS, RainmerConfig
from tests.numerics import GOLDEN, rounding
from tests.rainmer.golden import COPIES, config_of, read_golden, rule_model

ROOT = Path(__file__).resolve().parents[1]
TINY = {"dim": 8, "base_dim": 16, "num_blocks": (1, 1, 1, 1), "heads": (1, 2, 4, 8)}


@pytest.mark.parametrize("variant", OFFICIAL_VARIANTS)
def test_plain_network_is_the_same_function(variant):
    model = rule_model(RainmerConfig.official(variant, **TINY), 1).requires_grad_(False)
    image = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    expected = model(image)
    copied = plain(model.to(memory_format=torch.channels_last))
    torch.testing.assert_close(copied(image), expected, rtol=0, atol=rounding(depth=80))
    assert type(model.embedding) is torch.nn.Conv2d  # the original is left as it was


def test_plain_network_is_the_published_one():
    tensors, metadata = read_golden(
        COPIES / "rainmer_tiny" / "chralpha_biasfree_ruleweights.safetensors"
    )
    model = rule_model(config_of(metadata["meta"]["config"]), metadata["meta"]["rule_seed"])
    with torch.no_grad():
        restored = plain(model)(tensors["in/x"], tensors["in/q"])
    torch.testing.assert_close(restored, tensors["out/y_lowtie"], rtol=0, atol=GOLDEN)


def test_plain_network_keeps_the_default_memory_order():
    """Or else it would be given the fast kernels that it is compared with."""
    orders = []
    model = plain(Rainmer(RainmerConfig(**TINY)).eval())
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda module, given, out: orders.append(out.is_contiguous())
            )
    with torch.no_grad():
        model(torch.rand(1, 3, 16, 24))
    assert orders
    assert all(orders)


def test_work_is_counted():
    a, b = torch.rand(2, 3), torch.rand(3, 5)
    flops, moved = count_work(lambda: (a @ b).t().relu_())
    assert flops == 2 * 2 * 3 * 5
    assert moved == 4 * ((6 + 15 + 10) + (10 + 10))


def test_what_an_operator_writes_is_counted_once():
    a, out = torch.rand(2, 3), torch.empty(2, 3)
    assert count_work(lambda: torch.add(a, a, out=out))[1] == 4 * 3 * 6
    assert count_work(lambda: torch.empty_like(a))[1] == 0


def test_work_is_counted_without_computing():
    """The same FLOPs as where it is computed, for both see the map as one strip."""
    network = Rainmer(RainmerConfig(**TINY)).eval().requires_grad_(False).fuse()
    image = torch.rand(1, 3, 16, 24)
    computed = count_work(lambda: network(image))
    network.to("meta")
    assert count_work(lambda: network(image.to("meta")))[0] == computed[0]


def test_the_parts_for_a_gpu_run_in_miniature_on_a_cpu(tmp_path, capsys):
    parts = ["stage", "equality", "training", "kernels", "triton", "rendering", "peaks"]
    parts += ["tests", "compiled"]
    gpu.main(["--device", "cpu", "--minutes", "2", "--out", str(tmp_path), "--parts", *parts])
    records = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert not [record for record in records if "error" in record]
    measured = {record["part"] for record in records}
    assert measured == {"device", *parts} - {"tests", "compiled"}  # these two need a GPU
    fed = {r["rendering"]: r["fed_crops_per_s"] for r in records if r["part"] == "training"}
    assert fed.keys() == {"loader", "device"}
    assert min(fed.values()) > 0
    same = {r["precision"]: r["most_levels"] for r in records if r["part"] == "equality"}
    assert same["fp32"] == 0
    assert (tmp_path / "gpu.md").read_text().count("\n") == len(records) + 2


def test_a_part_that_fails_does_not_end_the_others(tmp_path, monkeypatch):
    def fail(bench):
        raise ValueError("no such kernel")

    monkeypatch.setitem(gpu.PARTS, "kernels", fail)
    parts = ["kernels", "peaks"]
    gpu.main(["--device", "cpu", "--out", str(tmp_path), "--parts", *parts])
    records = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert records[1] == {"part": "kernels", "error": "ValueError: no such kernel"}
    assert records[2]["part"] == "peaks"


@pytest.mark.slow
def test_the_minutes_are_kept(tmp_path):
    """In a process of its own, which ends in the middle of a part."""
    code = (
        "import time; from benchmarks import gpu;"
        "gpu.PARTS['peaks'] = lambda bench: time.sleep(60);"
        "gpu.main(['--device', 'cpu', '--minutes', '1', '--parts', 'peaks',"
        f"'--out', {str(tmp_path)!r}])"
    )
    code = "import benchmarks.gpu as g; g._SECONDS_A_MINUTE = 2.0;" + code
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=50)
    assert done.returncode == 0
    assert time.monotonic() - started < 50
    assert "the minutes are over" in (tmp_path / "gpu.jsonl").read_text()


def test_sizes_are_width_first():
    assert parse_size("640x384") == (384, 640)
