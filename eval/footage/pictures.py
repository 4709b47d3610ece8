"""A second look at chosen frames: strips for the report, a clip, images to label."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from detection.draw import draw_detections, side_by_side
from detection.run.saving import count_boxes
from detection.types import Detections
from eval.footage.frames import FootageFrame
from eval.footage.labelling import LabelFolder
from eval.footage.matching import union
from eval.footage.picking import busiest_stretch, changed_most, most_informative
from eval.footage.records import RAINY
from eval.footage.run import Bench
from eval.footage.study import Study
from eval.report.strips import Mark, Outcome, Panel, Strip
from rainmer.cli import progress_bar
from rainmer.frames.arrays import Frame
from rainmer.frames.video import VideoWriter

__all__ = ["CLIP", "Plan", "choose", "take_second_look"]

CLIP = "clip.mp4"

_GAINS, _LOSSES, _DERAINERS = 4, 4, 3
_WIDEST = 1920


@dataclass(frozen=True)
class Plan:
    """Which frames are looked at again, by their indices.

    Attributes:
        strips: For each derainer the frames of its strips, gains first.
        clip: Consecutive frames of the clip; empty: none.
        labels: Frames to label, with their informativeness.
    """

    strips: Mapping[str, Sequence[int]] = field(default_factory=dict)
    clip: range = range(0)
    labels: Mapping[int, float] = field(default_factory=dict)

    @property
    def frames(self) -> set[int]:
        """All of them."""
        return {n for own in self.strips.values() for n in own} | {*self.clip} | {*self.labels}


def choose(study: Study, *, clip_s: float, label_next: int) -> Plan:
    """Choose what to show of a run; clip and labels are about its first derainer.

    Args:
        study: The numbers of the run.
        clip_s: Length of the clip in seconds; 0: none.
        label_next: How many frames to label; 0: none.
    """
    first = study.derainers[0]
    share = len(study.derainers[:_DERAINERS])
    return Plan(
        strips={
            name: changed_most(study, name, -(-_GAINS // share), -(-_LOSSES // share))
            for name in study.derainers[:_DERAINERS]
        },
        clip=busiest_stretch(study, first, clip_s),
        labels=most_informative(study, first, label_next) if label_next else {},
    )


def take_second_look(bench: Bench, study: Study, plan: Plan) -> list[Strip]:
    """Read the chosen frames again; write clip and labels, and return the strips.

    Raises:
        OutputError: A file cannot be written.
    """
    numbers = {study.frames[n].key: n for n in plan.frames}
    pictures: dict[tuple[str, int], tuple[Frame, Frame]] = {}
    labels = None
    if plan.labels:
        labels = LabelFolder(bench.folder / "label", bench.footage.name, bench.detector.names)
    with contextlib.ExitStack() as stack:
        clip = stack.enter_context(_Clip(bench, study, plan.clip))
        bar = progress_bar(len(numbers), quiet=bench.options.quiet, unit="frame", name="pictures")
        stack.enter_context(bar)
        for frame in bench.footage.again(numbers, len(numbers)):
            n = numbers[frame.key]
            derained: dict[str, Frame] = {}
            names = [name for name, own in plan.strips.items() if n in own]
            if n in plan.clip:
                names.append(study.derainers[0])
            for name in dict.fromkeys(names):
                derained[name] = bench.derainers[name]([frame.image], [frame.key.name])[0].frame
            for name in plan.strips:
                if n in plan.strips[name]:
                    pictures[name, n] = frame.image, derained[name]
            if n in plan.clip:
                clip.add(n, frame, derained[study.derainers[0]])
            if labels is not None and n in plan.labels:
                labels.add(study.frames[n], frame.image, _proposals(study, n), plan.labels[n])
            bar.update(1)
    if labels is not None:
        labels.finish()
    return [
        _strip(study, bench.detector.names, name, n, pictures[name, n])
        for name, own in plan.strips.items()
        for n in own
        if (name, n) in pictures
    ]


def _proposals(study: Study, n: int) -> Detections:
    """Return what the rainy frame and its first derained version show together."""
    first = study.derainers[0]
    sides = study.detections[RAINY][n], study.detections[first][n]
    return union(*sides, study.changes[first][n])


def _strip(
    study: Study, names: Mapping[int, str], derainer: str, n: int, pictures: tuple[Frame, Frame]
) -> Strip:
    change = study.changes[derainer][n]
    sides: tuple[tuple[str, Sequence[int], Outcome, Sequence[int], str], ...] = (
        (RAINY, [i for i, _ in change.kept], "false", change.lost, "lost"),
        (derainer, [j for _, j in change.kept], "missed", change.gained, "gained"),
    )
    panels = []
    for picture, (label, kept, kind, own, word) in zip(pictures, sides, strict=True):
        found = study.detections[label][n]
        marks = [*_marks(found, kept, "found", names), *_marks(found, own, kind, names)]
        caption = f"{len(kept)} in both, {len(own)} {word}"
        panels.append(Panel(label or "rainy", picture, marks, caption))
    frame = study.frames[n]
    when = frame.key.name if study.rules.stills else f"{frame.time_s:.2f} s"
    gain = len(change.gained) - len(change.lost)
    return Strip(f"{frame.shot}, {when}", "", derainer, gain, panels, unit="detections")


def _marks(
    detections: Detections, chosen: Sequence[int], kind: Outcome, names: Mapping[int, str]
) -> list[Mark]:
    return [
        Mark(
            tuple(detections.boxes_xyxy[i].tolist()),
            kind,
            names.get(int(detections.labels[i]), str(detections.labels[i])),
            float(detections.scores[i]),
        )
        for i in chosen
    ]


class _Clip(contextlib.ExitStack):
    """Writes the clip: rainy and derained frames side by side, with what the detector finds."""

    def __init__(self, bench: Bench, study: Study, frames: range) -> None:
        super().__init__()
        self._bench, self._study = bench, study
        self._writer: VideoWriter | None = None
        times = [study.frames[n].time_s for n in frames]
        self._start_s = times[0] if times else 0.0
        self._fps = 1 / float(np.median(np.diff(times))) if len(times) > 1 else bench.footage.fps

    def add(self, n: int, frame: FootageFrame, derained: Frame) -> None:
        """Draw and write a frame."""
        conf, name = self._study.rules.conf, self._study.derainers[0]
        drawn, captions = [], []
        for title, label, image in (("rainy", RAINY, frame.image), (name, name, derained)):
            found = self._study.detections[label][n]
            sure = found.select(found.scores >= conf)
            drawn.append(draw_detections(image, sure, self._bench.detector.names))
            captions.append(f"{title}: {count_boxes(len(sure))}")
        picture = side_by_side(drawn, captions)
        scale = _WIDEST / picture.shape[1]
        if scale < 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if self._writer is None:
            path = Path(self._bench.folder, CLIP)
            size_hw = (picture.shape[0], picture.shape[1])
            self._writer = self.enter_context(VideoWriter(path, fps=self._fps, size_hw=size_hw))
        self._writer.write(picture, frame.time_s - self._start_s)
