"""Drawn scenes as a data set of ultralytics: label files, two lists of images, and a YAML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from eval.street.scene import CLASSES
from rainmer.files import write_text

__all__ = ["write_yolo_set"]

_VALIDATION_SHARE = 0.05


def write_yolo_set(folder: Path, parts: Sequence[str]) -> Path:
    """Write labels beside the images of `write_split`, so that ultralytics can train on them.

    The last 5 % of each part's scenes, at least one, are for validation. Small and hidden objects,
    which are crowds in COCO's form, are left out.

    Args:
        folder: Holds the parts.
        parts: Names of its folders with `images/` and `instances.json`.

    Returns:
        The YAML, `street.yaml`, for `--data` of `detection.augment` and ultralytics' `data=`.

    Raises:
        OutputError: The folder cannot be written.
    """
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for part in parts:
        content = json.loads((folder / part / "instances.json").read_text())
        lines: dict[int, list[str]] = {image["id"]: [] for image in content["images"]}
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        for thing in content["annotations"]:
            if not thing["iscrowd"]:
                width, height = sizes[thing["image_id"]]
                x, y, w, h = thing["bbox"]
                box = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
                numbers = " ".join(f"{value:.6f}" for value in box)
                lines[thing["image_id"]].append(f"{thing['category_id'] - 1} {numbers}\n")
        first_of_val = len(content["images"]) - max(1, int(_VALIDATION_SHARE * len(lines)))
        for number, image in enumerate(content["images"]):
            name = Path(image["file_name"])
            write_text(
                folder / part / "labels" / name.with_suffix(".txt"), "".join(lines[image["id"]])
            )
            lists["train" if number < first_of_val else "val"].append(f"./{part}/images/{name}\n")
    for share, files in lists.items():
        write_text(folder / f"{share}.txt", "".join(files))
    path = folder / "street.yaml"
    content = {"train": "train.txt", "val": "val.txt", "names": dict(enumerate(CLASSES))}
    write_text(path, yaml.safe_dump(content, sort_keys=False))
    return path
