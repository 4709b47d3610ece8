"""Rain on images and annotated sets."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import yaml
from tqdm import tqdm

from rainmer.data.annotations.coco import read_coco
from rainmer.data.annotations.records import Annotations, clip_to_image
from rainmer.data.annotations.yolo import read_yolo
from rainmer.data.defects import Defects
from rainmer.data.depth import find_depth
from rainmer.errors import DatasetError, ImageError
from rainmer.files import make_folder, match_key, write_text
from rainmer.frames.images import image_size_hw
from rainmer.frames.inputs import Input
from rainmer.rain import RainRenderer
from rainmer.rain.folder import CLEAN, RAINY, RenderJob, render_folder
from rainmer.rain.instances import RenderedScene, rendered_instances
from rainmer.rain.options import RainOptions

__all__ = ["render_stills"]

_INSTANCES = "instances.json"


def render_stills(
    inputs: Sequence[Input],
    renderer: RainRenderer,
    options: RainOptions,
    device: torch.device,
    failures: list[str],
) -> None:
    """Render rain into images, write them as a set, and print how much of them rain covers.

    Args:
        inputs: The images.
        renderer: The rain.
        options: Where results go; boxes and depth maps, if there are any.
        device: Where to compute.
        failures: A line is added for each image that cannot be read.
    """
    out = make_folder(options.out)
    sizes = _sizes(inputs)
    boxes = _read_boxes(options.boxes, options.names, sizes) if options.boxes else None
    jobs = [_job(item, options.depth, boxes) for item in inputs]
    rendered = {}
    with tqdm(total=len(jobs), unit="image", disable=options.quiet, delay=2) as bar:
        for image in render_folder(
            jobs, renderer, out, device=device, batch=options.batch, failures=failures
        ):
            rendered[image.name] = image
            bar.update()
    if not rendered:
        return
    if boxes is not None:
        scenes = [
            RenderedScene(image, record, sizes[key], {"file_name": f"{name}.png"})
            for name, image in rendered.items()
            if (record := boxes.records.get(key := match_key(f"{name}.png")))
        ]
        content = rendered_instances(scenes, boxes.categories)
        write_text(out / _INSTANCES, json.dumps(content, indent=1))
    _write_set(out, options.preset, with_boxes=boxes is not None)
    covered = sum(image.alpha for image in rendered.values()) / len(rendered)
    print(
        f"rendered {len(rendered)} images, rain covers {covered:.1%} of their pixels on average; "
        f"results in {out}"
    )


def _sizes(inputs: Sequence[Input]) -> dict[str, tuple[int, int]]:
    """Return (height, width) by match key, of images whose header can be read."""
    sizes = {}
    for item in inputs:
        with contextlib.suppress(ImageError):  # rendering reports it
            sizes[match_key(item.name)] = image_size_hw(item.path)
    return sizes


def _read_boxes(
    path: Path, names: Sequence[str] | None, sizes: Mapping[str, tuple[int, int]]
) -> Annotations:
    """Read annotations and clip their boxes to the images.

    Raises:
        DatasetError: They cannot be read, or fit no image.
    """
    defects = Defects()
    if path.suffix.lower() == ".json":
        annotations = read_coco(path, defects)
    elif names is None:
        raise DatasetError(f"{path}: YOLO labels have only numbers; add --names CLASS ...")
    else:
        annotations = read_yolo(path, dict(enumerate(names)), sizes, defects)
    records = {}
    for key, size_hw in sizes.items():
        record = annotations.find(key)
        if record is None:
            defects.note("image that the annotations do not list", key)
            continue
        if record.size_hw not in (None, size_hw):
            defects.error("image of another size than its annotation says", key)
            continue
        kept = clip_to_image(record.boxes, size_hw, key, defects)
        records[key] = dataclasses.replace(record, boxes=kept)
    for line in defects.lines():
        tqdm.write(f"note: {line}")
    if not records:
        raise DatasetError(f"{path} lists none of the images; are the names the same?")
    return Annotations(annotations.categories, records)


def _job(item: Input, depth: Path | None, boxes: Annotations | None) -> RenderJob:
    name = item.name.with_suffix("").as_posix()
    record = boxes.records.get(match_key(item.name)) if boxes else None
    return RenderJob(
        source=item.path,
        name=name,
        depth=None if depth is None else find_depth(depth, name),
        boxes=[tuple(box["bbox"]) for box in record.boxes] if record else (),
    )


def _write_set(out: Path, preset: str, *, with_boxes: bool) -> None:
    """Write the YAML by which `eval.detect` reads the result."""
    content = {
        "name": f"rain-{preset}",
        "rainy": RAINY,
        "clean": CLEAN,
        "annotations": _INSTANCES if with_boxes else None,
    }
    write_text(out / "set.yaml", yaml.safe_dump(content, sort_keys=False))
