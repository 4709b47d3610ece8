"""Every file under configs is valid, and documents all fields of what it configures."""

import dataclasses
from pathlib import Path

import pytest

from eval.sets import SetConfig
from rainmer.config import from_mapping, read_yaml
from rainmer.models import RainmerConfig
from rainmer.rain import PRESETS, RainConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("file", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda f: f.stem)
def test_sets(file):
    assert from_mapping(SetConfig, read_yaml(file), file.name).name


def test_the_set_templates_show_every_field():
    shown = {key for file in (CONFIGS / "data").glob("*.yaml") for key in read_yaml(file)}
    assert shown == {field.name for field in dataclasses.fields(SetConfig)}


def test_the_network_file_is_the_published_network_in_full():
    content = read_yaml(CONFIGS / "model" / "rainmer.yaml")
    assert RainmerConfig.from_mapping(content) == RainmerConfig.official("sum")
    assert content.keys() == {field.name for field in dataclasses.fields(RainmerConfig)}


def test_the_rain_file_is_the_preset_in_full():
    content = read_yaml(CONFIGS / "rain" / "day.yaml")
    assert from_mapping(RainConfig, content, "day.yaml") == PRESETS["day"]
    assert content.keys() == {field.name for field in dataclasses.fields(RainConfig)}
