"""From the frames of a run to its numbers: shots, tracks, changes, rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

import numpy as np

from detection.tracks import track_detections
from detection.types import Detections
from eval.footage.matching import Band, FrameChange, compare_frame, count_bands
from eval.footage.measures import IntArray, Rules, Series, compare_series, cut_blocks
from eval.footage.records import RAINY, FrameResult, as_detections
from eval.footage.teaching import TeacherRow, compare_with_teacher
from eval.footage.tracks import Steadiness, collect_tracks, measure_steadiness
from eval.scores.score import Score
from eval.scores.timing import Timing, timing_of, together

__all__ = ["ALL", "Row", "Shot", "Study", "cut_shots", "study_frames"]

ALL = "all"
"""Name of all shots together."""

_FEWEST_FRAMES = 3  # with two, nothing can be gone for one


@dataclass(frozen=True, eq=False)
class Shot:
    """Consecutive frames of one size from one video or folder.

    Attributes:
        name: Its name, unique in a run.
        frames: Indices of its frames in the run.
        tracked: Whether things are followed through it.
    """

    name: str
    frames: range
    tracked: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """The numbers of one input in one shot, or in all.

    Attributes:
        shot: Name of the shot, or `ALL`.
        derainer: Name of the derainer; `RAINY` for the frames as they are.
        frames, blocks: Number of frames, and of blocks of them.
        detections, tracks: Totals; tracks are those seen at least twice.
        values: The measures by key; see `eval.footage.measures.MEASURES`.
        changes: Their differences to the rainy input.
        kept, gained, lost, raised, lowered: Totals of `FrameChange`.
        ms_derain, ms_detect: Medians per frame, in ms; None: unknown. The detector's is one number
            for all inputs, as they have one size.
        derain_earlier, detect_earlier: Whether an earlier run measured them.
    """

    shot: str
    derainer: str
    frames: int
    blocks: int
    detections: int
    tracks: int
    values: Mapping[str, float | None]
    changes: Mapping[str, Score]
    kept: int
    gained: int
    lost: int
    raised: int
    lowered: int
    ms_derain: float | None
    ms_detect: float | None
    derain_earlier: bool = False
    detect_earlier: bool = False

    @property
    def united(self) -> int:
        """Things that either input shows."""
        return self.kept + self.gained + self.lost

    @property
    def agreement(self) -> float | None:
        """Share of the union that both inputs show."""
        return self.kept / self.united if self.united else None

    @property
    def timings(self) -> tuple[Timing, Timing]:
        """The times of derainer and detector."""
        return (
            Timing(self.ms_derain, earlier=self.derain_earlier),
            Timing(self.ms_detect, earlier=self.detect_earlier),
        )

    @property
    def timing(self) -> Timing:
        """The time of derainer and detector, one after the other."""
        return together(self.timings if self.derainer else self.timings[1:])

    @property
    def frames_per_s(self) -> float | None:
        """Frames per second of derainer and detector, one after the other."""
        return self.timing.rate

    def flat(self) -> dict[str, object]:
        """Return the row as plain data."""
        plain = asdict(self)
        values, changes = plain.pop("values"), plain.pop("changes")
        for key, value in values.items():
            ends = changes[key]
            plain |= {key: value, f"delta_{key}": ends["value"]}
            plain |= {f"{key}_low": ends["low"], f"{key}_high": ends["high"]}
        kind = "derained" if self.derainer else "rainy"
        shares = {"agreement": self.agreement, "frames_per_s": self.frames_per_s}
        return {"shot": self.shot, "input": kind, **plain, **shares}


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that is known about the frames of a run.

    Attributes:
        rules: How numbers were made.
        frames: The frames.
        shots: Their shots.
        inputs: Names of the inputs, `RAINY` first.
        detections: For each input the detections in each frame, weak ones too.
        changes: For each derainer the change in each frame.
        bands: For each derainer its changes by confidence.
        rows: The numbers: all shots together, then each, if there are several.
        teaching: How inputs agree with the teacher; empty without one.
    """

    rules: Rules
    frames: Sequence[FrameResult]
    shots: Sequence[Shot]
    inputs: Sequence[str]
    detections: Mapping[str, Sequence[Detections]]
    changes: Mapping[str, Sequence[FrameChange]]
    bands: Mapping[str, Sequence[Band]]
    rows: Sequence[Row]
    teaching: Sequence[TeacherRow]

    @property
    def derainers(self) -> Sequence[str]:
        """Names of the derainers."""
        return self.inputs[1:]

    @property
    def tracked(self) -> bool:
        """Whether things were followed anywhere."""
        return any(shot.tracked for shot in self.shots)

    def row(self, derainer: str, shot: str = ALL) -> Row:
        """Return one row."""
        return next(row for row in self.rows if (row.derainer, row.shot) == (derainer, shot))


def cut_shots(frames: Sequence[FrameResult], *, stills: bool) -> list[Shot]:
    """Cut frames into shots: by video or folder, and wherever the size changes.

    Args:
        frames: The frames in their order.
        stills: Whether images are no consecutive frames; each folder is one shot then.
    """
    shots: list[Shot] = []
    names: dict[str, int] = {}

    def key(frame: FrameResult) -> tuple[str, object]:
        return frame.shot, None if stills else frame.size_hw

    start = 0
    for (name, _), group in groupby(frames, key):
        count = len(list(group))
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name} ({names[name]})"
        tracked = not stills and count >= _FEWEST_FRAMES
        shots.append(Shot(unique, range(start, start + count), tracked))
        start += count
    return shots


def study_frames(frames: Sequence[FrameResult], inputs: Sequence[str], rules: Rules) -> Study:
    """Compute everything that can be said about the frames of a run.

    Args:
        frames: The frames in their order, at least one.
        inputs: The names of the inputs, `RAINY` first.
        rules: How.

    Raises:
        SpecError: The package that tracking needs is not installed.
    """
    shots = cut_shots(frames, stills=rules.stills)
    detections = {name: [f.inputs[name].detections for f in frames] for name in inputs}
    series = {name: _series(detections[name], frames, shots, rules.conf) for name in inputs}
    changes = {
        name: [
            compare_frame(*pair, rules.conf)
            for pair in zip(detections[RAINY], detections[name], strict=True)
        ]
        for name in inputs
        if name != RAINY
    }
    bands = {
        name: count_bands(
            list(zip(detections[RAINY], detections[name], changes[name], strict=True)), rules.conf
        )
        for name in changes
    }
    rows = [
        row
        for place, chosen in _places(shots)
        for row in _rows(place, chosen, frames, shots, series, changes, rules)
    ]
    teaching = []
    if rules.taught is not None:
        every = _blocks(frames, shots, np.arange(len(frames)), rules.block_s)
        labels = {
            name: [as_detections(frame.inputs[name].labels) for frame in frames] for name in inputs
        }
        teaching = compare_with_teacher(labels, detections, every, rules, rules.taught)
    return Study(rules, frames, shots, inputs, detections, changes, bands, rows, teaching)


def _places(shots: Sequence[Shot]) -> list[tuple[str, IntArray]]:
    """Return the names of rows with the indices of their frames."""
    places = [(shot.name, np.array(shot.frames, np.int64)) for shot in shots]
    every = np.concatenate([frames for _, frames in places])
    return [(ALL, every), *(places if len(places) > 1 else [])]


def _series(
    detections: Sequence[Detections],
    frames: Sequence[FrameResult],
    shots: Sequence[Shot],
    conf: float,
) -> Series:
    """Follow things through every shot of one input."""
    parts: list[Steadiness] = []
    for shot in shots:
        own = [detections[n] for n in shot.frames]
        times = [frames[n].time_s for n in shot.frames]
        numbers = (
            track_detections(own, frames[shot.frames[0]].size_hw, conf=conf) if shot.tracked else []
        )
        tracks = collect_tracks(own, numbers, conf) if shot.tracked else []
        parts.append(measure_steadiness(own, tracks, times, conf))

    def joined(name: str) -> IntArray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Series(
        detections=joined("detections"),
        tracked=np.concatenate([np.full(len(s.frames), int(s.tracked), np.int64) for s in shots]),
        steady=joined("steady"),
        flicker=joined("flicker"),
        breaks=joined("breaks"),
        starts=np.concatenate(
            [part.starts + shot.frames[0] for part, shot in zip(parts, shots, strict=True)]
        ),
        lengths_s=np.concatenate([part.lengths_s for part in parts]),
    )


def _blocks(
    frames: Sequence[FrameResult], shots: Sequence[Shot], chosen: IntArray, block_s: float
) -> IntArray:
    numbers = [n for n, shot in enumerate(shots) for _ in shot.frames]
    return cut_blocks(
        [numbers[i] for i in chosen],
        [shots[numbers[i]].tracked for i in chosen],
        [frames[i].time_s for i in chosen],
        block_s,
    )


def _rows(
    place: str,
    chosen: IntArray,
    frames: Sequence[FrameResult],
    shots: Sequence[Shot],
    series: Mapping[str, Series],
    changes: Mapping[str, Sequence[FrameChange]],
    rules: Rules,
) -> Iterator[Row]:
    """Yield the rows of some frames, one for each input."""
    blocks = _blocks(frames, shots, chosen, rules.block_s)
    rainy = series[RAINY].select(chosen)
    detect = timing_of(
        (record.detect_ms, record.detect_earlier)
        for i in chosen
        for record in frames[i].inputs.values()
    )
    for name, whole in series.items():
        own = rainy if name == RAINY else whole.select(chosen)
        values, differences = compare_series(rainy, own, blocks, rules)
        here = [changes[name][i] for i in chosen] if name != RAINY else []
        gained = sum(len(change.gained) for change in here)
        records = [frames[i].inputs[name] for i in chosen]
        derain = timing_of((record.derain_ms, record.derain_earlier) for record in records)
        yield Row(
            shot=place,
            derainer=name,
            frames=len(chosen),
            blocks=int(blocks.max()) + 1,
            detections=int(own.detections.sum()),
            tracks=len(own.starts),
            values=values,
            changes=differences,
            kept=int(own.detections.sum()) - gained,
            gained=gained,
            lost=sum(len(change.lost) for change in here),
            raised=sum(len(change.raised) for change in here),
            lowered=sum(len(change.lowered) for change in here),
            ms_derain=derain.ms,
            ms_detect=detect.ms,
            derain_earlier=derain.earlier,
            detect_earlier=detect.earlier,
        )
