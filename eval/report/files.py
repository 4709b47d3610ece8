"""The files that every measuring command writes, and the environment that numbers came from."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
import torch

import rainmer
from rainmer.files import write_text

__all__ = ["SCHEMA", "describe_environment", "now", "write_metrics", "write_table"]

SCHEMA = 1
"""Number of the form of metrics.json; it grows when a field changes its meaning."""

_PACKAGES = ("torch", "ultralytics", "pycocotools", "opencv-python", "numpy", "pandas")


def describe_environment(device: torch.device) -> dict[str, object]:
    """Return versions and hardware: what a reader needs to judge the times."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    on_gpu = device.type == "cuda"
    return {
        "rainmer": rainmer.__version__,
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(terse=True),
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "cpu": _cpu_name(),
        "cpu_threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def now() -> str:
    """Return the time in words, to the minute."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def write_metrics(
    folder: Path, rows: Iterable[Mapping[str, object]], facts: Mapping[str, object]
) -> None:
    """Write metrics.json and metrics.csv.

    Args:
        folder: The run's folder.
        rows: Flat rows; infinite numbers are written as "inf", undefined ones are None.
        facts: What else metrics.json holds, in this order; `rows` marks where rows go.

    Raises:
        OutputError: A file cannot be written.
    """
    plain = [_plain(row) for row in rows]
    metrics = {"schema": SCHEMA, **facts, "rows": plain}
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    write_table(folder / "metrics.csv", plain)


def write_table(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as CSV. Raises OutputError."""
    write_text(path, pd.DataFrame(list(rows)).to_csv(index=False))


def _plain(row: Mapping[str, object]) -> dict[str, object]:
    return {
        key: "inf" if isinstance(value, float) and math.isinf(value) else value
        for key, value in row.items()
    }
