"""How each input agrees with the labels of a teacher, which it made on every input."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detection.types import Detections
from eval.footage.measures import IntArray, Rules, block_weights, change_of, ratio
from eval.footage.records import RAINY
from eval.footage.teacher import agree
from eval.scores.score import Score

__all__ = ["TeacherRow", "compare_with_teacher"]


@dataclass(frozen=True, kw_only=True)
class TeacherRow:
    """How one input agrees with labels that the teacher made.

    Attributes:
        labelled: On which input it made them: `RAINY` or a derainer's name.
        derainer: Which input the detector saw.
        labels: Number of labels.
        recall: Share of the labels that the detector finds; None without labels.
        precision: Share of the detections that have a label; None without detections.
        change: Difference of the recall to that of the rainy input.
    """

    labelled: str
    derainer: str
    labels: int
    recall: float | None
    precision: float | None
    change: Score


def compare_with_teacher(
    labels: Mapping[str, Sequence[Detections]],
    detections: Mapping[str, Sequence[Detections]],
    blocks: IntArray,
    rules: Rules,
    classes: Collection[int],
) -> list[TeacherRow]:
    """Compare what the detector finds in every input with the labels made on every input.

    Args:
        labels: For each input the labels in each frame, `RAINY` first.
        detections: For each input the detections in each frame, `RAINY` first.
        blocks: (F,) blocks of the bootstrap.
        rules: How.
        classes: The classes that the teacher knows.
    """
    weights = block_weights(blocks, rules)
    rows = []
    for labelled, truth in labels.items():
        recalls = {}
        for name, found in detections.items():
            counts = np.array(
                [agree(*pair, rules.conf, classes) for pair in zip(truth, found, strict=True)]
            )
            found_n, labels_n, detections_n = (
                weights @ np.bincount(blocks, column, weights.shape[1]) for column in counts.T
            )
            recalls[name] = ratio(found_n, labels_n)
            rows.append(
                TeacherRow(
                    labelled=labelled,
                    derainer=name,
                    labels=int(labels_n[0]),
                    recall=_defined(recalls[name][0]),
                    precision=_defined(ratio(found_n, detections_n)[0]),
                    change=Score() if name == RAINY else change_of(recalls[name], recalls[RAINY]),
                )
            )
    return rows


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
