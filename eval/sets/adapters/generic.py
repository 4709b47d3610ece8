"""Users' own sets in the three common forms: COCO, YOLO (as ultralytics has it), PASCAL VOC."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.sets.adapters.assembling import Draft, Gathered, assemble
from eval.sets.adapters.files import common_folder, files_in, keep_allowed, read_names, stem_key
from eval.sets.config import class_names
from eval.sets.model import AdaptedSet, AdapterOptions
from rainmer.config import path_in, read_yaml
from rainmer.data.annotations.coco import read_coco
from rainmer.data.annotations.parsing import as_whole
from rainmer.data.annotations.records import Annotations, ImageRecord
from rainmer.data.annotations.voc import read_voc, voc_files
from rainmer.data.annotations.yolo import read_yolo
from rainmer.data.defects import Defects
from rainmer.data.layouts.pairing import images_by_key, pair_by_key
from rainmer.data.layouts.table import RAINY_FOLDERS
from rainmer.data.layouts.tree import subfolder
from rainmer.errors import DatasetError, ImageError
from rainmer.files import match_key
from rainmer.frames.images import image_size_hw

__all__ = ["read_coco_set", "read_voc_set", "read_yolo_set"]

_IMAGE_FOLDERS = (*RAINY_FOLDERS, "images", "JPEGImages")


def read_coco_set(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read a folder of images with a COCO instances file."""
    defects = Defects()
    images = options.images or subfolder(root, *_IMAGE_FOLDERS) or root
    annotations = read_coco(options.annotations or _only_json(root), defects)
    return _with_boxes("coco", images, options, annotations, defects)


def _only_json(root: Path) -> Path:
    files = [
        path
        for folder in (root, subfolder(root, "annotations"))
        if folder is not None
        for path in files_in(folder, ".json")
    ]
    if len(files) != 1:
        names = ", ".join(path.name for path in files[:4]) or "none"
        raise DatasetError(
            f"{root}: expected one JSON file of annotations in it, found {names}; "
            "say which with --annotations FILE"
        )
    return files[0]


def read_voc_set(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read images with PASCAL VOC XML files beside them or in a separate folder."""
    defects = Defects()
    images = options.images or subfolder(root, *_IMAGE_FOLDERS) or root
    annotations = options.annotations or subfolder(root, "Annotations", "xml", "labels") or root
    records = read_voc(voc_files(annotations), defects)
    if options.split is not None:
        records = _only_split(records, root, options.split)
    return _with_boxes("voc", images, options, records, defects)


def _only_split(annotations: Annotations, root: Path, split: str) -> Annotations:
    listed = root / "ImageSets" / "Main" / f"{split}.txt"
    # In lists for a class the name is followed by a number.
    stems = {stem_key(f"{line.split()[0]}.x") for line in read_names(listed)}
    records = {k: r for k, r in annotations.records.items() if stem_key(f"{k}.x") in stems}
    return Annotations(annotations.categories, records)


def _with_boxes(
    name: str, images: Path, options: AdapterOptions, annotations: Annotations, defects: Defects
) -> AdaptedSet:
    rainy = keep_allowed(images_by_key(images, "rainy", defects), options.allow_list, defects)
    clean = images_by_key(options.clean, "clean", defects) if options.clean else None
    records = annotations.match(rainy, defects)
    pairs = pair_by_key(rainy, clean, defects, bases=(images, options.clean))
    drafts = [
        Draft(path, records[key], partner)
        for key, (path, partner) in pairs.items()
        if key in records
    ]
    gathered = Gathered(
        name=name, rainy_base=images, drafts=drafts, categories=annotations.categories
    )
    return assemble(gathered, defects)


def read_yolo_set(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read images with YOLO labels, by ultralytics' `data.yaml` or by `images` and `labels`."""
    defects = Defects()
    content = _yolo_content(root, options, defects)
    kept = keep_allowed(
        {path.as_posix(): path for path in content.images}, options.allow_list, defects
    )
    if not kept:
        raise DatasetError(f"{root}: no image of split {options.split or 'val'} was found")
    base = common_folder(kept.values())
    by_key: dict[str, Path] = {}
    for path in kept.values():
        name = path.relative_to(base).as_posix()
        if by_key.setdefault(match_key(name), path) is not path:
            defects.error("rainy images that differ only in suffix or case, left out", name)
    records = _yolo_records(root, by_key, content, options, defects)
    annotations = Annotations(content.names, records)
    clean = images_by_key(options.clean, "clean", defects) if options.clean else None
    pairs = pair_by_key(by_key, clean, defects, bases=(base, options.clean))
    drafts = [
        Draft(rainy, annotations.records[key], partner)
        for key, (rainy, partner) in pairs.items()
        if key in annotations.records
    ]
    gathered = Gathered(
        name="yolo", rainy_base=base, drafts=drafts, categories=annotations.categories
    )
    return assemble(gathered, defects)


@dataclass(frozen=True)
class _YoloContent:
    """What `data.yaml` and the options say: class names, images, numbers of keypoints a label."""

    names: dict[int, str]
    images: list[Path]
    keypoint_numbers: int = 0


def _yolo_content(root: Path, options: AdapterOptions, defects: Defects) -> _YoloContent:
    file = root if root.is_file() else root / "data.yaml"
    content = read_yaml(file) if file.is_file() else {}
    names = dict(enumerate(options.names)) or class_names(content.get("names") or [], file)
    if not names:
        raise DatasetError(
            f"{root}: YOLO labels have only class numbers; give their names with --names, "
            "or `names` in data.yaml"
        )
    keypoint_numbers = _keypoint_numbers(content.get("kpt_shape"), file)
    images = _listed_images(root, options, content, file, defects)
    return _YoloContent(names, images, keypoint_numbers)


def _keypoint_numbers(shape: object, file: Path) -> int:
    """Return how many numbers follow the box in labels of poses: `kpt_shape: [17, 3]` has 51."""
    if shape is None:
        return 0
    sides = [as_whole(side) or 0 for side in shape] if isinstance(shape, list) else []
    if len(sides) != 2 or sides[0] <= 0 or sides[1] not in (2, 3):
        raise DatasetError(f"{file}: kpt_shape: expected [number of keypoints, 2 or 3]")
    return sides[0] * sides[1]


def _listed_images(
    root: Path, options: AdapterOptions, content: Mapping[str, Any], file: Path, defects: Defects
) -> list[Path]:
    if options.images is not None:
        return list(images_by_key(options.images, "rainy", defects).values())
    split = options.split or "val"
    entries = content.get(split)
    if entries is None and content:
        raise DatasetError(f"{file} has no split {split!r}; choose another with --split")
    if entries is None:
        folder = subfolder(root, "images") or root
        folder = subfolder(folder, options.split) or folder if options.split else folder
        return list(images_by_key(folder, "rainy", defects).values())
    bases = [path_in(file.parent, str(content.get("path") or ".")), file.parent]
    return [
        path
        for entry in (entries if isinstance(entries, list) else [entries])
        for path in _yolo_images(str(entry), bases, file, defects)
    ]


def _yolo_images(entry: str, bases: list[Path], file: Path, defects: Defects) -> list[Path]:
    """Return the images of a folder or of a list of paths, as `data.yaml` names them."""
    # Exports write `../valid/images` for what lies beside data.yaml.
    tried = [path_in(base, text) for base in bases for text in (entry, entry.removeprefix("../"))]
    path = next((path for path in tried if path.exists()), None)
    if path is None:
        raise DatasetError(f"{file}: no folder or list {entry}")
    if path.is_dir():
        return list(images_by_key(path, "rainy", defects).values())
    return [Path(os.path.abspath(path.parent / name)) for name in read_names(path)]


def _yolo_records(
    root: Path,
    images: Mapping[str, Path],
    content: _YoloContent,
    options: AdapterOptions,
    defects: Defects,
) -> dict[str, ImageRecord]:
    def read(labels: Path, sizes_hw: Mapping[str, tuple[int, int]]) -> dict[str, ImageRecord]:
        numbers = content.keypoint_numbers
        return read_yolo(labels, content.names, sizes_hw, defects, keypoint_numbers=numbers).records

    sizes: dict[str, tuple[int, int]] = {}
    for key, path in images.items():
        try:
            sizes[key] = image_size_hw(path)
        except ImageError as error:
            defects.error("unreadable image, skipped", f"{key}: {error}")
    if options.annotations is not None:
        return read(options.annotations, sizes)
    groups: dict[Path, list[str]] = {}
    for key in sizes:
        groups.setdefault(_images_root(images[key]), []).append(key)
    records: dict[str, ImageRecord] = {}
    for images_root, keys in sorted(groups.items()):
        folder = common_folder(images[key] for key in keys)
        labels = _label_folder(root, images_root, folder)
        inner = {match_key(images[key].relative_to(folder)): key for key in keys}
        found = read(labels, {name: sizes[key] for name, key in inner.items()})
        records |= {inner[name]: record for name, record in found.items()}
    return records


def _images_root(path: Path) -> Path:
    """Return the last folder `images` above an image: ultralytics has `labels` beside it."""
    return next((p for p in path.parents if p.name.casefold() == "images"), path.parent)


def _label_folder(root: Path, images_root: Path, folder: Path) -> Path:
    """Return where the labels of the images of `folder` are: beside `images`, or beside them."""
    beside = images_root.with_name("labels") / folder.relative_to(images_root)
    if images_root.name.casefold() == "images" and beside.is_dir():
        return beside
    labels = subfolder(root, "labels")
    if labels is not None:
        return labels
    if files_in(folder, ".txt"):
        return folder
    raise DatasetError(f"no labels for {folder}: no folder {beside}; say where with --annotations")
