"""From the frames of a run to its files: numbers first, then pictures, then the report."""

from __future__ import annotations

import time
from collections.abc import Sequence

from eval.cli import chosen_options
from eval.footage.measures import MEASURES, Rules
from eval.footage.output import write_study
from eval.footage.pictures import CLIP, choose, take_second_look
from eval.footage.records import FrameResult
from eval.footage.report import render_footage
from eval.footage.run import Bench
from eval.footage.study import Study, study_frames
from eval.footage.verdicts import UNKNOWN, headline, judge
from eval.report.facts import RunFacts
from eval.report.files import describe_environment, now
from eval.report.parts import Banner
from eval.report.tables import align_table, format_count, format_fixed, format_with_interval, number
from eval.report.timing import EARLIER, TimedOn, format_timing
from eval.street.detector import EMBEDDED
from rainmer.device import resolve_device
from rainmer.files import write_text

__all__ = ["finish"]

_DRAWN = (
    "The embedded detector has learned on drawn streets: on real footage it says little. Give your "
    "own with --detector."
)


def finish(bench: Bench, frames: Sequence[FrameResult], command: str) -> list[str]:
    """Write all files of a run.

    Args:
        bench: What was set up.
        frames: The frames with what all inputs gave.
        command: The command line, ready to be run again.

    Returns:
        The lines to print.

    Raises:
        OutputError: A file cannot be written.
    """
    options, teacher = bench.options, bench.teacher
    rules = Rules(
        conf=options.conf,
        stills=options.stills,
        block_s=options.block,
        resamples=options.resamples,
        seed=options.seed,
        taught=None if teacher is None else teacher.labels,
    )
    study = study_frames(frames, bench.inputs, rules)
    verdicts = judge(study)
    failures = list(bench.footage.failures)
    plan = choose(study, clip_s=options.clip, label_next=options.label_next)
    notes = _notes(bench, study, len(plan.labels))
    write_study(bench.folder, study, verdicts, _facts(bench, study, notes, command), failures)
    strips = take_second_look(bench, study, plan)
    facts = _facts(bench, study, notes, command)
    files = {}
    if plan.clip:
        files[CLIP] = f"{len(plan.clip)} frames side by side, where most changes"
    if plan.labels:
        files["label/"] = f"{len(plan.labels)} frames to label next, with proposals"
    page = render_footage(
        study,
        verdicts,
        facts,
        names=(bench.footage.name, bench.detector.name),
        banners=_banners(bench, study, failures),
        strips=strips,
        files=files,
    )
    write_text(bench.folder / "report.html", page)
    return [
        _table(study),
        _time_note(study, facts.timed_on),
        headline(verdicts),
        verdicts[0].sentence,
        f"not known: {UNKNOWN[0]}",
        *(f"note: {note}" for note in notes),
    ]


def _facts(bench: Bench, study: Study, notes: Sequence[str], command: str) -> RunFacts:
    options = bench.options
    environment = describe_environment(resolve_device(options.device))
    stages = {name: bench.times.total_ms(name) / 1e3 for name in ("decode", "derain", "detect")}
    protocol: dict[str, object] = {
        "confidence": f"{options.conf:g}", "detector input": f"{options.imgsz} pixels",
        "tracker": "ByteTrack, ultralytics' settings", "bootstrap resamples": options.resamples,
    }  # fmt: skip
    if bench.teacher is not None:
        protocol["teacher"] = f"{bench.teacher.name} from confidence {options.teacher_conf:g}"
    return RunFacts(
        command=command,
        date=now(),
        environment=environment,
        config={
            **chosen_options(options),
            "detector_fingerprint": bench.detector_fingerprint,
            "derainers": dict(bench.fingerprints),
        },
        elapsed_s={**stages, "wall": time.perf_counter() - bench.started},
        notes=notes,
        protocol=protocol,
        timed_on=TimedOn.of(
            environment,
            (derainer.precision for derainer in bench.derainers.values()),
            (frame.size_hw for frame in study.frames),
        ),
    )


def _notes(bench: Bench, study: Study, labelled: int) -> list[str]:
    """Say what limits these numbers, beyond what nobody can know."""
    options, notes = bench.options, []
    if options.every > 1:
        notes.append(f"only each {options.every}th frame: things move further, and tracks break")
    short = [shot for shot in study.shots if not shot.tracked]
    if short and not options.stills:
        count = sum(len(shot.frames) for shot in short)
        notes.append(
            f"{count} frames stand alone or in pairs of one size: nothing is followed through them"
        )
    if bench.teacher is not None:
        unknown = [n for i, n in bench.detector.names.items() if i not in bench.teacher.labels]
        if bench.teacher.weights == bench.detector_fingerprint:
            notes.append("the teacher is the detector itself: it confirms what it finds")
        if unknown:
            notes.append(f"classes that the teacher does not know: {', '.join(unknown)}")
    if options.label_next > labelled:
        notes.append(
            f"{labelled} frames to label, not {options.label_next}: there are no more that are a "
            "second apart"
        )
    return notes


def _banners(bench: Bench, study: Study, failures: Sequence[str]) -> list[Banner]:
    banners = []
    if failures:
        lines = {f"{n}": line for n, line in enumerate(failures[:10], start=1)}
        banners.append(Banner(title="Not read in full:", lines=lines))
    if bench.options.detector in EMBEDDED:
        banners.append(Banner(_DRAWN, "A toy detector."))
    return banners


def _time_note(study: Study, timed_on: TimedOn | None) -> str:
    """Say what the times of the table hold for."""
    note = f"ms: medians for a frame{f' on {timed_on.text}' if timed_on else ''}"
    earlier = any(study.row(name).timing.earlier for name in study.inputs)
    return f"{note}; {EARLIER}" if earlier else note


def _table(study: Study) -> str:
    """Return the main numbers for a terminal."""
    head = ["input", "frames", "gained", "lost", *(measure.title for measure in MEASURES), "ms"]
    lines = []
    for name in study.inputs:
        row = study.row(name)
        counts = [row.gained, row.lost] if name else [None, None]
        cells = [name or "rainy", *map(format_count, [row.frames, *counts])]
        for measure in MEASURES:
            value, change = number(row.values[measure.key]), row.changes[measure.key]
            text = "–" if value is None else format_fixed(value, 2)
            if change.value is not None:
                text += f" ({format_with_interval(change, 2, sign='+')})"
            cells.append(text)
        lines.append([*cells, format_timing(row.timing)])
    return align_table(head, lines, 1)
