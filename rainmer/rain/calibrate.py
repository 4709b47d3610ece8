"""`python -m rainmer.rain.calibrate IMAGES`: how the rain of each preset compares with real sets.

Renders every preset into a folder of clean photos and prints the median properties by which
Rainmer's authors compare data sets, beside the published medians.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from rainmer.cli import (
    make_parser,
    non_negative_int,
    parse_options,
    positive_int,
    run_command,
    set_threads,
)
from rainmer.data.properties import PUBLISHED, Band, PairProperties, measure_pair
from rainmer.device import resolve_device
from rainmer.errors import ImageError
from rainmer.files import write_text
from rainmer.frames.arrays import to_batch, to_frames
from rainmer.frames.images import list_images, read_image
from rainmer.rain import PRESETS, RainRenderer, rain_config

__all__ = ["main"]

TARGETS = {
    "day": "GT-Rain",
    "day-heavy": "GT-Rain",
    "drizzle": "GT-Rain",
    "windscreen": "GT-Rain",
    "spray": "GT-Rain",
    "night": "GTAV-balance",
    "night-heavy": "GTAV-balance",
    "streaks": "SynRain",
    "layers": "SynRain",
}
"""The published set that each preset is compared with."""

_LABELS = {
    "clean_luminance": "clean luminance (0..255)",
    "luminance_change": "luminance change",
    "density": "density",
    "gradient": "residual gradient",
    "colourfulness": "colourfulness",
    "psnr_db": "PSNR (dB)",
    "clean_entropy": "clean entropy (bits)",
    "rainy_entropy": "rainy entropy (bits)",
}
_EXAMPLE = "  python -m rainmer.rain.calibrate photos/ --presets day night --limit 100"


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """Options of the command."""

    images: Path
    presets: list[str]
    rate: float | None
    seed: int
    limit: int | None
    device: torch.device
    out: Path | None
    quiet: bool


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError if photos cannot be read or results not written."""
    options = _parse(argv)
    set_threads()
    paths = list_images(options.images)
    if not paths:
        raise ImageError(f"{options.images} holds no image")
    count = min(options.limit or len(paths), len(paths))
    paths = [paths[i * len(paths) // count] for i in range(count)]
    results = {}
    for preset in options.presets:
        config = rain_config(
            preset, **({} if options.rate is None else {"rate_mm_h": options.rate})
        )
        renderer = RainRenderer(config, seed=options.seed)
        results[preset] = [
            _measure(renderer, path, options.device)
            for path in tqdm(paths, desc=preset, unit="image", disable=options.quiet)
        ]
        print(_table(preset, results[preset]), flush=True)
    if options.out:
        rows = {name: [asdict(pair) for pair in pairs] for name, pairs in results.items()}
        write_text(options.out, json.dumps(rows, indent=1))


def _parse(argv: Sequence[str] | None) -> CalibrateOptions:
    parser = make_parser(
        "python -m rainmer.rain.calibrate",
        "Render presets into clean photos and compare properties with those of published sets.",
        _EXAMPLE,
    )
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of clean photos")
    parser.add_argument("--presets", nargs="+", choices=sorted(PRESETS), default=sorted(PRESETS))
    parser.add_argument("--rate", type=float, metavar="MM_H", help="rain rate instead of presets'")
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.add_argument("--limit", type=positive_int, metavar="N", help="at most N photos")
    parser.add_argument("--device", type=resolve_device, default="cpu")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the numbers of each pair")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parse_options(parser, CalibrateOptions, argv)


def _measure(renderer: RainRenderer, path: Path, device: torch.device) -> PairProperties:
    rendering = renderer(to_batch([read_image(path)], device), [path.name])
    return measure_pair(to_frames(rendering.rainy)[0], to_frames(rendering.clean)[0])


def _table(preset: str, pairs: Sequence[PairProperties]) -> str:
    """Return a Markdown table of one preset."""
    target = TARGETS[preset]
    lines = [
        f"\n{preset}: {len(pairs)} photos, against {target}\n",
        f"| property | p5 | median | p95 | {target}: p5 | median | p95 | median inside |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | :---: |",
    ]
    for name, label in _LABELS.items():
        rendered = _band([getattr(pair, name) for pair in pairs])
        published = PUBLISHED[target].get(name)
        lines.append(_line(label, rendered, published))
    return "\n".join(lines)


def _band(values: Sequence[float | None]) -> Band:
    known = sorted(value for value in values if value is not None and math.isfinite(value))
    if len(known) < 2:
        return Band(math.nan, known[0] if known else math.nan, math.nan)
    cuts = statistics.quantiles(known, n=20, method="inclusive")
    return Band(cuts[0], statistics.median(known), cuts[-1])


def _line(label: str, rendered: Band, published: Band | None) -> str:
    cells = [label, *(f"{value:.3g}" for value in rendered)]
    if published is None:
        return "| " + " | ".join([*cells, "", "", "", ""]) + " |"
    inside = "yes" if published.low <= rendered.median <= published.high else "**no**"
    return "| " + " | ".join([*cells, *(f"{value:.3g}" for value in published), inside]) + " |"


if __name__ == "__main__":
    run_command(main)
