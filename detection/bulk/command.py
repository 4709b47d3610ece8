"""A run of `python -m detection.bulk`, from its options to what it prints."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from detection.bulk.fleet import fleet, local_gpus, plan_fleet
from detection.bulk.job import SUMMARY, Tally, open_job
from detection.bulk.options import BulkOptions
from detection.bulk.parts import BOXES, Part, find_parts, known_ids, remaining
from detection.bulk.places import Entry, Place
from detection.bulk.reading import Columns, check_columns
from detection.bulk.units import Unit, find_entries, kind_of, make_units, part_size
from detection.bulk.worker import Settings, make_detector
from rainmer.cli import progress_bar, stage_options
from rainmer.console import printable
from rainmer.errors import OutputError
from rainmer.stage.results import make_derainer

__all__ = ["run"]

_SAVE_S = 2.0  # between summaries of a run that goes on


def run(options: BulkOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the arguments, a folder of results that belongs to another job,
            or what an actor could not do. What is written so far is kept, and the same command
            goes on. Images that cannot be decoded are no error: their rows say why.
    """
    source, out = Place(_absolute(options.input)), Place(_absolute(options.out))
    entries = find_entries(source, out)[: options.limit]
    columns = Columns(options.image_column, options.id_column)
    _check_first_table(source, entries, columns)
    settings = _settings(options, source, out, columns)
    part = open_job(out, _identity(options, settings), _part(options, entries))
    units = make_units(source, entries, options.part or part)
    parts = find_parts(out.names(BOXES))
    tally = Tally(_rows(parts))
    left = remaining(units, parts)
    summary = tally.summary(complete=True)
    if left:
        others = {key: found for key, found in parts.items() if key not in {u.key for u in units}}
        known = known_ids(out, others)
        _work(options, left, replace(settings, known=known), tally, out, _total(units))
        _check_whole(out, units)
        summary = tally.save(out, complete=True)
    _print(summary, out)


def _absolute(address: str) -> str:
    return address if "://" in address else os.path.abspath(address)


def _part(options: BulkOptions, entries: Sequence[Entry]) -> int:
    return options.part or part_size(entries, plan_fleet(options, local_gpus(options))[0])


def _check_first_table(source: Place, entries: Sequence[Entry], columns: Columns) -> None:
    """Raise DatasetError if the first Parquet file has no such columns: no other will have them."""
    for entry in entries:
        if kind_of(entry.path or source.root) == "parquet":
            check_columns(source, entry.path, columns)
            return


def _settings(options: BulkOptions, source: Place, out: Place, columns: Columns) -> Settings:
    stage = stage_options(options)
    if stage["device"] is not None:  # of the GPUs, an actor sees its own only
        stage["device"] = str(stage["device"]).partition(":")[0]
    detector = options.detector
    return Settings(
        source=source.address,
        out=out.address,
        folder=os.getcwd(),
        derain=options.derain,
        gate=options.gate,
        stage=stage,
        detector=os.path.abspath(detector) if os.path.exists(detector) else detector,
        detection=options.detector_options,
        columns=columns,
        stretch=options.stretch,
        max_pixels=options.max_pixels,
        save=options.save_derained,
        threads=1,
    )


def _identity(options: BulkOptions, settings: Settings) -> dict[str, Any]:
    """Return all that results depend on: not the batch, the device, or the fleet.

    The networks are loaded for that, which also finds what would fail in every actor.
    """
    stage = {**settings.stage, "device": "cpu", "precision": "fp32", "compiled": False}
    derainer = make_derainer(options.derain, gate=options.gate, **stage)
    detector = make_detector(settings, "cpu")
    identity = {
        "input": Place(settings.source).shown,
        "derainer": derainer.name,
        "derainer_fingerprint": derainer.fingerprint,
        "gate": options.gate,
        "precision": options.precision,
        "detector": detector.name,
        "detector_digest": _digest(settings.detector, detector),
        **{k: v for k, v in settings.detection.items() if k != "allow_download"},
        "stretch": options.stretch,
        "columns": [options.image_column, options.id_column],
        "save_derained": options.save_derained,
        "max_pixels": options.max_pixels,
        "names": detector.names,
    }
    return cast("dict[str, Any]", json.loads(json.dumps(identity)))


def _digest(path: str, detector: object) -> str:
    """Return what changes with a detector's weights.

    Those of ultralytics have a file, or an export that is a folder; the others say it themselves.
    """
    own = getattr(detector, "fingerprint", None)
    if own is not None:
        return str(own)
    from detection.yolo.harness import file_fingerprint  # ultralytics is in use already

    return file_fingerprint(path)


def _rows(parts: Mapping[str, Sequence[Part]]) -> int:
    return sum(part.rows for found in parts.values() for part in found)


def _total(units: Sequence[Unit]) -> int | None:
    """Return the number of images, if it is known before shards are read."""
    folders = all(unit.kind == "images" for unit in units)
    return sum(len(unit.paths) for unit in units) if folders else None


def _work(
    options: BulkOptions,
    units: Sequence[Unit],
    settings: Settings,
    tally: Tally,
    out: Place,
    total: int | None,
) -> None:
    """Let the fleet process the units that are left, and show and save how far it is."""
    saved = 0.0
    with (
        fleet(options, len(units)) as pool,
        progress_bar(total, quiet=options.quiet) as bar,
    ):
        bar.update(tally.earlier)
        settings = replace(settings, threads=pool.cpus)
        try:
            with contextlib.closing(pool.reports(units, settings)) as reports:
                for report in reports:
                    tally.add(report)
                    rate = f"{len(tally.actors)} actors, {tally.rate:.1f}/s"
                    bar.set_postfix_str(rate, refresh=False)
                    bar.update(int(report["images"]))
                    if time.monotonic() - saved > _SAVE_S:
                        tally.save(out, complete=False)
                        saved = time.monotonic()
        except BaseException:
            with contextlib.suppress(OutputError):  # a full disk may have been the reason
                tally.save(out, complete=False)
            raise


def _check_whole(out: Place, units: Sequence[Unit]) -> None:
    """Look at the results once more: whoever removes files there meanwhile is told."""
    if left := remaining(units, find_parts(out.names(BOXES))):
        raise OutputError(
            f"{out}/{BOXES} lacks results of {len(left)} shards or groups of images that were "
            "written; the same command writes them again"
        )


def _print(summary: dict[str, Any], out: Place) -> None:
    done = summary["this_run"]
    print(f"{summary['images']} images, {summary['earlier']} of them in earlier runs")
    if done["images"]:
        print(
            f"{done['boxes']} boxes, {done['derained']} images derained, {done['failed']} not "
            f"decoded; {done['images_per_s']:.2f} images/s, {done['wall_s']:.1f} s in all"
        )
    if done["begun_again"]:
        print(f"actors died: {done['begun_again']} shards or groups of images were begun again")
    for name, actor in done["actors"].items():
        print(f"  {name}: {actor['images']} images, {actor['images_per_s']:.2f} images/s")
    for reason in done["reasons"]:
        print(printable(f"not decoded: {reason}"))
    print(f"results in {out}/{BOXES}, numbers in {out}/{SUMMARY}")
