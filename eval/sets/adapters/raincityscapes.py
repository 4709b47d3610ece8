"""RainCityscapes: rain and fog rendered on Cityscapes, several versions of each scene.

X. Hu et al., Depth-Attentional Features for Single-Image Rain Removal, CVPR 2019.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from eval.sets.adapters.assembling import Draft, Gathered, assemble, conditions_of
from eval.sets.adapters.files import find_folder, keep_allowed
from eval.sets.adapters.fitting import fit_uniformly
from eval.sets.model import AdaptedSet, AdapterOptions
from rainmer.data.annotations.cityscapes import read_polygons
from rainmer.data.annotations.records import ImageRecord
from rainmer.data.defects import Defects
from rainmer.data.layouts.pairing import images_by_key, match_pairs
from rainmer.errors import DatasetError
from rainmer.folders import list_files
from rainmer.frames.images import list_images

__all__ = ["read_raincityscapes"]

# The classes of Cityscapes with instances that its own benchmark scores.
_CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
_NAME = re.compile(
    r"(?P<stem>.+)_leftimg8bit_rain_alpha_(?P<alpha>[\d.]+)_beta_(?P<beta>[\d.]+)"
    r"_dropsize_(?P<dropsize>[\d.]+)_pattern_(?P<pattern>\d+)"
)
_SETTINGS = ("alpha", "beta", "dropsize", "pattern")
_REMARKS = (
    "several rainy images share one clean image: they are not independent, and intervals over "
    "images are too narrow (scene_id tells which belong together)",
    "boxes are those around Cityscapes' polygons, which may include hidden parts of an object",
)


def read_raincityscapes(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read rainy images with their clean partners and boxes from Cityscapes' polygons."""
    defects = Defects()
    images = _folder(root, options.images, "leftImg8bit_rain", "--images")
    clean = _folder(root, options.clean, "leftImg8bit", "--clean")
    polygons = _folder(root, options.annotations, "gtFine", "--annotations")
    rainy = images_by_key(images, "rainy", defects)
    if options.split is not None:
        rainy = {k: p for k, p in rainy.items() if options.split.casefold() in k.split("/")[:-1]}
    rainy = keep_allowed(rainy, options.allow_list, defects)
    scenes = _scenes(rainy, defects)
    clean_of = _by_frame(list_images(clean), "_leftimg8bit")
    polygons_of = _by_frame(list_files(polygons, {".json"}), "_gtfine_polygons")
    records = _records({match["stem"] for match in scenes.values()}, polygons_of, defects)
    matching = match_pairs(scenes, clean_of.values(), lambda key: clean_of.get(scenes[key]["stem"]))
    for key in matching.unpaired:
        defects.error("rainy image without clean partner, skipped", rainy[key].name)
    drafts = []
    for key, partner in matching.pairs:
        record = records.get(scenes[key]["stem"])
        if record is None:
            defects.note("image without polygons, left out", rainy[key].name)
        else:
            drafts.append(Draft(rainy[key], record, partner, _attributes(key, scenes[key])))
    gathered = Gathered(
        name="raincityscapes",
        rainy_base=images,
        drafts=drafts,
        categories=dict(enumerate(_CLASSES, start=1)),
        rules={f"alpha-{k}": rule for k, rule in conditions_of("alpha", drafts).items()},
        remarks=_REMARKS,
        fit=fit_uniformly,
    )
    return assemble(gathered, defects)


def _folder(root: Path, given: Path | None, name: str, option: str) -> Path:
    folder = given or find_folder(root, name)
    if folder is None or not folder.is_dir():
        raise DatasetError(f"no folder {given or root / name}; say where with {option}")
    return folder


def _scenes(rainy: Mapping[str, Path], defects: Defects) -> dict[str, re.Match[str]]:
    """Return the parsed name of each rainy image."""
    scenes = {}
    for key, path in rainy.items():
        match = _NAME.fullmatch(key.rsplit("/", 1)[-1])
        if match is None:
            defects.error("name that does not follow RainCityscapes, skipped", path.name)
        else:
            scenes[key] = match
    return scenes


def _by_frame(paths: Iterable[Path], ending: str) -> dict[str, Path]:
    """Return files by `city_sequence_frame`, which is unique over splits and cities."""
    names = {path.stem.casefold(): path for path in paths}
    return {name.removesuffix(ending): p for name, p in names.items() if name.endswith(ending)}


def _records(
    stems: set[str], polygons_of: Mapping[str, Path], defects: Defects
) -> dict[str, ImageRecord]:
    ids = {name: number for number, name in enumerate(_CLASSES, start=1)}
    records, other = {}, Counter[str]()
    for stem in sorted(stems & polygons_of.keys()):
        try:
            records[stem] = read_polygons(polygons_of[stem], ids, other, defects)
        except DatasetError as error:
            defects.error("unreadable polygon file", str(error))
    for label, count in sorted(other.items()):
        defects.note("polygons of classes that are not detected, left out", f"{label}: {count}")
    return records


def _attributes(key: str, match: re.Match[str]) -> dict[str, str]:
    parts = key.split("/")[:-1]
    known = next((part for part in parts if part in ("train", "val", "test")), None)
    return {
        "domain": "synthetic",
        "weather": "rain",
        "timeofday": "daytime",
        "scene_id": match["stem"],
        "source_id": match["stem"],
        **({"split": known} if known else {}),
        **{name: match[name] for name in _SETTINGS},
    }
