"""The files of a run: metrics.json, CSV tables, predictions, and the environment they came from."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

import rainmer
from eval.comparison import Comparison
from rainmer.files import write_text

__all__ = ["SCHEMA", "describe_environment", "write_comparison"]

SCHEMA = 1
"""Number of the form of metrics.json; it grows when a field changes its meaning."""

_PACKAGES = ("torch", "ultralytics", "pycocotools", "opencv-python", "numpy", "pandas")


def describe_environment(device: torch.device) -> dict[str, Any]:
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


def write_comparison(
    folder: Path,
    comparison: Comparison,
    *,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    elapsed: Mapping[str, float],
) -> None:
    """Write everything but the report of a comparison into a run's folder.

    metrics.json and metrics.csv hold the rows (fractions 0..1; equal images have PSNR "inf"),
    per_class.csv the classes, images.csv each image of each row, predictions/*.json COCO results
    beside the truth they were scored against, config.yaml the resolved configuration.

    Raises:
        OutputError: A file cannot be written.
    """
    rows = [_json_row(row) for row in comparison.table]
    metrics = {
        "schema": SCHEMA,
        "set": comparison.data.name,
        "pseudo_labels": comparison.pseudo_labels,
        "rows": rows,
        "notes": comparison.notes,
        "elapsed_s": dict(elapsed),
        "config": dict(config),
        "environment": dict(environment),
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    write_text(folder / "metrics.csv", pd.DataFrame(rows).to_csv(index=False))
    write_text(folder / "per_class.csv", pd.DataFrame(comparison.per_class).to_csv(index=False))
    write_text(folder / "images.csv", pd.DataFrame(_image_rows(comparison)).to_csv(index=False))
    write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
    predictions = folder / "predictions"
    truth = {**comparison.truth.to_coco(), "images": _coco_images(comparison)}
    write_text(predictions / "truth.json", json.dumps(truth))
    written = {"truth.json"}
    for row in comparison.rows:
        written.add(f"{row.spec.label}.json")
        write_text(predictions / f"{row.spec.label}.json", json.dumps(list(row.results)))
    for path in predictions.glob("*.json"):
        if path.name not in written:
            path.unlink()  # of a row that this run no longer has


def _json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: "inf" if isinstance(value, float) and math.isinf(value) else value
        for key, value in row.items()
    }


def _coco_images(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "id": sample.image_id,
            "file_name": sample.key,
            "height": sample.size_hw[0],
            "width": sample.size_hw[1],
        }
        for sample in comparison.data.samples
    ]


def _image_rows(comparison: Comparison) -> Iterable[dict[str, Any]]:
    for row in comparison.rows:
        for sample in comparison.data.samples:
            result = row.images[sample.image_id]
            yield {
                "image": sample.key,
                "input": row.spec.input,
                "derainer": row.spec.derainer_name,
                **result.scores,
                "ms_derain": result.derain_ms,
                "ms_detect": result.detect_ms,
            }
