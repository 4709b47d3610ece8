"""Checkpoints as people have them: containers, prefixes, objects beside the weights, attacks."""

import argparse
import collections
import contextlib
import datetime
import enum
import functools
import json
import os
import pathlib
import pickle
import random
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from rainmer import models
from rainmer.cli import run_command
from rainmer.errors import OutputError, WeightsError
from rainmer.models import weights_fingerprint
from rainmer.models.checkpoints import bare_weights, find_weights
from rainmer.models.unpickling import read_inert
from rainmer.models.weights import (
    load_state_dict_file,
    read_weights_file,
    write_tensors,
    write_torch,
)
from rainmer.weights.__main__ import main
from tests.rainmer.golden import official_shapes, rule_weights
from tests.rainmer.models.baselines.test_baselines import OPTIONS
from tests.rainmer.models.baselines.test_published import SHAPES, TINY

PUBLISHED = {network.name: network for network in TINY}
SMALL = {
    **OPTIONS,
    "brn": {},
    "prenet": {},
    "rainmer": {"dim": 8, "base_dim": 16, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 1, 1]},
}


@functools.cache
def published(name):
    """A published state dict of a small network."""
    if name in PUBLISHED:
        network = PUBLISHED[name]
        shapes = {k: torch.Size(v) for k, v in SHAPES[network](**TINY[network]).items()}
    else:
        model = models.build(name, **SMALL[name])
        own = hasattr(model, "official_shapes")
        shapes = model.official_shapes() if own else official_shapes(model)
    return rule_weights(shapes, seed=3)


def shifted(weights):
    return {k: v + 1 if v.is_floating_point() else v for k, v in weights.items()}


def prefixed(weights, prefix):
    return {prefix + key: value for key, value in weights.items()}


CONTAINERS = {
    "params": lambda w: {"params": w},
    "params_ema": lambda w: {"params": shifted(w), "params_ema": w},
    "state_dict": lambda w: {"epoch": 3, "state_dict": prefixed(w, "module.")},
    "net": lambda w: {"net": prefixed(w, "module._orig_mod."), "optimizer": {"state": {}}},
}


@pytest.mark.parametrize("name", models.network_names())
def test_every_network_is_read_from_every_container(name, tmp_path):
    weights = published(name)
    for container, pack in CONTAINERS.items():
        path = tmp_path / f"{container}.pth"
        torch.save(pack(weights), path)
        bare = bare_weights(load_state_dict_file(path))
        assert bare.keys() == weights.keys()
        assert all(torch.equal(bare[key], value) for key, value in weights.items())
    expected = weights_fingerprint(models.load(f"{name}:{path}"))
    main(["convert", str(path), str(tmp_path / "w.safetensors"), "--network", name])
    assert weights_fingerprint(models.load(f"{name}:{tmp_path / 'w.safetensors'}")) == expected


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("drsformer", "patch_embed.proj.weight"),
        ("idt", "input_proj.proj.0.weight"),
        ("promptir", "encoder_level3.0.attn.temperature"),
        ("rainmer", "patch_embed.proj.weight"),
    ],
)
def test_empty_weights_from_which_options_are_read_are_refused(name, key):
    with torch.device("meta"):
        network = type(models.build(name))
    for shape in ((), (0,)):
        with pytest.raises(WeightsError):
            network.from_official({**published(name), key: torch.zeros(shape)})


def content_of(content, tmp_path, suffix=".pth", **options):
    torch.save(content, tmp_path / f"content{suffix}", **options)
    return read_weights_file(tmp_path / f"content{suffix}")


W = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.ones(2)}
RAW = shifted(W)


@pytest.mark.parametrize(
    ("content", "entry", "left_out"),
    [
        (W, "", []),
        ({**W, "epoch": 3}, "", ["epoch"]),
        ({"state_dict": RAW, "state_dict_ema": W}, "state_dict_ema", ["state_dict"]),
        ({"model": RAW, "ema": {"state_dict": W, "decay": 0.9}}, "ema.state_dict",
         ["model", "ema.decay"]),
        ({"model": W, "ema": {"decay": torch.tensor(0.9)}}, "model", ["ema"]),
        ({"generator": {"params": RAW, "params_ema": W}, "discriminator": W},
         "generator.params_ema", ["discriminator", "generator.params"]),
        ({"state_dict": {**prefixed(W, "net.net_g."), "loss.vgg.weight": W["conv.bias"]}},
         "state_dict", ["loss (1 tensors)"]),
        ({"ema": {**prefixed(RAW, "online_model."), **prefixed(W, "ema_model.module.")}},
         "ema", ["online_model (2 tensors)"]),
        ({"MyDerainer": W, "optimizer": {"state": {0: {"exp_avg": W["conv.bias"]}}}},
         "MyDerainer", ["optimizer"]),
        ({"model": prefixed(W, "model._orig_mod.")}, "model", []),
        ({"model": None, "net": {}, "params": 3, "weights": W}, "weights",
         ["model", "net", "params"]),
    ],
    ids=str,
)  # fmt: skip
def test_weights_are_found(content, entry, left_out):
    found = find_weights(content)
    assert (found.entry, found.left_out) == (entry, left_out)
    bare = bare_weights(content)
    assert bare.keys() == W.keys()
    assert all(torch.equal(bare[key], W[key]) for key in W)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "the checkpoint holds no weights, but nothing"),
        ({"epoch": 3, "model": {"lr": 1}}, "holds no weights, but epoch, model"),
        ({"first": W, "second": RAW}, r"several sets of weights \(first, second\)"),
        ({"model": {3: W["conv.bias"]}}, "holds no weights, but model"),
        ({"a": torch.eye(2).to_sparse()}, "the weight a is no tensor of plain real numbers"),
        ({"a": torch.zeros(2).to(torch.complex64)}, "the weight a is no tensor of plain"),
        ({"module.a": W["conv.bias"], "a": W["conv.bias"]}, "two weights a"),
        ({"model": {"model": {"model": {"model": {"model": {"model": {"model": {"model": {"model":
          {"model": W}}}}}}}}}}, "levels|no weights"),
    ],
    ids=str,
)  # fmt: skip
def test_what_holds_no_weights_says_what_it_holds(content, words):
    with pytest.raises(WeightsError, match=words) as caught:
        bare_weights(content)
    assert "\n" not in str(caught.value)


class Kind(enum.Enum):
    ONE = 1


class Options(dict):
    """As OmegaConf, EasyDict and others: a dictionary of a class of its own."""


METADATA = {
    "best": np.float64(1),
    "history": np.zeros(3),
    "args": argparse.Namespace(lr=1),
    "path": pathlib.Path("x"),
    "dtype": torch.float32,
    "device": torch.device("cpu"),
    "size": torch.Size([1, 2]),
    "meters": collections.defaultdict(list, {"a": [1]}),
    "when": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
    "numpy_rng": np.random.get_state(),
    "generator": np.random.default_rng(0),
    "python_rng": random.getstate(),
    "torch_rng": torch.get_rng_state(),
    "kind": Kind.ONE,
    "loss": torch.nn.MSELoss(),
    "options": Options(a=1),
    "names": {"a", "b"},
    "function": getattr,
}


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_beside_the_weights_are_named_and_left_out(tmp_path, new, protocol):
    weights = collections.OrderedDict((key, torch.nn.Parameter(v)) for key, v in W.items())
    weights["half"] = torch.arange(8).half()[2::2]  # a part of a storage
    weights["shared"] = weights["half"]
    weights["none"] = torch.zeros(0, 3, dtype=torch.int64)
    content = content_of(
        {"params": weights, **METADATA}, tmp_path, ".ckpt",
        _use_new_zipfile_serialization=new, pickle_protocol=protocol,
    )  # fmt: skip
    assert content.state_dict.keys() == weights.keys()
    for key, value in weights.items():
        assert content.state_dict[key].dtype == value.dtype
        assert torch.equal(content.state_dict[key], value)
    assert [name.split(" ")[0] for name in content.found.left_out] == list(METADATA)
    assert "args (argparse.Namespace)" in content.found.left_out
    assert "other objects that were not read" in content.kind


def test_dictionaries_of_any_class_are_read(tmp_path):
    content = content_of({"model": Options(W), "best": np.float64(1)}, tmp_path)
    assert content.state_dict.keys() == W.keys()
    content = content_of(Options(W), tmp_path)
    assert torch.equal(content.state_dict["conv.bias"], W["conv.bias"])


class Calls:
    """A pickle of this calls a function with arguments when it is opened."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker):
    """Objects that leave a marker when a pickle of them is opened."""
    command = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w')"
    yield "os.system", Calls(os.system, command)
    yield "os.mkdir", Calls(os.mkdir, str(marker))
    yield "eval", Calls(eval, python)
    yield "exec", Calls(exec, python)
    yield "open", Calls(open, str(marker), "w")
    yield "Popen", Calls(subprocess.Popen, ["touch", str(marker)])
    yield "getattr", Calls(getattr, Calls(__import__, "os"), "system")
    yield "path", Calls(pathlib.Path.touch, marker)
    yield "partial", Calls(functools.partial(os.system, command))
    yield "reduce", Calls(functools.reduce, os.system, [command], command)
    yield "map", Calls(list, Calls(map, os.mkdir, [str(marker)]))
    nested = marker.with_suffix(".inner")
    nested.write_bytes(pickle.dumps(Calls(os.mkdir, str(marker))))
    yield "torch.load", Calls(torch.load, str(nested), None, None, False)
    yield "torch.hub", Calls(torch.hub.load, str(marker.parent), "f", "local")
    yield "numpy", Calls(np.save, str(marker) + ".npy", [1])


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_nothing_in_a_file_runs(tmp_path, new):
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    for name, attack in attacks(marker):
        path.touch()
        before = set(os.listdir(tmp_path))
        for content in ({"params": W, "x": attack}, {"params": attack}, attack):
            torch.save(content, path, _use_new_zipfile_serialization=new)
            for reader in (read_inert, read_weights_file, load_state_dict_file):
                with contextlib.suppress(WeightsError):
                    reader(path)
            assert set(os.listdir(tmp_path)) == before, name


def test_attributes_of_nothing_real_are_set(tmp_path):
    """BUILD sets attributes of what is on the stack; here that is never a real function."""
    function = b"ctorch._utils\n_rebuild_tensor_v2\n"
    state = b"(dN}S'__defaults__'\n(I1\ntsS'__wrapped__'\nI2\ns\x86b."
    path = tmp_path / "w.pth"
    real = torch._utils._rebuild_tensor_v2
    defaults = real.__defaults__
    path.write_bytes(b"\x80\x02" + function + state)
    with pytest.raises(WeightsError):
        read_weights_file(path)
    assert real.__defaults__ == defaults
    assert not hasattr(real, "__wrapped__")


def test_whole_networks_are_refused_with_what_to_do(tmp_path):
    for content, entry in ((torch.nn.Linear(2, 2), ""), ({"net": torch.nn.Linear(2, 2)}, "'net'")):
        for new in (True, False):
            with pytest.raises(WeightsError, match=rf"{entry}.*nn\S*Linear,.*save its state_dict"):
                content_of(content, tmp_path, _use_new_zipfile_serialization=new)


def test_detectors_are_told_from_derainers(tmp_path, monkeypatch):
    module = types.ModuleType("ultralytics.nn.tasks")
    detector = type("DetectionModel", (torch.nn.Module,), {"__module__": module.__name__})
    module.DetectionModel = detector
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(WeightsError, match=r"is a detector \(.*DetectionModel\).*--detector"):
        content_of({"model": detector(), "ema": None}, tmp_path, ".pt")
    torch.save({"model.0.conv.weight": torch.zeros(1)}, tmp_path / "yolo.pth")
    with pytest.raises(WeightsError, match="by its keys it is a YOLO detector"):
        models.load(f"rainmer:{tmp_path / 'yolo.pth'}")


def test_programs_are_told_from_weights(tmp_path):
    torch.jit.script(torch.nn.ReLU()).save(tmp_path / "relu.pt")
    with pytest.raises(WeightsError, match=r"TorchScript program.*use torchscript:"):
        read_weights_file(tmp_path / "relu.pt")


def test_what_was_taken_is_logged_once(tmp_path, caplog):
    torch.save({"params": published("prenet"), "epoch": 3}, tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        models.load(f"prenet:{tmp_path / 'w.pth'}")
        torch.save(published("prenet"), tmp_path / "plain.pth")
        models.load(f"prenet:{tmp_path / 'plain.pth'}")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'w.pth'}: took 32 tensors of its entry 'params'; left out epoch"
    ]


@pytest.mark.slow
def test_files_of_a_full_disk_do_not_replace_good_ones(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"a": torch.zeros(100_000)}
    writers = {"w.pt": write_torch, "w.safetensors": lambda p, c: write_tensors(p, c, {})}
    for name, write in writers.items():
        path = tmp_path / name
        path.write_bytes(b"good")
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(OutputError, match=f"cannot write .*{name}"):
                write(path, big)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == b"good"
    assert sorted(os.listdir(tmp_path)) == ["w.pt", "w.safetensors"]


def test_the_command_shows_and_converts(tmp_path, capsys, caplog):
    path, out = tmp_path / "w.ckpt", tmp_path / "w.safetensors"
    weights = dict(published("prenet"))
    weights["conv0.0.bias"] = torch.full_like(weights["conv0.0.bias"], float("nan"))
    torch.save({"params_ema": weights, "params": W, "when": METADATA["when"]}, path)
    main(["show", str(path), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert len(shown.pop("sha256")) == 64
    assert shown == {
        "file": str(path), "kind": "torch, zip, with other objects that were not read",
        "network": "prenet", "config": {"iterations": 6}, "entry": "params_ema", "tensors": 32,
        "values": 168_963, "dtypes": {"float32": 32}, "not_finite": 32,
        "left_out": ["params", "when (datetime.datetime)"],
    }  # fmt: skip
    main(["show", str(path), "--network", "prenet"])
    assert "32 values are not finite" in capsys.readouterr().out
    with caplog.at_level("INFO"):
        main(["convert", str(path), str(out), "--network", "prenet"])
    assert "32 tensors, prenet" in capsys.readouterr().out
    assert "left out params, when (datetime.datetime)" in caplog.text


def test_the_command_converts_what_is_of_no_network_here(tmp_path, capsys):
    path, out = tmp_path / "w.pth", tmp_path / "w.safetensors"
    torch.save({"params": {**W, "tied.bias": W["conv.bias"]}}, path)
    main(["convert", str(path), str(out)])
    assert "no network of this project; others are used as spandrel:FILE" in capsys.readouterr().out
    assert load_state_dict_file(out).keys() == {*W, "tied.bias"}
    with pytest.raises(WeightsError, match="do not fit prenet"):
        main(["convert", str(path), str(out), "--network", "prenet"])
    with pytest.raises(WeightsError, match=r"written as \.safetensors"):
        main(["convert", str(path), str(tmp_path / "w.pth")])
    main(["show", "rainmer-s"])
    assert "safetensors of this project" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        run_command(lambda _: main(["show", str(tmp_path / "none.pth")]))
    assert ended.value.code == 2
    assert "No such file" in capsys.readouterr().err
