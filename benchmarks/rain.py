"""`python -m benchmarks.rain`: images per second of the rain renderer.

Frames are embedded street scenes resized to 640x480. Presets take turns, so that other load on the
machine affects all of them; medians over rounds. On a GPU, batches of 128-px crops are timed too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import cv2
import torch

from eval.street.scene import draw_scene
from rainmer.cli import make_parser, positive_int, run_command
from rainmer.files import write_text
from rainmer.frames.arrays import Frame, to_batch, to_frames
from rainmer.rain import PRESETS, RainRenderer, rain_config

_SIZE_WH = (640, 480)
_CROP = 128
_CROPS = 512


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    torch.set_num_threads(options.threads)
    frames = [cv2.resize(draw_scene(i, night=False).image, _SIZE_WH) for i in range(options.frames)]
    rows = _frames_per_second(frames, options.rounds)
    for preset, rate in rows.items():
        print(f"{preset:12} {rate:7.2f} images/s at 640x480 on {options.threads} CPU threads")
    result = {"threads": options.threads, "torch": torch.__version__, "images_per_s": rows}
    if torch.cuda.is_available():
        result["crops_per_s"] = _crops_per_second(frames[0], options.rounds)
        for preset, rate in result["crops_per_s"].items():
            print(
                f"{preset:12} {rate:9.0f} crops/s of {_CROP} px on {torch.cuda.get_device_name()}"
            )
    if options.out:
        write_text(options.out, json.dumps(result, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks.rain", "Time the rain renderer.", "  python -m benchmarks.rain"
    )
    parser.add_argument("--frames", type=positive_int, default=8)
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--threads", type=positive_int, default=2)
    parser.add_argument("--out", type=Path, metavar="JSON")
    return parser.parse_args()


def _frames_per_second(frames: list[Frame], rounds: int) -> dict[str, float]:
    """Return images per second of each preset: uint8 in, rendered, uint8 out, one at a time."""
    renderers = {preset: RainRenderer(rain_config(preset)) for preset in PRESETS}
    seconds: dict[str, list[float]] = {preset: [] for preset in PRESETS}
    for number in range(rounds + 1):
        for preset, renderer in renderers.items():
            start = time.perf_counter()
            for i, frame in enumerate(frames):
                to_frames(renderer(to_batch([frame]), [str(i)]).rainy)
            if number:  # the first round warms up
                seconds[preset].append(time.perf_counter() - start)
    return {preset: len(frames) / statistics.median(taken) for preset, taken in seconds.items()}


def _crops_per_second(frame: Frame, rounds: int) -> dict[str, float]:
    crops = to_batch([frame[:_CROP, :_CROP]] * _CROPS, "cuda")
    names = [str(i) for i in range(_CROPS)]
    rates = {}
    for preset in PRESETS:
        renderer = RainRenderer(rain_config(preset))
        taken = []
        for number in range(rounds + 1):
            torch.cuda.synchronize()
            start = time.perf_counter()
            renderer(crops, names, frame_width=_SIZE_WH[0])
            torch.cuda.synchronize()
            if number:
                taken.append(time.perf_counter() - start)
        rates[preset] = _CROPS / statistics.median(taken)
    return rates


if __name__ == "__main__":
    run_command(lambda _: main())
