"""MPID's two sets of real rain with boxes: RID (driving) and RIS (surveillance).

S. Li et al., Single Image Deraining: A Comprehensive Benchmark Analysis, CVPR 2019.
"""

from __future__ import annotations

import re
from pathlib import Path

from eval.sets.adapters.assembling import Draft, Gathered, assemble
from eval.sets.adapters.files import keep_allowed, one_per_stem, read_names
from eval.sets.adapters.fitting import Fit, fit_stretched, turning_fit
from eval.sets.model import AdaptedSet, AdapterOptions
from rainmer.data.annotations.records import Annotations
from rainmer.data.annotations.voc import read_voc, voc_files
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError
from rainmer.frames.images import list_images

__all__ = ["read_rid", "read_ris"]

_RID_REMARK = (
    "boxes were drawn on images shown without their EXIF orientation; each image is decided by the "
    "size in its XML file; look at a few before trusting a number"
)
_RIS_REMARK = (
    "boxes were drawn on images resized to 640x368 or 640x480; they are scaled to each image"
)


def read_rid(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read Rain in Driving: photos whose labels ignore the EXIF orientation."""
    fit = turning_fit(_turns(options.turns))
    return _read("mpid-rid", root, options, fit, _RID_REMARK, {"source_id": "rid"})


def read_ris(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read Rain in Surveillance: labels in two sizes, images in six."""
    return _read("mpid-ris", root, options, fit_stretched, _RIS_REMARK, {"source_id": "ris"})


def _read(
    name: str,
    root: Path,
    options: AdapterOptions,
    fit: Fit,
    remark: str,
    source: dict[str, str],
) -> AdaptedSet:
    defects = Defects()
    images = options.images or root
    if not images.is_dir():
        raise DatasetError(f"no folder {images} of images")
    paths = one_per_stem(list_images(images), "image", defects)
    paths = keep_allowed(paths, options.allow_list, defects)
    files = one_per_stem(voc_files(options.annotations or root).values(), "XML file", defects)
    for stem in sorted(files.keys() - paths.keys()):
        if options.allow_list is None:
            defects.note("label file without image", files[stem].name)
    for stem in sorted(paths.keys() - files.keys()):
        defects.note("image without label file, left out", paths[stem].name)
    labelled = {stem: path for stem, path in files.items() if stem in paths}
    annotations = read_voc(labelled, defects)
    gathered = Gathered(
        name=name,
        rainy_base=images,
        drafts=_drafts(paths, annotations, source),
        categories=annotations.categories,
        remarks=(remark,),
        fit=fit,
    )
    return assemble(gathered, defects)


def _drafts(
    paths: dict[str, Path], annotations: Annotations, source: dict[str, str]
) -> list[Draft]:
    """Frames of one recording are one scene: RIS names end in the number of the frame."""
    return [
        Draft(
            paths[stem],
            record,
            attributes={
                "domain": "real",
                "weather": "rain",
                "scene_id": paths[stem].stem.rpartition("-")[0] or paths[stem].stem
                if source["source_id"] == "ris"
                else paths[stem].stem,
                **source,
            },
        )
        for stem, record in annotations.records.items()
    ]


def _turns(path: Path | None) -> dict[str, int]:
    if path is None:
        return {}
    turns = {}
    for line in read_names(path):
        match = re.fullmatch(r"(.+?)[\s,]+([+-]?[0-9]{1,6})", line)
        if match is None or int(match[2]) % 90:
            raise DatasetError(f"{path}: expected `name degrees` in steps of 90, got {line[:60]!r}")
        turns[Path(match[1]).stem.casefold()] = int(match[2]) % 360
    return turns
