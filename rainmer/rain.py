"""`python -m rainmer.rain INPUT ... --out DIR --preset night --rate 50`: render rain.

Images become pairs of rainy image and clean target, with masks; with `--boxes` also a set that
`eval.detect` reads. Videos become rainy videos whose drops fall through space.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from tqdm import tqdm

from rainmer.cli import make_parser, non_negative_int, positive_int, resolve_device, run_command
from rainmer.config import read_yaml
from rainmer.data.annotations import Annotations, Defects, clip_to_image, read_coco, read_yolo
from rainmer.data.depth import find_depth
from rainmer.data.rain import PRESETS, RainConfig, RainRenderer, rain_config
from rainmer.data.rain.folder import CLEAN, RAINY, RenderJob, render_folder
from rainmer.data.rain.instances import RenderedScene, rendered_instances
from rainmer.data.rain.night import is_day
from rainmer.errors import ConfigError, DatasetError, ImageError, OutputError
from rainmer.files import make_folder, match_key, write_text
from rainmer.frames import Frame, image_size_hw, read_image, to_batch, to_frames
from rainmer.inputs import Input, find_inputs, raise_failures, real_path
from rainmer.video import WRITABLE_SUFFIXES, VideoWriter, is_video, open_video

__all__ = ["main"]

_EXAMPLE = """\
  python -m rainmer.rain photos/ --out rainy-night --preset night --rate 50 --seed 0
  python -m rainmer.rain images/ --out set --preset day-heavy --boxes instances.json
  python -m rainmer.rain drive.mp4 --out wet --preset day --video"""

_INSTANCES = "instances.json"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError for what the user can mend."""
    options = _parse(argv)
    renderer = RainRenderer(_config(options), seed=options.seed)
    inputs = _inputs(options)
    device = resolve_device(options.device)
    failures: list[str] = []
    clips = [one for one in inputs if is_video(one.path) or options.video is not None]
    stills = [one for one in inputs if one not in clips]
    if stills:
        _render_stills(stills, renderer, options, device, failures)
    for clip in clips:
        try:
            _render_input(clip, renderer, options, device, failures)
        except ImageError as error:
            failures.append(str(error))
    raise_failures(failures, len(inputs))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "python -m rainmer.rain",
        "Render rain on clean images and videos. DIR gets rainy/, clean/ (the targets; night "
        "presets relight day images) and alpha/ (how much of each pixel rain covers).",
        _EXAMPLE,
    )
    parser.add_argument(
        "input", nargs="+", metavar="IMAGES", help="image, video, folder, or a glob in quotes"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    parser.add_argument("--preset", default="day", help=f"{', '.join(PRESETS)}; default: day")
    parser.add_argument(
        "--rate", type=float, metavar="MM_H", help="rain rate in mm/h; default: the preset's range"
    )
    parser.add_argument(
        "--rain", type=Path, metavar="YAML", help="fields of RainConfig that differ from the preset"
    )
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="another seed, other rain; default: 0"
    )
    parser.add_argument(
        "--boxes", type=Path, metavar="FILE", help="COCO JSON, or a folder of YOLO labels"
    )
    parser.add_argument("--names", nargs="+", metavar="CLASS", help="class names of YOLO labels")
    parser.add_argument(
        "--depth", type=Path, metavar="DIR", help="depth maps: .png of 16 bits in cm, .npy in m"
    )
    parser.add_argument(
        "--video",
        nargs="?",
        const=2.0,
        type=_seconds,
        metavar="SECONDS",
        help="make a clip of each image, of so many seconds (default: 2); videos always are",
    )
    parser.add_argument(
        "--fps", type=_seconds, default=25.0, help="frames per second of clips; default: 25"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N inputs")
    parser.add_argument("--device", help="cpu, cuda, ...; default: the best")
    parser.add_argument(
        "--batch", type=positive_int, default=4, metavar="N", help="images of one size at once"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(argv)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not within 0..3600")
    return value


def _config(options: argparse.Namespace) -> RainConfig:
    changes = {} if options.rain is None else read_yaml(options.rain)
    if "preset" in changes:
        raise ConfigError(f"{options.rain}: preset: give it as --preset")
    if options.rate is not None:
        changes["rate_mm_h"] = options.rate
    return rain_config(options.preset, **changes)


def _inputs(options: argparse.Namespace) -> list[Input]:
    """Return the inputs, each once, with results of their own."""
    found: dict[Path, Input] = {}
    for text in options.input:
        if os.path.isdir(text) and real_path(Path(text)) == real_path(options.out):
            raise OutputError(f"--out is the input folder {text} itself: choose another folder")
        for one in find_inputs(text, options.out):
            found.setdefault(real_path(one.path), one)
    by_key: dict[str, Input] = {}
    for one in found.values():
        other = by_key.setdefault(match_key(one.name), one)
        if other is not one:
            raise OutputError(
                f"{other.path} and {one.path} would get results of the same name: "
                "render them into different folders"
            )
    return list(found.values())[: options.limit]


# --- images ---------------------------------------------------------------------------------------


def _render_stills(
    inputs: Sequence[Input],
    renderer: RainRenderer,
    options: argparse.Namespace,
    device: torch.device,
    failures: list[str],
) -> None:
    out: Path = make_folder(options.out)
    sizes = _sizes(inputs)
    boxes = None if options.boxes is None else _read_boxes(options, sizes)
    jobs = [_job(one, options.depth, boxes) for one in inputs]
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
    _write_set(out, options, with_boxes=boxes is not None)
    covered = sum(image.alpha for image in rendered.values()) / len(rendered)
    print(
        f"rendered {len(rendered)} images, rain covers {covered:.1%} of their pixels on average; "
        f"results in {out}"
    )


def _sizes(inputs: Sequence[Input]) -> dict[str, tuple[int, int]]:
    """Return (height, width) by match key; what has no readable header fails later, with others."""
    sizes = {}
    for one in inputs:
        try:
            sizes[match_key(one.name)] = image_size_hw(one.path)
        except ImageError:
            continue
    return sizes


def _read_boxes(options: argparse.Namespace, sizes: Mapping[str, tuple[int, int]]) -> Annotations:
    """Read annotations, cut at the borders of the images they are of.

    Raises:
        DatasetError: They cannot be read, or fit no image.
    """
    defects = Defects()
    if options.boxes.suffix.lower() == ".json":
        annotations = read_coco(options.boxes, defects)
    elif options.names is None:
        raise DatasetError(f"{options.boxes}: YOLO labels have only numbers; add --names CLASS ...")
    else:
        annotations = read_yolo(options.boxes, dict(enumerate(options.names)), sizes, defects)
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
        raise DatasetError(f"{options.boxes} lists none of the images; are the names the same?")
    return Annotations(annotations.categories, records)


def _job(one: Input, depth: Path | None, boxes: Annotations | None) -> RenderJob:
    name = one.name.with_suffix("").as_posix()
    record = boxes.records.get(match_key(one.name)) if boxes else None
    return RenderJob(
        source=one.path,
        name=name,
        depth=None if depth is None else find_depth(depth, name),
        boxes=[tuple(box["bbox"]) for box in record.boxes] if record else (),
    )


def _write_set(out: Path, options: argparse.Namespace, *, with_boxes: bool) -> None:
    """Write the YAML by which `eval.detect` reads the result."""
    content = {
        "name": f"rain-{options.preset}",
        "rainy": RAINY,
        "clean": CLEAN,
        "annotations": _INSTANCES if with_boxes else None,
    }
    write_text(out / "set.yaml", yaml.safe_dump(content, sort_keys=False))


# --- videos ---------------------------------------------------------------------------------------


class _Clip(NamedTuple):
    """Frames to render one after the other."""

    name: Path
    frames: Iterator[Frame]
    length: int
    size_hw: tuple[int, int]
    fps: float


def _render_input(
    one: Input,
    renderer: RainRenderer,
    options: argparse.Namespace,
    device: torch.device,
    failures: list[str],
) -> None:
    """Render a video, or an image as one that stands still, with its clean target beside it."""
    if not is_video(one.path):
        frame = read_image(one.path)
        height, width = (side - side % 2 for side in frame.shape[:2])  # as codecs want them
        count = max(1, round(options.video * options.fps))
        frames = itertools.repeat(frame[:height, :width], count)
        clip = _Clip(one.name, frames, count, (height, width), options.fps)
        _render_clip(clip, renderer, options, device)
        return
    with open_video(one.path) as video:
        clip = _Clip(one.name, iter(video), video.frame_count, video.size_hw, video.fps)
        _render_clip(clip, renderer, options, device)
        if video.early_end:
            failures.append(video.early_end)


def _render_clip(
    clip: _Clip, renderer: RainRenderer, options: argparse.Namespace, device: torch.device
) -> None:
    suffix = clip.name.suffix.lower()
    name = clip.name.with_suffix(suffix if suffix in WRITABLE_SUFFIXES else ".mp4")
    done = 0
    with (
        VideoWriter(options.out / RAINY / name, fps=clip.fps, size_hw=clip.size_hw) as rainy,
        VideoWriter(options.out / CLEAN / name, fps=clip.fps, size_hw=clip.size_hw) as clean,
        tqdm(total=clip.length, unit="frame", disable=options.quiet, delay=2) as bar,
    ):
        while chunk := list(itertools.islice(clip.frames, options.batch)):
            batch = to_batch(chunk, device)
            if done == 0:
                renderer = _fixed_light(renderer, batch)
            times = (torch.arange(len(chunk)) + done) / clip.fps
            rendering = renderer(batch, [clip.name.as_posix()] * len(chunk), time_s=times)
            for frame in to_frames(rendering.rainy):
                rainy.write(frame)
            for frame in to_frames(rendering.clean):
                clean.write(frame)
            done += len(chunk)
            bar.update(len(chunk))
    print(f"rendered {done} frames; results in {options.out / RAINY / name}")


def _fixed_light(renderer: RainRenderer, batch: torch.Tensor) -> RainRenderer:
    """Decide once for a whole video whether it is relit."""
    if renderer.config.relight != "auto":
        return renderer
    config = dataclasses.replace(
        renderer.config, relight="always" if bool(is_day(batch[:1])) else "never"
    )
    return RainRenderer(config, seed=renderer.seed)


if __name__ == "__main__":
    run_command(main)
