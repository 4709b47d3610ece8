"""What `auto` chooses, by device and network, and what a CPU computes in place of fp16."""

import logging
import pickle

import numpy as np
import pytest
import torch

from rainmer import Derainer
from rainmer.cli import add_stage_options, make_parser
from rainmer.device import has_native_bf16
from rainmer.models import build
from rainmer.stage import derainer as stage
from rainmer.stage.restorers import CallableRestorer, NetworkRestorer, Restorer

FRAME = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.fixture(params=[True, False], ids=["with bfloat16", "without"])
def native(request, monkeypatch):
    monkeypatch.setattr(stage, "has_native_bf16", lambda device: request.param)
    return request.param


class Own(torch.nn.Module):
    def __init__(self, **flags):
        super().__init__()
        self.__dict__.update(flags)
        self.seen = []

    def forward(self, batch):
        self.seen.append(torch.is_autocast_enabled("cpu"))
        return batch


def test_a_network_computes_in_bfloat16_where_the_device_has_it(native):
    derainer = Derainer("rainmer-s", device="cpu")
    explicit = Derainer("rainmer-s", device="cpu", precision="bf16" if native else "fp32")
    assert derainer.precision == explicit.precision
    assert derainer.fingerprint == explicit.fingerprint
    np.testing.assert_array_equal(derainer(FRAME), explicit(FRAME))


@pytest.mark.parametrize("spec", ["none", "median", "blend:0.5:median"])
def test_what_has_no_network_computes_in_float32(native, spec):
    derainer = Derainer(spec, device="cpu")
    assert derainer.precision == "fp32"
    assert derainer.fingerprint == Derainer(spec, device="cpu", precision="fp32").fingerprint


@pytest.mark.parametrize(
    ("flags", "takes"),
    [({}, False), ({"supports_bfloat16": False}, False), ({"supports_bfloat16": True}, True)],
)
def test_code_of_others_must_say_that_it_takes_bfloat16(native, flags, takes):
    own = Own(**flags)
    derainer = Derainer(own, device="cpu")
    derainer(FRAME)
    assert derainer.precision == ("bf16" if native and takes else "fp32")
    assert own.seen == [native and takes]


def test_a_pickle_keeps_what_was_chosen(monkeypatch):
    monkeypatch.setattr(stage, "has_native_bf16", lambda device: True)
    pickled = pickle.dumps(Derainer("rainmer-s", device="cpu"))
    monkeypatch.setattr(stage, "has_native_bf16", lambda device: False)
    assert pickle.loads(pickled).precision == "bf16"


def test_fp16_on_a_cpu_is_computed_in_float32(caplog):
    with caplog.at_level(logging.WARNING):
        derainer = Derainer("median", device="cpu", precision="fp16")
    assert derainer.precision == "fp32"
    assert derainer.fingerprint == Derainer("median", device="cpu").fingerprint
    assert [record.message for record in caplog.records] == [
        "fp16 is 16 to 25 times slower than fp32 on a CPU: computing in float32"
    ]


def test_a_gpu_without_bfloat16_computes_in_float32_and_says_so(caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    device = torch.device("cuda", 0)
    network: Restorer = NetworkRestorer(build("prenet", iterations=1), "prenet")
    with caplog.at_level(logging.WARNING):
        assert stage._resolve_precision("auto", network, device) == "fp32"
        own = CallableRestorer(Own(), "own")
        assert stage._resolve_precision("auto", own, device) == "fp32"
        assert stage._resolve_precision("fp16", network, device) == "fp16"
    [record] = caplog.records
    assert record.message.startswith("cuda:0 has no bfloat16")


@pytest.mark.parametrize("capability", ["DEFAULT", "AVX2", "NO AVX"])
def test_a_cpu_told_to_be_narrow_is_believed(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert not has_native_bf16(torch.device("cpu"))


def test_only_some_devices_have_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for supported in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda s=supported: s)
        assert has_native_bf16(torch.device("cpu")) is supported
    assert not has_native_bf16(torch.device("mps"))


def test_commands_that_measure_keep_float32():
    for default in ("auto", "fp32"):
        parser = make_parser("x", "x", "x")
        add_stage_options(parser, precision=default)
        assert parser.parse_args([]).precision == default
        assert parser.parse_args(["--precision", "auto"]).precision == "auto"
