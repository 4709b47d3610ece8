"""The files of a relation run: tables, metrics.json and figures."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from eval.detect.table import SCORES
from eval.relation.figures import relation_figure, save_svg
from eval.relation.gains import SetGains, f1_score
from eval.report.figures import save_png
from eval.report.files import SCHEMA, write_table
from eval.sets import ALL, DetectionSet
from rainmer.files import write_text

__all__ = ["Relation", "SetFacts", "main_rows", "write_relation"]

_COUNTS = ("tp", "fp", "fn")


@dataclass(frozen=True)
class SetFacts:
    """A measured set: its gains, its images, and what a reader must know about its data."""

    gains: SetGains
    data: DetectionSet
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A finished run as plain data.

    Attributes:
        sets: The sets that were measured.
        correlations: Rows of correlations.csv.
        failures: Set to the reason why it could not be measured.
        config: The resolved configuration.
        environment: Versions and devices.
        elapsed: Seconds of each part of the run.
    """

    sets: Sequence[SetFacts]
    correlations: Sequence[dict[str, Any]]
    failures: Mapping[str, str]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    elapsed: Mapping[str, float]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of relation.csv: by set, condition and derainer."""
        return [
            row
            for one in self.sets
            for condition in one.gains.conditions.values()
            for row in condition.rows
        ]


def write_relation(folder: Path, relation: Relation) -> None:
    """Write everything but the report into a run's folder.

    relation.csv holds the gains, images.csv each image of each derainer, correlations.csv the
    coefficients, metrics.json all but the images, relation.svg and relation.png the figure.

    Raises:
        OutputError: A file cannot be written.
    """
    rows, correlations = relation.rows, list(relation.correlations)
    metrics = {
        "schema": SCHEMA,
        "rows": rows,
        "correlations": correlations,
        "sets": [_describe(one) for one in relation.sets],
        "failures": dict(relation.failures),
        "elapsed_s": dict(relation.elapsed),
        "config": dict(relation.config),
        "environment": {**relation.environment, "scipy": importlib.metadata.version("scipy")},
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    images = [row for one in relation.sets for row in _image_rows(one)]
    for name, table in (("relation", rows), ("correlations", correlations), ("images", images)):
        write_table(folder / f"{name}.csv", table)
    write_text(folder / "config.yaml", yaml.safe_dump(dict(relation.config), sort_keys=False))
    figure = relation_figure(main_rows(rows))
    save_png(figure, folder / "relation.png")
    save_svg(figure, folder / "relation.svg")


def main_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows on whole sets."""
    return [row for row in rows if row["condition"] == ALL]


def _describe(one: SetFacts) -> dict[str, Any]:
    return {
        "set": one.gains.name,
        "truth": one.gains.truth,
        "images": len(one.gains.image_ids),
        "conditions": {name: len(c.positions) for name, c in one.gains.conditions.items()},
        "fingerprint": one.data.fingerprint,
        "notes": list(one.notes),
    }


def _image_rows(one: SetFacts) -> Iterator[dict[str, Any]]:
    """Yield each image of each derainer; equal images have no PSNR gain, hence an empty field."""
    keys = {sample.image_id: sample.key for sample in one.data.samples}
    members = _memberships(one.gains)
    for derainer, images in one.gains.images.items():
        f1 = np.stack([f1_score(images.counts[:, 0]), f1_score(images.counts[:, 1])])
        gains = {score: images.restoration(f"delta_{score}") for score in SCORES}
        for n, image_id in enumerate(one.gains.image_ids):
            restored: dict[str, float] = {}
            for score, (rainy, derained) in images.scores.items():
                restored |= {f"{score}_rainy": rainy[n], score: derained[n]}
                restored[f"delta_{score}"] = gains[score][n]
            yield {
                "set": one.gains.name,
                "image": keys[image_id],
                "conditions": "|".join(members[n]),
                "derainer": derainer,
                **restored,
                **{f"{name}_rainy": images.counts[n, 0, k] for k, name in enumerate(_COUNTS)},
                **{name: images.counts[n, 1, k] for k, name in enumerate(_COUNTS)},
                "f1_rainy": f1[0, n],
                "f1": f1[1, n],
                "delta_f1": f1[1, n] - f1[0, n],
            }


def _memberships(gains: SetGains) -> list[list[str]]:
    """Return the conditions that each image belongs to."""
    names: list[list[str]] = [[] for _ in gains.image_ids]
    for condition, content in gains.conditions.items():
        for position in content.positions:
            names[position].append(condition)
    return names
