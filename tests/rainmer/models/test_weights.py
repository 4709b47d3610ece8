import os
import pickle
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

import rainmer.models as models
from rainmer.errors import ConfigError, SpecError, WeightsError
from rainmer.models.baselines.prenet import PReNet
from rainmer.models.rainmer import Rainmer
from rainmer.models.rainmer_config import OFFICIAL_VARIANTS, RainmerConfig
from rainmer.models.weights import (
    load_state_dict_file,
    read_weights_file,
    save_weights,
    weights_fingerprint,
)

TINY = RainmerConfig.official(
    "wochr", dim=8, base_dim=16, num_blocks=(1, 1, 1, 1), sparse_rates=("1/2", "1"), bias=True
)


def image():
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "network"), [("rainmer", Rainmer(TINY)), ("prenet", PReNet(iterations=2))]
)
def test_round_trip(tmp_path, name, network):
    path = tmp_path / "new folder" / "weights.safetensors"
    save_weights(path, network)
    loaded = models.load(f"{name}:{path}")
    assert type(loaded) is type(network)
    assert loaded.config_mapping() == network.config_mapping()
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(image()), network.eval()(image()))
    assert weights_fingerprint(loaded) == weights_fingerprint(network)
    assert os.listdir(path.parent) == ["weights.safetensors"]


def test_metadata_are_plain(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, PReNet(iterations=2))
    content = read_weights_file(path)
    assert (content.network, content.config) == ("prenet", {"iterations": 2})
    assert load_file(path).keys() == content.state_dict.keys()


def test_own_file_of_another_network(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, PReNet())
    with pytest.raises(WeightsError, match="of prenet, not rainmer: use prenet:"):
        models.load(f"rainmer:{path}")


def test_own_file_of_a_later_format(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(PReNet().state_dict(), path, {"format": "rainmer", "format_version": "2"})
    with pytest.raises(WeightsError, match="format version 2"):
        models.load(f"prenet:{path}")


@pytest.mark.parametrize(
    "metadata",
    [
        {"network": "prenet"},
        {"network": "prenet", "config": "{"},
        {"network": "prenet", "config": "3"},
    ],
    ids=str,
)
def test_own_file_with_damaged_metadata(tmp_path, metadata):
    path = tmp_path / "w.safetensors"
    own = {"format": "rainmer", "format_version": "1"}
    save_file(PReNet().state_dict(), path, {**own, **metadata})
    with pytest.raises(WeightsError, match="metadata"):
        models.load(f"prenet:{path}")


def test_own_file_with_missing_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    network = PReNet()
    save_weights(path, network)
    state = network.state_dict()
    del state["entry.bias"]
    own = {"format": "rainmer", "format_version": "1", "network": "prenet", "config": "{}"}
    save_file(state, path, own)
    with pytest.raises(WeightsError, match=r"1 keys missing \(entry.bias\)"):
        models.load(f"prenet:{path}")


def test_other_suffixes_are_not_written(tmp_path):
    with pytest.raises(WeightsError, match=r"\.safetensors"):
        save_weights(tmp_path / "w.pth", PReNet())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar", ".safetensors"])
def test_plain_state_dicts(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    state = {"a": torch.arange(3.0)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert torch.equal(load_state_dict_file(path)["a"], state["a"])


class RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, suffix):
    marker, path = tmp_path / "ran", tmp_path / f"evil{suffix}"
    torch.save({"model": {"a": torch.zeros(1)}, "b": RunsCode(marker)}, path)
    with pytest.raises(WeightsError, match=r"refused: it is a pickle that calls \w+\.mkdir"):
        load_state_dict_file(path)
    assert not marker.exists()


def test_a_bare_pickle_that_runs_code_is_refused(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(RunsCode(marker), protocol=2))
    with pytest.raises(WeightsError, match=r"evil\.pth"):
        load_state_dict_file(path)
    assert not marker.exists()


def test_a_pickled_module_is_refused(tmp_path):
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(WeightsError, match=r"refused: .*torch\.nn\.modules\.linear\.Linear"):
        load_state_dict_file(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x02}q\x00."], ids=repr)
def test_damaged_files(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        models.load(f"prenet:{path}")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_truncation_is_reported(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    state = {"a": torch.rand(50), "b": torch.rand(3, 3)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = path.read_bytes()
    for length in random.Random(0).sample(range(len(content) - 1), 40):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            load_state_dict_file(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_other_files_are_told_without_noise(tmp_path, protocol):
    for number, content in enumerate([b"hello text", b"e weights", pickle.dumps(3, protocol)]):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(content)
        with pytest.raises(
            WeightsError, match=r"pth (holds no weights: damaged, or|are damaged: [^.]*$)"
        ):
            load_state_dict_file(path)


def test_advice_of_torch_is_cut_off(tmp_path):
    torch.save({"a": torch.zeros(5000)}, tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    content[-250:-150] = b"\xff" * 100
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pth are damaged: [^.]*$"):
        load_state_dict_file(tmp_path / "w.pth")


def test_entries_have_names(tmp_path):
    torch.save({"a": torch.zeros(1), 1: torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"w\.pth: the checkpoint is no state dict: 1 is not the name of"
    ):
        load_state_dict_file(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_own_state_dict_without_metadata(tmp_path, suffix):
    path, network = tmp_path / f"w{suffix}", PReNet().eval()
    save = save_file if suffix == ".safetensors" else torch.save
    save(network.state_dict(), path)
    loaded = models.load(f"prenet:{path}")
    assert weights_fingerprint(loaded) == weights_fingerprint(network)
    with pytest.raises(WeightsError, match="of prenet, not rainmer"):
        models.load(f"rainmer:{path}")
    small = {"dim": 8, "base_dim": 16, "num_blocks": (1, 1, 1, 1)}
    for variant in OFFICIAL_VARIANTS:
        save(Rainmer(RainmerConfig.official(variant, **small)).state_dict(), path)
        with pytest.raises(WeightsError, match=r"this project's Rainmer.*save_weights instead"):
            models.load(f"rainmer:{path}")


def test_wrong_paths(tmp_path):
    for name in ("x" * 300 + ".pth", "nul\0.pth"):
        with pytest.raises(WeightsError, match="cannot read the weights"):
            load_state_dict_file(tmp_path / name)
    with pytest.raises(WeightsError, match="No such file"):
        load_state_dict_file(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="is a folder"):
        load_state_dict_file(tmp_path)
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"expected \.safetensors"):
        load_state_dict_file(tmp_path / "w.onnx")


def test_a_tensor_alone_is_no_state_dict(tmp_path):
    torch.save(torch.zeros(2), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="holds a Tensor"):
        load_state_dict_file(tmp_path / "w.pt")


def test_fingerprint_sees_what_decides_the_output():
    torch.manual_seed(0)
    network = PReNet(iterations=2)
    before = weights_fingerprint(network)
    network.to(memory_format=torch.channels_last)
    assert weights_fingerprint(network) == before
    more = PReNet(iterations=3)
    more.load_state_dict(network.state_dict())
    assert weights_fingerprint(more) != before
    with torch.no_grad():
        network.output.bias[0] += 1e-6
    assert weights_fingerprint(network) != before


def test_registry():
    assert models.network_names() == [
        "airnet", "brn", "drsformer", "efficientderain", "idt", "prenet", "promptir", "rainmer",
        "rcdnet",
    ]  # fmt: skip
    built = models.build("rainmer", dim=8, base_dim=16, num_blocks=[1, 1, 1, 1])
    assert isinstance(built, Rainmer)
    assert (built.name, built.size_multiple, built.takes_query) == ("rainmer", 8, True)
    assert models.build("prenet", iterations=3).config_mapping() == {"iterations": 3}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("rainmr:w.pth", "no network 'rainmr': did you mean 'rainmer'? valid: "),
        ("w.pth", "expected NAME:FILE"),
        ("prenet:", "expected NAME:FILE"),
    ],
)
def test_wrong_specs(spec, words):
    with pytest.raises(SpecError) as caught:
        models.load(spec)
    assert words in str(caught.value)


def test_wrong_names_and_options():
    with pytest.raises(SpecError, match="did you mean 'prenet'"):
        models.build("pre-net")
    with pytest.raises(ConfigError, match="did you mean 'dim'"):
        models.build("rainmer", dims=8)


def test_official_checkpoint_of_another_network(tmp_path):
    path = tmp_path / "latest.tar"
    torch.save({"epoch": 1, "model": {"module.conv.weight": torch.zeros(1)}}, path)
    for name in models.network_names():
        with pytest.raises(WeightsError, match=r"latest\.tar: the weights do not fit .* missing"):
            models.load(f"{name}:{path}")
