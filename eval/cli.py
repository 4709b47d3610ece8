"""What the measuring commands share: options, the progress bar, and facts about a run."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from detection.names import DETECTOR_HELP
from rainmer.cli import fraction, non_negative_int, positive_int, progress_bar
from rainmer.files import default_cache_folder

__all__ = [
    "DetectorOptions",
    "RunOptions",
    "add_detector_options",
    "add_run_options",
    "advance",
    "cache_folder",
    "chosen_options",
    "command_line",
    "progress_bar",
    "result_text",
]

_HOW_TO_PRINT = ("quiet", "json")
_SEVERAL = "; several are compared, LABEL=SPEC names one of them"


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """What `add_detector_options` adds beside `detector`: a text, or a list of several, or None."""

    allow_download: bool
    conditions: list[str] | None
    imgsz: int | None
    pseudo_conf: float


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What `add_run_options` adds."""

    limit: int | None
    out: Path | None
    resamples: int
    seed: int
    cache: Path | None
    no_cache: bool
    json: bool
    quiet: bool


def add_detector_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the options that say which detector runs, how, and on which conditions of a set.

    Args:
        parser: The command's parser.
        several: Whether there may be several detectors.
    """
    parser.add_argument(
        "--detector",
        metavar="SPEC",
        nargs="+" if several else None,
        help=f"{DETECTOR_HELP}; "
        "street and street-rain are the embedded ones, trained on dry and on rainy scenes; "
        f"default: street{_SEVERAL if several else ''}",
    )
    parser.add_argument(
        "--allow-download", action="store_true", help="fetch published detector weights by name"
    )
    parser.add_argument("--conditions", nargs="+", metavar="NAME", help="only these conditions")
    parser.add_argument(
        "--imgsz",
        type=positive_int,
        help="longer side of the detector's input in pixels; default: 640 for YOLOs, otherwise the "
        "network's own",
    )
    parser.add_argument(
        "--pseudo-conf",
        type=fraction,
        default=0.25,
        help="confidence of pseudo-labels, for sets without boxes",
    )


def add_run_options(
    parser: argparse.ArgumentParser, *, out: str, limit: str, printed: str = "the rows as JSON"
) -> None:
    """Add the options that say where results go, how much is measured, and what is printed.

    Args:
        parser: The command's parser.
        out: The default folder, in words.
        limit: What a limit counts, in words.
        printed: What `--json` prints, in words.
    """
    parser.add_argument("--limit", type=positive_int, metavar="N", help=f"at most N {limit}")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"default: {out}")
    parser.add_argument(
        "--resamples",
        type=non_negative_int,
        default=1000,
        help="bootstrap resamples; 0: no intervals",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="seed of the bootstrap")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where derained frames are kept")
    parser.add_argument("--no-cache", action="store_true", help="keep no derained frames")
    parser.add_argument("--json", action="store_true", help=f"print {printed}")
    parser.add_argument("--quiet", action="store_true", help="no progress, warnings only")


def cache_folder(options: RunOptions) -> Path | None:
    """Return the root of the cache of derained frames; None without one."""
    return None if options.no_cache else Path(options.cache or default_cache_folder())


def chosen_options(options: RunOptions) -> dict[str, object]:
    """Return the options as plain data, without those that only change what is printed."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in sorted(vars(options).items())
        if name not in _HOW_TO_PRINT
    }


def command_line(module: str, argv: Sequence[str] | None) -> str:
    """Return the command as it could be typed again."""
    return shlex.join(["python", "-m", module, *(argv or sys.argv[1:])])


def result_text(folder: Path, lines: Iterable[str], *, as_json: bool) -> str:
    """Return what a command prints: metrics.json of its folder, or lines and the report's path."""
    if as_json:
        return (folder / "metrics.json").read_text(encoding="utf-8").removesuffix("\n")
    return "\n".join([*lines, f"report: {folder / 'report.html'}"])


def advance(bar: tqdm[Any], label: str, images: int) -> None:
    """Add finished images to the bar, and show the label of their row."""
    bar.set_description(label, refresh=False)
    bar.update(images)
