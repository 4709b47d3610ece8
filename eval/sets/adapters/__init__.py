"""Adapters: published rainy sets, as they lie on the disk, in one common form.

`ADAPTERS` is the list of them; `adapt` reads a folder with one. What they have in common is in
`eval.sets.model` (the form), `assembling` (annotations and checks), `fitting` (boxes) and `files`
(folders, stems, lists).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from eval.sets.adapters.acdc import read_acdc
from eval.sets.adapters.bdd100k import read_bdd100k
from eval.sets.adapters.dawn import read_dawn
from eval.sets.adapters.generic import read_coco_set, read_voc_set, read_yolo_set
from eval.sets.adapters.mpid import read_rid, read_ris
from eval.sets.adapters.pairs import (
    read_bdd350,
    read_bdd350_night,
    read_coco350,
    read_gt_rain,
    read_gtav_nightrain,
    read_hq_nightrain,
)
from eval.sets.adapters.raincityscapes import read_raincityscapes
from eval.sets.model import AdaptedSet, Adapter, AdapterOptions, Scene
from rainmer.config import nearest
from rainmer.errors import ConfigError, DatasetError

__all__ = ["ADAPTERS", "AdaptedSet", "Adapter", "AdapterOptions", "Scene", "adapt"]

_GENERIC = frozenset({"images", "annotations", "clean", "allow_list"})

_BY_STEM_LAYOUT = """\
input/STEM.png            rainy (also rainy, rain; or --images)
target/STEM.png           clean (also gt, clean, norain; or --clean), optional
--annotations FILE        boxes of the original set, joined by stem"""

ADAPTERS: dict[str, Adapter] = {
    "coco": Adapter(
        "any folder of images with COCO boxes",
        """\
images/**.jpg             (also rainy, rain, input, or ROOT itself; or --images)
instances.json            the only JSON in ROOT or in annotations/ (or --annotations)
--clean DIR               same names as the rainy images, optional""",
        _GENERIC,
        read_coco_set,
    ),
    "yolo": Adapter(
        "any set in the layout of ultralytics, with or without data.yaml",
        """\
data.yaml                 path, val (folder, list of folders, text file), names; optional
images/val/NAME.jpg       without data.yaml: images/, or images/SPLIT
labels/val/NAME.txt       `images` in the path becomes `labels`""",
        _GENERIC | {"split", "names"},
        read_yolo_set,
    ),
    "voc": Adapter(
        "any folder of images with PASCAL VOC XML",
        """\
JPEGImages/NAME.jpg       (also images, rainy, rain, input, or ROOT itself; or --images)
Annotations/NAME.xml      (also xml, labels, or beside the images; or --annotations)
ImageSets/Main/SPLIT.txt  with --split""",
        _GENERIC | {"split"},
        read_voc_set,
    ),
    "mpid-rid": Adapter(
        "MPID, Rain in Driving: real rain, boxes drawn without EXIF orientation",
        """\
**/NAME.jpg               anywhere below ROOT (or --images)
**/NAME.xml               anywhere below ROOT (or --annotations)""",
        frozenset({"images", "annotations", "allow_list", "turns"}),
        read_rid,
    ),
    "mpid-ris": Adapter(
        "MPID, Rain in Surveillance: real rain, boxes in another size than the images",
        """\
**/NAME.jpg               anywhere below ROOT (or --images)
**/NAME.xml               anywhere below ROOT (or --annotations)""",
        frozenset({"images", "annotations", "allow_list"}),
        read_ris,
    ),
    "bdd100k": Adapter(
        "BDD100K: real frames by weather and time of day; --weather rainy, ..., any",
        """\
images/100k/SPLIT/**/NAME.jpg
**/bdd100k_labels_images_SPLIT.json or **/det_SPLIT.json (train, val)""",
        frozenset({"images", "annotations", "split", "weather", "allow_list"}),
        read_bdd100k,
        ("rainy",),
    ),
    "acdc": Adapter(
        "ACDC: real frames; --weather rain, night, fog, snow",
        """\
rgb_anon/CONDITION/SPLIT/SEQUENCE/NAME_rgb_anon.png
gt_detection/CONDITION/instancesonly_CONDITION_SPLIT_gt_detection.json (train, val)""",
        frozenset({"images", "annotations", "split", "weather", "allow_list"}),
        read_acdc,
    ),
    "dawn": Adapter(
        "DAWN: photos from the web; --weather rain, fog, sand, snow",
        """\
Rain/Rain/NAME.jpg
Rain/Rain_YOLO_darknet/NAME.txt or Rain/Rain_PASCAL_VOC/NAME.xml""",
        frozenset({"annotations", "weather", "allow_list"}),
        read_dawn,
    ),
    "raincityscapes": Adapter(
        "RainCityscapes: rendered rain, several versions of each scene of Cityscapes",
        """\
leftImg8bit_rain/SPLIT/CITY/STEM_leftImg8bit_rain_alpha_A_beta_B_dropsize_D_pattern_P.png
leftImg8bit/SPLIT/CITY/STEM_leftImg8bit.png (or --clean)
gtFine/SPLIT/CITY/STEM_gtFine_polygons.json (or --annotations)""",
        frozenset({"images", "annotations", "clean", "split", "allow_list"}),
        read_raincityscapes,
    ),
    "gtav-nightrain": Adapter(
        "GTAV-NightRain: rendered night rain, no boxes",
        """\
set1/Train/Rainy/0000_03.png   any folder Rainy (case does not count) ...
set1/Train/GT/0000.png         ... with a folder GT beside it""",
        frozenset({"split", "allow_list"}),
        read_gtav_nightrain,
    ),
    "gt-rain": Adapter(
        "GT-Rain: real rain and the same scene after it, no boxes",
        """\
GT-RAIN_SPLIT/SCENE/*R-*.png
GT-RAIN_SPLIT/SCENE/*C-000*.png""",
        frozenset({"split", "allow_list"}),
        read_gt_rain,
    ),
    "coco350": Adapter(
        "COCO350 (MSPFN): synthetic rain on COCO images",
        _BY_STEM_LAYOUT,
        _GENERIC,
        read_coco350,
    ),
    "bdd350": Adapter(
        "BDD350 (MSPFN): synthetic rain on BDD100K images",
        _BY_STEM_LAYOUT,
        _GENERIC,
        read_bdd350,
    ),
    "bdd350-night": Adapter(
        "BDD350-Night (CST-Net): the night images of BDD350",
        _BY_STEM_LAYOUT,
        _GENERIC,
        read_bdd350_night,
    ),
    "hq-nightrain": Adapter(
        "HQ-NightRain: synthetic rain on night frames of BDD100K",
        """\
RS/test/input/STEM.png    any folder input (RS, RD or SD somewhere above) ...
RS/test/target/STEM.png   ... with a folder target beside it
--annotations FILE        boxes of BDD100K, joined by stem; without: pseudo-labels""",
        frozenset({"annotations", "split", "allow_list"}),
        read_hq_nightrain,
    ),
}
"""Every adapter by its name."""


def adapt(
    name: str, root: str | os.PathLike[str], options: AdapterOptions | None = None
) -> AdaptedSet:
    """Read a published set.

    Args:
        name: One of `ADAPTERS`.
        root: The folder of the set.
        options: More options; each adapter takes some of them.

    Raises:
        ConfigError: The adapter is unknown, or does not take one of the options.
        DatasetError: The folder is missing, not of this layout, or holds nothing usable.
    """
    if name not in ADAPTERS:
        raise ConfigError(f"no adapter {name!r}; {nearest(name, ADAPTERS)}")
    adapter = ADAPTERS[name]
    given = options or AdapterOptions()
    for option in sorted(given.given() - adapter.options):
        raise ConfigError(
            f"the adapter {name} takes no --{option.replace('_', '-')}; it takes "
            + ", ".join(f"--{other.replace('_', '-')}" for other in sorted(adapter.options))
        )
    folder = Path(os.path.abspath(root))
    if not folder.is_dir() and not (folder.is_file() and name == "yolo"):
        raise DatasetError(f"no folder {root}")
    return adapter.read(folder, _resolved(given, adapter))


def _resolved(options: AdapterOptions, adapter: Adapter) -> AdapterOptions:
    """Return options with absolute paths and the adapter's default weather where none is given."""
    changes: dict[str, Any] = {
        field.name: Path(os.path.abspath(value))
        for field in dataclasses.fields(options)
        if isinstance(value := getattr(options, field.name), Path)
    }
    changes["weather"] = options.weather or adapter.weather
    return dataclasses.replace(options, **changes)
