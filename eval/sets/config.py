"""The YAML file of a detection set."""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass, field
from pathlib import Path

from eval.sets.rendered import RainSpec
from rainmer.config import from_mapping, read_yaml
from rainmer.data.annotations.parsing import as_whole
from rainmer.errors import ConfigError

__all__ = ["ConditionRule", "SetConfig", "check_name", "class_names", "read_config"]

ConditionRule = str | list[str] | dict[str, str | list[str]]


@dataclass(frozen=True, kw_only=True)
class SetConfig:
    """A rainy detection set, as its YAML file gives it.

    Paths are relative to the file; `~` and `$NAME` are expanded.
    """

    name: str
    """Short name for reports and folders: letters, digits, spaces and `_.-`."""
    rainy: str | None = None
    """Folder of the rainy images; null where they are rendered: see `rain`."""
    rain: RainSpec | None = None
    """Rain to render into the clean images, once; then `clean` is needed and `rainy` is not."""
    clean: str | None = None
    """Folder of the same scenes without rain, same file names; null if there are none."""
    annotations: str | None = None
    """COCO JSON file or folder of YOLO labels; null: pseudo-labels from the clean images."""
    scenes: str | None = None
    """COCO JSON file whose images list the scenes, with `rainy_file` and `clean_file` for each;
    null: the images of the folders, paired by name."""
    names: list[str] | dict[str, str] | None = None
    """Class names of YOLO labels, as a list or by id."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Names of the set that the detector calls differently, e.g. `pedestrian: person`."""
    conditions: dict[str, ConditionRule] = field(default_factory=dict)
    """Rows of the report: a glob on file names, a list of file names, or attribute: value(s)."""


def check_name(name: str, where: str) -> None:
    """Refuse a set name that cannot name a folder.

    Raises:
        ConfigError: It is empty, or has other characters than letters, digits, spaces and `_.-`.
    """
    if not re.fullmatch(r"[\w .-]+", name) or not name.strip(" ."):
        raise ConfigError(
            f"{where}: name: {name!r} is no plain name; use letters, digits, spaces and _.-"
        )


def class_names(names: object, file: Path) -> dict[int, str]:
    """Return class names by number, from a list or a mapping as YAML gives it.

    Raises:
        ConfigError: It is neither, or a key is no class number or one that was there before.
    """
    if isinstance(names, list):
        return {number: str(name) for number, name in enumerate(names)}
    if not isinstance(names, dict):
        raise ConfigError(f"{file}: names: expected a list, or names by class number")
    by_number: dict[int, str] = {}
    for key, name in names.items():
        number = as_whole(key)
        if number is None or number in by_number:
            reason = "no class number" if number is None else "there twice"
            raise ConfigError(f"{file}: names: the key {reprlib.repr(key)} is {reason}")
        by_number[number] = str(name)
    return by_number


def read_config(file: Path) -> SetConfig:
    """Read and check a set's YAML file. Raises ConfigError."""
    config = from_mapping(SetConfig, read_yaml(file), str(file))
    check_name(config.name, str(file))
    if (config.rainy is None) == (config.rain is None):
        raise ConfigError(f"{file}: give either `rainy`, a folder, or `rain`, to render it")
    if config.rain is not None and (config.clean is None or config.scenes is not None):
        raise ConfigError(f"{file}: `rain` is rendered into `clean`, and goes without `scenes`")
    if config.annotations is None and config.clean is None:
        raise ConfigError(
            f"{file}: without `annotations`, `clean` is needed: pseudo-labels come from it"
        )
    return config
