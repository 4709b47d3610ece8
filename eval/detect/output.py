"""The files of a detection run: metrics.json, CSV tables, predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from eval.detect.comparison import Comparison
from eval.report.facts import RunFacts
from eval.report.files import write_metrics, write_table
from rainmer.files import safe_file_name, write_text
from rainmer.folders import list_files

__all__ = ["write_comparison", "write_cut"]


def write_comparison(
    folder: Path, comparison: Comparison, facts: RunFacts, more: Mapping[str, object]
) -> None:
    """Write everything of a comparison but its report into a run's folder.

    metrics.json and metrics.csv hold the rows (fractions 0..1; equal images have PSNR "inf"),
    per_class.csv the classes, images.csv each image of each row, predictions/*.json COCO results
    beside the truth they were scored against, config.yaml the resolved configuration. `more` is
    what metrics.json holds beside that.

    Raises:
        OutputError: A file cannot be written.
    """
    head = {
        "set": comparison.data.name,
        "pseudo_labels": comparison.pseudo_labels,
        "rows": [],
        **more,
        "notes": list(facts.notes),
        "defects": comparison.data.defects.counts(),
        "elapsed_s": dict(facts.elapsed_s),
        "config": dict(facts.config),
        "environment": dict(facts.environment),
    }
    rows = ({**row.flat(), **facts.timed_on_columns} for row in comparison.table)
    write_metrics(folder, rows, head)
    write_table(folder / "per_class.csv", (row.flat() for row in comparison.per_class))
    write_table(folder / "images.csv", _image_rows(comparison))
    write_text(folder / "config.yaml", yaml.safe_dump(dict(facts.config), sort_keys=False))
    predictions = folder / "predictions"
    truth = {**comparison.truth.to_coco(), "images": _coco_images(comparison)}
    write_text(predictions / "truth.json", json.dumps(truth))
    _write_results(predictions, {row.spec.label: row.results for row in comparison.rows})


def write_cut(folder: Path, results: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    """Write the results of each row at equal false alarms, by its label, into their own folder.

    Without any, those of an earlier run are removed.

    Raises:
        OutputError: A file cannot be written.
    """
    _write_results(folder / "predictions-equal", results)


def _write_results(folder: Path, results: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    written = {"truth.json"}
    for label, detections in results.items():
        name = f"{safe_file_name(label)}.json"
        written.add(name)
        write_text(folder / name, json.dumps(list(detections)))
    for path in list_files(folder, {".json"}) if folder.is_dir() else ():
        if path.name not in written:
            path.unlink()  # of a row that this run no longer has


def _coco_images(comparison: Comparison) -> list[dict[str, object]]:
    return [
        {
            "id": sample.image_id,
            "file_name": sample.name,
            "height": sample.size_hw[0],
            "width": sample.size_hw[1],
        }
        for sample in comparison.data.samples
    ]


def _image_rows(comparison: Comparison) -> Iterable[dict[str, object]]:
    for row in comparison.rows:
        for sample in comparison.data.samples:
            result = row.images[sample.image_id]
            yield {
                "image": sample.name,
                "input": row.spec.input,
                "derainer": row.spec.derainer_name,
                **result.scores,
                "ms_derain": result.derain_ms,
                "ms_detect": result.detect_ms,
                "derain_earlier": result.derain_earlier,
                "detect_earlier": result.detect_earlier,
                "derained": None if result.derained is None else int(result.derained),
            }
