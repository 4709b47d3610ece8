"""The files of a relation run: tables, metrics.json and figures."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from eval.detect.model import part_of
from eval.detect.table import SCORES
from eval.relation.correlations import Correlation
from eval.relation.figures import relation_figure
from eval.relation.gains import GainRow, SetGains, f1_score
from eval.report.facts import RunFacts
from eval.report.files import SCHEMA, write_table
from eval.sets import ALL, DetectionSet
from rainmer.figures import save_figure
from rainmer.files import write_text

__all__ = ["MeasuredSet", "Relation", "write_relation"]

_COUNTS = ("tp", "fp", "fn")


@dataclass(frozen=True)
class MeasuredSet:
    """A measured set.

    Attributes:
        gains: Its gains.
        data: The detection set.
        notes: Remarks on its data for readers of the report.
        total: Images of the set before a limit.
        self_labelled: Whether its truth is the measured detector's detections on clean images.
    """

    gains: SetGains
    data: DetectionSet
    notes: Sequence[str]
    self_labelled: bool
    total: int


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A finished run.

    Attributes:
        detector: Name of the detector that was measured.
        sets: The sets that were measured, at least one.
        correlations: All correlations; see `eval.relation.correlations.correlate`.
        failures: Reasons why sets could not be measured, by set.
        facts: Command, configuration and environment of the run.
    """

    detector: str
    sets: Sequence[MeasuredSet]
    correlations: Sequence[Correlation]
    failures: Mapping[str, str]
    facts: RunFacts

    @property
    def rows(self) -> list[GainRow]:
        """The rows of all sets and conditions, in this order."""
        return [
            row
            for measured in self.sets
            for condition in measured.gains.conditions.values()
            for row in condition.rows
        ]

    @property
    def part(self) -> str:
        """What was measured of the sets, if not all of their images: `12 of 200 images`."""
        parts = [part_of(len(one.gains.image_ids), one.total) for one in self.sets]
        if len(parts) > 1 and any(parts):
            return "the images measured"
        return parts[0]

    @property
    def truths(self) -> dict[str, str]:
        """Descriptions of what detections were scored against, by set."""
        return {measured.gains.name: measured.gains.truth for measured in self.sets}


def write_relation(folder: Path, relation: Relation) -> None:
    """Write everything but the report into the folder of a run.

    relation.csv holds the gains, images.csv the images of each derainer, correlations.csv the
    coefficients, metrics.json everything but the images, relation.svg and relation.png the figure.

    Raises:
        OutputError: A file cannot be written.
    """
    facts = relation.facts
    rows = [row.as_record() for row in relation.rows]
    correlations = [correlation.as_record() for correlation in relation.correlations]
    metrics = {
        "schema": SCHEMA,
        "rows": rows,
        "correlations": correlations,
        "sets": list(map(_describe, relation.sets)),
        "failures": dict(relation.failures),
        "elapsed_s": dict(facts.elapsed_s),
        "config": dict(facts.config),
        "environment": {**facts.environment, "scipy": importlib.metadata.version("scipy")},
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    images = [record for measured in relation.sets for record in _image_records(measured)]
    for name, table in (("relation", rows), ("correlations", correlations), ("images", images)):
        write_table(folder / f"{name}.csv", table)
    write_text(folder / "config.yaml", yaml.safe_dump(dict(facts.config), sort_keys=False))
    figure = relation_figure([row for row in relation.rows if row.condition == ALL])
    for suffix in ("png", "svg"):
        save_figure(folder / f"relation.{suffix}", figure)


def _describe(measured: MeasuredSet) -> dict[str, object]:
    gains = measured.gains
    return {
        "set": gains.name,
        "truth": gains.truth,
        "images": len(gains.image_ids),
        "images_total": measured.total,
        "conditions": {name: len(c.positions) for name, c in gains.conditions.items()},
        "fingerprint": measured.data.fingerprint,
        "notes": list(measured.notes),
        "defects": measured.data.defects.counts(),
    }


def _image_records(measured: MeasuredSet) -> Iterator[dict[str, object]]:
    """Yield a record per image and derainer; equal images have an empty PSNR gain."""
    keys = {sample.image_id: sample.name for sample in measured.data.samples}
    members = _memberships(measured.gains)
    for derainer, images in measured.gains.images.items():
        f1 = np.stack([f1_score(images.counts[:, 0]), f1_score(images.counts[:, 1])])
        gains = {score: images.restoration(f"delta_{score}") for score in SCORES}
        for n, image_id in enumerate(measured.gains.image_ids):
            restored: dict[str, float] = {}
            for score, (rainy, derained) in images.scores.items():
                restored |= {f"{score}_rainy": rainy[n], score: derained[n]}
                restored[f"delta_{score}"] = gains[score][n]
            yield {
                "set": measured.gains.name,
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
    """Return the conditions of each image."""
    names: list[list[str]] = [[] for _ in gains.image_ids]
    for condition, content in gains.conditions.items():
        for position in content.positions:
            names[position].append(condition)
    return names
