"""A run of the command: it measures all derainers, set by set."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from detection.specs import MeasuredDetector, detector_name, detector_title, load_measured
from detection.timing import StageTimes
from eval.cli import (
    advance,
    cache_folder,
    chosen_options,
    progress_bar,
)
from eval.detect.comparison import compare
from eval.detect.table import Settings
from eval.relation.correlations import Correlation, correlate
from eval.relation.gains import measure_gains
from eval.relation.labels import label_set
from eval.relation.options import RelationOptions
from eval.relation.output import MeasuredSet, Relation
from eval.report.facts import RunFacts
from eval.report.files import describe_environment, now
from eval.report.tables import CONTROLS
from eval.rows.cache import RowDerainer
from eval.rows.derainers import Derainers
from eval.rows.run import RowSpec
from eval.sets import DetectionSet, load_set
from eval.street.detector import detector_file
from eval.street.embedded import street_set
from rainmer.cli import stage_options
from rainmer.device import resolve_device, usable_cpus
from rainmer.errors import DatasetError, OutputError, RainmerError
from rainmer.files import make_folder, safe_file_name
from rainmer.stage.specs import DEFAULT_DERAINER

__all__ = ["Bench", "measure_sets", "relate", "set_up"]

_LONGEST_NAME = 80
_SHOWN = ("input size", "detections from confidence", "NMS IoU")  # of the detector's protocol


@dataclass
class Bench:
    """What all sets share, and the measurements so far.

    Attributes:
        options: The options of the command.
        detector_name: Name or file of the detector's weights.
        detector: The detector that is measured.
        labeller: The detector that labels sets without boxes; None: `detector`.
        derainers: The derainers to compare.
        sets: The sets to measure.
        totals: Images of each set before a limit.
        folder: Folder of the results.
        failures: Reasons why sets cannot be measured, by set.
        measured: The sets measured so far.
        times: Times of decoding and detecting, in milliseconds.
        derain_s: Seconds spent in derainers.
        started: `time.perf_counter` when the run began.
    """

    options: RelationOptions
    detector_spec: str
    detector: MeasuredDetector
    labeller: MeasuredDetector | None
    derainers: Derainers
    sets: list[DetectionSet]
    totals: dict[str, int]
    folder: Path
    failures: dict[str, str]
    started: float
    measured: list[MeasuredSet] = field(default_factory=list)
    times: StageTimes = field(default_factory=StageTimes)
    derain_s: float = 0.0


def set_up(options: RelationOptions) -> Bench:
    """Load detectors, derainers and sets, so that mistakes end the run early.

    Raises:
        RainmerError: A spec or a weights file is unusable, or all sets are.
    """
    started = time.perf_counter()
    device = resolve_device(options.device)
    spec = detector_file(options.detector or "street")

    def load(spec: str) -> MeasuredDetector:
        return load_measured(
            spec, device, imgsz=options.imgsz, allow_download=options.allow_download
        )

    detector = load(spec)
    labeller = load(options.labeller) if options.labeller else None
    specs = [] if options.derain is None else options.derain or [DEFAULT_DERAINER]
    controls = () if options.no_control else CONTROLS
    derainers = Derainers(
        list(dict.fromkeys([*specs, *controls])), stage_options(options), cache_folder(options)
    )
    if not derainers.names:
        raise RainmerError("--no-control and no --derain: there is nothing to compare")
    sets, totals, failures = _load_sets(options)
    derainers.check_names(sets)
    name = _run_name([data.name for data in sets], detector_name(spec))
    return Bench(
        options=options,
        detector_spec=spec,
        detector=detector,
        labeller=labeller,
        derainers=derainers,
        sets=sets,
        totals=totals,
        folder=make_folder(options.out or Path("runs", "relation", safe_file_name(name))),
        failures=failures,
        started=started,
    )


def _load_sets(
    options: RelationOptions,
) -> tuple[list[DetectionSet], dict[str, int], dict[str, str]]:
    """Read every set; also return their sizes, and why other sets cannot be used."""
    files: Sequence[str | Path] = options.sets or [
        street_set(processes=usable_cpus(), quiet=options.quiet)
    ]
    sets: dict[str, DetectionSet] = {}
    totals: dict[str, int] = {}
    failures: dict[str, str] = {}
    for file in dict.fromkeys(map(str, files)):
        try:
            data = load_set(file, quiet=options.quiet)
            data = data.restricted(options.conditions)
            total = len(data.samples)
            data = data.restricted(limit=options.limit)
            if not data.has_clean:
                raise DatasetError(f"{data.name} has no clean images, hence no PSNR to relate")
            if data.name in sets:
                raise DatasetError(
                    f"another set is called {data.name!r}; give it a name of its own"
                )
        except OutputError:
            raise
        except RainmerError as error:
            failures[file] = str(error)
        else:
            sets[data.name], totals[data.name] = data, total
    if not sets:
        raise DatasetError("; ".join(failures.values()))
    return list(sets.values()), totals, failures


def _run_name(sets: Sequence[str], detector: str) -> str:
    joined = "+".join(sets)
    return f"{joined if len(joined) <= _LONGEST_NAME else f'{len(sets)}-sets'}-{detector}"


def measure_sets(bench: Bench) -> None:
    """Measure every set; a set that fails is recorded, and the run continues.

    Raises:
        DatasetError: No set could be measured.
        OutputError: Results cannot be written.
    """
    with _progress(bench) as bar:
        for data in bench.sets:
            try:
                bench.measured.append(_measure(bench, data, bar))
            except OutputError:
                raise  # a full disk affects all sets
            except RainmerError as error:
                bench.failures[data.name] = str(error)
    if not bench.measured:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in bench.failures.items())
        raise DatasetError(f"no set could be measured: {reasons}")


def _progress(bench: Bench) -> tqdm[Any]:
    """Create the progress bar over all frames to derain and detect."""
    rows = len(bench.derainers.names) + 2
    total = sum(
        len(data.samples) * (rows + (bench.labeller is not None and data.annotations is None))
        for data in bench.sets
    )
    return progress_bar(total, quiet=bench.options.quiet)


def _measure(bench: Bench, data: DetectionSet, bar: tqdm[Any]) -> MeasuredSet:
    """Run a set through the comparison of eval.detect and compute its gains."""
    options = bench.options
    rows_folder = bench.folder / "rows" / data.name

    def count(label: str, images: int) -> None:
        advance(bar, f"{data.name}: {label}", images)

    derainers = bench.derainers.for_set(data.name)
    data, truth = _with_truth(bench, data, rows_folder, lambda images: count("labels", images))
    busy_s = sum(derainer.busy_s for derainer in derainers)
    comparison = compare(
        data,
        bench.detector,
        _row_specs(derainers),
        rows_folder,
        # `measure_gains` computes the intervals.
        Settings(count_conf=options.conf, pseudo_conf=options.pseudo_conf, resamples=0),
        times=bench.times,
        progress=count,
    )
    bench.derain_s += sum(derainer.busy_s for derainer in derainers) - busy_s
    bar.set_description(f"{data.name}: bootstrap", refresh=False)
    gains = measure_gains(
        comparison,
        truth=truth,
        conf=options.conf,
        resamples=options.resamples,
        seed=options.seed,
    )
    return MeasuredSet(
        gains,
        comparison.data,
        comparison.data_notes,
        data.annotations is None,
        bench.totals[data.name],
    )


def _with_truth(
    bench: Bench, data: DetectionSet, folder: Path, progress: Callable[[int], None]
) -> tuple[DetectionSet, str]:
    """Return a set and a description of its truth; without boxes, the labeller labels it."""
    options = bench.options
    if data.annotations is not None:
        return data, "the set's boxes"
    if bench.labeller is None or options.labeller is None:
        return data, "pseudo-labels of the detector itself"
    labelled = label_set(
        data,
        bench.labeller,
        options.pseudo_conf,
        folder,
        times=bench.times,
        progress=progress,
    )
    return labelled, f"pseudo-labels of {detector_title(options.labeller)}"


def _row_specs(derainers: Sequence[RowDerainer]) -> list[RowSpec]:
    """List the rows; gains do not need derained clean images."""
    derained = [RowSpec("derained", derainer) for derainer in derainers]
    return [RowSpec("rainy"), RowSpec("clean"), *derained]


def relate(bench: Bench, command: str) -> Relation:
    """Relate gains in restoration to gains in mAP, over all sets measured.

    Args:
        bench: A bench with at least one measured set.
        command: The command line, ready to be run again.
    """
    started = time.perf_counter()
    correlations = _correlations(bench)
    facts = RunFacts(
        command=command,
        date=now(),
        environment=describe_environment(bench.detector.device),
        config={
            **chosen_options(bench.options),
            "detector": bench.detector_spec,
            "imgsz": bench.detector.imgsz,
            "detector_fingerprint": bench.detector.fingerprint,
            "labeller_fingerprint": bench.labeller.fingerprint if bench.labeller else None,
            "derainers": bench.derainers.fingerprints,
        },
        elapsed_s={
            "derain": bench.derain_s,
            "detect": bench.times.total_ms("detect") / 1e3,
            "decode": bench.times.total_ms("decode") / 1e3,
            "correlate": time.perf_counter() - started,
            "wall": time.perf_counter() - bench.started,
        },
        notes=[f"{s.gains.name}: {note}" for s in bench.measured for note in s.notes],
        defects={s.gains.name: s.data.defects for s in bench.measured},
        protocol=_protocol(bench),
    )
    return Relation(
        detector=detector_title(bench.detector_spec),
        sets=bench.measured,
        correlations=correlations,
        failures=bench.failures,
        facts=facts,
    )


def _correlations(bench: Bench) -> list[Correlation]:
    quiet = bench.options.quiet
    with tqdm(desc="correlations", disable=quiet, delay=2, dynamic_ncols=True) as bar:

        def show(steps: int, total: int) -> None:
            bar.total = total
            bar.update(steps - bar.n)

        gains = [measured.gains for measured in bench.measured]
        return correlate(gains, bench.options.seed, show)


def _protocol(bench: Bench) -> dict[str, object]:
    options, detector = bench.options, bench.detector
    return {
        **{key: detector.protocol[key] for key in _SHOWN},
        "mAP": "pycocotools COCOeval, IoU 0.50:0.95",
        "F1 of an image": f"at confidence {options.conf} and IoU 0.5",
        "pseudo-labels from confidence": options.pseudo_conf,
        "bootstrap resamples": options.resamples,
    }
