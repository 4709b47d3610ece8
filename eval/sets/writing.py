"""Writing an adapted set as a set file that `load_set` and `eval.detect --data` read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from eval.sets.adapters.files import common_folder
from eval.sets.config import check_name
from eval.sets.model import AdaptedSet
from rainmer.data.annotations.records import Annotation
from rainmer.errors import DatasetError
from rainmer.files import make_folder, write_text

__all__ = ["write_set"]


def write_set(data: AdaptedSet, folder: str | os.PathLike[str], name: str | None = None) -> Path:
    """Write `set.yaml` and `instances.json` into a folder, and return the YAML file.

    Images stay where they are. Paths are relative to the folder where that is possible.

    Args:
        data: The set.
        folder: Where the two files go; it is created.
        name: Name of the set in reports; default: that of the adapter.

    Raises:
        ConfigError: The name would not do as that of a folder.
        DatasetError: Some scenes have a clean image and some have none.
        OutputError: The files cannot be written.
    """
    check_name(name or data.name, "--name")
    target = make_folder(folder)
    clean_base = _clean_base(data)
    content: dict[str, Any] = {
        "name": name or data.name,
        "rainy": _path_from(data.rainy_base, target),
        "scenes": "instances.json",
        "annotations": "instances.json" if data.has_boxes else None,
    }
    if clean_base is not None:
        content["clean"] = _path_from(clean_base, target)
    if data.aliases:
        content["aliases"] = dict(data.aliases)
    if data.conditions:
        content["conditions"] = {name: dict(rule) for name, rule in data.conditions.items()}
    write_text(target / "instances.json", json.dumps(_coco(data, clean_base), indent=1))
    file = target / "set.yaml"
    remarks = "".join(f"# {line}\n" for line in data.remarks)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    write_text(file, f"# Written by `python -m eval.sets write`.\n{remarks}{text}")
    return file


def _clean_base(data: AdaptedSet) -> Path | None:
    clean = [scene.clean for scene in data.scenes if scene.clean is not None]
    if clean and len(clean) < len(data.scenes):
        raise DatasetError(f"{data.name}: only {len(clean)} of {len(data.scenes)} scenes are pairs")
    return common_folder(clean) if clean else None


def _path_from(path: Path, folder: Path) -> str:
    path, folder = path.resolve(), folder.resolve()
    if Path(os.path.commonpath([path, folder])) == Path(path.anchor):
        return path.as_posix()  # nothing in common: a relative path would say no less
    return Path(os.path.relpath(path, folder)).as_posix()


def _coco(data: AdaptedSet, clean_base: Path | None) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[Annotation] = []
    for image_id, scene in enumerate(data.scenes, start=1):
        image: dict[str, Any] = {
            "id": image_id,
            "file_name": scene.name,
            "height": scene.size_hw[0],
            "width": scene.size_hw[1],
            "rainy_file": scene.name,
            "attributes": dict(scene.attributes),
        }
        if clean_base is not None and scene.clean is not None:
            image["clean_file"] = scene.clean.relative_to(clean_base).as_posix()
        images.append(image)
        for box in scene.boxes:
            annotations.append({**box, "id": len(annotations) + 1, "image_id": image_id})
    categories = [{"id": key, "name": name} for key, name in sorted(data.categories.items())]
    return {"images": images, "annotations": annotations, "categories": categories}
