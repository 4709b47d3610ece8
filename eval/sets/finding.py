"""What a user has instead of a set file: a folder, YOLO's `data.yaml`, or a COCO file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.sets.adapters import adapt
from eval.sets.model import AdaptedSet, AdapterOptions
from rainmer.config import read_yaml
from rainmer.errors import ConfigError, DatasetError, RainmerError, first_line
from rainmer.folders import is_file, list_folder
from rainmer.frames.images import find_images

__all__ = ["find_set"]

_YAML = (".yaml", ".yml")


def find_set(path: Path) -> Path | AdaptedSet:
    """Return the set file that a path means, or the set that was read in another form.

    A path may be a set file; YOLO's `data.yaml`, of which `val` is read; a COCO JSON file of
    instances, with the images beside it, in `images` or the like; or a folder with one of these.

    Raises:
        ConfigError: A folder holds several.
        DatasetError: There is no such file, a folder holds nothing of the kind, or it cannot be
            read.
    """
    if path.is_dir():
        path = _file_in(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
        return adapt("coco", root, AdapterOptions(annotations=path))
    if suffix in _YAML and path.is_file() and _is_yolo(read_yaml(path)):
        return adapt("yolo", path, AdapterOptions())
    return path


def _file_in(folder: Path) -> Path:
    """Return the one file of a folder that describes a set: our own form comes before others."""
    names = sorted(entry.name for entry in list_folder(folder) if is_file(entry))
    damaged: list[RainmerError] = []
    files = {
        folder / name: _mapping(folder / name, damaged) for name in names if name.endswith(_YAML)
    }
    own = [file for file, content in files.items() if {"rainy", "rain"} & content.keys()]
    yolo = [file for file, content in files.items() if _is_yolo(content)]
    coco = [folder / name for name in names if _is_coco(folder / name, damaged)]
    found = own or yolo or coco
    if len(found) > 1:
        listed = ", ".join(file.name for file in found[:4])
        raise ConfigError(f"{folder} holds several sets, {listed}: name one")
    if found:
        return found[0]
    if damaged:  # it may have been meant to be the set
        raise damaged[0]
    if not find_images(folder).files:
        raise DatasetError(f"{folder} holds neither a set nor an image")
    raise DatasetError(
        f"{folder} holds images without boxes: `python -m eval.footage {folder}` says what can be "
        "said without them; with them, give data.yaml, a COCO file, or a set file"
    )


def _mapping(file: Path, damaged: list[RainmerError]) -> Mapping[str, Any]:
    """Return the values of a YAML file; none where it cannot be read, which is noted."""
    try:
        return read_yaml(file)
    except ConfigError as error:
        damaged.append(error)
        return {}


def _is_yolo(content: Mapping[str, Any]) -> bool:
    return "names" in content and bool({"val", "train"} & content.keys())


def _is_coco(file: Path, damaged: list[RainmerError]) -> bool:
    """Return whether a file has the keys of COCO's; one that cannot be read is noted."""
    if file.suffix.lower() != ".json":
        return False
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        damaged.append(DatasetError(f"{file} cannot be read as JSON: {first_line(error)}"))
        return False
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()
