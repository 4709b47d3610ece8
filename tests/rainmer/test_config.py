from dataclasses import dataclass, field
from typing import Literal

import pytest

from rainmer.config import from_mapping, read_yaml, to_mapping
from rainmer.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0


@dataclass(frozen=True)
class Config:
    name: str
    sizes: tuple[int, ...] = (1, 2)
    mode: Literal["fast", "slow"] = "fast"
    inner: Inner = field(default_factory=Inner)
    limit: int | None = None
    labels: dict[str, str | list[str]] = field(default_factory=dict)


def test_plain_data_and_dataclass_are_inverse():
    plain = {
        "name": "a",
        "sizes": [3],
        "mode": "slow",
        "inner": {"rate": 2.5},
        "limit": 4,
        "labels": {"x": ["y"]},
    }
    config = from_mapping(Config, plain)
    assert config == Config("a", (3,), "slow", Inner(2.5), 4, {"x": ["y"]})
    assert to_mapping(config) == plain


def test_a_whole_number_serves_as_a_float():
    assert from_mapping(Config, {"name": "a", "inner": {"rate": 3}}).inner.rate == 3.0


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"nam": "a"}, "nam: unknown key; did you mean 'name'"),
        ({}, "name: missing"),
        ({"name": 3}, "name: expected str, but got int 3"),
        ({"name": "a", "sizes": [1, "x"]}, r"sizes\[1\]: expected int, but got str 'x'"),
        ({"name": "a", "sizes": 5}, "sizes: expected a list"),
        ({"name": "a", "mode": "quick"}, "mode: 'quick' is not one of 'fast', 'slow'"),
        ({"name": "a", "inner": {"rat": 1}}, "inner: rat: unknown key; did you mean 'rate'"),
        ({"name": "a", "limit": True}, "limit: expected int, but got bool"),
        ({"name": "a", "labels": {"x": 3}}, "labels.x: expected str or a list, but got int 3"),
        ({"name": "a", "labels": {"x": ["y", 3]}}, r"labels.x\[1\]: expected str, but got int 3"),
    ],
)
def test_mistakes_are_named_with_their_place(mapping, message):
    with pytest.raises(ConfigError, match=message):
        from_mapping(Config, mapping)


@pytest.mark.parametrize(
    ("content", "message"),
    [("- 1\n", "must hold"), ("a: [1\n", "not valid YAML"), ("", "holds nothing")],
)
def test_yaml_that_is_no_mapping(tmp_path, content, message):
    file = tmp_path / "set.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_yaml(file)


def test_missing_yaml(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_yaml(tmp_path / "none.yaml")


def test_yaml_cannot_build_objects(tmp_path):
    file = tmp_path / "set.yaml"
    file.write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(file)
