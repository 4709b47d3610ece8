"""The report of footage: one page, the verdict and what it cannot know first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from eval.footage.figures import timeline_figure, timeline_of
from eval.footage.measures import MEASURES, Measure
from eval.footage.records import RAINY
from eval.footage.study import Row, Study
from eval.footage.verdicts import UNKNOWN, Verdict, headline
from eval.report.colors import series_of
from eval.report.facts import RunFacts
from eval.report.figures import draw_chart
from eval.report.page import render_page
from eval.report.parts import Banner, Cell, Chart, Group, Head, Line, Table, Tile, effect_of
from eval.report.strips import Strip, StripGroup
from eval.report.tables import (
    CONTROLS,
    UNDEFINED,
    format_count,
    format_fixed,
    format_ms,
    format_percent,
    format_with_interval,
    number,
)
from eval.report.timing import EARLIER, TimedOn, format_rate, format_timing
from eval.scores.score import Score

__all__ = ["render_footage"]

_TIMELINE_CAPTION = (
    "Above: detections a frame, rainy and derained. Below: what {derainer} gains (up) and loses "
    "(down) a frame.{meter} Means over short stretches; dashed lines: a new video or folder begins."
)
_METER_CAPTION = " Last: the rain meter."


def render_footage(
    study: Study,
    verdicts: Sequence[Verdict],
    facts: RunFacts,
    *,
    names: tuple[str, str],
    banners: Sequence[Banner],
    strips: Sequence[Strip],
    files: dict[str, str],
) -> str:
    """Render the report as one self-contained HTML page: no other file, no network.

    Args:
        study: The numbers of the run.
        verdicts: What they say, from `judge`.
        facts: How they came about.
        names: Of the footage and of the detector.
        banners: What a reader must know first.
        strips: Pictures of the frames that changed most.
        files: What lies beside the report, as file name and what it is.

    Returns:
        The page's text, to be written as UTF-8.
    """
    pictures = _strip_groups(strips)
    return render_page(
        "footage.html",
        head=_head(study, verdicts, facts, names, banners, has_pictures=bool(pictures)),
        verdicts=verdicts,
        controls=CONTROLS,
        unknown=UNKNOWN,
        timeline=_timeline_chart(study),
        numbers=_number_table(study),
        shots=_shot_table(study),
        union=_union_table(study),
        bands=_band_table(study),
        conf=f"{study.rules.conf:g}",
        teaching=_teacher_table(study),
        strips=pictures,
        costs=_cost_table(study),
        cost_sentence=_cost_sentence(study, facts.timed_on),
        files=files,
        rules=study.rules,
        facts=facts,
    )


def _timeline_chart(study: Study) -> Chart | None:
    timeline = timeline_of(study)
    draw = partial(timeline_figure, timeline, stills=study.rules.stills)
    caption = _TIMELINE_CAPTION.format(
        derainer=timeline.derainer, meter=_METER_CAPTION if timeline.meter else ""
    )
    return draw_chart(draw, "timeline", "Detections over time", caption)


def _head(
    study: Study,
    verdicts: Sequence[Verdict],
    facts: RunFacts,
    names: tuple[str, str],
    banners: Sequence[Banner],
    *,
    has_pictures: bool,
) -> Head:
    """Return the top of the page; it links to the sections that have content."""
    sections = {
        "verdict": ("Verdict", True),
        "timeline": ("Timeline", True),
        "numbers": ("Numbers", True),
        "bands": ("Gained and lost", True),
        "teacher": ("Teacher", study.teaching),
        "pictures": ("Pictures", has_pictures),
        "cost": ("Cost", True),
        "notes": ("Notes", facts.notes),
        "method": ("Method", True),
    }
    footage, detector = names
    return Head(
        title=f"Deraining without labels: {footage}",
        question="Does deraining help on this footage?",
        headline=headline(verdicts),
        lead=_lead(study),
        subjects=[("", footage), ("detector", detector)],
        date=facts.date,
        banners=banners,
        tiles=_tiles(study, verdicts[0].derainer, facts.timed_on),
        sections={anchor: name for anchor, (name, content) in sections.items() if content},
    )


def _lead(study: Study) -> str:
    row = study.row(RAINY)
    seconds = sum(
        study.frames[shot.frames[-1]].time_s - study.frames[shot.frames[0]].time_s
        for shot in study.shots
        if shot.tracked
    )
    text = f"{row.frames} frame{'s' * (row.frames != 1)}"
    text += f", {seconds:.1f} s that things were followed through" if study.tracked else ""
    return f"{text}. Without labels this is evidence, not accuracy: see what it cannot know."


def _tiles(study: Study, derainer: str, timed_on: TimedOn | None) -> list[Tile]:
    """Return the large numbers at the top, of one derainer."""
    before, after = study.row(RAINY), study.row(derainer)
    own = series_of(study.derainers)[derainer]
    tiles = [
        Tile(_level(before, "per_frame"), "detections a frame, rainy", "rainy"),
        Tile(_level(after, "per_frame"), f"detections a frame, {derainer}", own),
    ]
    for key, about in (
        ("steady_per_frame", "more steady detections a frame"),
        ("flicker", "more flicker per 100 detections"),
    ):
        change = after.changes[key]
        value = number(change.value)
        if value is not None:
            words = about if value >= 0 else about.replace("more", "fewer", 1)
            words = words.replace("fewer flicker", "less flicker")
            tiles.append(Tile(format_fixed(abs(value), 2), words))
    agreement = format_percent(after.agreement)
    tiles.append(Tile(f"{agreement} %", "of what either shows is shown by both"))
    words = f"to derain a frame{', timed earlier' if after.derain_earlier else ''}"
    about = f"{words} ({timed_on.short})" if timed_on else words
    tiles.append(Tile(f"{format_ms(after.ms_derain)} ms", about))
    return [tile for tile in tiles if not tile.value.startswith(UNDEFINED)]


def _level(row: Row, key: str, digits: int = 2) -> str:
    value = number(row.values[key])
    return UNDEFINED if value is None else format_fixed(value, digits)


def _change_cell(change: Score, measure: Measure, *, factor: float = 1.0) -> Cell:
    if measure.better is None:
        effect = None
    else:
        effect = effect_of(change, lower_is_better=measure.better == "less")
    return Cell(format_with_interval(change, measure.digits, factor=factor, sign="+"), effect)


def _label(derainer: str) -> str:
    return derainer or "rainy"


def _line(study: Study, derainer: str, cells: Sequence[Cell]) -> Line:
    is_control = derainer in CONTROLS
    key = series_of(study.derainers).get(derainer, "rainy")
    tags = {"control": None} if is_control else {}
    return Line([_label(derainer)], cells, tags, key=f"{key} control" if is_control else key)


def _number_table(study: Study) -> Table:
    """Show every measure of all frames, input by input."""
    groups = []
    for measure in MEASURES:
        rows = [study.row(name) for name in study.inputs]
        lines = [
            _line(
                study,
                row.derainer,
                [
                    Cell(_level(row, measure.key, measure.digits)),
                    _change_cell(row.changes[measure.key], measure) if row.derainer else Cell(""),
                ],
            )
            for row in rows
        ]
        groups.append(Group(lines, measure.title, measure.help))
    lines = [_line(study, name, [Cell(format_count(study.row(name).tracks)), Cell("")])
             for name in study.inputs]  # fmt: skip
    groups.append(Group(lines, "tracks", "things that were followed through two frames or more"))
    return Table(
        about="Numbers of every input",
        texts=["input"],
        numbers=["value", "change"],
        groups=groups,
    )


def _shot_table(study: Study) -> Table | None:
    """Show the main numbers shot by shot; None with a single one."""
    if len(study.shots) < 2:
        return None
    shown = {measure.key: measure for measure in MEASURES}
    groups = []
    for shot in study.shots:
        rows = [study.row(name, shot.name) for name in study.derainers]
        lines = [
            _line(
                study,
                row.derainer,
                [
                    Cell(format_count(row.gained)),
                    Cell(format_count(row.lost)),
                    *(
                        _change_cell(row.changes[key], shown[key])
                        for key in ("steady_per_frame", "flicker")
                    ),
                ],
            )
            for row in rows
        ]
        facts = f"{len(shot.frames)} frames{'' if shot.tracked else ', nothing followed'}"
        groups.append(Group(lines, shot.name, facts))
    return Table(
        about="Numbers of every video and folder",
        texts=["derainer"],
        numbers=["gained", "lost", "Δ steady a frame", "Δ flicker per 100"],
        groups=groups,
    )


def _union_table(study: Study) -> Table:
    """Show how much of what either version shows each of the two shows."""
    lines = []
    for name in study.derainers:
        row = study.row(name)
        shares = [row.agreement]
        shares += [
            (row.kept + own) / row.united if row.united else None for own in (row.lost, row.gained)
        ]
        counts = [row.united, row.kept, row.gained, row.lost]
        cells = [*map(format_count, counts), *map(format_percent, shares)]
        lines.append(_line(study, name, list(map(Cell, cells))))
    return Table(
        about="What both versions of the frames show",
        texts=["derainer"],
        numbers=["union", "in both", "gained", "lost", "both (%)", "rainy (%)", "derained (%)"],
        groups=[Group(lines)],
        caption="Detections of either version together (the union), and the share that each finds",
    )


def _band_table(study: Study) -> Table:
    """Show gains and losses by confidence."""
    groups = []
    for name, bands in study.bands.items():
        lines = [
            Line(
                [f"{band.low:g} to {band.high:g}"],
                [
                    Cell(format_count(count))
                    for count in (
                        band.rainy,
                        band.derained,
                        band.gained,
                        band.raised,
                        band.lost,
                        band.lowered,
                    )
                ],
            )
            for band in bands
        ]
        groups.append(Group(lines, name))
    return Table(
        about="Detections gained and lost by confidence",
        texts=["confidence"],
        numbers=["rainy", "derained", "gained", "weaker before", "lost", "weaker now"],
        groups=groups,
    )


def _teacher_table(study: Study) -> Table | None:
    """Show the agreement with the teacher, by the input that it labelled."""
    if not study.teaching:
        return None
    groups = []
    for labelled in study.inputs:
        rows = [row for row in study.teaching if row.labelled == labelled]
        lines = [
            _line(
                study,
                row.derainer,
                [
                    Cell(format_percent(row.recall)),
                    Cell(
                        format_with_interval(row.change, 1, factor=100, sign="+"),
                        effect_of(row.change),
                    )
                    if row.derainer
                    else Cell(""),
                    Cell(format_percent(row.precision)),
                ],
            )
            for row in rows
        ]
        title = f"labels made on {_label(labelled)} frames" if not labelled else f"… on {labelled}"
        groups.append(Group(lines, title, f"{rows[0].labels} labels"))
    return Table(
        about="Agreement with the teacher",
        texts=["the detector sees"],
        numbers=["finds (%)", "Δ points", "confirmed (%)"],
        groups=groups,
    )


def _cost_table(study: Study) -> Table:
    lines = []
    for name in study.inputs:
        row = study.row(name)
        derain, detect = map(format_timing, row.timings)
        cells = [derain if name else "", detect, format_rate(row.timing)]
        lines.append(_line(study, name, list(map(Cell, cells))))
    return Table(
        about="Time per frame",
        texts=["input"],
        numbers=["derain (ms)", "detect (ms)", "frames/s"],
        groups=[Group(lines)],
    )


def _cost_sentence(study: Study, timed_on: TimedOn | None) -> str:
    before, after = study.row(RAINY).timing, study.row(study.derainers[0]).timing
    if before.rate is None or after.rate is None:
        return "Times are unknown."
    place = f", on {timed_on.text}" if timed_on else ""
    earlier = any(study.row(name).timing.earlier for name in study.inputs)
    return (
        f"{format_rate(before)} frames a second without deraining, {format_rate(after)} with "
        f"{study.derainers[0]}: medians, derainer and detector one after the other{place}. The "
        "detector's time is one median over all inputs, as they have one size."
        f"{f' {EARLIER}.' if earlier else ''}"
    )


def _strip_groups(strips: Sequence[Strip]) -> list[StripGroup]:
    groups = []
    for sign, kind, title in (
        (1, "gain", "Where most detections were gained"),
        (-1, "loss", "Where most detections were lost"),
    ):
        chosen = [strip for strip in strips if sign * strip.gain > 0]
        if chosen:
            groups.append(StripGroup(title, sorted(chosen, key=lambda s: -abs(s.gain)), kind))
    return groups
