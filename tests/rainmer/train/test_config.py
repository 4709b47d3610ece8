import dataclasses
from pathlib import Path

import pytest
import yaml

from rainmer.config import to_mapping
from rainmer.errors import ConfigError
from rainmer.train.config import (
    TrainConfig,
    ValidationConfig,
    differing_keys,
    find_config,
    read_config,
    read_mapping,
)
from rainmer.train.sources import RenderedSource

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "train"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_valid(path):
    config = read_config(path)
    assert config.name == path.stem
    assert config.build_network(on="meta").name == config.network


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_rain_of_every_configuration_can_be_rendered(path, photos):
    for name, source in read_config(path).data.rendered.items():
        RenderedSource(name, dataclasses.replace(source, images=str(photos), depth=None))


def test_photos_are_held_out_by_default_of_ones_own_only():
    files = [*CONFIGS.glob("*.yaml"), *CONFIGS.parent.glob("tune/*.yaml")]
    shares = {path: read_mapping(path).get("validation", {}).get("share") for path in files}
    assert [path.stem for path, share in shares.items() if share] == ["own-photos"]
    assert read_config(CONFIGS / "rainmer-s.yaml").validation == ValidationConfig()


def test_a_name_means_a_configuration_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_config(Path("own-photos")) == read_config(CONFIGS / "own-photos.yaml")
    assert find_config(Path("rainmer-s"), "tune").parent.name == "tune"
    (tmp_path / "rainmer-s").touch()
    assert find_config(Path("rainmer-s"), "train") == Path("rainmer-s")  # a file comes first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("own-photo", "no configuration own-photo: did you mean 'own-photos'"),
        ("configs/train/brn.yaml", "the package has one: --config brn"),
        ("mine.yaml", "cannot read mine.yaml"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        read_config(Path(given))


def test_changes_reach_nested_fields(config_file):
    config = read_config(
        config_file, ["optimiser.lr=1e-4", "stages.1.steps=7", "data.pairs.columns.weight=2"]
    )
    assert config.optimiser.lr == 1e-4
    assert config.stages[1].steps == 7
    assert config.data.pairs["columns"].weight == 2.0
    assert config.steps == 11


def test_a_base_is_extended(tmp_path, config_file):
    child = tmp_path / "child.yaml"
    child.write_text(yaml.safe_dump({"base": "tiny.yaml", "name": "child", "optimiser": {"lr": 1}}))
    config, base = read_config(child), read_config(config_file)
    assert differing_keys(config, to_mapping(base)) == ["name", "optimiser.lr"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("optimizer.lr=1", "did you mean 'optimiser'"),
        ("stages.5.steps=1", "no position of a list of 2"),
        ("stages.0.steps=0", "must be above 0"),
        ("model.dim=7", "dim is 7"),
        ("model.widht=7", "widht"),
        ("network=prenot", "prenot"),
        ("ema=1.5", "ema is 1.5"),
        ("stages=[]", "at least one"),
        ("validation.share=1", "validation.share is 1.0, but must be from 0 to below 1"),
        ("nothing", "expected key=value"),
        ("name.x=1", "nothing of that name"),
        ("data.pairs.columns.layout=[", "not YAML"),
        ("pixel_loss=l2", "not one of"),
        ("pixel_loss=own", "rainmer has no loss of its own"),
        ("optimiser={cycles: [{steps: 9, lowest: 0.0}], milestones: [3]}", "not both"),
    ],
)
def test_wrong_changes_are_refused(config_file, change, words):
    with pytest.raises((ConfigError, ValueError)) as caught:
        read_config(config_file, [change])
    assert words in str(caught.value)


def test_files_that_name_each_other_are_refused(tmp_path):
    for name, base in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"base: {base}.yaml\n")
    with pytest.raises(ConfigError, match="in a circle"):
        read_config(tmp_path / "a.yaml")


def test_a_configuration_survives_yaml(config_file):
    config = read_config(config_file)
    again = yaml.safe_load(yaml.safe_dump(to_mapping(config)))
    assert differing_keys(config, again) == []
    assert isinstance(config, TrainConfig)


def test_variants_are_rainmers_only(config_file):
    with pytest.raises(ConfigError, match="no published variants"):
        read_config(config_file, ["network=prenet", "model={}"])
